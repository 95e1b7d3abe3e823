//! TCP sockets through `sock_diag` (`NETLINK_SOCK_DIAG`, `include/uapi/linux/inet_diag.h`).
//!
//! One request a family with the states as a mask, so that the kernel walks its table but copies only what is
//! wanted; the answers are decoded in place and pushed.

mod decode;
mod stream;

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use rustix::io::Errno;
use rustix::net::RecvFlags;

pub use self::stream::{Progress, Stream};
use super::{Error, RowSink, Tee, Want};
use crate::model::{Collector, Coverage, Family};

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

    /// Dumps the wanted TCP sockets, IPv4 first.
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
        for family in [Family::Ipv4, Family::Ipv6] {
            if !want.family(family) || want.states.is_empty() {
                continue;
            }
            match self.family(family, want, &mut coverage, row, tee.as_deref_mut()) {
                Ok(Progress::Stopped) => return Ok(coverage),
                Ok(Progress::Failed(source)) if refused(&source) && !answered => {
                    return Err(Error::NoSockDiag(describe(&source)));
                }
                Ok(Progress::Failed(source)) if refused(&source) => {
                    coverage.missing.push(format!(
                        "TCP over {}: {}",
                        label(family),
                        describe(&source)
                    ));
                }
                Ok(Progress::Failed(source)) => {
                    return Err(Error::Dump {
                        what: format!("TCP over {}", label(family)),
                        source,
                    });
                }
                Ok(Progress::Done | Progress::More) => answered = true,
                Err(Error::NoSockDiag(why)) if answered => {
                    coverage
                        .missing
                        .push(format!("TCP over {}: {why}", label(family)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(coverage)
    }

    fn family(
        &mut self,
        family: Family,
        want: &Want,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
        mut tee: Option<&mut Tee<'_>>,
    ) -> Result<Progress, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(family, want, self.sequence);
        self.socket
            .send(&request, 0)
            .map_err(|source| Error::NoSockDiag(describe(&source)))?;
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
                        return Err(Error::NoSockDiag(describe(&errno.into())));
                    }
                    Err(Errno::AGAIN) => {
                        return Err(Error::Dump {
                            what: format!("TCP over {}", label(family)),
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
            let datagram = self.buffer.get(..received.min(BUFFER)).unwrap_or_default();
            if let Some(tee) = tee.as_deref_mut() {
                tee(Collector::Netlink, family, datagram);
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

/// The request for a dump of one family's TCP sockets.
fn request(family: Family, want: &Want, sequence: u32) -> Vec<u8> {
    let mut extensions = ExtensionFlags::empty();
    let mut ask = |wanted: bool, flag: ExtensionFlags| {
        if wanted {
            extensions |= flag;
        }
    };
    ask(want.tcp_info, ExtensionFlags::INFO);
    ask(want.memory, ExtensionFlags::SKMEMINFO);
    ask(want.congestion, ExtensionFlags::CONG);
    ask(want.tos, ExtensionFlags::TOS | ExtensionFlags::TCLASS);
    let (family, socket_id) = match family {
        Family::Ipv4 => (AF_INET, SocketId::new_v4()),
        Family::Ipv6 => (AF_INET6, SocketId::new_v6()),
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = sequence;
    let payload = NetlinkPayload::from(SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions,
        states: StateFlags::from_bits_retain(want.states.mask()),
        socket_id,
    }));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

const fn label(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
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
    use std::net::{TcpListener, TcpStream};
    use std::ops::ControlFlow;

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
                    let Row::Inet { socket, .. } = row;
                    seen.push((socket.state, socket.local.port));
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
                        let Row::Inet { socket, attributes } = row;
                        if socket.local.port == port {
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
}
