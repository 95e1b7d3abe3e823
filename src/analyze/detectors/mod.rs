//! The registry. A new detector is its file and its line in the list below.

use super::Detector;

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
    closed_fd_leak,
    udp_rcvbuf_drops,
    unix_backlog_full,
}

// What measures share with the detectors that judge it.
pub(super) use conntrack_near_full::conntrack_table;
pub(super) use ephemeral_port_exhaustion::ports_taken;
pub(super) use fd_limit_near::descriptors_of;
pub(super) use orphan_pile_up::Orphans;

/// The detector with this id, or with an alias of this name.
pub fn find(name: &str) -> Option<&'static Detector> {
    let folded = name.to_ascii_lowercase().replace('_', "-");
    ALL.iter()
        .find(|detector| detector.id == folded || detector.aliases.contains(&folded.as_str()))
        .copied()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::analyze::Settings;
    use crate::analyze::scenario::{HERE, Scenario, THERE};
    use crate::model::{Endpoint, Severity, TcpState};

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
    fn grounds_are_cited_in_one_form() {
        for ground in ALL.iter().flat_map(|detector| detector.grounds) {
            let good = match ground.split_once(", ").or(ground.split_once(' ')) {
                Some(("TCP state in OS", heading)) => !heading.is_empty(),
                Some(("Linux kernel", place)) => {
                    let (file, what) = place.split_once(": ").unwrap_or((place, ""));
                    let is_doc = file.starts_with("Documentation/");
                    file.contains('/') && (is_doc || what.ends_with("()") || file.ends_with(".h"))
                }
                Some(("RFC", number)) => number
                    .split_once(" section ")
                    .map_or(number, |(number, _)| number)
                    .chars()
                    .all(|c| c.is_ascii_digit()),
                _ => false,
            };
            assert!(good, "{ground}");
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
                // What not to do stands last and is written in one form.
                for (at, advice) in finding.advice.iter().enumerate() {
                    assert!(
                        !advice.starts_with("do not ") && !advice.is_empty(),
                        "{advice}"
                    );
                    assert!(
                        !advice.starts_with("do not: ") || at + 1 == finding.advice.len(),
                        "{}: {:?}",
                        finding.id,
                        finding.advice
                    );
                }
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

    /// Kernels with the length of their `tcp_info`.
    const KERNELS: [((u16, u16), u16); 7] = [
        ((3, 10), 104),
        ((4, 18), 224),
        ((5, 4), 232),
        ((5, 15), 232),
        ((6, 1), 232),
        ((6, 2), 240),
        ((6, 7), 248),
    ];

    /// Counters and settings with the kernel that brought them.
    const NEWER: [(&str, (u16, u16)); 20] = [
        ("TcpExt.TCPSynRetrans", (3, 15)),
        ("TcpExt.TCPFromZeroWindowAdv", (3, 15)),
        ("TcpExt.TCPToZeroWindowAdv", (3, 15)),
        ("TcpExt.TCPKeepAlive", (4, 1)),
        ("TcpExt.TCPWinProbe", (4, 1)),
        ("TcpExt.TCPMemoryPressuresChrono", (4, 13)),
        ("TcpExt.TCPMD5Failure", (4, 14)),
        ("TcpExt.TCPZeroWindowDrop", (4, 19)),
        ("TcpExt.TCPRcvQDrop", (4, 19)),
        ("TcpExt.TCPWqueueTooBig", (5, 2)),
        ("TcpExt.TCPAOBad", (6, 7)),
        ("TcpExt.TCPAOKeyNotFound", (6, 7)),
        ("TcpExt.PAWSOldAck", (6, 14)),
        ("TcpExt.PAWSTimewait", (6, 14)),
        ("TcpExt.TSEcrRejected", (6, 14)),
        ("TcpExt.BeyondWindow", (6, 16)),
        ("net/ipv4/tcp_migrate_req", (5, 14)),
        ("net/ipv4/tcp_syn_linear_timeouts", (6, 5)),
        ("net/ipv4/tcp_tw_reuse_delay", (6, 14)),
        ("net/ipv4/tcp_rto_max_ms", (6, 15)),
    ];

    /// The machine as an older kernel would have shown it.
    fn aged(mut scenario: Scenario, kernel: (u16, u16), length: u16) -> Scenario {
        for info in &mut scenario.snapshot.infos {
            *info = info.clipped(length);
        }
        for (name, _) in NEWER.iter().filter(|(_, since)| *since > kernel) {
            scenario.snapshot.facts.counters.remove(*name);
            scenario.snapshot.facts.sysctls.remove(*name);
        }
        scenario
    }

    #[test]
    fn what_an_old_kernel_shows_is_judged_alike_or_the_detector_says_so() {
        for detector in ALL {
            let example = detector.example;
            let now = worst((example.build)(example.limit), detector.id);
            for (kernel, length) in KERNELS {
                let old = |n| aged((example.build)(n), kernel, length);
                let then = worst(old(example.limit), detector.id);
                // An age may be another: the same number of attempts takes longer without linear time-outs.
                let severity = |worst: &Option<(Severity, String)>| worst.as_ref().map(|w| w.0);
                let declared = detector.blind.iter().any(|blind| blind.since > kernel);
                assert!(
                    severity(&then) == severity(&now) || declared,
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
