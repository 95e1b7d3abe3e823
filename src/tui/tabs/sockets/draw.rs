//! The tab as it is seen.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;

use super::columns::{self, Placed, Shown};
use super::detail::Detail;
use super::grouping::Grouping;
use super::{Sockets, View};
use crate::fields::{Align, Field};
use crate::model::words::{count, percent, thousands};
use crate::render::cell;
use crate::render::text::{self, Safe, wrap};
use crate::tui::draw::put;
use crate::tui::look::{Look, Row};
use crate::tui::theme::Theme;

/// From so many columns on, what is known of a socket stands beside the list.
const BESIDE: u16 = 120;
/// The most lines of what is followed.
const FOLLOWED: usize = 3;

/// The parts of the tab.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    /// what is listed
    title: Rect,
    /// the headings
    pub(super) heads: Rect,
    /// the list
    pub(super) rows: Rect,
    /// what became of what is followed
    followed: Rect,
    followed_text: Vec<String>,
    /// the frame of the pane
    rule: Option<Rect>,
    /// the pane
    pub(super) detail: Option<Rect>,
    shown: Shown,
}

impl Sockets {
    pub(super) fn parts(&self, view: &View<'_>) -> Parts {
        let body = view.body;
        let mut left = body;
        let (mut rule, mut detail) = (None, None);
        if self.detail.is_some() && body.width >= BESIDE {
            let width = (body.width / 5 * 2).clamp(46, 90);
            left.width = body.width - width - 2;
            rule = Some(Rect::new(left.right(), body.y, 1, body.height));
            detail = Some(Rect::new(left.right() + 2, body.y, width, body.height));
        } else if self.detail.is_some() && body.height >= 6 {
            let height = body.height * 3 / 5;
            left.height = body.height - height;
            rule = Some(Rect::new(body.x, left.bottom(), body.width, 1));
            detail = Some(Rect::new(
                body.x,
                left.bottom() + 1,
                body.width,
                height.saturating_sub(1),
            ));
        }
        let followed_text: Vec<String> = self.followed.as_ref().map_or_else(Vec::new, |followed| {
            let text = followed.text(view.zone, view.theme);
            let text = wrap(&text, usize::from(left.width), 0);
            text.lines().take(FOLLOWED).map(str::to_owned).collect()
        });
        let lines = u16::try_from(followed_text.len()).unwrap_or(0);
        let lines = lines.min(left.height.saturating_sub(3));
        let line = |y: u16, height: u16| {
            Rect::new(left.x, left.y + y, left.width, height).intersection(left)
        };
        let rows = left.height.saturating_sub(2 + lines);
        let room = left.width.saturating_sub(1);
        let sorted = self.order.map(|order| order.field);
        Parts {
            title: line(0, 1),
            heads: line(1, 1),
            rows: line(2, rows),
            followed: line(2 + rows, lines),
            followed_text,
            rule,
            detail,
            shown: columns::place(
                &self.shown,
                (self.pinned, self.shift),
                &self.widths,
                sorted,
                room,
            ),
        }
    }

    /// The column whose heading is at a place.
    pub(super) fn column_at(&self, at: Position, parts: &Parts) -> Option<&'static Field> {
        // A sign for the chosen line stands before them.
        let x = at.x.checked_sub(parts.heads.x + 1)?;
        let placed = parts.shown.placed.iter();
        placed
            .take_while(|column| column.x <= x)
            .last()
            .map(|column| column.field)
    }

    fn seen(&self, page: usize) -> impl Iterator<Item = (usize, Row)> {
        let rows = self.rows.iter().copied().enumerate();
        rows.skip(self.cursor.top).take(page)
    }

    /// Lets the columns grow with what is on the screen.
    pub(super) fn measure(&mut self, look: &Look, page: usize) {
        if self.groups().is_some() {
            return;
        }
        let mut text = String::new();
        let mut widths = std::mem::take(&mut self.widths);
        for (_, row) in self.seen(page) {
            look.record(row, |record| {
                for field in &self.shown {
                    text.clear();
                    // Writing to a String does not fail.
                    let _ = cell::write(&mut text, &field.value(record), false);
                    widths.grow(field, text::width(&text));
                }
            });
        }
        self.widths = widths;
    }

    pub(super) fn paint(&self, area: Rect, buffer: &mut Buffer, view: &View<'_>) {
        let view = &View {
            body: area,
            ..*view
        };
        let parts = self.parts(view);
        self.title(&parts, buffer, view);
        match self.groups() {
            Some(grouping) => groups(grouping, &parts, buffer, view.theme),
            None => self.table(&parts, buffer, view),
        }
        for (y, line) in (parts.followed.y..parts.followed.bottom()).zip(&parts.followed_text) {
            let area = Rect::new(parts.followed.x, y, parts.followed.width, 1);
            put(buffer, area, line, view.theme.strong());
        }
        if let (Some(rule), Some(area), Some(detail)) = (parts.rule, parts.detail, &self.detail) {
            pane(detail, (rule, area), buffer, view.theme);
        }
    }

    fn title(&self, parts: &Parts, buffer: &mut Buffer, view: &View<'_>) {
        let theme = view.theme;
        let total = view.look.rows_len();
        let listed = self
            .groups()
            .map_or(self.rows.len() as u64, |own| own.total);
        let mut text = if listed == total {
            count(total, "socket")
        } else {
            format!("{} of {}", thousands(listed), count(total, "socket"))
        };
        if let Some(grouping) = &self.grouping {
            let by = grouping.field.id;
            text.push_str(&match &grouping.opened {
                Some(cell) => format!("  {by} = {cell} (Esc: groups)"),
                None => format!(
                    "  in {} by {by} (Enter opens, Esc: no groups)",
                    count(grouping.groups.len() as u64, "group")
                ),
            });
        }
        if !self.text.is_empty() {
            text.push_str(&format!("  filter (Esc: all): {}", Safe(&self.text)));
        }
        let beside = self.shift + parts.shown.behind;
        let mut right = String::new();
        if self.groups().is_none() {
            if let Some(order) = self.order
                && !(parts.shown.placed.iter()).any(|column| column.field == order.field)
            {
                let way = arrow(order.descending, theme);
                right = format!("  sorted by {}{way}", order.field.id);
            }
            if beside > 0 {
                right.push_str(&format!(
                    "  {}{beside} more columns{}",
                    if self.shift > 0 { "<" } else { "" },
                    if parts.shown.behind > 0 { ">" } else { "" }
                ));
            }
        }
        let room = usize::from(parts.title.width).saturating_sub(text::width(&right));
        let text = columns::cut(&text, room, false, theme);
        put(buffer, parts.title, &text, theme.strong());
        let width = u16::try_from(text::width(&right)).unwrap_or(0);
        let x = parts.title.right().saturating_sub(width).max(parts.title.x);
        put(
            buffer,
            Rect::new(x, parts.title.y, width, 1).intersection(parts.title),
            &right,
            theme.faint(),
        );
    }

    fn table(&self, parts: &Parts, buffer: &mut Buffer, view: &View<'_>) {
        let (theme, look) = (view.theme, view.look);
        for column in &parts.shown.placed {
            let mut head = columns::heading(column.field).to_owned();
            if let Some(order) = self.order.filter(|order| order.field == column.field) {
                head.push_str(arrow(order.descending, theme));
            }
            let style = theme.strong();
            write(&head, column, parts.heads, style, buffer, theme);
        }
        if self.rows.is_empty() {
            return self.nothing(parts.rows, buffer, view);
        }
        let followed = self.followed.as_ref().map(|followed| followed.id);
        let mut text = String::new();
        let page = usize::from(parts.rows.height);
        for (y, (_, row)) in (parts.rows.y..parts.rows.bottom()).zip(self.seen(page)) {
            let line = Rect::new(parts.rows.x, y, parts.rows.width, 1);
            let chosen = self.row == Some(row);
            let style = if chosen { theme.chosen() } else { Style::new() };
            let sign = match followed {
                Some(id) if id.is(look, row) => theme.sign("●", "*"),
                _ if chosen => theme.sign("▸", ">"),
                _ => " ",
            };
            buffer.set_style(line, style);
            put(buffer, line, sign, style);
            look.record(row, |record| {
                for column in &parts.shown.placed {
                    text.clear();
                    // Writing to a String does not fail.
                    let _ = cell::write(&mut text, &column.field.value(record), false);
                    write(&text, column, line, style, buffer, theme);
                }
            });
        }
    }

    /// Says that nothing is listed, and how to come back.
    fn nothing(&self, area: Rect, buffer: &mut Buffer, view: &View<'_>) {
        let mut lines = Vec::new();
        if let Some(cell) = self.grouping.as_ref().and_then(|own| own.opened.as_ref()) {
            lines.push(format!("no socket is in the group {cell} any more"));
            lines.push("Esc goes back to the groups".to_owned());
        } else if self.text.is_empty() {
            lines.push("there is no TCP socket".to_owned());
        } else {
            lines.push(format!("no socket fits '{}'", Safe(&self.text)));
            lines.push("Esc forgets the filter, / changes it".to_owned());
        }
        if !view.look.coverage.complete() {
            lines.push("not everything was seen: see the overview".to_owned());
        }
        for (y, line) in (area.y..area.bottom()).zip(&lines) {
            put(
                buffer,
                Rect::new(area.x, y, area.width, 1),
                line,
                Style::new(),
            );
        }
    }
}

const fn arrow(descending: bool, theme: Theme) -> &'static str {
    if descending {
        theme.sign("▼", "v")
    } else {
        theme.sign("▲", "^")
    }
}

/// Writes a cell into its column of a line.
fn write(text: &str, column: &Placed, line: Rect, style: Style, buffer: &mut Buffer, theme: Theme) {
    let end = matches!(column.field.id, "local" | "peer");
    let text = columns::cut(text, usize::from(column.width), end, theme);
    let gap = match column.field.align {
        Align::Left => 0,
        Align::Right => usize::from(column.width).saturating_sub(text::width(&text)),
    };
    let gap = u16::try_from(gap).unwrap_or(0);
    // A sign for the chosen line stands before the first column.
    let x = (line.x + 1).saturating_add(column.x).saturating_add(gap);
    let width = column.width.saturating_sub(gap);
    put(
        buffer,
        Rect::new(x, line.y, width, 1).intersection(line),
        &text,
        style,
    );
}

fn groups(grouping: &Grouping, parts: &Parts, buffer: &mut Buffer, theme: Theme) {
    let most = grouping.groups.first().map_or(1, |group| group.sockets);
    let bar = usize::from(parts.rows.width / 4).clamp(6, 40);
    let head = format!(
        "  {:>9} {:>5}  {:<bar$}  {}",
        "Sockets",
        "Share",
        "",
        columns::heading(grouping.field)
    );
    put(buffer, parts.heads, &head, theme.strong());
    if grouping.groups.is_empty() {
        let text = "no socket fits; Esc goes back";
        put(buffer, parts.rows, text, Style::new());
    }
    let seen = grouping.groups.iter().enumerate().skip(grouping.cursor.top);
    for (y, (at, group)) in (parts.rows.y..parts.rows.bottom()).zip(seen) {
        let line = Rect::new(parts.rows.x, y, parts.rows.width, 1);
        let chosen = at == grouping.cursor.at;
        let style = if chosen { theme.chosen() } else { Style::new() };
        let sign = if chosen { theme.sign("▸", ">") } else { " " };
        let cell = match group.cell.as_str() {
            "-" => "- (not known, or none)",
            cell => cell,
        };
        let text = format!(
            "{sign} {:>9} {:>4}%  {:<bar$}  {cell}",
            thousands(group.sockets),
            percent(group.sockets, grouping.total),
            theme.bar(group.sockets, most, bar),
        );
        buffer.set_style(line, style);
        let text = columns::cut(&text, usize::from(line.width), false, theme);
        put(buffer, line, &text, style);
    }
}

fn pane(detail: &Detail, (rule, area): (Rect, Rect), buffer: &mut Buffer, theme: Theme) {
    if rule.width > 1 {
        let all = detail.lines.len();
        let top = detail.cursor.top;
        let last = (top + usize::from(area.height)).min(all);
        let dash = theme.sign("─", "-");
        let text = format!(
            "{0}{0} lines {1}-{last} of {all} {0}{0} PgUp PgDn scroll, Esc closes ",
            dash,
            (top + 1).min(last)
        );
        let fill = usize::from(rule.width).saturating_sub(text::width(&text));
        let text = format!("{text}{}", dash.repeat(fill));
        put(buffer, rule, &text, theme.faint());
    } else {
        for y in rule.y..rule.bottom() {
            let area = Rect::new(rule.x, y, 1, 1);
            put(buffer, area, theme.sign("│", "|"), theme.faint());
        }
    }
    let more = (detail.lines.len()).saturating_sub(detail.cursor.top + usize::from(area.height));
    // Below the list the rule says it.
    let area = if more > 0 && rule.width == 1 && area.height > 1 {
        let last = Rect::new(area.x, area.bottom() - 1, area.width, 1);
        let text = format!("{} more lines: PgDn", more + 1);
        put(buffer, last, &text, theme.faint());
        Rect {
            height: area.height - 1,
            ..area
        }
    } else {
        area
    };
    let lines = detail.lines.iter().skip(detail.cursor.top);
    for (y, (strong, line)) in (area.y..area.bottom()).zip(lines) {
        let style = if *strong {
            theme.strong()
        } else {
            Style::new()
        };
        let line = columns::cut(line, usize::from(area.width), false, theme);
        put(buffer, Rect::new(area.x, y, area.width, 1), &line, style);
    }
}
