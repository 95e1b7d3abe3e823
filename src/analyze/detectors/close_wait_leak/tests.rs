//! What fires and what does not.

use super::*;
use crate::model::{Subject, Timer};

fn only(scenario: Scenario) -> Option<Finding> {
    let mut findings = scenario.judge(DETECTOR.id).findings;
    assert!(findings.len() <= 1, "{findings:?}");
    findings.pop()
}

/// `n` CLOSE-WAIT of the ages given by `age`, of a process with so many descriptors.
fn leak(n: u32, fds: u64, nofile: u64, age: impl Fn(u32) -> u64) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(7, "app", fds, nofile);
    for i in 0..n {
        let socket = scenario.socket(
            TcpState::CloseWait,
            Endpoint::v4(HERE, 40_000 + i as u16),
            Endpoint::v4(THERE, 443),
        );
        let socket = scenario.held_by(process, socket);
        scenario.push(
            socket,
            &[
                ("last_ack_recv_ms", age(i)),
                ("last_data_recv_ms", age(i)),
                ("last_data_sent_ms", age(i)),
            ],
        );
    }
    scenario
}

#[test]
fn a_leak_names_process_share_and_destination() {
    let finding = only(leak(200, 300, 1_048_576, |i| 1000 * u64::from(i) + 500)).unwrap();
    assert_eq!(
        finding.title,
        "app[7]: 140 of 200 sockets to 198.51.100.7:443 are CLOSE-WAIT for over 60 s, oldest 3 min"
    );
    assert_eq!(
        (finding.severity, finding.variant),
        (Severity::Warning, None)
    );
    assert!(matches!(
        finding.subject,
        Subject::Process { pid: Some(7), .. }
    ));
    assert_eq!(finding.who_must_act, Actor::ThisProgram);
}

#[test]
fn nearly_used_up_descriptors_are_critical_however_young_the_leak() {
    // 22 of 107 have passed the minute; the rest have lasted for ten seconds and more.
    let young = |fds| leak(107, fds, 120, |i| 75_000 - 600 * u64::from(i));
    let critical = only(young(113)).unwrap();
    assert_eq!(
        (critical.severity, critical.variant),
        (Severity::Critical, None)
    );
    assert!(
        critical
            .explanation
            .contains("a large part of the descriptors")
    );
    assert!(
        critical
            .advice
            .iter()
            .any(|line| line.contains("close the socket when"))
    );
    assert_eq!(
        only(young(107)).unwrap().severity,
        Severity::Warning,
        "107 of 120 are 89 %"
    );
    let roomy = only(leak(107, 113, 4096, |i| 75_000 - 600 * u64::from(i))).unwrap();
    assert_eq!(roomy.severity, Severity::Info);
    assert!(roomy.explanation.contains("Younger ones stand beside them"));
    assert!(roomy.title.contains("for over 60 s"), "{}", roomy.title);
    let transient = leak(107, 113, 120, |_| 9_999);
    assert!(only(transient).is_none());
}

#[test]
fn one_age_is_a_pool_however_many() {
    let finding = only(leak(20, 40, 1024, |_| 3_600_000)).unwrap();
    assert_eq!(
        (finding.severity, finding.variant),
        (Severity::Info, Some("close-wait-stale"))
    );
    assert_eq!(
        finding.title,
        "app[7]: 20 pooled connections to 198.51.100.7:443 died together at 23:00 UTC"
    );
    assert!(
        only(leak(8, 40, 1024, |_| 400)).is_none(),
        "younger than a second is healthy churn"
    );
}

#[test]
fn descriptors_that_run_out_within_the_hour_are_critical() {
    let ages = |i: u32| 1000 * u64::from(i);
    assert_eq!(
        only(leak(300, 900, 1024, ages)).unwrap().severity,
        Severity::Critical
    );
    assert_eq!(
        only(leak(300, 900, 1_048_576, ages)).unwrap().severity,
        Severity::Warning
    );
}

#[test]
fn what_still_has_bytes_to_send_is_not_leaked() {
    let mut scenario = leak(200, 300, 1024, |i| 1000 * u64::from(i));
    scenario
        .snapshot
        .sockets
        .iter_mut()
        .for_each(|socket| socket.send_q = 42_920);
    assert!(only(scenario).is_none());
}

#[test]
fn keepalive_leaves_bounds_and_no_verdict_above_info() {
    let mut scenario = Scenario::default();
    let process = scenario.process(7, "app", 90, 1024);
    for i in 0..60 {
        let mut socket = scenario.socket(
            TcpState::CloseWait,
            Endpoint::v4(HERE, 40_000 + i),
            Endpoint::v4(THERE, 443),
        );
        socket.timer = Timer::Keepalive;
        let socket = scenario.held_by(process, socket);
        scenario.push(
            socket,
            &[
                ("last_ack_recv_ms", 1_800),
                ("last_data_recv_ms", 63_000 * u64::from(i)),
                ("last_data_sent_ms", 63_000 * u64::from(i)),
            ],
        );
    }
    let finding = only(scenario).unwrap();
    assert_eq!(finding.severity, Severity::Info);
    assert!(
        finding.title.contains("oldest between 1.8 s and 62 min"),
        "{}",
        finding.title
    );
    assert!(finding.explanation.contains("keepalive probes hide"));
}

#[test]
fn growth_is_seen_by_identity_across_samples() {
    let mut scenario = Scenario::default();
    let process = scenario.process(7, "app", 90, 1_048_576);
    let add = |scenario: &mut Scenario, from: u16, n: u16| {
        for i in from..from + n {
            let socket = scenario.socket(
                TcpState::CloseWait,
                Endpoint::v4(HERE, 40_000 + i),
                Endpoint::v4(THERE, 443),
            );
            let socket = scenario.held_by(process, socket);
            scenario.push(
                socket,
                &[
                    ("last_ack_recv_ms", 61_000),
                    ("last_data_recv_ms", 61_000),
                    ("last_data_sent_ms", 61_000),
                ],
            );
        }
    };
    add(&mut scenario, 0, 10);
    scenario.remember(5);
    add(&mut scenario, 10, 10);
    scenario.remember(5);
    let mut flat = scenario.clone();
    add(&mut scenario, 20, 10);
    let grown = only(scenario).unwrap();
    assert_eq!((grown.severity, grown.variant), (Severity::Warning, None));
    flat.remember(5);
    assert_eq!(
        only(flat).unwrap().severity,
        Severity::Info,
        "the same number is no growth"
    );
}

#[test]
fn without_privilege_the_uid_is_blamed() {
    let mut scenario = Scenario::default();
    for i in 0..12 {
        let mut socket = scenario.socket(
            TcpState::CloseWait,
            Endpoint::v4(HERE, 40_000 + i),
            Endpoint::v4(THERE, 443),
        );
        socket.inode = 900 + u32::from(i);
        let age = 70_000 * (1 + u64::from(i));
        scenario.push(
            socket,
            &[("last_ack_recv_ms", age), ("last_data_sent_ms", age)],
        );
    }
    let finding = only(scenario).unwrap();
    assert!(matches!(
        finding.subject,
        Subject::Process {
            pid: None,
            uid: Some(1000),
            ..
        }
    ));
    assert_eq!(finding.severity, Severity::Warning);
}

#[test]
fn without_tcp_info_it_cannot_tell() {
    let mut scenario = leak(3, 9, 1024, |_| 1);
    scenario.snapshot.infos.clear();
    scenario
        .snapshot
        .sockets
        .iter_mut()
        .for_each(|socket| socket.info = None);
    let analysis = scenario.judge(DETECTOR.id);
    assert_eq!(analysis.unknown[0].id, "close-wait-leak");
    assert!(!analysis.quiet.contains(&"close-wait-leak"));
}

#[test]
fn one_age_that_has_taken_the_descriptors_is_no_mere_pool() {
    let severity = |n, fds| only(leak(n, fds, 1024, |_| 3_600_000)).unwrap().severity;
    assert_eq!(
        severity(204, 500),
        Severity::Info,
        "a fifth of 1024 are 205"
    );
    assert_eq!(severity(205, 500), Severity::Warning);
    assert_eq!(severity(205, 1024), Severity::Critical, "and none is left");
}

#[test]
fn a_slow_leak_is_one_and_two_clusters_beside_healthy_churn_are_not() {
    let slow = only(leak(24, 60, 1_048_576, |i| 3_600_000 * (1 + u64::from(i)))).unwrap();
    assert_eq!((slow.severity, slow.variant), (Severity::Warning, None));
    assert!(
        slow.explanation.contains("one after the other over 23.0 h"),
        "{}",
        slow.explanation
    );
    let clusters = |i| [200, 700_000, 1_400_000][i as usize % 3];
    let finding = only(leak(30, 60, 1_048_576, clusters)).unwrap();
    assert_eq!(finding.severity, Severity::Info);
    let long_ago = |i| 36_000_000 + 70_000 * u64::from(i);
    let finding = only(leak(30, 60, 1_048_576, long_ago)).unwrap();
    assert_eq!(finding.severity, Severity::Info, "nothing came since");
}

#[test]
fn what_the_program_still_sends_on_is_in_use() {
    let mut scenario = Scenario::default();
    let process = scenario.process(7, "app", 90, 1024);
    for i in 0..20 {
        let mut socket = scenario.socket(
            TcpState::CloseWait,
            Endpoint::v4(HERE, 40_000 + i),
            Endpoint::v4(THERE, 443),
        );
        socket.timer = Timer::Keepalive;
        let socket = scenario.held_by(process, socket);
        let stamps = [
            ("last_ack_recv_ms", 300),
            ("last_data_recv_ms", 900_000),
            ("last_data_sent_ms", 400),
        ];
        scenario.push(socket, &stamps);
    }
    assert_eq!(only(scenario), None);
}

#[test]
fn one_socket_towards_each_of_many_is_one_leak() {
    let leak = |n: u32, ages: fn(u32) -> u64| {
        let mut scenario = leak(n, 900, 1_048_576, ages);
        for (i, socket) in (0u16..).zip(&mut scenario.snapshot.sockets) {
            socket.remote.port = i;
        }
        only(scenario).unwrap()
    };
    let finding = leak(50, |i| 60_000 + 30_000 * u64::from(i));
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(
        finding.title,
        "app[7]: 50 of 50 sockets to 50 destinations are CLOSE-WAIT, oldest 26 min"
    );
    assert_eq!(
        leak(49, |i| 60_000 + 30_000 * u64::from(i)).severity,
        Severity::Info
    );
    assert_eq!(leak(50, |_| 90_000).severity, Severity::Info, "one event");
}

#[test]
fn a_filling_accept_queue_of_the_same_program_makes_a_leak_critical() {
    let with_queue = |queue| {
        let mut scenario = leak(200, 300, 1_048_576, |i| 1000 * u64::from(i));
        scenario.listen(0, 8080, queue, 128, 0);
        let findings = scenario.judge(DETECTOR.id).findings;
        findings
            .into_iter()
            .find(|f| f.id == DETECTOR.id)
            .unwrap()
            .severity
    };
    assert_eq!(with_queue(63), Severity::Warning);
    assert_eq!(with_queue(64), Severity::Critical);
}

#[test]
fn a_number_that_does_not_grow_uses_nothing_up() {
    // 60 a minute come by their ages; two samples a minute apart held as many.
    let ages = |i: u32| 1000 * u64::from(i);
    let mut steady = leak(300, 900, 1024, ages);
    let rows = steady.snapshot.sockets.clone();
    steady.remember(60);
    for socket in &mut steady.snapshot.sockets {
        socket.cookie = socket.cookie.and_then(|cookie| cookie.checked_add(1 << 20));
    }
    steady.remember(60);
    steady.snapshot.sockets = rows;
    let finding = only(steady).unwrap();
    let names: Vec<_> = finding.evidence.iter().map(|e| e.name).collect();
    assert!(!names.contains(&"descriptors_run_out_in"), "{names:?}");
}

/// CLOSE-WAIT sockets as a run every five minutes finds them for an hour, `n` at each look, none of them known before
/// from `anew` on; keepalive hides since when, unless `ages` are told.
fn hourly(
    looks: u16,
    n: impl Fn(u16) -> u16,
    anew: impl Fn(u16) -> u64,
    ages: bool,
) -> Option<Finding> {
    let mut scenario = Scenario::default();
    let process = scenario.process(7, "app", 90, 1_048_576);
    for look in 1..=looks {
        scenario.snapshot.sockets.clear();
        scenario.snapshot.infos.clear();
        for i in 0..n(look) {
            let mut socket = scenario.socket(
                TcpState::CloseWait,
                Endpoint::v4(HERE, 40_000 + i),
                Endpoint::v4(THERE, 443),
            );
            if !ages {
                socket.timer = Timer::Keepalive;
            }
            let mut socket = scenario.held_by(process, socket);
            socket.cookie = std::num::NonZeroU64::new(1 + u64::from(i) + anew(look));
            let heard = if ages {
                20_000 + 13_000 * u64::from(i)
            } else {
                1_800
            };
            let stamps = [
                ("last_ack_recv_ms", heard),
                ("last_data_recv_ms", 7_200_000),
                ("last_data_sent_ms", 7_200_000),
            ];
            scenario.push(socket, &stamps);
        }
        if look < looks {
            scenario.remember(300);
        }
    }
    only(scenario)
}

#[test]
fn a_leak_of_a_few_in_five_minutes_is_seen_by_runs_that_remember_each_other() {
    let leak = hourly(13, |look| 20 + 3 * look, |_| 0, false).unwrap();
    assert_eq!((leak.severity, leak.variant), (Severity::Warning, None));
    assert!(
        leak.explanation.contains("rose from 53 to 59 in 10 min"),
        "{}",
        leak.explanation
    );
    // Three in half an hour are not one more at each look.
    let slow = hourly(13, |look| 50 + look / 3, |_| 0, false).unwrap();
    assert_eq!((slow.severity, slow.variant), (Severity::Warning, None));
    let pool = hourly(13, |_| 56, |_| 0, false).unwrap();
    assert_eq!(
        (pool.severity, pool.variant),
        (Severity::Info, Some("close-wait-stale"))
    );
}

#[test]
fn what_is_closed_late_but_closed_does_not_accumulate() {
    let others = |look| u64::from(look) << 20;
    let churn = hourly(13, |_| 40, others, true).unwrap();
    assert_eq!(
        (churn.severity, churn.variant),
        (Severity::Info, Some("close-wait-stale"))
    );
    let alone = hourly(1, |_| 40, others, true).unwrap();
    assert_eq!(
        alone.variant, None,
        "by their ages they come one after the other"
    );
    // More at each look, and others: a rise in traffic.
    let rising = hourly(13, |look| 40 + look, others, false);
    assert!(rising.is_none_or(|finding| finding.severity == Severity::Info));
}

#[test]
fn a_look_that_could_not_keep_its_list_is_no_proof_of_growth() {
    let grown = |partial: bool| {
        let mut scenario = leak(30, 90, 1_048_576, |_| 7_200_000);
        for socket in &mut scenario.snapshot.sockets {
            socket.timer = Timer::Keepalive;
        }
        let all = scenario.snapshot.sockets.clone();
        for known in [if partial { 0 } else { 10 }, 20, 30] {
            scenario.snapshot.sockets = all[..known].to_vec();
            if known < 30 {
                scenario.remember(300);
            }
        }
        let mut history = crate::history::History::default();
        for (at, sample) in scenario.history.earlier().iter().enumerate() {
            let mut sample = sample.clone();
            sample.partial = partial && at == 0;
            history.push(sample);
        }
        scenario.history = history;
        only(scenario).is_some_and(|finding| finding.variant.is_none())
    };
    assert!(grown(false));
    assert!(!grown(true));
}
