//! TIME-WAIT: how much of the table it takes, and what it says about how fast connections are closed here.

use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::waiting::Table;
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, pace, words};
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, Subject, TcpState, Timer};

pub const DETECTOR: Detector = Detector {
    id: "time-wait-flood",
    aliases: &[],
    summary: "TIME-WAIT sockets take much of the kernel's table",
    signals: "sockstat's `tw` (TIME-WAIT and orphaned FIN-WAIT-2) against tcp_max_tw_buckets, and the closes per \
              second that the remaining times of TIME-WAIT tell.",
    explanation: "TIME-WAIT is the normal end on the side that closes first. For 60 s the kernel keeps the address \
                  pair, to answer a repeated FIN and to keep late segments out of a new connection. It costs no \
                  descriptor and no process; it matters only when the table is full or a destination runs out of ports.",
    grounds: &[
        "TCP state in OS, TIME_WAIT",
        "RFC 9293 section 3.3.2",
        "RFC 9293 section 3.6.1",
        "Linux kernel, include/net/tcp.h: TCP_TIMEWAIT_LEN",
    ],
    advice: &[
        "nothing below the limit; to have fewer, reuse connections (keep-alive, pools) or let the other side close first",
        "near the limit raise tcp_max_tw_buckets: each costs about 256 bytes",
    ],
    folklore: &[
        "tcp_tw_recycle was removed in Linux 4.12; it broke clients behind NAT",
        "tcp_fin_timeout does not change TIME-WAIT",
        "SO_LINGER with 0 sends a reset and loses data; lowering tcp_max_tw_buckets makes resets of late FINs",
    ],
    states: &[TcpState::TimeWait],
    worst: Severity::Warning,
    thresholds: &[
        Threshold {
            key: "info",
            default: 20.0,
            unit: Unit::Percent,
            doc: "of tcp_max_tw_buckets: worth knowing",
        },
        Threshold {
            key: "closes",
            default: 1000.0,
            unit: Unit::PerSecond,
            doc: "closes per second over the last minute that are worth knowing",
        },
        Threshold {
            key: "warn",
            default: 60.0,
            unit: Unit::Percent,
            doc: "of tcp_max_tw_buckets; beyond the limit the kernel destroys sockets early and answers late FINs with resets",
        },
    ],
    blind: &[],
    needs: Needs::NONE,
    check,
    example: Example {
        of: "TIME-WAIT sockets of a table of 1,000",
        limit: 600,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let waiting = context.tally.of(TcpState::TimeWait);
    let Table {
        used,
        orphans,
        size,
    } = Table::new(context);
    if used == 0 {
        return Verdict::Quiet;
    }
    let closes = waiting as f64 / 60.0;
    let table = size.map(|size| size as f64);
    let share = table.map(|max| used as f64 * 100.0 / max);
    let severity = match share {
        Some(share) if share >= limits.get("warn") => Severity::Warning,
        Some(share) if share >= limits.get("info") => Severity::Info,
        _ if closes >= limits.get("closes") => Severity::Info,
        Some(_) => return Verdict::Quiet,
        None => {
            return Verdict::CannotTell(format!(
                "{} in TIME-WAIT, but tcp_max_tw_buckets, the size of their table, is not known",
                words::count(used, "socket")
            ));
        }
    };
    Verdict::Found(vec![finding(
        context, limits, used, orphans, closes, table, severity,
    )])
}

fn finding(
    context: &Context<'_>,
    limits: &Limits,
    used: u64,
    orphans: u64,
    closes: f64,
    table: Option<f64>,
    severity: Severity,
) -> Finding {
    let tally = context.tally;
    let waiting = tally.of(TcpState::TimeWait);
    let of_table = Evidence::count("time_wait_table", used, "sockets", "sockstat TCP.tw");
    let limit = table.map(|max| max * limits.get("warn") / 100.0);
    let mut evidence = vec![match limit {
        Some(limit) => of_table.limit(limit),
        None => of_table,
    }];
    if let Some(max) = table {
        evidence.push(Evidence::count(
            "table_size",
            max as i64,
            "sockets",
            "net.ipv4.tcp_max_tw_buckets",
        ));
        evidence.extend(full_in(context, max));
    }
    evidence.push(
        Evidence::real("closes_at_least", closes, "1/s", "idiag_expires")
            .limit(limits.get("closes")),
    );
    evidence.push(Evidence::series(
        "closes_by_second",
        tally.closes.clone(),
        "sockets",
        "idiag_expires",
    ));
    if orphans > 0 {
        evidence.push(Evidence::count(
            "orphaned_fin_wait_2",
            orphans,
            "sockets",
            "idiag_state",
        ));
    }
    let served = tally
        .serving()
        .map(|(port, counts)| (counts.of(TcpState::TimeWait), port))
        .max();
    if let Some((count, port)) = served.filter(|(count, _)| *count > 0) {
        evidence.push(Evidence::text(
            "most_on_local_port",
            format!(":{port} {}", words::thousands(count)),
            "idiag_sport",
        ));
    }
    let mut pressure = 0;
    let dialled = tally.dialled().map(|(dial, counts)| {
        pressure = pressure.max(counts.ephemeral - counts.reusable);
        (counts.of(TcpState::TimeWait), dial.remote)
    });
    if let Some((count, remote)) = dialled.max().filter(|(count, _)| *count > 0) {
        let text = format!(
            "{} to {}",
            words::thousands(count),
            words::endpoint(&remote)
        );
        evidence.push(Evidence::text(
            "most_to_destination",
            text,
            "idiag_dst, idiag_dport",
        ));
    }
    let ports = context.snapshot.facts.ephemeral_ports();
    if let Some(ports) = ports {
        evidence.push(
            Evidence::count(
                "ports_in_use_to_one_destination",
                pressure,
                "ports",
                "net.ipv4.ip_local_port_range",
            )
            .limit(ports),
        );
    }
    for (name, changed) in changed(context) {
        evidence.push(Evidence::text(name, changed, "sysctl"));
    }
    let no_pressure = ports.is_some_and(|ports| pressure * 2 < ports);
    let ports_say = if no_pressure {
        "no destination is short of ports"
    } else {
        "see ephemeral-port-exhaustion for the ports"
    };
    let warning = severity == Severity::Warning;
    let title_share = table.map_or(String::new(), |max| {
        format!(
            ", {:.0} % of the table of {}",
            used as f64 * 100.0 / max,
            words::thousands(max as u64)
        )
    });
    let entries = match (waiting, orphans) {
        (_, 0) => format!("{} in TIME-WAIT", words::count(used, "socket")),
        (_, n) => format!(
            "{} in TIME-WAIT and {} orphaned in FIN-WAIT-2",
            words::thousands(used.saturating_sub(n)),
            words::thousands(n)
        ),
    };
    let rate = words::thousands(closes.round() as u64);
    let mut advice = vec![
        "linger explain time-wait    # what it protects from, and the closes of the last minute"
            .to_owned(),
    ];
    if warning {
        advice.push("reuse connections (keep-alive, pools), or raise net.ipv4.tcp_max_tw_buckets: 256 bytes each".to_owned());
    } else {
        advice.push("nothing to do".to_owned());
    }
    advice.push("do not: set tcp_tw_recycle (gone since 4.12), tcp_fin_timeout (no effect), SO_LINGER 0 (resets), a lower tcp_max_tw_buckets".to_owned());
    let normal = format!(
        "For 60 s after closing first, this side keeps the address pair, so that a lost last ACK can be repeated and \
         late segments die out. {} TIME-WAIT are normal for {closes:.0} closes per second over a minute; {ports_say}.",
        words::thousands(waiting)
    );
    let explanation = if warning {
        format!(
            "{normal} Beyond the table's limit the kernel destroys sockets early and answers late FINs with resets."
        )
    } else {
        normal
    };
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            format!("{entries}{title_share}: at least {rate} closes per second here"),
            format!("{entries}{title_share}: {rate} closes per second"),
            format!("{entries}{title_share}"),
        ]),
        subject: Subject::Host,
        evidence,
        explanation,
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: if warning {
            Actor::Operator
        } else {
            Actor::Nobody
        },
        advice,
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    }
}

/// When the table is full, where it fills and the rate of closes holds more than it has room for: below that it grows
/// for a minute and then stays.
fn full_in(context: &Context<'_>, max: f64) -> Option<Evidence> {
    let deltas = context.deltas()?;
    let (before, after) = deltas.gauge("TCP.tw")?;
    let entered = deltas.counter("TcpExt.TW")? as f64 / deltas.seconds();
    if entered * 60.0 <= max {
        return None;
    }
    let (before, after) = (u64::try_from(before).ok()?, u64::try_from(after).ok()?);
    let source = "sockstat TCP.tw, two looks";
    pace::evidence(
        "table_is_full_in",
        (before, after),
        deltas.seconds(),
        max as u64,
        source,
    )
}

/// Settings that somebody has already changed for the sake of TIME-WAIT.
fn changed(context: &Context<'_>) -> Vec<(&'static str, String)> {
    let facts = &context.snapshot.facts;
    let mut changed = Vec::new();
    let mut look = |name, path: &str, default: i64, effect: &str| {
        if let Some(value) = facts.sysctl(path).filter(|value| *value != default) {
            changed.push((name, format!("{value} (default {default}): {effect}")));
        }
    };
    look(
        "tcp_fin_timeout",
        "net/ipv4/tcp_fin_timeout",
        60,
        "does not change TIME-WAIT",
    );
    look(
        "tcp_rfc1337",
        "net/ipv4/tcp_rfc1337",
        0,
        "resets do not end TIME-WAIT",
    );
    look(
        "tcp_tw_recycle",
        "net/ipv4/tcp_tw_recycle",
        0,
        "breaks clients behind NAT",
    );
    // The default is 2 (loopback only) since Linux 4.19 and was 0 before.
    let usual = |value: &i64| {
        *value == 2 || *value == 0 && !is_since(&context.snapshot.host.kernel, (4, 19))
    };
    if let Some(value) = facts
        .sysctl("net/ipv4/tcp_tw_reuse")
        .filter(|value| !usual(value))
    {
        changed.insert(
            0,
            (
                "tcp_tw_reuse",
                format!("{value}: outgoing connections only"),
            ),
        );
    }
    changed
}

/// Whether a release (`6.1.0-18-amd64`) is of this version or later; one that cannot be read is taken for new.
fn is_since(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= version,
        _ => true,
    }
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.sysctl("net/ipv4/tcp_max_tw_buckets", "1000");
    for i in 0..n {
        let (local, remote) = (
            Endpoint::v4(HERE, 10_000 + i as u16),
            Endpoint::v4(THERE, 443),
        );
        let mut socket = scenario.socket(TcpState::TimeWait, local, remote);
        (socket.timer, socket.timer_ms, socket.uid) = (Timer::TimeWait, 100 * i, 0);
        scenario.push(socket, &[]);
    }
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_thousand_are_normal_for_five_hundred_closes_a_second() {
        let mut scenario = Scenario::default();
        scenario.snapshot.facts.sockstat.clear();
        for i in 0..30_112u32 {
            let remote = Endpoint::v4([198, 51, (i % 200) as u8, 1], 443);
            let mut socket = scenario.socket(
                TcpState::TimeWait,
                Endpoint::v4(HERE, (i / 2) as u16 + 32_768),
                remote,
            );
            (socket.timer, socket.timer_ms) = (Timer::TimeWait, i * 60_000 / 30_112);
            scenario.push(socket, &[]);
        }
        scenario.sysctl("net/ipv4/tcp_tw_reuse", "1");
        let analysis = scenario.judge(DETECTOR.id);
        let [finding] = &analysis.findings[..] else {
            panic!("{analysis:?}")
        };
        assert_eq!(
            (finding.severity, finding.who_must_act),
            (Severity::Info, Actor::Nobody)
        );
        assert!(
            finding
                .explanation
                .contains("30,112 TIME-WAIT are normal for 502 closes per second"),
            "{}",
            finding.explanation
        );
        assert!(
            finding
                .explanation
                .contains("no destination is short of ports")
        );
        assert!(
            finding.evidence.iter().any(|e| e.name == "tcp_tw_reuse"),
            "what somebody changed is named"
        );
        assert!(finding.advice.contains(&"nothing to do".to_owned()));
    }

    #[test]
    fn a_table_has_a_time_left_only_where_the_closes_outgrow_it() {
        let left = |closes| {
            let mut scenario = example(300);
            scenario
                .snapshot
                .facts
                .sockstat
                .insert("TCP.tw".to_owned(), 300);
            let mut grown = scenario.snapshot.facts.clone();
            grown.sockstat.insert("TCP.tw".to_owned(), 310);
            grown.counters.insert("TcpExt.TW".to_owned(), closes);
            scenario.history.set_pulse(crate::model::Pulse {
                taken: jiff::Timestamp::from_second(1).unwrap(),
                facts: grown,
                ..crate::model::Pulse::default()
            });
            let finding = scenario.judge(DETECTOR.id).findings.remove(0);
            finding
                .evidence
                .into_iter()
                .find(|e| e.name == "table_is_full_in")
                .map(|e| e.value)
        };
        assert_eq!(left(17), Some(crate::model::finding::Value::Real(69.0)));
        assert_eq!(left(16), None, "16 a second hold 960 of 1,000");
    }

    #[test]
    fn never_critical_even_when_the_table_is_full() {
        let finding = example(1000).judge(DETECTOR.id).findings.remove(0);
        assert_eq!(finding.severity, Severity::Warning);
    }

    #[test]
    fn info_begins_at_a_fifth_of_the_table() {
        let severity = |n| {
            example(n)
                .judge(DETECTOR.id)
                .findings
                .first()
                .map(|f| f.severity)
        };
        assert_eq!((severity(199), severity(200)), (None, Some(Severity::Info)));
    }

    #[test]
    fn an_unreadable_limit_leaves_it_open() {
        let mut scenario = example(300);
        scenario
            .snapshot
            .facts
            .sysctls
            .remove("net/ipv4/tcp_max_tw_buckets");
        let analysis = scenario.judge(DETECTOR.id);
        assert_eq!(analysis.unknown.len(), 1);
    }

    #[test]
    fn orphans_that_fill_the_table_are_not_called_time_wait() {
        let mut scenario = example(600);
        for socket in scenario.snapshot.sockets.iter_mut().take(400) {
            socket.state = TcpState::FinWait2;
        }
        let finding = scenario.judge(DETECTOR.id).findings.remove(0);
        assert_eq!(
            finding.title,
            "200 in TIME-WAIT and 400 orphaned in FIN-WAIT-2, 60 % of the table of 1,000: 3 closes per second"
        );
    }

    #[test]
    fn a_default_of_an_older_kernel_was_changed_by_nobody() {
        let names_it = |kernel: &str, value: &str| {
            let mut scenario = example(300);
            scenario.snapshot.host.kernel = kernel.to_owned();
            scenario.sysctl("net/ipv4/tcp_tw_reuse", value);
            let finding = scenario.judge(DETECTOR.id).findings.remove(0);
            finding.evidence.iter().any(|e| e.name == "tcp_tw_reuse")
        };
        assert!(
            !names_it("3.10.0-1160.el7.x86_64", "0") && names_it("3.10.0-1160.el7.x86_64", "1")
        );
        assert!(names_it("6.1.0-18-amd64", "0") && !names_it("6.1.0-18-amd64", "2"));
    }
}
