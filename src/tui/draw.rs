//! A frame: head, tabs, the tab, foot, and what is open over it.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::app::App;
use super::dialogs::{Dialog, help};
use super::look::Look;
use super::tabs::TabId;
use crate::model::Collector;
use crate::model::words::thousands;
use crate::render::text::{self, Safe};

/// The least that anything can be read in.
pub const LEAST: (u16, u16) = (40, 10);

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
        put(buffer, Rect::new(0, 0, area.width, 1), &text, Style::new());
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
            put(buffer, layout.body, &Safe(text).to_string(), Style::new());
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
    let right = clock(app, look);
    let width = u16::try_from(text::width(&right))
        .unwrap_or(area.width)
        .min(area.width);
    let place = Rect::new(area.right().saturating_sub(width), area.y, width, 1);
    put(buffer, place, &right, Style::new());
    // What there is no room for is left out, the least important first; that something is missing never.
    let host = Safe(&look.host).to_string();
    let room = usize::from(area.width.saturating_sub(width));
    let words = [
        format!("  {source}, {complete}  {sockets}{places}"),
        format!("  {source}, {complete}  {sockets}"),
        format!("  {complete}  {sockets}"),
        format!("  {complete}"),
    ];
    let fits = |words: &&String| text::width(&host) + text::width(words) <= room;
    let left = words.iter().find(fits).map_or("", String::as_str);
    let named = Rect::new(area.x, area.y, area.width - width, 1);
    Line::from(vec![Span::styled(host, theme.strong()), Span::raw(left)]).render(named, buffer);
}

/// The time of what is seen, and how often it is looked.
fn clock(app: &App, look: &Look) -> String {
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
        return format!(
            " {} frame {} of {}  {state}",
            at.strftime("%Y-%m-%d %H:%M:%S %Z"),
            frame.index + 1,
            frame.of
        );
    }
    let every = text::age(u64::try_from(look.pace.every.as_millis()).unwrap_or(u64::MAX));
    match (app.paused.is_some(), look.pace.is_slowed()) {
        (true, _) => format!(" PAUSED at {time}"),
        (false, true) => format!(" {time}  slowed to every {every:#}"),
        (false, false) => format!(" {time}  every {every:#}"),
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
        return put(buffer, area, &text, style);
    }
    if let Some(why) = &app.failed {
        let text = format!("! the last look failed: {}", Safe(why));
        return put(buffer, area, &text, theme.error());
    }
    let own = match app.tab {
        TabId::Overview => "Enter: what is behind it",
        TabId::Machine => "arrows: another state  Enter: all of it  o: its sockets",
        TabId::Sockets => "s sort  c columns  b group  f follow  Enter details  K kill",
        TabId::Findings => "Enter: whole text  o: its sockets",
        TabId::Closings => "Enter: its sockets",
    };
    let replay = if app.setup.replay {
        "space play  , . step  t seek  "
    } else {
        ""
    };
    let keys = format!("? keys  q quit  / filter  {replay}{own}");
    put(buffer, area, &keys, theme.faint());
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
