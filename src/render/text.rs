//! Text for a terminal of a given width.

use unicode_width::UnicodeWidthStr;

/// The space at which [`wrap`] never breaks a line.
pub const NO_BREAK: char = '\u{a0}';

/// Breaks `text` into lines of at most `width` columns. Every line but the first begins with `indent` spaces, so that
/// the caller may put a label of that width before it. A word that is longer than a line stays whole, because it may
/// be something to paste. A number stays with its unit, and a no-break space is written as a space that never breaks.
pub fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut wrapped = String::with_capacity(text.len() + text.len() / 8);
    let mut column = indent;
    let mut words = text.split_ascii_whitespace().peekable();
    while let Some(word) = words.next() {
        let unit = words
            .peek()
            .filter(|next| word.ends_with(|c: char| c.is_ascii_digit()) && is_unit(next))
            .copied();
        let unit_width = unit.map_or(0, |unit| 1 + unit.width());
        if column > indent {
            if column + 1 + word.width() + unit_width > width {
                wrapped.push('\n');
                wrapped.extend(std::iter::repeat_n(' ', indent));
                column = indent;
            } else {
                wrapped.push(' ');
                column += 1;
            }
        }
        wrapped.extend(word.chars().map(|c| if c == NO_BREAK { ' ' } else { c }));
        column += word.width();
    }
    wrapped
}

fn is_unit(word: &str) -> bool {
    matches!(
        word.trim_end_matches(|c: char| c.is_ascii_punctuation()),
        "s" | "ms" | "min" | "h"
    )
}

/// A count with thousands separators: `9,999,999`.
pub fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_are_indented() {
        assert_eq!(wrap("one two three", 9, 2), "one two\n  three");
        assert_eq!(wrap("one two three", 8, 2), "one\n  two\n  three");
        assert_eq!(wrap("one  two\n three", 80, 4), "one two three");
        assert_eq!(wrap("", 10, 2), "");
    }

    #[test]
    fn long_words_stay_whole_and_width_0_ends() {
        assert_eq!(wrap("a extraordinary b", 5, 0), "a\nextraordinary\nb");
        assert_eq!(wrap("a b", 0, 3), "a\n   b");
    }

    #[test]
    fn a_number_keeps_its_unit() {
        assert_eq!(wrap("after 107 s.", 9, 0), "after\n107 s.");
        assert_eq!(wrap("after 107 x.", 9, 0), "after 107\nx.");
        assert_eq!(wrap("see RFC\u{a0}9293", 9, 0), "see\nRFC 9293");
    }

    #[test]
    fn wide_letters_count_twice() {
        assert_eq!(wrap("握手 握手", 8, 0), "握手\n握手");
        assert_eq!(wrap("握手 握手", 9, 0), "握手 握手");
    }

    #[test]
    fn thousands_are_separated() {
        let table: &[(u64, &str)] = &[
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_418, "12,418"),
            (9_999_999, "9,999,999"),
        ];
        for (count, text) in table {
            assert_eq!(thousands(*count), *text);
        }
    }
}
