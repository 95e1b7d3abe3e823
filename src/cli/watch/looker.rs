//! The thread that looks: when it is time, when it is asked to, and never so often that it hurts.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::Event;
use super::eye::Eye;
use crate::analyze::Settings;
use crate::cli::args::Common;
use crate::cli::failure::Failure;
use crate::tui::Msg;
use crate::tui::msg::{Seek, Wish};

/// A look may take a tenth of the time between two.
const SHARE: u32 = 10;

/// What the thread is told.
#[derive(Debug)]
pub enum Order {
    /// the look that came last was seen, and the one before it is gone
    Seen,
    /// look now
    Now,
    /// look so often
    Interval(Duration),
    /// collect this
    Wish(Wish),
    /// go to a frame
    Seek(Seek),
    /// play, or stand still
    Play(bool),
    /// play so much faster
    Speed(f64),
}

/// What it needs to begin.
#[derive(Clone, Debug)]
pub struct Setup {
    /// where to look
    pub common: Common,
    /// what to look for
    pub settings: Settings,
    /// whether to read who holds the sockets
    pub owners: bool,
    /// how often
    pub interval: Duration,
}

/// Begins to look. The first look, and what else happens, comes as events.
///
/// # Errors
/// When what is to be looked at cannot be opened, or no thread can be made.
pub fn start(setup: Setup, events: SyncSender<Event>) -> Result<(Sender<Order>, bool), Failure> {
    let (orders, told) = channel();
    let (opened, open) = channel();
    // A network namespace is entered by a thread, so whoever looks has to open too.
    let thread = thread::Builder::new().name("looker".to_owned());
    let looking = thread.spawn(move || {
        let interval = setup.interval;
        match Eye::open(&setup.common, setup.settings, setup.owners) {
            Err(failure) => drop(opened.send(Err(failure))),
            Ok(eye) => {
                let _ = opened.send(Ok(eye.frame().is_some()));
                let playing = eye.frame().is_some_and(|frame| frame.of > 1);
                let mut looker = Looker {
                    replay: eye.frame().is_some(),
                    eye,
                    interval,
                    took: [Duration::ZERO; 2],
                    playing,
                    speed: 1.0,
                    told,
                    events: events.clone(),
                };
                looker.run();
            }
        }
        // Whoever draws must not wait for a thread that is no more.
        let _ = events.send(Event::Blind);
    });
    looking.map_err(|error| Failure::failed(format!("cannot start a thread: {error}"), None))?;
    match open.recv() {
        Ok(opened) => opened.map(|replay| (orders, replay)),
        Err(_) => Err(Failure::failed("the thread that looks has ended", None)),
    }
}

struct Looker {
    eye: Eye,
    replay: bool,
    interval: Duration,
    /// what the last two looks took
    took: [Duration; 2],
    playing: bool,
    speed: f64,
    told: Receiver<Order>,
    events: SyncSender<Event>,
}

/// What to do next.
enum Next {
    /// look
    Look,
    /// nobody listens any more
    End,
}

impl Looker {
    fn run(&mut self) {
        loop {
            let began = Instant::now();
            let msg = match self.eye.look() {
                Ok(mut look) => {
                    self.took = [look.pace.took, self.took[0]];
                    look.pace.interval = self.interval;
                    look.pace.every = self.every();
                    Msg::Look(Box::new(look))
                }
                Err(failure) => Msg::Failed(failure.to_string()),
            };
            let looked = matches!(msg, Msg::Look(_));
            if self.events.send(Event::Msg(msg)).is_err() {
                return;
            }
            // Two looks at most are alive: the one that is drawn, and the one that is on its way.
            let next = match self.wait(began, looked) {
                Ok(next) => next,
                Err(failure) => {
                    let said = Event::Msg(Msg::Failed(failure.to_string()));
                    if self.events.send(said).is_err() {
                        return;
                    }
                    Next::Look
                }
            };
            if matches!(next, Next::End) {
                return;
            }
        }
    }

    /// How far apart looks are: further than was asked for where one takes more than its share. A single slow look, as
    /// when all descriptors are walked, does not count.
    fn every(&self) -> Duration {
        let [last, before] = self.took;
        let steady = if before.is_zero() {
            last
        } else {
            last.min(before)
        };
        // Whole tenths of a second: a figure that changes with each look would be noise.
        let tenths = (steady * SHARE).as_millis().div_ceil(100);
        let least = Duration::from_millis(u64::try_from(tenths * 100).unwrap_or(u64::MAX));
        if least > self.interval && steady * SHARE > self.interval {
            least
        } else {
            self.interval
        }
    }

    /// When the next look is due by itself; `None` if it is not.
    fn due(&self, began: Instant) -> Option<Instant> {
        if !self.replay {
            return Some(began + self.every());
        }
        let gap = self.eye.gap().filter(|_| self.playing)?;
        Some(began + gap.div_f64(self.speed).min(Duration::from_secs(3600)))
    }

    /// Waits for the time, or for an order, to look again.
    fn wait(&mut self, began: Instant, looked: bool) -> Result<Next, Failure> {
        let mut seen = !looked;
        let mut now = false;
        loop {
            if seen && now {
                return Ok(Next::Look);
            }
            let due = self.due(began);
            let order = match due.filter(|_| seen) {
                Some(due) => self
                    .told
                    .recv_timeout(due.saturating_duration_since(Instant::now())),
                None => self.told.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Err(RecvTimeoutError::Disconnected) => return Ok(Next::End),
                Err(RecvTimeoutError::Timeout) => {
                    if !self.replay {
                        return Ok(Next::Look);
                    }
                    now |= self.eye.seek(Seek::By(1))?;
                }
                Ok(Order::Seen) => seen = true,
                Ok(Order::Now) => now |= !self.replay,
                Ok(Order::Interval(interval)) => self.interval = interval,
                Ok(Order::Wish(wish)) => {
                    self.eye.wish(wish);
                    now = true;
                }
                Ok(Order::Seek(seek)) => {
                    // Whoever steps wants to read.
                    self.playing = false;
                    self.say_playing();
                    now |= self.eye.seek(seek)?;
                }
                Ok(Order::Play(playing)) => {
                    self.playing = playing;
                    self.say_playing();
                }
                Ok(Order::Speed(speed)) => {
                    self.speed = speed;
                    self.say_playing();
                }
            }
        }
    }

    fn say_playing(&self) {
        let _ = self.events.send(Event::Msg(Msg::Playing {
            playing: self.playing,
            speed: self.speed,
        }));
    }
}
