//! Counters over the looks: by how much they rose, how fast, and whether that goes on.

use super::{Context, Moved, ONE_LOOK, Verdict, words};
use crate::model::{Evidence, Facts};

/// By how much the counters of one cause rose between the two looks.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// so much
    pub moved: u64,
    /// in so many seconds
    pub seconds: f64,
}

impl Rate {
    /// Of the counters in `names` together; those that are not known are left out.
    pub fn of(context: &Context<'_>, names: &[&str]) -> Self {
        Self {
            moved: context.moved(names).by().unwrap_or(0),
            seconds: context.seconds().unwrap_or(1.0),
        }
    }

    /// How fast. In less than a second one event makes no rate: it counts as one in a second.
    pub fn per_second(&self) -> f64 {
        self.moved as f64 / self.seconds.max(1.0)
    }

    /// The time between the looks, in words.
    pub fn window(&self) -> String {
        words::time((self.seconds * 1000.0) as u64)
    }

    /// The time between the looks, as evidence.
    pub fn evidence(&self) -> Evidence {
        Evidence::real("window", self.seconds, "s", "two looks")
    }
}

/// The answer where the counters in `names` leave nothing to judge: they have not moved, or nobody can say by how much.
/// `what` they count.
pub fn settled(context: &Context<'_>, names: &[&str], what: &str) -> Option<Verdict> {
    match context.moved(names) {
        Moved::By(0) => Some(Verdict::Quiet),
        Moved::By(_) => None,
        Moved::OneLook => Some(Verdict::CannotTell(ONE_LOOK.to_owned())),
        Moved::NotCounted => Some(Verdict::CannotTell(format!(
            "the counters of {what} could not be read"
        ))),
    }
}

/// Whether the counters rose in each of the last two intervals between looks: what goes on, not one burst.
pub fn lasts(context: &Context<'_>, names: &[&str]) -> bool {
    let earlier = context.history.earlier().iter().map(|sample| &sample.facts);
    let pulse = context.history.pulse().map(|pulse| &pulse.facts);
    let looks: Vec<&Facts> = earlier
        .chain([&context.sample.facts])
        .chain(pulse)
        .collect();
    let sum = |facts: &Facts| {
        let values = names.iter().filter_map(|name| facts.counter(name));
        values.fold(0, i64::saturating_add)
    };
    let [.., first, second, third] = looks.as_slice() else {
        return false;
    };
    sum(first) < sum(second) && sum(second) < sum(third)
}

/// The counters that rose, as evidence: name, counter, and of what.
pub fn evidence(
    context: &Context<'_>,
    counters: &[(&'static str, &'static str, &'static str)],
) -> Vec<Evidence> {
    counters
        .iter()
        .filter_map(|(name, counter, unit)| {
            let moved = context.moved(&[counter]).by().filter(|moved| *moved > 0)?;
            Some(Evidence::count(name, moved, unit, counter))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Scenario;
    use super::super::{AgeFacts, Sample, Tally};
    use super::*;

    const DROPPED: &[&str] = &["Softnet.dropped"];

    /// Looks at which the counter had these values, a minute apart, the last one a light one.
    fn goes_on(values: &[i64], last: i64) -> bool {
        let mut scenario = Scenario::default();
        for value in values {
            scenario.remember(60);
            let facts = &mut scenario.snapshot.facts;
            facts.counters.insert("Softnet.dropped".to_owned(), *value);
        }
        scenario.pulse(&[("Softnet.dropped", last)], |_| {});
        let tally = Tally::new(&scenario.snapshot);
        let sample = Sample::new(&scenario.snapshot, &tally);
        lasts(
            &Context {
                snapshot: &scenario.snapshot,
                tally: &tally,
                sample: &sample,
                history: &scenario.history,
                ages: AgeFacts::default(),
                expected: &[],
            },
            DROPPED,
        )
    }

    #[test]
    fn two_intervals_in_a_row_are_no_burst() {
        assert!(goes_on(&[5], 1), "before the look and after it");
        assert!(!goes_on(&[5], 0));
        assert!(!goes_on(&[5, 5], 1));
        assert!(!goes_on(&[], 1), "one interval");
    }
}
