//! Whatever is shown: what it costs, and that every screen can be drawn.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

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
    see(&mut app, look);
    assert_eq!(app.rows().len(), 100_002);
    assert!(screen(&app).contains("www-data"));
    press(&mut app, "<Down><PgDn>G");
    let formatted = names.0.load(Ordering::Relaxed);
    // A page to measure after each key, and one to draw.
    assert!(formatted <= 5 * 50, "{formatted} of 100,002 were formatted");
    press(&mut app, ">");
    assert_eq!(app.sockets.sort_text(), "-recv-q");
    let look = app.look().unwrap();
    let queue = |row: &Row| std::cmp::Reverse(look.socket(*row).unwrap().recv_q);
    assert!(app.rows().is_sorted_by_key(queue));
    filter(&mut app, "recv-q > 50000");
    assert!(app.rows().len() > 40_000 && app.rows().len() < 60_000);
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
fn whatever_is_pressed_something_is_drawn() {
    const KEYS: [&str; 24] = [
        "<Enter>", "<Enter>", "<Esc>", "<Down>", "<Up>", "<PgDn>", "<PgUp>", "G", "g", "h", "l",
        "b", "c", "s", "R", "<", ">", "f", "f", "K", " ", "<Down>", "<Down>", "<Down>",
    ];
    const SIZES: [(u16, u16); 6] = [(80, 24), (40, 10), (200, 50), (1, 1), (120, 12), (64, 80)];
    let mut app = sockets();
    let mut seed = 7u64;
    let mut dice = |sides: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 33).unwrap() % sides
    };
    for step in 0..1_500i64 {
        press(&mut app, KEYS[dice(KEYS.len())]);
        if step % 5 == 0 {
            let mut look = look_at(NOON + step);
            let sockets = &mut look.places[0].snapshot.sockets;
            sockets.truncate(dice(sockets.len() + 1));
            let turn = dice(sockets.len() + 1);
            sockets.rotate_left(turn);
            see(&mut app, look);
        }
        if step % 17 == 0 {
            let (columns, rows) = SIZES[dice(SIZES.len())];
            app.update(Msg::Resize(columns, rows));
        }
        assert!(!screen(&app).is_empty());
        click(&mut app, dice(200) as u16, dice(50) as u16);
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
