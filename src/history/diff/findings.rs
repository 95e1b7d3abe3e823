//! Findings of two looks compared.

use std::net::IpAddr;

use crate::model::diff::{Findings, OneSided};
use crate::model::{Analysis, Finding, Subject};

/// What a finding is about, without what a restart changes: the pid.
#[derive(PartialEq, Eq)]
enum About<'a> {
    Program(Option<&'a str>, Option<u32>, Option<&'a str>),
    Address(IpAddr),
    Port(IpAddr, u16, Option<IpAddr>),
    Host,
}

fn about(subject: &Subject) -> About<'_> {
    match subject {
        Subject::Process {
            comm, uid, unit, ..
        } => About::Program(comm.as_deref(), *uid, unit.as_deref()),
        Subject::Listener { address, port, .. } => About::Port(*address, *port, None),
        Subject::Destination {
            address,
            port,
            source_address,
        } => About::Port(*address, *port, *source_address),
        Subject::Peer { address } => About::Address(*address),
        Subject::Host => About::Host,
    }
}

/// Compares by detector and subject: the very same subject first, then one that differs in what a restart changes.
pub fn findings<'a>(before: &'a Analysis, after: &'a Analysis) -> Findings<'a> {
    let mut gone: Vec<&'a Finding> = before.findings.iter().collect();
    let mut new: Vec<&'a Finding> = after.findings.iter().collect();
    let mut kept = Vec::new();
    let same = |a: &Finding, b: &Finding| a.id == b.id && a.subject == b.subject;
    let alike = |a: &Finding, b: &Finding| a.id == b.id && about(&a.subject) == about(&b.subject);
    for is in [same as fn(&Finding, &Finding) -> bool, alike] {
        new.retain(
            |later| match gone.iter().position(|earlier| is(earlier, later)) {
                Some(at) => {
                    kept.push((gone.remove(at), *later));
                    false
                }
                None => true,
            },
        );
    }
    kept.sort_by_key(|(_, after)| std::cmp::Reverse(after.severity));
    let one_sided = |all: Vec<&'a Finding>, other: &Analysis| {
        let untold = |finding: &Finding| other.unknown.iter().any(|open| open.id == finding.id);
        let all = all.into_iter();
        all.map(|finding| OneSided {
            finding,
            untold: untold(finding),
        })
        .collect()
    };
    Findings {
        new: one_sided(new, before),
        gone: one_sided(gone, after),
        kept,
    }
}
