//! The tables `/proc/net/sctp/eps`, the sockets that listen, and `/proc/net/sctp/assocs`, the associations
//! (`sctp_eps_seq_show` and `sctp_assocs_seq_show` in `net/sctp/proc.c`). Each has the sockets of both families, and every
//! address of both ends; a `*` is before the one in use. Their heads tell them apart.

use std::io::{self, BufRead};
use std::net::IpAddr;
use std::ops::ControlFlow;

use super::inet::decimal;
use super::tables::each_line;
use crate::collect::{Row, RowSink, Table, Want};
use crate::model::{
    Attributes, Coverage, Endpoint, Family, Protocol, Socket, TcpState, Timer, sctp,
};

/// Which of the tables a line is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `eps`
    Sockets,
    /// `assocs`
    Associations,
}

/// The addresses of a line, as `INET_DIAG_LOCALS` and `INET_DIAG_PEERS` have them.
#[derive(Debug, Default)]
pub struct Ends {
    locals: Vec<u8>,
    peers: Vec<u8>,
}

/// Reads both tables, one after the other, and pushes what is wanted. `Break` if the sink said so.
///
/// # Errors
/// When reading fails; the rows before that have been pushed.
pub fn table(
    reader: impl BufRead,
    table: Table,
    want: &Want,
    coverage: &mut Coverage,
    row: &mut RowSink<'_>,
) -> io::Result<ControlFlow<()>> {
    let Some(family) = table.family.filter(|_| want.table(table)) else {
        return Ok(ControlFlow::Continue(()));
    };
    let mut part = Part::Sockets;
    let mut ends = Ends::default();
    each_line(reader, coverage, |line, coverage| {
        let text = line.trim_ascii_start();
        for (head, of) in [
            (&b"ENDPT "[..], Part::Sockets),
            (b"ASSOC ", Part::Associations),
        ] {
            if text.starts_with(head) {
                part = of;
                return Some(ControlFlow::Continue(()));
            }
        }
        let socket = parse_line(line, part, &mut ends)?;
        if socket.family != family || !want.states.contains(socket.state) {
            return Some(ControlFlow::Continue(()));
        }
        if matches!(socket.state, TcpState::Unknown(_)) {
            coverage.unknown_states += 1;
        }
        let attributes = Attributes {
            locals: Some(&ends.locals),
            peers: (part == Part::Associations).then_some(&ends.peers),
            ..Attributes::default()
        };
        Some(row(Row::Inet { socket, attributes }))
    })
}

/// Reads one line and its addresses; `None` if it is malformed.
pub fn parse_line(line: &[u8], part: Part, ends: &mut Ends) -> Option<Socket> {
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let mut numbers = [0u64; 11];
    // The first two are addresses in the kernel; how they look is nobody's promise.
    words.nth(1)?;
    let count = match part {
        Part::Sockets => 6,
        Part::Associations => 11,
    };
    for place in numbers.iter_mut().take(count) {
        *place = decimal(words.next()?)?;
    }
    let (state, queues, uid, inode, ports) = match part {
        Part::Sockets => {
            let [_, state, _, port, uid, inode, ..] = numbers;
            (state, (0, 0), uid, inode, (port, 0))
        }
        Part::Associations => {
            let [_, _, state, _, _, tx, rx, uid, inode, local, peer] = numbers;
            (state, (rx, tx), uid, inode, (local, peer))
        }
    };
    let state: u8 = state.try_into().ok()?;
    let ports: (u16, u16) = (ports.0.try_into().ok()?, ports.1.try_into().ok()?);
    let mut words = words.peekable();
    let (family, local) = addresses(&mut words, ports.0, &mut ends.locals)?;
    let (state, remote) = match part {
        Part::Sockets => (TcpState::from_kernel(state), wildcard(family)),
        Part::Associations => {
            words.next_if_eq(&&b"<->"[..])?;
            let (_, remote) = addresses(&mut words, ports.1, &mut ends.peers)?;
            (sctp::association(state), remote)
        }
    };
    Some(Socket {
        cookie: None,
        local,
        remote,
        inode: inode.try_into().ok()?,
        uid: uid.try_into().ok()?,
        recv_q: queues.0.try_into().ok()?,
        send_q: queues.1.try_into().ok()?,
        timer_ms: 0,
        ifindex: 0,
        info: None,
        netns: 0,
        retransmits: 0,
        timer: Timer::None,
        state,
        protocol: Protocol::Sctp,
        family,
    })
}

const fn wildcard(family: Family) -> Endpoint {
    match family {
        Family::Ipv4 => Endpoint::v4([0; 4], 0),
        Family::Ipv6 => Endpoint::v6([0; 16], 0),
    }
}

/// Takes the addresses at the front of `words`, and says which is in use: the marked one, or the first. `None` without
/// any.
fn addresses<'a>(
    words: &mut std::iter::Peekable<impl Iterator<Item = &'a [u8]>>,
    port: u16,
    all: &mut Vec<u8>,
) -> Option<(Family, Endpoint)> {
    all.clear();
    let (mut used, mut marked) = (None, false);
    while let Some((star, family, end)) = words.peek().and_then(|word| address(word, port)) {
        words.next();
        sctp::push(all, family, &end);
        if used.is_none() || (star && !marked) {
            used = Some((family, end));
        }
        marked |= star;
    }
    used
}

/// An address, and whether it is marked; `None` of a word that is none.
fn address(word: &[u8], port: u16) -> Option<(bool, Family, Endpoint)> {
    let bare = word.strip_prefix(b"*");
    let text = std::str::from_utf8(bare.unwrap_or(word)).ok()?;
    Some(match text.parse().ok()? {
        IpAddr::V4(ip) => (
            bare.is_some(),
            Family::Ipv4,
            Endpoint::v4(ip.octets(), port),
        ),
        IpAddr::V6(ip) => (
            bare.is_some(),
            Family::Ipv6,
            Endpoint::v6(ip.octets(), port),
        ),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::StateSet;

    // As the kernel's format strings print them: no machine that runs the tests has SCTP.
    const BUILT: &[u8] = b" ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n\
        0000000000000000 0000000000000000 2   10  29   2905   1000 49218 127.0.0.1 127.0.0.3 \n\
        0000000000000000 0000000000000000 0   10  30   80        0 49219 0000:0000:0000:0000:0000:0000:0000:0000 \n \
        ASSOC     SOCK   STY SST ST HBKT ASSOC-ID TX_QUEUE RX_QUEUE UID INODE LPORT RPORT LADDRS <-> RADDRS HBINT INS OUTS MAXRT T1X T2X RTXC wmema wmemq sndbuf rcvbuf\n\
        0000000000000000 0000000000000000 2   1   3  0       1       22       11    1000 49220 2905  40000  127.0.0.1 *127.0.0.3 <-> 127.0.0.2 *127.0.0.4 \t   30000    10    10   10    0    0        0        1        0   212992   212992\n";

    type Seen = (TcpState, u32, String, String, Option<usize>);

    fn read(text: &[u8], want: &Want, family: Family) -> (Vec<Seen>, Coverage) {
        let (mut rows, mut coverage) = (Vec::new(), Coverage::default());
        let of = Table::of(Protocol::Sctp, family);
        let end = table(text, of, want, &mut coverage, &mut |row| {
            if let Row::Inet { socket, attributes } = row {
                let end = |end: &Endpoint| format!("{}:{}", end.ip_as(family), end.port);
                rows.push((
                    socket.state,
                    socket.inode,
                    end(&socket.local),
                    end(&socket.remote),
                    attributes.peers.map(|peers| sctp::addresses(peers).count()),
                ));
            }
            ControlFlow::Continue(())
        });
        assert!(end.unwrap().is_continue());
        (rows, coverage)
    }

    #[test]
    fn built_tables_have_sockets_and_associations() {
        let all = Want::all(Protocol::Sctp);
        let (rows, coverage) = read(BUILT, &all, Family::Ipv4);
        assert!(coverage.rows_complete(), "{coverage:?}");
        let row = |state, inode, local: &str, remote: &str, peers| {
            (state, inode, local.to_owned(), remote.to_owned(), peers)
        };
        assert_eq!(
            rows,
            [
                row(TcpState::Listen, 49218, "127.0.0.1:2905", "0.0.0.0:0", None),
                row(
                    TcpState::Established,
                    49220,
                    "127.0.0.3:2905",
                    "127.0.0.4:40000",
                    Some(2)
                ),
            ]
        );
        let (rows, _) = read(BUILT, &all, Family::Ipv6);
        assert_eq!(rows, [row(TcpState::Listen, 49219, ":::80", ":::0", None)]);
        let listen = Want {
            states: StateSet::of(TcpState::Listen),
            ..all
        };
        assert_eq!(read(BUILT, &listen, Family::Ipv4).0.len(), 1);
    }

    #[test]
    fn an_association_has_its_queues_and_states() {
        let line = BUILT.split(|byte| *byte == b'\n').nth(4).unwrap();
        let mut ends = Ends::default();
        let socket = parse_line(line, Part::Associations, &mut ends).unwrap();
        assert_eq!((socket.recv_q, socket.send_q), (11, 22));
        assert_eq!((socket.uid, socket.cookie), (1000, None));
        assert_eq!(ends.locals.len(), 2 * sctp::STORAGE);
        let line = String::from_utf8(line.to_vec()).unwrap();
        let pending = line.replace(" 1   3  0", " 1   4  0");
        let socket = parse_line(pending.as_bytes(), Part::Associations, &mut ends).unwrap();
        assert_eq!(socket.state_name(), Some("SHUTDOWN-PENDING"));
        let other = line.replace("<->", "---");
        assert!(parse_line(other.as_bytes(), Part::Associations, &mut ends).is_none());
    }

    #[test]
    fn a_broken_line_is_counted_and_the_rest_read() {
        let text = [BUILT, b"rest 1\n"].concat();
        let (rows, coverage) = read(&text, &Want::all(Protocol::Sctp), Family::Ipv4);
        assert_eq!((rows.len(), coverage.undecoded), (2, 1));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for part in [Part::Sockets, Part::Associations] {
                let _ = parse_line(&bytes, part, &mut Ends::default());
            }
            read(&bytes, &Want::all(Protocol::Sctp), Family::Ipv4);
        }

        #[test]
        fn no_mangled_line_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut text = BUILT.to_vec();
            let at = at.index(text.len());
            text[at] = byte;
            read(&text, &Want::all(Protocol::Sctp), Family::Ipv4);
        }
    }
}
