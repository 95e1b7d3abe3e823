//! Who holds most: processes, listeners with their queues, peers.

use std::cmp::Reverse;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::model::words::thousands;
use crate::model::{Socket, TcpState};
use crate::render::status::name;
use crate::render::text::{Thousands, width};
use crate::tui::look::Look;
use crate::tui::tabs::{View, parts};
use crate::tui::theme::Theme;

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// listeners by their queues, then by connections
    Listeners,
    /// processes by TCP sockets
    Processes,
    /// remote addresses by sockets
    Peers,
}

/// Whether the accept queue is over its limit: the kernel turns SYNs away (`sk_acceptq_is_full`, `include/net/sock.h`).
fn is_full(listener: &Socket) -> bool {
    let limit = listener.backlog();
    limit.is_some_and(|limit| listener.recv_q > limit)
}

/// The places of the listeners, those with the fullest queues first, then as they stand.
pub fn fullest(look: &Look) -> Vec<usize> {
    let listeners = &look.ranks.listeners;
    let mut places: Vec<usize> = (0..listeners.len()).collect();
    places.sort_by_key(|at| {
        let socket = listeners.get(*at).map(|(_, socket, _)| socket);
        let filled = socket.map_or(0, |socket| {
            let limit = u64::from(socket.backlog().unwrap_or(u32::MAX)).max(1);
            u64::from(socket.recv_q) * 1000 / limit
        });
        (Reverse(socket.is_some_and(is_full)), Reverse(filled))
    });
    places
}

impl Rank {
    /// All, from left to right.
    pub const ALL: [Self; 3] = [Self::Listeners, Self::Processes, Self::Peers];

    /// How many lines it has.
    pub fn len(self, look: &Look) -> usize {
        match self {
            Self::Listeners => look.ranks.listeners.len(),
            Self::Processes => look.ranks.processes.len(),
            Self::Peers => look.ranks.peers.len(),
        }
    }

    /// The filter that selects what a line is about.
    pub fn filter(self, at: usize, listeners: &[usize], look: &Look) -> Option<String> {
        let ranks = &look.ranks;
        Some(match self {
            Self::Listeners => {
                let (_, socket, _) = ranks.listeners.get(*listeners.get(at)?)?;
                format!("sport = :{}", socket.local.port)
            }
            Self::Processes => format!("pid = {}", ranks.processes.get(at)?.0.pid),
            Self::Peers => format!("dst {}", ranks.peers.get(at)?.0),
        })
    }

    fn heading(self, look: &Look) -> String {
        match self {
            Self::Listeners => "Listeners, queue/limit".to_owned(),
            Self::Processes if !look.owners => "Processes: not read".to_owned(),
            Self::Processes => "Processes, sockets".to_owned(),
            Self::Peers => "Peers, sockets".to_owned(),
        }
    }

    fn line(self, at: usize, room: usize, listeners: &[usize], view: &View<'_>) -> Option<String> {
        let (theme, ranks) = (view.theme, &view.look.ranks);
        match self {
            Self::Listeners => {
                let (place, socket, connections) = ranks.listeners.get(*listeners.get(at)?)?;
                Some(listener(socket, *place, *connections, room, view))
            }
            Self::Processes => {
                let (process, n) = ranks.processes.get(at)?;
                let more = match (process.fds, process.nofile) {
                    (Some(fds), Some(limit)) if limit < u64::MAX => {
                        format!("  fds {fds}/{limit}")
                    }
                    _ => String::new(),
                };
                Some(counted(&name(process), *n, &more, room, theme))
            }
            Self::Peers => {
                let (peer, n) = ranks.peers.get(at)?;
                let most = ranks.peers.first().map_or(*n, |(_, most)| *most);
                let bar = theme.bar(*n, most, room.saturating_sub(45).min(30));
                let bar = format!("  {bar:<0$}", room.saturating_sub(45).min(30));
                Some(counted(&peer.to_string(), *n, &bar, room, theme))
            }
        }
    }

    /// Draws the lines from the first on.
    pub fn draw(
        self,
        area: Rect,
        buffer: &mut Buffer,
        (first, chosen): (usize, Option<usize>),
        listeners: &[usize],
        view: &View<'_>,
    ) {
        let theme = view.theme;
        let len = self.len(view.look);
        parts::heading(buffer, area, &self.heading(view.look), theme);
        if len == 0 {
            let text = match (self, view.look.owners) {
                (Self::Processes, false) => " owners were not asked for",
                (Self::Listeners, _) if view.look.of(TcpState::Listen).is_none() => " ?",
                _ => " none",
            };
            parts::write(buffer, area, 1, text, Style::new(), theme);
        }
        let page = usize::from(area.height.saturating_sub(1));
        for (row, at) in (first..len).take(page).enumerate() {
            let is_chosen = chosen == Some(at);
            let room = usize::from(area.width).saturating_sub(1);
            let Some(text) = self.line(at, room, listeners, view) else {
                continue;
            };
            let mark = if is_chosen { ">" } else { " " };
            let style = if is_chosen {
                theme.chosen()
            } else {
                Style::new()
            };
            parts::write(
                buffer,
                area,
                row + 1,
                &format!("{mark}{text}"),
                style,
                theme,
            );
        }
    }
}

/// A name, its number at the right, and more where there is room.
fn counted(name: &str, n: u64, more: &str, room: usize, theme: Theme) -> String {
    let more = if room >= 34 + width(more) { more } else { "" };
    let number = thousands(n);
    let left = room.saturating_sub(width(&number) + 1 + width(more));
    format!("{} {number}{more}", parts::cell(name, left, theme))
}

/// `:443 Q 512/511 FULL`, with connections, holder and a bar where there is room.
fn listener(socket: &Socket, place: u16, connections: u64, room: usize, view: &View<'_>) -> String {
    let theme = view.theme;
    let port = socket.local.port;
    let wide = room >= 46;
    let address = match socket.local.is_unspecified() || !wide {
        true => format!(":{port}"),
        false => std::net::SocketAddr::new(socket.local_ip(), port).to_string(),
    };
    let limit = socket.backlog();
    let limit_text = limit.map_or_else(|| "?".to_owned(), |limit| limit.to_string());
    let full = if is_full(socket) { " FULL" } else { "" };
    let queue = format!("Q {}/{limit_text}{full}", socket.recv_q);
    let names = if wide { 22 } else { 6 };
    let mut text = format!(
        "{} {}",
        parts::cell(&address, names, theme),
        parts::cell(&queue, 15, theme)
    );
    let left = room.saturating_sub(width(&text) + 1);
    if wide && left >= 16 {
        let snapshot = view.look.places.get(usize::from(place));
        let owner = snapshot.and_then(|place| place.snapshot.owner(socket));
        let owner = owner.map(name).unwrap_or_default();
        let conns = match room {
            80.. => format!("{:>9} conn ", Thousands(connections)),
            _ => String::new(),
        };
        text.push_str(&conns);
        let left = left.saturating_sub(width(&conns));
        let bar_room = (left / 3).min(12);
        let owner_room = left.saturating_sub(bar_room + 1);
        text.push_str(&parts::cell(&owner, owner_room, theme));
        text.push(' ');
        text.push_str(&bar(socket, limit, bar_room, theme));
    } else if left >= 4 {
        text.push(' ');
        text.push_str(&bar(socket, limit, left, theme));
    }
    text.trim_end().to_owned()
}

fn bar(socket: &Socket, limit: Option<u32>, room: usize, theme: Theme) -> String {
    limit.map_or_else(String::new, |limit| {
        theme.bar(socket.recv_q.into(), limit.into(), room)
    })
}
