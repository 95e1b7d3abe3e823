//! Connections on which nothing moves, and whose fault that is: the peer that does not read, the path, this program.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use socket2::Socket;

use crate::answers::{Diagnosis, Finding, Severity};
use crate::harness::Test;
use crate::kernel::{self, Line, set_sysctl, until, until_count};
use crate::world::{Connection, Family, World, connect, fill, listen};

pub const TESTS: &[Test] = &[
    Test {
        name: "stall_of_a_peer_that_does_not_read",
        run: a_peer_that_does_not_read,
    },
    Test {
        name: "stall_in_close_wait",
        run: in_close_wait,
    },
    Test {
        name: "stall_of_clients_that_do_not_read",
        run: clients_that_do_not_read,
    },
    Test {
        name: "stall_of_a_window_whose_probes_go_unanswered",
        run: a_window_whose_probes_go_unanswered,
    },
    Test {
        name: "stall_of_a_slow_reader_is_none",
        run: a_slow_reader_is_not_stuck,
    },
    Test {
        name: "stall_of_a_dead_peer",
        run: a_dead_peer,
    },
    Test {
        name: "stall_of_a_path_for_small_segments",
        run: a_path_for_small_segments,
    },
    Test {
        name: "stall_of_big_segments_beside_small_ones",
        run: big_segments_beside_small_ones,
    },
    Test {
        name: "stall_of_a_program_that_does_not_read",
        run: a_program_that_does_not_read,
    },
    Test {
        name: "stall_of_a_client_that_does_not_read",
        run: a_client_that_does_not_read,
    },
    Test {
        name: "stall_under_a_steady_trickle",
        run: under_a_steady_trickle,
    },
    Test {
        name: "stall_of_a_loopback_pair",
        run: of_a_loopback_pair,
    },
    Test {
        name: "stall_of_queues_that_outgrow_their_readers",
        run: of_queues_that_outgrow_their_readers,
    },
    Test {
        name: "stall_of_four_queues_is_none",
        run: of_four_queues_is_none,
    },
    Test {
        name: "stall_of_bulk_transfers_is_none",
        run: bulk_transfers_are_healthy,
    },
];

const WINDOW: &str = "zero-window-peer";
const DEAD: &str = "retransmit-stuck";
const MTU: &str = "path-mtu-suspect";
const UNREAD: &str = "recv-q-stuck";
const BUFFER: &str = "send-q-growth";

/// Asks all detectors of stalls, with these limits.
fn look(world: &World, thresholds: &[&str]) -> Diagnosis {
    look_often(world, thresholds, "1")
}

/// The same, looking several times a second apart.
fn look_often(world: &World, thresholds: &[&str], samples: &str) -> Diagnosis {
    let all = [WINDOW, DEAD, MTU, UNREAD, BUFFER].join(",");
    let mut arguments = vec!["--only", &all, "--samples", samples, "--interval", "1s"];
    for threshold in thresholds {
        arguments.extend(["--threshold", threshold]);
    }
    world.diagnose(&arguments)
}

/// Waits until so many sockets of near, seen from there, are as asked for.
fn until_lines(what: &str, wanted: usize, fits: impl Fn(&Line) -> bool) -> Result<()> {
    until(&format!("{wanted} {what}"), || {
        let lines = kernel::table()?;
        let found = lines.iter().filter(|line| fits(line)).count();
        Ok((found != wanted).then(|| format!("{found} of {lines:?}")))
    })
}

fn until_windows_closed(wanted: usize) -> Result<()> {
    until_lines("closed windows", wanted, |line| line.timer == 4)
}

fn until_timed_out(wanted: usize, times: u64) -> Result<()> {
    let what = format!("sockets with {times} time-outs");
    until_lines(&what, wanted, |line| {
        matches!(line.state, kernel::ESTABLISHED | kernel::CLOSE_WAIT)
            && line.timer == 1
            && line.retransmits >= times
    })
}

/// The first packet may wait until the link is up and the neighbour known. A connection that it opened would believe
/// the path to be that slow, time out by the second, and leave that behind for the next one to believe.
fn warm_up(world: &World) -> Result<()> {
    set_sysctl("net/ipv4/tcp_no_metrics_save", "1")?;
    for family in world.families() {
        let connection = world.dial(*family, 9)?;
        world.far.close(connection.far)?;
    }
    Ok(())
}

/// Lets ages of two seconds pass.
fn wait() {
    thread::sleep(Duration::from_millis(2500));
}

fn about(world: &World, found: Option<&Finding>, address: SocketAddr, stuck: usize) {
    let Some(found) = found else { return };
    let subject = &found.subject;
    let right = subject.kind == "destination"
        && (subject.address, subject.port) == (Some(address.ip()), Some(address.port()));
    world.expect(right, || format!("it is about {address}: {found:?}"));
    counts(world, found, stuck);
}

fn counts(world: &World, found: &Finding, stuck: usize) {
    world.expect(found.measured(stuck, stuck), || {
        format!("{stuck} are stuck: {found:?}")
    });
}

/// None of the other detectors of stalls has anything to say.
fn others_quiet(world: &World, when: &str, diagnosis: &Diagnosis, but: &[&str]) {
    for id in [WINDOW, DEAD, MTU, UNREAD, BUFFER] {
        if !but.contains(&id) {
            world.quiet(when, diagnosis, id);
        }
    }
}

const YOUNG_WINDOW: &str = "zero-window-peer.age=100s";
const WINDOW_2S: &str = "zero-window-peer.age=2s";
const LONG_WINDOW_2S: &str = "zero-window-peer.long=2s";

fn a_peer_that_does_not_read(world: &mut World) -> Result<()> {
    for family in world.families() {
        let port = 9092;
        let address = family.far(port);
        let mut kept = Vec::new();
        let mut stall = |world: &World, count: usize| -> Result<()> {
            for _ in 0..count {
                let connection = world.dial(*family, port)?;
                fill(&connection.near)?;
                kept.push(connection);
            }
            until_windows_closed(kept.len())?;
            wait();
            Ok(())
        };
        stall(world, 4)?;
        let below = look(world, &[WINDOW_2S, LONG_WINDOW_2S]);
        world.calm("4 peers do not read", &below, WINDOW);
        stall(world, 1)?;
        world.quiet("young", &look(world, &[YOUNG_WINDOW]), WINDOW);
        let diagnosis = look(world, &[WINDOW_2S]);
        let found = world.fires("5 do not", &diagnosis, WINDOW, Severity::Warning);
        about(world, found, address, 5);
        if let Some(found) = found {
            let right = found.severity == Severity::Warning && found.who_must_act == "peer";
            world.expect(right, || format!("a warning to the peer: {found:?}"));
        }
        others_quiet(world, "5 do not read", &diagnosis, &[WINDOW]);
        let long = look(world, &[WINDOW_2S, LONG_WINDOW_2S]);
        world.fires("5 of 5 for long", &long, WINDOW, Severity::Critical);
        let twice = look_often(world, &[WINDOW_2S], "2");
        if let Some(found) = world.fires("two looks", &twice, WINDOW, Severity::Warning) {
            let mut evidence = found.evidence.iter();
            let held = evidence.any(|e| e.name == "held_up_by_peers_window" && e.value == 5);
            world.expect(held, || format!("the window held all up: {found:?}"));
        }
        // Now the peer reads.
        for connection in &kept {
            world.far.read_on(connection.far, 1 << 16, Duration::ZERO)?;
        }
        until_lines("full queues", 0, |line| line.send_q > 0)?;
        let after = look(world, &[WINDOW_2S]);
        others_quiet(world, "all was read", &after, &[]);
        drop(kept);
        until_count(kernel::ESTABLISHED, 0)?;
    }
    Ok(())
}

fn in_close_wait(world: &mut World) -> Result<()> {
    let mut kept = Vec::new();
    for _ in 0..5 {
        let connection = world.dial(Family::V4, 443)?;
        world.far.shut_write(connection.far)?;
        kept.push(connection);
    }
    until_count(kernel::CLOSE_WAIT, 5)?;
    wait();
    let limits = [WINDOW_2S, "recv-q-stuck.age=1s"];
    let unread_fin = look(world, &limits);
    others_quiet(world, "only a FIN is unread", &unread_fin, &[]);
    kept.iter().try_for_each(|c| fill(&c.near))?;
    until_windows_closed(5)?;
    wait();
    let diagnosis = look(world, &limits);
    let found = world.fires("5 stalled", &diagnosis, WINDOW, Severity::Warning);
    about(world, found, Family::V4.far(443), 5);
    others_quiet(world, "5 stalled", &diagnosis, &[WINDOW]);
    Ok(())
}

fn clients_that_do_not_read(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(443), 64)?;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(world.serve(&listener)?);
    }
    clients.iter().take(5).try_for_each(|c| fill(&c.near))?;
    until_windows_closed(5)?;
    wait();
    world.calm("5 pause", &look(world, &[WINDOW_2S]), WINDOW);
    // They are all of one address here, which may be one program.
    let one = look(world, &[WINDOW_2S, LONG_WINDOW_2S]);
    world.calm("5 of one address", &one, WINDOW);
    let low = "zero-window-peer.min=1";
    let long = look(world, &[WINDOW_2S, LONG_WINDOW_2S, low]);
    if let Some(found) = world.fires("for long", &long, WINDOW, Severity::Warning) {
        let right = found.subject.kind == "listener" && found.subject.port == Some(443);
        world.expect(right && found.severity == Severity::Warning, || {
            format!("clients are never critical: {found:?}")
        });
    }
    // As many that do read make them a minority.
    for _ in 0..10 {
        clients.push(world.serve(&listener)?);
    }
    let few = look(world, &[WINDOW_2S, LONG_WINDOW_2S]);
    world.calm("5 of 20", &few, WINDOW);
    Ok(())
}

fn a_window_whose_probes_go_unanswered(world: &mut World) -> Result<()> {
    let mut kept = Vec::new();
    for _ in 0..5 {
        let connection = world.dial(Family::V4, 443)?;
        fill(&connection.near)?;
        world.far.deafen(connection.far)?;
        kept.push(connection);
    }
    until_lines("windows with unanswered probes", 5, |line| {
        line.timer == 4 && line.probes >= 2
    })?;
    wait();
    let diagnosis = look(world, &[WINDOW_2S]);
    let found = world.fires("5 are gone", &diagnosis, WINDOW, Severity::Warning);
    about(world, found, Family::V4.far(443), 5);
    if let Some(found) = found {
        let variant = found.variant.as_deref();
        world.expect(variant == Some("send-q-stuck"), || {
            format!("the probes are not answered: {found:?}")
        });
    }
    Ok(())
}

/// It pauses longer than the limit between two reads, and so looks stuck to a single look; two looks know better.
fn a_slow_reader_is_not_stuck(world: &mut World) -> Result<()> {
    let mut kept = Vec::new();
    for _ in 0..5 {
        let connection = world.dial(Family::V4, 443)?;
        fill(&connection.near)?;
        let pause = Duration::from_millis(400);
        world.far.read_on(connection.far, 40_000, pause)?;
        kept.push(connection);
    }
    let limits = [
        "zero-window-peer.age=0s",
        "zero-window-peer.long=0s",
        "retransmit-stuck.age=0s",
    ];
    let diagnosis = look_often(world, &limits, "3");
    let lines = kernel::table()?;
    let waiting = lines.iter().filter(|line| line.send_q > 0).count();
    ensure!(waiting == 5, "they read too fast: {lines:?}");
    world.calm("5 read slowly", &diagnosis, WINDOW);
    world.calm("5 read slowly", &diagnosis, DEAD);
    Ok(())
}

const DEAD_1S: &str = "retransmit-stuck.age=1s";

fn a_dead_peer(world: &mut World) -> Result<()> {
    warm_up(world)?;
    for family in world.families() {
        let (address, mut kept) = (family.far(5432), Vec::new());
        // Two of them have half closed before.
        let mut lose = |world: &World, count: usize| -> Result<()> {
            for n in 0..count {
                let connection = world.dial(*family, 5432)?;
                if n < 2 && count > 2 {
                    world.far.shut_write(connection.far)?;
                }
                kept.push(connection);
            }
            until_count(kernel::CLOSE_WAIT, 2)?;
            for connection in kept.iter().rev().take(count) {
                world.far.deafen(connection.far)?;
                // More than a segment, so that only silence tells it from a narrow path.
                connection.near.send(&[b'x'; 9000])?;
            }
            until_timed_out(kept.len(), 4)
        };
        lose(world, 4)?;
        let long = "retransmit-stuck.long=1s";
        world.calm("4 are dead", &look(world, &[DEAD_1S, long]), DEAD);
        lose(world, 1)?;
        let diagnosis = look(world, &[DEAD_1S]);
        let found = world.fires("5 are dead", &diagnosis, DEAD, Severity::Warning);
        about(world, found, address, 5);
        others_quiet(world, "5 are dead", &diagnosis, &[DEAD]);
        let young = look(world, &["retransmit-stuck.age=100s"]);
        world.quiet("young", &young, DEAD);
        let all = look(world, &[DEAD_1S, long]);
        let found = world.fires("5 of 5 for long", &all, DEAD, Severity::Critical);
        about(world, found, address, 5);
        let twice = look_often(world, &[DEAD_1S], "2");
        if let Some(found) = world.fires("two looks", &twice, DEAD, Severity::Warning) {
            let mut evidence = found.evidence.iter();
            let lost = evidence.any(|e| e.name == "held_up_by_network" && e.value == 5);
            world.expect(lost, || format!("the network held all up: {found:?}"));
        }
        // What is answered is healthy, however much it is.
        let healthy = world.dial(*family, 5433)?;
        world.far.read_on(healthy.far, 1 << 16, Duration::ZERO)?;
        healthy.near.send(&[b'x'; 9000])?;
        let findings = look(world, &[DEAD_1S]);
        let on_healthy = |found: &Finding| found.subject.port == Some(5433);
        world.expect(!findings.findings.iter().any(on_healthy), || {
            findings.in_short()
        });
        drop((kept, healthy));
        for state in [kernel::ESTABLISHED, kernel::CLOSE_WAIT] {
            until_count(state, 0)?;
        }
    }
    Ok(())
}

const MTU_1S: &str = "path-mtu-suspect.age=1s";

/// A path that lets segments of up to 1,000 bytes through.
fn narrow_path(world: &World, count: usize) -> Result<Vec<Connection>> {
    warm_up(world)?;
    let mut kept = Vec::new();
    for _ in 0..count {
        let connection = world.dial(Family::V4, 443)?;
        world.far.narrow(connection.far, 1000)?;
        // Small ones pass.
        connection.near.send(b"hello")?;
        kept.push(connection);
    }
    until_lines("unanswered greetings", 0, |line| line.send_q > 0)?;
    Ok(kept)
}

fn a_path_for_small_segments(world: &mut World) -> Result<()> {
    let kept = narrow_path(world, 5)?;
    let before = look(world, &[MTU_1S, DEAD_1S]);
    others_quiet(world, "small segments pass", &before, &[]);
    for connection in kept.iter().take(4) {
        connection.near.send(&[b'x'; 20_000])?;
    }
    until_timed_out(4, 4)?;
    let talk = |count: usize| -> Result<()> {
        for connection in kept.iter().take(count) {
            world.far.with(connection.far, |far| {
                far.send(b"!")?;
                Ok(())
            })?;
        }
        Ok(())
    };
    talk(4)?;
    let four = look(world, &[MTU_1S, DEAD_1S, "path-mtu-suspect.long=1s"]);
    world.calm("4 lose big segments", &four, MTU);
    if let Some(last) = kept.last() {
        last.near.send(&[b'x'; 20_000])?;
    }
    until_timed_out(5, 4)?;
    talk(5)?;
    let diagnosis = look(world, &[MTU_1S, DEAD_1S]);
    let found = world.fires("5 do", &diagnosis, MTU, Severity::Warning);
    about(world, found, Family::V4.far(443), 5);
    if let Some(found) = found {
        let right = found.severity == Severity::Warning && found.who_must_act == "network";
        world.expect(right, || format!("the network's: {found:?}"));
    }
    world.quiet("they are heard", &diagnosis, DEAD);
    let long = look(world, &[MTU_1S, "path-mtu-suspect.long=1s"]);
    world.fires("5 of 5 for long", &long, MTU, Severity::Critical);
    Ok(())
}

/// The narrow ones fall silent, but others to the same destination talk.
fn big_segments_beside_small_ones(world: &mut World) -> Result<()> {
    let narrow = narrow_path(world, 5)?;
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(world.dial(Family::V4, 443)?);
    }
    for connection in &narrow {
        connection.near.send(&[b'x'; 20_000])?;
    }
    until_timed_out(5, 4)?;
    let limits = [MTU_1S, DEAD_1S, "path-mtu-suspect.long=1s"];
    let silent = look(world, &limits);
    world.quiet("nobody is heard", &silent, MTU);
    world.fires("nobody is heard", &silent, DEAD, Severity::Warning);
    for connection in &others {
        connection.near.send(b"?")?;
    }
    until_lines("unanswered questions", 0, |line| {
        line.send_q > 0 && line.send_q < 20_000
    })?;
    let diagnosis = look(world, &limits);
    let found = world.fires("others are heard", &diagnosis, MTU, Severity::Warning);
    about(world, found, Family::V4.far(443), 5);
    if let Some(found) = found {
        world.expect(found.severity == Severity::Warning, || {
            format!("others' word is no proof: {found:?}")
        });
    }
    world.quiet("others are heard", &diagnosis, DEAD);
    // A small one that is lost too says that it is not the size.
    let small = world.dial(Family::V4, 443)?;
    world.far.deafen(small.far)?;
    small.near.send(b"?")?;
    until_timed_out(6, 4)?;
    others
        .iter()
        .try_for_each(|c| c.near.send(b"?").map(drop))?;
    let diagnosis = look(world, &limits);
    world.quiet("a small one is lost too", &diagnosis, MTU);
    world.fires(
        "a small one is lost too",
        &diagnosis,
        DEAD,
        Severity::Warning,
    );
    Ok(())
}

const UNREAD_2S: &str = "recv-q-stuck.age=2s";
const LONG_UNREAD_2S: &str = "recv-q-stuck.long=2s";

/// The peers send so many bytes.
fn send_all(world: &World, connections: &[Connection], bytes: usize) -> Result<()> {
    for connection in connections {
        world.far.with(connection.far, move |far| {
            ensure!(far.send(&vec![b'x'; bytes])? == bytes, "not all was sent");
            Ok(())
        })?;
    }
    Ok(())
}

/// Reads all that has come.
fn read_all(connections: &[Connection]) -> Result<()> {
    for connection in connections {
        let mut socket = &connection.near;
        socket.set_nonblocking(true)?;
        // Ends with "would block".
        socket.read_to_end(&mut Vec::new()).err();
    }
    until_lines("unread sockets", 0, |line| {
        line.recv_q > 0 && line.state != kernel::LISTEN
    })
}

fn a_program_that_does_not_read(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(8080), 64)?;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(world.serve(&listener)?);
    }
    let send = |from: usize, to: usize| {
        let chosen = clients.get(from..to).unwrap_or_default();
        send_all(world, chosen, 300)
    };
    send(0, 4)?;
    until_lines("unread requests", 4, |line| line.recv_q == 300)?;
    wait();
    world.calm("4 unread", &look(world, &[UNREAD_2S]), UNREAD);
    send(4, 5)?;
    until_lines("unread requests", 5, |line| line.recv_q == 300)?;
    wait();
    world.quiet("young", &look(world, &["recv-q-stuck.age=100s"]), UNREAD);
    let diagnosis = look(world, &[UNREAD_2S, LONG_UNREAD_2S]);
    if let Some(found) = world.fires("5 unread", &diagnosis, UNREAD, Severity::Warning) {
        counts(world, found, 5);
        let right = found.subject.kind == "process"
            && found.subject.pid == Some(std::process::id())
            && found.who_must_act == "this-program"
            && found.severity == Severity::Warning;
        world.expect(right, || format!("this program's: {found:?}"));
    }
    others_quiet(world, "5 unread", &diagnosis, &[UNREAD]);
    read_all(&clients)?;
    let after = look(world, &[UNREAD_2S]);
    others_quiet(world, "all was read", &after, &[]);
    Ok(())
}

fn a_client_that_does_not_read(world: &mut World) -> Result<()> {
    let mut kept = Vec::new();
    for _ in 0..5 {
        kept.push(world.dial(Family::V4, 6379)?);
    }
    send_all(world, &kept, 1023)?;
    until_lines("unread farewells", 5, |line| line.recv_q == 1023)?;
    wait();
    let limits = [UNREAD_2S, LONG_UNREAD_2S];
    world.quiet("farewells", &look(world, &limits), UNREAD);
    send_all(world, &kept, 1)?;
    until_lines("unread answers", 5, |line| line.recv_q == 1024)?;
    wait();
    let diagnosis = look(world, &limits);
    let found = world.fires("answers", &diagnosis, UNREAD, Severity::Critical);
    if let Some(found) = found {
        counts(world, found, 5);
    }
    // With the peers gone nobody but close-wait-leak has a say.
    for connection in &kept {
        world.far.close(connection.far)?;
    }
    until_count(kernel::CLOSE_WAIT, 5)?;
    wait();
    world.quiet("CLOSE-WAIT", &look(world, &limits), UNREAD);
    Ok(())
}

/// While the peers go on sending a little, only a second look tells that nobody reads.
fn under_a_steady_trickle(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(8080), 64)?;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(world.serve(&listener)?);
    }
    send_all(world, &clients, 300)?;
    let talkers: Vec<_> = clients.iter().map(|c| c.far).collect();
    world.far.run(move |far| {
        let sockets: Vec<Socket> = talkers
            .into_iter()
            .map(|handle| Ok(far.get(handle)?.try_clone()?))
            .collect::<Result<_>>()?;
        thread::spawn(move || {
            loop {
                for mut socket in &sockets {
                    socket.write_all(b"more").ok();
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        Ok(())
    })?;
    until_lines("unread sockets", 5, |line| line.recv_q > 300)?;
    // Not shorter than three looks: what they see for two seconds is old enough.
    let limits = ["recv-q-stuck.age=1s"];
    let thrice = look_often(world, &limits, "3");
    if let Some(found) = world.fires("unread", &thrice, UNREAD, Severity::Warning) {
        let mut evidence = found.evidence.iter();
        let ours = evidence.any(|e| e.name == "held_up_by_this_program" && e.value == 5);
        world.expect(ours, || format!("this program held all up: {found:?}"));
    }
    // Now it reads, but never everything.
    for connection in &clients {
        let mut socket = connection.near.try_clone()?;
        thread::spawn(move || {
            let mut few = [0; 4];
            loop {
                socket.read_exact(&mut few).ok();
                thread::sleep(Duration::from_millis(50));
            }
        });
    }
    let reading = look_often(world, &["recv-q-stuck.age=0s"], "3");
    world.quiet("it reads, behind the peers", &reading, UNREAD);
    Ok(())
}

/// Both ends are in the table: who does not read is the cause of the other's wait.
fn of_a_loopback_pair(world: &mut World) -> Result<()> {
    let address = Family::V4.loopback(8080);
    let listener = listen(address, 64)?;
    let mut pairs = Vec::new();
    for _ in 0..5 {
        let client = connect(address)?;
        let (server, _) = listener.accept()?;
        fill(&client)?;
        pairs.push((client, server));
    }
    until_windows_closed(5)?;
    wait();
    // One look cannot tell a reader that hangs from a slow one.
    let one = look(world, &[WINDOW_2S, UNREAD_2S]);
    world.calm("5 pairs, one look", &one, UNREAD);
    let limits = [WINDOW_2S, "recv-q-stuck.age=1s"];
    let diagnosis = look_often(world, &limits, "3");
    let reader = world.fires("5 pairs", &diagnosis, UNREAD, Severity::Warning);
    if let Some(found) = reader {
        world.expect(found.caused_by.is_none(), || format!("the root: {found:?}"));
        counts(world, found, 5);
    }
    let sender = world.fires("5 pairs", &diagnosis, WINDOW, Severity::Warning);
    if let Some(found) = sender {
        let follows = found.caused_by.as_deref() == Some(UNREAD);
        world.expect(follows, || format!("it follows from that: {found:?}"));
    }
    let first = diagnosis.findings.first().map(|found| found.id.as_str());
    world.expect(diagnosis.missing || first == Some(UNREAD), || {
        format!("the root comes first: {}", diagnosis.in_short())
    });
    Ok(())
}

/// A program writes more than its peers read.
fn outgrow(world: &World, connections: usize) -> Result<Vec<Connection>> {
    let mut kept = Vec::new();
    for _ in 0..connections {
        let connection = world.dial(Family::V4, 443)?;
        connection.near.set_send_buffer_size(1 << 20)?;
        connection.near.set_nonblocking(true)?;
        let pause = Duration::from_millis(10);
        world.far.read_on(connection.far, 2_000, pause)?;
        let mut socket = connection.near.try_clone()?;
        thread::spawn(move || {
            loop {
                // A full buffer is no reason to end.
                drop(socket.write(&[b'x'; 2_800]));
                thread::sleep(pause);
            }
        });
        kept.push(connection);
    }
    until("queues of some length", || {
        let lines = kernel::table()?;
        let grown = lines.iter().filter(|line| line.send_q > 5_000).count();
        Ok((grown < connections).then(|| format!("{grown} of {connections}")))
    })?;
    Ok(kept)
}

const GROWTH: &str = "send-q-growth";

fn of_queues_that_outgrow_their_readers(world: &mut World) -> Result<()> {
    let connections = outgrow(world, 12)?;
    let diagnosis = look_often(world, &["send-q-growth.backlog=0.1"], "3");
    let found = world.fires(
        "12 queues, of which 5 at least grow from look to look",
        &diagnosis,
        GROWTH,
        Severity::Info,
    );
    if let Some(found) = found {
        let subject = &found.subject;
        let right = subject.kind == "process" && subject.pid == Some(std::process::id());
        world.expect(right, || format!("this program writes: {found:?}"));
    }
    drop(connections);
    Ok(())
}

fn of_four_queues_is_none(world: &mut World) -> Result<()> {
    let connections = outgrow(world, 4)?;
    let diagnosis = look_often(world, &["send-q-growth.backlog=0.1"], "3");
    world.quiet("4 queues", &diagnosis, GROWTH);
    drop(connections);
    Ok(())
}

/// Full queues that are on their way, both ways, at whatever speed.
fn bulk_transfers_are_healthy(world: &mut World) -> Result<()> {
    let mut kept = Vec::new();
    for n in 0..6 {
        let connection = world.dial(Family::V4, 443)?;
        let pause = Duration::from_millis(10 * n);
        world.far.read_on(connection.far, 1 << 16, pause)?;
        let mut socket = connection.near.try_clone()?;
        thread::spawn(move || while socket.write_all(&[b'x'; 50_000]).is_ok() {});
        kept.push(connection);
    }
    until("full queues", || {
        let lines = kernel::table()?;
        let full = lines.iter().filter(|line| line.send_q > 10_000).count();
        Ok((full < 3).then(|| format!("{lines:?}")))
    })?;
    let limits = [WINDOW_2S, DEAD_1S, MTU_1S, "recv-q-stuck.age=1s"];
    world.all_calm("as it comes", &look(world, &[]));
    world.all_calm("strictly", &look_often(world, &limits, "3"));
    Ok(())
}
