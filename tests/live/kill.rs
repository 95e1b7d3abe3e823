//! `linger kill`: what dies, what both ends notice, and that nothing else does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use libc::{ECONNABORTED, ECONNRESET, EINVAL};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::answers::{document, json};
use crate::harness::Test;
use crate::kernel::{self, until, until_count};
use crate::world::{Connection, Family, Handle, World, begin_connect, listen, local, tcp};

pub const TESTS: &[Test] = &[
    Test {
        name: "kill_aborts_both_ends",
        run: kill_aborts_both_ends,
    },
    Test {
        name: "kill_hits_one_of_many",
        run: kill_hits_one_of_many,
    },
    Test {
        name: "kill_shows_before_it_acts",
        run: kill_shows_before_it_acts,
    },
    Test {
        name: "kill_ends_what_opens",
        run: kill_ends_what_opens,
    },
    Test {
        name: "kill_of_udp",
        run: kill_of_udp,
    },
    Test {
        name: "kill_tells_what_was_gone",
        run: kill_tells_what_was_gone,
    },
    Test {
        name: "kill_keeps_the_evidence",
        run: kill_keeps_the_evidence,
    },
];

const PORT: u16 = 443;

/// What one run said and did.
#[derive(Debug)]
pub struct Killed {
    pub code: Option<i32>,
    pub document: Value,
    pub stderr: String,
}

impl Killed {
    pub fn of(output: &Output) -> Result<Self> {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!stderr.contains("panicked"), "{stderr}");
        let document = match &output.stdout[..] {
            // It failed before there was anything to tell.
            [] => Value::Null,
            printed => document(printed).with_context(|| stderr.clone())?,
        };
        Ok(Self {
            code: output.status.code(),
            document,
            stderr,
        })
    }

    /// How many sockets met which fate.
    pub fn results(&self) -> BTreeMap<String, usize> {
        let mut results = BTreeMap::new();
        for socket in self.sockets() {
            let result = at(socket, "/result").as_str().unwrap_or("?").to_owned();
            *results.entry(result).or_default() += 1;
        }
        results
    }

    pub fn sockets(&self) -> &[Value] {
        let sockets = self.document.get("sockets").and_then(Value::as_array);
        sockets.map_or(&[], Vec::as_slice)
    }

    /// Whether it ended with this code, all sockets having met these fates.
    pub fn is(&self, code: i32, results: &[(&str, usize)]) -> bool {
        let results = results.iter();
        let expected: BTreeMap<String, usize> = results
            .map(|(result, number)| ((*result).to_owned(), *number))
            .collect();
        self.code == Some(code) && self.results() == expected
    }
}

impl World {
    /// Runs `linger kill --json` in near, with a state directory of the test's own.
    pub fn kill(&self, arguments: &[&str]) -> Result<Killed> {
        let mut command = self.command(&["kill", "--json"]);
        command.args(arguments);
        command.env("STATE_DIRECTORY", self.state_directory());
        Killed::of(&command.output()?)
    }

    pub fn state_directory(&self) -> PathBuf {
        self.scratch.path().join("state")
    }

    /// The captures in the state directory.
    pub fn captures(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.state_directory()).into_iter().flatten();
        entries.flatten().map(|entry| entry.path()).collect()
    }
}

/// What the document has there.
fn at(value: &Value, pointer: &str) -> Value {
    value.pointer(pointer).cloned().unwrap_or_default()
}

/// What the next read of far says.
fn far_reads(world: &World, handle: Handle) -> Result<Option<i32>> {
    world.far.with(handle, |socket| {
        socket.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
        Ok(errno(&mut socket.try_clone()?))
    })
}

/// The errno of the next read; `None` if it succeeds.
pub fn errno(socket: &mut Socket) -> Option<i32> {
    let read = socket.read(&mut [0; 16]);
    read.err().and_then(|error| error.raw_os_error())
}

/// A byte goes from near to far.
pub fn carries(world: &World, connection: &Connection) -> Result<bool> {
    let mut near = connection.near.try_clone()?;
    if near.write_all(b"x").is_err() {
        return Ok(false);
    }
    world.far.with(connection.far, |socket| {
        socket.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
        Ok(socket.try_clone()?.read(&mut [0]).is_ok_and(|n| n == 1))
    })
}

fn kill_aborts_both_ends(world: &mut World) -> Result<()> {
    for family in world.families() {
        let mut connection = world.dial(*family, PORT)?;
        let port = local(&connection.near)?.port();
        let filter = format!("sport = :{port}");
        let killed = world.kill(&[&filter, "--yes"])?;
        world.expect(killed.is(0, &[("destroyed", 1)]), || format!("{killed:?}"));
        let own = std::process::id();
        let owner = killed.document.pointer("/sockets/0/owners/0/pid");
        world.expect(owner == Some(&own.into()), || {
            format!("it says whose it was: {killed:?}")
        });
        let near = errno(&mut connection.near);
        world.expect(near == Some(ECONNABORTED), || {
            format!("{family:?}: the program gets ECONNABORTED: {near:?}")
        });
        let far = far_reads(world, connection.far)?;
        world.expect(far == Some(ECONNRESET), || {
            format!("{family:?}: the peer gets a reset: {far:?}")
        });
        let rest = kernel::table()?
            .iter()
            .filter(|line| line.local_port == port)
            .count();
        world.expect(rest == 0, || format!("{family:?}: it is gone: {rest}"));
    }
    // An IPv4 conversation on an IPv6 socket, which the kernel looks up as IPv4.
    if world.families().contains(&Family::V6) {
        let wildcard = std::net::SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 8080));
        let listener = listen(wildcard, 10)?;
        let far = world.far.connect(Family::V4.near(8080))?;
        let (mut near, _) = listener.accept()?;
        let killed = world.kill(&["sport", "=", ":8080", "-6", "--yes"])?;
        let right = killed.is(0, &[("destroyed", 1), ("refused", 1)]);
        world.expect(right, || format!("{killed:?}"));
        let ends = (errno(&mut near), far_reads(world, far)?);
        world.expect(ends == (Some(ECONNABORTED), Some(ECONNRESET)), || {
            format!("v4-mapped: {ends:?}")
        });
    }
    Ok(())
}

fn kill_hits_one_of_many(world: &mut World) -> Result<()> {
    let mut connections = Vec::new();
    for _ in 0..5 {
        connections.push(world.dial(Family::V4, PORT)?);
    }
    let third = connections.get(2).context("no third one")?;
    let port = local(&third.near)?.port();
    let killed = world.kill(&[
        "dport",
        "=",
        ":443",
        "and",
        &format!("sport = :{port}"),
        "--yes",
    ])?;
    world.expect(killed.is(0, &[("destroyed", 1)]), || format!("{killed:?}"));
    for (number, connection) in connections.iter_mut().enumerate() {
        if number == 2 {
            let near = errno(&mut connection.near);
            world.expect(near == Some(ECONNABORTED), || format!("{near:?}"));
        } else {
            let lives = carries(world, connection)?;
            world.expect(lives, || format!("connection {number} is none of it"));
        }
    }
    // Whose cookie is another one lives, whatever its ports.
    let cookies: Vec<_> = world
        .rows(&["list", "--json", "dport = :443"])?
        .into_iter()
        .filter_map(|row| row.cookie)
        .collect();
    world.expect(cookies.len() == 4, || format!("{cookies:?}"));
    Ok(())
}

fn kill_shows_before_it_acts(world: &mut World) -> Result<()> {
    let connections = [world.dial(Family::V4, PORT)?, world.dial(Family::V4, PORT)?];
    let shown = world.kill(&["dport = :443"])?;
    let right = shown.is(0, &[("would-destroy", 2)])
        && at(&shown.document, "/dry_run") == true
        && at(&shown.document, "/capture").is_null()
        && at(&shown.document, "/schema") == "linger.kill/1"
        && at(&shown.document, "/counts/would_destroy") == 2;
    world.expect(right, || format!("{shown:?}"));
    let text = world.linger(&["kill", "dport", "=", ":443"])?;
    let page = String::from_utf8_lossy(&text.stdout);
    for part in [
        "would destroy  2 sockets; nothing has been touched",
        "ECONNABORTED",
        "next           linger kill 'dport = :443' --yes",
    ] {
        world.expect(page.contains(part), || format!("{part:?} in {page}"));
    }
    let owner = format!("[{}]", std::process::id());
    let owned = page.lines().filter(|line| line.contains(&owner)).count();
    world.expect(owned == 2, || format!("owners as in list -p: {page}"));
    for connection in &connections {
        let lives = carries(world, connection)?;
        world.expect(lives, || "a preview touches nothing".to_owned());
    }
    world.expect(world.captures().is_empty(), || {
        format!("a preview writes nothing: {:?}", world.captures())
    });
    // What is printed is what acts.
    let next = page
        .lines()
        .find_map(|line| line.strip_prefix("next           linger "))
        .context("no command")?;
    let command = format!("{} {next}", crate::world::program());
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", &command])
        .env("STATE_DIRECTORY", world.state_directory());
    let acted = shell.output()?;
    let said = String::from_utf8_lossy(&acted.stdout);
    let right = acted.status.success() && said.contains("destroyed      2 sockets");
    world.expect(right, || format!("{acted:?}"));
    let path = said.lines().find_map(|line| line.strip_prefix("capture"));
    let path = path.map(str::trim).unwrap_or_default();
    world.expect(fs::exists(path).unwrap_or(false), || {
        format!("the path is printed: {said}")
    });
    shows_the_capture(world, &said, 2)?;
    let none = world.kill(&["dport = :443", "--yes"])?;
    world.expect(none.is(0, &[]) && world.captures().len() == 1, || {
        format!("where none fits nothing is done, nor written: {none:?}")
    });
    Ok(())
}

/// Expects that the command which is printed behind the capture shows so many rows.
fn shows_the_capture(world: &World, said: &str, rows: usize) -> Result<()> {
    let mut lines = said.lines();
    let next = lines
        .find_map(|line| line.strip_prefix("next           linger "))
        .context("no command")?;
    let words: Vec<&str> = next.split(' ').chain(["-H"]).collect();
    let listed = world.linger(&words)?;
    let shown = String::from_utf8_lossy(&listed.stdout).lines().count();
    world.expect(shown == rows, || format!("{next}: {listed:?}"));
    Ok(())
}

fn kill_ends_what_opens(world: &mut World) -> Result<()> {
    // SYN-SENT: connect() fails.
    let calling = tcp(Family::V4.hole(81))?;
    begin_connect(&calling, Family::V4.hole(81))?;
    until_count(kernel::SYN_SENT, 1)?;
    let killed = world.kill(&["state", "syn-sent", "--yes"])?;
    world.expect(killed.is(0, &[("destroyed", 1)]), || format!("{killed:?}"));
    let error = calling.take_error()?.and_then(|error| error.raw_os_error());
    world.expect(error == Some(ECONNABORTED), || {
        format!("connect() fails with ECONNABORTED: {error:?}")
    });
    until_count(kernel::SYN_SENT, 0)?;

    // SYN-RECEIVED: a mini-socket.
    let listener = listen(Family::V4.near(8080), 10)?;
    world.far.begin_connect(Family::V4.near(8080), true)?;
    until_count(kernel::SYN_RECEIVED, 1)?;
    let killed = world.kill(&["state", "syn-received", "--yes"])?;
    world.expect(killed.is(0, &[("destroyed", 1)]), || format!("{killed:?}"));
    let gone = kernel::count(kernel::SYN_RECEIVED)?;
    world.expect(gone == 0, || "the handshake is forgotten".to_owned());

    // Not accepted yet: accept() returns it, dead.
    world.far.connect(Family::V4.near(8080))?;
    until_count(kernel::ESTABLISHED, 1)?;
    let shown = world.linger(&["kill", "sport = :8080"])?;
    let page = String::from_utf8_lossy(&shown.stdout);
    world.expect(page.contains("accept() still returns it"), || {
        page.clone().into_owned()
    });
    let killed = world.kill(&["sport = :8080", "state established", "--yes"])?;
    world.expect(killed.is(0, &[("destroyed", 1)]), || format!("{killed:?}"));
    let (mut accepted, _) = listener.accept()?;
    let error = errno(&mut accepted);
    world.expect(error == Some(ECONNABORTED), || format!("{error:?}"));
    Ok(())
}

fn kill_of_udp(world: &mut World) -> Result<()> {
    let udp = || Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP));
    for family in world.families() {
        let domain = Domain::for_address(family.near(53));
        let mut server = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        server.bind(&family.near(53).into())?;
        let mut client = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        client.connect(&family.far(5353).into())?;
        for socket in [&server, &client] {
            socket.set_nonblocking(true)?;
        }
        // What has no peer is left alone, and said to be; TCP is not touched.
        let killed = world.kill(&["-u", "dport = :5353 or sport = :53", "--yes"])?;
        let right = killed.is(0, &[("destroyed", 1), ("refused", 1)]);
        world.expect(right, || format!("{killed:?}"));
        let error = errno(&mut client);
        world.expect(error == Some(ECONNABORTED), || format!("{error:?}"));
        for state in ["", "state unconnected"] {
            let refused = world.kill(&["-u", state, "sport = :53", "--yes"])?;
            let right = refused.is(1, &[("refused", 1)])
                && refused.document.pointer("/sockets/0/option") == Some(&"--listeners".into());
            world.expect(right, || format!("{state}: {refused:?}"));
        }
        let killed = world.kill(&["-u", "sport = :53", "--listeners", "--yes"])?;
        world.expect(killed.is(0, &[("destroyed", 1)]), || format!("{killed:?}"));
        let error = errno(&mut server);
        world.expect(error == Some(ECONNABORTED), || format!("{error:?}"));
        // As the preview says: the port stays.
        let bound = local(&server)?.port();
        world.expect(bound == 53, || format!("{bound}"));
    }
    // Both protocols at once, and the capture has both; of one, it has that.
    for (tables, rows) in [("-tu", 2), ("-u", 1)] {
        let connection = world.dial(Family::V4, PORT)?;
        let client = udp()?;
        client.connect(&Family::V4.far(PORT).into())?;
        let directory = world.state_directory();
        let directory = directory.to_str().context("an odd directory")?;
        let filter = "dport = :443";
        let killed = world.linger(&["kill", tables, filter, "--yes", "--state-dir", directory])?;
        let said = String::from_utf8_lossy(&killed.stdout);
        let destroyed = said.contains(&format!("\ndestroyed      {rows} socket"));
        world.expect(destroyed, || format!("{killed:?}"));
        shows_the_capture(world, &said, rows)?;
        drop(connection);
    }
    Ok(())
}

fn kill_tells_what_was_gone(world: &mut World) -> Result<()> {
    // The end of a listener takes what waits in its queue along.
    let listener = listen(Family::V4.near(8080), 10)?;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(world.far.connect(Family::V4.near(8080))?);
    }
    until_count(kernel::ESTABLISHED, 3)?;
    let killed = world.kill(&["sport = :8080", "--listeners", "--yes"])?;
    let right = killed.is(0, &[("destroyed", 1), ("vanished", 3)]);
    world.expect(right, || format!("{killed:?}"));
    let dead = killed
        .sockets()
        .iter()
        .find(|socket| at(socket, "/result") == "destroyed");
    world.expect(
        dead.is_some_and(|socket| at(socket, "/state") == "listen"),
        || format!("{killed:?}"),
    );
    let accepted = listener.accept();
    let error = accepted.err().and_then(|error| error.raw_os_error());
    world.expect(error == Some(EINVAL), || {
        format!("accept() fails with EINVAL: {error:?}")
    });
    for handle in waiting {
        let error = far_reads(world, handle)?;
        world.expect(error == Some(ECONNRESET), || {
            format!("what waited is reset: {error:?}")
        });
    }

    // Both ends on this host: the first one's reset ends the second.
    let listener = listen(Family::V4.loopback(9090), 10)?;
    let mut client = crate::world::connect(Family::V4.loopback(9090))?;
    let (mut server, _) = listener.accept()?;
    let killed = world.kill(&["sport = :9090 or dport = :9090", "--yes"])?;
    let right = killed.is(0, &[("destroyed", 1), ("vanished", 1), ("refused", 1)]);
    world.expect(right, || format!("{killed:?}"));
    let mut errors = [errno(&mut client), errno(&mut server)];
    errors.sort_unstable();
    world.expect(errors == [Some(ECONNABORTED), Some(ECONNRESET)], || {
        format!("{errors:?}")
    });

    // Listeners on one port: the kernel finds one of them, and then the next.
    let together = |_| -> Result<Socket> {
        let socket = tcp(Family::V4.near(7070))?;
        socket.set_reuse_port(true)?;
        socket.bind(&Family::V4.near(7070).into())?;
        socket.listen(5)?;
        Ok(socket)
    };
    let group = (0..4).map(together).collect::<Result<Vec<_>>>()?;
    let first = world.rows(&["list", "-l", "--json", "sport = :7070"])?;
    ensure!(first.len() == 4, "{first:?}");
    let (mut dead, mut hidden) = (0, 0);
    for row in &first {
        let inode = format!("inode = {}", row.inode.unwrap_or_default());
        let killed = world.kill(&[&inode, "state listen", "--listeners", "--yes"])?;
        let rows = world.rows(&["list", "-l", "--json", "sport = :7070"])?;
        let there = rows.iter().any(|now| now.cookie == row.cookie);
        if killed.is(0, &[("destroyed", 1)]) {
            dead += 1;
            world.expect(!there, || format!("it is said to be dead: {killed:?}"));
        } else {
            hidden += 1;
            let told = killed.is(1, &[("failed", 1)]) && killed.stderr.contains("SO_REUSEPORT");
            world.expect(there && told, || format!("{killed:?}"));
        }
    }
    world.expect(dead >= 1, || format!("{hidden} were not found"));
    let killed = world.kill(&["sport = :7070", "--listeners", "--yes"])?;
    let right = hidden == 0 || killed.is(0, &[("destroyed", hidden)]);
    world.expect(right, || format!("{hidden} left: {killed:?}"));
    let left = world.rows(&["list", "-l", "--json", "sport = :7070"])?;
    world.expect(left.is_empty(), || format!("{left:?}"));
    drop(group);
    Ok(())
}

fn kill_keeps_the_evidence(world: &mut World) -> Result<()> {
    let mut kept = Vec::new();
    for family in world.families() {
        for port in [PORT, 80] {
            kept.push(world.dial(*family, port)?);
        }
    }
    // One that fits and is left alone belongs to the picture.
    let closed = world.dial(Family::V4, PORT)?;
    world.far.close(closed.far)?;
    until_count(kernel::CLOSE_WAIT, 1)?;
    let before = world.rows(&["list", "-p", "--json", "dport = :443"])?;
    let fit = world.families().len();
    ensure!(before.len() == fit + 1, "{before:?}");

    let killed = world.kill(&["dport = :443", "--yes"])?;
    let right = killed.is(0, &[("destroyed", fit), ("refused", 1)]);
    world.expect(right, || format!("{killed:?}"));
    let captures = world.captures();
    let [capture] = &captures[..] else {
        anyhow::bail!("one capture: {captures:?}");
    };
    let capture = capture.to_str().context("an odd directory")?;
    world.expect(at(&killed.document, "/capture") == capture, || {
        format!("{killed:?}")
    });
    let mode =
        |path: &str| -> Result<u32> { Ok(fs::metadata(path)?.permissions().mode() & 0o7777) };
    let directory = world.state_directory();
    let directory = directory.to_str().context("an odd directory")?;
    let modes = (mode(capture)?, mode(directory)?);
    world.expect(modes == (0o600, 0o700), || {
        format!("it is its owner's business: {modes:?}")
    });
    let name = capture.rsplit('/').next().unwrap_or_default();
    let dated = name.starts_with("kill-20") && name.ends_with("Z.linger");
    world.expect(dated, || name.to_owned());

    let arguments = ["list", "-api", "--json", "--from", capture];
    let document = json(&arguments, &world.linger(&arguments)?)?;
    let rows = at(&document, "/sockets")
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut told: Vec<String> = rows
        .iter()
        .map(|row| at(row, "/cookie").to_string())
        .collect();
    told.sort_unstable();
    let mut cookies: Vec<String> = before
        .iter()
        .filter_map(|row| Some(format!("{:?}", row.cookie.as_deref()?)))
        .collect();
    cookies.sort_unstable();
    world.expect(told == cookies, || {
        format!("exactly what fitted: {rows:?}, {cookies:?}")
    });
    let own = std::process::id();
    for row in &rows {
        let whole = at(row, "/owners/0/pid") == own && at(row, "/tcp_info/rtt_us").is_u64();
        world.expect(whole, || {
            format!("as the kernel told it, with its owner: {row}")
        });
    }
    // It does not look like a machine with these sockets alone.
    world.expect(at(&document, "/complete") == false, || {
        format!("{document}")
    });
    for (number, connection) in kept.iter().enumerate() {
        let lives = carries(world, connection)?;
        world.expect(lives == (number % 2 == 1), || {
            format!("connection {number}")
        });
    }

    // Unasked for, it is not there.
    let killed = world.kill(&["dport = :80", "--yes", "--no-capture"])?;
    let right = killed.is(0, &[("destroyed", fit)]) && at(&killed.document, "/capture").is_null();
    world.expect(right && world.captures().len() == 1, || {
        format!("{killed:?}")
    });
    until("a state directory of the user's choice", || {
        let connection = world.dial(Family::V4, 80)?;
        let chosen = world.scratch.path().join("chosen/by/me");
        let name = chosen.to_str().context("an odd directory")?;
        let killed = world.kill(&["dport = :80", "--yes", "--state-dir", name])?;
        drop(connection);
        let written = fs::read_dir(&chosen)?.count();
        Ok((written != 1).then(|| format!("{killed:?}")))
    })?;
    Ok(())
}
