//! Sockets as rows.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{Request, Tab, TabId, View};
use crate::query::Filter;
use crate::tui::dialogs::Question;
use crate::tui::keys::Action;
use crate::tui::look::Row;
use crate::tui::msg::Wish;

/// The tab.
#[derive(Debug, Default)]
pub struct Sockets {
    text: String,
    rows: Vec<Row>,
}

impl Sockets {
    /// The rows that fit, in their order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Shows the sockets that fit `filter`, which was typed as `text`, from the next [`Tab::looked`] on.
    pub fn set_filter(&mut self, text: &str, _filter: Filter) {
        self.text = text.to_owned();
    }

    /// The filter as it was typed.
    pub fn filter_text(&self) -> &str {
        &self.text
    }

    /// The column that is sorted by, as [`Sockets::sort_by`] reads it.
    pub fn sort_text(&self) -> String {
        String::new()
    }

    /// Sorts by `[-]COLUMN`.
    ///
    /// # Errors
    /// When there is no such column, in words that are safe to print.
    pub fn sort_by(&mut self, _text: &str) -> Result<(), String> {
        Ok(())
    }

    /// Takes what was chosen in a menu.
    pub fn chose(&mut self, _question: Question, _chosen: &[usize]) {}

    /// What has to be collected for what is shown; on another tab nothing.
    pub fn wish(&self, _tab: TabId) -> Wish {
        Wish::default()
    }
}

impl Tab for Sockets {
    fn act(&mut self, _action: Action, _view: &View<'_>) -> Vec<Request> {
        Vec::new()
    }

    fn draw(&self, _area: Rect, _buffer: &mut Buffer, _view: &View<'_>) {}
}
