//! The request for a dump of one table.

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_RAW, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE,
};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::unix;

use crate::collect::{Table, Want};
use crate::model::{Family, Protocol};

/// `UDIAG_SHOW_UID`, which `netlink-packet-sock-diag` has no name for.
const UDIAG_SHOW_UID: u32 = 1 << 6;

/// `INET_DIAG_REQ_BYTECODE` (`include/uapi/linux/inet_diag.h`)
const INET_DIAG_REQ_BYTECODE: u16 = 1;

/// The request, with a program that says which rows the kernel may leave out.
pub fn of(table: Table, want: &Want, form: Option<&[u8]>, sequence: u32) -> Vec<u8> {
    let (family, socket_id) = match table.family {
        Some(Family::Ipv4) => (AF_INET, SocketId::new_v4()),
        Some(Family::Ipv6) => (AF_INET6, SocketId::new_v6()),
        None => return finished(unix_request(want), None, sequence),
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
    ask(want.tos, ExtensionFlags::TOS | ExtensionFlags::TCLASS);
    let request = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: match table.protocol {
            Protocol::Udp => IPPROTO_UDP,
            Protocol::UdpLite => IPPROTO_UDPLITE,
            Protocol::Raw => IPPROTO_RAW,
            Protocol::Sctp => IPPROTO_SCTP,
            _ => IPPROTO_TCP,
        },
        extensions,
        states: StateFlags::from_bits_retain(want.states.mask()),
        socket_id,
    });
    finished(request, form, sequence)
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

fn finished(request: SockDiagMessage, form: Option<&[u8]>, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    if let Some(form) = form {
        with_attribute(&mut bytes, form);
    }
    bytes
}

/// Adds a program as the attribute that the request's own encoder does not know. What does not fit its 16 bits of
/// length is left out, and the kernel filters nothing.
fn with_attribute(message: &mut Vec<u8>, form: &[u8]) {
    let Ok(length) = u16::try_from(form.len() + 4) else {
        return;
    };
    message.extend(length.to_ne_bytes());
    message.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
    message.extend(form);
    let whole = u32::try_from(message.len()).unwrap_or_default();
    if let Some(length) = message.first_chunk_mut() {
        *length = whole.to_ne_bytes();
    }
}
