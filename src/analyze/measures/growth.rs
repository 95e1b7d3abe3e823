//! How the counts of TCP have changed over the earlier looks.

use super::{Asked, Context, Reading, unseen};
use crate::history::Sample;
use crate::model::{StateSet, TcpState};

/// Over less than this nothing is a trend, seconds.
const LEAST: f64 = 60.0;

pub(super) fn in_state(context: &Context<'_>, asked: &Asked) -> Reading {
    let state = asked.state.unwrap_or(TcpState::Established);
    let at = state.index().unwrap_or_default();
    growth(context, StateSet::of(state), |sample| {
        sample.states.get(at).copied().unwrap_or(0)
    })
}

pub(super) fn total(context: &Context<'_>, _: &Asked) -> Reading {
    growth(context, StateSet::ALL, |sample| sample.states.iter().sum())
}

/// Sockets a minute, by the line that fits the earlier looks and this one best: one look between two deployments then
/// weighs no more than any other.
fn growth(context: &Context<'_>, states: StateSet, count: impl Fn(&Sample) -> u64) -> Reading {
    if let Some(reason) = unseen(context, states) {
        return Reading::CannotTell(reason);
    }
    let now = context.sample.taken;
    let before = context.history.earlier().iter();
    let looks: Vec<(f64, f64)> = before
        .filter(|sample| sample.taken < now)
        .chain([context.sample])
        .map(|sample| {
            let seconds = sample.taken.duration_since(now).as_secs_f64();
            (seconds, count(sample) as f64)
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
