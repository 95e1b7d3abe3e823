//! One socket: followed, and with everything that is known of it.

use super::*;

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
fn what_is_followed_and_does_not_fit_is_told_of() {
    let mut app = sockets();
    filter(&mut app, "state syn-sent");
    press(&mut app, "f");
    assert!(!words(&app).contains("does not fit"));
    let mut look = look_at(NOON + 1);
    let sockets = &mut look.places[0].snapshot.sockets;
    let own = sockets
        .iter_mut()
        .find(|own| own.state == TcpState::SynSent);
    own.unwrap().state = TcpState::Established;
    see(&mut app, look);
    assert_eq!(app.rows().len(), 2);
    let seen = words(&app);
    assert!(
        seen.contains("→ ESTABLISHED 14:03:12; it does not fit what is listed"),
        "{seen}"
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
    see(&mut app, look_at(NOON));
    assert!(all(&app).contains("details come with the next look"));
    see(&mut app, look_at(NOON));
    assert!(all(&app).contains("no more is told of it here"));
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
