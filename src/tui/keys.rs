//! The one table of keys: what is pressed, what it does, and what the help says of it.

use std::fmt;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the table of keys says what each does")]
pub enum Action {
    Quit,
    Help,
    NextTab,
    PreviousTab,
    /// the n-th tab, from 0
    Tab(u8),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    First,
    Last,
    Open,
    Back,
    Pause,
    LookNow,
    IntervalUp,
    IntervalDown,
    Export,
    Redraw,
    Suspend,
    Filter,
    SortMenu,
    SortBy,
    SortNext,
    SortPrevious,
    Reverse,
    Columns,
    Group,
    Follow,
    Sockets,
    Kill,
    FrameBack,
    FrameForward,
    FrameFirst,
    FrameLast,
    Seek,
    SpeedUp,
    SpeedDown,
    Accept,
    Cancel,
    Toggle,
    Complete,
    Earlier,
    Later,
    Backspace,
    Delete,
    DeleteWord,
    DeleteLine,
}

/// Where a key counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// on every tab
    Everywhere,
    /// in lists, tables and texts
    Moving,
    /// on the tab of the state machine
    Machine,
    /// on the tab of sockets
    Sockets,
    /// on the tab of findings
    Findings,
    /// where a recording is replayed
    Replay,
    /// while a line is typed
    Typing,
    /// in a menu
    Menu,
    /// before sockets are destroyed
    Kill,
    /// in the help
    Pager,
}

impl Scope {
    /// The heading in the help.
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Everywhere => "everywhere",
            Self::Moving => "moving",
            Self::Machine => "state machine",
            Self::Sockets => "sockets",
            Self::Findings => "findings",
            Self::Replay => "replay (--from)",
            Self::Typing => "while typing",
            Self::Menu => "in a menu",
            Self::Kill => "before a kill",
            Self::Pager => "in the help",
        }
    }

    /// All, in the order of the help.
    pub const ALL: [Self; 10] = [
        Self::Everywhere,
        Self::Moving,
        Self::Machine,
        Self::Sockets,
        Self::Findings,
        Self::Replay,
        Self::Typing,
        Self::Menu,
        Self::Kill,
        Self::Pager,
    ];
}

/// A key as it is pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// a character, with or without shift, as it comes
    Char(char),
    /// with Ctrl
    Ctrl(char),
    /// a key with a name
    Named(KeyCode),
}

impl Key {
    /// Of an event; `None` with modifiers that no binding has.
    pub fn of(event: KeyEvent) -> Option<Self> {
        let shift = KeyModifiers::SHIFT;
        match (event.code, event.modifiers.difference(shift)) {
            (KeyCode::Char(c), KeyModifiers::CONTROL) => Some(Self::Ctrl(c.to_ascii_lowercase())),
            (KeyCode::Char(c), KeyModifiers::NONE) => Some(Self::Char(c)),
            (code, KeyModifiers::NONE) => Some(Self::Named(code)),
            _ => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Char(' ') => f.write_str("space"),
            Self::Char(c) => write!(f, "{c}"),
            Self::Ctrl(c) => write!(f, "^{}", c.to_ascii_uppercase()),
            Self::Named(code) => f.write_str(match code {
                KeyCode::Up => "up",
                KeyCode::Down => "down",
                KeyCode::Left => "left",
                KeyCode::Right => "right",
                KeyCode::PageUp => "PgUp",
                KeyCode::PageDown => "PgDn",
                KeyCode::Home => "Home",
                KeyCode::End => "End",
                KeyCode::Enter => "Enter",
                KeyCode::Esc => "Esc",
                KeyCode::Tab => "Tab",
                KeyCode::BackTab => "S-Tab",
                KeyCode::Backspace => "BkSp",
                KeyCode::Delete => "Del",
                KeyCode::F(1) => "F1",
                _ => "?",
            }),
        }
    }
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// where it counts
    pub scope: Scope,
    /// any of these
    pub keys: &'static [Key],
    /// what it does
    pub action: Action,
    /// what the help says
    pub help: &'static str,
}

const fn bind(scope: Scope, keys: &'static [Key], action: Action, help: &'static str) -> Binding {
    Binding {
        scope,
        keys,
        action,
        help,
    }
}

use Key::{Char, Ctrl, Named};
use KeyCode as C;
use Scope::{Everywhere, Findings, Kill, Machine, Menu, Moving, Pager, Replay, Sockets, Typing};

/// Every key. Of two bindings that fit, the one of the scope that is asked first counts.
pub const BINDINGS: &[Binding] = &[
    bind(Everywhere, &[Char('q'), Ctrl('c')], Action::Quit, "quit"),
    bind(
        Everywhere,
        &[Char('?'), Named(C::F(1))],
        Action::Help,
        "help: these keys",
    ),
    bind(Everywhere, &[Named(C::Tab)], Action::NextTab, "next tab"),
    bind(
        Everywhere,
        &[Named(C::BackTab)],
        Action::PreviousTab,
        "previous tab",
    ),
    bind(Everywhere, &[Char('1')], Action::Tab(0), "overview"),
    bind(Everywhere, &[Char('2')], Action::Tab(1), "state machine"),
    bind(Everywhere, &[Char('3')], Action::Tab(2), "sockets"),
    bind(Everywhere, &[Char('4')], Action::Tab(3), "findings"),
    bind(Everywhere, &[Char('5')], Action::Tab(4), "closings"),
    bind(
        Everywhere,
        &[Char(' ')],
        Action::Pause,
        "pause, or play a recording; again: go on, or stand still",
    ),
    bind(Everywhere, &[Char('r')], Action::LookNow, "look now"),
    bind(
        Everywhere,
        &[Char('+'), Char('=')],
        Action::IntervalUp,
        "look less often",
    ),
    bind(
        Everywhere,
        &[Char('-')],
        Action::IntervalDown,
        "look more often",
    ),
    bind(
        Everywhere,
        &[Char('/')],
        Action::Filter,
        "filter sockets, in the language of linger list",
    ),
    bind(
        Everywhere,
        &[Char('e')],
        Action::Export,
        "export: FILE.json what is seen, FILE.linger a capture",
    ),
    bind(
        Everywhere,
        &[Ctrl('l')],
        Action::Redraw,
        "draw the screen anew",
    ),
    bind(
        Everywhere,
        &[Ctrl('z')],
        Action::Suspend,
        "suspend; fg comes back",
    ),
    bind(Moving, &[Named(C::Up), Char('k')], Action::Up, "up"),
    bind(Moving, &[Named(C::Down), Char('j')], Action::Down, "down"),
    bind(Moving, &[Named(C::Left), Char('h')], Action::Left, "left"),
    bind(
        Moving,
        &[Named(C::Right), Char('l')],
        Action::Right,
        "right",
    ),
    bind(
        Moving,
        &[Named(C::PageUp), Ctrl('b')],
        Action::PageUp,
        "a page up",
    ),
    bind(
        Moving,
        &[Named(C::PageDown), Ctrl('f')],
        Action::PageDown,
        "a page down",
    ),
    bind(
        Moving,
        &[Named(C::Home), Char('g')],
        Action::First,
        "to the first",
    ),
    bind(
        Moving,
        &[Named(C::End), Char('G')],
        Action::Last,
        "to the last",
    ),
    bind(
        Moving,
        &[Named(C::Enter)],
        Action::Open,
        "open: details, full text, or what is behind it",
    ),
    bind(
        Moving,
        &[Named(C::Esc)],
        Action::Back,
        "close what was opened; then forget filter and group",
    ),
    bind(
        Machine,
        &[Char('o')],
        Action::Sockets,
        "the sockets in this state",
    ),
    bind(
        Findings,
        &[Char('o')],
        Action::Sockets,
        "the sockets behind the finding",
    ),
    bind(
        Sockets,
        &[Char('s')],
        Action::SortMenu,
        "sort: choose a column",
    ),
    bind(
        Sockets,
        &[Char(':')],
        Action::SortBy,
        "sort: type [-]COLUMN",
    ),
    bind(
        Sockets,
        &[Char('<')],
        Action::SortPrevious,
        "sort by the column to the left",
    ),
    bind(
        Sockets,
        &[Char('>')],
        Action::SortNext,
        "sort by the column to the right",
    ),
    bind(
        Sockets,
        &[Char('R')],
        Action::Reverse,
        "sort the other way round",
    ),
    bind(Sockets, &[Char('c')], Action::Columns, "choose columns"),
    bind(Sockets, &[Char('b')], Action::Group, "group by a column"),
    bind(
        Sockets,
        &[Char('f')],
        Action::Follow,
        "follow this socket until it is gone",
    ),
    bind(Sockets, &[Char('K')], Action::Kill, "kill: a preview first"),
    bind(Replay, &[Char(',')], Action::FrameBack, "a frame back"),
    bind(
        Replay,
        &[Char('.')],
        Action::FrameForward,
        "a frame forward",
    ),
    bind(Replay, &[Char('{')], Action::FrameFirst, "the first frame"),
    bind(Replay, &[Char('}')], Action::FrameLast, "the last frame"),
    bind(
        Replay,
        &[Char('t')],
        Action::Seek,
        "seek: 14:03:11, +30s, -1min, or the number of a frame",
    ),
    bind(Replay, &[Char(']')], Action::SpeedUp, "replay faster"),
    bind(Replay, &[Char('[')], Action::SpeedDown, "replay slower"),
    bind(Typing, &[Named(C::Enter)], Action::Accept, "take it"),
    bind(
        Typing,
        &[Named(C::Esc), Ctrl('c')],
        Action::Cancel,
        "leave it",
    ),
    bind(
        Typing,
        &[Named(C::Tab)],
        Action::Complete,
        "complete the word",
    ),
    bind(
        Typing,
        &[Named(C::Up)],
        Action::Earlier,
        "what was typed before",
    ),
    bind(
        Typing,
        &[Named(C::Down)],
        Action::Later,
        "what was typed after",
    ),
    bind(Typing, &[Named(C::Left), Ctrl('b')], Action::Left, "left"),
    bind(
        Typing,
        &[Named(C::Right), Ctrl('f')],
        Action::Right,
        "right",
    ),
    bind(
        Typing,
        &[Named(C::Home), Ctrl('a')],
        Action::First,
        "to the beginning",
    ),
    bind(
        Typing,
        &[Named(C::End), Ctrl('e')],
        Action::Last,
        "to the end",
    ),
    bind(
        Typing,
        &[Named(C::Backspace), Ctrl('h')],
        Action::Backspace,
        "delete to the left",
    ),
    bind(
        Typing,
        &[Named(C::Delete), Ctrl('d')],
        Action::Delete,
        "delete to the right",
    ),
    bind(Typing, &[Ctrl('w')], Action::DeleteWord, "delete the word"),
    bind(
        Typing,
        &[Ctrl('u')],
        Action::DeleteLine,
        "delete to the beginning",
    ),
    bind(Menu, &[Named(C::Enter)], Action::Accept, "take it"),
    bind(Menu, &[Char(' ')], Action::Toggle, "choose, or take back"),
    bind(
        Menu,
        &[Named(C::Esc), Char('q'), Ctrl('c')],
        Action::Cancel,
        "leave it",
    ),
    bind(
        Kill,
        &[Named(C::Enter)],
        Action::Accept,
        "destroy, once yes is typed",
    ),
    bind(
        Kill,
        &[Named(C::Esc), Ctrl('c')],
        Action::Cancel,
        "leave them alone",
    ),
    bind(
        Pager,
        &[
            Named(C::Esc),
            Char('q'),
            Char('?'),
            Named(C::F(1)),
            Ctrl('c'),
        ],
        Action::Cancel,
        "close the help",
    ),
];

/// What `key` asks for, where the first of `scopes` that knows it decides.
pub fn action(key: Key, scopes: &[Scope]) -> Option<Action> {
    scopes.iter().find_map(|scope| {
        let own = BINDINGS.iter().filter(|binding| binding.scope == *scope);
        own.into_iter()
            .find(|binding| binding.keys.contains(&key))
            .map(|binding| binding.action)
    })
}

/// The table by scope, as `?`, `--help` and the manual page have it.
pub fn by_scope() -> impl Iterator<Item = (Scope, impl Iterator<Item = &'static Binding>)> {
    Scope::ALL.into_iter().map(|scope| {
        let own = BINDINGS
            .iter()
            .filter(move |binding| binding.scope == scope);
        (scope, own)
    })
}

/// The keys of an action in a scope, as the help writes them: `up k`.
pub fn names(binding: &Binding) -> String {
    let names: Vec<String> = binding.keys.iter().map(Key::to_string).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_has_two_meanings_in_one_place() {
        for scope in Scope::ALL {
            let own: Vec<&Binding> = BINDINGS
                .iter()
                .filter(|binding| binding.scope == scope)
                .collect();
            assert!(!own.is_empty(), "{scope:?} has no key");
            let mut seen: Vec<Key> = Vec::new();
            for key in own.iter().flat_map(|binding| binding.keys) {
                assert!(!seen.contains(key), "{scope:?}: {key}");
                seen.push(*key);
            }
        }
    }

    #[test]
    fn every_key_has_a_name_and_finds_its_action() {
        for binding in BINDINGS {
            assert!(!binding.help.is_empty());
            for key in binding.keys {
                assert_ne!(
                    key.to_string(),
                    "?".repeat(usize::from(*key != Char('?'))),
                    "{binding:?}"
                );
                assert_eq!(action(*key, &[binding.scope]), Some(binding.action));
            }
        }
        assert_eq!(action(Char('o'), &[Everywhere]), None);
    }

    #[test]
    fn shift_is_in_the_character_and_alt_is_no_key() {
        let event = |code, modifiers| Key::of(KeyEvent::new(code, modifiers));
        assert_eq!(event(C::Char('G'), KeyModifiers::SHIFT), Some(Char('G')));
        assert_eq!(event(C::Char('C'), KeyModifiers::CONTROL), Some(Ctrl('c')));
        assert_eq!(event(C::Char('x'), KeyModifiers::ALT), None);
        assert_eq!(
            event(C::BackTab, KeyModifiers::SHIFT),
            Some(Named(C::BackTab))
        );
    }
}
