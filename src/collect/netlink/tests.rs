use std::net::{TcpListener, TcpStream, UdpSocket};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;
use crate::model::StateSet;

fn ports(want: &Want) -> Vec<(TcpState, u16)> {
    let mut seen = Vec::new();
    let coverage = Netlink::open()
        .unwrap()
        .dump(
            want,
            &Program::default(),
            &mut |row| {
                if let Row::Inet { socket, .. } = row {
                    seen.push((socket.state, socket.local.port));
                }
                ControlFlow::Continue(())
            },
            None,
        )
        .unwrap();
    assert!(coverage.missing.is_empty());
    seen
}

#[test]
fn both_families_come_at_once_as_one_after_the_other() {
    let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
    let v6 = TcpListener::bind("[::1]:0").ok();
    let mut own = vec![v4.local_addr().unwrap().port()];
    own.extend(v6.as_ref().map(|v6| v6.local_addr().unwrap().port()));
    let want = Want {
        memory: true,
        ..Want::states(StateSet::of(TcpState::Listen))
    };
    let mut netlink = Netlink::open().unwrap();
    let mut dump = |mixed| {
        netlink.mix_families(mixed);
        let mut seen = Vec::new();
        let mut row = |row: Row<'_>| {
            if let Row::Inet { socket, attributes } = row
                && own.contains(&socket.local.port)
            {
                seen.push((socket.family, socket.local.port, socket.cookie));
                assert!(attributes.memory.is_some() && attributes.tcp_info.is_none());
            }
            ControlFlow::Continue(())
        };
        let everything = Program::default();
        let coverage = netlink.dump(&want, &everything, &mut row, None).unwrap();
        assert!(coverage.rows_complete());
        seen.sort_unstable_by_key(|(_, port, _)| *port);
        (seen, netlink.mixed)
    };
    let (apart, _) = dump(false);
    let (mixed, still) = dump(true);
    assert!(apart.len() == own.len() && still, "{apart:?}");
    assert_eq!(mixed, apart);
}

#[test]
fn the_state_mask_is_the_kernels_to_apply() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let listening = ports(&Want::states(StateSet::of(TcpState::Listen)));
    assert!(listening.contains(&(TcpState::Listen, port)));
    assert!(
        listening
            .iter()
            .all(|(state, _)| *state == TcpState::Listen)
    );
    let established = ports(&Want::states(StateSet::of(TcpState::Established)));
    assert!(established.contains(&(TcpState::Established, port)));
    drop(listener);
    assert!(
        !ports(&Want::states(StateSet::of(TcpState::Listen))).contains(&(TcpState::Listen, port))
    );
}

#[test]
fn attributes_come_only_when_asked_for() {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let look = |want: &Want| {
        let mut found = None;
        Netlink::open()
            .unwrap()
            .dump(
                want,
                &Program::default(),
                &mut |row| {
                    if let Row::Inet { socket, attributes } = row
                        && socket.local.port == port
                    {
                        found = Some((
                            attributes.tcp_info.map(<[u8]>::len),
                            attributes.memory(),
                            attributes.congestion.map(<[u8]>::to_vec),
                        ));
                    }
                    ControlFlow::Continue(())
                },
                None,
            )
            .unwrap();
        found.unwrap()
    };
    let mut want = Want::states(StateSet::of(TcpState::Listen));
    assert_eq!(look(&want), (None, None, None));
    (want.tcp_info, want.memory, want.congestion) = (true, true, true);
    let (info, memory, congestion) = look(&want);
    assert!(info.unwrap() >= 104);
    assert!(memory.unwrap().rcvbuf > 0);
    assert!(!congestion.unwrap().is_empty());
}

#[test]
fn an_early_stop_leaves_the_socket_usable() {
    let _listeners: Vec<_> = (0..4)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let mut netlink = Netlink::open().unwrap();
    let want = Want::states(StateSet::of(TcpState::Listen));
    for _ in 0..3 {
        let mut rows = 0;
        netlink
            .dump(
                &want,
                &Program::default(),
                &mut |_| {
                    rows += 1;
                    ControlFlow::Break(())
                },
                None,
            )
            .unwrap();
        assert_eq!(rows, 1);
    }
}

#[test]
fn udp_sockets_come_with_their_states_queues_and_memory() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = receiver.local_addr().unwrap();
    sender.connect(to).unwrap();
    sender.send(&[7; 100]).unwrap();
    let mut found = Vec::new();
    let coverage = Netlink::open().unwrap().dump(
        &Want::all(Protocol::Udp),
        &Program::default(),
        &mut |row| {
            if let Row::Inet { socket, attributes } = row {
                assert_eq!(socket.protocol, Protocol::Udp);
                found.push((socket, attributes.memory().unwrap()));
            }
            ControlFlow::Continue(())
        },
        None,
    );
    assert!(coverage.unwrap().missing.is_empty());
    let of = |port| *found.iter().find(|(s, _)| s.local.port == port).unwrap();
    let (socket, memory) = of(to.port());
    assert_eq!(socket.state, TcpState::Closed);
    assert_eq!(socket.state_name(), Some("UNCONNECTED"));
    assert!(socket.recv_q >= 100 && memory.drops == Some(0));
    let (socket, _) = of(sender.local_addr().unwrap().port());
    assert_eq!(socket.state, TcpState::Established);
    assert_eq!(socket.remote.port, to.port());
}

#[test]
fn unix_sockets_come_with_their_names_and_queues() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    let listener = UnixListener::bind(&path).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    let inode = |fd: i32| {
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        let link = link.to_str().unwrap().to_owned();
        let digits = link.trim_start_matches("socket:[").trim_end_matches(']');
        digits.parse::<u32>().unwrap()
    };
    let (listening, connecting) = (inode(listener.as_raw_fd()), inode(client.as_raw_fd()));
    let (mut seen, mut clients) = (0, 0);
    let coverage = Netlink::open().unwrap().dump(
        &Want::all(Protocol::Unix),
        &Program::default(),
        &mut |row| {
            if let Row::Unix(socket) = row
                && socket.inode == listening
            {
                seen += 1;
                let name = crate::model::unix::shown(socket.name.unwrap());
                assert_eq!(name, path.to_str().unwrap());
                assert_eq!(socket.state, TcpState::Listen);
                assert_eq!(socket.recv_q, Some(1));
                assert!(socket.send_q.unwrap() > 0 && socket.cookie.is_some());
                assert_eq!(socket.waiting.unwrap(), connecting.to_ne_bytes());
                assert!(socket.file.is_some() && socket.memory().is_some());
                let euid = rustix::process::geteuid().as_raw();
                assert_eq!(socket.uid, Some(euid));
            }
            if let Row::Unix(socket) = row
                && socket.inode == connecting
            {
                clients += 1;
                assert_eq!(socket.state, TcpState::Established);
            }
            ControlFlow::Continue(())
        },
        None,
    );
    assert!(coverage.unwrap().rows_complete());
    assert_eq!((seen, clients), (1, 1));
}
