//! What is asked for, and which of the kernel's tables have it.

use crate::model::{Family, Protocol, StateSet};

/// What is needed. Nobody pays for what no column and no detector asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// of which sockets: one dump is of one protocol
    pub protocol: Protocol,
    /// the states
    pub states: StateSet,
    /// sockets of IPv4
    pub ipv4: bool,
    /// sockets of IPv6
    pub ipv6: bool,
    /// `INET_DIAG_INFO`; it triples what the kernel copies
    pub tcp_info: bool,
    /// `INET_DIAG_SKMEMINFO`
    pub memory: bool,
    /// `INET_DIAG_CONG`
    pub congestion: bool,
    /// what the congestion control says of itself: `INET_DIAG_VEGASINFO`, which DCTCP and BBR answer too
    pub congestion_info: bool,
    /// the attributes of `-e` that have to be asked for: type of service, traffic class, class id
    pub tos: bool,
}

impl Want {
    /// Addresses, states, queues and timers of the TCP sockets in `states`, both families.
    pub const fn states(states: StateSet) -> Self {
        Self {
            protocol: Protocol::Tcp,
            states,
            ipv4: true,
            ipv6: true,
            tcp_info: false,
            memory: false,
            congestion: false,
            congestion_info: false,
            tos: false,
        }
    }

    /// Every socket of `protocol`, with its memory.
    pub const fn all(protocol: Protocol) -> Self {
        Self {
            protocol,
            memory: true,
            ..Self::states(StateSet::ALL)
        }
    }

    /// The tables that have what is wanted, in the order in which they are read.
    pub fn tables(&self) -> impl Iterator<Item = Table> + use<> {
        let want = *self;
        let tables = if want.protocol.over_ip() {
            [Family::Ipv4, Family::Ipv6].map(|family| Some(Table::of(want.protocol, family)))
        } else {
            [Some(Table::without_family(want.protocol)), None]
        };
        tables
            .into_iter()
            .flatten()
            .filter(move |table| !want.states.is_empty() && want.table(*table))
    }

    /// Whether rows of `table` are wanted.
    pub fn table(&self, table: Table) -> bool {
        table.protocol == self.protocol && table.family.is_none_or(|family| self.family(family))
    }

    /// Whether sockets of `family` are wanted.
    pub const fn family(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }
}

/// One of the kernel's tables: what one request of `sock_diag`, or one file of `/proc/net`, is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// the protocol of its sockets
    pub protocol: Protocol,
    /// their family, where they have addresses of IP
    pub family: Option<Family>,
}

impl Table {
    /// The table of a protocol over IP.
    pub const fn of(protocol: Protocol, family: Family) -> Self {
        Self {
            protocol,
            family: Some(family),
        }
    }

    /// The only table of a protocol that has no addresses of IP.
    pub const fn without_family(protocol: Protocol) -> Self {
        Self {
            protocol,
            family: None,
        }
    }

    /// The name in sentences.
    pub fn label(self) -> String {
        match self.family {
            Some(family) => format!("{} over {}", self.protocol.label(), family.label()),
            None => self.protocol.sockets().to_owned(),
        }
    }
}

/// The TCP table of the family.
impl From<Family> for Table {
    fn from(family: Family) -> Self {
        Self::of(Protocol::Tcp, family)
    }
}
