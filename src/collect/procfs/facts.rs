//! Settings and counters: sysctls, `net/{snmp,netstat,snmp6}`, `net/{sockstat,sockstat6}`, `net/softnet_stat`,
//! `net/stat/nf_conntrack`, `net/{igmp,igmp6}`.
//!
//! What cannot be read is absent: a child network namespace lacks some sysctls, an old kernel some counters, and a
//! kernel without IPv6 two of the files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::ProcRoot;
use crate::model::age::AGE_SYSCTLS;
use crate::model::host::SYSCTLS;
use crate::model::{AgeFacts, Facts};

/// No file that is read here is longer but by malice; `netstat` has 6 KB.
const LONGEST_FILE: u64 = 1 << 20;

/// Reads what is there under `proc_root`.
pub fn read(proc_root: &Path) -> Facts {
    of(&ProcRoot::new(proc_root))
}

/// Reads what is there of the namespace that `root` shows.
pub fn of(root: &ProcRoot) -> Facts {
    let mut facts = Facts::default();
    for name in SYSCTLS {
        if let Some(text) = root.sysctl(name) {
            facts.sysctls.insert((*name).to_owned(), text);
        }
    }
    let net = root.net();
    for file in ["snmp", "netstat"] {
        paired(
            &text(&net.join(file)).unwrap_or_default(),
            &mut facts.counters,
        );
    }
    listed(
        &text(&net.join("snmp6")).unwrap_or_default(),
        &mut facts.counters,
    );
    facts.sockstat = sockstat(root);
    softnet(
        &text(&net.join("softnet_stat")).unwrap_or_default(),
        &mut facts.counters,
    );
    conntrack(
        &text(&net.join("stat/nf_conntrack")).unwrap_or_default(),
        &mut facts.counters,
    );
    facts.groups = groups(
        &text(&net.join("igmp")).unwrap_or_default(),
        &text(&net.join("igmp6")).unwrap_or_default(),
    );
    // The pages of another machine, or of a copy of its files, may have another size.
    facts.page_size = root
        .is_this_machine()
        .then(|| u64::try_from(rustix::param::page_size()).unwrap_or(4096));
    facts
}

/// The gauges of `net/{sockstat,sockstat6}` alone: how many sockets the namespace has of each protocol.
pub fn sockstat(root: &ProcRoot) -> BTreeMap<String, i64> {
    let mut gauges = BTreeMap::new();
    for file in ["sockstat", "sockstat6"] {
        inline(
            &text(&root.net().join(file)).unwrap_or_default(),
            &mut gauges,
        );
    }
    gauges
}

/// How many TCP segments the namespace has ever received (`Tcp.InSegs` of `net/snmp`).
pub fn segments_received(root: &ProcRoot) -> Option<i64> {
    let mut counters = BTreeMap::new();
    paired(&text(&root.net().join("snmp"))?, &mut counters);
    counters.remove("Tcp.InSegs")
}

/// The settings that ages depend on.
pub fn ages(root: &ProcRoot) -> AgeFacts {
    let mut facts = Facts::default();
    for name in AGE_SYSCTLS {
        if let Some(text) = root.sysctl(name) {
            facts.sysctls.insert((*name).to_owned(), text);
        }
    }
    AgeFacts::new(&facts)
}

/// A small file's text; `None` if it cannot be read.
pub(super) fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(LONGEST_FILE)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// `snmp` and `netstat`: a line of names, a line of values, both begun by the group (`TcpExt: ListenOverflows ...`).
/// The names differ from kernel to kernel, so each value goes by its own name.
fn paired(text: &str, into: &mut BTreeMap<String, i64>) {
    let mut header: Option<(&str, &str)> = None;
    for line in text.lines() {
        let Some((group, rest)) = line.split_once(": ") else {
            header = None;
            continue;
        };
        match header.take() {
            Some((of, names)) if of == group => {
                let values = rest.split_ascii_whitespace();
                for (name, value) in names.split_ascii_whitespace().zip(values) {
                    if let Ok(value) = value.parse() {
                        into.insert(format!("{group}.{name}"), value);
                    }
                }
            }
            _ => header = Some((group, rest)),
        }
    }
}

/// `snmp6`: a name and a value in each line. The group is the part of the name that ends with the 6: `Ip6InReceives` is
/// `Ip6.InReceives`, `UdpLite6InDatagrams` is `UdpLite6.InDatagrams`.
fn listed(text: &str, into: &mut BTreeMap<String, i64>) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(name), Some(value)) = (words.next(), words.next())
            && let Some((group, rest)) = name.split_once('6')
            && let Ok(value) = value.parse()
        {
            into.insert(format!("{group}6.{rest}"), value);
        }
    }
}

/// `sockstat`: a group and then names and values by turns (`TCP: inuse 4 orphan 0`).
fn inline(text: &str, into: &mut BTreeMap<String, i64>) {
    for line in text.lines() {
        let Some((group, rest)) = line.split_once(": ") else {
            continue;
        };
        let mut words = rest.split_ascii_whitespace();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            if let Ok(value) = value.parse() {
                into.insert(format!("{group}.{name}"), value);
            }
        }
    }
}

/// A line for each processor, hexadecimal numbers without names; the second and third are packets dropped because the
/// backlog was full, and rounds that ended with work left (`softnet_seq_show` in `net/core/net-procfs.c`).
fn softnet(text: &str, into: &mut BTreeMap<String, i64>) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace().skip(1);
        for name in ["Softnet.dropped", "Softnet.time_squeeze"] {
            if let Some(value) = words
                .next()
                .and_then(|word| i64::from_str_radix(word, 16).ok())
            {
                let sum = into.entry(name.to_owned()).or_default();
                *sum = sum.saturating_add(value);
            }
        }
    }
}

/// A line of names, then one of hexadecimal numbers for each processor. `entries` is a gauge, and the same in each
/// line.
fn conntrack(text: &str, into: &mut BTreeMap<String, i64>) {
    let mut lines = text.lines();
    let names: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .collect();
    for line in lines {
        for (name, word) in names.iter().zip(line.split_ascii_whitespace()) {
            if *name != "entries"
                && let Ok(value) = i64::from_str_radix(word, 16)
            {
                let sum = into.entry(format!("Conntrack.{name}")).or_default();
                *sum = sum.saturating_add(value);
            }
        }
    }
}

/// The groups of `igmp` (hexadecimal as the bytes lie in memory, in lines that begin with blanks) and of `igmp6`
/// (the third word), without all-hosts, all-nodes and the solicited-node groups.
fn groups(igmp: &str, igmp6: &str) -> Vec<IpAddr> {
    let v4 = igmp
        .lines()
        .filter(|line| line.starts_with('\t'))
        .filter_map(|line| {
            let word = line.split_ascii_whitespace().next()?;
            let bytes = u32::from_str_radix(word, 16).ok()?.to_ne_bytes();
            Some(Ipv4Addr::from(bytes))
        });
    let v6 = igmp6.lines().filter_map(|line| {
        let word = line.split_ascii_whitespace().nth(2)?;
        Some(Ipv6Addr::from(u128::from_str_radix(word, 16).ok()?))
    });
    let everybody = Ipv4Addr::new(224, 0, 0, 1);
    let mut groups: Vec<IpAddr> = v4
        .filter(|group| *group != everybody)
        .map(IpAddr::from)
        .chain(
            v6.filter(|group| {
                let [scope, .., last] = group.segments();
                let segments = group.segments();
                let all_nodes = matches!(scope, 0xff01 | 0xff02)
                    && last == 1
                    && segments.iter().skip(1).take(6).all(|s| *s == 0);
                let solicited = scope == 0xff02 && segments.get(5) == Some(&1);
                !all_nodes && !solicited
            })
            .map(IpAddr::from),
        )
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parsed(parse: fn(&str, &mut BTreeMap<String, i64>), text: &str) -> Vec<(String, i64)> {
        let mut map = BTreeMap::new();
        parse(text, &mut map);
        map.into_iter().collect()
    }

    fn entries(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
        expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect()
    }

    #[test]
    fn counters_go_by_the_name_above_them() {
        let text = "Tcp: MaxConn ActiveOpens\nTcp: -1 7\nTcpExt: A B C\nTcpExt: 1 2\nIpExt: X\nMPTcpExt: Y\nMPTcpExt: 5\n";
        assert_eq!(
            parsed(paired, text),
            entries(&[
                ("MPTcpExt.Y", 5),
                ("Tcp.ActiveOpens", 7),
                ("Tcp.MaxConn", -1),
                ("TcpExt.A", 1),
                ("TcpExt.B", 2),
            ]),
            "a name without a value is unknown, not 0"
        );
        assert_eq!(parsed(paired, "A: x\nB: 1\nB: y\nA: 1\n"), []);
    }

    #[test]
    fn ipv6_counters_are_split_after_the_6() {
        let text = "Ip6InReceives                   \t12\nUdp6RcvbufErrors \t3\nUdpLite6InDatagrams 1\nIcmp6InType136 2\nodd\n";
        assert_eq!(
            parsed(listed, text),
            entries(&[
                ("Icmp6.InType136", 2),
                ("Ip6.InReceives", 12),
                ("Udp6.RcvbufErrors", 3),
                ("UdpLite6.InDatagrams", 1),
            ])
        );
    }

    #[test]
    fn processors_are_summed() {
        let softnet_stat = "0000000a 00000002 000000ff 0\n0000000b 00000010 00000001 0\n";
        assert_eq!(
            parsed(softnet, softnet_stat),
            entries(&[("Softnet.dropped", 18), ("Softnet.time_squeeze", 256)])
        );
        let stat = "entries  found invalid drop\n0000001e 0 00000002 00000001\n0000001e 0 00000003 0000000a\n";
        assert_eq!(
            parsed(conntrack, stat),
            entries(&[
                ("Conntrack.drop", 11),
                ("Conntrack.found", 0),
                ("Conntrack.invalid", 5)
            ])
        );
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn groups_that_every_host_is_in_are_left_out() {
        let igmp = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\t\t\t\tFB0000E0     1 0:00000000\t\t0\n";
        let igmp6 = "1    lo              ff020000000000000000000000000001     1 0000000C 0\n1    lo              ff01000000000000000000000000fb     1 00000008 0\n1 lo ff0200000000000000000001ff000001 1 0 0\n1 lo ff0200000000000000000000000000fb 1 0 0\n";
        let groups: Vec<String> = groups(igmp, igmp6)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(groups.contains(&"224.0.0.251".to_owned()), "{groups:?}");
        assert!(groups.contains(&"ff02::fb".to_owned()), "{groups:?}");
        assert!(
            !groups
                .iter()
                .any(|g| g == "224.0.0.1" || g == "ff02::1" || g.starts_with("ff02::1:ff")),
            "{groups:?}"
        );
    }

    #[test]
    fn gauges_alternate_with_their_names() {
        let text = "sockets: used 9\nTCP: inuse 4 orphan 0 tw\nUDP:\n";
        assert_eq!(
            parsed(inline, text),
            entries(&[("TCP.inuse", 4), ("TCP.orphan", 0), ("sockets.used", 9)])
        );
    }

    #[test]
    fn the_fixture_is_read_and_absent_is_absent() {
        let facts = read(Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/data/proc"
        )));
        assert_eq!(facts.sysctl("net/ipv4/tcp_fin_timeout"), Some(60));
        assert_eq!(facts.port_range(), Some((32768, 60999)));
        assert_eq!(
            facts.sysctl("net/ipv4/tcp_mem"),
            None,
            "not in a child namespace"
        );
        assert!(facts.counter("Tcp.ActiveOpens").unwrap() > 0);
        assert!(facts.counter("TcpExt.ListenOverflows").unwrap() > 0);
        assert!(facts.counter("Ip6.InReceives").unwrap() > 0);
        assert!(facts.gauge("TCP.tw").unwrap() > 0);
        assert!(facts.gauge("TCP6.inuse").unwrap() > 0);
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(read(empty.path()), Facts::default());
    }

    #[test]
    fn sysctls_are_trimmed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sys/net/ipv4")).unwrap();
        fs::write(
            root.path().join("sys/net/ipv4/tcp_rmem"),
            "4096\t131072\t6291456\n",
        )
        .unwrap();
        let facts = read(root.path());
        assert_eq!(facts.sysctls.len(), 1);
        assert_eq!(facts.sysctls["net/ipv4/tcp_rmem"], "4096\t131072\t6291456");
    }

    #[test]
    fn this_machine_agrees_with_the_procfs_crate() {
        use procfs::Current;
        let facts = read(Path::new("/proc"));
        let snmp = procfs::net::Snmp::current().unwrap();
        assert_eq!(
            facts.counter("Tcp.RtoMax"),
            Some(snmp.tcp_rto_max as i64),
            "a counter that does not move"
        );
        assert!(facts.sysctl("net/core/somaxconn").unwrap() > 0);
        assert!(facts.gauge("sockets.used").unwrap() > 0);
    }
}
