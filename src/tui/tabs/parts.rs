//! What several tabs draw alike.

use std::borrow::Cow;
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthChar;

use crate::model::{Severity, Story, TcpState};
use crate::render::text::{Safe, Thousands, width, wrap};
use crate::tui::draw::put;
use crate::tui::look::Look;
use crate::tui::theme::Theme;

/// Cuts text, which is safe already, to `room` columns, with a sign that something is left out.
pub fn fit(text: &str, room: usize, theme: Theme) -> Cow<'_, str> {
    if width(text) <= room {
        return Cow::Borrowed(text);
    }
    let sign = theme.sign("…", "~");
    let Some(room) = room.checked_sub(1) else {
        return Cow::Borrowed("");
    };
    let mut used = 0;
    let kept = text.chars().take_while(|c| {
        used += c.width().unwrap_or(0);
        used <= room
    });
    let mut cut: String = kept.collect();
    cut.push_str(sign);
    Cow::Owned(cut)
}

/// Text in `room` columns, cut or filled up with blanks.
pub fn cell(text: &str, room: usize, theme: Theme) -> String {
    let mut cell = fit(text, room, theme).into_owned();
    let blanks = room.saturating_sub(width(&cell));
    cell.extend(std::iter::repeat_n(' ', blanks));
    cell
}

/// The n-th line of `area`; empty below it.
pub fn line(area: Rect, n: usize) -> Rect {
    match u16::try_from(n) {
        Ok(n) if n < area.height => Rect::new(area.x, area.y + n, area.width, 1),
        _ => Rect::new(area.x, area.bottom(), 0, 0),
    }
}

/// Writes text, which is safe already, on the n-th line of `area`, cut where it has no room.
pub fn write(buffer: &mut Buffer, area: Rect, n: usize, text: &str, style: Style, theme: Theme) {
    let line = line(area, n);
    put(
        buffer,
        line,
        &fit(text, usize::from(line.width), theme),
        style,
    );
}

/// A heading with a rule behind it, on the first line of `area`.
pub fn heading(buffer: &mut Buffer, area: Rect, text: &str, theme: Theme) {
    let room = usize::from(area.width);
    let text = fit(text, room.saturating_sub(1), theme);
    write(buffer, area, 0, &text, theme.strong(), theme);
    let used = width(&text) + 1;
    let rest = Rect {
        x: area
            .x
            .saturating_add(u16::try_from(used).unwrap_or(area.width)),
        width: u16::try_from(room.saturating_sub(used)).unwrap_or(0),
        ..area
    };
    let rule = theme.sign("─", "-").repeat(usize::from(rest.width));
    put(buffer, line(rest, 0), &rule, theme.faint());
}

/// Text, which is safe already, as lines of at most `room` columns; the first begins with `label`, the others are indented
/// like it.
pub fn paragraph(label: &str, text: &str, room: usize, theme: Theme) -> Vec<String> {
    let indent = width(label);
    let text = wrap(text, room, indent);
    let lines = text.lines().enumerate().map(|(n, line)| match n {
        0 => fit(&format!("{label}{line}"), room, theme).into_owned(),
        _ => fit(line, room, theme).into_owned(),
    });
    lines.collect()
}

/// `+3`, `-1,204`; nothing where nothing changed or nothing is known.
pub fn change(change: Option<i64>) -> String {
    match change {
        None | Some(0) => String::new(),
        Some(n) => {
            let sign = if n < 0 { '-' } else { '+' };
            format!("{sign}{}", Thousands(n.unsigned_abs()))
        }
    }
}

/// How often something happens. Cut off, not rounded, so that it is a lower bound of what it was made of.
pub fn rate(count: u64, window: Duration, exact: bool, theme: Theme) -> Option<String> {
    let millis = window.as_millis();
    if millis == 0 || (count == 0 && !exact) {
        return None;
    }
    let sign = if exact { "" } else { theme.sign("≥", ">=") };
    let per = |seconds: u128, scale: u128| u128::from(count) * 1000 * seconds * scale / millis;
    let tenths = per(1, 10);
    let text = match (tenths, tenths % 10) {
        (0, _) if count == 0 => "0/s".to_owned(),
        (0, _) if per(60, 1) > 0 => format!("{}/min", per(60, 1)),
        (0, _) => format!("{}/h", per(3600, 1)),
        (1..100, part) if part > 0 => format!("{}.{part}/s", tenths / 10),
        (..100_000, _) => format!("{}/s", tenths / 10),
        (..10_000_000, _) => format!("{}k/s", tenths / 10_000),
        _ => format!("{}M/s", tenths / 10_000_000),
    };
    Some(format!("{sign}{text}"))
}

/// What is found wrong with the sockets of a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// how many findings show sockets in it
    pub findings: usize,
    /// the worst of them
    pub worst: Option<Severity>,
}

impl Trouble {
    /// `!!` for critical, `!` for a warning, with their number if there are several.
    pub fn sign(self) -> String {
        let sign = match self.worst {
            Some(Severity::Critical) => "!!",
            Some(Severity::Warning) => "!",
            Some(Severity::Info) => "i",
            None => return String::new(),
        };
        match self.findings {
            0 | 1 => sign.to_owned(),
            n => format!("{sign}{n}"),
        }
    }
}

/// The findings whose example rows are in `state`, each with its place in [`Look::stories`].
pub fn concerning<'a>(
    look: &'a Look,
    stories: &'a [(u16, Story<'a>)],
    state: TcpState,
) -> impl Iterator<Item = (usize, &'a crate::model::Finding)> {
    stories
        .iter()
        .enumerate()
        .flat_map(|(n, (place, story))| {
            let all = std::iter::once(story.root).chain(story.follows);
            all.map(move |finding| (n, *place, finding))
        })
        .filter(move |(_, place, finding)| {
            let snapshot = look.places.get(usize::from(*place));
            finding.rows.iter().any(|row| {
                snapshot
                    .and_then(|place| place.snapshot.socket(*row))
                    .is_some_and(|socket| socket.state.shown() == state)
            })
        })
        .map(|(n, _, finding)| (n, finding))
}

/// What is found wrong, by state in the order of [`TcpState::SHOWN`].
pub fn troubles(look: &Look) -> [Trouble; TcpState::SHOWN.len()] {
    let stories = look.stories();
    TcpState::SHOWN.map(|state| {
        let mut trouble = Trouble::default();
        for (_, finding) in concerning(look, &stories, state) {
            trouble.findings += 1;
            trouble.worst = trouble.worst.max(Some(finding.severity));
        }
        trouble
    })
}

/// A finding's title, safe to print, with the namespace that it is about, if there are several.
pub fn title(story: &Story<'_>) -> String {
    let follows = match story.follows.len() {
        0 => String::new(),
        n => format!(" (+{n} that follow from it)"),
    };
    let place = story.namespace.map(|namespace| {
        let label = &namespace.label;
        format!("{}: ", Safe(label))
    });
    format!(
        "{}{}{follows}",
        place.unwrap_or_default(),
        Safe(&story.root.title)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const RICH: Theme = Theme {
        unicode: true,
        colour: false,
    };

    #[test]
    fn what_is_cut_says_so_and_has_its_width() {
        assert_eq!(fit("checkout", 8, RICH), "checkout");
        assert_eq!(fit("checkout", 5, RICH), "chec…");
        assert_eq!(fit("服务器", 4, RICH), "服…");
        assert_eq!(fit("checkout", 0, RICH), "");
        assert_eq!(cell("ab", 4, RICH), "ab  ");
        assert_eq!(cell("服务器", 4, RICH), "服… ");
    }

    #[test]
    fn rates_are_never_more_than_was_seen() {
        let shown = |count, ms, exact| rate(count, Duration::from_millis(ms), exact, RICH);
        let table: &[(u64, u64, bool, Option<&str>)] = &[
            (12, 1000, true, Some("12/s")),
            (3, 2000, true, Some("1.5/s")),
            (19, 1001, false, Some("≥18/s")),
            (0, 1000, true, Some("0/s")),
            (0, 1000, false, None),
            (1, 0, true, None),
            (1, 60_000, true, Some("1/min")),
            (1, 600_000, false, Some("≥6/h")),
            (9_999, 1000, false, Some("≥9999/s")),
            (12_345, 1000, true, Some("12k/s")),
            (u64::MAX, 1000, true, Some("18446744073709M/s")),
        ];
        for (count, ms, exact, text) in table {
            assert_eq!(shown(*count, *ms, *exact).as_deref(), *text);
        }
    }

    #[test]
    fn changes_have_a_sign() {
        assert_eq!(
            [Some(3), Some(-1_204), Some(0), None].map(change),
            ["+3", "-1,204", "", ""]
        );
    }
}
