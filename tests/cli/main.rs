//! The program as scripts and people meet it: what is typed, what comes out on which stream, and the exit code. Data
//! are the recordings of `tests/data`, so that nothing depends on the machine; `tests/data/README` says how they were
//! made.

#[cfg(test)]
mod check;
#[cfg(test)]
mod columns;
#[cfg(test)]
mod config;
#[cfg(test)]
mod diff;
#[cfg(test)]
mod documents;
mod edited;
#[cfg(test)]
mod files;
#[cfg(test)]
mod filters;
#[cfg(test)]
mod fingers;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod plugin;
#[cfg(test)]
mod resolved;
#[cfg(test)]
#[path = "../schema/mod.rs"]
mod schema;
#[cfg(test)]
mod schemas;
#[cfg(test)]
mod screens;
#[cfg(test)]
mod series;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod ssdump;
#[cfg(test)]
mod support;
mod whose;
#[cfg(test)]
mod words;
