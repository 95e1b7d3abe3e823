//! What a socket speaks, and so the table that it is in.

use serde::{Deserialize, Serialize};

/// A protocol of sockets, or a family that has none.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Transmission Control Protocol
    #[default]
    Tcp,
    /// Multipath TCP: what the program holds; its subflows are sockets of TCP
    Mptcp,
    /// User Datagram Protocol
    Udp,
    /// Lightweight UDP (RFC 3828)
    UdpLite,
    /// packets of IP, of one protocol each
    Raw,
    /// Stream Control Transmission Protocol
    Sctp,
    /// sockets of this host alone (`AF_UNIX`)
    Unix,
    /// frames of a link (`AF_PACKET`)
    Packet,
    /// conversations with the kernel (`AF_NETLINK`)
    Netlink,
    /// between a virtual machine and its host (`AF_VSOCK`)
    Vsock,
}

impl Protocol {
    /// All of them, in the order of listings.
    pub const ALL: [Self; 10] = [
        Self::Tcp,
        Self::Mptcp,
        Self::Udp,
        Self::UdpLite,
        Self::Raw,
        Self::Sctp,
        Self::Unix,
        Self::Packet,
        Self::Netlink,
        Self::Vsock,
    ];

    /// The name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Mptcp => "mptcp",
            Self::Udp => "udp",
            Self::UdpLite => "udplite",
            Self::Raw => "raw",
            Self::Sctp => "sctp",
            Self::Unix => "unix",
            Self::Packet => "packet",
            Self::Netlink => "netlink",
            Self::Vsock => "vsock",
        }
    }

    /// The name in sentences.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Mptcp => "MPTCP",
            Self::Udp => "UDP",
            Self::UdpLite => "UDP-Lite",
            Self::Raw => "RAW",
            Self::Sctp => "SCTP",
            Self::Unix => "UNIX",
            Self::Packet => "PACKET",
            Self::Netlink => "NETLINK",
            Self::Vsock => "VSOCK",
        }
    }

    /// Its sockets in sentences.
    pub const fn sockets(self) -> &'static str {
        match self {
            Self::Tcp => "TCP sockets",
            Self::Mptcp => "MPTCP sockets",
            Self::Udp => "UDP sockets",
            Self::UdpLite => "UDP-Lite sockets",
            Self::Raw => "RAW sockets",
            Self::Sctp => "SCTP sockets",
            Self::Unix => "UNIX sockets",
            Self::Packet => "PACKET sockets",
            Self::Netlink => "NETLINK sockets",
            Self::Vsock => "VSOCK sockets",
        }
    }

    /// Of which protocol a part is that could not be read (`UDP over IPv6: ...`, `RAW sockets: ...`). A part that names
    /// none is TCP's.
    pub fn of_part(part: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| {
            let rest = part.strip_prefix(protocol.label());
            rest.is_some_and(|rest| rest.starts_with(" sockets") || rest.starts_with(" over "))
        })
    }

    /// Whether its sockets have IP addresses, and so a table for each family.
    pub const fn over_ip(self) -> bool {
        matches!(
            self,
            Self::Tcp | Self::Mptcp | Self::Udp | Self::UdpLite | Self::Raw | Self::Sctp
        )
    }

    /// Whether its sockets go through TCP's states. The others use two of their numbers for "has a peer" and "has none"
    /// (`TCP_ESTABLISHED` and `TCP_CLOSE`), and some a third for LISTEN.
    pub const fn has_tcp_states(self) -> bool {
        matches!(self, Self::Tcp | Self::Mptcp)
    }

    /// Whether a socket can be made to listen. One of the others waits for anybody while it has no peer.
    pub const fn can_listen(self) -> bool {
        matches!(
            self,
            Self::Tcp | Self::Mptcp | Self::Sctp | Self::Unix | Self::Vsock
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_of_the_protocol_that_it_begins_with() {
        for protocol in Protocol::ALL {
            let part = format!("{}: ENOENT", protocol.sockets());
            assert_eq!(Protocol::of_part(&part), Some(protocol));
            let part = format!("{} over IPv6: ENOENT", protocol.label());
            assert_eq!(Protocol::of_part(&part), Some(protocol));
        }
        assert_eq!(Protocol::of_part("IPv6: no such table"), None);
        assert_eq!(Protocol::of_part("UDPX sockets: no such table"), None);
    }
}
