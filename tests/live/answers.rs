//! linger's JSON, as far as the tests depend on it, and what holds for every answer.

use std::net::IpAddr;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::world::World;

/// A socket of `linger.sockets/1`.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    pub protocol: String,
    pub family: String,
    pub state: String,
    pub local_address: IpAddr,
    pub local_port: u16,
    pub peer_address: IpAddr,
    pub peer_port: u16,
    pub recv_q: u64,
    /// `/proc` does not know it of a listener
    pub send_q: Option<u64>,
    pub uid: Option<u32>,
    pub inode: Option<u64>,
    pub cookie: Option<String>,
    pub timer: Option<TimerOfRow>,
    pub owners: Option<Vec<Owner>>,
    pub state_age_ms: Option<u64>,
    pub state_age_max_ms: Option<u64>,
    pub tcp_info: Option<Value>,
    pub waiting_on: Option<String>,
}

/// A socket's timer.
#[derive(Clone, Debug, Deserialize)]
pub struct TimerOfRow {
    pub name: String,
    pub expires_ms: u64,
    pub retransmits: u64,
}

/// Who holds a socket.
#[derive(Clone, Debug, Deserialize)]
pub struct Owner {
    pub pid: u32,
    pub comm: String,
    pub fd: u32,
}

impl Row {
    /// Whether some descriptor refers to the socket; the kernel shows inode 0 where none does.
    pub fn is_held(&self) -> bool {
        self.inode.is_some_and(|inode| inode != 0)
    }

    /// The name of the timer that runs.
    pub fn timer_name(&self) -> Option<&str> {
        self.timer.as_ref().map(|timer| timer.name.as_str())
    }
}

/// How bad, mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

/// A finding of `linger.findings/1`.
#[derive(Clone, Debug, Deserialize)]
pub struct Finding {
    pub id: String,
    pub variant: Option<String>,
    pub severity: Severity,
    pub title: String,
    pub subject: Subject,
    pub evidence: Vec<Evidence>,
    pub explanation: String,
    pub who_must_act: String,
    pub advice: Vec<String>,
    #[serde(default)]
    pub sockets: Vec<Row>,
    pub caused_by: Option<String>,
    #[serde(default)]
    pub grounds: Vec<String>,
}

/// What a finding is about.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Subject {
    pub kind: String,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
}

/// One measurement.
#[derive(Clone, Debug, Deserialize)]
pub struct Evidence {
    pub name: String,
    pub value: Value,
    pub source: String,
}

impl Finding {
    /// Whether something was measured to be within the bounds.
    pub fn measured(&self, least: usize, most: usize) -> bool {
        let mut values = self.evidence.iter().filter_map(|e| e.value.as_u64());
        values.any(|value| usize::try_from(value).is_ok_and(|n| (least..=most).contains(&n)))
    }

    /// What every finding owes its reader.
    fn defects(&self) -> Vec<&'static str> {
        let checks = [
            (self.title.is_empty(), "it has no title"),
            (
                self.title.chars().count() > 100,
                "its title is longer than 100 characters",
            ),
            (self.evidence.is_empty(), "it shows no evidence"),
            (
                self.evidence
                    .iter()
                    .any(|e| e.name.is_empty() || e.source.is_empty()),
                "its evidence has no name or no source",
            ),
            (self.explanation.is_empty(), "it explains nothing"),
            (self.advice.is_empty(), "it advises nothing"),
            (self.grounds.is_empty(), "it names no ground"),
            (self.sockets.len() > 10, "it lists more than 10 sockets"),
            (
                !matches!(
                    self.who_must_act.as_str(),
                    "this-program" | "peer" | "network" | "operator" | "nobody"
                ),
                "it names nobody known who must act",
            ),
        ];
        let failed = checks.into_iter().filter(|(fails, _)| *fails);
        failed.map(|(_, what)| what).collect()
    }
}

/// A check that could not be made.
#[derive(Clone, Debug, Deserialize)]
pub struct Unjudged {
    pub id: String,
    pub reason: String,
}

/// An answer of `linger diagnose --json`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Diagnosis {
    schema: String,
    pub verdict: String,
    pub findings: Vec<Finding>,
    pub quiet: Vec<String>,
    pub unknown: Vec<Unjudged>,
    /// There was no answer; that has been noted, and what follows from it need not be.
    #[serde(skip)]
    pub missing: bool,
}

impl Diagnosis {
    /// The findings of one detector.
    pub fn of<'a>(&'a self, id: &str) -> impl Iterator<Item = &'a Finding> {
        let id = id.to_owned();
        self.findings.iter().filter(move |found| found.id == id)
    }

    /// The worst finding of one detector.
    pub fn worst(&self, id: &str) -> Option<&Finding> {
        self.of(id).max_by_key(|found| found.severity)
    }

    /// One line, for a failure.
    pub fn in_short(&self) -> String {
        let found: Vec<String> = self
            .findings
            .iter()
            .map(|f| format!("{:?} {} {:?}: {}", f.severity, f.id, f.variant, f.title))
            .collect();
        format!(
            "verdict {}, found {found:?}, quiet {:?}, unknown {:?}",
            self.verdict, self.quiet, self.unknown
        )
    }
}

impl World {
    /// The sockets that `linger ARGUMENTS` lists; the arguments have to ask for JSON.
    pub fn rows(&self, arguments: &[&str]) -> Result<Vec<Row>> {
        let document = json(arguments, &self.linger(arguments)?).inspect_err(|_| self.look())?;
        ensure!(
            document.get("schema") == Some(&"linger.sockets/1".into()),
            "linger {}: schema is {:?}",
            arguments.join(" "),
            document.get("schema")
        );
        // Whether all owners are seen depends on the other processes of this machine.
        let with_owners = arguments.iter().any(|option| {
            option.starts_with('-') && !option.starts_with("--") && option.contains('p')
        });
        ensure!(
            document.get("complete") == Some(&true.into()) || with_owners,
            "linger {}: not complete: {:?}",
            arguments.join(" "),
            document.get("warnings")
        );
        let sockets = document.get("sockets").cloned().context("no sockets")?;
        Ok(serde_json::from_value(sockets)?)
    }

    /// Diagnoses near. Where that fails it is noted, and the answer is one about which nothing else is noted.
    pub fn diagnose(&self, arguments: &[&str]) -> Diagnosis {
        let arguments: Vec<&str> = [&["diagnose", "--json"], arguments].concat();
        let diagnosis = self
            .linger(&arguments)
            .and_then(|output| self.read_diagnosis(&arguments, &output));
        diagnosis.unwrap_or_else(|error| {
            self.problem(format!("{error:#}"));
            Diagnosis {
                missing: true,
                ..Diagnosis::default()
            }
        })
    }

    /// Reads a diagnosis and holds it to what all have in common.
    pub fn read_diagnosis(&self, arguments: &[&str], output: &Output) -> Result<Diagnosis> {
        let diagnosis: Diagnosis = serde_json::from_value(json(arguments, output)?)
            .with_context(|| format!("linger {}", arguments.join(" ")))?;
        ensure!(
            diagnosis.schema == "linger.findings/1",
            "schema is {}",
            diagnosis.schema
        );
        for found in &diagnosis.findings {
            for defect in found.defects() {
                self.problem(format!("{}: {defect}: {found:?}", found.id));
            }
            let also_quiet = diagnosis.quiet.contains(&found.id);
            self.expect(!also_quiet, || format!("{} is found and quiet", found.id));
        }
        let worst = diagnosis.findings.iter().map(|found| found.severity).max();
        let fits = match worst {
            Some(Severity::Critical) => diagnosis.verdict == "critical",
            Some(Severity::Warning) => diagnosis.verdict == "warning",
            Some(Severity::Info) | None => matches!(diagnosis.verdict.as_str(), "ok" | "unknown"),
        };
        self.expect(fits, || {
            format!(
                "the verdict is not the worst severity: {}",
                diagnosis.in_short()
            )
        });
        for unjudged in &diagnosis.unknown {
            self.expect(!unjudged.reason.is_empty(), || {
                format!("{}: cannot tell, and does not say why", unjudged.id)
            });
        }
        Ok(diagnosis)
    }

    /// Expects the detector to have found something of at least that severity, and answers with the worst of it.
    pub fn fires<'a>(
        &self,
        when: &str,
        diagnosis: &'a Diagnosis,
        id: &str,
        least: Severity,
    ) -> Option<&'a Finding> {
        let found = diagnosis.worst(id).filter(|found| found.severity >= least);
        self.expect(diagnosis.missing || found.is_some(), || {
            format!("{when}: {id} should be {least:?}; {}", diagnosis.in_short())
        });
        found
    }

    /// Expects the detector to have found nothing above info. Not being able to tell is no such answer.
    pub fn calm(&self, when: &str, diagnosis: &Diagnosis, id: &str) {
        let worst = diagnosis.worst(id).map(|found| found.severity);
        let judged = worst.is_some() || diagnosis.quiet.iter().any(|quiet| quiet == id);
        let calm = judged && worst.is_none_or(|severity| severity == Severity::Info);
        self.expect(diagnosis.missing || calm, || {
            format!(
                "{when}: {id} should find nothing above info; {}",
                diagnosis.in_short()
            )
        });
    }

    /// Expects the detector to have found nothing at all.
    pub fn quiet(&self, when: &str, diagnosis: &Diagnosis, id: &str) {
        let quiet = diagnosis.worst(id).is_none() && diagnosis.quiet.iter().any(|q| q == id);
        self.expect(diagnosis.missing || quiet, || {
            format!("{when}: {id} should be quiet; {}", diagnosis.in_short())
        });
    }

    /// Expects no detector to have found anything above info.
    pub fn all_calm(&self, when: &str, diagnosis: &Diagnosis) {
        let mut findings = diagnosis.findings.iter();
        let calm =
            findings.all(|found| found.severity == Severity::Info) && diagnosis.verdict == "ok";
        self.expect(diagnosis.missing || calm, || {
            format!(
                "{when}: nothing should be above info; {}",
                diagnosis.in_short()
            )
        });
    }
}

/// The one JSON document that a successful command printed, which fits its schema.
pub fn json(arguments: &[&str], output: &Output) -> Result<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "linger {}: {}: {}",
        arguments.join(" "),
        output.status,
        said.trim()
    );
    document(&output.stdout)
        .with_context(|| format!("linger {}; stderr: {}", arguments.join(" "), said.trim()))
}

/// The one document that was printed, by a command that failed too, which fits its schema.
pub fn document(printed: &[u8]) -> Result<Value> {
    let document = serde_json::from_slice(printed).with_context(|| {
        let begin = String::from_utf8_lossy(printed);
        format!("no JSON: {:?}", begin.chars().take(200).collect::<String>())
    })?;
    let faults = crate::schema::faults(&document);
    ensure!(faults.is_empty(), "it does not fit its schema: {faults:#?}");
    Ok(document)
}

/// The sockets of `list --output jsonl`, each of which fits the schema of one.
pub fn lines(printed: &[u8]) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    let lines = printed.split(|byte| *byte == b'\n');
    for line in lines.filter(|line| !line.is_empty()) {
        let row = serde_json::from_slice(line)?;
        let faults = crate::schema::against("linger.sockets.1.json#/$defs/socket", &row);
        ensure!(faults.is_empty(), "{row} does not fit: {faults:#?}");
        rows.push(row);
    }
    Ok(rows)
}
