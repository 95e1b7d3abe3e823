//! What the table of TCP counts.

use super::{Asked, Context, Reading, unseen};
use crate::analyze::waiting;
use crate::model::{StateSet, TcpState};

pub(super) fn in_state(context: &Context<'_>, asked: &Asked) -> Reading {
    let Some(state) = asked.state else {
        return total(context, asked);
    };
    let coverage = &context.snapshot.coverage;
    let count = context.tally.of(state);
    match unseen(context, StateSet::of(state)) {
        Some(reason) => Reading::CannotTell(reason),
        None if count == 0 && !coverage.sees(state) => {
            Reading::CannotTell(format!("sockets in {state} are not in /proc/net"))
        }
        None => Reading::Value(count as f64),
    }
}

pub(super) fn total(context: &Context<'_>, _: &Asked) -> Reading {
    unseen(context, StateSet::ALL).map_or_else(
        || Reading::Value(context.tally.total() as f64),
        Reading::CannotTell,
    )
}

/// The mean of the minute that TIME-WAIT remembers.
pub(super) fn closes(context: &Context<'_>, _: &Asked) -> Reading {
    if let Some(reason) = unseen(context, StateSet::of(TcpState::TimeWait)) {
        return Reading::CannotTell(reason);
    }
    let closes: u64 = context.tally.closes.iter().map(|n| u64::from(*n)).sum();
    Reading::Value(closes as f64 / waiting::SECONDS)
}
