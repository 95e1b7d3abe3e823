//! What a check prints: the line, and with -v more lines.

use std::cmp::Reverse;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::args::Args;
use super::judge::{Checked, Measured, rank};
use crate::analyze::measures::Reading;
use crate::cli::failure::Failure;
use crate::cli::remember::subject_key;
use crate::cli::source;
use crate::model::range::Range;
use crate::model::words::{count, thousands, time};
use crate::model::{Overall, Severity, TcpState, Transition};
use crate::render::findings::{self, Screen};
use crate::render::nagios::{self, LINE, Perf};
use crate::render::paint::Paint;
use crate::render::sample;

/// What stands on the line between the status and the perfdata.
pub fn text(checked: &Checked) -> String {
    let mut measured: Vec<&Measured> = checked.measured.iter().collect();
    measured.sort_by_key(|one| Reverse(rank(one.status())));
    let mut parts = Parts {
        open: measured.iter().any(|one| one.status() == Overall::Unknown),
        ..Parts::default()
    };
    let found = checked.judged.then(|| found(checked)).flatten();
    // What is worse comes first; of equals what was asked for with limits of its own.
    let worse = |found: &(Overall, Vec<String>)| {
        let worst = measured.first().map_or(0, |one| rank(one.status()));
        rank(found.0) > worst
    };
    let first = found.as_ref().is_some_and(worse);
    if let Some((status, found)) = found.as_ref().filter(|_| first) {
        parts.extend(*status, found.clone());
    }
    for one in measured {
        parts.add(one.status(), words(one));
    }
    if let Some((status, found)) = found.filter(|_| !first) {
        parts.extend(status, found);
    }
    if checked.judged && !checked.seen.analysis.alarms() && checked.unjudged.is_none() {
        parts.extend(Overall::Ok, quiet(checked));
    }
    parts.text
}

/// Sorts changes as -v has what they are about: the worst first, what follows behind its cause, and what is over last.
pub fn sort(changes: &mut [Transition], checked: &Checked) {
    let mut order: FxHashMap<(&str, String), (Severity, usize)> = FxHashMap::default();
    for told in checked.seen.told() {
        let root = told.story.root;
        for finding in std::iter::once(root).chain(told.story.follows) {
            let key = (finding.id, subject_key(&finding.subject));
            let at = order.len() + 1;
            order.entry(key).or_insert((root.severity, at));
        }
    }
    changes.sort_by_cached_key(|change| {
        let place = order.get(&(change.id.as_str(), change.subject.clone()));
        match (place, change.to) {
            (Some((severity, at)), Some(_)) => (Reverse(Some(*severity)), *at),
            (_, to) => (Reverse(to), 0),
        }
    });
}

/// A line for each finding or measure that has come, gone or changed.
pub fn changes(all: &[Transition]) -> String {
    let line = |change: &Transition| {
        let what = match (change.from, change.to) {
            (None, _) => "new".to_owned(),
            (Some(from), None) => format!("ended, was {}", from.name()),
            (Some(from), Some(to)) if from < to => format!("worse, was {}", from.name()),
            (Some(from), Some(_)) => format!("better, was {}", from.name()),
        };
        let severity = change
            .to
            .map_or("OK".to_owned(), |to| to.name().to_uppercase());
        let title = match (change.to, change.title.strip_prefix(&change.id)) {
            // What was said of it is not so any more.
            (None, _) => format!("{} is over; it had been: {}", change.id, change.title),
            (_, Some(_)) => change.title.clone(),
            (_, None) => format!("{}: {}", change.id, change.title),
        };
        nagios::text(&format!("{severity} ({what}) {title}")) + "\n"
    };
    all.iter().map(line).collect()
}

/// With what the look was compared.
pub fn past(age: Option<Duration>) -> String {
    age.map_or(String::new(), |age| {
        let ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        format!("history: the look before this one is {} old\n", time(ms))
    })
}

/// Parts of a line, as many as have room.
#[derive(Default)]
struct Parts {
    text: String,
    /// whether some of them may be UNKNOWN
    open: bool,
    /// those that have no room, and how many of these are UNKNOWN
    left: u64,
    unknown: u64,
}

impl Parts {
    fn add(&mut self, status: Overall, part: String) {
        // Room for the status and for saying how many were left out.
        let open = if self.open { ", 12 unknown".len() } else { 0 };
        let room = LINE - "LINGER CRITICAL - ".len() - "; 12,345 more".len() - open;
        if self.left == 0 && self.text.is_empty() {
            self.text = part;
        } else if self.left == 0 && self.text.chars().count() + 2 + part.chars().count() <= room {
            self.text = format!("{}; {part}", self.text);
        } else {
            let kept = self
                .text
                .strip_suffix(&left(self.left, self.unknown))
                .unwrap_or(&self.text);
            let kept = kept.to_owned();
            self.left += 1;
            self.unknown += u64::from(status == Overall::Unknown);
            self.text = kept + &left(self.left, self.unknown);
        }
    }

    fn extend(&mut self, status: Overall, parts: impl IntoIterator<Item = String>) {
        for part in parts {
            self.add(status, part);
        }
    }
}

/// How many have no room. What is not known is no more of the same.
fn left(parts: u64, unknown: u64) -> String {
    let some = |n: u64, word: &str| (n > 0).then(|| format!("{} {word}", thousands(n)));
    let all = [
        some(parts.saturating_sub(unknown), "more"),
        some(unknown, "unknown"),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    if all.is_empty() {
        String::new()
    } else {
        format!("; {}", all.join(", "))
    }
}

/// The worst finding and how many more there are, or why there is no verdict.
fn found(checked: &Checked) -> Option<(Overall, Vec<String>)> {
    let analysis = &checked.seen.analysis;
    let verdict = analysis.verdict();
    if !analysis.alarms() {
        let open = checked.unjudged.clone()?;
        return Some((Overall::Unknown, vec![open]));
    }
    let mut parts = Vec::new();
    let told = checked.seen.told();
    if let Some(told) = told.first() {
        let root = told.story.root;
        let place = told
            .story
            .namespace
            .map(|namespace| namespace.shown() + ": ");
        parts.push(format!(
            "{}: {}{}",
            root.id,
            place.unwrap_or_default(),
            root.title
        ));
    }
    let of = |severity| {
        let all = analysis.findings.iter();
        all.filter(|finding| finding.severity == severity).count() as u64
    };
    let shown = told.first().map(|told| told.story.root.severity);
    let more = |severity, word: &str| {
        let more = of(severity).saturating_sub(u64::from(shown == Some(severity)));
        (more > 0).then(|| count(more, word))
    };
    let more: Vec<String> = [
        more(Severity::Critical, "critical finding"),
        more(Severity::Warning, "warning"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !more.is_empty() {
        parts.push(format!("and {}", more.join(", ")));
    }
    Some((verdict, parts))
}

/// What was checked, where nothing is wrong.
fn quiet(checked: &Checked) -> Vec<String> {
    let analysis = &checked.seen.analysis;
    let mut parts = vec![format!(
        "{} quiet",
        count(analysis.quiet.len() as u64, "check")
    )];
    if !analysis.unknown.is_empty() {
        parts.push(format!("{} cannot tell", analysis.unknown.len()));
    }
    let info = analysis.findings.len() as u64;
    if info > 0 {
        parts.push(format!("{} info", thousands(info)));
    }
    if let Some(muted) = analysis.muted_words() {
        parts.push(format!("muted {muted}"));
    }
    parts.push(count(checked.seen.tally.total(), "TCP socket"));
    let gaps = checked.seen.snapshot.coverage.missing.len() as u64;
    if gaps > 0 {
        parts.push(format!("{} not read", count(gaps, "part")));
    }
    vec![parts.join(", ")]
}

/// A measure in a few words: `tcp.close-wait is 812, above 200`.
pub fn words(one: &Measured) -> String {
    let label = &one.limited.asked.label;
    let (value, over) = match &one.reading {
        Reading::Missing(what) => return format!("{label}: {what}"),
        Reading::CannotTell(why) => return format!("{label}: cannot tell: {why}"),
        Reading::Value(value) => (*value, String::new()),
        Reading::Over(value, seconds) => {
            let over = time(seconds.saturating_mul(1000));
            (*value, format!(" (history of {over})"))
        }
    };
    let shown = shown(one, value);
    match one.crossed() {
        Some(range) => format!("{label} is {shown}, {}{over}", range.words(value)),
        None => format!("{label} {shown}{over}"),
    }
}

/// A value in digits that somebody reads; perfdata has all of them.
fn shown(one: &Measured, value: f64) -> String {
    let scale = match one.limited.asked.measure.unit {
        // Slopes and rates are estimates.
        "1/min" | "1/s" if value.abs() >= 1.0 => 10.0,
        _ => 10_000.0,
    };
    nagios::number((value * scale).round() / scale)
}

/// The perfdata.
pub fn values(checked: &Checked) -> Vec<(String, Perf<'static>)> {
    let mut values = Vec::new();
    let mut plain = |label: &str, value: f64| {
        values.push((label.to_owned(), Perf::plain("", value)));
    };
    let Checked { seen, measured, .. } = checked;
    if measured.is_empty() {
        for state in TcpState::SHOWN {
            let n = seen.tally.of(state);
            if let Some(slug) = state
                .slug()
                .filter(|_| n > 0 || seen.snapshot.coverage.sees(state))
            {
                plain(&format!("tcp.{slug}"), n as f64);
            }
        }
    }
    if checked.judged {
        let analysis = &seen.analysis;
        for severity in [Severity::Critical, Severity::Warning, Severity::Info] {
            let all = analysis.findings.iter();
            let n = all.filter(|finding| finding.severity == severity).count();
            plain(severity.name(), n as f64);
        }
        plain("cannot_tell", analysis.unknown.len() as f64);
        plain("muted", analysis.muted.len() as f64);
        let time = Perf {
            unit: "s",
            ..Perf::plain("", (checked.took.as_secs_f64() * 1000.0).round() / 1000.0)
        };
        values.push(("time".to_owned(), time));
    }
    values
}

/// The whole line, with its end.
pub fn line(checked: &Checked) -> String {
    let text_of = |range: &Option<Range>| {
        range
            .as_ref()
            .map_or_else(String::new, |range| range.text().to_owned())
    };
    let limits: Vec<(String, String)> = checked
        .measured
        .iter()
        .map(|one| (text_of(&one.limited.warn), text_of(&one.limited.crit)))
        .collect();
    let mut all = Vec::new();
    for (one, (warn, crit)) in checked.measured.iter().zip(&limits) {
        if let Some(value) = one.reading.value() {
            all.push(Perf {
                warn,
                crit,
                // Only what has shrunk can be less than nothing.
                least: (!one.limited.asked.measure.history).then_some(0.0),
                ..Perf::plain(&one.limited.asked.label, value)
            });
        }
    }
    let others = values(checked);
    all.extend(others.iter().map(|(label, value)| Perf {
        label,
        ..value.clone()
    }));
    nagios::line(checked.status(), &text(checked), &all)
}

/// The lines of -v, -vv and -vvv.
///
/// # Errors
/// Never but where memory cannot be written.
pub fn more(args: &Args, checked: &Checked) -> Result<String, Failure> {
    let mut out = Vec::new();
    if args.verbose > 0 {
        lines(args, checked, &mut out)?;
    }
    let text = String::from_utf8_lossy(&out);
    let mut said = String::with_capacity(text.len());
    for line in text.lines() {
        said.push_str(&nagios::text(line));
        said.push('\n');
    }
    Ok(said)
}

fn lines(args: &Args, checked: &Checked, out: &mut Vec<u8>) -> Result<(), Failure> {
    use std::io::Write;
    let screen = Screen {
        width: 100,
        unicode: false,
        paint: Paint(false),
    };
    let analysis = &checked.seen.analysis;
    for one in &checked.measured {
        let measure = one.limited.asked.measure;
        let status = nagios::word(one.status());
        let limit = |name: &str, range: &Option<Range>| {
            let range = range.as_ref();
            range.map_or_else(String::new, |range| format!(", {name} {range}"))
        };
        let limits = limit("warning", &one.limited.warn) + &limit("critical", &one.limited.crit);
        writeln!(out, "{status} {} ({}{limits})", words(one), measure.unit)?;
        if args.verbose > 2 {
            writeln!(out, "  {}: {}", measure.name, measure.doc)?;
        }
    }
    for told in checked.seen.told() {
        let root = told.story.root;
        if args.verbose > 2 {
            let sockets = sample::sample(&root.rows, told.snapshot);
            let again = source::again_within(&args.common, told.story.namespace);
            findings::full(told.story, &sockets, &again, screen, out)?;
            continue;
        }
        for finding in std::iter::once(root).chain(told.story.follows) {
            let word = finding.severity.name().to_uppercase();
            let cause = finding.caused_by.map(|id| format!(" (follows from {id})"));
            let cause = cause.unwrap_or_default();
            writeln!(out, "{word} {}: {}{cause}", finding.id, finding.title)?;
            if args.verbose > 1 {
                findings::measured(&finding.evidence, screen, out)?;
            }
        }
    }
    for muted in &analysis.muted {
        let finding = &muted.finding;
        let word = finding.severity.name();
        let (until, why) = (muted.expires, &muted.reason);
        writeln!(
            out,
            "muted {word} {}: {} (until {until}: {why})",
            finding.id, finding.title
        )?;
    }
    for (ids, reason) in analysis.open() {
        writeln!(out, "cannot tell: {ids}: {reason}")?;
    }
    if args.verbose > 2 && !analysis.quiet.is_empty() {
        writeln!(out, "quiet: {}", analysis.quiet.join(", "))?;
    }
    for warning in checked.warnings() {
        writeln!(out, "note: {warning}")?;
    }
    if let Some(host) = &args.hostname {
        writeln!(
            out,
            "note: -H {host} is not used: the host that linger runs on is looked at"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::analyze::measures;
    use crate::analyze::scenario::Scenario;
    use crate::cli::check::args::Limited;
    use crate::cli::observe::Observation;
    use crate::history::Tally;
    use crate::model::{Analysis, Finding, Snapshot};

    #[test]
    fn what_has_no_room_is_counted() {
        let said = |parts: &[&str]| {
            let mut all = Parts::default();
            all.extend(Overall::Ok, parts.iter().map(|part| (*part).to_owned()));
            all.text
        };
        assert_eq!(said(&[]), "");
        assert_eq!(said(&["a", "b", "c"]), "a; b; c");
        let long = "x".repeat(160);
        assert_eq!(said(&[&long, "b", "c"]), format!("{long}; b; c"));
        let longer = "x".repeat(170);
        assert_eq!(said(&[&longer, "b", "c"]), format!("{longer}; 2 more"));
        assert_eq!(said(&["a", &longer, "c"]), "a; 2 more");
        assert_eq!(said(&["a", &"x".repeat(500)]), "a; 1 more");
        let mut all = Parts {
            open: true,
            ..Parts::default()
        };
        all.add(Overall::Warning, longer);
        all.add(Overall::Unknown, "b".to_owned());
        assert!(all.text.ends_with("xx; 1 unknown"), "{}", all.text);
        all.add(Overall::Warning, "c".to_owned());
        assert!(all.text.ends_with("xx; 1 more, 1 unknown"), "{}", all.text);
    }

    #[test]
    fn changes_come_as_the_findings_do_and_what_is_over_last() {
        let mut scenario = Scenario::default();
        let process = scenario.process(901, "nginx", 50, 1024);
        scenario.listen(process, 8443, 17, 16, 0);
        let analysis = scenario.judge("listen-overflow");
        let found = |id, severity, caused_by| Finding {
            id,
            severity,
            caused_by,
            ..analysis.findings[0].clone()
        };
        let (warning, critical) = (Severity::Warning, Severity::Critical);
        let findings = vec![
            found("accept-queue-stuck", critical, None),
            found("close-wait-leak", warning, Some("accept-queue-stuck")),
            found("a-minor-one", warning, None),
        ];
        let subject = subject_key(&findings[0].subject);
        let checked = Checked {
            seen: Observation {
                snapshot: Snapshot::default(),
                tally: Tally::default(),
                analysis: Analysis {
                    findings,
                    ..Analysis::default()
                },
                parts: Vec::new(),
            },
            judged: true,
            view: 0,
            unjudged: None,
            measured: Vec::new(),
            took: Duration::ZERO,
        };
        let change = |id: &str, from, to| Transition {
            taken: Timestamp::UNIX_EPOCH,
            id: id.to_owned(),
            subject: subject.clone(),
            from,
            to,
            title: format!("{id} speaks"),
        };
        let mut all = [
            change("a-minor-one", None, Some(warning)),
            change("accept-queue-stuck", Some(warning), Some(critical)),
            change("close-wait-leak", None, Some(warning)),
            change("gone", Some(critical), None),
            change("tcp.total", None, Some(critical)),
        ];
        sort(&mut all, &checked);
        assert_eq!(
            changes(&all),
            "CRITICAL (new) tcp.total speaks\n\
             CRITICAL (worse, was warning) accept-queue-stuck speaks\n\
             WARNING (new) close-wait-leak speaks\n\
             WARNING (new) a-minor-one speaks\n\
             OK (ended, was critical) gone is over; it had been: gone speaks\n"
        );
    }

    #[test]
    fn slopes_are_said_in_digits_that_mean_something() {
        let said = |name: &str, reading| {
            words(&Measured {
                limited: Limited {
                    asked: measures::parse(name).unwrap(),
                    warn: None,
                    crit: None,
                },
                reading,
                nobody: None,
            })
        };
        let growth = |value| said("tcp.total.growth", Reading::Over(value, 90));
        assert_eq!(
            growth(60.891_724),
            "tcp.total.growth 60.9 (history of 90 s)"
        );
        assert_eq!(
            growth(-0.012_345),
            "tcp.total.growth -0.0123 (history of 90 s)"
        );
        let missing = Reading::Missing("nobody listens on :9".to_owned());
        assert_eq!(
            said("listener[9].queue", missing),
            "listener[9].queue: nobody listens on :9"
        );
    }
}
