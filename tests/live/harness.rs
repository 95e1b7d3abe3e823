//! Runs each test in a process of its own, a few side by side, and reports as cargo's users expect.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};

use crate::world::World;
use crate::{hostile, watch};

/// One test.
#[derive(Clone, Copy)]
pub struct Test {
    pub name: &'static str,
    pub run: fn(&mut World) -> Result<()>,
}

/// Why a test could not run here. Not a failure, except where `CI=true` says that everything has to run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Skip(pub String);

/// What a test's process answers, beside 0.
const FAILED: u8 = 101;
const SKIPPED: u8 = 77;
/// A test that takes longer hangs, and is ended.
const LIMIT: Duration = Duration::from_secs(150);

/// Does what the arguments ask for: run tests, list them, or be the process of one.
pub fn main(groups: &[&[Test]]) -> ExitCode {
    let tests: Vec<Test> = groups.concat();
    let asked = Asked::parse(std::env::args().skip(1));
    if let Some(name) = asked.exec {
        return match tests.iter().find(|test| test.name == name) {
            Some(test) => be_the_test(test),
            None => answer(&Err(anyhow::anyhow!("no test is called {name:?}"))),
        };
    }
    if asked.hostile {
        return answer(&hostile::child());
    }
    if asked.panicking {
        return answer(&watch::panicking());
    }
    let chosen: Vec<Test> = tests
        .into_iter()
        .filter(|test| asked.wants(test.name))
        .collect();
    if asked.list {
        for test in &chosen {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    run_all(&chosen, &asked)
}

/// The arguments that matter here, of those that cargo's users give to any test program.
#[derive(Default)]
struct Asked {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
    nocapture: bool,
    /// only those that are left out by default, which none is
    ignored: bool,
    threads: Option<usize>,
    exec: Option<String>,
    hostile: bool,
    panicking: bool,
}

impl Asked {
    fn parse(arguments: impl Iterator<Item = String>) -> Self {
        let mut asked = Self::default();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let (name, mut value) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            let mut value = || value.take().or_else(|| arguments.next());
            match name {
                "--exec" => asked.exec = value(),
                "--hostile-child" => asked.hostile = true,
                "--panicking-child" => asked.panicking = true,
                "--list" => asked.list = true,
                "--exact" => asked.exact = true,
                "--nocapture" | "--no-capture" => asked.nocapture = true,
                "--ignored" => asked.ignored = true,
                "--test-threads" => asked.threads = value().and_then(|n| n.parse().ok()),
                "--skip" => asked.skips.extend(value()),
                "--format" | "--color" | "--logfile" | "--shuffle-seed" | "-Z" => drop(value()),
                option if option.starts_with('-') => {}
                filter => asked.filters.push(filter.to_owned()),
            }
        }
        asked
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |filter: &String| {
            if self.exact {
                name == filter
            } else {
                name.contains(filter.as_str())
            }
        };
        !self.ignored
            && (self.filters.is_empty() || self.filters.iter().any(fits))
            && !self.skips.iter().any(fits)
    }
}

/// This process is the test: it may change its namespaces, limits and name as it likes.
fn be_the_test(test: &Test) -> ExitCode {
    let outcome = set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(anyhow::Error::from)
        .and_then(|()| World::enter(test.name))
        .and_then(|mut world| {
            let outcome = (test.run)(&mut world);
            let problems = world.problems();
            let outcome = match (outcome, problems.is_empty()) {
                (Ok(()), false) => Err(anyhow::anyhow!("it is not as expected")),
                (outcome, _) => outcome,
            };
            for problem in &problems {
                println!("- {problem}");
            }
            if outcome.as_ref().is_err_and(|error| !error.is::<Skip>()) {
                world.show();
            }
            outcome
        });
    answer(&outcome)
}

fn answer(outcome: &Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(why) => {
                println!("{why}");
                ExitCode::from(SKIPPED)
            }
            None => {
                println!("error: {error:#}");
                ExitCode::from(FAILED)
            }
        },
    }
}

enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

fn run_all(chosen: &[Test], asked: &Asked) -> ExitCode {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // Tests mostly wait, so more of them than cores run well side by side.
    let side_by_side = asked.threads.unwrap_or((2 * cores).min(8)).max(1);
    let everything_must_run = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    let queue = Mutex::new(chosen.iter().copied().collect::<VecDeque<Test>>());
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    println!("\nrunning {} tests", chosen.len());
    thread::scope(|scope| {
        let (reports, reported) = mpsc::channel();
        for _ in 0..side_by_side {
            let (queue, reports) = (&queue, reports.clone());
            scope.spawn(move || {
                loop {
                    let next = queue
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front();
                    let Some(test) = next else { return };
                    let verdict = attempt(&test, asked.nocapture).unwrap_or_else(|error| {
                        Verdict::Failed(format!("error: the test could not be run: {error:#}\n"))
                    });
                    if reports.send((test, verdict)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(reports);
        for (test, verdict) in reported {
            match verdict {
                Verdict::Passed => {
                    passed += 1;
                    println!("test {} ... ok", test.name);
                }
                Verdict::Skipped(why) if everything_must_run => {
                    failed += 1;
                    println!("test {} ... FAILED", test.name);
                    println!("---- CI=true allows no skipped test: {why}");
                }
                Verdict::Skipped(why) => {
                    skipped += 1;
                    println!("test {} ... skipped: {why}", test.name);
                }
                Verdict::Failed(output) => {
                    failed += 1;
                    println!("test {} ... FAILED", test.name);
                    println!("---- {}\n{}----", test.name, output);
                }
            }
        }
    });
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}

/// Runs one test. Its output goes to a file, not a pipe, so that a grandchild that stays behind keeps nobody waiting.
fn attempt(test: &Test, nocapture: bool) -> Result<Verdict> {
    let mut output = tempfile::tempfile().context("cannot keep the output of a test")?;
    // No test touches the history of this machine.
    let state = tempfile::tempdir().context("no room for what the program remembers")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exec", test.name]).stdin(Stdio::null());
    command.env("STATE_DIRECTORY", state.path().join("linger"));
    // A group of its own, so that what the test started ends with it.
    command.process_group(0);
    if !nocapture {
        command.stdout(output.try_clone()?);
        command.stderr(output.try_clone()?);
    }
    let mut child = command.spawn()?;
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            end_group(child.id());
            child.wait()?;
            break None;
        }
        thread::sleep(Duration::from_millis(20));
    };
    let text = read_back(&mut output)?;
    Ok(match status {
        None => Verdict::Failed(format!("{text}ended after {} s\n", LIMIT.as_secs())),
        Some(status) if status.success() => Verdict::Passed,
        Some(status) if status.code() == Some(i32::from(SKIPPED)) => {
            Verdict::Skipped(text.trim().to_owned())
        }
        Some(status) if status.code() == Some(i32::from(FAILED)) => Verdict::Failed(text),
        Some(status) => Verdict::Failed(format!("{text}{status}\n")),
    })
}

fn end_group(leader: u32) {
    let leader = i32::try_from(leader).ok().and_then(Pid::from_raw);
    if let Some(leader) = leader {
        // It may have ended on its own meanwhile.
        kill_process_group(leader, Signal::KILL).ok();
    }
}

fn read_back(output: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
