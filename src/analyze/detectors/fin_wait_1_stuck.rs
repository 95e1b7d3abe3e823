//! FIN-WAIT-1 that lasts: this side has closed, and what it still had to say is not acknowledged.

use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::unanswered::{self, Kind};
use crate::analyze::{Context, Detector, Limits, Needs, Verdict, role};
use crate::model::{Severity, TcpState};

pub const DETECTOR: Detector = Detector {
    id: KIND.id,
    aliases: &[],
    summary: "the FIN of this side, or data before it, is not acknowledged",
    signals: "FIN-WAIT-1 sockets that retransmit, by dialled destination or listener, against the others in use \
              there. Those whose peer has closed its window are left out: they are zero-window-peer's. A listener's \
              vanished clients are a background that a public server always has.",
    explanation: "This side closed first and waits for the acknowledgement of its FIN. A living peer's kernel sends it \
                  whatever its program does, though it may delay it: 45 ms are normal. close() enters this state also \
                  while data waits before the FIN, so with a Send-Q above 1 the FIN may not even be sent.",
    grounds: KIND.grounds,
    advice: &[
        "look at the way to the peers and at what they have in common: a route, a NAT, a firewall",
        "where a program still holds the sockets, set TCP_USER_TIMEOUT: the kernel then gives up sooner",
    ],
    folklore: &[
        "tcp_fin_timeout does not end FIN-WAIT-1",
        "a lower tcp_orphan_retries also cuts off slow peers that are alive",
    ],
    states: &[TcpState::FinWait1],
    worst: Severity::Critical,
    thresholds: &[
        unanswered::AGE,
        unanswered::RETRIES,
        role::MIN,
        role::SHARE,
        role::BACKGROUND,
    ],
    blind: &[],
    needs: Needs {
        tcp_info: true,
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "unanswered closes towards one destination",
        limit: 5,
        build: example,
    },
};

const KIND: Kind = Kind {
    id: "fin-wait-1-stuck",
    state: "FIN-WAIT-1",
    grounds: &[
        "TCP state in OS, FIN_WAIT_1",
        "RFC 9293 section 3.6",
        "Linux kernel, net/ipv4/tcp.c: tcp_close()",
    ],
    fin: "This side closed first, only its FIN is out, and the peer does not acknowledge it",
    data: "This side has closed",
    not: "do not: lower tcp_fin_timeout (no effect here) or tcp_orphan_retries (cuts off slow peers that live)",
    twice: None,
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    unanswered::check(context, limits, &context.tally.fin_wait_1, &KIND)
}

fn example(n: u32) -> Scenario {
    unanswered::example(TcpState::FinWait1, n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;
    use crate::analyze::scenario::{HERE, THERE};
    use crate::model::{Actor, Endpoint, Finding, Severity, Socket, Subject, TcpInfo, Timer};

    fn findings(scenario: Scenario) -> Vec<Finding> {
        let mut settings = Settings::default();
        settings.only(&[KIND.id.to_owned()]).unwrap();
        scenario.analyze(&settings).findings
    }

    fn severity(scenario: Scenario) -> Option<Severity> {
        findings(scenario).first().map(|finding| finding.severity)
    }

    /// The example with all its stuck sockets changed.
    fn with(n: u32, change: impl Fn(&mut Socket, &mut TcpInfo)) -> Scenario {
        let mut scenario = example(n);
        let snapshot = &mut scenario.snapshot;
        for socket in &mut snapshot.sockets {
            if socket.state == TcpState::FinWait1 {
                let info = socket.info.unwrap().index();
                change(socket, &mut snapshot.infos[info]);
            }
        }
        scenario
    }

    /// `stuck` clients of a listener with `alive` others.
    fn served(stuck: u32, alive: u16) -> Scenario {
        let mut scenario = with(stuck, |socket, _| {
            socket.remote.port = socket.local.port;
            socket.local.port = 443;
        });
        let process = scenario.process(901, "nginx", 60, 1 << 20);
        scenario.listen(process, 443, 0, 511, 0);
        for i in 0..alive {
            let (local, remote) = (
                Endpoint::v4(HERE, 443),
                Endpoint::v4([198, 51, (i >> 8) as u8, i as u8], 5_000),
            );
            let socket = scenario.socket(TcpState::Established, local, remote);
            scenario.push(socket, &[]);
        }
        scenario
    }

    #[test]
    fn only_the_fin_is_out() {
        let finding = findings(example(5)).remove(0);
        assert_eq!(
            finding.title,
            "to 198.51.100.7:443: 5 of 17 sockets in FIN-WAIT-1, the FIN unanswered, oldest 13 s"
        );
        assert!(finding.explanation.contains("only its FIN is out"));
        assert!(
            finding
                .explanation
                .ends_with("gives up after about 107 s (tcp_orphan_retries 0)."),
            "{}",
            finding.explanation
        );
        assert_eq!(finding.who_must_act, Actor::Network);
        assert!(matches!(
            finding.subject,
            Subject::Destination { port: 443, .. }
        ));
    }

    #[test]
    fn with_data_before_it_the_fin_may_not_be_sent() {
        let finding = findings(with(5, |socket, _| socket.send_q = 42_921)).remove(0);
        assert!(
            finding.title.contains("214,600 bytes and then the FIN"),
            "{}",
            finding.title
        );
        assert!(finding.explanation.contains("may not even be sent"));
        let none = findings(with(5, |_, _| {})).remove(0);
        assert!(!none.explanation.contains("may not even be sent"));
    }

    #[test]
    fn critical_is_for_lost_data_or_a_destination_that_is_still_wanted() {
        // 5 of 17 are 29 %, 6 of 18 a third.
        let lost = |n| with(n, |socket, _| socket.send_q = 2);
        assert_eq!(severity(lost(5)), Some(Severity::Warning));
        assert_eq!(severity(lost(6)), Some(Severity::Critical));
        assert_eq!(severity(example(6)), Some(Severity::Warning));
        let wanted = |retransmits| {
            let mut scenario = example(6);
            let mut socket = scenario.socket(
                TcpState::SynSent,
                Endpoint::v4(HERE, 41_000),
                Endpoint::v4(THERE, 443),
            );
            socket.retransmits = retransmits;
            scenario.push(socket, &[]);
            severity(scenario)
        };
        assert_eq!(wanted(1), Some(Severity::Critical));
        assert_eq!(wanted(0), Some(Severity::Warning), "a fresh attempt");
    }

    #[test]
    fn age_and_retransmissions_are_both_needed() {
        let aged = |ms: u64| {
            with(5, move |_, info| {
                // The loss probe and the first time-out add 400 ms to what is counted.
                let raw = crate::model::tcp_info::example(&[
                    ("retransmits", 6),
                    ("total_rto_recoveries", 1),
                    ("total_rto_time_ms", ms - 400),
                ]);
                *info = TcpInfo::parse(&raw).unwrap();
            })
        };
        assert_eq!(severity(aged(3_000)), Some(Severity::Warning));
        assert_eq!(severity(aged(2_999)), None, "a delayed answer is normal");
        let tried = |n| with(5, move |socket, _| socket.retransmits = n);
        assert_eq!(severity(tried(2)), Some(Severity::Warning));
        assert_eq!(severity(tried(1)), None);
    }

    #[test]
    fn a_closed_window_is_another_finding() {
        let persist = with(20, |socket, _| socket.timer = Timer::Persist);
        assert_eq!(severity(persist), None);
    }

    #[test]
    fn vanished_clients_are_a_listeners_background() {
        assert_eq!(severity(served(40, 1_960)), Some(Severity::Info));
        assert_eq!(severity(served(100, 100)), Some(Severity::Warning));
        assert_eq!(severity(served(4, 0)), Some(Severity::Info));
        let finding = findings(served(40, 1_960)).remove(0);
        assert_eq!(finding.who_must_act, Actor::Nobody);
        assert!(matches!(
            finding.subject,
            Subject::Listener { port: 443, .. }
        ));
        // Lost data or not: those who come to us are never critical.
        let mut lost = served(100, 10);
        lost.snapshot
            .sockets
            .iter_mut()
            .for_each(|socket| socket.send_q = 9_000);
        assert_eq!(severity(lost), Some(Severity::Warning));
    }

    #[test]
    fn one_or_two_towards_many_destinations_are_one_finding() {
        let spread = |n| {
            let mut scenario = example(n);
            for (i, socket) in (0u8..).zip(&mut scenario.snapshot.sockets) {
                socket.remote = Endpoint::v4([203, 0, 113, i / 2], 443);
            }
            findings(scenario)
        };
        let found = spread(40);
        let [finding] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(finding.subject, Subject::Host);
        assert_eq!(
            finding.severity,
            Severity::Warning,
            "40 of 52 of all that was dialled"
        );
        let found = spread(4);
        assert!(found.iter().all(|f| f.severity == Severity::Info));
        assert_eq!(found.len(), 2, "few are told one by one");
    }

    #[test]
    fn a_peer_that_is_still_heard_means_loss_in_one_direction() {
        let heard = |ms| {
            let scenario = with(5, move |_, info| info.last_ack_recv_ms = ms);
            findings(scenario).remove(0).explanation
        };
        assert!(heard(6_400).contains("what this host sends"));
        assert!(heard(12_900).contains("probably gone"));
    }

    #[test]
    fn who_holds_them_decides_how_long_they_last() {
        let mut scenario = with(5, |socket, _| socket.inode = 9_000);
        let process = scenario.process(78, "legacy", 60, 1024);
        let socket = scenario.socket(
            TcpState::Established,
            Endpoint::v4(HERE, 1),
            Endpoint::v4(THERE, 1),
        );
        let socket = scenario.held_by(
            process,
            Socket {
                inode: 9_000,
                ..socket
            },
        );
        assert_eq!(socket.inode, 9_000);
        let finding = findings(scenario).remove(0);
        assert!(finding.explanation.contains("924 s (tcp_retries2 15)"));
        assert!(finding.advice[1].contains("TCP_USER_TIMEOUT"));
        assert!(finding.evidence.iter().any(|e| e.name == "most_held_by"));
    }

    #[test]
    fn where_attempts_go_unanswered_too_that_is_the_root() {
        let mut scenario = example(5);
        for i in 0..3 {
            let mut socket = scenario.socket(
                TcpState::SynSent,
                Endpoint::v4(HERE, 41_000 + i),
                Endpoint::v4(THERE, 443),
            );
            socket.retransmits = 4;
            scenario.push(socket, &[]);
        }
        let findings = scenario.analyze(&Settings::default()).findings;
        let finding = findings.iter().find(|f| f.id == KIND.id).unwrap();
        assert_eq!(finding.caused_by, Some("syn-sent-blackhole"));
    }

    #[test]
    fn without_tcp_info_the_age_is_open() {
        let mut scenario = example(5);
        for socket in &mut scenario.snapshot.sockets {
            socket.info = None;
        }
        let analysis = scenario.analyze(&Settings::default());
        let unknown: Vec<_> = analysis.unknown.iter().map(|u| u.id).collect();
        assert!(unknown.contains(&KIND.id), "{unknown:?}");
        assert_eq!(severity(example(0)), None);
    }
}
