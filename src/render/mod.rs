//! Output: tables, text, JSON. Everything that others chose the bytes of is neutralised here.

pub mod cell;
pub mod info;
pub mod json;
pub mod rows;
pub mod text;
