//! Two looks compared: which sockets are new, gone and changed, who holds more, which settings and counters moved.
//!
//! Sockets are found again by sorting, because a capture may hold a million of them and keys that somebody chose.

mod findings;
mod join;
mod programs;
#[cfg(test)]
mod tests;

use crate::model::diff::{Apart, By, Changed, Changes, Counter, Diff, Locals, Setting, What};
use crate::model::owner::Link;
use crate::model::{Facts, Local, Owners, Protocol, Snapshot, Socket, TcpState};

pub use findings::findings;
use join::Joined;

/// What `/proc/sys` shows beside settings: numbers of things that are open or tracked now.
const GAUGES_OF_SYSCTL: &[&str] = &["fs/file-nr", "net/netfilter/nf_conntrack_count"];

/// What the tables of counters hold beside counters (RFC 4022, RFC 4293): settings, and numbers of now.
const NO_COUNTERS: &[&str] = &[
    "Conntrack.entries",
    "Ip.DefaultTTL",
    "Ip.Forwarding",
    "MPTcpExt.MPCurrEstab",
    "Tcp.CurrEstab",
    "Tcp.MaxConn",
    "Tcp.RtoAlgorithm",
    "Tcp.RtoMax",
    "Tcp.RtoMin",
];

/// Counters that every namespace with traffic moves, and that begin with 0 with each.
const STEADY: &[&str] = &["Tcp.InSegs", "Tcp.OutSegs", "Ip.InReceives"];

/// Compares two looks.
pub fn diff<'a>(before: &'a Snapshot, after: &'a Snapshot) -> Diff<'a> {
    let mut apart = apart(before, after);
    let tcp = || {
        join::again(
            before.sockets.iter().collect(),
            after.sockets.iter().collect(),
        )
    };
    let udp = || {
        let (before, after) = (before.udp.as_ref()?, after.udp.as_ref()?);
        let sockets = |all: &'a [crate::model::Datagram]| all.iter().map(|one| &one.socket);
        Some(join::again(
            sockets(before).collect(),
            sockets(after).collect(),
        ))
    };
    let mut joined = [Some(tcp()), udp()];
    let conflicts = joined.iter().flatten().map(|joined| joined.conflicts).sum();
    if conflicts > 0 && before.host.boot_id.is_none() | after.host.boot_id.is_none() {
        apart.push(Apart::Cookies(conflicts));
    }
    let by = match joined.iter().flatten().any(|joined| joined.by_address) {
        _ if !apart.is_empty() => By::Nothing,
        true => By::Address,
        false => By::Cookie,
    };
    if by == By::Nothing {
        for joined in joined.iter_mut().flatten() {
            joined.part();
        }
    }
    let mut compared = Compared {
        before,
        after,
        by,
        range: after.facts.port_range().or(before.facts.port_range()),
        knows_holders: before.coverage.owners_read && after.coverage.owners_read,
        listeners: Changes::default(),
        sockets: Changes::default(),
    };
    for joined in joined.into_iter().flatten() {
        compared.sort(joined);
    }
    compared.order();
    let facts = !before.coverage.no_facts && !after.coverage.no_facts;
    Diff {
        before,
        after,
        by,
        states: states(before, after),
        udp: match (&before.udp, &after.udp) {
            (Some(before), Some(after)) => Some((before.len() as u64, after.len() as u64)),
            _ => None,
        },
        locals: locals(before, after),
        programs: compared
            .knows_holders
            .then(|| programs::compare(before, after, by != By::Nothing)),
        listeners: compared.listeners,
        sockets: compared.sockets,
        settings: facts.then(|| settings(&before.facts, &after.facts)),
        counters: (facts && apart.is_empty()).then(|| counters(&before.facts, &after.facts)),
        apart,
    }
}

/// What the looks say of where and when they were taken, their sockets aside.
fn apart(before: &Snapshot, after: &Snapshot) -> Vec<Apart> {
    let (one, other) = (&before.host, &after.host);
    let mut apart = Vec::new();
    if !one.name.is_empty() && !other.name.is_empty() && one.name != other.name {
        apart.push(Apart::Host);
    }
    let boot = match (&one.boot_id, &other.boot_id) {
        (Some(one), Some(other)) => Some(one == other),
        _ => None,
    };
    if boot == Some(false) {
        apart.push(Apart::Boot);
    }
    if boot.is_none()
        && !one.kernel.is_empty()
        && !other.kernel.is_empty()
        && one.kernel != other.kernel
    {
        apart.push(Apart::Kernel);
    }
    if let (Some(one), Some(other)) = (one.netns, other.netns)
        && one != other
    {
        apart.push(Apart::Namespace);
    }
    // With a look that is older than the first one they go back rightly.
    if apart.is_empty() && boot.is_none() && before.taken <= after.taken {
        let back = STEADY.iter().find(|name| {
            let (before, after) = (before.facts.counter(name), after.facts.counter(name));
            matches!((before, after), (Some(before), Some(after)) if after < before)
        });
        apart.extend(back.map(|name| Apart::Counter((*name).to_owned())));
    }
    apart
}

/// The sockets of both looks while they are sorted out.
struct Compared<'a> {
    before: &'a Snapshot,
    after: &'a Snapshot,
    by: By,
    range: Option<(u16, u16)>,
    knows_holders: bool,
    listeners: Changes<'a>,
    sockets: Changes<'a>,
}

impl<'a> Compared<'a> {
    /// Whether somebody waits there for whoever comes.
    fn listens(&self, socket: &Socket) -> bool {
        match socket.protocol {
            Protocol::Tcp => socket.state == TcpState::Listen,
            _ => {
                let port = socket.local.port;
                let ephemeral = self.range.unwrap_or((32_768, 60_999));
                socket.state == TcpState::Closed && !(ephemeral.0..=ephemeral.1).contains(&port)
            }
        }
    }

    fn sort(&mut self, joined: Joined<'a>) {
        for (before, after) in joined.pairs {
            let what = self.what(before, after);
            let listens = self.listens(before) || self.listens(after);
            let into = if listens {
                &mut self.listeners
            } else {
                &mut self.sockets
            };
            if what.is_nothing() {
                into.same += 1;
            } else {
                into.changed.push(Changed {
                    before,
                    after,
                    what,
                });
            }
        }
        let split = |all: Vec<&'a Socket>| -> (Vec<&'a Socket>, Vec<&'a Socket>) {
            all.into_iter().partition(|socket| self.listens(socket))
        };
        let ((gone_listeners, gone), (new_listeners, new)) =
            (split(joined.gone), split(joined.new));
        // A program that was restarted listens with another socket at the same address.
        let again = join::at_address(gone_listeners, new_listeners);
        for (before, after) in again.pairs {
            let what = What {
                reopened: self.by != By::Nothing,
                ..self.what(before, after)
            };
            if what.is_nothing() {
                self.listeners.same += 1;
            } else {
                self.listeners.changed.push(Changed {
                    before,
                    after,
                    what,
                });
            }
        }
        self.listeners.gone.extend(again.gone);
        self.listeners.new.extend(again.new);
        // Of sockets that cannot be found again, each would be new or gone.
        if self.by != By::Nothing {
            self.sockets.gone.extend(gone);
            self.sockets.new.extend(new);
        }
    }

    fn what(&self, before: &Socket, after: &Socket) -> What {
        let limit = match (before.backlog(), after.backlog()) {
            (Some(before), Some(after)) => before != after,
            _ => false,
        };
        let listens = before.state == TcpState::Listen || after.state == TcpState::Listen;
        let queues = before.recv_q != after.recv_q || (!listens && before.send_q != after.send_q);
        What {
            reopened: false,
            state: before.state != after.state,
            limit,
            queues: queues && self.by != By::Nothing,
            holders: self.other_holders(before, after),
        }
    }

    fn other_holders(&self, before: &Socket, after: &Socket) -> bool {
        if before.is_mini() || after.is_mini() {
            return false;
        }
        // Accepted, or closed by its last holder.
        if self.by != By::Nothing && (before.inode == 0) != (after.inode == 0) {
            return true;
        }
        let (one, other) = (&self.before.owners, &self.after.owners);
        let (links, later) = (one.links_of(before.inode), other.links_of(after.inode));
        // A holder that was not seen is no holder that has gone.
        if !self.knows_holders || links.is_empty() || later.is_empty() {
            return false;
        }
        if self.by == By::Nothing {
            return comms(one, links) != comms(other, later);
        }
        match (links, later) {
            ([before], [after]) => pid(one, before) != pid(other, after),
            _ => pids(one, links) != pids(other, later),
        }
    }

    /// What asks for attention first.
    fn order(&mut self) {
        for changes in [&mut self.listeners, &mut self.sockets] {
            for all in [&mut changes.new, &mut changes.gone] {
                all.sort_unstable_by_key(|socket| {
                    (rank(socket), socket.protocol, socket.local, socket.remote)
                });
            }
            changes.changed.sort_unstable_by_key(|changed| {
                let (before, after, what) = (changed.before, changed.after, changed.what);
                let moved = |before: u32, after: u32| u64::from(before.abs_diff(after));
                let queues =
                    moved(before.recv_q, after.recv_q) + moved(before.send_q, after.send_q);
                let ends = (after.protocol, after.local, after.remote);
                let quiet = (!what.limit, !what.state, !what.reopened, !what.holders);
                (quiet, rank(after), std::cmp::Reverse(queues), ends)
            });
        }
    }
}

/// Which states come first: those that a socket should pass through quickly.
fn rank(socket: &Socket) -> u8 {
    match socket.state {
        TcpState::Unknown(_) | TcpState::CloseWait => 0,
        TcpState::TimeWait => 3,
        TcpState::Established | TcpState::Closed => 2,
        _ => 1,
    }
}

fn pid(owners: &Owners, link: &Link) -> Option<u32> {
    owners.process(link.process).map(|process| process.pid)
}

fn pids(owners: &Owners, links: &[Link]) -> Vec<u32> {
    let mut pids: Vec<u32> = links.iter().filter_map(|link| pid(owners, link)).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn comms<'o>(owners: &'o Owners, links: &[Link]) -> Vec<&'o str> {
    let processes = links.iter().filter_map(|link| owners.process(link.process));
    let mut comms: Vec<&str> = processes.map(|process| process.comm.as_str()).collect();
    comms.sort_unstable();
    comms.dedup();
    comms
}

fn states(before: &Snapshot, after: &Snapshot) -> [(u64, u64); TcpState::SHOWN.len() + 1] {
    let mut states = [(0, 0); TcpState::SHOWN.len() + 1];
    let place = |socket: &Socket| socket.state.index().unwrap_or(TcpState::SHOWN.len());
    for socket in &before.sockets {
        if let Some(count) = states.get_mut(place(socket)) {
            count.0 += 1;
        }
    }
    for socket in &after.sockets {
        if let Some(count) = states.get_mut(place(socket)) {
            count.1 += 1;
        }
    }
    states
}

/// Listeners among UNIX sockets by their names: of a name there is one that listens.
fn locals<'a>(before: &'a Snapshot, after: &'a Snapshot) -> Option<Locals<'a>> {
    let named = |all: &'a [Local]| {
        let listens = |local: &&Local| local.state == TcpState::Listen && local.name.is_some();
        let mut named: Vec<&Local> = all.iter().filter(listens).collect();
        named.sort_unstable_by_key(|local| local.name.as_deref());
        named
    };
    let (before, after) = (
        named(before.unix.as_deref()?),
        named(after.unix.as_deref()?),
    );
    let only = |some: &[&'a Local], others: &[&Local]| {
        let is_there = |local: &Local| {
            let name = local.name.as_deref();
            let found = others.binary_search_by_key(&name, |other| other.name.as_deref());
            found.is_ok()
        };
        let some = some.iter().copied();
        some.filter(|local| !is_there(local)).collect()
    };
    Some(Locals {
        new: only(&after, &before),
        gone: only(&before, &after),
    })
}

fn settings<'a>(before: &'a Facts, after: &'a Facts) -> Vec<Setting<'a>> {
    let changed = before.sysctls.iter().filter_map(|(path, before)| {
        let after = after.sysctls.get(path)?;
        let is_setting = !GAUGES_OF_SYSCTL.contains(&path.as_str());
        (is_setting && before != after).then_some(Setting {
            path,
            before,
            after,
        })
    });
    changed.collect()
}

fn counters<'a>(before: &'a Facts, after: &'a Facts) -> Vec<Counter<'a>> {
    let moved = before.counters.iter().filter_map(|(name, before)| {
        let after = after.counters.get(name)?;
        let counts = !NO_COUNTERS.contains(&name.as_str());
        (counts && before != after).then_some(Counter {
            name,
            before: *before,
            after: *after,
        })
    });
    moved.collect()
}
