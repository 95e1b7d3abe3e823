//! Captures of the first version stay readable for ever. `tests/data/README` says what the files are and how they
//! were made; they are never made again.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use linger::collect::{Row, Source, Want};
use linger::model::{Collector, Family, Socket, StateSet, TcpInfo, TcpState};
use linger::record::{Capture, Error};

/// Opens a file of `tests/data`; `None` where a big-endian machine rightly refuses it.
fn open(name: &str) -> Option<Capture> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "data", name]
        .iter()
        .collect();
    let capture = Capture::open(&path);
    if cfg!(target_endian = "big") {
        assert!(matches!(capture, Err(Error::ForeignEndian { .. })));
        return None;
    }
    assert!(capture.is_ok(), "{capture:?}");
    capture.ok()
}

const PORT: u16 = 8080;

#[test]
fn a_capture_of_version_1_is_read_to_the_last_field() {
    let Some(mut capture) = open("v1.linger") else {
        return;
    };
    assert_eq!((capture.samples(), capture.recorded_by()), (2, "0.1.0"));
    let host = capture.host();
    assert_eq!((&host.name[..], &host.kernel[..]), ("example", "6.18.44"));
    assert!(host.netns.is_some_and(|inode| inode > 4_026_531_840));
    let first = capture.now();
    assert!(capture.recorded_at() <= first);

    let mut want = Want::states(StateSet::ALL);
    (want.tcp_info, want.memory, want.congestion) = (true, true, true);
    let mut sockets: Vec<Socket> = Vec::new();
    let mut infos = 0;
    let coverage = capture
        .dump(&want, &mut |row| {
            let Row::Inet { socket, attributes } = row else {
                panic!("a row of another protocol")
            };
            sockets.push(socket);
            let info = attributes.tcp_info.and_then(TcpInfo::parse);
            infos += usize::from(info.is_some());
            let mini = socket.state == TcpState::TimeWait;
            assert_eq!(attributes.memory().is_none(), mini);
            assert_eq!(attributes.congestion.is_none(), mini);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(coverage.collector, Collector::Netlink);
    assert!(coverage.rows_complete(), "{coverage:?}");
    assert_eq!(infos, 10);
    let mut found: Vec<_> = sockets
        .iter()
        .map(|socket| {
            let ends = (socket.local.port, socket.remote.port);
            (socket.family.name(), socket.state.to_string(), ends)
        })
        .collect();
    found.sort();
    let expected: Vec<_> = ["ipv4", "ipv6"]
        .into_iter()
        .flat_map(|family| {
            [
                ("CLOSE-WAIT", (PORT, 40_002)),
                ("ESTABLISHED", (PORT, 40_001)),
                ("ESTABLISHED", (40_001, PORT)),
                ("FIN-WAIT-2", (40_002, PORT)),
                ("LISTEN", (PORT, 0)),
                ("TIME-WAIT", (40_003, PORT)),
            ]
            .map(|(state, ends)| (family, state.to_owned(), ends))
        })
        .collect();
    assert_eq!(found, expected);

    let (owners, coverage) = capture.owners();
    assert!(coverage.owners_read && coverage.complete());
    assert_eq!(coverage.vanished_processes, 3);
    let mut inodes: Vec<u32> = Vec::new();
    for socket in &sockets {
        let holders: Vec<_> = owners.of(socket.inode).collect();
        if socket.state == TcpState::TimeWait {
            assert!(socket.cookie.is_some() && socket.timer_ms > 50_000 && holders.is_empty());
            continue;
        }
        inodes.push(socket.inode);
        let [(process, fd)] = holders[..] else {
            panic!("{socket:?}: {holders:?}");
        };
        assert!(fd > 2);
        assert_eq!((process.pid, &process.comm[..]), (4242, "example"));
        assert_eq!(
            (process.uid, process.user.as_deref()),
            (Some(0), Some("root"))
        );
        assert_eq!((process.fds, process.nofile), (Some(20), Some(1024)));
        assert_eq!(
            (process.unit(), process.run_state),
            (Some("example.service"), Some('S'))
        );
        assert_eq!(process.netns, host.netns);
    }
    assert_eq!(owners.links().len(), inodes.len());
    let unread = |socket: &&Socket| socket.state == TcpState::CloseWait;
    assert!(
        sockets
            .iter()
            .filter(unread)
            .all(|socket| socket.recv_q == 6),
        "5 bytes and the FIN"
    );

    let before = capture.facts();
    assert_eq!(before.port_range(), Some((32_768, 60_999)));
    assert_eq!(
        (before.gauge("TCP.tw"), before.counter("Tcp.ActiveOpens")),
        (Some(2), Some(6))
    );
    assert_eq!(before.counter("TcpExt.ListenOverflows"), Some(0));

    assert!(capture.advance(Duration::ZERO));
    assert!(capture.now() > first);
    let after = capture.facts();
    let refused = "Tcp.AttemptFails";
    assert_eq!(
        after.counter(refused),
        before.counter(refused).map(|count| count + 1)
    );
    let mut listeners = Vec::new();
    let mut sink = |row: Row<'_>| {
        let Row::Inet { socket, attributes } = row else {
            panic!("a row of another protocol")
        };
        assert_eq!(attributes.memory().unwrap().drops, Some(0));
        listeners.push((
            socket.family,
            socket.state,
            socket.local.port,
            socket.send_q,
        ));
        ControlFlow::Continue(())
    };
    want = Want::states(StateSet::of(TcpState::Listen));
    want.memory = true;
    assert!(capture.dump(&want, &mut sink).unwrap().complete());
    let listener = |family| (family, TcpState::Listen, PORT, 16);
    assert_eq!(listeners, [listener(Family::Ipv4), listener(Family::Ipv6)]);
    assert!(!capture.owners().1.owners_read);
    assert!(!capture.advance(Duration::ZERO));
}

#[test]
fn a_capture_of_version_1_may_hold_the_tables_of_proc() {
    let Some(mut capture) = open("v1-procfs.linger") else {
        return;
    };
    let want = Want::states(StateSet::ALL);
    let mut states: Vec<(&str, String)> = Vec::new();
    let coverage = capture
        .dump(&want, &mut |row| {
            let Row::Inet { socket, .. } = row else {
                panic!("a row of another protocol")
            };
            states.push((socket.family.name(), socket.state.to_string()));
            ControlFlow::Continue(())
        })
        .unwrap();
    states.sort();
    let of = |family: &'static str| {
        [
            "CLOSE-WAIT",
            "ESTABLISHED",
            "ESTABLISHED",
            "FIN-WAIT-2",
            "LISTEN",
            "TIME-WAIT",
        ]
        .map(|state| (family, state.to_owned()))
    };
    assert_eq!(states, [of("ipv4"), of("ipv6")].concat());
    assert_eq!(coverage.collector, Collector::Procfs);
    assert_eq!(coverage.fell_back.as_deref(), Some("EPERM"));
    assert!(coverage.missing.is_empty(), "{coverage:?}");
}

#[test]
fn a_sequence_of_version_1_is_read_frame_by_frame_in_any_order() {
    let Some(mut capture) = open("v1-series.linger") else {
        return;
    };
    assert_eq!((capture.looks(), capture.look()), (4, 3), "the last one");
    let times: Vec<_> = (0..4).map(|look| capture.taken(look)).collect();
    assert!(times.is_sorted() && times.iter().all(Option::is_some));
    assert_eq!(capture.taken(4), None);
    let want = Want::states(StateSet::of(TcpState::CloseWait));
    for look in [3, 0, 2, 1] {
        assert!(capture.seek(look).is_ok_and(|found| found));
        assert_eq!(Some(capture.now()), times[look]);
        let mut inodes = Vec::new();
        let coverage = capture
            .dump(&want, &mut |row| {
                inodes.push(row.inode());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert!(coverage.complete() && coverage.warnings().is_empty());
        assert_eq!(inodes.len(), look + 1);
        let (owners, coverage) = capture.owners();
        assert!(coverage.owners_read);
        for inode in inodes {
            let holders: Vec<_> = owners.of(inode).collect();
            assert!(matches!(holders[..], [(process, _)] if process.pid == 4242));
        }
        let opened = capture.facts().counter("Tcp.PassiveOpens");
        assert_eq!(opened, Some(look as i64 + 1));
    }
    assert!(capture.seek(4).is_ok_and(|found| !found));
    assert_eq!(capture.look(), 1, "it stays where it was");
    assert!(capture.advance(Duration::ZERO) && capture.look() == 2);
}

#[test]
fn a_capture_of_one_look_has_one() {
    let Some(mut capture) = open("v1.linger") else {
        return;
    };
    assert_eq!((capture.looks(), capture.look()), (1, 0));
    assert!(capture.advance(Duration::ZERO), "the light one behind it");
    assert_eq!(capture.look(), 0);
    assert!(capture.seek(1).is_ok_and(|found| !found));
    assert!(capture.seek(0).is_ok_and(|found| found));
    assert!(capture.advance(Duration::ZERO));
}
