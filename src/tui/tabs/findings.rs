//! Findings.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{Request, Tab, View};
use crate::tui::keys::Action;

/// The tab.
#[derive(Debug, Default)]
pub struct Findings {}

impl Findings {
    /// Chooses the n-th finding of [`crate::tui::Look::stories`].
    pub fn choose(&mut self, _at: usize) {}
}

impl Tab for Findings {
    fn act(&mut self, _action: Action, _view: &View<'_>) -> Vec<Request> {
        Vec::new()
    }

    fn draw(&self, _area: Rect, _buffer: &mut Buffer, _view: &View<'_>) {}
}
