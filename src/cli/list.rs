//! `linger list`: sockets as rows, streamed.

use std::io::{self, BufWriter};
use std::ops::ControlFlow;

use super::args::{self, Output};
use super::failure::Failure;
use super::listed::{self, Sink};
use super::numbers::Numbers;
use super::plan::Plan;
use super::selection::{self, Selection, marks_are_told};
use super::tables::unasked;
use super::{lookup, pair, source};
use crate::collect::{self, Row, Want};
use crate::fields::Record;
use crate::model::{AgeFacts, Attributes, Coverage, Ends, Protocol, Socket};
use crate::query::Filter;
use crate::render::json::{Head, Tail};

/// The size of the output buffer: rows are short, and each write is a system call.
const BUFFER: usize = 64 * 1024;

/// Reads and prints row by row; memory does not grow with their number, unless they are to be sorted.
///
/// # Errors
/// For a filter or column that is not understood, or when the sockets cannot be read; what was read is printed all the
/// same, and a document says that it is not complete.
pub fn run(args: &args::List) -> Result<(), Failure> {
    let mut ids = args.columns.iter().chain(&args.group_by).chain(&args.sort);
    if ids.any(|id| id == "help") {
        return listed::print_columns();
    }
    let mut plan = Plan::new(args)?;
    let filter = selection::filter(&args.filter, args.filter_file.as_deref())?;
    let mut machine = source::open(&args.common)?;
    let mut names = Numbers::of(machine.as_ref(), &args.common);
    let filter = filter.resolve(&mut lookup::Names::new(machine.as_mut(), &names.interfaces))?;
    if filter.asks_netns() && names.namespaces.is_none() {
        return Err(Failure::usage(
            "netns: one network namespace is listed, and none of its rows says which".to_owned(),
            "netns tells namespaces apart with --netns all; --netns NAME lists one".to_owned(),
        ));
    }
    if names.namespaces.is_some() {
        plan.name_namespaces();
    }
    let (plan, tables) = (&plan, plan.tables);
    // What is shown unasked depends on the protocol.
    let filters: Vec<(Protocol, Filter)> = tables
        .protocols()
        .map(|protocol| (protocol, filter.clone().within(unasked(args, protocol))))
        .collect();
    let needed = filter.needed().and(plan.shown);
    let want = plan.want(needed);
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
    if plan.has("user") {
        names.users = lookup::users(machine.as_mut(), owners.as_ref());
    }
    if args.resolve {
        let told = names.resolve(machine.as_mut(), &filters, &want, owners.as_ref(), &ages);
        coverage.notes.extend(told);
    }
    let host = machine.host();
    let out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
    let head = match plan.output {
        // The collector stands in front of the rows; whether it may be used shows before the first of them.
        Output::Json => Some(Head {
            schema: plan.choice.schema(args.pair),
            generated_at: machine.now(),
            host: &host.name,
            netns: host.netns,
            collector: source::probe(&args.common, machine.as_mut()),
        }),
        Output::Table | Output::Wide | Output::Jsonl | Output::Csv => None,
    };
    let writer = plan.writer(head, out, names.namespaces.is_some())?;
    let mut sink = Sink::new(writer, &plan.choice).folding(plan.folds(&filter));

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
        let mut each = |filter: &Filter, row: &Row<'_>| {
            let parts;
            // Nearly all rows are of IP, and are not copied.
            let (socket, attributes, ends) = match row {
                Row::Inet { socket, attributes } => (socket, attributes, Ends::Ip),
                other => {
                    parts = other.parts();
                    (&parts.0, &parts.1, parts.2)
                }
            };
            let mut flow = ControlFlow::Continue(());
            like(socket, attributes, ends, &mut |record| {
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
            machine.dump(&pair::want(want), &mut |row| each(filter, &row))
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
    // What came with others is not missed.
    coverage.absent.retain(|protocol| tables.must(*protocol));
    let absences = coverage.absences();
    coverage.notes.extend(absences);
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
    let (inode, Some(owners)) = (record.socket.inode, record.owners) else {
        return false;
    };
    // The kernel's own ends of NETLINK have a file that nobody opens, and ours came after the look at holders.
    let known = matches!(record.ends, Ends::Netlink(netlink) if [0, std::process::id()].contains(&netlink.portid));
    inode != 0 && !known && owners.links_of(inode).is_empty()
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
    let Some(id) = record.attributes.cgroup_id() else {
        return false;
    };
    record.names.cgroup(id).is_none() && record.cgroup().is_none()
}
