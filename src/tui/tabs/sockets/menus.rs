//! What can be chosen: columns to show, to sort by, and to group by.

use super::grouping::{self, Grouping};
use super::listing::Order;
use super::{Sockets, columns};
use crate::fields::{self, Field};
use crate::tui::cursor::Cursor;
use crate::tui::dialogs::{Menu, Question};

fn items<'f>(fields: impl Iterator<Item = &'f Field>) -> Vec<(String, String)> {
    fields
        .map(|field| (field.id.to_owned(), field.doc.to_owned()))
        .collect()
}

fn cursor(at: Option<usize>) -> Cursor {
    Cursor {
        at: at.unwrap_or(0),
        top: 0,
    }
}

impl Sockets {
    pub(super) fn sort_menu(&self) -> Menu {
        let now = self.order.map(|order| order.field);
        Menu {
            question: Question::Sort,
            title: "sort by (R: the other way round)",
            items: items(fields::all()),
            many: false,
            marked: Vec::new(),
            cursor: cursor(fields::all().position(|field| Some(field) == now)),
        }
    }

    pub(super) fn columns_menu(&self) -> Menu {
        let marked = fields::all().map(|field| self.shown.contains(&field));
        Menu {
            question: Question::Columns,
            title: "columns (none: those that suit the screen)",
            items: items(fields::all()),
            many: true,
            marked: marked.collect(),
            cursor: Cursor::default(),
        }
    }

    pub(super) fn group_menu(&self) -> Menu {
        let none = ("(nothing)".to_owned(), "every socket in a line".to_owned());
        let now = self.grouping.as_ref().map(|grouping| grouping.field);
        let at = grouping::columns().position(|field| Some(field) == now);
        Menu {
            question: Question::Group,
            title: "group by",
            items: std::iter::once(none)
                .chain(items(grouping::columns()))
                .collect(),
            many: false,
            marked: Vec::new(),
            cursor: cursor(at.map(|at| at + 1)),
        }
    }

    /// Takes what was chosen in a menu.
    pub fn chose(&mut self, question: Question, chosen: &[usize]) {
        match (question, chosen.first()) {
            (Question::Sort, Some(at)) => {
                if let Some(field) = fields::all().nth(*at)
                    && self.order.is_none_or(|order| order.field != field)
                {
                    self.order = Some(Order::natural(field));
                    self.change();
                }
            }
            (Question::Columns, first) => {
                self.columns = first.map(|_| self.arranged(chosen));
                self.change();
            }
            (Question::Group, Some(at)) => {
                let field = at.checked_sub(1).and_then(|at| grouping::columns().nth(at));
                self.grouping = field.map(Grouping::new);
                self.detail = None;
                self.begin();
            }
            (Question::Sort | Question::Group, None) => {}
        }
    }

    /// The chosen columns: those that are shown stay in their order, the others come behind.
    fn arranged(&self, chosen: &[usize]) -> Vec<&'static Field> {
        let chosen: Vec<&'static Field> = fields::all()
            .enumerate()
            .filter(|(at, _)| chosen.contains(at))
            .map(|(_, field)| field)
            .collect();
        let familiar: Vec<&'static Field> = self
            .shown
            .iter()
            .copied()
            .chain(columns::unasked(u16::MAX))
            .collect();
        let mut arranged: Vec<&'static Field> = Vec::new();
        let known = familiar.into_iter().filter(|field| chosen.contains(field));
        for field in known.chain(chosen.iter().copied()) {
            if !arranged.contains(&field) {
                arranged.push(field);
            }
        }
        arranged
    }
}
