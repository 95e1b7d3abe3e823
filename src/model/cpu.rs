//! What a control group got of the processors: `cpu.stat` and `cpu.pressure` of its directory in the v2 hierarchy
//! (`Documentation/admin-guide/cgroup-v2.rst`).

use serde::{Deserialize, Serialize};

/// The counters of one control group since it was made. What a file does not have is absent: without the controller
/// there are no periods, without `CONFIG_PSI` no pressure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// `nr_periods`: enforcement periods (100 ms, unless set otherwise) in which it wanted to run
    pub periods: Option<u64>,
    /// `nr_throttled`: those in which its quota was used up before the end
    pub throttled: Option<u64>,
    /// `throttled_usec`: time that its runnable threads were kept from running, summed over the processors
    pub throttled_us: Option<u64>,
    /// `some` of `cpu.pressure`: time that at least one of its threads was ready to run and had no processor
    pub pressure_us: Option<u64>,
}

impl Cpu {
    /// Reads the two files; an empty text is a file that is not there.
    pub fn parse(stat: &str, pressure: &str) -> Self {
        let number = |name: &str| {
            let line = stat
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            line.trim().parse().ok()
        };
        let pressure_us = pressure.lines().find_map(|line| {
            let words = line.strip_prefix("some ")?.split_ascii_whitespace();
            let total = words
                .filter_map(|word| word.strip_prefix("total="))
                .next()?;
            total.parse().ok()
        });
        Self {
            periods: number("nr_periods"),
            throttled: number("nr_throttled"),
            throttled_us: number("throttled_usec"),
            pressure_us,
        }
    }

    /// Whether nothing was there.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The share of the periods since `before` in which it was throttled, %; `None` where it had no period or no
    /// quota, or was made anew.
    pub fn throttled_percent(&self, before: &Self) -> Option<u64> {
        let periods = self.periods?.checked_sub(before.periods?)?;
        let throttled = self.throttled?.checked_sub(before.throttled?)?;
        throttled.saturating_mul(100).checked_div(periods)
    }

    /// The share of `window_us` in which a thread waited for a processor, %.
    pub fn pressure_percent(&self, before: &Self, window_us: u64) -> Option<u64> {
        let waited = self.pressure_us?.checked_sub(before.pressure_us?)?;
        let share = waited.saturating_mul(100).checked_div(window_us)?;
        Some(share.min(100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 40\nnr_throttled 30\nthrottled_usec 900000\nnr_bursts 0\n";
    const PRESSURE: &str = "some avg10=1.50 avg60=0.20 avg300=0.04 total=11220657\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";

    #[test]
    fn members_are_found_by_name_and_absent_ones_are_unknown() {
        let cpu = Cpu::parse(STAT, PRESSURE);
        assert_eq!((cpu.periods, cpu.throttled), (Some(40), Some(30)));
        assert_eq!(cpu.throttled_us, Some(900_000));
        assert_eq!(cpu.pressure_us, Some(11_220_657));
        let none = Cpu::parse(
            "usage_usec 5\nnr_periods x\nnr_periodsx 3\n",
            "full total=1",
        );
        assert!(none.is_empty());
    }

    #[test]
    fn shares_are_of_what_passed_between_two_looks() {
        let before = Cpu::parse(STAT, PRESSURE);
        let mut after = before;
        (after.periods, after.throttled) = (Some(50), Some(37));
        after.pressure_us = Some(11_720_657);
        assert_eq!(after.throttled_percent(&before), Some(70));
        assert_eq!(after.pressure_percent(&before, 1_000_000), Some(50));
        assert_eq!(before.throttled_percent(&before), None, "no period passed");
        assert_eq!(before.throttled_percent(&after), None, "it was made anew");
        assert_eq!(after.pressure_percent(&before, 0), None);
        assert_eq!(after.pressure_percent(&Cpu::default(), 1), None);
    }
}
