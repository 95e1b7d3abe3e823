//! For how long sockets are in states that should pass, and who holds them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::model::{Age, Socket, TcpState};
use crate::render::status;
use crate::render::text::{Safe, age};
use crate::tui::look::{Look, Place};
use crate::tui::theme::Theme;

/// The states that should pass, those that a program leaves behind first.
pub const STATES: [TcpState; 6] = [
    TcpState::CloseWait,
    TcpState::FinWait1,
    TcpState::FinWait2,
    TcpState::LastAck,
    TcpState::Closing,
    TcpState::SynSent,
];

/// Where each part of the ages ends, milliseconds.
const ENDS: [u64; 5] = [1_000, 10_000, 60_000, 600_000, 3_600_000];

/// The parts as a heading names them; the last holds those of which nothing tells the age.
pub const BUCKETS: [&str; ENDS.len() + 2] = ["<1s", "<10s", "<1min", "<10min", "<1h", "older", "?"];

/// Addresses and ports that are remembered by name at most: more are on no screen.
const NAMED: usize = 32;

/// Sockets of about one age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// how many are so old, at least
    pub count: u64,
    /// whether some of them may be older
    pub bound: bool,
}

impl Bucket {
    /// The number; with `+` where some may be older.
    pub fn text(self) -> String {
        match (self.count, self.bound) {
            (n, false) => n.to_string(),
            (n, true) => format!("{n}+"),
        }
    }
}

/// The ages of the sockets in one state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateAges {
    /// in the order of [`BUCKETS`]
    pub buckets: [Bucket; BUCKETS.len()],
    /// of the oldest
    pub oldest: Option<Age>,
}

/// Who holds sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// the process with this pid
    Process(u32),
    /// no descriptor: nobody accepted it yet, or everybody has closed it
    Nobody,
    /// a process that was not seen
    Unseen,
}

/// What tells a group from all others: the namespace, the state by its place in [`STATES`], the holder.
pub type Key = (u16, usize, Holder);

/// The sockets that one holder has in one state.
#[derive(Clone, Debug)]
pub struct Group {
    /// which
    pub key: Key,
    /// the state
    pub state: TcpState,
    /// who, safe to print
    pub name: String,
    /// how many
    pub count: u64,
    /// of the oldest; `None` where nothing tells
    pub oldest: Option<Age>,
}

impl Group {
    /// The filter that selects its sockets, as far as the language can tell them.
    pub fn filter(&self) -> String {
        let state = self.state.slug().unwrap_or_default();
        match self.key.2 {
            Holder::Process(pid) => format!("state {state} pid = {pid}"),
            Holder::Nobody | Holder::Unseen => format!("state {state}"),
        }
    }
}

/// What is made of the rows of a look, once.
#[derive(Debug, Default)]
pub struct Ages {
    /// by state in the order of [`STATES`]
    pub states: [StateAges; STATES.len()],
    /// by holder, the oldest first
    pub groups: Vec<Group>,
    /// TIME-WAIT on ports that this host listens on, the most first
    pub served: Vec<(u16, u64)>,
    /// TIME-WAIT towards others, the most first
    pub dialled: Vec<(SocketAddr, u64)>,
}

/// `51min`, with a sign before it where it is only known from below, or only from above.
pub fn shown(oldest: Age, theme: Theme) -> String {
    if let (0, Some(high @ 1..)) = (oldest.low_ms, oldest.high_ms) {
        return format!("{}{}", theme.sign("≤", "<="), age(high));
    }
    let sign = if oldest.is_exact() {
        ""
    } else {
        theme.sign("≥", ">=")
    };
    format!("{sign}{}", age(oldest.low_ms))
}

fn older(a: Option<Age>, b: Option<Age>) -> Option<Age> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.low_ms > a.low_ms { b } else { a }),
        (a, b) => a.or(b),
    }
}

impl Ages {
    /// Looks at every row.
    pub fn gather(&mut self, look: &Look) {
        *self = Self::default();
        let mut groups: BTreeMap<Key, (u64, Option<Age>)> = BTreeMap::new();
        let mut served: BTreeMap<u16, u64> = BTreeMap::new();
        let mut dialled: BTreeMap<SocketAddr, u64> = BTreeMap::new();
        let mut listening: Vec<Vec<u16>> = vec![Vec::new(); look.places.len()];
        for (row, socket) in look.rows().filter(|(_, socket)| is_tcp(socket)) {
            if socket.state == TcpState::Listen
                && let Some(ports) = listening.get_mut(usize::from(row.place))
            {
                ports.push(socket.local.port);
            }
        }
        for ports in &mut listening {
            ports.sort_unstable();
        }
        for (row, socket) in look.rows().filter(|(_, socket)| is_tcp(socket)) {
            if socket.state == TcpState::TimeWait {
                let ports = listening.get(usize::from(row.place));
                if ports.is_some_and(|ports| ports.binary_search(&socket.local.port).is_ok()) {
                    *served.entry(socket.local.port).or_default() += 1;
                } else {
                    let to = SocketAddr::new(socket.remote_ip(), socket.remote.port);
                    *dialled.entry(to).or_default() += 1;
                }
                continue;
            }
            let Some(index) = STATES.iter().position(|state| *state == socket.state) else {
                continue;
            };
            let age = look.record(row, |record| record.age()).flatten();
            if let Some(ages) = self.states.get_mut(index) {
                ages.add(age);
            }
            let Some(place) = look.place(row) else {
                continue;
            };
            each_holder(place, look.owners, socket, |holder| {
                let (count, oldest) = groups.entry((row.place, index, holder)).or_default();
                *count += 1;
                *oldest = older(*oldest, age);
            });
        }
        self.groups = groups
            .into_iter()
            .filter_map(|(key, (count, oldest))| {
                Some(Group {
                    key,
                    state: *STATES.get(key.1)?,
                    name: name(look, key),
                    count,
                    oldest,
                })
            })
            .collect();
        let low = |group: &Group| group.oldest.map(|age| age.low_ms);
        self.groups
            .sort_by_key(|group| std::cmp::Reverse((low(group), group.count)));
        self.served = most(served);
        self.dialled = most(dialled);
    }
}

fn most<T>(counts: BTreeMap<T, u64>) -> Vec<(T, u64)> {
    let mut counts: Vec<(T, u64)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    counts.truncate(NAMED);
    counts
}

fn is_tcp(socket: &Socket) -> bool {
    socket.protocol.has_tcp_states()
}

impl StateAges {
    /// Whether some ages are only known from below.
    pub fn is_bound(&self) -> bool {
        self.buckets.iter().any(|bucket| bucket.bound)
    }

    fn add(&mut self, age: Option<Age>) {
        let at = match age {
            Some(age) => ENDS.iter().take_while(|end| age.low_ms >= **end).count(),
            None => BUCKETS.len() - 1,
        };
        if let Some(bucket) = self.buckets.get_mut(at) {
            bucket.count += 1;
            let end = ENDS.get(at).copied().unwrap_or(u64::MAX);
            let high = age.map(|age| age.high_ms.unwrap_or(u64::MAX));
            bucket.bound |= at < ENDS.len() && high.is_some_and(|high| high >= end);
        }
        self.oldest = older(self.oldest, age);
    }
}

/// Calls `see` with every process that holds the socket, each once.
fn each_holder(place: &Place, owners_read: bool, socket: &Socket, mut see: impl FnMut(Holder)) {
    if socket.inode == 0 {
        return see(Holder::Nobody);
    }
    let owners = &place.snapshot.owners;
    let links = owners.links_of(socket.inode);
    if links.is_empty() || !owners_read {
        return see(Holder::Unseen);
    }
    let mut before = None;
    // Links of one socket are in the order of their processes.
    for link in links {
        if before != Some(link.process) {
            before = Some(link.process);
            if let Some(process) = owners.process(link.process) {
                see(Holder::Process(process.pid));
            }
        }
    }
}

/// The holder's name, and the namespace if there are several.
fn name(look: &Look, (place, index, holder): Key) -> String {
    let place = look.places.get(usize::from(place));
    let who = match holder {
        Holder::Process(pid) => {
            let processes = place.map(|place| place.snapshot.owners.processes());
            let mut own = processes.unwrap_or_default().iter();
            own.find(|process| process.pid == pid)
                .map_or_else(|| format!("[{pid}]"), status::name)
        }
        // What was not accepted has no descriptor yet; of the other states everybody let go.
        Holder::Nobody if STATES.get(index) == Some(&TcpState::CloseWait) => {
            "nobody: not accepted".to_owned()
        }
        Holder::Nobody => "nobody: the kernel finishes".to_owned(),
        Holder::Unseen if !look.owners => "owners not read".to_owned(),
        Holder::Unseen => "a process that was not seen".to_owned(),
    };
    match place.and_then(|place| place.namespace.as_ref()) {
        Some(namespace) => format!("{who} in {}", Safe(&namespace.label)),
        None => who,
    }
}
