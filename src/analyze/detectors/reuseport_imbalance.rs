//! One of several listeners on a port does not accept.

use crate::analyze::queue::{self, Queue};
use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, group, words};
use crate::model::{Actor, Evidence, Finding, Severity, Socket, TcpState};

pub const DETECTOR: Detector = Detector {
    id: "reuseport-imbalance",
    aliases: &[],
    summary: "of several listeners on one port (SO_REUSEPORT) one does not accept",
    signals: "LISTEN sockets with the same address and port: the longest accept queue against the median of the \
              others, in two looks, or the age of what waits in it, and that listener's own drops.",
    explanation: "The kernel deals new connections out to the listeners of a port by a hash of the addresses, whether \
                  they accept or not. A client whose hash meets the stuck one waits, and tries again in vain, while \
                  the host looks idle.",
    grounds: &["Linux kernel, net/core/sock_reuseport.c: reuseport_select_sock()"],
    advice: &[
        "unblock or restart the worker with the long queue",
        "net.ipv4.tcp_migrate_req=1 hands its queue on when it closes; or one listener that all workers share",
    ],
    folklore: &["a larger backlog does not help: the stuck queue only gets longer"],
    states: &[TcpState::Listen],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "warn",
            default: 70.0,
            unit: Unit::Percent,
            doc: "of its limit waits for one listener, in two looks",
        },
        Threshold {
            key: "median",
            default: 10.0,
            unit: Unit::Percent,
            doc: "of the limit at most waits for the median of the others: they do accept",
        },
        Threshold {
            key: "min",
            default: 3.0,
            unit: Unit::Count,
            doc: "fewer connections in the queue are no imbalance: the hash is uneven with few clients",
        },
        Threshold {
            key: "queue",
            default: 10.0,
            unit: Unit::Count,
            doc: "so many, with `age`, count whatever the limit is, if the others' median is 0",
        },
        Threshold {
            key: "age",
            default: 5.0,
            unit: Unit::Seconds,
            doc: "the oldest of them has waited for longer than this: no accept() is that late",
        },
    ],
    blind: &[],
    needs: Needs {
        tcp_info: true,
        drops: true,
        owners: true,
        deltas: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "connections in one queue of 10, with three empty ones beside it",
        limit: 7,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let mut found = Vec::new();
    let mut open = 0;
    for queue in queue::all(context) {
        if queue.siblings.len() < 2 || queue.length() == 0 {
            continue;
        }
        let dated = queue.waiting.iter().all(|row| {
            let socket = context.snapshot.socket(*row);
            socket.is_some_and(|socket| context.snapshot.info(socket).is_some())
        });
        match judge(context, limits, &queue) {
            Some(finding) => found.push(finding),
            None => {
                let long =
                    f64::from(queue.fullest().map_or(0, |l| l.recv_q)) >= limits.get("queue");
                open += u64::from(long && !dated && median_of_others(&queue) == 0);
            }
        }
    }
    if found.is_empty() && open > 0 {
        return Verdict::CannotTell(format!(
            "{} with one long queue among empty ones, but without tcp_info it is not known for how long",
            words::count(open, "port")
        ));
    }
    Verdict::of(group::capped(found))
}

/// The median queue of the siblings of the fullest one.
fn median_of_others(queue: &Queue<'_>) -> u32 {
    let mut lengths: Vec<u32> = queue.siblings.iter().map(|l| l.recv_q).collect();
    lengths.sort_unstable();
    lengths.pop();
    lengths.get(lengths.len() / 2).copied().unwrap_or(0)
}

fn judge(context: &Context<'_>, limits: &Limits, queue: &Queue<'_>) -> Option<Finding> {
    let snapshot = context.snapshot;
    let fullest = queue.fullest()?;
    let (length, median) = (fullest.recv_q, median_of_others(queue));
    let limit = fullest.backlog();
    let deltas = context.deltas();
    let crowded = |queue: u32| {
        limit.is_some_and(|limit| {
            f64::from(queue) >= limits.get("min")
                && f64::from(queue) * 100.0 >= f64::from(limit) * limits.get("warn")
        })
    };
    let others_accept = match limit {
        Some(limit) => f64::from(median) * 100.0 < f64::from(limit) * limits.get("median").max(0.1),
        None => median == 0,
    } || median == 0;
    if !others_accept {
        return None;
    }
    // At most as many of the oldest as wait for the others are not its own.
    let others = queue.length().saturating_sub(length.into());
    let ages = queue.ages(context);
    let oldest = usize::try_from(others)
        .ok()
        .and_then(|skip| ages.get(skip))
        .map_or(0, |(age, _)| *age);
    let stale =
        median == 0 && f64::from(length) >= limits.get("queue") && oldest > limits.ms("age");
    let looks = deltas.as_ref().and_then(|deltas| {
        deltas
            .sooner(fullest.cookie)
            .zip(deltas.later(fullest.cookie))
    });
    let twice =
        looks.is_some_and(|(sooner, later)| crowded(sooner.recv_q) && crowded(later.recv_q));
    let drops = deltas
        .as_ref()
        .and_then(|deltas| deltas.drops(fullest.cookie))
        .unwrap_or(0);
    let overflows = context.moved(&["TcpExt.ListenOverflows"]).by().unwrap_or(0);
    let over = limit.is_some_and(|limit| length > limit);
    let (severity, one_sample) = if over && drops > 0 && overflows > 0 {
        (Severity::Critical, false)
    } else if over && crowded(length) || twice || stale {
        (Severity::Warning, false)
    } else if crowded(length) {
        (Severity::Info, true)
    } else {
        return None;
    };
    let siblings = queue.siblings.len() as u64;
    let mut evidence = vec![
        match limit {
            Some(limit) => {
                Evidence::count("longest_queue", length, "connections", "idiag_rqueue").limit(limit)
            }
            None => Evidence::count("longest_queue", length, "connections", "idiag_rqueue"),
        },
        Evidence::count(
            "median_of_the_others",
            median,
            "connections",
            "idiag_rqueue",
        ),
        Evidence::count(
            "listeners_on_this_port",
            siblings,
            "sockets",
            "SO_REUSEPORT",
        ),
        Evidence::count(
            "share_of_new_clients",
            words::percent(1, siblings),
            "%",
            "SO_REUSEPORT",
        ),
    ];
    if oldest > 0 {
        evidence.push(
            Evidence::real(
                "oldest_wait",
                oldest as f64 / 1000.0,
                "s",
                "tcpi_last_data_sent",
            )
            .limit(limits.get("age")),
        );
    }
    if drops > 0 {
        evidence.push(Evidence::count(
            "dropped_by_this_listener",
            drops,
            "packets",
            "SK_MEMINFO_DROPS",
        ));
        evidence.push(Evidence::count(
            "overflows_in_this_namespace",
            overflows,
            "connections",
            "TcpExt.ListenOverflows",
        ));
    }
    evidence.extend(descriptor(context, fullest));
    if let Some(migrate) = snapshot.facts.sysctl("net/ipv4/tcp_migrate_req") {
        evidence.push(Evidence::count(
            "tcp_migrate_req",
            migrate,
            "",
            "net.ipv4.tcp_migrate_req",
        ));
    }
    let title = words::listener_title(snapshot, fullest);
    let port = fullest.local.port;
    let room = limit.map_or(String::new(), |limit| {
        format!("/{}", words::thousands(limit))
    });
    let age = if oldest > 0 {
        format!(" for {}", words::time(oldest))
    } else {
        String::new()
    };
    let n = words::thousands(length);
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            format!("{title}: 1 of {siblings} listeners does not accept, {n}{room} wait{age}"),
            format!("{title}: 1 of {siblings} does not accept, {n}{room} wait"),
            format!("listener :{port}: 1 of {siblings} does not accept, {n}{room} wait"),
        ]),
        subject: words::listener_subject(snapshot, fullest),
        evidence,
        explanation: format!(
            "{n} connections wait at one of the {siblings} listeners on this port; at the others the median is {}. The kernel deals new connections out by a hash of the addresses, whether they are accepted or \
             not: about every {siblings}th client meets the stuck one.",
            words::thousands(median)
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            format!("linger :{port}    # which worker holds the listener with the long queue"),
            "unblock or restart that worker; net.ipv4.tcp_migrate_req=1 hands its queue on when it closes".to_owned(),
            "do not: raise the backlog; the stuck queue only gets longer".to_owned(),
        ],
        rows: rows(context, fullest),
        caused_by: None,
        one_sample,
    })
}

/// Workers of one process are told apart by the descriptor.
fn descriptor(context: &Context<'_>, listener: &Socket) -> Option<Evidence> {
    let owner = words::holder(context.snapshot, listener)?;
    let mut holders = context.snapshot.owners.of(listener.inode);
    let (_, fd) = holders.find(|(process, _)| process.pid == owner.pid)?;
    Some(Evidence::count("descriptor", fd, "", "/proc/PID/fd"))
}

fn rows(context: &Context<'_>, listener: &Socket) -> Vec<u32> {
    let is_it = |row: &&u32| {
        context
            .snapshot
            .socket(**row)
            .is_some_and(|s| s.inode == listener.inode)
    };
    context
        .tally
        .listeners
        .iter()
        .filter(is_it)
        .copied()
        .take(1)
        .collect()
}

fn example(n: u32) -> Scenario {
    group_of(n, [0, 0, 0], 10)
}

/// Four listeners of one port, and two looks.
fn group_of(longest: u32, others: [u32; 3], limit: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(901, "nginx", 50, 1024);
    scenario.listen(process, 443, longest, limit, 0);
    for other in others {
        scenario.listen(process, 443, other, limit, 0);
    }
    scenario.pulse(&[], |_| {});
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;
    use crate::analyze::scenario::{HERE, THERE};
    use crate::model::{Endpoint, Subject};

    fn found(scenario: Scenario) -> Option<Finding> {
        let findings = scenario.analyze(&Settings::default()).findings;
        findings
            .into_iter()
            .find(|finding| finding.id == DETECTOR.id)
    }

    fn severity(scenario: Scenario) -> Option<Severity> {
        found(scenario).map(|finding| finding.severity)
    }

    #[test]
    fn one_long_queue_among_empty_ones_in_two_looks() {
        let finding = found(example(7)).unwrap();
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(
            finding.title,
            "nginx[901] :443: 1 of 4 listeners does not accept, 7/10 wait"
        );
        assert_eq!(severity(example(6)), None);
        let mut emptied = example(7);
        emptied.pulse(&[], |listener| listener.recv_q = 0);
        let finding = found(emptied).unwrap();
        assert_eq!(
            (finding.severity, finding.one_sample),
            (Severity::Info, true)
        );
    }

    #[test]
    fn where_all_are_slow_nobody_is_singled_out() {
        assert_eq!(
            severity(group_of(70, [0, 9, 70], 100)),
            Some(Severity::Warning)
        );
        assert_eq!(severity(group_of(70, [0, 10, 70], 100)), None);
        let mut alone = Scenario::default();
        let process = alone.process(901, "nginx", 50, 1024);
        alone.listen(process, 443, 9, 10, 0);
        assert_eq!(severity(alone), None);
    }

    #[test]
    fn critical_when_the_stuck_one_drops() {
        let drops = |overflows, dropped| {
            let mut scenario = group_of(11, [0; 3], 10);
            scenario.pulse(&[("TcpExt.ListenOverflows", overflows)], |l| {
                if l.recv_q > 0 {
                    l.drops = Some(dropped);
                }
            });
            severity(scenario)
        };
        assert_eq!(drops(5, 5), Some(Severity::Critical));
        assert_eq!(drops(0, 5), Some(Severity::Warning), "ICMP errors");
        assert_eq!(drops(5, 0), Some(Severity::Warning), "another listener's");
    }

    /// `n` connections that have waited for so long, of which the last `others` are the siblings'.
    fn waiting(n: u32, others: u32, age: u64) -> Scenario {
        let mut scenario = group_of(n - others, [0, 0, others], 4096);
        for i in 0..n {
            let peer = Endpoint::v4(THERE, 2000 + i as u16);
            let socket = scenario.socket(TcpState::Established, Endpoint::v4(HERE, 443), peer);
            scenario.push(socket, &[("last_data_sent_ms", age)]);
        }
        scenario
    }

    #[test]
    fn an_old_queue_counts_whatever_its_limit() {
        assert_eq!(severity(waiting(10, 0, 5_001)), Some(Severity::Warning));
        assert_eq!(severity(waiting(10, 0, 5_000)), None);
        assert_eq!(severity(waiting(9, 0, 60_000)), None);
        let mut old_is_another = waiting(12, 2, 5_000);
        for info in old_is_another.snapshot.infos.iter_mut().take(2) {
            info.last_data_sent_ms = 60_000;
        }
        assert_eq!(
            severity(old_is_another),
            None,
            "two of another sibling may be the old ones"
        );
        let mut undated = waiting(10, 0, 9_000);
        undated.snapshot.infos.clear();
        let analysis = undated.analyze(&Settings::default());
        assert!(
            analysis
                .unknown
                .iter()
                .any(|unknown| unknown.id == DETECTOR.id)
        );
    }

    #[test]
    fn an_overflow_of_the_same_port_follows_from_it() {
        let mut scenario = group_of(11, [0; 3], 10);
        scenario.pulse(&[("TcpExt.ListenOverflows", 5)], |l| {
            if l.recv_q > 0 {
                l.drops = Some(5);
            }
        });
        let findings = scenario.analyze(&Settings::default()).findings;
        let overflow = findings.iter().find(|f| f.id == "listen-overflow").unwrap();
        assert_eq!(overflow.caused_by, Some(DETECTOR.id));
        assert!(matches!(
            findings[0].subject,
            Subject::Listener { port: 443, .. }
        ));
        assert_eq!(findings[0].id, DETECTOR.id);
    }
}
