//! How often each arrow of the state machine is taken, as far as two looks and the kernel's counters tell.

use std::time::Duration;

use crate::knowledge::TRANSITIONS;
use crate::model::{Moves, TcpState};
use crate::tui::look::Look;
use crate::tui::tabs::parts;
use crate::tui::theme::Theme;

const STATES: usize = TcpState::SHOWN.len();

/// How often something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// how many times, in the window
    pub count: u64,
    /// the time
    pub window: Duration,
    /// the counter that knows it exactly; else sockets were compared, and it is a lower bound
    pub counter: Option<&'static str>,
}

impl Rate {
    /// `12/s`, `≥3/s`; `None` where a lower bound says nothing.
    pub fn text(self, theme: Theme) -> Option<String> {
        parts::rate(self.count, self.window, self.counter.is_some(), theme)
    }
}

/// Counters of one arrow (`net/ipv4/tcp_output.c`, `tcp_minisocks.c`, `inet_timewait_sock.c`).
const COUNTED: [(TcpState, TcpState, &str); 3] = [
    (TcpState::Closed, TcpState::SynSent, "Tcp.ActiveOpens"),
    (
        TcpState::SynReceived,
        TcpState::Established,
        "Tcp.PassiveOpens",
    ),
    // An orphan in FIN-WAIT-2 that runs out is counted with them.
    (TcpState::TimeWait, TcpState::Closed, "TcpExt.TW"),
];

/// Handshakes that came to nothing: SYN-SENT or SYN-RECEIVED to CLOSED.
const FAILED: &str = "Tcp.AttemptFails";

/// Connections that ended by a RST: ESTABLISHED or CLOSE-WAIT to CLOSED.
const RESET: &str = "Tcp.EstabResets";

/// The rates of a look.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// from -> to, at least so many times
    least: [[u64; STATES]; STATES],
    /// sockets that came into a state and that left it, at least
    through: [(u64, u64); STATES],
    /// the time in which sockets were compared; `None` where they were not
    compared: Option<Duration>,
    counted: Vec<(TcpState, TcpState, Rate)>,
    /// handshakes that came to nothing
    pub failed: Option<Rate>,
    /// connections that ended by a RST
    pub reset: Option<Rate>,
    /// TIME-WAITs that began in the last full second
    pub ended: u64,
}

impl Rates {
    /// Of what a look knows.
    pub fn new(look: &Look) -> Self {
        let mut rates = Self {
            ended: look.closes.get(1).copied().unwrap_or(0).into(),
            ..Self::default()
        };
        if let Some(moves) = &look.moves {
            rates.compare(moves);
        }
        // A counter that is not there did not rise.
        let counter = |name: &'static str| {
            let risen = look.counters.as_ref()?;
            (!look.coverage.no_facts).then(|| Rate {
                count: risen.get(name).copied().unwrap_or(0),
                window: look.window,
                counter: Some(name),
            })
        };
        for (from, to, name) in COUNTED {
            rates
                .counted
                .extend(counter(name).map(|rate| (from, to, rate)));
        }
        rates.failed = counter(FAILED);
        rates.reset = counter(RESET);
        rates
    }

    fn compare(&mut self, moves: &Moves) {
        self.compared = Some(moves.window);
        let seen = moves.changed.iter();
        for (from, to, n) in seen.copied() {
            self.walked(Walk::Changed(from.shown(), to.shown()), n);
        }
        for state in TcpState::SHOWN {
            self.walked(Walk::Began(state), moves.appeared_in(state));
            self.walked(Walk::Ended(state), moves.gone_from(state));
        }
    }

    /// Counts sockets on the arrows that they must have taken, whichever way they went.
    fn walked(&mut self, walk: Walk, n: u64) {
        if n == 0 {
            return;
        }
        let (from, to) = match walk {
            Walk::Began(state) => (None, Some(state)),
            Walk::Changed(from, to) => (Some(from), Some(to)),
            Walk::Ended(state) => (Some(state), None),
        };
        let index = |state: Option<TcpState>| state.and_then(TcpState::index);
        if let Some((came, _)) = index(to).and_then(|to| self.through.get_mut(to)) {
            *came += n;
        }
        if let Some((_, left)) = index(from).and_then(|from| self.through.get_mut(from)) {
            *left += n;
        }
        if !walk.can_go(None) {
            return;
        }
        let mut done = [0u16; STATES];
        for arrow in TRANSITIONS.iter().filter(|arrow| arrow.linux) {
            let (Some(a), Some(b)) = (arrow.from.index(), arrow.to.index()) else {
                continue;
            };
            // Several events may lead from one state to the same other one.
            let Some(done) = done.get_mut(a).filter(|done| **done & (1 << b) == 0) else {
                continue;
            };
            *done |= 1 << b;
            if walk.can_go(Some((a, b))) {
                continue;
            }
            if let Some(count) = self.least.get_mut(a).and_then(|row| row.get_mut(b)) {
                *count += n;
            }
        }
    }

    /// How often an arrow was taken; `None` where nothing tells.
    pub fn of(&self, from: TcpState, to: TcpState) -> Option<Rate> {
        let counted = self.counted.iter();
        let exact = counted.filter(|(a, b, _)| (*a, *b) == (from, to));
        exact.map(|(.., rate)| *rate).next().or_else(|| {
            let count = *self.least.get(from.index()?)?.get(to.index()?)?;
            Some(Rate {
                count,
                window: self.compared?,
                counter: None,
            })
        })
    }

    /// How often a state was entered and left, at least.
    pub fn through(&self, state: TcpState) -> Option<(Rate, Rate)> {
        let (came, left) = *self.through.get(state.index()?)?;
        let rate = |count| {
            Some(Rate {
                count,
                window: self.compared?,
                counter: None,
            })
        };
        Some((rate(came)?, rate(left)?))
    }
}

/// What two looks tell of a socket.
#[derive(Clone, Copy, Debug)]
enum Walk {
    /// it is new, and in this state
    Began(TcpState),
    /// it went from one state to the other
    Changed(TcpState, TcpState),
    /// it is gone, and was in this state
    Ended(TcpState),
}

impl Walk {
    /// Whether there is a way for the socket to go, other than by the arrow `without` between the states with these
    /// indices. If there is none without it, the arrow was taken.
    fn can_go(self, without: Option<(usize, usize)>) -> bool {
        let bit = |state: TcpState| state.index().map_or(0u16, |at| 1 << at);
        let (start, goal) = match self {
            Self::Began(state) => (bit(TcpState::Closed) | bit(TcpState::Listen), bit(state)),
            Self::Changed(from, to) => (bit(from), bit(to)),
            Self::Ended(state) => (bit(state), bit(TcpState::Closed)),
        };
        let (mut reached, mut arrived) = (start, 0);
        loop {
            let before = reached;
            for arrow in TRANSITIONS.iter().filter(|arrow| arrow.linux) {
                let (Some(a), Some(b)) = (arrow.from.index(), arrow.to.index()) else {
                    continue;
                };
                if reached & (1 << a) == 0
                    || without == Some((a, b))
                    || !self.may(arrow.from, arrow.to)
                {
                    continue;
                }
                arrived |= 1 << b;
                // No socket lives on after CLOSED, and a listener becomes nothing else.
                if !matches!(arrow.to, TcpState::Closed | TcpState::Listen) {
                    reached |= 1 << b;
                }
            }
            if reached == before {
                return arrived & goal != 0;
            }
        }
    }

    fn may(self, from: TcpState, to: TcpState) -> bool {
        match (self, from, to) {
            // Each SYN makes a new socket, which is the one that is in SYN-RECEIVED. That both sides call connect() at
            // once, and that between two looks, is left out.
            (Self::Began(_), TcpState::SynSent, TcpState::SynReceived) => false,
            (Self::Began(_), TcpState::Listen, to) => to == TcpState::SynReceived,
            (_, TcpState::Listen, to) => to == TcpState::Closed,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TcpState::{
        CloseWait, Closed, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived, SynSent,
        TimeWait,
    };

    fn crossed(walk: Walk) -> Vec<(TcpState, TcpState)> {
        let mut rates = Rates::default();
        rates.walked(walk, 1);
        let all = TcpState::SHOWN.into_iter();
        let pairs = all.flat_map(|from| TcpState::SHOWN.map(|to| (from, to)));
        pairs
            .filter(|(from, to)| rates.least[from.index().unwrap()][to.index().unwrap()] == 1)
            .collect()
    }

    #[test]
    fn an_arrow_counts_only_if_there_was_no_other_way() {
        assert_eq!(
            crossed(Walk::Changed(Established, FinWait2)),
            [(Established, FinWait1), (FinWait1, FinWait2)],
            "FIN-WAIT-1 was passed unseen"
        );
        assert_eq!(
            crossed(Walk::Changed(FinWait1, TimeWait)),
            [],
            "directly, over FIN-WAIT-2, or over CLOSING"
        );
        assert_eq!(
            crossed(Walk::Changed(Established, CloseWait)),
            [(Established, CloseWait)]
        );
        assert_eq!(crossed(Walk::Ended(LastAck)), [(LastAck, Closed)]);
        assert_eq!(crossed(Walk::Ended(TimeWait)), [(TimeWait, Closed)]);
        assert_eq!(crossed(Walk::Ended(CloseWait)), [], "by LAST-ACK or not");
        assert_eq!(crossed(Walk::Ended(Listen)), [(Listen, Closed)]);
        assert_eq!(crossed(Walk::Began(SynReceived)), [(Listen, SynReceived)]);
        assert_eq!(
            crossed(Walk::Began(SynSent)),
            [],
            "from CLOSED, or after bind()"
        );
        assert_eq!(crossed(Walk::Changed(TimeWait, Established)), [], "no way");
    }

    #[test]
    fn a_counter_is_exact_and_sockets_are_a_bound() {
        let mut look = crate::tui::testing::look_at(100);
        look.moves = Some(Moves {
            window: Duration::from_secs(2),
            changed: vec![(Established, CloseWait, 6), (SynReceived, Established, 4)],
            ..Moves::default()
        });
        let theme = Theme {
            unicode: false,
            colour: false,
        };
        let rates = Rates::new(&look);
        let text = |from, to| rates.of(from, to).and_then(|rate| rate.text(theme));
        assert_eq!(text(Established, CloseWait).unwrap(), ">=3/s");
        assert_eq!(text(SynReceived, Established).unwrap(), "12/s");
        assert_eq!(text(TimeWait, Closed).unwrap(), "0/s", "it did not rise");
        assert_eq!(text(Listen, SynReceived), None);
        let (came, left) = rates.through(Established).unwrap();
        assert_eq!((came.count, left.count), (4, 6));
        look.counters = None;
        look.moves = None;
        let rates = Rates::new(&look);
        assert_eq!(rates.of(SynReceived, Established), None, "nothing is known");
        assert_eq!(rates.through(Established), None);
    }
}
