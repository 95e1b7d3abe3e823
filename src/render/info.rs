//! The words that follow a row: `-o`, `-e`, `-m` and `-i`, close to those of ss. What is 0 or unknown is left out.

use std::fmt;
use std::sync::LazyLock;

use super::cell::{self, AgeText, arrows, timer_name, write_expires};
use super::line::Put;
use super::text;
use super::{end, extensions};
use crate::fields::{Record, Value};
use crate::model::container::{container_of, pod_of};
use crate::model::owner::unit_of;
use crate::model::tcp_info::{MEMBERS, Member};
use crate::model::{TcpInfo, TcpState, Timer};

/// Appends a label and its number.
fn write_number(out: &mut impl Put, label: &str, number: impl Into<u64>) -> fmt::Result {
    out.ascii(label)?;
    out.number(number.into())
}

/// Appends a label and its number in hexadecimal digits.
fn write_hex(out: &mut impl Put, label: &str, number: impl Into<u64>) -> fmt::Result {
    out.ascii(label)?;
    out.hex(number.into())
}

/// `-o`: `timer:(keepalive,12sec,0)`.
pub(super) fn write_timer(out: &mut impl Put, record: &Record<'_>) -> fmt::Result {
    let socket = record.socket;
    if socket.timer == Timer::None {
        return Ok(());
    }
    out.ascii(" timer:(")?;
    out.ascii(timer_name(socket.timer))?;
    out.ascii(",")?;
    write_expires(out, socket.timer_ms)?;
    write_number(out, ",", socket.retransmits)?;
    out.ascii(")")
}

/// `-e`: `uid:1000 ino:123 sk:1a cgroup:/... <->`.
pub(super) fn write_extended(out: &mut impl Put, record: &Record<'_>) -> fmt::Result {
    let (socket, attributes) = (record.socket, record.attributes);
    if let Some(uid) = record.uid() {
        write_number(out, " uid:", uid)?;
    }
    if socket.inode != 0 {
        write_number(out, " ino:", socket.inode)?;
    }
    if let Some(cookie) = socket.cookie {
        write_hex(out, " sk:", cookie)?;
    }
    end::write_extended(out, record)?;
    if let Some(mark) = attributes.mark.filter(|mark| *mark != 0) {
        write_hex(out, " fwmark:0x", mark)?;
    }
    write_cgroup(out, record)?;
    if let Some(v6only) = attributes.v6only {
        write_number(out, " v6only:", v6only)?;
    }
    if let Some(tos) = attributes.tos.filter(|tos| *tos != 0) {
        write_hex(out, " tos:0x", tos)?;
    }
    if let Some(tclass) = attributes.tclass.filter(|tclass| *tclass != 0) {
        write_hex(out, " tclass:0x", tclass)?;
    }
    if let Some(class) = attributes.class_id.filter(|class| *class != 0) {
        write_hex(out, " class_id:0x", class)?;
    }
    extensions::write_options(out, record)?;
    if let Some(shutdown) = attributes.shutdown {
        out.ascii(" ")?;
        out.ascii(arrows(shutdown))?;
    }
    Ok(())
}

/// `cgroup:/... unit:nginx.service container:docker:0123456789ab pod:...`.
fn write_cgroup(out: &mut impl Put, record: &Record<'_>) -> fmt::Result {
    let Some(path) = record.cgroup() else {
        return match record.attributes.cgroup_id() {
            Some(id) => write_number(out, " cgroup-id:", id),
            None => Ok(()),
        };
    };
    out.ascii(" cgroup:")?;
    text::write_safe(path, out)?;
    if let Some(unit) = unit_of(path) {
        out.ascii(" unit:")?;
        text::write_safe(unit, out)?;
    }
    if let Some(container) = container_of(path) {
        out.ascii(" container:")?;
        cell::write(out, &Value::Container(container), false)?;
    }
    match pod_of(path) {
        Some(pod) => write!(out, " pod:{pod}"),
        None => Ok(()),
    }
}

/// `-m`: `skmem:(r0,rb131072,t0,tb46080,f0,w0,o0,bl0,d0)`.
pub(super) fn write_memory(out: &mut impl Put, record: &Record<'_>) -> fmt::Result {
    let Some(m) = record.attributes.memory() else {
        return Ok(());
    };
    write_number(out, " skmem:(r", m.rmem_alloc)?;
    write_number(out, ",rb", m.rcvbuf)?;
    write_number(out, ",t", m.wmem_alloc)?;
    write_number(out, ",tb", m.sndbuf)?;
    write_number(out, ",f", m.fwd_alloc)?;
    write_number(out, ",w", m.wmem_queued)?;
    write_number(out, ",o", m.optmem)?;
    if let Some(backlog) = m.backlog {
        write_number(out, ",bl", backlog)?;
    }
    if let Some(drops) = m.drops {
        write_number(out, ",d", drops)?;
    }
    out.ascii(")")
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
    Pair(&'static str, &'static str),
    /// two members in microseconds
    MsPair(&'static str),
}

/// Label with the blank before it, member, and how it is shown, in the order of the line.
const WORDS: &[(&str, &str, Show)] = &[
    (" wscale:", "snd_wscale", Show::Pair("rcv_wscale", ",")),
    (" rto:", "rto_us", Show::Ms),
    (" backoff:", "backoff", Show::Plain),
    (" rtt:", "rtt_us", Show::MsPair("rttvar_us")),
    (" minrtt:", "min_rtt_us", Show::Ms),
    (" ato:", "ato_us", Show::Ms),
    (" mss:", "snd_mss_bytes", Show::Plain),
    (" pmtu:", "pmtu_bytes", Show::Plain),
    (" rcvmss:", "rcv_mss_bytes", Show::Plain),
    (" advmss:", "advmss_bytes", Show::Plain),
    (" cwnd:", "snd_cwnd", Show::Plain),
    (" ssthresh:", "snd_ssthresh", Show::Threshold),
    (" lastsnd:", "last_data_sent_ms", Show::Age),
    (" lastrcv:", "last_data_recv_ms", Show::Age),
    (" lastack:", "last_ack_recv_ms", Show::Age),
    (" bytes_sent:", "bytes_sent", Show::Plain),
    (" bytes_retrans:", "bytes_retrans", Show::Plain),
    (" bytes_acked:", "bytes_acked", Show::Plain),
    (" bytes_received:", "bytes_received", Show::Plain),
    (" notsent:", "notsent_bytes", Show::Plain),
    (" unacked:", "unacked", Show::Plain),
    (" retrans:", "retrans", Show::Pair("total_retrans", "/")),
    (" retransmits:", "retransmits", Show::Plain),
    (" probes:", "probes", Show::Plain),
    (" lost:", "lost", Show::Plain),
    (" sacked:", "sacked", Show::Plain),
    (" fackets:", "fackets", Show::Plain),
    // `TCP_FASTRETRANS_THRESH`, where `net.ipv4.tcp_reordering` begins
    (" reordering:", "reordering", Show::Unless(3)),
    (" dsack_dups:", "dsack_dups", Show::Plain),
    (" reord_seen:", "reord_seen", Show::Plain),
    (" rcv_ooopack:", "rcv_ooopack", Show::Plain),
    (" segs_out:", "segs_out", Show::Plain),
    (" segs_in:", "segs_in", Show::Plain),
    (" data_segs_out:", "data_segs_out", Show::Plain),
    (" data_segs_in:", "data_segs_in", Show::Plain),
    (" delivered:", "delivered", Show::Plain),
    (" delivered_ce:", "delivered_ce", Show::Plain),
    (" pacing_rate:", "pacing_rate_bytes_per_s", Show::Rate),
    (
        " max_pacing_rate:",
        "max_pacing_rate_bytes_per_s",
        Show::Rate,
    ),
    (" delivery_rate:", "delivery_rate_bytes_per_s", Show::Rate),
    (" app_limited", "delivery_rate_app_limited", Show::Flag),
    (" busy:", "busy_time_us", Show::Time),
    (
        " rwnd_limited:",
        "rwnd_limited_us",
        Show::Share("busy_time_us"),
    ),
    (
        " sndbuf_limited:",
        "sndbuf_limited_us",
        Show::Share("busy_time_us"),
    ),
    (" snd_wnd:", "snd_wnd_bytes", Show::Plain),
    (" rcv_wnd:", "rcv_wnd_bytes", Show::Plain),
    (" rcv_space:", "rcv_space_bytes", Show::Plain),
    (" rcv_ssthresh:", "rcv_ssthresh_bytes", Show::Plain),
    (" rcv_rtt:", "rcv_rtt_us", Show::Ms),
    (" rehash:", "rehash", Show::Plain),
    (" total_rto:", "total_rto", Show::Plain),
    (
        " total_rto_recoveries:",
        "total_rto_recoveries",
        Show::Plain,
    ),
    (" total_rto_time:", "total_rto_time_ms", Show::Age),
    (" received_ce:", "received_ce", Show::Plain),
    (" delivered_e1_bytes:", "delivered_e1_bytes", Show::Plain),
    (" delivered_e0_bytes:", "delivered_e0_bytes", Show::Plain),
    (" delivered_ce_bytes:", "delivered_ce_bytes", Show::Plain),
    (" received_e1_bytes:", "received_e1_bytes", Show::Plain),
    (" received_e0_bytes:", "received_e0_bytes", Show::Plain),
    (" received_ce_bytes:", "received_ce_bytes", Show::Plain),
    (
        " fastopen_client_fail:",
        "fastopen_client_fail",
        Show::Plain,
    ),
];

struct Word {
    label: &'static str,
    member: &'static Member,
    second: Option<&'static Member>,
    show: Show,
    /// whether a listener has its queue in the member, which the row shows already
    queue: bool,
}

/// What is looked up once, by name.
struct Resolved {
    options: Option<&'static Member>,
    words: Vec<Word>,
}

static RESOLVED: LazyLock<Resolved> = LazyLock::new(|| {
    let find = |key: &str| MEMBERS.iter().find(|member| member.key == key);
    let words = WORDS.iter().filter_map(|(label, key, show)| {
        Some(Word {
            label,
            member: find(key)?,
            second: match show {
                Show::Pair(key, _) | Show::MsPair(key) | Show::Share(key) => Some(find(key)?),
                _ => None,
            },
            show: *show,
            queue: matches!(*key, "unacked" | "sacked"),
        })
    });
    Resolved {
        options: find("options"),
        words: words.collect(),
    }
});

/// The bits of `tcpi_options` (`include/uapi/linux/tcp.h`), and their words.
const OPTIONS: [(u64, &str); 7] = [
    (1, " ts"),
    (2, " sack"),
    (8, " ecn"),
    (16, " ecnseen"),
    (32, " fastopen"),
    (64, " usec_ts"),
    (128, " tfo_child"),
];

/// `-i`: `cubic wscale:7,7 rto:201 rtt:0.5/0.25 mss:1448 cwnd:10 ...` with times in milliseconds, and the age.
pub(super) fn write_info(out: &mut impl Put, record: &Record<'_>) -> fmt::Result {
    if let Some(age) = record.age() {
        write!(out, " age:{}", AgeText(age))?;
    }
    let raw = record.attributes.tcp_info.unwrap_or_default();
    let Resolved { options, words } = &*RESOLVED;
    let options = options.and_then(|member| member.get(raw)).unwrap_or(0);
    for (_, word) in OPTIONS.iter().filter(|(bit, _)| options & bit != 0) {
        out.ascii(word)?;
    }
    if let Some(name) = record.attributes.congestion {
        out.ascii(" ")?;
        text::write_safe(&String::from_utf8_lossy(name), out)?;
    }
    let listener = record.socket.state == TcpState::Listen;
    for word in words.iter().filter(|word| !(listener && word.queue)) {
        write_word(out, word, raw)?;
    }
    extensions::write_congestion(out, record)?;
    if let Some(rate) = send_rate(raw) {
        out.ascii(" send:")?;
        write_rate(out, rate)?;
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

fn write_word(out: &mut impl Put, word: &Word, raw: &[u8]) -> fmt::Result {
    /// `TCP_INFINITE_SSTHRESH` (`include/net/tcp.h`)
    const NO_THRESHOLD: u64 = 0x7fff_ffff;
    let Some(first) = word.member.get(raw) else {
        return Ok(());
    };
    let second = word.second.and_then(|member| member.get(raw)).unwrap_or(0);
    if first == 0 && (second == 0 || matches!(word.show, Show::Share(_))) {
        return Ok(());
    }
    match word.show {
        Show::Unless(usual) if first == usual => return Ok(()),
        Show::Threshold if first >= NO_THRESHOLD => return Ok(()),
        Show::Rate if first == u64::MAX => return Ok(()),
        _ => out.ascii(word.label)?,
    }
    match word.show {
        Show::Plain | Show::Unless(_) | Show::Age | Show::Threshold => out.number(first),
        Show::Time | Show::Share(_) => {
            write_ms(out, first)?;
            out.ascii("ms")?;
            if second == 0 {
                return Ok(());
            }
            let tenths = u128::from(first) * 1_000 / u128::from(second);
            write!(out, "({}.{}%)", tenths / 10, tenths % 10)
        }
        Show::Ms => write_ms(out, first),
        Show::Rate => write_rate(out, first),
        Show::Flag => Ok(()),
        Show::Pair(_, separator) => {
            out.number(first)?;
            out.ascii(separator)?;
            out.number(second)
        }
        Show::MsPair(_) => {
            write_ms(out, first)?;
            out.ascii("/")?;
            write_ms(out, second)
        }
    }
}

/// Microseconds as milliseconds: `201`, `0.5`, `0.023`.
pub(super) fn write_ms(out: &mut impl Put, us: u64) -> fmt::Result {
    let (whole, rest) = (us / 1000, us % 1000);
    out.number(whole)?;
    // Without the noughts at the end.
    let (noughts, digits) = match (rest, rest % 100, rest % 10) {
        (0, ..) => return Ok(()),
        (_, 0, _) => ("", rest / 100),
        (1..100, _, 0) => ("0", rest / 10),
        (_, _, 0) => ("", rest / 10),
        (1..10, ..) => ("00", rest),
        (10..100, ..) => ("0", rest),
        _ => ("", rest),
    };
    out.ascii(".")?;
    out.ascii(noughts)?;
    out.number(digits)
}

/// Bytes per second in bits: `57.9Mbps`.
pub(super) fn write_rate(out: &mut impl Put, bytes_per_s: u64) -> fmt::Result {
    // Rates that a machine has fit into 64 bits, which are divided faster.
    let (shown, unit) = match bytes_per_s.checked_mul(80) {
        Some(tenths) => {
            let (unit, divisor) = rate_unit(u128::from(tenths));
            ((tenths + divisor / 2) / divisor, unit)
        }
        None => {
            let tenths = u128::from(bytes_per_s) * 80;
            let (unit, divisor) = rate_unit(tenths);
            let shown = (tenths + u128::from(divisor) / 2) / u128::from(divisor);
            (u64::try_from(shown).unwrap_or(u64::MAX), unit)
        }
    };
    out.number(shown / 10)?;
    if shown % 10 != 0 {
        write_number(out, ".", shown % 10)?;
    }
    out.ascii(unit)
}

/// The unit of a rate in tenths of a bit per second, and how many of them it has.
const fn rate_unit(tenths: u128) -> (&'static str, u64) {
    match tenths {
        0..10_000 => ("bps", 1),
        10_000..10_000_000 => ("Kbps", 1_000),
        10_000_000..10_000_000_000 => ("Mbps", 1_000_000),
        _ => ("Gbps", 1_000_000_000),
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
        assert_eq!(RESOLVED.words.len(), WORDS.len());
        assert!(RESOLVED.options.is_some());
        assert_eq!(RESOLVED.words.iter().filter(|word| word.queue).count(), 2);
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
        let shown = |write: fn(&mut String, u64) -> fmt::Result, number| {
            let mut out = String::new();
            write(&mut out, number).unwrap();
            out
        };
        assert_eq!(
            [201_000, 500, 250, 23, 20, 7, 1_001].map(|us| shown(write_ms, us)),
            ["201", "0.5", "0.25", "0.023", "0.02", "0.007", "1.001"]
        );
        assert_eq!(
            [1, 125, 7_240_000, 1 << 40, u64::MAX - 1].map(|bytes| shown(write_rate, bytes)),
            [
                "8bps",
                "1Kbps",
                "57.9Mbps",
                "8796.1Gbps",
                "147573952589.7Gbps"
            ]
        );
    }
}
