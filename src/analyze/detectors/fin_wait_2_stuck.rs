//! FIN-WAIT-2 that somebody still holds: we are done, the peer is not, and no timer runs.

use crate::analyze::group::{self, Group};
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::stuck::{self, Closers, Stuck, Trend};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::history::{Held, Sample};
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, TcpState, Timer};

pub const DETECTOR: Detector = Detector {
    id: "fin-wait-2-stuck",
    aliases: &[],
    summary: "a program waits for peers that do not close their side",
    signals: "FIN-WAIT-2 sockets that a process holds and on which nothing has arrived for long, by process and \
              destination or listener. Where the other end is on this host too and in CLOSE-WAIT, that end is \
              reported instead.",
    explanation: "This program has shut down its sending side and the peer has acknowledged that; now it waits for \
                  the peer's FIN. Only the peer may still send. While the program holds the socket no timer runs: \
                  tcp_fin_timeout counts only for sockets that nobody holds any more.",
    grounds: &[
        "TCP state in OS, FIN_WAIT_2",
        "RFC 9293 section 3.6.1",
        "Linux kernel, net/ipv4/tcp.c: tcp_close()",
    ],
    advice: &[
        "after shutdown() read with a time-out, then close(): the kernel then drops it after tcp_fin_timeout",
        "the peer probably sits in CLOSE-WAIT and does not close: its program is to be mended",
    ],
    folklore: &["tcp_fin_timeout does not end a FIN-WAIT-2 that a program holds"],
    states: &[TcpState::FinWait2],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "age",
            default: 60.0,
            unit: Unit::Seconds,
            doc: "counts from this age on, if nothing was received for as long: a half-closed transfer goes on",
        },
        Threshold {
            key: "info",
            default: 5.0,
            unit: Unit::Count,
            doc: "so many are worth knowing while diagnosing",
        },
        Threshold {
            key: "min",
            default: 10.0,
            unit: Unit::Count,
            doc: "with `share`: so many warn",
        },
        Threshold {
            key: "share",
            default: 50.0,
            unit: Unit::Percent,
            doc: "of the process's sockets to that destination or listener",
        },
        Threshold {
            key: "many",
            default: 50.0,
            unit: Unit::Count,
            doc: "so many are enough whatever their share, if more keep arriving",
        },
        Threshold {
            key: "descriptors",
            default: 1.0,
            unit: Unit::Percent,
            doc: "of the process's descriptor limit (at most 65,536 of it, at least 5 sockets)",
        },
        Threshold {
            key: "critical",
            default: 10.0,
            unit: Unit::Percent,
            doc: "of the descriptor limit, when nearly all of it is in use",
        },
    ],
    blind: &[],
    needs: Needs {
        tcp_info: true,
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "FIN-WAIT-2 sockets, half of the process's sockets",
        limit: 10,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let held: Vec<u32> = context
        .tally
        .fin_wait_2
        .iter()
        .copied()
        .filter(|row| {
            snapshot
                .socket(*row)
                .is_some_and(|socket| matches!(socket.timer, Timer::None | Timer::Keepalive))
        })
        .collect();
    if held.is_empty() {
        return Verdict::Quiet;
    }
    let closers = Closers::new(context);
    let age = limits.ms("age");
    let mut undated = 0u64;
    let silent: Vec<u32> = held
        .into_iter()
        .filter(|row| {
            let Some(socket) = snapshot.socket(*row).filter(|socket| !closers.face(socket)) else {
                return false;
            };
            let info = snapshot.info(socket);
            let info = info.as_ref();
            undated += u64::from(info.is_none());
            info.is_some_and(|info| u64::from(info.last_data_recv_ms) >= age)
        })
        .collect();
    let trend = Trend::new(context, earlier);
    let judge = |group: &Group<'_>| {
        let found = stuck::measure(context, group, age, 3.0, earlier, trend.as_ref())?;
        judge(context, limits, group, found)
    };
    let mut findings = Vec::new();
    let mut small = Vec::new();
    for group in group::by_owner(context, silent.into_iter()) {
        match judge(&group) {
            Some(finding) if finding.severity > Severity::Info => findings.push(finding),
            _ => small.push(group),
        }
    }
    let merged = group::merge_by_owner(small);
    findings.extend(merged.iter().filter_map(judge));
    if findings.is_empty() && undated > 0 {
        return Verdict::CannotTell(format!(
            "{} in FIN-WAIT-2, but without tcp_info their age is not known",
            words::count(undated, "socket")
        ));
    }
    Verdict::of(group::capped(findings))
}

fn earlier(sample: &Sample) -> &[Held] {
    &sample.fin_wait_2
}

fn judge(
    context: &Context<'_>,
    limits: &Limits,
    group: &Group<'_>,
    found: Stuck,
) -> Option<Finding> {
    let stuck = found.rows.len() as u64;
    let total = group.total.max(stuck);
    let severity = if found.sure && group::is_enough(stuck, found.arriving, group, limits) {
        let used_up = group.owner.is_some_and(|owner| {
            let (Some(fds), Some(nofile)) = (owner.fds, owner.nofile) else {
                return false;
            };
            let (fds, nofile) = (fds as f64, nofile as f64);
            fds >= nofile * 0.95 && stuck as f64 >= nofile * limits.get("critical") / 100.0
        });
        if used_up {
            Severity::Critical
        } else {
            Severity::Warning
        }
    } else if stuck as f64 >= limits.get("info") {
        Severity::Info
    } else {
        return None;
    };
    let unread = found
        .rows
        .iter()
        .filter_map(|row| context.snapshot.socket(*row))
        .filter(|socket| socket.recv_q > 0)
        .count() as u64;
    // A peer whose bytes nobody reads cannot get its FIN through.
    let unheard = unread * 2 > stuck;
    let mut evidence = found.evidence("fin_wait_2_sockets", group, limits);
    if found.bounded {
        evidence.push(Evidence::text(
            "age_bounds",
            "ages lie between the last ACK and the last data sent: keepalive answers restamp the first",
            "tcpi_last_ack_recv, tcpi_last_data_sent",
        ));
    }
    if unread > 0 {
        evidence.push(Evidence::count(
            "with_unread_data",
            unread,
            "sockets",
            "idiag_rqueue",
        ));
    }
    evidence.extend(words::descriptors(group.owner));
    let (who, age) = (group.who(), found.age());
    let (long, brief) = (group.target.words(), group.target.brief());
    let (n, all) = (words::thousands(stuck), words::thousands(total));
    let peer = if unheard {
        "What the peer sent still lies here unread, and it may be waiting for room before it can close"
    } else {
        "The peer has acknowledged that and does not close its own side; probably it sits in CLOSE-WAIT there"
    };
    let fix = if unheard {
        "after shutdown() read until end of file, with a time-out, and then close()"
    } else {
        "mend the peer that does not close; here, read with a time-out after shutdown() and then close()"
    };
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            format!("{who}: {n} of {all} sockets {long} are FIN-WAIT-2, oldest {age}"),
            format!("{who}: {n} of {all} sockets {brief} are FIN-WAIT-2, oldest {age}"),
            format!("{who}: {n} of {all} {brief} FIN-WAIT-2, {age}"),
            format!("{who}: {n} of {all} {brief} FIN-WAIT-2"),
        ]),
        subject: group.subject(),
        evidence,
        explanation: format!(
            "This program has shut down its sending side, and no data has arrived for {} or more. {peer}. While the \
             program holds the socket, tcp_fin_timeout does not end this state.",
            words::time(limits.ms("age"))
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: if unheard {
            Actor::ThisProgram
        } else {
            Actor::Peer
        },
        advice: vec![
            format!("{}    # which peers", group.command()),
            fix.to_owned(),
            "do not: change tcp_fin_timeout; it counts only once the program has closed".to_owned(),
        ],
        rows: found.rows.into_iter().take(10).collect(),
        caused_by: None,
        one_sample: false,
    })
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(812, "mailer", 60, 1_048_576);
    let remote = Endpoint::v4(THERE, 25);
    for i in 0..n.max(10) {
        let socket = scenario.socket(
            TcpState::Established,
            Endpoint::v4(HERE, 40_000 + i as u16),
            remote,
        );
        let socket = scenario.held_by(process, socket);
        scenario.push(socket, &[("last_ack_recv_ms", 10)]);
    }
    for i in 0..n {
        let socket = scenario.socket(
            TcpState::FinWait2,
            Endpoint::v4(HERE, 50_000 + i as u16),
            remote,
        );
        let socket = scenario.held_by(process, socket);
        scenario.push(
            socket,
            &[
                ("last_ack_recv_ms", 60_000),
                ("last_data_recv_ms", 60_000),
                ("last_data_sent_ms", 60_000),
            ],
        );
    }
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;

    fn held(n: u16, ack: u64, data: u64, timer: Timer) -> Scenario {
        let mut scenario = Scenario::default();
        let process = scenario.process(812, "mailer", 60, 1_048_576);
        for i in 0..n {
            let mut socket = scenario.socket(
                TcpState::FinWait2,
                Endpoint::v4(HERE, 50_000 + i),
                Endpoint::v4(THERE, 25),
            );
            socket.timer = timer;
            let socket = scenario.held_by(process, socket);
            scenario.push(
                socket,
                &[
                    ("last_ack_recv_ms", ack),
                    ("last_data_recv_ms", data),
                    ("last_data_sent_ms", ack),
                ],
            );
        }
        scenario
    }

    fn severity(scenario: Scenario) -> Option<Severity> {
        scenario
            .analyze(&Settings::default())
            .findings
            .first()
            .map(|finding| finding.severity)
    }

    #[test]
    fn age_and_silence_are_both_needed() {
        assert_eq!(
            severity(held(10, 60_000, 60_000, Timer::None)),
            Some(Severity::Warning)
        );
        assert_eq!(
            severity(held(10, 60_000, 60_000, Timer::Keepalive)),
            Some(Severity::Warning)
        );
        assert_eq!(severity(held(10, 59_999, 90_000, Timer::None)), None);
        assert_eq!(
            severity(held(10, 60_000, 400, Timer::None)),
            None,
            "the peer still sends"
        );
    }

    #[test]
    fn keepalive_answers_leave_bounds_until_a_later_look() {
        let mut scenario = held(10, 60_000, 90_000, Timer::Keepalive);
        for info in &mut scenario.snapshot.infos {
            info.last_ack_recv_ms = 4_000;
        }
        let finding = scenario
            .clone()
            .analyze(&Settings::default())
            .findings
            .remove(0);
        assert_eq!(finding.severity, Severity::Info);
        assert!(
            finding.title.ends_with("oldest between 4.0 s and 60 s"),
            "{}",
            finding.title
        );
        let mut later = scenario.clone();
        later.remember(60);
        assert_eq!(severity(later), Some(Severity::Warning));
        scenario.remember(59);
        assert_eq!(severity(scenario), Some(Severity::Info));
    }

    #[test]
    fn who_does_not_read_is_to_blame_himself() {
        let actor = |unread: usize| {
            let mut scenario = held(10, 60_000, 60_000, Timer::None);
            let sockets = scenario.snapshot.sockets.iter_mut();
            sockets.take(unread).for_each(|socket| socket.recv_q = 9);
            let findings = scenario.analyze(&Settings::default()).findings;
            findings.first().map(|finding| finding.who_must_act)
        };
        assert_eq!(actor(5), Some(Actor::Peer));
        assert_eq!(actor(6), Some(Actor::ThisProgram));
    }

    #[test]
    fn an_end_on_this_host_that_is_not_accepted_is_not_a_peer_elsewhere() {
        let mut scenario = held(10, 60_000, 60_000, Timer::None);
        let process = scenario.process(2, "server", 60, 1 << 20);
        scenario.listen(process, 25, 10, 4096, 0);
        for i in 0..10 {
            let socket = scenario.socket(
                TcpState::CloseWait,
                Endpoint::v4(THERE, 25),
                Endpoint::v4(HERE, 50_000 + i),
            );
            scenario.push(socket, &[("last_data_sent_ms", 100)]);
        }
        assert_eq!(severity(scenario), None);
    }

    #[test]
    fn without_tcp_info_it_cannot_tell() {
        let mut scenario = held(1, 1, 1, Timer::None);
        scenario.snapshot.infos.clear();
        let analysis = scenario.analyze(&Settings::default());
        assert_eq!(analysis.unknown[0].id, DETECTOR.id);
    }

    #[test]
    fn few_are_info_and_fewer_quiet() {
        assert_eq!(
            severity(held(5, 60_000, 60_000, Timer::None)),
            Some(Severity::Info)
        );
        assert_eq!(severity(held(4, 60_000, 60_000, Timer::None)), None);
    }

    #[test]
    fn an_orphan_is_the_kernels_to_end() {
        let mut scenario = held(20, 60_000, 60_000, Timer::TimeWait);
        scenario
            .snapshot
            .sockets
            .iter_mut()
            .for_each(|socket| socket.inode = 0);
        assert_eq!(severity(scenario), None);
    }

    #[test]
    fn of_a_pair_on_this_host_only_the_close_wait_end_is_blamed() {
        let mut scenario = Scenario::default();
        let (us, them) = (
            scenario.process(1, "client", 60, 1 << 20),
            scenario.process(2, "server", 60, 1 << 20),
        );
        for i in 0..20 {
            let (here, there) = (
                Endpoint::v4([127, 0, 0, 1], 50_000 + i),
                Endpoint::v4([127, 0, 0, 1], 8080),
            );
            let ages = [
                ("last_ack_recv_ms", 70_000 * (1 + u64::from(i))),
                ("last_data_recv_ms", 90_000_000),
                ("last_data_sent_ms", 90_000_000),
            ];
            let socket = scenario.socket(TcpState::FinWait2, here, there);
            let socket = scenario.held_by(us, socket);
            scenario.push(socket, &ages);
            let socket = scenario.socket(TcpState::CloseWait, there, here);
            let socket = scenario.held_by(them, socket);
            scenario.push(socket, &ages);
        }
        let findings = scenario.analyze(&Settings::default()).findings;
        assert!(
            findings
                .iter()
                .all(|finding| finding.id == "close-wait-leak"),
            "{findings:?}"
        );
        assert!(!findings.is_empty());
    }
}
