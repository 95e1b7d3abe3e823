//! The documented states, how a connection begins and ends, and how long the kernel waits: text and figures as data.

pub mod counters;
pub mod killing;
pub mod lifetimes;
pub mod states;
pub mod story;
pub mod topics;
pub mod transitions;

pub use lifetimes::Lifetime;
pub use states::{STATES, StateText, state_text};
pub use story::{Scene, Story, tell};
pub use topics::{TOPICS, Topic};
pub use transitions::{Cause, TRANSITIONS, Transition};

use crate::model::{TcpState, nearest};

/// What a word may name.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    /// a state
    State(&'static StateText),
    /// a topic
    Topic(&'static Topic),
}

/// What `word` names: a topic by its name or an alias, a state in any spelling.
///
/// `close` is the topic, although tools write CLOSED so too: whoever asks for an explanation of it asks how a
/// connection is closed.
pub fn find(word: &str) -> Option<Entry> {
    topics::find(word)
        .map(Entry::Topic)
        .or_else(|| TcpState::parse(word).and_then(state_text).map(Entry::State))
}

/// Every name that [`find`] understands, one spelling of each state.
pub fn names() -> impl Iterator<Item = &'static str> {
    let states = STATES.iter().map(StateText::slug);
    let topics = TOPICS
        .iter()
        .flat_map(|topic| std::iter::once(&topic.name).chain(topic.aliases).copied());
    states.chain(topics)
}

/// What a word that [`find`] does not know may have been meant to be, nearest first.
pub fn near(word: &str) -> Vec<&'static str> {
    nearest(word, names())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(word: &str) -> Option<&'static str> {
        find(word).map(|entry| match entry {
            Entry::State(text) => text.slug(),
            Entry::Topic(topic) => topic.name,
        })
    }

    #[test]
    fn states_are_found_in_every_spelling_and_topics_by_name_and_alias() {
        let table: &[(&str, Option<&str>)] = &[
            ("CLOSE_WAIT", Some("close-wait")),
            ("FIN_WAIT1", Some("fin-wait-1")),
            ("SYN_RCVD", Some("syn-received")),
            ("NEW_SYN_RECV", Some("syn-received")),
            ("estab", Some("established")),
            ("close", Some("close")),
            ("closed", Some("closed")),
            ("TCP_CLOSE", Some("closed")),
            ("teardown", Some("close")),
            ("Four Way Close", Some("close")),
            ("2MSL", Some("2msl")),
            ("time_wait_why", Some("2msl")),
            ("half-open", Some("half-close")),
            ("three-way", Some("handshake")),
            ("lisen", None),
            ("", None),
        ];
        for (word, expected) in table {
            assert_eq!(found(word), *expected, "{word}");
        }
    }

    #[test]
    fn names_are_unique_and_each_finds_something() {
        let all: Vec<_> = names().collect();
        for name in &all {
            assert!(found(name).is_some(), "{name}");
            assert_eq!(
                all.iter().filter(|other| *other == name).count(),
                1,
                "{name}"
            );
        }
    }

    #[test]
    fn a_slip_is_answered_with_what_was_meant() {
        assert_eq!(near("lisen"), ["listen"]);
        assert_eq!(near("closewait"), ["close-wait"]);
        assert_eq!(near("hanshake"), ["handshake"]);
        assert_eq!(near("teardwn"), ["teardown"]);
        assert!(near("frobnicate").is_empty());
    }
}
