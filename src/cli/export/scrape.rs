//! From the machine, or a capture, to metrics, again and again.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Args;
use super::figures::figures;
use crate::analyze::{self, Context, Settings, detectors};
use crate::cli::args::{Common, Select};
use crate::cli::failure::Failure;
use crate::cli::observe::{self, Judged, Plan};
use crate::cli::remember::{self, Diary, Kept, Memory, values};
use crate::cli::source;
use crate::collect::live::Live;
use crate::collect::{self, Also, Keep, Want};
use crate::history::store::Producer;
use crate::history::{History, Sample, Tally};
use crate::model::{AgeFacts, Analysis, Room, Snapshot, StateSet};
use crate::render::prometheus::{self, Seen};

/// How many sockets, processes and destinations all earlier looks together may remember: some megabytes.
const REMEMBERED: usize = 100_000;

/// What is younger judges no scrape, seconds: two Prometheus servers that scrape one after the other would else make the
/// second compare with a moment ago, and see nothing happen.
const APART: f64 = 5.0;

/// The time between two looks at counters, where there are only two.
const PULSE: Duration = Duration::from_secs(1);

/// What came of a scrape.
#[derive(Debug)]
pub struct Scraped {
    /// the metrics; of a failed scrape those that say so
    pub text: String,
    /// what a reader should know of them
    pub notes: Vec<String>,
    /// why nothing could be read
    pub failure: Option<Failure>,
}

/// What is to be looked at, and how.
#[derive(Clone, Debug)]
pub struct Setup {
    common: Common,
    settings: Settings,
    owners: bool,
    select: Select,
    past: remember::Args,
}

impl Setup {
    /// Understands the options.
    ///
    /// # Errors
    /// For findings, limits and configurations that there are not.
    pub fn new(args: &Args) -> Result<Self, Failure> {
        Ok(Self {
            common: args.common.clone(),
            settings: observe::settings(&args.select, &args.common)?,
            owners: !args.no_owners,
            select: args.select.clone(),
            past: args.past.clone(),
        })
    }

    /// Looks once, and a second later at the counters; of a capture at what it holds.
    pub fn once(&self) -> Scraped {
        let began = Instant::now();
        let plan = Plan {
            samples: 1,
            interval: PULSE,
            pulse: true,
            owners: self.owners,
            recorded: None,
        };
        let mut memory = Memory::open(&self.past, &self.common, Duration::from_secs(1));
        let seen = observe::look_again(&self.common, plan, &self.settings, &mut memory);
        let seen = seen.and_then(|seen| {
            let sample = Sample::default();
            let text = self.text(
                &seen.snapshot,
                (&seen.tally, &sample, &seen.analysis),
                began,
            )?;
            let kept = Kept {
                values: &values((&seen).into()),
                look: true,
                view: remember::view(&self.settings),
                apart: !self.select.threshold.is_empty() || !self.select.expect_listener.is_empty(),
                ..Kept::default()
            };
            let _ = memory.keep(Producer::Export, (&seen).into(), kept);
            let mut notes = seen.warnings();
            notes.extend(memory.aside());
            notes.extend(memory.messages());
            Ok((text, notes))
        });
        scraped(seen, began)
    }

    /// Sockets as detectors want them.
    fn snapshot(&self, live: &mut Live, room: Room) -> Result<Snapshot, collect::Error> {
        let needs = analyze::needs(&self.settings);
        let want = Want {
            tcp_info: needs.tcp_info,
            // Of listeners alone, whose drops are told.
            memory: true,
            ..Want::states(StateSet::ALL)
        };
        let also = Also {
            owners: self.owners,
            udp: needs.udp,
            unix: needs.unix,
            unlisted: needs.unlisted,
        };
        collect::snapshot_with(live, &want, also, Keep::default(), room)
    }

    fn text(
        &self,
        snapshot: &Snapshot,
        (tally, sample, analysis): (&Tally, &Sample, &Analysis),
        began: Instant,
    ) -> Result<String, Failure> {
        let context = Context {
            snapshot,
            tally,
            sample,
            history: &History::default(),
            ages: AgeFacts::new(&snapshot.facts),
            expected: self.settings.expected(),
        };
        let chosen = detectors::ALL.iter();
        let chosen = chosen.filter(|detector| self.settings.selects(detector));
        let seen = Seen {
            snapshot,
            listeners: &tally.listeners,
            analysis,
            detectors: &chosen.map(|detector| detector.id).collect::<Vec<_>>(),
            figures: figures(&context),
        };
        written(Some(&seen), began)
    }
}

/// The looks by which others are judged.
#[derive(Default)]
struct Looks {
    history: History,
    /// whether one of its own is among them
    own: bool,
    /// the last one that was kept, until it is old enough
    young: Option<Sample>,
}

impl Looks {
    /// Those by which a look at this time is judged. What was seen first judges the next one, however soon that comes.
    fn before(&mut self, taken: Timestamp) -> &mut History {
        let alone = !self.own;
        let old = |sample: &mut Sample| taken.duration_since(sample.taken).as_secs_f64() >= APART;
        if let Some(sample) = self.young.take_if(|sample| alone || old(sample)) {
            self.history.push(sample);
            self.own = true;
            self.history.bound(REMEMBERED);
        }
        &mut self.history
    }

    /// Keeps a look for later ones, unless there is one that is as good.
    fn keep(&mut self, sample: Sample) {
        self.young.get_or_insert(sample);
    }
}

/// Looks again and again, each time judged by the times before.
pub struct Scraper {
    setup: Setup,
    /// `None` where a capture is read
    machine: Option<Live>,
    looks: Looks,
    diary: Diary,
    /// what the last snapshot has left
    room: Room,
    /// whether nothing was looked at yet
    first: bool,
}

impl Scraper {
    /// Opens what the options name. The calling thread may enter another network namespace by it, and has to be the one that
    /// scrapes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(setup: Setup) -> Result<Self, Failure> {
        let machine = if setup.common.from.is_some() {
            drop(source::open(&setup.common)?);
            None
        } else {
            let mut live = source::live(&setup.common)?;
            live.remember_owners(true);
            Some(live)
        };
        let Setup {
            past,
            common,
            select,
            ..
        } = &setup;
        Ok(Self {
            diary: Diary::open(past, common, Producer::Export, (select, &setup.settings)),
            setup,
            machine,
            looks: Looks::default(),
            room: Room::default(),
            first: true,
        })
    }

    /// Looks, and tells.
    pub fn scrape(&mut self) -> Scraped {
        let Some(live) = &mut self.machine else {
            return self.setup.once();
        };
        let began = Instant::now();
        let room = std::mem::take(&mut self.room);
        let seen = self.setup.snapshot(live, room).map_err(Failure::from);
        let seen = seen.and_then(|snapshot| {
            if std::mem::take(&mut self.first) {
                self.looks.history = self.diary.recall(&snapshot);
                self.looks.history.bound(REMEMBERED);
            }
            let Judged {
                tally,
                sample,
                analysis,
            } = Judged::new(
                &snapshot,
                self.looks.before(snapshot.taken),
                &self.setup.settings,
            );
            let text = self
                .setup
                .text(&snapshot, (&tally, &sample, &analysis), began)?;
            let mut notes = snapshot.coverage.warnings();
            self.diary.take(&snapshot, &tally, &analysis, &sample);
            notes.extend(analysis.warnings);
            self.looks.keep(sample);
            self.room = snapshot.into_room();
            Ok((text, notes))
        });
        scraped(seen, began)
    }
}

impl Scraper {
    /// Writes down what is kept of the last scrape: whoever asked for it has it by now. Returns what went wrong with that.
    pub fn rest(&mut self) -> &[String] {
        self.diary.write();
        self.diary.notes()
    }
}

/// What was made, or the metrics of a failure.
fn scraped(made: Result<(String, Vec<String>), Failure>, began: Instant) -> Scraped {
    match made {
        Ok((text, notes)) => Scraped {
            text,
            notes,
            failure: None,
        },
        Err(failure) => Scraped {
            text: written(None, began).unwrap_or_default(),
            notes: Vec::new(),
            failure: Some(failure),
        },
    }
}

fn written(seen: Option<&Seen<'_>>, began: Instant) -> Result<String, Failure> {
    prometheus::text(seen, began.elapsed())
        .map_err(|error| Failure::failed(format!("cannot write metrics: {error}"), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapes_one_upon_the_other_are_judged_by_what_was_before_both() {
        let mut looks = Looks::default();
        let mut windows = Vec::new();
        // At the start, a first scrape, then two servers 50 ms apart every 15 s, then one that never stops.
        let pairs = [0, 100, 15_000, 15_050, 30_000, 30_050];
        let flood = (31_000..45_000).step_by(1000);
        for at in pairs.into_iter().chain(flood) {
            let taken = Timestamp::from_millisecond(at).unwrap();
            let last = looks.before(taken).earlier().last();
            windows.push(last.map(|last| at - last.taken.as_millisecond()));
            looks.keep(Sample {
                taken,
                ..Sample::default()
            });
        }
        let first = [
            None,
            Some(100),
            Some(14_900),
            Some(14_950),
            Some(15_000),
            Some(15_050),
        ];
        assert_eq!(windows[..6], first);
        assert!(
            windows[11..]
                .iter()
                .flatten()
                .all(|ms| (5_000..11_000).contains(ms)),
            "{windows:?}"
        );
    }
}
