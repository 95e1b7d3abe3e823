//! Measures: numbers about this host that a check may hold against limits of its own. Each is known once, in [`ALL`].
//!
//! A measure reads the same [`Context`] as the detectors, and where both judge the same thing they share the code.

mod growth;
mod host;
mod kept;
mod listener;
mod name;
mod process;
mod tcp;

pub use self::kept::kept;
pub use self::name::{Asked, Error};
use super::{Context, Needs};
use crate::model::coverage::UNSURE;
use crate::model::{Protocol, StateSet, TcpState};

/// A measure, or a family of them.
#[derive(Debug)]
pub struct Measure {
    /// its name, with STATE, PORT and COMM where a name has something of its own
    pub name: &'static str,
    /// what is measured, and from what
    pub doc: &'static str,
    /// of what: `sockets`, `ratio` (0 to 1), `1/s`
    pub unit: &'static str,
    /// whether it can be taken of some sockets only, those that fit a FILTER
    pub narrows: bool,
    /// whether it is a rate over earlier runs
    pub history: bool,
    /// what it wants collected
    pub needs: Needs,
    read: fn(&Context<'_>, &Asked) -> Reading,
}

/// What a measure says.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// so much
    Value(f64),
    /// so much, over the last so many seconds of history
    Over(f64, u64),
    /// what is to be measured is not there, which is as bad as it gets
    Missing(String),
    /// it is not known, because of this
    CannotTell(String),
}

impl Reading {
    /// The number, where there is one.
    pub const fn value(&self) -> Option<f64> {
        match self {
            Self::Value(value) | Self::Over(value, _) => Some(*value),
            Self::Missing(_) | Self::CannotTell(_) => None,
        }
    }
}

const OWNERS: Needs = Needs {
    owners: true,
    ..Needs::NONE
};

/// One whose number does not depend on FILTER, owners or history.
const PLAIN: Measure = Measure {
    name: "",
    doc: "",
    unit: "ratio",
    narrows: false,
    history: false,
    needs: Needs::NONE,
    read: |_, _| Reading::CannotTell(String::new()),
};

/// Every measure.
pub static ALL: &[Measure] = &[
    Measure {
        name: "tcp.STATE",
        doc: "sockets in a state, in any spelling: tcp.close-wait, tcp.TIME_WAIT",
        unit: "sockets",
        narrows: true,
        read: tcp::in_state,
        ..PLAIN
    },
    Measure {
        name: "tcp.total",
        doc: "sockets in all states",
        unit: "sockets",
        narrows: true,
        read: tcp::total,
        ..PLAIN
    },
    Measure {
        name: "tcp.STATE.growth",
        doc: "by how many sockets a minute a state grows, by the slope over earlier runs",
        unit: "1/min",
        history: true,
        read: growth::in_state,
        ..PLAIN
    },
    Measure {
        name: "tcp.total.growth",
        doc: "the same of all states",
        unit: "1/min",
        history: true,
        read: growth::total,
        ..PLAIN
    },
    Measure {
        name: "listener[PORT].queue",
        doc: "connections that wait for accept() in the fullest queue of a port; nobody listening is critical",
        unit: "connections",
        read: listener::queue,
        ..PLAIN
    },
    Measure {
        name: "listener[PORT].queue-ratio",
        doc: "the same against the queue's limit; more than 1 is full",
        read: listener::ratio,
        ..PLAIN
    },
    Measure {
        name: "process[COMM].STATE",
        doc: "sockets in a state that processes of a name hold",
        unit: "sockets",
        narrows: true,
        needs: OWNERS,
        read: process::in_state,
        ..PLAIN
    },
    Measure {
        name: "process[COMM].total",
        doc: "TCP sockets that processes of a name hold",
        unit: "sockets",
        narrows: true,
        needs: OWNERS,
        read: process::total,
        ..PLAIN
    },
    Measure {
        name: "process[COMM].fd-ratio",
        doc: "open descriptors against RLIMIT_NOFILE, of that process of the name which is nearest to it",
        needs: OWNERS,
        read: process::descriptors,
        ..PLAIN
    },
    Measure {
        name: "unit[UNIT].STATE",
        doc: "sockets in a state that processes of a systemd unit hold",
        unit: "sockets",
        narrows: true,
        needs: OWNERS,
        read: process::in_state,
        ..PLAIN
    },
    Measure {
        name: "unit[UNIT].total",
        doc: "TCP sockets that processes of a systemd unit hold",
        unit: "sockets",
        narrows: true,
        needs: OWNERS,
        read: process::total,
        ..PLAIN
    },
    Measure {
        name: "ports.used-ratio",
        doc: "ports of ip_local_port_range that are taken towards the destination that takes most",
        read: host::ports,
        ..PLAIN
    },
    Measure {
        name: "time-wait.table-ratio",
        doc: "TIME-WAIT and orphaned FIN-WAIT-2 against tcp_max_tw_buckets",
        read: host::time_wait,
        ..PLAIN
    },
    Measure {
        name: "orphans.ratio",
        doc: "orphans of the whole machine against tcp_max_orphans",
        read: host::orphans,
        ..PLAIN
    },
    Measure {
        name: "conntrack.ratio",
        doc: "tracked connections against nf_conntrack_max",
        read: host::conntrack,
        ..PLAIN
    },
    Measure {
        name: "closes.rate",
        doc: "connections that this side closed first, a second, over the last minute: what TIME-WAIT tells, a lower bound",
        unit: "1/s",
        narrows: true,
        read: tcp::closes,
        ..PLAIN
    },
];

/// Understands the name of a measure, such as `tcp.close-wait` or `listener[443].queue`.
///
/// # Errors
/// For a name that is none.
pub fn parse(text: &str) -> Result<Asked, Error> {
    name::parse(text)
}

impl Asked {
    /// What the measure says.
    pub fn read(&self, context: &Context<'_>) -> Reading {
        (self.measure.read)(context, self)
    }
}

/// Why the number of sockets in `states` is not known, if it is not.
fn unseen(context: &Context<'_>, states: StateSet) -> Option<String> {
    let coverage = &context.snapshot.coverage;
    if let Some(part) = coverage.gap(Protocol::Tcp) {
        return Some(format!("the socket table was not read whole: {part}"));
    }
    if coverage.lost > 0 {
        return Some("the socket table was not read whole: receive buffers were lost".to_owned());
    }
    let hidden = TcpState::SHOWN
        .into_iter()
        .find(|state| states.contains(*state) && coverage.unsure.contains(*state));
    hidden.map(|state| format!("no socket is in {state}: {UNSURE}"))
}

#[cfg(test)]
mod tests;
