//! Sequences of looks at real sockets: what changes is in them, and whatever ends them leaves what is whole.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use linger::collect::Source;
use linger::record::Capture;
use rustix::process::{Pid, Signal, kill_process};

use crate::answers::{Diagnosis, Severity};
use crate::harness::Test;
use crate::kernel::{self, until, until_count};
use crate::world::{Connection, Family, World, begin_connect, listen, tcp};

pub const TESTS: &[Test] = &[
    Test {
        name: "a_growing_leak_is_in_a_sequence",
        run: a_growing_leak_is_in_a_sequence,
    },
    Test {
        name: "a_sequence_has_the_rate_of_drops",
        run: a_sequence_has_the_rate_of_drops,
    },
    Test {
        name: "a_signal_ends_a_sequence_cleanly",
        run: a_signal_ends_a_sequence_cleanly,
    },
    Test {
        name: "a_killed_recording_leaves_its_frames",
        run: a_killed_recording_leaves_its_frames,
    },
];

const LEAK: &str = "close-wait-leak";
const OVERFLOW: &str = "listen-overflow";

/// A recording that goes on; ended with the test if not before.
struct Recording {
    child: Child,
    path: PathBuf,
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Recording {
    fn begin(world: &World, name: &str, more: &[&str]) -> Result<Self> {
        let path = world.scratch.path().join(name);
        let file = path.to_str().context("an odd temporary directory")?;
        let mut command: Command = world.command(&["record", file, "--json"]);
        let child = command
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self { child, path })
    }

    /// How many whole frames can be read by now.
    fn frames(&self) -> usize {
        Capture::open(&self.path).map_or(0, |capture| capture.looks())
    }

    fn until_frames(&self, wanted: usize) -> Result<()> {
        until("frames in the file", || {
            let frames = self.frames();
            Ok((frames < wanted).then(|| format!("{frames} of {wanted}")))
        })
    }

    fn is_over(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        Ok(kill_process(pid, signal)?)
    }

    /// What it says at its end.
    fn end(mut self) -> Result<(PathBuf, Output)> {
        let status = self.child.wait()?;
        let mut output = Output {
            status,
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        if let Some(out) = &mut self.child.stdout {
            std::io::Read::read_to_end(out, &mut output.stdout)?;
        }
        if let Some(err) = &mut self.child.stderr {
            std::io::Read::read_to_end(err, &mut output.stderr)?;
        }
        Ok((self.path.clone(), output))
    }
}

/// What `record --json` prints of a sequence.
#[derive(Debug, serde::Deserialize)]
struct Recorded {
    ended: String,
    frames: usize,
}

fn document(output: &Output) -> Result<Recorded> {
    serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))
}

fn judged(world: &World, path: &Path, more: &[&str]) -> Result<Diagnosis> {
    let file = path.to_str().context("an odd temporary directory")?;
    let arguments = [&["diagnose", "--json", "--from", file][..], more].concat();
    world.read_diagnosis(&arguments, &world.linger(&arguments)?)
}

fn a_growing_leak_is_in_a_sequence(world: &mut World) -> Result<()> {
    for leaks in [true, false] {
        let name = format!("{leaks}.linger");
        let often = ["--interval", "500ms", "--for", "3s"];
        let mut recording = Recording::begin(world, &name, &often)?;
        let mut pool: Vec<Connection> = Vec::new();
        let mut last = Instant::now();
        while !recording.is_over()? {
            let connection = world.dial(Family::V4, 443)?;
            world.far.close(connection.far)?;
            if leaks {
                pool.push(connection);
                until_count(kernel::CLOSE_WAIT, pool.len())?;
            } else {
                drop(connection);
            }
            let pause = Duration::from_millis(100).saturating_sub(last.elapsed());
            std::thread::sleep(pause);
            last = Instant::now();
        }
        let (path, said) = recording.end()?;
        let document = document(&said)?;
        world.expect(said.status.success() && document.ended == "time", || {
            format!("{said:?}")
        });
        world.expect(document.frames >= 3, || {
            format!("at least three frames in 3 s, however slow: {document:?}")
        });
        let quick = ["--only", LEAK, "--threshold", "close-wait-leak.age=1s"];
        let found = judged(world, &path, &quick)?;
        if leaks {
            let finding = world.fires("while it grows", &found, LEAK, Severity::Warning);
            world.expect(
                finding.is_none_or(|finding| finding.explanation.contains("rose from")),
                || format!("the growth from look to look is told: {finding:?}"),
            );
            let one = judged(world, &path, &[&quick[..], &["--samples", "1"]].concat())?;
            world.expect(
                one.worst(LEAK)
                    .is_none_or(|finding| !finding.explanation.contains("rose from")),
                || format!("one look has seen no growth: {}", one.in_short()),
            );
        } else {
            world.calm("each is closed", &found, LEAK);
        }
        drop(pool);
        until_count(kernel::CLOSE_WAIT, 0)?;
    }
    Ok(())
}

fn a_sequence_has_the_rate_of_drops(world: &mut World) -> Result<()> {
    let full = listen(Family::V4.near(8081), 1)?;
    for knocks in [true, false] {
        let name = format!("drops-{knocks}.linger");
        let often = ["--interval", "500ms", "--for", "2s"];
        let mut recording = Recording::begin(world, &name, &often)?;
        let mut clients = Vec::new();
        while !recording.is_over()? {
            if knocks {
                let client = tcp(Family::V4.near(8081))?;
                client.set_nonblocking(true)?;
                begin_connect(&client, Family::V4.near(8081))?;
                clients.push(client);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let (path, said) = recording.end()?;
        world.expect(said.status.success(), || format!("{said:?}"));
        let found = judged(world, &path, &["--only", OVERFLOW])?;
        if knocks {
            world.fires("dropped all the time", &found, OVERFLOW, Severity::Critical);
            let one = judged(world, &path, &["--only", OVERFLOW, "--samples", "1"])?;
            let sure = one.worst(OVERFLOW).map(|finding| finding.severity);
            world.expect(sure < Some(Severity::Critical), || {
                format!("one look has no rate: {}", one.in_short())
            });
            drop(clients);
            full.set_nonblocking(true)?;
            while full.accept().is_ok() {}
        } else {
            world.calm("nobody knocks", &found, OVERFLOW);
        }
    }
    Ok(())
}

fn a_signal_ends_a_sequence_cleanly(world: &mut World) -> Result<()> {
    for signal in [Signal::INT, Signal::TERM] {
        let name = format!("{}.linger", signal.as_raw());
        let recording = Recording::begin(world, &name, &["--interval", "50ms"])?;
        recording.until_frames(3)?;
        recording.signal(signal)?;
        let (path, said) = recording.end()?;
        let document = document(&said)?;
        world.expect(said.status.code() == Some(0), || format!("{said:?}"));
        world.expect(document.ended == "signal", || format!("{document:?}"));
        let bytes = std::fs::read(&path)?;
        let end = bytes.len().checked_sub(28).and_then(|at| bytes.get(at..));
        world.expect(end.is_some_and(|end| end.starts_with(b"END!")), || {
            format!("{signal:?}: the file has no end")
        });
        let looks = Capture::open(&path)?.looks();
        world.expect(document.frames == looks, || {
            format!("{looks} frames, and said are {document:?}")
        });
        let shown = world.linger(&["status", "--from", &path.display().to_string()])?;
        let torn = String::from_utf8_lossy(&shown.stderr).contains("within a frame");
        world.expect(shown.status.success() && !torn, || format!("{shown:?}"));
    }
    Ok(())
}

fn a_killed_recording_leaves_its_frames(world: &mut World) -> Result<()> {
    let _listener = listen(Family::V4.near(8080), 4)?;
    // Ended again and again at another place in a frame.
    for round in 0..5u64 {
        let name = format!("killed-{round}.linger");
        let recording = Recording::begin(world, &name, &["--interval", "1ms"])?;
        recording.until_frames(3)?;
        recording.signal(Signal::KILL)?;
        let (path, said) = recording.end()?;
        world.expect(said.status.code().is_none(), || format!("{said:?}"));
        let file = path.display().to_string();
        let shown = world.linger(&["diagnose", "--from", &file])?;
        world.expect(shown.status.success(), || format!("{shown:?}"));
        let rows = world.rows(&["list", "-l", "--json", "--from", &file])?;
        world.expect(rows.len() == 1, || format!("{rows:?}"));
        let mut capture = Capture::open(&path)?;
        let looks = capture.looks();
        world.expect(looks >= 3, || format!("{looks} frames"));
        for look in 0..looks {
            let read = capture.seek(look);
            world.expect(matches!(read, Ok(true)), || format!("{look}: {read:?}"));
        }
    }
    Ok(())
}
