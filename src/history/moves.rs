//! Which sockets changed their state between two looks.

use std::cmp::Ordering;

use jiff::Timestamp;

use crate::model::moves::Moves;
use crate::model::{Snapshot, TcpState};

/// The state of each socket that has a cookie, by cookie: 16 bytes a socket.
#[derive(Clone, Debug, Default)]
pub struct Tracks {
    taken: Timestamp,
    states: Vec<(u64, TcpState)>,
    /// whether every socket was seen, with its cookie
    whole: bool,
}

impl Tracks {
    /// Of a look.
    pub fn new(snapshot: &Snapshot) -> Self {
        let states = snapshot.sockets.iter();
        let mut states: Vec<(u64, TcpState)> = states
            .filter_map(|socket| Some((socket.cookie?.get(), socket.state.shown())))
            .collect();
        states.sort_unstable_by_key(|(cookie, _)| *cookie);
        Self {
            taken: snapshot.taken,
            whole: snapshot.coverage.rows_complete() && states.len() == snapshot.sockets.len(),
            states,
        }
    }

    /// When they were seen.
    pub const fn taken(&self) -> Timestamp {
        self.taken
    }

    /// What happened since `earlier`; `None` where one of the looks did not see every socket, where sockets have no cookies
    /// (`/proc/net`), or where no time has passed.
    pub fn since(&self, earlier: &Self) -> Option<Moves> {
        if !self.whole || !earlier.whole {
            return None;
        }
        let window = self.taken.duration_since(earlier.taken).try_into().ok()?;
        let mut moves = Moves {
            window,
            ..Moves::default()
        };
        let add = |counts: &mut [u64; TcpState::SHOWN.len()], state: TcpState| {
            if let Some(count) = state.index().and_then(|index| counts.get_mut(index)) {
                *count += 1;
            }
        };
        let (mut before, mut after) = (
            earlier.states.iter().peekable(),
            self.states.iter().peekable(),
        );
        loop {
            let order = match (before.peek(), after.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let old = (order != Ordering::Greater)
                .then(|| before.next())
                .flatten();
            let new = (order != Ordering::Less).then(|| after.next()).flatten();
            match (old, new) {
                (Some((_, from)), Some((_, to))) if from != to => {
                    let same =
                        |arrow: &&mut (TcpState, TcpState, u64)| (arrow.0, arrow.1) == (*from, *to);
                    match moves.changed.iter_mut().find(same) {
                        Some(arrow) => arrow.2 += 1,
                        None => moves.changed.push((*from, *to, 1)),
                    }
                }
                (Some((_, state)), None) => add(&mut moves.gone, *state),
                (None, Some((_, state))) => add(&mut moves.appeared, *state),
                _ => {}
            }
        }
        Some(moves)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn tracks(second: i64, states: &[(u64, TcpState)]) -> Tracks {
        Tracks {
            taken: Timestamp::from_second(second).unwrap(),
            states: states.to_vec(),
            whole: true,
        }
    }

    #[test]
    fn each_socket_stays_moves_comes_or_goes() {
        use TcpState::{CloseWait, Established, FinWait2, SynSent, TimeWait};
        let before = tracks(
            10,
            &[
                (1, Established),
                (2, Established),
                (3, FinWait2),
                (5, TimeWait),
            ],
        );
        let after = tracks(
            12,
            &[
                (1, Established),
                (2, CloseWait),
                (3, TimeWait),
                (4, SynSent),
            ],
        );
        let moves = after.since(&before).unwrap();
        assert_eq!(moves.window, Duration::from_secs(2));
        assert_eq!(moves.between(Established, CloseWait), 1);
        assert_eq!(moves.between(FinWait2, TimeWait), 1);
        assert_eq!(moves.changed.len(), 2, "what stays is no move: {moves:?}");
        assert_eq!(
            (moves.appeared_in(SynSent), moves.gone_from(TimeWait)),
            (1, 1)
        );
        assert_eq!(
            moves.appeared.iter().sum::<u64>() + moves.gone.iter().sum::<u64>(),
            2
        );
    }

    #[test]
    fn what_was_not_seen_whole_says_nothing() {
        let only = tracks(1, &[(1, TcpState::Listen)]);
        assert_eq!(only.since(&tracks(2, &[])), None, "time does not go back");
        assert!(only.since(&tracks(0, &[])).is_some(), "from none to one");
        let partial = Tracks {
            whole: false,
            ..tracks(2, &[])
        };
        assert_eq!(partial.since(&only), None, "it is not gone");
        assert_eq!(
            tracks(3, &[(1, TcpState::Listen)]).since(&partial),
            None,
            "it is not new"
        );
    }
}
