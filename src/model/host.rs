//! Facts about the host and the network namespace that the detectors relate sockets to.
//!
//! Everything is kept by the name that the kernel gives it, and what could not be read is absent: a child network
//! namespace has no `tcp_mem`, an old kernel no `TCPReqQFullDrop`, and neither is 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The sysctls that are read, by their path under `/proc/sys`.
pub const SYSCTLS: &[&str] = &[
    "fs/file-nr",
    "net/core/netdev_budget",
    "net/core/netdev_max_backlog",
    "net/core/rmem_max",
    "net/core/somaxconn",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_local_reserved_ports",
    "net/ipv4/tcp_abort_on_overflow",
    "net/ipv4/tcp_fin_timeout",
    "net/ipv4/tcp_keepalive_intvl",
    "net/ipv4/tcp_keepalive_probes",
    "net/ipv4/tcp_keepalive_time",
    "net/ipv4/tcp_max_orphans",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_max_tw_buckets",
    "net/ipv4/tcp_mem",
    "net/ipv4/tcp_migrate_req",
    "net/ipv4/tcp_orphan_retries",
    "net/ipv4/tcp_retries2",
    "net/ipv4/tcp_rfc1337",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_rto_max_ms",
    "net/ipv4/tcp_syn_linear_timeouts",
    "net/ipv4/tcp_syn_retries",
    "net/ipv4/tcp_synack_retries",
    "net/ipv4/tcp_syncookies",
    "net/ipv4/tcp_timestamps",
    "net/ipv4/tcp_tw_recycle",
    "net/ipv4/tcp_tw_reuse",
    "net/ipv4/tcp_tw_reuse_delay",
    "net/ipv4/tcp_wmem",
    "net/ipv4/udp_mem",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "net/netfilter/nf_conntrack_tcp_timeout_last_ack",
    "net/unix/max_dgram_qlen",
];

/// The facts, as one reading found them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// sysctl path under `/proc/sys` -> its text, trimmed
    pub sysctls: BTreeMap<String, String>,
    /// counters of `/proc/net/{snmp,netstat,snmp6}` as `TcpExt.ListenOverflows`, `Tcp.ActiveOpens`, `Ip6.InReceives`;
    /// of `/proc/net/softnet_stat` as `Softnet.dropped`, and of `/proc/net/stat/nf_conntrack` as `Conntrack.drop`, each
    /// summed over the processors
    pub counters: BTreeMap<String, i64>,
    /// gauges of `/proc/net/{sockstat,sockstat6}` as `TCP.tw`, `TCP6.inuse`, `sockets.used`
    pub sockstat: BTreeMap<String, i64>,
    /// bytes in a page, in which `tcp_mem` and sockstat's `mem` count
    pub page_size: Option<u64>,
    /// the multicast groups that interfaces have joined, without those that every host is in
    pub groups: Vec<std::net::IpAddr>,
}

impl Facts {
    /// A sysctl that is one number.
    pub fn sysctl(&self, path: &str) -> Option<i64> {
        self.sysctls
            .get(path)?
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()
    }

    /// A counter.
    pub fn counter(&self, name: &str) -> Option<i64> {
        self.counters.get(name).copied()
    }

    /// A gauge of sockstat.
    pub fn gauge(&self, name: &str) -> Option<i64> {
        self.sockstat.get(name).copied()
    }

    /// `ip_local_port_range`, both ends inclusive.
    pub fn port_range(&self) -> Option<(u16, u16)> {
        let mut words = self
            .sysctls
            .get("net/ipv4/ip_local_port_range")?
            .split_ascii_whitespace();
        let range = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        (range.0 <= range.1).then_some(range)
    }

    /// `ip_local_reserved_ports` as inclusive ranges; `None` where the sysctl could not be read.
    pub fn reserved_ports(&self) -> Option<Vec<(u16, u16)>> {
        let text = self.sysctls.get("net/ipv4/ip_local_reserved_ports")?;
        let range = |part: &str| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            Some((low.trim().parse().ok()?, high.trim().parse().ok()?))
        };
        Some(text.split(',').filter_map(range).collect())
    }

    /// How many local ports `connect` may choose from: the range without what is reserved in it.
    pub fn ephemeral_ports(&self) -> Option<u32> {
        let (low, high) = self.port_range()?;
        let reserved = self.reserved_ports().unwrap_or_default();
        let taken = |port: &u16| {
            reserved
                .iter()
                .any(|(from, to)| (*from..=*to).contains(port))
        };
        u32::try_from((low..=high).filter(|port| !taken(port)).count()).ok()
    }
}

/// Which host, kernel and namespace was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// the node name
    pub name: String,
    /// the kernel's release (`uname -r`)
    pub kernel: String,
    /// the inode of the network namespace that was read
    pub netns: Option<u64>,
    /// what tells one run of the machine from all others (`/proc/sys/kernel/random/boot_id`)
    pub boot_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(range: &str, reserved: &str) -> Facts {
        let mut facts = Facts::default();
        facts
            .sysctls
            .insert("net/ipv4/ip_local_port_range".into(), range.into());
        facts
            .sysctls
            .insert("net/ipv4/ip_local_reserved_ports".into(), reserved.into());
        facts
    }

    #[test]
    fn ephemeral_ports_are_the_range_without_the_reserved() {
        assert_eq!(facts("32768\t60999", "").ephemeral_ports(), Some(28232));
        assert_eq!(
            facts("1000 1009", "1003,1005-1006,8080").ephemeral_ports(),
            Some(7)
        );
        assert_eq!(facts("65000 65535", "65535").ephemeral_ports(), Some(535));
        assert_eq!(facts("9 1", "").ephemeral_ports(), None);
        assert_eq!(
            Facts::default().ephemeral_ports(),
            None,
            "absent is unknown, not 0"
        );
    }
}
