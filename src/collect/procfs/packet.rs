//! The tables `/proc/net/packet` (`packet_seq_show` in `net/packet/af_packet.c`) and `/proc/net/netlink`
//! (`netlink_native_seq_show` in `net/netlink/af_netlink.c`). They have neither cookies nor limits of memory, and that of
//! netlink has the first 32 groups alone and no peers.

use std::io::{self, BufRead};
use std::ops::ControlFlow;

use super::inet::{decimal, hexadecimal};
use super::tables::each_line;
use crate::collect::{Row, RowSink, Table, Want};
use crate::model::{Coverage, NetlinkSocket, PacketSocket, Protocol, TcpState};

/// Reads either table and pushes what is wanted. `Break` if the sink said so.
///
/// # Errors
/// When reading fails; the rows before that have been pushed.
pub fn table(
    reader: impl BufRead,
    table: Table,
    want: &Want,
    coverage: &mut Coverage,
    row: &mut RowSink<'_>,
) -> io::Result<ControlFlow<()>> {
    // Of none of them a peer is known.
    if !want.table(table) || !want.states.contains(TcpState::Closed) {
        return Ok(ControlFlow::Continue(()));
    }
    each_line(reader, coverage, |line, _| {
        if line.starts_with(b"sk ") {
            return Some(ControlFlow::Continue(()));
        }
        if table.protocol == Protocol::Packet {
            return Some(row(Row::Packet(parse_packet(line)?)));
        }
        let (socket, groups) = parse_netlink(line)?;
        Some(row(Row::Netlink(NetlinkSocket {
            groups: Some(&groups),
            ..socket
        })))
    })
}

/// The words of a line.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
}

/// Reads one line of `/proc/net/packet`; `None` if it is malformed.
pub fn parse_packet(line: &[u8]) -> Option<PacketSocket<'static>> {
    let mut words = words(line);
    hexadecimal(words.next()?)?; // the address, or 0 for who may not know it
    decimal(words.next()?)?; // references
    let kind = decimal(words.next()?)?;
    let ethertype = hexadecimal(words.next()?)?;
    let ifindex = decimal(words.next()?)?;
    let running = decimal(words.next()?)?;
    let rmem = decimal(words.next()?)?;
    let uid = decimal(words.next()?)?;
    let inode = decimal(words.next()?)?;
    Some(PacketSocket {
        netns: 0,
        cookie: None,
        inode: inode.try_into().ok()?,
        kind: kind.try_into().ok()?,
        ethertype: ethertype.try_into().ok()?,
        ifindex: ifindex.try_into().ok()?,
        running: Some(running != 0),
        recv_q: Some(rmem.try_into().ok()?),
        rx_ring: None,
        tx_ring: None,
        uid: Some(uid.try_into().ok()?),
        fanout: None,
        memory: None,
    })
}

/// Reads one line of `/proc/net/netlink`, and its groups as `NETLINK_DIAG_GROUPS` has them; `None` if it is malformed.
pub fn parse_netlink(line: &[u8]) -> Option<(NetlinkSocket<'static>, [u8; 4])> {
    let mut words = words(line);
    hexadecimal(words.next()?)?; // the address, or 0 for who may not know it
    let family = decimal(words.next()?)?;
    let portid = decimal(words.next()?)?;
    let groups = hexadecimal(words.next()?)?;
    let rmem = decimal(words.next()?)?;
    let wmem = decimal(words.next()?)?;
    words.next()?; // whether a dump is under way; a pointer before Linux 3.13
    decimal(words.next()?)?; // references
    let drops = decimal(words.next()?)?;
    let inode = decimal(words.next()?)?;
    let socket = NetlinkSocket {
        netns: 0,
        cookie: None,
        inode: inode.try_into().ok()?,
        state: TcpState::Closed,
        family: family.try_into().ok()?,
        portid: portid.try_into().ok()?,
        peer: None,
        groups: None,
        recv_q: Some(rmem.try_into().ok()?),
        send_q: Some(wmem.try_into().ok()?),
        drops: Some(drops.try_into().ok()?),
        memory: None,
    };
    Some((socket, u32::try_from(groups).ok()?.to_ne_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Ends, StateSet};

    fn read(text: &[u8], protocol: Protocol, states: StateSet) -> (Vec<String>, Coverage) {
        let (mut rows, mut coverage) = (Vec::new(), Coverage::default());
        let want = Want {
            states,
            ..Want::all(protocol)
        };
        let of = Table::without_family(protocol);
        let end = table(text, of, &want, &mut coverage, &mut |row| {
            let (_, attributes, ends) = row.parts();
            rows.push(match ends {
                Ends::Packet(s) => format!(
                    "{} {:#x} if {} {:?} {:?} uid {:?} inode {}",
                    s.kind, s.ethertype, s.ifindex, s.running, s.recv_q, s.uid, s.inode
                ),
                Ends::Netlink(s) => format!(
                    "{} {} {:?} {:?} {:?} drops {:?} inode {}",
                    s.family,
                    s.portid,
                    s.joined().collect::<Vec<_>>(),
                    ends.recv_q(),
                    ends.send_q(),
                    attributes.drops(),
                    s.inode
                ),
                other => format!("{other:?}"),
            });
            ControlFlow::Continue(())
        });
        assert!(end.unwrap().is_continue());
        (rows, coverage)
    }

    const PACKET: &[u8] = b"sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n\
        00000000604e4848 3      3    0806   2     1 768    1000   49218858\n\
        0000000000000000 3      2    0003   0     0 0      0      5     \n";
    const NETLINK: &[u8] = b"sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
        00000000ffab16f8 0   0          00000000 0        0        0     2        0        4       \n\
        0000000075999706 15  4294963166 80000011 832      64       0     2        7        1588    \n";

    #[test]
    fn every_column_finds_its_member() {
        let (rows, coverage) = read(PACKET, Protocol::Packet, StateSet::ALL);
        assert!(coverage.rows_complete(), "{coverage:?}");
        assert_eq!(
            rows,
            [
                "3 0x806 if 2 Some(true) Some(768) uid Some(1000) inode 49218858",
                "2 0x3 if 0 Some(false) Some(0) uid Some(0) inode 5",
            ]
        );
        let (rows, coverage) = read(NETLINK, Protocol::Netlink, StateSet::ALL);
        assert!(coverage.rows_complete(), "{coverage:?}");
        assert_eq!(
            rows,
            [
                "0 0 [] Some(0) Some(0) drops Some(0) inode 4",
                "15 4294963166 [1, 5, 32] Some(832) Some(64) drops Some(7) inode 1588",
            ]
        );
    }

    #[test]
    fn what_has_no_peer_is_in_no_other_state() {
        let established = StateSet::of(TcpState::Established);
        assert_eq!(read(NETLINK, Protocol::Netlink, established).0.len(), 0);
        let unconnected = StateSet::of(TcpState::Closed);
        assert_eq!(read(NETLINK, Protocol::Netlink, unconnected).0.len(), 2);
    }

    #[test]
    fn a_broken_line_is_counted_and_the_rest_read() {
        for (text, protocol) in [(PACKET, Protocol::Packet), (NETLINK, Protocol::Netlink)] {
            let text = [text, b"0 0 z\n", text].concat();
            let (rows, coverage) = read(&text, protocol, StateSet::ALL);
            assert_eq!((rows.len(), coverage.undecoded), (4, 1));
            let cut = &text[..text.len() - 10];
            let (rows, coverage) = read(cut, protocol, StateSet::ALL);
            assert_eq!((rows.len(), coverage.undecoded), (3, 2), "cut off");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for protocol in [Protocol::Packet, Protocol::Netlink] {
                read(&bytes, protocol, StateSet::ALL);
            }
        }

        #[test]
        fn no_mangled_line_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            for (text, protocol) in [(PACKET, Protocol::Packet), (NETLINK, Protocol::Netlink)] {
                let mut text = text.to_vec();
                let at = at.index(text.len());
                text[at] = byte;
                read(&text, protocol, StateSet::ALL);
            }
        }
    }
}
