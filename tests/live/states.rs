//! Every state that a socket can be brought into, and for how long it has been there.

use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::{Socket, TcpKeepalive};

use crate::answers::{Row, json};
use crate::harness::Test;
use crate::kernel::{self, until};
use crate::world::{Connection, Family, World, begin_connect, fill, listen, local, tcp};

pub const TESTS: &[Test] = &[
    Test {
        name: "states_walk",
        run: states_walk,
    },
    Test {
        name: "one_connection_keeps_its_cookie",
        run: one_connection_keeps_its_cookie,
    },
    Test {
        name: "ages",
        run: ages,
    },
    Test {
        name: "age_under_keepalive_is_bounded",
        run: age_under_keepalive_is_bounded,
    },
];

/// The port on which near listens; all other ports of near are ephemeral, so that they name a specimen.
const PORT: u16 = 7001;

/// A socket in a known state, and how linger is to show it.
pub struct Specimen {
    pub what: &'static str,
    pub family: Family,
    pub local: SocketAddr,
    pub peer_port: u16,
    /// the kernel's number; `None` where `/proc/net/tcp` does not show the socket
    pub number: Option<u8>,
    pub state: &'static str,
    pub timer: Option<&'static str>,
    pub held: bool,
    /// keeps the near end open
    _near: Option<Socket>,
}

impl Specimen {
    /// Whether a row is this socket.
    pub fn is(&self, row: &Row) -> bool {
        (row.local_address, row.local_port, row.peer_port)
            == (self.local.ip(), self.local.port(), self.peer_port)
    }
}

/// Collects specimens of one family.
struct Zoo<'w> {
    world: &'w World,
    family: Family,
    specimens: Vec<Specimen>,
}

/// What a specimen is, as the kernel and linger call it.
type Is = (Option<u8>, &'static str, Option<&'static str>);

impl Zoo<'_> {
    fn add(&mut self, what: &'static str, is: Is, at: (SocketAddr, u16), near: Option<Socket>) {
        let (number, state, timer) = is;
        self.specimens.push(Specimen {
            what,
            family: self.family,
            local: at.0,
            peer_port: at.1,
            number,
            state,
            timer,
            held: near.is_some(),
            _near: near,
        });
    }

    /// Adds a connection that far accepted, after `change` brought it where it is to be.
    fn dialled(
        &mut self,
        what: &'static str,
        is: Is,
        change: impl FnOnce(&World, Connection) -> Result<Option<Socket>>,
    ) -> Result<()> {
        let connection = self.world.dial(self.family, PORT + 1)?;
        let at = (local(&connection.near)?, PORT + 1);
        let near = change(self.world, connection).with_context(|| format!("cannot make {what}"))?;
        self.add(what, is, at, near);
        Ok(())
    }
}

/// Makes one socket of each kind and waits until the kernel has them all where they belong.
pub fn zoo(world: &World, family: Family) -> Result<Vec<Specimen>> {
    let mut zoo = Zoo {
        world,
        family,
        specimens: Vec::new(),
    };
    let far = &world.far;
    let retransmit = Some("retransmit");

    let listener = listen(family.near(PORT), 7)?;
    let listens_at = local(&listener)?;
    let served = world.serve(&listener)?;
    let client_port = far.with(served.far, |socket| Ok(local(socket)?.port()))?;
    let deaf = far.begin_connect(listens_at, true)?;
    let deaf_port = far.with(deaf, |socket| Ok(local(socket)?.port()))?;
    zoo.add(
        "a listener",
        (Some(kernel::LISTEN), "listen", None),
        (listens_at, 0),
        Some(listener),
    );
    zoo.add(
        "an accepted connection",
        (Some(kernel::ESTABLISHED), "established", None),
        (listens_at, client_port),
        Some(served.near),
    );
    zoo.add(
        "a handshake whose last step never comes",
        (Some(kernel::SYN_RECEIVED), "syn-received", retransmit),
        (listens_at, deaf_port),
        None,
    );

    let hole = family.hole(81);
    let unanswered = tcp(hole)?;
    begin_connect(&unanswered, hole)?;
    zoo.add(
        "a connect that nobody answers",
        (Some(kernel::SYN_SENT), "syn-sent", retransmit),
        (local(&unanswered)?, 81),
        Some(unanswered),
    );

    let bound = tcp(family.near(0))?;
    bound.bind(&family.near(0).into())?;
    zoo.add(
        "a port that is only bound",
        (None, "bound-inactive", None),
        (local(&bound)?, 0),
        Some(bound),
    );

    zoo.dialled(
        "an idle connection",
        (Some(kernel::ESTABLISHED), "established", None),
        |_, c| Ok(Some(c.near)),
    )?;
    zoo.dialled(
        "a connection whose peer is gone without a word",
        (Some(kernel::ESTABLISHED), "established", None),
        |world, c| {
            world.far.vanish(c.far)?;
            Ok(Some(c.near))
        },
    )?;
    zoo.dialled(
        "a connection with keepalive",
        (Some(kernel::ESTABLISHED), "established", Some("keepalive")),
        |_, c| {
            let idle = TcpKeepalive::new().with_time(Duration::from_secs(900));
            c.near.set_tcp_keepalive(&idle)?;
            Ok(Some(c.near))
        },
    )?;
    zoo.dialled(
        "a connection whose peer does not read",
        (Some(kernel::ESTABLISHED), "established", Some("persist")),
        |_, c| {
            fill(&c.near)?;
            Ok(Some(c.near))
        },
    )?;
    zoo.dialled(
        "a FIN that nobody acknowledges",
        (Some(kernel::FIN_WAIT_1), "fin-wait-1", retransmit),
        |world, c| {
            world.far.deafen(c.far)?;
            c.near.shutdown(Shutdown::Write)?;
            Ok(Some(c.near))
        },
    )?;
    zoo.dialled(
        "half closed by us, still held",
        (Some(kernel::FIN_WAIT_2), "fin-wait-2", None),
        |_, c| {
            c.near.shutdown(Shutdown::Write)?;
            Ok(Some(c.near))
        },
    )?;
    zoo.dialled(
        "closed by us, not by the peer",
        (Some(kernel::FIN_WAIT_2), "fin-wait-2", Some("time-wait")),
        |_, c| {
            drop(c.near);
            Ok(None)
        },
    )?;
    zoo.dialled(
        "closed by the peer, not by us",
        (Some(kernel::CLOSE_WAIT), "close-wait", None),
        |world, c| {
            world.far.close(c.far)?;
            Ok(Some(c.near))
        },
    )?;
    zoo.dialled(
        "closed by both, and neither heard the other's ACK",
        (Some(kernel::CLOSING), "closing", retransmit),
        |world, c| {
            world.far.deafen(c.far)?;
            c.near.shutdown(Shutdown::Write)?;
            world.far.shut_write(c.far)?;
            Ok(Some(c.near))
        },
    )?;
    zoo.dialled(
        "closed by both, our FIN unanswered",
        (Some(kernel::LAST_ACK), "last-ack", retransmit),
        |world, c| {
            let port = local(&c.near)?.port();
            world.far.shut_write(c.far)?;
            until("the peer's FIN", || {
                let lines = kernel::table()?;
                let line = lines.iter().find(|line| line.local_port == port);
                let arrived = line.is_some_and(|line| line.state == kernel::CLOSE_WAIT);
                Ok((!arrived).then(|| format!("{line:?}")))
            })?;
            world.far.deafen(c.far)?;
            drop(c.near);
            Ok(None)
        },
    )?;
    zoo.dialled(
        "closed by us, then by the peer",
        (Some(kernel::TIME_WAIT), "time-wait", Some("time-wait")),
        |world, c| {
            drop(c.near);
            world.far.close(c.far)?;
            Ok(None)
        },
    )?;

    let specimens = zoo.specimens;
    in_place(family, &specimens)?;
    Ok(specimens)
}

/// Waits until the kernel has all specimens in their states.
fn in_place(family: Family, specimens: &[Specimen]) -> Result<()> {
    until("the scenario", || {
        let lines = kernel::table()?;
        let missing = specimens.iter().find(|specimen| {
            let Some(number) = specimen.number else {
                return false;
            };
            !lines.iter().any(|line| {
                line.v6 == (family == Family::V6)
                    && (line.local_port, line.peer_port)
                        == (specimen.local.port(), specimen.peer_port)
                    && line.state == number
            })
        });
        Ok(missing.map(|specimen| specimen.what.to_owned()))
    })
}

/// Whether this kernel lists sockets that are only bound (6.8).
pub fn lists_bound_sockets() -> Result<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|n| n.parse::<u32>().ok());
    let version = (next().unwrap_or(0), next().unwrap_or(0));
    Ok(version >= (6, 8))
}

fn states_walk(world: &mut World) -> Result<()> {
    let mut specimens = Vec::new();
    for family in world.families() {
        specimens.extend(zoo(world, *family)?);
    }
    let rows = world.rows(&["list", "-a", "-p", "--json"])?;
    let pid = std::process::id();
    for specimen in &specimens {
        if specimen.number.is_none() && !lists_bound_sockets()? {
            continue;
        }
        let what = format!("{} ({:?})", specimen.what, specimen.family);
        let mut matching = rows.iter().filter(|row| specimen.is(row));
        let (Some(row), None) = (matching.next(), matching.next()) else {
            world.problem(format!("{what}: not listed, or twice"));
            continue;
        };
        let owners = row.owners.as_deref().unwrap_or_default();
        let right = row.protocol == "tcp"
            && row.family == if specimen.family == Family::V4 { "ipv4" } else { "ipv6" }
            && row.state == specimen.state
            && row.timer_name() == specimen.timer
            && row.is_held() == specimen.held
            && row.cookie.as_ref().is_some_and(|cookie| cookie.starts_with("0x"))
            // Nobody holds a mini-socket or an orphan; the kernel's uid 0 for them is no statement about root.
            && if specimen.held {
                owners.len() == 1 && owners.iter().all(|owner| owner.pid == pid && owner.fd > 2 && !owner.comm.is_empty())
            } else {
                owners.is_empty()
            };
        world.expect(right, || format!("{what}: shown as {row:?}"));
    }
    let listeners = rows.iter().filter(|row| row.state == "listen");
    for row in listeners {
        world.expect((row.recv_q, row.send_q) == (0, Some(7)), || {
            format!("a listener shows its queue and its limit: {row:?}")
        });
    }
    world.expect(rows.len() == specimens.len(), || {
        format!("{} rows for {} sockets", rows.len(), specimens.len())
    });
    counts_are_those_of_the_list(world, &rows)
}

/// `status` counts what `list` lists, in every state, zeros included.
fn counts_are_those_of_the_list(world: &World, rows: &[Row]) -> Result<()> {
    let arguments = ["status", "--json"];
    let status = json(&arguments, &world.linger(&arguments)?)?;
    let counts = status
        .pointer("/states/tcp")
        .and_then(|counts| counts.as_object())
        .context("status has no states.tcp")?;
    for state in [
        "listen",
        "syn-sent",
        "syn-received",
        "established",
        "fin-wait-1",
        "fin-wait-2",
        "close-wait",
        "closing",
        "last-ack",
        "time-wait",
        "closed",
    ] {
        let listed = rows.iter().filter(|row| row.state == state).count();
        let counted = counts.get(state).and_then(serde_json::Value::as_u64);
        world.expect(counted == u64::try_from(listed).ok(), || {
            format!("status counts {counted:?} sockets in {state}, list lists {listed}")
        });
    }
    Ok(())
}

fn one_connection_keeps_its_cookie(world: &mut World) -> Result<()> {
    for family in world.families() {
        let connection = world.dial(*family, PORT)?;
        let port = local(&connection.near)?.port();
        let now = |state: u8| {
            until("the next state", || {
                let lines = kernel::table()?;
                let line = lines.iter().find(|line| line.local_port == port);
                let there = line.is_some_and(|line| line.state == state);
                Ok((!there).then(|| format!("{line:?}")))
            })?;
            let mut rows = world.rows(&["list", "-a", "--json"])?;
            rows.retain(|row| row.local_port == port);
            ensure!(rows.len() == 1, "one connection is {rows:?}");
            rows.pop().context("no row")
        };
        let established = now(kernel::ESTABLISHED)?;
        connection.near.shutdown(Shutdown::Write)?;
        let attached = now(kernel::FIN_WAIT_2)?;
        drop(connection.near);
        let orphan = now(kernel::FIN_WAIT_2)?;
        world.far.close(connection.far)?;
        let time_wait = now(kernel::TIME_WAIT)?;
        let walk = [&established, &attached, &orphan, &time_wait];
        let names = walk.map(|row| row.state.as_str());
        world.expect(
            names == ["established", "fin-wait-2", "fin-wait-2", "time-wait"],
            || format!("{names:?}"),
        );
        let cookies = walk.map(|row| row.cookie.as_deref());
        let first = cookies.first().copied().flatten();
        world.expect(
            first.is_some() && cookies.iter().all(|cookie| *cookie == first),
            || format!("the cookie changes: {cookies:?}"),
        );
        let held = walk.map(Row::is_held);
        world.expect(held == [true, true, false, false], || {
            format!("held by a descriptor: {held:?}")
        });
    }
    Ok(())
}

/// Half a second, of which the timer wheel and the delayed ACK of a FIN take the most.
const TOLERANCE: u64 = 500;

fn ages(world: &mut World) -> Result<()> {
    let mut born = Vec::new();
    let mut kept = Vec::new();
    for family in world.families() {
        let close_wait = world.dial(*family, PORT)?;
        let held = world.dial(*family, PORT)?;
        let orphan = world.dial(*family, PORT)?;
        let time_wait = world.dial(*family, PORT)?;
        // The connections are older than their states, so that the one is not taken for the other.
        thread::sleep(Duration::from_millis(1500));
        let start = Instant::now();
        for (connection, state) in [(&close_wait, "close-wait"), (&held, "fin-wait-2")] {
            born.push((local(&connection.near)?.port(), state, start));
        }
        for (connection, state) in [(&orphan, "fin-wait-2"), (&time_wait, "time-wait")] {
            born.push((local(&connection.near)?.port(), state, start));
        }
        world.far.close(close_wait.far)?;
        held.near.shutdown(Shutdown::Write)?;
        drop(orphan.near);
        drop(time_wait.near);
        world.far.close(time_wait.far)?;
        kept.extend([close_wait.near, held.near]);
    }
    let families = world.families().len();
    kernel::until_count(kernel::CLOSE_WAIT, families)?;
    kernel::until_count(kernel::FIN_WAIT_2, 2 * families)?;
    kernel::until_count(kernel::TIME_WAIT, families)?;
    thread::sleep(Duration::from_secs(3));
    let before = Instant::now();
    let rows = world.rows(&["list", "-a", "-i", "--json"])?;
    let after = Instant::now();
    for (port, state, start) in born {
        let row = rows.iter().find(|row| row.local_port == port);
        let youngest = millis(before - start).saturating_sub(TOLERANCE);
        let oldest = millis(after - start) + TOLERANCE;
        let right = row.is_some_and(|row| {
            row.state == state
                && row
                    .state_age_ms
                    .is_some_and(|age| (youngest..=oldest).contains(&age))
        });
        world.expect(right, || {
            format!("{state} is {youngest}..{oldest} ms old: {row:?}")
        });
    }
    Ok(())
}

fn age_under_keepalive_is_bounded(world: &mut World) -> Result<()> {
    let connection = world.dial(Family::V4, PORT)?;
    let every_second = TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1));
    connection.near.set_tcp_keepalive(&every_second)?;
    thread::sleep(Duration::from_millis(500));
    // Half closed, so that the peer goes on answering the probes.
    let start = Instant::now();
    world.far.shut_write(connection.far)?;
    kernel::until_count(kernel::CLOSE_WAIT, 1)?;
    thread::sleep(Duration::from_millis(3500));
    let rows = world.rows(&["list", "-i", "--json", "state", "close-wait"])?;
    let age = millis(start.elapsed());
    let bounds = rows
        .first()
        .map(|row| (row.state_age_ms, row.state_age_max_ms));
    let Some((Some(low), Some(high))) = bounds else {
        world.problem(format!(
            "an age between two bounds should be shown: {rows:?}"
        ));
        return Ok(());
    };
    world.expect(low <= age && age <= high + TOLERANCE, || {
        format!("{age} ms is not within {low}..{high}")
    });
    world.expect(low + 1000 < age, || {
        format!("probes are answered each second, so {low} of {age} ms cannot be known")
    });
    connection.near.shutdown(Shutdown::Both)?;
    Ok(())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
