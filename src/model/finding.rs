//! What a detector says: data, so that no renderer parses prose.

use std::net::IpAddr;

use serde::Serialize;

use super::namespace::Namespace;

/// How bad. One meaning for all detectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// worth knowing while diagnosing
    Info,
    /// a person should look today
    Warning,
    /// users are hurt now or will be within the hour
    Critical,
}

impl Severity {
    /// The name in JSON and, in upper case, on the screen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// One step worse.
    #[must_use]
    pub const fn higher(self) -> Self {
        match self {
            Self::Info => Self::Warning,
            Self::Warning | Self::Critical => Self::Critical,
        }
    }

    /// One step less bad: for what one look alone cannot prove.
    #[must_use]
    pub const fn lower(self) -> Self {
        match self {
            Self::Critical => Self::Warning,
            Self::Warning | Self::Info => Self::Info,
        }
    }
}

/// Whose move it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// the program that the finding names
    ThisProgram,
    /// the other end
    Peer,
    /// whatever lies between
    Network,
    /// the person who runs this host
    Operator,
    /// nobody: it ends by itself or is as it should be
    Nobody,
}

impl Actor {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ThisProgram => "this-program",
            Self::Peer => "peer",
            Self::Network => "network",
            Self::Operator => "operator",
            Self::Nobody => "nobody",
        }
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Subject {
    /// a program; without the privilege to see it, its uid
    Process {
        /// process id, where it could be seen
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<u32>,
        /// its name
        #[serde(skip_serializing_if = "Option::is_none")]
        comm: Option<String>,
        /// the uid of the sockets, where the process could not be seen
        #[serde(skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
        /// its systemd unit
        #[serde(skip_serializing_if = "Option::is_none")]
        unit: Option<String>,
        /// its container, as `docker:0123456789ab`
        #[serde(skip_serializing_if = "Option::is_none")]
        container: Option<String>,
    },
    /// a LISTEN socket
    Listener {
        /// where it listens
        address: IpAddr,
        /// on which port
        port: u16,
        /// who holds it
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<u32>,
        /// its name
        #[serde(skip_serializing_if = "Option::is_none")]
        comm: Option<String>,
        /// its systemd unit
        #[serde(skip_serializing_if = "Option::is_none")]
        unit: Option<String>,
        /// its container, as `docker:0123456789ab`
        #[serde(skip_serializing_if = "Option::is_none")]
        container: Option<String>,
    },
    /// a remote host
    Peer {
        /// its address
        address: IpAddr,
    },
    /// a remote address and port that this host dialled
    Destination {
        /// its address
        address: IpAddr,
        /// its port
        port: u16,
        /// the local address that was used, where it matters
        #[serde(skip_serializing_if = "Option::is_none")]
        source_address: Option<IpAddr>,
    },
    /// this host or network namespace
    Host,
}

/// A measured value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// a whole number
    Count(i64),
    /// a share, a rate
    Real(f64),
    /// a word
    Text(String),
    /// one value a second, the latest first
    Series(Vec<u32>),
}

/// What was measured, against which limit, and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// what it is
    pub name: &'static str,
    /// how much
    pub value: Value,
    /// of what: `sockets`, `s`, `%`, `1/min`, `bytes`; absent for words
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<&'static str>,
    /// the limit that it is held against
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// the kernel's field, file or sysctl
    pub source: &'static str,
}

impl Evidence {
    /// A whole number.
    pub fn count(
        name: &'static str,
        value: impl TryInto<i64>,
        unit: &'static str,
        source: &'static str,
    ) -> Self {
        let value = Value::Count(value.try_into().unwrap_or(i64::MAX));
        Self {
            name,
            value,
            unit: Some(unit),
            limit: None,
            source,
        }
    }

    /// A measure that is not whole.
    pub fn real(name: &'static str, value: f64, unit: &'static str, source: &'static str) -> Self {
        Self {
            name,
            value: Value::Real((value * 10.0).round() / 10.0),
            unit: Some(unit),
            limit: None,
            source,
        }
    }

    /// A word.
    pub fn text(name: &'static str, value: impl Into<String>, source: &'static str) -> Self {
        Self {
            name,
            value: Value::Text(value.into()),
            unit: None,
            limit: None,
            source,
        }
    }

    /// One value a second.
    pub fn series(
        name: &'static str,
        value: Vec<u32>,
        unit: &'static str,
        source: &'static str,
    ) -> Self {
        Self {
            name,
            value: Value::Series(value),
            unit: Some(unit),
            limit: None,
            source,
        }
    }

    /// The same with the limit that it is held against.
    #[must_use]
    pub fn limit(mut self, limit: impl Into<f64>) -> Self {
        self.limit = Some(limit.into());
        self
    }
}

/// Something that a detector found.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// the detector's id
    pub id: &'static str,
    /// which form of it, where the detector has several
    pub variant: Option<&'static str>,
    /// how bad
    pub severity: Severity,
    /// one line with subject, number and since when
    pub title: String,
    /// about what
    pub subject: Subject,
    /// the measurements
    pub evidence: Vec<Evidence>,
    /// what it means, at most three sentences
    pub explanation: String,
    /// what the explanation rests on: `TCP state in OS, CLOSE_WAIT`, `RFC 9293 section 3.6`
    pub grounds: Vec<&'static str>,
    /// whose move it is
    pub who_must_act: Actor,
    /// what to do: a command to paste first, what not to do last
    pub advice: Vec<String>,
    /// rows of the snapshot that show it, at most ten
    pub rows: Vec<u32>,
    /// the finding that this one follows from
    pub caused_by: Option<&'static str>,
    /// whether one look was all there was, so that it counts a step less
    pub one_sample: bool,
}

/// A question that stays open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// the detector
    pub id: &'static str,
    /// why it cannot tell
    pub reason: String,
}

/// A finding that the configuration says not to count, for a time and a reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Muted {
    /// what was found
    pub finding: Finding,
    /// why it is muted, in the words of whoever did it
    pub reason: String,
    /// the last day, of UTC, on which it is
    pub expires: jiff::civil::Date,
}

/// What all detectors together say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Analysis {
    /// everything that fired, roots before what follows from them, the worst first
    pub findings: Vec<Finding>,
    /// what fired and is muted: counted, and no part of the verdict
    pub muted: Vec<Muted>,
    /// what is wrong with the configuration by the day of the reading
    pub warnings: Vec<String>,
    /// detectors that looked and found nothing
    pub quiet: Vec<&'static str>,
    /// detectors that cannot tell
    pub unknown: Vec<Unknown>,
    /// whether the verdict rests on a table that was not seen whole, or lacks what was asked for by name
    pub inconclusive: bool,
}

/// The worst that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overall {
    /// nothing above info
    Ok,
    /// a person should look today
    Warning,
    /// users are hurt
    Critical,
    /// nothing found, but not everything that was asked for could be judged
    Unknown,
}

impl Overall {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }
}

impl Analysis {
    /// The questions that stay open, those with the same reason together, in the order in which they came.
    pub fn open(&self) -> Vec<(String, &str)> {
        let mut open: Vec<(String, &str)> = Vec::new();
        for unknown in &self.unknown {
            match open
                .iter_mut()
                .find(|(_, reason)| *reason == unknown.reason)
            {
                Some((ids, _)) => {
                    ids.push_str(", ");
                    ids.push_str(unknown.id);
                }
                None => open.push((unknown.id.to_owned(), &unknown.reason)),
            }
        }
        open
    }

    /// How many findings are muted, and how many of them would count: `2 (1 critical)`. `None` without any.
    pub fn muted_words(&self) -> Option<String> {
        let of = |severity| {
            let muted = self.muted.iter();
            muted
                .filter(|muted| muted.finding.severity == severity)
                .count()
        };
        let parts: Vec<String> = [Severity::Critical, Severity::Warning, Severity::Info]
            .into_iter()
            .filter(|severity| of(*severity) > 0)
            .map(|severity| format!("{} {}", of(severity), severity.name()))
            .collect();
        (!parts.is_empty()).then(|| format!("{} ({})", self.muted.len(), parts.join(", ")))
    }

    /// Whether anything at warning or above was found.
    pub fn alarms(&self) -> bool {
        let mut all = self.findings.iter();
        all.any(|finding| finding.severity > Severity::Info)
    }

    /// The verdict. What could not be judged is never OK, but it does not hide what was found.
    pub fn verdict(&self) -> Overall {
        match self.findings.iter().map(|finding| finding.severity).max() {
            Some(Severity::Critical) => Overall::Critical,
            Some(Severity::Warning) => Overall::Warning,
            Some(Severity::Info) | None if self.inconclusive => Overall::Unknown,
            Some(Severity::Info) | None => Overall::Ok,
        }
    }
}

/// A finding with those that follow from it, which are told under it.
#[derive(Clone, Copy, Debug)]
pub struct Story<'a> {
    /// the cause
    pub root: &'a Finding,
    /// what follows, in order
    pub follows: &'a [Finding],
    /// where it was found, if several namespaces were looked at
    pub namespace: Option<&'a Namespace>,
}

impl<'a> Story<'a> {
    /// The same as one of a namespace among several.
    #[must_use]
    pub const fn within(mut self, namespace: &'a Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// As bad as the worst of it.
    pub fn severity(&self) -> Severity {
        let follows = self.follows.iter().map(|finding| finding.severity);
        follows.fold(self.root.severity, Severity::max)
    }
}

/// The stories in findings that stand as an analysis orders them: consequences right behind their root. One whose
/// root is not among them is a story of its own.
pub fn stories(all: &[Finding]) -> Vec<Story<'_>> {
    let mut stories = Vec::new();
    let mut rest = all;
    while let Some((root, behind)) = rest.split_first() {
        let is_consequence = |finding: &Finding| {
            finding
                .caused_by
                .is_some_and(|id| all.iter().any(|other| other.id == id))
        };
        let count = behind
            .iter()
            .take_while(|finding| is_consequence(finding))
            .count();
        let (follows, others) = behind.split_at(count);
        stories.push(Story {
            root,
            follows,
            namespace: None,
        });
        rest = others;
    }
    stories
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_reason_leaves_open_is_said_once() {
        let unknown = |id, reason: &str| Unknown {
            id,
            reason: reason.to_owned(),
        };
        let analysis = Analysis {
            unknown: vec![
                unknown("a", "one look"),
                unknown("b", "no file"),
                unknown("c", "one look"),
            ],
            ..Analysis::default()
        };
        let open = analysis.open();
        assert_eq!(
            open,
            [("a, c".to_owned(), "one look"), ("b".to_owned(), "no file")]
        );
    }
}
