//! Handshakes that are not finished: floods, and networks whose last ACK never comes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use crate::analyze::group::Target;
use crate::analyze::prefix::Prefix;
use crate::analyze::queue::{self, Queue};
use crate::analyze::rates::{self, Rate};
use crate::analyze::role::{self, Towards};
use crate::analyze::scenario::{Example, HERE, Scenario};
use crate::analyze::{
    Context, Detector, Limits, Needs, Threshold, Unit, Verdict, backlog, group, words,
};
use crate::knowledge::lifetimes;
use crate::model::{Actor, Endpoint, Evidence, Finding, Severity, Socket, TcpState, Timer};

/// From this age on the SYN-ACK has gone out a second time, which between two living hosts is rare.
const REPEATED_MS: u64 = 1_000;

/// A handshake of which the age cannot be told, because its client has repeated the SYN many times, is as old as this.
const OLD_MS: u64 = 63_000;

pub const DETECTOR: Detector = Detector {
    id: "syn-flood",
    aliases: &["handshake-incomplete"],
    summary: "handshakes begin and are not finished: a flood, or a network that our answer does not reach",
    signals: "SYN-RECEIVED sockets by listener, their age and the networks (/24, /64) that they come from, against \
              the limit of the listener's SYN queue. The form handshake-incomplete: a few networks none of which has \
              a finished connection there. Clients that TCP_DEFER_ACCEPT waits for have finished, and do not count.",
    explanation: "A SYN came, the SYN-ACK went out, and the last ACK is missing. No test program is needed for that: \
                  spoofed senders, and answers lost on the way back, do it every day. When the queue is full the \
                  kernel answers with SYN cookies, or drops SYNs where these are off.",
    grounds: &[
        "TCP state in OS, SYN_RCVD",
        "RFC 4987 section 2",
        "Linux kernel, net/ipv4/tcp_input.c: tcp_conn_request()",
    ],
    advice: &[
        "keep net.ipv4.tcp_syncookies=1; a larger backlog gives room; filter floods upstream",
        "where one network only fails: `ip route get ADDRESS`, reverse-path filters and firewalls on the way back",
    ],
    folklore: &["more tcp_synack_retries keep what is dead for longer"],
    states: &[TcpState::SynReceived],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "full",
            default: 50.0,
            unit: Unit::Percent,
            doc: "of the listener's SYN queue, where a fifth of it has waited for a second or more",
        },
        Threshold {
            key: "age",
            default: 3.0,
            unit: Unit::Seconds,
            doc: "a handshake is stuck from this age on: two SYN-ACKs went unanswered",
        },
        Threshold {
            key: "min",
            default: 10.0,
            unit: Unit::Count,
            doc: "fewer unfinished handshakes are the scans that every public address sees",
        },
        role::SHARE,
        role::BACKGROUND,
    ],
    blind: &[],
    needs: Needs {
        drops: true,
        owners: true,
        deltas: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "handshakes of one second in a SYN queue for 20",
        limit: 10,
        build: example,
    },
};

/// The unfinished handshakes of one listener.
struct Open<'a> {
    queue: Queue<'a>,
    listener: &'a Socket,
    /// ages and rows, the oldest first, without those that only wait for data
    rows: Vec<(u64, u32)>,
    /// how many of them are stuck
    stuck: u64,
    /// the limit of the SYN queue
    limit: Option<backlog::SynQueue>,
    severity: Severity,
    one_sample: bool,
    /// SYNs that were dropped between the looks
    dropped: u64,
}

impl Open<'_> {
    fn is_full(&self) -> bool {
        let total = self.queue.handshakes.len() as u64;
        self.limit.as_ref().is_some_and(|queue| total > queue.limit)
    }

    /// The rows to look at: those that are stuck, or else all.
    fn suspects(&self) -> impl Iterator<Item = u32> {
        let take = if self.stuck > 0 {
            usize::try_from(self.stuck).unwrap_or(usize::MAX)
        } else {
            usize::MAX
        };
        self.rows.iter().take(take).map(|(_, row)| *row)
    }
}

/// Where handshakes come from.
#[derive(Default)]
struct Origin {
    peers: BTreeSet<IpAddr>,
    prefixes: BTreeMap<Prefix, u64>,
    /// finished connections of the same networks, and of others
    finished: u64,
    finished_elsewhere: u64,
}

impl Origin {
    /// A few networks that finish nothing.
    fn is_few(&self) -> bool {
        self.prefixes.len() <= 3 && self.finished == 0
    }

    fn networks(&self) -> String {
        match self.prefixes.keys().next() {
            Some(prefix) if self.prefixes.len() == 1 => prefix.words(),
            _ => words::count(self.prefixes.len() as u64, "network"),
        }
    }
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    if context.tally.syn_received.is_empty() {
        return Verdict::Quiet;
    }
    let mut unlimited = 0;
    let mut found = Vec::new();
    for queue in queue::all(context) {
        if queue.handshakes.is_empty() {
            continue;
        }
        let many = queue.handshakes.len() as f64 >= limits.get("min");
        let unknown = queue.siblings.iter().any(|s| s.backlog().is_none());
        match judge(context, limits, queue) {
            Some(open) => found.push(open),
            None => unlimited += u64::from(many && unknown),
        }
    }
    if found.is_empty() && unlimited > 0 {
        return Verdict::CannotTell(format!(
            "{} with unfinished handshakes, but /proc/net does not show how many it takes",
            words::count(unlimited, "listener")
        ));
    }
    let origins = origins(context, &found);
    let findings = found.iter().zip(&origins);
    Verdict::of(group::capped(
        findings
            .map(|(open, origin)| finding(context, limits, open, origin))
            .collect(),
    ))
}

/// Whether the client has finished the handshake and the listener waits for its data (`TCP_DEFER_ACCEPT`): the timer
/// has grown although no SYN-ACK was repeated.
fn is_deferred(socket: &Socket) -> bool {
    socket.retransmits == 0 && socket.timer == Timer::Retransmit && socket.timer_ms > 1_200
}

fn judge<'a>(context: &Context<'a>, limits: &Limits, queue: Queue<'a>) -> Option<Open<'a>> {
    let facts = &context.snapshot.facts;
    let listener = queue.fullest()?;
    let mut rows: Vec<(u64, u32)> = queue
        .handshakes
        .iter()
        .filter(|row| {
            let socket = context.snapshot.socket(**row);
            socket.is_some_and(|socket| !is_deferred(socket))
        })
        .map(|row| (context.age_ms(*row).unwrap_or(OLD_MS), *row))
        .collect();
    rows.sort_unstable_by_key(|(age, row)| (std::cmp::Reverse(*age), *row));
    let older = |ms: u64| rows.iter().filter(|(age, _)| *age >= ms).count() as u64;
    let (stuck, repeated) = (older(limits.ms("age")), older(REPEATED_MS));
    let (count, total) = (rows.len() as u64, queue.handshakes.len() as u64);
    let limit = backlog::syn_queue(facts, &queue.siblings);
    let off = backlog::cookies(facts) == Some(0);
    let own: u64 = context.deltas().map_or(0, |deltas| {
        let drops = queue.siblings.iter().filter_map(|s| deltas.drops(s.cookie));
        drops.map(u64::from).sum()
    });
    let refused = Rate::of(context, &["TcpExt.TCPReqQFullDrop"]).moved;
    let dropped = refused.max(if off { own } else { 0 });
    let cookies = Rate::of(context, &["TcpExt.SyncookiesSent"]).moved;
    let enough = count as f64 >= limits.get("min");
    let full = limit.as_ref().is_some_and(|queue| total > queue.limit);
    let level = limit.as_ref().is_some_and(|queue| {
        enough && count as f64 * 100.0 >= queue.limit as f64 * limits.get("full")
    });
    let (severity, one_sample) = if full && dropped > 0 {
        // Real clients are turned away with the others.
        (Severity::Critical, false)
    } else if full && (count >= 5 || cookies > 0) || level && repeated * 5 >= count {
        (Severity::Warning, false)
    } else if stuck as f64 >= limits.get("min") {
        (
            by_age(context, limits, listener.local.port, &rows, stuck),
            false,
        )
    } else if level {
        // Between living hosts a handshake is a matter of milliseconds, and a burst looks like this too.
        (Severity::Info, true)
    } else {
        return None;
    };
    Some(Open {
        listener,
        rows,
        stuck,
        limit,
        severity,
        one_sample,
        dropped: if full { dropped } else { 0 },
        queue,
    })
}

/// Against what vanished clients leave on any public listener.
fn by_age(
    context: &Context<'_>,
    limits: &Limits,
    port: u16,
    rows: &[(u64, u32)],
    stuck: u64,
) -> Severity {
    let counts = context.tally.served(port);
    let idle = counts.of(TcpState::TimeWait)
        + counts.of(TcpState::SynReceived)
        + counts.of(TcpState::NewSynReceived);
    let stuck = usize::try_from(stuck).unwrap_or(usize::MAX);
    let towards = Towards {
        target: Target::Listener(port),
        rows: rows.iter().take(stuck).map(|(_, row)| *row).collect(),
        in_use: u64::from(counts.total().saturating_sub(idle)),
        closes: f64::from(counts.of(TcpState::TimeWait)) / 60.0,
        is_one_peer: false,
    };
    let lifetime = lifetimes::syn_received_ms(&context.snapshot.facts).unwrap_or(OLD_MS);
    role::judge(&towards, lifetime as f64 / 1000.0, limits)
}

/// Where the handshakes come from, and who else finishes his: one pass over the rows for all listeners together.
fn origins(context: &Context<'_>, found: &[Open<'_>]) -> Vec<Origin> {
    let mut origins: Vec<Origin> = Vec::new();
    let mut places: HashMap<u16, Vec<usize>> = HashMap::new();
    for (at, open) in found.iter().enumerate() {
        let mut origin = Origin::default();
        for socket in open
            .suspects()
            .filter_map(|row| context.snapshot.socket(row))
        {
            origin.peers.insert(socket.remote.ip());
            *origin
                .prefixes
                .entry(Prefix::of(&socket.remote))
                .or_default() += 1;
        }
        origins.push(origin);
        places.entry(open.listener.local.port).or_default().push(at);
    }
    if places.is_empty() {
        return origins;
    }
    for socket in &context.snapshot.sockets {
        let Some(places) = places.get(&socket.local.port) else {
            continue;
        };
        let begun = matches!(
            socket.state,
            TcpState::Listen
                | TcpState::BoundInactive
                | TcpState::SynSent
                | TcpState::SynReceived
                | TcpState::NewSynReceived
        );
        if begun {
            continue;
        }
        let prefix = Prefix::of(&socket.remote);
        for place in places {
            if let Some(origin) = origins.get_mut(*place) {
                if origin.prefixes.contains_key(&prefix) {
                    origin.finished += 1;
                } else {
                    origin.finished_elsewhere += 1;
                }
            }
        }
    }
    origins
}

fn finding(context: &Context<'_>, limits: &Limits, open: &Open<'_>, origin: &Origin) -> Finding {
    let snapshot = context.snapshot;
    let incomplete = origin.is_few();
    let port = open.listener.local.port;
    let total = open.queue.handshakes.len() as u64;
    let (oldest, _) = open.rows.first().copied().unwrap_or_default();
    let window = context.seconds().map(|s| words::time((s * 1000.0) as u64));

    let unfinished = Evidence::count("unfinished", total, "handshakes", "idiag_state");
    let mut evidence = match &open.limit {
        Some(queue) => vec![
            unfinished.limit(queue.limit as f64),
            Evidence::count(
                "share_of_limit",
                words::percent(total, queue.limit),
                "%",
                "idiag_state, idiag_wqueue",
            )
            .limit(limits.get("full")),
            Evidence::text(
                "what_sets_the_limit",
                queue.binds.clone(),
                "idiag_wqueue, net.core.somaxconn, net.ipv4.tcp_max_syn_backlog",
            ),
        ],
        None => vec![unfinished],
    };
    evidence.push(
        Evidence::count(
            "stuck",
            open.stuck,
            "handshakes",
            "idiag_retrans, idiag_expires",
        )
        .limit(limits.get("min")),
    );
    evidence.push(
        Evidence::real(
            "oldest",
            oldest as f64 / 1000.0,
            "s",
            "idiag_retrans, idiag_expires",
        )
        .limit(limits.get("age")),
    );
    evidence.push(Evidence::count(
        "peers",
        origin.peers.len() as u64,
        "hosts",
        "idiag_dst",
    ));
    evidence.push(Evidence::text("from", origin.networks(), "idiag_dst"));
    evidence.push(Evidence::count(
        "finished_from_there",
        origin.finished,
        "connections",
        "idiag_state",
    ));
    evidence.push(Evidence::count(
        "finished_from_elsewhere",
        origin.finished_elsewhere,
        "connections",
        "idiag_state",
    ));
    if open.dropped > 0 {
        evidence.push(Evidence::count(
            "syns_dropped",
            open.dropped,
            "packets",
            "TcpExt.TCPReqQFullDrop, SK_MEMINFO_DROPS",
        ));
    }
    evidence.extend(rates::evidence(
        context,
        &[
            ("cookies_sent", "TcpExt.SyncookiesSent", "packets"),
            ("reset_by_the_client", "TcpExt.EmbryonicRsts", "handshakes"),
            (
                "reverse_path_filtered",
                "TcpExt.IPReversePathFilter",
                "packets",
            ),
            ("invalid_to_conntrack", "Conntrack.invalid", "packets"),
        ],
    ));

    let title = words::listener_title(snapshot, open.listener);
    let n = words::thousands(total);
    let room = open.limit.as_ref().map_or(String::new(), |queue| {
        format!(", room for {}", words::thousands(queue.limit))
    });
    let lost = match &window {
        Some(window) if open.dropped > 0 => {
            format!(", {} dropped in {window}", words::thousands(open.dropped))
        }
        _ => String::new(),
    };
    let from = origin.networks();
    let age = words::time(oldest);
    let titles = if incomplete {
        [
            format!("{title}: {n} handshakes from {from} unfinished, oldest {age}{lost}"),
            format!("{title}: {n} handshakes unfinished, oldest {age}{lost}"),
            format!("listener :{port}: {n} handshakes unfinished, oldest {age}{lost}"),
        ]
    } else {
        [
            format!("{title}: {n} handshakes unfinished{room}, oldest {age}{lost}"),
            format!("{title}: {n} handshakes unfinished{room}{lost}"),
            format!("listener :{port}: {n} handshakes unfinished{room}{lost}"),
        ]
    };
    let sample = open.suspects().next().and_then(|row| snapshot.socket(row));
    let address = sample.map_or(open.listener.local.ip(), |socket| socket.remote.ip());
    Finding {
        id: DETECTOR.id,
        variant: incomplete.then_some("handshake-incomplete"),
        severity: open.severity,
        title: words::fit(titles),
        subject: words::listener_subject(snapshot, open.listener),
        evidence,
        explanation: explain(context, open, origin),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: if incomplete {
            Actor::Network
        } else {
            Actor::Operator
        },
        advice: if incomplete {
            vec![
                format!("ip route get {address}    # does the answer leave where the SYN came in?"),
                "then look for reverse-path filters and firewalls that lose the SYN-ACK or the last ACK".to_owned(),
                "do not: raise tcp_synack_retries; what is dead only stays for longer".to_owned(),
            ]
        } else {
            vec![
                format!("ss -tn state syn-recv '( sport = :{port} )'    # who begins and does not finish"),
                "keep net.ipv4.tcp_syncookies=1, give the listener a larger backlog, filter upstream".to_owned(),
                "do not: raise tcp_synack_retries; what is dead only stays for longer".to_owned(),
            ]
        },
        rows: open.suspects().take(10).collect(),
        caused_by: None,
        one_sample: open.one_sample,
    }
}

fn explain(context: &Context<'_>, open: &Open<'_>, origin: &Origin) -> String {
    let cookies = backlog::cookies(&context.snapshot.facts);
    let queue = match (open.is_full(), open.dropped > 0, cookies) {
        (true, true, _) => {
            "The queue is full and SYNs are dropped, so that real clients wait for seconds or fail."
        }
        (true, false, Some(1..)) => {
            "The queue is full; the kernel answers further SYNs with cookies, and clients still get in."
        }
        (true, false, _) => "The queue is full, and the next SYN may be dropped.",
        (false, _, Some(0)) => {
            "When the queue is full SYNs are dropped, because SYN cookies are off."
        }
        (false, ..) => "When the queue is full the kernel answers with SYN cookies.",
    };
    if origin.is_few() {
        let others = if origin.finished_elsewhere > 0 {
            format!(
                ", while {} from other networks got through",
                words::count(origin.finished_elsewhere, "connection")
            )
        } else {
            String::new()
        };
        return format!(
            "SYNs come in from {} and the SYN-ACKs go out, but no connection from there is finished{others}. The \
             answer, or the last ACK, is lost on the way. {queue}",
            origin.networks()
        );
    }
    format!(
        "SYNs came from {} in {}, the SYN-ACKs went out, and the last ACK is missing. Spoofed senders never \
         answer; clients behind a lossy path look the same. {queue}",
        words::count(origin.peers.len() as u64, "sender"),
        words::count(origin.prefixes.len() as u64, "network"),
    )
}

fn example(n: u32) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(901, "nginx", 50, 1024);
    scenario.listen(process, 443, 0, 20, 0);
    handshakes(&mut scenario, n, 1, 1_000);
    scenario
}

/// `n` handshakes, each from another network, after so many repeated SYN-ACKs.
fn handshakes(scenario: &mut Scenario, n: u32, retries: u8, timer_ms: u32) {
    for i in 0..n {
        let peer = Endpoint::v4([198, 18, i as u8, 9], 1024 + i as u16);
        let mut socket = scenario.socket(TcpState::SynReceived, Endpoint::v4(HERE, 443), peer);
        (socket.timer, socket.timer_ms) = (Timer::Retransmit, timer_ms);
        (socket.retransmits, socket.uid) = (retries, 0);
        scenario.push(socket, &[]);
    }
}

#[cfg(test)]
mod tests;
