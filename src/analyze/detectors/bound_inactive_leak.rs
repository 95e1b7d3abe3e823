//! Sockets that hold a port and do nothing: bound, and neither listening nor connected.

use std::collections::{BTreeMap, BTreeSet};

use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::{Blind, Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::history::Sample;
use crate::model::{Actor, Endpoint, Evidence, Finding, Process, Severity, TcpState};

pub const DETECTOR: Detector = Detector {
    id: "bound-inactive-leak",
    aliases: &[],
    summary: "a program holds ports with sockets that neither listen nor are connected",
    signals: "per process: BOUND-INACTIVE sockets, how many of them stay from look to look, how many have a peer (their \
              connection was reset or failed after an explicit bind), and their share of ip_local_port_range.",
    explanation: "The socket is CLOSED for TCP, but the program bound it to a port and has not closed it. Until then \
                  the port is taken for other sockets on that address, and a descriptor with it. Between bind() and \
                  connect() or listen() that lasts microseconds; no timer ends it.",
    grounds: &[
        "TCP state in OS, CLOSED",
        "Linux kernel, net/ipv4/inet_diag.c: inet_diag_dump_icsk()",
    ],
    advice: &[
        "close() the socket when connect() fails, and when its connection was reset",
        "to choose only the source address, set IP_BIND_ADDRESS_NO_PORT before bind(): connect() then takes the port",
    ],
    folklore: &["a wider ip_local_port_range only gives the leak more room"],
    states: &[TcpState::BoundInactive],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "count",
            default: 100.0,
            unit: Unit::Count,
            doc: "so many of one process that stay for two looks warn; in one look they may be on their way to connect()",
        },
        Threshold {
            key: "share",
            default: 10.0,
            unit: Unit::Percent,
            doc: "of ip_local_port_range: so many ports are never between bind() and connect() at once, so one look warns",
        },
        Threshold {
            key: "critical",
            default: 90.0,
            unit: Unit::Percent,
            doc: "of ip_local_port_range: connect() and bind() without a port fail next",
        },
    ],
    blind: &[Blind {
        since: (6, 8),
        lacks: "bound-inactive sockets in sock_diag",
        effect: "such sockets are in no table, so it cannot tell",
    }],
    needs: Needs {
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "ports, of a range of 1,000",
        limit: 100,
        build: example,
    },
};

/// The bound sockets of one process, or of one uid where the process could not be seen.
#[derive(Default)]
struct Group<'a> {
    owner: Option<&'a Process>,
    uid: Option<u32>,
    rows: Vec<u32>,
    /// ports of the range that they hold
    ports: BTreeSet<u16>,
    /// that have a peer: a connection of theirs has ended or failed
    ended: u64,
    /// that the look before had, too
    lasting: u64,
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    if context.tally.bound_inactive.is_empty() {
        return unseen(context).map_or(Verdict::Quiet, Verdict::CannotTell);
    }
    let before = context
        .history
        .earlier()
        .last()
        .filter(|sample| !sample.partial);
    let range = snapshot.facts.port_range();
    let mut groups: BTreeMap<(Option<u32>, u32), Group<'_>> = BTreeMap::new();
    for row in &context.tally.bound_inactive {
        let Some(socket) = snapshot.socket(*row) else {
            continue;
        };
        let owner = words::holder(snapshot, socket);
        let pid = owner.map(|owner| owner.pid);
        let uid = if pid.is_some() { 0 } else { socket.uid };
        let group = groups.entry((pid, uid)).or_default();
        group.owner = owner;
        group.uid = socket.owner_uid();
        group.rows.push(*row);
        let port = socket.local.port;
        if range.is_some_and(|(low, high)| (low..=high).contains(&port)) {
            group.ports.insert(port);
        }
        group.ended += u64::from(socket.remote.port != 0);
        let cookie = socket.cookie.map_or(0, std::num::NonZeroU64::get);
        let lasted = before.is_some_and(|sample| sample.bound.binary_search(&cookie).is_ok());
        group.lasting += u64::from(lasted);
    }
    let findings = groups.values();
    let mut findings: Vec<Finding> = findings
        .filter_map(|group| finding(context, limits, group, before))
        .collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Verdict::of(findings)
}

/// Why there may be such sockets although none is listed.
fn unseen(context: &Context<'_>) -> Option<String> {
    let snapshot = context.snapshot;
    if !snapshot.coverage.collector.sees(TcpState::BoundInactive) {
        return Some("/proc/net does not list sockets that are only bound".to_owned());
    }
    let mut words = snapshot.host.kernel.split(['.', '-']);
    let mut number = || words.next()?.parse::<u16>().ok();
    let version = number().zip(number())?;
    let old = version < (6, 8);
    old.then(|| {
        let (major, minor) = version;
        format!("Linux {major}.{minor} lists no sockets that are only bound; 6.8 and later do")
    })
}

fn finding(
    context: &Context<'_>,
    limits: &Limits,
    group: &Group<'_>,
    before: Option<&Sample>,
) -> Option<Finding> {
    let count = group.rows.len() as u64;
    let range = context.snapshot.facts.ephemeral_ports();
    let range = range.filter(|range| *range > 0);
    let ports = group.ports.len() as u64;
    let of_range =
        |share: f64| range.is_some_and(|range| ports as f64 * 100.0 >= f64::from(range) * share);
    // What has been there for long, has no peer and takes nothing from connect() may be kept on purpose.
    let kept = group.ended == 0 && group.ports.is_empty();
    let many = |n: u64| n as f64 >= limits.get("count");
    let (severity, one_sample) = if of_range(limits.get("critical")) {
        (Severity::Critical, false)
    } else if of_range(limits.get("share")) {
        (Severity::Warning, false)
    } else if many(group.lasting) {
        let severity = if kept {
            Severity::Info
        } else {
            Severity::Warning
        };
        (severity, false)
    } else if many(count) && context.history.just_before(context.sample.taken).is_none() {
        (Severity::Info, before.is_none())
    } else {
        return None;
    };
    let mut evidence = vec![
        Evidence::count("bound_inactive_sockets", count, "sockets", "idiag_state")
            .limit(limits.get("count")),
    ];
    if before.is_some() {
        evidence.push(
            Evidence::count(
                "there_in_the_look_before",
                group.lasting,
                "sockets",
                "idiag_cookie",
            )
            .limit(limits.get("count")),
        );
    }
    evidence.push(Evidence::count(
        "with_a_peer",
        group.ended,
        "sockets",
        "idiag_dport",
    ));
    if let Some(range) = range {
        let source = "net.ipv4.ip_local_port_range";
        let limit = f64::from(range) * limits.get("share") / 100.0;
        let taken = Evidence::count("ports_of_the_range", ports, "ports", source);
        evidence.push(taken.limit(limit));
    }
    evidence.extend(words::descriptors(group.owner));
    let who = words::owner(group.owner, group.uid);
    let share = range.map_or(String::new(), |range| {
        let share = words::percent(ports, u64::from(range));
        format!(", {share} % of the port range")
    });
    let sockets = words::count(count, "socket");
    let since = before.map_or(String::new(), |sample| {
        let ago = context.snapshot.taken.duration_since(sample.taken);
        let ms = u64::try_from(ago.as_millis()).unwrap_or(0);
        format!(
            ", {} for over {}",
            words::thousands(group.lasting),
            words::time(ms)
        )
    });
    let explanation = if severity == Severity::Info {
        "These sockets hold a port and are neither listening nor connected. They may be on their way to connect(), or \
         be kept to reserve their ports. If they grow in number, they are not closed."
    } else {
        "These sockets hold a port and are neither listening nor connected. On that address the port is taken for \
         other sockets until the program closes them or exits. No timer does it for them."
    };
    let first = group.owner.map_or_else(
        || "linger list -B -p    # which ports, whose".to_owned(),
        |owner| {
            format!(
                "linger pid:{}    # which ports, which other sockets",
                owner.pid
            )
        },
    );
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            format!("{who}: {sockets} bound to a port, neither listening nor connected{share}{since}"),
            format!("{who}: {sockets} bound, neither listening nor connected{share}"),
            format!("{who}: {sockets} bound and not in use{share}"),
        ]),
        subject: words::process_subject(group.owner, group.uid),
        evidence,
        explanation: explanation.to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            first,
            "close() after a failed or reset connection; IP_BIND_ADDRESS_NO_PORT to choose only the source address"
                .to_owned(),
            "do not: widen ip_local_port_range; the leak takes that, too".to_owned(),
        ],
        rows: group.rows.iter().copied().take(10).collect(),
        caused_by: None,
        one_sample,
    })
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.sysctl("net/ipv4/ip_local_port_range", "40000\t40999");
    bind(&mut scenario, n, 40_000, 0);
    scenario
}

/// Binds `n` sockets of one process to ports from `first` on, the first `ended` of which had a connection.
fn bind(scenario: &mut Scenario, n: u32, first: u16, ended: u32) {
    let process = scenario.process(7, "java", 200, 65_536);
    for (i, port) in (0..n).zip(first..) {
        let remote = if i < ended {
            Endpoint::v4(THERE, 443)
        } else {
            Endpoint::v4([0; 4], 0)
        };
        let local = Endpoint::v4(HERE, port);
        let socket = scenario.socket(TcpState::BoundInactive, local, remote);
        let socket = scenario.held_by(process, socket);
        scenario.push(socket, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Analysis, Collector};

    fn judged(scenario: Scenario) -> Analysis {
        scenario.judge(DETECTOR.id)
    }

    fn severity(scenario: Scenario) -> Option<Severity> {
        let findings = judged(scenario).findings;
        findings.iter().map(|finding| finding.severity).max()
    }

    /// So many outside the range that connect() chooses from, so many of them in the look before.
    fn outside(n: u32, lasting: Option<u32>, ended: u32) -> Scenario {
        apart(5, n, lasting, ended)
    }

    /// The same with so many seconds between the looks.
    fn apart(seconds: i64, n: u32, lasting: Option<u32>, ended: u32) -> Scenario {
        let mut scenario = Scenario::default();
        bind(&mut scenario, n, 10_000, ended);
        if let Some(lasting) = lasting {
            let later = scenario.snapshot.sockets.clone();
            scenario.snapshot.sockets.truncate(lasting as usize);
            scenario.remember(seconds);
            scenario.snapshot.sockets = later;
        }
        scenario
    }

    #[test]
    fn a_share_of_the_range_is_its_own_proof() {
        assert_eq!(severity(example(99)), None);
        assert_eq!(severity(example(100)), Some(Severity::Warning));
        assert_eq!(severity(example(899)), Some(Severity::Warning));
        assert_eq!(severity(example(900)), Some(Severity::Critical));
    }

    #[test]
    fn a_number_needs_a_second_look() {
        assert_eq!(severity(outside(99, None, 99)), None);
        let once = judged(outside(100, None, 100));
        assert_eq!(once.findings[0].severity, Severity::Info);
        assert!(once.findings[0].one_sample);
        assert_eq!(
            severity(outside(100, Some(100), 100)),
            Some(Severity::Warning)
        );
        assert_eq!(
            severity(outside(100, Some(99), 100)),
            None,
            "they come and go"
        );
        let since = |lasting| severity(apart(300, 100, Some(lasting), 100));
        assert_eq!(since(100), Some(Severity::Warning));
        assert_eq!(
            since(99),
            Some(Severity::Info),
            "they may have come minutes ago, and stay"
        );
    }

    #[test]
    fn ports_kept_on_purpose_are_info() {
        assert_eq!(severity(outside(150, Some(150), 0)), Some(Severity::Info));
        assert_eq!(
            severity(outside(150, Some(150), 1)),
            Some(Severity::Warning)
        );
    }

    #[test]
    fn what_no_table_lists_is_not_quiet() {
        let mut scenario = Scenario::default();
        scenario.snapshot.coverage.collector = Collector::Procfs;
        assert_eq!(judged(scenario).unknown.len(), 1);
        for (kernel, unknown) in [
            ("5.15.0-91-generic", 1),
            ("6.7.12", 1),
            ("6.8.0", 0),
            ("6.18.44+", 0),
            ("", 0),
        ] {
            let mut scenario = Scenario::default();
            scenario.snapshot.host.kernel = kernel.to_owned();
            assert_eq!(judged(scenario).unknown.len(), unknown, "{kernel}");
        }
    }

    #[test]
    fn without_a_process_the_uid_is_named() {
        let mut scenario = Scenario::default();
        scenario.sysctl("net/ipv4/ip_local_port_range", "40000\t40999");
        for port in 40_000..40_100 {
            let local = Endpoint::v4(HERE, port);
            let mut socket =
                scenario.socket(TcpState::BoundInactive, local, Endpoint::v4([0; 4], 0));
            socket.inode = u32::from(port);
            scenario.push(socket, &[]);
        }
        let finding = &judged(scenario).findings[0];
        assert!(finding.title.contains("1000"), "{}", finding.title);
    }
}
