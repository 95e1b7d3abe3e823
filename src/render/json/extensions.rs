//! What only some sockets have: options, upper-layer protocol, the congestion control's own info.

use std::io::{self, Write};

use super::Object;
use crate::fields::{List, Record};
use crate::model::congestion::{Bbr, CongestionInfo, Dctcp, Vegas};
use crate::model::ulp::{Mptcp, Tls};
use crate::model::{Md5, Ulp};

/// Attributes that came unasked.
pub(super) fn write_options<W: Write>(
    object: &mut Object<'_, W>,
    record: &Record<'_>,
) -> io::Result<()> {
    let attributes = record.attributes;
    if let Some(options) = attributes.sockopt {
        object.list("sockopt", List::SockOpts(options))?;
    }
    for (key, addresses) in [
        ("sctp_locals", attributes.locals),
        ("sctp_peers", attributes.peers),
    ] {
        if let Some(addresses) = addresses {
            object.list(key, List::Addresses(addresses))?;
        }
    }
    if attributes.has_bpf_storage() {
        object.value("bpf_storage", true)?;
    }
    Ok(())
}

/// Attributes that came together with `tcp_info`.
pub(super) fn write_beside_info<W: Write>(
    object: &mut Object<'_, W>,
    record: &Record<'_>,
) -> io::Result<()> {
    match record.attributes.congestion_info() {
        Some(CongestionInfo::Bbr(bbr)) => write_bbr(object.key("bbr")?, &bbr)?,
        Some(CongestionInfo::Vegas(vegas)) => write_vegas(object.key("vegas")?, &vegas)?,
        Some(CongestionInfo::Dctcp(dctcp)) => write_dctcp(object.key("dctcp")?, &dctcp)?,
        None => {}
    }
    if let Some(ulp) = record.attributes.ulp() {
        write_ulp(object.key("ulp")?, &ulp)?;
    }
    if let Some(md5) = record.attributes.md5() {
        write_md5(object.key("md5")?, md5)?;
    }
    Ok(())
}

/// 256ths as a number.
fn gain(gain: u32) -> f64 {
    f64::from(gain) / 256.0
}

fn write_bbr(out: &mut impl Write, bbr: &Bbr) -> io::Result<()> {
    let mut object = Object::begin(out)?;
    object.value("bw_bytes_per_s", bbr.bw_bytes_per_s)?;
    object.value("min_rtt_us", bbr.min_rtt_us)?;
    object.value("pacing_gain", gain(bbr.pacing_gain))?;
    object.value("cwnd_gain", gain(bbr.cwnd_gain))?;
    object.end()
}

fn write_vegas(out: &mut impl Write, vegas: &Vegas) -> io::Result<()> {
    let mut object = Object::begin(out)?;
    object.value("enabled", vegas.enabled)?;
    object.value("rttcnt", vegas.rttcnt)?;
    object.value("rtt_us", vegas.rtt_us)?;
    object.known("min_rtt_us", vegas.min_rtt_us())?;
    object.end()
}

fn write_dctcp(out: &mut impl Write, dctcp: &Dctcp) -> io::Result<()> {
    let mut object = Object::begin(out)?;
    object.value("enabled", dctcp.enabled)?;
    object.value("ce_state", dctcp.ce_state)?;
    object.value("alpha", f64::from(dctcp.alpha) / 1024.0)?;
    object.value("ab_ecn_bytes", dctcp.ab_ecn_bytes)?;
    object.value("ab_tot_bytes", dctcp.ab_tot_bytes)?;
    object.end()
}

fn write_ulp(out: &mut impl Write, ulp: &Ulp<'_>) -> io::Result<()> {
    let mut object = Object::begin(out)?;
    object.known("name", ulp.name().map(String::from_utf8_lossy))?;
    if let Some(tls) = ulp.tls() {
        write_tls(object.key("tls")?, &tls)?;
    }
    if let Some(mptcp) = ulp.mptcp() {
        write_mptcp(object.key("mptcp")?, &mptcp)?;
    }
    object.end()
}

fn write_tls(out: &mut impl Write, tls: &Tls) -> io::Result<()> {
    let mut object = Object::begin(out)?;
    for (key, name, number) in [
        ("version", tls.version_name(), tls.version),
        ("cipher", tls.cipher_name(), tls.cipher),
        ("txconf", Tls::conf_name(tls.txconf), tls.txconf),
        ("rxconf", Tls::conf_name(tls.rxconf), tls.rxconf),
    ] {
        match (name, number) {
            (Some(name), _) => object.plain(key, name)?,
            (None, Some(number)) => object.plain(key, format_args!("0x{number:x}"))?,
            (None, None) => {}
        }
    }
    object.value("zc_ro_tx", tls.zc_ro_tx)?;
    object.value("rx_no_pad", tls.rx_no_pad)?;
    object.end()
}

fn write_mptcp(out: &mut impl Write, mptcp: &Mptcp) -> io::Result<()> {
    let mut object = Object::begin(out)?;
    if let Some(flags) = mptcp.flags {
        object.list("flags", List::Subflow(flags))?;
    }
    object.known("token_rem", mptcp.token_rem)?;
    object.known("token_loc", mptcp.token_loc)?;
    object.known("id_rem", mptcp.id_rem)?;
    object.known("id_loc", mptcp.id_loc)?;
    object.known("relwrite_seq", mptcp.relwrite_seq)?;
    if let Some(sequence) = mptcp.map_seq {
        // It has more digits than a double.
        object.plain("map_seq", format_args!("0x{sequence:x}"))?;
    }
    object.known("map_sfseq", mptcp.map_sfseq)?;
    object.known("ssn_offset", mptcp.ssn_offset)?;
    object.known("map_datalen_bytes", mptcp.map_datalen_bytes)?;
    object.end()
}

fn write_md5(out: &mut impl Write, md5: Md5<'_>) -> io::Result<()> {
    out.write_all(b"[")?;
    for (at, prefix) in md5.prefixes().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        let mut object = Object::begin(out)?;
        object.plain("address", prefix.address)?;
        object.value("prefix_length", prefix.length)?;
        object.end()?;
    }
    out.write_all(b"]")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use crate::fields::tests::Fixture;
    use crate::model::nla::built;
    use crate::render::json::{Parts, write_socket};

    fn object(rest: Vec<u8>, parts: Parts) -> Json {
        let mut fixture = Fixture::new();
        fixture.rest = rest;
        let mut out = Vec::new();
        fixture
            .with(|record| write_socket(&mut out, record, parts))
            .unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    const INFO: Parts = Parts {
        info: true,
        owners: false,
        memory: false,
        extended: false,
    };

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn congestion_controls_tell_with_units() {
        let bbr = object(built(&[(16, &words(&[100, 1, 22, 739, 512]))]), INFO);
        assert_eq!(
            bbr["bbr"],
            json!({"bw_bytes_per_s": 4_294_967_396u64, "min_rtt_us": 22, "pacing_gain": 2.886_718_75, "cwnd_gain": 2.0})
        );
        let vegas = object(built(&[(3, &words(&[1, 3, 500, 400]))]), INFO);
        assert_eq!(
            vegas["vegas"],
            json!({"enabled": true, "rttcnt": 3, "rtt_us": 500, "min_rtt_us": 400})
        );
        let dctcp = [words(&[0]), words(&[512, 3, 4])].concat();
        let dctcp = object(built(&[(9, &dctcp)]), INFO);
        assert_eq!(
            dctcp["dctcp"],
            json!({"enabled": false, "ce_state": 0, "alpha": 0.5, "ab_ecn_bytes": 3, "ab_tot_bytes": 4})
        );
        let clipped = object(built(&[(16, &words(&[100, 1]))]), INFO);
        assert_eq!(clipped.get("bbr"), None);
    }

    #[test]
    fn an_upper_layer_protocol_is_told_and_no_key() {
        let tls = built(&[
            (1, &0x0304u16.to_ne_bytes()),
            (2, &99u16.to_ne_bytes()),
            (3, &2u16.to_ne_bytes()),
            (6, &[]),
        ]);
        let mut key = vec![2, 24, 6, 0, 10, 0, 0, 0];
        key.resize(20, 0);
        key.resize(100, b'k');
        let rest = built(&[(19, &built(&[(1, b"t\"ls\0"), (2, &tls)])), (18, &key)]);
        let row = object(rest.clone(), INFO);
        assert_eq!(
            row["ulp"],
            json!({"name": "t\"ls", "tls": {"version": "1.3", "cipher": "0x63", "txconf": "sw",
                "zc_ro_tx": false, "rx_no_pad": true}})
        );
        assert_eq!(
            row["md5"],
            json!([{"address": "10.0.0.0", "prefix_length": 24}])
        );
        assert!(!row.to_string().contains("kk"));
        let without = object(rest, Parts::default());
        assert_eq!((without.get("ulp"), without.get("md5")), (None, None));
    }

    #[test]
    fn a_subflow_and_options_are_told() {
        let subflow = built(&[
            (2, &7u32.to_ne_bytes()),
            (4, &u64::MAX.to_ne_bytes()),
            (8, &3u32.to_ne_bytes()),
        ]);
        let rest = built(&[(19, &built(&[(1, b"mptcp\0"), (3, &subflow)])), (20, &[])]);
        let all = Parts {
            extended: true,
            ..INFO
        };
        let row = object(rest, all);
        assert_eq!(
            row["ulp"]["mptcp"],
            json!({"flags": ["mcap_rem", "mcap_loc"], "token_loc": 7, "map_seq": "0xffffffffffffffff"})
        );
        assert_eq!(row["sockopt"], json!(["is_icsk", "mc_loop", "mc_all"]));
        assert_eq!(row.get("sctp_peers"), None);
        assert_eq!(row["bpf_storage"], true);
    }
}
