//! Sockets through `sock_diag` (`NETLINK_SOCK_DIAG`, `include/uapi/linux/{inet,unix,packet,netlink,vm_sockets}_diag.h`).
//!
//! One request a table with the states as a mask, and a program where there is one, so that the kernel walks its table
//! but copies only what is wanted; the answers are decoded in place and pushed.

#[cfg(test)]
mod built;
mod decode;
mod destroy;
mod others;
mod request;
mod secrets;
mod slices;
mod stream;

use std::io;
use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use rustix::io::Errno;
use rustix::net::RecvFlags;

pub use self::destroy::{Destroyed, Refusal, has_net_admin};
pub use self::secrets::wipe;
pub use self::stream::{Progress, Stream, TCPDIAG_GETSOCK, end};
use super::procfs::ProcRoot;
use super::{Error, Row, RowSink, Table, Tee, Want};
use crate::model::{Attributes, Collector, Coverage, Part, Program, Protocol, TcpState};

/// What the kernel fills at most; a larger buffer gains nothing.
const BUFFER: usize = 32 * 1024;

/// How long the kernel may be silent. It answers a dump in microseconds; silence means that no answer will come.
const SILENCE: Duration = Duration::from_secs(10);

/// So many TCP sockets in a namespace are many: they come in no order, in one walk through the kernel's table, or in
/// several at once.
const MANY: u64 = 50_000;

/// More slices than this are not made where nobody says how many.
const MOST_SLICES: usize = 4;

/// `sizeof(struct nlmsghdr)`
const HEADER: usize = 16;

/// The attributes in a whole message about a TCP socket, as a dump sent it; none if it is no such message.
pub fn attributes(message: &[u8]) -> Attributes<'_> {
    let payload = message.get(HEADER..).unwrap_or_default();
    decode::inet(payload, Protocol::Tcp).map_or_else(Attributes::default, |(_, found)| found)
}

/// A `sock_diag` socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    /// whether the TCP sockets of both families may come mixed, for one walk through the kernel's table instead of two
    mixed: bool,
    /// in how many slices they come, where that was said
    slices: Option<NonZeroUsize>,
    /// the inode of the network namespace it was opened in
    home: Option<u64>,
}

impl Netlink {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`Error::NoSockDiag`] where the kernel or a sandbox refuses it.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            socket: connected()?,
            sequence: 0,
            buffer: vec![0; BUFFER],
            mixed: false,
            slices: None,
            home: here(),
        })
    }

    /// Whether the TCP sockets of both families, where both are wanted and neither a program nor a tee says otherwise, are
    /// asked for at once and come in no order. The kernel walks through its whole table for each request, however few
    /// sockets there are (3 ms for 262,144 buckets).
    pub const fn mix_families(&mut self, mixed: bool) {
        self.mixed = mixed;
    }

    /// Has the TCP sockets of both families, where neither a program nor a tee says otherwise, come in so many slices at
    /// once, and in no order. `None`: in one where there are few, or little is asked of each.
    pub const fn cut(&mut self, slices: Option<NonZeroUsize>) {
        self.slices = slices;
    }

    /// In how many slices to ask, and whether the families may be mixed.
    fn way(&self, want: &Want) -> (usize, bool) {
        // Other sockets for other slices are opened where the calling thread is now.
        let at_home = self.home.is_some() && self.home == here();
        let connections = want.states.contains(TcpState::Established);
        let many =
            connections && at_home && ProcRoot::default().tcp_sockets().is_some_and(|n| n >= MANY);
        let slices = match self.slices {
            Some(slices) if at_home && connections => slices.get(),
            // Without tcp_info two walks at once get in each other's way more than they gain.
            None if many && want.tcp_info => {
                thread::available_parallelism().map_or(1, |cpus| cpus.get().min(MOST_SLICES))
            }
            _ => 1,
        };
        (slices, self.mixed || many)
    }

    /// Dumps the wanted sockets, IPv4 first. Of those that `program` does not let through the kernel sends few or none.
    ///
    /// # Errors
    /// [`Error::NoSockDiag`] if the kernel refused the first dump, so that nothing was pushed; [`Error::Dump`] if a
    /// dump broke off; [`Error::Unfiltered`] if a program that is required was refused.
    pub fn dump(
        &mut self,
        want: &Want,
        program: &Program,
        row: &mut RowSink<'_>,
        mut tee: Option<&mut Tee<'_>>,
    ) -> Result<Coverage, Error> {
        let mut coverage = Coverage {
            collector: Collector::Netlink,
            ..Coverage::default()
        };
        let mut answered = false;
        let both = want.protocol == Protocol::Tcp && want.tables().count() > 1;
        if both && tee.is_none() && program.is_everything() {
            let (slices, mixed) = self.way(want);
            let done = match slices {
                2.. => self.sliced(want, slices, &mut coverage, row),
                _ if mixed => self.both(want, &mut coverage, row),
                _ => Ok(None),
            };
            match done {
                Ok(Some(Progress::Failed(source))) => {
                    let what = Protocol::Tcp.sockets().to_owned();
                    return Err(Error::Dump { what, source });
                }
                Ok(Some(_)) => return Ok(coverage),
                // Refused, or not known to this kernel: then each by itself, as ever.
                Ok(None) | Err(Error::NoSockDiag(_)) => self.mixed = false,
                Err(error) => return Err(error),
            }
        }
        for table in want.tables() {
            let forms: &[Vec<u8>] = match program.part(table.family) {
                Part::Nothing => continue,
                Part::Everything => &[],
                Part::Filtered(forms) => forms,
            };
            let mut forms = forms.iter();
            let mut pushed = false;
            let result = loop {
                let mut row = |pushing: Row<'_>| {
                    pushed = true;
                    row(pushing)
                };
                let form = forms.next().map(Vec::as_slice);
                let tee = tee.as_deref_mut();
                let result = self.table(table, want, form, &mut coverage, &mut row, tee);
                // A program is refused before the first row; then a plainer form is tried, and in the end none.
                match &result {
                    Ok(Progress::Failed(source))
                        if form.is_some() && !pushed && no_program(source) =>
                    {
                        if program.required && forms.len() == 0 {
                            return Err(Error::Unfiltered(describe(source)));
                        }
                    }
                    _ => break result,
                }
            };
            match result {
                Ok(Progress::Stopped) => return Ok(coverage),
                Ok(Progress::Failed(source)) if refused(&source) && !answered => {
                    return Err(Error::NoSockDiag(why(table, &source)));
                }
                Ok(Progress::Failed(source)) if refused(&source) => {
                    let part = format!("{}: {}", table.label(), why(table, &source));
                    coverage.missing.push(part);
                }
                Ok(Progress::Failed(source)) => {
                    return Err(Error::Dump {
                        what: table.label(),
                        source,
                    });
                }
                Ok(Progress::Done | Progress::More) => answered = true,
                Err(Error::NoSockDiag(why)) if answered => {
                    coverage.missing.push(format!("{}: {why}", table.label()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(coverage)
    }

    /// Dumps the TCP sockets of both families at once. `None`: that is refused, and nothing was pushed.
    fn both(
        &mut self,
        want: &Want,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
    ) -> Result<Option<Progress>, Error> {
        let table = Table::without_family(Protocol::Tcp);
        let mut pushed = false;
        let mut row = |pushing: Row<'_>| {
            pushed = true;
            row(pushing)
        };
        self.sequence = self.sequence.wrapping_add(1);
        let request = request::of_both(want, None, self.sequence);
        let progress = self.exchange(&request, table, want, coverage, &mut row, None)?;
        Ok(match progress {
            Progress::Failed(source) if refused(&source) && !pushed => None,
            progress => Some(progress),
        })
    }

    fn table(
        &mut self,
        table: Table,
        want: &Want,
        form: Option<&[u8]>,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
        tee: Option<&mut Tee<'_>>,
    ) -> Result<Progress, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request::of(table, want, form, self.sequence);
        self.exchange(&request, table, want, coverage, row, tee)
    }

    /// Sends a request and reads the answer.
    fn exchange(
        &mut self,
        request: &[u8],
        table: Table,
        want: &Want,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
        mut tee: Option<&mut Tee<'_>>,
    ) -> Result<Progress, Error> {
        self.socket
            .send(request, 0)
            .map_err(|source| Error::NoSockDiag(why(table, &source)))?;
        let mut stream = Stream::new(Some(self.sequence));
        loop {
            let received =
                match rustix::net::recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::TRUNC)
                {
                    Ok((_, length)) => length,
                    Err(Errno::INTR) => continue,
                    Err(Errno::NOBUFS) => {
                        coverage.lost += 1;
                        continue;
                    }
                    Err(errno) => return Err(failed(table, errno, stream.rows())),
                };
            // With MSG_TRUNC the length is the datagram's own, so a cut is seen; the stream counts the message.
            let datagram = self
                .buffer
                .get_mut(..received.min(BUFFER))
                .unwrap_or_default();
            if let Some(tee) = tee.as_deref_mut() {
                wipe(datagram);
                tee(Collector::Netlink, table, datagram);
            }
            let progress = stream.feed(datagram, want, coverage, row);
            if matches!(progress, Progress::Stopped) {
                // The rest of the answer would be read as the answer to the next request: start afresh.
                self.socket = connected()?;
            }
            if !matches!(progress, Progress::More) {
                return Ok(progress);
            }
        }
    }
}

/// A socket that speaks to the kernel alone.
fn connected() -> Result<Socket, Error> {
    let refused = |source: io::Error| Error::NoSockDiag(describe(&source));
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).map_err(refused)?;
    socket.bind_auto().map_err(refused)?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(refused)?;
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(SILENCE),
    )
    .map_err(|errno| refused(errno.into()))?;
    Ok(socket)
}

/// Why no more can be received of a dump that has brought so many rows.
fn failed(table: Table, errno: Errno, rows: u64) -> Error {
    match errno {
        // Refused before any answer: a sandbox that lets the socket exist but not speak.
        errno if rows == 0 && refused(&errno.into()) => {
            Error::NoSockDiag(why(table, &errno.into()))
        }
        Errno::AGAIN => Error::Dump {
            what: table.label(),
            source: io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the kernel was silent for {} s", SILENCE.as_secs()),
            ),
        },
        errno => Error::Netlink {
            what: "cannot receive from sock_diag",
            source: errno.into(),
        },
    }
}

/// The inode of the network namespace of the calling thread.
fn here() -> Option<u64> {
    ProcRoot::default().netns_inode()
}

/// Whether the answer means that this kernel, or the sandbox around us, has no `sock_diag` for us: no module
/// (ENOENT), no such protocol, seccomp, SELinux, gVisor.
fn refused(error: &io::Error) -> bool {
    let refusals = [
        Errno::NOENT,
        Errno::PROTONOSUPPORT,
        Errno::AFNOSUPPORT,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::INVAL,
        Errno::ACCESS,
        Errno::PERM,
        Errno::CONNREFUSED,
    ];
    Errno::from_io_error(error).is_some_and(|errno| refusals.contains(&errno))
}

/// Whether the answer may mean the program: unknown operations (EINVAL), marks without CAP_NET_ADMIN (EPERM).
fn no_program(error: &io::Error) -> bool {
    let refusals = [Errno::INVAL, Errno::PERM];
    Errno::from_io_error(error).is_some_and(|errno| refusals.contains(&errno))
}

/// The error of a table; a module that is missing by its name.
fn why(table: Table, error: &io::Error) -> String {
    let module = match table.protocol {
        Protocol::Tcp => return describe(error),
        Protocol::Mptcp => "mptcp_diag",
        Protocol::Udp | Protocol::UdpLite => "udp_diag",
        Protocol::Raw => "raw_diag",
        Protocol::Sctp => "sctp_diag",
        Protocol::Unix => "unix_diag",
        Protocol::Packet => "af_packet_diag",
        Protocol::Netlink => "netlink_diag",
        Protocol::Vsock => "vsock_diag",
    };
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => format!("ENOENT, the kernel has no {module} module"),
        _ => describe(error),
    }
}

/// The error with the name that a search finds.
fn describe(error: &io::Error) -> String {
    let name = match Errno::from_io_error(error) {
        Some(Errno::NOENT) => "ENOENT, the kernel has no tcp_diag module",
        Some(Errno::PROTONOSUPPORT) => "EPROTONOSUPPORT",
        Some(Errno::AFNOSUPPORT) => "EAFNOSUPPORT",
        Some(Errno::OPNOTSUPP) => "EOPNOTSUPP",
        Some(Errno::NOSYS) => "ENOSYS",
        Some(Errno::INVAL) => "EINVAL",
        Some(Errno::ACCESS) => "EACCES",
        Some(Errno::PERM) => "EPERM",
        Some(Errno::CONNREFUSED) => "ECONNREFUSED",
        _ => return error.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::ops::ControlFlow;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::model::StateSet;

    fn ports(want: &Want) -> Vec<(TcpState, u16)> {
        let mut seen = Vec::new();
        let coverage = Netlink::open()
            .unwrap()
            .dump(
                want,
                &Program::default(),
                &mut |row| {
                    if let Row::Inet { socket, .. } = row {
                        seen.push((socket.state, socket.local.port));
                    }
                    ControlFlow::Continue(())
                },
                None,
            )
            .unwrap();
        assert!(coverage.missing.is_empty());
        seen
    }

    #[test]
    fn both_families_come_at_once_as_one_after_the_other() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").ok();
        let mut own = vec![v4.local_addr().unwrap().port()];
        own.extend(v6.as_ref().map(|v6| v6.local_addr().unwrap().port()));
        let want = Want {
            memory: true,
            ..Want::states(StateSet::of(TcpState::Listen))
        };
        let mut netlink = Netlink::open().unwrap();
        let mut dump = |mixed| {
            netlink.mix_families(mixed);
            let mut seen = Vec::new();
            let mut row = |row: Row<'_>| {
                if let Row::Inet { socket, attributes } = row
                    && own.contains(&socket.local.port)
                {
                    seen.push((socket.family, socket.local.port, socket.cookie));
                    assert!(attributes.memory.is_some() && attributes.tcp_info.is_none());
                }
                ControlFlow::Continue(())
            };
            let everything = Program::default();
            let coverage = netlink.dump(&want, &everything, &mut row, None).unwrap();
            assert!(coverage.rows_complete());
            seen.sort_unstable_by_key(|(_, port, _)| *port);
            (seen, netlink.mixed)
        };
        let (apart, _) = dump(false);
        let (mixed, still) = dump(true);
        assert!(apart.len() == own.len() && still, "{apart:?}");
        assert_eq!(mixed, apart);
    }

    #[test]
    fn the_state_mask_is_the_kernels_to_apply() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let listening = ports(&Want::states(StateSet::of(TcpState::Listen)));
        assert!(listening.contains(&(TcpState::Listen, port)));
        assert!(
            listening
                .iter()
                .all(|(state, _)| *state == TcpState::Listen)
        );
        let established = ports(&Want::states(StateSet::of(TcpState::Established)));
        assert!(established.contains(&(TcpState::Established, port)));
        drop(listener);
        assert!(
            !ports(&Want::states(StateSet::of(TcpState::Listen)))
                .contains(&(TcpState::Listen, port))
        );
    }

    #[test]
    fn attributes_come_only_when_asked_for() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let look = |want: &Want| {
            let mut found = None;
            Netlink::open()
                .unwrap()
                .dump(
                    want,
                    &Program::default(),
                    &mut |row| {
                        if let Row::Inet { socket, attributes } = row
                            && socket.local.port == port
                        {
                            found = Some((
                                attributes.tcp_info.map(<[u8]>::len),
                                attributes.memory(),
                                attributes.congestion.map(<[u8]>::to_vec),
                            ));
                        }
                        ControlFlow::Continue(())
                    },
                    None,
                )
                .unwrap();
            found.unwrap()
        };
        let mut want = Want::states(StateSet::of(TcpState::Listen));
        assert_eq!(look(&want), (None, None, None));
        (want.tcp_info, want.memory, want.congestion) = (true, true, true);
        let (info, memory, congestion) = look(&want);
        assert!(info.unwrap() >= 104);
        assert!(memory.unwrap().rcvbuf > 0);
        assert!(!congestion.unwrap().is_empty());
    }

    #[test]
    fn an_early_stop_leaves_the_socket_usable() {
        let _listeners: Vec<_> = (0..4)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let mut netlink = Netlink::open().unwrap();
        let want = Want::states(StateSet::of(TcpState::Listen));
        for _ in 0..3 {
            let mut rows = 0;
            netlink
                .dump(
                    &want,
                    &Program::default(),
                    &mut |_| {
                        rows += 1;
                        ControlFlow::Break(())
                    },
                    None,
                )
                .unwrap();
            assert_eq!(rows, 1);
        }
    }

    #[test]
    fn udp_sockets_come_with_their_states_queues_and_memory() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        sender.connect(to).unwrap();
        sender.send(&[7; 100]).unwrap();
        let mut found = Vec::new();
        let coverage = Netlink::open().unwrap().dump(
            &Want::all(Protocol::Udp),
            &Program::default(),
            &mut |row| {
                if let Row::Inet { socket, attributes } = row {
                    assert_eq!(socket.protocol, Protocol::Udp);
                    found.push((socket, attributes.memory().unwrap()));
                }
                ControlFlow::Continue(())
            },
            None,
        );
        assert!(coverage.unwrap().missing.is_empty());
        let of = |port| *found.iter().find(|(s, _)| s.local.port == port).unwrap();
        let (socket, memory) = of(to.port());
        assert_eq!(socket.state, TcpState::Closed);
        assert_eq!(socket.state_name(), Some("UNCONNECTED"));
        assert!(socket.recv_q >= 100 && memory.drops == Some(0));
        let (socket, _) = of(sender.local_addr().unwrap().port());
        assert_eq!(socket.state, TcpState::Established);
        assert_eq!(socket.remote.port, to.port());
    }

    #[test]
    fn unix_sockets_come_with_their_names_and_queues() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let inode = |fd: i32| {
            let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
            let link = link.to_str().unwrap().to_owned();
            let digits = link.trim_start_matches("socket:[").trim_end_matches(']');
            digits.parse::<u32>().unwrap()
        };
        let (listening, connecting) = (inode(listener.as_raw_fd()), inode(client.as_raw_fd()));
        let (mut seen, mut clients) = (0, 0);
        let coverage = Netlink::open().unwrap().dump(
            &Want::all(Protocol::Unix),
            &Program::default(),
            &mut |row| {
                if let Row::Unix(socket) = row
                    && socket.inode == listening
                {
                    seen += 1;
                    let name = crate::model::unix::shown(socket.name.unwrap());
                    assert_eq!(name, path.to_str().unwrap());
                    assert_eq!(socket.state, TcpState::Listen);
                    assert_eq!(socket.recv_q, Some(1));
                    assert!(socket.send_q.unwrap() > 0 && socket.cookie.is_some());
                    assert_eq!(socket.waiting.unwrap(), connecting.to_ne_bytes());
                    assert!(socket.file.is_some() && socket.memory().is_some());
                    let euid = rustix::process::geteuid().as_raw();
                    assert_eq!(socket.uid, Some(euid));
                }
                if let Row::Unix(socket) = row
                    && socket.inode == connecting
                {
                    clients += 1;
                    assert_eq!(socket.state, TcpState::Established);
                }
                ControlFlow::Continue(())
            },
            None,
        );
        assert!(coverage.unwrap().rows_complete());
        assert_eq!((seen, clients), (1, 1));
    }
}
