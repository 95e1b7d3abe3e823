//! For how long a socket has been in its state, from one look at it.
//!
//! The kernel stores no "since when"; timers and the stamps of `tcp_info` give it away, each in its own way and some
//! of them only within bounds. Nothing here reads a clock.

use super::host::Facts;
use super::socket::{Socket, Timer};
use super::state::TcpState;
use super::tcp_info::TcpInfo;

/// `TCP_TIMEWAIT_LEN` (`include/net/tcp.h`): compiled in, no sysctl changes it.
pub const TIME_WAIT_MS: u64 = 60_000;

/// A time in a state. The bounds are equal where one look is enough to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// not less than this, milliseconds
    pub low_ms: u64,
    /// not more than this, milliseconds; `None` where nothing bounds it
    pub high_ms: Option<u64>,
}

impl Age {
    /// An age that is known.
    pub const fn exactly(ms: u64) -> Self {
        Self {
            low_ms: ms,
            high_ms: Some(ms),
        }
    }

    /// An age known from below.
    pub const fn at_least(ms: u64) -> Self {
        Self {
            low_ms: ms,
            high_ms: None,
        }
    }

    /// An age between two bounds, in either order.
    pub fn between(a: u64, b: u64) -> Self {
        Self {
            low_ms: a.min(b),
            high_ms: Some(a.max(b)),
        }
    }

    /// Whether one look told it.
    pub fn is_exact(&self) -> bool {
        self.high_ms == Some(self.low_ms)
    }
}

/// The host's settings that ages depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct AgeFacts {
    /// `tcp_fin_timeout`, milliseconds
    pub fin_timeout_ms: Option<u64>,
    /// `tcp_syn_linear_timeouts` (Linux 6.5); absent before, when every SYN doubled the time-out
    pub syn_linear_timeouts: Option<u32>,
}

impl AgeFacts {
    /// Takes the settings from a host's facts.
    pub fn new(facts: &Facts) -> Self {
        Self {
            fin_timeout_ms: facts
                .sysctl("net/ipv4/tcp_fin_timeout")
                .and_then(|s| u64::try_from(s).ok())
                .map(|s| s.saturating_mul(1000)),
            syn_linear_timeouts: facts
                .sysctl("net/ipv4/tcp_syn_linear_timeouts")
                .and_then(|n| u32::try_from(n).ok()),
        }
    }

    /// For how long `socket` has been in its state; `None` where nothing tells.
    pub fn in_state(&self, socket: &Socket, info: Option<&TcpInfo>) -> Option<Age> {
        let expires = u64::from(socket.timer_ms);
        match socket.state {
            TcpState::TimeWait if socket.timer == Timer::TimeWait => {
                Some(Age::exactly(TIME_WAIT_MS.saturating_sub(expires)))
            }
            TcpState::FinWait2 if socket.inode == 0 => self.orphan_fin_wait_2(socket),
            TcpState::FinWait2 => info.map(fin_wait_2),
            TcpState::CloseWait => info.map(|info| close_wait(socket, info)),
            TcpState::FinWait1 | TcpState::LastAck | TcpState::Closing => {
                info.and_then(|info| unanswered(socket, info))
            }
            TcpState::SynSent => info.and_then(|info| self.syn_sent(socket, info)),
            TcpState::SynReceived | TcpState::NewSynReceived => syn_received(socket),
            // Both stamps start with the connection; nothing says when it was.
            TcpState::Established => info.map(|info| {
                Age::at_least(u64::from(
                    info.last_data_sent_ms.max(info.last_data_recv_ms),
                ))
            }),
            _ => None,
        }
    }

    /// An orphan lives `tcp_fin_timeout` T as a mini-socket if T is at most 60 s. Above, the kernel keeps the full
    /// socket for T - 60 s under the keepalive timer and then a mini-socket for another T - 60 s.
    fn orphan_fin_wait_2(&self, socket: &Socket) -> Option<Age> {
        let timeout = self.fin_timeout_ms?;
        let expires = u64::from(socket.timer_ms);
        let over = timeout.saturating_sub(TIME_WAIT_MS);
        let total = match socket.timer {
            Timer::TimeWait if over == 0 => timeout,
            Timer::TimeWait => over.saturating_mul(2),
            Timer::Keepalive => over,
            _ => return None,
        };
        Some(Age::exactly(total.saturating_sub(expires)))
    }

    fn syn_sent(&self, socket: &Socket, info: &TcpInfo) -> Option<Age> {
        if info.retransmits > 0
            && let Some(ms) = info.total_rto_time_ms()
        {
            // The first time-out of a second has passed before the episode that is counted begins.
            return Some(Age::exactly(u64::from(ms) + 1000));
        }
        let linear = self.syn_linear_timeouts.unwrap_or(0);
        let wait_ms = |n: u32| 1000u64 << n.saturating_sub(linear).min(16);
        let tries = u32::from(info.retransmits);
        let past: u64 = (0..tries).map(wait_ms).sum();
        Some(Age::exactly(
            past + wait_ms(tries).saturating_sub(u64::from(socket.timer_ms)),
        ))
    }
}

/// The FIN carried an ACK and so stamped `last_ack_recv`. Answered keepalive probes, and acknowledgements of what
/// we still send, stamp it again; then the last data bounds the age from above.
fn close_wait(socket: &Socket, info: &TcpInfo) -> Age {
    let last_ack = u64::from(info.last_ack_recv_ms);
    if socket.timer == Timer::None && socket.send_q == 0 {
        Age::exactly(last_ack)
    } else {
        Age::between(last_ack, u64::from(info.last_data_recv_ms))
    }
}

/// The ACK of our FIN stamped `last_ack_recv`; data from the peer and answered probes stamp it again. We sent no
/// data after our FIN, so `last_data_sent` bounds the age from above.
fn fin_wait_2(info: &TcpInfo) -> Age {
    Age::between(
        u64::from(info.last_ack_recv_ms),
        u64::from(info.last_data_sent_ms),
    )
}

/// FIN-WAIT-1, CLOSING, LAST-ACK: the retransmission timer has been running since the FIN (or the data before it).
fn unanswered(socket: &Socket, info: &TcpInfo) -> Option<Age> {
    if socket.timer != Timer::Retransmit {
        return (socket.state != TcpState::Closing).then(|| Age {
            low_ms: 0,
            high_ms: Some(u64::from(info.last_ack_recv_ms)),
        });
    }
    if info.retransmits > 0
        && info.total_rto_recoveries() == Some(1)
        && let Some(ms) = info.total_rto_time_ms()
    {
        // Loss probe and first time-out come before the episode that is counted.
        return Some(Age::exactly(u64::from(ms) + 400));
    }
    let rto_ms = u64::from(info.rto_us) / 1000;
    let doublings = u32::from(info.backoff).min(16);
    let first = rto_ms >> doublings;
    let past = first * ((1u64 << doublings) - 1);
    Some(Age::exactly(
        past + rto_ms.saturating_sub(u64::from(socket.timer_ms)),
    ))
}

/// With a silent peer the SYN-ACK goes out again after 1, 2, 4 ... seconds. A peer that repeats its SYN makes the
/// count, and so the age, too high.
fn syn_received(socket: &Socket) -> Option<Age> {
    let tries = u32::from(socket.retransmits);
    if tries > 6 {
        return None;
    }
    let wait_ms = 1000u64 << tries;
    Some(Age::exactly(
        wait_ms - 1000 + wait_ms.saturating_sub(u64::from(socket.timer_ms)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::socket::{Endpoint, Family, Protocol};

    fn socket(state: TcpState, timer: Timer, timer_ms: u32, inode: u32) -> Socket {
        Socket {
            cookie: None,
            local: Endpoint::v4([10, 0, 0, 1], 1),
            remote: Endpoint::v4([10, 0, 0, 2], 2),
            inode,
            uid: 0,
            recv_q: 0,
            send_q: 0,
            timer_ms,
            ifindex: 0,
            info: None,
            netns: 0,
            retransmits: 0,
            timer,
            state,
            protocol: Protocol::Tcp,
            family: Family::Ipv4,
        }
    }

    fn info(length: usize, set: &[(usize, u32)]) -> TcpInfo {
        let mut raw = vec![0u8; length];
        for (at, value) in set {
            raw[*at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        TcpInfo::parse(&raw).unwrap()
    }

    const LAST_ACK: usize = 56;
    const LAST_DATA: usize = 52;
    const LAST_SENT: usize = 44;

    fn facts(fin_timeout_s: u64) -> AgeFacts {
        AgeFacts {
            fin_timeout_ms: Some(fin_timeout_s * 1000),
            syn_linear_timeouts: Some(4),
        }
    }

    // The figures are measurements of real sockets on Linux 6.18: a true age, and the fields that the kernel showed.

    #[test]
    fn close_wait_dates_from_the_fin() {
        let age = facts(60).in_state(
            &socket(TcpState::CloseWait, Timer::None, 0, 9),
            Some(&info(280, &[(LAST_ACK, 20_532), (LAST_DATA, 25_532)])),
        );
        assert_eq!(age, Some(Age::exactly(20_532)));
    }

    #[test]
    fn keepalive_leaves_only_bounds_in_close_wait() {
        let age = facts(60)
            .in_state(
                &socket(TcpState::CloseWait, Timer::Keepalive, 5, 9),
                Some(&info(280, &[(LAST_ACK, 6_900), (LAST_DATA, 63_100)])),
            )
            .unwrap();
        assert_eq!(age, Age::between(6_900, 63_100));
        assert!(!age.is_exact());
    }

    #[test]
    fn time_wait_counts_down_from_sixty_seconds_whatever_fin_timeout_says() {
        let age = |expires, timeout| {
            facts(timeout).in_state(
                &socket(TcpState::TimeWait, Timer::TimeWait, expires, 0),
                None,
            )
        };
        assert_eq!(age(39_736, 60), Some(Age::exactly(20_264)));
        assert_eq!(age(39_644, 5), Some(Age::exactly(20_356)));
        assert_eq!(age(0, 60), Some(Age::exactly(60_000)));
        assert_eq!(
            age(67_000, 60),
            Some(Age::exactly(0)),
            "timer slack never underflows"
        );
    }

    #[test]
    fn orphaned_fin_wait_2_follows_fin_timeout() {
        let age = |timer, expires, timeout| {
            facts(timeout).in_state(&socket(TcpState::FinWait2, timer, expires, 0), None)
        };
        assert_eq!(age(Timer::TimeWait, 39_680, 60), Some(Age::exactly(20_320)));
        assert_eq!(age(Timer::TimeWait, 1_850, 10), Some(Age::exactly(8_150)));
        assert_eq!(
            age(Timer::Keepalive, 10_000, 90),
            Some(Age::exactly(20_000))
        );
        assert_eq!(age(Timer::TimeWait, 10_000, 90), Some(Age::exactly(50_000)));
        let unknown =
            AgeFacts::default().in_state(&socket(TcpState::FinWait2, Timer::TimeWait, 1, 0), None);
        assert_eq!(unknown, None, "without tcp_fin_timeout nothing tells");
    }

    #[test]
    fn attached_fin_wait_2_dates_from_the_ack_of_our_fin() {
        let age = facts(60).in_state(
            &socket(TcpState::FinWait2, Timer::None, 0, 9),
            Some(&info(280, &[(LAST_ACK, 140_072), (LAST_SENT, 140_130)])),
        );
        assert_eq!(age, Some(Age::between(140_072, 140_130)));
    }

    #[test]
    fn unanswered_fin_is_dated_by_the_time_out_episode_or_by_the_back_off() {
        let mut raw = vec![0u8; 280];
        raw[2] = 8;
        raw[4] = 8;
        raw[8..12].copy_from_slice(&52_224_000u32.to_ne_bytes());
        raw[242..244].copy_from_slice(&1u16.to_ne_bytes());
        raw[244..248].copy_from_slice(&90_050u32.to_ne_bytes());
        let last_ack = socket(TcpState::LastAck, Timer::Retransmit, 16_000, 0);
        let age = facts(60).in_state(&last_ack, TcpInfo::parse(&raw).as_ref());
        assert_eq!(age, Some(Age::exactly(90_450)));
        let old_kernel = facts(60)
            .in_state(&last_ack, TcpInfo::parse(&raw[..232]).as_ref())
            .unwrap();
        assert_eq!(
            old_kernel,
            Age::exactly(204 * 255 + 52_224 - 16_000),
            "back-off sum"
        );
    }

    #[test]
    fn syn_sent_is_dated_by_its_retries_because_its_stamps_are_not_set() {
        let mut raw = vec![0u8; 280];
        raw[2] = 6;
        raw[244..248].copy_from_slice(&109_100u32.to_ne_bytes());
        let syn_sent = socket(TcpState::SynSent, Timer::Retransmit, 500, 9);
        assert_eq!(
            facts(60).in_state(&syn_sent, TcpInfo::parse(&raw).as_ref()),
            Some(Age::exactly(110_100))
        );
        // five waits of a second, then 2 s; the seventh try waits 4 s of which 0.5 s are left
        let short = TcpInfo::parse(&raw[..232]).unwrap();
        assert_eq!(
            facts(60).in_state(&syn_sent, Some(&short)),
            Some(Age::exactly(7_000 + 3_500))
        );
        let before_6_5 = AgeFacts {
            fin_timeout_ms: None,
            syn_linear_timeouts: None,
        };
        assert_eq!(
            before_6_5.in_state(&syn_sent, Some(&short)),
            Some(Age::exactly(63_000 + 63_500))
        );
    }

    #[test]
    fn syn_received_follows_the_syn_acks() {
        let mut row = socket(TcpState::SynReceived, Timer::Retransmit, 1_592, 0);
        row.retransmits = 1;
        assert_eq!(facts(60).in_state(&row, None), Some(Age::exactly(1_408)));
        row.retransmits = 14;
        assert_eq!(
            facts(60).in_state(&row, None),
            None,
            "a client that repeats its SYN makes the count useless"
        );
    }

    #[test]
    fn established_is_known_from_below_only() {
        let age = facts(60).in_state(
            &socket(TcpState::Established, Timer::None, 0, 9),
            Some(&info(280, &[(LAST_SENT, 10), (LAST_DATA, 5_000)])),
        );
        assert_eq!(age, Some(Age::at_least(5_000)));
        assert_eq!(
            facts(60).in_state(&socket(TcpState::Listen, Timer::None, 0, 9), None),
            None
        );
    }
}
