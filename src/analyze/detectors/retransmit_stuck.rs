//! Data that is sent again and again, and nothing comes back.

use std::collections::HashSet;

use super::path_mtu_suspect;
use crate::analyze::group;
use crate::analyze::role::{BACKGROUND, MIN, SHARE};
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::triage::{self, Queue, Stall, Triage};
use crate::analyze::{Blind, Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::knowledge::lifetimes;
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, TcpState, Timer};

pub const DETECTOR: Detector = Detector {
    id: "retransmit-stuck",
    aliases: &["peer-unresponsive"],
    summary: "peers acknowledge nothing of what this host sends",
    signals: "ESTABLISHED and CLOSE-WAIT sockets whose data has timed out several times in a row, by destination or \
              listener. A connection that moved between two looks does not count, nor one whose peer has closed its \
              window (zero-window-peer), nor one that loses only big segments (path-mtu-suspect).",
    explanation: "This host has data on the way and hears nothing, so it sends it again, waiting twice as long each \
                  time. ESTABLISHED does not prove that the peer lives: it may be down, or the path to it. After \
                  about a quarter of an hour (tcp_retries2) the kernel gives up.",
    grounds: &[
        "TCP state in OS, ESTABLISHED",
        "RFC 9293 section 3.8.1",
        "RFC 9293 section 3.8.3",
        "Linux kernel, net/ipv4/tcp_timer.c: tcp_retransmit_timer()",
    ],
    advice: &[
        "`ip route get ADDRESS`, then look whether the peer and the way to it live",
        "set TCP_USER_TIMEOUT in the program, so that it gives up after seconds",
    ],
    folklore: &[
        "keepalive does not find a dead peer while data waits: its timer runs only on idle connections",
    ],
    states: &[TcpState::Established, TcpState::CloseWait],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "retries",
            default: 3.0,
            unit: Unit::Count,
            doc: "a connection counts after so many time-outs in a row: one lost segment costs one",
        },
        Threshold {
            key: "age",
            default: 3.0,
            unit: Unit::Seconds,
            doc: "and when nothing was acknowledged for so long: radio links pause for a second or two",
        },
        Threshold {
            key: "long",
            default: 30.0,
            unit: Unit::Seconds,
            doc: "only such stalls are critical, and on a listening port only they warn: routes change, laptops sleep",
        },
        MIN,
        SHARE,
        BACKGROUND,
    ],
    blind: &[Blind {
        since: (5, 4),
        lacks: "tcpi_snd_wnd",
        effect: "a window that was closed on data in flight looks the same",
    }],
    needs: Needs {
        tcp_info: true,
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "connections to a peer that does not answer",
        limit: 5,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let triage = Triage::new(context, Queue::Send);
    let mut stuck = Vec::new();
    for row in &context.tally.queued {
        let Some(socket) = snapshot.socket(*row) else {
            continue;
        };
        let info = snapshot.info(socket);
        let info = info.as_ref();
        let is_stuck = matches!(socket.state, TcpState::Established | TcpState::CloseWait)
            && triage::time_outs(socket, info)
                .is_some_and(|n| f64::from(n) >= limits.get("retries"))
            && !triage::is_window_closed(socket, info)
            && !triage.is_moving(*row);
        if is_stuck && let Some(age) = triage::unanswered(socket, info) {
            stuck.push((age.low_ms, *row));
        }
    }
    if stuck.is_empty() {
        return Verdict::Quiet;
    }
    let big: HashSet<u32> = path_mtu_suspect::by_default(context);
    stuck.retain(|(_, row)| !big.contains(row));
    let findings = triage::stalls(context, &stuck, limits)
        .into_iter()
        .map(|stall| tell(context, &triage, limits, &stall))
        .collect();
    Verdict::of(group::capped(findings))
}

fn tell(
    context: &Context<'_>,
    triage: &Triage<'_, '_>,
    limits: &Limits,
    stall: &Stall<'_>,
) -> Finding {
    let snapshot = context.snapshot;
    let rows = || stall.towards.rows.iter().copied();
    let sockets = || rows().filter_map(|row| snapshot.socket(row));
    let infos = || sockets().filter_map(|socket| snapshot.info(socket));
    let mut evidence = stall.evidence("unanswered", limits);
    evidence.push(
        Evidence::real(
            "oldest",
            stall.oldest_ms as f64 / 1000.0,
            "s",
            "tcpi_total_rto_time, tcpi_backoff",
        )
        .limit(limits.get("age")),
    );
    let retries = sockets().filter_map(|s| triage::time_outs(s, snapshot.info(s).as_ref()));
    evidence.push(
        Evidence::count(
            "most_time_outs",
            retries.max().unwrap_or(0),
            "time-outs",
            "idiag_retrans, tcpi_backoff",
        )
        .limit(limits.get("retries")),
    );
    if let Some(heard) = infos().map(|info| triage::heard_ms(&info)).min() {
        evidence.push(Evidence::real(
            "last_heard",
            heard as f64 / 1000.0,
            "s",
            "tcpi_last_ack_recv, tcpi_last_data_recv",
        ));
    }
    let gives_up = lifetimes::attached_ms(&snapshot.facts);
    if let Some(ms) = gives_up {
        evidence.push(Evidence::real(
            "kernel_gives_up_in",
            ms.saturating_sub(stall.oldest_ms) as f64 / 1000.0,
            "s",
            "net.ipv4.tcp_retries2",
        ));
    }
    evidence.extend(triage.evidence(rows()));
    let until = gives_up.map_or(String::new(), |ms| {
        format!(" and gives up after about {}", words::time(ms))
    });
    // Nothing is lost on the way to oneself.
    let local = sockets().all(|socket| socket.remote.ip().is_loopback());
    let why = if local {
        "Nothing is lost on loopback: the other end drops what it has no memory for, because it does not read"
    } else {
        "The peer is probably down, or the path to it; a full path or a firewall that forgot the connection looks the same"
    };
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity: stall.severity,
        title: stall.title("send again without an answer"),
        subject: stall.towards.subject(context),
        evidence,
        explanation: format!(
            "Data was sent and is not acknowledged, so the kernel sends it again, ever more slowly{until}. {why}."
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: if local { Actor::Peer } else { Actor::Network },
        advice: vec![
            format!(
                "ip route get {}    # then: is the link up, the path free, the peer alive?",
                stall.peer(context)
            ),
            "set TCP_USER_TIMEOUT in the program, so that it fails over after seconds".to_owned(),
            "do not: lower tcp_retries2 first; it changes every program on this machine".to_owned(),
        ],
        rows: stall.shown(),
        caused_by: None,
        one_sample: false,
    }
}

fn example(n: u32) -> Scenario {
    unanswered(n, n * 2, 4)
}

/// `n` of `all` connections have timed out so often.
fn unanswered(n: u32, all: u32, backoff: u8) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(55, "api", 30, 1024);
    for i in 0..all {
        let mut socket = scenario.socket(
            TcpState::Established,
            Endpoint::v4(HERE, 40_000 + i as u16),
            Endpoint::v4(THERE, 5432),
        );
        // 204 ms, doubled each time, all of the last wait still to come.
        let rto = 204u64 << backoff;
        let waited = rto - 204;
        let ago = [("last_ack_recv_ms", waited), ("last_data_recv_ms", waited)];
        let mut info = vec![("rto_us", rto * 1000), ("snd_mss_bytes", 1448)];
        info.extend(ago);
        if i < n {
            (socket.timer, socket.send_q) = (Timer::Retransmit, 900);
            (socket.timer_ms, socket.retransmits) = (rto as u32, backoff);
            info.extend([
                ("retransmits", u64::from(backoff)),
                ("backoff", u64::from(backoff)),
                ("total_rto_recoveries", 1),
                ("total_rto_time_ms", waited.saturating_sub(400)),
                ("snd_wnd_bytes", 65_536),
            ]);
        }
        let socket = scenario.held_by(process, socket);
        scenario.push(socket, &info);
    }
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Severity, TcpInfo, tcp_info};

    fn findings(scenario: Scenario) -> Vec<Finding> {
        scenario.judge(DETECTOR.id).findings
    }

    fn severity(scenario: Scenario) -> Option<Severity> {
        findings(scenario).first().map(|finding| finding.severity)
    }

    fn served(n: u32, all: u32, backoff: u8) -> Scenario {
        let mut scenario = unanswered(n, all, backoff);
        let process = scenario.process(9, "nginx", 30, 1024);
        scenario.listen(process, 443, 0, 511, 0);
        for (i, socket) in scenario.snapshot.sockets.iter_mut().enumerate() {
            if socket.state != TcpState::Listen {
                socket.local.port = 443;
                // of many places, as clients are
                socket.remote = Endpoint::v4([203, 0, 113, i as u8], 1024 + i as u16);
            }
        }
        scenario
    }

    #[test]
    fn a_destination_warns_after_seconds_and_is_critical_after_half_a_minute() {
        // 204 ms doubled 3, 4, 7 and 8 times: 1.4, 3.1, 25.9 and 52.0 s in all
        assert_eq!(severity(unanswered(5, 5, 3)), None);
        let found = findings(unanswered(5, 5, 4)).remove(0);
        assert_eq!(found.severity, Severity::Warning);
        assert_eq!(
            found.title,
            "api[55] to 198.51.100.7:5432: 5 of 5 sockets send again without an answer, oldest 3.1 s"
        );
        assert_eq!(severity(unanswered(5, 5, 7)), Some(Severity::Warning));
        assert_eq!(severity(unanswered(5, 5, 8)), Some(Severity::Critical));
        assert_eq!(severity(unanswered(5, 17, 8)), Some(Severity::Warning));
        assert_eq!(severity(unanswered(4, 4, 8)), Some(Severity::Info));
    }

    #[test]
    fn fewer_time_outs_than_the_limit_do_not_count_however_long_they_took() {
        let with = |retries: u8| {
            let mut scenario = unanswered(5, 5, 8);
            for socket in &mut scenario.snapshot.sockets {
                socket.retransmits = retries;
            }
            for info in &mut scenario.snapshot.infos {
                (info.retransmits, info.backoff) = (retries, retries);
            }
            severity(scenario)
        };
        assert_eq!(with(2), None);
        assert_eq!(with(3), Some(Severity::Critical));
    }

    #[test]
    fn dead_clients_of_a_public_server_are_its_background() {
        assert_eq!(severity(served(4, 400, 10)), None);
        assert_eq!(severity(served(20, 2_000, 10)), Some(Severity::Info));
        assert_eq!(
            severity(served(5, 10, 7)),
            Some(Severity::Info),
            "a pause of the link"
        );
        assert_eq!(severity(served(5, 10, 8)), Some(Severity::Warning));
        assert_eq!(
            severity(served(50, 50, 10)),
            Some(Severity::Warning),
            "never above"
        );
    }

    #[test]
    fn what_moved_between_two_looks_is_not_stuck() {
        let mut scenario = unanswered(5, 5, 8);
        scenario.remember(2);
        assert_eq!(severity(scenario.clone()), Some(Severity::Critical));
        for info in &mut scenario.snapshot.infos {
            let mut members = vec![("bytes_acked", 1), ("backoff", 8), ("rto_us", 52_224_000)];
            members.push(("retransmits", 8));
            *info = TcpInfo::parse(&tcp_info::example(&members)).unwrap();
        }
        assert_eq!(severity(scenario), None);
    }

    #[test]
    fn close_wait_counts_and_a_fin_that_waits_does_not() {
        let with = |state| {
            let mut scenario = unanswered(5, 5, 8);
            scenario
                .snapshot
                .sockets
                .iter_mut()
                .for_each(|socket| socket.state = state);
            severity(scenario)
        };
        assert_eq!(with(TcpState::CloseWait), Some(Severity::Critical));
        assert_eq!(with(TcpState::FinWait1), None);
    }

    #[test]
    fn rows_of_proc_are_dated_from_below_by_their_time_outs() {
        let with = |retries| {
            let mut scenario = unanswered(5, 5, 4);
            scenario.snapshot.infos.clear();
            for socket in &mut scenario.snapshot.sockets {
                (socket.cookie, socket.info, socket.retransmits) = (None, None, retries);
            }
            severity(scenario)
        };
        assert_eq!(with(3), None, "1.4 s at least");
        assert_eq!(with(4), Some(Severity::Warning), "3 s at least");
        assert_eq!(with(8), Some(Severity::Critical), "51 s at least");
    }

    #[test]
    fn a_closed_window_is_the_peers_word_and_not_silence() {
        let mut scenario = unanswered(5, 5, 8);
        scenario
            .snapshot
            .sockets
            .iter_mut()
            .for_each(|s| s.timer = Timer::Persist);
        assert_eq!(severity(scenario), None);
    }
}
