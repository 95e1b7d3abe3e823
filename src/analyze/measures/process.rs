//! What processes of one name hold.

use rustc_hash::FxHashSet;

use super::{Asked, Context, Reading, unseen};
use crate::analyze::detectors::descriptors_of;
use crate::analyze::words;
use crate::model::owner::Unseen;
use crate::model::{Process, Socket, StateSet, TcpState};

/// The kernel keeps so many bytes of a name (`TASK_COMM_LEN`).
const COMM: usize = 15;

/// Whether the process has the name; of a longer one the kernel has kept the beginning.
fn is_named(process: &Process, name: &str) -> bool {
    process.comm == name
        || name.len() > COMM && name.get(..COMM).is_some_and(|kept| process.comm == kept)
}

pub(super) fn in_state(context: &Context<'_>, asked: &Asked) -> Reading {
    held(context, asked, asked.state)
}

pub(super) fn total(context: &Context<'_>, asked: &Asked) -> Reading {
    held(context, asked, None)
}

/// Whether the process is of the unit; `nginx` is short for `nginx.service`.
fn is_of(process: &Process, unit: &str) -> bool {
    process
        .unit()
        .is_some_and(|own| own == unit || own.strip_suffix(".service") == Some(unit))
}

/// Whether the process is one that is asked for.
fn is_asked(process: &Process, asked: &Asked) -> bool {
    match (&asked.unit, &asked.comm) {
        (Some(unit), _) => is_of(process, unit),
        (None, Some(name)) => is_named(process, name),
        (None, None) => false,
    }
}

/// That nothing has the name in a measure, which may be a slip.
pub(super) fn nobody(context: &Context<'_>, asked: &Asked) -> Option<String> {
    let (what, name) = match (&asked.unit, &asked.comm) {
        (Some(unit), _) => ("unit", unit),
        (None, Some(comm)) => ("process", comm),
        (None, None) => return None,
    };
    let snapshot = context.snapshot;
    let mut processes = snapshot.owners.processes().iter();
    let seen = !snapshot.coverage.owners_read || processes.any(|process| is_asked(process, asked));
    (!seen).then(|| format!("{}: no {what} '{name}' holds a TCP socket now", asked.label))
}

fn held(context: &Context<'_>, asked: &Asked, state: Option<TcpState>) -> Reading {
    let snapshot = context.snapshot;
    let name = asked.unit.as_ref().or(asked.comm.as_ref());
    let name = name.map_or("", String::as_str);
    if !snapshot.coverage.owners_read {
        return Reading::CannotTell("who holds the sockets was not read".to_owned());
    }
    if let Some(reason) = unseen(context, state.map_or(StateSet::ALL, StateSet::of)) {
        return Reading::CannotTell(reason);
    }
    let processes = (0u32..).zip(snapshot.owners.processes());
    let named: FxHashSet<u32> = processes
        .filter(|(_, process)| is_asked(process, asked))
        .map(|(place, _)| place)
        .collect();
    let links = snapshot.owners.links().iter();
    let inodes: FxHashSet<u32> = links
        .filter(|link| named.contains(&link.process))
        .map(|link| link.inode)
        .collect();
    let is_counted = |socket: &&Socket| {
        socket.inode != 0 && state.is_none_or(|state| socket.state.shown() == state.shown())
    };
    let (mut count, mut hidden) = (0u64, 0u64);
    for socket in snapshot.sockets.iter().filter(is_counted) {
        if inodes.contains(&socket.inode) {
            count += 1;
        } else if snapshot.owners.links_of(socket.inode).is_empty() {
            hidden += 1;
        }
    }
    let why = match snapshot.owners.unseen() {
        Unseen::Nobody => return Reading::Value(count as f64),
        _ if hidden == 0 => return Reading::Value(count as f64),
        Unseen::NotPermitted => "other users' processes may not be looked into",
        Unseen::TimedOut => "not all processes were read in time",
        Unseen::OtherPidNamespace => "processes of other pid namespaces are not seen",
    };
    Reading::CannotTell(format!(
        "{name} holds {count}, and of {} the holder is not known: {why}",
        words::count(hidden, "more socket")
    ))
}

pub(super) fn descriptors(context: &Context<'_>, asked: &Asked) -> Reading {
    let name = asked.comm.as_deref().unwrap_or_default();
    let snapshot = context.snapshot;
    if !snapshot.coverage.owners_read {
        return Reading::CannotTell("who holds descriptors was not read".to_owned());
    }
    let named: Vec<&Process> = snapshot
        .owners
        .processes()
        .iter()
        .filter(|process| is_named(process, name))
        .collect();
    let ratios = named.iter().filter_map(|process| {
        let (open, limit) = descriptors_of(context, process)?;
        Some(open as f64 / limit.max(1) as f64)
    });
    match ratios.reduce(f64::max) {
        Some(most) => Reading::Value(most),
        None if named.is_empty() => {
            Reading::CannotTell(format!("no process '{name}' that holds sockets was seen"))
        }
        None => Reading::CannotTell(format!(
            "the descriptors of {name}, or their limit, could not be read"
        )),
    }
}
