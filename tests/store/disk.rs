//! Disks that are full or cannot be written.

use std::fs;
use std::path::Path;
use std::process::Command;

use linger::history::store::{Error, NAME, Options, Run, Store};

use super::support::*;

/// Runs one test again in a mount namespace of its own, after a command of the shell in which `$DIR` is `dir`.
fn within(test: &str, dir: &Path, mount: &str) {
    let child = again(test, dir.to_str().unwrap());
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let script = format!("set -e; {mount}; exec \"$@\"");
    command
        .args(["--mount", "sh", "-c", &script, "sh"])
        .arg(child.get_program())
        .args(child.get_args())
        .env(ROLE, dir)
        .env("DIR", dir);
    let output = command.output();
    let (ran, said) = match &output {
        Ok(output) => {
            let said = [&output.stdout[..], &output.stderr[..]].concat();
            (
                output.status.success(),
                String::from_utf8_lossy(&said).into_owned(),
            )
        }
        Err(error) => (
            false,
            format!("unshare: {error} (apt-get install util-linux)"),
        ),
    };
    // Where no namespace may be made there is nothing to see; in continuous integration there has to be one.
    let refused = output.is_err() || said.contains("unshare failed") || said.contains("mount: ");
    if refused && std::env::var_os("CI").is_none_or(|ci| ci != "true") {
        eprintln!("not run: {said}");
        return;
    }
    assert!(ran, "{said}");
}

#[test]
fn a_full_disk_stops_the_history_and_nothing_else() {
    let Some(dir) = role() else {
        let dir = tempfile::tempdir().unwrap();
        let mount = "mount -t tmpfs -o size=1m tmpfs \"$DIR\"";
        let test = "disk::a_full_disk_stops_the_history_and_nothing_else";
        return within(test, dir.path(), mount);
    };
    let dir = Path::new(&dir);
    // It is small, so others have too little left already.
    let refused = Store::open(dir, Options::default()).unwrap_err();
    assert!(matches!(refused, Error::NearlyFull { .. }), "{refused}");
    assert!(!dir.join(NAME).exists());

    let filler = dir.join("filler");
    fs::write(&filler, vec![1; 500_000]).unwrap();
    let mut store = open(dir);
    let place = place(1);
    let values: Vec<(String, f64)> = (0..500).map(|i| (format!("m.{i}"), 1.5)).collect();
    let mut written = 0;
    let error = loop {
        let run = Run {
            values: &values,
            ..run(written * 10)
        };
        match store.write(&place, &run) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 10_000);
    };
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(written > 5 && error.hint().is_some());
    let kept = |store: &Store| super::support::values(store, "m.3", &place).len();
    assert_eq!(
        kept(&store) as i64,
        written,
        "what was acknowledged is there"
    );
    fs::remove_file(filler).unwrap();
    let more = Run {
        values: &values,
        ..run(written * 10)
    };
    store.write(&place, &more).unwrap();
    drop(store);
    assert_eq!(kept(&open(dir)) as i64, written + 1);
    assert_eq!(set_aside(dir), 0);
}

#[test]
fn what_cannot_be_written_can_be_read() {
    let Some(dir) = role() else {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a b?%");
        fs::create_dir(&state).unwrap();
        let sample = sample(7);
        let run = Run {
            values: &[("m".to_owned(), 2.5)],
            sample: Some(&sample),
            ..run(0)
        };
        open(&state).write(&place(1), &run).unwrap();
        let mount = "mount --bind \"$DIR\" \"$DIR\"; mount -o remount,ro,bind \"$DIR\"";
        return within("disk::what_cannot_be_written_can_be_read", &state, mount);
    };
    let dir = Path::new(&dir);
    let error = Store::open(dir, options()).unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    assert!(error.hint().is_some());
    let mut store = Store::open_to_read(dir).unwrap().unwrap();
    assert_eq!(values(&store, "m", &place(1)), [2.5]);
    assert_eq!(store.samples(&place(1), at(0), 0).unwrap()[0].bound, [7]);
    let error = store.write(&place(1), &run(60)).unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    assert_eq!(set_aside(dir), 0);
}
