//! What matters first: states, findings, who holds most, and what was not seen.

mod foot;
mod ranks;
mod states;
#[cfg(test)]
mod tests;

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;

use super::{Request, Tab, View, parts};
use crate::model::{Severity, Story, TcpState};
use crate::tui::draw::put;
use crate::tui::keys::Action;
use parts::Trouble;
use ranks::Rank;

/// The columns of `CRITICAL` and a blank.
const WORD: usize = 9;

/// Where one can stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    States,
    Findings,
    Ranks(Rank),
}

/// The tab.
#[derive(Debug, Default)]
pub struct Overview {
    part: Part,
    at: usize,
    troubles: [Trouble; TcpState::SHOWN.len()],
    /// places in [`crate::tui::look::Ranks::listeners`], those with the fullest queues first
    listeners: Vec<usize>,
}

/// How the body is divided.
#[derive(Clone, Copy, Debug)]
struct Areas {
    states: Rect,
    findings: Rect,
    ranks: [(Rank, Rect); 3],
    foot: Rect,
}

impl Areas {
    fn new(body: Rect, view: &View<'_>) -> Self {
        let rows = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let height = body.height;
        let foot = rows(foot::lines(view).len())
            .min((height / 7).clamp(1, 8))
            .min(height);
        let left = height.saturating_sub(foot);
        let states = rows(states::height(body.width, view.look));
        // What is wrong is seen before everything else.
        let states = states.min(left.saturating_sub(4));
        let left = left - states;
        let wanted = rows(findings_height(usize::from(body.width), view)).max(4);
        let ranks_least = if left >= 10 { 4 } else { 0 };
        let findings = wanted.min(left.saturating_sub(ranks_least));
        let ranks = left - findings;
        let part = |y: u16, height: u16| Rect {
            y: body.y + y,
            height,
            ..body
        };
        let below = part(states + findings, ranks);
        let columns = if body.width >= 72 { 3 } else { 1 };
        let width = (body.width.saturating_sub(2 * (columns - 1))) / columns;
        let mut n = 0;
        let ranks = Rank::ALL.map(|rank| {
            let place = if n < columns && ranks > 1 {
                Rect {
                    x: body.x + n * (width + 2),
                    width,
                    ..below
                }
            } else {
                Rect::ZERO
            };
            n += 1;
            (rank, place)
        });
        Self {
            states: part(0, states),
            findings: part(states, findings),
            ranks,
            foot: part(height - foot, foot),
        }
    }

    fn rank(&self, rank: Rank) -> Rect {
        let mut areas = self.ranks.iter();
        let own = areas.find(|(other, _)| *other == rank);
        own.map_or(Rect::ZERO, |(_, area)| *area)
    }
}

/// The lines of a finding's title at most, by the width of the screen.
fn title_lines(room: usize) -> usize {
    if room >= 100 { 3 } else { 1 }
}

/// A finding's lines behind its word.
fn title(story: &Story<'_>, room: usize, view: &View<'_>) -> Vec<String> {
    let text = parts::title(story);
    let behind = room.saturating_sub(WORD + 1);
    if title_lines(room) == 1 {
        return vec![parts::fit(&text, behind, view.theme).into_owned()];
    }
    let mut lines = parts::paragraph("", &text, behind.min(140), view.theme);
    lines.truncate(title_lines(room));
    lines
}

fn findings_height(room: usize, view: &View<'_>) -> usize {
    let stories = view.look.stories();
    let lines = stories
        .iter()
        .map(|(_, story)| title(story, room, view).len());
    1 + lines.sum::<usize>().max(1)
}

impl Overview {
    /// How many lines there are to choose from in a part.
    fn len(&self, part: Part, view: &View<'_>) -> usize {
        match part {
            Part::States => states::ORDER.len(),
            Part::Findings => view.look.stories().len(),
            Part::Ranks(rank) => rank.len(view.look),
        }
    }

    /// The parts that are on the screen and have something to choose.
    fn parts(&self, view: &View<'_>) -> Vec<Part> {
        let areas = Areas::new(view.body, view);
        let mut parts = vec![Part::States];
        if self.len(Part::Findings, view) > 0 {
            parts.push(Part::Findings);
        }
        for (rank, area) in areas.ranks {
            let part = Part::Ranks(rank);
            if area.height > 1 && self.len(part, view) > 0 {
                parts.push(part);
            }
        }
        parts
    }

    /// The chosen line of `part`, if it is in there.
    fn chosen(&self, part: Part) -> Option<usize> {
        (self.part == part).then_some(self.at)
    }

    fn go(&mut self, part: Part, at: usize, view: &View<'_>) {
        self.part = part;
        self.at = at.min(self.len(part, view).saturating_sub(1));
    }

    /// One line on, or back, from one part into the next.
    fn step(&mut self, down: bool, view: &View<'_>) {
        let parts = self.parts(view);
        let here = parts.iter().position(|part| *part == self.part);
        let len = self.len(self.part, view);
        if down && self.at + 1 < len {
            self.at += 1;
        } else if !down && self.at > 0 {
            self.at -= 1;
        } else {
            let to = if down {
                here.map_or(0, |here| here + 1)
            } else {
                match here {
                    Some(here) if here > 0 => here - 1,
                    _ => return,
                }
            };
            if let Some(part) = parts.get(to) {
                self.go(*part, if down { 0 } else { usize::MAX }, view);
            }
        }
    }

    fn sideways(&mut self, right: bool, view: &View<'_>) {
        match self.part {
            Part::States => {
                let rows = states::rows(view.body.width);
                let to = if right {
                    self.at + rows
                } else {
                    self.at.saturating_sub(rows)
                };
                let crosses = right || self.at >= rows;
                if crosses && to < states::ORDER.len() {
                    self.at = to;
                }
            }
            Part::Findings => {}
            Part::Ranks(_) => {
                let parts = self.parts(view);
                let here = parts.iter().position(|part| *part == self.part);
                let to = here.and_then(|here| {
                    if right {
                        here.checked_add(1)
                    } else {
                        here.checked_sub(1)
                    }
                });
                let part = to.and_then(|to| parts.get(to)).copied();
                if let Some(part @ Part::Ranks(_)) = part {
                    self.go(part, self.at, view);
                }
            }
        }
    }

    /// The next part, or the one before.
    fn page(&mut self, down: bool, view: &View<'_>) {
        let parts = self.parts(view);
        let here = parts.iter().position(|part| *part == self.part);
        let to = match (here, down) {
            (Some(here), true) => here + 1,
            (Some(here), false) => here.saturating_sub(1),
            (None, _) => 0,
        };
        if let Some(part) = parts.get(to) {
            self.go(*part, 0, view);
        }
    }

    fn open(&self, view: &View<'_>) -> Vec<Request> {
        let request = match self.part {
            Part::States => {
                let state = states::ORDER.get(self.at).and_then(|state| state.slug());
                state.map(|state| Request::Sockets(format!("state {state}")))
            }
            Part::Findings => Some(Request::Finding(self.at)),
            Part::Ranks(rank) => rank
                .filter(self.at, &self.listeners, view.look)
                .map(Request::Sockets),
        };
        request.into_iter().collect()
    }

    /// The findings, each with the line on which it begins and its lines; the first that is seen is such that the chosen
    /// one is.
    fn seen_findings(
        &self,
        area: Rect,
        view: &View<'_>,
    ) -> Vec<(usize, usize, Vec<String>, Severity)> {
        let stories = view.look.stories();
        let room = usize::from(area.width);
        let page = usize::from(area.height.saturating_sub(1));
        let all: Vec<(Vec<String>, Severity)> = stories
            .iter()
            .map(|(_, story)| (title(story, room, view), story.severity()))
            .collect();
        let chosen = self.chosen(Part::Findings).unwrap_or(0);
        let (mut first, mut used) = (chosen, 0);
        for (n, (lines, _)) in all.iter().enumerate().take(chosen + 1).rev() {
            used += lines.len();
            if used > page {
                break;
            }
            first = n;
        }
        let mut y = 1;
        let mut seen = Vec::new();
        for (n, (lines, severity)) in all.into_iter().enumerate().skip(first) {
            if y > page {
                break;
            }
            let from = y;
            y += lines.len();
            seen.push((n, from, lines, severity));
        }
        seen
    }

    fn findings(&self, area: Rect, buffer: &mut Buffer, view: &View<'_>) {
        let (theme, look) = (view.theme, view.look);
        let stories = look.stories();
        let seen = self.seen_findings(area, view);
        let of = |severity: Severity| {
            let number = stories
                .iter()
                .filter(|(_, story)| story.severity() == severity)
                .count();
            (number > 0).then(|| format!("{number} {}", severity.name()))
        };
        let words = [Severity::Critical, Severity::Warning, Severity::Info];
        let counts: Vec<String> = words.into_iter().filter_map(of).collect();
        let mut head = match counts.is_empty() {
            true => "Findings: none".to_owned(),
            false => format!("Findings: {}", counts.join(", ")),
        };
        let whole = |lines: usize, from: usize| from + lines <= usize::from(area.height);
        let first = seen.first().map_or(0, |(n, ..)| *n);
        let last = seen
            .iter()
            .filter(|(_, from, lines, _)| whole(lines.len(), *from))
            .map(|(n, ..)| n + 1)
            .next_back()
            .unwrap_or(first);
        if last - first < stories.len() {
            head.push_str(&format!("; {}-{last} of {}", first + 1, stories.len()));
        }
        parts::heading(buffer, area, &head, theme);
        if stories.is_empty() {
            parts::write(buffer, area, 1, &foot::quiet(view), Style::new(), theme);
        }
        for (n, from, lines, severity) in seen {
            let chosen = self.chosen(Part::Findings) == Some(n);
            let word = severity.name().to_uppercase();
            let line = parts::line(area, from);
            put(buffer, line, if chosen { ">" } else { " " }, Style::new());
            let after = |line: Rect, n: u16| Rect {
                x: line.x.saturating_add(n).min(line.right()),
                width: line.width.saturating_sub(n),
                ..line
            };
            put(buffer, after(line, 1), &word, theme.severity(severity));
            for (n, text) in lines.iter().enumerate() {
                let place = after(parts::line(area, from + n), WORD as u16 + 1);
                let style = if chosen { theme.chosen() } else { Style::new() };
                put(buffer, place, text, style);
            }
        }
    }
}

impl Tab for Overview {
    fn act(&mut self, action: Action, view: &View<'_>) -> Vec<Request> {
        match action {
            Action::Up => self.step(false, view),
            Action::Down => self.step(true, view),
            Action::Left => self.sideways(false, view),
            Action::Right => self.sideways(true, view),
            Action::PageUp => self.page(false, view),
            Action::PageDown => self.page(true, view),
            Action::First => self.go(Part::States, 0, view),
            Action::Last => {
                if let Some(part) = self.parts(view).last() {
                    self.go(*part, usize::MAX, view);
                }
            }
            Action::Open => return self.open(view),
            _ => {}
        }
        Vec::new()
    }

    fn click(&mut self, at: Position, view: &View<'_>) -> Vec<Request> {
        let areas = Areas::new(view.body, view);
        let below = |area: Rect| usize::from(at.y - area.y).checked_sub(1);
        let hit = if areas.states.contains(at) {
            states::at(areas.states, at).map(|n| (Part::States, n))
        } else if areas.findings.contains(at) {
            let row = usize::from(at.y - areas.findings.y);
            let seen = self.seen_findings(areas.findings, view);
            let mut hit = seen
                .iter()
                .filter(|(_, from, lines, _)| (*from..from + lines.len()).contains(&row));
            hit.next().map(|(n, ..)| (Part::Findings, *n))
        } else {
            let mut hit = areas.ranks.iter().filter(|(_, area)| area.contains(at));
            hit.next().and_then(|(rank, area)| {
                let part = Part::Ranks(*rank);
                let row = below(*area)? + self.first_of(part, *area);
                (row < self.len(part, view)).then_some((part, row))
            })
        };
        match hit {
            Some((part, n)) if self.chosen(part) == Some(n) => return self.open(view),
            Some((part, n)) => self.go(part, n, view),
            None => {}
        }
        Vec::new()
    }

    fn looked(&mut self, view: &View<'_>) {
        self.troubles = parts::troubles(view.look);
        self.listeners = ranks::fullest(view.look);
        if self.parts(view).contains(&self.part) {
            self.go(self.part, self.at, view);
        } else {
            self.go(Part::States, 0, view);
        }
    }

    fn draw(&self, area: Rect, buffer: &mut Buffer, view: &View<'_>) {
        let areas = Areas::new(area, view);
        let chosen = self.chosen(Part::States);
        states::draw(areas.states, buffer, chosen, &self.troubles, view);
        self.findings(areas.findings, buffer, view);
        for rank in Rank::ALL {
            let area = areas.rank(rank);
            let part = Part::Ranks(rank);
            let first = self.first_of(part, area);
            rank.draw(
                area,
                buffer,
                (first, self.chosen(part)),
                &self.listeners,
                view,
            );
        }
        foot::draw(areas.foot, buffer, view);
    }
}

impl Overview {
    /// The first line of a part that is seen.
    fn first_of(&self, part: Part, area: Rect) -> usize {
        let page = usize::from(area.height.saturating_sub(1));
        let at = self.chosen(part).unwrap_or(0);
        (at + 1).saturating_sub(page)
    }
}
