//! Workloads as they are on healthy hosts: nothing above info may be found.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::Socket;

use crate::controls::{again_and_again, read_to_the_end};
use crate::harness::Test;
use crate::healthy::STRICT;
use crate::kernel::{self, until, until_count};
use crate::silence::keep_alive;
use crate::world::{Connection, Family, World, connect, listen, serve_each, tcp};

pub const TESTS: &[Test] = &[
    Test {
        name: "both_ends_on_loopback",
        run: both_ends_on_loopback,
    },
    Test {
        name: "pooled_close_waits",
        run: pooled_close_waits,
    },
    Test {
        name: "workers_without_a_job",
        run: workers_without_a_job,
    },
    Test {
        name: "proxied_subscriptions",
        run: proxied_subscriptions,
    },
    Test {
        name: "slow_readers",
        run: slow_readers,
    },
    Test {
        name: "restarted_upstream",
        run: restarted_upstream,
    },
    Test {
        name: "unread_farewells",
        run: unread_farewells,
    },
    Test {
        name: "dead_scrape_target",
        run: dead_scrape_target,
    },
    Test {
        name: "group_of_listeners_with_few_clients",
        run: group_of_listeners_with_few_clients,
    },
    Test {
        name: "reload",
        run: reload,
    },
    Test {
        name: "idle_clients_and_long_polls",
        run: idle_clients_and_long_polls,
    },
    Test {
        name: "bulk_transfer",
        run: bulk_transfer,
    },
    Test {
        name: "one_client_that_is_gone",
        run: one_client_that_is_gone,
    },
    Test {
        name: "short_lived_listeners",
        run: short_lived_listeners,
    },
    Test {
        name: "log_daemon",
        run: log_daemon,
    },
];

/// As it comes, through `/proc`, and with ages at which whatever stands still for a moment is old.
fn stays_calm(world: &World, when: &str) {
    world.all_calm(when, &world.diagnose(&[]));
    let text = world.diagnose(&["--collector", "procfs"]);
    world.all_calm(&format!("{when}, /proc"), &text);
    world.all_calm(&format!("{when}, strictly"), &world.diagnose(&STRICT));
}

/// Answers with what it was sent until the peer closes.
fn echo(mut socket: Socket) -> Result<()> {
    let mut block = [0; 256];
    loop {
        let n = socket.read(&mut block)?;
        let got = block.get(..n).unwrap_or_default();
        if got.is_empty() {
            return Ok(());
        }
        socket.write_all(got)?;
    }
}

/// One request on a connection of its own, which this end closes first.
fn ask(address: SocketAddr) -> Result<()> {
    let mut socket = connect(address)?;
    socket.write_all(b"ask")?;
    Ok(socket.read_exact(&mut [0; 3])?)
}

/// Asks on each connection in turn until the test ends.
fn keep_asking(sockets: Vec<Socket>) {
    thread::spawn(move || {
        loop {
            for mut socket in &sockets {
                let asked = socket.write_all(b"ask");
                asked.and_then(|()| socket.read_exact(&mut [0; 3])).ok();
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
}

fn pool(world: &World, port: u16, count: usize) -> Result<Vec<Connection>> {
    let dialled = (0..count).map(|_| world.dial(Family::V4, port));
    dialled.collect()
}

/// Each connection has both its ends in the table: a busy pool, one at rest, short ones, and half-closed ones in use.
fn both_ends_on_loopback(world: &mut World) -> Result<()> {
    let address = Family::V4.loopback(8080);
    serve_each(listen(address, 128)?, echo);
    let dial = |n: usize| (0..n).map(|_| connect(address)).collect::<Result<Vec<_>>>();
    keep_asking(dial(12)?);
    let rest = dial(12)?;
    thread::spawn(move || {
        loop {
            ask(address).ok();
            thread::sleep(Duration::from_millis(10));
        }
    });
    let streamed = listen(Family::V4.loopback(8081), 16)?;
    let mut streams = Vec::new();
    for _ in 0..12 {
        let client = connect(Family::V4.loopback(8081))?;
        let (server, _) = streamed.accept()?;
        client.shutdown(Shutdown::Write)?;
        thread::spawn(move || read_to_the_end(client));
        streams.push(server);
    }
    thread::spawn(move || {
        loop {
            for mut server in &streams {
                server.write_all(b"more").ok();
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
    until_count(kernel::CLOSE_WAIT, 12)?;
    until("TIME-WAIT", || {
        let waiting = kernel::count(kernel::TIME_WAIT)?;
        Ok((waiting < 20).then(|| format!("{waiting} in TIME-WAIT")))
    })?;
    stays_calm(world, "both ends on loopback");
    drop(rest);
    Ok(())
}

/// The server was restarted: all that a pool had at rest was closed at once, and nobody has wanted one since. Half of
/// them ask for keepalive, as Go does.
fn pooled_close_waits(world: &mut World) -> Result<()> {
    let at_rest = pool(world, 5432, 20)?;
    for connection in at_rest.iter().take(10) {
        keep_alive(&connection.near, 15)?;
    }
    for connection in &at_rest {
        world.far.close(connection.far)?;
    }
    until_count(kernel::CLOSE_WAIT, 20)?;
    thread::sleep(Duration::from_millis(1200));
    stays_calm(world, "20 pooled CLOSE-WAITs");
    until_count(kernel::CLOSE_WAIT, 20)
}

/// Blocking pops: a burst of jobs was done, each worker has asked for the next one, and none comes.
fn workers_without_a_job(world: &mut World) -> Result<()> {
    let workers = pool(world, 6379, 20)?;
    for worker in &workers {
        let mut near = &worker.near;
        near.write_all(b"next?")?;
        world.far.with(worker.far, |mut far| {
            far.read_exact(&mut [0; 5])?;
            Ok(far.write_all(b"job")?)
        })?;
        near.read_exact(&mut [0; 3])?;
    }
    // The jobs take a while, so that this is a new question.
    thread::sleep(Duration::from_millis(300));
    for mut near in workers.iter().map(|worker| &worker.near) {
        near.write_all(b"next?")?;
    }
    thread::sleep(Duration::from_millis(1500));
    stays_calm(world, "20 workers without a job");
    Ok(())
}

/// Clients have subscribed through a proxy here, all at once after a restart. Nothing has happened since, so they wait
/// for it, and it for the server.
fn proxied_subscriptions(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(8080), 64)?;
    let (mut clients, upstream) = (Vec::new(), pool(world, 9000, 20)?);
    for _ in 0..20 {
        clients.push(world.serve(&listener)?);
    }
    for connection in &upstream {
        let mut near = &connection.near;
        near.write_all(b"upgrade")?;
        world.far.with(connection.far, |mut far| {
            far.read_exact(&mut [0; 7])?;
            Ok(far.write_all(b"101")?)
        })?;
        near.read_exact(&mut [0; 3])?;
    }
    thread::sleep(Duration::from_millis(300));
    for (client, connection) in clients.iter().zip(&upstream) {
        let mut near = &client.near;
        world
            .far
            .with(client.far, |mut far| Ok(far.write_all(b"subscribe")?))?;
        near.read_exact(&mut [0; 9])?;
        (&connection.near).write_all(b"subscribe")?;
    }
    thread::sleep(Duration::from_millis(1500));
    stays_calm(world, "20 subscriptions through a proxy");
    Ok(())
}

/// Programs here take a kilobyte a second of what fills their windows: a load into a database, row by row.
fn slow_readers(world: &mut World) -> Result<()> {
    let loads = pool(world, 9000, 8)?;
    for load in &loads {
        let mut near = load.near.try_clone()?;
        thread::spawn(move || {
            let mut row = [0; 1024];
            while near.read(&mut row).is_ok_and(|n| n > 0) {
                thread::sleep(Duration::from_millis(500));
            }
        });
        let far = load.far;
        world.far.run(move |side| {
            let mut socket = side.get(far)?.try_clone()?;
            thread::spawn(move || while socket.write_all(&[b'x'; 16_384]).is_ok() {});
            Ok(())
        })?;
    }
    until("full queues", || {
        let lines = kernel::table()?;
        let full = lines.iter().filter(|line| line.recv_q > 60_000).count();
        Ok((full < 8).then(|| format!("{full} are full")))
    })?;
    thread::sleep(Duration::from_millis(1500));
    let short = [
        "--samples",
        "1",
        "--threshold",
        "recv-q-stuck.age=500ms",
        "--threshold",
        "recv-q-stuck.long=1s",
    ];
    world.all_calm("8 slow readers, one look", &world.diagnose(&short));
    stays_calm(world, "8 slow readers");
    Ok(())
}

/// A server that was killed resets all that it had: once, and while somebody looks.
fn restarted_upstream(world: &mut World) -> Result<()> {
    let at_rest = pool(world, 443, 40)?;
    let far = at_rest.iter().map(|c| c.far).collect::<Vec<_>>();
    world.far.run(move |side| {
        let copies = far.into_iter().map(|handle| {
            let socket = side.get(handle)?.try_clone()?;
            socket.set_linger(Some(Duration::ZERO))?;
            Ok(socket)
        });
        let copies = copies.collect::<Result<Vec<_>>>()?;
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(400));
            drop(copies);
        });
        Ok(())
    })?;
    // With the copies gone the last descriptors are closed.
    for connection in &at_rest {
        world.far.close(connection.far)?;
    }
    world.all_calm("while it restarts", &world.diagnose(&[]));
    until_count(kernel::ESTABLISHED, 0)?;
    ensure!(kernel::count(kernel::CLOSE_WAIT)? == 0, "they were reset");
    stays_calm(world, "40 pooled connections were reset");
    Ok(())
}

/// TLS: the server says its farewell, and the client closes without reading it.
fn unread_farewells(world: &mut World) -> Result<()> {
    let there = Family::V4.far(443);
    world.far.run(move |_| {
        serve_each(listen(there, 128)?, |mut socket| {
            let mut request = [0; 3];
            socket.read_exact(&mut request)?;
            socket.write_all(b"answer")?;
            Ok(socket.shutdown(Shutdown::Write)?)
        });
        Ok(())
    })?;
    thread::spawn(move || {
        loop {
            let half_read = connect(there).and_then(|mut socket| {
                socket.write_all(b"ask")?;
                Ok(socket.read_exact(&mut [0; 3])?)
            });
            half_read.ok();
            thread::sleep(Duration::from_millis(10));
        }
    });
    thread::sleep(Duration::from_millis(500));
    stays_calm(world, "unread farewells");
    Ok(())
}

/// Once a second something is asked that does not run, among much that does.
fn dead_scrape_target(world: &mut World) -> Result<()> {
    let (here, there) = (Family::V4.near(8080), Family::V4.far(443));
    serve_each(listen(here, 128)?, echo);
    world.far.run(move |_| {
        serve_each(listen(there, 128)?, echo);
        Ok(())
    })?;
    again_and_again(world, Duration::from_millis(30), move |_| ask(here))?;
    for (address, pause) in [(there, 30), (Family::V4.far(9100), 1000)] {
        thread::spawn(move || {
            loop {
                ask(address).ok();
                thread::sleep(Duration::from_millis(pause));
            }
        });
    }
    thread::sleep(Duration::from_millis(500));
    stays_calm(world, "a dead scrape target");
    Ok(())
}

/// One more listener on the port.
fn sibling(address: SocketAddr) -> Result<Socket> {
    let socket = tcp(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket)
}

/// Four listeners share a port and five clients, of whom one listener may have all.
fn group_of_listeners_with_few_clients(world: &mut World) -> Result<()> {
    let address = Family::V4.near(8080);
    for _ in 0..4 {
        serve_each(sibling(address)?, echo);
    }
    world.far.run(move |_| {
        let clients = (0..5).map(|_| connect(address));
        keep_asking(clients.collect::<Result<Vec<_>>>()?);
        Ok(())
    })?;
    again_and_again(world, Duration::from_millis(20), move |_| ask(address))?;
    thread::sleep(Duration::from_millis(500));
    stays_calm(world, "4 listeners, few clients");
    Ok(())
}

/// The old workers of a server have closed their listener and serve out the clients they have; new ones take the rest.
fn reload(world: &mut World) -> Result<()> {
    let address = Family::V4.near(8080);
    let old = sibling(address)?;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(world.serve(&old)?);
    }
    for client in &clients {
        let near = client.near.try_clone()?;
        thread::spawn(move || echo(near));
    }
    serve_each(sibling(address)?, echo);
    drop(old);
    let handles: Vec<_> = clients.iter().map(|client| client.far).collect();
    let (idle, busy) = handles.split_at(20);
    let busy = busy.to_vec();
    world.far.run(move |side| {
        let copies = busy.iter().map(|busy| Ok(side.get(*busy)?.try_clone()?));
        keep_asking(copies.collect::<Result<Vec<_>>>()?);
        Ok(())
    })?;
    again_and_again(world, Duration::from_millis(20), move |_| ask(address))?;
    world.all_calm("right after the reload", &world.diagnose(&[]));
    for client in idle {
        world.far.close(*client)?;
    }
    stays_calm(world, "old workers serve out their clients");
    Ok(())
}

/// 300 clients that have asked and wait for events, and long polls of our own.
fn idle_clients_and_long_polls(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(8080), 512)?;
    let mut clients = Vec::new();
    for _ in 0..300 {
        clients.push(world.serve(&listener)?);
    }
    let handles: Vec<_> = clients.iter().map(|client| client.far).collect();
    world.far.run(move |side| {
        for handle in handles {
            side.get(handle)?.send(b"GET /events")?;
        }
        Ok(())
    })?;
    for (client, n) in clients.iter().zip(0..) {
        let mut near = &client.near;
        near.read_exact(&mut [0; 11])?;
        // Half of them have had their first event.
        if n % 2 == 0 {
            near.write_all(b"event")?;
        }
    }
    let polls = pool(world, 8500, 12)?;
    for mut poll in polls.iter().map(|poll| &poll.near) {
        poll.write_all(b"GET /poll")?;
    }
    thread::sleep(Duration::from_millis(1500));
    stays_calm(world, "300 clients wait for events");
    Ok(())
}

/// As fast as it goes, both ways, and on loopback.
fn bulk_transfer(world: &mut World) -> Result<()> {
    let send = |address: SocketAddr| -> Result<()> {
        for _ in 0..2 {
            let mut socket = connect(address)?;
            thread::spawn(move || while socket.write_all(&[b'x'; 65_536]).is_ok() {});
        }
        Ok(())
    };
    let sink = |mut socket: Socket| {
        let mut block = vec![0; 65_536];
        while socket.read(&mut block)? > 0 {}
        Ok(())
    };
    let (here, there, loopback) = (
        Family::V4.near(9000),
        Family::V4.far(9001),
        Family::V4.loopback(9002),
    );
    serve_each(listen(here, 16)?, sink);
    serve_each(listen(loopback, 16)?, sink);
    world.far.run(move |_| {
        serve_each(listen(there, 16)?, sink);
        send(here)
    })?;
    send(there)?;
    send(loopback)?;
    thread::sleep(Duration::from_millis(500));
    stays_calm(world, "bulk transfer");
    Ok(())
}

/// A small server at night: one phone or crawler is all that it has, and is gone. Some of its connections are closed
/// here meanwhile, some kept.
fn one_client_that_is_gone(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(8080), 64)?;
    let mut clients = Vec::new();
    for _ in 0..16 {
        let client = world.serve(&listener)?;
        keep_alive(&client.near, 1)?;
        world.far.deafen(client.far)?;
        clients.push(client);
    }
    for client in clients.drain(..8) {
        drop(client.near);
    }
    until_count(kernel::FIN_WAIT_1, 8)?;
    crate::silence::until_probed(world, 8)?;
    stays_calm(world, "one client is gone");
    until_count(kernel::FIN_WAIT_1, 8)
}

/// Passive FTP and test runs listen on ports below the ephemeral range for a few seconds.
fn short_lived_listeners(world: &mut World) -> Result<()> {
    let _ftp = listen(Family::V4.near(21), 16)?;
    thread::spawn(|| {
        let mut listeners = std::collections::VecDeque::new();
        for port in 20_000..30_000 {
            listeners.extend(listen(Family::V4.near(port), 1).ok());
            if listeners.len() > 3 {
                listeners.pop_front();
            }
            thread::sleep(Duration::from_millis(500));
        }
    });
    thread::sleep(Duration::from_millis(500));
    stays_calm(world, "short-lived listeners");
    Ok(())
}

/// Programs log to a UNIX socket faster than the daemon reads at times, and wait for it then.
fn log_daemon(world: &mut World) -> Result<()> {
    let directory = tempfile::tempdir().context("no directory for the socket")?;
    let path = directory.path().join("log");
    let daemon = UnixDatagram::bind(&path)?;
    thread::spawn(move || {
        let mut line = [0; 512];
        loop {
            for _ in 0..50 {
                daemon.recv(&mut line).ok();
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
    for _ in 0..4 {
        let client = UnixDatagram::unbound()?;
        client.connect(&path)?;
        thread::spawn(move || {
            while client.send(b"<13>a line of a log").is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
        });
    }
    thread::sleep(Duration::from_millis(300));
    stays_calm(world, "a log daemon");
    Ok(())
}
