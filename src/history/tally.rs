//! One pass over a snapshot: what all detectors count, so that their number does not multiply the cost.

use foldhash::HashMap;
use serde::{Deserialize, Serialize};

use crate::model::age::TIME_WAIT_MS;
use crate::model::{AgeFacts, Endpoint, Facts, Owners, Snapshot, Socket, TcpInfo, TcpState, Timer};

/// An established connection without data in either direction for this long is worth a second thought, milliseconds.
const SILENT_MS: u32 = 1000;

/// What was sent again longer ago than this is no part of a loss that goes on, milliseconds.
const RESENT_MS: u32 = 10_000;

/// A set of ports.
#[derive(Clone, Debug)]
pub struct PortSet(Vec<u64>);

impl Default for PortSet {
    fn default() -> Self {
        Self(vec![0; 65536 / 64])
    }
}

impl PortSet {
    /// Adds a port.
    pub fn insert(&mut self, port: u16) {
        if let Some(word) = self.0.get_mut(usize::from(port) / 64) {
            *word |= 1 << (port % 64);
        }
    }

    /// Whether the port is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0
            .get(usize::from(port) / 64)
            .is_some_and(|word| word & 1 << (port % 64) != 0)
    }

    /// How many ports are in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no port is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// How many sockets are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    states: [u32; TcpState::SHOWN.len()],
    /// in the range that `connect` chooses from
    pub ephemeral: u32,
    /// TIME-WAIT among those whose port a new connection may take over
    pub reusable: u32,
    /// since data last came in on any of those that were dialled and have ever received some, milliseconds
    pub heard_ms: Option<u32>,
}

impl Counts {
    /// Sockets in `state`.
    pub fn of(&self, state: TcpState) -> u32 {
        state
            .index()
            .and_then(|index| self.states.get(index).copied())
            .unwrap_or(0)
    }

    /// Sockets in any state.
    pub fn total(&self) -> u32 {
        self.states.iter().sum()
    }

    /// The state that most are in.
    pub fn most(&self) -> Option<TcpState> {
        let states = TcpState::SHOWN.into_iter().zip(self.states);
        states
            .filter(|(_, n)| *n > 0)
            .max_by_key(|(_, n)| *n)
            .map(|(state, _)| state)
    }

    /// Counts one more socket.
    pub fn add(&mut self, state: TcpState) {
        if let Some(count) = state.index().and_then(|index| self.states.get_mut(index)) {
            *count += 1;
        }
    }

    /// Adds another's sockets to these.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.states.iter_mut().zip(other.states) {
            *mine += theirs;
        }
        self.ephemeral += other.ephemeral;
        self.reusable += other.reusable;
        self.hear(other.heard_ms);
    }

    fn hear(&mut self, ms: Option<u32>) {
        self.heard_ms = self.heard_ms.into_iter().chain(ms).min();
    }
}

/// A connection that this host opened, without its own port: what `connect` looks for a free port for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dial {
    /// the local address
    pub source: [u8; 16],
    /// the destination
    pub remote: Endpoint,
}

/// The counts of one snapshot.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    states: [u64; TcpState::SHOWN.len()],
    /// sockets in states that are not known
    pub unknown: u64,
    /// ports that are listened on: a socket with such a local port was accepted, not dialled
    pub listening: PortSet,
    /// ports in the ephemeral range that are bound without a connection
    pub bound: PortSet,
    /// rows in LISTEN
    pub listeners: Vec<u32>,
    /// rows in CLOSE-WAIT that somebody holds
    pub close_wait: Vec<u32>,
    /// rows in FIN-WAIT-2 that somebody holds
    pub fin_wait_2: Vec<u32>,
    /// rows in FIN-WAIT-2 that nobody holds any more
    pub fin_wait_2_orphans: Vec<u32>,
    /// rows in FIN-WAIT-1
    pub fin_wait_1: Vec<u32>,
    /// rows in CLOSING
    pub closing: Vec<u32>,
    /// rows in LAST-ACK
    pub last_ack: Vec<u32>,
    /// rows in SYN-SENT
    pub syn_sent: Vec<u32>,
    /// rows in SYN-RECEIVED
    pub syn_received: Vec<u32>,
    /// rows that are bound without a connection
    pub bound_inactive: Vec<u32>,
    /// rows that several processes hold
    pub shared: Vec<u32>,
    /// rows in ESTABLISHED, CLOSE-WAIT or FIN-WAIT-1 with bytes in a queue, but not those that wait for `accept`
    pub queued: Vec<u32>,
    /// rows past the handshake that have sent data of late and have had to send some again at any time
    pub resent: Vec<u32>,
    /// accepted or dialled rows in ESTABLISHED with empty queues and no data in either direction for a second
    pub silent: Vec<u32>,
    /// rows in ESTABLISHED with an unanswered keepalive probe
    pub probed: Vec<u32>,
    /// rows that the kernel has finished the handshake of and nobody has accepted: ESTABLISHED or CLOSE-WAIT,
    /// inode 0, on a port that is listened on
    pub unaccepted: Vec<u32>,
    /// TIME-WAIT sockets by the second in which their wait began, the latest first
    pub closes: Vec<u32>,
    // A proxy dials where it is told to: keys that others may choose need a hasher that nobody can foresee.
    dialled: HashMap<Dial, Counts>,
    served: HashMap<u16, Counts>,
}

impl Tally {
    /// Counts `snapshot`.
    pub fn new(snapshot: &Snapshot) -> Self {
        let mut tally = Self {
            closes: vec![0; 60],
            ..Self::default()
        };
        for (row, socket) in (0u32..).zip(&snapshot.sockets) {
            if socket.state == TcpState::Listen {
                tally.listeners.push(row);
                tally.listening.insert(socket.local.port);
            }
        }
        let shared = shared(&snapshot.owners);
        let ports = Ports::new(&snapshot.facts);
        for (row, socket) in (0u32..).zip(&snapshot.sockets) {
            if shared.binary_search(&socket.inode).is_ok() {
                tally.shared.push(row);
            }
            tally.add(row, socket, snapshot.info(socket).as_ref(), &ports);
        }
        tally
    }

    /// Adds the sockets per state of another look; its rows stay its own.
    pub fn add_states(&mut self, other: &Self) {
        for (mine, theirs) in self.states.iter_mut().zip(other.states) {
            *mine += theirs;
        }
        self.unknown += other.unknown;
    }

    fn add(&mut self, row: u32, socket: &Socket, info: Option<&TcpInfo>, ports: &Ports) {
        match socket
            .state
            .index()
            .and_then(|index| self.states.get_mut(index))
        {
            Some(count) => *count += 1,
            None => self.unknown += 1,
        }
        match socket.state {
            TcpState::Listen => return,
            TcpState::BoundInactive => {
                self.bound_inactive.push(row);
                if ports.is_ephemeral(socket.local.port) {
                    self.bound.insert(socket.local.port);
                }
                return;
            }
            TcpState::SynSent => self.syn_sent.push(row),
            TcpState::SynReceived | TcpState::NewSynReceived => self.syn_received.push(row),
            TcpState::FinWait1 => self.fin_wait_1.push(row),
            TcpState::Closing => self.closing.push(row),
            TcpState::LastAck => self.last_ack.push(row),
            TcpState::FinWait2 if socket.inode != 0 => self.fin_wait_2.push(row),
            TcpState::FinWait2 => self.fin_wait_2_orphans.push(row),
            TcpState::CloseWait if socket.inode != 0 => self.close_wait.push(row),
            TcpState::TimeWait => {
                let age = TIME_WAIT_MS.saturating_sub(u64::from(socket.timer_ms)) / 1000;
                let second = usize::try_from(age)
                    .unwrap_or(usize::MAX)
                    .min(self.closes.len() - 1);
                if let Some(count) = self.closes.get_mut(second) {
                    *count += 1;
                }
            }
            _ => {}
        }
        let resent = info.is_some_and(|info| {
            // Restamped by what is sent again too.
            info.total_retrans > 0
                && info.last_data_sent_ms < RESENT_MS
                && socket.state != TcpState::SynSent
        });
        if resent {
            self.resent.push(row);
        }
        let served = self.listening.contains(socket.local.port);
        let unaccepted = served
            && socket.inode == 0
            && matches!(socket.state, TcpState::Established | TcpState::CloseWait);
        if !unaccepted {
            self.sort_data(row, socket, info);
        }
        if served {
            if unaccepted {
                self.unaccepted.push(row);
            }
            self.served
                .entry(socket.local.port)
                .or_default()
                .add(socket.state);
            return;
        }
        let dial = Dial {
            source: socket.local.address,
            remote: socket.remote,
        };
        let counts = self.dialled.entry(dial).or_default();
        counts.add(socket.state);
        // The stamps of SYN-SENT are not set. Kernels before 4.2 do not tell a connection that never received any.
        let heard = info
            .filter(|info| socket.state != TcpState::SynSent && info.bytes_received() != Some(0));
        counts.hear(heard.map(|info| info.last_data_recv_ms));
        if ports.is_ephemeral(socket.local.port) {
            counts.ephemeral += 1;
            counts.reusable += u32::from(ports.is_reusable(socket));
        }
    }

    /// Notes where data waits, and where there is none.
    fn sort_data(&mut self, row: u32, socket: &Socket, info: Option<&TcpInfo>) {
        // In CLOSE-WAIT an unread FIN counts as one byte.
        let fin = u32::from(socket.state == TcpState::CloseWait);
        let queued = socket.recv_q > fin || socket.send_q > 0;
        match socket.state {
            TcpState::Established | TcpState::CloseWait | TcpState::FinWait1 if queued => {
                self.queued.push(row);
            }
            TcpState::Established => {
                let is_old = |info: &TcpInfo| {
                    info.last_data_sent_ms.min(info.last_data_recv_ms) >= SILENT_MS
                };
                if info.is_some_and(is_old) {
                    self.silent.push(row);
                }
                if socket.timer == Timer::Keepalive && socket.retransmits > 0 {
                    self.probed.push(row);
                }
            }
            _ => {}
        }
    }

    /// Sockets in `state`.
    pub fn of(&self, state: TcpState) -> u64 {
        state
            .index()
            .and_then(|index| self.states.get(index).copied())
            .unwrap_or(0)
    }

    /// Sockets per state, in the order of [`TcpState::SHOWN`].
    pub const fn states(&self) -> &[u64; TcpState::SHOWN.len()] {
        &self.states
    }

    /// All sockets.
    pub fn total(&self) -> u64 {
        self.states.iter().sum::<u64>() + self.unknown
    }

    /// Connections that this host opened, in no order.
    pub fn dialled(&self) -> impl Iterator<Item = (&Dial, &Counts)> {
        self.dialled.iter()
    }

    /// All connections dialled to one destination, from whatever local address.
    pub fn to(&self, remote: Endpoint) -> Counts {
        let mut sum = Counts::default();
        for (_, counts) in self
            .dialled
            .iter()
            .filter(|(dial, _)| dial.remote == remote)
        {
            sum.merge(counts);
        }
        sum
    }

    /// Connections on a port that is listened on.
    pub fn served(&self, port: u16) -> Counts {
        self.served.get(&port).copied().unwrap_or_default()
    }

    /// Ports that are listened on and have connections, in no order.
    pub fn serving(&self) -> impl Iterator<Item = (u16, &Counts)> {
        self.served.iter().map(|(port, counts)| (*port, counts))
    }
}

/// What decides whether a port is one that `connect` may choose, and may take over.
struct Ports {
    ephemeral: PortSet,
    reuse: Option<i64>,
    delay_ms: u64,
    timestamps: bool,
    ages: AgeFacts,
}

impl Ports {
    fn new(facts: &Facts) -> Self {
        let mut ephemeral = PortSet::default();
        if let Some((low, high)) = facts.port_range() {
            let reserved = facts.reserved_ports().unwrap_or_default();
            (low..=high)
                .filter(|port| {
                    !reserved
                        .iter()
                        .any(|(from, to)| (from..=to).contains(&port))
                })
                .for_each(|port| ephemeral.insert(port));
        }
        let delay = facts
            .sysctl("net/ipv4/tcp_tw_reuse_delay")
            .and_then(|ms| u64::try_from(ms).ok());
        Self {
            ephemeral,
            reuse: facts.sysctl("net/ipv4/tcp_tw_reuse"),
            delay_ms: delay.unwrap_or(1000),
            timestamps: facts
                .sysctl("net/ipv4/tcp_timestamps")
                .is_some_and(|value| value != 0),
            ages: AgeFacts::default(),
        }
    }

    fn is_ephemeral(&self, port: u16) -> bool {
        self.ephemeral.contains(port)
    }

    /// Whether a new connection to the same destination may take the port of this TIME-WAIT (`tcp_twsk_unique`):
    /// tcp_tw_reuse 1 anywhere, 2 on loopback, with timestamps, after a second.
    fn is_reusable(&self, socket: &Socket) -> bool {
        let allowed = match self.reuse {
            Some(1) => true,
            Some(2) => socket.local.ip().is_loopback() || socket.remote.ip().is_loopback(),
            _ => false,
        };
        socket.state == TcpState::TimeWait
            && socket.timer == Timer::TimeWait
            && allowed
            && self.timestamps
            && self
                .ages
                .in_state(socket, None)
                .is_some_and(|age| age.low_ms >= self.delay_ms)
    }
}
/// The inodes that more than one process holds, sorted.
fn shared(owners: &Owners) -> Vec<u32> {
    let links = owners.links();
    let mut inodes: Vec<u32> = links
        .iter()
        .zip(links.iter().skip(1))
        .filter(|(a, b)| a.inode == b.inode && a.process != b.process)
        .map(|(a, _)| a.inode)
        .collect();
    inodes.dedup();
    inodes
}
