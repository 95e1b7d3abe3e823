//! A capture is the machine it came from: the same findings, anywhere, at any time.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::answers::Severity;
use crate::harness::Test;
use crate::kernel::{self, until_count};
use crate::states::zoo;
use crate::world::{Family, World};

pub const TESTS: &[Test] = &[
    Test {
        name: "replay_is_identical",
        run: replay_is_identical,
    },
    Test {
        name: "record_overwrites_nothing_unasked",
        run: record_overwrites_nothing_unasked,
    },
];

fn replay_is_identical(world: &mut World) -> Result<()> {
    let mut kept = Vec::new();
    for family in world.families() {
        kept.extend(zoo(world, *family)?);
    }
    let mut pool = Vec::new();
    for _ in 0..20 {
        let connection = world.dial(Family::V4, 443)?;
        world.far.close(connection.far)?;
        pool.push(connection);
    }
    until_count(kernel::CLOSE_WAIT, 20 + world.families().len())?;
    thread::sleep(Duration::from_millis(1500));

    let file = world.scratch.path().join("capture.linger");
    let file = file.to_str().context("an odd temporary directory")?;
    let recorded = world.linger(&["record", file])?;
    world.expect(recorded.status.success(), || format!("{recorded:?}"));

    // What the capture holds is what was there.
    let cookies = |arguments: &[&str]| -> Result<BTreeSet<(String, Option<String>)>> {
        let rows = world.rows(arguments)?.into_iter();
        Ok(rows.map(|row| (row.state, row.cookie)).collect())
    };
    let live = cookies(&["list", "-a", "--json"])?;
    let captured = cookies(&["list", "-a", "--json", "--from", file])?;
    world.expect(live == captured && !live.is_empty(), || {
        format!("captured {captured:?}, live {live:?}")
    });

    let arguments = [
        "diagnose",
        "--from",
        file,
        "--json",
        "--threshold",
        "close-wait-leak.age=1s",
    ];
    let first = world.linger(&arguments)?;
    match world.read_diagnosis(&arguments, &first) {
        Err(error) => world.problem(format!("{error:#}")),
        Ok(first) => {
            let id = "close-wait-leak";
            world.fires("the capture", &first, id, Severity::Info);
        }
    }
    // Later, and where none of these sockets is.
    thread::sleep(Duration::from_millis(1200));
    let mut command = world.command(&arguments);
    let second = world.far.run(move |_| Ok(command.output()?))?;
    world.expect(first.stdout == second.stdout, || {
        format!(
            "two replays differ:\n{}\n{}",
            String::from_utf8_lossy(&first.stdout),
            String::from_utf8_lossy(&second.stdout)
        )
    });
    drop((kept, pool));
    Ok(())
}

fn record_overwrites_nothing_unasked(world: &mut World) -> Result<()> {
    let path = world.scratch.path().join("capture.linger");
    let file = path.to_str().context("an odd temporary directory")?;
    let recorded = world.linger(&["record", file])?;
    world.expect(recorded.status.success(), || format!("{recorded:?}"));
    let mode = fs::metadata(&path).map(|file| file.permissions().mode() & 0o777);
    world.expect(mode.as_ref().is_ok_and(|mode| *mode == 0o600), || {
        format!("whoever may read it sees all addresses: {mode:?}")
    });

    fs::write(&path, "precious")?;
    let refused = world.linger(&["record", file])?;
    world.expect(refused.status.code() == Some(1), || format!("{refused:?}"));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    world.expect(said.contains("--force"), || {
        format!("the message says how to overwrite: {said:?}")
    });
    world.expect(fs::read(&path)? == b"precious", || {
        "the file should be untouched".to_owned()
    });
    let forced = world.linger(&["record", "--force", file])?;
    world.expect(forced.status.success(), || format!("{forced:?}"));
    world.expect(fs::read(&path)? != b"precious", || {
        "--force should overwrite".to_owned()
    });
    Ok(())
}
