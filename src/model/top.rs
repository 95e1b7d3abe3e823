//! Who holds most, as data.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Process, Socket};

/// Who holds most, each list with the largest first.
#[derive(Clone, Debug, Default)]
pub struct Top<'a> {
    /// processes by TCP sockets
    pub processes: Vec<(&'a Process, u64)>,
    /// remote addresses by sockets
    pub peers: Vec<(IpAddr, u64)>,
    /// LISTEN sockets by connections on their port
    pub listeners: Vec<(&'a Socket, u64)>,
}

impl Top<'_> {
    /// Adds what another namespace of the same host has: a process or peer that both know is one.
    pub fn add(&mut self, other: Self) {
        for (process, n) in other.processes {
            let same = |known: &&mut (&Process, u64)| known.0.pid == process.pid;
            match self.processes.iter_mut().find(same) {
                Some(known) => known.1 += n,
                None => self.processes.push((process, n)),
            }
        }
        let mut peers: BTreeMap<IpAddr, u64> = self.peers.drain(..).collect();
        for (peer, n) in other.peers {
            *peers.entry(peer).or_default() += n;
        }
        self.peers = peers.into_iter().collect();
        self.listeners.extend(other.listeners);
    }

    /// Puts the largest first and keeps `n` of each.
    pub fn first(&mut self, n: usize) {
        let largest = |n: u64| std::cmp::Reverse(n);
        self.processes
            .sort_by_key(|(process, n)| (largest(*n), process.pid));
        self.peers.sort_by_key(|(peer, n)| (largest(*n), *peer));
        self.listeners
            .sort_by_key(|(listener, n)| (largest(*n), listener.local.port));
        self.processes.truncate(n);
        self.peers.truncate(n);
        self.listeners.truncate(n);
    }
}
