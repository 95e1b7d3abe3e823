//! Rows counted by what some of their columns say: one map, no rows.

use std::fmt;
use std::io::{self, Write};

use rustc_hash::FxHashMap;

use super::{cell, text};
use crate::fields::{Align, Field, Record};
use crate::model::words::{count, thousands};

/// Stands between the cells of a group's key; cells are printable, so none has it.
const BETWEEN: char = '\u{1f}';

/// A group that was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// its cells, in the order of the columns
    pub cells: Vec<String>,
    /// its values as members of a JSON object or of a line of CSV, where they are wanted
    pub members: String,
    /// its sockets
    pub sockets: u64,
}

/// What came of the counting: the largest groups first.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// the groups that are shown
    pub groups: Vec<Group>,
    /// how many groups are not
    pub more_groups: u64,
    /// and how many sockets these have
    pub more_sockets: u64,
    /// all sockets
    pub total: u64,
}

/// What is kept of a group's values beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    /// nothing: they are shown as a table
    None,
    /// members of a JSON object
    Json,
    /// the beginning of a line of CSV
    Csv,
}

/// Counts rows by columns.
#[derive(Debug)]
pub struct Groups {
    columns: Vec<&'static Field>,
    members: Members,
    /// cells -> members, sockets
    counts: FxHashMap<String, (String, u64)>,
    /// the row's cells, used again
    key: String,
    total: u64,
}

impl Groups {
    /// Counts by `columns`.
    pub fn new(columns: Vec<&'static Field>, members: Members) -> Self {
        Self {
            columns,
            members,
            counts: FxHashMap::default(),
            key: String::new(),
            total: 0,
        }
    }

    /// Counts a row. Only the first row of a group allocates.
    ///
    /// # Errors
    /// None that a string has.
    pub fn push(&mut self, record: &Record<'_>) -> io::Result<()> {
        self.key.clear();
        self.cells(record).map_err(io::Error::other)?;
        self.total += 1;
        if let Some((_, sockets)) = self.counts.get_mut(self.key.as_str()) {
            *sockets += 1;
            return Ok(());
        }
        let members = match self.members {
            Members::None => String::new(),
            Members::Json => super::json::members(&self.columns, record)?,
            Members::Csv => super::csv::members(&self.columns, record)?,
        };
        self.counts.insert(self.key.clone(), (members, 1));
        Ok(())
    }

    fn cells(&mut self, record: &Record<'_>) -> fmt::Result {
        for (at, field) in self.columns.iter().enumerate() {
            if at > 0 {
                self.key.push(BETWEEN);
            }
            cell::write(&mut self.key, &field.value(record).grouped(), false)?;
        }
        Ok(())
    }

    /// The largest groups, at most `top` of them.
    pub fn counted(self, top: Option<u64>) -> Counted {
        let mut all: Vec<(String, (String, u64))> = self.counts.into_iter().collect();
        all.sort_unstable_by(|a, b| b.1.1.cmp(&a.1.1).then_with(|| a.0.cmp(&b.0)));
        let shown = top.map_or(all.len(), |top| {
            all.len().min(usize::try_from(top).unwrap_or(usize::MAX))
        });
        let rest = all.split_off(shown);
        Counted {
            groups: all
                .into_iter()
                .map(|(key, (members, sockets))| Group {
                    cells: key.split(BETWEEN).map(str::to_owned).collect(),
                    members,
                    sockets,
                })
                .collect(),
            more_groups: rest.len() as u64,
            more_sockets: rest.iter().map(|(_, (_, sockets))| sockets).sum(),
            total: self.total,
        }
    }
}

/// Writes the groups as CSV: the columns, and the number of sockets.
///
/// # Errors
/// Those of `out`.
pub fn write_csv(
    counted: &Counted,
    columns: &[&'static Field],
    header: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    if header {
        let names = columns.iter().map(|field| field.id).chain(["sockets"]);
        super::csv::write_header(out, names)?;
    }
    for group in &counted.groups {
        writeln!(out, "{}{}", group.members, group.sockets)?;
    }
    Ok(())
}

/// Writes the groups as a table: sockets, their share of all, and the columns.
///
/// # Errors
/// Those of `out`.
pub fn write_table(
    counted: &Counted,
    columns: &[&'static Field],
    header: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let heads = ["Sockets", "Share"]
        .into_iter()
        .chain(columns.iter().map(|field| field.header));
    let aligns: Vec<Align> = [Align::Right, Align::Right]
        .into_iter()
        .chain(columns.iter().map(|field| field.align))
        .collect();
    let mut lines: Vec<Vec<String>> = Vec::new();
    if header {
        lines.push(heads.map(str::to_owned).collect());
    }
    lines.extend(counted.groups.iter().map(|group| {
        let share = format!("{}%", share(group.sockets, counted.total));
        let numbers = [group.sockets.to_string(), share];
        numbers
            .into_iter()
            .chain(group.cells.iter().cloned())
            .collect()
    }));
    let widths: Vec<usize> = (0..aligns.len())
        .map(|at| {
            let cells = lines.iter().filter_map(|line| line.get(at));
            cells.map(|cell| text::width(cell)).max().unwrap_or(0)
        })
        .collect();
    for line in &lines {
        let mut shown = String::new();
        for ((cell, align), width) in line.iter().zip(&aligns).zip(&widths) {
            if !shown.is_empty() {
                shown.push_str("  ");
            }
            let fill = std::iter::repeat_n(' ', width.saturating_sub(text::width(cell)));
            match align {
                Align::Left => {
                    shown.push_str(cell);
                    shown.extend(fill);
                }
                Align::Right => {
                    shown.extend(fill);
                    shown.push_str(cell);
                }
            }
        }
        writeln!(out, "{}", shown.trim_end())?;
    }
    if header && counted.more_groups > 0 {
        writeln!(
            out,
            "and {} with {} of {}",
            count(counted.more_groups, "more group"),
            count(counted.more_sockets, "socket"),
            thousands(counted.total)
        )?;
    }
    Ok(())
}

/// The share in percent, rounded to the nearest.
fn share(part: u64, whole: u64) -> u128 {
    let (part, whole) = (u128::from(part), u128::from(whole));
    (part * 200 + whole).checked_div(whole * 2).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::by_id;
    use crate::fields::tests::{Fixture, owners};
    use crate::model::{Endpoint, Family, TcpState};

    fn columns(ids: &[&str]) -> Vec<&'static Field> {
        ids.iter().map(|id| by_id(id).unwrap()).collect()
    }

    fn counted(ids: &[&str], rows: &[Fixture], top: Option<u64>) -> String {
        let mut groups = Groups::new(columns(ids), Members::None);
        for row in rows {
            row.with(|record| groups.push(record)).unwrap();
        }
        let mut out = Vec::new();
        write_table(&groups.counted(top), &columns(ids), true, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn rows() -> Vec<Fixture> {
        let mut rows = vec![Fixture::new(); 3];
        rows[1].socket.family = Family::Ipv6;
        rows[2].socket.state = TcpState::CloseWait;
        rows[2].socket.remote = Endpoint::v4([10, 0, 0, 8], 51_000);
        rows
    }

    #[test]
    fn the_largest_group_comes_first_and_v4_mapped_is_the_same_conversation() {
        assert_eq!(
            counted(&["state", "peer-address"], &rows(), None),
            "Sockets  Share  State        Peer Address\n\
             \u{20}     2    67%  ESTABLISHED  10.0.0.7\n\
             \u{20}     1    33%  CLOSE-WAIT   10.0.0.8\n"
        );
        assert_eq!(
            counted(&["peer-address"], &rows(), Some(1)),
            "Sockets  Share  Peer Address\n\
             \u{20}     2    67%  10.0.0.7\n\
             and 1 more group with 1 socket of 3\n"
        );
        assert_eq!(counted(&["state"], &[], None), "Sockets  Share  State\n");
    }

    #[test]
    fn shares_are_rounded_to_the_nearest() {
        for (part, whole, shown) in [
            (22, 28, 79),
            (1, 200, 1),
            (1, 201, 0),
            (28, 28, 100),
            (0, 0, 0),
            (u64::MAX, u64::MAX, 100),
        ] {
            assert_eq!(share(part, whole), shown, "{part} of {whole}");
        }
    }

    #[test]
    fn a_timer_groups_by_its_name_and_hostile_names_are_shown_safely() {
        let mut rows = rows();
        rows[1].socket.timer_ms = 1;
        assert!(counted(&["timer"], &rows, None).contains("3   100%  keepalive\n"));
        rows[0].owners = owners(&["a\x1f\x1b[2J"]);
        let text = counted(&["process"], &rows, None);
        assert!(!text.contains(['\x1b', '\x1f']), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
    }
}
