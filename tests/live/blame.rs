//! Who is to blame for CLOSE-WAIT: the program that does not close, and nobody else.

use std::fs;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use rustix::process::{Resource, getrlimit};

use crate::answers::{Diagnosis, Severity};
use crate::harness::Test;
use crate::kernel::{self, until_count};
use crate::world::{
    Connection, Family, Far, PLENTY, World, connect, fill, limit_descriptors, listen,
};

pub const TESTS: &[Test] = &[
    Test {
        name: "close_wait_leak",
        run: close_wait_leak,
    },
    Test {
        name: "close_wait_leak_is_held_against_the_limit",
        run: close_wait_leak_is_held_against_the_limit,
    },
    Test {
        name: "close_wait_pool_is_info",
        run: close_wait_pool_is_info,
    },
    Test {
        name: "close_wait_with_a_stalled_send_queue_is_no_leak",
        run: close_wait_with_a_stalled_send_queue_is_no_leak,
    },
    Test {
        name: "a_loopback_pair_is_blamed_once",
        run: a_loopback_pair_is_blamed_once,
    },
];

const ID: &str = "close-wait-leak";
const PORT: u16 = 443;

/// Looks for two seconds, in which arrivals show.
const LOOK: [&str; 8] = [
    "--only",
    ID,
    "--threshold",
    "close-wait-leak.age=1s",
    "--samples",
    "3",
    "--interval",
    "1s",
];

/// Connects, and the peer closes: one more in CLOSE-WAIT.
fn leak(far: &Far, count: usize) -> Result<Vec<Connection>> {
    let mut leaked = Vec::new();
    for _ in 0..count {
        let connection = far.dialled(Family::V4.far(PORT))?;
        far.close(connection.far)?;
        leaked.push(connection);
    }
    Ok(leaked)
}

/// Goes on leaking until it is told to stop.
struct Leaking {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Connection>>>,
}

impl Leaking {
    fn start(far: &Far, each: Duration) -> Self {
        let (far, stop) = (far.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut leaked = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                leaked.extend(leak(&far, 1)?);
                thread::sleep(each);
            }
            Ok(leaked)
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<Vec<Connection>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the leaking thread panicked"))?
    }
}

fn close_wait_leak(world: &mut World) -> Result<()> {
    limit_descriptors(PLENTY)?;
    let mut leaked = Vec::new();
    for _ in 0..4 {
        leaked.extend(leak(&world.far, 15)?);
        thread::sleep(Duration::from_millis(700));
    }
    until_count(kernel::CLOSE_WAIT, 60)?;

    // Against the default age they are all young.
    let more = Leaking::start(&world.far, Duration::from_millis(100));
    let young = world.diagnose(&["--only", ID, "--samples", "2", "--interval", "1s"]);
    let diagnosis = world.diagnose(&LOOK);
    leaked.extend(more.stop()?);

    world.calm("60, but younger than a minute", &young, ID);
    let found = world.fires("60 and more", &diagnosis, ID, Severity::Warning);
    let Some(found) = found else { return Ok(()) };
    let pid = std::process::id();
    let comm = fs::read_to_string("/proc/self/comm")?;
    let subject = &found.subject;
    world.expect(
        subject.kind == "process"
            && subject.pid == Some(pid)
            && subject.comm.as_deref() == Some(comm.trim_end()),
        || format!("{comm}[{pid}] leaks: {subject:?}"),
    );
    world.expect(
        found.who_must_act == "this-program"
            && found.variant.as_deref() != Some("close-wait-stale"),
        || format!("a leak, and the program's own: {found:?}"),
    );
    world.expect(found.measured(60, leaked.len()), || {
        format!("between 60 and {} leak: {found:?}", leaked.len())
    });
    let shown = found.sockets.iter().all(|row| {
        row.state == "close-wait"
            && (row.peer_address, row.peer_port) == (Family::V4.far(0).ip(), PORT)
    });
    world.expect(shown && !found.sockets.is_empty(), || {
        format!("some of them are shown: {found:?}")
    });
    Ok(())
}

/// Few of many sockets: a leak where descriptors are scarce, and not worth a person's day where they are not.
fn close_wait_leak_is_held_against_the_limit(world: &mut World) -> Result<()> {
    let mut kept = Vec::new();
    for _ in 0..40 {
        kept.push(world.dial(Family::V4, PORT)?);
    }
    kept.extend(leak(&world.far, 6)?);
    until_count(kernel::CLOSE_WAIT, 6)?;
    thread::sleep(Duration::from_millis(1500));
    let more = Leaking::start(&world.far, Duration::from_millis(500));
    limit_descriptors(PLENTY)?;
    ensure!(
        getrlimit(Resource::Nofile)
            .current
            .is_none_or(|soft| soft >= 4096),
        "the hard limit leaves no room for this test"
    );
    let plenty = world.diagnose(&LOOK);
    limit_descriptors(300)?;
    let scarce = world.diagnose(&LOOK);
    kept.extend(more.stop()?);
    world.calm("a few of a million descriptors", &plenty, ID);
    world.fires("a few of 300 descriptors", &scarce, ID, Severity::Warning);
    Ok(())
}

fn close_wait_pool_is_info(world: &mut World) -> Result<()> {
    let pool = leak(&world.far, 20)?;
    until_count(kernel::CLOSE_WAIT, 20)?;
    thread::sleep(Duration::from_millis(1500));
    let diagnosis = world.diagnose(&LOOK);
    world.calm("20 that died together", &diagnosis, ID);
    let found = world.fires("20 that died together", &diagnosis, ID, Severity::Info);
    if let Some(found) = found {
        let right = found.variant.as_deref() == Some("close-wait-stale") && found.measured(20, 20);
        world.expect(right, || format!("20 stale ones, no leak: {found:?}"));
    }
    drop(pool);
    Ok(())
}

/// The peer has half closed and then stopped reading: this program has not forgotten anything.
fn close_wait_with_a_stalled_send_queue_is_no_leak(world: &mut World) -> Result<()> {
    let mut stalled = Vec::new();
    let mut more = |count: usize| -> Result<()> {
        for _ in 0..count {
            let connection = world.dial(Family::V4, PORT)?;
            world.far.shut_write(connection.far)?;
            stalled.push(connection);
        }
        until_count(kernel::CLOSE_WAIT, stalled.len())?;
        let mut fresh = stalled.iter().rev().take(count);
        fresh.try_for_each(|connection| fill(&connection.near))
    };
    // In three batches, so that they did not die together either.
    for _ in 0..3 {
        more(4)?;
        thread::sleep(Duration::from_millis(500));
    }
    let lines = kernel::table()?;
    let waiting = lines
        .iter()
        .filter(|line| line.state == kernel::CLOSE_WAIT && line.send_q > 0);
    ensure!(waiting.count() == 12, "the send queues should be full");
    thread::sleep(Duration::from_secs(1));
    world.quiet("12 with a full send queue", &world.diagnose(&LOOK), ID);
    Ok(())
}

/// Both ends are in the table. The one that does not close is to blame, not the one that waits for it.
fn a_loopback_pair_is_blamed_once(world: &mut World) -> Result<()> {
    let address = Family::V4.loopback(8080);
    let listener = listen(address, 64)?;
    let mut pairs = Vec::new();
    let mut more = |count: usize| -> Result<()> {
        for _ in 0..count {
            let client = connect(address)?;
            let (server, _) = listener.accept()?;
            server.shutdown(Shutdown::Write)?;
            pairs.push((client, server));
        }
        until_count(kernel::CLOSE_WAIT, pairs.len())?;
        until_count(kernel::FIN_WAIT_2, pairs.len())
    };
    for _ in 0..3 {
        more(20)?;
        thread::sleep(Duration::from_millis(800));
    }
    thread::sleep(Duration::from_secs(1));
    let diagnosis: Diagnosis = thread::scope(|scope| {
        let arriving = scope.spawn(|| {
            for _ in 0..20 {
                more(1)?;
                thread::sleep(Duration::from_millis(100));
            }
            anyhow::Ok(())
        });
        let mut arguments = LOOK.to_vec();
        arguments.extend(["--threshold", "fin-wait-2-stuck.age=1s"]);
        if let Some(only) = arguments.iter_mut().find(|argument| **argument == ID) {
            *only = "close-wait-leak,fin-wait-2-stuck";
        }
        let diagnosis = world.diagnose(&arguments);
        arriving
            .join()
            .map_err(|_| anyhow!("the arriving thread panicked"))??;
        anyhow::Ok(diagnosis)
    })?;
    let when = "60 loopback pairs";
    let found = world.fires(when, &diagnosis, ID, Severity::Warning);
    if let Some(found) = found {
        let shown = found.sockets.iter();
        let blamed = shown.map(|row| (row.state.as_str(), row.peer_port));
        let mut others = blamed.filter(|end| *end != ("close-wait", 8080));
        world.expect(others.next().is_none(), || {
            format!("the client's end is to blame: {found:?}")
        });
    }
    world.expect(diagnosis.of(ID).count() <= 1, || {
        format!("one fault is one finding: {}", diagnosis.in_short())
    });
    world.quiet(when, &diagnosis, "fin-wait-2-stuck");
    Ok(())
}
