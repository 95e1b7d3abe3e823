//! Listeners under load whose accept queue is as short as a setting, or a tiny argument, makes it.

use crate::analyze::backlog::Binds;
use crate::analyze::queue;
use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, group, words};
use crate::model::{Actor, Evidence, Finding, Severity, TcpState};

pub const DETECTOR: Detector = Detector {
    id: "backlog-clamped",
    aliases: &[],
    summary: "an accept queue under load has its limit from net.core.somaxconn, or from a tiny backlog",
    signals: "LISTEN sockets whose limit equals net.core.somaxconn or is tiny, and whose queue was half full in two \
              looks or dropped connections. Without load nothing is said: many programs ask for somaxconn itself.",
    explanation: "listen() takes the smaller of its argument and net.core.somaxconn of its namespace, and says nothing \
                  when it cuts. Which of the two it was cannot be seen. A change counts when listen() is called \
                  again, after a restart.",
    grounds: &[
        "Linux kernel, net/socket.c: __sys_listen()",
        "Linux kernel, Documentation/admin-guide/sysctl/net.rst: somaxconn",
    ],
    advice: &[
        "first make accept() faster: a queue that fills is a program that is late",
        "raise net.core.somaxconn in the namespace of the program, and restart it",
    ],
    folklore: &["a huge somaxconn without a faster accept() only lets more clients wait"],
    states: &[TcpState::Listen],
    worst: Severity::Warning,
    thresholds: &[
        Threshold {
            key: "queue",
            default: 50.0,
            unit: Unit::Percent,
            doc: "of the limit, in two looks: the limit is in sight",
        },
        Threshold {
            key: "min",
            default: 3.0,
            unit: Unit::Count,
            doc: "fewer connections in the queue are one late accept()",
        },
        Threshold {
            key: "tiny",
            default: 5.0,
            unit: Unit::Count,
            doc: "a limit up to this is an old example's argument, too short for any burst",
        },
    ],
    blind: &[],
    needs: Needs {
        drops: true,
        owners: true,
        deltas: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "connections in a queue of 20 = somaxconn, in two looks",
        limit: 10,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let deltas = context.deltas();
    let overflows = context.moved(&["TcpExt.ListenOverflows"]).by().unwrap_or(0);
    let mut findings = Vec::new();
    let mut open = 0;
    for queue in queue::all(context) {
        let Some(listener) = queue.fullest() else {
            continue;
        };
        let looks = deltas.as_ref().and_then(|deltas| {
            deltas
                .sooner(listener.cookie)
                .zip(deltas.later(listener.cookie))
        });
        let (sooner, later) = looks.map_or((listener.recv_q, 0), |(a, b)| (a.recv_q, b.recv_q));
        let most = sooner.max(later);
        let Some(limit) = listener.backlog() else {
            open += u64::from(f64::from(most) >= limits.get("min"));
            continue;
        };
        let pressed = |queue: u32| {
            f64::from(queue) >= limits.get("min")
                && f64::from(queue) * 100.0 >= f64::from(limit) * limits.get("queue")
        };
        let drops = deltas
            .as_ref()
            .and_then(|deltas| deltas.drops(listener.cookie))
            .unwrap_or(0);
        let dropping = drops > 0 && overflows > 0;
        let (severity, one_sample) = if dropping || pressed(sooner) && pressed(later) {
            (Severity::Warning, false)
        } else if pressed(most) {
            (Severity::Info, true)
        } else {
            continue;
        };
        let binds = Binds::of(&snapshot.facts, limit);
        let tiny = f64::from(limit) <= limits.get("tiny");
        if binds == Binds::Unknown {
            open += 1;
        }
        if !(tiny || matches!(binds, Binds::Somaxconn(_))) {
            continue;
        }
        let lost = if dropping {
            format!(", {} dropped", words::thousands(drops))
        } else {
            String::new()
        };
        let reason = if tiny {
            "listen() was given so little"
        } else {
            "as net.core.somaxconn"
        };
        let title = words::listener_title(snapshot, listener);
        let port = listener.local.port;
        let (n, room) = (words::thousands(most), words::thousands(limit));
        let mut evidence = vec![
            Evidence::count("accept_queue", most, "connections", "idiag_rqueue").limit(limit),
            Evidence::text(
                "what_sets_the_limit",
                binds.words(limit),
                "net.core.somaxconn",
            ),
            Evidence::count(
                "dropped_by_this_listener",
                drops,
                "packets",
                "SK_MEMINFO_DROPS",
            ),
        ];
        if queue.siblings.len() > 1 {
            evidence.push(Evidence::count(
                "listeners_on_this_port",
                queue.siblings.len() as u64,
                "sockets",
                "SO_REUSEPORT",
            ));
        }
        findings.push(Finding {
            id: DETECTOR.id,
            variant: None,
            severity,
            title: words::fit([
                format!("{title}: queue limit {room}, {reason}, and {n} wait{lost}"),
                format!("{title}: queue limit {room}, and {n} wait{lost}"),
                format!("listener :{port}: queue limit {room}, and {n} wait{lost}"),
            ]),
            subject: words::listener_subject(snapshot, listener),
            evidence,
            explanation: if tiny {
                "The queue for accept() is tiny, as listen() was given so small a backlog, and connections wait in \
                 it. Any burst overflows it. A larger argument counts when listen() is called again."
            } else {
                "Connections wait, and the queue for accept() is as long as net.core.somaxconn allows. Either the \
                 program asked for that much, or listen() cut what it asked for without a word. A change counts \
                 when listen() is called again."
            }
            .to_owned(),
            grounds: DETECTOR.grounds.to_vec(),
            who_must_act: if tiny { Actor::ThisProgram } else { Actor::Operator },
            advice: vec![
                format!("linger :{port}    # who should accept, and how long clients have waited"),
                if tiny {
                    "give listen() a larger backlog, and restart the program".to_owned()
                } else {
                    "make accept() faster; raise net.core.somaxconn in this very namespace, and restart".to_owned()
                },
                "do not: raise it and leave it at that; without a faster accept() more clients only wait for longer".to_owned(),
            ],
            rows: context
                .tally
                .listeners
                .iter()
                .copied()
                .filter(|row| snapshot.socket(*row).is_some_and(|s| s.local == listener.local))
                .take(10)
                .collect(),
            caused_by: None,
            one_sample,
        });
    }
    if findings.is_empty() && open > 0 {
        return Verdict::CannotTell(format!(
            "{} with waiting connections, but the limit of the queue or net.core.somaxconn could not be read",
            words::count(open, "listener")
        ));
    }
    Verdict::of(group::capped(findings))
}

fn example(n: u32) -> Scenario {
    queued(n, n, 20, 0)
}

/// A listener with somaxconn 20, its queue in two looks, its limit, and what it dropped.
fn queued(sooner: u32, later: u32, limit: u32, dropped: u32) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.sysctl("net/core/somaxconn", "20");
    let process = scenario.process(901, "nginx", 50, 1024);
    scenario.listen(process, 8443, sooner, limit, 0);
    scenario.pulse(&[("TcpExt.ListenOverflows", dropped.into())], |listener| {
        listener.recv_q = later;
        listener.drops = Some(dropped);
    });
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;

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
    fn half_a_queue_twice_warns_and_once_informs() {
        let finding = found(example(10)).unwrap();
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(
            finding.title,
            "nginx[901] :8443: queue limit 20, as net.core.somaxconn, and 10 wait"
        );
        assert_eq!(severity(example(9)), None);
        let once = found(queued(10, 0, 20, 0)).unwrap();
        assert_eq!((once.severity, once.one_sample), (Severity::Info, true));
        assert_eq!(
            severity(queued(0, 0, 20, 4)),
            Some(Severity::Warning),
            "it dropped"
        );
    }

    #[test]
    fn a_backlog_of_somaxconn_without_load_is_how_go_asks() {
        assert_eq!(severity(queued(0, 0, 20, 0)), None);
        assert_eq!(severity(queued(2, 2, 20, 0)), None);
    }

    #[test]
    fn what_listen_was_given_is_told_only_where_it_is_tiny() {
        assert_eq!(severity(queued(6, 6, 6, 0)), None);
        let finding = found(queued(5, 5, 5, 0)).unwrap();
        assert!(
            finding.title.contains("listen() was given so little"),
            "{}",
            finding.title
        );
        assert_eq!(finding.who_must_act, Actor::ThisProgram);
        assert_eq!(
            severity(queued(2, 2, 3, 0)),
            None,
            "two are one late accept()"
        );
    }

    #[test]
    fn an_overflow_is_the_worse_news_of_the_same_listener() {
        let finding = found(queued(21, 21, 20, 4)).unwrap();
        assert_eq!(finding.caused_by, Some("listen-overflow"));
    }

    #[test]
    fn without_somaxconn_it_cannot_tell() {
        let mut scenario = example(10);
        scenario.snapshot.facts.sysctls.clear();
        let analysis = scenario.analyze(&Settings::default());
        assert!(
            analysis
                .unknown
                .iter()
                .any(|unknown| unknown.id == DETECTOR.id)
        );
    }
}
