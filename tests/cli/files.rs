//! What is written: recordings, completions, manual pages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use predicates::prelude::*;
use serde_json::Value;

use crate::support::*;

#[test]
fn a_recording_is_private_kept_and_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.linger");
    let file = path.display().to_string();
    let record = format!("record {file} --proc-root {PROC}");
    let said = run(&record);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.out.starts_with(&format!("{file}: 45 sockets, ")),
        "{said:?}"
    );
    assert!(
        said.out
            .ends_with(&format!("linger diagnose --from {file}\n")),
        "{said:?}"
    );
    let mode = |path: &Path| fs::metadata(path).map(|file| file.permissions().mode() & 0o777);
    assert_eq!(mode(&path).ok(), Some(0o600));

    let live = run(&format!("list -tanpo --proc-root {PROC}")).out;
    assert_eq!(run(&format!("list -tanpo --from {file}")).out, live);
    let document = json(&format!("status --json --from {file}"));
    assert_eq!(
        (&document["host"], &document["collector"]),
        (&"web-7".into(), &"file".into())
    );

    let before = fs::read(&path).ok();
    fails(&record, 1, "exists", "--force");
    assert_eq!(fs::read(&path).ok(), before, "it is untouched");
    fs::write(&path, "something else").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let forced = run(&format!("{record} --force --json"));
    let document: Value = serde_json::from_str(&forced.out).unwrap_or_default();
    assert_eq!(
        (&document["schema"], &document["sockets"]),
        (&"linger.record/1".into(), &45.into())
    );
    assert_eq!(mode(&path).ok(), Some(0o600));
    assert_eq!(run(&format!("list -tanpo --from {file}")).out, live);

    let nowhere = directory
        .path()
        .join("missing/b.linger")
        .display()
        .to_string();
    fails(
        &format!("record {nowhere} --proc-root {PROC}"),
        1,
        &nowhere,
        "directory",
    );
    let left: Vec<_> = fs::read_dir(directory.path())
        .map(|files| files.flatten().collect())
        .unwrap_or_default();
    assert_eq!(left.len(), 1, "nothing is left behind: {left:?}");
}

#[test]
fn shells_are_served() {
    for shell in ["bash", "zsh", "fish"] {
        linger(&["completions", shell])
            .assert()
            .success()
            .stdout(
                predicate::str::contains("diagnose").and(
                    predicate::str::contains("--from").or(predicate::str::contains("-l from")),
                ),
            )
            .stderr("");
    }
}

#[test]
fn manual_pages_are_written() {
    let page = quiet("man");
    assert!(page.contains(".TH LINGER 8 "), "{page}");
    assert_eq!(quiet("man linger"), page);
    let list = quiet("man list");
    assert!(
        list.contains(".TH LINGER-LIST 8 ") && list.contains(".SH \"EXAMPLES\""),
        "{list}"
    );
    let directory = tempfile::tempdir().unwrap();
    quiet(&format!("man --dir {}", directory.path().display()));
    let mut names: Vec<String> = fs::read_dir(directory.path())
        .map(|files| {
            files
                .flatten()
                .map(|file| file.file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    let commands = [
        "completions",
        "diagnose",
        "explain",
        "kill",
        "list",
        "man",
        "record",
        "status",
    ];
    for command in commands {
        assert!(names.contains(&format!("linger-{command}.8")), "{names:?}");
    }
    assert!(
        names.contains(&"linger.8".to_owned()) && names.contains(&"linger-findings.7".to_owned())
    );
    assert_eq!(
        fs::read_to_string(directory.path().join("linger-list.8")).ok(),
        Some(list)
    );
    fails(
        "man --dir /no/such/directory",
        1,
        "/no/such/directory",
        "directory",
    );
}
