//! `linger.check/1`.

use jiff::Timestamp;
use serde::Serialize;

use super::args::Args;
use super::judge::{Checked, Measured};
use super::past::Past;
use super::say;
use crate::analyze::measures::Reading;
use crate::cli::args::Common;
use crate::cli::document::{self, Findings};
use crate::cli::failure::Failure;
use crate::model::range::Range;
use crate::model::{Overall, Snapshot, Transition};
use crate::render::history::data::{Change, changes as changes_of};
use crate::render::nagios;

const SCHEMA: &str = "linger.check/1";

#[derive(Debug, Serialize)]
struct Document<'a> {
    status: Overall,
    exit_code: u8,
    line: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Fault<'a>>,
    measures: Vec<Measure<'a>>,
    #[serde(flatten)]
    findings: Findings<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Vec<Change<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history_age_s: Option<f64>,
}

/// Why nothing could be judged.
#[derive(Debug, Serialize)]
struct Fault<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Measure<'a> {
    name: &'a str,
    value: Option<f64>,
    unit: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    warn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crit: Option<&'a str>,
    status: Overall,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history_s: Option<u64>,
}

fn measure(one: &Measured) -> Measure<'_> {
    let limited = &one.limited;
    Measure {
        name: &limited.asked.label,
        value: one.reading.value(),
        unit: limited.asked.measure.unit,
        warn: limited.warn.as_ref().map(Range::text),
        crit: limited.crit.as_ref().map(Range::text),
        status: one.status(),
        reason: match &one.reading {
            Reading::Missing(reason) | Reading::CannotTell(reason) => Some(reason),
            Reading::Value(_) | Reading::Over(..) => None,
        },
        history_s: match &one.reading {
            Reading::Over(_, seconds) => Some(*seconds),
            _ => None,
        },
    }
}

/// What was judged.
///
/// # Errors
/// When a socket cannot be written as JSON.
pub fn checked(
    args: &Args,
    checked: &Checked,
    changes: Option<&[Transition]>,
    past: &Past,
) -> Result<Vec<u8>, Failure> {
    let status = checked.status();
    let line = nagios::head(status, &say::text(checked));
    let content = Document {
        status,
        exit_code: nagios::code(status),
        line: &line,
        error: None,
        measures: checked.measured.iter().map(measure).collect(),
        findings: Findings::new(&checked.seen.analysis, &checked.seen.told())?,
        changes: changes.map(changes_of),
        history_age_s: past.age().map(|age| age.as_secs_f64()),
    };
    let mut warnings = checked.warnings();
    warnings.extend_from_slice(&past.lost);
    warnings.extend_from_slice(&past.notes);
    let mut out = Vec::new();
    let snapshot = &checked.seen.snapshot;
    document::write(&mut out, SCHEMA, &args.common, snapshot, &warnings, content)?;
    Ok(out)
}

/// Why nothing was judged.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn failed(line: &str, message: &str, hint: Option<&str>) -> Result<Vec<u8>, Failure> {
    let mut snapshot = Snapshot {
        taken: Timestamp::now(),
        ..Snapshot::default()
    };
    snapshot.coverage.missing.push(message.to_owned());
    let status = Overall::Unknown;
    let content = Document {
        status,
        exit_code: nagios::code(status),
        line: line.trim_end(),
        error: Some(Fault { message, hint }),
        measures: Vec::new(),
        findings: Findings::default(),
        changes: None,
        history_age_s: None,
    };
    let mut out = Vec::new();
    let common = Common::default();
    document::write(
        &mut out,
        SCHEMA,
        &common,
        &snapshot,
        &[message.to_owned()],
        content,
    )?;
    Ok(out)
}
