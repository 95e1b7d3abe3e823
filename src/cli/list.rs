//! `linger list`: sockets as rows, streamed.

use std::io::{self, BufWriter};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::args::{self, Output};
use super::failure::Failure;
use super::listed::{self, Choice, Form, PairForm, Sink, Writer};
use super::pair::{self, Halves};
use super::selection::{self, Selection};
use super::tables::{Tables, unasked};
use super::{fingers, lookup, source, terminal, views};
use crate::collect::hosts::{self, Hosts, Wanted};
use crate::collect::netns::Namespaces;
use crate::collect::procfs::cgroups;
use crate::collect::{self, Row, Source, Want, names};
use crate::fields::{self, Names, Needed, NoNames, Record};
use crate::model::{
    AgeFacts, Attributes, Coverage, Ends, Namespace, Protocol, Snapshot, Socket, StateSet, words,
};
use crate::query::Filter;
use crate::render::cell;
use crate::render::csv::Csv;
use crate::render::groups::{Groups, Members};
use crate::render::json::{Head, Pairs, Parts, Sockets, Tail};
use crate::render::rows::{Extras, Options, Table};
use crate::render::text::width;

/// The size of the output buffer: rows are short, and each write is a system call.
const BUFFER: usize = 64 * 1024;

/// How long a listing waits for the names of its addresses, in all.
const RESOLVED_WITHIN: Duration = Duration::from_secs(2);

/// The names of this machine's interfaces, users and cgroups; a capture's interfaces are not known, and its cgroups only
/// by their processes.
pub struct Numbers {
    /// index -> name
    pub interfaces: FxHashMap<u32, String>,
    users: FxHashMap<u32, String>,
    /// with `-r`
    hosts: Hosts,
    /// with `-r`
    services: FxHashMap<(Protocol, u16), String>,
    /// where there are several
    namespaces: Option<Rc<Namespaces>>,
    /// where there is one
    namespace: Option<Namespace>,
    cgroups: cgroups::Paths,
}

impl Numbers {
    /// Of users none yet: they are read where a column shows them.
    pub fn of(machine: &dyn Source, common: &args::Common) -> Self {
        Self {
            interfaces: if machine.is_capture() {
                FxHashMap::default()
            } else {
                names::interfaces()
            },
            users: FxHashMap::default(),
            cgroups: if machine.is_capture() {
                cgroups::Paths::none()
            } else {
                cgroups::Paths::new("/proc/self/mountinfo")
            },
            hosts: Hosts::default(),
            services: FxHashMap::default(),
            namespaces: machine.namespaces(),
            namespace: source::namespace(common, &machine.host()),
        }
    }

    /// The settings that ages depend on in the namespace of a socket, where there are several.
    fn ages(&self, netns: u16) -> Option<&AgeFacts> {
        self.namespaces.as_ref()?.ages(netns)
    }
}

impl Names for Numbers {
    fn interface(&self, netns: u16, index: u32) -> Option<&str> {
        match &self.namespaces {
            Some(all) => all.interface(netns, index),
            None => self.interfaces.get(&index).map(String::as_str),
        }
    }

    fn namespace(&self, netns: u16) -> Option<&Namespace> {
        match &self.namespaces {
            Some(all) => all.get(netns),
            None => self.namespace.as_ref(),
        }
    }

    fn user(&self, uid: u32) -> Option<&str> {
        self.users.get(&uid).map(String::as_str)
    }

    fn cgroup(&self, id: u64) -> Option<&str> {
        self.cgroups.of(id)
    }

    fn host(&self, ip: IpAddr) -> Option<&str> {
        self.hosts.name(ip)
    }

    fn service(&self, protocol: Protocol, port: u16) -> Option<&str> {
        let over = match protocol {
            Protocol::Mptcp => Protocol::Tcp,
            Protocol::UdpLite => Protocol::Udp,
            other => other,
        };
        self.services.get(&(over, port)).map(String::as_str)
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
    let tables = Tables::of(args)?;
    let output = output(args)?;
    if args.pair {
        pair::check(args, output)?;
    }
    if let Some(form) = args.filter.first()
        && args.timers
        && fingers::is_form(form)
    {
        return Err(fingers::not_a_form(form));
    }
    let filter = selection::filter(&args.filter, args.filter_file.as_deref())?;
    let mut machine = source::open(&args.common)?;
    let mut names = Numbers::of(machine.as_ref(), &args.common);
    let filter = filter.resolve(&mut lookup::Names::new(machine.as_mut(), &names.interfaces))?;
    let folds = folds(args, &filter, output);
    // What is shown unasked depends on the protocol.
    let filters: Vec<(Protocol, Filter)> = tables
        .protocols()
        .map(|protocol| (protocol, filter.clone().within(unasked(args, protocol))))
        .collect();
    let grouped = !choice.groups.is_empty();
    let parts = if grouped {
        Parts::default()
    } else {
        Parts {
            owners: args.processes || args.pair && matches!(output, Output::Json | Output::Jsonl),
            info: args.info,
            memory: args.memory,
            extended: args.extended,
        }
    };
    let json = matches!(output, Output::Json | Output::Jsonl);
    let mut columns = match args.pair {
        true => choice.columns.clone(),
        false => views::columns(output, &choice.columns, tables, parts),
    };
    let usual = pair::needed(args.pair && !json && columns.is_empty());
    // Of several namespaces each row says which one is its own; of a table's columns only if none were asked for.
    if let Ok(netns) = fields::by_id("netns")
        && names.namespaces.is_some()
        && (choice.columns.is_empty() && !args.pair || json)
    {
        columns.insert(0, netns);
    }
    let columns = &columns;
    let shown = choice
        .needed()
        .and(usual)
        .and(Needed::by(columns))
        .and(Needed {
            extended: parts.extended,
            tos: parts.extended,
            tcp_info: parts.info,
            congestion: parts.info,
            congestion_info: parts.info,
            memory: parts.memory,
            // `-e` shows the unit, which an owner tells where the cgroup's id has no path.
            // The name behind a port id of NETLINK is that of its holder.
            owners: parts.owners || parts.extended || tables.has(Protocol::Netlink),
            cgroup: parts.extended,
        });
    let needed = filter.needed().and(shown);
    let want = want(tables, needed);
    if filter.asks_mark()
        && let Some((protocol, filter)) = filters.iter().find(|(protocol, _)| protocol.over_ip())
    {
        let want = Want {
            protocol: *protocol,
            states: filter.states().of_protocol(*protocol),
            ..want
        };
        marks_are_told(machine.as_mut(), &want)?;
    }
    let by_owner = filter.needed().owners;
    let selections: Vec<(Protocol, Selection)> = filters
        .iter()
        .map(|(protocol, filter)| (*protocol, Selection::new(filter.clone())))
        .collect();
    if let Some((_, selection)) = selections.first() {
        if args.pair && selection.asks_autobound() {
            return pair::not_autobound();
        }
        selection.check(machine.as_mut())?;
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
    if choice.has("user") || columns.iter().any(|field| field.id == "user") {
        names.users = lookup::users(machine.as_mut(), owners.as_ref());
    }
    if args.resolve {
        let mut wanted = Wanted::default();
        // Rows stream, so that names have to be known before the first. What fails here fails again below.
        for (protocol, filter) in filters.iter().filter(|(protocol, _)| protocol.over_ip()) {
            let want = Want {
                protocol: *protocol,
                states: filter.states().of_protocol(*protocol),
                ..want
            };
            let _ = machine.dump(&want, &mut |row| {
                let (socket, attributes, ends) = row.parts();
                let record = Record {
                    socket: &socket,
                    attributes: &attributes,
                    ends,
                    owners: owners.as_ref(),
                    ages: &ages,
                    names: &names,
                };
                if filter.matches(&record) {
                    wanted.add(socket.remote_ip());
                    wanted.add(socket.local_ip());
                }
                ControlFlow::Continue(())
            });
        }
        names.hosts = hosts::resolve(wanted, hosts::System, RESOLVED_WITHIN);
        names.services = lookup::services();
        coverage.notes.extend(names.hosts.note().map(str::to_owned));
    }
    let host = machine.host();
    let out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
    let head = match output {
        // The collector stands in front of the rows; whether it may be used shows before the first of them.
        Output::Json => Some(Head {
            schema: choice.schema(args.pair),
            generated_at: machine.now(),
            host: &host.name,
            netns: host.netns,
            collector: source::probe(&args.common, machine.as_mut()),
        }),
        Output::Table | Output::Wide | Output::Jsonl | Output::Csv => None,
    };
    let header = !args.no_header;
    let writer = match (head, output) {
        (head, output) if grouped => Writer::Groups {
            groups: Groups::new(
                choice.groups.clone(),
                match output {
                    Output::Table | Output::Wide => Members::None,
                    Output::Json | Output::Jsonl => Members::Json,
                    Output::Csv => Members::Csv,
                },
            ),
            by: choice.groups.clone(),
            form: match (head, output) {
                (Some(head), _) => Form::Document(head),
                (None, Output::Table | Output::Wide) => Form::Table(header),
                (None, Output::Csv) => Form::Csv(header),
                (None, _) => Form::Lines,
            },
            out,
        },
        (head, _) if args.pair => Writer::Pairs {
            halves: Halves::new(choice.order, choice.top, shown),
            form: match json {
                true => PairForm::Json(Pairs::new(out, head.as_ref(), parts, columns)?),
                false => PairForm::table(out, columns, names.namespaces.is_some(), header),
            },
        },
        (Some(head), _) => {
            Writer::Json(Sockets::document(out, &head, parts)?.with_columns(columns))
        }
        (None, Output::Table | Output::Wide) => Writer::Table(Box::new(Table::new(
            out,
            columns.clone(),
            options(args, output),
        ))),
        (None, Output::Csv) => Writer::Csv(Csv::new(
            out,
            columns.clone(),
            header,
            terminal::is_terminal(),
        )?),
        (None, _) => Writer::Json(Sockets::lines(out, parts).with_columns(columns)),
    };
    let mut sink = Sink::new(writer, &choice).folding(folds);

    let mut failed = None;
    let (mut unowned, mut unnamed) = (0u64, 0u64);
    let like = |socket: &Socket,
                attributes: &Attributes<'_>,
                ends: Ends<'_>,
                show: &mut dyn FnMut(&Record<'_>)| {
        show(&Record {
            socket,
            attributes,
            ends,
            owners: owners.as_ref(),
            ages: names.ages(socket.netns).unwrap_or(&ages),
            names: &names,
        });
    };
    let (mut rows, mut broke) = (Coverage::default(), None);
    let mut enough = false;
    for ((protocol, selection), (_, filter)) in selections.iter().zip(&filters) {
        let want = Want {
            protocol: *protocol,
            states: selection.states().of_protocol(*protocol),
            // The kernel tells the queues of these with their memory alone.
            memory: want.memory || matches!(protocol, Protocol::Packet | Protocol::Netlink),
            ..want
        };
        let mut each = |filter: &Filter, row: Row<'_>| {
            let (socket, attributes, ends) = row.parts();
            let mut flow = ControlFlow::Continue(());
            like(&socket, &attributes, ends, &mut |record| {
                let fits = filter.matches(record) && tables.shows(record);
                // Where owners are judged, a socket whose holder was not found may have been left out.
                unowned += u64::from((fits || by_owner) && is_unowned(record));
                if let Some(halves) = sink.halves() {
                    let family = !protocol.over_ip() || want.family(socket.family);
                    halves.push(record, fits && family);
                    return;
                }
                if !fits {
                    return;
                }
                unnamed += u64::from(needed.cgroup && has_no_path(record));
                flow = sink.push(record).unwrap_or_else(|error| {
                    failed = Some(error);
                    ControlFlow::Break(())
                });
            });
            enough = flow.is_break();
            flow
        };
        // The other end of what is selected must not be left out.
        let dumped = if args.pair {
            machine.dump(&pair::want(want), &mut |row| each(filter, row))
        } else {
            selection.dump(machine.as_mut(), &want, &mut each)
        };
        if let Some(error) = failed {
            return Err(error.into());
        }
        match dumped {
            Ok(coverage) => rows.merge(coverage),
            Err(error) => {
                rows.missing.push(missing(*protocol, &error));
                if tables.must(*protocol) {
                    broke = broke.or(Some(error));
                }
            }
        }
        if enough {
            break;
        }
    }
    coverage.merge(rows);
    coverage.unowned = unowned;
    coverage.missing.extend(sink.unpaired());
    if unnamed > 0 && names.cgroups.is_hidden() && !machine.is_capture() {
        let gap =
            format!("the cgroups of {unnamed} sockets: no cgroup2 file system is mounted here");
        coverage.missing.push(gap);
    }
    let warnings = coverage.warnings();
    let looked = names
        .namespaces
        .as_ref()
        .map_or_else(Vec::new, |all| all.looked());
    let tail = Tail {
        namespaces: &looked,
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
pub fn is_unowned(record: &Record<'_>) -> bool {
    let inode = record.socket.inode;
    // The kernel's own ends of NETLINK have a file that nobody opens, and ours came after the look at holders.
    let ours = [0, std::process::id()];
    let known = matches!(record.ends, Ends::Netlink(netlink) if ours.contains(&netlink.portid));
    inode != 0
        && !known
        && record
            .owners
            .is_some_and(|owners| owners.links_of(inode).is_empty())
}

/// What is missing where a table could not be read.
fn missing(protocol: Protocol, error: &collect::Error) -> String {
    match error {
        collect::Error::NotRecorded(_) => error.to_string(),
        error => format!("{}: {error}", protocol.sockets()),
    }
}

/// Whether the id of the socket's cgroup is all that is known of it.
fn has_no_path(record: &Record<'_>) -> bool {
    record.attributes.cgroup_id.is_some() && record.cgroup().is_none()
}

/// The form of the output: `--json` says no more than that it is not a table; `--output` may say more.
fn output(args: &args::List) -> Result<Output, Failure> {
    match args.output {
        Output::Table if args.common.json => Ok(Output::Json),
        form @ (Output::Csv | Output::Wide) if args.common.json => Err(Failure::usage(
            format!(
                "--json and --output {} are two forms",
                if form == Output::Csv { "csv" } else { "wide" }
            ),
            "leave one of them out".to_owned(),
        )),
        form => Ok(form),
    }
}

/// Whether a flood of TIME-WAIT becomes one line: before a person's eyes, unless states or an order were asked for.
fn folds(args: &args::List, filter: &Filter, output: Output) -> bool {
    let asked = args.all
        || args.listening
        || args.bound_inactive
        || args.timers
        || args.sort.is_some()
        || args.top.is_some()
        || !args.group_by.is_empty()
        || filter.chooses_states();
    matches!(output, Output::Table | Output::Wide) && !asked && terminal::is_terminal()
}

/// Asks only for what is shown or judged.
fn want(tables: Tables, needed: Needed) -> Want {
    Want {
        ipv4: tables.ipv4,
        ipv6: tables.ipv6,
        tcp_info: needed.tcp_info,
        memory: needed.memory,
        congestion: needed.congestion,
        congestion_info: needed.congestion_info,
        tos: needed.tos,
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

fn options(args: &args::List, output: Output) -> Options {
    let wide = output == Output::Wide;
    Options {
        header: !args.no_header,
        extras: Extras {
            timer: args.timers,
            extended: args.extended,
            memory: args.memory,
            info: args.info,
            process: args.processes,
        },
        width: terminal::columns().filter(|_| !wide),
        one_line: args.oneline || wide,
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
