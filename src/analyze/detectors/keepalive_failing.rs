//! Keepalive probes that nobody answers.

use crate::analyze::group::{self, Target};
use crate::analyze::role::{self, Towards};
use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::history::holds;
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, Socket, TcpState, Timer};

/// Seconds between probes and their number where the sysctls could not be read: the kernel's own defaults.
const INTERVAL: i64 = 75;
const PROBES: i64 = 9;

pub const DETECTOR: Detector = Detector {
    id: "keepalive-failing",
    aliases: &[],
    summary: "peers do not answer keepalive probes: they, or the way to them, are probably gone",
    signals: "Unanswered probes of ESTABLISHED sockets under the keepalive timer: two or more, or one and the same \
              socket had one in the sample before. By destination or listener.",
    explanation: "After a time without traffic the kernel sends a probe that any living peer answers at once. \
                  Unanswered ones mean a peer that lost power, a cut path, or a NAT or firewall that has forgotten \
                  the connection; after the last probe the program gets an error.",
    grounds: &[
        "RFC 9293 section 3.8.4",
        "Linux kernel, net/ipv4/tcp_timer.c: tcp_keepalive_timer()",
    ],
    advice: &[
        "look for the peer, and for a NAT or balancer that forgets idle connections sooner than keepalive probes",
    ],
    folklore: &["keepalive does not keep a dead connection alive; it only finds out"],
    states: &[TcpState::Established],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "probes",
            default: 2.0,
            unit: Unit::Count,
            doc: "unanswered at once: a single one may be on its way at any moment",
        },
        role::MIN,
        role::SHARE,
        role::BACKGROUND,
    ],
    blind: &[],
    needs: Needs {
        tcp_info: true,
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "connections to one destination that leave two probes unanswered",
        limit: 5,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let before = context.history.earlier().last();
    let fails = |row: &u32| {
        let Some(socket) = context.snapshot.socket(*row) else {
            return false;
        };
        let again = before
            .zip(socket.cookie)
            .is_some_and(|(before, cookie)| holds(&before.probed, cookie.get()));
        again || f64::from(socket.retransmits) >= limits.get("probes")
    };
    let failing = context.tally.probed.iter().copied().filter(fails);
    let findings = role::towards(context, failing)
        .iter()
        .map(|towards| finding(context, limits, towards))
        .collect();
    Verdict::of(group::capped(findings))
}

fn finding(context: &Context<'_>, limits: &Limits, towards: &Towards) -> Finding {
    let facts = &context.snapshot.facts;
    let interval = facts
        .sysctl("net/ipv4/tcp_keepalive_intvl")
        .unwrap_or(INTERVAL);
    let probes = facts
        .sysctl("net/ipv4/tcp_keepalive_probes")
        .unwrap_or(PROBES);
    let lifetime = interval.saturating_mul(probes).max(0);
    let sockets = || {
        towards
            .rows
            .iter()
            .filter_map(|row| context.snapshot.socket(*row))
    };
    let most_probes = sockets()
        .map(|socket| socket.retransmits)
        .max()
        .unwrap_or(0);
    let silent = |socket: &Socket| Some(context.snapshot.info(socket)?.last_ack_recv_ms);
    let longest = sockets().filter_map(silent).max().map(u64::from);
    let (n, all) = (towards.stuck(), towards.in_use.max(towards.stuck()));
    let mut evidence = vec![
        Evidence::count("unanswered", n, "sockets", "idiag_timer, idiag_retrans")
            .limit(limits.get("min")),
        Evidence::count(
            "share_of_sockets",
            words::percent(n, all),
            "%",
            "idiag_retrans",
        )
        .limit(limits.get("share")),
        Evidence::count("probes_unanswered", most_probes, "probes", "tcpi_probes")
            .limit(limits.get("probes")),
        Evidence::real(
            "kernel_gives_up_after",
            lifetime as f64,
            "s",
            "net.ipv4.tcp_keepalive_intvl, tcp_keepalive_probes, unless the program sets its own",
        ),
    ];
    if let Some(ms) = longest {
        let seconds = ms as f64 / 1000.0;
        evidence.push(Evidence::real(
            "longest_silence",
            seconds,
            "s",
            "tcpi_last_ack_recv",
        ));
    }
    let since = longest.map_or_else(
        || format!(", {}", words::count(u64::from(most_probes), "probe")),
        |ms| {
            format!(
                ", silent since {}",
                words::since(context.snapshot.taken, ms)
            )
        },
    );
    let (of, plural) = (words::thousands(all), if all == 1 { "" } else { "s" });
    let n = words::thousands(n);
    let title = |target: String| {
        format!("{target}: {n} of {of} connection{plural} without an answer to keepalive{since}")
    };
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity: role::judge(towards, lifetime as f64, limits),
        title: words::fit([
            title(towards.target.words()),
            title(towards.target.brief()),
            format!("{}: {n} of {of} fail keepalive{since}", towards.target.brief()),
        ]),
        subject: towards.subject(context),
        evidence,
        explanation: match towards.target {
            Target::Listener(_) => "A living peer answers a probe at once; these clients do not, so they have probably \
                                    lost power or network, or a NAT has forgotten them. The kernel drops each \
                                    connection after its last probe and tells the program.",
            _ => "A living peer answers a probe at once; nothing answers here, so the host is down, the path is cut, \
                  or a NAT, firewall or balancer between has forgotten the connections. The kernel ends each after \
                  its last probe; until then the program believes that it is connected.",
        }
        .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Network,
        advice: vec![
            format!("{}    # which connections; does a new one to the same place work?", towards.command()),
            "if new ones work, something between forgets idle connections: set TCP_KEEPIDLE below its time".to_owned(),
            "do not: make keepalive slower or turn it off; without it these would stay for ever".to_owned(),
        ],
        rows: towards.rows.iter().copied().take(10).collect(),
        caused_by: None,
        one_sample: false,
    }
}

fn example(n: u32) -> Scenario {
    probed(n, 2, 0)
}

/// `n` connections to one destination with so many unanswered probes, beside `well` others.
fn probed(n: u32, probes: u8, well: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(55, "api", 30, 1_048_576);
    for i in 0..n + well {
        let mut socket = scenario.socket(
            TcpState::Established,
            Endpoint::v4(HERE, 40_000 + i as u16),
            Endpoint::v4(THERE, 5432),
        );
        (socket.timer, socket.timer_ms) = (Timer::Keepalive, 4_000);
        socket.retransmits = if i < n { probes } else { 0 };
        let socket = scenario.held_by(process, socket);
        let silent = if i < n { 90_000 } else { 10 };
        scenario.push(
            socket,
            &[
                ("last_ack_recv_ms", silent),
                ("last_data_recv_ms", silent),
                ("last_data_sent_ms", silent),
            ],
        );
    }
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;
    use crate::model::Severity;

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
    fn two_unanswered_probes_are_proof_and_one_may_be_on_its_way() {
        let finding = worst(probed(5, 2, 0)).unwrap();
        assert_eq!(finding.severity, Severity::Critical);
        assert_eq!(
            finding.title,
            "to 198.51.100.7:5432: 5 of 5 connections without an answer to keepalive, silent since 23:58 UTC"
        );
        assert_eq!(severity(probed(5, 1, 0)), None);
    }

    #[test]
    fn one_probe_in_two_samples_is_proof_too() {
        let mut scenario = probed(5, 1, 0);
        scenario.remember(10);
        assert_eq!(severity(scenario), Some(Severity::Critical));
        let mut answered = probed(5, 0, 0);
        answered.remember(10);
        for socket in &mut answered.snapshot.sockets {
            socket.retransmits = 1;
        }
        assert_eq!(severity(answered), None);
    }

    #[test]
    fn few_or_a_small_part_are_less_bad() {
        assert_eq!(severity(probed(4, 2, 0)), Some(Severity::Info));
        assert_eq!(severity(probed(5, 2, 11)), Some(Severity::Critical));
        assert_eq!(severity(probed(5, 2, 12)), Some(Severity::Warning));
    }

    #[test]
    fn vanished_clients_are_a_servers_background() {
        let server = |n: u32| {
            let mut scenario = Scenario::default();
            let process = scenario.process(901, "nginx", 30, 1_048_576);
            scenario.listen(process, 443, 0, 511, 0);
            for i in 0..2_000 {
                let mut socket = scenario.socket(
                    TcpState::Established,
                    Endpoint::v4(HERE, 443),
                    Endpoint::v4([203, 0, (i >> 8) as u8, i as u8], 50_000),
                );
                socket.timer = Timer::Keepalive;
                socket.retransmits = if i < n { 3 } else { 0 };
                let socket = scenario.held_by(process, socket);
                scenario.push(socket, &[("last_ack_recv_ms", 9_000)]);
            }
            severity(scenario)
        };
        assert_eq!(server(40), Some(Severity::Info), "2 % of the clients");
        assert_eq!(server(1_999), Some(Severity::Warning), "never critical");
    }

    #[test]
    fn the_timer_of_an_orphan_is_no_probe() {
        let mut scenario = probed(5, 2, 0);
        for socket in &mut scenario.snapshot.sockets {
            (socket.state, socket.inode) = (TcpState::FinWait2, 0);
        }
        assert_eq!(severity(scenario), None);
    }
}
