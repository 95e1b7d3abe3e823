//! How long the kernel lets a socket wait before it gives up, computed from this host's settings.
//!
//! Every figure is in milliseconds, and `None` where the setting behind it could not be read. Programs may set their
//! own times (`TCP_USER_TIMEOUT`, `TCP_SYNCNT`, `TCP_KEEPIDLE`, `TCP_LINGER2`), which no setting of the host shows.

use crate::model::Facts;
use crate::model::age::TIME_WAIT_MS;

/// `TCP_TIMEOUT_INIT` (`include/net/tcp.h`): the first wait for the answer to a SYN or SYN+ACK.
const FIRST_SYN_MS: u64 = 1_000;

/// `TCP_RTO_MIN` (`include/net/tcp.h`).
const RTO_MIN_MS: u64 = 200;

/// `TCP_RTO_MAX` (`include/net/tcp.h`): where doubling stops, unless `tcp_rto_max_ms` (Linux 6.15) says otherwise.
const RTO_MAX_MS: u64 = 120_000;

/// The time-out of a connection with a small round-trip time: `TCP_RTO_MIN` and a tick of 4 ms.
const SMALL_RTO_MS: u64 = 204;

/// From the FIN to its first retransmission: the loss probe comes first.
const FIRST_RETRANSMISSION_MS: u64 = 400;

/// The timer wheel (`kernel/time/timer.c`) rounds a wait up by an eighth at most; by 1/40 on average.
const SLACK: u64 = 40;

/// `tcp_orphan_retries` 0 means this many (`net/ipv4/tcp_timer.c`).
const ORPHAN_RETRIES: u64 = 8;

/// A wait that the kernel ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// a SYN that nobody answers
    SynSent,
    /// a SYN+ACK that nobody answers
    SynReceived,
    /// a FIN that nobody acknowledges, on a socket without a descriptor
    Orphan,
    /// data or a FIN that nobody acknowledges, on a socket that a program holds
    Attached,
    /// FIN-WAIT-2 without a descriptor
    OrphanFinWait2,
    /// silence on a connection with keepalive turned on
    Keepalive,
    /// TIME-WAIT
    TimeWait,
}

impl Lifetime {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SynSent,
        Self::SynReceived,
        Self::Orphan,
        Self::Attached,
        Self::OrphanFinWait2,
        Self::Keepalive,
        Self::TimeWait,
    ];

    /// The name: a placeholder `{name}` in a text, a value in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "syn-sent",
            Self::SynReceived => "syn-received",
            Self::Orphan => "orphan",
            Self::Attached => "attached",
            Self::OrphanFinWait2 => "orphan-fin-wait-2",
            Self::Keepalive => "keepalive",
            Self::TimeWait => "time-wait",
        }
    }

    /// The sysctls under `net/ipv4` that set it, the decisive one first; none where it is compiled in.
    pub const fn sysctls(self) -> &'static [&'static str] {
        match self {
            Self::SynSent => &["tcp_syn_retries", "tcp_syn_linear_timeouts"],
            Self::SynReceived => &["tcp_synack_retries"],
            Self::Orphan => &["tcp_orphan_retries"],
            Self::Attached => &["tcp_retries2"],
            Self::OrphanFinWait2 => &["tcp_fin_timeout"],
            Self::Keepalive => &[
                "tcp_keepalive_time",
                "tcp_keepalive_intvl",
                "tcp_keepalive_probes",
            ],
            Self::TimeWait => &[],
        }
    }

    /// The figure for a host, in milliseconds.
    pub fn ms(self, facts: &Facts) -> Option<u64> {
        match self {
            Self::SynSent => syn_sent_ms(facts),
            Self::SynReceived => syn_received_ms(facts),
            Self::Orphan => orphan_ms(facts),
            Self::Attached => attached_ms(facts),
            Self::OrphanFinWait2 => orphan_fin_wait_2_ms(facts),
            Self::Keepalive => keepalive_ms(facts),
            Self::TimeWait => Some(TIME_WAIT_MS),
        }
    }

    /// The figure with the settings that it comes from: `131 s (tcp_syn_retries 6, tcp_syn_linear_timeouts 4)`.
    /// Where they could not be read it names the setting, so that a sentence around it still holds.
    pub fn words(self, facts: &Facts) -> String {
        let Some(ms) = self.ms(facts) else {
            let decisive = self.sysctls().first().copied().unwrap_or("the kernel");
            return format!("the time that {decisive} sets (not readable here)");
        };
        let set: Vec<String> = self
            .sysctls()
            .iter()
            .filter_map(|name| Some(format!("{name} {}", setting(facts, name)?)))
            .collect();
        if set.is_empty() {
            in_words(ms)
        } else {
            format!("{} ({})", in_words(ms), set.join(", "))
        }
    }
}

/// A time for a sentence: `400 ms`, `107 s`, `15 min`, `2 h 11 min`.
pub fn in_words(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..=999 => format!("{seconds} s"),
        _ => {
            let minutes = seconds.saturating_add(30) / 60;
            match (minutes / 60, minutes % 60) {
                (0, minutes) => format!("{minutes} min"),
                (hours, 0) => format!("{hours} h"),
                (hours, minutes) => format!("{hours} h {minutes} min"),
            }
        }
    }
}

fn setting(facts: &Facts, name: &str) -> Option<u64> {
    let value = facts.sysctl(&format!("net/ipv4/{name}"))?;
    u64::try_from(value).ok()
}

/// The kernel keeps counts of retries in one byte.
fn retries(facts: &Facts, name: &str) -> Option<u64> {
    setting(facts, name).map(|count| count.min(255))
}

fn rto_max_ms(facts: &Facts) -> u64 {
    setting(facts, "tcp_rto_max_ms")
        .unwrap_or(RTO_MAX_MS)
        .clamp(1_000, RTO_MAX_MS)
}

/// The waits of 1, 2, 4 ... s after a segment and each of its `retries`.
fn doubling_ms(retries: u64, max_ms: u64) -> u64 {
    (0..=retries)
        .map(|n| (FIRST_SYN_MS << n.min(16)).min(max_ms))
        .sum()
}

/// How long the kernel takes `retries` to last at the smallest time-out (`tcp_model_timeout` in
/// `net/ipv4/tcp_timer.c`). It gives up at the first time-out after this.
fn model_ms(retries: u64, max_ms: u64) -> u64 {
    let doublings = u64::from((max_ms / RTO_MIN_MS).max(1).ilog2());
    let doubled = ((2u64 << retries.min(doublings)) - 1) * RTO_MIN_MS;
    doubled + retries.saturating_sub(doublings) * max_ms
}

/// SYN-SENT that meets silence: `tcp_syn_retries`, and since Linux 6.5 `tcp_syn_linear_timeouts` waits of a second
/// before them. 131 s by default, 127 s before 6.5.
pub fn syn_sent_ms(facts: &Facts) -> Option<u64> {
    let linear = retries(facts, "tcp_syn_linear_timeouts").unwrap_or(0);
    let doubled = doubling_ms(retries(facts, "tcp_syn_retries")?, rto_max_ms(facts));
    Some(doubled + linear * FIRST_SYN_MS)
}

/// SYN-RECEIVED whose client stays silent: `tcp_synack_retries`, 63 s by default. A crowded queue drops it sooner.
pub fn syn_received_ms(facts: &Facts) -> Option<u64> {
    Some(doubling_ms(
        retries(facts, "tcp_synack_retries")?,
        rto_max_ms(facts),
    ))
}

/// FIN-WAIT-1, CLOSING and LAST-ACK without a descriptor, at a small round-trip time: `tcp_orphan_retries`. About
/// 107 s by default; a peer that answers every probe with a closed window holds them longer.
pub fn orphan_ms(facts: &Facts) -> Option<u64> {
    let retries = match retries(facts, "tcp_orphan_retries")? {
        0 => ORPHAN_RETRIES,
        set => set,
    };
    let max_ms = rto_max_ms(facts);
    let bound = model_ms(retries, max_ms);
    let mut rto = SMALL_RTO_MS;
    let mut waited = 0;
    while waited < bound {
        rto = (rto * 2).min(max_ms);
        waited += rto + rto / SLACK;
    }
    Some(FIRST_RETRANSMISSION_MS + waited)
}

/// Unacknowledged data, or a FIN, of a socket that a program holds: `tcp_retries2`. By default not before 924 s, the
/// kernel's own figure; it gives up at the first time-out after it.
pub fn attached_ms(facts: &Facts) -> Option<u64> {
    Some(model_ms(retries(facts, "tcp_retries2")?, rto_max_ms(facts)))
}

/// FIN-WAIT-2 without a descriptor: `tcp_fin_timeout` T, if it is at most 60 s. Above, the kernel holds a full
/// socket for T - 60 s and then a record for T - 60 s (`tcp_rcv_state_process` and `tcp_time_wait` in `net/ipv4`).
pub fn orphan_fin_wait_2_ms(facts: &Facts) -> Option<u64> {
    let timeout = setting(facts, "tcp_fin_timeout")?.saturating_mul(1000);
    Some(if timeout <= TIME_WAIT_MS {
        timeout
    } else {
        (timeout - TIME_WAIT_MS).saturating_mul(2)
    })
}

/// From the last sign of life to the end, with keepalive turned on and no time of the program's own.
pub fn keepalive_ms(facts: &Facts) -> Option<u64> {
    let idle = setting(facts, "tcp_keepalive_time")?;
    let interval = setting(facts, "tcp_keepalive_intvl")?;
    let probes = retries(facts, "tcp_keepalive_probes")?;
    let seconds = idle.saturating_add(interval.saturating_mul(probes));
    Some(seconds.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(settings: &[(&str, &str)]) -> Facts {
        let mut facts = Facts::default();
        for (name, value) in settings {
            let path = format!("net/ipv4/{name}");
            facts.sysctls.insert(path, (*value).into());
        }
        facts
    }

    #[test]
    fn a_syn_that_nobody_answers_lasts_131_s_and_127_s_before_linux_6_5() {
        let default = &[("tcp_syn_retries", "6"), ("tcp_syn_linear_timeouts", "4")];
        assert_eq!(syn_sent_ms(&facts(default)), Some(131_000));
        assert_eq!(syn_sent_ms(&facts(&default[..1])), Some(127_000));
        assert_eq!(
            syn_sent_ms(&facts(&[("tcp_syn_retries", "1")])),
            Some(3_000)
        );
        assert_eq!(
            syn_sent_ms(&facts(&[("tcp_syn_retries", "8")])),
            Some(367_000),
            "127 s, then 120 s each: doubling stops there"
        );
        assert_eq!(syn_sent_ms(&facts(&default[1..])), None);
    }

    #[test]
    fn a_syn_ack_that_nobody_answers_lasts_63_s() {
        let with = |n| syn_received_ms(&facts(&[("tcp_synack_retries", n)]));
        assert_eq!(with("5"), Some(63_000));
        assert_eq!(with("2"), Some(7_000));
    }

    #[test]
    fn an_orphaned_fin_lasts_about_107_s_and_0_retries_mean_8() {
        let with = |n| orphan_ms(&facts(&[("tcp_orphan_retries", n)]));
        let default = with("0").unwrap();
        assert!((106_500..107_500).contains(&default), "{default}");
        assert_eq!(with("8"), Some(default));
        assert!(with("7").unwrap() < 60_000);
        assert!(with("1").unwrap() < 3_000);
    }

    #[test]
    fn a_held_socket_retransmits_for_924_s() {
        let with = |n| attached_ms(&facts(&[("tcp_retries2", n)]));
        assert_eq!(with("15"), Some(924_600));
        assert_eq!(with("8"), Some(102_200));
        assert_eq!(with("0"), Some(200));
        let lower_cap = facts(&[("tcp_retries2", "15"), ("tcp_rto_max_ms", "10000")]);
        assert_eq!(
            attached_ms(&lower_cap),
            Some(12_600 + 10 * 10_000),
            "5 doublings to 6.4 s, then 10 s each"
        );
    }

    #[test]
    fn fin_timeout_is_what_it_says_up_to_60_s_only() {
        let with = |n| orphan_fin_wait_2_ms(&facts(&[("tcp_fin_timeout", n)]));
        assert_eq!(with("10"), Some(10_000));
        assert_eq!(with("60"), Some(60_000));
        assert_eq!(with("61"), Some(2_000));
        assert_eq!(with("65"), Some(10_000));
        assert_eq!(with("120"), Some(120_000));
        assert_eq!(with("300"), Some(480_000));
    }

    #[test]
    fn keepalive_is_idle_time_and_all_probes() {
        let default = facts(&[
            ("tcp_keepalive_time", "7200"),
            ("tcp_keepalive_intvl", "75"),
            ("tcp_keepalive_probes", "9"),
        ]);
        assert_eq!(keepalive_ms(&default), Some(7_875_000));
        assert_eq!(
            Lifetime::Keepalive.words(&default),
            "2 h 11 min (tcp_keepalive_time 7200, tcp_keepalive_intvl 75, tcp_keepalive_probes 9)"
        );
    }

    #[test]
    fn what_cannot_be_read_is_unknown_and_the_sentence_still_holds() {
        for lifetime in Lifetime::ALL {
            let unknown = lifetime.ms(&Facts::default()).is_none();
            assert_eq!(unknown, lifetime != Lifetime::TimeWait, "{lifetime:?}");
        }
        assert_eq!(
            Lifetime::SynSent.words(&Facts::default()),
            "the time that tcp_syn_retries sets (not readable here)"
        );
        assert_eq!(
            Lifetime::SynSent.words(&facts(&[("tcp_syn_retries", "6")])),
            "127 s (tcp_syn_retries 6)"
        );
        assert_eq!(Lifetime::TimeWait.words(&Facts::default()), "60 s");
    }

    #[test]
    fn no_setting_is_too_large_or_too_small() {
        for value in ["-1", "0", "9223372036854775807", "x"] {
            for lifetime in Lifetime::ALL {
                let mut facts = Facts::default();
                for name in lifetime.sysctls().iter().chain(&["tcp_rto_max_ms"]) {
                    let path = format!("net/ipv4/{name}");
                    facts.sysctls.insert(path, value.into());
                }
                let _words = lifetime.words(&facts);
            }
        }
    }

    #[test]
    fn times_read_like_a_person_says_them() {
        let table: &[(u64, &str)] = &[
            (400, "400 ms"),
            (2_000, "2 s"),
            (107_041, "107 s"),
            (924_600, "924 s"),
            (1_800_000, "30 min"),
            (7_200_000, "2 h"),
            (7_875_000, "2 h 11 min"),
        ];
        for (ms, words) in table {
            assert_eq!(in_words(*ms), *words);
        }
    }
}
