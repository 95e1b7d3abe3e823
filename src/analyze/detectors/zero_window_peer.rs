//! Send queues that wait because the peer does not read.

use crate::analyze::group::{self, Target};
use crate::analyze::role::{BACKGROUND, MIN, SHARE};
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::triage::{self, Queue, Stall, Triage};
use crate::analyze::{Blind, Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::model::{
    Actor, Endpoint, Evidence, Finding, Severity, Socket, TcpInfo, TcpState, Timer,
};

pub const DETECTOR: Detector = Detector {
    id: "zero-window-peer",
    aliases: &["send-q-stuck"],
    summary: "peers do not read, so that what this host has to send waits",
    signals: "Connections with a send queue whose peer has closed its window, by destination or listener: the probe \
              timer runs, and nothing was sent for long. A connection that moved between two looks does not count. \
              As `send-q-stuck`: most peers do not answer the probes either. Where the other end is on this host and \
              does not read, that is shown as the cause.",
    explanation: "The peer has announced that its receive buffer is full, and this kernel asks again and again \
                  whether there is room. Probably the peer's program does not read. As long as the probes are answered this \
                  lasts for ever.",
    grounds: &[
        "RFC 9293 section 3.8.6.1",
        "Linux kernel, net/ipv4/tcp_timer.c: tcp_probe_timer()",
    ],
    advice: &[
        "look at the peer's program: why does it not read?",
        "give the sending program a time-out (TCP_USER_TIMEOUT, or its own) where it must not wait",
    ],
    folklore: &[
        "larger buffers (tcp_wmem, tcp_rmem) only delay the moment at which a peer that does not read blocks",
    ],
    states: &[
        TcpState::Established,
        TcpState::CloseWait,
        TcpState::FinWait1,
    ],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "age",
            default: 10.0,
            unit: Unit::Seconds,
            doc: "a connection counts when nothing could be sent for so long: readers pause for a moment all the time",
        },
        Threshold {
            key: "long",
            default: 60.0,
            unit: Unit::Seconds,
            doc: "only such stalls are critical, and on a listening port only they warn: players and backups pause",
        },
        MIN,
        SHARE,
        BACKGROUND,
    ],
    blind: &[Blind {
        since: (5, 4),
        lacks: "tcpi_snd_wnd",
        effect: "a window that was closed on data in flight looks like retransmit-stuck",
    }],
    needs: Needs {
        tcp_info: true,
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "connections to a peer that does not read",
        limit: 5,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let triage = Triage::new(context, Queue::Send);
    let mut undated = 0u64;
    let mut stuck = Vec::new();
    for row in &context.tally.queued {
        let Some(socket) = snapshot.socket(*row) else {
            continue;
        };
        let info = snapshot.info(socket);
        let info = info.as_ref();
        if !triage::is_window_closed(socket, info) || triage.is_moving(*row) {
            continue;
        }
        let unmoved = triage.unmoved_ms(*row);
        let age = info.map_or(0, |info| waited_ms(socket, info));
        undated += u64::from(info.is_none());
        stuck.push((age.max(unmoved), *row));
    }
    let findings: Vec<Finding> = triage::stalls(context, &stuck, limits)
        .into_iter()
        .map(|stall| tell(context, &triage, limits, &stall))
        .collect();
    if findings.is_empty() && undated > 0 {
        return Verdict::CannotTell(format!(
            "{} for a peer to read, but without tcp_info nothing tells for how long",
            match undated {
                1 => "1 socket waits".to_owned(),
                n => format!("{} sockets wait", words::thousands(n)),
            }
        ));
    }
    Verdict::of(group::capped(findings))
}

/// Probes carry no data and so leave the stamp of the last data alone; retransmissions do not.
fn waited_ms(socket: &Socket, info: &TcpInfo) -> u64 {
    let sent = u64::from(info.last_data_sent_ms);
    if socket.timer == Timer::Persist {
        return sent;
    }
    triage::unanswered(socket, Some(info)).map_or(sent, |age| age.low_ms.max(sent))
}

fn tell(
    context: &Context<'_>,
    triage: &Triage<'_, '_>,
    limits: &Limits,
    stall: &Stall<'_>,
) -> Finding {
    let snapshot = context.snapshot;
    let rows = || stall.towards.rows.iter().copied();
    let stuck = stall.towards.stuck();
    let infos = || rows().filter_map(|row| snapshot.info(snapshot.socket(row)?));
    // The first probe may be on its way.
    let unanswered = infos().filter(|info| info.probes >= 2).count() as u64;
    let gone = unanswered * 2 > stuck;
    let closing = rows()
        .filter_map(|row| snapshot.socket(row))
        .filter(|socket| socket.state == TcpState::CloseWait)
        .count() as u64;
    let mut evidence = stall.evidence("window_closed", limits);
    evidence.push(
        Evidence::real(
            "oldest",
            stall.oldest_ms as f64 / 1000.0,
            "s",
            "tcpi_last_data_sent",
        )
        .limit(limits.get("age")),
    );
    let counts = [
        (
            "probes_unanswered",
            unanswered,
            "idiag_retrans, tcpi_probes",
        ),
        ("in_close_wait", closing, "idiag_state"),
    ];
    let counts = counts.into_iter().filter(|(_, n, _)| *n > 0);
    evidence.extend(counts.map(|(name, n, source)| Evidence::count(name, n, "sockets", source)));
    let time = |of: fn(&TcpInfo) -> Option<u64>| {
        let times = infos().filter_map(|info| of(&info));
        times.fold(0u64, u64::saturating_add)
    };
    let busy = time(TcpInfo::busy_time_us);
    if busy > 0 {
        let share = words::percent(time(TcpInfo::rwnd_limited_us), busy);
        evidence.push(Evidence::count(
            "limited_by_window_so_far",
            share,
            "%",
            "tcpi_rwnd_limited, tcpi_busy_time",
        ));
    }
    evidence.extend(triage.evidence(rows()));
    let peers = match stall.towards.target {
        Target::Listener(_) => "the peers' programs do",
        _ => "the peer's program does",
    };
    let end = if gone {
        "Most do not answer the probes any more: after a while (tcp_retries2) the kernel gives such a connection up"
    } else {
        "As long as the probes are answered this never ends by itself"
    };
    Finding {
        id: DETECTOR.id,
        variant: gone.then_some("send-q-stuck"),
        severity: stall.severity,
        title: stall.title("wait for a peer that does not read"),
        subject: stall.towards.subject(context),
        evidence,
        explanation: format!(
            "What is queued here cannot be sent, because the peer has closed its window: probably {peers} not read. \
             {end}. A backup or a player may pause on purpose."
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Peer,
        advice: vec![
            format!(
                "{}    # then look at the reading program there",
                stall.towards.command()
            ),
            "give this program a time-out for sending, such as TCP_USER_TIMEOUT".to_owned(),
            "do not: raise tcp_wmem or tcp_rmem; a larger buffer fills up as well".to_owned(),
        ],
        rows: stall.shown(),
        caused_by: None,
        one_sample: false,
    }
}

fn example(n: u32) -> Scenario {
    waiting(n, n * 2, 10_000)
}

/// `n` of `all` connections to a destination have been waiting for so long.
fn waiting(n: u32, all: u32, ms: u64) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(55, "shipper", 30, 1024);
    for i in 0..all {
        let mut socket = scenario.socket(
            TcpState::Established,
            Endpoint::v4(HERE, 40_000 + i as u16),
            Endpoint::v4(THERE, 9092),
        );
        let info: &[(&str, u64)] = if i < n {
            (socket.timer, socket.timer_ms, socket.send_q) = (Timer::Persist, 900, 734_136);
            &[
                ("last_data_sent_ms", ms),
                ("last_ack_recv_ms", 700),
                ("backoff", 4),
                ("busy_time_us", 20_000_000),
                ("rwnd_limited_us", 19_000_000),
            ]
        } else {
            &[("last_data_sent_ms", 10)]
        };
        let socket = scenario.held_by(process, socket);
        scenario.push(socket, info);
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

    /// The same, but the peers came to a port that is listened on.
    fn served(n: u32, all: u32, ms: u64) -> Scenario {
        let mut scenario = waiting(n, all, ms);
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
    fn a_destination_counts_from_ten_seconds_on_and_is_critical_from_a_minute_on() {
        assert_eq!(severity(waiting(5, 5, 9_999)), None);
        let found = findings(waiting(5, 5, 10_000)).remove(0);
        assert_eq!(found.severity, Severity::Warning);
        assert_eq!(
            found.title,
            "shipper[55] to 198.51.100.7:9092: 5 of 5 sockets wait for a peer that does not read, oldest 10 s"
        );
        assert_eq!(severity(waiting(5, 5, 59_999)), Some(Severity::Warning));
        assert_eq!(severity(waiting(5, 5, 60_000)), Some(Severity::Critical));
        assert_eq!(
            severity(waiting(5, 17, 60_000)),
            Some(Severity::Warning),
            "less than 30 %"
        );
        assert_eq!(
            severity(waiting(4, 4, 60_000)),
            Some(Severity::Info),
            "a backup and its friends"
        );
    }

    #[test]
    fn pausing_clients_of_a_public_server_are_no_news() {
        assert_eq!(severity(served(4, 4, 600_000)), None);
        assert_eq!(severity(served(5, 5, 59_999)), Some(Severity::Info));
        assert_eq!(
            severity(served(5, 5, 60_000)),
            Some(Severity::Warning),
            "all of them"
        );
        assert_eq!(
            severity(served(50, 50, 600_000)),
            Some(Severity::Warning),
            "never above"
        );
        assert_eq!(severity(served(20, 2_000, 300_000)), Some(Severity::Info));
    }

    #[test]
    fn what_moved_between_two_looks_is_not_stuck() {
        let acked = |by: u64| {
            let mut scenario = waiting(5, 5, 60_000);
            scenario.remember(5);
            for info in &mut scenario.snapshot.infos {
                let mut members = vec![("last_data_sent_ms", 60_000), ("bytes_acked", by)];
                members.extend([
                    ("busy_time_us", 25_000_000),
                    ("rwnd_limited_us", 24_000_000),
                ]);
                *info = TcpInfo::parse(&tcp_info::example(&members)).unwrap();
            }
            findings(scenario)
        };
        assert_eq!(acked(1), vec![]);
        let found = acked(0).remove(0);
        assert_eq!(found.severity, Severity::Critical);
        let value = |name| {
            let mut evidence = found.evidence.iter();
            evidence.find(|e| e.name == name).map(|e| e.value.clone())
        };
        use crate::model::finding::Value;
        assert_eq!(value("held_up_by_peers_window"), Some(Value::Count(5)));
        assert_eq!(value("bytes_acknowledged"), Some(Value::Count(0)));
        assert_eq!(value("limited_by_peers_window"), Some(Value::Count(100)));
    }

    #[test]
    fn close_wait_and_an_unsent_fin_count_too() {
        for state in [TcpState::CloseWait, TcpState::FinWait1] {
            let mut scenario = waiting(5, 5, 10_000);
            scenario
                .snapshot
                .sockets
                .iter_mut()
                .for_each(|socket| socket.state = state);
            let found = findings(scenario).remove(0);
            assert_eq!(found.severity, Severity::Warning, "{state:?}");
        }
    }

    #[test]
    fn unanswered_probes_are_told_apart() {
        let variant = |n: usize| {
            let mut scenario = waiting(5, 5, 10_000);
            let infos = scenario.snapshot.infos.iter_mut();
            infos.take(n).for_each(|info| info.probes = 2);
            findings(scenario).remove(0).variant
        };
        assert_eq!(variant(2), None);
        assert_eq!(variant(3), Some("send-q-stuck"));
    }

    #[test]
    fn a_window_closed_on_data_in_flight_counts_and_an_open_one_does_not() {
        let with = |window: u64| {
            let mut scenario = waiting(5, 5, 10_000);
            for socket in &mut scenario.snapshot.sockets {
                (socket.timer, socket.retransmits) = (Timer::Retransmit, 4);
            }
            for info in &mut scenario.snapshot.infos {
                let members = [("last_data_sent_ms", 12_000), ("snd_wnd_bytes", window)];
                *info = TcpInfo::parse(&tcp_info::example(&members)).unwrap();
            }
            severity(scenario)
        };
        assert_eq!(with(0), Some(Severity::Warning));
        assert_eq!(with(1), None);
    }

    #[test]
    fn what_a_program_holds_back_itself_does_not_wait_for_the_peer() {
        // TCP_CORK runs the probe timer too, with the window open.
        let with = |window: u64| {
            let mut scenario = waiting(5, 5, 60_000);
            for info in &mut scenario.snapshot.infos {
                let mut members = vec![("last_data_sent_ms", 60_000), ("snd_mss_bytes", 1448)];
                members.push(("snd_wnd_bytes", window));
                *info = TcpInfo::parse(&tcp_info::example(&members)).unwrap();
            }
            severity(scenario)
        };
        assert_eq!(with(1448), None);
        assert_eq!(with(1447), Some(Severity::Critical));
    }

    #[test]
    fn a_full_queue_that_is_being_sent_is_healthy() {
        let mut scenario = waiting(20, 20, 60_000);
        let sockets = scenario.snapshot.sockets.iter_mut();
        sockets.for_each(|socket| socket.timer = Timer::Retransmit);
        assert_eq!(severity(scenario), None);
    }
}
