//! A line that is typed at the foot of the screen.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::widgets::{Clear, Widget};

use crate::fields;
use crate::render::text;
use crate::tui::draw::{Layout, put, put_cut};
use crate::tui::keys::Action;
use crate::tui::look::Frame;
use crate::tui::msg::Seek;
use crate::tui::prompt::Line;
use crate::tui::theme::Theme;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// a filter
    Filter,
    /// the column to sort by
    Sort,
    /// the file to write
    Export,
    /// a place in the recording
    Seek,
}

impl Asking {
    /// What stands before the line.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Filter => "/",
            Self::Sort => "sort by: ",
            Self::Export => "write to: ",
            Self::Seek => "go to: ",
        }
    }

    /// What may be typed, as [`text::wrap`] takes it.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Filter => {
                "state\u{a0}close-wait, dst\u{a0}10.0.0.0/8, sport\u{a0}=\u{a0}:443, age\u{a0}>\u{a0}5min; nothing:\u{a0}all"
            }
            Self::Sort => "[-]COLUMN; Tab completes",
            Self::Export => "FILE.json: what is seen; FILE.linger: a capture of this machine",
            Self::Seek => "14:03:11, +30s, -1min, or the number of a frame",
        }
    }
}

/// A line that is typed, and for what.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// what is asked for
    pub asking: Asking,
    /// what is typed
    pub line: Line,
    /// what is wrong with it; several lines, safe to print
    pub error: Option<String>,
    /// how far back in what was typed before
    back: usize,
}

impl Prompt {
    /// A line that begins with `text`.
    pub fn new(asking: Asking, text: &str, error: Option<String>) -> Self {
        Self {
            asking,
            line: Line::new(text),
            error,
            back: 0,
        }
    }

    /// Puts text in.
    pub fn insert(&mut self, text: &str) {
        self.error = None;
        self.line.insert(text);
    }

    /// Edits the line.
    pub fn act(&mut self, action: Action) {
        self.error = None;
        if action == Action::Complete {
            self.complete();
        } else {
            self.line.act(action);
        }
    }

    /// What was typed before, or after that.
    pub fn recall(&mut self, earlier: bool, typed: &[(Asking, String)]) {
        let own: Vec<&String> = typed
            .iter()
            .filter(|(asking, _)| *asking == self.asking)
            .map(|(_, text)| text)
            .collect();
        self.back = if earlier {
            (self.back + 1).min(own.len())
        } else {
            self.back.saturating_sub(1)
        };
        let text = own.len().checked_sub(self.back).and_then(|at| own.get(at));
        self.line = Line::new(text.map_or("", |text| text.as_str()));
        self.error = None;
    }

    /// Draws the line at the foot of the screen, with what may be typed, or what is wrong, above it; says where the cursor
    /// stands.
    pub fn draw(&self, layout: Layout, buffer: &mut Buffer, theme: Theme) -> Position {
        let hint = text::wrap(self.asking.hint(), usize::from(layout.foot.width), 0);
        let said: Vec<&str> = self.error.as_ref().unwrap_or(&hint).lines().collect();
        let height = u16::try_from(said.len())
            .unwrap_or(1)
            .min(layout.body.height);
        let above = Rect::new(
            0,
            layout.foot.y.saturating_sub(height),
            layout.foot.width,
            height,
        );
        Clear.render(above, buffer);
        Clear.render(layout.foot, buffer);
        let style = if self.error.is_some() {
            theme.strong()
        } else {
            theme.faint()
        };
        // An error's lines stand one below the other: a caret below its word, which is seen however long the line is.
        let caret = said.iter().position(|line| is_caret(line));
        let width = caret
            .and_then(|at| said.get(at))
            .map_or(0, |line| text::width(line));
        let beside = match width.saturating_sub(usize::from(above.width)) {
            0 => 0,
            columns => columns + 1,
        };
        for ((y, n), line) in (above.y..above.bottom()).zip(0..).zip(said) {
            let pair = caret.is_some_and(|caret| n == caret || n + 1 == caret);
            let line = if pair { behind(line, beside) } else { line };
            let at = Rect::new(0, y, above.width, 1);
            put_cut(buffer, at, line, style, theme);
        }
        let label = self.asking.label();
        let room = usize::from(layout.foot.width).saturating_sub(text::width(label) + 1);
        let (before, after) = self.line.halves();
        // A line that is longer than the screen is seen where it is typed.
        let seen = behind(before, text::width(before).saturating_sub(room));
        put(
            buffer,
            layout.foot,
            &format!("{label}{seen}{after}"),
            Style::new(),
        );
        let x = text::width(label) + text::width(seen);
        Position::new(
            u16::try_from(x)
                .unwrap_or(u16::MAX)
                .min(layout.foot.right().saturating_sub(1)),
            layout.foot.y,
        )
    }

    /// Completes the word before the cursor to a column, as far as it is only one, or as they begin alike.
    fn complete(&mut self) {
        if !matches!(self.asking, Asking::Filter | Asking::Sort) {
            return;
        }
        let (before, _) = self.line.halves();
        let word = before.rsplit([' ', '(']).next().unwrap_or_default();
        let word = word.trim_start_matches('-');
        if word.is_empty() {
            return;
        }
        let ids = fields::ALL.iter().map(|field| field.id);
        let fit: Vec<&str> = ids.filter(|id| id.starts_with(word)).collect();
        let Some(first) = fit.first() else {
            return;
        };
        let alike = fit.iter().fold(first.len(), |alike, id| {
            let same = first.bytes().zip(id.bytes()).take_while(|(a, b)| a == b);
            alike.min(same.count())
        });
        let rest = first.get(word.len()..alike).unwrap_or_default().to_owned();
        self.line.insert(&rest);
    }
}

fn is_caret(line: &str) -> bool {
    line.trim_start().starts_with('^')
}

/// What stands behind the first `columns` of a line.
fn behind(line: &str, columns: usize) -> &str {
    let mut from = 0;
    while let Some((left, rest)) = line.split_at_checked(from)
        && text::width(left) < columns
        && let Some(next) = rest.chars().next()
    {
        from += next.len_utf8();
    }
    line.get(from..).unwrap_or_default()
}

/// Where to in the recording: the number of a frame from 1, a time of the day on the reader's clock, or a time from the
/// frame that is seen, which was taken at the given moment.
///
/// # Errors
/// What is wrong with `text`.
pub fn seek(
    text: &str,
    (frame, taken): (Frame, Timestamp),
    zone: &TimeZone,
) -> Result<Seek, String> {
    let wrong = || {
        format!(
            "'{}' is no place in a recording: {}",
            text::Safe(text),
            Asking::Seek.hint()
        )
    };
    if let Ok(number) = text.parse::<usize>() {
        return match number.checked_sub(1) {
            Some(index) if index < frame.of => Ok(Seek::To(index)),
            _ => Err(format!("frames are numbered from 1 to {}", frame.of)),
        };
    }
    if let Some(step) = text
        .strip_prefix('+')
        .map(|rest| (rest, 1))
        .or_else(|| text.strip_prefix('-').map(|rest| (rest, -1)))
    {
        let (rest, sign) = step;
        let step: SignedDuration = rest.trim().parse().map_err(|_| wrong())?;
        let at = taken
            .checked_add(step.checked_mul(sign).ok_or_else(wrong)?)
            .map_err(|_| wrong())?;
        return Ok(Seek::At(at));
    }
    let time: jiff::civil::Time = text.parse().map_err(|_| wrong())?;
    // The day is that of the frame which is seen, or where that day's time is outside of the recording, the next or the one
    // before.
    let day = taken.to_zoned(zone.clone());
    let same = day.with().time(time).build().map_err(|_| wrong())?;
    let shift = if same.timestamp() < frame.first {
        1
    } else if same.timestamp() > frame.last {
        -1
    } else {
        0
    };
    let at = same
        .checked_add(jiff::Span::new().days(shift))
        .map_err(|_| wrong())?;
    Ok(Seek::At(at.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn to(text: &str) -> Result<Seek, String> {
        // Half a minute before midnight, ten minutes long.
        let (first, last) = (at(86_400 - 30), at(86_400 + 570));
        let frame = Frame {
            index: 3,
            of: 600,
            first,
            last,
        };
        seek(text, (frame, at(86_400)), &TimeZone::UTC)
    }

    #[test]
    fn places_in_a_recording() {
        assert_eq!(to("1"), Ok(Seek::To(0)));
        assert_eq!(to("600"), Ok(Seek::To(599)));
        assert_eq!(to("+30s"), Ok(Seek::At(at(86_430))));
        assert_eq!(to("-1min"), Ok(Seek::At(at(86_340))));
        assert_eq!(to("23:59:40"), Ok(Seek::At(at(86_380))));
        assert_eq!(to("00:01:00"), Ok(Seek::At(at(86_460))), "after midnight");
        for wrong in ["0", "601", "", "soon", "+", "25:00"] {
            assert!(to(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_are_completed_as_far_as_they_are_sure() {
        let mut prompt = Prompt::new(Asking::Sort, "-local-p", None);
        prompt.act(Action::Complete);
        assert_eq!(prompt.line.text(), "-local-port");
        let mut prompt = Prompt::new(Asking::Filter, "state estab coo", None);
        prompt.act(Action::Complete);
        assert_eq!(prompt.line.text(), "state estab cookie");
    }

    #[test]
    fn what_was_typed_comes_back() {
        let typed = vec![
            (Asking::Filter, "a".to_owned()),
            (Asking::Sort, "x".to_owned()),
            (Asking::Filter, "b".to_owned()),
        ];
        let mut prompt = Prompt::new(Asking::Filter, "", None);
        let mut seen = Vec::new();
        for earlier in [true, true, true, false, false] {
            prompt.recall(earlier, &typed);
            seen.push(prompt.line.text().to_owned());
        }
        assert_eq!(seen, ["b", "a", "a", "b", ""]);
    }
}
