//! One pass over a snapshot: its sockets by family, listener port and unit. Nothing is allocated for a socket.

use std::collections::BTreeMap;

use crate::model::{Family, Snapshot, Socket, TcpState};
use crate::render::text::safe;

/// Ports and units of which sockets are counted; the rest is counted together.
const MOST: usize = 32;

/// Ports of which queues are told.
const MOST_QUEUES: usize = 64;

/// What the rest is called. No port is, and no unit: those end in `.service` and the like.
pub const OTHER: &str = "other";

/// No listener has this place.
const NONE: u16 = u16::MAX;

/// Sockets per state, in the order of [`TcpState::SHOWN`].
pub type States = [u64; TcpState::SHOWN.len()];

/// The listeners of one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// the port
    pub port: u16,
    /// connections that wait in the fullest queue
    pub waiting: u32,
    /// the limit of that queue
    pub limit: Option<u32>,
    /// packets that all of them have dropped
    pub drops: Option<u64>,
}

impl Queue {
    /// How full it is, as a fraction: the larger the fuller.
    fn fill(waiting: u32, limit: Option<u32>) -> f64 {
        f64::from(waiting) / f64::from(limit.unwrap_or(1).max(1))
    }

    fn add(&mut self, socket: &Socket, drops: Option<u32>) {
        let limit = socket.backlog();
        let fuller = Self::fill(socket.recv_q, limit) > Self::fill(self.waiting, self.limit);
        if self.port == 0 || fuller {
            (self.waiting, self.limit) = (socket.recv_q, limit);
        }
        self.port = socket.local.port;
        if let Some(drops) = drops {
            *self.drops.get_or_insert(0) += u64::from(drops);
        }
    }
}

/// The counts.
#[derive(Debug, Default)]
pub struct Counts {
    /// IPv4 and IPv6
    pub families: [States; 2],
    /// the same, of states that are not known
    pub unknown: [u64; 2],
    /// by the name of the port, the most sockets first
    pub ports: Vec<(String, States)>,
    /// by the name of the unit, the most sockets first
    pub units: Vec<(String, States)>,
    /// of the fullest listeners, by port
    pub queues: Vec<Queue>,
}

impl Counts {
    /// Counts; `listeners` are the rows in LISTEN.
    pub fn new(snapshot: &Snapshot, listeners: &[u32]) -> Self {
        let mut place = vec![NONE; 1 << 16];
        let mut queues: Vec<Queue> = Vec::new();
        for row in listeners {
            let Some(socket) = snapshot.socket(*row) else {
                continue;
            };
            let Some(at) = place.get_mut(usize::from(socket.local.port)) else {
                continue;
            };
            if *at == NONE {
                *at = u16::try_from(queues.len()).unwrap_or(NONE);
                queues.push(Queue::default());
            }
            if let Some(queue) = queues.get_mut(usize::from(*at)) {
                queue.add(socket, snapshot.drops.get(row).copied());
            }
        }
        let units = Units::new(snapshot);
        let mut families = [States::default(); 2];
        let mut by_port = vec![States::default(); queues.len()];
        let mut by_unit = vec![States::default(); units.names.len()];
        let mut unknown = [0; 2];
        for socket in &snapshot.sockets {
            let family = match socket.family {
                Family::Ipv4 => 0,
                Family::Ipv6 => 1,
            };
            let Some(state) = socket.state.index() else {
                if let Some(unknown) = unknown.get_mut(family) {
                    *unknown += 1;
                }
                continue;
            };
            count(&mut families, family, state);
            if let Some(at) = place.get(usize::from(socket.local.port)) {
                count(&mut by_port, usize::from(*at), state);
            }
            if let Some(at) = units.of(snapshot, socket) {
                count(&mut by_unit, at, state);
            }
        }
        let ports = queues.iter().map(|queue| queue.port.to_string());
        Self {
            families,
            unknown,
            ports: first(ports.zip(by_port).collect()),
            units: first(units.names.into_iter().zip(by_unit).collect()),
            queues: fullest(queues),
        }
    }
}

fn count(all: &mut [States], at: usize, state: usize) {
    if let Some(count) = all.get_mut(at).and_then(|states| states.get_mut(state)) {
        *count += 1;
    }
}

/// Those with most sockets, and the rest together.
fn first(mut all: Vec<(String, States)>) -> Vec<(String, States)> {
    all.retain(|(_, states)| states.iter().any(|n| *n > 0));
    all.sort_by_cached_key(|(name, states)| {
        (std::cmp::Reverse(states.iter().sum::<u64>()), name.clone())
    });
    let rest = all.split_off(all.len().min(MOST));
    if !rest.is_empty() {
        let mut sum = States::default();
        for (_, states) in rest {
            for (sum, more) in sum.iter_mut().zip(states) {
                *sum += more;
            }
        }
        all.push((OTHER.to_owned(), sum));
    }
    all
}

/// The fullest queues, by port.
fn fullest(mut queues: Vec<Queue>) -> Vec<Queue> {
    queues.sort_by(|a, b| {
        let fill = |queue: &Queue| Queue::fill(queue.waiting, queue.limit);
        fill(b).total_cmp(&fill(a)).then(a.port.cmp(&b.port))
    });
    queues.truncate(MOST_QUEUES);
    queues.sort_by_key(|queue| queue.port);
    queues
}

/// The units of the processes that hold sockets.
struct Units {
    /// safe to show, each once
    names: Vec<String>,
    /// by process
    places: Vec<Option<usize>>,
}

impl Units {
    fn new(snapshot: &Snapshot) -> Self {
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        let processes = snapshot.owners.processes().iter();
        let places = processes
            .map(|process| {
                // Two names may look the same once they are safe, and two series must not.
                let mut name = String::new();
                safe(process.unit()?, &mut name);
                let next = known.len();
                Some(*known.entry(name).or_insert(next))
            })
            .collect();
        let mut names = vec![String::new(); known.len()];
        for (name, at) in known {
            if let Some(slot) = names.get_mut(at) {
                *slot = name;
            }
        }
        Self { names, places }
    }

    /// The unit of the first holder that has one. What systemd has opened for a service is the service's, once that holds
    /// it too.
    fn of(&self, snapshot: &Snapshot, socket: &Socket) -> Option<usize> {
        let mut init = None;
        for link in snapshot.owners.links_of(socket.inode) {
            let Some(unit) = self.places.get(link.process as usize).copied().flatten() else {
                continue;
            };
            let process = snapshot.owners.process(link.process);
            if process.is_none_or(|process| process.pid != 1) {
                return Some(unit);
            }
            init = Some(unit);
        }
        init
    }
}
