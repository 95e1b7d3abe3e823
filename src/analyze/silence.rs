//! Established connections on which nothing moves: what their detectors share.

use std::collections::{HashMap, HashSet};

use super::{Context, words};
use crate::history::Counts;
use crate::model::{Endpoint, Socket, TcpState};

/// Why silence cannot be judged: there are connections, and nothing was read that tells when data moved on them.
pub fn unseen(context: &Context<'_>) -> Option<String> {
    let established = context.tally.of(TcpState::Established);
    (established > 0 && context.snapshot.infos.is_empty()).then(|| {
        format!(
            "{}, but without tcp_info it is not known when data last moved on them",
            words::count(established, "established connection")
        )
    })
}

/// The silent connections with both ends on this host, which cannot lose each other.
#[derive(Debug)]
pub struct Inside(HashSet<(Endpoint, Endpoint)>);

impl Inside {
    /// Looks at all silent connections.
    pub fn new(context: &Context<'_>) -> Self {
        let sockets = context.tally.silent.iter();
        let sockets = sockets.filter_map(|row| context.snapshot.socket(*row));
        Self(
            sockets
                .map(|socket| (socket.local, socket.remote))
                .collect(),
        )
    }

    /// Whether the other end is here too.
    pub fn has(&self, socket: &Socket) -> bool {
        socket.is_loopback() || self.0.contains(&(socket.remote, socket.local))
    }
}

/// The counts of these destinations, from whatever local address they were dialled.
pub fn destinations(
    context: &Context<'_>,
    wanted: impl Iterator<Item = Endpoint>,
) -> HashMap<Endpoint, Counts> {
    let mut all: HashMap<Endpoint, Counts> = wanted.map(|to| (to, Counts::default())).collect();
    if !all.is_empty() {
        for (dial, counts) in context.tally.dialled() {
            if let Some(sum) = all.get_mut(&dial.remote) {
                sum.merge(counts);
            }
        }
    }
    all
}
