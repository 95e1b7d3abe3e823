//! Colours and signs. Meaning never rests on a colour; every pair of colours that is used together is readable on a dark
//! and on a light background, and running text keeps the terminal's own.

use ratatui::style::{Color, Modifier, Style};

use crate::model::Severity;

/// How a terminal shows things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// whether it shows more than ASCII
    pub unicode: bool,
    /// whether to colour
    pub colour: bool,
}

impl Theme {
    /// A heading or name.
    pub const fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What may be passed over.
    pub const fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// The chosen line.
    pub const fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// A word that says how bad something is; the word itself says it too.
    pub fn severity(self, severity: Severity) -> Style {
        if !self.colour {
            return match severity {
                Severity::Critical => self.strong().add_modifier(Modifier::REVERSED),
                Severity::Warning => self.strong(),
                Severity::Info => Style::new(),
            };
        }
        match severity {
            // Both colours are set, so that the background of the terminal does not matter.
            Severity::Critical => self.strong().fg(Color::White).bg(Color::Red),
            Severity::Warning => self.strong().fg(Color::Black).bg(Color::Yellow),
            Severity::Info => Style::new().fg(Color::Black).bg(Color::Cyan),
        }
    }

    /// What is wrong in what was typed, or could not be done.
    pub fn error(self) -> Style {
        self.severity(Severity::Critical)
    }

    /// The eighths of a column, of bars and sparklines, from the least to a full one.
    pub const fn levels(self) -> &'static [char] {
        if self.unicode {
            &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        } else {
            &['_', '.', ':', '-', '=', '+', '*', '#']
        }
    }

    /// A sign, and what stands for it where only ASCII is shown.
    pub const fn sign(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.unicode { unicode } else { ascii }
    }

    /// Counts as a sparkline, each against the highest; a blank where nothing is known, and what is there is seen.
    pub fn sparkline(self, series: &[Option<u64>]) -> String {
        let most = series.iter().flatten().copied().max().unwrap_or(0).max(1);
        let levels = self.levels();
        let sign = |count: &Option<u64>| match count {
            None | Some(0) => ' ',
            Some(n) => {
                let level = (u128::from(*n) * levels.len() as u128).div_ceil(u128::from(most));
                let at = usize::try_from(level)
                    .unwrap_or(levels.len())
                    .saturating_sub(1);
                levels.get(at).copied().unwrap_or(' ')
            }
        };
        series.iter().map(sign).collect()
    }

    /// A bar of `part` against `whole` in at most `room` columns; what is there is seen.
    pub fn bar(self, part: u64, whole: u64, room: usize) -> String {
        let columns = (u128::from(part) * room as u128).div_ceil(u128::from(whole.max(1)));
        let columns = usize::try_from(columns).unwrap_or(room).min(room);
        self.sign("█", "#").repeat(columns)
    }
}
