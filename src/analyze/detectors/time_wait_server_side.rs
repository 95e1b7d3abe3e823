//! TIME-WAIT on the port of a listener: this server closes first.

use crate::analyze::group::{self, Target};
use crate::analyze::role::Towards;
use crate::analyze::scenario::{Example, HERE, Scenario};
use crate::analyze::waiting::Table;
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, TcpState, Timer};

pub const DETECTOR: Detector = Detector {
    id: "time-wait-server-side",
    aliases: &[],
    summary: "a server closes its connections first and keeps their TIME-WAIT",
    signals: "TIME-WAIT sockets whose local port is listened on, by port, and their part of all TIME-WAIT.",
    explanation: "TIME-WAIT is with whoever closes first, client or server. A server that closes first is often as it \
                  should be: an idle time-out, a health check, `Connection: close`. It does not keep clients out: a new \
                  SYN for the same address pair is accepted at once if its sequence number or its timestamp is newer; \
                  only an older one without timestamps has to be repeated, a second or more later.",
    grounds: &[
        "TCP state in OS, TIME_WAIT",
        "RFC 9293 section 3.6.1",
        "RFC 6191 section 2",
        "Linux kernel, net/ipv4/tcp_minisocks.c: tcp_timewait_state_process()",
    ],
    advice: &[
        "nothing, as a rule; to have fewer, let clients close first or keep connections longer",
        "listeners need SO_REUSEADDR, or a restart fails with EADDRINUSE for 60 s",
    ],
    folklore: &[
        "tcp_tw_reuse is for outgoing connections only",
        "tcp_tw_recycle was removed in Linux 4.12; it broke clients behind NAT",
    ],
    states: &[TcpState::TimeWait],
    worst: Severity::Warning,
    thresholds: &[
        Threshold {
            key: "min",
            default: 100.0,
            unit: Unit::Count,
            doc: "TIME-WAIT on one listening port; fewer are a close or two per second",
        },
        Threshold {
            key: "share",
            default: 50.0,
            unit: Unit::Percent,
            doc: "more than this part of all TIME-WAIT is on listening ports: it is the servers that close",
        },
        Threshold {
            key: "warn",
            default: 60.0,
            unit: Unit::Percent,
            doc: "of tcp_max_tw_buckets in use, where it begins to matter",
        },
    ],
    blind: &[],
    needs: Needs {
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "TIME-WAIT sockets on a listening port",
        limit: 100,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let tally = context.tally;
    let all = tally.of(TcpState::TimeWait);
    let mut ports: Vec<(u64, u16)> = tally
        .serving()
        .map(|(port, counts)| (u64::from(counts.of(TcpState::TimeWait)), port))
        .collect();
    let served: u64 = ports.iter().map(|(count, _)| count).sum();
    if served as f64 * 100.0 <= all as f64 * limits.get("share") {
        return Verdict::Quiet;
    }
    ports.retain(|(count, _)| *count as f64 >= limits.get("min"));
    ports.sort_by_key(|(count, port)| (std::cmp::Reverse(*count), *port));
    let table = Table::new(context);
    let crowded = table.is_filled(limits.get("warn"));
    let findings = ports
        .into_iter()
        .map(|(count, port)| {
            let severity = if crowded && count * 2 > table.used {
                Severity::Warning
            } else {
                Severity::Info
            };
            finding(context, limits, (port, count, all), table, severity)
        })
        .collect();
    Verdict::of(group::capped(findings))
}

fn finding(
    context: &Context<'_>,
    limits: &Limits,
    (port, count, all): (u16, u64, u64),
    table: Table,
    severity: Severity,
) -> Finding {
    let facts = &context.snapshot.facts;
    let towards = Towards {
        target: Target::Listener(port),
        rows: Vec::new(),
        in_use: 0,
        closes: 0.0,
        is_one_peer: false,
    };
    let listener = context
        .tally
        .listeners
        .iter()
        .filter_map(|row| context.snapshot.socket(*row))
        .find(|listener| listener.local.port == port);
    let who = listener.map_or_else(
        || format!(":{port}"),
        |listener| words::listener_title(context.snapshot, listener),
    );
    let share = words::percent(count, all);
    let closes = count as f64 / 60.0;
    let mut evidence = vec![
        Evidence::count("time_wait_on_the_port", count, "sockets", "idiag_sport")
            .limit(limits.get("min")),
        Evidence::count("share_of_all_time_wait", share, "%", "idiag_state")
            .limit(limits.get("share")),
        Evidence::real("closes_at_least", closes, "1/s", "idiag_expires"),
        table.evidence(limits.get("warn")),
    ];
    if let Some(value) = facts.sysctl("net/ipv4/tcp_timestamps") {
        evidence.push(Evidence::text(
            "tcp_timestamps",
            value.to_string(),
            "net.ipv4.tcp_timestamps",
        ));
    }
    let behind_nat = if facts.sysctl("net/ipv4/tcp_timestamps") == Some(0) {
        "; tcp_timestamps is 0 here, so clients behind one NAT may have to repeat a SYN, which costs a second or more"
    } else {
        ""
    };
    let warning = severity == Severity::Warning;
    let n = words::count(count, "TIME-WAIT");
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            format!("{who} closes first: {n} here, {share} % of all, {closes:.0} closes/s for a minute"),
            format!("{who} closes first: {n}, {share} % of all, {closes:.0} closes/s"),
            format!(":{port} closes first: {n}, {share} % of all, {closes:.0} closes/s"),
        ]),
        subject: towards.subject(context),
        evidence,
        explanation: format!(
            "TIME-WAIT is with whoever closes first, and here that is the server: an idle time-out, a health check or \
             `Connection: close` make it so. It does not keep clients out, as a new SYN with a newer timestamp or \
             sequence number is accepted at once{behind_nat}. A restart without SO_REUSEADDR fails with EADDRINUSE \
             until they are gone."
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: if warning {
            Actor::ThisProgram
        } else {
            Actor::Nobody
        },
        advice: vec![
            format!("{}    # which clients", towards.command()),
            if warning {
                "keep connections longer, or let the clients close first; listeners need SO_REUSEADDR"
            } else {
                "nothing to do, as long as the listener sets SO_REUSEADDR"
            }
            .to_owned(),
            "do not: set tcp_tw_reuse (outgoing connections only) or SO_LINGER 0 (resets, lost data)".to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    }
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(901, "nginx", 60, 1024);
    scenario.listen(process, 8080, 0, 511, 0);
    for i in 0..n {
        let (local, remote) = (
            Endpoint::v4(HERE, 8080),
            Endpoint::v4([198, 51, (i >> 8) as u8, i as u8], 5_000),
        );
        let mut socket = scenario.socket(TcpState::TimeWait, local, remote);
        (socket.timer, socket.timer_ms) = (Timer::TimeWait, 100 * (i % 600));
        scenario.push(socket, &[]);
    }
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;
    use crate::analyze::scenario::THERE;
    use crate::model::Subject;

    fn first(scenario: Scenario) -> Option<Finding> {
        let findings = scenario.analyze(&Settings::default()).findings;
        findings
            .into_iter()
            .find(|finding| finding.id == DETECTOR.id)
    }

    fn dialled(scenario: &mut Scenario, n: u16) {
        for i in 0..n {
            let (local, remote) = (Endpoint::v4(HERE, 40_000 + i), Endpoint::v4(THERE, 443));
            let mut socket = scenario.socket(TcpState::TimeWait, local, remote);
            (socket.timer, socket.timer_ms) = (Timer::TimeWait, 30_000);
            scenario.push(socket, &[]);
        }
    }

    #[test]
    fn it_is_told_and_nobody_has_to_act() {
        let finding = first(example(500)).unwrap();
        assert_eq!(
            finding.title,
            "nginx[901] :8080 closes first: 500 TIME-WAITs here, 100 % of all, 8 closes/s for a minute"
        );
        assert_eq!(
            (finding.severity, finding.who_must_act),
            (Severity::Info, Actor::Nobody)
        );
        assert!(matches!(
            finding.subject,
            Subject::Listener {
                port: 8080,
                pid: Some(901),
                ..
            }
        ));
    }

    #[test]
    fn a_close_or_two_per_second_are_not_worth_a_word() {
        assert_eq!(first(example(99)), None);
    }

    #[test]
    fn more_than_half_must_be_the_servers() {
        let mut scenario = example(100);
        dialled(&mut scenario, 99);
        assert!(first(scenario.clone()).is_some());
        dialled(&mut scenario, 1);
        assert_eq!(first(scenario), None);
    }

    #[test]
    fn it_warns_only_where_the_table_fills_up() {
        let severity = |max: &str| {
            let mut scenario = example(600);
            scenario.sysctl("net/ipv4/tcp_max_tw_buckets", max);
            first(scenario).unwrap().severity
        };
        assert_eq!(severity("1000"), Severity::Warning);
        assert_eq!(severity("1001"), Severity::Info);
        assert_eq!(severity("1"), Severity::Warning, "never critical");
    }

    #[test]
    fn a_server_that_closes_first_is_why_the_table_fills() {
        let mut scenario = example(600);
        // The rate that lasts is a little below ten a second.
        scenario.sysctl("net/ipv4/tcp_max_tw_buckets", "990");
        let findings = scenario.analyze(&Settings::default()).findings;
        let cause = |id| findings.iter().find(|f| f.id == id).unwrap().caused_by;
        assert_eq!(cause("time-wait-flood"), Some(DETECTOR.id));
        assert_eq!(cause(DETECTOR.id), Some("connection-churn"));
    }

    #[test]
    fn clients_without_timestamps_are_another_matter() {
        let mut scenario = example(100);
        assert!(!first(scenario.clone()).unwrap().explanation.contains("NAT"));
        scenario.sysctl("net/ipv4/tcp_timestamps", "0");
        assert!(
            first(scenario)
                .unwrap()
                .explanation
                .contains("behind one NAT")
        );
    }

    #[test]
    fn unreadable_settings_change_nothing_that_was_seen() {
        let mut scenario = example(100);
        scenario.snapshot.facts = crate::model::Facts::default();
        assert_eq!(first(scenario).unwrap().severity, Severity::Info);
    }
}
