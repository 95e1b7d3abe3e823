//! Owners that are remembered from look to look agree with those that are read anew, at the cost of what is new.

use std::any::Any;
use std::collections::BTreeSet;
use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use libc::CLONE_FILES;
use linger::collect::live::{Choice, Live};
use linger::collect::procfs::ProcRoot;
use linger::collect::procfs::remembered::Remembered;
use linger::collect::{Also, Want, snapshot};
use linger::model::{Snapshot, StateSet};
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

use crate::harness::{Skip, Test};
use crate::kernel::until;
use crate::owners::Heir;
use crate::states::lists_bound_sockets;
use crate::sys;
use crate::world::{Family, World, listen};

pub const TESTS: &[Test] = &[
    Test {
        name: "new_sockets_are_found_without_a_walk",
        run: new_sockets_are_found_without_a_walk,
    },
    Test {
        name: "links_end_with_their_process",
        run: links_end_with_their_process,
    },
    Test {
        name: "what_a_child_inherits_is_found_at_the_next_walk",
        run: what_a_child_inherits_is_found_at_the_next_walk,
    },
    Test {
        name: "nobodys_sockets_are_not_sought_for_ever",
        run: nobodys_sockets_are_not_sought_for_ever,
    },
    Test {
        name: "a_stopped_holder_is_seen_to_be",
        run: a_stopped_holder_is_seen_to_be,
    },
    Test {
        name: "what_no_table_shows_stands_until_the_next_walk",
        run: what_no_table_shows_stands_until_the_next_walk,
    },
    Test {
        name: "remembered_owners_agree_with_a_walk",
        run: remembered_owners_agree_with_a_walk,
    },
];

fn remembering() -> Live {
    let mut live = Live::new(Choice::Netlink, ProcRoot::default());
    live.remember_owners(true);
    live
}

fn look(live: &mut Live) -> Result<Snapshot> {
    Ok(snapshot(live, &Want::states(StateSet::ALL), Also::ALL)?)
}

fn remembered(live: &Live) -> Result<&Remembered> {
    live.remembered().context("nothing is remembered")
}

fn walks(live: &Live) -> Result<u64> {
    Ok(remembered(live)?.walks())
}

/// Who holds the listener on the port: process and descriptor.
fn holders(taken: &Snapshot, port: u16) -> Vec<(u32, u32)> {
    let socket = taken.sockets.iter().find(|one| one.local.port == port);
    let inode = socket.map_or(0, |socket| socket.inode);
    let of = taken.owners.of(inode);
    let mut holders: Vec<(u32, u32)> = of.map(|(process, fd)| (process.pid, fd)).collect();
    holders.sort_unstable();
    holders
}

fn fd(socket: &impl AsRawFd) -> Result<u32> {
    Ok(u32::try_from(socket.as_raw_fd())?)
}

fn new_sockets_are_found_without_a_walk(world: &mut World) -> Result<()> {
    let me = std::process::id();
    let old = listen(Family::V4.near(8080), 5)?;
    let mut live = remembering();
    let first = look(&mut live)?;
    world.expect(holders(&first, 8080) == [(me, fd(&old)?)], || {
        format!("the first look: {:?}", holders(&first, 8080))
    });

    let new = listen(Family::V4.near(8081), 5)?;
    let taken = look(&mut live)?;
    world.expect(holders(&taken, 8081) == [(me, fd(&new)?)], || {
        format!("of a known process: {:?}", holders(&taken, 8081))
    });

    // The same number, another socket.
    let number = fd(&old)?;
    drop(old);
    let reused = listen(Family::V4.near(8082), 5)?;
    world.expect(fd(&reused)? == number, || {
        "not the lowest number".to_owned()
    });
    let taken = look(&mut live)?;
    world.expect(holders(&taken, 8082) == [(me, number)], || {
        format!("of a number used again: {:?}", holders(&taken, 8082))
    });
    world.expect(holders(&taken, 8080).is_empty(), || {
        "8080 is closed".to_owned()
    });

    // Handed over before anybody looked.
    let passed = listen(Family::V4.near(8083), 5)?;
    let number = fd(&passed)?;
    let heir = Heir::of(&[&passed])?;
    drop(passed);
    let taken = look(&mut live)?;
    let own = [(heir.pid(), number)];
    world.expect(holders(&taken, 8083) == own, || {
        format!("of a new process: {:?}", holders(&taken, 8083))
    });
    let name = taken
        .owners
        .processes()
        .iter()
        .find(|one| one.pid == heir.pid());
    let known = name.is_some_and(|one| one.comm == "sleep" && one.fds.is_some());
    world.expect(known, || format!("{name:?}"));
    world.expect(walks(&live)? == 1, || {
        format!("{} walks", walks(&live).unwrap_or(0))
    });
    drop((new, reused, heir));
    Ok(())
}

fn links_end_with_their_process(world: &mut World) -> Result<()> {
    let me = std::process::id();
    let shared = listen(Family::V4.near(8080), 5)?;
    let heir = Heir::of(&[&shared])?;
    let mut live = remembering();
    let both = look(&mut live)?;
    world.expect(holders(&both, 8080).len() == 2, || {
        format!("both: {:?}", holders(&both, 8080))
    });
    let child = heir.pid();
    drop(heir);
    let taken = look(&mut live)?;
    world.expect(holders(&taken, 8080) == [(me, fd(&shared)?)], || {
        format!("{me} is left: {:?}", holders(&taken, 8080))
    });
    let gone = taken.owners.processes().iter().all(|one| one.pid != child);
    world.expect(gone && walks(&live)? == 1, || format!("{child} ended"));

    // One that ended and that nobody has waited for holds nothing either.
    let heir = Heir::of(&[&shared])?;
    live.remember_owners(true);
    let both = look(&mut live)?;
    world.expect(holders(&both, 8080).len() == 2, || "both again".to_owned());
    let child = Pid::from_raw(i32::try_from(heir.pid())?).context("no pid")?;
    kill_process(child, Signal::KILL)?;
    until("the end of the heir", || {
        let taken = look(&mut live)?;
        let left = holders(&taken, 8080);
        Ok((left.len() != 1).then(|| format!("{left:?}")))
    })?;
    drop((heir, shared));
    Ok(())
}

fn what_a_child_inherits_is_found_at_the_next_walk(world: &mut World) -> Result<()> {
    let shared = listen(Family::V4.near(8080), 5)?;
    let mut live = remembering();
    look(&mut live)?;
    let heir = Heir::of(&[&shared])?;
    let taken = look(&mut live)?;
    world.expect(holders(&taken, 8080).len() == 1, || {
        format!("it has its holder: {:?}", holders(&taken, 8080))
    });
    live.remember_owners(true);
    let taken = look(&mut live)?;
    let pids: Vec<u32> = holders(&taken, 8080).iter().map(|(pid, _)| *pid).collect();
    world.expect(pids.len() == 2 && pids.contains(&heir.pid()), || {
        format!("after a walk: {pids:?}")
    });
    drop((heir, shared));
    Ok(())
}

/// A listener that no process has among its descriptors, as far as `/proc` shows it: that of a thread with a descriptor
/// table of its own. It is there until the sender is dropped.
fn nobodys(port: u16) -> Result<mpsc::Sender<()>> {
    let (end, ended) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    thread::spawn(move || {
        let listener = sys::unshare(CLONE_FILES)
            .map_err(anyhow::Error::from)
            .and_then(|()| listen(Family::V4.near(port), 5));
        let (listener, answer) = match listener {
            Ok(listener) => (Some(listener), Ok(())),
            Err(error) => (None, Err(error)),
        };
        // Nobody waits any more if the test has failed meanwhile.
        ready.send(answer).ok();
        ended.recv().ok();
        drop(listener);
    });
    is_ready
        .recv()
        .map_err(|_| anyhow!("the thread has ended"))??;
    Ok(end)
}

fn nobodys_sockets_are_not_sought_for_ever(world: &mut World) -> Result<()> {
    let held = listen(Family::V4.near(8080), 5)?;
    let mut live = remembering();
    look(&mut live)?;
    let early = nobodys(8081)?;
    // Sought in short, then thoroughly as soon as the last such search is long enough ago, then no more.
    until("the end of the search", || {
        let before = remembered(&live)?.readings();
        let taken = look(&mut live)?;
        world.expect(taken.coverage.unowned == 1, || {
            format!("{} without an owner", taken.coverage.unowned)
        });
        let readings = remembered(&live)?.readings() - before;
        Ok((readings > 0).then(|| format!("{readings} directories read in the last look")))
    })?;
    let before = remembered(&live)?.readings();
    for _ in 0..5 {
        look(&mut live)?;
    }
    let readings = remembered(&live)?.readings() - before;
    world.expect(readings == 0 && walks(&live)? == 1, || {
        format!("{readings} more directories read, {:?} walks", walks(&live))
    });
    // What is new is found as before.
    let new = listen(Family::V4.near(8082), 5)?;
    let taken = look(&mut live)?;
    world.expect(holders(&taken, 8082).len() == 1, || "not found".to_owned());
    world.expect(taken.coverage.unowned == 1, || {
        "8081 has no holder".to_owned()
    });
    drop((held, new, early));
    Ok(())
}

fn a_stopped_holder_is_seen_to_be(world: &mut World) -> Result<()> {
    let shared = listen(Family::V4.near(8080), 5)?;
    let heir = Heir::of(&[&shared])?;
    let mut live = remembering();
    let state = |live: &mut Live| -> Result<Option<char>> {
        let taken = look(live)?;
        let mut processes = taken.owners.processes().iter();
        let process = processes.find(|one| one.pid == heir.pid());
        Ok(process.and_then(|process| process.run_state))
    };
    let before = state(&mut live)?;
    world.expect(before == Some('S'), || format!("it sleeps: {before:?}"));
    let pid = Pid::from_raw(i32::try_from(heir.pid())?).context("no pid")?;
    kill_process(pid, Signal::STOP)?;
    until("a stopped process", || {
        let now = state(&mut live)?;
        Ok((now != Some('T')).then(|| format!("{now:?}")))
    })?;
    world.expect(walks(&live)? == 1, || "not without a walk".to_owned());
    Ok(())
}

fn what_no_table_shows_stands_until_the_next_walk(world: &mut World) -> Result<()> {
    if !lists_bound_sockets()? {
        return Err(Skip("descriptors in no table are told since Linux 6.8".to_owned()).into());
    }
    // A socket that was neither bound nor connected is in no table.
    let bare = || Socket::new(Domain::IPV4, Type::STREAM, None);
    let bare: Vec<Socket> = (0..6).map(|_| bare()).collect::<Result<_, _>>()?;
    let heir = Heir::of(&bare.iter().collect::<Vec<_>>())?;
    let (me, child) = (std::process::id(), heir.pid());
    let mut live = remembering();
    let told = |taken: &Snapshot| -> Vec<(u32, u32)> {
        let unlisted = taken.unlisted.iter().flatten();
        let ours = unlisted.filter(|one| [me, child].contains(&one.pid));
        let mut told: Vec<(u32, u32)> = ours.map(|one| (one.pid, one.fds)).collect();
        told.sort_unstable();
        told
    };
    let mut both = [(me, 6), (child, 6)];
    both.sort_unstable();
    for when in ["a walk", "no walk"] {
        let taken = look(&mut live)?;
        world.expect(told(&taken) == both, || {
            format!("{when}: {:?}", told(&taken))
        });
    }
    drop(heir);
    let taken = look(&mut live)?;
    world.expect(told(&taken) == [(me, 6)], || {
        format!("{child} ended: {:?}", told(&taken))
    });
    drop(bare);
    live.remember_owners(true);
    let taken = look(&mut live)?;
    world.expect(told(&taken).is_empty() && taken.unlisted.is_some(), || {
        format!("all closed: {:?}", taken.unlisted)
    });
    Ok(())
}

/// Who holds the sockets that are in a table: inode, process, descriptor.
fn links(taken: &Snapshot, listed: &BTreeSet<u32>) -> BTreeSet<(u32, u32, u32)> {
    let owners = &taken.owners;
    let links = owners
        .links()
        .iter()
        .filter(|link| listed.contains(&link.inode));
    links
        .filter_map(|link| Some((link.inode, owners.process(link.process)?.pid, link.fd)))
        .collect()
}

fn remembered_owners_agree_with_a_walk(world: &mut World) -> Result<()> {
    let began = Instant::now();
    let seed = u64::from(std::process::id());
    let mut random = seed;
    let mut next = move |below: u64| {
        // The multiplier and increment of Knuth's MMIX.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut live = remembering();
    let mut anew = Live::new(Choice::Netlink, ProcRoot::default());
    // Whatever it is, it is closed when it is dropped.
    let mut open: Vec<Box<dyn Any>> = Vec::new();
    look(&mut live)?;
    for round in 0..40 {
        for _ in 0..=next(12) {
            let place = usize::try_from(next(1 + open.len() as u64))?;
            let more: Box<dyn Any> = match next(10) {
                0..4 if place < open.len() => {
                    drop(open.swap_remove(place));
                    continue;
                }
                0..6 => Box::new(listen(Family::V4.loopback(0), 5)?),
                6 => Box::new(UdpSocket::bind("127.0.0.1:0")?),
                7 => Box::new(UnixDatagram::bind(
                    world
                        .scratch
                        .path()
                        .join(format!("{round}-{}", next(1 << 30))),
                )?),
                8 => Box::new(File::open("/dev/null")?),
                // A child that has it alone.
                _ => Box::new(Heir::of(&[&listen(Family::V4.loopback(0), 5)?])?),
            };
            open.push(more);
        }
        // A socket that took the number of a file is found at the second look, or soon after.
        until(
            &format!("the owners of round {round} of seed {seed}"),
            || {
                let taken = look(&mut live)?;
                let control = look(&mut anew)?;
                let cookies = |taken: &Snapshot| -> BTreeSet<_> {
                    taken.sockets.iter().map(|socket| socket.cookie).collect()
                };
                world.expect(cookies(&taken) == cookies(&control), || {
                    format!("other sockets in round {round}")
                });
                let tcp = control.sockets.iter().map(|socket| socket.inode);
                let udp = control.udp.iter().flatten().map(|one| one.socket.inode);
                let unix = control.unix.iter().flatten().map(|one| one.inode);
                let listed = tcp.chain(udp).chain(unix).collect();
                let (mine, all) = (links(&taken, &listed), links(&control, &listed));
                Ok((mine != all).then(|| {
                    let missing: Vec<_> = all.difference(&mine).collect();
                    let wrong: Vec<_> = mine.difference(&all).collect();
                    format!("missing {missing:?}, wrong {wrong:?}")
                }))
            },
        )?;
    }
    let allowed = 1 + began.elapsed().as_secs() / Duration::from_secs(30).as_secs();
    world.expect(walks(&live)? <= allowed, || {
        format!("{:?} walks in {:?}", walks(&live), began.elapsed())
    });
    Ok(())
}
