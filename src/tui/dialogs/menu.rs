//! A list to choose from.

use crate::tui::cursor::Cursor;
use crate::tui::keys::Action;

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
}
