//! Connections that have been silent for hours and would not notice the loss of their peer.

use crate::analyze::group::{self, Group, Target};
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::silence;
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::model::{
    Actor, Endpoint, Evidence, Finding, LastWord, Severity, TcpInfo, TcpState, Timer,
};

/// The form in which this end had the last word: it may have asked a peer that is gone.
const SUSPECT: &str = "half-open-suspect";

/// More descriptors than this are without a practical limit: containers run with a million.
const NOFILE: u64 = 65_536;

pub const DETECTOR: Detector = Detector {
    id: "idle-no-keepalive",
    aliases: &[SUSPECT],
    summary: "connections are silent for hours, and nothing would notice if their peers were gone",
    signals: "ESTABLISHED sockets that a program holds, with empty queues, no timer, and no data in either direction \
              for `age`. Not those with both ends on this host. In the form half-open-suspect most of them have sent \
              last.",
    explanation: "ESTABLISHED only means that nobody has said goodbye. A peer that lost power, or a NAT that forgot \
                  the connection, says nothing; without keepalive or a time-out of its own the program waits for ever, \
                  and from here such a connection looks exactly like an idle one.",
    grounds: &[
        "TCP state in OS, ESTABLISHED",
        "RFC 9293 section 3.5.1",
        "RFC 9293 section 3.8.4",
    ],
    advice: &["set SO_KEEPALIVE and TCP_KEEPIDLE in the program, or a heartbeat of its protocol"],
    folklore: &["net.ipv4.tcp_keepalive_time does nothing for sockets without SO_KEEPALIVE"],
    states: &[TcpState::Established],
    worst: Severity::Warning,
    thresholds: &[
        Threshold {
            key: "age",
            default: 7200.0,
            unit: Unit::Seconds,
            doc: "without data for so long: the kernel's own keepalive would have probed by now",
        },
        Threshold {
            key: "min",
            default: 5.0,
            unit: Unit::Count,
            doc: "fewer towards one destination or listener are not worth a line",
        },
        Threshold {
            key: "descriptors",
            default: 20.0,
            unit: Unit::Percent,
            doc: "of the descriptors that the program may open, at most 65,536: so many dead ones would use them up",
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
        of: "idle connections of a program that may open 100 descriptors",
        limit: 20,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    if let Some(why) = silence::unseen(context) {
        return Verdict::CannotTell(why);
    }
    let age = limits.ms("age");
    let idle = context.tally.silent.iter().copied().filter(|row| {
        let Some(socket) = context.snapshot.socket(*row) else {
            return false;
        };
        socket.timer == Timer::None
            && socket.inode != 0
            && context
                .snapshot
                .info(socket)
                .is_some_and(|info| idle_ms(&info) >= age)
    });
    let idle = silence::leading_away(context, idle);
    let groups = group::merge_by_owner(group::by_owner(context, idle.into_iter()));
    let findings = groups
        .iter()
        .filter_map(|group| judge(context, limits, group));
    Verdict::of(group::capped(findings.collect()))
}

fn idle_ms(info: &TcpInfo) -> u64 {
    u64::from(info.last_data_sent_ms.min(info.last_data_recv_ms))
}

fn judge(context: &Context<'_>, limits: &Limits, group: &Group<'_>) -> Option<Finding> {
    let idle = group.rows.len() as u64;
    let nofile = group.owner.and_then(|owner| owner.nofile);
    let too_many = nofile.is_some_and(|nofile| {
        nofile > 0 && idle as f64 * 100.0 >= nofile.min(NOFILE) as f64 * limits.get("descriptors")
    });
    if !too_many && (idle as f64) < limits.get("min") {
        return None;
    }
    let mut rows: Vec<(u64, u32, LastWord)> = group
        .rows
        .iter()
        .filter_map(|row| {
            let info = context.snapshot.info(context.snapshot.socket(*row)?)?;
            Some((idle_ms(&info), *row, LastWord::new(&info)))
        })
        .collect();
    rows.sort_unstable_by_key(|(ms, row, _)| (std::cmp::Reverse(*ms), *row));
    let (longest, ..) = *rows.first()?;
    let ours = rows
        .iter()
        .filter(|(_, _, last)| *last == LastWord::Ours)
        .count() as u64;
    let suspect = ours * 2 > idle;
    let mut evidence = vec![
        Evidence::count("idle", idle, "sockets", "idiag_timer, idiag_state")
            .limit(limits.get("min")),
        Evidence::real(
            "longest_idle",
            longest as f64 / 1000.0,
            "s",
            "tcpi_last_data_sent, tcpi_last_data_recv",
        )
        .limit(limits.get("age")),
        Evidence::count(
            "sent_last_by_us",
            ours,
            "sockets",
            "tcpi_last_data_sent, tcpi_last_data_recv",
        ),
        Evidence::count(
            "sockets_to_it",
            group.total.max(idle),
            "sockets",
            "idiag_dst, idiag_dport",
        ),
        Evidence::text("towards", group.target.words(), "idiag_dst, idiag_dport"),
    ];
    evidence.extend(words::descriptors(group.owner));
    let who = group.who();
    let since = words::since(context.snapshot.taken, longest);
    let (n, brief) = (words::count(idle, "idle socket"), group.target.brief());
    let peers = match group.target {
        Target::Listener(_) => "client",
        Target::Destination(_) | Target::Many(_) => "peer",
    };
    Some(Finding {
        id: DETECTOR.id,
        variant: suspect.then_some(SUSPECT),
        severity: if too_many {
            Severity::Warning
        } else {
            Severity::Info
        },
        title: words::fit([
            format!("{who}: {n} {} without keepalive, the first since {since}", group.target.words()),
            format!("{who}: {n} {brief} without keepalive, since {since}"),
            format!("{who}: {n} {brief} without keepalive"),
        ]),
        subject: group.subject(),
        evidence,
        explanation: format!(
            "No data has moved for {} or more and no timer runs, so the kernel will never ask whether the {peers} still \
             lives. {} What is dead among them stays until the program writes to it or closes it.",
            words::time(limits.ms("age")),
            if suspect {
                "On most of them this end spoke last and was not answered, as on a connection whose peer is gone."
            } else {
                "Idle connections of a pool look the same as those whose peer is gone."
            }
        ),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            format!("{}    # who they are", group.command()),
            "set SO_KEEPALIVE with a TCP_KEEPIDLE of a few minutes in the program, or a heartbeat".to_owned(),
            "do not: count on net.ipv4.tcp_keepalive_time; it is for sockets that have asked for keepalive".to_owned(),
        ],
        rows: rows.into_iter().take(10).map(|(_, row, _)| row).collect(),
        caused_by: None,
        one_sample: false,
    })
}

fn example(n: u32) -> Scenario {
    idle(n, 100, 7_200_000, 7_200_000)
}

fn idle(n: u32, nofile: u64, sent: u64, received: u64) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(55, "api", 30, nofile);
    for i in 0..n {
        let socket = scenario.socket(
            TcpState::Established,
            Endpoint::v4(HERE, 40_000 + i as u16),
            Endpoint::v4(THERE, 5432),
        );
        let socket = scenario.held_by(process, socket);
        scenario.push(
            socket,
            &[
                ("last_data_sent_ms", sent),
                ("last_data_recv_ms", received),
                ("last_ack_recv_ms", sent.min(received)),
                ("bytes_acked", 900),
                ("bytes_received", 900),
            ],
        );
    }
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;

    const HOURS: u64 = 3 * 3_600_000;
    const PLENTY: u64 = 1_048_576;

    fn worst(scenario: Scenario) -> Option<Finding> {
        let findings = scenario.analyze(&Settings::default()).findings;
        findings
            .into_iter()
            .find(|finding| finding.id == DETECTOR.id)
    }

    fn severity(scenario: Scenario) -> Option<Severity> {
        worst(scenario).map(|finding| finding.severity)
    }

    #[test]
    fn silence_in_both_directions_and_a_few_sockets_are_needed() {
        let finding = worst(idle(5, PLENTY, HOURS, HOURS)).unwrap();
        assert_eq!(finding.severity, Severity::Info);
        assert_eq!(
            finding.title,
            "api[55]: 5 idle sockets to 198.51.100.7:5432 without keepalive, the first since 21:00 UTC"
        );
        assert_eq!(severity(idle(4, PLENTY, HOURS, HOURS)), None);
        assert_eq!(severity(idle(5, PLENTY, HOURS, 7_199_999)), None);
        assert_eq!(severity(idle(5, PLENTY, 7_199_999, HOURS)), None);
    }

    #[test]
    fn a_pool_is_no_news_unless_it_takes_up_what_may_be_opened() {
        assert_eq!(
            severity(idle(1_000, PLENTY, HOURS, HOURS)),
            Some(Severity::Info)
        );
        assert_eq!(
            severity(idle(205, 1024, HOURS, HOURS)),
            Some(Severity::Warning)
        );
        assert_eq!(
            severity(idle(204, 1024, HOURS, HOURS)),
            Some(Severity::Info)
        );
    }

    #[test]
    fn who_asked_last_may_ask_the_dead() {
        let variant = |sent, received| worst(idle(5, PLENTY, sent, received)).unwrap().variant;
        assert_eq!(variant(HOURS, HOURS + 50), Some(SUSPECT));
        assert_eq!(variant(HOURS + 50, HOURS), None, "it was answered");
        assert_eq!(variant(HOURS, HOURS), None);
    }

    #[test]
    fn keepalive_of_any_speed_is_enough_here() {
        let mut scenario = idle(5, PLENTY, HOURS, HOURS);
        for socket in &mut scenario.snapshot.sockets {
            socket.timer = Timer::Keepalive;
        }
        assert_eq!(severity(scenario), None);
    }

    #[test]
    fn both_ends_on_this_host_cannot_lose_each_other() {
        let mut looped = idle(205, 1024, HOURS, HOURS);
        for socket in &mut looped.snapshot.sockets {
            (socket.local.address, socket.remote.address) = (
                Endpoint::v4([127, 0, 0, 1], 0).address,
                Endpoint::v4([127, 0, 0, 1], 0).address,
            );
        }
        assert_eq!(severity(looped), None);
        let mut twins = idle(10, PLENTY, HOURS, HOURS);
        let firsts: Vec<_> = twins.snapshot.sockets[..5].to_vec();
        for (twin, first) in twins.snapshot.sockets[5..].iter_mut().zip(firsts) {
            (twin.local, twin.remote) = (first.remote, first.local);
        }
        assert_eq!(severity(twins), None);
    }

    #[test]
    fn without_tcp_info_it_cannot_tell_unless_there_is_nobody() {
        let mut scenario = idle(5, PLENTY, HOURS, HOURS);
        scenario.snapshot.infos.clear();
        let unknown = scenario.analyze(&Settings::default()).unknown;
        assert!(unknown.iter().any(|unknown| unknown.id == DETECTOR.id));
    }
}
