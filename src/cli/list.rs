//! `linger list`: sockets as rows, streamed.

use std::io::{self, BufWriter};
use std::ops::ControlFlow;

use rustc_hash::FxHashMap;

use super::args::{self, Output};
use super::failure::Failure;
use super::listed::{self, Choice, Form, PairForm, Sink, Writer};
use super::pair::{self, Halves};
use super::{lookup, source, terminal};
use crate::collect::{Row, Source, Want, names};
use crate::fields::{self, Names, Needed, NoNames, Record};
use crate::model::{
    AgeFacts, Attributes, Coverage, Ends, Protocol, Snapshot, Socket, StateSet, TcpState, words,
};
use crate::query::Filter;
use crate::render::cell;
use crate::render::groups::Groups;
use crate::render::json::{GROUPS, Head, PAIRS, Pairs, Parts, SOCKETS, Sockets, Tail};
use crate::render::pairs;
use crate::render::rows::{Extras, Options, Table, default_columns};
use crate::render::text::width;

/// The size of the output buffer: rows are short, and each write is a system call.
const BUFFER: usize = 64 * 1024;

/// The names of this machine's interfaces and users; a capture's interfaces are not known.
struct Numbers {
    interfaces: FxHashMap<u32, String>,
    users: FxHashMap<u32, String>,
}

impl Numbers {
    fn of(machine: &dyn Source) -> Self {
        Self {
            interfaces: if machine.is_capture() {
                FxHashMap::default()
            } else {
                names::interfaces()
            },
            users: FxHashMap::default(),
        }
    }
}

impl Names for Numbers {
    fn interface(&self, index: u32) -> Option<&str> {
        self.interfaces.get(&index).map(String::as_str)
    }

    fn user(&self, uid: u32) -> Option<&str> {
        self.users.get(&uid).map(String::as_str)
    }
}

/// Reads and prints row by row; memory does not grow with their number, unless they are to be sorted.
///
/// # Errors
/// For a filter or column that is not understood, or when the sockets cannot be read; what was read is printed all the
/// same, and a document says that it is not complete.
pub fn run(args: &args::List) -> Result<(), Failure> {
    if args.columns.iter().any(|id| id == "help") {
        return listed::print_columns();
    }
    let choice = Choice::of(args)?;
    // `--json` says no more than that it is not a table; `--output` may say more.
    let output = match args.output {
        Output::Table if args.common.json => Output::Json,
        output => output,
    };
    if args.pair {
        pair::check(args, output)?;
    }
    let filter = Filter::parse(&args.filter)?;
    let mut machine = source::open(&args.common)?;
    let mut names = Numbers::of(machine.as_ref());
    let filter = filter
        .resolve(&mut lookup::Names::new(machine.as_mut(), &names.interfaces))?
        .within(unasked(args));
    let grouped = !choice.groups.is_empty();
    let parts = if grouped {
        Parts::default()
    } else {
        Parts {
            owners: args.processes || args.pair && output != Output::Table,
            info: args.info,
            memory: args.memory,
            extended: args.extended,
        }
    };
    let usual = args.pair && output == Output::Table && choice.columns.is_empty();
    let usual = Needed::by(usual.then(pairs::default_columns).iter().flatten());
    let shown = choice.needed().and(usual).and(Needed {
        extended: parts.extended,
        tcp_info: parts.info,
        congestion: parts.info,
        memory: parts.memory,
        // `-e` shows the unit, which an owner tells where the cgroup's id has no path.
        owners: parts.owners || parts.extended,
    });
    let needed = filter.needed().and(shown);
    let mut want = want(args, filter.states(), needed, parts.extended);
    let families = want;
    if args.pair {
        want = pair::want(want);
    }
    if filter.asks_mark() {
        marks_are_told(machine.as_mut(), &want)?;
    }
    // Before the rows, because they stream.
    let (owners, mut coverage) = if needed.owners {
        let (owners, coverage) = machine.owners();
        (Some(owners.searched(&coverage)), coverage)
    } else {
        (None, Coverage::default())
    };
    let ages = if want.tcp_info {
        AgeFacts::new(&machine.facts())
    } else {
        AgeFacts::default()
    };
    if choice.has("user") {
        names.users = lookup::users(machine.as_mut(), owners.as_ref());
    }
    let host = machine.host();
    let out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
    let head = match output {
        // The collector stands in front of the rows; whether it may be used shows before the first of them.
        Output::Json => Some(Head {
            schema: match (grouped, args.pair) {
                (true, _) => GROUPS,
                (_, true) => PAIRS,
                _ => SOCKETS,
            },
            generated_at: machine.now(),
            host: &host.name,
            netns: host.netns,
            collector: source::probe(&args.common, machine.as_mut()),
        }),
        Output::Table | Output::Jsonl => None,
    };
    let columns = &choice.columns;
    let writer = match (head, output) {
        (head, output) if grouped => Writer::Groups {
            groups: Groups::new(choice.groups.clone(), output != Output::Table),
            by: choice.groups.clone(),
            form: match (head, output) {
                (Some(head), _) => Form::Document(head),
                (None, Output::Table) => Form::Table(!args.no_header),
                (None, _) => Form::Lines,
            },
            out,
        },
        (head, output) if args.pair => Writer::Pairs {
            halves: Halves::new(choice.order, choice.top, shown),
            form: match (head, output) {
                (None, Output::Table) => {
                    PairForm::Table(Box::new(pairs::Table::new(out, columns, !args.no_header)))
                }
                (head, _) => PairForm::Json(Pairs::new(out, head.as_ref(), parts, columns)?),
            },
        },
        (Some(head), _) => {
            Writer::Json(Sockets::document(out, &head, parts)?.with_columns(columns))
        }
        (None, Output::Table) => {
            let columns = if columns.is_empty() {
                default_columns()
            } else {
                columns.clone()
            };
            Writer::Table(Box::new(Table::new(out, columns, options(args))))
        }
        (None, _) => Writer::Json(Sockets::lines(out, parts).with_columns(columns)),
    };
    let mut sink = Sink::new(writer, &choice);

    let mut failed = None;
    let mut unowned = 0u64;
    let by_owner = filter.needed().owners;
    let like = |socket: &Socket,
                attributes: &Attributes<'_>,
                ends: Ends<'_>,
                show: &mut dyn FnMut(&Record<'_>)| {
        show(&Record {
            socket,
            attributes,
            ends,
            owners: owners.as_ref(),
            ages: &ages,
            names: &names,
        });
    };
    let (mut rows, mut broke) = (Coverage::default(), None);
    let mut enough = false;
    for protocol in protocols(args) {
        let want = Want { protocol, ..want };
        let dumped = machine.dump(&want, &mut |row| {
            let (socket, attributes, ends) = row.parts();
            let mut flow = ControlFlow::Continue(());
            like(&socket, &attributes, ends, &mut |record| {
                let fits = filter.matches(record);
                // Where owners are judged, a socket whose holder was not found may have been left out.
                unowned += u64::from((fits || by_owner) && is_unowned(record));
                if let Some(halves) = sink.halves() {
                    halves.push(record, fits && families.family(record.socket.family));
                    return;
                }
                if !fits {
                    return;
                }
                flow = sink.push(record).unwrap_or_else(|error| {
                    failed = Some(error);
                    ControlFlow::Break(())
                });
            });
            enough = flow.is_break();
            flow
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        match dumped {
            Ok(coverage) => rows.merge(coverage),
            Err(error) => {
                rows.missing.push(error.to_string());
                broke = broke.or(Some(error));
            }
        }
        if enough {
            break;
        }
    }
    coverage.merge(rows);
    coverage.unowned = unowned;
    let unpaired = sink.halves().and_then(|halves| halves.missing());
    coverage.missing.extend(unpaired);
    let warnings = coverage.warnings();
    let tail = Tail {
        complete: coverage.complete(),
        warnings: &warnings,
    };
    sink.finish(&tail, &like)?;
    match broke {
        Some(error) => Err(error.into()),
        None => {
            source::note(&coverage);
            Ok(())
        }
    }
}

/// Whether the socket has a holder that was not found.
fn is_unowned(record: &Record<'_>) -> bool {
    let inode = record.socket.inode;
    inode != 0
        && record
            .owners
            .is_some_and(|owners| owners.links_of(inode).is_empty())
}

/// Whose sockets are listed, in this order.
fn protocols(_args: &args::List) -> Vec<Protocol> {
    vec![Protocol::Tcp]
}

/// The states of a filter that names none.
fn unasked(args: &args::List) -> StateSet {
    let listen = StateSet::of(TcpState::Listen);
    let bound = StateSet::of(TcpState::BoundInactive);
    match (args.all, args.listening, args.bound_inactive) {
        (true, ..) => StateSet::ALL,
        (_, true, true) => listen.union(bound),
        (_, true, false) => listen,
        (_, false, true) => bound,
        (false, false, false) => StateSet::DEFAULT,
    }
}

/// Asks only for what is shown or judged.
fn want(args: &args::List, states: StateSet, needed: Needed, tos: bool) -> Want {
    // -4 and -6 together are both; neither is both too.
    let both = args.ipv4 == args.ipv6;
    Want {
        states,
        ipv4: both || args.ipv4,
        ipv6: both || args.ipv6,
        tcp_info: needed.tcp_info,
        memory: needed.memory,
        congestion: needed.congestion,
        tos,
        ..Want::states(StateSet::EMPTY)
    }
}

/// Looks at one socket, because the kernel tells marks only to the privileged, and says nothing to others.
///
/// # Errors
/// When it is not told, or nothing can be read.
pub fn marks_are_told(machine: &mut dyn Source, want: &Want) -> Result<(), Failure> {
    let mut told = true;
    machine.dump(want, &mut |row| {
        let Row::Inet { socket, attributes } = row else {
            return ControlFlow::Continue(());
        };
        if socket.is_mini() {
            return ControlFlow::Continue(());
        }
        told = attributes.mark.is_some();
        ControlFlow::Break(())
    })?;
    if told {
        return Ok(());
    }
    Err(Failure::failed(
        "fwmark: the marks of these sockets are not known",
        Some("the kernel tells them over netlink, and only to root or CAP_NET_ADMIN; a capture has them if it was made so".to_owned()),
    ))
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

/// A few rows of a snapshot as lines below their heads, for a finding; its indent leaves no room for the long heads of
/// `list`.
pub fn sample(rows: &[u32], snapshot: &Snapshot) -> Vec<String> {
    const COLUMNS: [(&str, &str); 5] = [
        ("state", "State"),
        ("recv-q", "Recv-Q"),
        ("send-q", "Send-Q"),
        ("local", "Local"),
        ("peer", "Peer"),
    ];
    let ages = AgeFacts::new(&snapshot.facts);
    let attributes = Attributes::default();
    let heads = COLUMNS.iter().map(|(_, head)| (*head).to_owned());
    let mut lines: Vec<Vec<String>> = vec![heads.chain(["Age".to_owned()]).collect()];
    for socket in rows.iter().take(5).filter_map(|row| snapshot.socket(*row)) {
        let record = Record {
            socket,
            attributes: &attributes,
            ends: Ends::Ip,
            owners: None,
            ages: &ages,
            names: &NoNames,
        };
        let mut cells: Vec<String> = COLUMNS
            .iter()
            .filter_map(|(id, _)| fields::by_id(id).ok())
            .map(|field| {
                let mut cell = String::new();
                // Writing to a String does not fail.
                let _ = cell::write(&mut cell, &field.value(&record), false);
                cell
            })
            .collect();
        let age = snapshot.age(socket);
        cells.push(age.map_or(String::new(), |age| words::time(age.low_ms)));
        lines.push(cells);
    }
    if lines.len() == 1 {
        return Vec::new();
    }
    let aged = lines
        .iter()
        .skip(1)
        .any(|cells| cells.last().is_some_and(|age| !age.is_empty()));
    let longest: Vec<usize> = (0..=COLUMNS.len())
        .map(|at| {
            lines
                .iter()
                .filter_map(|cells| cells.get(at))
                .map(|cell| width(cell))
                .max()
        })
        .map(Option::unwrap_or_default)
        .collect();
    let shown = if aged {
        COLUMNS.len() + 1
    } else {
        COLUMNS.len()
    };
    let line = |cells: &Vec<String>| {
        let mut line = String::new();
        for (cell, longest) in cells.iter().zip(&longest).take(shown) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(
                ' ',
                longest.saturating_sub(width(cell)) + 2,
            ));
        }
        line.trim_end().to_owned()
    };
    lines.iter().map(line).collect()
}
