//! Where the rows of `list` go: a table, JSON, CSV, or counts of groups; at once, or sorted.

use std::cell::RefCell;
use std::io::{self, Write};
use std::ops::ControlFlow;

use super::args;
use super::failure::Failure;
use super::fold::Fold;
use super::pair::Halves;
use super::sorted::{Like, Order, Rows};
use super::terminal;
use crate::fields::{self, Field, Needed, Record};
use crate::model::words;
use crate::render::csv::Csv;
use crate::render::groups::{Groups, write_csv, write_table};
use crate::render::json::{GROUPS, Head, PAIRS, Pairs, SOCKETS, Sockets, Tail, write_groups};
use crate::render::pairs;
use crate::render::rows::Table;

/// A column by its name.
///
/// # Errors
/// When there is none, with what may have been meant.
pub fn column(id: &str) -> Result<&'static Field, Failure> {
    fields::by_id(id).map_err(|unknown| Failure::usage(unknown.to_string(), unknown.hint()))
}

fn columns(ids: &[String]) -> Result<Vec<&'static Field>, Failure> {
    let mut columns = Vec::new();
    for id in ids.iter().map(|id| id.trim()).filter(|id| !id.is_empty()) {
        let field = column(id)?;
        if !columns.contains(&field) {
            columns.push(field);
        }
    }
    if columns.is_empty() && !ids.is_empty() {
        column("")?;
    }
    Ok(columns)
}

/// What the options of columns ask for.
#[derive(Debug)]
pub struct Choice {
    /// `--columns`, empty without it
    pub columns: Vec<&'static Field>,
    /// `--group-by`, empty without it
    pub groups: Vec<&'static Field>,
    /// `--sort`
    pub order: Option<Order>,
    /// `--top`
    pub top: Option<u64>,
}

impl Choice {
    /// Reads the options.
    ///
    /// # Errors
    /// For a column that there is not.
    pub fn of(args: &args::List) -> Result<Self, Failure> {
        Ok(Self {
            columns: columns(&args.columns)?,
            groups: columns(&args.group_by)?,
            order: args.sort.as_deref().map(Order::parse).transpose()?,
            top: args.top,
        })
    }

    /// What has to be collected.
    pub fn needed(&self) -> Needed {
        let order = self.order.iter().map(|order| &order.field);
        Needed::by(self.columns.iter().chain(&self.groups).chain(order))
    }

    /// The schema of the document; `pair` is that of pairs.
    pub const fn schema(&self, pair: bool) -> &'static str {
        match (self.groups.is_empty(), pair) {
            (false, _) => GROUPS,
            (_, true) => PAIRS,
            _ => SOCKETS,
        }
    }

    /// Whether a column is shown, counted or sorted by.
    pub fn has(&self, id: &str) -> bool {
        let order = self.order.iter().map(|order| &order.field);
        let mut all = self.columns.iter().chain(&self.groups).chain(order);
        all.any(|field| field.id == id)
    }
}

/// How a row is written.
pub enum Writer<'a, W: Write> {
    /// a table
    Table(Box<Table<W>>),
    /// a document, or a line for each
    Json(Sockets<W>),
    /// a line for each, of values
    Csv(Csv<W>),
    /// both ends of connections
    Pairs {
        /// the ends so far
        halves: Halves,
        /// how they are written
        form: PairForm<W>,
    },
    /// counts
    Groups {
        /// so far
        groups: Groups,
        /// by what
        by: Vec<&'static Field>,
        /// how they are written
        form: Form<'a>,
        /// where
        out: W,
    },
}

/// How pairs are written.
pub enum PairForm<W> {
    /// a table
    Table(Box<pairs::Table<W>>),
    /// a document, or a line for each
    Json(Pairs<W>),
}

/// How groups are written.
pub enum Form<'a> {
    /// a table, with a head or without
    Table(bool),
    /// a document
    Document(Head<'a>),
    /// a line for each
    Lines,
    /// comma-separated, with a head or without
    Csv(bool),
}

/// Where rows go, and which of them.
pub struct Sink<'a, W: Write> {
    writer: Writer<'a, W>,
    sorted: Option<Rows>,
    /// rows that may still be written; groups are counted over all rows
    left: Option<u64>,
    top: Option<u64>,
    fold: Option<Fold>,
}

impl<'a, W: Write> Sink<'a, W> {
    /// Writes to `writer` what `choice` asks for.
    pub fn new(writer: Writer<'a, W>, choice: &Choice) -> Self {
        let grouped = matches!(writer, Writer::Groups { .. });
        let paired = matches!(writer, Writer::Pairs { .. });
        let top = choice.top;
        let rows = top.map(|top| usize::try_from(top).unwrap_or(usize::MAX));
        Self {
            writer,
            sorted: choice
                .order
                .filter(|_| !paired)
                .map(|order| Rows::new(order, rows)),
            left: top.filter(|_| !grouped),
            top,
            fold: None,
        }
    }

    /// The same with TIME-WAIT folded; for a table alone, because a line is no row.
    #[must_use]
    pub fn folding(mut self, fold: bool) -> Self {
        self.fold = fold.then(Fold::default);
        self
    }

    /// The ends so far, where pairs are written: what is not selected may be the other end of one that is.
    pub const fn halves(&mut self) -> Option<&mut Halves> {
        match &mut self.writer {
            Writer::Pairs { halves, .. } => Some(halves),
            _ => None,
        }
    }

    /// What could not be paired at all.
    pub fn unpaired(&mut self) -> Option<String> {
        self.halves().and_then(|halves| halves.missing())
    }

    /// Takes a row; `Break` if no more are wanted.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn push(&mut self, record: &Record<'_>) -> io::Result<ControlFlow<()>> {
        if let Some(rows) = &mut self.sorted {
            rows.push(record);
            return Ok(ControlFlow::Continue(()));
        }
        if let Some(fold) = &mut self.fold
            && fold.takes(record)
        {
            return Ok(ControlFlow::Continue(()));
        }
        self.writer.push(record)?;
        Ok(match &mut self.left {
            Some(left) => {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            }
            None => ControlFlow::Continue(()),
        })
    }

    /// Writes what waits, and the end. `like` makes a record of a socket that was kept.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self, tail: &Tail<'_>, like: &Like<'_>) -> io::Result<()> {
        if let Some(rows) = self.sorted.take() {
            rows.each(like, &mut |record| self.writer.push(record))?;
        }
        if let Some(fold) = &self.fold {
            fold.each(like, &mut |record| self.writer.push(record))?;
        }
        if let Writer::Pairs { halves, form } = self.writer {
            return form.finish(&halves, tail, like);
        }
        self.writer.finish(tail, self.top, self.fold.as_ref())
    }
}

impl<W: Write> Writer<'_, W> {
    fn push(&mut self, record: &Record<'_>) -> io::Result<()> {
        match self {
            Self::Table(table) => table.push(record),
            Self::Json(sockets) => sockets.push(record),
            Self::Csv(csv) => csv.push(record),
            Self::Groups { groups, .. } => groups.push(record),
            // They come by `halves`.
            Self::Pairs { .. } => Ok(()),
        }
    }

    fn finish(self, tail: &Tail<'_>, top: Option<u64>, fold: Option<&Fold>) -> io::Result<()> {
        match self {
            Self::Table(table) => {
                let mut out = table.finish()?;
                if let Some(fold) = fold {
                    fold.line(&mut out)?;
                }
                out.flush()
            }
            Self::Json(sockets) => sockets.finish(tail)?.flush(),
            Self::Csv(csv) => csv.finish()?.flush(),
            Self::Pairs { .. } => Ok(()),
            Self::Groups {
                groups,
                by,
                form,
                mut out,
            } => {
                let counted = groups.counted(top);
                match form {
                    Form::Table(header) => write_table(&counted, &by, header, &mut out)?,
                    Form::Document(head) => {
                        write_groups(&mut out, Some(&head), &by, &counted, tail)?;
                    }
                    Form::Lines => write_groups(&mut out, None, &by, &counted, tail)?,
                    Form::Csv(header) => write_csv(&counted, &by, header, &mut out)?,
                }
                out.flush()
            }
        }
    }
}

impl<W: Write> PairForm<W> {
    /// A table, as [`pairs::Table::new`].
    pub fn table(out: W, columns: &[&'static Field], several: bool, header: bool) -> Self {
        Self::Table(Box::new(pairs::Table::new(out, columns, several, header)))
    }

    fn finish(self, halves: &Halves, tail: &Tail<'_>, like: &Like<'_>) -> io::Result<()> {
        let (elsewhere, lines) = match self {
            Self::Table(table) => {
                let table = RefCell::new(*table);
                let elsewhere = halves.each(
                    like,
                    pairs::SAMPLE,
                    &mut |a, b| table.borrow_mut().measure(a, b),
                    &mut |a, b| table.borrow_mut().push(a, b),
                )?;
                table.into_inner().finish()?;
                (elsewhere, true)
            }
            Self::Json(mut json) => {
                let lines = json.is_lines();
                let elsewhere =
                    halves.each(like, 0, &mut |_, _| Ok(()), &mut |a, b| json.push(a, b))?;
                json.finish(elsewhere, tail)?;
                (elsewhere, lines)
            }
        };
        if lines && elsewhere > 0 {
            // A standard error that is gone is no reason to fail.
            let _ = writeln!(
                io::stderr(),
                "note: {} not shown: the other end is elsewhere",
                words::count(elsewhere, "connection")
            );
        }
        Ok(())
    }
}

/// `--columns help`: what there is.
///
/// # Errors
/// When standard output fails.
pub fn print_columns() -> Result<(), Failure> {
    terminal::print(columns_text().as_bytes())
}

/// Every column with what it says and its unit, a line for each.
pub fn columns_text() -> String {
    let widest = fields::all().map(|field| field.id.len()).max().unwrap_or(0);
    let line = |field: &Field| {
        let unit = field
            .unit
            .map_or(String::new(), |unit| format!(" [{unit}]"));
        format!("{:widest$}  {}{unit}\n", field.id, field.doc)
    };
    fields::all().map(line).collect()
}
