//! The registry. A new detector is its file and its line in the list below.

use super::{Context, Detector, words};
use crate::model::finding::Value;
use crate::model::{Actor, Finding, Severity, Socket, Subject, TcpState};

/// Declares the modules and the registry in one place.
macro_rules! detectors {
    ($($name:ident),+ $(,)?) => {
        $(mod $name;)+
        /// Every detector.
        pub static ALL: &[&Detector] = &[$(&$name::DETECTOR),+];
    };
}

detectors! {
    close_wait_leak,
    accept_queue_stuck,
    time_wait_flood,
    fin_wait_2_stuck,
    ephemeral_port_exhaustion,
    listen_overflow,
    syn_sent_blackhole,
    syn_flood,
    syncookies_active,
    reuseport_imbalance,
    backlog_clamped,
    listener_vanished,
    reset_storm,
    md5_failures,
    conntrack_near_full,
    host_receive_drops,
    retransmit_storm,
    idle_no_keepalive,
    keepalive_failing,
    awaiting_reply,
    keepalive_slower_than_middlebox,
    fin_wait_1_stuck,
    last_ack_stuck,
    closing_stuck,
    fin_wait_2_orphan_flood,
    time_wait_overflow,
    time_wait_server_side,
    orphan_pile_up,
    connection_churn,
    recv_q_stuck,
    zero_window_peer,
    path_mtu_suspect,
    retransmit_stuck,
    send_q_growth,
    bound_inactive_leak,
    tcp_memory_pressure,
    fd_limit_near,
    risky_sysctls,
    shared_fd,
}

/// The detector with this id, or with an alias of this name.
pub fn find(name: &str) -> Option<&'static Detector> {
    let folded = name.to_ascii_lowercase().replace('_', "-");
    ALL.iter()
        .find(|detector| detector.id == folded || detector.aliases.contains(&folded.as_str()))
        .copied()
}

/// Says which findings follow from which: one cause, one story.
pub fn relate(findings: &mut [Finding], context: &Context<'_>) {
    let causes: Vec<Option<&'static str>> = findings
        .iter()
        .map(|finding| cause(finding, findings, context))
        .collect();
    for (finding, cause) in findings.iter_mut().zip(causes) {
        finding.caused_by = cause;
    }
}

fn cause(finding: &Finding, all: &[Finding], context: &Context<'_>) -> Option<&'static str> {
    let with = |id: &'static str, fits: &dyn Fn(&Finding) -> bool| {
        all.iter()
            .any(|other| other.id == id && fits(other))
            .then_some(id)
    };
    match (finding.id, &finding.subject) {
        // A queue over its limit is the worse news about the same listener.
        ("accept-queue-stuck", subject) => with("listen-overflow", &|other| {
            same_listener(&other.subject, subject)
        })
        // The queue of one that does not accept, beside others that do.
        .or_else(|| {
            with("reuseport-imbalance", &|other| {
                same_listener(&other.subject, subject)
            })
        })
        .or_else(|| descriptors_used_up(finding, all, context)),
        ("listen-overflow", subject) => with("reuseport-imbalance", &|other| {
            same_listener(&other.subject, subject)
        })
        .or_else(|| descriptors_used_up(finding, all, context)),
        // A short queue is long enough for a program that accepts.
        ("backlog-clamped", subject) => [
            "listen-overflow",
            "reuseport-imbalance",
            "accept-queue-stuck",
        ]
        .into_iter()
        .find_map(|id| with(id, &|other| same_listener(&other.subject, subject))),
        // Over its limit the accept queue lets no handshake come to its end.
        ("syn-flood", subject) if accept_queue_is_full(subject, context) => {
            with("listen-overflow", &|other| {
                same_listener(&other.subject, subject)
            })
        }
        ("syncookies-active", subject) => ["syn-flood", "listen-overflow"]
            .into_iter()
            .find_map(|id| with(id, &|other| same_listener(&other.subject, subject))),
        // Attempts to reach a listener of this very host whose queue is full.
        ("syn-sent-blackhole", Subject::Destination { address, port, .. }) => {
            with("listen-overflow", &|other| {
                is_on_this_host(&other.subject, address, *port)
            })
        }
        // Nobody answers because probes are lost too, or because the program there, here, accepts nobody.
        ("awaiting-reply", Subject::Destination { address, port, .. }) => {
            with("keepalive-failing", &|other| {
                other.subject == finding.subject
            })
            .or_else(|| {
                with("accept-queue-stuck", &|other| {
                    is_on_this_host(&other.subject, address, *port)
                })
            })
        }
        // What was forgotten on the way answers no probe either.
        ("keepalive-failing", subject @ Subject::Destination { .. }) => {
            with("keepalive-slower-than-middlebox", &|other| {
                other.severity > Severity::Info && &other.subject == subject
            })
        }
        // What took the table's place, and why it is full.
        ("time-wait-overflow", _) => with("time-wait-flood", &|_| true),
        ("time-wait-flood", _) if mostly_orphans(context) => {
            with("fin-wait-2-orphan-flood", &|other| warns(other))
                .or_else(|| closes_fill_the_table(all))
        }
        ("time-wait-flood", _) => closes_fill_the_table(all),
        ("time-wait-server-side", _) if warns(finding) => {
            with("connection-churn", &|other| other.variant == Some("table"))
        }
        // Sockets pile up because their peers do not answer, or do not read.
        ("orphan-pile-up", _) if warns(finding) => {
            ["fin-wait-1-stuck", "last-ack-stuck", "zero-window-peer"]
                .into_iter()
                .find_map(|id| with(id, &|other| warns(other)))
        }
        // Nobody is there who could answer.
        (
            "fin-wait-1-stuck" | "last-ack-stuck" | "closing-stuck",
            Subject::Destination { address, port, .. },
        ) => with(
            "syn-sent-blackhole",
            &|other| matches!(&other.subject, Subject::Destination { address: a, port: p, .. } if a == address && p == port),
        ),
        // Ports that closed connections keep.
        ("ephemeral-port-exhaustion", Subject::Destination { address, port, .. })
            if finding.variant.is_none() =>
        {
            with(
                "connection-churn",
                &|other| matches!(&other.subject, Subject::Destination { address: a, port: p, .. } if a == address && p == port),
            )
        }
        // Both ends are here: who sends waits for who does not read.
        ("zero-window-peer" | "retransmit-stuck", _) => with("recv-q-stuck", &|other| {
            is_other_end(finding, other, context)
        }),
        // Who cannot pass on what it reads does not read on.
        ("recv-q-stuck", _) if finding.who_must_act == Actor::Peer => {
            with("zero-window-peer", &|other| {
                !is_other_end(other, finding, context)
            })
        }
        // Descriptors that a leak has taken.
        ("fd-limit-near", Subject::Process { pid: Some(pid), .. })
            if count(finding, "in_close_wait") * 4 >= count(finding, "open_descriptors") =>
        {
            leaks(*pid, all)
        }
        // Ports that nobody can dial from, because they are bound and nothing else.
        ("ephemeral-port-exhaustion", _) if bound_away(context) => {
            with("bound-inactive-leak", &|other| {
                other.severity > Severity::Info
            })
        }
        // Ports taken by attempts that nobody answers.
        ("ephemeral-port-exhaustion", Subject::Destination { address, port, .. })
            if finding.variant == Some("syn-sent") =>
        {
            with(
                "syn-sent-blackhole",
                &|other| matches!(&other.subject, Subject::Destination { address: a, port: p, .. } if a == address && p == port),
            )
        }
        _ => None,
    }
}

/// Whether the listener is the one behind a destination on this very host.
fn is_on_this_host(listener: &Subject, to: &std::net::IpAddr, on: u16) -> bool {
    matches!(listener, Subject::Listener { address, port, .. }
        if *port == on && (address == to || address.is_unspecified() && to.is_loopback()))
}

fn warns(finding: &Finding) -> bool {
    finding.severity > Severity::Info
}

/// Who or what closes so much that TIME-WAIT's table fills: the server that closes first is the nearer cause.
fn closes_fill_the_table(all: &[Finding]) -> Option<&'static str> {
    let by = |id, fits: fn(&Finding) -> bool| {
        let mut others = all.iter();
        others
            .any(|other| other.id == id && fits(other))
            .then_some(id)
    };
    by("time-wait-server-side", warns)
        .or_else(|| by("connection-churn", |other| other.variant == Some("table")))
}

/// Whether the table of TIME-WAIT holds more orphans in FIN-WAIT-2 than anything else.
fn mostly_orphans(context: &Context<'_>) -> bool {
    let tally = context.tally;
    tally.fin_wait_2_orphans.len() as u64 > tally.of(TcpState::TimeWait)
}

/// Whether two findings are about one thing, as far as a cause may share it with what follows.
pub fn same_subject(a: &Subject, b: &Subject) -> bool {
    same_listener(a, b) || a == b
}

fn same_listener(a: &Subject, b: &Subject) -> bool {
    match (a, b) {
        (
            Subject::Listener {
                address: a,
                port: p,
                ..
            },
            Subject::Listener {
                address: b,
                port: q,
                ..
            },
        ) => a == b && p == q,
        _ => false,
    }
}

/// Whether more connections wait for a listener than its limit.
fn accept_queue_is_full(subject: &Subject, context: &Context<'_>) -> bool {
    let listeners = context.tally.listeners.iter();
    listeners
        .filter_map(|row| context.snapshot.socket(*row))
        .any(|listener| {
            let about = matches!(subject, Subject::Listener { address, port, .. }
                if *address == listener.local_ip() && *port == listener.local.port);
            about
                && listener
                    .backlog()
                    .is_some_and(|limit| listener.recv_q > limit)
        })
}

/// Whether a socket of `sender` has its other end on this host, where the program that `reader` is about does not read.
fn is_other_end(sender: &Finding, reader: &Finding, context: &Context<'_>) -> bool {
    let snapshot = context.snapshot;
    let Subject::Process { pid, uid, .. } = reader.subject else {
        return false;
    };
    let unread = |socket: &&Socket| {
        let owner = words::holder(snapshot, socket);
        socket.recv_q > 0
            && match owner {
                Some(owner) => pid == Some(owner.pid),
                None => uid == Some(socket.uid),
            }
    };
    let rows = |rows: &[u32]| -> Vec<&Socket> {
        rows.iter()
            .filter_map(|row| snapshot.socket(*row))
            .collect()
    };
    let sent = rows(&sender.rows);
    rows(&context.tally.queued).iter().any(|here| {
        let is_pair = |there: &&Socket| there.local == here.remote && there.remote == here.local;
        sent.iter().any(is_pair) && unread(here)
    })
}

/// A leak that has used up the descriptors of the program that should accept.
fn descriptors_used_up(
    finding: &Finding,
    all: &[Finding],
    context: &Context<'_>,
) -> Option<&'static str> {
    let Subject::Listener { pid: Some(pid), .. } = finding.subject else {
        return None;
    };
    let owner = context
        .snapshot
        .owners
        .processes()
        .iter()
        .find(|process| process.pid == pid)?;
    if owner.fds? < owner.nofile? {
        return None;
    }
    let near = |other: &&Finding| other.id == "fd-limit-near" && is_about(&other.subject, pid);
    leaks(pid, all).or_else(|| all.iter().find(near).map(|other| other.id))
}

/// The leak of this process, if it has one that warns.
fn leaks(pid: u32, all: &[Finding]) -> Option<&'static str> {
    let leak = |other: &&Finding| {
        other.id == "close-wait-leak"
            && other.severity > Severity::Info
            && is_about(&other.subject, pid)
    };
    all.iter().find(leak).map(|other| other.id)
}

/// A number that the finding has measured.
fn count(finding: &Finding, name: &str) -> i64 {
    let measured = finding.evidence.iter().find(|one| one.name == name);
    match measured.map(|one| &one.value) {
        Some(Value::Count(n)) => *n,
        _ => 0,
    }
}

fn is_about(subject: &Subject, process: u32) -> bool {
    matches!(subject, Subject::Process { pid: Some(pid), .. } if *pid == process)
}

/// Whether ports that are only bound are a quarter of those that `connect` may choose from: half of what warns.
fn bound_away(context: &Context<'_>) -> bool {
    let range = context.snapshot.facts.ephemeral_ports();
    range.is_some_and(|range| context.tally.bound.len() as u64 * 4 >= u64::from(range))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::analyze::Settings;
    use crate::analyze::scenario::{HERE, Scenario, THERE};
    use crate::model::{Endpoint, Timer};

    #[test]
    fn names_are_unique_and_in_kebab_case_and_everything_is_explained() {
        let mut seen = HashSet::new();
        for detector in ALL {
            for name in detector.aliases.iter().chain([&detector.id]) {
                assert!(seen.insert(*name), "{name} twice");
                assert!(
                    name.chars()
                        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                );
                assert_eq!(find(name).map(|found| found.id), Some(detector.id));
            }
            for text in [detector.summary, detector.signals, detector.explanation] {
                assert!(!text.is_empty(), "{}", detector.id);
            }
            assert!(
                !detector.grounds.is_empty() && !detector.advice.is_empty(),
                "{}",
                detector.id
            );
            for threshold in detector.thresholds {
                assert!(
                    threshold.doc.len() > 20,
                    "{}.{}",
                    detector.id,
                    threshold.key
                );
            }
        }
    }

    #[test]
    fn each_example_fires_at_its_limit_and_not_one_below() {
        for detector in ALL {
            let mut settings = Settings::default();
            settings.only(&[detector.id.to_owned()]).unwrap();
            let example = detector.example;
            let severity = |n| {
                let findings = (example.build)(n).analyze(&settings).findings;
                assert!(findings.iter().all(|finding| finding.id == detector.id));
                findings.iter().map(|finding| finding.severity).max()
            };
            let (below, at) = (severity(example.limit - 1), severity(example.limit));
            assert!(
                at.is_some() && below < at && below <= Some(Severity::Info),
                "{}: {below:?} one below, {at:?} at {} {}",
                detector.id,
                example.limit,
                example.of
            );
        }
    }

    #[test]
    fn words_keep_their_budget() {
        for detector in ALL {
            let example = detector.example;
            for finding in (example.build)(example.limit)
                .analyze(&Settings::default())
                .findings
            {
                assert!(finding.title.chars().count() <= 100, "{}", finding.title);
                assert!(
                    finding.title.chars().any(|c| c.is_ascii_digit()),
                    "{}",
                    finding.title
                );
                assert!(
                    finding.advice.len() <= 3,
                    "{}: {:?}",
                    finding.id,
                    finding.advice
                );
                let sentences = finding.explanation.matches(". ").count() + 1;
                assert!(sentences <= 3, "{}: {}", finding.id, finding.explanation);
                assert!(finding.rows.len() <= 10);
                assert!(!finding.evidence.is_empty());
            }
        }
    }

    #[test]
    fn an_empty_machine_is_quiet() {
        let analysis = Scenario::default().analyze(&Settings::default());
        assert_eq!((analysis.findings, analysis.unknown), (vec![], vec![]));
        assert_eq!(analysis.quiet.len(), ALL.len());
    }

    fn worst(scenario: Scenario, id: &str) -> Option<(Severity, String)> {
        let findings = scenario.analyze(&Settings::default()).findings;
        let finding = findings.into_iter().find(|finding| finding.id == id)?;
        Some((finding.severity, finding.title))
    }

    /// Kernels by the length of their `tcp_info`.
    const LENGTHS: [((u16, u16), u16); 5] = [
        ((3, 10), 104),
        ((4, 18), 224),
        ((5, 4), 232),
        ((6, 1), 232),
        ((6, 2), 240),
    ];

    #[test]
    fn a_short_tcp_info_of_an_old_kernel_is_judged_alike_or_the_detector_says_so() {
        for detector in ALL {
            let example = detector.example;
            let now = worst((example.build)(example.limit), detector.id);
            for (kernel, length) in LENGTHS {
                let old = |n| {
                    let mut scenario = (example.build)(n);
                    for info in &mut scenario.snapshot.infos {
                        *info = info.clipped(length);
                    }
                    scenario
                };
                let then = worst(old(example.limit), detector.id);
                let declared = detector.blind.iter().any(|blind| blind.since > kernel);
                assert!(
                    then == now || declared,
                    "{} on {kernel:?}: {then:?} instead of {now:?}",
                    detector.id
                );
                let analysis = old(example.limit).analyze(&Settings::default());
                assert!(
                    !analysis.quiet.contains(&detector.id),
                    "{} on {kernel:?} takes what it cannot see for quiet",
                    detector.id
                );
                let below = worst(old(example.limit - 1), detector.id);
                assert!(
                    below.map(|(severity, _)| severity) <= Some(Severity::Info),
                    "{} below on {kernel:?}",
                    detector.id
                );
            }
        }
    }

    #[test]
    fn without_tcp_info_each_judges_or_says_why_not() {
        for detector in ALL {
            let mut scenario = (detector.example.build)(detector.example.limit);
            scenario.snapshot.infos.clear();
            for socket in &mut scenario.snapshot.sockets {
                socket.info = None;
            }
            let analysis = scenario.analyze(&Settings::default());
            assert!(!analysis.quiet.contains(&detector.id), "{}", detector.id);
        }
    }

    #[test]
    fn missing_counters_and_settings_are_survived_and_not_taken_for_quiet() {
        for detector in ALL {
            let mut scenario = (detector.example.build)(detector.example.limit);
            scenario.snapshot.facts = crate::model::Facts::default();
            let analysis = scenario.analyze(&Settings::default());
            assert!(!analysis.quiet.contains(&detector.id), "{}", detector.id);
        }
    }

    #[test]
    fn long_names_and_addresses_keep_the_budget_of_words() {
        let long = |socket: &mut Endpoint| {
            let [.., a, b] = socket.address;
            socket.address = [
                0x20, 1, 0xd, 0xb8, 0xaa, 0xaa, 0xbb, 0xbb, 0xcc, 0xcc, 0xdd, 0xdd, 0xee, 0xee, a,
                b,
            ];
        };
        for detector in ALL {
            let example = detector.example;
            let mut scenario = (example.build)(example.limit);
            scenario.rename("abcdefghijklmno", 4_194_303);
            for socket in &mut scenario.snapshot.sockets {
                long(&mut socket.local);
                // One address for the listeners and what they have accepted.
                (socket.local.address[14], socket.local.address[15]) = (0xff, 0xff);
                if socket.state != TcpState::Listen {
                    long(&mut socket.remote);
                }
            }
            let (severity, title) = worst(scenario, detector.id).unwrap();
            let plain = worst((example.build)(example.limit), detector.id);
            assert_eq!(
                plain.map(|(severity, _)| severity),
                Some(severity),
                "{title}"
            );
            assert!(
                title.chars().count() <= 100 && !title.ends_with('…'),
                "{title}"
            );
        }
    }

    #[test]
    fn a_refused_queue_on_this_host_explains_the_attempts_on_it() {
        let cause = |to: [u8; 4]| {
            let mut scenario = Scenario::default();
            let process = scenario.process(9, "db", 20, 1024);
            scenario.listen(process, 5432, 17, 16, 0);
            for i in 0..3 {
                let mut socket = scenario.socket(
                    TcpState::SynSent,
                    Endpoint::v4([127, 0, 0, 1], 40_000 + i),
                    Endpoint::v4(to, 5432),
                );
                socket.retransmits = 4;
                scenario.push(socket, &[]);
            }
            let findings = scenario.analyze(&Settings::default()).findings;
            let finding = findings.iter().find(|f| f.id == "syn-sent-blackhole");
            finding.unwrap().caused_by
        };
        assert_eq!(cause([127, 0, 0, 1]), Some("listen-overflow"));
        assert_eq!(cause(THERE), None);
    }

    #[test]
    fn a_dead_peer_explains_that_nobody_answers() {
        let mut scenario = Scenario::default();
        let process = scenario.process(9, "api", 20, 1024);
        for i in 0..12 {
            let mut socket = scenario.socket(
                TcpState::Established,
                Endpoint::v4(HERE, 40_000 + i),
                Endpoint::v4(THERE, 5432),
            );
            if i < 6 {
                (socket.timer, socket.retransmits) = (Timer::Keepalive, 2);
            }
            let socket = scenario.held_by(process, socket);
            let stamps = [("last_data_sent_ms", 40_000), ("last_data_recv_ms", 42_000)];
            scenario.push(socket, &[stamps[0], stamps[1], ("bytes_received", 9)]);
        }
        let findings = scenario.analyze(&Settings::default()).findings;
        let seen: Vec<_> = findings.iter().map(|f| (f.id, f.caused_by)).collect();
        let wanted = [
            ("keepalive-failing", None),
            ("awaiting-reply", Some("keepalive-failing")),
        ];
        assert_eq!(seen, wanted);
    }

    #[test]
    fn of_a_pair_on_this_host_the_end_that_does_not_read_is_the_cause() {
        let cause = |elsewhere: bool| {
            let mut scenario = Scenario::default();
            let server = scenario.process(9, "server", 20, 1024);
            let client = scenario.process(10, "client", 20, 1024);
            scenario.listen(server, 8080, 0, 16, 0);
            for i in 0..5 {
                let here = Endpoint::v4([127, 0, 0, 1], 8080);
                let there = Endpoint::v4([127, 0, 0, 1], 40_000 + i);
                let mut reader = scenario.socket(TcpState::Established, here, there);
                reader.recv_q = 100_000;
                let reader = scenario.held_by(server, reader);
                scenario.push(reader, &[("last_data_recv_ms", 20_000)]);
                let to = if elsewhere {
                    Endpoint::v4(THERE, 8080)
                } else {
                    here
                };
                let mut sender = scenario.socket(TcpState::Established, there, to);
                (sender.timer, sender.send_q) = (Timer::Persist, 100_000);
                let sender = scenario.held_by(client, sender);
                scenario.push(sender, &[("last_data_sent_ms", 20_000)]);
            }
            let findings = scenario.analyze(&Settings::default()).findings;
            let found: Vec<_> = findings.iter().map(|f| (f.id, f.caused_by)).collect();
            found
        };
        let (reader, sender) = ("recv-q-stuck", "zero-window-peer");
        assert_eq!(cause(false), [(reader, None), (sender, Some(reader))]);
        assert!(cause(true).contains(&(sender, None)));
    }

    #[test]
    fn what_a_proxy_cannot_pass_on_begins_with_its_clients() {
        let mut scenario = Scenario::default();
        let proxy = scenario.process(9, "proxy", 20, 1024);
        let upstream = scenario.process(10, "upstream", 20, 1024);
        let lo = |port| Endpoint::v4([127, 0, 0, 1], port);
        scenario.listen(proxy, 443, 0, 16, 0);
        scenario.listen(upstream, 8080, 0, 16, 0);
        for i in 0..5 {
            let ends = [
                (
                    proxy,
                    Endpoint::v4(HERE, 443),
                    Endpoint::v4(THERE, 9_000 + i),
                ),
                (upstream, lo(8080), lo(40_000 + i)),
            ];
            for (process, local, remote) in ends {
                let mut sender = scenario.socket(TcpState::Established, local, remote);
                (sender.timer, sender.send_q) = (Timer::Persist, 100_000);
                let sender = scenario.held_by(process, sender);
                scenario.push(sender, &[("last_data_sent_ms", 20_000)]);
            }
            let mut reader = scenario.socket(TcpState::Established, lo(40_000 + i), lo(8080));
            reader.recv_q = 100_000;
            let reader = scenario.held_by(proxy, reader);
            scenario.push(reader, &[("last_data_recv_ms", 20_000)]);
        }
        let findings = scenario.analyze(&Settings::default()).findings;
        let story: Vec<_> = findings
            .iter()
            .map(|finding| {
                let port = match &finding.subject {
                    Subject::Listener { port, .. } => Some(*port),
                    _ => None,
                };
                (finding.id, port, finding.caused_by)
            })
            .collect();
        let (reader, sender) = ("recv-q-stuck", "zero-window-peer");
        let expected = [
            (sender, Some(443), None),
            (reader, None, Some(sender)),
            (sender, Some(8080), Some(reader)),
        ];
        assert_eq!(story, expected);
    }

    /// A busy proxy: keep-alive connections on both sides, pooled ones, a Go-like listener, health checks, and
    /// descriptors without end.
    #[test]
    fn a_healthy_busy_proxy_has_nothing_above_info() {
        let mut scenario = Scenario::default();
        let process = scenario.process(901, "envoy", 30_000, 1_073_741_816);
        for _ in 0..4 {
            scenario.listen(process, 443, 1, 4096, 7);
        }
        let idle = |ms| {
            [
                ("last_ack_recv_ms", ms),
                ("last_data_recv_ms", ms),
                ("last_data_sent_ms", ms),
            ]
        };
        for i in 0..6_000u16 {
            let peer = [198, 51, (i >> 8) as u8, i as u8];
            let (state, local, remote) = match i % 3 {
                0 | 1 => (
                    TcpState::Established,
                    Endpoint::v4(HERE, 443),
                    Endpoint::v4(peer, 5_000 + i),
                ),
                _ => (
                    TcpState::Established,
                    Endpoint::v4(HERE, 33_000 + i),
                    Endpoint::v4([10, 0, 0, (i % 9) as u8], 80),
                ),
            };
            let socket = scenario.socket(state, local, remote);
            let socket = scenario.held_by(process, socket);
            scenario.push(socket, &idle(u64::from(i) * 10));
        }
        for i in 0..8 {
            let peer = Endpoint::v4(THERE, 7_000 + i);
            let mut socket = scenario.socket(TcpState::CloseWait, Endpoint::v4(HERE, 443), peer);
            socket.recv_q = 1;
            let socket = scenario.held_by(process, socket);
            scenario.push(socket, &idle(u64::from(i) * 50));
        }
        for i in 0..20 {
            let pool = Endpoint::v4([10, 0, 0, 99], 5432);
            let socket = scenario.socket(TcpState::CloseWait, Endpoint::v4(HERE, 60_000 + i), pool);
            let socket = scenario.held_by(process, socket);
            scenario.push(socket, &idle(3_600_000));
        }
        for i in 0..2 {
            let local = Endpoint::v4(HERE, 59_000 + i);
            let socket = scenario.socket(TcpState::SynSent, local, Endpoint::v4(THERE, 9100));
            let socket = scenario.held_by(process, socket);
            scenario.push(socket, &[("retransmits", 2), ("total_rto_time_ms", 5_000)]);
        }
        // Health checks that reset, a scan, clients behind NAT, a stray SYN without its key.
        let noise = [
            ("Tcp.ActiveOpens", 300),
            ("Tcp.AttemptFails", 9),
            ("Tcp.EstabResets", 60),
            ("Tcp.InSegs", 40_000),
            ("Tcp.OutRsts", 200),
            ("Tcp.PassiveOpens", 500),
            ("TcpExt.IPReversePathFilter", 20),
            ("TcpExt.PAWSEstab", 30),
            ("TcpExt.SyncookiesSent", 9),
            ("TcpExt.TCPAbortOnClose", 9),
            ("TcpExt.TCPMD5Unexpected", 2),
            ("Conntrack.insert_failed", 3),
            ("Conntrack.invalid", 50),
            ("Softnet.time_squeeze", 500),
        ];
        scenario.pulse(&noise, |_| {});
        let analysis = scenario.analyze(&Settings::default());
        let worst = analysis
            .findings
            .iter()
            .map(|finding| finding.severity)
            .max();
        assert_eq!(worst, Some(Severity::Info), "{:?}", analysis.findings);
        assert!(analysis.unknown.is_empty(), "{:?}", analysis.unknown);
    }
}
