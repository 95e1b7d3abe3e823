//! Looks at a machine, or at each of its namespaces, again and again, and has every look judged by the ones before it.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::names::Known;
use crate::analyze::{self, Settings};
use crate::cli::args::Common;
use crate::cli::everywhere::{self, Gaps};
use crate::cli::failure::Failure;
use crate::cli::observe::{Judged, Observation, Part};
use crate::cli::remember::Diary;
use crate::cli::source;
use crate::collect::netns::Inside;
use crate::collect::{self, Also, Keep, Source, Want, netlink};
use crate::fields::Needed;
use crate::history::{History, Tally, Tracks};
use crate::model::{AgeFacts, Moves, Namespace, Room, Snapshot, StateSet, TcpState};
use crate::tui::look::{Frame, Pace, Ranks};
use crate::tui::msg::{Seek, Wish};
use crate::tui::{Look, Place};

/// Frames that are judged before one that was jumped to: as many as detectors compare.
const LEAD: usize = 4;

/// How many of each are ranked.
const RANKED: usize = 50;

/// Where one looks.
enum Where {
    /// a machine from one of its namespaces, or a recording of one
    One(Box<dyn Source>),
    /// every namespace of this machine
    Every(Vec<Inside>, Vec<String>),
}

/// What is remembered of one namespace.
#[derive(Default)]
struct Memory {
    history: History,
    /// of the last look, and of the one before it
    tracks: Vec<Tracks>,
}

/// One look into one namespace.
struct Seen {
    snapshot: Snapshot,
    tally: Tally,
    analysis: crate::model::Analysis,
    moves: Option<Moves>,
    counters: Option<(Duration, BTreeMap<String, u64>)>,
}

/// Looks again and again.
pub struct Eye {
    common: Common,
    settings: Settings,
    place: Where,
    /// by the inode of the namespace; 0 where there is one only
    memory: FxHashMap<u64, Memory>,
    names: Known,
    owners: bool,
    wish: Wish,
    diary: Option<Diary>,
}

impl Eye {
    /// Opens what the options name. Of a recording the first frame comes first. The calling thread may enter another network
    /// namespace by it, and has to be the one that looks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(common: &Common, settings: Settings, owners: bool) -> Result<Self, Failure> {
        let place = if source::is_all(common) {
            let (insides, gaps) = source::each(common)?;
            Where::Every(insides, gaps)
        } else {
            let machine: Box<dyn Source> = if common.from.is_some() {
                let mut recording = source::open(common)?;
                if recording.looks() > 0 {
                    recording.seek(0)?;
                }
                recording
            } else {
                let mut live = source::live(common)?;
                live.remember_owners(true);
                Box::new(live)
            };
            Where::One(machine)
        };
        Ok(Self {
            common: common.clone(),
            settings,
            place,
            memory: FxHashMap::default(),
            names: Known::default(),
            owners,
            wish: Wish::default(),
            diary: None,
        })
    }

    /// By what is judged.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Reads what is remembered of this machine, and keeps what it sees.
    pub fn remember(&mut self, diary: Diary) {
        self.diary = Some(diary);
    }

    /// Writes down what is kept of the last look: whoever waits for that has it by now.
    pub fn rest(&mut self) {
        if let Some(diary) = &mut self.diary {
            diary.write();
        }
    }

    /// What is to be collected from now on beside what the detectors ask for.
    pub fn wish(&mut self, wish: Wish) {
        self.wish = wish;
    }

    /// Where in a recording the next look stands; `None` of a machine.
    pub fn frame(&self) -> Option<Frame> {
        let Where::One(machine) = &self.place else {
            return None;
        };
        let of = machine.looks();
        if of == 0 {
            // A capture of one look, or what ss wrote.
            return machine.is_capture().then(|| Frame {
                index: 0,
                of: 1,
                first: machine.now(),
                last: machine.now(),
            });
        }
        Some(Frame {
            index: machine.look(),
            of,
            first: machine.taken(0).unwrap_or_default(),
            last: machine.taken(of - 1).unwrap_or_default(),
        })
    }

    /// Goes to another frame of a recording. Those right before it are judged first if they were skipped, so that there are
    /// rates, and findings are confirmed by them. `false` if it is there already.
    ///
    /// # Errors
    /// When the recording cannot be read.
    pub fn seek(&mut self, seek: Seek) -> Result<bool, Failure> {
        let Some(frame) = self.frame() else {
            return Ok(false);
        };
        let Where::One(machine) = &mut self.place else {
            return Ok(false);
        };
        if machine.looks() == 0 {
            return Ok(false);
        }
        let to = match seek {
            Seek::By(step) => frame
                .index
                .saturating_add_signed(isize::try_from(step).unwrap_or(0)),
            Seek::To(index) => index,
            Seek::At(time) => {
                let until = (0..frame.of)
                    .take_while(|at| machine.taken(*at).is_some_and(|taken| taken <= time));
                until.count().saturating_sub(1)
            }
        }
        .min(frame.of - 1);
        if to == frame.index {
            return Ok(false);
        }
        if to != frame.index + 1 {
            self.memory.clear();
            for before in to.saturating_sub(LEAD)..to {
                let Where::One(machine) = &mut self.place else {
                    return Ok(false);
                };
                // One that is damaged says nothing.
                if machine.seek(before).is_ok_and(|there| there) {
                    let _ = self.look();
                }
            }
        }
        let Where::One(machine) = &mut self.place else {
            return Ok(false);
        };
        Ok(machine.seek(to)?)
    }

    /// The time from the frame that is read to the next one of a recording.
    pub fn gap(&self) -> Option<Duration> {
        let Where::One(machine) = &self.place else {
            return None;
        };
        let (now, next) = (
            machine.taken(machine.look())?,
            machine.taken(machine.look() + 1)?,
        );
        Duration::try_from(next.duration_since(now)).ok()
    }

    /// Looks and judges.
    ///
    /// # Errors
    /// When no socket can be read.
    pub fn look(&mut self) -> Result<Look, Failure> {
        let began = Instant::now();
        let frame = self.frame();
        let Self {
            common,
            settings,
            place,
            memory,
            names,
            owners,
            wish,
            diary,
        } = self;
        let asked = Asked {
            settings,
            owners: *owners,
            wish: *wish,
        };
        let mut look = match place {
            Where::One(machine) => {
                let memory = memory.entry(0).or_default();
                let seen = asked.look(machine.as_mut(), memory, diary.as_mut())?;
                names.look(common, machine.as_ref(), wish.needed.cgroup);
                names.users([&seen.snapshot]);
                one(seen, names)
            }
            Where::Every(insides, gaps) => {
                insides.iter_mut().for_each(Inside::renew);
                let elsewhere = settings.clone().without_expected();
                let (mut all, mut missed) = (Vec::new(), Gaps::default());
                for inside in insides.iter_mut() {
                    let namespace = inside.namespace().clone();
                    let asked = Asked {
                        settings: if namespace.own { settings } else { &elsewhere },
                        ..asked
                    };
                    match asked.look(inside, memory.entry(namespace.inode).or_default(), None) {
                        Ok(seen) => all.push((namespace, seen)),
                        Err(error) => missed.add(&namespace, error),
                    }
                }
                names.look_everywhere(insides, wish.needed.cgroup);
                names.users(all.iter().map(|(_, seen)| &seen.snapshot));
                every(insides, all, (missed, gaps), names)?
            }
        };
        look.owners = *owners;
        let notes = diary.iter().flat_map(Diary::notes);
        look.warnings.extend(notes.cloned());
        look.frame = frame;
        look.pace.took = began.elapsed();
        Ok(look)
    }
}

/// What is asked of a namespace.
#[derive(Clone, Copy)]
struct Asked<'a> {
    settings: &'a Settings,
    owners: bool,
    wish: Wish,
}

impl Asked<'_> {
    fn look(
        self,
        source: &mut dyn Source,
        memory: &mut Memory,
        diary: Option<&mut Diary>,
    ) -> Result<Seen, collect::Error> {
        let needs = analyze::needs(self.settings);
        let Needed {
            extended,
            tos,
            tcp_info,
            congestion,
            congestion_info,
            memory: skmem,
            ..
        } = self.wish.needed;
        let whole = self.wish.cookie.is_some();
        let want = Want {
            tcp_info: true,
            memory: needs.drops || skmem || whole,
            congestion: congestion || whole,
            congestion_info: congestion_info || whole,
            tos: tos || whole,
            ..Want::states(StateSet::ALL)
        };
        let also = Also {
            owners: self.owners,
            udp: needs.udp,
            unix: needs.unix,
            unlisted: needs.unlisted,
        };
        let keep = Keep {
            all: extended || tos || tcp_info || congestion || congestion_info || skmem,
            cookie: self.wish.cookie.and_then(NonZeroU64::new),
        };
        let snapshot = collect::snapshot_with(source, &want, also, keep, Room::default())?;
        memory
            .tracks
            .retain(|tracks| tracks.taken() < snapshot.taken);
        let mut diary = diary;
        if let Some(diary) = diary.as_mut().filter(|_| memory.tracks.is_empty()) {
            memory.history = diary.recall(&snapshot);
        }
        let Judged {
            tally,
            sample,
            analysis,
        } = Judged::new(&snapshot, &mut memory.history, self.settings);
        if let Some(diary) = diary {
            diary.take(&snapshot, &tally, &analysis, &sample);
        }
        let counters = memory.history.deltas(&sample).map(|deltas| {
            let names = snapshot.facts.counters.keys();
            let rose = names.filter_map(|name| Some((name.clone(), deltas.counter(name)?)));
            (deltas.window, rose.filter(|(_, rose)| *rose > 0).collect())
        });
        memory.history.push(sample);
        let tracks = Tracks::new(&snapshot);
        let moves = memory.tracks.last().and_then(|before| tracks.since(before));
        memory.tracks.push(tracks);
        if memory.tracks.len() > 2 {
            memory.tracks.remove(0);
        }
        Ok(Seen {
            snapshot,
            tally,
            analysis,
            moves,
            counters,
        })
    }
}

/// A look at one namespace.
fn one(seen: Seen, names: &Known) -> Look {
    let Seen {
        snapshot,
        tally,
        analysis,
        moves,
        counters,
    } = seen;
    let observation = Observation {
        snapshot,
        tally,
        analysis,
        parts: Vec::new(),
    };
    let mut look = of(&observation, names);
    (look.window, look.counters) = counters.map_or((Duration::ZERO, None), |(window, rose)| {
        (window, Some(rose))
    });
    look.moves = moves;
    let Observation {
        snapshot, analysis, ..
    } = observation;
    look.places = vec![Place {
        namespace: None,
        ages: AgeFacts::new(&snapshot.facts),
        findings: analysis.findings,
        snapshot,
    }];
    look
}

/// A look at all namespaces together.
fn every(
    insides: &[Inside],
    all: Vec<(Namespace, Seen)>,
    (missed, sentences): (Gaps, &[String]),
    names: &Known,
) -> Result<Look, Failure> {
    let mut moves: Option<Moves> = None;
    let mut counters: Option<BTreeMap<String, u64>> = None;
    let mut window = Duration::ZERO;
    let mut parts = Vec::new();
    for (namespace, seen) in all {
        if let Some(more) = &seen.moves {
            moves.get_or_insert_default().add(more);
        }
        if let Some((own, rose)) = seen.counters {
            window = window.max(own);
            let sum = counters.get_or_insert_default();
            for (name, rose) in rose {
                *sum.entry(name).or_default() += rose;
            }
        }
        parts.push(Part {
            namespace,
            seen: Observation {
                snapshot: seen.snapshot,
                tally: seen.tally,
                analysis: seen.analysis,
                parts: Vec::new(),
            },
        });
    }
    let observation = everywhere::together(insides, parts, missed, sentences.to_vec())?;
    // Rows count all namespaces, places only those that could be looked at.
    let place = |netns: u16| {
        let inode = insides
            .get(usize::from(netns))
            .map(|inside| inside.namespace().inode);
        let at = observation
            .parts
            .iter()
            .position(|part| Some(part.namespace.inode) == inode);
        at.and_then(|at| u16::try_from(at).ok()).unwrap_or(0)
    };
    let mut look = of(&observation, names);
    (look.moves, look.counters, look.window) = (moves, counters, window);
    for (at, ..) in &mut look.ranks.listeners {
        *at = place(*at);
    }
    look.whole = Some(observation.snapshot);
    look.places = observation
        .parts
        .into_iter()
        .map(|Part { namespace, seen }| Place {
            namespace: Some(namespace),
            ages: AgeFacts::new(&seen.snapshot.facts),
            findings: seen.analysis.findings,
            snapshot: seen.snapshot,
        })
        .collect();
    Ok(look)
}

/// What is said of all places together; the places themselves are put in by the caller.
fn of(seen: &Observation, names: &Known) -> Look {
    let snapshot = &seen.snapshot;
    let mut states = [None; TcpState::SHOWN.len()];
    for ((slot, state), count) in states
        .iter_mut()
        .zip(TcpState::SHOWN)
        .zip(seen.tally.states())
    {
        *slot = snapshot.coverage.sees(state).then_some(*count);
    }
    let mut closes = [0u32; 60];
    let tallies = seen.parts.iter().map(|part| &part.seen.tally);
    for tally in std::iter::once(&seen.tally).chain(tallies) {
        for (sum, more) in closes.iter_mut().zip(&tally.closes) {
            *sum = sum.saturating_add(*more);
        }
    }
    let top = seen.top(RANKED);
    let ranks = Ranks {
        processes: top
            .processes
            .into_iter()
            .map(|(process, n)| (process.clone(), n))
            .collect(),
        peers: top.peers,
        listeners: top
            .listeners
            .into_iter()
            .map(|(socket, n)| (socket.netns, *socket, n))
            .collect(),
    };
    Look {
        taken: snapshot.taken,
        host: snapshot.host.name.clone(),
        places: Vec::new(),
        whole: None,
        coverage: snapshot.coverage.clone(),
        warnings: seen.warnings(),
        states,
        unknown_states: seen.tally.unknown,
        closes,
        moves: None,
        counters: None,
        window: Duration::ZERO,
        ranks,
        analysis: seen.analysis.clone(),
        owners: true,
        names: Arc::new(names.clone()),
        decode: netlink::attributes,
        pace: Pace::default(),
        frame: None,
    }
}
