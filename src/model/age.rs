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

/// `TCP_RTO_MIN` (`include/net/tcp.h`): a retransmission time-out begins with this at least.
const RTO_MIN_MS: u64 = 200;

/// `TCP_RTO_MAX` (`include/net/tcp.h`): and ends with this.
const RTO_MAX_MS: u64 = 120_000;

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

/// The sysctls that [`AgeFacts`] are made of, by their path under `/proc/sys`.
pub const AGE_SYSCTLS: [&str; 3] = [
    "net/ipv4/tcp_fin_timeout",
    "net/ipv4/tcp_syn_linear_timeouts",
    "net/ipv4/tcp_syn_retries",
];

/// The host's settings that ages depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct AgeFacts {
    /// `tcp_fin_timeout`, milliseconds
    pub fin_timeout_ms: Option<u64>,
    /// `tcp_syn_linear_timeouts` (Linux 6.5), 0 before, when every SYN doubled the time-out; `None` where it could not
    /// be read
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
            // Absent beside a neighbour that every kernel has: the kernel is older. Both absent: nothing was read.
            syn_linear_timeouts: facts
                .sysctl("net/ipv4/tcp_syn_linear_timeouts")
                .or_else(|| facts.sysctl("net/ipv4/tcp_syn_retries").map(|_| 0))
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
            TcpState::FinWait2 => info.map(|info| fin_wait_2(socket, info)),
            TcpState::CloseWait => info.map(|info| close_wait(socket, info)),
            TcpState::FinWait1 | TcpState::LastAck | TcpState::Closing => {
                info.and_then(|info| unanswered(socket, info))
            }
            TcpState::SynSent => Some(self.syn_sent(socket, info)),
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

    /// By the time-outs that have passed. A row of `/proc` tells their number too.
    fn syn_sent(&self, socket: &Socket, info: Option<&TcpInfo>) -> Age {
        let tries = info.map_or(socket.retransmits, |info| info.retransmits);
        if tries > 0
            && let Some(ms) = info.and_then(TcpInfo::total_rto_time_ms)
        {
            // The first time-out of a second has passed before the episode that is counted begins.
            return Age::exactly(u64::from(ms) + 1000);
        }
        let since = |linear: u32| {
            let wait_ms = |n: u32| (1000u64 << n.saturating_sub(linear).min(7)).min(RTO_MAX_MS);
            let past: u64 = (0..u32::from(tries)).map(wait_ms).sum();
            past + wait_ms(u32::from(tries)).saturating_sub(u64::from(socket.timer_ms))
        };
        match self.syn_linear_timeouts {
            Some(linear) => Age::exactly(since(linear)),
            None => Age::between(since(u32::MAX), since(0)),
        }
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
/// data after our FIN, so `last_data_sent` bounds the age from above. Without keepalive, and with the last data from
/// before the last ACK, that ACK was the one of our FIN.
fn fin_wait_2(socket: &Socket, info: &TcpInfo) -> Age {
    let last_ack = u64::from(info.last_ack_recv_ms);
    if socket.timer == Timer::None && info.last_data_recv_ms > info.last_ack_recv_ms {
        return Age::exactly(last_ack);
    }
    Age::between(last_ack, u64::from(info.last_data_sent_ms))
}

/// FIN-WAIT-1, CLOSING, LAST-ACK, or a connection with unanswered data: the retransmission timer has been running since the FIN (or the data before it).
pub fn unanswered(socket: &Socket, info: &TcpInfo) -> Option<Age> {
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
    if first < RTO_MIN_MS && rto_ms >= RTO_MAX_MS {
        // The time-out has met its ceiling and doubles no more: where it began is not known, but not below the
        // kernel's least.
        let past: u64 = (0..doublings).map(|n| (RTO_MIN_MS << n).min(rto_ms)).sum();
        return Some(Age::at_least(
            past + rto_ms.saturating_sub(u64::from(socket.timer_ms)),
        ));
    }
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
    use crate::model::{Endpoint, Family, Protocol};

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
        let silent = info(
            280,
            &[
                (LAST_ACK, 140_072),
                (LAST_SENT, 150_000),
                (LAST_DATA, 150_000),
            ],
        );
        let age =
            |timer| facts(60).in_state(&socket(TcpState::FinWait2, timer, 0, 9), Some(&silent));
        assert_eq!(age(Timer::None), Some(Age::exactly(140_072)));
        assert_eq!(age(Timer::Keepalive), Some(Age::between(140_072, 150_000)));
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
            syn_linear_timeouts: Some(0),
        };
        assert_eq!(
            before_6_5.in_state(&syn_sent, Some(&short)),
            Some(Age::exactly(63_000 + 63_500))
        );
        // /proc shows the tries too; without any sysctl the age lies between the two ways of waiting
        let mut of_proc = syn_sent;
        of_proc.retransmits = 6;
        assert_eq!(
            facts(60).in_state(&of_proc, None),
            Some(Age::exactly(7_000 + 3_500))
        );
        assert_eq!(
            AgeFacts::default().in_state(&of_proc, None),
            Some(Age::between(6_500, 126_500))
        );
    }

    #[test]
    fn an_absent_sysctl_is_an_old_kernel_only_beside_one_that_is_there() {
        let mut facts = Facts::default();
        assert_eq!(AgeFacts::new(&facts).syn_linear_timeouts, None);
        let retries = "net/ipv4/tcp_syn_retries";
        facts.sysctls.insert(retries.into(), "6".into());
        assert_eq!(AgeFacts::new(&facts).syn_linear_timeouts, Some(0));
    }

    #[test]
    fn a_time_out_at_its_ceiling_is_known_from_below() {
        let mut raw = vec![0u8; 104];
        raw[4] = 14;
        raw[8..12].copy_from_slice(&120_000_000u32.to_ne_bytes());
        let row = socket(TcpState::LastAck, Timer::Retransmit, 120_000, 9);
        // 0.2 + 0.4 + ... + 102.4 s, then four of 120 s
        assert_eq!(
            facts(60).in_state(&row, TcpInfo::parse(&raw).as_ref()),
            Some(Age::at_least(200 * 1023 + 4 * 120_000))
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
