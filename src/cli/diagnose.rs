//! `linger diagnose`: every finding in full.

use std::io::Write;
use std::time::Duration;

use super::args;
use super::document::{self, Judged};
use super::failure::Failure;
use super::observe::{self, Observation, Plan, Told};
use super::{source, terminal};
use crate::model::Overall;
use crate::render::findings::{self, Screen};
use crate::render::sample;
use crate::render::status::{head, labelled};
use crate::render::text::Safe;

/// The time between two looks unless told otherwise.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks, waits, looks again, and prints.
///
/// # Errors
/// When the machine cannot be read.
pub fn run(args: &args::Diagnose) -> Result<u8, Failure> {
    let settings = observe::settings(&args.select, &args.common)?;
    let whole = args.samples.is_some() || args.interval.is_some();
    let plan = Plan {
        samples: args.samples.unwrap_or(if whole { 2 } else { 1 }),
        interval: args.interval.unwrap_or(INTERVAL),
        pulse: !whole,
        recorded: args.samples,
        owners: true,
    };
    let seen = observe::look(&args.common, plan, &settings)?;
    source::note_beside(&seen.warnings(), args.common.json);
    let code = match (args.exit_code, seen.analysis.verdict()) {
        (false, _) | (true, Overall::Ok) => 0,
        (true, Overall::Warning) => 10,
        (true, Overall::Critical) => 11,
        (true, Overall::Unknown) => 12,
    };
    match print(&seen, args) {
        // Who has read enough still wants to know.
        Ok(()) | Err(Failure::Closed) => Ok(code),
        Err(failure) => Err(failure),
    }
}

fn print(seen: &Observation, args: &args::Diagnose) -> Result<(), Failure> {
    if args.common.json {
        let judged = Judged::new(&seen.analysis, &seen.told())?;
        let warnings = seen.warnings();
        let schema = "linger.findings/1";
        return document::print(schema, &args.common, &seen.snapshot, &warnings, judged);
    }
    let mut out = Vec::new();
    write(seen, args, &mut out)?;
    terminal::print(&out)
}

fn write(seen: &Observation, args: &args::Diagnose, out: &mut dyn Write) -> Result<(), Failure> {
    let screen = terminal::screen(args.common.color);
    let Observation {
        snapshot,
        tally,
        analysis,
        ..
    } = seen;
    let clock = source::clock(&args.common, snapshot);
    writeln!(out, "{}\n", head(snapshot, tally.total(), &clock, screen))?;
    print_findings(&seen.told(), &args.common, screen, out)?;
    let verdict = match analysis.verdict() {
        // What was not judged may be what is stuck.
        Overall::Ok if !analysis.unknown.is_empty() && !analysis.muted.is_empty() => {
            "ok but for what is muted, as far as can be told"
        }
        Overall::Ok if !analysis.unknown.is_empty() => "ok as far as can be told",
        Overall::Ok if !analysis.muted.is_empty() => "ok but for what is muted",
        Overall::Ok if analysis.findings.is_empty() => "ok: nothing is stuck",
        Overall::Ok => "ok: nothing above info",
        Overall::Warning => "warning: a person should look today",
        Overall::Critical => "critical: users are hurt now or will be within the hour",
        Overall::Unknown => "unknown: not everything that was asked for could be judged",
    };
    writeln!(out, "{}", labelled("verdict", verdict, screen))?;
    if !analysis.quiet.is_empty() {
        writeln!(
            out,
            "{}",
            labelled("quiet", &analysis.quiet.join(", "), screen)
        )?;
    }
    if let Some(muted) = analysis.muted_words() {
        writeln!(out, "{}", labelled("muted", &muted, screen))?;
    }
    for muted in &analysis.muted {
        let text = format!(
            "{} {}: {} (until {}: {})",
            muted.finding.severity.name().to_uppercase(),
            muted.finding.id,
            Safe(&muted.finding.title),
            muted.expires,
            Safe(&muted.reason),
        );
        writeln!(out, "{}", labelled("", &text, screen))?;
    }
    for (ids, reason) in analysis.open() {
        let text = format!("{ids}: {}", Safe(reason));
        writeln!(out, "{}", labelled("cannot tell", &text, screen))?;
    }
    for warning in seen.warnings() {
        writeln!(
            out,
            "{}",
            labelled("note", &Safe(&warning).to_string(), screen)
        )?;
    }
    Ok(())
}

/// Every finding in full, what follows from it folded under it.
///
/// # Errors
/// When `out` fails.
pub fn print_findings(
    all: &[Told<'_>],
    common: &args::Common,
    screen: Screen,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    for Told { story, snapshot } in all {
        let sockets = sample::sample(&story.root.rows, snapshot);
        let again = source::again_within(common, story.namespace);
        findings::full(*story, &sockets, &again, screen, out)?;
    }
    Ok(())
}
