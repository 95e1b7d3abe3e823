//! Output: tables, text, JSON. Nothing here reads the system, and everything that others chose the bytes of is
//! neutralised here.

pub mod cell;
pub mod csv;
pub mod diff;
mod end;
pub mod explain;
mod extensions;
pub mod findings;
pub mod groups;
pub mod history;
pub mod info;
pub mod json;
pub mod kill;
pub mod line;
pub mod machine;
pub mod nagios;
pub mod paint;
pub mod pairs;
pub mod prometheus;
pub mod rows;
pub mod sample;
pub mod status;
pub mod story;
pub mod text;
