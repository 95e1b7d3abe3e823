//! What stands in a socket's object in place of two addresses and two ports.

use std::io::{self, Write};

use super::Object;
use super::column::write_names;
use super::sockets::write_endpoints;
use crate::fields::{Record, kind};
use crate::model::numbers::{ethertype, ip_protocol, netlink_family};
use crate::model::unix::Name;
use crate::model::{Ends, Protocol};

/// Writes which socket it is. Nothing is allocated.
pub(super) fn write<W: Write>(object: &mut Object<'_, W>, record: &Record<'_>) -> io::Result<()> {
    let socket = record.socket;
    if let Some(kind) = kind(record) {
        object.plain("type", kind)?;
    }
    match record.ends {
        Ends::Ip if socket.protocol == Protocol::Raw => {
            object.plain("local_address", socket.local_ip())?;
            object.plain("peer_address", socket.remote_ip())?;
            object.value("ip_protocol", socket.local.port)?;
            let name = u8::try_from(socket.local.port).ok().and_then(ip_protocol);
            object.known("ip_protocol_name", name)
        }
        Ends::Ip => {
            write_endpoints(object, socket)?;
            write_names(object, record)
        }
        Ends::Unix(unix) => {
            if let Some(name) = unix.name.and_then(Name::new) {
                object.name("local_name", name)?;
                object.value("abstract", name.is_abstract())?;
            }
            object.known("peer_inode", unix.peer.filter(|inode| *inode != 0))
        }
        Ends::Packet(packet) => {
            object.value("ethertype", packet.ethertype)?;
            object.known("ethertype_name", ethertype(packet.ethertype))
        }
        Ends::Netlink(netlink) => {
            object.value("netlink_family", netlink.family)?;
            object.known("netlink_family_name", netlink_family(netlink.family))?;
            object.value("port_id", netlink.portid)?;
            object.known("peer_port_id", netlink.peer.map(|(portid, _)| portid))
        }
        Ends::Vsock(vsock) => {
            let known = |number: u32| (number != u32::MAX).then_some(number);
            object.known("local_cid", known(vsock.local.0))?;
            object.known("local_port", known(vsock.local.1))?;
            object.known("peer_cid", known(vsock.peer.0))?;
            object.known("peer_port", known(vsock.peer.1))
        }
    }
}

/// Writes what `-e` adds.
pub(super) fn write_extended<W: Write>(
    object: &mut Object<'_, W>,
    record: &Record<'_>,
) -> io::Result<()> {
    match record.ends {
        Ends::Ip | Ends::Vsock(_) => Ok(()),
        Ends::Unix(unix) => {
            if let Some((device, inode)) = unix.file {
                object.value("file_device", device)?;
                object.value("file_inode", inode)?;
            }
            object.known("pending", unix.waiting.map(|waiting| waiting.len() / 4))
        }
        Ends::Packet(packet) => {
            object.known("running", packet.running)?;
            object.known("rx_ring_bytes", packet.rx_ring)?;
            object.known("tx_ring_bytes", packet.tx_ring)?;
            object.known("fanout_id", packet.fanout.map(|fanout| fanout & 0xffff))?;
            object.known("fanout_type", packet.fanout.map(|fanout| fanout >> 16))
        }
        Ends::Netlink(netlink) => {
            if netlink.groups.is_some() {
                let out = object.key("groups")?;
                out.write_all(b"[")?;
                for (at, group) in netlink.joined().enumerate() {
                    write!(out, "{}{group}", if at > 0 { "," } else { "" })?;
                }
                out.write_all(b"]")?;
            }
            object.known("drops", netlink.drops)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::by_id;
    use crate::fields::tests::Fixture;
    use crate::model::{
        Attributes, Family, NetlinkSocket, PacketSocket, TcpState, UnixKind, UnixSocket,
        VsockSocket,
    };
    use crate::render::cell;
    use crate::render::json::{Parts, write_socket};
    use serde_json::{Value as Json, json};

    /// What JSON says of a socket with these ends, and the cells of some columns.
    fn shown(ends: Ends<'_>, parts: Parts, columns: &[&str]) -> (Json, Vec<String>) {
        let fixture = Fixture::new();
        let (socket, attributes) = (ends.socket(), Attributes::default());
        fixture.with(|record| {
            let record = Record {
                socket: &socket,
                attributes: &attributes,
                ends,
                ..*record
            };
            let mut out = Vec::new();
            write_socket(&mut out, &record, parts).unwrap();
            let cells = columns.iter().map(|id| {
                let mut cell = String::new();
                cell::write(&mut cell, &by_id(id).unwrap().value(&record), false).unwrap();
                cell
            });
            (serde_json::from_slice(&out).unwrap(), cells.collect())
        })
    }

    const ENDS: [&str; 9] = [
        "netid",
        "state",
        "local",
        "peer",
        "local-address",
        "local-port",
        "age",
        "timer",
        "waiting-on",
    ];

    #[test]
    fn a_unix_socket_has_a_name_and_inodes_and_no_ports() {
        let unix = UnixSocket {
            netns: 0,
            cookie: None,
            inode: 7,
            kind: UnixKind::Datagram,
            state: TcpState::Closed,
            name: Some(b"\0a\"\\b\x1b\xff"),
            file: Some((0x80_0001, 9)),
            peer: Some(8),
            waiting: None,
            recv_q: Some(5),
            send_q: None,
            memory: None,
            shutdown: None,
            uid: None,
        };
        let extended = Parts {
            extended: true,
            ..Parts::default()
        };
        let (object, cells) = shown(Ends::Unix(&unix), extended, &ENDS);
        assert_eq!(
            object,
            json!({
                "protocol": "unix", "family": "unix", "state": "unconnected", "type": "datagram",
                "local_name": "@a\"\\b\u{1b}\u{fffd}", "abstract": true, "peer_inode": 8,
                "recv_q": 5, "send_q": null, "inode": 7, "file_device": 0x80_0001, "file_inode": 9,
            })
        );
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        assert_eq!(
            cells,
            [
                "u_dgr",
                "UNCONNECTED",
                "@a\"\\b\\x1b\\xff:7",
                "*:8",
                "-",
                "-",
                "-",
                "-",
                "-"
            ]
        );
    }

    #[test]
    fn links_the_kernel_and_virtual_machines_have_their_own_ends() {
        let packet = PacketSocket {
            netns: 0,
            cookie: None,
            inode: 7,
            kind: 3,
            ethertype: 0x806,
            ifindex: 2,
            running: Some(true),
            rx_ring: None,
            tx_ring: None,
            recv_q: None,
            uid: Some(0),
            fanout: None,
            memory: None,
        };
        let (object, cells) = shown(Ends::Packet(&packet), Parts::default(), &ENDS);
        assert_eq!(
            (
                &object["ethertype"],
                &object["ethertype_name"],
                &object["interface"],
                &object["type"]
            ),
            (&json!(0x806), &json!("arp"), &json!("eth0"), &json!("raw"))
        );
        assert_eq!(cells[..4], ["p_raw", "UNCONNECTED", "arp:eth0", "*"]);
        let netlink = NetlinkSocket {
            netns: 0,
            cookie: None,
            inode: 123,
            state: TcpState::Closed,
            family: 16,
            portid: 4242,
            peer: None,
            groups: None,
            recv_q: Some(0),
            send_q: Some(0),
            drops: None,
            memory: None,
        };
        let (object, cells) = shown(Ends::Netlink(&netlink), Parts::default(), &ENDS);
        assert_eq!(
            (
                &object["netlink_family_name"],
                &object["port_id"],
                object.get("peer_port_id")
            ),
            (&json!("genl"), &json!(4242), None)
        );
        assert_eq!(cells[..4], ["nl", "UNCONNECTED", "genl:nginx/4242", "*"]);
        let vsock = VsockSocket {
            netns: 0,
            cookie: None,
            inode: 7,
            kind: 1,
            state: TcpState::Listen,
            local: (u32::MAX, 1024),
            peer: (u32::MAX, u32::MAX),
            shutdown: 0,
        };
        let (object, cells) = shown(Ends::Vsock(&vsock), Parts::default(), &ENDS);
        assert_eq!(
            (
                object.get("local_cid"),
                &object["local_port"],
                object.get("peer_port")
            ),
            (None, &json!(1024), None)
        );
        assert_eq!(
            cells[..6],
            ["v_str", "LISTEN", "*:1024", "*:*", "-", "1024"]
        );
    }

    #[test]
    fn a_raw_socket_has_a_protocol_in_place_of_ports() {
        let mut fixture = Fixture::new();
        fixture.socket.protocol = Protocol::Raw;
        fixture.socket.state = TcpState::Closed;
        fixture.socket.family = Family::Ipv6;
        fixture.socket.local.port = 58;
        let mut out = Vec::new();
        fixture
            .with(|record| write_socket(&mut out, record, Parts::default()))
            .unwrap();
        let object: Json = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            (
                &object["ip_protocol"],
                &object["ip_protocol_name"],
                object.get("local_port")
            ),
            (&json!(58), &json!("ipv6-icmp"), None)
        );
        fixture.with(|record| {
            let mut netid = String::new();
            cell::write(&mut netid, &by_id("netid").unwrap().value(record), false).unwrap();
            assert_eq!(netid, "icmp6");
        });
    }
}
