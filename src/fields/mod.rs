//! The registry of columns: what can be asked of a row, by name. Tables, JSON, sorting, grouping and help derive
//! from it.
//!
//! A new column is a [`Field`] in the file of its group and one line in [`ALL`]. The members of `tcp_info` are columns
//! too, by their keys in JSON (`rtt_us`).

mod ends;
mod extensions;
mod identity;
mod kernel;
mod members;
mod needs;
mod owner;
mod queues;
#[cfg(test)]
pub(crate) mod tests;
pub mod value;

use crate::model::container::{Container, Pod, container_of, pod_of};
use std::net::IpAddr;

use crate::model::nearest::nearest;
use crate::model::tcp_info::Member;
use crate::model::{
    Age, AgeFacts, Attributes, Ends, Namespace, Owners, Protocol, Socket, TcpState, UnixKind,
    WaitingOn,
};

pub use ends::End;
pub(crate) use ends::{kind, netid};
pub use needs::{Kind, Needed, Needs};
pub use value::{EndNames, Holders, Interface, Key, List, NoOwner, Value};

/// Names that the kernel's numbers stand for. What is not known stays a number.
pub trait Names {
    /// The name of the interface with `index` in the namespace that a socket's `netns` counts.
    fn interface(&self, _netns: u16, _index: u32) -> Option<&str> {
        None
    }

    /// The network namespace that a socket's `netns` counts.
    fn namespace(&self, _netns: u16) -> Option<&Namespace> {
        None
    }

    /// The name of the user with `uid`.
    fn user(&self, _uid: u32) -> Option<&str> {
        None
    }

    /// The name of the host with the address.
    fn host(&self, _ip: IpAddr) -> Option<&str> {
        None
    }

    /// The name of the service at the port.
    fn service(&self, _protocol: Protocol, _port: u16) -> Option<&str> {
        None
    }

    /// The path of the cgroup with `id`, as seen from the root of the hierarchy.
    fn cgroup(&self, _id: u64) -> Option<&str> {
        None
    }
}

/// Knows no names.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNames;

impl Names for NoNames {}

/// A row and what belongs to it, borrowed while it is shown.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// the socket
    pub socket: &'a Socket,
    /// what else the kernel said
    pub attributes: &'a Attributes<'a>,
    /// its ends, where they are not the addresses of `socket`
    pub ends: Ends<'a>,
    /// who holds what; `None` if nobody looked
    pub owners: Option<&'a Owners>,
    /// the settings that ages depend on
    pub ages: &'a AgeFacts,
    /// names for numbers
    pub names: &'a dyn Names,
}

impl<'a> Record<'a> {
    /// For how long the socket has been in its state.
    pub fn age(&self) -> Option<Age> {
        if !self.socket.protocol.has_tcp_states() {
            return None;
        }
        self.ages
            .in_state(self.socket, self.attributes.info().as_ref())
    }

    /// For whom the connection waits.
    pub fn waiting_on(&self) -> Option<WaitingOn> {
        if !self.socket.protocol.has_tcp_states() {
            return None;
        }
        WaitingOn::new(self.socket, self.attributes.info().as_ref())
    }

    /// The name of the socket's family.
    pub const fn family(&self) -> &'static str {
        match self.ends {
            Ends::Ip => self.socket.family.name(),
            _ => self.socket.protocol.name(),
        }
    }

    /// Whether the socket has no peer and takes what anybody sends, although its protocol knows no LISTEN: UDP, and a
    /// UNIX datagram socket that has a name.
    pub fn waits_for_anybody(&self) -> bool {
        self.socket.state == TcpState::Closed
            && match self.ends {
                Ends::Unix(unix) => unix.kind == UnixKind::Datagram && unix.name.is_some(),
                _ => !self.socket.protocol.can_listen(),
            }
    }

    /// The owner's uid, where it is told.
    pub fn uid(&self) -> Option<u32> {
        match self.ends {
            Ends::Ip => self.socket.owner_uid(),
            ends => ends.uid(),
        }
    }

    /// What was received and not yet read, where it is told.
    pub fn recv_q(&self) -> Option<u32> {
        match self.ends {
            Ends::Ip => Some(self.socket.recv_q),
            ends => ends.recv_q(),
        }
    }

    /// What was sent and not yet taken; for LISTEN the limit of the queue; where it is told.
    pub fn send_q(&self) -> Option<u32> {
        match self.ends {
            // What `/proc/net` prints for a listener is not its limit.
            Ends::Ip if self.socket.state == TcpState::Listen => self.socket.backlog(),
            Ends::Ip => Some(self.socket.send_q),
            ends => ends.send_q(),
        }
    }

    /// The interface that the socket is bound to.
    pub fn interface(&self) -> Option<Interface<'a>> {
        let index = self.socket.ifindex;
        (index != 0).then(|| Interface {
            index,
            name: self.names.interface(self.socket.netns, index),
        })
    }

    /// The names of an end of the socket.
    pub fn end_names(&self, ip: IpAddr, port: u16) -> EndNames<'a> {
        EndNames {
            host: self.names.host(ip),
            service: self.names.service(self.socket.protocol, port),
        }
    }

    /// Who holds the socket; `None` if nobody looked.
    pub fn holders(&self) -> Option<Holders<'a>> {
        self.owners.map(|owners| Holders::new(owners, self.socket))
    }

    /// The path of the socket's cgroup; if its id has no path here, of its first owner's. Where the hierarchies are of
    /// version 1 every socket is in the root of version 2: there the owner's path tells more.
    pub fn cgroup(&self) -> Option<&'a str> {
        let named = self
            .attributes
            .cgroup_id()
            .and_then(|id| self.names.cgroup(id));
        if named.is_some_and(|path| path != "/") {
            return named;
        }
        let owner = || {
            let (process, _) = self.holders()?.links().next()?;
            process.cgroup.as_deref()
        };
        owner().or(named)
    }

    /// The paths of the cgroups of the socket and of the processes that hold it: a descriptor may have been handed on.
    pub fn cgroups(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let holders = self.holders();
        let holders = holders.into_iter().flat_map(|holders| holders.processes());
        let theirs = holders.filter_map(|process| process.cgroup.as_deref());
        self.cgroup().into_iter().chain(theirs)
    }

    /// The container that the cgroup is of.
    pub fn container(&self) -> Option<Container<'a>> {
        container_of(self.cgroup()?)
    }

    /// The Kubernetes pod that the cgroup is of.
    pub fn pod(&self) -> Option<Pod<'a>> {
        pod_of(self.cgroup()?)
    }
}

/// Where a column's text stands in its cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// text
    Left,
    /// numbers
    Right,
}

#[derive(Clone, Copy)]
enum Get {
    Row(for<'a> fn(&Record<'a>) -> Value<'a>),
    Member(&'static Member),
}

/// A column.
#[derive(Clone, Copy)]
pub struct Field {
    /// its name on the command line
    pub id: &'static str,
    /// its heading
    pub header: &'static str,
    /// one line of help
    pub doc: &'static str,
    /// the unit of its numbers, where they have one
    pub unit: Option<&'static str>,
    /// where its text stands
    pub align: Align,
    /// what has to be collected for it
    pub needs: Needs,
    get: Get,
}

impl Field {
    /// What the column says of `record`.
    pub fn value<'a>(&self, record: &Record<'a>) -> Value<'a> {
        match self.get {
            Get::Row(get) => get(record),
            Get::Member(member) => record
                .attributes
                .tcp_info
                .and_then(|raw| member.get(raw))
                .map_or(Value::Absent, |number| members::value(member.key, number)),
        }
    }

    /// With what its values can be compared.
    pub fn kind(&self) -> Kind {
        match (self.id, self.unit, self.align) {
            ("shutdown" | "local" | "peer", ..) => Kind::Other,
            (_, Some("us" | "ms"), _) => Kind::Time,
            (_, Some("bytes" | "bytes/s"), _) => Kind::Bytes,
            (.., Align::Right) => Kind::Number,
            (.., Align::Left) => Kind::Text,
        }
    }
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Field").field(&self.id).finish()
    }
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Field {}

/// Every column but the members of `tcp_info`, in the order of the help.
pub static ALL: &[Field] = &[
    identity::STATE,
    queues::RECV_Q,
    queues::SEND_Q,
    identity::LOCAL,
    identity::PEER,
    identity::LOCAL_ADDRESS,
    identity::LOCAL_PORT,
    identity::PEER_ADDRESS,
    identity::PEER_PORT,
    identity::FAMILY,
    identity::PROTOCOL,
    ends::NETID,
    ends::LOCAL_NAME,
    ends::PEER_INODE,
    ends::IP_PROTOCOL,
    ends::ETHERTYPE,
    ends::NETLINK_FAMILY,
    ends::PORT_ID,
    ends::LOCAL_CID,
    ends::PEER_CID,
    identity::INTERFACE,
    identity::INODE,
    identity::COOKIE,
    identity::NETNS,
    owner::PROCESS,
    owner::PID,
    owner::UID,
    owner::USER,
    owner::CGROUP,
    owner::UNIT,
    owner::CONTAINER,
    owner::POD,
    kernel::AGE,
    kernel::TIMER,
    kernel::TIMER_EXPIRES,
    kernel::WAITING_ON,
    kernel::MARK,
    kernel::CONGESTION,
    kernel::SHUTDOWN,
    kernel::V6ONLY,
    extensions::TOS,
    extensions::TCLASS,
    extensions::CLASS_ID,
    extensions::CGROUP_ID,
    extensions::SOCKOPT,
    extensions::BPF_STORAGE,
    extensions::SCTP_LOCALS,
    extensions::SCTP_PEERS,
    extensions::MD5,
    extensions::ULP,
    extensions::TLS_VERSION,
    extensions::TLS_CIPHER,
    extensions::TLS_TXCONF,
    extensions::TLS_RXCONF,
    extensions::MPTCP_TOKEN,
    extensions::MPTCP_FLAGS,
    extensions::BBR_BW,
    extensions::BBR_MIN_RTT,
    extensions::BBR_PACING_GAIN,
    extensions::BBR_CWND_GAIN,
    extensions::VEGAS_RTT,
    extensions::VEGAS_MIN_RTT,
    extensions::DCTCP_ALPHA,
    extensions::DCTCP_AB_ECN,
    extensions::DCTCP_AB_TOT,
    queues::SKMEM_RMEM_ALLOC,
    queues::SKMEM_RCVBUF,
    queues::SKMEM_WMEM_ALLOC,
    queues::SKMEM_SNDBUF,
    queues::SKMEM_FWD_ALLOC,
    queues::SKMEM_WMEM_QUEUED,
    queues::SKMEM_OPTMEM,
    queues::SKMEM_BACKLOG,
    queues::SKMEM_DROPS,
];

/// The columns of `list` unasked, those that fingers know from ss.
pub const DEFAULT: &[&str] = &["state", "recv-q", "send-q", "local", "peer"];

/// Every column, the members of `tcp_info` last.
pub fn all() -> impl Iterator<Item = &'static Field> {
    ALL.iter().chain(members::fields())
}

/// The column with `id`. `_` and `-` are the same, case does not matter, and a member of `tcp_info` is found without its
/// unit too (`rtt`).
///
/// # Errors
/// When there is none, with the names that are near.
pub fn by_id(id: &str) -> Result<&'static Field, Unknown> {
    let same = |name: &str| {
        let fold = |byte: u8| {
            if byte == b'_' {
                b'-'
            } else {
                byte.to_ascii_lowercase()
            }
        };
        name.bytes().map(fold).eq(id.bytes().map(fold))
    };
    all()
        .find(|field| same(field.id))
        .or_else(|| {
            members::fields()
                .iter()
                .find(|field| same(members::bare(field.id)))
        })
        .ok_or_else(|| Unknown {
            word: id.to_owned(),
            near: nearest(id, all().map(|field| field.id)),
        })
}

/// There is no such column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no column '{word}'")]
pub struct Unknown {
    /// what was asked for
    pub word: String,
    /// the columns that may have been meant, best first
    pub near: Vec<&'static str>,
}

impl Unknown {
    /// What to do next.
    pub fn hint(&self) -> String {
        let list = "'linger list --columns help' lists all";
        if self.near.is_empty() {
            return list.to_owned();
        }
        format!("did you mean {}? {list}", self.near.join(" or "))
    }
}
