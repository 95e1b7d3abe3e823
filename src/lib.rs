//! linger reads the kernel's sockets, maps them onto the documented TCP states, and says which are stuck, why,
//! and what to do.
//!
//! ```text
//! Source --rows--> Snapshot --> Tally + History --> Detectors --> Findings --> table | JSON | screen
//! ```
//!
//! * [`model`]: plain data, no I/O.
//! * [`collect`]: the only place that reads the system: netlink, `/proc`.
//! * [`fields`]: the registry of columns. A new one is a `Field` in its group's file and a line in [`fields::ALL`].
//! * [`query`]: the filter language.
//! * [`render`]: rows, text and JSON.

pub mod collect;
pub mod fields;
pub mod model;
pub mod query;
pub mod render;
