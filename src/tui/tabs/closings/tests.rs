use super::super::scenes::{asked, click, find, keeps_all, nothing, seen, survives, wrong};
use super::ages::{Ages, Holder};
use crate::model::TcpState;
use crate::tui::msg::Msg;
use crate::tui::tabs::TabId;
use crate::tui::testing::{NOON, look_at, press, screen};

#[test]
fn it_is_drawn_as_it_was() {
    keeps_all(TabId::Closings);
}

#[test]
fn nothing_that_is_pressed_breaks_it() {
    survives(TabId::Closings);
}

#[test]
fn ages_are_counted_by_state_and_by_holder() {
    let mut ages = Ages::default();
    ages.gather(&wrong(NOON));
    let close_wait = ages.states[0];
    let all: u64 = close_wait.buckets.iter().map(|bucket| bucket.count).sum();
    assert_eq!(all, 60);
    assert_eq!(close_wait.buckets[6].count, 0, "all have an age");
    let of = |holder| {
        let group = ages.groups.iter().find(|group| group.key.2 == holder);
        group.map(|group| (group.state, group.count))
    };
    assert_eq!(of(Holder::Process(2211)), Some((TcpState::CloseWait, 57)));
    assert_eq!(of(Holder::Process(901)).unwrap().1, 4, "FIN-WAIT-2");
    let nobody = ages
        .groups
        .iter()
        .find(|group| group.key.2 == Holder::Nobody && group.state == TcpState::CloseWait);
    assert_eq!(nobody.unwrap().count, 3);
    let total: u64 = ages.groups.iter().map(|group| group.count).sum();
    assert_eq!(total, 60 + 1 + 4 + 1 + 3);
    let oldest = ages
        .groups
        .iter()
        .map(|group| group.oldest.map(|age| age.low_ms));
    assert!(
        oldest.is_sorted_by_key(std::cmp::Reverse),
        "the oldest first"
    );
}

#[test]
fn what_has_no_age_is_counted_as_unknown() {
    let mut ages = Ages::default();
    ages.gather(&look_at(NOON));
    assert_eq!(ages.states[0].buckets[6].count, 60);
    assert_eq!(ages.states[0].oldest, None);
}

#[test]
fn time_wait_is_told_by_who_was_connected_to() {
    let mut look = look_at(NOON);
    let mut ages = Ages::default();
    ages.gather(&look);
    assert_eq!((ages.served, ages.dialled.len()), (vec![(443, 40)], 0));
    let sockets = &mut look.places[0].snapshot.sockets;
    sockets.retain(|socket| socket.state != TcpState::Listen);
    let mut ages = Ages::default();
    ages.gather(&look);
    assert_eq!(ages.served, []);
    let dialled: u64 = ages.dialled.iter().map(|(_, n)| n).sum();
    assert!(
        dialled <= 40 && ages.dialled.len() == 32,
        "as many as a screen shows"
    );
}

#[test]
fn enter_shows_the_sockets_of_the_holder() {
    let mut app = seen((80, 24), TabId::Closings, wrong);
    let chosen = asked(&press(&mut app, "<Enter>"));
    assert_eq!(chosen, ["state close-wait pid = 2211"]);
    let (column, row) = find(&app, "nobody: not accepted").unwrap();
    assert!(click(&mut app, column, row).is_empty());
    assert_eq!(asked(&click(&mut app, column, row)), ["state close-wait"]);
    let mut app = seen((80, 24), TabId::Closings, nothing);
    assert!(press(&mut app, "<Enter>j<Enter>").is_empty());
}

#[test]
fn the_chosen_holder_stays_chosen() {
    let mut app = seen((80, 24), TabId::Closings, wrong);
    press(&mut app, "G");
    let before = asked(&press(&mut app, "<Enter>"));
    let mut look = wrong(NOON + 9);
    // One group more, which is older than the chosen one.
    let socket = look.places[0]
        .snapshot
        .sockets
        .iter_mut()
        .find(|socket| socket.state == TcpState::FinWait2);
    socket.unwrap().inode = 999_999;
    app.update(Msg::Look(Box::new(look)));
    assert_eq!(asked(&press(&mut app, "<Enter>")), before);
}

#[test]
fn it_says_that_it_is_a_lower_bound() {
    for size in [(80, 24), (200, 50)] {
        let text = screen(&seen(size, TabId::Closings, wrong));
        assert!(text.contains("at least: resets"), "{text}");
        assert!(text.contains(" in 60 s, most in one: "), "{text}");
    }
}
