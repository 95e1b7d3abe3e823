//! The question before sockets are destroyed.

use super::*;
use crate::model::TcpState;
use crate::tui::msg::Doomed;

fn doomed(effects: &[Effect]) -> Vec<u64> {
    let [Effect::Kill(doomed)] = effects else {
        panic!("{effects:?}");
    };
    let cookie = |one: &Doomed| {
        assert!(one.namespace.is_none(), "there is one only");
        one.socket.cookie.unwrap().get()
    };
    doomed.iter().map(cookie).collect()
}

/// A dashboard that asks whether the first established connection, cookie 3, is to be destroyed.
fn asking() -> App {
    let mut app = app(SIZE, TabId::Sockets);
    press(&mut app, "<Down><Down><Down><Down><Down><Down><Down>");
    assert!(press(&mut app, "K").is_empty());
    app
}

#[test]
fn exactly_the_chosen_socket_dies_and_only_after_yes() {
    let mut app = asking();
    let page = screen(&app);
    assert!(page.contains("nothing has been touched yet"), "{page}");
    assert!(page.contains("10.0.1.1:40003"), "{page}");
    for keys in ["<Enter>", "y<Enter>", "e<Enter>", "q<Enter>"] {
        assert!(press(&mut app, keys).is_empty(), "{keys}");
        assert!(app.dialog.is_some());
    }
    let effects = press(&mut app, "<BkSp>s<Enter>");
    assert_eq!(doomed(&effects), [3]);
    assert!(screen(&app).contains("being destroyed"));
    assert!(press(&mut app, "<Enter>yes<Enter>").is_empty(), "once");
    let effects = app.update(Msg::Killed(Ok("destroyed 1 of 1 socket".to_owned())));
    assert!(matches!(effects[..], [Effect::LookNow]), "{effects:?}");
    assert!(screen(&app).contains("destroyed 1 of 1 socket"));
    assert!(press(&mut app, "<Esc>").is_empty());
    assert!(app.dialog.is_none());
}

#[test]
fn what_went_wrong_is_said_too_and_enter_closes_it() {
    let mut app = asking();
    press(&mut app, "yes<Enter>");
    app.update(Msg::Killed(Err("no privilege".to_owned())));
    assert!(screen(&app).contains("no privilege"));
    assert!(press(&mut app, "<Enter>").is_empty());
    assert!(app.dialog.is_none());
}

#[test]
fn it_is_left_without_a_trace() {
    let mut app = asking();
    assert!(press(&mut app, "yes<Esc><Enter>").iter().all(|effect| {
        // Enter opens the details then.
        matches!(effect, Effect::Wish(_))
    }));
    press(&mut app, "<Esc>K");
    let effects = press(&mut app, "<Enter>");
    assert!(effects.is_empty(), "what was typed before is forgotten");
}

#[test]
fn a_look_meanwhile_neither_closes_it_nor_changes_who_dies() {
    let mut app = asking();
    press(&mut app, "ye");
    let mut look = look_at(NOON + 1);
    look.places[0].snapshot.sockets.retain(|socket| {
        // The chosen one is gone, and the one below stands in its line.
        socket.state != TcpState::Established || socket.remote.port != 40_003
    });
    see(&mut app, look);
    assert!(screen(&app).contains("nothing has been touched yet"));
    assert_eq!(doomed(&press(&mut app, "s<Enter>")), [3]);
    // Nor does it close any other.
    for open in ["/", "s", "?"] {
        let mut app = self::app(SIZE, TabId::Sockets);
        press(&mut app, open);
        let before = screen(&app);
        see(&mut app, look_at(NOON));
        assert_eq!(screen(&app), before, "{open}");
    }
}

#[test]
fn of_a_group_those_die_that_may() {
    let mut app = app(SIZE, TabId::Sockets);
    press(&mut app, "b<Down><Down><Enter>");
    let page = screen(&app);
    assert!(
        page.contains("by process") && page.contains("▸       126"),
        "{page}"
    );
    press(&mut app, "K");
    let page = screen(&app);
    assert!(page.contains("kill 125 of 126 sockets"), "{page}");
    assert!(page.contains("98 more lines: down"), "{page}");
    scroll(&mut app, MouseEventKind::ScrollDown);
    assert_ne!(screen(&app), page, "the wheel reads on");
    let mut doomed = doomed(&press(&mut app, "yes<Enter>"));
    doomed.sort_unstable();
    // nginx: all but its listener, which is cookie 1; 2 and 123 to 127 are others'.
    let own: Vec<u64> = (3..=122).chain(128..=132).collect();
    assert_eq!(doomed, own);
}

#[test]
fn what_is_recorded_cannot_be_destroyed() {
    let mut app = recorded(SIZE, TabId::Sockets);
    assert!(press(&mut app, "K").is_empty());
    assert!(app.dialog.is_none());
    let foot = foot(&app);
    assert!(
        foot.contains("recording") && foot.contains("cannot"),
        "{foot}"
    );
}
