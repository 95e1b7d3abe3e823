//! What fires and what does not.

use super::*;
use crate::analyze::Settings;

fn look(queue: u32, later: u32, drops: u32, overflows: i64) -> Option<Finding> {
    let mut scenario = Scenario::default();
    let process = scenario.process(901, "nginx", 50, 1024);
    scenario.listen(process, 8443, queue, 16, 100);
    scenario.pulse(&[("TcpExt.ListenOverflows", overflows)], |listener| {
        listener.recv_q = later;
        listener.drops = Some(100 + drops);
    });
    scenario.judge(DETECTOR.id).findings.pop()
}

#[test]
fn a_full_queue_that_drops_is_critical() {
    let finding = look(17, 17, 84, 84).unwrap();
    assert_eq!(finding.severity, Severity::Critical);
    assert_eq!(
        finding.title,
        "nginx[901] :8443 accept queue 17/16, 84 dropped in 1.0 s"
    );
}

#[test]
fn over_the_limit_is_its_own_proof_but_a_rate_makes_it_critical() {
    assert_eq!(look(17, 17, 0, 0).unwrap().severity, Severity::Warning);
    assert_eq!(
        look(16, 16, 0, 0).unwrap().severity,
        Severity::Warning,
        "over 70 % twice"
    );
}

#[test]
fn drops_without_an_overflow_are_something_else() {
    assert_eq!(
        look(0, 0, 6, 0),
        None,
        "ICMP errors count as drops of the listener"
    );
    assert_eq!(
        look(0, 0, 6, 6).unwrap().severity,
        Severity::Critical,
        "the queue emptied between the looks"
    );
}

#[test]
fn one_look_near_the_limit_is_worth_knowing_only() {
    let mut scenario = Scenario::default();
    let process = scenario.process(901, "nginx", 50, 1024);
    scenario.listen(process, 8443, 12, 16, 0);
    let finding = scenario
        .analyze(&Settings::default())
        .findings
        .pop()
        .unwrap();
    assert_eq!(
        (finding.severity, finding.one_sample),
        (Severity::Info, true)
    );
    assert_eq!(
        look(12, 0, 0, 0).unwrap().severity,
        Severity::Info,
        "a burst that was accepted"
    );
    assert_eq!(look(11, 11, 0, 0), None);
}

#[test]
fn a_queue_that_was_full_minutes_ago_is_not_full() {
    let after = |seconds| {
        let mut scenario = Scenario::default();
        let process = scenario.process(901, "nginx", 50, 1024);
        scenario.listen(process, 8443, 17, 16, 0);
        scenario.remember(seconds);
        for socket in &mut scenario.snapshot.sockets {
            socket.recv_q = 0;
        }
        scenario.judge(DETECTOR.id).findings.pop()
    };
    assert!(after(60).is_some());
    assert_eq!(after(61), None);
}

#[test]
fn the_limit_is_attributed() {
    let text = |queue, limit: u32| {
        let mut scenario = Scenario::default();
        let process = scenario.process(1, "x", 1, 9);
        scenario.listen(process, 1, queue, limit, 0);
        let finding = scenario.judge(DETECTOR.id).findings.remove(0);
        format!("{:?}", finding.evidence.last().unwrap().value)
    };
    assert!(text(17, 16).contains("listen()'s argument (16"));
    assert!(text(5000, 4096).contains("net.core.somaxconn (4096)"));
}

#[test]
fn without_the_limit_it_cannot_tell() {
    let mut scenario = example(7);
    scenario
        .snapshot
        .sockets
        .iter_mut()
        .for_each(|socket| socket.cookie = None);
    let analysis = scenario.analyze(&Settings::default());
    assert_eq!(analysis.unknown[0].id, "listen-overflow");
}

/// Two listeners, the first with a queue of 16: each its queue and what it drops, and the overflows in all.
fn two(first: (u32, u32), second: (u32, u32), overflows: i64) -> crate::model::Analysis {
    let mut scenario = Scenario::default();
    let process = scenario.process(901, "nginx", 50, 1024);
    scenario.listen(process, 1, first.0, 16, 0);
    scenario.listen(process, 2, second.0, 16, 0);
    let one = scenario.snapshot.sockets[0].cookie;
    scenario.pulse(&[("TcpExt.ListenOverflows", overflows)], |listener| {
        listener.drops = Some(if listener.cookie == one {
            first.1
        } else {
            second.1
        });
    });
    scenario.analyze(&Settings::default())
}

#[test]
fn the_overflows_of_one_listener_are_not_laid_on_another() {
    let titles = |analysis: crate::model::Analysis| -> Vec<String> {
        analysis.findings.into_iter().map(|f| f.title).collect()
    };
    assert_eq!(
        titles(two((17, 84), (0, 6), 84)),
        ["nginx[901] :1 accept queue 17/16, 84 dropped in 1.0 s"],
        "the six are ICMP errors"
    );
    assert_eq!(titles(two((17, 84), (0, 6), 90)).len(), 2);
}

#[test]
fn where_listeners_count_no_drops_the_full_one_is_the_culprit() {
    let analysis = two((17, 0), (0, 0), 5);
    assert_eq!(analysis.findings.len(), 1);
    assert_eq!(analysis.findings[0].severity, Severity::Critical);
    assert_eq!(
        analysis.findings[0].title,
        "nginx[901] :1 accept queue 17/16, 5 overflows here in 1.0 s"
    );
    assert_eq!(
        two((17, 0), (0, 0), 0).findings[0].severity,
        Severity::Warning
    );
}

#[test]
fn overflows_of_nobody_that_is_seen_are_not_quiet() {
    let analysis = two((0, 0), (0, 0), 5);
    assert_eq!(analysis.unknown[0].id, DETECTOR.id);
    assert!(two((0, 0), (0, 0), 0).unknown.is_empty());
}

#[test]
fn a_queue_that_emptied_is_not_said_to_be_full() {
    let finding = look(0, 0, 6, 6).unwrap();
    assert!(finding.explanation.contains("between the looks"));
    assert!(
        look(17, 17, 6, 6)
            .unwrap()
            .explanation
            .contains("queue is full")
    );
}

#[test]
fn a_group_of_one_port_is_one_finding() {
    let mut scenario = Scenario::default();
    let process = scenario.process(901, "nginx", 50, 1024);
    for queue in [12, 17, 17] {
        scenario.listen(process, 443, queue, 16, 0);
    }
    let findings = scenario.analyze(&Settings::default()).findings;
    let [finding] = &findings[..] else {
        panic!("{findings:?}")
    };
    assert_eq!(finding.severity, Severity::Warning);
    let siblings = finding.evidence.last().unwrap();
    assert_eq!(siblings.name, "listeners_like_this_on_the_port");
}

#[test]
fn a_listener_that_is_new_has_had_one_look() {
    let mut scenario = Scenario::default();
    scenario.remember(60);
    let process = scenario.process(901, "nginx", 50, 1024);
    scenario.listen(process, 443, 12, 16, 0);
    let finding = scenario.judge(DETECTOR.id).findings.remove(0);
    assert_eq!(
        (finding.severity, finding.one_sample),
        (Severity::Info, true)
    );
}

/// A queue of `queue` of 16, whose listener dropped so many packets since the look `seconds` ago, and none in the last
/// second.
fn dropped_before(queue: u32, drops: u32, overflows: i64, seconds: i64) -> Finding {
    let mut scenario = Scenario::default();
    let process = scenario.process(901, "nginx", 50, 1024);
    let row = scenario.listen(process, 8443, queue, 16, 100);
    let counters = &mut scenario.snapshot.facts.counters;
    counters.insert("TcpExt.ListenOverflows".to_owned(), 7);
    scenario.remember(seconds);
    scenario.snapshot.drops.insert(row, 100 + drops);
    let counters = &mut scenario.snapshot.facts.counters;
    counters.insert("TcpExt.ListenOverflows".to_owned(), 7 + overflows);
    scenario.pulse(&[], |_| {});
    scenario.judge(DETECTOR.id).findings.remove(0)
}

#[test]
fn what_a_full_queue_dropped_since_an_earlier_look_counts() {
    let finding = dropped_before(17, 2, 2, 59);
    assert_eq!(finding.severity, Severity::Critical);
    assert_eq!(
        finding.title,
        "nginx[901] :8443 accept queue 17/16, 2 dropped in 60 s"
    );
    assert_eq!(dropped_before(17, 2, 2, 600).severity, Severity::Critical);
    for (quiet, why) in [
        (dropped_before(16, 2, 2, 59), "it is not full now"),
        (dropped_before(17, 0, 2, 59), "others have dropped"),
        (dropped_before(17, 2, 0, 59), "no queue was over its limit"),
        (dropped_before(17, 2, 2, 601), "that is long ago"),
    ] {
        assert_eq!(quiet.severity, Severity::Warning, "{why}");
    }
}
