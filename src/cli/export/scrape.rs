//! From the machine, or a capture, to metrics, again and again.

use std::time::{Duration, Instant};

use super::Args;
use super::figures::figures;
use crate::analyze::{self, Context, Settings, detectors};
use crate::cli::args::Common;
use crate::cli::failure::Failure;
use crate::cli::observe::{self, Judged, Plan};
use crate::cli::source;
use crate::collect::live::Live;
use crate::collect::{self, Also, Want};
use crate::history::{History, Sample, Tally};
use crate::model::{AgeFacts, Analysis, Snapshot, StateSet};
use crate::render::prometheus::{self, Seen};

/// How many sockets, processes and destinations all earlier looks together may remember: some megabytes.
const REMEMBERED: usize = 100_000;

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
        let seen = observe::look(&self.common, plan, &self.settings).and_then(|seen| {
            let sample = Sample::default();
            let text = self.text(
                &seen.snapshot,
                (&seen.tally, &sample, &seen.analysis),
                began,
            )?;
            Ok((text, seen.warnings()))
        });
        scraped(seen, began)
    }

    /// Sockets as detectors want them.
    fn snapshot(&self, live: &mut Live) -> Result<Snapshot, collect::Error> {
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
        collect::snapshot(live, &want, also)
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

/// Looks again and again, each time judged by the times before.
pub struct Scraper {
    setup: Setup,
    /// `None` where a capture is read
    machine: Option<Live>,
    history: History,
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
        Ok(Self {
            setup,
            machine,
            history: History::default(),
        })
    }

    /// Looks, and tells.
    pub fn scrape(&mut self) -> Scraped {
        let Some(live) = &mut self.machine else {
            return self.setup.once();
        };
        let began = Instant::now();
        let seen = self.setup.snapshot(live).map_err(Failure::from);
        let seen = seen.and_then(|snapshot| {
            let Judged {
                tally,
                sample,
                analysis,
            } = Judged::new(&snapshot, &mut self.history, &self.setup.settings);
            let text = self
                .setup
                .text(&snapshot, (&tally, &sample, &analysis), began)?;
            let mut notes = snapshot.coverage.warnings();
            notes.extend(analysis.warnings);
            self.history.push(sample);
            self.history.bound(REMEMBERED);
            Ok((text, notes))
        });
        scraped(seen, began)
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
