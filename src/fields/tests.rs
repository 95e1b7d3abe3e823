//! Columns, and what tests elsewhere make their rows of.

use super::*;
use std::collections::BTreeSet;

use crate::model::owner::Link;
use crate::model::{Coverage, Endpoint, Family, Process, Protocol, SockOpts, Timer};

/// What a [`Record`] borrows.
#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    pub(crate) socket: Socket,
    pub(crate) info: Vec<u8>,
    pub(crate) memory: Vec<u8>,
    pub(crate) rest: Vec<u8>,
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
            rest: Vec::new(),
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
            cgroup: self.cgroup_id.and_then(std::num::NonZeroU64::new),
            sockopt: SockOpts::parse(&[0x52, 0]),
            rest: &self.rest,
            ..Attributes::default()
        }
    }

    pub(crate) fn with<T>(&self, show: impl FnOnce(&Record<'_>) -> T) -> T {
        let attributes = self.attributes();
        show(&Record {
            socket: &self.socket,
            attributes: &attributes,
            ends: Ends::Ip,
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
    assert!(
        by_id("zzzzzzz")
            .unwrap_err()
            .hint()
            .contains("--columns help")
    );
    assert!(by_id("").is_err());
}

#[test]
fn a_column_is_compared_with_what_its_values_are() {
    let mut fixture = Fixture::new();
    fixture.socket.ifindex = 2;
    fixture.with(|record| {
        for field in all() {
            let fits = match field.value(record) {
                Value::Absent
                | Value::State(_)
                | Value::Unconnected
                | Value::Timer { .. }
                | Value::Flag(_) => true,
                Value::Count(_) | Value::Hex(_) | Value::Port(_) | Value::Pids(_) => {
                    matches!(field.kind(), Kind::Number | Kind::Bytes)
                }
                Value::Bytes(_) | Value::BytesPerSecond(_) => field.kind() == Kind::Bytes,
                Value::Millis(_) | Value::Micros(_) | Value::Age(_) => field.kind() == Kind::Time,
                Value::Container(_) | Value::Pod(_) => field.kind() == Kind::Text,
                Value::Text(_)
                | Value::Name(_)
                | Value::List(_)
                | Value::Owners(_)
                | Value::Interface(_)
                | Value::Namespace(_)
                | Value::Address(_) => field.kind() == Kind::Text,
                Value::Endpoint { .. } | Value::End(_) | Value::Shutdown(_) => {
                    field.kind() == Kind::Other
                }
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
fn a_container_is_that_of_the_cgroup() {
    let mut fixture = Fixture::new();
    fixture.cgroup_id = None;
    assert_eq!((get(&fixture, "container"), get(&fixture, "pod")), absent());
    let pod = "kubepods-pod8c5d3e1a_1111_2222_3333_0123456789ab";
    let path = format!("/kubepods.slice/{pod}.slice/crio-{}.scope", "ab".repeat(32));
    fixture.owners.processes_mut()[0].cgroup = Some(path);
    fixture.with(|record| {
        assert_eq!(
            record.container().unwrap().to_string(),
            "cri-o:abababababab"
        );
        assert_eq!(
            record.pod().unwrap().to_string(),
            "8c5d3e1a-1111-2222-3333-0123456789ab"
        );
    });
    fixture.owners = Owners::default();
    assert_eq!((get(&fixture, "container"), get(&fixture, "pod")), absent());
}

fn absent() -> (String, String) {
    ("Absent".to_owned(), "Absent".to_owned())
}

#[test]
fn what_the_search_may_have_missed_is_the_reason_where_the_state_has_none() {
    let gaps = |coverage: Coverage| {
        let mut fixture = Fixture::new();
        fixture.owners = Owners::default().searched(&coverage);
        let of = |fixture: &Fixture| fixture.with(|record| record.holders().unwrap().missing());
        let why = of(&fixture);
        fixture.socket.state = TcpState::TimeWait;
        assert_eq!(of(&fixture), Some(NoOwner::TimeWait), "{coverage:?}");
        why
    };
    let whole = Coverage::default();
    assert_eq!(gaps(whole.clone()), Some(NoOwner::NotFound));
    let mut coverage = Coverage {
        nested_pids: true,
        ..whole
    };
    assert_eq!(gaps(coverage.clone()), Some(NoOwner::OtherPidNamespace));
    coverage.owners_timed_out = true;
    assert_eq!(gaps(coverage.clone()), Some(NoOwner::TimedOut));
    coverage.unreadable_processes = 1;
    assert_eq!(gaps(coverage), Some(NoOwner::NotPermitted));
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
