//! One look at the machine, judged: all that the dashboard draws from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::fields::{Names, Record};
use crate::model::{
    AgeFacts, Analysis, Attributes, Coverage, Ends, Finding, Moves, Namespace, Process, Snapshot,
    Socket, Story, TcpState, stories,
};

/// A socket of a look: which place, and which row of its snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// the place in [`Look::places`]
    pub place: u16,
    /// the row of its snapshot
    pub row: u32,
}

/// What is known of one network namespace.
#[derive(Debug)]
pub struct Place {
    /// which; `None` where there is only one
    pub namespace: Option<Namespace>,
    /// its sockets, owners and settings
    pub snapshot: Snapshot,
    /// the settings that ages depend on
    pub ages: AgeFacts,
    /// what the detectors found in it, the worst first
    pub findings: Vec<Finding>,
}

/// Who holds most, by name.
#[derive(Clone, Debug, Default)]
pub struct Ranks {
    /// processes by TCP sockets, the largest first
    pub processes: Vec<(Process, u64)>,
    /// remote addresses by sockets
    pub peers: Vec<(IpAddr, u64)>,
    /// LISTEN sockets with their place, by connections on their port
    pub listeners: Vec<(u16, Socket, u64)>,
}

/// How often it is looked, and what that takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// what was asked for
    pub interval: Duration,
    /// what it is: longer, where a look takes more than a tenth of the interval
    pub every: Duration,
    /// what the last look took
    pub took: Duration,
}

impl Pace {
    /// Whether looks are further apart than was asked for, to spare the machine.
    pub fn is_slowed(&self) -> bool {
        self.every > self.interval
    }
}

/// Where in a recording a look stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// which, from 0
    pub index: usize,
    /// of how many
    pub of: usize,
    /// when the first one was taken
    pub first: Timestamp,
    /// when the last one was taken
    pub last: Timestamp,
}

/// Makes attributes of a netlink message that was kept ([`Snapshot::messages`]); nothing of one that cannot be read.
pub type Decode = for<'a> fn(&'a [u8]) -> Attributes<'a>;

/// One look at the machine, judged.
pub struct Look {
    /// when
    pub taken: Timestamp,
    /// the node's name
    pub host: String,
    /// the namespaces; at least one
    pub places: Vec<Place>,
    /// of all places together
    pub analysis: Analysis,
    /// what is known of several places together, without rows; `None` where there is only one
    pub whole: Option<Snapshot>,
    /// what is not known, of all places together
    pub coverage: Coverage,
    /// everything that whoever reads it must know
    pub warnings: Vec<String>,
    /// sockets by state in the order of [`TcpState::SHOWN`]; `None` where a state cannot be seen
    pub states: [Option<u64>; TcpState::SHOWN.len()],
    /// sockets in states that are not known
    pub unknown_states: u64,
    /// closes begun by this side, by how many seconds ago, as TIME-WAIT tells; a lower bound
    pub closes: [u32; 60],
    /// what sockets did since the look before; `None` after the first, or without cookies
    pub moves: Option<Moves>,
    /// counters of `/proc/net/{snmp,netstat}` that rose since the look before, by how much; `None` after the first
    pub counters: Option<BTreeMap<String, u64>>,
    /// the time between the two looks that `counters` compares
    pub window: Duration,
    /// who holds most
    pub ranks: Ranks,
    /// whether owners were read
    pub owners: bool,
    /// names for numbers
    pub names: Arc<dyn Names + Send + Sync>,
    /// reads the messages that snapshots keep
    pub decode: Decode,
    /// how often it is looked
    pub pace: Pace,
    /// where in a recording; `None` of a live machine
    pub frame: Option<Frame>,
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Look")
            .field("taken", &self.taken)
            .field("sockets", &self.total())
            .finish_non_exhaustive()
    }
}

impl Look {
    /// What is known of all places together; rows only where there is one.
    pub fn whole(&self) -> Option<&Snapshot> {
        let first = self.places.first().map(|place| &place.snapshot);
        self.whole.as_ref().or(first)
    }

    /// All TCP sockets.
    pub fn total(&self) -> u64 {
        self.states.iter().flatten().sum::<u64>() + self.unknown_states
    }

    /// Sockets in `state`; `None` where it cannot be seen.
    pub fn of(&self, state: TcpState) -> Option<u64> {
        self.states.get(state.index()?).copied().flatten()
    }

    /// How many rows there are.
    pub fn rows_len(&self) -> u64 {
        let sockets = self.places.iter().map(|place| place.snapshot.sockets.len());
        sockets.sum::<usize>() as u64
    }

    /// Every socket.
    pub fn rows(&self) -> impl Iterator<Item = (Row, &Socket)> {
        (0u16..).zip(&self.places).flat_map(|(place, seen)| {
            let rows = (0u32..).zip(&seen.snapshot.sockets);
            rows.map(move |(row, socket)| (Row { place, row }, socket))
        })
    }

    /// The place of a row.
    pub fn place(&self, row: Row) -> Option<&Place> {
        self.places.get(usize::from(row.place))
    }

    /// The socket in `row`.
    pub fn socket(&self, row: Row) -> Option<&Socket> {
        self.place(row)?.snapshot.socket(row.row)
    }

    /// Calls `see` with everything that columns and filters read of a row. Of what was kept its message is decoded; of
    /// other rows the digest of `tcp_info` tells the age.
    pub fn record<T>(&self, row: Row, see: impl FnOnce(&Record<'_>) -> T) -> Option<T> {
        let place = self.place(row)?;
        let socket = place.snapshot.socket(row.row)?;
        let kept = place.snapshot.messages.of(row.row);
        let mut attributes =
            kept.map_or_else(Attributes::default, |message| (self.decode)(message));
        let info = place.snapshot.info(socket);
        attributes.digest = info.as_ref();
        Some(see(&Record {
            socket,
            attributes: &attributes,
            ends: Ends::Ip,
            owners: self.owners.then_some(&place.snapshot.owners),
            ages: &place.ages,
            names: &*self.names,
        }))
    }

    /// The findings with the places that they are about, what follows folded under its cause, the worst first.
    pub fn stories(&self) -> Vec<(u16, Story<'_>)> {
        let mut all: Vec<(u16, Story<'_>)> = Vec::new();
        for (at, place) in (0u16..).zip(&self.places) {
            for story in stories(&place.findings) {
                let story = match &place.namespace {
                    Some(namespace) => story.within(namespace),
                    None => story,
                };
                all.push((at, story));
            }
        }
        all.sort_by_key(|(_, story)| std::cmp::Reverse(story.severity()));
        all
    }
}
