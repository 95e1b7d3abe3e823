//! `linger explain`: states, findings, topics, and the state machine with the counts of now.

use std::io::Write;
use std::ops::ControlFlow;

use serde_json::{Value, json};

use super::args;
use super::failure::Failure;
use super::{config, document, source, status, stories, terminal};
use crate::analyze::settings::Override;
use crate::analyze::{Detector, Settings, Threshold, Unit, detectors};
use crate::collect::{self, Also, Want};
use crate::history::Tally;
use crate::knowledge::{self, Entry};
use crate::model::nearest::nearest;
use crate::model::{Coverage, Snapshot, StateSet, TcpState};
use crate::render::explain::{closes_text, state_json, state_text, topic_json, topic_text};
use crate::render::findings::Screen;
use crate::render::machine;
use crate::render::status::labelled;
use crate::render::text::{Safe, wrap};

/// Explains. The numbers of this machine are an addition: without them the text stands.
///
/// # Errors
/// For a word that names nothing, or a capture that cannot be read.
pub fn run(args: &args::Explain) -> Result<(), Failure> {
    if !args.socket.is_empty() || args.filter_file.is_some() {
        return stories::run(args);
    }
    let screen = terminal::screen(args.common.color);
    let Some(word) = args.what.as_deref() else {
        return machine_of_states(args, screen);
    };
    // A word may name a state, a topic or a finding; none of their names is another's.
    let entry = knowledge::find(word);
    let detector = detectors::find(word);
    let mut settings = Settings::default();
    if detector.is_some() {
        config::read(args.common.config.as_deref(), &mut settings)?;
    }
    let (snapshot, tally) = match (&entry, detector) {
        (None, None) => return Err(unknown(word)),
        (Some(Entry::State(_)), _) => look(&args.common)?,
        _ if args.common.json => (glance(&args.common)?, None),
        _ => (Snapshot::default(), None),
    };
    if args.common.json {
        let content = match (entry, detector) {
            (Some(Entry::State(text)), _) => {
                let count = known(&snapshot, tally.as_ref(), text.state);
                let mut content = state_json(text, count, &snapshot.facts, &about(text.state));
                if let (Some(closes), Some(map)) =
                    (closes(text.state, tally.as_ref()), content.as_object_mut())
                {
                    map.insert("closes_by_second".to_owned(), closes.into());
                }
                content
            }
            (Some(Entry::Topic(topic)), _) => topic_json(topic),
            (None, Some(detector)) => detector_json(detector, &settings),
            (None, None) => Value::Null,
        };
        return document::print(
            "linger.explain/1",
            &args.common,
            &snapshot,
            &snapshot.coverage.warnings(),
            content,
        );
    }
    let mut out = Vec::new();
    match (entry, detector) {
        (Some(Entry::State(text)), _) => {
            let count = known(&snapshot, tally.as_ref(), text.state);
            let place = if args.common.from.is_some() {
                "in this capture"
            } else {
                "here now"
            };
            let count = count.map(|count| (count, place));
            let width = screen.text_width();
            state_text(
                text,
                count,
                &snapshot.facts,
                &with_summaries(&about(text.state)),
                &mut out,
                width,
            )?;
            if let Some(closes) = closes(text.state, tally.as_ref()) {
                closes_text(closes, screen, &mut out)?;
            }
        }
        (Some(Entry::Topic(topic)), _) => topic_text(topic, &mut out, screen.text_width())?,
        (None, Some(detector)) => detector_text(detector, &settings, screen, &mut out)?,
        (None, None) => {}
    }
    terminal::print(&out)
}

/// How many sockets are in `state`, where that is known.
fn known(snapshot: &Snapshot, tally: Option<&Tally>, state: TcpState) -> Option<u64> {
    let tally = tally.filter(|_| snapshot.coverage.sees(state))?;
    Some(tally.of(state))
}

/// The findings that a state is about.
fn about(state: TcpState) -> Vec<&'static str> {
    let about = detectors::ALL
        .iter()
        .filter(|detector| detector.states.contains(&state));
    about.map(|detector| detector.id).collect()
}

/// The same with what each says.
fn with_summaries(ids: &[&'static str]) -> Vec<(&'static str, &'static str)> {
    let found = ids.iter().filter_map(|id| detectors::find(id));
    found
        .map(|detector| (detector.id, detector.summary))
        .collect()
}

/// The closes of the last 60 seconds, the latest first, where `state` is the one that tells them and there are any.
fn closes(state: TcpState, tally: Option<&Tally>) -> Option<&[u32]> {
    let tally = tally.filter(|tally| state == TcpState::TimeWait && tally.of(state) > 0)?;
    Some(&tally.closes)
}

/// Counts the sockets of now. Of a capture an error is an error; this machine's is a note.
fn look(common: &args::Common) -> Result<(Snapshot, Option<Tally>), Failure> {
    let mut machine = source::open(common)?;
    let want = Want::states(StateSet::ALL);
    match collect::snapshot(machine.as_mut(), &want, Also::default()) {
        Ok(snapshot) => {
            source::note(&snapshot.coverage);
            let tally = Tally::new(&snapshot);
            Ok((snapshot, Some(tally)))
        }
        Err(error) if common.from.is_none() => {
            let coverage = Coverage {
                missing: vec![error.to_string()],
                ..Coverage::default()
            };
            source::note(&coverage);
            let facts = machine.facts();
            let (taken, host) = (machine.now(), machine.host());
            Ok((
                Snapshot {
                    taken,
                    host,
                    facts,
                    coverage,
                    ..Snapshot::default()
                },
                None,
            ))
        }
        Err(error) => Err(error.into()),
    }
}

/// What the head of a document needs, and no sockets.
fn glance(common: &args::Common) -> Result<Snapshot, Failure> {
    let mut machine = source::open(common)?;
    let want = Want {
        ipv6: false,
        ..Want::states(StateSet::of(TcpState::Listen))
    };
    let dumped = machine.dump(&want, &mut |_| ControlFlow::Break(()));
    let coverage = match dumped {
        Ok(coverage) => coverage,
        // The text does not rest on the sockets.
        Err(_) if common.from.is_none() => Coverage::default(),
        Err(error) => return Err(error.into()),
    };
    Ok(Snapshot {
        taken: machine.now(),
        host: machine.host(),
        coverage,
        ..Snapshot::default()
    })
}

fn machine_of_states(args: &args::Explain, screen: Screen) -> Result<(), Failure> {
    let (snapshot, tally) = look(&args.common)?;
    if args.common.json {
        let counts = tally
            .as_ref()
            .map(|tally| status::states(tally.states(), tally.unknown, &snapshot.coverage));
        let states: Vec<Value> = TcpState::SHOWN
            .iter()
            .filter_map(|state| state.slug())
            .map(Value::from)
            .collect();
        let topics: Vec<&str> = knowledge::TOPICS.iter().map(|topic| topic.name).collect();
        let findings: Vec<&str> = detectors::ALL.iter().map(|detector| detector.id).collect();
        let mut content = json!({
            "kind": "machine", "states": states, "topics": topics, "findings": findings,
        });
        if let (Some(counts), Some(map)) = (counts, content.as_object_mut()) {
            map.insert("counts".to_owned(), counts);
        }
        return document::print(
            "linger.explain/1",
            &args.common,
            &snapshot,
            &snapshot.coverage.warnings(),
            content,
        );
    }
    let mut out = Vec::new();
    let counts = tally.as_ref().map(Tally::states);
    writeln!(
        out,
        "{}",
        machine::draw(counts, screen.unicode, screen.width).trim_end()
    )?;
    writeln!(out)?;
    let topics: Vec<&str> = knowledge::TOPICS.iter().map(|topic| topic.name).collect();
    let findings: Vec<&str> = detectors::ALL.iter().map(|detector| detector.id).collect();
    writeln!(
        out,
        "{}",
        labelled("states", "linger explain close-wait", screen)
    )?;
    writeln!(out, "{}", labelled("topics", &topics.join(", "), screen))?;
    writeln!(
        out,
        "{}",
        labelled("findings", &findings.join(", "), screen)
    )?;
    terminal::print(&out)
}

fn unknown(word: &str) -> Failure {
    let findings = detectors::ALL
        .iter()
        .flat_map(|detector| detector.aliases.iter().copied().chain([detector.id]));
    let near = nearest(word, knowledge::names().chain(findings));
    Failure::usage(
        format!("nothing to explain under '{word}': no state, finding or topic has this name"),
        match near.first() {
            Some(near) => format!("did you mean 'linger explain {near}'?"),
            None => "`linger explain` alone lists states, topics and findings".to_owned(),
        },
    )
}

/// The limits of an override, as they are written.
fn over_limits(
    detector: &Detector,
    over: &Override,
) -> impl Iterator<Item = (&'static str, String)> {
    over.limits(detector).into_iter().map(|(key, number)| {
        let threshold = detector
            .thresholds
            .iter()
            .find(|threshold| threshold.key == key);
        (
            key,
            value(
                number,
                threshold.map_or(Unit::Count, |threshold| threshold.unit),
            ),
        )
    })
}

/// A threshold's default as it is written on the command line and in the configuration.
pub fn value_of_default(threshold: &Threshold) -> String {
    value(threshold.default, threshold.unit)
}

fn value(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Count => format!("{value}"),
        Unit::Seconds => format!("{value}s"),
        Unit::Percent => format!("{value}%"),
        Unit::PerSecond => format!("{value}/s"),
    }
}

/// The text of a finding: the same words with which it is found, and its thresholds with their reasons and the values
/// in force.
///
/// # Errors
/// When `out` fails.
pub fn detector_text(
    detector: &Detector,
    settings: &Settings,
    screen: Screen,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    const INDENT: usize = 11;
    let limits = settings.limits(detector);
    let width = screen.text_width();
    let mut part = |label: &str, text: &str| {
        let line = format!("{label:<INDENT$}{}", wrap(text, width, INDENT));
        writeln!(out, "{}", line.trim_end())
    };
    part(detector.id, "")?;
    part("", detector.summary)?;
    if !detector.aliases.is_empty() {
        part("also", &detector.aliases.join(", "))?;
    }
    part("", "")?;
    part("looks at", detector.signals)?;
    part("meaning", detector.explanation)?;
    for (at, advice) in detector.advice.iter().enumerate() {
        part(if at == 0 { "do" } else { "" }, advice)?;
    }
    for (at, folklore) in detector.folklore.iter().enumerate() {
        part(if at == 0 { "beware" } else { "" }, folklore)?;
    }
    part("", "")?;
    for (at, threshold) in detector.thresholds.iter().enumerate() {
        let label = if at == 0 { "limits" } else { "" };
        let value = value(limits.get(threshold.key), threshold.unit);
        let default = value_of_default(threshold);
        let set = if value == default {
            String::new()
        } else {
            format!(" ({default} unless set)")
        };
        part(
            label,
            &format!("{} = {value}{set}: {}", threshold.key, threshold.doc),
        )?;
    }
    for over in settings.overrides(detector) {
        let limits: Vec<String> = over_limits(detector, over)
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        let scope = Safe(&over.scope.to_string()).to_string();
        part("", &format!("{scope}: {}", limits.join(", ")))?;
    }
    if let Some(threshold) = detector.thresholds.first() {
        let value = value_of_default(threshold);
        part(
            "set",
            &format!(
                "linger diagnose --threshold {}.{}={value}",
                detector.id, threshold.key
            ),
        )?;
    }
    part(
        "severity",
        "critical: users are hurt now or will be within the hour; warning: a person should look today; info: worth knowing while diagnosing",
    )?;
    for (at, blind) in detector.blind.iter().enumerate() {
        let (major, minor) = blind.since;
        part(
            if at == 0 { "kernels" } else { "" },
            &format!(
                "before {major}.{minor}, without {}: {}",
                blind.lacks, blind.effect
            ),
        )?;
    }
    part("ground", &detector.grounds.join("; "))?;
    let states: Vec<String> = detector
        .states
        .iter()
        .filter_map(|state| state.slug())
        .map(|slug| format!("linger explain {slug}"))
        .collect();
    if !states.is_empty() {
        part("states", &states.join(", "))?;
    }
    Ok(())
}

fn detector_json(detector: &Detector, settings: &Settings) -> Value {
    let limits = settings.limits(detector);
    let thresholds: Vec<Value> = detector
        .thresholds
        .iter()
        .map(|threshold| {
            let unit = match threshold.unit {
                Unit::Count => "count",
                Unit::Seconds => "s",
                Unit::Percent => "%",
                Unit::PerSecond => "1/s",
            };
            json!({ "key": threshold.key, "default": threshold.default, "value": limits.get(threshold.key), "unit": unit, "doc": threshold.doc })
        })
        .collect();
    let overrides: Vec<Value> = settings
        .overrides(detector)
        .into_iter()
        .map(|over| {
            let limits: serde_json::Map<String, Value> = over
                .limits(detector)
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.into()))
                .collect();
            json!({ "subject": over.scope.to_string(), "thresholds": limits })
        })
        .collect();
    let states: Vec<&str> = detector
        .states
        .iter()
        .filter_map(|state| state.slug())
        .collect();
    json!({
        "kind": "finding",
        "id": detector.id,
        "aliases": detector.aliases,
        "summary": detector.summary,
        "signals": detector.signals,
        "explanation": detector.explanation,
        "advice": detector.advice,
        "folklore": detector.folklore,
        "states": states,
        "thresholds": thresholds,
        "kernels": detector.blind.iter().map(|blind| {
            let (major, minor) = blind.since;
            json!({ "before": format!("{major}.{minor}"), "lacks": blind.lacks, "effect": blind.effect })
        }).collect::<Vec<_>>(),
        "overrides": overrides,
        "grounds": detector.grounds,
    })
}
