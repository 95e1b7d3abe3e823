//! Sockets counted by what one column says of them.

use crate::fields::{self, Field};
use crate::query::Filter;
use crate::render::groups::{Groups, Members};
use crate::tui::cursor::Cursor;
use crate::tui::look::Look;

/// The columns that are worth it, in the order of the menu.
const BY: [&str; 15] = [
    "state",
    "process",
    "peer-address",
    "local-port",
    "unit",
    "user",
    "waiting-on",
    "peer-port",
    "local-address",
    "timer",
    "container",
    "pod",
    "cgroup",
    "interface",
    "netns",
];

/// The columns that can be grouped by.
pub(super) fn columns() -> impl Iterator<Item = &'static Field> {
    BY.iter().filter_map(|id| fields::by_id(id).ok())
}

/// Sockets that one column says the same of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// what it says, safe to print
    pub(super) cell: String,
    pub(super) sockets: u64,
}

/// The groups, or one of them.
#[derive(Clone, Debug)]
pub(super) struct Grouping {
    pub(super) field: &'static Field,
    /// the largest first
    pub(super) groups: Vec<Group>,
    /// the sockets of all of them
    pub(super) total: u64,
    pub(super) cursor: Cursor,
    /// the chosen one, wherever it comes to stand
    pub(super) chosen: Option<String>,
    /// the one whose sockets are shown
    pub(super) opened: Option<String>,
}

impl Grouping {
    /// By `field`, nothing counted yet.
    pub(super) fn new(field: &'static Field) -> Self {
        Self {
            field,
            groups: Vec::new(),
            total: 0,
            cursor: Cursor::default(),
            chosen: None,
            opened: None,
        }
    }

    /// Counts what fits.
    pub(super) fn count(&mut self, look: &Look, filter: &Filter) {
        let mut groups = Groups::new(vec![self.field], Members::None);
        for (row, _) in look.rows() {
            look.record(row, |record| {
                if filter.matches(record) {
                    // Counting into a String does not fail.
                    let _ = groups.push(record);
                }
            });
        }
        let counted = groups.counted(None);
        self.total = counted.total;
        self.groups = counted
            .groups
            .into_iter()
            .map(|group| Group {
                cell: group.cells.into_iter().collect(),
                sockets: group.sockets,
            })
            .collect();
        let chosen = self.chosen.as_ref();
        let found = chosen.and_then(|cell| self.groups.iter().position(|own| own.cell == *cell));
        if let Some(at) = found {
            self.cursor.at = at;
        }
    }

    /// The line that is chosen was moved to.
    pub(super) fn choose(&mut self) {
        let group = self.groups.get(self.cursor.at);
        self.chosen = group.map(|group| group.cell.clone());
    }

    /// The chosen group.
    pub(super) fn current(&self) -> Option<&Group> {
        self.groups.get(self.cursor.at)
    }
}
