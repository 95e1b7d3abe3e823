//! The only place that reads the system. A [`Source`] pushes rows; what it could not see is in its [`Coverage`].

pub mod hosts;
pub mod live;
pub mod names;
pub mod netlink;
pub mod netns;
pub mod procfs;
mod want;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use rustc_hash::FxHashSet;

use self::netns::Namespaces;
pub use self::want::{Table, Want};
use crate::model::{
    Attributes, Collector, Coverage, Cpu, Datagram, Ends, Facts, Host, Listener, Local,
    NetlinkSocket, Owners, PacketSocket, Program, Protocol, Pulse, Queue, Room, Snapshot, Socket,
    StateSet, TcpInfo, TcpState, UnixSocket, Unlisted, VsockSocket,
};

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
    /// a UNIX socket
    Unix(UnixSocket<'a>),
    /// a socket on frames of a link
    Packet(PacketSocket<'a>),
    /// a conversation with the kernel
    Netlink(NetlinkSocket<'a>),
    /// a socket between a virtual machine and its host
    Vsock(VsockSocket),
}

impl Row<'_> {
    /// The socket, what else the kernel said, and its ends where they are not addresses of IP.
    pub fn parts(&self) -> (Socket, Attributes<'_>, Ends<'_>) {
        let ends = match self {
            Self::Inet { socket, attributes } => return (*socket, *attributes, Ends::Ip),
            Self::Unix(unix) => Ends::Unix(unix),
            Self::Packet(packet) => Ends::Packet(packet),
            Self::Netlink(netlink) => Ends::Netlink(netlink),
            Self::Vsock(vsock) => Ends::Vsock(vsock),
        };
        let attributes = Attributes {
            memory: ends.raw_memory(),
            listed_drops: ends.listed_drops(),
            shutdown: ends.shutdown(),
            ..Attributes::default()
        };
        (ends.socket(), attributes, ends)
    }

    /// The socket's inode; 0 where no process owns it.
    pub const fn inode(&self) -> u32 {
        match self {
            Self::Inet { socket, .. } => socket.inode,
            Self::Unix(unix) => unix.inode,
            Self::Packet(packet) => packet.inode,
            Self::Netlink(netlink) => netlink.inode,
            Self::Vsock(vsock) => vsock.inode,
        }
    }
}

/// Takes rows as they come; `Break` ends the dump early.
pub type RowSink<'f> = dyn FnMut(Row<'_>) -> ControlFlow<()> + 'f;

/// Sees what came in, as it came, for a capture: a netlink datagram, or a part of a table of `/proc/net`.
pub type Tee<'t> = dyn FnMut(Collector, Table, &[u8]) + 't;

/// Something that can be read like a machine: this one, or a capture of one.
pub trait Source {
    /// Pushes every socket that is wanted. An early `Break` is no error. A dump that fails midway has delivered what
    /// it could and returns the error.
    ///
    /// # Errors
    /// When no socket table could be read at all, or reading broke off.
    fn dump(&mut self, want: &Want, row: &mut RowSink<'_>) -> Result<Coverage, Error>;

    /// As [`Source::dump`], where rows that `program` does not let through may be left out. Who cannot filter by it pushes
    /// them all.
    ///
    /// # Errors
    /// As [`Source::dump`]; [`Error::Unfiltered`] if the program is required and cannot be applied.
    fn select(
        &mut self,
        want: &Want,
        program: &Program,
        row: &mut RowSink<'_>,
    ) -> Result<Coverage, Error> {
        if program.required {
            return Err(Error::Unfiltered("they are read from a file".to_owned()));
        }
        self.dump(want, row)
    }

    /// About how many TCP sockets there are, where that is known without reading them.
    fn about(&self) -> Option<u64> {
        None
    }

    /// Who holds which socket. Gaps are counted in the coverage, never fatal.
    fn owners(&mut self) -> (Owners, Coverage);

    /// Who holds the sockets with the inodes in `listed`, as far as is known without looking at every process again. Who
    /// remembers nothing looks at every process.
    fn owners_of(&mut self, _listed: &Inodes) -> (Owners, Coverage) {
        self.owners()
    }

    /// Processes with descriptors of TCP sockets that are in no table, `listed` being the inodes that are in one, of
    /// any protocol. `None` where that cannot be seen.
    fn unlisted(&mut self, _owners: &Owners, _listed: &Inodes) -> Option<Vec<Unlisted>> {
        None
    }

    /// What the control groups of these paths got of the processors; those that cannot be seen are left out.
    fn cpu(&mut self, _cgroups: &BTreeSet<String>) -> BTreeMap<String, Cpu> {
        BTreeMap::new()
    }

    /// Settings and counters of now.
    fn facts(&mut self) -> Facts;

    /// Which host and namespace this is.
    fn host(&self) -> Host;

    /// The time of this sample.
    fn now(&self) -> Timestamp;

    /// Moves to the next sample, at least `wait` later. `false`: there is none (a capture holds what it holds).
    fn advance(&mut self, wait: Duration) -> bool;

    /// Whether settings and counters are here at all.
    fn has_facts(&self) -> bool {
        true
    }

    /// The namespaces that [`Socket::netns`] counts; `None` where the source is one of [`Source::host`]'s.
    fn namespaces(&self) -> Option<Rc<Namespaces>> {
        None
    }

    /// Whether this is a capture.
    fn is_capture(&self) -> bool {
        false
    }

    /// How many whole looks are recorded and can be sought; 0 where this is a machine, which has the present only.
    fn looks(&self) -> usize {
        0
    }

    /// Which of the recorded looks is read now, the first one being 0.
    fn look(&self) -> usize {
        0
    }

    /// When a recorded look was taken.
    fn taken(&self, _look: usize) -> Option<Timestamp> {
        None
    }

    /// Moves to a recorded look, whichever was read before. `false`: there is none of this number.
    ///
    /// # Errors
    /// When the look is damaged, or cannot be read any more.
    fn seek(&mut self, _look: usize) -> Result<bool, Error> {
        Ok(false)
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
    /// no thread could be started
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// the kernel answered a dump with an error
    #[error("the kernel ended the dump of {what} with an error: {source}")]
    Dump {
        /// which table
        what: String,
        /// the kernel's error
        source: std::io::Error,
    },
    /// only a kernel that filters can say what was asked
    #[error("only the kernel that has these sockets knows, and it cannot be asked: {0}")]
    Unfiltered(String),
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
    /// a capture, or a copy of `/proc`, was made without this
    #[error("{0} were not recorded")]
    NotRecorded(&'static str),
    /// a capture broke off or is no capture
    #[error("{0}")]
    Capture(String),
    /// a network namespace could not be looked at
    #[error(transparent)]
    Namespace(#[from] netns::Error),
}

/// Inodes of sockets.
pub type Inodes = FxHashSet<u32>;

/// What is read beside the TCP sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Also {
    /// who holds what, and how much of the processors the holders' control groups got
    pub owners: bool,
    /// the UDP sockets
    pub udp: bool,
    /// the UNIX sockets
    pub unix: bool,
    /// descriptors of sockets that no table shows; takes the owners
    pub unlisted: bool,
}

impl Also {
    /// Everything that a detector may ask for.
    pub const ALL: Self = Self {
        owners: true,
        udp: true,
        unix: true,
        unlisted: true,
    };
}

/// Of which rows a snapshot keeps the kernel's own messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// of all TCP sockets
    pub all: bool,
    /// of the socket with this cookie
    pub cookie: Option<NonZeroU64>,
}

impl Keep {
    fn wants(self, socket: &Socket) -> bool {
        self.all
            || self
                .cookie
                .is_some_and(|cookie| socket.cookie == Some(cookie))
    }
}

/// Reads a whole [`Snapshot`].
///
/// # Errors
/// As [`Source::dump`], for TCP. Of the other sockets a failure is a part that is missing.
pub fn snapshot(source: &mut dyn Source, want: &Want, also: Also) -> Result<Snapshot, Error> {
    snapshot_with(source, want, also, Keep::default(), Room::default())
}

/// Reads a whole [`Snapshot`] into `room` and keeps messages in it, without the secrets that the kernel tells.
///
/// # Errors
/// As [`snapshot`].
pub fn snapshot_with(
    source: &mut dyn Source,
    want: &Want,
    also: Also,
    keep: Keep,
    room: Room,
) -> Result<Snapshot, Error> {
    let mut snapshot = Snapshot {
        taken: source.now(),
        host: source.host(),
        frame: (source.looks() > 1).then(|| (source.look() + 1, source.looks())),
        ..Snapshot::with(room)
    };
    let mut listed = Inodes::default();
    // Room that grows by doubling would take more memory for a moment than all there is to keep.
    let about = source.about().unwrap_or_default();
    let about = usize::try_from(about + about / 64).unwrap_or_default();
    snapshot.sockets.reserve_exact(about);
    if want.tcp_info {
        snapshot.at_rest.reserve_exact(about);
    }
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
            let Row::Inet { socket, attributes } = row else {
                return ControlFlow::Continue(());
            };
            let row = snapshot.pack(socket, attributes.tcp_info.and_then(TcpInfo::parse));
            if let Some(drops) = attributes.drops() {
                snapshot.drops.insert(row, drops);
            }
            if also.owners {
                listed.insert(socket.inode);
            }
            if keep.wants(&socket)
                && let Some(message) = attributes.message
            {
                netlink::wipe(snapshot.messages.keep(row, message));
            }
            ControlFlow::Continue(())
        })?;
        snapshot.coverage.merge(coverage);
    }
    let unlisted = also.unlisted && also.owners;
    if also.udp || unlisted {
        snapshot.udp = beside(Protocol::Udp, udp(source), &mut snapshot.coverage);
    }
    if also.unix || unlisted {
        let read = unix(source, &mut listed);
        snapshot.unix = beside(Protocol::Unix, read, &mut snapshot.coverage);
    }
    snapshot.facts = source.facts();
    snapshot.coverage.no_facts = !source.has_facts();
    snapshot.namespaces = source
        .namespaces()
        .map_or_else(Vec::new, |all| all.looked());
    if also.owners {
        let datagrams = snapshot.udp.iter().flatten();
        listed.extend(datagrams.map(|datagram| datagram.socket.inode));
        // Nobody's.
        listed.remove(&0);
        let (owners, coverage) = source.owners_of(&listed);
        let collector = snapshot.coverage.collector;
        snapshot.owners = owners.searched(&coverage);
        snapshot.coverage.merge(coverage);
        snapshot.coverage.collector = collector;
        snapshot.coverage.unowned = snapshot
            .sockets
            .iter()
            .filter(|socket| socket.inode != 0 && snapshot.owners.links_of(socket.inode).is_empty())
            .count() as u64;
        snapshot.cpu = source.cpu(&cgroups(&snapshot.owners));
    }
    // Only who sees every table knows what is in none.
    if unlisted
        && snapshot.coverage.collector.sees(TcpState::BoundInactive)
        && let (Some(_), Some(_)) = (&snapshot.udp, &snapshot.unix)
    {
        snapshot.unlisted = source.unlisted(&snapshot.owners, &listed);
    }
    Ok(snapshot)
}

/// The control groups of the processes that hold sockets.
pub fn cgroups(owners: &Owners) -> BTreeSet<String> {
    let processes = owners.processes().iter();
    processes
        .filter_map(|process| process.cgroup.clone())
        .collect()
}

/// What was read of `protocol` beside the TCP sockets. A failure leaves a gap there, and the TCP sockets as they are.
pub fn beside<T>(
    protocol: Protocol,
    read: Result<(T, Coverage), Error>,
    coverage: &mut Coverage,
) -> Option<T> {
    match read {
        Ok((rows, mut more)) => {
            // What is said of the collector is said of TCP.
            (more.collector, more.fell_back) = (coverage.collector, None);
            let unseen = more.unseen(protocol);
            coverage.merge(more);
            (!unseen).then_some(rows)
        }
        Err(Error::NotRecorded(_)) => None,
        Err(error) => {
            let gap = format!("{}: {error}", protocol.sockets());
            coverage.missing.push(gap);
            None
        }
    }
}

fn udp(source: &mut dyn Source) -> Result<(Vec<Datagram>, Coverage), Error> {
    let mut datagrams = Vec::new();
    let coverage = source.dump(&Want::all(Protocol::Udp), &mut |row| {
        if let Row::Inet { socket, attributes } = row {
            datagrams.push(Datagram {
                socket,
                memory: attributes.memory(),
                drops: attributes.drops(),
            });
        }
        ControlFlow::Continue(())
    })?;
    Ok((datagrams, coverage))
}

/// Keeps what detectors ask for, and notes the inodes of all.
fn unix(source: &mut dyn Source, listed: &mut Inodes) -> Result<(Vec<Local>, Coverage), Error> {
    let mut kept = Vec::new();
    let coverage = source.dump(&Want::all(Protocol::Unix), &mut |row| {
        if let Row::Unix(socket) = row {
            listed.insert(socket.inode);
            kept.extend(Local::new(&socket));
        }
        ControlFlow::Continue(())
    })?;
    Ok((kept, coverage))
}

/// The light second look: counters and queues. `cgroups` are those of the first look's owners.
///
/// # Errors
/// As [`Source::dump`], for TCP.
pub fn pulse(
    source: &mut dyn Source,
    also: Also,
    cgroups: &BTreeSet<String>,
) -> Result<Pulse, Error> {
    let mut listeners = Vec::new();
    let want = Want {
        memory: true,
        ..Want::states(StateSet::of(TcpState::Listen))
    };
    let taken = source.now();
    source.dump(&want, &mut |row| {
        if let Row::Inet { socket, attributes } = row {
            listeners.push(Listener {
                cookie: socket.cookie,
                recv_q: socket.recv_q,
                send_q: socket.send_q,
                drops: attributes.drops(),
            });
        }
        ControlFlow::Continue(())
    })?;
    let mut pulse = Pulse {
        taken,
        listeners,
        ..Pulse::default()
    };
    // Without these the second look knows less of them, and its detectors say so.
    if also.udp
        && let Ok((datagrams, coverage)) = udp(source)
        && !coverage.unseen(Protocol::Udp)
    {
        pulse.udp = Some(datagrams.iter().filter_map(Queue::of_datagram).collect());
    }
    if also.unix
        && let Ok((locals, coverage)) = unix(source, &mut Inodes::default())
        && !coverage.unseen(Protocol::Unix)
    {
        pulse.unix = Some(locals.iter().filter_map(Queue::of_local).collect());
    }
    if also.owners {
        pulse.cpu = source.cpu(cgroups);
    }
    pulse.facts = source.facts();
    Ok(pulse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Family;

    /// A machine whose other tables answer as the test wants.
    struct Fake {
        other: fn() -> Result<Coverage, Error>,
        asked_for_unlisted: bool,
    }

    impl Source for Fake {
        fn dump(&mut self, want: &Want, _: &mut RowSink<'_>) -> Result<Coverage, Error> {
            match want.protocol {
                Protocol::Tcp => Ok(Coverage::default()),
                _ => (self.other)(),
            }
        }
        fn owners(&mut self) -> (Owners, Coverage) {
            Default::default()
        }
        fn unlisted(&mut self, _: &Owners, _: &Inodes) -> Option<Vec<Unlisted>> {
            self.asked_for_unlisted = true;
            Some(Vec::new())
        }
        fn facts(&mut self) -> Facts {
            Facts::default()
        }
        fn host(&self) -> Host {
            Host::default()
        }
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
        fn advance(&mut self, _: Duration) -> bool {
            true
        }
    }

    fn look(other: fn() -> Result<Coverage, Error>, also: Also) -> (Snapshot, bool) {
        let mut fake = Fake {
            other,
            asked_for_unlisted: false,
        };
        let want = Want::states(StateSet::ALL);
        let snapshot = snapshot(&mut fake, &want, also).unwrap();
        (snapshot, fake.asked_for_unlisted)
    }

    #[test]
    fn a_table_that_was_not_read_is_never_an_empty_one() {
        let refused = || Err(Error::NoSockDiag("ENOENT".to_owned()));
        let (refused, asked) = look(refused, Also::ALL);
        assert!(refused.udp.is_none() && refused.unix.is_none());
        let missing = &refused.coverage.missing;
        assert!(missing[0].starts_with("UDP sockets: ") && missing[1].starts_with("UNIX"));
        assert!(!asked && refused.unlisted.is_none(), "a table is missing");
        let (absent, _) = look(|| Err(Error::NotRecorded("UDP sockets")), Also::ALL);
        assert!(absent.udp.is_none() && absent.coverage.complete());
        let (empty, asked) = look(|| Ok(Coverage::default()), Also::ALL);
        assert_eq!((empty.udp, empty.unix), (Some(vec![]), Some(vec![])));
        assert!(asked && empty.unlisted.is_some());
        let (unasked, asked) = look(|| panic!("nobody asked"), Also::default());
        assert!(unasked.udp.is_none() && !asked);
    }

    #[test]
    fn gaps_of_other_tables_count_and_their_collector_does_not() {
        let partly = || {
            Ok(Coverage {
                collector: Collector::Procfs,
                fell_back: Some("ENOENT".to_owned()),
                undecoded: 1,
                ..Coverage::default()
            })
        };
        let (snapshot, _) = look(partly, Also::ALL);
        assert_eq!(snapshot.coverage.collector, Collector::Netlink);
        assert_eq!(snapshot.coverage.fell_back, None);
        assert_eq!(snapshot.coverage.undecoded, 2);
    }

    #[test]
    fn each_protocol_has_its_tables() {
        let tables = |want: Want| want.tables().collect::<Vec<_>>();
        let mut want = Want::all(Protocol::Udp);
        want.ipv4 = false;
        assert_eq!(tables(want), [Table::of(Protocol::Udp, Family::Ipv6)]);
        want.protocol = Protocol::Unix;
        assert_eq!(
            tables(want),
            [Table::without_family(Protocol::Unix)],
            "of no family"
        );
        want.states = StateSet::EMPTY;
        assert_eq!(tables(want), []);
        assert_eq!(tables(Want::states(StateSet::ALL)).len(), 2);
    }
}
