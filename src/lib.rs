//! linger reads the kernel's sockets, maps them onto the documented TCP states, and says which are stuck, why,
//! and what to do.
//!
//! ```text
//! Source --rows--> Snapshot --> Tally + History --> Detectors --> Findings --> table | JSON | screen
//! ```
//!
//! The rooms; each imports only what stands further down on this list, `model` is below all:
//!
//! * [`cli`]: the command line, the only composer.
//! * [`tui`]: the dashboard, pure: messages in, effects out.
//! * [`record`]: captures: what a machine said, to be read again anywhere.
//! * [`render`]: text, JSON and metrics from data.
//! * [`analyze`]: the detectors, their registry and thresholds.
//! * [`query`]: what a FILTER means.
//! * [`collect`]: the only place that reads the system: netlink, `/proc`, other network namespaces.
//! * [`history`]: counts of a snapshot, and what earlier looks say about later ones.
//! * [`fields`]: the columns of a row, each known once.
//! * [`knowledge`]: the states and what is to know about them, as text and data.
//! * [`model`]: plain data, no I/O.
//!
//! Where do I add ...
//!
//! * a detector: its file in `analyze/detectors/` and its line in `analyze/detectors/mod.rs`; then its alerts are made by
//!   `UPDATE_CONTRIB=1 cargo test --test contrib`
//! * a measure of `linger check`: its line in `analyze/measures/mod.rs`, and how it is read in a file beside that
//! * a column: its line in one of the files of `fields/`
//! * a state's or topic's text: `knowledge/`
//! * a part of a capture: `record/`, with a section of its own
//! * a table or column of the history: the next step in `history/store/schema.rs`; a member of what is kept of a look:
//!   another number in `history/store/blob.rs`
//! * a metric: its line in `render/prometheus/metrics.rs`, from which the manual page is made, and where it is written in
//!   `render/prometheus/mod.rs`
//! * a tab of the dashboard: its file in `tui/tabs/` and its line in `tui::tabs::TabId`; the compiler asks for the rest
//! * a key of the dashboard: its line in `tui::keys::BINDINGS`, from which `?`, `--help` and the manual page are made, and
//!   what its action does in `tui/app.rs` or in the tab

pub mod analyze;
pub mod cli;
pub mod collect;
pub mod fields;
pub mod history;
pub mod knowledge;
pub mod model;
pub mod query;
pub mod record;
pub mod render;
pub mod tui;
