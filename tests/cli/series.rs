//! Sequences of looks: recorded from a copy of `/proc`, and read whole or torn.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::*;

const SERIES: &str = "tests/data/v1-series.linger";
/// A limit that four sockets within seconds pass.
const SOON: &str =
    "--only close-wait-leak --threshold close-wait-leak.age=1s --threshold close-wait-leak.min=2";

fn finding(line: &str) -> Value {
    let document = json(line);
    let found = document["findings"].as_array().cloned().unwrap_or_default();
    found.first().cloned().unwrap_or_default()
}

fn evidence(finding: &Value, name: &str) -> Option<f64> {
    let all = finding["evidence"].as_array()?;
    all.iter().find(|one| one["name"] == name)?["value"].as_f64()
}

#[test]
fn the_last_look_is_judged_with_those_before_it() {
    let of = |more: &str| finding(&format!("diagnose --json --from {SERIES} {SOON} {more}"));
    let all = of("");
    assert_eq!(all["id"], "close-wait-leak");
    assert_eq!(evidence(&all, "close_wait_sockets"), Some(4.0));
    let growth = evidence(&all, "growth").unwrap_or_default();
    assert!((55.0..61.0).contains(&growth), "one a second: {growth}");
    // Three looks show that it grows, and two do not.
    let rose = |finding: &Value| {
        finding["explanation"]
            .to_string()
            .contains("rose from 2 to 4")
    };
    assert!(rose(&all) && rose(&of("--samples 3")));
    assert!(!rose(&of("--samples 2")));
    assert_eq!(
        evidence(&of("--samples 1"), "close_wait_sockets"),
        Some(4.0)
    );
    assert_eq!(of("--samples 99"), all);
    assert!(finding(&format!("status --json --from {SERIES} {SOON}"))["title"].is_string());
}

#[test]
fn every_command_reads_the_last_look_and_the_head_says_which() {
    for line in ["status", "diagnose", "8080"] {
        let shown = run(&format!("{line} --from {SERIES}"));
        assert_eq!(shown.code, Some(0), "{line}: {shown:?}");
        let head = shown.out.lines().next().unwrap_or_default();
        assert!(head.contains("captured 20"), "{line}: {head}");
        assert!(head.ends_with("frame 4 of 4"), "{line}: {head}");
    }
    let plain = run(&format!("status --from {CAPTURE}")).out;
    assert!(!plain.contains("frame"), "{plain}");
    let rows = quiet(&format!("list -H state close-wait --from {SERIES}"));
    assert_eq!(rows.lines().count(), 4, "{rows}");
    assert_eq!(
        run(&format!("explain close-wait --from {SERIES}")).code,
        Some(0)
    );
    assert_ne!(
        run(&format!("kill state close-wait --yes --from {SERIES}")).code,
        Some(0)
    );
}

fn cut(directory: &Path, length: usize) -> String {
    let path = directory.join("cut.linger");
    let whole = fs::read(SERIES).unwrap();
    fs::write(&path, &whole[..length.min(whole.len())]).unwrap();
    path.display().to_string()
}

#[test]
fn a_torn_frame_is_left_out_and_said_in_every_format() {
    let directory = tempfile::tempdir().unwrap();
    let whole = fs::metadata(SERIES).unwrap().len() as usize;
    let file = cut(directory.path(), whole - 100);
    let torn = "the file ends within a frame";
    for line in ["status", "diagnose", "list -a", "8080"] {
        let shown = run(&format!("{line} --from {file}"));
        assert_eq!(shown.code, Some(0), "{line}: {shown:?}");
        assert!(shown.err.contains(torn), "{line}: {shown:?}");
        if line != "list -a" {
            assert!(shown.out.contains("frame 3 of 3"), "{line}: {shown:?}");
        }
        let said = run(&format!("{line} --json --from {file}"));
        let document: Value = serde_json::from_str(&said.out).unwrap_or_default();
        assert_eq!(document["complete"], true, "{line}: {document}");
        let warnings = document["warnings"].to_string();
        assert!(warnings.contains(torn), "{line}: {warnings}");
    }
    assert!(
        run(&format!("list -a --output csv --from {file}"))
            .err
            .contains(torn)
    );
    // Without END! only, nothing is missing.
    let file = cut(directory.path(), whole - 28);
    assert!(quiet(&format!("status --from {file}")).contains("frame 4 of 4"));
    // Without one whole frame there is nothing to read.
    let file = cut(directory.path(), 2000);
    fails(
        &format!("status --from {file}"),
        1,
        "cut off",
        "copy it again",
    );
    // Another look than the last one that is damaged is an error where it is read.
    let mut damaged = fs::read(SERIES).unwrap();
    let at = damaged.windows(4).position(|tag| tag == b"OWNR").unwrap();
    damaged[at + 40] ^= 1;
    fs::write(&file, damaged).unwrap();
    fails(&format!("diagnose --from {file}"), 1, "OWNR", "whole");
    assert!(quiet(&format!("list -a --from {file}")).contains("CLOSE-WAIT"));
}

#[test]
fn a_sequence_is_recorded_until_it_is_over_or_full() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.linger");
    let file = path.display().to_string();
    let record = format!("record --proc-root {PROC} {file} --interval 20ms");
    let said = run(&format!("{record} --for 200ms"));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.out.contains(" frames in ") && said.out.contains(" late; 45 sockets"),
        "{said:?}"
    );
    assert!(
        said.out
            .ends_with(&format!("linger diagnose --from {file}\n")),
        "{said:?}"
    );
    let live = run(&format!("list -tanpo --proc-root {PROC}")).out;
    assert_eq!(run(&format!("list -tanpo --from {file}")).out, live);

    fails(&format!("{record} --for 1s"), 1, "exists", "--force");
    let before = fs::metadata(&path).unwrap().len();
    let full = json(&format!(
        "{record} --force --json --max-size {}",
        before * 2 / 3
    ));
    assert_eq!(full["ended"], "max-size");
    let size = fs::metadata(&path).unwrap().len();
    assert_eq!(full["size_bytes"], size);
    assert!(size <= before * 2 / 3);
    let frames = &full["frames"];
    let head = run(&format!("status --from {file}")).out;
    assert!(
        head.contains(&format!("frame {frames} of {frames}")),
        "{head}"
    );
    let said = run(&format!("{record} --force --max-size {}", before * 2 / 3));
    assert!(
        said.code == Some(0) && said.out.contains("larger than --max-size"),
        "{said:?}"
    );

    let kept = fs::read(&path).ok();
    fails(
        &format!("{record} --force --max-size 9KiB"),
        1,
        "9,216 bytes",
        "--max-size 100MiB",
    );
    assert_eq!(fs::read(&path).ok(), kept, "what was there stays");
    let nowhere = directory
        .path()
        .join("missing/b.linger")
        .display()
        .to_string();
    let line = format!("record {nowhere} --interval 1s --proc-root {PROC}");
    fails(&line, 1, &nowhere, "directory");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn what_is_about_a_sequence_wants_one() {
    for (line, named, hint) in [
        ("record x.linger --for 10m", "--for", "--interval 1s"),
        (
            "record x.linger --max-size 1G",
            "--max-size",
            "--interval 1s",
        ),
        ("record x.linger --interval 0s", "--interval", "between 1ms"),
        (
            "record x.linger --interval 1s --max-size 0",
            "--max-size",
            "100MiB",
        ),
        (
            "record x.linger --interval 1s --max-size 5parsecs",
            "5parsecs",
            "100MiB",
        ),
    ] {
        let said = run(line);
        assert_eq!(said.code, Some(2), "{line}: {said:?}");
        assert!(
            said.err.contains(named) && said.err.contains(hint),
            "{line}: {said:?}"
        );
    }
    assert!(!Path::new("x.linger").exists());
}

/// `/dev/full` is no regular file; a limit on the size of files is what can be had without a disk of one's own.
#[test]
fn what_was_recorded_before_a_failure_stays_readable() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.linger").display().to_string();
    let line = format!(
        "trap '' XFSZ; ulimit -f 200; exec {} record {file} --interval 10ms --proc-root {PROC}",
        env!("CARGO_BIN_EXE_linger")
    );
    let said = said(assert_cmd::Command::new("bash").args(["-c", &line]));
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains("cannot write") && said.err.contains("before that"),
        "{said:?}"
    );
    let head = run(&format!("status --from {file}"));
    assert!(
        head.code == Some(0) && head.out.contains("frame "),
        "{head:?}"
    );
    assert!(!head.err.contains("within a frame"), "{head:?}");
}
