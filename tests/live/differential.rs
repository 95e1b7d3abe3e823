//! The tables of linger beside those of ss, over sockets of every kind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::fchown;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use crate::harness::Test;
use crate::kernel::{self, until};
use crate::scene::scene;
use crate::ss::{Row, Table, rows, rows_differ};
use crate::sys;
use crate::world::{Family, World, ip, listen, local};

pub const TESTS: &[Test] = &[
    Test {
        name: "table_of_tcp_is_that_of_ss",
        run: table_of_tcp_is_that_of_ss,
    },
    Test {
        name: "tables_of_datagrams_are_those_of_ss",
        run: tables_of_datagrams_are_those_of_ss,
    },
    Test {
        name: "table_of_mptcp_is_that_of_ss",
        run: table_of_mptcp_is_that_of_ss,
    },
    Test {
        name: "table_of_unix_is_that_of_ss",
        run: table_of_unix_is_that_of_ss,
    },
    Test {
        name: "tables_of_packet_and_netlink_are_those_of_ss",
        run: tables_of_packet_and_netlink_are_those_of_ss,
    },
];

/// Nobody here.
const USER: u32 = 4321;

/// Makes the socket another user's, which only root may.
fn give_away(socket: &impl std::os::fd::AsFd) {
    // The comparison is made all the same where it is refused.
    fchown(socket, Some(USER), None).ok();
}

fn text(value: &Value, key: &str) -> Option<String> {
    match value.get(key)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// What ss tells of a socket too, in linger's document.
fn parse(table: Table, value: &Value) -> Result<Row> {
    let mut row = Row::default();
    let mut fact = |name, value: Option<String>| {
        if let Some(value) = value {
            row.facts.insert(name, value);
        }
    };
    let of = |key: &str| text(value, key);
    let or = |key: &str, otherwise: &str| Some(of(key).unwrap_or_else(|| otherwise.to_owned()));
    fact("recv-q", of("recv_q"));
    fact("send-q", of("send_q"));
    if table != Table::Netlink {
        fact("state", of("state"));
    }
    let interface = of("interface");
    match table {
        Table::Ports(_) | Table::Raw => {
            let on = interface.map_or_else(String::new, |name| format!("%{name}"));
            let address = of("local_address").context("no address")?;
            let port = of("local_port").or_else(|| of("ip_protocol"));
            fact("local", port.map(|port| format!("{address}{on} {port}")));
            let address = of("peer_address").context("no address")?;
            let port = of("peer_port").unwrap_or_else(|| "0".to_owned());
            fact("peer", Some(format!("{address} {port}")));
        }
        Table::Unix => {
            let kind = match value.get("type").and_then(Value::as_str) {
                Some("stream") => "u_str",
                Some("datagram") => "u_dgr",
                _ => "u_seq",
            };
            fact("kind", Some(kind.to_owned()));
            fact("local", or("local_name", "*"));
            fact("peer", or("peer_inode", "0"));
            fact("file", of("file_inode"));
            fact("pending", of("pending"));
        }
        Table::Packet => {
            let raw = of("type").is_some_and(|kind| kind == "raw");
            fact("kind", Some(if raw { "p_raw" } else { "p_dgr" }.to_owned()));
            let ethertype = match value.get("ethertype").and_then(Value::as_u64) {
                Some(3) => "*".to_owned(),
                other => format!("[{}]", other.context("no ethertype")?),
            };
            let on = interface.unwrap_or_else(|| "*".to_owned());
            fact("local", Some(format!("{ethertype}:{on}")));
            fact("running", of("running"));
            fact("fanout", of("fanout_id"));
        }
        Table::Netlink => {
            let family = of("netlink_family").context("no family")?;
            let port = |key: &str| of(key).map(|port| format!("{family} {port}"));
            fact("local", port("port_id"));
            fact("peer", port("peer_port_id").or(Some("-".to_owned())));
            // ss shows the first 32 groups.
            let joined = value
                .get("groups")
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            let groups = joined
                .filter_map(Value::as_u64)
                .filter(|group| (1..=32).contains(group))
                .fold(0u32, |groups, group| groups | 1 << (group - 1));
            fact("groups", Some(format!("0x{groups:08x}")));
        }
    }
    if !matches!(table, Table::Raw | Table::Netlink) {
        fact("inode", of("inode"));
    }
    if matches!(table, Table::Ports(_) | Table::Packet) {
        fact("uid", or("uid", "0"));
        fact("cookie", of("cookie"));
    }
    if matches!(table, Table::Ports(_)) {
        fact("mark", or("mark", "0"));
        let v6only = value.get("v6only").and_then(Value::as_bool);
        fact("v6only", v6only.map(|only| u8::from(only).to_string()));
    }
    if matches!(table, Table::Ports(_) | Table::Unix) {
        fact("shutdown", of("shutdown"));
    }
    row.timer = value.get("timer").and_then(|timer| {
        let name = match timer.get("name")?.as_str()? {
            "retransmit" => "on",
            "time-wait" => "timewait",
            other => other,
        };
        let (ms, fired) = (timer.get("expires_ms")?, timer.get("retransmits")?);
        Some(format!("({name},{ms}ms,{fired})"))
    });
    Ok(row)
}

/// The rows of linger, but for those that ss 6.1 knows nothing of.
fn ours(world: &World, table: Table) -> Result<Vec<Row>> {
    let arguments = ["list", "-aoe", table.option(), "--output", "jsonl"];
    let output = world.linger(&arguments)?;
    ensure!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    let rows = text
        .lines()
        .map(|line| parse(table, &serde_json::from_str(line)?));
    let rows: Vec<Row> = rows.collect::<Result<_>>()?;
    let known = rows
        .into_iter()
        .filter(|row| row.fact("state") != "bound-inactive");
    Ok(known.collect())
}

/// Reads linger, ss, and linger again, and notes where they differ. What moves meanwhile is looked at once more. Gives
/// what ss said.
fn same(world: &World, table: Table) -> Result<Vec<Row>> {
    let (mut last, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let mut before = ours(world, table)?;
        let mut theirs = rows(table)?;
        let mut after = ours(world, table)?;
        if table == Table::Netlink {
            for rows in [&mut before, &mut theirs, &mut after] {
                // The readers themselves, and what they have just asked.
                rows.retain(|row| !row.fact("local").starts_with("4 "));
            }
            // The kernel lists what has joined groups twice (`__netlink_diag_dump()` in net/netlink/diag.c).
            theirs.sort_by(|a, b| a.facts.cmp(&b.facts));
            theirs.dedup();
        }
        if table == Table::Ports("-t") {
            // Newer ones list ports that are only bound as this.
            theirs.retain(|row| row.fact("state") != "unconnected");
        }
        ensure!(!theirs.is_empty(), "ss {} lists nothing", table.option());
        last = rows_differ(&before, &theirs, &after);
        seen = theirs;
        if last.is_empty() {
            a_difference_is_seen(world, &before, &seen, &after);
            break;
        }
    }
    for difference in last {
        world.problem(format!("{}: {difference}", table.option()));
    }
    Ok(seen)
}

/// That the comparison compares: a row left out, twice there, or with another fact or timer is a difference.
fn a_difference_is_seen(world: &World, before: &[Row], theirs: &[Row], after: &[Row]) {
    let differ = |changed: &[Row], what: &str| {
        world.expect(!rows_differ(before, changed, after).is_empty(), || {
            format!("{what} is no difference")
        });
    };
    let Some((first, rest)) = theirs.split_first() else {
        return;
    };
    let instead = |row: Row| [rest, &[row]].concat();
    differ(rest, "a row that ss does not have");
    differ(
        &[theirs, std::slice::from_ref(first)].concat(),
        "a row that ss has twice",
    );
    for name in first.facts.keys() {
        let mut row = first.clone();
        row.facts.insert(name, "something else".to_owned());
        differ(&instead(row), name);
    }
    let mut row = first.clone();
    row.timer = Some("(on,99min,7)".to_owned());
    differ(&instead(row), "another timer");
    let without = |row: &Row| Row {
        timer: None,
        ..row.clone()
    };
    if theirs.iter().any(|row| row.timer.is_some()) {
        let rows: Vec<Row> = theirs.iter().map(without).collect();
        differ(&rows, "no timer");
    }
}

/// That some row is as wanted, so that the comparison compares it.
fn shown(world: &World, rows: &[Row], what: &str, is: impl Fn(&Row) -> bool) {
    world.expect(rows.iter().any(is), || {
        format!("ss shows no {what}: the test tests nothing")
    });
}

/// Sockets of TCP in each state that can be held, of both families and between them.
pub fn tcp_sockets(world: &World) -> Result<impl Sized> {
    let made = scene(world)?;
    let mut kept = Vec::new();
    for (at, family) in world.families().iter().enumerate() {
        let port = 8000 + 10 * u16::try_from(at)?;
        let unread = world.dial(*family, port)?;
        world
            .far
            .with(unread.far, |socket| Ok(socket.send(&[7; 9_000])?))?;
        unread.near.set_mark(77).ok();
        let due = TcpKeepalive::new().with_time(Duration::from_secs(7200));
        unread.near.set_tcp_keepalive(&due)?;
        let deaf = world.dial(*family, port + 1)?;
        world.far.deafen(deaf.far)?;
        deaf.near.send(&[7; 3_000])?;
        let crowded = listen(family.near(port + 2), 3)?;
        give_away(&crowded);
        world.far.connect(family.near(port + 2))?;
        // A mark that outlives the connection.
        let closed = world.dial(*family, port + 3)?;
        closed.near.set_mark(77).ok();
        drop(closed.near);
        world.far.close(closed.far)?;
        let to = local(&unread.near)?.port();
        until("data that nobody reads", || {
            let lines = kernel::table()?;
            let line = lines.iter().find(|line| line.local_port == to);
            let arrived = line.is_some_and(|line| line.recv_q == 9_000);
            Ok((!arrived).then(|| format!("{line:?}")))
        })?;
        kept.extend([unread.near, deaf.near, crowded]);
    }
    kernel::until_count(kernel::TIME_WAIT, 2 * world.families().len())?;
    Ok((made, kept))
}

fn table_of_tcp_is_that_of_ss(world: &mut World) -> Result<()> {
    let _kept = tcp_sockets(world)?;
    let theirs = same(world, Table::Ports("-t"))?;
    for state in [
        "listen",
        "established",
        "close-wait",
        "fin-wait-1",
        "fin-wait-2",
        "closing",
        "last-ack",
        "time-wait",
        "syn-sent",
        "syn-received",
    ] {
        for family in world.families() {
            let v6 = *family == Family::V6;
            shown(world, &theirs, state, |row| {
                row.fact("state") == state && row.fact("local").contains("::") == v6
            });
        }
    }
    for timer in ["(keepalive,", "(on,", "(persist,", "(timewait,"] {
        shown(world, &theirs, timer, |row| {
            row.timer
                .as_deref()
                .is_some_and(|own| own.starts_with(timer))
        });
    }
    shown(world, &theirs, "unread data", |row| {
        row.fact("recv-q") == "9000"
    });
    shown(world, &theirs, "unsent data", |row| {
        row.fact("send-q") == "3000"
    });
    shown(world, &theirs, "device", |row| {
        row.fact("local").contains('%')
    });
    if world.families().len() == 2 {
        shown(world, &theirs, "mapped address", |row| {
            row.fact("peer").starts_with("::ffff:10.99.")
        });
        shown(world, &theirs, "socket of both", |row| {
            row.fact("v6only") == "0"
        });
    }
    Ok(())
}

fn tables_of_datagrams_are_those_of_ss(world: &mut World) -> Result<()> {
    let mut kept = Vec::new();
    for number in [17, 136] {
        let open = |domain| Socket::new(domain, Type::DGRAM, Some(Protocol::from(number)));
        for family in world.families() {
            let address = family.loopback(0);
            let domain = Domain::for_address(address);
            let Ok(receiver) = open(domain) else {
                ensure!(number == 136, "no UDP");
                continue;
            };
            receiver.bind(&address.into())?;
            give_away(&receiver);
            let (sender, other) = (open(domain)?, open(domain)?);
            sender.connect(&receiver.local_addr()?)?;
            sender.send(&[7; 100])?;
            other.bind_device(Some(b"near0"))?;
            other.set_mark(77).ok();
            other.bind(&family.near(9100).into())?;
            kept.extend([receiver, sender, other]);
        }
        if world.families().len() == 2
            && let Ok(both) = open(Domain::IPV6)
        {
            both.set_only_v6(false)?;
            both.bind(&"[::]:9200".parse::<SocketAddr>()?.into())?;
            let mapped = open(Domain::IPV6)?;
            mapped.set_only_v6(false)?;
            mapped.connect(&"[::ffff:10.99.0.2]:9300".parse::<SocketAddr>()?.into())?;
            kept.extend([both, mapped]);
        }
    }
    for family in world.families() {
        let address = family.loopback(0);
        let number = if *family == Family::V4 { 1 } else { 58 };
        let open = || {
            let protocol = Some(Protocol::from(number));
            Socket::new(Domain::for_address(address), Type::RAW, protocol)
        };
        let (any, one) = (open()?, open()?);
        one.connect(&address.into())?;
        kept.extend([any, one]);
    }
    let theirs = same(world, Table::Ports("-u"))?;
    shown(world, &theirs, "unread data", |row| {
        row.fact("recv-q") != "0"
    });
    for state in ["established", "unconnected"] {
        shown(world, &theirs, state, |row| row.fact("state") == state);
        shown(world, &same(world, Table::Raw)?, state, |row| {
            row.fact("state") == state
        });
    }
    let theirs = proc_table("udplite")?;
    if theirs.is_empty() {
        // This kernel has no UDP-Lite.
        return Ok(());
    }
    // ss has no table of it.
    let keys: BTreeSet<&str> = theirs
        .iter()
        .flat_map(|row| row.facts.keys().copied())
        .collect();
    let mut ours = ours(world, Table::Ports("-Audplite"))?;
    for row in &mut ours {
        row.facts.retain(|name, _| keys.contains(name));
        // /proc tells of no device.
        if let Some(local) = row.facts.get_mut("local") {
            *local = local.replace("%near0", "");
        }
    }
    for difference in rows_differ(&ours, &theirs, &ours) {
        world.problem(format!("/proc and not ss: {difference}"));
    }
    Ok(())
}

/// What `/proc/net` tells of sockets with ports.
fn proc_table(name: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for file in [name.to_owned(), format!("{name}6")] {
        let Ok(text) = fs::read_to_string(format!("/proc/thread-self/net/{file}")) else {
            continue;
        };
        for line in text.lines().skip(1) {
            rows.push(proc_row(line).with_context(|| format!("not understood: {line}"))?);
        }
    }
    Ok(rows)
}

fn proc_row(line: &str) -> Option<Row> {
    // Words of 32 bits, as they lie in memory.
    let end = |word: &str| {
        let (address, port) = word.split_once(':')?;
        let bytes: Vec<u8> = (0..address.len() / 8)
            .filter_map(|at| u32::from_str_radix(address.get(8 * at..8 * at + 8)?, 16).ok())
            .flat_map(u32::to_ne_bytes)
            .collect();
        let address = match bytes.len() {
            4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string(),
            _ => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string(),
        };
        Some(format!("{address} {}", u16::from_str_radix(port, 16).ok()?))
    };
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (sent, received) = words.get(4)?.split_once(':')?;
    let decimal = |hex| Some(u32::from_str_radix(hex, 16).ok()?.to_string());
    let state = if *words.get(3)? == "01" {
        "established"
    } else {
        "unconnected"
    };
    let facts = BTreeMap::from([
        ("local", end(words.get(1)?)?),
        ("peer", end(words.get(2)?)?),
        ("state", state.to_owned()),
        ("send-q", decimal(sent)?),
        ("recv-q", decimal(received)?),
        ("uid", (*words.get(7)?).to_owned()),
        ("inode", (*words.get(9)?).to_owned()),
    ]);
    Some(Row { facts, timer: None })
}

fn table_of_mptcp_is_that_of_ss(world: &mut World) -> Result<()> {
    let open = |address| {
        let protocol = Some(Protocol::from(262));
        Socket::new(Domain::for_address(address), Type::STREAM, protocol)
    };
    let mut kept = Vec::new();
    for family in world.families() {
        let Ok(listener) = open(family.loopback(0)) else {
            // This kernel has none.
            return Ok(());
        };
        listener.bind(&family.loopback(0).into())?;
        listener.listen(5)?;
        let (client, waits) = (open(family.loopback(0))?, open(family.loopback(0))?);
        client.connect(&listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        client.send(b"hello")?;
        waits.connect(&listener.local_addr()?)?;
        kept.extend([listener, client, waits, server]);
    }
    let theirs = same(world, Table::Ports("-M"))?;
    shown(world, &theirs, "queue", |row| row.fact("recv-q") == "1");
    // Its subflows are of TCP.
    same(world, Table::Ports("-t"))?;
    drop(kept);
    Ok(())
}

fn table_of_unix_is_that_of_ss(world: &mut World) -> Result<()> {
    let path = |name: &str| world.scratch.path().join(name);
    let listener = UnixListener::bind(path("stream"))?;
    let client = UnixStream::connect(path("stream"))?;
    let (server, _) = listener.accept()?;
    std::io::Write::write_all(&mut &client, b"123")?;
    let waits = UnixStream::connect(path("stream"))?;
    let mailbox = UnixDatagram::bind(path("datagram"))?;
    let (sender, stranger) = (UnixDatagram::unbound()?, UnixDatagram::unbound()?);
    stranger.send_to(b"12345", path("datagram"))?;
    let lonely = UnixDatagram::bind(path("lonely"))?;
    sender.connect(path("datagram"))?;
    let sequence = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    sequence.bind(&SockAddr::unix("\0linger-seqpacket")?)?;
    sequence.listen(3)?;
    let dialled = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    dialled.connect(&SockAddr::unix("\0linger-seqpacket")?)?;
    let pair = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
    pair.0.send(b"12")?;
    pair.0.shutdown(std::net::Shutdown::Write)?;
    let new = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let kept: Vec<OwnedFd> = vec![
        listener.into(),
        client.into(),
        server.into(),
        waits.into(),
        mailbox.into(),
        sender.into(),
        stranger.into(),
        lonely.into(),
        sequence.into(),
        dialled.into(),
        pair.0.into(),
        pair.1.into(),
        new.into(),
    ];
    let theirs = same(world, Table::Unix)?;
    world.expect(theirs.len() == kept.len(), || format!("{theirs:?}"));
    for kind in ["u_str", "u_dgr", "u_seq"] {
        shown(world, &theirs, kind, |row| row.fact("kind") == kind);
    }
    shown(world, &theirs, "name without a file", |row| {
        row.fact("local") == "@linger-seqpacket"
    });
    shown(world, &theirs, "queue", |row| row.fact("recv-q") == "5");
    shown(world, &theirs, "pending", |row| row.fact("pending") == "1");
    shown(world, &theirs, "half", |row| {
        row.fact("shutdown") == "receive"
    });
    Ok(())
}

/// `struct sockaddr_nl`.
fn netlink_address(port: u32, groups: u32) -> Vec<u8> {
    let mut address = (libc::AF_NETLINK as u16).to_ne_bytes().to_vec();
    address.extend([0; 2]);
    address.extend(port.to_ne_bytes());
    address.extend(groups.to_ne_bytes());
    address
}

fn tables_of_packet_and_netlink_are_those_of_ss(world: &mut World) -> Result<()> {
    const SOL_PACKET: i32 = 263;
    const PACKET_FANOUT: i32 = 18;
    let all = i32::from(u16::to_be(3));
    let frames = Socket::new(Domain::PACKET, Type::RAW, None)?;
    // `struct sockaddr_ll`: all frames of `lo`, the first interface of every namespace.
    let mut address = (libc::AF_PACKET as u16).to_ne_bytes().to_vec();
    address.extend(3u16.to_be_bytes());
    address.extend(1u32.to_ne_bytes());
    address.resize(20, 0);
    sys::bind(&frames, &address)?;
    sys::set_option(&frames, SOL_PACKET, PACKET_FANOUT, 7 | 1 << 16)?;
    let any = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(all)))?;
    let idle = Socket::new(Domain::PACKET, Type::RAW, None)?;
    give_away(&idle);
    std::net::UdpSocket::bind("127.0.0.1:0")?.send_to(&[7; 100], "127.0.0.1:9")?;
    let theirs = same(world, Table::Packet)?;
    world.expect(theirs.len() == 3, || format!("{theirs:?}"));
    shown(world, &theirs, "queue", |row| row.fact("recv-q") != "0");
    shown(world, &theirs, "idle one", |row| {
        row.fact("running") == "false"
    });

    let open = || Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, None);
    let (told, high, speaks) = (open()?, open()?, open()?);
    // RTMGRP_LINK and RTMGRP_IPV4_IFADDR; a port id that has the sign bit.
    sys::bind(&told, &netlink_address(0x1234, 0x11))?;
    sys::bind(&high, &netlink_address(0xfedc_ba98, 0))?;
    sys::connect(&speaks, &netlink_address(0x1234, 0))?;
    ip(&["addr", "add", "127.0.0.77/8", "dev", "lo"])?;
    let theirs = same(world, Table::Netlink)?;
    shown(world, &theirs, "queue", |row| {
        row.fact("groups") == "0x00000011" && row.fact("recv-q") != "0"
    });
    shown(world, &theirs, "peer", |row| row.fact("peer") == "0 4660");
    drop((frames, any, idle, told, high, speaks));
    Ok(())
}
