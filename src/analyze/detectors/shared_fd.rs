//! Sockets that unrelated programs hold together: closing one's descriptor closes nothing.

use std::collections::BTreeMap;

use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::model::{Actor, Endpoint, Evidence, Finding, Process, Severity, Socket, TcpState};

pub const DETECTOR: Detector = Detector {
    id: "shared-fd",
    aliases: &[],
    summary: "another program holds the same sockets, so that close() alone does not end them",
    signals: "sockets in LISTEN, ESTABLISHED or CLOSE-WAIT that are in /proc/PID/fd of processes with different names. \
              Workers of one name that share a listener or a session are made so, and so is what init passes on.",
    explanation: "A socket ends when its last descriptor is closed. A descriptor that a child inherited over fork() and \
                  exec(), or that was sent to another process, keeps it: no FIN is sent, and a listener's port stays \
                  taken. shutdown() ends a connection whoever holds it.",
    grounds: &[
        "TCP state in OS, CLOSE_WAIT",
        "Linux kernel, fs/file_table.c: fput()",
        "RFC 9293 section 3.6",
    ],
    advice: &[
        "open sockets with SOCK_CLOEXEC, accept them with accept4(SOCK_CLOEXEC), and close in the child what it does not use",
        "shutdown(SHUT_WR) sends the FIN whoever else holds the socket",
    ],
    folklore: &["close() sends a FIN only if no other descriptor refers to the socket"],
    states: &[TcpState::Listen, TcpState::Established, TcpState::CloseWait],
    worst: Severity::Info,
    thresholds: &[Threshold {
        key: "min",
        default: 1.0,
        unit: Unit::Count,
        doc: "so many sockets of two programs are worth knowing: one is enough to hold a port or a session",
    }],
    blind: &[],
    needs: Needs {
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "sockets that a child of another name has inherited",
        limit: 1,
        build: example,
    },
};

/// init holds what it has opened for others.
const INIT: u32 = 1;

/// The sockets that two programs share.
#[derive(Default)]
struct Pair {
    rows: Vec<u32>,
    listeners: u64,
    close_wait: u64,
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let mut pairs: BTreeMap<(u32, u32), (Pair, &Process, &Process)> = BTreeMap::new();
    for row in &context.tally.shared {
        let Some(socket) = snapshot.socket(*row) else {
            continue;
        };
        let Some((first, second)) = strangers(context, socket) else {
            continue;
        };
        let entry = pairs.entry((first.pid, second.pid));
        let (pair, ..) = entry.or_insert_with(|| (Pair::default(), first, second));
        match socket.state {
            TcpState::Listen => pair.listeners += 1,
            TcpState::CloseWait => pair.close_wait += 1,
            TcpState::Established => {}
            _ => continue,
        }
        pair.rows.push(*row);
    }
    let mut pairs: Vec<_> = pairs
        .into_values()
        .filter(|(pair, ..)| !pair.rows.is_empty() && pair.rows.len() as f64 >= limits.get("min"))
        .collect();
    pairs.sort_by_key(|(pair, ..)| std::cmp::Reverse(pair.rows.len()));
    if pairs.is_empty() {
        return unseen(context).map_or(Verdict::Quiet, Verdict::CannotTell);
    }
    let findings = pairs.iter().take(MOST);
    let findings = findings.map(|(pair, first, second)| finding(pair, first, second, limits));
    Verdict::Found(findings.collect())
}

/// More findings than this are a list that nobody reads.
const MOST: usize = 5;

/// Why more sockets may be shared than were seen to be.
fn unseen(context: &Context<'_>) -> Option<String> {
    let coverage = &context.snapshot.coverage;
    if context.tally.total() == 0 {
        None
    } else if !coverage.owners_read {
        Some("who holds the sockets was not read".to_owned())
    } else if coverage.unowned > 0 && coverage.unreadable_processes > 0 {
        let n = words::count(coverage.unowned, "socket");
        Some(format!("the holders of {n} could not be seen"))
    } else if coverage.owners_timed_out {
        Some("not all processes were read in time".to_owned())
    } else {
        None
    }
}

/// Two holders of a socket that are not of one program: the one with the lowest pid, which most often came first,
/// and the first that has another name.
fn strangers<'a>(context: &Context<'a>, socket: &Socket) -> Option<(&'a Process, &'a Process)> {
    let holders = || {
        let holders = context.snapshot.owners.of(socket.inode);
        holders
            .map(|(process, _)| process)
            .filter(|process| process.pid != INIT)
    };
    let first = holders().min_by_key(|process| process.pid)?;
    // `nginx` and `nginx: worker`, `sshd` and `sshd-session` are one program.
    let related = |other: &Process| {
        let (a, b) = (first.comm.as_str(), other.comm.as_str());
        a.starts_with(b) || b.starts_with(a)
    };
    let second = holders()
        .filter(|other| !related(other))
        .min_by_key(|process| process.pid)?;
    Some((first, second))
}

fn finding(pair: &Pair, first: &Process, second: &Process, limits: &Limits) -> Finding {
    let count = pair.rows.len() as u64;
    let (one, other) = (words::process(first), words::process(second));
    let sockets = words::count(count, "socket");
    let sessions = count - pair.listeners;
    let kinds = match (pair.listeners, sessions) {
        (0, _) => String::new(),
        (listeners, 0) => format!(", {}", words::count(listeners, "listener")),
        (listeners, _) => format!(", {} of them listening", words::thousands(listeners)),
    };
    let source = "/proc/PID/fd";
    let mut evidence = vec![
        Evidence::count("shared_sockets", count, "sockets", source).limit(limits.get("min")),
        Evidence::text("also_held_by", other.clone(), source),
    ];
    for (name, number) in [
        ("listening", pair.listeners),
        ("in_close_wait", pair.close_wait),
    ] {
        if number > 0 {
            evidence.push(Evidence::count(name, number, "sockets", "idiag_state"));
        }
    }
    let effect = if sessions == 0 {
        format!(
            "While {other} runs, the port stays taken when {one} ends, and connections may wait in a queue that nobody empties."
        )
    } else {
        format!("close() in {one} sends no FIN while {other} holds the connection.")
    };
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity: Severity::Info,
        title: words::fit([
            format!("{one} and {other} hold {sockets} together{kinds}: close() in one is not enough"),
            format!("{one} and {other} hold {sockets} together{kinds}"),
        ]),
        subject: words::process_subject(Some(first), None),
        evidence,
        explanation: format!(
            "A socket ends when its last descriptor is closed. {effect} Some programs share sockets on purpose."
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            format!("linger pid:{}    # what else it holds", second.pid),
            "SOCK_CLOEXEC where it is opened; close it in the child; or shutdown() to end it whoever holds it"
                .to_owned(),
            format!("do not: kill {other} before you know whether it shares on purpose"),
        ],
        rows: pair.rows.iter().copied().take(10).collect(),
        caused_by: None,
        one_sample: false,
    }
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let parent = scenario.process(7, "java", 20, 1024);
    let child = scenario.process(8, "sh", 20, 1024);
    for i in 0..n {
        let local = Endpoint::v4(HERE, 8080);
        let remote = Endpoint::v4(THERE, 5000 + (i % 60_000) as u16);
        let socket = scenario.socket(TcpState::Established, local, remote);
        let socket = scenario.held_by(parent, socket);
        let socket = scenario.held_by(child, socket);
        let idle = ["last_ack_recv_ms", "last_data_recv_ms", "last_data_sent_ms"];
        scenario.push(socket, &idle.map(|name| (name, 1)));
    }
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Analysis;

    fn judged(scenario: Scenario) -> Analysis {
        scenario.judge(DETECTOR.id)
    }

    /// One socket in `state`, held by processes of these names and pids.
    fn held(state: TcpState, by: &[(u32, &str)]) -> Scenario {
        let mut scenario = Scenario::default();
        let far = Endpoint::v4(THERE, 5000);
        let mut socket = scenario.socket(state, Endpoint::v4(HERE, 8080), far);
        for (pid, comm) in by {
            let process = scenario.process(*pid, comm, 20, 1024);
            socket = scenario.held_by(process, socket);
        }
        scenario.push(socket, &[]);
        scenario
    }

    #[test]
    fn unrelated_programs_are_told_and_never_above_info() {
        use TcpState::{CloseWait, Established, Listen};
        for state in [Listen, Established, CloseWait] {
            let analysis = judged(held(state, &[(9, "sleep"), (7, "java")]));
            let [finding] = &analysis.findings[..] else {
                panic!("{analysis:?}")
            };
            assert_eq!(finding.severity, Severity::Info);
            assert!(
                finding
                    .title
                    .starts_with("java[7] and sleep[9] hold 1 socket"),
                "{}",
                finding.title
            );
        }
    }

    #[test]
    fn workers_sessions_and_init_share_on_purpose() {
        use TcpState::{Established, Listen};
        for (state, by) in [
            (Listen, [(7, "nginx"), (8, "nginx")]),
            (Listen, [(7, "nginx"), (8, "nginx: worker")]),
            (Listen, [(1, "systemd"), (8, "cupsd")]),
            (Established, [(7, "sshd-session"), (8, "sshd")]),
            (Established, [(7, "sshd"), (7, "sshd")]),
        ] {
            let analysis = judged(held(state, &by));
            assert_eq!(analysis.quiet, [DETECTOR.id], "{by:?}");
        }
        let ending = judged(held(TcpState::TimeWait, &[(7, "java"), (8, "sh")]));
        assert_eq!(ending.quiet, [DETECTOR.id]);
    }

    #[test]
    fn a_listener_of_a_dead_parent_keeps_its_port() {
        let analysis = judged(held(TcpState::Listen, &[(7, "java"), (8, "sh")]));
        assert!(
            analysis.findings[0]
                .explanation
                .contains("port stays taken")
        );
        let session = judged(held(TcpState::Established, &[(7, "java"), (8, "sh")]));
        assert!(session.findings[0].explanation.contains("sends no FIN"));
    }

    #[test]
    fn holders_that_were_not_seen_leave_it_open() {
        let mut scenario = held(TcpState::Established, &[(7, "java")]);
        assert!(judged(scenario.clone()).unknown.is_empty());
        scenario.snapshot.coverage.unowned = 1;
        scenario.snapshot.coverage.unreadable_processes = 1;
        assert_eq!(judged(scenario).unknown.len(), 1);
    }
}
