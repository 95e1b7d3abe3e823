//! Two looks that were made up.

use std::num::NonZeroU64;

use jiff::Timestamp;

use super::*;
use crate::model::diff::{Diff, OneSided, Program};
use crate::model::{
    Analysis, Collector, Coverage, Datagram, Endpoint, Family, Finding, Host, Process, Severity,
    Subject, Timer, Unknown,
};

fn tcp(cookie: u64, port: u16, state: TcpState) -> Socket {
    Socket {
        cookie: NonZeroU64::new(cookie),
        local: Endpoint::v4([10, 0, 0, 1], port),
        remote: match state {
            TcpState::Listen => Endpoint::v4([0; 4], 0),
            _ => Endpoint::v4([10, 0, 0, 2], 443),
        },
        inode: u32::try_from(cookie + 1000).unwrap(),
        uid: 0,
        recv_q: 0,
        send_q: 0,
        timer_ms: 0,
        ifindex: 0,
        info: None,
        netns: 0,
        retransmits: 0,
        timer: Timer::None,
        state,
        protocol: Protocol::Tcp,
        family: Family::Ipv4,
    }
}

fn established(cookie: u64) -> Socket {
    tcp(
        cookie,
        40_000 + u16::try_from(cookie).unwrap(),
        TcpState::Established,
    )
}

fn udp(cookie: u64, port: u16) -> Socket {
    Socket {
        protocol: Protocol::Udp,
        remote: Endpoint::v4([0; 4], 0),
        ..tcp(cookie, port, TcpState::Closed)
    }
}

/// A look at `second` whose sockets are held by these: pid, name, inodes.
fn look(second: i64, sockets: &[Socket], held: &[(u32, &str, &[u32])]) -> Snapshot {
    let (tcp, udp): (Vec<_>, Vec<_>) = sockets
        .iter()
        .partition(|socket| socket.protocol == Protocol::Tcp);
    let processes = held.iter().map(|(pid, comm, _)| Process {
        pid: *pid,
        comm: (*comm).to_owned(),
        ..Process::default()
    });
    let links = (0u32..).zip(held).flat_map(|(process, (_, _, inodes))| {
        let link = move |inode: &u32| Link {
            inode: *inode,
            process,
            fd: 3,
        };
        inodes.iter().map(link).collect::<Vec<_>>()
    });
    let datagram = |socket| Datagram {
        socket,
        memory: None,
        drops: None,
    };
    Snapshot {
        taken: Timestamp::from_second(1_000_000 + second).unwrap(),
        host: Host {
            name: "web-7".to_owned(),
            kernel: "6.18.0".to_owned(),
            netns: Some(1),
            boot_id: Some("a".to_owned()),
        },
        sockets: tcp,
        udp: Some(udp.into_iter().map(datagram).collect()),
        unix: Some(Vec::new()),
        owners: Owners::new(processes.collect(), links.collect()),
        coverage: Coverage {
            owners_read: true,
            ..Coverage::default()
        },
        ..Snapshot::default()
    }
}

fn sockets(second: i64, sockets: &[Socket]) -> Snapshot {
    look(second, sockets, &[])
}

fn cookies(sockets: &[&Socket]) -> Vec<u64> {
    let cookies = sockets.iter().map(|socket| socket.cookie);
    cookies
        .map(|cookie| cookie.map_or(0, NonZeroU64::get))
        .collect()
}

/// Cookies of what is new, gone and changed.
fn changes(changes: &Changes<'_>) -> [Vec<u64>; 3] {
    let changed: Vec<&Socket> = changes.changed.iter().map(|both| both.after).collect();
    [&changes.new, &changes.gone, &changed].map(|all| cookies(all))
}

#[test]
fn sockets_are_new_gone_and_changed_by_cookie() {
    let (mut one, mut two) = (established(1), established(2));
    let before = sockets(0, &[two, one, established(3), established(4)]);
    (one.state, one.recv_q) = (TcpState::CloseWait, 1);
    two.send_q = 7;
    // The same addresses as those of a socket that is gone, and another socket.
    let reused = Socket {
        cookie: NonZeroU64::new(9),
        inode: 9,
        ..established(3)
    };
    let after = sockets(10, &[reused, established(4), two, one]);
    let diff = diff(&before, &after);
    assert_eq!((diff.by, &diff.apart[..]), (By::Cookie, &[][..]));
    assert_eq!(changes(&diff.sockets), [vec![9], vec![3], vec![1, 2]]);
    assert_eq!((diff.sockets.same, diff.elapsed_ms()), (1, 10_000));
    let what = diff.sockets.changed[0].what;
    assert_eq!(what.names().collect::<Vec<_>>(), ["state", "queues"]);
    assert_eq!(diff.total(), (4, 4));
    let established = TcpState::Established.index().unwrap();
    assert_eq!(diff.states[established], (4, 3));
    assert_eq!(diff.per_second(5), Some(0.5));
}

#[test]
fn the_same_twice_differs_in_nothing_and_a_row_that_was_dumped_twice_is_one() {
    let all = [established(1), tcp(2, 80, TcpState::Listen), udp(3, 53)];
    let before = look(0, &all, &[(7, "a", &[1001, 1002])]);
    let mut after = before.clone();
    after.sockets.push(established(1));
    let diff = diff(&before, &after);
    assert!(diff.sockets.is_empty() && diff.listeners.is_empty());
    assert_eq!((diff.sockets.same, diff.listeners.same), (1, 2));
    assert_eq!(diff.programs.as_deref(), Some(&[][..]));
    assert_eq!(diff.settings.as_deref().map(<[_]>::len), Some(0));
    assert_eq!(diff.counters.as_deref().map(<[_]>::len), Some(0));
}

#[test]
fn a_cookie_that_is_of_another_socket_is_of_another_boot() {
    let mut before = sockets(
        0,
        &[established(1), established(2), tcp(3, 80, TcpState::Listen)],
    );
    let other = Socket {
        inode: 77,
        ..established(2)
    };
    let mut after = sockets(10, &[established(1), other, tcp(9, 80, TcpState::Listen)]);
    // Within one run of the machine it cannot be: then it is what it looks like, two sockets.
    assert_eq!(diff(&before, &after).by, By::Cookie);
    assert_eq!(
        changes(&diff(&before, &after).sockets),
        [vec![2], vec![2], vec![]]
    );
    (before.host.boot_id, after.host.boot_id) = (None, None);
    let parted = diff(&before, &after);
    assert_eq!(parted.apart, [Apart::Cookies(1)]);
    assert_eq!(parted.by, By::Nothing);
    assert!(parted.sockets.is_empty() && parted.counters.is_none());
    assert!(parted.listeners.is_empty(), "it listens as before");
    // A socket that waits for accept has no inode yet, and one that is gone has none any more.
    let waiting = Socket {
        inode: 0,
        ..established(2)
    };
    after.sockets[1] = waiting;
    let kept = diff(&before, &after);
    assert_eq!(
        (kept.by, changes(&kept.sockets)),
        (By::Cookie, [vec![], vec![], vec![2]])
    );
}

#[test]
fn looks_at_other_places_and_runs_are_kept_apart() {
    let before = sockets(0, &[established(1), tcp(2, 80, TcpState::Listen)]);
    let same = sockets(9, &[established(1), tcp(2, 80, TcpState::Listen)]);
    type Change = fn(&mut Snapshot);
    let table: &[(Change, Option<Apart>)] = &[
        (|_| {}, None),
        (|look| look.host.name = "web-8".into(), Some(Apart::Host)),
        (|look| look.host.name = String::new(), None),
        (|look| look.host.netns = Some(2), Some(Apart::Namespace)),
        (|look| look.host.netns = None, None),
        (
            |look| look.host.boot_id = Some("b".into()),
            Some(Apart::Boot),
        ),
        (|look| look.host.boot_id = None, None),
        (|look| look.host.kernel = "6.19.0".into(), None),
        (
            |look| {
                look.host.boot_id = None;
                look.host.kernel = "6.19.0".into();
            },
            Some(Apart::Kernel),
        ),
    ];
    for (change, apart) in table {
        let mut after = same.clone();
        change(&mut after);
        let found = diff(&before, &after);
        assert_eq!(found.apart.first(), apart.as_ref());
        assert_eq!(found.by == By::Nothing, apart.is_some());
    }
}

#[test]
fn counters_that_went_back_are_another_boot_only_where_nothing_says_better() {
    let counting = |second, segments, boot: Option<&str>| {
        let mut look = sockets(second, &[]);
        let counters = &mut look.facts.counters;
        counters.insert("Tcp.InSegs".to_owned(), segments);
        counters.insert("Tcp.CurrEstab".to_owned(), segments);
        look.host.boot_id = boot.map(str::to_owned);
        look
    };
    let (before, after) = (counting(0, 90, None), counting(9, 80, None));
    let apart = [Apart::Counter("Tcp.InSegs".to_owned())];
    assert_eq!(diff(&before, &after).apart, apart);
    let (before, after) = (counting(0, 90, Some("a")), counting(9, 80, Some("a")));
    let known = diff(&before, &after);
    let counters = known.counters.as_deref().unwrap();
    assert!(known.apart.is_empty());
    assert_eq!((counters.len(), counters[0].change()), (1, -10), "no gauge");
    // Older, and rightly less.
    let (before, after) = (counting(9, 90, None), counting(0, 80, None));
    let backwards = diff(&before, &after);
    assert!(backwards.apart.is_empty() && backwards.elapsed_ms() == -9000);
    assert_eq!(backwards.per_second(-10), None);
}

#[test]
fn without_cookies_addresses_and_inodes_tell() {
    let bare = |socket: Socket| Socket {
        cookie: None,
        ..socket
    };
    let mut before = sockets(0, &[1, 2, 3, 4].map(|n| bare(established(n))));
    before.coverage.collector = Collector::Procfs;
    let (mut closing, mut waits, mut other) = (established(1), established(2), established(3));
    closing.state = TcpState::CloseWait;
    (waits.state, waits.inode) = (TcpState::TimeWait, 0);
    other.inode = 7;
    // One of the two has no cookies: then those of the other are of no use.
    let after = sockets(9, &[closing, waits, other, established(5)]);
    let diff = diff(&before, &after);
    assert_eq!(diff.by, By::Address);
    let [new, gone, changed] = changes(&diff.sockets);
    assert_eq!((new, gone.len(), changed), (vec![3, 5], 2, vec![1, 2]));

    // Nothing leaves TIME-WAIT but by a new connection.
    let (mut was, is) = (bare(waits), bare(established(2)));
    let before = sockets(0, &[was]);
    let after = sockets(9, &[is]);
    let [new, gone, changed] = changes(&super::diff(&before, &after).sockets);
    assert_eq!((new.len(), gone.len(), changed.len()), (1, 1, 0));
    was.state = TcpState::SynReceived;
    let before = sockets(0, &[was]);
    let accepted = super::diff(&before, &after);
    assert_eq!(accepted.sockets.changed.len(), 1);
}

#[test]
fn listeners_are_told_apart_from_connections_and_opened_again_at_an_address() {
    let listen = |cookie, port, limit| Socket {
        send_q: limit,
        ..tcp(cookie, port, TcpState::Listen)
    };
    let before = look(
        0,
        &[
            listen(1, 80, 128),
            listen(2, 81, 128),
            listen(3, 82, 5),
            udp(4, 53),
            udp(5, 40_000),
        ],
        &[(7, "old", &[1001, 1002])],
    );
    let after = look(
        9,
        &[
            listen(11, 80, 128),
            listen(2, 81, 64),
            listen(12, 83, 5),
            udp(4, 53),
            udp(6, 40_001),
        ],
        &[(8, "old", &[1011, 1002])],
    );
    let diff = diff(&before, &after);
    assert_eq!(changes(&diff.listeners), [vec![12], vec![3], vec![2, 11]]);
    let what: Vec<Vec<&str>> = diff
        .listeners
        .changed
        .iter()
        .map(|one| one.what.names().collect())
        .collect();
    assert_eq!(what, [vec!["limit", "owners"], vec!["reopened", "owners"]]);
    assert_eq!(
        diff.listeners.same, 1,
        "UDP at a port that is no ephemeral one"
    );
    assert_eq!(
        changes(&diff.sockets),
        [vec![6], vec![5], vec![]],
        "UDP at one that is"
    );
    // At another host it is the same service if the same program serves it as well.
    let mut elsewhere = after.clone();
    elsewhere.host.name = "web-8".to_owned();
    let parted = super::diff(&before, &elsewhere);
    assert_eq!(changes(&parted.listeners), [vec![12], vec![3], vec![2]]);
    assert!(!parted.listeners.changed[0].what.reopened && parted.sockets.is_empty());
}

/// Name, pids before and after, sockets before and after.
type Short<'a> = (&'a str, &'a [u32], &'a [u32], u64, u64);

fn held<'a>(diff: &'a Diff<'_>) -> Vec<Short<'a>> {
    let all = diff.programs.iter().flatten();
    let short = |one: &'a Program<'_>| {
        let (before, after) = (&one.before, &one.after);
        (
            one.comm,
            &before.pids[..],
            &after.pids[..],
            before.sockets,
            after.sockets,
        )
    };
    all.map(short).collect()
}

#[test]
fn programs_are_found_again_by_pid_and_after_a_restart_by_name() {
    let all: Vec<Socket> = (1..=6).map(established).collect();
    let mut later = all.clone();
    later[0].state = TcpState::CloseWait;
    let before = look(
        0,
        &all,
        &[
            (1, "stays", &[1001, 1002]),
            (2, "web", &[1003]),
            (5, "same", &[1006]),
        ],
    );
    let after = look(
        9,
        &later,
        &[
            (1, "stays", &[1001, 1002]),
            (3, "web", &[1003, 1004]),
            (4, "web", &[1005]),
            (5, "same", &[1006]),
        ],
    );
    let found = diff(&before, &after);
    assert_eq!(
        held(&found),
        [
            ("web", &[2][..], &[3, 4][..], 1, 3),
            ("stays", &[1], &[1], 2, 2)
        ]
    );
    let states = found.programs.as_ref().unwrap()[1].states();
    assert_eq!(
        states,
        [(TcpState::Established, 2, 1), (TcpState::CloseWait, 0, 1)]
    );
    let mut unread = after.clone();
    unread.coverage.owners_read = false;
    assert!(
        diff(&before, &unread).programs.is_none(),
        "not known is not none"
    );
}

#[test]
fn settings_are_compared_where_both_have_them() {
    let with = |all: &[(&str, &str)]| {
        let mut look = sockets(0, &[]);
        let all = all
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        look.facts.sysctls = all.collect();
        look
    };
    let before = with(&[("a", "1"), ("b", "1"), ("c", "1"), ("fs/file-nr", "1")]);
    let mut after = with(&[("a", "1"), ("b", "2"), ("d", "1"), ("fs/file-nr", "2")]);
    let settings = diff(&before, &after).settings.unwrap();
    assert_eq!(
        settings,
        [Setting {
            path: "b",
            before: "1",
            after: "2"
        }]
    );
    after.coverage.no_facts = true;
    let unread = diff(&before, &after);
    assert!(unread.settings.is_none() && unread.counters.is_none());
}

fn finding(id: &'static str, pid: u32, severity: Severity) -> Finding {
    Finding {
        id,
        variant: None,
        severity,
        title: String::new(),
        subject: Subject::Process {
            pid: Some(pid),
            comm: Some("web".to_owned()),
            uid: None,
            unit: None,
            container: None,
        },
        evidence: Vec::new(),
        explanation: String::new(),
        grounds: Vec::new(),
        who_must_act: crate::model::Actor::Nobody,
        advice: Vec::new(),
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    }
}

#[test]
fn findings_are_the_same_by_detector_and_subject_a_restart_aside() {
    use Severity::{Critical, Info, Warning};
    let judged = |findings, unknown: &[&'static str]| Analysis {
        findings,
        unknown: unknown
            .iter()
            .map(|id| Unknown {
                id,
                reason: String::new(),
            })
            .collect(),
        ..Analysis::default()
    };
    let before = judged(
        vec![
            finding("a", 1, Warning),
            finding("b", 1, Info),
            finding("c", 1, Critical),
            finding("d", 1, Info),
        ],
        &["e"],
    );
    let after = judged(
        vec![
            finding("a", 2, Critical),
            finding("b", 1, Info),
            finding("e", 1, Info),
            finding("f", 1, Info),
        ],
        &["c"],
    );
    let found = findings(&before, &after);
    let ids = |all: &[OneSided<'_>]| -> Vec<(&str, bool)> {
        all.iter().map(|one| (one.finding.id, one.untold)).collect()
    };
    assert_eq!(ids(&found.new), [("e", true), ("f", false)]);
    assert_eq!(ids(&found.gone), [("c", true), ("d", false)]);
    let worse: Vec<&str> = found.worse().map(|(_, after)| after.id).collect();
    assert_eq!((worse, found.better().count()), (vec!["a"], 0));
    assert_eq!(
        found.same().map(|(_, after)| after.id).collect::<Vec<_>>(),
        ["b"]
    );
    assert!(!found.is_unchanged() && findings(&before, &before).is_unchanged());
}
