//! What is read beside the TCP sockets: UDP and UNIX sockets, descriptors that no table shows, and whether their owner
//! runs at all.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::answers::{Diagnosis, Finding, Severity};
use crate::harness::{Skip, Test};
use crate::kernel::{self, until, until_count};
use crate::states::lists_bound_sockets;
use crate::world::{Family, Far, PLENTY, World, limit_descriptors, tcp};

pub const TESTS: &[Test] = &[
    Test {
        name: "udp_rcvbuf_drops",
        run: udp_rcvbuf_drops,
    },
    Test {
        name: "udp_multicast_that_nobody_reads_is_exempt",
        run: udp_multicast_that_nobody_reads_is_exempt,
    },
    Test {
        name: "unix_backlog_full",
        run: unix_backlog_full,
    },
    Test {
        name: "closed_fd_leak",
        run: closed_fd_leak,
    },
    Test {
        name: "a_stopped_owner_is_named",
        run: a_stopped_owner_is_named,
    },
];

const DROPS: &str = "udp-rcvbuf-drops";
const BACKLOG: &str = "unix-backlog-full";
const CLOSED: &str = "closed-fd-leak";

/// Far sends datagrams until it is told to stop.
struct Sending {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Sending {
    /// So many datagrams every ten milliseconds.
    fn start(far: &Far, to: SocketAddr, burst: usize) -> Self {
        let (far, stop) = (far.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            far.run(move |_| {
                let socket = UdpSocket::bind("10.99.0.2:0")?;
                socket2::SockRef::from(&socket)
                    .set_multicast_if_v4(&Ipv4Addr::new(10, 99, 0, 2))?;
                while !stopped.load(Ordering::Relaxed) {
                    for _ in 0..burst {
                        socket.send_to(&[7; 500], to)?;
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                Ok(())
            })
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the sender panicked"))?
    }
}

/// Waits until the UDP socket on the port has dropped something.
fn until_dropping(port: u16) -> Result<()> {
    let place = format!(":{port:04X}");
    until("drops", || {
        let table = fs::read_to_string("/proc/thread-self/net/udp")?;
        let mut lines = table
            .lines()
            .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        let line = lines.find(|words| words.get(1).is_some_and(|local| local.ends_with(&place)));
        let drops = line
            .context("no such socket")?
            .last()
            .map_or("", |word| *word)
            .to_owned();
        Ok((drops == "0").then_some(drops))
    })
}

/// What a capture that is made now says.
fn captured(world: &World, name: &str, id: &str) -> Result<Diagnosis> {
    let file = world.scratch.path().join(name);
    let file = file.to_str().context("an odd temporary directory")?;
    let recorded = world.linger(&["record", file])?;
    world.expect(recorded.status.success(), || format!("{recorded:?}"));
    Ok(world.diagnose(&["--from", file, "--only", id]))
}

fn about_us(world: &World, found: Option<&Finding>) {
    if let Some(found) = found {
        world.expect(found.subject.pid == Some(std::process::id()), || {
            format!("{}: not about this process: {:?}", found.id, found.subject)
        });
    }
}

fn unknown(world: &World, when: &str, diagnosis: &Diagnosis, id: &str) {
    let unknown = diagnosis.unknown.iter().any(|unjudged| unjudged.id == id);
    world.expect(unknown || diagnosis.missing, || {
        format!("{when}: {id} cannot be told; {}", diagnosis.in_short())
    });
}

fn udp_rcvbuf_drops(world: &mut World) -> Result<()> {
    // Somebody reads what comes.
    let read = UdpSocket::bind(Family::V4.near(8125))?;
    let reader = read.try_clone()?;
    reader.set_read_timeout(Some(Duration::from_millis(200)))?;
    let reading = Arc::new(AtomicBool::new(true));
    let goes_on = Arc::clone(&reading);
    let thread = thread::spawn(move || {
        let mut buffer = [0; 1000];
        while goes_on.load(Ordering::Relaxed) {
            reader.recv(&mut buffer).ok();
        }
    });
    let sending = Sending::start(&world.far, Family::V4.near(8125), 2);
    let calm = world.diagnose(&["--only", DROPS]);
    world.quiet("every datagram is read", &calm, DROPS);
    sending.stop()?;
    reading.store(false, Ordering::Relaxed);
    thread.join().map_err(|_| anyhow!("the reader panicked"))?;

    // Nobody reads.
    let unread = UdpSocket::bind(Family::V4.near(8126))?;
    socket2::SockRef::from(&unread).set_recv_buffer_size(8192)?;
    let sending = Sending::start(&world.far, Family::V4.near(8126), 20);
    until_dropping(8126)?;
    for collector in ["netlink", "procfs"] {
        let diagnosis = world.diagnose(&["--only", DROPS, "--collector", collector]);
        let found = world.fires(collector, &diagnosis, DROPS, Severity::Warning);
        about_us(world, found);
        if let Some(found) = found {
            world.expect(found.title.contains(":8126"), || found.title.clone());
            world.expect(diagnosis.of(DROPS).count() == 1, || diagnosis.in_short());
        }
    }
    let once = world.diagnose(&["--only", DROPS, "--samples", "1"]);
    unknown(world, "one look", &once, DROPS);
    let capture = captured(world, "udp.linger", DROPS)?;
    about_us(
        world,
        world.fires("a capture", &capture, DROPS, Severity::Warning),
    );
    sending.stop()?;

    // What was lost before is not lost now.
    let after = world.diagnose(&["--only", DROPS]);
    world.quiet("nothing comes any more", &after, DROPS);
    drop((read, unread));
    Ok(())
}

fn udp_multicast_that_nobody_reads_is_exempt(world: &mut World) -> Result<()> {
    let group = Ipv4Addr::new(239, 1, 1, 1);
    for (port, bound) in [(5001, Ipv4Addr::UNSPECIFIED), (5002, group)] {
        let socket = UdpSocket::bind((bound, port))?;
        socket.join_multicast_v4(&group, &Ipv4Addr::new(10, 99, 0, 1))?;
        socket2::SockRef::from(&socket).set_recv_buffer_size(8192)?;
        let sending = Sending::start(&world.far, (group, port).into(), 20);
        until_dropping(port)?;
        let diagnosis = world.diagnose(&["--only", DROPS]);
        world.quiet(&format!("multicast to {bound}:{port}"), &diagnosis, DROPS);
        sending.stop()?;
    }
    // A member of a group is no excuse for what is meant for it alone.
    let member = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5003))?;
    member.join_multicast_v4(&group, &Ipv4Addr::new(10, 99, 0, 1))?;
    socket2::SockRef::from(&member).set_recv_buffer_size(8192)?;
    let sending = Sending::start(&world.far, Family::V4.near(5003), 20);
    until_dropping(5003)?;
    let diagnosis = world.diagnose(&["--only", DROPS]);
    world.fires("unicast to a member", &diagnosis, DROPS, Severity::Warning);
    sending.stop()
}

fn unix_backlog_full(world: &mut World) -> Result<()> {
    let path = world.scratch.path().join("app.sock");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    listener.bind(&SockAddr::unix(&path)?)?;
    listener.listen(10)?;
    let mut clients = Vec::new();
    let mut connect = |count| -> Result<()> {
        while clients.len() < count {
            clients.push(UnixStream::connect(&path)?);
        }
        Ok(())
    };
    let look = || world.diagnose(&["--only", BACKLOG]);
    connect(6)?;
    world.quiet("6 of 10", &look(), BACKLOG);
    connect(7)?;
    let near = look();
    let found = world.fires("7 of 10", &near, BACKLOG, Severity::Warning);
    about_us(world, found);
    world.expect(
        found.is_none_or(|f| f.severity == Severity::Warning),
        || near.in_short(),
    );
    connect(11)?;
    let full = look();
    let found = world.fires("11 of 10", &full, BACKLOG, Severity::Critical);
    about_us(world, found);
    if let Some(found) = found {
        world.expect(found.measured(11, 11), || format!("{found:?}"));
    }
    let capture = captured(world, "unix.linger", BACKLOG)?;
    let again = world.fires("a capture", &capture, BACKLOG, Severity::Critical);
    let title = |found: Option<&Finding>| found.map(|found| found.title.clone());
    world.expect(title(again) == title(found), || capture.in_short());
    let text = world.diagnose(&["--only", BACKLOG, "--collector", "procfs"]);
    unknown(world, "/proc/net/unix", &text, BACKLOG);

    drop(clients);
    let gone = look();
    let found = world.fires("all have given up", &gone, BACKLOG, Severity::Warning);
    world.expect(
        found.is_none_or(|f| f.severity == Severity::Warning),
        || gone.in_short(),
    );
    for _ in 0..11 {
        listener.accept()?;
    }
    world.quiet("all accepted", &look(), BACKLOG);
    Ok(())
}

fn closed_fd_leak(world: &mut World) -> Result<()> {
    if !lists_bound_sockets()? {
        return Err(Skip("this kernel does not list bound sockets".to_owned()).into());
    }
    limit_descriptors(PLENTY)?;
    let look = || world.diagnose(&["--only", CLOSED]);
    // Sockets that are only bound are in no table of connections either.
    let mut bound = Vec::new();
    for port in 6000..6020 {
        let socket = tcp(Family::V4.near(port))?;
        socket.bind(&Family::V4.near(port).into())?;
        bound.push(socket);
    }
    world.quiet("bound sockets", &look(), CLOSED);
    drop(bound);

    let mut kept = Vec::new();
    let mut keep_reset = |n: usize| -> Result<()> {
        for _ in 0..n {
            let connection = world.dial(Family::V4, 443)?;
            // close(2) sends a RST then.
            world.far.with(connection.far, |socket| {
                Ok(socket.set_linger(Some(Duration::ZERO))?)
            })?;
            world.far.close(connection.far)?;
            kept.push(connection.near);
        }
        until_count(kernel::ESTABLISHED, 0)
    };
    keep_reset(9)?;
    world.quiet("9 were reset", &look(), CLOSED);
    // Pools look at their connections when they want one.
    keep_reset(38)?;
    world.calm("47 were reset", &look(), CLOSED);
    for _ in 0..3 {
        let socket = tcp(Family::V4.far(9))?;
        let refused = socket.connect(&Family::V4.far(9).into());
        world.expect(refused.is_err(), || "nobody listens there".to_owned());
        kept.push(socket);
    }
    let diagnosis = look();
    let found = world.fires("47 reset, 3 refused", &diagnosis, CLOSED, Severity::Warning);
    about_us(world, found);
    if let Some(found) = found {
        world.expect(found.measured(50, 50), || format!("{found:?}"));
    }
    let capture = captured(world, "closed.linger", CLOSED)?;
    let again = world.fires("a capture", &capture, CLOSED, Severity::Warning);
    let title = |found: Option<&Finding>| found.map(|found| found.title.clone());
    world.expect(title(again) == title(found), || capture.in_short());
    let text = world.diagnose(&["--only", CLOSED, "--collector", "procfs"]);
    unknown(world, "/proc/net", &text, CLOSED);
    drop(kept);
    world.quiet("all closed", &look(), CLOSED);
    Ok(())
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have ended on its own.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn a_stopped_owner_is_named(world: &mut World) -> Result<()> {
    const ID: &str = "listen-overflow";
    // It holds a listener with a queue of 2 on this port, and accepts nobody.
    let port = 7200;
    let child = Command::new(std::env::current_exe()?)
        .arg("--hostile-child")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut child = Ends(child);
    let mut ready = [0; 6];
    let stdout = child.0.stdout.as_mut().context("no pipe")?;
    stdout
        .read_exact(&mut ready)
        .context("the child is not ready")?;
    for _ in 0..6 {
        world.far.begin_connect(Family::V4.near(port), false)?;
    }
    until("a full queue", || {
        let lines = kernel::table()?;
        let full = |line: &kernel::Line| line.local_port == port && line.recv_q == 3;
        let full = lines.iter().any(full);
        Ok((!full).then(|| format!("{lines:?}")))
    })?;
    let why = |diagnosis: &Diagnosis| -> Vec<String> {
        let found = world.fires("a full queue", diagnosis, ID, Severity::Warning);
        let evidence = found.into_iter().flat_map(|found| &found.evidence);
        evidence
            .filter(|evidence| evidence.name == "why_it_does_not_run")
            .map(|evidence| evidence.value.to_string())
            .collect()
    };
    let running = why(&world.diagnose(&["--only", ID]));
    world.expect(!running.iter().any(|why| why.contains("stopped")), || {
        format!("{running:?}")
    });

    let pid = i32::try_from(child.0.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.context("no pid")?, Signal::STOP)?;
    until("the child to stop", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.0.id()))?;
        let state = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest.starts_with('T'));
        Ok((state != Some(true)).then_some(stat))
    })?;
    let named = format!("[{}] is stopped (T)", child.0.id());
    let live = why(&world.diagnose(&["--only", ID]));
    world.expect(live.iter().any(|why| why.contains(&named)), || {
        format!("{live:?}")
    });
    let capture = why(&captured(world, "stopped.linger", ID)?);
    world.expect(capture.iter().any(|why| why.contains(&named)), || {
        format!("{capture:?}")
    });
    Ok(())
}
