//! The members of `struct tcp_info` as columns, by their keys in JSON.

use std::sync::LazyLock;

use super::{Align, Field, Get, Needs, Value};
use crate::model::tcp_info::MEMBERS;

static FIELDS: LazyLock<Vec<Field>> = LazyLock::new(|| {
    MEMBERS
        .iter()
        // The row has the state already, by its name.
        .filter(|member| member.key != "state")
        .map(|member| Field {
            id: member.key,
            header: member.key,
            doc: doc(member.key).unwrap_or(""),
            unit: unit(member.key),
            align: Align::Right,
            needs: Needs::TcpInfo,
            get: Get::Member(member),
        })
        .collect()
});

/// The columns, in the kernel's order.
pub(super) fn fields() -> &'static [Field] {
    &FIELDS
}

const UNITS: [(&str, &str); 4] = [
    ("_bytes_per_s", "bytes/s"),
    ("_bytes", "bytes"),
    ("_us", "us"),
    ("_ms", "ms"),
];

fn unit(key: &str) -> Option<&'static str> {
    match key {
        "bytes_acked" | "bytes_received" | "bytes_sent" | "bytes_retrans" => Some("bytes"),
        _ => UNITS
            .iter()
            .find(|(suffix, _)| key.ends_with(suffix))
            .map(|(_, unit)| *unit),
    }
}

/// The key without its unit.
pub(super) fn bare(key: &str) -> &str {
    UNITS
        .iter()
        .find_map(|(suffix, _)| key.strip_suffix(suffix))
        .unwrap_or(key)
}

/// The member `key` with its unit.
pub(super) fn value(key: &str, number: u64) -> Value<'static> {
    match unit(key) {
        Some("us") => Value::Micros(number),
        Some("ms") => Value::Millis(number),
        Some("bytes") => Value::Bytes(number),
        Some("bytes/s") => Value::BytesPerSecond(number),
        _ => Value::Count(number),
    }
}

fn doc(key: &str) -> Option<&'static str> {
    Some(match key {
        "ca_state" => "congestion state: 0 open, 1 disorder, 2 CWR, 3 recovery, 4 loss",
        "retransmits" => "retransmissions of the current segment",
        "probes" => "unanswered zero-window or keepalive probes",
        "backoff" => "doublings of the retransmission time-out",
        "options" => {
            "bits: 1 timestamps, 2 SACK, 4 window scale, 8 ECN, 16 ECN seen, 32 SYN data, 64 microsecond timestamps, 128 fast open's child"
        }
        "snd_wscale" => "the peer's window scale, a power of two",
        "rcv_wscale" => "this end's window scale, a power of two",
        "delivery_rate_app_limited" => "1 if the delivery rate was limited by the program",
        "fastopen_client_fail" => {
            "why TCP fast open failed: 1 no cookie, 2 data not acknowledged, 3 SYN sent again"
        }
        "rto_us" => "the retransmission time-out",
        "ato_us" => "the delayed-ACK time-out",
        "snd_mss_bytes" => "the maximum segment size for sending",
        "rcv_mss_bytes" => "the maximum segment size seen when receiving",
        "unacked" => "segments sent and not acknowledged; for LISTEN the accept queue's length",
        "sacked" => "segments acknowledged out of order; for LISTEN the accept queue's limit",
        "lost" => "segments thought lost",
        "retrans" => "segments sent again and not yet acknowledged",
        "fackets" => "segments up to the highest one acknowledged out of order (before Linux 4.15)",
        "last_data_sent_ms" => "since data was last sent",
        "last_ack_sent_ms" => "always 0: the kernel does not keep it",
        "last_data_recv_ms" => "since data was last received",
        "last_ack_recv_ms" => "since an ACK was last received, which every segment carries",
        "pmtu_bytes" => "the path MTU",
        "rcv_ssthresh_bytes" => "the limit of the window that this end announces",
        "rtt_us" => "the smoothed round-trip time",
        "rttvar_us" => "the variation of the round-trip time",
        "snd_ssthresh" => "the slow-start threshold in segments; 2147483647 is none",
        "snd_cwnd" => "the congestion window in segments",
        "advmss_bytes" => "the maximum segment size that this end announced",
        "reordering" => "how far segments are reordered on the way",
        "rcv_rtt_us" => "the round-trip time as the receiver estimates it",
        "rcv_space_bytes" => "what the program reads in a round trip",
        "total_retrans" => "retransmissions since the connection began",
        "pacing_rate_bytes_per_s" => "the rate at which segments are spaced out",
        "max_pacing_rate_bytes_per_s" => "SO_MAX_PACING_RATE; 18446744073709551615 is no limit",
        "bytes_acked" => "what the peer acknowledged",
        "bytes_received" => "what was received in order",
        "segs_out" => "segments sent",
        "segs_in" => "segments received",
        "notsent_bytes" => "queued and not yet sent",
        "min_rtt_us" => "the smallest round-trip time of late",
        "data_segs_in" => "segments received that carried data",
        "data_segs_out" => "segments sent that carried data",
        "delivery_rate_bytes_per_s" => "the rate at which the peer acknowledges",
        "busy_time_us" => "the time with data to send",
        "rwnd_limited_us" => "the time in which the peer's window was the limit",
        "sndbuf_limited_us" => "the time in which the own send buffer was the limit",
        "delivered" => "segments that the peer has, retransmissions included",
        "delivered_ce" => "segments of these that met congestion (ECN)",
        "bytes_sent" => "sent, retransmissions included",
        "bytes_retrans" => "sent once more after a loss, or a needless time-out",
        "dsack_dups" => "retransmissions that the peer says were needless",
        "reord_seen" => "reorderings that were seen",
        "rcv_ooopack" => "segments received out of order",
        "snd_wnd_bytes" => "the window that the peer announced",
        "rcv_wnd_bytes" => "the window that this end announced",
        "rehash" => "new paths tried after time-outs",
        "total_rto" => "retransmission time-outs since the connection began",
        "total_rto_recoveries" => "episodes of time-outs, the current one included",
        "total_rto_time_ms" => "the time spent in these episodes",
        "received_ce" => "segments received that met congestion (ECN)",
        "delivered_e1_bytes" => "delivered with the mark ECT(1)",
        "delivered_e0_bytes" => "delivered with the mark ECT(0)",
        "delivered_ce_bytes" => "delivered that met congestion",
        "received_e1_bytes" => "received with the mark ECT(1)",
        "received_e0_bytes" => "received with the mark ECT(0)",
        "received_ce_bytes" => "received that met congestion",
        "accecn" => {
            "bits about accurate ECN: which they are depends on the kernel, see include/uapi/linux/tcp.h"
        }
        _ => return None,
    })
}
