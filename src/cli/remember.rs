//! What a run knows of the runs before it, and leaves to those after it.

mod diary;

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueHint;
use jiff::Timestamp;

pub use self::diary::Diary;
use super::args::Common;
use super::failure::Failure;
use super::observe::Observation;
use super::{source, state_dir};
use crate::analyze::{self, Context, Settings, detectors, measures};
use crate::history::store::{
    Active, Error, Options, Place, Producer, Run, Series, Store, Transition,
};
use crate::history::{Count, History, Sample, Tally};
use crate::model::{AgeFacts, Analysis, Finding, Host, Snapshot, Subject, TcpState};

/// Earlier looks count for so long: afterwards sockets and processes have come and gone.
const REACH: Duration = Duration::from_secs(7200);

/// Where the history is.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "History")]
#[group(skip)]
pub struct Args {
    /// Where the history is kept [default: $STATE_DIRECTORY, else /var/lib/linger for root, else $XDG_STATE_HOME/linger]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// Read no history, and keep none
    #[arg(long, conflicts_with = "state_dir")]
    pub no_history: bool,
}

/// The history as a command has it: it may be missing, and nothing that it fails with stops anybody.
#[derive(Debug, Default)]
pub struct Memory {
    store: Option<Store>,
    /// whether nothing can be written to it
    read_only: bool,
    messages: Vec<String>,
    /// files that were set aside, and why
    aside: Vec<String>,
    age: Option<Duration>,
    /// the last look, once it was judged
    look: Option<Sample>,
}

/// The place that a look was taken at; `None` where it cannot be told from others.
pub fn place(host: &Host) -> Option<Place> {
    Some(Place {
        boot_id: host.boot_id.clone().filter(|id| !id.is_empty())?,
        netns: host.netns?,
    })
}

impl Memory {
    /// Opens the history, unless there is none to be used: of a capture, of all namespaces together, or where the user
    /// wants none.
    /// Waits no longer than `patience` for others who write to it.
    pub fn open(args: &Args, common: &Common, patience: Duration) -> Self {
        let mut memory = Self::default();
        if args.no_history || common.from.is_some() || source::is_all(common) {
            return memory;
        }
        let opened = state_dir::prepare(args.state_dir.as_deref()).map(|directory| {
            let opened = Store::open(
                &directory,
                Options {
                    patience,
                    ..Options::default()
                },
            );
            (directory, opened)
        });
        match opened {
            Ok((_, Ok((store, messages)))) => {
                memory.store = Some(store);
                memory.aside = messages;
            }
            Ok((directory, Err(error))) => {
                memory.failed(&error);
                // What others have kept can be read where nothing can be written.
                if matches!(error, Error::ReadOnly { .. }) {
                    memory.store = Store::open_to_read(&directory).ok().flatten();
                    memory.read_only = true;
                }
            }
            Err(Failure::Said { message, hint, .. }) => {
                let hint = hint.map_or(String::new(), |hint| format!(" ({hint})"));
                memory
                    .messages
                    .push(format!("{message}: nothing is remembered{hint}"));
            }
            Err(_) => {}
        }
        memory
    }

    /// Whether there is a history.
    pub const fn is_kept(&self) -> bool {
        self.store.is_some()
    }

    /// How long before the look the newest earlier one was taken that it is compared with; `None`: there was none.
    pub const fn age(&self) -> Option<Duration> {
        self.age
    }

    /// Whether something can be left to later runs.
    pub const fn is_writable(&self) -> bool {
        self.store.is_some() && !self.read_only
    }

    /// The files that were set aside since the last call: something is lost, which everybody has to hear.
    pub fn aside(&mut self) -> Vec<String> {
        std::mem::take(&mut self.aside)
    }

    /// What went wrong since the last call.
    pub fn messages(&mut self) -> Vec<String> {
        std::mem::take(&mut self.messages)
    }

    fn failed(&mut self, error: &Error) {
        let hint = error
            .hint()
            .map_or(String::new(), |hint| format!(" ({hint})"));
        self.messages.push(format!("{error}{hint}"));
    }

    /// What was seen where and before `snapshot` was taken, which is for the detectors of `settings`.
    pub fn recall(&mut self, snapshot: &Snapshot, settings: &Settings) -> History {
        let mut history = History::default();
        let Some(store) = &self.store else {
            return history;
        };
        let Some(place) = place(&snapshot.host) else {
            let message =
                "neither boot id nor network namespace can be told: nothing is remembered";
            self.messages.push(message.to_owned());
            self.store = None;
            return history;
        };
        let now = snapshot.taken;
        let since = now.checked_sub(REACH).unwrap_or(now);
        let read = store
            .samples(&place, since, view(settings))
            .and_then(|samples| Ok((samples, store.series("tcp.*", since, now, Some(&place))?)));
        let (mut samples, series) = match read {
            Ok(read) => read,
            Err(error) => {
                self.failed(&error);
                return history;
            }
        };
        // Others are of a clock that was set back.
        samples.retain(|sample| sample.taken < now);
        self.age = samples
            .last()
            .and_then(|last| Duration::try_from(now.duration_since(last.taken)).ok());
        history.recall(samples, counts(&series));
        history
    }

    /// Takes the look that was judged, for [`Memory::keep`].
    pub fn take(&mut self, look: Sample) {
        self.look = Some(look);
    }

    /// Leaves what was seen to later runs. Returns what has changed for who reads it; `None` where that is not known.
    pub fn keep(
        &mut self,
        producer: Producer,
        seen: Seen<'_>,
        kept: Kept<'_>,
    ) -> Option<Vec<Transition>> {
        let whole = kept.look && seen.snapshot.coverage.rows_complete();
        let mut look = self.look.take().filter(|_| whole);
        if let Some(look) = look.as_mut().filter(|_| kept.apart) {
            // What limits of its own have found confirms nothing for others.
            look.marks.clear();
        }
        let store = self.store.as_mut().filter(|_| !self.read_only)?;
        let place = place(&seen.snapshot.host)?;
        let findings: Vec<Active> = seen.analysis.findings.iter().map(active).collect();
        let coverage = &seen.snapshot.coverage;
        // What was not seen may be there all the same.
        let mut judged = match coverage.rows_complete() {
            true => judged(seen.analysis),
            false => Vec::new(),
        };
        judged.extend(kept.asked);
        let written = store.write(
            &place,
            &Run {
                taken: seen.snapshot.taken,
                producer,
                complete: coverage.complete(),
                values: kept.values,
                findings: &findings,
                judged: &judged,
                sample: look.as_ref(),
                view: kept.view,
                reader: kept.reader,
                own: kept.own,
                apart: kept.apart,
            },
        );
        self.aside.extend(store.messages());
        match written {
            Ok(changes) => Some(changes),
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }
}

/// A look that was judged.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// the rows
    pub snapshot: &'a Snapshot,
    /// their counts
    pub tally: &'a Tally,
    /// what the detectors say
    pub analysis: &'a Analysis,
}

impl<'a> From<&'a Observation> for Seen<'a> {
    fn from(seen: &'a Observation) -> Self {
        Self {
            snapshot: &seen.snapshot,
            tally: &seen.tally,
            analysis: &seen.analysis,
        }
    }
}

/// The view of looks for these settings: 0 if they hold all that later ones may be compared by, whoever takes those;
/// else a number for the detectors that are asked, which later looks for the same ones may be compared by.
pub fn view(settings: &Settings) -> u64 {
    if analyze::needs(settings) == analyze::needs(&Settings::default()) {
        return 0;
    }
    let asked = detectors::ALL
        .iter()
        .filter(|detector| settings.selects(detector));
    let ids: Vec<&str> = asked.map(|detector| detector.id).collect();
    rustc_hash::FxBuildHasher.hash_one(ids).max(1)
}

/// What is kept beside the findings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept<'a> {
    /// measures by name
    pub values: &'a [(String, f64)],
    /// whether the look is one that later ones may be compared with: detectors were asked
    pub look: bool,
    /// as of [`view`]
    pub view: u64,
    /// as [`Run::reader`]
    pub reader: u64,
    /// as [`Run::own`]
    pub own: &'a [Active],
    /// the ids in `own` that could be judged
    pub asked: &'a [&'a str],
    /// as [`Run::apart`]
    pub apart: bool,
}

/// The measures that are kept of a look.
pub fn values(seen: Seen<'_>) -> Vec<(String, f64)> {
    let context = Context {
        snapshot: seen.snapshot,
        tally: seen.tally,
        sample: &Sample::default(),
        history: &History::default(),
        ages: AgeFacts::new(&seen.snapshot.facts),
        expected: &[],
    };
    measures::kept(&context)
}

/// The sockets in each state, run by run.
fn counts(series: &[Series]) -> Vec<Count> {
    let mut runs: BTreeMap<Timestamp, [Option<u64>; TcpState::SHOWN.len()]> = BTreeMap::new();
    for series in series {
        let state = series.name.strip_prefix("tcp.").and_then(TcpState::parse);
        let Some(index) = state.and_then(TcpState::index) else {
            continue;
        };
        for point in &series.points {
            let states = runs.entry(point.taken).or_default();
            if let Some(count) = states.get_mut(index) {
                *count = Some(point.value as u64);
            }
        }
    }
    let runs = runs.into_iter();
    runs.map(|(taken, states)| Count { taken, states })
        .collect()
}

/// The detectors that could judge.
fn judged(analysis: &Analysis) -> Vec<&str> {
    let found = analysis.findings.iter().map(|finding| finding.id);
    let muted = analysis.muted.iter().map(|muted| muted.finding.id);
    let mut judged: Vec<&str> = found.chain(muted).collect();
    judged.extend(&analysis.quiet);
    judged.sort_unstable();
    judged.dedup();
    judged
}

fn active(finding: &Finding) -> Active {
    Active {
        id: finding.id.to_owned(),
        variant: finding.variant.map(str::to_owned),
        subject: subject_key(&finding.subject),
        severity: finding.severity,
        title: finding.title.clone(),
    }
}

/// What a finding is about, in words that stay the same while it lasts: a program that is started again has another
/// pid and the same name. Not yet safe to print.
pub fn subject_key(subject: &Subject) -> String {
    match subject {
        Subject::Process {
            comm: Some(comm), ..
        } => format!("process {comm}"),
        Subject::Process { uid: Some(uid), .. } => format!("uid {uid}"),
        Subject::Process { .. } => "process".to_owned(),
        Subject::Listener { address, port, .. } => {
            format!("listener {}", std::net::SocketAddr::new(*address, *port))
        }
        Subject::Peer { address } => format!("peer {address}"),
        Subject::Destination { address, port, .. } => {
            format!("destination {}", std::net::SocketAddr::new(*address, *port))
        }
        Subject::Host => "host".to_owned(),
    }
}

#[cfg(test)]
mod tests;
