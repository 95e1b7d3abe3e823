//! `list --pair`: both ends of a connection within this machine as one.
//!
//! One end's addresses are the other's, the other way round; an IPv4 conversation is the same on an IPv6 socket
//! (v4-mapped). UNIX sockets know their peer's inode. Every end has to be seen before any of them can be written, so
//! what is kept of a row is little.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::io;

use rustc_hash::{FxHashMap, FxHashSet, FxHasher};

use super::args::{self, Output};
use super::failure::Failure;
use super::sorted::{Kept, Like, Order};
use crate::collect::Want;
use crate::fields::{Key, Needed, Record};
use crate::model::{Attributes, Endpoint, Ends, Protocol, Socket, StateSet, TcpState};
use crate::render::pairs::default_columns;

/// One end.
struct Half {
    socket: Socket,
    /// whether it fits the filter
    fits: bool,
    /// what a socket's row alone does not have, where it is wanted
    more: Option<Box<More>>,
}

struct More {
    row: Kept,
    unix: Option<UnixEnd>,
}

#[derive(Clone, Copy)]
struct UnixEnd {
    peer: u32,
    /// a server's end has the name of its listener
    named: bool,
}

/// Two ends by their numbers; `a` dialled where that is known, and is the one that there is where one is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    a: u32,
    b: Option<u32>,
}

impl Pair {
    /// When its first end was seen.
    fn place(self) -> u32 {
        self.b.map_or(self.a, |b| self.a.min(b))
    }
}

/// The ends so far.
pub struct Halves {
    halves: Vec<Half>,
    /// namespace, protocol, and what is listened on
    listeners: FxHashSet<(u16, Protocol, Endpoint)>,
    order: Option<Order>,
    top: Option<usize>,
    /// whether columns or parts are shown for which a row has to be kept as it came
    whole: bool,
    /// whether UNIX sockets came that do not tell their peers
    peerless: bool,
}

/// What the options of `list` mean with `--pair`.
///
/// # Errors
/// For options that say something about one socket's line.
pub fn check(args: &args::List, output: Output) -> Result<(), Failure> {
    let words = [
        (args.timers, "-o"),
        (args.extended, "-e"),
        (args.memory, "-m"),
        (args.info, "-i"),
    ];
    match (output, words.iter().find(|(given, _)| *given)) {
        (Output::Csv, _) => Err(Failure::usage(
            "a line of CSV is one socket".to_owned(),
            "--output jsonl has one pair a line".to_owned(),
        )),
        (Output::Table | Output::Wide, Some((_, option))) => Err(Failure::usage(
            format!("a row of two ends has no room for what {option} shows"),
            "name columns, which come for either end (-c state,rtt,process), or use --json"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

/// What the usual columns need, if they are shown.
pub fn needed(usual: bool) -> Needed {
    Needed::by(usual.then(default_columns).iter().flatten())
}

/// The kernel alone knows which ports it chose, and tells only by leaving sockets out: the other ends too.
///
/// # Errors
/// Always.
pub fn not_autobound<T>() -> Result<T, Failure> {
    Err(Failure::usage(
        "autobound cannot be asked of pairs".to_owned(),
        "A is the end that dialled, most often from such a port; 'sport >= :32768' is a test of either end".to_owned(),
    ))
}

/// What has to be read of a protocol: the other end of one that fits may be in any state and of either family, and
/// listeners tell who is the server.
pub fn want(want: Want) -> Want {
    let states = StateSet::ALL.without(StateSet::of(TcpState::BoundInactive));
    Want {
        states: states.of_protocol(want.protocol),
        ipv4: true,
        ipv6: true,
        ..want
    }
}

impl Halves {
    /// None yet; `needed` is what is shown of them.
    pub fn new(order: Option<Order>, top: Option<u64>, needed: Needed) -> Self {
        Self {
            halves: Vec::new(),
            listeners: FxHashSet::default(),
            order,
            top: top.map(|top| usize::try_from(top).unwrap_or(usize::MAX)),
            whole: needed.extended || needed.tcp_info || needed.congestion || needed.memory,
            peerless: false,
        }
    }

    /// Keeps an end; `fits` tells whether it is selected.
    pub fn push(&mut self, record: &Record<'_>, fits: bool) {
        let socket = record.socket;
        let unix = match record.ends {
            Ends::Ip if socket.state == TcpState::Listen => {
                let listener = (socket.netns, socket.protocol, socket.local);
                self.listeners.insert(listener);
                return;
            }
            Ends::Ip if socket.remote.port == 0 || socket.remote.is_unspecified() => return,
            Ends::Ip => None,
            Ends::Unix(unix) => {
                // Only `/proc/net/unix` has no cookies, and it has no peers either.
                self.peerless |= unix.cookie.is_none();
                // One without a peer may still be the other end of datagram sockets; nothing names one without an inode.
                if unix.state == TcpState::Listen || unix.inode == 0 {
                    return;
                }
                Some(UnixEnd {
                    peer: unix.peer.unwrap_or(NO_PEER),
                    named: unix.name.is_some(),
                })
            }
            Ends::Packet(_) | Ends::Netlink(_) | Ends::Vsock(_) => return,
        };
        let key = self.order.and_then(|order| order.key(record));
        let more = (self.whole || unix.is_some() || key.is_some()).then(|| {
            Box::new(More {
                row: Kept::new(record, key, 0),
                unix,
            })
        });
        self.halves.push(Half {
            socket: *socket,
            fits,
            more,
        });
    }

    /// Part of a coverage: what could not be paired at all.
    pub fn missing(&self) -> Option<String> {
        self.peerless
            .then(|| "the peers of UNIX sockets, which /proc/net/unix does not tell".to_owned())
    }

    fn half(&self, at: u32) -> Option<&Half> {
        self.halves.get(at as usize)
    }

    fn socket(&self, at: u32) -> Option<&Socket> {
        self.half(at).map(|half| &half.socket)
    }

    /// Pairs that are selected, in order, and the number of selected ends whose other end is elsewhere.
    fn paired(&self) -> (Vec<Pair>, u64) {
        let mut pairs = Vec::new();
        self.by_address(&mut pairs);
        self.by_inode(&mut pairs);
        let fits = |at: u32| self.half(at).is_some_and(|half| half.fits);
        let mut elsewhere = 0;
        pairs.retain(|pair| {
            let wanted = fits(pair.a) || pair.b.is_some_and(fits);
            let here = pair.b.is_some() || self.half(pair.a).is_some_and(Half::is_alone);
            elsewhere += u64::from(wanted && !here);
            wanted && here
        });
        pairs.sort_unstable_by_key(|pair| pair.place());
        if let Some(order) = self.order {
            // Stable: equal pairs stay as they came.
            pairs.sort_by(|a, b| order.compare_keys(self.key(*a, order), self.key(*b, order)));
        }
        pairs.truncate(self.top.unwrap_or(usize::MAX));
        (pairs, elsewhere)
    }

    /// A pair stands where the first of its ends would.
    fn key(&self, pair: Pair, order: Order) -> Option<&Key> {
        let key = |at: u32| self.half(at)?.more.as_ref()?.row.key();
        let (a, b) = (key(pair.a), pair.b.and_then(key));
        match order.compare_keys(a, b) {
            Ordering::Greater => b,
            _ => a,
        }
    }

    /// Finds ends with the same two addresses. Sorted numbers take less room than a map of addresses.
    fn by_address(&self, pairs: &mut Vec<Pair>) {
        let numbered = (0u32..).zip(&self.halves);
        let of_ip = numbered.filter(|(_, half)| half.unix().is_none());
        let mut keyed: Vec<(u64, u32)> = of_ip
            .map(|(at, half)| {
                let mut hasher = FxHasher::default();
                conversation(&half.socket).hash(&mut hasher);
                (hasher.finish(), at)
            })
            .collect();
        keyed.sort_unstable_by(|(a_hash, a), (b_hash, b)| {
            let order = |at: u32| {
                let socket = self.socket(at)?;
                Some((conversation(socket), socket.netns, is_upper(socket), at))
            };
            a_hash.cmp(b_hash).then_with(|| order(*a).cmp(&order(*b)))
        });
        let same = |a: &(u64, u32), b: &(u64, u32)| {
            a.0 == b.0 && self.socket(a.1).map(conversation) == self.socket(b.1).map(conversation)
        };
        for run in keyed.chunk_by(same) {
            self.marry(run, pairs);
        }
    }

    /// Pairs ends of one conversation, which come by namespace: those of one namespace, and if one of either side is left
    /// then these. Which of several is meant nobody can tell.
    fn marry(&self, run: &[(u64, u32)], pairs: &mut Vec<Pair>) {
        let namespace = |a: &(u64, u32), b: &(u64, u32)| {
            self.socket(a.1).map(|socket| socket.netns)
                == self.socket(b.1).map(|socket| socket.netns)
        };
        let mut left = Vec::new();
        for own in run.chunk_by(namespace) {
            let upper = |(_, at): &(u64, u32)| self.socket(*at).is_some_and(is_upper);
            let (lower, upper) = own.split_at(own.partition_point(|end| !upper(end)));
            for (&(_, a), &(_, b)) in lower.iter().zip(upper) {
                pairs.push(self.ordered(a, b));
            }
            let both = lower.len().min(upper.len());
            left.extend(lower.iter().skip(both).chain(upper.iter().skip(both)));
        }
        if let [(_, a), (_, b)] = left[..]
            && let (Some(one), Some(other)) = (self.socket(a), self.socket(b))
            // A loopback address, and one that both ends have, is a namespace's own.
            && !one.is_loopback()
            && is_upper(one) != is_upper(other)
        {
            pairs.push(self.ordered(a, b));
            return;
        }
        for (_, at) in left {
            let itself = self
                .socket(at)
                .is_some_and(|socket| socket.local == socket.remote);
            pairs.push(Pair {
                a: at,
                b: itself.then_some(at),
            });
        }
    }

    /// The one that dialled comes first: the other's port is listened on, or else is the lower one.
    fn ordered(&self, a: u32, b: u32) -> Pair {
        let serves = |at: u32| self.socket(at).is_some_and(|socket| self.serves(socket));
        let port = |at: u32| self.socket(at).map(|socket| socket.local.port);
        let swap = match (serves(a), serves(b)) {
            (true, false) => true,
            (false, true) => false,
            _ => port(a) < port(b),
        };
        let (a, b) = if swap { (b, a) } else { (a, b) };
        Pair { a, b: Some(b) }
    }

    fn serves(&self, socket: &Socket) -> bool {
        let received = [TcpState::SynReceived, TcpState::NewSynReceived];
        let port = socket.local.port;
        let any = [Endpoint::v4([0; 4], port), Endpoint::v6([0; 16], port)];
        received.contains(&socket.state)
            || socket.state != TcpState::SynSent
                && [socket.local].iter().chain(&any).any(|local| {
                    let listener = (socket.netns, socket.protocol, *local);
                    self.listeners.contains(&listener)
                })
    }

    /// Finds the UNIX sockets that others name as their peers.
    fn by_inode(&self, pairs: &mut Vec<Pair>) {
        let numbered = (0u32..).zip(&self.halves);
        let ends: Vec<(u32, u32, UnixEnd)> = numbered
            .filter_map(|(at, half)| Some((at, half.socket.inode, half.unix()?)))
            .collect();
        let by_inode: FxHashMap<u32, (u32, UnixEnd)> = ends
            .iter()
            .map(|(at, inode, end)| (*inode, (*at, *end)))
            .collect();
        for (at, inode, end) in ends {
            if end.peer == NO_PEER {
                continue;
            }
            let Some((other, theirs)) = by_inode.get(&end.peer).copied() else {
                pairs.push(Pair { a: at, b: None });
                continue;
            };
            if theirs.peer != inode {
                // Datagrams go one way.
                let b = Some(other);
                pairs.push(Pair { a: at, b });
            } else if at <= other {
                let (a, b) = if end.named && !theirs.named {
                    (other, at)
                } else {
                    (at, other)
                };
                pairs.push(Pair { a, b: Some(b) });
            }
        }
    }

    /// Hands the pairs on, each as `like`, and returns how many selected ends have their other end elsewhere.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn each(
        &self,
        like: &Like<'_>,
        sample: usize,
        measure: &mut dyn FnMut(&Record<'_>, Option<&Record<'_>>) -> io::Result<()>,
        write: &mut dyn FnMut(&Record<'_>, Option<&Record<'_>>) -> io::Result<()>,
    ) -> io::Result<u64> {
        let (pairs, elsewhere) = self.paired();
        for pair in pairs.iter().take(sample) {
            self.show(*pair, like, measure)?;
        }
        for pair in pairs {
            self.show(pair, like, write)?;
        }
        Ok(elsewhere)
    }

    fn show(
        &self,
        pair: Pair,
        like: &Like<'_>,
        write: &mut dyn FnMut(&Record<'_>, Option<&Record<'_>>) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(a) = self.half(pair.a) else {
            return Ok(());
        };
        let b = pair.b.and_then(|b| self.half(b));
        a.show(like, &mut |a| match b {
            Some(b) => b.show(like, &mut |b| write(a, Some(b))),
            None => write(a, None),
        })
    }
}

/// Of a socket that has none. Inode 0 is a peer that was closed, or that nobody has accepted yet.
const NO_PEER: u32 = u32::MAX;

impl Half {
    fn unix(&self) -> Option<UnixEnd> {
        self.more.as_ref()?.unix
    }

    /// Whether its other end is gone if it was not seen. That of a UNIX socket may be in another network namespace, and
    /// that of UDP may know of no peer.
    fn is_alone(&self) -> bool {
        match self.unix() {
            Some(end) => end.peer == 0,
            None => self.socket.protocol.has_tcp_states() && self.socket.is_loopback(),
        }
    }

    fn show(
        &self,
        like: &Like<'_>,
        write: &mut dyn FnMut(&Record<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        if let Some(more) = &self.more {
            return more.row.show(like, write);
        }
        let mut written = Ok(());
        like(
            &self.socket,
            &Attributes::default(),
            Ends::Ip,
            &mut |record| written = write(record),
        );
        written
    }
}

/// What both ends have: the protocol, and the addresses in one order.
fn conversation(socket: &Socket) -> (Protocol, Endpoint, Endpoint) {
    let (local, remote) = (socket.local, socket.remote);
    (socket.protocol, local.min(remote), local.max(remote))
}

/// On which side of the conversation it is.
fn is_upper(socket: &Socket) -> bool {
    socket.local > socket.remote
}

#[cfg(test)]
mod tests;
