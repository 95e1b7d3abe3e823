//! Descriptors: how near a process is to its limit, and the host to its own.

use crate::analyze::filling::{Use, looks};
use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::model::{Actor, Evidence, Finding, Process, Severity, Subject, TcpState};

pub const DETECTOR: Detector = Detector {
    id: "fd-limit-near",
    aliases: &[],
    summary: "a process, or the host, has nearly as many descriptors open as it may",
    signals: "per process that holds a socket: the entries of /proc/PID/fd against the soft limit of open files, how many \
              of them are sockets, and how they grow from look to look; of the host: fs.file-nr.",
    explanation: "Every socket, file and pipe takes a descriptor, and with none left accept(), connect() and open() fail \
                  with EMFILE. Connections then wait in the accept queue until it overflows. A program that closes what \
                  it no longer needs stays far below its limit.",
    grounds: &[
        "TCP state in OS, CLOSE_WAIT",
        "Linux kernel, fs/file.c: alloc_fd()",
        "Linux kernel, fs/file_table.c: alloc_empty_file()",
    ],
    advice: &[
        "find first what is not closed: close-wait-leak, closed descriptors, or files; then raise LimitNOFILE of the unit",
        "a raised limit counts for a process that is started after it; prlimit changes one that runs",
    ],
    folklore: &["a higher limit does not end a leak: it takes longer, and then more is lost"],
    states: &[TcpState::CloseWait, TcpState::Established],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "warn",
            default: 80.0,
            unit: Unit::Percent,
            doc: "of the limit: what comes in a busy minute may not fit any more",
        },
        Threshold {
            key: "critical",
            default: 95.0,
            unit: Unit::Percent,
            doc: "of the limit, while more are opened from look to look; all of it is critical at any rate",
        },
        Threshold {
            key: "time-left",
            default: 900.0,
            unit: Unit::Seconds,
            doc: "critical if, above `warn`, the rest is gone sooner than this at the rate seen",
        },
        Threshold {
            key: "flat",
            default: 600.0,
            unit: Unit::Seconds,
            doc: "a number that has not grown for so long is a pool that was made to fit, and info only",
        },
        Threshold {
            key: "min",
            default: 64.0,
            unit: Unit::Count,
            doc: "lower limits are those of a sandbox that is to open nothing, as in sshd, and are not judged",
        },
        Threshold {
            key: "sockets",
            default: 25.0,
            unit: Unit::Percent,
            doc: "if fewer of the open descriptors are sockets, it is not a socket problem, and the finding says so",
        },
    ],
    blind: &[],
    needs: Needs {
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "descriptors, of 100",
        limit: 80,
        build: example,
    },
};

/// How many descriptors a process of this network namespace has open, and may have; `u64::MAX` is unlimited.
pub(in crate::analyze) fn descriptors_of(
    context: &Context<'_>,
    process: &Process,
) -> Option<(u64, u64)> {
    // Descriptors are seen of every network namespace; this one's programs are judged.
    let here = context.snapshot.host.netns;
    let elsewhere = matches!((process.netns, here), (Some(a), Some(b)) if a != b);
    process.fds.zip(process.nofile).filter(|_| !elsewhere)
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let snapshot = context.snapshot;
    let mut findings = Vec::new();
    findings.extend(host(context, limits));
    for (place, process) in (0u32..).zip(snapshot.owners.processes()) {
        let Some((open, limit)) = descriptors_of(context, process) else {
            continue;
        };
        if limit == u64::MAX || (limit as f64) < limits.get("min") {
            continue;
        }
        let used = Use::new(open, limit, &looks(context, |s| s.descriptors(process.pid)));
        if let Some(severity) = used.severity(limits) {
            let sockets = sockets(context, place);
            findings.push(finding(context, limits, process, used, sockets, severity));
        }
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    if findings.is_empty() {
        return unseen(context).map_or(Verdict::Quiet, Verdict::CannotTell);
    }
    Verdict::Found(findings)
}

/// Whose descriptors were not seen, if any were not.
fn unseen(context: &Context<'_>) -> Option<String> {
    let snapshot = context.snapshot;
    let coverage = &snapshot.coverage;
    let uncounted = snapshot.owners.processes().iter();
    let uncounted = uncounted.filter(|process| process.fds.is_none()).count() as u64;
    if !coverage.owners_read && context.tally.total() > 0 {
        return Some("who holds descriptors was not read".to_owned());
    }
    let hidden = if coverage.unowned > 0 {
        u64::from(coverage.unreadable_processes)
    } else {
        0
    };
    match uncounted.max(hidden) {
        0 if coverage.owners_timed_out => Some("not all processes were read in time".to_owned()),
        0 => None,
        1 => Some("the descriptors of 1 process could not be counted".to_owned()),
        n => {
            let n = words::thousands(n);
            Some(format!(
                "the descriptors of {n} processes could not be counted"
            ))
        }
    }
}

/// How many descriptors of the process at this place among the owners are sockets of any kind.
fn sockets(context: &Context<'_>, place: u32) -> u64 {
    let links = context.snapshot.owners.links().iter();
    links.filter(|link| link.process == place).count() as u64
}

fn finding(
    context: &Context<'_>,
    limits: &Limits,
    process: &Process,
    used: Use,
    sockets: u64,
    severity: Severity,
) -> Finding {
    let snapshot = context.snapshot;
    let mut evidence = used.evidence("open_descriptors", "/proc/PID/fd, /proc/PID/limits", limits);
    evidence.push(Evidence::count(
        "of_these_sockets",
        sockets,
        "descriptors",
        "/proc/PID/fd",
    ));
    let others = used.open.saturating_sub(sockets);
    evidence.push(Evidence::count(
        "not_sockets",
        others,
        "descriptors",
        "/proc/PID/fd",
    ));
    let holds = |row: &&u32| {
        snapshot.socket(**row).is_some_and(|socket| {
            let mut holders = snapshot.owners.of(socket.inode);
            holders.any(|(holder, _)| holder.pid == process.pid)
        })
    };
    let rows: Vec<u32> = context
        .tally
        .close_wait
        .iter()
        .filter(holds)
        .copied()
        .collect();
    if !rows.is_empty() {
        let source = "idiag_state";
        evidence.push(Evidence::count(
            "in_close_wait",
            rows.len() as u64,
            "sockets",
            source,
        ));
    }
    let few = sockets as f64 * 100.0 < used.open as f64 * limits.get("sockets");
    let kinds = if few {
        format!(
            "Only {} of them are sockets, so this is not a socket problem: files or pipes take the rest.",
            words::thousands(sockets)
        )
    } else if severity == Severity::Info {
        "The number has not grown for long, as where a pool was made to fit the limit.".to_owned()
    } else {
        format!("{} of them are sockets.", words::thousands(sockets))
    };
    let full = used.open >= used.limit;
    let then = if full {
        "No descriptor is left: accept(), connect() and open() of this program fail with EMFILE now."
    } else {
        "With none left, accept(), connect() and open() fail with EMFILE, and new connections wait in the accept queue."
    };
    let who = words::process(process);
    let left = match used.left() {
        Some(left) if !full => format!(", none left in {}", words::time((left * 1000.0) as u64)),
        _ => String::new(),
    };
    let kind = if few { "; most are not sockets" } else { "" };
    let descriptors = used.words("descriptors");
    let pid = process.pid;
    let command = if few {
        format!("ls -l /proc/{pid}/fd    # which files")
    } else {
        format!("linger pid:{pid}    # which sockets, towards whom")
    };
    let act = if severity == Severity::Info {
        "nothing, if it was made to fit; else raise LimitNOFILE of its unit".to_owned()
    } else {
        format!(
            "close what is not needed; `prlimit --pid {pid} --nofile={}:` raises the soft limit at once, up to the hard one",
            used.limit.saturating_mul(2)
        )
    };
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            format!("{who} has {descriptors} of its limit{left}{kind}"),
            format!("{who} has {descriptors}{left}"),
        ]),
        subject: words::process_subject(Some(process), None),
        evidence,
        explanation: format!("{then} {kinds}"),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: if severity == Severity::Info {
            Actor::Nobody
        } else {
            Actor::ThisProgram
        },
        advice: vec![
            command,
            act,
            "do not: leave it at a higher limit; what leaks fills that, too".to_owned(),
        ],
        rows: rows.into_iter().take(10).collect(),
        caused_by: None,
        one_sample: false,
    }
}

/// The files of the whole host, of every namespace. `fs.file-nr`: allocated, unused, most.
fn host(context: &Context<'_>, limits: &Limits) -> Option<Finding> {
    let numbers = |facts: &crate::model::Facts| {
        let text = facts.sysctls.get("fs/file-nr")?;
        let mut words = text.split_ascii_whitespace().map(str::parse::<u64>);
        let (open, _, most) = (words.next()?.ok()?, words.next()?, words.next()?.ok()?);
        Some((open, most))
    };
    let (open, most) = numbers(&context.snapshot.facts)?;
    if most == 0 {
        return None;
    }
    let before = looks(context, |sample| {
        numbers(&sample.facts).map(|(open, _)| open)
    });
    let used = Use::new(open, most, &before);
    let severity = used.severity(limits)?;
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([format!(
            "this host has {} of fs.file-max, for all programs and containers",
            used.words("files")
        )]),
        subject: Subject::Host,
        evidence: used.evidence("open_files", "fs.file-nr", limits),
        explanation: "All programs and containers share the files of the host. With none left, accept(), connect() and \
                      open() fail with ENFILE for everybody but root."
            .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Operator,
        advice: vec![
            "sysctl fs.file-nr fs.file-max    # open, unused, most".to_owned(),
            "raise fs.file-max now; then look for the program whose number of descriptors grows".to_owned(),
            "do not: restart services one by one; a new one may not start without a descriptor".to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    })
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.process(7, "proxy", u64::from(n), 100);
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;
    use crate::model::{Analysis, Endpoint};

    fn judged(scenario: Scenario) -> Analysis {
        scenario.judge(DETECTOR.id)
    }

    fn worst(scenario: Scenario) -> Option<Severity> {
        let findings = judged(scenario).findings;
        findings.iter().map(|finding| finding.severity).max()
    }

    /// A process of 1,000 descriptors, with so many open now, and before at so many seconds ago; the oldest first.
    fn grown(now: u64, before: &[(i64, u64)]) -> Scenario {
        let mut scenario = Scenario::default();
        scenario.process(7, "proxy", now, 1000);
        let oldest = before.first().map_or(0, |(ago, _)| *ago);
        for (ago, open) in before {
            let mut sample = crate::history::Sample {
                descriptors: vec![(7, *open)],
                ..Default::default()
            };
            sample.taken = jiff::Timestamp::from_second(oldest - ago).unwrap();
            scenario.history.push(sample);
        }
        scenario.snapshot.taken = jiff::Timestamp::from_second(oldest).unwrap();
        scenario
    }

    #[test]
    fn a_level_warns_and_all_is_critical() {
        for (open, severity) in [
            (799, None),
            (800, Some(Severity::Warning)),
            (999, Some(Severity::Warning)),
            (1000, Some(Severity::Critical)),
            (1001, Some(Severity::Critical)),
        ] {
            assert_eq!(worst(grown(open, &[])), severity, "{open}");
        }
    }

    #[test]
    fn steady_growth_tells_when_none_is_left() {
        let soon = judged(grown(850, &[(20, 830), (10, 840)]));
        let finding = &soon.findings[0];
        assert_eq!(
            finding.severity,
            Severity::Critical,
            "150 left at 1 a second"
        );
        assert!(
            finding.title.contains("none left in 2 min"),
            "{}",
            finding.title
        );
        let slow = [(2000, 830), (1000, 840)];
        assert_eq!(
            worst(grown(850, &slow)),
            Some(Severity::Warning),
            "15,000 s left"
        );
        assert_eq!(
            worst(grown(950, &[(2000, 930), (1000, 940)])),
            Some(Severity::Critical)
        );
        assert_eq!(
            worst(grown(949, &[(2000, 929), (1000, 939)])),
            Some(Severity::Warning)
        );
        assert_eq!(
            worst(grown(700, &[(2, 100), (1, 400)])),
            None,
            "far below the limit"
        );
    }

    #[test]
    fn what_goes_up_and_down_is_no_trend() {
        assert_eq!(
            worst(grown(960, &[(2, 940), (1, 970)])),
            Some(Severity::Warning)
        );
        assert_eq!(
            worst(grown(850, &[(1, 820)])),
            Some(Severity::Warning),
            "one small step"
        );
        assert_eq!(
            worst(grown(850, &[(1, 800)])),
            Some(Severity::Critical),
            "one leap"
        );
    }

    #[test]
    fn a_pool_made_to_fit_is_info_after_a_while() {
        assert_eq!(worst(grown(960, &[(600, 960)])), Some(Severity::Info));
        assert_eq!(worst(grown(960, &[(599, 960)])), Some(Severity::Warning));
        assert_eq!(
            worst(grown(960, &[(600, 960), (300, 959)])),
            Some(Severity::Warning)
        );
        assert_eq!(
            worst(grown(1000, &[(600, 1000)])),
            Some(Severity::Critical),
            "none is left"
        );
    }

    #[test]
    fn programs_of_other_network_namespaces_are_not_judged() {
        let of = |theirs: Option<u64>, ours: Option<u64>| {
            let mut scenario = grown(1000, &[]);
            scenario.snapshot.host.netns = ours;
            scenario.in_netns(theirs);
            worst(scenario).is_some()
        };
        assert!(of(Some(7), Some(7)) && of(None, Some(7)) && of(Some(7), None));
        assert!(!of(Some(8), Some(7)));
    }

    #[test]
    fn a_sandbox_and_no_limit_are_not_judged() {
        for (open, limit) in [(5, 0), (5, 1), (63, 63), (1 << 40, u64::MAX)] {
            let mut scenario = Scenario::default();
            scenario.process(7, "sshd", open, limit);
            assert_eq!(worst(scenario), None, "{open} of {limit}");
        }
    }

    #[test]
    fn what_is_no_socket_problem_is_told_so() {
        let with = |sockets: u16| {
            let mut scenario = Scenario::default();
            let process = scenario.process(7, "proxy", 900, 1000);
            for i in 0..sockets {
                let far = Endpoint::v4([198, 51, 100, 7], i);
                let socket = scenario.socket(TcpState::Established, far, far);
                let socket = scenario.held_by(process, socket);
                scenario.push(socket, &[]);
            }
            judged(scenario).findings.remove(0)
        };
        let files = with(224);
        assert!(
            files.explanation.contains("not a socket problem"),
            "{}",
            files.explanation
        );
        assert!(files.advice[0].starts_with("ls -l /proc/7/fd"));
        let sockets = with(225);
        assert!(
            !sockets.explanation.contains("not a socket"),
            "{}",
            sockets.explanation
        );
    }

    #[test]
    fn the_host_with_edited_facts() {
        let of = |text: &str| {
            let mut scenario = Scenario::default();
            scenario.sysctl("fs/file-nr", text);
            worst(scenario)
        };
        assert_eq!(of("799\t0\t1000"), None);
        assert_eq!(of("800\t0\t1000"), Some(Severity::Warning));
        assert_eq!(of("1000\t0\t1000"), Some(Severity::Critical));
        assert_eq!(of("557\t0\t9223372036854775807"), None);
        assert_eq!(of("nonsense"), None);
        assert_eq!(of("1 2"), None);
    }

    #[test]
    fn what_could_not_be_counted_is_not_quiet() {
        let mut scenario = Scenario::default();
        scenario.snapshot.coverage.unreadable_processes = 3;
        assert!(
            judged(scenario.clone()).unknown.is_empty(),
            "every socket has its holder"
        );
        scenario.snapshot.coverage.unowned = 1;
        assert_eq!(judged(scenario).unknown.len(), 1);
    }

    #[test]
    fn a_leak_explains_the_descriptors_of_its_process() {
        let leaking = |pid: u32| {
            let mut scenario = Scenario::default();
            scenario.process(7, "proxy", 95, 100);
            let process = scenario.process(pid, "java", 20, 1_048_576);
            let process = if pid == 7 { 0 } else { process };
            for i in 0..30u16 {
                let local = Endpoint::v4([192, 0, 2, 1], 40_000 + i);
                let remote = Endpoint::v4([198, 51, 100, 7], 443);
                let socket = scenario.socket(TcpState::CloseWait, local, remote);
                let socket = scenario.held_by(process, socket);
                let idle = ["last_ack_recv_ms", "last_data_recv_ms", "last_data_sent_ms"];
                scenario.push(
                    socket,
                    &idle.map(|name| (name, 70_000 * (u64::from(i) + 1))),
                );
            }
            let findings = scenario.analyze(&Settings::default()).findings;
            let mut all = findings.into_iter();
            all.find(|finding| finding.id == DETECTOR.id)
                .unwrap()
                .caused_by
        };
        assert_eq!(leaking(7), Some("close-wait-leak"));
        assert_eq!(leaking(8), None);
    }
}
