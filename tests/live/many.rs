//! Thousands of sockets, and sockets that come and go while they are listed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use libc::CLONE_FILES;
use serde_json::Value;
use socket2::Socket;

use crate::answers::{Row, json};
use crate::harness::Test;
use crate::kernel::{self, until_count};
use crate::sys;
use crate::world::{Family, PLENTY, World, connect, limit_descriptors, listen, local};

pub const TESTS: &[Test] = &[
    Test {
        name: "list_memory_is_constant",
        run: list_memory_is_constant,
    },
    Test {
        name: "closed_pipe",
        run: closed_pipe,
    },
    Test {
        name: "vanishing",
        run: vanishing,
    },
    Test {
        name: "status_never_waits",
        run: status_never_waits,
    },
];

/// Loopback connections, both ends of which are in the table.
struct Crowd {
    address: SocketAddr,
    clients: Vec<Socket>,
    accepted: mpsc::Receiver<Result<()>>,
}

impl Crowd {
    /// The servers' ends are held by a thread with a descriptor table of its own, so that each table holds half.
    fn new() -> Result<Self> {
        limit_descriptors(PLENTY)?;
        let listener = listen(Family::V4.loopback(0), 1024)?;
        let address = local(&listener)?;
        let (report, accepted) = mpsc::channel();
        thread::spawn(move || {
            let mut servers = Vec::new();
            // Before the first of them, whose copy would otherwise stay in both.
            let mut ready = sys::unshare(CLONE_FILES).map_err(anyhow::Error::from);
            loop {
                if report.send(ready).is_err() {
                    return;
                }
                // Until nobody has come for as long as the listener is patient.
                match listener.accept() {
                    Ok((server, _)) => servers.push(server),
                    Err(_) => return,
                }
                ready = Ok(());
            }
        });
        accepted.recv()??;
        Ok(Self {
            address,
            clients: Vec::new(),
            accepted,
        })
    }

    /// Adds connections until there are so many.
    fn grow(&mut self, wanted: usize) -> Result<()> {
        while self.clients.len() < wanted {
            self.clients.push(connect(self.address)?);
            self.accepted.recv().context("nobody accepts")??;
        }
        until_count(kernel::ESTABLISHED, 2 * wanted)
    }
}

/// Room for noise: what the allocator rounds up, what the kernel maps ahead. To keep the 16,000 rows that come on top
/// takes 1.4 MB.
const GROWTH: u64 = 512 * 1024;

fn list_memory_is_constant(world: &mut World) -> Result<()> {
    let commands = [
        ["list", "-tan"].as_slice(),
        &["list", "-tan", "--json"],
        &["list", "-tani"],
    ];
    // A peak that is no higher than that of a program that does nothing would not be the peak of a listing.
    let (idle, _) = peak(world, &["--version"])?;
    let mut crowd = Crowd::new()?;
    let mut peaks: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for connections in [2_000, 10_000] {
        crowd.grow(connections)?;
        for arguments in commands {
            let (bytes, lines) = peak(world, arguments)?;
            let rows = 2 * connections;
            ensure!(
                lines > rows,
                "linger {}: {lines} lines for {rows} sockets and a listener",
                arguments.join(" ")
            );
            ensure!(
                bytes > idle,
                "linger {}: {bytes} bytes, no more than the {idle} of --version",
                arguments.join(" ")
            );
            peaks.entry(arguments.join(" ")).or_default().push(bytes);
        }
    }
    for (command, peaks) in peaks {
        let (Some(few), Some(many)) = (peaks.first(), peaks.last()) else {
            continue;
        };
        println!("linger {command}: {few} bytes, then {many}; --version: {idle}");
        world.expect(many.saturating_sub(*few) < GROWTH, || {
            format!("linger {command}: {few} bytes for 4,001 sockets, {many} for 20,001")
        });
    }
    Ok(())
}

/// The least of a few peaks: what varies between them is not linger's doing. And how many lines it printed at least.
fn peak(world: &World, arguments: &[&str]) -> Result<(u64, usize)> {
    let first = peak_once(world, arguments)?;
    (0..2).try_fold(first, |(bytes, lines), _| {
        let next = peak_once(world, arguments)?;
        Ok((bytes.min(next.0), lines.min(next.1)))
    })
}

/// Runs linger: the most memory that it had resident, and how many lines it printed.
fn peak_once(world: &World, arguments: &[&str]) -> Result<(u64, usize)> {
    let file = world.scratch.path().join("listing");
    let mut command = world.command(arguments);
    command.stdout(File::create(&file)?);
    sys::fork(&mut command);
    let (status, bytes) = sys::wait_for_peak(command.spawn()?)?;
    ensure!(status.success(), "linger {}: {status}", arguments.join(" "));
    let lines = BufReader::new(File::open(&file)?).lines().count();
    Ok((bytes, lines))
}

/// `linger list | head -1`
fn closed_pipe(world: &mut World) -> Result<()> {
    let mut crowd = Crowd::new()?;
    crowd.grow(3_000)?;
    for arguments in [
        ["list", "-tan"].as_slice(),
        &["list", "-tani"],
        &["list", "-tan", "--json"],
        &["list", "-tan", "--output", "jsonl"],
    ] {
        let command = arguments.join(" ");
        let mut child = world
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let mut reader = BufReader::new(child.stdout.take().context("no pipe")?);
        reader.read_line(&mut line)?;
        drop(reader);
        let mut said = String::new();
        let mut stderr = child.stderr.take().context("no pipe")?;
        stderr.read_to_string(&mut said)?;
        let status = child.wait()?;
        world.expect(
            status.code() == Some(0) && said.is_empty() && line.ends_with('\n'),
            || format!("linger {command} | head -1: {status}, {line:?}, stderr {said:?}"),
        );
        // There was more to say than pipe and buffers hold, so the end of the pipe was met.
        let whole = world.linger(arguments)?.stdout.len();
        ensure!(whole > 256 * 1024, "linger {command}: {whole} bytes");
    }
    Ok(())
}

/// Sockets that live for less than a listing.
fn vanishing(world: &mut World) -> Result<()> {
    const LISTINGS: usize = 20;
    let stop = AtomicBool::new(false);
    let opened = AtomicUsize::new(0);
    let at_most = Duration::from_secs(60);
    let start = Instant::now();
    let mut interrupted = 0;
    thread::scope(|scope| {
        let mut busy = Vec::new();
        for port in 7001..=7004 {
            let (stop, opened) = (&stop, &opened);
            busy.push(scope.spawn(move || come_and_go(port, stop, opened)));
        }
        let outcome = (0..LISTINGS).try_for_each(|n| {
            ensure!(start.elapsed() < at_most, "{n} listings took too long");
            interrupted += usize::from(list_once(world, n % 3 + 1)?);
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        for thread in busy {
            thread
                .join()
                .map_err(|_| anyhow!("a thread of short connections panicked"))??;
        }
        outcome
    })?;
    let opened = opened.into_inner();
    println!(
        "{opened} connections, {:.0} a second, {LISTINGS} listings, {interrupted} interrupted, {:?}",
        opened as f64 / start.elapsed().as_secs_f64(),
        start.elapsed()
    );
    ensure!(opened > 50 * LISTINGS, "only {opened} connections");
    Ok(())
}

/// Opens and closes connections, eight at a time. One in sixteen stays in TIME-WAIT, the others leave nothing behind.
fn come_and_go(port: u16, stop: &AtomicBool, opened: &AtomicUsize) -> Result<()> {
    let address = Family::V4.loopback(port);
    let listener = listen(address, 64)?;
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut pairs = Vec::new();
        for _ in 0..8 {
            let client = connect(address)?;
            let (server, _) = listener.accept()?;
            pairs.push((client, server));
        }
        opened.fetch_add(pairs.len(), Ordering::Relaxed);
        for (client, server) in pairs {
            if n % 16 != 0 {
                client.set_linger(Some(Duration::ZERO))?;
            }
            drop(client);
            drop(server);
        }
    }
    Ok(())
}

/// Lists all sockets once, in so many slices at once; whether the kernel said that its table changed meanwhile.
fn list_once(world: &World, slices: usize) -> Result<bool> {
    let slices = slices.to_string();
    let arguments = ["list", "-tanpi", "--json", "--dump-threads", &slices];
    let document = json(&arguments, &world.linger(&arguments)?)?;
    let complete = document.get("complete").and_then(Value::as_bool);
    let warnings = document.get("warnings").and_then(Value::as_array);
    let warnings: Vec<&str> = warnings
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    world.expect(complete.is_some_and(|c| c == warnings.is_empty()), || {
        format!("complete is {complete:?}, warnings {warnings:?}")
    });
    let interrupted = warnings.iter().any(|w| w.contains("during the dump"));
    let sockets = document.get("sockets").cloned().context("no sockets")?;
    let rows: Vec<Row> = serde_json::from_value(sockets)?;
    let mut by_cookie: BTreeMap<&str, &Row> = BTreeMap::new();
    for row in &rows {
        let cookie = row.cookie.as_deref().context("a row without a cookie")?;
        if let Some(twin) = by_cookie.insert(cookie, row) {
            world.problem(format!("listed twice: {twin:?}, {row:?}"));
        }
    }
    // Those that stay are there whatever else goes on.
    let listeners = rows.iter().filter(|row| row.state == "listen").count();
    world.expect(listeners == 4, || format!("{listeners} of 4 listeners"));
    Ok(interrupted)
}

/// `status` looks once; `diagnose` looks again after a second.
fn status_never_waits(world: &mut World) -> Result<()> {
    let mut crowd = Crowd::new()?;
    crowd.grow(500)?;
    let time = |arguments: &[&str]| -> Result<Duration> {
        let start = Instant::now();
        let output = world.linger(arguments)?;
        ensure!(
            output.status.success(),
            "linger {}: {output:?}",
            arguments.join(" ")
        );
        Ok(start.elapsed())
    };
    // The best of a few, because tests run side by side.
    let mut status = Duration::MAX;
    for arguments in [["status", "--json"].as_slice(), &["status"], &[]]
        .iter()
        .cycle()
        .take(6)
    {
        status = status.min(time(arguments)?);
    }
    let diagnose = time(&["diagnose", "--json"])?;
    let once = time(&["diagnose", "--json", "--samples", "1"])?;
    println!("status {status:?}, diagnose {diagnose:?}, with one sample {once:?}");
    let second = Duration::from_secs(1);
    world.expect(status < second * 4 / 5, || {
        format!("status took {status:?}")
    });
    world.expect(diagnose >= second, || {
        format!("diagnose took {diagnose:?}: it did not look twice")
    });
    world.expect(once < diagnose, || {
        format!("one sample took {once:?}, two {diagnose:?}")
    });
    Ok(())
}
