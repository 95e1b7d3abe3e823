//! What else of a destination's address or network answers: where a neighbour does, the way there works.

use std::collections::HashMap;
use std::net::IpAddr;

use super::prefix::Prefix;
use super::{Context, words};
use crate::model::{Endpoint, Evidence, TcpState};

/// Established connections that this host dialled, by destination, address and network.
#[derive(Debug, Default)]
pub struct Neighbours {
    destinations: HashMap<Endpoint, u32>,
    addresses: HashMap<IpAddr, u32>,
    networks: HashMap<Prefix, u32>,
}

/// How much of what is next to one destination is established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// to other ports of the same address
    pub ports: u32,
    /// to other addresses of the same network
    pub hosts: u32,
    network: Prefix,
}

impl Neighbours {
    /// Counts them.
    pub fn new(context: &Context<'_>) -> Self {
        let mut all = Self::default();
        for (dial, counts) in context.tally.dialled() {
            let established = counts.of(TcpState::Established);
            if established > 0 {
                *all.destinations.entry(dial.remote).or_default() += established;
                *all.addresses.entry(dial.remote.ip()).or_default() += established;
                *all.networks.entry(Prefix::of(&dial.remote)).or_default() += established;
            }
        }
        all
    }

    /// How many destinations answer.
    pub fn alive(&self) -> usize {
        self.destinations.len()
    }

    /// What is next to a destination.
    pub fn of(&self, remote: &Endpoint) -> Next {
        let network = Prefix::of(remote);
        let itself = self.destinations.get(remote).copied().unwrap_or(0);
        let address = self.addresses.get(&remote.ip()).copied().unwrap_or(0);
        let around = self.networks.get(&network).copied().unwrap_or(0);
        Next {
            ports: address.saturating_sub(itself),
            hosts: around.saturating_sub(address),
            network,
        }
    }
}

impl Next {
    /// What it tells, as a sentence behind another one; nothing where nothing was seen.
    pub fn sentence(&self) -> String {
        match (self.ports, self.hosts) {
            (0, 0) => String::new(),
            (0, hosts) => format!(
                " Other hosts of {} are connected ({}), so the way there works.",
                self.network.words(),
                words::thousands(hosts)
            ),
            (ports, _) => format!(
                " Other ports of that address are connected ({}), so the way there works and the host lives.",
                words::thousands(ports)
            ),
        }
    }

    /// The same as evidence.
    pub fn evidence(&self) -> Vec<Evidence> {
        let count = |name, n| {
            (n > 0).then(|| Evidence::count(name, n, "sockets", "idiag_dst, idiag_state"))
        };
        let ports = count("established_to_other_ports_of_it", self.ports);
        ports
            .into_iter()
            .chain(count("established_to_its_network", self.hosts))
            .collect()
    }
}
