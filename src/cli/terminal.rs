//! What standard output is: a terminal of some width, or a pipe.

use std::io::{IsTerminal, Write, stdout};

use super::args::ColorChoice;
use super::failure::Failure;
use crate::render::findings::Screen;
use crate::render::paint::Paint;

/// The columns where nothing says how many there are.
const WIDTH: usize = 80;

/// How standard output shows text.
pub fn screen(color: ColorChoice) -> Screen {
    Screen {
        width: width(),
        unicode: unicode(),
        paint: Paint(colours(color)),
    }
}

/// The columns of the terminal; `None` in a pipe without `COLUMNS`.
pub fn columns() -> Option<usize> {
    let set = std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok());
    let seen = || {
        rustix::termios::tcgetwinsize(stdout())
            .ok()
            .map(|size| usize::from(size.ws_col))
    };
    set.or_else(seen).filter(|columns| *columns > 0)
}

/// The rows of the terminal; `None` in a pipe without `LINES`.
pub fn rows() -> Option<u16> {
    let set = std::env::var("LINES")
        .ok()
        .and_then(|text| text.parse().ok());
    let seen = || {
        rustix::termios::tcgetwinsize(stdout())
            .ok()
            .map(|size| size.ws_row)
    };
    set.or_else(seen).filter(|rows| *rows > 0)
}

/// Whether standard output is a terminal.
pub fn is_terminal() -> bool {
    stdout().is_terminal()
}

fn width() -> usize {
    columns().unwrap_or(WIDTH)
}

fn unicode() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty());
    locale.is_some_and(|locale| {
        let folded = locale.to_ascii_lowercase();
        folded.contains("utf-8") || folded.contains("utf8")
    })
}

fn colours(choice: ColorChoice) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if set("NO_COLOR") => false,
        ColorChoice::Auto
            if std::env::var("CLICOLOR_FORCE").is_ok_and(|v| !v.is_empty() && v != "0") =>
        {
            true
        }
        ColorChoice::Auto => {
            stdout().is_terminal()
                && std::env::var("TERM").is_ok_and(|term| term != "dumb")
                && std::env::var("CLICOLOR").map_or(true, |value| value != "0")
        }
    }
}

/// Writes a finished page to standard output.
///
/// # Errors
/// When standard output fails; a reader that has gone is [`Failure::Closed`].
pub fn print(page: &[u8]) -> Result<(), Failure> {
    let mut out = stdout().lock();
    out.write_all(page)?;
    out.flush()?;
    Ok(())
}
