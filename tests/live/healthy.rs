//! Healthy machines, on which nothing above info may be found, however strict the ages.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use socket2::Socket;

use crate::findings::{close_first, time_wait};
use crate::harness::Test;
use crate::kernel::{self, until_count};
use crate::sys;
use crate::world::{Connection, Family, Handle, World, connect, listen, serve_each};

pub const TESTS: &[Test] = &[
    Test {
        name: "healthy_idle",
        run: healthy_idle,
    },
    Test {
        name: "healthy_busy",
        run: healthy_busy,
    },
    Test {
        name: "half_close_legit",
        run: half_close_legit,
    },
    Test {
        name: "defer_accept",
        run: defer_accept,
    },
];

/// Two samples, and ages at which whatever stands still for a moment is old.
pub const STRICT: [&str; 48] = [
    "--samples",
    "3",
    "--interval",
    "1s",
    "--threshold",
    "close-wait-leak.age=1s",
    "--threshold",
    "fin-wait-2-stuck.age=1s",
    "--threshold",
    "accept-queue-stuck.age=1s",
    "--threshold",
    "syn-sent-blackhole.age=1s",
    "--threshold",
    "fin-wait-1-stuck.age=1s",
    "--threshold",
    "last-ack-stuck.age=1s",
    "--threshold",
    "closing-stuck.age=1s",
    "--threshold",
    "awaiting-reply.age=1s",
    "--threshold",
    "recv-q-stuck.age=1s",
    "--threshold",
    "recv-q-stuck.long=2s",
    "--threshold",
    "zero-window-peer.age=1s",
    "--threshold",
    "zero-window-peer.long=2s",
    "--threshold",
    "retransmit-stuck.age=1s",
    "--threshold",
    "retransmit-stuck.long=2s",
    "--threshold",
    "path-mtu-suspect.age=1s",
    "--threshold",
    "path-mtu-suspect.long=2s",
    "--threshold",
    "idle-no-keepalive.age=1s",
    "--threshold",
    "keepalive-slower-than-middlebox.middlebox-idle=1s",
    "--threshold",
    "syn-flood.age=1s",
    "--threshold",
    "reuseport-imbalance.age=1s",
    "--threshold",
    "connection-churn.window=5s",
    "--color",
    "never",
];

fn healthy_idle(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(8080), 128)?;
    let mut pool = Vec::new();
    for _ in 0..10 {
        pool.push(world.dial(Family::V4, 443)?);
    }
    for _ in 0..3 {
        pool.push(world.serve(&listener)?);
    }
    time_wait(5, || close_first(world, 443))?;
    thread::sleep(Duration::from_secs(2));
    world.all_calm("as it comes", &world.diagnose(&[]));
    world.all_calm("strictly", &world.diagnose(&STRICT));
    Ok(())
}

/// One request and its answer. The first byte says who closes first.
fn answer(socket: Socket) -> Result<()> {
    let mut socket = socket;
    let mut request = [0; 16];
    socket.read_exact(&mut request)?;
    socket.write_all(&request)?;
    if request.first() == Some(&b'c') {
        let end = socket.read(&mut request)?;
        ensure!(end == 0, "no more was to come");
        // CLOSE-WAIT for a moment, as in any server that has something to finish.
        thread::sleep(Duration::from_millis(30));
    }
    Ok(())
}

/// The client's part of it.
fn ask(address: SocketAddr, client_closes: bool) -> Result<()> {
    let mut socket = connect(address)?;
    let mut request = if client_closes {
        [b'c'; 16]
    } else {
        [b's'; 16]
    };
    socket.write_all(&request)?;
    socket.read_exact(&mut request)?;
    if !client_closes {
        let end = socket.read(&mut request)?;
        ensure!(end == 0, "no more was to come");
    }
    Ok(())
}

fn healthy_busy(world: &mut World) -> Result<()> {
    let (here, there) = (Family::V4.near(8080), Family::V4.far(443));
    serve_each(listen(here, 128)?, answer);
    world.far.run(move |_| {
        serve_each(listen(there, 128)?, answer);
        Ok(())
    })?;
    let mut pool = Vec::new();
    for _ in 0..10 {
        pool.push(world.dial(Family::V4, 444)?);
    }
    // About 60 connections a second each way.
    let pause = Duration::from_millis(15);
    world.far.run(move |_| {
        thread::spawn(move || {
            for n in 0.. {
                // Ends with the process; what fails shows in near's numbers.
                ask(here, n % 2 == 0).ok();
                thread::sleep(pause);
            }
        });
        Ok(())
    })?;
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                ask(there, n % 2 == 0)?;
                asked.fetch_add(1, Ordering::Relaxed);
                thread::sleep(pause);
            }
            anyhow::Ok(())
        });
        let start = Instant::now();
        thread::sleep(Duration::from_secs(1));
        world.all_calm("as it comes", &world.diagnose(&[]));
        world.all_calm("strictly", &world.diagnose(&STRICT));
        thread::sleep(Duration::from_secs(5).saturating_sub(start.elapsed()));
        stop.store(true, Ordering::Relaxed);
        let outcome = asking.join();
        outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("the asking thread panicked")))
    })?;
    let asked = asked.into_inner();
    ensure!(asked > 50, "it was not busy: {asked} connections");
    let closed_here_first = kernel::count(kernel::TIME_WAIT)?;
    ensure!(closed_here_first > 50, "{closed_here_first} in TIME-WAIT");
    Ok(())
}

/// Sends a little to each, ten times a second, until the test ends.
fn trickle(sockets: Vec<Socket>) {
    thread::spawn(move || {
        loop {
            for socket in &sockets {
                socket.send(&[b'x'; 100]).ok();
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
}

/// Reads whatever comes until the test ends.
fn drain(sockets: Vec<Socket>) {
    for mut socket in sockets {
        thread::spawn(move || std::io::copy(&mut socket, &mut std::io::sink()));
    }
}

/// Half of the connections are closed by us while the peer still sends, half by the peer while we still send.
fn half_close_legit(world: &mut World) -> Result<()> {
    let (mut we_finished, mut they_finished) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        let connection = world.dial(Family::V4, 443)?;
        connection.near.shutdown(Shutdown::Write)?;
        we_finished.push(connection);
        let connection = world.dial(Family::V4, 443)?;
        world.far.shut_write(connection.far)?;
        they_finished.push(connection);
    }
    let copies = |connections: &[Connection]| -> Result<Vec<Socket>> {
        let copies = connections.iter().map(|c| Ok(c.near.try_clone()?));
        copies.collect()
    };
    drain(copies(&we_finished)?);
    trickle(copies(&they_finished)?);
    let senders: Vec<_> = we_finished.iter().map(|c| c.far).collect();
    let readers: Vec<_> = they_finished.iter().map(|c| c.far).collect();
    world.far.run(move |far| {
        let copies = |handles: Vec<Handle>| -> Result<Vec<Socket>> {
            let copies = handles.into_iter().map(|h| Ok(far.get(h)?.try_clone()?));
            copies.collect()
        };
        trickle(copies(senders)?);
        drain(copies(readers)?);
        Ok(())
    })?;
    until_count(kernel::FIN_WAIT_2, 12)?;
    until_count(kernel::CLOSE_WAIT, 12)?;
    thread::sleep(Duration::from_secs(3));
    let diagnosis = world.diagnose(&STRICT);
    world.all_calm("half closed and in use", &diagnosis);
    for id in ["close-wait-leak", "fin-wait-2-stuck"] {
        world.quiet("half closed and in use", &diagnosis, id);
    }
    until_count(kernel::FIN_WAIT_2, 12)?;
    until_count(kernel::CLOSE_WAIT, 12)
}

/// The kernel keeps silent clients of such a listener in SYN-RECEIVED on purpose.
fn defer_accept(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(8080), 128)?;
    sys::set_option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 60)?;
    for _ in 0..12 {
        world.far.connect(Family::V4.near(8080))?;
    }
    until_count(kernel::SYN_RECEIVED, 12)?;
    thread::sleep(Duration::from_secs(4));
    world.all_calm("12 silent clients", &world.diagnose(&STRICT));
    until_count(kernel::SYN_RECEIVED, 12)
}
