//! What only some sockets have: the congestion control's own info, an upper-layer protocol, options.

use super::{Align, Field, Get, List, Needs, Record, Value};
use crate::model::congestion::{Bbr, CongestionInfo, Dctcp, Vegas};
use crate::model::ulp::{Mptcp, Tls};

/// A column of text, or of a list of words.
const fn words(
    id: &'static str,
    header: &'static str,
    doc: &'static str,
    needs: Needs,
    get: for<'a> fn(&Record<'a>) -> Value<'a>,
) -> Field {
    Field {
        id,
        header,
        doc,
        unit: None,
        align: Align::Left,
        needs,
        get: Get::Row(get),
    }
}

/// A column of numbers.
const fn number(
    id: &'static str,
    header: &'static str,
    doc: &'static str,
    unit: Option<&'static str>,
    needs: Needs,
    get: for<'a> fn(&Record<'a>) -> Value<'a>,
) -> Field {
    Field {
        id,
        header,
        doc,
        unit,
        align: Align::Right,
        needs,
        get: Get::Row(get),
    }
}

fn bbr<'a>(record: &Record<'a>, value: impl FnOnce(Bbr) -> Value<'a>) -> Value<'a> {
    match record.attributes.congestion_info() {
        Some(CongestionInfo::Bbr(bbr)) => value(bbr),
        _ => Value::Absent,
    }
}

fn vegas<'a>(record: &Record<'a>, value: impl FnOnce(Vegas) -> Value<'a>) -> Value<'a> {
    match record.attributes.congestion_info() {
        Some(CongestionInfo::Vegas(vegas)) => value(vegas),
        _ => Value::Absent,
    }
}

fn dctcp<'a>(record: &Record<'a>, value: impl FnOnce(Dctcp) -> Value<'a>) -> Value<'a> {
    match record.attributes.congestion_info() {
        Some(CongestionInfo::Dctcp(dctcp)) => value(dctcp),
        _ => Value::Absent,
    }
}

fn tls<'a>(record: &Record<'a>, value: impl FnOnce(Tls) -> Value<'a>) -> Value<'a> {
    Value::of(record.attributes.ulp().and_then(|ulp| ulp.tls()), value)
}

fn mptcp<T>(record: &Record<'_>, pick: impl FnOnce(Mptcp) -> Option<T>) -> Option<T> {
    record.attributes.ulp()?.mptcp().and_then(pick)
}

/// The name of a number, or the number where this program does not know the name.
fn named(name: Option<&'static str>, number: Option<u16>) -> Value<'static> {
    match (name, number) {
        (Some(name), _) => Value::text(name),
        (None, Some(number)) => Value::Hex(u64::from(number)),
        (None, None) => Value::Absent,
    }
}

/// 256ths in per cent.
fn percent(gain: u32) -> Value<'static> {
    Value::Count((u64::from(gain) * 100 + 128) / 256)
}

pub(super) const TOS: Field = number(
    "tos",
    "TOS",
    "IP_TOS: the type of service of what an IPv4 socket sends, DSCP and ECN",
    None,
    Needs::Tos,
    |record| Value::of(record.attributes.tos, |tos| Value::Hex(u64::from(tos))),
);

pub(super) const TCLASS: Field = number(
    "tclass",
    "Tclass",
    "IPV6_TCLASS: the traffic class of what an IPv6 socket sends, DSCP and ECN",
    None,
    Needs::Tos,
    |record| {
        Value::of(record.attributes.tclass, |class| {
            Value::Hex(u64::from(class))
        })
    },
);

pub(super) const CLASS_ID: Field = number(
    "class-id",
    "Class-Id",
    "the traffic-control class, of net_cls or SO_PRIORITY",
    None,
    Needs::Tos,
    |record| Value::of(record.attributes.class_id, |id| Value::Hex(u64::from(id))),
);

pub(super) const CGROUP_ID: Field = number(
    "cgroup-id",
    "Cgroup-Id",
    "the id of the cgroup that made the socket: the inode of its directory",
    None,
    Needs::Extended,
    |record| Value::of(record.attributes.cgroup_id(), Value::Count),
);

pub(super) const SOCKOPT: Field = words(
    "sockopt",
    "Sockopt",
    "the options that are on, by the names of struct inet_diag_sockopt",
    Needs::Extended,
    |record| {
        Value::of(record.attributes.sockopt, |options| {
            Value::List(List::SockOpts(options))
        })
    },
);

pub(super) const BPF_STORAGE: Field = words(
    "bpf-storage",
    "BPF-Storage",
    "whether BPF programs keep something with the socket; known from captures of ss that asked for it",
    Needs::Extended,
    |record| {
        if record.attributes.has_bpf_storage() {
            Value::Flag(true)
        } else {
            Value::Absent
        }
    },
);

pub(super) const SCTP_LOCALS: Field = words(
    "sctp-locals",
    "SCTP-Locals",
    "the addresses of this end of an SCTP association",
    Needs::Extended,
    |record| {
        Value::of(record.attributes.locals, |all| {
            Value::List(List::Addresses(all))
        })
    },
);

pub(super) const SCTP_PEERS: Field = words(
    "sctp-peers",
    "SCTP-Peers",
    "the addresses of the other end of an SCTP association",
    Needs::Extended,
    |record| {
        Value::of(record.attributes.peers, |all| {
            Value::List(List::Addresses(all))
        })
    },
);

pub(super) const MD5: Field = words(
    "md5",
    "MD5",
    "the peers that need TCP MD5 signatures, which the kernel tells only to CAP_NET_ADMIN; never their keys",
    Needs::BesideInfo,
    |record| Value::of(record.attributes.md5(), |md5| Value::List(List::Md5(md5))),
);

pub(super) const ULP: Field = words(
    "ulp",
    "ULP",
    "the upper-layer protocol on the TCP socket: tls, mptcp, espintcp or smc",
    Needs::BesideInfo,
    |record| {
        let name = record.attributes.ulp().and_then(|ulp| ulp.name());
        Value::of(name, |name| Value::Text(String::from_utf8_lossy(name)))
    },
);

pub(super) const TLS_VERSION: Field = words(
    "tls-version",
    "TLS-Version",
    "the version of the kernel's TLS",
    Needs::BesideInfo,
    |record| tls(record, |tls| named(tls.version_name(), tls.version)),
);

pub(super) const TLS_CIPHER: Field = words(
    "tls-cipher",
    "TLS-Cipher",
    "the cipher of the kernel's TLS",
    Needs::BesideInfo,
    |record| tls(record, |tls| named(tls.cipher_name(), tls.cipher)),
);

pub(super) const TLS_TXCONF: Field = words(
    "tls-txconf",
    "TLS-Txconf",
    "who encrypts: base (nobody yet), sw (the kernel), hw or hw-record (the network card)",
    Needs::BesideInfo,
    |record| tls(record, |tls| named(Tls::conf_name(tls.txconf), tls.txconf)),
);

pub(super) const TLS_RXCONF: Field = words(
    "tls-rxconf",
    "TLS-Rxconf",
    "who decrypts: base (nobody yet), sw (the kernel), hw or hw-record (the network card)",
    Needs::BesideInfo,
    |record| tls(record, |tls| named(Tls::conf_name(tls.rxconf), tls.rxconf)),
);

pub(super) const MPTCP_TOKEN: Field = number(
    "mptcp-token",
    "MPTCP-Token",
    "this end's name of the MPTCP connection, the same for all its subflows",
    None,
    Needs::BesideInfo,
    |record| {
        Value::of(mptcp(record, |mptcp| mptcp.token_loc), |token| {
            Value::Hex(u64::from(token))
        })
    },
);

pub(super) const MPTCP_FLAGS: Field = words(
    "mptcp-flags",
    "MPTCP-Flags",
    "the flags of the MPTCP subflow",
    Needs::BesideInfo,
    |record| {
        Value::of(mptcp(record, |mptcp| mptcp.flags), |flags| {
            Value::List(List::Subflow(flags))
        })
    },
);

pub(super) const BBR_BW: Field = number(
    "bbr-bw",
    "BBR-Bw",
    "BBR: the largest delivery rate of late",
    Some("bytes/s"),
    Needs::CongestionInfo,
    |record| bbr(record, |bbr| Value::BytesPerSecond(bbr.bw_bytes_per_s)),
);

pub(super) const BBR_MIN_RTT: Field = number(
    "bbr-min-rtt",
    "BBR-Min-RTT",
    "BBR: the smallest round-trip time of late",
    Some("us"),
    Needs::CongestionInfo,
    |record| bbr(record, |bbr| Value::Micros(u64::from(bbr.min_rtt_us))),
);

pub(super) const BBR_PACING_GAIN: Field = number(
    "bbr-pacing-gain",
    "BBR-Pacing-Gain",
    "BBR: the pacing rate as a share of the bandwidth; above 100 it probes for more",
    Some("%"),
    Needs::CongestionInfo,
    |record| bbr(record, |bbr| percent(bbr.pacing_gain)),
);

pub(super) const BBR_CWND_GAIN: Field = number(
    "bbr-cwnd-gain",
    "BBR-Cwnd-Gain",
    "BBR: the congestion window as a share of bandwidth times round-trip time",
    Some("%"),
    Needs::CongestionInfo,
    |record| bbr(record, |bbr| percent(bbr.cwnd_gain)),
);

pub(super) const VEGAS_RTT: Field = number(
    "vegas-rtt",
    "Vegas-RTT",
    "Vegas and its kin: the round-trip time",
    Some("us"),
    Needs::CongestionInfo,
    |record| vegas(record, |vegas| Value::Micros(u64::from(vegas.rtt_us))),
);

pub(super) const VEGAS_MIN_RTT: Field = number(
    "vegas-min-rtt",
    "Vegas-Min-RTT",
    "Vegas and its kin: the smallest round-trip time",
    Some("us"),
    Needs::CongestionInfo,
    |record| {
        vegas(record, |vegas| {
            Value::of(vegas.min_rtt_us(), |us| Value::Micros(u64::from(us)))
        })
    },
);

pub(super) const DCTCP_ALPHA: Field = number(
    "dctcp-alpha",
    "DCTCP-Alpha",
    "DCTCP: the share of bytes that met congestion, in 1024ths",
    None,
    Needs::CongestionInfo,
    |record| dctcp(record, |dctcp| Value::Count(u64::from(dctcp.alpha))),
);

pub(super) const DCTCP_AB_ECN: Field = number(
    "dctcp-ab-ecn",
    "DCTCP-Ab-ECN",
    "DCTCP: acknowledged in this window as having met congestion",
    Some("bytes"),
    Needs::CongestionInfo,
    |record| dctcp(record, |dctcp| Value::Bytes(u64::from(dctcp.ab_ecn_bytes))),
);

pub(super) const DCTCP_AB_TOT: Field = number(
    "dctcp-ab-tot",
    "DCTCP-Ab-Tot",
    "DCTCP: acknowledged in this window",
    Some("bytes"),
    Needs::CongestionInfo,
    |record| dctcp(record, |dctcp| Value::Bytes(u64::from(dctcp.ab_tot_bytes))),
);
