//! What is shown, and how what happens changes it.

mod answers;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::tz::TimeZone;
use ratatui::crossterm::event::{KeyEvent, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

use super::dialogs::{Asking, Dialog, Sure};
use super::draw::Layout;
use super::keys::{self, Action, Key, Scope};
use super::look::{Look, Row};
use super::msg::{Effect, Msg, Seek, Wish};
use super::tabs::{Closings, Findings, Machine, Overview, Request, Sockets, Tab, TabId, View};
use super::theme::Theme;
use super::trend::Trend;
use crate::query::Filter;
use crate::render::text;

/// The intervals that the keys step through, milliseconds.
const STEPS: [u64; 12] = [
    250, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 300_000, 900_000, 3_600_000,
];

/// With what a dashboard begins.
#[derive(Clone, Debug)]
pub struct Setup {
    /// how the terminal shows things
    pub theme: Theme,
    /// its columns and rows
    pub size: (u16, u16),
    /// how often it is looked
    pub interval: Duration,
    /// whether a recording is replayed
    pub replay: bool,
    /// what to put behind a command so that it looks at the same machine
    pub again: String,
    /// the reader's clock
    pub zone: TimeZone,
    /// the tab that is seen first
    pub tab: TabId,
    /// the file that `e` offers, without its ending
    pub export: String,
}

/// A word at the foot of the screen, until the next key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// what is said, safe to print
    pub text: String,
    /// whether something went wrong
    pub wrong: bool,
}

/// Everything that is shown.
#[derive(Debug)]
pub struct App {
    pub(super) setup: Setup,
    pub(super) tab: TabId,
    pub(super) look: Option<Box<Look>>,
    pub(super) trend: Trend,
    /// what was remembered when the screen began to stand still
    pub(super) paused: Option<Trend>,
    /// why the last look failed
    pub(super) failed: Option<String>,
    pub(super) notice: Option<Notice>,
    pub(super) dialog: Option<Dialog>,
    pub(super) overview: Overview,
    pub(super) machine: Machine,
    pub(super) sockets: Sockets,
    pub(super) findings: Findings,
    pub(super) closings: Closings,
    /// whether a replay plays, and how fast
    pub(super) playing: (bool, f64),
    /// what was typed, by what it was for
    typed: Vec<(Asking, String)>,
    /// the filter whose names are being looked up
    awaited: Option<String>,
    wish: Wish,
}

impl App {
    /// A dashboard that has seen nothing yet.
    pub fn new(setup: Setup) -> Self {
        Self {
            tab: setup.tab,
            look: None,
            trend: Trend::default(),
            paused: None,
            failed: None,
            notice: None,
            dialog: None,
            overview: Overview::default(),
            machine: Machine::default(),
            sockets: Sockets::default(),
            findings: Findings::default(),
            closings: Closings::default(),
            playing: (setup.replay, 1.0),
            typed: Vec::new(),
            awaited: None,
            wish: Wish::default(),
            setup,
        }
    }

    /// The look that is shown.
    pub fn look(&self) -> Option<&Look> {
        self.look.as_deref()
    }

    /// The tab that is shown.
    pub const fn tab(&self) -> TabId {
        self.tab
    }

    /// The rows that the tab of sockets shows, in their order.
    pub fn rows(&self) -> &[Row] {
        self.sockets.rows()
    }

    /// Shows a tab.
    pub fn show(&mut self, tab: TabId) {
        self.tab = tab;
    }

    /// Closes that this side began in each of the last `seconds`, as [`Trend::closes`] has them.
    pub fn closes(&self, seconds: usize) -> Vec<Option<u32>> {
        self.seen_trend().closes(seconds)
    }

    /// What is remembered of the looks up to the one that is shown.
    fn seen_trend(&self) -> &Trend {
        self.paused.as_ref().unwrap_or(&self.trend)
    }

    /// The columns of the screen.
    pub fn columns(&self) -> usize {
        usize::from(self.setup.size.0)
    }

    /// How often it is looked.
    pub const fn interval(&self) -> Duration {
        self.setup.interval
    }

    /// The parts of the screen.
    pub(super) fn layout(&self) -> Layout {
        Layout::new(self.setup.size)
    }

    /// Shows the sockets that fit a filter, whose names are looked up already, as if it had been typed.
    pub fn filter(&mut self, text: &str, filter: Filter) -> Vec<Effect> {
        self.awaited = Some(text.to_owned());
        self.update(Msg::Resolved {
            text: text.to_owned(),
            filter: Ok(filter),
        })
    }

    /// What happens changes what is shown, and asks for what has to be done.
    pub fn update(&mut self, msg: Msg) -> Vec<Effect> {
        let mut effects = match msg {
            Msg::Key(event) => self.key(event),
            Msg::Mouse(event) => self.mouse(event),
            Msg::Paste(text) => {
                if let Some(dialog) = &mut self.dialog {
                    dialog.paste(&text);
                }
                Vec::new()
            }
            Msg::Resize(columns, rows) => {
                self.setup.size = (columns, rows);
                self.refit();
                Vec::new()
            }
            Msg::Look(look) => {
                self.looked(look);
                Vec::new()
            }
            Msg::Failed(why) => {
                self.failed = Some(why);
                Vec::new()
            }
            Msg::Resolved { text, .. } if !self.awaits(&text) => Vec::new(),
            Msg::Resolved { text, filter } => {
                self.awaited = None;
                match filter {
                    Ok(filter) => {
                        self.tab = TabId::Sockets;
                        self.dialog = None;
                        self.remember(Asking::Filter, &text);
                        self.sockets.set_filter(&text, filter);
                        self.refit();
                    }
                    Err(error) => self.ask(Asking::Filter, &text, Some(error)),
                }
                Vec::new()
            }
            Msg::Killed(result) => {
                self.dialog = Some(Dialog::Sure(Sure::done(result)));
                vec![Effect::LookNow]
            }
            Msg::Exported(result) => {
                self.say(result);
                Vec::new()
            }
            Msg::Playing { playing, speed } => {
                self.playing = (playing, speed);
                Vec::new()
            }
        };
        let wish = self.sockets.wish(self.tab);
        if wish != self.wish {
            self.wish = wish;
            effects.push(Effect::Wish(wish));
        }
        effects
    }

    /// Whether somebody still waits for the names in a filter, and does nothing else meanwhile.
    fn awaits(&self, text: &str) -> bool {
        self.awaited.as_deref() == Some(text)
            && match &self.dialog {
                None => true,
                Some(Dialog::Prompt(prompt)) => {
                    prompt.asking == Asking::Filter && prompt.line.text() == text
                }
                Some(_) => false,
            }
    }

    fn looked(&mut self, look: Box<Look>) {
        self.failed = None;
        self.trend.add(&look);
        if self.paused.is_none() || look.frame.is_some() {
            self.look = Some(look);
            self.refit();
        }
    }

    /// Lets every tab see what there is now.
    fn refit(&mut self) {
        let Self {
            look,
            trend,
            paused,
            setup,
            overview,
            machine,
            sockets,
            findings,
            closings,
            ..
        } = self;
        let Some(look) = look else {
            return;
        };
        let view = View {
            look,
            trend: paused.as_ref().unwrap_or(trend),
            theme: setup.theme,
            body: Layout::new(setup.size).body,
            again: &setup.again,
            zone: &setup.zone,
        };
        overview.looked(&view);
        machine.looked(&view);
        sockets.looked(&view);
        findings.looked(&view);
        closings.looked(&view);
    }

    /// What a tab may see; `None` before the first look.
    pub(super) fn view(&self) -> Option<View<'_>> {
        Some(View {
            look: self.look.as_deref()?,
            trend: self.seen_trend(),
            theme: self.setup.theme,
            body: self.layout().body,
            again: &self.setup.again,
            zone: &self.setup.zone,
        })
    }

    pub(super) fn current(&self) -> &dyn Tab {
        match self.tab {
            TabId::Overview => &self.overview,
            TabId::Machine => &self.machine,
            TabId::Sockets => &self.sockets,
            TabId::Findings => &self.findings,
            TabId::Closings => &self.closings,
        }
    }

    /// Has the tab do something that it needs to see for.
    fn tell(&mut self, what: impl FnOnce(&mut dyn Tab, &View<'_>) -> Vec<Request>) -> Vec<Request> {
        let Self {
            look,
            trend,
            paused,
            setup,
            tab,
            overview,
            machine,
            sockets,
            findings,
            closings,
            ..
        } = self;
        let Some(look) = look else {
            return Vec::new();
        };
        let view = View {
            look,
            trend: paused.as_ref().unwrap_or(trend),
            theme: setup.theme,
            body: Layout::new(setup.size).body,
            again: &setup.again,
            zone: &setup.zone,
        };
        let current: &mut dyn Tab = match tab {
            TabId::Overview => overview,
            TabId::Machine => machine,
            TabId::Sockets => sockets,
            TabId::Findings => findings,
            TabId::Closings => closings,
        };
        what(current, &view)
    }

    /// Where a key counts now, the first first.
    pub(super) fn scopes(&self) -> Vec<Scope> {
        if let Some(dialog) = &self.dialog {
            return dialog.scopes();
        }
        let own = match self.tab {
            TabId::Machine => Some(Scope::Machine),
            TabId::Sockets => Some(Scope::Sockets),
            TabId::Findings => Some(Scope::Findings),
            TabId::Overview | TabId::Closings => None,
        };
        let replay = self.setup.replay.then_some(Scope::Replay);
        let own = own.into_iter().chain(replay);
        own.chain([Scope::Moving, Scope::Everywhere]).collect()
    }

    fn key(&mut self, event: KeyEvent) -> Vec<Effect> {
        if event.is_release() {
            return Vec::new();
        }
        let Some(key) = Key::of(event) else {
            return Vec::new();
        };
        // Behind a line that is typed nobody has seen it yet.
        if !matches!(self.dialog, Some(Dialog::Prompt(_))) {
            self.notice = None;
        }
        let action = keys::action(key, &self.scopes());
        match (action, key) {
            (Some(action), _) => self.act(action),
            (None, Key::Char(c)) => {
                if let Some(dialog) = &mut self.dialog {
                    dialog.typed(c);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn act(&mut self, action: Action) -> Vec<Effect> {
        if self.dialog.is_some() {
            return self.answer(action);
        }
        match action {
            Action::Quit => return vec![Effect::Quit],
            Action::Help => self.dialog = Some(Dialog::Help(super::cursor::Cursor::default())),
            Action::NextTab => self.tab = self.tab.next(),
            Action::PreviousTab => self.tab = self.tab.previous(),
            Action::Tab(n) => self.tab = TabId::of(n).unwrap_or(self.tab),
            Action::Pause if self.setup.replay => return vec![Effect::Play(!self.playing.0)],
            Action::Pause => {
                self.paused = match self.paused {
                    Some(_) => None,
                    None => self.look.as_ref().map(|_| self.trend.clone()),
                };
                return if self.paused.is_none() {
                    vec![Effect::LookNow]
                } else {
                    Vec::new()
                };
            }
            Action::LookNow => return vec![Effect::LookNow],
            Action::IntervalUp => return self.interval_by(true),
            Action::IntervalDown => return self.interval_by(false),
            Action::Redraw => return vec![Effect::Redraw],
            Action::Suspend => return vec![Effect::Suspend],
            Action::Filter => {
                let text = self.sockets.filter_text().to_owned();
                self.ask(Asking::Filter, &text, None);
            }
            Action::SortBy => {
                let text = self.sockets.sort_text();
                self.ask(Asking::Sort, &text, None);
            }
            Action::Export => {
                let ending = if self.tab == TabId::Sockets {
                    "sockets"
                } else {
                    self.tab.slug()
                };
                let text = format!("{}-{ending}.json", self.setup.export);
                self.ask(Asking::Export, &text, None);
            }
            Action::Seek => self.ask(Asking::Seek, "", None),
            Action::FrameBack => return vec![Effect::Seek(Seek::By(-1))],
            Action::FrameForward => return vec![Effect::Seek(Seek::By(1))],
            Action::FrameFirst => return vec![Effect::Seek(Seek::To(0))],
            Action::FrameLast => return vec![Effect::Seek(Seek::To(usize::MAX))],
            Action::SpeedUp => return vec![Effect::Speed((self.playing.1 * 2.0).min(64.0))],
            Action::SpeedDown => return vec![Effect::Speed((self.playing.1 / 2.0).max(0.125))],
            other => {
                let requests = self.tell(|tab, view| tab.act(other, view));
                return self.requests(requests);
            }
        }
        Vec::new()
    }

    fn requests(&mut self, requests: Vec<Request>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for request in requests {
            match request {
                Request::Sockets(text) => match Filter::parse(std::slice::from_ref(&text)) {
                    Ok(filter) => {
                        self.awaited = Some(text.clone());
                        effects.push(Effect::Resolve { text, filter });
                    }
                    Err(error) => self.say(Err(error.to_string())),
                },
                Request::Machine(state) => {
                    self.tab = TabId::Machine;
                    self.machine.choose(state);
                }
                Request::Finding(at) => {
                    self.tab = TabId::Findings;
                    self.findings.choose(at);
                }
                Request::Menu(menu) => self.dialog = Some(Dialog::Menu(menu)),
                Request::Kill(rows) => self.ask_to_kill(&rows),
                Request::Say(text) => self.say(Ok(text)),
                Request::Wrong(text) => self.say(Err(text)),
            }
        }
        self.refit();
        effects
    }

    fn ask_to_kill(&mut self, rows: &[Row]) {
        if self.setup.replay {
            return self.say(Err(
                "this is a recording: its sockets cannot be destroyed".to_owned()
            ));
        }
        let Some(look) = &self.look else {
            return;
        };
        let sockets = rows
            .iter()
            .filter_map(|row| Some((row.place, *look.socket(*row)?)));
        let columns = self.setup.size.0;
        self.dialog = Some(Dialog::Sure(Sure::ask(sockets.collect(), look, columns)));
    }

    fn say(&mut self, result: Result<String, String>) {
        let (text, wrong) = match result {
            Ok(text) => (text, false),
            Err(text) => (text, true),
        };
        self.notice = Some(Notice { text, wrong });
    }

    fn interval_by(&mut self, up: bool) -> Vec<Effect> {
        if self.setup.replay {
            let text = "a recording has its own pace: [ and ] change how fast it plays";
            self.say(Err(text.to_owned()));
            return Vec::new();
        }
        let now = u64::try_from(self.setup.interval.as_millis()).unwrap_or(u64::MAX);
        let next = if up {
            STEPS.iter().find(|step| **step > now)
        } else {
            STEPS.iter().rev().find(|step| **step < now)
        };
        let every = |interval: &Duration| {
            let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
            text::age(millis)
        };
        let Some(next) = next else {
            let now = every(&self.setup.interval);
            self.say(Ok(format!("every {now:#}: the keys go no further")));
            return Vec::new();
        };
        self.setup.interval = Duration::from_millis(*next);
        self.say(Ok(format!("every {:#}", every(&self.setup.interval))));
        vec![Effect::Interval(self.setup.interval)]
    }

    fn mouse(&mut self, event: MouseEvent) -> Vec<Effect> {
        let at = Position::new(event.column, event.row);
        match event.kind {
            MouseEventKind::ScrollUp => self.wheel(Action::Up),
            MouseEventKind::ScrollDown => self.wheel(Action::Down),
            MouseEventKind::Down(MouseButton::Left) if self.dialog.is_none() => {
                self.notice = None;
                let layout = self.layout();
                if let Some(tab) = layout.tab_at(at, self.tab) {
                    self.tab = tab;
                    return Vec::new();
                }
                if layout.body.contains(at) {
                    let requests = self.tell(|tab, view| tab.click(at, view));
                    return self.requests(requests);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn wheel(&mut self, action: Action) -> Vec<Effect> {
        let times = match self.dialog {
            // A line has nothing to scroll, and what is said of it stays.
            Some(Dialog::Prompt(_)) => 0,
            _ => 3,
        };
        (0..times).flat_map(|_| self.act(action)).collect()
    }
}
