//! Overview.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{Request, Tab, View};
use crate::tui::keys::Action;

/// The tab.
#[derive(Debug, Default)]
pub struct Overview {}

impl Tab for Overview {
    fn act(&mut self, _action: Action, _view: &View<'_>) -> Vec<Request> {
        Vec::new()
    }

    fn draw(&self, _area: Rect, _buffer: &mut Buffer, _view: &View<'_>) {}
}
