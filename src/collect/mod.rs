//! The only place that reads the system. A [`Source`] pushes rows; what it could not see is in its [`Coverage`].

pub mod live;
pub mod names;
pub mod netlink;
pub mod procfs;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::{
    Attributes, Collector, Coverage, Facts, Family, Host, Listener, Owners, Pulse, Snapshot,
    Socket, StateSet, TcpInfo, TcpState,
};

/// What is needed. Nobody pays for what no column and no detector asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// the states
    pub states: StateSet,
    /// sockets of IPv4
    pub ipv4: bool,
    /// sockets of IPv6
    pub ipv6: bool,
    /// `INET_DIAG_INFO`; it triples what the kernel copies
    pub tcp_info: bool,
    /// `INET_DIAG_SKMEMINFO`
    pub memory: bool,
    /// `INET_DIAG_CONG`
    pub congestion: bool,
    /// the attributes of `-e` that have to be asked for: type of service, traffic class
    pub tos: bool,
}

impl Want {
    /// Addresses, states, queues and timers of the sockets in `states`, both families.
    pub const fn states(states: StateSet) -> Self {
        Self {
            states,
            ipv4: true,
            ipv6: true,
            tcp_info: false,
            memory: false,
            congestion: false,
            tos: false,
        }
    }

    /// Whether sockets of `family` are wanted.
    pub const fn family(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }
}

/// One socket, valid while the callback runs.
#[derive(Clone, Copy, Debug)]
pub enum Row<'a> {
    /// a socket of IPv4 or IPv6
    Inet {
        /// what every output needs
        socket: Socket,
        /// what only some ask for
        attributes: Attributes<'a>,
    },
}

/// Takes rows as they come; `Break` ends the dump early.
pub type RowSink<'f> = dyn FnMut(Row<'_>) -> ControlFlow<()> + 'f;

/// Sees what came in, as it came, for a capture: a netlink datagram, or a part of a table of `/proc/net`.
pub type Tee<'t> = dyn FnMut(Collector, Family, &[u8]) + 't;

/// Something that can be read like a machine: this one, or a capture of one.
pub trait Source {
    /// Pushes every socket that is wanted. An early `Break` is no error. A dump that fails midway has delivered what
    /// it could and returns the error.
    ///
    /// # Errors
    /// When no socket table could be read at all, or reading broke off.
    fn dump(&mut self, want: &Want, row: &mut RowSink<'_>) -> Result<Coverage, Error>;

    /// Who holds which socket. Gaps are counted in the coverage, never fatal.
    fn owners(&mut self) -> (Owners, Coverage);

    /// Settings and counters of now.
    fn facts(&mut self) -> Facts;

    /// Which host and namespace this is.
    fn host(&self) -> Host;

    /// The time of this sample.
    fn now(&self) -> Timestamp;

    /// Moves to the next sample, at least `wait` later. `false`: there is none (a capture holds what it holds).
    fn advance(&mut self, wait: Duration) -> bool;

    /// Whether this is a capture.
    fn is_capture(&self) -> bool {
        false
    }
}

/// Why the system could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// the kernel has no `sock_diag`, or refuses it
    #[error("sock_diag is not usable: {0}")]
    NoSockDiag(String),
    /// a netlink call failed
    #[error("{what}: {source}")]
    Netlink {
        /// what was tried
        what: &'static str,
        /// the system's answer
        source: std::io::Error,
    },
    /// the kernel answered a dump with an error
    #[error("the kernel ended the dump of {what} with an error: {source}")]
    Dump {
        /// which table
        what: String,
        /// the kernel's error
        source: std::io::Error,
    },
    /// a file could not be read
    #[error("cannot read '{}': {source}", path.display())]
    File {
        /// the file
        path: PathBuf,
        /// the system's answer
        source: std::io::Error,
    },
    /// neither collector worked
    #[error("no socket table could be read: {0}")]
    Nothing(String),
    /// a capture broke off or is no capture
    #[error("{0}")]
    Capture(String),
}

/// Reads a whole [`Snapshot`].
///
/// # Errors
/// As [`Source::dump`].
pub fn snapshot(source: &mut dyn Source, want: &Want, owners: bool) -> Result<Snapshot, Error> {
    let mut snapshot = Snapshot {
        taken: source.now(),
        host: source.host(),
        ..Snapshot::default()
    };
    // Only listeners' drops are of use, and LISTEN is a table of its own: two dumps cost no second walk.
    let listen = StateSet::of(TcpState::Listen);
    let most = Want {
        states: want.states.without(listen),
        memory: false,
        ..*want
    };
    let listeners = Want {
        states: want.states.intersection(listen),
        ..*want
    };
    for want in [listeners, most] {
        if want.states.is_empty() {
            continue;
        }
        let coverage = source.dump(&want, &mut |row| {
            let Row::Inet { socket, attributes } = row;
            let row = snapshot.push(socket, attributes.tcp_info.and_then(TcpInfo::parse));
            if let Some(drops) = attributes.memory().and_then(|memory| memory.drops) {
                snapshot.drops.insert(row, drops);
            }
            ControlFlow::Continue(())
        })?;
        snapshot.coverage.merge(coverage);
    }
    snapshot.facts = source.facts();
    if owners {
        let (owners, coverage) = source.owners();
        let collector = snapshot.coverage.collector;
        snapshot.coverage.merge(coverage);
        snapshot.coverage.collector = collector;
        snapshot.owners = owners;
        snapshot.coverage.unowned = snapshot
            .sockets
            .iter()
            .filter(|socket| socket.inode != 0 && snapshot.owners.links_of(socket.inode).is_empty())
            .count() as u64;
    }
    Ok(snapshot)
}

/// The light second look: counters and listeners.
///
/// # Errors
/// As [`Source::dump`].
pub fn pulse(source: &mut dyn Source) -> Result<Pulse, Error> {
    let mut listeners = Vec::new();
    let want = Want {
        memory: true,
        ..Want::states(StateSet::of(TcpState::Listen))
    };
    let taken = source.now();
    source.dump(&want, &mut |row| {
        let Row::Inet { socket, attributes } = row;
        listeners.push(Listener {
            cookie: socket.cookie,
            recv_q: socket.recv_q,
            send_q: socket.send_q,
            drops: attributes.memory().and_then(|memory| memory.drops),
        });
        ControlFlow::Continue(())
    })?;
    Ok(Pulse {
        taken,
        facts: source.facts(),
        listeners,
    })
}
