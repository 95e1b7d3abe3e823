//! Closes that nobody answers, and what closed connections leave behind.

use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::answers::{Finding, Severity};
use crate::findings::{close_first, time_wait};
use crate::harness::Test;
use crate::kernel::{self, set_sysctl, until, until_count};
use crate::world::{Connection, Family, Far, World, fill, listen};

pub const TESTS: &[Test] = &[
    Test {
        name: "fin_wait_1_stuck",
        run: fin_wait_1_stuck,
    },
    Test {
        name: "fin_wait_1_with_data_before_the_fin",
        run: fin_wait_1_with_data_before_the_fin,
    },
    Test {
        name: "fin_wait_1_of_vanished_clients",
        run: fin_wait_1_of_vanished_clients,
    },
    Test {
        name: "last_ack_stuck",
        run: last_ack_stuck,
    },
    Test {
        name: "closing_stuck",
        run: closing_stuck,
    },
    Test {
        name: "fin_wait_2_orphan_flood",
        run: fin_wait_2_orphan_flood,
    },
    Test {
        name: "time_wait_overflow",
        run: time_wait_overflow,
    },
    Test {
        name: "time_wait_server_side",
        run: time_wait_server_side,
    },
    Test {
        name: "orphan_pile_up",
        run: orphan_pile_up,
    },
    Test {
        name: "connection_churn",
        run: connection_churn,
    },
];

/// Lets near and far learn each other's MAC: a first handshake that waits for that measures a round trip of a second,
/// and its time-outs are as long.
fn acquaint(world: &World, family: Family) -> Result<()> {
    let connection = world.dial(family, 7)?;
    world.far.close(connection.far)
}

/// Waits until so many sockets in the state have been unanswered for more than two seconds.
fn until_tried(world: &World, state: &str, wanted: usize) -> Result<()> {
    until(&format!("{wanted} unanswered in {state}"), || {
        let rows = world.rows(&["list", "--json", "-i", "state", state])?;
        let tried = rows
            .iter()
            .filter(|row| {
                let timer = row.timer.as_ref();
                timer.is_some_and(|t| t.name == "retransmit" && t.retransmits >= 2)
            })
            .filter(|row| row.state_age_ms.is_some_and(|age| age > 2_000))
            .count();
        Ok((tried < wanted).then(|| format!("{tried}: {rows:#?}")))
    })
}

/// The finding is about what was dialled, and as many as expected.
fn is_about(world: &World, found: Option<&Finding>, address: SocketAddr, count: usize) {
    let Some(found) = found else { return };
    let subject = &found.subject;
    let right = subject.kind == "destination"
        && (subject.address, subject.port) == (Some(address.ip()), Some(address.port()))
        && found.measured(count, count);
    world.expect(right, || {
        format!("{count} towards {address} are stuck: {found:?}")
    });
}

/// A connection whose peer has stopped hearing.
fn unheard(world: &World, family: Family, port: u16) -> Result<Connection> {
    let connection = world.dial(family, port)?;
    world.far.deafen(connection.far)?;
    Ok(connection)
}

fn fin_wait_1_stuck(world: &mut World) -> Result<()> {
    const ID: &str = "fin-wait-1-stuck";
    let arguments = ["--only", ID, "--threshold", "fin-wait-1-stuck.age=2s"];
    let mut kept = Vec::new();
    for family in world.families() {
        acquaint(world, *family)?;
        let before = kept.len();
        let mut close = |count: usize| -> Result<()> {
            for _ in 0..count {
                let connection = unheard(world, *family, 443)?;
                connection.near.shutdown(Shutdown::Write)?;
                kept.push(connection);
            }
            until_tried(world, "fin-wait-1", kept.len())
        };
        close(4)?;
        let few = world.diagnose(&arguments);
        if before == 0 {
            world.calm("4 unanswered", &few, ID);
        }
        close(1)?;
        let patient = world.diagnose(&["--only", ID, "--threshold", "fin-wait-1-stuck.age=100s"]);
        world.quiet("5 unanswered, but young", &patient, ID);
        let diagnosis = world.diagnose(&arguments);
        let when = format!("5 unanswered, {family:?}");
        world.fires(&when, &diagnosis, ID, Severity::Warning);
        let found = diagnosis
            .of(ID)
            .find(|found| found.subject.address == Some(family.far(0).ip()));
        world.expect(diagnosis.missing || found.is_some(), || {
            format!("{when}: {}", diagnosis.in_short())
        });
        is_about(world, found, family.far(443), 5);
        if let Some(found) = found {
            let right = found.explanation.contains("only its FIN is out")
                && found.severity == Severity::Warning
                && found.who_must_act == "network";
            world.expect(right, || format!("{when}: only the FIN is out: {found:?}"));
        }
    }
    Ok(())
}

/// `close` enters FIN-WAIT-1 while data waits before the FIN: lost where nobody answers, and no loss where the peer
/// has only closed its window.
fn fin_wait_1_with_data_before_the_fin(world: &mut World) -> Result<()> {
    const ID: &str = "fin-wait-1-stuck";
    let arguments = ["--only", ID, "--threshold", "fin-wait-1-stuck.age=2s"];
    acquaint(world, Family::V4)?;
    for _ in 0..6 {
        let slow = world.dial(Family::V4, 80)?;
        fill(&slow.near)?;
    }
    until_count(kernel::FIN_WAIT_1, 6)?;
    until("zero-window probes", || {
        let rows = world.rows(&["list", "--json", "state", "fin-wait-1"])?;
        let persist = rows
            .iter()
            .filter(|row| row.timer_name() == Some("persist"))
            .count();
        Ok((persist != 6).then(|| format!("{rows:?}")))
    })?;
    world.quiet("6 closed windows", &world.diagnose(&arguments), ID);

    for _ in 0..6 {
        let lost = unheard(world, Family::V4, 443)?;
        lost.near.send(&[b'x'; 1000])?;
    }
    until_tried(world, "fin-wait-1", 6)?;
    let diagnosis = world.diagnose(&arguments);
    let when = "6 of 6 with data";
    let found = world.fires(when, &diagnosis, ID, Severity::Critical);
    is_about(world, found, Family::V4.far(443), 6);
    if let Some(found) = found {
        let right = found.title.contains("6,000 bytes and then the FIN")
            && found.explanation.contains("may not even be sent");
        world.expect(right, || format!("{when}: {found:?}"));
    }
    Ok(())
}

/// Of 40 clients 6 are gone, as it is with any public server; then 12.
fn fin_wait_1_of_vanished_clients(world: &mut World) -> Result<()> {
    const ID: &str = "fin-wait-1-stuck";
    let arguments = ["--only", ID, "--threshold", "fin-wait-1-stuck.age=2s"];
    acquaint(world, Family::V4)?;
    let listener = listen(Family::V4.near(443), 128)?;
    let mut clients = Vec::new();
    for _ in 0..60 {
        clients.push(world.serve(&listener)?);
    }
    for (gone, all) in [(12, 12), (12, 24)] {
        for client in clients.drain(..gone) {
            world.far.deafen(client.far)?;
            drop(client.near);
        }
        until_tried(world, "fin-wait-1", all)?;
        let diagnosis = world.diagnose(&arguments);
        let when = format!("{all} of 60 clients");
        if all == 12 {
            // All of one address: that may be one phone.
            world.calm(&when, &diagnosis, ID);
            world.fires(&when, &diagnosis, ID, Severity::Info);
            continue;
        }
        let found = world.fires(&when, &diagnosis, ID, Severity::Warning);
        if let Some(found) = found {
            let right = found.severity == Severity::Warning
                && found.subject.kind == "listener"
                && found.subject.port == Some(443)
                && found.measured(24, 24);
            world.expect(right, || format!("{when}: {found:?}"));
        }
    }
    drop(clients);
    Ok(())
}

fn last_ack_stuck(world: &mut World) -> Result<()> {
    const ID: &str = "last-ack-stuck";
    let arguments = ["--only", ID, "--threshold", "last-ack-stuck.age=2s"];
    acquaint(world, Family::V4)?;
    let close = |count: usize, all: usize| -> Result<()> {
        let mut closing = Vec::new();
        for _ in 0..count {
            let connection = world.dial(Family::V4, 443)?;
            world.far.shut_write(connection.far)?;
            closing.push(connection);
        }
        until_count(kernel::CLOSE_WAIT, count)?;
        for connection in closing {
            world.far.deafen(connection.far)?;
            drop(connection.near);
        }
        until_tried(world, "last-ack", all)
    };
    close(4, 4)?;
    world.calm("4 unanswered", &world.diagnose(&arguments), ID);
    close(1, 5)?;
    let young = world.diagnose(&["--only", ID, "--threshold", "last-ack-stuck.age=100s"]);
    world.quiet("5 unanswered, but young", &young, ID);
    let diagnosis = world.diagnose(&arguments);
    let found = world.fires("5 unanswered", &diagnosis, ID, Severity::Warning);
    is_about(world, found, Family::V4.far(443), 5);
    if let Some(found) = found {
        // Nothing of theirs is lost.
        world.expect(found.severity == Severity::Warning, || format!("{found:?}"));
    }
    Ok(())
}

fn closing_stuck(world: &mut World) -> Result<()> {
    const ID: &str = "closing-stuck";
    let arguments = ["--only", ID, "--threshold", "closing-stuck.age=2s"];
    let twice = [
        arguments.as_slice(),
        &["--samples", "2", "--interval", "1s"],
    ]
    .concat();
    acquaint(world, Family::V4)?;
    let mut kept = Vec::new();
    let mut close = |count: usize| -> Result<()> {
        for _ in 0..count {
            let connection = unheard(world, Family::V4, 443)?;
            connection.near.shutdown(Shutdown::Write)?;
            world.far.shut_write(connection.far)?;
            kept.push(connection);
        }
        until_count(kernel::CLOSING, kept.len())?;
        until_tried(world, "closing", kept.len())
    };
    close(4)?;
    world.calm("4 in two samples", &world.diagnose(&twice), ID);
    close(1)?;
    let once = world.diagnose(&arguments);
    world.calm("5 in one sample", &once, ID);
    world.fires("5 in one sample", &once, ID, Severity::Info);
    let diagnosis = world.diagnose(&twice);
    let found = world.fires("5 in two samples", &diagnosis, ID, Severity::Warning);
    is_about(world, found, Family::V4.far(443), 5);
    if let Some(found) = found {
        // The peer's FIN keeps coming.
        let right = found.explanation.contains("what this host sends");
        world.expect(right, || format!("loss in one direction: {found:?}"));
    }
    Ok(())
}

fn fin_wait_2_orphan_flood(world: &mut World) -> Result<()> {
    const ID: &str = "fin-wait-2-orphan-flood";
    let arguments = [
        "--only",
        ID,
        "--threshold",
        "fin-wait-2-orphan-flood.min=20",
    ];
    let close = |count: usize, all: usize| -> Result<()> {
        for _ in 0..count {
            // Far holds its end, and does not close it.
            drop(world.dial(Family::V4, 443)?.near);
        }
        until_count(kernel::FIN_WAIT_2, all)
    };
    close(19, 19)?;
    world.quiet("19", &world.diagnose(&arguments), ID);
    close(1, 20)?;
    let diagnosis = world.diagnose(&arguments);
    let found = world.fires("20", &diagnosis, ID, Severity::Warning);
    is_about(world, found, Family::V4.far(443), 20);
    if let Some(found) = found {
        world.expect(found.who_must_act == "peer", || format!("{found:?}"));
    }
    world.quiet("20 of 1,000", &world.diagnose(&["--only", ID]), ID);
    // Few, but two thirds of the table.
    set_sysctl("net/ipv4/tcp_max_tw_buckets", "30")?;
    let both = ["--only", "fin-wait-2-orphan-flood,time-wait-flood"];
    let full = world.diagnose(&both);
    world.fires("20 of a table of 30", &full, ID, Severity::Warning);
    let follows = full
        .of("time-wait-flood")
        .all(|found| found.caused_by.as_deref() == Some(ID));
    world.expect(follows, || {
        format!("they are why the table fills: {}", full.in_short())
    });
    Ok(())
}

/// Closes connections of near, near first, until it is told to stop.
struct Closing {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Closing {
    fn start(far: &Far, port: u16, each: Duration) -> Self {
        let (far, stop) = (far.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let connection = far.dialled(Family::V4.far(port))?;
                drop(connection.near);
                far.close(connection.far)?;
                thread::sleep(each);
            }
            Ok(())
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the closing thread panicked"))?
    }
}

fn time_wait_overflow(world: &mut World) -> Result<()> {
    const ID: &str = "time-wait-overflow";
    let only = ["--only", "time-wait-overflow,time-wait-flood"];
    set_sysctl("net/ipv4/tcp_max_tw_buckets", "20")?;
    let more = Closing::start(&world.far, 443, Duration::from_millis(50));
    until_count(kernel::TIME_WAIT, 20)?;
    let full = world.diagnose(&only);
    more.stop()?;
    let found = world.fires("a full table", &full, ID, Severity::Warning);
    if let Some(found) = found {
        let right = found.severity == Severity::Warning
            && found.subject.kind == "host"
            && found.who_must_act == "operator"
            && found.caused_by.as_deref() == Some("time-wait-flood");
        world.expect(right, || format!("{found:?}"));
    }
    // As full as it was, and nothing closes: what the counter says of before is no news.
    let after = world.diagnose(&only);
    world.quiet("a full table at rest", &after, ID);
    set_sysctl("net/ipv4/tcp_max_tw_buckets", "10000")?;
    let more = Closing::start(&world.far, 443, Duration::from_millis(50));
    let room = world.diagnose(&only);
    more.stop()?;
    world.quiet("a table with room", &room, ID);
    Ok(())
}

fn time_wait_server_side(world: &mut World) -> Result<()> {
    const ID: &str = "time-wait-server-side";
    let arguments = ["--only", ID, "--threshold", "time-wait-server-side.min=20"];
    let listener = listen(Family::V4.near(8080), 64)?;
    let serve = || -> Result<()> {
        let client = world.serve(&listener)?;
        drop(client.near);
        world.far.close(client.far)
    };
    time_wait(19, serve)?;
    world.quiet("19 on the port", &world.diagnose(&arguments), ID);
    time_wait(20, serve)?;
    let diagnosis = world.diagnose(&arguments);
    world.calm("20 on the port", &diagnosis, ID);
    let found = world.fires("20 on the port", &diagnosis, ID, Severity::Info);
    if let Some(found) = found {
        let right = found.subject.kind == "listener"
            && found.subject.port == Some(8080)
            && found.who_must_act == "nobody"
            && found.measured(20, 20);
        world.expect(right, || format!("{found:?}"));
    }
    // It keeps nobody out.
    serve()?;
    let busy = kernel::count(kernel::TIME_WAIT)?;
    time_wait(2 * busy, || close_first(world, 443))?;
    let dialled = world.diagnose(&arguments);
    world.quiet("half of them are a client's", &dialled, ID);
    Ok(())
}

/// The gauge and the limit are the machine's: here, in a child namespace, only its own orphans can be told.
fn orphan_pile_up(world: &mut World) -> Result<()> {
    const ID: &str = "orphan-pile-up";
    let arguments = ["--only", ID, "--threshold", "orphan-pile-up.info=20"];
    let close = |count: usize, all: usize| -> Result<()> {
        for _ in 0..count {
            drop(unheard(world, Family::V4, 443)?.near);
        }
        until_count(kernel::FIN_WAIT_1, all)
    };
    close(19, 19)?;
    let below = world.diagnose(&arguments);
    // Whether that is quiet depends on the orphans of other namespaces.
    world.expect(below.worst(ID).is_none(), || below.in_short());
    close(1, 20)?;
    let diagnosis = world.diagnose(&arguments);
    world.calm("20 orphans", &diagnosis, ID);
    let found = world.fires("20 orphans", &diagnosis, ID, Severity::Info);
    if let Some(found) = found {
        let right = found.subject.kind == "host"
            && found.measured(20, 20)
            && found.explanation.contains("cannot read");
        world.expect(right, || format!("{found:?}"));
    }
    Ok(())
}

fn connection_churn(world: &mut World) -> Result<()> {
    const ID: &str = "connection-churn";
    set_sysctl("net/ipv4/ip_local_port_range", "40000 40099")?;
    let arguments = ["--only", ID, "--threshold", "connection-churn.window=8s"];
    for _ in 0..20 {
        close_first(world, 80)?;
    }
    world.calm("a burst of 20", &world.diagnose(&arguments), ID);

    // Four a second: 240 ports in a minute.
    let more = Closing::start(&world.far, 443, Duration::from_millis(250));
    until("eight seconds of closes", || {
        let diagnosis = world.diagnose(&arguments);
        Ok(diagnosis
            .worst(ID)
            .is_none_or(|found| found.severity < Severity::Warning)
            .then(|| diagnosis.in_short()))
    })?;
    let diagnosis = world.diagnose(&arguments);
    let patient = world.diagnose(&["--only", ID]);
    more.stop()?;
    let found = world.fires("a lasting rate", &diagnosis, ID, Severity::Warning);
    if let Some(found) = found {
        let right = found.subject.kind == "destination"
            && found.subject.address == Some(Family::V4.far(0).ip())
            && found.subject.port == Some(443);
        world.expect(right, || format!("{found:?}"));
    }
    world.calm("half a minute has not passed", &patient, ID);
    Ok(())
}
