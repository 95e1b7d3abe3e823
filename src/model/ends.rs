//! What the ends of a socket are, where they are not addresses of IP.

use std::num::NonZeroU64;

use super::protocol::Protocol;
use super::socket::{Endpoint, Family, Memory, Socket, Timer};
use super::state::TcpState;
use super::unix::UnixSocket;

/// A socket on frames of a link (`struct packet_diag_msg`, `include/uapi/linux/packet_diag.h`). What the source does not
/// have is absent.
#[derive(Clone, Copy, Debug)]
pub struct PacketSocket<'a> {
    /// the kernel's identity of the socket; `/proc` has none
    pub cookie: Option<NonZeroU64>,
    /// the socket's inode
    pub inode: u32,
    /// whether it sees the frame's own header (`SOCK_RAW`, 3) or not (`SOCK_DGRAM`, 2)
    pub kind: u8,
    /// the protocol of the frames (`include/uapi/linux/if_ether.h`); 3 is all
    pub ethertype: u16,
    /// the interface that it is bound to; 0 is any
    pub ifindex: u32,
    /// whether it takes part in the traffic: bound, and its interface up (`PDI_RUNNING`; `/proc`'s R)
    pub running: Option<bool>,
    /// bytes received and not yet read, with overhead (`/proc`'s Rmem); what waits in a ring is not counted
    pub recv_q: Option<u32>,
    /// `PACKET_DIAG_RX_RING`: bytes of the ring that it shares with the kernel to receive; absent where it has none
    pub rx_ring: Option<u64>,
    /// `PACKET_DIAG_TX_RING`: the same to send
    pub tx_ring: Option<u64>,
    /// `PACKET_DIAG_UID`
    pub uid: Option<u32>,
    /// `PACKET_DIAG_FANOUT`: the group's id, and its type above 16 bits
    pub fanout: Option<u32>,
    /// `PACKET_DIAG_MEMINFO`
    pub memory: Option<&'a [u8]>,
    /// which network namespace of the source, see [`Socket::netns`]
    pub netns: u16,
}

/// A conversation with the kernel, or with another program through it (`struct netlink_diag_msg`,
/// `include/uapi/linux/netlink_diag.h`).
#[derive(Clone, Copy, Debug)]
pub struct NetlinkSocket<'a> {
    /// the kernel's identity of the socket; `/proc` has none
    pub cookie: Option<NonZeroU64>,
    /// the socket's inode; those of the kernel have one too, which no process holds
    pub inode: u32,
    /// ESTABLISHED where it has a peer, else CLOSED
    pub state: TcpState,
    /// which part of the kernel (`NETLINK_ROUTE`, ...; `include/uapi/linux/netlink.h`)
    pub family: u8,
    /// its port id, often the program's pid; 0 is the kernel
    pub portid: u32,
    /// the peer's port id, and the mask of the peer's groups
    pub peer: Option<(u32, u32)>,
    /// `NETLINK_DIAG_GROUPS`: the groups that it listens to, a bit each, see [`NetlinkSocket::joined`]; `/proc` has the
    /// first 32
    pub groups: Option<&'a [u8]>,
    /// bytes received and not yet read, with overhead (`/proc`'s Rmem)
    pub recv_q: Option<u32>,
    /// bytes being sent, with overhead (`/proc`'s Wmem)
    pub send_q: Option<u32>,
    /// messages lost since the socket was made (`/proc`'s Drops)
    pub drops: Option<u32>,
    /// `NETLINK_DIAG_MEMINFO`
    pub memory: Option<&'a [u8]>,
    /// which network namespace of the source, see [`Socket::netns`]
    pub netns: u16,
}

impl NetlinkSocket<'_> {
    /// The groups that it listens to, by number; the first is 1, as in `RTNLGRP_LINK`.
    pub fn joined(&self) -> impl Iterator<Item = usize> + '_ {
        // The kernel's words are longs, those of `/proc` have 32 bits.
        let bytes = self.groups.unwrap_or_default();
        let word = if bytes.len().is_multiple_of(8) { 8 } else { 4 };
        (0..bytes.len().saturating_mul(8)).filter_map(move |bit| {
            let (at, within) = (bit / 8 / word * word, bit / 8 % word);
            let byte = if cfg!(target_endian = "big") {
                word - 1 - within
            } else {
                within
            };
            let set = bytes.get(at + byte)? & (1 << (bit % 8)) != 0;
            set.then_some(bit + 1)
        })
    }
}

/// A socket between a virtual machine and its host (`struct vsock_diag_msg`, `include/uapi/linux/vm_sockets_diag.h`).
#[derive(Clone, Copy, Debug)]
pub struct VsockSocket {
    /// the kernel's identity of the socket
    pub cookie: Option<NonZeroU64>,
    /// the socket's inode
    pub inode: u32,
    /// `SOCK_STREAM`, 1, `SOCK_DGRAM`, 2, or `SOCK_SEQPACKET`, 5
    pub kind: u8,
    /// its state
    pub state: TcpState,
    /// the context id and port of this end; `u32::MAX` is any
    pub local: (u32, u32),
    /// the context id and port of the other end
    pub peer: (u32, u32),
    /// bit 0 receiving, bit 1 sending was shut down
    pub shutdown: u8,
    /// which network namespace of the source, see [`Socket::netns`]
    pub netns: u16,
}

/// The ends of a socket.
#[derive(Clone, Copy, Debug, Default)]
pub enum Ends<'a> {
    /// the addresses and ports of its [`Socket`]
    #[default]
    Ip,
    /// names, or none
    Unix(&'a UnixSocket<'a>),
    /// a link
    Packet(&'a PacketSocket<'a>),
    /// port ids
    Netlink(&'a NetlinkSocket<'a>),
    /// context ids and ports
    Vsock(&'a VsockSocket),
}

impl<'a> Ends<'a> {
    /// What they have in common with a socket of IP, which has the addresses of nobody.
    pub fn socket(self) -> Socket {
        let (protocol, cookie, inode, state) = match self {
            Self::Ip => (Protocol::Tcp, None, 0, TcpState::Closed),
            Self::Unix(unix) => (Protocol::Unix, unix.cookie, unix.inode, unix.state),
            Self::Packet(packet) => {
                let state = TcpState::Closed;
                (Protocol::Packet, packet.cookie, packet.inode, state)
            }
            Self::Netlink(netlink) => {
                let (cookie, inode) = (netlink.cookie, netlink.inode);
                (Protocol::Netlink, cookie, inode, netlink.state)
            }
            Self::Vsock(vsock) => (Protocol::Vsock, vsock.cookie, vsock.inode, vsock.state),
        };
        Socket {
            cookie,
            local: Endpoint::v4([0; 4], 0),
            remote: Endpoint::v4([0; 4], 0),
            inode,
            uid: self.uid().unwrap_or_default(),
            recv_q: self.recv_q().unwrap_or_default(),
            send_q: self.send_q().unwrap_or_default(),
            timer_ms: 0,
            ifindex: self.ifindex(),
            info: None,
            netns: self.netns(),
            retransmits: 0,
            timer: Timer::None,
            state,
            protocol,
            family: Family::Ipv4,
        }
    }

    /// The interface that it is bound to; 0 is any.
    const fn ifindex(self) -> u32 {
        match self {
            Self::Packet(packet) => packet.ifindex,
            _ => 0,
        }
    }

    const fn netns(self) -> u16 {
        match self {
            Self::Ip => 0,
            Self::Unix(unix) => unix.netns,
            Self::Packet(packet) => packet.netns,
            Self::Netlink(netlink) => netlink.netns,
            Self::Vsock(vsock) => vsock.netns,
        }
    }

    /// The owner's uid, where it is told.
    pub const fn uid(self) -> Option<u32> {
        match self {
            Self::Ip | Self::Netlink(_) | Self::Vsock(_) => None,
            Self::Unix(unix) => unix.uid,
            Self::Packet(packet) => packet.uid,
        }
    }

    /// What was received and not yet read, where it is told.
    pub fn recv_q(self) -> Option<u32> {
        let charged = |memory: Option<Memory>| memory.map(|memory| memory.rmem_alloc);
        match self {
            Self::Ip | Self::Vsock(_) => None,
            Self::Unix(unix) => unix.recv_q,
            Self::Packet(packet) => packet.recv_q.or_else(|| charged(self.memory())),
            Self::Netlink(netlink) => netlink.recv_q.or_else(|| charged(self.memory())),
        }
    }

    /// What was sent and not yet taken, where it is told.
    pub fn send_q(self) -> Option<u32> {
        let charged = |memory: Option<Memory>| memory.map(|memory| memory.wmem_alloc);
        match self {
            Self::Ip | Self::Vsock(_) => None,
            Self::Unix(unix) => unix.send_q,
            Self::Packet(_) => charged(self.memory()),
            Self::Netlink(netlink) => netlink.send_q.or_else(|| charged(self.memory())),
        }
    }

    /// The memory, if it was asked for and came whole.
    pub fn memory(self) -> Option<Memory> {
        self.raw_memory().and_then(Memory::parse)
    }

    /// The memory as it came.
    pub const fn raw_memory(self) -> Option<&'a [u8]> {
        match self {
            Self::Ip | Self::Vsock(_) => None,
            Self::Unix(unix) => unix.memory,
            Self::Packet(packet) => packet.memory,
            Self::Netlink(netlink) => netlink.memory,
        }
    }

    /// Messages lost since the socket was made, where `/proc/net` tells them.
    pub const fn listed_drops(self) -> Option<u32> {
        match self {
            Self::Netlink(netlink) => netlink.drops,
            _ => None,
        }
    }

    /// The directions that were shut down, where they are told.
    pub const fn shutdown(self) -> Option<u8> {
        match self {
            Self::Unix(unix) => unix.shutdown,
            Self::Vsock(vsock) => Some(vsock.shutdown),
            Self::Ip | Self::Packet(_) | Self::Netlink(_) => None,
        }
    }
}

/// Ends that outlive the message they came in.
#[derive(Clone, Debug)]
pub struct Kept(Option<Box<Owned>>);

#[derive(Clone, Debug)]
enum Owned {
    Unix {
        socket: UnixSocket<'static>,
        name: Option<Box<[u8]>>,
        waiting: Option<Box<[u8]>>,
        memory: Option<Box<[u8]>>,
    },
    Packet {
        socket: PacketSocket<'static>,
        memory: Option<Box<[u8]>>,
    },
    Netlink {
        socket: NetlinkSocket<'static>,
        groups: Option<Box<[u8]>>,
        memory: Option<Box<[u8]>>,
    },
    Vsock(VsockSocket),
}

impl Ends<'_> {
    /// The same, to be kept.
    pub fn keep(self) -> Kept {
        let own = |bytes: Option<&[u8]>| bytes.map(Into::into);
        Kept(match self {
            Ends::Ip => None,
            Ends::Unix(socket) => Some(Box::new(Owned::Unix {
                name: own(socket.name),
                waiting: own(socket.waiting),
                memory: own(socket.memory),
                socket: UnixSocket {
                    name: None,
                    waiting: None,
                    memory: None,
                    ..*socket
                },
            })),
            Ends::Packet(socket) => Some(Box::new(Owned::Packet {
                memory: own(socket.memory),
                socket: PacketSocket {
                    memory: None,
                    ..*socket
                },
            })),
            Ends::Netlink(socket) => Some(Box::new(Owned::Netlink {
                groups: own(socket.groups),
                memory: own(socket.memory),
                socket: NetlinkSocket {
                    groups: None,
                    memory: None,
                    ..*socket
                },
            })),
            Ends::Vsock(socket) => Some(Box::new(Owned::Vsock(*socket))),
        })
    }
}

impl Kept {
    /// Shows them as they came.
    pub fn with<T>(&self, show: impl FnOnce(Ends<'_>) -> T) -> T {
        match self.0.as_deref() {
            None => show(Ends::Ip),
            Some(Owned::Unix {
                socket,
                name,
                waiting,
                memory,
            }) => show(Ends::Unix(&UnixSocket {
                name: name.as_deref(),
                waiting: waiting.as_deref(),
                memory: memory.as_deref(),
                ..*socket
            })),
            Some(Owned::Packet { socket, memory }) => show(Ends::Packet(&PacketSocket {
                memory: memory.as_deref(),
                ..*socket
            })),
            Some(Owned::Netlink {
                socket,
                groups,
                memory,
            }) => show(Ends::Netlink(&NetlinkSocket {
                groups: groups.as_deref(),
                memory: memory.as_deref(),
                ..*socket
            })),
            Some(Owned::Vsock(socket)) => show(Ends::Vsock(socket)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_counted_from_one() {
        let mut groups = [0u8; 16];
        groups[..8].copy_from_slice(&((1u64 << 63) | 1).to_ne_bytes());
        groups[8..].copy_from_slice(&(1u64 << 2).to_ne_bytes());
        let socket = |groups| NetlinkSocket {
            netns: 0,
            cookie: None,
            inode: 1,
            state: TcpState::Closed,
            family: 0,
            portid: 7,
            peer: None,
            groups,
            recv_q: None,
            send_q: None,
            drops: None,
            memory: None,
        };
        let joined: Vec<usize> = socket(Some(&groups)).joined().collect();
        assert_eq!(joined, [1, 64, 67]);
        let listed = 0x11u32.to_ne_bytes();
        let joined: Vec<usize> = socket(Some(&listed)).joined().collect();
        assert_eq!(joined, [1, 5]);
        assert_eq!(socket(None).joined().count(), 0);
    }

    #[test]
    fn what_is_kept_is_what_came() {
        let packet = PacketSocket {
            netns: 0,
            cookie: NonZeroU64::new(5),
            inode: 6,
            kind: 3,
            ethertype: 3,
            ifindex: 2,
            running: Some(true),
            recv_q: None,
            rx_ring: Some(1 << 33),
            tx_ring: None,
            uid: Some(7),
            fanout: Some(8),
            memory: Some(&[1; 36]),
        };
        let ends = Ends::Packet(&packet);
        let kept = ends.keep();
        let (was, is) = (format!("{ends:?}"), kept.with(|ends| format!("{ends:?}")));
        assert_eq!(was, is);
        assert_eq!(ends.recv_q(), Some(0x0101_0101), "what memory says");
        assert_eq!((ends.socket().ifindex, ends.uid()), (2, Some(7)));
    }
}
