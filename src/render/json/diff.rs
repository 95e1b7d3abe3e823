//! `linger.diff/1`: what is different between two looks.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::sockets::write_members;
use super::{Head, Object, Parts, Tail, write_value};
use crate::fields::{NoNames, Record};
use crate::knowledge::counters::trouble;
use crate::model::diff::{Changed, Changes, Diff, Findings, Holding, OneSided};
use crate::model::{
    AgeFacts, Attributes, Ends, Finding, Local, Owners, Snapshot, Socket, TcpState,
};

/// The schema of `linger diff`.
pub const DIFF: &str = "linger.diff/1";

/// What the document says of the files.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// of the first look
    pub before: &'a str,
    /// of the second look
    pub after: &'a str,
}

/// Writes the document. Of sockets in TIME-WAIT that came or went only their number is told with `fold`.
///
/// # Errors
/// Those of `out`.
pub fn write_diff(
    out: &mut impl Write,
    head: &Head<'_>,
    files: Files<'_>,
    diff: &Diff<'_>,
    findings: &Findings<'_>,
    fold: impl Fn(&Socket) -> bool,
    tail: &Tail<'_>,
) -> io::Result<()> {
    let mut text = Vec::new();
    write_value(&mut text, head)?;
    // Without its closing brace: the members follow.
    text.pop();
    out.write_all(&text)?;
    let mut object = Object {
        out: &mut *out,
        first: false,
    };
    object.value("before", look(files.before, diff.before))?;
    object.value("after", look(files.after, diff.after))?;
    object.value("elapsed_ms", diff.elapsed_ms())?;
    object.plain("compared_by", diff.by.name())?;
    let apart: Vec<&str> = diff.apart.iter().map(|apart| apart.name()).collect();
    object.value("apart", apart)?;
    object.value("states", json!({ "tcp": states(diff) }))?;
    object.value("protocols", protocols(diff))?;
    object.value("findings", self::findings(findings))?;
    object.known("processes", diff.programs.as_ref().map(|_| programs(diff)))?;
    object.known("settings", diff.settings.as_ref().map(|_| settings(diff)))?;
    object.known("counters", diff.counters.as_ref().map(|_| counters(diff)))?;
    changes(&mut object, "listeners", diff, &diff.listeners, &|_| false)?;
    object.known("unix_listeners", unix(diff))?;
    changes(&mut object, "sockets", diff, &diff.sockets, &fold)?;
    tail.write(out)
}

/// Which capture it is.
fn look(file: &str, snapshot: &Snapshot) -> Value {
    let host = &snapshot.host;
    let name = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    json!({
        "file": file,
        "taken_at": format!("{:.3}", snapshot.taken),
        "host": name(&host.name),
        "kernel": name(&host.kernel),
        "netns": host.netns,
        "boot_id": host.boot_id,
        "collector": snapshot.coverage.collector.name(),
        "complete": snapshot.coverage.complete(),
    })
}

/// Two numbers; unknown ones are `null`.
fn two(before: Option<u64>, after: Option<u64>) -> Value {
    json!({ "before": before, "after": after })
}

fn states(diff: &Diff<'_>) -> Value {
    let mut map = Map::new();
    let sees = |snapshot: &Snapshot, state| snapshot.coverage.sees(state);
    for (state, (before, after)) in TcpState::SHOWN.into_iter().zip(diff.states) {
        if let Some(slug) = state.slug() {
            let before = sees(diff.before, state).then_some(before);
            let after = sees(diff.after, state).then_some(after);
            map.insert(slug.to_owned(), two(before, after));
        }
    }
    if let Some((before, after)) = diff.states.last().filter(|numbers| **numbers != (0, 0)) {
        map.insert("unknown".to_owned(), two(Some(*before), Some(*after)));
    }
    Value::Object(map)
}

fn protocols(diff: &Diff<'_>) -> Value {
    let (before, after) = diff.total();
    let mut map = Map::new();
    map.insert("tcp".to_owned(), two(Some(before), Some(after)));
    if let Some((before, after)) = diff.udp {
        map.insert("udp".to_owned(), two(Some(before), Some(after)));
    }
    Value::Object(map)
}

fn finding(finding: &Finding) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("id".to_owned(), finding.id.into());
    if let Some(variant) = finding.variant {
        map.insert("variant".to_owned(), variant.into());
    }
    map.insert("severity".to_owned(), finding.severity.name().into());
    map.insert("title".to_owned(), finding.title.as_str().into());
    map.insert("subject".to_owned(), json!(finding.subject));
    map
}

fn findings(findings: &Findings<'_>) -> Value {
    let one_sided = |all: &[OneSided<'_>], key: &str| -> Vec<Value> {
        let each = all.iter().map(|one| {
            let mut map = finding(one.finding);
            map.insert(key.to_owned(), (!one.untold).into());
            Value::Object(map)
        });
        each.collect()
    };
    let both = |(before, after): (&Finding, &Finding)| json!({ "before": finding(before), "after": finding(after) });
    json!({
        "new": one_sided(&findings.new, "judged_before"),
        "worse": findings.worse().map(both).collect::<Vec<_>>(),
        "gone": one_sided(&findings.gone, "judged_after"),
        "better": findings.better().map(both).collect::<Vec<_>>(),
        "same": findings.same().map(both).collect::<Vec<_>>(),
    })
}

fn holding(holding: &Holding) -> Value {
    let states = TcpState::SHOWN.into_iter().zip(holding.states);
    let states: Map<String, Value> = states
        .filter(|(_, n)| *n > 0)
        .filter_map(|(state, n)| Some((state.slug()?.to_owned(), n.into())))
        .collect();
    json!({ "pids": holding.pids, "sockets": holding.sockets, "states": states })
}

fn programs(diff: &Diff<'_>) -> Vec<Value> {
    let all = diff.programs.iter().flatten();
    let one = |program: &crate::model::diff::Program<'_>| json!({ "comm": program.comm, "before": holding(&program.before), "after": holding(&program.after) });
    all.map(one).collect()
}

fn settings(diff: &Diff<'_>) -> Vec<Value> {
    let all = diff.settings.iter().flatten();
    let one = |setting: &crate::model::diff::Setting<'_>| json!({ "name": setting.path.replace('/', "."), "before": setting.before, "after": setting.after });
    all.map(one).collect()
}

fn counters(diff: &Diff<'_>) -> Vec<Value> {
    let backwards = diff.elapsed_ms() < 0;
    let one = |counter: &crate::model::diff::Counter<'_>| {
        let reset = !backwards && counter.change() < 0;
        let rate = diff.per_second(counter.change()).filter(|_| !reset);
        let told = trouble(counter.name);
        json!({
            "name": counter.name,
            "before": counter.before,
            "after": counter.after,
            "change": (!reset).then(|| counter.change()),
            "per_second": rate.map(|rate| (rate * 1000.0).round() / 1000.0),
            "reset": reset,
            "trouble": told.map(|(_, what)| what),
        })
    };
    diff.counters.iter().flatten().map(one).collect()
}

/// The names of UNIX sockets that listen in one look alone.
fn unix(diff: &Diff<'_>) -> Option<Value> {
    let locals = diff.locals.as_ref()?;
    let list = |all: &[&Local], owners: &Owners| -> Vec<Value> {
        let one = |local: &&Local| {
            let held = owners.of(local.inode);
            let held = held
                .map(|(process, fd)| json!({ "pid": process.pid, "comm": process.comm, "fd": fd }));
            json!({
                "name": local.name,
                "kind": local.kind.name(),
                "inode": local.inode,
                "cookie": local.cookie.map(|cookie| format!("0x{cookie:x}")),
                "recv_q": local.recv_q,
                "send_q": local.send_q,
                "owners": held.collect::<Vec<_>>(),
            })
        };
        all.iter().map(one).collect()
    };
    let (before, after) = (&diff.before.owners, &diff.after.owners);
    Some(json!({ "new": list(&locals.new, after), "gone": list(&locals.gone, before) }))
}

/// A socket as `linger.sockets/1` has it, with its owners.
fn socket(out: &mut impl Write, socket: &Socket, snapshot: &Snapshot) -> io::Result<()> {
    let (attributes, ages) = (Attributes::default(), AgeFacts::default());
    let record = Record {
        socket,
        attributes: &attributes,
        ends: Ends::Ip,
        owners: snapshot.coverage.owners_read.then_some(&snapshot.owners),
        ages: &ages,
        names: &NoNames,
    };
    let parts = Parts {
        owners: true,
        ..Parts::default()
    };
    let mut object = Object::begin(out)?;
    write_members(&mut object, &record, parts)?;
    object.end()
}

fn changes<W: Write>(
    object: &mut Object<'_, W>,
    key: &str,
    diff: &Diff<'_>,
    changes: &Changes<'_>,
    fold: &dyn Fn(&Socket) -> bool,
) -> io::Result<()> {
    let mut inner = Object::begin(object.key(key)?)?;
    let mut folded = Vec::new();
    let lists = [
        ("new", &changes.new, diff.after),
        ("gone", &changes.gone, diff.before),
    ];
    for (key, all, snapshot) in lists {
        let out = inner.key(key)?;
        let listed = all.iter().filter(|socket| !fold(socket));
        let n = array(out, listed, |out, one| socket(out, one, snapshot))?;
        folded.push(all.len() as u64 - n);
    }
    let out = inner.key("changed")?;
    array(out, changes.changed.iter(), |out, both| {
        changed(out, both, diff)
    })?;
    inner.value("same", changes.same)?;
    if let [new, gone] = folded[..]
        && new + gone > 0
    {
        inner.value("time_wait_not_listed", json!({ "new": new, "gone": gone }))?;
    }
    inner.end()
}

fn changed(out: &mut impl Write, both: &Changed<'_>, diff: &Diff<'_>) -> io::Result<()> {
    let mut object = Object::begin(out)?;
    let what: Vec<&str> = both.what.names().collect();
    object.value("what", what)?;
    socket(object.key("before")?, both.before, diff.before)?;
    socket(object.key("after")?, both.after, diff.after)?;
    object.end()
}

/// Writes each on a line of its own, and says how many.
fn array<W: Write, T>(
    out: &mut W,
    all: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut W, T) -> io::Result<()>,
) -> io::Result<u64> {
    let mut n = 0;
    out.write_all(b"[")?;
    for one in all {
        out.write_all(if n == 0 { b"\n" } else { b",\n" })?;
        write(out, one)?;
        n += 1;
    }
    out.write_all(b"]")?;
    Ok(n)
}
