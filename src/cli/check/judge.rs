//! Looks, and holds what is seen against the limits.

use std::time::{Duration, Instant};

use super::args::{Args, Limited};
use super::narrow;
use super::past::Past;
use crate::analyze::measures::Reading;
use crate::analyze::{Context, Settings, detectors};
use crate::cli::failure::Failure;
use crate::cli::observe::{self, Observation, Plan};
use crate::cli::remember;
use crate::cli::source;
use crate::collect::{self, Also, Source, Want};
use crate::history::{History, Sample, Tally};
use crate::model::coverage::Coverage;
use crate::model::range::Range;
use crate::model::{AgeFacts, Analysis, Overall, Protocol, Snapshot, StateSet};

/// The time between the two looks at counters.
const INTERVAL: Duration = Duration::from_secs(1);

/// A measure that was taken.
#[derive(Debug)]
pub struct Measured {
    /// what was asked for, and its limits
    pub limited: Limited,
    /// what it says
    pub reading: Reading,
    /// that nothing has the name that is asked for
    pub nobody: Option<String>,
}

impl Measured {
    /// What its limits make of it. CRITICAL is tested first.
    pub fn status(&self) -> Overall {
        let value = match &self.reading {
            Reading::Missing(_) => return Overall::Critical,
            Reading::CannotTell(_) => return Overall::Unknown,
            Reading::Value(value) | Reading::Over(value, _) => *value,
        };
        let alerts = |range: &Option<Range>| range.as_ref().is_some_and(|r| r.alerts(value));
        if alerts(&self.limited.crit) {
            Overall::Critical
        } else if alerts(&self.limited.warn) {
            Overall::Warning
        } else {
            Overall::Ok
        }
    }

    /// The range that alerts.
    pub fn crossed(&self) -> Option<&Range> {
        match self.status() {
            Overall::Critical => self.limited.crit.as_ref(),
            Overall::Warning => self.limited.warn.as_ref(),
            Overall::Ok | Overall::Unknown => None,
        }
    }
}

/// Everything that a check has to say.
#[derive(Debug)]
pub struct Checked {
    /// what was seen, and what the detectors say of it
    pub seen: Observation,
    /// whether the detectors were asked
    pub judged: bool,
    /// for which detectors the look was taken, as of [`remember::view`]
    pub view: u64,
    /// why the findings alone are UNKNOWN, if they are
    pub unjudged: Option<String>,
    /// the measures, in the order in which they were asked for
    pub measured: Vec<Measured>,
    /// how long it took
    pub took: Duration,
}

/// How bad, with UNKNOWN between WARNING and OK: what was found counts more than what was not, and that more than nothing.
pub const fn rank(overall: Overall) -> u8 {
    match overall {
        Overall::Critical => 3,
        Overall::Warning => 2,
        Overall::Unknown => 1,
        Overall::Ok => 0,
    }
}

impl Checked {
    /// The worst of all.
    pub fn status(&self) -> Overall {
        let measured = self.measured.iter().map(Measured::status);
        measured
            .chain([self.findings()])
            .max_by_key(|status| rank(*status))
            .unwrap_or(Overall::Unknown)
    }

    /// What the findings make.
    fn findings(&self) -> Overall {
        match self.seen.analysis.verdict() {
            found @ (Overall::Critical | Overall::Warning) => found,
            _ if self.unjudged.is_some() => Overall::Unknown,
            _ => Overall::Ok,
        }
    }

    /// A sentence for each gap, for each measure of a name that nothing has, and what is wrong with the configuration.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.seen.warnings();
        warnings.extend(self.measured.iter().filter_map(|one| one.nobody.clone()));
        warnings
    }
}

/// Looks and judges.
///
/// # Errors
/// For options that do not go together or are not understood, and when the sockets cannot be read.
pub fn judge(args: &Args, past: &mut Past) -> Result<Checked, Failure> {
    let begun = Instant::now();
    let limits = args.limits.bound()?;
    check(args, &limits)?;
    let settings = observe::settings(&args.select, &args.common)?;
    let judged = limits.is_empty() || !args.select.only.is_empty();
    let mut seen = None;
    if judged {
        let plan = Plan {
            samples: 1,
            // Who has less time than two looks take gets a shorter one.
            interval: INTERVAL.min(args.timeout / 4),
            pulse: args.samples != Some(1),
            owners: !args.no_owners,
            recorded: args.samples,
        };
        seen = Some(observe::look_again(
            &args.common,
            plan,
            &settings,
            past.memory(),
        )?);
    }
    let owners = limits.iter().any(|one| one.asked.measure.needs.owners);
    let (measured, own) = if args.filter.is_empty() {
        match &seen {
            Some(seen) => {
                let history = history(&limits, past, &seen.snapshot);
                (measure(limits, &seen.snapshot, &history, None), None)
            }
            None => {
                let own = look(args, owners)?;
                let history = history(&limits, past, &own);
                (measure(limits, &own, &history, None), Some(own))
            }
        }
    } else {
        let narrow::Narrowed { mut snapshot, open } = narrow::read(args, owners)?;
        // No measure that a FILTER narrows is one over time.
        let history = History::default();
        let measured = measure(limits, &snapshot, &history, open.as_deref());
        snapshot.coverage.missing.extend(open);
        (measured, Some(snapshot))
    };
    let seen = match (seen, own) {
        (Some(mut seen), Some(own)) => {
            seen.snapshot.coverage.missing.extend(own.coverage.missing);
            seen
        }
        (Some(seen), None) => seen,
        (None, own) => observed(own.unwrap_or_default()),
    };
    Ok(Checked {
        unjudged: judged.then(|| unjudged(&seen, &settings)).flatten(),
        view: remember::view(&settings),
        seen,
        judged,
        measured,
        took: begun.elapsed(),
    })
}

/// What earlier runs saw, if a measure is over time.
fn history(limits: &[Limited], past: &mut Past, snapshot: &Snapshot) -> History {
    let over_time = limits.iter().any(|one| one.asked.measure.history);
    let mut history = History::default();
    if over_time {
        history = past.history(snapshot);
    }
    history
}

/// That the options go together.
fn check(args: &Args, limits: &[Limited]) -> Result<(), Failure> {
    let usage = |message: String, hint: &str| Err(Failure::usage(message, hint.to_owned()));
    if limits.is_empty() {
        if !args.filter.is_empty() {
            return usage(
                format!(
                    "FILTER '{}' narrows metrics, and there is no --metric",
                    args.filter.join(" ")
                ),
                "for example: --metric tcp.close-wait -w 50 sport = :443",
            );
        }
        return Ok(());
    }
    if args.select.only.is_empty() {
        let idle = [
            ("--skip", args.select.skip.is_empty()),
            ("--threshold", args.select.threshold.is_empty()),
            ("--expect-listener", args.select.expect_listener.is_empty()),
        ];
        if let Some((option, _)) = idle.iter().find(|(_, empty)| !empty) {
            return usage(
                format!("{option} is about findings, and with --metric none is judged"),
                "--only FINDING,... asks for findings too",
            );
        }
    }
    let stiff = limits.iter().find(|one| !one.asked.measure.narrows);
    if let Some(one) = stiff.filter(|_| !args.filter.is_empty()) {
        return usage(
            format!(
                "--metric {} is not of some sockets only, and there is a FILTER",
                one.asked.label
            ),
            "a FILTER narrows tcp.STATE, tcp.total, closes.rate, and STATE and total of process[COMM] and unit[UNIT]",
        );
    }
    let owned = limits.iter().find(|one| one.asked.measure.needs.owners);
    if let Some(one) = owned.filter(|_| args.no_owners) {
        return usage(
            format!(
                "--no-owners leaves open what --metric {} asks",
                one.asked.label
            ),
            "leave one of them out",
        );
    }
    source::only_one(&args.common, "a metric is")
}

/// The machine, or the last look of a capture.
///
/// # Errors
/// As [`source::open`].
pub fn open(args: &Args) -> Result<Box<dyn Source>, Failure> {
    let mut machine = source::open(&args.common)?;
    let last = machine.looks().checked_sub(1);
    if let Some(last) = last.filter(|_| machine.is_capture()) {
        machine.seek(last)?;
    }
    Ok(machine)
}

/// One look without detectors.
fn look(args: &Args, owners: bool) -> Result<Snapshot, Failure> {
    let mut machine = open(args)?;
    let machine = machine.as_mut();
    let also = Also {
        owners,
        ..Also::default()
    };
    let want = Want::states(StateSet::ALL);
    Ok(collect::snapshot(machine, &want, also)?)
}

fn observed(snapshot: Snapshot) -> Observation {
    Observation {
        tally: Tally::new(&snapshot),
        snapshot,
        analysis: Analysis::default(),
        parts: Vec::new(),
    }
}

fn measure(
    limits: Vec<Limited>,
    snapshot: &Snapshot,
    history: &History,
    open: Option<&str>,
) -> Vec<Measured> {
    if limits.is_empty() {
        return Vec::new();
    }
    let tally = Tally::new(snapshot);
    let sample = Sample::alone(snapshot, &tally);
    let context = Context {
        snapshot,
        tally: &tally,
        sample: &sample,
        history,
        ages: AgeFacts::new(&snapshot.facts),
        expected: &[],
    };
    let taken = limits.into_iter().map(|limited| {
        let reading = match open {
            Some(open) => Reading::CannotTell(open.to_owned()),
            None => limited.asked.read(&context),
        };
        Measured {
            nobody: limited
                .asked
                .nobody(&context)
                .filter(|_| reading == Reading::Value(0.0)),
            limited,
            reading,
        }
    });
    taken.collect()
}

/// Why the findings say nothing: none of them could be judged, or one that was asked for by name could not, or the table
/// of TCP was not seen whole.
fn unjudged(seen: &Observation, settings: &Settings) -> Option<String> {
    let analysis = &seen.analysis;
    // Of many namespaces one that cannot be entered hides no other; each has to be seen whole by itself.
    let looks = seen.parts.iter().map(|part| &part.seen.snapshot);
    let alone = seen.parts.is_empty().then_some(&seen.snapshot);
    if let Some(gap) = looks.chain(alone).find_map(|look| gap(&look.coverage)) {
        return Some(gap);
    }
    let named = |id: &str| detectors::find(id).is_some_and(|detector| settings.names(detector));
    if let Some(unknown) = analysis.unknown.iter().find(|unknown| named(unknown.id)) {
        return Some(format!("{}: cannot tell: {}", unknown.id, unknown.reason));
    }
    let silent =
        analysis.quiet.is_empty() && analysis.findings.is_empty() && analysis.muted.is_empty();
    silent.then(|| {
        let why = analysis.unknown.first().map(|unknown| &unknown.reason);
        format!(
            "nothing could be judged{}",
            why.map_or(String::new(), |why| format!(": {why}"))
        )
    })
}

/// What is missing of the table of TCP. Where other protocols could not be read, their checks say so themselves.
fn gap(coverage: &Coverage) -> Option<String> {
    if let Some(part) = coverage.gap(Protocol::Tcp) {
        return Some(format!("not everything could be read: {part}"));
    }
    if coverage.lost > 0 {
        return Some("the socket table was not read whole: receive buffers were lost".to_owned());
    }
    (coverage.unsure != StateSet::EMPTY)
        .then(|| "it is not known which states of sockets were asked for".to_owned())
}
