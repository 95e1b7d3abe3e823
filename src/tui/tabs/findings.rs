//! Every finding in full, and what was not judged.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;

use super::{Request, Tab, View};
use crate::model::{Analysis, Severity, Snapshot, Story, Subject};
use crate::render::findings::{Screen, full};
use crate::render::paint::Paint;
use crate::render::sample;
use crate::render::status::labelled;
use crate::render::text::{self, Safe};
use crate::tui::cursor::Cursor;
use crate::tui::draw::put;
use crate::tui::keys::Action;

/// From so many columns on, the text stands beside the list.
const BESIDE: u16 = 150;

/// What tells a finding from others in the next look.
type Identity = (u16, &'static str, Subject);

/// A line of the list.
#[derive(Debug)]
struct Item {
    /// how bad; `None` for what was not found
    severity: Option<Severity>,
    name: String,
    title: String,
    /// `None` for what was not found
    identity: Option<Identity>,
    /// the filter of the sockets behind it; `None` where no socket is
    sockets: Option<String>,
}

/// The tab.
#[derive(Debug, Default)]
pub struct Findings {
    items: Vec<Item>,
    cursor: Cursor,
    /// the text of the chosen line
    text: Vec<String>,
    scroll: Cursor,
    /// whether the text has the whole tab
    open: bool,
}

/// Where the list and the text stand.
struct Parts {
    list: Rect,
    text: Rect,
}

impl Findings {
    /// Chooses the n-th finding of [`crate::tui::Look::stories`].
    pub fn choose(&mut self, at: usize) {
        self.cursor.at = at;
        self.scroll = Cursor::default();
        self.open = false;
    }

    fn parts(&self, body: Rect) -> Parts {
        if self.open {
            return Parts {
                list: Rect::new(body.x, body.y, body.width, 0),
                text: body,
            };
        }
        if body.width >= BESIDE {
            let list = Rect {
                width: body.width / 3,
                ..body
            };
            let x = list.right() + 1;
            return Parts {
                list,
                text: Rect::new(x, body.y, body.right().saturating_sub(x), body.height),
            };
        }
        let wanted = u16::try_from(self.items.len()).unwrap_or(u16::MAX);
        let height = wanted.min((body.height / 3).max(3)).min(body.height);
        let y = body.y + height + 1;
        Parts {
            list: Rect { height, ..body },
            text: Rect::new(body.x, y, body.width, body.bottom().saturating_sub(y)),
        }
    }

    /// The text of the chosen line, as wide as there is room.
    fn write(&mut self, view: &View<'_>) {
        let width = usize::from(self.parts(view.body).text.width).max(20);
        let screen = Screen {
            width,
            unicode: view.theme.unicode,
            paint: Paint(false),
        };
        let mut out = Vec::new();
        let stories = view.look.stories();
        match stories.get(self.cursor.at) {
            Some((place, story)) => {
                let none = Snapshot::default();
                let place = view.look.places.get(usize::from(*place));
                let snapshot = place.map_or(&none, |place| &place.snapshot);
                let sockets = sample::sample(&story.root.rows, snapshot);
                let again = match story.namespace.and_then(|namespace| namespace.option()) {
                    Some(name) if !view.again.contains("--netns") => {
                        format!("{} --netns {}", view.again, Safe(&name))
                    }
                    _ => view.again.replace("--netns all", ""),
                };
                // Writing to memory does not fail.
                let _ = full(*story, &sockets, &again, screen, &mut out);
            }
            None => out.extend(checks(&view.look.analysis, screen).into_bytes()),
        }
        let text = String::from_utf8_lossy(&out);
        self.text = text.trim_end().lines().map(str::to_owned).collect();
        self.scroll.scroll(Action::Up, self.text.len(), usize::MAX);
    }

    fn page(&self, view: &View<'_>) -> usize {
        usize::from(self.parts(view.body).text.height)
    }
}

/// What was judged and quiet, what is muted, and what could not be judged and why.
fn checks(analysis: &Analysis, screen: Screen) -> String {
    let mut lines = Vec::new();
    if analysis.findings.is_empty() {
        let text = if analysis.unknown.is_empty() {
            "nothing is stuck"
        } else {
            "nothing is stuck, as far as can be told"
        };
        lines.push(text.to_owned());
        lines.push(String::new());
    }
    if !analysis.quiet.is_empty() {
        lines.push(labelled("quiet", &analysis.quiet.join(", "), screen));
    }
    for muted in &analysis.muted {
        let text = format!(
            "{} {}: {} (until {}: {})",
            muted.finding.severity.name().to_uppercase(),
            muted.finding.id,
            Safe(&muted.finding.title),
            muted.expires,
            Safe(&muted.reason),
        );
        lines.push(labelled("muted", &text, screen));
    }
    for (ids, reason) in analysis.open() {
        lines.push(labelled(
            "cannot tell",
            &format!("{ids}: {}", Safe(reason)),
            screen,
        ));
    }
    for warning in &analysis.warnings {
        lines.push(labelled("note", &Safe(warning).to_string(), screen));
    }
    lines.join("\n")
}

/// The filter that shows the sockets behind a finding: those of its subject in the states of the rows that show it.
fn behind(story: &Story<'_>, snapshot: &Snapshot) -> Option<String> {
    let rows = story.root.rows.iter();
    let mut states: Vec<&str> = rows
        .filter_map(|row| snapshot.socket(*row)?.state.slug())
        .collect();
    states.sort_unstable();
    states.dedup();
    let subject = match &story.root.subject {
        Subject::Process { pid: Some(pid), .. } => Some(format!("pid = {pid}")),
        Subject::Process { uid: Some(uid), .. } => Some(format!("uid = {uid}")),
        Subject::Listener { port, .. } => Some(format!("sport = :{port}")),
        Subject::Peer { address } => Some(format!("dst {address}")),
        Subject::Destination { address, port, .. } if address.is_ipv6() => {
            Some(format!("dst [{address}]:{port}"))
        }
        Subject::Destination { address, port, .. } => Some(format!("dst {address}:{port}")),
        Subject::Process { .. } | Subject::Host => None,
    };
    if states.is_empty() && subject.is_none() {
        return None;
    }
    let states = (!states.is_empty()).then(|| format!("state {}", states.join(",")));
    let parts: Vec<String> = states.into_iter().chain(subject).collect();
    Some(parts.join(" "))
}

impl Tab for Findings {
    fn act(&mut self, action: Action, view: &View<'_>) -> Vec<Request> {
        let (len, page) = (self.text.len(), self.page(view));
        match action {
            Action::Open => {
                self.open = true;
                self.write(view);
            }
            Action::Back => {
                self.open = false;
                self.write(view);
            }
            Action::Sockets => {
                return match self
                    .items
                    .get(self.cursor.at)
                    .and_then(|item| item.sockets.clone())
                {
                    Some(filter) => vec![Request::Sockets(filter)],
                    None => vec![Request::Wrong("no sockets are behind this".to_owned())],
                };
            }
            _ if self.open => {
                self.scroll.scroll(action, len, page);
            }
            Action::PageUp | Action::PageDown => {
                self.scroll.scroll(action, len, page);
            }
            _ => {
                let height = usize::from(self.parts(view.body).list.height);
                if self.cursor.act(action, self.items.len(), height) {
                    self.scroll = Cursor::default();
                    self.write(view);
                }
            }
        }
        Vec::new()
    }

    fn click(&mut self, at: Position, view: &View<'_>) -> Vec<Request> {
        let list = self.parts(view.body).list;
        if list.contains(at) {
            let line = self.cursor.top + usize::from(at.y - list.y);
            if line < self.items.len() {
                self.cursor.at = line;
                self.scroll = Cursor::default();
                self.write(view);
            }
        }
        Vec::new()
    }

    fn looked(&mut self, view: &View<'_>) {
        let chosen = self
            .items
            .get(self.cursor.at)
            .and_then(|item| item.identity.clone());
        let mut items: Vec<Item> = view
            .look
            .stories()
            .iter()
            .map(|(place, story)| {
                let snapshot = view
                    .look
                    .places
                    .get(usize::from(*place))
                    .map(|place| &place.snapshot);
                Item {
                    severity: Some(story.severity()),
                    name: story.root.id.to_owned(),
                    title: Safe(&story.root.title).to_string(),
                    identity: Some((*place, story.root.id, story.root.subject.clone())),
                    sockets: snapshot.and_then(|snapshot| behind(story, snapshot)),
                }
            })
            .collect();
        let analysis = &view.look.analysis;
        let muted = match analysis.muted.len() {
            0 => String::new(),
            n => format!(", {n} muted"),
        };
        items.push(Item {
            severity: None,
            name: "checks".to_owned(),
            title: format!(
                "{} quiet, {} cannot tell{muted}",
                analysis.quiet.len(),
                analysis.unknown.len()
            ),
            identity: None,
            sockets: None,
        });
        let found = chosen.and_then(|chosen| {
            items
                .iter()
                .position(|item| item.identity.as_ref() == Some(&chosen))
        });
        let at = found.unwrap_or(self.cursor.at.min(items.len() - 1));
        self.items = items;
        self.cursor.at = at;
        self.cursor.fit(
            self.items.len(),
            usize::from(self.parts(view.body).list.height),
        );
        let top = self.scroll;
        self.write(view);
        self.scroll.top = top.top.min(self.text.len().saturating_sub(self.page(view)));
    }

    fn draw(&self, area: Rect, buffer: &mut Buffer, view: &View<'_>) {
        let Parts { list, text } = self.parts(area);
        let names = self
            .items
            .iter()
            .map(|item| item.name.len())
            .max()
            .unwrap_or(0);
        let lines = self.items.iter().enumerate().skip(self.cursor.top);
        for (y, (at, item)) in (list.y..list.bottom()).zip(lines) {
            let line = Rect::new(list.x, y, list.width, 1);
            let sign = if at == self.cursor.at {
                view.theme.sign("▸", ">")
            } else {
                " "
            };
            put(buffer, line, sign, Style::new());
            let word = item
                .severity
                .map_or(String::new(), |severity| severity.name().to_uppercase());
            let style = item
                .severity
                .map_or(Style::new(), |severity| view.theme.severity(severity));
            put(buffer, shifted(line, 2), &word, style);
            let rest = format!("{:<names$}  {}", item.name, item.title);
            let style = if at == self.cursor.at {
                view.theme.strong()
            } else {
                Style::new()
            };
            put(
                buffer,
                shifted(line, 12),
                &clip(&rest, usize::from(line.width.saturating_sub(12)), view),
                style,
            );
        }
        if text.y > area.y {
            rule(
                self,
                Rect::new(area.x, text.y - 1, area.width, 1),
                buffer,
                view,
            );
        } else if text.x > area.x {
            for y in area.y..area.bottom() {
                put(
                    buffer,
                    Rect::new(text.x - 1, y, 1, 1),
                    view.theme.sign("│", "|"),
                    view.theme.faint(),
                );
            }
        }
        for (y, (at, line)) in
            (text.y..text.bottom()).zip(self.text.iter().enumerate().skip(self.scroll.top))
        {
            let style = if at == 0 {
                view.theme.strong()
            } else {
                Style::new()
            };
            put(buffer, Rect::new(text.x, y, text.width, 1), line, style);
        }
    }
}

/// The line between list and text, which says how to read on.
fn rule(tab: &Findings, area: Rect, buffer: &mut Buffer, view: &View<'_>) {
    let line = view.theme.sign("─", "-").repeat(usize::from(area.width));
    put(buffer, area, &line, view.theme.faint());
    let page = tab.page(view);
    let more = tab.text.len().saturating_sub(tab.scroll.top + page);
    let word = match more {
        0 => " Enter: whole text  o: its sockets ".to_owned(),
        n => format!(" {n} more lines: PgDn  Enter: whole text  o: its sockets "),
    };
    let area = shifted(area, 2);
    let word = clip(&word, usize::from(area.width), view);
    put(buffer, area, &word, Style::new());
}

fn shifted(area: Rect, by: u16) -> Rect {
    let by = by.min(area.width);
    Rect::new(area.x + by, area.y, area.width - by, area.height)
}

/// As much of a line as there is room for; a sign says that there is more.
fn clip(line: &str, room: usize, view: &View<'_>) -> String {
    if text::width(line) <= room {
        return line.to_owned();
    }
    let mut kept = String::new();
    let sign = view.theme.sign("…", "~");
    for c in line.chars() {
        if text::width(&kept) + text::width(c.encode_utf8(&mut [0; 4])) + 1 > room {
            break;
        }
        kept.push(c);
    }
    kept + sign
}

#[cfg(test)]
mod tests {
    use crate::tui::Effect;
    use crate::tui::msg::Msg;
    use crate::tui::tabs::TabId;
    use crate::tui::testing::{NOON, app, look_at, press, screen};

    #[test]
    fn a_finding_is_told_in_full_and_leads_to_its_sockets() {
        let mut app = app((80, 24), TabId::Findings);
        let page = screen(&app);
        assert!(page.contains("CRITICAL  close-wait-leak"), "{page}");
        assert!(page.contains("this program must act"), "{page}");
        let effects = press(&mut app, "o");
        let [Effect::Resolve { text, .. }] = &effects[..] else {
            panic!("{effects:?}");
        };
        assert_eq!(text, "state close-wait pid = 2211");
        press(&mut app, "<Down>");
        let page = screen(&app);
        assert!(
            page.contains("cannot tell") && page.contains("conntrack is not readable"),
            "{page}"
        );
        assert!(
            press(&mut app, "o").is_empty(),
            "no sockets are behind what is quiet"
        );
        assert!(screen(&app).contains("no sockets"));
    }

    #[test]
    fn the_chosen_finding_stays_chosen() {
        let mut app = app((80, 24), TabId::Findings);
        let mut look = look_at(NOON + 1);
        let mut other = look.places[0].findings[0].clone();
        other.id = "listen-overflow";
        look.places[0].findings.insert(0, other);
        app.update(Msg::Look(Box::new(look)));
        let page = screen(&app);
        assert!(page.contains("▸ CRITICAL  close-wait-leak"), "{page}");
    }

    #[test]
    fn the_text_opens_over_the_list_and_closes_again() {
        let mut app = app((80, 24), TabId::Findings);
        press(&mut app, "<Enter>");
        assert!(!screen(&app).contains("▸ CRITICAL"));
        press(&mut app, "<PgDn><PgDn><Esc>");
        assert!(screen(&app).contains("▸ CRITICAL"));
    }
}
