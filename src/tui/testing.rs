//! A machine to draw, for tests.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;

use super::app::{App, Setup};
use super::look::{Look, Pace, Place, Ranks};
use super::msg::{Effect, Msg};
use super::tabs::TabId;
use super::theme::Theme;
use super::{draw, page};
use crate::fields::NoNames;
use crate::model::owner::Link;
use crate::model::{
    Actor, AgeFacts, Analysis, Attributes, Coverage, Endpoint, Evidence, Family, Finding, Host,
    Owners, Process, Protocol, Severity, Snapshot, Socket, Subject, TcpState, Timer, Unknown,
};

/// 2026-03-01 14:03:11 UTC.
pub const NOON: i64 = 1_772_373_791;

/// A socket from 10.0.0.1, its cookie and inode being `number`.
pub fn socket(state: TcpState, number: u32, port: u16, peer: (u8, u16)) -> Socket {
    let orphan = matches!(state, TcpState::TimeWait | TcpState::SynReceived);
    Socket {
        cookie: NonZeroU64::new(u64::from(number)),
        local: Endpoint::v4([10, 0, 0, 1], port),
        remote: match state {
            TcpState::Listen => Endpoint::v4([0; 4], 0),
            _ => Endpoint::v4([10, 0, 1, peer.0], peer.1),
        },
        inode: if orphan { 0 } else { number },
        uid: if orphan { 0 } else { 33 },
        recv_q: u32::from(state == TcpState::CloseWait),
        send_q: if state == TcpState::Listen { 511 } else { 0 },
        timer_ms: if state == TcpState::TimeWait {
            59_000 - (number % 50) * 1_000
        } else {
            0
        },
        ifindex: 0,
        info: None,
        netns: 0,
        retransmits: 0,
        timer: if state == TcpState::TimeWait {
            Timer::TimeWait
        } else {
            Timer::None
        },
        state,
        protocol: Protocol::Tcp,
        family: Family::Ipv4,
    }
}

/// nginx[901] listens on 443 with connections in all states, checkout[2211] does not close.
pub fn snapshot(second: i64) -> Snapshot {
    let mut snapshot = Snapshot {
        taken: Timestamp::from_second(second).unwrap(),
        host: Host {
            name: "web-7".to_owned(),
            ..Host::default()
        },
        ..Snapshot::default()
    };
    let mut number = 0;
    let mut links = Vec::new();
    let mut add = |state, count: u32, port: u16, owner: Option<u32>| {
        for n in 0..count {
            number += 1;
            let peer = (
                u8::try_from(n % 7 + 1).unwrap(),
                u16::try_from(40_000 + number).unwrap(),
            );
            let socket = socket(state, number, port, peer);
            if let Some(process) = owner.filter(|_| socket.inode != 0) {
                links.push(Link {
                    inode: socket.inode,
                    process,
                    fd: number,
                });
            }
            snapshot.push(socket, None);
        }
    };
    add(TcpState::Listen, 1, 443, Some(0));
    add(TcpState::Listen, 1, 8443, Some(1));
    add(TcpState::Established, 120, 443, Some(0));
    add(TcpState::SynSent, 3, 50_001, Some(1));
    add(TcpState::SynReceived, 2, 443, None);
    add(TcpState::FinWait1, 1, 443, Some(0));
    add(TcpState::FinWait2, 4, 443, Some(0));
    add(TcpState::CloseWait, 60, 8443, Some(1));
    add(TcpState::LastAck, 1, 8443, None);
    add(TcpState::TimeWait, 40, 443, None);
    let process = |pid: u32, comm: &str| Process {
        pid,
        comm: comm.to_owned(),
        uid: Some(33),
        user: Some("www-data".to_owned()),
        fds: Some(200),
        nofile: Some(1024),
        ..Process::default()
    };
    snapshot.owners = Owners::new(
        vec![process(901, "nginx"), process(2211, "checkout")],
        links,
    );
    snapshot.coverage.owners_read = true;
    snapshot
}

/// A finding about checkout, with all that a finding has.
pub fn finding(severity: Severity, snapshot: &Snapshot) -> Finding {
    let rows = (0u32..).zip(&snapshot.sockets);
    let rows = rows.filter(|(_, socket)| socket.state == TcpState::CloseWait);
    Finding {
        id: "close-wait-leak",
        variant: None,
        severity,
        title: "checkout[2211] never closes: 60 sockets whose peer is gone, oldest 51 min"
            .to_owned(),
        subject: Subject::Process {
            pid: Some(2211),
            comm: Some("checkout".to_owned()),
            uid: Some(33),
            unit: None,
            container: None,
        },
        evidence: vec![
            Evidence::count("sockets", 60u64, "sockets", "inet_diag_msg.idiag_state").limit(50.0),
        ],
        explanation: "The peer has closed, and this program has not.".to_owned(),
        grounds: vec!["RFC 9293 section 3.6"],
        who_must_act: Actor::ThisProgram,
        advice: vec!["linger list state close-wait pid = 2211".to_owned()],
        rows: rows.map(|(row, _)| row).take(10).collect(),
        caused_by: None,
        one_sample: false,
    }
}

/// A look with one finding, `second` being its time.
pub fn look_at(second: i64) -> Look {
    let snapshot = snapshot(second);
    let mut states = [Some(0); TcpState::SHOWN.len()];
    for socket in &snapshot.sockets {
        if let Some(Some(count)) = socket.state.index().and_then(|index| states.get_mut(index)) {
            *count += 1;
        }
    }
    let mut closes = [0; 60];
    for socket in &snapshot.sockets {
        if socket.state == TcpState::TimeWait {
            closes[((60_000 - socket.timer_ms) / 1_000) as usize] += 1;
        }
    }
    let findings = vec![finding(Severity::Critical, &snapshot)];
    let listeners = snapshot
        .sockets
        .iter()
        .filter(|socket| socket.state == TcpState::Listen);
    let ranks = Ranks {
        processes: snapshot
            .owners
            .processes()
            .iter()
            .cloned()
            .zip([126, 64])
            .collect(),
        peers: (1u8..8)
            .map(|n| (format!("10.0.1.{n}").parse().unwrap(), u64::from(40 - n)))
            .collect(),
        listeners: listeners.map(|socket| (0, *socket, 100)).collect(),
    };
    Look {
        taken: snapshot.taken,
        host: "web-7".to_owned(),
        analysis: Analysis {
            quiet: vec!["listen-overflow", "syn-flood"],
            unknown: vec![Unknown {
                id: "conntrack-near-full",
                reason: "conntrack is not readable".to_owned(),
            }],
            ..Analysis::default()
        },
        coverage: Coverage {
            owners_read: true,
            ..Coverage::default()
        },
        warnings: Vec::new(),
        whole: None,
        states,
        unknown_states: 0,
        closes,
        moves: None,
        counters: Some(BTreeMap::from([
            ("Tcp.ActiveOpens".to_owned(), 7),
            ("Tcp.PassiveOpens".to_owned(), 12),
        ])),
        window: Duration::from_secs(1),
        ranks,
        owners: true,
        names: Arc::new(NoNames),
        decode: |_| Attributes::default(),
        pace: Pace {
            interval: Duration::from_secs(1),
            every: Duration::from_secs(1),
            took: Duration::from_millis(12),
        },
        frame: None,
        places: vec![Place {
            namespace: None,
            ages: AgeFacts::new(&snapshot.facts),
            snapshot,
            findings,
        }],
    }
}

/// A dashboard that has seen one look.
pub fn app(size: (u16, u16), tab: TabId) -> App {
    let mut app = empty(size, tab);
    app.update(Msg::Look(Box::new(look_at(NOON))));
    app
}

/// A dashboard that has seen nothing.
pub fn empty(size: (u16, u16), tab: TabId) -> App {
    App::new(Setup {
        theme: Theme {
            unicode: true,
            colour: false,
        },
        size,
        interval: Duration::from_secs(1),
        replay: false,
        again: String::new(),
        zone: TimeZone::UTC,
        tab,
        export: "linger-20260301-140311".to_owned(),
    })
}

/// What is on the screen.
pub fn screen(app: &App) -> String {
    let (columns, rows) = app.setup.size;
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, rows));
    draw(app, &mut buffer);
    page::text(&buffer, false)
}

/// Presses keys: characters as they are, and `<Enter> <Esc> <Tab> <BackTab> <Up> <Down> <Left> <PgUp> <PgDn>
/// <BkSp>`; `<^c>` with Ctrl.
pub fn press(app: &mut App, keys: &str) -> Vec<Effect> {
    let mut effects = Vec::new();
    let mut rest = keys;
    while let Some(c) = rest.chars().next() {
        let mut modifiers = KeyModifiers::NONE;
        let (code, length) = match rest
            .strip_prefix('<')
            .and_then(|named| named.split_once('>'))
        {
            Some((name, _)) => {
                let code = match name {
                    "Enter" => KeyCode::Enter,
                    "Esc" => KeyCode::Esc,
                    "Tab" => KeyCode::Tab,
                    "BackTab" => KeyCode::BackTab,
                    "Up" => KeyCode::Up,
                    "Down" => KeyCode::Down,
                    "Left" => KeyCode::Left,
                    "PgUp" => KeyCode::PageUp,
                    "PgDn" => KeyCode::PageDown,
                    "BkSp" => KeyCode::Backspace,
                    other => match other.strip_prefix('^').and_then(|with| with.chars().next()) {
                        Some(with) => {
                            modifiers = KeyModifiers::CONTROL;
                            KeyCode::Char(with)
                        }
                        None => panic!("no key is called {other}"),
                    },
                };
                (code, name.len() + 2)
            }
            None => (KeyCode::Char(c), c.len_utf8()),
        };
        effects.extend(app.update(Msg::Key(KeyEvent::new(code, modifiers))));
        rest = &rest[length..];
    }
    effects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tab_is_drawn_on_every_screen() {
        for tab in TabId::ALL {
            for size in [
                (40, 10),
                (80, 24),
                (120, 40),
                (200, 50),
                (39, 9),
                (1, 1),
                (65, 500),
            ] {
                let mut app = app(size, tab);
                assert!(!screen(&app).is_empty());
                for keys in ["<Down>", "<PgDn>", "G", "g", "<Enter>", "?", "<Esc>"] {
                    press(&mut app, keys);
                    screen(&app);
                }
            }
        }
    }
}
