//! The states in compact columns: count, change since the look before, the last five minutes.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;

use crate::model::words::thousands;
use crate::model::{Severity, TcpState};
use crate::render::text::width;
use crate::tui::draw::put;
use crate::tui::look::Look;
use crate::tui::tabs::{View, parts};
use parts::Trouble;

/// The states, what is many first, then what passes and what is rare.
pub const ORDER: [TcpState; TcpState::SHOWN.len()] = [
    TcpState::Established,
    TcpState::TimeWait,
    TcpState::CloseWait,
    TcpState::Listen,
    TcpState::SynSent,
    TcpState::SynReceived,
    TcpState::FinWait1,
    TcpState::FinWait2,
    TcpState::LastAck,
    TcpState::Closing,
    TcpState::Closed,
    TcpState::BoundInactive,
];

/// The least columns of a column with names of twelve and of fourteen letters.
const LEAST: u16 = 32;

fn columns(width: u16) -> usize {
    if width >= 2 * LEAST { 2 } else { 1 }
}

/// The states below each other.
pub fn rows(width: u16) -> usize {
    ORDER.len().div_ceil(columns(width))
}

/// The lines that they need.
pub fn height(width: u16, look: &Look) -> usize {
    1 + rows(width) + usize::from(look.unknown_states > 0)
}

/// The places of the columns.
fn places(area: Rect) -> Vec<Rect> {
    let below = Rect {
        y: area.y.saturating_add(1),
        height: area.height.saturating_sub(1),
        ..area
    };
    if columns(area.width) == 1 {
        return vec![below];
    }
    // The longer name is in the right one.
    let left = (area.width - 1) / 2 - 1;
    let right = Rect {
        x: below.x + left + 1,
        width: below.width - left - 1,
        ..below
    };
    vec![
        Rect {
            width: left,
            ..below
        },
        right,
    ]
}

/// The place in [`ORDER`] of the state at a place on the screen.
pub fn at(area: Rect, place: Position) -> Option<usize> {
    let rows = rows(area.width);
    let mut columns = places(area).into_iter().enumerate();
    let (n, column) = columns.find(|(_, column)| column.contains(place))?;
    let row = usize::from(place.y - column.y);
    let at = n * rows + row;
    (row < rows && at < ORDER.len()).then_some(at)
}

/// Draws them.
pub fn draw(
    area: Rect,
    buffer: &mut Buffer,
    chosen: Option<usize>,
    troubles: &[Trouble; TcpState::SHOWN.len()],
    view: &View<'_>,
) {
    let theme = view.theme;
    let count = |state| match view.look.of(state) {
        Some(n) => thousands(n),
        None => "?".to_owned(),
    };
    let change = |state| parts::change(view.trend.change(state));
    let widest = |text: &dyn Fn(TcpState) -> String, least: usize| {
        let widths = ORDER.iter().map(|state| width(&text(*state)));
        widths.max().unwrap_or(0).max(least)
    };
    let (count_room, change_room) = (widest(&count, 7), widest(&change, 6));
    let rows = rows(area.width);
    for (n, place) in places(area).into_iter().enumerate() {
        let own = ORDER.iter().enumerate().skip(n * rows).take(rows);
        let names = own.clone().map(|(_, state)| width(&state.to_string()));
        let name_room = names.max().unwrap_or(0);
        let used = 3 + name_room + 1 + count_room + 1 + change_room + 1;
        let spark_room = usize::from(place.width).saturating_sub(used + 1);
        if n == 0 {
            let head = format!(
                "   {:<name_room$} {:>count_room$} {:>change_room$} {}",
                "States",
                "sockets",
                "change",
                if spark_room >= 12 {
                    "last 5 min"
                } else {
                    "5 min"
                }
            );
            parts::heading(buffer, area, &head, theme);
        }
        for (row, (at, state)) in own.enumerate() {
            let line = parts::line(place, row);
            let index = state.index().unwrap_or(usize::MAX);
            let trouble = troubles.get(index).copied().unwrap_or_default();
            let sign = match trouble.worst {
                Some(Severity::Critical) => "!!",
                Some(Severity::Warning) => " !",
                Some(Severity::Info) => " i",
                None => "  ",
            };
            let is_chosen = chosen == Some(at);
            let mark = if is_chosen { ">" } else { " " };
            let text = format!(
                "{mark}{sign}{:<name_room$} {:>count_room$} {:>change_room$} ",
                state.to_string(),
                count(*state),
                change(*state)
            );
            let style = if is_chosen {
                theme.chosen()
            } else {
                Style::new()
            };
            let text = parts::fit(&text, usize::from(line.width), theme);
            put(buffer, line, &text, style);
            if let Some(severity) = trouble.worst {
                let sign = Rect {
                    x: line.x + 1,
                    width: 2,
                    ..line
                };
                buffer.set_style(sign.intersection(line), theme.severity(severity));
            }
            let spark = Rect {
                x: line
                    .x
                    .saturating_add(u16::try_from(used).unwrap_or(line.width)),
                width: u16::try_from(spark_room).unwrap_or(0),
                ..line
            };
            let series = view.trend.series(*state, spark_room);
            put(
                buffer,
                spark.intersection(line),
                &theme.sparkline(&series),
                Style::new(),
            );
        }
    }
    if view.look.unknown_states > 0 {
        let text = format!(
            "   {} in states that linger does not know",
            crate::model::words::count(view.look.unknown_states, "socket")
        );
        parts::write(buffer, area, 1 + rows, &text, Style::new(), theme);
    }
}
