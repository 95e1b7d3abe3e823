//! The join, and the UNIX sockets of this kernel.

use std::net::Ipv6Addr;
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use super::*;
use crate::collect::live::{Choice, Live};
use crate::collect::procfs::ProcRoot;
use crate::collect::{Row, Source};
use crate::fields::tests::Fixture;
use crate::model::{Family, UnixKind, UnixSocket};

/// A socket of IP, by namespace, ends and state.
#[derive(Clone, Copy)]
struct Made(u16, Endpoint, Endpoint, TcpState);

fn at(host: u8, port: u16) -> Endpoint {
    Endpoint::v4([10, 0, 0, host], port)
}

fn loopback(port: u16) -> Endpoint {
    Endpoint::v4([127, 0, 0, 1], port)
}

fn established(netns: u16, local: Endpoint, remote: Endpoint) -> Made {
    Made(netns, local, remote, TcpState::Established)
}

fn listen(netns: u16, port: u16) -> Made {
    Made(
        netns,
        Endpoint::v4([0; 4], port),
        Endpoint::v4([0; 4], 0),
        TcpState::Listen,
    )
}

fn halves(order: Option<&str>, made: &[Made]) -> Halves {
    let order = order.map(|order| Order::parse(order).unwrap());
    let mut halves = Halves::new(order, None, Needed::default());
    for (at, made) in made.iter().enumerate() {
        let mut fixture = Fixture::new();
        let Made(netns, local, remote, state) = *made;
        fixture.socket.netns = netns;
        (fixture.socket.local, fixture.socket.remote) = (local, remote);
        fixture.socket.state = state;
        fixture.socket.recv_q = u32::try_from(at).unwrap();
        fixture.with(|record| halves.push(record, true));
    }
    halves
}

/// The local ends of the pairs, and the number of those that are elsewhere.
fn joined(made: &[Made]) -> (Vec<(Endpoint, Option<Endpoint>)>, u64) {
    let halves = halves(None, made);
    let (pairs, elsewhere) = halves.paired();
    let local = |at: u32| halves.socket(at).unwrap().local;
    let ends = pairs.iter().map(|pair| (local(pair.a), pair.b.map(local)));
    (ends.collect(), elsewhere)
}

fn pair(a: Endpoint, b: Endpoint) -> (Endpoint, Option<Endpoint>) {
    (a, Some(b))
}

#[test]
fn the_end_whose_port_is_listened_on_is_the_second() {
    let (low, high) = (loopback(1_000), loopback(8_080));
    let ends = [established(0, high, low), established(0, low, high)];
    let with = |more: &[Made]| joined(&[&ends, more].concat()).0;
    assert_eq!(with(&[listen(0, 8_080)]), [pair(low, high)]);
    assert_eq!(with(&[listen(0, 1_000)]), [pair(high, low)]);
    assert_eq!(
        with(&[]),
        [pair(high, low)],
        "the lower port is the server's"
    );
    assert_eq!(
        with(&[listen(1, 8_080)]),
        [pair(high, low)],
        "of another namespace"
    );
    let other = Made(0, at(1, 8_080), Endpoint::v4([0; 4], 0), TcpState::Listen);
    assert_eq!(with(&[other]), [pair(high, low)], "of another address");
    let mut handshake = ends;
    handshake[0].3 = TcpState::SynReceived;
    assert_eq!(joined(&handshake).0, [pair(low, high)]);
}

#[test]
fn ends_of_one_address_and_one_tuple_in_two_namespaces_stay_apart() {
    let (a, b) = (loopback(5_000), loopback(80));
    let of = |netns| [established(netns, a, b), established(netns, b, a)];
    let (pairs, elsewhere) = joined(&[of(1), of(2)].concat());
    assert_eq!((pairs, elsewhere), (vec![pair(a, b), pair(a, b)], 0));
    let halves = halves(None, &[of(1)[0], of(2)[0], of(2)[1], of(1)[1]]);
    for found in halves.paired().0 {
        let netns = |at| halves.socket(at).unwrap().netns;
        assert_eq!(netns(found.a), netns(found.b.unwrap()));
    }
    // Loopback is a namespace's own: these are two broken connections, not one.
    let (pairs, elsewhere) = joined(&[of(1)[0], of(2)[1]]);
    assert_eq!((pairs, elsewhere), (vec![(a, None), (b, None)], 0));
}

#[test]
fn between_namespaces_only_a_unique_partner_is_one() {
    let (a, b) = (at(1, 5_000), at(2, 80));
    let (ours, theirs) = (established(0, a, b), |netns| established(netns, b, a));
    assert_eq!(joined(&[ours, theirs(1)]), (vec![pair(a, b)], 0));
    assert_eq!(joined(&[ours, theirs(1), theirs(2)]), (vec![], 3));
    assert_eq!(
        joined(&[ours, theirs(1), theirs(0)]),
        (vec![pair(a, b)], 1),
        "one of the same namespace comes first"
    );
    assert_eq!(joined(&[ours, established(1, a, b)]), (vec![], 2));
    assert_eq!(joined(&[ours]), (vec![], 1));
}

#[test]
fn an_ipv4_conversation_is_one_on_a_socket_of_ipv6() {
    let (a, b) = (loopback(5_000), loopback(80));
    let mut halves = Halves::new(None, None, Needed::default());
    for (family, local, remote) in [(Family::Ipv6, a, b), (Family::Ipv4, b, a)] {
        let mut fixture = Fixture::new();
        fixture.socket.family = family;
        (fixture.socket.local, fixture.socket.remote) = (local, remote);
        fixture.with(|record| halves.push(record, family == Family::Ipv4));
    }
    let expected = Pair { a: 0, b: Some(1) };
    assert_eq!(
        halves.paired(),
        (vec![expected], 0),
        "either end may be selected"
    );
    for half in &mut halves.halves {
        half.fits = false;
    }
    assert_eq!(halves.paired(), (vec![], 0));
}

#[test]
fn a_socket_may_be_its_own_other_end() {
    let own = Endpoint::v6(Ipv6Addr::LOCALHOST.octets(), 5_000);
    assert_eq!(
        joined(&[established(0, own, own)]).0,
        [(own, Some(own))],
        "by simultaneous open"
    );
}

#[test]
fn of_one_that_is_alone_only_tcp_on_one_machine_says_something() {
    let (a, b) = (loopback(5_000), loopback(80));
    let mut halves = halves(None, &[Made(0, a, b, TcpState::CloseWait)]);
    let alone = Pair { a: 0, b: None };
    assert_eq!(halves.paired(), (vec![alone], 0));
    halves.halves[0].socket.protocol = Protocol::Udp;
    assert_eq!(halves.paired(), (vec![], 1));
}

#[test]
fn pairs_are_sorted_by_whichever_end_comes_first() {
    let ends = |port| [loopback(port), loopback(80)];
    let [[a, s], [b, _], [c, _]] = [ends(5_000), ends(5_001), ends(5_002)];
    // The queues are 0 and 5, 1 and 3, 2 and 4.
    let made = [
        established(0, a, s),
        established(0, b, s),
        established(0, c, s),
        established(0, s, b),
        established(0, s, c),
        established(0, s, a),
    ];
    let firsts = |order| -> Vec<u32> {
        let (pairs, _) = halves(order, &made).paired();
        pairs.iter().map(|pair| pair.a).collect()
    };
    assert_eq!(firsts(None), [0, 1, 2]);
    assert_eq!(firsts(Some("-recv-q")), [0, 2, 1]);
    assert_eq!(firsts(Some("recv-q")), [0, 1, 2]);
    let mut first = halves(Some("-recv-q"), &made);
    first.top = Some(1);
    assert_eq!(first.paired().0.len(), 1);
}

fn unix(inode: u32, peer: Option<u32>, name: Option<&'static [u8]>) -> UnixSocket<'static> {
    UnixSocket {
        cookie: NonZeroU64::new(u64::from(inode) + 1),
        inode,
        netns: 0,
        kind: UnixKind::Stream,
        state: TcpState::Established,
        name,
        file: None,
        peer,
        waiting: None,
        recv_q: None,
        send_q: None,
        memory: None,
        shutdown: None,
        uid: None,
    }
}

fn push_unix(halves: &mut Halves, socket: &UnixSocket<'_>) {
    let ends = Ends::Unix(socket);
    let (attributes, row) = (Attributes::default(), ends.socket());
    Fixture::new().with(|record| {
        let record = Record {
            socket: &row,
            attributes: &attributes,
            ends,
            ..*record
        };
        halves.push(&record, true);
    });
}

/// The inodes of the pairs, and the number of those that are elsewhere.
fn unix_pairs(sockets: &[UnixSocket<'_>]) -> (Vec<(u32, Option<u32>)>, u64) {
    let mut halves = Halves::new(None, None, Needed::default());
    for socket in sockets {
        push_unix(&mut halves, socket);
    }
    by_inodes(&halves)
}

fn by_inodes(halves: &Halves) -> (Vec<(u32, Option<u32>)>, u64) {
    let (pairs, elsewhere) = halves.paired();
    let inode = |at: u32| halves.socket(at).unwrap().inode;
    let pairs = pairs.iter().map(|pair| (inode(pair.a), pair.b.map(inode)));
    (pairs.collect(), elsewhere)
}

#[test]
fn unix_sockets_are_paired_by_the_inodes_of_their_peers() {
    let named = Some(&b"/run/x"[..]);
    let both = [unix(7, Some(8), named), unix(8, Some(7), None)];
    assert_eq!(
        unix_pairs(&both),
        (vec![(8, Some(7))], 0),
        "the client has no name"
    );
    let pair = [unix(7, Some(8), None), unix(8, Some(7), None)];
    assert_eq!(unix_pairs(&pair), (vec![(7, Some(8))], 0));
    let senders = [unix(7, Some(9), None), unix(8, Some(9), None)];
    let receiver = [unix(9, None, named)];
    assert_eq!(
        unix_pairs(&[&senders[..], &receiver].concat()),
        (vec![(7, Some(9)), (8, Some(9))], 0)
    );
    assert_eq!(
        unix_pairs(&receiver),
        (vec![], 0),
        "nobody is connected to it"
    );
    let gone = [unix(7, Some(0), None)];
    assert_eq!(unix_pairs(&gone), (vec![(7, None)], 0));
    let elsewhere = [unix(7, Some(99), None)];
    assert_eq!(unix_pairs(&elsewhere), (vec![], 1), "another namespace");
    assert_eq!(unix_pairs(&[unix(7, Some(7), None)]).0, [(7, Some(7))]);
    let mut halves = Halves::new(None, None, Needed::default());
    let socket = UnixSocket {
        cookie: None,
        ..unix(7, None, None)
    };
    push_unix(&mut halves, &socket);
    assert!(halves.missing().is_some(), "/proc/net/unix has no peers");
}

#[test]
fn unix_sockets_of_this_kernel_are_paired() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    let listener = UnixListener::bind(&path).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    let (server, _) = listener.accept().unwrap();
    let waiting = UnixStream::connect(&path).unwrap();
    let (left, right) = UnixStream::pair().unwrap();
    let (left_over, gone) = UnixStream::pair().unwrap();
    drop(gone);
    let receiver = UnixDatagram::bind(directory.path().join("d")).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(directory.path().join("d")).unwrap();

    let mut halves = Halves::new(None, None, Needed::default());
    let want = Want::all(Protocol::Unix);
    let mut machine = Live::new(Choice::Netlink, ProcRoot::default());
    machine
        .dump(&want, &mut |row| {
            if let Row::Unix(socket) = row {
                push_unix(&mut halves, &socket);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    let (pairs, _) = by_inodes(&halves);
    let inode = |fd: &dyn AsRawFd| -> u32 {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        let text = link.to_str().unwrap();
        let digits = text
            .strip_prefix("socket:[")
            .and_then(|text| text.strip_suffix(']'));
        digits.unwrap().parse().unwrap()
    };
    let of = |fd: &dyn AsRawFd| -> Vec<(u32, Option<u32>)> {
        let own = inode(fd);
        let has = |pair: &&(u32, Option<u32>)| pair.0 == own || pair.1 == Some(own);
        pairs.iter().filter(has).copied().collect()
    };
    assert_eq!(of(&client), [(inode(&client), Some(inode(&server)))]);
    assert_eq!(of(&server), of(&client));
    // The kernel lists no end that nobody has accepted.
    assert_eq!(of(&waiting), [(inode(&waiting), None)]);
    let one = of(&left);
    assert!(one.len() == 1 && one == of(&right), "{one:?}");
    assert_eq!(of(&left_over), [(inode(&left_over), None)]);
    assert_eq!(of(&sender), [(inode(&sender), Some(inode(&receiver)))]);
    assert_eq!(of(&listener), []);
}
