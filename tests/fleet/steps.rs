//! What has to hold, one after the other; the count of sockets rests for as long as nothing but this runs.

use std::collections::BTreeSet;

use linger::analyze::detectors::ALL;

use crate::programs::Programs;
use crate::scene::{self, Scene};
use crate::stored::Stored;

/// Where the exporter of full view is scraped.
const HERE: &str = "job=\"linger\",instance=\"127.0.0.1:9995\"";
/// Where the exporter without privileges is scraped.
const NOBODY: &str = "job=\"linger\",instance=\"127.0.0.1:9996\"";
/// Where a capture is scraped.
const REPLAY: &str = "job=\"linger\",instance=\"127.0.0.1:9997\"";

pub fn counts_are_those_of_the_kernel(stored: &mut Stored, scene: &Scene) {
    for family in ["ipv4", "ipv6"] {
        for state in scene::STATES {
            let expr =
                format!("linger_tcp_sockets{{{HERE},family=\"{family}\",state=\"{state}\"}}");
            stored.until(&expr, |value| value == scene.count(family, state) as f64);
        }
    }
    for (state, at_least) in scene::MADE {
        let made = scene.count("ipv4", state) + scene.count("ipv6", state);
        assert!(made >= *at_least, "the scene lost its {state}: {made}");
    }
}

pub fn node_exporter_counts_the_same(stored: &mut Stored) {
    let own = "node_tcp_connection_states{job=\"node\",state!~\".x_queued_bytes\"}";
    let recorded = format!("node_tcp_connection_states{{{HERE}}}");
    stored.until(&format!("count({own})"), |states| states >= 9.0);
    // In one query, because the kernel gives up on some of them after a minute.
    let agrees = format!("count({recorded} == on (state) {own}) == bool count({own})");
    stored.until(&agrees, |agrees| agrees == 1.0);
    // Those that node_exporter leaves out are 0 here, and none is missing.
    stored.until(&format!("count({recorded})"), |value| value == 11.0);
    stored.until(
        &format!("sum({recorded} unless on (state) {own})"),
        |value| value == 0.0,
    );
    let success = "node_scrape_collector_success{collector=\"tcpstat\"}";
    stored.until(&format!("count({success} == 1)"), |value| value == 4.0);
}

pub fn every_state_is_stored_for_both_families(stored: &mut Stored) {
    let count = format!("count(linger_tcp_sockets{{{HERE}}})");
    stored.until(&count, |value| value == 24.0);
    let zero = format!("sum(linger_tcp_sockets{{{HERE},state=~\"closing|close\"}})");
    stored.until(&zero, |value| value == 0.0);
}

pub fn listeners_are_stored_with_their_queues(stored: &mut Stored, scene: &Scene) {
    let port = scene.full.port();
    let of = |metric: &str| format!("{metric}{{{HERE},port=\"{port}\"}}");
    let backlog = f64::from(scene::BACKLOG);
    stored.until(&of("linger_listener_backlog"), |value| value == backlog);
    // The kernel takes one more than it was told.
    let full = |value| value == backlog + 1.0;
    stored.until(&of("linger_listener_accept_queue"), full);
    stored.until(&of("linger_listener_drops_total"), |value| value >= 1.0);
}

pub fn findings_are_stored(stored: &mut Stored) {
    // Drops come and go as the refused client tries again, and the worse of the two with them.
    let stuck = format!(
        "sum(linger_finding_active{{{HERE},id=~\"accept-queue-stuck|listen-overflow\",severity=~\"warning|critical\"}})"
    );
    stored.until(&stuck, |findings| findings >= 1.0);
    let quiet = format!("sum(linger_finding_active{{{HERE},id=\"retransmit-storm\"}})");
    stored.until(&quiet, |findings| findings == 0.0);
    // What is not judged is said to be so, and no detector is missing.
    let judged = stored.labels(&format!("linger_finding_active{{{HERE}}}"), "id");
    let unknown = stored.labels(&format!("linger_finding_unknown{{{HERE}}} == 1"), "id");
    let ids: BTreeSet<String> = ALL.iter().map(|detector| detector.id.to_owned()).collect();
    let said: BTreeSet<String> = judged.union(&unknown).cloned().collect();
    assert_eq!(said, ids);
}

pub fn units_are_stored(stored: &mut Stored) {
    let of = |state: &str| {
        format!("linger_unit_sockets{{{REPLAY},unit=\"example.service\",state=\"{state}\"}}")
    };
    stored.until(&of("close_wait"), |sockets| sockets == 2.0);
    stored.until(&of("syn_sent"), |sockets| sockets == 0.0);
}

pub fn a_partial_view_says_so(stored: &mut Stored) {
    stored.until(&format!("linger_source_up{{{NOBODY}}}"), |up| up == 1.0);
    let complete = format!("linger_source_complete{{{NOBODY}}}");
    stored.until(&complete, |complete| complete == 0.0);
    let unreadable = format!("linger_unreadable_processes{{{NOBODY}}}");
    stored.until(&unreadable, |processes| processes >= 1.0);
    // Listing takes no privilege.
    let sockets = |labels: &str| format!("sum(linger_tcp_sockets{{{labels}}})");
    let same = format!("{} == bool {}", sockets(HERE), sockets(NOBODY));
    stored.until(&same, |same| same == 1.0);
}

pub fn the_rules_are_loaded_and_evaluated(stored: &mut Stored) {
    let answer = stored.get("/api/v1/rules");
    let groups = answer["data"]["groups"].as_array().unwrap();
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    let (mut count, mut alerts) = (0, BTreeSet::new());
    for rule in rules {
        count += 1;
        assert_eq!(rule["health"], "ok", "{rule}");
        for alert in rule["alerts"].as_array().into_iter().flatten() {
            let name = rule["name"].as_str().unwrap().to_owned();
            alerts.insert((name, alert["state"].as_str().unwrap().to_owned()));
        }
    }
    assert!(count > ALL.len(), "{count} rules");
    let pending = |name: &str| (name.to_owned(), "pending".to_owned());
    let queue = ["LingerAcceptQueueStuck", "LingerListenOverflow"];
    let told = |name: &&str| alerts.contains(&pending(name));
    assert!(queue.iter().any(told), "{alerts:?}");
    assert!(
        alerts.contains(&pending("LingerSourceIncomplete")),
        "{alerts:?}"
    );
    assert!(
        !alerts.contains(&pending("LingerRetransmitStorm")),
        "{alerts:?}"
    );
}

pub fn the_textfile_is_stored(stored: &mut Stored) {
    let node = "job=\"node\"";
    let error = format!("node_textfile_scrape_error{{{node}}}");
    stored.until(&error, |error| error == 0.0);
    let count = format!("count(linger_tcp_sockets{{{node}}})");
    stored.until(&count, |value| value == 24.0);
    let up = format!("linger_source_up{{{node}}}");
    stored.until(&up, |up| up == 1.0);
    let written = format!("node_textfile_mtime_seconds{{{node},file=~\".*/linger.prom\"}}");
    stored.until(&written, |written| written > 0.0);
}

pub fn nothing_is_left_of_an_exporter_that_ended(stored: &mut Stored, programs: &mut Programs) {
    let status = programs.end_the_exporter();
    assert_eq!(status.code(), Some(0), "SIGTERM ends it cleanly: {status}");
    stored.until(&format!("up{{{HERE}}}"), |up| up == 0.0);
    let series = format!("count({{__name__=~\"linger_.*\",{HERE}}}) or vector(0)");
    stored.until(&series, |series| series == 0.0);
}
