//! Which files of `/proc/net` have which sockets, and which protocols the kernel has at all.

use std::fs;
use std::io::{self, BufRead};
use std::ops::ControlFlow;

use super::inet::next_line_within;
use super::{ProcRoot, inet, packet, sctp, unix};
use crate::collect::{RowSink, Table, Want};
use crate::model::{Coverage, Family, Protocol};

/// The longest line that is read: of SCTP, whose lines have every address of both ends.
const LONGEST_LINE: u64 = 4096;

/// The files of a table below `/proc/net`, in the order in which they are read; none of what `/proc` does not show.
pub const fn files(table: Table) -> &'static [&'static str] {
    let ipv6 = matches!(table.family, Some(Family::Ipv6));
    match (table.protocol, ipv6) {
        (Protocol::Tcp, false) => &["tcp"],
        (Protocol::Tcp, true) => &["tcp6"],
        (Protocol::Udp, false) => &["udp"],
        (Protocol::Udp, true) => &["udp6"],
        (Protocol::UdpLite, false) => &["udplite"],
        (Protocol::UdpLite, true) => &["udplite6"],
        (Protocol::Raw, false) => &["raw"],
        (Protocol::Raw, true) => &["raw6"],
        // Both have the sockets of both families.
        (Protocol::Sctp, _) => &["sctp/eps", "sctp/assocs"],
        (Protocol::Unix, _) => &["unix"],
        (Protocol::Packet, _) => &["packet"],
        (Protocol::Netlink, _) => &["netlink"],
        (Protocol::Mptcp | Protocol::Vsock, _) => &[],
    }
}

/// Whether there is a file for any table of the protocol.
pub const fn shows(protocol: Protocol) -> bool {
    !matches!(protocol, Protocol::Mptcp | Protocol::Vsock)
}

/// What is missing where a protocol has no table.
pub fn gap(protocol: Protocol) -> String {
    format!("{}: /proc/net has no table of them", protocol.sockets())
}

/// Whether the kernel has the protocol: `net/protocols` lists those that are built in or loaded. `None` where that is
/// not told.
pub fn has(root: &ProcRoot, protocol: Protocol) -> Option<bool> {
    let text = fs::read(root.net().join("protocols")).ok()?;
    listed(&text, protocol)
}

fn listed(text: &[u8], protocol: Protocol) -> Option<bool> {
    let names: &[&[u8]] = match protocol {
        Protocol::Tcp => &[b"TCP"],
        Protocol::Mptcp => &[b"MPTCP"],
        Protocol::Udp => &[b"UDP"],
        Protocol::UdpLite => &[b"UDP-Lite"],
        Protocol::Raw => &[b"RAW"],
        Protocol::Sctp => &[b"SCTP"],
        Protocol::Unix => &[b"UNIX", b"UNIX-STREAM"],
        Protocol::Packet => &[b"PACKET"],
        Protocol::Netlink => &[b"NETLINK"],
        Protocol::Vsock => &[b"AF_VSOCK"],
    };
    let lists = |names: &[&[u8]]| {
        let mut lines = text.split(|byte| *byte == b'\n').skip(1);
        lines.any(|line| {
            let mut words = line.split(u8::is_ascii_whitespace);
            words.next().is_some_and(|name| names.contains(&name))
        })
    };
    // A sandbox may show the list's head alone. Every kernel that has /proc/net has TCP.
    lists(&[b"TCP"]).then(|| lists(names))
}

/// Reads a table in the text of its files and pushes what is wanted. `Break` if the sink said so.
///
/// # Errors
/// When reading fails; the rows before that have been pushed.
pub fn read(
    reader: impl BufRead,
    table: Table,
    want: &Want,
    coverage: &mut Coverage,
    row: &mut RowSink<'_>,
) -> io::Result<ControlFlow<()>> {
    match table.protocol {
        Protocol::Unix => unix::table(reader, want, coverage, row),
        Protocol::Packet | Protocol::Netlink => packet::table(reader, table, want, coverage, row),
        Protocol::Sctp => sctp::table(reader, table, want, coverage, row),
        _ => inet::table(reader, table, want, coverage, row),
    }
}

/// Shows each line to `take`, which says `None` to a malformed one.
pub(super) fn each_line(
    mut reader: impl BufRead,
    coverage: &mut Coverage,
    mut take: impl FnMut(&[u8], &mut Coverage) -> Option<ControlFlow<()>>,
) -> io::Result<ControlFlow<()>> {
    let mut line = Vec::new();
    while let Some(whole) = next_line_within(LONGEST_LINE, &mut reader, &mut line)? {
        let taken = if whole { take(&line, coverage) } else { None };
        match taken {
            Some(ControlFlow::Continue(())) => {}
            Some(ControlFlow::Break(())) => return Ok(ControlFlow::Break(())),
            None => coverage.undecoded += 1,
        }
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests {
    use procfs::net::{UdpNetEntries, UnixNetEntries};
    use procfs::{ExplicitSystemInfo, FromBufRead, FromBufReadSI};
    use proptest::prelude::*;

    use super::*;
    use crate::collect::Row;
    use crate::model::Socket;

    const LIST: &[u8] = b"protocol  size sockets  memory press maxhdr\n\
        MPTCPv6   2064      0     171   no       0\n\
        UNIX-STREAM 1152     10      -1   NI       0\n\
        UDP-Lite  1344      0     202   NI       0\n\
        TCP       2304      1     171   no     192\n";

    #[test]
    fn what_is_not_listed_is_not_there() {
        let has = |protocol| listed(LIST, protocol);
        assert_eq!(has(Protocol::UdpLite), Some(true));
        assert_eq!(has(Protocol::Unix), Some(true));
        assert_eq!(has(Protocol::Mptcp), Some(false), "MPTCPv6 is another");
        assert_eq!(has(Protocol::Udp), Some(false));
        let head = LIST.split_inclusive(|byte| *byte == b'\n').next().unwrap();
        assert_eq!(listed(head, Protocol::Udp), None, "nobody lacks TCP");
        assert_eq!(listed(b"", Protocol::Udp), None);
    }

    #[test]
    fn this_machine_has_what_it_uses() {
        for protocol in [Protocol::Udp, Protocol::Unix, Protocol::Netlink] {
            assert_ne!(has(&ProcRoot::default(), protocol), Some(false));
        }
        let nowhere = ProcRoot::new("/nonexistent");
        assert_eq!(has(&nowhere, Protocol::Udp), None);
    }

    #[test]
    fn a_protocol_is_shown_where_a_table_has_files() {
        for protocol in Protocol::ALL {
            let table = Table::of(protocol, Family::Ipv4);
            assert_eq!(!files(table).is_empty(), shows(protocol));
        }
    }

    /// The rows of a table, and the bytes of their names.
    fn rows(text: &str, table: Table) -> Vec<(Socket, Option<u32>, Option<Vec<u8>>)> {
        let (mut found, mut coverage) = (Vec::new(), Coverage::default());
        let want = Want::all(table.protocol);
        let end = read(text.as_bytes(), table, &want, &mut coverage, &mut |row| {
            let (socket, attributes, _) = row.parts();
            let name = match row {
                Row::Unix(unix) => unix.name.map(<[u8]>::to_vec),
                _ => None,
            };
            found.push((socket, attributes.drops(), name));
            ControlFlow::Continue(())
        });
        assert!(end.unwrap().is_continue() && coverage.rows_complete());
        found
    }

    proptest! {
        #[test]
        fn datagram_tables_agree_with_the_procfs_crate(
            (address, port) in (any::<u32>(), any::<u16>()),
            connected in any::<bool>(),
            (tx, rx, uid, inode, drops) in any::<(u32, u32, u32, u32, u32)>(),
        ) {
            let state = if connected { 1 } else { 7 };
            let text = format!(
                "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                 {:5}: {address:08X}:{port:04X} 0100007F:0000 {state:02X} {tx:08X}:{rx:08X} 00:00000000 00000000 {uid:5} {:8} {inode} 2 0000000000000000 {drops}\n",
                9, 0
            );
            let system = ExplicitSystemInfo {
                boot_time_secs: 0,
                ticks_per_second: 100,
                page_size: 4096,
                is_little_endian: cfg!(target_endian = "little"),
            };
            let oracle = UdpNetEntries::from_buf_read(text.as_bytes(), &system).unwrap();
            let oracle = &oracle.0[0];
            for protocol in [Protocol::Udp, Protocol::UdpLite, Protocol::Raw] {
                let rows = rows(&text, Table::of(protocol, Family::Ipv4));
                let (socket, dropped, _) = &rows[0];
                prop_assert_eq!(socket.protocol, protocol);
                prop_assert_eq!(socket.local_ip(), oracle.local_address.ip());
                prop_assert_eq!(socket.local.port, oracle.local_address.port());
                prop_assert_eq!(socket.remote_ip(), oracle.remote_address.ip());
                prop_assert_eq!(socket.state.number(), oracle.state.to_u8());
                prop_assert_eq!((socket.recv_q, socket.send_q), (oracle.rx_queue, oracle.tx_queue));
                prop_assert_eq!((socket.uid, u64::from(socket.inode)), (oracle.uid, oracle.inode));
                prop_assert_eq!(*dropped, Some(drops));
            }
        }

        #[test]
        fn unix_agrees_with_the_procfs_crate(
            kind in prop::sample::select(vec![1u8, 2, 5]),
            connected in any::<bool>(),
            inode in any::<u32>(),
            name in "(@|/)[a-z0-9./-]{1,40}",
        ) {
            let state = if connected { 3 } else { 1 };
            let text = format!(
                "Num       RefCount Protocol Flags    Type St Inode Path\n\
                 0000000000000000: 00000002 00000000 00000000 {kind:04X} {state:02X} {inode:5} {name}\n"
            );
            let oracle = UnixNetEntries::from_buf_read(text.as_bytes()).unwrap();
            let oracle = &oracle.0[0];
            let rows = rows(&text, Table::without_family(Protocol::Unix));
            let (socket, _, ours) = &rows[0];
            prop_assert_eq!(u64::from(socket.inode), oracle.inode);
            prop_assert_eq!(ours.as_deref(), oracle.path.as_ref().map(|path| path.as_os_str().as_encoded_bytes()));
            let of_theirs = if oracle.state.to_u8() == 3 { 1 } else { 7 };
            prop_assert_eq!(socket.state.number(), of_theirs);
        }
    }
}
