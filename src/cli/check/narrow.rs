//! The sockets that a FILTER selects, as a reading of their own.

use std::ops::ControlFlow;

use rustc_hash::FxHashMap;

use super::args::Args;
use super::judge;
use crate::cli::failure::Failure;
use crate::cli::lookup;
use crate::cli::selection::{self, Selection};
use crate::collect::{Row, Want, names};
use crate::fields::{NoNames, Record};
use crate::model::owner::Unseen;
use crate::model::words::count;
use crate::model::{AgeFacts, Ends, Owners, Snapshot, Socket, StateSet, TcpInfo};

/// What fits.
#[derive(Debug)]
pub struct Narrowed {
    /// the sockets, with the settings and gaps of the reading
    pub snapshot: Snapshot,
    /// why more of them may fit than are seen to, if so
    pub open: Option<String>,
}

/// Reads the sockets that fit; `owners`: with who holds them.
///
/// # Errors
/// For a filter that is not understood, or when the sockets cannot be read.
pub fn read(args: &Args, owners: bool) -> Result<Narrowed, Failure> {
    let filter = selection::filter(&args.filter, None)?;
    let mut machine = judge::open(args)?;
    let machine = machine.as_mut();
    let interfaces = if machine.is_capture() {
        FxHashMap::default()
    } else {
        names::interfaces()
    };
    let filter = filter
        .resolve(&mut lookup::Names::new(machine, &interfaces))?
        .within(StateSet::ALL);
    let needed = filter.needed();
    if needed.owners && args.no_owners {
        return Err(Failure::usage(
            "--no-owners leaves open who holds a socket, and FILTER asks for that".to_owned(),
            "leave one of them out".to_owned(),
        ));
    }
    let mut snapshot = Snapshot {
        taken: machine.now(),
        host: machine.host(),
        facts: machine.facts(),
        ..Snapshot::default()
    };
    let (holders, seen) = if owners || needed.owners {
        machine.owners()
    } else {
        Default::default()
    };
    let holders: Owners = holders.searched(&seen);
    let ages = AgeFacts::new(&snapshot.facts);
    let want = Want {
        tcp_info: needed.tcp_info,
        memory: needed.memory,
        congestion: needed.congestion,
        congestion_info: needed.congestion_info,
        tos: needed.tos,
        ..Want::states(filter.states())
    };
    if filter.asks_mark() {
        selection::marks_are_told(machine, &want)?;
    }
    let selection = Selection::new(filter);
    selection.check(machine)?;
    let unowned = |socket: &Socket| socket.inode != 0 && holders.links_of(socket.inode).is_empty();
    let mut hidden = 0u64;
    let coverage = selection.dump(machine, &want, &mut |filter, row| {
        let Row::Inet { socket, attributes } = row else {
            return ControlFlow::Continue(());
        };
        let record = Record {
            socket,
            attributes,
            ends: Ends::Ip,
            owners: Some(&holders),
            ages: &ages,
            names: &NoNames,
        };
        if filter.matches(&record) {
            snapshot.push(*socket, attributes.tcp_info.and_then(TcpInfo::parse));
        } else if needed.owners && unowned(socket) {
            hidden += 1;
        }
        ControlFlow::Continue(())
    })?;
    let collector = coverage.collector;
    snapshot.coverage = coverage;
    snapshot.coverage.merge(seen);
    snapshot.coverage.collector = collector;
    snapshot.coverage.no_facts = !machine.has_facts();
    let all = snapshot.sockets.iter();
    snapshot.coverage.unowned = all.filter(|socket| unowned(socket)).count() as u64;
    let open = (hidden > 0 && holders.unseen() != Unseen::Nobody).then(|| {
        format!(
            "FILTER asks who holds a socket, and of {} that is not known",
            count(hidden, "more socket")
        )
    });
    snapshot.owners = holders;
    Ok(Narrowed { snapshot, open })
}
