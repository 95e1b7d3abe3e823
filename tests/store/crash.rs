//! Four processes write at once, and one of them is killed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use linger::history::store::{NAME, Options, Run, Store};
use linger::model::Severity;
use rusqlite::Connection;

use super::support::*;

const TEST: &str = "crash::nothing_that_was_acknowledged_is_lost_when_a_writer_is_killed";
const WRITES: u32 = 120;

/// Writes until it is killed or has written enough, and tells each write that was acknowledged.
fn write(role: &str) {
    let (dir, netns) = role.rsplit_once(' ').unwrap();
    let place = place(netns.parse().unwrap());
    let (mut store, messages) = Store::open(dir.as_ref(), options()).unwrap();
    assert_eq!(messages, Vec::<String>::new());
    for n in 0..WRITES {
        let values: Vec<(String, f64)> = (0..40)
            .map(|i| (format!("measure.{i}"), f64::from(n)))
            .collect();
        let found = [finding("x", &format!("n {n}"), Severity::Warning)];
        let sample = sample(n.into());
        let run = Run {
            values: &values,
            findings: &found,
            judged: &["x"],
            sample: Some(&sample),
            ..run(i64::from(n) * 10)
        };
        store.write(&place, &run).unwrap();
        std::io::stderr()
            .write_all(format!("{n}\n").as_bytes())
            .unwrap();
    }
}

fn writer(dir: &std::path::Path, netns: u64, told: mpsc::Sender<(u64, u32)>) -> Child {
    let mut child = again(TEST, &format!("{} {netns}", dir.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    thread::spawn(move || {
        let mut lines = BufReader::new(stderr);
        let mut line = String::new();
        // A line without its end was being written when the writer was killed.
        while lines.read_line(&mut line).is_ok_and(|n| n > 0) && line.ends_with('\n') {
            if let Ok(n) = line.trim().parse() {
                let _ = told.send((netns, n));
            } else {
                eprint!("writer {netns}: {line}");
            }
            line.clear();
        }
    });
    child
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_a_writer_is_killed() {
    if let Some(role) = role() {
        return write(&role);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeSet<(u64, u32)> = BTreeSet::new();
    for round in 0..5u64 {
        let (told, acks) = mpsc::channel();
        let victim = round * 4;
        let mut writers: Vec<Child> = (victim..victim + 4)
            .map(|netns| writer(dir.path(), netns, told.clone()))
            .collect();
        drop(told);
        // After another number of writes each time, and at any moment of the next one.
        let last = u32::try_from(round * 17 + 3).unwrap();
        loop {
            let ack = acks.recv_timeout(Duration::from_secs(120)).unwrap();
            acknowledged.insert(ack);
            if ack == (victim, last) {
                thread::yield_now();
                writers[0].kill().unwrap();
                break;
            }
        }
        acknowledged.extend(acks);
        for (at, mut writer) in writers.into_iter().enumerate() {
            let status = writer.wait().unwrap();
            assert!(at == 0 || status.success(), "{status}");
        }
    }
    let path = dir.path().join(NAME);
    let check: String = Connection::open(&path)
        .unwrap()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!((check.as_str(), set_aside(dir.path())), ("ok", 0));

    let store = open(dir.path());
    let mut all = 0;
    for netns in 0..20 {
        let place = place(netns);
        let of = |(own, n): &(u64, u32)| (*own == netns).then_some(f64::from(*n));
        let told: Vec<f64> = acknowledged.iter().filter_map(of).collect();
        let kept = values(&store, "measure.7", &place);
        all += told.len();
        assert!(kept.starts_with(&told), "{netns}: {told:?} {kept:?}");
        let killed = netns % 4 == 0;
        // One more may have been written and not told.
        assert!(kept.len() - told.len() <= usize::from(killed), "{netns}");
        assert!(killed || told.len() == WRITES as usize);
        let samples = store.samples(&place, at(-1), 0).unwrap();
        let last = samples.last().unwrap();
        assert_eq!(last.bound, [kept.len() as u64 - 1]);
        let active = store.active(&place).unwrap();
        assert_eq!(active[0].0.subject, format!("n {}", kept.len() - 1));
    }
    assert!(all > 15 * WRITES as usize, "{all}");
}

#[test]
fn processes_that_begin_one_at_once_begin_one() {
    const TEST: &str = "crash::processes_that_begin_one_at_once_begin_one";
    if let Some(role) = role() {
        return write(&role);
    }
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        // Even on what is no history all of them agree.
        std::fs::write(dir.path().join(NAME), "not a database").unwrap();
        let open = |_| {
            let dir = dir.path().to_owned();
            thread::spawn(move || Store::open(&dir, Options { ..options() }).map(|(_, said)| said))
        };
        let openers: Vec<_> = (0..4).map(open).collect();
        let said: Vec<String> = openers
            .into_iter()
            .flat_map(|opener| opener.join().unwrap().unwrap())
            .collect();
        assert_eq!((said.len(), set_aside(dir.path())), (1, 1), "{said:?}");
        let writers: Vec<Child> = (0..3)
            .map(|netns| {
                again(TEST, &format!("{} {netns}", dir.path().display()))
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut writer in writers {
            assert!(writer.wait().unwrap().success());
        }
    }
}
