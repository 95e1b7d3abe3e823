//! Closes that the peer does not answer: what the detectors of FIN-WAIT-1, CLOSING and LAST-ACK share.
//!
//! In all three this side waits for the acknowledgement of its FIN, with a retransmission timer that the kernel ends
//! by itself. `close(2)` enters the state while data may still wait in front of the FIN, so "our FIN is not
//! acknowledged" is true only where nothing but the FIN is left (Send-Q 1). Sockets under the zero-window timer are not
//! unanswered: their peer says "wait".

use std::collections::{BTreeMap, HashMap};

use super::group::{self, Target};
use super::role::{self, Towards};
use super::scenario::{HERE, Scenario, THERE};
use super::{Context, Limits, Threshold, Unit, Verdict, words};
use crate::history::{Held, Sample, holds};
use crate::knowledge::lifetimes::Lifetime;
use crate::model::{
    Actor, Endpoint, Evidence, Finding, Process, Severity, Socket, Subject, TcpInfo, TcpState,
    Timer,
};

/// So many small groups of destinations are told one by one; more are one finding.
const FEW: usize = 3;

/// A limit that [`check`] reads beside those of [`role::judge`].
pub const AGE: Threshold = Threshold {
    key: "age",
    default: 3.0,
    unit: Unit::Seconds,
    doc: "a FIN or data unanswered for so long: a living peer answers within a round trip and 45 ms",
};

/// A limit that [`check`] reads beside those of [`role::judge`].
pub const RETRIES: Threshold = Threshold {
    key: "retransmissions",
    default: 2.0,
    unit: Unit::Count,
    doc: "of the same segment: one may get lost anywhere",
};

/// One of the three states, as its detector tells it.
pub struct Kind {
    /// the detector
    pub id: &'static str,
    /// the state's name
    pub state: &'static str,
    /// what the explanations rest on
    pub grounds: &'static [&'static str],
    /// the first sentence of the explanation, where only the FIN is out
    pub fin: &'static str,
    /// and where data waits before it: what happened, without a full stop
    pub data: &'static str,
    /// what not to do
    pub not: &'static str,
    /// for a state that is over in milliseconds and needs two looks: what an earlier sample held in it
    pub twice: Option<fn(&Sample) -> &[Held]>,
}

/// The unanswered sockets of one group.
struct Stuck<'a> {
    towards: Towards,
    oldest_ms: u64,
    /// sockets with data before their FIN, and how much
    with_data: u64,
    bytes: u64,
    /// sockets whose peer was heard since
    heard: u64,
    /// sockets that a program holds, and the one that holds most
    held: u64,
    holder: Option<&'a Process>,
}

/// Judges the rows of one state.
pub fn check(context: &Context<'_>, limits: &Limits, rows: &[u32], kind: &Kind) -> Verdict {
    let mut undated = 0u64;
    let mut ages: HashMap<u32, u64> = HashMap::new();
    for row in rows {
        let Some(socket) = context.snapshot.socket(*row) else {
            continue;
        };
        if socket.timer != Timer::Retransmit
            || f64::from(socket.retransmits) < limits.get("retransmissions")
        {
            continue;
        }
        match context.age_ms(*row) {
            Some(age) if age >= limits.ms("age") => {
                ages.insert(*row, age);
            }
            Some(_) => {}
            None => undated += 1,
        }
    }
    let unanswered = rows.iter().copied().filter(|row| ages.contains_key(row));
    let (mut large, small): (Vec<Towards>, Vec<Towards>) = role::towards(context, unanswered)
        .into_iter()
        .partition(|towards| {
            matches!(towards.target, Target::Listener(_))
                || towards.stuck() as f64 >= limits.get("min")
        });
    if small.len() > FEW {
        large.push(together(context, small));
    } else {
        large.extend(small);
    }
    let findings: Vec<Finding> = large
        .into_iter()
        .map(|towards| {
            let stuck = measure(context, towards, &ages);
            finding(context, limits, kind, &stuck)
        })
        .collect();
    if findings.is_empty() && undated > 0 {
        return Verdict::CannotTell(format!(
            "{} in {}, but without tcp_info their age is not known",
            words::count(undated, "retransmitting socket"),
            kind.state
        ));
    }
    Verdict::of(group::capped(findings))
}

/// A few sockets towards each of many destinations, held against all that this host has dialled.
fn together(context: &Context<'_>, small: Vec<Towards>) -> Towards {
    let targets = u32::try_from(small.len()).unwrap_or(u32::MAX);
    Towards {
        target: Target::Many(targets),
        rows: small.into_iter().flat_map(|towards| towards.rows).collect(),
        in_use: context
            .tally
            .dialled()
            .map(|(_, counts)| role::in_use(counts))
            .sum(),
        closes: 0.0,
        is_one_peer: false,
    }
}

fn measure<'a>(context: &Context<'a>, mut towards: Towards, ages: &HashMap<u32, u64>) -> Stuck<'a> {
    let age = |row: &u32| ages.get(row).copied().unwrap_or(0);
    towards
        .rows
        .sort_by_key(|row| (std::cmp::Reverse(age(row)), *row));
    let mut stuck = Stuck {
        oldest_ms: towards.rows.first().map_or(0, age),
        with_data: 0,
        bytes: 0,
        heard: 0,
        held: 0,
        holder: None,
        towards,
    };
    let mut holders: BTreeMap<u32, (u64, &Process)> = BTreeMap::new();
    for row in &stuck.towards.rows {
        let Some(socket) = context.snapshot.socket(*row) else {
            continue;
        };
        let before = data(socket);
        stuck.with_data += u64::from(before > 0);
        stuck.bytes = stuck.bytes.saturating_add(before);
        let info = context.snapshot.info(socket);
        let info = info.as_ref();
        stuck.heard += u64::from(info.is_some_and(|info| is_heard(info, age(row))));
        stuck.held += u64::from(socket.inode != 0);
        if let Some(holder) = words::holder(context.snapshot, socket) {
            holders.entry(holder.pid).or_insert((0, holder)).0 += 1;
        }
    }
    stuck.holder = holders
        .into_values()
        .max_by_key(|(count, _)| *count)
        .map(|(_, holder)| holder);
    stuck
}

/// The bytes before the FIN, which counts as one in Send-Q.
fn data(socket: &Socket) -> u64 {
    u64::from(socket.send_q.saturating_sub(1))
}

/// Whether a segment of the peer came after the socket got stuck. A peer that repeats its FIN does so at intervals
/// that double, the last one up to half of the whole time ago; ages are known to a few per cent.
fn is_heard(info: &TcpInfo, age_ms: u64) -> bool {
    u64::from(info.last_ack_recv_ms).saturating_mul(4) < age_ms.saturating_mul(3)
}

impl Stuck<'_> {
    fn mostly(&self, part: u64) -> bool {
        part * 2 > self.towards.stuck()
    }

    /// For how long the kernel keeps most of them.
    fn lifetime(&self) -> Lifetime {
        if self.mostly(self.held) {
            Lifetime::Attached
        } else {
            Lifetime::Orphan
        }
    }
}

/// How bad, and whether a second look would have to confirm it.
fn judge(
    context: &Context<'_>,
    limits: &Limits,
    kind: &Kind,
    stuck: &Stuck<'_>,
) -> (Severity, bool) {
    let towards = &stuck.towards;
    let severity = match towards.target {
        Target::Many(_) => {
            let most =
                towards.stuck() as f64 * 100.0 >= towards.in_use as f64 * limits.get("share");
            if most && towards.stuck() as f64 >= limits.get("min") {
                Severity::Warning
            } else {
                Severity::Info
            }
        }
        _ => {
            // Where the setting cannot be read, the kernel's default.
            let default = match stuck.lifetime() {
                Lifetime::Attached => 924_600,
                _ => 107_000,
            };
            let lifetime = stuck.lifetime().ms(&context.snapshot.facts);
            role::judge(towards, lifetime.unwrap_or(default) as f64 / 1000.0, limits)
        }
    };
    let severity = match severity {
        // Both programs are done with these connections: users are hurt only by data that is lost, or if they want
        // to get there again and cannot.
        Severity::Critical
            if (stuck.with_data as f64) < limits.get("min") && !is_wanted(context, towards) =>
        {
            Severity::Warning
        }
        severity => severity,
    };
    match kind.twice {
        Some(held) if !is_confirmed(context, limits, towards, held) => (severity.lower(), true),
        _ => (severity, false),
    }
}

/// Whether a connection attempt to the same destination goes unanswered too.
fn is_wanted(context: &Context<'_>, towards: &Towards) -> bool {
    let Target::Destination(remote) = towards.target else {
        return false;
    };
    context
        .tally
        .syn_sent
        .iter()
        .filter_map(|row| context.snapshot.socket(*row))
        .any(|socket| socket.remote == remote && socket.retransmits > 0)
}

/// Whether enough of them were in this state in an earlier sample too.
fn is_confirmed(
    context: &Context<'_>,
    limits: &Limits,
    towards: &Towards,
    held: fn(&Sample) -> &[Held],
) -> bool {
    let seen = towards
        .rows
        .iter()
        .filter_map(|row| context.snapshot.socket(*row)?.cookie)
        .filter(|cookie| {
            let earlier = context.history.earlier();
            earlier
                .iter()
                .any(|sample| holds(held(sample), cookie.get()))
        })
        .count();
    seen as f64 >= limits.get("min").min(towards.stuck() as f64).max(1.0)
}

fn finding(context: &Context<'_>, limits: &Limits, kind: &Kind, stuck: &Stuck<'_>) -> Finding {
    let (severity, one_sample) = judge(context, limits, kind, stuck);
    let towards = &stuck.towards;
    let (n, all) = (
        words::thousands(towards.stuck()),
        words::thousands(towards.in_use.max(towards.stuck())),
    );
    let (long, brief, state) = (towards.target.words(), towards.target.brief(), kind.state);
    let age = words::time(stuck.oldest_ms);
    let behind = stuck.mostly(stuck.with_data);
    let bytes = words::count(stuck.bytes, "byte");
    let what = if behind {
        format!("{bytes} and then the FIN unanswered")
    } else {
        "the FIN unanswered".to_owned()
    };
    Finding {
        id: kind.id,
        variant: None,
        severity,
        title: words::fit([
            format!("{long}: {n} of {all} sockets in {state}, {what}, oldest {age}"),
            format!("{long}: {n} of {all} in {state}, {what}, oldest {age}"),
            format!("{brief}: {n} of {all} in {state}, {what}, oldest {age}"),
            format!("{brief}: {n} of {all} in {state}, unanswered for {age}"),
        ]),
        subject: match towards.target {
            Target::Many(_) => Subject::Host,
            _ => towards.subject(context),
        },
        evidence: evidence(context, limits, stuck),
        explanation: explanation(context, kind, stuck, behind.then_some(bytes)),
        grounds: kind.grounds.to_vec(),
        who_must_act: if severity == Severity::Info {
            Actor::Nobody
        } else {
            Actor::Network
        },
        advice: advice(kind, stuck, severity),
        rows: towards.rows.iter().take(10).copied().collect(),
        caused_by: None,
        one_sample,
    }
}

fn evidence(context: &Context<'_>, limits: &Limits, stuck: &Stuck<'_>) -> Vec<Evidence> {
    let towards = &stuck.towards;
    let n = towards.stuck();
    let share = words::percent(n, towards.in_use.max(n));
    let mut evidence = vec![
        Evidence::count("unanswered", n, "sockets", "idiag_state, idiag_retrans")
            .limit(limits.get("min")),
        Evidence::count("share_of_sockets", share, "%", "idiag_state").limit(limits.get("share")),
        Evidence::real(
            "oldest",
            stuck.oldest_ms as f64 / 1000.0,
            "s",
            "tcpi_total_rto_time, tcpi_backoff",
        )
        .limit(limits.get("age")),
        Evidence::count(
            "with_data_before_the_fin",
            stuck.with_data,
            "sockets",
            "idiag_wqueue",
        ),
    ];
    if stuck.bytes > 0 {
        evidence.push(Evidence::count(
            "bytes_before_the_fin",
            stuck.bytes,
            "bytes",
            "idiag_wqueue",
        ));
    }
    evidence.push(Evidence::count(
        "peer_heard_since",
        stuck.heard,
        "sockets",
        "tcpi_last_ack_recv",
    ));
    evidence.push(Evidence::count(
        "held_by_a_program",
        stuck.held,
        "sockets",
        "idiag_inode",
    ));
    if let Some(holder) = stuck.holder {
        evidence.push(Evidence::text(
            "most_held_by",
            words::process(holder),
            "/proc/PID/fd",
        ));
    }
    for (lifetime, some, name, source) in [
        (
            Lifetime::Orphan,
            stuck.held < n,
            "kernel_gives_up_orphans_after",
            "net.ipv4.tcp_orphan_retries",
        ),
        (
            Lifetime::Attached,
            stuck.held > 0,
            "kernel_gives_up_held_ones_after",
            "net.ipv4.tcp_retries2",
        ),
    ] {
        if let Some(ms) = lifetime.ms(&context.snapshot.facts).filter(|_| some) {
            evidence.push(Evidence::real(name, ms as f64 / 1000.0, "s", source));
        }
    }
    evidence
}

fn explanation(
    context: &Context<'_>,
    kind: &Kind,
    stuck: &Stuck<'_>,
    behind: Option<String>,
) -> String {
    let happened = match behind {
        Some(bytes) => format!(
            "{}, but {bytes} still wait to be acknowledged; the FIN comes after them and may not even be sent",
            kind.data
        ),
        None => kind.fin.to_owned(),
    };
    let heard = if stuck.mostly(stuck.heard) {
        "Segments of the peer still arrive, so it is what this host sends that gets lost on the way"
    } else {
        "Nothing has arrived from the peer since: it, or the way to it, is probably gone, or a firewall has forgotten \
         the connection"
    };
    let lifetime = stuck.lifetime();
    let who = match lifetime {
        Lifetime::Attached => "A program still holds the sockets, and then the kernel",
        _ => "No program holds the sockets any more, and the kernel",
    };
    format!(
        "{happened}. {heard}. {who} gives up after about {}.",
        lifetime.words(&context.snapshot.facts)
    )
}

fn advice(kind: &Kind, stuck: &Stuck<'_>, severity: Severity) -> Vec<String> {
    let first = match stuck.towards.target {
        Target::Destination(remote) => format!(
            "ip route get {}    # then: does the host live? does a firewall on the way drop?",
            remote.ip()
        ),
        Target::Listener(_) => format!("{}    # which peers", stuck.towards.command()),
        Target::Many(_) => {
            format!(
                "linger list -i state {}    # which peers",
                kind.state.to_ascii_lowercase()
            )
        }
    };
    let fix = if stuck.mostly(stuck.held) {
        "set TCP_USER_TIMEOUT in the program that holds them: the kernel then gives up sooner"
    } else if severity == Severity::Info {
        "nothing: vanished peers leave these, and they end by themselves"
    } else {
        "nothing here ends them sooner; find what the peers have in common: a route, a NAT, a firewall"
    };
    vec![first, fix.to_owned(), kind.not.to_owned()]
}

/// A machine with `n` closes towards one destination that have not been answered for 12.8 s, beside twelve healthy
/// connections.
pub fn example(state: TcpState, n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(77, "sync", 60, 1_048_576);
    let remote = Endpoint::v4(THERE, 443);
    for i in 0..12 {
        let local = Endpoint::v4(HERE, 40_000 + i);
        let socket = scenario.socket(TcpState::Established, local, remote);
        let socket = scenario.held_by(process, socket);
        scenario.push(socket, &[("last_ack_recv_ms", 10)]);
    }
    for i in 0..n {
        let local = Endpoint::v4(HERE, 50_000 + i as u16);
        let mut socket = scenario.socket(state, local, remote);
        (socket.timer, socket.timer_ms, socket.retransmits) = (Timer::Retransmit, 12_600, 6);
        socket.send_q = 1;
        scenario.push(
            socket,
            &[
                ("retransmits", 6),
                ("backoff", 6),
                ("rto_us", 12_800_000),
                ("total_rto", 6),
                ("total_rto_recoveries", 1),
                ("total_rto_time_ms", 12_400),
                ("last_ack_recv_ms", 12_900),
            ],
        );
    }
    scenario
}
