//! What opens over a tab: a line to type, a menu, the question before sockets are destroyed, the help.

pub mod help;
mod menu;
mod prompt;
mod sure;

pub use self::menu::{Menu, Question};
pub use self::prompt::{Asking, Prompt, seek};
pub use self::sure::Sure;
use super::cursor::Cursor;
use super::keys::Scope;

/// What is open.
#[derive(Debug)]
pub enum Dialog {
    /// a line is typed
    Prompt(Prompt),
    /// something is chosen
    Menu(Menu),
    /// sockets are to be destroyed, or were
    Sure(Sure),
    /// the keys
    Help(Cursor),
}

impl Dialog {
    /// Where a key counts.
    pub fn scopes(&self) -> Vec<Scope> {
        match self {
            Self::Prompt(_) => vec![Scope::Typing],
            Self::Menu(_) => vec![Scope::Menu, Scope::Moving],
            Self::Sure(_) => vec![Scope::Kill, Scope::Typing],
            Self::Help(_) => vec![Scope::Pager, Scope::Moving],
        }
    }

    /// A character was typed that is no key here.
    pub fn typed(&mut self, c: char) {
        self.paste(c.encode_utf8(&mut [0; 4]));
    }

    /// Text was pasted.
    pub fn paste(&mut self, text: &str) {
        match self {
            Self::Prompt(prompt) => prompt.insert(text),
            Self::Sure(sure) => sure.insert(text),
            Self::Menu(_) | Self::Help(_) => {}
        }
    }
}
