//! How a kill ends.

use crate::cli::failure::Failure;
use crate::knowledge::killing::Fate;
use crate::model::Socket;
use crate::model::words::count;

/// The exit code, and what failed.
///
/// # Errors
/// When a socket could not be destroyed, or all that fit are left alone.
pub fn verdict(sockets: &[(Socket, Fate)], doomed: bool) -> Result<(), Failure> {
    let failed: Vec<&Fate> = sockets
        .iter()
        .map(|(_, fate)| fate)
        .filter(|fate| matches!(fate, Fate::Failed(_)))
        .collect();
    if let Some(first) = failed.first() {
        return Err(Failure::failed(
            format!(
                "{} of {} could not be destroyed: {}",
                failed.len(),
                count(sockets.len() as u64, "socket"),
                first.reason().unwrap_or_default()
            ),
            None,
        ));
    }
    if doomed || sockets.is_empty() {
        return Ok(());
    }
    let mut options: Vec<&str> = sockets
        .iter()
        .filter_map(|(_, fate)| fate.option())
        .collect();
    options.sort_unstable();
    options.dedup();
    let hint = match &options[..] {
        [] => None,
        options => Some(format!(
            "{} would have them destroyed all the same",
            options.join(" ")
        )),
    };
    Err(Failure::failed(
        format!(
            "{} fit, and all are left alone: nothing was touched",
            count(sockets.len() as u64, "socket")
        ),
        hint,
    ))
}
