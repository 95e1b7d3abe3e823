//! Who closes how often, and who does not go on with it.

mod ages;
mod chart;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;

use self::ages::{Ages, BUCKETS, STATES};
use super::{Request, Tab, View, parts};
use crate::model::words::thousands;
use crate::tui::cursor::Cursor;
use crate::tui::draw::put;
use crate::tui::keys::Action;
use crate::tui::look::Frame;

/// The columns of the table of ages.
const TABLE: u16 = 78;

/// The tab.
#[derive(Debug, Default)]
pub struct Closings {
    ages: Ages,
    /// of which look the ages are
    of: Option<(Timestamp, Option<Frame>, u64)>,
    cursor: Cursor,
}

/// How the body is divided.
#[derive(Clone, Copy, Debug)]
struct Areas {
    chart: Rect,
    who: Rect,
    ages: Rect,
    holders: Rect,
}

impl Areas {
    fn new(body: Rect) -> Self {
        let beside = body.width >= TABLE + 2 + 30;
        let table = STATES.len() as u16 + 1;
        let who = if beside { 0 } else { 1 };
        // Heading, bars, labels and a remark; what is left goes to the holders, who can be chosen.
        let least = table + who + 3;
        let chart = body.height.saturating_sub(least).min(
            // A third of a large screen.
            (body.height / 3).max(6),
        );
        let chart = if chart < 5 { 0 } else { chart };
        let who_rows = who.min(body.height - chart);
        let rows = table.min(body.height - chart - who_rows);
        let part = |y: u16, height: u16| Rect {
            y: body.y + y,
            height,
            ..body
        };
        let ages = part(chart + who_rows, rows);
        let who = if beside {
            Rect {
                x: body.x + TABLE + 2,
                width: body.width - TABLE - 2,
                ..ages
            }
        } else {
            part(chart, who_rows)
        };
        let used = chart + who_rows + rows;
        Self {
            chart: part(0, chart),
            who,
            ages: Rect {
                width: if beside { TABLE } else { body.width },
                ..ages
            },
            holders: part(used, body.height - used),
        }
    }

    /// The holders that are seen.
    fn page(&self) -> usize {
        usize::from(self.holders.height.saturating_sub(1))
    }
}

impl Closings {
    fn open(&self) -> Vec<Request> {
        let chosen = self.ages.groups.get(self.cursor.at);
        let request = chosen.map(|group| Request::Sockets(group.filter()));
        request.into_iter().collect()
    }

    /// Who closes: this side, as TIME-WAIT tells.
    fn who(&self, area: Rect, buffer: &mut Buffer, view: &View<'_>) {
        let theme = view.theme;
        let ages = &self.ages;
        let served = ages
            .served
            .iter()
            .map(|(port, n)| (format!("on :{port}"), *n));
        let dialled = ages
            .dialled
            .iter()
            .map(|(address, n)| (format!("to {address}"), *n));
        let all = match view.look.of(crate::model::TcpState::TimeWait) {
            Some(n) => thousands(n),
            None => "?".to_owned(),
        };
        if area.height <= 1 {
            let mut rest = served.chain(dialled).collect::<Vec<_>>();
            rest.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
            let items = rest.iter().take(6);
            let items: Vec<String> = items
                .map(|(name, n)| format!("{name} {}", thousands(*n)))
                .collect();
            let text = match items.is_empty() {
                true => format!("TIME-WAIT now {all}"),
                false => format!("TIME-WAIT now {all}: {}", items.join(", ")),
            };
            return parts::write(buffer, area, 0, &text, Style::new(), theme);
        }
        let head = format!("TIME-WAIT {all}, closed by this side");
        parts::heading(buffer, area, &head, theme);
        let half = usize::from(area.height - 1) / 2;
        let served: Vec<_> = served.collect();
        let dialled: Vec<_> = dialled.collect();
        let page = usize::from(area.height - 1);
        let first = served
            .len()
            .min(half.max(page.saturating_sub(dialled.len())));
        let items = served.iter().take(first).chain(&dialled).take(page);
        let most = served.iter().chain(&dialled).map(|(_, n)| *n).max();
        let room = usize::from(area.width);
        for (n, (name, many)) in items.enumerate() {
            let number = thousands(*many);
            let name_room = (room / 2).min(48);
            let name = parts::cell(name, name_room, theme);
            let bar = theme.bar(
                *many,
                most.unwrap_or(1),
                room.saturating_sub(name_room + 12),
            );
            let text = format!(" {name} {number:>8} {bar}");
            parts::write(buffer, area, n + 1, &text, Style::new(), theme);
        }
        if served.is_empty() && dialled.is_empty() {
            parts::write(buffer, area, 1, " none", Style::new(), theme);
        }
    }

    fn table(&self, area: Rect, buffer: &mut Buffer, view: &View<'_>) {
        let theme = view.theme;
        let mut head = format!("{:<12}{:>8}", "Ages", "sockets");
        for name in BUCKETS {
            head.push_str(&format!("{name:>7}"));
        }
        head.push_str("  oldest");
        parts::heading(buffer, area, &head, theme);
        for (row, state) in STATES.into_iter().enumerate() {
            let known = view
                .look
                .of(state)
                .map_or_else(|| "?".to_owned(), thousands);
            let mut text = format!("{:<12}{known:>8}", state.to_string());
            let Some(ages) = self.ages.states.get(row) else {
                continue;
            };
            let unseen = view.look.of(state).is_none();
            for bucket in ages.buckets {
                let count = if unseen {
                    "?".to_owned()
                } else {
                    bucket.text()
                };
                text.push_str(&format!("{count:>7}"));
            }
            if let Some(age) = ages.oldest {
                text.push_str(&format!("  {}", ages::shown(age, theme)));
            }
            parts::write(buffer, area, row + 1, text.trim_end(), Style::new(), theme);
        }
    }

    fn holders(&self, area: Rect, buffer: &mut Buffer, view: &View<'_>) {
        let theme = view.theme;
        let groups = &self.ages.groups;
        let mut head = "Who does not go on, the oldest first".to_owned();
        let page = usize::from(area.height.saturating_sub(1));
        if self.ages.states.iter().any(ages::StateAges::is_bound) {
            head.push_str(" (n+: some may be older)");
        }
        if groups.len() > page && page > 0 {
            let last = (self.cursor.top + page).min(groups.len());
            head.push_str(&format!(
                "; {}-{last} of {}",
                self.cursor.top + 1,
                groups.len()
            ));
        }
        parts::heading(buffer, area, &head, theme);
        if groups.is_empty() {
            let text = " no socket is in these states";
            parts::write(buffer, area, 1, text, Style::new(), theme);
        }
        let seen = groups.iter().enumerate().skip(self.cursor.top).take(page);
        for (row, (at, group)) in seen.enumerate() {
            let chosen = at == self.cursor.at;
            let mark = if chosen { ">" } else { " " };
            let style = if chosen { theme.chosen() } else { Style::new() };
            let room = (usize::from(area.width) / 2).clamp(14, 48);
            let oldest = match group.oldest {
                Some(age) => format!("oldest {}", ages::shown(age, theme)),
                None => "ages not known".to_owned(),
            };
            let text = format!(
                "{mark}{} {:<12} {:>7}, {oldest}",
                parts::cell(&group.name, room, theme),
                group.state.to_string(),
                thousands(group.count),
            );
            parts::write(buffer, area, row + 1, &text, style, theme);
        }
    }

    fn chart(&self, area: Rect, buffer: &mut Buffer, view: &View<'_>) {
        let theme = view.theme;
        if area.height < 5 {
            return;
        }
        let room = usize::from(area.width).saturating_sub(chart::LABEL + 1);
        // Before the first look TIME-WAIT tells of a minute.
        let known = usize::try_from(view.trend.reach().as_secs()).unwrap_or(usize::MAX);
        let seconds = known.saturating_add(60).min(chart::SECONDS).min(room);
        let scale = chart::scale(seconds, room);
        let closes = view.trend.closes(seconds);
        let last = closes.iter().rev().take(60).flatten();
        let sum: u64 = last.map(|n| u64::from(*n)).sum();
        let most = closes.iter().flatten().copied().max().unwrap_or(0);
        let head = format!(
            "Closes by this side, second by second: at least {} in 60 s, most in one: {}",
            thousands(sum),
            thousands(most)
        );
        parts::heading(buffer, area, &head, theme);
        let bars = Rect {
            y: area.y + 1,
            height: area.height - 3,
            ..area
        };
        chart::draw(bars, buffer, &closes, scale, most, theme);
        let labels = parts::line(area, usize::from(area.height) - 2);
        put(
            buffer,
            labels,
            &chart::labels(closes.len(), scale),
            theme.faint(),
        );
        let remark = if area.width >= 124 {
            "at least: resets, closes that the peer began and pairs that were used again leave no TIME-WAIT, and none names its process"
        } else {
            "at least: resets, the peer's closes, reused pairs leave none; no process told"
        };
        let last = usize::from(area.height) - 1;
        parts::write(buffer, area, last, remark, theme.faint(), theme);
    }
}

impl Tab for Closings {
    fn act(&mut self, action: Action, view: &View<'_>) -> Vec<Request> {
        if action == Action::Open {
            return self.open();
        }
        let page = Areas::new(view.body).page();
        self.cursor.act(action, self.ages.groups.len(), page);
        Vec::new()
    }

    fn click(&mut self, at: Position, view: &View<'_>) -> Vec<Request> {
        let area = Areas::new(view.body).holders;
        if !area.contains(at) {
            return Vec::new();
        }
        let row = usize::from(at.y - area.y).checked_sub(1);
        let hit = row.map(|row| row + self.cursor.top);
        match hit.filter(|hit| *hit < self.ages.groups.len()) {
            Some(hit) if hit == self.cursor.at => self.open(),
            Some(hit) => {
                self.cursor.at = hit;
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn looked(&mut self, view: &View<'_>) {
        let look = view.look;
        let of = (look.taken, look.frame, look.total());
        if self.of != Some(of) {
            let chosen = self.ages.groups.get(self.cursor.at).map(|group| group.key);
            self.ages.gather(look);
            self.of = Some(of);
            // The chosen one stays chosen, wherever it stands now.
            let groups = &self.ages.groups;
            if let Some(at) = groups.iter().position(|group| Some(group.key) == chosen) {
                self.cursor.at = at;
            }
        }
        let page = Areas::new(view.body).page();
        self.cursor.fit(self.ages.groups.len(), page);
    }

    fn draw(&self, area: Rect, buffer: &mut Buffer, view: &View<'_>) {
        let areas = Areas::new(area);
        self.chart(areas.chart, buffer, view);
        self.who(areas.who, buffer, view);
        self.table(areas.ages, buffer, view);
        self.holders(areas.holders, buffer, view);
    }
}
