//! Established connections on which nothing moves: what their detectors share.

use std::collections::{HashMap, HashSet};

use super::group::{Target, Who};
use super::{Context, words};
use crate::history::Counts;
use crate::model::{Endpoint, TcpState, WaitingOn};

/// Clients that asked less long ago will be answered in a moment, milliseconds.
const PROMPT_MS: u64 = 1000;

/// Why silence cannot be judged: there are connections, and nothing was read that tells when data moved on them.
pub fn unseen(context: &Context<'_>) -> Option<String> {
    let established = context.tally.of(TcpState::Established);
    (established > 0 && !context.snapshot.has_infos()).then(|| {
        format!(
            "{}, but without tcp_info it is not known when data last moved on them",
            words::count(established, "established connection")
        )
    })
}

/// The silent connections in `rows` without those that have both ends on this host: they cannot lose each other.
pub fn leading_away(context: &Context<'_>, rows: impl Iterator<Item = u32>) -> Vec<u32> {
    let socket = |row: &u32| context.snapshot.socket(*row);
    let mut rows: Vec<u32> = rows
        .filter(|row| socket(row).is_some_and(|socket| !socket.is_loopback()))
        .collect();
    // By an address of this host other than loopback: then the other end is in the table too.
    let far_ends: HashSet<(Endpoint, Endpoint)> = rows
        .iter()
        .filter_map(socket)
        .map(|socket| (socket.remote, socket.local))
        .collect();
    if far_ends.is_empty() {
        return rows;
    }
    let silent = context.tally.silent.iter().filter_map(socket);
    let here: HashSet<(Endpoint, Endpoint)> = silent
        .map(|socket| (socket.local, socket.remote))
        .filter(|ends| far_ends.contains(ends))
        .collect();
    rows.retain(|row| {
        socket(row).is_some_and(|socket| !here.contains(&(socket.remote, socket.local)))
    });
    rows
}

/// The counts of these destinations, from whatever local address they were dialled.
pub fn destinations(
    context: &Context<'_>,
    wanted: impl Iterator<Item = Endpoint>,
) -> HashMap<Endpoint, Counts> {
    let mut all: HashMap<Endpoint, Counts> = wanted.map(|to| (to, Counts::default())).collect();
    if !all.is_empty() {
        for (dial, counts) in context.tally.dialled() {
            if let Some(sum) = all.get_mut(&dial.remote) {
                sum.merge(counts);
            }
        }
    }
    all
}

/// How many accepted connections of the programs that hold `rows` wait for an answer themselves, and asked in the last
/// `within_ms`. Subscriptions that a proxy passes on wait at both its ends too, but began together.
pub fn clients_waiting(
    context: &Context<'_>,
    rows: impl Iterator<Item = u32>,
    within_ms: u64,
) -> u64 {
    let snapshot = context.snapshot;
    let who = |row: u32| {
        let socket = snapshot.socket(row)?;
        let holder = words::holder(snapshot, socket);
        Some(holder.map_or(Who::User(socket.uid), |owner| Who::Process(owner.pid)))
    };
    let askers: HashSet<Who> = rows.filter_map(who).collect();
    let waits = |row: u32| {
        let socket = snapshot.socket(row)?;
        let info = snapshot.info(socket)?;
        let waits = WaitingOn::new(socket, Some(&info)) == Some(WaitingOn::Us)
            && (PROMPT_MS..=within_ms).contains(&u64::from(info.last_data_recv_ms))
            && matches!(Target::of(context, socket), Target::Listener(_))
            && askers.contains(&who(row)?);
        waits.then_some(())
    };
    let rows = context.tally.silent.iter().chain(&context.tally.queued);
    rows.filter_map(|row| waits(*row)).count() as u64
}
