//! Words, operators and parentheses, each with its place.
//!
//! Blanks separate words, within an argument as between arguments; operators and parentheses need no blanks around
//! them. A backslash takes the next character as it is. There are no quotes, as in ss: the shell has its own.

use std::borrow::Cow;
use std::ops::Range;

/// The operators, the longer before those that they begin with.
const OPERATORS: [&str; 17] = [
    "&&", "||", "==", "=~", "!=", "!~", "<=", ">=", "=", "!", "~", "<", ">", "&", "|", "(", ")",
];

/// Whether a word can hold `c` only behind a backslash; blanks aside.
pub(super) const fn is_special(c: char) -> bool {
    matches!(
        c,
        '&' | '|' | '=' | '!' | '<' | '>' | '~' | '(' | ')' | '\\'
    )
}

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// a word, without its backslashes
    Word(Cow<'a, str>),
    /// an operator or a parenthesis
    Operator(&'static str),
}

/// A token and the bytes that it takes in the expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) span: Range<usize>,
}

impl Token<'_> {
    /// The token's text.
    pub(super) fn text(&self) -> &str {
        match &self.kind {
            Kind::Word(word) => word,
            Kind::Operator(operator) => operator,
        }
    }

    /// The place of `length` bytes of the token's text from `start` on.
    pub(super) fn part(&self, start: usize, length: usize) -> Range<usize> {
        // A word with a backslash is not laid out as the expression is: point at all of it.
        if self.text().len() == self.span.len() {
            let start = self.span.start + start;
            start..(start + length).min(self.span.end)
        } else {
            self.span.clone()
        }
    }
}

/// Cuts an expression into tokens.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }
}

fn operator(text: &str) -> Option<&'static str> {
    OPERATORS
        .into_iter()
        .find(|operator| text.starts_with(operator))
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let rest = self.rest();
        let start = self.at + (rest.len() - rest.trim_start().len());
        self.at = start;
        let rest = self.rest();
        if let Some(operator) = operator(rest) {
            self.at += operator.len();
            return Some(Token {
                kind: Kind::Operator(operator),
                span: start..self.at,
            });
        }
        let mut unescaped: Option<String> = None;
        let mut characters = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, mut c)) = characters.next() {
            if c == '\\' {
                let before = rest.get(..at).unwrap_or_default();
                let word = unescaped.get_or_insert_with(|| before.to_owned());
                // At the very end there is nothing to take: it stands for itself.
                c = characters.next().map_or('\\', |(_, next)| next);
                word.push(c);
            } else if c.is_whitespace() || rest.get(at..).and_then(operator).is_some() {
                end = at;
                break;
            } else if let Some(word) = &mut unescaped {
                word.push(c);
            }
        }
        if end == 0 {
            return None;
        }
        self.at = start + end;
        let word = unescaped.map_or_else(
            || Cow::Borrowed(rest.get(..end).unwrap_or_default()),
            Cow::Owned,
        );
        Some(Token {
            kind: Kind::Word(word),
            span: start..self.at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<String> {
        Lexer::new(text)
            .map(|token| token.text().to_owned())
            .collect()
    }

    #[test]
    fn operators_and_parentheses_need_no_blanks() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            (" \t\n ", &[]),
            ("(dport>=22)", &["(", "dport", ">=", "22", ")"]),
            (
                "!sport = :80||a&&b",
                &["!", "sport", "=", ":80", "||", "a", "&&", "b"],
            ),
            (
                "a!=b<c>d==e",
                &["a", "!=", "b", "<", "c", ">", "d", "==", "e"],
            ),
            (
                "dst [fd00::]/16:22 | x",
                &["dst", "[fd00::]/16:22", "|", "x"],
            ),
            ("((", &["(", "("]),
        ];
        for (text, tokens) in table {
            assert_eq!(cut(text), *tokens, "{text}");
        }
    }

    #[test]
    fn a_backslash_takes_the_next_character_as_it_is() {
        assert_eq!(cut(r"a\ b c"), ["a b", "c"]);
        assert_eq!(cut(r"\(x\)"), ["(x)"]);
        assert_eq!(cut(r"\=\\"), [r"=\"]);
        assert_eq!(cut("x\\"), ["x\\"]);
    }

    #[test]
    fn places_are_bytes_of_the_expression() {
        let text = "  服务 (a,b)";
        let tokens: Vec<Token<'_>> = Lexer::new(text).collect();
        assert_eq!(
            tokens
                .iter()
                .map(|token| &text[token.span.clone()])
                .collect::<Vec<_>>(),
            ["服务", "(", "a,b", ")"]
        );
        assert_eq!(&text[tokens[2].part(2, 1)], "b");
        let escaped = Lexer::new(r"\a,b").next().unwrap();
        assert_eq!(escaped.part(2, 1), 0..4, "all of it");
    }

    #[test]
    fn any_text_is_cut_without_losing_or_repeating_a_character() {
        for text in [
            "\\",
            "\\\\\\",
            "a\u{a0}b",
            "é(",
            "\u{feff}x",
            "&|&|!!=<=>",
            "𝔘\\𝔘 𝔘",
        ] {
            let mut end = 0;
            for token in Lexer::new(text) {
                assert!(
                    token.span.start >= end && !token.span.is_empty(),
                    "{text:?}"
                );
                assert!(text[end..token.span.start].trim().is_empty(), "{text:?}");
                end = token.span.end;
            }
            assert!(text[end..].trim().is_empty(), "{text:?}");
        }
    }
}
