//! What is remembered of earlier looks: counts a state, and closes a second. Bounded, whatever the time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::look::Look;
use crate::model::TcpState;

/// How far back sparklines reach.
pub const REACH: Duration = Duration::from_secs(300);

/// Looks that are remembered at most: five minutes at four a second, or at whatever is slower.
const POINTS: usize = 1_200;

/// Seconds of closes that are remembered.
const SECONDS: i64 = 600;

/// The counts of one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// when
    pub taken: Timestamp,
    /// sockets by state in the order of [`TcpState::SHOWN`]; `None` where it could not be seen
    pub states: [Option<u64>; TcpState::SHOWN.len()],
}

/// What is remembered of earlier looks.
#[derive(Clone, Debug, Default)]
pub struct Trend {
    points: VecDeque<Point>,
    /// second since 1970 -> closes that this side began in it, as the look that saw most of them told
    closes: BTreeMap<i64, u32>,
}

impl Trend {
    /// Remembers a look. One that is older than the last, as after a step back in a recording, begins anew from there.
    pub fn add(&mut self, look: &Look) {
        while self
            .points
            .back()
            .is_some_and(|last| last.taken >= look.taken)
        {
            self.points.pop_back();
        }
        self.points.push_back(Point {
            taken: look.taken,
            states: look.states,
        });
        while self.points.len() > POINTS {
            self.points.pop_front();
        }
        let now = look.taken.as_second();
        self.closes
            .retain(|second, _| *second <= now && *second > now - SECONDS);
        // The last second gathers what its timer has not yet ended, too.
        let sure = look.closes.len() - 1;
        for (ago, closes) in (0i64..).zip(look.closes.into_iter().take(sure)) {
            let known = self.closes.entry(now - ago).or_default();
            // TIME-WAIT goes early when it is used again: what was seen once was there.
            *known = (*known).max(closes);
        }
    }

    /// The look before the last one.
    pub fn before(&self) -> Option<&Point> {
        self.points.iter().rev().nth(1)
    }

    /// By how much a state's count changed since the look before.
    pub fn change(&self, state: TcpState) -> Option<i64> {
        let index = state.index()?;
        let of = |point: &Point| point.states.get(index).copied().flatten();
        let (now, before) = (of(self.points.back()?)?, of(self.before()?)?);
        i64::try_from(now)
            .ok()?
            .checked_sub(i64::try_from(before).ok()?)
    }

    /// The highest count of a state in each of `columns` equal parts of the last [`REACH`], the latest last; `None` where
    /// nobody looked.
    pub fn series(&self, state: TcpState, columns: usize) -> Vec<Option<u64>> {
        let mut series = vec![None; columns];
        let (Some(index), Some(last)) = (state.index(), self.points.back()) else {
            return series;
        };
        let reach = REACH.as_millis() as i128;
        for point in &self.points {
            let ago = i128::from(
                last.taken
                    .duration_since(point.taken)
                    .as_millis()
                    .clamp(0, i128::from(i64::MAX)) as i64,
            );
            if ago >= reach || columns == 0 {
                continue;
            }
            let from_end = usize::try_from(ago * columns as i128 / reach).unwrap_or(0);
            let count = point.states.get(index).copied().flatten();
            if let Some(slot) = columns
                .checked_sub(from_end + 1)
                .and_then(|at| series.get_mut(at))
            {
                *slot = (*slot).max(count);
            }
        }
        // Where looks are further apart than columns are, a count stands until the next one.
        let first = series.iter().position(Option::is_some);
        let mut known = None;
        for slot in series.iter_mut().skip(first.unwrap_or(columns)) {
            known = slot.or(known);
            *slot = known;
        }
        series
    }

    /// Closes that this side began in each of the last `seconds`, the latest last; `None` where nothing tells. A lower
    /// bound: resets, closes that the peer began, and pairs that were used again leave no entry.
    pub fn closes(&self, seconds: usize) -> Vec<Option<u32>> {
        let Some(last) = self.points.back() else {
            return vec![None; seconds];
        };
        let now = last.taken.as_second();
        let ago = |back: usize| {
            self.closes
                .get(&(now - i64::try_from(back).unwrap_or(i64::MAX)))
                .copied()
        };
        (0..seconds).rev().map(ago).collect()
    }

    /// For how long it has been looked.
    pub fn reach(&self) -> Duration {
        let ends = self.points.front().zip(self.points.back());
        ends.and_then(|(first, last)| {
            Duration::try_from(last.taken.duration_since(first.taken)).ok()
        })
        .unwrap_or_default()
    }
}
