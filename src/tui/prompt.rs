//! A line that is typed.

use super::keys::Action;

/// Bytes that a line may have: a filter of more is one for a file.
const LONGEST: usize = 4096;

/// A line that is typed, and where in it one stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    text: String,
    /// a byte offset at the beginning of a character
    at: usize,
}

impl Line {
    /// A line that begins with `text`, at its end.
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            at: text.len(),
        }
    }

    /// What is typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What stands before the cursor, and behind it.
    pub fn halves(&self) -> (&str, &str) {
        self.text
            .split_at_checked(self.at)
            .unwrap_or((&self.text, ""))
    }

    /// Puts text in. What is not printable is left out: a paste may hold anything.
    pub fn insert(&mut self, text: &str) {
        for c in text.chars() {
            let c = if c == '\n' || c == '\t' { ' ' } else { c };
            if !crate::model::printable::is_printable(c) || self.text.len() + c.len_utf8() > LONGEST
            {
                continue;
            }
            self.text.insert(self.at, c);
            self.at += c.len_utf8();
        }
    }

    /// Moves or deletes. `false` if the action is neither.
    pub fn act(&mut self, action: Action) -> bool {
        let (before, behind) = self.halves();
        let previous = before.chars().next_back().map_or(0, char::len_utf8);
        let next = behind.chars().next().map_or(0, char::len_utf8);
        let word = before.trim_end().rfind(' ').map_or(0, |blank| blank + 1);
        match action {
            Action::Left => self.at -= previous,
            Action::Right => self.at += next,
            Action::First => self.at = 0,
            Action::Last => self.at = self.text.len(),
            Action::Backspace => self.delete(self.at - previous, self.at),
            Action::Delete => self.delete(self.at, self.at + next),
            Action::DeleteWord => self.delete(word, self.at),
            Action::DeleteLine => self.delete(0, self.at),
            _ => return false,
        }
        true
    }

    fn delete(&mut self, from: usize, to: usize) {
        self.text.replace_range(from..to, "");
        self.at = from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_edited_by_characters_and_words() {
        let mut line = Line::new("état syn");
        line.act(Action::First);
        line.act(Action::Right);
        line.act(Action::Backspace);
        assert_eq!((line.text(), line.halves()), ("tat syn", ("", "tat syn")));
        line.act(Action::Last);
        line.insert("-sent\n\x1b[31m");
        assert_eq!(
            line.text(),
            "tat syn-sent [31m",
            "what a paste holds harms nobody"
        );
        line.act(Action::DeleteWord);
        assert_eq!(line.text(), "tat syn-sent ");
        line.act(Action::DeleteWord);
        assert_eq!(line.text(), "tat ");
        line.act(Action::DeleteLine);
        assert_eq!(line, Line::default());
        for action in [
            Action::Left,
            Action::Delete,
            Action::Backspace,
            Action::DeleteWord,
        ] {
            assert!(line.act(action));
        }
        assert!(!line.act(Action::Quit));
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let mut line = Line::default();
        line.insert(&"x".repeat(10_000));
        assert_eq!(line.text().len(), LONGEST);
    }
}
