//! The answer to one dump, datagram by datagram: framing, errors, interruption. Pure, so that a recorded stream is
//! read by the same code as a live one.

use std::io;
use std::num::NonZeroU64;
use std::ops::ControlFlow;

use netlink_packet_core::{
    DoneMessage, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP,
    NLMSG_OVERRUN, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::{SOCK_DIAG_BY_FAMILY, SockDiagMessage};

use rustc_hash::FxHashSet;

use super::{decode, others};
use crate::collect::{Row, RowSink, Want};
use crate::model::{Coverage, Protocol, TcpState};

/// The answer to the request before `SOCK_DIAG_BY_FAMILY`, with the same payload (`include/uapi/linux/inet_diag.h`): in
/// dumps that others recorded.
pub const TCPDIAG_GETSOCK: u16 = 18;

/// Alignment of messages within a datagram (`NLMSG_ALIGNTO`).
const ALIGN: usize = 4;

/// How many sockets of one hash chain the kernel looks at in one go (`SKARR_SZ` in `net/ipv4/inet_diag.c`).
const RECENT: usize = 16;

/// What a datagram brought the dump to.
#[derive(Debug)]
pub enum Progress {
    /// more is to come
    More,
    /// the kernel said it was all
    Done,
    /// the receiver of the rows wants no more
    Stopped,
    /// the kernel ended the dump with an error: an `NLMSG_ERROR`, or an `NLMSG_DONE` that carries one
    Failed(io::Error),
}

/// Reads the stream of one dump.
#[derive(Debug)]
pub struct Stream {
    sequence: Option<u32>,
    interrupted: bool,
    rows: u64,
    /// sockets that have come, of the protocols of which the kernel tells twice
    met: FxHashSet<NonZeroU64>,
    /// the last TCP sockets that have come, and where the next one goes
    recent: [Option<NonZeroU64>; RECENT],
    next: usize,
}

impl Stream {
    /// Expects answers to the request with number `sequence`; a recorded stream has whatever number it has.
    pub fn new(sequence: Option<u32>) -> Self {
        Self {
            sequence,
            interrupted: false,
            rows: 0,
            met: FxHashSet::default(),
            recent: [None; RECENT],
            next: 0,
        }
    }

    /// Rows decoded so far, those that were not wanted included.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads one datagram and pushes the wanted rows in it.
    pub fn feed(
        &mut self,
        datagram: &[u8],
        want: &Want,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
    ) -> Progress {
        let mut rest = datagram;
        while !rest.is_empty() {
            let Ok(message) = NetlinkBuffer::new_checked(rest) else {
                // What is left has no whole header, or is shorter than its header says: cut off on its way.
                coverage.undecoded += 1;
                return Progress::More;
            };
            let length = message.length() as usize;
            let whole = rest.get(..length).unwrap_or_default();
            let progress = self.message(&message, whole, want, coverage, row);
            if !matches!(progress, Progress::More) {
                return progress;
            }
            rest = rest
                .get(length.next_multiple_of(ALIGN)..)
                .unwrap_or_default();
        }
        Progress::More
    }

    /// Whether the socket comes for the first time. Netlink's come again among those that listen to groups
    /// (`__netlink_diag_dump` in `net/netlink/diag.c`), and those of SCTP that listen and have associations again with
    /// these (`sctp_diag_dump` in `net/sctp/diag.c`).
    fn first(&mut self, cookie: Option<NonZeroU64>) -> bool {
        cookie.is_none_or(|cookie| self.met.insert(cookie))
    }

    /// Whether the TCP socket has not just come. The kernel goes on in a hash chain where it left off by counting, and comes
    /// to the same sockets once more if others were put before them in the meantime.
    fn is_new(&mut self, cookie: Option<NonZeroU64>) -> bool {
        if cookie.is_some() && self.recent.contains(&cookie) {
            return false;
        }
        if let Some(place) = self.recent.get_mut(self.next % RECENT) {
            *place = cookie;
        }
        self.next = (self.next + 1) % RECENT;
        true
    }

    fn message(
        &mut self,
        message: &NetlinkBuffer<&[u8]>,
        whole: &[u8],
        want: &Want,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
    ) -> Progress {
        if self
            .sequence
            .is_some_and(|expected| expected != message.sequence_number())
        {
            return Progress::More; // the tail of an earlier answer
        }
        if message.flags() & NLM_F_DUMP_INTR != 0 && !self.interrupted {
            self.interrupted = true;
            coverage.interrupted += 1;
        }
        let payload = message.payload();
        match message.message_type() {
            SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK => self.row(payload, whole, want, coverage, row),
            NLMSG_NOOP => Progress::More,
            NLMSG_OVERRUN => {
                coverage.lost += 1;
                Progress::More
            }
            // Both carry a negative errno first. An acknowledgement (0) answers no dump; a DONE may also be empty.
            NLMSG_DONE | NLMSG_ERROR => match errno(payload) {
                Some(0) | None if message.message_type() == NLMSG_DONE => Progress::Done,
                Some(0) | None => Progress::More,
                Some(code) => Progress::Failed(io::Error::from_raw_os_error(code.saturating_neg())),
            },
            _ => {
                coverage.undecoded += 1;
                Progress::More
            }
        }
    }

    fn row(
        &mut self,
        payload: &[u8],
        whole: &[u8],
        want: &Want,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
    ) -> Progress {
        let decoded = match want.protocol {
            Protocol::Unix => {
                decode::unix(payload).map(|socket| (Row::Unix(socket), socket.state, true))
            }
            Protocol::Packet => {
                others::packet(payload).map(|socket| (Row::Packet(socket), TcpState::Closed, true))
            }
            Protocol::Netlink => others::netlink(payload).map(|socket| {
                let first = self.first(socket.cookie);
                (Row::Netlink(socket), socket.state, first)
            }),
            Protocol::Vsock => {
                others::vsock(payload).map(|socket| (Row::Vsock(socket), socket.state, true))
            }
            protocol => decode::inet(payload, protocol).map(|(socket, mut attributes)| {
                attributes.message = Some(whole);
                let wanted = want.family(socket.family)
                    && match protocol {
                        Protocol::Tcp => self.is_new(socket.cookie),
                        Protocol::Sctp => attributes.peers.is_some() || self.first(socket.cookie),
                        _ => true,
                    };
                let state = socket.state;
                (Row::Inet { socket, attributes }, state, wanted)
            }),
        };
        let Some((decoded, state, wanted)) = decoded else {
            coverage.undecoded += 1;
            return Progress::More;
        };
        self.rows += 1;
        if matches!(state, TcpState::Unknown(_)) {
            coverage.unknown_states += 1;
        }
        // Where the kernel has a filter it has used it already: not so of RAW, SCTP, PACKET and NETLINK. A recorded
        // dump holds whatever was asked for then.
        if !wanted || !want.states.contains(state) {
            return Progress::More;
        }
        match row(decoded) {
            ControlFlow::Continue(()) => Progress::More,
            ControlFlow::Break(()) => Progress::Stopped,
        }
    }
}

/// Whether a datagram is the last of a dump.
pub fn is_last(datagram: &[u8]) -> bool {
    let mut rest = datagram;
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        if matches!(message.message_type(), NLMSG_DONE | NLMSG_ERROR) {
            return true;
        }
        let length = message.length() as usize;
        rest = rest
            .get(length.next_multiple_of(ALIGN)..)
            .unwrap_or_default();
    }
    false
}

/// The message that ends a dump without an error, for a capture of chosen messages.
pub fn end() -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_MULTIPART;
    let mut message = NetlinkMessage::<SockDiagMessage>::new(
        header,
        NetlinkPayload::Done(DoneMessage::default()),
    );
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn errno(payload: &[u8]) -> Option<i32> {
    payload
        .first_chunk()
        .map(|bytes| i32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StateSet;

    fn framed(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((payload.len() + 16) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn socket(state: u8) -> Vec<u8> {
        let mut payload = [0u8; 72];
        payload[..2].copy_from_slice(&[2, state]);
        framed(SOCK_DIAG_BY_FAMILY, 2, 7, &payload)
    }

    fn feed(datagram: &[u8], states: StateSet) -> (Progress, Coverage, Vec<TcpState>) {
        let (mut coverage, mut seen) = (Coverage::default(), Vec::new());
        let progress =
            Stream::new(Some(7)).feed(datagram, &Want::states(states), &mut coverage, &mut |row| {
                if let Row::Inet { socket, .. } = row {
                    seen.push(socket.state);
                }
                ControlFlow::Continue(())
            });
        (progress, coverage, seen)
    }

    #[test]
    fn several_messages_in_a_datagram_then_done() {
        let mut bytes = [socket(1), socket(10)].concat();
        let (progress, coverage, seen) = feed(&bytes, StateSet::ALL);
        assert!(matches!(progress, Progress::More));
        assert_eq!(seen, [TcpState::Established, TcpState::Listen]);
        bytes.extend(framed(NLMSG_DONE, 2, 7, &0i32.to_ne_bytes()));
        assert!(matches!(feed(&bytes, StateSet::ALL).0, Progress::Done));
        assert!(coverage.rows_complete());
        assert!(matches!(
            feed(&framed(NLMSG_DONE, 2, 7, &[]), StateSet::ALL).0,
            Progress::Done
        ));
    }

    #[test]
    fn a_missing_handler_answers_in_two_ways_and_both_are_errors() {
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            let (progress, ..) = feed(&framed(kind, 2, 7, &(-2i32).to_ne_bytes()), StateSet::ALL);
            assert!(
                matches!(progress, Progress::Failed(ref e) if e.raw_os_error() == Some(2)),
                "{kind}: {progress:?}"
            );
        }
        let hostile = framed(NLMSG_ERROR, 2, 7, &i32::MIN.to_ne_bytes());
        assert!(matches!(
            feed(&hostile, StateSet::ALL).0,
            Progress::Failed(_)
        ));
    }

    #[test]
    fn interruption_is_counted_once_a_dump() {
        let mut payload = [0u8; 72];
        payload[..2].copy_from_slice(&[2, 1]);
        let row = framed(SOCK_DIAG_BY_FAMILY, 2 | NLM_F_DUMP_INTR, 7, &payload);
        let (_, coverage, seen) = feed(&[row.clone(), row].concat(), StateSet::ALL);
        assert_eq!((coverage.interrupted, seen.len()), (1, 2));
        assert!(!coverage.complete());
    }

    #[test]
    fn cut_off_short_and_foreign_messages_are_counted_and_do_not_stop_the_dump() {
        let whole = socket(1);
        let (progress, coverage, seen) = feed(&[&whole[..], &whole[..60]].concat(), StateSet::ALL);
        assert!(matches!(progress, Progress::More));
        assert_eq!((coverage.undecoded, seen.len()), (1, 1));
        let short = framed(SOCK_DIAG_BY_FAMILY, 2, 7, &[2; 40]);
        let foreign = framed(99, 2, 7, &[0; 8]);
        let (_, coverage, seen) = feed(&[short, foreign, socket(8)].concat(), StateSet::ALL);
        assert_eq!((coverage.undecoded, seen), (2, vec![TcpState::CloseWait]));
        let overrun = framed(NLMSG_OVERRUN, 2, 7, &[]);
        assert_eq!(feed(&overrun, StateSet::ALL).1.lost, 1);
    }

    #[test]
    fn answers_to_another_request_are_passed_over() {
        let mut payload = [0u8; 72];
        payload[..2].copy_from_slice(&[2, 1]);
        let stale = [
            framed(SOCK_DIAG_BY_FAMILY, 2, 6, &payload),
            framed(NLMSG_DONE, 2, 6, &0i32.to_ne_bytes()),
        ]
        .concat();
        let (progress, _, seen) = feed(&stale, StateSet::ALL);
        assert!(matches!(progress, Progress::More) && seen.is_empty());
    }

    #[test]
    fn a_socket_that_comes_again_in_its_hash_chain_is_one_row() {
        let with = |cookie: u32| {
            let mut payload = [0u8; 72];
            payload[..2].copy_from_slice(&[2, 1]);
            payload[44..48].copy_from_slice(&cookie.to_ne_bytes());
            framed(SOCK_DIAG_BY_FAMILY, 2, 7, &payload)
        };
        let rows = |cookies: &[u32]| {
            let bytes: Vec<u8> = cookies.iter().flat_map(|one| with(*one)).collect();
            feed(&bytes, StateSet::ALL).2.len()
        };
        assert_eq!(rows(&[1, 2, 3, 2, 3, 4]), 4);
        assert_eq!(rows(&[0, 0]), 2, "what has no cookie may be anything");
        let far: Vec<u32> = (1..=17).chain([1]).collect();
        assert_eq!(rows(&far), 18, "of another chain");
        assert_eq!(rows(&far[1..]), 17);
    }

    #[test]
    fn the_last_datagram_is_known_by_its_last_message() {
        let done = framed(NLMSG_DONE, 2, 7, &0i32.to_ne_bytes());
        assert!(!is_last(&[socket(1), socket(1)].concat()));
        assert!(is_last(&[socket(1), done.clone()].concat()));
        assert!(is_last(&framed(NLMSG_ERROR, 0, 7, &(-22i32).to_ne_bytes())));
        assert!(!is_last(&done[..10]) && !is_last(&[]));
    }

    #[test]
    fn unknown_states_are_shown_and_counted_and_unwanted_ones_left_out() {
        let bytes = [socket(14), socket(1), socket(6)].concat();
        let (_, coverage, seen) = feed(&bytes, StateSet::ALL);
        assert_eq!(coverage.unknown_states, 1);
        assert_eq!(seen[0], TcpState::Unknown(14));
        let (.., seen) = feed(&bytes, StateSet::of(TcpState::TimeWait));
        assert_eq!(seen, [TcpState::TimeWait]);
    }

    #[test]
    fn no_bytes_panic() {
        use proptest::prelude::*;
        proptest!(|(bytes in prop::collection::vec(any::<u8>(), 0..300))| {
            feed(&bytes, StateSet::ALL);
            for protocol in [Protocol::Udp, Protocol::Unix] {
                let _ = Stream::new(None).feed(
                    &bytes,
                    &Want::all(protocol),
                    &mut Coverage::default(),
                    &mut |_| ControlFlow::Continue(()),
                );
            }
        });
    }
}
