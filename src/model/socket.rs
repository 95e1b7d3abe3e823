//! One socket as the kernel describes it: small, `Copy`, without anything that needs a look-up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

use super::congestion::{Bbr, CongestionInfo, Dctcp, Vegas};
use super::nla::Nlas;
use super::options::{Md5, SockOpts};
use super::protocol::Protocol;
use super::state::TcpState;
use super::tcp_info::TcpInfo;
use super::ulp::Ulp;

/// The address family of the *socket*. An IPv6 socket may hold an IPv4 conversation (v4-mapped addresses).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// `AF_INET`
    Ipv4,
    /// `AF_INET6`
    Ipv6,
}

impl Family {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }

    /// The name in sentences.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

/// An address and a port in 18 bytes. An IPv4 address is kept v4-mapped; [`Socket::family`] tells the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// the address in network order; IPv4 as `::ffff:a.b.c.d`
    pub address: [u8; 16],
    /// the port; of the own end of a RAW socket its protocol, as `idiag_sport` and `/proc/net/raw` have it
    pub port: u16,
}

impl Endpoint {
    /// An endpoint of an IPv4 socket.
    pub const fn v4(address: [u8; 4], port: u16) -> Self {
        let [a, b, c, d] = address;
        Self {
            address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d],
            port,
        }
    }

    /// An endpoint of an IPv6 socket.
    pub const fn v6(address: [u8; 16], port: u16) -> Self {
        Self { address, port }
    }

    /// The address of the conversation: IPv4 where it is v4-mapped, whatever the socket's family.
    pub fn ip(&self) -> IpAddr {
        Ipv6Addr::from(self.address).to_canonical()
    }

    /// The address as a socket of `family` has it: a v4-mapped one of an IPv6 socket stays IPv6.
    pub fn ip_as(&self, family: Family) -> IpAddr {
        let v6 = Ipv6Addr::from(self.address);
        match family {
            Family::Ipv4 => v6.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
            Family::Ipv6 => v6.into(),
        }
    }

    /// Whether the address is the wildcard (`0.0.0.0` or `::`).
    pub fn is_unspecified(&self) -> bool {
        self.ip().is_unspecified()
    }
}

/// The timer that runs for a socket (`idiag_timer`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// 0: none
    None,
    /// 1: retransmission, loss probe, reordering or SYN-ACK timer; ss calls it `on`
    Retransmit,
    /// 2: keepalive, or tcp_fin_timeout of an orphan in FIN-WAIT-2
    Keepalive,
    /// 3: the time a mini-socket (TIME-WAIT, orphaned FIN-WAIT-2) has left
    TimeWait,
    /// 4: zero-window probe
    Persist,
    /// a number that no kernel known to this program uses
    Unknown(u8),
}

impl Timer {
    /// The timer with the kernel's number.
    pub const fn from_kernel(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Retransmit,
            2 => Self::Keepalive,
            3 => Self::TimeWait,
            4 => Self::Persist,
            other => Self::Unknown(other),
        }
    }

    /// The name in JSON and tables; `None` without a timer.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Retransmit => Some("retransmit"),
            Self::Keepalive => Some("keepalive"),
            Self::TimeWait => Some("time-wait"),
            Self::Persist => Some("persist"),
            Self::Unknown(_) => Some("unknown"),
        }
    }
}

/// The place of a socket's digest: in [`super::snapshot::Snapshot::infos`], or among those at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InfoId(NonZeroU32);

impl InfoId {
    /// The id of the digest at `index`; `None` past what an id can count.
    pub fn new(index: usize) -> Option<Self> {
        Self::made(index, false)
    }

    /// The same among those at rest.
    pub fn at_rest(index: usize) -> Option<Self> {
        Self::made(index, true)
    }

    fn made(index: usize, at_rest: bool) -> Option<Self> {
        let place = u32::try_from(index).ok()?.checked_mul(2)?;
        place
            .checked_add(1 + u32::from(at_rest))
            .and_then(NonZeroU32::new)
            .map(Self)
    }

    /// The index.
    pub const fn index(self) -> usize {
        (self.0.get() as usize - 1) / 2
    }

    /// Whether it is one of those at rest.
    pub const fn is_at_rest(self) -> bool {
        self.0.get().is_multiple_of(2)
    }
}

/// One socket (`struct inet_diag_msg`, `include/uapi/linux/inet_diag.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// the kernel's identity of the socket, stable from the handshake to the end of TIME-WAIT; `/proc` has none
    pub cookie: Option<NonZeroU64>,
    /// this end
    pub local: Endpoint,
    /// the other end; the wildcard and port 0 for LISTEN
    pub remote: Endpoint,
    /// the file's inode; 0 where no process owns the socket (or not yet: it waits for `accept`)
    pub inode: u32,
    /// as the kernel sent it; see [`Socket::owner_uid`]
    pub uid: u32,
    /// bytes received and not yet read (an unread FIN counts 1), of other protocols than TCP with overhead; for LISTEN
    /// the accept queue's length
    pub recv_q: u32,
    /// bytes sent and not yet acknowledged; for LISTEN the accept queue's limit, see [`Socket::backlog`]
    pub send_q: u32,
    /// milliseconds until the timer is due; 0 is "due now"
    pub timer_ms: u32,
    /// the interface it is bound to; 0 is any
    pub ifindex: u32,
    /// its `tcp_info`, where a snapshot keeps it
    pub info: Option<InfoId>,
    /// which network namespace of the snapshot
    pub netns: u16,
    /// retransmissions (timer 1), probes (2, 4) or SYN-ACKs sent again (SYN-RECEIVED)
    pub retransmits: u8,
    /// the running timer
    pub timer: Timer,
    /// the state
    pub state: TcpState,
    /// the protocol
    pub protocol: Protocol,
    /// the family of the socket
    pub family: Family,
}

const _: () = assert!(
    size_of::<Socket>() <= 88,
    "a row is small: a million of them must stay cheap"
);

impl Socket {
    /// The state's name. Only TCP has its states: a UDP socket uses two of their numbers for "has a peer" and "has
    /// none" (`TCP_ESTABLISHED` and `TCP_CLOSE` in `net/ipv4/udp.c`). Those of SCTP are kept as the states of TCP that
    /// play the same part, and have the names of RFC 9260, section 4.
    pub const fn state_name(&self) -> Option<&'static str> {
        match (self.protocol, self.state) {
            (Protocol::Sctp, state) if super::sctp::state_name(state).is_some() => {
                super::sctp::state_name(state)
            }
            (protocol, TcpState::Closed) if !protocol.has_tcp_states() => Some("UNCONNECTED"),
            (_, state) => state.name(),
        }
    }

    /// Whether the kernel keeps only a mini-socket, which has neither inode nor uid: TIME-WAIT, an orphan in
    /// FIN-WAIT-2 after `tcp_fin_timeout` took over, SYN-RECEIVED.
    pub fn is_mini(&self) -> bool {
        self.protocol == Protocol::Tcp
            && (matches!(
                self.state,
                TcpState::TimeWait | TcpState::SynReceived | TcpState::NewSynReceived
            ) || (self.state == TcpState::FinWait2 && self.timer == Timer::TimeWait))
    }

    /// The owner's uid. A mini-socket has forgotten it (the kernel sends 0, which is not root's).
    pub fn owner_uid(&self) -> Option<u32> {
        (!self.is_mini()).then_some(self.uid)
    }

    /// LISTEN: the limit of the accept queue. `None` for other states, and for a row of `/proc` (known by having no
    /// cookie), which prints 0 in its place.
    pub fn backlog(&self) -> Option<u32> {
        (self.state == TcpState::Listen && self.cookie.is_some()).then_some(self.send_q)
    }

    /// The local address as the socket's family has it.
    pub fn local_ip(&self) -> IpAddr {
        self.local.ip_as(self.family)
    }

    /// The peer's address as the socket's family has it.
    pub fn remote_ip(&self) -> IpAddr {
        self.remote.ip_as(self.family)
    }

    /// Whether both ends are on this host by a loopback address, or by one and the same address.
    pub fn is_loopback(&self) -> bool {
        self.remote.ip().is_loopback()
            || (self.local.address == self.remote.address && !self.remote.is_unspecified())
    }
}

/// Memory of a socket in bytes (`INET_DIAG_SKMEMINFO`, `include/uapi/linux/sock_diag.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// `SK_MEMINFO_RMEM_ALLOC`: received and not yet read, with overhead
    pub rmem_alloc: u32,
    /// `SK_MEMINFO_RCVBUF`: the limit of it
    pub rcvbuf: u32,
    /// `SK_MEMINFO_WMEM_ALLOC`: handed to the device
    pub wmem_alloc: u32,
    /// `SK_MEMINFO_SNDBUF`: the limit of what is sent or waits
    pub sndbuf: u32,
    /// `SK_MEMINFO_FWD_ALLOC`: reserved ahead
    pub fwd_alloc: u32,
    /// `SK_MEMINFO_WMEM_QUEUED`: in the send queue, with overhead
    pub wmem_queued: u32,
    /// `SK_MEMINFO_OPTMEM`: options and filters
    pub optmem: u32,
    /// `SK_MEMINFO_BACKLOG`: received while the owner held the socket's lock
    pub backlog: Option<u32>,
    /// `SK_MEMINFO_DROPS`: packets dropped since the socket was made
    pub drops: Option<u32>,
}

impl Memory {
    /// Reads the attribute by the length that the kernel sent; `None` if the first seven words are not there.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut words = bytes
            .chunks_exact(4)
            .map(|word| word.try_into().map_or(0, u32::from_ne_bytes));
        Some(Self {
            rmem_alloc: words.next()?,
            rcvbuf: words.next()?,
            wmem_alloc: words.next()?,
            sndbuf: words.next()?,
            fwd_alloc: words.next()?,
            wmem_queued: words.next()?,
            optmem: words.next()?,
            backlog: words.next(),
            drops: words.next(),
        })
    }
}

/// What else the kernel said of a socket. Borrows the message it came in; members are decoded when asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// `INET_DIAG_INFO` of TCP, of whatever length the kernel knows
    pub tcp_info: Option<&'a [u8]>,
    /// `INET_DIAG_INFO` of MPTCP: `struct mptcp_info` (`include/uapi/linux/mptcp.h`, [`super::mptcp_info`])
    pub mptcp_info: Option<&'a [u8]>,
    /// `INET_DIAG_INFO` of SCTP: `struct sctp_info` (`include/uapi/linux/sctp.h`)
    pub sctp_info: Option<&'a [u8]>,
    /// `INET_DIAG_LOCALS` of SCTP: the addresses of this end ([`super::sctp::addresses`])
    pub locals: Option<&'a [u8]>,
    /// `INET_DIAG_PEERS` of SCTP: the addresses of the other end. A row that has them is an association, one without is
    /// the socket itself
    pub peers: Option<&'a [u8]>,
    /// `INET_DIAG_SKMEMINFO`
    pub memory: Option<&'a [u8]>,
    /// packets dropped since the socket was made, where a table of `/proc/net` has that column
    pub listed_drops: Option<u32>,
    /// `INET_DIAG_CONG`: the name of the congestion control, without the final NUL
    pub congestion: Option<&'a [u8]>,
    /// `INET_DIAG_SHUTDOWN`: bit 0 receiving, bit 1 sending was shut down
    pub shutdown: Option<u8>,
    /// `INET_DIAG_SKV6ONLY`
    pub v6only: Option<bool>,
    /// `INET_DIAG_TOS`
    pub tos: Option<u8>,
    /// `INET_DIAG_TCLASS`
    pub tclass: Option<u8>,
    /// `INET_DIAG_MARK`: SO_MARK; the kernel tells it only to CAP_NET_ADMIN
    pub mark: Option<u32>,
    /// `INET_DIAG_CLASS_ID`
    pub class_id: Option<u32>,
    /// `INET_DIAG_CGROUP_ID`
    pub cgroup: Option<NonZeroU64>,
    /// `INET_DIAG_SOCKOPT`
    pub sockopt: Option<SockOpts>,
    /// the attributes that few sockets have, as they came; see [`Attributes::is_rare`]
    pub rest: &'a [u8],
    /// the whole netlink message, header included, for who keeps it; a row of `/proc/net` has none
    pub message: Option<&'a [u8]>,
    /// what a snapshot keeps of `tcp_info`, where that itself was not kept
    pub digest: Option<&'a TcpInfo>,
}

const _: () = assert!(
    size_of::<Attributes<'_>>() <= 200,
    "it is copied for each row: what few sockets have belongs into `rest`"
);

// `include/uapi/linux/inet_diag.h`
const INET_DIAG_VEGASINFO: u16 = 3;
const INET_DIAG_DCTCPINFO: u16 = 9;
const INET_DIAG_BBRINFO: u16 = 16;
const INET_DIAG_MD5SIG: u16 = 18;
const INET_DIAG_ULP_INFO: u16 = 19;
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;

impl<'a> Attributes<'a> {
    /// Whether an attribute of this kind is one of those that few sockets have, which are kept in [`Attributes::rest`].
    pub const fn is_rare(kind: u16) -> bool {
        matches!(
            kind,
            INET_DIAG_VEGASINFO
                | INET_DIAG_DCTCPINFO
                | INET_DIAG_BBRINFO
                | INET_DIAG_MD5SIG
                | INET_DIAG_ULP_INFO
                | INET_DIAG_SK_BPF_STORAGES
        )
    }

    /// The id of the socket's cgroup, which is never 0.
    pub fn cgroup_id(&self) -> Option<u64> {
        self.cgroup.map(NonZeroU64::get)
    }

    /// What a snapshot keeps of `tcp_info`.
    pub fn info(&self) -> Option<TcpInfo> {
        let whole = self.tcp_info.and_then(TcpInfo::parse);
        whole.or_else(|| self.digest.copied())
    }

    fn rare(&self, kind: u16) -> Option<&'a [u8]> {
        Nlas::new(self.rest).find(kind)
    }

    /// What the congestion control says of itself, if it was asked for and has something to say.
    pub fn congestion_info(&self) -> Option<CongestionInfo> {
        Nlas::new(self.rest).find_map(|(kind, value)| match kind {
            INET_DIAG_BBRINFO => Bbr::parse(value).map(CongestionInfo::Bbr),
            INET_DIAG_VEGASINFO => Vegas::parse(value).map(CongestionInfo::Vegas),
            INET_DIAG_DCTCPINFO => Dctcp::parse(value).map(CongestionInfo::Dctcp),
            _ => None,
        })
    }

    /// The upper-layer protocol, which the kernel tells together with `tcp_info`.
    pub fn ulp(&self) -> Option<Ulp<'a>> {
        self.rare(INET_DIAG_ULP_INFO).map(Ulp::new)
    }

    /// Whose segments need an MD5 signature, which the kernel tells together with `tcp_info`, and only to
    /// CAP_NET_ADMIN.
    pub fn md5(&self) -> Option<Md5<'a>> {
        self.rare(INET_DIAG_MD5SIG).and_then(Md5::new)
    }

    /// Whether BPF programs keep something of their own with the socket. Only who asks for it is told.
    pub fn has_bpf_storage(&self) -> bool {
        self.rare(INET_DIAG_SK_BPF_STORAGES).is_some()
    }

    /// The memory, if it was asked for and came whole.
    pub fn memory(&self) -> Option<Memory> {
        self.memory.and_then(Memory::parse)
    }

    /// Packets dropped since the socket was made, wherever that was said.
    pub fn drops(&self) -> Option<u32> {
        self.memory()
            .and_then(|memory| memory.drops)
            .or(self.listed_drops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_mapped_addresses_are_shown_honestly_and_compared_as_ipv4() {
        let endpoint = Endpoint::v4([10, 0, 0, 7], 80);
        assert_eq!(endpoint.ip_as(Family::Ipv6).to_string(), "::ffff:10.0.0.7");
        assert_eq!(endpoint.ip_as(Family::Ipv4).to_string(), "10.0.0.7");
        assert_eq!(endpoint.ip().to_string(), "10.0.0.7");
    }

    #[test]
    fn a_row_of_proc_does_not_know_its_backlog() {
        let mut socket = Socket {
            cookie: NonZeroU64::new(1),
            local: Endpoint::v4([127, 0, 0, 1], 80),
            remote: Endpoint::v4([0; 4], 0),
            inode: 1,
            uid: 0,
            recv_q: 0,
            send_q: 0,
            timer_ms: 0,
            ifindex: 0,
            info: None,
            netns: 0,
            retransmits: 0,
            timer: Timer::None,
            state: TcpState::Listen,
            protocol: Protocol::Tcp,
            family: Family::Ipv4,
        };
        assert_eq!(socket.backlog(), Some(0), "listen(0) is a limit of 0");
        socket.cookie = None;
        assert_eq!(socket.backlog(), None);
        socket.cookie = NonZeroU64::new(1);
        socket.state = TcpState::Established;
        assert_eq!(socket.backlog(), None);
    }

    #[test]
    fn only_tcp_has_closed_sockets() {
        let socket = |protocol, state| Socket {
            cookie: None,
            local: Endpoint::v4([0; 4], 53),
            remote: Endpoint::v4([0; 4], 0),
            inode: 1,
            uid: 0,
            recv_q: 0,
            send_q: 0,
            timer_ms: 0,
            ifindex: 0,
            info: None,
            netns: 0,
            retransmits: 0,
            timer: Timer::None,
            state,
            protocol,
            family: Family::Ipv4,
        };
        let name = |protocol, state| socket(protocol, state).state_name();
        assert_eq!(name(Protocol::Udp, TcpState::Closed), Some("UNCONNECTED"));
        let connected = name(Protocol::Udp, TcpState::Established);
        assert_eq!(connected, Some("ESTABLISHED"));
        assert_eq!(name(Protocol::Tcp, TcpState::Closed), Some("CLOSED"));
    }

    #[test]
    fn memory_is_read_by_the_length_that_came() {
        let bytes: Vec<u8> = (1u32..=9).flat_map(u32::to_ne_bytes).collect();
        assert_eq!(Memory::parse(&bytes).unwrap().drops, Some(9));
        assert_eq!(Memory::parse(&bytes[..32]).unwrap().drops, None);
        assert_eq!(Memory::parse(&bytes[..24]), None);
    }
}
