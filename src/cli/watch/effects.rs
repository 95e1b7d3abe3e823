//! What the dashboard asks for, done: names looked up, sockets destroyed, files written.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;

use crate::cli::args::Common;
use crate::cli::document::{self, Judged};
use crate::cli::failure::Failure;
use crate::cli::numbers::Numbers;
use crate::cli::observe::Told;
use crate::cli::status::{self, StatusDocument};
use crate::cli::{kill, lookup, record, source};
use crate::model::words::count;
use crate::model::{Namespace, Socket, Top};
use crate::query::Filter;
use crate::render::json::{Parts, SOCKETS, Sockets, Tail};
use crate::render::text::Safe;
use crate::tui::msg::Doomed;
use crate::tui::tabs::TabId;
use crate::tui::{App, Look};

/// Looks the names in a filter up.
///
/// # Errors
/// For a name that is not known, and when what is looked at cannot be opened.
pub fn resolve(common: &Common, filter: Filter) -> Result<Filter, Failure> {
    let mut machine = source::open(common)?;
    let names = Numbers::of(machine.as_ref(), common);
    let resolved = filter.resolve(&mut lookup::Names::new(machine.as_mut(), &names.interfaces))?;
    Ok(resolved)
}

/// Destroys sockets as `linger kill --yes` does, and says what came of it on so many columns.
pub fn kill(common: &Common, doomed: &[Doomed], width: usize) -> String {
    let mut said = Vec::new();
    let mut namespaces: Vec<Option<&Namespace>> = Vec::new();
    for one in doomed {
        if !namespaces.contains(&one.namespace.as_ref()) {
            namespaces.push(one.namespace.as_ref());
        }
    }
    for namespace in namespaces {
        let own = doomed
            .iter()
            .filter(|one| one.namespace.as_ref() == namespace);
        let sockets: Vec<Socket> = own.map(|one| one.socket).collect();
        let common = match namespace {
            Some(namespace) => Common {
                netns: namespace.option().map(OsString::from),
                ..common.clone()
            },
            None => common.clone(),
        };
        // What was destroyed in one namespace is told whatever becomes of the next.
        match kill::these(
            &common,
            namespace.map(|namespace| namespace.inode),
            &sockets,
        ) {
            // Writing to memory does not fail.
            Ok(acted) => drop(acted.report(width, &mut said)),
            Err(failure) => said.extend_from_slice(format!("{failure}\n").as_bytes()),
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// Whether a name asks for a capture.
pub fn is_capture(path: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "linger")
}

/// Records this machine as it is now.
///
/// # Errors
/// In words that are safe to print.
pub fn capture(common: &Common, path: &str) -> Result<String, String> {
    if common.from.is_some() {
        return Err("what is seen is a capture already: copy the file".to_owned());
    }
    // What to do about it is said for the command line.
    let words = |failure: Failure| {
        failure
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    source::only_one(common, "a capture is").map_err(words)?;
    let taken = record::capture(common, Path::new(path), false, |_| ()).map_err(words)?;
    let gap = if taken.coverage.complete() {
        ""
    } else {
        ", not complete"
    };
    Ok(format!(
        "written: {} ({}{gap})",
        Safe(path),
        count(taken.sockets, "socket")
    ))
}

/// Writes what is seen as JSON: the sockets that fit, the findings, the closes, or the overview.
///
/// # Errors
/// In words that are safe to print.
pub fn view(common: &Common, app: &App, path: &str) -> Result<String, String> {
    let wrong = |error: &dyn Display| format!("cannot write '{}': {error}", Safe(path));
    let Some(look) = app.look() else {
        return Err("nothing was seen yet".to_owned());
    };
    // What is seen is its owner's business, like a capture.
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut out = BufWriter::new(file.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => format!("'{}' exists: choose another name", Safe(path)),
        _ => wrong(&error),
    })?);
    let written = match app.tab() {
        TabId::Sockets => sockets(common, app, look, &mut out),
        TabId::Findings => findings(common, look, &mut out),
        TabId::Closings => closings(common, app, look, &mut out),
        TabId::Overview | TabId::Machine => status(common, look, &mut out),
    };
    written.map_err(|failure| wrong(&failure))?;
    out.flush().map_err(|error| wrong(&error))?;
    Ok(format!("written: {}", Safe(path)))
}

/// What an overview shows, as `linger.status/1`.
///
/// # Errors
/// When `out` fails.
pub fn status(common: &Common, look: &Look, out: &mut dyn Write) -> Result<(), Failure> {
    let Some(whole) = look.whole() else {
        return Ok(());
    };
    let counts = look.states.map(Option::unwrap_or_default);
    let states = status::states(&counts, look.unknown_states, &whole.coverage);
    let ranks = &look.ranks;
    let top = Top {
        processes: ranks
            .processes
            .iter()
            .map(|(process, n)| (process, *n))
            .take(10)
            .collect(),
        peers: ranks.peers.iter().take(10).copied().collect(),
        listeners: ranks
            .listeners
            .iter()
            .map(|(_, socket, n)| (socket, *n))
            .take(10)
            .collect(),
    };
    let told = told(look);
    let judged = Judged::new(&look.analysis, &told)?;
    let content = StatusDocument::new(states, look.total(), judged, &top, whole);
    document::write(
        out,
        "linger.status/1",
        common,
        whole,
        &look.warnings,
        content,
    )
}

fn findings(common: &Common, look: &Look, out: &mut dyn Write) -> Result<(), Failure> {
    let Some(whole) = look.whole() else {
        return Ok(());
    };
    let told = told(look);
    let judged = Judged::new(&look.analysis, &told)?;
    document::write(
        out,
        "linger.findings/1",
        common,
        whole,
        &look.warnings,
        judged,
    )
}

fn told(look: &Look) -> Vec<Told<'_>> {
    let all = look.stories().into_iter();
    all.filter_map(|(place, story)| {
        let snapshot = &look.places.get(usize::from(place))?.snapshot;
        Some(Told { story, snapshot })
    })
    .collect()
}

fn sockets(common: &Common, app: &App, look: &Look, out: &mut dyn Write) -> Result<(), Failure> {
    let Some(whole) = look.whole() else {
        return Ok(());
    };
    let head = source::head(SOCKETS, common, whole);
    let kept = look
        .places
        .iter()
        .any(|place| !place.snapshot.messages.is_empty());
    let parts = Parts {
        owners: look.owners,
        info: kept,
        memory: kept,
        extended: kept,
    };
    let mut document = Sockets::document(out, &head, parts)?;
    for row in app.rows() {
        look.record(*row, |record| document.push(record))
            .transpose()?;
    }
    let tail = Tail {
        complete: whole.coverage.complete(),
        warnings: &look.warnings,
        namespaces: &whole.namespaces,
    };
    document.finish(&tail)?;
    Ok(())
}

/// `linger.closings/1`
#[derive(Serialize)]
struct Closings {
    per_second: Vec<Second>,
}

/// The closes that this side began in a second, at least; unknown where nobody looked.
#[derive(Serialize)]
struct Second {
    seconds_ago: usize,
    closes: Option<u32>,
}

fn closings(common: &Common, app: &App, look: &Look, out: &mut dyn Write) -> Result<(), Failure> {
    let Some(whole) = look.whole() else {
        return Ok(());
    };
    let closes = app.closes(600);
    let first = closes
        .iter()
        .position(Option::is_some)
        .unwrap_or(closes.len());
    let ago = (0..closes.len()).rev();
    let seconds = ago.zip(&closes).skip(first);
    let per_second = seconds
        .map(|(seconds_ago, closes)| Second {
            seconds_ago,
            closes: *closes,
        })
        .collect();
    document::write(
        out,
        "linger.closings/1",
        common,
        whole,
        &look.warnings,
        Closings { per_second },
    )
}
