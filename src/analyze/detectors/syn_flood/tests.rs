use super::*;
use crate::analyze::Settings;

fn machine(backlog: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(901, "nginx", 50, 1024);
    scenario.listen(process, 443, 0, backlog, 0);
    scenario
}

fn found(scenario: Scenario) -> Option<Finding> {
    let findings = scenario.analyze(&Settings::default()).findings;
    findings
        .into_iter()
        .find(|finding| finding.id == DETECTOR.id)
}

fn severity(scenario: Scenario) -> Option<Severity> {
    found(scenario).map(|finding| finding.severity)
}

/// Everybody of one network, `peers` of them.
fn of_one_network(scenario: &mut Scenario) {
    for socket in &mut scenario.snapshot.sockets {
        if socket.state == TcpState::SynReceived {
            socket.remote = Endpoint::v4([203, 0, 113, 7], socket.remote.port);
        }
    }
}

fn finish(scenario: &mut Scenario, n: u16, network: u8) {
    for i in 0..n {
        let peer = Endpoint::v4([203, 0, network, (i % 250) as u8], 2000 + i);
        let socket = scenario.socket(TcpState::Established, Endpoint::v4(HERE, 443), peer);
        let socket = scenario.held_by(0, socket);
        scenario.push(socket, &[("last_data_sent_ms", 10)]);
    }
}

#[test]
fn half_of_the_queue_counts_once_it_has_lasted() {
    assert_eq!(severity(example(9)), None);
    let finding = found(example(10)).unwrap();
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(finding.variant, None);
    assert_eq!(
        finding.title,
        "nginx[901] :443: 10 handshakes unfinished, room for 20, oldest 2.0 s"
    );
    let mut burst = machine(20);
    handshakes(&mut burst, 10, 0, 700);
    let finding = found(burst).unwrap();
    assert_eq!(
        (finding.severity, finding.one_sample),
        (Severity::Info, true)
    );
}

#[test]
fn a_full_queue_that_drops_is_critical_and_with_cookies_clients_get_in() {
    let full = |cookies: &str, moved: &[(&str, i64)]| {
        let mut scenario = machine(20);
        scenario.sysctl("net/ipv4/tcp_syncookies", cookies);
        handshakes(&mut scenario, 21, 0, 700);
        scenario.pulse(moved, |_| {});
        found(scenario).unwrap()
    };
    let finding = full("1", &[("TcpExt.SyncookiesSent", 500)]);
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.explanation.contains("clients still get in"));
    let finding = full("0", &[("TcpExt.TCPReqQFullDrop", 500)]);
    assert_eq!(finding.severity, Severity::Critical);
    assert!(
        finding.title.ends_with("500 dropped in 1.0 s"),
        "{}",
        finding.title
    );
    assert_eq!(full("0", &[]).severity, Severity::Warning);
}

#[test]
fn without_cookies_the_last_quarter_of_max_syn_backlog_is_reserved() {
    let with = |n, dropped| {
        let mut scenario = machine(4096);
        scenario.sysctl("net/ipv4/tcp_syncookies", "0");
        scenario.sysctl("net/ipv4/tcp_max_syn_backlog", "64");
        handshakes(&mut scenario, n, 0, 700);
        scenario.pulse(&[("TcpExt.ListenDrops", 9)], |l| l.drops = Some(dropped));
        severity(scenario)
    };
    assert_eq!(
        with(49, 9),
        Some(Severity::Critical),
        "only the listener's drops move"
    );
    assert_eq!(with(48, 9), Some(Severity::Info));
}

#[test]
fn a_few_stuck_ones_are_the_noise_of_the_internet() {
    let stuck = |n| {
        let mut scenario = machine(4096);
        handshakes(&mut scenario, n, 2, 4_000);
        scenario
    };
    assert_eq!(severity(stuck(9)), None);
    assert_eq!(severity(stuck(10)), Some(Severity::Warning));
    let mut busy = stuck(20);
    finish(&mut busy, 2_000, 1);
    assert_eq!(severity(busy), Some(Severity::Info), "of 2,000 connections");
    let mut young = machine(4096);
    handshakes(&mut young, 40, 1, 1_000);
    assert_eq!(severity(young), None, "2 s");
}

#[test]
fn clients_that_defer_accept_waits_for_have_finished() {
    let mut scenario = machine(20);
    handshakes(&mut scenario, 20, 0, 4_000);
    assert_eq!(severity(scenario), None);
}

#[test]
fn one_network_that_finishes_nothing_is_not_a_flood() {
    let mut scenario = machine(4096);
    handshakes(&mut scenario, 12, 2, 4_000);
    of_one_network(&mut scenario);
    finish(&mut scenario, 5, 1);
    scenario.pulse(
        &[("TcpExt.IPReversePathFilter", 3), ("Conntrack.invalid", 4)],
        |_| {},
    );
    let finding = found(scenario.clone()).unwrap();
    assert_eq!(finding.variant, Some("handshake-incomplete"));
    assert_eq!(
        (finding.severity, finding.who_must_act),
        (Severity::Warning, Actor::Network)
    );
    assert!(
        finding.title.contains("from 203.0.113.0/24"),
        "{}",
        finding.title
    );
    assert!(
        finding
            .explanation
            .contains("while 5 connections from other networks")
    );
    assert!(finding.advice[0].starts_with("ip route get 203.0.113.7"));
    let names: Vec<_> = finding.evidence.iter().map(|e| e.name).collect();
    assert!(names.contains(&"reverse_path_filtered") && names.contains(&"invalid_to_conntrack"));
    finish(&mut scenario, 1, 113);
    assert_eq!(
        found(scenario).unwrap().variant,
        None,
        "one of them came through"
    );
}

#[test]
fn handshakes_of_another_address_are_not_this_listeners() {
    let mut scenario = example(10);
    scenario.snapshot.sockets[0].local = Endpoint::v4([192, 0, 2, 99], 443);
    assert_eq!(severity(scenario), None);
}

#[test]
fn where_the_queue_has_no_limit_only_age_counts() {
    let of_proc = |n, retries| {
        let mut scenario = machine(20);
        handshakes(&mut scenario, n, retries, 1_000);
        for socket in &mut scenario.snapshot.sockets {
            socket.cookie = None;
        }
        scenario.analyze(&Settings::default())
    };
    let unknown = |analysis: &crate::model::Analysis| {
        analysis
            .unknown
            .iter()
            .any(|unknown| unknown.id == DETECTOR.id)
    };
    assert!(unknown(&of_proc(10, 1)));
    assert!(!unknown(&of_proc(9, 1)), "nine would not count anywhere");
    assert_eq!(of_proc(10, 2).findings.len(), 1);
}

#[test]
fn a_full_accept_queue_lets_no_handshake_come_to_its_end() {
    let cause = |waiting| {
        let mut scenario = Scenario::default();
        let process = scenario.process(901, "nginx", 50, 1024);
        scenario.listen(process, 443, waiting, 20, 0);
        handshakes(&mut scenario, 12, 1, 1_000);
        scenario.pulse(&[], |_| {});
        found(scenario).unwrap().caused_by
    };
    assert_eq!(cause(21), Some("listen-overflow"));
    assert_eq!(cause(20), None);
}
