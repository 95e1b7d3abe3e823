//! Captures, the tables of /proc, and files that are neither.

use std::fs;

use serde_json::Value;

use crate::support::*;

#[test]
fn the_tables_of_proc_are_a_source_and_it_is_said() {
    let said = run(&format!("list -a --json --proc-root {PROC}"));
    assert_eq!(said.code, Some(0));
    assert!(
        said.err.starts_with("note: read from /proc/net, because ")
            && said.err.lines().count() == 1,
        "{said:?}"
    );
    let document = json(&format!("list -a --json --proc-root {PROC}"));
    assert_eq!(
        (&document["collector"], &document["host"]),
        (&"procfs".into(), &"web-7".into())
    );
    assert_eq!(document["complete"], true);
    assert!(
        document["warnings"][0]
            .as_str()
            .is_some_and(|warning| warning.contains("no tcp_info"))
    );
    let sockets = document["sockets"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    assert_eq!(sockets.len(), 45);
    assert!(
        sockets.iter().all(|socket| socket.get("cookie").is_none()),
        "unknown is absent"
    );
    let queue = |socket: &Value| {
        (socket["local_port"] == 8082 && socket["state"] == "listen")
            .then(|| socket["send_q"].clone())
    };
    assert!(
        sockets
            .iter()
            .filter_map(queue)
            .all(|limit| limit == 0 || limit.is_null())
    );
    // Asked for, it is no fallback.
    let chosen = run(&format!("list -a --collector procfs --proc-root {PROC}"));
    assert_eq!(
        (chosen.code, chosen.out.lines().count()),
        (Some(0), 46),
        "{chosen:?}"
    );
}

#[test]
fn a_capture_of_proc_says_what_it_could_not_know() {
    let said = run("status --json --from tests/data/v1-procfs.linger");
    let document: Value = serde_json::from_str(&said.out).unwrap_or_default();
    assert_eq!(
        (said.code, &document["collector"]),
        (Some(0), &"file".into())
    );
    assert!(said.err.contains("because EPERM"), "{said:?}");
    assert_eq!(document["states"]["tcp"]["time-wait"], 2);
    assert_eq!(
        document["unknown"][0]["id"], "close-wait-leak",
        "{document}"
    );
    assert!(
        document["states"]["tcp"]["bound-inactive"].is_null(),
        "that table cannot show them"
    );
    let listeners = json("list -l --json --from tests/data/v1-procfs.linger");
    let limits: Vec<_> = listeners["sockets"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|socket| &socket["send_q"])
        .collect();
    assert_eq!(
        limits,
        [&Value::Null; 2],
        "a limit that is unknown is not 0"
    );
    let named = json("diagnose --only close-wait-leak --json --from tests/data/v1-procfs.linger");
    assert_eq!(named["verdict"], "unknown");
}

#[test]
fn netlink_beside_a_foreign_proc_root_is_partial() {
    let said = run(&format!(
        "status --json --collector netlink --proc-root {PROC}"
    ));
    if said.code == Some(1) {
        assert!(
            said.err.contains("hint: --collector auto"),
            "no sock_diag here: {said:?}"
        );
        return;
    }
    let document: Value = serde_json::from_str(&said.out).unwrap_or_default();
    assert_eq!(said.code, Some(0));
    assert_eq!(
        (&document["collector"], &document["complete"]),
        (&"netlink".into(), &false.into())
    );
    assert!(said.err.starts_with("note: not read: owners"), "{said:?}");
}

#[test]
fn what_is_no_capture_is_refused_with_the_place() {
    fails("--from /no/such/file", 1, "/no/such/file", "linger record");
    fails(
        "diagnose --from Cargo.toml",
        1,
        "not a capture",
        "linger record",
    );
    fails("list --from src", 1, "directory", "file");
    fails(
        "--proc-root /no/such/root",
        1,
        "/no/such/root",
        "--proc-root",
    );
    let whole = fs::read(CAPTURE).unwrap_or_default();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.linger");
    let bad = path.display().to_string();
    for length in [1, 8, 20, 100, 1000, 10_000, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        fails(
            &format!("diagnose --json --from {bad}"),
            1,
            &format!("cut off at byte {length}"),
            "copy it again",
        );
    }
    for place in (16..whole.len()).step_by(1_511) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x40;
        fs::write(&path, &bytes).unwrap();
        fails(&format!("diagnose --from {bad}"), 1, "at byte ", "");
    }
    // Rows are streamed: what stood before the damage is there, and the document closes and says so.
    let mut bytes = whole.clone();
    bytes[1_500] ^= 0x40;
    fs::write(&path, &bytes).unwrap();
    let said = run(&format!("list -a --json --from {bad}"));
    assert_eq!(said.code, Some(1), "{said:?}");
    let document: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(document["sockets"].as_array().map(Vec::len), Some(6));
    assert_eq!(document["complete"], false);
    let warning = document["warnings"][0].as_str();
    assert!(warning.is_some_and(|text| text.contains("at byte 1073")));
    assert!(said.err.contains("\nhint: "), "{said:?}");
}

#[test]
fn a_namespace_is_looked_into_on_this_machine_alone() {
    for (line, hint) in [
        (
            "list --netns blue --from tests/data/v1.linger",
            "record FILE --netns",
        ),
        ("status --netns all --from x.linger", "record FILE --netns"),
        (
            "list --netns 1 --proc-root tests/data/proc",
            "the one network namespace that it was made in",
        ),
        (
            "diagnose --netns all --proc-root tests/data/proc",
            "the one network namespace",
        ),
        ("record x.linger --netns all", "name one"),
        (
            "443 --netns all",
            "linger list -a 'sport = 443 or dport = 443'",
        ),
        ("explain --netns all --socket state listen", "name one"),
    ] {
        let said = run(line);
        assert_eq!(said.code, Some(2), "{line}: {said:?}");
        assert!(said.err.contains("--netns"), "{line}: {said:?}");
        assert!(said.err.contains(hint), "{line}: {said:?}");
    }
    let said = run("list --netns no-such-namespace-here");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("ip netns list"), "{said:?}");
}
