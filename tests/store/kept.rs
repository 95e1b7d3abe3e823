//! What is kept, of whom, and for how long.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use linger::history::store::{NAME, Options, Place, Producer, Run, Store};
use linger::model::Severity;

use super::support::*;

#[test]
fn findings_come_change_and_go_once() {
    use Severity::{Critical, Info, Warning};
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let place = place(1);
    let mut tell = |second, producer, findings: &[_], judged: &[&str]| {
        let run = Run {
            producer,
            findings,
            judged,
            ..run(second)
        };
        short(&store.write(&place, &run).unwrap())
    };
    let leak = |severity| finding("leak", "process a", severity);
    let none: [String; 0] = [];
    let (check, export) = (Producer::Check, Producer::Export);
    let judged = ["leak", "flood"];
    assert_eq!(
        tell(0, check, &[leak(Info)], &judged),
        ["leak process a - info"]
    );
    assert_eq!(tell(1, check, &[leak(Info)], &judged), none, "no news");
    // Of several about one subject the worst counts.
    let both = [leak(Info), leak(Critical), leak(Warning)];
    assert_eq!(
        tell(2, check, &both, &judged),
        ["leak process a info critical"]
    );
    // Another one tells its own reader what is new to that one.
    assert_eq!(
        tell(3, export, &[leak(Critical)], &judged),
        ["leak process a - critical"]
    );
    assert_eq!(tell(4, export, &[], &judged), ["leak process a critical -"]);
    // Who could not judge ends nothing.
    assert_eq!(tell(5, check, &[], &["flood"]), none);
    assert_eq!(tell(6, check, &[], &judged), ["leak process a critical -"]);
    let all = store.transitions(at(0), Some(&place)).unwrap();
    assert_eq!(
        short(&all),
        [
            "leak process a - info",
            "leak process a info critical",
            "leak process a critical -"
        ],
        "the machine's own story has each turn once"
    );
    assert_eq!(all[2].taken, at(4));
    assert_eq!(store.transitions(at(3), None).unwrap().len(), 1);
    assert!(store.active(&place).unwrap().is_empty());
}

#[test]
fn what_is_active_is_known_with_since_when() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let place = place(1);
    for second in [0, 60] {
        let findings = [
            finding("a", "host", Severity::Info),
            finding("b", "host", Severity::Critical),
        ];
        let run = Run {
            findings: &findings,
            judged: &["a", "b"],
            ..run(second)
        };
        store.write(&place, &run).unwrap();
    }
    let active = store.active(&place).unwrap();
    let ids: Vec<_> = active
        .iter()
        .map(|(found, since)| (&found.id[..], *since))
        .collect();
    assert_eq!(ids, [("b", at(0)), ("a", at(0))]);
}

#[test]
fn another_boot_and_another_namespace_are_other_places() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let rebooted = Place {
        boot_id: "other".to_owned(),
        ..place(1)
    };
    let sample = sample(5);
    for (n, place) in [place(1), place(u64::MAX), rebooted.clone()]
        .iter()
        .enumerate()
    {
        let told = Run {
            values: &[("m".to_owned(), n as f64)],
            sample: Some(&sample),
            ..run(n as i64)
        };
        assert!(
            store.samples(place, at(-99), 0).unwrap().is_empty(),
            "not seen before"
        );
        store.write(place, &told).unwrap();
    }
    assert_eq!(values(&store, "m", &place(u64::MAX)), [1.0]);
    assert_eq!(values(&store, "m", &rebooted), [2.0]);
    assert_eq!(store.samples(&rebooted, at(-99), 0).unwrap().len(), 1);
    let all = store.series("m", at(0), at(9), None).unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(store.names().unwrap(), ["m"]);
}

#[test]
fn runs_within_ten_seconds_keep_values_once_and_findings_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for second in [0, 9, 10, 15, 20] {
        let sample = sample(second as u64);
        let told = Run {
            values: &[
                ("m".to_owned(), second as f64),
                ("nan".to_owned(), f64::NAN),
            ],
            sample: Some(&sample),
            complete: second != 10,
            ..run(second)
        };
        store.write(&place(1), &told).unwrap();
    }
    assert_eq!(values(&store, "m", &place(1)), [0.0, 10.0, 20.0]);
    assert_eq!(values(&store, "nan", &place(1)), [0.0; 0]);
    let series = store.series("m", at(0), at(20), None).unwrap();
    assert_eq!(series[0].points.len(), 2, "until is not included");
    assert_eq!(store.samples(&place(1), at(10), 0).unwrap().len(), 2);
}

#[test]
fn looks_for_a_few_detectors_are_kept_apart_and_of_a_few_views() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let mut keep = |second, view, cookie| {
        let told = Run {
            sample: Some(&sample(cookie)),
            view,
            ..run(second)
        };
        store.write(&place(1), &told).unwrap();
    };
    // Spaced by themselves, and none of them is in the way of another.
    for (second, view, cookie) in [(0, 0, 1), (1, 7, 2), (2, 8, 3), (3, 7, 4), (20, 7, 5)] {
        keep(second, view, cookie);
    }
    let seen = |store: &Store, view| -> Vec<u64> {
        let samples = store.samples(&place(1), at(0), view).unwrap();
        samples.iter().map(|sample| sample.bound[0]).collect()
    };
    keep(21, u64::MAX, 6);
    assert_eq!(seen(&store, 7), [1, 2, 5]);
    assert_eq!(seen(&store, 8), [1, 3]);
    assert_eq!(seen(&store, 0), [1]);
    assert_eq!(seen(&store, u64::MAX), [1, 6]);
    for view in 10..26 {
        let told = Run {
            sample: Some(&sample(view)),
            view,
            ..run(100 + view as i64)
        };
        store.write(&place(1), &told).unwrap();
    }
    // The view that has waited longest gives way, the whole one never.
    assert_eq!(seen(&store, 7), [1]);
    assert_eq!(
        (seen(&store, 10), seen(&store, 25)),
        (vec![1, 10], vec![1, 25])
    );
}

#[test]
fn looks_are_thinned_and_none_is_older_than_two_hours() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for n in 0..1000 {
        let sample = sample(n as u64);
        let told = Run {
            sample: Some(&sample),
            ..run(n * 15)
        };
        store.write(&place(1), &told).unwrap();
    }
    let samples = store.samples(&place(1), Timestamp::MIN, 0).unwrap();
    let taken: Vec<i64> = samples
        .iter()
        .map(|s| s.taken.as_second() - BEGAN)
        .collect();
    assert!(taken.is_sorted() && taken.len() == 24, "{taken:?}");
    assert!(taken.ends_with(&[999 * 15 - 30, 999 * 15 - 15, 999 * 15]));
    let reach = 999 * 15 - taken[0];
    assert!((1800..=7200).contains(&reach), "{reach}");
    assert!(
        samples
            .iter()
            .all(|s| s.bound[0] as i64 * 15 + BEGAN == s.taken.as_second())
    );
}

#[test]
fn a_clock_that_is_set_back_leaves_no_look_of_the_future() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for second in [86_400, 86_500, 0, 300] {
        let sample = sample(second as u64);
        let told = Run {
            values: &[("m".to_owned(), second as f64)],
            findings: &[finding("x", "host", Severity::Info)],
            judged: &["x"],
            sample: Some(&sample),
            ..run(second)
        };
        let changes = store.write(&place(1), &told).unwrap();
        assert_eq!(changes.len(), usize::from(second == 86_400));
    }
    let samples = store.samples(&place(1), Timestamp::MIN, 0).unwrap();
    let cookies: Vec<u64> = samples.iter().map(|sample| sample.bound[0]).collect();
    assert_eq!(cookies, [0, 300]);
    assert_eq!(
        values(&store, "m", &place(1)),
        [0.0, 300.0, 86_400.0, 86_500.0]
    );
}

#[test]
fn the_old_is_thinned_out_and_the_file_stays_small() {
    const MOST: u64 = 2 << 20;
    // Where there is one, on a file system in memory.
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let options = Options {
        max_bytes: MOST,
        synchronous: false,
        ..options()
    };
    let (mut store, _) = Store::open(dir.path(), options).unwrap();
    let size = |end: &str| {
        let path = dir.path().join(format!("{NAME}{end}"));
        fs::metadata(path).map_or(0, |metadata| metadata.len())
    };
    let values: Vec<(String, f64)> = (0..3).map(|i| (format!("m.{i}"), 1.5)).collect();
    // Every ten seconds for eleven days.
    let last = 100_000;
    for n in 0..last {
        let told = Run {
            values: &values,
            ..run(n * 10)
        };
        store.write(&place(1), &told).unwrap();
        if n % 100 == 0 {
            let all = size("") + size("-wal");
            assert!(all <= MOST + (256 << 10), "{all} bytes after {n} runs");
        }
    }
    assert_eq!(store.messages(), Vec::<String>::new());
    let series = store
        .series("m.1", Timestamp::MIN, Timestamp::MAX, None)
        .unwrap();
    let taken: Vec<i64> = series[0]
        .points
        .iter()
        .map(|p| p.taken.as_second())
        .collect();
    let now = BEGAN + last * 10;
    assert!(now - taken[0] > 10 * 86_400, "{}", now - taken[0]);
    let after = |age: i64| taken.iter().filter(|t| now - **t < age).count();
    assert!(after(86_400) >= 8639, "a day is kept as it was");
    for pair in taken.windows(3) {
        let age = now - 3600 - pair[2];
        let least = [(7 * 86_400, 1800), (86_400, 300)];
        if let Some((_, least)) = least.iter().find(|(from, _)| age > *from) {
            assert!(pair[2] - pair[0] >= *least, "{pair:?} at {age} s");
        }
    }
}

#[test]
fn the_oldest_goes_when_there_is_too_much() {
    const MOST: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        max_bytes: MOST,
        synchronous: false,
        keep: Duration::from_secs(3600),
        ..options()
    };
    let (mut store, _) = Store::open(dir.path(), options).unwrap();
    let values: Vec<(String, f64)> = (0..400).map(|i| (format!("m.{i}"), 1.5)).collect();
    for n in 0..400 {
        let found = [finding(
            "x",
            &format!("n {n} {}", "long ".repeat(60)),
            Severity::Info,
        )];
        let told = Run {
            values: &values,
            findings: &found,
            judged: &["x"],
            ..run(n * 10)
        };
        store.write(&place(1), &told).unwrap();
    }
    let size = fs::metadata(dir.path().join(NAME)).unwrap().len();
    assert!(size <= MOST, "{size}");
    let series = store.series("m.1", at(0), Timestamp::MAX, None).unwrap();
    let points = &series[0].points;
    assert!(
        points[0].taken > at(600) && points.len() > 30,
        "{}",
        points.len()
    );
    assert_eq!(points[points.len() - 1].taken, at(3990));
    assert!(!store.transitions(at(0), None).unwrap().is_empty());
    // After the time that they are kept nothing is left of them.
    store.write(&place(1), &run(40_000)).unwrap();
    assert!(
        store
            .series("m.1", at(0), Timestamp::MAX, None)
            .unwrap()
            .is_empty()
    );
    let told = store.transitions(at(0), None).unwrap();
    assert!(told.is_empty(), "{}", told.len());
}
