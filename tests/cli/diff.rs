//! `linger diff`: what a deploy changed, by two recordings of it.

use std::fs;

use serde_json::Value;

use crate::support::*;

const BEFORE: &str = "tests/data/deploy-before.linger";
const AFTER: &str = "tests/data/deploy-after.linger";

fn diff(more: &str) -> Said {
    run(&format!("diff {BEFORE} {AFTER} {more}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn a_person_reads_what_the_deploy_changed() {
    let said = diff("");
    assert_eq!(said.code, Some(0), "{said:?}");
    for line in [
        "web-7   2026-11-23 ",
        "CRITICAL  listen-overflow",
        "  new      tcp  127.0.0.1:9090  limit 16         checkout[49]",
        "  gone     udp  127.0.0.1:8125                   checkout[47]",
        "  again    tcp  127.0.0.1:8080  limit 128 -> 16  checkout[47] -> checkout[49]",
        "  changed  tcp  0.0.0.0:8443    queue 0 -> 17    nginx[44]",
        "  CLOSE-WAIT               0         13        +13",
        "  checkout[47 -> 49]: 4 -> 14; CLOSE-WAIT 0 -> 10;",
        "  net.ipv4.tcp_fin_timeout  60 -> 15",
        "  TcpExt.ListenOverflows      +6    1.8/s",
        "new: 38 ESTABLISHED, 10 FIN-WAIT-2, 10 CLOSE-WAIT, 3 SYN-SENT",
        "  and 41 more sockets: --all",
        "changed: 6 in another state",
        "next           linger diagnose --from tests/data/deploy-after.linger",
    ] {
        assert!(said.out.contains(line), "{line}: {}", said.out);
    }
    let wide = |line: &&str| line.chars().count() > 80;
    assert_eq!(said.out.lines().filter(wide).count(), 0, "{}", said.out);
    let all = diff("--all").out;
    assert!(all.lines().count() > said.out.lines().count() + 41 && !all.contains("--all"));
}

#[test]
fn a_script_reads_the_same() {
    let document = json(&format!("diff {BEFORE} {AFTER} --json"));
    assert_eq!(document["compared_by"], "cookie");
    assert_eq!(document["states"]["tcp"]["close-wait"]["after"], 13);
    let listeners = &document["listeners"];
    let ports = |key: &str| -> Vec<u64> {
        let all = list(&listeners[key]).iter();
        let after = all.map(|one| one.get("after").unwrap_or(one));
        after.filter_map(|one| one["local_port"].as_u64()).collect()
    };
    assert_eq!(
        (ports("new"), ports("gone"), ports("changed")),
        (vec![9090], vec![8125], vec![8080, 8443])
    );
    let what = &list(&listeners["changed"])[0]["what"];
    assert_eq!(what, &serde_json::json!(["reopened", "limit", "owners"]));
    let sockets = &document["sockets"];
    assert_eq!(
        (
            list(&sockets["new"]).len(),
            list(&sockets["gone"]).len(),
            list(&sockets["changed"]).len()
        ),
        (61, 0, 6)
    );
    let overflows = list(&document["counters"])
        .iter()
        .find(|one| one["name"] == "TcpExt.ListenOverflows");
    let overflows = overflows.unwrap();
    assert_eq!(
        (&overflows["change"], &overflows["reset"]),
        (&6.into(), &false.into())
    );
    assert!(
        overflows["per_second"]
            .as_f64()
            .is_some_and(|rate| (1.0..3.0).contains(&rate))
    );
    let new = list(&document["findings"]["new"]);
    assert_eq!(new[0]["id"], "listen-overflow");
}

#[test]
fn a_filter_selects_by_what_was_and_by_what_is() {
    let changed = |filter: &str| {
        let document = json(&format!("diff {BEFORE} {AFTER} --json {filter}"));
        let counts = ["new", "gone", "changed"].map(|key| list(&document["sockets"][key]).len());
        // The numbers stay those of all.
        assert_eq!(document["protocols"]["tcp"]["after"], 71, "{filter}");
        (counts, list(&document["listeners"]["changed"]).len())
    };
    assert_eq!(changed("state close-wait"), ([10, 0, 3], 0), "as they are");
    assert_eq!(
        changed("state established and dport = 6379"),
        ([2, 0, 3], 0),
        "as they were"
    );
    assert_eq!(changed("state listen and process = nginx"), ([0, 0, 0], 1));
    assert_eq!(changed("state time-wait"), ([0, 0, 0], 0));
    let said = diff("state closing");
    for part in [
        "sockets that fit the filter",
        "listeners that fit the filter",
    ] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
}

#[test]
fn nothing_changed_is_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy.linger").display().to_string();
    fs::copy(AFTER, &copy).unwrap();
    let said = run(&format!("diff {AFTER} {copy}"));
    let told: Vec<&str> = said
        .out
        .lines()
        .filter(|line| !line.starts_with([' ', 'n']))
        .collect();
    assert!(
        matches!(told[..], [head, "unchanged      everything: 71 sockets as before"] if head.ends_with("71 TCP sockets")),
        "{said:?}"
    );
    let document = json(&format!("diff {AFTER} {copy} --json"));
    for key in ["processes", "settings", "counters"] {
        assert_eq!(document[key], Value::Array(Vec::new()), "{key}");
    }
    assert_eq!(document["sockets"]["same"], 67);
}

#[test]
fn the_older_one_last_is_said_and_nothing_is_swapped() {
    let said = run(&format!("diff {AFTER} {BEFORE}"));
    assert!(
        said.out.contains("older than the first") && said.out.contains(" BACK"),
        "{said:?}"
    );
    assert!(said.out.contains("gone: 38 ESTABLISHED") && !said.out.contains("reset\n"));
    let document = json(&format!("diff {AFTER} {BEFORE} --json"));
    assert!(document["elapsed_ms"].as_i64().is_some_and(|ms| ms < 0));
    assert_eq!(document["apart"], Value::Array(Vec::new()));
    let rates = list(&document["counters"])
        .iter()
        .filter(|one| !one["per_second"].is_null());
    assert_eq!(rates.count(), 0);
}

#[test]
fn captures_of_other_machines_and_without_cookies_are_compared_as_far_as_that_goes() {
    // Two hosts.
    let document = json(&format!("diff {CAPTURE} {AFTER} --json"));
    assert_eq!(
        (&document["compared_by"], &document["apart"][0]),
        (&"none".into(), &"other-host".into())
    );
    assert_eq!(document["sockets"]["new"], Value::Array(Vec::new()));
    assert!(document.get("counters").is_none() && document.get("settings").is_some());
    let said = run(&format!("diff {CAPTURE} {AFTER}"));
    for part in [
        "example -> web-7",
        "these are two hosts, example and web-7",
        "they do not count the same",
    ] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    // Those of /proc have no cookies, those of ss no settings and owners.
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy").display().to_string();
    for (capture, by) in [
        ("tests/data/v1-procfs.linger", "address"),
        ("tests/data/ss-6.1.dump", "cookie"),
    ] {
        fs::copy(capture, &copy).unwrap();
        let document = json(&format!("diff {capture} {copy} --json"));
        assert_eq!(
            (&document["compared_by"], &document["sockets"]["changed"]),
            (&by.into(), &Value::Array(Vec::new()))
        );
    }
    let said = run(&format!("diff tests/data/v1-procfs.linger {copy}"));
    assert!(said.out.contains("settings       not compared"), "{said:?}");
    fs::copy("tests/data/v1-procfs.linger", &copy).unwrap();
    let said = run(&format!("diff tests/data/v1-procfs.linger {copy}"));
    assert!(said.out.contains("is less sure"), "{said:?}");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let two = format!("{BEFORE} {AFTER}");
    for (line, code, what, hint) in [
        (
            format!("diff {BEFORE}"),
            2,
            "holds one look",
            "two captures",
        ),
        (
            format!("diff {BEFORE} ./{BEFORE}"),
            2,
            "holds one look",
            "two captures",
        ),
        (
            format!("diff {BEFORE} no.linger"),
            1,
            "no.linger",
            "A and B",
        ),
        (
            format!("diff {BEFORE} Cargo.toml"),
            1,
            "not a capture",
            "linger record FILE",
        ),
        (
            format!("diff {two} --from {BEFORE}"),
            2,
            "--from",
            "BEFORE.linger",
        ),
        (
            format!("diff {two} --netns blue"),
            2,
            "--netns",
            "BEFORE.linger",
        ),
        (
            format!("diff {two} --collector procfs"),
            2,
            "--collector",
            "BEFORE.linger",
        ),
        (
            format!("--proc-root {PROC} diff {two}"),
            2,
            "--proc-root",
            "BEFORE.linger",
        ),
        ("diff".to_owned(), 2, "<A>", "diff --help"),
    ] {
        fails(&line, code, what, hint);
    }
    let said = diff("stat established");
    assert_eq!((said.code, &said.out[..]), (Some(2), ""), "{said:?}");
}
