//! The filter language: what `linger list FILTER` selects.
//!
//! Understood so far are the state clauses of ss: `state STATE` and `exclude STATE`, as often as wanted. A state is
//! written in any spelling, may be a group (`connected`), and may be a list (`close-wait,last-ack`).

mod error;
mod lexer;

pub use error::{Error, Place};

use crate::model::{StateSet, TcpState};
use lexer::{Kind, Lexer, Token};

/// The words that begin a clause.
const KEYWORDS: [&str; 3] = ["state", "exclude", "excl"];

/// What `exclude` begins with: all but BOUND-INACTIVE, which is shown only to those who ask for it.
const UNASKED: StateSet = StateSet::ALL.without(StateSet::of(TcpState::BoundInactive));

/// Which sockets are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// the states; `None` if no clause names one
    pub states: Option<StateSet>,
}

impl Filter {
    /// Reads a filter from the words of a command line. Blanks separate within words as between them.
    ///
    /// The first clause decides where the set begins, as in ss: `state` with none, `exclude` with all but BOUND-INACTIVE; those that follow
    /// add and take away in their order.
    ///
    /// # Errors
    /// When a word is not understood, with its place.
    pub fn parse(words: &[String]) -> Result<Self, Error> {
        let expression = words.join(" ");
        let mut tokens = Lexer::new(&expression).peekable();
        let mut states: Option<StateSet> = None;
        while let Some(token) = tokens.next() {
            let exclude = match &token.kind {
                Kind::Word(word) if word.eq_ignore_ascii_case("state") => false,
                Kind::Word(word)
                    if KEYWORDS
                        .iter()
                        .any(|keyword| word.eq_ignore_ascii_case(keyword)) =>
                {
                    true
                }
                _ => {
                    return Err(Error::unsupported(
                        Place::new(&expression, token.span.clone()),
                        token.text(),
                    ));
                }
            };
            // `state = listen` is what people write who know the other predicates.
            tokens.next_if(|token| {
                token.kind == Kind::Operator("=") || token.kind == Kind::Operator("==")
            });
            let set = state_list(&expression, &token, &mut tokens)?;
            states = Some(match (states, exclude) {
                (states, false) => states.unwrap_or(StateSet::EMPTY).union(set),
                (states, true) => states.unwrap_or(UNASKED).without(set),
            });
        }
        Ok(Self { states })
    }
}

/// The states after a keyword: one, or several with commas, which may have blanks around them.
fn state_list<'a>(
    expression: &str,
    keyword: &Token<'a>,
    tokens: &mut std::iter::Peekable<Lexer<'a>>,
) -> Result<StateSet, Error> {
    let mut set = StateSet::EMPTY;
    let mut found = false;
    let mut more = true;
    while more {
        let token = tokens.next_if(|token| matches!(token.kind, Kind::Word(_)));
        let Some(token) = token else {
            let place = tokens
                .peek()
                .map_or(expression.len()..expression.len(), |token| {
                    token.span.clone()
                });
            return Err(Error::missing_state(
                Place::new(expression, place),
                keyword.text(),
            ));
        };
        let word = token.text();
        let mut end = 0;
        for name in word.split(',') {
            let start = end;
            end = start + name.len() + 1;
            if name.is_empty() {
                continue;
            }
            let Some(states) = StateSet::parse(name) else {
                let place = Place::new(expression, token.part(start, name.len()));
                return Err(Error::unknown_state(place, name));
            };
            set = set.union(states);
            found = true;
        }
        let joined =
            |token: &Token<'_>| matches!(&token.kind, Kind::Word(word) if word.starts_with(','));
        more = !found || word.ends_with(',') || tokens.peek().is_some_and(joined);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TcpState;

    fn words(text: &[&str]) -> Vec<String> {
        text.iter().map(|word| (*word).to_owned()).collect()
    }

    fn states(text: &[&str]) -> StateSet {
        Filter::parse(&words(text))
            .unwrap_or_else(|error| panic!("{error}"))
            .states
            .unwrap()
    }

    fn of(states: &[TcpState]) -> StateSet {
        states.iter().fold(StateSet::EMPTY, |set, state| {
            set.union(StateSet::of(*state))
        })
    }

    fn error(text: &[&str]) -> Error {
        Filter::parse(&words(text)).unwrap_err()
    }

    #[test]
    fn no_words_select_nothing_in_particular() {
        assert_eq!(Filter::parse(&[]), Ok(Filter { states: None }));
        assert_eq!(
            Filter::parse(&words(&["  ", "\t"])),
            Ok(Filter { states: None })
        );
    }

    #[test]
    fn clauses_accumulate_as_in_ss() {
        use TcpState::{CloseWait, LastAck, Listen, TimeWait};
        let table: &[(&[&str], StateSet)] = &[
            (&["state", "close-wait"], of(&[CloseWait])),
            (&["state close-wait"], of(&[CloseWait])),
            (
                &["STATE", "CLOSE_WAIT", "state", "LastAck"],
                of(&[CloseWait, LastAck]),
            ),
            (&["state", "close-wait,last-ack"], of(&[CloseWait, LastAck])),
            (
                &["state", "close-wait,", "last-ack"],
                of(&[CloseWait, LastAck]),
            ),
            (
                &["state", "close-wait", ",last-ack"],
                of(&[CloseWait, LastAck]),
            ),
            (
                &["state", "close-wait", ",", "last-ack", "state", "listen"],
                of(&[CloseWait, LastAck, Listen]),
            ),
            (&["state=listening"], of(&[Listen])),
            (&["state", "=", "listen"], of(&[Listen])),
            (&["state", "all"], StateSet::ALL),
            (&["state", "Connected"], StateSet::CONNECTED),
            (&["exclude", "listen"], UNASKED.without(of(&[Listen]))),
            (
                &["excl", "listen", "exclude", "time-wait"],
                UNASKED.without(of(&[Listen, TimeWait])),
            ),
            (
                &["state", "bucket", "exclude", "time-wait"],
                of(&[TcpState::SynReceived]),
            ),
            (
                &["exclude", "bucket", "state", "time-wait"],
                UNASKED.without(of(&[TcpState::SynReceived])),
            ),
            (&["state", "listen", "exclude", "listen"], StateSet::EMPTY),
        ];
        for (text, set) in table {
            assert_eq!(states(text), *set, "{text:?}");
        }
    }

    #[test]
    fn every_spelling_of_a_state_and_every_group_is_read() {
        for state in TcpState::SHOWN {
            assert_eq!(states(&["state", &state.to_string()]), StateSet::of(state));
            assert_eq!(
                states(&["state", state.slug().unwrap()]),
                StateSet::of(state)
            );
        }
        for (name, set) in StateSet::GROUPS {
            assert_eq!(states(&["state", name]), set);
        }
    }

    #[test]
    fn an_unknown_state_has_a_caret_and_names_that_are_near() {
        let error = error(&["state", "close-wait,lisen", "exclude", "all"]);
        assert_eq!(
            error.to_string(),
            "unknown state 'lisen'\n  state close-wait,lisen exclude all\n                   ^^^^^"
        );
        let hint = error.hint();
        assert!(hint.starts_with("did you mean listen"), "{hint}");
        assert!(
            hint.contains("time-wait") && hint.contains("synchronized"),
            "{hint}"
        );
    }

    #[test]
    fn a_clause_without_a_state_points_behind_itself() {
        assert_eq!(
            error(&["exclude"]).to_string(),
            "'exclude' needs the name of a state\n  exclude\n         ^"
        );
        assert_eq!(
            error(&["state", "(", "listen)"]).to_string(),
            "'state' needs the name of a state\n  state ( listen)\n        ^"
        );
        assert!(
            error(&["state", "listen,"])
                .to_string()
                .contains("needs the name")
        );
        assert!(
            error(&["state", ","])
                .to_string()
                .contains("needs the name")
        );
    }

    #[test]
    fn other_words_say_what_is_understood() {
        let other = error(&["state", "listen", "dport", "=", ":443"]);
        assert_eq!(
            other.to_string(),
            "'dport' is not understood\n  state listen dport = :443\n               ^^^^^"
        );
        assert!(other.hint().contains("state STATE"), "{}", other.hint());
        let bare = error(&["close_wait"]);
        assert_eq!(bare.hint(), "write 'state close_wait'");
        let slip = error(&["sate", "listen"]);
        assert!(
            slip.hint().starts_with("did you mean 'state'"),
            "{}",
            slip.hint()
        );
        assert_eq!(
            error(&["(state", "listen)"]).to_string(),
            "'(' is not understood\n  (state listen)\n  ^"
        );
    }

    #[test]
    fn carets_stand_below_wide_and_hostile_words() {
        let error = error(&["state", "listen", "服务\x1b[2J\u{202e}", "x"]);
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "  state listen 服务\u{fffd}[2J\u{fffd} x");
        assert_eq!(lines[2], "               ^^^^^^^^^");
        assert!(
            !text.contains(['\x1b', '\u{202e}']) && !error.hint().contains('\x1b'),
            "{text}"
        );
    }
}
