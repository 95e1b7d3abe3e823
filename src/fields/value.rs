//! What a column says of a row: typed, so that every output shows it in its own way.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::IpAddr;

use super::End;
use crate::model::container::{Container, Pod};
use crate::model::owner::Unseen;
use crate::model::ulp::SubflowFlags;
use crate::model::unix::Name;
use crate::model::{Age, Md5, Namespace, Owners, Process, SockOpts, Socket, TcpState, Timer, sctp};

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// not known, or there is none
    Absent,
    /// a TCP state
    State(TcpState),
    /// CLOSED of a socket that has no TCP states
    Unconnected,
    /// a number without a unit
    Count(u64),
    /// bytes
    Bytes(u64),
    /// bytes per second
    BytesPerSecond(u64),
    /// milliseconds
    Millis(u64),
    /// microseconds
    Micros(u64),
    /// an identity or a mask
    Hex(u64),
    /// yes or no
    Flag(bool),
    /// text; what comes from others is not yet safe to print
    Text(Cow<'a, str>),
    /// a container; its name is not yet safe to print
    Container(Container<'a>),
    /// a Kubernetes pod
    Pod(Pod<'a>),
    /// the name of a UNIX socket, not yet safe to print
    Name(Name<'a>),
    /// an address
    Address(IpAddr),
    /// a port; 0 is none
    Port(u16),
    /// one end of the socket
    Endpoint {
        /// the address, as the socket's family has it
        ip: IpAddr,
        /// the port; 0 is none
        port: u16,
        /// the interface that this end is bound to
        interface: Option<Interface<'a>>,
        /// their names, where they were looked up
        names: EndNames<'a>,
    },
    /// one end of a socket that has no such port
    End(End<'a>),
    /// an interface
    Interface(Interface<'a>),
    /// a network namespace; not yet safe to print
    Namespace(&'a Namespace),
    /// a running timer
    Timer {
        /// which
        timer: Timer,
        /// milliseconds until it is due
        expires_ms: u32,
        /// how often it has fired in vain
        retransmits: u8,
    },
    /// bit 0: receiving was shut down, bit 1: sending was
    Shutdown(u8),
    /// several words
    List(List<'a>),
    /// the time in the state
    Age(Age),
    /// the processes that hold it
    Owners(Holders<'a>),
    /// their ids alone
    Pids(Holders<'a>),
}

/// What an address and a port are called. A host's name is chosen by others and not yet safe to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndNames<'a> {
    /// of the address
    pub host: Option<&'a str>,
    /// of the port
    pub service: Option<&'a str>,
}

impl<'a> Value<'a> {
    /// The value, or [`Value::Absent`].
    pub fn of<T>(value: Option<T>, make: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Self::Absent, make)
    }

    /// Text that is borrowed.
    pub const fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// The value as rows are grouped by it: the conversation's address whatever the socket's family, and a timer's name
    /// without the time that is left.
    #[must_use]
    pub fn grouped(self) -> Self {
        match self {
            Self::Address(ip) => Self::Address(ip.to_canonical()),
            Self::Endpoint {
                ip,
                port,
                interface,
                ..
            } => Self::Endpoint {
                ip: ip.to_canonical(),
                port,
                interface,
                // Two hosts may have one name.
                names: EndNames::default(),
            },
            Self::End(end) => Self::End(end.grouped()),
            Self::Timer { timer, .. } => Self::of(timer.name(), Self::text),
            other => other,
        }
    }

    /// The value as rows are sorted by it; `None` is not known and comes last. An age counts by its lower bound, and
    /// states come in the order in which a connection lives.
    pub fn key(&self) -> Option<Key> {
        let bits = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(ip.to_ipv6_mapped()),
            IpAddr::V6(ip) => u128::from(*ip),
        };
        Some(match self {
            Self::Absent => return None,
            Self::State(state) => Key::Number(match state.index() {
                Some(index) => index as u64,
                None => u64::from(state.number()) + TcpState::SHOWN.len() as u64,
            }),
            Self::Unconnected => Key::Number(TcpState::SHOWN.len() as u64),
            Self::Name(name) => Key::Text(name.chars().collect()),
            Self::End(end) => end.key(),
            Self::Count(n)
            | Self::Bytes(n)
            | Self::BytesPerSecond(n)
            | Self::Millis(n)
            | Self::Micros(n)
            | Self::Hex(n) => Key::Number(*n),
            Self::Flag(yes) => Key::Number(u64::from(*yes)),
            Self::Text(text) => Key::Text(text.as_ref().into()),
            Self::Container(container) => Key::Text(format!("{container:#}").into()),
            Self::Pod(pod) => Key::Text(pod.to_string().into()),
            Self::Address(ip) => Key::Address(bits(ip), 0),
            Self::Port(port) => Key::Number(u64::from(*port)),
            Self::Endpoint { ip, port, .. } => Key::Address(bits(ip), *port),
            Self::Interface(interface) => Key::Number(u64::from(interface.index)),
            Self::Namespace(namespace) => Key::Text(namespace.label.as_str().into()),
            Self::Timer { expires_ms, .. } => Key::Number(u64::from(*expires_ms)),
            Self::Shutdown(directions) => Key::Number(u64::from(*directions)),
            Self::List(list) => Key::Number(list.key()),
            Self::Age(age) => Key::Number(age.low_ms),
            Self::Owners(holders) => Key::Text(holders.processes().next()?.comm.as_str().into()),
            Self::Pids(holders) => Key::Number(u64::from(holders.processes().next()?.pid)),
        })
    }
}

/// Several words of which none needs to be made safe to print.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum List<'a> {
    /// socket options that are on
    SockOpts(SockOpts),
    /// peers that need MD5 signatures
    Md5(Md5<'a>),
    /// flags of an MPTCP subflow
    Subflow(SubflowFlags),
    /// an array of `struct sockaddr_storage`
    Addresses(&'a [u8]),
}

impl List<'_> {
    /// Shows each of them.
    ///
    /// # Errors
    /// The first of `show`, which ends it.
    pub fn each<E>(self, show: &mut dyn FnMut(&dyn Display) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::SockOpts(options) => options.names().try_for_each(|name| show(&name)),
            Self::Md5(md5) => md5.prefixes().try_for_each(|prefix| show(&prefix)),
            Self::Subflow(flags) => flags.names().try_for_each(|name| show(&name)),
            Self::Addresses(all) => {
                sctp::addresses(all).try_for_each(|(family, end)| show(&end.ip_as(family)))
            }
        }
    }

    /// Flags by their bits, everything else by how many there are.
    fn key(self) -> u64 {
        match self {
            Self::SockOpts(options) => u64::from(options.bits()),
            Self::Subflow(flags) => u64::from(flags.0),
            Self::Md5(md5) => md5.prefixes().count() as u64,
            Self::Addresses(all) => sctp::addresses(all).count() as u64,
        }
    }
}

/// A value that outlives its row, to be sorted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// a number of whatever unit
    Number(u64),
    /// an address, IPv4 v4-mapped, and a port
    Address(u128, u16),
    /// text
    Text(Box<str>),
}

/// A network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface<'a> {
    /// its number
    pub index: u32,
    /// its name, where known; not yet safe to print
    pub name: Option<&'a str>,
}

/// Why no process holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoOwner {
    /// the kernel alone keeps it until its time is over
    TimeWait,
    /// the kernel completes the handshake; the program has nothing to do with it yet
    Handshake,
    /// its process has closed it; the kernel finishes the close
    Orphan,
    /// it waits in the accept queue of its listener
    NotAccepted,
    /// it may be of a process that may not be looked into
    NotPermitted,
    /// the search for owners stopped at its deadline
    TimedOut,
    /// it may be of a process outside of the reader's pid namespace
    OtherPidNamespace,
    /// every process was looked into, and none has a descriptor of it. It is in flight (`SCM_RIGHTS`), one of io_uring's
    /// direct descriptors, the kernel's own (NFS, iSCSI, NVMe over TCP), or came or went meanwhile
    NotFound,
}

impl NoOwner {
    /// The reason, for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::TimeWait => "time-wait",
            Self::Handshake => "handshake",
            Self::Orphan => "closed by its process",
            Self::NotAccepted => "not accepted yet",
            Self::NotPermitted => "not seen: no permission",
            Self::TimedOut => "not seen: out of time",
            Self::OtherPidNamespace => "not seen: other pid namespace",
            Self::NotFound => "no descriptor: in flight, io_uring or the kernel's own",
        }
    }

    /// The reason in JSON.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::TimeWait => "time-wait",
            Self::Handshake => "handshake",
            Self::Orphan => "orphan",
            Self::NotAccepted => "not-accepted",
            Self::NotPermitted => "not-permitted",
            Self::TimedOut => "timed-out",
            Self::OtherPidNamespace => "other-pid-namespace",
            Self::NotFound => "not-found",
        }
    }
}

/// The processes that hold a socket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Holders<'a> {
    owners: &'a Owners,
    inode: u32,
    state: TcpState,
}

impl<'a> Holders<'a> {
    /// The holders of `socket` among `owners`.
    pub const fn new(owners: &'a Owners, socket: &Socket) -> Self {
        Self {
            owners,
            inode: socket.inode,
            state: socket.state,
        }
    }

    /// Process and descriptor; a process that holds the socket by several descriptors comes as often, in a row.
    pub fn links(&self) -> impl Iterator<Item = (&'a Process, u32)> + use<'a> {
        self.owners.of(self.inode)
    }

    /// Each process once.
    pub fn processes(&self) -> impl Iterator<Item = &'a Process> + use<'a> {
        let mut last = None;
        self.links().filter_map(move |(process, _)| {
            (last.replace(process.pid) != Some(process.pid)).then_some(process)
        })
    }

    /// Why there is no holder; `None` if there is one.
    pub fn missing(&self) -> Option<NoOwner> {
        if self.links().next().is_some() {
            return None;
        }
        Some(match (self.state, self.inode) {
            (TcpState::TimeWait, _) => NoOwner::TimeWait,
            (TcpState::SynReceived | TcpState::NewSynReceived, _) => NoOwner::Handshake,
            // A socket gets its inode from accept; until then the listener alone refers to it.
            (TcpState::Established | TcpState::CloseWait, 0) => NoOwner::NotAccepted,
            (
                TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing | TcpState::LastAck,
                0,
            ) => NoOwner::Orphan,
            _ => match self.owners.unseen() {
                Unseen::NotPermitted => NoOwner::NotPermitted,
                Unseen::TimedOut => NoOwner::TimedOut,
                Unseen::OtherPidNamespace => NoOwner::OtherPidNamespace,
                Unseen::Nobody => NoOwner::NotFound,
            },
        })
    }
}
