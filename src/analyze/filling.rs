//! What fills up: how near it is to its limit, and whether it grows from look to look. Reads the limits `warn`,
//! `critical`, `time-left` and `flat`.

use super::{Context, Limits, words};
use crate::history::Sample;
use crate::model::{Evidence, Severity};

/// What is in use, against what may be used.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// in use
    pub open: u64,
    /// at most
    pub limit: u64,
    /// how that changes
    pub growth: Growth,
}

/// How the number has changed over the looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Growth {
    /// there was one look
    Unknown,
    /// no more than at the first look and at the last, the first of which was so many seconds before
    Flat(f64),
    /// more, but not with every look
    Uneven,
    /// more with every look, by so many a second
    Steady(f64),
}

/// So many steps upwards make a trend; one alone must be this share of the limit.
const STEPS: usize = 2;
const LEAP: f64 = 0.05;

impl Use {
    /// `before`: when, in seconds before now, so many were open; the oldest first.
    pub fn new(open: u64, limit: u64, before: &[(f64, u64)]) -> Self {
        let last = before.last().map_or(open, |(_, open)| *open);
        let growth = match before.first() {
            None => Growth::Unknown,
            Some((seconds, first)) if open <= *first && open <= last => Growth::Flat(*seconds),
            Some((seconds, first)) => {
                let mut all = before.iter().map(|(_, open)| *open).chain([open]);
                let rises = all
                    .next()
                    .is_some_and(|one| all.try_fold(one, |a, b| (b > a).then_some(b)).is_some());
                let by = open.abs_diff(*first) as f64;
                let trend = before.len() >= STEPS || by >= limit as f64 * LEAP;
                if rises && trend && *seconds > 0.0 {
                    Growth::Steady(by / seconds)
                } else {
                    Growth::Uneven
                }
            }
        };
        Self {
            open,
            limit,
            growth,
        }
    }

    /// Seconds until the limit is reached.
    pub fn left(&self) -> Option<f64> {
        match self.growth {
            Growth::Steady(rate) => Some(self.limit.saturating_sub(self.open) as f64 / rate),
            _ => None,
        }
    }

    fn reaches(&self, share: f64) -> bool {
        self.open as f64 * 100.0 >= self.limit as f64 * share
    }

    /// All of it is critical. From `warn` on it warns, unless it was made to fit; it is critical while it grows.
    pub fn severity(&self, limits: &Limits) -> Option<Severity> {
        if self.open >= self.limit {
            return Some(Severity::Critical);
        }
        if !self.reaches(limits.get("warn")) {
            return None;
        }
        Some(match self.growth {
            Growth::Flat(seconds) if seconds >= limits.get("flat") => Severity::Info,
            Growth::Steady(_)
                if self.reaches(limits.get("critical"))
                    || self
                        .left()
                        .is_some_and(|left| left < limits.get("time-left")) =>
            {
                Severity::Critical
            }
            _ => Severity::Warning,
        })
    }

    /// `980 of 1,024 descriptors open, 95 %`.
    pub fn words(&self, what: &str) -> String {
        let share = words::percent(self.open, self.limit);
        let (open, limit) = (words::thousands(self.open), words::thousands(self.limit));
        format!("{open} of {limit} {what} open, {share} %")
    }

    /// The numbers, and what follows from the growth.
    pub fn evidence(
        &self,
        name: &'static str,
        source: &'static str,
        limits: &Limits,
    ) -> Vec<Evidence> {
        let warn = self.limit as f64 * limits.get("warn") / 100.0;
        let mut evidence = vec![
            Evidence::count(name, self.open, "descriptors", source).limit(warn),
            Evidence::count("may_be_open", self.limit, "descriptors", source),
        ];
        let from = "from look to look";
        match (self.growth, self.left()) {
            (Growth::Steady(rate), Some(left)) => {
                evidence.push(Evidence::real("growth", rate * 60.0, "1/min", from));
                let time = Evidence::real("descriptors_run_out_in", left, "s", from);
                evidence.push(time.limit(limits.get("time-left")));
            }
            (Growth::Flat(seconds), _) => {
                let time = Evidence::real("not_grown_for", seconds, "s", from);
                evidence.push(time.limit(limits.get("flat")));
            }
            _ => {}
        }
        evidence
    }
}

/// A number at each earlier look that has it, with the seconds since then; the oldest first.
pub fn looks(context: &Context<'_>, number: impl Fn(&Sample) -> Option<u64>) -> Vec<(f64, u64)> {
    let looks = context.history.earlier().iter();
    looks
        .filter_map(|sample| {
            let ago = context.snapshot.taken.duration_since(sample.taken);
            Some((ago.as_secs_f64(), number(sample)?))
        })
        .collect()
}
