//! What a FILTER selects: its words and its file, and the dumps that have its rows.

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

use super::failure::Failure;
use crate::collect::{self, Row, Source, Want};
use crate::model::{Coverage, StateSet, TcpState};
use crate::query::{Filter, Pass};

/// The longest file that is read as a filter, in bytes. A filter is judged row by row: nobody waits for a longer one.
const LONGEST: u64 = 1024 * 1024;

/// The filter in the words and in the file, `-` being standard input.
///
/// # Errors
/// For what is not understood, with its place, and for a file that cannot be read or is no text.
pub fn filter(words: &[String], file: Option<&Path>) -> Result<Filter, Failure> {
    let typed = Filter::parse(words)?;
    let Some(file) = file else {
        return Ok(typed);
    };
    let stdin = file == Path::new("-");
    let name = if stdin {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    };
    let mut content = Vec::new();
    let read = if stdin {
        std::io::stdin()
            .lock()
            .take(LONGEST + 1)
            .read_to_end(&mut content)
    } else {
        File::open(file).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut content))
    };
    read.map_err(|error| {
        Failure::failed(
            format!("cannot read the filter '{name}': {error}"),
            Some("-F names a file with an expression; '-F -' reads standard input".to_owned()),
        )
    })?;
    let wrong = |what: &str| {
        Failure::usage(
            format!("'{name}' is no filter: {what}"),
            "a file of -F has an expression as text: 'dst 10.0.0.0/8', 'dport = :443', in any number of lines; those that begin with # are comments".to_owned(),
        )
    };
    if content.len() as u64 > LONGEST {
        return Err(wrong("it is longer than 1 MiB"));
    }
    let line = |at: usize| {
        let before = content.iter().take(at);
        before.filter(|byte| **byte == b'\n').count() + 1
    };
    if let Some(at) = content.iter().position(|byte| *byte == 0) {
        return Err(wrong(&format!("line {} has a NUL byte", line(at))));
    }
    let text = std::str::from_utf8(&content)
        .map_err(|error| wrong(&format!("line {} is not UTF-8", line(error.valid_up_to()))))?;
    Ok(typed.and_file(&name, text)?)
}

/// The dumps of a filter whose names are looked up.
pub struct Selection {
    passes: Vec<Pass>,
}

impl Selection {
    /// What fits `filter`.
    pub fn new(filter: Filter) -> Self {
        Self {
            passes: filter.passes(),
        }
    }

    /// The states in which a socket may fit.
    pub fn states(&self) -> StateSet {
        self.passes.iter().fold(StateSet::EMPTY, |states, pass| {
            states.union(pass.filter.states())
        })
    }

    /// Whether it asks for what the kernel alone knows, and tells only by what it leaves out.
    pub fn asks_autobound(&self) -> bool {
        self.passes.iter().any(|pass| pass.autobound.is_some())
    }

    /// Finds out whether `machine` can say what is asked, before anything is printed.
    ///
    /// # Errors
    /// For `autobound` where no kernel can be asked.
    pub fn check(&self, machine: &mut dyn Source) -> Result<(), Failure> {
        if !self.asks_autobound() {
            return Ok(());
        }
        let want = Want::states(StateSet::of(TcpState::Listen));
        for pass in Filter::parse(&["autobound".to_owned()])?.passes() {
            let asked = machine.select(&want, &pass.program, &mut |_| ControlFlow::Break(()));
            match asked {
                Err(error @ collect::Error::Unfiltered(_)) => {
                    let (first, last) = machine.facts().port_range().unwrap_or((32_768, 60_999));
                    return Err(Failure::failed(
                        format!("autobound: {error}"),
                        Some(format!(
                            "write 'sport >= :{first} and sport <= :{last}', the ports of net.ipv4.ip_local_port_range, from which the kernel chooses"
                        )),
                    ));
                }
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Pushes every row that may fit, with the filter that judges it. The kernel leaves out what it can.
    ///
    /// # Errors
    /// As [`Source::select`].
    pub fn dump(
        &self,
        machine: &mut dyn Source,
        want: &Want,
        row: &mut dyn FnMut(&Filter, &Row<'_>) -> ControlFlow<()>,
    ) -> Result<Coverage, collect::Error> {
        let mut coverage = Coverage::default();
        let mut stopped = false;
        for pass in &self.passes {
            let want = Want {
                states: want
                    .states
                    .intersection(pass.filter.states().of_protocol(want.protocol)),
                ..*want
            };
            let mut row = |found: Row<'_>| {
                let flow = row(&pass.filter, &found);
                stopped = flow.is_break();
                flow
            };
            let more = if want.protocol.over_ip() {
                machine.select(&want, &pass.program, &mut row)?
            } else if pass.autobound == Some(true) {
                // Ports are of IP: what has none is not autobound, and the kernel filters it by nothing.
                continue;
            } else {
                machine.dump(&want, &mut row)?
            };
            coverage.merge(more);
            if stopped {
                break;
            }
        }
        Ok(coverage)
    }
}

/// Looks at one socket, because the kernel tells marks only to the privileged, and says nothing to others.
///
/// # Errors
/// When it is not told, or nothing can be read.
pub fn marks_are_told(machine: &mut dyn Source, want: &Want) -> Result<(), Failure> {
    let mut told = true;
    machine.dump(want, &mut |row| {
        let Row::Inet { socket, attributes } = row else {
            return ControlFlow::Continue(());
        };
        if socket.is_mini() {
            return ControlFlow::Continue(());
        }
        told = attributes.mark.is_some();
        ControlFlow::Break(())
    })?;
    if told {
        return Ok(());
    }
    Err(Failure::failed(
        "fwmark: the marks of these sockets are not known",
        Some("the kernel tells them over netlink, and only to root or CAP_NET_ADMIN; a capture has them if it was made so".to_owned()),
    ))
}
