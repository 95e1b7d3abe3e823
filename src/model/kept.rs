//! What is kept between runs, as it is shown.

use jiff::Timestamp;

use super::finding::Severity;

/// A value of one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// when it was measured
    pub taken: Timestamp,
    /// how much it was, in the unit of the measure
    pub value: f64,
    /// which boot of the machine it is of: counted from 0 in the order in which they were first seen
    pub boot: u32,
}

/// What is known of one measure over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// the name of the measure
    pub name: String,
    /// what was measured, oldest first
    pub points: Vec<Point>,
}

/// A finding that began, became better or worse, or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// when that was seen
    pub taken: Timestamp,
    /// the detector
    pub id: String,
    /// about what, in words that stay the same from run to run
    pub subject: String,
    /// how bad it was; `None` if it was not there
    pub from: Option<Severity>,
    /// how bad it is; `None` if it has ended
    pub to: Option<Severity>,
    /// what was found
    pub title: String,
}

/// The least, the mean, and the most of some values, and the last of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// the lowest
    pub min: f64,
    /// the mean
    pub mean: f64,
    /// the highest
    pub max: f64,
    /// when the highest was first seen
    pub max_at: Timestamp,
    /// the last
    pub last: f64,
    /// when the last was measured
    pub last_at: Timestamp,
}

impl Series {
    /// Its spread; `None` where nothing is known.
    pub fn spread(&self) -> Option<Spread> {
        spread(&self.points)
    }

    /// How far apart two measurements usually are, milliseconds: the median. `None` with less than two.
    fn step_ms(&self) -> Option<i64> {
        let pairs = self.points.iter().zip(self.points.iter().skip(1));
        let mut gaps: Vec<i64> = pairs
            .filter(|(a, b)| a.boot == b.boot)
            .map(|(a, b)| b.taken.as_millisecond() - a.taken.as_millisecond())
            .collect();
        gaps.sort_unstable();
        gaps.get(gaps.len() / 2).copied()
    }

    /// The spread in each of `columns` equal parts of the time from `since` to `until`; `None` where nothing is known. A
    /// measurement stands for the time until the next one, unless that took much longer than usual to come: then nobody
    /// looked in between.
    pub fn columns(
        &self,
        since: Timestamp,
        until: Timestamp,
        columns: usize,
    ) -> Vec<Option<Spread>> {
        let (from, to) = (since.as_millisecond(), until.as_millisecond());
        let mut parts: Vec<Vec<Point>> = vec![Vec::new(); columns];
        let room = i64::try_from(columns).unwrap_or(i64::MAX);
        if to <= from || room == 0 {
            return vec![None; columns];
        }
        let column = |at: i64| {
            let place = i128::from(at - from) * i128::from(room) / i128::from(to - from);
            usize::try_from(place).ok()
        };
        let reach = self.step_ms().map_or(0, |step| step.saturating_mul(5) / 2);
        for (at, point) in self.points.iter().enumerate() {
            let begin = point.taken.as_millisecond();
            if begin >= to {
                break;
            }
            let next = self
                .points
                .get(at + 1)
                .filter(|next| next.boot == point.boot);
            let end = match next.map(|next| next.taken.as_millisecond()) {
                Some(next) if next - begin <= reach => next,
                _ => begin + 1,
            };
            if end <= from {
                continue;
            }
            let (first, last) = (column(begin.max(from)), column((end - 1).min(to - 1)));
            let (Some(first), Some(last)) = (first, last) else {
                continue;
            };
            for part in parts.get_mut(first..=last).unwrap_or_default() {
                part.push(*point);
            }
        }
        parts.iter().map(|points| spread(points)).collect()
    }
}

fn spread(points: &[Point]) -> Option<Spread> {
    let (first, last) = points.first().zip(points.last())?;
    let mut spread = Spread {
        min: first.value,
        mean: 0.0,
        max: first.value,
        max_at: first.taken,
        last: last.value,
        last_at: last.taken,
    };
    for point in points {
        spread.min = spread.min.min(point.value);
        if point.value > spread.max {
            (spread.max, spread.max_at) = (point.value, point.taken);
        }
        spread.mean += point.value / points.len() as f64;
    }
    Some(spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn series(points: &[(i64, f64, u32)]) -> Series {
        let points = points.iter().map(|(second, value, boot)| Point {
            taken: at(*second),
            value: *value,
            boot: *boot,
        });
        Series {
            name: "tcp.close-wait".to_owned(),
            points: points.collect(),
        }
    }

    #[test]
    fn the_spread_says_when_it_was_worst() {
        let spread = series(&[(0, 1.0, 0), (10, 7.0, 0), (20, 4.0, 0)])
            .spread()
            .unwrap();
        assert_eq!((spread.min, spread.mean, spread.max), (1.0, 4.0, 7.0));
        assert_eq!(
            (spread.max_at, spread.last, spread.last_at),
            (at(10), 4.0, at(20))
        );
        assert_eq!(Series::default().spread(), None);
    }

    fn lasts(series: &Series, since: i64, until: i64, columns: usize) -> Vec<Option<f64>> {
        let columns = series.columns(at(since), at(until), columns);
        columns
            .iter()
            .map(|part| part.map(|part| part.last))
            .collect()
    }

    #[test]
    fn a_measurement_stands_until_the_next_one() {
        let every_ten = series(&[(0, 1.0, 0), (10, 2.0, 0), (20, 3.0, 0)]);
        let known = [1.0, 1.0, 2.0, 2.0, 3.0].map(Some);
        assert_eq!(lasts(&every_ten, 0, 25, 5), known);
        assert_eq!(lasts(&every_ten, 5, 25, 2), [Some(2.0), Some(3.0)]);
    }

    #[test]
    fn what_nobody_looked_at_and_another_boot_are_gaps() {
        let away = series(&[
            (0, 1.0, 0),
            (10, 1.0, 0),
            (20, 1.0, 0),
            (60, 5.0, 0),
            (70, 5.0, 0),
        ]);
        let seen = lasts(&away, 0, 80, 8);
        let expected = [
            Some(1.0),
            Some(1.0),
            Some(1.0),
            None,
            None,
            None,
            Some(5.0),
            Some(5.0),
        ];
        assert_eq!(seen, expected);
        let booted = series(&[(0, 1.0, 0), (10, 1.0, 0), (20, 5.0, 1), (30, 5.0, 1)]);
        assert_eq!(lasts(&booted, 0, 40, 8).iter().flatten().count(), 6);
    }

    #[test]
    fn odd_times_are_survived() {
        assert_eq!(
            lasts(&series(&[(5, 1.0, 0)]), 10, 10, 3),
            [None, None, None]
        );
        assert_eq!(lasts(&series(&[(5, 1.0, 0)]), 0, 10, 0), []);
        assert_eq!(lasts(&series(&[(50, 1.0, 0)]), 0, 10, 2), [None, None]);
        let back = series(&[(9, 1.0, 0), (3, 2.0, 0)]);
        assert_eq!(lasts(&back, 0, 10, 1), [Some(2.0)]);
    }
}
