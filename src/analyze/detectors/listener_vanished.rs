//! Listeners that were there, or have to be there, and are not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::analyze::expected::Expected;
use crate::analyze::scenario::{Example, Scenario};
use crate::analyze::{Context, Detector, Limits, Needs, Threshold, Unit, Verdict, group, words};
use crate::history::Sample;
use crate::model::{
    Actor, Endpoint, Evidence, Family, Finding, Severity, Socket, Subject, TcpState,
};

pub const DETECTOR: Detector = Detector {
    id: "listener-vanished",
    aliases: &[],
    summary: "a port that was listened on, or has to be, is not listened on any more",
    signals: "LISTEN sockets by address and port against the earlier looks, and against those that the user expects. \
              A restart that is over is quiet: the same address and port is there again, or a wildcard that covers \
              it.",
    explanation: "Nobody listens on the port, so the kernel answers each SYN with a reset and clients see `connection \
                  refused`. Connections that were accepted before live on. The program has ended, has closed the \
                  socket, or is between stop and start.",
    grounds: &["TCP state in OS, LISTEN", "RFC 9293 section 3.10.7.1"],
    advice: &[
        "look for a crash or a stop: `systemctl --failed`, the journal, the program's log",
        "let systemd hold the socket (a .socket unit), so that a restart refuses nobody",
    ],
    folklore: &[],
    states: &[TcpState::Listen],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "looks",
            default: 3.0,
            unit: Unit::Count,
            doc: "a listener of any of the last earlier looks is missed; then it counts as taken away on purpose",
        },
        Threshold {
            key: "within",
            default: 900.0,
            unit: Unit::Seconds,
            doc: "so is one of any look within this time, if it had lasted: looks may be a second apart or minutes",
        },
        Threshold {
            key: "age",
            default: 30.0,
            unit: Unit::Seconds,
            doc: "warns if the looks have seen it for so long, or only the oldest did, so long ago: passive FTP and \
                  tests listen for seconds",
        },
    ],
    blind: &[],
    needs: Needs {
        owners: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "listeners of the look before that are gone",
        limit: 1,
        build: example,
    },
};

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let mut findings = Vec::new();
    let mut open = None;
    let mut missing: Vec<u16> = Vec::new();
    for expected in context.expected {
        match judge(context, expected) {
            Met::Yes => {}
            Met::No(finding) => {
                missing.push(expected.port);
                findings.push(*finding);
            }
            Met::Unknown => {
                open = Some(format!(
                    "{} is listened on, but by which unit could not be seen",
                    expected.words()
                ));
            }
        }
    }
    findings.extend(
        vanished(context, limits)
            .into_iter()
            .filter(|(port, _)| !missing.contains(port))
            .map(|(_, finding)| finding),
    );
    // What was not seen may only have been missed.
    if !findings.is_empty() && !context.snapshot.coverage.rows_complete() {
        return Verdict::CannotTell("the socket table was not read whole".to_owned());
    }
    match open {
        Some(open) if findings.is_empty() => Verdict::CannotTell(open),
        _ => Verdict::of(group::capped(findings)),
    }
}

/// Where somebody listens.
type Place = (Family, Endpoint);

/// The last look that saw a port listened on, and where.
type Gone<'a> = (&'a Sample, Vec<Place>);

/// Whether a listener is as expected.
enum Met {
    Yes,
    No(Box<Finding>),
    Unknown,
}

/// Whether a listener takes connections to `wanted`. An IPv6 wildcard takes IPv4 too, unless it was told not to, which
/// the table does not show.
fn takes((family, local): Place, wanted: IpAddr) -> bool {
    if local.is_unspecified() {
        family == Family::Ipv6 || wanted.is_ipv4()
    } else {
        local.ip() == wanted
    }
}

/// Whether a listener is one that is expected.
fn serves(place: Place, expected: &Expected) -> bool {
    place.1.port == expected.port && expected.address.is_none_or(|wanted| takes(place, wanted))
}

fn judge(context: &Context<'_>, expected: &Expected) -> Met {
    let snapshot = context.snapshot;
    let listeners: Vec<&Socket> = context
        .tally
        .listeners
        .iter()
        .filter_map(|row| snapshot.socket(*row))
        .filter(|listener| serves((listener.family, listener.local), expected))
        .collect();
    let place = expected.words();
    let Some(first) = listeners.first() else {
        return Met::No(Box::new(absent(context, expected)));
    };
    let Some(wanted) = &expected.unit else {
        return Met::Yes;
    };
    let units: Vec<&str> = listeners
        .iter()
        .flat_map(|listener| snapshot.owners.of(listener.inode))
        .filter_map(|(process, _)| process.unit())
        .collect();
    if units.iter().any(|unit| expected.is_unit(unit)) {
        return Met::Yes;
    }
    let Some(owner) = words::holder(snapshot, first) else {
        return Met::Unknown;
    };
    let unit = owner.unit().unwrap_or("no unit");
    Met::No(Box::new(Finding {
        id: DETECTOR.id,
        variant: None,
        severity: Severity::Warning,
        title: words::fit([
            format!("{place} is held by {} of {unit}, not by {wanted}", words::process(owner)),
            format!("{place} is held by {}, not by {wanted}", words::process(owner)),
            format!("{place} is held by {}, not by its unit", words::process(owner)),
        ]),
        subject: words::listener_subject(snapshot, first),
        evidence: vec![
            Evidence::text("expected_unit", wanted.as_str(), "the expected listeners"),
            Evidence::text("unit", unit, "/proc/PID/cgroup"),
            Evidence::count("port", expected.port, "", "idiag_sport"),
        ],
        explanation: "The port is listened on, but by a program of another unit than expected. The right one may have \
                      failed to start because the address was in use."
            .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Operator,
        advice: vec![
            format!("linger :{}    # who holds it", expected.port),
            "look at the log of the expected unit: `address already in use`?".to_owned(),
            "do not: stop the other program before you know whose it is".to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    }))
}

fn absent(context: &Context<'_>, expected: &Expected) -> Finding {
    let place = expected.words();
    let port = expected.port;
    let unit = expected.unit.as_deref();
    let of = unit.map_or(String::new(), |unit| format!(" ({unit})"));
    let last = seen_before(context, expected);
    let since = last.map_or(String::new(), |sample| {
        format!(", last seen {} ago", words::time(since_ms(context, sample)))
    });
    let mut evidence = vec![
        Evidence::count("listeners", 0, "sockets", "idiag_state").limit(1),
        Evidence::text("expected", format!("{place}{of}"), "the expected listeners"),
    ];
    let elsewhere: Vec<String> = context
        .tally
        .listeners
        .iter()
        .filter_map(|row| context.snapshot.socket(*row))
        .filter(|listener| listener.local.port == port)
        .map(|listener| words::endpoint(&listener.local))
        .collect();
    if !elsewhere.is_empty() {
        evidence.push(Evidence::text(
            "listens_instead_on",
            elsewhere.join(", "),
            "idiag_src",
        ));
    }
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity: Severity::Critical,
        title: words::fit([
            format!("nobody listens on {place}{of}{since}, and it has to be listened on"),
            format!("nobody listens on {place}{since}, and it has to be listened on"),
            format!("nobody listens on {place}{since}"),
        ]),
        subject: Subject::Listener {
            address: expected.address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
            port,
            pid: None,
            comm: None,
            unit: expected.unit.clone(),
            container: None,
        },
        evidence,
        explanation: "A listener that has to be there is not. The kernel answers each SYN with a reset, and clients \
                      see `connection refused`."
            .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::Operator,
        advice: vec![
            match unit {
                Some(unit) if words::is_plain(unit) => {
                    format!("systemctl status {unit}    # why it does not run")
                }
                _ => "systemctl --failed    # or the log of the program that should listen".to_owned(),
            },
            format!("linger :{port}    # what is left of its connections"),
            "do not: search the network first; it is this host that refuses, by reset".to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    }
}

fn since_ms(context: &Context<'_>, sample: &Sample) -> u64 {
    let since = context.sample.taken.duration_since(sample.taken);
    u64::try_from(since.as_millis()).unwrap_or(0)
}

/// The last look that saw the expected listener.
fn seen_before<'a>(context: &Context<'a>, expected: &Expected) -> Option<&'a Sample> {
    let mut earlier = context.history.earlier().iter().rev();
    earlier.find(|sample| {
        sample
            .listening
            .iter()
            .any(|place| serves(*place, expected))
    })
}

/// What listened in one of the last looks and does not now, by port.
fn vanished(context: &Context<'_>, limits: &Limits) -> BTreeMap<u16, Finding> {
    let earlier = context.history.earlier();
    let looks = limits.get("looks") as usize;
    let first_of_last = earlier.len().saturating_sub(looks);
    let within = limits.ms("within");
    let recent = earlier
        .iter()
        .enumerate()
        .filter(|(i, sample)| *i >= first_of_last || since_ms(context, sample) <= within)
        .map(|(_, sample)| sample);
    let oldest_of_last = earlier.get(first_of_last).map(|sample| sample.taken);
    let mut gone: BTreeMap<u16, Gone<'_>> = BTreeMap::new();
    for sample in recent {
        for place in &sample.listening {
            if covered(&context.sample.listening, &sample.listening, place) {
                continue;
            }
            let (last, places) = gone
                .entry(place.1.port)
                .or_insert_with(|| (sample, Vec::new()));
            *last = sample;
            if !places.contains(place) {
                places.push(*place);
            }
        }
    }
    gone.into_iter()
        .filter_map(|(port, (last, places))| {
            let finding = lost(context, limits, last, &places)?;
            // What comes and goes is told for a few looks, not for a quarter of an hour.
            let told = finding.severity >= Severity::Warning || Some(last.taken) >= oldest_of_last;
            told.then_some((port, finding))
        })
        .collect()
}

/// Whether clients of a place are still listened to: by the same place, or by a wildcard. An IPv6 wildcard beside which
/// an IPv4 one could listen takes no IPv4.
fn covered(now: &[Place], then: &[Place], (family, place): &Place) -> bool {
    let both = |f: Family| {
        let wildcard = Endpoint::v6([0; 16], place.port);
        f == Family::Ipv6 && !then.contains(&(Family::Ipv6, wildcard))
    };
    now.iter().any(|(f, other)| {
        other.port == place.port
            && (other == place || other.is_unspecified() && (f == family || both(*f)))
    })
}

/// Whether the earlier looks prove that it was no listener of a few seconds.
fn has_lasted(context: &Context<'_>, limits: &Limits, last: &Sample, places: &[Place]) -> bool {
    let earlier = context.history.earlier();
    // Not what was there for a moment hours ago, and again now.
    let first = earlier
        .iter()
        .rev()
        .skip_while(|sample| sample.taken > last.taken)
        .take_while(|sample| places.iter().any(|place| sample.listening.contains(place)))
        .last();
    let seen = first.map_or(0, |first| {
        since_ms(context, first).saturating_sub(since_ms(context, last))
    });
    // Before the oldest look nobody looked.
    let is_oldest = earlier.first().map(|oldest| oldest.taken) == Some(last.taken);
    let age = limits.ms("age");
    seen >= age || is_oldest && since_ms(context, last) >= age
}

fn lost(
    context: &Context<'_>,
    limits: &Limits,
    last: &Sample,
    places: &[Place],
) -> Option<Finding> {
    let (family, first) = places.first()?;
    let port = first.port;
    // The kernel chooses ports from this range for what lives for a short time: data channels, tests.
    let temporary = context
        .snapshot
        .facts
        .port_range()
        .is_some_and(|(low, high)| (low..=high).contains(&port));
    let at = if first.is_unspecified() {
        format!(":{port}")
    } else {
        words::endpoint(first)
    };
    let brief = if first.is_unspecified() {
        at.clone()
    } else {
        words::brief(first)
    };
    let more = match places.len() {
        1 => String::new(),
        n => format!(" and {} more", words::count(n as u64 - 1, "place")),
    };
    let since = words::time(since_ms(context, last));
    let names: Vec<String> = places.iter().map(|(_, p)| words::endpoint(p)).collect();
    Some(Finding {
        id: DETECTOR.id,
        variant: None,
        severity: if temporary || !has_lasted(context, limits, last, places) {
            Severity::Info
        } else {
            Severity::Warning
        },
        title: words::fit([
            format!("nobody listens on {at}{more} any more, last seen {since} ago"),
            format!("nobody listens on {brief} any more, last seen {since} ago"),
        ]),
        subject: Subject::Listener {
            address: first.ip_as(*family),
            port,
            pid: None,
            comm: None,
            unit: None,
            container: None,
        },
        evidence: vec![
            Evidence::text("listened_on", names.join(", "), "idiag_src, idiag_sport"),
            Evidence::real("last_seen", since_ms(context, last) as f64 / 1000.0, "s", "an earlier look"),
        ],
        explanation: if temporary {
            "The port is one of those that the kernel gives away for a short time, so a listener there comes and goes \
             by design. Now a SYN to it is answered with a reset."
        } else {
            "The program has ended, has closed the socket, or is between stop and start. Meanwhile the kernel answers \
             each SYN with a reset, and clients see `connection refused`; what was accepted before lives on."
        }
        .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: if temporary {
            Actor::Nobody
        } else {
            Actor::Operator
        },
        advice: vec![
            format!("linger :{port}    # what is left of its connections"),
            "look for a crash or a stop: `systemctl --failed`, the journal, the program's log; then start it again".to_owned(),
            "do not: search the network first; it is this host that refuses, by reset".to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    })
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(77, "redis-server", 50, 1024);
    for i in 0..n {
        scenario.listen(process, 6379 + i as u16, 0, 128, 0);
    }
    scenario.remember(60);
    clear(&mut scenario);
    scenario
}

fn clear(scenario: &mut Scenario) {
    scenario.snapshot.sockets.clear();
    scenario.snapshot.drops.clear();
}

#[cfg(test)]
mod tests;
