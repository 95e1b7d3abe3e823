//! Attempts that end before they are old: programs with short connect time-outs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{DETECTOR, advice, most_frequent};
use crate::analyze::{Context, words};
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, Subject};

/// Clients that give up within a second or two never get old. In three samples or more there is always an attempt,
/// always another socket, and never a connection. `here`: destinations of which this sample has nothing but attempts.
pub fn find(context: &Context<'_>, here: &BTreeMap<Endpoint, Vec<u32>>) -> Vec<Finding> {
    let earlier = context.history.earlier();
    let last = earlier
        .len()
        .checked_sub(2)
        .and_then(|at| earlier.get(at..));
    let Some([first, second]) = last else {
        return Vec::new();
    };
    let samples = [first, second, context.sample];
    // For each destination the attempts of each sample.
    let mut seen: HashMap<Endpoint, [Vec<u64>; 3]> = HashMap::new();
    for (at, sample) in samples.iter().enumerate() {
        for (cookie, remote) in &sample.syn_sent {
            if here.contains_key(remote)
                && let Some(cookies) = seen.entry(*remote).or_default().get_mut(at)
            {
                cookies.push(*cookie);
            }
        }
    }
    let mut findings = Vec::new();
    for (remote, rows) in here {
        let Some(attempts) = seen.get(remote) else {
            continue;
        };
        let never = samples
            .iter()
            .all(|sample| sample.established.binary_search(remote).is_err());
        let always = attempts.iter().all(|cookies| !cookies.is_empty());
        let all: BTreeSet<u64> = attempts.iter().flatten().copied().collect();
        let changing = all.len() == attempts.iter().map(Vec::len).sum::<usize>();
        if !(never && always && changing) {
            continue;
        }
        let who = most_frequent(context, rows)
            .map(|owner| format!("{} ", words::process(owner)))
            .unwrap_or_default();
        let tried = words::thousands(all.len() as u64);
        let tail = format!(
            "{tried} attempts in {} samples, none answered",
            samples.len()
        );
        let (destination, brief) = (words::endpoint(remote), words::brief(remote));
        findings.push(Finding {
            id: DETECTOR.id,
            variant: Some("short-time-outs"),
            severity: Severity::Warning,
            title: words::fit([
                format!("{who}to {destination}: {tail}"),
                format!("{who}to {brief}: {tail}"),
                format!("to {brief}: {tail}"),
            ]),
            subject: Subject::Destination {
                address: remote.ip(),
                port: remote.port,
                source_address: None,
            },
            evidence: vec![
                Evidence::count("attempts_seen", all.len() as u64, "sockets", "idiag_cookie"),
                Evidence::real(
                    "window",
                    context.sample.taken.duration_since(first.taken).as_secs_f64(),
                    "s",
                    "the first and the last of these samples",
                ),
                Evidence::count("samples", samples.len() as u64, "samples", "two or more intervals"),
            ],
            explanation: "The program gives up on each attempt after a short time and tries again with another \
                          socket; no connection was seen in any sample. Silence means a firewall that drops, a dead \
                          host, a wrong route, or a full accept queue there."
                .to_owned(),
            grounds: DETECTOR.grounds.to_vec(),
            who_must_act: Actor::Network,
            advice: advice(*remote),
            rows: rows.clone(),
            caused_by: None,
            one_sample: false,
        });
    }
    findings
}
