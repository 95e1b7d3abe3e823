//! The registry. A new detector is its file and its line in the list below.

use super::{Context, Detector};
use crate::model::{Finding, Subject};

/// Declares the modules and the registry in one place.
macro_rules! detectors {
    ($($name:ident),+ $(,)?) => {
        $(mod $name;)+
        /// Every detector.
        pub static ALL: &[&Detector] = &[$(&$name::DETECTOR),+];
    };
}

detectors! {
    close_wait_leak,
    accept_queue_stuck,
    time_wait_flood,
    fin_wait_2_stuck,
    ephemeral_port_exhaustion,
    listen_overflow,
    syn_sent_blackhole,
}

/// The detector with this id, or with an alias of this name.
pub fn find(name: &str) -> Option<&'static Detector> {
    let folded = name.to_ascii_lowercase().replace('_', "-");
    ALL.iter()
        .find(|detector| detector.id == folded || detector.aliases.contains(&folded.as_str()))
        .copied()
}

/// Says which findings follow from which: one cause, one story.
pub fn relate(findings: &mut [Finding], context: &Context<'_>) {
    let causes: Vec<Option<&'static str>> = findings
        .iter()
        .map(|finding| cause(finding, findings, context))
        .collect();
    for (finding, cause) in findings.iter_mut().zip(causes) {
        finding.caused_by = cause;
    }
}

fn cause(finding: &Finding, all: &[Finding], context: &Context<'_>) -> Option<&'static str> {
    let with = |id: &'static str, fits: &dyn Fn(&Finding) -> bool| {
        all.iter()
            .any(|other| other.id == id && fits(other))
            .then_some(id)
    };
    match (finding.id, &finding.subject) {
        // A queue over its limit is the worse news about the same listener.
        ("accept-queue-stuck", subject) => with("listen-overflow", &|other| {
            same_listener(&other.subject, subject)
        })
        .or_else(|| descriptors_used_up(finding, all, context)),
        ("listen-overflow", _) => descriptors_used_up(finding, all, context),
        // Ports taken by attempts that nobody answers.
        ("ephemeral-port-exhaustion", Subject::Destination { address, port, .. })
            if finding.variant == Some("syn-sent") =>
        {
            with(
                "syn-sent-blackhole",
                &|other| matches!(&other.subject, Subject::Destination { address: a, port: p, .. } if a == address && p == port),
            )
        }
        _ => None,
    }
}

fn same_listener(a: &Subject, b: &Subject) -> bool {
    match (a, b) {
        (
            Subject::Listener {
                address: a,
                port: p,
                ..
            },
            Subject::Listener {
                address: b,
                port: q,
                ..
            },
        ) => a == b && p == q,
        _ => false,
    }
}

/// A leak that has used up the descriptors of the program that should accept.
fn descriptors_used_up(
    finding: &Finding,
    all: &[Finding],
    context: &Context<'_>,
) -> Option<&'static str> {
    let Subject::Listener { pid: Some(pid), .. } = finding.subject else {
        return None;
    };
    let owner = context
        .snapshot
        .owners
        .processes()
        .iter()
        .find(|process| process.pid == pid)?;
    let used_up = owner.fds? >= owner.nofile?;
    let leaks = |other: &&Finding| {
        other.id == "close-wait-leak"
            && matches!(other.subject, Subject::Process { pid: Some(leaker), .. } if leaker == pid)
    };
    (used_up && all.iter().any(|other| leaks(&other))).then_some("close-wait-leak")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::analyze::Settings;
    use crate::model::Severity;

    #[test]
    fn names_are_unique_and_in_kebab_case_and_everything_is_explained() {
        let mut seen = HashSet::new();
        for detector in ALL {
            for name in detector.aliases.iter().chain([&detector.id]) {
                assert!(seen.insert(*name), "{name} twice");
                assert!(
                    name.chars()
                        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                );
                assert_eq!(find(name).map(|found| found.id), Some(detector.id));
            }
            for text in [detector.summary, detector.signals, detector.explanation] {
                assert!(!text.is_empty(), "{}", detector.id);
            }
            assert!(
                !detector.grounds.is_empty() && !detector.advice.is_empty(),
                "{}",
                detector.id
            );
            for threshold in detector.thresholds {
                assert!(
                    threshold.doc.len() > 20,
                    "{}.{}",
                    detector.id,
                    threshold.key
                );
            }
        }
    }

    #[test]
    fn each_example_fires_at_its_limit_and_not_one_below() {
        for detector in ALL {
            let mut settings = Settings::default();
            settings.only(&[detector.id.to_owned()]).unwrap();
            let example = detector.example;
            let above_info = |n| {
                (example.build)(n)
                    .analyze(&settings)
                    .findings
                    .into_iter()
                    .find(|finding| finding.severity > Severity::Info)
            };
            let finding = above_info(example.limit)
                .unwrap_or_else(|| panic!("{} at {} {}", detector.id, example.limit, example.of));
            assert_eq!(finding.id, detector.id);
            assert_eq!(
                above_info(example.limit - 1),
                None,
                "{} one below",
                detector.id
            );
        }
    }

    #[test]
    fn words_keep_their_budget() {
        for detector in ALL {
            let example = detector.example;
            for finding in (example.build)(example.limit)
                .analyze(&Settings::default())
                .findings
            {
                assert!(finding.title.chars().count() <= 100, "{}", finding.title);
                assert!(
                    finding.title.chars().any(|c| c.is_ascii_digit()),
                    "{}",
                    finding.title
                );
                assert!(
                    finding.advice.len() <= 3,
                    "{}: {:?}",
                    finding.id,
                    finding.advice
                );
                let sentences = finding.explanation.matches(". ").count() + 1;
                assert!(sentences <= 3, "{}: {}", finding.id, finding.explanation);
                assert!(finding.rows.len() <= 10);
                assert!(!finding.evidence.is_empty());
            }
        }
    }

    #[test]
    fn an_empty_machine_is_quiet() {
        let analysis = crate::analyze::scenario::Scenario::default().analyze(&Settings::default());
        assert_eq!((analysis.findings, analysis.unknown), (vec![], vec![]));
        assert_eq!(analysis.quiet.len(), ALL.len());
    }
}
