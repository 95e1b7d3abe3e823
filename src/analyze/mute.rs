//! Takes the findings out of the verdict that the configuration mutes, and says which mutes have run out.

use jiff::tz::TimeZone;

use super::settings::Mute;
use super::{Context, Settings, causes, detectors};
use crate::model::finding::Muted;
use crate::model::{Analysis, Evidence};

/// Says which findings follow from which, and mutes those that are to be. What follows from a muted finding is not
/// muted with it: it is told by itself, with the name of its cause, because whoever muted the cause may not have known
/// what would come of it.
pub fn apply(analysis: &mut Analysis, settings: &Settings, context: &Context<'_>) {
    causes::relate(&mut analysis.findings, context);
    let today = context.snapshot.taken.to_zoned(TimeZone::UTC).date();
    let is_over = |mute: &&Mute| mute.expires < today;
    let (over, holds): (Vec<&Mute>, Vec<&Mute>) = settings.mutes().iter().partition(is_over);
    for mute in over {
        if detectors::find(mute.id).is_some_and(|detector| settings.selects(detector)) {
            analysis.warnings.push(format!(
                "the mute of {} for {} has expired on {} and mutes nothing ({}): renew or remove it in {}",
                mute.id, mute.scope, mute.expires, mute.reason, mute.place
            ));
        }
    }
    let mut left = Vec::new();
    for finding in analysis.findings.drain(..) {
        let fits = |mute: &&&Mute| mute.id == finding.id && mute.scope.matches(&finding.subject);
        match holds.iter().find(fits) {
            Some(mute) => analysis.muted.push(Muted {
                finding,
                reason: mute.reason.clone(),
                expires: mute.expires,
            }),
            None => left.push(finding),
        }
    }
    analysis.findings = left;
    if analysis.muted.is_empty() {
        return;
    }
    let causes: Vec<_> = analysis.findings.iter().map(|one| one.caused_by).collect();
    causes::relate(&mut analysis.findings, context);
    for (finding, before) in analysis.findings.iter_mut().zip(causes) {
        if let (Some(cause), None) = (before, finding.caused_by) {
            let source = "[[mute]] of the configuration";
            let evidence = Evidence::text("follows_from_muted", cause, source);
            finding.evidence.push(evidence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::scenario::{HERE, Scenario};
    use crate::analyze::scope::Scope;
    use crate::model::{Endpoint, Overall, Severity, TcpState};

    fn mute(id: &'static str, process: &str, expires: &str) -> Mute {
        Mute {
            id,
            scope: Scope {
                process: Some(process.to_owned()),
                ..Scope::default()
            },
            reason: "ticket 7".to_owned(),
            expires: expires.parse().unwrap(),
            place: "linger.toml:3".to_owned(),
        }
    }

    /// A listener whose queue is full of connections that have waited for long: two findings, one follows from the
    /// other.
    fn overflowing() -> Scenario {
        let mut scenario = Scenario::default();
        let process = scenario.process(9, "db", 20, 1024);
        scenario.listen(process, 5432, 17, 16, 0);
        for i in 0..17u16 {
            let peer = Endpoint::v4([198, 51, 100, i as u8], 9000 + i);
            let socket = scenario.socket(TcpState::Established, Endpoint::v4(HERE, 5432), peer);
            let idle = ["last_data_sent_ms", "last_data_recv_ms", "last_ack_recv_ms"];
            scenario.push(socket, &idle.map(|name| (name, 60_000)));
        }
        scenario.pulse(
            &[("TcpExt.ListenOverflows", 9), ("TcpExt.ListenDrops", 9)],
            |one| {
                one.drops = Some(9);
            },
        );
        scenario
    }

    fn judged(scenario: Scenario, mutes: Vec<Mute>) -> Analysis {
        let mut settings = Settings::default();
        settings.adopt(Vec::new(), mutes);
        scenario.analyze(&settings)
    }

    #[test]
    fn what_is_muted_is_counted_and_not_judged() {
        let plain = judged(overflowing(), Vec::new());
        assert!(plain.verdict() != Overall::Ok && plain.muted.is_empty());
        assert_eq!(plain.muted_words(), None);
        let all = ["listen-overflow", "accept-queue-stuck"].map(|id| mute(id, "d*", "1970-01-01"));
        let quiet = judged(overflowing(), all.to_vec());
        assert_eq!(quiet.verdict(), Overall::Ok, "{:?}", quiet.findings);
        assert_eq!(quiet.muted.len(), plain.findings.len());
        assert!(!quiet.quiet.contains(&"listen-overflow"), "it is not quiet");
        let worst = plain.findings.iter().map(|one| one.severity).max();
        assert!(quiet.muted_words().unwrap().contains(worst.unwrap().name()));
        let other = [mute("listen-overflow", "nginx", "1970-01-01")];
        assert_eq!(judged(overflowing(), other.to_vec()), plain);
    }

    #[test]
    fn what_follows_from_a_muted_finding_is_still_told() {
        let plain = judged(overflowing(), Vec::new());
        let follows = |analysis: &Analysis| {
            let mut all = analysis.findings.iter();
            all.find(|one| one.id == "accept-queue-stuck").cloned()
        };
        let before = follows(&plain).unwrap();
        assert_eq!(before.caused_by, Some("listen-overflow"));
        let analysis = judged(
            overflowing(),
            vec![mute("listen-overflow", "db", "1970-01-01")],
        );
        let after = follows(&analysis).unwrap();
        assert_eq!((after.caused_by, after.severity), (None, before.severity));
        assert!(after.severity > Severity::Info && analysis.verdict() != Overall::Ok);
        let told = after.evidence.last().unwrap();
        assert_eq!(told.name, "follows_from_muted");
        assert_eq!(analysis.muted[0].finding.id, "listen-overflow");
    }

    #[test]
    fn a_mute_holds_through_its_last_day_by_the_date_of_the_reading() {
        let at = |day: &str| {
            let mut scenario = overflowing();
            let later = format!("{day}T23:59:59Z")
                .parse::<jiff::Timestamp>()
                .unwrap();
            scenario.snapshot.taken = later;
            judged(scenario, vec![mute("listen-overflow", "db", "2027-01-31")])
        };
        let last = at("2027-01-31");
        assert_eq!((last.muted.len(), last.warnings.len()), (1, 0));
        let next = at("2027-02-01");
        assert!(next.muted.is_empty());
        let [warning] = &next.warnings[..] else {
            panic!("{:?}", next.warnings)
        };
        for part in ["process db", "2027-01-31", "ticket 7", "linger.toml:3"] {
            assert!(warning.contains(part), "{warning}");
        }
    }
}
