//! The sockets of a comparison, a line each.

use std::io::{self, Write};

use super::super::cell;
use super::super::findings::Screen;
use super::super::text::{Safe, width};
use super::{more, numbers};
use crate::fields::{self, NoNames, Record};
use crate::model::diff::Diff;
use crate::model::owner::Owners;
use crate::model::words::thousands;
use crate::model::{AgeFacts, Attributes, Ends, Local, Protocol, Snapshot, Socket, TcpState};

/// A line of a table.
type Cells = Vec<String>;

/// Whether the socket is one of those that come and go by themselves.
pub fn not_listed(socket: &Socket) -> bool {
    socket.state == TcpState::TimeWait
}

/// What the column shows of a socket.
fn cell(id: &str, socket: &Socket, snapshot: &Snapshot) -> String {
    let (attributes, ages) = (Attributes::default(), AgeFacts::default());
    let record = Record {
        socket,
        attributes: &attributes,
        ends: Ends::Ip,
        owners: snapshot.coverage.owners_read.then_some(&snapshot.owners),
        ages: &ages,
        names: &NoNames,
    };
    let mut text = String::new();
    if let Ok(field) = fields::by_id(id) {
        // Writing to a String does not fail.
        let _ = cell::write(&mut text, &field.value(&record), false);
    }
    text
}

/// `before -> after`, or what both are.
fn arrow(before: String, after: String) -> String {
    if before == after {
        after
    } else {
        format!("{before} -> {after}")
    }
}

/// Listeners: what became of each, kind, address, queue limit, holder.
pub fn listeners(
    diff: &Diff<'_>,
    limit: usize,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    let one = |word: &str, socket: &Socket, snapshot: &Snapshot| -> Cells {
        vec![
            word.to_owned(),
            cell("netid", socket, snapshot),
            cell("local", socket, snapshot),
            backlog(socket),
            cell("process", socket, snapshot),
        ]
    };
    let (before, after) = (diff.before, diff.after);
    let changes = &diff.listeners;
    let mut rows: Vec<Cells> = Vec::new();
    let new = changes.new.iter().take(limit);
    rows.extend(new.map(|socket| one("new", socket, after)));
    let locals = diff.locals.as_ref();
    let local = |word: &'static str, snapshot: &'_ Snapshot, all: &[&Local]| -> Vec<Cells> {
        let shown = all.iter().take(limit);
        shown
            .map(|local| unix(word, local, &snapshot.owners))
            .collect()
    };
    if let Some(locals) = locals {
        rows.extend(local("new", after, &locals.new));
    }
    let gone = changes.gone.iter().take(limit);
    rows.extend(gone.map(|socket| one("gone", socket, before)));
    if let Some(locals) = locals {
        rows.extend(local("gone", before, &locals.gone));
    }
    for both in changes.changed.iter().take(limit) {
        let (was, is) = (both.before, both.after);
        let mut words = Vec::new();
        if both.what.state {
            words.push(arrow(cell("state", was, before), cell("state", is, after)));
        }
        if both.what.limit {
            let number = |socket: &Socket| {
                let limit = socket.backlog();
                limit.map_or_else(|| "-".to_owned(), thousands)
            };
            words.push(format!("limit {} -> {}", number(was), number(is)));
        }
        if both.what.queues {
            let (was, is) = (thousands(was.recv_q), thousands(is.recv_q));
            words.push(format!("queue {was} -> {is}"));
        }
        let word = match both.what.reopened {
            true => "again",
            false => "changed",
        };
        rows.push(vec![
            word.to_owned(),
            cell("netid", is, after),
            cell("local", is, after),
            words.join(", "),
            arrow(cell("process", was, before), cell("process", is, after)),
        ]);
    }
    table(rows, screen, out)?;
    let unix = locals.map_or([0, 0], |locals| [locals.new.len(), locals.gone.len()]);
    let lists = [changes.new.len(), changes.gone.len(), changes.changed.len()];
    let hidden: usize = lists
        .into_iter()
        .chain(unix)
        .map(|n| n.saturating_sub(limit))
        .sum();
    more(hidden, 0, 2, "listener", out)
}

fn backlog(socket: &Socket) -> String {
    let limit = socket.backlog();
    limit.map_or_else(String::new, |limit| format!("limit {}", thousands(limit)))
}

/// A UNIX socket that listens.
fn unix(word: &str, local: &Local, owners: &Owners) -> Cells {
    let limit = local
        .send_q
        .map(|limit| format!("limit {}", thousands(limit)));
    let mut holders: Vec<String> = owners
        .of(local.inode)
        .map(|(process, _)| super::super::status::name(process))
        .collect();
    holders.dedup();
    vec![
        word.to_owned(),
        local.kind.name().to_owned(),
        Safe(local.name.as_deref().unwrap_or("-")).to_string(),
        limit.unwrap_or_default(),
        holders.join(", "),
    ]
}

/// The columns of sockets behind the state.
const COLUMNS: [&str; 5] = ["recv-q", "send-q", "local", "peer", "process"];

/// All other sockets: new, gone, changed.
pub fn sockets(
    diff: &Diff<'_>,
    limit: usize,
    fold: bool,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    let changes = &diff.sockets;
    let lists = [
        ("new", &changes.new, diff.after),
        ("gone", &changes.gone, diff.before),
    ];
    for (word, all, snapshot) in lists {
        if all.is_empty() {
            continue;
        }
        let folded = all.iter().any(|socket| fold && not_listed(socket));
        let folded = if folded { " (not listed: --all)" } else { "" };
        writeln!(out, "{word}: {}", per_state(all, folded))?;
        let shown = |socket: &&&Socket| !fold || !not_listed(socket);
        let listed = all.iter().filter(shown);
        let rows = listed.clone().take(limit).map(|socket| {
            let columns = COLUMNS.iter().map(|id| cell(id, socket, snapshot));
            std::iter::once(state(socket, snapshot))
                .chain(columns)
                .collect()
        });
        table_of_sockets(rows.collect(), screen, out)?;
        more(listed.count(), limit, 2, "socket", out)?;
    }
    if changes.changed.is_empty() {
        return Ok(());
    }
    let moved = changes.changed.iter().filter(|both| both.what.state);
    let moved = moved.count();
    let queues = changes.changed.len() - moved;
    let summary = numbers(&[
        (moved as u64, "in another state"),
        (queues as u64, "with other queues or holders"),
    ]);
    writeln!(out, "changed: {summary}")?;
    let (before, after) = (diff.before, diff.after);
    let rows = changes.changed.iter().take(limit).map(|both| {
        let (was, is) = (both.before, both.after);
        let columns = COLUMNS.iter().map(|id| match *id {
            // Who has closed it is told where it has been.
            "process" if !both.what.holders && is.is_mini() => cell(id, was, before),
            "process" if !both.what.holders => cell(id, is, after),
            id => arrow(cell(id, was, before), cell(id, is, after)),
        });
        std::iter::once(arrow(state(was, before), state(is, after)))
            .chain(columns)
            .collect()
    });
    table_of_sockets(rows.collect(), screen, out)?;
    more(changes.changed.len(), limit, 2, "socket", out)
}

/// The state, and the protocol where it is not TCP.
fn state(socket: &Socket, snapshot: &Snapshot) -> String {
    let state = cell("state", socket, snapshot);
    match socket.protocol {
        Protocol::Tcp => state,
        _ => format!("{} {state}", cell("netid", socket, snapshot)),
    }
}

/// `588 CLOSE-WAIT, 12 ESTABLISHED, 3 UDP`, the most first.
fn per_state(all: &[&Socket], folded: &str) -> String {
    let mut counts: Vec<(u64, String)> = Vec::new();
    let tcp = |socket: &&&Socket| socket.protocol == Protocol::Tcp;
    for state in TcpState::SHOWN {
        let of = all.iter().filter(tcp);
        let n = of.filter(|socket| socket.state.shown() == state).count();
        let folded = if state == TcpState::TimeWait {
            folded
        } else {
            ""
        };
        counts.push((n as u64, format!("{state}{folded}")));
    }
    let others = all.iter().filter(|socket| !tcp(socket)).count();
    counts.push((others as u64, "UDP".to_owned()));
    counts.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    let parts: Vec<(u64, &str)> = counts.iter().map(|(n, name)| (*n, &name[..])).collect();
    numbers(&parts)
}

/// Under their names; queues that are empty in every line are left out.
fn table_of_sockets(mut rows: Vec<Cells>, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let empty = |at: usize| {
        let mut cells = rows.iter().filter_map(|row| row.get(at));
        cells.all(|cell| cell == "0")
    };
    let empty = [false, empty(1), empty(2)];
    let header = ["State", "Recv-Q", "Send-Q", "Local", "Peer", "Process"];
    rows.insert(0, header.map(str::to_owned).to_vec());
    for row in &mut rows {
        let mut empty = empty.iter();
        row.retain(|_| !empty.next().copied().unwrap_or_default());
    }
    table(rows, screen, out)
}

/// Lines with aligned cells; where they are too long, the last cell stands on a line of its own.
pub(super) fn table(rows: Vec<Cells>, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|at| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| width(cell)).max().unwrap_or(0)
        })
        .collect();
    for row in rows {
        let mut line = String::from(" ");
        let mut last = None;
        for (at, (cell, room)) in row.iter().zip(&widths).enumerate() {
            if *room == 0 {
                continue;
            }
            if at + 1 == columns {
                last = Some(cell);
                break;
            }
            let blanks = room.saturating_sub(width(cell));
            line.push(' ');
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', blanks + 1));
        }
        let last = last.map_or("", String::as_str);
        let fits = width(&line) + 1 + width(last) <= screen.width.max(40);
        let line = match last {
            last if fits => format!("{line} {last}"),
            // Why nobody holds it is said where there is room, and a heading stands above its column.
            last if last.starts_with("- (") => format!("{line} -"),
            "Process" => line,
            last => format!("{}\n      {last}", line.trim_end()),
        };
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
