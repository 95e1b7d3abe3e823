//! Both ends of a connection on one row.

use std::net::{Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;
use socket2::Socket;

use crate::answers::{Row, json};
use crate::harness::Test;
use crate::kernel::{self, set_sysctl, until_count};
use crate::owners::Heir;
use crate::world::{Family, World, connect, listen, local, tcp};

pub const TESTS: &[Test] = &[
    Test {
        name: "both_ends_are_one_row",
        run: both_ends_are_one_row,
    },
    Test {
        name: "close_wait_here_and_fin_wait_2_there",
        run: close_wait_here_and_fin_wait_2_there,
    },
    Test {
        name: "an_end_that_is_gone_is_said",
        run: an_end_that_is_gone_is_said,
    },
    Test {
        name: "unix_ends_are_one_row",
        run: unix_ends_are_one_row,
    },
];

/// A pair of `linger.pairs/1`, of TCP.
#[derive(Debug, Deserialize)]
struct Pair {
    a: Row,
    b: Option<Row>,
}

fn pairs(world: &World, arguments: &[&str]) -> Result<(Vec<Pair>, u64)> {
    let arguments = [&["list", "--pair", "--json"], arguments].concat();
    let output = world.linger(&arguments)?;
    let document = if arguments.contains(&"--netns") {
        serde_json::from_slice(&output.stdout)?
    } else {
        json(&arguments, &output)?
    };
    let is = document.get("schema") == Some(&"linger.pairs/1".into());
    world.expect(is, || format!("the schema is {:?}", document.get("schema")));
    let elsewhere = document.get("elsewhere").and_then(Value::as_u64);
    let pairs = document.get("pairs").cloned().context("no pairs")?;
    Ok((
        serde_json::from_value(pairs)?,
        elsewhere.context("no number of ends elsewhere")?,
    ))
}

/// A connection within near: the client's end, and the server's.
fn within(listener: &Socket, address: SocketAddr) -> Result<(Socket, Socket)> {
    let client = connect(address)?;
    let (server, _) = listener.accept()?;
    Ok((client, server))
}

fn both_ends_are_one_row(world: &mut World) -> Result<()> {
    let mut kept = Vec::new();
    let mut ports = Vec::new();
    for (family, port) in world.families().iter().zip([8080, 8081]) {
        let listener = listen(family.loopback(port), 5)?;
        // Below the server's port: who listens decides.
        let client = tcp(family.loopback(0))?;
        client.bind(&family.loopback(port - 1000).into())?;
        client.connect(&family.loopback(port).into())?;
        let (server, _) = listener.accept()?;
        ports.push((port - 1000, port));
        kept.extend([listener, client, server]);
    }
    let mut mapped = None;
    if world.families().contains(&Family::V6) {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8082));
        let listener = listen(any, 5)?;
        let (client, server) = within(&listener, Family::V4.loopback(8082))?;
        let port = local(&client)?.port();
        ports.push((port, 8082));
        mapped = Some(port);
        kept.extend([listener, client, server]);
    }
    // Its other end is in another namespace, which is not looked into.
    let far = world.dial(Family::V4, 443)?;

    let (found, elsewhere) = pairs(world, &[])?;
    let mut seen: Vec<_> = found
        .iter()
        .filter_map(|pair| Some((pair.a.local_port, pair.b.as_ref()?.local_port)))
        .collect();
    seen.sort_unstable_by_key(|(_, server)| *server);
    world.expect(seen == ports && found.len() == ports.len(), || {
        format!("clients first, servers second: {ports:?}, not {found:?}")
    });
    world.expect(elsewhere == 1, || format!("{elsewhere} instead of one"));
    let own = std::process::id();
    let held = found.iter().all(|pair| {
        let by_us = |row: &Row| {
            let mut owners = row.owners.iter().flatten();
            owners.any(|owner| owner.pid == own)
        };
        by_us(&pair.a) && pair.b.as_ref().is_some_and(by_us)
    });
    world.expect(held, || format!("both ends have their owners: {found:?}"));

    // A filter selects by either end, and so do -4 and -6.
    for (arguments, wanted) in [
        (&["sport", "=", ":7080"][..], 1),
        (&["dport", "=", ":7080"], 1),
        (&["sport", "=", ":8080"], 1),
        (&["sport", "=", ":9999"], 0),
        (&["state", "close-wait"], 0),
        (&["-4"], 1 + usize::from(mapped.is_some())),
        (&["-6"], ports.len() - 1),
        (&["--top", "1"], 1),
    ] {
        let (found, _) = pairs(world, arguments)?;
        world.expect(found.len() == wanted, || {
            format!("{arguments:?}: {wanted}, not {found:?}")
        });
    }
    if let Some(port) = mapped {
        let (found, _) = pairs(world, &["sport", "=", &port.to_string()])?;
        let families = found.iter().map(|pair| {
            let other = pair.b.as_ref().map(|row| row.family.clone());
            (pair.a.family.clone(), other.unwrap_or_default())
        });
        let families: Vec<_> = families.collect();
        world.expect(families == [("ipv4".to_owned(), "ipv6".to_owned())], || {
            format!("IPv4 on one side, v4-mapped on the other: {families:?}")
        });
    }
    // Looked for in every namespace that a process is in, that end is found.
    let mut resident = world.far.run(|_| {
        let mut sleep = Command::new("sleep");
        Ok(sleep
            .arg("60")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?)
    })?;
    let filter = format!(
        "dst 10.99.0.2:443 and sport = :{}",
        local(&far.near)?.port()
    );
    let everywhere = pairs(world, &["--netns", "all", &filter]);
    resident.kill()?;
    resident.wait()?;
    let (found, _) = everywhere?;
    let whole = |pair: &Pair| {
        let server = pair.b.as_ref().map(|b| (b.local_port, b.peer_port));
        server == Some((443, pair.a.local_port))
    };
    world.expect(found.len() == 1 && found.iter().all(whole), || {
        format!("both ends, in two namespaces: {found:?}")
    });
    let said = world.linger(&["list", "--pair"])?;
    let note = String::from_utf8_lossy(&said.stderr).into_owned();
    world.expect(note.contains("1 connection not shown"), || {
        format!("the note counts what is elsewhere: {note:?}")
    });
    drop((kept, far));
    Ok(())
}

fn close_wait_here_and_fin_wait_2_there(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.loopback(8080), 5)?;
    let (client, server) = within(&listener, Family::V4.loopback(8080))?;
    let other = within(&listener, Family::V4.loopback(8080))?;
    let heir = Heir::of(&[&client])?;
    drop(client);
    server.shutdown(Shutdown::Write)?;
    until_count(kernel::CLOSE_WAIT, 1)?;
    until_count(kernel::FIN_WAIT_2, 1)?;

    let (own, pid) = (std::process::id(), heir.pid());
    for filter in ["close-wait", "fin-wait-2"] {
        let (found, _) = pairs(world, &["state", filter])?;
        let right = |pair: &Pair| {
            let holders = |row: &Row| -> Vec<u32> {
                let owners = row.owners.iter().flatten();
                owners.map(|owner| owner.pid).collect()
            };
            let b = pair.b.as_ref();
            pair.a.state == "close-wait"
                && holders(&pair.a) == [pid]
                && b.is_some_and(|b| b.state == "fin-wait-2" && holders(b) == [own])
        };
        world.expect(found.len() == 1 && found.iter().all(right), || {
            format!("{filter}: {pid} does not close, {own} waits for it: {found:?}")
        });
    }
    let text = world.linger(&["list", "--pair", "process = sleep"])?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let rows: Vec<&str> = text.lines().skip(1).collect();
    let whole = |row: &&str| {
        row.starts_with("CLOSE-WAIT  FIN-WAIT-2  127.0.0.1:")
            && row.contains(&format!("sleep[{pid}]"))
            && row.contains(&format!("[{own}]"))
    };
    world.expect(rows.len() == 1 && rows.iter().all(whole), || {
        format!("one row has both: {text}")
    });
    drop((other, server, heir));
    Ok(())
}

fn an_end_that_is_gone_is_said(world: &mut World) -> Result<()> {
    set_sysctl("net/ipv4/tcp_fin_timeout", "1")?;
    let listener = listen(Family::V4.loopback(8080), 5)?;
    let (client, server) = within(&listener, Family::V4.loopback(8080))?;
    drop(server);
    until_count(kernel::CLOSE_WAIT, 1)?;
    until_count(kernel::FIN_WAIT_2, 0)?;
    // Near does not know that its peer is no more; whether there is one far away nobody can see here.
    let half_open = world.dial(Family::V4, 443)?;
    world.far.vanish(half_open.far)?;

    let (found, elsewhere) = pairs(world, &[])?;
    let alone = |pair: &Pair| pair.a.state == "close-wait" && pair.b.is_none();
    world.expect(found.len() == 1 && found.iter().all(alone), || {
        format!("CLOSE-WAIT, and nobody on the other side: {found:?}")
    });
    world.expect(elsewhere == 1, || format!("{elsewhere} instead of one"));
    let text = world.linger(&["list", "--pair", "-H", "-c", "state"])?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    world.expect(text == "CLOSE-WAIT  -\n", || format!("{text:?}"));

    // The kernel alone keeps TIME-WAIT, and the other end is rightly gone.
    let (first, second) = within(&listener, Family::V4.loopback(8080))?;
    let port = local(&first)?.port();
    drop(first);
    drop(second);
    until_count(kernel::TIME_WAIT, 1)?;
    let (found, _) = pairs(world, &["state", "time-wait"])?;
    let one = |pair: &Pair| pair.b.is_none() && pair.a.local_port == port;
    world.expect(found.len() == 1 && found.iter().all(one), || {
        format!("one end in TIME-WAIT: {found:?}")
    });
    drop((client, half_open.near));
    Ok(())
}

fn unix_ends_are_one_row(world: &mut World) -> Result<()> {
    let path = world.scratch.path().join("x");
    let listener = UnixListener::bind(&path)?;
    let client = UnixStream::connect(&path)?;
    let (server, _) = listener.accept()?;
    let waiting = UnixStream::connect(&path)?;
    let (left, right) = UnixStream::pair()?;
    let receiver = UnixDatagram::bind(world.scratch.path().join("d"))?;
    let sender = UnixDatagram::unbound()?;
    sender.connect(world.scratch.path().join("d"))?;

    let arguments = ["list", "-x", "--pair", "--json"];
    let document: Value = serde_json::from_slice(&world.linger(&arguments)?.stdout)?;
    let found = document.get("pairs").and_then(Value::as_array);
    let found = found.context("no pairs")?;
    let own = std::process::id();
    let end = |pair: &Value, end: &str| {
        let row = pair.get(end)?;
        let holder = row.pointer("/owners/0/pid").and_then(Value::as_u64);
        (holder == Some(own.into())).then(|| row.get("inode")?.as_u64())?
    };
    let mut pairs: Vec<_> = found
        .iter()
        .map(|pair| (end(pair, "a"), end(pair, "b")))
        .collect();
    pairs.sort_unstable();
    let inode = |socket: &dyn AsRawFd| -> Result<Option<u64>> {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd()))?;
        let digits = link
            .to_string_lossy()
            .replace(|c: char| !c.is_ascii_digit(), "");
        Ok(Some(digits.parse()?))
    };
    let (left_inode, right_inode) = (inode(&left)?, inode(&right)?);
    let mut wanted = vec![
        (inode(&client)?, inode(&server)?),
        (inode(&waiting)?, None),
        (left_inode.min(right_inode), left_inode.max(right_inode)),
        (inode(&sender)?, inode(&receiver)?),
    ];
    wanted.sort_unstable();
    // A socket pair has no end that dialled: the one that was seen first comes first.
    for pair in &mut pairs {
        if *pair == (right_inode, left_inode) || *pair == (left_inode, right_inode) {
            *pair = (left_inode.min(right_inode), left_inode.max(right_inode));
        }
    }
    pairs.sort_unstable();
    world.expect(pairs == wanted, || format!("{wanted:?}, not {found:?}"));
    drop((
        listener, client, server, waiting, left, right, receiver, sender,
    ));
    Ok(())
}
