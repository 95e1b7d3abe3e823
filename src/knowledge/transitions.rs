//! The state machine as a table: what leads from which state to which, and what is sent on the way.
//!
//! RFC 9293 section 3.3.2 (figure 5), with the resets and time-outs that its figure leaves out, and what Linux adds.

use std::fmt;

use crate::model::TcpState;
use crate::model::TcpState::{
    BoundInactive, CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen,
    SynReceived, SynSent, TimeWait,
};

/// What makes a socket change its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// a call of the program that holds the socket
    Call,
    /// a segment, or an ICMP error, from the network
    Segment,
    /// a timer of the kernel
    Timer,
}

impl Cause {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Segment => "segment",
            Self::Timer => "timer",
        }
    }
}

/// One arrow of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// the state before
    pub from: TcpState,
    /// the kind of event
    pub cause: Cause,
    /// the event
    pub event: &'static str,
    /// what this side then sends
    pub sends: Option<&'static str>,
    /// the state after
    pub to: TcpState,
    /// whether Linux does it; RFC 9293 has arrows that Linux has not
    pub linux: bool,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.event)?;
        if let Some(sends) = self.sends {
            write!(f, "; sends {sends}")?;
        }
        if !self.linux {
            f.write_str(" (RFC 9293; not on Linux)")?;
        }
        Ok(())
    }
}

use Cause::{Call, Segment, Timer};

const CLOSE: &str = "close() of the last descriptor, or shutdown(SHUT_WR)";
const ABORT: &str = "close() with unread data, or with SO_LINGER 0";
const RST: &str = "RST received";
const OUR_FIN_ACKED: &str = "ACK of our FIN received";
const NO_ACK: &str = "nobody acknowledges what was sent";

const fn arrow(
    from: TcpState,
    cause: Cause,
    event: &'static str,
    sends: &'static str,
    to: TcpState,
) -> Transition {
    Transition {
        from,
        cause,
        event,
        sends: if sends.is_empty() { None } else { Some(sends) },
        to,
        linux: true,
    }
}

const fn rfc_only(arrow: Transition) -> Transition {
    Transition {
        linux: false,
        ..arrow
    }
}

/// Every arrow, in the order in which a connection lives.
pub const TRANSITIONS: &[Transition] = &[
    arrow(Closed, Call, "bind()", "", BoundInactive),
    arrow(BoundInactive, Call, "listen()", "", Listen),
    arrow(BoundInactive, Call, "connect()", "SYN", SynSent),
    arrow(BoundInactive, Call, "close()", "", Closed),
    arrow(Closed, Call, "listen()", "", Listen),
    arrow(Closed, Call, "connect()", "SYN", SynSent),
    arrow(
        Listen,
        Segment,
        "SYN received: a new socket begins here, the listener stays",
        "SYN+ACK",
        SynReceived,
    ),
    rfc_only(arrow(Listen, Call, "send()", "SYN", SynSent)),
    arrow(
        Listen,
        Call,
        "close() of the last descriptor",
        "RST to whoever was not accepted",
        Closed,
    ),
    arrow(SynSent, Segment, "SYN+ACK received", "ACK", Established),
    arrow(
        SynSent,
        Segment,
        "SYN received: both sides called connect() at once",
        "SYN+ACK",
        SynReceived,
    ),
    arrow(
        SynSent,
        Segment,
        "RST received: the port is refused",
        "",
        Closed,
    ),
    arrow(
        SynSent,
        Segment,
        "ICMP error received: the host is unreachable",
        "",
        Closed,
    ),
    arrow(SynSent, Call, "close(): the program gives up", "", Closed),
    arrow(SynSent, Timer, "nobody answers the SYN", "", Closed),
    arrow(
        SynReceived,
        Segment,
        "ACK of our SYN received",
        "",
        Established,
    ),
    arrow(
        SynReceived,
        Call,
        "close() or shutdown(SHUT_WR) after connect() from both sides",
        "FIN",
        FinWait1,
    ),
    rfc_only(arrow(SynReceived, Segment, RST, "", Listen)),
    arrow(
        SynReceived,
        Segment,
        "RST received: only the request goes, the listener stays",
        "",
        Closed,
    ),
    arrow(SynReceived, Timer, "nobody answers the SYN+ACK", "", Closed),
    arrow(Established, Call, CLOSE, "FIN", FinWait1),
    arrow(Established, Segment, "FIN received", "ACK", CloseWait),
    arrow(Established, Segment, RST, "", Closed),
    arrow(Established, Call, ABORT, "RST", Closed),
    arrow(
        Established,
        Timer,
        "nobody acknowledges what was sent, or answers keepalive",
        "",
        Closed,
    ),
    arrow(FinWait1, Segment, OUR_FIN_ACKED, "", FinWait2),
    arrow(
        FinWait1,
        Segment,
        "FIN received that does not acknowledge our FIN",
        "ACK",
        Closing,
    ),
    arrow(
        FinWait1,
        Segment,
        "FIN received that acknowledges our FIN",
        "ACK",
        TimeWait,
    ),
    arrow(FinWait1, Segment, RST, "", Closed),
    arrow(FinWait1, Timer, NO_ACK, "", Closed),
    arrow(FinWait2, Segment, "FIN received", "ACK", TimeWait),
    arrow(FinWait2, Segment, RST, "", Closed),
    arrow(
        FinWait2,
        Segment,
        "data received after close(): nobody is left to read it",
        "RST",
        Closed,
    ),
    arrow(
        FinWait2,
        Timer,
        "no FIN after close() (tcp_fin_timeout)",
        "",
        Closed,
    ),
    arrow(CloseWait, Call, CLOSE, "FIN", LastAck),
    arrow(CloseWait, Segment, RST, "", Closed),
    arrow(CloseWait, Call, ABORT, "RST", Closed),
    arrow(
        CloseWait,
        Timer,
        "nobody acknowledges what is still sent, or answers keepalive",
        "",
        Closed,
    ),
    arrow(Closing, Segment, OUR_FIN_ACKED, "", TimeWait),
    arrow(Closing, Segment, RST, "", Closed),
    arrow(Closing, Timer, NO_ACK, "", Closed),
    arrow(LastAck, Segment, OUR_FIN_ACKED, "", Closed),
    arrow(LastAck, Segment, RST, "", Closed),
    arrow(LastAck, Timer, NO_ACK, "", Closed),
    arrow(TimeWait, Timer, "60 s are over", "", Closed),
    arrow(
        TimeWait,
        Segment,
        "a SYN that can be no old duplicate: a new connection begins",
        "",
        Closed,
    ),
    arrow(
        TimeWait,
        Segment,
        "RST received (unless tcp_rfc1337 is 1)",
        "",
        Closed,
    ),
];

/// The arrows that lead into `state`.
pub fn into(state: TcpState) -> impl Iterator<Item = &'static Transition> {
    TRANSITIONS.iter().filter(move |arrow| arrow.to == state)
}

/// The arrows that lead out of `state`.
pub fn out_of(state: TcpState) -> impl Iterator<Item = &'static Transition> {
    TRANSITIONS.iter().filter(move |arrow| arrow.from == state)
}

/// The states that follow `state` on Linux, CLOSED left out, each once and in the order in which a connection lives.
pub fn successors(state: TcpState) -> impl Iterator<Item = TcpState> {
    TcpState::SHOWN.into_iter().filter(move |next| {
        *next != Closed && out_of(state).any(|arrow| arrow.linux && arrow.to == *next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn reached(start: TcpState, step: impl Fn(&Transition) -> (TcpState, TcpState)) -> usize {
        let mut seen = BTreeSet::from([start]);
        let linux = || TRANSITIONS.iter().filter(|arrow| arrow.linux);
        for _ in TcpState::SHOWN {
            for (from, to) in linux().map(&step) {
                if seen.contains(&from) {
                    seen.insert(to);
                }
            }
        }
        seen.len()
    }

    #[test]
    fn every_state_begins_and_ends_in_closed() {
        let all = TcpState::SHOWN.len();
        assert_eq!(reached(Closed, |arrow| (arrow.from, arrow.to)), all);
        assert_eq!(reached(Closed, |arrow| (arrow.to, arrow.from)), all);
    }

    #[test]
    fn the_arrows_of_the_rfc_are_all_there() {
        // RFC 9293, figure 5, without what is sent.
        let figure = [
            (Closed, Listen),
            (Closed, SynSent),
            (Listen, SynReceived),
            (Listen, SynSent),
            (Listen, Closed),
            (SynSent, SynReceived),
            (SynSent, Established),
            (SynSent, Closed),
            (SynReceived, Established),
            (SynReceived, FinWait1),
            (SynReceived, Listen),
            (Established, FinWait1),
            (Established, CloseWait),
            (FinWait1, FinWait2),
            (FinWait1, Closing),
            (FinWait1, TimeWait),
            (FinWait2, TimeWait),
            (CloseWait, LastAck),
            (Closing, TimeWait),
            (LastAck, Closed),
            (TimeWait, Closed),
        ];
        for (from, to) in figure {
            assert!(out_of(from).any(|arrow| arrow.to == to), "{from} -> {to}");
        }
        for arrow in TRANSITIONS {
            let known = figure.contains(&(arrow.from, arrow.to));
            let added =
                arrow.to == Closed || arrow.from == BoundInactive || arrow.to == BoundInactive;
            assert!(known || added, "{} -> {}", arrow.from, arrow.to);
        }
    }

    #[test]
    fn whoever_sends_a_fin_has_called_close_and_whoever_gets_one_acknowledges() {
        for arrow in TRANSITIONS {
            assert_eq!(
                arrow.sends == Some("FIN"),
                arrow.cause == Call && matches!(arrow.to, FinWait1 | LastAck),
                "{arrow}"
            );
            if arrow.event.starts_with("FIN received") {
                assert_eq!(arrow.sends, Some("ACK"), "{arrow}");
            }
            assert_ne!(arrow.from, arrow.to);
        }
    }

    #[test]
    fn only_listen_closed_and_bound_inactive_have_no_timer_at_all() {
        let timers: Vec<_> = TcpState::SHOWN
            .into_iter()
            .filter(|state| !out_of(*state).any(|arrow| arrow.cause == Timer))
            .collect();
        assert_eq!(timers, [Listen, Closed, BoundInactive]);
    }

    #[test]
    fn an_arrow_reads_as_a_sentence() {
        let find = |from, to| {
            out_of(from)
                .find(|arrow| arrow.to == to)
                .map(ToString::to_string)
        };
        assert_eq!(
            find(Established, CloseWait).unwrap(),
            "FIN received; sends ACK"
        );
        assert_eq!(
            find(Listen, SynSent).unwrap(),
            "send(); sends SYN (RFC 9293; not on Linux)"
        );
        assert_eq!(find(FinWait1, FinWait2).unwrap(), OUR_FIN_ACKED);
        assert_eq!(
            successors(FinWait1).collect::<Vec<_>>(),
            [FinWait2, Closing, TimeWait]
        );
        assert_eq!(successors(LastAck).count(), 0);
    }
}
