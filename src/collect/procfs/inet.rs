//! The tables `/proc/net/tcp` and `/proc/net/tcp6` (`tcp4_seq_show` in `net/ipv4/tcp_ipv4.c`, `tcp6_seq_show` in
//! `net/ipv6/tcp_ipv6.c`), and `/proc/net/udp` and `/proc/net/udp6`, which begin with the same columns
//! (`udp4_seq_show` in `net/ipv4/udp.c`), as those of UDP-Lite and `/proc/net/raw` do: a raw socket has a protocol where
//! others have a port.
//!
//! Reads a line at a time into one buffer of fixed size; a line that is malformed, too long or cut off is counted and
//! skipped, and the rest of the table is still read. What the table does not have is left at its neutral value: cookie,
//! interface, `tcp_info`, and a listener's backlog ([`Socket::backlog`]).

use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;

use crate::collect::{Row, RowSink, Table, Want};
use crate::model::{Attributes, Coverage, Endpoint, Family, Protocol, Socket, TcpState, Timer};

/// Milliseconds in one tick of `tm->when`: the kernel converts jiffies to `USER_HZ`, 100 on every architecture that
/// runs today (Alpha's 1024 is the exception).
const TICK_MS: u64 = 10;

/// A line of the kernel is 150 bytes for IPv4 and at most about 210 for IPv6.
const LONGEST_LINE: u64 = 512;

/// The byte order of the machine that printed the table: every 32-bit word of an address is printed as a number of
/// that machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    /// least significant byte first
    Little,
    /// most significant byte first
    Big,
}

impl Endian {
    /// The order of the machine that this program runs on.
    pub const NATIVE: Self = if cfg!(target_endian = "big") {
        Self::Big
    } else {
        Self::Little
    };
}

/// Reads a table whose lines this machine's kernel printed, and pushes what is wanted. `Break` if the sink said so.
///
/// # Errors
/// When reading fails; the rows before that have been pushed.
pub fn table(
    mut reader: impl BufRead,
    table: Table,
    want: &Want,
    coverage: &mut Coverage,
    row: &mut RowSink<'_>,
) -> io::Result<ControlFlow<()>> {
    let Some(family) = table.family.filter(|_| want.table(table)) else {
        return Ok(ControlFlow::Continue(()));
    };
    let protocol = table.protocol;
    let mut line = Vec::with_capacity(LONGEST_LINE as usize);
    let mut first = true;
    while let Some(whole) = next_line(&mut reader, &mut line)? {
        let header = first && line.trim_ascii_start().starts_with(b"sl ");
        first = false;
        if header {
            continue;
        }
        // Every line of the kernel ends with a newline. One without may have lost digits of its inode.
        let Some(mut socket) = whole.then(|| parse_line(&line, family)).flatten() else {
            coverage.undecoded += 1;
            continue;
        };
        socket.protocol = protocol;
        if !want.states.contains(socket.state) {
            continue;
        }
        if matches!(socket.state, TcpState::Unknown(_)) {
            coverage.unknown_states += 1;
        }
        let attributes = Attributes {
            listed_drops: match protocol {
                Protocol::Udp | Protocol::UdpLite | Protocol::Raw => drops(&line),
                _ => None,
            },
            ..Attributes::default()
        };
        if row(Row::Inet { socket, attributes }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The last of the columns that UDP has and TCP has not: references, pointer, drops.
fn drops(line: &[u8]) -> Option<u32> {
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    decimal(words.nth(12)?)?.try_into().ok()
}

/// Puts the next line into `line`. `None` at the end; `Some(false)` if the line had no end or was too long.
pub(super) fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    next_line_within(LONGEST_LINE, reader, line)
}

/// [`next_line`] of a table whose lines may have so many bytes.
pub(super) fn next_line_within(
    longest: u64,
    reader: &mut impl BufRead,
    line: &mut Vec<u8>,
) -> io::Result<Option<bool>> {
    let mut whole = true;
    loop {
        line.clear();
        let length = reader.by_ref().take(longest).read_until(b'\n', line)?;
        let ended = line.last() == Some(&b'\n');
        match (length, whole) {
            (0, true) => return Ok(None),
            (0, false) => return Ok(Some(false)),
            _ if ended => return Ok(Some(whole)),
            // The rest of a line that is too long, or of the file.
            _ => whole = false,
        }
    }
}

/// Reads one line that this machine's kernel printed; `None` if it is malformed.
pub fn parse_line(line: &[u8], family: Family) -> Option<Socket> {
    parse_line_as(line, family, Endian::NATIVE)
}

/// Reads one line of a machine of the given byte order; `None` if it is malformed.
pub fn parse_line_as(line: &[u8], family: Family, endian: Endian) -> Option<Socket> {
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let slot = words.next()?.strip_suffix(b":")?;
    decimal(slot)?;
    let local = endpoint(words.next()?, family, endian)?;
    let remote = endpoint(words.next()?, family, endian)?;
    let state = TcpState::from_kernel(hexadecimal(words.next()?)?.try_into().ok()?);
    let (tx_queue, rx_queue) = pair(words.next()?)?;
    let (timer, when) = pair(words.next()?)?;
    let retransmits = hexadecimal(words.next()?)?;
    let uid = decimal(words.next()?)?;
    let probes = decimal(words.next()?)?;
    let inode = decimal(words.next()?)?;

    let timer = Timer::from_kernel(timer.try_into().ok()?);
    Some(Socket {
        cookie: None,
        local,
        remote,
        inode: inode.try_into().ok()?,
        uid: uid.try_into().ok()?,
        recv_q: rx_queue.try_into().ok()?,
        send_q: tx_queue.try_into().ok()?,
        timer_ms: saturated(match timer {
            // The kernel prints what is left of "now", a tick at most.
            Timer::None => 0,
            _ => when.saturating_mul(TICK_MS),
        }),
        ifindex: 0,
        info: None,
        netns: 0,
        // As `idiag_retrans` has it (`inet_sk_diag_fill`): the column that belongs to the running timer. For
        // SYN-RECEIVED the table counts time-outs, `sock_diag` SYN-ACKs sent again, whatever the cause.
        retransmits: u8::try_from(match timer {
            Timer::Retransmit => retransmits,
            Timer::Keepalive | Timer::Persist => probes,
            Timer::None | Timer::TimeWait | Timer::Unknown(_) => 0,
        })
        .unwrap_or(u8::MAX),
        timer,
        state,
        protocol: Protocol::Tcp,
        family,
    })
}

fn endpoint(word: &[u8], family: Family, endian: Endian) -> Option<Endpoint> {
    let (address, port) = split_colon(word)?;
    let port = hexadecimal(port)?.try_into().ok()?;
    match family {
        Family::Ipv4 => Some(Endpoint::v4(address_word(address, endian)?, port)),
        Family::Ipv6 => {
            let mut bytes = [0; 16];
            let (words, rest) = address.as_chunks::<8>();
            if words.len() != 4 || !rest.is_empty() {
                return None;
            }
            for (word, place) in words.iter().zip(bytes.as_chunks_mut::<4>().0) {
                *place = address_word(word, endian)?;
            }
            Some(Endpoint::v6(bytes, port))
        }
    }
}

/// Four bytes of an address in network order, from the number that the kernel took them for.
fn address_word(digits: &[u8], endian: Endian) -> Option<[u8; 4]> {
    if digits.len() != 8 {
        return None;
    }
    let number = u32::try_from(hexadecimal(digits)?).ok()?;
    Some(match endian {
        Endian::Little => number.to_le_bytes(),
        Endian::Big => number.to_be_bytes(),
    })
}

fn pair(word: &[u8]) -> Option<(u64, u64)> {
    let (left, right) = split_colon(word)?;
    Some((hexadecimal(left)?, hexadecimal(right)?))
}

fn split_colon(word: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = word.splitn(2, |byte| *byte == b':');
    Some((parts.next()?, parts.next()?))
}

pub(super) fn hexadecimal(digits: &[u8]) -> Option<u64> {
    number(digits, 16)
}

pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    number(digits, 10)
}

/// Digits alone: unlike `str::parse`, neither a sign nor nothing is a number.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        number
            .checked_mul(u64::from(radix))?
            .checked_add(u64::from(char::from(*digit).to_digit(radix)?))
    })
}

fn saturated(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use procfs::{ExplicitSystemInfo, FromBufReadSI, net::TcpNetEntries};
    use proptest::prelude::*;

    use super::*;
    use crate::model::StateSet;

    const HEADER: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn v4(line: &str) -> Option<Socket> {
        parse_line_as(line.as_bytes(), Family::Ipv4, Endian::Little)
    }

    fn all() -> Want {
        Want::states(StateSet::ALL)
    }

    fn read(text: &[u8], want: &Want) -> (Vec<Socket>, Coverage) {
        let (mut sockets, mut coverage) = (Vec::new(), Coverage::default());
        let mut sink = |row: Row<'_>| {
            if let Row::Inet { socket, .. } = row {
                sockets.push(socket);
            }
            ControlFlow::Continue(())
        };
        table(
            text,
            Table::of(Protocol::Tcp, Family::Ipv4),
            want,
            &mut coverage,
            &mut sink,
        )
        .unwrap()
        .continue_value()
        .unwrap();
        (sockets, coverage)
    }

    fn line(state: &str) -> String {
        format!(
            "  12: 0100007F:1F90 0200007F:C001 {state} 0000000A:00000014 02:000005DC 00000003  1000        2 4711 2 ffff 20 4 30 10 -1\n"
        )
    }

    #[test]
    fn every_column_finds_its_member() {
        let socket = v4(&line("01")).unwrap();
        assert_eq!(socket.local, Endpoint::v4([127, 0, 0, 1], 8080));
        assert_eq!(socket.remote, Endpoint::v4([127, 0, 0, 2], 0xc001));
        assert_eq!(socket.state, TcpState::Established);
        assert_eq!((socket.send_q, socket.recv_q), (10, 20));
        assert_eq!((socket.uid, socket.inode), (1000, 4711));
        assert_eq!((socket.timer, socket.timer_ms), (Timer::Keepalive, 15_000));
        assert_eq!((socket.family, socket.cookie), (Family::Ipv4, None));
    }

    #[test]
    fn the_count_is_that_of_the_running_timer() {
        let with = |timer: &str| v4(&line("01").replace("02:0000", timer)).unwrap();
        assert_eq!(
            with("01:0000").retransmits,
            3,
            "retransmit: icsk_retransmits"
        );
        assert_eq!(with("02:0000").retransmits, 2, "keepalive: icsk_probes_out");
        assert_eq!(with("04:0000").retransmits, 2, "persist: icsk_probes_out");
        assert_eq!(with("00:0000").retransmits, 0);
        assert_eq!(with("03:0000").retransmits, 0);
        assert_eq!(with("00:0000").timer_ms, 0, "no timer, nothing is due");
        assert_eq!(with("07:0000").timer, Timer::Unknown(7));
    }

    #[test]
    fn addresses_are_numbers_of_the_machine_that_printed_them() {
        let rest = "0A 00000000:00000000 00:00000000 00000000 0 0 9";
        let word = "B80D0120000000000000000067452301";
        let little = format!("0: {word}:0050 {}:0000 {rest}", "0".repeat(32));
        let socket = parse_line_as(little.as_bytes(), Family::Ipv6, Endian::Little).unwrap();
        assert_eq!(socket.local_ip().to_string(), "2001:db8::123:4567");
        assert_eq!(socket.local.port, 80);

        let word = "20010DB8000000000000000001234567";
        let big = format!("0: {word}:0050 {}:0000 {rest}", "0".repeat(32));
        let socket = parse_line_as(big.as_bytes(), Family::Ipv6, Endian::Big).unwrap();
        assert_eq!(socket.local_ip().to_string(), "2001:db8::123:4567");
        assert_eq!(socket.local.port, 80, "ports are printed in host order");

        let big = format!("0: 7F000001:0050 00000000:0000 {rest}");
        let socket = parse_line_as(big.as_bytes(), Family::Ipv4, Endian::Big).unwrap();
        assert_eq!(socket.local, Endpoint::v4([127, 0, 0, 1], 80));
    }

    #[test]
    fn v4_mapped_stays_a_socket_of_ipv6() {
        let mapped = "0000000000000000FFFF00000700000A";
        let text = format!("0: {mapped}:0050 {mapped}:C000 01 0:0 00:0 0 0 0 9");
        let socket = parse_line_as(text.as_bytes(), Family::Ipv6, Endian::Little).unwrap();
        assert_eq!(socket.remote_ip().to_string(), "::ffff:10.0.0.7");
        assert_eq!(socket.remote.ip().to_string(), "10.0.0.7");
    }

    #[test]
    fn a_bad_line_is_counted_and_the_rest_read() {
        let good = line("08");
        let bad = [
            "garbage\n",
            "\n",
            &good.replace("0100007F", "0100007"),
            &good.replace("0100007F", "0100007F00"),
            &good.replace(":1F90", ":11F90"),
            &good.replace(" 08 ", " 108 "),
            &good.replace("1000 ", "-1 "),
            &good.replace("4711", "4294967296"),
            &good.replace("12:", "12"),
            &format!("{}\n", "x".repeat(5000)),
        ];
        for bad in bad {
            let text = format!("{HEADER}{good}{bad}{good}");
            let (sockets, coverage) = read(text.as_bytes(), &all());
            assert_eq!(sockets.len(), 2, "{bad}");
            assert_eq!(coverage.undecoded, 1, "{bad}");
        }
        let cut = format!("{HEADER}{good}{}", good.split(" 2 ffff").next().unwrap());
        let (sockets, coverage) = read(cut.as_bytes(), &all());
        assert_eq!((sockets.len(), coverage.undecoded), (1, 1), "cut off");
        let (sockets, coverage) = read(HEADER.as_bytes(), &all());
        assert_eq!(
            (sockets.len(), coverage.undecoded),
            (0, 0),
            "an empty table"
        );
    }

    #[test]
    fn udp_has_drops_in_its_last_column() {
        let head = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
        let udp = "  131: 0100007F:0035 00000000:0000 07 00000000:00000300 00:00000000 00000000   102        0 4711 2 0000000000000000 84\n";
        let text = format!("{head}{udp}{}", udp.replace(" 84", ""));
        let mut seen = Vec::new();
        let mut coverage = Coverage::default();
        let end = table(
            text.as_bytes(),
            Table::of(Protocol::Udp, Family::Ipv4),
            &Want::all(Protocol::Udp),
            &mut coverage,
            &mut |row| {
                if let Row::Inet { socket, attributes } = row {
                    assert_eq!(socket.state_name(), Some("UNCONNECTED"));
                    seen.push((socket.protocol, socket.recv_q, attributes.drops()));
                }
                ControlFlow::Continue(())
            },
        );
        assert!(end.unwrap().is_continue() && coverage.rows_complete());
        let udp = Protocol::Udp;
        assert_eq!(seen, [(udp, 768, Some(84)), (udp, 768, None)]);
    }

    #[test]
    fn unknown_states_are_rows_and_counted() {
        let text = format!("{HEADER}{}{}", line("0E"), line("03"));
        let (sockets, coverage) = read(text.as_bytes(), &all());
        assert_eq!(sockets[0].state, TcpState::Unknown(14));
        assert_eq!(sockets[1].state, TcpState::SynReceived);
        assert_eq!((coverage.unknown_states, coverage.undecoded), (1, 0));
    }

    #[test]
    fn only_what_is_wanted_is_pushed() {
        let text = format!("{HEADER}{}{}{}", line("01"), line("08"), line("0E"));
        let (sockets, coverage) = read(
            text.as_bytes(),
            &Want::states(StateSet::of(TcpState::CloseWait)),
        );
        assert_eq!(sockets.len(), 1);
        assert_eq!(sockets[0].state, TcpState::CloseWait);
        assert_eq!(coverage.unknown_states, 0);
        let no_v4 = Want {
            ipv4: false,
            ..all()
        };
        assert_eq!(read(text.as_bytes(), &no_v4).0, []);
    }

    #[test]
    fn the_sink_may_stop_early() {
        let text = format!("{HEADER}{}{}", line("01"), line("01"));
        let mut rows = 0;
        let mut sink = |_: Row<'_>| {
            rows += 1;
            ControlFlow::Break(())
        };
        let mut coverage = Coverage::default();
        let end = table(
            text.as_bytes(),
            Table::of(Protocol::Tcp, Family::Ipv4),
            &all(),
            &mut coverage,
            &mut sink,
        );
        assert!(end.unwrap().is_break());
        assert_eq!(rows, 1);
    }

    /// Addresses and ports, state, queues, uid, inode.
    type Made = (SocketAddr, SocketAddr, u8, u32, u32, u32, u32);

    fn made(v6: bool) -> impl Strategy<Value = Made> {
        let address = move || {
            (any::<[u8; 16]>(), any::<u16>()).prop_map(move |(bytes, port)| {
                let [a, b, c, d, ..] = bytes;
                let ip = if v6 {
                    IpAddr::from(bytes)
                } else {
                    IpAddr::from([a, b, c, d])
                };
                SocketAddr::new(ip, port)
            })
        };
        let numbers = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
        (address(), address(), 1u8..=12, numbers)
            .prop_map(|(l, r, state, (tx, rx, uid, inode))| (l, r, state, tx, rx, uid, inode))
    }

    fn printed(address: SocketAddr, endian: Endian) -> String {
        let bytes = match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let mut text = String::new();
        for word in bytes.as_chunks::<4>().0 {
            let number = match endian {
                Endian::Little => u32::from_le_bytes(*word),
                Endian::Big => u32::from_be_bytes(*word),
            };
            text += &format!("{number:08X}");
        }
        format!("{text}:{:04X}", address.port())
    }

    proptest! {
        #[test]
        fn agrees_with_the_procfs_crate(
            (v6, made) in any::<bool>().prop_flat_map(|v6| (Just(v6), made(v6))),
            big in any::<bool>(),
        ) {
            let endian = if big { Endian::Big } else { Endian::Little };
            let family = if v6 { Family::Ipv6 } else { Family::Ipv4 };
            let (local, remote, state, tx, rx, uid, inode) = made;
            let text = format!(
                "{:4}: {} {} {state:02X} {tx:08X}:{rx:08X} 01:{:08X} {:08X} {uid:5} {:8} {inode} 1 0 100 0 0 10 0\n",
                3, printed(local, endian), printed(remote, endian), 17, 4, 0,
            );
            let system = ExplicitSystemInfo {
                boot_time_secs: 0,
                ticks_per_second: 100,
                page_size: 4096,
                is_little_endian: !big,
            };
            let oracle = TcpNetEntries::from_buf_read(format!("{HEADER}{text}").as_bytes(), &system).unwrap();
            let oracle = &oracle.0[0];
            let socket = parse_line_as(text.as_bytes(), family, endian).unwrap();
            prop_assert_eq!(SocketAddr::new(socket.local_ip(), socket.local.port), oracle.local_address);
            prop_assert_eq!(SocketAddr::new(socket.remote_ip(), socket.remote.port), oracle.remote_address);
            prop_assert_eq!(oracle.local_address, local);
            prop_assert_eq!(socket.state.number(), oracle.state.to_u8());
            prop_assert_eq!(socket.recv_q, oracle.rx_queue);
            prop_assert_eq!(socket.send_q, oracle.tx_queue);
            prop_assert_eq!(socket.uid, oracle.uid);
            prop_assert_eq!(u64::from(socket.inode), oracle.inode);
            prop_assert_eq!((socket.timer_ms, socket.retransmits), (170, 4));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), v6 in any::<bool>()) {
            let family = if v6 { Family::Ipv6 } else { Family::Ipv4 };
            let _ = parse_line(&bytes, family);
            let (sockets, coverage) = read(&bytes, &all());
            let lines = bytes.split_inclusive(|byte| *byte == b'\n').count();
            prop_assert!(sockets.len() + coverage.undecoded as usize <= lines);
        }

        #[test]
        fn no_mangled_line_panics(at in 0usize..140, byte in any::<u8>()) {
            let mut text = line("01").into_bytes();
            let at = at % text.len();
            text[at] = byte;
            let (sockets, coverage) = read(&text, &all());
            prop_assert!(sockets.len() + coverage.undecoded as usize >= 1);
        }
    }
}
