//! Sockets through `sock_diag` (`NETLINK_SOCK_DIAG`, `include/uapi/linux/{inet,unix,packet,netlink,vm_sockets}_diag.h`).
//!
//! One request a table with the states as a mask, so that the kernel walks its table but copies only what is
//! wanted; the answers are decoded in place and pushed.

#[cfg(test)]
mod built;
mod decode;
mod others;
mod secrets;
mod stream;

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_RAW, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE,
};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SOCK_DIAG_BY_FAMILY, SockDiagMessage, unix};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use rustix::io::Errno;
use rustix::net::RecvFlags;

pub use self::stream::{Progress, Stream, TCPDIAG_GETSOCK};
use super::{Error, RowSink, Table, Tee, Want};
use crate::model::{Collector, Coverage, Family, Protocol, StateSet};

/// `UDIAG_SHOW_UID`, which `netlink-packet-sock-diag` has no name for.
const UDIAG_SHOW_UID: u32 = 1 << 6;

/// `sizeof(struct nlmsghdr)` (`include/uapi/linux/netlink.h`)
const HEADER: usize = 16;

/// `INET_DIAG_REQ_PROTOCOL`: the protocol where it is no byte (`include/uapi/linux/inet_diag.h`)
const INET_DIAG_REQ_PROTOCOL: u16 = 3;

/// `IPPROTO_MPTCP` (`include/uapi/linux/in.h`)
const IPPROTO_MPTCP: u32 = 262;

/// What the kernel fills at most; a larger buffer gains nothing.
const BUFFER: usize = 32 * 1024;

/// How long the kernel may be silent. It answers a dump in microseconds; silence means that no answer will come.
const SILENCE: Duration = Duration::from_secs(10);

/// A `sock_diag` socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`Error::NoSockDiag`] where the kernel or a sandbox refuses it.
    pub fn open() -> Result<Self, Error> {
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
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Dumps the wanted sockets, IPv4 first.
    ///
    /// # Errors
    /// [`Error::NoSockDiag`] if the kernel refused the first dump, so that nothing was pushed; [`Error::Dump`] if a
    /// dump broke off.
    pub fn dump(
        &mut self,
        want: &Want,
        row: &mut RowSink<'_>,
        mut tee: Option<&mut Tee<'_>>,
    ) -> Result<Coverage, Error> {
        let mut coverage = Coverage {
            collector: Collector::Netlink,
            ..Coverage::default()
        };
        let mut answered = false;
        for table in want.tables() {
            match self.table(table, want, &mut coverage, row, tee.as_deref_mut()) {
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

    fn table(
        &mut self,
        table: Table,
        want: &Want,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
        mut tee: Option<&mut Tee<'_>>,
    ) -> Result<Progress, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(table, want, self.sequence);
        self.socket
            .send(&request, 0)
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
                    // Refused before any answer: a sandbox that lets the socket exist but not speak.
                    Err(errno) if stream.rows() == 0 && refused(&errno.into()) => {
                        return Err(Error::NoSockDiag(why(table, &errno.into())));
                    }
                    Err(Errno::AGAIN) => {
                        return Err(Error::Dump {
                            what: table.label(),
                            source: io::Error::new(
                                io::ErrorKind::TimedOut,
                                format!("the kernel was silent for {} s", SILENCE.as_secs()),
                            ),
                        });
                    }
                    Err(errno) => {
                        return Err(Error::Netlink {
                            what: "cannot receive from sock_diag",
                            source: errno.into(),
                        });
                    }
                };
            // With MSG_TRUNC the length is the datagram's own, so a cut is seen; the stream counts the message.
            let datagram = self
                .buffer
                .get_mut(..received.min(BUFFER))
                .unwrap_or_default();
            if let Some(tee) = tee.as_deref_mut() {
                secrets::wipe(datagram);
                tee(Collector::Netlink, table, datagram);
            }
            let progress = stream.feed(datagram, want, coverage, row);
            if matches!(progress, Progress::Stopped) {
                // The rest of the answer would be read as the answer to the next request: start afresh.
                *self = Self::open()?;
            }
            if !matches!(progress, Progress::More) {
                return Ok(progress);
            }
        }
    }
}

/// The request for a dump of one table.
fn request(table: Table, want: &Want, sequence: u32) -> Vec<u8> {
    let (family, socket_id) = match table.family {
        Some(Family::Ipv4) => (AF_INET, SocketId::new_v4()),
        Some(Family::Ipv6) => (AF_INET6, SocketId::new_v6()),
        None if table.protocol == Protocol::Unix => return finished(unix_request(want), sequence),
        None => return framed(&others::request(table.protocol, want), sequence),
    };
    let mut extensions = ExtensionFlags::empty();
    let mut ask = |wanted: bool, flag: ExtensionFlags| {
        if wanted {
            extensions |= flag;
        }
    };
    ask(want.tcp_info, ExtensionFlags::INFO);
    ask(want.memory, ExtensionFlags::SKMEMINFO);
    ask(want.congestion, ExtensionFlags::CONG);
    ask(want.congestion_info, ExtensionFlags::VEGASINFO);
    ask(want.tos, ExtensionFlags::TOS | ExtensionFlags::TCLASS);
    let request = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: match table.protocol {
            Protocol::Udp => IPPROTO_UDP,
            Protocol::UdpLite => IPPROTO_UDPLITE,
            Protocol::Raw => IPPROTO_RAW,
            Protocol::Sctp => IPPROTO_SCTP,
            // 262 does not fit. A kernel that does not know the attribute must not take it for TCP's 6.
            Protocol::Mptcp => 0,
            _ => IPPROTO_TCP,
        },
        extensions,
        states: StateFlags::from_bits_retain(match table.protocol {
            // An association has states of its own, and a socket that does not listen comes only beside those that do.
            Protocol::Sctp => StateSet::ALL.mask(),
            _ => want.states.mask(),
        }),
        socket_id,
    });
    let mut bytes = finished(request, sequence);
    if table.protocol == Protocol::Mptcp {
        append(
            &mut bytes,
            INET_DIAG_REQ_PROTOCOL,
            &IPPROTO_MPTCP.to_ne_bytes(),
        );
    }
    bytes
}

/// Appends an attribute to a request and corrects the request's length.
fn append(request: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let Ok(length) = u16::try_from(NLA_HEADER_SIZE.saturating_add(value.len())) else {
        return;
    };
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(value);
    request.resize(request.len().next_multiple_of(4), 0);
    let whole = u32::try_from(request.len()).unwrap_or_default();
    if let Some(length) = request.first_chunk_mut() {
        *length = whole.to_ne_bytes();
    }
}

/// A request that the crate has no message for.
fn framed(request: &[u8], sequence: u32) -> Vec<u8> {
    let length = HEADER.saturating_add(request.len());
    let mut bytes = u32::try_from(length)
        .unwrap_or_default()
        .to_ne_bytes()
        .to_vec();
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(request);
    bytes
}

fn unix_request(want: &Want) -> SockDiagMessage {
    let mut show = unix::ShowFlags::NAME
        | unix::ShowFlags::VFS
        | unix::ShowFlags::PEER
        | unix::ShowFlags::ICONS
        | unix::ShowFlags::RQLEN
        | unix::ShowFlags::from_bits_retain(UDIAG_SHOW_UID);
    if want.memory {
        show |= unix::ShowFlags::MEMINFO;
    }
    SockDiagMessage::UnixRequest(unix::UnixRequest {
        state_flags: unix::StateFlags::from_bits_retain(want.states.mask()),
        inode: 0,
        show_flags: show,
        cookie: [0xff; 8],
    })
}

fn finished(request: SockDiagMessage, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
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
    use crate::collect::Row;
    use crate::model::{StateSet, TcpState};

    fn ports(want: &Want) -> Vec<(TcpState, u16)> {
        let mut seen = Vec::new();
        let coverage = Netlink::open()
            .unwrap()
            .dump(
                want,
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
