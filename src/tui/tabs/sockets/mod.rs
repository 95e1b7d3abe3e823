//! Sockets as rows.
//!
//! [`Tab::looked`] selects and sorts once a look or a change; a row is formatted only while it is on the screen.

mod columns;
mod detail;
mod draw;
mod follow;
mod grouping;
mod listing;
mod menus;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};

use self::columns::Widths;
use self::detail::Detail;
use self::draw::Parts;
use self::follow::Followed;
use self::grouping::Grouping;
use self::listing::{Id, Order};
use super::{Request, Tab, TabId, View};
use crate::fields::{Field, Needed};
use crate::model::words::thousands;
use crate::query::Filter;
use crate::tui::cursor::Cursor;
use crate::tui::keys::Action;
use crate::tui::look::{Look, Row};
use crate::tui::msg::Wish;

/// So many sockets of a group are offered to be destroyed at once.
const KILLED: usize = 1_000;

/// Which look was read: where it lies, and when it was taken. A look is made while the one before is still shown, so
/// that two in a row never lie in one place, not even those of one frame.
type Stamp = (usize, Timestamp);

/// The tab.
#[derive(Debug)]
pub struct Sockets {
    text: String,
    filter: Filter,
    order: Option<Order>,
    /// the columns that somebody chose; `None` for those that suit the screen
    columns: Option<Vec<&'static Field>>,
    /// the columns that are shown, on the screen or beside it
    shown: Vec<&'static Field>,
    /// how many of them never scroll away
    pinned: usize,
    /// so many of the others are to the left of the screen
    shift: usize,
    widths: Widths,
    grouping: Option<Grouping>,
    rows: Vec<Row>,
    cursor: Cursor,
    /// the socket that is chosen, wherever it comes to stand; `None` while nobody has moved: then it is the first line
    chosen: Option<Id>,
    /// its row, in the list or not; `None` if there is none
    row: Option<Row>,
    detail: Option<Detail>,
    followed: Option<Followed>,
    stamp: Option<Stamp>,
    /// whether something else than the look changed what is listed
    changed: bool,
}

impl Default for Sockets {
    fn default() -> Self {
        Self {
            text: String::new(),
            filter: Filter::default(),
            order: Order::parse("state").ok(),
            columns: None,
            shown: columns::unasked(0),
            pinned: 1,
            shift: 0,
            widths: Widths::default(),
            grouping: None,
            rows: Vec::new(),
            cursor: Cursor::default(),
            chosen: None,
            row: None,
            detail: None,
            followed: None,
            stamp: None,
            changed: true,
        }
    }
}

impl Sockets {
    /// The rows that fit, in their order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Shows the sockets that fit `filter`, which was typed as `text`, from the next [`Tab::looked`] on.
    pub fn set_filter(&mut self, text: &str, filter: Filter) {
        self.text = text.trim().to_owned();
        self.filter = filter;
        self.grouping = self.grouping.as_ref().map(|own| Grouping::new(own.field));
        self.detail = None;
        self.begin();
    }

    /// The filter as it was typed.
    pub fn filter_text(&self) -> &str {
        &self.text
    }

    /// The column that is sorted by, as [`Sockets::sort_by`] reads it.
    pub fn sort_text(&self) -> String {
        self.order.map_or(String::new(), |order| {
            let sign = if order.descending { "-" } else { "" };
            format!("{sign}{}", order.field.id)
        })
    }

    /// Sorts by `[-]COLUMN`; by nothing as the kernel tells them.
    ///
    /// # Errors
    /// When there is no such column, in words that are safe to print.
    pub fn sort_by(&mut self, text: &str) -> Result<(), String> {
        self.order = match text {
            "" => None,
            text => Some(Order::parse(text)?),
        };
        self.change();
        Ok(())
    }

    /// What has to be collected for what is shown; on another tab nothing. States, ends, queues, owners, ages and for
    /// whom a connection waits every look has.
    pub fn wish(&self, tab: TabId) -> Wish {
        if tab != TabId::Sockets {
            return Wish::default();
        }
        let always = |field: &Field| matches!(field.id, "age" | "waiting-on");
        let chosen = self.columns.iter().flatten().copied();
        let sorted = self.order.map(|order| order.field);
        let grouped = self.grouping.as_ref().map(|grouping| grouping.field);
        let columns = chosen.chain(sorted).chain(grouped);
        let columns: Vec<&'static Field> = columns.filter(|field| !always(field)).collect();
        let needed = Needed::by(&columns).and(self.filter.needed_but(&always));
        Wish {
            cookie: self
                .detail
                .as_ref()
                .and_then(|_| self.chosen.and_then(Id::cookie)),
            needed: Needed {
                owners: false,
                ..needed
            },
        }
    }

    /// What is listed is another list: one stands at its beginning.
    fn begin(&mut self) {
        self.cursor = Cursor::default();
        self.chosen = None;
        self.change();
    }

    /// What is listed, or how, was changed by a key.
    fn change(&mut self) {
        self.widths.clear();
        self.changed = true;
    }

    /// The groups, while they are what is listed.
    fn groups(&self) -> Option<&Grouping> {
        let own = self.grouping.as_ref();
        own.filter(|grouping| grouping.opened.is_none())
    }

    fn groups_mut(&mut self) -> Option<&mut Grouping> {
        let own = self.grouping.as_mut();
        own.filter(|grouping| grouping.opened.is_none())
    }

    fn list(&mut self, look: &Look) {
        if let Some(grouping) = &mut self.grouping
            && grouping.opened.is_none()
        {
            grouping.count(look, &self.filter);
        }
        let group = self.grouping.as_ref().and_then(|grouping| {
            let cell = grouping.opened.as_deref()?;
            Some((grouping.field, cell))
        });
        let rows = listing::select(look, &self.filter, group);
        self.rows = match self.order {
            Some(order) => listing::sort(look, rows, order),
            None => rows,
        };
        self.settle(look);
        if let Some(followed) = &mut self.followed {
            followed.listed = self.rows.iter().any(|row| followed.id.is(look, *row));
        }
    }

    /// Finds the chosen socket again.
    fn settle(&mut self, look: &Look) {
        let Some(id) = self.chosen else {
            self.cursor.at = self.cursor.at.min(self.rows.len().saturating_sub(1));
            self.row = self.rows.get(self.cursor.at).copied();
            return;
        };
        if let Some(at) = self.rows.iter().position(|row| id.is(look, *row)) {
            self.cursor.at = at;
            self.row = self.rows.get(at).copied();
        } else if self.detail.is_some() {
            // It left the list, or is gone: what is open does not turn into another socket.
            self.row = id.find(look);
        } else {
            self.cursor.at = self.cursor.at.min(self.rows.len().saturating_sub(1));
            self.row = self.rows.get(self.cursor.at).copied();
            self.chosen = self.row.and_then(|row| Id::of(look, row));
        }
    }

    /// One moved to a line.
    fn choose(&mut self, look: &Look) {
        self.row = self.rows.get(self.cursor.at).copied();
        self.chosen = self.row.and_then(|row| Id::of(look, row));
        if let Some(detail) = &mut self.detail {
            *detail = Detail::default();
        }
    }

    fn moved(&mut self, action: Action, parts: &Parts, look: &Look) {
        let page = usize::from(parts.rows.height);
        if let Some(grouping) = self.groups_mut() {
            if grouping.cursor.act(action, grouping.groups.len(), page) {
                grouping.choose();
            }
            return;
        }
        if let (Some(detail), Action::PageUp | Action::PageDown) = (&mut self.detail, action) {
            let page = parts.detail.map_or(0, |area| usize::from(area.height));
            detail.cursor.scroll(action, detail.lines.len(), page);
            return;
        }
        if self.cursor.act(action, self.rows.len(), page) {
            self.choose(look);
            if action == Action::First && self.detail.is_none() {
                // The top stays the top.
                self.chosen = None;
            }
        }
    }

    fn open(&mut self, look: &Look) {
        if let Some(grouping) = self.groups_mut() {
            let opened = grouping.current().map(|group| group.cell.clone());
            grouping.chosen.clone_from(&opened);
            grouping.opened = opened;
            return self.begin();
        }
        if self.detail.take().is_none() && self.row.is_some() {
            self.choose(look);
            self.detail = Some(Detail::default());
        }
    }

    /// Closes what was opened last.
    fn back(&mut self) {
        if self.detail.take().is_some() {
            // What is open may have left the list.
            return self.change();
        }
        if self.followed.take().is_some() {
            return;
        }
        match &mut self.grouping {
            Some(grouping) if grouping.opened.is_some() => {
                grouping.opened = None;
                self.begin();
            }
            Some(_) => {
                self.grouping = None;
                self.begin();
            }
            None if !self.filter.is_empty() || !self.text.is_empty() => {
                self.text.clear();
                self.filter = Filter::default();
                self.change();
            }
            None => {}
        }
    }

    /// Follows the chosen socket; one that is followed no more.
    fn follow(&mut self, look: &Look) -> Vec<Request> {
        if self.groups().is_some() {
            return vec![Request::Wrong(
                "a group cannot be followed: Enter opens it".to_owned(),
            )];
        }
        let Some(next) = self.row.and_then(|row| Followed::new(look, row)) else {
            return vec![Request::Wrong("there is no socket to follow".to_owned())];
        };
        let same = self
            .followed
            .as_ref()
            .is_some_and(|followed| followed.id == next.id);
        self.chosen = Some(next.id);
        self.followed = (!same).then_some(next);
        Vec::new()
    }

    /// The chosen socket, or those of the chosen group.
    fn kill(&self, look: &Look) -> Vec<Request> {
        let Some(grouping) = self.groups() else {
            return match self.row {
                Some(row) => vec![Request::Kill(vec![row])],
                None => vec![Request::Wrong("there is no socket to kill".to_owned())],
            };
        };
        let Some(group) = grouping.current() else {
            return vec![Request::Wrong("there is no group to kill".to_owned())];
        };
        let only = (grouping.field, group.cell.as_str());
        let mut rows = listing::select(look, &self.filter, Some(only));
        let all = rows.len();
        rows.truncate(KILLED);
        let mut requests = Vec::new();
        if all > KILLED {
            let (first, all) = (thousands(KILLED as u64), thousands(all as u64));
            requests.push(Request::Say(format!(
                "the first {first} of {all}: no more are killed at once"
            )));
        }
        requests.push(Request::Kill(rows));
        requests
    }

    /// Sorts by the shown column so many to the right.
    fn sort_beside(&mut self, right: bool) {
        let last = self.shown.len().saturating_sub(1);
        let now = self.order.and_then(|order| {
            let mut columns = self.shown.iter();
            columns.position(|field| *field == order.field)
        });
        let at = match (now, right) {
            (Some(at), true) => (at + 1).min(last),
            (Some(at), false) => at.saturating_sub(1),
            (None, true) => 0,
            (None, false) => last,
        };
        if now != Some(at)
            && let Some(field) = self.shown.get(at)
        {
            self.order = Some(Order::natural(field));
            self.change();
        }
    }

    fn reverse(&mut self) {
        if let Some(order) = &mut self.order {
            order.descending = !order.descending;
            self.change();
        }
    }

    /// The columns that suit the screen.
    fn fit_columns(&mut self, view: &View<'_>) {
        let mut shown = match &self.columns {
            Some(chosen) => chosen.clone(),
            None => columns::unasked(view.body.width),
        };
        // By what one sorts one wants to see.
        let sorted = self.order.map(|order| order.field);
        if let (None, Some(field)) = (&self.columns, sorted)
            && !shown.contains(&field)
        {
            shown.insert(1.min(shown.len()), field);
        }
        self.pinned = 1;
        if view.look.places.len() > 1
            && !shown.iter().any(|field| field.id == "netns")
            && let Ok(netns) = crate::fields::by_id("netns")
        {
            // Where both have no room on the left, the state stays there.
            let at = usize::from(view.body.width < 80).min(shown.len());
            shown.insert(at, netns);
        }
        if shown.first().is_some_and(|field| field.id == "netns") {
            self.pinned = 2;
        }
        if self.shown != shown {
            self.shown = shown;
            self.widths.clear();
        }
        let most = self.shown.len().saturating_sub(self.pinned + 1);
        self.shift = self.shift.min(most);
    }
}

impl Tab for Sockets {
    fn act(&mut self, action: Action, view: &View<'_>) -> Vec<Request> {
        let look = view.look;
        match action {
            Action::Open => self.open(look),
            Action::Back => self.back(),
            Action::Left => self.shift = self.shift.saturating_sub(1),
            Action::Right => self.shift += 1,
            Action::SortMenu => return vec![Request::Menu(self.sort_menu())],
            Action::Columns => return vec![Request::Menu(self.columns_menu())],
            Action::Group => return vec![Request::Menu(self.group_menu())],
            Action::SortNext => self.sort_beside(true),
            Action::SortPrevious => self.sort_beside(false),
            Action::Reverse => self.reverse(),
            Action::Follow => return self.follow(look),
            Action::Kill => return self.kill(look),
            other => self.moved(other, &self.parts(view), look),
        }
        Vec::new()
    }

    fn click(&mut self, at: Position, view: &View<'_>) -> Vec<Request> {
        let parts = self.parts(view);
        let line = usize::from(at.y.saturating_sub(parts.rows.y));
        if parts.heads.contains(at) && self.groups().is_none() {
            if let Some(field) = self.column_at(at, &parts) {
                if self.order.is_some_and(|order| order.field == field) {
                    self.reverse();
                } else {
                    self.order = Some(Order::natural(field));
                    self.change();
                }
            }
        } else if parts.rows.contains(at) {
            if let Some(grouping) = self.groups_mut() {
                let chosen = grouping.cursor.top + line;
                if chosen < grouping.groups.len() {
                    grouping.cursor.at = chosen;
                    grouping.choose();
                }
            } else if self.cursor.top + line < self.rows.len() {
                self.cursor.at = self.cursor.top + line;
                self.choose(view.look);
            }
        }
        Vec::new()
    }

    fn looked(&mut self, view: &View<'_>) {
        let look = view.look;
        let stamp = (std::ptr::from_ref(look).addr(), look.taken);
        let fresh = self.stamp != Some(stamp);
        if fresh && let Some(followed) = &mut self.followed {
            followed.looked(look);
        }
        if fresh || self.changed {
            self.list(look);
            self.stamp = Some(stamp);
            self.changed = false;
        }
        self.fit_columns(view);
        let parts = self.parts(view);
        let page = usize::from(parts.rows.height);
        if let Some(grouping) = &mut self.grouping {
            grouping.cursor.fit(grouping.groups.len(), page);
        }
        self.cursor.fit(self.rows.len(), page);
        self.measure(look, page);
        if let (Some(detail), Some(area)) = (&mut self.detail, parts.detail) {
            detail.fill(self.row, usize::from(area.width), fresh, view);
            let most = detail.lines.len().saturating_sub(usize::from(area.height));
            detail.cursor.top = detail.cursor.top.min(most);
        }
    }

    fn draw(&self, area: Rect, buffer: &mut Buffer, view: &View<'_>) {
        self.paint(area, buffer, view);
    }
}
