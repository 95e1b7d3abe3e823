//! Closed sockets that the kernel still has to finish, against what the machine keeps of them.

use crate::analyze::role;
use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{
    Context, Detector, Limits, Needs, Threshold, Unit, Verdict, unanswered, words,
};
use crate::model::{Actor, Evidence, Finding, Severity, Subject, TcpState, Timer};

/// Sockets that the kernel reset because there were too many orphans, or memory was short.
const ABORTED: &str = "TcpExt.TCPAbortOnMemory";

pub const DETECTOR: Detector = Detector {
    id: "orphan-pile-up",
    aliases: &[],
    summary: "the kernel has many closed sockets to finish, and may soon reset them",
    signals: "sockstat's `orphan` against tcp_max_orphans, both of the whole machine: its orphans may be of any network \
              namespace, and a child namespace cannot read the limit. There only the orphans of this namespace are \
              told: FIN-WAIT-1, LAST-ACK and CLOSING without a descriptor.",
    explanation: "An orphan is a socket that its program has closed while data or a FIN still has to get through. Each \
                  may hold a whole send buffer. Above tcp_max_orphans the kernel resets them, and their data is lost; \
                  it counts those that have been idle, or have met errors, twice or four times, so that begins below \
                  the limit.",
    grounds: &[
        "TCP state in OS, FIN_WAIT_1",
        "TCP state in OS, LAST_ACK",
        "Linux kernel, net/ipv4/tcp.c: tcp_too_many_orphans()",
        "Linux kernel, net/ipv4/tcp_timer.c: tcp_out_of_resources()",
    ],
    advice: &[
        "find who does not answer or does not read: fin-wait-1-stuck, last-ack-stuck, zero-window-peer",
        "let programs set SO_SNDTIMEO or TCP_USER_TIMEOUT and read the peer's answer before they close",
    ],
    folklore: &[
        "a higher tcp_max_orphans alone only lets them take more memory: 64 KB each and more",
    ],
    states: &[TcpState::FinWait1, TcpState::LastAck, TcpState::Closing],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "info",
            default: 100.0,
            unit: Unit::Count,
            doc: "orphans of this namespace that are worth knowing where the machine's limit cannot be read",
        },
        Threshold {
            key: "warn",
            default: 25.0,
            unit: Unit::Percent,
            doc: "of tcp_max_orphans: the kernel counts an orphan four times at most, so none is reset before",
        },
        Threshold {
            key: "critical",
            default: 50.0,
            unit: Unit::Percent,
            doc: "of tcp_max_orphans: from here on orphans that were idle count twice, and are reset with their data",
        },
    ],
    blind: &[],
    needs: Needs {
        deltas: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "orphans where tcp_max_orphans is 400",
        limit: 100,
        build: example,
    },
};

/// The orphans of this namespace.
struct Here {
    rows: Vec<u32>,
    bytes: u64,
}

/// The orphans of the machine, and those of this namespace.
pub(in crate::analyze) struct Orphans {
    here: Here,
    /// of the machine
    pub(in crate::analyze) count: u64,
    /// whether the machine's own count was read
    pub(in crate::analyze) known: bool,
    /// `tcp_max_orphans`
    pub(in crate::analyze) max: Option<u64>,
}

impl Orphans {
    pub(in crate::analyze) fn new(context: &Context<'_>) -> Self {
        let facts = &context.snapshot.facts;
        let here = here(context);
        let known = facts
            .gauge("TCP.orphan")
            .and_then(|orphans| u64::try_from(orphans).ok());
        let max = facts
            .sysctl("net/ipv4/tcp_max_orphans")
            .and_then(|max| u64::try_from(max).ok());
        Self {
            // The gauge and the table are read one after the other.
            count: known.unwrap_or(0).max(here.rows.len() as u64),
            known: known.is_some(),
            max: max.filter(|max| *max > 0),
            here,
        }
    }
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let Orphans {
        here,
        count: orphans,
        known,
        max,
    } = Orphans::new(context);
    let count = here.rows.len() as u64;
    let severity = match max.map(|max| orphans as f64 * 100.0 / max as f64) {
        Some(share) if share >= limits.get("critical") => Severity::Critical,
        Some(share) if share >= limits.get("warn") => Severity::Warning,
        Some(_) if known => return Verdict::Quiet,
        _ if count as f64 >= limits.get("info") => Severity::Info,
        _ if (orphans as f64) < limits.get("info") => return Verdict::Quiet,
        _ => {
            return Verdict::CannotTell(format!(
                "{} on the whole machine, {} of this namespace, and tcp_max_orphans cannot be read here",
                words::count(orphans, "orphan"),
                words::thousands(count)
            ));
        }
    };
    Verdict::Found(vec![finding(
        context, limits, orphans, max, &here, severity,
    )])
}

/// In FIN-WAIT-2 an orphan is a full socket only as long as the keepalive timer runs for it.
fn here(context: &Context<'_>) -> Here {
    let tally = context.tally;
    let mut here = Here {
        rows: Vec::new(),
        bytes: 0,
    };
    let closing = tally
        .fin_wait_1
        .iter()
        .chain(&tally.last_ack)
        .chain(&tally.closing);
    for row in closing.chain(&tally.fin_wait_2_orphans) {
        let Some(socket) = context.snapshot.socket(*row) else {
            continue;
        };
        if socket.inode == 0 && socket.timer != Timer::TimeWait {
            here.rows.push(*row);
            here.bytes = here.bytes.saturating_add(u64::from(socket.send_q));
        }
    }
    here
}

fn finding(
    context: &Context<'_>,
    limits: &Limits,
    orphans: u64,
    max: Option<u64>,
    here: &Here,
    severity: Severity,
) -> Finding {
    let count = here.rows.len() as u64;
    let machine = Evidence::count(
        "orphans_of_the_machine",
        orphans,
        "sockets",
        "sockstat TCP.orphan",
    );
    let mut evidence = vec![
        match max {
            Some(max) => machine.limit(max as f64 * limits.get("warn") / 100.0),
            None => machine,
        },
        Evidence::count(
            "orphans_of_this_namespace",
            count,
            "sockets",
            "idiag_inode, idiag_state",
        ),
        Evidence::count("bytes_they_hold_here", here.bytes, "bytes", "idiag_wqueue"),
    ];
    if let Some(max) = max {
        evidence.push(Evidence::count(
            "limit_of_the_machine",
            max,
            "sockets",
            "net.ipv4.tcp_max_orphans",
        ));
    }
    if let Some(aborted) = context.moved(&[ABORTED]).by() {
        evidence.push(Evidence::count(
            "reset_by_the_kernel",
            aborted,
            "sockets",
            "TcpExt.TCPAbortOnMemory",
        ));
    }
    let towards = role::towards(context, here.rows.iter().copied());
    if let Some(most) = towards.first() {
        evidence.push(Evidence::text(
            "most_of_them",
            format!("{} {}", words::thousands(most.stuck()), most.target.words()),
            "idiag_sport, idiag_dst, idiag_dport",
        ));
    }
    let n = words::count(orphans, "orphan");
    let title = match max {
        Some(max) => format!(
            "{n} on the whole machine, {} % of tcp_max_orphans {}; {} of this namespace",
            words::percent(orphans, max),
            words::thousands(max),
            words::thousands(count)
        ),
        None => format!(
            "{} of this namespace hold {} bytes; the machine's limit cannot be read here",
            words::count(count, "orphan"),
            words::thousands(here.bytes)
        ),
    };
    let whose = if count * 2 >= orphans {
        "Most of them are of this network namespace"
    } else {
        "Most of them are of other network namespaces of this machine, whose tables show them"
    };
    let next = match max {
        Some(_) => {
            "Above tcp_max_orphans the kernel resets them and their data is lost; idle ones count twice or more, so that begins at half of it or less"
        }
        None => {
            "Above the machine's tcp_max_orphans, which a child namespace cannot read, the kernel resets them and their data is lost"
        }
    };
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([title, format!("{n} without a program on the whole machine")]),
        subject: Subject::Host,
        evidence,
        explanation: format!(
            "Programs have closed these sockets, and the kernel still has data or a FIN to get through. {whose}. {next}."
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: if severity == Severity::Info {
            Actor::Nobody
        } else {
            Actor::Operator
        },
        advice: vec![
            "linger list -i state fin-wait-1    # who does not answer, or does not read (timer persist)".to_owned(),
            "in the programs: SO_SNDTIMEO or TCP_USER_TIMEOUT, and read the peer's end of file before close()"
                .to_owned(),
            "do not: just raise tcp_max_orphans; each may hold a whole send buffer of memory".to_owned(),
        ],
        rows: here.rows.iter().take(10).copied().collect(),
        caused_by: None,
        one_sample: false,
    }
}

fn example(n: u32) -> Scenario {
    let mut scenario = unanswered::example(TcpState::FinWait1, n);
    scenario.sysctl("net/ipv4/tcp_max_orphans", "400");
    let gauge = scenario
        .snapshot
        .facts
        .sockstat
        .entry("TCP.orphan".to_owned());
    *gauge.or_default() = i64::from(n);
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

    fn severity(scenario: Scenario) -> Option<Severity> {
        alone(scenario).findings.first().map(|f| f.severity)
    }

    /// As a child namespace sees it: `n` here, and so many on the machine.
    fn child(n: u32, machine: i64) -> Scenario {
        let mut scenario = example(n);
        let facts = &mut scenario.snapshot.facts;
        facts.sysctls.remove("net/ipv4/tcp_max_orphans");
        facts.sockstat.insert("TCP.orphan".to_owned(), machine);
        scenario
    }

    #[test]
    fn a_quarter_warns_and_half_is_critical_with_edited_facts() {
        assert_eq!(severity(example(99)), None);
        assert_eq!(severity(example(100)), Some(Severity::Warning));
        assert_eq!(severity(example(199)), Some(Severity::Warning));
        assert_eq!(severity(example(200)), Some(Severity::Critical));
    }

    #[test]
    fn orphans_of_other_namespaces_are_called_so_with_edited_facts() {
        let mut scenario = example(0);
        scenario
            .snapshot
            .facts
            .sockstat
            .insert("TCP.orphan".to_owned(), 150);
        let finding = alone(scenario).findings.remove(0);
        assert_eq!(finding.subject, Subject::Host);
        assert_eq!(
            finding.title,
            "150 orphans on the whole machine, 37 % of tcp_max_orphans 400; 0 of this namespace"
        );
        assert!(finding.explanation.contains("of other network namespaces"));
    }

    #[test]
    fn without_the_machines_limit_the_rows_here_are_info_with_edited_facts() {
        assert_eq!(severity(child(100, 100)), Some(Severity::Info));
        assert_eq!(severity(child(99, 99)), None);
        let elsewhere = alone(child(3, 5_000));
        assert_eq!(
            elsewhere.unknown[0].reason,
            "5,000 orphans on the whole machine, 3 of this namespace, and tcp_max_orphans cannot be read here"
        );
        assert_eq!(alone(child(3, 99)).quiet, [DETECTOR.id]);
    }

    #[test]
    fn sockets_that_a_program_holds_are_no_orphans() {
        let mut scenario = child(200, 0);
        for socket in &mut scenario.snapshot.sockets {
            socket.inode = 7;
        }
        assert_eq!(severity(scenario), None);
    }

    #[test]
    fn a_gauge_read_too_early_does_not_hide_what_the_table_shows() {
        let mut scenario = example(200);
        let sockstat = &mut scenario.snapshot.facts.sockstat;
        sockstat.insert("TCP.orphan".to_owned(), 0);
        assert_eq!(severity(scenario), Some(Severity::Critical));
    }

    #[test]
    fn it_follows_from_peers_that_do_not_answer() {
        let findings = example(200).analyze(&Settings::default()).findings;
        let finding = findings.iter().find(|f| f.id == DETECTOR.id).unwrap();
        assert_eq!(finding.caused_by, Some("fin-wait-1-stuck"));
    }
}
