//! Machine.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{Request, Tab, View};
use crate::tui::keys::Action;

/// The tab.
#[derive(Debug, Default)]
pub struct Machine {}

impl Machine {
    /// Chooses a state, and shows what it means.
    pub fn choose(&mut self, _state: crate::model::TcpState) {}
}

impl Tab for Machine {
    fn act(&mut self, _action: Action, _view: &View<'_>) -> Vec<Request> {
        Vec::new()
    }

    fn draw(&self, _area: Rect, _buffer: &mut Buffer, _view: &View<'_>) {}
}
