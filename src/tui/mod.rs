//! The dashboard: what `linger watch` shows, and what its keys do.
//!
//! Pure: [`App::update`] takes a [`Msg`] and returns the [`Effect`]s that whoever runs it has to carry out; [`draw()`] shows an
//! [`App`] and changes nothing. No clock, no socket and no file is touched here, so that a frame can be drawn into a test
//! or a pipe as onto a terminal. Only [`guard`] knows that there is a terminal.
//!
//! A tab is a file of `tabs/` and its line in [`tabs::TabId`]; a key is a line of [`keys::BINDINGS`], from which the help is
//! made too.

pub mod app;
pub mod cursor;
pub mod dialogs;
pub mod draw;
pub mod guard;
pub mod keys;
pub mod look;
pub mod msg;
pub mod page;
pub mod prompt;
pub mod tabs;
#[cfg(test)]
mod testing;
pub mod theme;
pub mod trend;

pub use app::{App, Setup};
pub use draw::draw;
pub use look::{Look, Place, Row};
pub use msg::{Effect, Msg};
pub use theme::Theme;
