//! To which unit and container a socket belongs, and why nobody is seen to hold one.

use std::fs;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json as value};

use crate::answers::json;
use crate::harness::Test;
use crate::kernel::until;
use crate::owners::Heir;
use crate::sys;
use crate::world::{Family, World, listen};

pub const TESTS: &[Test] = &[
    Test {
        name: "a_container_is_known_by_its_cgroup",
        run: a_container_is_known_by_its_cgroup,
    },
    Test {
        name: "a_descriptor_in_flight_is_nobodys",
        run: a_descriptor_in_flight_is_nobodys,
    },
];

/// A group of the v2 hierarchy, until it is dropped.
struct Group(Vec<PathBuf>);

impl Group {
    /// Makes the group, in a mount that only this thread and what it starts can see.
    fn new(scratch: &Path, path: &str) -> Result<Self> {
        sys::unshare(libc::CLONE_NEWNS)?;
        let run = |arguments: &[&str]| -> Result<()> {
            let status = Command::new("mount").args(arguments).status()?;
            status.success().then_some(()).context("mount has failed")
        };
        run(&["--make-rprivate", "/"])?;
        let mount = scratch.join("cgroup");
        fs::create_dir(&mount)?;
        let at = mount.to_str().context("an odd temporary directory")?;
        run(&["-t", "cgroup2", "none", at])?;
        let mut made = Self(Vec::new());
        let mut directory = mount;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            directory.push(part);
            fs::create_dir(&directory)?;
            made.0.push(directory.clone());
        }
        Ok(made)
    }

    fn take(&self, pid: u32) -> Result<()> {
        let innermost = self.0.last().context("no group")?;
        Ok(fs::write(innermost.join("cgroup.procs"), pid.to_string())?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that was killed leaves its group when it is reaped, and a moment may pass until the group knows.
        for directory in self.0.iter().rev() {
            until("the group's end", || {
                let left = fs::remove_dir(directory).err();
                Ok(left.map(|error| error.to_string()))
            })
            .ok();
        }
    }
}

fn sockets(world: &World, arguments: &[&str]) -> Result<Vec<Value>> {
    let arguments = [&["list", "--json"], arguments].concat();
    let document = json(&arguments, &world.linger(&arguments)?)?;
    let sockets = document.get("sockets").and_then(Value::as_array).cloned();
    sockets.context("no sockets")
}

fn a_container_is_known_by_its_cgroup(world: &mut World) -> Result<()> {
    let id = format!(
        "{:0>64x}",
        0xfeed_0000_0000_u64 + u64::from(std::process::id())
    );
    let pod = "8c5d3e1a-1111-2222-3333-0123456789ab";
    let slice = format!("kubepods-pod{}.slice", pod.replace('-', "_"));
    let slice = format!("linger{}.slice/{slice}", std::process::id());
    let path = format!("/{slice}/docker-{id}.scope");
    let group = Group::new(world.scratch.path(), &path);
    let (shared, own) = (
        listen(Family::V4.near(8080), 5)?,
        listen(Family::V4.near(8081), 5)?,
    );
    let heir = Heir::of(&[&shared])?;
    let of_heir = format!("/proc/{}/cgroup", heir.pid());
    match &group {
        Ok(group) => group.take(heir.pid())?,
        // Without the privilege to make groups, what is there has to do.
        Err(error) => println!("no group of its own: {error:#}"),
    }
    let said = fs::read_to_string(&of_heir)?;
    let moved = group.is_ok() && said.lines().any(|line| line.ends_with(&path));
    world.expect(moved || group.is_err(), || format!("not in {path}: {said}"));

    let rows = sockets(world, &["-l", "-p", "-e", "sport = :8080"])?;
    let owners = rows.first().and_then(|row| row.get("owners")?.as_array());
    let owners = owners.context("the listener has holders")?;
    let of = |pid: u32| {
        owners
            .iter()
            .find(|owner| owner.get("pid") == Some(&pid.into()))
    };
    let (parent, child) = (of(std::process::id()), of(heir.pid()));
    let brief = format!("docker:{}", id.get(..12).unwrap_or_default());
    let unit = format!("docker-{id}.scope");
    let expected = moved.then(|| (value!(brief), value!(unit)));
    let seen = child.context("the heir")?;
    let (container, seen_unit) = (seen.get("container"), seen.get("unit"));
    world.expect(
        container == expected.as_ref().map(|(brief, _)| brief),
        || format!("the heir's container: {seen}"),
    );
    world.expect(
        !moved || seen_unit == expected.as_ref().map(|(_, unit)| unit),
        || format!("the heir's unit: {seen}"),
    );
    let parent = parent.context("this process")?;
    world.expect(parent.get("container").is_none(), || {
        format!("this process is in none: {parent}")
    });

    // A filter finds it by the heir's group, whoever of the two comes first.
    for (filter, wanted) in [
        (
            format!("container = {}", id.get(..12).unwrap_or_default()),
            moved,
        ),
        (format!("container = docker:{id}"), moved),
        ("container ~ docker:*".to_owned(), moved),
        (format!("pod = {pod}"), moved),
        (format!("unit = {unit}"), moved),
        (format!("container = podman:{id}"), false),
        ("container = 0123456789ab".to_owned(), false),
    ] {
        let rows = sockets(world, &["-l", &filter])?;
        let ports: Vec<_> = rows
            .iter()
            .filter_map(|row| row.get("local_port"))
            .collect();
        let fits = if wanted {
            ports == [&value!(8080)]
        } else {
            ports.is_empty()
        };
        world.expect(fits, || format!("{filter}: {ports:?}"));
    }

    // Once the heir alone holds it, the group is the socket's.
    drop(shared);
    let rows = sockets(world, &["-l", "-e", "sport = :8080"])?;
    let row = rows.first().context("the heir still listens")?;
    world.expect(
        !moved
            || row.get("container") == Some(&value!(brief))
                && row.get("container_id") == Some(&value!(id))
                && row.get("pod_uid") == Some(&value!(pod)),
        || format!("it is the container's: {row}"),
    );
    let text = world.linger(&["list", "-lH", "-c", "container,pod", "sport = :8080"])?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    world.expect(!moved || text == format!("{brief}  {pod}\n"), || {
        format!("{text:?}")
    });
    drop((heir, own, group));
    Ok(())
}

fn a_descriptor_in_flight_is_nobodys(world: &mut World) -> Result<()> {
    let (left, right) = UnixStream::pair()?;
    let listener = listen(Family::V4.near(8080), 5)?;
    let held = listen(Family::V4.near(8081), 5)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [listener.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(
        &left,
        &[IoSlice::new(b"x")],
        &mut control,
        SendFlags::empty(),
    )?;
    drop(listener);

    let of = |rows: &[Value], port: u16| {
        let row = rows
            .iter()
            .find(|row| row.get("local_port") == Some(&port.into()));
        row.and_then(|row| row.get("no_owner").cloned())
    };
    let rows = sockets(world, &["-l", "-p"])?;
    let why = of(&rows, 8080);
    // By what may be seen here: a sandbox may hide processes even from root.
    let blind = if everything_is_readable()? {
        vec![value!("not-found"), value!("other-pid-namespace")]
    } else {
        vec![value!("not-permitted")]
    };
    world.expect(why.as_ref().is_some_and(|why| blind.contains(why)), || {
        format!("in no process's descriptors: {why:?}, not one of {blind:?}")
    });
    world.expect(of(&rows, 8081).is_none(), || {
        "the other listener has its holder".to_owned()
    });

    // Nobody else may look into root's processes. Where that user cannot be, there is nothing to see.
    let mut command = world.command(&["list", "-l", "-p", "--json"]);
    if let Ok(output) = command.uid(65_534).output() {
        let document: Value = serde_json::from_slice(&output.stdout)?;
        let rows = document.get("sockets").and_then(Value::as_array);
        let rows = rows.context("no sockets")?;
        let why = [of(rows, 8080), of(rows, 8081)];
        world.expect(
            why.iter().all(|why| *why == Some(value!("not-permitted"))),
            || format!("without privilege: {why:?}"),
        );
    }
    let text = world.linger(&["list", "-lpH", "sport = :8080"])?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    world.expect(text.contains("  - (no"), || {
        format!("the table says why: {text}")
    });
    drop((left, right, held));
    Ok(())
}

/// Whether the descriptors of every process are.
fn everything_is_readable() -> Result<bool> {
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
            continue;
        }
        // To list them takes another privilege than to look at one.
        let looked = fs::read_dir(path.join("fd")).and_then(|descriptors| {
            descriptors
                .take(1)
                .try_for_each(|descriptor| fs::read_link(descriptor?.path()).map(drop))
        });
        if looked.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
            return Ok(false);
        }
    }
    Ok(true)
}
