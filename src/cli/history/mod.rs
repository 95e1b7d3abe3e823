//! `linger history`: what is kept of the looks of before.

mod args;

pub use self::args::{Args, EXAMPLES, Moment};
