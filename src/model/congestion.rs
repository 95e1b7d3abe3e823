//! What a congestion control says of itself: `INET_DIAG_VEGASINFO`, `INET_DIAG_DCTCPINFO` and `INET_DIAG_BBRINFO`
//! (`include/uapi/linux/inet_diag.h`).

/// BBR's model of the path (`struct tcp_bbr_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bbr {
    /// the largest delivery rate of late, bytes per second
    pub bw_bytes_per_s: u64,
    /// the smallest round-trip time of late, microseconds
    pub min_rtt_us: u32,
    /// the pacing rate is this many 256ths of the bandwidth
    pub pacing_gain: u32,
    /// the congestion window is this many 256ths of bandwidth times round-trip time
    pub cwnd_gain: u32,
}

/// What TCP Vegas has measured (`struct tcpvegas_info`); Veno, Illinois and others use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vegas {
    /// whether it governs the window now, and does not leave that to Reno
    pub enabled: bool,
    /// round trips measured since the last look at them
    pub rttcnt: u32,
    /// the round-trip time, microseconds
    pub rtt_us: u32,
    /// the smallest round-trip time, microseconds; `u32::MAX` and 0x7fffffff are none yet
    pub min_rtt_us: u32,
}

/// The congestion that DCTCP sees (`struct tcp_dctcp_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dctcp {
    /// whether the peer took part, so that it does not fall back to Reno
    pub enabled: bool,
    /// whether the last segment received met congestion
    pub ce_state: u16,
    /// the share of marked bytes as a moving average, in 1024ths
    pub alpha: u32,
    /// bytes acknowledged as marked in this window
    pub ab_ecn_bytes: u32,
    /// bytes acknowledged in this window
    pub ab_tot_bytes: u32,
}

/// The congestion control's own info.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CongestionInfo {
    /// `INET_DIAG_BBRINFO`
    Bbr(Bbr),
    /// `INET_DIAG_VEGASINFO`
    Vegas(Vegas),
    /// `INET_DIAG_DCTCPINFO`
    Dctcp(Dctcp),
}

fn words<const N: usize>(bytes: &[u8]) -> Option<[u32; N]> {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.get(..4 * N)?.chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().ok()?);
    }
    Some(words)
}

impl Bbr {
    /// Reads the attribute; `None` if it is too short.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [low, high, min_rtt_us, pacing_gain, cwnd_gain] = words(bytes)?;
        Some(Self {
            bw_bytes_per_s: u64::from(high) << 32 | u64::from(low),
            min_rtt_us,
            pacing_gain,
            cwnd_gain,
        })
    }
}

impl Vegas {
    /// Reads the attribute; `None` if it is too short.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [enabled, rttcnt, rtt_us, min_rtt_us] = words(bytes)?;
        Some(Self {
            enabled: enabled != 0,
            rttcnt,
            rtt_us,
            min_rtt_us,
        })
    }

    /// The smallest round-trip time, once there is one.
    pub fn min_rtt_us(&self) -> Option<u32> {
        (self.min_rtt_us < 0x7fff_ffff).then_some(self.min_rtt_us)
    }
}

impl Dctcp {
    /// Reads the attribute; `None` if it is too short.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        // Two numbers of 16 bits, then three of 32.
        let (enabled, rest) = bytes.split_first_chunk()?;
        let (ce_state, rest) = rest.split_first_chunk()?;
        let [alpha, ab_ecn_bytes, ab_tot_bytes] = words(rest)?;
        Some(Self {
            enabled: u16::from_ne_bytes(*enabled) != 0,
            ce_state: u16::from_ne_bytes(*ce_state),
            alpha,
            ab_ecn_bytes,
            ab_tot_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn members_lie_where_the_header_has_them() {
        let raw = bytes(&[7, 1, 22, 739, 512]);
        let bbr = Bbr::parse(&raw).unwrap();
        assert_eq!(bbr.bw_bytes_per_s, (1 << 32) + 7);
        assert_eq!(
            (bbr.min_rtt_us, bbr.pacing_gain, bbr.cwnd_gain),
            (22, 739, 512)
        );
        assert_eq!(Bbr::parse(&raw[..19]), None);

        let raw = bytes(&[1, 3, 500, 400]);
        let vegas = Vegas::parse(&raw).unwrap();
        assert!(vegas.enabled);
        assert_eq!((vegas.rttcnt, vegas.rtt_us), (3, 500));
        assert_eq!(vegas.min_rtt_us(), Some(400));
        assert_eq!(Vegas::parse(&raw[..15]), None);
        let none = Vegas::parse(&bytes(&[0, 0, 0, 0x7fff_ffff])).unwrap();
        assert_eq!(none.min_rtt_us(), None);

        let mut raw = [1u16.to_ne_bytes(), 2u16.to_ne_bytes()].concat();
        raw.extend(bytes(&[1024, 3, 4]));
        let dctcp = Dctcp::parse(&raw).unwrap();
        assert_eq!(
            dctcp,
            Dctcp {
                enabled: true,
                ce_state: 2,
                alpha: 1024,
                ab_ecn_bytes: 3,
                ab_tot_bytes: 4
            }
        );
        assert_eq!(Dctcp::parse(&raw[..15]), None);
    }
}
