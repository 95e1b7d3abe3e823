//! TIME-WAIT: the table that it shares with orphans in FIN-WAIT-2, and the closes per second that it tells.

use std::collections::{BTreeMap, HashMap};

use super::{Context, words};
use crate::history::Dial;
use crate::model::age::TIME_WAIT_MS;
use crate::model::{Evidence, Process, TcpState, Timer};

/// Seconds that TIME-WAIT lasts.
pub const SECONDS: f64 = TIME_WAIT_MS as f64 / 1000.0;

/// The kernel's table of mini-sockets that have closed.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// sockets in it
    pub used: u64,
    /// of these, orphans in FIN-WAIT-2
    pub orphans: u64,
    /// how many it takes: `tcp_max_tw_buckets`
    pub size: Option<u64>,
}

impl Table {
    /// The kernel's own count, or what was seen: the snapshot may have been asked for less.
    pub fn new(context: &Context<'_>) -> Self {
        let (facts, tally) = (&context.snapshot.facts, context.tally);
        let rows = tally.fin_wait_2_orphans.iter();
        let orphans = rows
            .filter_map(|row| context.snapshot.socket(*row))
            .filter(|socket| socket.timer == Timer::TimeWait)
            .count() as u64;
        let number = |value: i64| u64::try_from(value).ok();
        let gauge = facts.gauge("TCP.tw").and_then(number).unwrap_or(0);
        Self {
            used: gauge.max(tally.of(TcpState::TimeWait) + orphans),
            orphans,
            size: facts
                .sysctl("net/ipv4/tcp_max_tw_buckets")
                .and_then(number)
                .filter(|size| *size > 0),
        }
    }

    /// Whether `percent` of it are in use; not where its size is unknown.
    pub fn is_filled(&self, percent: f64) -> bool {
        self.size
            .is_some_and(|size| self.used as f64 * 100.0 >= size as f64 * percent)
    }

    /// How many are in use, against `percent` of its size.
    pub fn evidence(&self, percent: f64) -> Evidence {
        let used = Evidence::count("time_wait_table", self.used, "sockets", "sockstat TCP.tw");
        match self.size {
            Some(size) => used.limit(size as f64 * percent / 100.0),
            None => used,
        }
    }
}

/// The closes to one destination, and who dials it.
#[derive(Clone, Debug)]
pub struct Closes<'a> {
    /// by the second in which TIME-WAIT began, the latest first
    pub by_second: Vec<u32>,
    /// some of the rows
    pub rows: Vec<u32>,
    holders: BTreeMap<u32, (u64, &'a Process)>,
}

impl<'a> Closes<'a> {
    /// The program that holds most connections there now.
    pub fn holder(&self) -> Option<&'a Process> {
        let most = self.holders.values().max_by_key(|(count, _)| *count)?;
        Some(most.1)
    }
}

/// The closes of these destinations: one pass over the sockets, and none where there is no destination.
pub fn closes<'a>(
    context: &Context<'a>,
    dials: impl Iterator<Item = Dial>,
) -> HashMap<Dial, Closes<'a>> {
    let empty = Closes {
        by_second: vec![0; 60],
        rows: Vec::new(),
        holders: BTreeMap::new(),
    };
    let mut closes: HashMap<Dial, Closes<'a>> = dials.map(|dial| (dial, empty.clone())).collect();
    if closes.is_empty() {
        return closes;
    }
    for (row, socket) in (0u32..).zip(&context.snapshot.sockets) {
        let dial = Dial {
            source: socket.local.address,
            remote: socket.remote,
        };
        let Some(closes) = closes.get_mut(&dial) else {
            continue;
        };
        if socket.state == TcpState::TimeWait {
            let age = TIME_WAIT_MS.saturating_sub(u64::from(socket.timer_ms)) / 1000;
            let second = usize::try_from(age).unwrap_or(usize::MAX).min(59);
            if let Some(count) = closes.by_second.get_mut(second) {
                *count += 1;
            }
            if closes.rows.len() < 10 {
                closes.rows.push(row);
            }
        } else if let Some(holder) = words::holder(context.snapshot, socket) {
            closes.holders.entry(holder.pid).or_insert((0, holder)).0 += 1;
        }
    }
    closes
}

/// Closes per second that have gone on for the whole `window` of seconds: the slower half of it, because a burst is no
/// rate. `closes` by second, the latest first.
pub fn lasting(closes: &[u32], window: f64) -> f64 {
    let half = (window.clamp(2.0, SECONDS) / 2.0) as usize;
    let rate = |part: Option<&[u32]>| {
        let sum: u64 = part.unwrap_or_default().iter().map(|n| u64::from(*n)).sum();
        sum as f64 / half as f64
    };
    rate(closes.get(..half)).min(rate(closes.get(half..half * 2)))
}

/// In how many seconds `limit` is reached from `used` at `rate` closes per second, if that is more than what falls out
/// of the last minute.
pub fn seconds_left(closes: &[u32], rate: f64, used: u64, limit: u64) -> Option<f64> {
    let oldest = closes.get(50..)?;
    let ends = oldest.iter().map(|n| f64::from(*n)).sum::<f64>() / oldest.len().max(1) as f64;
    let growth = rate - ends;
    let free = limit as f64 - used as f64;
    (growth > rate / 20.0 && rate * SECONDS >= limit as f64 && free > 0.0).then(|| free / growth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_must_last_for_both_halves() {
        let mut closes = vec![0; 60];
        closes[..15].fill(8);
        assert_eq!(lasting(&closes, 30.0), 0.0);
        closes[15..30].fill(4);
        assert_eq!(lasting(&closes, 30.0), 4.0);
        assert_eq!(lasting(&closes, 10.0), 8.0);
        assert_eq!(
            lasting(&closes, 1e300),
            0.0,
            "no more than a minute is known"
        );
        assert_eq!(lasting(&[], 0.0), 0.0);
    }

    #[test]
    fn what_ends_as_fast_as_it_comes_fills_nothing() {
        let mut closes = vec![10; 60];
        assert_eq!(seconds_left(&closes, 10.0, 300, 500), None);
        closes[30..].fill(0);
        assert_eq!(seconds_left(&closes, 10.0, 300, 500), Some(20.0));
        assert_eq!(
            seconds_left(&closes, 10.0, 300, 700),
            None,
            "it ends at 600"
        );
        assert_eq!(seconds_left(&closes, 10.0, 600, 500), None, "it is full");
    }
}
