//! Frames that no kernel of the machines that run the tests sends: built from the kernel's headers.

use std::num::NonZeroU64;
use std::ops::ControlFlow;

use netlink_packet_core::Parseable;
use netlink_packet_sock_diag::unix::UnixResponse;
use netlink_packet_sock_diag::unix::nlas::{Nla, UnixDiagName};
use proptest::prelude::*;

use super::Stream;
use super::decode::{inet, unix};
use crate::collect::{Row, Table, Want};
use crate::model::{
    Coverage, Endpoint, Family, Protocol, Socket, StateSet, TcpState, Timer, mptcp_info, sctp,
};

/// Numbers as the kernel has them in memory.
pub fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_ne_bytes()).collect()
}

/// Appends an attribute.
pub fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend((value.len() as u16 + 4).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// `struct inet_diag_msg` of 127.0.0.1:2905 and 127.0.0.2:40000.
fn header(state: u8, timer: u8, cookie: u32) -> Vec<u8> {
    let mut bytes = vec![2, state, timer, 3];
    bytes.extend([2905u16.to_be_bytes(), 40_000u16.to_be_bytes()].concat());
    bytes.extend([127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([127, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(words(&[0, cookie, 0, 700, 11, 22, 1000, 77]));
    assert_eq!(bytes.len(), 72);
    bytes
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32 + 16).to_ne_bytes().to_vec();
    bytes.extend(20u16.to_ne_bytes());
    bytes.extend(2u16.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(payload);
    bytes
}

/// The rows of one protocol in the messages.
fn rows(protocol: Protocol, states: StateSet, messages: &[Vec<u8>]) -> Vec<(Socket, usize)> {
    let want = Want {
        states,
        ..Want::all(protocol)
    };
    let datagram: Vec<u8> = messages.iter().flat_map(|one| framed(one)).collect();
    let (mut found, mut coverage) = (Vec::new(), Coverage::default());
    Stream::new(None).feed(&datagram, &want, &mut coverage, &mut |row| {
        if let Row::Inet { socket, attributes } = row {
            let peers = attributes
                .peers
                .map_or(0, |peers| sctp::addresses(peers).count());
            found.push((socket, peers));
        }
        ControlFlow::Continue(())
    });
    assert!(coverage.rows_complete(), "{coverage:?}");
    found
}

fn addresses(hosts: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for host in hosts {
        sctp::push(
            &mut bytes,
            Family::Ipv4,
            &Endpoint::v4([127, 0, 0, *host], 7),
        );
    }
    bytes
}

#[test]
fn built_frames_of_mptcp() {
    let mut bytes = header(1, 0, 5);
    let mut info = vec![0u8; 96];
    info[0] = 2;
    attribute(&mut bytes, 2, &info);
    let (socket, attributes) = inet(&bytes, Protocol::Mptcp).unwrap();
    assert_eq!(socket.protocol, Protocol::Mptcp);
    assert_eq!(attributes.tcp_info, None, "it is no tcp_info");
    let info = attributes.mptcp_info.unwrap();
    assert_eq!(mptcp_info::get("subflows", info), Some(2));
    // What is closed has not been asked for as bound.
    let (socket, _) = inet(&header(7, 0, 5), Protocol::Mptcp).unwrap();
    assert_eq!(
        (socket.state, socket.state_name()),
        (TcpState::Closed, Some("CLOSED"))
    );
    let (_, of_udp) = inet(&bytes, Protocol::Udp).unwrap();
    assert!(of_udp.tcp_info.is_none() && of_udp.mptcp_info.is_none());
}

#[test]
fn built_frames_of_sctp() {
    let mut association = header(2, 4, 5);
    attribute(&mut association, 12, &addresses(&[1, 3]));
    attribute(&mut association, 13, &addresses(&[2, 4]));
    attribute(&mut association, 2, &[9; 40]);
    let (socket, attributes) = inet(&association, Protocol::Sctp).unwrap();
    assert_eq!(
        (socket.state, socket.timer),
        (TcpState::SynReceived, Timer::Retransmit)
    );
    assert_eq!(socket.state_name(), Some("COOKIE-ECHOED"));
    assert_eq!(socket.owner_uid(), Some(1000), "no mini-socket");
    assert_eq!(
        (socket.recv_q, socket.send_q, socket.timer_ms),
        (11, 22, 700)
    );
    assert_eq!(attributes.sctp_info.map(<[u8]>::len), Some(40));
    assert!(attributes.tcp_info.is_none() && attributes.mptcp_info.is_none());
    let hosts = |bytes: Option<&[u8]>| -> Vec<String> {
        let ends = sctp::addresses(bytes.unwrap_or_default());
        ends.map(|(_, end)| end.ip().to_string()).collect()
    };
    assert_eq!(hosts(attributes.locals), ["127.0.0.1", "127.0.0.3"]);
    assert_eq!(hosts(attributes.peers), ["127.0.0.2", "127.0.0.4"]);
    // The socket itself has numbers of TCP.
    let mut listener = header(10, 0, 5);
    attribute(&mut listener, 12, &addresses(&[1]));
    let (socket, _) = inet(&listener, Protocol::Sctp).unwrap();
    assert_eq!(
        (socket.state, socket.state_name()),
        (TcpState::Listen, Some("LISTEN"))
    );
}

#[test]
fn built_frames_of_sctp_that_tell_of_a_listener_twice() {
    let association = |state| {
        let mut bytes = header(state, 0, 5);
        attribute(&mut bytes, 13, &addresses(&[2]));
        bytes
    };
    let messages = [
        header(10, 0, 5),
        header(10, 0, 6),
        header(10, 0, 5),
        association(3),
        association(7),
    ];
    let states = |set| -> Vec<_> {
        let rows = rows(Protocol::Sctp, set, &messages);
        rows.iter().map(|(s, peers)| (s.state, *peers)).collect()
    };
    assert_eq!(
        states(StateSet::ALL),
        [
            (TcpState::Listen, 0),
            (TcpState::Listen, 0),
            (TcpState::Established, 1),
            (TcpState::LastAck, 1),
        ]
    );
    let established = StateSet::of(TcpState::Established);
    assert_eq!(states(established), [(TcpState::Established, 1)]);
    // Other protocols have every row.
    assert_eq!(rows(Protocol::Mptcp, StateSet::ALL, &messages).len(), 5);
}

#[test]
fn built_frames_of_netlink_that_tell_of_a_listener_twice() {
    let socket = |cookie: u32| {
        let mut bytes = vec![16, 3, 0, 7];
        bytes.extend(words(&[4711, 0, 0, 77, cookie, 0]));
        framed(&bytes)
    };
    let datagram = [socket(5), socket(6), socket(5)].concat();
    let (mut seen, want) = (0, Want::all(Protocol::Netlink));
    Stream::new(None).feed(&datagram, &want, &mut Coverage::default(), &mut |_| {
        seen += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(seen, 2);
}

#[test]
fn states_are_looked_at_here_where_the_kernel_does_not() {
    let messages = [header(1, 0, 1), header(7, 0, 2)];
    for protocol in [Protocol::Raw, Protocol::UdpLite] {
        let closed = rows(protocol, StateSet::of(TcpState::Closed), &messages);
        assert_eq!(closed.len(), 1, "{protocol:?}");
        assert_eq!(closed[0].0.state_name(), Some("UNCONNECTED"));
    }
}

#[test]
fn a_request_for_mptcp_names_it_in_an_attribute() {
    let want = Want::all(Protocol::Mptcp);
    let table = Table::of(Protocol::Mptcp, Family::Ipv4);
    let bytes = super::request::of(table, &want, None, 9);
    assert_eq!(bytes[..4], (bytes.len() as u32).to_ne_bytes());
    // `struct inet_diag_req_v2` has 56 bytes.
    assert_eq!((bytes.len(), bytes[16], bytes[17]), (16 + 56 + 8, 2, 0));
    assert_eq!(
        bytes[72..76],
        [8u16.to_ne_bytes(), 3u16.to_ne_bytes()].concat()
    );
    assert_eq!(bytes[76..], 262u32.to_ne_bytes());
    let tcp = super::request::of(Family::Ipv4.into(), &Want::states(StateSet::ALL), None, 9);
    assert_eq!((tcp.len(), tcp[17]), (72, 6));
}

#[test]
fn other_requests_have_the_header_of_a_dump() {
    for protocol in [Protocol::Packet, Protocol::Netlink, Protocol::Vsock] {
        let want = Want::all(protocol);
        let bytes = super::request::of(Table::without_family(protocol), &want, None, 9);
        assert_eq!(
            bytes[..4],
            (bytes.len() as u32).to_ne_bytes(),
            "{protocol:?}"
        );
        assert_eq!(bytes[4..6], 20u16.to_ne_bytes());
        assert_eq!(bytes[6..8], 0x301u16.to_ne_bytes());
        assert_eq!(bytes[8..12], 9u32.to_ne_bytes());
    }
}

proptest! {
    // The crate's decoder is the oracle for whatever both of them know.
    #[test]
    fn unix_agrees_with_the_crates_decoder(
        (kind, state) in (prop::sample::select(vec![1u8, 2, 5]), prop::sample::select(vec![1u8, 10])),
        (inode, cookie) in (any::<u32>(), 1u64..),
        name in "[ -~]{1,30}",
        (peer, vfs, queues) in (any::<u32>(), any::<(u32, u32)>(), any::<(u32, u32)>()),
        waiting in prop::collection::vec(any::<u32>(), 0..5),
        memory in prop::collection::vec(any::<u32>(), 9),
        shutdown in 0u8..4,
    ) {
        let mut bytes = vec![1, kind, state, 0];
        bytes.extend(inode.to_ne_bytes());
        bytes.extend(cookie.to_ne_bytes());
        attribute(&mut bytes, 0, format!("\0{name}").as_bytes());
        attribute(&mut bytes, 1, &words(&[vfs.0, vfs.1]));
        attribute(&mut bytes, 2, &words(&[peer]));
        attribute(&mut bytes, 3, &words(&waiting));
        attribute(&mut bytes, 4, &words(&[queues.0, queues.1]));
        attribute(&mut bytes, 5, &words(&memory));
        attribute(&mut bytes, 6, &[shutdown]);
        let oracle = UnixResponse::parse(&bytes[..]).unwrap();
        let socket = unix(&bytes).unwrap();
        prop_assert_eq!(socket.inode, oracle.header.inode);
        prop_assert_eq!(socket.cookie.map_or(0, NonZeroU64::get), u64::from_ne_bytes(oracle.header.cookie));
        prop_assert_eq!(socket.state.number(), oracle.header.state);
        let mut known = 0;
        for nla in &oracle.nlas {
            known += 1;
            match nla {
                Nla::Name(UnixDiagName::Abstract(theirs)) => {
                    prop_assert_eq!(&socket.name.unwrap()[1..], theirs);
                }
                Nla::Vfs(theirs) => {
                    // Its members are private.
                    let (device, inode) = socket.file.unwrap();
                    let ours = format!("Vfs {{ inode: {inode}, device: {device} }}");
                    prop_assert_eq!(format!("{theirs:?}"), ours);
                }
                Nla::Peer(theirs) => prop_assert_eq!(socket.peer, Some(*theirs)),
                Nla::PendingConnections(theirs) => {
                    let ours: Vec<u32> = socket
                        .waiting
                        .unwrap()
                        .chunks_exact(4)
                        .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
                        .collect();
                    prop_assert_eq!(&ours, theirs);
                }
                Nla::ReceiveQueueLength(recv, send) => {
                    prop_assert_eq!((socket.recv_q, socket.send_q), (Some(*recv), Some(*send)));
                }
                Nla::Shutdown(theirs) => prop_assert_eq!(socket.shutdown, Some(*theirs)),
                _ => known -= 1,
            }
        }
        prop_assert!(known >= 6, "{:?}", oracle.nlas);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), known in any::<bool>()) {
        for protocol in Protocol::ALL {
            let mut payload = bytes.clone();
            if known && let Some(first) = payload.first_mut() {
                *first = match protocol {
                    Protocol::Unix => 1,
                    Protocol::Netlink => 16,
                    Protocol::Packet => 17,
                    Protocol::Vsock => 40,
                    _ => 10,
                };
            }
            Stream::new(None).feed(
                &framed(&payload),
                &Want::all(protocol),
                &mut Coverage::default(),
                &mut |row| {
                    let (_, attributes, ends) = row.parts();
                    let _ = (attributes.drops(), ends.keep());
                    for bytes in [attributes.locals, attributes.peers].into_iter().flatten() {
                        let _ = sctp::addresses(bytes).count();
                    }
                    ControlFlow::Continue(())
                },
            );
        }
    }
}
