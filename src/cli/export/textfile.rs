//! Metrics in a file, for node_exporter's textfile collector: whoever reads it finds the old text or the new one, whole.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Args;
use super::scrape::{Scraped, Scraper, Setup};
use crate::cli::failure::Failure;
use crate::cli::source;
use crate::cli::terminal;

/// node_exporter runs as a user of its own.
const MODE: u32 = 0o644;

/// Writes the file once, or so often as asked for until a signal comes.
///
/// # Errors
/// When it cannot be written, and when the machine cannot be read; then the file says that it could not.
pub fn run(args: &Args, path: &Path, setup: Setup) -> Result<(), Failure> {
    if args.to_stdout() {
        let Scraped { text, failure, .. } = setup.once();
        terminal::print(text.as_bytes())?;
        return failure.map_or(Ok(()), Err);
    }
    check(path)?;
    let Some(interval) = args.interval else {
        let Scraped { text, failure, .. } = setup.once();
        write(path, text.as_bytes())?;
        return failure.map_or(Ok(()), Err);
    };
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| Failure::failed(format!("cannot listen to signals: {error}"), None))?;
    let (ends, ended) = channel();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.forever().next().map(|signal| ends.send(signal)))
        .map_err(|error| Failure::failed(format!("cannot start a thread: {error}"), None))?;
    let mut scraper = Scraper::open(setup)?;
    let mut said = super::Said::default();
    let mut notes: Vec<String> = Vec::new();
    loop {
        let began = Instant::now();
        let scraped = scraper.scrape();
        said.say(&scraped);
        write(path, scraped.text.as_bytes())?;
        let noted = scraper.rest();
        if noted != notes {
            source::notes(noted);
            notes = noted.to_vec();
        }
        super::notify(sd_notify::NotifyState::Ready);
        let left = interval.saturating_sub(began.elapsed());
        match ended.recv_timeout(left.max(Duration::from_millis(1))) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => {
                super::notify(sd_notify::NotifyState::Stopping);
                return Ok(());
            }
        }
    }
}

/// That the name may be given to a new file: a device or a link is not to be replaced by one.
fn check(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(Failure::failed(
            format!("'{}' is no regular file", path.display()),
            Some("it would be replaced by one; '-' is standard output".to_owned()),
        )),
        _ if path.file_name().is_none() => Err(Failure::usage(
            format!("'{}' names no file", path.display()),
            "node_exporter reads files whose names end in .prom".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// Puts `text` in the place of the file.
///
/// # Errors
/// When that fails; what was there before stays.
pub fn write(path: &Path, text: &[u8]) -> Result<(), Failure> {
    put(path, text).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "the directory must be there already",
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "a file beside it is written first, so its directory must be writable"
            }
            _ => "what was there before is unchanged",
        };
        Failure::failed(
            format!("cannot write '{}': {error}", path.display()),
            Some(hint.to_owned()),
        )
    })
}

fn put(path: &Path, text: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let beside = Beside(beside(directory, path));
    let mut file = beside.create()?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside.0, path)?;
    // The name is in place; some file systems cannot make a directory durable.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

/// A name that node_exporter does not read, because it does not end in `.prom`.
fn beside(directory: &Path, path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    directory.join(name)
}

/// A file that goes away unless it was given its name.
struct Beside(PathBuf);

impl Beside {
    fn create(&self) -> io::Result<File> {
        let create = || {
            let mut options = OpenOptions::new();
            options
                .write(true)
                .create_new(true)
                .mode(MODE)
                .open(&self.0)
        };
        match create() {
            // Left by a process of the same number that was killed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&self.0)?;
                create()
            }
            done => done,
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Once it has its name there is nothing here.
        let _ = fs::remove_file(&self.0);
    }
}
