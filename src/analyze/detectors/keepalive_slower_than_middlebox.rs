//! Idle connections that a NAT, firewall or balancer forgets before keepalive asks, or that the upstream closes first.

use std::collections::BTreeMap;

use crate::analyze::group::{self, Target};
use crate::analyze::role::{self, Towards};
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::silence;
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::model::{
    Actor, Endpoint, Evidence, Finding, Severity, Subject, TcpInfo, TcpState, Timer,
};

/// The form in which the other end closes idle connections before this one does.
const UPSTREAM: &str = "upstream-closes-first";

/// The least back-off at which an unanswered segment is no passing loss.
const BACKOFF: u8 = 3;

pub const DETECTOR: Detector = Detector {
    id: "keepalive-slower-than-middlebox",
    aliases: &[UPSTREAM],
    summary: "idle connections outlast what NATs, firewalls, balancers or the upstream keep",
    signals: "ESTABLISHED sockets under the keepalive timer, idle for longer than `middlebox-idle` and not probed \
              yet; beside them, connections that sent after such a rest and are not acknowledged while others to the \
              same destination are. In the form upstream-closes-first: dialled CLOSE-WAIT sockets, young, with \
              nothing unread but the FIN.",
    explanation: "Whatever keeps a table of connections between the ends forgets idle ones: many cloud balancers and \
                  NATs after 350 s or 4 minutes. Linux probes after 2 hours unless the program sets TCP_KEEPIDLE, so \
                  the next request on such a connection is lost or reset, though both ends are well.",
    grounds: &[
        "TCP state in OS, CLOSE_WAIT",
        "RFC 9293 section 3.8.4",
        "RFC 5382 section 5",
        "Linux kernel, net/ipv4/tcp_timer.c: tcp_keepalive_timer()",
    ],
    advice: &[
        "set TCP_KEEPIDLE below the shortest idle time-out on the way",
        "close idle connections of a pool before the upstream does",
    ],
    folklore: &[
        "lowering net.ipv4.tcp_keepalive_time does nothing for programs that set TCP_KEEPIDLE or no keepalive at all",
    ],
    states: &[TcpState::Established, TcpState::CloseWait],
    worst: Severity::Warning,
    thresholds: &[
        Threshold {
            key: "middlebox-idle",
            default: 350.0,
            unit: Unit::Seconds,
            doc: "what stands between forgets a connection after so long; set it to the shortest one on your way",
        },
        Threshold {
            key: "min",
            default: 5.0,
            unit: Unit::Count,
            doc: "idle connections towards one destination or listener; fewer are not worth a line",
        },
        Threshold {
            key: "lost",
            default: 2.0,
            unit: Unit::Count,
            doc: "connections that went dead after such a rest while their destination answers others: proof that it hurts",
        },
        Threshold {
            key: "closed",
            default: 3.0,
            unit: Unit::Count,
            doc: "pooled connections to one destination that it has just closed: fewer are chance",
        },
        Threshold {
            key: "closed-age",
            default: 1.0,
            unit: Unit::Seconds,
            doc: "closed for so long and not noticed: a pool that watches its connections needs milliseconds",
        },
        Threshold {
            key: "closed-until",
            default: 60.0,
            unit: Unit::Seconds,
            doc: "older ones are no race with the upstream but never closed at all",
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
        of: "connections to one destination that were dead after a rest of ten minutes",
        limit: 2,
        build: example,
    },
};

/// What is wrong towards one destination or on one listener.
struct Rest {
    idle: Vec<u32>,
    lost: Vec<u32>,
    /// whether others to the same destination are answered
    answers: bool,
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    if let Some(why) = silence::unseen(context) {
        return Verdict::CannotTell(why);
    }
    let limit = limits.ms("middlebox-idle");
    let resting = context.tally.silent.iter().copied().filter(|row| {
        look(context, *row).is_some_and(|(socket, info)| {
            socket.timer == Timer::Keepalive
                && socket.retransmits == 0
                && socket.inode != 0
                && rest_ms(&info) >= limit
        })
    });
    let idle = silence::leading_away(context, resting);
    let is_lost = |row: &u32| {
        look(context, *row).is_some_and(|(socket, info)| {
            socket.state == TcpState::Established
                && socket.timer == Timer::Retransmit
                && info.backoff >= BACKOFF
                && u64::from(info.last_ack_recv_ms) >= limit
                && !socket.is_loopback()
        })
    };
    let lost = context.tally.queued.iter().copied().filter(is_lost);
    let all = role::towards(context, idle.into_iter().chain(lost));
    let dialled = all.iter().filter_map(|towards| match towards.target {
        Target::Destination(remote) => Some(remote),
        Target::Listener(_) | Target::Many(_) => None,
    });
    let counts = silence::destinations(context, dialled);
    let mut findings: Vec<Finding> = all
        .iter()
        .filter_map(|towards| {
            let (lost, idle): (Vec<u32>, Vec<u32>) =
                towards.rows.iter().partition(|row| is_lost(row));
            // Where nobody is answered, it is the destination or the whole path, not a forgotten connection.
            let answers = matches!(towards.target, Target::Destination(remote)
                if counts.get(&remote).and_then(|counts| counts.heard_ms)
                    .is_some_and(|ms| u64::from(ms) < limit));
            slower(
                context,
                limits,
                towards,
                &Rest {
                    idle,
                    lost,
                    answers,
                },
            )
        })
        .collect();
    findings.extend(upstream_closes_first(context, limits));
    Verdict::of(group::capped(findings))
}

fn look<'a>(context: &Context<'a>, row: u32) -> Option<(&'a crate::model::Socket, TcpInfo)> {
    let socket = context.snapshot.socket(row)?;
    Some((socket, context.snapshot.info(socket)?))
}

/// Since anything at all went over the wire, as far as it is known.
fn rest_ms(info: &TcpInfo) -> u64 {
    let received = info.last_data_recv_ms.min(info.last_ack_recv_ms);
    u64::from(info.last_data_sent_ms.min(received))
}

fn slower(
    context: &Context<'_>,
    limits: &Limits,
    towards: &Towards,
    rest: &Rest,
) -> Option<Finding> {
    let lost = if rest.answers {
        rest.lost.len() as u64
    } else {
        0
    };
    let hurts = lost > 0 && lost as f64 >= limits.get("lost");
    let idle = rest.idle.len() as u64;
    if !hurts && (idle as f64) < limits.get("min") {
        return None;
    }
    let forgotten = limits.ms("middlebox-idle");
    let infos = || rest.idle.iter().filter_map(|row| look(context, *row));
    let longest = infos().map(|(_, info)| rest_ms(&info)).max();
    // The timer is set for TCP_KEEPIDLE after the last traffic, or earlier: the time so far and the time left together
    // are a lower bound of it.
    let keepidle = infos()
        .map(|(socket, info)| rest_ms(&info) + u64::from(socket.timer_ms))
        .max();
    let mut evidence = vec![
        Evidence::count(
            "idle_and_not_probed",
            idle,
            "sockets",
            "idiag_timer, tcpi_last_ack_recv",
        )
        .limit(limits.get("min")),
        Evidence::count(
            "dead_after_a_rest",
            lost,
            "sockets",
            "tcpi_backoff, tcpi_last_ack_recv",
        )
        .limit(limits.get("lost")),
    ];
    let seconds = |ms: u64| ms as f64 / 1000.0;
    if let (Some(longest), Some(keepidle)) = (longest, keepidle) {
        evidence.push(
            Evidence::real("longest_rest", seconds(longest), "s", "tcpi_last_ack_recv")
                .limit(limits.get("middlebox-idle")),
        );
        evidence.push(
            Evidence::real(
                "keepalive_after_at_least",
                seconds(keepidle),
                "s",
                "idiag_expires",
            )
            .limit(limits.get("middlebox-idle")),
        );
    }
    // In seconds: rounded to minutes it would be advice that is too late.
    let after = format!("{} s", words::thousands(forgotten / 1000));
    let title = |target: String| {
        if hurts {
            let connections = words::count(lost, "connection");
            format!(
                "{target}: {connections} dead after a rest of more than {after}, others answered"
            )
        } else {
            let probe = keepidle.map_or_else(String::new, |ms| {
                format!(", keepalive waits for {} or more", words::time(ms))
            });
            let connections = words::count(idle, "connection");
            format!("{target}: {connections} at rest for more than {after}{probe}")
        }
    };
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity: if hurts {
            Severity::Warning
        } else {
            Severity::Info
        },
        title: words::fit([title(towards.target.words()), title(towards.target.brief())]),
        subject: towards.subject(context),
        evidence,
        explanation: if hurts {
            "These connections were at rest, then this end sent, and nothing is acknowledged, while the same \
             destination answers on others. So the path works and the peer lives: probably a NAT, firewall or balancer between \
             has forgotten these connections."
                .to_owned()
        } else {
            format!(
                "Many balancers and NATs forget a connection that rests for more than {after}, and keepalive asks \
                 later than that. If such a box is on the way, the next request on these is lost or reset; if none is, \
                 this is harmless."
            )
        },
        // CLOSE-WAIT is about the other form.
        grounds: DETECTOR
            .grounds
            .iter()
            .copied()
            .filter(|ground| !ground.ends_with("CLOSE_WAIT"))
            .collect(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            format!("{}    # which connections", towards.command()),
            format!("set TCP_KEEPIDLE in the program, or the pool's idle time-out, below {after}"),
            "do not: rely on net.ipv4.tcp_keepalive_time; it is for programs that ask for keepalive and set no time"
                .to_owned(),
        ],
        rows: rest.lost.iter().chain(&rest.idle).copied().take(10).collect(),
        caused_by: None,
        one_sample: false,
    })
}

fn upstream_closes_first(context: &Context<'_>, limits: &Limits) -> Vec<Finding> {
    let mut upstreams: BTreeMap<Endpoint, Vec<(u64, u32)>> = BTreeMap::new();
    let ages = limits.ms("closed-age")..limits.ms("closed-until");
    for row in &context.tally.close_wait {
        let Some(socket) = context.snapshot.socket(*row) else {
            continue;
        };
        // An unread FIN counts one byte.
        if let Target::Destination(remote) = Target::of(context, socket)
            && socket.recv_q == 1
            && socket.send_q == 0
            && let Some(age) = context.age_ms(*row).filter(|age| ages.contains(age))
        {
            upstreams.entry(remote).or_default().push((age, *row));
        }
    }
    let finding = |(remote, mut closed): (Endpoint, Vec<(u64, u32)>)| {
        let number = closed.len() as u64;
        if (number as f64) < limits.get("closed") {
            return None;
        }
        closed.sort_unstable_by_key(|(age, row)| (std::cmp::Reverse(*age), *row));
        let (oldest, first) = *closed.first()?;
        let owner = words::holder(context.snapshot, context.snapshot.socket(first)?);
        let who = owner.map_or(String::new(), |owner| {
            format!("{}: ", words::process(owner))
        });
        let connections = words::count(number, "connection");
        let title = |who: &str, destination: String| {
            format!(
                "{who}{destination} closed {connections} first, unnoticed for {}",
                words::time(oldest)
            )
        };
        Some(Finding {
            id: DETECTOR.id,
            variant: Some(UPSTREAM),
            severity: Severity::Info,
            title: words::fit([
                title(&who, words::endpoint(&remote)),
                title(&who, words::brief(&remote)),
                title("", words::brief(&remote)),
            ]),
            subject: Subject::Destination {
                address: remote.ip(),
                port: remote.port,
                source_address: None,
            },
            evidence: vec![
                Evidence::count(
                    "closed_by_the_upstream",
                    number,
                    "sockets",
                    "idiag_state, idiag_rqueue",
                )
                .limit(limits.get("closed")),
                Evidence::real("oldest", oldest as f64 / 1000.0, "s", "tcpi_last_ack_recv")
                    .limit(limits.get("closed-age")),
            ],
            explanation: "The upstream has closed these idle connections and this end has not read that yet. A request \
                          that is written to one before it is noticed is answered with RST: expect sporadic 502 or \
                          'connection reset'."
                .to_owned(),
            grounds: DETECTOR.grounds.to_vec(),
            who_must_act: Actor::ThisProgram,
            advice: vec![
                format!("linger {}    # what is kept open towards it", remote.ip()),
                "make this end's idle time-out shorter than the upstream's, and retry idempotent requests once"
                    .to_owned(),
                "do not: raise time-outs here; the upstream's decides".to_owned(),
            ],
            rows: closed.into_iter().take(10).map(|(_, row)| row).collect(),
            caused_by: None,
            one_sample: false,
        })
    };
    upstreams.into_iter().filter_map(finding).collect()
}

fn example(n: u32) -> Scenario {
    rested(n, 0, 600_000, 5)
}

/// `dead` connections that sent after a rest, `idle` ones, and one that was answered before `heard` milliseconds.
fn rested(dead: u32, idle: u32, rest: u64, heard: u64) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(55, "api", 30, 1_048_576);
    for i in 0..dead + idle + 1 {
        let mut socket = scenario.socket(
            TcpState::Established,
            Endpoint::v4(HERE, 40_000 + i as u16),
            Endpoint::v4(THERE, 5432),
        );
        let (silent, backoff) = if i < dead {
            (socket.timer, socket.retransmits, socket.send_q) = (Timer::Retransmit, 4, 90);
            (rest, 4)
        } else {
            (socket.timer, socket.timer_ms) = (Timer::Keepalive, 6_600_000);
            (if i < dead + idle { rest } else { heard }, 0)
        };
        let socket = scenario.held_by(process, socket);
        scenario.push(
            socket,
            &[
                ("last_ack_recv_ms", silent),
                ("last_data_recv_ms", silent),
                ("last_data_sent_ms", if backoff > 0 { 900 } else { silent }),
                ("backoff", backoff),
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

    fn all(scenario: Scenario) -> Vec<Finding> {
        let findings = scenario.analyze(&Settings::default()).findings;
        findings
            .into_iter()
            .filter(|finding| finding.id == DETECTOR.id)
            .collect()
    }

    fn severity(scenario: Scenario) -> Option<Severity> {
        all(scenario).first().map(|finding| finding.severity)
    }

    #[test]
    fn idle_beyond_what_is_kept_and_not_probed_is_worth_knowing() {
        let findings = all(rested(0, 5, 350_000, 5));
        assert_eq!(findings[0].severity, Severity::Info);
        assert_eq!(
            findings[0].title,
            "to 198.51.100.7:5432: 5 connections at rest for more than 350 s, keepalive waits for 116 min or more"
        );
        assert_eq!(severity(rested(0, 4, 350_000, 5)), None);
        assert_eq!(severity(rested(0, 5, 349_999, 5)), None);
        assert_eq!(severity(rested(0, 4_000, 350_000, 5)), Some(Severity::Info));
    }

    #[test]
    fn dead_after_a_rest_while_others_are_answered_is_proof() {
        let findings = all(rested(2, 1, 600_000, 5));
        assert_eq!(findings[0].severity, Severity::Warning);
        assert_eq!(
            findings[0].title,
            "to 198.51.100.7:5432: 2 connections dead after a rest of more than 350 s, others answered"
        );
        assert_eq!(severity(rested(1, 1, 600_000, 5)), None);
        assert_eq!(
            severity(rested(2, 1, 600_000, 600_000)),
            None,
            "it answers nobody"
        );
        assert_eq!(
            severity(rested(2, 1, 349_999, 5)),
            None,
            "they had no long rest"
        );
    }

    #[test]
    fn probed_in_time_or_without_keepalive_or_looped_is_another_matter() {
        let with = |change: fn(&mut crate::model::Socket)| {
            let mut scenario = rested(0, 5, 600_000, 5);
            scenario.snapshot.sockets.iter_mut().for_each(change);
            severity(scenario)
        };
        assert_eq!(with(|_| ()), Some(Severity::Info));
        assert_eq!(with(|socket| socket.retransmits = 1), None);
        assert_eq!(with(|socket| socket.timer = Timer::None), None);
        assert_eq!(
            with(|socket| socket.remote.address = socket.local.address),
            None
        );
    }

    fn closed(n: u16, unread: u32, age: u64, port: u16) -> Option<Severity> {
        let mut scenario = Scenario::default();
        let process = scenario.process(55, "nginx", 30, 1_048_576);
        scenario.listen(process, 443, 0, 511, 0);
        for i in 0..n {
            let mut socket = scenario.socket(
                TcpState::CloseWait,
                Endpoint::v4(HERE, if port == 443 { port } else { port + i }),
                Endpoint::v4(THERE, 8080),
            );
            socket.recv_q = unread;
            let socket = scenario.held_by(process, socket);
            scenario.push(socket, &[("last_ack_recv_ms", age)]);
        }
        let found = all(scenario);
        assert!(
            found
                .iter()
                .all(|finding| finding.variant == Some(UPSTREAM))
        );
        found.first().map(|finding| finding.severity)
    }

    #[test]
    fn an_upstream_that_closes_first_leaves_its_fin_unread() {
        assert_eq!(closed(3, 1, 5_000, 40_000), Some(Severity::Info));
        assert_eq!(closed(2, 1, 5_000, 40_000), None);
        assert_eq!(closed(3, 0, 5_000, 40_000), None, "the program has read it");
        assert_eq!(closed(3, 9, 5_000, 40_000), None, "there is data before it");
        assert_eq!(closed(3, 1, 999, 40_000), None, "it is just being read");
        assert_eq!(closed(3, 1, 60_000, 40_000), None, "that is a leak");
        assert_eq!(closed(3, 1, 5_000, 443), None, "a client has closed");
    }

    #[test]
    fn without_tcp_info_it_cannot_tell() {
        let mut scenario = example(2);
        scenario.snapshot.infos.clear();
        let unknown = scenario.analyze(&Settings::default()).unknown;
        assert!(unknown.iter().any(|unknown| unknown.id == DETECTOR.id));
    }
}
