//! What is kept between runs, as `linger history` shows it. The store is made by the test, for the namespace and the boot
//! that the test runs in.

use std::fs;
use std::os::linux::fs::MetadataExt;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use linger::history::store::{Active, Options, Place, Producer, Run, Store};
use linger::model::Severity;

use crate::support::{fails, json, quiet, run};

/// A leak as it grew in the last hour: one look in five minutes, after a boot that had 7 of them.
fn kept(directory: &Path) {
    let (mut store, messages) = Store::open(directory, Options::default()).unwrap();
    assert_eq!(messages, [""; 0]);
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let here = Place {
        boot_id: boot_id.trim().to_owned(),
        netns: fs::metadata("/proc/self/ns/net").unwrap().st_ino(),
    };
    let before = Place {
        boot_id: "another".to_owned(),
        ..here.clone()
    };
    let elsewhere = Place {
        netns: 1,
        ..here.clone()
    };
    let now = Timestamp::now();
    let mut write = |place: &Place, minutes: i64, leaked: f64, severity: Option<Severity>| {
        let finding = severity.map(|severity| Active {
            id: "close-wait-leak".to_owned(),
            variant: None,
            subject: "process check\u{1b}out".to_owned(),
            severity,
            title: "check\u{1b}out: sockets are CLOSE-WAIT".to_owned(),
        });
        let findings: Vec<Active> = finding.into_iter().collect();
        let values = [
            ("tcp.close-wait".to_owned(), leaked),
            ("tcp.closing".to_owned(), 0.0),
            ("conntrack.ratio".to_owned(), leaked / 100.0),
        ];
        let run = Run {
            taken: now - SignedDuration::from_mins(minutes),
            producer: Producer::Check,
            complete: true,
            values: &values,
            findings: &findings,
            judged: &["close-wait-leak"],
            sample: None,
            view: 0,
            reader: 0,
            own: &[],
            apart: false,
        };
        store.write(place, &run).unwrap();
    };
    write(&before, 90, 7.0, None);
    write(&elsewhere, 30, 99.0, Some(Severity::Critical));
    for n in 0..12i32 {
        let severity = match n {
            0..3 => None,
            3..6 => Some(Severity::Warning),
            6..11 => Some(Severity::Critical),
            _ => None,
        };
        write(&here, 55 - 5 * i64::from(n), f64::from(n * 5), severity);
    }
}

#[test]
fn what_was_measured_is_shown_as_a_table_and_as_a_curve() {
    let scratch = tempfile::tempdir().unwrap();
    kept(scratch.path());
    let at = scratch.path().display();
    let page = quiet(&format!("history --since 2h --state-dir {at}"));
    let line = |start: &str| {
        page.lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_default()
            .to_owned()
    };
    let leaked: Vec<String> = line("tcp.close-wait")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert_eq!(leaked[1..5], ["55", "0", "25.9", "55"], "{page}");
    assert!(line("conntrack.ratio").contains("55 %"), "{page}");
    assert!(page.contains("\n0 all the time: tcp.closing\n"), "{page}");
    assert!(
        page.lines().all(|line| line.chars().count() <= 80),
        "{page}"
    );
    assert!(
        !page.contains("99"),
        "another namespace is another history: {page}"
    );
    let times: Vec<&str> = page
        .lines()
        .filter(|line| line.contains("close-wait-leak"))
        .collect();
    assert!(
        matches!(times[..], [a, b, c] if a.contains("WARNING") && b.contains("CRITICAL") && b.ends_with("CLOSE-WAIT,")
            && c.contains("ended") && c.ends_with("CLOSE-WAIT,")),
        "{page}"
    );
    assert!(page.contains("check\\x1bout"), "{page}");
    let ended = page.lines().last().unwrap_or_default().trim_start();
    assert_eq!(ended, "after 40 min", "{page}");

    let curve = quiet(&format!(
        "history tcp.close-wait --since 1h --state-dir {at}"
    ));
    assert!(curve.starts_with("tcp.close-wait\n55 │"), "{curve}");
    assert!(curve.contains("measured 12 times"), "{curve}");
    assert!(!curve.contains("close-wait-leak"), "{curve}");
    let findings = quiet(&format!("history findings --since 1h --state-dir {at}"));
    assert_eq!(findings.matches("close-wait-leak").count(), 3, "{findings}");
    assert_eq!(
        findings,
        quiet(&format!(
            "history close-wait-stale --since 1h --state-dir {at}"
        ))
    );
    let nothing = quiet(&format!("history listen-overflow --state-dir {at}"));
    assert!(
        nothing.starts_with("nothing was kept between "),
        "{nothing}"
    );
}

#[test]
fn programs_read_it_too() {
    let scratch = tempfile::tempdir().unwrap();
    kept(scratch.path());
    let at = scratch.path().display();
    let document = json(&format!("history --json --since 2h --state-dir {at}"));
    let measures = document["measures"].as_array().unwrap();
    let leaked = measures
        .iter()
        .find(|measure| measure["name"] == "tcp.close-wait")
        .unwrap();
    let points = leaked["points"].as_array().unwrap();
    assert_eq!(points.len(), 13, "{leaked}");
    assert_eq!(
        (&points[0]["value"], &points[0]["boot"]),
        (&7.0.into(), &0.into())
    );
    assert_eq!(
        (&points[12]["value"], &points[12]["boot"]),
        (&55.0.into(), &1.into())
    );
    let changes = document["transitions"].as_array().unwrap();
    assert_eq!(changes.len(), 3);
    assert_eq!(
        (&changes[1]["from"], &changes[1]["to"]),
        (&"warning".into(), &"critical".into())
    );
    assert!(changes[2]["to"].is_null());

    let table = quiet(&format!("history tcp.* --csv --since 1h --state-dir {at}"));
    let mut rows = csv::Reader::from_reader(table.as_bytes());
    assert_eq!(
        rows.headers().unwrap(),
        &csv::StringRecord::from(vec!["taken", "measure", "value", "boot"])
    );
    assert_eq!(rows.records().map(Result::unwrap).count(), 24);
    let changes = quiet(&format!(
        "history findings --csv --since 1h --state-dir {at}"
    ));
    let mut rows = csv::Reader::from_reader(changes.as_bytes());
    let last = rows.records().map(Result::unwrap).last().unwrap();
    assert_eq!(
        (&last[1], &last[3], &last[4]),
        ("close-wait-leak", "critical", "")
    );
}

#[test]
fn what_is_not_there_is_said() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().display().to_string();
    fails(
        &format!("history --state-dir {at}"),
        1,
        "there is no history in",
        "linger check",
    );
    fails(
        &format!("history --state-dir {at}/none"),
        1,
        "there is no history in",
        "--state-dir",
    );
    kept(scratch.path());
    fails(
        &format!("history tcp.close-wiat --state-dir {at}"),
        2,
        "'tcp.close-wiat'",
        "did you mean 'tcp.close-wait'?",
    );
    fails(
        &format!("history --since soon --state-dir {at}"),
        2,
        "--since",
        "--help",
    );
    fails(
        &format!("history --since 1h --until 2h --state-dir {at}"),
        2,
        "--since",
        "so long ago",
    );
    fails(
        &format!("history --netns all --state-dir {at}"),
        2,
        "each network namespace",
        "--netns",
    );
    fails(
        "history --from tests/data/v1.linger",
        2,
        "a capture has no history",
        "linger watch --from",
    );
    let both = run(&format!("history --csv --json --state-dir {at}"));
    assert_eq!(both.code, Some(2), "{both:?}");
}
