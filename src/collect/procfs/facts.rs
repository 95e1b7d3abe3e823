//! Settings and counters: sysctls, `net/{snmp,netstat,snmp6}`, `net/{sockstat,sockstat6}`.
//!
//! What cannot be read is absent: a child network namespace lacks some sysctls, an old kernel some counters, and a
//! kernel without IPv6 two of the files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::ProcRoot;
use crate::model::Facts;
use crate::model::host::SYSCTLS;

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
    for file in ["sockstat", "sockstat6"] {
        inline(
            &text(&net.join(file)).unwrap_or_default(),
            &mut facts.sockstat,
        );
    }
    facts
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
