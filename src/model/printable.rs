//! Which characters may reach a terminal as they are.
//!
//! Names of processes, cgroups and interfaces are chosen by others. A control character moves the cursor, a bidi
//! override reorders the line, a zero-width one hides that two names differ.

/// Whether `c` shows as itself and nothing else: no control, format (bidi, zero-width, tag), private-use, unassigned
/// or separator character, no space but the ASCII one, and no mark that changes its neighbour.
pub fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        // Letters and symbols by category, blank by look: Hangul fillers, the empty Braille pattern.
        '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' => false,
        // The standard library escapes by Unicode category: Cc Cf Cs Co Cn Zl Zp Zs, and what extends a grapheme.
        other => other.escape_debug().len() == 1,
    }
}

/// Whether all of `text` is printable.
pub fn all_printable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || text.chars().all(is_printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_or_hides_is_printable() {
        let hostile = [
            '\0',
            '\t',
            '\n',
            '\r',
            '\x1b',
            '\x7f',
            '\u{80}',
            '\u{9b}',
            '\u{a0}',
            '\u{ad}',
            '\u{301}',
            '\u{61c}',
            '\u{115f}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{2028}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e000}',
            '\u{e0041}',
            '\u{e0100}',
            '\u{10ffff}',
        ];
        for c in hostile {
            assert!(!is_printable(c), "{c:?}");
            assert!(!all_printable(&format!("nginx{c}")), "{c:?}");
        }
    }

    #[test]
    fn letters_of_any_script_are_printable() {
        for text in [
            "nginx: worker 'a' \"b\" \\",
            "größe",
            "сервер",
            "服务器",
            "サーバ",
            "\u{fffd}",
            "🦀",
            "",
        ] {
            assert!(all_printable(text), "{text}");
        }
    }
}
