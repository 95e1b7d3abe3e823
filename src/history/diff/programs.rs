//! Who holds how many TCP sockets in which state, before and after.

use std::collections::BTreeMap;

use crate::model::diff::{Holding, Program};
use crate::model::{Process, Snapshot, TcpState};

/// A process and what it holds.
type Held<'a> = (&'a Process, Holding);

/// The programs that hold another number of sockets, in all or in a state, or by other processes. A process is the same if
/// pid and name are; those of the rest that have one name are one program, as it is after a restart. Without `same`,
/// where no process can be in both looks, all are told by their names.
pub fn compare<'a>(before: &'a Snapshot, after: &'a Snapshot, same: bool) -> Vec<Program<'a>> {
    let (mut before, mut after) = (held(before), held(after));
    let mut programs = Vec::new();
    if same {
        let key = |process: &'a Process| (process.pid, process.comm.as_str());
        let later: BTreeMap<_, usize> = after
            .iter()
            .enumerate()
            .map(|(at, (process, _))| (key(process), at))
            .collect();
        let mut taken = vec![false; after.len()];
        before.retain_mut(|(process, holding)| {
            let Some(at) = later.get(&key(process)) else {
                return true;
            };
            if let (Some(taken), Some((_, now))) = (taken.get_mut(*at), after.get_mut(*at)) {
                *taken = true;
                programs.push(Program {
                    comm: &process.comm,
                    before: std::mem::take(holding),
                    after: std::mem::take(now),
                });
            }
            false
        });
        let mut taken = taken.into_iter();
        after.retain(|_| !taken.next().unwrap_or_default());
    }
    let mut named: BTreeMap<&str, (Holding, Holding)> = BTreeMap::new();
    for (process, holding) in before {
        add(&mut named.entry(&process.comm).or_default().0, holding);
    }
    for (process, holding) in after {
        add(&mut named.entry(&process.comm).or_default().1, holding);
    }
    programs.extend(named.into_iter().map(|(comm, (before, after))| Program {
        comm,
        before,
        after,
    }));
    programs.retain(|program| match same {
        true => program.before != program.after,
        false => program.before.states != program.after.states,
    });
    programs.sort_by_key(|program| {
        let pid = program.after.pids.first().or(program.before.pids.first());
        (
            std::cmp::Reverse(program.largest()),
            program.comm,
            pid.copied(),
        )
    });
    programs
}

fn add(sum: &mut Holding, other: Holding) {
    sum.pids.extend(other.pids);
    sum.sockets += other.sockets;
    for (sum, other) in sum.states.iter_mut().zip(other.states) {
        *sum += other;
    }
}

/// Every process that holds a TCP socket. It counts a socket once, by however many descriptors.
fn held(snapshot: &Snapshot) -> Vec<Held<'_>> {
    let mut states: Vec<(u32, TcpState)> = snapshot
        .sockets
        .iter()
        .filter(|socket| socket.inode != 0)
        .map(|socket| (socket.inode, socket.state))
        .collect();
    states.sort_unstable_by_key(|(inode, _)| *inode);
    let processes = snapshot.owners.processes();
    let mut held: Vec<Held<'_>> = processes
        .iter()
        .map(|process| (process, Holding::default()))
        .collect();
    let mut last = None;
    for link in snapshot.owners.links() {
        let new = last.replace((link.inode, link.process)) != Some((link.inode, link.process));
        if new
            && let Ok(at) = states.binary_search_by_key(&link.inode, |(inode, _)| *inode)
            && let Some((_, state)) = states.get(at)
            && let Some((process, holding)) = held.get_mut(link.process as usize)
        {
            if holding.sockets == 0 {
                holding.pids.push(process.pid);
            }
            holding.sockets += 1;
            let count = state
                .index()
                .and_then(|index| holding.states.get_mut(index));
            count.into_iter().for_each(|count| *count += 1);
        }
    }
    held.retain(|(_, holding)| holding.sockets > 0);
    held
}
