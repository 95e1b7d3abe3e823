//! What the chosen state means, with what happens to it now.

use super::parts;
use super::rates::Rates;
use crate::knowledge::{StateText, Transition, state_text};
use crate::model::TcpState;
use crate::model::words::thousands;
use crate::render::explain;
use crate::render::text::Safe;
use crate::tui::tabs::View;

/// Longer lines are hard to read.
pub const WIDEST: usize = 100;

/// A line of it.
#[derive(Clone, Debug)]
pub struct Line {
    /// safe to print
    pub text: String,
    /// whether it stands above others
    pub heading: bool,
}

/// A count, or that it cannot be seen.
pub fn count(count: Option<u64>) -> String {
    count.map_or_else(|| "?".to_owned(), thousands)
}

/// The explanation in at most `room` columns; `short`: the first lines are all that is seen.
pub fn lines(
    state: TcpState,
    rates: &Rates,
    room: usize,
    short: bool,
    view: &View<'_>,
) -> Vec<Line> {
    let (theme, look) = (view.theme, view.look);
    let Some(text) = state_text(state) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    let mut add = |label: &str, text: &str, heading: bool| {
        if text.is_empty() {
            lines.push(Line {
                text: String::new(),
                heading,
            });
        }
        let parts = parts::paragraph(label, text, room, theme);
        lines.extend(parts.into_iter().map(|text| Line { text, heading }));
    };
    let mut head = format!("{} {}", text.name(), count(look.of(state)));
    if look.of(state).is_none() {
        head.push_str(" (cannot be seen)");
    }
    let change = parts::change(view.trend.change(state));
    if !change.is_empty() {
        head.push_str(&format!("  {change} since the look before"));
    }
    add("", &head, true);
    for (_, finding) in parts::concerning(look, &look.stories(), state) {
        let word = finding.severity.name().to_uppercase();
        add(&format!("{word} "), &Safe(&finding.title).to_string(), true);
    }
    if short {
        add("", text.summary, false);
        add("", &format!("not normal: {}", text.abnormal), false);
        flows(text, rates, view, &mut add);
        add("", &format!("ends by: {}", ends(text, view)), false);
        add("", text.meaning, false);
        return lines;
    }
    add("", text.summary, false);
    // In a narrow pane every line counts.
    let airy = room >= 60;
    if airy {
        add("", "", false);
    }
    add("", text.meaning, false);
    if airy {
        add("", "", false);
    }
    flows(text, rates, view, &mut add);
    if airy {
        add("", "", false);
    }
    for (label, text) in [("normal: ", text.normal), ("not normal: ", text.abnormal)] {
        add("", &format!("{label}{text}"), false);
    }
    add("", &format!("ends by: {}", ends(text, view)), false);
    for remark in text.linux {
        add("", &format!("on Linux: {remark}"), false);
    }
    lines
}

/// The arrows in and out with their rates, those that Linux has.
fn flows(text: &StateText, rates: &Rates, view: &View<'_>, add: &mut impl FnMut(&str, &str, bool)) {
    let theme = view.theme;
    let mut told: Vec<(TcpState, TcpState)> = Vec::new();
    let arrows = text.entered().chain(text.left());
    for Transition {
        from, to, linux, ..
    } in arrows
    {
        if !linux || told.contains(&(*from, *to)) {
            continue;
        }
        told.push((*from, *to));
        let Some(rate) = rates.of(*from, *to) else {
            continue;
        };
        let Some(often) = rate.text(theme) else {
            continue;
        };
        let (label, other) = if *to == text.state {
            ("in from ", from)
        } else {
            ("out to  ", to)
        };
        let how = match rate.counter {
            Some(counter) => format!("exact: {counter}"),
            None => "as seen".to_owned(),
        };
        add(label, &format!("{other} {often} ({how})"), false);
    }
    for (rate, what, states) in [
        (
            rates.failed,
            "SYN-SENT and SYN-RECEIVED to CLOSED",
            [TcpState::SynSent, TcpState::SynReceived],
        ),
        (
            rates.reset,
            "RST: ESTABLISHED and CLOSE-WAIT to CLOSED",
            [TcpState::Established, TcpState::CloseWait],
        ),
    ] {
        let rate = rate.filter(|_| states.contains(&text.state));
        let often = rate.and_then(|rate| rate.text(theme)).zip(rate);
        if let Some((often, counter)) = often.and_then(|(often, rate)| Some((often, rate.counter?)))
        {
            add("", &format!("{what}: {often} ({counter})"), false);
        }
    }
    if text.state == TcpState::TimeWait {
        let ended = parts::rate(rates.ended, super::SECOND, false, theme);
        if let Some(often) = ended {
            add("", &format!("entered: {often} (remaining times)"), false);
        }
    }
    match rates.through(text.state) {
        Some((came, left)) => {
            let often = |rate: super::rates::Rate| {
                rate.text(theme).unwrap_or_else(|| "none seen".to_owned())
            };
            let text = format!("seen coming {}, going {}", often(came), often(left));
            add("", &text, false);
        }
        None => add("", "no two looks to compare: no rates", false),
    }
}

fn ends(text: &StateText, view: &View<'_>) -> String {
    let facts = view.look.places.first().map(|place| &place.snapshot.facts);
    facts.map_or_else(|| text.ends.to_owned(), |facts| text.ends_on(facts))
}

/// The whole explanation.
pub fn whole(state: TcpState, room: usize, view: &View<'_>) -> Vec<String> {
    let look = view.look;
    let (Some(text), Some(place)) = (state_text(state), look.places.first()) else {
        return Vec::new();
    };
    let when = match look.frame {
        Some(_) => "at that time",
        None => "now",
    };
    let stories = look.stories();
    let titles: Vec<(&str, String)> = parts::concerning(look, &stories, state)
        .map(|(_, finding)| (finding.id, Safe(&finding.title).to_string()))
        .collect();
    let findings: Vec<(&str, &str)> = titles.iter().map(|(id, text)| (*id, &**text)).collect();
    let mut out = Vec::new();
    let count = look.of(state).map(|count| (count, when));
    // Writing into memory does not fail.
    let written = explain::state_text(
        text,
        count,
        &place.snapshot.facts,
        &findings,
        &mut out,
        room,
    );
    debug_assert!(written.is_ok());
    let text = String::from_utf8_lossy(&out);
    text.lines().map(str::to_owned).collect()
}
