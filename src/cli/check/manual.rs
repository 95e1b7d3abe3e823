//! What the manual page of `linger check` says beyond the options.

use std::io;

use crate::cli::man::{again, item, paragraph, section, verbatim};

/// The sections before the examples.
///
/// # Errors
/// When `out` fails.
pub fn write(out: &mut Vec<u8>) -> io::Result<()> {
    section(out, "METRICS")?;
    paragraph(
        out,
        "STATE is a state in any spelling, PORT the number of a port, COMM the name of a program as in /proc/PID/comm. \
        A ratio goes from 0 to 1. A listener that is not there is CRITICAL, whatever the range; what is not known is \
        UNKNOWN, and never 0.",
    )?;
    verbatim(out, None, &super::metrics())?;
    section(out, "OUTPUT")?;
    paragraph(
        out,
        "The first line has the status, what is worst, how much more there is, and behind | the perfdata: with --metric a \
        value for each metric under its name, with its ranges as given; without, tcp.STATE for every state, the \
        findings as critical, warning and info, the checks that cannot_tell, those that are muted, and the time it took. A \
        metric that is not known has no value there. More lines come only with -v. Names that others have chosen are \
        made safe: in them | becomes _.",
    )?;
    again(
        out,
        "With --json the same is one document, linger.check/1, and so is every failure.",
    )?;
    section(out, "AS A PLUGIN")?;
    paragraph(
        out,
        "A link with the name check_linger makes linger a plugin: everything behind that name is an option of check. The name \
        counts by which it is called, not that of the file. Owners of other users' sockets, and other network namespaces, \
        take the privileges that linger(8) names; without them a check that needs them cannot tell, and all others judge.",
    )
}

/// What the exit status means.
///
/// # Errors
/// When `out` fails.
pub fn end(out: &mut Vec<u8>) -> io::Result<()> {
    for (code, doc) in [
        (
            "0",
            "OK: nothing at warning or above, and every metric within its ranges.",
        ),
        ("1", "WARNING."),
        (
            "2",
            "CRITICAL; also the metric of a listener that is not there.",
        ),
        (
            "3",
            "UNKNOWN: nothing could be judged, or not what was asked for with --only or --metric, or the table of TCP was not \
            read whole; wrong usage, a configuration that is not understood, a time-out, an output that nobody reads. Called as \
            check_linger, --help, --version and --list-metrics too.",
        ),
    ] {
        item(out, code, doc)?;
    }
    again(
        out,
        "Of several the worst counts: CRITICAL, then WARNING, then UNKNOWN, then OK. A first run, a user without privileges and a \
        file system that cannot be written to are no reason for UNKNOWN.",
    )
}
