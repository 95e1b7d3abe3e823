//! The measures that are kept between runs: those of the host, of the listeners, and of the units and programs that hold
//! most.

use foldhash::HashMap;

use super::{Context, parse};
use crate::history::Counts;
use crate::model::{Process, TcpState};

/// Listening ports of which the queues are kept; the longest first.
const PORTS: usize = 64;

/// Units, and programs, of which the sockets are kept; those with most first.
const HOLDERS: usize = 16;

/// States that are kept of each holder beside the total, zeros included: a curve of what is in none of them says little.
const STATES: [TcpState; 2] = [TcpState::Established, TcpState::CloseWait];

/// What is known of the host now, by the names of the measures.
pub fn kept(context: &Context<'_>) -> Vec<(String, f64)> {
    let mut values = Vec::new();
    let mut keep = |name: String| {
        let reading = parse(&name).ok().map(|asked| asked.read(context));
        if let Some(value) = reading.and_then(|reading| reading.value()) {
            values.push((name, value));
        }
    };
    for state in TcpState::SHOWN {
        if let Some(slug) = state.slug() {
            keep(format!("tcp.{slug}"));
        }
    }
    for name in [
        "tcp.total",
        "ports.used-ratio",
        "time-wait.table-ratio",
        "orphans.ratio",
        "conntrack.ratio",
        "closes.rate",
    ] {
        keep(name.to_owned());
    }
    for port in ports(context) {
        keep(format!("listener[{port}].queue"));
        keep(format!("listener[{port}].queue-ratio"));
    }
    if context.snapshot.coverage.owners_read {
        holders(
            context,
            "process",
            |process| Some(&process.comm),
            &mut values,
        );
        holders(context, "unit", Process::unit, &mut values);
    }
    values
}

/// The ports that are listened on, those with the longest queues first.
fn ports(context: &Context<'_>) -> Vec<u16> {
    let rows = context.tally.listeners.iter();
    let listeners = rows.filter_map(|row| context.snapshot.socket(*row));
    let mut queues: Vec<(u32, u16)> = listeners
        .map(|socket| (socket.recv_q, socket.local.port))
        .collect();
    queues.sort_unstable_by_key(|(queue, port)| (std::cmp::Reverse(*queue), *port));
    let mut ports: Vec<u16> = Vec::new();
    for (_, port) in queues {
        if !ports.contains(&port) {
            ports.push(port);
        }
        if ports.len() == PORTS {
            break;
        }
    }
    ports
}

/// Adds what those hold who hold most. A socket that several hold counts for the first of them.
fn holders<'a>(
    context: &Context<'a>,
    kind: &str,
    name: impl Fn(&'a Process) -> Option<&'a str>,
    values: &mut Vec<(String, f64)>,
) {
    let snapshot = context.snapshot;
    // Programs choose their names themselves.
    let mut held: HashMap<&str, Counts> = HashMap::default();
    for socket in snapshot.sockets.iter().filter(|socket| socket.inode != 0) {
        if let Some(name) = snapshot.owner(socket).and_then(&name) {
            held.entry(name).or_default().add(socket.state);
        }
    }
    let mut most: Vec<(&str, Counts)> = held.into_iter().collect();
    most.sort_unstable_by_key(|(name, counts)| (std::cmp::Reverse(counts.total()), *name));
    for (name, counts) in most.into_iter().take(HOLDERS) {
        values.push((format!("{kind}[{name}].total"), f64::from(counts.total())));
        for state in STATES {
            if let Some(slug) = state.slug() {
                values.push((
                    format!("{kind}[{name}].{slug}"),
                    f64::from(counts.of(state)),
                ));
            }
        }
    }
}
