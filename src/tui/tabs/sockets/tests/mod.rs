//! The tab as data: keys in, rows, requests and wishes out.

mod screens;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    let asked = |app: &App| match &app.dialog {
        Some(Dialog::Sure(sure)) => sure.sockets.len(),
        _ => panic!("nothing is asked"),
    };
    let mut app = sockets();
    press(&mut app, "K");
    assert_eq!(asked(&app), 1);
    press(&mut app, "<Esc>b<Down><Enter><Down>K");
    assert_eq!(asked(&app), 60);
    assert!(app.notice.is_none());
    let mut app = empty(SIZE, TabId::Sockets);
    see(&mut app, many(1_500));
    press(&mut app, "b<Down><Enter>K");
    assert_eq!(asked(&app), 1_000);
    let notice = app.notice.as_ref().unwrap();
    assert!(notice.text.contains("the first 1,000 of 1,5"), "{notice:?}");
}

#[test]
fn one_socket_is_followed_through_its_states_until_it_is_gone() {
    let mut app = sockets();
    filter(&mut app, "dport = :40010");
    press(&mut app, "f<Esc>f");
    let step = |app: &mut App, ago: i64, state: Option<TcpState>| {
        let mut look = look_at(NOON + ago);
        let sockets = &mut look.places[0].snapshot.sockets;
        match state {
            Some(state) => {
                let own = sockets.iter_mut().find(|own| own.remote.port == 40_010);
                own.unwrap().state = state;
            }
            None => sockets.retain(|own| own.remote.port != 40_010),
        }
        see(app, look);
        words(app)
    };
    step(&mut app, 1, Some(TcpState::Established));
    let seen = step(&mut app, 3, Some(TcpState::CloseWait));
    let path = "ESTABLISHED 14:03:11 → CLOSE-WAIT 14:03:14";
    assert!(seen.contains(path), "{seen}");
    assert!(!seen.contains("GONE"));
    let seen = step(&mut app, 4, Some(TcpState::LastAck));
    assert!(seen.contains("LAST-ACK 14:03:15"), "{seen}");
    step(&mut app, 5, None);
    let seen = step(&mut app, 9, None);
    assert!(
        seen.contains("GONE since 14:03:16: its last ACK came"),
        "{seen}"
    );
    // A step back in a recording knows nothing of what comes.
    let seen = step(&mut app, 3, Some(TcpState::CloseWait));
    assert!(
        seen.contains(path) && !seen.contains("GONE") && !seen.contains("LAST"),
        "{seen}"
    );
    press(&mut app, "<Esc>");
    assert!(!screen(&app).contains("followed"));
    assert_eq!(
        app.sockets.filter_text(),
        "dport = :40010",
        "that is for the next Esc"
    );
}

#[test]
fn what_is_followed_stays_on_the_screen_wherever_it_sorts() {
    let mut app = sockets();
    press(&mut app, "<Down><Down><Down>f");
    for keys in ["R", ">", ">R", "R"] {
        press(&mut app, keys);
        let seen = screen(&app);
        let line = seen.lines().find(|line| line.starts_with('●'));
        assert!(
            line.is_some_and(|line| line.contains(":40124")),
            "{keys}: {seen}"
        );
    }
    press(&mut app, "f");
    assert!(app.sockets.followed.is_none(), "once more ends it");
}

#[test]
fn a_partial_look_does_not_say_that_a_socket_is_gone_for_certain() {
    let mut app = sockets();
    press(&mut app, "f");
    let mut look = look_at(NOON + 1);
    look.places[0].snapshot.sockets.clear();
    look.coverage.no_facts = true;
    see(&mut app, look);
    let seen = words(&app);
    assert!(seen.contains("the look was not complete"), "{seen}");
}

#[test]
fn details_ask_for_everything_and_show_it_with_the_next_look() {
    let mut app = sockets();
    filter(&mut app, "state close-wait");
    let effects = press(&mut app, "<Enter>");
    let cookie = cookies(&app)[0];
    assert_eq!(last_wish(&effects).unwrap().cookie, Some(cookie));
    let before = screen(&app);
    assert!(
        before.contains("reading    nothing but the peer's FIN"),
        "{before}"
    );
    let all = |app: &App| {
        let lines = app.sockets.detail.as_ref().unwrap().lines.iter();
        lines
            .map(|(_, line)| line.as_str())
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(all(&app).contains("details come with the next look"));
    assert!(
        all(&app).contains("held by    checkout[2211] fd 133; user 33"),
        "{}",
        all(&app)
    );
    let mut look = look_at(NOON + 1);
    let raw = tcp_info::example(&[("rtt_us", 1_500), ("last_ack_recv_ms", 90_000)]);
    look.decode = decode;
    let snapshot = &mut look.places[0].snapshot;
    let row = snapshot
        .sockets
        .iter()
        .position(|socket| socket.cookie.unwrap().get() == cookie);
    snapshot
        .messages
        .keep(u32::try_from(row.unwrap()).unwrap(), &raw);
    see(&mut app, look);
    let text = all(&app);
    assert!(!text.contains("details come"), "{text}");
    for line in [
        "rtt_us",
        "1500 us",
        "awaits",
        "ends by",
        "move       this program",
        "cookie",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let effects = press(&mut app, "<Down>");
    assert_eq!(last_wish(&effects).unwrap().cookie, Some(cookie + 1));
    press(&mut app, "<PgDn><PgDn>");
    assert!(app.sockets.detail.as_ref().unwrap().cursor.top > 0);
    let effects = press(&mut app, "<Esc>");
    assert_eq!(last_wish(&effects).unwrap().cookie, None);
}

#[test]
fn an_open_socket_that_is_gone_does_not_turn_into_another() {
    let mut app = sockets();
    filter(&mut app, "state established");
    press(&mut app, "<Enter>");
    let mut look = look_at(NOON + 1);
    let sockets = &mut look.places[0].snapshot.sockets;
    sockets[2].state = TcpState::CloseWait;
    see(&mut app, look);
    let left = screen(&app);
    assert!(
        left.contains("CLOSE-WAIT  10.0.0.1:443 10.0.1.1:40003"),
        "{left}"
    );
    let mut look = look_at(NOON + 2);
    look.places[0].snapshot.sockets.remove(2);
    see(&mut app, look);
    let gone = screen(&app);
    assert!(gone.contains("This socket is gone. It was last seen in CLOSE-WAIT at 14:03:12"));
    press(&mut app, "K");
    assert!(
        app.dialog.is_none(),
        "another one is not killed in its place"
    );
    press(&mut app, "<Esc>K");
    assert!(app.dialog.is_some());
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

#[test]
fn hostile_names_stay_in_their_cells() {
    let mut look = look_at(NOON);
    look.places[0].snapshot.owners.processes_mut()[0].comm =
        "a\u{1b}[2J\u{202e}\n], sshd[22]".to_owned();
    let mut app = empty((200, 50), TabId::Sockets);
    see(&mut app, look);
    for keys in ["", "<Enter>", "b<Down><Down><Enter>", "<Enter>", "f"] {
        press(&mut app, keys);
        let seen = screen(&app);
        assert!(!seen.contains(['\u{1b}', '\u{202e}']), "{seen}");
        assert!(seen.contains("a\\x1b"), "{keys}: {seen}");
    }
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

#[test]
fn only_what_is_on_the_screen_is_formatted() {
    #[derive(Default)]
    struct Counting(AtomicUsize);
    impl Names for Counting {
        fn user(&self, _: u32) -> Option<&str> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Some("www-data")
        }
    }
    let names = Arc::new(Counting::default());
    let mut look = many(100_000);
    look.names = Arc::<Counting>::clone(&names);
    // At 200 columns there is a column for the user.
    let mut app = empty((200, 50), TabId::Sockets);
    let begin = std::time::Instant::now();
    see(&mut app, look);
    let took = begin.elapsed();
    assert_eq!(app.rows().len(), 100_002);
    assert!(screen(&app).contains("www-data"));
    press(&mut app, "<Down><PgDn>G");
    let formatted = names.0.load(Ordering::Relaxed);
    // A page to measure after each key, and one to draw.
    assert!(formatted <= 5 * 50, "{formatted} of 100,002 were formatted");
    let begin = std::time::Instant::now();
    press(&mut app, ">");
    let sorted = begin.elapsed();
    assert_eq!(app.sockets.sort_text(), "-recv-q");
    let look = app.look().unwrap();
    let queue = |row: &Row| std::cmp::Reverse(look.socket(*row).unwrap().recv_q);
    assert!(app.rows().is_sorted_by_key(queue));
    let begin = std::time::Instant::now();
    filter(&mut app, "recv-q > 50000");
    eprintln!(
        "100,002 sockets: first look {took:?}, another sort {sorted:?}, filter {:?}",
        begin.elapsed()
    );
}

#[test]
fn nothing_is_listed_anew_while_nothing_changed() {
    let mut app = sockets();
    app.sockets.rows.truncate(5);
    press(&mut app, "<Down>G");
    assert_eq!(app.rows().len(), 5, "moving reads no socket");
    see(&mut app, look_at(NOON + 1));
    assert_eq!(app.rows().len(), 233);
}

#[test]
fn no_screen_is_too_small_for_any_key() {
    for size in [
        (40, 10),
        (41, 12),
        (60, 10),
        (119, 24),
        (120, 11),
        (300, 60),
    ] {
        let mut app = app(size, TabId::Sockets);
        for keys in [
            "<Enter>", "<PgDn>", "f", "G", "g", "l", "l", "l", "l", "l", "l", "l", "l", "h", "c",
            "G", "<Enter>", "s", "G", "<Enter>", "b", "G", "<Enter>", "<Enter>", "<Enter>",
            "<Esc>", "<Esc>", "K", "<Esc>", "<Esc>", "<Esc>",
        ] {
            press(&mut app, keys);
            let seen = screen(&app);
            let wide = seen.lines().map(crate::render::text::width).max();
            assert!(wide <= Some(usize::from(size.0)), "{size:?} {keys}");
        }
    }
}

#[test]
fn the_state_never_scrolls_away() {
    let mut app = app((40, 10), TabId::Sockets);
    for _ in 0..9 {
        let seen = screen(&app);
        assert!(seen.lines().nth(3).unwrap().starts_with(" State"), "{seen}");
        press(&mut app, "l");
    }
    assert!(screen(&app).contains("Age"));
    press(&mut app, "hhhhhhhhhhh");
    assert!(screen(&app).contains("Recv-Q"));
}
