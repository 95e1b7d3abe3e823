//! What a command that looks again and again leaves to later runs.

use std::time::{Duration, Instant};

use super::{Args, Kept, Memory, Seen, values};
use crate::cli::args::Common;
use crate::history::store::Producer;
use crate::history::{History, Sample, Tally};
use crate::model::{Analysis, Snapshot};

/// No more than this is written: a look in so much time.
const EVERY: Duration = Duration::from_secs(10);

/// A look that is to be written once there is time for it.
struct Entry {
    snapshot: Snapshot,
    tally: Tally,
    analysis: Analysis,
    values: Vec<(String, f64)>,
}

/// The history as one keeps it who looks again and again.
pub struct Diary {
    memory: Memory,
    producer: Producer,
    /// when something was written last
    written: Option<Instant>,
    entry: Option<Entry>,
    /// whether all detectors are asked, so that later looks may be compared with these
    whole: bool,
    /// whether they are asked with limits of its own
    apart: bool,
    /// what went wrong the last time that something was written
    notes: Vec<String>,
}

impl Diary {
    /// Opens the history.
    pub fn open(
        args: &Args,
        common: &Common,
        producer: Producer,
        select: &crate::cli::args::Select,
    ) -> Self {
        let mut memory = Memory::open(args, common);
        let notes = memory.messages();
        Self {
            memory,
            producer,
            written: None,
            entry: None,
            whole: select.only.is_empty() && select.skip.is_empty(),
            apart: !select.threshold.is_empty(),
            notes,
        }
    }

    /// What was seen by others where and before `snapshot` was taken, which is the first look.
    pub fn recall(&mut self, snapshot: &Snapshot) -> History {
        self.memory.recall(snapshot)
    }

    /// What went wrong, which stops nobody.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Takes a look, if it is time to keep one. Nothing is written yet: whoever waits for the look comes first.
    pub fn take(
        &mut self,
        snapshot: &Snapshot,
        tally: &Tally,
        analysis: &Analysis,
        sample: &Sample,
    ) {
        let due = self
            .written
            .is_none_or(|written| written.elapsed() >= EVERY);
        if !due || !self.memory.is_kept() {
            return;
        }
        let seen = Seen {
            snapshot,
            tally,
            analysis,
        };
        self.memory.take(sample.clone());
        self.entry = Some(Entry {
            values: values(seen),
            // Rows are not kept.
            snapshot: Snapshot {
                taken: snapshot.taken,
                host: snapshot.host.clone(),
                coverage: snapshot.coverage.clone(),
                ..Snapshot::default()
            },
            tally: Tally::default(),
            analysis: analysis.clone(),
        });
    }

    /// Writes what was taken.
    pub fn write(&mut self) {
        let Some(entry) = self.entry.take() else {
            return;
        };
        let kept = Kept {
            values: &entry.values,
            look: self.whole,
            apart: self.apart,
            ..Kept::default()
        };
        let seen = Seen {
            snapshot: &entry.snapshot,
            tally: &entry.tally,
            analysis: &entry.analysis,
        };
        let _ = self.memory.keep(self.producer, seen, kept);
        self.notes = self.memory.messages();
        self.written = Some(Instant::now());
    }
}
