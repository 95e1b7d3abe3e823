//! For whom an established connection waits, from one look at it.
//!
//! The kernel knows nothing of requests and answers. It knows what is stuck in a queue and why, and with empty queues
//! which end sent data last. That end has had its say: the next move is the other's.

use super::socket::{Socket, Timer};
use super::state::TcpState;
use super::tcp_info::TcpInfo;

/// So many unanswered probes are more than the one that may be on its way at any moment.
const UNANSWERED: u8 = 2;

/// `TCP_CA_Recovery` (`include/net/tcp.h`): from here on segments are known to be lost.
const CA_RECOVERY: u8 = 3;

/// Whose move it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WaitingOn {
    /// the other end: what was sent is not answered
    Peer,
    /// this end: something lies here unread, or the last data came from the peer and nothing was sent since. A server
    /// owes an answer then; a client has its answer and has not asked anew
    Us,
    /// the other end's program does not read: its window has no room for what is queued
    PeersWindow,
    /// the way there: segments or probes are lost, or the congestion window holds data back
    Network,
    /// nobody: nothing was ever sent, or the answer came within the same tick of the kernel's clock
    Nobody,
}

/// Which end sent data last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastWord {
    /// this one
    Ours,
    /// the other
    Theirs,
    /// none, or both within one tick of the kernel's clock
    Neither,
}

impl LastWord {
    /// Both stamps begin at the handshake, so that they are equal until the first data. They count in ticks of 1 to
    /// 10 ms: where both are of one tick, the byte counts tell if only one end has ever sent.
    pub fn new(info: &TcpInfo) -> Self {
        use std::cmp::Ordering;
        match info.last_data_sent_ms.cmp(&info.last_data_recv_ms) {
            Ordering::Less => Self::Ours,
            Ordering::Greater => Self::Theirs,
            Ordering::Equal => match (info.bytes_acked(), info.bytes_received()) {
                // The SYN of the end that dialled counts as an acknowledged byte.
                (Some(acked), Some(0)) if acked > 1 => Self::Ours,
                (Some(acked), Some(received)) if acked <= 1 && received > 0 => Self::Theirs,
                _ => Self::Neither,
            },
        }
    }
}

impl WaitingOn {
    /// The name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Us => "us",
            Self::PeersWindow => "peer-window",
            Self::Network => "network",
            Self::Nobody => "nobody",
        }
    }

    /// For whom `socket` waits; `None` in any other state than ESTABLISHED, and where only `tcp_info` could tell and
    /// there is none.
    pub fn new(socket: &Socket, info: Option<&TcpInfo>) -> Option<Self> {
        if socket.state != TcpState::Established {
            return None;
        }
        // Received and not read, or not even accepted (such a socket has no inode yet).
        if socket.recv_q > 0 || socket.inode == 0 {
            return Some(Self::Us);
        }
        if socket.send_q > 0 {
            return queued(socket, info);
        }
        if socket.timer == Timer::Keepalive && socket.retransmits >= UNANSWERED {
            return Some(Self::Network);
        }
        Some(match LastWord::new(info?) {
            LastWord::Ours => Self::Peer,
            LastWord::Theirs => Self::Us,
            LastWord::Neither => Self::Nobody,
        })
    }
}

/// With bytes that are not sent, or not acknowledged.
fn queued(socket: &Socket, info: Option<&TcpInfo>) -> Option<WaitingOn> {
    if socket.timer == Timer::Persist {
        // A peer that answers the probes is alive and has no room.
        return Some(if socket.retransmits >= UNANSWERED {
            WaitingOn::Network
        } else {
            WaitingOn::PeersWindow
        });
    }
    if info.and_then(TcpInfo::snd_wnd) == Some(0) {
        return Some(WaitingOn::PeersWindow);
    }
    let timed_out = socket.timer == Timer::Retransmit && socket.retransmits > 0;
    if timed_out {
        return Some(WaitingOn::Network);
    }
    let info = info?;
    if info.backoff > 0 || info.retransmits > 0 || info.ca_state >= CA_RECOVERY {
        return Some(WaitingOn::Network);
    }
    let notsent = info.notsent_bytes().unwrap_or(0);
    if notsent == 0 {
        // All is on its way, and nothing is known to be lost.
        return Some(WaitingOn::Peer);
    }
    let in_flight = socket.send_q.saturating_sub(notsent);
    let no_room = info
        .snd_wnd()
        .is_some_and(|window| in_flight.saturating_add(info.snd_mss.min(notsent)) > window);
    Some(if no_room {
        WaitingOn::PeersWindow
    } else {
        WaitingOn::Network
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tcp_info::example;
    use crate::model::{Endpoint, Family, Protocol};

    fn socket() -> Socket {
        Socket {
            cookie: None,
            local: Endpoint::v4([10, 0, 0, 1], 40_000),
            remote: Endpoint::v4([10, 0, 0, 2], 5432),
            inode: 9,
            uid: 0,
            recv_q: 0,
            send_q: 0,
            timer_ms: 0,
            ifindex: 0,
            info: None,
            netns: 0,
            retransmits: 0,
            timer: Timer::None,
            state: TcpState::Established,
            protocol: Protocol::Tcp,
            family: Family::Ipv4,
        }
    }

    fn info(members: &[(&str, u64)]) -> TcpInfo {
        TcpInfo::parse(&example(members)).unwrap()
    }

    fn of(socket: Socket, members: &[(&str, u64)]) -> Option<WaitingOn> {
        WaitingOn::new(&socket, Some(&info(members)))
    }

    /// sent, received, acknowledged, received bytes
    fn stamps(sent: u64, recv: u64, acked: u64, received: u64) -> Option<WaitingOn> {
        of(
            socket(),
            &[
                ("last_data_sent_ms", sent),
                ("last_data_recv_ms", recv),
                ("bytes_acked", acked),
                ("bytes_received", received),
            ],
        )
    }

    // The figures of the first two tests are measurements of real sockets on Linux 6.18, HZ=250.

    #[test]
    fn who_sent_last_waits_for_the_other() {
        let answers = [
            ("the client has asked", (2252, 2304, 2, 0), WaitingOn::Peer),
            ("the server was asked", (2304, 2252, 0, 1), WaitingOn::Us),
            (
                "the client has its answer",
                (2200, 2100, 2, 2),
                WaitingOn::Us,
            ),
            (
                "the server has answered",
                (2100, 2200, 2, 1),
                WaitingOn::Peer,
            ),
            (
                "the server began: its client",
                (2052, 2000, 1, 2),
                WaitingOn::Us,
            ),
            ("the server began", (2000, 2052, 2, 0), WaitingOn::Peer),
        ];
        for (what, (sent, recv, acked, received), waiting) in answers {
            assert_eq!(stamps(sent, recv, acked, received), Some(waiting), "{what}");
        }
    }

    #[test]
    fn within_one_tick_the_byte_counts_tell_or_nothing_does() {
        assert_eq!(
            stamps(2304, 2304, 1, 0),
            Some(WaitingOn::Nobody),
            "new, dialled"
        );
        assert_eq!(
            stamps(2304, 2304, 0, 0),
            Some(WaitingOn::Nobody),
            "new, accepted"
        );
        assert_eq!(
            stamps(2252, 2252, 2, 0),
            Some(WaitingOn::Peer),
            "asked at once"
        );
        assert_eq!(
            stamps(2252, 2252, 0, 1),
            Some(WaitingOn::Us),
            "was asked at once"
        );
        assert_eq!(
            stamps(2052, 2052, 2, 2),
            Some(WaitingOn::Nobody),
            "answered at once"
        );
        let old = info(&[
            ("bytes_acked", 9),
            ("last_data_sent_ms", 5),
            ("last_data_recv_ms", 5),
        ]);
        assert_eq!(
            WaitingOn::new(&socket(), Some(&old.clipped(104))),
            Some(WaitingOn::Nobody)
        );
    }

    #[test]
    fn what_lies_here_comes_first() {
        let mut unread = socket();
        (unread.recv_q, unread.send_q, unread.timer) = (1, 9, Timer::Persist);
        assert_eq!(of(unread, &[]), Some(WaitingOn::Us));
        assert_eq!(WaitingOn::new(&unread, None), Some(WaitingOn::Us));
        let mut unaccepted = socket();
        unaccepted.inode = 0;
        assert_eq!(
            of(unaccepted, &[("last_data_sent_ms", 0)]),
            Some(WaitingOn::Us)
        );
    }

    #[test]
    fn a_full_window_is_the_peers_as_long_as_it_answers_probes() {
        let mut full = socket();
        (full.send_q, full.timer) = (107_152, Timer::Persist);
        assert_eq!(of(full, &[]), Some(WaitingOn::PeersWindow));
        assert_eq!(WaitingOn::new(&full, None), Some(WaitingOn::PeersWindow));
        full.retransmits = 1;
        assert_eq!(
            of(full, &[]),
            Some(WaitingOn::PeersWindow),
            "one is on its way"
        );
        full.retransmits = 2;
        assert_eq!(of(full, &[]), Some(WaitingOn::Network));
        // Data was in flight when the window closed, so the other timer runs.
        let mut closed = socket();
        (closed.send_q, closed.timer, closed.retransmits) = (5_000, Timer::Retransmit, 2);
        let window = |bytes| of(closed, &[("snd_wnd_bytes", bytes), ("retransmits", 2)]);
        assert_eq!(window(0), Some(WaitingOn::PeersWindow));
        assert_eq!(window(65_536), Some(WaitingOn::Network));
    }

    #[test]
    fn losses_are_the_networks_and_an_ack_on_its_way_the_peers() {
        let mut sent = socket();
        (sent.send_q, sent.timer) = (1000, Timer::Retransmit);
        let open = ("snd_wnd_bytes", 65_536);
        assert_eq!(of(sent, &[open]), Some(WaitingOn::Peer));
        assert_eq!(
            WaitingOn::new(&sent, None),
            None,
            "unknown without tcp_info"
        );
        for lost in [("backoff", 4), ("retransmits", 1), ("ca_state", 3)] {
            assert_eq!(
                of(sent, &[open, lost]),
                Some(WaitingOn::Network),
                "{lost:?}"
            );
        }
        sent.retransmits = 1;
        assert_eq!(WaitingOn::new(&sent, None), Some(WaitingOn::Network));
    }

    #[test]
    fn unsent_bytes_wait_for_the_window_that_is_smaller() {
        let mut bulk = socket();
        (bulk.send_q, bulk.timer) = (100_000, Timer::Retransmit);
        let window = |bytes| {
            of(
                bulk,
                &[
                    ("notsent_bytes", 60_000),
                    ("snd_mss_bytes", 1_448),
                    ("snd_wnd_bytes", bytes),
                ],
            )
        };
        assert_eq!(window(41_447), Some(WaitingOn::PeersWindow));
        assert_eq!(window(41_448), Some(WaitingOn::Network));
    }

    #[test]
    fn unanswered_keepalive_probes_are_the_networks() {
        let mut probed = socket();
        (probed.timer, probed.retransmits) = (Timer::Keepalive, 1);
        let asked = [("last_data_sent_ms", 5), ("last_data_recv_ms", 9)];
        assert_eq!(of(probed, &asked), Some(WaitingOn::Peer));
        probed.retransmits = 2;
        assert_eq!(of(probed, &asked), Some(WaitingOn::Network));
    }

    #[test]
    fn only_established_is_told_of() {
        let mut closing = socket();
        closing.state = TcpState::CloseWait;
        assert_eq!(of(closing, &[]), None);
        assert_eq!(WaitingOn::new(&socket(), None), None);
    }
}
