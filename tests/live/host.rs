//! What programs and the host run out of, and settings: ports that are only bound, descriptors, memory, sysctls,
//! shared sockets.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::answers::{Diagnosis, Finding, Severity};
use crate::harness::{Skip, Test};
use crate::kernel::{set_sysctl, until, until_count};
use crate::owners::Heir;
use crate::world::{Family, World, limit_descriptors, listen};

pub const TESTS: &[Test] = &[
    Test {
        name: "bound_inactive_leak",
        run: bound_inactive_leak,
    },
    Test {
        name: "bound_inactive_after_reset",
        run: bound_inactive_after_reset,
    },
    Test {
        name: "fd_limit_near",
        run: fd_limit_near,
    },
    Test {
        name: "fd_limit_near_by_growth",
        run: fd_limit_near_by_growth,
    },
    Test {
        name: "risky_sysctls",
        run: risky_sysctls,
    },
    Test {
        name: "tcp_memory_pressure_unseen",
        run: tcp_memory_pressure_unseen,
    },
    Test {
        name: "shared_fd",
        run: shared_fd,
    },
];

/// A socket of near that is bound and nothing else.
fn bind(address: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

/// Kernels before 6.8 list no such sockets.
fn bound_are_listed(world: &World) -> Result<()> {
    let listed = world.rows(&["list", "-B", "--json"])?;
    if listed.is_empty() {
        return Err(Skip("this kernel does not list bound sockets".to_owned()).into());
    }
    Ok(())
}

/// The finding is about the process.
fn about_process(world: &World, found: Option<&Finding>, pid: u32) {
    if let Some(found) = found {
        let subject = &found.subject;
        world.expect(
            subject.kind == "process" && subject.pid == Some(pid),
            || format!("{}: not about process {pid}: {subject:?}", found.id),
        );
    }
}

/// The finding about the process, whatever other programs of this machine do.
fn about<'a>(diagnosis: &'a Diagnosis, id: &str, pid: u32) -> Option<&'a Finding> {
    diagnosis
        .of(id)
        .find(|found| found.subject.pid == Some(pid))
}

fn bound_inactive_leak(world: &mut World) -> Result<()> {
    const ID: &str = "bound-inactive-leak";
    set_sysctl("net/ipv4/ip_local_port_range", "40000 40099")?;
    let mut bound = Vec::new();
    for port in 40_000..40_009 {
        bound.push(bind(Family::V4.near(port))?);
    }
    bound_are_listed(world)?;
    world.quiet("9 of 100 ports", &world.diagnose(&["--only", ID]), ID);
    bound.push(bind(Family::V6.near(40_009))?);
    let tenth = world.diagnose(&["--only", ID]);
    let found = world.fires("10 of 100 ports", &tenth, ID, Severity::Warning);
    about_process(world, found, std::process::id());
    if let Some(found) = found {
        world.expect(found.measured(10, 10), || {
            format!("10 are bound: {found:?}")
        });
        world.expect(found.sockets.len() == 10, || {
            format!("it shows them: {found:?}")
        });
    }
    let procfs = world.diagnose(&["--only", ID, "--collector", "procfs"]);
    world.expect(procfs.verdict == "unknown", || {
        format!("/proc does not list them: {}", procfs.in_short())
    });
    drop(bound);
    world.quiet("none", &world.diagnose(&["--only", ID]), ID);
    Ok(())
}

fn bound_inactive_after_reset(world: &mut World) -> Result<()> {
    const ID: &str = "bound-inactive-leak";
    let address = Family::V4.far(8080);
    let far = world
        .far
        .run(move |far| Ok(far.keep(listen(address, 16)?)))?;
    let mut kept = Vec::new();
    for port in 10_000..10_003 {
        let socket = bind(Family::V4.near(port))?;
        socket.connect(&SockAddr::from(address))?;
        kept.push(socket);
    }
    world.far.with(far, |listener| {
        for _ in 0..3 {
            let (session, _) = listener.accept()?;
            // close(2) then sends a reset.
            session.set_linger(Some(Duration::ZERO))?;
        }
        Ok(())
    })?;
    until_count(crate::kernel::ESTABLISHED, 0)?;
    bound_are_listed(world)?;
    let twice = [
        "--only",
        ID,
        "--samples",
        "2",
        "--interval",
        "200ms",
        "--threshold",
    ];
    let with = |count: &str| world.diagnose(&[&twice[..], &[count]].concat());
    let four = with("bound-inactive-leak.count=4");
    world.quiet("3 of 4", &four, ID);
    let three = with("bound-inactive-leak.count=3");
    let found = world.fires("3 that were reset", &three, ID, Severity::Warning);
    about_process(world, found, std::process::id());
    if let Some(found) = found {
        let ended = found.evidence.iter().find(|one| one.name == "with_a_peer");
        world.expect(ended.is_some_and(|one| one.value == 3), || {
            format!("3 had a peer: {found:?}")
        });
    }
    Ok(())
}

/// The soft limit of a holder.
const LIMIT: usize = 64;

/// A program that has inherited sockets and may have few descriptors.
struct Holder(Child);

impl Holder {
    /// With so many descriptors open.
    fn of(open: usize) -> Result<Self> {
        // Who runs the tests may have handed down some of its own.
        let without = Self::start(0)?.descriptors()?;
        let holder = Self::start(open.saturating_sub(without))?;
        let found = holder.descriptors()?;
        ensure!(found == open, "{found} descriptors instead of {open}");
        Ok(holder)
    }

    /// With so many sockets.
    fn start(sockets: usize) -> Result<Self> {
        let sockets: Vec<Socket> = (0..sockets)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                socket.set_cloexec(false)?;
                Ok(socket)
            })
            .collect::<Result<_>>()?;
        let holder = Self(
            Command::new("sleep")
                .arg("60")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot run sleep")?,
        );
        drop(sockets);
        // A program that is being loaded has files of its own.
        let stat = format!("/proc/{}/stat", holder.pid());
        let mut sleeps = 0;
        until("the holder", || {
            let text = std::fs::read_to_string(&stat)?;
            sleeps = if text.contains("(sleep) S") {
                sleeps + 1
            } else {
                0
            };
            Ok((sleeps < 5).then_some(text))
        })?;
        // Only now: it could not be loaded without a descriptor to spare.
        let pid = Pid::from_raw(holder.0.id().try_into()?);
        let maximum = getrlimit(Resource::Nofile).maximum;
        let current = Some(LIMIT as u64);
        prlimit(pid, Resource::Nofile, Rlimit { current, maximum })?;
        Ok(holder)
    }

    fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn fd_limit_near(world: &mut World) -> Result<()> {
    const ID: &str = "fd-limit-near";
    // 80 % of 64 are 51.2.
    let below = Holder::of(51)?;
    let near = Holder::of(52)?;
    let full = Holder::of(LIMIT)?;
    let diagnosis = world.diagnose(&["--only", ID]);
    world.expect(about(&diagnosis, ID, below.pid()).is_none(), || {
        format!("51 of 64 are not near: {}", diagnosis.in_short())
    });
    for (holder, open, severity) in [
        (&near, 52, Severity::Warning),
        (&full, 64, Severity::Critical),
    ] {
        let found = about(&diagnosis, ID, holder.pid());
        let right =
            found.is_some_and(|found| found.severity == severity && found.measured(open, open));
        world.expect(diagnosis.missing || right, || {
            format!("{open} of 64 should be {severity:?}: {found:?}")
        });
    }
    let code = world
        .linger(&["diagnose", "--only", ID, "--exit-code"])?
        .status
        .code();
    world.expect(code == Some(11), || format!("critical is 11, not {code:?}"));
    let muted = mute(world, ID, &full)?;
    let diagnosis = world.diagnose(&["--only", ID, "--config", &muted]);
    world.expect(about(&diagnosis, ID, full.pid()).is_none(), || {
        format!("it is muted: {}", diagnosis.in_short())
    });
    Ok(())
}

/// A configuration that mutes what is found of the holder's program.
fn mute(world: &World, id: &str, holder: &Holder) -> Result<String> {
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", holder.pid()))?;
    let path = world.scratch.path().join("linger.toml");
    let text = format!(
        "[[mute]]\nfinding = \"{id}\"\nprocess = \"{}\"\nreason = \"a test\"\nexpires = 9999-12-31\n",
        comm.trim_end()
    );
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

fn fd_limit_near_by_growth(world: &mut World) -> Result<()> {
    const ID: &str = "fd-limit-near";
    const MOST: usize = 4096;
    // It counts what holds a TCP socket.
    let _listener = listen(Family::V4.near(8080), 5)?;
    limit_descriptors(MOST as u64)?;
    let null = File::open("/dev/null")?;
    let mut open = (0..MOST * 81 / 100)
        .map(|_| null.try_clone())
        .collect::<Result<Vec<File>, _>>()?;
    let pid = std::process::id();
    let thrice = ["--only", ID, "--samples", "3", "--interval", "300ms"];
    let flat = world.diagnose(&thrice);
    let found = about(&flat, ID, pid);
    let right = found.is_some_and(|found| {
        found.severity == Severity::Warning && found.explanation.contains("not a socket problem")
    });
    world.expect(flat.missing || right, || {
        format!("81 % that do not grow, most of them files: {found:?}")
    });
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let growing = thread::spawn(move || {
        // Room for linger's own start, and for 10 s of a slow machine.
        while !stopped.load(Ordering::Relaxed) && open.len() < MOST - 50 {
            open.extend(null.try_clone());
            thread::sleep(Duration::from_millis(20));
        }
    });
    let grown = world.diagnose(&thrice);
    stop.store(true, Ordering::Relaxed);
    ensure!(growing.join().is_ok(), "no more could be opened");
    let found = about(&grown, ID, pid);
    let right = found.is_some_and(|found| {
        found.severity == Severity::Critical && found.title.contains("none left in")
    });
    world.expect(grown.missing || right, || {
        format!("81 % and 50 more a second: {found:?}")
    });
    Ok(())
}

fn risky_sysctls(world: &mut World) -> Result<()> {
    const ID: &str = "risky-sysctls";
    // What a new namespace has may be the machine's choice.
    for (name, value) in [
        ("tcp_abort_on_overflow", "0"),
        ("tcp_fin_timeout", "60"),
        ("tcp_max_tw_buckets", "131072"),
        ("tcp_rfc1337", "0"),
        ("tcp_syncookies", "1"),
        ("tcp_timestamps", "1"),
        ("tcp_tw_reuse", "2"),
        ("ip_local_port_range", "32768 60999"),
    ] {
        set_sysctl(&format!("net/ipv4/{name}"), value)?;
    }
    let listener = listen(Family::V4.near(8080), 1)?;
    let only = ["--only", ID];
    world.quiet("all as usual", &world.diagnose(&only), ID);
    set_sysctl("net/ipv4/tcp_fin_timeout", "61")?;
    let found = world.diagnose(&only);
    world.fires("60 < tcp_fin_timeout < 120", &found, ID, Severity::Info);
    world.calm("60 < tcp_fin_timeout < 120", &found, ID);
    set_sysctl("net/ipv4/tcp_fin_timeout", "60")?;

    set_sysctl("net/ipv4/tcp_abort_on_overflow", "1")?;
    world.calm("nothing overflows", &world.diagnose(&only), ID);
    // Two fit; the others knock again every second.
    for _ in 0..12 {
        world.far.begin_connect(Family::V4.near(8080), false)?;
    }
    let overflowing = world.diagnose(&["--only", ID, "--samples", "2", "--interval", "2500ms"]);
    let found = world.fires("a queue overflows", &overflowing, ID, Severity::Warning);
    if let Some(found) = found {
        world.expect(found.title.contains("tcp_abort_on_overflow=1"), || {
            format!("it names the setting: {}", found.title)
        });
        world.expect(found.subject.kind == "host", || {
            format!("{:?}", found.subject)
        });
    }
    drop(listener);
    Ok(())
}

/// `tcp_mem` is not in a namespace like this one; as long as no counter moves there is no question.
fn tcp_memory_pressure_unseen(world: &mut World) -> Result<()> {
    const ID: &str = "tcp-memory-pressure";
    let _session = world.dial(Family::V4, 8080)?;
    let diagnosis = world.diagnose(&["--only", ID]);
    world.quiet("nothing is short", &diagnosis, ID);
    Ok(())
}

fn shared_fd(world: &mut World) -> Result<()> {
    const ID: &str = "shared-fd";
    let listener = listen(Family::V4.near(8080), 5)?;
    let session = world.serve(&listener)?;
    world.quiet("one holder", &world.diagnose(&["--only", ID]), ID);
    let heir = Heir::of(&[&listener, &session.near])?;
    let shared = world.diagnose(&["--only", ID]);
    let found = world.fires("sleep has inherited two", &shared, ID, Severity::Info);
    world.calm("sleep has inherited two", &shared, ID);
    if let Some(found) = found {
        let pids = [std::process::id(), heir.pid()];
        world.expect(
            found.subject.pid.is_some_and(|pid| pids.contains(&pid)),
            || format!("it names the holders: {found:?}"),
        );
        world.expect(
            found.measured(2, 2) && found.title.contains("sleep["),
            || format!("two are shared with sleep: {found:?}"),
        );
    }
    drop(heir);
    world.quiet("one holder again", &world.diagnose(&["--only", ID]), ID);
    Ok(())
}
