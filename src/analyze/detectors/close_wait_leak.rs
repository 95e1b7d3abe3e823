//! CLOSE-WAIT that nobody ends: the peer has closed, the program does not.

use crate::analyze::group::{self, Group};
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::model::{Actor, Age, Endpoint, Evidence, Finding, Severity, TcpState};

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
        "Linux: no timer and no sysctl ends CLOSE-WAIT",
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
    ],
    needs: Needs {
        tcp_info: true,
        drops: false,
        owners: true,
        deltas: false,
    },
    check,
    example: Example {
        of: "CLOSE-WAIT sockets of growing age, half of the process's sockets",
        limit: 10,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let rows = context.tally.close_wait.iter().copied();
    // A queue that does not drain is the peer's doing; the unread FIN of our own side does not matter here.
    let rows: Vec<u32> = rows
        .filter(|row| {
            context
                .snapshot
                .socket(*row)
                .is_some_and(|socket| socket.send_q == 0)
        })
        .collect();
    if rows.is_empty() {
        return Verdict::Quiet;
    }
    if context.snapshot.infos.is_empty() {
        return Verdict::CannotTell(format!(
            "{} in CLOSE-WAIT, but without tcp_info their age is not known",
            words::count(rows.len() as u64, "socket")
        ));
    }
    let groups = group::by_owner(context, rows.into_iter());
    Verdict::of(
        groups
            .iter()
            .filter_map(|group| judge(context, limits, group))
            .collect(),
    )
}

/// What the ages of a group say.
struct Stale {
    /// stuck for sure, the oldest first
    rows: Vec<u32>,
    oldest: Age,
    median_ms: u64,
    /// whether more keep arriving
    arriving: bool,
    per_minute: f64,
    /// whether keepalive leaves only bounds for some
    bounded: bool,
    /// sockets by the span of `age` in which they entered the state, the latest first
    spans: Vec<u32>,
}

fn measure(context: &Context<'_>, limits: &Limits, group: &Group<'_>) -> Option<Stale> {
    let limit = limits.ms("age").max(1);
    let mut ages = group.ages(context);
    for (row, age) in &mut ages {
        let seen = seen_ms(context, *row);
        age.low_ms = age.low_ms.max(seen);
        age.high_ms = age.high_ms.map(|high| high.max(age.low_ms));
    }
    ages.sort_by_key(|(row, age)| (std::cmp::Reverse(age.low_ms), *row));
    let stuck: Vec<(u32, Age)> = ages
        .iter()
        .filter(|(_, age)| age.low_ms >= limit)
        .copied()
        .collect();
    let perhaps = |(_, age): &&(u32, Age)| age.high_ms.is_some_and(|high| high >= limit);
    let bounded = ages.iter().any(|(_, age)| !age.is_exact());
    let counted: Vec<(u32, Age)> = if stuck.is_empty() {
        ages.iter().filter(perhaps).copied().collect()
    } else {
        stuck
    };
    let (_, oldest) = *counted.first()?;
    let (_, median) = *counted.get(counted.len() / 2)?;

    // Only ages that are known say when a socket came; those of keepalive are bounds.
    let mut spans = vec![0u32; 60];
    for (_, age) in ages.iter().filter(|(_, age)| age.is_exact()) {
        let span = usize::try_from(age.low_ms / limit)
            .unwrap_or(usize::MAX)
            .min(spans.len() - 1);
        if let Some(count) = spans.get_mut(span) {
            *count += 1;
        }
    }
    let used = spans
        .iter()
        .rposition(|count| *count > 0)
        .map_or(0, |last| last + 1);
    spans.truncate(used);
    let spread = spans.iter().filter(|count| **count > 0).count() as f64 >= limits.get("spread");
    let growth = growth(context, group);
    let minutes = (limit.saturating_mul(used as u64)) as f64 / 60_000.0;
    let by_ages = if spread && minutes > 0.0 {
        spans.iter().sum::<u32>() as f64 / minutes
    } else {
        0.0
    };
    Some(Stale {
        rows: counted.iter().map(|(row, _)| *row).collect(),
        oldest,
        median_ms: median.low_ms,
        arriving: spread || growth.is_some(),
        per_minute: growth.unwrap_or(by_ages),
        bounded,
        spans,
    })
}

/// For how long earlier samples have seen the same socket in CLOSE-WAIT.
fn seen_ms(context: &Context<'_>, row: u32) -> u64 {
    let cookie = context
        .snapshot
        .socket(row)
        .and_then(|socket| socket.cookie);
    let Some(cookie) = cookie else { return 0 };
    let first = context
        .history
        .earlier()
        .iter()
        .find(|sample| sample.close_wait.binary_search(&cookie.get()).is_ok());
    first.map_or(0, |sample| {
        let elapsed = context
            .snapshot
            .taken
            .duration_since(sample.taken)
            .as_millis();
        u64::try_from(elapsed).unwrap_or(0)
    })
}

/// How many more a minute, where each of the last samples holds more of these very sockets than the one before.
fn growth(context: &Context<'_>, group: &Group<'_>) -> Option<f64> {
    let earlier = context.history.earlier();
    let last = earlier.get(earlier.len().checked_sub(2)?..)?;
    let cookies = || {
        group
            .rows
            .iter()
            .filter_map(|row| context.snapshot.socket(*row)?.cookie)
            .map(|cookie| cookie.get())
    };
    let mut held: Vec<usize> = last
        .iter()
        .map(|sample| {
            cookies()
                .filter(|c| sample.close_wait.binary_search(c).is_ok())
                .count()
        })
        .collect();
    held.push(cookies().count());
    let grows = held.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
    let (first, now) = (held.first()?, held.last()?);
    let minutes = context
        .snapshot
        .taken
        .duration_since(last.first()?.taken)
        .as_secs_f64()
        / 60.0;
    (grows && minutes > 0.0).then(|| (now - first) as f64 / minutes)
}

fn judge(context: &Context<'_>, limits: &Limits, group: &Group<'_>) -> Option<Finding> {
    let stale = measure(context, limits, group)?;
    let stuck = stale.rows.len() as u64;
    let total = group.total(context).max(stuck);
    let nofile = group.owner.and_then(|owner| owner.nofile);
    let sure = stale.oldest.low_ms >= limits.ms("age");
    let enough = sure && group::is_enough(stuck, total, stale.arriving, group.owner, limits);
    let left = group::minutes_left(group.owner, stale.per_minute);
    let runs_out = left.is_some_and(|minutes| minutes * 60.0 < limits.get("time-left"));
    let eats = nofile.is_some_and(|n| stuck as f64 >= n as f64 * limits.get("critical") / 100.0);
    let severity = match (enough && stale.arriving, runs_out || eats) {
        (true, true) => Severity::Critical,
        (true, false) => Severity::Warning,
        (false, _) => Severity::Info,
    };
    let leak = severity > Severity::Info;
    let unread = stale
        .rows
        .iter()
        .filter_map(|row| context.snapshot.socket(*row))
        .filter(|s| s.recv_q > 0)
        .count();

    let age = if stale.oldest.is_exact() || stale.oldest.high_ms.is_none() {
        words::time(stale.oldest.low_ms)
    } else {
        format!(
            "{} to {}",
            words::time(stale.oldest.low_ms),
            words::time(stale.oldest.high_ms.unwrap_or_default())
        )
    };
    let title = format!(
        "{}: {} of {} sockets {} are CLOSE-WAIT, oldest {age}",
        group.who(),
        words::thousands(stuck),
        words::thousands(total),
        group.target.words(),
    );
    let mut evidence = vec![
        Evidence::count("close_wait_sockets", stuck, "sockets", "idiag_state")
            .limit(limits.get("min")),
        Evidence::count(
            "share_of_sockets",
            words::percent(stuck, total),
            "%",
            "idiag_state",
        )
        .limit(limits.get("share")),
        Evidence::real(
            "oldest",
            stale.oldest.low_ms as f64 / 1000.0,
            "s",
            "tcpi_last_ack_recv",
        )
        .limit(limits.get("age")),
        Evidence::real(
            "median_age",
            stale.median_ms as f64 / 1000.0,
            "s",
            "tcpi_last_ack_recv",
        ),
        Evidence::count(
            "end_of_file_not_read",
            unread as u64,
            "sockets",
            "idiag_rqueue",
        ),
    ];
    if stale.bounded {
        evidence.push(Evidence::text(
            "age_bounds",
            "keepalive is on: ages lie between the last ACK and the last data",
            "tcpi_last_data_recv",
        ));
    }
    if stale.per_minute > 0.0 {
        evidence.push(Evidence::real(
            "growth",
            stale.per_minute,
            "1/min",
            "idiag_cookie, tcpi_last_ack_recv",
        ));
    }
    if stale.spans.len() > 1 {
        evidence.push(Evidence::series(
            "arrivals",
            stale.spans.clone(),
            "sockets",
            "tcpi_last_ack_recv",
        ));
    }
    if let Some(owner) = group.owner {
        if let (Some(fds), Some(nofile)) = (owner.fds, owner.nofile) {
            evidence.push(
                Evidence::count("open_descriptors", fds, "descriptors", "/proc/PID/fd")
                    .limit(nofile as f64),
            );
        }
        if leak && let Some(minutes) = left {
            evidence.push(Evidence::real(
                "descriptors_run_out_in",
                minutes,
                "min",
                "RLIMIT_NOFILE",
            ));
        }
        let holders = stale
            .rows
            .first()
            .and_then(|row| context.snapshot.socket(*row));
        let holders = holders.map_or(0, |socket| context.snapshot.owners.of(socket.inode).count());
        if holders > 1 {
            evidence.push(Evidence::count(
                "holders_of_one_socket",
                holders as u64,
                "descriptors",
                "/proc/PID/fd",
            ));
        }
    }
    Some(Finding {
        id: DETECTOR.id,
        variant: (!leak).then_some("close-wait-stale"),
        severity,
        title,
        subject: group.subject(),
        evidence,
        explanation: explain(leak, unread, stale.rows.len()),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: advice(group, leak),
        rows: stale.rows.into_iter().take(10).collect(),
        caused_by: None,
        one_sample: false,
    })
}

fn explain(leak: bool, unread: usize, stuck: usize) -> String {
    let reading = match unread {
        0 => "it has read the end of file and still holds the socket",
        n if n == stuck => "it has not even read the end of file",
        _ => "it has not even read the end of file on some of them",
    };
    let meaning = if leak {
        "More keep coming; each holds a descriptor until the program closes it or exits"
    } else {
        "They came together or are few, as when a pool keeps dead connections until its next checkout"
    };
    format!(
        "The other side has closed, the kernel has acknowledged it, and now this program must close: {reading}. \
         {meaning}. No timer and no sysctl ends CLOSE-WAIT."
    )
}

fn advice(group: &Group<'_>, leak: bool) -> Vec<String> {
    let fix = if leak {
        "close the socket when read() returns 0, on errors and on time-outs; a restart only buys time"
    } else {
        "nothing today; if the number grows, the pool does not evict what its peer has closed"
    };
    vec![
        format!("{}    # which peers, which other sockets", group.command()),
        fix.to_owned(),
        "do not: tcp_fin_timeout and tcp_tw_* have no effect here; keepalive or killing the sockets only hides the leak".to_owned(),
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
            &[("last_ack_recv_ms", age), ("last_data_recv_ms", age)],
        );
    }
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;
    use crate::model::{Subject, Timer};

    fn only(scenario: Scenario) -> Option<Finding> {
        let mut findings = scenario.analyze(&Settings::default()).findings;
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
                &[("last_ack_recv_ms", age(i)), ("last_data_recv_ms", age(i))],
            );
        }
        scenario
    }

    #[test]
    fn a_leak_names_process_share_and_destination() {
        let finding = only(leak(200, 300, 1_048_576, |i| 1000 * u64::from(i) + 500)).unwrap();
        assert_eq!(
            finding.title,
            "app[7]: 140 of 200 sockets to 198.51.100.7:443 are CLOSE-WAIT, oldest 3 min"
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
    fn one_age_is_a_pool_however_many() {
        let finding = only(leak(20, 40, 1024, |_| 3_600_000)).unwrap();
        assert_eq!(
            (finding.severity, finding.variant),
            (Severity::Info, Some("close-wait-stale"))
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
                ],
            );
        }
        let finding = only(scenario).unwrap();
        assert_eq!(finding.severity, Severity::Info);
        assert!(finding.title.contains(" to "), "{}", finding.title);
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
                    &[("last_ack_recv_ms", 61_000), ("last_data_recv_ms", 61_000)],
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
            scenario.push(socket, &[("last_ack_recv_ms", 70_000 * (1 + u64::from(i)))]);
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
        let analysis = scenario.analyze(&Settings::default());
        assert_eq!(analysis.unknown[0].id, "close-wait-leak");
        assert!(!analysis.quiet.contains(&"close-wait-leak"));
    }
}
