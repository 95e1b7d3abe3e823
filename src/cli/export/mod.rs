//! `linger export`: metrics for Prometheus, served over HTTP or written to a file.

mod answer;
mod args;
mod collector;
mod connection;
mod figures;
mod listen;
pub mod manual;
mod scrape;
mod serve;
mod textfile;

use std::io::Write;

use sd_notify::NotifyState;

pub use self::args::{Args, EXAMPLES, hidden};
use self::scrape::{Scraped, Setup};
use super::failure::Failure;

/// Serves until a signal comes, or writes the file.
///
/// # Errors
/// When there is nowhere to listen or to write, and when the machine or the capture cannot be opened.
pub fn run(args: &Args) -> Result<(), Failure> {
    args.check()?;
    match &args.textfile {
        Some(path) => textfile::run(args, path, Setup::new(args)?),
        None => serve::run(args),
    }
}

/// Tells whoever started this as a service.
fn notify(state: NotifyState<'_>) {
    // A service manager that does not listen is no reason to stop.
    let _ = sd_notify::notify(&[state]);
}

/// Says on standard error, which is gone where nobody reads it.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// What was said of scrapes on standard error: each failure once until another comes, or it is over.
#[derive(Debug, Default)]
struct Said(Option<String>);

impl Said {
    fn say(&mut self, scraped: &Scraped) {
        let now = scraped.failure.as_ref().map(ToString::to_string);
        if now != self.0 {
            match &now {
                Some(failure) => say(format_args!("{failure}")),
                None => say(format_args!("linger: the sockets can be read again")),
            }
            self.0 = now;
        }
    }
}
