//! Closes a second as bars, a column each.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::model::words::thousands;
use crate::tui::draw::put;
use crate::tui::tabs::parts;
use crate::tui::theme::Theme;

/// The columns left of the bars.
pub const LABEL: usize = 7;

/// Seconds that are remembered.
pub const SECONDS: usize = 600;

/// How many columns a second has in so much room.
pub fn scale(seconds: usize, room: usize) -> usize {
    room.checked_div(seconds).unwrap_or(1).clamp(1, 3)
}

/// Draws the bars, each `scale` columns wide, the last second at the right; `·` where nothing is known, blank where nothing
/// closed.
pub fn draw(
    area: Rect,
    buffer: &mut Buffer,
    closes: &[Option<u32>],
    scale: usize,
    most: u32,
    theme: Theme,
) {
    let levels = theme.levels();
    let eighths = levels.len() as u64;
    let rows = u64::from(area.height);
    let axis = theme.sign("│", "|");
    for row in 0..area.height {
        // From below, in eighths of a row.
        let floor = u64::from(area.height - 1 - row) * eighths;
        let label = match row {
            0 if most > 0 => thousands(most),
            row if row + 1 == area.height => "0".to_owned(),
            _ => String::new(),
        };
        let mut text = format!("{label:>0$}{axis}", LABEL - 1);
        let sign = |closes: &Option<u32>| {
            let Some(n) = closes else {
                let bottom = floor == 0;
                return if bottom && theme.unicode {
                    '·'
                } else if bottom {
                    '?'
                } else {
                    ' '
                };
            };
            let height = (u64::from(*n) * rows * eighths).div_ceil(u64::from(most.max(1)));
            let above = height.saturating_sub(floor).min(eighths);
            let level = usize::try_from(above).unwrap_or(0).checked_sub(1);
            level
                .and_then(|level| levels.get(level))
                .copied()
                .unwrap_or(' ')
        };
        text.extend(
            closes
                .iter()
                .flat_map(|closes| std::iter::repeat_n(sign(closes), scale)),
        );
        put(
            buffer,
            parts::line(area, usize::from(row)),
            &text,
            Style::new(),
        );
    }
}

/// How many seconds ago, below the bars of so many seconds.
pub fn labels(seconds: usize, scale: usize) -> String {
    let step = match seconds {
        0..=30 => 10,
        31..=150 => 30,
        _ => 60,
    };
    let mut line = vec![' '; LABEL + seconds * scale];
    let mut write = |ago: usize, text: &str| {
        // The last sign of the label stands below its second.
        let Some(end) = (LABEL + seconds * scale).checked_sub(ago * scale) else {
            return;
        };
        let Some(from) = end.checked_sub(text.len()) else {
            return;
        };
        for (slot, c) in line.iter_mut().skip(from).zip(text.chars()) {
            *slot = c;
        }
    };
    for ago in (step..seconds).step_by(step) {
        write(ago, &format!("{ago}s ago"));
    }
    write(0, "now");
    line.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(closes: &[Option<u32>], most: u32, unicode: bool) -> String {
        let area = Rect::new(0, 0, 14, 2);
        let mut buffer = Buffer::empty(area);
        let theme = Theme {
            unicode,
            colour: false,
        };
        draw(area, &mut buffer, closes, 1, most, theme);
        crate::tui::page::text(&buffer, false)
    }

    #[test]
    fn a_column_is_a_second_and_unknown_is_not_none() {
        let closes = [None, Some(0), Some(16), Some(8), Some(1), Some(12)];
        assert_eq!(drawn(&closes, 16, true), "    16│  █  ▄\n     0│· ██▁█\n");
        assert_eq!(drawn(&closes, 16, false), "    16|  #  -\n     0|? ##_#\n");
        assert_eq!(drawn(&[Some(0)], 0, true), "      │\n     0│\n");
    }

    #[test]
    fn labels_end_below_their_second() {
        let line = labels(72, 1);
        assert!(line.ends_with("now"));
        assert_eq!(line.find("60s ago").unwrap() + 7, LABEL + 72 - 60);
        assert_eq!(labels(0, 1).trim_end().len(), LABEL);
        assert!(labels(60, 3).ends_with("now"));
        assert_eq!(labels(60, 3).find("30s ago").unwrap() + 7, LABEL + 90);
        assert!(labels(600, 1).contains("540s ago"));
    }
}
