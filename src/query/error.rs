//! What is wrong with a filter: the expression, a caret below the word, and the next thing to do.

use std::fmt;
use std::ops::Range;

use unicode_width::UnicodeWidthChar;

use super::KEYWORDS;
use crate::model::nearest::nearest;
use crate::model::printable::is_printable;
use crate::model::{StateSet, TcpState};

/// Why a filter was not understood. [`fmt::Display`] takes several lines; it and the hint are safe to print.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// a name that is neither a state nor a group of states
    #[error("unknown state '{word}'{place}")]
    UnknownState {
        /// where
        place: Place,
        /// what was written
        word: String,
        /// what may have been meant, best first
        near: Vec<&'static str>,
    },
    /// a keyword without a state behind it
    #[error("'{keyword}' needs the name of a state{place}")]
    MissingState {
        /// where it should be
        place: Place,
        /// the keyword
        keyword: String,
    },
    /// a word that is not in the language
    #[error("'{word}' is not understood{place}")]
    Unsupported {
        /// where
        place: Place,
        /// what was written
        word: String,
    },
}

impl Error {
    pub(super) fn unknown_state(place: Place, word: &str) -> Self {
        Self::UnknownState {
            place,
            word: shown(word),
            near: nearest(word, names()),
        }
    }

    pub(super) fn missing_state(place: Place, keyword: &str) -> Self {
        Self::MissingState {
            place,
            keyword: shown(keyword),
        }
    }

    pub(super) fn unsupported(place: Place, word: &str) -> Self {
        Self::Unsupported {
            place,
            word: shown(word),
        }
    }

    /// The next thing to do.
    pub fn hint(&self) -> String {
        let states = || format!("the states are {}", names().collect::<Vec<_>>().join(" "));
        match self {
            Self::UnknownState { near, .. } if near.is_empty() => states(),
            Self::UnknownState { near, .. } => {
                format!("did you mean {}? {}", near.join(" or "), states())
            }
            Self::MissingState { .. } => states(),
            Self::Unsupported { word, .. } if StateSet::parse(word).is_some() => {
                format!("write 'state {word}'")
            }
            Self::Unsupported { word, .. } => {
                let known = "a filter is made of 'state STATE' and 'exclude STATE' clauses, STATE in any spelling, a group, or a list with commas";
                match nearest(word, KEYWORDS).first() {
                    Some(keyword) => format!("did you mean '{keyword}'? {known}"),
                    None => known.to_owned(),
                }
            }
        }
    }
}

/// The names of states and groups, as the hint lists them.
fn names() -> impl Iterator<Item = &'static str> {
    let states = TcpState::SHOWN.into_iter().filter_map(TcpState::slug);
    states.chain(StateSet::GROUPS.into_iter().map(|(name, _)| name))
}

/// A place in an expression. Shown as two lines: the expression, and carets below the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    expression: String,
    /// columns
    before: usize,
    /// columns, at least one
    width: usize,
}

impl Place {
    /// The bytes `span` of `expression`.
    pub(super) fn new(expression: &str, span: Range<usize>) -> Self {
        let columns = |text: Option<&str>| {
            shown(text.unwrap_or_default())
                .chars()
                .map(|c| c.width().unwrap_or(0))
                .sum::<usize>()
        };
        Self {
            before: columns(expression.get(..span.start)),
            width: columns(expression.get(span)).max(1),
            expression: shown(expression),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            expression,
            before,
            width,
        } = self;
        write!(f, "\n  {expression}\n  {:before$}{:^>width$}", "", "")
    }
}

/// The text with a replacement character for each one that is not printable, blanks aside.
fn shown(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' | '\n' | '\r' => ' ',
            c if is_printable(c) => c,
            _ => '\u{fffd}',
        })
        .collect()
}
