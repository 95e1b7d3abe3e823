//! `linger history`: what is kept of the looks of before.

mod args;

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::failure::Failure;
use super::{remember, source, state_dir, terminal};
use crate::analyze::detectors;
use crate::collect::Source;
use crate::history::store::{Place, Store};
use crate::model::nearest::nearest;
use crate::model::{Host, Point, Series, Transition};
use crate::render::history::{Span, data, one, table, timeline};
use crate::render::json::{self, Envelope, Head, Tail};

pub use self::args::{Args, EXAMPLES, Moment, hidden};

/// The word that stands for all findings.
const FINDINGS: &str = "findings";

/// What was asked for.
#[derive(Debug, Default)]
struct Asked {
    /// patterns of measures; none: no measures
    measures: Vec<String>,
    /// detectors; `None`: all
    findings: Option<Vec<&'static str>>,
}

/// `linger.history/1`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    envelope: Envelope<'a>,
    since: String,
    until: String,
    measures: Vec<data::Measure<'a>>,
    transitions: Vec<data::Change<'a>>,
}

/// Prints what is kept.
///
/// # Errors
/// For what is neither measure nor finding, and when there is no history or it cannot be read.
pub fn run(args: &Args) -> Result<(), Failure> {
    if args.common.from.is_some() {
        return Err(Failure::usage(
            "a capture has no history: history is what this machine remembers".to_owned(),
            "linger watch --from FILE replays a recording; linger diff A B compares two captures"
                .to_owned(),
        ));
    }
    if source::is_all(&args.common) {
        return Err(Failure::usage(
            "history is kept for each network namespace".to_owned(),
            "name one: --netns NAME, PID or PATH".to_owned(),
        ));
    }
    let directory = state_dir::find(args.state_dir.as_deref())?;
    let Some(store) = Store::open_to_read(&directory).map_err(unreadable)? else {
        return Err(Failure::failed(
            format!("there is no history in '{}'", directory.display()),
            Some("linger check, linger export and linger watch keep one; --state-dir names another place".to_owned()),
        ));
    };
    let host = source::live(&args.common)?.host();
    let names = store.names().map_err(unreadable)?;
    let asked = asked(&args.what, &names)?;
    let (zone, now) = (TimeZone::system(), Timestamp::now());
    let until = args.until.map_or(now, |until| until.at(now, &zone));
    let since = args.since.at(now, &zone);
    if since >= until {
        return Err(Failure::usage(
            format!("--since is {since}, and that is not before --until, {until}"),
            "both may be so long ago, as 24h, or a time, as '2026-11-23 14:30'".to_owned(),
        ));
    }
    let places = places(&store, &host)?;
    let all = measured(&store, &asked, &places, since, until)?;
    let changes = changed(&store, &asked, &places, since, until)?;
    let span = Span {
        since,
        until,
        now,
        zone: &zone,
    };
    show(args, &host, &all, &changes, span)
}

fn unreadable(error: crate::history::store::Error) -> Failure {
    Failure::failed(error.to_string(), error.hint().map(str::to_owned))
}

/// Sorts the words: measures and findings have no name in common.
fn asked(words: &[String], names: &[String]) -> Result<Asked, Failure> {
    if words.is_empty() {
        return Ok(Asked {
            measures: vec!["*".to_owned()],
            findings: None,
        });
    }
    let mut asked = Asked {
        measures: Vec::new(),
        findings: Some(Vec::new()),
    };
    for word in words {
        if word == FINDINGS {
            asked.findings = None;
        } else if let Some(detector) = detectors::find(word) {
            if let Some(findings) = &mut asked.findings {
                findings.push(detector.id);
            }
        } else if names.iter().any(|name| Store::fits(word, name)) {
            asked.measures.push(word.clone());
        } else {
            let ids = detectors::ALL.iter().map(|detector| detector.id);
            let near = nearest(word, names.iter().map(String::as_str).chain(ids));
            let hint = near.first().map_or_else(
                || "linger history lists what is kept".to_owned(),
                |near| format!("did you mean '{near}'?"),
            );
            return Err(Failure::usage(
                format!("nothing is kept of '{word}', and no finding is called so"),
                hint,
            ));
        }
    }
    Ok(asked)
}

/// Where this namespace was measured: one place for each boot, the oldest first.
fn places(store: &Store, host: &Host) -> Result<Vec<Place>, Failure> {
    let Some(here) = remember::place(host) else {
        return Err(Failure::failed(
            "neither boot id nor network namespace can be told here",
            None,
        ));
    };
    let mut places = store.places().map_err(unreadable)?;
    places.retain(|place| place.netns == here.netns);
    Ok(places)
}

fn measured(
    store: &Store,
    asked: &Asked,
    places: &[Place],
    since: Timestamp,
    until: Timestamp,
) -> Result<Vec<Series>, Failure> {
    let mut all: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    for (boot, place) in (0u32..).zip(places) {
        for pattern in &asked.measures {
            for series in store
                .series(pattern, since, until, Some(place))
                .map_err(unreadable)?
            {
                let points = series.points.iter().map(|point| Point {
                    taken: point.taken,
                    value: point.value,
                    boot,
                });
                let kept = all.entry(series.name).or_default();
                // Two patterns may name one measure.
                if kept.last().is_none_or(|last| last.boot < boot) {
                    kept.extend(points);
                }
            }
        }
    }
    let mut all: Vec<Series> = all
        .into_iter()
        .map(|(name, points)| Series { name, points })
        .collect();
    for series in &mut all {
        series.points.sort_by_key(|point| point.taken);
    }
    Ok(all)
}

fn changed(
    store: &Store,
    asked: &Asked,
    places: &[Place],
    since: Timestamp,
    until: Timestamp,
) -> Result<Vec<Transition>, Failure> {
    let mut all = Vec::new();
    for place in places {
        all.extend(store.transitions(since, Some(place)).map_err(unreadable)?);
    }
    all.retain(|change| {
        let wanted = asked
            .findings
            .as_ref()
            .is_none_or(|ids| ids.contains(&change.id.as_str()));
        wanted && change.taken < until
    });
    all.sort_by_key(|change| change.taken);
    Ok(all)
}

fn show(
    args: &Args,
    host: &Host,
    all: &[Series],
    changes: &[Transition],
    span: Span<'_>,
) -> Result<(), Failure> {
    let mut out = Vec::new();
    if args.common.json {
        let head = Head {
            schema: "linger.history/1",
            generated_at: Timestamp::now(),
            host: &host.name,
            netns: host.netns,
            collector: "file",
        };
        let tail = Tail {
            namespaces: &[],
            complete: true,
            warnings: &[],
        };
        let document = Document {
            envelope: Envelope { head, tail },
            since: span.since.to_string(),
            until: span.until.to_string(),
            measures: data::measures(all),
            transitions: data::changes(changes),
        };
        json::write_document(&mut out, &document)?;
        return terminal::print(&out);
    }
    let eyes = terminal::is_terminal();
    if args.csv {
        // Rows of two kinds do not fit in one table.
        if all.is_empty() && !changes.is_empty() {
            data::changes_csv(changes, eyes, &mut out)?;
        } else {
            data::values_csv(all, eyes, &mut out)?;
        }
        return terminal::print(&out);
    }
    let screen = terminal::screen(args.common.color);
    match all {
        [] => {}
        [series] => one(series, span, screen, &mut out)?,
        all => table(all, span, screen, &mut out)?,
    }
    if !changes.is_empty() {
        if !all.is_empty() {
            out.push(b'\n');
        }
        timeline(changes, span, screen, &mut out)?;
    }
    if out.is_empty() {
        let (from, to) = (span.clock(span.since), span.clock(span.until));
        out.extend(format!("nothing was kept between {from} and {to}\n").bytes());
    }
    terminal::print(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_measures_or_findings() {
        let names = ["tcp.total".to_owned(), "tcp.close-wait".to_owned()];
        let asked = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            asked(&words, &names)
        };
        let all = asked(&[]).unwrap();
        assert_eq!((all.measures, all.findings), (vec!["*".to_owned()], None));
        let one = asked(&["tcp.*"]).unwrap();
        assert_eq!((one.measures.len(), one.findings), (1, Some(vec![])));
        let finding = asked(&["close-wait-leak"]).unwrap();
        assert_eq!(
            (finding.measures.len(), finding.findings),
            (0, Some(vec!["close-wait-leak"]))
        );
        assert_eq!(asked(&["findings"]).unwrap().findings, None);
        let wrong = asked(&["tcp.close-wiat"]).unwrap_err().to_string();
        assert!(wrong.contains("did you mean 'tcp.close-wait'?"), "{wrong}");
        assert!(asked(&["udp.*"]).is_err());
    }
}
