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
            let Row::Inet { socket, attributes } = row;
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
        let Row::Inet { socket, attributes } = row;
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
    let coverage = capture
        .dump(&want, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(coverage.collector, Collector::Procfs);
    assert_eq!(coverage.fell_back.as_deref(), Some("EPERM"));
    assert!(coverage.missing.is_empty(), "{coverage:?}");
}

/// Makes the files anew in the directory that `LINGER_CAPTURES` names; see `tests/data/README`.
#[test]
#[ignore = "makes captures in a network namespace of its own"]
fn make() {
    use std::fs;
    use std::io::{Read, Write};
    use std::net::{IpAddr, SocketAddr, TcpStream};

    use jiff::Timestamp;
    use linger::collect::netlink::Netlink;
    use linger::model::host::SYSCTLS;
    use linger::model::owner::Link;
    use linger::model::{Coverage, Facts, Host, Owners, Process};
    use linger::record::Writer;
    use socket2::{Domain, Socket, Type};

    fn facts() -> Facts {
        let mut facts = Facts::default();
        for path in SYSCTLS {
            if let Ok(text) = fs::read_to_string(format!("/proc/sys/{path}")) {
                facts
                    .sysctls
                    .insert((*path).to_owned(), text.trim().to_owned());
            }
        }
        for table in ["snmp", "netstat"] {
            let text = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.chunks_exact(2) {
                let [names, values] = pair else { continue };
                let (group, names) = names.split_once(':').unwrap();
                let (_, values) = values.split_once(':').unwrap();
                for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
                    facts
                        .counters
                        .insert(format!("{group}.{name}"), value.parse().unwrap());
                }
            }
        }
        for line in fs::read_to_string("/proc/self/net/sockstat")
            .unwrap()
            .lines()
        {
            let (group, rest) = line.split_once(':').unwrap();
            let words: Vec<&str> = rest.split_whitespace().collect();
            for pair in words.chunks_exact(2) {
                facts
                    .sockstat
                    .insert(format!("{group}.{}", pair[0]), pair[1].parse().unwrap());
            }
        }
        facts
    }

    fn owners(netns: Option<u64>) -> Owners {
        let mut links = Vec::new();
        for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
            let fd = entry.file_name().to_string_lossy().parse().unwrap();
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let inode = target.to_str().and_then(|text| {
                text.strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .parse()
                    .ok()
            });
            links.extend(inode.map(|inode| Link {
                inode,
                process: 0,
                fd,
            }));
        }
        let process = Process {
            pid: 4242,
            comm: "example".to_owned(),
            uid: Some(0),
            user: Some("root".to_owned()),
            fds: Some(20),
            nofile: Some(1024),
            cgroup: Some("/system.slice/example.service".to_owned()),
            netns,
            run_state: Some('S'),
        };
        Owners::new(vec![process], links)
    }

    fn dump(writer: &mut Writer, want: &Want) -> Coverage {
        writer.asked(want).unwrap();
        let mut netlink = Netlink::open().unwrap();
        netlink
            .dump(
                want,
                &mut |_| ControlFlow::Continue(()),
                Some(&mut writer.tee()),
            )
            .unwrap()
    }

    let directory = PathBuf::from(std::env::var_os("LINGER_CAPTURES").unwrap());
    let mut open = Vec::new();
    let addresses: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    for address in addresses {
        let server = SocketAddr::new(address, PORT);
        let domain = Domain::for_address(server);
        let listener = Socket::new(domain, Type::STREAM, None).unwrap();
        listener.bind(&server.into()).unwrap();
        listener.listen(16).unwrap();
        let connect = |port| {
            let client = Socket::new(domain, Type::STREAM, None).unwrap();
            client.bind(&SocketAddr::new(address, port).into()).unwrap();
            client.connect(&server.into()).unwrap();
            (
                TcpStream::from(client),
                TcpStream::from(listener.accept().unwrap().0),
            )
        };
        let (established, accepted) = connect(40_001);
        let (mut half_closed, close_wait) = connect(40_002);
        half_closed.write_all(b"hello").unwrap();
        half_closed.shutdown(std::net::Shutdown::Write).unwrap();
        let (time_wait, mut closed) = connect(40_003);
        drop(time_wait);
        assert_eq!(closed.read(&mut [0; 1]).unwrap(), 0);
        open.extend([
            established,
            accepted,
            half_closed,
            close_wait,
            TcpStream::from(listener),
        ]);
    }
    std::thread::sleep(Duration::from_millis(300));

    let namespace = fs::read_link("/proc/thread-self/ns/net").unwrap();
    let netns = namespace
        .to_str()
        .and_then(|text| text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok());
    let host = Host {
        name: "example".to_owned(),
        kernel: "6.18.44".to_owned(),
        netns,
    };
    let mut writer = Writer::create(&directory.join("v1.linger"), false).unwrap();
    writer.host(&host).unwrap();
    writer.begin_sample(Timestamp::now()).unwrap();
    let mut want = Want::states(StateSet::ALL);
    (want.tcp_info, want.memory, want.congestion, want.tos) = (true, true, true, true);
    let mut coverage = dump(&mut writer, &want);
    writer.owners(&owners(netns)).unwrap();
    (coverage.owners_read, coverage.vanished_processes) = (true, 3);
    writer.facts(&facts()).unwrap();
    writer.coverage(&coverage).unwrap();
    assert!(TcpStream::connect(("127.0.0.1", 9)).is_err());
    writer.begin_sample(Timestamp::now()).unwrap();
    want = Want::states(StateSet::of(TcpState::Listen));
    want.memory = true;
    let coverage = dump(&mut writer, &want);
    writer.facts(&facts()).unwrap();
    writer.coverage(&coverage).unwrap();
    writer.finish().unwrap();

    let mut writer = Writer::create(&directory.join("v1-procfs.linger"), false).unwrap();
    writer.host(&host).unwrap();
    writer.begin_sample(Timestamp::now()).unwrap();
    for (family, name) in [(Family::Ipv4, "tcp"), (Family::Ipv6, "tcp6")] {
        let text = fs::read(format!("/proc/thread-self/net/{name}")).unwrap();
        writer.table(family, &text).unwrap();
    }
    let coverage = Coverage {
        collector: Collector::Procfs,
        fell_back: Some("EPERM".to_owned()),
        ..Coverage::default()
    };
    writer.coverage(&coverage).unwrap();
    writer.finish().unwrap();
}
