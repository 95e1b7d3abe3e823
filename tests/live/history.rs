//! What one run leaves to the next: changes, growth, what is gone, and curves of what was measured.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::linux::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use linger::history::store::{Options, Place, Producer, Run, Store};
use serde_json::Value;

use crate::harness::Test;
use crate::kernel::{self, until, until_count};
use crate::tmux::Tmux;
use crate::world::{Family, World, listen};

pub const TESTS: &[Test] = &[
    Test {
        name: "history_of_changes",
        run: changes,
    },
    Test {
        name: "history_of_growth",
        run: growth,
    },
    Test {
        name: "history_misses_a_listener",
        run: listener,
    },
    Test {
        name: "history_is_kept_by_all",
        run: kept_by_all,
    },
    Test {
        name: "history_that_cannot_be_kept",
        run: not_kept,
    },
];

const PORT: u16 = 8080;

/// What a run of the program says, and its exit code.
fn run(world: &World, line: &str) -> Result<(String, Option<i32>)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = world.linger(&words)?;
    let err = String::from_utf8_lossy(&output.stderr);
    ensure!(!err.contains("panicked"), "{line}: {err}");
    Ok((String::from_utf8(output.stdout)?, output.status.code()))
}

fn state(world: &World) -> PathBuf {
    world.scratch.path().join("state")
}

fn changes(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(PORT), 16)?;
    let connection = world.serve(&listener)?;
    let at = state(world);
    let asked = |limits: &str, how: &str| {
        run(
            world,
            &format!(
                "check --metric tcp.close-wait {limits} {how} --state-dir {}",
                at.display()
            ),
        )
    };
    let expect = |what: &str, said: (String, Option<i32>), words: &[&str], code: i32| {
        let right = said.1 == Some(code)
            && words.iter().all(|word| said.0.contains(word))
            && (!words.is_empty() || said.0.is_empty());
        world.expect(right, || format!("{what}: {said:?}"));
    };
    expect("at first", asked("-w 0", "--on-change")?, &[], 0);
    world.far.close(connection.far)?;
    until_count(kernel::CLOSE_WAIT, 1)?;
    let new = ["LINGER WARNING", "WARNING (new) tcp.close-wait is 1"];
    expect("new", asked("-w 0", "--on-change")?, &new, 1);
    expect("still there", asked("-w 0", "--on-change")?, &[], 1);
    expect(
        "wrong is never silent",
        asked("-w 0", "--quiet")?,
        &["LINGER WARNING"],
        1,
    );
    // Another question has its own answer to compare with.
    let critical = ["LINGER CRITICAL", "CRITICAL (new)"];
    expect("another", asked("-c 0", "--on-change")?, &critical, 2);
    drop(connection.near);
    until_count(kernel::CLOSE_WAIT, 0)?;
    let ended = ["LINGER OK", "OK (ended, was warning)"];
    expect("ended", asked("-w 0", "--quiet")?, &ended, 0);
    expect("all is well", asked("-w 0", "--quiet")?, &[], 0);
    // Who asks one way does not take the news from who asks another.
    expect("told both", asked("-w 0", "--on-change")?, &ended, 0);
    expect("and once", asked("-w 0", "--on-change")?, &[], 0);
    expect("without either", asked("-w 0", "")?, &["LINGER OK"], 0);
    let (document, _) = asked("-c 0", "--on-change --json")?;
    let document: Value = serde_json::from_str(&document)?;
    let faults = crate::schema::faults(&document);
    world.expect(faults.is_empty(), || format!("{faults:?}"));
    let change = document.pointer("/changes/0").context("no change")?;
    let of = |end: &str| change.get(end).and_then(Value::as_str);
    world.expect(of("from") == Some("critical") && of("to").is_none(), || {
        format!("{document:#}")
    });
    // That a check goes blind is news, once.
    let blind = format!(
        "check --metric tcp.total.growth -w 1 --on-change --state-dir {}x",
        at.display()
    );
    let (said, code) = run(world, &blind)?;
    world.expect(
        code == Some(3) && said.contains("LINGER UNKNOWN") && said.contains("(new)"),
        || said,
    );
    expect("still blind", run(world, &blind)?, &[], 3);
    let (said, code) = run(world, "check --on-change --no-history")?;
    world.expect(code == Some(3) && said.contains("--on-change"), || said);
    Ok(())
}

/// The place where this test is.
fn here() -> Result<Place> {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(Place {
        boot_id: boot_id.trim().to_owned(),
        netns: fs::metadata("/proc/thread-self/ns/net")?.st_ino(),
    })
}

/// Writes down what runs of the last minutes have counted: the earliest first, one in five minutes.
fn counted(world: &World, place: &Place, counts: &[f64]) -> Result<()> {
    let directory = state(world);
    fs::create_dir_all(&directory)?;
    let (mut store, _) = Store::open(&directory, Options::default())?;
    for (count, ago) in counts
        .iter()
        .rev()
        .zip(1i64..)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        let values = [
            ("tcp.close-wait".to_owned(), *count),
            ("tcp.total".to_owned(), *count),
        ];
        let run = Run {
            taken: Timestamp::now() - SignedDuration::from_mins(5 * ago),
            producer: Producer::Check,
            complete: true,
            values: &values,
            findings: &[],
            judged: &[],
            sample: None,
            view: 0,
            reader: 0,
            own: &[],
            apart: false,
        };
        store.write(place, &run)?;
    }
    Ok(())
}

fn growth(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(PORT), 16)?;
    let mut held = Vec::new();
    for _ in 0..10 {
        let connection = world.serve(&listener)?;
        world.far.close(connection.far)?;
        held.push(connection.near);
    }
    until_count(kernel::CLOSE_WAIT, 10)?;
    let at = state(world);
    let asked = format!(
        "check --metric tcp.close-wait.growth -w 1 --state-dir {}",
        at.display()
    );
    let (said, code) = run(world, &asked)?;
    world.expect(code == Some(3) && said.contains("no history yet"), || said);
    fs::remove_dir_all(&at)?;
    // Another boot, and another namespace, are no history of this one.
    let mut other = here()?;
    other.boot_id.push('x');
    counted(world, &other, &[0.0, 0.0])?;
    let (said, code) = run(world, &asked)?;
    world.expect(code == Some(3), || said);
    fs::remove_dir_all(&at)?;
    // From 0 to 10 in ten minutes: 1 a minute, which the limit allows, or from 0 to 10 in five.
    for (counts, wanted) in [(&[0.0, 5.0][..], 0), (&[0.0], 1)] {
        counted(world, &here()?, counts)?;
        let (said, code) = run(world, &asked)?;
        world.expect(code == Some(wanted) && said.contains(" min"), || {
            format!("{counts:?}: {code:?} {said}")
        });
        fs::remove_dir_all(&at)?;
    }
    Ok(())
}

fn listener(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(PORT), 16)?;
    let at = state(world);
    let asked = format!("check --samples 1 -v --state-dir {}", at.display());
    let missed = "listener-vanished";
    let (said, _) = run(world, &asked)?;
    world.expect(!said.contains(missed), || said);
    let (said, _) = run(world, &asked)?;
    world.expect(!said.contains(missed), || said);
    // What measures a little, right before, keeps no look, and nobody from keeping one.
    let little = format!(
        "check --metric tcp.total -w 1000 --state-dir {}",
        at.display()
    );
    fs::remove_dir_all(&at)?;
    run(world, &little)?;
    run(world, &asked)?;
    // Who asks little remembers by itself.
    let few = format!(
        "check --samples 1 --only {missed} -v --state-dir {}-few",
        at.display()
    );
    let (said, _) = run(world, &few)?;
    world.expect(!said.contains("nobody listens"), || said);
    drop(listener);
    let (said, _) = run(world, &few)?;
    world.expect(
        said.contains("nobody listens") && said.contains(":8080"),
        || said,
    );
    let (said, _) = run(world, &asked)?;
    world.expect(
        said.contains(missed) && said.contains(":8080") && said.contains("history: "),
        || said,
    );
    Ok(())
}

fn kept_by_all(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(PORT), 16)?;
    let mut held = Vec::new();
    for _ in 0..3 {
        let connection = world.serve(&listener)?;
        world.far.close(connection.far)?;
        held.push(connection.near);
    }
    // Not of those that are established: who asks the exporter is one of them.
    until_count(kernel::CLOSE_WAIT, 3)?;
    let count = |directory: &str| -> Result<Option<f64>> {
        let (document, code) = run(
            world,
            &format!("history tcp.close-wait --json --state-dir {directory}"),
        )?;
        if code != Some(0) {
            return Ok(None);
        }
        let document: Value = serde_json::from_str(&document)?;
        Ok(document
            .pointer("/measures/0/points/0/value")
            .and_then(Value::as_f64))
    };
    let directory = |name: &str| world.scratch.path().join(name).display().to_string();

    let check = directory("by-check");
    run(world, &format!("check --state-dir {check}"))?;
    let seen = count(&check)?;
    world.expect(seen == Some(3.0), || format!("check kept {seen:?}"));
    let (page, _) = run(world, &format!("history --state-dir {check}"))?;
    world.expect(
        page.contains("listener[8080].queue") && page.contains("process["),
        || page,
    );

    let export = directory("by-export");
    let words = [
        "export",
        "--web.listen-address",
        "127.0.0.1:0",
        "--state-dir",
        &export,
    ];
    let mut exporter = world.command(&words).stderr(Stdio::piped()).spawn()?;
    let lines = BufReader::new(exporter.stderr.take().context("no stderr")?).lines();
    let url = lines.map_while(Result::ok).find_map(|line| {
        let (_, address) = line.split_once("listening on http://")?;
        Some(address.split('/').next()?.to_owned())
    });
    let mut stream = TcpStream::connect(url.context("it does not listen")?)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics)?;
    drop(stream);
    let kept = until("what the exporter keeps", || {
        let seen = count(&export)?;
        Ok((seen != Some(3.0)).then(|| format!("{seen:?}")))
    });
    exporter.kill()?;
    exporter.wait()?;
    kept?;

    let watch = directory("by-watch");
    let terminal = Tmux::start(world, 100, 30)?;
    terminal.line(&format!("$LINGER watch --state-dir {watch}"))?;
    let kept = until("what the dashboard keeps", || {
        let seen = count(&watch)?;
        Ok((seen != Some(3.0)).then(|| format!("{seen:?}")))
    });
    terminal.press(linger::tui::keys::Key::Char('q'))?;
    kept
}

/// A history that cannot be kept stops nobody, and is said where one asks.
fn not_kept(world: &mut World) -> Result<()> {
    let file = world.scratch.path().join("file");
    fs::write(&file, "")?;
    let (said, code) = run(world, &format!("check --state-dir {}/x", file.display()))?;
    world.expect(code == Some(0) && said.starts_with("LINGER OK"), || said);
    let (said, _) = run(world, &format!("check -v --state-dir {}/x", file.display()))?;
    world.expect(
        said.contains("note: ") && said.contains("nothing is remembered"),
        || said,
    );
    let (said, code) = run(
        world,
        &format!(
            "check --metric tcp.total.growth -w 1 --state-dir {}/x",
            file.display()
        ),
    )?;
    world.expect(code == Some(3), || said);
    Ok(())
}
