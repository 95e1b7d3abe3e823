//! Descriptors of TCP sockets that no table shows any more.

use std::collections::HashMap;

use crate::analyze::scenario::{Example, HERE, Scenario, THERE};
use crate::analyze::{
    Blind, Context, Detector, Limits, Needs, Threshold, Unit, Verdict, group, words,
};
use crate::model::{Actor, Endpoint, Evidence, Finding, Process, Severity, TcpState, Unlisted};

pub const DETECTOR: Detector = Detector {
    id: "closed-fd-leak",
    aliases: &[],
    summary: "descriptors of dead TCP connections that a program never closes",
    signals: "Descriptors in /proc/PID/fd whose socket calls itself TCP and is in no table of sock_diag, those that \
              are only bound included; confirmed by a second dump and a second look at the descriptor. A socket that \
              was never bound or connected, and one of another network namespace, look the same.",
    explanation: "A connection that was reset, refused or given up leaves the kernel's table at once, and a forgotten \
                  CLOSE-WAIT leaves it about a minute later when keepalive finds the peer gone. The descriptor stays \
                  until the program closes it. ss and netstat show nothing of it.",
    grounds: &[
        "TCP state in OS, CLOSED",
        "Linux kernel, net/ipv4/tcp.c: tcp_done()",
    ],
    advice: &[
        "close() on error paths: ECONNRESET, ETIMEDOUT, ECONNREFUSED, EPOLLHUP",
        "restart before the descriptors run out; it only buys time",
    ],
    folklore: &["no tcp_* sysctl closes a descriptor"],
    states: &[TcpState::Closed],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "min",
            default: 10.0,
            unit: Unit::Count,
            doc: "fewer descriptors may be sockets that are being opened, or a pool that looks at them later",
        },
        Threshold {
            key: "many",
            default: 50.0,
            unit: Unit::Count,
            doc: "fewer are what pools at rest keep until the next use after their server was restarted",
        },
        Threshold {
            key: "share",
            default: 50.0,
            unit: Unit::Percent,
            doc: "of the process's socket descriptors, `many` or more; below it is worth knowing only",
        },
        Threshold {
            key: "descriptors",
            default: 5.0,
            unit: Unit::Percent,
            doc: "of RLIMIT_NOFILE, of which 65,536 count at most: warns with `min` or more of them",
        },
        Threshold {
            key: "critical",
            default: 20.0,
            unit: Unit::Percent,
            doc: "of RLIMIT_NOFILE, while less than a tenth of it is free: soon nothing can be opened",
        },
    ],
    blind: &[Blind {
        since: (6, 8),
        lacks: "bound-inactive sockets in sock_diag",
        effect: "dead descriptors cannot be told from bound ones, so it cannot tell",
    }],
    needs: Needs {
        owners: true,
        unlisted: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "dead descriptors beside 10 live ones",
        limit: 50,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let Some(unlisted) = &snapshot.unlisted else {
        return Verdict::CannotTell(
            "dead sockets are told from bound ones with the owners, sock_diag and Linux 6.8 only"
                .to_owned(),
        );
    };
    let coverage = &snapshot.coverage;
    if unlisted.is_empty() {
        // Who holds nothing that is in a table most often holds nothing that is not.
        let hidden = if coverage.unowned > 0 {
            coverage.unreadable_processes
        } else {
            0
        };
        return match hidden {
            0 if coverage.owners_timed_out => {
                Verdict::CannotTell("not all processes were read in time".to_owned())
            }
            0 => Verdict::Quiet,
            n => Verdict::CannotTell(format!(
                "the descriptors of {n} process{} could not be read",
                if n == 1 { "" } else { "es" }
            )),
        };
    }
    let mut sockets: HashMap<u32, u64> = HashMap::new();
    for link in snapshot.owners.links() {
        *sockets.entry(link.process).or_default() += 1;
    }
    let findings = (0u32..).zip(snapshot.owners.processes());
    let findings = findings.filter_map(|(index, process)| {
        let leak = unlisted.iter().find(|leak| leak.pid == process.pid)?;
        let total = sockets.get(&index).copied().unwrap_or(0);
        judge(limits, process, leak, total.max(leak.fds.into()))
    });
    Verdict::of(group::capped(findings.collect()))
}

fn judge(limits: &Limits, process: &Process, leak: &Unlisted, total: u64) -> Option<Finding> {
    let fds = f64::from(leak.fds);
    let enough = fds >= limits.get("min");
    let many = fds >= limits.get("many");
    let by_share = many && fds * 100.0 >= total as f64 * limits.get("share");
    let of_limit = |nofile: u64, key| fds >= nofile as f64 * limits.get(key) / 100.0;
    let nofile = process.nofile.filter(|nofile| *nofile > 0);
    let by_limit =
        enough && nofile.is_some_and(|nofile| of_limit(nofile.min(65_536), "descriptors"));
    let used_up = nofile.zip(process.fds).is_some_and(|(nofile, open)| {
        of_limit(nofile, "critical") && open as f64 >= nofile as f64 * 0.9
    });
    let severity = if used_up && (by_share || by_limit) {
        Severity::Critical
    } else if by_share || by_limit {
        Severity::Warning
    } else if enough {
        Severity::Info
    } else {
        return None;
    };
    let mut evidence = vec![
        Evidence::count(
            "dead_descriptors",
            leak.fds,
            "descriptors",
            "/proc/PID/fd, system.sockprotoname",
        )
        .limit(limits.get("min")),
        Evidence::count(
            "share_of_its_sockets",
            words::percent(leak.fds.into(), total),
            "%",
            "/proc/PID/fd",
        )
        .limit(limits.get("share")),
    ];
    evidence.extend(words::descriptors(Some(process)));
    let who = words::process(process);
    let (dead, all) = (words::thousands(leak.fds), words::thousands(total));
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            format!("{who} keeps descriptors of dead connections: {dead} of its {all} sockets"),
            format!("{who} keeps {dead} of {all} sockets of dead connections"),
        ]),
        subject: words::process_subject(Some(process), None),
        evidence,
        explanation: "The connections are gone, by reset, refusal or time-out, and the program has not closed their \
                      descriptors. No table shows them any more, and nothing but close() gives them back. Sockets \
                      that it never connected, or opened in another network namespace, would look the same."
            .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            format!("ls -l /proc/{}/fd | grep -c socket:    # watch it grow", leak.pid),
            "close() on error paths too: ECONNRESET, ETIMEDOUT, ECONNREFUSED, EPOLLHUP; a restart only buys time"
                .to_owned(),
            "do not: raise RLIMIT_NOFILE and leave it at that".to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    })
}

fn example(n: u32) -> Scenario {
    with(n, 10, 1_048_576)
}

/// A process with so many dead and live descriptors.
fn with(dead: u32, live: u16, nofile: u64) -> Scenario {
    let mut scenario = Scenario::default();
    let fds = u64::from(dead) + u64::from(live);
    let process = scenario.process(2211, "checkout", fds, nofile);
    scenario.unlisted(process, dead);
    for i in 0..live {
        let local = Endpoint::v4(HERE, 40_000 + i);
        let socket = scenario.socket(TcpState::Established, local, Endpoint::v4(THERE, 443));
        let socket = scenario.held_by(process, socket);
        let young = [("last_data_sent_ms", 1), ("last_data_recv_ms", 1)];
        scenario.push(socket, &young);
    }
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;

    fn severity(scenario: Scenario) -> Option<Severity> {
        let finding = scenario.judge(DETECTOR.id).findings.pop();
        finding.map(|finding| finding.severity)
    }

    const PLENTY: u64 = 1_048_576;

    #[test]
    fn processes_that_could_not_be_read_leave_it_open() {
        let unknown = |unreadable, unowned| {
            let mut scenario = Scenario::default();
            scenario.snapshot.coverage.unowned = unowned;
            scenario.snapshot.unlisted = Some(Vec::new());
            scenario.snapshot.coverage.unreadable_processes = unreadable;
            scenario.judge(DETECTOR.id).unknown.len()
        };
        assert_eq!((unknown(0, 1), unknown(1, 0), unknown(1, 1)), (0, 0, 1));
    }

    #[test]
    fn fifty_that_are_half_of_all_are_a_leak() {
        assert_eq!(severity(with(50, 50, PLENTY)), Some(Severity::Warning));
        assert_eq!(
            severity(with(50, 51, PLENTY)),
            Some(Severity::Info),
            "fewer than half"
        );
    }

    #[test]
    fn a_pool_at_rest_after_a_restart_of_its_server_is_info() {
        assert_eq!(severity(with(49, 1, PLENTY)), Some(Severity::Info));
        assert_eq!(severity(with(40, 0, 1024)), Some(Severity::Info));
        assert_eq!(severity(with(10, 0, PLENTY)), Some(Severity::Info));
        assert_eq!(severity(with(9, 0, PLENTY)), None, "fewer than ten");
    }

    #[test]
    fn a_part_of_a_small_limit_is_a_leak_too() {
        assert_eq!(severity(with(10, 30, 200)), Some(Severity::Warning));
        assert_eq!(severity(with(10, 30, 201)), Some(Severity::Info), "< 5 %");
        assert_eq!(severity(with(9, 30, 100)), None, "fewer than ten");
    }

    #[test]
    fn critical_when_the_descriptors_are_nearly_used_up() {
        assert_eq!(severity(with(20, 70, 100)), Some(Severity::Critical));
        assert_eq!(
            severity(with(20, 69, 100)),
            Some(Severity::Warning),
            "11 are free"
        );
        assert_eq!(severity(with(19, 80, 100)), Some(Severity::Warning), "19 %");
    }

    #[test]
    fn what_was_not_looked_for_is_not_quiet() {
        let mut scenario = example(50);
        scenario.snapshot.unlisted = None;
        let analysis = scenario.analyze(&Settings::default());
        assert_eq!(analysis.unknown[0].id, DETECTOR.id);
    }

    #[test]
    fn the_leak_that_it_ends_is_its_cause() {
        let mut scenario = example(50);
        for i in 0..30 {
            let local = Endpoint::v4(HERE, 50_000 + i);
            let socket = scenario.socket(TcpState::CloseWait, local, Endpoint::v4(THERE, 443));
            let socket = scenario.held_by(0, socket);
            let age = 90_000 + 60_000 * u64::from(i);
            let members = ["last_ack_recv_ms", "last_data_recv_ms", "last_data_sent_ms"];
            scenario.push(socket, &members.map(|member| (member, age)));
        }
        let findings = scenario.analyze(&Settings::default()).findings;
        let leak = findings.iter().find(|f| f.id == DETECTOR.id).unwrap();
        assert_eq!(leak.caused_by, Some("close-wait-leak"), "{findings:?}");
    }
}
