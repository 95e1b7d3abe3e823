//! What a command that looks again and again leaves to later runs.

use std::time::{Duration, Instant};

use super::{Args, Kept, Memory, Seen, values, view};
use crate::analyze::Settings;
use crate::cli::args::{Common, Select};
use crate::history::store::Producer;
use crate::history::{History, Sample, Tally};
use crate::model::{Analysis, Snapshot};

/// No more than this is written: a look in so much time.
const EVERY: Duration = Duration::from_secs(10);

/// How long after a failure to open the history another try is made.
const AGAIN: Duration = Duration::from_secs(60);

/// How long others who write are waited for: somebody waits for the next look.
const PATIENCE: Duration = Duration::from_millis(200);

/// A look that is to be written once there is time for it.
struct Entry {
    snapshot: Snapshot,
    analysis: Analysis,
    values: Vec<(String, f64)>,
}

/// The history as one keeps it who looks again and again.
pub struct Diary {
    args: Args,
    common: Common,
    memory: Memory,
    producer: Producer,
    /// when the history was last opened, or tried to be
    opened: Instant,
    /// when something was written last
    written: Option<Instant>,
    entry: Option<Entry>,
    /// for which detectors it looks
    settings: Settings,
    /// whether findings are judged by limits of its own
    apart: bool,
    /// looks so far
    looks: u64,
    /// what is wrong with the history
    notes: Vec<String>,
}

impl Diary {
    /// Opens the history.
    pub fn open(
        args: &Args,
        common: &Common,
        producer: Producer,
        (select, settings): (&Select, &Settings),
    ) -> Self {
        let mut memory = Memory::open(args, common, PATIENCE);
        let notes = said(&mut memory);
        Self {
            args: args.clone(),
            common: common.clone(),
            memory,
            producer,
            opened: Instant::now(),
            written: None,
            entry: None,
            settings: settings.clone(),
            apart: !select.threshold.is_empty() || !select.expect_listener.is_empty(),
            looks: 0,
            notes,
        }
    }

    /// What was seen by others where and before `snapshot` was taken, which is the first look.
    pub fn recall(&mut self, snapshot: &Snapshot) -> History {
        self.memory.recall(snapshot, &self.settings)
    }

    /// What is wrong with the history, which stops nobody.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Takes a look, if it is time to keep one. Nothing is written yet: whoever waits for the look comes first. The first
    /// look is not kept: it may be judged by counters of long ago.
    pub fn take(
        &mut self,
        snapshot: &Snapshot,
        tally: &Tally,
        analysis: &Analysis,
        sample: &Sample,
    ) {
        self.looks += 1;
        let due = self
            .written
            .is_none_or(|written| written.elapsed() >= EVERY);
        let lost = !self.memory.is_writable();
        if self.looks == 1 || !due || lost && self.opened.elapsed() < AGAIN {
            return;
        }
        self.memory.take(sample.clone());
        self.entry = Some(Entry {
            values: values(Seen {
                snapshot,
                tally,
                analysis,
            }),
            // Rows are not kept.
            snapshot: Snapshot {
                taken: snapshot.taken,
                host: snapshot.host.clone(),
                coverage: snapshot.coverage.clone(),
                ..Snapshot::default()
            },
            analysis: analysis.clone(),
        });
    }

    /// Writes what was taken.
    pub fn write(&mut self) {
        let Some(entry) = self.entry.take() else {
            return;
        };
        if !self.memory.is_writable() {
            let look = self.memory.look.take();
            self.memory = Memory::open(&self.args, &self.common, PATIENCE);
            self.memory.look = look;
            self.opened = Instant::now();
        }
        let kept = Kept {
            values: &entry.values,
            look: true,
            view: view(&self.settings),
            apart: self.apart,
            ..Kept::default()
        };
        let seen = Seen {
            snapshot: &entry.snapshot,
            tally: &Tally::default(),
            analysis: &entry.analysis,
        };
        let _ = self.memory.keep(self.producer, seen, kept);
        self.notes = said(&mut self.memory);
        self.written = Some(Instant::now());
    }
}

fn said(memory: &mut Memory) -> Vec<String> {
    let mut notes = memory.aside();
    notes.extend(memory.messages());
    notes
}
