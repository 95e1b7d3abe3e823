//! `linger kill`: what it leaves alone, and what it says when it cannot.

use std::fs;
use std::io::Write;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libc::EPERM;

use crate::harness::Test;
use crate::kernel::{self, until_count};
use crate::kill::{Killed, carries, errno};
use crate::sys::{self, Refusal};
use crate::world::{Family, World, listen, tcp};

pub const TESTS: &[Test] = &[
    Test {
        name: "kill_leaves_listeners_alone",
        run: kill_leaves_listeners_alone,
    },
    Test {
        name: "kill_leaves_close_wait_alone",
        run: kill_leaves_close_wait_alone,
    },
    Test {
        name: "kill_leaves_time_wait_alone",
        run: kill_leaves_time_wait_alone,
    },
    Test {
        name: "kill_without_the_privilege",
        run: kill_without_the_privilege,
    },
    Test {
        name: "kill_without_the_evidence",
        run: kill_without_the_evidence,
    },
];

/// Expects that one socket fits, that it is left alone, and that the option is named; `option` "" where there is none.
fn left_alone(world: &World, filter: &str, option: &str) -> Result<()> {
    for act in [&[filter][..], &[filter, "--yes"]] {
        let refused = world.kill(act)?;
        let socket = refused.sockets().first();
        let said = socket.and_then(|socket| socket.get("option")?.as_str());
        let why = socket.and_then(|socket| socket.get("reason")?.as_str());
        let right = refused.is(1, &[("refused", 1)])
            && said.unwrap_or_default() == option
            && why.is_some()
            && refused.stderr.contains("nothing was touched")
            && refused.stderr.contains(option);
        world.expect(right, || format!("{act:?}: {refused:?}"));
    }
    world.expect(world.captures().is_empty(), || {
        "where nothing dies there is nothing to keep".to_owned()
    });
    Ok(())
}

fn kill_leaves_listeners_alone(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(8080), 10)?;
    let own = format!("pid = {}", std::process::id());
    for filter in ["sport = :8080", "state listen sport = :8080", &own] {
        left_alone(world, filter, "--listeners")?;
    }
    let none = world.kill(&["sport = :8081", "--yes"])?;
    world.expect(none.is(0, &[]), || format!("no such socket: {none:?}"));
    let shown = world.linger(&["kill", "sport = :8080", "--listeners"])?;
    let page = String::from_utf8_lossy(&shown.stdout);
    let words: Vec<&str> = page.split_whitespace().collect();
    let said = words.join(" ");
    world.expect(said.contains("port stays taken (BOUND-INACTIVE)"), || {
        page.clone().into_owned()
    });
    let connection = world.serve(&listener)?;
    // What may die dies, and the listener is counted beside it.
    let killed = world.kill(&["sport = :8080", "--yes"])?;
    let right = killed.is(0, &[("destroyed", 1), ("refused", 1)]);
    world.expect(right, || format!("{killed:?}"));
    drop(connection);
    let again = world.serve(&listener)?;
    let lives = carries(world, &again)?;
    world.expect(lives, || "the listener still serves".to_owned());
    let killed = world.kill(&["state listen", "--listeners", "--yes"])?;
    world.expect(killed.is(0, &[("destroyed", 1)]), || format!("{killed:?}"));
    until_count(kernel::LISTEN, 0)?;
    // As the preview says: its program still holds the port.
    let second = tcp(Family::V4.near(8080))?.bind(&Family::V4.near(8080).into());
    let error = second.err().and_then(|error| error.raw_os_error());
    world.expect(error == Some(libc::EADDRINUSE), || format!("{error:?}"));
    let lives = carries(world, &again)?;
    world.expect(lives, || "its connections are others".to_owned());

    // What is only bound the kernel does not find, whatever is asked for.
    let bound = tcp(Family::V4.near(99))?;
    bound.bind(&Family::V4.near(99).into())?;
    let rows = world.rows(&["list", "-B", "--json", "sport = :99"])?;
    if rows.len() == 1 {
        for option in ["--listeners", "--close-wait"] {
            let refused = world.kill(&["state bound-inactive sport = :99", option, "--yes"])?;
            world.expect(refused.is(1, &[("refused", 1)]), || format!("{refused:?}"));
        }
    }
    Ok(())
}

fn descriptors() -> Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

fn kill_leaves_close_wait_alone(world: &mut World) -> Result<()> {
    let mut connection = world.dial(Family::V4, 443)?;
    world.far.close(connection.far)?;
    until_count(kernel::CLOSE_WAIT, 1)?;
    left_alone(world, "dport = :443", "--close-wait")?;
    ensure!(kernel::count(kernel::CLOSE_WAIT)? == 1, "it is there");
    let before = descriptors()?;
    let killed = world.kill(&["dport = :443", "--close-wait", "--yes"])?;
    world.expect(killed.is(0, &[("destroyed", 1)]), || format!("{killed:?}"));
    until_count(kernel::CLOSE_WAIT, 0)?;
    // This is why: the leak is where it was, and nobody sees it any more.
    let after = descriptors()?;
    world.expect(before == after, || {
        format!("the descriptor stays: {before}, {after}")
    });
    // As the preview says: the end of file is read as before, and only a write tells.
    let read = errno(&mut connection.near);
    let written = connection.near.write(b"x");
    let written = written.err().and_then(|error| error.raw_os_error());
    world.expect((read, written) == (None, Some(libc::ECONNABORTED)), || {
        format!("{read:?}, {written:?}")
    });
    Ok(())
}

fn kill_leaves_time_wait_alone(world: &mut World) -> Result<()> {
    for family in world.families() {
        let connection = world.dial(*family, 443)?;
        drop(connection.near);
        world.far.close(connection.far)?;
    }
    until_count(kernel::TIME_WAIT, world.families().len())?;
    left_alone(world, "dport = :443 and dst 10.99.0.2", "--time-wait")?;
    let all = world.families().len();
    world.expect(kernel::count(kernel::TIME_WAIT)? == all, || {
        "they are there".to_owned()
    });
    let killed = world.kill(&["dport = :443", "--time-wait", "--yes"])?;
    world.expect(killed.is(0, &[("destroyed", all)]), || {
        format!("{killed:?}")
    });
    let left = kernel::count(kernel::TIME_WAIT)?;
    world.expect(left == 0, || format!("{left} left"));
    Ok(())
}

fn kill_without_the_privilege(world: &mut World) -> Result<()> {
    let connection = world.dial(Family::V4, 443)?;
    let run = |arguments: &[&str]| -> Result<Killed> {
        let mut command = world.command(&["kill", "--json", "dport = :443"]);
        command.args(arguments);
        command.env("STATE_DIRECTORY", world.state_directory());
        sys::without_net_admin(&mut command);
        Killed::of(&command.output().context("cannot run linger")?)
    };
    let shown = run(&[])?;
    let right = shown.is(0, &[("would-destroy", 1)]) && shown.stderr.contains("CAP_NET_ADMIN");
    world.expect(right, || format!("a preview takes no privilege: {shown:?}"));

    let refused = run(&["--yes"])?;
    let right = refused.code == Some(1)
        && refused.stderr.contains("CAP_NET_ADMIN")
        && refused.stderr.contains("nothing was touched");
    world.expect(right, || format!("{refused:?}"));
    world.expect(world.captures().is_empty(), || {
        "nothing is written either".to_owned()
    });

    // Root of another user namespace has the capability, and not over these sockets: only the kernel can say so.
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", &crate::world::program()])
        .args(["kill", "--json", "dport = :443", "--yes"])
        .env("STATE_DIRECTORY", world.state_directory());
    let refused = Killed::of(&command.output()?)?;
    let named = refused.stderr.contains("EPERM") && refused.stderr.contains("CAP_NET_ADMIN");
    let right = refused.is(1, &[("failed", 1)]) && named;
    world.expect(right, || format!("{refused:?}"));
    let lives = carries(world, &connection)?;
    world.expect(lives, || "nothing was destroyed".to_owned());

    // Without sock_diag there are no cookies.
    let mut command = world.command(&["kill", "dport = :443", "--yes", "--no-capture"]);
    sys::sandbox(&mut command, Refusal::Socket(EPERM))?;
    let refused = Killed::of(&command.output()?)?;
    let right = refused.code == Some(1) && refused.stderr.contains("sock_diag is not usable");
    world.expect(right, || format!("{refused:?}"));
    let lives = carries(world, &connection)?;
    world.expect(lives, || "nothing was destroyed".to_owned());
    Ok(())
}

fn kill_without_the_evidence(world: &mut World) -> Result<()> {
    let connection = world.dial(Family::V4, 443)?;
    let file = world.scratch.path().join("file");
    fs::write(&file, "precious")?;
    let below = file.join("below");
    for directory in [file.as_path(), below.as_path(), "/proc/linger".as_ref()] {
        let directory = directory.to_str().context("an odd directory")?;
        let refused = world.kill(&["dport = :443", "--yes", "--state-dir", directory])?;
        let right = refused.code == Some(1)
            && refused.stderr.contains("nothing was destroyed")
            && refused.stderr.contains("--no-capture")
            && refused.stderr.contains("--state-dir");
        world.expect(right, || format!("{directory}: {refused:?}"));
        let lives = carries(world, &connection)?;
        world.expect(lives, || format!("{directory}: it lives"));
    }
    world.expect(fs::read(&file)? == b"precious", || "untouched".to_owned());
    // A file system that is full, where the capture breaks off midway.
    let full = world.scratch.path().join("full");
    fs::create_dir(&full)?;
    let name = full.to_str().context("an odd directory")?;
    let mounted = Command::new("unshare")
        .args(["-m", "sh", "-c"])
        .arg(format!(
            "mount -t tmpfs -o size=4k none {name} && head -c 8192 /dev/zero > {name}/filler; \
             exec {} kill 'dport = :443' --yes --state-dir {name}",
            crate::world::program()
        ))
        .output()?;
    let said = String::from_utf8_lossy(&mounted.stderr);
    world.expect(said.contains("nothing was destroyed"), || {
        format!("{mounted:?}")
    });
    let lives = carries(world, &connection)?;
    world.expect(lives, || "it lives where the disk is full".to_owned());
    Ok(())
}
