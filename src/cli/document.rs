//! The JSON documents about findings, from the one definition of a finding.

use serde::Serialize;
use serde_json::Value;

use super::args::Common;
use super::failure::Failure;
use super::observe::Told;
use super::source;
use crate::fields::{NoNames, Record};
use crate::model::finding::Muted;
use crate::model::{
    AgeFacts, Analysis, Attributes, Ends, Finding, Namespace, Overall, Snapshot, Unknown,
};
use crate::render::json::{self, Envelope, Parts, Tail};

/// A finding with its sockets.
#[derive(Debug, Serialize)]
pub struct FindingDocument<'a> {
    id: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'static str>,
    severity: crate::model::Severity,
    title: &'a str,
    subject: &'a crate::model::Subject,
    evidence: &'a [crate::model::Evidence],
    explanation: &'a str,
    grounds: &'a [&'static str],
    who_must_act: crate::model::Actor,
    advice: &'a [String],
    sockets: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caused_by: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    one_sample: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<&'a str>,
}

/// `linger.findings/1`, and the part of `linger.status/1` that is the same.
#[derive(Debug, Serialize)]
pub struct Judged<'a> {
    verdict: Overall,
    #[serde(flatten)]
    told: Findings<'a>,
}

/// The same without a verdict.
#[derive(Debug, Default, Serialize)]
pub struct Findings<'a> {
    findings: Vec<FindingDocument<'a>>,
    quiet: &'a [&'static str],
    unknown: &'a [Unknown],
    muted: Vec<MutedDocument<'a>>,
}

/// A finding that is muted.
#[derive(Debug, Serialize)]
struct MutedDocument<'a> {
    id: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'static str>,
    severity: crate::model::Severity,
    title: &'a str,
    subject: &'a crate::model::Subject,
    reason: &'a str,
    expires: String,
}

impl<'a> Judged<'a> {
    /// What the detectors say, `told` being its findings with the looks that they are about.
    ///
    /// # Errors
    /// When a socket cannot be written as JSON.
    pub fn new(analysis: &'a Analysis, told: &[Told<'a>]) -> Result<Self, Failure> {
        Ok(Self {
            verdict: analysis.verdict(),
            told: Findings::new(analysis, told)?,
        })
    }
}

impl<'a> Findings<'a> {
    /// As [`Judged::new`].
    ///
    /// # Errors
    /// When a socket cannot be written as JSON.
    pub fn new(analysis: &'a Analysis, told: &[Told<'a>]) -> Result<Self, Failure> {
        let findings = told.iter().flat_map(|told| {
            let story = told.story;
            let all = std::iter::once(story.root).chain(story.follows);
            all.map(move |finding| document(finding, story.namespace, told.snapshot))
        });
        Ok(Self {
            findings: findings.collect::<Result<_, _>>()?,
            quiet: &analysis.quiet,
            unknown: &analysis.unknown,
            muted: analysis.muted.iter().map(muted).collect(),
        })
    }
}

fn muted(muted: &Muted) -> MutedDocument<'_> {
    MutedDocument {
        id: muted.finding.id,
        variant: muted.finding.variant,
        severity: muted.finding.severity,
        title: &muted.finding.title,
        subject: &muted.finding.subject,
        reason: &muted.reason,
        expires: muted.expires.to_string(),
    }
}

fn document<'a>(
    finding: &'a Finding,
    namespace: Option<&'a Namespace>,
    snapshot: &Snapshot,
) -> Result<FindingDocument<'a>, Failure> {
    Ok(FindingDocument {
        id: finding.id,
        variant: finding.variant,
        severity: finding.severity,
        title: &finding.title,
        subject: &finding.subject,
        evidence: &finding.evidence,
        explanation: &finding.explanation,
        grounds: &finding.grounds,
        who_must_act: finding.who_must_act,
        advice: &finding.advice,
        sockets: sockets(&finding.rows, snapshot)?,
        caused_by: finding.caused_by,
        one_sample: finding.one_sample,
        netns: namespace.map(|namespace| namespace.label.as_str()),
    })
}

/// Rows of a snapshot as `linger.sockets/1` has them, with their owners and ages.
///
/// # Errors
/// When a socket cannot be written as JSON.
pub fn sockets(rows: &[u32], snapshot: &Snapshot) -> Result<Vec<Value>, Failure> {
    let ages = AgeFacts::new(&snapshot.facts);
    let attributes = Attributes::default();
    let mut values = Vec::new();
    for socket in rows.iter().filter_map(|row| snapshot.socket(*row)) {
        let record = Record {
            socket,
            attributes: &attributes,
            ends: Ends::Ip,
            owners: Some(&snapshot.owners),
            ages: &ages,
            names: &NoNames,
        };
        let mut bytes = Vec::new();
        let parts = Parts {
            owners: snapshot.coverage.owners_read,
            ..Parts::default()
        };
        json::write_socket(&mut bytes, &record, parts)?;
        let mut value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::failed(format!("cannot write JSON: {error}"), None))?;
        // A snapshot keeps a digest of tcp_info, which is enough for the age.
        if let (Some(age), Some(object)) = (snapshot.age(socket), value.as_object_mut()) {
            object.insert("state_age_ms".to_owned(), age.low_ms.into());
            if let Some(high) = age.high_ms.filter(|high| *high != age.low_ms) {
                object.insert("state_age_max_ms".to_owned(), high.into());
            }
        }
        values.push(value);
    }
    Ok(values)
}

/// A document with its envelope.
#[derive(Debug, Serialize)]
struct Document<'a, T: Serialize> {
    #[serde(flatten)]
    envelope: Envelope<'a>,
    #[serde(flatten)]
    content: T,
}

/// Prints `content` in the envelope of `snapshot`, with what must be known of both.
///
/// # Errors
/// When standard output fails.
pub fn print(
    schema: &str,
    common: &Common,
    snapshot: &Snapshot,
    warnings: &[String],
    content: impl Serialize,
) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    write(&mut out, schema, common, snapshot, warnings, content)?;
    std::io::Write::flush(&mut out)?;
    Ok(())
}

/// Writes `content` in the envelope of `snapshot`, with what must be known of both.
///
/// # Errors
/// When `out` fails.
pub fn write(
    out: &mut dyn std::io::Write,
    schema: &str,
    common: &Common,
    snapshot: &Snapshot,
    warnings: &[String],
    content: impl Serialize,
) -> Result<(), Failure> {
    let tail = Tail {
        complete: snapshot.coverage.complete(),
        warnings,
        namespaces: &snapshot.namespaces,
    };
    let envelope = Envelope {
        head: source::head(schema, common, snapshot),
        tail,
    };
    let mut out = out;
    json::write_document(&mut out, &Document { envelope, content })?;
    Ok(())
}
