//! Machines to draw: one on which everything is wrong, and an empty one. And screens that are kept.

#[cfg(test)]
use std::time::Duration;

use ratatui::crossterm::event::{KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use super::TabId;
use crate::model::{
    Coverage, Moves, Severity, Snapshot, Socket, Subject, TcpInfo, TcpState, Timer, Unknown,
};
use crate::tui::app::App;
use crate::tui::look::{Look, Ranks};
use crate::tui::msg::{Effect, Msg};
use crate::tui::testing::{self, NOON, empty, finding, look_at, screen};

/// The sizes of screens that are kept.
pub const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 50)];

/// A socket's `tcp_info` with the peer's last segment so long ago.
fn info(last_ack_ms: u32) -> TcpInfo {
    let mut raw = vec![0u8; 280];
    raw[56..60].copy_from_slice(&last_ack_ms.to_ne_bytes());
    raw[52..56].copy_from_slice(&last_ack_ms.to_ne_bytes());
    raw[44..48].copy_from_slice(&(last_ack_ms * 2).to_ne_bytes());
    TcpInfo::parse(&raw).unwrap()
}

/// The same sockets, and those of them that wait with ages of seconds to an hour.
fn aged(snapshot: Snapshot) -> Snapshot {
    let mut aged = Snapshot {
        sockets: Vec::new(),
        ..snapshot
    };
    let mut add = |socket: Socket| {
        let n = socket.cookie.map_or(0, |cookie| cookie.get() as u32);
        let info = match socket.state {
            TcpState::CloseWait => Some(info(n * 17_000)),
            TcpState::FinWait1 => Some(info(n * 10)),
            TcpState::FinWait2 => Some(info(n * 90)),
            _ => None,
        };
        aged.push(socket, info);
    };
    for mut socket in snapshot.sockets {
        if socket.state == TcpState::SynSent {
            socket.retransmits = 3;
            socket.timer = Timer::Retransmit;
            socket.timer_ms = 2_000;
        }
        if socket.state == TcpState::CloseWait && socket.inode.is_multiple_of(20) {
            socket.inode = 0;
        }
        add(socket);
    }
    aged
}

/// A machine on which everything is wrong; one that is looked at twice does something in between.
pub fn wrong(second: i64) -> Look {
    let mut look = look_at(second);
    let place = &mut look.places[0];
    place.snapshot = aged(std::mem::take(&mut place.snapshot));
    place.ages.syn_linear_timeouts = Some(4);
    let snapshot = &place.snapshot;
    let about = |id, severity, title: &str, state| {
        let rows = (0u32..).zip(&snapshot.sockets);
        let rows = rows.filter(|(_, socket)| socket.state == state);
        crate::model::Finding {
            id,
            title: title.to_owned(),
            rows: rows.map(|(row, _)| row).take(10).collect(),
            subject: Subject::Host,
            ..finding(severity, snapshot)
        }
    };
    use Severity::{Critical, Info, Warning};
    let leak = "checkout[2211] never closes: 604 sockets whose peer is gone, 37 more every minute, the oldest for 51 min; out of descriptors in 9 min";
    place.findings = vec![
        about("close-wait-leak", Critical, leak, TcpState::CloseWait),
        about(
            "listen-overflow",
            Critical,
            "nginx[901] on :443 does not accept: 512 of 511 wait, 1,204 were turned away in the last 10 s",
            TcpState::Listen,
        ),
        about(
            "syn-flood",
            Warning,
            "SYN flood on :443: 256 half-open connections from 201 addresses, cookies are in use",
            TcpState::SynReceived,
        ),
        about(
            "fin-wait-2-stuck",
            Warning,
            "nginx[901] waits in FIN-WAIT-2 for 40 peers that do not close",
            TcpState::FinWait2,
        ),
        about(
            "syn-sent-blackhole",
            Warning,
            "nobody answers at 10.0.9.9:5432: 14 attempts, the oldest for 11 s",
            TcpState::SynSent,
        ),
        about(
            "orphan-pile-up",
            Warning,
            "evil\x1b[2Jname[7] left 40 orphans",
            TcpState::FinWait2,
        ),
        about(
            "time-wait-server-side",
            Info,
            "this side closes first on :443: 1,902 in TIME-WAIT",
            TcpState::TimeWait,
        ),
        about(
            "risky-sysctls",
            Info,
            "tcp_tw_reuse is 1 on a host behind NAT",
            TcpState::Closed,
        ),
    ];
    // It grows and shrinks.
    let more = u64::try_from((second - NOON).rem_euclid(13)).unwrap();
    look.states = [21, 14, 256, 9_871, 2, 40, 604, 0, 1, 1_902, 0, 5]
        .map(|n| Some(n + n * (more % 7) * (1 + n % 3) / 12));
    for (closes, ago) in look.closes.iter_mut().zip(0i64..) {
        // The same of each second, whenever it is looked.
        let at = second - ago;
        let burst = if at.rem_euclid(47) < 5 { 30 } else { 0 };
        *closes = u32::try_from((at * 7).rem_euclid(13) + burst).unwrap();
    }
    look.states[10] = None;
    look.unknown_states = 3;
    look.moves = Some(Moves {
        window: Duration::from_secs(1),
        changed: vec![
            (TcpState::Established, TcpState::CloseWait, 6),
            (TcpState::Established, TcpState::FinWait2, 31),
            (TcpState::FinWait2, TcpState::TimeWait, 28),
            (TcpState::SynReceived, TcpState::Established, 11),
            (TcpState::SynSent, TcpState::Established, 2),
            (TcpState::CloseWait, TcpState::LastAck, 1),
        ],
        appeared: [0, 3, 40, 0, 0, 0, 0, 0, 0, 4, 0, 0],
        gone: [1, 1, 12, 5, 0, 0, 2, 0, 3, 25, 0, 0],
    });
    let counters = look.counters.as_mut().unwrap();
    counters.insert("Tcp.AttemptFails".to_owned(), 14);
    counters.insert("Tcp.EstabResets".to_owned(), 2);
    counters.insert("TcpExt.TW".to_owned(), 31);
    look.coverage = Coverage {
        interrupted: 1,
        owners_read: true,
        unreadable_processes: 12,
        unowned: 34,
        unknown_states: 3,
        ..Coverage::default()
    };
    look.warnings = vec!["the counters were reset\x07 since the look before".to_owned()];
    look.analysis.unknown.push(Unknown {
        id: "udp-rcvbuf-drops",
        reason: "no two looks to compare".to_owned(),
    });
    look.pace.every = Duration::from_secs(4);
    look.pace.took = Duration::from_millis(380);
    look.ranks.processes[1].0.comm = "check\x1b[31mout".to_owned();
    look.ranks.listeners[1].1.recv_q = 512;
    look.ranks.listeners[0].1.recv_q = 31;
    look.ranks.peers[2].0 = "2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap();
    look
}

/// A machine without sockets, of which little can be seen.
pub fn nothing(second: i64) -> Look {
    let mut look = look_at(second);
    look.states = [Some(0); TcpState::SHOWN.len()];
    look.closes = [0; 60];
    look.ranks = Ranks::default();
    look.counters = None;
    look.owners = false;
    look.analysis.unknown.clear();
    let place = &mut look.places[0];
    place.snapshot.sockets.clear();
    place.findings.clear();
    look
}

/// A dashboard that has seen some looks of a machine, the last at 14:03:11.
pub fn seen(size: (u16, u16), tab: TabId, of: fn(i64) -> Look) -> App {
    let mut app = empty(size, tab);
    for second in [-240, -190, -150, -100, -60, -30, -10, -1, 0] {
        app.update(Msg::Look(Box::new(of(NOON + second))));
    }
    app
}

/// Presses the mouse.
pub fn click(app: &mut App, column: u16, row: u16) -> Vec<Effect> {
    app.update(Msg::Mouse(MouseEvent {
        kind: MouseEventKind::Down(MouseButton::Left),
        column,
        row,
        modifiers: KeyModifiers::NONE,
    }))
}

/// What a filter was asked for.
pub fn asked(effects: &[Effect]) -> Vec<String> {
    let asked = effects.iter().filter_map(|effect| match effect {
        Effect::Resolve { text, .. } => Some(text.clone()),
        _ => None,
    });
    asked.collect()
}

/// Where on the screen a text begins, its column and row.
pub fn find(app: &App, text: &str) -> Option<(u16, u16)> {
    (0u16..).zip(screen(app).lines()).find_map(|(row, line)| {
        let at = line.find(text)?;
        let column = crate::render::text::width(&line[..at]);
        Some((u16::try_from(column).unwrap(), row))
    })
}

/// Compares the tab's part of the screen with the one that is kept under a name; `UPDATE_SCREENS=1` keeps it anew.
pub fn keeps(name: &str, app: &App) {
    let body = app.layout().body;
    let text = screen(app);
    let lines = text.lines().skip(usize::from(body.y));
    let now: String = lines
        .take(usize::from(body.height))
        .map(|line| format!("{line}\n"))
        .collect();
    keeps_text(name, &now);
}

/// Compares what is drawn with what is kept under a name; `UPDATE_SCREENS=1` keeps it anew.
pub fn keeps_text(name: &str, now: &str) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join(format!("tests/data/screens/{name}.txt"));
    if std::env::var_os("UPDATE_SCREENS").is_some() {
        std::fs::write(&path, now).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(now == kept, "{} is now\n{now}", path.display());
}

/// Keeps the screens of a tab in every size, of a machine on which everything is wrong and of an empty one.
pub fn keeps_all(tab: TabId) {
    for size in SIZES {
        let (columns, rows) = size;
        let name = tab.slug();
        keeps(&format!("{name}-{columns}x{rows}"), &seen(size, tab, wrong));
        let empty = seen(size, tab, nothing);
        keeps(&format!("{name}-{columns}x{rows}-nothing"), &empty);
    }
}

/// Draws a tab in many sizes, and presses what moves, opens and closes.
pub fn survives(tab: TabId) {
    for columns in [40, 64, 78, 118, 220] {
        for rows in [10, 15, 24, 45] {
            for of in [wrong as fn(i64) -> Look, nothing] {
                let mut app = empty((columns, rows), tab);
                for second in 0..2 {
                    app.update(Msg::Look(Box::new(of(NOON + second))));
                }
                for keys in [
                    "<Down>", "<PgDn>", "lll", "G", "hhhh", "<Enter>", "G<Up>", "<Esc>", "g<PgUp>",
                ] {
                    testing::press(&mut app, keys);
                    assert!(screen(&app).lines().all(|line| !line.contains('\x1b')));
                }
                for (column, row) in [(0, 2), (columns - 1, rows - 2), (columns / 2, rows / 2)] {
                    click(&mut app, column, row);
                    screen(&app);
                }
            }
        }
    }
}
