//! JSON: the envelope, and what each document holds.

use serde_json::Value;

use crate::support::*;

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .map(|object| object.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

#[test]
fn every_document_has_the_envelope_of_its_capture() {
    let table = [
        ("status", "linger.status/1"),
        ("list -a", "linger.sockets/1"),
        ("list --group-by state", "linger.groups/1"),
        ("diagnose", "linger.findings/1"),
        ("8080", "linger.subject/1"),
        ("explain", "linger.explain/1"),
        ("explain close-wait", "linger.explain/1"),
        ("explain handshake", "linger.explain/1"),
        ("explain --socket state close-wait", "linger.explain/1"),
        ("explain close-wait-leak", "linger.explain/1"),
    ];
    for (line, schema) in table {
        let document = json(&from(&format!("{line} --json")));
        assert_eq!(document["schema"], schema, "{line}");
        // Not the time of reading, nor this machine.
        assert_eq!(
            document["generated_at"], "2026-11-23T11:04:12.769Z",
            "{line}"
        );
        assert_eq!(document["host"], "example", "{line}");
        assert_eq!(document["netns"], 4_026_532_177_u64, "{line}");
        assert_eq!(document["collector"], "file", "{line}");
        assert_eq!(document["complete"], true, "{line}");
        assert_eq!(document["warnings"], Value::Array(Vec::new()), "{line}");
    }
}

#[test]
fn status_counts_every_state_zeros_included() {
    let document = json(&from("status --json"));
    let states = &document["states"]["tcp"];
    assert_eq!(keys(states).len(), STATES.len());
    for state in STATES {
        let expected = match state {
            "established" => 4,
            "listen" | "fin-wait-2" | "close-wait" | "time-wait" => 2,
            _ => 0,
        };
        assert_eq!(states[state], expected, "{state}");
    }
    assert_eq!(document["protocols"]["tcp"], 12);
    assert_eq!(document["verdict"], "ok");
    let top = &document["top"];
    assert_eq!(top["processes"][0]["comm"], "example");
    assert_eq!(top["processes"][0]["sockets"], 10);
    assert_eq!(top["listeners"][0]["accept_queue_limit"], 16);
    assert_eq!(top["peers"][0]["address"], "127.0.0.1");
    let without = json(&from("status --json --no-owners"));
    assert_eq!(without["top"]["processes"], Value::Array(Vec::new()));
}

#[test]
fn a_socket_has_what_was_asked_for() {
    let always = "protocol family state local_address local_port peer_address peer_port recv_q send_q uid inode \
        cookie timer";
    let table = [
        ("", ""),
        (
            "-i",
            "state_age_ms state_age_at_least waiting_on congestion tcp_info",
        ),
        ("-m", "memory"),
        ("-p", "owners"),
        (
            "-e",
            "mark cgroup unit cgroup_id shutdown sockopt tos class_id",
        ),
    ];
    for (option, more) in table {
        let document = json(&from(&format!("list --json -4 {option} state established")));
        let mut expected: Vec<&str> = always.split(' ').chain(more.split_whitespace()).collect();
        expected.sort_unstable();
        let mut found = keys(&document["sockets"][0]);
        found.sort_unstable();
        assert_eq!(found, expected, "{option}");
    }
}

#[test]
fn a_socket_has_numbers_for_ports_and_strings_for_ids() {
    let document = json(&from("list --json -4 -pie state close-wait"));
    let socket = &document["sockets"][0];
    assert_eq!(
        (&socket["local_port"], &socket["peer_port"]),
        (&8080.into(), &40_002.into())
    );
    assert_eq!(
        (&socket["state"], &socket["family"]),
        (&"close-wait".into(), &"ipv4".into())
    );
    assert_eq!(socket["cookie"], "0x53b0");
    assert_eq!(socket["cgroup_id"], "1");
    assert_eq!(socket["unit"], "example.service");
    assert_eq!(socket["timer"], Value::Null);
    assert_eq!(socket["owners"][0]["pid"], 4242);
    assert_eq!(socket["tcp_info"]["last_data_recv_ms"], 304);
    assert!(socket["tcp_info"].get("last_data_recv").is_none());
}

#[test]
fn time_wait_has_no_user_and_says_why_it_has_no_owner() {
    let document = json(&from("list --json -p4 state time-wait"));
    let socket = &document["sockets"][0];
    assert!(socket.get("uid").is_none(), "{socket}");
    assert_eq!(socket["owners"], Value::Array(Vec::new()));
    assert_eq!(socket["timer"]["name"], "time-wait");
    assert_eq!(socket["timer"]["expires_ms"], 59_696);
}

#[test]
fn a_list_can_be_streamed() {
    let text = quiet(&from("list -a --json"));
    let place = |key: &str| {
        text.find(&format!("\"{key}\":"))
            .unwrap_or_else(|| panic!("{key}"))
    };
    assert!(place("collector") < place("sockets"));
    assert!(place("sockets") < place("complete") && place("complete") < place("warnings"));
    for line in ["list -a --output jsonl", "list -a --json --output jsonl"] {
        let lines = quiet(&from(line));
        assert_eq!(lines.lines().count(), 12, "{line}");
        for line in lines.lines() {
            let socket: Value = serde_json::from_str(line).unwrap();
            assert!(
                socket.get("state").is_some() && socket.get("schema").is_none(),
                "{line}"
            );
        }
    }
    assert_eq!(quiet(&from("list -a --output json")), text);
    assert_eq!(quiet(&from("state closing --output jsonl")), "");
    let empty = json(&from("state closing --json"));
    assert_eq!(empty["sockets"], Value::Array(Vec::new()));
}

#[test]
fn findings_name_what_was_quiet_and_judge_by_name() {
    let all = json(&from("diagnose --json"));
    let ids = all["quiet"].as_array().map_or(0, Vec::len);
    let detectors = linger::analyze::detectors::ALL.len();
    assert_eq!((all["verdict"].as_str(), ids), (Some("ok"), detectors - 5));
    // The capture is of a child namespace, and from before these were captured.
    let unknown = all["unknown"].as_array().into_iter().flatten();
    let unknown: Vec<&Value> = unknown.map(|unknown| &unknown["id"]).collect();
    let open = [
        "conntrack-near-full",
        "host-receive-drops",
        "closed-fd-leak",
        "udp-rcvbuf-drops",
        "unix-backlog-full",
    ];
    assert_eq!(unknown, open);
    for key in ["findings", "muted"] {
        assert_eq!(all[key], Value::Array(Vec::new()), "{key}");
    }
    let one = json(&from(
        "diagnose --json --only close-wait-stale,time-wait-flood --skip time-wait-flood",
    ));
    assert_eq!(
        one["quiet"],
        serde_json::json!(["close-wait-leak"]),
        "an alias is the finding"
    );
    // A limit that anything exceeds makes the same capture fire.
    let line = from("--json --threshold close-wait-leak.age=0.1 --threshold close-wait-leak.min=1");
    let status = json(&line);
    let finding = &status["findings"][0];
    assert_eq!(finding["id"], "close-wait-leak", "{status}");
    assert_eq!(finding["who_must_act"], "this-program");
    assert_eq!(finding["subject"]["pid"], 4242);
    assert_eq!(finding["sockets"][0]["state"], "close-wait");
    assert!(finding["evidence"][0].get("value").is_some(), "{finding}");
    assert!(
        finding["advice"]
            .as_array()
            .is_some_and(|advice| advice.len() <= 3)
    );
    assert!(
        finding["grounds"][0]
            .as_str()
            .is_some_and(|ground| ground.starts_with("TCP state in OS"))
    );
}

#[test]
fn the_same_capture_gives_the_same_bytes() {
    for line in [
        "diagnose --json",
        "diagnose",
        "status",
        "list -tanpioem",
        "8080 --json",
    ] {
        assert_eq!(quiet(&from(line)), quiet(&from(line)), "{line}");
    }
}
