//! One reading of the machine: the currency of everything past the sources.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use jiff::Timestamp;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::age::{Age, AgeFacts};
use super::coverage::Coverage;
use super::cpu::Cpu;
use super::host::{Facts, Host};
use super::namespace::Looked;
use super::owner::{Owners, Process};
use super::socket::{InfoId, Memory, Socket};
use super::tcp_info::{AtRest, TcpInfo};
use super::unix::Local;

/// Sockets, owners and facts of one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// when the dump began
    pub taken: Timestamp,
    /// where
    pub host: Host,
    /// which of how many recorded looks it is, the first one being 1
    pub frame: Option<(usize, usize)>,
    /// the namespaces that [`Socket::netns`] counts; empty where it is the host's one
    pub namespaces: Vec<Looked>,
    /// the rows
    pub sockets: Vec<Socket>,
    /// digests that rows refer to
    pub infos: Vec<TcpInfo>,
    /// the same of connections at rest
    pub at_rest: Vec<AtRest>,
    /// row -> packets dropped since the socket was made (LISTEN rows)
    pub drops: FxHashMap<u32, u32>,
    /// the UDP sockets; `None` if they were not read
    pub udp: Option<Vec<Datagram>>,
    /// the UNIX sockets that detectors ask for; `None` if they were not read
    pub unix: Option<Vec<Local>>,
    /// who holds what
    pub owners: Owners,
    /// processes with descriptors of TCP sockets that no table shows any more; `None` if that was not looked for, or
    /// cannot be seen here
    pub unlisted: Option<Vec<Unlisted>>,
    /// path of a control group -> what it got of the processors, for those whose processes hold sockets
    pub cpu: BTreeMap<String, Cpu>,
    /// settings and counters
    pub facts: Facts,
    /// what is not known
    pub coverage: Coverage,
    /// the kernel's own messages about some rows, for who asked to keep them
    pub messages: Messages,
}

/// Memory for rows, of a snapshot that is not needed any more: a look at many sockets, again and again, then takes the same
/// memory each time.
#[derive(Debug, Default)]
pub struct Room {
    sockets: Vec<Socket>,
    infos: Vec<TcpInfo>,
    at_rest: Vec<AtRest>,
}

/// Netlink messages about rows, whole, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    bytes: Vec<u8>,
    /// row, and where its message begins; by row
    at: Vec<(u32, usize)>,
}

impl Messages {
    /// Keeps the message about `row`, which is behind those that are kept; returns the copy.
    pub fn keep(&mut self, row: u32, message: &[u8]) -> &mut [u8] {
        let from = self.bytes.len();
        self.at.push((row, from));
        self.bytes.extend_from_slice(message);
        self.bytes.get_mut(from..).unwrap_or_default()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// The message about `row`.
    pub fn of(&self, row: u32) -> Option<&[u8]> {
        let place = self.at.binary_search_by_key(&row, |(row, _)| *row).ok()?;
        let (_, from) = self.at.get(place)?;
        let to = self
            .at
            .get(place + 1)
            .map_or(self.bytes.len(), |(_, to)| *to);
        self.bytes.get(*from..to)
    }
}

/// A UDP socket. Its state is ESTABLISHED with a peer and CLOSED without, see [`Socket::state_name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// what every output needs; `recv_q` counts the memory of what waits, not its bytes
    pub socket: Socket,
    /// its memory; `/proc` does not tell it
    pub memory: Option<Memory>,
    /// datagrams dropped since the socket was made
    pub drops: Option<u32>,
}

/// Descriptors of one process whose sockets have left the TCP tables: reset or timed out, and never closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlisted {
    /// the process
    pub pid: u32,
    /// how many descriptors
    pub fds: u32,
}

impl Snapshot {
    /// An empty one with room for rows.
    pub fn with(room: Room) -> Self {
        Self {
            sockets: room.sockets,
            infos: room.infos,
            at_rest: room.at_rest,
            ..Self::default()
        }
    }

    /// What is left of it for the next one. Of far more room than it needed it gives some back.
    pub fn into_room(self) -> Room {
        fn emptied<T>(mut rows: Vec<T>) -> Vec<T> {
            let used = rows.len();
            rows.clear();
            rows.shrink_to(used.saturating_mul(2));
            rows
        }
        Room {
            sockets: emptied(self.sockets),
            infos: emptied(self.infos),
            at_rest: emptied(self.at_rest),
        }
    }

    /// The socket in `row`.
    pub fn socket(&self, row: u32) -> Option<&Socket> {
        self.sockets.get(row as usize)
    }

    /// As [`Snapshot::push`], in as little space as it takes.
    pub fn pack(&mut self, mut socket: Socket, info: Option<TcpInfo>) -> u32 {
        let Some(rest) = info.as_ref().and_then(AtRest::new) else {
            return self.push(socket, info);
        };
        socket.info = InfoId::at_rest(self.at_rest.len());
        self.at_rest.push(rest);
        self.push(socket, None)
    }

    /// Keeps the digest for `socket` and returns the row's number.
    pub fn push(&mut self, mut socket: Socket, info: Option<TcpInfo>) -> u32 {
        if let Some(info) = info {
            socket.info = InfoId::new(self.infos.len());
            self.infos.push(info);
        }
        let row = u32::try_from(self.sockets.len()).unwrap_or(u32::MAX);
        self.sockets.push(socket);
        row
    }

    /// The digest of a socket's `tcp_info`.
    pub fn info(&self, socket: &Socket) -> Option<TcpInfo> {
        let id = socket.info?;
        if id.is_at_rest() {
            return self.at_rest.get(id.index()).map(AtRest::info);
        }
        self.infos.get(id.index()).copied()
    }

    /// Whether any `tcp_info` was read.
    pub const fn has_infos(&self) -> bool {
        !self.infos.is_empty() || !self.at_rest.is_empty()
    }

    /// For how long the socket has been in its state.
    pub fn age(&self, socket: &Socket) -> Option<Age> {
        AgeFacts::new(&self.facts).in_state(socket, self.info(socket).as_ref())
    }

    /// The first process that holds the socket.
    pub fn owner(&self, socket: &Socket) -> Option<&Process> {
        self.owners
            .of(socket.inode)
            .next()
            .map(|(process, _)| process)
    }
}

/// A LISTEN socket at the moment of a [`Pulse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// its identity
    pub cookie: Option<NonZeroU64>,
    /// accept queue
    pub recv_q: u32,
    /// its limit
    pub send_q: u32,
    /// packets dropped since it was opened
    pub drops: Option<u32>,
}

/// The queue of a UDP or UNIX socket, as two looks are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// its identity: the cookie, or the inode where `/proc` was read
    pub id: u64,
    /// what waits to be read or accepted
    pub recv_q: u32,
    /// datagrams dropped since the socket was made
    pub drops: Option<u32>,
}

impl Queue {
    /// Of a UDP socket; `None` where nothing tells it from others.
    pub fn of_datagram(datagram: &Datagram) -> Option<Self> {
        let socket = &datagram.socket;
        Some(Self {
            id: identity(socket.cookie, socket.inode)?,
            recv_q: socket.recv_q,
            drops: datagram.drops,
        })
    }

    /// Of a UNIX socket; `None` where nothing tells it from others, or its queue was not told.
    pub fn of_local(local: &Local) -> Option<Self> {
        Some(Self {
            id: identity(local.cookie, local.inode)?,
            recv_q: local.recv_q?,
            drops: None,
        })
    }
}

/// What tells a socket from all others in two looks by the same source.
pub fn identity(cookie: Option<NonZeroU64>, inode: u32) -> Option<u64> {
    cookie
        .map(NonZeroU64::get)
        .or((inode != 0).then_some(u64::from(inode)))
}

/// A light second look: counters and queues, because a counter without a delta says nothing.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// when
    pub taken: Timestamp,
    /// settings and counters
    pub facts: Facts,
    /// the listeners
    pub listeners: Vec<Listener>,
    /// the UDP sockets; `None` if they were not read
    pub udp: Option<Vec<Queue>>,
    /// the UNIX sockets; `None` if they were not read
    pub unix: Option<Vec<Queue>>,
    /// path of a control group -> what it got of the processors
    pub cpu: BTreeMap<String, Cpu>,
}
