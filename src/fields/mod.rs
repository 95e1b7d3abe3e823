//! The registry of columns: what can be asked of a row, by name. Tables, JSON, sorting, grouping and help derive
//! from it.
//!
//! A new column is a [`Field`] in the file of its group and one line in [`ALL`]. The members of `tcp_info` are columns
//! too, by their keys in JSON (`rtt_us`).

mod identity;
mod kernel;
mod members;
mod needs;
mod owner;
mod queues;
pub mod value;

use crate::model::nearest::nearest;
use crate::model::tcp_info::Member;
use crate::model::{Age, AgeFacts, Attributes, Namespace, Owners, Socket, TcpInfo, WaitingOn};

pub use needs::{Kind, Needed, Needs};
pub use value::{Holders, Interface, Key, NoOwner, Value};

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
        let info = self.attributes.tcp_info.and_then(TcpInfo::parse);
        self.ages.in_state(self.socket, info.as_ref())
    }

    /// For whom the connection waits.
    pub fn waiting_on(&self) -> Option<WaitingOn> {
        let info = self.attributes.tcp_info.and_then(TcpInfo::parse);
        WaitingOn::new(self.socket, info.as_ref())
    }

    /// The interface that the socket is bound to.
    pub fn interface(&self) -> Option<Interface<'a>> {
        let index = self.socket.ifindex;
        (index != 0).then(|| Interface {
            index,
            name: self.names.interface(self.socket.netns, index),
        })
    }

    /// Who holds the socket; `None` if nobody looked.
    pub fn holders(&self) -> Option<Holders<'a>> {
        self.owners.map(|owners| Holders::new(owners, self.socket))
    }

    /// The path of the socket's cgroup; if its id has no path here, of its first owner's.
    pub fn cgroup(&self) -> Option<&'a str> {
        let named = self
            .attributes
            .cgroup_id
            .and_then(|id| self.names.cgroup(id));
        named.or_else(|| {
            let (process, _) = self.holders()?.links().next()?;
            process.cgroup.as_deref()
        })
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
    kernel::AGE,
    kernel::TIMER,
    kernel::WAITING_ON,
    kernel::MARK,
    kernel::CONGESTION,
    kernel::SHUTDOWN,
    kernel::V6ONLY,
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
        let meant = if self.near.is_empty() {
            String::new()
        } else {
            format!("did you mean {}? ", self.near.join(" or "))
        };
        let ids: Vec<&str> = ALL.iter().map(|field| field.id).collect();
        format!(
            "{meant}the columns are {}, and the members of tcp_info ('--columns help' has all of them)",
            ids.join(", ")
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use crate::model::owner::Link;
    use crate::model::{Endpoint, Family, Process, Protocol, TcpState, Timer};

    /// What a [`Record`] borrows.
    #[derive(Clone, Debug)]
    pub(crate) struct Fixture {
        pub(crate) socket: Socket,
        pub(crate) info: Vec<u8>,
        pub(crate) memory: Vec<u8>,
        pub(crate) cgroup_id: Option<u64>,
        pub(crate) owners: Owners,
        pub(crate) ages: AgeFacts,
    }

    pub(crate) struct TestNames;

    impl Names for TestNames {
        fn interface(&self, _netns: u16, index: u32) -> Option<&str> {
            (index == 2).then_some("eth0")
        }

        fn user(&self, uid: u32) -> Option<&str> {
            (uid == 1000).then_some("www")
        }

        fn cgroup(&self, id: u64) -> Option<&str> {
            (id == 26).then_some("/system.slice/nginx.service")
        }
    }

    impl Fixture {
        pub(crate) fn new() -> Self {
            let mut info = vec![0u8; 280];
            let mut set =
                |at: usize, value: u32| info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
            set(8, 201_000);
            set(16, 1448);
            set(44, 7_000);
            set(52, 5_000);
            set(68, 500);
            set(72, 250);
            set(76, 0x7fff_ffff);
            set(80, 10);
            info[6] = 0x77;
            Self {
                socket: Socket {
                    cookie: std::num::NonZeroU64::new(0x1a),
                    local: Endpoint::v4([127, 0, 0, 1], 80),
                    remote: Endpoint::v4([10, 0, 0, 7], 51_000),
                    inode: 123,
                    uid: 1000,
                    recv_q: 1,
                    send_q: 20,
                    timer_ms: 12_345,
                    ifindex: 0,
                    info: None,
                    netns: 0,
                    retransmits: 3,
                    timer: Timer::Keepalive,
                    state: TcpState::Established,
                    protocol: Protocol::Tcp,
                    family: Family::Ipv4,
                },
                info,
                memory: [0u32, 131_072, 0, 46_080, 0, 0, 0, 0, 4]
                    .iter()
                    .flat_map(|word| word.to_ne_bytes())
                    .collect(),
                cgroup_id: Some(26),
                owners: owners(&["nginx"]),
                ages: AgeFacts {
                    fin_timeout_ms: Some(60_000),
                    syn_linear_timeouts: Some(4),
                },
            }
        }

        pub(crate) fn attributes(&self) -> Attributes<'_> {
            Attributes {
                tcp_info: Some(&self.info),
                memory: Some(&self.memory),
                congestion: Some(b"cubic"),
                shutdown: Some(0),
                mark: Some(0),
                cgroup_id: self.cgroup_id,
                ..Attributes::default()
            }
        }

        pub(crate) fn with<T>(&self, show: impl FnOnce(&Record<'_>) -> T) -> T {
            let attributes = self.attributes();
            show(&Record {
                socket: &self.socket,
                attributes: &attributes,
                owners: Some(&self.owners),
                ages: &self.ages,
                names: &TestNames,
            })
        }
    }

    /// Processes 101, 102, ... that hold inode 123, the first one twice.
    pub(crate) fn owners(comms: &[&str]) -> Owners {
        let processes = comms.iter().zip(101..).map(|(comm, pid)| Process {
            pid,
            comm: (*comm).to_owned(),
            cgroup: Some("/system.slice/owner.service".to_owned()),
            ..Process::default()
        });
        let mut links: Vec<Link> = (0..u32::try_from(comms.len()).unwrap())
            .map(|process| Link {
                inode: 123,
                process,
                fd: 6,
            })
            .collect();
        links.push(Link {
            inode: 123,
            process: 0,
            fd: 7,
        });
        Owners::new(processes.collect(), links)
    }

    fn get(fixture: &Fixture, id: &str) -> String {
        fixture.with(|record| format!("{:?}", by_id(id).unwrap().value(record)))
    }

    #[test]
    fn columns_are_unique_named_in_kebab_case_and_documented() {
        let mut seen = BTreeSet::new();
        for field in ALL {
            let kebab = field.id.split('-').all(|word| {
                !word.is_empty()
                    && word
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            });
            assert!(kebab, "{}", field.id);
        }
        for field in all() {
            assert!(
                seen.insert(field.id.replace('_', "-")),
                "{} twice",
                field.id
            );
            assert!(!field.header.is_empty(), "{}", field.id);
            assert!(field.doc.len() > 10, "{} is not documented", field.id);
            assert!(!field.doc.ends_with('.'), "{}", field.id);
            assert_eq!(by_id(field.id), Ok(field));
        }
        for id in DEFAULT {
            assert!(
                by_id(id).is_ok_and(|field| field.needs == Needs::Row),
                "{id}"
            );
        }
    }

    #[test]
    fn columns_are_found_in_the_spellings_of_fingers() {
        for (word, id) in [
            ("rtt_us", "rtt_us"),
            ("RTT-us", "rtt_us"),
            ("rtt", "rtt_us"),
            ("Recv_Q", "recv-q"),
            ("busy_time", "busy_time_us"),
        ] {
            assert_eq!(by_id(word).unwrap().id, id);
        }
        let unknown = by_id("lcoal").unwrap_err();
        assert_eq!(unknown.near.first(), Some(&"local"));
        assert!(
            unknown.hint().contains("did you mean local"),
            "{}",
            unknown.hint()
        );
        assert!(by_id("zzzzzzz").unwrap_err().hint().contains("recv-q"));
        assert!(by_id("").is_err());
    }

    #[test]
    fn a_column_is_compared_with_what_its_values_are() {
        let mut fixture = Fixture::new();
        fixture.socket.ifindex = 2;
        fixture.with(|record| {
            for field in all() {
                let fits = match field.value(record) {
                    Value::Absent | Value::State(_) | Value::Timer { .. } | Value::Flag(_) => true,
                    Value::Count(_) | Value::Hex(_) | Value::Port(_) | Value::Pids(_) => {
                        matches!(field.kind(), Kind::Number | Kind::Bytes)
                    }
                    Value::Bytes(_) | Value::BytesPerSecond(_) => field.kind() == Kind::Bytes,
                    Value::Millis(_) | Value::Micros(_) | Value::Age(_) => {
                        field.kind() == Kind::Time
                    }
                    Value::Text(_)
                    | Value::Owners(_)
                    | Value::Interface(_)
                    | Value::Namespace(_)
                    | Value::Address(_) => field.kind() == Kind::Text,
                    Value::Endpoint { .. } | Value::Shutdown(_) => field.kind() == Kind::Other,
                };
                assert!(fits, "{}", field.id);
            }
        });
    }

    #[test]
    fn what_the_kernel_did_not_say_is_absent_and_not_zero() {
        let mut fixture = Fixture::new();
        assert_eq!(get(&fixture, "rtt_us"), "Micros(500)");
        assert_eq!(get(&fixture, "snd_cwnd"), "Count(10)");
        assert_eq!(get(&fixture, "skmem-drops"), "Count(4)");
        fixture.info.truncate(104);
        fixture.memory.truncate(28);
        assert_eq!(get(&fixture, "busy_time_us"), "Absent");
        assert_eq!(get(&fixture, "skmem-drops"), "Absent");
        assert_eq!(get(&fixture, "skmem-rcvbuf"), "Bytes(131072)");
    }

    #[test]
    fn only_an_established_connection_waits_on_somebody() {
        let mut fixture = Fixture::new();
        assert_eq!(
            get(&fixture, "waiting-on"),
            "Text(\"us\")",
            "something is unread"
        );
        (fixture.socket.recv_q, fixture.socket.send_q) = (0, 0);
        fixture.socket.retransmits = 0;
        fixture.info[44..48].copy_from_slice(&4_000u32.to_ne_bytes());
        assert_eq!(
            get(&fixture, "waiting_on"),
            "Text(\"peer\")",
            "this end sent last"
        );
        fixture.socket.state = TcpState::FinWait2;
        assert_eq!(get(&fixture, "waiting-on"), "Absent");
    }

    #[test]
    fn a_mini_socket_has_no_uid_and_no_user() {
        let mut fixture = Fixture::new();
        assert_eq!(
            (get(&fixture, "uid"), get(&fixture, "user")),
            ("Count(1000)".into(), "Text(\"www\")".into())
        );
        fixture.socket.uid = 7;
        assert_eq!(
            get(&fixture, "user"),
            "Count(7)",
            "a uid without a name stays a number"
        );
        fixture.socket.state = TcpState::TimeWait;
        fixture.socket.inode = 0;
        for id in ["uid", "user", "inode"] {
            assert_eq!(get(&fixture, id), "Absent", "{id}");
        }
    }

    #[test]
    fn the_cgroup_is_the_sockets_and_else_its_owners() {
        let mut fixture = Fixture::new();
        assert_eq!(get(&fixture, "unit"), "Text(\"nginx.service\")");
        fixture.cgroup_id = Some(27);
        assert_eq!(get(&fixture, "unit"), "Text(\"owner.service\")");
        fixture.owners = Owners::default();
        assert_eq!(get(&fixture, "cgroup"), "Absent");
    }

    #[test]
    fn why_nobody_owns_a_socket_follows_from_its_state() {
        let mut fixture = Fixture::new();
        let mut why = |state, inode| {
            fixture.socket.state = state;
            fixture.socket.inode = inode;
            fixture.with(|record| record.holders().unwrap().missing())
        };
        assert_eq!(why(TcpState::Established, 123), None);
        assert_eq!(why(TcpState::Established, 99), Some(NoOwner::NotFound));
        assert_eq!(why(TcpState::Established, 0), Some(NoOwner::NotAccepted));
        assert_eq!(why(TcpState::CloseWait, 0), Some(NoOwner::NotAccepted));
        assert_eq!(why(TcpState::LastAck, 0), Some(NoOwner::Orphan));
        assert_eq!(why(TcpState::FinWait2, 0), Some(NoOwner::Orphan));
        assert_eq!(why(TcpState::TimeWait, 0), Some(NoOwner::TimeWait));
        assert_eq!(why(TcpState::NewSynReceived, 0), Some(NoOwner::Handshake));
        assert_eq!(why(TcpState::Listen, 0), Some(NoOwner::NotFound));
    }
}
