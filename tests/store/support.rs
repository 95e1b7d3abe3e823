//! What the tests share.

use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use linger::history::Sample;
use linger::history::store::{Active, NAME, Options, Place, Producer, Run, Store, Transition};
use linger::model::Severity;

/// The first moment of the tests.
pub const BEGAN: i64 = 1_800_000_000;

/// Tells a copy of this program which part of which test it is.
pub const ROLE: &str = "LINGER_STORE_TEST_ROLE";

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(BEGAN + second).unwrap()
}

pub fn place(netns: u64) -> Place {
    Place {
        boot_id: "2c6b9f0e-boot".to_owned(),
        netns,
    }
}

/// What is left of free room is of no interest to these tests.
pub fn options() -> Options {
    Options {
        least_free: 0,
        ..Options::default()
    }
}

pub fn open(dir: &Path) -> Store {
    let (store, messages) = Store::open(dir, options()).unwrap();
    assert_eq!(messages, Vec::<String>::new());
    store
}

/// A run with nothing to tell.
pub fn run(second: i64) -> Run<'static> {
    Run {
        taken: at(second),
        producer: Producer::Check,
        complete: true,
        values: &[],
        findings: &[],
        judged: &[],
        sample: None,
        view: 0,
        reader: 0,
        own: &[],
        apart: false,
    }
}

pub fn finding(id: &str, subject: &str, severity: Severity) -> Active {
    Active {
        id: id.to_owned(),
        variant: None,
        subject: subject.to_owned(),
        severity,
        title: format!("{subject}: {id}"),
    }
}

pub fn sample(cookie: u64) -> Sample {
    Sample {
        bound: vec![cookie],
        ..Sample::default()
    }
}

/// The changes in short: `id subject from to`.
pub fn short(changes: &[Transition]) -> Vec<String> {
    let name = |severity: Option<Severity>| severity.map_or("-", Severity::name);
    let line = |change: &Transition| {
        let (from, to) = (name(change.from), name(change.to));
        format!("{} {} {from} {to}", change.id, change.subject)
    };
    changes.iter().map(line).collect()
}

/// All values of a measure at a place.
pub fn values(store: &Store, name: &str, place: &Place) -> Vec<f64> {
    let all = store.series(name, Timestamp::MIN, Timestamp::MAX, Some(place));
    let mut all = all.unwrap();
    assert!(all.len() <= 1);
    let points = all.pop().map(|series| series.points).unwrap_or_default();
    points.iter().map(|point| point.value).collect()
}

/// Files in `dir` whose names begin like this, sorted.
pub fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(prefix) && !name.ends_with("-wal") && !name.ends_with("-shm")
    };
    let mut files: Vec<PathBuf> = entries.filter(named).collect();
    files.sort();
    files
}

pub fn set_aside(dir: &Path) -> usize {
    files(dir, &format!("{NAME}.damaged-")).len()
}

/// This program again, to run one test only, in a role.
pub fn again(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, role);
    command
}

pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}
