//! What goes on at any busy server and is nobody's fault: nothing above info may be found.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::Socket;

use crate::findings::time_wait;
use crate::harness::Test;
use crate::healthy::STRICT;
use crate::kernel::{self, set_sysctl, until, until_count};
use crate::owners::Heir;
use crate::world::{Family, PLENTY, World, connect, limit_descriptors, listen, serve_each, tcp};

pub const TESTS: &[Test] = &[
    Test {
        name: "a_few_dead_clients_of_many",
        run: a_few_dead_clients_of_many,
    },
    Test {
        name: "all_ports_in_time_wait_to_loopback",
        run: all_ports_in_time_wait_to_loopback,
    },
    Test {
        name: "health_checks_that_reset",
        run: health_checks_that_reset,
    },
    Test {
        name: "port_scan",
        run: port_scan,
    },
    Test {
        name: "one_session_of_two_processes",
        run: one_session_of_two_processes,
    },
    Test {
        name: "go_listener_in_a_burst",
        run: go_listener_in_a_burst,
    },
    Test {
        name: "unread_multicast",
        run: unread_multicast,
    },
];

/// As it comes, and with ages at which whatever stands still for a moment is old.
fn stays_calm(world: &World, when: &str) {
    world.all_calm(when, &world.diagnose(&[]));
    world.all_calm(&format!("{when}, strictly"), &world.diagnose(&STRICT));
}

/// Counts in far what a loop there has done.
#[derive(Clone, Default)]
pub struct Count(Arc<AtomicUsize>);

impl Count {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Repeats something in far until the test ends, counting its successes.
pub fn again_and_again(
    world: &World,
    pause: Duration,
    mut job: impl FnMut(usize) -> Result<()> + Send + 'static,
) -> Result<Count> {
    let done = Count::default();
    let counted = done.clone();
    world.far.run(move |_| {
        // A thread of far's has its namespace and its descriptors.
        thread::spawn(move || {
            for n in 0.. {
                if job(n).is_ok() {
                    counted.add();
                }
                thread::sleep(pause);
            }
        });
        Ok(())
    })?;
    Ok(done)
}

/// Accepts and reads to the end, whatever the end is.
pub fn read_to_the_end(mut socket: Socket) -> Result<()> {
    socket.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Of 400 clients 8 have vanished without a word, 20 have paused, and 12 finished requests wait for their clients to
/// close.
fn a_few_dead_clients_of_many(world: &mut World) -> Result<()> {
    limit_descriptors(PLENTY)?;
    let listener = listen(Family::V4.near(443), 512)?;
    let mut clients = Vec::new();
    for _ in 0..400 {
        clients.push(world.serve(&listener)?);
    }
    let mut clients = clients.into_iter();
    let deaf: Vec<_> = clients.by_ref().take(8).collect();
    for client in &deaf {
        world.far.deafen(client.far)?;
        client.near.send(&[b'x'; 500])?;
    }
    // Half of them were closed meanwhile: FIN-WAIT-1 for minutes.
    let mut deaf = deaf.into_iter();
    for client in deaf.by_ref().take(4) {
        drop(client.near);
    }
    until_count(kernel::FIN_WAIT_1, 4)?;
    let paused: Vec<_> = clients.by_ref().take(20).collect();
    for client in &paused {
        client.near.set_nonblocking(true)?;
    }
    until("20 paused readers", || {
        for client in &paused {
            while client.near.send(&[b'x'; 65_536]).is_ok() {}
        }
        let lines = kernel::table()?;
        let full = lines
            .iter()
            .filter(|line| line.state == kernel::ESTABLISHED && line.send_q > 65_536)
            .count();
        Ok((full != 20).then(|| format!("{full} have a full queue")))
    })?;
    let done: Vec<_> = clients.by_ref().take(12).collect();
    for client in &done {
        client.near.shutdown(std::net::Shutdown::Write)?;
    }
    until_count(kernel::FIN_WAIT_2, 12)?;
    thread::sleep(Duration::from_millis(1500));
    stays_calm(world, "8 of 400 dead, 20 paused");
    until_count(kernel::FIN_WAIT_1, 4)?;
    until_count(kernel::FIN_WAIT_2, 12)?;
    drop((deaf, paused, done, clients));
    Ok(())
}

/// By default `tcp_tw_reuse` is 2: loopback ports in TIME-WAIT are as good as free after a second.
fn all_ports_in_time_wait_to_loopback(world: &mut World) -> Result<()> {
    set_sysctl("net/ipv4/tcp_tw_reuse", "2")?;
    let address = Family::V4.loopback(8080);
    let listener = listen(address, 64)?;
    set_sysctl("net/ipv4/ip_local_port_range", "40000 40019")?;
    let come_and_go = || -> Result<()> {
        let client = connect(address)?;
        let (server, _) = listener.accept()?;
        drop(client);
        drop(server);
        Ok(())
    };
    time_wait(20, come_and_go)?;
    // tcp_tw_reuse_delay
    thread::sleep(Duration::from_millis(1500));
    stays_calm(world, "20 of 20 ports in TIME-WAIT to loopback");
    until_count(kernel::TIME_WAIT, 20)?;
    // And that is right: not one connect fails.
    for _ in 0..20 {
        come_and_go()?;
    }
    Ok(())
}

/// Connect and reset, as balancers do it.
fn health_checks_that_reset(world: &mut World) -> Result<()> {
    let address = Family::V4.near(8080);
    serve_each(listen(address, 128)?, read_to_the_end);
    let checks = again_and_again(world, Duration::from_millis(10), move |_| {
        let socket = connect(address)?;
        socket.set_linger(Some(Duration::ZERO))?;
        Ok(())
    })?;
    thread::sleep(Duration::from_millis(500));
    stays_calm(world, "health checks that reset");
    let checks = checks.get();
    ensure!(checks > 50, "only {checks} health checks");
    let waiting = kernel::count(kernel::TIME_WAIT)?;
    ensure!(
        waiting == 0,
        "{waiting} in TIME-WAIT: they were not ended by a reset"
    );
    Ok(())
}

/// 300 closed ports and 3 open ones, again and again.
fn port_scan(world: &mut World) -> Result<()> {
    const OPEN: [u16; 3] = [22, 80, 250];
    for port in OPEN {
        serve_each(listen(Family::V4.near(port), 16)?, read_to_the_end);
    }
    let (found, refused) = (Count::default(), Count::default());
    let (hits, misses) = (found.clone(), refused.clone());
    again_and_again(world, Duration::from_millis(2), move |n| {
        let port = u16::try_from(n % 303)? + 1;
        let address = Family::V4.near(port);
        let socket = tcp(address)?;
        match socket.connect_timeout(&address.into(), Duration::from_secs(1)) {
            Ok(()) => hits.add(),
            Err(_) => misses.add(),
        }
        Ok(())
    })?;
    stays_calm(world, "a port scan");
    // Slow machines finish the round in their own time.
    until("one round of the scan", || {
        let (found, refused) = (found.get(), refused.get());
        Ok((found < 3 || refused < 300).then(|| format!("{found} open, {refused} closed")))
    })?;
    Ok(())
}

/// As sshd and pre-fork servers do: parent and child hold the session's socket.
fn one_session_of_two_processes(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(22), 16)?;
    let mut sessions = Vec::new();
    for _ in 0..12 {
        sessions.push(world.serve(&listener)?);
    }
    let mut shared: Vec<&Socket> = sessions.iter().map(|session| &session.near).collect();
    shared.push(&listener);
    let heir = Heir::of(&shared)?;
    thread::sleep(Duration::from_millis(1500));
    stays_calm(world, "12 sessions of two processes");
    let rows = world.rows(&["list", "-tanp", "--json"])?;
    let both = rows.iter().filter(|row| {
        let owners = row.owners.iter().flatten();
        owners.filter(|owner| owner.pid == heir.pid()).count() == 1
            && row.owners.as_ref().is_some_and(|owners| owners.len() == 2)
    });
    ensure!(both.count() == 13, "two processes hold each: {rows:?}");
    Ok(())
}

/// Go's net package asks for somaxconn itself: its backlog is not one that somaxconn cut short.
fn go_listener_in_a_burst(world: &mut World) -> Result<()> {
    let most: i32 = fs::read_to_string("/proc/sys/net/core/somaxconn")?
        .trim()
        .parse()?;
    let address = Family::V4.near(8080);
    let listener = listen(address, most)?;
    let limit = world.rows(&["list", "-l", "--json"])?;
    ensure!(
        limit
            .iter()
            .any(|row| row.send_q == u64::try_from(most).ok()),
        "the backlog is somaxconn, {most}: {limit:?}"
    );
    // The accept loop is busy elsewhere for 200 ms of each 300 ms.
    let deepest = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&deepest);
    listener.set_nonblocking(true)?;
    thread::spawn(move || {
        loop {
            let mut batch = Vec::new();
            while let Ok((socket, _)) = listener.accept() {
                batch.push(socket);
            }
            seen.fetch_max(batch.len(), Ordering::Relaxed);
            // They are answered and closed, all within the round.
            thread::sleep(Duration::from_millis(100));
            drop(batch);
            thread::sleep(Duration::from_millis(100));
        }
    });
    again_and_again(world, Duration::from_millis(300), move |_| {
        let clients = (0..100).map(|_| connect(address));
        let clients: Vec<Socket> = clients.collect::<Result<_>>()?;
        thread::sleep(Duration::from_millis(50));
        drop(clients);
        Ok(())
    })?;
    until("a burst", || {
        let deepest = deepest.load(Ordering::Relaxed);
        Ok((deepest < 30).then(|| format!("{deepest} waited at most")))
    })?;
    stays_calm(world, "bursts at a listener of somaxconn");
    Ok(())
}

/// A daemon that has joined a group and reads nothing loses datagrams. Nothing breaks, and TCP has no part in it.
fn unread_multicast(world: &mut World) -> Result<()> {
    let group = Ipv4Addr::new(239, 9, 9, 9);
    let SocketAddr::V4(here) = Family::V4.near(0) else {
        return Ok(());
    };
    let SocketAddr::V4(there) = Family::V4.far(0) else {
        return Ok(());
    };
    let member = UdpSocket::bind(SocketAddr::from((group, 5353)))?;
    member.join_multicast_v4(&group, here.ip())?;
    let listener = listen(Family::V4.near(8080), 16)?;
    let session = world.serve(&listener)?;
    again_and_again(world, Duration::from_millis(1), move |_| {
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
        socket.set_multicast_if_v4(there.ip())?;
        let to = SocketAddr::from((group, 5353));
        for _ in 0..20 {
            socket.send_to(&[b'x'; 1200], &to.into())?;
        }
        Ok(())
    })?;
    until("datagrams that are dropped", || {
        let dropped = dropped()?;
        Ok((dropped == 0).then(|| "none yet".to_owned()))
    })?;
    let before = dropped()?;
    stays_calm(world, "unread multicast");
    let after = dropped()?;
    ensure!(
        after > before,
        "datagrams were dropped all the while: {before}, {after}"
    );
    // UDP has no state of TCP.
    let rows = world.rows(&["list", "-tan", "--json"])?;
    ensure!(rows.len() == 2, "{rows:?}");
    drop((member, session));
    Ok(())
}

/// The last column of the only line of `/proc/net/udp`.
fn dropped() -> Result<u64> {
    let table = fs::read_to_string("/proc/thread-self/net/udp")?;
    let line = table.lines().nth(1).context("no UDP socket")?;
    let last = line.split_ascii_whitespace().next_back();
    Ok(last.context("no column")?.parse()?)
}
