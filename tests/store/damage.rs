//! Files that are not as they were written, or were written by others.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use linger::history::store::{Error, NAME, Run, Store};
use rusqlite::Connection;

use super::support::*;

/// A history of some size, closed.
fn some(dir: &Path) {
    let mut store = open(dir);
    let values: Vec<(String, f64)> = (0..100).map(|i| (format!("m.{i}"), 1.5)).collect();
    for n in 0..200 {
        let sample = sample(7);
        let run = Run {
            values: &values,
            sample: Some(&sample),
            ..run(n * 10)
        };
        store.write(&place(1), &run).unwrap();
    }
}

fn sql(dir: &Path, statements: &str) {
    let connection = Connection::open(dir.join(NAME)).unwrap();
    connection.execute_batch(statements).unwrap();
}

/// Opens it, which sets the file aside and says why; the new one works.
fn begins_anew(dir: &Path) -> String {
    let before = set_aside(dir);
    let (mut store, messages) = Store::open(dir, options()).unwrap();
    let [message] = &messages[..] else {
        panic!("{messages:?}");
    };
    assert!(message.contains("a new one is begun"), "{message}");
    assert_eq!(set_aside(dir), before + 1);
    let run = Run {
        values: &[("m".to_owned(), 1.0)],
        ..run(0)
    };
    store.write(&place(1), &run).unwrap();
    assert_eq!(values(&store, "m", &place(1)), [1.0]);
    message.clone()
}

#[test]
fn what_is_no_history_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    fs::write(
        &path,
        "not a database, but longer than its head would be".repeat(9),
    )
    .unwrap();
    assert!(begins_anew(dir.path()).contains("not a database"));

    for change in [
        "PRAGMA application_id = 1",
        "CREATE TABLE more (x)",
        "CREATE TRIGGER t AFTER INSERT ON run BEGIN DELETE FROM run; END",
        "DROP TABLE sample; CREATE VIEW sample AS SELECT 1 AS seq",
    ] {
        let dir = tempfile::tempdir().unwrap();
        some(dir.path());
        sql(dir.path(), change);
        assert!(matches!(
            Store::open_to_read(dir.path()),
            Err(Error::Damaged { .. })
        ));
        begins_anew(dir.path());
    }
    let dir = tempfile::tempdir().unwrap();
    sql(dir.path(), "CREATE TABLE theirs (x)");
    assert!(begins_anew(dir.path()).contains("another program's"));
    // An empty file is one that was begun and not made yet.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(NAME), "").unwrap();
    assert!(Store::open_to_read(dir.path()).unwrap().is_none());
    open(dir.path());
}

#[test]
fn a_file_that_was_cut_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    some(dir.path());
    let file = OpenOptions::new()
        .write(true)
        .open(dir.path().join(NAME))
        .unwrap();
    file.set_len(file.metadata().unwrap().len() * 6 / 10)
        .unwrap();
    begins_anew(dir.path());
}

#[test]
fn damage_in_the_middle_is_found_when_it_is_met() {
    let dir = tempfile::tempdir().unwrap();
    some(dir.path());
    let file = OpenOptions::new()
        .write(true)
        .open(dir.path().join(NAME))
        .unwrap();
    let length = file.metadata().unwrap().len();
    let mut noise = 88_172_645_463_325_252u64;
    for page in (2 * 4096..length).step_by(4096) {
        let mut bytes = [0; 512];
        for byte in &mut bytes {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            *byte = noise as u8;
        }
        file.write_all_at(&bytes, page).unwrap();
    }
    drop(file);
    let mut messages = Vec::new();
    let (mut store, said) = Store::open(dir.path(), options()).unwrap();
    messages.extend(said);
    let _ = store.samples(&place(1), at(0), 0);
    let _ = store.series("*", at(0), at(9999), None);
    let _ = (
        store.names(),
        store.transitions(at(0), None),
        store.active(&place(1)),
    );
    for n in 0..2 {
        let run = Run {
            values: &[("m".to_owned(), 1.0)],
            ..run(4000 + n * 10)
        };
        store.write(&place(1), &run).unwrap();
    }
    messages.extend(store.messages());
    assert_eq!(
        (messages.len(), set_aside(dir.path())),
        (1, 1),
        "{messages:?}"
    );
    assert_eq!(values(&store, "m", &place(1)), [1.0, 1.0]);
}

#[test]
fn a_log_that_was_cut_loses_its_end_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for n in 0..5 {
        let run = Run {
            values: &[("m".to_owned(), n as f64)],
            ..run(n * 10)
        };
        store.write(&place(1), &run).unwrap();
    }
    // As a machine leaves it that loses its power.
    let other = tempfile::tempdir().unwrap();
    for end in ["", "-wal"] {
        let name = format!("{NAME}{end}");
        fs::copy(dir.path().join(&name), other.path().join(&name)).unwrap();
    }
    drop(store);
    let log = OpenOptions::new()
        .write(true)
        .open(other.path().join(format!("{NAME}-wal")))
        .unwrap();
    log.set_len(log.metadata().unwrap().len() - 2000).unwrap();
    let kept = values(&open(other.path()), "m", &place(1));
    assert_eq!(kept, [0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn the_history_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    some(dir.path());
    sql(
        dir.path(),
        "PRAGMA user_version = 99; CREATE TABLE more (x)",
    );
    let before = fs::read(dir.path().join(NAME)).unwrap();
    let error = Store::open(dir.path(), options()).unwrap_err();
    assert!(matches!(error, Error::Newer { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("nothing is kept") && error.hint().is_some());
    assert!(Store::open_to_read(dir.path()).is_err());
    assert_eq!(fs::read(dir.path().join(NAME)).unwrap(), before);
    assert_eq!(set_aside(dir.path()), 0);
}

#[test]
fn values_of_other_kinds_and_sizes_harm_nobody() {
    let reading = |statements: &str| {
        let dir = tempfile::tempdir().unwrap();
        some(dir.path());
        sql(dir.path(), statements);
        let mut store = open(dir.path());
        let _ = store.series("*", jiff::Timestamp::MIN, jiff::Timestamp::MAX, None);
        let _ = (
            store.names(),
            store.transitions(at(0), None),
            store.active(&place(1)),
        );
        let samples = store.samples(&place(1), at(0), 0).unwrap_or_default();
        store.write(&place(1), &run(5000)).unwrap();
        samples.len()
    };
    assert_eq!(reading(""), 24);
    assert_eq!(
        reading(
            "UPDATE sample SET format = 2 WHERE seq IN (SELECT seq FROM sample ORDER BY seq LIMIT 12)"
        ),
        12,
        "of another form"
    );
    assert_eq!(reading("UPDATE sample SET body = zeroblob(5)"), 0);
    assert_eq!(
        reading(
            "UPDATE sample SET body = randomblob(900000) WHERE seq IN (SELECT seq FROM sample ORDER BY seq LIMIT 12)"
        ),
        12
    );
    // It says that it unpacks to four gigabytes.
    assert_eq!(
        reading("UPDATE sample SET body = x'ffffffff00000000ffffffffffff'"),
        0
    );
    assert_eq!(reading("UPDATE run SET taken = 9223372036854775807"), 24);
    assert_eq!(reading("UPDATE run SET taken = -9223372036854775808"), 24);
    assert_eq!(
        reading("UPDATE name SET name = hex(zeroblob(1000000)) WHERE id = 3"),
        24
    );
    assert_eq!(
        reading("UPDATE value SET value = 9e999; UPDATE sample SET taken = 9223372036854775807"),
        24
    );
    let wrong = "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = replace(sql, 'value REAL', 'value TEXT')";
    let dir = tempfile::tempdir().unwrap();
    some(dir.path());
    sql(dir.path(), wrong);
    begins_anew(dir.path());
}

#[test]
fn links_and_directories_are_no_history() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, "precious").unwrap();
    symlink(&elsewhere, dir.path().join(NAME)).unwrap();
    let error = Store::open(dir.path(), options()).unwrap_err();
    assert!(matches!(error, Error::NotAFile { .. }), "{error}");
    assert_eq!(fs::read(&elsewhere).unwrap(), b"precious");
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(NAME)).unwrap();
    assert!(matches!(
        Store::open(dir.path(), options()),
        Err(Error::NotAFile { .. })
    ));
    // The directory itself may be reached through one.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    symlink("real", dir.path().join("link")).unwrap();
    some(&dir.path().join("link"));
    let metadata = fs::metadata(dir.path().join("real").join(NAME)).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
}

#[test]
fn three_damaged_files_are_kept_and_one_that_vanishes_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        fs::write(dir.path().join(NAME), "x".repeat(500)).unwrap();
        fs::write(dir.path().join(format!("{NAME}-wal")), "y").unwrap();
        let (_, messages) = Store::open(dir.path(), options()).unwrap();
        assert_eq!(messages.len(), 1);
        assert!(set_aside(dir.path()) <= 3);
    }
    assert_eq!(set_aside(dir.path()), 3);
    let mut store = open(dir.path());
    fs::remove_file(dir.path().join(NAME)).unwrap();
    let run = Run {
        values: &[("m".to_owned(), 1.0)],
        ..run(0)
    };
    store.write(&place(1), &run).unwrap();
    drop(store);
    assert_eq!(values(&open(dir.path()), "m", &place(1)), [1.0]);
}
