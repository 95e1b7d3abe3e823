//! Connections that nobody answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::analyze::neighbours::Neighbours;
use crate::analyze::prefix::Prefix;
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, group, words};
use crate::history::Counts;
use crate::knowledge::lifetimes;
use crate::model::{
    Actor, Endpoint, Evidence, Finding, Process, Severity, Socket, Subject, TcpState, Timer,
};

mod short_time_outs;

pub const DETECTOR: Detector = Detector {
    id: "syn-sent-blackhole",
    aliases: &[],
    summary: "a destination does not answer connection attempts",
    signals: "SYN-SENT sockets by destination and how long they have been trying. A second form for programs with \
              short connect time-outs: in three samples always SYN-SENT to one destination, always other sockets, \
              and never a connection.",
    explanation: "This host has sent SYN and waits for the second segment of the handshake. A refusal (RST) or an \
                  ICMP error ends that at once, so what lasts is silence: a firewall that drops, a dead host, a wrong \
                  route, or a listener there whose queue is full.",
    grounds: &[
        "TCP state in OS, SYN_SENT",
        "RFC 9293 section 3.5",
        "Linux kernel, Documentation/networking/ip-sysctl.rst: tcp_syn_retries",
    ],
    advice: &[
        "`ip route get ADDRESS`, then look for a firewall on the way and at the destination's accept queue",
        "give the client a connect time-out of a few seconds",
    ],
    folklore: &["lowering tcp_syn_retries for the whole machine hits every program"],
    states: &[TcpState::SynSent],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "age",
            default: 3.0,
            unit: Unit::Seconds,
            doc: "an attempt counts from this age on: the first two SYNs went unanswered",
        },
        Threshold {
            key: "warn",
            default: 3.0,
            unit: Unit::Count,
            doc: "so many unanswered attempts to one destination; one dead scrape target has one or two",
        },
        Threshold {
            key: "critical",
            default: 20.0,
            unit: Unit::Count,
            doc: "so many, older than `critical-age`, to a destination that has answered before",
        },
        Threshold {
            key: "critical-age",
            default: 10.0,
            unit: Unit::Seconds,
            doc: "what is critical has outlasted a lost packet or a restart",
        },
        Threshold {
            key: "critical-share",
            default: 30.0,
            unit: Unit::Percent,
            doc: "of the sockets to that destination: below, it still works for most",
        },
        Threshold {
            key: "critical-use",
            default: 10.0,
            unit: Unit::Percent,
            doc: "of the ephemeral ports, or of the program's descriptors, older than `critical-age`: as bad as `critical`",
        },
        Threshold {
            key: "destinations",
            default: 10.0,
            unit: Unit::Count,
            doc: "so many dead destinations with an attempt or two each are told together; a warning from `critical-share` of all that are dialled",
        },
        Threshold {
            key: "short",
            default: 0.25,
            unit: Unit::Seconds,
            doc: "in the second form the oldest attempt has waited for so long: longer than a usual round trip",
        },
    ],
    blind: &[],
    needs: Needs {
        tcp_info: true,
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "unanswered attempts",
        limit: 3,
        build: example,
    },
};

/// A destination with attempts that have lasted.
struct Dead<'a> {
    remote: Endpoint,
    /// their rows, the oldest first
    rows: Vec<u32>,
    oldest: u64,
    counts: Counts,
    /// whether it has answered others, now or before
    answered: bool,
    severity: Severity,
    owner: Option<&'a Process>,
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let mut attempts: BTreeMap<Endpoint, Vec<(u64, u32)>> = BTreeMap::new();
    for row in &context.tally.syn_sent {
        if let (Some(socket), Some(age)) = (snapshot.socket(*row), context.age_ms(*row)) {
            attempts.entry(socket.remote).or_default().push((age, *row));
        }
    }
    if attempts.is_empty() {
        return Verdict::Quiet;
    }
    let mut destinations: HashMap<Endpoint, Counts> = HashMap::new();
    for (dial, counts) in context.tally.dialled() {
        if attempts.contains_key(&dial.remote) {
            destinations.entry(dial.remote).or_default().merge(counts);
        }
    }
    let counts = |remote| destinations.get(&remote).copied().unwrap_or_default();
    let mut dead = Vec::new();
    let mut young: BTreeMap<Endpoint, Vec<u32>> = BTreeMap::new();
    for (remote, attempts) in attempts {
        let rows = attempts.iter().take(10).map(|(_, row)| *row).collect();
        let lasting = lasting(context, limits, remote, attempts, counts(remote));
        if lasting.as_ref().is_none_or(|dead| is_few(dead, limits)) {
            young.insert(remote, rows);
        }
        dead.extend(lasting);
    }
    // Whoever closes, an answered connection leaves something behind; only attempts means none was answered.
    young.retain(|remote, _| {
        let counts = counts(*remote);
        counts.total() == counts.of(TcpState::SynSent)
    });
    // One that has just been sent may be answered yet, however often the looks happen to meet such a one.
    let waited = limits.ms("short");
    young.retain(|_, rows| {
        rows.iter()
            .any(|row| context.age_ms(*row).is_some_and(|ms| ms >= waited))
    });
    let mut findings = tell(context, limits, dead);
    findings.extend(short_time_outs::find(context, &young));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.rows.len()));
    Verdict::of(group::capped(findings))
}

/// Whether it is below what counts for one destination alone.
fn is_few(dead: &Dead<'_>, limits: &Limits) -> bool {
    (dead.rows.len() as f64) < limits.get("warn")
}

/// A finding for each destination, but one for all of a program that has many: a route that is gone is one problem.
fn tell(context: &Context<'_>, limits: &Limits, dead: Vec<Dead<'_>>) -> Vec<Finding> {
    if dead.is_empty() {
        return Vec::new();
    }
    let neighbours = Neighbours::new(context);
    let all = dead.iter().filter(|dead| !dead.answered).count();
    let mut findings = Vec::new();
    let mut owners: BTreeMap<Option<u32>, Vec<Dead<'_>>> = BTreeMap::new();
    for dead in dead {
        // What is large or has answered before has a line of its own.
        let large = dead.rows.len() as f64 >= limits.get("critical");
        if large || dead.answered && !is_few(&dead, limits) {
            findings.push(alone(context, limits, &neighbours, dead));
        } else if !dead.answered {
            let owner = dead.owner.map(|owner| owner.pid);
            owners.entry(owner).or_default().push(dead);
        }
    }
    for (_, group) in owners {
        let (few, several): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|dead| is_few(dead, limits));
        if several.len() > 3 {
            let group = several.into_iter().chain(few).collect();
            findings.extend(together(context, limits, group, Severity::Warning));
            continue;
        }
        findings.extend(
            several
                .into_iter()
                .map(|dead| alone(context, limits, &neighbours, dead)),
        );
        if few.len() as f64 >= limits.get("destinations") {
            // Some of many targets are always down.
            let most = words::percent(all as u64, (all + neighbours.alive()) as u64) as f64
                >= limits.get("critical-share");
            let severity = if most {
                Severity::Warning
            } else {
                Severity::Info
            };
            findings.extend(together(context, limits, few, severity));
        }
    }
    findings
}

fn lasting<'a>(
    context: &Context<'a>,
    limits: &Limits,
    remote: Endpoint,
    mut attempts: Vec<(u64, u32)>,
    counts: Counts,
) -> Option<Dead<'a>> {
    attempts.sort_unstable_by(|a, b| b.cmp(a));
    let (oldest, _) = *attempts.first()?;
    let older = |ms: u64| attempts.iter().filter(|(age, _)| *age >= ms).count();
    let rows: Vec<u32> = attempts
        .iter()
        .take(older(limits.ms("age")))
        .map(|(_, row)| *row)
        .collect();
    if rows.is_empty() {
        return None;
    }
    let answered = counts.of(TcpState::Established) > 0
        || context
            .history
            .earlier()
            .iter()
            .any(|sample| sample.established.binary_search(&remote).is_ok());
    let owner = most_frequent(context, &rows);
    let (stuck, long) = (rows.len() as u64, older(limits.ms("critical-age")) as f64);
    let uses_up = |of: Option<u64>| {
        of.is_some_and(|of| long * 100.0 > of as f64 * limits.get("critical-use"))
    };
    let many = long >= limits.get("critical")
        || uses_up(context.snapshot.facts.ephemeral_ports().map(u64::from))
        || uses_up(owner.and_then(|owner| owner.nofile));
    let share = words::percent(stuck, u64::from(counts.total())) as f64;
    let most = share >= limits.get("critical-share") && stuck >= 5;
    Some(Dead {
        remote,
        rows,
        oldest,
        counts,
        answered,
        severity: if answered && many && most {
            Severity::Critical
        } else {
            Severity::Warning
        },
        owner,
    })
}

fn alone(
    context: &Context<'_>,
    limits: &Limits,
    neighbours: &Neighbours,
    dead: Dead<'_>,
) -> Finding {
    let (remote, counts) = (dead.remote, dead.counts);
    let facts = &context.snapshot.facts;
    let stuck = dead.rows.len() as u64;
    let who = dead
        .owner
        .map(|owner| format!("{} ", words::process(owner)))
        .unwrap_or_default();
    let (destination, brief) = (words::endpoint(&remote), words::brief(&remote));
    let (tried, age) = (words::count(stuck, "attempt"), words::time(dead.oldest));
    let mut evidence = vec![
        Evidence::count("unanswered", stuck, "attempts", "idiag_state").limit(limits.get("warn")),
        Evidence::real(
            "oldest",
            dead.oldest as f64 / 1000.0,
            "s",
            "tcpi_total_rto_time, idiag_retrans",
        )
        .limit(limits.get("age")),
        Evidence::count(
            "sockets_to_it",
            counts.total(),
            "sockets",
            "idiag_dst, idiag_dport",
        ),
        Evidence::count(
            "established_to_it",
            counts.of(TcpState::Established),
            "sockets",
            "idiag_state",
        ),
    ];
    let next = neighbours.of(&remote);
    evidence.extend(next.evidence());
    if let Some(ports) = facts.ephemeral_ports() {
        evidence.push(
            Evidence::count(
                "share_of_ports",
                words::percent(stuck, ports.into()),
                "%",
                "net.ipv4.ip_local_port_range",
            )
            .limit(limits.get("critical-use")),
        );
    }
    evidence.extend(words::descriptors(dead.owner));
    let gives_up = lifetimes::syn_sent_ms(facts);
    if let Some(ms) = gives_up {
        evidence.push(Evidence::real(
            "kernel_gives_up_after",
            ms as f64 / 1000.0,
            "s",
            "net.ipv4.tcp_syn_retries",
        ));
    }
    let last = if dead.answered {
        " It has answered other connections.".to_owned()
    } else {
        next.sentence()
    };
    let causes = if next.ports > 0 && !dead.answered {
        "a firewall that drops this port, or a full accept queue there"
    } else if next.hosts > 0 && !dead.answered {
        "a firewall that drops, a dead host, or a full accept queue there"
    } else {
        "a firewall that drops, a dead host, a wrong route, or a full accept queue there"
    };
    let until = gives_up.map_or(String::new(), |ms| {
        format!(" (it gives up after {})", words::time(ms))
    });
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity: dead.severity,
        title: words::fit([
            format!("{who}to {destination}: {tried} without an answer, the oldest for {age}"),
            format!("{who}to {brief}: {tried} without an answer, {age}"),
            format!("to {destination}: {tried} without an answer, {age}"),
            format!("to {brief}: {tried} without an answer, {age}"),
        ]),
        subject: Subject::Destination {
            address: remote.ip(),
            port: remote.port,
            source_address: None,
        },
        evidence,
        explanation: format!(
            "The kernel sends SYN again and again{until} and nothing comes back. A refusal or an ICMP error would \
             have ended it at once, so this is silence: {causes}.{last}"
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Network,
        advice: advice(remote),
        rows: dead.rows.into_iter().take(10).collect(),
        caused_by: None,
        one_sample: false,
    }
}

/// Many destinations of one program that do not answer.
fn together(
    context: &Context<'_>,
    limits: &Limits,
    group: Vec<Dead<'_>>,
    severity: Severity,
) -> Option<Finding> {
    let first = group.iter().max_by_key(|dead| dead.oldest)?;
    let (owner, oldest, remote) = (first.owner, first.oldest, first.remote);
    let uid = first
        .rows
        .first()
        .and_then(|row| context.snapshot.socket(*row))
        .and_then(Socket::owner_uid);
    let tried: usize = group.iter().map(|dead| dead.rows.len()).sum();
    let networks: BTreeSet<Prefix> = group.iter().map(|dead| Prefix::of(&dead.remote)).collect();
    let who = match (owner, uid) {
        (Some(owner), _) => words::process(owner),
        (None, Some(uid)) => format!("a program of uid {uid}"),
        (None, None) => "an unseen program".to_owned(),
    };
    let (n, places) = (
        words::count(tried as u64, "attempt"),
        words::count(group.len() as u64, "destination"),
    );
    let age = words::time(oldest);
    let from = match networks.first() {
        Some(network) if networks.len() == 1 => format!("All of them are in {}", network.words()),
        _ => format!(
            "They are in {}",
            words::count(networks.len() as u64, "network")
        ),
    };
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            format!("{who}: {n} to {places} without an answer, the oldest for {age}"),
            format!("{who}: {n} to {places} without an answer"),
        ]),
        subject: words::process_subject(owner, uid),
        evidence: vec![
            Evidence::count("unanswered", tried as u64, "attempts", "idiag_state"),
            Evidence::count(
                "destinations",
                group.len() as u64,
                "destinations",
                "idiag_dst, idiag_dport",
            )
            .limit(limits.get("destinations")),
            Evidence::count("networks", networks.len() as u64, "networks", "idiag_dst"),
            Evidence::real(
                "oldest",
                oldest as f64 / 1000.0,
                "s",
                "tcpi_total_rto_time, idiag_retrans",
            )
            .limit(limits.get("age")),
        ],
        explanation: format!(
            "Many destinations of one program answer nothing: no connection, no refusal, no ICMP error. {from}. A way \
             out that is gone, a firewall that drops, and a list of hosts that are long dead look like this."
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Network,
        advice: advice(remote),
        rows: group
            .iter()
            .filter_map(|dead| dead.rows.first().copied())
            .take(10)
            .collect(),
        caused_by: None,
        one_sample: false,
    })
}

fn advice(remote: Endpoint) -> Vec<String> {
    vec![
        format!(
            "ip route get {}    # then: a firewall on the way? does the host live? is its queue full?",
            remote.ip()
        ),
        "give the client a connect time-out of a few seconds, so that callers fail fast".to_owned(),
        "do not: lower tcp_syn_retries first; it changes every program on this machine".to_owned(),
    ]
}

fn most_frequent<'a>(context: &Context<'a>, rows: &[u32]) -> Option<&'a Process> {
    let mut holders: BTreeMap<u32, (usize, &'a Process)> = BTreeMap::new();
    for socket in rows.iter().filter_map(|row| context.snapshot.socket(*row)) {
        if let Some(owner) = words::holder(context.snapshot, socket) {
            holders.entry(owner.pid).or_insert((0, owner)).0 += 1;
        }
    }
    holders
        .into_values()
        .max_by_key(|(count, _)| *count)
        .map(|(_, owner)| owner)
}

fn example(n: u32) -> Scenario {
    attempts(n, 0, 3_000)
}

/// `n` attempts of an age, beside `answered` connections to the same destination.
fn attempts(n: u32, answered: u32, age: u64) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(55, "api", 30, 1024);
    for i in 0..n + answered {
        let state = if i < n {
            TcpState::SynSent
        } else {
            TcpState::Established
        };
        let mut socket = scenario.socket(
            state,
            Endpoint::v4(HERE, 40_000 + i as u16),
            Endpoint::v4(THERE, 9092),
        );
        (socket.timer, socket.timer_ms, socket.retransmits) = (Timer::Retransmit, 0, 2);
        let socket = scenario.held_by(process, socket);
        scenario.push(
            socket,
            &[("retransmits", 2), ("total_rto_time_ms", age - 1000)],
        );
    }
    scenario
}

#[cfg(test)]
mod tests;
