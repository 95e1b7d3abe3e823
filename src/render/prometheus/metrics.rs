//! The metrics that there are: the output, the manual page and the tests are made from this table.

use prometheus::proto::MetricType;

/// What a metric is called and means.
#[derive(Debug)]
pub struct Described {
    /// its name, with its unit
    pub name: &'static str,
    /// whether it may go down
    pub kind: Kind,
    /// what tells its series apart
    pub labels: &'static [&'static str],
    /// what it says, and when it is absent
    pub help: &'static str,
}

/// The types in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// goes up and down
    Gauge,
    /// goes up, and begins anew
    Counter,
}

impl Kind {
    /// The word behind `# TYPE`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

impl From<Kind> for MetricType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Gauge => Self::GAUGE,
            Kind::Counter => Self::COUNTER,
        }
    }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Described {
    Described {
        name,
        kind: Kind::Gauge,
        labels,
        help,
    }
}

/// Which linger this is.
pub const BUILD_INFO: Described = gauge(
    "linger_build_info",
    &["version"],
    "Always 1; the label has the version of linger.",
);

/// Whether anything could be read.
pub const SOURCE_UP: Described = gauge(
    "linger_source_up",
    &[],
    "1 if the sockets could be read. With 0 nothing else is said but linger_build_info and linger_scrape_duration_seconds.",
);

/// Whether everything could be read.
pub const SOURCE_COMPLETE: Described = gauge(
    "linger_source_complete",
    &[],
    "1 if everything that was asked for was seen, 0 if rows, owners, settings or counters are missing.",
);

/// What it took.
pub const SCRAPE_DURATION: Described = gauge(
    "linger_scrape_duration_seconds",
    &[],
    "Time that it took to read the machine and to judge what was read.",
);

/// The table.
pub const TCP_SOCKETS: Described = gauge(
    "linger_tcp_sockets",
    &["family", "state"],
    "TCP sockets by family of the socket and state. A state or family that could not be seen is absent.",
);

/// The table by listener.
pub const LISTENER_SOCKETS: Described = gauge(
    "linger_listener_sockets",
    &["port", "state"],
    "TCP sockets whose own port is listened on, the listeners included, by that port and state. The 32 ports with most sockets, the rest as port other.",
);

/// The table by unit.
pub const UNIT_SOCKETS: Described = gauge(
    "linger_unit_sockets",
    &["unit", "state"],
    "TCP sockets that processes of a systemd unit hold, by unit and state. The 32 units with most sockets, the rest as unit other. Absent if owners were not read.",
);

/// How full listeners are.
pub const ACCEPT_QUEUE: Described = gauge(
    "linger_listener_accept_queue",
    &["port"],
    "Connections that wait for accept(2), of the fullest listener of the port. The 64 ports with the fullest queues.",
);

/// How much listeners take.
pub const BACKLOG: Described = gauge(
    "linger_listener_backlog",
    &["port"],
    "Limit of the accept queue in linger_listener_accept_queue. Absent where /proc/net was read, which does not tell.",
);

/// What listeners dropped.
pub const LISTENER_DROPS: Described = Described {
    name: "linger_listener_drops_total",
    kind: Kind::Counter,
    labels: &["port"],
    help: "Packets that the listeners of the port have dropped since they were opened, overflow and all other causes. Absent where the kernel does not tell.",
};

/// What is wrong.
pub const FINDING_ACTIVE: Described = gauge(
    "linger_finding_active",
    &["id", "severity"],
    "Findings of this id that are there now and not muted, by severity. Absent for what could not be judged: see linger_finding_unknown.",
);

/// What cannot be told.
pub const FINDING_UNKNOWN: Described = gauge(
    "linger_finding_unknown",
    &["id"],
    "1 if it could not be judged whether there is such a finding.",
);

/// What `connect` chooses from.
pub const EPHEMERAL_PORTS: Described = gauge(
    "linger_ephemeral_ports",
    &[],
    "Local ports that connect(2) may choose from: ip_local_port_range without ip_local_reserved_ports.",
);

/// How near to its end that is.
pub const DESTINATION_PORTS: Described = gauge(
    "linger_destination_ports_used_ratio",
    &["rank"],
    "Share of linger_ephemeral_ports that connections to one destination have taken, 0 to 1, for the five that have taken most; rank 1 is the worst.",
);

/// How many connections end.
pub const CLOSES: Described = gauge(
    "linger_closes_per_second",
    &[],
    "Connections closed first by this side in the last minute, a second, from the TIME-WAIT sockets that are left of them: at least so many.",
);

/// How full the table of TIME-WAIT is.
pub const TIME_WAIT_TABLE: Described = gauge(
    "linger_time_wait_table_ratio",
    &[],
    "TIME-WAIT sockets and orphans in FIN-WAIT-2 as a share of tcp_max_tw_buckets.",
);

/// How many nobody holds any more.
pub const ORPHANS: Described = gauge(
    "linger_orphans_ratio",
    &[],
    "Orphaned sockets of the whole machine as a share of tcp_max_orphans. Absent in a child namespace, which is not told the limit.",
);

/// How full the table of connection tracking is.
pub const CONNTRACK: Described = gauge(
    "linger_conntrack_ratio",
    &[],
    "nf_conntrack_count as a share of nf_conntrack_max. Absent where connections are not tracked.",
);

/// Whose holder is not known.
pub const UNOWNED: Described = gauge(
    "linger_unowned_sockets",
    &[],
    "TCP sockets that belong to a process which was not found.",
);

/// Who could not be looked into.
pub const UNREADABLE: Described = gauge(
    "linger_unreadable_processes",
    &[],
    "Processes whose descriptors could not be read for lack of privilege.",
);

/// What changed under the hand.
pub const INTERRUPTED: Described = gauge(
    "linger_dump_interrupted",
    &[],
    "Dumps of the kernel's tables during which these changed, so that sockets may be missing or doubled.",
);

/// All of them, in the order in which they are written.
pub const METRICS: &[&Described] = &[
    &BUILD_INFO,
    &SOURCE_UP,
    &SOURCE_COMPLETE,
    &SCRAPE_DURATION,
    &TCP_SOCKETS,
    &LISTENER_SOCKETS,
    &UNIT_SOCKETS,
    &ACCEPT_QUEUE,
    &BACKLOG,
    &LISTENER_DROPS,
    &FINDING_ACTIVE,
    &FINDING_UNKNOWN,
    &EPHEMERAL_PORTS,
    &DESTINATION_PORTS,
    &CLOSES,
    &TIME_WAIT_TABLE,
    &ORPHANS,
    &CONNTRACK,
    &UNOWNED,
    &UNREADABLE,
    &INTERRUPTED,
];
