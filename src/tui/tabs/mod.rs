//! The tabs: a file each.

mod closings;
mod findings;
mod machine;
mod overview;
mod parts;
#[cfg(test)]
pub(super) mod scenes;
mod sockets;

use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};

pub use self::closings::Closings;
pub use self::findings::Findings;
pub use self::machine::Machine;
pub use self::overview::Overview;
pub(super) use self::parts::fit;
pub use self::sockets::Sockets;
use super::dialogs::Menu;
use super::keys::Action;
use super::look::{Look, Row};
use super::theme::Theme;
use super::trend::Trend;
use crate::model::TcpState;

/// Which tab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TabId {
    /// states, findings, who holds most
    #[default]
    Overview,
    /// the state machine with the counts on it
    Machine,
    /// sockets as rows
    Sockets,
    /// every finding in full
    Findings,
    /// who closes how often, and who does not close
    Closings,
}

impl TabId {
    /// All, in their order.
    pub const ALL: [Self; 5] = [
        Self::Overview,
        Self::Machine,
        Self::Sockets,
        Self::Findings,
        Self::Closings,
    ];

    /// What it is called on the screen.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Machine => "Machine",
            Self::Sockets => "Sockets",
            Self::Findings => "Findings",
            Self::Closings => "Closings",
        }
    }

    /// What it is called on the command line.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Machine => "machine",
            Self::Sockets => "sockets",
            Self::Findings => "findings",
            Self::Closings => "closings",
        }
    }

    /// The n-th, from 0.
    pub fn of(n: u8) -> Option<Self> {
        Self::ALL.get(usize::from(n)).copied()
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|tab| *tab == self).unwrap_or(0)
    }

    /// The one to the right, and from the last the first.
    #[must_use]
    pub fn next(self) -> Self {
        let next = (self.index() + 1) % Self::ALL.len();
        Self::ALL.get(next).copied().unwrap_or_default()
    }

    /// The one to the left, and from the first the last.
    #[must_use]
    pub fn previous(self) -> Self {
        let previous = (self.index() + Self::ALL.len() - 1) % Self::ALL.len();
        Self::ALL.get(previous).copied().unwrap_or_default()
    }
}

/// What a tab may see.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// the look that is shown
    pub look: &'a Look,
    /// earlier ones
    pub trend: &'a Trend,
    /// how the terminal shows things
    pub theme: Theme,
    /// the part of the screen that is the tab's own
    pub body: Rect,
    /// what to put behind a command so that it looks at the same machine
    pub again: &'a str,
    /// the reader's clock
    pub zone: &'a TimeZone,
}

/// What a tab asks of the others.
#[derive(Clone, Debug)]
pub enum Request {
    /// show the sockets that fit this filter
    Sockets(String),
    /// show this state on the state machine
    Machine(TcpState),
    /// show the n-th finding
    Finding(usize),
    /// let the reader choose
    Menu(Menu),
    /// ask whether these are to be destroyed
    Kill(Vec<Row>),
    /// say this at the foot of the screen; safe to print
    Say(String),
    /// say that this cannot be done
    Wrong(String),
}

/// A tab.
pub trait Tab {
    /// A key asks for something. What a tab does not know it leaves alone.
    fn act(&mut self, action: Action, view: &View<'_>) -> Vec<Request>;

    /// The mouse was pressed within [`View::body`].
    fn click(&mut self, _at: Position, _view: &View<'_>) -> Vec<Request> {
        Vec::new()
    }

    /// There is another look, or the screen has another size.
    fn looked(&mut self, _view: &View<'_>) {}

    /// Draws within `area`, which is [`View::body`].
    fn draw(&self, area: Rect, buffer: &mut Buffer, view: &View<'_>);
}
