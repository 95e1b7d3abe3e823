//! What earlier runs left, and what this one leaves. The one place of the check that knows of history.

use super::args::Args;
use super::judge::Checked;
use crate::history::History;

/// The history of one place.
#[derive(Debug, Default)]
pub struct Past {
    /// what went wrong with it, which stops nothing
    pub notes: Vec<String>,
}

impl Past {
    /// Opens it; where it cannot be read, nothing is known of earlier runs. With `--from` or `--no-history` it is not
    /// touched.
    pub fn open(_args: &Args) -> Self {
        Self::default()
    }

    /// The looks of earlier runs.
    pub fn history(&self) -> History {
        History::default()
    }

    /// Keeps what this run saw, and says what has changed since the last one; `None`: that is not known.
    pub fn keep(&mut self, _checked: &Checked) -> Option<Vec<String>> {
        None
    }
}
