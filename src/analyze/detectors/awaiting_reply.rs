//! Destinations that take requests and no longer answer.

use std::collections::BTreeMap;

use crate::analyze::group::{self, Target};
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::silence;
use crate::analyze::{Blind, Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::history::Counts;
use crate::model::{
    Actor, Endpoint, Evidence, Finding, LastWord, Process, Severity, Subject, TcpState, WaitingOn,
};

pub const DETECTOR: Detector = Detector {
    id: "awaiting-reply",
    aliases: &[],
    summary: "a destination acknowledges requests and does not answer them",
    signals: "ESTABLISHED sockets that this host dialled, with empty queues, on which this end sent last and nothing \
              came back for `age`. They are held against when the destination last sent anything on any connection, \
              and against the clients that the same programs have left without an answer since then.",
    explanation: "The request was acknowledged, so the kernel at the other end, or a proxy before it, has it. The \
                  program there does not answer: it hangs, waits for a lock or a disk, or died behind the proxy. Long \
                  polls, subscriptions and workers without a job look the same. Where clients of the same program wait \
                  too, it is none of these.",
    grounds: &[
        "RFC 793 section 2.6",
        "Linux kernel, net/ipv4/tcp_output.c: tcp_event_data_sent()",
    ],
    advice: &[
        "look at the server behind the destination, and at the proxy before it",
        "give the client a read time-out, so that callers fail fast",
    ],
    folklore: &["keepalive proves only that the other kernel lives, not its program"],
    states: &[TcpState::Established],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "age",
            default: 30.0,
            unit: Unit::Seconds,
            doc: "without an answer for so long: more than nearly all requests take, and more than most time-outs",
        },
        Threshold {
            key: "min",
            default: 5.0,
            unit: Unit::Count,
            doc: "fewer connections that wait are a slow request, a long poll or a subscription; and so many clients of \
                  the same programs have to wait too, or it may be workers without a job",
        },
        Threshold {
            key: "share",
            default: 50.0,
            unit: Unit::Percent,
            doc: "of the established connections to the destination: most of them wait",
        },
        Threshold {
            key: "span",
            default: 10.0,
            unit: Unit::Seconds,
            doc: "before the destination's last word: requests from before that were slow already, or are long polls; and \
                  after it: clients of ours that asked later count as waiting for it",
        },
        Threshold {
            key: "gap",
            default: 0.1,
            unit: Unit::Seconds,
            doc: "between what came last and what was sent then: sooner it may be a protocol's own acknowledgement, or \
                  the next long poll",
        },
    ],
    blind: &[Blind {
        since: (4, 2),
        lacks: "tcpi_bytes_received",
        effect: "a destination that never answers, such as a log collector, looks the same: info at most",
    }],
    needs: Needs {
        tcp_info: true,
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "connections to one destination that wait for an answer",
        limit: 5,
        build: example,
    },
};

/// A connection on which this end has asked.
struct Question {
    row: u32,
    asked_ms: u64,
    /// what had come before: long before, so that this is surely something new
    fresh: bool,
    /// whether the kernel tells what came in
    counted: bool,
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    if let Some(why) = silence::unseen(context) {
        return Verdict::CannotTell(why);
    }
    let mut waiting: BTreeMap<Endpoint, Vec<Question>> = BTreeMap::new();
    for row in &context.tally.silent {
        if let Some((remote, question)) = question(context, limits, *row) {
            waiting.entry(remote).or_default().push(question);
        }
    }
    let counts = silence::destinations(context, waiting.keys().copied());
    let mut findings: Vec<(usize, Finding)> = waiting
        .into_iter()
        .filter_map(|(remote, questions)| {
            let counts = counts.get(&remote)?;
            let number = questions.len();
            Some((number, judge(context, limits, remote, questions, counts)?))
        })
        .collect();
    findings.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    Verdict::of(group::capped(
        findings.into_iter().map(|(_, finding)| finding).collect(),
    ))
}

fn question(context: &Context<'_>, limits: &Limits, row: u32) -> Option<(Endpoint, Question)> {
    let socket = context.snapshot.socket(row)?;
    let info = context.snapshot.info(socket)?;
    let asked_ms = u64::from(info.last_data_sent_ms);
    // Unanswered keepalive probes mean another trouble: there the network is waited for.
    let waits = socket.inode != 0
        && asked_ms >= limits.ms("age")
        && LastWord::new(&info) == LastWord::Ours
        && WaitingOn::new(socket, Some(&info)) == Some(WaitingOn::Peer);
    let Target::Destination(remote) = Target::of(context, socket) else {
        return None;
    };
    waits.then(|| {
        let gap = u64::from(info.last_data_recv_ms).saturating_sub(asked_ms);
        let question = Question {
            row,
            asked_ms,
            fresh: gap >= limits.ms("gap"),
            counted: info.bytes_received().is_some(),
        };
        (remote, question)
    })
}

/// What is known of the destination.
#[derive(Clone, Copy)]
enum Heard {
    /// it has never sent anything on the connections of today
    Never,
    /// it answers somebody
    Lately,
    /// it sent its last data to anybody before so many milliseconds
    Before(u64),
}

fn judge(
    context: &Context<'_>,
    limits: &Limits,
    remote: Endpoint,
    mut questions: Vec<Question>,
    counts: &Counts,
) -> Option<Finding> {
    let established = u64::from(counts.of(TcpState::Established)).max(questions.len() as u64);
    let heard = match counts.heard_ms.map(u64::from) {
        None => Heard::Never,
        Some(ms) if ms < limits.ms("age") => Heard::Lately,
        Some(ms) => Heard::Before(ms),
    };
    // What was asked long before the destination's last word was slow, or a long poll, while it still answered others.
    if let Heard::Before(ms) = heard {
        let since = ms.saturating_add(limits.ms("span"));
        questions.retain(|question| question.asked_ms <= since);
    }
    let number = questions.len() as u64;
    let most = number as f64 * 100.0 >= established as f64 * limits.get("share");
    let enough = number as f64 >= limits.get("min");
    let fresh = questions.iter().filter(|question| question.fresh).count();
    let was_talking = context
        .history
        .earlier()
        .iter()
        .any(|sample| sample.talking.binary_search(&remote).is_ok());
    let proven = fresh as f64 >= limits.get("min") || (fresh > 0 && was_talking);
    let clients = match heard {
        Heard::Before(ms) => {
            let rows = questions.iter().map(|question| question.row);
            silence::clients_waiting(context, rows, ms.saturating_sub(limits.ms("span")))
        }
        Heard::Never | Heard::Lately => 0,
    };
    let severity = match heard {
        Heard::Before(_) if most && enough && proven => {
            // A night without jobs is as silent as a hung server, but then nobody waits here. And it may never have
            // answered anybody, where the kernel does not tell.
            if clients as f64 >= limits.get("min")
                && questions.iter().all(|question| question.counted)
            {
                Severity::Warning
            } else {
                Severity::Info
            }
        }
        // A single one is most often a subscription, or a client whose listener is gone.
        Heard::Before(_) if most && (enough || fresh > 0 && number > 1) => Severity::Info,
        Heard::Never | Heard::Lately if most && enough => Severity::Info,
        _ => return None,
    };
    questions.sort_unstable_by_key(|question| (std::cmp::Reverse(question.asked_ms), question.row));
    let longest = questions.first()?.asked_ms;
    let mut evidence = vec![
        Evidence::count(
            "waiting",
            number,
            "sockets",
            "tcpi_last_data_sent, tcpi_last_data_recv",
        )
        .limit(limits.get("min")),
        Evidence::count(
            "share_of_established",
            words::percent(number, established),
            "%",
            "idiag_state",
        )
        .limit(limits.get("share")),
        Evidence::real(
            "longest_wait",
            longest as f64 / 1000.0,
            "s",
            "tcpi_last_data_sent",
        )
        .limit(limits.get("age")),
        Evidence::count(
            "surely_new_requests",
            fresh as u64,
            "sockets",
            "tcpi_last_data_sent, tcpi_last_data_recv",
        ),
    ];
    if let Some(ms) = counts.heard_ms {
        let seconds = f64::from(ms) / 1000.0;
        evidence.push(Evidence::real(
            "heard_from_it_before",
            seconds,
            "s",
            "tcpi_last_data_recv",
        ));
    }
    if clients > 0 {
        evidence.push(
            Evidence::count(
                "own_clients_waiting",
                clients,
                "sockets",
                "tcpi_last_data_recv, tcpi_last_data_sent",
            )
            .limit(limits.get("min")),
        );
    }
    let rows: Vec<u32> = questions.iter().map(|question| question.row).collect();
    if let Some(owner) = holder(context, &rows) {
        evidence.push(Evidence::text(
            "asked_by",
            words::process(owner),
            "/proc/PID/fd",
        ));
    }
    let (n, of) = (words::thousands(number), words::thousands(established));
    let plural = if established == 1 { "" } else { "s" };
    let title = |destination: String| match heard {
        Heard::Before(ms) => format!(
            "{destination} went silent at {}, {n} of {of} connection{plural} wait",
            words::moment(context.snapshot.taken, ms)
        ),
        Heard::Lately => format!(
            "{destination} answers, but {n} of {of} connection{plural} wait, the longest for {}",
            words::time(longest)
        ),
        Heard::Never => format!(
            "{destination} has never answered on {n} of {of} connection{plural}, the longest for {}",
            words::time(longest)
        ),
    };
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([title(words::endpoint(&remote)), title(words::brief(&remote))]),
        subject: Subject::Destination {
            address: remote.ip(),
            port: remote.port,
            source_address: None,
        },
        evidence,
        explanation: explanation(heard, severity).to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Peer,
        advice: vec![
            format!("linger {}    # who waits there, and since when", remote.ip()),
            "see whether the server there hangs (locks, disk, memory), or the proxy before it lost it; give the client \
             a read time-out"
                .to_owned(),
            "do not: take answered keepalive for life; the other kernel answers it, not the program".to_owned(),
        ],
        rows: rows.into_iter().take(10).collect(),
        caused_by: None,
        one_sample: false,
    })
}

const fn explanation(heard: Heard, severity: Severity) -> &'static str {
    match (heard, severity) {
        (Heard::Before(_), Severity::Warning | Severity::Critical) => {
            "The requests were acknowledged, so they arrived there, and since then no data has come on any connection \
             to this destination: probably the program there hangs, or a proxy before it lost it. Clients of the program that \
             asked have had no answer since then either, and without a read time-out they wait for ever."
        }
        (Heard::Before(_), _) => {
            "This end has sent last and no data came back, on any connection to this destination. That is a request \
             without an answer, or as it should be: a long poll, a subscription, an idle worker, a protocol's own \
             acknowledgement."
        }
        (Heard::Lately, _) => {
            "The destination sends data on other connections, while these have asked and got none. Slow requests (a \
             lock, a big query) and long polls look like this."
        }
        (Heard::Never, _) => {
            "This end has sent and has never received anything on any connection to this destination. A collector of \
             logs or metrics is like that; a server that is expected to answer hangs, or does not accept."
        }
    }
}

/// The process that holds most of them.
fn holder<'a>(context: &Context<'a>, rows: &[u32]) -> Option<&'a Process> {
    let mut holders: BTreeMap<u32, (usize, &'a Process)> = BTreeMap::new();
    for socket in rows.iter().filter_map(|row| context.snapshot.socket(*row)) {
        if let Some(owner) = words::holder(context.snapshot, socket) {
            holders.entry(owner.pid).or_insert((0, owner)).0 += 1;
        }
    }
    let most = holders.into_values().max_by_key(|(count, _)| *count);
    most.map(|(_, owner)| owner)
}

fn example(n: u32) -> Scenario {
    served(&vec![ASKED; n as usize], 5)
}

/// A pool, and so many clients that wait for what it was asked for.
fn served(connections: &[Stamps], clients: usize) -> Scenario {
    let mut scenario = pool(connections);
    accept(&mut scenario, 0, &vec![(60_000, 15_000, 700); clients]);
    scenario
}

/// Connections that the process has accepted.
fn accept(scenario: &mut Scenario, process: u32, clients: &[Stamps]) {
    scenario.listen(process, 8080, 0, 511, 0);
    for (i, (sent, received, bytes)) in (0u16..).zip(clients) {
        let peer = Endpoint::v4(THERE, 50_000 + i);
        let socket = scenario.socket(TcpState::Established, Endpoint::v4(HERE, 8080), peer);
        let socket = scenario.held_by(process, socket);
        scenario.push(
            socket,
            &[
                ("last_data_sent_ms", *sent),
                ("last_data_recv_ms", *received),
                ("bytes_received", *bytes),
            ],
        );
    }
}

/// Milliseconds since this end sent and since data came in, and the bytes that came.
type Stamps = (u64, u64, u64);

/// Asked 40 s ago, two seconds after the last answer.
const ASKED: Stamps = (40_000, 42_000, 900);

/// Dialled connections to one destination.
fn pool(connections: &[Stamps]) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(55, "api", 30, 1_048_576);
    for (i, (sent, received, bytes)) in (0u16..).zip(connections) {
        let socket = scenario.socket(
            TcpState::Established,
            Endpoint::v4(HERE, 40_000 + i),
            Endpoint::v4(THERE, 5432),
        );
        let socket = scenario.held_by(process, socket);
        scenario.push(
            socket,
            &[
                ("last_data_sent_ms", *sent),
                ("last_data_recv_ms", *received),
                ("last_ack_recv_ms", *sent.min(received)),
                ("bytes_acked", 900),
                ("bytes_received", *bytes),
            ],
        );
    }
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;

    fn worst(scenario: Scenario) -> Option<Finding> {
        let findings = scenario.analyze(&Settings::default()).findings;
        findings
            .into_iter()
            .find(|finding| finding.id == DETECTOR.id)
    }

    fn severity(connections: &[Stamps]) -> Option<Severity> {
        worst(served(connections, 5)).map(|finding| finding.severity)
    }

    fn many(n: usize, stamps: Stamps) -> Vec<Stamps> {
        vec![stamps; n]
    }

    #[test]
    fn a_pool_that_fell_silent_at_once_is_a_destination_that_hangs() {
        let finding = worst(served(&many(48, ASKED), 5)).unwrap();
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(
            finding.title,
            "198.51.100.7:5432 went silent at 23:59:18 UTC, 48 of 48 connections wait"
        );
        assert_eq!(severity(&many(4, ASKED)), Some(Severity::Info));
        assert_eq!(severity(&many(2, ASKED)), Some(Severity::Info));
        assert_eq!(severity(&many(1, ASKED)), None);
        assert_eq!(severity(&many(48, (29_999, 42_000, 900))), None, "not yet");
    }

    #[test]
    fn workers_of_whom_all_wait_for_a_job_have_no_clients_that_wait() {
        let with = |clients| worst(served(&many(20, ASKED), clients)).unwrap();
        assert_eq!(with(0).severity, Severity::Info);
        assert_eq!(with(4).severity, Severity::Info);
        assert_eq!(with(5).severity, Severity::Warning);
        // Clients that have their answer, that said something long before, or only now.
        for stamps in [
            (15_000, 15_001, 700),
            (90_000, 80_000, 700),
            (60_000, 999, 700),
        ] {
            let mut workers = pool(&many(20, ASKED));
            accept(&mut workers, 0, &many(9, stamps));
            assert_eq!(
                worst(workers).unwrap().severity,
                Severity::Info,
                "{stamps:?}"
            );
        }
        // A proxy of subscriptions: those that came in together wait at both its ends.
        let at = |received| {
            let mut proxy = pool(&many(20, ASKED));
            accept(&mut proxy, 0, &many(20, (60_000, received, 700)));
            worst(proxy).unwrap().severity
        };
        assert_eq!(at(40_001), Severity::Info);
        assert_eq!(at(32_001), Severity::Info);
        assert_eq!(at(32_000), Severity::Warning, "asked 10 s later");
        // Those of another program.
        let mut workers = pool(&many(20, ASKED));
        let other = workers.process(56, "collector", 30, 1024);
        accept(&mut workers, other, &many(9, (60_000, 15_000, 700)));
        assert_eq!(worst(workers).unwrap().severity, Severity::Info);
    }

    #[test]
    fn most_of_the_connections_must_wait() {
        let with = |idle| [many(5, ASKED), many(idle, (90_000, 80_000, 900))].concat();
        assert_eq!(severity(&with(5)), Some(Severity::Warning));
        assert_eq!(
            severity(&with(6)),
            None,
            "a few slow requests of a large pool"
        );
    }

    #[test]
    fn a_destination_that_answers_others_does_not_hang() {
        let with = |heard| [many(40, ASKED), many(1, (heard, heard, 900))].concat();
        let finding = worst(pool(&with(10))).unwrap();
        assert_eq!(finding.severity, Severity::Info, "a lock may be held");
        assert_eq!(
            finding.title,
            "198.51.100.7:5432 answers, but 40 of 41 connections wait, the longest for 40 s"
        );
        assert_eq!(severity(&with(29_999)), Some(Severity::Info));
        assert_eq!(severity(&with(30_000)), Some(Severity::Warning));
    }

    #[test]
    fn idle_workers_that_were_answered_one_after_the_other_are_not_silent_at_once() {
        let workers: Vec<Stamps> = (1..=48)
            .map(|i| (i * 60_000, i * 60_000 + 1_500, 900))
            .collect();
        assert_eq!(severity(&workers), None);
        // All within ten seconds before the last word.
        let burst: Vec<Stamps> = (0..48)
            .map(|i| (40_000 + i * 200, 42_000 + i * 200, 900))
            .collect();
        assert_eq!(severity(&burst), Some(Severity::Warning));
    }

    #[test]
    fn what_follows_an_answer_at_once_may_be_a_protocols_own_or_the_next_long_poll() {
        let long_poll = many(48, (40_000, 40_003, 900));
        assert_eq!(severity(&long_poll), Some(Severity::Info));
        assert_eq!(severity(&many(4, (40_000, 40_003, 900))), None);
        let mut one_new = long_poll.clone();
        one_new.push(ASKED);
        assert_eq!(severity(&one_new), Some(Severity::Info));
        let mut talked = served(&one_new, 5);
        for info in &mut talked.snapshot.infos {
            (info.last_data_sent_ms, info.last_data_recv_ms) = (5, 5);
        }
        talked.remember(60);
        let later = served(&one_new, 5);
        talked.snapshot.infos = later.snapshot.infos;
        let finding = worst(talked).unwrap();
        assert_eq!(
            finding.severity,
            Severity::Warning,
            "an earlier sample has seen it answer"
        );
    }

    #[test]
    fn a_collector_that_never_answers_is_as_it_should_be() {
        assert_eq!(severity(&many(4, (40_000, 90_000, 0))), None);
        let finding = worst(pool(&many(5, (40_000, 90_000, 0)))).unwrap();
        assert_eq!(finding.severity, Severity::Info);
        assert!(
            finding.title.contains("has never answered on 5 of 5"),
            "{}",
            finding.title
        );
    }

    #[test]
    fn an_idle_pool_and_clients_of_ours_are_not_waited_for() {
        assert_eq!(severity(&many(48, (42_000, 40_000, 900))), None, "answered");
        assert_eq!(
            severity(&many(48, (40_000, 40_000, 900))),
            None,
            "answered at once"
        );
        let mut server = pool(&many(48, ASKED));
        for socket in &mut server.snapshot.sockets {
            (socket.local.port, socket.remote.port) = (443, socket.local.port);
        }
        let process = server.process(901, "nginx", 50, 1024);
        server.listen(process, 443, 0, 511, 0);
        assert!(worst(server).is_none());
    }

    #[test]
    fn unanswered_keepalive_and_unacknowledged_data_are_other_troubles() {
        let with = |change: fn(&mut crate::model::Socket)| {
            let mut scenario = pool(&many(48, ASKED));
            scenario.snapshot.sockets.iter_mut().for_each(change);
            worst(scenario).is_some()
        };
        assert!(with(|_| ()));
        assert!(!with(|socket| socket.send_q = 1));
        assert!(!with(|socket| {
            (socket.timer, socket.retransmits) = (crate::model::Timer::Keepalive, 2);
        }));
    }

    #[test]
    fn without_tcp_info_it_cannot_tell() {
        let mut scenario = example(5);
        scenario.snapshot.infos.clear();
        let unknown = scenario.analyze(&Settings::default()).unknown;
        assert!(unknown.iter().any(|unknown| unknown.id == DETECTOR.id));
    }
}
