//! What happens, and what it changes and asks for, as data.

mod asking;
mod frames;
mod killing;
mod replay;
mod whatever;

use ratatui::crossterm::event::{
    KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseEvent, MouseEventKind,
};

use super::*;
use crate::tui::look::Frame;
use crate::tui::tabs::scenes::{click, find, seen, wrong};
use crate::tui::testing::{NOON, app, empty, look_at, press, screen};

const SIZE: (u16, u16) = (80, 24);

fn see(app: &mut App, look: Look) -> Vec<Effect> {
    app.update(Msg::Look(Box::new(look)))
}

fn scroll(app: &mut App, kind: MouseEventKind) -> Vec<Effect> {
    app.update(Msg::Mouse(MouseEvent {
        kind,
        column: 5,
        row: 5,
        modifiers: KeyModifiers::NONE,
    }))
}

/// The last line of the screen.
fn foot(app: &App) -> String {
    let rows = usize::from(app.setup.size.1);
    let screen = screen(app);
    screen.lines().nth(rows - 1).unwrap_or_default().to_owned()
}

/// A dashboard of a recording, at the third of ten frames that are a second apart.
fn recorded(size: (u16, u16), tab: TabId) -> App {
    let mut setup = empty(size, tab).setup;
    setup.replay = true;
    let mut app = App::new(setup);
    see(&mut app, frame(2));
    app
}

/// A look that is the n-th of ten frames, from 0.
fn frame(index: usize) -> Look {
    let mut look = look_at(NOON + i64::try_from(index).unwrap());
    let at = |second| jiff::Timestamp::from_second(second).unwrap();
    look.frame = Some(Frame {
        index,
        of: 10,
        first: at(NOON),
        last: at(NOON + 9),
    });
    look
}

#[test]
fn tabs_are_reached_by_number_and_in_turn() {
    let mut app = app(SIZE, TabId::Overview);
    for (key, tab) in ["1", "2", "3", "4", "5"].into_iter().zip(TabId::ALL) {
        assert!(press(&mut app, key).is_empty());
        assert_eq!(app.tab(), tab);
    }
    press(&mut app, "<Tab>");
    assert_eq!(app.tab(), TabId::Overview, "from the last to the first");
    press(&mut app, "<BackTab>");
    assert_eq!(app.tab(), TabId::Closings, "and back");
    press(&mut app, "6");
    assert_eq!(app.tab(), TabId::Closings, "there is no sixth");
}

#[test]
fn tabs_are_reached_by_the_mouse_where_their_names_are_seen() {
    for columns in [40, 62, 63, 80, 200] {
        for from in TabId::ALL {
            for (n, to) in (1..).zip(TabId::ALL) {
                let mut app = app((columns, 24), from);
                // The names that have no room are left out, the numbers are not.
                let number = format!("{n}");
                let line = screen(&app).lines().nth(1).unwrap_or_default().to_owned();
                let at = text::width(&line[..line.find(&number).unwrap()]);
                click(&mut app, u16::try_from(at).unwrap(), 1);
                assert_eq!(app.tab(), to, "{columns} {line}");
                let line = screen(&app).lines().nth(1).unwrap_or_default().to_owned();
                assert!(line.contains(to.title()), "{columns} {line}");
            }
        }
    }
    let mut app = app(SIZE, TabId::Machine);
    click(&mut app, 79, 1);
    assert_eq!(app.tab(), TabId::Machine, "behind the last name is nothing");
}

#[test]
fn paused_the_screen_stands_still_while_looks_are_remembered() {
    for tab in TabId::ALL {
        let mut app = seen((120, 40), tab, wrong);
        assert!(press(&mut app, " ").is_empty(), "nothing has to be done");
        let before = screen(&app);
        assert!(before.contains("PAUSED at 14:03:11"), "{before}");
        let (reach, closes) = (app.trend.reach(), app.closes(60));
        for second in 1..6 {
            assert!(see(&mut app, wrong(NOON + second)).is_empty());
        }
        assert_eq!(screen(&app), before, "{tab:?}");
        assert_eq!(app.closes(60), closes, "what is exported is what is seen");
        assert_eq!(app.trend.reach(), reach + Duration::from_secs(5));
        // One can still move.
        press(&mut app, "<Down><Up>g");
        app.update(Msg::Resize(80, 24));
        app.update(Msg::Resize(120, 40));
        let effects = press(&mut app, " ");
        assert!(matches!(effects[..], [Effect::LookNow]), "{effects:?}");
        see(&mut app, wrong(NOON + 6));
        let after = screen(&app);
        assert!(after.contains("14:03:17") && !after.contains("PAUSED"));
        assert_ne!(app.closes(60), closes, "with all that was seen meanwhile");
    }
}

#[test]
fn nothing_can_be_paused_before_the_first_look() {
    let mut app = empty(SIZE, TabId::Overview);
    press(&mut app, " ");
    see(&mut app, look_at(NOON));
    assert!(screen(&app).contains("14:03:11  every 1s"));
}

#[test]
fn the_interval_is_changed_by_steps_to_both_ends() {
    let intervals = |app: &mut App, key: &str| {
        let mut all = Vec::new();
        for _ in 0..20 {
            for effect in press(app, key) {
                let Effect::Interval(interval) = effect else {
                    panic!("{effect:?}");
                };
                assert_eq!(interval, app.interval());
                all.push(interval.as_millis());
            }
        }
        all
    };
    let mut app = app(SIZE, TabId::Overview);
    let up = intervals(&mut app, "+");
    assert_eq!(up[..3], [2_000, 5_000, 10_000]);
    assert!(up.is_sorted() && up.last() == Some(&3_600_000), "{up:?}");
    assert_eq!(foot(&app), "every 1h00min: the keys go no further");
    let down = intervals(&mut app, "-");
    assert_eq!(down.last(), Some(&250));
    assert_eq!(down.len(), STEPS.len() - 1, "each step once: {down:?}");
    assert_eq!(intervals(&mut app, "=").len(), STEPS.len() - 1);
    // One that no key reaches is left in the direction that was asked for.
    for (own, key, next) in [(700, "+", 1_000), (700, "-", 500), (20, "+", 250)] {
        app.setup.interval = Duration::from_millis(own);
        press(&mut app, key);
        assert_eq!(app.interval().as_millis(), next);
    }
    for (own, key) in [(20, "-"), (7_200_000, "+")] {
        app.setup.interval = Duration::from_millis(own);
        assert!(press(&mut app, key).is_empty());
        assert_eq!(app.interval().as_millis(), u128::from(own));
    }
}

#[test]
fn what_failed_is_said_until_there_is_a_look() {
    let mut fresh = empty(SIZE, TabId::Overview);
    let why = "cannot open \x1b[31m: too many open files";
    assert!(fresh.update(Msg::Failed(why.to_owned())).is_empty());
    let page = screen(&fresh);
    assert!(
        page.contains("too many open files") && !page.contains('\x1b'),
        "{page}"
    );
    see(&mut fresh, look_at(NOON));
    assert!(!screen(&fresh).contains("too many"));
    // Later the last look stays, and what is said stays through keys.
    fresh.update(Msg::Failed("no memory".to_owned()));
    press(&mut fresh, "<Down>");
    let page = screen(&fresh);
    assert!(page.contains("233 TCP sockets"), "{page}");
    assert_eq!(foot(&fresh), "! the last look failed: no memory");
    // Also while the screen stands still.
    press(&mut fresh, " ");
    see(&mut fresh, look_at(NOON + 1));
    assert!(!screen(&fresh).contains("no memory"));
}

#[test]
fn details_are_asked_for_while_they_are_open_and_no_wish_twice() {
    let wishes = |effects: Vec<Effect>| -> Vec<Option<u64>> {
        let wishes = effects.into_iter().map(|effect| match effect {
            Effect::Wish(wish) => wish.cookie,
            other => panic!("{other:?}"),
        });
        wishes.collect()
    };
    let mut app = app(SIZE, TabId::Sockets);
    assert_eq!(wishes(press(&mut app, "<Down><Enter>")), [Some(2)]);
    assert!(see(&mut app, look_at(NOON + 1)).is_empty());
    assert!(app.update(Msg::Resize(120, 40)).is_empty());
    assert_eq!(wishes(press(&mut app, "<Down>")), [Some(123)], "the next");
    assert_eq!(wishes(press(&mut app, "1")), [None], "another tab");
    assert!(see(&mut app, look_at(NOON + 2)).is_empty());
    assert_eq!(wishes(press(&mut app, "3")), [Some(123)], "and back");
    assert_eq!(wishes(press(&mut app, "<Esc>")), [None], "closed");
    assert!(press(&mut app, "<Esc><Up><Down>").is_empty());
}

#[test]
fn another_size_keeps_the_chosen_line_on_the_screen() {
    for tab in [TabId::Sockets, TabId::Findings] {
        for keys in ["<Down>", "G", "<PgDn><PgDn>", "G<Up>"] {
            let mut app = seen((200, 50), tab, wrong);
            press(&mut app, keys);
            for size in [(80, 24), (40, 10), (120, 12), (1, 1), (300, 100), (80, 13)] {
                app.update(Msg::Resize(size.0, size.1));
                let page = screen(&app);
                let mut body = page.lines().skip(2);
                assert!(
                    size == (1, 1) || body.any(|line| line.contains('▸')),
                    "{tab:?} {keys} {size:?}\n{page}"
                );
            }
        }
    }
    // And of a menu.
    let mut app = app((200, 50), TabId::Sockets);
    press(&mut app, "sG");
    app.update(Msg::Resize(80, 10));
    let page = screen(&app);
    let mut body = page.lines().skip(2);
    assert!(body.any(|line| line.starts_with('▸')), "{page}");
}

#[test]
fn what_is_no_key_does_nothing() {
    for tab in TabId::ALL {
        let mut app = app(SIZE, tab);
        app.update(Msg::Exported(Ok("written: x".to_owned())));
        let before = screen(&app);
        let mut release = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        release.kind = KeyEventKind::Release;
        let alt = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::ALT);
        for event in [release, alt] {
            assert!(app.update(Msg::Key(event)).is_empty());
            assert_eq!(screen(&app), before);
        }
        press(&mut app, "1");
        app.show(tab);
        let before = screen(&app);
        for code in [
            KeyCode::F(7),
            KeyCode::Insert,
            KeyCode::Char('%'),
            KeyCode::Null,
        ] {
            let event = KeyEvent::new(code, KeyModifiers::NONE);
            assert!(app.update(Msg::Key(event)).is_empty());
            assert_eq!(screen(&app), before, "{tab:?} {code:?}");
        }
        for kind in [MouseEventKind::Moved, MouseEventKind::ScrollLeft] {
            assert!(scroll(&mut app, kind).is_empty());
            assert_eq!(screen(&app), before);
        }
    }
}

#[test]
fn control_c_quits_but_for_what_is_open() {
    for tab in TabId::ALL {
        let mut app = app(SIZE, tab);
        for open in ["/", "e", "?"] {
            press(&mut app, open);
            assert!(app.dialog.is_some());
            assert!(press(&mut app, "<^c>").is_empty(), "{open} is left");
            assert!(app.dialog.is_none());
        }
        assert!(matches!(press(&mut app, "<^c>")[..], [Effect::Quit]));
        assert!(matches!(press(&mut app, "q")[..], [Effect::Quit]));
    }
    let mut app = app(SIZE, TabId::Sockets);
    for open in [":", "s", "c", "b", "K"] {
        press(&mut app, open);
        assert!(app.dialog.is_some());
        assert!(press(&mut app, "<^c>").is_empty(), "{open} is left");
        assert!(app.dialog.is_none());
    }
    press(&mut app, "<Enter>");
    assert!(matches!(press(&mut app, "<^c>")[..], [Effect::Quit]));
    let mut nothing = empty(SIZE, TabId::Overview);
    assert!(matches!(press(&mut nothing, "<^c>")[..], [Effect::Quit]));
}

#[test]
fn the_terminal_is_given_back_drawn_anew_and_looked_at() {
    let mut app = app(SIZE, TabId::Overview);
    assert!(matches!(press(&mut app, "<^z>")[..], [Effect::Suspend]));
    assert!(matches!(press(&mut app, "<^l>")[..], [Effect::Redraw]));
    assert!(matches!(press(&mut app, "r")[..], [Effect::LookNow]));
}

#[test]
fn the_wheel_moves_and_clicks_stay_outside_of_what_is_open() {
    let mut app = app(SIZE, TabId::Sockets);
    scroll(&mut app, MouseEventKind::ScrollDown);
    let (_, row) = find(&app, "▸SYN-SENT").unwrap();
    assert_eq!(row, 4 + 3, "three lines");
    scroll(&mut app, MouseEventKind::ScrollUp);
    assert!(find(&app, "▸LISTEN").is_some());
    press(&mut app, "?");
    let before = screen(&app);
    scroll(&mut app, MouseEventKind::ScrollDown);
    assert_ne!(screen(&app), before, "the help is scrolled");
    click(&mut app, 3, 1);
    assert_eq!(app.tab(), TabId::Sockets);
    assert!(app.dialog.is_some());
}
