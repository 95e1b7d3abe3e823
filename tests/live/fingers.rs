//! `linger list` as fingers type it: sockets of several protocols, names that others chose in every form of output, and
//! a terminal, which is `script` from util-linux.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::answers::{document, lines};
use crate::harness::{Skip, Test};
use crate::kernel::{TIME_WAIT, count, until_count};
use crate::world::{World, program};

pub const TESTS: &[Test] = &[
    Test {
        name: "listing_of_several_protocols",
        run: several_protocols,
    },
    Test {
        name: "listing_of_what_the_kernel_does_not_have",
        run: absent,
    },
    Test {
        name: "listing_of_unix_names",
        run: unix_names,
    },
    Test {
        name: "listing_folds_time_wait_on_a_terminal",
        run: folds,
    },
];

/// Standard output of a listing that must succeed.
fn listed(world: &World, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let output = world.linger(&words)?;
    ensure!(output.status.success(), "linger {line}: {output:?}");
    String::from_utf8(output.stdout).with_context(|| format!("linger {line} prints no UTF-8"))
}

fn objects(world: &World, line: &str) -> Result<Vec<Value>> {
    lines(listed(world, line)?.as_bytes())
}

fn several_protocols(world: &mut World) -> Result<()> {
    let tcp = TcpListener::bind("127.0.0.1:7301")?;
    let udp = UdpSocket::bind("127.0.0.1:7302")?;
    let sender = UdpSocket::bind("127.0.0.1:7303")?;
    sender.connect("127.0.0.1:7302")?;
    let client = TcpStream::connect("127.0.0.1:7301")?;
    let path = world.scratch.path().join("a long path, shown whole.sock");
    let unix = UnixListener::bind(&path)?;
    let datagram = UnixDatagram::bind(world.scratch.path().join("d"))?;
    let unnamed = UnixDatagram::unbound()?;

    for line in ["-tuln", "-tulpn", "-ln", "-lnp", "-tu state listening"] {
        let text = listed(world, line)?;
        let rows: BTreeSet<(&str, &str, &str)> = text
            .lines()
            .skip(1)
            .filter_map(|line| {
                let mut cells = line.split_whitespace();
                Some((cells.next()?, cells.next()?, cells.nth(2)?))
            })
            .collect();
        let wanted = BTreeSet::from([
            ("tcp", "LISTEN", "127.0.0.1:7301"),
            ("udp", "UNCONNECTED", "127.0.0.1:7302"),
        ]);
        world.expect(rows == wanted, || format!("{line}: {text}"));
    }
    for (line, rows) in [
        ("-u", 2),
        ("-ua", 2),
        ("-ul", 1),
        ("-u state established", 1),
        ("-u exclude unconnected", 1),
        ("-tl", 1),
        ("-xl", 2),
        ("-xl -A !u_dgr,!inet,!packet,!netlink,!vsock", 1),
        ("-A u_dgr", 2),
        ("-f unix -l", 2),
        ("-tu4 sport = :7302", 1),
        ("-tu6a", 0),
        ("-x sport = :7302", 0),
        ("-xa src /*.sock", 1),
        ("-xa local-name ~ *whole.sock", 1),
    ] {
        let found = listed(world, &format!("{line} -H"))?;
        world.expect(found.lines().count() == rows, || {
            format!("{line} has not {rows} rows: {found}")
        });
    }

    // At 80 columns too a name is whole, and a cell has no blanks.
    let cell = path.display().to_string().replace(' ', "\\x20");
    for line in ["-xlp", "-xl", "-tuxl", "-xle", "-xlm"] {
        let words: Vec<&str> = line.split(' ').collect();
        let output = world.command(&words).env("COLUMNS", "80").output()?;
        let text = String::from_utf8(output.stdout)?;
        world.expect(text.contains(&cell), || {
            format!("{line} cuts a name: {text}")
        });
    }
    let held = listed(world, "-xlp")?;
    world.expect(held.contains(&format!("[{}]", std::process::id())), || {
        held.clone()
    });

    let unix_rows = objects(world, "-xa --output jsonl")?;
    let of = |name: &str| {
        unix_rows.iter().find(|row| {
            row["local_name"]
                .as_str()
                .is_some_and(|own| own.ends_with(name))
        })
    };
    let listener = of(".sock").context("no listener")?;
    world.expect(
        listener["state"] == "listen"
            && listener["type"] == "stream"
            && listener["abstract"] == false
            && listener.get("local_port").is_none()
            && listener.get("timer").is_none(),
        || listener.to_string(),
    );
    let nameless = unix_rows
        .iter()
        .filter(|row| row.get("local_name").is_none());
    world.expect(nameless.count() >= 1, || format!("{unix_rows:?}"));

    // The same sockets in every form, and the values of CSV are those of JSON.
    let rows = objects(world, "-A tcp,udp,unix -a --output jsonl")?;
    let text = listed(world, "-A tcp,udp,unix -a --output csv")?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let heads = reader.headers()?.clone();
    let at = |name: &str| {
        heads
            .iter()
            .position(|head| head == name)
            .unwrap_or(usize::MAX)
    };
    let mut values = BTreeSet::new();
    for row in reader.records() {
        let row = row?;
        let get = |name: &str| row.get(at(name)).unwrap_or("?").to_owned();
        values.insert((
            get("cookie"),
            get("state"),
            get("local-name"),
            get("local-port"),
            get("peer-inode"),
        ));
    }
    let plain = |row: &Value, key: &str| match &row[key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let wanted: BTreeSet<_> = rows
        .iter()
        .map(|row| {
            let get = |key| plain(row, key);
            (
                get("cookie"),
                get("state"),
                get("local_name"),
                get("local_port"),
                get("peer_inode"),
            )
        })
        .collect();
    world.expect(
        values == wanted && values.len() == rows.len() && rows.len() >= 7,
        || format!("CSV {values:?}\nJSON {wanted:?}"),
    );
    drop((tcp, udp, sender, client, unix, datagram, unnamed));
    Ok(())
}

/// Names as an enemy chooses them: what steers a terminal, ends a line or a cell, is a formula, or no text at all.
const NAMES: [&[u8]; 6] = [
    b"\0=cmd|' /C calc'!A0",
    b"\0\x1b[31m\x07\n\"quoted\",\r\nnext",
    "\0\u{202e}gpj.exe\u{200b}".as_bytes(),
    b"\0\xff\xfe\x80",
    b"\0-rf @x +1",
    b"\0a\0b",
];

/// A protocol that was asked for and that this kernel has not is said to be none; one that came with others is not.
fn absent(world: &mut World) -> Result<()> {
    let protocols = std::fs::read_to_string("/proc/net/protocols")?;
    let has = protocols.lines().any(|line| line.starts_with("SCTP "));
    let said = |arguments: &[&str]| -> Result<(String, Value)> {
        let output = world.linger(arguments)?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((error, crate::answers::json(arguments, &output)?))
    };
    let (error, document) = said(&["list", "-S", "--json"])?;
    let words = "this kernel has no SCTP";
    let warned = document
        .get("warnings")
        .is_some_and(|said| said.to_string().contains(words));
    world.expect(error.contains(words) != has && warned != has, || {
        format!("-S, the kernel having it: {has}: {error} {document}")
    });
    let complete = document.get("complete") == Some(&Value::Bool(true));
    world.expect(complete || has, || {
        format!("what there is not is not missing: {document}")
    });
    let (error, _) = said(&["list", "-A", "all", "-a", "--json"])?;
    world.expect(!error.contains(words), || format!("-A all: {error}"));
    Ok(())
}

fn unix_names(world: &mut World) -> Result<()> {
    let mut sockets = Vec::new();
    for name in NAMES {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.bind(&SockAddr::unix(std::ffi::OsStr::from_bytes(name))?)?;
        socket.listen(1)?;
        sockets.push(socket);
    }
    let wanted: BTreeSet<String> = NAMES
        .iter()
        .map(|name| String::from_utf8_lossy(name).replace('\0', "@"))
        .collect();
    for line in [
        "-xl",
        "-xlp",
        "-xle",
        "-xlO",
        "-xl --output wide",
        "-txl",
        "-xl --group-by local",
    ] {
        let text = listed(world, line)?;
        let steers = |c: char| c.is_control() && c != '\n' || ['\u{202e}', '\u{200b}'].contains(&c);
        world.expect(!text.contains(steers), || format!("{line}: {text:?}"));
        for shown in [
            "@=cmd|'\\x20/C\\x20calc'!A0",
            "@\\x1b[31m\\x07\\x0a\"quoted\",\\x0d\\x0anext",
            "@\\u{202e}gpj.exe\\u{200b}",
            "@\\xff\\xfe\\x80",
            "@a@b",
        ] {
            world.expect(text.contains(shown), || {
                format!("{line} lacks {shown}: {text}")
            });
        }
    }
    let names = |rows: Vec<Value>| -> BTreeSet<String> {
        let names = rows.iter().filter_map(|row| row["local_name"].as_str());
        names.map(str::to_owned).collect()
    };
    let lines = names(objects(world, "-A u_seq -l --output jsonl")?);
    world.expect(lines == wanted, || format!("{lines:?}"));
    let document = document(listed(world, "-A u_seq -l --json")?.as_bytes())?;
    let rows = document
        .get("sockets")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    world.expect(rows.iter().all(|row| row["abstract"] == true), || {
        document.to_string()
    });
    world.expect(names(rows) == wanted, || document.to_string());

    let text = listed(
        world,
        "-A u_seq -l --output csv -c local-name,state --sort -inode",
    )?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let mut found = BTreeSet::new();
    for row in reader.records() {
        let row = row?;
        world.expect(row.get(1) == Some("listen") && row.len() == 2, || {
            format!("{row:?}")
        });
        found.insert(row.get(0).unwrap_or_default().to_owned());
    }
    world.expect(found == wanted, || format!("CSV {found:?}"));
    let groups = listed(world, "-xl --group-by local-name --output csv")?;
    let rows = csv::Reader::from_reader(groups.as_bytes())
        .records()
        .count();
    world.expect(rows == NAMES.len(), || groups.clone());
    let one = listed(world, "-H -xl local-name = @a@b")?;
    world.expect(one.lines().count() == 1, || one.clone());
    // CSV before eyes.
    let eyes = on_a_terminal(world, "-xl --output csv")?;
    world.expect(!eyes.contains(['\x1b', '\x07', '\u{202e}']), || {
        format!("{eyes:?}")
    });
    Ok(())
}

/// What a listing prints on a terminal.
fn on_a_terminal(world: &World, line: &str) -> Result<String> {
    let typed = format!("'{}' {line}", program());
    let template = world.command(&[]);
    let mut command = Command::new("script");
    command
        .args(["-qec", &typed, "/dev/null"])
        .stdin(std::process::Stdio::null());
    for (name, value) in template.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = match command.env_remove("COLUMNS").env("TERM", "xterm").output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Skip("there is no script(1)".to_owned()).into());
        }
        output => output?,
    };
    ensure!(output.status.success(), "{line}: {output:?}");
    Ok(String::from_utf8(output.stdout)?.replace("\r\n", "\n"))
}

/// Connections that this process closes first.
fn close(listener: &TcpListener, connections: usize) -> Result<()> {
    for _ in 0..connections {
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        drop(client);
        drop(server);
    }
    Ok(())
}

fn folds(world: &mut World) -> Result<()> {
    const MOST: usize = 1_000;
    let listener = TcpListener::bind("127.0.0.1:7310")?;
    let client = TcpStream::connect("127.0.0.1:7310")?;
    let accepted = listener.accept()?;
    close(&listener, MOST)?;
    until_count(TIME_WAIT, MOST)?;
    let shown = on_a_terminal(world, "-t")?;
    let rows = shown
        .lines()
        .filter(|line| line.starts_with("TIME-WAIT"))
        .count();
    world.expect(rows == count(TIME_WAIT)? && !shown.contains("+1"), || {
        format!(
            "{rows} rows are no flood: {}",
            shown.lines().last().unwrap_or_default()
        )
    });

    close(&listener, 1)?;
    until_count(TIME_WAIT, MOST + 1)?;
    let line = "+1,001 TIME-WAIT folded: -a shows them";
    for folded in ["-t", "-tn", "-tp", "-ti", "-t --output wide", "list"] {
        let shown = on_a_terminal(world, folded)?;
        let last = shown.lines().last();
        world.expect(last == Some(line) && shown.lines().count() <= 8, || {
            format!("{folded}: {shown}")
        });
        world.expect(shown.contains("ESTABLISHED"), || {
            format!("{folded}: {shown}")
        });
    }
    for whole in [
        "-ta",
        "-to",
        "-t state time-wait",
        "-t exclude listen",
        "-t --sort local",
        "-t --output jsonl",
        "-t --output csv",
        "-t timer = time-wait",
        "-t port = 7310",
        "-t dst 127.0.0.1",
    ] {
        let rows = on_a_terminal(world, whole)?.lines().count();
        world.expect(rows > MOST, || {
            format!("{whole} on a terminal: {rows} rows")
        });
    }
    let piped = listed(world, "-t")?;
    world.expect(piped.lines().count() == MOST + 4, || {
        format!("a pipe is folded: {} lines", piped.lines().count())
    });
    drop((client, accepted));
    Ok(())
}
