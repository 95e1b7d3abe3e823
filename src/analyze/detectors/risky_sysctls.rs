//! Settings of TCP that folklore recommends and that hurt: told, and a warning where the traffic that they hurt is seen.

use std::net::IpAddr;

use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{Context, Detector, Limits, Moved, Needs, Threshold, Unit, Verdict, words};
use crate::model::{Actor, Evidence, Finding, Severity, Subject, TcpState};

pub const DETECTOR: Detector = Detector {
    id: "risky-sysctls",
    aliases: &[],
    summary: "settings of TCP that take more than they give",
    signals: "the values of tcp_tw_recycle, tcp_timestamps, tcp_syncookies, tcp_abort_on_overflow, tcp_max_tw_buckets, \
              tcp_fin_timeout, tcp_rfc1337, tcp_tw_reuse and ip_local_port_range; and the counters of what each hurts. \
              A setting that is absent is not judged.",
    explanation: "A setting by itself hurts nobody, so it is info. It is a warning where the connections that it hurts \
                  are seen. Most of them weaken what TIME-WAIT protects from, or turn a short wait into a reset.",
    grounds: &[
        "TCP state in OS, TIME_WAIT",
        "RFC 9293 section 3.6.1",
        "RFC 7323 section 5",
        "Linux kernel, Documentation/networking/ip-sysctl.rst",
    ],
    advice: &[
        "look in /etc/sysctl.conf and /etc/sysctl.d for who set it",
        "go back to the default, and look at what the setting was to cure: linger diagnose",
    ],
    folklore: &[
        "tcp_tw_recycle was removed in Linux 4.12; no newer kernel has it",
        "tcp_fin_timeout does not shorten TIME-WAIT",
        "tcp_tw_reuse concerns outgoing connections only, and does nothing for a server",
    ],
    states: &[TcpState::TimeWait, TcpState::Listen],
    worst: Severity::Warning,
    thresholds: &[
        Threshold {
            key: "tw-buckets",
            default: 4096.0,
            unit: Unit::Count,
            doc: "a lower tcp_max_tw_buckets was set by hand: the kernel gives a machine of 2 GB 8,192",
        },
        Threshold {
            key: "hurt",
            default: 1.0,
            unit: Unit::Count,
            doc: "connections that a setting hurts between two looks: one proves that it does",
        },
        Threshold {
            key: "ports",
            default: 50.0,
            unit: Unit::Percent,
            doc: "of the port range in TIME-WAIT to one destination: with tcp_timestamps=0 none of them can be reused",
        },
    ],
    blind: &[],
    needs: Needs {
        deltas: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "connections that tcp_abort_on_overflow has reset",
        limit: 1,
        build: example,
    },
};

/// A setting that is not as it should be.
struct Risk {
    name: &'static str,
    value: String,
    usual: &'static str,
    why: &'static str,
    /// what is seen of it: how many connections
    hurts: Option<u64>,
    /// whether a second look might show more
    open: bool,
}

const NAMES: [&str; 8] = [
    "tcp_tw_recycle",
    "tcp_timestamps",
    "tcp_syncookies",
    "tcp_abort_on_overflow",
    "tcp_max_tw_buckets",
    "tcp_fin_timeout",
    "tcp_rfc1337",
    "tcp_tw_reuse",
];

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let facts = &context.snapshot.facts;
    let known = NAMES
        .iter()
        .any(|name| facts.sysctl(&format!("net/ipv4/{name}")).is_some());
    if !known {
        return Verdict::CannotTell("no setting of TCP could be read".to_owned());
    }
    let mut risks: Vec<Risk> = NAMES
        .iter()
        .filter_map(|name| {
            let value = facts.sysctl(&format!("net/ipv4/{name}"))?;
            risk(context, limits, name, value)
        })
        .collect();
    risks.extend(overlap(context));
    if risks.is_empty() {
        return Verdict::Quiet;
    }
    risks.sort_by_key(|risk| risk.hurts.is_none());
    Verdict::Found(vec![finding(context, &risks)])
}

fn risk(context: &Context<'_>, limits: &Limits, name: &'static str, value: i64) -> Option<Risk> {
    // Which values are risky, the usual one, why, and the counters of what it hurts.
    let (is_risky, usual, why, counters): (bool, _, _, &[&str]) = match name {
        "tcp_tw_recycle" => (
            value != 0,
            "0",
            "drops connections of clients that share an address (NAT)",
            &["TcpExt.PAWSPassive"],
        ),
        "tcp_timestamps" => (
            value == 0,
            "1",
            "leaves no protection from old segments, and TIME-WAIT ports cannot be reused",
            &[],
        ),
        "tcp_syncookies" => (
            value == 0 && listens_publicly(context),
            "1",
            "lets a flood of SYNs shut out everybody else",
            &["TcpExt.TCPReqQFullDrop"],
        ),
        "tcp_abort_on_overflow" => (
            value != 0,
            "0",
            "resets clients when the accept queue is full for a moment; without it they try again and get in",
            &["TcpExt.ListenOverflows"],
        ),
        "tcp_max_tw_buckets" => (
            value >= 0 && (value as f64) < limits.get("tw-buckets"),
            "by memory",
            "destroys TIME-WAIT early, so that late FINs are answered with resets",
            &["TcpExt.TCPTimeWaitOverflow"],
        ),
        "tcp_fin_timeout" => (
            value > 60 && value < 120,
            "60",
            "ends orphaned FIN-WAIT-2 earlier than it says: between 61 and 119 they live for 2 x (value - 60) s",
            &[],
        ),
        "tcp_rfc1337" => (
            value != 0,
            "0",
            "ignores resets in TIME-WAIT: harmless, and seldom needed with timestamps",
            &[],
        ),
        // 2, the default, is for loopback only.
        "tcp_tw_reuse" => (
            value == 1,
            "2",
            "reuses TIME-WAIT ports for outgoing connections only: safe with timestamps, of no use to a server",
            &[],
        ),
        _ => return None,
    };
    if !is_risky {
        return None;
    }
    let moved = if counters.is_empty() {
        Moved::By(0)
    } else {
        context.moved(counters)
    };
    let seen = match name {
        "tcp_timestamps" => worn_out(context, limits),
        _ => moved.by().unwrap_or(0),
    };
    Some(Risk {
        name,
        value: value.to_string(),
        usual,
        why,
        hurts: (seen > 0 && seen as f64 >= limits.get("hurt")).then_some(seen),
        open: moved == Moved::OneLook,
    })
}

/// Whether somebody else than this host can connect to one of the listeners.
fn listens_publicly(context: &Context<'_>) -> bool {
    let listeners = context.tally.listeners.iter();
    let mut addresses = listeners.filter_map(|row| Some(context.snapshot.socket(*row)?.local_ip()));
    addresses.any(|address| match address.to_canonical() {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback(),
    })
}

/// TIME-WAIT ports towards the destination that has most of them, if they are a large part of the range.
fn worn_out(context: &Context<'_>, limits: &Limits) -> u64 {
    let Some(range) = context.snapshot.facts.ephemeral_ports() else {
        return 0;
    };
    let dialled = context.tally.dialled();
    let most = dialled
        .map(|(_, counts)| counts.of(TcpState::TimeWait))
        .max();
    most.filter(|most| f64::from(*most) * 100.0 >= f64::from(range) * limits.get("ports"))
        .map_or(0, u64::from)
}

/// A range that was widened over ports that are listened on: after a restart connect() may have taken them.
fn overlap(context: &Context<'_>) -> Option<Risk> {
    let facts = &context.snapshot.facts;
    let (low, high) = facts.port_range()?;
    // With the default range every listener in it is one that asked for any port.
    if low >= 32_768 {
        return None;
    }
    let reserved = facts.reserved_ports()?;
    let taken = |port: u16| {
        let kept = reserved
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&port));
        (low..32_768).contains(&port) && port <= high && !kept
    };
    let listeners = context.tally.listeners.iter();
    let mut ports = listeners.filter_map(|row| Some(context.snapshot.socket(*row)?.local.port));
    ports.any(taken).then(|| Risk {
        name: "ip_local_port_range",
        value: format!("{low} {high}"),
        usual: "32768 60999",
        why: "lets connect() take ports that are listened on while their program restarts: reserve them in \
              ip_local_reserved_ports",
        hurts: None,
        open: false,
    })
}

fn finding(context: &Context<'_>, risks: &[Risk]) -> Finding {
    let worst = risks.first();
    let hurts = worst.and_then(|risk| Some((risk, risk.hurts?)));
    let mut evidence: Vec<Evidence> = risks
        .iter()
        .map(|risk| {
            let text = format!("{} (usual: {}): {}", risk.value, risk.usual, risk.why);
            Evidence::text(risk.name, text, "net.ipv4 sysctl")
        })
        .collect();
    if let Some((risk, n)) = hurts {
        evidence.push(Evidence::count(
            "connections_hurt",
            n,
            "connections",
            risk.name,
        ));
    }
    let set = |risk: &Risk| format!("{}={}", risk.name, risk.value.replace(' ', "-"));
    let all: Vec<String> = risks.iter().map(set).collect();
    let number = words::count(risks.len() as u64, "unusual setting");
    let title = match (hurts, worst) {
        (Some((risk, n)), _) => {
            let n = words::count(n, "connection");
            let when = context.seconds().map_or(String::new(), |s| {
                format!(" in {}", words::time((s * 1000.0) as u64))
            });
            words::fit([
                format!("{} hurts {n}{when}; {number} in all", set(risk)),
                format!("{} hurts {n}{when}", set(risk)),
            ])
        }
        (None, worst) => words::fit([
            format!("{number} of TCP: {}", all.join(", ")),
            format!(
                "{number} of TCP, first {}",
                worst.map(set).unwrap_or_default()
            ),
            format!("{number} of TCP"),
        ]),
    };
    let explanation = match (hurts, worst) {
        (Some((risk, _)), _) => format!(
            "{} {}. This is seen here now. A default that was changed for a reason long gone is best put back.",
            risk.name, risk.why
        ),
        (None, Some(risk)) => format!(
            "{} {}. No connection that it hurts was seen. What is set by hand is worth knowing while diagnosing.",
            risk.name, risk.why
        ),
        (None, None) => String::new(),
    };
    let names: Vec<String> = risks
        .iter()
        .map(|risk| format!("net.ipv4.{}", risk.name))
        .collect();
    let back: Vec<String> = risks
        .iter()
        .filter(|risk| risk.usual.chars().all(|c| c.is_ascii_digit()))
        .map(|risk| format!("net.ipv4.{}={}", risk.name, risk.usual))
        .take(4)
        .collect();
    let undo = if back.is_empty() {
        "take it out of /etc/sysctl.d and restart, or set what fits this machine".to_owned()
    } else {
        format!("sysctl -w {}    # and out of /etc/sysctl.d", back.join(" "))
    };
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity: if hurts.is_some() {
            Severity::Warning
        } else {
            Severity::Info
        },
        title,
        subject: Subject::Host,
        evidence,
        explanation,
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Operator,
        advice: vec![
            format!("sysctl {}    # what is set now", names.join(" ")),
            undo,
            "do not: change it blindly on a busy machine; know first what it was to cure"
                .to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample: hurts.is_none() && risks.iter().any(|risk| risk.open),
    }
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(7, "nginx", 20, 1024);
    scenario.listen(process, 443, 0, 4096, 0);
    scenario.sysctl("net/ipv4/tcp_abort_on_overflow", "1");
    scenario.pulse(&[("TcpExt.ListenOverflows", i64::from(n))], |_| {});
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::scenario::{HERE, THERE};
    use crate::model::{Analysis, Endpoint};

    fn judged(scenario: Scenario) -> Analysis {
        scenario.judge(DETECTOR.id)
    }

    fn found(scenario: Scenario) -> Option<(Severity, String)> {
        let mut findings = judged(scenario).findings;
        findings
            .pop()
            .map(|finding| (finding.severity, finding.title))
    }

    fn listening(address: [u8; 4], port: u16) -> Scenario {
        let mut scenario = Scenario::default();
        let process = scenario.process(7, "nginx", 20, 1024);
        let row = scenario.listen(process, port, 0, 4096, 0);
        scenario.snapshot.sockets[row as usize].local = Endpoint::v4(address, port);
        scenario
    }

    #[test]
    fn each_setting_is_info_and_its_default_is_quiet() {
        for (name, risky, fine) in [
            ("tcp_tw_recycle", "1", "0"),
            ("tcp_timestamps", "0", "2"),
            ("tcp_syncookies", "0", "2"),
            ("tcp_abort_on_overflow", "1", "0"),
            ("tcp_max_tw_buckets", "4095", "4096"),
            ("tcp_fin_timeout", "61", "60"),
            ("tcp_fin_timeout", "119", "120"),
            ("tcp_fin_timeout", "90", "10"),
            ("tcp_rfc1337", "1", "0"),
            ("tcp_tw_reuse", "1", "2"),
            ("tcp_tw_reuse", "1", "0"),
        ] {
            let with = |value: &str| {
                let mut scenario = listening(HERE, 443);
                scenario.sysctl(&format!("net/ipv4/{name}"), value);
                scenario.pulse(&[], |_| {});
                found(scenario)
            };
            let (severity, title) = with(risky).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(severity, Severity::Info, "{title}");
            assert!(title.contains(&format!("{name}={risky}")), "{title}");
            assert_eq!(with(fine), None, "{name}={fine}");
        }
    }

    #[test]
    fn the_traffic_that_it_hurts_makes_it_a_warning() {
        for (name, value, counter) in [
            ("tcp_tw_recycle", "1", "TcpExt.PAWSPassive"),
            ("tcp_syncookies", "0", "TcpExt.TCPReqQFullDrop"),
            ("tcp_abort_on_overflow", "1", "TcpExt.ListenOverflows"),
            ("tcp_max_tw_buckets", "100", "TcpExt.TCPTimeWaitOverflow"),
        ] {
            for (moved, severity) in [(1, Severity::Warning), (0, Severity::Info)] {
                let mut scenario = listening(HERE, 443);
                scenario.sysctl(&format!("net/ipv4/{name}"), value);
                let counters = &mut scenario.snapshot.facts.counters;
                counters.insert(counter.to_owned(), 7);
                scenario.pulse(&[(counter, moved)], |_| {});
                let (found, title) = found(scenario).unwrap();
                assert_eq!(found, severity, "{title}");
            }
        }
    }

    #[test]
    fn a_counter_since_boot_is_one_sample() {
        let mut scenario = listening(HERE, 443);
        scenario.sysctl("net/ipv4/tcp_abort_on_overflow", "1");
        let counters = &mut scenario.snapshot.facts.counters;
        counters.insert("TcpExt.ListenOverflows".to_owned(), 7);
        let finding = judged(scenario).findings.remove(0);
        assert!(finding.one_sample && finding.severity == Severity::Info);
    }

    #[test]
    fn cookies_matter_to_public_listeners_only() {
        for (address, known) in [([127, 0, 0, 1], false), ([0; 4], true), (HERE, true)] {
            let mut scenario = listening(address, 443);
            scenario.sysctl("net/ipv4/tcp_syncookies", "0");
            assert_eq!(found(scenario).is_some(), known, "{address:?}");
        }
    }

    #[test]
    fn without_timestamps_time_wait_ports_are_used_up() {
        for (n, severity) in [(50, Severity::Warning), (49, Severity::Info)] {
            let mut scenario = Scenario::default();
            scenario.sysctl("net/ipv4/tcp_timestamps", "0");
            scenario.sysctl("net/ipv4/ip_local_port_range", "40000\t40099");
            for port in 40_000..40_000 + n {
                let (local, remote) = (Endpoint::v4(HERE, port), Endpoint::v4(THERE, 443));
                let socket = scenario.socket(TcpState::TimeWait, local, remote);
                scenario.push(socket, &[]);
            }
            assert_eq!(found(scenario).unwrap().0, severity, "{n}");
        }
    }

    #[test]
    fn a_widened_range_may_take_a_listeners_port() {
        for (range, reserved, port, known) in [
            ("1024\t65535", "", 8080, true),
            ("1024\t65535", "8080", 8080, false),
            ("1024\t65535", "", 443, false),
            ("1024\t65535", "", 40_000, false),
            ("32768\t60999", "", 40_000, false),
        ] {
            let mut scenario = listening(HERE, port);
            scenario.sysctl("net/ipv4/ip_local_port_range", range);
            scenario.sysctl("net/ipv4/ip_local_reserved_ports", reserved);
            assert_eq!(
                found(scenario).is_some(),
                known,
                "{range} {reserved} {port}"
            );
        }
    }

    #[test]
    fn what_is_absent_is_not_0() {
        let mut scenario = Scenario::default();
        for name in ["tcp_timestamps", "tcp_syncookies"] {
            let sysctls = &mut scenario.snapshot.facts.sysctls;
            sysctls.remove(&format!("net/ipv4/{name}"));
        }
        assert_eq!(judged(scenario).quiet, [DETECTOR.id]);
    }
}
