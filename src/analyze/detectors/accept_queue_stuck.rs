//! Connections that the kernel has finished and the program has not accepted.

use std::collections::BTreeSet;

use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, Socket, TcpState};

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
        "Linux kernel, net/ipv4/inet_connection_sock.c",
    ],
    advice: &[
        "`linger :PORT` shows queue and holders; look at what the accept loop waits for: a full thread pool, a lock, garbage collection",
        "check whether accept() fails with EMFILE: compare open descriptors with the limit",
    ],
    folklore: &["a longer backlog only lets more clients wait"],
    states: &[TcpState::Listen, TcpState::Established, TcpState::CloseWait],
    thresholds: &[
        Threshold {
            key: "age",
            default: 1.0,
            unit: Unit::Seconds,
            doc: "warns when the oldest has waited longer; an accept loop that runs needs milliseconds",
        },
        Threshold {
            key: "queue",
            default: 50.0,
            unit: Unit::Percent,
            doc: "warns when the queue holds more of its limit than this, if three or more wait",
        },
        Threshold {
            key: "critical-age",
            default: 10.0,
            unit: Unit::Seconds,
            doc: "critical when the oldest has waited longer: most clients have given up by then",
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
    needs: Needs {
        tcp_info: true,
        drops: true,
        owners: true,
        deltas: true,
    },
    check,
    example: Example {
        of: "connections that wait, of a limit of 4",
        limit: 3,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let queued: u64 = context
        .tally
        .listeners
        .iter()
        .filter_map(|row| snapshot.socket(*row))
        .map(|listener| u64::from(listener.recv_q))
        .sum();
    if queued == 0 || context.tally.unaccepted.is_empty() {
        return Verdict::Quiet;
    }
    if snapshot.infos.is_empty() {
        return Verdict::CannotTell(format!(
            "{} not accepted yet, but without tcp_info it is not known for how long",
            words::count(queued, "connection")
        ));
    }
    let mut findings: Vec<Finding> = Vec::new();
    let mut judged: BTreeSet<(bool, Endpoint)> = BTreeSet::new();
    for row in &context.tally.listeners {
        let Some(listener) = snapshot.socket(*row) else {
            continue;
        };
        let key = (
            listener.family == crate::model::Family::Ipv6,
            listener.local,
        );
        // Siblings of one SO_REUSEPORT group share what waits: nothing says whose it is.
        if listener.recv_q > 0 && judged.insert(key) {
            findings.extend(judge(context, limits, listener));
        }
    }
    findings.sort_by(|a, b| {
        b.severity
            .cmp(&a.severity)
            .then(b.rows.len().cmp(&a.rows.len()))
    });
    Verdict::of(findings)
}

/// Whether `connection` was accepted by the kernel for `listener`.
fn belongs(connection: &Socket, listener: &Socket) -> bool {
    connection.local.port == listener.local.port
        && connection.family == listener.family
        && (listener.local.is_unspecified() || connection.local.address == listener.local.address)
}

fn judge(context: &Context<'_>, limits: &Limits, listener: &Socket) -> Option<Finding> {
    let snapshot = context.snapshot;
    let siblings: Vec<&Socket> = context
        .tally
        .listeners
        .iter()
        .filter_map(|row| snapshot.socket(*row))
        .filter(|other| other.local == listener.local && other.family == listener.family)
        .collect();
    // A full queue of one sibling is what counts; together they may look half empty.
    let fullest = siblings
        .iter()
        .copied()
        .max_by_key(|sibling| sibling.recv_q)?;
    let queue = u64::from(fullest.recv_q);
    let limit = fullest.send_q;

    let mut waiting: Vec<(u64, u32)> = Vec::new();
    let mut peers = BTreeSet::new();
    for row in &context.tally.unaccepted {
        let Some(socket) = snapshot
            .socket(*row)
            .filter(|socket| belongs(socket, listener))
        else {
            continue;
        };
        // Nothing was sent on it: the stamp dates from the handshake. ACKs of the client's data restamp the others.
        let age = snapshot
            .info(socket)
            .map_or(0, |info| u64::from(info.last_data_sent_ms));
        waiting.push((age, *row));
        peers.insert(socket.remote.ip());
    }
    waiting.sort_unstable_by(|a, b| b.cmp(a));
    let (oldest, _) = *waiting.first()?;
    let count = waiting.len() as u64;
    let drops = context
        .deltas()
        .and_then(|deltas| deltas.drops(fullest.cookie))
        .unwrap_or(0);

    let full = listener.backlog().is_some()
        && queue >= 3
        && queue as f64 > f64::from(limit) * limits.get("queue") / 100.0;
    let long = oldest > limits.ms("age");
    let enough = count as f64 >= (f64::from(limit) * limits.get("critical-share") / 100.0).max(2.0);
    let several = peers.len() as f64 >= limits.get("critical-peers") || drops > 0;
    let severity = if oldest > limits.ms("critical-age") && enough && several {
        Severity::Critical
    } else if long || full {
        Severity::Warning
    } else {
        return None;
    };
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
    evidence.push(if listener.backlog().is_some() {
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
    if let Some(owner) = snapshot.owner(fullest) {
        if let (Some(fds), Some(nofile)) = (owner.fds, owner.nofile) {
            evidence.push(
                Evidence::count("open_descriptors", fds, "descriptors", "/proc/PID/fd")
                    .limit(nofile as f64),
            );
        }
        if let Some(state @ ('T' | 't' | 'D')) = owner.run_state {
            let why = if state == 'D' {
                "uninterruptible sleep (D)"
            } else {
                "stopped (T)"
            };
            evidence.push(Evidence::text("why_it_does_not_run", why, "/proc/PID/stat"));
        }
    }
    let again = if closed > 0 {
        " Some of these clients have already closed again."
    } else {
        ""
    };
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: format!(
            "{}: {} wait for accept(), the oldest {}",
            words::listener_title(snapshot, fullest), words::count(count, "connection"), words::time(oldest),
        ),
        subject: words::listener_subject(snapshot, fullest),
        evidence,
        explanation: format!(
            "The kernel has finished these connections, the program has not accepted them. Their clients believe \
             they are connected and wait for an answer.{again}"
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            format!("linger :{}    # queue, limit, holders, peers", listener.local.port),
            "find what the accept loop waits for: a full thread pool, a lock, EMFILE, a stopped process".to_owned(),
            "do not raise the backlog first: it only lets more clients wait".to_owned(),
        ],
        rows: waiting.into_iter().map(|(_, row)| row).take(10).collect(),
        caused_by: None,
        one_sample: false,
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
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;

    /// `n` connections from `peers` hosts that have waited so long in front of a queue of 100.
    fn wait(n: u32, peers: u32, age: u64) -> Option<Finding> {
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
        scenario.analyze(&Settings::default()).findings.pop()
    }

    #[test]
    fn age_decides_and_is_that_of_the_handshake() {
        assert_eq!(wait(1, 1, 1000), None);
        let finding = wait(1, 1, 1001).unwrap();
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(
            finding.title,
            "nginx[901] :80: 1 connection wait for accept(), the oldest 1.0 s"
        );
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
}
