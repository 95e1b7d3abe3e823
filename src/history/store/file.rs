//! The file itself: opening it, setting a damaged one aside, and how much room there is.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::schema::{self, Kind};
use super::{Error, Options, Store};

/// The name of the file in the state directory.
pub const NAME: &str = "history.db";

/// It holds the addresses of peers: its owner's business.
const MODE: u32 = 0o600;

/// How long a write of another process is waited for by who only reads.
const PATIENCE: Duration = Duration::from_secs(4);

/// No value in the file is longer, in bytes: more than any sample takes.
const LONGEST: i32 = 32 << 20;

/// Damaged files that are kept.
const DAMAGED: usize = 3;

/// The log of changes is cut to this when it has been carried over, bytes.
const LOG: i64 = 4 << 20;

/// A twentieth of a large disk is more than anybody misses.
const MOST_FREE: u64 = 1 << 30;

/// Opens or begins the file.
pub fn open(dir: &Path, options: Options) -> Result<Store, Error> {
    let dir = fs::canonicalize(dir).map_err(|source| Error::Io {
        what: "open the state directory",
        path: dir.to_owned(),
        source,
    })?;
    let path = dir.join(NAME);
    let mut messages = Vec::new();
    let deadline = Instant::now() + options.patience;
    loop {
        make(&path, options)?;
        let identity = identity(&path);
        match connect(&path, options) {
            // Another process may have set it aside meanwhile.
            Ok(connection) if identity.is_some() && identity == self::identity(&path) => {
                return Ok(Store {
                    connection,
                    dir,
                    path,
                    options,
                    identity: identity.unwrap_or_default(),
                    damaged: Cell::new(false),
                    messages,
                });
            }
            Ok(_) => {}
            // It was set aside between one step and the next, or a new one has been made.
            Err(_) if identity.is_none() || identity != self::identity(&path) => {}
            Err(Error::Damaged { why, .. }) => {
                messages.extend(set_aside(&dir, identity, &why)?);
            }
            // Whoever makes the file, or reads the log of one that was killed, holds it for a moment.
            Err(Error::Busy { .. }) if Instant::now() < deadline => {}
            Err(error) => return Err(error),
        }
        if Instant::now() > deadline {
            return Err(Error::Busy { path });
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Opens what is there, to read it.
pub fn open_to_read(dir: &Path) -> Result<Option<Store>, Error> {
    let dir = match fs::canonicalize(dir) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Error::Io {
                what: "open the state directory",
                path: dir.to_owned(),
                source,
            });
        }
    };
    let path = dir.join(NAME);
    if !is_there(&path)? {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let sorted = |source| Error::of(&path, source);
    let plain = Connection::open_with_flags(&path, flags)
        .and_then(|connection| {
            harden(&connection, PATIENCE)?;
            schema::kind(&connection).map(|kind| (connection, kind))
        })
        .map_err(sorted);
    let opened = match plain {
        // The log's index cannot be made there. What is not carried over from the log yet is not seen then.
        Err(Error::ReadOnly { .. }) => {
            let uri = format!("file:{}?immutable=1", escaped(&path));
            let flags = flags | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(uri, flags)
                .and_then(|connection| {
                    harden(&connection, PATIENCE)?;
                    schema::kind(&connection).map(|kind| (connection, kind))
                })
                .map_err(|source| sorted(source).of_reader())
        }
        other => other,
    };
    let (connection, kind) = opened?;
    match kind {
        Kind::Ours(schema::VERSION) => Ok(Some(Store {
            connection,
            identity: identity(&path).unwrap_or_default(),
            dir,
            path,
            options: Options::default(),
            damaged: Cell::new(false),
            messages: Vec::new(),
        })),
        // Begun and not made yet, or of an older version that the next run makes one of ours.
        Kind::Empty | Kind::Ours(_) => Ok(None),
        Kind::Newer(found) => Err(newer(&path, found)),
        Kind::Foreign(why) => Err(Error::Damaged { path, why }),
    }
}

/// A path in a URI.
fn escaped(path: &Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;
    let mut uri = String::new();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            let _ = write!(uri, "%{byte:02x}");
        }
    }
    uri
}

fn newer(path: &Path, found: i64) -> Error {
    Error::Newer {
        path: path.to_owned(),
        found,
        known: schema::VERSION,
    }
}

/// Whether there is a file.
fn is_there(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(_) => Err(Error::NotAFile {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Io {
            what: "open the history",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Device and inode of the file that has the name now.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Makes an empty file if there is none.
fn make(path: &Path, options: Options) -> Result<(), Error> {
    if is_there(path)? {
        return Ok(());
    }
    room(path, options)?;
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path);
    match made {
        Ok(file) => {
            give(&file, path);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Error::ReadOnly {
                    path: path.to_owned(),
                    why: error.to_string(),
                }
            }
            io::ErrorKind::StorageFull => Error::Full {
                path: path.to_owned(),
            },
            _ => Error::Io {
                what: "make the history",
                path: path.to_owned(),
                source: error,
            },
        }),
    }
}

/// Gives a file that root has made to whose directory it is in: a service that runs as a user of its own shares it.
fn give(file: &File, path: &Path) {
    let root = rustix::process::geteuid().is_root();
    let owner = path.parent().and_then(|dir| fs::metadata(dir).ok());
    if let Some(owner) = owner.filter(|owner| root && owner.uid() != 0) {
        // Where that is not allowed, root keeps it.
        let (user, group) = (
            rustix::fs::Uid::from_raw(owner.uid()),
            rustix::fs::Gid::from_raw(owner.gid()),
        );
        let _ = rustix::fs::fchown(file, Some(user), Some(group));
    }
}

/// What a file by others may do to whoever reads it: as little as possible.
fn harden(connection: &Connection, patience: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(patience)?;
    for (config, value) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
    ] {
        connection.set_db_config(config, value)?;
    }
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, LONGEST)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

fn connect(path: &Path, options: Options) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let sorted = |source| Error::of(path, source);
    let mut connection = Connection::open_with_flags(path, flags).map_err(sorted)?;
    harden(&connection, options.patience).map_err(sorted)?;
    if connection.is_readonly("main").map_err(sorted)? {
        return Err(Error::ReadOnly {
            path: path.to_owned(),
            why: "it is read-only".to_owned(),
        });
    }
    let mut kind = schema::kind(&connection).map_err(sorted)?;
    if kind == Kind::Empty {
        // Both are properties of the file from its first page on.
        connection
            .pragma_update(None, "auto_vacuum", "INCREMENTAL")
            .map_err(sorted)?;
    }
    let log = |connection: &Connection| {
        connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))
    };
    if matches!(kind, Kind::Empty | Kind::Ours(_)) {
        let mode = log(&connection).map_err(sorted)?;
        if mode != "wal" {
            return Err(Error::Busy {
                path: path.to_owned(),
            });
        }
        let synchronous = if options.synchronous { "NORMAL" } else { "OFF" };
        connection
            .pragma_update(None, "synchronous", synchronous)
            .map_err(sorted)?;
        connection
            .pragma_update_and_check(None, "journal_size_limit", LOG, |_| Ok(()))
            .map_err(sorted)?;
    }
    if kind == Kind::Empty || matches!(kind, Kind::Ours(version) if version < schema::VERSION) {
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(sorted)?;
        let (application, version): (i64, i64) = transaction
            .query_row(
                "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version)",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(sorted)?;
        // Another process may have been faster.
        if version < schema::VERSION && (application == schema::APPLICATION || version == 0) {
            schema::migrate(&transaction, version).map_err(sorted)?;
        }
        transaction.commit().map_err(sorted)?;
        kind = schema::kind(&connection).map_err(sorted)?;
    }
    match kind {
        Kind::Ours(_) => Ok(connection),
        Kind::Newer(found) => Err(newer(path, found)),
        Kind::Empty => Err(Error::Busy {
            path: path.to_owned(),
        }),
        Kind::Foreign(why) => Err(Error::Damaged {
            path: path.to_owned(),
            why,
        }),
    }
}

/// Gives the file with this `identity`, and its log, another name; the message, unless somebody else has done so already.
pub fn set_aside(
    dir: &Path,
    damaged: Option<(u64, u64)>,
    why: &str,
) -> Result<Option<String>, Error> {
    let path = dir.join(NAME);
    let failed = |what| {
        let path = path.clone();
        move |source| Error::Io { what, path, source }
    };
    // One at a time: the second one would set the first one's new file aside.
    let lock = File::open(dir).map_err(failed("lock the directory of"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| failed("lock the directory of")(error.into()))?;
    if identity(&path) != damaged {
        return Ok(None);
    }
    let now = Timestamp::now().strftime("%Y%m%dT%H%M%S.%6fZ");
    let other = dir.join(format!("{NAME}.damaged-{now}"));
    for end in ["-wal", "-shm", ""] {
        let with = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        };
        match fs::rename(with(&path), with(&other)) {
            Err(source) if !end.is_empty() && source.kind() == io::ErrorKind::NotFound => {}
            answer => answer.map_err(failed("set aside"))?,
        }
    }
    forget(dir);
    Ok(Some(format!(
        "the history '{}' was damaged ({why}) and is now '{}'; a new one is begun",
        path.display(),
        other.display()
    )))
}

/// Removes all damaged files but the last few.
fn forget(dir: &Path) {
    let prefix = format!("{NAME}.damaged-");
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix))
        .collect();
    // Their names are in the order of their times.
    names.sort_unstable();
    let mut times: Vec<&str> = names
        .iter()
        .map(|name| name.trim_end_matches("-wal").trim_end_matches("-shm"))
        .collect();
    times.dedup();
    let old = times.len().saturating_sub(DAMAGED);
    for name in names
        .iter()
        .filter(|name| times.iter().take(old).any(|time| name.starts_with(time)))
    {
        // What cannot be removed stays: it harms nobody but by its size.
        let _ = fs::remove_file(dir.join(name));
    }
}

/// Whether others have enough room left on the file system.
///
/// # Errors
/// When they do not.
pub fn room(path: &Path, options: Options) -> Result<(), Error> {
    if options.least_free == 0 {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(path);
    // Where nobody tells, the write itself will.
    let Ok(system) = rustix::fs::statvfs(dir) else {
        return Ok(());
    };
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let all = system.f_blocks.saturating_mul(system.f_frsize);
    let least = (all / 20).min(MOST_FREE).max(options.least_free);
    if free >= least {
        return Ok(());
    }
    Err(Error::NearlyFull {
        path: path.to_owned(),
        free_mib: free >> 20,
        least_mib: least >> 20,
    })
}

/// Bytes of the log of changes.
pub fn log_bytes(path: &Path) -> u64 {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    fs::metadata(PathBuf::from(name)).map_or(0, |metadata| metadata.len())
}
