//! What one look could not prove is proven by being there again.

use super::causes;
use crate::history::{History, Mark};
use crate::model::{Analysis, Finding, Severity};

/// How many samples decide.
const LAST: usize = 3;

/// What a later sample needs to know of this one's findings.
pub fn marks(analysis: &Analysis) -> Vec<Mark> {
    let mark = |finding: &Finding| Mark {
        id: finding.id.into(),
        subject: finding.subject.clone(),
    };
    analysis.findings.iter().map(mark).collect()
}

/// Takes findings that count a step less, because one look does not prove them, for what they are if earlier samples
/// had them too: a warning in two of the last three samples, critical in all of the last three, or of those there are.
pub fn confirm(findings: &mut [Finding], history: &History) {
    let earlier = history.earlier();
    let last = earlier
        .get(earlier.len().saturating_sub(LAST - 1)..)
        .unwrap_or_default();
    if last.is_empty() {
        return;
    }
    for finding in findings.iter_mut().filter(|finding| finding.one_sample) {
        let had = |mark: &Mark| {
            mark.id == finding.id && causes::same_subject(&mark.subject, &finding.subject)
        };
        let times = last
            .iter()
            .filter(|sample| sample.marks.iter().any(had))
            .count();
        let higher = finding.severity.higher();
        let proven = match higher {
            Severity::Critical => times == last.len(),
            Severity::Warning | Severity::Info => times >= 1,
        };
        if proven {
            (finding.severity, finding.one_sample) = (higher, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Sample;
    use crate::model::{Actor, Subject};

    fn after(severity: Severity, seen: &[bool]) -> Severity {
        let mut history = History::default();
        for seen in seen {
            let mark = Mark {
                id: "x".into(),
                subject: Subject::Host,
            };
            history.push(Sample {
                marks: if *seen { vec![mark] } else { Vec::new() },
                ..Sample::default()
            });
        }
        let mut findings = [Finding {
            id: "x",
            variant: None,
            severity,
            title: String::new(),
            subject: Subject::Host,
            evidence: Vec::new(),
            explanation: String::new(),
            grounds: Vec::new(),
            who_must_act: Actor::Nobody,
            advice: Vec::new(),
            rows: Vec::new(),
            caused_by: None,
            one_sample: true,
        }];
        confirm(&mut findings, &history);
        let [finding] = findings;
        assert_eq!(finding.one_sample, finding.severity == severity);
        finding.severity
    }

    #[test]
    fn a_warning_needs_two_of_three_and_critical_all() {
        use Severity::{Critical, Info, Warning};
        assert_eq!(after(Info, &[]), Info);
        assert_eq!(after(Info, &[false]), Info);
        assert_eq!(after(Info, &[true]), Warning);
        assert_eq!(after(Info, &[true, false]), Warning);
        assert_eq!(after(Info, &[true, false, false]), Info, "too long ago");
        assert_eq!(after(Warning, &[true]), Critical);
        assert_eq!(after(Warning, &[true, false]), Warning);
        assert_eq!(after(Warning, &[false, true, true]), Critical);
    }
}
