//! Destinations to which this host runs out of local ports.

use std::collections::HashMap;

use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::{
    Blind, Context, Detector, Limits, Needs, Threshold, Unit, Verdict, group, pace, words,
};
use crate::history::{Counts, Dial};
use crate::model::{
    Actor, Endpoint, Evidence, Finding, Process, Severity, Subject, TcpState, Timer,
};

pub const DETECTOR: Detector = Detector {
    id: "ephemeral-port-exhaustion",
    aliases: &[],
    summary: "the local ports for connections to one destination run out",
    signals: "per local address, destination address and port: sockets in any state on a port of ip_local_port_range \
              (without ip_local_reserved_ports), plus ports that are only bound, against the size of the range. \
              TIME-WAIT whose port a new connection may take over is counted apart. No kernel counter shows this.",
    explanation: "Every connection that this host opens needs a local port of its own for that destination; a closed \
                  one keeps its port for 60 s in TIME-WAIT. Above half of the range connect() must search and gets \
                  slower; with none left it fails with EADDRNOTAVAIL. Other destinations are not affected.",
    grounds: &[
        "TCP state in OS, TIME_WAIT",
        "RFC 9293 section 3.3.2",
        "Linux kernel, net/ipv4/inet_hashtables.c: __inet_hash_connect()",
    ],
    advice: &[
        "reuse connections: keep-alive, a pool, multiplexing; or spread over more destination or source addresses",
        "widen net.ipv4.ip_local_port_range, and then reserve your listeners' ports in ip_local_reserved_ports and stay off NodePorts 30000-32767",
    ],
    folklore: &[
        "tcp_tw_recycle does not exist any more",
        "tcp_fin_timeout does not free ports in TIME-WAIT",
    ],
    states: &[TcpState::TimeWait, TcpState::SynSent, TcpState::Established],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "warn",
            default: 50.0,
            unit: Unit::Percent,
            doc: "of the range: connect() leaves the even half and searches, 15 microseconds become 490",
        },
        Threshold {
            key: "critical",
            default: 90.0,
            unit: Unit::Percent,
            doc: "of the range: the rest is gone within seconds, then connect() fails",
        },
        Threshold {
            key: "min",
            default: 10.0,
            unit: Unit::Count,
            doc: "fewer ports in use are not judged, however narrow the range",
        },
    ],
    blind: &[Blind {
        since: (6, 8),
        lacks: "bound-inactive sockets in sock_diag",
        effect: "ports that are only bound are not counted",
    }],
    needs: Needs {
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "connections, of 100 ports",
        limit: 50,
        build: example,
    },
};

/// A destination and what of the range it has taken.
struct Used<'a> {
    taken: u64,
    dial: &'a Dial,
    counts: &'a Counts,
    rows: Vec<u32>,
    holders: HashMap<u32, (u64, &'a Process)>,
}

impl Used<'_> {
    /// Sockets in `state` that keep their port.
    fn of(&self, state: TcpState) -> u32 {
        let reusable = match state {
            TcpState::TimeWait => self.counts.reusable,
            _ => 0,
        };
        self.counts.of(state).saturating_sub(reusable)
    }

    /// The state that takes most ports.
    fn most(&self) -> TcpState {
        TcpState::SHOWN
            .into_iter()
            .max_by_key(|state| self.of(*state))
            .unwrap_or(TcpState::Established)
    }
}

/// How many local ports a new connection with these siblings will not get.
pub(in crate::analyze) fn ports_taken(context: &Context<'_>, counts: &Counts) -> u64 {
    u64::from(counts.ephemeral - counts.reusable) + context.tally.bound.len() as u64
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let range = context.snapshot.facts.ephemeral_ports();
    // A port that is bound without a connection is taken for every destination.
    let bound = context.tally.bound.len() as u64;
    let mut used: Vec<Used<'_>> = Vec::new();
    for (dial, counts) in context.tally.dialled() {
        let taken = match range {
            Some(_) => ports_taken(context, counts),
            None => u64::from(counts.total()),
        };
        if taken as f64 >= limits.get("min") {
            used.push(Used {
                taken,
                dial,
                counts,
                rows: Vec::new(),
                holders: HashMap::new(),
            });
        }
    }
    let Some(range) = range.filter(|range| *range > 0) else {
        if used.is_empty() {
            return Verdict::Quiet;
        }
        return Verdict::CannotTell(
            "ip_local_port_range is not readable, so the size of the range is not known".to_owned(),
        );
    };
    let many = |taken: u64| {
        taken as f64 >= limits.get("min")
            && taken as f64 * 100.0 >= f64::from(range) * limits.get("warn")
    };
    // Where bound ports alone are too many, they are the finding, and not every destination there is.
    let crowded = many(bound);
    used.retain(|used| many(used.taken - if crowded { bound } else { 0 }));
    used.sort_by(|a, b| b.taken.cmp(&a.taken).then(a.dial.cmp(b.dial)));
    used.truncate(100);
    look(context, &mut used);
    let mut findings: Vec<Finding> = used
        .into_iter()
        .map(|used| finding(context, limits, &used, bound, range))
        .collect();
    if crowded {
        findings.push(only_bound(context, limits, bound, range));
    }
    Verdict::of(group::capped(findings))
}

fn severity(share: f64, limits: &Limits) -> Severity {
    if share >= limits.get("critical") {
        Severity::Critical
    } else {
        Severity::Warning
    }
}

/// Ports that are bound and lead nowhere.
fn only_bound(context: &Context<'_>, limits: &Limits, bound: u64, range: u32) -> Finding {
    let share = bound as f64 * 100.0 / f64::from(range);
    let rows = (0u32..)
        .zip(&context.snapshot.sockets)
        .filter(|(_, socket)| socket.state == TcpState::BoundInactive)
        .map(|(row, _)| row)
        .take(10)
        .collect();
    Finding {
        id: DETECTOR.id,
        variant: Some("bound-inactive"),
        severity: severity(share, limits),
        title: format!(
            "{} of {} local ports are bound without a connection ({share:.0} %)",
            words::thousands(bound),
            words::thousands(range)
        ),
        subject: Subject::Host,
        evidence: vec![
            Evidence::count(
                "bound_without_connection",
                bound,
                "ports",
                "idiag_state BOUND_INACTIVE",
            )
            .limit(f64::from(range) * limits.get("warn") / 100.0),
            Evidence::count(
                "ports_in_the_range",
                range,
                "ports",
                "net.ipv4.ip_local_port_range",
            ),
        ],
        explanation: "A program has bound these ports and neither connects nor listens. Each is taken for every \
                      destination; with none left, connect() fails with EADDRNOTAVAIL everywhere."
            .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            "linger list state bound-inactive -p    # who has bound them".to_owned(),
            "close what is not used; set IP_BIND_ADDRESS_NO_PORT before a bind() that is for the address only"
                .to_owned(),
            "do not: widen the range first; the same program binds those ports too".to_owned(),
        ],
        rows,
        caused_by: None,
        one_sample: false,
    }
}

fn finding(
    context: &Context<'_>,
    limits: &Limits,
    used: &Used<'_>,
    bound: u64,
    range: u32,
) -> Finding {
    let Used {
        taken,
        dial,
        counts,
        ..
    } = used;
    let (taken, most) = (*taken, used.most());
    let share = taken as f64 * 100.0 / f64::from(range);
    let source = Endpoint {
        address: dial.source,
        port: 0,
    };
    let owner = used
        .holders
        .values()
        .max_by_key(|(count, owner)| (*count, owner.pid))
        .map(|(_, owner)| *owner);

    let mut evidence = vec![
        Evidence::count("ports_in_use", taken, "ports", "idiag_sport")
            .limit(f64::from(range) * limits.get("warn") / 100.0),
        Evidence::count(
            "ports_in_the_range",
            range,
            "ports",
            "net.ipv4.ip_local_port_range",
        ),
        Evidence::real("share", share, "%", "idiag_sport").limit(limits.get("warn")),
    ];
    for state in TcpState::SHOWN {
        if let (Some(name), n @ 1..) = (state_evidence(state), used.of(state)) {
            evidence.push(Evidence::count(name, n, "sockets", "idiag_state"));
        }
    }
    if bound > 0 {
        evidence.push(Evidence::count(
            "bound_without_connection",
            bound,
            "ports",
            "idiag_state BOUND_INACTIVE",
        ));
    }
    if counts.reusable > 0 {
        evidence.push(Evidence::count(
            "reusable_time_wait",
            counts.reusable,
            "sockets",
            "net.ipv4.tcp_tw_reuse",
        ));
    }
    evidence.extend(run_out(context, dial, taken - bound, range));
    let cure = match most {
        TcpState::TimeWait => {
            "reuse connections (keep-alive, a pool): most ports wait out the 60 s after a close"
        }
        TcpState::SynSent => {
            "the destination does not answer: mend that first, and use short connect time-outs"
        }
        TcpState::CloseWait => {
            "close what the peer has closed: most ports are held by sockets in CLOSE-WAIT"
        }
        _ => {
            "open fewer connections at once (a pool, multiplexing), or use more destination or source addresses"
        }
    };
    let who = owner
        .map(|owner| format!("{} ", words::process(owner)))
        .unwrap_or_default();
    if let Some(owner) = owner {
        evidence.push(Evidence::text(
            "held_most_by",
            words::process(owner),
            "/proc/PID/fd",
        ));
    }
    let (destination, brief) = (words::endpoint(&dial.remote), words::brief(&dial.remote));
    let ports = format!("{} of {}", words::thousands(taken), words::thousands(range));
    Finding {
        id: DETECTOR.id,
        variant: (most == TcpState::SynSent).then_some("syn-sent"),
        severity: severity(share, limits),
        title: words::fit([
            format!("{who}to {destination}: {ports} local ports in use ({share:.0} %), mostly {most}"),
            format!("{who}to {brief}: {ports} local ports in use, mostly {most}"),
            format!("to {brief}: {ports} local ports in use, mostly {most}"),
        ]),
        subject: Subject::Destination { address: dial.remote.ip(), port: dial.remote.port, source_address: Some(source.ip()) },
        evidence,
        explanation: format!(
            "Every connection from {} to {destination} needs a local port of its own. Above half of the range \
             connect() searches and gets slow; with none left it fails with EADDRNOTAVAIL. Other destinations are \
             not affected.",
            source.ip()
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            format!("linger {}    # who dials it, and in which states", dial.remote.ip()),
            cure.to_owned(),
            "then widen net.ipv4.ip_local_port_range, with your listeners' ports in ip_local_reserved_ports, off NodePorts 30000-32767".to_owned(),
        ],
        rows: used.rows.clone(),
        caused_by: None,
        one_sample: false,
    }
}

/// When the ports run out, if the full look before this one found fewer in use.
fn run_out(context: &Context<'_>, dial: &Dial, taken: u64, range: u32) -> Option<Evidence> {
    let before = context.history.earlier().last()?;
    let window = context
        .sample
        .taken
        .duration_since(before.taken)
        .as_secs_f64();
    let had = u64::from(*before.ports.get(dial)?);
    pace::evidence(
        "ports_run_out_in",
        (had, taken),
        window,
        range.into(),
        "two looks",
    )
}

/// Finds for each destination ten sockets in the state that takes most ports, and who holds how many of them all: one
/// pass.
fn look<'a>(context: &Context<'a>, used: &mut [Used<'a>]) {
    if used.is_empty() {
        return;
    }
    let snapshot = context.snapshot;
    let places: HashMap<Dial, (usize, TcpState)> = used
        .iter()
        .enumerate()
        .map(|(place, used)| (*used.dial, (place, used.most())))
        .collect();
    for (row, socket) in (0u32..).zip(&snapshot.sockets) {
        let dial = Dial {
            source: socket.local.address,
            remote: socket.remote,
        };
        let Some((place, most)) = places.get(&dial) else {
            continue;
        };
        let Some(used) = used.get_mut(*place) else {
            continue;
        };
        if used.rows.len() < 10 && socket.state.shown() == *most {
            used.rows.push(row);
        }
        if let Some(owner) = words::holder(snapshot, socket) {
            used.holders.entry(owner.pid).or_insert((0, owner)).0 += 1;
        }
    }
}

const fn state_evidence(state: TcpState) -> Option<&'static str> {
    Some(match state {
        TcpState::Established => "established",
        TcpState::SynSent => "syn_sent",
        TcpState::TimeWait => "time_wait",
        TcpState::CloseWait => "close_wait",
        TcpState::FinWait1 => "fin_wait_1",
        TcpState::FinWait2 => "fin_wait_2",
        TcpState::LastAck => "last_ack",
        TcpState::Closing => "closing",
        _ => return None,
    })
}

fn connections(n: u32, state: TcpState, local: [u8; 4], remote: [u8; 4]) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.sysctl("net/ipv4/ip_local_port_range", "40000 40099");
    let process = scenario.process(31, "worker", 200, 1024);
    for i in 0..n {
        let mut socket = scenario.socket(
            state,
            Endpoint::v4(local, 40_000 + i as u16),
            Endpoint::v4(remote, 5432),
        );
        if state == TcpState::TimeWait {
            (socket.timer, socket.timer_ms) = (Timer::TimeWait, 50_000);
        } else {
            socket = scenario.held_by(process, socket);
        }
        scenario.push(socket, &[]);
    }
    scenario
}

fn example(n: u32) -> Scenario {
    connections(n, TcpState::Established, HERE, THERE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;
    use crate::model::finding::Value;

    const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

    fn judge(scenario: Scenario) -> Option<Finding> {
        scenario.judge(DETECTOR.id).findings.pop()
    }

    #[test]
    fn ports_that_go_have_a_time_left() {
        let left = |then: u32, now: u32| {
            let mut scenario = example(then);
            scenario.remember(10);
            scenario.snapshot.sockets.clear();
            let mut later = example(now);
            std::mem::swap(&mut later.snapshot.sockets, &mut scenario.snapshot.sockets);
            let findings = scenario.analyze(&Settings::default()).findings;
            let evidence = findings
                .into_iter()
                .find(|f| f.id == DETECTOR.id)
                .unwrap()
                .evidence;
            evidence
                .into_iter()
                .find(|e| e.name == "ports_run_out_in")
                .map(|e| e.value)
        };
        // 20 more in 10 s: the last 40 of 100 are gone in 20 s.
        assert_eq!(left(40, 60), Some(Value::Real(20.0)));
        assert_eq!(left(60, 60), None);
    }

    #[test]
    fn half_of_the_range_warns_and_nine_tenths_are_critical() {
        let severity = |n| judge(example(n)).map(|finding| finding.severity);
        assert_eq!(severity(49), None);
        assert_eq!(severity(50), Some(Severity::Warning));
        assert_eq!(severity(89), Some(Severity::Warning));
        assert_eq!(severity(90), Some(Severity::Critical));
        let title = judge(example(90)).unwrap().title;
        assert_eq!(
            title,
            "worker[31] to 198.51.100.7:5432: 90 of 100 local ports in use (90 %), mostly ESTABLISHED"
        );
    }

    #[test]
    fn time_wait_to_loopback_is_reusable_and_quiet() {
        assert_eq!(
            judge(connections(100, TcpState::TimeWait, LOOPBACK, LOOPBACK)),
            None
        );
        let mut off = connections(100, TcpState::TimeWait, LOOPBACK, LOOPBACK);
        off.sysctl("net/ipv4/tcp_tw_reuse", "0");
        assert_eq!(judge(off).unwrap().severity, Severity::Critical);
        let elsewhere = judge(connections(100, TcpState::TimeWait, HERE, THERE)).unwrap();
        assert_eq!(elsewhere.severity, Severity::Critical);
        let mut everywhere = connections(100, TcpState::TimeWait, HERE, THERE);
        everywhere.sysctl("net/ipv4/tcp_tw_reuse", "1");
        assert_eq!(judge(everywhere.clone()), None);
        everywhere.sysctl("net/ipv4/tcp_timestamps", "0");
        assert!(judge(everywhere).is_some(), "reuse needs timestamps");
    }

    #[test]
    fn the_limit_is_per_destination() {
        let mut scenario = example(49);
        for i in 0..49 {
            let socket = scenario.socket(
                TcpState::Established,
                Endpoint::v4(HERE, 40_000 + i),
                Endpoint::v4(THERE, 80),
            );
            scenario.push(socket, &[]);
        }
        assert_eq!(judge(scenario), None);
    }

    #[test]
    fn ports_that_are_only_bound_count_for_every_destination() {
        let mut scenario = example(49);
        let socket = scenario.socket(
            TcpState::BoundInactive,
            Endpoint::v4([0; 4], 40_099),
            Endpoint::v4([0; 4], 0),
        );
        scenario.push(socket, &[]);
        assert_eq!(judge(scenario).unwrap().severity, Severity::Warning);
    }

    #[test]
    fn accepted_connections_take_no_ephemeral_port() {
        let mut scenario = Scenario::default();
        scenario.sysctl("net/ipv4/ip_local_port_range", "40000 40009");
        let process = scenario.process(1, "server", 9, 99);
        scenario.listen(process, 40_005, 0, 128, 0);
        for i in 0..50 {
            let socket = scenario.socket(
                TcpState::Established,
                Endpoint::v4(HERE, 40_005),
                Endpoint::v4(THERE, 1000 + i),
            );
            scenario.push(socket, &[]);
        }
        assert_eq!(judge(scenario), None);
    }

    #[test]
    fn without_the_range_it_cannot_tell() {
        let mut scenario = example(60);
        scenario
            .snapshot
            .facts
            .sysctls
            .remove("net/ipv4/ip_local_port_range");
        let unknown = scenario.analyze(&Settings::default()).unknown;
        assert!(unknown.iter().any(|unknown| unknown.id == DETECTOR.id));
    }

    #[test]
    fn what_may_be_reused_is_not_what_takes_most() {
        let mut scenario = connections(50, TcpState::Established, LOOPBACK, LOOPBACK);
        for i in 50..100 {
            let mut socket = scenario.socket(
                TcpState::TimeWait,
                Endpoint::v4(LOOPBACK, 40_000 + i),
                Endpoint::v4(LOOPBACK, 5432),
            );
            (socket.timer, socket.timer_ms) = (Timer::TimeWait, 50_000);
            scenario.push(socket, &[]);
        }
        let finding = judge(scenario).unwrap();
        assert!(
            finding
                .title
                .ends_with("50 of 100 local ports in use (50 %), mostly ESTABLISHED"),
            "{}",
            finding.title
        );
    }

    #[test]
    fn bound_ports_alone_are_one_finding_and_not_one_for_each_destination() {
        let bind = |n: u16| {
            let mut scenario = example(1);
            for i in 1..=n {
                let socket = scenario.socket(
                    TcpState::BoundInactive,
                    Endpoint::v4([0; 4], 40_000 + i),
                    Endpoint::v4([0; 4], 0),
                );
                scenario.push(socket, &[]);
            }
            scenario.judge(DETECTOR.id).findings
        };
        let found = bind(90);
        let [finding] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(
            (finding.variant, finding.severity),
            (Some("bound-inactive"), Severity::Critical)
        );
        let found = bind(49);
        assert_eq!(found[0].variant, None, "with the connection they are half");
        assert!(bind(48).is_empty());
    }
}
