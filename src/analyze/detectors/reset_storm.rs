//! Resets: connections that are aborted instead of closed.

use crate::analyze::rates::{self, Rate};
use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::model::{Actor, Evidence, Finding, Severity, Subject};

/// All that the verdict rests on.
const COUNTERS: &[&str] = &[
    "Tcp.EstabResets",
    "Tcp.AttemptFails",
    "Tcp.OutRsts",
    "TcpExt.TCPAbortOnClose",
];

pub const DETECTOR: Detector = Detector {
    id: "reset-storm",
    aliases: &[],
    summary: "many connections end by a reset, or are refused",
    signals: "Between two looks, against the connections that were opened: TCPAbortOnClose (closed here with unread \
              data), EstabResets beyond what was accepted (dialled ones, or older ones), AttemptFails without \
              EmbryonicRsts (dialled and refused). OutRsts alone answer scans; resets by clients are health checks \
              and browsers: info.",
    explanation: "A reset ends a connection at once: no FIN, no CLOSE-WAIT, no TIME-WAIT, and what was under way is \
                  lost. A program that closes with unread data sends one, and so does SO_LINGER 0, which is counted \
                  as TCPAbortOnData.",
    grounds: &[
        "RFC 9293 section 3.5.2",
        "RFC 9293 section 3.6.1",
        "Linux kernel, net/ipv4/tcp.c: __tcp_close()",
    ],
    advice: &[
        "read to end of file before close(); take SO_LINGER 0 away",
        "let the client's idle time-out be shorter than the server's",
    ],
    folklore: &["SO_LINGER 0 avoids TIME-WAIT by losing data"],
    states: &[],
    worst: Severity::Warning,
    thresholds: &[
        Threshold {
            key: "rate",
            default: 10.0,
            unit: Unit::PerSecond,
            doc: "resets; fewer are health checks and scans",
        },
        Threshold {
            key: "share",
            default: 5.0,
            unit: Unit::Percent,
            doc: "of the connections opened in the same time",
        },
    ],
    blind: &[],
    needs: Needs {
        deltas: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "connections of 200, closed with unread data in a second",
        limit: 10,
        build: example,
    },
};

/// What is reset, and by whom.
struct Kind {
    count: u64,
    of: u64,
    severity: Severity,
    what: &'static str,
    explanation: &'static str,
    actor: Actor,
    advice: [&'static str; 3],
}

impl Kind {
    fn rate(&self, context: &Context<'_>) -> Rate {
        Rate {
            moved: self.count,
            seconds: context.seconds().unwrap_or(1.0),
        }
    }
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    if let Some(verdict) = rates::settled(context, COUNTERS, "resets") {
        return verdict;
    }
    let count = |names: &[&str]| Rate::of(context, names).moved;
    let (dialled, accepted) = (count(&["Tcp.ActiveOpens"]), count(&["Tcp.PassiveOpens"]));
    let unread = count(&["TcpExt.TCPAbortOnClose"]);
    let aborted = unread + count(&["TcpExt.TCPAbortOnData"]);
    let resets = count(&["Tcp.EstabResets"]);
    // Both ends' aborts end an established connection; the rest came from the peers.
    let by_peers = resets.saturating_sub(aborted);
    // Each that was accepted may have been reset by its client, as health checks do; what is more was dialled, or is
    // older.
    let upstream = by_peers.saturating_sub(accepted);
    // Scans that reset their own handshake count as failed attempts too.
    let refused = count(&["Tcp.AttemptFails"])
        .saturating_sub(count(&["TcpExt.EmbryonicRsts"]))
        .min(dialled);
    // A restarted server resets all that it had, once.
    let goes_on = upstream > 0 && rates::lasts(context, &["Tcp.EstabResets"]);
    // Clients of TLS often close with the other end's farewell unread, and nobody loses anything.
    let farewells = unread.min(dialled);
    let unread_kind = |count, severity, actor| Kind {
        count,
        of: dialled + accepted,
        severity,
        what: "closed here with unread data",
        explanation: "Programs on this host close connections although data waits to be read, so the kernel sends \
                      a reset instead of a FIN. The peer may lose the end of an answer that was already sent; where \
                      this end dialled, it is often only the other's farewell that was not read.",
        actor,
        advice: [
            "nstat -z TcpExtTCPAbortOnClose TcpExtTCPAbortOnData TcpEstabResets    # again: since the call before",
            "read to end of file, with a time-out, before close()",
            "do not: use SO_LINGER 0 to get rid of TIME-WAIT; that resets too",
        ],
    };
    let kinds = [
        unread_kind(unread - farewells, Severity::Warning, Actor::ThisProgram),
        Kind {
            count: upstream,
            of: dialled,
            severity: if goes_on {
                Severity::Warning
            } else {
                Severity::Info
            },
            what: "reset by the other end, beyond those accepted",
            explanation: "More connections were reset by their peers than this host accepted in that time, so they \
                          are older ones, or ones that it dialled. Often the other end closes idle connections \
                          sooner than this one does, was restarted, or has run out of something.",
            actor: Actor::Peer,
            advice: [
                "nstat -z TcpEstabResets TcpActiveOpens    # again: since the call before",
                "keep idle connections for less long than the other end does, and look at its log",
                "do not: retry at once and without end; it adds to the storm",
            ],
        },
        Kind {
            count: refused,
            of: dialled,
            severity: Severity::Warning,
            what: "dialled from here, refused",
            explanation: "The other end answered with a reset: nobody listens on that port, or a firewall says so. \
                          A refusal leaves no socket behind, so no table shows where to.",
            actor: Actor::Operator,
            advice: [
                "nstat -z TcpAttemptFails TcpActiveOpens    # again: since the call before",
                "tcpdump -ni any 'tcp[tcpflags] & tcp-rst != 0'    # shows to whom, and from which port",
                "do not: retry at once and without end; wait longer after each refusal",
            ],
        },
        unread_kind(farewells, Severity::Info, Actor::Nobody),
        Kind {
            count: by_peers.saturating_sub(upstream),
            of: accepted,
            severity: Severity::Info,
            what: "reset by their clients",
            explanation: "Clients end connections with a reset. Health checks of load balancers and browsers that stop \
                          a download do so by design.",
            actor: Actor::Nobody,
            advice: [
                "nstat -z TcpEstabResets TcpPassiveOpens    # again: since the call before",
                "nothing to do, unless users complain",
                "do not: log each of them as an error",
            ],
        },
        Kind {
            // Without an end of a connection: segments for ports and connections that do not exist.
            count: count(&["Tcp.OutRsts"]).saturating_sub(aborted),
            of: 0,
            severity: Severity::Info,
            what: "answered with a reset: no such port or connection",
            explanation: "Segments came for ports that nobody listens on or for connections that are gone, and the \
                          kernel answered each with a reset. Port scans do that all day.",
            actor: Actor::Nobody,
            advice: [
                "nstat -z TcpOutRsts    # again: since the call before",
                "nothing to do, unless a service should listen there",
                "do not: hide it with a firewall that drops; clients then wait for a time-out",
            ],
        },
    ];
    let enough = |kind: &&Kind| {
        kind.rate(context).per_second() >= limits.get("rate")
            && kind.count as f64 * 100.0 >= kind.of as f64 * limits.get("share")
    };
    // One story: the worst kind, with all counters as evidence.
    let first = kinds.iter().filter(enough);
    // Of equals the first.
    match first.min_by_key(|kind| std::cmp::Reverse(kind.severity)) {
        Some(kind) => Verdict::of(vec![finding(context, limits, kind)]),
        None => Verdict::Quiet,
    }
}

fn finding(context: &Context<'_>, limits: &Limits, kind: &Kind) -> Finding {
    let rate = kind.rate(context);
    let mut evidence = vec![
        Evidence::count("resets", kind.count, "connections", "Tcp, TcpExt"),
        Evidence::real("rate", rate.per_second(), "1/s", "Tcp, TcpExt").limit(limits.get("rate")),
    ];
    if kind.of > 0 {
        evidence.push(
            Evidence::count(
                "share_of_opens",
                words::percent(kind.count, kind.of),
                "%",
                "Tcp.ActiveOpens, Tcp.PassiveOpens",
            )
            .limit(limits.get("share")),
        );
    }
    evidence.push(rate.evidence());
    evidence.extend(rates::evidence(
        context,
        &[
            ("dialled", "Tcp.ActiveOpens", "connections"),
            ("accepted", "Tcp.PassiveOpens", "connections"),
            ("established_and_reset", "Tcp.EstabResets", "connections"),
            ("resets_sent", "Tcp.OutRsts", "segments"),
            ("attempts_failed", "Tcp.AttemptFails", "connections"),
            (
                "closed_with_unread_data",
                "TcpExt.TCPAbortOnClose",
                "connections",
            ),
            (
                "so_linger_0_or_late_data",
                "TcpExt.TCPAbortOnData",
                "connections",
            ),
            ("linger_ran_out", "TcpExt.TCPAbortOnLinger", "connections"),
            ("timed_out", "TcpExt.TCPAbortOnTimeout", "connections"),
            ("challenge_acks", "TcpExt.TCPChallengeACK", "segments"),
        ],
    ));
    let (n, window) = (words::thousands(kind.count), rate.window());
    let tail = kind.what;
    let title = match (kind.of, kind.actor) {
        (0, Actor::Nobody) => format!(
            "{} in {window}: {tail}",
            words::count(kind.count, "segment")
        ),
        (of, _) if of >= kind.count => {
            format!(
                "{n} of {} connections in {window}: {tail}",
                words::thousands(of)
            )
        }
        _ => format!(
            "{} in {window}: {tail}",
            words::count(kind.count, "connection")
        ),
    };
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity: kind.severity,
        title: words::fit([title, format!("{n} in {window}: {tail}")]),
        subject: Subject::Host,
        evidence,
        explanation: kind.explanation.to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: kind.actor,
        advice: kind.advice.map(str::to_owned).to_vec(),
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    }
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.pulse(
        &[
            ("Tcp.PassiveOpens", 200),
            ("Tcp.EstabResets", n.into()),
            ("TcpExt.TCPAbortOnClose", n.into()),
        ],
        |_| {},
    );
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;

    fn found(moved: &[(&str, i64)]) -> Option<Finding> {
        let mut scenario = Scenario::default();
        scenario.pulse(moved, |_| {});
        scenario.judge(DETECTOR.id).findings.pop()
    }

    #[test]
    fn rate_and_share_are_both_needed() {
        let close = |n, opened| {
            found(&[
                ("TcpExt.TCPAbortOnClose", n),
                ("Tcp.EstabResets", n),
                ("Tcp.OutRsts", n),
                ("Tcp.PassiveOpens", opened),
            ])
            .map(|finding| finding.severity)
        };
        assert_eq!(close(10, 200), Some(Severity::Warning));
        assert_eq!(close(9, 100), None);
        assert_eq!(close(10, 201), None);
    }

    #[test]
    fn health_checks_that_reset_are_info() {
        let finding = found(&[("Tcp.PassiveOpens", 60), ("Tcp.EstabResets", 60)]).unwrap();
        assert_eq!(
            (finding.severity, finding.who_must_act),
            (Severity::Info, Actor::Nobody)
        );
        let own = found(&[
            ("Tcp.ActiveOpens", 60),
            ("Tcp.EstabResets", 60),
            ("Tcp.OutRsts", 60),
            ("TcpExt.TCPAbortOnData", 60),
        ]);
        assert_eq!(own, None, "our own checks end with SO_LINGER 0");
    }

    #[test]
    fn a_port_scan_is_info() {
        let finding = found(&[("Tcp.OutRsts", 500), ("Tcp.PassiveOpens", 5)]).unwrap();
        assert_eq!(finding.severity, Severity::Info);
        assert!(finding.title.starts_with("500 segments in 1.0 s"));
        let half_open = found(&[
            ("Tcp.ActiveOpens", 100),
            ("Tcp.AttemptFails", 40),
            ("TcpExt.EmbryonicRsts", 40),
        ]);
        assert_eq!(half_open, None, "the scanner resets its own handshakes");
    }

    #[test]
    fn what_was_dialled_and_reset_or_refused_warns() {
        let reset = |n| {
            let finding = found(&[
                ("Tcp.ActiveOpens", 200),
                ("Tcp.PassiveOpens", 20),
                ("Tcp.EstabResets", n),
            ]);
            finding.map(|finding| (finding.severity, finding.who_must_act))
        };
        assert_eq!(reset(30), Some((Severity::Info, Actor::Peer)));
        assert_eq!(reset(29), Some((Severity::Info, Actor::Nobody)));
        let pool = found(&[("Tcp.EstabResets", 50)]).unwrap();
        assert_eq!(pool.who_must_act, Actor::Peer, "all of them older");
        assert!(
            pool.title
                .starts_with("50 connections in 1.0 s: reset by the other end")
        );
        let refused = |n| found(&[("Tcp.ActiveOpens", 200), ("Tcp.AttemptFails", n)]);
        assert_eq!(refused(9), None);
        let finding = refused(10).unwrap();
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(
            finding.title,
            "10 of 200 connections in 1.0 s: dialled from here, refused"
        );
    }

    #[test]
    fn a_restarted_upstream_resets_its_pools_once_and_a_storm_goes_on() {
        let seen = |before: i64| {
            let mut scenario = Scenario::default();
            scenario.remember(1);
            let counters = &mut scenario.snapshot.facts.counters;
            counters.insert("Tcp.EstabResets".into(), before);
            scenario.pulse(&[("Tcp.EstabResets", 40)], |_| {});
            let finding = scenario.judge(DETECTOR.id).findings.remove(0);
            (finding.severity, finding.who_must_act)
        };
        assert_eq!(seen(0), (Severity::Info, Actor::Peer));
        assert_eq!(seen(40), (Severity::Warning, Actor::Peer));
    }

    #[test]
    fn clients_that_leave_the_servers_farewell_unread_lose_nothing() {
        let closed = |dialled| {
            let moved = [
                ("Tcp.ActiveOpens", dialled),
                ("TcpExt.TCPAbortOnClose", 60),
                ("Tcp.EstabResets", 60),
            ];
            found(&moved).map(|finding| finding.severity)
        };
        assert_eq!(closed(60), Some(Severity::Info));
        assert_eq!(closed(50), Some(Severity::Warning), "10 were accepted");
    }

    #[test]
    fn one_event_in_an_instant_is_no_storm() {
        let mut scenario = Scenario::default();
        scenario.pulse(&[("Tcp.ActiveOpens", 9), ("Tcp.AttemptFails", 9)], |_| {});
        let mut pulse = scenario.history.pulse().unwrap().clone();
        pulse.taken = scenario.snapshot.taken + std::time::Duration::from_millis(5);
        scenario.history.set_pulse(pulse);
        assert_eq!(scenario.analyze(&Settings::default()).findings, []);
    }

    #[test]
    fn one_look_cannot_tell() {
        let mut scenario = Scenario::default();
        scenario
            .snapshot
            .facts
            .counters
            .insert("Tcp.OutRsts".into(), 9);
        let analysis = scenario.analyze(&Settings::default());
        assert!(
            analysis
                .unknown
                .iter()
                .any(|unknown| unknown.id == DETECTOR.id)
        );
    }
}
