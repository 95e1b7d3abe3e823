//! Connections that the kernel has finished and the program has not accepted.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::analyze::group;
use crate::analyze::queue::{self, Queue};
use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::history::Deltas;
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, TcpState};

pub const DETECTOR: Detector = Detector {
    id: "accept-queue-stuck",
    aliases: &[],
    summary: "finished connections wait in front of accept()",
    signals: "ESTABLISHED and CLOSE-WAIT sockets that no process holds, on a listener whose accept queue is not empty: \
              how many against the queue's limit, and how long the oldest has waited.",
    explanation: "The kernel finishes the handshake by itself, and even acknowledges a peer that closes again, for \
                  connections that the program has not accepted. Clients believe that they are connected and wait. \
                  A few milliseconds are normal; seconds mean that the accept loop does not run.",
    grounds: &[
        "TCP state in OS, LISTEN",
        "TCP state in OS, CLOSE_WAIT",
        "RFC 9293 section 3.5",
        "Linux kernel, net/ipv4/inet_connection_sock.c: inet_csk_accept()",
    ],
    advice: &[
        "`linger :PORT` shows queue and holders; look at what the accept loop waits for: a full thread pool, a lock, garbage collection",
        "check whether accept() fails with EMFILE: compare open descriptors with the limit",
    ],
    folklore: &["a longer backlog only lets more clients wait"],
    states: &[TcpState::Listen, TcpState::Established, TcpState::CloseWait],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "age",
            default: 1.0,
            unit: Unit::Seconds,
            doc: "warns when two or more wait, the oldest for longer, and the queue was not emptied meanwhile; an accept \
                  loop that runs needs milliseconds",
        },
        Threshold {
            key: "queue",
            default: 50.0,
            unit: Unit::Percent,
            doc: "warns when the queue holds more of its limit than this in two looks, if three or more wait",
        },
        Threshold {
            key: "critical-age",
            default: 10.0,
            unit: Unit::Seconds,
            doc: "critical when the oldest has waited longer, and a warning for a single one: most clients have given up \
                  by then",
        },
        Threshold {
            key: "critical-share",
            default: 10.0,
            unit: Unit::Percent,
            doc: "critical needs this much of the queue's limit waiting, and at least two",
        },
        Threshold {
            key: "critical-peers",
            default: 2.0,
            unit: Unit::Count,
            doc: "critical needs this many different peers, or drops that rise: one odd client is no outage",
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
        of: "connections that wait in two looks, of a limit of 4",
        limit: 3,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let queues = queue::all(context);
    let queued: u64 = queues.iter().map(Queue::length).sum();
    if queued == 0 {
        return Verdict::Quiet;
    }
    let waiting = queues.iter().filter(|queue| queue.length() > 0);
    let undated = waiting
        .flat_map(|queue| &queue.waiting)
        .filter_map(|row| snapshot.socket(*row))
        .filter(|socket| snapshot.info(socket).is_none())
        .count() as u64;
    let findings: Vec<Finding> = queues
        .iter()
        .filter(|queue| queue.length() > 0)
        .filter_map(|queue| judge(context, limits, queue))
        .collect();
    if findings.is_empty() && undated > 0 {
        return Verdict::CannotTell(format!(
            "{} not accepted yet, but without tcp_info it is not known for how long",
            words::count(undated, "connection")
        ));
    }
    Verdict::of(group::capped(findings))
}

fn judge(context: &Context<'_>, limits: &Limits, queue: &Queue<'_>) -> Option<Finding> {
    let snapshot = context.snapshot;
    let siblings = &queue.siblings;
    // A full queue of one sibling is what counts; together they may look half empty.
    let fullest = queue.fullest()?;
    let limit = fullest.send_q;
    let waiting = queue.ages(context);
    let peers: BTreeSet<IpAddr> = waiting
        .iter()
        .filter_map(|(_, row)| snapshot.socket(*row))
        .map(|socket| socket.remote.ip())
        .collect();
    let (oldest, _) = *waiting.first()?;
    let count = waiting.len() as u64;
    let deltas = context.deltas();
    let dropped = |deltas: Option<&Deltas<'_>>| {
        deltas
            .and_then(|deltas| deltas.drops(fullest.cookie))
            .unwrap_or(0)
    };
    // A second may pass without a client that is refused; while the queue is full, what was dropped before it counts.
    let full = fullest.backlog().is_some() && fullest.recv_q > limit;
    let lately = context.lately().filter(|_| full);
    let drops = dropped(deltas.as_ref()).max(dropped(lately.as_ref()));

    let crowded = |queue: u32| {
        fullest.backlog().is_some()
            && queue >= 3
            && f64::from(queue) > f64::from(limit) * limits.get("queue") / 100.0
    };
    // In both looks; a listener that is new in one has had one look only.
    let other = deltas.as_ref().and_then(|deltas| {
        let sooner = deltas.sooner(fullest.cookie)?.recv_q;
        Some(sooner.min(deltas.later(fullest.cookie)?.recv_q))
    });
    let long = oldest > limits.ms("age");
    let enough = count as f64 >= (f64::from(limit) * limits.get("critical-share") / 100.0).max(2.0);
    let several = peers.len() as f64 >= limits.get("critical-peers") || drops > 0;
    let (severity, one_sample) = if oldest > limits.ms("critical-age") && enough && several {
        (Severity::Critical, false)
    } else if long && (other == Some(0) || count == 1 && oldest <= limits.ms("critical-age")) {
        // A collection of garbage that is over, or the second client of a server that serves one at a time.
        (Severity::Info, false)
    } else if long || crowded(fullest.recv_q) && other.is_some_and(crowded) {
        (Severity::Warning, false)
    } else if crowded(fullest.recv_q) {
        // One accept() that is late by milliseconds looks the same.
        (Severity::Info, true)
    } else {
        return None;
    };
    let queue = u64::from(fullest.recv_q);
    let closed = waiting
        .iter()
        .filter_map(|(_, row)| snapshot.socket(*row))
        .filter(|socket| socket.state == TcpState::CloseWait)
        .count();

    let mut evidence = vec![
        Evidence::count("not_accepted", count, "connections", "idiag_inode"),
        Evidence::real(
            "oldest_wait",
            oldest as f64 / 1000.0,
            "s",
            "tcpi_last_data_sent",
        )
        .limit(limits.get("age")),
        Evidence::count("peers", peers.len() as u64, "hosts", "idiag_dst")
            .limit(limits.get("critical-peers")),
    ];
    let accept_queue = Evidence::count("accept_queue", queue, "connections", "idiag_rqueue");
    evidence.push(if fullest.backlog().is_some() {
        accept_queue.limit(limit)
    } else {
        accept_queue
    });
    if closed > 0 {
        evidence.push(Evidence::count(
            "gone_again",
            closed as u64,
            "connections",
            "idiag_state",
        ));
    }
    if siblings.len() > 1 {
        evidence.push(Evidence::count(
            "listeners_on_this_port",
            siblings.len() as u64,
            "sockets",
            "SO_REUSEPORT",
        ));
    }
    if let Some(owner) = words::holder(snapshot, fullest) {
        evidence.extend(words::descriptors(Some(owner)));
        if let Some(state @ ('T' | 't' | 'D')) = owner.run_state {
            let why = if state == 'D' {
                "uninterruptible sleep (D)"
            } else {
                "stopped (T)"
            };
            evidence.push(Evidence::text("why_it_does_not_run", why, "/proc/PID/stat"));
        }
    }
    let clients = match closed as u64 {
        0 => "Their clients believe they are connected and wait for an answer",
        n if n == count => {
            "Their clients have all closed again, and still each has to be accepted and closed here"
        }
        _ => {
            "Their clients believe they are connected and wait for an answer; some have already closed again"
        }
    };
    let title = words::listener_title(snapshot, fullest);
    let (n, age) = (words::count(count, "connection"), words::time(oldest));
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            format!("{title}: {n} waiting for accept(), the oldest {age}"),
            format!("{title}: {n} not accepted, {age}"),
            format!(
                "listener :{}: {n} waiting for accept(), the oldest {age}",
                fullest.local.port
            ),
        ]),
        subject: words::listener_subject(snapshot, fullest),
        evidence,
        explanation: format!(
            "The kernel has finished these connections, the program has not accepted them. {clients}."
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            format!("linger :{}    # queue, limit, holders, peers", fullest.local.port),
            "find what the accept loop waits for: a full thread pool, a lock, EMFILE, a stopped process".to_owned(),
            "do not: raise the backlog first; it only lets more clients wait".to_owned(),
        ],
        rows: waiting.into_iter().map(|(_, row)| row).take(10).collect(),
        caused_by: None,
        one_sample,
    })
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(901, "nginx", 50, 1024);
    scenario.listen(process, 8443, n, 4, 0);
    for i in 0..n {
        let (local, remote) = (
            Endpoint::v4([192, 0, 2, 1], 8443),
            Endpoint::v4([198, 51, 100, i as u8], 5000),
        );
        let socket = scenario.socket(TcpState::Established, local, remote);
        scenario.push(
            socket,
            &[("last_data_sent_ms", 300), ("last_ack_recv_ms", 5)],
        );
    }
    scenario.pulse(&[], |_| {});
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;

    /// `n` connections from `peers` hosts that have waited so long in front of a queue of 100.
    fn waiting(n: u32, peers: u32, age: u64) -> Scenario {
        let mut scenario = Scenario::default();
        let process = scenario.process(901, "nginx", 50, 1024);
        scenario.listen(process, 80, n, 100, 0);
        for i in 0..n {
            let remote = Endpoint::v4([198, 51, 100, (i % peers) as u8], 5000 + i as u16);
            let socket = scenario.socket(
                TcpState::Established,
                Endpoint::v4([192, 0, 2, 1], 80),
                remote,
            );
            scenario.push(
                socket,
                &[("last_data_sent_ms", age), ("last_ack_recv_ms", 4)],
            );
        }
        scenario
    }

    fn wait(n: u32, peers: u32, age: u64) -> Option<Finding> {
        waiting(n, peers, age).judge(DETECTOR.id).findings.pop()
    }

    #[test]
    fn age_decides_and_is_that_of_the_handshake() {
        assert_eq!(wait(2, 1, 1000), None);
        let finding = wait(2, 1, 1001).unwrap();
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(
            finding.title,
            "nginx[901] :80: 2 connections waiting for accept(), the oldest 1.0 s"
        );
    }

    #[test]
    fn a_server_that_serves_one_client_at_a_time_is_info_for_a_while() {
        assert_eq!(wait(1, 1, 1000), None);
        assert_eq!(wait(1, 1, 10_000).unwrap().severity, Severity::Info);
        assert_eq!(wait(1, 1, 10_001).unwrap().severity, Severity::Warning);
    }

    #[test]
    fn a_pause_that_is_over_in_the_second_look_is_info() {
        let after = |later: u32| {
            let mut scenario = waiting(9, 2, 3_000);
            scenario.pulse(&[], |listener| listener.recv_q = later);
            scenario.judge(DETECTOR.id).findings.remove(0).severity
        };
        assert_eq!(after(0), Severity::Info);
        assert_eq!(after(1), Severity::Warning);
    }

    #[test]
    fn critical_needs_many_and_several_peers() {
        assert_eq!(wait(10, 2, 10_001).unwrap().severity, Severity::Critical);
        assert_eq!(
            wait(9, 2, 10_001).unwrap().severity,
            Severity::Warning,
            "10 % of the limit are 10"
        );
        assert_eq!(
            wait(10, 1, 10_001).unwrap().severity,
            Severity::Warning,
            "one odd client"
        );
    }

    #[test]
    fn drops_of_a_full_queue_since_an_earlier_look_are_no_odd_client() {
        let severity = |queue: u32, drops: u32, seconds| {
            let mut scenario = waiting(queue, 1, 10_001);
            scenario.snapshot.sockets[0].send_q = 10;
            scenario.remember(seconds);
            scenario.snapshot.drops.insert(0, drops);
            scenario.pulse(&[], |_| {});
            scenario.judge(DETECTOR.id).findings.remove(0).severity
        };
        assert_eq!(severity(11, 2, 60), Severity::Critical);
        assert_eq!(severity(11, 0, 60), Severity::Warning);
        assert_eq!(severity(10, 2, 60), Severity::Warning, "not full");
        assert_eq!(severity(11, 2, 601), Severity::Warning, "long ago");
    }

    #[test]
    fn a_held_connection_is_accepted() {
        let mut scenario = Scenario::default();
        let process = scenario.process(901, "nginx", 50, 1024);
        scenario.listen(process, 80, 1, 100, 0);
        let socket = scenario.socket(
            TcpState::Established,
            Endpoint::v4([192, 0, 2, 1], 80),
            Endpoint::v4([198, 51, 100, 1], 9),
        );
        let socket = scenario.held_by(process, socket);
        scenario.push(socket, &[("last_data_sent_ms", 99_000)]);
        assert_eq!(scenario.analyze(&Settings::default()).findings, vec![]);
    }

    #[test]
    fn a_crowded_queue_in_one_look_may_be_a_late_accept() {
        let one = |later: Option<u32>| {
            let mut scenario = example(3);
            scenario.history = crate::history::History::default();
            if let Some(later) = later {
                scenario.pulse(&[], |listener| listener.recv_q = later);
            }
            let finding = scenario
                .analyze(&Settings::default())
                .findings
                .pop()
                .unwrap();
            (finding.severity, finding.one_sample)
        };
        assert_eq!(one(None), (Severity::Info, true));
        assert_eq!(one(Some(0)), (Severity::Info, true));
        assert_eq!(one(Some(3)), (Severity::Warning, false));
    }

    #[test]
    fn a_connection_waits_for_the_listener_of_its_own_address() {
        let mut scenario = Scenario::default();
        let (one, other) = (
            scenario.process(1001, "one", 50, 1024),
            scenario.process(1002, "other", 50, 1024),
        );
        scenario.listen(one, 80, 1, 100, 0);
        let row = scenario.listen(other, 80, 1, 100, 0);
        let here = Endpoint::v4([192, 0, 2, 1], 80);
        scenario.snapshot.sockets[row as usize].local = here;
        for (port, local) in [(1, here), (2, Endpoint::v4([192, 0, 2, 9], 80))] {
            let remote = Endpoint::v4([198, 51, 100, 1], port);
            let socket = scenario.socket(TcpState::Established, local, remote);
            scenario.push(socket, &[("last_data_sent_ms", 2_000 * u64::from(port))]);
        }
        let mut titles: Vec<_> = scenario
            .analyze(&Settings::default())
            .findings
            .into_iter()
            .map(|finding| finding.title)
            .collect();
        titles.sort();
        assert_eq!(
            titles,
            [
                "one[1001] :80: 1 connection waiting for accept(), the oldest 4.0 s",
                "other[1002] 192.0.2.1:80: 1 connection waiting for accept(), the oldest 2.0 s"
            ]
        );
    }

    #[test]
    fn clients_that_have_gone_are_not_said_to_wait() {
        let mut scenario = Scenario::default();
        let process = scenario.process(901, "nginx", 50, 1024);
        scenario.listen(process, 80, 1, 100, 0);
        let socket = scenario.socket(
            TcpState::CloseWait,
            Endpoint::v4([192, 0, 2, 1], 80),
            Endpoint::v4([198, 51, 100, 1], 9),
        );
        scenario.push(socket, &[("last_data_sent_ms", 9_000)]);
        let finding = scenario.judge(DETECTOR.id).findings.remove(0);
        assert!(
            finding.explanation.contains("have all closed again")
                && !finding.explanation.contains("wait for an"),
            "{}",
            finding.explanation
        );
    }

    #[test]
    fn without_tcp_info_it_cannot_tell_unless_nothing_waits() {
        let unknown = |queue| {
            let mut scenario = Scenario::default();
            let process = scenario.process(901, "nginx", 50, 1024);
            scenario.listen(process, 80, queue, 100, 0);
            let socket = scenario.socket(
                TcpState::Established,
                Endpoint::v4([192, 0, 2, 1], 80),
                Endpoint::v4([198, 51, 100, 1], 9),
            );
            scenario.push(socket, &[]);
            let unknown = scenario.analyze(&Settings::default()).unknown;
            unknown.iter().any(|unknown| unknown.id == DETECTOR.id)
        };
        assert!(unknown(1) && !unknown(0));
    }
}
