//! CLOSE-WAIT that nobody ends: the peer has closed, the program does not.

use std::collections::HashSet;

use crate::analyze::group::{self, Group, Target};
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::stuck::{self, Stuck, Trend};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::history::{Held, Sample};
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, TcpState};

pub const DETECTOR: Detector = Detector {
    id: "close-wait-leak",
    aliases: &["close-wait-stale"],
    summary: "a program does not close sockets whose peer has closed",
    signals: "CLOSE-WAIT sockets that a process holds, with an empty send queue, by process and destination or \
              listener: how many, for how long, which share of the process's sockets there, and whether more keep \
              coming. A socket that still has bytes to send is not counted: the peer is in the way, not the program.",
    explanation: "The peer has closed its side; the kernel has acknowledged that and now waits for this program to \
                  close. No timer ends CLOSE-WAIT: each socket holds a descriptor until the program closes it or \
                  exits. A few of one age are a connection pool that has not noticed; a number that keeps growing is \
                  a leak, and ends in EMFILE.",
    grounds: &[
        "TCP state in OS, CLOSE_WAIT",
        "RFC 9293 section 3.6",
        "Linux kernel, net/ipv4/tcp_input.c: tcp_fin()",
    ],
    advice: &[
        "`linger pid:PID` shows which peers; find the code path that leaves without close(): end-of-file, errors, time-outs",
        "a restart frees the descriptors and buys time until the leak has filled them again",
    ],
    folklore: &[
        "tcp_fin_timeout and tcp_tw_* do not touch CLOSE-WAIT",
        "TCP keepalive hides the leak: the socket leaves the table, its descriptor stays open",
        "killing the sockets leaves the descriptors open too, and takes the evidence away",
    ],
    states: &[TcpState::CloseWait],
    thresholds: &[
        Threshold {
            key: "age",
            default: 60.0,
            unit: Unit::Seconds,
            doc: "a CLOSE-WAIT counts from this age on; healthy programs close within a second",
        },
        Threshold {
            key: "min",
            default: 10.0,
            unit: Unit::Count,
            doc: "with `share`: fewer than this are a pool's dead connections, not a leak",
        },
        Threshold {
            key: "share",
            default: 50.0,
            unit: Unit::Percent,
            doc: "of the process's sockets to that destination or listener",
        },
        Threshold {
            key: "many",
            default: 50.0,
            unit: Unit::Count,
            doc: "this many are enough whatever their share, if more keep arriving",
        },
        Threshold {
            key: "descriptors",
            default: 1.0,
            unit: Unit::Percent,
            doc: "of the process's descriptor limit (at most 65,536 of it, at least 5 sockets)",
        },
        Threshold {
            key: "spread",
            default: 3.0,
            unit: Unit::Count,
            doc: "ages in this many different spans of `age` mean that more keep arriving; one age means one event",
        },
        Threshold {
            key: "critical",
            default: 20.0,
            unit: Unit::Percent,
            doc: "of the process's descriptor limit, while more keep arriving: accept() and open() fail next",
        },
        Threshold {
            key: "time-left",
            default: 3600.0,
            unit: Unit::Seconds,
            doc: "critical if the descriptors run out sooner than this at the rate seen",
        },
        Threshold {
            key: "nearly",
            default: 90.0,
            unit: Unit::Percent,
            doc: "of the descriptor limit in use, with the share of `critical` in CLOSE-WAIT: critical at any rate",
        },
    ],
    blind: &[],
    needs: Needs {
        tcp_info: true,
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "CLOSE-WAIT sockets of growing age, half of the process's sockets",
        limit: 10,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let age = limits.ms("age");
    let mut undated = 0u64;
    let rows = context.tally.close_wait.iter().copied().filter(|row| {
        let Some(socket) = snapshot.socket(*row) else {
            return false;
        };
        // A queue that does not drain is the peer's doing; the unread FIN of our own side does not matter here.
        if socket.send_q > 0 {
            return false;
        }
        let Some(info) = snapshot.info(socket) else {
            undated += 1;
            return false;
        };
        // What the program has just sent on is in use.
        u64::from(info.last_data_sent_ms) >= age / 6
    });
    let rows: Vec<u32> = rows.collect();
    let trend = Trend::new(context, held);
    let filling = filling(context);
    let judge = |group: &Group<'_>| {
        let spread = limits.get("spread");
        let stuck = stuck::measure(context, group, age, spread, held, trend.as_ref())?;
        Some(judge(context, limits, group, stuck, &filling))
    };
    let mut findings = Vec::new();
    let mut small = Vec::new();
    for group in group::by_owner(context, rows.into_iter()) {
        match judge(&group) {
            Some(finding) if finding.severity > Severity::Info => findings.push(finding),
            Some(_) => small.push(group),
            None => {}
        }
    }
    let merged = group::merge_by_owner(small);
    findings.extend(merged.iter().filter_map(judge));
    if findings.is_empty() && undated > 0 {
        return Verdict::CannotTell(format!(
            "{} in CLOSE-WAIT, but without tcp_info their age is not known",
            words::count(undated, "socket")
        ));
    }
    Verdict::of(group::capped(findings))
}

fn held(sample: &Sample) -> &[Held] {
    &sample.close_wait
}

/// Processes one of whose accept queues is filling.
fn filling(context: &Context<'_>) -> HashSet<u32> {
    let listeners = context.tally.listeners.iter();
    listeners
        .filter_map(|row| context.snapshot.socket(*row))
        .filter(|listener| {
            listener.recv_q >= 3
                && listener
                    .backlog()
                    .is_some_and(|limit| u64::from(listener.recv_q) * 2 >= u64::from(limit))
        })
        .flat_map(|listener| context.snapshot.owners.of(listener.inode))
        .map(|(process, _)| process.pid)
        .collect()
}

fn judge(
    context: &Context<'_>,
    limits: &Limits,
    group: &Group<'_>,
    stuck: Stuck,
    filling: &HashSet<u32>,
) -> Finding {
    let count = stuck.rows.len() as u64;
    let total = group.total.max(count);
    let nofile = group
        .owner
        .and_then(|owner| owner.nofile)
        .filter(|n| *n > 0);
    let enough = stuck.sure && group::is_enough(count, stuck.arriving, group, limits);
    let left = group::minutes_left(group.owner, stuck.per_minute);
    let used_up = left == Some(0.0);
    let runs_out = left.is_some_and(|minutes| minutes * 60.0 < limits.get("time-left"));
    let eats = nofile.is_some_and(|n| count as f64 >= n as f64 * limits.get("critical") / 100.0);
    let queues = group
        .owner
        .is_some_and(|owner| filling.contains(&owner.pid));
    let leak = enough && stuck.arriving;
    // With nearly all descriptors gone and a large part of them here, it no longer matters how fast it goes.
    let nearly = stuck.sure
        && group.owner.is_some_and(|owner| {
            let known = owner.fds.zip(nofile);
            known.is_some_and(|(fds, n)| {
                fds as f64 >= n as f64 * limits.get("nearly") / 100.0
                    && stuck.lasting as f64 >= n as f64 * limits.get("critical") / 100.0
            })
        });
    let severity =
        if leak && (runs_out || eats || queues) || nearly || stuck.sure && eats && used_up {
            Severity::Critical
        } else if leak || stuck.sure && eats {
            Severity::Warning
        } else {
            Severity::Info
        };
    let unread = stuck
        .rows
        .iter()
        .filter_map(|row| context.snapshot.socket(*row))
        .filter(|s| s.recv_q > 0)
        .count();
    let mut evidence = stuck.evidence("close_wait_sockets", group, limits);
    evidence.push(Evidence::real(
        "median_age",
        stuck.median_ms as f64 / 1000.0,
        "s",
        "tcpi_last_ack_recv",
    ));
    evidence.push(Evidence::count(
        "end_of_file_not_read",
        unread as u64,
        "sockets",
        "idiag_rqueue",
    ));
    if stuck.bounded {
        evidence.push(Evidence::text(
            "age_bounds",
            "keepalive is on: ages lie between the last ACK and the last data",
            "tcpi_last_ack_recv, tcpi_last_data_recv",
        ));
    }
    if stuck.per_minute > 0.0 {
        evidence.push(Evidence::real(
            "growth",
            stuck.per_minute,
            "1/min",
            "idiag_cookie, tcpi_last_ack_recv",
        ));
    }
    if stuck.spans.len() > 1 {
        evidence.push(Evidence::series(
            "arrivals",
            stuck.spans.clone(),
            "sockets",
            "tcpi_last_ack_recv",
        ));
    }
    if let Some(owner) = group.owner {
        evidence.extend(words::descriptors(Some(owner)));
        if leak && let Some(minutes) = left {
            evidence.push(Evidence::real(
                "descriptors_run_out_in",
                minutes,
                "min",
                "RLIMIT_NOFILE",
            ));
        }
        if leak && queues {
            evidence.push(Evidence::text(
                "accept_queue",
                "a listener of the same process has half of its queue waiting",
                "idiag_rqueue",
            ));
        }
        let first = stuck
            .rows
            .first()
            .and_then(|row| context.snapshot.socket(*row));
        let holders = first.map_or(0, |socket| context.snapshot.owners.of(socket.inode).count());
        if holders > 1 {
            evidence.push(Evidence::count(
                "holders_of_one_socket",
                holders as u64,
                "descriptors",
                "/proc/PID/fd",
            ));
        }
    }
    Finding {
        id: DETECTOR.id,
        variant: (!leak && !nearly).then_some("close-wait-stale"),
        severity,
        title: title(context, group, &stuck, total, limits, leak || nearly),
        subject: group.subject(),
        evidence,
        explanation: explain(limits, group, &stuck, severity, unread, leak),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: advice(group, severity, leak || nearly),
        rows: stuck.rows.into_iter().take(10).collect(),
        caused_by: None,
        one_sample: false,
    }
}

fn title(
    context: &Context<'_>,
    group: &Group<'_>,
    stuck: &Stuck,
    total: u64,
    limits: &Limits,
    leak: bool,
) -> String {
    let who = group.who();
    let (long, brief) = (group.target.words(), group.target.brief());
    let count = words::thousands(stuck.rows.len() as u64);
    let (whole, total) = (total, words::thousands(total));
    if stuck.cluster && !leak && stuck.rows.len() == group.rows.len() {
        let since = words::since(context.snapshot.taken, stuck.oldest.low_ms);
        return match group.target {
            Target::Destination(_) => words::fit([
                format!("{who}: {count} pooled connections {long} died together at {since}"),
                format!("{who}: {count} pooled connections {brief} died together at {since}"),
                format!("{who}: {count} connections {brief} died together"),
            ]),
            _ => words::fit([
                format!(
                    "{who}: {count} of {total} sockets {long} are CLOSE-WAIT, all since {since}"
                ),
                format!("{who}: {count} sockets {long} are CLOSE-WAIT since {since}"),
            ]),
        };
    }
    let age = stuck.age();
    // The others may be in any state, in this one too but younger.
    let state = if stuck.sure && (stuck.rows.len() as u64) < whole {
        format!("CLOSE-WAIT for over {}", words::time(limits.ms("age")))
    } else {
        "CLOSE-WAIT".to_owned()
    };
    words::fit([
        format!("{who}: {count} of {total} sockets {long} are {state}, oldest {age}"),
        format!("{who}: {count} of {total} sockets {brief} are {state}, oldest {age}"),
        format!("{who}: {count} of {total} {brief} {state}, oldest {age}"),
        format!("{who}: {count} of {total} {brief} {state}"),
        format!("{who}: {count} of {total} {state}"),
    ])
}

fn explain(
    limits: &Limits,
    group: &Group<'_>,
    stuck: &Stuck,
    severity: Severity,
    unread: usize,
    leak: bool,
) -> String {
    let alone = stuck.rows.len() == group.rows.len();
    let reading = match unread {
        0 => "it has read the end of file and still holds the socket",
        n if n == stuck.rows.len() => "it has not even read the end of file",
        _ => "it has not even read the end of file on some of them",
    };
    let meaning = match stuck.grown {
        Some((from, to, window)) if leak => format!(
            "Their number rose from {from} to {to} in {}; each holds a descriptor until the program closes it or exits",
            words::time(u64::try_from(window.as_millis()).unwrap_or(u64::MAX))
        ),
        _ if leak => format!(
            "They came one after the other over {}; each holds a descriptor until the program closes it or exits",
            words::time(stuck.oldest.low_ms.saturating_sub(stuck.youngest_ms))
        ),
        _ if severity > Severity::Info => {
            "They hold a large part of the descriptors that the program may open, until it closes them or exits"
                .to_owned()
        }
        _ if stuck.cluster && alone => format!(
            "They came within {} of each other, as when a pool keeps dead connections until its next checkout",
            words::time(limits.ms("age"))
        ),
        _ if !stuck.sure => {
            "Answered keepalive probes hide since when; a later look shows whether the same ones stay".to_owned()
        }
        _ if !alone => {
            "Younger ones stand beside them; if their number goes on growing, the program leaks them"
                .to_owned()
        }
        _ => "They are few, or no more are coming, as when a pool keeps dead connections until its next checkout"
            .to_owned(),
    };
    let end = if stuck.bounded {
        "No sysctl ends it; keepalive may drop the socket, but not the descriptor"
    } else {
        "No timer and no sysctl ends CLOSE-WAIT"
    };
    format!(
        "The other side has closed, the kernel has acknowledged it, and now this program must close: {reading}. \
         {meaning}. {end}."
    )
}

fn advice(group: &Group<'_>, severity: Severity, leak: bool) -> Vec<String> {
    let fix = if leak {
        "close the socket when read() returns 0, on errors and on time-outs; a restart only buys time"
    } else if severity > Severity::Info {
        "evict from the pool what its peer has closed; a restart frees the descriptors now"
    } else {
        "nothing today; if the number grows, the pool does not evict what its peer has closed"
    };
    vec![
        format!("{}    # which peers, which other sockets", group.command()),
        fix.to_owned(),
        "do not: tune tcp_fin_timeout or tcp_tw_*, they have no effect here; keepalive or killing the sockets only hides the leak".to_owned(),
    ]
}

/// Half of the process's sockets to one destination leak, one every half minute.
fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(2211, "checkout", 300, 1_048_576);
    let remote = Endpoint::v4(THERE, 443);
    for i in 0..n.max(10) {
        let local = Endpoint::v4(HERE, 40_000 + i as u16);
        let socket = scenario.socket(TcpState::Established, local, remote);
        let socket = scenario.held_by(process, socket);
        scenario.push(socket, &[("last_ack_recv_ms", 10)]);
    }
    for i in 0..n {
        let local = Endpoint::v4(HERE, 50_000 + i as u16);
        let socket = scenario.socket(TcpState::CloseWait, local, remote);
        let socket = scenario.held_by(process, socket);
        let age = 60_000 + 30_000 * u64::from(i);
        scenario.push(
            socket,
            &[
                ("last_ack_recv_ms", age),
                ("last_data_recv_ms", age),
                ("last_data_sent_ms", age),
            ],
        );
    }
    scenario
}

#[cfg(test)]
mod tests {
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
}
