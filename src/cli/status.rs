//! `linger` and `linger status`: one screen.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::args;
use super::document::{self, Judged};
use super::failure::Failure;
use super::observe::{self, Observation, Plan};
use super::{source, terminal};
use crate::model::{Coverage, Process, Snapshot, Socket, TcpState, Top};
use crate::render::status;

/// How many of each the JSON document ranks.
const RANKED: usize = 10;

/// Reads once, never waits, prints the screen or the document.
///
/// # Errors
/// When the machine cannot be read.
pub fn run(args: &args::Status) -> Result<(), Failure> {
    let settings = observe::settings(&args.select, &args.common)?;
    let owners = !args.no_owners;
    let plan = Plan {
        samples: 1,
        interval: Duration::ZERO,
        pulse: false,
        recorded: None,
        owners,
    };
    let seen = observe::look(&args.common, plan, &settings)?;
    let top = seen.top(RANKED);
    let told = seen.told();
    source::note_beside(&seen.warnings(), args.common.json);
    if args.common.json {
        let states = states(
            seen.tally.states(),
            seen.tally.unknown,
            &seen.snapshot.coverage,
        );
        let judged = Judged::new(&seen.analysis, &told)?;
        let document =
            StatusDocument::new(states, seen.tally.total(), judged, &top, &seen.snapshot);
        return document::print(
            "linger.status/1",
            &args.common,
            &seen.snapshot,
            &seen.warnings(),
            document,
        );
    }
    let screen = terminal::screen(args.common.color);
    let Observation {
        snapshot,
        tally,
        analysis,
        ..
    } = &seen;
    let stories: Vec<_> = told.iter().map(|told| told.story).collect();
    let status = status::Status {
        snapshot,
        states: tally.states(),
        unknown: tally.unknown,
        analysis,
        stories: &stories,
        warnings: &seen.warnings(),
        top: &top,
        owners,
        clock: &source::clock(&args.common, snapshot),
        again: &source::again(&args.common),
    };
    let mut out = Vec::new();
    status::write(&status, screen, &mut out)?;
    terminal::print(&out)
}

/// `linger.status/1`.
#[derive(Serialize)]
pub struct StatusDocument<'a> {
    states: Value,
    protocols: Value,
    #[serde(flatten)]
    judged: Judged<'a>,
    top: Value,
}

impl<'a> StatusDocument<'a> {
    /// With the counts by state of so many TCP sockets, what the detectors say of them, and who holds most.
    pub fn new(
        states: Value,
        total: u64,
        judged: Judged<'a>,
        top: &Top<'_>,
        snapshot: &Snapshot,
    ) -> Self {
        Self {
            states: json!({ "tcp": states }),
            protocols: json!({ "tcp": total }),
            judged,
            top: ranked(top, snapshot),
        }
    }
}

/// Every state with its number, zeros included; unknown numbers only where there are some. What could not be
/// seen is null.
pub fn states(counts: &[u64; TcpState::SHOWN.len()], unknown: u64, coverage: &Coverage) -> Value {
    let mut map = Map::new();
    for (state, count) in TcpState::SHOWN.into_iter().zip(counts) {
        if let Some(slug) = state.slug() {
            let count = coverage.sees(state).then_some(*count);
            map.insert(slug.to_owned(), count.into());
        }
    }
    if unknown > 0 {
        map.insert("unknown".to_owned(), unknown.into());
    }
    Value::Object(map)
}

fn ranked(top: &Top<'_>, snapshot: &Snapshot) -> Value {
    let processes: Vec<Value> = top.processes.iter().map(|(p, n)| process(p, *n)).collect();
    let peers: Vec<Value> = top
        .peers
        .iter()
        .map(|(peer, n)| json!({ "address": peer, "sockets": n }))
        .collect();
    let listeners: Vec<Value> = top
        .listeners
        .iter()
        .map(|(l, n)| listener(l, *n, snapshot))
        .collect();
    json!({ "processes": processes, "peers": peers, "listeners": listeners })
}

/// A process and how many sockets it holds; what is not known is absent.
pub fn process(process: &Process, sockets: u64) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            map.insert(key.to_owned(), value);
        }
    };
    put("pid", Some(process.pid.into()));
    put("comm", Some(process.comm.as_str().into()));
    put("sockets", Some(sockets.into()));
    put("uid", process.uid.map(Value::from));
    put("user", process.user.as_deref().map(Value::from));
    put("unit", process.unit().map(Value::from));
    put("open_descriptors", process.fds.map(Value::from));
    put(
        "descriptor_limit",
        process
            .nofile
            .filter(|limit| *limit != u64::MAX)
            .map(Value::from),
    );
    Value::Object(map)
}

fn listener(socket: &Socket, connections: u64, snapshot: &Snapshot) -> Value {
    let mut value = json!({
        "address": socket.local_ip(),
        "port": socket.local.port,
        "connections_on_port": connections,
        "accept_queue": socket.recv_q,
    });
    if let (Some(limit), Some(map)) = (socket.backlog(), value.as_object_mut()) {
        map.insert("accept_queue_limit".to_owned(), limit.into());
    }
    let looked = snapshot.namespaces.get(usize::from(socket.netns));
    if let (Some(looked), Some(map)) = (looked, value.as_object_mut()) {
        let label = looked.namespace.label.as_str();
        map.insert("netns".to_owned(), label.into());
    }
    value
}

/// The name and pid of a socket's first holder, or why there is none.
pub fn holder(snapshot: &Snapshot, socket: &Socket) -> Option<String> {
    snapshot.owner(socket).map(status::name)
}
