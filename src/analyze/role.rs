//! Sockets that are stuck towards one peer, judged by who dialled whom.
//!
//! A public server always has some dead peers: a phone in a tunnel leaves its connection as it was. So where clients
//! come to us, only what is far above that background is news, and never more than a warning. Where we dialled, a large
//! part of our connections to one destination that do not move means that it, or the way to it, is down.

use foldhash::{HashMap, HashMapExt};

use super::group::Target;
use super::{Context, Limits, Threshold, Unit};
use crate::history::Counts;
use crate::model::{Severity, Subject, TcpState};

/// Of a thousand closing peers one has vanished, on the open internet.
const VANISHING: f64 = 0.001;

/// Of a listener's connections in use one in two hundred belongs to a peer that is gone.
const GONE: f64 = 0.005;

/// So many times `min` is more than one client has open.
const ONE_PEER: f64 = 4.0;

/// The limits that [`judge`] reads; a detector that uses it has these three.
pub const MIN: Threshold = Threshold {
    key: "min",
    default: 5.0,
    unit: Unit::Count,
    doc: "fewer stuck sockets towards one destination or listener are no pattern, and info only",
};
/// See [`MIN`].
pub const SHARE: Threshold = Threshold {
    key: "share",
    default: 30.0,
    unit: Unit::Percent,
    doc: "of the sockets in use towards that destination or listener: most peers live, so it is not the peers' own fault",
};
/// See [`MIN`].
pub const BACKGROUND: Threshold = Threshold {
    key: "background",
    default: 10.0,
    unit: Unit::Count,
    doc: "times what vanished clients leave on any public listener (0.1 % of its closes, 0.5 % of its connections)",
};

/// The stuck sockets towards one destination or on one listening port.
#[derive(Clone, Debug)]
pub struct Towards {
    /// whom
    pub target: Target,
    /// the stuck sockets, in the order of the snapshot
    pub rows: Vec<u32>,
    /// the sockets in use towards the same, the stuck ones included: everything but LISTEN, TIME-WAIT and SYN-RECEIVED
    pub in_use: u64,
    /// closes a second on a listening port, as far as TIME-WAIT tells
    pub closes: f64,
    /// whether all stuck ones on a listening port are of one address elsewhere
    pub is_one_peer: bool,
}

impl Towards {
    /// How many are stuck.
    pub fn stuck(&self) -> u64 {
        self.rows.len() as u64
    }

    /// As a subject: a destination, or the listener on the port.
    pub fn subject(&self, context: &Context<'_>) -> Subject {
        match self.target {
            Target::Destination(remote) => Subject::Destination {
                address: remote.ip(),
                port: remote.port,
                source_address: None,
            },
            Target::Listener(port) => context
                .tally
                .listeners
                .iter()
                .filter_map(|row| context.snapshot.socket(*row))
                .find(|listener| listener.local.port == port)
                .map_or(Subject::Host, |listener| {
                    super::words::listener_subject(context.snapshot, listener)
                }),
            Target::Many(_) => Subject::Host,
        }
    }

    /// A command that shows more.
    pub fn command(&self) -> String {
        match self.target {
            Target::Listener(port) => format!("linger port:{port}"),
            Target::Destination(remote) => format!("linger {}", remote.ip()),
            Target::Many(_) => "linger list -i".to_owned(),
        }
    }
}

/// Groups `rows` by the destination that we dialled or the port that we listen on, the largest first.
pub fn towards(context: &Context<'_>, rows: impl Iterator<Item = u32>) -> Vec<Towards> {
    let tally = context.tally;
    let mut places: HashMap<Target, usize> = HashMap::new();
    let mut all: Vec<Towards> = Vec::new();
    for row in rows {
        let Some(socket) = context.snapshot.socket(row) else {
            continue;
        };
        let target = Target::of(context, socket);
        let place = *places.entry(target).or_insert(all.len());
        if place == all.len() {
            all.push(Towards {
                target,
                rows: Vec::new(),
                in_use: 0,
                closes: 0.0,
                is_one_peer: false,
            });
        }
        if let Some(towards) = all.get_mut(place) {
            towards.rows.push(row);
        }
    }
    for (dial, counts) in tally.dialled() {
        let place = places.get(&Target::Destination(dial.remote));
        if let Some(towards) = place.and_then(|at| all.get_mut(*at)) {
            towards.in_use += in_use(counts);
        }
    }
    for towards in &mut all {
        if let Target::Listener(port) = towards.target {
            let counts = tally.served(port);
            towards.in_use = in_use(&counts);
            towards.closes = f64::from(counts.of(TcpState::TimeWait)) / 60.0;
            let sockets = towards.rows.iter();
            let sockets = sockets.filter_map(|row| context.snapshot.socket(*row));
            let mut peers = sockets.map(|socket| socket.remote.ip());
            let first = peers.next();
            towards.is_one_peer = peers.all(|peer| Some(peer) == first);
        }
    }
    all.sort_by_key(|towards| (std::cmp::Reverse(towards.rows.len()), towards.target));
    all
}

/// The sockets in use: everything but TIME-WAIT and SYN-RECEIVED.
pub fn in_use(counts: &Counts) -> u64 {
    let idle = counts.of(TcpState::TimeWait) + counts.of(TcpState::SynReceived);
    u64::from(counts.total().saturating_sub(idle))
}

/// How bad so many stuck sockets are, each of which stays for `lifetime` seconds when its peer is gone. Reads the
/// limits `min`, `share` and `background`.
pub fn judge(towards: &Towards, lifetime: f64, limits: &Limits) -> Severity {
    let stuck = towards.stuck() as f64;
    if stuck < limits.get("min") {
        return Severity::Info;
    }
    let most = stuck * 100.0 >= towards.in_use as f64 * limits.get("share");
    match towards.target {
        Target::Listener(_) => {
            let gone = (VANISHING * towards.closes * lifetime).max(GONE * towards.in_use as f64);
            // Where nearly nobody is connected, a few dead clients are ten times a background of nothing.
            let above = stuck > (gone * limits.get("background")).max(limits.get("min") * 2.0);
            // At night a crawler or a phone may be all that a small server has; a gateway with many is not that.
            let alone = towards.is_one_peer && stuck < limits.get("min") * ONE_PEER;
            if (most || above) && !alone {
                Severity::Warning
            } else {
                Severity::Info
            }
        }
        Target::Destination(_) if most => Severity::Critical,
        Target::Destination(_) | Target::Many(_) => Severity::Warning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Endpoint;

    fn severity(target: Target, stuck: u32, in_use: u64, closes: f64) -> Severity {
        let towards = Towards {
            target,
            rows: (0..stuck).collect(),
            in_use,
            closes,
            is_one_peer: false,
        };
        let limits = Limits::of(&[MIN, SHARE, BACKGROUND]);
        judge(&towards, 107.0, &limits)
    }

    const CLIENTS: Target = Target::Listener(443);
    const SERVER: Target = Target::Destination(Endpoint::v4([192, 0, 2, 9], 5432));

    #[test]
    fn dead_clients_of_a_public_server_are_its_background() {
        assert_eq!(severity(CLIENTS, 40, 2_000, 0.0), Severity::Info);
        // 1,000 closes a second with one vanished phone in a thousand
        assert_eq!(severity(CLIENTS, 107, 4_000, 1_000.0), Severity::Info);
        assert_eq!(severity(CLIENTS, 1_071, 4_000, 1_000.0), Severity::Warning);
        assert_eq!(severity(CLIENTS, 101, 2_000, 0.0), Severity::Warning);
        assert_eq!(severity(CLIENTS, 100, 2_000, 0.0), Severity::Info);
    }

    #[test]
    fn one_client_that_is_gone_is_info_however_few_there_are() {
        let one = |stuck| {
            let towards = Towards {
                target: CLIENTS,
                rows: (0..stuck).collect(),
                in_use: stuck.into(),
                closes: 0.0,
                is_one_peer: true,
            };
            judge(&towards, 107.0, &Limits::of(&[MIN, SHARE, BACKGROUND]))
        };
        assert_eq!(one(19), Severity::Info);
        assert_eq!(one(20), Severity::Warning, "a gateway, a balancer");
    }

    #[test]
    fn clients_are_never_critical_and_a_destination_is_with_a_third_of_ours() {
        assert_eq!(severity(CLIENTS, 5, 5, 0.0), Severity::Warning);
        assert_eq!(severity(CLIENTS, 4, 4, 0.0), Severity::Info);
        assert_eq!(severity(SERVER, 5, 16, 0.0), Severity::Critical);
        assert_eq!(severity(SERVER, 5, 17, 0.0), Severity::Warning);
        assert_eq!(severity(SERVER, 4, 4, 0.0), Severity::Info);
    }
}
