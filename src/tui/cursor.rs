//! Where one stands in a list that is longer than the screen.

use super::keys::Action;

/// The chosen line of a list, and the first that is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// the chosen line
    pub at: usize,
    /// the first line on the screen
    pub top: usize,
}

impl Cursor {
    /// Moves in a list of `len` lines of which `page` are seen. `false` if the action is none of moving.
    pub fn act(&mut self, action: Action, len: usize, page: usize) -> bool {
        let page = page.max(1);
        let step = page.saturating_sub(1).max(1);
        self.at = match action {
            Action::Up => self.at.saturating_sub(1),
            Action::Down => self.at.saturating_add(1),
            Action::PageUp => self.at.saturating_sub(step),
            Action::PageDown => self.at.saturating_add(step),
            Action::First => 0,
            Action::Last => usize::MAX,
            _ => return false,
        };
        self.fit(len, page);
        true
    }

    /// Keeps to a list of `len` lines of which `page` are seen, with the chosen line on the screen.
    pub fn fit(&mut self, len: usize, page: usize) {
        let page = page.max(1);
        self.at = self.at.min(len.saturating_sub(1));
        self.top = self.top.min(len.saturating_sub(page));
        if self.at < self.top {
            self.top = self.at;
        } else if self.at >= self.top.saturating_add(page) {
            self.top = self.at + 1 - page;
        }
    }

    /// Scrolls a text of `len` lines of which `page` are seen: there is no chosen line, only the first.
    pub fn scroll(&mut self, action: Action, len: usize, page: usize) -> bool {
        let page = page.max(1);
        let step = page.saturating_sub(1).max(1);
        self.top = match action {
            Action::Up => self.top.saturating_sub(1),
            Action::Down => self.top.saturating_add(1),
            Action::PageUp => self.top.saturating_sub(step),
            Action::PageDown => self.top.saturating_add(step),
            Action::First => 0,
            Action::Last => usize::MAX,
            _ => return false,
        };
        self.top = self.top.min(len.saturating_sub(page));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_line_is_always_seen() {
        let mut cursor = Cursor::default();
        cursor.act(Action::Last, 100, 10);
        assert_eq!(cursor, Cursor { at: 99, top: 90 });
        cursor.act(Action::PageUp, 100, 10);
        assert_eq!(cursor, Cursor { at: 90, top: 90 });
        cursor.act(Action::Up, 100, 10);
        assert_eq!(cursor, Cursor { at: 89, top: 89 });
        cursor.fit(5, 10);
        assert_eq!(cursor, Cursor { at: 4, top: 0 }, "a list that shrank");
        cursor.act(Action::First, 0, 0);
        assert_eq!(cursor, Cursor::default(), "of nothing");
    }

    #[test]
    fn a_text_scrolls_to_its_last_line_and_no_further() {
        let mut cursor = Cursor::default();
        assert!(cursor.scroll(Action::Last, 30, 10));
        assert_eq!(cursor.top, 20);
        assert!(cursor.scroll(Action::Down, 30, 10));
        assert_eq!(cursor.top, 20);
        assert!(!cursor.scroll(Action::Quit, 30, 10));
    }
}
