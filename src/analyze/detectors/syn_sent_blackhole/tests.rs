use super::*;
use crate::analyze::Settings;

fn severity(scenario: Scenario) -> Option<Severity> {
    scenario
        .analyze(&Settings::default())
        .findings
        .first()
        .map(|finding| finding.severity)
}

#[test]
fn attempts_count_from_three_seconds_on() {
    assert_eq!(severity(attempts(30, 0, 2_999)), None);
    assert_eq!(severity(attempts(3, 0, 3_000)), Some(Severity::Warning));
    let finding = attempts(3, 0, 12_000)
        .analyze(&Settings::default())
        .findings
        .remove(0);
    assert_eq!(
        finding.title,
        "api[55] to 198.51.100.7:9092: 3 attempts without an answer, the oldest for 12 s"
    );
}

#[test]
fn critical_only_for_what_has_answered_before() {
    assert_eq!(
        severity(attempts(200, 0, 60_000)),
        Some(Severity::Warning),
        "a dead target"
    );
    assert_eq!(severity(attempts(20, 1, 10_000)), Some(Severity::Critical));
    assert_eq!(severity(attempts(19, 1, 10_000)), Some(Severity::Warning));
    assert_eq!(
        severity(attempts(20, 60, 10_000)),
        Some(Severity::Warning),
        "it works for most"
    );
}

#[test]
fn short_time_outs_show_over_three_samples() {
    let aged = |scenario: &mut Scenario, port, ms: u32| {
        scenario.snapshot.sockets.clear();
        let mut socket = scenario.socket(
            TcpState::SynSent,
            Endpoint::v4(HERE, port),
            Endpoint::v4(THERE, 6379),
        );
        (socket.timer, socket.timer_ms) = (Timer::Retransmit, 1000 - ms);
        scenario.push(socket, &[("retransmits", 0)]);
    };
    let attempt = |scenario: &mut Scenario, port| aged(scenario, port, 250);
    let mut scenario = Scenario::default();
    attempt(&mut scenario, 1);
    scenario.remember(1);
    attempt(&mut scenario, 2);
    let two = scenario.clone();
    assert_eq!(severity(two), None, "two samples are not enough");
    scenario.remember(1);
    let mut answered = scenario.clone();
    attempt(&mut answered, 3);
    let mut ended = answered.socket(
        TcpState::TimeWait,
        Endpoint::v4(HERE, 9),
        Endpoint::v4(THERE, 6379),
    );
    (ended.timer, ended.timer_ms) = (Timer::TimeWait, 9_000);
    answered.push(ended, &[]);
    assert_eq!(severity(answered), None, "one was answered and has ended");
    let mut same = scenario.clone();
    same.remember(1);
    assert_eq!(severity(same), None, "the same socket is one attempt");
    let mut fresh = scenario.clone();
    aged(&mut fresh, 3, 249);
    assert_eq!(severity(fresh), None, "it may be answered yet");
    attempt(&mut scenario, 3);
    let finding = scenario.judge(DETECTOR.id).findings.remove(0);
    assert_eq!(
        (finding.variant, finding.severity),
        (Some("short-time-outs"), Severity::Warning)
    );
}

#[test]
fn rows_of_proc_are_dated_by_their_retries() {
    let of_proc = |retries| {
        let mut scenario = attempts(3, 0, 9_000);
        scenario.snapshot.infos.clear();
        for socket in &mut scenario.snapshot.sockets {
            (socket.cookie, socket.info) = (None, None);
            (socket.retransmits, socket.timer_ms) = (retries, 999);
        }
        severity(scenario)
    };
    assert_eq!(of_proc(2), None, "2.001 s");
    assert_eq!(of_proc(3), Some(Severity::Warning), "3.001 s");
}

/// The same attempts to each of so many ports.
fn sweep(mut scenario: Scenario, ports: u16) -> Scenario {
    let mut sockets = Vec::new();
    for port in 1..=ports {
        for socket in &scenario.snapshot.sockets {
            let mut socket = *socket;
            socket.remote.port = port;
            sockets.push(socket);
        }
    }
    scenario.snapshot.sockets = sockets;
    scenario
}

#[test]
fn many_dead_destinations_are_one_finding() {
    let findings = |each, ports| {
        sweep(attempts(each, 0, 9_000), ports)
            .analyze(&Settings::default())
            .findings
    };
    let all = findings(3, 50);
    assert_eq!(all.len(), 1);
    assert_eq!(
        all[0].title,
        "api[55]: 150 attempts to 50 destinations without an answer, the oldest for 9.0 s"
    );
    assert!(matches!(
        &all[0].subject,
        Subject::Process { pid: Some(55), .. }
    ));
    assert_eq!(
        (all[0].severity, all[0].rows.len()),
        (Severity::Warning, 10)
    );
    assert_eq!(findings(3, 3).len(), 3, "three are told one by one");
    assert_eq!(
        findings(20, 30).len(),
        20,
        "and so are large ones, in a list that ends"
    );
}

#[test]
fn one_attempt_each_counts_where_many_destinations_are_dead() {
    let with = |dead, alive: u16| {
        let mut scenario = sweep(attempts(1, 0, 9_000), dead);
        for i in 0..alive {
            let there = Endpoint::v4([203, 0, 113, i as u8], 80);
            let socket =
                scenario.socket(TcpState::Established, Endpoint::v4(HERE, 1000 + i), there);
            scenario.push(socket, &[("last_data_recv_ms", 1)]);
        }
        severity(scenario)
    };
    assert_eq!(with(9, 0), None);
    assert_eq!(with(10, 0), Some(Severity::Warning));
    assert_eq!(with(10, 23), Some(Severity::Warning));
    assert_eq!(
        with(10, 24),
        Some(Severity::Info),
        "some targets are always down"
    );
}

#[test]
fn a_tenth_of_the_ports_or_descriptors_is_many() {
    let limited = |nofile, age| {
        let mut scenario = Scenario::default();
        let process = scenario.process(55, "api", 30, nofile);
        for mut socket in attempts(7, 1, age).snapshot.sockets {
            socket.inode = 0;
            let info = [("retransmits", 2), ("total_rto_time_ms", age - 1000)];
            let socket = scenario.held_by(process, socket);
            scenario.push(socket, &info);
        }
        scenario
    };
    assert_eq!(severity(limited(69, 10_000)), Some(Severity::Critical));
    assert_eq!(severity(limited(70, 10_000)), Some(Severity::Warning));
    assert_eq!(severity(limited(69, 9_000)), Some(Severity::Warning));
    let mut scenario = limited(1024, 10_000);
    scenario.sysctl("net/ipv4/ip_local_port_range", "40000 40068");
    assert_eq!(severity(scenario), Some(Severity::Critical));
}

#[test]
fn what_answers_next_to_it_is_said() {
    let beside = |address: [u8; 4], port| {
        let mut scenario = attempts(3, 0, 9_000);
        let there = Endpoint::v4(address, port);
        let socket = scenario.socket(TcpState::Established, Endpoint::v4(HERE, 1000), there);
        scenario.push(socket, &[("last_data_recv_ms", 1)]);
        scenario.judge(DETECTOR.id).findings.remove(0)
    };
    let [a, b, c, d] = THERE;
    let port = beside(THERE, 443);
    assert!(
        port.explanation
            .contains("Other ports of that address are connected (1)")
    );
    assert!(!port.explanation.contains("dead host"));
    let host = beside([a, b, c, d + 1], 9092);
    assert!(
        host.explanation
            .contains("Other hosts of 198.51.100.0/24 are connected (1)")
    );
    assert!(!host.explanation.contains("wrong route"));
    let nothing = beside([a, b, c + 1, d], 9092);
    assert!(nothing.explanation.ends_with("a full accept queue there."));
    assert!(nothing.explanation.matches(". ").count() < 3);
}
