//! What earlier runs left, and what this one leaves. The one place of the check that knows how history is kept.

use std::time::Duration;

use super::args::Args;
use super::judge::{Checked, Measured};
use crate::analyze::Settings;
use crate::cli::failure::Failure;
use crate::cli::remember::{Kept, Memory, values};
use crate::cli::source;
use crate::history::History;
use crate::history::store::{Active, Producer, Transition};
use crate::model::{Overall, Severity, Snapshot};

/// How long others who write to the history are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What stands for a check that cannot tell, among findings.
const BLIND: &str = "unknown";

/// The history of one place.
#[derive(Debug, Default)]
pub struct Past {
    memory: Memory,
    /// what went wrong with it, which stops nothing
    pub notes: Vec<String>,
    /// what is lost for good, which standard error has told already
    pub lost: Vec<String>,
}

impl Past {
    /// Opens it; where it cannot be read, nothing is known of earlier runs.
    ///
    /// # Errors
    /// When changes are asked for where there never is a history.
    pub fn open(args: &Args) -> Result<Self, Failure> {
        let never = [
            ("--no-history", args.past.no_history),
            ("--from", args.common.from.is_some()),
            ("--netns all", source::is_all(&args.common)),
        ];
        if let Some((option, _)) = never.iter().find(|(_, given)| *given && args.on_change) {
            return Err(Failure::usage(
                format!(
                    "--on-change compares with the run before, and with {option} none is remembered"
                ),
                "leave one of them out; --quiet prints what is wrong at every run".to_owned(),
            ));
        }
        // The answer comes first: others may write for as long as they like.
        let patience = PATIENCE.min(args.timeout / 5);
        let mut memory = Memory::open(&args.past, &args.common, patience);
        let notes = memory.messages();
        let mut past = Self {
            memory,
            notes,
            lost: Vec::new(),
        };
        past.aside();
        Ok(past)
    }

    /// Says on standard error what is lost for good, however little was asked for: cron sends it, schedulers pass it over.
    fn aside(&mut self) {
        let lost = self.memory.aside();
        source::notes(&lost);
        self.lost.extend(lost);
    }

    /// What a look remembers with.
    pub const fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// What earlier runs saw where `snapshot` was taken.
    pub fn history(&mut self, snapshot: &Snapshot) -> History {
        self.memory.recall(snapshot, &Settings::default())
    }

    /// How long ago the look was taken that this one is compared with.
    pub const fn age(&self) -> Option<Duration> {
        self.memory.age()
    }

    /// Keeps what this run saw, and says what has changed since the last one that asked the same; `None`: that is not known.
    pub fn keep(&mut self, args: &Args, checked: &Checked) -> Option<Vec<Transition>> {
        let narrowed = !args.filter.is_empty();
        let select = &args.select;
        let values = if narrowed {
            Vec::new()
        } else {
            values((&checked.seen).into())
        };
        let mut own: Vec<Active> = checked.measured.iter().filter_map(crossed).collect();
        if checked.status() == Overall::Unknown {
            own.push(blind(checked));
        }
        let told = checked.measured.iter();
        let known = told
            .filter(|one| one.status() != Overall::Unknown)
            .map(|one| one.limited.asked.label.as_str());
        let asked: Vec<&str> = known.chain([BLIND]).collect();
        let kept = Kept {
            values: &values,
            look: checked.judged,
            view: checked.view,
            reader: args.question(),
            own: &own,
            asked: &asked,
            apart: args.no_owners
                || !select.threshold.is_empty()
                || !select.expect_listener.is_empty(),
        };
        let changes = self
            .memory
            .keep(Producer::Check, (&checked.seen).into(), kept);
        self.notes.extend(self.memory.messages());
        self.aside();
        changes
    }
}

/// That a check cannot tell is news, too.
fn blind(checked: &Checked) -> Active {
    Active {
        id: BLIND.to_owned(),
        variant: None,
        subject: String::new(),
        severity: Severity::Warning,
        title: super::say::text(checked),
    }
}

/// A measure that is beyond its limits, as a finding is kept.
fn crossed(one: &Measured) -> Option<Active> {
    let severity = match one.status() {
        Overall::Critical => Severity::Critical,
        Overall::Warning => Severity::Warning,
        Overall::Ok | Overall::Unknown => return None,
    };
    Some(Active {
        id: one.limited.asked.label.clone(),
        variant: None,
        subject: String::new(),
        severity,
        title: super::say::words(one),
    })
}
