//! An expression as it was typed, or as it stands in a file, and the places in it.

use std::ops::Range;

use super::error::Place;

/// The text of an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    /// the file; what was typed has no lines
    file: Option<String>,
    content: String,
}

impl Text {
    /// From the words of a command line.
    pub(super) const fn typed(content: String) -> Self {
        Self {
            file: None,
            content,
        }
    }

    /// From a file. Lines whose first character is `#` are comments, and a backslash at the end of a line continues it.
    pub(super) fn of_file(name: &str, content: &str) -> Self {
        let mut kept = String::with_capacity(content.len());
        // Editors of another system put a mark of the byte order in front.
        let content = content.strip_prefix('\u{feff}').unwrap_or(content);
        for line in content.split_inclusive('\n') {
            let bare = line.trim_end_matches(['\n', '\r']);
            if bare.trim_start().starts_with('#') {
                // Each byte becomes a blank, so that places stay what they are.
                kept.extend(std::iter::repeat_n(' ', bare.len()));
            } else {
                let backslashes = bare.len() - bare.trim_end_matches('\\').len();
                match bare.strip_suffix('\\') {
                    Some(before) if backslashes % 2 == 1 => {
                        kept.push_str(before);
                        kept.push(' ');
                    }
                    _ => kept.push_str(bare),
                }
            }
            kept.push_str(line.get(bare.len()..).unwrap_or_default());
        }
        Self {
            file: Some(name.to_owned()),
            content: kept,
        }
    }

    /// What there is to read.
    pub(super) fn content(&self) -> &str {
        &self.content
    }

    /// The place of these bytes. What is missing at the end is missing behind the last word.
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        let Some(file) = &self.file else {
            return Place::new("", &self.content, span);
        };
        let end = self.content.trim_end().len();
        let start = span.start.min(end);
        let before = self.content.get(..start).unwrap_or_default();
        let line = before.rfind('\n').map_or(0, |at| at + 1);
        let number = before.matches('\n').count() + 1;
        let rest = self.content.get(line..).unwrap_or_default();
        let text = rest.lines().next().unwrap_or_default();
        let span = start - line..(span.end.max(start) - line).min(text.len());
        Place::new(&format!("{file}:{number}: "), text, span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_continued_lines_leave_places_as_they_are() {
        let file = "# 服务\n  # more\nsport = :1 \\\n or \\\\\n\tdport = :2\r\n#\n";
        let text = Text::of_file("x", file);
        assert_eq!(text.content().len(), file.len());
        let words: Vec<&str> = text.content().split_whitespace().collect();
        assert_eq!(
            words,
            ["sport", "=", ":1", "or", "\\\\", "dport", "=", ":2"]
        );
        assert_eq!(Text::of_file("x", "\u{feff}sport").content(), "sport");
    }

    #[test]
    fn the_place_is_a_line_of_the_file() {
        let text = Text::of_file("web.filter", "# one\nsport = :1\n  dport = x\n\n# end\n");
        let at = text.content().find('x').unwrap();
        assert_eq!(
            text.place(at..at + 1).to_string(),
            "\n  web.filter:3:   dport = x\n                          ^"
        );
        let end = text.content().len();
        assert_eq!(
            text.place(end..end).to_string(),
            "\n  web.filter:3:   dport = x\n                           ^",
            "behind the last word"
        );
    }
}
