//! The evidence: the sockets that fit, as the kernel told them, with their owners, before they are gone.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustc_hash::FxHashSet;

use super::Target;
use crate::cli::failure::Failure;
use crate::cli::state_dir;
use crate::collect::{Table, Want, netlink};
use crate::model::{Coverage, Facts, Host, Owners, Protocol};
use crate::record::{Error, Writer};

/// What a capture of chosen sockets holds.
pub struct Evidence<'a> {
    /// where
    pub host: &'a Host,
    /// when
    pub taken: Timestamp,
    /// what was asked for
    pub wants: &'a [Want],
    /// the sockets
    pub targets: &'a [Target],
    /// who holds what; of that only what belongs to the sockets is kept
    pub owners: &'a Owners,
    /// settings and counters
    pub facts: &'a Facts,
    /// what was not seen
    pub coverage: &'a Coverage,
}

/// Writes it under a name of its own, and says which.
///
/// # Errors
/// When it cannot be written; then there is no file.
pub fn write(directory: Option<&Path>, evidence: &Evidence<'_>) -> Result<PathBuf, Failure> {
    let directory = state_dir::prepare(directory).map_err(|failure| match failure {
        Failure::Said { message, .. } => nothing_done(&message),
        other => other,
    })?;
    let time = evidence.taken.to_zoned(TimeZone::UTC);
    let name = time.strftime("kill-%Y%m%dT%H%M%S%.3fZ").to_string();
    write_as(&directory, &name, evidence).map_err(|error| nothing_done(&error.to_string()))
}

fn nothing_done(why: &str) -> Failure {
    Failure::failed(
        format!("no capture, so nothing was destroyed: {why}"),
        Some(
            "--state-dir DIR names another directory; --no-capture destroys without keeping the evidence"
                .to_owned(),
        ),
    )
}

/// Takes the next name where one is taken: two commands may run within a millisecond.
fn write_as(directory: &Path, name: &str, evidence: &Evidence<'_>) -> Result<PathBuf, Error> {
    let mut taken = None;
    for number in 1..100u8 {
        let suffix = if number == 1 {
            String::new()
        } else {
            format!("-{number}")
        };
        let path = directory.join(format!("{name}{suffix}.linger"));
        match fill(&path, evidence) {
            Ok(()) => return Ok(path),
            Err(error @ Error::Exists { .. }) => taken = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(taken.unwrap_or_else(|| Error::Io {
        what: "create",
        path: directory.to_owned(),
        source: io::ErrorKind::AlreadyExists.into(),
    }))
}

fn fill(path: &Path, evidence: &Evidence<'_>) -> Result<(), Error> {
    let mut writer = Writer::create(path, false)?;
    writer.host(evidence.host)?;
    writer.begin_sample(evidence.taken)?;
    // Of other protocols than TCP a capture does not say what was asked for.
    if let Some(want) = evidence
        .wants
        .iter()
        .find(|want| want.protocol == Protocol::Tcp)
    {
        writer.asked(want)?;
    }
    for want in evidence.wants {
        for table in want.tables() {
            for target in evidence
                .targets
                .iter()
                .filter(|target| is_of(target, table))
            {
                if let Some(message) = &target.message {
                    writer.netlink(table, message)?;
                }
            }
            writer.netlink(table, &netlink::end())?;
        }
    }
    let inodes: FxHashSet<u32> = evidence
        .targets
        .iter()
        .map(|target| target.socket.inode)
        .collect();
    writer.owners(&evidence.owners.only(|inode| inodes.contains(&inode)))?;
    writer.facts(evidence.facts)?;
    let mut coverage = evidence.coverage.clone();
    coverage
        .missing
        .push("the sockets that did not fit the filter of 'linger kill'".to_owned());
    writer.coverage(&coverage)?;
    writer.finish()
}

fn is_of(target: &Target, table: Table) -> bool {
    table == Table::of(target.socket.protocol, target.socket.family)
}
