//! Which sockets are shown, in which order, and what tells one from the others from look to look.

use std::num::NonZeroU64;

use rustc_hash::FxHashMap;

use crate::fields::{self, Field, Key, Kind};
use crate::model::{Endpoint, Protocol, Socket};
use crate::query::Filter;
use crate::render::cell;
use crate::render::text::Safe;
use crate::tui::look::{Look, Place, Row};

/// What tells a socket from all others, whatever its place in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    /// the inode of its network namespace; `None` where there is only one
    namespace: Option<u64>,
    name: Name,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Cookie(NonZeroU64),
    /// `/proc` tells no cookie
    Ends(Protocol, Endpoint, Endpoint),
}

impl Name {
    fn of(socket: &Socket) -> Self {
        match socket.cookie {
            Some(cookie) => Self::Cookie(cookie),
            None => Self::Ends(socket.protocol, socket.local, socket.remote),
        }
    }
}

impl Id {
    /// Of the socket in `row`.
    pub(super) fn of(look: &Look, row: Row) -> Option<Self> {
        let place = look.place(row)?;
        Some(Self {
            namespace: inode(place),
            name: Name::of(look.socket(row)?),
        })
    }

    /// The kernel's identity.
    pub(super) const fn cookie(self) -> Option<u64> {
        match self.name {
            Name::Cookie(cookie) => Some(cookie.get()),
            Name::Ends(..) => None,
        }
    }

    /// Whether it is the socket in `row`.
    pub(super) fn is(self, look: &Look, row: Row) -> bool {
        look.place(row)
            .is_some_and(|place| inode(place) == self.namespace)
            && look
                .socket(row)
                .is_some_and(|socket| Name::of(socket) == self.name)
    }

    /// Where it is among all sockets.
    pub(super) fn find(self, look: &Look) -> Option<Row> {
        let mut own = look
            .rows()
            .filter(|(_, socket)| Name::of(socket) == self.name);
        own.find(|(row, _)| self.is(look, *row)).map(|(row, _)| row)
    }
}

fn inode(place: &Place) -> Option<u64> {
    place.namespace.as_ref().map(|namespace| namespace.inode)
}

/// The column that is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// which
    pub(super) field: &'static Field,
    /// the largest first
    pub(super) descending: bool,
}

impl Order {
    /// Reads `COLUMN` or `-COLUMN`.
    ///
    /// # Errors
    /// When there is no such column, in words that are safe to print.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (descending, id) = match text.strip_prefix('-') {
            Some(id) => (true, id),
            None => (false, text),
        };
        match fields::by_id(id) {
            Ok(field) => Ok(Self { field, descending }),
            Err(unknown) if unknown.near.is_empty() => {
                Err(format!("there is no column '{}'; s lists all", Safe(id)))
            }
            Err(unknown) => Err(format!(
                "there is no column '{}'; did you mean {}?",
                Safe(id),
                unknown.near.join(" or ")
            )),
        }
    }

    /// The way round in which a column is mostly wanted: amounts and times from the largest down, names from `a` on.
    pub(super) fn natural(field: &'static Field) -> Self {
        let amount = field.unit.is_some() || matches!(field.kind(), Kind::Time | Kind::Bytes);
        Self {
            field,
            descending: amount,
        }
    }
}

/// The rows that fit the filter and, of a group, have this cell.
pub(super) fn select(look: &Look, filter: &Filter, group: Option<(&Field, &str)>) -> Vec<Row> {
    if filter.is_empty() && group.is_none() {
        return look.rows().map(|(row, _)| row).collect();
    }
    let mut text = String::new();
    let mut fits = |row: Row| {
        look.record(row, |record| {
            if !filter.matches(record) {
                return false;
            }
            let Some((field, wanted)) = group else {
                return true;
            };
            text.clear();
            cell::write(&mut text, &field.value(record).grouped(), false).is_ok() && text == wanted
        })
        .unwrap_or(false)
    };
    let all = look.rows().map(|(row, _)| row);
    all.filter(|row| fits(*row)).collect()
}

/// Keys of one kind with their rows: sixteen bytes a socket where the key is a number.
fn arrange<K: Ord>(mut keys: Vec<(K, Row)>, descending: bool, sorted: &mut Vec<Row>) {
    keys.sort_unstable_by(|a, b| {
        let by_key = if descending {
            b.0.cmp(&a.0)
        } else {
            a.0.cmp(&b.0)
        };
        // Equal ones stay as they came.
        by_key.then(a.1.cmp(&b.1))
    });
    sorted.extend(keys.into_iter().map(|(_, row)| row));
}

/// The rows in their order; those of which the column is not known come last in either direction.
pub(super) fn sort(look: &Look, rows: Vec<Row>, order: Order) -> Vec<Row> {
    let (mut numbers, mut addresses, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    let mut unknown = Vec::new();
    // Few names have many sockets: each is kept once.
    let mut names: FxHashMap<Box<str>, u32> = FxHashMap::default();
    for row in &rows {
        let key = look.record(*row, |record| order.field.value(record).key());
        match key.flatten() {
            Some(Key::Number(n)) => numbers.push((n, *row)),
            Some(Key::Address(ip, port)) => addresses.push(((ip, port), *row)),
            Some(Key::Text(text)) => {
                let next = u32::try_from(names.len()).unwrap_or(u32::MAX);
                texts.push((*names.entry(text).or_insert(next), *row));
            }
            None => unknown.push(*row),
        }
    }
    let mut ranks = vec![0u32; names.len()];
    let mut names: Vec<(Box<str>, u32)> = names.into_iter().collect();
    names.sort_unstable();
    for (rank, (_, name)) in (0u32..).zip(&names) {
        if let Some(slot) = ranks.get_mut(*name as usize) {
            *slot = rank;
        }
    }
    for (name, _) in &mut texts {
        *name = ranks.get(*name as usize).copied().unwrap_or(u32::MAX);
    }
    let mut sorted = rows;
    sorted.clear();
    arrange(numbers, order.descending, &mut sorted);
    arrange(addresses, order.descending, &mut sorted);
    arrange(texts, order.descending, &mut sorted);
    sorted.append(&mut unknown);
    sorted
}
