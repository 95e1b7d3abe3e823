//! Which of the earlier samples are kept: all of lately, fewer of long ago.

use jiff::Timestamp;

use super::{History, Sample};

/// How many earlier samples are kept.
pub const KEPT: usize = 60;

/// Of these so many of the last ones as they came; older ones get sparser with their age.
const RECENT: usize = 12;

/// What is older than this gives way before anything else, seconds.
const REACH: f64 = 7200.0;

/// Which sample can be spared: the oldest one if it is too old, else the one whose neighbours are the closest for their
/// age. The time between two that stay so grows with their age, and 60 reach back for hours.
pub fn spare<T>(samples: &[T], taken: fn(&T) -> Timestamp) -> usize {
    let Some((newest, oldest)) = samples.last().zip(samples.first()) else {
        return 0;
    };
    let seconds = |from: &T, to: &T| taken(to).duration_since(taken(from)).as_secs_f64();
    if seconds(oldest, newest) > REACH {
        return 0;
    }
    let old = samples.get(..samples.len().saturating_sub(RECENT) + 1);
    let inner = old.unwrap_or_default().windows(3).enumerate();
    let sparse = inner.filter_map(|(at, window)| {
        let [before, this, after] = window else {
            return None;
        };
        let gap = seconds(before, after) / seconds(this, newest).max(0.001);
        Some((at + 1, gap))
    });
    let closest = sparse.min_by(|(_, a), (_, b)| a.total_cmp(b));
    closest.map_or(0, |(at, _)| at)
}

impl History {
    /// Forgets samples until those that are left remember `most` identities at most, or one only is left: many stuck sockets
    /// make samples large, and whoever looks for days must not keep sixty of them.
    pub fn bound(&mut self, most: usize) {
        let mut kept: usize = self.earlier.iter().map(Sample::identities).sum();
        while kept > most && self.earlier.len() > 1 {
            let spared = spare(&self.earlier, |sample| sample.taken).min(self.earlier.len() - 2);
            kept -= self.earlier.remove(spared).identities();
        }
    }
}

impl Sample {
    /// How many sockets, processes and destinations it remembers.
    fn identities(&self) -> usize {
        let held = [
            &self.close_wait,
            &self.fin_wait_2,
            &self.closing,
            &self.probed,
        ];
        let queues = [&self.udp, &self.unix];
        held.iter().map(|held| held.len()).sum::<usize>()
            + queues
                .iter()
                .filter_map(|queues| Some(queues.as_ref()?.len()))
                .sum::<usize>()
            + self.listeners.len()
            + self.listening.len()
            + self.bound.len()
            + self.descriptors.len()
            + self.syn_sent.len()
            + self.established.len()
            + self.talking.len()
            + self.flows.len()
            + self.ports.len()
            + self.resent.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(seconds: impl Iterator<Item = i64>) -> Vec<i64> {
        let mut history = History::default();
        for second in seconds {
            history.push(Sample {
                taken: Timestamp::from_second(second).unwrap(),
                ..Sample::default()
            });
            assert!(history.earlier().len() <= KEPT);
        }
        let taken = history.earlier().iter();
        taken.map(|sample| sample.taken.as_second()).collect()
    }

    #[test]
    fn large_samples_are_kept_fewer_and_the_last_one_always() {
        let of = |n: u64| {
            let mut history = History::default();
            for second in 0..10 {
                history.push(Sample {
                    taken: Timestamp::from_second(second).unwrap(),
                    bound: (0..n).collect(),
                    ..Sample::default()
                });
                history.bound(100);
            }
            let last = history.earlier().last().unwrap();
            assert_eq!(last.taken.as_second(), 9);
            history.earlier().len()
        };
        assert_eq!([of(10), of(11), of(50), of(51), of(500)], [10, 9, 2, 1, 1]);
    }

    #[test]
    fn a_look_a_second_reaches_back_for_hours_and_the_last_dozen_stays() {
        assert_eq!(remembered(0..60), (0..60).collect::<Vec<_>>());
        for end in [61, 100, 600, 3600, 7000, 20_000] {
            let kept = remembered(0..end);
            let recent = kept.last_chunk::<RECENT>().unwrap();
            assert!(recent.iter().copied().eq(end - 12..end), "{end}: {kept:?}");
            assert!(kept.is_sorted() && kept.len() == KEPT);
            let oldest = kept[0];
            assert!(oldest <= (end - 3600).max(0), "{end}: {oldest}");
            assert!(end - 1 - oldest <= 7200, "{end}: {oldest}");
            // The time between two is a part of their age, whatever that is.
            for pair in kept.windows(2) {
                let (age, gap) = (end - pair[0], pair[1] - pair[0]);
                assert!(gap <= 1 + age / 3, "{end}: {gap} s at {age} s: {kept:?}");
            }
        }
    }

    #[test]
    fn looks_that_are_far_between_are_kept_as_they_are() {
        let hourly = remembered((0..100).map(|hour| hour * 3600));
        assert_eq!(hourly.len(), KEPT);
        assert!(hourly.iter().copied().eq((40..100).map(|hour| hour * 3600)));
    }

    #[test]
    fn a_clock_that_was_set_back_harms_nothing() {
        let kept = remembered((5000..5100).chain(0..100));
        assert_eq!(kept.len(), KEPT);
        assert!(kept.ends_with(&(88..100).collect::<Vec<_>>()));
    }
}
