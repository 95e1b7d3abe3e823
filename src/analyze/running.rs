//! Why the program that a finding blames does not run: stopped, asleep in the kernel, or kept from the processors.

use super::{Context, words};
use crate::model::{Evidence, Finding, Process, Subject};

/// Findings that say "the program does not do its part".
const BLAMING: &[&str] = &[
    "accept-queue-stuck",
    "close-wait-leak",
    "listen-overflow",
    "recv-q-stuck",
    "reuseport-imbalance",
    "udp-rcvbuf-drops",
    "unix-backlog-full",
];

/// Less throttling than this share of the periods is a busy program's normal day, %.
const THROTTLED: u64 = 10;

/// Less waiting for a processor than this share of the time delays nobody visibly, %.
const PRESSED: u64 = 20;

/// Adds to each finding that blames a process what kept that process from running.
pub fn explain(findings: &mut [Finding], context: &Context<'_>) {
    for finding in findings {
        if !BLAMING.contains(&finding.id) {
            continue;
        }
        let (Subject::Process { pid: Some(pid), .. } | Subject::Listener { pid: Some(pid), .. }) =
            finding.subject
        else {
            continue;
        };
        let processes = context.snapshot.owners.processes();
        if let Some(process) = processes.iter().find(|process| process.pid == pid) {
            finding.evidence.extend(why(process, context));
        }
    }
}

fn why(process: &Process, context: &Context<'_>) -> Vec<Evidence> {
    let mut evidence = Vec::new();
    let state = match process.run_state {
        Some('T') => Some("is stopped (T); SIGCONT lets it run again"),
        Some('t') => Some("is stopped by a debugger (t)"),
        Some('D') => Some("is in uninterruptible sleep (D): it waits for a disk or a file server"),
        _ => None,
    };
    if let Some(state) = state {
        evidence.push(Evidence::text(
            "why_it_does_not_run",
            format!("{} {state}", words::process(process)),
            "/proc/PID/stat",
        ));
    }
    let looks = process
        .cgroup
        .as_deref()
        .and_then(|path| Some((context.deltas()?, path)));
    let Some((deltas, path)) = looks else {
        return evidence;
    };
    let Some((before, after)) = deltas.cpu(path) else {
        return evidence;
    };
    let throttled = after.throttled_percent(before);
    if let Some(share) = throttled.filter(|share| *share >= THROTTLED) {
        evidence.push(Evidence::text(
            "why_it_does_not_run",
            format!(
                "{} was throttled in {share} % of the periods of the last {}: its CPU quota was used up",
                words::process(process),
                words::time(u64::try_from(deltas.window.as_millis()).unwrap_or(u64::MAX)),
            ),
            "cpu.stat nr_throttled, nr_periods",
        ));
        evidence.push(Evidence::count(
            "throttled_periods",
            share,
            "%",
            "cpu.stat nr_throttled",
        ));
    }
    let window = u64::try_from(deltas.window.as_micros()).unwrap_or(u64::MAX);
    let pressed = after.pressure_percent(before, window);
    if let Some(share) = pressed.filter(|share| *share >= PRESSED) {
        // The root group holds everything that this machine, or this container, runs.
        let name = if path == "/" {
            "time_with_any_thread_waiting_for_a_processor"
        } else {
            "time_with_its_threads_waiting_for_a_processor"
        };
        evidence.push(Evidence::count(name, share, "%", "cpu.pressure some"));
    }
    evidence
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::analyze::Settings;
    use crate::analyze::scenario::Scenario;
    use crate::model::finding::Value;
    use crate::model::{Cpu, Pulse};

    /// What is added about a process that has left its listener's queue over its limit.
    fn added(
        change: impl Fn(&mut Process),
        cpu: Option<(Cpu, Cpu)>,
    ) -> Vec<(&'static str, String)> {
        let mut scenario = Scenario::default();
        let process = scenario.process(812, "java", 50, 1024);
        scenario.change(process, |process| {
            process.cgroup = Some("/app.slice/java.service".to_owned());
            change(process);
        });
        scenario.listen(process, 8443, 17, 16, 0);
        if let Some((before, after)) = cpu {
            let path = "/app.slice/java.service".to_owned();
            scenario.snapshot.cpu.insert(path.clone(), before);
            let facts = scenario.snapshot.facts.clone();
            scenario.history.set_pulse(Pulse {
                taken: Timestamp::from_second(1).unwrap(),
                facts,
                cpu: [(path, after)].into(),
                ..Pulse::default()
            });
        }
        let findings = scenario.analyze(&Settings::default()).findings;
        let finding = findings.iter().find(|f| f.id == "listen-overflow").unwrap();
        let about = finding.evidence.iter().filter(|evidence| {
            evidence.source == "/proc/PID/stat" || evidence.source.starts_with("cpu.")
        });
        about
            .map(|evidence| match &evidence.value {
                Value::Text(text) => (evidence.name, text.clone()),
                other => (evidence.name, format!("{other:?}")),
            })
            .collect()
    }

    #[test]
    fn a_process_that_is_stopped_or_asleep_in_the_kernel_is_said_to_be() {
        let state = |state| added(|process| process.run_state = Some(state), None);
        let [(name, text)] = &state('T')[..] else {
            panic!()
        };
        assert_eq!(*name, "why_it_does_not_run");
        assert!(text.starts_with("java[812] is stopped (T)"), "{text}");
        assert!(state('D')[0].1.contains("uninterruptible sleep (D)"));
        assert!(state('t')[0].1.contains("debugger"));
        for running in ['S', 'R', 'I'] {
            assert_eq!(state(running), []);
        }
        assert_eq!(added(|process| process.run_state = None, None), []);
    }

    fn cpu(throttled: u64, waited_us: u64) -> Option<(Cpu, Cpu)> {
        let before = Cpu {
            periods: Some(100),
            throttled: Some(50),
            throttled_us: Some(0),
            pressure_us: Some(9),
        };
        let after = Cpu {
            periods: Some(200),
            throttled: Some(50 + throttled),
            throttled_us: Some(1),
            pressure_us: Some(9 + waited_us),
        };
        Some((before, after))
    }

    #[test]
    fn throttling_and_pressure_count_from_their_limits_on() {
        let said = added(|_| {}, cpu(71, 0));
        assert!(
            said[0]
                .1
                .contains("throttled in 71 % of the periods of the last 1.0 s")
        );
        assert_eq!(said[1], ("throttled_periods", "Count(71)".to_owned()));
        assert_eq!(added(|_| {}, cpu(9, 199_999)), []);
        assert_eq!(added(|_| {}, cpu(10, 0)).len(), 2);
        let pressed = added(|_| {}, cpu(0, 200_000));
        let name = "time_with_its_threads_waiting_for_a_processor";
        assert_eq!(pressed, [(name, "Count(20)".to_owned())]);
        let elsewhere = added(|process| process.cgroup = Some("/x".to_owned()), cpu(71, 0));
        assert_eq!(elsewhere, [], "of another group");
    }

    #[test]
    fn who_is_not_blamed_is_not_explained() {
        let mut scenario = Scenario::default();
        let process = scenario.process(812, "java", 50, 1024);
        scenario.change(process, |process| process.run_state = Some('T'));
        scenario.unlisted(process, 10);
        let findings = scenario.analyze(&Settings::default()).findings;
        let all = findings.iter().flat_map(|finding| &finding.evidence);
        assert_eq!(all.filter(|e| e.name == "why_it_does_not_run").count(), 0);
        assert_eq!(findings.len(), 1);
    }
}
