//! Sockets of every kind: netlink, `/proc/net` and a capture tell the same of them, or say what they cannot tell.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use anyhow::{Context, Result, ensure};
use linger::collect::live::{Choice, Live};
use linger::collect::procfs::{ProcRoot, tables};
use linger::collect::{Source, Want};
use linger::model::ends::Kept;
use linger::model::{Collector, Coverage, Ends, Family, Protocol, TcpState, mptcp_info, unix};
use linger::record::Capture;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::harness::Test;
use crate::sys;
use crate::world::World;

pub const TESTS: &[Test] = &[
    Test {
        name: "sockets_of_udp_and_udp_lite",
        run: sockets_of_udp_and_udp_lite,
    },
    Test {
        name: "sockets_of_unix",
        run: sockets_of_unix,
    },
    Test {
        name: "sockets_of_packet",
        run: sockets_of_packet,
    },
    Test {
        name: "sockets_of_netlink",
        run: sockets_of_netlink,
    },
    Test {
        name: "sockets_of_mptcp",
        run: sockets_of_mptcp,
    },
    Test {
        name: "sockets_of_raw",
        run: sockets_of_raw,
    },
    Test {
        name: "what_the_kernel_lacks_is_said",
        run: what_the_kernel_lacks_is_said,
    },
    Test {
        name: "other_sockets_are_no_leak_of_tcp",
        run: other_sockets_are_no_leak_of_tcp,
    },
];

/// A row, kept.
struct Seen {
    socket: linger::model::Socket,
    ends: Kept,
    mptcp_info: Option<Vec<u8>>,
    tcp_info: bool,
    drops: Option<u32>,
}

/// One way to read the sockets, and what it told.
struct Look {
    way: &'static str,
    rows: Vec<Seen>,
    coverage: Coverage,
}

impl Look {
    fn at(way: &'static str, source: &mut dyn Source, want: &Want) -> Result<Self> {
        let mut rows = Vec::new();
        let coverage = source.dump(want, &mut |row| {
            let (socket, attributes, ends) = row.parts();
            rows.push(Seen {
                socket,
                ends: ends.keep(),
                mptcp_info: attributes.mptcp_info.map(<[u8]>::to_vec),
                tcp_info: attributes.tcp_info.is_some(),
                drops: attributes.drops(),
            });
            ControlFlow::Continue(())
        })?;
        Ok(Self {
            way,
            rows,
            coverage,
        })
    }

    /// The row of the socket, of which there is one.
    fn row(&self, socket: &impl AsFd) -> Result<&Seen> {
        let inode = inode(socket)?;
        let mut found = self.rows.iter().filter(|row| row.socket.inode == inode);
        let row = found
            .next()
            .with_context(|| format!("{}: socket {inode} is not listed", self.way))?;
        ensure!(found.next().is_none(), "{}: {inode} comes twice", self.way);
        Ok(row)
    }

    /// Whether netlink told it.
    fn by_netlink(&self) -> bool {
        self.coverage.collector == Collector::Netlink
    }
}

fn inode(socket: &impl AsFd) -> Result<u32> {
    Ok(u32::try_from(rustix::fs::fstat(socket)?.st_ino)?)
}

fn all(protocol: Protocol) -> Want {
    Want {
        tcp_info: true,
        ..Want::all(protocol)
    }
}

fn live(choice: Choice) -> Live {
    Live::new(choice, ProcRoot::default())
}

/// Every way to read the protocol's sockets of this namespace: those that work here, and a capture.
fn looks(world: &World, protocol: Protocol) -> Result<Vec<Look>> {
    let want = all(protocol);
    let mut looks = vec![
        Look::at("as is best", &mut live(Choice::Auto), &want)?,
        Look::at("/proc", &mut live(Choice::Procfs), &want)?,
    ];
    let file = world.scratch.path().join(protocol.name());
    let name = file.to_str().context("an odd temporary directory")?;
    let recorded = world.linger(&["record", "--force", name])?;
    ensure!(recorded.status.success(), "{recorded:?}");
    looks.push(Look::at("a capture", &mut Capture::open(&file)?, &want)?);
    for look in &looks {
        let said = &look.coverage;
        world.expect(said.absent.is_empty(), || format!("{}: {said:?}", look.way));
    }
    let [live, proc, capture] = looks.as_slice() else {
        unreachable!()
    };
    world.expect(proc.coverage.collector == Collector::Procfs, || {
        format!("{:?}", proc.coverage)
    });
    world.expect(
        capture.coverage.collector == live.coverage.collector
            && capture.coverage.from_proc == live.coverage.from_proc
            && capture.coverage.missing == live.coverage.missing,
        || format!("{:?}, recorded {:?}", live.coverage, capture.coverage),
    );
    Ok(looks)
}

/// Whether this kernel has the protocol; if not, that is said, and it is no gap.
fn is_there(world: &World, protocol: Protocol) -> Result<bool> {
    if tables::has(&ProcRoot::default(), protocol) != Some(false) {
        return Ok(true);
    }
    for choice in [Choice::Auto, Choice::Netlink, Choice::Procfs] {
        let look = Look::at("absent", &mut live(choice), &all(protocol))?;
        let said = &look.coverage;
        let good = look.rows.is_empty() && said.absent == [protocol] && said.complete();
        world.expect(good, || format!("{choice:?}: {said:?}"));
    }
    Ok(false)
}

fn sockets_of_udp_and_udp_lite(world: &mut World) -> Result<()> {
    for (protocol, number) in [(Protocol::Udp, 17), (Protocol::UdpLite, 136)] {
        if !is_there(world, protocol)? {
            continue;
        }
        for family in world.families() {
            let address = family.loopback(0);
            let domain = Domain::for_address(address);
            let open = || Socket::new(domain, Type::DGRAM, Some(socket2::Protocol::from(number)));
            let (receiver, sender) = (open()?, open()?);
            receiver.bind(&address.into())?;
            let to = receiver.local_addr()?;
            sender.connect(&to)?;
            sender.send(&[7; 100])?;
            let to: SocketAddr = to.as_socket().context("no address")?;
            for look in looks(world, protocol)? {
                let there = look.row(&receiver)?;
                let socket = &there.socket;
                let good = socket.protocol == protocol
                    && socket.state_name() == Some("UNCONNECTED")
                    && socket.local_ip() == to.ip()
                    && socket.local.port == to.port()
                    && socket.recv_q >= 100
                    && there.drops == Some(0)
                    && socket.uid == rustix::process::geteuid().as_raw()
                    && socket.cookie.is_some() == look.by_netlink();
                world.expect(good, || format!("{}: {socket:?}", look.way));
                let socket = &look.row(&sender)?.socket;
                let good = socket.state == TcpState::Established && socket.remote.port == to.port();
                world.expect(good, || format!("{}: {socket:?}", look.way));
                let others = look.rows.iter().all(|row| row.socket.protocol == protocol);
                world.expect(others && look.coverage.complete(), || {
                    format!("{}: {:?}", look.way, look.coverage)
                });
            }
            let one = Want {
                states: linger::model::StateSet::of(TcpState::Established),
                ..all(protocol)
            };
            let look = Look::at("by state", &mut live(Choice::Auto), &one)?;
            world.expect(
                look.row(&sender).is_ok() && look.row(&receiver).is_err(),
                || format!("{protocol:?}: {} with a peer", look.rows.len()),
            );
        }
    }
    Ok(())
}

fn sockets_of_unix(world: &mut World) -> Result<()> {
    let path = world.scratch.path().join("stream");
    let listener = std::os::unix::net::UnixListener::bind(&path)?;
    let waiting = UnixStream::connect(&path)?;
    let name = SockAddr::unix("\0linger-seqpacket")?;
    let sequence = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    sequence.bind(&name)?;
    sequence.listen(3)?;
    let box_path = world.scratch.path().join("datagram");
    let mailbox = UnixDatagram::bind(&box_path)?;
    UnixDatagram::unbound()?.send_to(b"12345", &box_path)?;
    let (here, there) = UnixStream::pair()?;
    std::io::Write::write_all(&mut &here, b"123")?;
    here.shutdown(std::net::Shutdown::Write)?;

    for look in looks(world, Protocol::Unix)? {
        let way = look.way;
        let netlink = look.by_netlink();
        let check = |seen: &Seen, good: &dyn Fn(&unix::UnixSocket<'_>) -> bool| {
            seen.ends.with(|ends| {
                let good = matches!(ends, Ends::Unix(socket) if good(socket));
                world.expect(good, || format!("{way}: {ends:?}"));
            });
        };
        let (of_waiting, of_there) = (inode(&waiting)?, inode(&there)?);
        check(look.row(&listener)?, &|socket| {
            let common = socket.state == TcpState::Listen
                && socket.kind.name() == "u_str"
                && socket.name.map(unix::shown) == path.to_str().map(str::to_owned);
            // Who waits is told by its inode, and how many may.
            common
                && (!netlink
                    || (socket.recv_q == Some(1)
                        && socket.send_q.is_some_and(|limit| limit > 0)
                        && socket.waiting == Some(&of_waiting.to_ne_bytes()[..])
                        && socket.file.is_some()
                        && socket.memory().is_some()
                        && socket.uid == Some(rustix::process::geteuid().as_raw())))
        });
        check(look.row(&sequence)?, &|socket| {
            socket.state == TcpState::Listen
                && socket.kind.name() == "u_seq"
                && socket.name.map(unix::shown).as_deref() == Some("@linger-seqpacket")
                && socket.file.is_none()
                && (!netlink || (socket.recv_q, socket.send_q) == (Some(0), Some(3)))
        });
        check(look.row(&mailbox)?, &|socket| {
            socket.state == TcpState::Closed
                && socket.kind.name() == "u_dgr"
                && socket.name.is_some()
                && (!netlink || socket.recv_q == Some(5))
        });
        check(look.row(&here)?, &|socket| {
            socket.state == TcpState::Established
                && socket.name.is_none()
                && (!netlink
                    || (socket.peer == Some(of_there)
                        && socket.shutdown == Some(2)
                        && socket.send_q.is_some_and(|sent| sent > 0)))
        });
        check(look.row(&there)?, &|socket| {
            !netlink || (socket.recv_q == Some(3) && socket.shutdown == Some(1))
        });
        world.expect(look.coverage.complete(), || format!("{:?}", look.coverage));
    }
    Ok(())
}

/// `struct sockaddr_ll` of all frames of an interface.
fn link(interface: u32, ethertype: u16) -> Vec<u8> {
    let mut address = (libc::AF_PACKET as u16).to_ne_bytes().to_vec();
    address.extend(ethertype.to_be_bytes());
    address.extend(interface.to_ne_bytes());
    address.resize(20, 0);
    address
}

fn sockets_of_packet(world: &mut World) -> Result<()> {
    const SOL_PACKET: i32 = 263;
    const PACKET_RX_RING: i32 = 5;
    const PACKET_FANOUT: i32 = 18;
    let bound = Socket::new(Domain::PACKET, Type::RAW, None)?;
    // `lo` is the first interface of every namespace.
    sys::bind(&bound, &link(1, 0x0003))?;
    sys::set_option(&bound, SOL_PACKET, PACKET_FANOUT, 7 | 1 << 16)?;
    let loose = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
    sys::bind(&loose, &link(0, 0x0806))?;
    // `struct tpacket_req`: two blocks of a page, two frames in each.
    let request: Vec<u8> = [4096u32, 2, 2048, 4]
        .iter()
        .flat_map(|n| n.to_ne_bytes())
        .collect();
    sys::set_option_bytes(&loose, SOL_PACKET, PACKET_RX_RING, &request)?;
    std::net::UdpSocket::bind("127.0.0.1:0")?.send_to(&[7; 100], "127.0.0.1:9")?;

    for look in looks(world, Protocol::Packet)? {
        let (way, netlink) = (look.way, look.by_netlink());
        let uid = Some(rustix::process::geteuid().as_raw());
        look.row(&bound)?.ends.with(|ends| {
            let good = matches!(ends, Ends::Packet(socket)
                if socket.kind == 3 && socket.ethertype == 3 && socket.ifindex == 1
                    && socket.running == Some(true) && socket.uid == uid
                    && socket.rx_ring.is_none()
                    && socket.fanout == netlink.then_some(7 | 1 << 16));
            world.expect(good, || format!("{way}: {ends:?}"));
            let queue = ends.recv_q().is_some_and(|bytes| bytes > 100);
            world.expect(queue, || format!("{way}: nothing waits in {ends:?}"));
            world.expect(ends.memory().is_some() == netlink, || {
                format!("{way}: {ends:?}")
            });
        });
        look.row(&loose)?.ends.with(|ends| {
            let good = matches!(ends, Ends::Packet(socket)
                if socket.kind == 2 && socket.ethertype == 0x0806 && socket.ifindex == 0
                    && socket.rx_ring == netlink.then_some(8192));
            world.expect(good, || format!("{way}: {ends:?}"));
        });
        let both = look.rows.len() == 2 && look.coverage.complete();
        world.expect(both, || format!("{way}: {} rows", look.rows.len()));
    }
    Ok(())
}

fn sockets_of_netlink(world: &mut World) -> Result<()> {
    const PORT: u32 = 0x1234_5678;
    let route = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, None)?;
    // `struct sockaddr_nl`: RTMGRP_LINK and RTMGRP_IPV4_IFADDR.
    let mut address = (libc::AF_NETLINK as u16).to_ne_bytes().to_vec();
    address.extend([0; 2]);
    address.extend(PORT.to_ne_bytes());
    address.extend(0x11u32.to_ne_bytes());
    sys::bind(&route, &address)?;
    // It is told of the address, and reads nothing.
    crate::world::ip(&["addr", "add", "127.0.0.77/8", "dev", "lo"])?;

    for look in looks(world, Protocol::Netlink)? {
        let (way, netlink) = (look.way, look.by_netlink());
        let row = look.row(&route)?;
        row.ends.with(|ends| {
            let good = matches!(ends, Ends::Netlink(socket)
                if socket.family == 0 && socket.portid == PORT && socket.peer.is_none()
                    && socket.joined().collect::<Vec<_>>() == [1, 5]
                    && socket.state == TcpState::Closed);
            world.expect(good, || format!("{way}: {ends:?}"));
            let waits = ends.recv_q().is_some_and(|bytes| bytes > 0);
            world.expect(waits, || format!("{way}: nothing waits in {ends:?}"));
            world.expect(ends.memory().is_some() == netlink, || {
                format!("{way}: {ends:?}")
            });
        });
        world.expect(row.drops == Some(0), || format!("{way}: {:?}", row.drops));
        // The reader itself has a peer: the kernel's part for sock_diag.
        let connected = look.rows.iter().any(|row| {
            let peer = |ends: Ends<'_>| matches!(ends, Ends::Netlink(socket) if socket.family == 4 && socket.peer == Some((0, 0)));
            row.ends.with(peer) && row.socket.state == TcpState::Established
        });
        world.expect(connected == netlink, || {
            format!("{way}: connected {connected}")
        });
        world.expect(look.coverage.complete(), || format!("{:?}", look.coverage));
    }
    Ok(())
}

fn sockets_of_mptcp(world: &mut World) -> Result<()> {
    if !is_there(world, Protocol::Mptcp)? {
        return Ok(());
    }
    let mptcp = Some(socket2::Protocol::from(262));
    for family in world.families() {
        let address = family.loopback(0);
        let domain = Domain::for_address(address);
        let listener = Socket::new(domain, Type::STREAM, mptcp)?;
        listener.bind(&address.into())?;
        listener.listen(5)?;
        let dial = || -> Result<Socket> {
            let socket = Socket::new(domain, Type::STREAM, mptcp)?;
            socket.connect(&listener.local_addr()?)?;
            Ok(socket)
        };
        let client = dial()?;
        let (server, _) = listener.accept()?;
        client.send(b"hello")?;
        let waiting = dial()?;
        let of_family = if domain == Domain::IPV4 {
            Family::Ipv4
        } else {
            Family::Ipv6
        };
        crate::kernel::until("something to read", || {
            let look = Look::at("waiting", &mut live(Choice::Netlink), &all(Protocol::Mptcp))?;
            let queue = look.row(&server)?.socket.recv_q;
            // With overhead.
            Ok((queue < 5).then(|| format!("{queue} bytes")))
        })?;
        let all_looks = looks(world, Protocol::Mptcp)?;
        for look in all_looks.iter().filter(|look| look.by_netlink()) {
            let listening = &look.row(&listener)?.socket;
            let good = listening.state == TcpState::Listen
                && listening.family == of_family
                && (listening.recv_q, listening.backlog()) == (1, Some(5));
            world.expect(good, || format!("{}: {listening:?}", look.way));
            for socket in [&client, &server] {
                let row = look.row(socket)?;
                let info = row.mptcp_info.as_deref().unwrap_or_default();
                let good = row.socket.state == TcpState::Established
                    && row.socket.protocol == Protocol::Mptcp
                    && row.socket.cookie.is_some()
                    && !row.tcp_info
                    && mptcp_info::get("token", info).is_some_and(|token| token != 0);
                world.expect(good, || format!("{}: {:?} {info:?}", look.way, row.socket));
            }
            world.expect(look.row(&waiting).is_ok(), || "no client".to_owned());
            let good = look.coverage.complete();
            world.expect(good, || format!("{}: {:?}", look.way, look.coverage));
        }
        let proc = all_looks.get(1).context("no look at /proc")?;
        let said = &proc.coverage;
        world.expect(proc.rows.is_empty() && said.unseen(Protocol::Mptcp), || {
            format!("/proc: {said:?}")
        });
        world.expect(
            all_looks.iter().filter(|look| look.by_netlink()).count() == 2,
            || "netlink and a capture tell of MPTCP".to_owned(),
        );
    }
    Ok(())
}

fn sockets_of_raw(world: &mut World) -> Result<()> {
    for family in world.families() {
        let address = family.loopback(0);
        let domain = Domain::for_address(address);
        let number = if domain == Domain::IPV4 { 1 } else { 58 };
        let protocol = Some(socket2::Protocol::from(number));
        let any = Socket::new(domain, Type::RAW, protocol)?;
        let one = Socket::new(domain, Type::RAW, protocol)?;
        one.connect(&address.into())?;
        for look in looks(world, Protocol::Raw)? {
            let socket = &look.row(&any)?.socket;
            let good = socket.protocol == Protocol::Raw
                && i32::from(socket.local.port) == number
                && socket.state_name() == Some("UNCONNECTED")
                && socket.remote.is_unspecified();
            world.expect(good, || format!("{}: {socket:?}", look.way));
            let row = look.row(&one)?;
            let good = row.socket.state == TcpState::Established
                && row.socket.remote_ip() == address.ip()
                && row.drops == Some(0);
            world.expect(good, || format!("{}: {:?}", look.way, row.socket));
            let said = &look.coverage;
            world.expect(said.complete(), || format!("{}: {said:?}", look.way));
            // Where /proc was the way out, the module is named.
            let way_out = look.way != "/proc" && !look.by_netlink();
            let named =
                matches!(&said.from_proc[..], [(Protocol::Raw, why)] if why.contains("raw_diag"));
            world.expect(named == way_out, || format!("{}: {said:?}", look.way));
            world.expect(said.warnings().len() == usize::from(way_out), || {
                format!("{:?}", said.warnings())
            });
        }
    }
    Ok(())
}

fn what_the_kernel_lacks_is_said(world: &mut World) -> Result<()> {
    for protocol in Protocol::ALL {
        if !is_there(world, protocol)? {
            continue;
        }
        let look = Look::at("auto", &mut live(Choice::Auto), &all(protocol))?;
        let said = &look.coverage;
        if said.unseen(protocol) {
            // Nowhere to be seen: a gap, which names what would fill it.
            let module = format!("{}_diag", protocol.name());
            let named = said.missing.iter().any(|part| part.contains(&module));
            let good = named && !tables::shows(protocol) && !said.complete();
            world.expect(good, || format!("{protocol:?}: {said:?}"));
            let forced = Look::at("netlink", &mut live(Choice::Netlink), &all(protocol));
            let why = forced.err().map(|error| error.to_string());
            world.expect(
                why.as_ref().is_some_and(|why| why.contains(&module)),
                || format!("{protocol:?}: {why:?}"),
            );
        } else {
            world.expect(said.complete(), || format!("{protocol:?}: {said:?}"));
        }
    }
    // What this kernel does not have, or does not show, takes nothing away from TCP, live or recorded.
    let file = world.scratch.path().join("lacks");
    let name = file.to_str().context("an odd temporary directory")?;
    let recorded = world.linger(&["record", name])?;
    ensure!(recorded.status.success(), "{recorded:?}");
    let mut capture = Capture::open(&file)?;
    for protocol in Protocol::ALL {
        let live = Look::at("auto", &mut live(Choice::Auto), &all(protocol))?;
        let replayed = Look::at("capture", &mut capture, &all(protocol))?;
        let (was, is) = (&live.coverage, &replayed.coverage);
        let same = was.missing == is.missing
            && was.absent == is.absent
            && was.from_proc == is.from_proc
            && was.complete() == is.complete();
        world.expect(same, || format!("{protocol:?}: {was:?} {is:?}"));
    }
    Ok(())
}

fn other_sockets_are_no_leak_of_tcp(world: &mut World) -> Result<()> {
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(Socket::new(
            Domain::IPV4,
            Type::RAW,
            Some(socket2::Protocol::ICMPV4),
        )?);
        open.push(Socket::new(Domain::PACKET, Type::RAW, None)?);
        open.push(Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW,
            None,
        )?);
        open.push(Socket::new(Domain::UNIX, Type::STREAM, None)?);
        if tables::has(&ProcRoot::default(), Protocol::Mptcp) == Some(true) {
            open.push(Socket::new(
                Domain::IPV4,
                Type::STREAM,
                Some(socket2::Protocol::from(262)),
            )?);
        }
    }
    let id = "closed-fd-leak";
    let diagnosis = world.diagnose(&["--only", id]);
    if diagnosis.unknown.iter().all(|unjudged| unjudged.id != id) {
        world.quiet("sockets of other protocols", &diagnosis, id);
    }
    drop(open);
    Ok(())
}
