//! A list to choose from.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Clear, Widget};

use crate::render::text;
use crate::tui::cursor::Cursor;
use crate::tui::draw::put_cut;
use crate::tui::keys::Action;
use crate::tui::tabs::fit;
use crate::tui::theme::Theme;

/// What is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// the column to sort by
    Sort,
    /// the columns that are shown
    Columns,
    /// the column to group by
    Group,
}

/// A list to choose from.
#[derive(Clone, Debug)]
pub struct Menu {
    /// what is chosen
    pub question: Question,
    /// what stands above it
    pub title: &'static str,
    /// a name and what it means
    pub items: Vec<(String, String)>,
    /// whether more than one may be chosen
    pub many: bool,
    /// the chosen ones, where more than one may be
    pub marked: Vec<bool>,
    /// where one stands
    pub cursor: Cursor,
}

impl Menu {
    /// Moves or marks.
    pub fn act(&mut self, action: Action, page: usize) {
        if action == Action::Toggle && self.many {
            if let Some(mark) = self.marked.get_mut(self.cursor.at) {
                *mark = !*mark;
            }
            return;
        }
        self.cursor
            .act(action, self.items.len(), page.saturating_sub(2));
    }

    /// What is chosen now.
    pub fn chosen(&self) -> Vec<usize> {
        if !self.many {
            return vec![self.cursor.at];
        }
        let marked = self.marked.iter().enumerate();
        marked
            .filter(|(_, mark)| **mark)
            .map(|(at, _)| at)
            .collect()
    }

    /// Draws it over `area`: what is chosen, the items that have room, and the keys.
    pub fn draw(&self, area: Rect, buffer: &mut Buffer, theme: Theme) {
        Clear.render(area, buffer);
        let line = |y: u16| Rect::new(area.x, area.y + y, area.width, 1).intersection(area);
        let page = usize::from(area.height).saturating_sub(2);
        let mut cursor = self.cursor;
        cursor.fit(self.items.len(), page);
        let place = format!(
            "  {} of {}",
            (cursor.at + 1).min(self.items.len()),
            self.items.len()
        );
        let room = usize::from(area.width).saturating_sub(text::width(&place));
        let title = format!("{}{place}", fit(self.title, room, theme));
        put_cut(buffer, line(0), &title, theme.strong(), theme);
        let widest = self.items.iter().map(|(name, _)| text::width(name)).max();
        let widest = widest.unwrap_or(0);
        let items = self.items.iter().enumerate().skip(cursor.top).take(page);
        for (y, (at, (name, means))) in (1u16..).zip(items) {
            let chosen = at == cursor.at;
            let style = if chosen { theme.chosen() } else { Style::new() };
            let sign = if chosen { theme.sign("▸", ">") } else { " " };
            let mark = match (self.many, self.marked.get(at)) {
                (false, _) => "",
                (true, Some(true)) => "[x] ",
                (true, _) => "[ ] ",
            };
            let gap = " ".repeat(widest.saturating_sub(text::width(name)));
            buffer.set_style(line(y), style);
            let item = format!("{sign} {mark}{name}{gap}  {means}");
            put_cut(buffer, line(y), &item, style, theme);
        }
        let keys = match (self.many, area.width < 60) {
            (true, true) => "space: mark  Enter: take  Esc: leave",
            (true, false) => "space: show or hide  Enter: take it  Esc: leave it",
            (false, _) => "Enter: take it  Esc: leave it",
        };
        if area.height > 1 {
            let foot = line(area.height - 1);
            put_cut(buffer, foot, keys, theme.faint(), theme);
        }
    }
}
