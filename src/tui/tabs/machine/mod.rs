//! The state machine with the sockets of this host on it, and what the chosen state means.

mod drawing;
mod pane;
mod rates;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;

use self::drawing::{COMPACT, Drawing, LARGE, Shown};
use self::rates::Rates;
use super::{Request, Tab, View, parts};
use crate::model::TcpState;
use crate::render::text::width;
use crate::tui::cursor::Cursor;
use crate::tui::draw::put;
use crate::tui::keys::Action;
use parts::Trouble;

/// The columns between the drawing and what stands beside it.
const GAP: u16 = 2;

/// The columns that an explanation beside the drawing needs.
const BESIDE: u16 = 38;

/// The rows that an explanation below the drawing needs.
const BELOW: u16 = 5;

/// The time in which [`Rates::ended`] happened.
const SECOND: Duration = Duration::from_secs(1);

/// The tab.
#[derive(Debug)]
pub struct Machine {
    chosen: TcpState,
    troubles: [Trouble; TcpState::SHOWN.len()],
    rates: Rates,
    /// how far the explanation is scrolled
    pane: Cursor,
    /// the whole explanation, and how far it is scrolled, where it is open
    open: Option<Cursor>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            chosen: TcpState::Established,
            troubles: Default::default(),
            rates: Rates::default(),
            pane: Cursor::default(),
            open: None,
        }
    }
}

/// How the body is divided.
#[derive(Clone, Copy, Debug)]
struct Parts {
    /// the drawing; where there is no room for any, a list
    drawing: Option<&'static Drawing>,
    machine: Rect,
    pane: Rect,
}

impl Parts {
    fn new(body: Rect) -> Self {
        let beside = body.width >= LARGE.width + GAP + BESIDE;
        let fits = |drawing: &Drawing| {
            let below = if beside { 0 } else { BELOW };
            body.width >= drawing.width && body.height >= drawing.height + below
        };
        let drawing = [&LARGE, &COMPACT].into_iter().find(|one| fits(one));
        let (columns, rows) = match drawing {
            Some(drawing) => (drawing.width, drawing.height),
            None => (
                body.width,
                (TcpState::SHOWN.len() as u16 + 1).min(body.height),
            ),
        };
        let machine = Rect {
            width: columns.min(body.width),
            height: rows.min(body.height),
            ..body
        };
        let pane = if beside && drawing.is_some() {
            Rect {
                x: body.x + columns + GAP,
                width: body.width - columns - GAP,
                ..body
            }
        } else {
            Rect {
                y: body.y + machine.height,
                height: body.height - machine.height,
                ..body
            }
        };
        Self {
            drawing,
            machine,
            pane,
        }
    }
}

impl Machine {
    /// Chooses a state, and shows what it means.
    pub fn choose(&mut self, state: TcpState) {
        if state.index().is_some() {
            self.chosen = state.shown();
        }
        self.pane = Cursor::default();
        self.open = None;
    }

    fn step(&mut self, action: Action, view: &View<'_>) {
        let to = match (Parts::new(view.body).drawing, action) {
            (Some(drawing), _) => drawing.neighbour(self.chosen, action),
            (None, Action::Up | Action::Down) => {
                let at = self.chosen.index().unwrap_or(0);
                let to = if action == Action::Up {
                    at.saturating_sub(1)
                } else {
                    at + 1
                };
                TcpState::SHOWN.get(to).copied().unwrap_or(self.chosen)
            }
            (None, _) => self.chosen,
        };
        if to != self.chosen {
            self.choose(to);
        }
    }

    /// The states as a list, for a screen on which no drawing has room.
    fn list(&self, area: Rect, buffer: &mut Buffer, view: &View<'_>) {
        let theme = view.theme;
        parts::write(
            buffer,
            area,
            0,
            "  state           sockets       in      out",
            theme.strong(),
            theme,
        );
        let rows = Rect {
            y: area.y + 1,
            height: area.height.saturating_sub(1),
            ..area
        };
        let page = usize::from(rows.height);
        let chosen = self.chosen.index().unwrap_or(0);
        let first = (chosen + 1).saturating_sub(page);
        for (n, state) in TcpState::SHOWN
            .into_iter()
            .enumerate()
            .skip(first)
            .take(page)
        {
            let count = pane::count(view.look.of(state));
            let sign = self.troubles.get(n).copied().unwrap_or_default().sign();
            let (came, left) = self.rates.through(state).unzip();
            let rate = |rate: Option<rates::Rate>| {
                rate.and_then(|rate| rate.text(theme)).unwrap_or_default()
            };
            let name = state.to_string();
            let mark = if state == self.chosen { ">" } else { " " };
            let text = format!(
                "{mark} {name:<14} {count:>8} {:>8} {:>8}  {sign}",
                rate(came),
                rate(left)
            );
            let style = if state == self.chosen {
                theme.chosen()
            } else {
                Style::new()
            };
            parts::write(buffer, rows, n - first, text.trim_end(), style, theme);
        }
    }

    /// What the chosen state means, below or beside the drawing.
    fn explain(&self, area: Rect, buffer: &mut Buffer, view: &View<'_>) {
        let theme = view.theme;
        let lines = self.pane_lines(area, view);
        let page = usize::from(area.height);
        let more = lines.len() > self.pane.top + page && page > 1;
        for (n, line) in lines.iter().skip(self.pane.top).take(page).enumerate() {
            let style = if line.heading {
                theme.strong()
            } else {
                Style::new()
            };
            parts::write(buffer, area, n, &line.text, style, theme);
        }
        if more {
            let text = " Enter: all of it ";
            let last = parts::line(area, page - 1);
            let taken = width(text).min(usize::from(last.width));
            let taken = u16::try_from(taken).unwrap_or(0);
            let place = Rect::new(last.right() - taken, last.y, taken, 1);
            put(buffer, place, text, theme.faint());
        }
    }

    fn pane_lines(&self, area: Rect, view: &View<'_>) -> Vec<pane::Line> {
        pane::lines(
            self.chosen,
            &self.rates,
            usize::from(area.width).min(pane::WIDEST),
            area.height < 12,
            view,
        )
    }
}

impl Tab for Machine {
    fn act(&mut self, action: Action, view: &View<'_>) -> Vec<Request> {
        let page = usize::from(view.body.height);
        if action == Action::Sockets {
            let slug = self.chosen.slug().unwrap_or_default();
            return vec![Request::Sockets(format!("state {slug}"))];
        }
        if let Some(open) = &mut self.open {
            let lines = pane::whole(self.chosen, usize::from(view.body.width), view);
            match action {
                Action::Open | Action::Back => self.open = None,
                action => {
                    open.scroll(action, lines.len(), page);
                }
            }
            return Vec::new();
        }
        match action {
            Action::Open => self.open = Some(Cursor::default()),
            Action::Up | Action::Down | Action::Left | Action::Right => self.step(action, view),
            action => {
                let area = Parts::new(view.body).pane;
                let lines = self.pane_lines(area, view).len();
                self.pane.scroll(action, lines, usize::from(area.height));
            }
        }
        Vec::new()
    }

    fn click(&mut self, at: Position, view: &View<'_>) -> Vec<Request> {
        if self.open.is_some() {
            return Vec::new();
        }
        let parts = Parts::new(view.body);
        let inner = Position::new(
            at.x.saturating_sub(parts.machine.x),
            at.y.saturating_sub(parts.machine.y),
        );
        let hit = match parts.drawing {
            Some(drawing) => drawing.at(inner),
            None => {
                let page = usize::from(parts.machine.height.saturating_sub(1));
                let first = (self.chosen.index().unwrap_or(0) + 1).saturating_sub(page);
                let row = usize::from(inner.y).checked_sub(1);
                row.filter(|row| *row < page)
                    .and_then(|row| TcpState::SHOWN.get(first + row).copied())
            }
        };
        match hit {
            // A second press opens what the first chose.
            Some(state) if state == self.chosen => self.open = Some(Cursor::default()),
            Some(state) => self.choose(state),
            None => {}
        }
        Vec::new()
    }

    fn looked(&mut self, view: &View<'_>) {
        self.troubles = parts::troubles(view.look);
        self.rates = Rates::new(view.look);
        if let Some(mut open) = self.open {
            let lines = pane::whole(self.chosen, usize::from(view.body.width), view);
            let page = usize::from(view.body.height);
            open.top = open.top.min(lines.len().saturating_sub(page));
            self.open = Some(open);
        }
        let area = Parts::new(view.body).pane;
        let lines = self.pane_lines(area, view).len();
        let page = usize::from(area.height);
        self.pane.top = self.pane.top.min(lines.saturating_sub(page));
    }

    fn draw(&self, area: Rect, buffer: &mut Buffer, view: &View<'_>) {
        if let Some(open) = self.open {
            let lines = pane::whole(self.chosen, usize::from(area.width), view);
            let page = usize::from(area.height);
            for (n, line) in lines.iter().skip(open.top).take(page).enumerate() {
                let style = if n + open.top == 0 {
                    view.theme.strong()
                } else {
                    Style::new()
                };
                parts::write(buffer, area, n, line, style, view.theme);
            }
            return;
        }
        let parts = Parts::new(area);
        match parts.drawing {
            Some(drawing) => {
                let shown = Shown {
                    counts: &view.look.states,
                    troubles: &self.troubles,
                    rates: &self.rates,
                    chosen: self.chosen,
                    theme: view.theme,
                };
                drawing.draw(parts.machine, buffer, &shown);
            }
            None => self.list(parts.machine, buffer, view),
        }
        self.explain(parts.pane, buffer, view);
    }
}
