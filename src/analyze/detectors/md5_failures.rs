//! Segments that are refused by their signature or by their timestamp.

use crate::analyze::rates::{self, Rate};
use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{Context, Detector, Limits, Moved, Needs, Threshold, Unit, Verdict, words};
use crate::model::{Actor, Evidence, Finding, Severity, Socket, Subject};

/// Signatures that were missing, not expected, or wrong.
const SIGNATURES: &[&str] = &[
    "TcpExt.TCPMD5NotFound",
    "TcpExt.TCPMD5Unexpected",
    "TcpExt.TCPMD5Failure",
    "TcpExt.TCPAOBad",
    "TcpExt.TCPAOKeyNotFound",
];

/// Timestamps from the past, without `PAWSOldAck`, which is harmless by definition.
const TIMESTAMPS: &[&str] = &["TcpExt.PAWSActive", "TcpExt.PAWSEstab"];

/// Where BGP listens, whose sessions are signed.
const BGP: u16 = 179;

pub const DETECTOR: Detector = Detector {
    id: "md5-failures",
    aliases: &["paws-drops"],
    summary: "segments are refused for a wrong signature, or for a timestamp from the past",
    signals: "TCPMD5NotFound, TCPMD5Unexpected, TCPMD5Failure, TCPAOBad and TCPAOKeyNotFound between two looks; a \
              listener whose own drops rose with them is named. The form paws-drops: PAWSActive and PAWSEstab against \
              the segments that came in.",
    explanation: "A signed session (BGP) drops every segment without the right key, without a word to the peer. PAWS \
                  drops segments whose timestamp lies in the past: old duplicates, or several hosts with clocks of \
                  their own behind one NAT address.",
    grounds: &[
        "RFC 2385 section 2.0",
        "RFC 5925 section 7.5",
        "RFC 7323 section 5",
    ],
    advice: &[
        "signatures: compare the keys of both ends; one of them was changed or is missing",
        "timestamps: look for a NAT device that many clients share",
    ],
    folklore: &["tcp_timestamps=0 is no cure: it takes the protection away from every connection"],
    states: &[],
    worst: Severity::Warning,
    thresholds: &[
        Threshold {
            key: "min",
            default: 3.0,
            unit: Unit::Count,
            doc: "refused signatures between two looks: more than the retries of one stray peer; fewer count if they go on",
        },
        Threshold {
            key: "paws",
            default: 1.0,
            unit: Unit::PerSecond,
            doc: "segments with an old timestamp; reordering makes a few of them",
        },
        Threshold {
            key: "paws-share",
            default: 1.0,
            unit: Unit::Percent,
            doc: "of the segments that came in: below, it is the noise of clients behind NAT",
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
        of: "refused signatures between two looks",
        limit: 3,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let found: Vec<Finding> = signatures(context, limits)
        .into_iter()
        .chain(timestamps(context, limits))
        .collect();
    let open = [SIGNATURES, TIMESTAMPS]
        .into_iter()
        .find(|names| !matches!(context.moved(names), Moved::By(_)));
    match open.and_then(|names| rates::settled(context, names, "refused segments")) {
        Some(cannot_tell) if found.is_empty() => cannot_tell,
        _ => Verdict::of(found),
    }
}

/// The only listener that dropped anything meanwhile; a refused segment for a listener counts there too.
fn dropping<'a>(context: &Context<'a>) -> Option<&'a Socket> {
    let deltas = context.deltas()?;
    let mut dropping = context
        .tally
        .listeners
        .iter()
        .filter_map(|row| context.snapshot.socket(*row))
        .filter(|listener| deltas.drops(listener.cookie).is_some_and(|drops| drops > 0));
    let first = dropping.next()?;
    dropping.next().is_none().then_some(first)
}

fn signatures(context: &Context<'_>, limits: &Limits) -> Option<Finding> {
    let refused = Rate::of(context, SIGNATURES);
    if refused.moved == 0 {
        return None;
    }
    let goes_on = rates::lasts(context, SIGNATURES);
    let severity = if refused.moved as f64 >= limits.get("min") || goes_on {
        Severity::Warning
    } else {
        Severity::Info
    };
    let listener = dropping(context);
    let mut evidence = vec![
        Evidence::count(
            "refused",
            refused.moved,
            "segments",
            "TcpExt.TCPMD5*, TcpExt.TCPAO*",
        )
        .limit(limits.get("min")),
        refused.evidence(),
    ];
    evidence.extend(rates::evidence(
        context,
        &[
            ("without_a_signature", "TcpExt.TCPMD5NotFound", "segments"),
            (
                "signature_not_expected",
                "TcpExt.TCPMD5Unexpected",
                "segments",
            ),
            ("wrong_signature", "TcpExt.TCPMD5Failure", "segments"),
            ("wrong_authentication", "TcpExt.TCPAOBad", "segments"),
            ("unknown_key", "TcpExt.TCPAOKeyNotFound", "segments"),
        ],
    ));
    if goes_on {
        evidence.push(Evidence::text(
            "goes_on",
            "it rose in each of the last two intervals",
            "two looks and more",
        ));
    }
    let port = listener.map(|listener| listener.local.port);
    let tail = format!(
        "{} refused for their signature in {}",
        words::count(refused.moved, "segment"),
        refused.window()
    );
    let who = listener.map_or(String::new(), |listener| {
        format!("{}: ", words::listener_title(context.snapshot, listener))
    });
    let brief = port.map_or(String::new(), |port| format!("listener :{port}: "));
    let session = if port == Some(BGP) {
        "A BGP session to that peer does not come up, or ends with its hold timer."
    } else {
        "The session does not come up, or hangs until its time-out."
    };
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([format!("{who}{tail}"), format!("{brief}{tail}"), tail]),
        subject: listener.map_or(Subject::Host, |listener| {
            words::listener_subject(context.snapshot, listener)
        }),
        evidence,
        explanation: format!(
            "Signed TCP (MD5, AO) drops a segment whose signature is missing, not expected or wrong, and tells the \
             peer nothing. {session} The counters do not say which peer it is."
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Operator,
        advice: vec![
            "tcpdump -nvi any 'tcp[tcpflags] & tcp-syn != 0'    # who sends with and without the md5 option".to_owned(),
            "compare the keys of both ends: one was changed, or is missing for this address".to_owned(),
            "do not: take the key away from one end only; that refuses everything".to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    })
}

fn timestamps(context: &Context<'_>, limits: &Limits) -> Option<Finding> {
    let old = Rate::of(context, TIMESTAMPS);
    if old.moved == 0 || old.per_second() < limits.get("paws") {
        return None;
    }
    let segments = context.moved(&["Tcp.InSegs"]).by();
    let share = |all: u64| old.moved as f64 * 100.0 / all.max(old.moved) as f64;
    let severity = if segments.is_some_and(|all| share(all) >= limits.get("paws-share")) {
        Severity::Warning
    } else {
        Severity::Info
    };
    let mut evidence = vec![
        Evidence::count(
            "refused",
            old.moved,
            "segments",
            "TcpExt.PAWSActive, TcpExt.PAWSEstab",
        ),
        Evidence::real(
            "rate",
            old.per_second(),
            "1/s",
            "TcpExt.PAWSActive, TcpExt.PAWSEstab",
        )
        .limit(limits.get("paws")),
        old.evidence(),
    ];
    if let Some(all) = segments {
        evidence.push(
            Evidence::real("share_of_segments", share(all), "%", "Tcp.InSegs")
                .limit(limits.get("paws-share")),
        );
    }
    evidence.extend(rates::evidence(
        context,
        &[
            ("refused_in_time_wait", "TcpExt.PAWSTimewait", "segments"),
            ("harmless_old_acks", "TcpExt.PAWSOldAck", "segments"),
            ("echo_never_sent", "TcpExt.TSEcrRejected", "segments"),
        ],
    ));
    Some(Finding {
        id: DETECTOR.id,
        variant: Some("paws-drops"),
        severity,
        title: format!(
            "{} dropped for a timestamp from the past in {}",
            words::count(old.moved, "segment"),
            old.window()
        ),
        subject: Subject::Host,
        evidence,
        explanation: "PAWS keeps old duplicates out of a connection by their timestamps, as TIME-WAIT does between \
                      two connections. Reordering makes a few such drops. Many come from several hosts behind one \
                      NAT address whose clocks differ."
            .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Network,
        advice: vec![
            "nstat -z TcpExtPAWSActive TcpExtPAWSEstab    # again: since the call before".to_owned(),
            "look for a NAT device that many clients share, or a link that reorders".to_owned(),
            "do not: set tcp_timestamps=0; it takes the protection away from every connection".to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    })
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.pulse(&[("TcpExt.TCPMD5NotFound", n.into())], |_| {});
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;

    fn found(moved: &[(&str, i64)]) -> Vec<Finding> {
        let mut scenario = Scenario::default();
        scenario.pulse(moved, |_| {});
        let findings = scenario.analyze(&Settings::default()).findings;
        findings
            .into_iter()
            .filter(|f| f.id == DETECTOR.id)
            .collect()
    }

    #[test]
    fn single_ones_are_stray_peers_unless_they_go_on() {
        let severity = |n| {
            found(&[("TcpExt.TCPMD5Unexpected", n)])
                .first()
                .map(|f| f.severity)
        };
        assert_eq!(severity(0), None);
        assert_eq!(severity(2), Some(Severity::Info));
        assert_eq!(severity(3), Some(Severity::Warning));
        let bump = |scenario: &mut Scenario, by| {
            let counter = scenario
                .snapshot
                .facts
                .counters
                .get_mut("TcpExt.TCPMD5NotFound");
            *counter.unwrap() += by;
        };
        let after = |second: i64| {
            let mut scenario = Scenario::default();
            scenario.remember(60);
            bump(&mut scenario, 1);
            scenario.remember(60);
            bump(&mut scenario, second);
            let findings = scenario.analyze(&Settings::default()).findings;
            findings.first().map(|finding| finding.severity)
        };
        assert_eq!(after(1), Some(Severity::Warning), "one a minute, and again");
        assert_eq!(after(0), None);
    }

    #[test]
    fn the_listener_that_dropped_them_is_named() {
        let mut scenario = Scenario::default();
        let process = scenario.process(179, "bgpd", 50, 1024);
        scenario.listen(process, 179, 0, 64, 7);
        scenario.listen(process, 2605, 0, 64, 0);
        scenario.pulse(&[("TcpExt.TCPMD5NotFound", 15)], |listener| {
            if let Some(drops @ 1..) = listener.drops.as_mut() {
                *drops += 15;
            }
        });
        let finding = scenario.judge(DETECTOR.id).findings.remove(0);
        assert_eq!(
            finding.title,
            "bgpd[179] :179: 15 segments refused for their signature in 1.0 s"
        );
        assert!(matches!(
            finding.subject,
            Subject::Listener { port: 179, .. }
        ));
        assert!(finding.explanation.contains("BGP"));
    }

    #[test]
    fn old_timestamps_are_held_against_the_traffic() {
        let severity = |n, segments| {
            let found = found(&[("TcpExt.PAWSEstab", n), ("Tcp.InSegs", segments)]);
            found
                .first()
                .map(|finding| (finding.variant, finding.severity))
        };
        let paws = |severity| Some((Some("paws-drops"), severity));
        assert_eq!(severity(10, 1_000), paws(Severity::Warning));
        assert_eq!(
            severity(10, 1_001),
            paws(Severity::Info),
            "clients behind NAT"
        );
        assert_eq!(severity(0, 1_000), None);
        let slow = {
            let mut scenario = Scenario::default();
            scenario.remember(60);
            let facts = &mut scenario.snapshot.facts;
            *facts.counters.get_mut("TcpExt.PAWSEstab").unwrap() += 59;
            scenario.analyze(&Settings::default())
        };
        assert_eq!(slow.findings, [], "59 in a minute");
    }

    #[test]
    fn old_acks_are_harmless() {
        let mut scenario = Scenario::default();
        scenario
            .snapshot
            .facts
            .counters
            .insert("TcpExt.PAWSOldAck".into(), 0);
        scenario.pulse(&[("TcpExt.PAWSOldAck", 5_000)], |_| {});
        assert_eq!(scenario.analyze(&Settings::default()).findings, []);
    }

    #[test]
    fn one_look_is_not_quiet_where_it_has_ever_happened() {
        let mut scenario = Scenario::default();
        scenario
            .snapshot
            .facts
            .counters
            .insert("TcpExt.PAWSEstab".into(), 9);
        let analysis = scenario.analyze(&Settings::default());
        assert!(
            analysis
                .unknown
                .iter()
                .any(|unknown| unknown.id == DETECTOR.id)
        );
    }
}
