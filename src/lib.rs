//! linger reads the kernel's sockets, maps them onto the documented TCP states, and says which are stuck, why,
//! and what to do.
//!
//! ```text
//! Source --rows--> Snapshot --> Tally + History --> Detectors --> Findings --> table | JSON | screen
//! ```
//!
//! * [`model`]: plain data, no I/O.
//! * [`collect`]: the only place that reads the system: netlink, `/proc`.
//! * [`knowledge`]: the states and what is to know about them, as text and data.
//! * [`render`]: text and JSON from the above.
//! * [`record`]: captures: what a machine said, to be read again anywhere.

pub mod analyze;
pub mod collect;
pub mod history;
pub mod knowledge;
pub mod model;
pub mod record;
pub mod render;
