//! What holds for every filter and every row: text and tree are one, nothing panics, and the evaluator says what a
//! plain reading of the tree says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::sample::select;

use super::expr::{Address, End, Expr, Host, Op, Pattern, Port, Test, mask};
use super::text::Text;
use super::{Filter, Lookup, parse, resolve};
use crate::fields::tests::{Fixture, TestNames, owners};
use crate::fields::{self, Kind, Record};
use crate::model::owner::unit_of;
use crate::model::{Age, Endpoint, Ends, Family, StateSet, TcpState, Timer};

/// Says something of every name.
pub(super) struct Lengths;

fn length(name: &str) -> u16 {
    u16::try_from(name.chars().count()).unwrap()
}

fn addresses(name: &str) -> [IpAddr; 2] {
    let last = length(name);
    [
        Ipv4Addr::new(10, 0, 0, u8::try_from(last).unwrap()).into(),
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into(),
    ]
}

impl Lookup for Lengths {
    fn host(&mut self, name: &str) -> Result<Vec<IpAddr>, String> {
        Ok(addresses(name).to_vec())
    }

    fn service(&mut self, name: &str) -> Result<u16, String> {
        Ok(length(name))
    }

    fn interface(&mut self, name: &str) -> Result<u32, String> {
        Ok(length(name).into())
    }

    fn user(&mut self, name: &str) -> Result<u32, String> {
        Ok(length(name).into())
    }

    fn cgroup(&mut self, path: &str) -> Result<(String, Option<u64>), String> {
        Ok((path.to_owned(), Some(u64::from(length(path)))))
    }
}

const COLUMNS: [&str; 9] = [
    "recv-q",
    "send-q",
    "uid",
    "inode",
    "pid",
    "rtt_us",
    "snd_cwnd",
    "age",
    "skmem-drops",
];
const TEXTS: [&str; 4] = ["process", "unit", "family", "congestion"];

/// Text as others may choose it, blanks and operators included.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        select(vec![
            "nginx",
            "ipv4",
            "cubic",
            "or",
            "nginx.service",
            "a b",
            "(x)",
            "\\",
            "*",
            "n*x"
        ])
        .prop_map(str::to_owned),
        "[a-z=!~&|<>()\\\\ ,*?\u{a0}服]{1,6}",
        "\\PC{1,4}",
    ]
}

fn states() -> impl Strategy<Value = StateSet> {
    let states = select(TcpState::SHOWN.to_vec()).prop_map(StateSet::of);
    let groups = select(StateSet::GROUPS.to_vec()).prop_map(|(_, set)| set);
    let either = prop_oneof![states, groups];
    prop::collection::vec((either, any::<bool>()), 1..4).prop_map(|sets| {
        sets.into_iter().fold(StateSet::EMPTY, |all, (set, take)| {
            if take {
                all.without(set)
            } else {
                all.union(set)
            }
        })
    })
}

pub(super) fn end() -> impl Strategy<Value = End> {
    select(vec![End::Local, End::Peer])
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    select(vec![Op::Eq, Op::Lt, Op::Le, Op::Gt, Op::Ge])
}

pub(super) fn port() -> impl Strategy<Value = Port> {
    prop_oneof![
        select(vec![0, 22, 80, 443, 65_535]).prop_map(Port::Number),
        any::<u16>().prop_map(Port::Number),
        "[a-z][a-z0-9-]{0,9}".prop_map(Port::Service),
    ]
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        select(vec![
            "10.0.0.7",
            "127.0.0.1",
            "0.0.0.0",
            "::",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.7"
        ])
        .prop_map(|text| text.parse().unwrap()),
        any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from(bits))),
    ]
}

fn address() -> impl Strategy<Value = Address> {
    let net = (ip(), 0..=128u8).prop_map(|(ip, length)| {
        let (bits, prefix, v4) = match ip {
            IpAddr::V4(ip) => (u128::from(ip.to_ipv6_mapped()), 96 + length / 4, true),
            IpAddr::V6(ip) => (u128::from(ip), length, false),
        };
        Address::Net {
            bits: bits & mask(prefix),
            prefix,
            v4,
        }
    });
    let name = "[a-z][a-z0-9.-]{0,9}[a-z]".prop_filter("words of the language", |name| {
        ![
            "any", "all", "default", "inet", "unix", "link", "vsock", "netlink",
        ]
        .contains(&&name[..])
    });
    prop_oneof![net, name.prop_map(Address::Name)]
}

fn family() -> impl Strategy<Value = Option<Family>> {
    select(vec![None, None, Some(Family::Ipv4), Some(Family::Ipv6)])
}

pub(super) fn test() -> impl Strategy<Value = Test> {
    let host = (end(), family(), address(), prop::option::of(port())).prop_map(
        |(end, family, address, port)| {
            let host = Host {
                family,
                address,
                port,
            };
            Test::Host(end, host)
        },
    );
    let everyone = (end(), family()).prop_map(|(end, family)| {
        let host = Host {
            family,
            address: Address::Any,
            port: None,
        };
        Test::Host(end, host)
    });
    let number = (
        select(COLUMNS.to_vec()),
        op(),
        prop_oneof![0..20_000u64, any::<u64>()],
    )
        .prop_map(|(id, op, value)| Test::Number(fields::by_id(id).unwrap(), op, value));
    let text = (select(TEXTS.to_vec()), any::<bool>(), word()).prop_map(|(id, glob, text)| {
        let pattern = match (glob, id) {
            (true, _) => Pattern::Glob(text),
            // Other values are refused.
            (false, "family") => {
                let v6 = text.len().is_multiple_of(2);
                Pattern::Exact(if v6 { "ipv6" } else { "ipv4" }.to_owned())
            }
            (false, _) => Pattern::Exact(text),
        };
        Test::Text(fields::by_id(id).unwrap(), pattern)
    });
    let timer = select(vec![
        Timer::None,
        Timer::Retransmit,
        Timer::Keepalive,
        Timer::TimeWait,
        Timer::Persist,
    ]);
    prop_oneof![
        4 => host,
        1 => everyone,
        4 => (end(), op(), port()).prop_map(|(end, op, port)| Test::Port(end, op, port)),
        1 => word().prop_map(|name| Test::Device { name, index: None }),
        1 => (any::<u32>(), prop_oneof![Just(u32::MAX), any::<u32>()])
            .prop_map(|(mark, mask)| Test::Mark { mark, mask }),
        1 => word().prop_map(|path| Test::Cgroup { path, id: None }),
        1 => word().prop_map(|name| Test::User { name, uid: None }),
        1 => timer.prop_map(Test::Timer),
        1 => Just(Test::Autobound(None)),
        4 => number,
        3 => text,
    ]
}

pub(super) fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        1 => states().prop_map(Expr::States),
        4 => test().prop_map(Expr::Test),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let parts = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            parts.clone().prop_map(|parts| Expr::all(parts).unwrap()),
            parts.prop_map(|parts| Expr::any(parts).unwrap()),
            inner.prop_map(Expr::negated),
        ]
    })
}

pub(super) fn fixture() -> impl Strategy<Value = Fixture> {
    let who = (
        select(vec!["nginx", "or", "a b", "服"]),
        select(vec![123u32, 0, 7]),
        select(vec![0u32, 2, 1000]),
        select(vec![0u32, 2, 4]),
    );
    let what = (
        (1..=14u8).prop_map(TcpState::from_kernel),
        (0..=5u8).prop_map(Timer::from_kernel),
        (0..20_000u32, 0..20_000u32),
        select(vec![Some(26), Some(4), None]),
    );
    let where_ = (
        (ip(), ip()),
        select(vec![0u16, 22, 80, 443, 65_535]),
        any::<u16>(),
        any::<bool>(),
    );
    (who, what, where_, select(vec![280usize, 104, 0])).prop_map(
        |(
            (comm, inode, uid, ifindex),
            (state, timer, queues, cgroup),
            (ips, sport, dport, v6),
            length,
        )| {
            let mut fixture = Fixture::new();
            fixture.owners = owners(&[comm, "other"]);
            fixture.info.truncate(length);
            fixture.cgroup_id = cgroup;
            let socket = &mut fixture.socket;
            socket.family = if v6 { Family::Ipv6 } else { Family::Ipv4 };
            let end = |ip: IpAddr, port| match (ip, v6) {
                (IpAddr::V4(ip), _) => Endpoint::v4(ip.octets(), port),
                (IpAddr::V6(ip), true) => Endpoint::v6(ip.octets(), port),
                (IpAddr::V6(_), false) => Endpoint::v4([10, 0, 0, 7], port),
            };
            socket.local = end(ips.0, sport);
            socket.remote = end(ips.1, dport);
            (socket.recv_q, socket.send_q) = queues;
            (socket.inode, socket.uid, socket.ifindex) = (inode, uid, ifindex);
            (socket.state, socket.timer) = (state, timer);
            fixture
        },
    )
}

/// A plain reading of the tree, with nothing of the evaluator's.
fn reference(expr: &Expr, record: &Record<'_>) -> bool {
    match expr {
        Expr::All(parts) => !parts.iter().any(|part| !reference(part, record)),
        Expr::Any(parts) => parts.iter().filter(|part| reference(part, record)).count() > 0,
        Expr::Not(inner) => !reference(inner, record),
        Expr::States(set) => set.mask() >> record.socket.state.number() & 1 == 1,
        Expr::Test(test) => judge(test, record),
    }
}

fn bits(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip
            .octets()
            .iter()
            .map(|octet| format!("{octet:08b}"))
            .collect(),
        IpAddr::V6(ip) => ip
            .octets()
            .iter()
            .map(|octet| format!("{octet:08b}"))
            .collect(),
    }
}

fn of_port(port: &Port) -> u16 {
    match port {
        Port::Number(number) => *number,
        Port::Service(name) => length(name),
    }
}

fn compare<T: Ord>(a: T, op: Op, b: T) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    match a.cmp(&b) {
        Less => matches!(op, Op::Lt | Op::Le),
        Equal => matches!(op, Op::Eq | Op::Le | Op::Ge),
        Greater => matches!(op, Op::Gt | Op::Ge),
    }
}

fn judge(test: &Test, record: &Record<'_>) -> bool {
    let socket = record.socket;
    let of = |end: &End| match end {
        End::Local => socket.local,
        End::Peer => socket.remote,
    };
    let comms = || {
        let holders = record.holders().unwrap();
        holders.processes().collect::<Vec<_>>()
    };
    match test {
        Test::Host(end, host) => {
            let own = of(end);
            let v4 = matches!(own.ip(), IpAddr::V4(_)).then(|| own.ip());
            let v6 =
                (socket.family == Family::Ipv6).then(|| IpAddr::from(Ipv6Addr::from(own.address)));
            let address = match &host.address {
                Address::Any => true,
                Address::Net {
                    bits: net,
                    prefix,
                    v4: true,
                } => v4.is_some_and(|ip| {
                    let length = usize::from(*prefix) - 96;
                    bits(ip)[..length] == bits(IpAddr::from(Ipv6Addr::from(*net)))[96..96 + length]
                }),
                Address::Net {
                    bits: net,
                    prefix,
                    v4: false,
                } => v6.is_some_and(|ip| {
                    let length = usize::from(*prefix);
                    bits(ip)[..length] == bits(IpAddr::from(Ipv6Addr::from(*net)))[..length]
                }),
                Address::Name(name) => addresses(name).into_iter().any(|ip| {
                    let family = if ip.is_ipv4() {
                        Family::Ipv4
                    } else {
                        Family::Ipv6
                    };
                    host.family.is_none_or(|wanted| wanted == family)
                        && (v4 == Some(ip) || v6 == Some(ip))
                }),
            };
            let family = host.family.is_none_or(|family| family == socket.family);
            let port = host
                .port
                .as_ref()
                .is_none_or(|port| of_port(port) == own.port);
            address && family && port
        }
        Test::Port(end, op, port) => compare(of(end).port, *op, of_port(port)),
        Test::Device { name, .. } => socket.ifindex == u32::from(length(name)),
        // The fixture's is 0.
        Test::Mark { mark, .. } => *mark == 0,
        Test::Cgroup { path, .. } => match record.attributes.cgroup_id() {
            Some(id) => id == u64::from(length(path)),
            None => record.cgroup() == Some(path),
        },
        Test::Autobound(known) => known.unwrap_or_default(),
        Test::User { name, .. } => socket.owner_uid() == Some(length(name).into()),
        Test::Timer(timer) => socket.timer == *timer,
        Test::Number(field, op, wanted) => {
            let info = record.attributes.tcp_info.unwrap();
            let enough = |n: u64| (!info.is_empty()).then_some(n);
            let value = match field.id {
                "recv-q" => Some(socket.recv_q.into()),
                "send-q" => Some(socket.send_q.into()),
                "uid" => socket.owner_uid().map(u64::from),
                "inode" => Some(u64::from(socket.inode)).filter(|n| *n > 0),
                "rtt_us" => enough(500),
                "snd_cwnd" => enough(10),
                "skmem-drops" => Some(4),
                "pid" => {
                    return comms()
                        .iter()
                        .any(|p| compare(u64::from(p.pid), *op, *wanted));
                }
                "age" => {
                    return match (record.age(), op) {
                        (None, _) => false,
                        (Some(Age { low_ms, .. }), Op::Gt | Op::Ge) => {
                            compare(low_ms * 1000, *op, *wanted)
                        }
                        (Some(Age { high_ms, .. }), Op::Lt | Op::Le) => {
                            high_ms.is_some_and(|ms| compare(ms * 1000, *op, *wanted))
                        }
                        (Some(age), Op::Eq) => age.is_exact() && age.low_ms * 1000 == *wanted,
                    };
                }
                other => panic!("{other}"),
            };
            value.is_some_and(|value| compare(value, *op, *wanted))
        }
        Test::Text(field, pattern) => {
            let fits = |text: &str| match pattern {
                Pattern::Exact(wanted) => wanted == text,
                Pattern::Glob(glob) => globbed(
                    &glob.chars().collect::<Vec<_>>(),
                    &text.chars().collect::<Vec<_>>(),
                ),
            };
            match field.id {
                "process" => comms().iter().any(|process| fits(&process.comm)),
                "unit" => record.cgroup().and_then(unit_of).is_some_and(|unit| {
                    fits(unit) || unit.strip_suffix(".service").is_some_and(fits)
                }),
                "family" => fits(socket.family.name()),
                "congestion" => fits("cubic"),
                other => panic!("{other}"),
            }
        }
    }
}

/// By the definition, in exponential time.
fn globbed(glob: &[char], text: &[char]) -> bool {
    match (glob, text) {
        ([], text) => text.is_empty(),
        (['*', rest @ ..], text) => (0..=text.len()).any(|at| globbed(rest, &text[at..])),
        (['?', glob @ ..], [_, text @ ..]) => globbed(glob, text),
        ([a, glob @ ..], [b, text @ ..]) => a == b && globbed(glob, text),
        _ => false,
    }
}

/// Words of the language in any order, and what is near them.
fn soup() -> impl Strategy<Value = String> {
    let words = vec![
        "state",
        "exclude",
        "listen",
        "close-wait,last-ack",
        ",",
        "all",
        "src",
        "dst",
        "sport",
        "dport",
        "dev",
        "fwmark",
        "cgroup",
        "user",
        "process",
        "pid",
        "rtt",
        "age",
        "recv-q",
        "timer",
        "unit",
        "autobound",
        "(",
        ")",
        "!",
        "not",
        "and",
        "or",
        "&&",
        "||",
        "|",
        "&",
        "=",
        "==",
        "!=",
        "<",
        ">=",
        "~",
        "!~",
        "eq",
        "ge",
        "lt",
        ":443",
        "https",
        "10.0.0.0/8:22",
        "[fd00::]/16",
        "::1",
        "*",
        "any",
        "0x10/0xff",
        "5min",
        "1MB",
        "12",
        "nginx*",
        "keepalive",
        "\\",
        "\\ ",
        "服务",
        "-x",
        "inet::22",
        "inet6:*",
    ];
    prop::collection::vec(select(words), 0..12).prop_map(|words| words.join(" "))
}

fn same_after_printing(text: &str) -> Result<(), TestCaseError> {
    match Filter::parse(&[text.to_owned()]) {
        Ok(filter) => {
            let printed = filter.to_string();
            let again = parse::expression(&Text::typed(printed.clone()));
            prop_assert_eq!(again.as_ref(), Ok(&filter.expr), "{} -> {}", text, printed);
        }
        Err(error) => {
            prop_assert!(error.to_string().lines().count() == 3, "{error}");
            prop_assert!(!error.hint().is_empty());
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_printed_reads_back_as_the_same(expr in expr()) {
        let printed = expr.to_string();
        let read = parse::expression(&Text::typed(printed.clone()));
        prop_assert_eq!(read, Ok(Some(expr)), "{}", printed);
    }

    #[test]
    fn no_text_panics_and_what_is_understood_is_printable(text in "\\PC{0,40}", soup in soup()) {
        same_after_printing(&text)?;
        same_after_printing(&soup)?;
    }

    #[test]
    fn the_evaluator_says_what_the_tree_says(expr in expr(), fixture in fixture()) {
        let resolved = resolve::resolve(expr.clone(), &[], &mut Lengths).unwrap();
        let attributes = fixture.attributes();
        let record = Record {
            socket: &fixture.socket,
            attributes: &attributes,
            ends: Ends::Ip,
            owners: Some(&fixture.owners),
            ages: &fixture.ages,
            names: &TestNames,
        };
        prop_assert_eq!(resolved.matches(&record), reference(&expr, &record), "{}", expr);
        let (may, must) = expr.states();
        if reference(&expr, &record) {
            prop_assert!(may.contains(fixture.socket.state), "the kernel must send it: {}", expr);
        } else {
            prop_assert!(!must.contains(fixture.socket.state), "{}", expr);
        }
    }

    #[test]
    fn every_alternative_ends_up_with_states(expr in expr(), fixture in fixture()) {
        let unasked = StateSet::DEFAULT;
        let whole = expr.clone().within(unasked);
        fixture.with(|record| {
            if whole.matches(record) {
                assert!(expr.matches(record), "nothing is added: {expr}");
            }
        });
        prop_assert_eq!(whole.clone().within(StateSet::EMPTY).states(), whole.states());
    }
}

#[test]
fn columns_of_every_kind_are_tried() {
    for kind in [Kind::Number, Kind::Time, Kind::Bytes] {
        assert!(
            COLUMNS
                .iter()
                .any(|id| fields::by_id(id).unwrap().kind() == kind)
        );
    }
}

#[test]
fn a_host_called_like_an_operator_is_quoted_when_printed() {
    same_after_printing("src = eq").unwrap();
}
