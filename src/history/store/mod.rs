//! The store between runs: what `check`, `export` and `watch` have measured and found, in one SQLite file that several
//! of them write at once.
//!
//! Everything is kept by [`Place`]: counters, cookies and inodes of another boot or network namespace say nothing here.
//! Besides measures and findings the last few looks are kept, so that a run can judge by what the runs before it saw.

mod blob;
mod error;
mod file;
mod read;
mod schema;
pub mod subject;
#[cfg(test)]
mod testing;
mod upkeep;
mod write;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;

pub use self::error::Error;
pub use self::file::NAME;
pub use self::read::{Point, Series};
use super::Sample;
use crate::model::Severity;
pub use crate::model::Transition;

/// Where something was measured.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// which boot of the machine (`/proc/sys/kernel/random/boot_id`)
    pub boot_id: String,
    /// the inode of the network namespace
    pub netns: u64,
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// nothing older
    pub keep: Duration,
    /// bytes that the file and its log may take together
    pub max_bytes: u64,
    /// bytes, beside a twentieth of the file system up to a gibibyte, that stay free for others; 0: not even that
    pub least_free: u64,
    /// whether a write that was acknowledged survives a machine that loses its power a moment later, as far as
    /// SQLite's `synchronous=NORMAL` goes; it survives the end of this process at any rate
    pub synchronous: bool,
    /// how long a write of another process is waited for
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keep: Duration::from_secs(30 * 86_400),
            max_bytes: 64 << 20,
            least_free: 64 << 20,
            synchronous: true,
            patience: Duration::from_secs(1),
        }
    }
}

/// Which command has measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Producer {
    /// `linger check`
    Check,
    /// `linger export`
    Export,
    /// `linger watch`
    Watch,
}

impl Producer {
    const fn number(self) -> i64 {
        match self {
            Self::Check => 1,
            Self::Export => 2,
            Self::Watch => 3,
        }
    }
}

/// What one run has to tell.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// when it looked
    pub taken: Timestamp,
    /// who
    pub producer: Producer,
    /// whether it saw everything that it asked for
    pub complete: bool,
    /// measures by name
    pub values: &'a [(String, f64)],
    /// what it found
    pub findings: &'a [Active],
    /// ids of the detectors that could judge: a finding of another one is not ended by its absence
    pub judged: &'a [&'a str],
    /// the look, for the next run to compare with
    pub sample: Option<&'a Sample>,
    /// what the look was taken for, as of [`Store::samples`]
    pub view: u64,
    /// who hears of what has changed: runs that ask the same question have one reader; 0 is the producer itself
    pub reader: u64,
    /// what the reader asks beside the findings: measures beyond limits of its own
    pub own: &'a [Active],
    /// whether findings were judged by limits of its own, so that they say nothing of when others began and ended
    pub apart: bool,
}

/// A finding that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// the detector
    pub id: String,
    /// which form of it
    pub variant: Option<String>,
    /// about what, in words that stay the same while it lasts: `process nginx`, without its pid
    pub subject: String,
    /// how bad
    pub severity: Severity,
    /// one line, as it was told last
    pub title: String,
}

/// The history of this machine.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    /// the directory, with no link in its path
    dir: PathBuf,
    /// the file
    path: PathBuf,
    options: Options,
    /// device and inode of the file
    identity: (u64, u64),
    /// whether something in it could not be read
    damaged: Cell<bool>,
    /// what was done that whoever keeps history must know
    messages: Vec<String>,
}

impl Store {
    /// Opens the history in `dir`, to write; begins one if there is none. Returns what whoever keeps it must know: that
    /// a file was set aside, and why.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Vec<String>), Error> {
        let mut store = file::open(dir, options)?;
        let messages = std::mem::take(&mut store.messages);
        Ok((store, messages))
    }

    /// Opens the history in `dir`, to read, on a read-only file system too. `None`: there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn open_to_read(dir: &Path) -> Result<Option<Self>, Error> {
        file::open_to_read(dir)
    }

    /// What was done since the last call that whoever keeps history must know.
    pub fn messages(&mut self) -> Vec<String> {
        std::mem::take(&mut self.messages)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sorts an answer of the database, and remembers damage until the next write.
    fn sorted<T>(&self, answer: rusqlite::Result<T>) -> Result<T, Error> {
        answer.map_err(|source| {
            let error = Error::of(&self.path, source);
            if error.is_damage() {
                self.damaged.set(true);
            }
            error
        })
    }
}

/// Microseconds since 1970.
fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// The time so many microseconds after 1970; the nearest there is, where that is none.
fn time(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(if micros < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

/// A length of time in microseconds.
fn span(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

const fn severity(number: i64) -> Option<Severity> {
    Some(match number {
        1 => Severity::Info,
        2 => Severity::Warning,
        3 => Severity::Critical,
        _ => return None,
    })
}

const fn number(severity: Severity) -> i64 {
    match severity {
        Severity::Info => 1,
        Severity::Warning => 2,
        Severity::Critical => 3,
    }
}
