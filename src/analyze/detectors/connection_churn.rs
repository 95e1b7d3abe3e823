//! Many short connections: what they cost now, and what they will have used up in a minute.

use crate::analyze::group;
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::waiting::{self, Closes, Table};
use crate::analyze::{
    Context, Detector, Limits, Moved, Needs, ONE_LOOK, Threshold, Unit, Verdict, words,
};
use crate::history::{Counts, Dial};
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, Subject, TcpState, Timer};

/// Connections begun by this side, and by others.
const OPENS: [&str; 2] = ["Tcp.ActiveOpens", "Tcp.PassiveOpens"];

pub const DETECTOR: Detector = Detector {
    id: "connection-churn",
    aliases: &[],
    summary: "connections are opened and closed at a high rate",
    signals: "ActiveOpens and PassiveOpens per second against the number of established connections, which gives \
              their mean life; and the closes of the last minute that TIME-WAIT tells, by destination. A rate that has \
              lasted, times 60 s, is what TIME-WAIT will hold: held against the local ports to one destination, and \
              against tcp_max_tw_buckets.",
    explanation: "Every connection costs the segments of its handshake and its close, and 60 s of TIME-WAIT where it was \
                  closed first. That is no fault; but at R closes per second R x 60 TIME-WAITs stand at any time, and \
                  each keeps a local port for its destination.",
    grounds: &[
        "TCP state in OS, TIME_WAIT",
        "RFC 9293 section 3.5",
        "RFC 9293 section 3.6",
        "Linux kernel, include/net/tcp.h: TCP_TIMEWAIT_LEN",
    ],
    advice: &[
        "keep connections and use them again: HTTP keep-alive, pools, multiplexing",
        "or let the other side close first: then TIME-WAIT, and the port, are there",
    ],
    folklore: &[
        "tcp_fin_timeout does not shorten TIME-WAIT, and tcp_tw_recycle does not exist any more",
    ],
    states: &[TcpState::Established, TcpState::TimeWait],
    worst: Severity::Warning,
    thresholds: &[
        Threshold {
            key: "rate",
            default: 100.0,
            unit: Unit::PerSecond,
            doc: "connections opened per second that are worth knowing, if they do not live for `life`",
        },
        Threshold {
            key: "life",
            default: 5.0,
            unit: Unit::Seconds,
            doc: "mean life of a connection, established ones by opens per second: above, it is simply a large service",
        },
        Threshold {
            key: "ports",
            default: 50.0,
            unit: Unit::Percent,
            doc: "of the local ports to one destination that TIME-WAIT will hold: ephemeral-port-exhaustion warns there",
        },
        Threshold {
            key: "table",
            default: 60.0,
            unit: Unit::Percent,
            doc: "of tcp_max_tw_buckets that TIME-WAIT will hold: time-wait-flood warns there",
        },
        Threshold {
            key: "window",
            default: 30.0,
            unit: Unit::Seconds,
            doc: "for so long the rate must have lasted, in both halves of it: a burst is over before it counts (at most 60 s)",
        },
        Threshold {
            key: "min",
            default: 10.0,
            unit: Unit::Count,
            doc: "fewer sockets to come are not judged, however small the limit",
        },
    ],
    blind: &[],
    needs: Needs {
        owners: true,
        deltas: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "closes in the last minute, of 1,200 ports",
        limit: 600,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let (facts, tally) = (&context.snapshot.facts, context.tally);
    let waiting = tally.of(TcpState::TimeWait);
    let ports = facts.ephemeral_ports().filter(|ports| *ports > 0);
    let table = Table::new(context);
    let mut findings = Vec::new();
    if let Some(ports) = ports {
        findings.extend(by_destination(context, limits, ports));
    }
    if let Some(size) = table.size {
        findings.extend(of_the_table(context, limits, table, size));
    }
    if !findings.is_empty() {
        return Verdict::Found(group::capped(findings));
    }
    if waiting as f64 >= limits.get("min") && (ports.is_none() || table.size.is_none()) {
        return Verdict::CannotTell(format!(
            "{} in TIME-WAIT, but ip_local_port_range or tcp_max_tw_buckets could not be read",
            words::count(waiting, "socket")
        ));
    }
    match context.moved(&OPENS) {
        Moved::By(opened) => {
            Verdict::of(short_lives(context, limits, opened).into_iter().collect())
        }
        Moved::OneLook => Verdict::CannotTell(ONE_LOOK.to_owned()),
        Moved::NotCounted if tally.of(TcpState::Established) + waiting == 0 => Verdict::Quiet,
        Moved::NotCounted => {
            Verdict::CannotTell("ActiveOpens and PassiveOpens could not be read".to_owned())
        }
    }
}

/// Destinations to which TIME-WAIT will take the ports. One pass over the table, and that only if there are any.
fn by_destination(context: &Context<'_>, limits: &Limits, ports: u32) -> Vec<Finding> {
    let enough = |rate: f64| {
        rate * waiting::SECONDS >= limits.get("min")
            && rate * waiting::SECONDS * 100.0 >= f64::from(ports) * limits.get("ports")
    };
    let window = limits.get("window").clamp(2.0, waiting::SECONDS);
    // What a new connection may take over at once does not use ports up.
    let kept = |counts: &Counts| {
        let waiting = counts.of(TcpState::TimeWait).min(counts.ephemeral);
        waiting.saturating_sub(counts.reusable)
    };
    let candidates = context
        .tally
        .dialled()
        .filter(|(_, counts)| enough(f64::from(kept(counts)) / window))
        .filter(|(_, counts)| counts.reusable * 2 < counts.of(TcpState::TimeWait))
        .map(|(dial, _)| *dial);
    let mut busy: Vec<(Dial, Closes<'_>, f64)> = waiting::closes(context, candidates)
        .into_iter()
        .map(|(dial, busy)| {
            let rate = waiting::lasting(&busy.by_second, limits.get("window"));
            (dial, busy, rate)
        })
        .filter(|(_, _, rate)| enough(*rate))
        .collect();
    busy.sort_by(|(a, _, x), (b, _, y)| y.total_cmp(x).then(a.cmp(b)));
    busy.into_iter()
        .map(|(dial, busy, rate)| destination(context, limits, ports, &dial, &busy, rate))
        .collect()
}

fn destination(
    context: &Context<'_>,
    limits: &Limits,
    ports: u32,
    dial: &Dial,
    busy: &Closes<'_>,
    rate: f64,
) -> Finding {
    let taken = context
        .tally
        .dialled()
        .find(|(other, _)| *other == dial)
        .map_or(0, |(_, counts)| {
            u64::from(counts.ephemeral.saturating_sub(counts.reusable))
        });
    let mut evidence = rates(rate, &busy.by_second);
    evidence.push(
        Evidence::count(
            "ports_in_time_wait_to_come",
            (rate * waiting::SECONDS) as i64,
            "ports",
            "idiag_expires",
        )
        .limit(f64::from(ports) * limits.get("ports") / 100.0),
    );
    evidence.push(Evidence::count(
        "ports_in_use",
        taken,
        "ports",
        "idiag_sport",
    ));
    evidence.push(Evidence::count(
        "ports_in_the_range",
        ports,
        "ports",
        "net.ipv4.ip_local_port_range",
    ));
    let left = waiting::seconds_left(&busy.by_second, rate, taken, u64::from(ports));
    if let Some(left) = left {
        evidence.push(Evidence::real(
            "ports_run_out_in",
            left,
            "s",
            "idiag_expires",
        ));
    }
    let who = busy
        .holder()
        .map(|holder| format!("{} ", words::process(holder)))
        .unwrap_or_default();
    let (long, brief) = (words::endpoint(&dial.remote), words::brief(&dial.remote));
    let share = words::percent((rate * waiting::SECONDS) as u64, u64::from(ports));
    let tail = left.map_or(String::new(), |left| {
        format!(", none left in {}", words::time((left * 1000.0) as u64))
    });
    let what = format!("{rate:.0} closes/s will hold {share} % of the ports{tail}");
    Finding {
        id: DETECTOR.id,
        variant: Some("ports"),
        severity: Severity::Warning,
        title: words::fit([
            format!("{who}to {long}: {what}"),
            format!("{who}to {brief}: {what}"),
            format!("to {brief}: {what}"),
            format!("to {brief}: {rate:.0} closes/s, {share} % of the ports"),
        ]),
        subject: Subject::Destination {
            address: dial.remote.ip(),
            port: dial.remote.port,
            source_address: None,
        },
        evidence,
        explanation: format!(
            "This host opens connections to one destination and closes them first, at a rate that has lasted. Each \
             keeps its local port for 60 s in TIME-WAIT, so {} of {} ports will be taken at any time. Above half of \
             them connect() gets slower, and with none left it fails with EADDRNOTAVAIL.",
            words::thousands((rate * waiting::SECONDS) as u64),
            words::thousands(ports)
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            format!("linger {}    # who dials it, and how many stay", dial.remote.ip()),
            "use connections again: keep-alive, a pool, multiplexing; or let the other side close first"
                .to_owned(),
            "do not: count on tcp_fin_timeout; it does not shorten TIME-WAIT".to_owned(),
        ],
        rows: busy.rows.clone(),
        caused_by: None,
        one_sample: false,
    }
}

fn rates(rate: f64, closes: &[u32]) -> Vec<Evidence> {
    vec![
        Evidence::real("closes_that_last", rate, "1/s", "idiag_expires"),
        Evidence::series(
            "closes_by_second",
            closes.to_vec(),
            "sockets",
            "idiag_expires",
        ),
    ]
}

/// TIME-WAIT will fill the table.
fn of_the_table(
    context: &Context<'_>,
    limits: &Limits,
    table: Table,
    size: u64,
) -> Option<Finding> {
    let closes = &context.tally.closes;
    let rate = waiting::lasting(closes, limits.get("window"));
    let to_come = rate * waiting::SECONDS;
    if to_come < limits.get("min") || to_come * 100.0 < size as f64 * limits.get("table") {
        return None;
    }
    let mut evidence = rates(rate, closes);
    evidence.push(
        Evidence::count(
            "time_wait_to_come",
            to_come as i64,
            "sockets",
            "idiag_expires",
        )
        .limit(size as f64 * limits.get("table") / 100.0),
    );
    evidence.push(table.evidence(limits.get("table")));
    evidence.push(Evidence::count(
        "table_size",
        size,
        "sockets",
        "net.ipv4.tcp_max_tw_buckets",
    ));
    let left = waiting::seconds_left(closes, rate, table.used, size);
    if let Some(left) = left {
        evidence.push(Evidence::real("table_full_in", left, "s", "idiag_expires"));
    }
    let share = words::percent(to_come as u64, size);
    let tail = left.map_or(String::new(), |left| {
        format!(", full in {}", words::time((left * 1000.0) as u64))
    });
    let size = words::thousands(size);
    Some(Finding {
        id: DETECTOR.id,
        variant: Some("table"),
        severity: Severity::Warning,
        title: words::fit([
            format!("{rate:.0} closes/s will hold {share} % of TIME-WAIT's table of {size}{tail}"),
            format!("{rate:.0} closes/s will hold {share} % of TIME-WAIT's table"),
        ]),
        subject: Subject::Host,
        evidence,
        explanation: format!(
            "This side closes connections first, at a rate that has lasted; each stands in TIME-WAIT for 60 s, which \
             makes {} at any time. Beyond the table's limit the kernel destroys sockets early and answers late FINs \
             with resets.",
            words::thousands(to_come as u64)
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Operator,
        advice: vec![
            "linger explain time-wait    # what it protects from, and the closes of the last minute".to_owned(),
            "use connections again: keep-alive, pools; or raise net.ipv4.tcp_max_tw_buckets, 256 bytes an entry"
                .to_owned(),
            "do not: count on tcp_fin_timeout or tcp_tw_recycle; the first has no effect, the second is gone".to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    })
}

/// Opens per second and established connections give the mean life (Little's law).
fn short_lives(context: &Context<'_>, limits: &Limits, opened: u64) -> Option<Finding> {
    let seconds = context.seconds().filter(|seconds| *seconds > 0.0)?;
    // A few in a few milliseconds are no rate: a look shorter than a second must have seen as many as a second does.
    let rate = opened as f64 / seconds.max(1.0);
    let open = context.tally.of(TcpState::Established) + context.tally.of(TcpState::CloseWait);
    let life = open as f64 / rate.max(f64::MIN_POSITIVE);
    if rate < limits.get("rate") || life >= limits.get("life") {
        return None;
    }
    let dialled = context.moved(&["Tcp.ActiveOpens"]).by();
    let mut evidence = vec![
        Evidence::real("opens", rate, "1/s", "Tcp.ActiveOpens, Tcp.PassiveOpens")
            .limit(limits.get("rate")),
        Evidence::real(
            "mean_life",
            life,
            "s",
            "idiag_state, Tcp.ActiveOpens, Tcp.PassiveOpens",
        )
        .limit(limits.get("life")),
        Evidence::count("open_now", open, "sockets", "idiag_state"),
        Evidence::real(
            "closed_first_here_at_least",
            waiting::lasting(&context.tally.closes, limits.get("window")),
            "1/s",
            "idiag_expires",
        ),
    ];
    if let Some(dialled) = dialled {
        evidence.push(Evidence::real(
            "dialled",
            dialled as f64 / seconds.max(1.0),
            "1/s",
            "Tcp.ActiveOpens",
        ));
    }
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity: Severity::Info,
        title: format!(
            "{} connections opened per second, open for {} on average, {} open now",
            words::thousands(rate.round() as u64),
            words::time((life * 1000.0) as u64),
            words::thousands(open)
        ),
        subject: Subject::Host,
        evidence,
        explanation: "Connections here are many and short; each costs the segments of a handshake and a close, and \
                      60 s of TIME-WAIT where it was closed first. That uses up neither ports nor TIME-WAIT's table at \
                      this rate."
            .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Nobody,
        advice: vec![
            "linger explain time-wait    # the closes of the last minute, by port and destination".to_owned(),
            "nothing has to be done; keep-alive and pools would save the handshakes".to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    })
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.sysctl("net/ipv4/ip_local_port_range", "10000 11199");
    for i in 0..n {
        let (local, remote) = (
            Endpoint::v4(HERE, 10_000 + i as u16),
            Endpoint::v4(THERE, 443),
        );
        let mut socket = scenario.socket(TcpState::TimeWait, local, remote);
        (socket.timer, socket.timer_ms) = (Timer::TimeWait, 1000 + (i % 60) * 1000);
        scenario.push(socket, &[]);
    }
    scenario.pulse(&[("Tcp.ActiveOpens", 10)], |_| {});
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;
    use crate::model::Analysis;

    fn alone(scenario: Scenario) -> Analysis {
        scenario.judge(DETECTOR.id)
    }

    fn first(scenario: Scenario) -> Option<Finding> {
        alone(scenario).findings.into_iter().next()
    }

    #[test]
    fn half_of_the_ports_to_come_is_a_warning() {
        let finding = first(example(600)).unwrap();
        assert_eq!(
            finding.title,
            "to 198.51.100.7:443: 10 closes/s will hold 50 % of the ports"
        );
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(first(example(540)), None);
    }

    /// `rate` closes per second for the last `seconds`.
    fn since(rate: u32, seconds: u32) -> Scenario {
        let mut scenario = example(rate * seconds);
        for (i, socket) in (0u32..).zip(&mut scenario.snapshot.sockets) {
            socket.timer_ms = 60_000 - (i % seconds) * 1000;
        }
        scenario
    }

    #[test]
    fn it_is_told_before_the_ports_are_gone_and_when_they_will_be() {
        let finding = first(since(30, 30)).unwrap();
        assert_eq!(
            finding.title,
            "to 198.51.100.7:443: 30 closes/s will hold 150 % of the ports, none left in 10 s"
        );
        let steady = first(since(15, 60)).unwrap();
        assert!(
            steady.title.ends_with("75 % of the ports"),
            "{}",
            steady.title
        );
    }

    #[test]
    fn a_burst_is_no_rate() {
        assert_eq!(first(since(40, 15)), None);
        assert_eq!(
            first(since(30, 29)).map(|f| f.severity),
            Some(Severity::Warning)
        );
    }

    #[test]
    fn ports_that_can_be_reused_are_not_used_up() {
        let mut scenario = example(1200);
        for socket in &mut scenario.snapshot.sockets {
            let loopback = Endpoint::v4([127, 0, 0, 1], 0).address;
            (socket.local.address, socket.remote.address) = (loopback, loopback);
        }
        assert_eq!(first(scenario), None);
    }

    #[test]
    fn a_table_that_will_be_full_is_a_warning_and_half_of_one_is_not() {
        let table = |max: &str| {
            let mut scenario = example(540);
            scenario.sysctl("net/ipv4/tcp_max_tw_buckets", max);
            first(scenario)
        };
        let finding = table("900").unwrap();
        assert_eq!(
            finding.title,
            "9 closes/s will hold 60 % of TIME-WAIT's table of 900"
        );
        assert_eq!(finding.subject, Subject::Host);
        assert_eq!(table("901"), None);
    }

    #[test]
    fn many_short_ones_are_info_and_long_ones_a_large_service() {
        let opened = |opens, established: u16| {
            let mut scenario = Scenario::default();
            for i in 0..established {
                let (local, remote) = (Endpoint::v4(HERE, i), Endpoint::v4(THERE, 443));
                let socket = scenario.socket(TcpState::Established, local, remote);
                scenario.push(socket, &[]);
            }
            scenario.pulse(&[("Tcp.PassiveOpens", opens)], |_| {});
            first(scenario)
        };
        let finding = opened(100, 50).unwrap();
        assert_eq!(finding.severity, Severity::Info);
        assert_eq!(
            finding.title,
            "100 connections opened per second, open for 0.5 s on average, 50 open now"
        );
        assert_eq!(opened(99, 50), None);
        assert!(opened(100, 499).is_some());
        assert_eq!(opened(100, 500), None);
    }

    #[test]
    fn a_look_of_milliseconds_is_no_second() {
        let mut scenario = Scenario::default();
        scenario.remember(0);
        let earlier = jiff::Timestamp::from_millisecond(20).unwrap();
        scenario.snapshot.taken = earlier;
        let counters = &mut scenario.snapshot.facts.counters;
        counters.insert("Tcp.ActiveOpens".to_owned(), 99);
        assert_eq!(first(scenario.clone()), None);
        let counters = &mut scenario.snapshot.facts.counters;
        counters.insert("Tcp.ActiveOpens".to_owned(), 100);
        assert!(first(scenario).is_some());
    }

    #[test]
    fn twenty_two_per_second_are_healthy() {
        let mut scenario = example(300);
        scenario.sysctl("net/ipv4/ip_local_port_range", "32768 60999");
        assert_eq!(first(scenario), None);
    }

    #[test]
    fn one_look_has_no_rate_of_opens() {
        let mut scenario = Scenario::default();
        scenario
            .snapshot
            .facts
            .counters
            .insert("Tcp.ActiveOpens".to_owned(), 7);
        assert_eq!(alone(scenario).unknown[0].reason, ONE_LOOK);
    }

    #[test]
    fn it_is_why_ports_run_out_and_the_table_fills() {
        let mut scenario = example(600);
        scenario.sysctl("net/ipv4/tcp_max_tw_buckets", "1000");
        let findings = scenario.analyze(&Settings::default()).findings;
        for id in ["ephemeral-port-exhaustion", "time-wait-flood"] {
            let finding = findings.iter().find(|f| f.id == id).unwrap();
            assert_eq!(finding.caused_by, Some(DETECTOR.id), "{id}");
        }
    }
}
