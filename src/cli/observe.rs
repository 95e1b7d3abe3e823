//! Looks at a source as often as asked, and has it judged.

use std::time::Duration;

use super::args::{Common, Select};
use super::config;
use super::failure::Failure;
use crate::analyze::{self, Settings};
use crate::collect::{self, Also, Source, Want};
use crate::history::{History, Sample, Tally};
use crate::model::{Analysis, Snapshot, StateSet};

/// How often to look.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// whole looks
    pub samples: u32,
    /// the time between two looks
    pub interval: Duration,
    /// a light look at counters and listeners after the last whole one
    pub pulse: bool,
    /// who holds the sockets
    pub owners: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Observation {
    /// the last whole look
    pub snapshot: Snapshot,
    /// its counts
    pub tally: Tally,
    /// what the detectors say
    pub analysis: Analysis,
}

/// The settings of the configuration and of the options, which win.
///
/// # Errors
/// For an unknown finding, key or value, or a configuration that cannot be read.
pub fn settings(select: &Select, common: &Common) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    config::read(common.config.as_deref(), &mut settings)?;
    settings.only(&select.only)?;
    settings.skip(&select.skip)?;
    for threshold in &select.threshold {
        settings.set(threshold)?;
    }
    for listener in &select.expect_listener {
        settings.expect(listener)?;
    }
    if settings.is_empty() {
        return Err(Failure::usage(
            "--only and --skip, or only and skip of the configuration, leave no finding to look for"
                .to_owned(),
            "take one of them back".to_owned(),
        ));
    }
    Ok(settings)
}

impl Observation {
    /// Everything that whoever reads the findings must know of them.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.snapshot.coverage.warnings();
        warnings.extend_from_slice(&self.analysis.warnings);
        warnings
    }
}

/// Looks and judges.
///
/// # Errors
/// When the sockets cannot be read.
pub fn observe(
    source: &mut dyn Source,
    plan: Plan,
    settings: &Settings,
) -> Result<Observation, Failure> {
    let needs = analyze::needs(settings);
    let want = Want {
        tcp_info: needs.tcp_info,
        memory: needs.drops,
        ..Want::states(StateSet::ALL)
    };
    let also = |owners| Also {
        owners,
        udp: needs.udp,
        unix: needs.unix,
        unlisted: needs.unlisted,
    };
    let mut history = History::default();
    // A capture holds one whole look, and its second one is a light one.
    let mut left = if source.is_capture() {
        1
    } else {
        plan.samples.max(1)
    };
    let (mut snapshot, tally, sample) = loop {
        left -= 1;
        let last = left == 0;
        let snapshot = collect::snapshot(source, &want, also(plan.owners))?;
        let tally = Tally::new(&snapshot);
        // What another look finds again has to be remembered, and found again in the last one.
        let mut sample = if last && history.earlier().is_empty() {
            Sample::alone(&snapshot, &tally)
        } else {
            Sample::new(&snapshot, &tally)
        };
        if last {
            break (snapshot, tally, sample);
        }
        let analysis = analyze::run(&snapshot, &tally, &sample, &history, settings);
        sample.marks = analyze::marks(&analysis);
        history.push(sample);
        source.advance(plan.interval);
    };
    // A capture brings its second look with it, and nobody waits for that.
    if needs.deltas && (plan.pulse || source.is_capture()) && source.advance(plan.interval) {
        let cgroups = collect::cgroups(&snapshot.owners);
        match collect::pulse(source, also(plan.owners), &cgroups) {
            Ok(pulse) => history.set_pulse(pulse),
            // What the first look saw stands.
            Err(error) => snapshot
                .coverage
                .missing
                .push(format!("the second look: {error}")),
        }
    }
    let analysis = analyze::run(&snapshot, &tally, &sample, &history, settings);
    Ok(Observation {
        snapshot,
        tally,
        analysis,
    })
}
