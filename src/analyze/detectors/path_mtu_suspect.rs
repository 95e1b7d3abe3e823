//! Big segments get lost, small ones pass: a path with a smaller MTU that nobody tells of.

use std::collections::{HashMap, HashSet};

use crate::analyze::group::{self, Target};
use crate::analyze::role::{BACKGROUND, MIN, SHARE};
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::triage::{self, Queue, Stall, Triage};
use crate::analyze::{Blind, Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, TcpState, Timer};

/// The estimate of when a stall began may be wrong by this, milliseconds: loss probe, first time-out, a round trip.
const MARGIN_MS: u64 = 1000;

pub const DETECTOR: Detector = Detector {
    id: "path-mtu-suspect",
    aliases: &[],
    summary: "big segments seem to get lost on the way to a peer that answers small ones",
    signals: "ESTABLISHED and CLOSE-WAIT sockets with at least a full segment queued whose data has timed out several \
              times in a row, although the peer was heard from since, or although other connections to the same \
              destination are (and none there has timed out with little to send). Such sockets are not counted by \
              retransmit-stuck.",
    explanation: "The handshake and small messages pass, full segments do not: a link on the way takes smaller \
                  packets only, and the ICMP message that says so does not come back. TCP then sends the same big \
                  segment again until it gives up.",
    grounds: &[
        "RFC 9293 section 3.7.2",
        "RFC 2923 section 2.1",
        "Linux kernel, Documentation/networking/ip-sysctl.rst: tcp_mtu_probing",
    ],
    advice: &[
        "`ping -M do -s 1472 ADDRESS` (1452 for IPv6) shows whether full packets pass",
        "let ICMP `fragmentation needed` and `packet too big` through, or clamp the MSS at the tunnel",
    ],
    folklore: &["a peer that answers ping with small packets is no proof that the path is sound"],
    states: &[TcpState::Established, TcpState::CloseWait],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "retries",
            default: 3.0,
            unit: Unit::Count,
            doc: "a connection counts after so many time-outs in a row: chance does not lose one segment so often",
        },
        Threshold {
            key: "mss",
            default: 1220.0,
            unit: Unit::Count,
            doc: "bytes; segments up to this size pass any path of IPv6 (1280 less headers)",
        },
        Threshold {
            key: "age",
            default: 3.0,
            unit: Unit::Seconds,
            doc: "and when nothing was acknowledged for so long",
        },
        Threshold {
            key: "long",
            default: 30.0,
            unit: Unit::Seconds,
            doc: "only such stalls are critical, and on a listening port only they warn",
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
        of: "connections whose big segments get lost",
        limit: 5,
        build: example,
    },
};

/// A connection whose data has timed out again and again.
struct Suspect {
    row: u32,
    /// for how long, milliseconds
    ms: u64,
    target: Target,
    /// a full segment is queued, and it is a big one
    big: bool,
    /// too little is queued for the path MTU to matter
    small: bool,
    /// something came from the peer since
    heard: bool,
}

/// The rows that are this detector's and no other's, by its limits as they come.
pub fn by_default(context: &Context<'_>) -> HashSet<u32> {
    let (suspects, _) = suspects(context, &Limits::of(DETECTOR.thresholds));
    suspects.into_iter().map(|suspect| suspect.row).collect()
}

/// The connections that lose big segments only, and how many could not be judged.
fn suspects(context: &Context<'_>, limits: &Limits) -> (Vec<Suspect>, u64) {
    let snapshot = context.snapshot;
    let triage = Triage::new(context, Queue::Send);
    let (mut all, mut untold) = (Vec::new(), 0u64);
    for row in &context.tally.queued {
        let Some(socket) = snapshot.socket(*row) else {
            continue;
        };
        let info = snapshot.info(socket);
        let info = info.as_ref();
        let is_stuck = matches!(socket.state, TcpState::Established | TcpState::CloseWait)
            && !socket.remote.ip().is_loopback()
            && triage::time_outs(socket, info)
                .is_some_and(|n| f64::from(n) >= limits.get("retries"))
            && !triage::is_window_closed(socket, info)
            && !triage.is_moving(*row);
        if !is_stuck {
            continue;
        }
        let small = f64::from(socket.send_q) <= limits.get("mss");
        let Some(info) = info else {
            untold += u64::from(!small);
            continue;
        };
        let Some(age) = triage::unanswered(socket, Some(info)) else {
            continue;
        };
        all.push(Suspect {
            row: *row,
            ms: age.low_ms,
            target: Target::of(context, socket),
            big: socket.send_q >= info.snd_mss && f64::from(info.snd_mss) > limits.get("mss"),
            small,
            heard: triage::heard_ms(info) + MARGIN_MS <= age.low_ms,
        });
    }
    if !all.iter().any(|suspect| suspect.big) {
        return (Vec::new(), untold);
    }
    // Where little data is lost as well, it is not the size.
    let refuted: HashSet<Target> = all
        .iter()
        .filter(|suspect| suspect.small && matches!(suspect.target, Target::Destination(_)))
        .map(|suspect| suspect.target)
        .collect();
    all.retain(|suspect| suspect.big && !refuted.contains(&suspect.target));
    let living = living(context, &all);
    all.retain(|suspect| suspect.heard || living.contains(&suspect.target));
    (all, untold)
}

/// The destinations from which other connections have heard since these stalls began. Many clients may share one
/// address, so where they come to us another connection proves nothing.
fn living(context: &Context<'_>, stuck: &[Suspect]) -> HashSet<Target> {
    let mut since: HashMap<Endpoint, u64> = HashMap::new();
    for suspect in stuck.iter().filter(|suspect| !suspect.heard) {
        if let Target::Destination(remote) = suspect.target {
            let ms = since.entry(remote).or_default();
            *ms = suspect.ms.max(*ms);
        }
    }
    if since.is_empty() {
        return HashSet::new();
    }
    let heard = |remote: &Endpoint, heard_ms: u64| {
        since
            .get(remote)
            .is_some_and(|ms| heard_ms + MARGIN_MS <= *ms)
    };
    context
        .snapshot
        .sockets
        .iter()
        .filter(|socket| socket.state == TcpState::Established && socket.retransmits == 0)
        .filter(|socket| !context.tally.listening.contains(socket.local.port))
        .filter(|socket| {
            let info = context.snapshot.info(socket);
            let info = info.as_ref();
            info.is_some_and(|info| heard(&socket.remote, triage::heard_ms(info)))
        })
        .map(|socket| Target::Destination(socket.remote))
        .collect()
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let (suspects, untold) = suspects(context, limits);
    let heard: HashSet<u32> = suspects
        .iter()
        .filter(|suspect| suspect.heard)
        .map(|suspect| suspect.row)
        .collect();
    let stuck: Vec<(u64, u32)> = suspects.iter().map(|s| (s.ms, s.row)).collect();
    let findings: Vec<Finding> = triage::stalls(context, &stuck, limits)
        .into_iter()
        .map(|stall| tell(context, limits, &stall, &heard))
        .collect();
    if findings.is_empty() && untold > 0 {
        return Verdict::CannotTell(format!(
            "{} without an answer, but without tcp_info the segment size and the peer's last word are not known",
            words::count(untold, "connection")
        ));
    }
    Verdict::of(group::capped(findings))
}

fn tell(
    context: &Context<'_>,
    limits: &Limits,
    stall: &Stall<'_>,
    heard: &HashSet<u32>,
) -> Finding {
    let snapshot = context.snapshot;
    let rows = || stall.towards.rows.iter().copied();
    let infos = || rows().filter_map(|row| snapshot.info(snapshot.socket(row)?));
    let heard = rows().filter(|row| heard.contains(row)).count() as u64;
    let mss = infos().map(|info| info.snd_mss).max().unwrap_or(0);
    let mtu = infos().map(|info| info.pmtu).max().filter(|mtu| *mtu > 0);
    // Less the headers of IP and ICMP.
    let headers = if is_v6(context, stall) { 48 } else { 28 };
    let largest = mtu.unwrap_or(1500).saturating_sub(headers);
    let mut evidence = stall.evidence("big_segments_unanswered", limits);
    evidence.extend([
        Evidence::real(
            "oldest",
            stall.oldest_ms as f64 / 1000.0,
            "s",
            "tcpi_total_rto_time, tcpi_backoff",
        )
        .limit(limits.get("age")),
        Evidence::count("segment_size", mss, "bytes", "tcpi_snd_mss").limit(limits.get("mss")),
        Evidence::count(
            "path_mtu_as_known_here",
            mtu.unwrap_or(0),
            "bytes",
            "tcpi_pmtu",
        ),
        Evidence::count(
            "heard_from_since",
            heard,
            "sockets",
            "tcpi_last_ack_recv, tcpi_last_data_recv",
        ),
    ]);
    evidence.extend(Triage::new(context, Queue::Send).evidence(rows()));
    let proof = if heard > 0 {
        "The peer was heard from since"
    } else {
        "Other connections to it are answered"
    };
    Finding {
        id: DETECTOR.id,
        variant: None,
        // That others are answered may have another reason: several machines behind one address.
        severity: if heard > 0 {
            stall.severity
        } else {
            stall.severity.min(Severity::Warning)
        },
        title: stall.title("lose big segments only"),
        subject: stall.towards.subject(context),
        evidence,
        explanation: format!(
            "Segments of {} bytes were sent again and again without an answer. {proof}, so small ones seem to pass. \
             Probably a link on the way (tunnel, VPN) takes smaller packets only, and the ICMP message that says so \
             is dropped.",
            words::thousands(mss)
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Network,
        advice: vec![
            format!(
                "ping -M do -c 3 -s {largest} {}    # no answer, and one with -s 1200: it is the size",
                stall.peer(context)
            ),
            "let ICMP `too big` through or clamp the MSS; sysctl -w net.ipv4.tcp_mtu_probing=1 works around it".to_owned(),
            "do not: lower the MTU of the whole host first; one path is at fault".to_owned(),
        ],
        rows: stall.shown(),
        caused_by: None,
        one_sample: false,
    }
}

fn is_v6(context: &Context<'_>, stall: &Stall<'_>) -> bool {
    let oldest = stall.towards.rows.first();
    oldest
        .and_then(|row| context.snapshot.socket(*row))
        .is_some_and(|socket| socket.remote.ip().is_ipv6())
}

fn example(n: u32) -> Scenario {
    lost(n, n * 2, 500)
}

/// `n` of `all` connections have timed out five times with 20,000 bytes queued, for 12.6 s, and were last heard from
/// so long ago.
fn lost(n: u32, all: u32, heard: u64) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(55, "uploader", 30, 1024);
    for i in 0..all {
        let mut socket = scenario.socket(
            TcpState::Established,
            Endpoint::v4(HERE, 40_000 + i as u16),
            Endpoint::v4(THERE, 443),
        );
        let mut info = vec![
            ("rto_us", 6_528_000),
            ("snd_mss_bytes", 1448),
            ("pmtu_bytes", 1500),
            ("last_ack_recv_ms", heard.max(12_600)),
            ("last_data_recv_ms", heard),
        ];
        if i < n {
            (socket.timer, socket.send_q) = (Timer::Retransmit, 20_000);
            (socket.timer_ms, socket.retransmits) = (252, 5);
            info.extend([
                ("retransmits", 5),
                ("backoff", 5),
                ("total_rto_recoveries", 1),
                ("total_rto_time_ms", 12_200),
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
    use crate::analyze::Settings;
    use crate::model::Analysis;

    fn analyze(scenario: Scenario) -> Analysis {
        let mut settings = Settings::default();
        let both = [DETECTOR.id.to_owned(), "retransmit-stuck".to_owned()];
        settings.only(&both).unwrap();
        scenario.analyze(&settings)
    }

    /// What is found, by whom, and how bad.
    fn found(scenario: Scenario) -> Vec<(&'static str, Severity)> {
        let findings = analyze(scenario).findings;
        findings.iter().map(|f| (f.id, f.severity)).collect()
    }

    const MTU: &str = "path-mtu-suspect";
    const DEAD: &str = "retransmit-stuck";

    #[test]
    fn who_is_heard_but_acknowledges_no_big_segment_is_no_dead_peer() {
        let analysis = analyze(lost(5, 5, 500));
        assert_eq!(analysis.quiet, [DEAD], "one owner for one socket");
        let finding = &analysis.findings[0];
        assert_eq!((finding.id, finding.severity), (MTU, Severity::Warning));
        assert_eq!(
            finding.title,
            "uploader[55] to 198.51.100.7:443: 5 of 5 sockets lose big segments only, oldest 13 s"
        );
        assert_eq!(found(lost(4, 4, 500)), [(MTU, Severity::Info)]);
    }

    #[test]
    fn a_peer_that_fell_silent_when_the_stall_began_is_dead() {
        assert_eq!(found(lost(5, 5, 11_600)), [(MTU, Severity::Warning)]);
        assert_eq!(found(lost(5, 5, 11_601)), [(DEAD, Severity::Warning)]);
    }

    /// Five that are stuck and were not heard from, beside five others that were.
    fn beside_living() -> Scenario {
        let mut scenario = lost(5, 10, 12_600);
        for at in 5..10 {
            scenario.snapshot.infos[at].last_data_recv_ms = 100;
        }
        scenario
    }

    #[test]
    fn other_connections_to_the_destination_prove_that_it_lives() {
        assert_eq!(found(beside_living()), [(MTU, Severity::Warning)]);
        let mut idle = beside_living();
        for info in &mut idle.snapshot.infos {
            info.last_data_recv_ms = 600_000;
            info.last_ack_recv_ms = 600_000;
        }
        assert_eq!(
            found(idle),
            [(DEAD, Severity::Warning)],
            "nobody has heard anything"
        );
        let mut elsewhere = beside_living();
        for socket in elsewhere.snapshot.sockets.iter_mut().skip(5) {
            socket.remote.port = 80;
        }
        assert_eq!(found(elsewhere), [(DEAD, Severity::Warning)]);
    }

    #[test]
    fn where_little_data_is_lost_too_it_is_not_the_size() {
        let mut scenario = beside_living();
        scenario.snapshot.sockets[0].send_q = 1220;
        assert_eq!(found(scenario), [(DEAD, Severity::Warning)]);
    }

    #[test]
    fn clients_behind_one_address_prove_nothing_for_each_other() {
        let mut scenario = beside_living();
        let process = scenario.process(9, "nginx", 30, 1024);
        scenario.listen(process, 443, 0, 511, 0);
        for (i, socket) in scenario.snapshot.sockets.iter_mut().enumerate() {
            if socket.state != TcpState::Listen {
                (socket.local.port, socket.remote.port) = (443, 1024 + i as u16);
            }
        }
        assert_eq!(found(scenario), [(DEAD, Severity::Info)]);
    }

    #[test]
    fn small_segments_small_queues_and_few_time_outs_are_not_suspect() {
        let with = |change: fn(&mut Scenario)| {
            let mut scenario = lost(5, 5, 500);
            change(&mut scenario);
            found(scenario)
        };
        let mss = |scenario: &mut Scenario| {
            scenario
                .snapshot
                .infos
                .iter_mut()
                .for_each(|i| i.snd_mss = 1220);
        };
        assert_eq!(with(mss), [(DEAD, Severity::Warning)]);
        let queue = |scenario: &mut Scenario| {
            scenario
                .snapshot
                .sockets
                .iter_mut()
                .for_each(|s| s.send_q = 1447);
        };
        assert_eq!(with(queue), [(DEAD, Severity::Warning)]);
        let retries = |scenario: &mut Scenario| {
            scenario
                .snapshot
                .sockets
                .iter_mut()
                .for_each(|s| s.retransmits = 2);
            for info in &mut scenario.snapshot.infos {
                (info.backoff, info.retransmits) = (2, 2);
            }
        };
        assert_eq!(with(retries), []);
        let loopback = |scenario: &mut Scenario| {
            let lo = Endpoint::v4([127, 0, 0, 1], 443);
            scenario
                .snapshot
                .sockets
                .iter_mut()
                .for_each(|s| s.remote = lo);
        };
        assert_eq!(with(loopback), [(DEAD, Severity::Warning)]);
    }

    #[test]
    fn critical_needs_half_a_minute_and_the_peers_own_word() {
        let older = |mut scenario: Scenario, ms: u32| {
            for (socket, info) in scenario
                .snapshot
                .sockets
                .iter()
                .zip(&mut scenario.snapshot.infos)
            {
                // as an old kernel tells it: 204 ms doubled seven times, less what is left
                *info = info.clipped(232);
                if socket.send_q > 0 {
                    (info.backoff, info.rto_us) = (7, 26_112_000);
                }
            }
            let sockets = scenario.snapshot.sockets.iter_mut();
            sockets.for_each(|socket| socket.timer_ms = 25_908 + 26_112 - ms);
            found(scenario)
        };
        assert_eq!(older(lost(5, 5, 500), 29_999), [(MTU, Severity::Warning)]);
        assert_eq!(older(lost(5, 5, 500), 30_000), [(MTU, Severity::Critical)]);
        let mut others = beside_living();
        for info in others.snapshot.infos.iter_mut().take(5) {
            (info.last_data_recv_ms, info.last_ack_recv_ms) = (30_000, 30_000);
        }
        assert_eq!(older(others, 30_000), [(MTU, Severity::Warning)]);
    }

    #[test]
    fn without_tcp_info_it_cannot_tell() {
        let mut scenario = lost(1, 1, 500);
        scenario.snapshot.infos.clear();
        scenario.snapshot.sockets[0].info = None;
        let unknown = analyze(scenario).unknown;
        assert_eq!(unknown[0].id, MTU);
    }
}
