//! One reading of the machine: the currency of everything past the sources.

use std::num::NonZeroU64;

use jiff::Timestamp;
use rustc_hash::FxHashMap;

use super::age::{Age, AgeFacts};
use super::coverage::Coverage;
use super::host::{Facts, Host};
use super::owner::{Owners, Process};
use super::socket::{InfoId, Socket};
use super::tcp_info::TcpInfo;

/// Sockets, owners and facts of one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// when the dump began
    pub taken: Timestamp,
    /// where
    pub host: Host,
    /// the rows
    pub sockets: Vec<Socket>,
    /// digests that rows refer to
    pub infos: Vec<TcpInfo>,
    /// row -> packets dropped since the socket was made (LISTEN rows)
    pub drops: FxHashMap<u32, u32>,
    /// who holds what
    pub owners: Owners,
    /// settings and counters
    pub facts: Facts,
    /// what is not known
    pub coverage: Coverage,
}

impl Snapshot {
    /// The socket in `row`.
    pub fn socket(&self, row: u32) -> Option<&Socket> {
        self.sockets.get(row as usize)
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
    pub fn info(&self, socket: &Socket) -> Option<&TcpInfo> {
        self.infos.get(socket.info?.index())
    }

    /// For how long the socket has been in its state.
    pub fn age(&self, socket: &Socket) -> Option<Age> {
        AgeFacts::new(&self.facts).in_state(socket, self.info(socket))
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A light second look: counters and LISTEN rows, because a counter without a delta says nothing.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// when
    pub taken: Timestamp,
    /// settings and counters
    pub facts: Facts,
    /// the listeners
    pub listeners: Vec<Listener>,
}
