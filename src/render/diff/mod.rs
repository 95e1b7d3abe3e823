//! `linger diff` as text: what asks for attention first, then numbers, then the sockets.

mod rows;
#[cfg(test)]
mod tests;
mod words;

use std::io::{self, Write};

use super::cell::Comm;
use super::findings::{Screen, brief};
use super::status::labelled;
use super::text::{Safe, width, wrap};
use crate::knowledge::counters::trouble;
use crate::model::diff::{Changes, Counter, Diff, Findings, OneSided, Program};
use crate::model::words::{count, thousands, time};
use crate::model::{Finding, Severity, Story, TcpState};

pub use rows::not_listed;
pub use words::cautions;

/// How many lines of a list are shown unasked.
pub const SHOWN: usize = 20;

/// Counters that tell of no trouble: how many are shown unasked.
const OTHERS: usize = 8;

/// What the page shows.
#[derive(Debug)]
pub struct Page<'a> {
    /// what is different
    pub diff: &'a Diff<'a>,
    /// what the detectors say of either look
    pub findings: &'a Findings<'a>,
    /// the times of both on the reader's clock
    pub clock: (&'a str, &'a str),
    /// what must be known of the comparison, before all else
    pub cautions: &'a [String],
    /// what the looks do not know
    pub warnings: &'a [String],
    /// whether sockets were selected by a filter
    pub filtered: bool,
    /// whether lists are shown to their ends
    pub all: bool,
    /// whether TIME-WAIT is counted and not listed
    pub fold: bool,
    /// the command to run next
    pub next: &'a str,
}

/// Writes the page.
///
/// # Errors
/// When `out` fails.
pub fn write(page: &Page<'_>, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    head(page, screen, out)?;
    for caution in page.cautions {
        let text = Safe(caution).to_string();
        writeln!(out, "{}", labelled("warning", &text, screen))?;
    }
    let mut same = Vec::new();
    findings(page, screen, &mut same, out)?;
    listeners(page, screen, &mut same, out)?;
    states(page, screen, &mut same, out)?;
    programs(page, screen, &mut same, out)?;
    settings(page, screen, &mut same, out)?;
    counters(page, screen, &mut same, out)?;
    sockets(page, screen, &mut same, out)?;
    if same.len() == SECTIONS {
        let same = page.diff.listeners.same + page.diff.sockets.same;
        let text = format!("everything: {} as before", count(same, "socket"));
        writeln!(out, "{}", labelled("unchanged", &text, screen))?;
    } else {
        writeln!(out)?;
        if !same.is_empty() {
            writeln!(out, "{}", labelled("unchanged", &same.join(", "), screen))?;
        }
    }
    for warning in page.warnings {
        let text = Safe(warning).to_string();
        writeln!(out, "{}", labelled("note", &text, screen))?;
    }
    if same.len() < SECTIONS {
        writeln!(out, "{}", labelled("next", page.next, screen))?;
    }
    Ok(())
}

/// How many parts there are to be unchanged.
const SECTIONS: usize = 7;

fn head(page: &Page<'_>, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let diff = page.diff;
    let name = |name: &str| match name {
        "" => "unnamed host".to_owned(),
        name => Safe(name).to_string(),
    };
    let (one, other) = (name(&diff.before.host.name), name(&diff.after.host.name));
    let host = if one == other {
        one
    } else {
        format!("{one} -> {other}")
    };
    let ms = diff.elapsed_ms();
    let between = time(ms.unsigned_abs());
    let between = match ms {
        ..0 => format!("{between} BACK"),
        _ => between,
    };
    let (before, after) = diff.total();
    let sockets = if before == after {
        count(after, "TCP socket")
    } else {
        format!("{} -> {}", thousands(before), count(after, "TCP socket"))
    };
    let (from, to) = page.clock;
    let parts = [format!("{from} -> {to}"), between, sockets];
    let line = format!("{host}   {}", parts.join("   "));
    if width(&line) <= screen.width {
        let rest = line.get(host.len()..).unwrap_or_default();
        return writeln!(out, "{}{rest}", screen.paint.bold(&host));
    }
    writeln!(out, "{}", screen.paint.bold(&host))?;
    let text = parts.map(|part| part.replace(' ', "\u{a0}")).join("  ");
    writeln!(out, "{}", wrap(&text, screen.width, 0))
}

/// `name           what became of it`, after a blank line.
fn section(name: &str, text: &str, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    let line = labelled(name, text, screen);
    let rest = line.get(name.len()..).unwrap_or_default();
    writeln!(out, "{}{rest}", screen.paint.bold(name))
}

/// `3 new, 1 gone`; what is 0 is left out.
fn numbers(parts: &[(u64, &str)]) -> String {
    let parts = parts.iter().filter(|(n, _)| *n > 0);
    let parts: Vec<String> = parts
        .map(|(n, what)| format!("{} {what}", thousands(*n)))
        .collect();
    parts.join(", ")
}

fn findings<'a>(
    page: &Page<'a>,
    screen: Screen,
    same: &mut Vec<&'static str>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let all = page.findings;
    if all.is_unchanged() {
        same.push("findings");
        return Ok(());
    }
    let (worse, better) = (all.worse().count() as u64, all.better().count() as u64);
    let summary = numbers(&[
        (all.new.len() as u64, "new"),
        (worse, "worse"),
        (all.gone.len() as u64, "gone"),
        (better, "better"),
        (all.same().count() as u64, "as severe as before"),
    ]);
    section("findings", &summary, screen, out)?;
    let mut shown = Vec::new();
    let limit = limit(page);
    let one_sided = |one: &OneSided<'a>, word, untold| Told {
        word: if one.untold { untold } else { word },
        finding: one.finding,
        was: None,
    };
    let both = |(before, finding): (&'a Finding, &'a Finding), word| Told {
        word,
        finding,
        was: (before.severity != finding.severity).then_some(before.severity),
    };
    let new = all.new.iter().take(limit);
    shown.extend(new.map(|one| one_sided(one, "new", "new, or not judged before")));
    shown.extend(all.worse().take(limit).map(|pair| both(pair, "worse")));
    let gone = all.gone.iter().take(limit);
    shown.extend(gone.map(|one| one_sided(one, "gone", "not judged any more")));
    shown.extend(all.better().take(limit).map(|pair| both(pair, "better")));
    shown.extend(
        all.same()
            .take(limit)
            .map(|pair| both(pair, "as severe as before")),
    );
    let ids = shown.iter().map(|told| told.finding.id.len()).max();
    let mut last = String::new();
    for told in &shown {
        let word = match told.was {
            Some(was) => format!("{}, was {}", told.word, was.name()),
            None => told.word.to_owned(),
        };
        if word != last {
            writeln!(out, "{word}:")?;
            last = word;
        }
        let story = Story {
            root: told.finding,
            follows: &[],
            namespace: None,
        };
        brief(story, ids.unwrap_or(0), screen, out)?;
    }
    let hidden = (all.new.len() + all.gone.len() + all.kept.len()).saturating_sub(shown.len());
    more(hidden, 0, 0, "finding", out)
}

/// A finding, and what became of it.
struct Told<'a> {
    word: &'static str,
    finding: &'a Finding,
    was: Option<Severity>,
}

fn listeners(
    page: &Page<'_>,
    screen: Screen,
    same: &mut Vec<&'static str>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let diff = page.diff;
    let changes = &diff.listeners;
    let locals = diff.locals.as_ref();
    let (new, gone) = locals.map_or((0, 0), |locals| (locals.new.len(), locals.gone.len()));
    if changes.is_empty() && new + gone == 0 {
        same.push(if page.filtered {
            "listeners that fit the filter"
        } else {
            "listeners"
        });
        return Ok(());
    }
    let again = changes.changed.iter().filter(|one| one.what.reopened);
    let again = again.count() as u64;
    let summary = numbers(&[
        ((changes.new.len() + new) as u64, "new"),
        ((changes.gone.len() + gone) as u64, "gone"),
        (again, "opened again"),
        (changes.changed.len() as u64 - again, "changed"),
    ]);
    let filtered = if page.filtered { ", by the filter" } else { "" };
    section("listeners", &format!("{summary}{filtered}"), screen, out)?;
    rows::listeners(diff, limit(page), screen, out)
}

fn states(
    page: &Page<'_>,
    screen: Screen,
    same: &mut Vec<&'static str>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let diff = page.diff;
    let udp = diff.udp.filter(|(before, after)| before != after);
    if diff.states.iter().all(|(before, after)| before == after) && udp.is_none() {
        same.push("sockets per state");
        return Ok(());
    }
    section(
        "sockets",
        "per state: before, after, difference",
        screen,
        out,
    )?;
    let sees = |state| diff.before.coverage.sees(state) && diff.after.coverage.sees(state);
    let named = TcpState::SHOWN.into_iter().zip(diff.states);
    let mut lines: Vec<(String, Option<(u64, u64)>)> = named
        .filter(|(state, numbers)| *numbers != (0, 0) || !sees(*state))
        .map(|(state, numbers)| (state.to_string(), sees(state).then_some(numbers)))
        .collect();
    if let Some(numbers) = diff.states.last().filter(|numbers| **numbers != (0, 0)) {
        lines.push(("UNKNOWN".to_owned(), Some(*numbers)));
    }
    lines.push(("all TCP".to_owned(), Some(diff.total())));
    if let Some(numbers) = diff.udp.filter(|numbers| *numbers != (0, 0)) {
        lines.push(("all UDP".to_owned(), Some(numbers)));
    }
    for (name, numbers) in lines {
        let line = match numbers {
            Some((before, after)) => format!(
                "  {name:<15}{:>11}{:>11}{:>11}",
                thousands(before),
                thousands(after),
                difference(before, after)
            ),
            None => format!("  {name:<15}{:>11}{:>11}", "?", "?"),
        };
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// `+592`, `-3`, or nothing.
fn difference(before: u64, after: u64) -> String {
    let n = thousands(before.abs_diff(after));
    match after.cmp(&before) {
        std::cmp::Ordering::Less => format!("-{n}"),
        std::cmp::Ordering::Equal => String::new(),
        std::cmp::Ordering::Greater => format!("+{n}"),
    }
}

fn programs(
    page: &Page<'_>,
    screen: Screen,
    same: &mut Vec<&'static str>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Some(all) = page.diff.programs.as_deref() else {
        section(
            "processes",
            "not compared: not in both captures",
            screen,
            out,
        )?;
        return Ok(());
    };
    if all.is_empty() {
        same.push("processes");
        return Ok(());
    }
    let summary = format!(
        "{} with other TCP sockets",
        count(all.len() as u64, "program")
    );
    section("processes", &summary, screen, out)?;
    for program in all.iter().take(limit(page)) {
        let (before, after) = (&program.before, &program.after);
        let mut parts = vec![format!(
            "{} -> {}",
            thousands(before.sockets),
            thousands(after.sockets)
        )];
        let states = program.states();
        parts.extend(states.iter().take(4).map(|(state, before, after)| {
            format!("{state} {} -> {}", thousands(*before), thousands(*after))
        }));
        let text = format!("{}: {}", processes(program), parts.join("; "));
        // Numbers stay with their states.
        let text = text.replace(" -> ", "\u{a0}->\u{a0}");
        writeln!(out, "  {}", wrap(&text, screen.width.clamp(40, 140), 4))?;
    }
    more(all.len(), limit(page), 2, "program", out)
}

/// `nginx[901]`, `checkout[2211 -> 3105]`, `worker[4 processes] new`.
fn processes(program: &Program<'_>) -> String {
    let pids = |pids: &[u32]| match pids {
        [pid] => pid.to_string(),
        pids => count(pids.len() as u64, "process"),
    };
    let (before, after) = (&program.before.pids[..], &program.after.pids[..]);
    let comm = Comm(program.comm);
    match (before, after) {
        ([], _) => format!("{comm}[{}] new", pids(after)),
        (_, []) => format!("{comm}[{}] gone", pids(before)),
        _ if before == after => format!("{comm}[{}]", pids(after)),
        _ => format!("{comm}[{} -> {}]", pids(before), pids(after)),
    }
    .replace(' ', "\u{a0}")
}

fn settings(
    page: &Page<'_>,
    screen: Screen,
    same: &mut Vec<&'static str>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Some(all) = page.diff.settings.as_deref() else {
        return section(
            "settings",
            "not compared: not in both captures",
            screen,
            out,
        );
    };
    if all.is_empty() {
        same.push("settings");
        return Ok(());
    }
    section("settings", &format!("{} changed", all.len()), screen, out)?;
    let mut rows = Vec::new();
    for setting in all {
        // As sysctl(8) has it.
        let name = setting.path.replace('/', ".");
        let value = |text: &str| {
            let words: Vec<&str> = text.split_ascii_whitespace().collect();
            match words.is_empty() {
                true => "(empty)".to_owned(),
                false => Safe(&words.join(" ")).to_string(),
            }
        };
        let (before, after) = (value(setting.before), value(setting.after));
        rows.push(vec![
            Safe(&name).to_string(),
            format!("{before} -> {after}"),
        ]);
    }
    rows::table(rows, screen, out)
}

fn counters(
    page: &Page<'_>,
    screen: Screen,
    same: &mut Vec<&'static str>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let diff = page.diff;
    let Some(all) = diff.counters.as_deref() else {
        let why = if diff.apart.is_empty() {
            "not compared: not in both captures"
        } else {
            "not compared: they do not count the same"
        };
        return section("counters", why, screen, out);
    };
    if all.is_empty() {
        same.push("counters");
        return Ok(());
    }
    let mut told: Vec<(usize, &Counter<'_>, &str)> = Vec::new();
    let mut others: Vec<&Counter<'_>> = Vec::new();
    for counter in all {
        match trouble(counter.name) {
            Some((at, what)) => told.push((at, counter, what)),
            None => others.push(counter),
        }
    }
    told.sort_by_key(|(at, ..)| *at);
    others.sort_by_key(|counter| std::cmp::Reverse(counter.change().unsigned_abs()));
    let summary = match told.len() {
        0 => format!("{} moved, none that tells of trouble", all.len()),
        n => format!("{} moved, {n} of which may tell of trouble", all.len()),
    };
    section("counters", &summary, screen, out)?;
    let shown = if page.all { others.len() } else { OTHERS };
    let mut rows: Vec<[String; 4]> = Vec::new();
    let told = told.iter().map(|(_, counter, what)| (*counter, *what));
    let others_shown = others.iter().take(shown).map(|counter| (*counter, ""));
    for (counter, what) in told.chain(others_shown) {
        let change = counter.change();
        let n = thousands(change.unsigned_abs());
        let backwards = diff.elapsed_ms() < 0;
        let (change, rate, what) = match change {
            ..0 if backwards => (format!("-{n}"), String::new(), what),
            ..0 => (
                "reset".to_owned(),
                String::new(),
                "it went back: it began again",
            ),
            change => (
                format!("+{n}"),
                diff.per_second(change).map_or_else(String::new, rate),
                what,
            ),
        };
        rows.push([
            Safe(counter.name).to_string(),
            change,
            rate,
            what.to_owned(),
        ]);
    }
    let room = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells.map(|cell| width(cell)).max().unwrap_or(0)
    };
    let (name, change, rate) = (room(0), room(1), room(2));
    for [counter, moved, per_second, what] in &rows {
        let line = format!("  {counter:<name$}  {moved:>change$}  {per_second:>rate$}  {what}");
        let line = line.trim_end();
        if width(line) <= screen.width {
            writeln!(out, "{line}")?;
        } else {
            let short = format!("  {counter:<name$}  {moved:>change$}  {per_second:>rate$}");
            writeln!(out, "{}\n      {what}", short.trim_end())?;
        }
    }
    more(others.len(), shown, 2, "counter", out)
}

/// `84/s`, `0.05/s`, `3/h`.
fn rate(per_second: f64) -> String {
    match per_second {
        0.0..0.01 => format!("{:.1}/h", per_second * 3600.0),
        0.01..1.0 => format!("{per_second:.2}/s"),
        1.0..100.0 => format!("{per_second:.1}/s"),
        _ => format!("{}/s", thousands(per_second.round() as u64)),
    }
}

fn sockets(
    page: &Page<'_>,
    screen: Screen,
    same: &mut Vec<&'static str>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let diff = page.diff;
    if diff.by == crate::model::diff::By::Nothing {
        return Ok(());
    }
    let changes = &diff.sockets;
    if changes.is_empty() {
        same.push(if page.filtered {
            "sockets that fit the filter"
        } else {
            "sockets"
        });
        return Ok(());
    }
    let Changes {
        new, gone, changed, ..
    } = changes;
    let summary = numbers(&[
        (new.len() as u64, "new"),
        (gone.len() as u64, "gone"),
        (changed.len() as u64, "changed"),
        // Of these nobody knows whether they fit.
        (if page.filtered { 0 } else { changes.same }, "as before"),
    ]);
    let filtered = if page.filtered { ", by the filter" } else { "" };
    section("sockets", &format!("{summary}{filtered}"), screen, out)?;
    rows::sockets(diff, limit(page), page.fold, screen, out)
}

const fn limit(page: &Page<'_>) -> usize {
    if page.all { usize::MAX } else { SHOWN }
}

/// Says how many of a list are not shown.
fn more(
    all: usize,
    shown: usize,
    indent: usize,
    what: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    match all.saturating_sub(shown) {
        0 => Ok(()),
        n => writeln!(
            out,
            "{:indent$}and {}: --all",
            "",
            count(n as u64, &format!("more {what}"))
        ),
    }
}
