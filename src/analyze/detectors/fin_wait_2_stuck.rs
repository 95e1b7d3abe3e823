//! FIN-WAIT-2 that somebody still holds: we are done, the peer is not, and no timer runs.

use std::collections::HashSet;

use crate::analyze::group::{self, Group};
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, Socket, TcpState, Timer};

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
    needs: Needs {
        tcp_info: true,
        drops: false,
        owners: true,
        deltas: false,
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
    if snapshot.infos.is_empty() {
        return Verdict::CannotTell(format!(
            "{} in FIN-WAIT-2, but without tcp_info their age is not known",
            words::count(held.len() as u64, "socket")
        ));
    }
    let closers: HashSet<(Endpoint, Endpoint)> = context
        .tally
        .close_wait
        .iter()
        .filter_map(|row| snapshot.socket(*row))
        .map(|socket| (socket.remote, socket.local))
        .collect();
    let twin = |socket: &Socket| closers.contains(&(socket.local, socket.remote));
    let age = limits.ms("age");
    let stuck = held.into_iter().filter(|row| {
        let Some(socket) = snapshot.socket(*row) else {
            return false;
        };
        let silent = snapshot
            .info(socket)
            .is_some_and(|info| u64::from(info.last_data_recv_ms) >= age);
        silent && !twin(socket) && context.age_ms(*row).is_some_and(|ms| ms >= age)
    });
    let groups = group::by_owner(context, stuck);
    Verdict::of(
        groups
            .iter()
            .filter_map(|group| judge(context, limits, group))
            .collect(),
    )
}

fn judge(context: &Context<'_>, limits: &Limits, group: &Group<'_>) -> Option<Finding> {
    let stuck = group.rows.len() as u64;
    let total = group.total(context).max(stuck);
    let ages = group.ages(context);
    let (_, oldest) = *ages.first()?;
    let span = limits.ms("age").max(1);
    let mut spans: Vec<u64> = ages.iter().map(|(_, age)| age.low_ms / span).collect();
    spans.dedup();
    let arriving = spans.len() >= 3;
    let severity = if group::is_enough(stuck, total, arriving, group.owner, limits) {
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
    let mut evidence = vec![
        Evidence::count("fin_wait_2_sockets", stuck, "sockets", "idiag_state")
            .limit(limits.get("min")),
        Evidence::count(
            "share_of_sockets",
            words::percent(stuck, total),
            "%",
            "idiag_state",
        )
        .limit(limits.get("share")),
        Evidence::real(
            "oldest",
            oldest.low_ms as f64 / 1000.0,
            "s",
            "tcpi_last_ack_recv",
        )
        .limit(limits.get("age")),
    ];
    if let Some((fds, nofile)) = group.owner.and_then(|owner| owner.fds.zip(owner.nofile)) {
        evidence.push(
            Evidence::count("open_descriptors", fds, "descriptors", "/proc/PID/fd")
                .limit(nofile as f64),
        );
    }
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: format!(
            "{}: {} of {} sockets {} are FIN-WAIT-2, oldest {}",
            group.who(), words::thousands(stuck), words::thousands(total), group.target.words(), words::time(oldest.low_ms),
        ),
        subject: group.subject(),
        evidence,
        explanation: "This program has shut down its sending side, the peer has acknowledged it and does not close its \
                      own; probably it sits in CLOSE-WAIT there. Nothing has arrived for as long. While the program \
                      holds the socket no timer ends this state."
            .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Peer,
        advice: vec![
            format!("{}    # which peers", group.command()),
            "mend the peer that does not close; here, read with a time-out after shutdown() and then close()".to_owned(),
            "do not change tcp_fin_timeout: it counts only once the program has closed".to_owned(),
        ],
        rows: ages.into_iter().map(|(row, _)| row).take(10).collect(),
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
