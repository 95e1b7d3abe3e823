//! Accept queues: which connections wait for which listener.

use foldhash::{HashMap, HashMapExt};

use super::Context;
use crate::model::{Endpoint, Family, Socket};

/// The sockets that listen on one address and port (several: an `SO_REUSEPORT` group), and what waits for them.
#[derive(Debug)]
pub struct Queue<'a> {
    /// the listeners
    pub siblings: Vec<&'a Socket>,
    /// rows of the connections that nobody has accepted; nothing says which sibling's they are
    pub waiting: Vec<u32>,
    /// rows of the handshakes that are not finished; nothing says which sibling's they are
    pub handshakes: Vec<u32>,
}

impl<'a> Queue<'a> {
    /// How many connections wait by the listeners' own count.
    pub fn length(&self) -> u64 {
        self.siblings
            .iter()
            .map(|listener| u64::from(listener.recv_q))
            .sum()
    }

    /// The sibling with the longest queue.
    pub fn fullest(&self) -> Option<&'a Socket> {
        self.siblings
            .iter()
            .copied()
            .max_by_key(|listener| listener.recv_q)
    }

    /// For how long each connection has waited, the longest first. Nothing was sent on it, so that stamp dates from
    /// the handshake; ACKs of the client's data restamp the others.
    pub fn ages(&self, context: &Context<'_>) -> Vec<(u64, u32)> {
        let age = |row: &u32| {
            let socket = context.snapshot.socket(*row)?;
            let info = context.snapshot.info(socket);
            let info = info.as_ref();
            Some((info.map_or(0, |i| u64::from(i.last_data_sent_ms)), *row))
        };
        let mut ages: Vec<(u64, u32)> = self.waiting.iter().filter_map(age).collect();
        ages.sort_unstable_by(|a, b| b.cmp(a));
        ages
    }
}

/// Every queue, in the order of the snapshot: one pass over the listeners and one over what waits.
pub fn all<'a>(context: &Context<'a>) -> Vec<Queue<'a>> {
    let snapshot = context.snapshot;
    let mut places: HashMap<(Family, Endpoint), usize> = HashMap::new();
    let mut queues: Vec<Queue<'a>> = Vec::new();
    for listener in context
        .tally
        .listeners
        .iter()
        .filter_map(|row| snapshot.socket(*row))
    {
        let place = *places
            .entry((listener.family, listener.local))
            .or_insert(queues.len());
        if place == queues.len() {
            queues.push(Queue {
                siblings: Vec::new(),
                waiting: Vec::new(),
                handshakes: Vec::new(),
            });
        }
        if let Some(queue) = queues.get_mut(place) {
            queue.siblings.push(listener);
        }
    }
    // As the kernel looks it up: the very address before the wildcard.
    let place = |row: u32| {
        let socket = snapshot.socket(row)?;
        let wildcard = match socket.family {
            Family::Ipv4 => Endpoint::v4([0; 4], socket.local.port),
            Family::Ipv6 => Endpoint::v6([0; 16], socket.local.port),
        };
        let found = places.get(&(socket.family, socket.local));
        found
            .or_else(|| places.get(&(socket.family, wildcard)))
            .copied()
    };
    for row in &context.tally.unaccepted {
        if let Some(queue) = place(*row).and_then(|place| queues.get_mut(place)) {
            queue.waiting.push(*row);
        }
    }
    for row in &context.tally.syn_received {
        if let Some(queue) = place(*row).and_then(|place| queues.get_mut(place)) {
            queue.handshakes.push(*row);
        }
    }
    queues
}
