//! `linger check` on real sockets: each limit holds at its value and alerts one beyond it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use crate::harness::{Skip, Test};
use crate::kernel::{self, until, until_count};
use crate::world::{Family, World, limit_descriptors, listen, program};

pub const TESTS: &[Test] = &[
    Test {
        name: "check_states",
        run: states,
    },
    Test {
        name: "check_listeners",
        run: listeners,
    },
    Test {
        name: "check_processes",
        run: processes,
    },
    Test {
        name: "check_findings",
        run: findings,
    },
    Test {
        name: "check_without_privilege",
        run: without_privilege,
    },
];

const OK: i32 = 0;
const WARNING: i32 = 1;
const CRITICAL: i32 = 2;
const UNKNOWN: i32 = 3;

/// Runs a check with these words, and expects this exit code and these words on its line.
fn check(world: &World, line: &str, code: i32, what: &str) -> Result<String> {
    let words: Vec<&str> = ["check", "--no-history"]
        .into_iter()
        .chain(line.split_whitespace())
        .collect();
    Ok(judged(world, line, &world.linger(&words)?, code, what))
}

fn judged(world: &World, line: &str, output: &Output, code: i32, what: &str) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"].into_iter();
    let word = word.zip(0..).find(|(_, of)| *of == code);
    let head = format!("LINGER {} - ", word.map_or("", |(word, _)| word));
    world.expect(
        output.status.code() == Some(code) && out.starts_with(&head) && out.contains(what),
        || format!("check {line}: not {code} with '{what}', but {output:?}"),
    );
    out
}

/// The name of this process.
fn comm() -> Result<String> {
    Ok(fs::read_to_string("/proc/self/comm")?.trim_end().to_owned())
}

fn states(world: &mut World) -> Result<()> {
    let (web, db) = (
        listen(Family::V4.near(8080), 16)?,
        listen(Family::V4.near(5432), 16)?,
    );
    let mut kept = Vec::new();
    for listener in [&web, &web, &web, &web, &web, &db, &db] {
        let connection = world.serve(listener)?;
        world.far.close(connection.far)?;
        kept.push(connection.near);
    }
    until_count(kernel::CLOSE_WAIT, 7)?;

    let metric = "--metric tcp.CLOSE_WAIT";
    check(
        world,
        &format!("{metric} -w 7 -c 7"),
        OK,
        "'tcp.close-wait'=7;7;7;0",
    )?;
    check(
        world,
        &format!("{metric} -w 6 -c 7"),
        WARNING,
        "is 7, above 6",
    )?;
    check(
        world,
        &format!("{metric} -w 6 -c 6"),
        CRITICAL,
        "is 7, above 6",
    )?;
    check(world, &format!("{metric} -w 8:"), WARNING, "is 7, below 8")?;
    check(world, &format!("{metric} -w 7:"), OK, "tcp.close-wait 7")?;
    for (filter, n) in [
        ("sport = :8080", 5),
        ("sport = :5432", 2),
        ("sport = :5433", 0),
        ("src 10.99.0.1", 7),
        ("dst 10.99.0.1", 0),
        ("state established", 0),
    ] {
        let value = format!("'tcp.close-wait'={n};{n};;0");
        check(world, &format!("{metric} -w {n} {filter}"), OK, &value)?;
        if let Some(fewer) = i32::checked_sub(n, 1).filter(|fewer| *fewer >= 0) {
            check(
                world,
                &format!("{metric} -w {fewer} {filter}"),
                WARNING,
                "above",
            )?;
        }
    }
    let us = format!("process = {}", comm()?);
    check(
        world,
        &format!("{metric} -w 7: {us}"),
        OK,
        "tcp.close-wait 7",
    )?;
    check(
        world,
        &format!("{metric} -w 0 process = nobody-here"),
        OK,
        "tcp.close-wait 0",
    )?;
    check(
        world,
        "--metric tcp.listen -w 2:2 -c 1:",
        OK,
        "tcp.listen 2",
    )?;
    check(
        world,
        "--metric tcp.total.growth -w 5",
        UNKNOWN,
        "no history yet",
    )?;
    check(
        world,
        "--metric conntrack.ratio -w 0.9",
        UNKNOWN,
        "conntrack.ratio: cannot tell",
    )?;
    Ok(())
}

fn listeners(world: &mut World) -> Result<()> {
    let port = 8443;
    let listener = listen(Family::V4.near(port), 4)?;
    let queue = |wanted: u64| -> Result<()> {
        world.far.connect(Family::V4.near(port))?;
        until("the accept queue", || {
            let lines = kernel::table()?;
            let mut of = lines.iter().filter(|line| line.state == kernel::LISTEN);
            let line = of.find(|line| line.local_port == port);
            let line = line.context("no such listener")?;
            Ok((line.recv_q != wanted).then(|| format!("{line:?}")))
        })
    };
    for wanted in 1..=3 {
        queue(wanted)?;
    }
    let ratio = "--metric listener[8443].queue-ratio";
    check(
        world,
        &format!("{ratio} -w 0.75"),
        OK,
        "'listener[8443].queue-ratio'=0.75;0.75",
    )?;
    check(
        world,
        &format!("{ratio} -w 0.74 -c 0.9"),
        WARNING,
        "is 0.75, above 0.74",
    )?;
    queue(4)?;
    check(
        world,
        &format!("{ratio} -w 0.7 -c 0.9"),
        CRITICAL,
        "is 1, above 0.9",
    )?;
    check(world, "--metric listener[8443].queue -w 4", OK, "queue 4")?;
    check(
        world,
        "--metric listener[8443].queue -w 3",
        WARNING,
        "is 4, above 3",
    )?;
    check(
        world,
        "--metric listener[8444].queue -w 3",
        CRITICAL,
        "nobody listens on :8444",
    )?;
    let proc = "--collector procfs --metric listener[8443].queue";
    check(world, &format!("{proc} -w 3"), WARNING, "is 4, above 3")?;
    check(
        world,
        &format!("{proc}-ratio -w 3"),
        UNKNOWN,
        "/proc/net does not tell",
    )?;

    let expect = "--samples 1 --only listener-vanished --expect-listener";
    check(world, &format!("{expect} 8443"), OK, "1 check quiet")?;
    check(
        world,
        &format!("{expect} 8444"),
        CRITICAL,
        "nobody listens on :8444",
    )?;
    check(
        world,
        &format!("{expect} 8443=nginx.service"),
        WARNING,
        "not by nginx.service",
    )?;
    drop(listener);
    check(
        world,
        &format!("{ratio} -w 0.7"),
        CRITICAL,
        "nobody listens on :8443",
    )?;
    Ok(())
}

fn processes(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(8080), 16)?;
    let served: Vec<_> = (0..3)
        .map(|_| world.serve(&listener))
        .collect::<Result<_>>()?;
    let us = comm()?;
    let metric = |name: &str| format!("--metric process[{us}].{name}");
    check(
        world,
        &format!("{} -w 3", metric("established")),
        OK,
        "established 3",
    )?;
    check(
        world,
        &format!("{} -w 2", metric("established")),
        WARNING,
        "is 3, above 2",
    )?;
    check(world, &format!("{} -w 4:4", metric("total")), OK, "total 4")?;
    let none = "--metric process[nobody-here].established -c 1:";
    check(world, none, CRITICAL, "is 0, below 1")?;
    let filter = "sport = :8080 and state established";
    check(
        world,
        &format!("{} -w 3:3 {filter}", metric("total")),
        OK,
        "total 3",
    )?;

    limit_descriptors(200)?;
    let open = || -> Result<usize> { Ok(fs::read_dir("/proc/self/fd")?.count() - 1) };
    let mut files = Vec::new();
    // While linger runs, its two pipes are open here.
    while open()? + 2 < 150 {
        files.push(File::open("/dev/null")?);
    }
    let ratio = metric("fd-ratio");
    check(world, &format!("{ratio} -w 0.75"), OK, "fd-ratio 0.75")?;
    files.push(File::open("/dev/null")?);
    check(
        world,
        &format!("{ratio} -w 0.75"),
        WARNING,
        "is 0.755, above 0.75",
    )?;
    drop((served, files));
    Ok(())
}

fn findings(world: &mut World) -> Result<()> {
    // A pair of namespaces with nothing in them is well, and its second look costs a second.
    let quiet = check(world, "", OK, "checks quiet")?;
    world.expect(quiet.contains("'critical'=0;;;0 'warning'=0;;;0"), || {
        quiet.clone()
    });
    let listener = listen(Family::V4.near(8443), 4)?;
    for _ in 0..5 {
        world.far.connect(Family::V4.near(8443))?;
    }
    until_count(kernel::ESTABLISHED, 5)?;
    let ids = "--only listen-overflow,close-wait-leak";
    let found = check(world, &format!("{ids} -v"), WARNING, "- listen-overflow: ")?;
    world.expect(found.contains("\nWARNING listen-overflow: "), || {
        found.clone()
    });
    let silent = world.linger(&["check", "-q", "--no-history", "--only", "close-wait-leak"])?;
    world.expect(silent.status.success() && silent.stdout.is_empty(), || {
        format!("{silent:?}")
    });
    drop(listener);
    Ok(())
}

/// Nobody sees who holds the sockets of others: that pages nobody, except where just that was asked for.
fn without_privilege(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(8080), 5)?;
    let served = world.serve(&listener)?;
    let directory = world.scratch.path();
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory, everybody.clone())?;
    let copy = directory.join("linger");
    fs::copy(program(), &copy).context("cannot copy linger")?;
    fs::set_permissions(&copy, everybody)?;
    let us = format!("process[{}].total", comm()?);
    for (line, code, what) in [
        ("", OK, "checks quiet"),
        ("--metric tcp.established -w 1:1", OK, "tcp.established 1"),
        (
            &format!("--metric {us} -w 9"),
            UNKNOWN,
            "holder is not known",
        ),
        (
            "--metric tcp.established -w 9 process = java",
            UNKNOWN,
            "FILTER asks who holds",
        ),
        (
            "--metric tcp.established -w 9 sport = :8080",
            OK,
            "tcp.established 1",
        ),
        (
            "--only fd-limit-near",
            UNKNOWN,
            "fd-limit-near: cannot tell",
        ),
        // Its state directory cannot be made, which is no reason either.
        (
            "--metric tcp.listen -c 1: --state-dir /proc/nowhere",
            OK,
            "tcp.listen 1",
        ),
    ] {
        let output = Command::new(&copy)
            .arg("check")
            .args(line.split_whitespace())
            .env("HOME", directory)
            .env("XDG_CONFIG_HOME", directory)
            .env("XDG_STATE_HOME", directory.join("state"))
            .uid(65534)
            .gid(65534)
            .output();
        let output = match output {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                bail!(Skip(
                    "uid 65534 does not exist in this user namespace".to_owned()
                ))
            }
            output => output.context("cannot run linger as nobody")?,
        };
        judged(world, line, &output, code, what);
    }
    drop(served);
    Ok(())
}
