//! linger among others: a real Prometheus scrapes a real `linger export` and a real node_exporter, with the rules and
//! the scrape configuration of `contrib/`, in a network namespace whose sockets are known; then Prometheus is asked what
//! it has stored. Needs root, `ip`, `setpriv`, and Debian's `prometheus` and `prometheus-node-exporter`; where they are
//! missing it is skipped, which `CI` turns into a failure.
//!
//! * `scene`: sockets in many states, and what the kernel's own tables say of them.
//! * `programs`: the programs that are started, and end with the test.
//! * `http`: as much of HTTP as the questions take.
//! * `stored`: what Prometheus answers.
//! * `dashboard`: the queries of the dashboard.
//! * `sys`: a namespace of its own.

#[path = "fleet/dashboard.rs"]
mod dashboard;
#[path = "fleet/http.rs"]
mod http;
#[path = "fleet/programs.rs"]
mod programs;
#[path = "fleet/scene.rs"]
mod scene;
#[path = "fleet/stored.rs"]
mod stored;
#[path = "fleet/sys.rs"]
mod sys;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use linger::analyze::detectors::ALL;

use crate::programs::{Programs, Site, missing};
use crate::scene::Scene;
use crate::stored::Stored;

/// Nothing takes so long on a machine that is not ill: a scrape is due every second.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_real_prometheus_stores_what_linger_tells_and_node_exporter_agrees() {
    if let Some(how) = missing() {
        assert!(std::env::var_os("CI").is_none(), "{how}");
        eprintln!("skipped: {how}");
        return;
    }
    sys::enter_a_network_namespace().unwrap();
    let scene = Scene::open();
    let site = Site::new();
    let mut programs = Programs::start(&site);
    let mut stored = Stored::connect();

    counts_are_those_of_the_kernel(&mut stored, &scene);
    node_exporter_counts_the_same(&mut stored);
    every_state_is_stored_for_both_families(&mut stored);
    listeners_are_stored_with_their_queues(&mut stored, &scene);
    findings_are_stored(&mut stored);
    units_are_stored(&mut stored);
    a_partial_view_says_so(&mut stored);
    the_rules_are_loaded_and_evaluated(&mut stored);
    the_textfile_is_stored(&mut stored);
    dashboard::every_query_has_data(&mut stored);
    nothing_is_left_of_an_exporter_that_ended(&mut stored, &mut programs);
}

/// Where the exporter of full view is scraped.
const HERE: &str = "job=\"linger\",instance=\"127.0.0.1:9995\"";
/// Where the exporter without privileges is scraped.
const NOBODY: &str = "job=\"linger\",instance=\"127.0.0.1:9996\"";
/// Where a capture is scraped.
const REPLAY: &str = "job=\"linger\",instance=\"127.0.0.1:9997\"";

fn counts_are_those_of_the_kernel(stored: &mut Stored, scene: &Scene) {
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

fn node_exporter_counts_the_same(stored: &mut Stored) {
    let own = "node_tcp_connection_states{job=\"node\",state!~\".x_queued_bytes\"}";
    let recorded = format!("node_tcp_connection_states{{{HERE}}}");
    let states = stored.until(&format!("count({own})"), |value| value >= 9.0);
    stored.until(&format!("count({recorded} == on (state) {own})"), |value| {
        value == states
    });
    // Those that node_exporter leaves out are 0 here, and none is missing.
    stored.until(&format!("count({recorded})"), |value| value == 11.0);
    stored.until(
        &format!("sum({recorded} unless on (state) {own})"),
        |value| value == 0.0,
    );
    let success = "node_scrape_collector_success{collector=\"tcpstat\"}";
    stored.until(&format!("count({success} == 1)"), |value| value == 4.0);
}

fn every_state_is_stored_for_both_families(stored: &mut Stored) {
    let count = format!("count(linger_tcp_sockets{{{HERE}}})");
    stored.until(&count, |value| value == 24.0);
    let zero = format!("sum(linger_tcp_sockets{{{HERE},state=~\"closing|close\"}})");
    stored.until(&zero, |value| value == 0.0);
}

fn listeners_are_stored_with_their_queues(stored: &mut Stored, scene: &Scene) {
    let port = scene.full.port();
    let of = |metric: &str| format!("{metric}{{{HERE},port=\"{port}\"}}");
    let backlog = f64::from(scene::BACKLOG);
    stored.until(&of("linger_listener_backlog"), |value| value == backlog);
    // The kernel takes one more than it was told.
    let full = |value| value == backlog + 1.0;
    stored.until(&of("linger_listener_accept_queue"), full);
    stored.until(&of("linger_listener_drops_total"), |value| value >= 1.0);
}

fn findings_are_stored(stored: &mut Stored) {
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

fn units_are_stored(stored: &mut Stored) {
    let of = |state: &str| {
        format!("linger_unit_sockets{{{REPLAY},unit=\"example.service\",state=\"{state}\"}}")
    };
    stored.until(&of("close_wait"), |sockets| sockets == 2.0);
    stored.until(&of("syn_sent"), |sockets| sockets == 0.0);
}

fn a_partial_view_says_so(stored: &mut Stored) {
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

fn the_rules_are_loaded_and_evaluated(stored: &mut Stored) {
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

fn the_textfile_is_stored(stored: &mut Stored) {
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

fn nothing_is_left_of_an_exporter_that_ended(stored: &mut Stored, programs: &mut Programs) {
    let status = programs.end_the_exporter();
    assert_eq!(status.code(), Some(0), "SIGTERM ends it cleanly: {status}");
    stored.until(&format!("up{{{HERE}}}"), |up| up == 0.0);
    let series = format!("count({{__name__=~\"linger_.*\",{HERE}}}) or vector(0)");
    stored.until(&series, |series| series == 0.0);
}

/// The lines of a file under `contrib/`.
fn contrib(name: &str) -> String {
    let path = format!("{}/contrib/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}
