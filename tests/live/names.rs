//! `list -r`: names of addresses and services, and a resolver that does not answer.

use std::fs;
use std::net::UdpSocket;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::answers::json;
use crate::harness::{Skip, Test};
use crate::world::{Family, World, listen};

pub const TESTS: &[Test] = &[
    Test {
        name: "names_are_shown_to_those_who_ask_for_them",
        run: names_are_shown_to_those_who_ask_for_them,
    },
    Test {
        name: "a_dead_resolver_holds_up_no_listing_beyond_the_deadline",
        run: a_dead_resolver_holds_up_no_listing_beyond_the_deadline,
    },
];

/// What `-r` waits for names in all.
const LIMIT: Duration = Duration::from_secs(2);

/// Runs linger where these files stand in place of those of `/etc`.
fn linger_with(world: &World, files: &[(&str, &str)], arguments: &[&str]) -> Result<Output> {
    let mut script = String::new();
    for (name, content) in files {
        let own = world.scratch.path().join(name);
        fs::write(&own, content)?;
        ensure!(
            fs::exists(format!("/etc/{name}"))?,
            Skip(format!("there is no /etc/{name} to put another one over"))
        );
        script.push_str(&format!("mount --bind '{}' /etc/{name} && ", own.display()));
    }
    let linger = world.command(arguments);
    script.push_str("exec \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &script])
        .arg(linger.get_program());
    command.args(linger.get_args());
    for (name, value) in linger.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.output().context("cannot run unshare")
}

const FILES_ONLY: (&str, &str) = ("nsswitch.conf", "hosts: files\nservices: files\n");

fn names_are_shown_to_those_who_ask_for_them(world: &mut World) -> Result<()> {
    let mut kept = Vec::new();
    for family in world.families() {
        let listener = listen(family.near(443), 7)?;
        let served = world.serve(&listener)?;
        kept.push((listener, served));
    }
    let hosts = "10.99.0.1 near.example\n10.99.0.2 far.example other\nfd99::2 far6.example\n";
    let files = [FILES_ONLY, ("hosts", hosts)];
    let arguments = ["list", "-r", "--json"];
    let document = json(&arguments, &linger_with(world, &files, &arguments)?)?;
    let sockets = document
        .get("sockets")
        .and_then(Value::as_array)
        .context("no sockets")?;
    let said = |key: &str, wanted: &str| {
        sockets
            .iter()
            .any(|socket| socket.get(key) == Some(&wanted.into()))
    };
    let mut expected = vec![
        ("peer_name", "far.example"),
        ("local_name", "near.example"),
        ("local_service", "https"),
        ("peer_address", "10.99.0.2"),
    ];
    if world.families().contains(&Family::V6) {
        expected.push(("peer_name", "far6.example"));
    }
    for (key, wanted) in expected {
        world.expect(said(key, wanted), || {
            format!("no {key} {wanted}: {document}")
        });
    }
    world.expect(
        document.get("warnings") == Some(&Value::Array(Vec::new())),
        || format!("an address without a name is no gap: {document}"),
    );
    // fd99::1 has no name, and stays what it is.
    let table = linger_with(world, &files, &["list", "-r"])?;
    let table = String::from_utf8(table.stdout)?;
    for cell in ["near.example:https", "far.example:"] {
        world.expect(table.contains(cell), || format!("no {cell}:\n{table}"));
    }
    if world.families().contains(&Family::V6) {
        world.expect(table.contains("[fd99::1]:https"), || table.clone());
    }
    for unasked in [
        &["list"][..],
        &["list", "-n"],
        &["list", "-r", "-n"],
        &["list", "-rn"],
    ] {
        let plain = linger_with(world, &files, unasked)?;
        let plain = String::from_utf8(plain.stdout)?;
        world.expect(
            !plain.contains("example") && plain.contains("10.99.0.2:"),
            || format!("{unasked:?} should be numbers:\n{plain}"),
        );
    }
    let last = linger_with(world, &files, &["list", "-n", "-r"])?;
    let last = String::from_utf8(last.stdout)?;
    world.expect(last.contains("far.example"), || format!("-n -r:\n{last}"));
    drop(kept);
    Ok(())
}

fn a_dead_resolver_holds_up_no_listing_beyond_the_deadline(world: &mut World) -> Result<()> {
    // It hears every question and answers none.
    let silent = UdpSocket::bind("127.0.0.53:53").context("cannot bind the silent server")?;
    let listener = listen(Family::V4.near(443), 7)?;
    let served = world.serve(&listener)?;
    let files = [
        ("nsswitch.conf", "hosts: dns\nservices: files\n"),
        (
            "resolv.conf",
            "nameserver 127.0.0.53\noptions timeout:30 attempts:5\n",
        ),
    ];
    let arguments = ["list", "-r", "--json"];
    let began = Instant::now();
    let document = json(&arguments, &linger_with(world, &files, &arguments)?)?;
    let took = began.elapsed();
    // The server was asked, and the listing ended long before the resolver would have given up.
    world.expect(took >= LIMIT && took < LIMIT * 5, || {
        format!("it took {took:?}")
    });
    silent.set_nonblocking(true)?;
    world.expect(silent.recv(&mut [0; 512]).is_ok(), || {
        "nobody was asked".to_owned()
    });
    let sockets = document
        .get("sockets")
        .and_then(Value::as_array)
        .context("no sockets")?;
    let numeric = sockets
        .iter()
        .all(|socket| socket.get("peer_name").is_none() && socket.get("local_name").is_none());
    world.expect(numeric && !sockets.is_empty(), || format!("{document}"));
    let warnings = document
        .get("warnings")
        .map(Value::to_string)
        .unwrap_or_default();
    let note = "2 of 2 names were not resolved in 2 s";
    world.expect(warnings.contains(note), || format!("{document}"));
    let table = linger_with(world, &files, &["list", "-r"])?;
    let (out, err) = (
        String::from_utf8(table.stdout)?,
        String::from_utf8(table.stderr)?,
    );
    world.expect(
        out.contains("10.99.0.1:https") && err.contains(note),
        || format!("{out}{err}"),
    );
    drop((served, listener));
    Ok(())
}
