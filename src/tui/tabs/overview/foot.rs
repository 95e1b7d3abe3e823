//! What was seen, and what was not.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::model::Collector;
use crate::model::words::count;
use crate::render::text::{Safe, age};
use crate::tui::tabs::{View, parts};

/// What is said where nothing is found.
pub fn quiet(view: &View<'_>) -> String {
    let analysis = &view.look.analysis;
    let mut text = format!(
        "  {} found nothing",
        count(analysis.quiet.len() as u64, "check")
    );
    let open = analysis.unknown.len();
    if open > 0 {
        text.push_str(&format!("; {open} cannot tell, see below"));
    }
    text
}

/// How it was looked, in one line.
fn source(view: &View<'_>) -> String {
    let (look, coverage) = (view.look, &view.look.coverage);
    let source = match coverage.collector {
        Collector::Netlink => "sock_diag",
        Collector::Procfs => "/proc/net",
    };
    let mut parts = vec![match coverage.rows_complete() {
        true => format!("{source}: all sockets"),
        false => format!("{source}: NOT all sockets"),
    }];
    if coverage.interrupted > 0 {
        parts.push(format!(
            "interrupted {}",
            count(coverage.interrupted.into(), "time")
        ));
    }
    parts.push(match (look.owners, coverage.unreadable_processes) {
        (false, _) => "owners not read".to_owned(),
        (true, 0) => "every process readable".to_owned(),
        (true, n) => format!("no privilege for {}", count(n.into(), "process")),
    });
    parts.join("; ")
}

/// Everything that is said, safe to print, the most important first.
pub fn lines(view: &View<'_>) -> Vec<String> {
    let look = view.look;
    let mut lines = vec![source(view)];
    if look.pace.is_slowed() {
        let millis =
            |time: std::time::Duration| age(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        lines.push(format!(
            "slowed from {:#} to {:#}, to spare the machine: a look takes {:#}",
            millis(look.pace.interval),
            millis(look.pace.every),
            millis(look.pace.took)
        ));
    }
    let mut said = look.coverage.warnings();
    for warning in look.warnings.iter().chain(&look.analysis.warnings) {
        if !said.contains(warning) {
            said.push(warning.clone());
        }
    }
    lines.extend(said.iter().map(|text| format!("note: {}", Safe(text))));
    for (ids, reason) in look.analysis.open() {
        lines.push(format!("cannot tell: {ids}: {}", Safe(reason)));
    }
    if let Some(muted) = look.analysis.muted_words() {
        lines.push(format!("muted: {muted}"));
    }
    lines
}

/// Draws as much as there is room for, and says how much is left out.
pub fn draw(area: Rect, buffer: &mut Buffer, view: &View<'_>) {
    let theme = view.theme;
    let lines = lines(view);
    let page = usize::from(area.height);
    for (n, text) in lines.iter().take(page).enumerate() {
        let left_out = lines.len().saturating_sub(page);
        let line = parts::line(area, n);
        if n + 1 == page && left_out > 0 {
            let more = format!(" (+{left_out} more)");
            let room = usize::from(line.width).saturating_sub(more.len());
            let text = format!("{}{more}", parts::fit(text, room, theme));
            parts::write(buffer, area, n, &text, theme.faint(), theme);
        } else {
            parts::write(buffer, area, n, text, theme.faint(), theme);
        }
    }
}
