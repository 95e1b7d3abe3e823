//! A frame as text, for a pipe.

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

/// The lines of a frame without the blanks at their ends, and without the empty lines at the end; with `colour`, as a
/// terminal shows them.
pub fn text(buffer: &Buffer, colour: bool) -> String {
    let mut page = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let mut line = String::new();
        let (mut style, mut end, mut wide) = (Style::new(), 0, 0);
        for x in buffer.area.left()..buffer.area.right() {
            let Some(cell) = buffer.cell((x, y)) else {
                continue;
            };
            // The columns that a wide sign takes hold a blank each.
            if wide > 0 {
                wide -= 1;
                continue;
            }
            wide = crate::render::text::width(cell.symbol()).saturating_sub(1);
            let own = Style::new()
                .fg(cell.fg)
                .bg(cell.bg)
                .add_modifier(cell.modifier);
            if colour && own != style {
                line.push_str(&sgr(own));
                style = own;
            }
            line.push_str(cell.symbol());
            if cell.symbol() != " "
                || (colour && (cell.bg != Color::Reset || !cell.modifier.is_empty()))
            {
                end = line.len();
            }
        }
        line.truncate(end);
        if colour && line.contains('\x1b') {
            line.push_str("\x1b[0m");
        }
        page.push_str(&line);
        page.push('\n');
    }
    let end = page.trim_end_matches('\n').len();
    page.truncate(end);
    page.push('\n');
    page
}

/// The escape sequence that sets a style, whatever was set before. Only what [`super::Theme`] uses.
fn sgr(style: Style) -> String {
    let mut codes = String::from("0");
    let modifiers = [
        (Modifier::BOLD, ";1"),
        (Modifier::DIM, ";2"),
        (Modifier::UNDERLINED, ";4"),
        (Modifier::REVERSED, ";7"),
    ];
    for (modifier, code) in modifiers {
        if style.add_modifier.contains(modifier) {
            codes.push_str(code);
        }
    }
    for (colour, base) in [(style.fg, 30), (style.bg, 40)] {
        let number = match colour {
            Some(Color::Black) => 0,
            Some(Color::Red) => 1,
            Some(Color::Green) => 2,
            Some(Color::Yellow) => 3,
            Some(Color::Blue) => 4,
            Some(Color::Magenta) => 5,
            Some(Color::Cyan) => 6,
            Some(Color::White) => 67,
            _ => continue,
        };
        codes.push_str(&format!(";{}", base + number));
    }
    format!("\x1b[{codes}m")
}
