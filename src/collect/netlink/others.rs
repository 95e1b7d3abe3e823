//! Sockets that have no addresses of IP and are not UNIX: what is asked of `packet_diag`, `netlink_diag` and
//! `vsock_diag`, and what they answer (`include/uapi/linux/{packet,netlink,vm_sockets}_diag.h`).

use zerocopy::native_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::decode::{cookie, each, number};
use crate::collect::Want;
use crate::model::{NetlinkSocket, PacketSocket, Protocol, TcpState, VsockSocket};

const AF_NETLINK: u8 = 16;
const AF_PACKET: u8 = 17;
const AF_VSOCK: u8 = 40;

/// `PACKET_SHOW_INFO`, `_RING_CFG`, `_FANOUT`, `_MEMINFO`. The queue is told by the memory alone.
const PACKET_SHOW: u32 = 1 | 1 << 2 | 1 << 3 | 1 << 4;
const PACKET_DIAG_INFO: u16 = 0;
const PACKET_DIAG_RX_RING: u16 = 2;
const PACKET_DIAG_TX_RING: u16 = 3;
const PACKET_DIAG_FANOUT: u16 = 4;
const PACKET_DIAG_UID: u16 = 5;
const PACKET_DIAG_MEMINFO: u16 = 6;
/// `PDI_RUNNING`, a flag of `struct packet_diag_info`
const PDI_RUNNING: u32 = 1;

/// `NDIAG_PROTO_ALL`: of every part of the kernel.
const NDIAG_PROTO_ALL: u8 = u8::MAX;
/// `NDIAG_SHOW_MEMINFO`, `_GROUPS`. The queues are told by the memory alone.
const NDIAG_SHOW: u32 = 1 | 1 << 1;
const NETLINK_DIAG_MEMINFO: u16 = 0;
const NETLINK_DIAG_GROUPS: u16 = 1;
/// `NETLINK_CONNECTED` (`include/uapi/linux/netlink.h`). One without a peer is `NETLINK_UNCONNECTED`, 0, once it had
/// one, and else `TCP_CLOSE` like any new socket.
const NETLINK_CONNECTED: u8 = 1;

/// The request for a dump of the protocol's sockets, without its netlink header. Only `vsock_diag` takes states.
pub fn request(protocol: Protocol, want: &Want) -> Vec<u8> {
    let any_cookie = [u8::MAX; 8];
    let mut bytes = Vec::new();
    match protocol {
        Protocol::Packet => {
            bytes.extend([AF_PACKET, 0, 0, 0]);
            bytes.extend([0; 4]); // pdiag_ino
            bytes.extend(PACKET_SHOW.to_ne_bytes());
        }
        Protocol::Netlink => {
            bytes.extend([AF_NETLINK, NDIAG_PROTO_ALL, 0, 0]);
            bytes.extend([0; 4]); // ndiag_ino
            bytes.extend(NDIAG_SHOW.to_ne_bytes());
        }
        _ => {
            bytes.extend([AF_VSOCK, 0, 0, 0]);
            bytes.extend(want.states.mask().to_ne_bytes());
            bytes.extend([0; 8]); // vdiag_ino, vdiag_show
        }
    }
    bytes.extend(any_cookie);
    bytes
}

/// `struct packet_diag_msg`, 16 bytes.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct PacketDiagMsg {
    family: u8,
    kind: u8,
    num: U16,
    inode: U32,
    cookie: [U32; 2],
}

const _: () = assert!(size_of::<PacketDiagMsg>() == 16);

/// `struct packet_diag_info`, 24 bytes.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct PacketDiagInfo {
    index: U32,
    version: U32,
    reserve: U32,
    copy_threshold: U32,
    timestamp: U32,
    flags: U32,
}

/// `struct netlink_diag_msg`, 28 bytes.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct NetlinkDiagMsg {
    family: u8,
    kind: u8,
    protocol: u8,
    state: u8,
    portid: U32,
    dst_portid: U32,
    dst_group: U32,
    inode: U32,
    cookie: [U32; 2],
}

const _: () = assert!(size_of::<NetlinkDiagMsg>() == 28);

/// `struct vsock_diag_msg`, 32 bytes.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct VsockDiagMsg {
    family: u8,
    kind: u8,
    state: u8,
    shutdown: u8,
    src_cid: U32,
    src_port: U32,
    dst_cid: U32,
    dst_port: U32,
    inode: U32,
    cookie: [U32; 2],
}

const _: () = assert!(size_of::<VsockDiagMsg>() == 32);

/// Decodes a message about a socket on frames.
pub fn packet(payload: &[u8]) -> Option<PacketSocket<'_>> {
    let (message, rest) = PacketDiagMsg::ref_from_prefix(payload).ok()?;
    if message.family != AF_PACKET {
        return None;
    }
    let mut socket = PacketSocket {
        netns: 0,
        cookie: cookie(&message.cookie),
        inode: message.inode.get(),
        kind: message.kind,
        ethertype: message.num.get(),
        ifindex: 0,
        running: None,
        recv_q: None,
        rx_ring: None,
        tx_ring: None,
        uid: None,
        fanout: None,
        memory: None,
    };
    each(rest, |kind, value| match kind {
        PACKET_DIAG_INFO => {
            if let Ok((info, _)) = PacketDiagInfo::ref_from_prefix(value) {
                socket.ifindex = info.index.get();
                socket.running = Some(info.flags.get() & PDI_RUNNING != 0);
            }
        }
        PACKET_DIAG_RX_RING => socket.rx_ring = ring(value),
        PACKET_DIAG_TX_RING => socket.tx_ring = ring(value),
        PACKET_DIAG_FANOUT => socket.fanout = number(value),
        PACKET_DIAG_UID => socket.uid = number(value),
        PACKET_DIAG_MEMINFO => socket.memory = Some(value),
        _ => {}
    });
    Some(socket)
}

/// The bytes of a ring: `struct packet_diag_ring` begins with the size and the number of its blocks.
fn ring(value: &[u8]) -> Option<u64> {
    let (size, rest) = value.split_first_chunk()?;
    let blocks = rest.first_chunk()?;
    Some(u64::from(u32::from_ne_bytes(*size)).saturating_mul(u32::from_ne_bytes(*blocks).into()))
}

/// Decodes a message about a netlink socket.
pub fn netlink(payload: &[u8]) -> Option<NetlinkSocket<'_>> {
    let (message, rest) = NetlinkDiagMsg::ref_from_prefix(payload).ok()?;
    if message.family != AF_NETLINK {
        return None;
    }
    let connected = message.state == NETLINK_CONNECTED;
    let mut socket = NetlinkSocket {
        netns: 0,
        cookie: cookie(&message.cookie),
        inode: message.inode.get(),
        state: if connected {
            TcpState::Established
        } else {
            TcpState::Closed
        },
        family: message.protocol,
        portid: message.portid.get(),
        peer: connected.then(|| (message.dst_portid.get(), message.dst_group.get())),
        groups: None,
        recv_q: None,
        send_q: None,
        drops: None,
        memory: None,
    };
    each(rest, |kind, value| match kind {
        NETLINK_DIAG_MEMINFO => socket.memory = Some(value),
        NETLINK_DIAG_GROUPS => socket.groups = Some(value),
        _ => {}
    });
    Some(socket)
}

/// Decodes a message about a socket to or from a virtual machine. It has no attributes.
pub fn vsock(payload: &[u8]) -> Option<VsockSocket> {
    let (message, _) = VsockDiagMsg::ref_from_prefix(payload).ok()?;
    (message.family == AF_VSOCK).then(|| VsockSocket {
        netns: 0,
        cookie: cookie(&message.cookie),
        inode: message.inode.get(),
        kind: message.kind,
        state: TcpState::from_kernel(message.state),
        local: (message.src_cid.get(), message.src_port.get()),
        peer: (message.dst_cid.get(), message.dst_port.get()),
        shutdown: message.shutdown,
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use proptest::prelude::*;

    use super::super::built::{attribute, words};
    use super::*;
    use crate::model::{Ends, StateSet};

    #[test]
    fn requests_are_as_long_as_the_kernel_wants_them() {
        let want = Want::states(StateSet::of(TcpState::Listen));
        for (protocol, family, length) in [
            (Protocol::Packet, 17, 20),
            (Protocol::Netlink, 16, 20),
            (Protocol::Vsock, 40, 24),
        ] {
            let bytes = request(protocol, &want);
            assert_eq!((bytes[0], bytes.len()), (family, length), "{protocol:?}");
        }
        let bytes = request(Protocol::Vsock, &want);
        assert_eq!(bytes[4..8], (1u32 << 10).to_ne_bytes());
        assert_eq!(request(Protocol::Netlink, &want)[1], 255);
    }

    #[test]
    fn built_frames_of_vsock() {
        let mut bytes = vec![40, 1, 10, 1];
        bytes.extend(words(&[u32::MAX, 1024, u32::MAX, u32::MAX, 77, 5, 1]));
        let socket = vsock(&bytes).unwrap();
        assert_eq!((socket.kind, socket.state), (1, TcpState::Listen));
        assert_eq!(socket.local, (u32::MAX, 1024));
        assert_eq!(socket.peer, (u32::MAX, u32::MAX));
        assert_eq!((socket.inode, socket.shutdown), (77, 1));
        assert_eq!(socket.cookie, NonZeroU64::new(1 << 32 | 5));
        assert!(vsock(&bytes[..31]).is_none() && vsock(&[2; 32]).is_none());
    }

    #[test]
    fn built_frames_of_packet() {
        let mut bytes = vec![17, 2];
        bytes.extend(0x0806u16.to_ne_bytes());
        bytes.extend(words(&[77, 5, 0]));
        let bare = packet(&bytes).unwrap();
        assert_eq!((bare.kind, bare.ethertype, bare.inode), (2, 0x806, 77));
        assert_eq!((bare.uid, bare.fanout, bare.running), (None, None, None));
        attribute(&mut bytes, 0, &words(&[3, 2, 0, 0, 0, 1]));
        attribute(&mut bytes, 2, &words(&[1 << 20, 1 << 13, 0, 0, 0, 0, 0]));
        attribute(&mut bytes, 4, &words(&[1 << 16 | 9]));
        attribute(&mut bytes, 5, &words(&[1000]));
        attribute(&mut bytes, 6, &words(&[768, 2, 3, 4, 5, 6, 7, 8, 9]));
        let socket = packet(&bytes).unwrap();
        assert_eq!((socket.ifindex, socket.running), (3, Some(true)));
        assert_eq!((socket.rx_ring, socket.tx_ring), (Some(1 << 33), None));
        assert_eq!((socket.uid, socket.fanout), (Some(1000), Some(65545)));
        assert_eq!(Ends::Packet(&socket).recv_q(), Some(768));
        assert!(packet(&bytes[..15]).is_none() && packet(&[2; 16]).is_none());
    }

    #[test]
    fn built_frames_of_netlink() {
        let mut bytes = vec![16, 3, 0, 1];
        bytes.extend(words(&[4711, 12, 2, 77, 5, 0]));
        attribute(&mut bytes, 0, &words(&[1, 2, 3, 4, 5, 6, 7, 8, 9]));
        attribute(&mut bytes, 1, &5u64.to_ne_bytes());
        let socket = netlink(&bytes).unwrap();
        assert_eq!((socket.family, socket.portid, socket.inode), (0, 4711, 77));
        assert_eq!(socket.state, TcpState::Established);
        assert_eq!(socket.peer, Some((12, 2)));
        assert_eq!(socket.joined().collect::<Vec<_>>(), [1, 3]);
        let ends = Ends::Netlink(&socket);
        assert_eq!((ends.recv_q(), ends.send_q()), (Some(1), Some(3)));
        assert_eq!(ends.memory().and_then(|memory| memory.drops), Some(9));
        for lonely in [0, 7] {
            bytes[3] = lonely;
            let socket = netlink(&bytes).unwrap();
            assert_eq!((socket.state, socket.peer), (TcpState::Closed, None));
        }
        assert!(netlink(&bytes[..27]).is_none() && netlink(&[2; 28]).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), family in 0usize..4) {
            if let (Some(first), Some(family)) = (bytes.first_mut(), [16, 17, 40].get(family)) {
                *first = *family;
            }
            if let Some(socket) = packet(&bytes) {
                let ends = Ends::Packet(&socket);
                let _ = (ends.socket(), ends.memory());
                ends.keep().with(|_| ());
            }
            if let Some(socket) = netlink(&bytes) {
                let ends = Ends::Netlink(&socket);
                let _ = (ends.socket(), ends.memory(), socket.joined().count());
                ends.keep().with(|_| ());
            }
            if let Some(socket) = vsock(&bytes) {
                let _ = Ends::Vsock(&socket).socket();
            }
        }
    }
}
