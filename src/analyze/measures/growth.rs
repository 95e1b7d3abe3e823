//! How the counts of TCP have changed over the earlier looks.

use super::{Asked, Context, Reading, unseen};
use crate::history::Count;
use crate::model::{StateSet, TcpState};

/// Over less than this nothing is a trend, seconds.
const LEAST: f64 = 60.0;

pub(super) fn in_state(context: &Context<'_>, asked: &Asked) -> Reading {
    let state = asked.state.unwrap_or(TcpState::Established);
    let at = state.index().unwrap_or_default();
    growth(context, StateSet::of(state), |count| {
        count.states.get(at).copied().flatten()
    })
}

pub(super) fn total(context: &Context<'_>, _: &Asked) -> Reading {
    let coverage = &context.snapshot.coverage;
    let seen = TcpState::SHOWN.map(|state| coverage.sees(state));
    growth(context, StateSet::ALL, |count| {
        let known = |count: &Count| count.states.map(|state| state.is_some());
        // What was not seen in one of them is no growth.
        (known(count) == seen).then(|| count.states.iter().flatten().sum())
    })
}

/// How many are in each state now, where that is seen.
fn counted(context: &Context<'_>) -> [Option<u64>; TcpState::SHOWN.len()] {
    let coverage = &context.snapshot.coverage;
    let sees = |state: TcpState| coverage.sees(state).then(|| context.tally.of(state));
    TcpState::SHOWN.map(sees)
}

/// Sockets a minute, by the line that fits the earlier looks and this one best: one look between two deployments then
/// weighs no more than any other.
fn growth(
    context: &Context<'_>,
    states: StateSet,
    count: impl Fn(&Count) -> Option<u64>,
) -> Reading {
    if let Some(reason) = unseen(context, states) {
        return Reading::CannotTell(reason);
    }
    let now = context.sample.taken;
    let this = Count {
        taken: now,
        states: counted(context),
    };
    let before = context.history.counts().filter(|look| look.taken < now);
    let looks: Vec<(f64, f64)> = before
        .chain([this])
        .filter_map(|look| {
            let seconds = look.taken.duration_since(now).as_secs_f64();
            Some((seconds, count(&look)? as f64))
        })
        .collect();
    let span = looks.iter().map(|(at, _)| -at).fold(0.0, f64::max);
    if span < LEAST {
        return Reading::CannotTell(if looks.len() < 2 {
            "no history yet".to_owned()
        } else {
            format!("no history yet: the oldest look is {span:.0} s old, and it takes a minute")
        });
    }
    Reading::Over(slope(&looks) * 60.0, span as u64)
}

/// Of the line of least squares through `points`.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len().max(1) as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / n;
    let (x, y) = (mean(|(x, _)| *x), mean(|(_, y)| *y));
    let over: f64 = points.iter().map(|(a, b)| (a - x) * (b - y)).sum();
    let under: f64 = points.iter().map(|(a, _)| (a - x) * (a - x)).sum();
    if under > 0.0 { over / under } else { 0.0 }
}
