//! A frame: head, tabs, the tab, foot, and what is open over it.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::app::App;
use super::dialogs::{Dialog, help};
use super::look::Look;
use super::tabs::{TabId, fit};
use super::theme::Theme;
use crate::model::Collector;
use crate::model::words::thousands;
use crate::render::text::{self, Safe};

/// The least that anything can be read in.
pub const LEAST: (u16, u16) = (40, 10);

/// So many columns of the host's name are shown at least.
const HOST: usize = 12;

/// The parts of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// host, source, completeness, time
    pub head: Rect,
    /// the names of the tabs
    pub tabs: Rect,
    /// the tab
    pub body: Rect,
    /// keys, words, or the line that is typed
    pub foot: Rect,
}

impl Layout {
    /// Of a screen with so many columns and rows.
    pub fn new((columns, rows): (u16, u16)) -> Self {
        let line = |y| Rect::new(0, y, columns, 1);
        Self {
            head: line(0),
            tabs: line(1),
            body: Rect::new(0, 2, columns, rows.saturating_sub(3)),
            foot: line(rows.saturating_sub(1)),
        }
    }

    /// Where each tab's name stands. Where there is no room for all, only the chosen one has more than a number.
    fn names(self, chosen: TabId) -> Vec<(TabId, Rect, String)> {
        let whole = |n: usize, tab: TabId| format!(" {} {}  ", n + 1, tab.title());
        let all = TabId::ALL.into_iter().enumerate();
        let room: usize = all.clone().map(|(n, tab)| whole(n, tab).len()).sum();
        let short = room > usize::from(self.tabs.width);
        let mut x = 0;
        let mut names = Vec::new();
        for (n, tab) in all {
            let name = if short && tab != chosen {
                format!(" {}  ", n + 1)
            } else {
                whole(n, tab)
            };
            let width = u16::try_from(name.len()).unwrap_or(0);
            let area = Rect::new(x, self.tabs.y, width, 1).intersection(self.tabs);
            names.push((tab, area, name));
            x = x.saturating_add(width);
        }
        names
    }

    /// The tab whose name is at a place.
    pub fn tab_at(self, at: Position, chosen: TabId) -> Option<TabId> {
        let names = self.names(chosen).into_iter();
        let mut fit = names.filter(|(_, area, _)| area.contains(at));
        fit.next().map(|(tab, ..)| tab)
    }
}

/// Draws everything onto the whole of `buffer`, and says where the cursor of a line that is typed stands.
pub fn draw(app: &App, buffer: &mut Buffer) -> Option<Position> {
    let area = buffer.area;
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!(
            "{}x{} is too small, {}x{} is the least",
            area.width, area.height, LEAST.0, LEAST.1
        );
        paragraph(buffer, area, &text);
        return None;
    }
    let layout = Layout::new((area.width, area.height));
    head(app, layout.head, buffer);
    tabs(app, layout, buffer);
    match app.view() {
        Some(view) => app.current().draw(layout.body, buffer, &view),
        None => {
            let text = app
                .failed
                .as_deref()
                .map_or("the first look is being taken", |why| why);
            paragraph(buffer, layout.body, &Safe(text).to_string());
        }
    }
    foot(app, layout.foot, buffer);
    dialog(app, layout, buffer)
}

/// Writes text, which is safe already, on the first line of `area`; what has no room is left out.
pub fn put(buffer: &mut Buffer, area: Rect, text: &str, style: Style) {
    let area = area.intersection(buffer.area);
    if area.height > 0 {
        buffer.set_stringn(area.x, area.y, text, usize::from(area.width), style);
    }
}

/// Writes text, which is safe already, on the first line of `area`; a sign says that there is more than has room.
pub fn put_cut(buffer: &mut Buffer, area: Rect, text: &str, style: Style, theme: Theme) {
    let text = fit(text, usize::from(area.width), theme);
    put(buffer, area, &text, style);
}

/// Writes text, which is safe already, on as many lines as it takes.
fn paragraph(buffer: &mut Buffer, area: Rect, text: &str) {
    let text = text::wrap(text, usize::from(area.width), 0);
    for (y, line) in (area.y..area.bottom()).zip(text.lines()) {
        put(
            buffer,
            Rect::new(area.x, y, area.width, 1),
            line,
            Style::new(),
        );
    }
}

fn head(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.setup.theme;
    let Some(look) = app.look() else {
        return put(buffer, area, "linger", theme.strong());
    };
    let source = match look.coverage.collector {
        Collector::Netlink => "sock_diag",
        Collector::Procfs => "/proc/net",
    };
    let complete = if look.coverage.complete() {
        "complete"
    } else {
        "PARTIAL"
    };
    let total = look.total();
    let sockets = format!(
        "{} TCP socket{}",
        thousands(total),
        if total == 1 { "" } else { "s" }
    );
    let places = match look.places.len() {
        0 | 1 => String::new(),
        n => format!(" in {n} namespaces"),
    };
    // What there is no room for is left out, the least important first; that something is missing never.
    let host = Safe(&look.host).to_string();
    let least = text::width(complete) + 2 + text::width(&host).min(HOST);
    let room = usize::from(area.width);
    let clocks = clock(app, look);
    let fits = |clock: &&String| text::width(clock) + least <= room;
    let right = clocks.iter().find(fits).or(clocks.last());
    let right = right.map_or("", String::as_str);
    let room = room.saturating_sub(text::width(right));
    let words = [
        format!("  {source}, {complete}  {sockets}{places}"),
        format!("  {source}, {complete}  {sockets}"),
        format!("  {complete}  {sockets}"),
        format!("  {complete}"),
    ];
    let fits = |words: &&String| text::width(&host) + text::width(words) <= room;
    let left = words.iter().find(fits).or(words.last());
    let left = left.map_or("", String::as_str);
    let host = fit(&host, room.saturating_sub(text::width(left)), theme);
    let line = Line::from(vec![Span::styled(host, theme.strong()), Span::raw(left)]);
    line.render(area, buffer);
    Line::raw(right).right_aligned().render(area, buffer);
}

/// The time of what is seen, and how often it is looked: in full, and in fewer words.
fn clock(app: &App, look: &Look) -> Vec<String> {
    let at = look.taken.to_zoned(app.setup.zone.clone());
    let time = at.strftime("%H:%M:%S");
    if let Some(frame) = look.frame {
        let (playing, speed) = app.playing;
        // Behind the last frame there is nothing to play.
        let state = if playing && frame.index + 1 < frame.of {
            format!("playing x{speed}")
        } else {
            "standing".to_owned()
        };
        let (index, of) = (frame.index + 1, frame.of);
        let day = at.strftime("%Y-%m-%d %H:%M:%S %Z");
        return vec![
            format!(" {day} frame {index} of {of}  {state}"),
            format!(" {time} frame {index} of {of}  {state}"),
            format!(" {time} {index}/{of}"),
            format!(" {time}"),
        ];
    }
    let every = text::age(u64::try_from(look.pace.every.as_millis()).unwrap_or(u64::MAX));
    match (app.paused.is_some(), look.pace.is_slowed()) {
        (true, _) => vec![format!(" PAUSED at {time}")],
        (false, true) => vec![
            format!(" {time}  slowed to every {every:#}"),
            format!(" {time}  slowed"),
        ],
        (false, false) => vec![format!(" {time}  every {every:#}"), format!(" {time}")],
    }
}

fn tabs(app: &App, layout: Layout, buffer: &mut Buffer) {
    let theme = app.setup.theme;
    for (tab, area, name) in layout.names(app.tab) {
        let (style, name) = if tab == app.tab {
            (theme.chosen(), name.replacen(' ', theme.sign("▸", ">"), 1))
        } else {
            (Style::new(), name)
        };
        put(buffer, area, &name, style);
    }
}

fn foot(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.setup.theme;
    if let Some(notice) = &app.notice {
        let style = if notice.wrong {
            theme.error()
        } else {
            theme.strong()
        };
        let text = format!(
            "{}{}",
            if notice.wrong { "! " } else { "" },
            Safe(&notice.text)
        );
        return put_cut(buffer, area, &text, style, theme);
    }
    if let (Some(why), Some(_)) = (&app.failed, app.look()) {
        let text = format!("! the last look failed: {}", Safe(why));
        return put_cut(buffer, area, &text, theme.error(), theme);
    }
    // What is open says itself what its keys do; the others do nothing then.
    if app.dialog.is_none() {
        let hints = hints(app, usize::from(area.width));
        put(buffer, area, &hints, theme.faint());
    }
}

/// What the keys do that are wanted most: those for which there is room, each whole.
fn hints(app: &App, room: usize) -> String {
    let replay = app.setup.replay;
    let own: &[&str] = match app.tab {
        TabId::Overview => &["Enter what is behind it"],
        TabId::Machine => &["arrows another state", "Enter all of it", "o its sockets"],
        TabId::Sockets if replay => &[
            "Enter details",
            "s sort",
            "f follow",
            "b group",
            "c columns",
        ],
        TabId::Sockets => &[
            "Enter details",
            "K kill",
            "s sort",
            "f follow",
            "b group",
            "c columns",
        ],
        TabId::Findings => &["Enter whole text", "o its sockets"],
        TabId::Closings => &["Enter its sockets"],
    };
    let (first, last): (&[&str], &[&str]) = if replay {
        (&["space play", ", . step", "t seek"], &[])
    } else {
        (&[], &["space pause"])
    };
    let all = ["? keys", "q quit", "/ filter"].iter();
    let mut hints = String::new();
    for hint in all.chain(first).chain(own).chain(last) {
        let gap = if hints.is_empty() { "" } else { "  " };
        if hints.len() + gap.len() + hint.len() <= room {
            hints.push_str(gap);
            hints.push_str(hint);
        }
    }
    hints
}

fn dialog(app: &App, layout: Layout, buffer: &mut Buffer) -> Option<Position> {
    let theme = app.setup.theme;
    match app.dialog.as_ref()? {
        Dialog::Prompt(prompt) => Some(prompt.draw(layout, buffer, theme)),
        Dialog::Help(cursor) => {
            help::draw(*cursor, layout.body, buffer, theme);
            None
        }
        Dialog::Sure(sure) => sure.draw(layout.body, buffer, theme),
        Dialog::Menu(menu) => {
            menu.draw(layout.body, buffer, theme);
            None
        }
    }
}
