//! What the manual page of `linger export` says beyond the options: the metrics, from their table, and what signals do.

use std::io;

use crate::cli::man::{again, item, paragraph, section};
use crate::render::prometheus::metrics::METRICS;

/// The sections before the examples.
pub fn write(out: &mut Vec<u8>) -> io::Result<()> {
    section(out, "METRICS")?;
    paragraph(
        out,
        "States are spelled as by node_exporter, with bound_inactive beside its eleven; every state is there, with 0 where no \
        socket is in it. What is not known is absent, and never 0. No label has a pid, an address or a port of a client.",
    )?;
    for metric in METRICS {
        let labels = match metric.labels {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        let kind = metric.kind.name();
        item(
            out,
            &format!("{}{labels} ({kind})", metric.name),
            metric.help,
        )?;
    }
    section(out, "SERVING")?;
    paragraph(
        out,
        "The metrics are at --web.telemetry-path, / has a link to them, and /-/healthy answers 200 as long as requests are \
        answered. GET and HEAD only; bodies of requests are not read. A header may have 16 KiB and take 5 s, an answer has to \
        be taken within 10 s, and a connection may be idle for 120 s; it is closed behind a question that did not wait for the \
        answer before it. There are 64 connections at a time; when another comes, \
        the one that has done nothing for the longest gives way, and never one that waits for its metrics.",
    )?;
    again(
        out,
        "The first reading is made at the start, so that the first scrape has rates. All readings are made one after the other: \
        scrapes that come during one share the next, so that each has what was read after it asked. Findings and rates are judged \
        by readings that are at least 5 s older, so that several Prometheus servers may scrape as they like.",
    )?;
    section(out, "TEXTFILE")?;
    paragraph(
        out,
        "The file is written beside its name first, with mode 0644, made durable, and renamed; whoever reads finds the old \
        text or the new one. It has to be a regular file or none. Written once, counters are read twice, a second apart, \
        as by linger-diagnose(8).",
    )
}

/// What the exit status means here, and the section behind it.
pub fn end(out: &mut Vec<u8>) -> io::Result<()> {
    paragraph(
        out,
        "0 if it was ended by SIGTERM or SIGINT, or has written its file; 1 if it cannot listen or write, if the machine or \
        the capture cannot be opened, and, with --textfile written once, if the sockets cannot be read (the file then says \
        linger_source_up 0); 2 for wrong usage.",
    )?;
    section(out, "SIGNALS")?;
    item(
        out,
        "SIGTERM, SIGINT",
        "It takes no more connections, gives scrapes that run 2 s to end, and exits with 0.",
    )?;
    item(
        out,
        "SIGHUP",
        "Ends it as any program, unless it is ignored, as by nohup(1). Nothing is read anew: the configuration is read at the start.",
    )?;
    section(out, "ENVIRONMENT")?;
    item(
        out,
        "NOTIFY_SOCKET",
        "Where systemd is told READY=1 once metrics are served, or the file is there for the first time with --interval, and STOPPING=1.",
    )
}
