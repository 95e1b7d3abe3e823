//! UDP sockets that lose datagrams because their receive buffer is full.

use std::collections::BTreeMap;

use crate::analyze::scenario::{Example, HERE, Scenario};
use crate::analyze::{
    Context, Detector, Limits, Moved, Needs, ONE_LOOK, Threshold, Unit, Verdict, group, words,
};
use crate::model::snapshot::identity;
use crate::model::{Actor, Datagram, Endpoint, Evidence, Family, Finding, Process, Severity};

pub const DETECTOR: Detector = Detector {
    id: "udp-rcvbuf-drops",
    aliases: &[],
    summary: "UDP datagrams are lost because a program does not read fast enough",
    signals: "Datagrams that each UDP socket dropped between two looks, while the namespace's RcvbufErrors or \
              MemErrors agree: a filter or a bad checksum counts as a drop of the socket too. Sockets bound to a \
              multicast address are left out, and so are those bound to none where a group was joined and about as \
              many multicast packets came in: nobody may want to read them.",
    explanation: "The queue in front of the program is full. UDP has no window that could slow the sender down, so the \
                  kernel drops what does not fit, and nobody is told. The limit is SO_RCVBUF, which counts the memory \
                  of each datagram and not its bytes alone.",
    grounds: &[
        "RFC 768",
        "Linux kernel, net/ipv4/udp.c: __udp_enqueue_schedule_skb()",
    ],
    advice: &[
        "read faster: more threads or SO_REUSEPORT sockets, recvmmsg()",
        "for bursts a larger SO_RCVBUF, which net.core.rmem_max limits",
    ],
    folklore: &[
        "net.ipv4.tcp_rmem and tcp_mem are about TCP",
        "a huge buffer does not help a reader that is too slow on average; it only makes the data older",
    ],
    states: &[],
    worst: Severity::Critical,
    thresholds: &[
        Threshold {
            key: "drops",
            default: 10.0,
            unit: Unit::Count,
            doc: "datagrams between two looks; a handful lost in a burst is what UDP is for",
        },
        Threshold {
            key: "rate",
            default: 100.0,
            unit: Unit::PerSecond,
            doc: "critical from here on, if the share is reached too and somebody does read the socket",
        },
        Threshold {
            key: "share",
            default: 1.0,
            unit: Unit::Percent,
            doc: "of all datagrams of this namespace: below it most users notice nothing",
        },
        Threshold {
            key: "full",
            default: 90.0,
            unit: Unit::Percent,
            doc: "of the receive buffer, with the same in it in both looks: nobody reads the socket",
        },
    ],
    blind: &[],
    needs: Needs {
        udp: true,
        owners: true,
        deltas: true,
        ..Needs::NONE
    },
    check,
    example: Example {
        of: "datagrams dropped in one second",
        limit: 10,
        build: example,
    },
};

/// Receive errors that mean a full queue.
const FULL: &[&str] = &[
    "Udp.RcvbufErrors",
    "Udp.MemErrors",
    "Udp6.RcvbufErrors",
    "Udp6.MemErrors",
];
const READ: &[&str] = &["Udp.InDatagrams", "Udp6.InDatagrams"];
const MULTICAST: &[&str] = &["IpExt.InMcastPkts", "Ip6.InMcastPkts"];

/// The sockets of one owner on one address that have dropped something.
#[derive(Default)]
struct Losers<'a> {
    owner: Option<&'a Process>,
    uid: Option<u32>,
    sockets: u64,
    dropped: u64,
    since_opened: u64,
    /// the fullest of them: what its queue takes, and the limit
    fullest: (u32, Option<u32>),
    /// whether each had the same in its full queue in both looks
    unread: bool,
}

fn check(context: &Context<'_>, limits: &Limits) -> Verdict {
    let Some(sockets) = &context.snapshot.udp else {
        return Verdict::CannotTell("the UDP sockets were not read".to_owned());
    };
    let mut losing = sockets.iter().filter(|socket| {
        socket.drops.is_some_and(|drops| drops > 0) && !socket.socket.local.ip().is_multicast()
    });
    let compared = context.deltas().filter(|deltas| deltas.compares_udp());
    let Some(deltas) = compared else {
        return match losing.next() {
            Some(_) => Verdict::CannotTell(ONE_LOOK.to_owned()),
            None => Verdict::Quiet,
        };
    };
    let full = context.moved(FULL);
    if full == Moved::By(0) {
        return Verdict::Quiet;
    }
    let multicast = context.moved(MULTICAST).by();
    let mut groups: BTreeMap<(Option<u32>, bool, Endpoint), Losers<'_>> = BTreeMap::new();
    let (mut attributed, mut uncounted) = (0u64, false);
    for datagram in sockets {
        let socket = &datagram.socket;
        let looks = identity(socket.cookie, socket.inode).and_then(|id| deltas.udp(id));
        let dropped = looks.and_then(|(sooner, later)| {
            let dropped = later.drops?.wrapping_sub(sooner.drops?);
            // The counter wraps, but not backwards.
            let forward = i32::try_from(dropped).is_ok();
            forward.then_some((dropped, sooner, later))
        });
        let Some((dropped, sooner, later)) = dropped else {
            uncounted |= datagram.drops.is_none();
            continue;
        };
        attributed += u64::from(dropped);
        if dropped == 0 || is_multicast(context, datagram, dropped, multicast) {
            continue;
        }
        let owner = words::holder_of(context.snapshot, socket.inode);
        let key = (
            owner.map(|owner| owner.pid),
            socket.family == Family::Ipv6,
            socket.local,
        );
        let losers = groups.entry(key).or_insert_with(|| Losers {
            owner,
            uid: socket.owner_uid(),
            unread: true,
            ..Losers::default()
        });
        let rcvbuf = datagram.memory.map(|memory| memory.rcvbuf);
        let is_full = rcvbuf.is_some_and(|limit| {
            f64::from(sooner.recv_q) * 100.0 >= f64::from(limit) * limits.get("full")
        });
        losers.sockets += 1;
        losers.dropped += u64::from(dropped);
        losers.since_opened += u64::from(later.drops.unwrap_or(0));
        losers.fullest = losers
            .fullest
            .max((sooner.recv_q.max(later.recv_q), rcvbuf));
        losers.unread &= is_full && sooner.recv_q == later.recv_q;
    }
    let read = context.moved(READ).by();
    let findings: Vec<Finding> = groups
        .into_iter()
        .map(|((_, _, local), losers)| judge(limits, &losers, &local, read, deltas.seconds()))
        .collect();
    if findings.is_empty() && uncounted && full.by().is_some_and(|full| full > attributed) {
        return Verdict::CannotTell(
            "datagrams were lost in this namespace, but this kernel does not say by which socket"
                .to_owned(),
        );
    }
    Verdict::of(group::capped(findings))
}

/// Whether what the socket dropped may all have been multicast, which whoever joined a group receives unasked.
fn is_multicast(
    context: &Context<'_>,
    datagram: &Datagram,
    dropped: u32,
    multicast: Option<u64>,
) -> bool {
    let local = datagram.socket.local.ip();
    if !local.is_unspecified() {
        return local.is_multicast();
    }
    let both = datagram.socket.family == Family::Ipv6;
    let joined = context
        .snapshot
        .facts
        .groups
        .iter()
        .any(|group| !is_the_kernels(group) && (both || group.is_ipv4()));
    // Sockets and counters are not read in the same instant, so the numbers are alike, not equal.
    joined && multicast.is_none_or(|packets| packets.saturating_mul(2) >= u64::from(dropped))
}

/// Groups that the kernel joins by itself: all routers where it forwards (`net/ipv6/addrconf.c`), all snoopers of a
/// bridge (`net/bridge/br_multicast.c`). No program asked for them.
fn is_the_kernels(group: &std::net::IpAddr) -> bool {
    const OWN: [&str; 5] = ["ff01::2", "ff02::2", "ff05::2", "ff02::6a", "224.0.0.106"];
    OWN.iter().any(|own| own.parse() == Ok(*group))
}

fn judge(
    limits: &Limits,
    losers: &Losers<'_>,
    local: &Endpoint,
    read: Option<u64>,
    seconds: f64,
) -> Finding {
    let dropped = losers.dropped;
    let share = read.map(|read| words::percent(dropped, dropped.saturating_add(read)));
    let many = dropped as f64 / seconds >= limits.get("rate");
    let hurts = share.is_some_and(|share| share as f64 >= limits.get("share"));
    let severity = if many && hurts && !losers.unread {
        Severity::Critical
    } else if dropped as f64 >= limits.get("drops") {
        Severity::Warning
    } else {
        Severity::Info
    };
    let mut evidence = vec![
        Evidence::count("dropped", dropped, "datagrams", "SK_MEMINFO_DROPS")
            .limit(limits.get("drops")),
        Evidence::real("window", seconds, "s", "two looks"),
        Evidence::count(
            "dropped_since_it_was_opened",
            losers.since_opened,
            "datagrams",
            "SK_MEMINFO_DROPS",
        ),
    ];
    let (queue, rcvbuf) = losers.fullest;
    let queue = Evidence::count("receive_queue", queue, "bytes", "idiag_rqueue");
    evidence.push(match rcvbuf {
        Some(limit) => queue.limit(limit),
        None => queue,
    });
    if let Some(share) = share {
        evidence.push(
            Evidence::count(
                "share_of_all_datagrams_here",
                share,
                "%",
                "SK_MEMINFO_DROPS, Udp.InDatagrams",
            )
            .limit(limits.get("share")),
        );
    }
    if losers.sockets > 1 {
        let sockets = Evidence::count("sockets", losers.sockets, "sockets", "idiag_cookie");
        evidence.push(sockets);
    }
    let who = words::owner(losers.owner, losers.uid);
    let place = |place: String| {
        if local.is_unspecified() {
            format!(":{}", local.port)
        } else {
            place
        }
    };
    let (lost, window) = (
        words::thousands(dropped),
        words::time((seconds * 1000.0) as u64),
    );
    Finding {
        id: DETECTOR.id,
        variant: None,
        severity,
        title: words::fit([
            format!(
                "{who} UDP {} lost {lost} datagrams in {window}",
                place(words::endpoint(local))
            ),
            format!(
                "{who} UDP {} lost {lost} in {window}",
                place(words::brief(local))
            ),
        ]),
        subject: words::process_subject(losers.owner, losers.uid),
        evidence,
        explanation: if losers.unread {
            "The receive buffer of this UDP socket is full and nobody reads it: what is in it was the same in both \
             looks. The kernel drops every further datagram, and no sender is told."
        } else {
            "Datagrams come faster than the program reads them, and its receive buffer is full. UDP cannot slow the \
             sender down, so the kernel drops the rest, and no sender is told."
        }
        .to_owned(),
        grounds: DETECTOR.grounds.to_vec(),
        who_must_act: Actor::ThisProgram,
        advice: vec![
            format!("ss -uampn 'sport = :{}'    # d is what it dropped, r and rb its queue and limit", local.port),
            if losers.unread {
                "find out why the program does not read it; close the socket if nobody wants the data"
            } else {
                "read faster (threads, SO_REUSEPORT, recvmmsg); for bursts a larger SO_RCVBUF, up to net.core.rmem_max"
            }
            .to_owned(),
            "do not: tune tcp_rmem or tcp_mem, they are about TCP".to_owned(),
        ],
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    }
}

fn example(n: u32) -> Scenario {
    lost(n, Endpoint::v4(HERE, 8125), 0, 10_000)
}

/// A socket that lost so many datagrams in a second in which that many multicast packets came and that many datagrams
/// were read.
fn lost(drops: u32, local: Endpoint, multicast: i64, read: i64) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(812, "statsd", 50, 1024);
    scenario.datagram(process, local, 100, 7);
    scenario.pulse_queues(
        &[
            ("Udp.RcvbufErrors", i64::from(drops)),
            ("Udp.InDatagrams", read),
            ("IpExt.InMcastPkts", multicast),
        ],
        |queue| queue.drops = Some(7 + drops),
    );
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Analysis, Memory};

    const ANY: Endpoint = Endpoint::v4([0; 4], 8125);

    fn analysis(scenario: Scenario) -> Analysis {
        scenario.judge(DETECTOR.id)
    }

    fn of(scenario: Scenario) -> Option<Finding> {
        analysis(scenario).findings.pop()
    }

    fn severity(scenario: Scenario) -> Option<Severity> {
        of(scenario).map(|finding| finding.severity)
    }

    #[test]
    fn the_socket_that_lost_them_names_the_program() {
        let finding = of(lost(84, ANY, 0, 10_000)).unwrap();
        assert_eq!(finding.severity, Severity::Warning);
        let title = "statsd[812] UDP :8125 lost 84 datagrams in 1.0 s";
        assert_eq!(finding.title, title);
    }

    #[test]
    fn critical_takes_a_rate_a_share_and_a_reader() {
        assert_eq!(severity(lost(100, ANY, 0, 9_900)), Some(Severity::Critical));
        assert_eq!(severity(lost(99, ANY, 0, 900)), Some(Severity::Warning));
        assert_eq!(severity(lost(100, ANY, 0, 9_901)), Some(Severity::Warning));
        let mut unread = lost(1000, ANY, 0, 10);
        for socket in unread.snapshot.udp.iter_mut().flatten() {
            let mut memory = Memory::parse(&[0; 36]).unwrap();
            memory.rcvbuf = 110;
            socket.memory = Some(memory);
        }
        let finding = of(unread).unwrap();
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.explanation.contains("nobody reads"));
    }

    #[test]
    fn a_few_lost_in_a_burst_are_worth_knowing_and_none_is_quiet() {
        assert_eq!(severity(lost(9, ANY, 0, 10)), Some(Severity::Info));
        assert_eq!(severity(lost(0, ANY, 0, 10)), None);
        assert!(analysis(lost(0, ANY, 0, 10)).unknown.is_empty());
    }

    #[test]
    fn what_a_filter_drops_is_not_lost_for_want_of_room() {
        let mut scenario = Scenario::default();
        let process = scenario.process(812, "dhcpd", 50, 1024);
        scenario.datagram(process, ANY, 0, 7);
        scenario.pulse_queues(&[], |queue| queue.drops = Some(90));
        assert_eq!(of(scenario), None);
    }

    #[test]
    fn unread_multicast_is_exempt_by_address_and_by_membership_and_never_by_port() {
        let group = Endpoint::v4([239, 1, 1, 1], 8125);
        assert_eq!(of(lost(500, group, 500, 10)), None);
        let joined = |group: &str, multicast| {
            let mut scenario = lost(500, ANY, multicast, 1_000_000);
            scenario.snapshot.facts.groups = vec![group.parse().unwrap()];
            of(scenario).is_some()
        };
        assert!(!joined("239.1.1.1", 500) && !joined("239.1.1.1", 250));
        assert!(joined("239.1.1.1", 249), "most were meant for this socket");
        assert!(joined("ff02::fb", 500), "no IPv4 socket is in that group");
        assert!(joined("224.0.0.106", 500), "the kernel's own");
        let mdns = Endpoint::v4([0; 4], 5353);
        assert!(
            of(lost(500, mdns, 500, 10)).is_some(),
            "nobody joined a group"
        );
    }

    #[test]
    fn a_counter_may_wrap_and_never_runs_backwards() {
        let between = |before: u32, after: u32| {
            let mut scenario = Scenario::default();
            let process = scenario.process(812, "statsd", 50, 1024);
            scenario.datagram(process, ANY, 100, before);
            let moved = [("Udp.RcvbufErrors", 20)];
            scenario.pulse_queues(&moved, |queue| queue.drops = Some(after));
            of(scenario).map(|finding| finding.severity)
        };
        assert_eq!(between(u32::MAX - 9, 10), Some(Severity::Warning));
        assert_eq!(between(100, 50), None);
    }

    #[test]
    fn it_takes_two_looks() {
        let one = |drops| {
            let mut scenario = Scenario::default();
            let process = scenario.process(812, "statsd", 50, 1024);
            scenario.datagram(process, ANY, 0, drops);
            analysis(scenario)
        };
        assert_eq!(one(1).unknown[0].reason, ONE_LOOK);
        assert!(one(0).unknown.is_empty(), "none was ever lost");
        let mut unread = lost(84, ANY, 0, 10);
        unread.snapshot.udp = None;
        assert_eq!(analysis(unread).unknown[0].id, DETECTOR.id);
    }

    #[test]
    fn sockets_of_one_program_on_one_port_are_one_finding() {
        let mut scenario = Scenario::default();
        let process = scenario.process(812, "statsd", 50, 1024);
        for _ in 0..4 {
            scenario.datagram(process, ANY, 100, 0);
        }
        scenario.pulse_queues(&[("Udp.RcvbufErrors", 12)], |queue| queue.drops = Some(3));
        let finding = of(scenario).unwrap();
        assert_eq!(finding.severity, Severity::Warning);
        assert!(
            finding.title.contains("lost 12 datagrams"),
            "{}",
            finding.title
        );
    }

    #[test]
    fn where_sockets_count_no_drops_it_cannot_tell() {
        let mut scenario = lost(84, ANY, 0, 10);
        scenario.pulse_queues(&[("Udp.RcvbufErrors", 84)], |queue| queue.drops = None);
        for socket in scenario.snapshot.udp.iter_mut().flatten() {
            socket.drops = None;
        }
        assert_eq!(analysis(scenario).unknown[0].id, DETECTOR.id);
    }
}
