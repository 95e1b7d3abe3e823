//! Which columns a listing shows unasked.

use super::args::Output;
use super::tables::Tables;
use crate::fields::{self, Field, Needs};
use crate::model::Protocol;
use crate::render::json::Parts;

type Columns = Vec<&'static Field>;

fn named<'i>(ids: impl IntoIterator<Item = &'i str>) -> Columns {
    ids.into_iter()
        .filter_map(|id| fields::by_id(id).ok())
        .collect()
}

/// The columns of the output, `chosen` being those of `--columns`. JSON has its own.
pub fn columns(output: Output, chosen: &Columns, tables: Tables, parts: Parts) -> Columns {
    match output {
        Output::Json | Output::Jsonl => chosen.clone(),
        Output::Table | Output::Wide if !chosen.is_empty() => chosen.clone(),
        Output::Table => table(tables),
        Output::Wide => wide(tables),
        Output::Csv if chosen.is_empty() => csv(tables, parts),
        Output::Csv => {
            let mut columns = chosen.clone();
            add_parts(&mut columns, tables, parts);
            columns
        }
    }
}

/// Those that fingers know from ss; a kind of socket only where there are several, and of UNIX sockets the name last,
/// because it may be long.
fn table(tables: Tables) -> Columns {
    let mut ids: Vec<&str> = Vec::new();
    if tables.several() {
        ids.push("netid");
    }
    if tables.only_unix() {
        ids.extend([
            "state",
            "recv-q",
            "send-q",
            "inode",
            "peer-inode",
            "local-name",
        ]);
    } else {
        ids.extend(fields::DEFAULT);
    }
    named(ids)
}

fn tcp(tables: Tables) -> bool {
    tables.has(Protocol::Tcp) || tables.has(Protocol::Mptcp)
}

fn wide(tables: Tables) -> Columns {
    let mut columns = table(tables);
    let mut more = vec!["process", "user", "unit"];
    if tcp(tables) {
        more.extend(["age", "waiting-on", "timer", "rtt_us", "total_retrans"]);
    }
    if !tables.only_unix() {
        more.extend(["interface", "inode"]);
    }
    columns.extend(named(more));
    columns
}

/// What a row of JSON has, by the sockets that are listed.
fn csv(tables: Tables, parts: Parts) -> Columns {
    let over_ip = tables.protocols().any(Protocol::over_ip);
    let has = |protocol| tables.has(protocol);
    let mut columns = named(["protocol", "family", "netid", "state"]);
    let mut add = |wanted: bool, ids: &[&str]| {
        if wanted {
            columns.extend(named(ids.iter().copied()));
        }
    };
    add(over_ip, &["local-address"]);
    add(has(Protocol::Vsock), &["local-cid"]);
    add(over_ip || has(Protocol::Vsock), &["local-port"]);
    add(over_ip, &["peer-address"]);
    add(has(Protocol::Vsock), &["peer-cid"]);
    add(over_ip || has(Protocol::Vsock), &["peer-port"]);
    add(has(Protocol::Raw), &["ip-protocol"]);
    add(has(Protocol::Unix), &["local-name", "peer-inode"]);
    add(has(Protocol::Packet), &["ethertype"]);
    add(has(Protocol::Netlink), &["netlink-family", "port-id"]);
    add(over_ip || has(Protocol::Packet), &["interface"]);
    add(true, &["recv-q", "send-q", "uid", "inode", "cookie"]);
    add(over_ip, &["timer", "timer-expires"]);
    add_parts(&mut columns, tables, parts);
    columns
}

/// What `-p`, `-e`, `-i` and `-m` add.
fn add_parts(columns: &mut Columns, tables: Tables, parts: Parts) {
    for field in fields::all() {
        let wanted = match field.needs {
            Needs::Owners => parts.owners,
            Needs::Extended | Needs::Cgroup => parts.extended,
            Needs::TcpInfo | Needs::Congestion => parts.info && tcp(tables),
            Needs::Memory => parts.memory,
            _ => false,
        };
        if wanted && !columns.contains(&field) {
            columns.push(field);
        }
    }
}
