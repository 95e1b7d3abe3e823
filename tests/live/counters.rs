//! Handshakes that are not finished, cookies, refused signatures, resets, idle siblings, short queues and listeners
//! that are gone: each is provoked, found, and not found one below its limit.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::answers::{Diagnosis, Finding, Severity};
use crate::harness::{Skip, Test};
use crate::kernel::{self, set_sysctl, until, until_count};
use crate::sys;
use crate::world::{Family, World, begin_connect, connect, ip, listen, local, serve_each, tcp};

pub const TESTS: &[Test] = &[
    Test {
        name: "syn_flood",
        run: syn_flood,
    },
    Test {
        name: "syn_flood_without_cookies",
        run: syn_flood_without_cookies,
    },
    Test {
        name: "handshake_incomplete",
        run: handshake_incomplete,
    },
    Test {
        name: "md5_failures",
        run: md5_failures,
    },
    Test {
        name: "reset_storm",
        run: reset_storm,
    },
    Test {
        name: "reuseport_imbalance",
        run: reuseport_imbalance,
    },
    Test {
        name: "backlog_clamped",
        run: backlog_clamped,
    },
    Test {
        name: "listener_vanished",
        run: listener_vanished,
    },
    Test {
        name: "expected_listener",
        run: expected_listener,
    },
    Test {
        name: "syn_sent_to_many_destinations",
        run: syn_sent_to_many_destinations,
    },
    Test {
        name: "syn_sent_beside_what_answers",
        run: syn_sent_beside_what_answers,
    },
];

const PORT: u16 = 8080;

/// The finding is about the listener on this port.
fn about(world: &World, found: Option<&Finding>, port: u16) {
    if let Some(found) = found {
        let subject = &found.subject;
        let right = subject.kind == "listener" && subject.port == Some(port);
        world.expect(right, || {
            format!("{}: not about :{port}: {subject:?}", found.id)
        });
    }
}

/// What was measured under this name.
fn measure(found: &Finding, name: &str) -> Option<u64> {
    let evidence = found.evidence.iter().find(|evidence| evidence.name == name);
    evidence?.value.as_u64()
}

/// A network of far that answers nothing: its SYN-ACKs go to far and no further.
const SPOOFED: &str = "198.18.0.0/15";

fn route_spoofed(world: &World) -> Result<()> {
    let far = Family::V4.far(0).ip().to_string();
    ip(&["route", "add", SPOOFED, "via", &far, "dev", "near0"])?;
    // A router would say that it knows no such network, and that ends a handshake.
    world.far.run(|_| set_sysctl("net/ipv4/ip_forward", "0"))
}

/// Sends a SYN to near from each of so many addresses that nobody has, each in a network of its own.
fn spoof(world: &World, port: u16, numbers: std::ops::Range<u16>) -> Result<()> {
    world.far.run(move |_| {
        let socket = raw()?;
        for number in numbers {
            send_syn(&socket, number, port)?;
        }
        Ok(())
    })
}

fn raw() -> Result<Socket> {
    let socket =
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).context("no raw socket")?;
    socket.set_header_included_v4(true)?;
    Ok(socket)
}

fn send_syn(socket: &Socket, number: u16, port: u16) -> Result<()> {
    let SocketAddr::V4(near) = Family::V4.near(port) else {
        bail!("not IPv4");
    };
    let [high, low] = number.to_be_bytes();
    let packet = syn(
        Ipv4Addr::new(198, 18 + high / 128, low, high % 128 + 1),
        near,
    );
    socket.send_to(&packet, &SocketAddr::V4(near).into())?;
    Ok(())
}

/// An IPv4 header and a TCP header with SYN. The kernel fills in length and checksum of the former.
fn syn(from: Ipv4Addr, to: SocketAddrV4) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(1024u16.to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    tcp.extend(1u32.to_be_bytes());
    tcp.extend(0u32.to_be_bytes());
    // Five words of header; SYN; a window; no checksum yet; no urgent data.
    tcp.extend([0x50, 0x02, 0x20, 0x00, 0, 0, 0, 0]);
    let pseudo = [from.octets(), to.ip().octets(), [0, 6, 0, 20]].concat();
    let sum: u32 = [pseudo.as_slice(), &tcp]
        .concat()
        .chunks_exact(2)
        .filter_map(|pair| pair.try_into().ok())
        .map(|pair| u32::from(u16::from_be_bytes(pair)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let checksum = !u16::try_from(folded).unwrap_or(0);
    tcp.splice(16..18, checksum.to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.ip().octets());
    packet.extend(tcp);
    packet
}

/// Goes on sending SYNs from addresses that nobody has until the guard is dropped.
struct Flood(Arc<AtomicBool>);

impl Flood {
    fn start(world: &World, port: u16) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        world.far.run(move |_| {
            let socket = raw()?;
            thread::spawn(move || {
                for number in (0..=u16::MAX).cycle() {
                    if stopped.load(Ordering::Relaxed) {
                        break;
                    }
                    // What becomes of one SYN shows in near's counters.
                    send_syn(&socket, number, port).ok();
                    thread::sleep(Duration::from_millis(2));
                }
            });
            Ok(())
        })?;
        Ok(Self(stop))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const FLOOD: [&str; 2] = ["--only", "syn-flood,syncookies-active,listen-overflow"];

fn syn_flood(world: &mut World) -> Result<()> {
    const ID: &str = "syn-flood";
    set_sysctl("net/ipv4/tcp_syncookies", "1")?;
    route_spoofed(world)?;
    let listener = listen(Family::V4.near(PORT), 20)?;
    spoof(world, PORT, 0..9)?;
    until_count(kernel::SYN_RECEIVED, 9)?;
    thread::sleep(Duration::from_millis(1500));
    let below = world.diagnose(&FLOOD);
    world.calm("9 of 20", &below, ID);
    world.quiet("9 of 20", &below, "syncookies-active");
    spoof(world, PORT, 9..14)?;
    until_count(kernel::SYN_RECEIVED, 14)?;
    thread::sleep(Duration::from_millis(1500));
    let level = world.diagnose(&FLOOD);
    let found = world.fires("14 of 20", &level, ID, Severity::Warning);
    about(world, found, PORT);
    if let Some(found) = found {
        let right = found.variant.is_none() && measure(found, "unfinished") == Some(14);
        world.expect(right, || format!("14 from 14 networks: {found:?}"));
        let holder = found.subject.pid == Some(std::process::id());
        world.expect(holder, || format!("this process listens: {found:?}"));
    }

    let flood = Flood::start(world, PORT)?;
    until_count(kernel::SYN_RECEIVED, 21)?;
    let full = world.diagnose(&FLOOD);
    drop(flood);
    let found = world.fires("a full queue", &full, ID, Severity::Warning);
    about(world, found, PORT);
    if let Some(found) = found {
        // Cookies let everybody in.
        world.expect(found.severity == Severity::Warning, || format!("{found:?}"));
    }
    let cookies = world.fires(
        "a full queue",
        &full,
        "syncookies-active",
        Severity::Warning,
    );
    about(world, cookies, PORT);
    if let Some(cookies) = cookies {
        let follows = cookies.caused_by.as_deref() == Some(ID);
        world.expect(follows, || {
            format!("cookies follow from the flood: {cookies:?}")
        });
    }
    world.calm("nobody waits to be accepted", &full, "listen-overflow");
    drop(listener);
    Ok(())
}

fn syn_flood_without_cookies(world: &mut World) -> Result<()> {
    const ID: &str = "syn-flood";
    set_sysctl("net/ipv4/tcp_syncookies", "0")?;
    set_sysctl("net/ipv4/tcp_max_syn_backlog", "64")?;
    route_spoofed(world)?;
    let _listener = listen(Family::V4.near(PORT), 300)?;
    let flood = Flood::start(world, PORT)?;
    // Three quarters of 64, and one.
    until_count(kernel::SYN_RECEIVED, 49)?;
    let full = world.diagnose(&FLOOD);
    drop(flood);
    let found = world.fires("SYNs are dropped", &full, ID, Severity::Critical);
    about(world, found, PORT);
    if let Some(found) = found {
        let limit = found
            .evidence
            .iter()
            .find(|e| e.name == "what_sets_the_limit");
        let named = limit.is_some_and(|e| e.value.to_string().contains("tcp_max_syn_backlog"));
        let dropped = measure(found, "syns_dropped").is_some_and(|n| n > 0);
        world.expect(named && dropped, || {
            format!("by tcp_max_syn_backlog: {found:?}")
        });
    }
    world.quiet("cookies are off", &full, "syncookies-active");
    Ok(())
}

/// Clients of far do not hear the SYN-ACK, those on this host do.
fn handshake_incomplete(world: &mut World) -> Result<()> {
    const ID: &str = "syn-flood";
    let listener = listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)), 128)?;
    let mut served = Vec::new();
    for _ in 0..3 {
        let client = connect(Family::V4.loopback(PORT))?;
        served.push((client, listener.accept()?));
    }
    let only = ["--only", "handshake-incomplete"];
    for _ in 0..9 {
        world.far.begin_connect(Family::V4.near(PORT), true)?;
    }
    until_count(kernel::SYN_RECEIVED, 9)?;
    thread::sleep(Duration::from_millis(3500));
    world.calm("9 for 3.5 s", &world.diagnose(&only), ID);
    // An IPv6 wildcard takes IPv4 too.
    let both = if world.families().contains(&Family::V6) {
        let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 8081));
        Some(listen(any, 128)?)
    } else {
        None
    };
    for _ in 0..12 {
        if both.is_some() {
            world.far.begin_connect(Family::V4.near(8081), true)?;
        }
    }
    for _ in 0..3 {
        world.far.begin_connect(Family::V4.near(PORT), true)?;
    }
    until_count(kernel::SYN_RECEIVED, if both.is_some() { 24 } else { 12 })?;
    thread::sleep(Duration::from_millis(4000));
    let diagnosis = world.diagnose(&only);
    let found = diagnosis
        .of(ID)
        .find(|found| found.subject.port == Some(PORT));
    world.expect(
        found.is_some_and(|found| found.severity == Severity::Warning),
        || format!("12 for 4 s: {}", diagnosis.in_short()),
    );
    if both.is_some() {
        let mut all = diagnosis.of(ID);
        let mapped = all
            .any(|found| found.subject.port == Some(8081) && found.title.contains("10.99.0.0/24"));
        world.expect(mapped, || {
            format!("IPv4 at an IPv6 listener: {}", diagnosis.in_short())
        });
    }
    if let Some(found) = found {
        let right = found.variant.as_deref() == Some("handshake-incomplete")
            && found.severity == Severity::Warning
            && found.who_must_act == "network"
            && found.title.contains("10.99.0.0/24")
            && measure(found, "finished_from_elsewhere") == Some(3);
        world.expect(right, || format!("one network finishes nothing: {found:?}"));
    }
    drop((served, both));
    Ok(())
}

/// `struct tcp_md5sig` (include/uapi/linux/tcp.h): an address, flags, prefix, length, interface, key.
fn md5_key(peer: IpAddr) -> Result<Vec<u8>> {
    let IpAddr::V4(peer) = peer else {
        bail!("not IPv4");
    };
    let mut option = vec![0; 128 + 8 + 80];
    let family = u16::try_from(libc::AF_INET)?.to_ne_bytes();
    option.splice(0..2, family);
    option.splice(4..8, peer.octets());
    option.splice(130..132, 6u16.to_ne_bytes());
    option.splice(136..142, *b"secret");
    Ok(option)
}

fn md5_failures(world: &mut World) -> Result<()> {
    const ID: &str = "md5-failures";
    let listener = listen(Family::V4.near(179), 16)?;
    let key = md5_key(Family::V4.far(0).ip())?;
    if let Err(error) = sys::set_option_bytes(&listener, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &key)
    {
        bail!(Skip(format!("no TCP_MD5SIG: {error}")));
    }
    let other = listen(Family::V4.near(PORT), 16)?;
    let open = world.serve(&other)?;
    world.quiet("nobody without a key", &world.diagnose(&["--only", ID]), ID);
    // Unsigned SYNs, each repeated after a second.
    for _ in 0..20 {
        world.far.begin_connect(Family::V4.near(179), false)?;
        thread::sleep(Duration::from_millis(50));
    }
    let diagnosis = world.diagnose(&["--only", ID]);
    let found = world.fires("20 peers without a key", &diagnosis, ID, Severity::Warning);
    about(world, found, 179);
    if let Some(found) = found {
        let counted = measure(found, "without_a_signature").is_some_and(|n| n >= 3);
        world.expect(counted && found.variant.is_none(), || format!("{found:?}"));
    }
    drop(open);
    Ok(())
}

/// Repeats something in a thread of far until the flag is set.
fn repeat(
    world: &World,
    stop: &Arc<AtomicBool>,
    mut job: impl FnMut() -> Result<()> + Send + 'static,
) -> Result<()> {
    let stopped = Arc::clone(stop);
    world.far.run(move |_| {
        thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // What becomes of one shows in near's counters.
                job().ok();
                thread::sleep(Duration::from_millis(10));
            }
        });
        Ok(())
    })
}

/// Connects, asks, and waits for the end, whatever the end is.
fn ask(address: SocketAddr) -> Result<()> {
    let socket = connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.send(b"request")?;
    let mut answer = [std::mem::MaybeUninit::uninit(); 16];
    socket.recv(&mut answer)?;
    Ok(())
}

/// Closes without reading the request.
fn rude(socket: Socket) -> Result<()> {
    thread::sleep(Duration::from_millis(30));
    drop(socket);
    Ok(())
}

/// Reads the request, then closes.
fn polite(socket: Socket) -> Result<()> {
    let mut request = [std::mem::MaybeUninit::uninit(); 16];
    socket.recv(&mut request)?;
    Ok(())
}

fn reset_storm(world: &mut World) -> Result<()> {
    const ID: &str = "reset-storm";
    serve_each(listen(Family::V4.near(8081), 128)?, polite);
    serve_each(listen(Family::V4.near(PORT), 128)?, rude);
    let only = ["--only", ID];
    let stop = Arc::new(AtomicBool::new(false));
    for _ in 0..4 {
        repeat(world, &stop, || ask(Family::V4.near(8081)))?;
    }
    until("requests that are answered", || {
        let closed = kernel::count(kernel::TIME_WAIT)?;
        Ok((closed < 20).then(|| format!("{closed} in TIME-WAIT")))
    })?;
    world.quiet("all is read", &world.diagnose(&only), ID);
    for _ in 0..4 {
        repeat(world, &stop, || ask(Family::V4.near(PORT)))?;
    }
    thread::sleep(Duration::from_millis(500));
    // A longer look on a loaded machine: ten a second are needed.
    let diagnosis =
        world.diagnose(&[only.as_slice(), &["--samples", "2", "--interval", "2s"]].concat());
    stop.store(true, Ordering::Relaxed);
    let found = world.fires("closed with unread data", &diagnosis, ID, Severity::Warning);
    if let Some(found) = found {
        let right = found.who_must_act == "this-program"
            && measure(found, "closed_with_unread_data").is_some_and(|n| n > 10);
        world.expect(right, || format!("programs here do not read: {found:?}"));
    }
    Ok(())
}

/// A listener of a group; its limit.
fn sibling(backlog: i32) -> Result<Socket> {
    let address = Family::V4.near(PORT);
    let socket = tcp(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

/// The longest accept queue on the port, and all together.
fn queues(port: u16) -> Result<(u64, u64)> {
    let lines = kernel::table()?;
    let queues = lines
        .iter()
        .filter(|line| line.state == kernel::LISTEN && line.local_port == port)
        .map(|line| line.recv_q);
    Ok((queues.clone().max().unwrap_or(0), queues.sum()))
}

fn reuseport_imbalance(world: &mut World) -> Result<()> {
    const ID: &str = "reuseport-imbalance";
    let stuck = sibling(10)?;
    for _ in 0..3 {
        serve_each(sibling(10)?, |socket| {
            thread::sleep(Duration::from_secs(60));
            drop(socket);
            Ok(())
        });
    }
    let fill = |wanted: u64| -> Result<()> {
        for _ in 0..400 {
            // The others accept within moments; what stays is the stuck one's.
            until("the others to accept", || {
                let (most, all) = queues(PORT)?;
                Ok((most != all).then(|| format!("{most} of {all}")))
            })?;
            let (most, _) = queues(PORT)?;
            if most >= wanted {
                return Ok(());
            }
            world.far.connect(Family::V4.near(PORT))?;
            thread::sleep(Duration::from_millis(10));
        }
        bail!("the hash never meets the stuck listener")
    };
    let only = [
        "--only",
        "reuseport-imbalance,listen-overflow,accept-queue-stuck",
    ];
    fill(6)?;
    thread::sleep(Duration::from_millis(200));
    ensure!(queues(PORT)?.0 == 6, "six wait: {:?}", queues(PORT)?);
    world.calm("6 of 10 in one queue", &world.diagnose(&only), ID);
    fill(7)?;
    let diagnosis = world.diagnose(&only);
    let found = world.fires("7 of 10 in one queue", &diagnosis, ID, Severity::Warning);
    about(world, found, PORT);
    if let Some(found) = found {
        use std::os::fd::AsRawFd;
        let fd = u64::try_from(stuck.as_raw_fd())?;
        let right = measure(found, "longest_queue") == Some(7)
            && measure(found, "listeners_on_this_port") == Some(4)
            && measure(found, "descriptor") == Some(fd);
        world.expect(right, || {
            format!("descriptor {fd} does not accept: {found:?}")
        });
    }
    let follows = diagnosis
        .of("listen-overflow")
        .all(|f| f.caused_by.as_deref() == Some(ID));
    world.expect(follows, || diagnosis.in_short());
    Ok(())
}

/// Waits until so many wait for the listener.
fn until_queued(listener: &Socket, wanted: u64) -> Result<()> {
    let port = local(listener)?.port();
    until("the accept queue", || {
        let (most, _) = queues(port)?;
        Ok((most != wanted).then(|| format!("{most} wait")))
    })
}

fn backlog_clamped(world: &mut World) -> Result<()> {
    const ID: &str = "backlog-clamped";
    set_sysctl("net/core/somaxconn", "20")?;
    let cut = listen(Family::V4.near(PORT), 1000)?;
    let asked = listen(Family::V4.near(8081), 19)?;
    let only = ["--only", ID];
    let knock = |port: u16, times: usize| -> Result<()> {
        for _ in 0..times {
            world.far.connect(Family::V4.near(port))?;
        }
        Ok(())
    };
    world.quiet("no load", &world.diagnose(&only), ID);
    knock(PORT, 9)?;
    knock(8081, 12)?;
    until_queued(&cut, 9)?;
    until_queued(&asked, 12)?;
    world.quiet(
        "9 of 20, and 12 of 19 that were asked for",
        &world.diagnose(&only),
        ID,
    );
    knock(PORT, 1)?;
    until_queued(&cut, 10)?;
    let diagnosis = world.diagnose(&only);
    let found = world.fires("10 of 20", &diagnosis, ID, Severity::Warning);
    about(world, found, PORT);
    world.expect(diagnosis.of(ID).count() == 1, || diagnosis.in_short());
    Ok(())
}

/// Four looks, while something is done between the first and the last of them.
fn looks(world: &World, meanwhile: impl FnOnce() -> Result<()>) -> Result<Diagnosis> {
    let arguments = [
        "diagnose",
        "--json",
        "--only",
        "listener-vanished",
        "--samples",
        "4",
        "--interval",
        "2s",
        "--threshold",
        "listener-vanished.age=1s",
    ];
    let mut command = world.command(&arguments);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let start = Instant::now();
    let child = command.spawn().context("cannot run linger")?;
    thread::sleep(Duration::from_secs(3));
    meanwhile()?;
    ensure!(
        start.elapsed() < Duration::from_secs(6),
        "too slow for the last look"
    );
    let output = child.wait_with_output()?;
    world.read_diagnosis(&arguments, &output)
}

fn listener_vanished(world: &mut World) -> Result<()> {
    const ID: &str = "listener-vanished";
    let (first, second) = (
        listen(Family::V4.near(PORT), 16)?,
        listen(Family::V4.near(8081), 16)?,
    );
    let gone = looks(world, || {
        drop(first);
        // A restart: another socket on the same port.
        drop(second);
        thread::sleep(Duration::from_millis(100));
        serve_each(listen(Family::V4.near(8081), 16)?, |_| Ok(()));
        Ok(())
    })?;
    let found = world.fires("closed and not opened again", &gone, ID, Severity::Warning);
    about(world, found, PORT);
    if let Some(found) = found {
        let right = found.severity == Severity::Warning
            && found.subject.address == Some(Family::V4.near(0).ip());
        world.expect(right, || format!("{found:?}"));
    }
    world.expect(gone.of(ID).count() == 1, || {
        format!("8081 is back: {}", gone.in_short())
    });
    world.quiet(
        "a single look",
        &world.diagnose(&["--only", ID, "--samples", "1"]),
        ID,
    );
    Ok(())
}

fn expected_listener(world: &mut World) -> Result<()> {
    const ID: &str = "listener-vanished";
    let listener = listen(Family::V4.near(PORT), 16)?;
    let expect = |what: &str| world.diagnose(&["--only", ID, "--expect-listener", what]);
    let port = PORT.to_string();
    world.quiet("it is there", &expect(&port), ID);
    let elsewhere = format!("10.99.0.9:{PORT}");
    let found = expect(&elsewhere);
    let found = world.fires("on another address", &found, ID, Severity::Critical);
    about(world, found, PORT);
    let unit = expect(&format!("{port}=no-such-unit.service"));
    world.expect(
        unit.worst(ID)
            .is_none_or(|found| found.severity < Severity::Critical),
        || unit.in_short(),
    );
    drop(listener);
    let found = expect(&port);
    let found = world.fires("nobody listens", &found, ID, Severity::Critical);
    about(world, found, PORT);
    Ok(())
}

/// Networks behind a router that swallows everything.
fn route_into_the_hole() -> Result<()> {
    let hole = Family::V4.hole(0).ip().to_string();
    ip(&["route", "add", SPOOFED, "via", &hole, "dev", "near0"])
}

fn syn_sent_to_many_destinations(world: &mut World) -> Result<()> {
    const ID: &str = "syn-sent-blackhole";
    route_into_the_hole()?;
    let mut kept = Vec::new();
    let mut dial = |networks: std::ops::Range<u8>| -> Result<()> {
        for network in networks {
            let address = SocketAddr::from(([198, 18, network, 1], 443));
            let socket = tcp(address)?;
            begin_connect(&socket, address)?;
            kept.push(socket);
        }
        thread::sleep(Duration::from_millis(3500));
        Ok(())
    };
    dial(0..9)?;
    world.calm("9 dead destinations", &world.diagnose(&["--only", ID]), ID);
    dial(9..12)?;
    let diagnosis = world.diagnose(&["--only", ID]);
    let found = world.fires("12 dead destinations", &diagnosis, ID, Severity::Warning);
    world.expect(diagnosis.of(ID).count() == 1, || diagnosis.in_short());
    if let Some(found) = found {
        let right = found.subject.kind == "process"
            && found.subject.pid == Some(std::process::id())
            && measure(found, "destinations") == Some(12);
        world.expect(right, || {
            format!("one finding about this process: {found:?}")
        });
    }
    Ok(())
}

fn syn_sent_beside_what_answers(world: &mut World) -> Result<()> {
    const ID: &str = "syn-sent-blackhole";
    // Nobody answers on this port of far, whose listener is deaf; on another one somebody does.
    let deaf = Family::V4.far(9092);
    let far = world.far.clone();
    let listener = far.run(move |far| {
        let listener = listen(deaf, 16)?;
        Ok(far.keep(listener))
    })?;
    far.deafen(listener)?;
    let mut kept = Vec::new();
    for _ in 0..3 {
        let socket = tcp(deaf)?;
        begin_connect(&socket, deaf)?;
        kept.push(socket);
    }
    let answered = world.dial(Family::V4, 443)?;
    until_count(kernel::SYN_SENT, 3)?;
    thread::sleep(Duration::from_millis(3500));
    let diagnosis = world.diagnose(&["--only", ID]);
    let found = world.fires("3 to a deaf port", &diagnosis, ID, Severity::Warning);
    if let Some(found) = found {
        let right = found.subject.port == Some(9092)
            && measure(found, "established_to_other_ports_of_it") == Some(1)
            && found
                .explanation
                .contains("Other ports of that address are connected");
        world.expect(right, || format!("the way there works: {found:?}"));
    }
    drop((kept, answered));
    Ok(())
}
