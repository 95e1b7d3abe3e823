//! The question before sockets are destroyed: what would die, what its ends notice, what is left alone and why. The rules
//! are those of `linger kill`.

use crate::knowledge::killing::{Allowed, Fate, objection};
use crate::model::Socket;
use crate::tui::cursor::Cursor;
use crate::tui::keys::Action;
use crate::tui::look::Look;
use crate::tui::msg::Killed;
use crate::tui::prompt::Line;

/// The question, or what came of it.
#[derive(Debug)]
pub struct Sure {
    /// each socket with its place and fate
    pub sockets: Vec<(u16, Socket, Fate)>,
    /// what is typed
    pub line: Line,
    /// where one stands in the list
    pub cursor: Cursor,
    /// what came of it
    pub outcome: Option<Result<Killed, String>>,
}

impl Sure {
    /// Asks whether `sockets` are to be destroyed.
    pub fn ask(sockets: Vec<(u16, Socket)>, _look: &Look) -> Self {
        let judge = |(place, socket): (u16, Socket)| {
            let fate = match objection(&socket, Allowed::default()) {
                Some(objection) => Fate::Refused(objection),
                None => Fate::WouldDestroy,
            };
            (place, socket, fate)
        };
        Self {
            sockets: sockets.into_iter().map(judge).collect(),
            line: Line::default(),
            cursor: Cursor::default(),
            outcome: None,
        }
    }

    /// Says what came of it.
    pub fn done(outcome: Result<Killed, String>) -> Self {
        Self {
            sockets: Vec::new(),
            line: Line::default(),
            cursor: Cursor::default(),
            outcome: Some(outcome),
        }
    }

    /// Whether nothing is asked any more.
    pub fn is_done(&self) -> bool {
        self.outcome.is_some() || self.doomed().next().is_none()
    }

    fn doomed(&self) -> impl Iterator<Item = (u16, Socket)> {
        let all = self.sockets.iter();
        all.filter(|(.., fate)| *fate == Fate::WouldDestroy)
            .map(|(place, socket, _)| (*place, *socket))
    }

    /// The sockets to destroy, once `yes` is typed.
    pub fn agreed(&self) -> Option<Vec<(u16, Socket)>> {
        (self.line.text().trim() == "yes").then(|| self.doomed().collect())
    }

    /// Puts text in.
    pub fn insert(&mut self, text: &str) {
        self.line.insert(text);
    }

    /// Moves, or edits the line.
    pub fn act(&mut self, action: Action, page: usize) {
        if !self.cursor.scroll(action, self.sockets.len(), page) {
            self.line.act(action);
        }
    }
}
