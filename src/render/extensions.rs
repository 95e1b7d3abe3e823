//! The words of `-e` and `-i` about what only some sockets have, in the names of ss.

use std::fmt;

use super::cell::write_list;
use super::info::{write_ms, write_rate};
use super::line::Put;
use super::text::Safe;
use crate::fields::{List, Record};
use crate::model::Ulp;
use crate::model::congestion::{Bbr, CongestionInfo, Dctcp, Vegas};
use crate::model::ulp::{Mptcp, SubflowFlags, Tls};

/// `sockopt:freebind,transparent`: what most sockets have on is left out.
pub(super) fn write_options(out: &mut impl Put, record: &Record<'_>) -> fmt::Result {
    let attributes = record.attributes;
    if let Some(options) = attributes.sockopt.map(|options| options.unusual())
        && options.bits() != 0
    {
        out.write_str(" sockopt:")?;
        write_list(out, List::SockOpts(options))?;
    }
    for (label, addresses) in [("locals", attributes.locals), ("peers", attributes.peers)] {
        if let Some(addresses) = addresses {
            write!(out, " {label}:")?;
            write_list(out, List::Addresses(addresses))?;
        }
    }
    if attributes.has_bpf_storage() {
        out.write_str(" bpf_storage")?;
    }
    Ok(())
}

/// `bbr:(bw:57.9Mbps,mrtt:0.022,pacing_gain:2.88672,cwnd_gain:2.88672)`.
pub(super) fn write_congestion(out: &mut impl Put, record: &Record<'_>) -> fmt::Result {
    match record.attributes.congestion_info() {
        None => Ok(()),
        Some(CongestionInfo::Bbr(bbr)) => write_bbr(out, &bbr),
        Some(CongestionInfo::Vegas(vegas)) => write_vegas(out, &vegas),
        Some(CongestionInfo::Dctcp(dctcp)) => write_dctcp(out, &dctcp),
    }
}

fn write_bbr(out: &mut impl Put, bbr: &Bbr) -> fmt::Result {
    out.ascii(" bbr:(bw:")?;
    write_rate(out, bbr.bw_bytes_per_s)?;
    out.ascii(",mrtt:")?;
    write_ms(out, u64::from(bbr.min_rtt_us))?;
    for (label, gain) in [
        (",pacing_gain:", bbr.pacing_gain),
        (",cwnd_gain:", bbr.cwnd_gain),
    ] {
        if gain != 0 {
            out.ascii(label)?;
            write_gain(out, gain)?;
        }
    }
    out.ascii(")")
}

fn write_vegas(out: &mut impl Put, vegas: &Vegas) -> fmt::Result {
    let state = if vegas.enabled { "enabled" } else { "disabled" };
    write!(out, " vegas:({state},rttcnt:{},rtt:", vegas.rttcnt)?;
    write_ms(out, u64::from(vegas.rtt_us))?;
    if let Some(us) = vegas.min_rtt_us() {
        out.ascii(",minrtt:")?;
        write_ms(out, u64::from(us))?;
    }
    out.ascii(")")
}

fn write_dctcp(out: &mut impl Put, dctcp: &Dctcp) -> fmt::Result {
    if !dctcp.enabled {
        return out.write_str(" dctcp:fallback_mode");
    }
    write!(
        out,
        " dctcp:(ce_state:{},alpha:{},ab_ecn:{},ab_tot:{})",
        dctcp.ce_state, dctcp.alpha, dctcp.ab_ecn_bytes, dctcp.ab_tot_bytes
    )
}

/// `tcp-ulp-mptcp flags:Mec token:0000(id:0)/2967a59d(id:0) ...`, `md5keys:10.0.0.0/8`.
pub(super) fn write_beside_info(out: &mut impl Put, record: &Record<'_>) -> fmt::Result {
    if let Some(ulp) = record.attributes.ulp() {
        write_ulp(out, &ulp)?;
    }
    if let Some(md5) = record.attributes.md5() {
        out.write_str(" md5keys:")?;
        write_list(out, List::Md5(md5))?;
    }
    Ok(())
}

fn write_ulp(out: &mut impl Put, ulp: &Ulp<'_>) -> fmt::Result {
    let name = ulp.name().unwrap_or_default();
    write!(out, " tcp-ulp-{}", Safe(&String::from_utf8_lossy(name)))?;
    if let Some(tls) = ulp.tls() {
        write_tls(out, &tls)?;
    }
    if let Some(mptcp) = ulp.mptcp() {
        write_mptcp(out, &mptcp)?;
    }
    Ok(())
}

fn write_tls(out: &mut impl Put, tls: &Tls) -> fmt::Result {
    for (label, name, number) in [
        ("version", tls.version_name(), tls.version),
        ("cipher", tls.cipher_name(), tls.cipher),
        ("rxconf", Tls::conf_name(tls.rxconf), tls.rxconf),
        ("txconf", Tls::conf_name(tls.txconf), tls.txconf),
    ] {
        match (name, number) {
            (Some(name), _) => write!(out, " {label}:{name}")?,
            (None, Some(number)) => write!(out, " {label}:0x{number:x}")?,
            (None, None) => {}
        }
    }
    if tls.zc_ro_tx {
        out.write_str(" zc_ro_tx")?;
    }
    if tls.rx_no_pad {
        out.write_str(" rx_no_pad")?;
    }
    Ok(())
}

fn write_mptcp(out: &mut impl Put, mptcp: &Mptcp) -> fmt::Result {
    if let Some(flags) = mptcp.flags.filter(|flags| *flags != SubflowFlags(0)) {
        out.write_str(" flags:")?;
        flags
            .letters()
            .try_for_each(|letter| out.write_char(letter))?;
    }
    if let Some(token) = mptcp.token_rem {
        let id = mptcp.id_rem.unwrap_or(0);
        write!(out, " token:{token:04x}(id:{id})")?;
    }
    if let Some(token) = mptcp.token_loc {
        let label = if mptcp.token_rem.is_some() {
            "/"
        } else {
            " token:"
        };
        let id = mptcp.id_loc.unwrap_or(0);
        write!(out, "{label}{token:x}(id:{id})")?;
    }
    if let Some(sequence) = mptcp.map_seq {
        write!(out, " seq:{sequence:x}")?;
    }
    if let Some(sequence) = mptcp.map_sfseq {
        write!(out, " sfseq:{sequence:x}")?;
    }
    if let Some(offset) = mptcp.ssn_offset {
        write!(out, " ssnoff:{offset:x}")?;
    }
    if let Some(bytes) = mptcp.map_datalen_bytes {
        write!(out, " maplen:{bytes:x}")?;
    }
    Ok(())
}

/// 256ths with six digits at most and no noughts at the end: `2.88672`, `0.5`.
fn write_gain(out: &mut impl Put, gain: u32) -> fmt::Result {
    let parts = (u64::from(gain) * 100_000 + 128) / 256;
    let (whole, mut rest) = (parts / 100_000, parts % 100_000);
    out.number(whole)?;
    if rest == 0 {
        return Ok(());
    }
    out.ascii(".")?;
    let mut first = 10_000;
    while rest < first {
        out.ascii("0")?;
        first /= 10;
    }
    while rest % 10 == 0 {
        rest /= 10;
    }
    out.number(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::tests::Fixture;
    use crate::fields::{Needs, by_id};
    use crate::model::SockOpts;
    use crate::model::nla::built;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn show(rest: Vec<u8>, write: fn(&mut String, &Record<'_>) -> fmt::Result) -> String {
        let mut fixture = Fixture::new();
        fixture.rest = rest;
        let mut out = String::new();
        fixture.with(|record| write(&mut out, record)).unwrap();
        out
    }

    #[test]
    fn congestion_controls_speak_like_ss() {
        let bbr = |gain| built(&[(16, &words(&[7_240_000, 0, 22, gain, gain]))]);
        assert_eq!(
            show(bbr(739), write_congestion),
            " bbr:(bw:57.9Mbps,mrtt:0.022,pacing_gain:2.88672,cwnd_gain:2.88672)"
        );
        assert_eq!(
            show(bbr(0), write_congestion),
            " bbr:(bw:57.9Mbps,mrtt:0.022)"
        );
        let vegas = built(&[(3, &words(&[1, 3, 500, u32::MAX]))]);
        assert_eq!(
            show(vegas, write_congestion),
            " vegas:(enabled,rttcnt:3,rtt:0.5)"
        );
        let dctcp =
            |enabled: u16| [words(&[u32::from(enabled).to_le()]), words(&[512, 3, 4])].concat();
        assert_eq!(
            show(built(&[(9, &dctcp(1))]), write_congestion),
            " dctcp:(ce_state:0,alpha:512,ab_ecn:3,ab_tot:4)"
        );
        assert_eq!(
            show(built(&[(9, &dctcp(0))]), write_congestion),
            " dctcp:fallback_mode"
        );
        assert_eq!(show(Vec::new(), write_congestion), "");
    }

    #[test]
    fn gains_have_six_digits_and_no_noughts() {
        assert_eq!(
            [739, 256, 128, 320, 1, 257].map(|gain| {
                let mut out = String::new();
                write_gain(&mut out, gain).unwrap();
                out
            }),
            ["2.88672", "1", "0.5", "1.25", "0.00391", "1.00391"]
        );
    }

    #[test]
    fn upper_layer_protocols_speak_like_ss() {
        let tls = built(&[
            (1, &0x0303u16.to_ne_bytes()),
            (2, &51u16.to_ne_bytes()),
            (3, &2u16.to_ne_bytes()),
            (4, &9u16.to_ne_bytes()),
            (5, &[]),
        ]);
        let rest = built(&[(19, &built(&[(1, b"tls\0"), (2, &tls)]))]);
        assert_eq!(
            show(rest, write_beside_info),
            " tcp-ulp-tls version:1.2 cipher:aes-gcm-128 rxconf:0x9 txconf:sw zc_ro_tx"
        );
        let subflow = built(&[
            (1, &0u32.to_ne_bytes()),
            (2, &0x2967_a59du32.to_ne_bytes()),
            (4, &0x59bb_6cb8_c3aa_82e5u64.to_ne_bytes()),
            (5, &0xffccu32.to_ne_bytes()),
            (6, &0x34ad_cfa1u32.to_ne_bytes()),
            (7, &0x4002u16.to_ne_bytes()),
            (8, &0xc1u32.to_ne_bytes()),
        ]);
        let rest = built(&[(19, &built(&[(1, b"mptcp\0"), (3, &subflow)]))]);
        assert_eq!(
            show(rest, write_beside_info),
            " tcp-ulp-mptcp flags:Mec token:0000(id:0)/2967a59d(id:0) seq:59bb6cb8c3aa82e5 sfseq:ffcc ssnoff:34adcfa1 \
                maplen:4002"
        );
        let listener = built(&[(19, &built(&[(1, b"mptcp\0")]))]);
        assert_eq!(show(listener, write_beside_info), " tcp-ulp-mptcp");
        let hostile = built(&[(19, &built(&[(1, b"\x1b[2J\xff\0")]))]);
        assert!(!show(hostile, write_beside_info).contains('\x1b'));
    }

    #[test]
    fn of_signatures_and_options_only_what_may_be_told_and_what_is_unusual() {
        let mut key = vec![2, 24, 6, 0, 10, 0, 0, 0];
        key.resize(20, 0);
        key.resize(100, b'k');
        let rest = built(&[(18, &key.repeat(2)), (20, &[])]);
        assert_eq!(
            show(rest.clone(), write_beside_info),
            " md5keys:10.0.0.0/24,10.0.0.0/24"
        );
        assert_eq!(show(rest, write_options), " bpf_storage");
        let mut fixture = Fixture::new();
        let record = |options: [u8; 2]| {
            let mut attributes = fixture.attributes();
            attributes.sockopt = SockOpts::parse(&options);
            let mut out = String::new();
            fixture
                .with(|record| {
                    write_options(
                        &mut out,
                        &Record {
                            attributes: &attributes,
                            ..*record
                        },
                    )
                })
                .unwrap();
            out
        };
        assert_eq!(record([0x52, 0]), "");
        assert_eq!(
            record([0x77, 1]),
            " sockopt:recverr,freebind,transparent,bind_address_no_port"
        );
        fixture.rest.clear();
    }

    fn cell(rest: &[(u16, &[u8])], id: &str) -> String {
        let mut fixture = Fixture::new();
        fixture.rest = built(rest);
        let mut out = String::new();
        fixture
            .with(|record| {
                super::super::cell::write(&mut out, &by_id(id).unwrap().value(record), false)
            })
            .unwrap();
        out
    }

    #[test]
    fn a_column_has_what_its_attribute_says_and_else_nothing() {
        let bbr = words(&[7_240_000, 0, 22, 739, 512]);
        let vegas = words(&[1, 3, 500, 0x7fff_ffff]);
        let dctcp = [words(&[1]), words(&[512, 3, 4])].concat();
        let tls = built(&[
            (1, &0x0304u16.to_ne_bytes()),
            (2, &77u16.to_ne_bytes()),
            (3, &2u16.to_ne_bytes()),
        ]);
        let tls = built(&[(1, b"tls\0"), (2, &tls)]);
        let subflow = built(&[(2, &0x1fu32.to_ne_bytes()), (8, &3u32.to_ne_bytes())]);
        let mptcp = built(&[(1, b"mptcp\0"), (3, &subflow)]);
        let mut md5 = vec![2, 24, 6, 0, 10, 0, 0, 0];
        md5.resize(100, b'k');
        let table: &[(&str, u16, &[u8], &str)] = &[
            ("bbr-bw", 16, &bbr, "7240000"),
            ("bbr-min-rtt", 16, &bbr, "22"),
            ("bbr-pacing-gain", 16, &bbr, "289"),
            ("bbr-cwnd-gain", 16, &bbr, "200"),
            ("vegas-rtt", 3, &vegas, "500"),
            ("vegas-min-rtt", 3, &vegas, "-"),
            ("dctcp-alpha", 9, &dctcp, "512"),
            ("dctcp-ab-ecn", 9, &dctcp, "3"),
            ("dctcp-ab-tot", 9, &dctcp, "4"),
            ("ulp", 19, &tls, "tls"),
            ("tls-version", 19, &tls, "1.3"),
            ("tls-cipher", 19, &tls, "0x4d"),
            ("tls-txconf", 19, &tls, "sw"),
            ("tls-rxconf", 19, &tls, "-"),
            ("mptcp-token", 19, &mptcp, "0x1f"),
            ("mptcp-flags", 19, &mptcp, "mcap_rem,mcap_loc"),
            ("md5", 18, &md5, "10.0.0.0/24"),
            ("bpf-storage", 20, &[], "yes"),
        ];
        for (id, kind, value, text) in table {
            assert_eq!(cell(&[(*kind, value)], id), *text, "{id}");
            assert_eq!(cell(&[], id), "-", "{id}");
            assert_ne!(by_id(id).unwrap().needs, Needs::Row, "{id}");
        }
        assert_eq!(cell(&[], "sockopt"), "is_icsk,mc_loop,mc_all");
        assert_eq!(cell(&[], "cgroup-id"), "26");
        assert_eq!(cell(&[], "tos"), "-");
    }
}
