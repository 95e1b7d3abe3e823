//! The ends of sockets that are not two addresses and two ports.

use std::borrow::Cow;
use std::net::IpAddr;

use super::{Align, Field, Get, Interface, Key, Needs, Record, Value};
use crate::model::numbers::{ethertype, ip_protocol, netlink_family};
use crate::model::unix::Name;
use crate::model::{Ends, Family, Protocol, TcpState, UnixKind};

/// One end of a socket that has no port of TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End<'a> {
    /// packets of one protocol over IP
    Raw {
        /// the address, as the socket's family has it
        ip: IpAddr,
        /// the protocol's number
        protocol: u8,
        /// the interface that this end is bound to
        interface: Option<Interface<'a>>,
    },
    /// a UNIX socket, or its peer
    Unix {
        /// its name, where it has one and it is known
        name: Option<Name<'a>>,
        /// its inode; 0 is none
        inode: u32,
    },
    /// frames
    Packet {
        /// their protocol; 3 is all
        ethertype: u16,
        /// the interface that it is bound to; none is any
        interface: Option<Interface<'a>>,
    },
    /// a conversation with a part of the kernel
    Netlink {
        /// which part
        family: u8,
        /// the port id; 0 is the kernel
        portid: u32,
        /// who holds it, where that is known; not yet safe to print
        holder: Option<&'a str>,
    },
    /// a context id and a port; `u32::MAX` is any
    Vsock {
        /// the context id
        cid: u32,
        /// the port
        port: u32,
    },
}

impl End<'_> {
    /// As it is counted: without what is each socket's own.
    pub(super) const fn grouped(self) -> Self {
        match self {
            Self::Unix { name, .. } => Self::Unix { name, inode: 0 },
            other => other,
        }
    }

    pub(super) fn key(&self) -> Key {
        let pair = |high: u32, low: u32| Key::Number(u64::from(high) << 32 | u64::from(low));
        match self {
            Self::Raw { ip, protocol, .. } => {
                let bits = match ip {
                    IpAddr::V4(ip) => u128::from(ip.to_ipv6_mapped()),
                    IpAddr::V6(ip) => u128::from(*ip),
                };
                Key::Address(bits, u16::from(*protocol))
            }
            Self::Unix {
                name: Some(name), ..
            } => Key::Text(name.chars().collect()),
            Self::Unix { inode, .. } => Key::Number(u64::from(*inode)),
            Self::Packet {
                ethertype,
                interface,
            } => pair(
                u32::from(*ethertype),
                interface.map_or(0, |interface| interface.index),
            ),
            Self::Netlink { family, portid, .. } => pair(u32::from(*family), *portid),
            Self::Vsock { cid, port } => pair(*cid, *port),
        }
    }
}

/// This end.
pub(super) fn local<'a>(record: &Record<'a>) -> Value<'a> {
    let socket = record.socket;
    Value::End(match record.ends {
        Ends::Ip if socket.protocol == Protocol::Raw => End::Raw {
            ip: socket.local_ip(),
            protocol: raw_protocol(record),
            interface: record.interface(),
        },
        Ends::Ip => {
            return Value::Endpoint {
                ip: socket.local_ip(),
                port: socket.local.port,
                interface: record.interface(),
                names: record.end_names(socket.local_ip(), socket.local.port),
            };
        }
        Ends::Unix(unix) => End::Unix {
            name: unix.name.and_then(Name::new),
            inode: unix.inode,
        },
        Ends::Packet(packet) => End::Packet {
            ethertype: packet.ethertype,
            interface: record.interface(),
        },
        Ends::Netlink(netlink) => End::Netlink {
            family: netlink.family,
            portid: netlink.portid,
            holder: record.holders().and_then(|holders| {
                let process = holders.processes().next()?;
                Some(process.comm.as_str())
            }),
        },
        Ends::Vsock(vsock) => End::Vsock {
            cid: vsock.local.0,
            port: vsock.local.1,
        },
    })
}

/// The other end.
pub(super) fn peer<'a>(record: &Record<'a>) -> Value<'a> {
    Value::End(match record.ends {
        Ends::Ip => {
            return Value::Endpoint {
                ip: record.socket.remote_ip(),
                port: record.socket.remote.port,
                interface: None,
                names: record.end_names(record.socket.remote_ip(), record.socket.remote.port),
            };
        }
        Ends::Unix(unix) => End::Unix {
            name: None,
            inode: unix.peer.unwrap_or(0),
        },
        Ends::Netlink(netlink) => match netlink.peer {
            Some((portid, _)) => End::Netlink {
                family: netlink.family,
                portid,
                holder: None,
            },
            None => return Value::text("*"),
        },
        Ends::Vsock(vsock) => End::Vsock {
            cid: vsock.peer.0,
            port: vsock.peer.1,
        },
        Ends::Packet(_) => return Value::text("*"),
    })
}

/// The protocol of a RAW socket, which the kernel tells in the place of the port.
fn raw_protocol(record: &Record<'_>) -> u8 {
    u8::try_from(record.socket.local.port).unwrap_or(u8::MAX)
}

/// Which kind of socket it is, as ss names them.
pub(crate) fn netid(record: &Record<'_>) -> &'static str {
    let socket = record.socket;
    match record.ends {
        // What NetworkManager and routing daemons hold.
        Ends::Ip
            if socket.protocol == Protocol::Raw
                && socket.family == Family::Ipv6
                && raw_protocol(record) == 58 =>
        {
            "icmp6"
        }
        Ends::Ip => socket.protocol.name(),
        Ends::Unix(unix) => unix.kind.name(),
        Ends::Packet(packet) => match packet.kind {
            2 => "p_dgr",
            3 => "p_raw",
            _ => "p_???",
        },
        Ends::Netlink(_) => "nl",
        Ends::Vsock(vsock) => match vsock.kind {
            1 => "v_str",
            2 => "v_dgr",
            5 => "v_seq",
            _ => "v_???",
        },
    }
}

/// How the socket carries data, where its protocol does not say that.
pub(crate) fn kind(record: &Record<'_>) -> Option<&'static str> {
    let number = match record.ends {
        Ends::Ip | Ends::Netlink(_) => return None,
        Ends::Unix(unix) => match unix.kind {
            UnixKind::Stream => 1,
            UnixKind::Datagram => 2,
            UnixKind::Seqpacket => 5,
            UnixKind::Unknown(number) => number,
        },
        Ends::Packet(packet) => packet.kind,
        Ends::Vsock(vsock) => vsock.kind,
    };
    Some(match number {
        1 => "stream",
        2 => "datagram",
        3 => "raw",
        5 => "seqpacket",
        _ => return None,
    })
}

/// The state; what has none of TCP's is UNCONNECTED where TCP would be CLOSED.
pub(super) fn state<'a>(record: &Record<'a>) -> Value<'a> {
    let socket = record.socket;
    match socket.state {
        TcpState::Closed if !socket.protocol.has_tcp_states() => Value::Unconnected,
        state => Value::State(state),
    }
}

const fn known(number: u32) -> Option<u32> {
    match number {
        u32::MAX => None,
        number => Some(number),
    }
}

fn count<'a>(number: Option<u32>) -> Value<'a> {
    Value::of(number, |number| Value::Count(u64::from(number)))
}

pub(super) const NETID: Field = Field {
    id: "netid",
    header: "Netid",
    doc: "the kind of socket, as ss names it: tcp, udp, raw, u_str, u_dgr, u_seq, p_raw, p_dgr, nl, v_str and others",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(|record| Value::text(netid(record))),
};

pub(super) const LOCAL_NAME: Field = Field {
    id: "local-name",
    header: "Path",
    doc: "the name of a UNIX socket: a path, or @ and an abstract name",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(|record| match record.ends {
        Ends::Unix(unix) => Value::of(unix.name.and_then(Name::new), Value::Name),
        _ => Value::Absent,
    }),
};

pub(super) const PEER_INODE: Field = Field {
    id: "peer-inode",
    header: "Peer-Inode",
    doc: "the inode of the other end of a UNIX socket",
    unit: None,
    align: Align::Right,
    needs: Needs::Row,
    get: Get::Row(|record| match record.ends {
        Ends::Unix(unix) => count(unix.peer.filter(|inode| *inode != 0)),
        _ => Value::Absent,
    }),
};

pub(super) const IP_PROTOCOL: Field = Field {
    id: "ip-protocol",
    header: "IP-Protocol",
    doc: "the protocol of a RAW socket's packets: icmp, ipv6-icmp, ospf, ... or its number",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(|record| match record.ends {
        Ends::Ip if record.socket.protocol == Protocol::Raw => {
            named(raw_protocol(record), ip_protocol(raw_protocol(record)))
        }
        _ => Value::Absent,
    }),
};

pub(super) const ETHERTYPE: Field = Field {
    id: "ethertype",
    header: "Ethertype",
    doc: "the protocol of a PACKET socket's frames: ip, arp, * for all, ... or its number",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(|record| match record.ends {
        Ends::Packet(packet) => match ethertype(packet.ethertype) {
            Some(name) => Value::text(name),
            None => Value::Hex(u64::from(packet.ethertype)),
        },
        _ => Value::Absent,
    }),
};

pub(super) const NETLINK_FAMILY: Field = Field {
    id: "netlink-family",
    header: "Netlink-Family",
    doc: "with which part of the kernel a NETLINK socket speaks: rtnl, audit, genl, ... or its number",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(|record| match record.ends {
        Ends::Netlink(netlink) => named(netlink.family, netlink_family(netlink.family)),
        _ => Value::Absent,
    }),
};

pub(super) const PORT_ID: Field = Field {
    id: "port-id",
    header: "Port-Id",
    doc: "the port id of a NETLINK socket; 0 is the kernel",
    unit: None,
    align: Align::Right,
    needs: Needs::Row,
    get: Get::Row(|record| match record.ends {
        Ends::Netlink(netlink) => count(Some(netlink.portid)),
        _ => Value::Absent,
    }),
};

pub(super) const LOCAL_CID: Field = Field {
    id: "local-cid",
    header: "Local-CID",
    doc: "the context id of this end of a VSOCK socket",
    unit: None,
    align: Align::Right,
    needs: Needs::Row,
    get: Get::Row(|record| match record.ends {
        Ends::Vsock(vsock) => count(known(vsock.local.0)),
        _ => Value::Absent,
    }),
};

pub(super) const PEER_CID: Field = Field {
    id: "peer-cid",
    header: "Peer-CID",
    doc: "the context id of the other end of a VSOCK socket",
    unit: None,
    align: Align::Right,
    needs: Needs::Row,
    get: Get::Row(|record| match record.ends {
        Ends::Vsock(vsock) => count(known(vsock.peer.0)),
        _ => Value::Absent,
    }),
};

/// The address of an end, where there is one.
pub(super) fn address<'a>(record: &Record<'a>, ip: fn(&Record<'a>) -> IpAddr) -> Value<'a> {
    match record.ends {
        Ends::Ip => Value::Address(ip(record)),
        _ => Value::Absent,
    }
}

/// The port of an end, where there is one.
pub(super) fn port<'a>(record: &Record<'a>, local: bool) -> Value<'a> {
    let socket = record.socket;
    match record.ends {
        Ends::Ip if socket.protocol == Protocol::Raw => Value::Absent,
        Ends::Ip if local => Value::Port(socket.local.port),
        Ends::Ip => Value::Port(socket.remote.port),
        Ends::Vsock(vsock) if local => count(known(vsock.local.1)),
        Ends::Vsock(vsock) => count(known(vsock.peer.1)),
        Ends::Unix(_) | Ends::Packet(_) | Ends::Netlink(_) => Value::Absent,
    }
}

fn named<'a>(number: u8, name: Option<&'static str>) -> Value<'a> {
    match name {
        Some(name) => Value::Text(Cow::Borrowed(name)),
        None => Value::Count(u64::from(number)),
    }
}
