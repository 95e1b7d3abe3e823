//! The tab as data: keys in, rows, requests and wishes out.

mod one;
mod screens;
mod whole;

use std::sync::Arc;

use ratatui::crossterm::event::{KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use crate::fields::Names;
use crate::model::{Attributes, Endpoint, Namespace, TcpInfo, TcpState, tcp_info};
use crate::query::Filter;
use crate::tui::app::App;
use crate::tui::dialogs::Dialog;
use crate::tui::look::{Look, Row};
use crate::tui::msg::{Effect, Msg};
use crate::tui::tabs::TabId;
use crate::tui::testing::{NOON, app, empty, look_at, press, screen};

const SIZE: (u16, u16) = (80, 24);

fn decode(message: &[u8]) -> Attributes<'_> {
    Attributes {
        tcp_info: Some(message),
        ..Attributes::default()
    }
}

fn sockets() -> App {
    app(SIZE, TabId::Sockets)
}

fn filter(app: &mut App, text: &str) {
    let filter = Filter::parse(&[text.to_owned()]).unwrap();
    app.filter(text, filter);
}

fn see(app: &mut App, look: Look) -> Vec<Effect> {
    app.update(Msg::Look(Box::new(look)))
}

/// The cookies of the rows, which the test machine numbers from 1.
fn cookies(app: &App) -> Vec<u64> {
    let look = app.look().unwrap();
    let rows = app.rows().iter();
    rows.map(|row| look.socket(*row).unwrap().cookie.unwrap().get())
        .collect()
}

fn states(app: &App) -> Vec<TcpState> {
    let look = app.look().unwrap();
    let rows = app.rows().iter();
    rows.map(|row| look.socket(*row).unwrap().state).collect()
}

/// The line of the chosen row.
fn chosen(app: &App) -> String {
    let screen = screen(app);
    let line = screen.lines().skip(2).find(|line| line.starts_with('▸'));
    line.unwrap_or_default().to_owned()
}

/// What is on the screen, wherever its lines are broken.
fn words(app: &App) -> String {
    let screen = screen(app);
    screen.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn click(app: &mut App, column: u16, row: u16) {
    app.update(Msg::Mouse(MouseEvent {
        kind: MouseEventKind::Down(MouseButton::Left),
        column,
        row,
        modifiers: KeyModifiers::NONE,
    }));
}

fn last_wish(effects: &[Effect]) -> Option<crate::tui::msg::Wish> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Wish(wish) => Some(*wish),
        _ => None,
    })
}

#[test]
fn states_come_in_the_order_of_a_life_and_the_other_way_round() {
    let mut app = sockets();
    let sorted = |states: &[TcpState]| states.is_sorted_by_key(|state| state.index());
    assert_eq!(app.rows().len(), 233);
    assert!(sorted(&states(&app)));
    press(&mut app, "R");
    let mut back = states(&app);
    back.reverse();
    assert!(sorted(&back) && !sorted(&states(&app)));
}

#[test]
fn a_column_is_typed_with_hints_for_what_is_none() {
    let mut app = sockets();
    press(&mut app, ":");
    for _ in 0..5 {
        press(&mut app, "<BkSp>");
    }
    press(&mut app, "-peer-prot<Enter>");
    let Some(Dialog::Prompt(prompt)) = &app.dialog else {
        panic!("the prompt stays open");
    };
    let error = prompt.error.as_deref().unwrap();
    assert!(error.contains("'peer-prot'") && error.contains("peer-port"));
    press(&mut app, "<BkSp><BkSp><BkSp>ort<Enter>");
    assert!(app.dialog.is_none());
    assert_eq!(app.sockets.sort_text(), "-peer-port");
    // The last socket has the highest port; listeners have none, which is port 0.
    assert_eq!(cookies(&app)[..2], [233, 232]);
    let wrong = app.sockets.sort_by("\u{1b}[31m").unwrap_err();
    assert!(!wrong.contains('\u{1b}'), "{wrong}");
}

#[test]
fn what_is_not_known_comes_last_in_either_direction() {
    let mut app = sockets();
    for order in ["inode", "-inode"] {
        app.sockets.sort_by(order).unwrap();
        press(&mut app, "<Down>");
        let look = app.look().unwrap();
        let known = |row: &Row| look.socket(*row).unwrap().inode != 0;
        assert!(app.rows().is_sorted_by_key(|row| !known(row)), "{order}");
        assert!(known(&app.rows()[0]));
    }
}

#[test]
fn what_is_sorted_by_is_seen_beside_the_state() {
    let mut app = sockets();
    app.sockets.sort_by("peer-port").unwrap();
    press(&mut app, "<Down>");
    let seen = screen(&app);
    let heads = seen.lines().nth(3).unwrap();
    assert!(
        heads.starts_with(" State       Peer Port▲ Recv-Q"),
        "{heads}"
    );
    press(&mut app, "<");
    assert_eq!(app.sockets.sort_text(), "state");
    assert!(!screen(&app).contains("Peer Port"), "it was not chosen");
    // On columns that somebody chose the title says it.
    app.sockets.columns = Some(vec![crate::fields::by_id("state").unwrap()]);
    app.sockets.sort_by("peer-port").unwrap();
    press(&mut app, "<Down>");
    assert!(screen(&app).contains("sorted by peer-port▲"));
}

#[test]
fn the_sort_moves_among_the_shown_columns() {
    let mut app = sockets();
    press(&mut app, "<");
    assert_eq!(app.sockets.sort_text(), "state", "there is none before it");
    press(&mut app, ">");
    assert_eq!(app.sockets.sort_text(), "-recv-q", "the largest first");
    press(&mut app, ">>R");
    assert_eq!(app.sockets.sort_text(), "-local");
    assert!(screen(&app).contains("Local▼"), "{}", screen(&app));
    press(&mut app, "<<R");
    assert!(screen(&app).contains("Recv-Q▲"), "{}", screen(&app));
}

#[test]
fn the_chosen_socket_stays_chosen_when_the_order_changes() {
    let mut app = sockets();
    press(&mut app, "<Down><Down><Down>");
    assert!(chosen(&app).contains("10.0.1.2:40124"), "{}", chosen(&app));
    for key in ["R", ">", "R", ">>R"] {
        press(&mut app, key);
        assert!(chosen(&app).contains("10.0.1.2:40124"), "{key}");
    }
    let mut look = look_at(NOON + 1);
    look.places[0].snapshot.sockets.reverse();
    see(&mut app, look);
    assert!(chosen(&app).contains("10.0.1.2:40124"));
    // One that is gone hands on to its neighbour.
    let mut look = look_at(NOON + 2);
    look.places[0]
        .snapshot
        .sockets
        .retain(|socket| socket.remote.port != 40_124);
    see(&mut app, look);
    assert!(!chosen(&app).is_empty() && !chosen(&app).contains(":40124"));
}

#[test]
fn without_cookies_the_ends_tell_sockets_apart() {
    let without = |second| {
        let mut look = look_at(second);
        for socket in &mut look.places[0].snapshot.sockets {
            socket.cookie = None;
        }
        look
    };
    let mut app = empty(SIZE, TabId::Sockets);
    see(&mut app, without(NOON));
    press(&mut app, "<Down><Down><Down>");
    let mut look = without(NOON + 1);
    look.places[0].snapshot.sockets.reverse();
    see(&mut app, look);
    assert!(chosen(&app).contains("10.0.1.2:40124"));
    assert_eq!(app.sockets.wish(TabId::Sockets).cookie, None);
}

#[test]
fn the_first_line_stays_the_first_while_nobody_moves() {
    let mut app = sockets();
    assert!(chosen(&app).starts_with("▸LISTEN"));
    press(&mut app, "R");
    assert!(chosen(&app).starts_with("▸TIME-WAIT"), "{}", chosen(&app));
    press(&mut app, "GgR");
    assert!(chosen(&app).starts_with("▸LISTEN"), "g is the top again");
}

#[test]
fn a_filter_selects_is_shown_and_is_forgotten() {
    let mut app = sockets();
    filter(&mut app, "state close-wait");
    assert_eq!(app.rows().len(), 60);
    assert!(
        states(&app)
            .iter()
            .all(|state| *state == TcpState::CloseWait)
    );
    let title = "60 of 233 sockets  filter (Esc: all): state close-wait";
    assert!(screen(&app).contains(title), "{}", screen(&app));
    filter(&mut app, "dport = :1");
    assert!(app.rows().is_empty());
    let empty = screen(&app);
    assert!(empty.contains("no socket fits 'dport = :1'") && empty.contains("Esc forgets"));
    for keys in ["<Enter>", "f", "K", "<Down>", "G"] {
        press(&mut app, keys);
    }
    assert!(app.dialog.is_none(), "there is nothing to kill");
    press(&mut app, "<Esc>");
    assert_eq!(app.rows().len(), 233);
    assert_eq!(app.sockets.filter_text(), "");
}

#[test]
fn groups_are_counted_opened_and_left() {
    let mut app = sockets();
    press(&mut app, "b<Down><Enter>");
    let groups = screen(&app);
    assert!(
        groups.contains("233 sockets  in 9 groups by state"),
        "{groups}"
    );
    let first = groups.lines().nth(4).unwrap();
    assert!(
        first.contains("120") && first.ends_with("ESTABLISHED"),
        "{first}"
    );
    assert!(first.contains("51%") && first.contains('█'), "{first}");
    press(&mut app, "<Down><Enter>");
    assert_eq!(app.rows().len(), 60);
    assert!(screen(&app).contains("60 of 233 sockets  state = CLOSE-WAIT (Esc: groups)"));
    // Detail, group, groups, filter: one Esc each.
    filter(&mut app, "sport = :8443");
    press(&mut app, "<Enter><Enter>");
    assert_eq!(app.rows().len(), 60);
    assert!(app.sockets.detail.is_some());
    press(&mut app, "<Esc>");
    assert!(app.sockets.detail.is_none() && app.rows().len() == 60);
    press(&mut app, "<Esc>");
    assert!(
        screen(&app).contains("in 3 groups by state"),
        "{}",
        screen(&app)
    );
    press(&mut app, "<Esc>");
    assert_eq!(
        (app.rows().len(), app.sockets.filter_text()),
        (62, "sport = :8443")
    );
    press(&mut app, "<Esc><Esc>");
    assert_eq!(app.rows().len(), 233);
}

#[test]
fn the_chosen_group_stays_chosen_when_it_grows() {
    let mut app = sockets();
    press(&mut app, "b<Down><Enter><Down>");
    let line = |app: &App| {
        let screen = screen(app);
        let mut lines = screen.lines().skip(3);
        lines.find(|line| line.starts_with('▸')).map(str::to_owned)
    };
    assert!(line(&app).unwrap().ends_with("CLOSE-WAIT"));
    let mut look = look_at(NOON + 1);
    for socket in &mut look.places[0].snapshot.sockets {
        if socket.state == TcpState::Established {
            socket.state = TcpState::CloseWait;
        }
    }
    see(&mut app, look);
    let grown = line(&app).unwrap();
    assert!(
        grown.contains("180") && grown.ends_with("CLOSE-WAIT"),
        "{grown}"
    );
}

#[test]
fn a_group_is_killed_whole_up_to_a_thousand() {
    let agree = |app: &mut App| {
        let effects = press(app, "Kyes<Enter>");
        let [Effect::Kill(doomed)] = effects.as_slice() else {
            panic!("{effects:?}: {}", screen(app));
        };
        doomed.len()
    };
    let mut app = sockets();
    filter(&mut app, "state established");
    assert_eq!(agree(&mut app), 1);
    let mut app = sockets();
    press(&mut app, "b<Down><Enter>");
    assert_eq!(agree(&mut app), 120);
    assert!(app.notice.is_none());
    let mut app = empty(SIZE, TabId::Sockets);
    see(&mut app, many(1_500));
    press(&mut app, "b<Down><Enter>K");
    let notice = app.notice.take().unwrap();
    assert!(notice.text.contains("the first 1,000 of 1,5"), "{notice:?}");
    press(&mut app, "<Esc>");
    assert_eq!(agree(&mut app), 1_000);
}

#[test]
fn columns_are_chosen_and_what_they_need_is_asked_for() {
    let mut app = sockets();
    press(&mut app, "c");
    let Some(Dialog::Menu(menu)) = &mut app.dialog else {
        panic!("no menu");
    };
    assert!(menu.many && menu.items.len() > 100);
    assert!(
        menu.items
            .iter()
            .all(|(id, doc)| !id.is_empty() && !doc.is_empty())
    );
    assert_eq!(menu.marked.iter().filter(|mark| **mark).count(), 7);
    let at = |id: &str| menu.items.iter().position(|(own, _)| own == id).unwrap();
    let (rtt, process, unit) = (at("rtt_us"), at("process"), at("unit"));
    menu.marked[rtt] = true;
    menu.marked[process] = false;
    let seen = screen(&app);
    assert!(
        seen.contains("▸ [x] state") && seen.contains("[ ] local-address"),
        "{seen}"
    );
    let effects = press(&mut app, "<Enter>");
    let needed = last_wish(&effects).unwrap().needed;
    assert!(needed.tcp_info && !needed.cgroup && !needed.owners);
    let seen = screen(&app);
    assert!(
        seen.contains("rtt_us") && !seen.contains("Process"),
        "{seen}"
    );
    let effects = press(&mut app, "<Tab>");
    assert_eq!(last_wish(&effects), Some(Default::default()), "another tab");
    press(&mut app, "3c");
    let Some(Dialog::Menu(menu)) = &mut app.dialog else {
        panic!("no menu");
    };
    menu.marked.fill(false);
    menu.marked[unit] = true;
    let effects = press(&mut app, "<Enter>");
    assert!(last_wish(&effects).unwrap().needed.cgroup);
    press(&mut app, "c");
    let Some(Dialog::Menu(menu)) = &mut app.dialog else {
        panic!("no menu");
    };
    menu.marked.fill(false);
    press(&mut app, "<Enter>");
    assert!(
        screen(&app).contains("Recv-Q"),
        "none are those that suit the screen"
    );
}

#[test]
fn a_frame_that_is_read_again_for_a_column_is_sorted_by_it() {
    let mut app = sockets();
    app.sockets.sort_by("-rtt_us").unwrap();
    press(&mut app, "<Down>");
    assert_eq!(cookies(&app)[0], 1, "nothing is known yet");
    let mut look = look_at(NOON);
    look.decode = decode;
    let raw = tcp_info::example(&[("rtt_us", 9)]);
    look.places[0].snapshot.messages.keep(7, &raw);
    see(&mut app, look);
    assert_eq!(cookies(&app)[0], 8);
}

#[test]
fn what_every_look_has_is_not_wished_for() {
    let mut app = sockets();
    assert_eq!(app.sockets.wish(TabId::Sockets), Default::default());
    app.sockets.sort_by("-age").unwrap();
    filter(&mut app, "age > 1min process = nginx");
    assert_eq!(app.sockets.wish(TabId::Sockets), Default::default());
    filter(&mut app, "rtt > 1ms");
    assert!(app.sockets.wish(TabId::Sockets).needed.tcp_info);
    app.sockets.sort_by("skmem-drops").unwrap();
    assert!(app.sockets.wish(TabId::Sockets).needed.memory);
}

#[test]
fn the_sort_menu_begins_at_the_column_and_sorts() {
    let mut app = sockets();
    press(&mut app, "s<Down><Enter>");
    assert_eq!(app.sockets.sort_text(), "-recv-q");
    press(&mut app, "s<Down><Down><Enter>");
    assert_eq!(app.sockets.sort_text(), "local");
    press(&mut app, "s<Esc>");
    assert_eq!(app.sockets.sort_text(), "local");
}

#[test]
fn the_mouse_chooses_and_sorts() {
    let mut app = sockets();
    click(&mut app, 5, 7);
    assert_eq!(app.sockets.cursor.at, 3);
    click(&mut app, 14, 3);
    assert_eq!(app.sockets.sort_text(), "-recv-q");
    click(&mut app, 14, 3);
    assert_eq!(app.sockets.sort_text(), "recv-q");
    click(&mut app, 2, 3);
    assert_eq!(app.sockets.sort_text(), "state");
    click(&mut app, 0, 3);
    click(&mut app, 79, 22);
    press(&mut app, "b<Down><Enter>");
    click(&mut app, 5, 5);
    press(&mut app, "<Enter>");
    assert_eq!(app.rows().len(), 60);
}

#[test]
fn several_namespaces_have_a_column_of_their_own() {
    struct Two(Vec<Namespace>);
    impl Names for Two {
        fn namespace(&self, netns: u16) -> Option<&Namespace> {
            self.0.get(usize::from(netns))
        }
    }
    let spaces = vec![
        Namespace::new(Some("blue".to_owned()), 11),
        Namespace::new(Some("green".to_owned()), 12),
    ];
    let mut look = look_at(NOON);
    look.places.extend(look_at(NOON).places);
    for (place, space) in look.places.iter_mut().zip(&spaces) {
        place.namespace = Some(space.clone());
    }
    for socket in &mut look.places[1].snapshot.sockets {
        socket.netns = 1;
    }
    look.names = Arc::new(Two(spaces));
    let mut app = empty(SIZE, TabId::Sockets);
    see(&mut app, look);
    assert_eq!(app.rows().len(), 466);
    let seen = screen(&app);
    assert!(
        seen.lines().nth(3).unwrap().starts_with(" Netns State"),
        "{seen}"
    );
    // The same cookie in the other namespace is another socket.
    press(&mut app, "<Down><Down>");
    assert!(
        chosen(&app).starts_with("▸green LISTEN"),
        "{}",
        screen(&app)
    );
    press(&mut app, "RR");
    assert!(
        chosen(&app).starts_with("▸green LISTEN"),
        "{}",
        screen(&app)
    );
}

/// So many connections beside the listeners.
fn many(sockets: u32) -> Look {
    let mut look = look_at(NOON);
    let snapshot = &mut look.places[0].snapshot;
    snapshot.sockets.truncate(2);
    for n in 0..sockets {
        let mut socket =
            crate::tui::testing::socket(TcpState::Established, n + 10, 443, (1, 1_024));
        socket.remote = Endpoint::v4((n + 0x0a00_0000).to_be_bytes(), 5_000);
        socket.recv_q = n * 7_919 % 100_003;
        snapshot.push(socket, None);
    }
    look
}
