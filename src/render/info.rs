//! The words that follow a row: `-o`, `-e`, `-m` and `-i`, close to those of ss. What is 0 or unknown is left out.

use std::fmt::{self, Display, Write};
use std::sync::LazyLock;

use super::cell::{self, AgeText, Expires, arrows, timer_name};
use super::text::Safe;
use super::{end, extensions};
use crate::fields::{Record, Value};
use crate::model::owner::unit_of;
use crate::model::tcp_info::{MEMBERS, Member};
use crate::model::{TcpInfo, TcpState, Timer};

/// `-o`: `timer:(keepalive,12sec,0)`.
pub(super) fn write_timer(out: &mut impl Write, record: &Record<'_>) -> fmt::Result {
    let socket = record.socket;
    if socket.timer == Timer::None {
        return Ok(());
    }
    let (name, expires) = (timer_name(socket.timer), Expires(socket.timer_ms));
    write!(out, " timer:({name},{expires},{})", socket.retransmits)
}

/// `-e`: `uid:1000 ino:123 sk:1a cgroup:/... <->`.
pub(super) fn write_extended(out: &mut impl Write, record: &Record<'_>) -> fmt::Result {
    let (socket, attributes) = (record.socket, record.attributes);
    if let Some(uid) = record.uid() {
        write!(out, " uid:{uid}")?;
    }
    if socket.inode != 0 {
        write!(out, " ino:{}", socket.inode)?;
    }
    if let Some(cookie) = socket.cookie {
        write!(out, " sk:{cookie:x}")?;
    }
    end::write_extended(out, record)?;
    if let Some(mark) = attributes.mark.filter(|mark| *mark != 0) {
        write!(out, " fwmark:0x{mark:x}")?;
    }
    match (record.cgroup(), attributes.cgroup_id()) {
        (Some(path), _) => write!(out, " cgroup:{}", Safe(path))?,
        (None, Some(id)) => write!(out, " cgroup-id:{id}")?,
        (None, None) => {}
    }
    if let Some(unit) = record.cgroup().and_then(unit_of) {
        write!(out, " unit:{}", Safe(unit))?;
    }
    if let Some(container) = record.container() {
        out.write_str(" container:")?;
        cell::write(out, &Value::Container(container), false)?;
    }
    if let Some(pod) = record.pod() {
        write!(out, " pod:{pod}")?;
    }
    if let Some(v6only) = attributes.v6only {
        write!(out, " v6only:{}", u8::from(v6only))?;
    }
    if let Some(tos) = attributes.tos.filter(|tos| *tos != 0) {
        write!(out, " tos:0x{tos:x}")?;
    }
    if let Some(tclass) = attributes.tclass.filter(|tclass| *tclass != 0) {
        write!(out, " tclass:0x{tclass:x}")?;
    }
    if let Some(class) = attributes.class_id.filter(|class| *class != 0) {
        write!(out, " class_id:0x{class:x}")?;
    }
    extensions::write_options(out, record)?;
    if let Some(shutdown) = attributes.shutdown {
        write!(out, " {}", arrows(shutdown))?;
    }
    Ok(())
}

/// `-m`: `skmem:(r0,rb131072,t0,tb46080,f0,w0,o0,bl0,d0)`.
pub(super) fn write_memory(out: &mut impl Write, record: &Record<'_>) -> fmt::Result {
    let Some(m) = record.attributes.memory() else {
        return Ok(());
    };
    write!(
        out,
        " skmem:(r{},rb{},t{},tb{}",
        m.rmem_alloc, m.rcvbuf, m.wmem_alloc, m.sndbuf
    )?;
    write!(out, ",f{},w{},o{}", m.fwd_alloc, m.wmem_queued, m.optmem)?;
    if let Some(backlog) = m.backlog {
        write!(out, ",bl{backlog}")?;
    }
    if let Some(drops) = m.drops {
        write!(out, ",d{drops}")?;
    }
    out.write_char(')')
}

/// How a member's number is written.
#[derive(Clone, Copy)]
enum Show {
    /// as it is
    Plain,
    /// microseconds, shown in milliseconds
    Ms,
    /// milliseconds
    Age,
    /// bytes per second, shown in bits
    Rate,
    /// as it is, unless it stands for "no threshold yet"
    Threshold,
    /// the label alone
    Flag,
    /// as it is, unless it is how every connection begins
    Unless(u64),
    /// microseconds, shown in milliseconds with their unit
    Time,
    /// the same, and its share of another member
    Share(&'static str),
    /// two members with a separator; the label stays if either is not 0
    Pair(&'static str, char),
    /// two members in microseconds
    MsPair(&'static str),
}

/// Label, member, and how it is shown, in the order of the line.
const WORDS: &[(&str, &str, Show)] = &[
    ("wscale", "snd_wscale", Show::Pair("rcv_wscale", ',')),
    ("rto", "rto_us", Show::Ms),
    ("backoff", "backoff", Show::Plain),
    ("rtt", "rtt_us", Show::MsPair("rttvar_us")),
    ("minrtt", "min_rtt_us", Show::Ms),
    ("ato", "ato_us", Show::Ms),
    ("mss", "snd_mss_bytes", Show::Plain),
    ("pmtu", "pmtu_bytes", Show::Plain),
    ("rcvmss", "rcv_mss_bytes", Show::Plain),
    ("advmss", "advmss_bytes", Show::Plain),
    ("cwnd", "snd_cwnd", Show::Plain),
    ("ssthresh", "snd_ssthresh", Show::Threshold),
    ("lastsnd", "last_data_sent_ms", Show::Age),
    ("lastrcv", "last_data_recv_ms", Show::Age),
    ("lastack", "last_ack_recv_ms", Show::Age),
    ("bytes_sent", "bytes_sent", Show::Plain),
    ("bytes_retrans", "bytes_retrans", Show::Plain),
    ("bytes_acked", "bytes_acked", Show::Plain),
    ("bytes_received", "bytes_received", Show::Plain),
    ("notsent", "notsent_bytes", Show::Plain),
    ("unacked", "unacked", Show::Plain),
    ("retrans", "retrans", Show::Pair("total_retrans", '/')),
    ("retransmits", "retransmits", Show::Plain),
    ("probes", "probes", Show::Plain),
    ("lost", "lost", Show::Plain),
    ("sacked", "sacked", Show::Plain),
    ("fackets", "fackets", Show::Plain),
    // `TCP_FASTRETRANS_THRESH`, where `net.ipv4.tcp_reordering` begins
    ("reordering", "reordering", Show::Unless(3)),
    ("dsack_dups", "dsack_dups", Show::Plain),
    ("reord_seen", "reord_seen", Show::Plain),
    ("rcv_ooopack", "rcv_ooopack", Show::Plain),
    ("segs_out", "segs_out", Show::Plain),
    ("segs_in", "segs_in", Show::Plain),
    ("data_segs_out", "data_segs_out", Show::Plain),
    ("data_segs_in", "data_segs_in", Show::Plain),
    ("delivered", "delivered", Show::Plain),
    ("delivered_ce", "delivered_ce", Show::Plain),
    ("pacing_rate", "pacing_rate_bytes_per_s", Show::Rate),
    ("max_pacing_rate", "max_pacing_rate_bytes_per_s", Show::Rate),
    ("delivery_rate", "delivery_rate_bytes_per_s", Show::Rate),
    ("app_limited", "delivery_rate_app_limited", Show::Flag),
    ("busy", "busy_time_us", Show::Time),
    (
        "rwnd_limited",
        "rwnd_limited_us",
        Show::Share("busy_time_us"),
    ),
    (
        "sndbuf_limited",
        "sndbuf_limited_us",
        Show::Share("busy_time_us"),
    ),
    ("snd_wnd", "snd_wnd_bytes", Show::Plain),
    ("rcv_wnd", "rcv_wnd_bytes", Show::Plain),
    ("rcv_space", "rcv_space_bytes", Show::Plain),
    ("rcv_ssthresh", "rcv_ssthresh_bytes", Show::Plain),
    ("rcv_rtt", "rcv_rtt_us", Show::Ms),
    ("rehash", "rehash", Show::Plain),
    ("total_rto", "total_rto", Show::Plain),
    ("total_rto_recoveries", "total_rto_recoveries", Show::Plain),
    ("total_rto_time", "total_rto_time_ms", Show::Age),
    ("received_ce", "received_ce", Show::Plain),
    ("delivered_e1_bytes", "delivered_e1_bytes", Show::Plain),
    ("delivered_e0_bytes", "delivered_e0_bytes", Show::Plain),
    ("delivered_ce_bytes", "delivered_ce_bytes", Show::Plain),
    ("received_e1_bytes", "received_e1_bytes", Show::Plain),
    ("received_e0_bytes", "received_e0_bytes", Show::Plain),
    ("received_ce_bytes", "received_ce_bytes", Show::Plain),
    ("fastopen_client_fail", "fastopen_client_fail", Show::Plain),
];

struct Word {
    label: &'static str,
    member: &'static Member,
    second: Option<&'static Member>,
    show: Show,
}

static RESOLVED: LazyLock<Vec<Word>> = LazyLock::new(|| {
    let find = |key: &str| MEMBERS.iter().find(|member| member.key == key);
    WORDS
        .iter()
        .filter_map(|(label, key, show)| {
            Some(Word {
                label,
                member: find(key)?,
                second: match show {
                    Show::Pair(key, _) | Show::MsPair(key) | Show::Share(key) => Some(find(key)?),
                    _ => None,
                },
                show: *show,
            })
        })
        .collect()
});

/// The bits of `tcpi_options` (`include/uapi/linux/tcp.h`).
const OPTIONS: [(u64, &str); 7] = [
    (1, "ts"),
    (2, "sack"),
    (8, "ecn"),
    (16, "ecnseen"),
    (32, "fastopen"),
    (64, "usec_ts"),
    (128, "tfo_child"),
];

/// `-i`: `cubic wscale:7,7 rto:201 rtt:0.5/0.25 mss:1448 cwnd:10 ...` with times in milliseconds, and the age.
pub(super) fn write_info(out: &mut impl Write, record: &Record<'_>) -> fmt::Result {
    if let Some(age) = record.age() {
        write!(out, " age:{}", AgeText(age))?;
    }
    let raw = record.attributes.tcp_info.unwrap_or_default();
    let options = MEMBERS
        .iter()
        .find(|member| member.key == "options")
        .and_then(|member| member.get(raw))
        .unwrap_or(0);
    for (_, name) in OPTIONS.iter().filter(|(bit, _)| options & bit != 0) {
        write!(out, " {name}")?;
    }
    if let Some(name) = record.attributes.congestion {
        write!(out, " {}", Safe(&String::from_utf8_lossy(name)))?;
    }
    // A listener has its queue in these two, which the row shows already.
    let listener = record.socket.state == TcpState::Listen;
    for word in RESOLVED.iter() {
        if !(listener && matches!(word.label, "unacked" | "sacked")) {
            write_word(out, word, raw)?;
        }
    }
    extensions::write_congestion(out, record)?;
    if let Some(rate) = send_rate(raw) {
        write!(out, " send:{}", Rate(rate))?;
    }
    extensions::write_beside_info(out, record)
}

/// Bytes per second if a whole congestion window goes out in each round trip.
fn send_rate(raw: &[u8]) -> Option<u64> {
    let info = TcpInfo::parse(raw)?;
    let window = u64::from(info.snd_cwnd) * u64::from(info.snd_mss);
    let rate = u128::from(window) * 1_000_000 / u128::from(info.rtt_us).max(1);
    let rate = u64::try_from(rate).ok()?;
    (info.rtt_us > 0 && rate > 0).then_some(rate)
}

fn write_word(out: &mut impl Write, word: &Word, raw: &[u8]) -> fmt::Result {
    /// `TCP_INFINITE_SSTHRESH` (`include/net/tcp.h`)
    const NO_THRESHOLD: u64 = 0x7fff_ffff;
    let label = word.label;
    let Some(first) = word.member.get(raw) else {
        return Ok(());
    };
    let second = word.second.and_then(|member| member.get(raw)).unwrap_or(0);
    if first == 0 && (second == 0 || matches!(word.show, Show::Share(_))) {
        return Ok(());
    }
    match word.show {
        Show::Unless(usual) if first == usual => Ok(()),
        Show::Plain | Show::Unless(_) => write!(out, " {label}:{first}"),
        Show::Time => write!(out, " {label}:{}ms", Ms(first)),
        Show::Share(_) if second == 0 => write!(out, " {label}:{}ms", Ms(first)),
        Show::Share(_) => {
            let tenths = u128::from(first) * 1_000 / u128::from(second);
            let (whole, tenth) = (tenths / 10, tenths % 10);
            write!(out, " {label}:{}ms({whole}.{tenth}%)", Ms(first))
        }
        Show::Ms => write!(out, " {label}:{}", Ms(first)),
        Show::Age => write!(out, " {label}:{first}"),
        Show::Threshold if first >= NO_THRESHOLD => Ok(()),
        Show::Threshold => write!(out, " {label}:{first}"),
        Show::Rate if first == u64::MAX => Ok(()),
        Show::Rate => write!(out, " {label}:{}", Rate(first)),
        Show::Flag => write!(out, " {label}"),
        Show::Pair(_, separator) => write!(out, " {label}:{first}{separator}{second}"),
        Show::MsPair(_) => write!(out, " {label}:{}/{}", Ms(first), Ms(second)),
    }
}

/// Microseconds as milliseconds: `201`, `0.5`, `0.023`.
pub(super) struct Ms(pub(super) u64);

impl Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1000, self.0 % 1000);
        match rest {
            0 => write!(f, "{whole}"),
            _ if rest % 100 == 0 => write!(f, "{whole}.{}", rest / 100),
            _ if rest % 10 == 0 => write!(f, "{whole}.{:02}", rest / 10),
            _ => write!(f, "{whole}.{rest:03}"),
        }
    }
}

/// Bytes per second in bits: `57.9Mbps`.
pub(super) struct Rate(pub(super) u64);

impl Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = u128::from(self.0) * 80;
        let (unit, divisor) = match tenths {
            0..10_000 => ("bps", 1),
            10_000..10_000_000 => ("Kbps", 1_000),
            10_000_000..10_000_000_000 => ("Mbps", 1_000_000),
            _ => ("Gbps", 1_000_000_000),
        };
        let shown = (tenths + divisor / 2) / divisor;
        match shown % 10 {
            0 => write!(f, "{}{unit}", shown / 10),
            tenth => write!(f, "{}.{tenth}{unit}", shown / 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::tests::Fixture;

    fn show(fixture: &Fixture, write: fn(&mut String, &Record<'_>) -> fmt::Result) -> String {
        let mut out = String::new();
        fixture.with(|record| write(&mut out, record)).unwrap();
        out
    }

    #[test]
    fn every_word_names_a_member() {
        assert_eq!(RESOLVED.len(), WORDS.len());
    }

    #[test]
    fn the_words_are_those_of_ss() {
        let mut fixture = Fixture::new();
        assert_eq!(show(&fixture, write_timer), " timer:(keepalive,12sec,3)");
        assert_eq!(
            show(&fixture, write_extended),
            " uid:1000 ino:123 sk:1a cgroup:/system.slice/nginx.service unit:nginx.service <->"
        );
        assert_eq!(
            show(&fixture, write_memory),
            " skmem:(r0,rb131072,t0,tb46080,f0,w0,o0,bl0,d4)"
        );
        assert_eq!(
            show(&fixture, write_info),
            " age:>=7s cubic wscale:7,7 rto:201 rtt:0.5/0.25 mss:1448 cwnd:10 lastsnd:7000 lastrcv:5000 send:231.7Mbps"
        );
        fixture.socket.timer = Timer::None;
        fixture.memory.truncate(28);
        assert_eq!(show(&fixture, write_timer), "");
        assert_eq!(
            show(&fixture, write_memory),
            " skmem:(r0,rb131072,t0,tb46080,f0,w0,o0)"
        );
    }

    #[test]
    fn a_listener_does_not_show_its_queue_twice() {
        let mut fixture = Fixture::new();
        fixture.info[24..28].copy_from_slice(&9u32.to_ne_bytes());
        assert!(show(&fixture, write_info).contains(" unacked:9"));
        fixture.socket.state = TcpState::Listen;
        assert!(!show(&fixture, write_info).contains("unacked"));
    }

    #[test]
    fn numbers_keep_their_digits_and_lose_their_noughts() {
        assert_eq!(
            [201_000, 500, 250, 23, 1_001].map(|us| Ms(us).to_string()),
            ["201", "0.5", "0.25", "0.023", "1.001"]
        );
        assert_eq!(
            [1, 125, 7_240_000, 1 << 40].map(|bytes| Rate(bytes).to_string()),
            ["8bps", "1Kbps", "57.9Mbps", "8796.1Gbps"]
        );
    }
}
