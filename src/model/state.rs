//! The TCP states: the eleven of RFC 9293 section 3.3.2, and the two that Linux adds.
//!
//! Numbers are the kernel's (`include/net/tcp_states.h`), as `sock_diag` and `/proc/net/tcp` give them.

use std::fmt;

use super::protocol::Protocol;

/// The state of a TCP socket. Total: every number the kernel may ever send has a value here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TcpState {
    /// `TCP_ESTABLISHED`, 1
    Established,
    /// `TCP_SYN_SENT`, 2
    SynSent,
    /// `TCP_SYN_RECV`, 3
    SynReceived,
    /// `TCP_FIN_WAIT1`, 4
    FinWait1,
    /// `TCP_FIN_WAIT2`, 5
    FinWait2,
    /// `TCP_TIME_WAIT`, 6
    TimeWait,
    /// `TCP_CLOSE`, 7
    Closed,
    /// `TCP_CLOSE_WAIT`, 8
    CloseWait,
    /// `TCP_LAST_ACK`, 9
    LastAck,
    /// `TCP_LISTEN`, 10
    Listen,
    /// `TCP_CLOSING`, 11
    Closing,
    /// `TCP_NEW_SYN_RECV`, 12: a request socket, which Linux shows as SYN-RECEIVED
    NewSynReceived,
    /// `TCP_BOUND_INACTIVE`, 13 (Linux 6.8): bound to a port, neither listening nor connected
    BoundInactive,
    /// a number that no kernel known to this program uses
    Unknown(u8),
}

impl TcpState {
    /// The states that are shown, in the order in which a connection lives; NEW_SYN_RECV is shown as SYN-RECEIVED.
    pub const SHOWN: [Self; 12] = [
        Self::Listen,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::Closing,
        Self::LastAck,
        Self::TimeWait,
        Self::Closed,
        Self::BoundInactive,
    ];

    /// The state with the kernel's number `number`.
    pub const fn from_kernel(number: u8) -> Self {
        match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Closed,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            12 => Self::NewSynReceived,
            13 => Self::BoundInactive,
            other => Self::Unknown(other),
        }
    }

    /// The kernel's number for this state.
    pub const fn number(self) -> u8 {
        match self {
            Self::Established => 1,
            Self::SynSent => 2,
            Self::SynReceived => 3,
            Self::FinWait1 => 4,
            Self::FinWait2 => 5,
            Self::TimeWait => 6,
            Self::Closed => 7,
            Self::CloseWait => 8,
            Self::LastAck => 9,
            Self::Listen => 10,
            Self::Closing => 11,
            Self::NewSynReceived => 12,
            Self::BoundInactive => 13,
            Self::Unknown(number) => number,
        }
    }

    /// The state under which this one is shown and counted.
    pub const fn shown(self) -> Self {
        match self {
            Self::NewSynReceived => Self::SynReceived,
            other => other,
        }
    }

    /// The position in [`TcpState::SHOWN`]; `None` for an unknown number.
    pub fn index(self) -> Option<usize> {
        let shown = self.shown();
        Self::SHOWN.iter().position(|state| *state == shown)
    }

    /// The documented name (RFC 9293); `None` for an unknown number, which [`fmt::Display`] shows as `UNKNOWN(n)`.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN-SENT",
            Self::SynReceived | Self::NewSynReceived => "SYN-RECEIVED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::TimeWait => "TIME-WAIT",
            Self::Closed => "CLOSED",
            Self::CloseWait => "CLOSE-WAIT",
            Self::LastAck => "LAST-ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
            Self::BoundInactive => "BOUND-INACTIVE",
            Self::Unknown(_) => return None,
        })
    }

    /// The name in JSON: the documented one in lower case; `None` for an unknown number (`unknown(n)`).
    pub const fn slug(self) -> Option<&'static str> {
        Some(match self {
            Self::Established => "established",
            Self::SynSent => "syn-sent",
            Self::SynReceived | Self::NewSynReceived => "syn-received",
            Self::FinWait1 => "fin-wait-1",
            Self::FinWait2 => "fin-wait-2",
            Self::TimeWait => "time-wait",
            Self::Closed => "closed",
            Self::CloseWait => "close-wait",
            Self::LastAck => "last-ack",
            Self::Listen => "listen",
            Self::Closing => "closing",
            Self::BoundInactive => "bound-inactive",
            Self::Unknown(_) => return None,
        })
    }

    /// Reads any spelling in use: RFC 9293, ss, netstat, node_exporter, the kernel's constants. Case and the
    /// choice of `-`, `_` or nothing between the words do not matter.
    pub fn parse(text: &str) -> Option<Self> {
        let folded: String = text
            .trim()
            .chars()
            .filter(|c| !matches!(c, '-' | '_'))
            .flat_map(char::to_lowercase)
            .collect();
        let folded = folded.strip_prefix("tcp").unwrap_or(&folded);
        Some(match folded {
            "established" | "estab" | "est" => Self::Established,
            "synsent" | "synsend" => Self::SynSent,
            "synreceived" | "synrecv" | "synrcv" | "synrcvd" | "newsynrecv" | "newsynreceived" => {
                Self::SynReceived
            }
            "finwait1" => Self::FinWait1,
            "finwait2" => Self::FinWait2,
            "timewait" => Self::TimeWait,
            "closed" | "close" | "unconnected" | "unconn" => Self::Closed,
            "closewait" => Self::CloseWait,
            "lastack" => Self::LastAck,
            "listen" | "listening" => Self::Listen,
            "closing" => Self::Closing,
            "boundinactive" => Self::BoundInactive,
            _ => return None,
        })
    }
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self) {
            (Some(name), _) => f.pad(name),
            // On a row's way nobody pads, and so nothing is allocated.
            (None, state) if f.width().is_none() => write!(f, "UNKNOWN({})", state.number()),
            (None, state) => f.pad(&format!("UNKNOWN({})", state.number())),
        }
    }
}

/// A set of states, as the bit mask that the kernel takes (`idiag_states`, bit n for state n).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateSet(u32);

impl StateSet {
    /// No state.
    pub const EMPTY: Self = Self(0);
    /// Every state, those that later kernels may add included.
    pub const ALL: Self = Self(u32::MAX);
    /// What `list` shows unasked: all but LISTEN, CLOSED and BOUND-INACTIVE.
    pub const DEFAULT: Self = Self(
        !(Self::bit(TcpState::Listen)
            | Self::bit(TcpState::Closed)
            | Self::bit(TcpState::BoundInactive)),
    );
    /// ss's group `connected`: all but LISTEN, CLOSED and BOUND-INACTIVE, of the states that are known.
    pub const CONNECTED: Self = Self(Self::DEFAULT.0 & 0x3fff);
    /// ss's group `synchronized`: connected without SYN-SENT.
    pub const SYNCHRONIZED: Self = Self(Self::CONNECTED.0 & !Self::bit(TcpState::SynSent));
    /// ss's group `bucket`: what the kernel keeps as a mini-socket, SYN-RECEIVED and TIME-WAIT.
    pub const BUCKET: Self = Self(
        Self::bit(TcpState::SynReceived)
            | Self::bit(TcpState::NewSynReceived)
            | Self::bit(TcpState::TimeWait),
    );
    /// ss's group `big`: what is not a mini-socket.
    pub const BIG: Self = Self(0x0fff & !Self::BUCKET.0);

    /// The groups by the names that ss gives them.
    pub const GROUPS: [(&'static str, Self); 5] = [
        ("all", Self::ALL),
        ("connected", Self::CONNECTED),
        ("synchronized", Self::SYNCHRONIZED),
        ("bucket", Self::BUCKET),
        ("big", Self::BIG),
    ];

    const fn bit(state: TcpState) -> u32 {
        let number = state.number();
        1 << if number < 32 { number } else { 31 }
    }

    /// The set of one shown state (SYN-RECEIVED brings NEW_SYN_RECV with it).
    pub const fn of(state: TcpState) -> Self {
        match state {
            TcpState::SynReceived | TcpState::NewSynReceived => {
                Self(Self::bit(TcpState::SynReceived) | Self::bit(TcpState::NewSynReceived))
            }
            other => Self(Self::bit(other)),
        }
    }

    /// Whether `state` is in the set.
    pub const fn contains(self, state: TcpState) -> bool {
        self.0 & Self::bit(state) != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What both sets share.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// This set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether it was made by naming states, and not by taking some away from all.
    pub const fn is_named(self) -> bool {
        !self.contains(TcpState::Unknown(u8::MAX))
    }

    /// The states in which sockets of `protocol` may be meant (see [`StateSet::means`]): what a kernel has to tell.
    #[must_use]
    pub const fn of_protocol(self, protocol: Protocol) -> Self {
        let waits = !protocol.can_listen() || matches!(protocol, Protocol::Unix);
        if waits && self.contains(TcpState::Listen) {
            self.union(Self::of(TcpState::Closed))
        } else {
            self
        }
    }

    /// Whether a socket in `state` is meant. Where LISTEN was named, so is one that waits for anybody although its
    /// protocol has no LISTEN (`waits`).
    pub const fn means(self, state: TcpState, waits: bool) -> bool {
        self.contains(state) || waits && self.is_named() && self.contains(TcpState::Listen)
    }

    /// Whether no state is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The mask for `idiag_states`.
    pub const fn mask(self) -> u32 {
        self.0
    }

    /// Reads a state in any spelling, or the name of a group.
    pub fn parse(text: &str) -> Option<Self> {
        let group = Self::GROUPS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        group
            .map(|(_, set)| *set)
            .or_else(|| TcpState::parse(text).map(Self::of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_number_survives_a_round_trip() {
        for number in 0..=u8::MAX {
            assert_eq!(TcpState::from_kernel(number).number(), number);
        }
    }

    #[test]
    fn unknown_numbers_are_shown_with_their_number() {
        assert_eq!(TcpState::from_kernel(14).to_string(), "UNKNOWN(14)");
        assert_eq!(TcpState::from_kernel(0).to_string(), "UNKNOWN(0)");
        assert!(StateSet::ALL.contains(TcpState::Unknown(200)));
        assert!(StateSet::DEFAULT.contains(TcpState::Unknown(14)));
    }

    #[test]
    fn spellings_of_every_tool_are_read() {
        let table: &[(&str, TcpState)] = &[
            ("estab", TcpState::Established),
            ("ESTABLISHED", TcpState::Established),
            ("SYN_RCVD", TcpState::SynReceived),
            ("syn-recv", TcpState::SynReceived),
            ("syn-rcv", TcpState::SynReceived),
            ("TCP_NEW_SYN_RECV", TcpState::SynReceived),
            ("FIN_WAIT1", TcpState::FinWait1),
            ("fin-wait-2", TcpState::FinWait2),
            ("TIME_WAIT", TcpState::TimeWait),
            ("unconnected", TcpState::Closed),
            ("listening", TcpState::Listen),
            ("close", TcpState::Closed),
            ("CLOSE_WAIT", TcpState::CloseWait),
            ("last_ack", TcpState::LastAck),
            ("bound-inactive", TcpState::BoundInactive),
        ];
        for (text, state) in table {
            assert_eq!(TcpState::parse(text), Some(*state), "{text}");
        }
        assert_eq!(TcpState::parse("lisen"), None);
        for state in TcpState::SHOWN {
            assert_eq!(TcpState::parse(&state.to_string()), Some(state));
            assert_eq!(TcpState::parse(state.slug().unwrap()), Some(state));
        }
    }

    #[test]
    fn groups_have_the_masks_of_ss_without_bound_inactive() {
        // ss 6.1: connected 0xb7f, synchronized 0xb7b, bucket 0x48, big 0xfb7; bit 12 is NEW_SYN_RECV.
        assert_eq!(StateSet::CONNECTED.mask(), 0x1b7f);
        assert_eq!(StateSet::SYNCHRONIZED.mask(), 0x1b7b);
        assert_eq!(StateSet::BUCKET.mask(), 0x1048);
        assert_eq!(StateSet::BIG.mask(), 0x0fb7);
        for (name, set) in StateSet::GROUPS {
            assert_eq!(
                set.contains(TcpState::BoundInactive),
                name == "all",
                "{name}"
            );
        }
    }

    #[test]
    fn who_names_listen_means_all_who_wait_for_anybody() {
        let listen = StateSet::of(TcpState::Listen);
        assert!(listen.means(TcpState::Listen, false));
        assert!(listen.means(TcpState::Closed, true) && !listen.means(TcpState::Closed, false));
        let rest = StateSet::ALL.without(StateSet::of(TcpState::Closed));
        assert!(!rest.means(TcpState::Closed, true), "taken away by name");
        for (protocol, closed) in [
            (Protocol::Tcp, false),
            (Protocol::Udp, true),
            (Protocol::Unix, true),
            (Protocol::Vsock, false),
        ] {
            let set = listen.of_protocol(protocol);
            assert_eq!(set.contains(TcpState::Closed), closed, "{protocol:?}");
            let established = StateSet::of(TcpState::Established);
            assert_eq!(established.of_protocol(protocol), established);
        }
    }

    #[test]
    fn default_hides_only_listen_closed_and_bound_inactive() {
        for state in TcpState::SHOWN {
            let hidden = matches!(
                state,
                TcpState::Listen | TcpState::Closed | TcpState::BoundInactive
            );
            assert_eq!(StateSet::DEFAULT.contains(state), !hidden, "{state}");
        }
    }
}
