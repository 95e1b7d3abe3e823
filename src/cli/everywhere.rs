//! `--netns all` for what is judged: each namespace by itself, with its own settings and counters, then all together.

use std::collections::BTreeSet;

use super::args::Common;
use super::failure::Failure;
use super::observe::{Observation, Part, Plan, Watch};
use super::source;
use crate::analyze::{self, Settings};
use crate::collect::netns::{self, Inside};
use crate::collect::{self, Source};
use crate::history::Tally;
use crate::model::finding::{Muted, Unknown};
use crate::model::{Analysis, Coverage, Finding, Host, Looked, Namespace, Snapshot, Subject};

/// What went wrong in a namespace.
#[derive(Default)]
pub struct Gaps {
    outside: Vec<(String, netns::Error)>,
    inside: Vec<(String, collect::Error)>,
}

impl Gaps {
    /// Notes why a namespace could not be looked at.
    pub fn add(&mut self, namespace: &Namespace, error: collect::Error) {
        match error {
            collect::Error::Namespace(error) => self.outside.push((namespace.shown(), error)),
            error => self.inside.push((namespace.shown(), error)),
        }
    }
}

/// Looks into each namespace as often as the plan says, and judges each. Between two looks all wait together.
///
/// # Errors
/// When not one of them can be read.
pub fn look(common: &Common, plan: Plan, settings: &Settings) -> Result<Observation, Failure> {
    let (mut insides, sentences) = source::each(common)?;
    // What has to be listened on is meant here, and not in every container.
    let elsewhere = settings.clone().without_expected();
    let mut gaps = Gaps::default();
    let mut all: Vec<(usize, Watch<'_>)> = insides
        .iter()
        .enumerate()
        .map(|(at, inside)| {
            let own = inside.namespace().own;
            (
                at,
                Watch::new(plan, if own { settings } else { &elsewhere }),
            )
        })
        .collect();
    for left in (0..plan.looks()).rev() {
        all.retain_mut(|(at, watch)| {
            let Some(inside) = insides.get_mut(*at) else {
                return false;
            };
            let looked = watch.look(inside, left == 0);
            looked
                .map_err(|error| gaps.add(inside.namespace(), error))
                .is_ok()
        });
        if left > 0 {
            wait(&mut insides, plan);
        }
    }
    if plan.pulse && analyze::needs(settings).deltas {
        wait(&mut insides, plan);
        for (at, watch) in &mut all {
            if let Some(inside) = insides.get_mut(*at) {
                watch.pulse(inside);
            }
        }
    }
    let mut parts = Vec::new();
    for (at, watch) in all {
        if let Some(inside) = insides.get(at) {
            parts.push(Part {
                namespace: inside.namespace().clone(),
                seen: watch.finish()?,
            });
        }
    }
    together(&insides, parts, gaps, sentences)
}

/// Waits once for all.
fn wait(insides: &mut [Inside], plan: Plan) {
    if let Some((first, others)) = insides.split_first_mut() {
        first.advance(plan.interval);
        for other in others {
            other.renew();
        }
    }
}

/// What is to be said of all namespaces at once.
///
/// # Errors
/// When not one of them was seen.
pub fn together(
    insides: &[Inside],
    mut parts: Vec<Part>,
    gaps: Gaps,
    sentences: Vec<String>,
) -> Result<Observation, Failure> {
    if parts.is_empty() {
        let first = gaps
            .inside
            .into_iter()
            .next()
            .map(|(_, error)| error.into());
        return Err(
            first.unwrap_or_else(|| Failure::failed("no network namespace could be read", None))
        );
    }
    once(&mut parts);
    let mut coverage = Coverage::default();
    for part in &parts {
        let seen = &part.seen.snapshot.coverage;
        coverage.merge(Coverage {
            missing: seen
                .missing
                .iter()
                .map(|gap| format!("{}: {gap}", part.namespace.shown()))
                .collect(),
            // The processes are the same everywhere, and read once.
            unreadable_processes: seen
                .unreadable_processes
                .saturating_sub(coverage.unreadable_processes),
            vanished_processes: seen
                .vanished_processes
                .saturating_sub(coverage.vanished_processes),
            ..seen.clone()
        });
    }
    coverage.missing.extend(sentences);
    coverage.missing.extend(netns::unseen(&gaps.outside));
    for (name, error) in &gaps.inside {
        let gap = format!("network namespace {name}: {error}");
        coverage.missing.push(gap);
    }
    let looked = insides.iter().map(|inside| Looked {
        namespace: inside.namespace().clone(),
        complete: parts.iter().any(|part| {
            part.namespace == *inside.namespace() && part.seen.snapshot.coverage.complete()
        }),
    });
    let mut tally = Tally::default();
    for part in &parts {
        tally.add_states(&part.seen.tally);
    }
    let first = parts.first().map(|part| &part.seen.snapshot);
    let snapshot = Snapshot {
        taken: first.map(|first| first.taken).unwrap_or_default(),
        host: Host {
            netns: None,
            ..first.map(|first| first.host.clone()).unwrap_or_default()
        },
        namespaces: looked.collect(),
        coverage,
        ..Snapshot::default()
    };
    let analysis = judged(&parts, snapshot.coverage.missing.is_empty());
    Ok(Observation {
        snapshot,
        tally,
        analysis,
        parts,
    })
}

/// What the whole host has only one of is found in each namespace: it is told once, where it was found first.
fn once(parts: &mut [Part]) {
    let mut told: Vec<(&'static str, String)> = Vec::new();
    for part in parts {
        let mut new = Vec::new();
        part.seen.analysis.findings.retain(|finding: &Finding| {
            let key = (finding.id, finding.title.clone());
            let again = finding.subject == Subject::Host && told.contains(&key);
            if finding.subject == Subject::Host && !again {
                new.push(key);
            }
            !again
        });
        told.extend(new);
    }
}

/// All that was found and not found. A check is quiet if it is in every namespace.
fn judged(parts: &[Part], seen: bool) -> Analysis {
    let mut all = Analysis {
        inconclusive: !seen,
        ..Analysis::default()
    };
    let mut open: Vec<(Unknown, Vec<&Namespace>)> = Vec::new();
    for Part { namespace, seen } in parts {
        let analysis = &seen.analysis;
        all.findings.extend_from_slice(&analysis.findings);
        all.muted.extend(analysis.muted.iter().map(|muted| Muted {
            finding: Finding {
                title: format!("{}: {}", namespace.shown(), muted.finding.title),
                ..muted.finding.clone()
            },
            ..muted.clone()
        }));
        all.inconclusive |= analysis.inconclusive;
        for warning in &analysis.warnings {
            if !all.warnings.contains(warning) {
                all.warnings.push(warning.clone());
            }
        }
        for unknown in &analysis.unknown {
            match open.iter_mut().find(|(known, _)| known == unknown) {
                Some((_, places)) => places.push(namespace),
                None => open.push((unknown.clone(), vec![namespace])),
            }
        }
        for id in &analysis.quiet {
            if !all.quiet.contains(id) {
                all.quiet.push(id);
            }
        }
    }
    let loud: BTreeSet<&str> = all.findings.iter().map(|finding| finding.id).collect();
    let loud = |id: &str| loud.contains(id) || open.iter().any(|(unknown, _)| unknown.id == id);
    all.quiet.retain(|id| !loud(id));
    all.unknown = open
        .into_iter()
        .map(|(unknown, places)| Unknown {
            reason: if places.len() == parts.len() {
                unknown.reason
            } else {
                format!("{} ({})", unknown.reason, within(&places))
            },
            ..unknown
        })
        .collect();
    all
}

/// `in blue`, `in blue and green`, `in 12 network namespaces`.
fn within(places: &[&Namespace]) -> String {
    match places {
        [one] => format!("in {}", one.shown()),
        [one, other] => format!("in {} and {}", one.shown(), other.shown()),
        many => format!("in {} network namespaces", many.len()),
    }
}
