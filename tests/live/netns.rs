//! Other network namespaces: by name, pid and path, and all at once, as the program shows them.
//!
//! Names are given in a mount namespace of the test's own, with an empty `/run`: nobody else's names are touched.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use libc::CLONE_NEWNS;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use socket2::Socket;

use crate::answers::{Severity, json};
use crate::harness::{Skip, Test};
use crate::kernel::{self, until};
use crate::sys;
use crate::world::{Family, World, begin_connect, connect, ip, limit_descriptors, listen, tcp};

pub const TESTS: &[Test] = &[
    Test {
        name: "netns_one_by_name_pid_or_path",
        run: one_by_name_pid_or_path,
    },
    Test {
        name: "netns_all_label_each_row",
        run: all_label_each_row,
    },
    Test {
        name: "netns_all_in_each_document",
        run: all_in_each_document,
    },
    Test {
        name: "netns_settings_and_counters_are_its_own",
        run: settings_and_counters_are_its_own,
    },
    Test {
        name: "netns_processes_are_judged_where_they_live",
        run: processes_are_judged_where_they_live,
    },
    Test {
        name: "netns_without_privilege",
        run: without_privilege,
    },
    Test {
        name: "netns_that_is_none",
        run: that_is_none,
    },
];

pub const PORT: u16 = 8080;

/// Where this test alone gives names to namespaces.
pub fn names() -> Result<()> {
    sys::unshare(CLONE_NEWNS).map_err(|error| Skip(format!("no mount namespace: {error}")))?;
    for arguments in [
        &["--make-rprivate", "/"][..],
        &["-t", "tmpfs", "none", "/run"],
    ] {
        let status = Command::new("mount").args(arguments).status()?;
        ensure!(status.success(), "mount {arguments:?}: {status}");
    }
    Ok(())
}

/// A namespace with a name and a loopback that is up.
pub fn named(name: &str) -> Result<PathBuf> {
    ip(&["netns", "add", name])?;
    ip(&["-n", name, "link", "set", "lo", "up"])?;
    Ok(Path::new("/run/netns").join(name))
}

/// A process in a namespace without a name.
pub struct Nameless(Child);

impl Nameless {
    pub fn start() -> Result<Self> {
        let script = "ip link set lo up && exec sleep 300";
        let child = Command::new("unshare")
            .args(["-n", "sh", "-c", script])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot run unshare")?;
        let nameless = Self(child);
        let comm = format!("/proc/{}/comm", nameless.pid());
        until("a process in a namespace of its own", || {
            let comm = std::fs::read_to_string(&comm)?;
            Ok((comm.trim() != "sleep").then_some(comm))
        })?;
        Ok(nameless)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pid()).into()
    }
}

impl Drop for Nameless {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Does something in another namespace. What it opens is held by this process all the same.
pub fn within<T: Send + 'static>(
    path: &Path,
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let file = File::open(path)?;
    let entered = thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        job()
    });
    entered.join().map_err(|_| anyhow!("the job panicked"))?
}

pub fn listening(path: &Path, backlog: i32) -> Result<Socket> {
    within(path, move || listen(Family::V4.loopback(PORT), backlog))
}

pub fn inode(path: &Path) -> Result<u64> {
    Ok(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(
        path,
    )?))
}

pub fn own() -> Result<u64> {
    inode(Path::new("/proc/thread-self/ns/net"))
}

/// The document of `linger ARGUMENTS --json`.
fn document(world: &World, arguments: &[&str]) -> Result<Value> {
    let arguments = [arguments, &["--json"]].concat();
    json(&arguments, &world.linger(&arguments)?)
}

/// A part of a document; null where there is none.
fn at<'d>(document: &'d Value, pointer: &str) -> &'d Value {
    document.pointer(pointer).unwrap_or(&Value::Null)
}

fn list<'d>(document: &'d Value, key: &str) -> &'d [Value] {
    at(document, &format!("/{key}"))
        .as_array()
        .map_or(&[], Vec::as_slice)
}

fn one_by_name_pid_or_path(world: &mut World) -> Result<()> {
    names()?;
    let (blue, nameless) = (named("blue")?, Nameless::start()?);
    let _kept = (
        listen(Family::V4.loopback(PORT + 1), 5)?,
        listening(&blue, 5)?,
        listening(&nameless.path(), 5)?,
    );
    let pid = nameless.pid().to_string();
    let link = format!("/proc/{pid}/ns/net");
    for (option, path) in [
        ("blue", &blue),
        ("/run/netns/blue", &blue),
        (&pid, &nameless.path()),
        (&link, &nameless.path()),
    ] {
        let seen = document(world, &["list", "-tlp", "--netns", option])?;
        let ports: Vec<_> = list(&seen, "sockets")
            .iter()
            .map(|row| (at(row, "/local_port"), at(row, "/owners/0/pid")))
            .collect();
        let us = Value::from(std::process::id());
        world.expect(ports == [(&PORT.into(), &us)], || {
            format!("{option}: {ports:?}")
        });
        let expected = inode(path)?;
        world.expect(at(&seen, "/netns") == expected, || {
            format!("{option}: {} is not {expected}", at(&seen, "/netns"))
        });
    }
    // A name of digits wins over a pid.
    named(&pid)?;
    let seen = document(world, &["list", "-tl", "-N", &pid])?;
    world.expect(list(&seen, "sockets").is_empty(), || format!("{seen}"));
    let table = world.linger(&["list", "-tlH", "-c", "netns", "--net", "blue"])?;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    world.expect(table == "blue\n", || table);
    // The one that we are in is entered without going anywhere.
    let seen = document(
        world,
        &["list", "-tl", "-N", &std::process::id().to_string()],
    )?;
    let port = at(
        list(&seen, "sockets").first().context("no row")?,
        "/local_port",
    );
    world.expect(*port == PORT + 1, || format!("{seen}"));
    Ok(())
}

fn all_label_each_row(world: &mut World) -> Result<()> {
    names()?;
    let (blue, nameless) = (named("blue")?, Nameless::start()?);
    let _kept = (
        listen(Family::V4.loopback(PORT), 5)?,
        listening(&blue, 5)?,
        listening(&nameless.path(), 5)?,
    );
    let label = |inode: u64| format!("net:[{inode}]");
    let (ours, theirs) = (label(own()?), label(inode(&nameless.path())?));
    let all = ["list", "-tlp", "--netns", "all", "sport", "=", ":8080"];
    let seen = document(world, &all)?;
    world.expect(at(&seen, "/netns").is_null(), || {
        format!("{}", at(&seen, "/netns"))
    });
    let us = Value::from(std::process::id());
    // Other tests have namespaces too, and perhaps such a port.
    let labels: Vec<&str> = list(&seen, "sockets")
        .iter()
        .filter(|row| *at(row, "/owners/0/pid") == us)
        .filter_map(|row| at(row, "/netns").as_str())
        .collect();
    world.expect(labels == [&ours, "blue", &theirs], || format!("{labels:?}"));
    let of = |label: &str| {
        let all = list(&seen, "namespaces").iter();
        { all }.find(|one| at(one, "/label") == label).cloned()
    };
    let theirs = of(&theirs).context("not listed")?;
    world.expect(
        at(&theirs, "/pid") == nameless.pid()
            && at(&theirs, "/comm") == "sleep"
            && at(&theirs, "/complete") == true,
        || format!("{theirs}"),
    );
    let blue = of("blue").context("not listed")?;
    world.expect(
        at(&blue, "/name") == "blue" && at(&blue, "/own") == false,
        || format!("{blue}"),
    );
    let mine = of(&ours).context("not listed")?;
    world.expect(at(&mine, "/own") == true, || format!("{mine}"));

    let table = world.linger(&["list", "-tl", "--netns", "all"])?;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let hint = format!(",sleep[{}]", nameless.pid());
    world.expect(table.starts_with("Netns ") && table.contains(&hint), || {
        table.clone()
    });
    let grouped = document(
        world,
        &[
            "list",
            "-tl",
            "-N",
            "all",
            "--group-by",
            "netns",
            "netns",
            "=",
            "blue",
        ],
    )?;
    world.expect(
        *at(&grouped, "/groups") == serde_json::json!([{ "netns": "blue", "sockets": 1 }]),
        || format!("{grouped}"),
    );
    let sorted = document(world, &["list", "-tl", "-N", "all", "--sort", "-netns"])?;
    let labels: Vec<&str> = list(&sorted, "sockets")
        .iter()
        .filter_map(|row| at(row, "/netns").as_str())
        .collect();
    world.expect(labels.is_sorted_by(|a, b| a >= b), || format!("{labels:?}"));
    // The other collector sees the same.
    let read = document(world, &[&all[..], &["--collector", "procfs"]].concat())?;
    let rows = list(&read, "sockets").iter();
    let rows = rows.filter(|row| at(row, "/netns") == "blue").count();
    world.expect(rows == 1 && at(&read, "/collector") == "procfs", || {
        format!("{read}")
    });
    Ok(())
}

/// What looks everywhere lists where it was, and names the place of what it found; what looks at one place does neither.
fn all_in_each_document(world: &mut World) -> Result<()> {
    names()?;
    let blue = named("blue")?;
    // So many connections that it is among the first ten of all namespaces.
    let port = PORT + 7;
    let kept = within(&blue, move || {
        let listener = listen(Family::V4.loopback(port), 200)?;
        let clients = (0..150).map(|_| connect(Family::V4.loopback(port)));
        let clients = clients.collect::<Result<Vec<_>>>()?;
        Ok((listener, clients))
    })?;
    let named = |document: &Value, place: &str| -> Vec<String> {
        let all = at(document, place).as_array();
        let all = all.map_or(&[][..], Vec::as_slice).iter();
        let own = all.filter(|one| {
            let ports = [
                at(one, "/local_port"),
                at(one, "/port"),
                at(one, "/subject/port"),
            ];
            ports.contains(&&port.into())
        });
        own.map(|one| at(one, "/netns").to_string()).collect()
    };
    for (arguments, place) in [
        (&["list", "-tl"][..], "/sockets"),
        (&["status"], "/top/listeners"),
        (&["diagnose", "--only", "listen-overflow"], "/findings"),
    ] {
        let everywhere = document(world, &[arguments, &["--netns", "all"]].concat())?;
        let places = list(&everywhere, "namespaces").iter();
        let places = places.filter(|one| at(one, "/label") == "blue").count();
        world.expect(places == 1 && at(&everywhere, "/netns").is_null(), || {
            format!("{arguments:?}: {everywhere}")
        });
        let found = named(&everywhere, place);
        world.expect(found == ["\"blue\""], || {
            format!("{arguments:?}: {found:?}")
        });
        let one = document(world, &[arguments, &["--netns", "blue"]].concat())?;
        let silent = one.get("namespaces").is_none() && at(&one, "/netns").is_u64();
        world.expect(silent && named(&one, place) == ["null"], || {
            format!("{arguments:?}: {one}")
        });
    }
    drop(kept);
    Ok(())
}

fn settings_and_counters_are_its_own(world: &mut World) -> Result<()> {
    names()?;
    let (blue, green) = (named("blue")?, named("green")?);
    within(&blue, || {
        kernel::set_sysctl("net/ipv4/tcp_fin_timeout", "17")
    })?;
    let fin_wait_2 = |netns: &str| -> Result<String> {
        let told = world.linger(&["explain", "fin-wait-2", "--netns", netns])?;
        Ok(String::from_utf8_lossy(&told.stdout).into_owned())
    };
    let (theirs, others) = (fin_wait_2("blue")?, fin_wait_2("green")?);
    world.expect(theirs.contains("17") && !others.contains("17"), || {
        format!("{theirs}\n{others}")
    });

    // A queue that is full drops what comes, and only its namespace counts that.
    let listener = listening(&blue, 1)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let place = blue.clone();
    let clients = thread::spawn(move || {
        within(&place, move || {
            let to = Family::V4.loopback(PORT);
            let mut kept = vec![connect(to)?, connect(to)?];
            while !stopped.load(Ordering::Relaxed) {
                let socket = tcp(to)?;
                begin_connect(&socket, to)?;
                kept.push(socket);
                kept.truncate(50);
                thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        })
    });
    until("a drop in blue", || {
        let table = within(&blue, || {
            Ok(std::fs::read_to_string("/proc/thread-self/net/netstat")?)
        })?;
        Ok(overflows(&table).is_none_or(|n| n == 0).then_some(table))
    })?;
    let id = "listen-overflow";
    let full = world.diagnose(&["--netns", "blue", "--only", id]);
    world.fires("the queue of blue is full", &full, id, Severity::Warning);
    let empty = world.diagnose(&["--netns", "green", "--only", id]);
    world.quiet("green has no queue", &empty, id);
    world.quiet("nor have we", &world.diagnose(&["--only", id]), id);

    let seen = document(world, &["diagnose", "--netns", "all", "--only", id])?;
    let places: Vec<&Value> = list(&seen, "findings")
        .iter()
        .filter(|finding| at(finding, "/subject/port") == PORT)
        .map(|finding| at(finding, "/netns"))
        .collect();
    world.expect(places.contains(&&"blue".into()), || format!("{seen}"));
    world.expect(!places.contains(&&"green".into()), || format!("{seen}"));
    let status = world.linger(&["--netns", "all"])?;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    world.expect(status.contains(" network namespaces "), || status.clone());
    let told = world.linger(&["diagnose", "--netns", "all", "--only", id])?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    world.expect(
        told.contains("in blue") && told.contains("--netns blue"),
        || told.clone(),
    );
    stop.store(true, Ordering::Relaxed);
    clients
        .join()
        .map_err(|_| anyhow!("the clients panicked"))??;
    drop((listener, green));
    Ok(())
}

/// `TcpExt.ListenOverflows` in `/proc/net/netstat`.
fn overflows(table: &str) -> Option<u64> {
    let mut lines = table.lines().filter(|line| line.starts_with("TcpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names
        .split(' ')
        .position(|name| name == "ListenOverflows")?;
    values.split(' ').nth(at)?.parse().ok()
}

/// This process lives in near, whatever it holds elsewhere.
fn processes_are_judged_where_they_live(world: &mut World) -> Result<()> {
    names()?;
    let blue = named("blue")?;
    let _kept = (listen(Family::V4.loopback(PORT), 5)?, listening(&blue, 5)?);
    limit_descriptors(100)?;
    let files: Vec<File> = (0..84)
        .map(|_| File::open("/dev/null"))
        .collect::<Result<_, _>>()?;
    let id = "fd-limit-near";
    let us = std::process::id();
    let about_us = |netns: &[&str]| {
        let seen = world.diagnose(&[&["--only", id, "--samples", "1"], netns].concat());
        seen.of(id)
            .filter(|found| found.subject.pid == Some(us))
            .count()
    };
    let (here, there) = (about_us(&[]), about_us(&["--netns", "blue"]));
    let everywhere = about_us(&["--netns", "all"]);
    world.expect((here, there, everywhere) == (1, 0, 1), || {
        format!("found {here} here, {there} in blue, {everywhere} in all")
    });
    drop(files);
    Ok(())
}

fn without_privilege(world: &mut World) -> Result<()> {
    names()?;
    let blue = named("blue")?;
    let _kept = (listen(Family::V4.loopback(PORT), 5)?, listening(&blue, 5)?);
    let weak = |arguments: &[&str]| -> Result<std::process::Output> {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]);
        command.arg(crate::world::program()).args(arguments);
        command.env("HOME", world.scratch.path());
        command
            .output()
            .map_err(|error| Skip(format!("setpriv of util-linux: {error}")).into())
    };
    let one = weak(&["list", "-tl", "--netns", "blue"])?;
    let said = String::from_utf8_lossy(&one.stderr).into_owned();
    world.expect(
        one.status.code() == Some(1) && said.contains("CAP_SYS_ADMIN") && said.contains("blue"),
        || format!("{}: {said}", one.status),
    );
    let arguments = ["list", "-tl", "--netns", "all", "--json"];
    let all = json(&arguments, &weak(&arguments)?)?;
    let label = format!("net:[{}]", own()?);
    let mine = list(&all, "sockets").iter();
    let mine = mine
        .filter(|row| at(row, "/netns") == label.as_str())
        .count();
    let said = list(&all, "warnings").iter();
    let said = said
        .filter_map(Value::as_str)
        .filter(|warning| warning.contains("CAP_SYS_ADMIN"))
        .count();
    world.expect(
        mine == 1 && at(&all, "/complete") == false && said == 1,
        || format!("{all}"),
    );
    let blue = list(&all, "namespaces").iter();
    let blue = { blue }.find(|one| at(one, "/label") == "blue");
    world.expect(
        blue.is_some_and(|blue| at(blue, "/complete") == false),
        || format!("{all}"),
    );
    // Where we are already takes no privilege.
    let own = weak(&["list", "-tl", "--netns", &std::process::id().to_string()])?;
    world.expect(own.status.success(), || format!("{own:?}"));
    let judged = weak(&["--netns", "all"])?;
    world.expect(judged.status.success(), || format!("{judged:?}"));
    Ok(())
}

fn that_is_none(world: &mut World) -> Result<()> {
    names()?;
    named("blue")?;
    std::fs::write("/run/netns/stale", "")?;
    let mut ended = Command::new("true").spawn()?;
    ended.wait()?;
    let ended = ended.id().to_string();
    for (option, message, hint) in [
        ("bleu", "no network namespace 'bleu'", "did you mean blue?"),
        (ended.as_str(), "no process of this number", "ip netns list"),
        ("/run/netns", "a directory", "/proc/PID/ns/net"),
        ("stale", "an empty file", "/proc/PID/ns/net"),
        (
            "/proc/self/ns/uts",
            "another namespace, uts:[",
            "/proc/PID/ns/net",
        ),
        ("/run/netns/none", "No such file", ""),
    ] {
        let failed = world.linger(&["list", "-t", "--netns", option])?;
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        world.expect(
            failed.status.code() == Some(1) && said.contains(message) && said.contains(hint),
            || format!("{option}: {}: {said}", failed.status),
        );
    }
    // Another kind of namespace under a name is known by the kernel alone.
    let mounted = Command::new("mount")
        .args(["--bind", "/proc/self/ns/uts", "/run/netns/stale"])
        .status()?;
    ensure!(mounted.success());
    let failed = world.linger(&["list", "-t", "--netns", "stale"])?;
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    world.expect(said.contains("another namespace"), || said);
    let seen = document(world, &["list", "-tl", "--netns", "all"])?;
    let warnings = at(&seen, "/warnings").to_string();
    world.expect(warnings.contains("stale"), || warnings);
    Ok(())
}
