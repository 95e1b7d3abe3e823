//! TIME-WAIT's table is full: the kernel destroys sockets that should have waited.

use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::waiting::Table;
use crate::analyze::{
    Context, Detector, Limits, Moved, Needs, ONE_LOOK, Threshold, Unit, Verdict, words,
};
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, Subject, TcpState, Timer};

/// Connections that the kernel destroyed for want of room.
const OVERFLOW: &str = "TcpExt.TCPTimeWaitOverflow";

pub const DETECTOR: Detector = Detector {
    id: "time-wait-overflow",
    aliases: &[],
    summary: "the table of TIME-WAIT is full, and connections end without it",
    signals: "TCPTimeWaitOverflow between two looks, beside sockstat's `tw` and tcp_max_tw_buckets.",
    explanation: "With the table full the kernel destroys a socket that should go to TIME-WAIT, and also one that goes \
                  to FIN-WAIT-2 while its peer has not closed yet. The peer's FIN, the first or a repeated one, is then \
                  answered with a reset. What TIME-WAIT protects from is given up for these connections, no more: it \
                  hurts few, and nobody for long.",
    grounds: &[
        "TCP state in OS, TIME_WAIT",
        "RFC 9293 section 3.6.1",
        "Linux kernel, net/ipv4/tcp_minisocks.c: tcp_time_wait()",
    ],
    advice: &[
        "raise net.ipv4.tcp_max_tw_buckets: an entry costs about 256 bytes",
        "close fewer connections: keep-alive, pools",
    ],
    folklore: &[
        "a lower tcp_max_tw_buckets does not clean up, it is what makes these resets",
        "tcp_fin_timeout does not change TIME-WAIT",
    ],
    states: &[TcpState::TimeWait, TcpState::FinWait2],
    worst: Severity::Warning,
    thresholds: &[Threshold {
        key: "warn",
        default: 1.0,
        unit: Unit::Count,
        doc: "connections destroyed between two looks; the kernel never does so while there is room",
    }],
    blind: &[],
    needs: Needs {
        deltas: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "connections destroyed between two looks",
        limit: 1,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let table = Table::new(context);
    match context.moved(&[OVERFLOW]) {
        Moved::By(n) if n as f64 >= limits.get("warn") && n > 0 => {
            Verdict::Found(vec![finding(context, limits, n, table)])
        }
        Moved::By(_) => Verdict::Quiet,
        Moved::OneLook => Verdict::CannotTell(ONE_LOOK.to_owned()),
        // A table that is half empty does not overflow.
        Moved::NotCounted if table.used == 0 || table.size.is_some() && !table.is_filled(50.0) => {
            Verdict::Quiet
        }
        Moved::NotCounted => Verdict::CannotTell(format!(
            "{} in TIME-WAIT, and TCPTimeWaitOverflow could not be read",
            words::count(table.used, "socket")
        )),
    }
}

fn finding(context: &Context<'_>, limits: &Limits, destroyed: u64, table: Table) -> Finding {
    let seconds = context.seconds().unwrap_or(1.0);
    let kept = context.moved(&["TcpExt.TW"]).by();
    let mut evidence = vec![
        Evidence::count(
            "destroyed_early",
            destroyed,
            "sockets",
            "TcpExt.TCPTimeWaitOverflow",
        )
        .limit(limits.get("warn")),
        Evidence::real(
            "destroyed_per_second",
            destroyed as f64 / seconds,
            "1/s",
            "TcpExt.TCPTimeWaitOverflow",
        ),
    ];
    if let Some(kept) = kept {
        evidence.push(Evidence::real(
            "kept_per_second",
            kept as f64 / seconds,
            "1/s",
            "TcpExt.TW",
        ));
    }
    evidence.push(table.evidence(100.0));
    let size = table.size.map_or(String::new(), |max| {
        format!(", table of {}", words::thousands(max))
    });
    let shown = table.size.map_or(String::new(), |max| format!(" = {max}"));
    let n = words::count(destroyed, "connection");
    let window = words::time((seconds * 1000.0) as u64);
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity: Severity::Warning,
        title: words::fit([
            format!("{n} destroyed instead of TIME-WAIT in the last {window}{size}"),
            format!("{n} destroyed instead of TIME-WAIT{size}"),
        ]),
        subject: Subject::Host,
        evidence,
        explanation: "The table of TIME-WAIT is full, so the kernel destroys connections that this side has closed, \
                      also those in FIN-WAIT-2 whose peer has not closed yet. A FIN that comes later is answered with a \
                      reset, and late segments are no longer kept out of a new connection. Few notice: it is an error \
                      after an orderly close."
            .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Operator,
        advice: vec![
            format!(
                "sysctl net.ipv4.tcp_max_tw_buckets    # here{shown}; raise it, an entry costs about 256 bytes"
            ),
            "close fewer connections: keep-alive, pools, or let the other side close first".to_owned(),
            "do not: lower tcp_max_tw_buckets or set SO_LINGER 0; both make more resets".to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    }
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.sysctl("net/ipv4/tcp_max_tw_buckets", "100");
    for i in 0..100 {
        let (local, remote) = (Endpoint::v4(HERE, 10_000 + i), Endpoint::v4(THERE, 443));
        let mut socket = scenario.socket(TcpState::TimeWait, local, remote);
        (socket.timer, socket.timer_ms) = (Timer::TimeWait, 600 * u32::from(i));
        scenario.push(socket, &[]);
    }
    scenario.pulse(&[(OVERFLOW, i64::from(n)), ("TcpExt.TW", 2)], |_| {});
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

    #[test]
    fn any_is_a_warning_and_none_is_quiet_however_full_the_table() {
        let finding = alone(example(84)).findings.remove(0);
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(
            finding.title,
            "84 connections destroyed instead of TIME-WAIT in the last 1.0 s, table of 100"
        );
        assert_eq!(alone(example(0)).quiet, [DETECTOR.id]);
    }

    #[test]
    fn never_critical_however_many() {
        let finding = alone(example(1_000_000)).findings.remove(0);
        assert_eq!(finding.severity, Severity::Warning);
    }

    #[test]
    fn what_it_counted_since_boot_says_nothing_of_now() {
        let mut scenario = Scenario::default();
        scenario
            .snapshot
            .facts
            .counters
            .insert(OVERFLOW.to_owned(), 500);
        let analysis = alone(scenario.clone());
        assert_eq!(analysis.unknown[0].reason, ONE_LOOK);
        scenario.pulse(&[], |_| {});
        assert_eq!(alone(scenario).quiet, [DETECTOR.id]);
    }

    #[test]
    fn without_the_counter_a_table_with_room_is_quiet() {
        let judged = |max: &str| {
            let mut scenario = example(5);
            scenario.snapshot.facts.counters.clear();
            scenario.sysctl("net/ipv4/tcp_max_tw_buckets", max);
            alone(scenario).unknown.len()
        };
        assert_eq!((judged("201"), judged("200")), (0, 1));
    }

    #[test]
    fn it_follows_from_a_full_table() {
        let findings = example(84).analyze(&Settings::default()).findings;
        let finding = findings.iter().find(|f| f.id == DETECTOR.id).unwrap();
        assert_eq!(finding.caused_by, Some("time-wait-flood"));
    }
}
