//! The counters of the kernel that tell of trouble, and of what (`include/uapi/linux/snmp.h`,
//! `Documentation/networking/snmp_counter.rst`, RFC 4022, RFC 4293).

/// Counters by their names in [`crate::model::Facts::counters`], the most telling first, each with what one more of it is.
pub const TROUBLE: &[(&str, &str)] = &[
    (
        "TcpExt.ListenOverflows",
        "a full accept queue lost a connection",
    ),
    ("TcpExt.ListenDrops", "a listener dropped a connection"),
    ("TcpExt.TCPReqQFullDrop", "a full SYN queue dropped a SYN"),
    (
        "TcpExt.TCPReqQFullDoCookies",
        "a full SYN queue answered with a cookie",
    ),
    ("TcpExt.SyncookiesSent", "a SYN was answered with a cookie"),
    (
        "TcpExt.SyncookiesFailed",
        "an answer with a false cookie came",
    ),
    (
        "TcpExt.TCPAbortOnMemory",
        "a connection was reset for lack of memory",
    ),
    (
        "TcpExt.TCPMemoryPressures",
        "TCP came under memory pressure",
    ),
    (
        "TcpExt.PruneCalled",
        "a socket's received data was squeezed",
    ),
    ("TcpExt.RcvPruned", "received data was thrown away"),
    ("TcpExt.OfoPruned", "data out of order was thrown away"),
    (
        "TcpExt.TCPRcvQDrop",
        "a full receive queue dropped a segment",
    ),
    (
        "TcpExt.TCPZeroWindowDrop",
        "a segment came against a closed window",
    ),
    (
        "TcpExt.TCPBacklogDrop",
        "a busy socket's backlog dropped a segment",
    ),
    (
        "TcpExt.TCPTimeWaitOverflow",
        "TIME-WAIT was skipped: its table was full",
    ),
    ("TcpExt.TCPAbortOnTimeout", "a connection timed out"),
    (
        "TcpExt.TCPAbortOnData",
        "data came after a close, or linger 0: reset",
    ),
    ("TcpExt.TCPAbortOnClose", "a close left data unread: reset"),
    (
        "TcpExt.TCPAbortOnLinger",
        "a linger time-out reset a connection",
    ),
    ("TcpExt.TCPAbortFailed", "a reset could not be sent"),
    ("Tcp.AttemptFails", "a handshake failed"),
    ("Tcp.EstabResets", "an established connection was reset"),
    ("Tcp.OutRsts", "a reset was sent"),
    ("Tcp.RetransSegs", "a segment was sent again"),
    ("TcpExt.TCPTimeouts", "a retransmission timer fired"),
    ("TcpExt.TCPSynRetrans", "a SYN or its answer was sent again"),
    (
        "TcpExt.TCPLostRetransmit",
        "what was sent again got lost again",
    ),
    ("TcpExt.TCPRetransFail", "a segment could not be sent again"),
    ("TcpExt.TCPToZeroWindowAdv", "a window was closed to a peer"),
    ("Tcp.InErrs", "a bad segment came"),
    ("Tcp.InCsumErrors", "a segment with a false checksum came"),
    (
        "TcpExt.TCPMD5NotFound",
        "a segment without its signature came",
    ),
    (
        "TcpExt.TCPMD5Unexpected",
        "a segment with a signature nobody expects came",
    ),
    (
        "TcpExt.TCPMD5Failure",
        "a segment with a false signature came",
    ),
    (
        "TcpExt.PAWSEstab",
        "a segment with a timestamp of the past came",
    ),
    ("TcpExt.EmbryonicRsts", "a handshake was reset"),
    (
        "Udp.RcvbufErrors",
        "a full receive buffer dropped a datagram",
    ),
    (
        "Udp6.RcvbufErrors",
        "a full receive buffer dropped a datagram",
    ),
    ("Udp.MemErrors", "a datagram was dropped for lack of memory"),
    (
        "Udp6.MemErrors",
        "a datagram was dropped for lack of memory",
    ),
    ("Udp.SndbufErrors", "a datagram was not sent: full buffer"),
    ("Udp6.SndbufErrors", "a datagram was not sent: full buffer"),
    ("Udp.InErrors", "a datagram could not be delivered"),
    ("Udp6.InErrors", "a datagram could not be delivered"),
    ("Udp.NoPorts", "a datagram came for a port that nobody has"),
    ("Udp6.NoPorts", "a datagram came for a port that nobody has"),
    ("Softnet.dropped", "the host dropped a packet: full backlog"),
    (
        "Softnet.time_squeeze",
        "the host stopped receiving with packets left",
    ),
    ("Conntrack.drop", "connection tracking dropped a packet"),
    (
        "Conntrack.early_drop",
        "a tracked connection gave way to a new one",
    ),
    (
        "Conntrack.insert_failed",
        "a connection could not be tracked",
    ),
    (
        "Ip.InDiscards",
        "the host dropped a packet that it received",
    ),
    (
        "Ip6.InDiscards",
        "the host dropped a packet that it received",
    ),
    (
        "Ip.OutDiscards",
        "the host dropped a packet that it had to send",
    ),
    (
        "Ip6.OutDiscards",
        "the host dropped a packet that it had to send",
    ),
    ("Ip.OutNoRoutes", "a packet had no route"),
    ("Ip6.OutNoRoutes", "a packet had no route"),
    ("Ip.ReasmFails", "fragments could not be joined"),
    ("Ip6.ReasmFails", "fragments could not be joined"),
    (
        "TcpExt.IPReversePathFilter",
        "the reverse path filter dropped a packet",
    ),
];

/// The place of a counter among those that tell of trouble, and of what it tells.
pub fn trouble(name: &str) -> Option<(usize, &'static str)> {
    let mut all = TROUBLE.iter().enumerate();
    all.find_map(|(at, (known, what))| (*known == name).then_some((at, *what)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_in_few_words() {
        for (at, (name, what)) in TROUBLE.iter().enumerate() {
            assert_eq!(trouble(name), Some((at, *what)));
            assert!(what.len() <= 50 && !what.ends_with('.'), "{what}");
        }
        assert_eq!(trouble("Tcp.InSegs"), None);
    }
}
