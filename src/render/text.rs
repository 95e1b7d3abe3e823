//! Text for terminals: foreign names made harmless, widths, and numbers as people read them.

use std::fmt::{self, Display, Write};

use unicode_width::UnicodeWidthStr;

use crate::model::printable::{all_printable, is_printable};

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

/// Shows foreign text on a terminal. What is not printable is shown as `\x1b` (up to U+00FF) or `\u{202e}`; the rest
/// as it is, the backslash too, because systemd writes names like `dev-sda\x2d1.swap`. Nothing is allocated.
#[derive(Clone, Copy, Debug)]
pub struct Safe<'a>(pub &'a str);

impl Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_safe(self.0, f)
    }
}

/// Appends `text` to `out` as [`Safe`] shows it.
pub fn safe(text: &str, out: &mut String) {
    // Writing to a String does not fail.
    let _ = write_safe(text, out);
}

/// Appends `text` to `out` as [`Safe`] shows it.
///
/// # Errors
/// Those of `out`.
pub(super) fn write_safe(text: &str, out: &mut impl Write) -> fmt::Result {
    if all_printable(text) {
        return out.write_str(text);
    }
    let mut rest = text;
    while let Some((at, c)) = rest.char_indices().find(|(_, c)| !is_printable(*c)) {
        out.write_str(rest.get(..at).unwrap_or_default())?;
        match u32::from(c) {
            code @ 0..=0xff => write!(out, "\\x{code:02x}")?,
            code => write!(out, "\\u{{{code:x}}}")?,
        }
        rest = rest.get(at + c.len_utf8()..).unwrap_or_default();
    }
    out.write_str(rest)
}

/// The columns that `text`, which is safe already, takes on a terminal.
pub fn width(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        text.width()
    }
}

/// A number with its thousands set apart: `12,418`.
#[derive(Clone, Copy, Debug)]
pub struct Thousands(pub u64);

impl Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // u64::MAX has 20 digits and 6 commas.
        let mut text = [0u8; 26];
        let mut rest = self.0;
        let mut start = text.len();
        for (digit, slot) in text.iter_mut().rev().enumerate() {
            start -= 1;
            if digit % 4 == 3 {
                *slot = b',';
                continue;
            }
            *slot = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let text = text.get(start..).unwrap_or_default();
        f.pad_integral(true, "", std::str::from_utf8(text).unwrap_or_default())
    }
}

/// A duration in milliseconds as people say it: `850ms`, `1.4s`, `12s`, `3min 20s`, `51min`, `2h 05min`, `3d 4h`. Cut off,
/// not rounded: what is called `2h` has lasted two hours. `{:#}` leaves the blank out.
pub fn age(ms: u64) -> Duration {
    Duration(ms)
}

/// See [`age`].
#[derive(Clone, Copy, Debug)]
pub struct Duration(u64);

impl Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gap = if f.alternate() { "" } else { " " };
        let (ms, seconds) = (self.0, self.0 / 1000);
        let (minutes, hours) = (seconds / 60, seconds / 3600);
        match seconds {
            0 => write!(f, "{ms}ms"),
            1..10 if ms % 1000 >= 100 => write!(f, "{seconds}.{}s", ms % 1000 / 100),
            1..60 => write!(f, "{seconds}s"),
            60..600 if seconds % 60 > 0 => write!(f, "{minutes}min{gap}{:02}s", seconds % 60),
            60..3600 => write!(f, "{minutes}min"),
            3600..86_400 => write!(f, "{hours}h{gap}{:02}min", minutes % 60),
            _ => write!(f, "{}d{gap}{}h", hours / 24, hours % 24),
        }
    }
}

/// An amount of memory or data: `512 B`, `1.5 KiB`, `44 MiB`. Cut off, not rounded.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let mut tenths = u128::from(self.0) * 10;
        let mut unit = "B";
        for next in UNITS {
            if tenths < 10_240 {
                break;
            }
            tenths /= 1024;
            unit = next;
        }
        match (tenths / 10, tenths % 10) {
            (whole, tenth) if whole < 10 && tenth > 0 => write!(f, "{whole}.{tenth} {unit}"),
            (whole, _) => write!(f, "{whole} {unit}"),
        }
    }
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
    fn hostile_names_are_shown_with_escapes() {
        let table: &[(&str, &str)] = &[
            ("nginx", "nginx"),
            ("", ""),
            ("\x1b[2J\x07evil", "\\x1b[2J\\x07evil"),
            ("a\u{202e}b\u{200b}", "a\\u{202e}b\\u{200b}"),
            ("\u{9b}31mred\n", "\\x9b31mred\\x0a"),
            ("服务\t器", "服务\\x09器"),
            ("dev\\x2dsda", "dev\\x2dsda"),
        ];
        for (text, shown) in table {
            assert_eq!(Safe(text).to_string(), *shown);
            let mut out = String::from(">");
            safe(text, &mut out);
            assert_eq!(out, format!(">{shown}"));
        }
    }

    #[test]
    fn widths_are_columns_not_bytes() {
        assert_eq!((width("abc"), width("größe"), width("服务")), (3, 5, 4));
    }

    #[test]
    fn thousands_are_set_apart() {
        let table: &[(u64, &str)] = &[
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (12_418, "12,418"),
            (100_000, "100,000"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ];
        for (number, text) in table {
            assert_eq!(Thousands(*number).to_string(), *text);
        }
        assert_eq!(
            format!("{:>7}|{:<7}|", Thousands(1234), Thousands(1234)),
            "  1,234|1,234  |"
        );
    }

    #[test]
    fn durations_are_said_as_people_say_them() {
        let table: &[(u64, &str)] = &[
            (0, "0ms"),
            (850, "850ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1_499, "1.4s"),
            (9_999, "9.9s"),
            (12_900, "12s"),
            (59_999, "59s"),
            (60_000, "1min"),
            (61_000, "1min 01s"),
            (200_000, "3min 20s"),
            (599_000, "9min 59s"),
            (601_000, "10min"),
            (51 * 60_000 + 59_999, "51min"),
            (3_600_000, "1h 00min"),
            (7_500_000, "2h 05min"),
            (86_399_999, "23h 59min"),
            (86_400_000, "1d 0h"),
            (76 * 3_600_000, "3d 4h"),
        ];
        for (ms, text) in table {
            assert_eq!(age(*ms).to_string(), *text);
        }
        assert_eq!(format!("{:#}", age(7_500_000)), "2h05min");
    }

    #[test]
    fn bytes_are_counted_in_powers_of_1024() {
        let table: &[(u64, &str)] = &[
            (0, "0 B"),
            (512, "512 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (44 << 20, "44 MiB"),
            (u64::MAX, "15 EiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(Bytes(*bytes).to_string(), *text);
        }
    }
}
