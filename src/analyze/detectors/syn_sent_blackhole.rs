//! Connections that nobody answers.

use std::collections::{BTreeMap, BTreeSet};

use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::knowledge::lifetimes;
use crate::model::{
    Actor, Endpoint, Evidence, Finding, Process, Severity, Subject, TcpState, Timer,
};

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
    ],
    needs: Needs {
        tcp_info: true,
        drops: false,
        owners: true,
        deltas: false,
    },
    check,
    example: Example {
        of: "unanswered attempts",
        limit: 3,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let mut destinations: BTreeMap<Endpoint, Vec<(u64, u32)>> = BTreeMap::new();
    let mut undated = 0;
    for row in &context.tally.syn_sent {
        let Some(socket) = snapshot.socket(*row) else {
            continue;
        };
        match context.age_ms(*row).or_else(|| unaided(socket.retransmits)) {
            Some(age) => destinations
                .entry(socket.remote)
                .or_default()
                .push((age, *row)),
            None => undated += 1,
        }
    }
    let mut findings: Vec<Finding> = destinations
        .into_iter()
        .filter_map(|(remote, attempts)| lasting(context, limits, remote, attempts))
        .collect();
    let lasting: BTreeSet<Endpoint> = findings.iter().filter_map(remote).collect();
    findings.extend(short_time_outs(context, &lasting));
    if findings.is_empty() && undated >= limits.get("warn") as u64 {
        return Verdict::CannotTell(format!(
            "{} in SYN-SENT whose age is not known",
            words::count(undated, "socket")
        ));
    }
    findings.sort_by(|a, b| {
        b.severity
            .cmp(&a.severity)
            .then(b.rows.len().cmp(&a.rows.len()))
    });
    Verdict::of(findings)
}

fn remote(finding: &Finding) -> Option<Endpoint> {
    match finding.subject {
        Subject::Destination {
            address: std::net::IpAddr::V4(ip),
            port,
            ..
        } => Some(Endpoint::v4(ip.octets(), port)),
        Subject::Destination {
            address: std::net::IpAddr::V6(ip),
            port,
            ..
        } => Some(Endpoint::v6(ip.octets(), port)),
        _ => None,
    }
}

/// Without `tcp_info` the retries alone: each took a second or more.
fn unaided(retries: u8) -> Option<u64> {
    Some(u64::from(retries) * 1000)
}

fn lasting(
    context: &Context<'_>,
    limits: &Limits,
    remote: Endpoint,
    mut attempts: Vec<(u64, u32)>,
) -> Option<Finding> {
    attempts.sort_unstable_by(|a, b| b.cmp(a));
    let older = |ms: u64| attempts.iter().filter(|(age, _)| *age >= ms).count() as u64;
    let stuck = older(limits.ms("age"));
    if (stuck as f64) < limits.get("warn") {
        return None;
    }
    let counts = context.tally.to(remote);
    let total = u64::from(counts.total());
    let answered = counts.of(TcpState::Established) > 0
        || context
            .history
            .earlier()
            .iter()
            .any(|sample| sample.established.binary_search(&remote).is_ok());
    let long = older(limits.ms("critical-age"));
    let most = words::percent(stuck, total) as f64 >= limits.get("critical-share") && stuck >= 5;
    let severity = if answered && long as f64 >= limits.get("critical") && most {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let rows: Vec<u32> = attempts
        .iter()
        .take(usize::try_from(stuck).unwrap_or(usize::MAX))
        .map(|(_, row)| *row)
        .collect();
    let (oldest, _) = *attempts.first()?;
    let owner = most_frequent(context, &rows);
    let who = owner
        .map(|owner| format!("{} ", words::process(owner)))
        .unwrap_or_default();
    let destination = words::endpoint(&remote);
    let mut evidence = vec![
        Evidence::count("unanswered", stuck, "attempts", "idiag_state").limit(limits.get("warn")),
        Evidence::real(
            "oldest",
            oldest as f64 / 1000.0,
            "s",
            "tcpi_total_rto_time, idiag_retrans",
        )
        .limit(limits.get("age")),
        Evidence::count("sockets_to_it", total, "sockets", "idiag_dst, idiag_dport"),
        Evidence::count(
            "established_to_it",
            counts.of(TcpState::Established),
            "sockets",
            "idiag_state",
        ),
    ];
    let gives_up = lifetimes::syn_sent_ms(&context.snapshot.facts);
    if let Some(ms) = gives_up {
        evidence.push(Evidence::real(
            "kernel_gives_up_after",
            ms as f64 / 1000.0,
            "s",
            "net.ipv4.tcp_syn_retries",
        ));
    }
    let before = if answered {
        " It has answered other connections."
    } else {
        ""
    };
    let until = gives_up.map_or(String::new(), |ms| {
        format!(" (it gives up after {})", words::time(ms))
    });
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: format!(
            "{who}to {destination}: {} without an answer, the oldest for {}",
            words::count(stuck, "attempt"),
            words::time(oldest)
        ),
        subject: Subject::Destination {
            address: remote.ip(),
            port: remote.port,
            source_address: None,
        },
        evidence,
        explanation: format!(
            "The kernel sends SYN again and again{until} and nothing comes back. A refusal or an ICMP error would \
             have ended it at once, so this is silence: a firewall that drops, a dead host, a wrong route, or a full \
             accept queue there.{before}"
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Network,
        advice: advice(remote),
        rows: rows.into_iter().take(10).collect(),
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
        "do not lower tcp_syn_retries first: it changes every program on this machine".to_owned(),
    ]
}

fn most_frequent<'a>(context: &Context<'a>, rows: &[u32]) -> Option<&'a Process> {
    let mut holders: BTreeMap<u32, (usize, &'a Process)> = BTreeMap::new();
    for socket in rows.iter().filter_map(|row| context.snapshot.socket(*row)) {
        if let Some(owner) = context.snapshot.owner(socket) {
            holders.entry(owner.pid).or_insert((0, owner)).0 += 1;
        }
    }
    holders
        .into_values()
        .max_by_key(|(count, _)| *count)
        .map(|(_, owner)| owner)
}

/// Clients that give up within a second or two never get old. In three samples or more there is always an attempt,
/// always another socket, and never a connection.
fn short_time_outs(context: &Context<'_>, known: &BTreeSet<Endpoint>) -> Vec<Finding> {
    let earlier = context.history.earlier();
    if earlier.len() < 2 {
        return Vec::new();
    }
    let samples: Vec<_> = earlier
        .iter()
        .rev()
        .take(2)
        .chain([context.sample])
        .collect();
    let moved = |name: &str| {
        let (first, last) = (
            earlier.get(earlier.len() - 2),
            context.sample.facts.counter(name),
        );
        last.zip(first.and_then(|sample| sample.facts.counter(name)))
            .is_some_and(|(now, then)| now > then)
    };
    if !moved("TcpExt.TCPSynRetrans") && !moved("Tcp.AttemptFails") {
        return Vec::new();
    }
    let here: BTreeSet<Endpoint> = context
        .sample
        .syn_sent
        .iter()
        .map(|(_, remote)| *remote)
        .collect();
    let mut findings = Vec::new();
    for remote in here.difference(known).copied() {
        let attempts: Vec<BTreeSet<u64>> = samples
            .iter()
            .map(|sample| {
                sample
                    .syn_sent
                    .iter()
                    .filter(|(_, to)| *to == remote)
                    .map(|(cookie, _)| *cookie)
                    .collect()
            })
            .collect();
        let never = samples
            .iter()
            .all(|sample| sample.established.binary_search(&remote).is_err());
        let always = attempts.iter().all(|cookies| !cookies.is_empty());
        let all: BTreeSet<u64> = attempts.iter().flatten().copied().collect();
        let changing = all.len() == attempts.iter().map(BTreeSet::len).sum::<usize>();
        if !(never && always && changing) {
            continue;
        }
        let rows: Vec<u32> = context
            .tally
            .syn_sent
            .iter()
            .copied()
            .filter(|row| {
                context
                    .snapshot
                    .socket(*row)
                    .is_some_and(|socket| socket.remote == remote)
            })
            .take(10)
            .collect();
        let owner = most_frequent(context, &rows);
        let who = owner
            .map(|owner| format!("{} ", words::process(owner)))
            .unwrap_or_default();
        findings.push(Finding {
            id: DETECTOR.id,
            variant: Some("short-time-outs"),
            severity: Severity::Warning,
            title: format!("{who}to {}: {} attempts in {} samples, none answered", words::endpoint(&remote), all.len(), samples.len()),
            subject: Subject::Destination { address: remote.ip(), port: remote.port, source_address: None },
            evidence: vec![
                Evidence::count("attempts_seen", all.len() as u64, "sockets", "idiag_cookie"),
                Evidence::count("samples", samples.len() as u64, "samples", "two or more intervals"),
            ],
            explanation: "The program gives up on each attempt after a short time and tries again with another \
                          socket; none of them became a connection. Silence means a firewall that drops, a dead host, \
                          a wrong route, or a full accept queue there."
                .to_owned(),
            grounds: DETECTOR.grounds.to_vec(),
            who_must_act: Actor::Network,
            advice: advice(remote),
            rows,
            caused_by: None,
            one_sample: false,
        });
    }
    findings
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
        (socket.timer, socket.timer_ms, socket.retransmits) = (Timer::Retransmit, 100, 2);
        let socket = scenario.held_by(process, socket);
        scenario.push(
            socket,
            &[("retransmits", 2), ("total_rto_time_ms", age - 1000)],
        );
    }
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;

    fn severity(scenario: Scenario) -> Option<Severity> {
        scenario
            .analyze(&Settings::default())
            .findings
            .first()
            .map(|finding| finding.severity)
    }

    #[test]
    fn attempts_count_from_three_seconds_on() {
        assert_eq!(severity(attempts(30, 0, 2_999)), None);
        assert_eq!(severity(attempts(3, 0, 3_000)), Some(Severity::Warning));
        let finding = attempts(3, 0, 12_000)
            .analyze(&Settings::default())
            .findings
            .remove(0);
        assert_eq!(
            finding.title,
            "api[55] to 198.51.100.7:9092: 3 attempts without an answer, the oldest for 12 s"
        );
    }

    #[test]
    fn critical_only_for_what_has_answered_before() {
        assert_eq!(
            severity(attempts(200, 0, 60_000)),
            Some(Severity::Warning),
            "a dead target"
        );
        assert_eq!(severity(attempts(20, 1, 10_000)), Some(Severity::Critical));
        assert_eq!(severity(attempts(19, 1, 10_000)), Some(Severity::Warning));
        assert_eq!(
            severity(attempts(20, 60, 10_000)),
            Some(Severity::Warning),
            "it works for most"
        );
    }

    #[test]
    fn short_time_outs_show_over_three_samples() {
        let attempt = |scenario: &mut Scenario, port| {
            scenario.snapshot.sockets.clear();
            let socket = scenario.socket(
                TcpState::SynSent,
                Endpoint::v4(HERE, port),
                Endpoint::v4(THERE, 6379),
            );
            scenario.push(socket, &[("retransmits", 0)]);
            *scenario
                .snapshot
                .facts
                .counters
                .entry("Tcp.AttemptFails".into())
                .or_default() += 1;
        };
        let mut scenario = Scenario::default();
        attempt(&mut scenario, 1);
        scenario.remember(1);
        attempt(&mut scenario, 2);
        let two = scenario.clone();
        assert_eq!(severity(two), None, "two samples are not enough");
        scenario.remember(1);
        let mut same = scenario.clone();
        same.remember(1);
        assert_eq!(severity(same), None, "the same socket is one attempt");
        attempt(&mut scenario, 3);
        let finding = scenario.analyze(&Settings::default()).findings.remove(0);
        assert_eq!(
            (finding.variant, finding.severity),
            (Some("short-time-outs"), Severity::Warning)
        );
    }
}
