//! Sockets of one look found again in the other.

use std::cmp::Ordering;

use crate::model::{Socket, TcpState};

/// What became of the sockets of one protocol.
#[derive(Debug, Default)]
pub struct Joined<'a> {
    /// in both looks
    pub pairs: Vec<(&'a Socket, &'a Socket)>,
    /// in the first look alone
    pub gone: Vec<&'a Socket>,
    /// in the second look alone
    pub new: Vec<&'a Socket>,
    /// cookies that are of one socket in one look and of another one in the other
    pub conflicts: u64,
    /// whether the cookies of a look are not known
    pub by_address: bool,
}

impl Joined<'_> {
    /// Takes the pairs apart: they were none.
    pub fn part(&mut self) {
        for (before, after) in self.pairs.drain(..) {
            self.gone.push(before);
            self.new.push(after);
        }
    }
}

/// Finds sockets again by their cookies, or where a look has none by what else tells one from another.
pub fn again<'a>(mut before: Vec<&'a Socket>, mut after: Vec<&'a Socket>) -> Joined<'a> {
    let has_none = |all: &[&Socket]| all.iter().any(|socket| socket.cookie.is_none());
    if has_none(&before) || has_none(&after) {
        return by_address(before, after);
    }
    for all in [&mut before, &mut after] {
        all.sort_unstable_by_key(|socket| socket.cookie);
        // A table that changes while it is dumped may show a socket twice.
        all.dedup_by_key(|socket| socket.cookie);
    }
    let mut joined = merge(before, after, |a, b| a.cookie.cmp(&b.cookie), |_, _| true);
    let pairs = std::mem::take(&mut joined.pairs);
    for (before, after) in pairs {
        if is_same(before, after) {
            joined.pairs.push((before, after));
        } else {
            joined.conflicts += 1;
            joined.gone.push(before);
            joined.new.push(after);
        }
    }
    joined
}

/// Whether two rows with one cookie are of one socket. Its inode stays while there is one, and a socket that has none is
/// past the time in which its ports could change.
fn is_same(before: &Socket, after: &Socket) -> bool {
    if before.inode != 0 && after.inode != 0 {
        return before.inode == after.inode;
    }
    before.local.port == after.local.port
}

/// By both ends and the inode; where a row has none, by both ends alone.
fn by_address<'a>(mut before: Vec<&'a Socket>, mut after: Vec<&'a Socket>) -> Joined<'a> {
    let ends = |a: &Socket, b: &Socket| {
        let key = |socket: &Socket| (socket.family, socket.local, socket.remote);
        key(a).cmp(&key(b))
    };
    let whole = |a: &Socket, b: &Socket| ends(a, b).then(a.inode.cmp(&b.inode));
    for all in [&mut before, &mut after] {
        all.sort_unstable_by(|a, b| whole(a, b));
        all.dedup_by(|a, b| a.inode != 0 && whole(a, b) == Ordering::Equal);
    }
    let first = merge(before, after, whole, is_later);
    // What is left is in order still.
    let rest = merge(first.gone, first.new, ends, |a, b| {
        (a.inode == 0 || b.inode == 0) && is_later(a, b)
    });
    let mut pairs = first.pairs;
    pairs.extend(rest.pairs);
    Joined {
        pairs,
        by_address: true,
        ..rest
    }
}

/// Whether a socket in the state of the one may come to that of the other: nothing leaves TIME-WAIT.
fn is_later(before: &Socket, after: &Socket) -> bool {
    before.state != TcpState::TimeWait || after.state == TcpState::TimeWait
}

/// Listeners at the same address, of those that were not found again.
pub fn at_address<'a>(mut gone: Vec<&'a Socket>, mut new: Vec<&'a Socket>) -> Joined<'a> {
    let place = |a: &Socket, b: &Socket| {
        let key = |socket: &Socket| (socket.family, socket.local, socket.ifindex);
        key(a).cmp(&key(b))
    };
    for all in [&mut gone, &mut new] {
        all.sort_unstable_by(|a, b| place(a, b).then(a.cookie.cmp(&b.cookie)));
    }
    merge(gone, new, place, |_, _| true)
}

/// Walks through both, which are in `order`. Those that are equal in it and `fit` are a pair.
fn merge<'a>(
    before: Vec<&'a Socket>,
    after: Vec<&'a Socket>,
    order: impl Fn(&Socket, &Socket) -> Ordering,
    fit: impl Fn(&Socket, &Socket) -> bool,
) -> Joined<'a> {
    let mut joined = Joined::default();
    let mut after = after.into_iter().peekable();
    for socket in before {
        while let Some(other) = after.next_if(|other| order(other, socket) == Ordering::Less) {
            joined.new.push(other);
        }
        let same = |other: &&Socket| order(other, socket) == Ordering::Equal && fit(socket, other);
        match after.next_if(same) {
            Some(other) => joined.pairs.push((socket, other)),
            None => joined.gone.push(socket),
        }
    }
    joined.new.extend(after);
    joined
}
