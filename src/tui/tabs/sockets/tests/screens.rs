//! The tab on screens of three sizes, as files. `UPDATE_SCREENS=1` writes them.

use super::*;
use crate::tui::tabs::scenes::keeps;

/// The machine of the tests with ages and one socket of which everything is known.
fn look() -> Look {
    let mut look = look_at(NOON);
    look.decode = decode;
    let snapshot = &mut look.places[0].snapshot;
    for at in 0..snapshot.sockets.len() {
        let n = u64::try_from(at).unwrap();
        let state = snapshot.sockets[at].state;
        if matches!(state, TcpState::TimeWait | TcpState::SynReceived) {
            continue;
        }
        let raw = tcp_info::example(&[
            ("rtt_us", 900 + n * 13),
            ("rttvar_us", 40),
            ("rto_us", 201_000),
            ("snd_cwnd", 10),
            ("snd_mss_bytes", 1_448),
            ("bytes_acked", 18_220 + n),
            ("bytes_received", 4_100),
            ("last_data_sent_ms", 50_000 + n * 1_000),
            ("last_data_recv_ms", 51_000 + n * 1_000),
            ("last_ack_recv_ms", 50_010 + n * 1_000),
        ]);
        let info = TcpInfo::parse(&raw);
        snapshot.infos.extend(info);
        snapshot.sockets[at].info = crate::model::socket::InfoId::new(snapshot.infos.len() - 1);
        if at == 133 {
            snapshot.messages.keep(133, &raw);
        }
    }
    snapshot.owners.processes_mut()[0].cgroup = Some("/system.slice/nginx.service".to_owned());
    look
}

fn at(size: (u16, u16)) -> App {
    let mut app = empty(size, TabId::Sockets);
    see(&mut app, look());
    app
}

#[test]
fn a_narrow_screen() {
    let mut app = at((80, 24));
    keeps("sockets-80x24", &app);
    filter(&mut app, "state close-wait");
    press(&mut app, "<Down>f<Enter>");
    keeps("sockets-80x24-detail", &app);
    press(&mut app, "<Esc><Esc><Esc>b<Down><Down><Enter>");
    keeps("sockets-80x24-groups", &app);
    press(&mut app, "c");
    keeps("sockets-80x24-columns", &app);
}

#[test]
fn a_usual_screen() {
    let mut app = at((120, 40));
    keeps("sockets-120x40", &app);
    filter(&mut app, "state close-wait");
    press(&mut app, "<Down><Enter>");
    keeps("sockets-120x40-detail", &app);
}

#[test]
fn a_wide_screen() {
    let mut app = at((200, 50));
    app.sockets.sort_by("-age").unwrap();
    press(&mut app, "<Down>");
    keeps("sockets-200x50", &app);
    filter(&mut app, "state close-wait");
    press(&mut app, "R<Down>f<Enter>");
    keeps("sockets-200x50-detail", &app);
}

#[test]
fn a_terminal_of_ascii_shows_ascii() {
    let mut app = at((80, 24));
    app.setup.theme.unicode = false;
    for keys in ["", "f", "<Enter>", "<Esc>", "b<Down><Enter>", "c"] {
        press(&mut app, keys);
        let seen = screen(&app);
        assert!(seen.is_ascii(), "{keys}: {seen}");
    }
}
