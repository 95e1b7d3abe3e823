//! UNIX listeners whose accept queue is full.

use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, group, words};
use crate::model::snapshot::identity;
use crate::model::{Actor, Evidence, Finding, Local, Severity, TcpState};

pub const DETECTOR: Detector = Detector {
    id: "unix-backlog-full",
    aliases: &[],
    summary: "a UNIX socket's accept queue is full and connect() blocks",
    signals: "UNIX sockets in LISTEN: connections waiting against the queue's limit, in two looks, and how many of \
              the waiting clients are still there. Datagram sockets are not judged: their senders wait at \
              net.unix.max_dgram_qlen in every burst.",
    explanation: "A client of a UNIX socket is connected as soon as the kernel has queued it for accept(). When the \
                  queue is over its limit connect() sleeps, and a non-blocking one fails with EAGAIN: nothing is \
                  dropped and nothing is counted. The limit is the smaller of listen()'s argument and \
                  net.core.somaxconn, fixed when listen() was called.",
    grounds: &["Linux kernel, net/unix/af_unix.c: unix_stream_connect()"],
    advice: &[
        "find out why the program does not accept(): blocked, stopped, out of descriptors",
        "then a larger backlog: listen()'s argument and net.core.somaxconn, and restart so that listen() is called again",
    ],
    folklore: &["net.unix.max_dgram_qlen is about datagrams and changes nothing here"],
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
    ],
    blind: &[],
    needs: Needs {
        unix: true,
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

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let Some(sockets) = &context.snapshot.unix else {
        return Verdict::CannotTell("the UNIX sockets were not read".to_owned());
    };
    let listeners = || {
        let sockets = sockets.iter();
        sockets.filter(|socket| socket.state == TcpState::Listen)
    };
    let findings: Vec<Finding> = listeners()
        .filter_map(|listener| judge(context, limits, listener))
        .collect();
    let hidden = listeners().filter(|l| l.recv_q.zip(l.send_q).is_none());
    let hidden = hidden.count() as u64;
    if findings.is_empty() && hidden > 0 {
        return Verdict::CannotTell(format!(
            "{}, but /proc/net/unix shows neither queues nor their limits",
            words::count(hidden, "UNIX listener")
        ));
    }
    Verdict::of(group::capped(findings))
}

fn judge(context: &Context<'_>, limits: &Limits, listener: &Local) -> Option<Finding> {
    let snapshot = context.snapshot;
    let (queue, limit) = listener.recv_q.zip(listener.send_q)?;
    let deltas = context.deltas();
    let looks = identity(listener.cookie, listener.inode)
        .and_then(|id| deltas.as_ref()?.unix(id))
        .map(|(sooner, later)| (sooner.recv_q, later.recv_q));
    let (a, b) = looks.unwrap_or((queue, queue));
    let (least, most) = (a.min(b), a.max(b));
    let enough = |queue: u32| f64::from(queue) >= limits.get("min");
    let near = |queue: u32| {
        enough(queue) && f64::from(queue) * 100.0 >= f64::from(limit) * limits.get("warn")
    };
    // Clients that have gone stay in the queue until they are accepted, and are hurt no more.
    let waits = listener.clients != Some(0);
    let twice = looks.is_some();
    let (severity, one_sample) = if twice && least > limit && enough(least) && waits {
        (Severity::Critical, false)
    } else if (most > limit && enough(most)) || (twice && near(least)) {
        // Over its limit is its own proof; that it stays there takes a second look.
        (Severity::Warning, !twice)
    } else if near(most) {
        (Severity::Info, !twice)
    } else {
        return None;
    };
    let full = most > limit;
    let owner = words::holder_of(snapshot, listener.inode);
    let mut evidence = vec![
        Evidence::count("accept_queue", most, "connections", "udiag_rqueue").limit(limit),
        Evidence::count(
            "share_of_limit",
            words::percent(most.into(), limit.into()),
            "%",
            "udiag_rqueue, udiag_wqueue",
        )
        .limit(limits.get("warn")),
    ];
    if let Some(clients) = listener.clients {
        let clients = Evidence::count("clients_that_wait", clients, "clients", "UNIX_DIAG_ICONS");
        evidence.push(clients);
    }
    if let Some(name) = &listener.name {
        evidence.push(Evidence::text("name", name.clone(), "UNIX_DIAG_NAME"));
    }
    if let Some(seconds) = context.seconds().filter(|_| twice) {
        evidence.push(Evidence::real("window", seconds, "s", "two looks"));
    }
    let who = words::owner(owner, listener.uid);
    let name = listener.name.as_deref().unwrap_or("(no name)");
    let (queue, of) = (words::thousands(most), words::thousands(limit));
    let blocks = if full { ", connect() blocks" } else { "" };
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            format!("{who} {name} accept queue {queue}/{of}{blocks}"),
            format!("{who} UNIX accept queue {queue}/{of}{blocks}"),
        ]),
        subject: words::process_subject(owner, listener.uid),
        evidence,
        explanation: if full {
            "The program does not accept() as fast as clients connect, and the queue of this UNIX socket is over its \
             limit. Every further connect() sleeps until there is room, a non-blocking one fails with EAGAIN. No \
             counter shows it."
        } else {
            "Connections to this UNIX socket wait for accept(), and the queue is close to its limit. When it is over \
             that, connect() sleeps, and a non-blocking one fails with EAGAIN."
        }
        .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            owner.map_or_else(
                || "ss -xlp    # who should accept; root sees every holder".to_owned(),
                |owner| format!("linger pid:{}    # what it holds and whether it runs", owner.pid),
            ),
            "make accept() faster; then raise listen()'s argument (net.core.somaxconn caps it) and restart".to_owned(),
            "do not: raise net.unix.max_dgram_qlen, it is about datagrams".to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample,
    })
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(812, "dockerd", 50, 1024);
    scenario.unix_listen(process, "/run/docker.sock", n, 10);
    scenario.pulse(&[], |_| {});
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;

    fn of(scenario: Scenario) -> Option<Finding> {
        scenario.judge(DETECTOR.id).findings.pop()
    }

    /// A queue with a limit of 16 in two looks.
    fn look(queue: u32, later: u32, clients: u32) -> Option<Finding> {
        let mut scenario = Scenario::default();
        let process = scenario.process(812, "dockerd", 50, 1024);
        scenario.unix_listen(process, "/run/docker.sock", queue, 16);
        scenario.snapshot.unix.as_mut().unwrap()[0].clients = Some(clients);
        scenario.pulse_queues(&[], |queue| queue.recv_q = later);
        of(scenario)
    }

    #[test]
    fn a_queue_that_stays_over_its_limit_is_critical_while_clients_wait() {
        let finding = look(17, 17, 17).unwrap();
        assert_eq!(finding.severity, Severity::Critical);
        assert_eq!(
            finding.title,
            "dockerd[812] /run/docker.sock accept queue 17/16, connect() blocks"
        );
        assert_eq!(look(17, 17, 0).unwrap().severity, Severity::Warning);
        assert_eq!(look(16, 16, 16).unwrap().severity, Severity::Warning);
        assert_eq!(look(17, 3, 17).unwrap().severity, Severity::Warning);
    }

    #[test]
    fn seventy_per_cent_twice_is_a_warning_and_once_is_info() {
        assert_eq!(look(12, 12, 12).unwrap().severity, Severity::Warning);
        assert_eq!(look(12, 0, 12).unwrap().severity, Severity::Info);
        assert_eq!(look(11, 11, 11), None);
        assert_eq!(look(0, 0, 0), None);
    }

    #[test]
    fn a_tiny_queue_is_not_near_anything() {
        let tiny = |queue, limit| {
            let mut scenario = Scenario::default();
            let process = scenario.process(1, "systemd", 50, 1024);
            scenario.unix_listen(process, "/run/x", queue, limit);
            scenario.pulse(&[], |_| {});
            of(scenario).map(|finding| finding.severity)
        };
        assert_eq!(tiny(2, 1), None, "below min");
        assert_eq!(tiny(3, 1), Some(Severity::Critical));
    }

    #[test]
    fn one_look_over_the_limit_is_a_warning_of_one_sample() {
        let mut scenario = Scenario::default();
        let process = scenario.process(812, "dockerd", 50, 1024);
        scenario.unix_listen(process, "/run/x", 17, 16);
        let finding = of(scenario).unwrap();
        assert_eq!(
            (finding.severity, finding.one_sample),
            (Severity::Warning, true)
        );
    }

    #[test]
    fn what_was_not_read_is_not_quiet() {
        let unknown = |change: fn(&mut Scenario)| {
            let mut scenario = example(7);
            change(&mut scenario);
            scenario.analyze(&Settings::default()).unknown
        };
        let not_read = unknown(|scenario| scenario.snapshot.unix = None);
        assert_eq!(not_read[0].id, DETECTOR.id);
        let no_queues = unknown(|scenario| {
            for socket in scenario.snapshot.unix.iter_mut().flatten() {
                (socket.recv_q, socket.send_q) = (None, None);
            }
        });
        assert_eq!(no_queues[0].id, DETECTOR.id);
    }

    #[test]
    fn datagram_sockets_are_not_judged() {
        let mut scenario = example(11);
        for socket in scenario.snapshot.unix.iter_mut().flatten() {
            socket.state = TcpState::Closed;
        }
        assert_eq!(of(scenario), None);
    }

    #[test]
    fn a_long_name_keeps_the_budget() {
        let mut scenario = Scenario::default();
        let process = scenario.process(812, "dockerd", 50, 1024);
        scenario.unix_listen(process, &"x".repeat(108), 17, 16);
        let title = of(scenario).unwrap().title;
        assert_eq!(
            title,
            "dockerd[812] UNIX accept queue 17/16, connect() blocks"
        );
    }
}
