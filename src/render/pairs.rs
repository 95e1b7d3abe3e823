//! The table of `list --pair`: both ends of a connection a row.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::{cell, text};
use crate::fields::{self, Align, Field, Record};

/// Pairs that are looked at before the widths are fixed.
pub const SAMPLE: usize = 1_000;

/// Whose value a column shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// that of the first, under the column's own name
    Pair,
    A,
    B,
}

/// Without `--columns`.
const DEFAULT: &[(&str, End)] = &[
    ("state", End::A),
    ("state", End::B),
    ("local", End::Pair),
    ("peer", End::Pair),
    ("recv-q", End::A),
    ("send-q", End::A),
    ("recv-q", End::B),
    ("send-q", End::B),
    ("process", End::A),
    ("process", End::B),
];

struct Column {
    field: &'static Field,
    end: End,
    header: String,
    width: usize,
}

impl Column {
    fn new(field: &'static Field, end: End) -> Self {
        let header = match end {
            End::Pair => field.header.to_owned(),
            End::A => format!("{} A", field.header),
            End::B => format!("{} B", field.header),
        };
        Self {
            field,
            end,
            header,
            width: 0,
        }
    }

    fn write(&self, out: &mut String, a: &Record<'_>, b: Option<&Record<'_>>) -> std::fmt::Result {
        match self.end {
            End::Pair | End::A => cell::write(out, &self.field.value(a), false),
            End::B => match b {
                Some(b) => cell::write(out, &self.field.value(b), false),
                None => out.write_char('-'),
            },
        }
    }
}

/// The columns that are shown unasked.
pub fn default_columns() -> Vec<&'static Field> {
    let mut columns: Vec<&'static Field> = Vec::new();
    for field in DEFAULT.iter().filter_map(|(id, _)| fields::by_id(id).ok()) {
        if !columns.contains(&field) {
            columns.push(field);
        }
    }
    columns
}

/// Writes pairs as a table.
pub struct Table<W> {
    out: W,
    columns: Vec<Column>,
    header: bool,
    cell: String,
    line: String,
}

impl<W: Write> Table<W> {
    /// A table with `chosen` for either end, or with the usual columns, and the namespace of either end if there are
    /// `several`.
    pub fn new(out: W, chosen: &[&'static Field], several: bool, header: bool) -> Self {
        let namespaces = [("netns", End::A), ("netns", End::B)];
        let namespaces = namespaces.iter().filter(|_| several);
        let usual = namespaces
            .chain(DEFAULT)
            .filter_map(|(id, end)| Some(Column::new(fields::by_id(id).ok()?, *end)));
        let mut columns: Vec<Column> = if chosen.is_empty() {
            usual.collect()
        } else {
            let both = |field: &&'static Field| [End::A, End::B].map(|end| Column::new(field, end));
            chosen.iter().flat_map(both).collect()
        };
        if header {
            for column in &mut columns {
                column.width = text::width(&column.header);
            }
        }
        Self {
            out,
            columns,
            header,
            cell: String::new(),
            line: String::new(),
        }
    }

    /// Makes room for the pair, which is not written yet.
    ///
    /// # Errors
    /// None that a string has.
    pub fn measure(&mut self, a: &Record<'_>, b: Option<&Record<'_>>) -> io::Result<()> {
        for column in &mut self.columns {
            self.cell.clear();
            column
                .write(&mut self.cell, a, b)
                .map_err(io::Error::other)?;
            column.width = column.width.max(text::width(&self.cell));
        }
        Ok(())
    }

    /// Writes a row. What is wider than its column is whole, and widens it for the rows that follow.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn push(&mut self, a: &Record<'_>, b: Option<&Record<'_>>) -> io::Result<()> {
        self.begin()?;
        self.line.clear();
        let mut gap = 0;
        for column in &mut self.columns {
            self.cell.clear();
            column
                .write(&mut self.cell, a, b)
                .map_err(io::Error::other)?;
            let own = text::width(&self.cell);
            column.width = column.width.max(own);
            place(
                &mut self.line,
                &mut gap,
                &self.cell,
                own,
                column.field.align,
                column.width,
            );
        }
        self.line.push('\n');
        self.out.write_all(self.line.as_bytes())
    }

    /// The names of the columns, once.
    fn begin(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.header) {
            return Ok(());
        }
        self.line.clear();
        let mut gap = 0;
        for column in &self.columns {
            place(
                &mut self.line,
                &mut gap,
                &column.header,
                text::width(&column.header),
                column.field.align,
                column.width,
            );
        }
        self.line.push('\n');
        self.out.write_all(self.line.as_bytes())
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<()> {
        self.begin()?;
        self.out.flush()
    }
}

/// Appends a cell. `gap` is what has to come before it: the blanks that fill the cell before, which a last cell
/// does not need, and two between columns.
fn place(line: &mut String, gap: &mut usize, text: &str, own: usize, align: Align, width: usize) {
    let fill = width.saturating_sub(own);
    let (before, after) = match align {
        Align::Left => (0, fill),
        Align::Right => (fill, 0),
    };
    line.extend(std::iter::repeat_n(' ', *gap + before));
    line.push_str(text);
    *gap = after + 2;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::tests::{Fixture, owners};
    use crate::model::TcpState;

    fn shown(chosen: &[&str], header: bool) -> Vec<String> {
        let chosen: Vec<_> = chosen.iter().map(|id| fields::by_id(id).unwrap()).collect();
        let mut out = Vec::new();
        let mut table = Table::new(&mut out, &chosen, false, header);
        let (mut fixture, mut other) = (Fixture::new(), Fixture::new());
        fixture.socket.state = TcpState::FinWait2;
        other.socket.state = TcpState::CloseWait;
        other.owners = owners(&["evil\x1b[2J"]);
        std::mem::swap(&mut other.socket.local, &mut other.socket.remote);
        fixture.with(|a| {
            other.with(|b| {
                table.measure(a, Some(b)).unwrap();
                table.push(a, Some(b)).unwrap();
                table.push(b, None).unwrap();
            });
        });
        table.finish().unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_row_has_both_ends_or_the_one_that_is_left() {
        assert_eq!(
            shown(&[], true),
            [
                "State A     State B     Local Address:Port  Peer Address:Port  Recv-Q A  Send-Q A  Recv-Q B  Send-Q B  Process A   Process B",
                "FIN-WAIT-2  CLOSE-WAIT  127.0.0.1:80        10.0.0.7:51000            1        20         1        20  nginx[101]  evil\\x1b\\x5b2J[101]",
                "CLOSE-WAIT  -           10.0.0.7:51000      127.0.0.1:80              1        20         -         -  evil\\x1b\\x5b2J[101]  -",
            ]
        );
        assert_eq!(
            shown(&["state", "uid"], false),
            [
                "FIN-WAIT-2  CLOSE-WAIT  1000  1000",
                "CLOSE-WAIT  -           1000     -"
            ]
        );
    }

    #[test]
    fn without_pairs_there_is_the_header_or_nothing() {
        let empty = |header| {
            let mut out = Vec::new();
            Table::new(&mut out, &[], false, header).finish().unwrap();
            out.iter().filter(|byte| **byte == b'\n').count()
        };
        assert_eq!((empty(true), empty(false)), (1, 0));
        assert_eq!(default_columns().len(), 6);
    }
}
