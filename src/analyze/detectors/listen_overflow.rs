//! Accept queues that are full, and listeners that drop.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::analyze::backlog::{self, Binds};
use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{
    Blind, Context, Detector, Limits, Needs, Threshold, Unit, Verdict, group, pace, queue, words,
};
use crate::history::Deltas;
use crate::model::{Actor, Endpoint, Evidence, Family, Finding, Severity, Socket, TcpState};

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
    worst: Severity::Critical,
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
            doc: "packets that the listener dropped between two looks, or while its queue is full since one of up to ten minutes \
                  ago, with the overflow counters agreeing: critical",
        },
    ],
    blind: &[Blind {
        since: (4, 7),
        lacks: "drops of a listener",
        effect: "the drops are taken for those of the listener whose queue is full",
    }],
    needs: Needs {
        drops: true,
        owners: true,
        deltas: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "connections in a queue of 10, in two looks",
        limit: 7,
        build: example,
    },
};

/// A listener in two looks, or in one.
#[derive(Clone, Copy)]
struct Seen<'a> {
    row: u32,
    listener: &'a Socket,
    /// the longest queue and the shortest
    most: u32,
    least: u32,
    /// the queue in each of two looks, and the time between, if there were two
    looks: Option<(u32, u32, f64)>,
    /// packets that it dropped in between, or since earlier
    drops: u32,
}

impl Seen<'_> {
    /// The queue is full at one above its limit.
    fn over(&self) -> bool {
        self.most > self.listener.send_q
    }

    fn near(&self, limits: &Limits, queue: u32) -> bool {
        f64::from(queue) >= limits.get("min")
            && f64::from(queue) * 100.0 >= f64::from(self.listener.send_q) * limits.get("warn")
    }
}

/// What the counters of the namespace say for all listeners together.
#[derive(Clone, Copy, Default)]
struct Moved {
    overflows: u64,
    /// overflows that no listener with a long queue has dropped
    unexplained: u64,
    syn_queue: u64,
    /// whether any listener counts its own drops; those of kernels before 4.7 do not
    attributed: bool,
    window_ms: Option<u64>,
}

impl Moved {
    /// What moved in this time, and how much of it each listener has dropped.
    fn new(limits: &Limits, seen: &mut [Seen<'_>], deltas: Option<&Deltas<'_>>) -> Self {
        for seen in seen.iter_mut() {
            let drops = deltas.and_then(|deltas| deltas.drops(seen.listener.cookie));
            seen.drops = drops.unwrap_or(0);
        }
        let counter = |name: &str| deltas.and_then(|deltas| deltas.counter(name)).unwrap_or(0);
        let overflows = counter("TcpExt.ListenOverflows");
        let explained = seen
            .iter()
            .filter(|seen| seen.over() || seen.near(limits, seen.most))
            .map(|seen| u64::from(seen.drops))
            .sum();
        Self {
            overflows,
            unexplained: overflows.saturating_sub(explained),
            syn_queue: counter("TcpExt.TCPReqQFullDrop") + counter("TcpExt.TCPReqQFullDoCookies"),
            attributed: seen.iter().any(|seen| seen.drops > 0),
            window_ms: deltas.and_then(|deltas| u64::try_from(deltas.window.as_millis()).ok()),
        }
    }
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let deltas = context.deltas();
    let mut unknown = 0u64;
    let mut seen: Vec<Seen<'_>> = Vec::new();
    for row in &context.tally.listeners {
        let Some(listener) = snapshot.socket(*row) else {
            continue;
        };
        if listener.backlog().is_none() {
            unknown += u64::from(listener.recv_q > 0);
            continue;
        }
        let cookie = listener.cookie;
        let looks = deltas
            .as_ref()
            .and_then(|deltas| deltas.sooner(cookie).zip(deltas.later(cookie)));
        let (a, b) = looks.map_or((listener.recv_q, listener.recv_q), |(sooner, later)| {
            (sooner.recv_q, later.recv_q)
        });
        seen.push(Seen {
            row: *row,
            listener,
            most: a.max(b),
            least: a.min(b),
            looks: looks
                .and(deltas.as_ref())
                .map(|deltas| (a, b, deltas.seconds())),
            drops: 0,
        });
    }
    let moved = Moved::new(limits, &mut seen, deltas.as_ref());
    let overflows = moved.overflows;
    let mut since = seen.clone();
    let lately = context.lately();
    let moved_lately = Moved::new(limits, &mut since, lately.as_ref());
    let mut worst: BTreeMap<(bool, Endpoint), (Finding, u64)> = BTreeMap::new();
    for (seen, since) in seen.iter().zip(&since) {
        let mut finding = judge(context, limits, seen, moved);
        // A second may pass without a client that is refused; while the queue is full, what was dropped before it counts.
        if seen.over()
            && since.drops > 0
            && moved_lately.overflows + moved_lately.syn_queue > 0
            && finding
                .as_ref()
                .is_some_and(|finding| finding.severity < Severity::Critical)
        {
            let longer = judge(context, limits, since, moved_lately);
            finding = longer
                .filter(|finding| finding.severity == Severity::Critical)
                .or(finding);
        }
        let Some(finding) = finding else { continue };
        // Siblings of one SO_REUSEPORT group are one listener to its clients: the worst one stands for them.
        let key = (seen.listener.family == Family::Ipv6, seen.listener.local);
        match worst.entry(key) {
            Entry::Vacant(place) => {
                place.insert((finding, 1));
            }
            Entry::Occupied(mut place) => {
                let (known, count) = place.get_mut();
                *count += 1;
                if finding.severity > known.severity {
                    *known = finding;
                }
            }
        }
    }
    // The age of what waits, if tcp_info is at hand; nothing of it is needed to judge.
    let queues = if worst.is_empty() {
        Vec::new()
    } else {
        queue::all(context)
    };
    for queue in &queues {
        let oldest = queue.ages(context).first().map_or(0, |(age, _)| *age);
        let place = queue
            .siblings
            .first()
            .and_then(|listener| worst.get_mut(&(listener.family == Family::Ipv6, listener.local)));
        if let Some((finding, _)) = place.filter(|_| oldest > 0) {
            finding.evidence.push(Evidence::real(
                "oldest_wait",
                oldest as f64 / 1000.0,
                "s",
                "tcpi_last_data_sent",
            ));
        }
    }
    let findings: Vec<Finding> = worst
        .into_values()
        .map(|(mut finding, siblings)| {
            if siblings > 1 {
                finding.evidence.push(Evidence::count(
                    "listeners_like_this_on_the_port",
                    siblings,
                    "sockets",
                    "SO_REUSEPORT",
                ));
            }
            finding
        })
        .collect();
    if findings.is_empty() && (unknown > 0 || overflows > 0) {
        return Verdict::CannotTell(if overflows > 0 {
            format!(
                "{} in this namespace since the look before, but by none of the listeners whose queue and drops are seen",
                words::count(overflows, "accept queue overflow")
            )
        } else {
            format!(
                "{} with waiting connections, but /proc/net does not show the limit of the queue",
                words::count(unknown, "listener")
            )
        });
    }
    Verdict::of(group::capped(findings))
}

fn judge(context: &Context<'_>, limits: &Limits, seen: &Seen<'_>, moved: Moved) -> Option<Finding> {
    let snapshot = context.snapshot;
    let (row, listener, queue) = (seen.row, seen.listener, seen.most);
    let limit = listener.send_q;
    let full = seen.over();
    let long = full || seen.near(limits, queue);
    // ICMP errors in answer to our SYN-ACKs are drops too: without a long queue there must be overflows that no
    // other listener has had.
    let own = f64::from(seen.drops) >= limits.get("drops").max(1.0)
        && if long {
            full || moved.overflows > 0 || moved.syn_queue > 0
        } else {
            moved.unexplained > 0
        };
    // Kernels before 4.7 count no drops for a listener: then it is the one that is full.
    let inferred = !moved.attributed && full && moved.overflows > 0;
    let dropping = own || inferred;
    let (severity, one_sample) = if dropping {
        (Severity::Critical, false)
    } else if full && (f64::from(queue) >= limits.get("min") || seen.near(limits, seen.least)) {
        // Over its limit is its own proof.
        (Severity::Warning, false)
    } else if seen.looks.is_some() && seen.near(limits, seen.least) {
        (Severity::Warning, false)
    } else if seen.near(limits, queue) {
        (Severity::Info, true)
    } else {
        return None;
    };
    let drops = seen.looks.is_some().then_some(seen.drops);
    let (overflows, window) = (moved.overflows, moved.window_ms);

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
            "TcpExt.ListenOverflows",
        ));
        evidence.push(Evidence::real(
            "window",
            window as f64 / 1000.0,
            "s",
            "two looks",
        ));
    }
    if let Some((before, after, seconds)) = seen.looks {
        evidence.extend(pace::evidence(
            "queue_is_full_in",
            (before.into(), after.into()),
            seconds,
            limit.into(),
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
    let binds = Binds::of(&snapshot.facts, limit);
    evidence.push(Evidence::text(
        "what_sets_the_limit",
        binds.words(limit),
        "net.core.somaxconn",
    ));
    if moved.syn_queue > 0
        && let Some(queue) = backlog::syn_queue(&snapshot.facts, &[listener])
    {
        evidence.push(Evidence::text(
            "what_sets_the_limit_of_handshakes",
            queue.binds,
            "net.ipv4.tcp_max_syn_backlog, net.core.somaxconn",
        ));
    }

    let dropped = match (drops, window) {
        _ if !dropping => String::new(),
        (Some(drops @ 1..), Some(window)) => format!(
            ", {} dropped in {}",
            words::thousands(drops),
            words::time(window)
        ),
        (_, Some(window)) => format!(
            ", {} overflows here in {}",
            words::thousands(overflows),
            words::time(window)
        ),
        _ => String::new(),
    };
    let title = words::listener_title(snapshot, listener);
    let (queue, limit) = (words::thousands(queue), words::thousands(limit));
    let port = listener.local.port;
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            format!("{title} accept queue {queue}/{limit}{dropped}"),
            format!("{title} queue {queue}/{limit}{dropped}"),
            format!("listener :{port} queue {queue}/{limit}{dropped}"),
        ]),
        subject: words::listener_subject(snapshot, listener),
        evidence,
        explanation: match (dropping, full) {
            (true, true) => "The kernel has finished more connections than the program accepts; the queue is full and \
                             it drops handshakes. Clients try again after 1, 2, 4 seconds, so users see slow or \
                             failing connects.",
            (true, false) => "The kernel finishes more connections than the program accepts; between the looks the \
                              queue was full and it dropped handshakes. Clients try again after 1, 2, 4 seconds, so \
                              users see slow or failing connects.",
            (false, true) => "The kernel has finished more connections than the program accepts and the queue is \
                              full. Until the program accepts, the next handshake is dropped, and its client tries \
                              again after 1, 2, 4 seconds.",
            (false, false) => "Connections that the kernel has finished wait for accept(), and the queue is close to \
                               its limit. When it is over that, handshakes are dropped and clients wait seconds for \
                               their next try.",
        }
        .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            format!("linger :{port}    # who should accept, and how long clients have waited"),
            format!("make accept() faster; then raise {}, and restart", binds.raise()),
            "do not: set tcp_abort_on_overflow (resets instead of retries), or a huge backlog without a faster accept()".to_owned(),
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
mod tests;
