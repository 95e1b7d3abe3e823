//! SYN cookies: a listener gets more SYNs than its queue takes.

use crate::analyze::queue;
use crate::analyze::rates::{self, Rate};
use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, backlog, words};
use crate::model::{Actor, Evidence, Finding, Severity, Socket, Subject, TcpState};

const SENT: &[&str] = &["TcpExt.SyncookiesSent"];

pub const DETECTOR: Detector = Detector {
    id: "syncookies-active",
    aliases: &[],
    summary: "the kernel answers SYNs with cookies because a SYN queue is full",
    signals: "SyncookiesSent between two looks, held against the connections that were accepted, and how many came \
              back (SyncookiesRecv) or were wrong (SyncookiesFailed). The counters are those of the namespace; a \
              listener is named where one alone has a full queue.",
    explanation: "A cookie lets the kernel forget a handshake until its last ACK comes. Such a handshake has no \
                  SYN-RECEIVED socket, so the table looks calmer than the traffic. If most cookies come back, real \
                  clients meet a backlog that is too small; if not, it is a flood.",
    grounds: &[
        "TCP state in OS, SYN_RCVD",
        "RFC 4987 section 3.6",
        "Linux kernel, net/ipv4/syncookies.c: cookie_v4_check()",
    ],
    advice: &[
        "if cookies come back: accept faster, and give listen() a larger backlog",
        "if they do not: filter upstream, and keep net.ipv4.tcp_syncookies=1",
    ],
    folklore: &["tcp_syncookies is no tuning knob: 2 is for tests, 0 drops the SYNs instead"],
    states: &[TcpState::Listen, TcpState::SynReceived],
    worst: Severity::Warning,
    thresholds: &[
        Threshold {
            key: "rate",
            default: 10.0,
            unit: Unit::PerSecond,
            doc: "cookies sent; fewer are a scan or the burst after a deployment",
        },
        Threshold {
            key: "share",
            default: 10.0,
            unit: Unit::Percent,
            doc: "of cookies sent and connections accepted together: a part of the traffic that matters",
        },
        Threshold {
            key: "back",
            default: 50.0,
            unit: Unit::Percent,
            doc: "of the cookies came back as valid ACKs: from here on the clients are real",
        },
    ],
    blind: &[],
    needs: Needs {
        owners: true,
        deltas: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "cookies in one second",
        limit: 10,
        build: example,
    },
};

/// The only listener whose SYN queue is full, or nearly so as some have just run out, or whose accept queue is.
fn crowded<'a>(context: &Context<'a>) -> Option<&'a Socket> {
    let facts = &context.snapshot.facts;
    let mut crowded = queue::all(context).into_iter().filter_map(|queue| {
        let fullest = queue.fullest()?;
        let open = queue.handshakes.len() as u64;
        let limit = backlog::syn_queue(facts, &queue.siblings);
        let is_full = limit.is_some_and(|syn| open > 0 && open * 10 >= syn.limit * 9);
        let overflows = fullest
            .backlog()
            .is_some_and(|limit| fullest.recv_q > limit);
        (is_full || overflows).then_some(fullest)
    });
    let first = crowded.next()?;
    crowded.next().is_none().then_some(first)
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    if let Some(verdict) = rates::settled(context, SENT, "SYN cookies") {
        return verdict;
    }
    let sent = Rate::of(context, SENT);
    let count = |name| Rate::of(context, &[name]).moved;
    let (back, wrong) = (
        count("TcpExt.SyncookiesRecv"),
        count("TcpExt.SyncookiesFailed"),
    );
    let accepted = count("Tcp.PassiveOpens");
    let share = words::percent(sent.moved, sent.moved + accepted);
    let always = backlog::cookies(&context.snapshot.facts) == Some(2);
    let many = sent.per_second() >= limits.get("rate") && share as f64 >= limits.get("share");
    let severity = if many && !always {
        Severity::Warning
    } else {
        Severity::Info
    };
    let real = back as f64 * 100.0 >= sent.moved as f64 * limits.get("back");
    let listener = crowded(context);

    let mut evidence = vec![
        Evidence::count(
            "cookies_sent",
            sent.moved,
            "packets",
            "TcpExt.SyncookiesSent",
        ),
        Evidence::real("rate", sent.per_second(), "1/s", "TcpExt.SyncookiesSent")
            .limit(limits.get("rate")),
        Evidence::count(
            "share_of_opens",
            share,
            "%",
            "TcpExt.SyncookiesSent, Tcp.PassiveOpens",
        )
        .limit(limits.get("share")),
        Evidence::count("came_back", back, "packets", "TcpExt.SyncookiesRecv"),
        Evidence::count("wrong_or_late", wrong, "packets", "TcpExt.SyncookiesFailed"),
        Evidence::count("accepted", accepted, "connections", "Tcp.PassiveOpens"),
        sent.evidence(),
    ];
    if let Some(limit) = listener.and_then(Socket::backlog) {
        let binds = backlog::Binds::of(&context.snapshot.facts, limit).words(limit);
        evidence.push(Evidence::text(
            "what_sets_the_limit",
            binds,
            "net.core.somaxconn",
        ));
    }
    let (n, window) = (words::thousands(sent.moved), sent.window());
    let tail = format!(
        "{n} SYN cookies in {window}, {} came back",
        words::thousands(back)
    );
    let named = listener.map(|listener| words::listener_title(context.snapshot, listener));
    let port = listener.map_or(String::new(), |l| format!("listener :{}: ", l.local.port));
    let who = named.map_or(String::new(), |named| format!("{named}: "));
    let story = if always {
        "net.ipv4.tcp_syncookies is 2, so every SYN is answered with a cookie, whatever the queue; that is meant for \
         tests."
    } else if real {
        "A SYN queue is full and the kernel answers with cookies. Most of them come back as finished handshakes, so \
         the clients are real and the backlog is too small, or the program accepts too slowly."
    } else {
        "A SYN queue is full and the kernel answers with cookies. Few of them come back, as in a flood with spoofed \
         senders; real clients still get in."
    };
    let command = match listener {
        Some(listener) => format!(
            "linger :{}    # its queues, and who waits",
            listener.local.port
        ),
        None => "ss -tn state syn-recv    # which listener's queue is full".to_owned(),
    };
    Verdict::of(vec![Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([format!("{who}{tail}"), format!("{port}{tail}"), tail]),
        subject: listener.map_or(Subject::Host, |listener| {
            words::listener_subject(context.snapshot, listener)
        }),
        evidence,
        explanation: story.to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: if real {
            Actor::ThisProgram
        } else {
            Actor::Operator
        },
        advice: vec![
            command,
            if always {
                "sysctl net.ipv4.tcp_syncookies=1    # cookies only when a queue is full".to_owned()
            } else if real {
                "accept faster; then a larger backlog in listen() and net.core.somaxconn, and a restart".to_owned()
            } else {
                "filter the flood upstream; cookies keep the service reachable meanwhile".to_owned()
            },
            "do not: set tcp_syncookies=0; the kernel then drops the SYNs instead".to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    }])
}

fn example(n: u32) -> Scenario {
    cookies(n, 0, 0)
}

/// So many sent, come back, and connections accepted, in one second.
fn cookies(sent: u32, back: i64, accepted: i64) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.pulse(
        &[
            ("TcpExt.SyncookiesSent", sent.into()),
            ("TcpExt.SyncookiesRecv", back),
            ("Tcp.PassiveOpens", accepted),
        ],
        |_| {},
    );
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;
    use crate::analyze::scenario::HERE;
    use crate::model::Endpoint;

    fn found(scenario: Scenario) -> Option<Finding> {
        let findings = scenario.analyze(&Settings::default()).findings;
        findings
            .into_iter()
            .find(|finding| finding.id == DETECTOR.id)
    }

    #[test]
    fn a_share_of_the_traffic_warns_and_less_informs() {
        let severity = |sent, accepted| found(cookies(sent, 0, accepted)).map(|f| f.severity);
        assert_eq!(severity(10, 90), Some(Severity::Warning));
        assert_eq!(severity(10, 91), Some(Severity::Info));
        assert_eq!(severity(9, 0), Some(Severity::Info));
        assert_eq!(severity(0, 500), None);
    }

    #[test]
    fn cookies_that_come_back_are_of_real_clients() {
        let actor = |back| found(cookies(100, back, 0)).unwrap().who_must_act;
        assert_eq!(actor(50), Actor::ThisProgram);
        assert_eq!(actor(49), Actor::Operator);
    }

    #[test]
    fn cookies_for_every_syn_are_a_setting() {
        let mut scenario = cookies(500, 500, 0);
        scenario.sysctl("net/ipv4/tcp_syncookies", "2");
        assert_eq!(found(scenario).unwrap().severity, Severity::Info);
    }

    #[test]
    fn what_was_sent_since_boot_says_nothing_of_now() {
        let mut scenario = Scenario::default();
        let sent = scenario
            .snapshot
            .facts
            .counters
            .get_mut("TcpExt.SyncookiesSent");
        *sent.unwrap() = 900;
        let analysis = scenario.clone().analyze(&Settings::default());
        assert!(
            analysis
                .unknown
                .iter()
                .any(|unknown| unknown.id == DETECTOR.id)
        );
        scenario.pulse(&[], |_| {});
        assert!(
            scenario
                .analyze(&Settings::default())
                .quiet
                .contains(&DETECTOR.id)
        );
    }

    #[test]
    fn the_listener_with_the_full_queue_is_named_and_its_flood_is_the_cause() {
        let build = |listeners: u16| {
            let mut scenario = Scenario::default();
            let process = scenario.process(901, "nginx", 50, 1024);
            for port in 0..listeners {
                scenario.listen(process, 443 + port, 0, 20, 0);
                for i in 0..21 {
                    let peer = Endpoint::v4([198, 18, i, 1], 1024);
                    let local = Endpoint::v4(HERE, 443 + port);
                    let socket = scenario.socket(TcpState::SynReceived, local, peer);
                    scenario.push(socket, &[]);
                }
            }
            scenario.pulse(&[("TcpExt.SyncookiesSent", 500)], |_| {});
            found(scenario).unwrap()
        };
        let finding = build(1);
        assert!(matches!(
            finding.subject,
            Subject::Listener { port: 443, .. }
        ));
        assert_eq!(finding.caused_by, Some("syn-flood"));
        assert_eq!(
            finding.title,
            "nginx[901] :443: 500 SYN cookies in 1.0 s, 0 came back"
        );
        assert_eq!(build(2).subject, Subject::Host, "either may have sent them");
    }
}
