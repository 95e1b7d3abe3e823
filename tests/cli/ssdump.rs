//! `--from` a file that `ss -D` wrote: every command, and what it cannot know.

use std::fs;

use serde_json::Value;

use crate::support::*;

const DUMP: &str = "tests/data/ss-6.1.dump";

/// What a run says, and its document.
fn document(line: &str, file: &str) -> Value {
    let said = run(&format!("{line} --json --from {file}"));
    assert_eq!(said.code, Some(0), "{line}: {said:?}");
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn warnings(document: &Value) -> String {
    document["warnings"].to_string()
}

#[test]
fn every_command_reads_it_and_says_what_it_is() {
    for line in [
        "status",
        "list -a",
        "list --group-by state",
        "diagnose",
        "8080",
        "explain",
        "explain close-wait",
        "explain handshake",
        "explain --socket state close-wait",
    ] {
        let document = document(line, DUMP);
        assert_eq!(document["collector"], "file", "{line}");
        assert_eq!(document["host"], Value::Null, "{line}");
        assert_eq!(document["netns"], Value::Null, "{line}");
        let time = "the time is that of the file's last change";
        assert!(
            line.contains("handshake") || warnings(&document).contains(time),
            "{line}: {document}"
        );
    }
    assert_eq!(run(&format!("status --from {DUMP}")).code, Some(0));
}

#[test]
fn both_halves_are_shown_with_all_that_was_written() {
    let all = document("list -aiem", DUMP);
    let sockets = all["sockets"].as_array().unwrap();
    assert_eq!(sockets.len(), 12);
    let v6 = sockets.iter().filter(|socket| socket["family"] == "ipv6");
    assert_eq!(v6.count(), 6);
    let leaking = sockets
        .iter()
        .find(|socket| socket["state"] == "close-wait");
    let leaking = leaking.unwrap();
    assert_eq!(leaking["local_port"], 8080);
    assert!(leaking["tcp_info"]["rtt_us"].is_number() && leaking["memory"].is_object());
    assert!(leaking.get("owners").is_none());
}

#[test]
fn owners_are_not_known_rather_than_nobody() {
    let owned = document("list -ap", DUMP);
    assert_eq!(owned["complete"], false);
    assert!(warnings(&owned).contains("not read: owners"), "{owned}");
}

#[test]
fn a_state_without_sockets_may_not_have_been_asked_for() {
    let status = document("status", DUMP);
    let states = &status["states"]["tcp"];
    assert_eq!(
        (&states["time-wait"], &states["syn-sent"]),
        (&2.into(), &Value::Null)
    );
    assert_eq!(status["verdict"], "unknown");
    let unknown = status["unknown"].to_string();
    assert!(unknown.contains("no socket is in CLOSING"), "{unknown}");
    for (id, quiet) in [
        ("recv-q-stuck", true),
        ("closing-stuck", false),
        ("listen-overflow", false),
        ("time-wait-flood", false),
        ("fd-limit-near", false),
        ("risky-sysctls", false),
        ("udp-rcvbuf-drops", false),
    ] {
        let listed = status["quiet"].as_array().unwrap().contains(&id.into());
        assert_eq!(listed, quiet, "{id}");
    }
    let closing = document("explain closing", DUMP);
    assert_eq!(closing.get("count"), None, "{closing}");
    let waiting = document("explain time-wait", DUMP);
    assert_ne!(waiting.get("count"), None, "{waiting}");
}

#[test]
fn what_is_torn_is_shown_up_to_there_and_what_is_neither_names_both() {
    let whole = fs::read(DUMP).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("torn");
    let file = path.display().to_string();
    fs::write(&path, &whole[..whole.len() - 30]).unwrap();
    let torn = document("list -a", &file);
    assert_eq!(torn["sockets"].as_array().map(Vec::len), Some(11));
    assert_eq!(torn["complete"], false);
    assert!(warnings(&torn).contains("TCP over IPv6: the recorded dump has no end"));
    assert!(warnings(&torn).contains("1 row could not be decoded"));
    // Without its last end alone.
    fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    let endless = document("list -a", &file);
    assert_eq!(endless["sockets"].as_array().map(Vec::len), Some(12));
    assert!(warnings(&endless).contains("has no end"));
    assert!(!warnings(&endless).contains("decoded"));
    for (bytes, what) in [
        (&b"\x7fELF and more of this"[..], "ss -D"),
        (b"", "is empty"),
    ] {
        fs::write(&path, bytes).unwrap();
        for line in ["status", "list", "diagnose", "explain close-wait"] {
            let line = format!("{line} --from {file}");
            fails(&line, 1, "not a capture of linger", "linger record");
            fails(&line, 1, what, "ss -taiem -D");
        }
    }
}
