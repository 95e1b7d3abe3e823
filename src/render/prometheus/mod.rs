//! Metrics for Prometheus, in its text format 0.0.4, which a scrape and node_exporter's textfile collector both take.

mod counts;
pub mod metrics;
#[cfg(test)]
mod tests;

use std::time::Duration;

use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily};

use self::counts::{Counts, States};
use self::metrics::{Described, Kind};
use crate::model::{Analysis, Coverage, Family, Severity, Snapshot, TcpState};

/// The `Content-Type` of what [`text`] makes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Destinations whose use of ports is told.
pub const RANKS: usize = 5;

/// What was seen and judged.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// the look
    pub snapshot: &'a Snapshot,
    /// its rows in LISTEN
    pub listeners: &'a [u32],
    /// what the detectors say
    pub analysis: &'a Analysis,
    /// the ids of the detectors that ran
    pub detectors: &'a [&'static str],
    /// what was counted besides
    pub figures: Figures,
}

/// Figures of the whole; what is not known is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// local ports that `connect` chooses from
    pub ephemeral_ports: Option<u32>,
    /// shares of these that the worst destinations have taken, the worst first
    pub ports_used: Option<[f64; RANKS]>,
    /// closes per second, at least
    pub closes: Option<f64>,
    /// share of the table of TIME-WAIT
    pub time_wait_table: Option<f64>,
    /// share of the orphans that the machine takes
    pub orphans: Option<f64>,
    /// share of the table of connection tracking
    pub conntrack: Option<f64>,
}

/// The metrics as text; `seen` is `None` where nothing could be read, `took` is how long that took.
///
/// # Errors
/// Those of the encoder, of which none is known.
pub fn text(seen: Option<&Seen<'_>>, took: Duration) -> Result<String, prometheus::Error> {
    let mut families = Families::default();
    families.put(
        &metrics::BUILD_INFO,
        [(vec![env!("CARGO_PKG_VERSION").to_owned()], 1.0)],
    );
    families.one(&metrics::SOURCE_UP, Some(flag(seen.is_some())));
    if let Some(seen) = seen {
        let complete = seen.snapshot.coverage.complete();
        families.one(&metrics::SOURCE_COMPLETE, Some(flag(complete)));
    }
    families.one(&metrics::SCRAPE_DURATION, Some(took.as_secs_f64()));
    if let Some(seen) = seen {
        let counts = Counts::new(seen.snapshot, seen.listeners);
        families.sockets(&counts, &seen.snapshot.coverage);
        families.queues(&counts);
        families.findings(seen);
        families.figures(&seen.figures);
        families.gaps(&seen.snapshot.coverage);
    }
    TextEncoder::new().encode_to_string(&families.0)
}

const fn flag(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

/// The label of states whose number nobody knows; only where there are sockets in them.
const UNKNOWN: &str = "unknown";

/// node_exporter's name of a state, so that queries carry over.
pub const fn state_label(state: TcpState) -> &'static str {
    match state {
        TcpState::Established => "established",
        TcpState::SynSent => "syn_sent",
        TcpState::SynReceived | TcpState::NewSynReceived => "syn_recv",
        TcpState::FinWait1 => "fin_wait1",
        TcpState::FinWait2 => "fin_wait2",
        TcpState::TimeWait => "time_wait",
        TcpState::Closed => "close",
        TcpState::CloseWait => "close_wait",
        TcpState::LastAck => "last_ack",
        TcpState::Listen => "listen",
        TcpState::Closing => "closing",
        TcpState::BoundInactive => "bound_inactive",
        TcpState::Unknown(_) => UNKNOWN,
    }
}

/// The families of metrics as they are written.
#[derive(Default)]
struct Families(Vec<MetricFamily>);

impl Families {
    /// Series of a metric: the values of its labels, and its own. None where there are none.
    fn put(&mut self, what: &Described, series: impl IntoIterator<Item = (Vec<String>, f64)>) {
        let all: Vec<Metric> = series
            .into_iter()
            .map(|(labels, value)| metric(what, labels, value))
            .collect();
        if all.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(what.name.to_owned());
        family.set_help(what.help.to_owned());
        family.set_field_type(what.kind.into());
        family.set_metric(all);
        self.0.push(family);
    }

    /// A metric without labels, if it is known.
    fn one(&mut self, what: &Described, value: Option<f64>) {
        self.put(what, value.map(|value| (Vec::new(), value)));
    }

    fn sockets(&mut self, counts: &Counts, coverage: &Coverage) {
        let states = |names: Vec<String>, states: &States| -> Vec<(Vec<String>, f64)> {
            let all = TcpState::SHOWN.into_iter().zip(states);
            all.filter(|(state, n)| **n > 0 || coverage.sees(*state))
                .map(|(state, n)| {
                    let mut labels = names.clone();
                    labels.push(state_label(state).to_owned());
                    (labels, *n as f64)
                })
                .collect()
        };
        let families = [Family::Ipv4, Family::Ipv6]
            .into_iter()
            .zip(counts.families);
        let seen = families.filter(|(family, n)| {
            let unread = format!("TCP over {}:", family.label());
            let unread = coverage
                .missing
                .iter()
                .any(|part| part.starts_with(&unread));
            !unread || n.iter().any(|n| *n > 0)
        });
        let mut all: Vec<_> = seen
            .flat_map(|(family, n)| states(vec![family.name().to_owned()], &n))
            .collect();
        for (family, n) in [Family::Ipv4, Family::Ipv6].into_iter().zip(counts.unknown) {
            if n > 0 {
                all.push((vec![family.name().to_owned(), UNKNOWN.to_owned()], n as f64));
            }
        }
        self.put(&metrics::TCP_SOCKETS, all);
        let by_name = |all: &[(String, States)]| -> Vec<(Vec<String>, f64)> {
            let all = all.iter();
            all.flat_map(|(name, n)| states(vec![name.clone()], n))
                .collect()
        };
        self.put(&metrics::LISTENER_SOCKETS, by_name(&counts.ports));
        if coverage.owners_read {
            self.put(&metrics::UNIT_SOCKETS, by_name(&counts.units));
        }
    }

    fn queues(&mut self, counts: &Counts) {
        let of = |value: fn(&counts::Queue) -> Option<f64>| -> Vec<(Vec<String>, f64)> {
            let queues = counts.queues.iter();
            queues
                .filter_map(|queue| Some((vec![queue.port.to_string()], value(queue)?)))
                .collect()
        };
        self.put(
            &metrics::ACCEPT_QUEUE,
            of(|queue| Some(f64::from(queue.waiting))),
        );
        self.put(&metrics::BACKLOG, of(|queue| queue.limit.map(f64::from)));
        self.put(
            &metrics::LISTENER_DROPS,
            of(|queue| queue.drops.map(|drops| drops as f64)),
        );
    }

    fn findings(&mut self, seen: &Seen<'_>) {
        let is_open = |id: &str| seen.analysis.unknown.iter().any(|open| open.id == id);
        let active = seen.detectors.iter().flat_map(|id| {
            [Severity::Warning, Severity::Critical, Severity::Info].map(|severity| {
                let findings = seen.analysis.findings.iter();
                let n = findings
                    .filter(|finding| finding.id == *id && finding.severity == severity)
                    .count();
                (*id, severity, n)
            })
        });
        // Of a question that stays open what was found all the same is known, and not that there is no more.
        let known = active.filter(|(id, _, n)| *n > 0 || !is_open(id));
        self.put(
            &metrics::FINDING_ACTIVE,
            known.map(|(id, severity, n)| {
                (vec![id.to_owned(), severity.name().to_owned()], n as f64)
            }),
        );
        self.put(
            &metrics::FINDING_UNKNOWN,
            seen.detectors
                .iter()
                .map(|id| (vec![(*id).to_owned()], flag(is_open(id)))),
        );
    }

    fn figures(&mut self, figures: &Figures) {
        let ports = figures.ephemeral_ports.map(f64::from);
        self.one(&metrics::EPHEMERAL_PORTS, ports);
        let ranks = figures.ports_used.iter().flatten().zip(1u32..);
        self.put(
            &metrics::DESTINATION_PORTS,
            ranks.map(|(share, rank)| (vec![rank.to_string()], *share)),
        );
        self.one(&metrics::CLOSES, figures.closes);
        self.one(&metrics::TIME_WAIT_TABLE, figures.time_wait_table);
        self.one(&metrics::ORPHANS, figures.orphans);
        self.one(&metrics::CONNTRACK, figures.conntrack);
    }

    fn gaps(&mut self, coverage: &Coverage) {
        let owners = |n: f64| coverage.owners_read.then_some(n);
        self.one(&metrics::UNOWNED, owners(coverage.unowned as f64));
        let unreadable = f64::from(coverage.unreadable_processes);
        self.one(&metrics::UNREADABLE, owners(unreadable));
        self.one(&metrics::INTERRUPTED, Some(f64::from(coverage.interrupted)));
    }
}

fn metric(what: &Described, labels: Vec<String>, value: f64) -> Metric {
    debug_assert_eq!(labels.len(), what.labels.len(), "{}", what.name);
    let pairs = what.labels.iter().zip(labels).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value);
        pair
    });
    let mut metric = Metric::from_label(pairs.collect());
    match what.kind {
        Kind::Gauge => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        Kind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
    }
    metric
}
