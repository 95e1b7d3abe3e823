//! `SOCK_DESTROY` (`include/uapi/linux/sock_diag.h`): one socket, named by its addresses and its cookie.
//!
//! The kernel looks the socket up by its addresses and acts only if the cookie is the same, so that a newer connection
//! on the same ports is never hit (`inet_diag_find_one_icsk()` in `net/ipv4/inet_diag.c`). Where several sockets share
//! the addresses (`SO_REUSEPORT`), or where none of its tables has the socket (one that is only bound), it finds
//! another or none and says ENOENT, although the socket is there.

use std::io;
use std::num::NonZeroU64;
use std::ops::ControlFlow;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6};
use netlink_packet_sock_diag::inet::{InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagDestroy, SockDiagMessage};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::request::{extensions, number};
use super::{BUFFER, Netlink, Progress, Stream};
use crate::collect::{Error, Row, Want};
use crate::model::{Coverage, Family, Protocol, Socket, StateSet};

/// What came of the attempt to destroy a socket.
#[derive(Debug)]
pub enum Destroyed {
    /// it is gone by our doing
    Done,
    /// the kernel finds no such socket: it was gone before, or its addresses do not lead to it
    Gone,
    /// it is there, and the caller does not want it as it is now
    Unwanted,
    /// the kernel does not do it
    Refused(Refusal),
}

/// Why the kernel does not destroy a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// EPERM: CAP_NET_ADMIN is missing, in the user namespace that the network namespace belongs to
    Privilege,
    /// EOPNOTSUPP: a kernel without CONFIG_INET_DIAG_DESTROY, or a protocol that cannot
    Unsupported,
    /// any other errno
    Other(i32),
}

impl Refusal {
    fn of(errno: i32) -> Self {
        match Errno::from_raw_os_error(errno) {
            Errno::PERM | Errno::ACCESS => Self::Privilege,
            Errno::OPNOTSUPP => Self::Unsupported,
            _ => Self::Other(errno),
        }
    }

    /// Whether every other socket will be refused for the same reason.
    pub const fn is_for_all(self) -> bool {
        matches!(self, Self::Privilege | Self::Unsupported)
    }
}

/// Whether this thread has CAP_NET_ADMIN in its own user namespace. The kernel asks for it in the one that the network
/// namespace belongs to, so that a yes is not yet a promise. Where it cannot be told the kernel is left to say no.
pub fn has_net_admin() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| {
        sets.effective
            .contains(rustix::thread::CapabilitySet::NET_ADMIN)
    })
}

impl Netlink {
    /// Destroys a socket that a dump has shown, if `wanted` still says so of the socket as it is now: a connection goes
    /// on through its states while somebody thinks about it. Between that look and the act there is nothing else.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn destroy(
        &mut self,
        socket: &Socket,
        want: &Want,
        wanted: &mut dyn FnMut(Row<'_>) -> bool,
    ) -> Result<Destroyed, Error> {
        let Some(cookie) = socket.cookie else {
            // Without it the kernel takes whatever it finds.
            return Ok(Destroyed::Gone);
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.ask(&look(socket, cookie, want, self.sequence))?;
        let want = Want {
            protocol: socket.protocol,
            ..Want::states(StateSet::ALL)
        };
        let mut stream = Stream::new(Some(self.sequence));
        let mut verdict = None;
        loop {
            let received = self.answer()?;
            let datagram = self.buffer.get(..received).unwrap_or_default();
            let mut coverage = Coverage::default();
            let progress = stream.feed(datagram, &want, &mut coverage, &mut |row| {
                verdict = Some(wanted(row));
                ControlFlow::Break(())
            });
            match progress {
                Progress::Failed(error) => {
                    let errno = error.raw_os_error().unwrap_or_default();
                    return Ok(ended(errno));
                }
                Progress::Stopped | Progress::Done => break,
                // What could not be decoded was no answer that says what the socket is.
                Progress::More if coverage.undecoded > 0 => break,
                Progress::More => {}
            }
        }
        if verdict != Some(true) {
            return Ok(Destroyed::Unwanted);
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.ask(&destruction(socket, cookie, self.sequence))?;
        loop {
            let received = self.answer()?;
            let datagram = self.buffer.get(..received).unwrap_or_default();
            match acknowledged(datagram, self.sequence) {
                Some(0) => return Ok(Destroyed::Done),
                Some(errno) => return Ok(ended(errno)),
                None => {}
            }
        }
    }

    fn ask(&self, request: &[u8]) -> Result<(), Error> {
        let sent = self.socket.send(request, 0);
        sent.map(drop).map_err(|source| Error::Netlink {
            what: "cannot send to sock_diag",
            source,
        })
    }

    /// The length of the next datagram, which is in the buffer then.
    fn answer(&mut self) -> Result<usize, Error> {
        loop {
            match rustix::net::recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((_, length)) => return Ok(length.min(BUFFER)),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(Error::Netlink {
                        what: "cannot receive from sock_diag",
                        source: io::Error::from(errno),
                    });
                }
            }
        }
    }
}

/// What an errno says of the socket.
fn ended(errno: i32) -> Destroyed {
    match Errno::from_raw_os_error(errno) {
        // ESTALE: UDP's word for another cookie (`sock_diag_check_cookie()` in `net/core/sock_diag.c`).
        Errno::NOENT | Errno::STALE => Destroyed::Gone,
        _ => Destroyed::Refused(Refusal::of(errno)),
    }
}

/// The errno of the acknowledgement with this number, 0 for success; `None` for a datagram that has none.
fn acknowledged(datagram: &[u8], sequence: u32) -> Option<i32> {
    let message = NetlinkBuffer::new_checked(datagram).ok()?;
    if message.message_type() != NLMSG_ERROR || message.sequence_number() != sequence {
        return None;
    }
    let code = message.payload().first_chunk()?;
    Some(i32::from_ne_bytes(*code).saturating_neg())
}

/// The request for what a socket is now.
fn look(socket: &Socket, cookie: NonZeroU64, want: &Want, sequence: u32) -> Vec<u8> {
    let mut named = named(socket, cookie);
    named.extensions = extensions(want);
    if socket.protocol == Protocol::Udp {
        // For a look, and not for the act, UDP takes the two ends the other way round (`udp_dump_one()` in
        // `net/ipv4/udp_diag.c`).
        let id = &mut named.socket_id;
        std::mem::swap(&mut id.source_port, &mut id.destination_port);
        std::mem::swap(&mut id.source_address, &mut id.destination_address);
    }
    let message = SockDiagMessage::InetRequest(named);
    framed(message, NLM_F_REQUEST, sequence)
}

/// The request to destroy a socket.
fn destruction(socket: &Socket, cookie: NonZeroU64, sequence: u32) -> Vec<u8> {
    let message = SockDiagMessage::InetRequest(named(socket, cookie));
    let message = SockDiagDestroy::new(message);
    framed(message, NLM_F_REQUEST | NLM_F_ACK, sequence)
}

/// The request about one socket.
fn named(socket: &Socket, cookie: NonZeroU64) -> InetRequest {
    let mut halves = [0; 8];
    // Two words of the machine's byte order, the lower one first.
    let (low, high) = halves.split_at_mut(4);
    low.copy_from_slice(&lower(cookie.get()).to_ne_bytes());
    high.copy_from_slice(&lower(cookie.get() >> 32).to_ne_bytes());
    InetRequest {
        family: match socket.family {
            Family::Ipv4 => AF_INET,
            Family::Ipv6 => AF_INET6,
        },
        protocol: number(socket.protocol),
        extensions: extensions(&Want::states(StateSet::EMPTY)),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: socket.local.port,
            destination_port: socket.remote.port,
            source_address: socket.local_ip(),
            destination_address: socket.remote_ip(),
            interface_id: socket.ifindex,
            cookie: halves,
        },
    }
}

fn lower(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default()
}

fn framed<T: NetlinkSerializable + Into<NetlinkPayload<T>>>(
    message: T,
    flags: u16,
    sequence: u32,
) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, message.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use netlink_packet_core::Parseable;
    use netlink_packet_sock_diag::SOCK_DESTROY;
    use proptest::prelude::*;

    use super::*;
    use crate::model::Program;
    use crate::model::{Endpoint, TcpState, Timer};

    fn socket(family: Family, protocol: Protocol) -> Socket {
        let address = |last| match family {
            Family::Ipv4 => Endpoint::v4([10, 0, 0, last], 1000 + u16::from(last)),
            Family::Ipv6 => Endpoint::v6([last; 16], 1000 + u16::from(last)),
        };
        Socket {
            cookie: NonZeroU64::new(0x0102_0304_0506_0708),
            local: address(1),
            remote: address(2),
            inode: 7,
            uid: 0,
            recv_q: 0,
            send_q: 0,
            timer_ms: 0,
            ifindex: 3,
            info: None,
            netns: 0,
            retransmits: 0,
            timer: Timer::None,
            state: TcpState::Established,
            protocol,
            family,
        }
    }

    /// An acknowledgement as the kernel sends it: the errno, then the request's own header.
    fn acknowledgement(errno: i32, sequence: u32) -> Vec<u8> {
        let mut bytes = 36u32.to_ne_bytes().to_vec();
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend(0u16.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend((-errno).to_ne_bytes());
        bytes.resize(36, 0);
        bytes
    }

    #[test]
    fn the_request_names_the_socket_by_addresses_and_cookie() {
        for family in [Family::Ipv4, Family::Ipv6] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let socket = socket(family, protocol);
                let bytes = destruction(&socket, socket.cookie.unwrap(), 77);
                let frame = NetlinkBuffer::new_checked(&bytes[..]).unwrap();
                assert_eq!(frame.message_type(), SOCK_DESTROY);
                assert_eq!(frame.flags(), NLM_F_REQUEST | NLM_F_ACK);
                assert_eq!(frame.sequence_number(), 77);
                // `struct inet_diag_req_v2`: the id begins at 8, the cookie is its end.
                let payload = frame.payload();
                assert_eq!(payload.len(), 56);
                assert_eq!(payload[0], if family == Family::Ipv4 { 2 } else { 10 });
                assert_eq!(payload[1], if protocol == Protocol::Tcp { 6 } else { 17 });
                assert_eq!(payload[8..12], [0x03, 0xe9, 0x03, 0xea]);
                assert_eq!(payload[44..48], 3u32.to_ne_bytes());
                let words = [0x0506_0708u32.to_ne_bytes(), 0x0102_0304u32.to_ne_bytes()];
                assert_eq!(payload[48..], words.concat());
                // The crate's own decoder is the oracle.
                let read = InetRequest::parse(payload).unwrap();
                assert_eq!(read, named(&socket, socket.cookie.unwrap()));
            }
        }
    }

    #[test]
    fn every_answer_of_the_kernel_is_told_apart() {
        // Built frames: this kernel has CONFIG_INET_DIAG_DESTROY, and does not answer all of these.
        let told = |errno: Errno| {
            let frame = acknowledgement(errno.raw_os_error(), 5);
            ended(acknowledged(&frame, 5).unwrap())
        };
        assert!(matches!(told(Errno::NOENT), Destroyed::Gone));
        assert!(matches!(told(Errno::STALE), Destroyed::Gone));
        for (errno, refusal, all) in [
            (Errno::PERM, Refusal::Privilege, true),
            (Errno::OPNOTSUPP, Refusal::Unsupported, true),
            (Errno::INVAL, Refusal::Other(22), false),
            (Errno::NOMEM, Refusal::Other(12), false),
        ] {
            let Destroyed::Refused(found) = told(errno) else {
                panic!("{errno}")
            };
            assert_eq!((found, found.is_for_all()), (refusal, all));
        }
        assert_eq!(acknowledged(&acknowledgement(0, 5), 5), Some(0));
        let late = acknowledgement(0, 4);
        assert_eq!(
            acknowledged(&late, 5),
            None,
            "the answer to another request"
        );
        let cut = acknowledgement(0, 5);
        assert_eq!(acknowledged(&cut[..18], 5), None);
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..64), sequence in any::<u32>()) {
            let _ = acknowledged(&bytes, sequence).map(ended);
        }
    }

    /// Our end of a connection over loopback, as a dump shows it.
    fn dumped(netlink: &mut Netlink, port: u16) -> Socket {
        let mut found = None;
        let want = Want::states(StateSet::of(TcpState::Established));
        let mut see = |row: Row<'_>| {
            if let Row::Inet { socket, .. } = row
                && socket.local.port == port
            {
                found = Some(socket);
            }
            ControlFlow::Continue(())
        };
        netlink
            .dump(&want, &Program::default(), &mut see, None)
            .unwrap();
        found.unwrap()
    }

    #[test]
    fn only_what_is_still_wanted_and_still_the_same_is_touched() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let port = client.local_addr().unwrap().port();
        let socket = dumped(&mut netlink, port);
        let want = Want::states(StateSet::ALL);
        let mut shown = None;
        let unwanted = netlink.destroy(&socket, &want, &mut |row| {
            if let Row::Inet { socket, .. } = row {
                shown = Some(socket);
            }
            false
        });
        assert!(matches!(unwanted, Ok(Destroyed::Unwanted)), "{unwanted:?}");
        assert_eq!(shown.map(|now| now.cookie), Some(socket.cookie));
        // The same addresses, another socket.
        let other = Socket {
            cookie: NonZeroU64::new(u64::MAX - 1),
            ..socket
        };
        let gone = netlink.destroy(&other, &want, &mut |_| true);
        assert!(matches!(gone, Ok(Destroyed::Gone)), "{gone:?}");
        let nameless = Socket {
            cookie: None,
            ..socket
        };
        let gone = netlink.destroy(&nameless, &want, &mut |_| true);
        assert!(matches!(gone, Ok(Destroyed::Gone)), "{gone:?}");
        // It lives, and dumps still work on the same netlink socket.
        client.write_all(b"x").unwrap();
        assert_eq!(dumped(&mut netlink, port).cookie, socket.cookie);
    }
}
