//! The thread that looks: when it is time, when it is asked to, and never so often that it hurts.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::Event;
use super::eye::Eye;
use super::screen::LastWord;
use crate::analyze::Settings;
use crate::cli::args::{Common, Select};
use crate::cli::failure::Failure;
use crate::cli::remember::{self, Diary};
use crate::history::store::Producer;
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
    /// which detectors, and where history is
    pub past: (Select, remember::Args),
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
        // Whoever draws must not wait for a thread that is no more, as after a panic.
        let _last = LastWord(events.clone(), true);
        let interval = setup.interval;
        match Eye::open(&setup.common, setup.settings, setup.owners) {
            Err(failure) => drop(opened.send(Err(failure))),
            Ok(mut eye) => {
                let (select, past) = &setup.past;
                let asked = (select, eye.settings());
                let diary = Diary::open(past, &setup.common, Producer::Watch, asked);
                eye.remember(diary);
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
            // It is a part of what looking takes.
            let resting = Instant::now();
            self.eye.rest();
            self.took[0] += resting.elapsed();
            // Two looks at most are alive: the one that is drawn, and the one that is on its way.
            if matches!(self.wait(began, looked), Next::End) {
                return;
            }
        }
    }

    fn every(&self) -> Duration {
        // A recording has its own pace, and no machine to spare.
        if self.replay {
            return self.interval;
        }
        pace(self.interval, self.took)
    }

    /// Goes to another frame. One that cannot be read is said, and the one that is seen stands.
    fn seek(&mut self, seek: Seek) -> bool {
        self.eye.seek(seek).unwrap_or_else(|failure| {
            self.playing = false;
            self.say_playing();
            let _ = self
                .events
                .send(Event::Msg(Msg::Failed(failure.to_string())));
            false
        })
    }

    /// When the next look is due by itself; `None` if it is not.
    fn due(&self, began: Instant) -> Option<Instant> {
        if !self.replay {
            return Some(began + self.every());
        }
        let gap = self.eye.gap().filter(|_| self.playing)?;
        Some(began + gap.div_f64(self.speed).min(Duration::from_secs(3600)))
    }

    /// Waits for the time, or for an order, to look again. Orders that come one upon the other, as from a key that is held
    /// down, do not make looks take more than their share.
    fn wait(&mut self, began: Instant, looked: bool) -> Next {
        let mut seen = !looked;
        let mut now = false;
        let soonest = began + self.every().min(self.took[0] * SHARE);
        loop {
            let due = match now {
                true => Some(soonest),
                false => self.due(began),
            };
            let order = match due.filter(|_| seen) {
                Some(due) => self
                    .told
                    .recv_timeout(due.saturating_duration_since(Instant::now())),
                None => self.told.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Err(RecvTimeoutError::Disconnected) => return Next::End,
                Err(RecvTimeoutError::Timeout) => {
                    if now || !self.replay {
                        return Next::Look;
                    }
                    now |= self.seek(Seek::By(1));
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
                    now |= self.seek(seek);
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

/// How far apart looks are, `took` being what the last one took, and the one before it: further than was asked for where
/// one takes more than its share. A single slow look, as when all descriptors are walked, does not count.
pub fn pace(interval: Duration, took: [Duration; 2]) -> Duration {
    let [last, before] = took;
    let steady = if before.is_zero() {
        last
    } else {
        last.min(before)
    };
    let share = steady * SHARE;
    if share <= interval {
        return interval;
    }
    // Whole tenths of a second: a figure that changes with each look would be noise.
    Duration::from_millis(u64::try_from(share.as_millis().div_ceil(100) * 100).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_takes_a_tenth_of_the_time_at_most() {
        let pace = |took: [u64; 2]| {
            pace(Duration::from_secs(1), took.map(Duration::from_millis)).as_millis()
        };
        assert_eq!(pace([100, 100]), 1_000);
        assert_eq!(pace([101, 150]), 1_100);
        assert_eq!(pace([900, 50]), 1_000, "one slow look is none");
        assert_eq!(pace([900, 0]), 9_000, "but the first is all there is");
    }
}
