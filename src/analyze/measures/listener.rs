//! The accept queues of a port.

use super::{Asked, Context, Reading, unseen};
use crate::model::{Socket, StateSet, TcpState};

pub(super) fn queue(context: &Context<'_>, asked: &Asked) -> Reading {
    fullest(context, asked, |listener| Some(f64::from(listener.recv_q)))
}

/// A queue of no length still takes one connection (`sk_acceptq_is_full`).
pub(super) fn ratio(context: &Context<'_>, asked: &Asked) -> Reading {
    fullest(context, asked, |listener| {
        let limit = listener.backlog()?.max(1);
        Some(f64::from(listener.recv_q) / f64::from(limit))
    })
}

fn fullest(context: &Context<'_>, asked: &Asked, of: impl Fn(&Socket) -> Option<f64>) -> Reading {
    let port = asked.port.unwrap_or_default();
    let rows = context.tally.listeners.iter();
    let listeners: Vec<&Socket> = rows
        .filter_map(|row| context.snapshot.socket(*row))
        .filter(|listener| listener.local.port == port)
        .collect();
    if let Some(reason) = unseen(context, StateSet::of(TcpState::Listen)) {
        return Reading::CannotTell(reason);
    }
    if listeners.is_empty() {
        // What was not seen may only have been missed.
        return if context.snapshot.coverage.rows_complete() {
            Reading::Missing(format!("nobody listens on :{port}"))
        } else {
            Reading::CannotTell(format!(
                "no listener on :{port} was seen, and the socket table was not read whole"
            ))
        };
    }
    let most = listeners.into_iter().filter_map(of).reduce(f64::max);
    most.map_or_else(
        || Reading::CannotTell("/proc/net does not tell the limit of an accept queue".to_owned()),
        Reading::Value,
    )
}
