//! Accept queues that are full, and listeners that drop.

use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::model::{Actor, Evidence, Finding, Severity, Socket, TcpState};

pub const DETECTOR: Detector = Detector {
    id: "listen-overflow",
    aliases: &[],
    summary: "an accept queue is full and new connections are dropped",
    signals: "LISTEN sockets: connections waiting against the queue's limit, and packets that this very listener \
              dropped between two looks. Drops alone are not enough, ICMP errors count there too: the queue over its \
              limit, ListenOverflows or TCPReqQFull* must agree.",
    explanation: "The kernel finishes handshakes and queues the connections for accept(). When the queue is full it \
                  drops the client's last ACK or its SYN, and the client tries again after a second, two, four: users \
                  see connections that take seconds or time out. The limit is the smaller of listen()'s argument \
                  and net.core.somaxconn, fixed when listen() was called.",
    grounds: &[
        "TCP state in OS, LISTEN",
        "RFC 9293 section 3.5",
        "Linux kernel, net/ipv4/tcp_ipv4.c: tcp_v4_syn_recv_sock()",
    ],
    advice: &[
        "make accept() faster: more workers, shorter work between two calls",
        "then a larger backlog: listen()'s argument and net.core.somaxconn, and restart so that listen() is called again",
    ],
    folklore: &[
        "tcp_abort_on_overflow turns the client's retry into a reset",
        "a huge somaxconn without a faster accept() only lets more clients wait",
    ],
    states: &[TcpState::Listen],
    thresholds: &[
        Threshold {
            key: "warn",
            default: 70.0,
            unit: Unit::Percent,
            doc: "of the limit in two looks; the queue is full at one above its limit",
        },
        Threshold {
            key: "min",
            default: 3.0,
            unit: Unit::Count,
            doc: "fewer connections in the queue are not near anything, however small the limit",
        },
        Threshold {
            key: "drops",
            default: 1.0,
            unit: Unit::Count,
            doc: "packets that the listener dropped between two looks, with the overflow counters agreeing: critical",
        },
    ],
    needs: Needs {
        tcp_info: false,
        drops: true,
        owners: true,
        deltas: true,
    },
    check,
    example: Example {
        of: "connections in a queue of 10, in two looks",
        limit: 7,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let mut findings = Vec::new();
    let mut unknown = 0u64;
    for row in &context.tally.listeners {
        let Some(listener) = snapshot.socket(*row) else {
            continue;
        };
        if listener.backlog().is_none() {
            unknown += u64::from(listener.recv_q > 0);
            continue;
        }
        findings.extend(judge(context, limits, *row, listener));
    }
    if findings.is_empty() && unknown > 0 {
        return Verdict::CannotTell(format!(
            "{} with waiting connections, but /proc/net does not show the limit of the queue",
            words::count(unknown, "listener")
        ));
    }
    findings.sort_by_key(|finding: &Finding| std::cmp::Reverse(finding.severity));
    Verdict::of(findings)
}

fn judge(context: &Context<'_>, limits: &Limits, row: u32, listener: &Socket) -> Option<Finding> {
    let snapshot = context.snapshot;
    let deltas = context.deltas();
    let later = deltas
        .as_ref()
        .and_then(|deltas| deltas.later(listener.cookie));
    let sooner = deltas
        .as_ref()
        .and_then(|deltas| deltas.sooner(listener.cookie));
    // Whichever look is not the snapshot's own.
    let other = [sooner, later]
        .into_iter()
        .flatten()
        .map(|l| l.recv_q)
        .find(|q| *q != listener.recv_q);
    let other = other.or(later.map(|l| l.recv_q));
    let limit = listener.send_q;
    let queue = other.map_or(listener.recv_q, |q| q.max(listener.recv_q));
    let least = other.map_or(listener.recv_q, |q| q.min(listener.recv_q));

    let over = queue > limit;
    let near = |queue: u32| {
        f64::from(queue) >= limits.get("min")
            && f64::from(queue) * 100.0 >= f64::from(limit) * limits.get("warn")
    };
    let counter = |name: &str| {
        deltas
            .as_ref()
            .and_then(|deltas| deltas.counter(name))
            .unwrap_or(0)
    };
    let overflows = counter("TcpExt.ListenOverflows");
    let syn_queue = counter("TcpExt.TCPReqQFullDrop") + counter("TcpExt.TCPReqQFullDoCookies");
    let drops = deltas
        .as_ref()
        .and_then(|deltas| deltas.drops(listener.cookie));
    let dropping = f64::from(drops.unwrap_or(0)) >= limits.get("drops").max(1.0)
        && (over || overflows > 0 || syn_queue > 0);

    let full = over && queue > 0;
    let (severity, one_sample) = if dropping && (full || near(queue) || overflows > 0) {
        (Severity::Critical, false)
    } else if full && (f64::from(queue) >= limits.get("min") || near(least)) {
        // Over its limit is its own proof.
        (Severity::Warning, false)
    } else if near(least) && other.is_some() {
        (Severity::Warning, false)
    } else if near(listener.recv_q) {
        (Severity::Info, true)
    } else {
        return None;
    };

    let mut evidence = vec![
        Evidence::count("accept_queue", queue, "connections", "idiag_rqueue").limit(limit),
        Evidence::count(
            "share_of_limit",
            words::percent(queue.into(), limit.into()),
            "%",
            "idiag_rqueue, idiag_wqueue",
        )
        .limit(limits.get("warn")),
    ];
    let window = deltas
        .as_ref()
        .map(|deltas| deltas.window.as_millis() as u64);
    if let (Some(drops), Some(window)) = (drops, window) {
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
            "TcpExt ListenOverflows",
        ));
        evidence.push(Evidence::real(
            "window",
            window as f64 / 1000.0,
            "s",
            "two looks",
        ));
    }
    if let Some(total) = snapshot.drops.get(&row) {
        evidence.push(Evidence::count(
            "dropped_since_it_was_opened",
            *total,
            "packets",
            "SK_MEMINFO_DROPS",
        ));
    }
    let somaxconn = snapshot.facts.sysctl("net/core/somaxconn");
    let binds = match somaxconn {
        Some(max) if i64::from(limit) == max => {
            format!("net.core.somaxconn ({max}), or a backlog of the same size")
        }
        Some(max) if i64::from(limit) < max => {
            format!("listen()'s argument ({limit}; net.core.somaxconn is {max})")
        }
        Some(max) => {
            format!("listen()'s argument ({limit}), from before net.core.somaxconn became {max}")
        }
        None => {
            format!("listen()'s argument or net.core.somaxconn, whichever was smaller ({limit})")
        }
    };
    evidence.push(Evidence::text(
        "what_sets_the_limit",
        binds.clone(),
        "net.core.somaxconn",
    ));

    let dropped = match (drops, window) {
        (Some(drops @ 1..), Some(window)) => format!(
            ", {} dropped in {}",
            words::thousands(drops),
            words::time(window)
        ),
        _ => String::new(),
    };
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: format!("{} accept queue {queue}/{limit}{dropped}", words::listener_title(snapshot, listener)),
        subject: words::listener_subject(snapshot, listener),
        evidence,
        explanation: if dropping {
            "The kernel has finished more connections than the program accepts; the queue is full and it drops \
             handshakes. Clients try again after 1, 2, 4 seconds, so users see slow or failing connects."
                .to_owned()
        } else if full {
            "The kernel has finished more connections than the program accepts and the queue is full. The next \
             handshake will be dropped; its client tries again after 1, 2, 4 seconds."
                .to_owned()
        } else {
            "The kernel finishes connections faster than the program accepts them. When the queue is over its limit, \
             handshakes are dropped and clients wait seconds for their next try."
                .to_owned()
        },
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            format!("linger :{}    # who should accept, and how long clients have waited", listener.local.port),
            format!("make accept() faster; then raise what sets the limit, {binds}, and restart: listen() reads it once"),
            "do not: tcp_abort_on_overflow (resets instead of retries), a huge backlog without a faster accept()".to_owned(),
        ],
        rows: vec![row],
        caused_by: None,
        one_sample,
    })
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(901, "nginx", 50, 1024);
    scenario.listen(process, 8443, n, 10, 0);
    scenario.pulse(&[], |_| {});
    scenario
}

#[cfg(test)]
mod tests {
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
        scenario.analyze(&Settings::default()).findings.pop()
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
    fn the_limit_is_attributed() {
        let text = |queue, limit: u32| {
            let mut scenario = Scenario::default();
            let process = scenario.process(1, "x", 1, 9);
            scenario.listen(process, 1, queue, limit, 0);
            let finding = scenario
                .analyze(&Settings::default())
                .findings
                .pop()
                .unwrap();
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
}
