//! Connections on which nothing moves any more, or only by sending it again.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::{SockFilter, Socket, TcpKeepalive};

use crate::answers::{Finding, Row, Severity};
use crate::findings::{about_destination, about_listener};
use crate::harness::Test;
use crate::kernel::until;
use crate::world::{
    Connection, Family, Handle, PLENTY, World, connect, limit_descriptors, listen, local,
};

pub const TESTS: &[Test] = &[
    Test {
        name: "retransmit_storm",
        run: retransmit_storm,
    },
    Test {
        name: "idle_no_keepalive",
        run: idle_no_keepalive,
    },
    Test {
        name: "keepalive_failing",
        run: keepalive_failing,
    },
    Test {
        name: "keepalive_of_clients",
        run: keepalive_of_clients,
    },
    Test {
        name: "awaiting_reply",
        run: awaiting_reply,
    },
    Test {
        name: "not_awaiting_reply",
        run: not_awaiting_reply,
    },
    Test {
        name: "keepalive_slower_than_middlebox",
        run: keepalive_slower_than_middlebox,
    },
    Test {
        name: "upstream_closes_first",
        run: upstream_closes_first,
    },
];

/// Sends a byte and reads it at the other end.
pub fn send_to_far(world: &World, near: &Socket, far: Handle) -> Result<()> {
    near.send(b"?")?;
    world.far.with(far, |mut socket: &Socket| {
        socket.read_exact(&mut [0]).context("far gets no byte")
    })
}

/// The same from far.
pub fn send_to_near(world: &World, mut near: &Socket, far: Handle) -> Result<()> {
    world.far.with(far, |socket| Ok(socket.send(b"!")?))?;
    near.read_exact(&mut [0]).context("near gets no byte")
}

/// One request and its answer.
fn exchange(world: &World, connection: &Connection) -> Result<()> {
    send_to_far(world, &connection.near, connection.far)?;
    send_to_near(world, &connection.near, connection.far)
}

fn dial(world: &World, port: u16, count: usize) -> Result<Vec<Connection>> {
    let dialled = (0..count).map(|_| world.dial(Family::V4, port));
    dialled.collect()
}

/// The row of this socket, with what the kernel tells of it.
pub fn row(world: &World, socket: &Socket) -> Result<Row> {
    let (here, there) = (local(socket)?, socket.peer_addr()?.as_socket());
    let rows = world.rows(&["list", "-i", "--json"])?;
    let mut rows = rows.into_iter();
    rows.find(|row| {
        row.local_port == here.port() && there.is_some_and(|there| row.peer_port == there.port())
    })
    .with_context(|| format!("{here} is not listed"))
}

/// A member of a row's `tcp_info`.
fn member(row: &Row, key: &str) -> u64 {
    let value = row.tcp_info.as_ref().and_then(|info| info.get(key));
    value.and_then(serde_json::Value::as_u64).unwrap_or(0)
}

/// Waits until the socket's segments have been lost so often in a row.
pub fn until_backoff(world: &World, socket: &Socket, wanted: u64) -> Result<()> {
    until(&format!("back-off {wanted}"), || {
        let backoff = member(&row(world, socket)?, "backoff");
        Ok((backoff < wanted).then(|| format!("{backoff}")))
    })
}

/// Waits until no data has moved on any of the sockets for so long.
fn until_silent(world: &World, port: u16, ms: u64) -> Result<()> {
    until(&format!("{ms} ms of silence"), || {
        let rows = world.rows(&["list", "-i", "--json", "state", "established"])?;
        let here = rows
            .iter()
            .filter(|row| row.local_port == port || row.peer_port == port);
        let youngest = here
            .map(|row| member(row, "last_data_sent_ms").min(member(row, "last_data_recv_ms")))
            .min();
        Ok((youngest < Some(ms)).then(|| format!("{youngest:?}")))
    })
}

/// Asks for keepalive: the first probe after so many seconds, then one a second, and no end of them.
pub fn keep_alive(socket: &Socket, idle: u64) -> Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(idle))
        .with_interval(Duration::from_secs(1))
        .with_retries(100);
    Ok(socket.set_tcp_keepalive(&keepalive)?)
}

/// Waits until so many sockets have had two keepalive probes unanswered.
pub fn until_probed(world: &World, wanted: usize) -> Result<()> {
    until("unanswered probes", || {
        let rows = world.rows(&["list", "-o", "--json", "state", "established"])?;
        let probed = |row: &&Row| {
            let timer = row.timer.as_ref();
            timer.is_some_and(|timer| timer.name == "keepalive" && timer.retransmits >= 2)
        };
        let probed = rows.iter().filter(probed).count();
        Ok((probed < wanted).then(|| format!("{probed} of {wanted}")))
    })
}

/// Loses one of ten segments before TCP sees them.
fn make_lossy(socket: &Socket) -> Result<()> {
    // SKF_AD_OFF + SKF_AD_RANDOM (include/uapi/linux/filter.h)
    let random = (-0x1000_i32 + 56).cast_unsigned();
    Ok(socket.attach_filter(&[
        SockFilter::new(0x20, 0, 0, random), // BPF_LD | BPF_W | BPF_ABS
        SockFilter::new(0x94, 0, 0, 10),     // BPF_ALU | BPF_MOD | BPF_K
        SockFilter::new(0x15, 0, 1, 0), // BPF_JMP | BPF_JEQ | BPF_K: 0 goes on, else one further
        SockFilter::new(0x06, 0, 0, 0), // BPF_RET: nothing is kept
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ])?)
}

/// Near sends on and on, and far reads.
struct Traffic {
    stop: Arc<AtomicBool>,
    writer: Option<thread::JoinHandle<()>>,
}

impl Traffic {
    fn start(world: &World, connections: Vec<Connection>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut sockets = Vec::new();
        for connection in connections {
            world.far.with(connection.far, |socket| {
                let mut socket = socket.try_clone()?;
                thread::spawn(move || {
                    let mut buffer = [0; 65_536];
                    while socket.read(&mut buffer).is_ok_and(|n| n > 0) {}
                });
                Ok(())
            })?;
            connection.near.set_tcp_nodelay(true)?;
            connection.near.set_nonblocking(true)?;
            sockets.push(connection.near);
        }
        let until = Arc::clone(&stop);
        let writer = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                for mut socket in &sockets {
                    // A full buffer is as good: then there is something to send again.
                    socket.write_all(&[b'x'; 1000]).ok();
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        Ok(Self {
            stop,
            writer: Some(writer),
        })
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(writer) = self.writer.take() {
            writer.join().ok();
        }
    }
}

fn retransmit_storm(world: &mut World) -> Result<()> {
    const ID: &str = "retransmit-storm";
    let sound = dial(world, 9000, 12)?;
    let traffic = Traffic::start(world, sound)?;
    world.quiet("nothing is lost", &world.diagnose(&["--only", ID]), ID);
    traffic.end();

    // SYNs that are sent again are not lost segments.
    let holes = (0..60).map(|_| {
        let socket = crate::world::tcp(Family::V4.hole(81))?;
        crate::world::begin_connect(&socket, Family::V4.hole(81))?;
        Ok(socket)
    });
    let holes = holes.collect::<Result<Vec<Socket>>>()?;
    let two = ["--only", ID, "--interval", "3s", "--samples", "2"];
    world.quiet("only SYNs", &world.diagnose(&two), ID);
    drop(holes);

    let lossy = dial(world, 9001, 12)?;
    for connection in &lossy {
        world.far.with(connection.far, make_lossy)?;
    }
    let traffic = Traffic::start(world, lossy)?;
    let one = world.diagnose(&["--only", ID, "--threshold", "retransmit-storm.min=20"]);
    world.fires("one of ten is lost", &one, ID, Severity::Warning);
    let diagnosis = world.diagnose(&two);
    traffic.end();
    let found = world.fires("two samples", &diagnosis, ID, Severity::Warning);
    if let Some(found) = found {
        let named = found.evidence.iter().any(|evidence| {
            let text = evidence.value.as_str();
            text.is_some_and(|text| text.contains("to 10.99.0.2:9001"))
        });
        world.expect(named && found.title.contains("10.99.0.2:9001"), || {
            format!("to whom is named: {found:?}")
        });
    }
    Ok(())
}

fn idle_no_keepalive(world: &mut World) -> Result<()> {
    const ID: &str = "idle-no-keepalive";
    limit_descriptors(PLENTY)?;
    let arguments = ["--only", ID, "--threshold", "idle-no-keepalive.age=2s"];
    let mut kept = dial(world, 5432, 4)?;
    // Both ends here: neither can vanish alone.
    let listener = listen(Family::V4.loopback(0), 16)?;
    let looped: Vec<_> = (0..6)
        .map(|_| Ok((connect(local(&listener)?)?, listener.accept()?)))
        .collect::<Result<_>>()?;
    // The kernel asks after these.
    let kept_alive = dial(world, 5433, 6)?;
    for connection in &kept_alive {
        keep_alive(&connection.near, 3600)?;
    }
    until_silent(world, 5432, 2100)?;
    until_silent(world, 5433, 2100)?;
    let few = world.diagnose(&arguments);
    world.quiet("4, keepalive, loopback", &few, ID);

    kept.extend(dial(world, 5432, 1)?);
    let young = world.diagnose(&["--only", ID]);
    world.quiet("5, but not for hours", &young, ID);
    until_silent(world, 5432, 2100)?;
    let diagnosis = world.diagnose(&arguments);
    let found = world.fires("5 idle", &diagnosis, ID, Severity::Info);
    check_idle(world, found, Severity::Info, None);

    for connection in &kept {
        send_to_far(world, &connection.near, connection.far)?;
        world.far.vanish(connection.far)?;
    }
    until_silent(world, 5432, 2100)?;
    let diagnosis = world.diagnose(&arguments);
    let found = world.fires("5 vanished", &diagnosis, ID, Severity::Info);
    check_idle(world, found, Severity::Info, Some("half-open-suspect"));

    let strict = ["--threshold", "idle-no-keepalive.descriptors=0.0000001"];
    let diagnosis = world.diagnose(&[arguments.as_slice(), &strict].concat());
    let found = world.fires("too many", &diagnosis, ID, Severity::Warning);
    check_idle(world, found, Severity::Warning, Some("half-open-suspect"));
    drop((looped, kept_alive));
    Ok(())
}

fn check_idle(world: &World, found: Option<&Finding>, severity: Severity, variant: Option<&str>) {
    if let Some(found) = found {
        let right = found.severity == severity
            && found.variant.as_deref() == variant
            && found.subject.pid == Some(std::process::id())
            && found.title.contains("5 idle sockets to 10.99.0.2:5432");
        world.expect(right, || {
            format!("5 idle sockets of this process, {severity:?} {variant:?}: {found:?}")
        });
    }
}

fn keepalive_failing(world: &mut World) -> Result<()> {
    const ID: &str = "keepalive-failing";
    let arguments = ["--only", ID];
    for family in world.families() {
        // These are probed too, and answer.
        let well = [world.dial(*family, 5431)?, world.dial(*family, 5431)?];
        for connection in &well {
            keep_alive(&connection.near, 1)?;
        }
        let mut kept = Vec::new();
        for n in 0..5 {
            let connection = world.dial(*family, 5432)?;
            keep_alive(&connection.near, 1)?;
            world.far.deafen(connection.far)?;
            kept.push(connection);
            if n == 3 {
                until_probed(world, 4)?;
                let few = world.diagnose(&arguments);
                world.calm(&format!("4 are dead, {family:?}"), &few, ID);
            }
        }
        until_probed(world, 5)?;
        let diagnosis = world.diagnose(&arguments);
        let when = format!("all 5 are dead, {family:?}");
        let found = world.fires(&when, &diagnosis, ID, Severity::Critical);
        about_destination(world, found, family.far(5432));
        if let Some(found) = found {
            world.expect(found.measured(5, 5), || format!("{when}: {found:?}"));
        }
        let others = diagnosis
            .of(ID)
            .any(|found| found.subject.port == Some(5431));
        world.expect(!others, || format!("{when}: those that answer are well"));
        for connection in kept {
            world.far.close(connection.far)?;
        }
    }
    Ok(())
}

/// Clients vanish; that is never critical.
fn keepalive_of_clients(world: &mut World) -> Result<()> {
    const ID: &str = "keepalive-failing";
    let listener = listen(Family::V4.near(8080), 64)?;
    let mut kept = Vec::new();
    for n in 0..12 {
        let connection = world.serve(&listener)?;
        keep_alive(&connection.near, 1)?;
        if n < 6 {
            world.far.deafen(connection.far)?;
        }
        kept.push(connection);
    }
    until_probed(world, 6)?;
    // They are all of one address here, which may be one phone.
    let one = world.diagnose(&["--only", ID]);
    world.calm("6 of 12 of one address", &one, ID);
    let low = ["--only", ID, "--threshold", "keepalive-failing.min=1"];
    let diagnosis = world.diagnose(&low);
    let found = world.fires("half of the clients", &diagnosis, ID, Severity::Warning);
    about_listener(world, found, 8080);
    if let Some(found) = found {
        world.expect(found.severity == Severity::Warning, || {
            format!("clients are no reason for an alarm at night: {found:?}")
        });
    }
    Ok(())
}

/// Requests that far has acknowledged and its program does not answer.
fn awaiting_reply(world: &mut World) -> Result<()> {
    const ID: &str = "awaiting-reply";
    let arguments = [
        "--only",
        ID,
        "--threshold",
        "awaiting-reply.age=2s",
        "--threshold",
        "awaiting-reply.gap=500ms",
        "--threshold",
        "awaiting-reply.span=1s",
    ];
    let mut ports = 8080..;
    for family in world.families() {
        let port = ports.next().context("no port left")?;
        let listener = listen(family.near(port), 16)?;
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(world.serve(&listener)?);
        }
        let mut pool = Vec::new();
        for _ in 0..5 {
            let connection = world.dial(*family, 5432)?;
            exchange(world, &connection)?;
            pool.push(connection);
        }
        until_silent(world, 5432, 700)?;
        let (last, others) = pool.split_last().context("five were dialled")?;
        for connection in others {
            send_to_far(world, &connection.near, connection.far)?;
        }
        until_silent(world, 5432, 2100)?;
        let few = world.diagnose(&arguments);
        world.calm(&format!("4 wait, {family:?}"), &few, ID);
        send_to_far(world, &last.near, last.far)?;
        until_silent(world, 5432, 2100)?;
        let patient = world.diagnose(&["--only", ID]);
        world.quiet(&format!("not for 30 s yet, {family:?}"), &patient, ID);
        let workers = world.diagnose(&arguments);
        world.calm(
            &format!("no client of ours waits, {family:?}"),
            &workers,
            ID,
        );
        for client in &clients {
            send_to_near(world, &client.near, client.far)?;
        }
        until_silent(world, port, 2100)?;
        let diagnosis = world.diagnose(&arguments);
        let when = format!("5 of 5 wait, {family:?}");
        let found = world.fires(&when, &diagnosis, ID, Severity::Warning);
        about_destination(world, found, family.far(5432));
        if let Some(found) = found {
            let right = found.title.contains("5 of 5") && found.who_must_act == "peer";
            world.expect(right, || format!("{when}: {found:?}"));
        }
        // Two samples see the same.
        let twice = [arguments.as_slice(), &["--samples", "2"]].concat();
        let again = world.diagnose(&twice);
        world.fires(&format!("{when}, twice"), &again, ID, Severity::Warning);
        send_to_near(world, &last.near, last.far)?;
        let answered = world.diagnose(&arguments);
        world.calm(&format!("one is answered, {family:?}"), &answered, ID);
        for connection in others {
            send_to_near(world, &connection.near, connection.far)?;
        }
        until_silent(world, 5432, 2100)?;
        let after = world.diagnose(&arguments);
        world.quiet(&format!("all are answered, {family:?}"), &after, ID);
    }
    Ok(())
}

/// What is silent as it should be.
fn not_awaiting_reply(world: &mut World) -> Result<()> {
    const ID: &str = "awaiting-reply";
    let arguments = [
        "--only",
        ID,
        "--threshold",
        "awaiting-reply.age=2s",
        // Sooner than this is at once, even on a machine with much else to do.
        "--threshold",
        "awaiting-reply.gap=10s",
    ];
    // Long polls: the next one goes out when the last is answered.
    let polls = dial(world, 8500, 8)?;
    for connection in &polls {
        exchange(world, connection)?;
        send_to_far(world, &connection.near, connection.far)?;
    }
    // A collector of logs says nothing, ever.
    let logs = dial(world, 514, 8)?;
    for connection in &logs {
        send_to_far(world, &connection.near, connection.far)?;
    }
    // A pool at rest: everything was answered, or nothing asked yet.
    let pool = dial(world, 5432, 8)?;
    for connection in pool.iter().take(6) {
        exchange(world, connection)?;
    }
    // Clients of ours that have their answer.
    let listener = listen(Family::V4.near(8080), 64)?;
    let served = (0..8).map(|_| world.serve(&listener));
    let served = served.collect::<Result<Vec<_>>>()?;
    for connection in &served {
        send_to_near(world, &connection.near, connection.far)?;
        send_to_far(world, &connection.near, connection.far)?;
    }
    until_silent(world, 8080, 2100)?;
    until_silent(world, 5432, 2100)?;
    let diagnosis = world.diagnose(&arguments);
    world.calm("all as it should be", &diagnosis, ID);
    for port in [5432, 8080] {
        let about = diagnosis
            .of(ID)
            .any(|found| found.subject.port == Some(port));
        world.expect(!about, || format!("{port}: {}", diagnosis.in_short()));
    }
    Ok(())
}

fn keepalive_slower_than_middlebox(world: &mut World) -> Result<()> {
    const ID: &str = "keepalive-slower-than-middlebox";
    let limit = "keepalive-slower-than-middlebox.middlebox-idle=6s";
    let arguments = ["--only", ID, "--threshold", limit];
    // Probed in time.
    let quick = dial(world, 5431, 6)?;
    for connection in &quick {
        keep_alive(&connection.near, 1)?;
    }
    let mut pool = dial(world, 5432, 6)?;
    for connection in &pool {
        keep_alive(&connection.near, 7200)?;
        exchange(world, connection)?;
    }
    let lively = pool.pop().context("six were dialled")?;
    until_silent(world, 5432, 6100)?;
    exchange(world, &lively)?;
    let diagnosis = world.diagnose(&arguments);
    let found = world.fires("5 at rest", &diagnosis, ID, Severity::Info);
    about_destination(world, found, Family::V4.far(5432));
    world.calm("5 at rest", &diagnosis, ID);
    world.quiet("not for 350 s yet", &world.diagnose(&["--only", ID]), ID);
    // What stands between has forgotten two of them.
    for (n, connection) in pool.iter().take(2).enumerate() {
        world.far.deafen(connection.far)?;
        connection.near.send(b"?")?;
        until_backoff(world, &connection.near, 3)?;
        exchange(world, &lively)?;
        let diagnosis = world.diagnose(&arguments);
        if n == 0 {
            world.calm("one is dead", &diagnosis, ID);
        } else {
            let found = world.fires("two are dead", &diagnosis, ID, Severity::Warning);
            about_destination(world, found, Family::V4.far(5432));
        }
    }
    // Where nobody is answered it is something else.
    world.far.deafen(lively.far)?;
    until_silent(world, 5431, 6100)?;
    until("the last answer to be old", || {
        let age = member(&row(world, &lively.near)?, "last_data_recv_ms");
        Ok((age < 6100).then(|| format!("{age} ms")))
    })?;
    world.calm("all are dead", &world.diagnose(&arguments), ID);
    Ok(())
}

fn upstream_closes_first(world: &mut World) -> Result<()> {
    const ID: &str = "keepalive-slower-than-middlebox";
    let close = |port: u16, count: usize, reads: bool| -> Result<Vec<Connection>> {
        let connections = dial(world, port, count)?;
        for connection in &connections {
            exchange(world, connection)?;
            world.far.shut_write(connection.far)?;
            if reads {
                let mut near = &connection.near;
                ensure!(near.read(&mut [0])? == 0, "far has closed");
            }
        }
        Ok(connections)
    };
    let _two = close(8001, 2, false)?;
    let _noticed = close(8002, 4, true)?;
    let three = close(8003, 3, false)?;
    until("a second in CLOSE-WAIT", || {
        let rows = world.rows(&["list", "-i", "--json", "state", "close-wait"])?;
        let youngest = rows.iter().filter_map(|row| row.state_age_ms).min();
        Ok((rows.len() != 9 || youngest < Some(1100)).then(|| format!("{youngest:?}")))
    })?;
    let diagnosis = world.diagnose(&["--only", ID]);
    let found: Vec<&Finding> = diagnosis.of(ID).collect();
    world.expect(found.len() == 1, || diagnosis.in_short());
    let found = world.fires("3 closed by far", &diagnosis, ID, Severity::Info);
    about_destination(world, found, Family::V4.far(8003));
    if let Some(found) = found {
        let right = found.variant.as_deref() == Some("upstream-closes-first")
            && found.severity == Severity::Info
            && found.measured(3, 3);
        world.expect(right, || format!("{found:?}"));
    }
    drop(three);
    Ok(())
}
