//! The request for a dump of one table.

use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_RAW, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE,
};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SOCK_DIAG_BY_FAMILY, SockDiagMessage, unix};

use super::{TCPDIAG_GETSOCK, others};
use crate::collect::{Table, Want};
use crate::model::{Family, Protocol, StateSet};

/// `sizeof(struct nlmsghdr)` (`include/uapi/linux/netlink.h`)
const HEADER: usize = 16;

/// `sizeof(struct inet_diag_req)`: four bytes, `struct inet_diag_sockid` (48 bytes), states, `idiag_dbs`
/// (`include/uapi/linux/inet_diag.h`)
const INET_DIAG_REQ: usize = 60;

/// `INET_DIAG_REQ_PROTOCOL`: the protocol where it is no byte (`include/uapi/linux/inet_diag.h`)
const INET_DIAG_REQ_PROTOCOL: u16 = 3;

/// `IPPROTO_MPTCP` (`include/uapi/linux/in.h`)
const IPPROTO_MPTCP: u32 = 262;

/// `UDIAG_SHOW_UID`, which `netlink-packet-sock-diag` has no name for.
const UDIAG_SHOW_UID: u32 = 1 << 6;

/// `INET_DIAG_REQ_BYTECODE` (`include/uapi/linux/inet_diag.h`)
const INET_DIAG_REQ_BYTECODE: u16 = 1;

/// The request, with a program that says which rows the kernel may leave out.
pub fn of(table: Table, want: &Want, form: Option<&[u8]>, sequence: u32) -> Vec<u8> {
    let (family, socket_id) = match table.family {
        Some(Family::Ipv4) => (AF_INET, SocketId::new_v4()),
        Some(Family::Ipv6) => (AF_INET6, SocketId::new_v6()),
        None if table.protocol == Protocol::Unix => return finished(unix_request(want), sequence),
        None => {
            let request = others::request(table.protocol, want);
            return framed(SOCK_DIAG_BY_FAMILY, &request, sequence);
        }
    };
    let request = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: number(table.protocol),
        extensions: extensions(want),
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
    if let Some(form) = form {
        append(&mut bytes, INET_DIAG_REQ_BYTECODE, form);
    }
    bytes
}

/// The request for the TCP sockets of both families at once: `struct inet_diag_req` of the type before
/// `SOCK_DIAG_BY_FAMILY`, which has no protocol and, to the kernel, no family (`inet_diag_dump_compat` in
/// `net/ipv4/inet_diag.c`). With a program that says which rows the kernel leaves out.
pub fn of_both(want: &Want, form: Option<&[u8]>, sequence: u32) -> Vec<u8> {
    let mut request = vec![0; INET_DIAG_REQ];
    let extensions = extensions(want).bits();
    for (at, value) in [(0, AF_INET), (3, extensions)] {
        if let Some(byte) = request.get_mut(at) {
            *byte = value;
        }
    }
    if let Some(states) = request.get_mut(INET_DIAG_REQ - 8..INET_DIAG_REQ - 4) {
        states.copy_from_slice(&want.states.mask().to_ne_bytes());
    }
    let mut bytes = framed(TCPDIAG_GETSOCK, &request, sequence);
    if let Some(form) = form {
        append(&mut bytes, INET_DIAG_REQ_BYTECODE, form);
    }
    bytes
}

/// The protocol's number for `sdiag_protocol`.
pub const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Udp => IPPROTO_UDP,
        Protocol::UdpLite => IPPROTO_UDPLITE,
        Protocol::Raw => IPPROTO_RAW,
        Protocol::Sctp => IPPROTO_SCTP,
        // 262 does not fit. A kernel that does not know the attribute must not take it for TCP's 6.
        Protocol::Mptcp => 0,
        _ => IPPROTO_TCP,
    }
}

/// The attributes that have to be asked for.
pub fn extensions(want: &Want) -> ExtensionFlags {
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
    extensions
}

/// Appends an attribute that the request's own encoder does not know, and corrects the request's length. What does not
/// fit its 16 bits of length is left out, and the kernel filters nothing.
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
fn framed(kind: u16, request: &[u8], sequence: u32) -> Vec<u8> {
    let length = HEADER.saturating_add(request.len());
    let mut bytes = u32::try_from(length)
        .unwrap_or_default()
        .to_ne_bytes()
        .to_vec();
    bytes.extend(kind.to_ne_bytes());
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
