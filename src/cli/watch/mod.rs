//! `linger watch`: the dashboard, and its frames as text.

mod args;
mod effects;
mod eye;
mod looker;
pub mod manual;
mod names;
mod screen;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

pub use self::args::{Args, EXAMPLES};
use self::eye::Eye;
use super::failure::Failure;
use super::{observe, source, terminal};
use crate::analyze::Settings;
use crate::query::Filter;
use crate::tui::look::Pace;
use crate::tui::msg::Seek;
use crate::tui::{self, App, Effect, Msg, Theme, page};

/// The rows of a frame where nothing says how many there are.
const ROWS: u16 = 24;

/// What reaches whoever draws.
#[derive(Debug)]
pub enum Event {
    /// the terminal says something
    Terminal(ratatui::crossterm::event::Event),
    /// the terminal says nothing any more
    Deaf,
    /// a signal came
    Signal(i32),
    /// something to show
    Msg(Msg),
    /// a thread has ended that had better not
    Broken,
}

/// Shows the dashboard until somebody has seen enough, or prints frames.
///
/// # Errors
/// When there is no terminal, when the machine or recording cannot be read, and when the screen fails.
pub fn run(args: &Args) -> Result<(), Failure> {
    let settings = observe::settings(&args.select, &args.common)?;
    let filter = Filter::parse(&args.filter)?;
    if args.once || args.batch {
        return print(args, settings, filter);
    }
    if args.common.json {
        return Err(Failure::usage(
            "--json is no screen".to_owned(),
            "'linger watch --once --json' prints what one frame shows, --batch a document a tick"
                .to_owned(),
        ));
    }
    let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    if !std::io::stdout().is_terminal() || dumb {
        return Err(Failure::failed(
            if dumb {
                "the terminal is dumb (TERM): the dashboard cannot be drawn on it"
            } else {
                "standard output is no terminal"
            },
            Some("'linger watch --batch' prints a frame a tick as text, 'linger watch --once' a single one".to_owned()),
        ));
    }
    screen::run(args, settings, filter)
}

/// With what the dashboard begins.
fn setup(args: &Args, size: (u16, u16), colour: bool, replay: bool) -> tui::Setup {
    let screen = terminal::screen(args.common.color);
    let zone = TimeZone::system();
    let now = jiff::Timestamp::now().to_zoned(zone.clone());
    tui::Setup {
        theme: Theme {
            unicode: screen.unicode,
            colour,
        },
        size,
        interval: args.interval,
        replay,
        again: source::again(&args.common),
        zone,
        tab: args.tab.unwrap_or_default(),
        export: format!("linger-{}", now.strftime("%Y%m%d-%H%M%S")),
    }
}

/// Shows the sockets of the filter that was typed behind the command.
fn begin(app: &mut App, args: &Args, filter: Filter) -> Result<Vec<Effect>, Failure> {
    if filter.is_empty() {
        return Ok(Vec::new());
    }
    let resolved = effects::resolve(&args.common, filter)?;
    let effects = app.filter(&args.filter.join(" "), resolved);
    // Who names a tab wants to see that one.
    if let Some(tab) = args.tab {
        app.show(tab);
    }
    Ok(effects)
}

/// Frames as text: one, or one a tick.
fn print(args: &Args, settings: Settings, filter: Filter) -> Result<(), Failure> {
    let screen = terminal::screen(args.common.color);
    let size = (
        u16::try_from(screen.width).unwrap_or(u16::MAX).min(1_000),
        terminal::rows().unwrap_or(ROWS),
    );
    let mut eye = Eye::open(&args.common, settings, !args.no_owners)?;
    let replay = eye.frame().is_some();
    let mut app = App::new(setup(args, size, screen.paint.0, replay));
    for effect in begin(&mut app, args, filter)? {
        if let Effect::Wish(wish) = effect {
            eye.wish(wish);
        }
    }
    let mut left = if args.once { Some(1) } else { args.count };
    // One look has no changes: of a machine the first frame shows the second look. A recording is shown as it is, and of
    // its frames a single one is the last.
    let mut shown = replay;
    if args.once && replay {
        eye.seek(Seek::To(usize::MAX))?;
    }
    let mut took = [Duration::ZERO; 2];
    while left != Some(0) {
        let began = Instant::now();
        let mut look = eye.look()?;
        took = [look.pace.took, took[0]];
        let every = looker::pace(args.interval, took);
        look.pace = Pace {
            interval: args.interval,
            every,
            ..look.pace
        };
        app.update(Msg::Look(Box::new(look)));
        if shown {
            if args.common.json {
                if let Some(look) = app.look() {
                    let mut document = Vec::new();
                    effects::status(&args.common, look, &mut document)?;
                    terminal::print(&document)?;
                }
            } else {
                let mut buffer = Buffer::empty(Rect::new(0, 0, size.0, size.1));
                tui::draw(&app, &mut buffer);
                let mut text = page::text(&buffer, screen.paint.0);
                if args.batch {
                    text.push('\n');
                }
                terminal::print(text.as_bytes())?;
            }
            left = left.map(|left| left - 1);
        }
        shown = true;
        if left == Some(0) || replay && !eye.seek(Seek::By(1))? {
            break;
        }
        if !replay {
            std::thread::sleep(
                every
                    .saturating_sub(began.elapsed())
                    .max(Duration::from_millis(1)),
            );
        }
    }
    std::io::stdout().flush()?;
    Ok(())
}
