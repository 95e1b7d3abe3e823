//! Connections that could go faster if their own send buffer let them, and send queues that grow.

use crate::analyze::group::{self, Group};
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::triage::{Moves, Queue, Triage};
use crate::analyze::{Blind, Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::history::{CLOSE, Flow, Sample};
use crate::model::{
    Actor, Endpoint, Evidence, Finding, Severity, Socket, TcpInfo, TcpState, Timer,
};

pub const DETECTOR: Detector = Detector {
    id: "send-q-growth",
    aliases: &[],
    summary: "a program's send buffers hold its connections back, or its send queues grow",
    signals: "The share of the time with something to send in which a connection was held up by its own send buffer, \
              between looks, by process and destination or listener; with one look over the connection's life. As \
              `queue-growing`: in three looks the send queue grew although the peer reads, and holds seconds of data.",
    explanation: "The path and the peer would take more, but the program's send buffer holds no more than is already \
                  on the way. The kernel sizes the buffer by itself unless the program has set SO_SNDBUF or \
                  tcp_wmem ends it. A long queue alone is how every bulk transfer looks.",
    grounds: &[
        "Linux kernel, net/ipv4/tcp_output.c: tcp_cwnd_validate()",
        "Linux kernel, Documentation/networking/ip-sysctl.rst: tcp_wmem",
    ],
    advice: &[
        "leave SO_SNDBUF unset, so that the kernel sizes the buffer, or raise the maximum in tcp_wmem",
        "set TCP_NOTSENT_LOWAT where what is queued must stay fresh",
    ],
    folklore: &["a full Send-Q is no fault: a bulk transfer keeps it full on purpose"],
    states: &[TcpState::Established, TcpState::CloseWait],
    worst: Severity::Warning,
    thresholds: &[
        Threshold {
            key: "share",
            default: 20.0,
            unit: Unit::Percent,
            doc: "of the time with something to send: below, the buffer costs little",
        },
        Threshold {
            key: "busy",
            default: 10.0,
            unit: Unit::Percent,
            doc: "of the time between the looks it had something to send: who sends now and then loses nothing",
        },
        Threshold {
            key: "info",
            default: 5.0,
            unit: Unit::Count,
            doc: "so many sockets of one program are worth knowing of; single transfers are not",
        },
        Threshold {
            key: "warn",
            default: 11.0,
            unit: Unit::Count,
            doc: "so many sockets of one program, limited in three looks, are how the program is set up",
        },
        Threshold {
            key: "backlog",
            default: 5.0,
            unit: Unit::Seconds,
            doc: "a growing queue counts from so much data on, at the speed at which the peer took it",
        },
    ],
    blind: &[Blind {
        since: (4, 10),
        lacks: "tcpi_sndbuf_limited",
        effect: "time that a send buffer costs is not measured",
    }],
    needs: Needs {
        tcp_info: true,
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "connections held back by their send buffer in three looks",
        limit: 11,
        build: example,
    },
};

/// Over how much was looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Span {
    /// the life of the connection
    Life,
    /// from one look to the next
    Once,
    /// two times in a row
    Twice,
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let (mut untold, mut limited, mut growing) = (0u64, Vec::new(), Vec::new());
    for row in &context.tally.queued {
        let Some(socket) = snapshot.socket(*row).filter(|socket| is_sending(socket)) else {
            continue;
        };
        let info = snapshot.info(socket);
        let info = info.as_ref();
        if info.and_then(TcpInfo::sndbuf_limited_us).is_none() {
            untold += 1;
        } else if let Some(found) = share(context, socket, info, limits) {
            limited.push((*row, found));
        }
        if grows(context, socket, limits) {
            growing.push(*row);
        }
    }
    let mut findings = Vec::new();
    for group in group::by_owner(context, limited.iter().map(|(row, _)| *row)) {
        if group.rows.len() as f64 >= limits.get("info") {
            let of = |row: &u32| {
                let at = limited.binary_search_by_key(row, |(row, _)| *row).ok()?;
                limited.get(at).map(|(_, found)| *found)
            };
            let shares: Vec<(u64, Span)> = group.rows.iter().filter_map(of).collect();
            findings.push(tell_limited(context, limits, &group, &shares));
        }
    }
    for group in group::by_owner(context, growing.into_iter()) {
        if group.rows.len() as f64 >= limits.get("info") {
            findings.push(tell_growing(context, limits, &group));
        }
    }
    if findings.is_empty() && untold > 0 {
        return Verdict::CannotTell(format!(
            "{} with a send queue, but nothing tells how long the send buffer held it up (tcp_info of Linux 4.10)",
            words::count(untold, "socket")
        ));
    }
    Verdict::of(group::capped(findings))
}

fn is_sending(socket: &Socket) -> bool {
    socket.send_q > 0
        && socket.inode != 0
        && matches!(socket.state, TcpState::Established | TcpState::CloseWait)
}

/// What the last looks say of a connection, oldest first, this one included: as many of three as there are.
fn looks(context: &Context<'_>, socket: &Socket) -> Vec<(jiff::Timestamp, Flow)> {
    let Some(cookie) = socket.cookie.map(std::num::NonZeroU64::get) else {
        return Vec::new();
    };
    let look = |sample: &Sample| Some((sample.taken, *sample.flow(cookie)?));
    let earlier = context.history.earlier().iter().rev().take(2);
    let mut looks: Vec<_> = std::iter::once(context.sample)
        .chain(earlier)
        .map_while(look)
        .collect();
    looks.reverse();
    looks
}

/// The share of its busy time in which the send buffer held it up, if that is enough, and over what it was measured.
fn share(
    context: &Context<'_>,
    socket: &Socket,
    info: Option<&TcpInfo>,
    limits: &Limits,
) -> Option<(u64, Span)> {
    let enough = |share: &u64| *share as f64 >= limits.get("share");
    let looks = looks(context, socket);
    // A look of long ago that has not seen its queue says nothing of it; one of lately says that it was empty.
    let taken = context.sample.taken;
    if looks.len() < 2 && context.history.just_before(taken).is_none() {
        let busy = info?.busy_time_us().filter(|us| *us >= 1_000_000)?;
        let share = words::percent(info?.sndbuf_limited_us()?, busy);
        return Some((share, Span::Life)).filter(|(share, _)| enough(share));
    }
    let between = |pair: &[(jiff::Timestamp, Flow)]| {
        let [(from, then), (to, now)] = pair else {
            return None;
        };
        let moves = Moves::between(then, now);
        let window_us = to.duration_since(*from).as_micros() as f64;
        let is_busy = moves.busy_us? as f64 * 100.0 >= window_us * limits.get("busy");
        // Where nothing was acknowledged it is not the buffer that holds it up.
        moves
            .buffer_share()
            .filter(|share| is_busy && moves.acked > Some(0) && enough(share))
    };
    let shares: Vec<Option<u64>> = looks.windows(2).map(between).collect();
    let last = (*shares.last()?)?;
    let twice = shares.len() == 2 && shares.iter().all(Option::is_some);
    Some((last, if twice { Span::Twice } else { Span::Once }))
}

/// Whether the queue grew twice in a row although the peer took data, up to more than it takes in a while.
fn grows(context: &Context<'_>, socket: &Socket, limits: &Limits) -> bool {
    let looks = looks(context, socket);
    let [(from, first), (_, second), (to, third)] = &looks[..] else {
        return false;
    };
    // What a queue did in between is not seen over minutes.
    let far = |pair: &[(jiff::Timestamp, Flow)]| {
        let [(from, _), (to, _)] = pair else {
            return false;
        };
        to.duration_since(*from).unsigned_abs() > CLOSE
    };
    if looks.windows(2).any(far) {
        return false;
    }
    let took = |then, now| Moves::between(then, now).acked.unwrap_or(0);
    let (early, late) = (took(first, second), took(second, third));
    let seconds = to.duration_since(*from).as_secs_f64();
    let rate = early.saturating_add(late) as f64 / seconds.max(0.001);
    let grew = first.send_q < second.send_q && second.send_q < third.send_q;
    grew && early > 0 && late > 0 && f64::from(third.send_q) >= rate * limits.get("backlog")
}

fn tell_limited(
    context: &Context<'_>,
    limits: &Limits,
    group: &Group<'_>,
    shares: &[(u64, Span)],
) -> Finding {
    let stuck = group.rows.len() as u64;
    let count = |span| shares.iter().filter(|(_, of)| *of == span).count() as u64;
    let twice = count(Span::Twice);
    let life = count(Span::Life) > 0;
    let warns = twice as f64 >= limits.get("warn");
    let mut sorted: Vec<u64> = shares.iter().map(|(share, _)| *share).collect();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
    let limit = if warns { "warn" } else { "info" };
    let mut evidence = vec![
        Evidence::count("held_back", stuck, "sockets", "tcpi_sndbuf_limited")
            .limit(limits.get(limit)),
        Evidence::count("in_three_looks", twice, "sockets", "tcpi_sndbuf_limited")
            .limit(limits.get("warn")),
        Evidence::count(
            "median_share_of_time",
            median,
            "%",
            "tcpi_sndbuf_limited, tcpi_busy_time",
        )
        .limit(limits.get("share")),
    ];
    if let Some(wmem) = context.snapshot.facts.sysctls.get("net/ipv4/tcp_wmem") {
        evidence.push(Evidence::text(
            "tcp_wmem",
            wmem.clone(),
            "net.ipv4.tcp_wmem",
        ));
    }
    evidence.extend(Triage::new(context, Queue::Send).evidence(group.rows.iter().copied()));
    let since = if life {
        "of their lives"
    } else {
        "of the time"
    };
    let (who, n) = (group.who(), words::thousands(stuck));
    let all = words::thousands(group.total.max(stuck));
    let (long, brief) = (group.target.words(), group.target.brief());
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity: if warns {
            Severity::Warning
        } else {
            Severity::Info
        },
        title: words::fit([
            format!("{who}: {n} of {all} sockets {long} held back by their send buffer {median} % {since}"),
            format!("{who}: {n} of {all} {brief} limited by send buffer {median} % {since}"),
            format!("{who}: {n} of {all} {brief}: send buffer too small {median} %"),
        ]),
        subject: group.subject(),
        evidence,
        explanation: "Everything in the send buffer was on the way, and the program could not add more, although path \
                      and peer would have taken it. Either the program sets SO_SNDBUF, or the maximum in tcp_wmem is \
                      too small for this path."
            .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            format!("{}    # then: does the program set SO_SNDBUF?", group.command()),
            "leave SO_SNDBUF unset; else raise the third number of sysctl net.ipv4.tcp_wmem".to_owned(),
            "do not: raise net.core.wmem_default; TCP does not use it".to_owned(),
        ],
        rows: group.rows.iter().copied().take(10).collect(),
        caused_by: None,
        // A warning rests on the sockets that three looks agree on.
        one_sample: life && !warns,
    }
}

fn tell_growing(context: &Context<'_>, limits: &Limits, group: &Group<'_>) -> Finding {
    let stuck = group.rows.len() as u64;
    let sockets = group
        .rows
        .iter()
        .filter_map(|row| context.snapshot.socket(*row));
    let queued: u64 = sockets.map(|socket| u64::from(socket.send_q)).sum();
    let mut evidence = vec![
        Evidence::count("growing", stuck, "sockets", "idiag_wqueue").limit(limits.get("info")),
        Evidence::count("queued", queued, "bytes", "idiag_wqueue"),
    ];
    evidence.extend(Triage::new(context, Queue::Send).evidence(group.rows.iter().copied()));
    let (who, n, bytes) = (
        group.who(),
        words::thousands(stuck),
        words::thousands(queued),
    );
    let (long, brief) = (group.target.words(), group.target.brief());
    Finding {
        id: DETECTOR.id,
        variant: Some("queue-growing"),
        severity: Severity::Info,
        title: words::fit([
            format!("{who}: {n} send queues {long} grew in three looks, {bytes} bytes now"),
            format!("{who}: {n} send queues {brief} grow, {bytes} bytes now"),
            format!("{who}: {n} send queues grow, {bytes} bytes now"),
        ]),
        subject: group.subject(),
        evidence,
        explanation: format!(
            "The program writes faster than the peers take it, so what it sends now arrives {} or more later. A bulk \
             transfer does that on purpose.",
            words::time(limits.ms("backlog"))
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Nobody,
        advice: vec![
            format!("{}    # which connections", group.command()),
            "where what is sent must be fresh: set TCP_NOTSENT_LOWAT, and write when the socket is writable".to_owned(),
            "do not: set a small SO_SNDBUF for it; that slows the transfer".to_owned(),
        ],
        rows: group.rows.iter().copied().take(10).collect(),
        caused_by: None,
        one_sample: false,
    }
}

fn example(n: u32) -> Scenario {
    limited(&[n, n, n], 20)
}

/// A process whose connections were held back so much of the time: as many as given in each look.
fn limited(looks: &[u32], share: u64) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(31, "replica", 60, 1024);
    let most = looks.iter().copied().max().unwrap_or(0);
    let sockets: Vec<Socket> = (0..most)
        .map(|i| {
            let mut socket = scenario.socket(
                TcpState::Established,
                Endpoint::v4(HERE, 40_000 + i as u16),
                Endpoint::v4(THERE, 5432),
            );
            (socket.timer, socket.send_q) = (Timer::Retransmit, 16_384);
            scenario.held_by(process, socket)
        })
        .collect();
    let mut spent = vec![0u64; sockets.len()];
    for (at, n) in (1u64..).zip(looks) {
        if at > 1 {
            scenario.remember(10);
        }
        scenario.snapshot.sockets.clear();
        scenario.snapshot.infos.clear();
        for (i, (socket, spent)) in (0u32..).zip(sockets.iter().zip(&mut spent)) {
            *spent += if i < *n { share * 100_000 } else { 0 };
            let info = [
                ("busy_time_us", at * 10_000_000),
                ("sndbuf_limited_us", *spent),
                ("bytes_acked", at * 1_000_000),
            ];
            scenario.push(*socket, &info);
        }
    }
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Analysis, tcp_info};

    fn analyze(scenario: Scenario) -> Analysis {
        scenario.judge(DETECTOR.id)
    }

    fn severity(scenario: Scenario) -> Option<Severity> {
        analyze(scenario)
            .findings
            .first()
            .map(|finding| finding.severity)
    }

    #[test]
    fn eleven_in_three_looks_warn_and_five_are_worth_knowing() {
        let finding = analyze(limited(&[11, 11, 11], 20)).findings.remove(0);
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(
            finding.title,
            "replica[31]: 11 of 11 sockets to 198.51.100.7:5432 held back by their send buffer 20 % of the time"
        );
        assert_eq!(severity(limited(&[10, 10, 10], 20)), Some(Severity::Info));
        assert_eq!(
            severity(limited(&[11, 11], 20)),
            Some(Severity::Info),
            "two looks"
        );
        assert_eq!(severity(limited(&[11, 0, 11], 20)), Some(Severity::Info));
        assert_eq!(severity(limited(&[11, 11, 0], 20)), None, "not any more");
        assert_eq!(severity(limited(&[5, 5, 5], 20)), Some(Severity::Info));
        assert_eq!(severity(limited(&[4, 4, 4], 90)), None);
        assert_eq!(severity(limited(&[11, 11, 11], 19)), None);
    }

    #[test]
    fn one_look_tells_of_the_past_and_says_so() {
        let finding = analyze(limited(&[11], 40)).findings.remove(0);
        assert_eq!(
            (finding.severity, finding.one_sample),
            (Severity::Info, true)
        );
        assert!(
            finding.title.ends_with("40 % of their lives"),
            "{}",
            finding.title
        );
    }

    #[test]
    fn a_look_of_long_ago_that_did_not_see_it_is_none() {
        let after = |seconds| {
            let mut scenario = limited(&[11], 40);
            let (sockets, infos) = (
                std::mem::take(&mut scenario.snapshot.sockets),
                std::mem::take(&mut scenario.snapshot.infos),
            );
            scenario.remember(seconds);
            (scenario.snapshot.sockets, scenario.snapshot.infos) = (sockets, infos);
            severity(scenario)
        };
        assert_eq!(after(60), None, "their queues were empty");
        assert_eq!(after(61), Some(Severity::Info));
    }

    #[test]
    fn who_sends_now_and_then_or_is_stuck_is_not_held_back_by_a_buffer() {
        let with = |busy: u64, acked: u64| {
            let mut scenario = limited(&[11, 11, 11], 20);
            for info in &mut scenario.snapshot.infos {
                let members = [
                    ("busy_time_us", 20_000_000 + busy),
                    ("sndbuf_limited_us", 4_000_000 + busy / 2),
                    ("bytes_acked", 2_000_000 + acked),
                ];
                *info = TcpInfo::parse(&tcp_info::example(&members)).unwrap();
            }
            severity(scenario)
        };
        assert_eq!(with(1_000_000, 1), Some(Severity::Warning), "10 % of 10 s");
        assert_eq!(with(999_999, 1), None);
        assert_eq!(with(1_000_000, 0), None, "nothing moved");
    }

    #[test]
    fn queues_that_grow_to_seconds_of_data_are_info() {
        let grown_in = |seconds, sizes: [u32; 3], acked: u64| {
            let mut scenario = limited(&[5], 0);
            for (at, size) in (0u64..).zip(sizes) {
                if at > 0 {
                    scenario.remember(seconds);
                }
                for socket in &mut scenario.snapshot.sockets {
                    socket.send_q = size;
                }
                for info in &mut scenario.snapshot.infos {
                    let members = [("bytes_acked", at * acked)];
                    *info = TcpInfo::parse(&tcp_info::example(&members)).unwrap();
                }
            }
            let findings = analyze(scenario).findings;
            findings.first().map(|f| (f.variant, f.severity))
        };
        let grown = |sizes, acked| grown_in(1, sizes, acked);
        let info = Some((Some("queue-growing"), Severity::Info));
        assert_eq!(grown_in(60, [1_000, 2_000, 5_000], 1_000), info);
        assert_eq!(
            grown_in(61, [1_000, 2_000, 5_000], 1_000),
            None,
            "nobody saw it in between"
        );
        assert_eq!(grown([1_000, 2_000, 5_000], 1_000), info);
        assert_eq!(grown([1_000, 2_000, 4_999], 1_000), None, "less than 5 s");
        assert_eq!(grown([1_000, 1_000, 5_000], 1_000), None);
        assert_eq!(
            grown([1_000, 2_000, 5_000], 0),
            None,
            "stuck is not growing"
        );
    }

    #[test]
    fn a_full_queue_of_a_bulk_transfer_is_healthy() {
        assert_eq!(severity(limited(&[50, 50, 50], 0)), None);
        let mut old = limited(&[50], 40);
        for info in &mut old.snapshot.infos {
            *info = info.clipped(104);
        }
        assert_eq!(analyze(old).unknown[0].id, DETECTOR.id);
    }
}
