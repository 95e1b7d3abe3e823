//! The help: the table of keys, as it is.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Clear, Widget};

use crate::tui::cursor::Cursor;
use crate::tui::draw::{put, put_cut};
use crate::tui::keys;
use crate::tui::theme::Theme;

/// The lines of the help: headings, and keys with what they do.
pub fn lines() -> Vec<(bool, String)> {
    let mut lines = Vec::new();
    for (scope, bindings) in keys::by_scope() {
        if !lines.is_empty() {
            lines.push((false, String::new()));
        }
        lines.push((true, scope.heading().to_owned()));
        for binding in bindings {
            let names = keys::names(binding);
            lines.push((false, format!("  {names:<15}{}", binding.help)));
        }
    }
    lines
}

/// Draws the lines from the cursor on over `area`.
pub fn draw(cursor: Cursor, area: Rect, buffer: &mut Buffer, theme: Theme) {
    Clear.render(area, buffer);
    let lines = lines();
    let head = Rect { height: 1, ..area };
    put(
        buffer,
        head,
        &theme.sign("─", "-").repeat(usize::from(area.width)),
        theme.faint(),
    );
    let page = usize::from(area.height.saturating_sub(1));
    let left = lines.len().saturating_sub(cursor.top + page);
    let more = if left > 0 {
        format!(", PgDn: {left} more lines")
    } else {
        String::new()
    };
    let title = format!(" keys: Esc closes{more} ");
    put(
        buffer,
        Rect::new(area.x + 2, area.y, area.width.saturating_sub(2), 1),
        &title,
        theme.strong(),
    );
    for (y, (heading, line)) in (area.y + 1..area.bottom()).zip(lines.into_iter().skip(cursor.top))
    {
        let style = if heading {
            theme.strong()
        } else {
            Style::new()
        };
        put_cut(
            buffer,
            Rect::new(area.x, y, area.width, 1),
            &line,
            style,
            theme,
        );
    }
}
