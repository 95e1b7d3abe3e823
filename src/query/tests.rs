//! The language as typed: what is the same, what is wrong, what a filter needs.

use super::expr::UNASKED;
use super::*;
use crate::fields::tests::Fixture;
use crate::model::{Endpoint, Family, TcpState};

pub(super) fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|word| (*word).to_owned()).collect()
}

fn states(text: &[&str]) -> StateSet {
    Filter::parse(&words(text))
        .unwrap_or_else(|error| panic!("{error}"))
        .states()
}

fn of(states: &[TcpState]) -> StateSet {
    states.iter().fold(StateSet::EMPTY, |set, state| {
        set.union(StateSet::of(*state))
    })
}

fn error(text: &[&str]) -> Error {
    Filter::parse(&words(text)).unwrap_err()
}

#[test]
fn no_words_select_nothing_in_particular() {
    for blank in [&[][..], &["  ", "\t"]] {
        let filter = Filter::parse(&words(blank)).unwrap();
        assert_eq!((filter.states(), filter.expr), (StateSet::ALL, None));
    }
}

#[test]
fn a_container_or_unit_is_that_of_any_holder() {
    let mut fixture = Fixture::new();
    fixture.owners = crate::fields::tests::owners(&["systemd", "sshd"]);
    let id = "0123456789abcdef".repeat(4);
    let pod = "8c5d3e1a-1111-2222-3333-0123456789ab";
    let path = format!(
        "/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{id}.scope",
        pod.replace('-', "_")
    );
    fixture.owners.processes_mut()[1].cgroup = Some(path);
    let fits = |text: &str| {
        let filter = Filter::parse(&words(&[text])).unwrap_or_else(|error| panic!("{error}"));
        assert!(filter.needed().owners, "{text}");
        fixture.with(|record| filter.matches(record))
    };
    for text in [
        "container = 0123456789ab",
        &format!("container = {id}"),
        "container = containerd:0123456789ab",
        "container ~ containerd:0123*",
        "container ~ *cdef",
        &format!("pod = {pod}"),
        "pod ~ 8c5d3e1a-*",
        // of the socket's own cgroup, and of either holder
        "unit = nginx",
        "unit = owner.service",
        "unit ~ cri-containerd-*",
        "container != 0123456789ac",
    ] {
        assert!(fits(text), "{text}");
    }
    for text in [
        "container = 0123456789a",
        "container = docker:0123456789ab",
        "container = 0123456789ac",
        "container ~ docker:*",
        "pod = 8c5d3e1a",
        "pod ~ 8c5d3e1a_*",
        "unit = ngin",
        "container != 0123456789ab",
    ] {
        assert!(!fits(text), "{text}");
    }
}

#[test]
fn clauses_accumulate_as_in_ss() {
    use TcpState::{CloseWait, LastAck, Listen, TimeWait};
    let table: &[(&[&str], StateSet)] = &[
        (&["state", "close-wait"], of(&[CloseWait])),
        (&["state close-wait"], of(&[CloseWait])),
        (
            &["STATE", "CLOSE_WAIT", "state", "LastAck"],
            of(&[CloseWait, LastAck]),
        ),
        (&["state", "close-wait,last-ack"], of(&[CloseWait, LastAck])),
        (
            &["state", "close-wait,", "last-ack"],
            of(&[CloseWait, LastAck]),
        ),
        (
            &["state", "close-wait", ",last-ack"],
            of(&[CloseWait, LastAck]),
        ),
        (
            &["state", "close-wait", ",", "last-ack", "state", "listen"],
            of(&[CloseWait, LastAck, Listen]),
        ),
        (&["state=listening"], of(&[Listen])),
        (&["state", "=", "listen"], of(&[Listen])),
        (&["state", "all"], StateSet::ALL),
        (&["state", "Connected"], StateSet::CONNECTED),
        (&["exclude", "listen"], UNASKED.without(of(&[Listen]))),
        (
            &["excl", "listen", "exclude", "time-wait"],
            UNASKED.without(of(&[Listen, TimeWait])),
        ),
        (
            &["state", "bucket", "exclude", "time-wait"],
            of(&[TcpState::SynReceived]),
        ),
        (
            &["exclude", "bucket", "state", "time-wait"],
            UNASKED.without(of(&[TcpState::SynReceived])),
        ),
        (&["state", "listen", "exclude", "listen"], StateSet::EMPTY),
        (&["state != listen"], UNASKED.without(of(&[Listen]))),
        (&["state listen and state last-ack"], of(&[Listen, LastAck])),
        (
            &["state listen dport = :1 state last-ack"],
            of(&[Listen, LastAck]),
        ),
        (&["(state listen) (state last-ack)"], StateSet::EMPTY),
        (&["state listen or state last-ack"], of(&[Listen, LastAck])),
        (&["not state listen"], StateSet::ALL.without(of(&[Listen]))),
        (&["! ! state listen"], of(&[Listen])),
        (
            &["state big dport = :1 or not (state listen sport = :2)"],
            StateSet::ALL,
        ),
    ];
    for (text, set) in table {
        assert_eq!(states(text), *set, "{text:?}");
    }
}

#[test]
fn every_spelling_of_a_state_and_every_group_is_read() {
    for state in TcpState::SHOWN {
        assert_eq!(states(&["state", &state.to_string()]), StateSet::of(state));
        assert_eq!(
            states(&["state", state.slug().unwrap()]),
            StateSet::of(state)
        );
    }
    for (name, set) in StateSet::GROUPS {
        assert_eq!(states(&["state", name]), set);
    }
}

#[test]
fn an_unknown_state_has_a_caret_and_names_that_are_near() {
    let error = error(&["state", "close-wait,lisen", "exclude", "all"]);
    assert_eq!(
        error.to_string(),
        "unknown state 'lisen'\n  state close-wait,lisen exclude all\n                   ^^^^^"
    );
    let hint = error.hint();
    assert!(hint.starts_with("did you mean listen"), "{hint}");
    assert!(
        hint.contains("time-wait") && hint.contains("synchronized"),
        "{hint}"
    );
}

#[test]
fn a_clause_without_a_state_points_behind_itself() {
    assert_eq!(
        error(&["exclude"]).to_string(),
        "'exclude' needs the name of a state\n  exclude\n         ^"
    );
    assert_eq!(
        error(&["state", "(", "listen)"]).to_string(),
        "'state' needs the name of a state\n  state ( listen)\n        ^"
    );
    assert!(
        error(&["state", "listen,"])
            .to_string()
            .contains("needs the name")
    );
    assert!(
        error(&["state", ","])
            .to_string()
            .contains("needs the name")
    );
}

/// The parts of the text: what is wrong, and the words above the carets.
fn wrong(text: &str) -> (String, String, String) {
    let error = error(&[text]);
    let said = error.to_string();
    let lines: Vec<&str> = said.lines().collect();
    let under: String = lines[1]
        .chars()
        .zip(lines[2].chars().chain(std::iter::repeat(' ')))
        .filter(|(_, caret)| *caret == '^')
        .map(|(c, _)| c)
        .collect();
    (lines[0].to_owned(), under, error.hint())
}

#[test]
fn errors_point_at_the_word_and_say_what_to_write() {
    let table = [
        (
            "state listen foo = 1",
            "'foo' is not understood",
            "foo",
            "'state STATE'",
        ),
        (
            "close_wait",
            "'close_wait' is not understood",
            "close_wait",
            "write 'state close_wait'",
        ),
        (
            "sate listen",
            "'sate' is not understood",
            "sate",
            "did you mean 'state'",
        ),
        (
            "dprot = :22",
            "'dprot' is not understood",
            "dprot",
            "did you mean 'dport'",
        ),
        (
            ":443",
            "':443' is not understood",
            ":443",
            "write 'port = :443'",
        ),
        (
            "10.0.0.1",
            "'10.0.0.1' is not understood",
            "10.0.0.1",
            "'src 10.0.0.1' or 'dst 10.0.0.1'",
        ),
        ("dport =", "a port is expected here", "", "dport = :443"),
        ("dport = )", "a port is expected here", ")", "dport = :443"),
        (
            "dport or sport = :1",
            "a port is expected here",
            "or",
            "dport",
        ),
        (
            "dport = 10.0.0.1",
            "'10.0.0.1' is not a port",
            "10.0.0.1",
            "'src' or 'dst'",
        ),
        (
            "dport = 65536",
            "'65536' is not a port",
            "65536",
            "dport = :443",
        ),
        ("dport >= *", "'*' is not a port", "*", "dport >= 1024"),
        ("dst 443", "'443' is not an address", "443", "dport = :443"),
        (
            "dst unix:x",
            "'unix:x' is not an address",
            "unix:x",
            "dst 10.0.0.7",
        ),
        (
            "dst < 10.0.0.1",
            "'dst' cannot be compared with '<'",
            "<",
            "dst 10.0.0.0/8",
        ),
        (
            "process > 5",
            "'process' cannot be compared with '>'",
            ">",
            "process ~ GLOB",
        ),
        ("rtt ~ 5", "'rtt' cannot be compared with '~'", "~", "100ms"),
        (
            "rtt > 100",
            "'100' is not a time",
            "100",
            "write the unit: 'rtt > 100ms'",
        ),
        ("age > soon", "'soon' is not a time", "soon", "min"),
        ("recv-q > 1.5", "'1.5' is not a size", "1.5", "64KiB"),
        (
            "pid = nginx",
            "'nginx' is not a number",
            "nginx",
            "pid = 12",
        ),
        ("timer = x", "'x' is not a timer", "x", "keepalive"),
        ("fwmark = x", "'x' is not a mark", "x", "0x10/0xff"),
        (
            "shutdown = x",
            "'shutdown' cannot be compared with anything",
            "shutdown",
            "-c shutdown",
        ),
        (
            "state < listen",
            "'state' cannot be compared with '<'",
            "<",
            "state close-wait",
        ),
        (
            "(sport = :1",
            "this parenthesis is not closed",
            "(",
            "quote the filter",
        ),
        ("sport = :1)", "')' is not understood", ")", "parentheses"),
        (
            "sport = :1 and",
            "a test, such as sport = :443, is expected here",
            "",
            "'state STATE'",
        ),
        (
            "or sport = :1",
            "a test, such as sport = :443, is expected here",
            "or",
            "'state STATE'",
        ),
        (
            "not",
            "a test, such as sport = :443, is expected here",
            "",
            "'state STATE'",
        ),
        ("()", "')' is not understood", ")", "parentheses"),
        ("= :1", "'=' is not understood", "=", "'state STATE'"),
    ];
    for (text, says, under, hint) in table {
        let (message, marked, hinted) = wrong(text);
        assert_eq!((&message[..], &marked[..]), (says, under), "{text}");
        assert!(hinted.contains(hint), "{text}: {hinted}");
    }
}

#[test]
fn what_nests_deeper_than_anybody_writes_is_refused_before_the_stack_ends() {
    for (open, close) in [("(", ")"), ("! ", ""), ("not (", ")")] {
        let nested = |n: usize| format!("{}sport = :1{}", open.repeat(n), close.repeat(n));
        assert!(Filter::parse(&[nested(20)]).is_ok(), "{open}");
        assert!(wrong(&nested(100_000)).0.contains("too deep"), "{open}");
    }
    let flat = vec!["sport = :1 or"; 20_000].join(" ");
    assert!(Filter::parse(&[format!("{flat} sport = :2")]).is_ok());
}

#[test]
fn every_spelling_of_ss_means_the_same() {
    let same: &[&[&str]] = &[
        &[
            "sport = :22",
            "sport 22",
            "sport == 22",
            "sport eq :0x16",
            "src :22",
            "src *:22",
            "( sport = 026 )",
            "SPORT=22",
            "local-port = 22",
        ],
        &[
            "dport >= :1024 dst 10.0.0.0/8",
            "dport ge 1024 and dst = 10.0/8",
            "(dport geq 1024) && dst 10.1.2.3/255.0.0.0",
            "dport>=1024 & peer 10.0.0.0/8",
        ],
        &[
            "not dst 10.0.0.1",
            "! dst 10.0.0.1",
            "dst != 10.0.0.1",
            "dst ne 10.0.0.1",
            "!(dst 10.0.0.1)",
        ],
        &[
            "sport = :1 or sport = :2 and dport = :3",
            "sport = :1 or (sport = :2 and dport = :3)",
            "sport 1 | sport 2 dport 3",
        ],
        &[
            "process = nginx",
            "comm = nginx",
            "process nginx",
            "process eq nginx",
        ],
        &[
            "rtt > 100ms",
            "rtt gt 0.1s",
            "rtt_us > 100000",
            "RTT > 100000us",
        ],
        &["age >= 5min", "age >= 5m", "age ge 300s"],
        &["send-q > 1MB", "send_q > 1000000", "send-q>1000kB"],
        &["timer = on", "timer retransmit"],
        &["process !~ ng*", "not process ~ ng*", "! process =~ ng*"],
        &["dst *", "dst any", "dport = *", "dport = :*"],
        &["src [fd00::/16]:22", "src [fd00::]/16:22"],
    ];
    for group in same {
        let first = Filter::parse(&words(&group[..1])).unwrap();
        for text in *group {
            let filter = Filter::parse(&words(&[text])).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(filter.expr, first.expr, "{text}");
        }
    }
}

pub(super) fn fits(text: &str, fixture: &Fixture) -> bool {
    let filter = Filter::parse(&words(&[text])).unwrap_or_else(|e| panic!("{text}: {e}"));
    fixture.with(|record| filter.matches(record))
}

#[test]
fn ipv4_sees_v4_mapped_addresses_and_a_v4_mapped_one_only_these() {
    let v4 = Fixture::new();
    let mut mapped = Fixture::new();
    mapped.socket.family = Family::Ipv6;
    let mut v6 = Fixture::new();
    v6.socket.family = Family::Ipv6;
    v6.socket.remote = Endpoint::v6(
        "fd00::7".parse::<std::net::Ipv6Addr>().unwrap().octets(),
        51_000,
    );
    let table = [
        ("dst 10.0.0.7", (true, true, false)),
        ("dst 10.0.0.0/8:51000", (true, true, false)),
        ("dst ::ffff:10.0.0.7", (false, true, false)),
        ("dst inet6:10.0.0.7", (false, true, false)),
        ("dst inet:10.0.0.7", (true, false, false)),
        ("dst 0.0.0.0/0", (true, true, false)),
        ("dst ::/0", (false, true, true)),
        ("dst fd00::/16", (false, false, true)),
        ("dst *", (true, true, true)),
        ("dst inet6:*", (false, true, true)),
    ];
    for (text, expected) in table {
        let found = (fits(text, &v4), fits(text, &mapped), fits(text, &v6));
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn what_is_not_known_fits_no_comparison() {
    let mut fixture = Fixture::new();
    fixture.info.clear();
    assert!(!fits("rtt > 0", &fixture) && !fits("rtt <= 1h", &fixture));
    assert!(fits("rtt != 1ms", &fixture), "which is not rtt = 1ms");
    fixture.socket.inode = 0;
    assert!(!fits("process ~ *", &fixture) && fits("process != nginx", &fixture));
}

#[test]
fn columns_are_compared_in_their_own_units() {
    let fixture = Fixture::new();
    for (text, expected) in [
        ("rtt = 500us", true),
        ("rtt < 1ms", true),
        ("last_data_sent = 7s", true),
        ("age >= 7s", true),
        ("age < 8s", false),
        ("recv-q = 1 send-q = 20", true),
        ("pid = 101", true),
        ("pid != 101", false),
        ("uid = 1000", true),
        ("cookie = 0x1a", true),
        ("process ~ ng* process !~ *apache*", true),
        ("unit = nginx", true),
        ("unit = nginx.service", true),
        ("cgroup ~ /system.slice/*", true),
        ("timer = keepalive", true),
        ("congestion = cubic", true),
        ("skmem-rcvbuf >= 128KiB", true),
        ("fwmark = 0", true),
        ("fwmark = 1/1", false),
    ] {
        assert_eq!(fits(text, &fixture), expected, "{text}");
    }
}

#[test]
fn a_filter_says_what_it_needs_and_no_more() {
    let needed = |text: &str| Filter::parse(&words(&[text])).unwrap().needed();
    let nothing = Needed::default();
    assert_eq!(
        needed("state listen sport = :1 recv-q > 0 uid = 0 dev = lo"),
        nothing
    );
    assert!(needed("not rtt > 1ms").tcp_info && needed("sport = :1 or age > 1s").tcp_info);
    assert_eq!(
        needed("process = x"),
        Needed {
            owners: true,
            ..nothing
        }
    );
    assert_eq!(
        needed("pid = 1"),
        Needed {
            owners: true,
            ..nothing
        }
    );
    assert_eq!(
        needed("unit = x"),
        Needed {
            owners: true,
            extended: true,
            cgroup: true,
            ..nothing
        }
    );
    assert!(needed("skmem-drops > 0").memory && needed("congestion = bbr").congestion);
    assert!(needed("fwmark = 1").extended);
}

#[test]
fn an_alternative_without_a_state_means_those_that_were_not_asked_for() {
    use TcpState::{Established, TimeWait};
    let default = of(&[Established, TimeWait]);
    let within = |text: &str| {
        Filter::parse(&words(&[text]))
            .unwrap()
            .within(default)
            .to_string()
    };
    let table = [
        ("", "state established,time-wait"),
        ("dport = :1", "state established,time-wait and dport = :1"),
        ("state listen", "state listen"),
        ("dport = :1 state listen", "dport = :1 and state listen"),
        (
            "dport = :1 or state listen",
            "state established,time-wait and dport = :1 or state listen",
        ),
        (
            "(dport = :1 or state listen) sport = :2",
            "(state established,time-wait and dport = :1 or state listen) and sport = :2",
        ),
        (
            "dport = :1 not state listen",
            "state all exclude bound-inactive and dport = :1 and not (state listen)",
        ),
        (
            "state all not state listen",
            "state all and not (state listen)",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(within(text), expected, "{text}");
    }
}

#[test]
fn carets_stand_below_wide_and_hostile_words() {
    let error = error(&["state", "listen", "服务\x1b[2J\u{202e}", "x"]);
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1], "  state listen 服务\u{fffd}[2J\u{fffd} x");
    assert_eq!(lines[2], "               ^^^^^^^^^");
    assert!(
        !text.contains(['\x1b', '\u{202e}']) && !error.hint().contains('\x1b'),
        "{text}"
    );
}
