//! What is said of a socket beside its addresses, against what ss says of the same one.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::answers::lines;
use crate::harness::Test;
use crate::kernel::{self, until};
use crate::ss::{KEY, Sockets, compare, numbers, shown, ss};
use crate::sys::{set_option, set_option_bytes};
use crate::world::{Family, World, begin_connect, connect, fill, listen, local, tcp};

pub const TESTS: &[Test] = &[
    Test {
        name: "attributes_are_those_of_ss",
        run: attributes_are_those_of_ss,
    },
    Test {
        name: "attributes_of_bbr_mptcp_and_md5",
        run: attributes_of_bbr_mptcp_and_md5,
    },
    Test {
        name: "attributes_tell_the_path_of_a_cgroup",
        run: attributes_tell_the_path_of_a_cgroup,
    },
];

/// A part of a document; null where there is none.
fn at<'v>(value: &'v Value, pointer: &str) -> &'v Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

/// The one row that there is.
fn only(mut rows: Vec<Value>) -> Result<Value> {
    ensure!(rows.len() == 1, "{rows:?}");
    rows.pop().context("one row")
}

fn timers_run(kind: u8, wanted: usize) -> Result<()> {
    until(&format!("{wanted} timers {kind}"), || {
        let lines = kernel::table()?;
        let found = lines.iter().filter(|line| line.timer == kind).count();
        Ok((found < wanted).then(|| format!("{lines:?}")))
    })
}

fn attributes_are_those_of_ss(world: &mut World) -> Result<()> {
    let mut kept: Vec<Socket> = Vec::new();
    for (at, family) in world.families().iter().enumerate() {
        let port = 7500 + 10 * u16::try_from(at)?;
        // Keepalive, a type of service, a mark, a device; data in both directions.
        let busy = world.dial(*family, port)?;
        busy.near
            .set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(7200)))?;
        set_option_bytes(
            &busy.near,
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            b"cubic",
        )?;
        match family {
            Family::V4 => set_option(&busy.near, libc::IPPROTO_IP, libc::IP_TOS, 0x10)?,
            Family::V6 => set_option(&busy.near, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, 0x20)?,
        }
        set_option(&busy.near, libc::SOL_SOCKET, libc::SO_MARK, 77)?;
        busy.near.send(&[7; 50_000])?;
        world.far.read_on(busy.far, 65_536, Duration::ZERO)?;
        world
            .far
            .with(busy.far, |socket| Ok(socket.send(&[7; 5_000])?))?;
        // It never answers again: the retransmission timer, and its doublings.
        let deaf = world.dial(*family, port + 1)?;
        world.far.deafen(deaf.far)?;
        deaf.near.send(&[7; 3_000])?;
        // It does not read: a closed window.
        let full = world.dial(*family, port + 2)?;
        fill(&full.near)?;
        // This end closes first.
        let closed = world.dial(*family, port + 3)?;
        drop(closed.near);
        world.far.close(closed.far)?;
        // Nobody answers the SYN.
        let calling = tcp(family.hole(port + 4))?;
        begin_connect(&calling, family.hole(port + 4))?;
        // Only one device, and an address that nobody has.
        let bound = tcp(family.near(port + 5))?;
        bound.bind_device(Some(b"near0"))?;
        bound.bind(&family.near(port + 5).into())?;
        bound.listen(5)?;
        let freebind = tcp(family.hole(port + 6))?;
        set_option(&freebind, libc::IPPROTO_IP, libc::IP_FREEBIND, 1)?;
        freebind.bind(&family.hole(port + 6).into())?;
        freebind.listen(5)?;
        // What nobody reads takes memory.
        let unread = world.dial(*family, port + 7)?;
        world
            .far
            .with(unread.far, |socket| Ok(socket.send(&[7; 9_000])?))?;
        // Connections that wait to be accepted.
        let crowded = listen(family.near(port + 8), 2)?;
        for _ in 0..2 {
            world.far.connect(family.near(port + 8))?;
        }
        kept.extend([
            busy.near,
            deaf.near,
            full.near,
            calling,
            bound,
            freebind,
            unread.near,
            crowded,
        ]);
    }
    if world.families().len() == 2 {
        let only = tcp("[::]:7599".parse()?)?;
        only.set_only_v6(true)?;
        only.bind(&"[::]:7599".parse::<SocketAddr>()?.into())?;
        only.listen(5)?;
        kept.push(only);
    }
    let each = world.families().len();
    kernel::until_count(kernel::TIME_WAIT, each)?;
    timers_run(4, each)?;
    // The SYN and the data to nobody.
    timers_run(1, 2 * each)?;
    timers_run(2, each)?;

    let theirs = compare(world)?;
    shown(world, &theirs, "timer", |value| {
        value.starts_with("(keepalive,")
    });
    shown(world, &theirs, "timer", |value| value.starts_with("(on,"));
    shown(world, &theirs, "timer", |value| {
        value.starts_with("(persist,")
    });
    shown(world, &theirs, "timer", |value| {
        value.starts_with("(timewait,")
    });
    shown(world, &theirs, "tos", |value| numbers(value) == [16.0]);
    shown(world, &theirs, "fwmark", |value| value == "0x4d");
    shown(world, &theirs, "sockopt.freebind", |_| true);
    shown(world, &theirs, "rtt", |_| true);
    shown(world, &theirs, "bytes_acked", |_| true);
    shown(world, &theirs, "notsent", |_| true);
    shown(world, &theirs, "skmem.r", |value| value != "0");
    if each == 2 {
        shown(world, &theirs, "tclass", |value| numbers(value) == [32.0]);
        shown(world, &theirs, "v6only", |value| value == "1");
    }
    columns_and_document(world, &theirs)
}

/// The same by columns and in the document, of one connection.
fn columns_and_document(world: &World, theirs: &Sockets) -> Result<()> {
    let row = |arguments: &[&str]| -> Result<Value> {
        let filter = ["dport", "=", ":7500"];
        let output = world.linger(&[arguments, &filter].concat())?;
        only(lines(&output.stdout)?)
    };
    let all = row(&["list", "-taoemi", "--output", "jsonl"])?;
    let ends = |row: &Value| {
        (
            format!("10.99.0.1:{}", at(row, "/local_port")),
            "10.99.0.2:7500".to_owned(),
        )
    };
    let words = theirs.get(&ends(&all)).context("ss does not list it")?;
    let number = |label: &str| {
        words
            .get(label)
            .and_then(|value| numbers(value).first().copied())
    };
    for (label, json, factor) in [
        ("mss", at(&all, "/tcp_info/snd_mss_bytes"), 1.0),
        ("rto", at(&all, "/tcp_info/rto_us"), 1000.0),
        ("rtt", at(&all, "/tcp_info/rtt_us"), 1000.0),
        ("bytes_sent", at(&all, "/tcp_info/bytes_sent"), 1.0),
        ("bytes_received", at(&all, "/tcp_info/bytes_received"), 1.0),
        (
            "pacing_rate",
            at(&all, "/tcp_info/pacing_rate_bytes_per_s"),
            1.0 / 8.0,
        ),
        ("skmem.rb", at(&all, "/memory/rcvbuf_bytes"), 1.0),
        ("skmem.tb", at(&all, "/memory/sndbuf_bytes"), 1.0),
        ("skmem.d", at(&all, "/memory/drops"), 1.0),
        ("tos", at(&all, "/tos"), 1.0),
        ("fwmark", at(&all, "/mark"), 1.0),
        ("ino", at(&all, "/inode"), 1.0),
    ] {
        let theirs = number(label).map(|n| n * factor);
        let same = theirs
            .zip(json.as_f64())
            .is_some_and(|(theirs, ours)| (theirs - ours).abs() <= 1.0 + theirs * 1e-6);
        world.expect(same, || format!("{label}: ss {theirs:?}, linger {json}"));
    }
    let options = serde_json::json!(["is_icsk", "mc_loop", "mc_all"]);
    world.expect(*at(&all, "/sockopt") == options, || {
        at(&all, "/sockopt").to_string()
    });

    let columns = "tos,class-id,sockopt,cgroup-id,congestion,rtt";
    let some = row(&["list", "-ta", "--output", "jsonl", "--columns", columns])?;
    for key in ["tos", "class_id", "sockopt", "cgroup_id", "congestion"] {
        let pointer = format!("/{key}");
        let (some, all) = (at(&some, &pointer), at(&all, &pointer));
        world.expect(some == all && !some.is_null(), || {
            format!("{key}: {some} but {all}")
        });
    }
    world.expect(some.get("memory").is_none(), || some.to_string());
    Ok(())
}

/// `struct tcp_md5sig` for every peer in the family's network (`include/uapi/linux/tcp.h`).
fn signature() -> Vec<u8> {
    const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;
    let mut bytes = (libc::AF_INET as u16).to_ne_bytes().to_vec();
    bytes.extend([0, 0, 10, 99, 0, 0]);
    bytes.resize(128, 0);
    bytes.extend([TCP_MD5SIG_FLAG_PREFIX, 24]);
    bytes.extend((KEY.len() as u16).to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(KEY);
    bytes.resize(128 + 8 + 80, 0);
    bytes
}

fn attributes_of_bbr_mptcp_and_md5(world: &mut World) -> Result<()> {
    const TCP_MD5SIG_EXT: i32 = 32;
    const IPPROTO_MPTCP: i32 = 262;
    let mut kept = Vec::new();

    let bbr = world.dial(Family::V4, 7600)?;
    let name = b"bbr";
    // Modules are loaded for root only, and not every kernel has it.
    let has_bbr =
        set_option_bytes(&bbr.near, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name).is_ok();
    world.far.read_on(bbr.far, 65_536, Duration::ZERO)?;
    bbr.near.send(&[7; 100_000])?;
    kept.push(bbr.near);

    let mptcp = Socket::new(
        Domain::IPV4,
        Type::STREAM,
        Some(Protocol::from(IPPROTO_MPTCP)),
    );
    let has_mptcp = mptcp.is_ok();
    if let Ok(listener) = mptcp {
        listener.bind(&Family::V4.loopback(7601).into())?;
        listener.listen(5)?;
        let client = Socket::new(
            Domain::IPV4,
            Type::STREAM,
            Some(Protocol::from(IPPROTO_MPTCP)),
        )?;
        client.connect(&Family::V4.loopback(7601).into())?;
        let (server, _) = listener.accept()?;
        client.send(&[7; 5_000])?;
        kept.extend([listener, client, server]);
    }

    let signed = listen(Family::V4.near(7602), 5)?;
    let has_md5 =
        set_option_bytes(&signed, libc::IPPROTO_TCP, TCP_MD5SIG_EXT, &signature()).is_ok();
    kept.push(signed);

    let theirs = compare(world)?;
    let rows = |more: &[&str]| -> Result<Vec<Value>> {
        let output = world.linger(&[&["list", "-taeim", "--output", "jsonl"], more].concat())?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(!text.contains(std::str::from_utf8(KEY)?), "{text}");
        lines(text.as_bytes())
    };
    if has_bbr {
        shown(world, &theirs, "bbr.bw", |_| true);
        let row = &only(rows(&["dport", "=", ":7600"])?)?;
        let bbr = |key: &str| at(row, &format!("/bbr/{key}"));
        let whole = bbr("bw_bytes_per_s").is_u64() && bbr("min_rtt_us").is_u64();
        world.expect(whole && bbr("pacing_gain").is_f64(), || row.to_string());
    }
    if has_mptcp {
        shown(world, &theirs, "tcp-ulp-mptcp", |_| true);
        shown(world, &theirs, "token", |_| true);
        let rows = rows(&["sport", "=", ":7601", "or", "dport", "=", ":7601"])?;
        world.expect(rows.len() == 3, || format!("{rows:?}"));
        for row in rows {
            world.expect(*at(&row, "/ulp/name") == "mptcp", || row.to_string());
            let listens = *at(&row, "/state") == "listen";
            world.expect(at(&row, "/ulp/mptcp/token_loc").is_u64() != listens, || {
                row.to_string()
            });
        }
    }
    if has_md5 {
        shown(world, &theirs, "md5keys", |value| value == "10.99.0.0/24=");
        let row = &only(rows(&["sport", "=", ":7602"])?)?;
        let peers = serde_json::json!([{"address": "10.99.0.0", "prefix_length": 24}]);
        world.expect(*at(row, "/md5") == peers, || row.to_string());
    }

    // A capture says the same, and has no key in it.
    let file = world.scratch.path().join("attributes.linger");
    let path = file.to_str().context("an odd temporary directory")?;
    let recorded = world.linger(&["record", path])?;
    ensure!(recorded.status.success(), "{recorded:?}");
    let bytes = fs::read(&file)?;
    let leaked = bytes.windows(8).any(|bytes| KEY.starts_with(bytes));
    world.expect(!leaked, || "the key is in the capture".to_owned());
    let (live, again) = (rows(&[])?, rows(&["--from", path])?);
    for key in ["ulp", "md5", "sockopt"] {
        let of = |rows: &[Value]| -> Vec<String> {
            let mut all: Vec<String> = rows
                .iter()
                .map(|row| format!("{} {}", at(row, "/cookie"), at(row, &format!("/{key}"))))
                .collect();
            all.sort();
            all
        };
        let (live, again) = (of(&live), of(&again));
        world.expect(live == again, || format!("{key}: {live:?} but {again:?}"));
    }
    Ok(())
}

/// A control group of the test's own, which goes away with it.
struct Group {
    directory: PathBuf,
    before: PathBuf,
}

impl Group {
    fn enter(mount: &str) -> Result<(Self, String)> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::"));
        let before = PathBuf::from(format!("{mount}{}", own.context("no group")?));
        let name = format!("/linger-test-{}", std::process::id());
        let directory = PathBuf::from(format!("{mount}{name}"));
        fs::create_dir(&directory)?;
        let group = Self { directory, before };
        fs::write(group.directory.join("cgroup.procs"), "0")?;
        Ok((group, name))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Nothing can be done where it does not work.
        fs::write(self.before.join("cgroup.procs"), "0").ok();
        fs::remove_dir(&self.directory).ok();
    }
}

fn attributes_tell_the_path_of_a_cgroup(world: &mut World) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut mounted = mounts.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        source
            .starts_with("cgroup2 ")
            .then(|| mount.split(' ').nth(4))?
    });
    let mount = mounted.next();
    // Only root makes groups; whoever cannot compares the group that there is.
    let entered = mount.and_then(|mount| Group::enter(mount).ok());
    let held = listen(Family::V4.near(7700), 5)?;
    // Nobody holds these two: only their ids tell of which group they are.
    let connection = connect(Family::V4.near(7700))?;
    let port = local(&connection)?.port();

    let table = |more: &[&str]| -> Result<Vec<Value>> {
        let output = world.linger(&[&["list", "-tae", "--output", "jsonl"], more].concat())?;
        lines(&output.stdout)
    };
    let waiting = format!(":{port}");
    let row = only(table(&["dport", "=", &waiting])?)?;
    world.expect(*at(&row, "/inode") == 0, || row.to_string());
    if let Some((_, name)) = &entered {
        for row in table(&[])? {
            world.expect(*at(&row, "/cgroup") == name.as_str(), || row.to_string());
        }
    }
    let theirs = ss(&["--cgroup"])?;
    for (ends, words) in &theirs {
        let path = words.get("cgroup").context("this ss knows no groups")?;
        let port = ends.0.rsplit(':').next().unwrap_or_default().to_owned();
        let rows = table(&["sport", "=", &format!(":{port}")])?;
        let same = rows.iter().any(|row| *at(row, "/cgroup") == path.as_str());
        world.expect(same || path == "/", || {
            format!("ss {path}, linger {rows:?}")
        });
    }
    if entered.is_some() {
        // Where no hierarchy is mounted it is said that paths are missing.
        let hide = "mount -t tmpfs none /sys/fs/cgroup && exec \"$@\"";
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", hide, "sh", &crate::world::program()])
            .args(["list", "-tae", "dport", "=", &waiting])
            .output()
            .context("cannot run unshare: apt-get install util-linux")?;
        let said = String::from_utf8_lossy(&output.stderr);
        world.expect(said.contains("no cgroup2 file system is mounted"), || {
            format!("{output:?}")
        });
    }
    drop((held, connection));
    Ok(())
}
