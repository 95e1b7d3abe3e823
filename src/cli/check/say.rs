//! What a check prints: the line, and with -v more lines.

use super::args::Args;
use super::judge::{Checked, Measured, rank};
use crate::analyze::measures::Reading;
use crate::cli::failure::Failure;
use crate::cli::source;
use crate::model::range::Range;
use crate::model::words::{count, thousands, time};
use crate::model::{Overall, Severity, TcpState};
use crate::render::findings::{self, Screen};
use crate::render::nagios::{self, LINE, Perf};
use crate::render::paint::Paint;
use crate::render::sample;

/// What stands on the line between the status and the perfdata.
pub fn text(checked: &Checked) -> String {
    let mut parts = Parts::default();
    let mut measured: Vec<&Measured> = checked.measured.iter().collect();
    measured.sort_by_key(|one| std::cmp::Reverse(rank(one.status())));
    let found = checked.judged.then(|| found(checked)).flatten();
    // What is worse comes first; of equals what was asked for with limits of its own.
    let worse = |found: &(Overall, Vec<String>)| {
        let worst = measured.first().map_or(0, |one| rank(one.status()));
        rank(found.0) > worst
    };
    let first = found.as_ref().is_some_and(worse);
    if first {
        parts.extend(found.iter().flat_map(|(_, parts)| parts.clone()));
    }
    for one in measured {
        parts.add(words(one));
    }
    if !first {
        parts.extend(found.into_iter().flat_map(|(_, parts)| parts));
    }
    if checked.judged && !checked.seen.analysis.alarms() && checked.unjudged.is_none() {
        parts.extend(quiet(checked));
    }
    parts.text
}

/// Parts of a line, as many as have room.
#[derive(Default)]
struct Parts {
    text: String,
    left: u64,
}

impl Parts {
    fn add(&mut self, part: String) {
        // Room for the status and for saying how many were left out.
        let room = LINE - "LINGER CRITICAL - ".len() - "; 12,345 more".len();
        if self.left == 0 && self.text.is_empty() {
            self.text = part;
        } else if self.left == 0 && self.text.chars().count() + 2 + part.chars().count() <= room {
            self.text = format!("{}; {part}", self.text);
        } else {
            let kept = self
                .text
                .strip_suffix(&left(self.left))
                .unwrap_or(&self.text);
            let kept = kept.to_owned();
            self.left += 1;
            self.text = kept + &left(self.left);
        }
    }

    fn extend(&mut self, parts: impl IntoIterator<Item = String>) {
        for part in parts {
            self.add(part);
        }
    }
}

fn left(parts: u64) -> String {
    match parts {
        0 => String::new(),
        n => format!("; {} more", thousands(n)),
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
    vec![parts.join(", ")]
}

/// A measure in a few words: `tcp.close-wait is 812, above 200`.
pub fn words(one: &Measured) -> String {
    let label = &one.limited.asked.label;
    let (value, over) = match &one.reading {
        Reading::Missing(what) => return what.clone(),
        Reading::CannotTell(why) => return format!("{label}: cannot tell: {why}"),
        Reading::Value(value) => (*value, String::new()),
        Reading::Over(value, seconds) => {
            let over = time(seconds.saturating_mul(1000));
            (*value, format!(" (history of {over})"))
        }
    };
    let shown = nagios::number(value);
    match one.crossed() {
        Some(range) => format!("{label} is {shown}, {}{over}", range.words(value)),
        None => format!("{label} {shown}{over}"),
    }
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
