//! The first screen: states, findings, who holds most, and the command to run next.

use std::io::{self, Write};

use super::cell::Comm;
use super::findings::{Screen, brief};
use super::text::{Safe, wrap};
use crate::model::words::thousands;
use crate::model::{Analysis, Process, Snapshot, Story, TcpState, Top};

/// The states in three columns: what is many with bars, then what passes, then what is rare.
const COLUMNS: [[TcpState; 4]; 3] = [
    [
        TcpState::Established,
        TcpState::TimeWait,
        TcpState::CloseWait,
        TcpState::Listen,
    ],
    [
        TcpState::SynSent,
        TcpState::SynReceived,
        TcpState::FinWait1,
        TcpState::FinWait2,
    ],
    [
        TcpState::LastAck,
        TcpState::Closing,
        TcpState::Closed,
        TcpState::BoundInactive,
    ],
];

/// How many findings the first screen shows.
const FINDINGS: usize = 8;

/// What the first screen shows.
#[derive(Debug)]
pub struct Status<'a> {
    /// the reading
    pub snapshot: &'a Snapshot,
    /// sockets per state, in the order of [`TcpState::SHOWN`]
    pub states: &'a [u64; TcpState::SHOWN.len()],
    /// sockets in states that are not known
    pub unknown: u64,
    /// what the detectors say
    pub analysis: &'a Analysis,
    /// its findings, the worst first
    pub stories: &'a [Story<'a>],
    /// what whoever reads it must know of it
    pub warnings: &'a [String],
    /// who holds most
    pub top: &'a Top<'a>,
    /// whether owners were asked for
    pub owners: bool,
    /// the time of the reading as the reader's clock shows it
    pub clock: &'a str,
    /// what to put behind `linger` in commands, to see the same machine (`--from FILE`)
    pub again: &'a str,
}

impl Status<'_> {
    fn of(&self, state: TcpState) -> u64 {
        state
            .index()
            .and_then(|index| self.states.get(index).copied())
            .unwrap_or(0)
    }

    fn total(&self) -> u64 {
        self.states.iter().sum::<u64>() + self.unknown
    }
}

/// The head of every screen: host, source, completeness, number, time.
pub fn head(snapshot: &Snapshot, total: u64, clock: &str, screen: Screen) -> String {
    let source = match snapshot.coverage.collector {
        crate::model::Collector::Netlink => "sock_diag",
        crate::model::Collector::Procfs => "/proc/net",
    };
    let complete = if snapshot.coverage.complete() {
        "complete"
    } else {
        "PARTIAL, see below"
    };
    let host = if snapshot.host.name.is_empty() {
        "unnamed host"
    } else {
        &snapshot.host.name
    };
    let places = match snapshot.namespaces.len() {
        0 => String::new(),
        1 => " in 1 network namespace".to_owned(),
        n => format!(" in {n} network namespaces"),
    };
    format!(
        "{}   {source}, {complete}   {} TCP socket{}{places}   {clock}",
        screen.paint.bold(&Safe(host).to_string()),
        thousands(total),
        if total == 1 { "" } else { "s" },
    )
}

/// Writes the screen.
///
/// # Errors
/// When `out` fails.
pub fn write(status: &Status<'_>, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let snapshot = status.snapshot;
    writeln!(
        out,
        "{}",
        head(snapshot, status.total(), status.clock, screen)
    )?;
    states(status, screen, out)?;
    writeln!(out)?;
    findings(status, screen, out)?;
    checks(status, screen, out)?;
    writeln!(out)?;
    top(status, screen, out)?;
    for warning in status.warnings {
        writeln!(
            out,
            "{}",
            labelled("note", &Safe(warning).to_string(), screen)
        )?;
    }
    writeln!(out, "{}", labelled("next", &next(status), screen))
}

fn states(status: &Status<'_>, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let [first, second, third] = COLUMNS;
    let most = first
        .iter()
        .map(|state| status.of(*state))
        .max()
        .unwrap_or(0);
    // Numbers may be longer than the columns are made for; then the columns give way, not the numbers.
    let bar_room = screen
        .width
        .saturating_sub(12 + 9 + 1 + 24 + 24)
        .clamp(4, 40);
    for row in 0..first.len() {
        let cell = |column: &[TcpState; 4], name: usize, number: usize| {
            column.get(row).map_or(String::new(), |state| {
                let count = if status.snapshot.coverage.sees(*state) {
                    thousands(status.of(*state))
                } else {
                    "?".to_owned()
                };
                format!("{:<name$}{count:>number$}", state.to_string())
            })
        };
        let count = first.get(row).map_or(0, |state| status.of(*state));
        let line = format!(
            "{} {}  {}   {}",
            cell(&first, 12, 9),
            bar(count, most, bar_room, screen),
            cell(&second, 12, 9),
            cell(&third, 14, 7),
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    if status.unknown > 0 {
        writeln!(out, "{:<12}{:>9}", "UNKNOWN", thousands(status.unknown))?;
    }
    Ok(())
}

fn bar(count: u64, most: u64, room: usize, screen: Screen) -> String {
    // In eighths of a column, rounded up: what is there is seen.
    let eighths = (count * room as u64 * 8).checked_div(most).unwrap_or(0);
    let eighths = if count > 0 { eighths.max(1) } else { 0 };
    let (full, rest) = ((eighths / 8) as usize, (eighths % 8) as usize);
    let bar = if screen.unicode {
        let part = [
            None,
            Some('▏'),
            Some('▎'),
            Some('▍'),
            Some('▌'),
            Some('▋'),
            Some('▊'),
            Some('▉'),
        ];
        let mut bar = "█".repeat(full);
        bar.extend(part.get(rest).copied().flatten());
        bar
    } else {
        "#".repeat(full + usize::from(rest > 0))
    };
    format!("{bar:<room$}")
}

fn findings(status: &Status<'_>, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let roots = status.stories;
    let shown = roots.iter().take(FINDINGS);
    let ids = shown
        .clone()
        .map(|story| story.root.id.len())
        .max()
        .unwrap_or(0);
    for story in shown {
        brief(*story, ids, screen, out)?;
    }
    if roots.len() > FINDINGS {
        let more = roots.len() - FINDINGS;
        writeln!(
            out,
            "          and {more} more: linger diagnose{}",
            status.again
        )?;
    }
    Ok(())
}

/// How many checks were quiet, and which cannot tell and why.
fn checks(status: &Status<'_>, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let analysis = status.analysis;
    let quiet = analysis.quiet.len();
    let plural = if quiet == 1 { "" } else { "s" };
    // Nothing is stuck only where everything was seen and judged.
    let all_seen = analysis.unknown.is_empty() && status.snapshot.coverage.rows_complete();
    let none = analysis.findings.is_empty() && analysis.muted.is_empty();
    let nothing = if quiet > 0 && none && all_seen {
        "; nothing is stuck"
    } else {
        ""
    };
    let text = format!("{quiet} check{plural}{nothing}");
    writeln!(out, "{}", labelled("quiet", &text, screen))?;
    if let Some(muted) = analysis.muted_words() {
        writeln!(out, "{}", labelled("muted", &muted, screen))?;
    }
    for (ids, reason) in analysis.open() {
        let text = format!("{ids}: {}", Safe(reason));
        writeln!(out, "{}", labelled("cannot tell", &text, screen))?;
    }
    Ok(())
}

/// `label         text`, wrapped behind the label. The text is safe already: it may hold spaces that do not break.
pub fn labelled(label: &str, text: &str, screen: Screen) -> String {
    let text = wrap(text, screen.width.clamp(40, 140), 15);
    format!("{label:<15}{text}")
}

/// `nginx[901]`, safe to print.
pub fn name(process: &Process) -> String {
    format!("{}[{}]", Comm(&process.comm), process.pid)
}

fn top(status: &Status<'_>, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut line = |label: &str, items: Vec<String>| {
        if items.is_empty() {
            return Ok(());
        }
        writeln!(out, "{}", labelled(label, &items.join(", "), screen))
    };
    let processes = status.top.processes.iter().take(4);
    line(
        "most sockets",
        processes.map(|(p, n)| item(&name(p), *n)).collect(),
    )?;
    // Connections are counted by port, which several listeners may share: each address has its own.
    let mut ports: Vec<(u16, u64)> = Vec::new();
    for (listener, n) in status.top.listeners.iter().filter(|(_, n)| *n > 0) {
        let port = listener.local.port;
        if ports.iter().all(|(known, _)| *known != port) {
            ports.push((port, *n));
        }
    }
    line(
        "busy ports",
        ports
            .iter()
            .take(4)
            .map(|(port, n)| item(&format!(":{port}"), *n))
            .collect(),
    )?;
    let peers = status.top.peers.iter().take(4);
    line(
        "top peers",
        peers.map(|(peer, n)| item(&peer.to_string(), *n)).collect(),
    )?;
    if !status.owners {
        line("owners", vec!["not read (--no-owners)".to_owned()])?;
    }
    Ok(())
}

/// A name and its number, which stay together when lines are wrapped.
fn item(name: &str, n: u64) -> String {
    format!(
        "{}{}{}",
        name.replace(' ', "\u{a0}"),
        super::text::NO_BREAK,
        thousands(n)
    )
}

fn next(status: &Status<'_>) -> String {
    let again = status.again;
    match status.stories.first() {
        Some(story) => format!("linger diagnose --only {}{again}", story.root.id),
        None if status.total() == 0 => format!("linger explain{again}"),
        None => format!("linger list -tanp{again}"),
    }
}
