//! The table of `list`: a row is written when it comes.
//!
//! The cells of the first thousand rows wait in one buffer until the widths of the columns are known; from then on a
//! row is written at once. Memory is constant, and after the warm-up no row allocates: cells are formatted into
//! buffers that are used again. A cell that is wider than its column is never cut; it widens the column for the rows
//! that follow.

use std::fmt;
use std::io::{self, Write};
use std::ops::Range;

use super::line::{Line, Put};
use super::{cell, info, text};
use crate::fields::{self, Align, Field, Record};

/// Rows that are looked at before the widths are fixed.
const SAMPLE: usize = 1_000;

/// Blanks between two columns.
const GAP: usize = 2;

/// What follows the columns of a row, by the options of ss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// `-o`
    pub timer: bool,
    /// `-e`; owners are shown with their descriptors
    pub extended: bool,
    /// `-m`
    pub memory: bool,
    /// `-i`, on lines of its own
    pub info: bool,
    /// `-p`: the column `process` comes last
    pub process: bool,
}

impl Extras {
    const fn any(self) -> bool {
        self.timer || self.extended || self.memory || self.info
    }
}

/// How a table is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// whether the first line names the columns
    pub header: bool,
    /// what follows the columns
    pub extras: Extras,
    /// the columns of the terminal; without it the words after a row are not wrapped
    pub width: Option<usize>,
    /// `-O`: one line for a row, whatever it holds
    pub one_line: bool,
}

/// The columns of `list` unasked.
pub fn default_columns() -> Vec<&'static Field> {
    fields::DEFAULT
        .iter()
        .filter_map(|id| fields::by_id(id).ok())
        .collect()
}

/// A piece of the buffer: its end, and what it takes on the terminal.
#[derive(Clone, Copy)]
struct Piece {
    end: usize,
    width: usize,
}

/// Writes rows as a table.
pub struct Table<W> {
    out: W,
    columns: Vec<&'static Field>,
    widths: Vec<usize>,
    options: Options,
    /// the text of all pieces, one behind the other
    arena: Line,
    /// for each row a piece a column, then, with extras, one for the words on its line and one for the lines below
    pieces: Vec<Piece>,
    waiting: usize,
    streaming: bool,
    /// rows that are laid out and not yet written
    page: Line,
}

impl<W: Write> Table<W> {
    /// A table of `columns` that is written to `out`.
    pub fn new(out: W, mut columns: Vec<&'static Field>, options: Options) -> Self {
        if options.extras.process
            && let Ok(process) = fields::by_id("process")
            && !columns.contains(&process)
        {
            columns.push(process);
        }
        let header = |field: &&'static Field| {
            if options.header {
                text::width(field.header)
            } else {
                0
            }
        };
        Self {
            out,
            widths: columns.iter().map(header).collect(),
            columns,
            options,
            arena: Line::default(),
            pieces: Vec::new(),
            waiting: 0,
            streaming: false,
            page: Line::default(),
        }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn push(&mut self, record: &Record<'_>) -> io::Result<()> {
        if self.streaming {
            self.stream(record).map_err(io::Error::other)?;
            return self.page.turn(&mut self.out);
        }
        self.format(record).map_err(io::Error::other)?;
        self.waiting += 1;
        if self.waiting >= SAMPLE {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what still waits, and gives the writer back.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        self.page.write_out(&mut self.out)?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// Puts the row's pieces into the buffer and widens the columns.
    fn format(&mut self, record: &Record<'_>) -> fmt::Result {
        let (extras, arena) = (self.options.extras, &mut self.arena);
        for (field, width) in self.columns.iter().zip(&mut self.widths) {
            let start = arena.mark();
            cell::write(arena, &field.value(record), extras.extended)?;
            let piece = Piece::new(arena, start);
            *width = piece.width.max(*width);
            self.pieces.push(piece);
        }
        if extras.any() {
            self.pieces.extend(extras.format(arena, record)?);
        }
        Ok(())
    }

    /// Lays out the row, the widths being known.
    fn stream(&mut self, record: &Record<'_>) -> fmt::Result {
        let (extras, page) = (self.options.extras, &mut self.page);
        let line = page.len();
        let mut gap = 0;
        for (field, width) in self.columns.iter().zip(&mut self.widths) {
            page.blanks(gap)?;
            let start = page.mark();
            cell::write(page, &field.value(record), extras.extended)?;
            let own = page.width_from(start);
            *width = own.max(*width);
            let fill = *width - own;
            gap = match field.align {
                Align::Left => fill + GAP,
                Align::Right => {
                    page.indent(start, fill)?;
                    GAP
                }
            };
        }
        if extras.any() {
            self.arena.clear();
            let words = extras.format(&mut self.arena, record)?;
            self.options.lay_out(page, line, &self.arena, 0, words)?;
        }
        page.ascii("\n")
    }

    /// Lays out the rows that wait, and writes the page if it is full. Those that follow stream.
    fn flush(&mut self) -> io::Result<()> {
        self.lay_out().map_err(io::Error::other)?;
        self.arena.clear();
        self.pieces.clear();
        self.waiting = 0;
        self.page.turn(&mut self.out)
    }

    fn lay_out(&mut self) -> fmt::Result {
        if !self.streaming {
            self.streaming = true;
            self.lay_out_header()?;
        }
        let (page, arena) = (&mut self.page, &self.arena);
        let extras = if self.options.extras.any() { 2 } else { 0 };
        let columns = self.columns.len();
        let mut start = 0;
        for row in self.pieces.chunks((columns + extras).max(1)) {
            let line = page.len();
            let (cells, words) = row.split_at_checked(columns).unwrap_or_default();
            let mut gap = 0;
            for ((field, width), piece) in self.columns.iter().zip(&self.widths).zip(cells) {
                let text = (arena, start..piece.end);
                place(page, &mut gap, text, piece.width, field.align, *width)?;
                start = piece.end;
            }
            if let [beside, below] = *words {
                self.options
                    .lay_out(page, line, arena, start, [beside, below])?;
                start = below.end;
            }
            page.ascii("\n")?;
        }
        Ok(())
    }

    fn lay_out_header(&mut self) -> fmt::Result {
        if !self.options.header {
            return Ok(());
        }
        let mut header = Line::default();
        let mut gap = 0;
        for (field, width) in self.columns.iter().zip(&self.widths) {
            let (start, own) = (header.len(), text::width(field.header));
            fmt::Write::write_str(&mut header, field.header)?;
            let text = (&header, start..header.len());
            place(&mut self.page, &mut gap, text, own, field.align, *width)?;
        }
        self.page.ascii("\n")
    }
}

impl Piece {
    /// The piece that goes from `start` to the end of `arena`.
    fn new(arena: &Line, start: usize) -> Self {
        Self {
            end: arena.len(),
            width: arena.width_from(start),
        }
    }
}

impl Extras {
    /// Appends the words on the row's line, and those below it.
    fn format(self, arena: &mut Line, record: &Record<'_>) -> Result<[Piece; 2], fmt::Error> {
        let start = arena.mark();
        if self.timer {
            info::write_timer(arena, record)?;
        }
        if self.extended {
            info::write_extended(arena, record)?;
        }
        if self.memory {
            info::write_memory(arena, record)?;
        }
        let beside = Piece::new(arena, start);
        let start = arena.mark();
        if self.info {
            info::write_info(arena, record)?;
        }
        Ok([beside, Piece::new(arena, start)])
    }
}

impl Options {
    /// Appends the words, which begin at `start` of `arena`, to the row, which begins at `line`.
    fn lay_out(
        &self,
        page: &mut Line,
        line: usize,
        arena: &Line,
        start: usize,
        [beside, below]: [Piece; 2],
    ) -> fmt::Result {
        let fits = |width| text::width(page.text(line..page.len())) + 1 + beside.width <= width;
        let beside_fits = self.one_line || self.width.is_none_or(fits);
        for (words, whole) in [
            (start..beside.end, beside_fits),
            (beside.end..below.end, self.one_line),
        ] {
            if whole {
                append_words(page, arena, words)?;
            } else {
                wrap_words(page, arena, words, self.width)?;
            }
        }
        Ok(())
    }
}

/// Appends a cell. `gap` is what has to come before it: the blanks that fill the cell before, which a last cell
/// does not need, and [`GAP`] between columns.
fn place(
    page: &mut Line,
    gap: &mut usize,
    (arena, text): (&Line, Range<usize>),
    own: usize,
    align: Align,
    width: usize,
) -> fmt::Result {
    let fill = width.saturating_sub(own);
    let (before, after) = match align {
        Align::Left => (0, fill),
        Align::Right => (fill, 0),
    };
    page.blanks(*gap + before)?;
    *gap = after + GAP;
    page.piece(arena, text)
}

/// Appends words, the first of which has a blank before it, to the row.
fn append_words(page: &mut Line, arena: &Line, words: Range<usize>) -> fmt::Result {
    if words.is_empty() {
        return Ok(());
    }
    page.ascii(" ")?;
    page.piece(arena, words)
}

/// Appends words, each with a blank before it, on indented lines of at most `width` columns; a word that is longer has
/// a line of its own.
fn wrap_words(
    page: &mut Line,
    arena: &Line,
    words: Range<usize>,
    width: Option<usize>,
) -> fmt::Result {
    const LINE: &str = "\n       ";
    let text = arena.text(words.clone());
    if width.is_none() && !text.is_empty() && !has_empty_words(text) {
        page.ascii(LINE)?;
        return page.piece(arena, words);
    }
    let mut column = usize::MAX;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let own = text::width(word);
        let fits = match width {
            Some(width) => column.saturating_add(1 + own) <= width,
            None => column != usize::MAX,
        };
        if !fits {
            page.ascii(LINE)?;
            column = LINE.len() - 1;
        }
        page.ascii(" ")?;
        fmt::Write::write_str(page, word)?;
        column += 1 + own;
    }
    Ok(())
}

/// Whether a blank of `words` has no word behind it: a name that others chose may have blanks of its own.
fn has_empty_words(words: &str) -> bool {
    words.contains("  ") || words.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::tests::{Fixture, owners};
    use crate::model::{Endpoint, Owners, TcpState, Timer};

    fn options(extras: Extras) -> Options {
        Options {
            header: true,
            extras,
            ..Options::default()
        }
    }

    fn show(rows: &[&Fixture], options: Options) -> String {
        let mut table = Table::new(Vec::new(), default_columns(), options);
        for row in rows {
            row.with(|record| table.push(record)).unwrap();
        }
        String::from_utf8(table.finish().unwrap()).unwrap()
    }

    fn listener() -> Fixture {
        let mut fixture = Fixture::new();
        fixture.socket.state = TcpState::Listen;
        fixture.socket.local = Endpoint::v4([0; 4], 443);
        fixture.socket.remote = Endpoint::v4([0; 4], 0);
        fixture.socket.timer = Timer::None;
        (fixture.socket.recv_q, fixture.socket.send_q) = (0, 4096);
        fixture
    }

    #[test]
    fn the_columns_are_those_of_ss() {
        let table = show(
            &[&listener(), &Fixture::new()],
            options(Extras {
                process: true,
                ..Extras::default()
            }),
        );
        let want = [
            "State        Recv-Q  Send-Q  Local Address:Port  Peer Address:Port  Process",
            "LISTEN            0    4096  0.0.0.0:443         0.0.0.0:*          nginx[101]",
            "ESTABLISHED       1      20  127.0.0.1:80        10.0.0.7:51000     nginx[101]",
        ];
        assert_eq!(table.lines().collect::<Vec<_>>(), want);
    }

    #[test]
    fn without_rows_there_is_the_header_or_nothing() {
        assert_eq!(show(&[], options(Extras::default())).lines().count(), 1);
        assert_eq!(show(&[], Options::default()), "");
        let row = show(&[&listener()], Options::default());
        assert_eq!(
            row, "LISTEN  0  4096  0.0.0.0:443  0.0.0.0:*\n",
            "no header, no blanks for it"
        );
    }

    #[test]
    fn extras_follow_the_row_and_info_comes_below_it() {
        let all = Extras {
            timer: true,
            extended: true,
            memory: true,
            info: true,
            process: true,
        };
        let table = show(&[&Fixture::new()], options(all));
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3, "{table}");
        assert!(
            lines[1]
                .contains("nginx[101] fd 6, nginx[101] fd 7  timer:(keepalive,12sec,3) uid:1000"),
            "{table}"
        );
        assert!(
            lines[1].ends_with("<-> skmem:(r0,rb131072,t0,tb46080,f0,w0,o0,bl0,d4)"),
            "{table}"
        );
        assert!(
            lines[2].starts_with("        age:>=7s cubic wscale:7,7 rto:201"),
            "{table}"
        );
        let one_line = show(
            &[&Fixture::new()],
            Options {
                one_line: true,
                ..options(all)
            },
        );
        assert_eq!(one_line.lines().count(), 2, "{one_line}");
        assert!(one_line.contains(" rto:201 "), "{one_line}");
    }

    #[test]
    fn words_are_wrapped_and_addresses_never_cut() {
        let mut fixture = Fixture::new();
        let v6 = "2001:db8:1111:2222:3333:4444:5555:6666";
        fixture.socket.family = crate::model::Family::Ipv6;
        fixture.socket.local =
            Endpoint::v6(v6.parse::<std::net::Ipv6Addr>().unwrap().octets(), 65_535);
        let extras = Extras {
            extended: true,
            info: true,
            ..Extras::default()
        };
        let narrow = show(
            &[&fixture],
            Options {
                width: Some(60),
                ..options(extras)
            },
        );
        assert!(narrow.contains(&format!("[{v6}]:65535")), "{narrow}");
        let below: Vec<&str> = narrow.lines().skip(2).collect();
        assert!(
            below.len() >= 3 && below.iter().all(|line| line.len() <= 60),
            "{narrow}"
        );
        assert!(
            below
                .iter()
                .all(|line| line.starts_with("        ") && !line.ends_with(' ')),
            "{narrow}"
        );
    }

    #[test]
    fn blanks_without_a_word_are_left_out() {
        let mut arena = Line::default();
        for (words, laid_out) in [
            (" a b", "\n        a b"),
            (" a  b ", "\n        a b"),
            ("  ", ""),
            ("", ""),
        ] {
            let start = arena.mark();
            fmt::Write::write_str(&mut arena, words).unwrap();
            let mut page = Line::default();
            wrap_words(&mut page, &arena, start..arena.len(), None).unwrap();
            assert_eq!(page.text(0..page.len()), laid_out, "{words:?}");
        }
    }

    #[test]
    fn wide_letters_and_hostile_names_keep_the_columns_straight() {
        let (mut wide, mut evil) = (listener(), listener());
        wide.owners = owners(&["服务器"]);
        evil.owners = owners(&["\x1b[31m\n"]);
        let columns = ["process", "local"]
            .map(|id| fields::by_id(id).unwrap())
            .to_vec();
        let mut table = Table::new(Vec::new(), columns, options(Extras::default()));
        for row in [&wide, &evil] {
            row.with(|record| table.push(record)).unwrap();
        }
        let table = String::from_utf8(table.finish().unwrap()).unwrap();
        let at: Vec<usize> = table
            .lines()
            .skip(1)
            .map(|line| text::width(&line[..line.find("0.0.0.0").unwrap()]))
            .collect();
        assert_eq!(table.lines().count(), 3, "{table}");
        assert_eq!(at, [22, 22], "{table}");
        assert!(!table.contains('\x1b'), "{table}");
    }

    #[test]
    fn after_the_sample_rows_stream_and_nothing_grows() {
        let mut fixture = Fixture::new();
        fixture.owners = Owners::default();
        let extras = Extras {
            timer: true,
            extended: true,
            memory: true,
            info: true,
            process: true,
        };
        let mut table = Table::new(io::sink(), default_columns(), options(extras));
        let mut push = |table: &mut Table<_>, port: u16| {
            fixture.socket.remote = Endpoint::v4([10, 200, 100, 7], port);
            fixture.with(|record| table.push(record)).unwrap();
        };
        for port in 0..u16::try_from(SAMPLE).unwrap() - 1 {
            push(&mut table, 10_000 + port);
        }
        assert_eq!(table.waiting, SAMPLE - 1, "the widths are not known yet");
        push(&mut table, 1);
        assert_eq!(table.waiting, 0);
        let capacity = |table: &Table<_>| {
            (
                table.arena.capacity(),
                table.pieces.capacity(),
                table.page.capacity(),
            )
        };
        push(&mut table, 65_535);
        let warm = capacity(&table);
        for port in 0..5_000 {
            push(&mut table, port);
            assert_eq!(table.waiting, 0, "streams");
        }
        assert_eq!(capacity(&table), warm, "buffers are used again");
    }

    #[test]
    fn a_wide_cell_after_the_sample_is_whole_and_widens_its_column() {
        let narrow = listener();
        let mut wide = listener();
        wide.socket.state = TcpState::BoundInactive;
        let mut table = Table::new(Vec::new(), default_columns(), Options::default());
        for _ in 0..SAMPLE {
            narrow.with(|record| table.push(record)).unwrap();
        }
        wide.with(|record| table.push(record)).unwrap();
        narrow.with(|record| table.push(record)).unwrap();
        let table = String::from_utf8(table.finish().unwrap()).unwrap();
        let last: Vec<&str> = table.lines().skip(SAMPLE - 1).collect();
        assert_eq!(
            last,
            [
                "LISTEN  0  4096  0.0.0.0:443  0.0.0.0:*",
                "BOUND-INACTIVE  0  4096  0.0.0.0:443  0.0.0.0:*",
                "LISTEN          0  4096  0.0.0.0:443  0.0.0.0:*",
            ]
        );
    }
}
