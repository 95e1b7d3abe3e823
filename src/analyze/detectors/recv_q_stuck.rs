//! Data that has arrived and that the program does not read.

use std::collections::{BTreeMap, HashSet};

use crate::analyze::group::{self, Group, Target, Who};
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::triage::{self, Queue, Triage};
use crate::analyze::{Blind, Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, Socket, TcpState};

pub const DETECTOR: Detector = Detector {
    id: "recv-q-stuck",
    aliases: &[],
    summary: "a program does not read what has arrived for it",
    signals: "ESTABLISHED and CLOSE-WAIT sockets whose unread data has lain there for long, by process and \
              destination or listener. A socket from which the program read between two looks does not count, nor an \
              unread FIN, nor small farewells on dialled connections, nor groups that are all CLOSE-WAIT \
              (close-wait-leak). A program that itself waits for as many peers to read passes that on: info.",
    explanation: "The data is in this kernel's receive queue and the program does not take it: its thread hangs, \
                  waits for something else, or stands still. When the queue is full the kernel closes the window, \
                  and then the peer waits too.",
    grounds: &[
        "RFC 9293 section 3.8.6",
        "Linux kernel, net/ipv4/tcp_diag.c: tcp_diag_get_info()",
    ],
    advice: &[
        "look at what the program's threads wait for (its stacks, its event loop, its pool)",
        "`linger pid:PID` shows which of its other connections wait",
    ],
    folklore: &["a larger receive buffer only lets more data lie unread"],
    states: &[TcpState::Established, TcpState::CloseWait],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "age",
            default: 5.0,
            unit: Unit::Seconds,
            doc: "counts when data has lain unread for so long: a busy program reads within milliseconds",
        },
        Threshold {
            key: "long",
            default: 60.0,
            unit: Unit::Seconds,
            doc: "only such are critical: batches and collections of garbage end before",
        },
        Threshold {
            key: "min",
            default: 5.0,
            unit: Unit::Count,
            doc: "fewer sockets of one program towards one destination or listener are info only",
        },
        Threshold {
            key: "share",
            default: 30.0,
            unit: Unit::Percent,
            doc: "of the program's sockets towards it: below, it reads most and means not to read these",
        },
        Threshold {
            key: "farewell",
            default: 1024.0,
            unit: Unit::Count,
            doc: "bytes; less on a dialled connection is what idle pools leave unread: a TLS alert, tickets, a 408",
        },
    ],
    blind: &[Blind {
        since: (6, 2),
        lacks: "tcpi_rcv_wnd",
        effect: "one look cannot tell a slow reader from one that hangs, and is never more than info; peers that were \
                 told to stop are not counted",
    }],
    needs: Needs {
        tcp_info: true,
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "connections with unread requests",
        limit: 5,
        build: example,
    },
};

/// Bytes that wait; an unread FIN counts as one in the queue.
fn unread(socket: &Socket) -> u32 {
    let fin = u32::from(socket.state == TcpState::CloseWait);
    socket.recv_q.saturating_sub(fin)
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let triage = Triage::new(context, Queue::Receive);
    let mut undated = 0u64;
    let mut ages: BTreeMap<u32, Ages> = BTreeMap::new();
    for row in &context.tally.queued {
        let Some(socket) = snapshot.socket(*row) else {
            continue;
        };
        let bytes = unread(socket);
        if bytes == 0
            || socket.inode == 0
            || !matches!(socket.state, TcpState::Established | TcpState::CloseWait)
            || is_farewell(context, socket, bytes, limits)
            || triage.is_moving(*row)
        {
            continue;
        }
        // What is unread includes the last byte that came, and probes of a closed window do not stamp.
        let info = snapshot.info(socket);
        let info = info.as_ref();
        undated += u64::from(info.is_none());
        let last = info.map_or(0, |info| u64::from(info.last_data_recv_ms));
        let unmoved = triage.unmoved_ms(*row);
        // Less than a segment is as good as nothing.
        let open = info.is_some_and(|info| {
            info.rcv_wnd()
                .is_some_and(|window| window >= info.snd_mss.max(1))
        });
        let ages_of = Ages {
            seen: last.max(unmoved),
            proven: if open { last.max(unmoved) } else { unmoved },
        };
        if ages_of.seen >= limits.ms("age") {
            ages.insert(*row, ages_of);
        }
    }
    let mut groups = group::by_owner(context, ages.keys().copied());
    groups.retain(|group| {
        let mut sockets = group.rows.iter().filter_map(|row| snapshot.socket(*row));
        sockets.any(|socket| socket.state == TcpState::Established)
    });
    let blocked = blocked(context, &groups);
    let mut findings = Vec::new();
    let mut minor = Vec::new();
    for mut group in groups {
        let age = |row: &u32| ages.get(row).map_or(0, |ages| ages.seen);
        let proven = |row: &u32| ages.get(row).map_or(0, |ages| ages.proven);
        group
            .rows
            .sort_by_key(|row| (std::cmp::Reverse(age(row)), *row));
        let waits = blocked.get(&group.by).copied().unwrap_or(0);
        let severity = judge(&group, waits, limits, proven);
        let found = Found {
            oldest_ms: group.rows.first().map_or(0, age),
            group,
            waits,
            programs: 1,
        };
        if severity > Severity::Info {
            findings.push(tell(context, &triage, limits, found, severity));
        } else {
            minor.push(found);
        }
    }
    findings.extend(fold(minor).map(|found| tell(context, &triage, limits, found, Severity::Info)));
    if findings.is_empty() && undated > 0 {
        return Verdict::CannotTell(format!(
            "{} with unread data, but without tcp_info nothing tells for how long",
            words::count(undated, "socket")
        ));
    }
    Verdict::of(group::capped(findings))
}

/// For how long a connection's data has been unread, milliseconds.
struct Ages {
    /// since the last of it came
    seen: u64,
    /// for which nothing was read. While the window is closed nothing can come, and a slow reader that works through a
    /// full queue looks like one that hangs until a second look
    proven: u64,
}

/// A server that ends an idle connection says so first, and the pool that holds it looks only when it wants to use it.
fn is_farewell(context: &Context<'_>, socket: &Socket, bytes: u32, limits: &Limits) -> bool {
    f64::from(bytes) < limits.get("farewell")
        && matches!(Target::of(context, socket), Target::Destination(_))
}

/// For how many peers elsewhere to read each of these owners waits: a proxy that cannot pass on does not read on.
fn blocked(context: &Context<'_>, groups: &[Group<'_>]) -> BTreeMap<Who, u64> {
    let mut blocked: BTreeMap<Who, u64> = groups.iter().map(|group| (group.by, 0)).collect();
    if blocked.is_empty() {
        return blocked;
    }
    let snapshot = context.snapshot;
    let rows = groups.iter().flat_map(|group| &group.rows);
    let readers: HashSet<(Endpoint, Endpoint)> = rows
        .filter_map(|row| snapshot.socket(*row))
        .map(|socket| (socket.remote, socket.local))
        .collect();
    for socket in context
        .tally
        .queued
        .iter()
        .filter_map(|row| snapshot.socket(*row))
    {
        // Who waits for one of these waits for the fault itself.
        if !triage::is_window_closed(socket, snapshot.info(socket).as_ref())
            || readers.contains(&(socket.local, socket.remote))
        {
            continue;
        }
        let by = words::holder(snapshot, socket)
            .map_or(Who::User(socket.uid), |owner| Who::Process(owner.pid));
        if let Some(count) = blocked.get_mut(&by) {
            *count += 1;
        }
    }
    blocked
}

fn judge(
    group: &Group<'_>,
    waits: u64,
    limits: &Limits,
    proven_ms: impl Fn(&u32) -> u64,
) -> Severity {
    let enough = |n: usize| {
        n as f64 >= limits.get("min")
            && n as f64 * 100.0 >= group.total as f64 * limits.get("share")
    };
    let lasting = |ms| group.rows.iter().filter(|row| proven_ms(row) >= ms).count();
    if !enough(lasting(limits.ms("age"))) || waits >= group.rows.len() as u64 {
        Severity::Info
    } else if enough(lasting(limits.ms("long"))) && matches!(group.target, Target::Destination(_)) {
        Severity::Critical
    } else {
        Severity::Warning
    }
}

/// Unread sockets of one program, or of several of which none is worth a line of its own.
struct Found<'a> {
    /// the largest, the oldest socket first
    group: Group<'a>,
    oldest_ms: u64,
    /// for how many peers to read it waits itself
    waits: u64,
    programs: u32,
}

/// Puts the small ones together: a pre-forking server has hundreds of processes with one connection each.
fn fold(minor: Vec<Found<'_>>) -> Option<Found<'_>> {
    let mut minor = minor.into_iter();
    let mut all = minor.next()?;
    for found in minor {
        all.programs += u32::from(found.group.by != all.group.by);
        all.oldest_ms = all.oldest_ms.max(found.oldest_ms);
        all.group.total += found.group.total;
        all.group.rows.extend(found.group.rows);
        all.group.parts.extend(found.group.parts);
    }
    if let targets @ 2.. = all.group.parts.len() {
        all.group.target = Target::Many(u32::try_from(targets).unwrap_or(u32::MAX));
    }
    Some(all)
}

fn tell(
    context: &Context<'_>,
    triage: &Triage<'_, '_>,
    limits: &Limits,
    found: Found<'_>,
    severity: Severity,
) -> Finding {
    let snapshot = context.snapshot;
    let group = &found.group;
    let sockets = || group.rows.iter().filter_map(|row| snapshot.socket(*row));
    let stuck = group.rows.len() as u64;
    let total = group.total.max(stuck);
    let bytes: u64 = sockets().map(|socket| u64::from(unread(socket))).sum();
    let windows = || sockets().filter_map(|socket| snapshot.info(socket)?.rcv_wnd());
    let closed = windows().filter(|window| *window == 0).count() as u64;
    let mut evidence = vec![
        Evidence::count("unread_sockets", stuck, "sockets", "idiag_rqueue")
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
            found.oldest_ms as f64 / 1000.0,
            "s",
            "tcpi_last_data_recv",
        )
        .limit(limits.get("age")),
        Evidence::count("unread", bytes, "bytes", "idiag_rqueue"),
        Evidence::text("towards", group.target.words(), "idiag_dst, idiag_dport"),
    ];
    if windows().next().is_some() {
        evidence.push(Evidence::count(
            "window_closed",
            closed,
            "sockets",
            "tcpi_rcv_wnd",
        ));
    }
    if found.waits > 0 {
        evidence.push(Evidence::count(
            "own_peers_that_do_not_read",
            found.waits,
            "sockets",
            "idiag_timer, tcpi_snd_wnd",
        ));
    }
    evidence.extend(triage.evidence(group.rows.iter().copied()));
    let who = match found.programs {
        1 => format!("{} does", group.who()),
        n => format!("{} and {} more do", group.who(), words::thousands(n - 1)),
    };
    let (long, brief) = (group.target.words(), group.target.brief());
    let (n, all, age) = (
        words::thousands(stuck),
        words::thousands(total),
        words::time(found.oldest_ms),
    );
    let passes_on = found.waits >= stuck;
    let why = if passes_on {
        "It waits itself for as many peers that do not read, so it probably only passes that on"
    } else {
        "Its thread hangs, waits for something else, or means not to read now"
    };
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            format!("{who} not read: {n} of {all} sockets {long} hold unread data, oldest {age}"),
            format!("{who} not read {n} of {all} sockets {long}, oldest {age}"),
            format!("{who} not read {n} of {all} sockets {brief}, oldest {age}"),
            format!("{who} not read {n} of {all} {brief}, {age}"),
        ]),
        subject: group.subject(),
        evidence,
        explanation: format!(
            "The data has arrived and lies in this kernel; the program does not take it. {why}. When a queue is full \
             the kernel closes the window, and the peer waits too."
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: if passes_on { Actor::Peer } else { Actor::ThisProgram },
        advice: vec![
            format!("{}    # then: what do the program's threads wait for?", group.command()),
            "read on a thread or in a loop that nothing else can block, with time-outs on what it waits for".to_owned(),
            "do not: raise tcp_rmem; more data would only lie unread".to_owned(),
        ],
        rows: group.rows.iter().copied().take(10).collect(),
        caused_by: None,
        one_sample: false,
    }
}

fn example(n: u32) -> Scenario {
    served(n, n * 2, 600, 5_000)
}

/// A process with `n` of `all` accepted connections on which so many bytes have lain unread for so long.
fn served(n: u32, all: u32, bytes: u32, ms: u64) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(7, "app", 60, 1_048_576);
    scenario.listen(process, 8080, 0, 511, 0);
    for i in 0..all {
        let peer = Endpoint::v4(THERE, 40_000 + i as u16);
        let mut socket = scenario.socket(TcpState::Established, Endpoint::v4(HERE, 8080), peer);
        socket.recv_q = if i < n { bytes } else { 0 };
        let socket = scenario.held_by(process, socket);
        let window = ("rcv_wnd_bytes", 64_000);
        scenario.push(socket, &[("last_data_recv_ms", ms), window]);
    }
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Analysis, TcpInfo, Timer, tcp_info};

    fn analyze(scenario: Scenario) -> Analysis {
        scenario.judge(DETECTOR.id)
    }

    fn severity(scenario: Scenario) -> Option<Severity> {
        analyze(scenario)
            .findings
            .first()
            .map(|finding| finding.severity)
    }

    /// The same, but the program has dialled.
    fn dialled(n: u32, all: u32, bytes: u32, ms: u64) -> Scenario {
        let mut scenario = served(n, all, bytes, ms);
        for (i, socket) in scenario.snapshot.sockets.iter_mut().enumerate() {
            if socket.state != TcpState::Listen {
                (socket.local.port, socket.remote.port) = (40_000 + i as u16, 5432);
            }
        }
        scenario
    }

    #[test]
    fn requests_unread_for_five_seconds_count_by_process() {
        assert_eq!(severity(served(5, 10, 600, 4_999)), None);
        let finding = analyze(served(5, 10, 600, 5_000)).findings.remove(0);
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(
            finding.title,
            "app[7] does not read: 5 of 10 sockets on :8080 hold unread data, oldest 5.0 s"
        );
        assert_eq!(finding.who_must_act, Actor::ThisProgram);
        assert_eq!(severity(served(4, 4, 600, 5_000)), Some(Severity::Info));
        assert_eq!(severity(served(5, 16, 600, 5_000)), Some(Severity::Warning));
        assert_eq!(
            severity(served(5, 17, 600, 5_000)),
            Some(Severity::Info),
            "it reads most"
        );
        assert_eq!(
            severity(served(50, 50, 600, 600_000)),
            Some(Severity::Warning)
        );
    }

    #[test]
    fn critical_is_what_was_dialled_and_lasts() {
        assert_eq!(
            severity(dialled(5, 5, 60_000, 59_999)),
            Some(Severity::Warning)
        );
        assert_eq!(
            severity(dialled(5, 5, 60_000, 60_000)),
            Some(Severity::Critical)
        );
    }

    #[test]
    fn behind_a_closed_window_only_a_second_look_tells_a_slow_reader_from_one_that_hangs() {
        let closed = |read: u64, looks: u32| {
            let mut scenario = dialled(8, 8, 120_000, 0);
            for look in 0..looks {
                if look > 0 {
                    scenario.remember(6);
                }
                for info in &mut scenario.snapshot.infos {
                    let members = [
                        ("last_data_recv_ms", 90_000),
                        ("bytes_received", 500_000),
                        ("rcv_wnd_bytes", 0),
                    ];
                    *info = TcpInfo::parse(&tcp_info::example(&members)).unwrap();
                }
                for socket in &mut scenario.snapshot.sockets {
                    if socket.state != TcpState::Listen {
                        socket.recv_q = 120_000 - u32::try_from(read).unwrap() * look;
                    }
                }
            }
            severity(scenario)
        };
        assert_eq!(closed(0, 1), Some(Severity::Info), "one look");
        assert_eq!(closed(1024, 2), None, "it reads");
        assert_eq!(closed(0, 2), Some(Severity::Warning), "unread for 6 s");
        assert_eq!(closed(0, 11), Some(Severity::Critical), "for a minute");
    }

    #[test]
    fn farewells_on_pooled_connections_do_not_count() {
        assert_eq!(severity(dialled(20, 20, 1023, 600_000)), None);
        assert_eq!(
            severity(dialled(20, 20, 1024, 600_000)),
            Some(Severity::Critical)
        );
    }

    #[test]
    fn an_unread_fin_is_no_data_and_close_wait_alone_belongs_to_the_leak() {
        let close_wait = |bytes, n: usize| {
            let mut scenario = served(6, 6, bytes, 60_000);
            let sockets = scenario.snapshot.sockets.iter_mut();
            let connections = sockets.filter(|socket| socket.state != TcpState::Listen);
            connections
                .take(n)
                .for_each(|socket| socket.state = TcpState::CloseWait);
            severity(scenario)
        };
        assert_eq!(
            close_wait(1, 5),
            Some(Severity::Info),
            "only one holds data"
        );
        assert_eq!(close_wait(2, 5), Some(Severity::Warning));
        assert_eq!(close_wait(2, 6), None);
    }

    #[test]
    fn a_program_that_reads_between_two_looks_is_not_stuck() {
        let received = |now: u64| {
            let mut scenario = served(5, 5, 600, 60_000);
            for info in &mut scenario.snapshot.infos {
                let members = [("last_data_recv_ms", 60_000), ("bytes_received", 10_000)];
                *info = TcpInfo::parse(&tcp_info::example(&members)).unwrap();
            }
            scenario.remember(6);
            for info in &mut scenario.snapshot.infos {
                // the peer goes on sending, so one look would say nothing
                let members = [("last_data_recv_ms", 10), ("bytes_received", now)];
                *info = TcpInfo::parse(&tcp_info::example(&members)).unwrap();
            }
            let sockets = scenario.snapshot.sockets.iter_mut();
            let connections = sockets.filter(|socket| socket.state != TcpState::Listen);
            connections.for_each(|socket| socket.recv_q = 800);
            analyze(scenario).findings
        };
        // 600 lay there and 200 came: 800 are left, or 799 and one was read
        let found = received(10_200).remove(0);
        assert_eq!(
            found.severity,
            Severity::Warning,
            "unread for the 6 s between the looks"
        );
        assert!(
            found
                .evidence
                .iter()
                .any(|e| e.name == "held_up_by_this_program")
        );
        assert_eq!(received(10_201), vec![]);
    }

    #[test]
    fn a_proxy_whose_own_peers_do_not_read_passes_that_on() {
        let with = |clients: u16| {
            let mut scenario = dialled(5, 5, 60_000, 60_000);
            for i in 0..clients {
                let peer = Endpoint::v4(THERE, 50_000 + i);
                let mut socket =
                    scenario.socket(TcpState::Established, Endpoint::v4(HERE, 8080), peer);
                (socket.timer, socket.send_q) = (Timer::Persist, 90_000);
                let socket = scenario.held_by(0, socket);
                scenario.push(socket, &[("last_data_sent_ms", 60_000)]);
            }
            let finding = analyze(scenario).findings.remove(0);
            (finding.severity, finding.who_must_act)
        };
        assert_eq!(with(4), (Severity::Critical, Actor::ThisProgram));
        assert_eq!(with(5), (Severity::Info, Actor::Peer));
    }

    #[test]
    fn many_processes_with_one_connection_each_are_one_line() {
        let mut scenario = Scenario::default();
        let first = scenario.process(100, "postgres", 9, 1024);
        scenario.listen(first, 5432, 0, 244, 0);
        for i in 0..30u16 {
            let process = scenario.process(101 + u32::from(i), "postgres", 9, 1024);
            let peer = Endpoint::v4(THERE, 40_000 + i);
            let mut socket = scenario.socket(TcpState::Established, Endpoint::v4(HERE, 5432), peer);
            socket.recv_q = 90;
            let socket = scenario.held_by(process, socket);
            scenario.push(socket, &[("last_data_recv_ms", 5_000 + u64::from(i))]);
        }
        let findings = analyze(scenario).findings;
        assert_eq!((findings.len(), findings[0].severity), (1, Severity::Info));
        let title = &findings[0].title;
        assert!(
            title.starts_with("postgres[101] and 29 more do not read"),
            "{title}"
        );
    }

    #[test]
    fn without_tcp_info_it_cannot_tell() {
        let mut scenario = served(1, 1, 600, 60_000);
        scenario.snapshot.infos.clear();
        scenario
            .snapshot
            .sockets
            .iter_mut()
            .for_each(|socket| socket.info = None);
        assert_eq!(analyze(scenario).unknown[0].id, DETECTOR.id);
    }
}
