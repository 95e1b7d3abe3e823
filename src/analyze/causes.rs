//! Which findings follow from which: one cause, one story.

use super::{Context, words};
use crate::model::finding::Value;
use crate::model::{Actor, Finding, Severity, Socket, Subject, TcpState};

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
    let to_the_same = |other: &Finding| {
        matches!((&finding.subject, &other.subject), (
            Subject::Destination { address: a, port: p, .. },
            Subject::Destination { address: b, port: q, .. },
        ) if a == b && p == q)
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
        // What a forgotten CLOSE-WAIT becomes when its peer is found gone.
        ("closed-fd-leak", subject) => with("close-wait-leak", &|other| {
            warns(other) && other.subject == *subject
        }),
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
        // Who never closes has young CLOSE-WAIT sockets too.
        ("keepalive-slower-than-middlebox", Subject::Destination { address, port, .. })
            if finding.variant == Some("upstream-closes-first") =>
        {
            with("close-wait-leak", &|other| {
                let mut rows = other.rows.iter();
                warns(other)
                    && rows.any(|row| {
                        let socket = context.snapshot.socket(*row);
                        socket.is_some_and(|socket| {
                            socket.remote.ip() == *address && socket.remote.port == *port
                        })
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
            with("fin-wait-2-orphan-flood", &warns).or_else(|| closes_fill_the_table(all))
        }
        ("time-wait-flood", _) => closes_fill_the_table(all),
        ("time-wait-server-side", _) if warns(finding) => {
            with("connection-churn", &|other| other.variant == Some("table"))
        }
        // Sockets pile up because their peers do not answer, or do not read.
        ("orphan-pile-up", _) if warns(finding) => {
            ["fin-wait-1-stuck", "last-ack-stuck", "zero-window-peer"]
                .into_iter()
                .find_map(|id| with(id, &warns))
        }
        // Nobody is there who could answer.
        ("fin-wait-1-stuck" | "last-ack-stuck" | "closing-stuck", _) => {
            with("syn-sent-blackhole", &to_the_same)
        }
        // Ports taken by attempts that nobody answers, kept by what was closed, or bound away.
        ("ephemeral-port-exhaustion", _) => {
            let by = |id, applies: bool| applies.then(|| with(id, &to_the_same)).flatten();
            by("syn-sent-blackhole", finding.variant == Some("syn-sent"))
                .or_else(|| by("connection-churn", finding.variant.is_none()))
                .or_else(|| {
                    let bound = bound_away(context);
                    bound.then(|| with("bound-inactive-leak", &warns)).flatten()
                })
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
    use super::*;
    use crate::analyze::Settings;
    use crate::analyze::scenario::{HERE, Scenario, THERE};
    use crate::model::{Endpoint, Timer};

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

    #[test]
    fn a_leak_that_ends_in_a_full_queue_is_one_story() {
        let told = |fds| {
            let mut scenario = Scenario::default();
            let process = scenario.process(9, "api", fds, 200);
            scenario.listen(process, 8443, 17, 16, 0);
            let here = Endpoint::v4(HERE, 8443);
            for i in 0..190u16 {
                let peer = Endpoint::v4([198, 51, 100, i as u8], 9_000 + i);
                let socket = scenario.socket(TcpState::CloseWait, here, peer);
                let socket = scenario.held_by(process, socket);
                scenario.push(
                    socket,
                    &[
                        ("last_ack_recv_ms", 60_000 + 2_000 * u64::from(i)),
                        ("last_data_sent_ms", 900_000),
                    ],
                );
            }
            for i in 0..17u16 {
                let peer = Endpoint::v4([198, 51, 101, i as u8], 9_000 + i);
                let socket = scenario.socket(TcpState::Established, here, peer);
                scenario.push(socket, &[("last_data_sent_ms", 12_000)]);
            }
            scenario.pulse(
                &[("TcpExt.ListenOverflows", 3), ("TcpExt.ListenDrops", 3)],
                |one| {
                    one.drops = Some(3);
                },
            );
            let analysis = scenario.analyze(&Settings::default());
            let stories = crate::model::stories(&analysis.findings).len();
            let mut found: Vec<_> = analysis
                .findings
                .iter()
                .map(|f| (f.id, f.caused_by))
                .collect();
            found.sort_unstable();
            (stories, found)
        };
        let (leak, queue) = ("close-wait-leak", "listen-overflow");
        let (stories, found) = told(200);
        let wanted = [
            ("accept-queue-stuck", Some(queue)),
            (leak, None),
            ("fd-limit-near", Some(leak)),
            (queue, Some(leak)),
        ];
        assert_eq!((stories, &found[..]), (1, &wanted[..]));
        let (stories, found) = told(195);
        assert!(
            stories > 1 && found.contains(&(queue, None)),
            "accept() still has descriptors: {found:?}"
        );
    }

    #[test]
    fn young_sockets_of_a_leak_are_part_of_it() {
        let told = |leaks: u16| {
            let mut scenario = Scenario::default();
            let process = scenario.process(9, "checkout", 300, 100_000);
            for i in 0..leaks + 20 {
                let local = Endpoint::v4(HERE, 40_000 + i);
                let mut socket =
                    scenario.socket(TcpState::CloseWait, local, Endpoint::v4(THERE, 5432));
                socket.recv_q = 1;
                let socket = scenario.held_by(process, socket);
                let age = if i < 20 { 1_000 } else { 60_000 * u64::from(i) };
                let data = age + 90_000;
                scenario.push(
                    socket,
                    &[
                        ("last_ack_recv_ms", age),
                        ("last_data_recv_ms", data),
                        ("last_data_sent_ms", data),
                    ],
                );
            }
            let findings = scenario.analyze(&Settings::default()).findings;
            let young = findings
                .iter()
                .find(|f| f.variant == Some("upstream-closes-first"));
            young.map(|finding| finding.caused_by)
        };
        assert_eq!(told(30), Some(Some("close-wait-leak")));
        assert_eq!(told(0), Some(None));
    }
}
