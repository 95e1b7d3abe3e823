//! What happens to a dashboard, and what it asks for.

use std::time::Duration;

use jiff::Timestamp;
use ratatui::crossterm::event::{KeyEvent, MouseEvent};

use super::look::Look;
use crate::fields::Needed;
use crate::model::{Namespace, Socket};
use crate::query::Filter;

/// Something happened.
#[derive(Debug)]
pub enum Msg {
    /// a key was pressed
    Key(KeyEvent),
    /// the mouse did something
    Mouse(MouseEvent),
    /// text was pasted
    Paste(String),
    /// the terminal has so many columns and rows now
    Resize(u16, u16),
    /// there was a look
    Look(Box<Look>),
    /// a look failed, for this reason
    Failed(String),
    /// the names in a filter were looked up
    Resolved {
        /// as it was typed
        text: String,
        /// the filter, or what is wrong with it
        filter: Result<Filter, String>,
    },
    /// sockets were destroyed, or not: what is to be said of it, safe to print
    Killed(Result<String, String>),
    /// what was to be written was written, or why not
    Exported(Result<String, String>),
    /// the replay plays or stands still, at this speed
    Playing {
        /// whether it plays
        playing: bool,
        /// frames come so much faster than they were recorded
        speed: f64,
    },
}

/// What has to be collected, beside what the detectors ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// the socket whose every attribute is shown
    pub cookie: Option<u64>,
    /// what the columns and the filter need of every socket
    pub needed: Needed,
}

/// What whoever runs the dashboard has to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// end
    Quit,
    /// stop until somebody says `fg`
    Suspend,
    /// forget what is on the terminal and draw everything
    Redraw,
    /// look now
    LookNow,
    /// look so often
    Interval(Duration),
    /// collect this from now on, and look now
    Wish(Wish),
    /// look the names in a filter up
    Resolve {
        /// as it was typed
        text: String,
        /// what it means
        filter: Filter,
    },
    /// destroy these sockets, the evidence kept first
    Kill(Vec<Doomed>),
    /// write to a file: what is seen as JSON, or a capture of this machine
    Export(String),
    /// go to a frame of the recording
    Seek(Seek),
    /// play or stand still
    Play(bool),
    /// play so much faster than it was recorded
    Speed(f64),
}

/// A socket that is to be destroyed.
#[derive(Clone, Debug)]
pub struct Doomed {
    /// the socket as it was shown
    pub socket: Socket,
    /// where it is; `None` where only one namespace is looked at
    pub namespace: Option<Namespace>,
}

/// Where to in a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// so many frames on, or back
    By(i64),
    /// to the frame with this index
    To(usize),
    /// to the last frame at or before this time
    At(Timestamp),
}
