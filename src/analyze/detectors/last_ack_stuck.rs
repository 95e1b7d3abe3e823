//! LAST-ACK that lasts: both sides have closed, and the last acknowledgement does not come.

use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::unanswered::{self, Kind};
use crate::analyze::{Context, Detector, Limits, Needs, Verdict, role};
use crate::model::{Severity, TcpState};

pub const DETECTOR: Detector = Detector {
    id: KIND.id,
    aliases: &[],
    summary: "the last acknowledgement of a close does not come",
    signals: "LAST-ACK sockets that retransmit, by dialled destination or listener, against the others in use there. \
              A listener's vanished clients are a background that a public server always has.",
    explanation: "The peer closed first, this side closed too, and waits for the acknowledgement of its FIN. The peer \
                  may be gone, or a NAT or firewall has dropped the connection from its table before the end: many \
                  forget it 30 s after the FIN. With a Send-Q above 1 data waits before the FIN.",
    grounds: KIND.grounds,
    advice: &[
        "usually nothing: the kernel gives up by itself",
        "if they keep coming, look at the way to these peers, and at the idle time of a NAT or balancer between",
    ],
    folklore: &[
        "tcp_fin_timeout does not end LAST-ACK",
        "a lower tcp_orphan_retries also cuts off slow peers that are alive",
    ],
    states: &[TcpState::LastAck],
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
    id: "last-ack-stuck",
    state: "LAST-ACK",
    grounds: &[
        "TCP state in OS, LAST_ACK",
        "RFC 9293 section 3.6",
        "Linux kernel, net/ipv4/tcp_timer.c: tcp_orphan_retries()",
    ],
    fin: "The peer closed first, this side closed too, and the acknowledgement of its FIN does not come",
    data: "The peer closed first and this side closed too",
    not: "do not: lower tcp_fin_timeout (no effect here) or tcp_orphan_retries (cuts off slow peers that live)",
    twice: None,
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    unanswered::check(context, limits, &context.tally.last_ack, &KIND)
}

fn example(n: u32) -> Scenario {
    unanswered::example(TcpState::LastAck, n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;
    use crate::model::{Finding, Severity, Timer};

    fn first(scenario: Scenario) -> Option<Finding> {
        scenario
            .analyze(&Settings::default())
            .findings
            .into_iter()
            .find(|finding| finding.id == KIND.id)
    }

    #[test]
    fn five_warn_and_four_are_info() {
        let finding = first(example(5)).unwrap();
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(
            finding.title,
            "to 198.51.100.7:443: 5 of 17 sockets in LAST-ACK, the FIN unanswered, oldest 13 s"
        );
        assert_eq!(first(example(4)).unwrap().severity, Severity::Info);
    }

    #[test]
    fn it_may_hold_data_that_was_never_sent() {
        let mut scenario = example(5);
        for socket in &mut scenario.snapshot.sockets {
            if socket.state == TcpState::LastAck {
                socket.send_q = 1_001;
            }
        }
        let finding = first(scenario).unwrap();
        assert!(
            finding
                .title
                .contains("5,000 bytes and then the FIN unanswered"),
            "{}",
            finding.title
        );
        assert!(finding.explanation.contains("may not even be sent"));
    }

    #[test]
    fn a_burst_that_a_nat_forgot_is_no_more_than_a_warning() {
        // All of them to one place, and nothing else there: both programs are done with these.
        let mut scenario = example(30);
        scenario.snapshot.sockets.drain(..12);
        assert_eq!(first(scenario).unwrap().severity, Severity::Warning);
    }

    #[test]
    fn a_closed_window_is_another_finding() {
        let mut scenario = example(20);
        for socket in &mut scenario.snapshot.sockets {
            socket.timer = Timer::Persist;
        }
        assert_eq!(first(scenario), None);
    }
}
