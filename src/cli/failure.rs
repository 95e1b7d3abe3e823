//! How a command fails: what failed, on what, a hint with the next thing to do, and the exit code.

use std::fmt;
use std::io;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::Cli;
use super::fingers;
use crate::analyze::settings;
use crate::{collect, query, record};

/// Exit code of what failed.
pub const FAILED: u8 = 1;
/// Exit code of wrong usage.
pub const USAGE: u8 = 2;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// standard output was closed by its reader, who has seen enough
    Closed,
    /// clap has the words
    Clap(clap::Error),
    /// everything else
    Said {
        /// what failed, on what
        message: String,
        /// the next thing to do
        hint: Option<String>,
        /// the exit code
        code: u8,
    },
}

impl Failure {
    /// Wrong usage.
    pub const fn usage(message: String, hint: String) -> Self {
        Self::Said {
            message,
            hint: Some(hint),
            code: USAGE,
        }
    }

    /// Something failed.
    pub fn failed(message: impl Into<String>, hint: Option<String>) -> Self {
        Self::Said {
            message: message.into(),
            hint,
            code: FAILED,
        }
    }

    /// The exit code.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Clap(_) => USAGE,
            Self::Said { code, .. } => *code,
        }
    }
}

impl Failure {
    /// What failed, and the next thing to do.
    pub fn words(&self) -> (String, Option<String>) {
        match self {
            Self::Closed => ("standard output is closed".to_owned(), None),
            Self::Clap(error) => {
                let (message, hint) = clap_words(error);
                (message, Some(hint))
            }
            Self::Said { message, hint, .. } => (message.clone(), hint.clone()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => Ok(()),
            said => {
                let (message, hint) = said.words();
                // Names of files and states are the user's, or somebody else's: one line, nothing that steers.
                write!(f, "linger: {}", Lines(&message))?;
                hint.as_ref()
                    .map_or(Ok(()), |hint| write!(f, "\nhint: {}", Lines(hint)))
            }
        }
    }
}

/// The same, with the command whose help has more: of a value that is none clap does not say it.
pub fn of_command(mut error: clap::Error, command: &str) -> clap::Error {
    if error.use_stderr() && error.get(ContextKind::Usage).is_none() {
        let usage = format!("Usage: {command} [OPTIONS]");
        error.insert(ContextKind::Usage, ContextValue::StyledStr(usage.into()));
    }
    error
}

/// clap's words in our form: what was wrong in one line, then one hint.
fn clap_words(error: &clap::Error) -> (String, String) {
    let text = error.to_string();
    let mut message = String::new();
    let mut hint = None;
    let mut usage = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            // Behind `--` an option would be a filter, and that is not what was meant.
            if !tip.starts_with("to pass") {
                hint.get_or_insert_with(|| tip.to_owned());
            }
        } else if line.starts_with("[possible values: ") {
            hint = Some(line.trim_matches(['[', ']']).to_owned());
        } else if let Some(line) = line.strip_prefix("Usage: ") {
            usage = Some(line.to_owned());
        } else if line.starts_with("For more information") {
            break;
        } else if usage.is_none() && hint.is_none() {
            message.push_str(if message.is_empty() { "" } else { " " });
            message.push_str(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    let unknown = error
        .get(ContextKind::InvalidArg)
        .map(ToString::to_string)
        .filter(|_| error.kind() == ErrorKind::UnknownArgument);
    if let Some(option) = &unknown {
        if let Some(other) = fingers::hint(option) {
            hint = Some(other);
        } else if of_list(option) && chooses_others(option) && of_kill(usage.as_deref()) {
            hint = Some(
                "only TCP and UDP sockets can be destroyed (-t, -u); 'linger list' shows the others"
                    .to_owned(),
            );
        } else if of_list(option) {
            hint = Some(format!("{option} is an option of 'linger list'"));
        }
    }
    // netstat's -c takes no value.
    if error.kind() == ErrorKind::InvalidValue
        && error
            .get(ContextKind::InvalidArg)
            .is_some_and(|argument| argument.to_string().starts_with("--columns"))
    {
        let again = fingers::hint("--continuous").unwrap_or_default();
        hint = Some(format!("'linger list -c help' lists the columns; {again}"));
    }
    let command = usage.unwrap_or_else(|| "linger".to_owned());
    // `subject` is what a bare word stands for, and nobody's to type.
    let command: Vec<&str> = command
        .split(' ')
        .take_while(|word| !word.starts_with(['[', '<', '-']) && *word != "subject")
        .collect();
    (
        message,
        hint.unwrap_or_else(|| format!("'{} --help' lists what there is", command.join(" "))),
    )
}

/// Whether the option asks for sockets of other protocols than TCP and UDP.
fn chooses_others(option: &str) -> bool {
    [
        "-x",
        "--unix",
        "-w",
        "--raw",
        "-0",
        "--packet",
        "-M",
        "--mptcp",
        "-S",
        "--sctp",
        "-f",
        "--family",
        "-A",
        "--query",
        "--udplite",
        "--vsock",
        "--netlink",
    ]
    .contains(&option)
}

fn of_kill(usage: Option<&str>) -> bool {
    usage.is_some_and(|usage| usage.starts_with("linger kill"))
}

/// Whether `list` has the option.
fn of_list(option: &str) -> bool {
    let cli = Cli::command();
    cli.find_subcommand("list").is_some_and(|list| {
        list.get_arguments().any(|argument| {
            let long = argument.get_long().map(|name| format!("--{name}"));
            let short = argument.get_short().map(|letter| format!("-{letter}"));
            [long, short]
                .into_iter()
                .flatten()
                .any(|name| name == option)
        })
    })
}

/// Text whose lines are safe each; the caret of a filter error stands on a line of its own.
struct Lines<'a>(&'a str);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, line) in self.0.lines().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", crate::render::text::Safe(line))?;
        }
        Ok(())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Closed;
        }
        Self::failed(format!("cannot write: {error}"), None)
    }
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Self::Clap(error)
    }
}

impl From<collect::Error> for Failure {
    fn from(error: collect::Error) -> Self {
        let hint = match &error {
            collect::Error::NoSockDiag(_) => {
                Some("--collector auto falls back to /proc/net".to_owned())
            }
            collect::Error::Capture(_) => Some(
                "a copy must be whole and binary, on a machine of the same byte order; 'linger record' makes a new one"
                    .to_owned(),
            ),
            collect::Error::File { .. } | collect::Error::Nothing(_) => {
                Some("--proc-root names the directory that is read, /proc unless set".to_owned())
            }
            collect::Error::Namespace(error) => error.hint(),
            _ => None,
        };
        Self::failed(error.to_string(), hint)
    }
}

impl From<collect::netns::Error> for Failure {
    fn from(error: collect::netns::Error) -> Self {
        collect::Error::from(error).into()
    }
}

impl From<record::Error> for Failure {
    fn from(error: record::Error) -> Self {
        let said = match &error {
            record::Error::Io { what, source, .. } => match (*what, source.kind()) {
                ("create", io::ErrorKind::NotFound) => Some("the directory must be there already"),
                // Both are about a file to be written; to read one is another matter.
                ("create" | "look at", io::ErrorKind::PermissionDenied) => {
                    Some("name a file in a directory that you may write to")
                }
                (_, io::ErrorKind::NotFound) => {
                    Some("--from names a file that 'linger record FILE' has written")
                }
                _ => None,
            },
            _ => None,
        };
        let hint = said.map(str::to_owned).or_else(|| error.hint());
        Self::failed(error.to_string(), hint)
    }
}

impl From<query::Error> for Failure {
    fn from(error: query::Error) -> Self {
        Self::usage(error.to_string(), error.hint())
    }
}

impl From<settings::Error> for Failure {
    fn from(error: settings::Error) -> Self {
        Self::usage(error.to_string(), error.hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_refuses_a_capture_is_not_a_capture_that_refuses_to_be_read() {
        for (what, hint) in [
            ("look at", "a directory that you may write to"),
            ("create", "a directory that you may write to"),
            ("read", "readable by their owner only"),
        ] {
            let said = Failure::from(record::Error::Io {
                what,
                path: "/root/x.linger".into(),
                source: io::ErrorKind::PermissionDenied.into(),
            });
            assert!(said.to_string().contains(hint), "{said}");
        }
    }
}
