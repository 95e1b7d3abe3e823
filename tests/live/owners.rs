//! Whose sockets they are, where several processes hold one.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use socket2::Socket;

use crate::answers::Row;
use crate::harness::Test;
use crate::kernel::until;
use crate::world::{Family, World, listen};

pub const TESTS: &[Test] = &[Test {
    name: "forked_owners",
    run: forked_owners,
}];

/// A process that holds these sockets too, until it is dropped.
pub struct Heir(Child);

impl Heir {
    /// Starts one, which inherits as after `fork`.
    pub fn of(sockets: &[&Socket]) -> Result<Self> {
        let close_on_exec = |close: bool| -> Result<()> {
            let mut all = sockets.iter();
            all.try_for_each(|socket| Ok(socket.set_cloexec(close)?))
        };
        close_on_exec(false)?;
        let child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run sleep");
        close_on_exec(true)?;
        let heir = Self(child?);
        // Between fork and exec it has this process's name.
        let comm = format!("/proc/{}/comm", heir.pid());
        until("the heir", || {
            let name = std::fs::read_to_string(&comm)?;
            Ok((name.trim_end() != "sleep").then_some(name))
        })?;
        Ok(heir)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn forked_owners(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(8080), 5)?;
    let session = world.serve(&listener)?;
    let own = world.serve(&listener)?;
    let parent = std::process::id();
    let heir = Heir::of(&[&listener, &session.near])?;
    let child = heir.pid();

    let shared = holders(world)?;
    let right = |holders: &Holders, wanted: &[u32]| {
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        let of = |state: &str, held_by_both: bool| {
            let expected = if held_by_both {
                wanted.as_slice()
            } else {
                &[parent]
            };
            holders
                .iter()
                .filter(|(other, pids)| other == state && pids == expected)
                .count()
        };
        // The listener, the session, and the one that was not inherited.
        let sessions = if wanted.len() == 2 {
            of("established", true) == 1 && of("established", false) == 1
        } else {
            of("established", false) == 2
        };
        holders.len() == 3 && of("listen", true) == 1 && sessions
    };
    world.expect(right(&shared, &[parent, child]), || {
        format!("{parent} and its child {child} hold two of three: {shared:?}")
    });
    let text = world.linger(&["list", "-tanp"])?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let named = format!("sleep[{child}]");
    let lines = text
        .lines()
        .filter(|line| line.contains(&named) && line.contains(&format!("[{parent}]")));
    world.expect(lines.count() == 2, || {
        format!("the table names both on two rows: {text}")
    });

    drop(heir);
    let alone = holders(world)?;
    world.expect(right(&alone, &[parent]), || {
        format!("only {parent} is left: {alone:?}")
    });
    drop((session, own));
    Ok(())
}

/// Of each socket its state and the processes that hold it, in order.
type Holders = Vec<(String, Vec<u32>)>;

fn holders(world: &World) -> Result<Holders> {
    let rows = world.rows(&["list", "-a", "-p", "--json"])?;
    let pids = |row: &Row| {
        let owners = row.owners.iter().flatten();
        let mut pids: Vec<u32> = owners.map(|owner| owner.pid).collect();
        pids.sort_unstable();
        pids
    };
    Ok(rows
        .iter()
        .map(|row| (row.state.clone(), pids(row)))
        .collect())
}
