//! Sockets in many states, all of them lasting, and what the kernel's own tables say of them.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// The states of `/proc/net/tcp` in node_exporter's spelling, by their numbers from 1 on.
pub const STATES: [&str; 11] = [
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
];

/// What the scene has at least, so that no count is right because nothing is there.
pub const MADE: &[(&str, usize)] = &[
    ("established", 2),
    ("syn_sent", 2),
    ("syn_recv", 1),
    ("fin_wait1", 1),
    ("fin_wait2", CLOSED_BY_PEERS),
    ("time_wait", 2),
    ("close_wait", CLOSED_BY_PEERS),
    ("last_ack", 1),
    ("listen", 3),
];

/// So many CLOSE-WAITs, and as many FIN-WAIT-2 on the other side.
const CLOSED_BY_PEERS: usize = 12;
/// Of the listener that is full.
pub const BACKLOG: u16 = 1;

/// The sockets are held for as long as it is.
pub struct Scene {
    /// where nobody accepts
    pub full: SocketAddr,
    _held: Vec<Socket>,
}

impl Scene {
    pub fn open() -> Self {
        let mut held = Vec::new();
        let v4 = listener(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 128);
        let v6 = listener(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), 128);
        for listener in [&v4, &v6] {
            held.extend(pair(listener));
            // Who closes first keeps TIME-WAIT.
            let [client, server] = pair(listener);
            client.shutdown(Shutdown::Write).unwrap();
            drop(server);
            drop(client);
        }
        for _ in 0..CLOSED_BY_PEERS {
            let [client, server] = pair(&v4);
            client.shutdown(Shutdown::Write).unwrap();
            held.extend([client, server]);
        }
        // A FIN that is not acknowledged, first and last.
        let [client, server] = pair(&v4);
        deafen(&client);
        server.shutdown(Shutdown::Write).unwrap();
        held.extend([client, server]);
        let [client, server] = pair(&v4);
        client.shutdown(Shutdown::Write).unwrap();
        until("close_wait", CLOSED_BY_PEERS + 1);
        deafen(&client);
        server.shutdown(Shutdown::Write).unwrap();
        held.extend([client, server]);
        // A client that never hears the answer to its SYN.
        let deaf = socket(local(&v4));
        deafen(&deaf);
        begin(&deaf, local(&v4));
        held.push(deaf);
        // A queue that holds no more; the SYN of the last one is dropped.
        let full = listener(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), BACKLOG.into());
        let address = local(&full);
        for _ in 0..=BACKLOG {
            let client = socket(address);
            client.connect(&address.into()).unwrap();
            held.push(client);
        }
        let refused = socket(address);
        begin(&refused, address);
        held.extend([refused, full, v4, v6]);
        for (state, count) in MADE {
            until(state, *count);
        }
        Self {
            full: address,
            _held: held,
        }
    }

    /// How many sockets of the family the kernel lists in the state.
    pub fn count(&self, family: &str, state: &str) -> usize {
        count(family, state)
    }
}

fn count(family: &str, state: &str) -> usize {
    // The thread's own: that of the process shows the namespace of its first thread.
    let file = match family {
        "ipv4" => "/proc/thread-self/net/tcp",
        _ => "/proc/thread-self/net/tcp6",
    };
    let table = fs::read_to_string(file).unwrap();
    let number = STATES.iter().position(|name| *name == state).unwrap() + 1;
    let number = format!("{number:02X}");
    let states = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(3));
    states.filter(|state| *state == number).count()
}

fn until(state: &str, at_least: usize) {
    let end = Instant::now() + Duration::from_secs(10);
    while count("ipv4", state) + count("ipv6", state) < at_least {
        assert!(Instant::now() < end, "no {at_least} sockets in {state}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn socket(address: SocketAddr) -> Socket {
    Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )
    .unwrap()
}

fn listener(address: SocketAddr, backlog: i32) -> Socket {
    let socket = socket(address);
    socket.bind(&address.into()).unwrap();
    socket.listen(backlog).unwrap();
    socket
}

fn local(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

/// A connection: the client's end and the server's.
fn pair(listener: &Socket) -> [Socket; 2] {
    let address = local(listener);
    let client = socket(address);
    client.connect(&address.into()).unwrap();
    [client, listener.accept().unwrap().0]
}

/// Begins to connect and does not wait.
fn begin(socket: &Socket, address: SocketAddr) {
    socket.set_nonblocking(true).unwrap();
    let error = socket.connect(&address.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
}

/// From now on TCP hears nothing: the classic BPF program `return 0`, BPF_RET | BPF_K.
fn deafen(socket: &Socket) {
    socket
        .attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])
        .unwrap();
}
