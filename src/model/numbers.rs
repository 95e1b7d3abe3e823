//! Names of the numbers that sockets have instead of ports.

/// The name of a protocol over IP (the numbers of IANA, the names of `/etc/protocols`).
pub const fn ip_protocol(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "icmp",
        2 => "igmp",
        4 => "ipencap",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        41 => "ipv6",
        46 => "rsvp",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "ipv6-icmp",
        88 => "eigrp",
        89 => "ospf",
        103 => "pim",
        108 => "ipcomp",
        112 => "vrrp",
        115 => "l2tp",
        132 => "sctp",
        136 => "udplite",
        137 => "mpls-in-ip",
        255 => "raw",
        _ => return None,
    })
}

/// The name of a protocol of frames (`include/uapi/linux/if_ether.h`). `none` receives nothing, `*` everything.
pub const fn ethertype(number: u16) -> Option<&'static str> {
    Some(match number {
        0 => "none",
        0x0003 => "*",
        0x0004 => "802_2",
        0x0800 => "ip",
        0x0806 => "arp",
        0x22f0 => "tsn",
        0x8035 => "rarp",
        0x8100 => "802.1Q",
        0x8137 => "ipx",
        0x86dd => "ipv6",
        0x8847 => "mpls_uc",
        0x8848 => "mpls_mc",
        0x8863 => "ppp_disc",
        0x8864 => "ppp_ses",
        0x888e => "pae",
        0x88a8 => "802.1ad",
        0x88ca => "tipc",
        0x88cc => "lldp",
        0x88e5 => "macsec",
        0x88f7 => "1588",
        0x8906 => "fcoe",
        0x8914 => "fip",
        0x9000 => "loop",
        _ => return None,
    })
}

/// The name of a part of the kernel that speaks netlink (`include/uapi/linux/netlink.h`), as ss has it.
pub const fn netlink_family(number: u8) -> Option<&'static str> {
    Some(match number {
        0 => "rtnl",
        2 => "usersock",
        3 => "fw",
        4 => "tcpdiag",
        5 => "nflog",
        6 => "xfrm",
        7 => "selinux",
        8 => "iscsi",
        9 => "audit",
        10 => "fiblookup",
        11 => "connector",
        12 => "nft",
        13 => "ip6fw",
        14 => "dec-rt",
        15 => "uevent",
        16 => "genl",
        18 => "scsi-trans",
        19 => "ecryptfs",
        20 => "rdma",
        21 => "crypto",
        22 => "smc",
        _ => return None,
    })
}
