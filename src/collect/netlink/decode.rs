//! One `sock_diag` answer into a [`Socket`] and its borrowed [`Attributes`], or a [`UnixSocket`], without allocating.
//!
//! Layouts are those of `include/uapi/linux/inet_diag.h` and `unix_diag.h`. What a kernel does not send is absent; an attribute that
//! is unknown here is passed over.

use std::num::NonZeroU64;

use zerocopy::byteorder::network_endian::U16 as BeU16;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, native_endian};

use crate::model::nla::{Nlas, text_of};
use crate::model::options::SockOpts;
use crate::model::{
    Attributes, Endpoint, Family, Protocol, Socket, TcpState, Timer, UnixKind, UnixSocket, sctp,
};

const AF_UNIX: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

// Attribute types that `netlink-packet-sock-diag` has no names for.
const INET_DIAG_CGROUP_ID: u16 = 21;
const INET_DIAG_SOCKOPT: u16 = 22;
const UNIX_DIAG_UID: u16 = 7;

/// `enum sctp_event_timeout` (`include/net/sctp/constants.h`): data waits for its acknowledgement.
const SCTP_EVENT_TIMEOUT_T3_RTX: u8 = 4;

/// `struct inet_diag_msg`, 72 bytes.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct InetDiagMsg {
    family: u8,
    state: u8,
    timer: u8,
    retrans: u8,
    sport: BeU16,
    dport: BeU16,
    src: [u8; 16],
    dst: [u8; 16],
    ifindex: native_endian::U32,
    cookie: [native_endian::U32; 2],
    expires: native_endian::U32,
    rqueue: native_endian::U32,
    wqueue: native_endian::U32,
    uid: native_endian::U32,
    inode: native_endian::U32,
}

const _: () = assert!(size_of::<InetDiagMsg>() == 72);

/// `struct unix_diag_msg`, 16 bytes.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct UnixDiagMsg {
    family: u8,
    kind: u8,
    state: u8,
    pad: u8,
    inode: native_endian::U32,
    cookie: [native_endian::U32; 2],
}

const _: () = assert!(size_of::<UnixDiagMsg>() == 16);

/// Decodes the payload of a `SOCK_DIAG_BY_FAMILY` message about a socket of `protocol` over IP. `None` if it is too
/// short or of a family that was not asked for.
pub fn inet(payload: &[u8], protocol: Protocol) -> Option<(Socket, Attributes<'_>)> {
    let (message, rest) = InetDiagMsg::ref_from_prefix(payload).ok()?;
    let endpoint = |address: &[u8; 16], port: BeU16| match message.family {
        AF_INET => {
            let [a, b, c, d, ..] = *address;
            Some((Family::Ipv4, Endpoint::v4([a, b, c, d], port.get())))
        }
        AF_INET6 => Some((Family::Ipv6, Endpoint::v6(*address, port.get()))),
        _ => None,
    };
    let (family, local) = endpoint(&message.src, message.sport)?;
    let (_, remote) = endpoint(&message.dst, message.dport)?;
    // A closed TCP socket is in no table: what comes as TCP_CLOSE was asked for as TCP_BOUND_INACTIVE.
    let state = match TcpState::from_kernel(message.state) {
        TcpState::Closed if protocol == Protocol::Tcp => TcpState::BoundInactive,
        state => state,
    };
    let mut socket = Socket {
        cookie: cookie(&message.cookie),
        local,
        remote,
        inode: message.inode.get(),
        uid: message.uid.get(),
        recv_q: message.rqueue.get(),
        send_q: message.wqueue.get(),
        timer_ms: message.expires.get(),
        ifindex: message.ifindex.get(),
        info: None,
        netns: 0,
        retransmits: message.retrans,
        timer: Timer::from_kernel(message.timer),
        state,
        protocol,
        family,
    };
    let attributes = attributes(rest, protocol);
    // The row of an association has its states and timers, not those of a socket (`net/sctp/diag.c`).
    if protocol == Protocol::Sctp && attributes.peers.is_some() {
        socket.state = sctp::association(message.state);
        socket.timer = match message.timer {
            SCTP_EVENT_TIMEOUT_T3_RTX => Timer::Retransmit,
            other => Timer::from_kernel(other),
        };
    }
    Some((socket, attributes))
}

/// Decodes the payload of a `SOCK_DIAG_BY_FAMILY` message about a UNIX socket.
pub fn unix(payload: &[u8]) -> Option<UnixSocket<'_>> {
    use netlink_packet_sock_diag::constants as c;

    let (message, rest) = UnixDiagMsg::ref_from_prefix(payload).ok()?;
    if message.family != AF_UNIX {
        return None;
    }
    let mut socket = UnixSocket {
        cookie: cookie(&message.cookie),
        inode: message.inode.get(),
        kind: UnixKind::from_kernel(message.kind),
        state: TcpState::from_kernel(message.state),
        name: None,
        file: None,
        peer: None,
        waiting: None,
        recv_q: None,
        send_q: None,
        memory: None,
        shutdown: None,
        uid: None,
        netns: 0,
    };
    each(rest, |kind, value| match kind {
        c::UNIX_DIAG_NAME => socket.name = Some(value).filter(|name| !name.is_empty()),
        // `struct unix_diag_vfs` has the inode first.
        c::UNIX_DIAG_VFS => socket.file = pair(value).map(|(inode, device)| (device, inode)),
        c::UNIX_DIAG_PEER => socket.peer = number(value),
        c::UNIX_DIAG_ICONS => socket.waiting = Some(value),
        c::UNIX_DIAG_RQLEN => (socket.recv_q, socket.send_q) = pair(value).unzip(),
        c::UNIX_DIAG_MEMINFO => socket.memory = Some(value),
        c::UNIX_DIAG_SHUTDOWN => socket.shutdown = value.first().copied(),
        UNIX_DIAG_UID => socket.uid = number(value),
        _ => {}
    });
    Some(socket)
}

pub(super) fn cookie([low, high]: &[native_endian::U32; 2]) -> Option<NonZeroU64> {
    NonZeroU64::new(u64::from(high.get()) << 32 | u64::from(low.get()))
}

/// Walks the attributes once. A malformed one ends the walk; what came before it stands.
pub(super) fn each<'a>(bytes: &'a [u8], mut take: impl FnMut(u16, &'a [u8])) {
    for (kind, value) in Nlas::new(bytes) {
        take(kind, value);
    }
}

fn attributes(bytes: &[u8], protocol: Protocol) -> Attributes<'_> {
    let mut attributes = Attributes::default();
    let mut walk = Nlas::new(bytes);
    // What is left at the first of the rare ones, and behind the last.
    let mut rare: Option<(&[u8], &[u8])> = None;
    while let (here, Some((kind, value))) = (walk.rest(), walk.next()) {
        if Attributes::is_rare(kind) {
            rare = Some((rare.map_or(here, |(first, _)| first), walk.rest()));
            continue;
        }
        common(&mut attributes, protocol, kind, value);
    }
    if let Some((first, behind)) = rare {
        attributes.rest = first
            .get(..first.len().saturating_sub(behind.len()))
            .unwrap_or_default();
    }
    attributes
}

fn common<'a>(attributes: &mut Attributes<'a>, protocol: Protocol, kind: u16, value: &'a [u8]) {
    use netlink_packet_sock_diag::constants as c;

    match kind {
        c::INET_DIAG_INFO => match protocol {
            Protocol::Tcp => attributes.tcp_info = Some(value),
            Protocol::Mptcp => attributes.mptcp_info = Some(value),
            Protocol::Sctp => attributes.sctp_info = Some(value),
            _ => {}
        },
        c::INET_DIAG_LOCALS => attributes.locals = Some(value),
        c::INET_DIAG_PEERS => attributes.peers = Some(value),
        c::INET_DIAG_SKMEMINFO => attributes.memory = Some(value),
        c::INET_DIAG_CONG => {
            attributes.congestion = Some(text_of(value));
        }
        c::INET_DIAG_SHUTDOWN => attributes.shutdown = value.first().copied(),
        c::INET_DIAG_SKV6ONLY => attributes.v6only = value.first().map(|byte| *byte != 0),
        c::INET_DIAG_TOS => attributes.tos = value.first().copied(),
        c::INET_DIAG_TCLASS => attributes.tclass = value.first().copied(),
        c::INET_DIAG_MARK => attributes.mark = number(value),
        c::INET_DIAG_CLASS_ID => attributes.class_id = number(value),
        INET_DIAG_CGROUP_ID => {
            let id = value.try_into().ok().map(u64::from_ne_bytes);
            attributes.cgroup = id.and_then(NonZeroU64::new);
        }
        INET_DIAG_SOCKOPT => attributes.sockopt = SockOpts::parse(value),
        _ => {}
    }
}

/// Two numbers, as `unix_diag` has them.
fn pair(value: &[u8]) -> Option<(u32, u32)> {
    let (first, rest) = value.split_first_chunk()?;
    let second = rest.first_chunk()?;
    Some((u32::from_ne_bytes(*first), u32::from_ne_bytes(*second)))
}

pub(super) fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{Emitable, Parseable};
    use netlink_packet_sock_diag::inet::{InetResponse, SocketId, nlas::Nla};
    use proptest::prelude::*;

    use super::*;
    use crate::model::tcp_info::{MEMBERS, TcpInfo};

    /// A message with every header field as given and the attributes appended raw.
    fn message(header: [u8; 72], nlas: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = header.to_vec();
        for (kind, value) in nlas {
            bytes.extend((value.len() as u16 + 4).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn header() -> impl Strategy<Value = [u8; 72]> {
        (
            prop::array::uniform32(any::<u8>()),
            prop::array::uniform32(any::<u8>()),
            any::<[u8; 8]>(),
            any::<bool>(),
        )
            .prop_map(|(a, b, c, v4)| {
                let mut header = [0u8; 72];
                header[..32].copy_from_slice(&a);
                header[32..64].copy_from_slice(&b);
                header[64..].copy_from_slice(&c);
                header[0] = if v4 { AF_INET } else { AF_INET6 };
                header
            })
    }

    proptest! {
        // The crate's decoder is the oracle for whatever both of them know.
        #[test]
        fn agrees_with_the_crates_decoder(
            header in header(),
            shutdown in any::<u8>(),
            congestion in "[a-z]{1,15}",
            tos in any::<u8>(),
            mark in any::<u32>(),
            v6only in any::<bool>(),
        ) {
            let mut name = congestion.clone().into_bytes();
            name.push(0);
            let bytes = message(header, &[
                (8, vec![shutdown]),
                (4, name),
                (5, vec![tos]),
                (15, mark.to_ne_bytes().to_vec()),
                (11, vec![u8::from(v6only)]),
                (21, 77u64.to_ne_bytes().to_vec()),
                (99, vec![1, 2, 3]),
            ]);
            let (socket, attributes) = inet(&bytes, Protocol::Tcp).unwrap();
            let oracle = InetResponse::parse(&bytes[..]).unwrap();
            let id: &SocketId = &oracle.header.socket_id;
            prop_assert_eq!(socket.local_ip(), id.source_address);
            prop_assert_eq!(socket.remote_ip(), id.destination_address);
            prop_assert_eq!((socket.local.port, socket.remote.port), (id.source_port, id.destination_port));
            prop_assert_eq!(socket.cookie.map_or(0, NonZeroU64::get), u64::from_ne_bytes(id.cookie));
            prop_assert_eq!(socket.ifindex, id.interface_id);
            prop_assert_eq!((socket.recv_q, socket.send_q), (oracle.header.recv_queue, oracle.header.send_queue));
            prop_assert_eq!((socket.uid, socket.inode), (oracle.header.uid, oracle.header.inode));
            let state = if oracle.header.state == 7 { 13 } else { oracle.header.state };
            prop_assert_eq!(socket.state.number(), state);
            for nla in &oracle.nlas {
                match nla {
                    Nla::Shutdown(value) => prop_assert_eq!(attributes.shutdown, Some(*value)),
                    Nla::Congestion(value) => prop_assert_eq!(attributes.congestion, Some(value.as_bytes())),
                    Nla::Tos(value) => prop_assert_eq!(attributes.tos, Some(*value)),
                    _ => {}
                }
            }
            prop_assert_eq!(attributes.congestion, Some(congestion.as_bytes()));
            prop_assert_eq!(attributes.mark, Some(mark));
            prop_assert_eq!(attributes.v6only, Some(v6only));
            prop_assert_eq!(attributes.cgroup_id(), Some(77));
            let _ = oracle.buffer_len();
        }

        #[test]
        fn tcp_info_agrees_with_the_crates_decoder(raw in prop::collection::vec(any::<u8>(), 232)) {
            let bytes = message({ let mut h = [0; 72]; h[0] = AF_INET; h }, &[(2, raw.clone())]);
            let oracle = InetResponse::parse(&bytes[..]).unwrap();
            let Some(Nla::TcpInfo(theirs)) = oracle.nlas.first() else { panic!("no tcp_info") };
            let (_, attributes) = inet(&bytes, Protocol::Tcp).unwrap();
            let ours = TcpInfo::parse(attributes.tcp_info.unwrap()).unwrap();
            prop_assert_eq!(
                (ours.ca_state, ours.retransmits, ours.probes, ours.backoff, ours.rto_us, ours.snd_mss),
                (theirs.ca_state, theirs.retransmits, theirs.probes, theirs.backoff, theirs.rto, theirs.snd_mss)
            );
            prop_assert_eq!(
                (ours.unacked, ours.sacked, ours.pmtu, ours.rtt_us, ours.snd_cwnd, ours.total_retrans),
                (theirs.unacked, theirs.sacked, theirs.pmtu, theirs.rtt, theirs.snd_cwnd, theirs.total_retrans)
            );
            prop_assert_eq!(
                (ours.last_data_sent_ms, ours.last_data_recv_ms, ours.last_ack_recv_ms),
                (theirs.last_data_sent, theirs.last_data_recv, theirs.last_ack_recv)
            );
            prop_assert_eq!(ours.bytes_acked(), Some(theirs.bytes_acked));
            prop_assert_eq!(ours.bytes_received(), Some(theirs.bytes_received));
            prop_assert_eq!(ours.notsent_bytes(), Some(theirs.notsent_bytes));
            prop_assert_eq!(ours.busy_time_us(), Some(theirs.busy_time));
            prop_assert_eq!(ours.rwnd_limited_us(), Some(theirs.rwnd_limited));
            prop_assert_eq!(ours.sndbuf_limited_us(), Some(theirs.sndbuf_limited));
            prop_assert_eq!(ours.snd_wnd(), Some(theirs.snd_wnd));
            for (key, value) in [
                ("rttvar_us", u64::from(theirs.rttvar)), ("delivery_rate_bytes_per_s", theirs.delivery_rate),
                ("bytes_retrans", theirs.bytes_retrans), ("rcv_space_bytes", u64::from(theirs.rcv_space)),
                ("segs_in", u64::from(theirs.segs_in)), ("min_rtt_us", u64::from(theirs.min_rtt)),
            ] {
                let member = MEMBERS.iter().find(|member| member.key == key).unwrap();
                prop_assert_eq!(member.get(&raw), Some(value));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = unix(&bytes).and_then(|socket| socket.memory());
            if let Some((_, attributes)) = inet(&bytes, Protocol::Tcp) {
                let _ = attributes.memory();
                let _ = attributes.tcp_info.and_then(TcpInfo::parse);
            }
        }

        #[test]
        fn what_came_before_a_broken_attribute_stands(header in header(), cut in 1usize..8) {
            let mut bytes = message(header, &[(8, vec![3]), (15, vec![0; 4])]);
            bytes.truncate(bytes.len() - cut);
            let (_, attributes) = inet(&bytes, Protocol::Tcp).unwrap();
            prop_assert_eq!(attributes.shutdown, Some(3));
            prop_assert_eq!(attributes.mark, None);
        }
    }

    #[test]
    fn time_left_of_time_wait_and_retries_are_kept() {
        let mut header = [0u8; 72];
        header[..4].copy_from_slice(&[AF_INET, 6, 3, 2]);
        header[52..56].copy_from_slice(&39_736u32.to_ne_bytes());
        let (socket, _) = inet(&header, Protocol::Tcp).unwrap();
        assert_eq!(
            (socket.timer, socket.timer_ms, socket.retransmits),
            (Timer::TimeWait, 39_736, 2)
        );
        assert!(inet(&header[..71], Protocol::Tcp).is_none());
    }

    #[test]
    fn a_udp_socket_without_a_peer_is_not_one_that_is_only_bound() {
        let mut header = [0u8; 72];
        header[..2].copy_from_slice(&[AF_INET, 7]);
        let state = |protocol| inet(&header, protocol).unwrap().0.state;
        assert_eq!(state(Protocol::Udp), TcpState::Closed);
        assert_eq!(state(Protocol::Tcp), TcpState::BoundInactive);
    }

    #[test]
    fn a_unix_socket_has_what_came_of_it() {
        let attributes: [(u16, Vec<u8>); 7] = [
            (0, b"\0abs".to_vec()),
            (1, [5u32.to_ne_bytes(), 6u32.to_ne_bytes()].concat()),
            (2, 9u32.to_ne_bytes().to_vec()),
            (3, [1u32.to_ne_bytes(), 2u32.to_ne_bytes()].concat()),
            (4, [3u32.to_ne_bytes(), 4u32.to_ne_bytes()].concat()),
            (6, vec![2]),
            (7, 1000u32.to_ne_bytes().to_vec()),
        ];
        let mut whole = [0u8; 72];
        whole[..3].copy_from_slice(&[AF_UNIX, 5, 10]);
        whole[4..8].copy_from_slice(&77u32.to_ne_bytes());
        whole[8] = 1;
        let bytes = [&whole[..16], &message([0; 72], &attributes)[72..]].concat();
        let socket = unix(&bytes).unwrap();
        assert_eq!((socket.inode, socket.cookie), (77, NonZeroU64::new(1)));
        assert_eq!(
            (socket.kind, socket.state),
            (UnixKind::Seqpacket, TcpState::Listen)
        );
        assert_eq!(socket.name, Some(&b"\0abs"[..]));
        assert_eq!((socket.file, socket.peer), (Some((6, 5)), Some(9)));
        assert_eq!((socket.recv_q, socket.send_q), (Some(3), Some(4)));
        assert_eq!((socket.shutdown, socket.uid), (Some(2), Some(1000)));
        assert_eq!(socket.waiting.map(<[u8]>::len), Some(8));
        assert!(unix(&bytes[..15]).is_none() && unix(&[2; 16]).is_none());
        let bare = unix(&bytes[..16]).unwrap();
        assert!(bare.name.is_none() && bare.recv_q.is_none());
    }

    #[test]
    fn an_unknown_family_is_not_guessed_at() {
        let mut header = [0u8; 72];
        header[0] = 77;
        assert!(inet(&header, Protocol::Tcp).is_none());
    }
}
