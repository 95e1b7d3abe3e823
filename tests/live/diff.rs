//! Two captures of one namespace, and what was done to it between them.

use std::net::UdpSocket;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::answers::json;
use crate::harness::Test;
use crate::kernel::{self, set_sysctl, until_count};
use crate::world::{Connection, Family, World, listen, local};

pub const TESTS: &[Test] = &[
    Test {
        name: "a_diff_shows_what_was_done",
        run: a_diff_shows_what_was_done,
    },
    Test {
        name: "a_diff_of_nothing_is_quiet",
        run: a_diff_of_nothing_is_quiet,
    },
];

fn capture(world: &World, name: &str, more: &[&str]) -> Result<String> {
    let path = world.scratch.path().join(name);
    let file = path.to_str().context("an odd temporary directory")?;
    let recorded = world.linger(&[&["record", file], more].concat())?;
    world.expect(recorded.status.success(), || format!("{recorded:?}"));
    Ok(file.to_owned())
}

/// The local ports of a list of sockets, as they are where they were changed.
fn ports(document: &Value, list: &str) -> Vec<u64> {
    let rows = document.pointer(list).and_then(Value::as_array);
    let mut ports: Vec<u64> = rows
        .into_iter()
        .flatten()
        .map(|row| row.get("after").unwrap_or(row))
        .filter_map(|row| row.get("local_port")?.as_u64())
        .collect();
    ports.sort_unstable();
    ports
}

fn near(connections: &[Connection]) -> Result<Vec<u64>> {
    let port = |one: &Connection| Ok(u64::from(local(&one.near)?.port()));
    let mut ports: Vec<u64> = connections.iter().map(port).collect::<Result<_>>()?;
    ports.sort_unstable();
    Ok(ports)
}

fn a_diff_shows_what_was_done(world: &mut World) -> Result<()> {
    let address = |port| Family::V4.near(port);
    let stays = listen(address(8001), 16)?;
    let goes = listen(address(8002), 16)?;
    let again = listen(address(8003), 16)?;
    let datagrams = UdpSocket::bind(address(8004))?;
    let mut pool = Vec::new();
    for _ in 0..7 {
        pool.push(world.dial(Family::V4, 443)?);
    }
    until_count(kernel::ESTABLISHED, 7)?;
    set_sysctl("net/ipv4/tcp_fin_timeout", "60")?;
    let before = capture(world, "before.linger", &[])?;

    // Four leak, one is reset, two stay; one is new, and so are a listener and a UDP socket.
    for one in pool.iter().take(4) {
        world.far.close(one.far)?;
    }
    until_count(kernel::CLOSE_WAIT, 4)?;
    let stay = pool.split_off(5);
    let reset = pool.pop().context("no connection")?;
    let was_reset = near(std::slice::from_ref(&reset))?;
    reset.near.set_linger(Some(std::time::Duration::ZERO))?;
    drop(reset.near);
    stays.listen(64)?;
    drop((goes, again, datagrams));
    let again = listen(address(8003), 32)?;
    let new = listen(address(8005), 16)?;
    let datagrams = UdpSocket::bind(address(8006))?;
    let fresh = world.dial(Family::V4, 443)?;
    set_sysctl("net/ipv4/tcp_fin_timeout", "15")?;
    let after = capture(world, "after.linger", &[])?;

    let arguments = ["diff", &before, &after, "--json"];
    let document = json(&arguments, &world.linger(&arguments)?)?;
    let leaked = near(&pool)?;
    let wanted = [
        ("/listeners/new", vec![8005, 8006]),
        ("/listeners/gone", vec![8002, 8004]),
        ("/listeners/changed", vec![8001, 8003]),
        ("/sockets/new", near(std::slice::from_ref(&fresh))?),
        ("/sockets/gone", was_reset),
        ("/sockets/changed", leaked),
    ];
    for (list, wanted) in wanted {
        let found = ports(&document, list);
        world.expect(found == wanted, || {
            format!("{list}: {wanted:?}, not {found:?}")
        });
    }
    let at = |pointer: &str| document.pointer(pointer).cloned().unwrap_or_default();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    for (pointer, wanted) in [
        ("/after/boot_id", boot.trim().into()),
        ("/compared_by", Value::from("cookie")),
        ("/states/tcp/close-wait/before", 0.into()),
        ("/states/tcp/close-wait/after", 4.into()),
        ("/sockets/same", stay.len().into()),
        ("/settings/0/name", "net.ipv4.tcp_fin_timeout".into()),
        ("/settings/0/before", "60".into()),
        ("/settings/0/after", "15".into()),
        ("/settings/1", Value::Null),
        ("/listeners/changed/0/what/0", "reopened".into()),
        ("/listeners/changed/0/before/send_q", 16.into()),
        ("/listeners/changed/0/after/send_q", 32.into()),
        ("/listeners/changed/1/what/0", "limit".into()),
        ("/listeners/changed/1/after/send_q", 64.into()),
        ("/processes/0/after/pids/0", std::process::id().into()),
        ("/processes/0/after/states/close-wait", 4.into()),
    ] {
        let found = at(pointer);
        world.expect(found == wanted, || {
            format!("{pointer}: {wanted}, not {found}")
        });
    }
    let counters = document.get("counters").and_then(Value::as_array);
    let moved = counters
        .into_iter()
        .flatten()
        .find(|one| one.get("name").and_then(Value::as_str) == Some("Tcp.ActiveOpens"));
    let change = moved.and_then(|one| one.get("change")?.as_i64());
    world.expect(change == Some(1), || {
        format!("one connection was dialled: {moved:?}")
    });

    let said = world.linger(&["diff", &before, &after])?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    for part in [
        "2 new, 2 gone, 1 opened again, 1 changed",
        "limit 16 -> 64",
        "limit 16 -> 32",
        "net.ipv4.tcp_fin_timeout  60 -> 15",
        "ESTABLISHED -> CLOSE-WAIT",
        "4 in another state",
    ] {
        world.expect(text.contains(part), || format!("{part}: {text}"));
    }

    // Without cookies the same is found by addresses and inodes.
    let without = capture(world, "without.linger", &["--collector", "procfs"])?;
    let arguments = ["diff", &before, &without, "--json"];
    let document = json(&arguments, &world.linger(&arguments)?)?;
    let by = document.get("compared_by").and_then(Value::as_str);
    let found = (
        ports(&document, "/sockets/changed"),
        ports(&document, "/sockets/gone").len(),
    );
    let wanted = (near(&pool)?, 1);
    world.expect(by == Some("address") && found == wanted, || {
        format!("by {by:?}: {wanted:?}, not {found:?}")
    });
    drop((stays, again, new, datagrams, fresh, stay, pool));
    Ok(())
}

fn a_diff_of_nothing_is_quiet(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(8001), 16)?;
    let connection = world.dial(Family::V4, 443)?;
    until_count(kernel::ESTABLISHED, 1)?;
    let before = capture(world, "before.linger", &[])?;
    let after = capture(world, "after.linger", &[])?;
    let said = world.linger(&["diff", &before, &after])?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let quiet = text.contains("\nunchanged      everything: 2 sockets as before\n");
    // Neighbours are asked for of themselves, and the kernel counts that.
    let counted = text.contains("unchanged      findings, listeners, sockets per state, processes");
    world.expect(
        quiet || (counted && text.contains("counters       ")),
        || format!("nothing was done: {text}"),
    );
    let arguments = ["diff", &before, &after, "--json"];
    let document = json(&arguments, &world.linger(&arguments)?)?;
    for list in ["listeners", "sockets"] {
        for key in ["new", "gone", "changed"] {
            let found = ports(&document, &format!("/{list}/{key}"));
            world.expect(found.is_empty(), || format!("{list}, {key}: {found:?}"));
        }
    }
    drop((listener, connection));
    Ok(())
}
