//! One socket through its states, until it is gone.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::listing::Id;
use crate::model::{Socket, TcpState};
use crate::render::cell;
use crate::tui::look::{Look, Row};
use crate::tui::theme::Theme;

/// So many states are remembered.
const MOST: usize = 16;

/// A socket that is followed.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    pub(super) id: Id,
    /// both ends, safe to print
    ends: String,
    /// its states, and when each was first seen
    states: Vec<(TcpState, Timestamp)>,
    /// the look that did not have it any more, and whether that was complete
    gone: Option<(Timestamp, bool)>,
    /// whether it is in the list
    pub(super) listed: bool,
}

impl Followed {
    /// Begins with the socket in `row`.
    pub(super) fn new(look: &Look, row: Row) -> Option<Self> {
        let socket = look.socket(row)?;
        Some(Self {
            id: Id::of(look, row)?,
            ends: ends(look, row),
            states: vec![(socket.state.shown(), look.taken)],
            gone: None,
            listed: true,
        })
    }

    /// There is another look.
    pub(super) fn looked(&mut self, look: &Look) {
        // A step back in a recording: what comes after it is not known yet.
        if let Some((first, _)) = self.states.split_first() {
            let first = *first;
            self.states.retain(|(_, since)| *since <= look.taken);
            if self.states.is_empty() {
                self.states.push(first);
            }
        }
        self.gone = match self.id.find(look).and_then(|row| look.socket(row)) {
            Some(socket) => {
                self.add(socket, look.taken);
                None
            }
            None => {
                let known = self.gone.filter(|(since, _)| *since <= look.taken);
                known.or(Some((look.taken, look.coverage.complete())))
            }
        };
    }

    fn add(&mut self, socket: &Socket, taken: Timestamp) {
        let state = socket.state.shown();
        if self.states.last().is_none_or(|(last, _)| *last != state) {
            if self.states.len() >= MOST {
                self.states.remove(0);
            }
            self.states.push((state, taken));
        }
    }

    /// What there is to say.
    pub(super) fn text(&self, zone: &TimeZone, theme: Theme) -> String {
        let clock = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string();
        let mut text = format!("followed: {}  ", self.ends);
        for (at, (state, since)) in self.states.iter().enumerate() {
            if at > 0 {
                text.push_str(theme.sign(" → ", " -> "));
            }
            text.push_str(&format!("{state} {}", clock(*since)));
        }
        if let Some((since, complete)) = self.gone {
            let last = self
                .states
                .last()
                .map_or(TcpState::Closed, |(last, _)| *last);
            let meaning = if complete {
                meaning(last)
            } else {
                "the look was not complete, it may be there still"
            };
            text.push_str(&format!("; GONE since {}: {meaning}", clock(since)));
        }
        if self.gone.is_none() && !self.listed {
            text.push_str("; it does not fit what is listed");
        }
        text.push_str(" (Esc ends this)");
        text
    }
}

/// `10.0.0.1:443 10.0.1.3:40003`, safe to print.
pub(super) fn ends(look: &Look, row: Row) -> String {
    let mut text = String::new();
    look.record(row, |record| {
        for (at, id) in ["local", "peer"].into_iter().enumerate() {
            if let Ok(field) = crate::fields::by_id(id) {
                text.push_str(if at > 0 { " " } else { "" });
                // Writing to a String does not fail.
                let _ = cell::write(&mut text, &field.value(record), false);
            }
        }
    });
    text
}

/// What it means that a socket is gone which was last seen in `state`.
pub(super) const fn meaning(state: TcpState) -> &'static str {
    match state {
        TcpState::TimeWait => {
            "its time was over, or its pair was used again: the end of an orderly close"
        }
        TcpState::LastAck | TcpState::Closing => {
            "its last ACK came, or the kernel gave up sending the FIN again"
        }
        TcpState::FinWait1 | TcpState::FinWait2 => {
            "the close came to its end between two looks, was reset, or its time was over"
        }
        TcpState::CloseWait => {
            "its program closed it and the rest went by between two looks, or it was reset"
        }
        TcpState::SynSent => "nothing answered, it was refused, or its program gave up",
        TcpState::SynReceived | TcpState::NewSynReceived => {
            "the handshake was not completed, or it was reset"
        }
        TcpState::Listen => "its program closed it, or ended",
        TcpState::Established => "it was reset or destroyed, or closed and over between two looks",
        _ => "its program closed it",
    }
}
