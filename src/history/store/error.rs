//! What can be wrong with the history, and what to do about it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// a later version of this program has written it
    #[error("the history '{}' has version {found}, and this linger knows versions up to {known}: nothing is kept", path.display())]
    Newer {
        /// the file
        path: PathBuf,
        /// its version
        found: i64,
        /// the last version that is known
        known: i64,
    },
    /// the name is not that of a regular file
    #[error("the history '{}' is not a regular file", path.display())]
    NotAFile {
        /// the name
        path: PathBuf,
    },
    /// nothing may be written there
    #[error("the history '{}' cannot be written: {why}", path.display())]
    ReadOnly {
        /// the file
        path: PathBuf,
        /// the system's answer
        why: String,
    },
    /// it may not be read
    #[error("the history '{}' cannot be read: {why}", path.display())]
    Unreadable {
        /// the file
        path: PathBuf,
        /// the system's answer
        why: String,
    },
    /// the disk is full, or nearly
    #[error("the history '{}' is not written: {free_mib} MiB are free on its file system, and {least_mib} MiB are to stay free", path.display())]
    NearlyFull {
        /// the file
        path: PathBuf,
        /// what others may still write, MiB
        free_mib: u64,
        /// what is left to them, MiB
        least_mib: u64,
    },
    /// the disk is full
    #[error("the history '{}' is not written: its file system is full", path.display())]
    Full {
        /// the file
        path: PathBuf,
    },
    /// its size is used up, and a reader keeps it from getting smaller
    #[error("the history '{}' is not written: it takes {mib} MiB, and a reader keeps the log of changes from being cut", path.display())]
    TooLarge {
        /// the file
        path: PathBuf,
        /// what it takes, MiB
        mib: u64,
    },
    /// others write
    #[error("the history '{}' is in use by others", path.display())]
    Busy {
        /// the file
        path: PathBuf,
    },
    /// the file is not as it was written, or somebody else's
    #[error("the history '{}' is damaged: {why}", path.display())]
    Damaged {
        /// the file
        path: PathBuf,
        /// what is wrong with it
        why: String,
    },
    /// the system refused
    #[error("cannot {what} '{}': {source}", path.display())]
    Io {
        /// what was tried
        what: &'static str,
        /// the file
        path: PathBuf,
        /// the system's answer
        source: io::Error,
    },
    /// the database refused
    #[error("the history '{}': {source}", path.display())]
    Database {
        /// the file
        path: PathBuf,
        /// its answer
        source: rusqlite::Error,
    },
}

impl Error {
    /// What the user may do now.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Newer { .. } => "use the newer linger, or another --state-dir, or --no-history",
            Self::NotAFile { .. } | Self::ReadOnly { .. } => {
                "name a directory that can be written with --state-dir, or pass --no-history"
            }
            Self::Unreadable { .. } => {
                "its owner and root may read it; --state-dir names another one"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "its owner and root may open it; --state-dir names another one"
            }
            Self::NearlyFull { .. } | Self::Full { .. } => {
                "free some space, or name a directory on another file system with --state-dir"
            }
            _ => return None,
        })
    }

    /// The same for who only reads: nothing is to be written.
    #[must_use]
    pub fn of_reader(self) -> Self {
        match self {
            Self::ReadOnly { path, why } => {
                let refused = File::open(&path).err();
                let why = refused.map_or(why, |error| error.to_string());
                Self::Unreadable { path, why }
            }
            other => other,
        }
    }

    /// Whether only a new file helps.
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    /// Sorts SQLite's answer.
    pub fn of(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let code = source.sqlite_error_code();
        let said = source.to_string();
        match code {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { path, why: said }
            }
            // A member of another type than our tables have was not written by us.
            None if matches!(
                source,
                rusqlite::Error::InvalidColumnType(..)
                    | rusqlite::Error::IntegralValueOutOfRange(..)
                    | rusqlite::Error::FromSqlConversionFailure(..)
                    | rusqlite::Error::Utf8Error(..)
            ) =>
            {
                Self::Damaged { path, why: said }
            }
            Some(ErrorCode::TooBig) => Self::Damaged { path, why: said },
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::ReadOnly { path, why: said }
            }
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path },
            _ => Self::Database { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_reads_hears_of_reading() {
        let refused = || Error::ReadOnly {
            path: PathBuf::from("/nowhere/history.db"),
            why: "unable to open database file".to_owned(),
        };
        assert!(refused().to_string().contains("cannot be written"));
        let error = refused().of_reader();
        let said = error.to_string();
        assert!(said.contains("cannot be read: No such file"), "{said}");
        assert!(!error.hint().unwrap().contains("--no-history"));
    }
}
