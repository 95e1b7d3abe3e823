use std::collections::BTreeSet;

use super::*;
use crate::model::owner::Link;
use crate::model::{
    Actor, Collector, Endpoint, Finding, Owners, Process, Protocol, Socket, Subject, Timer, Unknown,
};

const FOUND: &[&str] = &["close-wait-leak", "syn-flood"];

fn socket(state: TcpState, port: u16, inode: u32) -> Socket {
    Socket {
        cookie: std::num::NonZeroU64::new(u64::from(inode) + 1),
        local: Endpoint::v4([10, 0, 0, 1], port),
        remote: Endpoint::v4([10, 0, 0, 2], 9),
        inode,
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
        protocol: Protocol::Tcp,
        family: Family::Ipv4,
    }
}

fn listener(port: u16, queue: u32, limit: u32) -> Socket {
    Socket {
        recv_q: queue,
        send_q: limit,
        ..socket(TcpState::Listen, port, 1)
    }
}

/// Processes of these units, each of which holds the socket whose inode is its place, counted from 1.
fn held(units: &[&str]) -> Owners {
    let processes = units.iter().zip(100..).map(|(unit, pid)| Process {
        pid,
        cgroup: Some(format!("/system.slice/{unit}")),
        ..Process::default()
    });
    let links = (0u32..).zip(units).map(|(process, _)| Link {
        inode: process + 1,
        process,
        fd: 3,
    });
    Owners::new(processes.collect(), links.collect())
}

fn shown(snapshot: &Snapshot, analysis: &Analysis) -> String {
    let rows = (0u32..).zip(&snapshot.sockets);
    let listeners = rows.filter(|(_, socket)| socket.state == TcpState::Listen);
    let listeners: Vec<u32> = listeners.map(|(row, _)| row).collect();
    let seen = Seen {
        snapshot,
        listeners: &listeners,
        analysis,
        detectors: FOUND,
        figures: Figures {
            ephemeral_ports: Some(28_232),
            ports_used: Some([0.5, 0.25, 0.0, 0.0, 0.0]),
            closes: Some(1.5),
            time_wait_table: Some(0.1),
            orphans: Some(0.0),
            conntrack: Some(0.2),
        },
    };
    text(Some(&seen), Duration::from_millis(12)).unwrap()
}

fn plain(snapshot: &Snapshot) -> String {
    shown(snapshot, &Analysis::default())
}

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|other| other == line)
}

fn series<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!("{name}{{");
    text.lines()
        .filter(|line| line.starts_with(&start))
        .collect()
}

/// Everything that can be seen.
fn whole() -> Snapshot {
    let mut snapshot = Snapshot {
        owners: held(&["web.service"]),
        ..Snapshot::default()
    };
    snapshot.coverage.owners_read = true;
    let row = snapshot.push(listener(443, 3, 16), None);
    snapshot.drops.insert(row, 7);
    snapshot.push(socket(TcpState::CloseWait, 443, 1), None);
    snapshot
}

#[test]
fn the_table_has_what_is_written_and_nothing_else() {
    let text = plain(&whole());
    let mut names = BTreeSet::new();
    for metric in metrics::METRICS {
        assert!(names.insert(metric.name), "{} twice", metric.name);
        assert!(metric.help.ends_with('.'), "{}", metric.name);
        let total = metric.name.ends_with("_total");
        assert_eq!(total, metric.kind == Kind::Counter, "{}", metric.name);
        let kind = format!("# TYPE {} {}", metric.name, metric.kind.name());
        assert!(has(&text, &kind), "{kind}");
        let help = format!("# HELP {} {}", metric.name, metric.help);
        assert!(has(&text, &help), "{help}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let end = line.find(['{', ' ']).unwrap();
        assert!(names.contains(&line[..end]), "{line}");
    }
    assert!(text.ends_with('\n'));
    let order: Vec<usize> = metrics::METRICS
        .iter()
        .map(|metric| text.find(&format!("# HELP {} ", metric.name)).unwrap())
        .collect();
    assert!(order.is_sorted(), "as the table has them");
}

#[test]
fn every_state_is_there_with_its_zeros() {
    let text = plain(&whole());
    for family in ["ipv4", "ipv6"] {
        for state in TcpState::SHOWN {
            let label = state_label(state);
            let n = match (family, state) {
                ("ipv4", TcpState::Listen | TcpState::CloseWait) => 1,
                _ => 0,
            };
            let line = format!("linger_tcp_sockets{{family=\"{family}\",state=\"{label}\"}} {n}");
            assert!(has(&text, &line), "{line}");
        }
    }
    assert_eq!(series(&text, "linger_tcp_sockets").len(), 24);
    assert_eq!(series(&text, "linger_listener_sockets").len(), 12);
    assert_eq!(series(&text, "linger_unit_sockets").len(), 12);
    for line in [
        r#"linger_listener_sockets{port="443",state="close_wait"} 1"#,
        r#"linger_unit_sockets{unit="web.service",state="listen"} 1"#,
        r#"linger_listener_accept_queue{port="443"} 3"#,
        r#"linger_listener_backlog{port="443"} 16"#,
        r#"linger_listener_drops_total{port="443"} 7"#,
        r#"linger_destination_ports_used_ratio{rank="2"} 0.25"#,
        "linger_scrape_duration_seconds 0.012",
    ] {
        assert!(has(&text, line), "{line}");
    }
}

#[test]
fn node_exporters_words_for_states() {
    let words: BTreeSet<&str> = TcpState::SHOWN.into_iter().map(state_label).collect();
    let expected = "established syn_sent syn_recv fin_wait1 fin_wait2 time_wait close close_wait last_ack listen closing \
                    bound_inactive";
    assert_eq!(words, expected.split(' ').collect());
}

#[test]
fn what_could_not_be_seen_is_absent() {
    let mut snapshot = whole();
    snapshot.coverage.collector = Collector::Procfs;
    snapshot.coverage.missing = vec!["TCP over IPv6: no such table".to_owned()];
    snapshot.coverage.owners_read = false;
    snapshot.sockets[0].cookie = None;
    snapshot.drops.clear();
    let text = plain(&snapshot);
    assert!(!text.contains("bound_inactive\"") && !text.contains("family=\"ipv6\""));
    assert_eq!(series(&text, "linger_tcp_sockets").len(), 11);
    for absent in [
        "linger_unit_sockets",
        "linger_unowned_sockets",
        "linger_unreadable_processes",
        "linger_listener_backlog",
        "linger_listener_drops_total",
    ] {
        assert!(!text.contains(&format!("# TYPE {absent}")), "{absent}");
    }
    assert!(has(&text, "linger_source_complete 0"));
    assert!(has(&text, r#"linger_listener_accept_queue{port="443"} 3"#));
    snapshot.push(
        Socket {
            family: Family::Ipv6,
            ..socket(TcpState::Unknown(99), 1, 0)
        },
        None,
    );
    let text = plain(&snapshot);
    assert!(has(
        &text,
        r#"linger_tcp_sockets{family="ipv6",state="unknown"} 1"#
    ));
}

#[test]
fn nothing_old_is_said_where_nothing_could_be_read() {
    let text = text(None, Duration::from_millis(1)).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let build = format!(
        "linger_build_info{{version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(
        lines,
        [
            &build,
            "linger_source_up 0",
            "linger_scrape_duration_seconds 0.001"
        ]
    );
}

#[test]
fn the_ports_with_most_sockets_are_told_and_the_rest_together() {
    let of = |ports: u16| {
        let mut snapshot = Snapshot::default();
        for port in 1..=ports {
            snapshot.push(listener(port, 0, 16), None);
        }
        // The last port has the most.
        snapshot.push(socket(TcpState::CloseWait, ports, 0), None);
        plain(&snapshot)
    };
    let text = of(32);
    assert_eq!(series(&text, "linger_listener_sockets").len(), 32 * 12);
    assert!(!text.contains("\"other\""));
    let text = of(40);
    assert_eq!(series(&text, "linger_listener_sockets").len(), 33 * 12);
    assert!(has(
        &text,
        r#"linger_listener_sockets{port="40",state="close_wait"} 1"#
    ));
    assert!(has(
        &text,
        r#"linger_listener_sockets{port="other",state="listen"} 8"#
    ));
    assert!(has(
        &text,
        r#"linger_listener_sockets{port="other",state="close_wait"} 0"#
    ));
}

#[test]
fn the_fullest_queues_are_told() {
    let mut snapshot = Snapshot::default();
    for port in 1..=70 {
        snapshot.push(listener(port, 0, 16), None);
    }
    // Of several listeners of a port, as with SO_REUSEPORT, the fullest; their drops together.
    for (queue, limit, drops) in [(4, 100, 1), (4, 8, 2), (3, 8, 4)] {
        let row = snapshot.push(listener(9000, queue, limit), None);
        snapshot.drops.insert(row, drops);
    }
    let text = plain(&snapshot);
    assert_eq!(series(&text, "linger_listener_accept_queue").len(), 64);
    assert_eq!(series(&text, "linger_listener_backlog").len(), 64);
    for line in [
        r#"linger_listener_accept_queue{port="9000"} 4"#,
        r#"linger_listener_backlog{port="9000"} 8"#,
        r#"linger_listener_drops_total{port="9000"} 7"#,
        r#"linger_listener_accept_queue{port="63"} 0"#,
    ] {
        assert!(has(&text, line), "{line}");
    }
    assert!(!text.contains(r#"linger_listener_accept_queue{port="64"}"#));
}

#[test]
fn names_of_units_are_harmless_and_each_is_one_series() {
    let hostile = [
        "a\"b\\c\nd.service",
        "\u{1b}[2J\u{202e}x.service",
        "\\x1b[2J\\u{202e}x.service",
        "other.service",
        "run-r1.scope",
    ];
    let mut snapshot = Snapshot {
        owners: held(&hostile),
        ..Snapshot::default()
    };
    snapshot.coverage.owners_read = true;
    for inode in 1..=5 {
        snapshot.push(socket(TcpState::Established, 1000, inode), None);
    }
    let text = plain(&snapshot);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    assert!(!text.contains('\u{202e}'));
    let mut of = series(&text, "linger_unit_sockets");
    of.retain(|line| line.contains("established"));
    assert_eq!(
        of,
        [
            // What looks the same once it is harmless is counted as one.
            r#"linger_unit_sockets{unit="\\x1b[2J\\u{202e}x.service",state="established"} 2"#,
            r#"linger_unit_sockets{unit="a\"b\\c\\x0ad.service",state="established"} 1"#,
            r#"linger_unit_sockets{unit="other.service",state="established"} 1"#,
            r#"linger_unit_sockets{unit="run-r1.scope",state="established"} 1"#,
        ]
    );
}

#[test]
fn a_socket_is_of_the_service_that_systemd_opened_it_for() {
    let mut snapshot = whole();
    let process = |pid, unit: &str| Process {
        pid,
        cgroup: Some(format!("/{unit}")),
        ..Process::default()
    };
    let link = |inode, process| Link {
        inode,
        process,
        fd: 3,
    };
    snapshot.owners = Owners::new(
        vec![
            process(1, "init.scope"),
            process(7, "system.slice/web.service"),
        ],
        vec![link(1, 0), link(1, 1), link(2, 0)],
    );
    snapshot.push(listener(22, 0, 16), None);
    snapshot.sockets[2].inode = 2;
    let text = plain(&snapshot);
    assert!(has(
        &text,
        r#"linger_unit_sockets{unit="web.service",state="listen"} 1"#
    ));
    assert!(has(
        &text,
        r#"linger_unit_sockets{unit="init.scope",state="listen"} 1"#
    ));
}

#[test]
fn findings_are_counted_by_severity_and_open_questions_are_not_quiet() {
    let finding = |id, severity| Finding {
        id,
        variant: None,
        severity,
        title: String::new(),
        subject: Subject::Host,
        evidence: Vec::new(),
        explanation: String::new(),
        grounds: Vec::new(),
        who_must_act: Actor::Nobody,
        advice: Vec::new(),
        rows: Vec::new(),
        caused_by: None,
        one_sample: false,
    };
    let mut analysis = Analysis {
        findings: vec![
            finding(FOUND[0], Severity::Critical),
            finding(FOUND[0], Severity::Warning),
            finding(FOUND[0], Severity::Critical),
        ],
        unknown: vec![Unknown {
            id: FOUND[1],
            reason: "one look only".to_owned(),
        }],
        ..Analysis::default()
    };
    let text = shown(&whole(), &analysis);
    assert_eq!(
        [
            series(&text, "linger_finding_active"),
            series(&text, "linger_finding_unknown")
        ]
        .concat(),
        [
            r#"linger_finding_active{id="close-wait-leak",severity="warning"} 1"#,
            r#"linger_finding_active{id="close-wait-leak",severity="critical"} 2"#,
            r#"linger_finding_active{id="close-wait-leak",severity="info"} 0"#,
            r#"linger_finding_unknown{id="close-wait-leak"} 0"#,
            r#"linger_finding_unknown{id="syn-flood"} 1"#,
        ]
    );
    // Found, and perhaps more of it: what was found is known, and that there is no more is not.
    analysis.findings.push(finding(FOUND[1], Severity::Info));
    let text = shown(&whole(), &analysis);
    let of: Vec<&str> = series(&text, "linger_finding_active")
        .into_iter()
        .filter(|line| line.contains("syn-flood"))
        .collect();
    assert_eq!(
        of,
        [r#"linger_finding_active{id="syn-flood",severity="info"} 1"#]
    );
}
