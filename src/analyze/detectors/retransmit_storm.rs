//! Segments that have to be sent again.

use std::collections::HashMap;

use crate::analyze::group::Target;
use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{
    Blind, Context, Detector, Limits, Moved, Needs, ONE_LOOK, Threshold, Unit, Verdict, words,
};
use crate::model::{Actor, Evidence, Finding, Severity, Subject, TcpState};

pub const DETECTOR: Detector = Detector {
    id: "retransmit-storm",
    aliases: &[],
    summary: "a large part of the segments that this host sends is sent again",
    signals: "RetransSegs against OutSegs between two looks, without repeated SYNs (TCPSynRetrans) and without what \
              the receivers had already (TCPDSACKRecv). With two full samples the retransmissions of each connection \
              say to whom.",
    explanation: "Every segment sent again waits for a time-out or for three signs of its loss, so programs see \
                  stalls of a fraction of a second up to many seconds. A few tenths of a per cent are normal on the \
                  internet; per cents mean a lossy link, a full queue or a policer on the way.",
    grounds: &[
        "TCP state in OS, 2、为什么TIME_WAIT状态还需要等2MSL后才能返回到CLOSED状态?",
        "RFC 9293 section 3.8.1",
        "Linux kernel, net/ipv4/tcp_output.c: __tcp_retransmit_skb()",
    ],
    advice: &[
        "`ip -s link` for errors and drops on this host's own link, then look at the way to whom most is sent again",
    ],
    folklore: &["buffer and congestion sysctls do not mend a link that loses packets"],
    states: &[TcpState::Established],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "warn",
            default: 2.0,
            unit: Unit::Percent,
            doc: "of all segments sent, if some to a destination that was dialled: ten times what a healthy path loses",
        },
        Threshold {
            key: "clients",
            default: 5.0,
            unit: Unit::Percent,
            doc: "warns where only clients are concerned or nobody knows who: phones lose 2 or 3 % on their last mile",
        },
        Threshold {
            key: "min",
            default: 50.0,
            unit: Unit::Count,
            doc: "segments sent again between the looks: fewer make a silly ratio",
        },
        Threshold {
            key: "critical",
            default: 10.0,
            unit: Unit::Percent,
            doc: "of all segments sent: TCP's throughput falls to a few segments a round trip",
        },
        Threshold {
            key: "spread",
            default: 3.0,
            unit: Unit::Count,
            doc: "destinations or listeners with a tenth of the loss each, in what is critical: then it is near this host",
        },
    ],
    blind: &[Blind {
        since: (3, 15),
        lacks: "TcpExt.TCPSynRetrans",
        effect: "repeated SYNs count as lost segments: info at most",
    }],
    needs: Needs {
        tcp_info: true,
        deltas: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "segments sent again of 2,500 in a second",
        limit: 125,
        build: example,
    },
};

/// To whom how much was sent again, the most first.
struct Towards {
    targets: Vec<(Target, u64)>,
    rows: Vec<u32>,
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let sent_again = match (
        context.moved(&["Tcp.RetransSegs"]),
        context.moved(&["Tcp.OutSegs"]),
    ) {
        (Moved::By(again), Moved::By(out)) => (again, out),
        (Moved::By(0), Moved::OneLook) => return Verdict::Quiet,
        (Moved::NotCounted, _) | (_, Moved::NotCounted) => {
            return Verdict::CannotTell(
                "RetransSegs and OutSegs could not be read, or were reset".to_owned(),
            );
        }
        _ => return Verdict::CannotTell(ONE_LOOK.to_owned()),
    };
    let (again, out) = sent_again;
    let handshakes = context.moved(&["TcpExt.TCPSynRetrans"]).by();
    let needless = context.moved(&["TcpExt.TCPDSACKRecv"]).by().unwrap_or(0);
    let lost = again
        .saturating_sub(handshakes.unwrap_or(0))
        .saturating_sub(needless);
    // OutSegs leaves retransmissions out.
    let all = out + again;
    let share = lost as f64 * 100.0 / (all as f64).max(1.0);
    if (lost as f64) < limits.get("min") || share < limits.get("warn") {
        return Verdict::Quiet;
    }
    let towards = towards(context);
    let seen: u64 = towards.targets.iter().map(|(_, n)| n).sum();
    let most = towards.targets.first().filter(|(_, n)| n * 2 > seen);
    let spread = towards.targets.iter().filter(|(_, n)| n * 10 >= seen);
    let spread = spread.count();
    // One bad path of a client is the client's; a destination of ours, or many of all, are our trouble.
    let ours = most.is_some_and(|(target, _)| matches!(target, Target::Destination(_)))
        || spread as f64 >= limits.get("spread");
    let mut noted = towards.targets.iter().filter(|(_, n)| n * 10 >= seen);
    let dialled = noted.any(|(target, _)| matches!(target, Target::Destination(_)));
    let severity = if handshakes.is_none() || !dialled && share < limits.get("clients") {
        Severity::Info
    } else if share >= limits.get("critical") && ours {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let window = context.seconds().unwrap_or(0.0);
    let mut evidence = vec![
        Evidence::count("lost_and_sent_again", lost, "segments", "Tcp.RetransSegs")
            .limit(limits.get("min")),
        Evidence::count("sent", all, "segments", "Tcp.OutSegs, Tcp.RetransSegs"),
        Evidence::real("share", share, "%", "Tcp.RetransSegs, Tcp.OutSegs")
            .limit(limits.get("warn")),
        Evidence::real("window", window, "s", "two looks"),
        Evidence::count("needless", needless, "segments", "TcpExt.TCPDSACKRecv"),
    ];
    if let Some(handshakes) = handshakes {
        evidence.push(Evidence::count(
            "repeated_syns",
            handshakes,
            "segments",
            "TcpExt.TCPSynRetrans",
        ));
    }
    for (target, n) in towards.targets.iter().take(3) {
        let text = format!("{} {}", words::thousands(*n), target.words());
        evidence.push(Evidence::text("sent_again", text, "tcpi_total_retrans"));
    }
    let mostly = |brief: bool| {
        most.map_or(String::new(), |(target, _)| {
            let words = if brief {
                target.brief()
            } else {
                target.words()
            };
            format!(", most {words}")
        })
    };
    let (n, of) = (words::thousands(lost), words::thousands(all));
    let (percent, seconds) = (share as u64, words::time((window * 1000.0) as u64));
    let title = |mostly: String| {
        format!("this host: {percent} % of segments sent again, {n} of {of} in {seconds}{mostly}")
    };
    Verdict::Found(vec![Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            title(mostly(false)),
            title(mostly(true)),
            title(String::new()),
        ]),
        subject: Subject::Host,
        evidence,
        explanation: "Segments are lost on the way and have to be sent again; each costs its program a round trip, or \
                      a time-out that doubles with every further loss. Repeated SYNs and copies that the receiver had \
                      already are not counted here."
            .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Network,
        advice: vec![
            "ip -s link    # errors, drops and overruns on this host's own links come first".to_owned(),
            if most.is_some() {
                "look at the way to where most is sent again: link, duplex, policer, overloaded firewall".to_owned()
            } else {
                "linger diagnose --only retransmit-storm --interval 5s --samples 2    # names to whom".to_owned()
            },
            "do not: tune the buffer sysctls of TCP; they do not mend a link that loses packets".to_owned(),
        ],
        rows: towards.rows,
        caused_by: None,
        one_sample: false,
    }])
}

/// By the connections that were sending in this sample and in the one before. That one is part of the time in which the
/// segments were counted, or was just before it: who lost some minutes ago is not to blame for now.
fn towards(context: &Context<'_>) -> Towards {
    let mut targets: HashMap<Target, u64> = HashMap::new();
    let mut rows = Vec::new();
    let before = match context.history.pulse() {
        Some(_) => context.history.just_before(context.sample.taken),
        None => context.history.earlier().last(),
    };
    if let Some(before) = before {
        for row in &context.tally.resent {
            let Some(socket) = context.snapshot.socket(*row) else {
                continue;
            };
            let now = context.snapshot.info(socket).map(|info| info.total_retrans);
            let then = socket.cookie.and_then(|cookie| before.resent(cookie.get()));
            let more = now
                .zip(then)
                .map_or(0, |(now, then)| now.saturating_sub(then));
            if more > 0 {
                *targets.entry(Target::of(context, socket)).or_default() += u64::from(more);
                rows.push((more, *row));
            }
        }
    }
    let mut targets: Vec<_> = targets.into_iter().collect();
    targets.sort_unstable_by_key(|(target, n)| (std::cmp::Reverse(*n), *target));
    rows.sort_unstable_by_key(|(more, row)| (std::cmp::Reverse(*more), *row));
    Towards {
        targets,
        rows: rows.into_iter().take(10).map(|(_, row)| row).collect(),
    }
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let n = i64::from(n);
    scenario.pulse(
        &[("Tcp.RetransSegs", n), ("Tcp.OutSegs", 2_500 - n)],
        |_| {},
    );
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;
    use crate::analyze::scenario::{HERE, THERE};
    use crate::model::{Endpoint, TcpInfo, Timer, tcp_info};

    fn moved(counters: &[(&str, i64)]) -> Option<Severity> {
        let mut scenario = Scenario::default();
        scenario.pulse(counters, |_| {});
        worst(scenario).map(|finding| finding.severity)
    }

    fn worst(scenario: Scenario) -> Option<Finding> {
        let analysis = scenario.analyze(&Settings::default());
        analysis
            .findings
            .into_iter()
            .find(|finding| finding.id == DETECTOR.id)
    }

    #[test]
    fn share_and_number_are_both_needed() {
        let of = |again, out| moved(&[("Tcp.RetransSegs", again), ("Tcp.OutSegs", out)]);
        assert_eq!(of(50, 950), Some(Severity::Warning));
        assert_eq!(of(50, 2_450), Some(Severity::Info));
        assert_eq!(of(49, 49), None, "few segments make silly ratios");
        assert_eq!(of(50, 2_451), None);
        assert_eq!(
            of(900, 100),
            Some(Severity::Warning),
            "nobody knows to whom"
        );
    }

    #[test]
    fn the_last_mile_of_phones_is_no_storm() {
        let of = |again, out| moved(&[("Tcp.RetransSegs", again), ("Tcp.OutSegs", out)]);
        assert_eq!(of(499, 9_501), Some(Severity::Info), "less than 5 %");
        assert_eq!(of(500, 9_500), Some(Severity::Warning));
        let to = |accepted| samples_of(&[(accepted, 5432, 300)], 300, 9_700).severity;
        assert_eq!(to(true), Severity::Info);
        assert_eq!(to(false), Severity::Warning, "a server of ours");
    }

    #[test]
    fn handshakes_and_needless_copies_are_no_loss() {
        let base = [("Tcp.RetransSegs", 60), ("Tcp.OutSegs", 940)];
        for other in ["TcpExt.TCPSynRetrans", "TcpExt.TCPDSACKRecv"] {
            let with = |n| moved(&[base[0], base[1], (other, n)]);
            assert_eq!(with(10), Some(Severity::Warning), "{other}");
            assert_eq!(with(11), None, "{other}: fewer than 50");
        }
    }

    #[test]
    fn one_look_cannot_tell_of_a_rate_and_says_so() {
        let mut scenario = Scenario::default();
        for counter in ["Tcp.RetransSegs", "Tcp.OutSegs"] {
            scenario.snapshot.facts.counters.insert(counter.into(), 900);
        }
        let analysis = scenario.analyze(&Settings::default());
        assert!(
            analysis
                .unknown
                .iter()
                .any(|unknown| unknown.id == DETECTOR.id)
        );
    }

    #[test]
    fn a_kernel_that_does_not_count_repeated_syns_proves_no_loss() {
        let mut scenario = example(50);
        scenario
            .snapshot
            .facts
            .counters
            .remove("TcpExt.TCPSynRetrans");
        assert_eq!(worst(scenario).unwrap().severity, Severity::Info);
    }

    /// Two full samples: connections to the ports, and how much each has sent again meanwhile.
    fn samples(flows: &[(bool, u16, u64)]) -> Finding {
        samples_of(flows, 1_153, 4_677)
    }

    fn samples_of(flows: &[(bool, u16, u64)], again: i64, out: i64) -> Finding {
        let mut scenario = Scenario::default();
        let process = scenario.process(7, "web", 50, 1024);
        scenario.listen(process, 443, 0, 128, 0);
        let mut sockets = Vec::new();
        for (i, (accepted, port, more)) in (0u16..).zip(flows) {
            let (here, there) = if *accepted {
                (443, 50_000 + i)
            } else {
                (40_000 + i, *port)
            };
            let mut socket = scenario.socket(
                TcpState::Established,
                Endpoint::v4(HERE, here),
                Endpoint::v4(THERE, there),
            );
            (socket.send_q, socket.timer) = (9_000, Timer::Retransmit);
            let socket = scenario.held_by(process, socket);
            scenario.push(socket, &[("total_retrans", 100), ("rto_us", 200_000)]);
            sockets.push(*more);
        }
        scenario.remember(5);
        for (info, more) in scenario.snapshot.infos.iter_mut().zip(sockets) {
            let raw = tcp_info::example(&[("total_retrans", 100 + more), ("rto_us", 200_000)]);
            *info = TcpInfo::parse(&raw).unwrap();
        }
        for (counter, by) in [("Tcp.RetransSegs", again), ("Tcp.OutSegs", out)] {
            scenario.snapshot.facts.counters.insert(counter.into(), by);
        }
        worst(scenario).unwrap()
    }

    #[test]
    fn two_samples_name_the_destination() {
        let finding = samples(&[(false, 5432, 1_000), (false, 80, 20)]);
        assert_eq!(
            finding.title,
            "this host: 19 % of segments sent again, 1,153 of 5,830 in 5.0 s, most to 198.51.100.7:5432"
        );
        assert_eq!(
            (finding.severity, finding.rows.len()),
            (Severity::Critical, 2)
        );
    }

    #[test]
    fn a_clients_bad_path_is_never_critical_but_what_all_share_is() {
        let client = samples(&[(true, 0, 1_000), (true, 0, 100)]);
        assert_eq!(client.severity, Severity::Warning);
        let all = samples(&[(false, 80, 50), (false, 81, 50), (true, 0, 60)]);
        assert_eq!(all.severity, Severity::Critical);
        let two = samples(&[(false, 80, 50), (true, 0, 60)]);
        assert_eq!(two.severity, Severity::Warning);
        let beside = samples(&[(false, 80, 9), (false, 81, 9), (true, 0, 99)]);
        assert_eq!(beside.severity, Severity::Warning, "a client and chance");
    }
}
