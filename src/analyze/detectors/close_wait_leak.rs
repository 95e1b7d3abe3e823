//! CLOSE-WAIT that nobody ends: the peer has closed, the program does not.

use std::collections::HashSet;

use crate::analyze::group::{self, Group, Target};
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::stuck::{self, Stuck, Trend};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::history::{Held, Sample};
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, TcpState};

pub const DETECTOR: Detector = Detector {
    id: "close-wait-leak",
    aliases: &["close-wait-stale"],
    summary: "a program does not close sockets whose peer has closed",
    signals: "CLOSE-WAIT sockets that a process holds, with an empty send queue, by process and destination or \
              listener: how many, for how long, which share of the process's sockets there, and whether more keep \
              coming. A socket that still has bytes to send is not counted: the peer is in the way, not the program.",
    explanation: "The peer has closed its side; the kernel has acknowledged that and now waits for this program to \
                  close. No timer ends CLOSE-WAIT: each socket holds a descriptor until the program closes it or \
                  exits. A few of one age are a connection pool that has not noticed; a number that keeps growing is \
                  a leak, and ends in EMFILE.",
    grounds: &[
        "TCP state in OS, CLOSE_WAIT",
        "RFC 9293 section 3.6",
        "Linux kernel, net/ipv4/tcp_input.c: tcp_fin()",
    ],
    advice: &[
        "`linger pid:PID` shows which peers; find the code path that leaves without close(): end-of-file, errors, time-outs",
        "a restart frees the descriptors and buys time until the leak has filled them again",
    ],
    folklore: &[
        "tcp_fin_timeout and tcp_tw_* do not touch CLOSE-WAIT",
        "TCP keepalive hides the leak: the socket leaves the table, its descriptor stays open",
        "killing the sockets leaves the descriptors open too, and takes the evidence away",
    ],
    states: &[TcpState::CloseWait],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "age",
            default: 60.0,
            unit: Unit::Seconds,
            doc: "a CLOSE-WAIT counts from this age on; healthy programs close within a second",
        },
        Threshold {
            key: "min",
            default: 10.0,
            unit: Unit::Count,
            doc: "with `share`: fewer than this are a pool's dead connections, not a leak",
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
            doc: "this many are enough whatever their share, if more keep arriving",
        },
        Threshold {
            key: "descriptors",
            default: 1.0,
            unit: Unit::Percent,
            doc: "of the process's descriptor limit (at most 65,536 of it, at least 5 sockets)",
        },
        Threshold {
            key: "spread",
            default: 3.0,
            unit: Unit::Count,
            doc: "ages in this many different spans of `age` mean that more keep arriving; one age means one event",
        },
        Threshold {
            key: "critical",
            default: 20.0,
            unit: Unit::Percent,
            doc: "of the process's descriptor limit, while more keep arriving: accept() and open() fail next",
        },
        Threshold {
            key: "time-left",
            default: 3600.0,
            unit: Unit::Seconds,
            doc: "critical if the descriptors run out sooner than this at the rate seen",
        },
        Threshold {
            key: "nearly",
            default: 90.0,
            unit: Unit::Percent,
            doc: "of the descriptor limit in use, with the share of `critical` in CLOSE-WAIT: critical at any rate",
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
        of: "CLOSE-WAIT sockets of growing age, half of the process's sockets",
        limit: 10,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let age = limits.ms("age");
    let mut undated = 0u64;
    let rows = context.tally.close_wait.iter().copied().filter(|row| {
        let Some(socket) = snapshot.socket(*row) else {
            return false;
        };
        // A queue that does not drain is the peer's doing; the unread FIN of our own side does not matter here.
        if socket.send_q > 0 {
            return false;
        }
        let Some(info) = snapshot.info(socket) else {
            undated += 1;
            return false;
        };
        // What the program has just sent on is in use.
        u64::from(info.last_data_sent_ms) >= age / 6
    });
    let rows: Vec<u32> = rows.collect();
    let trend = Trend::new(context, held);
    let filling = filling(context);
    let judge = |group: &Group<'_>| {
        let spread = limits.get("spread");
        let stuck = stuck::measure(context, group, age, spread, held, trend.as_ref())?;
        Some(judge(context, limits, group, stuck, &filling))
    };
    let mut findings = Vec::new();
    let mut small = Vec::new();
    for group in group::by_owner(context, rows.into_iter()) {
        match judge(&group) {
            Some(finding) if finding.severity > Severity::Info => findings.push(finding),
            Some(_) => small.push(group),
            None => {}
        }
    }
    let merged = group::merge_by_owner(small);
    findings.extend(merged.iter().filter_map(judge));
    if findings.is_empty() && undated > 0 {
        return Verdict::CannotTell(format!(
            "{} in CLOSE-WAIT, but without tcp_info their age is not known",
            words::count(undated, "socket")
        ));
    }
    Verdict::of(group::capped(findings))
}

fn held(sample: &Sample) -> &[Held] {
    &sample.close_wait
}

/// Processes one of whose accept queues is filling.
fn filling(context: &Context<'_>) -> HashSet<u32> {
    let listeners = context.tally.listeners.iter();
    listeners
        .filter_map(|row| context.snapshot.socket(*row))
        .filter(|listener| {
            listener.recv_q >= 3
                && listener
                    .backlog()
                    .is_some_and(|limit| u64::from(listener.recv_q) * 2 >= u64::from(limit))
        })
        .flat_map(|listener| context.snapshot.owners.of(listener.inode))
        .map(|(process, _)| process.pid)
        .collect()
}

fn judge(
    context: &Context<'_>,
    limits: &Limits,
    group: &Group<'_>,
    stuck: Stuck,
    filling: &HashSet<u32>,
) -> Finding {
    let count = stuck.rows.len() as u64;
    let total = group.total.max(count);
    let nofile = group
        .owner
        .and_then(|owner| owner.nofile)
        .filter(|n| *n > 0);
    let enough = stuck.sure && group::is_enough(count, stuck.arriving, group, limits);
    let left = group::minutes_left(group.owner, stuck.per_minute);
    let used_up = left == Some(0.0);
    let runs_out = left.is_some_and(|minutes| minutes * 60.0 < limits.get("time-left"));
    let eats = nofile.is_some_and(|n| count as f64 >= n as f64 * limits.get("critical") / 100.0);
    let queues = group
        .owner
        .is_some_and(|owner| filling.contains(&owner.pid));
    let leak = enough && stuck.arriving;
    // With nearly all descriptors gone and a large part of them here, it no longer matters how fast it goes.
    let nearly = stuck.sure
        && group.owner.is_some_and(|owner| {
            let known = owner.fds.zip(nofile);
            known.is_some_and(|(fds, n)| {
                fds as f64 >= n as f64 * limits.get("nearly") / 100.0
                    && stuck.lasting as f64 >= n as f64 * limits.get("critical") / 100.0
            })
        });
    let severity =
        if leak && (runs_out || eats || queues) || nearly || stuck.sure && eats && used_up {
            Severity::Critical
        } else if leak || stuck.sure && eats {
            Severity::Warning
        } else {
            Severity::Info
        };
    let unread = stuck
        .rows
        .iter()
        .filter_map(|row| context.snapshot.socket(*row))
        .filter(|s| s.recv_q > 0)
        .count();
    let mut evidence = stuck.evidence("close_wait_sockets", group, limits);
    evidence.push(Evidence::real(
        "median_age",
        stuck.median_ms as f64 / 1000.0,
        "s",
        "tcpi_last_ack_recv",
    ));
    evidence.push(Evidence::count(
        "end_of_file_not_read",
        unread as u64,
        "sockets",
        "idiag_rqueue",
    ));
    if stuck.bounded {
        evidence.push(Evidence::text(
            "age_bounds",
            "keepalive is on: ages lie between the last ACK and the last data",
            "tcpi_last_ack_recv, tcpi_last_data_recv",
        ));
    }
    if stuck.per_minute > 0.0 {
        evidence.push(Evidence::real(
            "growth",
            stuck.per_minute,
            "1/min",
            "idiag_cookie, tcpi_last_ack_recv",
        ));
    }
    if stuck.spans.len() > 1 {
        evidence.push(Evidence::series(
            "arrivals",
            stuck.spans.clone(),
            "sockets",
            "tcpi_last_ack_recv",
        ));
    }
    if let Some(owner) = group.owner {
        evidence.extend(words::descriptors(Some(owner)));
        if leak && let Some(minutes) = left {
            evidence.push(Evidence::real(
                "descriptors_run_out_in",
                minutes,
                "min",
                "RLIMIT_NOFILE",
            ));
        }
        if leak && queues {
            evidence.push(Evidence::text(
                "accept_queue",
                "a listener of the same process has half of its queue waiting",
                "idiag_rqueue",
            ));
        }
        let first = stuck
            .rows
            .first()
            .and_then(|row| context.snapshot.socket(*row));
        let holders = first.map_or(0, |socket| context.snapshot.owners.of(socket.inode).count());
        if holders > 1 {
            evidence.push(Evidence::count(
                "holders_of_one_socket",
                holders as u64,
                "descriptors",
                "/proc/PID/fd",
            ));
        }
    }
    Finding {
        id: DETECTOR.id,
        variant: (!leak && !nearly).then_some("close-wait-stale"),
        severity,
        title: title(context, group, &stuck, total, limits, leak || nearly),
        subject: group.subject(),
        evidence,
        explanation: explain(limits, group, &stuck, severity, unread, leak),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: advice(group, severity, leak || nearly),
        rows: stuck.rows.into_iter().take(10).collect(),
        caused_by: None,
        one_sample: false,
    }
}

fn title(
    context: &Context<'_>,
    group: &Group<'_>,
    stuck: &Stuck,
    total: u64,
    limits: &Limits,
    leak: bool,
) -> String {
    let who = group.who();
    let (long, brief) = (group.target.words(), group.target.brief());
    let count = words::thousands(stuck.rows.len() as u64);
    let (whole, total) = (total, words::thousands(total));
    if stuck.cluster && !leak && stuck.rows.len() == group.rows.len() {
        let since = words::since(context.snapshot.taken, stuck.oldest.low_ms);
        return match group.target {
            Target::Destination(_) => words::fit([
                format!("{who}: {count} pooled connections {long} died together at {since}"),
                format!("{who}: {count} pooled connections {brief} died together at {since}"),
                format!("{who}: {count} connections {brief} died together"),
            ]),
            _ => words::fit([
                format!(
                    "{who}: {count} of {total} sockets {long} are CLOSE-WAIT, all since {since}"
                ),
                format!("{who}: {count} sockets {long} are CLOSE-WAIT since {since}"),
            ]),
        };
    }
    let age = stuck.age();
    // The others may be in any state, in this one too but younger.
    let state = if stuck.sure && (stuck.rows.len() as u64) < whole {
        format!("CLOSE-WAIT for over {}", words::time(limits.ms("age")))
    } else {
        "CLOSE-WAIT".to_owned()
    };
    words::fit([
        format!("{who}: {count} of {total} sockets {long} are {state}, oldest {age}"),
        format!("{who}: {count} of {total} sockets {brief} are {state}, oldest {age}"),
        format!("{who}: {count} of {total} {brief} {state}, oldest {age}"),
        format!("{who}: {count} of {total} {brief} {state}"),
        format!("{who}: {count} of {total} {state}"),
    ])
}

fn explain(
    limits: &Limits,
    group: &Group<'_>,
    stuck: &Stuck,
    severity: Severity,
    unread: usize,
    leak: bool,
) -> String {
    let alone = stuck.rows.len() == group.rows.len();
    let reading = match unread {
        0 => "it has read the end of file and still holds the socket",
        n if n == stuck.rows.len() => "it has not even read the end of file",
        _ => "it has not even read the end of file on some of them",
    };
    let meaning = match stuck.grown {
        Some((from, to, window)) if leak => format!(
            "Their number rose from {from} to {to} in {}; each holds a descriptor until the program closes it or exits",
            words::time(u64::try_from(window.as_millis()).unwrap_or(u64::MAX))
        ),
        _ if leak => format!(
            "They came one after the other over {}; each holds a descriptor until the program closes it or exits",
            words::time(stuck.oldest.low_ms.saturating_sub(stuck.youngest_ms))
        ),
        _ if severity > Severity::Info => {
            "They hold a large part of the descriptors that the program may open, until it closes them or exits"
                .to_owned()
        }
        _ if stuck.cluster && alone => format!(
            "They came within {} of each other, as when a pool keeps dead connections until its next checkout",
            words::time(limits.ms("age"))
        ),
        _ if !stuck.sure => {
            "Answered keepalive probes hide since when; a later look shows whether the same ones stay".to_owned()
        }
        _ if !alone => {
            "Younger ones stand beside them; if their number goes on growing, the program leaks them"
                .to_owned()
        }
        _ => "They are few, or no more are coming, as when a pool keeps dead connections until its next checkout"
            .to_owned(),
    };
    let end = if stuck.bounded {
        "No sysctl ends it; keepalive may drop the socket, but not the descriptor"
    } else {
        "No timer and no sysctl ends CLOSE-WAIT"
    };
    format!(
        "The other side has closed, the kernel has acknowledged it, and now this program must close: {reading}. \
         {meaning}. {end}."
    )
}

fn advice(group: &Group<'_>, severity: Severity, leak: bool) -> Vec<String> {
    let fix = if leak {
        "close the socket when read() returns 0, on errors and on time-outs; a restart only buys time"
    } else if severity > Severity::Info {
        "evict from the pool what its peer has closed; a restart frees the descriptors now"
    } else {
        "nothing today; if the number grows, the pool does not evict what its peer has closed"
    };
    vec![
        format!("{}    # which peers, which other sockets", group.command()),
        fix.to_owned(),
        "do not: tune tcp_fin_timeout or tcp_tw_*, they have no effect here; keepalive or killing the sockets only hides the leak".to_owned(),
    ]
}

/// Half of the process's sockets to one destination leak, one every half minute.
fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(2211, "checkout", 300, 1_048_576);
    let remote = Endpoint::v4(THERE, 443);
    for i in 0..n.max(10) {
        let local = Endpoint::v4(HERE, 40_000 + i as u16);
        let socket = scenario.socket(TcpState::Established, local, remote);
        let socket = scenario.held_by(process, socket);
        scenario.push(socket, &[("last_ack_recv_ms", 10)]);
    }
    for i in 0..n {
        let local = Endpoint::v4(HERE, 50_000 + i as u16);
        let socket = scenario.socket(TcpState::CloseWait, local, remote);
        let socket = scenario.held_by(process, socket);
        let age = 60_000 + 30_000 * u64::from(i);
        scenario.push(
            socket,
            &[
                ("last_ack_recv_ms", age),
                ("last_data_recv_ms", age),
                ("last_data_sent_ms", age),
            ],
        );
    }
    scenario
}

#[cfg(test)]
mod tests;
