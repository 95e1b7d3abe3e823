use super::*;
use crate::analyze::scenario::{HERE, Scenario, THERE};
use crate::history::{Sample, Tally};
use crate::model::{AgeFacts, Endpoint, Socket, Timer};

fn read_with(
    scenario: Scenario,
    name: &str,
    change: impl Fn(&mut crate::model::Snapshot),
) -> Reading {
    let (mut snapshot, history) = scenario.finished();
    change(&mut snapshot);
    let tally = Tally::new(&snapshot);
    let sample = Sample::new(&snapshot, &tally);
    let context = Context {
        snapshot: &snapshot,
        tally: &tally,
        sample: &sample,
        history: &history,
        ages: AgeFacts::new(&snapshot.facts),
        expected: &[],
    };
    parse(name).unwrap().read(&context)
}

fn read(scenario: &Scenario, name: &str) -> Reading {
    read_with(scenario.clone(), name, |_| {})
}

fn why(reading: Reading) -> String {
    match reading {
        Reading::CannotTell(reason) | Reading::Missing(reason) => reason,
        value => panic!("{value:?}"),
    }
}

fn connection(scenario: &mut Scenario, state: TcpState, port: u16) -> Socket {
    let (local, remote) = (Endpoint::v4(HERE, port), Endpoint::v4(THERE, 443));
    scenario.socket(state, local, remote)
}

#[test]
fn states_are_counted_and_what_was_not_seen_is_not_zero() {
    let mut scenario = Scenario::default();
    for port in 40_000..40_003 {
        let socket = connection(&mut scenario, TcpState::CloseWait, port);
        scenario.push(socket, &[]);
    }
    let mut half = connection(&mut scenario, TcpState::NewSynReceived, 80);
    half.inode = 0;
    scenario.push(half, &[]);
    assert_eq!(read(&scenario, "tcp.close-wait"), Reading::Value(3.0));
    assert_eq!(read(&scenario, "tcp.syn-recv"), Reading::Value(1.0));
    assert_eq!(read(&scenario, "tcp.closing"), Reading::Value(0.0));
    assert_eq!(read(&scenario, "tcp.total"), Reading::Value(4.0));
    let gap = |part: &str| {
        let part = part.to_owned();
        read_with(scenario.clone(), "tcp.close-wait", move |snapshot| {
            snapshot.coverage.missing.push(part.clone());
        })
    };
    assert!(why(gap("TCP over IPv6: EPERM")).contains("EPERM"));
    assert_eq!(gap("UDP sockets: EPERM"), Reading::Value(3.0));
    let unsure = |name: &str| {
        read_with(scenario.clone(), name, |snapshot| {
            snapshot.coverage.unsure = StateSet::of(TcpState::Closing);
        })
    };
    assert!(why(unsure("tcp.closing")).contains("CLOSING"));
    assert!(why(unsure("tcp.total")).contains("CLOSING"));
    assert_eq!(unsure("tcp.close-wait"), Reading::Value(3.0));
    let proc = |name: &str| {
        read_with(scenario.clone(), name, |snapshot| {
            snapshot.coverage.collector = crate::model::coverage::Collector::Procfs;
        })
    };
    assert!(why(proc("tcp.bound-inactive")).contains("/proc/net"));
    assert_eq!(proc("tcp.close-wait"), Reading::Value(3.0));
}

#[test]
fn the_fullest_listener_of_a_port_counts_and_none_is_missing() {
    let mut scenario = Scenario::default();
    let nginx = scenario.process(7, "nginx", 10, 100);
    scenario.listen(nginx, 443, 3, 4, 0);
    scenario.listen(nginx, 443, 9, 100, 0);
    scenario.listen(nginx, 80, 1, 0, 0);
    assert_eq!(read(&scenario, "listener[443].queue"), Reading::Value(9.0));
    assert_eq!(
        read(&scenario, "listener[443].queue-ratio"),
        Reading::Value(0.75)
    );
    assert_eq!(
        read(&scenario, "listener[80].queue-ratio"),
        Reading::Value(1.0),
        "a backlog of 0 takes one"
    );
    assert_eq!(
        read(&scenario, "listener[8443].queue"),
        Reading::Missing("nobody listens on :8443".into())
    );
    let torn = read_with(scenario.clone(), "listener[8443].queue", |snapshot| {
        snapshot.coverage.interrupted = 1;
    });
    assert!(why(torn).contains("not read whole"));
    let proc = read_with(scenario, "listener[443].queue-ratio", |snapshot| {
        for socket in &mut snapshot.sockets {
            (socket.cookie, socket.send_q) = (None, 0);
        }
    });
    assert!(why(proc).contains("/proc/net"));
}

#[test]
fn processes_are_found_by_name_and_hidden_holders_leave_it_open() {
    let mut scenario = Scenario::default();
    let (java, other) = (
        scenario.process(7, "java", 80, 100),
        scenario.process(8, "java", 10, 1000),
    );
    let long = scenario.process(9, "a-name-of-fifte", 1, 2);
    for (port, process) in [(40_000, java), (40_001, other), (40_002, long)] {
        let socket = connection(&mut scenario, TcpState::CloseWait, port);
        let socket = scenario.held_by(process, socket);
        scenario.push(socket, &[]);
    }
    let shared = connection(&mut scenario, TcpState::Established, 40_003);
    let shared = scenario.held_by(java, shared);
    let shared = scenario.held_by(other, shared);
    scenario.push(shared, &[]);
    let value = |name: &str| read(&scenario, name).value();
    assert_eq!(value("process[java].close-wait"), Some(2.0));
    assert_eq!(value("process[java].established"), Some(1.0), "one socket");
    assert_eq!(value("process[java].total"), Some(3.0));
    assert_eq!(value("process[a-name-of-fifteen-letters].total"), Some(1.0));
    assert_eq!(value("process[a-name].total"), Some(0.0));
    assert_eq!(value("process[java].fd-ratio"), Some(0.8));
    assert!(why(read(&scenario, "process[ruby].fd-ratio")).contains("ruby"));

    let mut nobody = scenario.clone();
    let mut socket = connection(&mut nobody, TcpState::CloseWait, 40_009);
    socket.inode = 4_000_000;
    nobody.push(socket, &[]);
    let hide = |snapshot: &mut crate::model::Snapshot| {
        snapshot.coverage.unreadable_processes = 1;
        snapshot.owners = std::mem::take(&mut snapshot.owners).searched(&snapshot.coverage);
    };
    let open = |name: &str| read_with(nobody.clone(), name, hide);
    assert_eq!(
        why(open("process[java].close-wait")),
        "java holds 2, and of 1 more socket the holder is not known: other users' processes may not be looked into"
    );
    assert_eq!(open("process[java].established").value(), Some(1.0));
    assert_eq!(
        read(&nobody, "process[java].close-wait").value(),
        Some(2.0),
        "everybody was looked into: it is the kernel's"
    );
    let unread = read_with(nobody, "process[java].total", |snapshot| {
        snapshot.coverage.owners_read = false;
    });
    assert!(why(unread).contains("not read"));
}

#[test]
fn shares_of_limits_agree_with_the_detectors() {
    let mut scenario = Scenario::default();
    scenario.sysctl("net/ipv4/tcp_max_tw_buckets", "8");
    scenario.sysctl("net/ipv4/ip_local_port_range", "40000\t40009");
    scenario.sysctl("net/netfilter/nf_conntrack_count", "3");
    scenario.sysctl("net/netfilter/nf_conntrack_max", "4");
    scenario.sysctl("net/ipv4/tcp_max_orphans", "4");
    for port in 40_000..40_002 {
        let mut socket = connection(&mut scenario, TcpState::TimeWait, port);
        (socket.timer, socket.timer_ms, socket.inode) = (Timer::TimeWait, 59_900, 0);
        scenario.push(socket, &[]);
    }
    let mut orphan = connection(&mut scenario, TcpState::LastAck, 40_002);
    orphan.inode = 0;
    scenario.push(orphan, &[]);
    let value = |name: &str| read(&scenario, name).value();
    assert_eq!(value("time-wait.table-ratio"), Some(0.25));
    assert_eq!(value("ports.used-ratio"), Some(0.3));
    assert_eq!(value("conntrack.ratio"), Some(0.75));
    assert_eq!(value("orphans.ratio"), Some(0.25));
    assert_eq!(value("closes.rate"), Some(2.0 / 60.0));
    let without = |path: &'static str, name: &str| {
        why(read_with(scenario.clone(), name, move |snapshot| {
            snapshot.facts.sysctls.remove(path);
        }))
    };
    assert!(without("net/ipv4/tcp_max_tw_buckets", "time-wait.table-ratio").contains("tw_buckets"));
    assert!(without("net/ipv4/ip_local_port_range", "ports.used-ratio").contains("port_range"));
    assert!(without("net/ipv4/tcp_max_orphans", "orphans.ratio").contains("tcp_max_orphans"));
    let none = without("net/netfilter/nf_conntrack_max", "conntrack.ratio");
    assert_eq!(none, "this host tracks no connections");
}

#[test]
fn growth_is_the_slope_over_at_least_a_minute_of_history() {
    let grown = |steps: &[(i64, u16)]| {
        let mut scenario = Scenario::default();
        let mut port = 40_000;
        for (seconds, more) in steps {
            for _ in 0..*more {
                let socket = connection(&mut scenario, TcpState::CloseWait, port);
                scenario.push(socket, &[]);
                port += 1;
            }
            if *seconds > 0 {
                scenario.remember(*seconds);
            }
        }
        read(&scenario, "tcp.close-wait.growth")
    };
    assert_eq!(grown(&[(60, 5), (0, 5)]), Reading::Over(5.0, 60));
    assert_eq!(
        grown(&[(600, 5), (600, 5), (0, 5)]),
        Reading::Over(0.5, 1200)
    );
    assert_eq!(grown(&[(60, 5), (0, 0)]), Reading::Over(0.0, 60));
    assert_eq!(why(grown(&[(0, 5)])), "no history yet");
    assert!(why(grown(&[(59, 5), (0, 5)])).contains("59 s old"));
    let mut scenario = Scenario::default();
    scenario.remember(60);
    let listener = scenario.process(7, "nginx", 1, 10);
    scenario.listen(listener, 80, 0, 10, 0);
    assert_eq!(read(&scenario, "tcp.total.growth"), Reading::Over(1.0, 60));
    assert_eq!(
        read(&scenario, "tcp.closing.growth"),
        Reading::Over(0.0, 60)
    );
}

#[test]
fn a_name_that_nobody_has_may_be_a_slip() {
    let mut scenario = Scenario::default();
    let nginx = scenario.process(7, "nginx", 10, 100);
    scenario.listen(nginx, 443, 0, 4, 0);
    let nobody = |name: &str| {
        let (snapshot, history) = scenario.clone().finished();
        let tally = Tally::new(&snapshot);
        let sample = Sample::new(&snapshot, &tally);
        let context = Context {
            snapshot: &snapshot,
            tally: &tally,
            sample: &sample,
            history: &history,
            ages: AgeFacts::new(&snapshot.facts),
            expected: &[],
        };
        parse(name).unwrap().nobody(&context)
    };
    assert_eq!(
        nobody("process[ngnix].total").unwrap(),
        "process[ngnix].total: no process 'ngnix' holds a TCP socket now"
    );
    assert!(nobody("unit[nginx.servce].close-wait").is_some());
    assert_eq!(
        nobody("process[nginx].close-wait"),
        None,
        "it holds none of these"
    );
    assert_eq!(nobody("tcp.total"), None);
}
