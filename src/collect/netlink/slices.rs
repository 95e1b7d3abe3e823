//! A dump by threads, which receive while the rows are read: the kernel makes an answer when it is received. And where there
//! are processors for it, several requests at once, each for the sockets whose ports lie in a slice of the port space.
//!
//! A socket belongs to the slice of the larger one of its two ports: of a connection one port is as a rule a service's and the
//! other, larger one of those that `connect` chooses, so this spreads the connections of servers and of clients alike. Where to
//! cut is learned from the first rows of the table, which the kernel keeps in no order of ports. Ports do not change while a
//! socket is in a table, but for one that was only bound. Such sockets are in a table of their own, where the kernel comes
//! upon all others too: they are asked for at the same time, by themselves.

use std::collections::VecDeque;
use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use netlink_sys::Socket as NetlinkSocket;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::stream::is_last;
use super::{BUFFER, Netlink, Progress, Stream, connected, failed, refused, request};
use crate::collect::{Error, Row, RowSink, Table, Want};
use crate::model::{Coverage, Protocol, StateSet, TcpState};

// `include/uapi/linux/inet_diag.h`
const JMP: u8 = 1;
const S_LE: u8 = 3;
const D_LE: u8 = 5;

/// `sizeof(struct inet_diag_bc_op)`; a comparison of ports takes two.
const OPERATION: usize = 4;

/// Datagrams that are handed over at a time.
const DATAGRAMS: usize = 8;
/// Blocks of datagrams that each slice has on their way.
const BLOCKS: usize = 3;
/// The number of each request, which has a socket of its own.
const SEQUENCE: u32 = 1;
/// More slices than this are not made where nobody says how many.
const MOST: usize = 4;
/// Rows by which it is judged where to cut.
const SAMPLE: usize = 256;

/// The part of the port space whose larger port is above one limit and not above another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slice {
    above: Option<u16>,
    up_to: Option<u16>,
}

impl Slice {
    /// The program that lets through the sockets of this slice; `None` if that is all of them.
    fn code(self) -> Option<Vec<u8>> {
        if self.above.is_none() && self.up_to.is_none() {
            return None;
        }
        let ports = |limit: Option<u16>| limit.map_or(0, |_| 4 * OPERATION);
        let length = ports(self.up_to) + self.above.map_or(0, |_| 5 * OPERATION);
        let mut code = Vec::with_capacity(length);
        // Behind the end by one operation: the socket is rejected. At the end: it is accepted.
        let (reject, accept) = (length + OPERATION, length);
        if let Some(limit) = self.up_to {
            for kind in [S_LE, D_LE] {
                let no = reject - code.len();
                comparison(&mut code, kind, no, limit);
            }
        }
        if let Some(limit) = self.above {
            for kind in [S_LE, D_LE] {
                let no = accept - code.len();
                comparison(&mut code, kind, no, limit);
            }
            let no = reject - code.len();
            operation(&mut code, JMP, OPERATION, no);
        }
        Some(code)
    }
}

fn comparison(code: &mut Vec<u8>, kind: u8, no: usize, port: u16) {
    operation(code, kind, 2 * OPERATION, no);
    operation(code, 0, 0, usize::from(port));
}

/// `struct inet_diag_bc_op`; in the second one of a comparison `no` is the port.
fn operation(code: &mut Vec<u8>, kind: u8, yes: usize, no: usize) {
    code.push(kind);
    code.push(u8::try_from(yes).unwrap_or_default());
    code.extend(u16::try_from(no).unwrap_or_default().to_ne_bytes());
}

/// Slices that together hold every socket once, cut behind each of these ports.
fn slices(cuts: &[u16]) -> Vec<Slice> {
    let above = std::iter::once(None).chain(cuts.iter().copied().map(Some));
    let up_to = cuts.iter().copied().map(Some).chain([None]);
    above
        .zip(up_to)
        .map(|(above, up_to)| Slice { above, up_to })
        .collect()
}

/// Where to cut so that each of `parts` holds about as many of the sampled sockets.
fn cuts(mut larger_ports: Vec<u16>, parts: usize) -> Vec<u16> {
    larger_ports.sort_unstable();
    let mut cuts: Vec<u16> = (1..parts)
        .filter_map(|part| larger_ports.get(larger_ports.len() * part / parts).copied())
        .collect();
    cuts.dedup();
    cuts
}

/// Datagrams of one slice, one behind the other.
struct Block {
    bytes: Vec<u8>,
    /// the length of each, which may be more than was kept of it
    lengths: Vec<usize>,
    /// datagrams that were lost before them
    lost: u32,
    /// why there are no more
    fault: Option<Errno>,
}

impl Block {
    fn new() -> Self {
        Self {
            bytes: vec![0; DATAGRAMS * BUFFER],
            lengths: Vec::with_capacity(DATAGRAMS),
            lost: 0,
            fault: None,
        }
    }

    /// Receives until it is full, or the dump has ended. `false`: there is no more.
    fn fill(&mut self, socket: &NetlinkSocket) -> bool {
        self.lengths.clear();
        (self.lost, self.fault) = (0, None);
        for place in self.bytes.chunks_exact_mut(BUFFER) {
            let length = loop {
                match rustix::net::recv(socket, &mut *place, RecvFlags::TRUNC) {
                    Ok((_, length)) => break length,
                    Err(Errno::INTR) => {}
                    Err(Errno::NOBUFS) => self.lost += 1,
                    Err(errno) => {
                        self.fault = Some(errno);
                        return false;
                    }
                }
            };
            self.lengths.push(length);
            if is_last(place.get(..length).unwrap_or(place)) {
                return false;
            }
        }
        true
    }

    fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let places = self.bytes.chunks_exact(BUFFER);
        places
            .zip(&self.lengths)
            .map(|(place, length)| place.get(..*length).unwrap_or(place))
    }
}

/// One request on its way.
struct Lane {
    stream: Stream,
    /// whether its rows come after all others
    is_last: bool,
    /// where blocks that were read go back to
    empty: Sender<Block>,
}

/// In how many slices it pays to ask. Each walk through the table passes all sockets, and who reads the rows takes a
/// processor too.
pub(super) fn as_many_as_pay() -> NonZeroUsize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    let processors =
        PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(1, NonZeroUsize::get));
    NonZeroUsize::new((processors / 2).min(MOST)).unwrap_or(NonZeroUsize::MIN)
}

impl Netlink {
    /// Dumps the TCP sockets of both families in `parts` slices, received by a thread each. `None`: that is refused, and nothing was pushed.
    pub(super) fn at_once(
        &mut self,
        want: &Want,
        parts: usize,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
    ) -> Result<Option<Progress>, Error> {
        let few = StateSet::of(TcpState::Listen).union(StateSet::of(TcpState::BoundInactive));
        let apart = Want {
            states: want.states.intersection(few),
            ..*want
        };
        let rest = Want {
            states: want.states.without(few),
            ..*want
        };
        let cuts = if parts > 1 {
            cuts(self.sample(&rest)?, parts)
        } else {
            Vec::new()
        };
        let mut requests: Vec<Vec<u8>> = slices(&cuts)
            .into_iter()
            .map(|slice| request::of_both(&rest, slice.code().as_deref(), SEQUENCE))
            .collect();
        let last = (!apart.states.is_empty()).then_some(requests.len());
        if last.is_some() {
            requests.push(request::of_both(&apart, None, SEQUENCE));
        }
        let mut pushed = false;
        let mut once = Once::new(last.is_some());
        let mut take = |from: Via, one: Row<'_>| {
            pushed = true;
            if once.is_first(from, &one) {
                row(one)
            } else {
                ControlFlow::Continue(())
            }
        };
        match exchange(&requests, last, want, coverage, &mut take) {
            // A kernel that takes no such program, or no more threads: all at once then.
            Ok(Progress::Failed(source)) if !pushed && refused(&source) => {
                self.both(want, coverage, row)
            }
            Err(Error::Thread(_)) if !pushed => self.both(want, coverage, row),
            done => done.map(Some),
        }
    }

    /// The larger ports of some sockets.
    fn sample(&mut self, want: &Want) -> Result<Vec<u16>, Error> {
        let mut ports = Vec::with_capacity(SAMPLE);
        let plain = Want::states(want.states);
        self.both(&plain, &mut Coverage::default(), &mut |row| {
            if let Row::Inet { socket, .. } = row {
                ports.push(socket.local.port.max(socket.remote.port));
            }
            if ports.len() < SAMPLE {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(ports)
    }
}

/// Where a row comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    /// a slice
    Slice,
    /// the request for what is only bound, or listens
    Apart,
}

/// Tells a socket that was only bound when it was met by one request, and connected when it was met by another.
struct Once {
    /// the cookies that came in slices; `None` if nothing is asked for apart from them
    met: Option<Vec<NonZeroU64>>,
    sorted: bool,
}

impl Once {
    fn new(needed: bool) -> Self {
        Self {
            met: needed.then(Vec::new),
            sorted: false,
        }
    }

    /// Whether the row is of a socket that no slice has brought. All slices come first.
    fn is_first(&mut self, from: Via, row: &Row<'_>) -> bool {
        let (Some(met), Row::Inet { socket, .. }) = (&mut self.met, row) else {
            return true;
        };
        let Some(cookie) = socket.cookie else {
            return true;
        };
        match from {
            Via::Slice => {
                met.push(cookie);
                true
            }
            Via::Apart => {
                if !self.sorted {
                    met.sort_unstable();
                    self.sorted = true;
                }
                met.binary_search(&cookie).is_err()
            }
        }
    }
}

/// Takes rows, and where they come from.
type Take<'t> = dyn FnMut(Via, Row<'_>) -> ControlFlow<()> + 't;

/// Sends all requests, and reads the answers as they come, but those to the request at the place `last` after all others.
fn exchange(
    requests: &[Vec<u8>],
    last: Option<usize>,
    want: &Want,
    coverage: &mut Coverage,
    take: &mut Take<'_>,
) -> Result<Progress, Error> {
    let (full, blocks) = mpsc::channel();
    thread::scope(|scope| {
        let mut lanes = Vec::with_capacity(requests.len());
        for (at, request) in requests.iter().enumerate() {
            // Of the namespace that this thread is in.
            let socket = connected()?;
            let (empty, spare) = mpsc::channel();
            for _ in 0..BLOCKS {
                drop(empty.send(Block::new()));
            }
            let full = full.clone();
            let work = move || receive(&socket, request, at, &spare, &full);
            thread::Builder::new()
                .spawn_scoped(scope, work)
                .map_err(Error::Thread)?;
            lanes.push(Lane {
                stream: Stream::new(Some(SEQUENCE)),
                empty,
                is_last: Some(at) == last,
            });
        }
        drop(full);
        let mut slices = lanes.iter().filter(|lane| !lane.is_last).count();
        let mut waiting = VecDeque::new();
        // Whoever sends blocks in vain, because this has returned, ends.
        while let Some((at, block)) = (if slices == 0 {
            waiting.pop_front()
        } else {
            None
        })
        .or_else(|| blocks.recv().ok())
        {
            let Some(lane) = lanes.get_mut(at) else {
                continue;
            };
            if lane.is_last && slices > 0 {
                waiting.push_back((at, block));
                continue;
            }
            let ended = lane.read(block, want, coverage, take)?;
            match ended {
                Progress::More => {}
                Progress::Done => slices = slices.saturating_sub(usize::from(!lane.is_last)),
                ended => return Ok(ended),
            }
        }
        Ok(Progress::Done)
    })
}

impl Lane {
    /// Reads a block, and gives it back.
    fn read(
        &mut self,
        block: Block,
        want: &Want,
        coverage: &mut Coverage,
        take: &mut Take<'_>,
    ) -> Result<Progress, Error> {
        let from = if self.is_last { Via::Apart } else { Via::Slice };
        coverage.lost += block.lost;
        for datagram in block.datagrams() {
            let mut row = |one: Row<'_>| take(from, one);
            match self.stream.feed(datagram, want, coverage, &mut row) {
                Progress::More => {}
                ended => return Ok(ended),
            }
        }
        if let Some(errno) = block.fault {
            let table = Table::without_family(Protocol::Tcp);
            return Err(failed(table, errno, self.stream.rows()));
        }
        drop(self.empty.send(block));
        Ok(Progress::More)
    }
}

/// Sends a request and hands over what is received, until that was all.
fn receive(
    socket: &NetlinkSocket,
    request: &[u8],
    at: usize,
    spare: &Receiver<Block>,
    full: &Sender<(usize, Block)>,
) {
    let sent = socket.send(request, 0);
    while let Ok(mut block) = spare.recv() {
        let more = match &sent {
            Ok(_) => block.fill(socket),
            Err(error) => {
                block.fault = Some(errno(error));
                false
            }
        };
        if full.send((at, block)).is_err() || !more {
            return;
        }
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;
    use crate::model::Program;

    /// What the kernel does with a program of these operations (`inet_diag_bc_run` in `net/ipv4/inet_diag.c`).
    fn accepts(code: &[u8], source: u16, destination: u16) -> bool {
        let mut at = 0;
        while at < code.len() {
            let word = |at: usize| usize::from(u16::from_ne_bytes([code[at + 2], code[at + 3]]));
            let (kind, yes, no) = (code[at], usize::from(code[at + 1]), word(at));
            let holds = match kind {
                S_LE => usize::from(source) <= word(at + OPERATION),
                D_LE => usize::from(destination) <= word(at + OPERATION),
                JMP => false,
                other => panic!("no operation: {other}"),
            };
            assert!(yes >= OPERATION && no >= OPERATION, "it leads forward");
            at += if holds { yes } else { no };
        }
        assert!(at == code.len() || at == code.len() + OPERATION);
        at == code.len()
    }

    proptest! {
        #[test]
        fn every_socket_is_in_one_slice(
            mut cuts in prop::collection::vec(any::<u16>(), 0..5),
            source in any::<u16>(),
            destination in any::<u16>(),
            near in any::<bool>(),
        ) {
            cuts.sort_unstable();
            cuts.dedup();
            let destination = if near { source.saturating_add(destination % 3) } else { destination };
            let holding: Vec<Slice> = slices(&cuts)
                .into_iter()
                .filter(|slice| accepts(&slice.code().unwrap_or_default(), source, destination))
                .collect();
            prop_assert_eq!(holding.len(), 1);
            let larger = source.max(destination);
            let slice = holding[0];
            prop_assert!(slice.above.is_none_or(|limit| larger > limit));
            prop_assert!(slice.up_to.is_none_or(|limit| larger <= limit));
        }

        #[test]
        fn slices_are_about_equal(ports in prop::collection::hash_set(any::<u16>(), 64..200), parts in 1usize..8) {
            let ports: Vec<u16> = ports.into_iter().collect();
            let count = ports.len();
            for slice in slices(&cuts(ports.clone(), parts)) {
                let held = ports.iter().filter(|port| accepts(&slice.code().unwrap_or_default(), **port, 0)).count();
                prop_assert!(held.abs_diff(count / parts) <= parts + 1, "{held} of {count} in {parts}");
            }
        }
    }

    #[test]
    fn sockets_of_one_port_are_not_cut() {
        assert_eq!(cuts(vec![443; 100], 4), [443]);
        assert!(cuts(Vec::new(), 4).is_empty());
        assert_eq!(cuts(vec![1, 2, 3, 4], 2), [3]);
    }

    /// Cookies of the sockets of these ports, as they come.
    fn cookies(netlink: &mut Netlink, want: &Want, ports: &[u16]) -> Vec<u64> {
        let mut seen = Vec::new();
        let mut row = |row: Row<'_>| {
            if let Row::Inet { socket, attributes } = row
                && (ports.contains(&socket.local.port) || ports.contains(&socket.remote.port))
            {
                assert_eq!(attributes.tcp_info.is_some(), want.tcp_info);
                seen.extend(socket.cookie.map(|cookie| cookie.get()));
            }
            ControlFlow::Continue(())
        };
        let everything = Program::default();
        let coverage = netlink.dump(want, &everything, &mut row, None).unwrap();
        assert!(coverage.rows_complete(), "{coverage:?}");
        seen.sort_unstable();
        seen
    }

    #[test]
    fn all_slices_together_are_the_dump() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").ok();
        let mut ports = Vec::new();
        let (mut held, mut listeners) = (Vec::new(), Vec::new());
        for listener in [Some(v4), v6].into_iter().flatten() {
            let at = listener.local_addr().unwrap();
            ports.push(at.port());
            for _ in 0..20 {
                let near = TcpStream::connect(at).unwrap();
                held.push((near, listener.accept().unwrap()));
            }
            listeners.push(listener);
        }
        for tcp_info in [false, true] {
            let want = Want {
                tcp_info,
                ..Want::states(StateSet::ALL)
            };
            let mut netlink = Netlink::open().unwrap();
            let mut dump = |slices| {
                netlink.cut(NonZeroUsize::new(slices));
                cookies(&mut netlink, &want, &ports)
            };
            let whole = dump(1);
            assert!(whole.len() >= 2 * 20);
            for slices in [2, 3, 7] {
                assert_eq!(dump(slices), whole, "{slices} slices");
            }
        }
    }

    #[test]
    fn who_wants_no_more_gets_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let _held: Vec<_> = (0..20)
            .map(|_| (TcpStream::connect(at), listener.accept()))
            .collect();
        let mut netlink = Netlink::open().unwrap();
        netlink.cut(NonZeroUsize::new(3));
        for _ in 0..3 {
            let mut rows = 0;
            let mut row = |_: Row<'_>| {
                rows += 1;
                ControlFlow::Break(())
            };
            let want = Want::states(StateSet::of(TcpState::Established));
            netlink
                .dump(&want, &Program::default(), &mut row, None)
                .unwrap();
            assert_eq!(rows, 1);
        }
    }
}
