//! What is wrong with a filter: the expression, a caret below the word, and the next thing to do.

use std::fmt;
use std::ops::Range;

use unicode_width::UnicodeWidthChar;

use super::hints;
use crate::model::nearest::nearest;
use crate::model::printable::is_printable;
use crate::model::{StateSet, TcpState};

/// What should have stood in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// a clause or a comparison
    Test,
    /// the name of a state
    State,
    /// an address
    Host,
    /// a port
    Port,
    /// the name or number of an interface
    Interface,
    /// a firewall mark
    Mark,
    /// the path of a cgroup
    Cgroup,
    /// a user
    User,
    /// the name of a timer
    Timer,
    /// a number
    Number,
    /// a number with a unit of time
    Time,
    /// a number of bytes
    Size,
    /// text
    Text,
    /// the kernel's identity of a socket
    Cookie,
    /// yes or no
    Flag,
    /// one of these names
    Name(&'static [&'static str]),
}

impl Wanted {
    const fn text(self) -> &'static str {
        match self {
            Self::Test => "a test, such as sport = :443,",
            Self::State => "a state",
            Self::Host => "an address",
            Self::Port => "a port",
            Self::Interface => "an interface",
            Self::Mark => "a mark",
            Self::Cgroup => "a path",
            Self::User => "a user",
            Self::Timer => "a timer",
            Self::Number => "a number",
            Self::Time => "a time",
            Self::Size => "a size",
            Self::Text => "a word",
            Self::Cookie => "a cookie",
            Self::Flag => "yes or no",
            Self::Name(_) => "a value of this column",
        }
    }

    /// How it is written behind `name`.
    fn example(self, name: &str) -> String {
        match self {
            Self::Test => GENERAL.to_owned(),
            Self::State => "write 'state close-wait' or 'exclude time-wait'".to_owned(),
            Self::Host => format!(
                "write '{name} 10.0.0.7', '{name} 10.0.0.0/8:443', '{name} [fd00::/16]:22' or a host's name; for a port alone 'sport = :443' or 'dport = :443'"
            ),
            Self::Port => format!(
                "write '{name} = :443', '{name} >= 1024' or '{name} = https'; an address goes with 'src' or 'dst'"
            ),
            Self::Interface => format!("write '{name} = eth0'"),
            Self::Mark => format!("write '{name} = 0x10' or '{name} = 0x10/0xff'"),
            Self::Cgroup => {
                format!("write '{name} = /system.slice/nginx.service' or '{name} ~ *nginx*'")
            }
            Self::User => format!("write '{name} = www-data' or '{name} != 0'"),
            Self::Timer => {
                format!("write '{name} = retransmit', or keepalive, persist, time-wait, none")
            }
            Self::Number => format!("write '{name} = 12' or '{name} >= 12'"),
            Self::Time => format!("write the unit: '{name} > 100ms', or us, s, min, h, d"),
            Self::Size => format!("write '{name} > 0', '{name} >= 64KiB' or '{name} > 1MB'"),
            Self::Text => format!(
                "write '{name} = WORD' or '{name} ~ GLOB', with * and ?; blanks and operators in it need a backslash"
            ),
            Self::Cookie => {
                format!("write '{name} = 7ad639': hexadecimal, as -e and --json show it")
            }
            Self::Flag => format!("write '{name} = yes' or '{name} = no'"),
            Self::Name(names) => format!("'{name}' is one of {}", names.join(" ")),
        }
    }
}

/// What a filter is made of.
pub(super) const GENERAL: &str = "a filter is made of 'state STATE', 'exclude STATE', 'src HOST', 'dst HOST', 'sport = PORT', 'dport = PORT', \
    and comparisons of columns such as 'process = nginx' and 'age > 5min', joined by and, or, not and parentheses";

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
        /// whether nothing is compared with it, so that it may be meant as a value
        bare: bool,
    },
    /// a column whose values are no numbers and no text
    #[error("'{word}' cannot be compared with anything{place}")]
    Incomparable {
        /// where
        place: Place,
        /// the column
        word: String,
    },
    /// something is missing
    #[error("{} is expected here{place}", wanted.text())]
    Expected {
        /// where it should be
        place: Place,
        /// what
        wanted: Wanted,
        /// the name before it, if there is one
        name: String,
    },
    /// a value that is none
    #[error("'{word}' is not {}{place}", wanted.text())]
    Value {
        /// where
        place: Place,
        /// what was written
        word: String,
        /// what it should be
        wanted: Wanted,
        /// the name before it
        name: String,
    },
    /// a comparison that makes no sense
    #[error("'{name}' cannot be compared with '{operator}'{place}")]
    Operator {
        /// where
        place: Place,
        /// the operator
        operator: String,
        /// the name before it
        name: String,
        /// what it is compared with
        wanted: Wanted,
    },
    /// a parenthesis without its partner
    #[error("this parenthesis is not closed{place}")]
    Unclosed {
        /// where
        place: Place,
    },
    /// more parentheses than anybody writes
    #[error("parentheses and 'not' nest too deep{place}")]
    TooDeep {
        /// where
        place: Place,
    },
    /// a name that nobody knows
    #[error("{what} '{name}' is not known{place}")]
    Unknown {
        /// where
        place: Place,
        /// what kind of thing
        what: &'static str,
        /// the name
        name: String,
        /// what to do
        hint: String,
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
        Self::stranger(place, word, false)
    }

    pub(super) fn stranger(place: Place, word: &str, bare: bool) -> Self {
        Self::Unsupported {
            place,
            word: shown(word),
            bare,
        }
    }

    pub(super) fn incomparable(place: Place, word: &str) -> Self {
        Self::Incomparable {
            place,
            word: shown(word),
        }
    }

    pub(super) fn expected(place: Place, wanted: Wanted, name: Option<&str>) -> Self {
        Self::Expected {
            place,
            wanted,
            name: shown(name.unwrap_or_default()),
        }
    }

    pub(super) fn value(place: Place, word: &str, wanted: Wanted, name: &str) -> Self {
        Self::Value {
            place,
            word: shown(word),
            wanted,
            name: shown(name),
        }
    }

    pub(super) fn operator(place: Place, operator: &str, name: &str, wanted: Wanted) -> Self {
        Self::Operator {
            place,
            operator: shown(operator),
            name: shown(name),
            wanted,
        }
    }

    pub(super) const fn unclosed(place: Place) -> Self {
        Self::Unclosed { place }
    }

    pub(super) const fn too_deep(place: Place) -> Self {
        Self::TooDeep { place }
    }

    pub(super) fn unknown(place: Place, what: &'static str, name: &str, hint: &str) -> Self {
        Self::Unknown {
            place,
            what,
            name: shown(name),
            hint: shown(hint),
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
            Self::Unsupported { word, bare, .. } => hints::stranger(word, *bare),
            Self::Incomparable { word, .. } => format!(
                "as a column it can be shown, sorted and counted by: -c {}",
                word.to_ascii_lowercase()
            ),
            Self::Value {
                wanted: wanted @ Wanted::Name(names),
                word,
                name,
                ..
            } => did_you_mean(word, names) + &wanted.example(name),
            Self::Expected { wanted, name, .. } | Self::Value { wanted, name, .. } => {
                wanted.example(name)
            }
            Self::Operator { wanted, name, .. } => wanted.example(name),
            Self::Unclosed { .. } => {
                "add ')', and quote the filter: the shell takes parentheses, < and > for its own"
                    .to_owned()
            }
            Self::TooDeep { .. } => format!("take some away: {GENERAL}"),
            Self::Unknown { hint, .. } => hint.clone(),
        }
    }
}

/// The question about what is near, before what there is.
fn did_you_mean(word: &str, names: &[&'static str]) -> String {
    match &nearest(word, names.iter().copied())[..] {
        [] => String::new(),
        near => format!("did you mean '{}'? ", near.join("' or '")),
    }
}

/// The names of states and groups, as the hint lists them.
fn names() -> impl Iterator<Item = &'static str> {
    let states = TcpState::SHOWN.into_iter().filter_map(TcpState::slug);
    states.chain(StateSet::GROUPS.into_iter().map(|(name, _)| name))
}

/// A place in an expression. Shown as two lines: the expression, or the line of a file, and carets below the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    expression: String,
    /// columns
    before: usize,
    /// columns, at least one
    width: usize,
}

/// So many columns are shown on either side of a place, and of the place itself.
const AROUND: usize = 100;

impl Place {
    /// The bytes `span` of `expression`, which stands in `file`.
    pub(super) fn new(file: &str, expression: &str, span: Range<usize>) -> Self {
        let part = |text: Option<&str>| shown(text.unwrap_or_default());
        let before = part(expression.get(..span.start));
        let within = clipped(part(expression.get(span.clone())).chars());
        let behind = clipped(part(expression.get(span.end..)).chars());
        let before: String = clipped(before.chars().rev()).chars().rev().collect();
        let before = shown(file) + &before;
        Self {
            before: columns(&before),
            width: columns(&within).max(1),
            expression: before + &within + &behind,
        }
    }
}

fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// As much as is shown, and `…` for the rest.
fn clipped(text: impl Iterator<Item = char>) -> String {
    let mut kept = String::new();
    let mut room = AROUND;
    for c in text {
        let Some(left) = room.checked_sub(c.width().unwrap_or(0)) else {
            kept.push('…');
            break;
        };
        room = left;
        kept.push(c);
    }
    kept
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
