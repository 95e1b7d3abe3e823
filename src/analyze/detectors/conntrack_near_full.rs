//! The connection tracking table of the firewall.

use crate::analyze::rates::{self, Rate};
use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, words};
use crate::history::Sample;
use crate::model::{Actor, Evidence, Facts, Finding, Severity, Subject};

const COUNT: &str = "net/netfilter/nf_conntrack_count";
const MAX: &str = "net/netfilter/nf_conntrack_max";

pub const DETECTOR: Detector = Detector {
    id: "conntrack-near-full",
    aliases: &[],
    summary: "the connection tracking table is nearly full; then new connections are dropped",
    signals: "nf_conntrack_count of this namespace against nf_conntrack_max, and the drops of connection tracking \
              between two looks. insert_failed and invalid are evidence only.",
    explanation: "The firewall remembers every connection by timers of its own, an established one for five days. \
                  When its table is full it drops the first packet of each new connection, and clients see \
                  time-outs.",
    grounds: &[
        "Linux kernel, net/netfilter/nf_conntrack_core.c: __nf_conntrack_alloc()",
        "Linux kernel, Documentation/networking/nf_conntrack-sysctl.rst",
    ],
    advice: &[
        "raise net.netfilter.nf_conntrack_max together with nf_conntrack_buckets",
        "where kube-proxy runs, set its conntrack limits: it writes nf_conntrack_max again",
    ],
    folklore: &["notrack on a host with NAT rules breaks their connections"],
    states: &[],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "warn",
            default: 75.0,
            unit: Unit::Percent,
            doc: "of nf_conntrack_max: a burst may fill the rest",
        },
        Threshold {
            key: "critical",
            default: 90.0,
            unit: Unit::Percent,
            doc: "of nf_conntrack_max: new connections are about to be dropped",
        },
        Threshold {
            key: "drops",
            default: 1.0,
            unit: Unit::Count,
            doc: "packets dropped by connection tracking between two looks; with a table near full that is critical",
        },
    ],
    blind: &[],
    needs: Needs {
        deltas: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "entries of 100",
        limit: 75,
        build: example,
    },
};

/// Whether the facts are of a namespace other than the first one, which alone has these settings.
fn is_child(facts: &Facts) -> bool {
    let only_first = [
        "net/core/netdev_max_backlog",
        "net/ipv4/tcp_mem",
        "net/ipv4/tcp_max_orphans",
    ];
    only_first
        .iter()
        .all(|path| !facts.sysctls.contains_key(*path))
}

/// The entries of this namespace and how many the table takes; `None` where connections are not tracked.
fn entries(facts: &Facts) -> Result<Option<(u64, u64)>, String> {
    let number = |path| facts.sysctl(path).and_then(|n| u64::try_from(n).ok());
    if let (Some(count), Some(max)) = (number(COUNT), number(MAX).filter(|max| *max > 0)) {
        return Ok(Some((count, max)));
    }
    // Where connection tracking is loaded, every namespace has these files.
    if facts.sysctls.contains_key("net/core/somaxconn") && !facts.sysctls.contains_key(MAX) {
        return Ok(None);
    }
    Err("nf_conntrack_count and nf_conntrack_max could not be read".to_owned())
}

/// The entries of the host's table and how many it takes; `None` where connections are not tracked.
pub(in crate::analyze) fn conntrack_table(facts: &Facts) -> Result<Option<(u64, u64)>, String> {
    match entries(facts)? {
        Some((count, max)) if is_child(facts) => Err(format!(
            "this namespace has {} of {} entries, but the table of the host, through which its packets may pass too, \
             cannot be seen from here",
            words::thousands(count),
            words::thousands(max)
        )),
        entries => Ok(entries),
    }
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let facts = &context.snapshot.facts;
    let number = |path| facts.sysctl(path).and_then(|n| u64::try_from(n).ok());
    let (count, max) = match entries(facts) {
        Ok(Some(entries)) => entries,
        Ok(None) => return Verdict::Quiet,
        Err(reason) => return Verdict::CannotTell(reason),
    };
    let share = words::percent(count, max);
    let dropped = Rate::of(context, &["Conntrack.drop"]);
    let drops = dropped.moved > 0 && dropped.moved as f64 >= limits.get("drops");
    let above = |key| count as f64 * 100.0 >= max as f64 * limits.get(key);
    let severity = if above("critical") || above("warn") && drops {
        Severity::Critical
    } else if above("warn") || drops {
        Severity::Warning
    } else if let Err(reason) = conntrack_table(facts) {
        return Verdict::CannotTell(reason);
    } else {
        return Verdict::Quiet;
    };
    let mut evidence = vec![
        Evidence::count(
            "entries",
            count,
            "connections",
            "net.netfilter.nf_conntrack_count",
        )
        .limit(max as f64),
        Evidence::count(
            "share_of_limit",
            share,
            "%",
            "net.netfilter.nf_conntrack_max",
        )
        .limit(limits.get("warn")),
    ];
    let left = minutes_left(context, count, max);
    if let Some(minutes) = left {
        evidence.push(Evidence::real(
            "full_in",
            minutes,
            "min",
            "net.netfilter.nf_conntrack_count",
        ));
    }
    evidence.extend(rates::evidence(
        context,
        &[
            ("dropped", "Conntrack.drop", "packets"),
            ("evicted_early", "Conntrack.early_drop", "connections"),
            ("insert_failed", "Conntrack.insert_failed", "packets"),
            ("invalid", "Conntrack.invalid", "packets"),
        ],
    ));
    if let Some(days) = number("net/netfilter/nf_conntrack_tcp_timeout_established") {
        evidence.push(Evidence::count(
            "established_kept_for",
            days,
            "s",
            "net.netfilter.nf_conntrack_tcp_timeout_established",
        ));
    }
    let lost = if dropped.moved > 0 {
        format!(
            ", {} dropped in {}",
            words::thousands(dropped.moved),
            dropped.window()
        )
    } else {
        String::new()
    };
    let full = match left {
        Some(minutes) if minutes < 60.0 => {
            format!(", full in {}", words::time((minutes * 60_000.0) as u64))
        }
        _ => String::new(),
    };
    let entries = format!("{} of {}", words::thousands(count), words::thousands(max));
    Verdict::of(vec![Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            format!("conntrack: {entries} entries ({share} %){lost}{full}"),
            format!("conntrack: {entries} entries ({share} %){lost}"),
        ]),
        subject: Subject::Host,
        evidence,
        explanation: if above("warn") {
            "Connection tracking keeps an entry for every connection, and its table is nearly full. When it is full \
             the first packet of each new connection is dropped, and clients run into time-outs. Entries live by \
             timers of their own, often for much longer than the socket."
        } else {
            "Connection tracking dropped packets although its table is not full. A helper refused them, or there was \
             no memory for a new entry. Those connections run into time-outs."
        }
        .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Operator,
        advice: vec![
            "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max    # conntrack -S: why, by processor".to_owned(),
            "raise nf_conntrack_max (kube-proxy overwrites it: set conntrack.maxPerCore there); see `conntrack -L`".to_owned(),
            "do not: set notrack on a host with NAT rules; it breaks their connections".to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    }])
}

/// Looks that are older than this say nothing of how fast a table grows now, seconds.
const LATELY: f64 = 600.0;

/// How long until the table is full, by its growth since the oldest look of the last minutes, or else since the last one;
/// at least ten seconds of it, as a table breathes.
fn minutes_left(context: &Context<'_>, count: u64, max: u64) -> Option<f64> {
    let earlier = context.history.earlier();
    let since = |sample: &Sample| {
        let taken = context.sample.taken;
        taken.duration_since(sample.taken).as_secs_f64()
    };
    let lately = earlier.iter().find(|sample| since(sample) <= LATELY);
    let first = lately.or(earlier.last())?;
    let before = u64::try_from(first.facts.sysctl(COUNT)?).ok()?;
    let seconds = since(first);
    let grown = count.checked_sub(before).filter(|grown| *grown > 0)?;
    let left = max.saturating_sub(count) as f64;
    (seconds >= 10.0).then(|| left / (grown as f64 / seconds) / 60.0)
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.sysctl(COUNT, &n.to_string());
    scenario.sysctl(MAX, "100");
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Settings;
    use crate::model::Analysis;

    fn severity(scenario: Scenario) -> Option<Severity> {
        let findings = scenario.analyze(&Settings::default()).findings;
        findings.first().map(|finding| finding.severity)
    }

    fn is_unknown(analysis: &Analysis) -> bool {
        analysis
            .unknown
            .iter()
            .any(|unknown| unknown.id == DETECTOR.id)
    }

    // The table's limit is global, and a namespace cannot set it: these facts are edited.

    #[test]
    fn near_full_warns_and_nearly_used_up_is_critical_with_edited_facts() {
        assert_eq!(severity(example(74)), None);
        assert_eq!(severity(example(75)), Some(Severity::Warning));
        assert_eq!(severity(example(89)), Some(Severity::Warning));
        assert_eq!(severity(example(90)), Some(Severity::Critical));
        let finding = example(90).judge(DETECTOR.id).findings.remove(0);
        assert_eq!(finding.title, "conntrack: 90 of 100 entries (90 %)");
    }

    #[test]
    fn drops_count_most_near_the_limit_and_insert_failed_is_noise_with_edited_facts() {
        let with = |n, counter| {
            let mut scenario = example(n);
            scenario.pulse(&[(counter, 1)], |_| {});
            severity(scenario)
        };
        assert_eq!(with(75, "Conntrack.drop"), Some(Severity::Critical));
        assert_eq!(with(10, "Conntrack.drop"), Some(Severity::Warning));
        assert_eq!(with(10, "Conntrack.insert_failed"), None);
        assert_eq!(with(10, "Conntrack.early_drop"), None);
        let mut old = example(10);
        *old.snapshot
            .facts
            .counters
            .get_mut("Conntrack.drop")
            .unwrap() = 99;
        assert_eq!(severity(old), None, "drops since boot are not of now");
    }

    #[test]
    fn growth_tells_when_it_is_full_with_edited_facts() {
        let mut scenario = example(60);
        scenario.remember(60);
        scenario.sysctl(COUNT, "80");
        let finding = scenario.judge(DETECTOR.id).findings.remove(0);
        assert_eq!(
            finding.title,
            "conntrack: 80 of 100 entries (80 %), full in 60 s"
        );
    }

    #[test]
    fn in_a_pod_the_table_of_the_host_is_unknown_and_never_quiet() {
        let mut scenario = example(10);
        for machine_wide in [
            "net/core/netdev_max_backlog",
            "net/ipv4/tcp_max_orphans",
            "net/ipv4/tcp_mem",
        ] {
            scenario.snapshot.facts.sysctls.remove(machine_wide);
        }
        let analysis = scenario.analyze(&Settings::default());
        assert!(is_unknown(&analysis) && !analysis.quiet.contains(&DETECTOR.id));
        assert!(!is_unknown(&example(10).analyze(&Settings::default())));
    }

    #[test]
    fn without_connection_tracking_there_is_nothing_to_fill() {
        let mut scenario = example(10);
        scenario.snapshot.facts.sysctls.remove(COUNT);
        scenario.snapshot.facts.sysctls.remove(MAX);
        assert!(
            scenario
                .analyze(&Settings::default())
                .quiet
                .contains(&DETECTOR.id)
        );
        let mut half = example(10);
        half.snapshot.facts.sysctls.remove(COUNT);
        assert!(is_unknown(&half.analyze(&Settings::default())));
    }
}
