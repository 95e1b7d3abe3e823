use super::super::scenes::{asked, click, find, keeps_all, nothing, seen, survives, wrong};
use crate::model::{StateSet, TcpState};
use crate::tui::msg::Msg;
use crate::tui::tabs::TabId;
use crate::tui::testing::{NOON, empty, press, screen};

#[test]
fn it_is_drawn_as_it_was() {
    keeps_all(TabId::Overview);
}

#[test]
fn nothing_that_is_pressed_breaks_it() {
    survives(TabId::Overview);
}

#[test]
fn enter_on_a_state_shows_its_sockets() {
    let mut app = seen((80, 24), TabId::Overview, wrong);
    assert_eq!(asked(&press(&mut app, "<Enter>")), ["state established"]);
    let effects = press(&mut app, "jj<Enter>");
    assert_eq!(asked(&effects), ["state close-wait"]);
    assert_eq!(asked(&press(&mut app, "l<Enter>")), ["state last-ack"]);
    assert_eq!(asked(&press(&mut app, "h<Enter>")), ["state close-wait"]);
}

#[test]
fn enter_on_a_finding_opens_it_and_on_a_rank_filters() {
    let mut app = seen((80, 24), TabId::Overview, wrong);
    press(&mut app, "<PgDn>j<Enter>");
    assert_eq!(app.tab(), TabId::Findings);
    let mut app = seen((120, 40), TabId::Overview, wrong);
    let effects = press(&mut app, "<PgDn><PgDn><Enter>");
    assert_eq!(asked(&effects), ["sport = :8443"], "the fullest is first");
    let effects = press(&mut app, "l<Enter>");
    assert_eq!(asked(&effects), ["pid = 901"]);
    let effects = press(&mut app, "ljj<Enter>");
    assert_eq!(
        asked(&effects),
        ["dst 2001:db8:1234:5678:9abc:def0:1234:5678"]
    );
}

#[test]
fn what_is_asked_for_is_understood() {
    let mut app = seen((120, 40), TabId::Overview, wrong);
    for _ in 0..12 {
        assert_eq!(press(&mut app, "<Enter>").len(), 1);
        press(&mut app, "j");
    }
}

#[test]
fn the_mouse_chooses_and_then_opens() {
    let mut app = seen((80, 24), TabId::Overview, wrong);
    let (column, row) = find(&app, "FIN-WAIT-2").unwrap();
    assert!(click(&mut app, column, row).is_empty());
    assert_eq!(asked(&click(&mut app, column, row)), ["state fin-wait-2"]);
    let (column, row) = find(&app, "SYN flood").unwrap();
    click(&mut app, column, row);
    assert_eq!(app.tab(), TabId::Overview);
    click(&mut app, column, row);
    assert_eq!(app.tab(), TabId::Findings);
}

#[test]
fn the_worst_is_on_the_smallest_screen_too() {
    let app = seen((80, 24), TabId::Overview, wrong);
    let text = screen(&app);
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}:\n{text}"));
    assert!(at("never closes") < at("does not accept"));
    assert!(at("does not accept") < at("SYN flood"));
    for what in [
        "FULL",
        "604",
        "interrupted 1 time",
        "no privilege for 12",
        "3 sockets in states",
        "slowed from 1s to 4s",
    ] {
        at(what);
    }
    assert!(seen((40, 10), TabId::Overview, wrong).tab() == TabId::Overview);
    let small = screen(&seen((40, 10), TabId::Overview, wrong));
    assert!(small.contains("CRITICAL checkout[2211]"), "{small}");
}

#[test]
fn what_cannot_be_seen_is_not_none() {
    let mut app = empty((80, 24), TabId::Overview);
    let mut look = nothing(NOON);
    look.states[TcpState::CloseWait.index().unwrap()] = None;
    look.coverage.unsure = StateSet::of(TcpState::CloseWait);
    app.update(Msg::Look(Box::new(look)));
    let text = screen(&app);
    let line = text.lines().find(|line| line.contains("CLOSE-WAIT"));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    assert_eq!(words[..2], ["CLOSE-WAIT", "?"]);
    assert!(text.contains("NOT all sockets"), "{text}");
}

#[test]
fn changes_are_those_since_the_look_before() {
    let mut app = empty((80, 24), TabId::Overview);
    for (second, count) in [(0, 5), (1, 9), (2, 7)] {
        let mut look = nothing(NOON + second);
        look.states[TcpState::Established.index().unwrap()] = Some(count);
        app.update(Msg::Look(Box::new(look)));
        let text = screen(&app);
        let line = text.lines().find(|line| line.contains("ESTABLISHED"));
        let change = ["", "+4", "-2"][usize::try_from(second).unwrap()];
        assert!(line.unwrap().contains(change), "{text}");
    }
}
