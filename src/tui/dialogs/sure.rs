//! The question before sockets are destroyed: what would die, what its ends notice, what is left alone and why. The rules
//! and the words are those of `linger kill`.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::widgets::{Clear, Widget};

use crate::knowledge::killing::{Allowed, Fate, objection};
use crate::model::words::count;
use crate::model::{Owners, Socket};
use crate::render::kill::Killing;
use crate::render::text;
use crate::tui::cursor::Cursor;
use crate::tui::draw::{put, put_cut};
use crate::tui::keys::Action;
use crate::tui::look::Look;
use crate::tui::msg::Doomed;
use crate::tui::prompt::Line;
use crate::tui::theme::Theme;

/// What has to be typed.
const YES: &str = "yes";

/// The question, or what came of it.
#[derive(Debug)]
pub struct Sure {
    /// how many it is about
    pub asked: usize,
    /// those that would be destroyed
    doomed: Vec<Doomed>,
    /// what is said
    lines: Vec<String>,
    /// what is typed
    line: Line,
    /// the first line that is seen
    scroll: Cursor,
    /// whether they are being destroyed
    waiting: bool,
}

impl Sure {
    /// Asks whether `sockets` are to be destroyed, on a screen of so many columns.
    pub fn ask(sockets: Vec<(u16, Socket)>, look: &Look, columns: u16) -> Self {
        let none = Owners::default();
        let mut said = Vec::new();
        let mut doomed = Vec::new();
        // Sockets are chosen from one list, and mostly of one place.
        let mut places: Vec<u16> = sockets.iter().map(|(place, _)| *place).collect();
        places.dedup();
        for place in places {
            let own = sockets.iter().filter(|(at, _)| *at == place);
            let judged: Vec<(Socket, Fate)> = own
                .map(|(_, socket)| match objection(socket, Allowed::default()) {
                    Some(objection) => (*socket, Fate::Refused(objection)),
                    None => (*socket, Fate::WouldDestroy),
                })
                .collect();
            let fated = judged
                .iter()
                .filter(|(_, fate)| *fate == Fate::WouldDestroy);
            let seen = look.places.get(usize::from(place));
            // Another look may have other places: the namespace itself is kept.
            let namespace = seen.and_then(|seen| seen.namespace.clone());
            doomed.extend(fated.map(|(socket, _)| Doomed {
                socket: *socket,
                namespace: namespace.clone(),
            }));
            let killing = Killing {
                sockets: &judged,
                owners: seen.map_or(&none, |seen| &seen.snapshot.owners),
                names: &*look.names,
                width: usize::from(columns),
            };
            // Writing to memory does not fail.
            let _ = killing.preview("their evidence is kept in a capture first", &mut said);
            if judged.iter().any(|(_, fate)| fate.option().is_some()) {
                said.extend_from_slice(b"\nThese options are those of 'linger kill' on the command line: no key overrules it.\n");
            }
        }
        Self {
            asked: sockets.len(),
            doomed,
            ..Self::said(&String::from_utf8_lossy(&said))
        }
    }

    /// Says what came of it.
    pub fn done(outcome: Result<String, String>) -> Self {
        Self::said(&outcome.unwrap_or_else(|error| error))
    }

    fn said(text: &str) -> Self {
        Self {
            asked: 0,
            doomed: Vec::new(),
            lines: text.lines().map(str::to_owned).collect(),
            line: Line::default(),
            scroll: Cursor::default(),
            waiting: false,
        }
    }

    /// Whether nothing is asked: it was done, or there is nothing to do.
    pub fn is_done(&self) -> bool {
        self.doomed.is_empty()
    }

    /// The sockets to destroy, once `yes` is typed.
    pub fn agreed(&mut self) -> Option<Vec<Doomed>> {
        if self.waiting || self.line.text().trim() != YES {
            return None;
        }
        self.waiting = true;
        Some(self.doomed.clone())
    }

    /// Whether they are being destroyed: what comes of it will be said here.
    pub const fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Puts text in.
    pub fn insert(&mut self, text: &str) {
        if !self.is_done() && !self.waiting {
            self.line.insert(text);
        }
    }

    /// Scrolls what is said of many sockets, or edits the line.
    pub fn act(&mut self, action: Action, page: usize) {
        let scrolled = match action {
            Action::Earlier => Some(Action::PageUp),
            Action::Later => Some(Action::PageDown),
            // The wheel.
            Action::Up | Action::Down => Some(action),
            _ => None,
        };
        match scrolled {
            Some(action) => {
                self.scroll
                    .scroll(action, self.lines.len(), page.saturating_sub(2));
            }
            None => {
                self.line.act(action);
            }
        }
    }

    /// Draws over `area`, and says where the cursor stands.
    pub fn draw(&self, area: Rect, buffer: &mut Buffer, theme: Theme) -> Option<Position> {
        Clear.render(area, buffer);
        let head = Rect { height: 1, ..area };
        let foot = area.bottom().saturating_sub(1);
        let last = if self.is_done() { area.bottom() } else { foot };
        let page = usize::from(last.saturating_sub(area.y + 1));
        let more = match self.lines.len().saturating_sub(self.scroll.top + page) {
            0 => String::new(),
            n => format!(", {n} more lines: down"),
        };
        let (doomed, asked) = (self.doomed.len(), count(self.asked as u64, "socket"));
        let titles = if self.is_done() {
            [
                format!(" kill: Esc or Enter closes{more} "),
                format!(" Esc closes{more} "),
            ]
        } else {
            [
                format!(" kill {doomed} of {asked}, nothing has been touched yet{more} "),
                format!(" kill {doomed} of {}{more} ", self.asked),
            ]
        };
        let room = usize::from(area.width.saturating_sub(2));
        let fits = |title: &&String| text::width(title) <= room;
        let title = titles.iter().find(fits).or(titles.last());
        let title = title.map_or("", String::as_str);
        put(
            buffer,
            head,
            &theme.sign("─", "-").repeat(usize::from(area.width)),
            theme.faint(),
        );
        put(
            buffer,
            Rect::new(area.x + 2, area.y, area.width.saturating_sub(2), 1),
            title,
            theme.strong(),
        );
        for (y, line) in (area.y + 1..last).zip(self.lines.iter().skip(self.scroll.top)) {
            put_cut(
                buffer,
                Rect::new(area.x, y, area.width, 1),
                line,
                Style::new(),
                theme,
            );
        }
        if self.is_done() {
            return None;
        }
        let line = Rect::new(area.x, foot, area.width, 1);
        if self.waiting {
            put(buffer, line, "they are being destroyed", theme.strong());
            return None;
        }
        // There is room for the word behind it.
        let number = self.doomed.len();
        let ask = if area.width < 72 {
            format!("yes and Enter: destroy {number}; Esc: no: ")
        } else {
            let sockets = count(number as u64, "socket");
            format!("type yes and press Enter to destroy {sockets}; Esc: leave them: ")
        };
        let (before, behind) = self.line.halves();
        put(
            buffer,
            line,
            &format!("{ask}{before}{behind}"),
            theme.strong(),
        );
        let x = text::width(&ask) + text::width(before);
        let x = u16::try_from(x)
            .unwrap_or(u16::MAX)
            .min(area.width.saturating_sub(1));
        Some(Position::new(area.x + x, foot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TcpState;
    use crate::tui::testing::{NOON, look_at, socket};

    fn asked(state: TcpState) -> Sure {
        let look = look_at(NOON);
        Sure::ask(vec![(0, socket(state, 7, 443, (1, 40_000)))], &look, 80)
    }

    fn said(sure: &Sure) -> String {
        sure.lines.join("\n")
    }

    #[test]
    fn nothing_dies_before_yes_is_typed_whole() {
        let mut sure = asked(TcpState::Established);
        assert!(
            !sure.is_done() && said(&sure).contains("ECONNABORTED"),
            "{sure:?}"
        );
        for (typed, agreed) in [("", false), ("y", false), ("es", true)] {
            sure.insert(typed);
            let doomed = sure.agreed();
            assert_eq!(
                doomed.is_some_and(|doomed| doomed.len() == 1),
                agreed,
                "{typed}"
            );
        }
        assert!(sure.agreed().is_none(), "once");
    }

    #[test]
    fn what_had_better_not_die_is_left_alone_and_the_reason_is_said() {
        for (state, option) in [
            (TcpState::Listen, "--listeners"),
            (TcpState::CloseWait, "--close-wait"),
            (TcpState::TimeWait, "--time-wait"),
        ] {
            let mut sure = asked(state);
            sure.insert("yes");
            assert!(
                sure.is_done() && said(&sure).contains(option),
                "{}",
                said(&sure)
            );
        }
    }
}
