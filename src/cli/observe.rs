//! Looks at a source as often as asked, and has it judged.

use std::time::Duration;

use super::args::{Common, Select};
use super::failure::Failure;
use super::remember::Memory;
use super::{config, everywhere, source};
use crate::analyze::{self, Settings};
use crate::collect::{self, Also, Source, Want};
use crate::history::{History, Sample, Tally, top};
use crate::model::{Analysis, Namespace, Snapshot, StateSet, Story, Top, stories};

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
    /// of a recorded sequence so many of the last looks only
    pub recorded: Option<u32>,
}

impl Plan {
    /// How many whole looks there are, at least one.
    pub fn looks(&self) -> u32 {
        self.samples.max(1)
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Observation {
    /// the last whole look; of several namespaces what is known of all together, without rows
    pub snapshot: Snapshot,
    /// its counts
    pub tally: Tally,
    /// what the detectors say
    pub analysis: Analysis,
    /// the looks into each of several namespaces; none where there is one only
    pub parts: Vec<Part>,
}

/// A look into one of several namespaces.
#[derive(Debug)]
pub struct Part {
    /// which
    pub namespace: Namespace,
    /// the look
    pub seen: Observation,
}

/// A story with the look that it is about.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// the finding and what follows from it
    pub story: Story<'a>,
    /// where its rows are
    pub snapshot: &'a Snapshot,
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

    /// The findings, what follows under its cause, the worst first.
    pub fn told(&self) -> Vec<Told<'_>> {
        if self.parts.is_empty() {
            let all = stories(&self.analysis.findings).into_iter();
            let snapshot = &self.snapshot;
            return all.map(|story| Told { story, snapshot }).collect();
        }
        let mut told: Vec<Told<'_>> = Vec::new();
        for part in &self.parts {
            for story in stories(&part.seen.analysis.findings) {
                told.push(Told {
                    story: story.within(&part.namespace),
                    snapshot: &part.seen.snapshot,
                });
            }
        }
        told.sort_by_key(|told| std::cmp::Reverse(told.story.severity()));
        told
    }

    /// Who holds most, everywhere.
    pub fn top(&self, n: usize) -> Top<'_> {
        if self.parts.is_empty() {
            return top(&self.snapshot, &self.tally, n);
        }
        let tops = self.parts.iter();
        let mut all = Top::default();
        for each in tops.map(|part| top(&part.seen.snapshot, &part.seen.tally, usize::MAX)) {
            all.add(each);
        }
        all.first(n);
        all
    }
}

/// Opens what the options name, looks and judges.
///
/// # Errors
/// When the sockets cannot be read.
pub fn look(common: &Common, plan: Plan, settings: &Settings) -> Result<Observation, Failure> {
    look_again(common, plan, settings, &mut Memory::default())
}

/// As [`look`], by what runs before this one have seen too; the memory takes the look for those after it.
///
/// # Errors
/// When the sockets cannot be read.
pub fn look_again(
    common: &Common,
    plan: Plan,
    settings: &Settings,
    memory: &mut Memory,
) -> Result<Observation, Failure> {
    if source::is_all(common) {
        return everywhere::look(common, plan, settings);
    }
    let mut machine = source::open(common)?;
    let machine = machine.as_mut();
    let mut watch = Watch::new(plan, settings).remembering(memory);
    let looks = if machine.is_capture() {
        let last = plan.recorded.map_or(usize::MAX, |last| last as usize);
        replay(&mut watch, machine, last)?;
        0
    } else {
        plan.looks()
    };
    for left in (0..looks).rev() {
        watch.look(machine, left == 0)?;
        if left > 0 {
            machine.advance(plan.interval);
        }
    }
    // A capture brings its second look with it, and nobody waits for that.
    if analyze::needs(settings).deltas
        && (plan.pulse || machine.is_capture())
        && machine.advance(plan.interval)
    {
        watch.pulse(machine);
    }
    watch.finish()
}

/// Looks at everything whole that is recorded, or at the `last` so many looks, one after the other.
fn replay(watch: &mut Watch<'_>, source: &mut dyn Source, last: usize) -> Result<(), Failure> {
    let looks = source.looks();
    for at in looks.saturating_sub(last.max(1))..looks {
        source.seek(at)?;
        watch.look(source, at + 1 == looks)?;
    }
    Ok(())
}

/// A look, judged by those before it.
pub struct Judged {
    /// its counts
    pub tally: Tally,
    /// its reduction, by which later looks are judged once it is pushed into the history
    pub sample: Sample,
    /// what the detectors say
    pub analysis: Analysis,
}

impl Judged {
    /// Judges one of many looks.
    pub fn new(snapshot: &Snapshot, history: &mut History, settings: &Settings) -> Self {
        // The same frame may be read again, for more of it.
        history.forget_since(snapshot.taken);
        let tally = Tally::new(snapshot);
        let mut sample = Sample::new(snapshot, &tally);
        let analysis = analyze::run(snapshot, &tally, &sample, history, settings);
        sample.marks = analyze::marks(&analysis);
        Self {
            tally,
            sample,
            analysis,
        }
    }
}

/// What is remembered of one source from look to look.
pub struct Watch<'s> {
    plan: Plan,
    settings: &'s Settings,
    history: History,
    memory: Option<&'s mut Memory>,
    last: Option<Last>,
}

/// The last whole look.
struct Last {
    snapshot: Snapshot,
    tally: Tally,
    sample: Sample,
    /// what the detectors say, once they were asked
    analysis: Option<Analysis>,
}

impl Last {
    /// Asks the detectors, unless they have said already.
    fn judged(&mut self, history: &History, settings: &Settings) -> &mut Analysis {
        self.analysis.get_or_insert_with(|| {
            analyze::run(&self.snapshot, &self.tally, &self.sample, history, settings)
        })
    }
}

impl<'s> Watch<'s> {
    /// Nothing was seen yet.
    pub fn new(plan: Plan, settings: &'s Settings) -> Self {
        Self {
            plan,
            settings,
            history: History::default(),
            memory: None,
            last: None,
        }
    }

    /// The same, with what `memory` knows, if it knows anything.
    #[must_use]
    pub fn remembering(mut self, memory: &'s mut Memory) -> Self {
        self.memory = memory.is_kept().then_some(memory);
        self
    }

    fn also(&self) -> Also {
        let needs = analyze::needs(self.settings);
        Also {
            owners: self.plan.owners,
            udp: needs.udp,
            unix: needs.unix,
            unlisted: needs.unlisted,
        }
    }

    /// A whole look.
    ///
    /// # Errors
    /// When the sockets cannot be read.
    pub fn look(&mut self, source: &mut dyn Source, last: bool) -> Result<(), collect::Error> {
        let needs = analyze::needs(self.settings);
        let want = Want {
            tcp_info: needs.tcp_info,
            memory: needs.drops,
            ..Want::states(StateSet::ALL)
        };
        let first = self.last.is_none();
        if let Some(mut last) = self.last.take() {
            let analysis = last.judged(&self.history, self.settings);
            last.sample.marks = analyze::marks(analysis);
            self.history.push(last.sample);
        }
        let snapshot = collect::snapshot(source, &want, self.also())?;
        let tally = Tally::new(&snapshot);
        if let Some(memory) = self.memory.as_mut().filter(|_| first) {
            self.history = memory.recall(&snapshot, self.settings);
        }
        // What another look finds again has to be remembered, and found again in the last one.
        let alone = self.memory.is_none() && self.history.earlier().is_empty();
        let sample = if last && alone {
            Sample::alone(&snapshot, &tally)
        } else {
            Sample::new(&snapshot, &tally)
        };
        self.last = Some(Last {
            snapshot,
            tally,
            sample,
            analysis: None,
        });
        Ok(())
    }

    /// A light look behind the last whole one.
    pub fn pulse(&mut self, source: &mut dyn Source) {
        let also = self.also();
        let Some(Last {
            snapshot, analysis, ..
        }) = &mut self.last
        else {
            return;
        };
        *analysis = None;
        let cgroups = collect::cgroups(&snapshot.owners);
        match collect::pulse(source, also, &cgroups) {
            Ok(pulse) => self.history.set_pulse(pulse),
            // What the first look saw stands.
            Err(error) => snapshot
                .coverage
                .missing
                .push(format!("the second look: {error}")),
        }
    }

    /// What came of it.
    ///
    /// # Errors
    /// If there was no look.
    pub fn finish(mut self) -> Result<Observation, Failure> {
        let Some(mut last) = self.last.take() else {
            return Err(Failure::failed("nothing was looked at", None));
        };
        let analysis = std::mem::take(last.judged(&self.history, self.settings));
        if let Some(memory) = self.memory {
            last.sample.marks = analyze::marks(&analysis);
            memory.take(last.sample);
        }
        Ok(Observation {
            snapshot: last.snapshot,
            tally: last.tally,
            analysis,
            parts: Vec::new(),
        })
    }
}
