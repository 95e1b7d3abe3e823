//! TCP's memory: one budget for all sockets of the host.

use std::collections::BTreeMap;

use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::{
    Context, Detector, Limits, Moved, Needs, ONE_LOOK, Threshold, Unit, Verdict, words,
};
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, Subject, TcpState};

pub const DETECTOR: Detector = Detector {
    id: "tcp-memory-pressure",
    aliases: &[],
    summary: "the memory that all TCP sockets share is nearly spent, or data is thrown away for lack of it",
    signals: "sockstat's TCP mem against tcp_mem (pressure and maximum, in pages, of the whole host), connections reset \
              for lack of memory (TCPAbortOnMemory), data that was received and thrown away (RcvPruned), and who has \
              most bytes in queues.",
    explanation: "All TCP sockets of the host, of every container, share one budget of memory. Above tcp_mem's second \
                  number the kernel shrinks windows and buffers, so that everything gets slower. At the third it resets \
                  connections and throws data away.",
    grounds: &[
        "Linux kernel, net/core/sock.c: __sk_mem_raise_allocated()",
        "Linux kernel, net/ipv4/tcp.c: tcp_out_of_memory()",
        "Linux kernel, net/ipv4/tcp_input.c: tcp_prune_queue()",
    ],
    advice: &[
        "find who does not read, or whose peer does not: most of the memory is in the queues of few sockets",
        "then lower the largest buffers, the third numbers of tcp_rmem and tcp_wmem; tcp_mem last",
    ],
    folklore: &["larger tcp_rmem and tcp_wmem make the shortage worse"],
    states: &[
        TcpState::Established,
        TcpState::CloseWait,
        TcpState::FinWait1,
    ],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "critical",
            default: 90.0,
            unit: Unit::Percent,
            doc: "of tcp_mem's maximum; above tcp_mem's pressure it warns, because there the kernel shrinks buffers already",
        },
        Threshold {
            key: "drops",
            default: 1.0,
            unit: Unit::PerSecond,
            doc: "segments thrown away (RcvPruned) or connections reset (TCPAbortOnMemory); under pressure critical",
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
        of: "pages, of a pressure limit of 1,000 and a maximum of 2,000",
        limit: 1000,
        build: example,
    },
};

const ABORTS: &[&str] = &["TcpExt.TCPAbortOnMemory"];
const PRUNED: &[&str] = &["TcpExt.RcvPruned", "TcpExt.TCPRcvQDrop"];
/// Counters that move with memory and with nothing else.
const ALL: &[&str] = &[
    "TcpExt.TCPAbortOnMemory",
    "TcpExt.TCPMemoryPressures",
    "TcpExt.RcvPruned",
    "TcpExt.TCPRcvQDrop",
];

/// The budget, in pages.
#[derive(Clone, Copy)]
struct Budget {
    used: u64,
    pressure: u64,
    most: u64,
}

impl Budget {
    fn read(context: &Context<'_>) -> Option<Self> {
        let facts = &context.snapshot.facts;
        let used = u64::try_from(facts.gauge("TCP.mem")?).ok()?;
        let mut words = facts
            .sysctls
            .get("net/ipv4/tcp_mem")?
            .split_ascii_whitespace();
        let (pressure, most) = (words.nth(1)?.parse().ok()?, words.next()?.parse().ok()?);
        (most > 0).then_some(Self {
            used,
            pressure,
            most,
        })
    }
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let budget = Budget::read(context);
    let seconds = context.seconds();
    let rate = |names| match (context.moved(names), seconds) {
        (Moved::By(n), Some(seconds)) => n as f64 / seconds,
        _ => 0.0,
    };
    let (aborts, pruned) = (rate(ABORTS), rate(PRUNED));
    let loses = |rate: f64| rate > 0.0 && rate >= limits.get("drops");
    let Some(budget) = budget else {
        return without_budget(context, limits, (aborts, pruned), &loses);
    };
    let critical = budget.used as f64 * 100.0 >= budget.most as f64 * limits.get("critical");
    // A limit of 0 pages is no limit that a reader could act on.
    let pressed = budget.pressure > 0 && budget.used >= budget.pressure;
    let severity = match (pressed, loses(aborts), loses(pruned)) {
        _ if critical => Severity::Critical,
        (true, true, _) | (true, _, true) => Severity::Critical,
        (true, false, false) => Severity::Warning,
        (false, true, _) if !too_many_orphans(context) => Severity::Warning,
        (false, _, true) => Severity::Info,
        _ => {
            // The level is far from its limit; only resets since boot leave a question.
            return match context.moved(ABORTS) {
                Moved::OneLook => Verdict::CannotTell(ONE_LOOK.to_owned()),
                Moved::By(_) | Moved::NotCounted => Verdict::Quiet,
            };
        }
    };
    let found = finding(
        context,
        limits,
        Some(budget),
        (aborts, pruned),
        severity,
        pressed,
    );
    Verdict::Found(vec![found])
}

/// In a child namespace there is no tcp_mem: the level cannot be judged, what moves can.
fn without_budget(
    context: &Context<'_>,
    limits: &Limits,
    (aborts, pruned): (f64, f64),
    loses: &dyn Fn(f64) -> bool,
) -> Verdict {
    let severity = match (loses(aborts), loses(pruned)) {
        (true, _) if !too_many_orphans(context) => Severity::Warning,
        (_, true) => Severity::Info,
        _ => {
            let why = "tcp_mem, the host's limit, is not to be seen in this network namespace";
            return match context.moved(ALL) {
                Moved::By(0) => Verdict::Quiet,
                Moved::By(_) => Verdict::CannotTell(format!("memory counters move, and {why}")),
                Moved::OneLook => Verdict::CannotTell(format!("{why}; {ONE_LOOK}")),
                Moved::NotCounted => Verdict::CannotTell(format!("{why}, nor are its counters")),
            };
        }
    };
    let found = finding(context, limits, None, (aborts, pruned), severity, false);
    Verdict::Found(vec![found])
}

/// Orphans over their limit are reset under the same counter (`tcp_out_of_resources()` in net/ipv4/tcp_timer.c).
fn too_many_orphans(context: &Context<'_>) -> bool {
    let facts = &context.snapshot.facts;
    let (orphans, most) = (
        facts.gauge("TCP.orphan"),
        facts.sysctl("net/ipv4/tcp_max_orphans"),
    );
    // Half: an orphan that has retransmitted counts double, one with a window of 0 four times.
    matches!((orphans, most), (Some(orphans), Some(most)) if orphans.saturating_mul(4) >= most)
}

/// The programs with most bytes in the queues of their sockets, what they have there, and all that is queued.
fn hoarders(context: &Context<'_>) -> (Vec<(String, u64)>, u64, Vec<u32>) {
    let snapshot = context.snapshot;
    let mut by: BTreeMap<String, u64> = BTreeMap::new();
    let mut rows: Vec<(u64, u32)> = Vec::new();
    let mut total = 0;
    for row in context.tally.queued.iter().chain(&context.tally.unaccepted) {
        let Some(socket) = snapshot.socket(*row) else {
            continue;
        };
        let bytes = u64::from(socket.recv_q) + u64::from(socket.send_q);
        let name = match words::holder(snapshot, socket) {
            Some(owner) => words::process(owner),
            None if socket.inode == 0 => "sockets without a program".to_owned(),
            None => "programs not seen".to_owned(),
        };
        *by.entry(name).or_default() += bytes;
        rows.push((bytes, *row));
        total += bytes;
    }
    let mut by: Vec<(String, u64)> = by.into_iter().filter(|(_, bytes)| *bytes > 0).collect();
    by.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    by.truncate(3);
    rows.sort_by_key(|(bytes, row)| (std::cmp::Reverse(*bytes), *row));
    let rows = rows.into_iter().take(10).map(|(_, row)| row).collect();
    (by, total, rows)
}

fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn finding(
    context: &Context<'_>,
    limits: &Limits,
    budget: Option<Budget>,
    (aborts, pruned): (f64, f64),
    severity: Severity,
    pressed: bool,
) -> Finding {
    let page = context.snapshot.facts.page_size.unwrap_or(4096);
    let (most_queued, queued, rows) = hoarders(context);
    let mut evidence = Vec::new();
    if let Some(budget) = budget {
        let source = "sockstat TCP.mem";
        evidence.push(
            Evidence::count("memory", budget.used, "pages", source).limit(budget.pressure as f64),
        );
        evidence.push(Evidence::count(
            "maximum",
            budget.most,
            "pages",
            "net.ipv4.tcp_mem",
        ));
        let critical = limits.get("critical");
        let share = budget.used as f64 * 100.0 / budget.most as f64;
        evidence.push(Evidence::real("share", share, "%", source).limit(critical));
    }
    for (name, rate, source) in [
        ("connections_reset", aborts, "TCPAbortOnMemory"),
        ("segments_thrown_away", pruned, "RcvPruned, TCPRcvQDrop"),
    ] {
        if rate > 0.0 {
            evidence.push(Evidence::real(name, rate, "1/s", source).limit(limits.get("drops")));
        }
    }
    let queues = "idiag_rqueue, idiag_wqueue";
    evidence.push(Evidence::count("queued_here", queued, "bytes", queues));
    if !most_queued.is_empty() {
        let text: Vec<String> = most_queued
            .iter()
            .map(|(name, bytes)| format!("{name} {}", megabytes(*bytes)))
            .collect();
        evidence.push(Evidence::text("most_queued", text.join(", "), queues));
    }
    let per_second = |rate: f64| words::thousands(rate.round().max(1.0) as u64);
    let top = most_queued.first();
    let by = top.map_or(String::new(), |(name, bytes)| {
        format!("; {name} has {} queued", megabytes(*bytes))
    });
    let level = budget.map(|budget| {
        let share = words::percent(budget.used, budget.most);
        let (used, most) = (megabytes(budget.used * page), megabytes(budget.most * page));
        format!("TCP memory of the host at {share} % of its maximum, {used} of {most}")
    });
    let lost = if aborts > 0.0 {
        format!(
            "{} connections a second are reset for lack of memory",
            per_second(aborts)
        )
    } else {
        format!(
            "{} segments a second are thrown away for lack of buffer",
            per_second(pruned)
        )
    };
    let high = pressed || severity == Severity::Critical;
    let title = match level {
        Some(level) if high => words::fit([format!("{level}{by}"), level]),
        _ => words::fit([format!("{lost}{by}"), lost]),
    };
    let here = budget.is_some_and(|budget| queued * 4 >= budget.used * page);
    let explanation = match (severity, high) {
        (Severity::Info, _) => {
            "Single sockets got more than their receive buffer holds, and the kernel threw segments away; the peer sends \
             them again. The memory of the host is not short. A small SO_RCVBUF or a program that reads slowly does this."
        }
        (_, false) => {
            "The kernel resets connections for lack of memory, although the host's budget is not known to be spent. A \
             memory limit of a container or unit (memory.max) does the same, and so do too many orphans."
        }
        (_, true) if here => {
            "All TCP sockets of the host share this memory, and much of it is in the queues below: data that a program \
             does not read, or a peer does not take. The kernel shrinks windows first, then resets connections."
        }
        (_, true) => {
            "All TCP sockets of the host share this memory, and little of it is queued in this network namespace: look \
             into the others. The kernel shrinks windows first, then resets connections."
        }
    };
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title,
        subject: Subject::Host,
        evidence,
        explanation: explanation.to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: if severity == Severity::Info {
            Actor::ThisProgram
        } else {
            Actor::Operator
        },
        advice: vec![
            "linger list -m -p    # whose queues and buffers are full".to_owned(),
            "mend who does not read; then lower the third numbers of tcp_rmem and tcp_wmem; tcp_mem last".to_owned(),
            "do not: enlarge tcp_rmem or tcp_wmem; each socket would take more of the same budget".to_owned(),
        ],
        rows,
        caused_by: None,
        one_sample: false,
    }
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.sysctl("net/ipv4/tcp_mem", "500\t1000\t2000");
    let facts = &mut scenario.snapshot.facts;
    facts.sockstat.insert("TCP.mem".to_owned(), i64::from(n));
    let process = scenario.process(7, "java", 20, 1024);
    let remote = Endpoint::v4(THERE, 5000);
    let mut socket = scenario.socket(TcpState::Established, Endpoint::v4(HERE, 40_000), remote);
    socket.recv_q = 3_000_000;
    let socket = scenario.held_by(process, socket);
    scenario.push(
        socket,
        &[("last_data_recv_ms", 1), ("last_data_sent_ms", 1)],
    );
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Analysis;

    fn judged(scenario: Scenario) -> Analysis {
        scenario.judge(DETECTOR.id)
    }

    fn with(pages: u32, moved: &[(&str, i64)]) -> Option<Severity> {
        let mut scenario = example(pages);
        scenario.pulse(moved, |_| {});
        let findings = judged(scenario).findings;
        findings.first().map(|finding| finding.severity)
    }

    #[test]
    fn levels_with_edited_facts() {
        assert_eq!(with(999, &[]), None);
        assert_eq!(with(1000, &[]), Some(Severity::Warning));
        assert_eq!(with(1799, &[]), Some(Severity::Warning));
        assert_eq!(with(1800, &[]), Some(Severity::Critical));
    }

    #[test]
    fn losses_with_edited_facts() {
        let aborts = |n| [("TcpExt.TCPAbortOnMemory", n)];
        let pruned = |n| [("TcpExt.RcvPruned", n)];
        assert_eq!(with(1000, &aborts(1)), Some(Severity::Critical));
        assert_eq!(with(1000, &pruned(1)), Some(Severity::Critical));
        assert_eq!(
            with(10, &aborts(1)),
            Some(Severity::Warning),
            "a container's limit"
        );
        assert_eq!(with(10, &pruned(1)), Some(Severity::Info), "one bad socket");
        assert_eq!(with(10, &[("TcpExt.PruneCalled", 999)]), None);
        assert_eq!(with(10, &aborts(0)), None);
    }

    #[test]
    fn orphans_that_are_reset_are_no_lack_of_memory_with_edited_facts() {
        let of = |orphans| {
            let mut scenario = example(10);
            scenario.sysctl("net/ipv4/tcp_max_orphans", "1000");
            let sockstat = &mut scenario.snapshot.facts.sockstat;
            sockstat.insert("TCP.orphan".to_owned(), orphans);
            scenario.pulse(&[("TcpExt.TCPAbortOnMemory", 50)], |_| {});
            judged(scenario).findings.len()
        };
        assert_eq!((of(249), of(250)), (1, 0));
    }

    #[test]
    fn a_child_namespace_cannot_tell_only_if_something_moved_with_edited_facts() {
        let child = |moved: Option<i64>, before: i64| {
            let mut scenario = example(1900);
            let facts = &mut scenario.snapshot.facts;
            facts.sysctls.remove("net/ipv4/tcp_mem");
            facts
                .counters
                .insert("TcpExt.TCPMemoryPressures".to_owned(), before);
            if let Some(moved) = moved {
                scenario.pulse(&[("TcpExt.TCPMemoryPressures", moved)], |_| {});
            }
            judged(scenario)
        };
        assert_eq!(child(None, 0).quiet, [DETECTOR.id]);
        assert_eq!(child(Some(0), 9).quiet, [DETECTOR.id]);
        assert_eq!(child(Some(1), 9).unknown.len(), 1);
        assert_eq!(child(None, 9).unknown.len(), 1);
    }

    #[test]
    fn resets_since_boot_need_a_second_look_with_edited_facts() {
        let mut scenario = example(10);
        let counters = &mut scenario.snapshot.facts.counters;
        counters.insert("TcpExt.TCPAbortOnMemory".to_owned(), 5);
        assert_eq!(judged(scenario.clone()).unknown.len(), 1);
        scenario.pulse(&[], |_| {});
        assert_eq!(judged(scenario).quiet, [DETECTOR.id]);
    }

    #[test]
    fn who_has_most_queued_is_named_with_edited_facts() {
        let finding = judged(example(1800)).findings.remove(0);
        assert!(
            finding.title.ends_with("java[7] has 3.0 MB queued"),
            "{}",
            finding.title
        );
        assert_eq!(finding.rows, [0]);
        assert!(finding.explanation.contains("in the queues below"));
        let mut elsewhere = example(1800);
        elsewhere.snapshot.sockets[0].recv_q = 10;
        let finding = judged(elsewhere).findings.remove(0);
        assert!(finding.explanation.contains("look into the others"));
    }
}
