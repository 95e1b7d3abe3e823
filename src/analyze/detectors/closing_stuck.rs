//! CLOSING that lasts: both sides closed at once, and acknowledgements get lost.

use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::unanswered::{self, Kind};
use crate::analyze::{Context, Detector, Limits, Needs, Verdict, role};
use crate::model::{Severity, TcpState};

pub const DETECTOR: Detector = Detector {
    id: KIND.id,
    aliases: &[],
    summary: "after a close from both sides the acknowledgements get lost",
    signals: "CLOSING sockets that retransmit, by dialled destination or listener, in two samples: a coincidence of \
              two closes is over in milliseconds. Whether the peer's own FIN keeps coming tells in which direction \
              segments get lost.",
    explanation: "Both sides closed at almost the same time: this one has the peer's FIN and waits for the \
                  acknowledgement of its own. That takes a round trip. What lasts is no coincidence any more but loss, \
                  mostly in one direction: a firewall that has lost its state, or a one-way route.",
    grounds: KIND.grounds,
    advice: &[
        "look for what drops one direction: a stateful firewall behind an asymmetric route, a NAT that forgot",
        "nothing is to be tuned here: the kernel gives up by itself",
    ],
    folklore: &["no sysctl shortens CLOSING without cutting off living peers"],
    states: &[TcpState::Closing],
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
        of: "CLOSING sockets towards one destination, in two samples",
        limit: 5,
        build: example,
    },
};

const KIND: Kind = Kind {
    id: "closing-stuck",
    state: "CLOSING",
    grounds: &[
        "TCP state in OS, CLOSING",
        "RFC 9293 section 3.6",
        "RFC 9293 section 3.10.7.4",
    ],
    fin: "Both sides closed at almost the same time; this one has the peer's FIN, and its own is not acknowledged",
    data: "Both sides closed at almost the same time",
    not: "do not: tune tcp_orphan_retries; it cuts off slow peers that live, and the loss stays",
    twice: Some(|sample| &sample.closing),
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    unanswered::check(context, limits, &context.tally.closing, &KIND)
}

fn example(n: u32) -> Scenario {
    let mut scenario = once(n);
    scenario.remember(1);
    scenario
}

/// The same in one sample.
fn once(n: u32) -> Scenario {
    let mut scenario = unanswered::example(TcpState::Closing, n);
    for socket in &mut scenario.snapshot.sockets {
        // The peer's FIN, which nobody reads any more.
        socket.recv_q = u32::from(socket.state == TcpState::Closing);
    }
    scenario
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::analyze::Settings;
    use crate::model::{Finding, Severity};

    fn first(scenario: Scenario) -> Option<Finding> {
        scenario
            .analyze(&Settings::default())
            .findings
            .into_iter()
            .find(|finding| finding.id == KIND.id)
    }

    #[test]
    fn one_sample_counts_a_step_less() {
        let two = first(example(5)).unwrap();
        assert_eq!((two.severity, two.one_sample), (Severity::Warning, false));
        let one = first(once(5)).unwrap();
        assert_eq!((one.severity, one.one_sample), (Severity::Info, true));
    }

    #[test]
    fn other_sockets_in_the_second_sample_are_other_coincidences() {
        let mut scenario = example(5);
        for (cookie, socket) in (9_000..).zip(&mut scenario.snapshot.sockets) {
            socket.cookie = NonZeroU64::new(cookie);
        }
        let finding = first(scenario).unwrap();
        assert_eq!(
            (finding.severity, finding.one_sample),
            (Severity::Info, true)
        );
    }

    #[test]
    fn the_coincidence_of_milliseconds_is_quiet() {
        let mut scenario = example(20);
        for socket in &mut scenario.snapshot.sockets {
            socket.retransmits = 0;
        }
        assert_eq!(first(scenario), None);
    }

    #[test]
    fn a_fin_of_the_peer_that_keeps_coming_shows_the_direction() {
        let mut scenario = example(5);
        for info in &mut scenario.snapshot.infos {
            info.last_ack_recv_ms = 5_000;
        }
        let finding = first(scenario).unwrap();
        assert!(
            finding.explanation.contains("what this host sends"),
            "{}",
            finding.explanation
        );
    }
}
