//! A measure over time as columns of bars, with its scale at the left and its times below.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::amount;
use crate::model::{Series, Spread};
use crate::render::findings::Screen;

/// Rows of the bars.
const ROWS: u64 = 10;

/// How far apart times below the bars stand, columns.
const APART: usize = 16;

/// The levels of a sign, from the least to a full one.
pub fn levels(unicode: bool) -> [char; 8] {
    if unicode {
        ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
    } else {
        ['_', '.', ':', '-', '=', '+', '*', '#']
    }
}

/// The highest of each column as one line: a blank where nothing is known, the lowest sign for nothing at all.
pub fn sparkline(columns: &[Option<Spread>], unicode: bool) -> String {
    let most = columns
        .iter()
        .flatten()
        .map(|part| part.max)
        .fold(0.0, f64::max);
    let levels = levels(unicode);
    let sign = |part: &Option<Spread>| {
        let Some(part) = part else { return ' ' };
        let level = if most > 0.0 {
            (part.max.max(0.0) / most * 7.0).ceil()
        } else {
            0.0
        };
        levels.get(level as usize).copied().unwrap_or(' ')
    };
    columns.iter().map(sign).collect()
}

/// The bars of `series` from `since` to `until`: the highest value of each column; `·` below where nothing is known.
pub fn draw(
    series: &Series,
    since: Timestamp,
    until: Timestamp,
    zone: &TimeZone,
    screen: Screen,
) -> Vec<String> {
    let whole = series.columns(since, until, 1);
    let (mut most, mut least) = whole
        .iter()
        .flatten()
        .fold((0.0f64, 0.0f64), |(most, least), part| {
            (most.max(part.max), least.min(part.min))
        });
    if !(most - least).is_normal() {
        (most, least) = (1.0, 0.0);
    }
    let label = amount(&series.name, most)
        .len()
        .max(amount(&series.name, least).len());
    let room = screen.width.min(200).saturating_sub(label + 2).max(APART);
    let columns = series.columns(since, until, room);
    let (axis, unknown) = if screen.unicode {
        ('│', '·')
    } else {
        ('|', '?')
    };
    let levels = levels(screen.unicode);
    let steps = levels.len() as u64;
    let mut lines = Vec::new();
    for row in (0..ROWS).rev() {
        let text = match row {
            0 => amount(&series.name, least),
            row if row + 1 == ROWS => amount(&series.name, most),
            _ => String::new(),
        };
        let floor = row * steps;
        let sign = |part: &Option<Spread>| {
            let Some(part) = part else {
                return if row == 0 { unknown } else { ' ' };
            };
            let share = (part.max - least) / (most - least);
            let height = (share * (ROWS * steps) as f64).ceil() as u64;
            // What is there is seen, and so is that somebody looked.
            let above = height.max(1).saturating_sub(floor).min(steps);
            let level = usize::try_from(above).unwrap_or(0).checked_sub(1);
            level
                .and_then(|level| levels.get(level))
                .copied()
                .unwrap_or(' ')
        };
        let bars: String = columns.iter().map(sign).collect();
        lines.push(format!("{text:>label$} {axis}{bars}").trim_end().to_owned());
    }
    lines.push(times(since, until, label + 2, room, zone));
    lines
}

/// The times below the bars, each beginning below the column that it is about.
fn times(
    since: Timestamp,
    until: Timestamp,
    margin: usize,
    room: usize,
    zone: &TimeZone,
) -> String {
    let long = until.duration_since(since).as_secs() > 86_400;
    let format = if long { "%m-%d %H:%M" } else { "%H:%M:%S" };
    let span = until.as_millisecond() - since.as_millisecond();
    let mut line = " ".repeat(margin);
    let mut at = 0;
    while at + format.len() <= room {
        let ms = i128::from(span) * at as i128 / (room as i128).max(1);
        let ms = i64::try_from(ms).unwrap_or(0) + since.as_millisecond();
        let Ok(taken) = Timestamp::from_millisecond(ms) else {
            break;
        };
        let text = taken.to_zoned(zone.clone()).strftime(format).to_string();
        if at + text.len() > room {
            break;
        }
        line.push_str(&" ".repeat((margin + at).saturating_sub(line.len())));
        line.push_str(&text);
        at += APART;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Point;
    use crate::render::paint::Paint;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn rising() -> Series {
        let points = (0..40).filter(|n| !(20..26).contains(n)).map(|n| Point {
            taken: at(n * 60),
            value: n as f64 * 2.0,
            boot: 0,
        });
        Series {
            name: "tcp.close-wait".to_owned(),
            points: points.collect(),
        }
    }

    fn screen(unicode: bool) -> Screen {
        Screen {
            width: 44,
            unicode,
            paint: Paint(false),
        }
    }

    #[test]
    fn bars_rise_and_a_gap_is_no_zero() {
        let lines = draw(&rising(), at(0), at(2400), &TimeZone::UTC, screen(true));
        assert_eq!(lines.len(), 11);
        assert!(lines[0].starts_with("78 │"), "{lines:#?}");
        assert!(lines[9].starts_with(" 0 │▁"), "{lines:#?}");
        assert!(lines[9].contains('·'), "{lines:#?}");
        assert!(lines[0].ends_with('█'), "{lines:#?}");
        assert_eq!(
            lines[10], "    00:00:00        00:16:00        00:32:00",
            "{lines:#?}"
        );
        assert!(lines.iter().all(|line| line.chars().count() <= 44));
    }

    #[test]
    fn ascii_is_ascii() {
        let lines = draw(&rising(), at(0), at(2400), &TimeZone::UTC, screen(false));
        assert!(lines.iter().all(|line| line.is_ascii()), "{lines:#?}");
    }

    #[test]
    fn nothing_but_zeros_is_a_line_at_the_bottom() {
        let mut flat = rising();
        for point in &mut flat.points {
            point.value = 0.0;
        }
        let lines = draw(&flat, at(0), at(1140), &TimeZone::UTC, screen(true));
        assert!(lines[9].ends_with("▁▁"), "{lines:#?}");
        assert!(lines[8].ends_with('│'), "{lines:#?}");
    }

    #[test]
    fn a_sparkline_is_a_sign_a_column() {
        let columns = rising().columns(at(0), at(2400), 8);
        assert_eq!(sparkline(&columns, true), "▂▃▄▅ ▇██");
        assert_eq!(sparkline(&[None, None], true), "  ");
    }
}
