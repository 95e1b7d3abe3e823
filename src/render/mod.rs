//! Text and JSON from data; nothing here reads the system.

pub mod explain;
pub mod machine;
pub mod text;
