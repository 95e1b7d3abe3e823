//! What sockets did between two looks.

use std::time::Duration;

use super::TcpState;

/// Sockets by cookie in two looks: which changed their state, came and went. What happened and was over between the two
/// is not seen, so every number is a lower bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// the time between the looks
    pub window: Duration,
    /// from which state to which, and how many; the two are never the same
    pub changed: Vec<(TcpState, TcpState, u64)>,
    /// new sockets by the state in which they were found, in the order of [`TcpState::SHOWN`]
    pub appeared: [u64; TcpState::SHOWN.len()],
    /// sockets that are gone by the state in which they were seen last, in the order of [`TcpState::SHOWN`]
    pub gone: [u64; TcpState::SHOWN.len()],
}

impl Moves {
    /// How many went from one state to the other.
    pub fn between(&self, from: TcpState, to: TcpState) -> u64 {
        let arrows = self.changed.iter();
        arrows
            .filter(|(a, b, _)| (a.shown(), b.shown()) == (from.shown(), to.shown()))
            .map(|(.., n)| n)
            .sum()
    }

    /// New sockets that were found in `state`.
    pub fn appeared_in(&self, state: TcpState) -> u64 {
        of(&self.appeared, state)
    }

    /// Sockets that were seen last in `state`.
    pub fn gone_from(&self, state: TcpState) -> u64 {
        of(&self.gone, state)
    }

    /// Adds what the sockets of another namespace did in the same time.
    pub fn add(&mut self, other: &Self) {
        self.window = self.window.max(other.window);
        for (from, to, n) in &other.changed {
            let same = |arrow: &&mut (TcpState, TcpState, u64)| (arrow.0, arrow.1) == (*from, *to);
            match self.changed.iter_mut().find(same) {
                Some(arrow) => arrow.2 += n,
                None => self.changed.push((*from, *to, *n)),
            }
        }
        let pairs = |mine: &mut [u64; TcpState::SHOWN.len()], theirs: &[u64]| {
            mine.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
        };
        pairs(&mut self.appeared, &other.appeared);
        pairs(&mut self.gone, &other.gone);
    }
}

fn of(counts: &[u64; TcpState::SHOWN.len()], state: TcpState) -> u64 {
    state
        .index()
        .and_then(|index| counts.get(index).copied())
        .unwrap_or(0)
}
