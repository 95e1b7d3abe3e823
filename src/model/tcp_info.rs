//! `struct tcp_info` (`include/uapi/linux/tcp.h`): every member by name, read by the length that the kernel sent.
//!
//! The kernel appends members and does not move them (once it did, see `accecn`), so what lies past the received length
//! is *unknown*, not 0.

/// A member of `struct tcp_info`.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// the uapi name without `tcpi_`, with its unit (`rtt_us`)
    pub key: &'static str,
    offset: u16,
    kind: Kind,
}

/// The type of a member.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    U8,
    /// some bits of a byte: shift and width, as little-endian compilers lay bit-fields out
    Bits(u8, u8),
    U16,
    U32,
    U64,
}

impl Kind {
    const fn size(self) -> u16 {
        match self {
            Self::U8 | Self::Bits(..) => 1,
            Self::U16 => 2,
            Self::U32 => 4,
            Self::U64 => 8,
        }
    }
}

pub(super) const fn member(key: &'static str, offset: u16, kind: Kind) -> Member {
    Member { key, offset, kind }
}

use Kind::{Bits, U8, U16, U32, U64};

/// Every member, in the kernel's order.
pub const MEMBERS: &[Member] = &[
    member("state", 0, U8),
    member("ca_state", 1, U8),
    member("retransmits", 2, U8),
    member("probes", 3, U8),
    member("backoff", 4, U8),
    member("options", 5, U8),
    member("snd_wscale", 6, Bits(0, 4)),
    member("rcv_wscale", 6, Bits(4, 4)),
    member("delivery_rate_app_limited", 7, Bits(0, 1)),
    member("fastopen_client_fail", 7, Bits(1, 2)),
    member("rto_us", 8, U32),
    member("ato_us", 12, U32),
    member("snd_mss_bytes", 16, U32),
    member("rcv_mss_bytes", 20, U32),
    member("unacked", 24, U32),
    member("sacked", 28, U32),
    member("lost", 32, U32),
    member("retrans", 36, U32),
    member("fackets", 40, U32),
    member("last_data_sent_ms", 44, U32),
    member("last_ack_sent_ms", 48, U32),
    member("last_data_recv_ms", 52, U32),
    member("last_ack_recv_ms", 56, U32),
    member("pmtu_bytes", 60, U32),
    member("rcv_ssthresh_bytes", 64, U32),
    member("rtt_us", 68, U32),
    member("rttvar_us", 72, U32),
    member("snd_ssthresh", 76, U32),
    member("snd_cwnd", 80, U32),
    member("advmss_bytes", 84, U32),
    member("reordering", 88, U32),
    member("rcv_rtt_us", 92, U32),
    member("rcv_space_bytes", 96, U32),
    member("total_retrans", 100, U32),
    member("pacing_rate_bytes_per_s", 104, U64),
    member("max_pacing_rate_bytes_per_s", 112, U64),
    member("bytes_acked", 120, U64),
    member("bytes_received", 128, U64),
    member("segs_out", 136, U32),
    member("segs_in", 140, U32),
    member("notsent_bytes", 144, U32),
    member("min_rtt_us", 148, U32),
    member("data_segs_in", 152, U32),
    member("data_segs_out", 156, U32),
    member("delivery_rate_bytes_per_s", 160, U64),
    member("busy_time_us", 168, U64),
    member("rwnd_limited_us", 176, U64),
    member("sndbuf_limited_us", 184, U64),
    member("delivered", 192, U32),
    member("delivered_ce", 196, U32),
    member("bytes_sent", 200, U64),
    member("bytes_retrans", 208, U64),
    member("dsack_dups", 216, U32),
    member("reord_seen", 220, U32),
    member("rcv_ooopack", 224, U32),
    member("snd_wnd_bytes", 228, U32),
    member("rcv_wnd_bytes", 232, U32),
    member("rehash", 236, U32),
    member("total_rto", 240, U16),
    member("total_rto_recoveries", 242, U16),
    member("total_rto_time_ms", 244, U32),
    member("received_ce", 248, U32),
    member("delivered_e1_bytes", 252, U32),
    member("delivered_e0_bytes", 256, U32),
    member("delivered_ce_bytes", 260, U32),
    member("received_e1_bytes", 264, U32),
    member("received_e0_bytes", 268, U32),
    member("received_ce_bytes", 272, U32),
    // Of these bytes Linux 6.18 and 6.19 make accecn_fail_mode and accecn_opt_seen, 16 bits each; Linux 7.0 makes
    // ecn_mode, accecn_opt_seen, accecn_fail_mode and options2 of 2, 2, 4 and 24 bits. Nothing in them tells which.
    member("accecn", 276, U32),
];

impl Member {
    /// The member's value in `raw`; `None` where the kernel's structure ends before it.
    pub fn get(&self, raw: &[u8]) -> Option<u64> {
        let start = usize::from(self.offset);
        let bytes = raw.get(start..start + usize::from(self.kind.size()))?;
        Some(match self.kind {
            U8 => u64::from(*bytes.first()?),
            Bits(shift, width) => u64::from((*bytes.first()? >> shift) & ((1u8 << width) - 1)),
            U16 => u64::from(u16::from_ne_bytes(bytes.try_into().ok()?)),
            U32 => u64::from(u32::from_ne_bytes(bytes.try_into().ok()?)),
            U64 => u64::from_ne_bytes(bytes.try_into().ok()?),
        })
    }
}

/// A `tcp_info` of Linux 6.18 with these members set and the others 0, for examples and tests. Keys that are none are
/// passed over.
pub fn example(members: &[(&str, u64)]) -> Vec<u8> {
    let mut raw = vec![0u8; 280];
    for (key, value) in members {
        let Some(member) = MEMBERS.iter().find(|member| member.key == *key) else {
            continue;
        };
        let start = usize::from(member.offset);
        let size = usize::from(member.kind.size());
        // The low bytes, wherever this machine keeps them.
        let bytes = value.to_ne_bytes();
        let low = if cfg!(target_endian = "big") {
            bytes.get(8 - size..)
        } else {
            bytes.get(..size)
        };
        if let (Some(place), Some(low)) = (raw.get_mut(start..start + size), low) {
            place.copy_from_slice(low);
        }
    }
    raw
}

fn u8_at(raw: &[u8], at: usize) -> Option<u8> {
    raw.get(at).copied()
}

fn u16_at(raw: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(raw.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(raw: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(raw.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(raw: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(raw.get(at..at + 8)?.try_into().ok()?))
}

/// What the detectors and ages need of a `tcp_info`, in little space. Members that every kernel since 2.6 sends
/// are plain; the later ones are asked for by method and may be unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// congestion state: 0 open, 1 disorder, 2 CWR, 3 recovery, 4 loss
    pub ca_state: u8,
    /// retransmissions of the current segment
    pub retransmits: u8,
    /// unanswered zero-window or keepalive probes
    pub probes: u8,
    /// doublings of the timer
    pub backoff: u8,
    /// retransmission time-out, microseconds
    pub rto_us: u32,
    /// maximum segment size for sending, bytes
    pub snd_mss: u32,
    /// segments sent and not acknowledged; for LISTEN the accept queue's length
    pub unacked: u32,
    /// for LISTEN the accept queue's limit
    pub sacked: u32,
    /// since data was last sent (restamped by a retransmission), milliseconds
    pub last_data_sent_ms: u32,
    /// since data was last received, milliseconds
    pub last_data_recv_ms: u32,
    /// since an ACK was last processed, milliseconds; in-order data that acknowledges nothing new does not restamp it
    pub last_ack_recv_ms: u32,
    /// path MTU, bytes
    pub pmtu: u32,
    /// smoothed round-trip time, microseconds
    pub rtt_us: u32,
    /// congestion window, segments
    pub snd_cwnd: u32,
    /// retransmissions since the connection began
    pub total_retrans: u32,
    length: u16,
    total_rto: u16,
    total_rto_recoveries: u16,
    notsent_bytes: u32,
    snd_wnd: u32,
    rcv_wnd: u32,
    total_rto_time_ms: u32,
    busy_time_us: u64,
    rwnd_limited_us: u64,
    sndbuf_limited_us: u64,
    bytes_acked: u64,
    bytes_received: u64,
}

impl TcpInfo {
    /// The shortest `tcp_info` there ever was (Linux 2.6).
    const SHORTEST: usize = 104;

    /// Reads `raw`; `None` if it is shorter than any kernel's.
    pub fn parse(raw: &[u8]) -> Option<Self> {
        if raw.len() < Self::SHORTEST {
            return None;
        }
        Some(Self {
            length: u16::try_from(raw.len()).unwrap_or(u16::MAX),
            ca_state: u8_at(raw, 1)?,
            retransmits: u8_at(raw, 2)?,
            probes: u8_at(raw, 3)?,
            backoff: u8_at(raw, 4)?,
            rto_us: u32_at(raw, 8)?,
            snd_mss: u32_at(raw, 16)?,
            unacked: u32_at(raw, 24)?,
            sacked: u32_at(raw, 28)?,
            last_data_sent_ms: u32_at(raw, 44)?,
            last_data_recv_ms: u32_at(raw, 52)?,
            last_ack_recv_ms: u32_at(raw, 56)?,
            pmtu: u32_at(raw, 60)?,
            rtt_us: u32_at(raw, 68)?,
            snd_cwnd: u32_at(raw, 80)?,
            total_retrans: u32_at(raw, 100)?,
            bytes_acked: u64_at(raw, 120).unwrap_or(0),
            bytes_received: u64_at(raw, 128).unwrap_or(0),
            notsent_bytes: u32_at(raw, 144).unwrap_or(0),
            busy_time_us: u64_at(raw, 168).unwrap_or(0),
            rwnd_limited_us: u64_at(raw, 176).unwrap_or(0),
            sndbuf_limited_us: u64_at(raw, 184).unwrap_or(0),
            snd_wnd: u32_at(raw, 228).unwrap_or(0),
            rcv_wnd: u32_at(raw, 232).unwrap_or(0),
            total_rto: u16_at(raw, 240).unwrap_or(0),
            total_rto_recoveries: u16_at(raw, 242).unwrap_or(0),
            total_rto_time_ms: u32_at(raw, 244).unwrap_or(0),
        })
    }

    /// The same as a kernel would have sent it whose structure has `length` bytes.
    #[must_use]
    pub fn clipped(mut self, length: u16) -> Self {
        self.length = self.length.min(length);
        self
    }

    fn known<T>(&self, end: u16, value: T) -> Option<T> {
        (self.length >= end).then_some(value)
    }

    /// Bytes that the peer acknowledged (Linux 4.2).
    pub fn bytes_acked(&self) -> Option<u64> {
        self.known(128, self.bytes_acked)
    }

    /// Bytes received in order (Linux 4.2).
    pub fn bytes_received(&self) -> Option<u64> {
        self.known(136, self.bytes_received)
    }

    /// Bytes queued and not yet sent (Linux 4.6).
    pub fn notsent_bytes(&self) -> Option<u32> {
        self.known(148, self.notsent_bytes)
    }

    /// Microseconds with data to send, over the connection's life (Linux 4.10).
    pub fn busy_time_us(&self) -> Option<u64> {
        self.known(176, self.busy_time_us)
    }

    /// Microseconds limited by the peer's window (Linux 4.10).
    pub fn rwnd_limited_us(&self) -> Option<u64> {
        self.known(184, self.rwnd_limited_us)
    }

    /// Microseconds limited by the own send buffer (Linux 4.10).
    pub fn sndbuf_limited_us(&self) -> Option<u64> {
        self.known(192, self.sndbuf_limited_us)
    }

    /// The window that the peer announced, bytes (Linux 5.4).
    pub fn snd_wnd(&self) -> Option<u32> {
        self.known(232, self.snd_wnd)
    }

    /// The window that this end announced, bytes (Linux 6.2).
    pub fn rcv_wnd(&self) -> Option<u32> {
        self.known(236, self.rcv_wnd)
    }

    /// Retransmission time-outs since the connection began (Linux 6.7).
    pub fn total_rto(&self) -> Option<u16> {
        self.known(242, self.total_rto)
    }

    /// Episodes of time-outs, the current one included (Linux 6.7).
    pub fn total_rto_recoveries(&self) -> Option<u16> {
        self.known(244, self.total_rto_recoveries)
    }

    /// Milliseconds spent in all those episodes (Linux 6.7).
    pub fn total_rto_time_ms(&self) -> Option<u32> {
        self.known(248, self.total_rto_time_ms)
    }
}

/// The digest of a connection at rest in half the space: nothing is on its way, lost or held back, and it has moved less
/// than 4 GiB. Of many sockets most are like that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtRest {
    rto_us: u32,
    snd_mss: u32,
    last_data_sent_ms: u32,
    last_data_recv_ms: u32,
    last_ack_recv_ms: u32,
    pmtu: u32,
    rtt_us: u32,
    snd_cwnd: u32,
    total_retrans: u32,
    snd_wnd: u32,
    rcv_wnd: u32,
    busy_time_us: u32,
    bytes_acked: u32,
    bytes_received: u32,
    length: u16,
}

impl AtRest {
    /// The same digest, if it fits.
    pub fn new(info: &TcpInfo) -> Option<Self> {
        let small = |value: u64| u32::try_from(value).ok();
        let rest = Self {
            rto_us: info.rto_us,
            snd_mss: info.snd_mss,
            last_data_sent_ms: info.last_data_sent_ms,
            last_data_recv_ms: info.last_data_recv_ms,
            last_ack_recv_ms: info.last_ack_recv_ms,
            pmtu: info.pmtu,
            rtt_us: info.rtt_us,
            snd_cwnd: info.snd_cwnd,
            total_retrans: info.total_retrans,
            snd_wnd: info.snd_wnd,
            rcv_wnd: info.rcv_wnd,
            busy_time_us: small(info.busy_time_us)?,
            bytes_acked: small(info.bytes_acked)?,
            bytes_received: small(info.bytes_received)?,
            length: info.length,
        };
        (rest.info() == *info).then_some(rest)
    }

    /// The digest.
    pub fn info(&self) -> TcpInfo {
        TcpInfo {
            ca_state: 0,
            retransmits: 0,
            probes: 0,
            backoff: 0,
            rto_us: self.rto_us,
            snd_mss: self.snd_mss,
            unacked: 0,
            sacked: 0,
            last_data_sent_ms: self.last_data_sent_ms,
            last_data_recv_ms: self.last_data_recv_ms,
            last_ack_recv_ms: self.last_ack_recv_ms,
            pmtu: self.pmtu,
            rtt_us: self.rtt_us,
            snd_cwnd: self.snd_cwnd,
            total_retrans: self.total_retrans,
            length: self.length,
            total_rto: 0,
            total_rto_recoveries: 0,
            notsent_bytes: 0,
            snd_wnd: self.snd_wnd,
            rcv_wnd: self.rcv_wnd,
            total_rto_time_ms: 0,
            busy_time_us: u64::from(self.busy_time_us),
            rwnd_limited_us: 0,
            sndbuf_limited_us: 0,
            bytes_acked: u64::from(self.bytes_acked),
            bytes_received: u64::from(self.bytes_received),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_lie_one_behind_the_other_without_holes() {
        let mut end = 0;
        for member in MEMBERS {
            let bits = matches!(member.kind, Bits(shift, _) if shift > 0);
            assert_eq!(
                member.offset,
                if bits { end - 1 } else { end },
                "{}",
                member.key
            );
            end = member.offset + member.kind.size();
        }
        assert_eq!(end, 280, "the structure of Linux 6.18 has 280 bytes");
    }

    #[test]
    fn what_an_old_kernel_did_not_send_is_unknown() {
        let raw = [7u8; 280];
        // Linux 3.10: 104 bytes; 4.18: 192 + 32; 5.4: 232; 6.1: 232; 6.18: 280
        let table: &[(usize, bool, bool, bool)] = &[
            (104, false, false, false),
            (224, true, false, false),
            (232, true, true, false),
            (280, true, true, true),
        ];
        for (length, busy, window, rto) in table {
            let info = TcpInfo::parse(&raw[..*length]).unwrap();
            assert_eq!(info.busy_time_us().is_some(), *busy, "{length}");
            assert_eq!(info.snd_wnd().is_some(), *window, "{length}");
            assert_eq!(info.total_rto_time_ms().is_some(), *rto, "{length}");
        }
        assert_eq!(TcpInfo::parse(&raw[..103]), None);
    }

    #[test]
    fn a_digest_at_rest_is_the_same_in_less_space() {
        use proptest::prelude::*;
        assert_eq!((size_of::<TcpInfo>(), size_of::<AtRest>()), (112, 60));
        let quiet = |kept: fn(usize) -> bool, bytes: &[u8]| -> Vec<u8> {
            let byte = |(at, byte): (usize, &u8)| if kept(at) { *byte } else { 0 };
            bytes.iter().enumerate().map(byte).collect()
        };
        proptest!(|(bytes in prop::collection::vec(any::<u8>(), 280), length in 104usize..=280)| {
            let loud = TcpInfo::parse(&bytes[..length]).unwrap();
            if let Some(rest) = AtRest::new(&loud) {
                prop_assert_eq!(rest.info(), loud);
            }
            // Of what is at rest any of these may be anything.
            let kept = |at| matches!(at, 8..12 | 44..64 | 68..72 | 80..84 | 120..124 | 128..132 | 168..172 | 228..236);
            let calm = TcpInfo::parse(&quiet(kept, &bytes)[..length]).unwrap();
            prop_assert_eq!(AtRest::new(&calm).unwrap().info(), calm);
        });
        let mut busy = TcpInfo::parse(&[0; 280]).unwrap();
        busy.probes = 1;
        assert_eq!(AtRest::new(&busy), None);
        busy = TcpInfo::parse(&example(&[("bytes_acked", 1 << 32)])).unwrap();
        assert_eq!(AtRest::new(&busy), None);
    }

    #[test]
    fn bit_fields_are_cut_out_of_their_byte() {
        let mut raw = [0u8; 104];
        raw[6] = 0xa7;
        raw[7] = 0b101;
        let get = |key| MEMBERS.iter().find(|m| m.key == key).unwrap().get(&raw);
        assert_eq!((get("snd_wscale"), get("rcv_wscale")), (Some(7), Some(10)));
        assert_eq!(
            (
                get("delivery_rate_app_limited"),
                get("fastopen_client_fail")
            ),
            (Some(1), Some(2))
        );
    }
}
