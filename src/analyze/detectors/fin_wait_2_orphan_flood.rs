//! FIN-WAIT-2 that nobody holds any more, in such numbers that peers must be failing to close.

use crate::analyze::group::Target;
use crate::analyze::role::{self, Towards};
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::stuck::Closers;
use crate::analyze::waiting::Table;
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::knowledge::lifetimes::Lifetime;
use crate::model::{Actor, Endpoint, Evidence, Facts, Finding, Severity, Subject, TcpState, Timer};

pub const DETECTOR: Detector = Detector {
    id: "fin-wait-2-orphan-flood",
    aliases: &[],
    summary: "many peers acknowledge the close of this side and do not close theirs",
    signals: "FIN-WAIT-2 sockets that no program holds, their number and their part of TIME-WAIT's table, in which the \
              kernel counts them (sockstat's `tw`, tcp_max_tw_buckets). Where the other end is on this host too and \
              in CLOSE-WAIT, that end is reported instead.",
    explanation: "This side has closed and the peer has acknowledged that, but does not send its own FIN; its program \
                  probably sits in CLOSE-WAIT. Nobody here holds the socket any more, so the kernel drops it after \
                  tcp_fin_timeout, and answers data that still comes with a reset.",
    grounds: &[
        "TCP state in OS, FIN_WAIT_2",
        "RFC 9293 section 3.3.2",
        "Linux kernel, net/ipv4/tcp_input.c: tcp_rcv_state_process()",
        "Linux kernel, net/ipv4/tcp_minisocks.c: tcp_time_wait()",
    ],
    advice: &[
        "the peers' programs are to be mended: they do not close when they are told that this side has",
        "harmless one by one; they matter where they fill the table of TIME-WAIT",
    ],
    folklore: &[
        "tcp_fin_timeout a little above 60 does the contrary: with 61 a socket stays for 2 s; useful is up to 60, or 120 and more",
    ],
    states: &[TcpState::FinWait2],
    worst: Severity::Warning,
    thresholds: &[
        Threshold {
            key: "min",
            default: 1000.0,
            unit: Unit::Count,
            doc: "so many are a flood, if they are also `share` of the table's entries",
        },
        Threshold {
            key: "share",
            default: 20.0,
            unit: Unit::Percent,
            doc: "of all entries of the table: a few clients in a hundred are late on any public server",
        },
        Threshold {
            key: "table",
            default: 60.0,
            unit: Unit::Percent,
            doc: "of tcp_max_tw_buckets in use, `share` of it by these: then their number matters here too",
        },
    ],
    blind: &[],
    needs: Needs::NONE,
    check,
    example: Example {
        of: "orphans in FIN-WAIT-2 towards one destination",
        limit: 1000,
        build: example,
    },
};

/// The orphans, and the table that they share with TIME-WAIT.
struct Flood {
    orphans: u64,
    /// entries of the table, and orphans that the kernel does not keep there yet
    all: u64,
    table: Table,
    /// whether the table is nearly full of them too
    crowded: bool,
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let (snapshot, tally) = (context.snapshot, context.tally);
    if tally.fin_wait_2_orphans.is_empty() {
        return Verdict::Quiet;
    }
    let closers = Closers::new(context);
    let rows: Vec<u32> = tally
        .fin_wait_2_orphans
        .iter()
        .copied()
        .filter(|row| {
            snapshot
                .socket(*row)
                .is_some_and(|socket| !closers.face(socket))
        })
        .collect();
    let table = Table::new(context);
    let orphans = rows.len() as u64;
    let all = table.used + (tally.fin_wait_2_orphans.len() as u64).saturating_sub(table.orphans);
    let large = orphans as f64 * 100.0 >= all as f64 * limits.get("share") && orphans > 0;
    let many = orphans as f64 >= limits.get("min");
    let crowded = large && table.is_filled(limits.get("table"));
    if !(large && many || crowded) {
        if large && table.size.is_none() {
            return Verdict::CannotTell(format!(
                "{} in FIN-WAIT-2, but tcp_max_tw_buckets, the size of their table, is not known",
                words::count(orphans, "orphan")
            ));
        }
        return Verdict::Quiet;
    }
    let flood = Flood {
        orphans,
        all,
        table,
        crowded,
    };
    let towards = role::towards(context, rows.into_iter());
    Verdict::Found(vec![finding(context, limits, &flood, &towards)])
}

fn finding(context: &Context<'_>, limits: &Limits, flood: &Flood, towards: &[Towards]) -> Finding {
    let facts = &context.snapshot.facts;
    let dialled: u64 = towards
        .iter()
        .filter(|towards| matches!(towards.target, Target::Destination(_)))
        .map(Towards::stuck)
        .sum();
    // Clients that come to us are as they are; a service that we dial can be mended.
    let severity = if flood.crowded || dialled * 2 > flood.orphans {
        Severity::Warning
    } else {
        Severity::Info
    };
    let main = towards
        .first()
        .filter(|towards| towards.stuck() * 2 > flood.orphans);
    let (long, brief) = main.map_or((String::new(), String::new()), |main| {
        (
            format!(" {}", main.target.words()),
            format!(" {}", main.target.brief()),
        )
    });
    let rows: Vec<u32> = main
        .or(towards.first())
        .map(|towards| towards.rows.iter().take(10).copied().collect())
        .unwrap_or_default();
    let n = words::thousands(flood.orphans);
    let full = match flood.table.size.filter(|_| flood.crowded) {
        Some(max) => format!(
            ", TIME-WAIT's table of {} {} % full",
            words::thousands(max),
            words::percent(flood.table.used, max)
        ),
        None => String::new(),
    };
    let lifetime = Lifetime::OrphanFinWait2.ms(facts).filter(|ms| *ms > 0);
    let rate = lifetime.map(|ms| flood.orphans as f64 * 1000.0 / ms as f64);
    let each = rate.map_or(String::new(), |rate| format!(", {rate:.0} closes/s"));
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            format!("{n} orphans in FIN-WAIT-2{long}: the peer does not close{each}{full}"),
            format!("{n} orphans in FIN-WAIT-2{brief}: the peer does not close{each}{full}"),
            format!("{n} orphans in FIN-WAIT-2{brief}: the peer does not close{full}"),
            format!("{n} orphans in FIN-WAIT-2{brief}{full}"),
        ]),
        subject: main.map_or(Subject::Host, |main| main.subject(context)),
        evidence: evidence(context, limits, flood, dialled, rate),
        explanation: explanation(facts, flood),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Peer,
        advice: vec![
            "linger list state fin-wait-2    # which peers".to_owned(),
            "mend the peers' programs, which probably sit in CLOSE-WAIT; here nothing is wrong".to_owned(),
            "do not: set tcp_fin_timeout a little above 60 (61 keeps a socket for 2 s); useful is up to 60, or 120 and more"
                .to_owned(),
        ],
        rows,
        caused_by: None,
        one_sample: false,
    }
}

fn evidence(
    context: &Context<'_>,
    limits: &Limits,
    flood: &Flood,
    dialled: u64,
    rate: Option<f64>,
) -> Vec<Evidence> {
    let facts = &context.snapshot.facts;
    let share = words::percent(flood.orphans, flood.all);
    let mut evidence = vec![
        Evidence::count(
            "orphans",
            flood.orphans,
            "sockets",
            "idiag_state, idiag_inode",
        )
        .limit(limits.get("min")),
        Evidence::count("share_of_entries", share, "%", "sockstat TCP.tw")
            .limit(limits.get("share")),
        Evidence::count("dialled_by_this_host", dialled, "sockets", "idiag_sport"),
    ];
    evidence.push(flood.table.evidence(limits.get("table")));
    if let Some(rate) = rate {
        evidence.push(Evidence::real(
            "closes_not_answered",
            rate,
            "1/s",
            "net.ipv4.tcp_fin_timeout",
        ));
    }
    let oldest = context
        .tally
        .fin_wait_2_orphans
        .iter()
        .filter_map(|row| context.age_ms(*row))
        .max();
    if let Some(oldest) = oldest {
        evidence.push(Evidence::real(
            "oldest",
            oldest as f64 / 1000.0,
            "s",
            "idiag_expires",
        ));
    }
    let timeout = facts.sysctl("net/ipv4/tcp_fin_timeout");
    if let Some(seconds) = timeout.filter(|seconds| (61..120).contains(seconds)) {
        evidence.push(Evidence::text(
            "tcp_fin_timeout",
            format!(
                "{seconds}: above 60 the kernel keeps them for {}",
                Lifetime::OrphanFinWait2.words(facts)
            ),
            "net.ipv4.tcp_fin_timeout",
        ));
    }
    evidence
}

fn explanation(facts: &Facts, flood: &Flood) -> String {
    let ends = Lifetime::OrphanFinWait2.words(facts);
    let base = format!(
        "This side has closed and the peers have acknowledged that, but do not close theirs; their programs probably \
         sit in CLOSE-WAIT. Nobody here holds these sockets any more, and the kernel drops each after {ends}."
    );
    if flood.crowded {
        format!(
            "{base} They share a table with TIME-WAIT: beyond its limit the kernel destroys both early and answers late FINs with resets."
        )
    } else {
        base
    }
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    for i in 0..n {
        let (local, remote) = (
            Endpoint::v4(HERE, 10_000 + i as u16),
            Endpoint::v4(THERE, 25),
        );
        let mut socket = scenario.socket(TcpState::FinWait2, local, remote);
        (socket.timer, socket.timer_ms, socket.uid) = (Timer::TimeWait, 30_000, 0);
        scenario.push(socket, &[]);
    }
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;

    fn first(scenario: Scenario) -> Option<Finding> {
        scenario
            .analyze(&Settings::default())
            .findings
            .into_iter()
            .find(|finding| finding.id == DETECTOR.id)
    }

    fn severity(scenario: Scenario) -> Option<Severity> {
        first(scenario).map(|finding| finding.severity)
    }

    fn time_wait(scenario: &mut Scenario, n: u32) {
        for i in 0..n {
            let (local, remote) = (
                Endpoint::v4(HERE, 20_000 + i as u16),
                Endpoint::v4([203, 0, 113, 1], 80),
            );
            let mut socket = scenario.socket(TcpState::TimeWait, local, remote);
            (socket.timer, socket.timer_ms) = (Timer::TimeWait, 30_000);
            scenario.push(socket, &[]);
        }
    }

    #[test]
    fn a_thousand_of_a_destination_warn() {
        let finding = first(example(1000)).unwrap();
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(
            finding.title,
            "1,000 orphans in FIN-WAIT-2 to 198.51.100.7:25: the peer does not close, 17 closes/s"
        );
        assert_eq!(finding.who_must_act, Actor::Peer);
        assert_eq!(severity(example(999)), None);
    }

    #[test]
    fn few_among_many_time_waits_are_late_clients() {
        let mut scenario = example(1000);
        time_wait(&mut scenario, 4_000);
        assert_eq!(severity(scenario.clone()), Some(Severity::Warning));
        time_wait(&mut scenario, 1);
        assert_eq!(severity(scenario), None);
    }

    #[test]
    fn clients_that_come_to_us_are_info_until_the_table_fills() {
        let clients = |n| {
            let mut scenario = example(n);
            for socket in &mut scenario.snapshot.sockets {
                (socket.remote.port, socket.local.port) = (socket.local.port, 443);
            }
            let process = scenario.process(901, "nginx", 60, 1024);
            scenario.listen(process, 443, 0, 511, 0);
            scenario
        };
        assert_eq!(severity(clients(1000)), Some(Severity::Info));
        let mut scenario = clients(600);
        scenario.sysctl("net/ipv4/tcp_max_tw_buckets", "1000");
        let finding = first(scenario.clone()).unwrap();
        assert_eq!(finding.severity, Severity::Warning, "never critical");
        assert!(
            finding
                .title
                .ends_with("TIME-WAIT's table of 1,000 60 % full"),
            "{}",
            finding.title
        );
        scenario.sysctl("net/ipv4/tcp_max_tw_buckets", "1001");
        assert_eq!(severity(scenario), None);
    }

    #[test]
    fn it_is_why_the_table_fills() {
        let mut scenario = example(900);
        scenario.sysctl("net/ipv4/tcp_max_tw_buckets", "1000");
        let analysis = scenario.analyze(&Settings::default());
        let flood = analysis
            .findings
            .iter()
            .find(|f| f.id == "time-wait-flood")
            .unwrap();
        assert_eq!(flood.caused_by, Some(DETECTOR.id));
    }

    #[test]
    fn a_peer_on_this_host_that_does_not_close_is_reported_instead() {
        let mut scenario = example(1000);
        for i in 0..1000 {
            let (local, remote) = (
                Endpoint::v4(THERE, 25),
                Endpoint::v4(HERE, 10_000 + i as u16),
            );
            let mut socket = scenario.socket(TcpState::CloseWait, local, remote);
            socket.inode = 100_000 + i;
            scenario.push(socket, &[("last_ack_recv_ms", 100)]);
        }
        assert_eq!(severity(scenario), None);
    }

    #[test]
    fn a_timeout_just_above_sixty_is_pointed_out() {
        let mut scenario = example(1000);
        scenario.sysctl("net/ipv4/tcp_fin_timeout", "65");
        let finding = first(scenario).unwrap();
        assert!(finding.explanation.contains("10 s (tcp_fin_timeout 65)"));
        assert!(finding.evidence.iter().any(|e| e.name == "tcp_fin_timeout"));
    }

    #[test]
    fn held_ones_are_another_finding() {
        let mut scenario = example(1000);
        for socket in &mut scenario.snapshot.sockets {
            (socket.inode, socket.timer) = (7, Timer::None);
        }
        assert_eq!(severity(scenario), None);
    }

    #[test]
    fn an_unknown_table_leaves_fewer_open() {
        let mut scenario = example(300);
        scenario
            .snapshot
            .facts
            .sysctls
            .remove("net/ipv4/tcp_max_tw_buckets");
        let analysis = scenario.analyze(&Settings::default());
        assert!(analysis.unknown.iter().any(|u| u.id == DETECTOR.id));
    }
}
