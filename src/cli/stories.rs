//! `linger explain --socket FILTER`: the story of each socket that fits.

use std::io::Write;
use std::net::IpAddr;
use std::ops::ControlFlow;

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Value, json};

use super::args;
use super::failure::Failure;
use super::selection::{self, Selection};
use super::{document, lookup, source, terminal};
use crate::collect::{Row, Source, Want, names};
use crate::fields::{Holders, NoNames, Record};
use crate::knowledge::{Scene, Story, tell};
use crate::model::words::{count, thousands};
use crate::model::{AgeFacts, Ends, Snapshot, Socket, StateSet, TcpInfo, TcpState};
use crate::query::Filter;
use crate::render::cell;
use crate::render::story::{story_json, story_text};
use crate::render::text::{Safe, wrap};

/// So many stories can be read at once.
const MOST: usize = 10;

/// What was found.
struct Found {
    /// the first that fit, with owners, settings and gaps
    snapshot: Snapshot,
    /// how many fit in all
    total: u64,
    /// the ports that something listens on
    listening: FxHashSet<u16>,
}

/// Prints the stories.
///
/// # Errors
/// For a filter that is not understood, or when the sockets cannot be read.
pub fn run(args: &args::Explain) -> Result<(), Failure> {
    source::only_one(&args.common, "a socket's story is told")?;
    let filter = selection::filter(&args.socket, args.filter_file.as_deref())?;
    let mut machine = source::open(&args.common)?;
    let found = find(filter, machine.as_mut())?;
    source::note(&found.snapshot.coverage);
    let stories = found.snapshot.sockets.iter().map(|socket| {
        let info = found.snapshot.info(socket);
        let scene = Scene {
            info: info.as_ref(),
            facts: &found.snapshot.facts,
            listened: Some(found.listening.contains(&socket.local.port)),
        };
        (socket, tell(socket, scene))
    });
    let stories: Vec<(&Socket, Option<Story>)> = stories.collect();
    if args.common.json {
        return print_json(args, &found, &stories);
    }
    let screen = terminal::screen(args.common.color);
    let mut out = Vec::new();
    for (at, (socket, story)) in stories.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        let head = head(socket, &found.snapshot);
        match story {
            Some(story) => story_text(&head, story, screen, &mut out)?,
            None => writeln!(out, "{head}\na state that linger does not know")?,
        }
    }
    let filter = shown(args);
    let again = source::again(&args.common);
    let next = if found.total == 0 {
        let text = format!("no socket fits '{}'", Safe(&filter));
        writeln!(out, "{}", wrap(&text, screen.text_width(), 0))?;
        format!("linger list -a{again}")
    } else {
        writeln!(out)?;
        let more = found.total.saturating_sub(stories.len() as u64);
        if more > 0 {
            let text = format!(
                "and {} of {}",
                count(more, "more socket"),
                thousands(found.total)
            );
            writeln!(out, "{text}")?;
        }
        let state = stories.first().and_then(|(socket, _)| socket.state.slug());
        format!("linger explain {}", state.unwrap_or("handshake"))
    };
    writeln!(out, "{:<11}{next}", "next")?;
    terminal::print(&out)
}

/// The filter as it was given.
fn shown(args: &args::Explain) -> String {
    let file = args.filter_file.as_ref();
    let file = file.map(|file| format!("-F {}", file.display()));
    let words = args.socket.iter().cloned().chain(file);
    words.collect::<Vec<_>>().join(" ")
}

fn find(filter: Filter, machine: &mut dyn Source) -> Result<Found, Failure> {
    let interfaces = if machine.is_capture() {
        FxHashMap::default()
    } else {
        names::interfaces()
    };
    let filter = filter
        .resolve(&mut lookup::Names::new(machine, &interfaces))?
        .within(StateSet::ALL);
    let needed = filter.needed();
    let mut snapshot = Snapshot {
        taken: machine.now(),
        host: machine.host(),
        facts: machine.facts(),
        ..Snapshot::default()
    };
    let (owners, seen) = machine.owners();
    let ages = AgeFacts::new(&snapshot.facts);
    let listen = StateSet::of(TcpState::Listen);
    let want = Want {
        tcp_info: true,
        memory: needed.memory,
        congestion: needed.congestion,
        ..Want::states(filter.states())
    };
    if filter.asks_mark() {
        selection::marks_are_told(machine, &want)?;
    }
    let selection = Selection::new(filter);
    selection.check(machine)?;
    // Listeners that do not fit tell who opened a connection that does.
    let mut listening = FxHashSet::default();
    let mut coverage = machine.dump(&Want::states(listen), &mut |row| {
        if let Row::Inet { socket, .. } = row {
            listening.insert(socket.local.port);
        }
        ControlFlow::Continue(())
    })?;
    let mut total = 0;
    let selected = selection.dump(machine, &want, &mut |filter, row| {
        let Row::Inet { socket, attributes } = row else {
            return ControlFlow::Continue(());
        };
        let record = Record {
            socket,
            attributes,
            ends: Ends::Ip,
            owners: Some(&owners),
            ages: &ages,
            names: &NoNames,
        };
        if filter.matches(&record) {
            total += 1;
            if snapshot.sockets.len() < MOST {
                snapshot.push(*socket, attributes.tcp_info.and_then(TcpInfo::parse));
            }
        }
        ControlFlow::Continue(())
    })?;
    let collector = coverage.collector;
    coverage.merge(selected);
    snapshot.coverage = coverage;
    snapshot.coverage.merge(seen);
    snapshot.coverage.collector = collector;
    let unowned = |socket: &&Socket| socket.inode != 0 && owners.links_of(socket.inode).is_empty();
    snapshot.coverage.unowned = snapshot.sockets.iter().filter(unowned).count() as u64;
    snapshot.owners = owners;
    Ok(Found {
        snapshot,
        total,
        listening,
    })
}

/// The socket in one line: state, both ends, holder.
fn head(socket: &Socket, snapshot: &Snapshot) -> String {
    let end = |ip: IpAddr, port: u16| {
        let port = match port {
            0 => "*".to_owned(),
            port => port.to_string(),
        };
        match ip {
            IpAddr::V4(ip) => format!("{ip}:{port}"),
            IpAddr::V6(ip) => format!("[{ip}]:{port}"),
        }
    };
    let mut text = format!(
        "{}   {}   {}   ",
        socket.state,
        end(socket.local_ip(), socket.local.port),
        end(socket.remote_ip(), socket.remote.port)
    );
    let holders = Holders::new(&snapshot.owners, socket);
    // Writing to a String does not fail.
    let _ = cell::write(&mut text, &crate::fields::Value::Owners(holders), true);
    text
}

fn print_json(
    args: &args::Explain,
    found: &Found,
    stories: &[(&Socket, Option<Story>)],
) -> Result<(), Failure> {
    let rows: Vec<u32> = (0u32..).take(stories.len()).collect();
    let sockets = document::sockets(&rows, &found.snapshot)?;
    let told: Vec<Value> = sockets
        .into_iter()
        .zip(stories)
        .map(|(socket, (_, story))| match story {
            Some(story) => story_json(socket, story),
            None => json!({ "socket": socket }),
        })
        .collect();
    let content = json!({
        "kind": "sockets",
        "filter": shown(args),
        "total": found.total,
        "stories": told,
    });
    document::print(
        "linger.explain/1",
        &args.common,
        &found.snapshot,
        &found.snapshot.coverage.warnings(),
        content,
    )
}
