//! The rows of all network namespaces in one stream: which are read, which are skipped, which are gone.

use std::net::SocketAddr;
use std::ops::ControlFlow;

use anyhow::{Context, Result};
use linger::collect::live::Choice;
use linger::collect::netns::Everywhere;
use linger::collect::procfs::ProcRoot;
use linger::collect::{Row, Source, Want};
use linger::model::{Coverage, Protocol, StateSet, TcpState};
use socket2::{Domain, Socket, Type};

use crate::harness::Test;
use crate::kernel::{self, until_count};
use crate::netns::{Nameless, PORT, inode, listening, named, names, own, within};
use crate::states::lists_bound_sockets;
use crate::world::{Family, World, connect, ip, listen, local, tcp};

pub const TESTS: &[Test] = &[
    Test {
        name: "netns_that_vanishes",
        run: that_vanishes,
    },
    Test {
        name: "netns_only_empty_ones_are_skipped",
        run: only_empty_ones_are_skipped,
    },
    Test {
        name: "netns_half_open_connections_are_not_skipped",
        run: half_open_connections_are_not_skipped,
    },
    Test {
        name: "netns_a_protocol_without_a_module_is_read_from_proc",
        run: without_a_module,
    },
];

/// A socket: the label of its namespace, its state and local port.
type Seen = (String, TcpState, u16);

/// All rows, and what was not seen.
fn rows(everywhere: &mut Everywhere, want: &Want) -> Result<(Vec<Seen>, Coverage)> {
    let namespaces = everywhere.namespaces().context("one namespace only")?;
    let mut rows = Vec::new();
    let coverage = everywhere.dump(want, &mut |row| {
        if let Row::Inet { socket, .. } = row
            && let Some(namespace) = namespaces.get(socket.netns)
        {
            rows.push((namespace.label.clone(), socket.state, socket.local.port));
        }
        ControlFlow::Continue(())
    })?;
    Ok((rows, coverage))
}

fn that_vanishes(world: &mut World) -> Result<()> {
    names()?;
    let (blue, green) = (named("blue")?, named("green")?);
    let _kept = listening(&green, 5)?;
    drop(listening(&blue, 5)?);
    let nameless = Nameless::start()?;
    let mut everywhere = Everywhere::new(Choice::Auto, ProcRoot::default())?;
    ip(&["netns", "del", "blue"])?;
    let label = format!("net:[{}]", inode(&nameless.path())?);
    drop(nameless);
    let (rows, coverage) = rows(&mut everywhere, &Want::states(StateSet::ALL))?;
    let seen = rows.contains(&("green".to_owned(), TcpState::Listen, PORT));
    let said = coverage.missing.join("; ");
    world.expect(
        seen && said.contains("vanished") && said.contains("blue") && said.contains(&label),
        || format!("{rows:?}; {said}"),
    );
    let namespaces = everywhere.namespaces().context("one namespace only")?;
    for (label, complete) in [("blue", false), ("green", true)] {
        let looked = namespaces.looked();
        let looked = looked.iter().find(|one| one.namespace.label == label);
        world.expect(looked.is_some_and(|one| one.complete == complete), || {
            format!("{label}: {looked:?}")
        });
    }
    Ok(())
}

fn only_empty_ones_are_skipped(world: &mut World) -> Result<()> {
    names()?;
    let [waiting, bound, udp, v6, empty] = ["waiting", "bound", "udp", "v6", "empty"].map(named);
    let (waiting, bound, udp, v6) = (waiting?, bound?, udp?, v6?);
    empty?;
    // Nothing but TIME-WAIT: no program has a socket there any more.
    within(&waiting, || {
        let listener = listen(Family::V4.loopback(PORT), 5)?;
        let client = connect(local(&listener)?)?;
        let (server, _) = listener.accept()?;
        drop(listener);
        drop(client);
        drop(server);
        until_count(kernel::TIME_WAIT, 1)
    })?;
    let _bound = within(&bound, || {
        let socket = tcp(Family::V4.loopback(PORT))?;
        socket.bind(&Family::V4.loopback(PORT).into())?;
        Ok(socket)
    })?;
    let _udp = within(&udp, || {
        let address: SocketAddr = Family::V4.loopback(PORT);
        Ok(std::net::UdpSocket::bind(address)?)
    })?;
    let _v6 = if world.families().contains(&Family::V6) {
        Some(within(&v6, || {
            let listener = listen(Family::V6.loopback(PORT), 5)?;
            let client = connect(local(&listener)?)?;
            let server = listener.accept()?.0;
            Ok([listener, client, server])
        })?)
    } else {
        None
    };
    let mut everywhere = Everywhere::new(Choice::Netlink, ProcRoot::default())?;
    let of = |rows: &[Seen], label: &str| -> Vec<TcpState> {
        let rows = rows.iter().filter(|row| row.0 == label);
        rows.map(|row| row.1).collect()
    };
    let (tcp, coverage) = rows(&mut everywhere, &Want::states(StateSet::ALL))?;
    let mut expected = vec![
        ("waiting", vec![TcpState::TimeWait]),
        ("udp", vec![]),
        ("empty", vec![]),
    ];
    if lists_bound_sockets()? {
        expected.push(("bound", vec![TcpState::BoundInactive]));
    }
    if world.families().contains(&Family::V6) {
        let connected = [
            TcpState::Listen,
            TcpState::Established,
            TcpState::Established,
        ];
        expected.push(("v6", connected.to_vec()));
    }
    for (label, states) in expected {
        let found = of(&tcp, label);
        world.expect(found == states, || {
            format!("{label}: {found:?}, {:?}", coverage.missing)
        });
    }
    // Without LISTEN among what is wanted, listeners are counted and not shown.
    let default = StateSet::DEFAULT.without(StateSet::of(TcpState::Listen));
    let (tcp, _) = rows(&mut everywhere, &Want::states(default))?;
    let found = of(&tcp, "v6");
    let listed = found.contains(&TcpState::Listen);
    world.expect(!listed && of(&tcp, "waiting").len() == 1, || {
        format!("{tcp:?}")
    });
    let (datagrams, _) = rows(&mut everywhere, &Want::all(Protocol::Udp))?;
    world.expect(of(&datagrams, "udp").len() == 1, || {
        format!("{datagrams:?}")
    });
    world.expect(of(&datagrams, "waiting").is_empty(), || {
        format!("{datagrams:?}")
    });
    Ok(())
}

/// The kernel counts a handshake that is not complete nowhere.
fn half_open_connections_are_not_skipped(world: &mut World) -> Result<()> {
    names()?;
    let listener = listen(Family::V4.near(PORT), 5)?;
    let deaf = world.far.begin_connect(local(&listener)?, true)?;
    until_count(kernel::SYN_RECEIVED, 1)?;
    let mut everywhere = Everywhere::new(Choice::Netlink, ProcRoot::default())?;
    for states in [StateSet::ALL, StateSet::DEFAULT] {
        let (rows, _) = rows(&mut everywhere, &Want::states(states))?;
        let label = format!("net:[{}]", own()?);
        let half = rows.iter().filter(|row| {
            row.0 == label && matches!(row.1, TcpState::SynReceived | TcpState::NewSynReceived)
        });
        let half = half.count();
        world.expect(half == 1, || format!("{half} half open: {rows:?}"));
    }
    world.far.close(deaf)?;
    Ok(())
}

/// Of RAW sockets the kernel tells by a module of its own: where it is missing, each namespace has its /proc/net.
fn without_a_module(world: &mut World) -> Result<()> {
    const NUMBER: u16 = 253;
    let raw = || {
        let protocol = Some(socket2::Protocol::from(i32::from(NUMBER)));
        Ok(Socket::new(Domain::IPV4, Type::RAW, protocol)?)
    };
    names()?;
    let inside = named("raw")?;
    named("none")?;
    let _inside = within(&inside, raw)?;
    let _own = raw()?;
    let mut everywhere = Everywhere::new(Choice::Auto, ProcRoot::default())?;
    let (found, coverage) = rows(&mut everywhere, &Want::all(Protocol::Raw))?;
    let ours: Vec<&Seen> = found.iter().filter(|row| row.2 == NUMBER).collect();
    let of = |label: &str| ours.iter().filter(|row| row.0 == label).count();
    let good = (of("raw"), of("none"), ours.len()) == (1, 0, 2);
    world.expect(good, || format!("{found:?}"));
    let unread = |gap: &String| gap.contains("sock_diag");
    world.expect(!coverage.missing.iter().any(unread), || {
        format!("{:?}", coverage.missing)
    });
    let module = matches!(&coverage.from_proc[..], [] | [(Protocol::Raw, _)]);
    world.expect(module && coverage.fell_back.is_none(), || {
        format!("{coverage:?}")
    });
    Ok(())
}
