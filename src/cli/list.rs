//! `linger list`: sockets as rows, streamed.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;

use rustc_hash::FxHashMap;

use super::args::{self, Output};
use super::failure::Failure;
use super::{source, terminal};
use crate::collect::{Row, Want, names};
use crate::fields::{self, Names, NoNames, Record};
use crate::model::{AgeFacts, Attributes, Coverage, Owners, Snapshot, StateSet, TcpState};
use crate::query::Filter;
use crate::render::findings::Screen;
use crate::render::json::{Head, Parts, SOCKETS, Sockets, Tail};
use crate::render::rows::{Extras, Options, Table, default_columns};

/// The size of the output buffer: rows are short, and each write is a system call.
const BUFFER: usize = 64 * 1024;

/// The names of this machine's interfaces; a capture's are not known.
struct Interfaces(FxHashMap<u32, String>);

impl Names for Interfaces {
    fn interface(&self, index: u32) -> Option<&str> {
        self.0.get(&index).map(String::as_str)
    }
}

/// Where rows go.
enum Writer<W: Write> {
    Table(Box<Table<W>>),
    Json(Sockets<W>),
}

impl<W: Write> Writer<W> {
    fn push(&mut self, record: &Record<'_>) -> io::Result<()> {
        match self {
            Self::Table(table) => table.push(record),
            Self::Json(sockets) => sockets.push(record),
        }
    }

    fn finish(self, tail: &Tail<'_>) -> io::Result<()> {
        match self {
            Self::Table(table) => table.finish()?.flush(),
            Self::Json(sockets) => sockets.finish(tail)?.flush(),
        }
    }
}

/// Reads and prints row by row; memory does not grow with their number.
///
/// # Errors
/// For a filter that is not understood, or when the sockets cannot be read; what was read is printed all the same,
/// and a document says that it is not complete.
pub fn run(args: &args::List) -> Result<(), Failure> {
    let filter = Filter::parse(&args.filter)?;
    let mut machine = source::open(&args.common)?;
    let want = want(args, filter.states);
    // Before the rows, because they stream.
    let (owners, mut coverage) = if args.processes || args.extended {
        let (owners, coverage) = machine.owners();
        (Some(owners), coverage)
    } else {
        (None, Coverage::default())
    };
    let ages = if args.info || want.tcp_info {
        AgeFacts::new(&machine.facts())
    } else {
        AgeFacts::default()
    };
    let names = Interfaces(if machine.is_capture() {
        FxHashMap::default()
    } else {
        names::interfaces()
    });
    let host = machine.host();
    let output = if args.common.json {
        Output::Json
    } else {
        args.output
    };
    let out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
    let parts = Parts {
        owners: args.processes,
        info: args.info,
        memory: args.memory,
        extended: args.extended,
    };
    let mut writer = match output {
        Output::Table => Writer::Table(Box::new(Table::new(out, default_columns(), options(args)))),
        Output::Json => {
            // The collector stands in front of the rows; whether it may be used shows before the first of them.
            let collector = source::probe(&args.common, machine.as_mut());
            let head = Head {
                schema: SOCKETS,
                generated_at: machine.now(),
                host: &host.name,
                netns: host.netns,
                collector,
            };
            Writer::Json(Sockets::document(out, &head, parts)?)
        }
        Output::Jsonl => Writer::Json(Sockets::lines(out, parts)),
    };

    let mut failed = None;
    let mut unowned = 0u64;
    let dumped = machine.dump(&want, &mut |row| {
        let Row::Inet { socket, attributes } = row;
        if let Some(owners) = &owners
            && socket.inode != 0
            && owners.links_of(socket.inode).is_empty()
        {
            unowned += 1;
        }
        let record = Record {
            socket: &socket,
            attributes: &attributes,
            owners: owners.as_ref(),
            ages: &ages,
            names: &names,
        };
        match writer.push(&record) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    let (rows, broke) = match dumped {
        Ok(rows) => (rows, None),
        Err(error) => (
            Coverage {
                missing: vec![error.to_string()],
                ..Coverage::default()
            },
            Some(error),
        ),
    };
    coverage.merge(rows);
    coverage.unowned = unowned;
    let warnings = coverage.warnings();
    writer.finish(&Tail {
        complete: coverage.complete(),
        warnings: &warnings,
    })?;
    match broke {
        Some(error) => Err(error.into()),
        None => {
            source::note(&coverage);
            Ok(())
        }
    }
}

/// Asks only for what is shown.
fn want(args: &args::List, named: Option<StateSet>) -> Want {
    let listen = StateSet::of(TcpState::Listen);
    let bound = StateSet::of(TcpState::BoundInactive);
    let by_option = match (args.all, args.listening, args.bound_inactive) {
        (true, ..) => StateSet::ALL,
        (_, true, true) => listen.union(bound),
        (_, true, false) => listen,
        (_, false, true) => bound,
        (false, false, false) => StateSet::DEFAULT,
    };
    // -4 and -6 together are both; neither is both too.
    let both = args.ipv4 == args.ipv6;
    Want {
        states: named.unwrap_or(by_option),
        ipv4: both || args.ipv4,
        ipv6: both || args.ipv6,
        tcp_info: args.info,
        memory: args.memory,
        congestion: args.info,
        tos: args.extended,
    }
}

fn options(args: &args::List) -> Options {
    Options {
        header: !args.no_header,
        extras: Extras {
            timer: args.timers,
            extended: args.extended,
            memory: args.memory,
            info: args.info,
            process: args.processes,
        },
        width: terminal::columns(),
        one_line: false,
    }
}

/// A few rows of a snapshot as lines, for a finding.
///
/// # Errors
/// When memory cannot be written to, which does not happen.
pub fn sample(rows: &[u32], snapshot: &Snapshot, screen: Screen) -> Result<Vec<String>, Failure> {
    let ids = ["state", "recv-q", "send-q", "local", "peer"];
    let columns = ids.iter().filter_map(|id| fields::by_id(id).ok()).collect();
    let options = Options {
        header: false,
        width: Some(screen.width),
        ..Options::default()
    };
    let mut table = Table::new(Vec::new(), columns, options);
    let ages = AgeFacts::new(&snapshot.facts);
    let attributes = Attributes::default();
    let owners: Option<&Owners> = None;
    let mut seen = Vec::new();
    for socket in rows.iter().take(5).filter_map(|row| snapshot.socket(*row)) {
        let record = Record {
            socket,
            attributes: &attributes,
            owners,
            ages: &ages,
            names: &NoNames,
        };
        table.push(&record)?;
        seen.push(snapshot.age(socket));
    }
    let text = String::from_utf8_lossy(&table.finish()?).into_owned();
    let lines = text.lines().zip(seen).map(|(line, age)| {
        let age = age.map(|age| crate::model::words::time(age.low_ms));
        match age {
            Some(age) => format!("{}  {age}", line.trim_end()),
            None => line.trim_end().to_owned(),
        }
    });
    Ok(lines.collect())
}
