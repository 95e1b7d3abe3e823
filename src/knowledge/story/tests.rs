//! What every state's story must say, and what it must not.

use super::*;
use crate::model::tcp_info::example;
use crate::model::{Endpoint, Family, Protocol};

const SYSCTLS: [(&str, &str); 10] = [
    ("tcp_syn_retries", "6"),
    ("tcp_syn_linear_timeouts", "4"),
    ("tcp_synack_retries", "5"),
    ("tcp_orphan_retries", "0"),
    ("tcp_retries2", "15"),
    ("tcp_fin_timeout", "60"),
    ("tcp_keepalive_time", "7200"),
    ("tcp_keepalive_intvl", "75"),
    ("tcp_keepalive_probes", "9"),
    ("tcp_rto_max_ms", "120000"),
];

fn facts() -> Facts {
    let mut facts = Facts::default();
    for (name, value) in SYSCTLS {
        facts
            .sysctls
            .insert(format!("net/ipv4/{name}"), value.into());
    }
    facts
}

/// A socket that a program holds, without a timer, with empty queues.
fn socket(state: TcpState) -> Socket {
    Socket {
        cookie: std::num::NonZeroU64::new(1),
        local: Endpoint::v4([10, 0, 0, 1], 8080),
        remote: Endpoint::v4([10, 0, 0, 2], 40_000),
        inode: 9,
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

fn story(socket: &Socket, members: &[(&str, u64)], listened: Option<bool>) -> Story {
    let raw = example(members);
    let info = TcpInfo::parse(&raw);
    let facts = facts();
    let scene = Scene {
        info: info.as_ref().filter(|_| !members.is_empty()),
        facts: &facts,
        listened,
    };
    tell(socket, scene).unwrap()
}

fn says(text: &str, all: &[&str]) {
    for part in all {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}

fn path(story: &Story) -> Vec<(TcpState, TcpState)> {
    story
        .path
        .iter()
        .map(|arrow| (arrow.from, arrow.to))
        .collect()
}

#[test]
fn listen_is_the_kernels_handshakes_and_the_programs_accept() {
    let mut listener = socket(Listen);
    (listener.recv_q, listener.send_q) = (0, 16);
    let quiet = story(&listener, &[], None);
    says(
        &quiet.awaits,
        &["The kernel, not the program,", "0 of 16 wait", "accept()"],
    );
    says(&quiet.ends, &["Nothing but the program"]);
    assert_eq!(
        (quiet.actor, quiet.left, quiet.age),
        (Actor::Nobody, None, None)
    );
    listener.recv_q = 16;
    let waiting = story(&listener, &[], None);
    assert_eq!(waiting.actor, Actor::ThisProgram);
    assert!(!waiting.awaits.contains("full"), "16 of 16 still fit");
    listener.recv_q = 17;
    says(
        &story(&listener, &[], None).awaits,
        &["full", "turned away"],
    );
    listener.cookie = None;
    says(&story(&listener, &[], None).awaits, &["; 17 wait"]);
}

#[test]
fn syn_sent_is_silence_and_no_refusal() {
    let mut dialling = socket(SynSent);
    (dialling.timer, dialling.timer_ms) = (Timer::Retransmit, 600);
    let first = story(&dialling, &[], None);
    says(&first.came, &["connect()", "active opener"]);
    assert_eq!(
        (first.actor, path(&first)),
        (Actor::Peer, vec![(Closed, SynSent)])
    );
    dialling.retransmits = 4;
    let later = story(&dialling, &[], None);
    says(
        &later.awaits,
        &["5 SYNs met silence", "refusal", "due in 0.6 s"],
    );
    says(&later.ends, &["131 s", "tcp_syn_retries 6", "ETIMEDOUT"]);
    assert_eq!(later.actor, Actor::Network);
    // Four waits of a second and 0.4 s of the fifth.
    assert_eq!(later.age, Some(Age::exactly(4_400)));
    assert_eq!(later.left, Some(Age::exactly(126_600)));
}

#[test]
fn syn_received_belongs_to_no_program_unless_both_called() {
    let mut request = socket(SynReceived);
    (request.inode, request.timer, request.timer_ms) = (0, Timer::Retransmit, 500);
    let told = story(&request, &[], None);
    says(&told.came, &["answered SYN+ACK", "No program"]);
    says(&told.ends, &["63 s", "crowded"]);
    assert_eq!(
        (told.actor, path(&told)),
        (Actor::Peer, vec![(Listen, SynReceived)])
    );
    assert_eq!(told.left, Some(Age::exactly(62_500)));
    request.inode = 9;
    let both = story(&request, &[], None);
    says(&both.came, &["Both sides called connect()"]);
    assert_eq!(path(&both), [(Closed, SynSent), (SynSent, SynReceived)]);
    request.state = NewSynReceived;
    assert_eq!(
        story(&request, &[], None).state,
        SynReceived,
        "as it is shown"
    );
}

#[test]
fn established_may_wait_for_either_side_for_the_network_or_for_nobody() {
    let open = socket(Established);
    let idle = story(
        &open,
        &[("last_data_sent_ms", 5_000), ("last_data_recv_ms", 9_000)],
        Some(true),
    );
    says(
        &idle.came,
        &[
            "nobody has said goodbye",
            "The peer called: port 8080 listens",
        ],
    );
    says(
        &idle.awaits,
        &[
            "The peer, if it owes an answer",
            "this side sent last, 5.0 s ago",
        ],
    );
    says(&idle.ends, &["Without keepalive", "nobody would notice"]);
    assert_eq!(
        (idle.actor, idle.age),
        (Actor::Peer, Some(Age::at_least(9_000)))
    );
    assert_eq!(idle.left, None);
    let asked = [("last_data_sent_ms", 9_000), ("last_data_recv_ms", 5_000)];
    let server = story(&open, &asked, Some(true));
    says(
        &server.awaits,
        &["This program, if it owes", "the peer sent last, 5.0 s ago"],
    );
    let client = story(&open, &asked, Some(false));
    says(&client.awaits, &["Nothing, if that was the answer"]);
    let both = story(&open, &[], Some(true));
    says(&both.awaits, &["idle"]);
    let actors = (server.actor, client.actor, both.actor);
    assert_eq!(actors, (Actor::ThisProgram, Actor::Nobody, Actor::Nobody));
    let dialled = story(&open, &[], Some(false));
    says(&dialled.came, &["Probably this side called"]);
    assert!(dialled.path.is_empty(), "how it began is not certain");

    let with = |change: fn(&mut Socket)| {
        let mut socket = open;
        change(&mut socket);
        story(&socket, &[], None)
    };
    let waiting = with(|s| s.inode = 0);
    says(&waiting.awaits, &["accept()", "no program has it"]);
    assert_eq!(waiting.actor, Actor::ThisProgram);
    let unread = with(|s| s.recv_q = 7);
    says(&unread.awaits, &["7 bytes to read"]);
    assert_eq!(unread.actor, Actor::ThisProgram);
    let closed_window = with(|s| (s.send_q, s.timer) = (1_000, Timer::Persist));
    says(
        &closed_window.awaits,
        &["window is closed", "1,000 bytes wait"],
    );
    assert_eq!(
        (closed_window.actor, closed_window.lifetime),
        (Actor::Peer, None)
    );
    let lost = with(|s| (s.send_q, s.timer, s.retransmits) = (1_000, Timer::Retransmit, 3));
    says(&lost.awaits, &["sent again 3 times in vain"]);
    says(&lost.ends, &["924 s"]);
    assert_eq!(lost.actor, Actor::Network);
    let under_way = with(|s| (s.send_q, s.timer) = (1_000, Timer::Retransmit));
    assert_eq!(under_way.actor, Actor::Peer);
    let kept = with(|s| (s.timer, s.timer_ms) = (Timer::Keepalive, 7_140_000));
    says(
        &kept.ends,
        &["due in 119 min", "2 h 11 min", "unless the program"],
    );
}

#[test]
fn fin_wait_1_waits_for_the_ack_of_a_fin_that_may_not_be_sent() {
    let mut closing = socket(FinWait1);
    (
        closing.inode,
        closing.send_q,
        closing.timer,
        closing.timer_ms,
    ) = (0, 1, Timer::Retransmit, 100);
    let told = story(&closing, &[("rto_us", 204_000)], None);
    says(&told.came, &["This side closes first", "close()"]);
    assert_eq!(told.awaits, "The ACK of our FIN.");
    says(&told.ends, &["107 s", "tcp_orphan_retries 0"]);
    assert_eq!(
        (told.actor, told.lifetime),
        (Actor::Peer, Some(Lifetime::Orphan))
    );
    assert!(told.left.unwrap().high_ms.unwrap() > 100_000);
    closing.send_q = 1_001;
    says(
        &story(&closing, &[("notsent_bytes", 1_000)], None).awaits,
        &["1,000 bytes", "not sent yet"],
    );
    says(
        &story(&closing, &[], None).awaits,
        &["1,000 bytes", "may not be sent"],
    );
    closing.retransmits = 5;
    let lost = story(&closing, &[], None);
    says(&lost.awaits, &["sent again 5 times in vain"]);
    assert_eq!(lost.actor, Actor::Network);
    closing.inode = 9;
    let held = story(&closing, &[], None);
    says(&held.came, &["shutdown(SHUT_WR)", "still holds it"]);
    says(&held.ends, &["not before 924 s"]);
    assert_eq!(held.left, None, "without an age no time is left to tell");
    closing.timer = Timer::Persist;
    let unread = story(&closing, &[], None);
    says(&unread.awaits, &["does not read"]);
    assert_eq!((unread.actor, unread.lifetime), (Actor::Peer, None));
}

#[test]
fn fin_wait_2_is_half_closed_and_ends_by_itself_only_without_a_holder() {
    let mut half = socket(FinWait2);
    let held = story(
        &half,
        &[
            ("last_ack_recv_ms", 300_000),
            ("last_data_recv_ms", 400_000),
            ("last_data_sent_ms", 300_001),
        ],
        None,
    );
    says(
        &held.awaits,
        &[
            "We are done and the peer may still send",
            "half-closed, not half-open",
            "probably in CLOSE-WAIT",
        ],
    );
    says(&held.ends, &["Nothing on this side", "only after close()"]);
    assert_eq!((held.actor, held.left), (Actor::Peer, None));
    assert_eq!(held.lasts(), "5 min");
    assert_eq!(path(&held), [(Established, FinWait1), (FinWait1, FinWait2)]);
    (half.inode, half.timer, half.timer_ms) = (0, Timer::TimeWait, 20_000);
    let orphan = story(&half, &[], None);
    says(&orphan.ends, &["60 s (tcp_fin_timeout 60)"]);
    assert_eq!(orphan.left, Some(Age::exactly(20_000)));
}

#[test]
fn close_wait_ends_by_the_program_alone() {
    let mut left = socket(CloseWait);
    let told = story(
        &left,
        &[
            ("last_ack_recv_ms", 3_060_000),
            ("last_data_recv_ms", 3_060_000),
        ],
        None,
    );
    says(&told.came, &["The peer closed first", "by itself"]);
    says(&told.awaits, &["it has read the end, and not closed"]);
    says(
        &told.ends,
        &[
            "last descriptor",
            "shutdown(SHUT_WR)",
            "No timer and no sysctl",
        ],
    );
    assert!(!told.ends.contains("RST"));
    assert_eq!((told.actor, told.left), (Actor::ThisProgram, None));
    assert_eq!(told.lasts(), "51 min");
    left.recv_q = 1;
    let fin = story(&left, &[], None);
    says(&fin.awaits, &["not read the end yet"]);
    assert!(!fin.ends.contains("RST"), "an unread FIN alone is no reset");
    left.recv_q = 6;
    let unread = story(&left, &[], None);
    says(&unread.awaits, &["5 bytes and the end"]);
    says(&unread.ends, &["5 bytes unread, close() sends RST"]);
    left.timer = Timer::Keepalive;
    let kept = story(
        &left,
        &[("last_ack_recv_ms", 6_900), ("last_data_recv_ms", 63_100)],
        None,
    );
    assert_eq!(
        kept.lasts(),
        "6.9 s to 63 s",
        "keepalive leaves only bounds"
    );
    says(&kept.ends, &["the descriptor stays"]);
    let mut stalled = socket(CloseWait);
    (stalled.send_q, stalled.timer) = (42_920, Timer::Persist);
    let told = story(&stalled, &[], None);
    says(&told.awaits, &["does not read", "42,920 bytes"]);
    assert_eq!(told.actor, Actor::Peer, "not this program's leak");
    let mut queued = socket(CloseWait);
    queued.inode = 0;
    says(
        &story(&queued, &[], None).awaits,
        &["accept()", "no program"],
    );
}

#[test]
fn closing_that_lasts_means_lost_acks() {
    let mut both = socket(Closing);
    (both.send_q, both.timer, both.timer_ms, both.retransmits) = (1, Timer::Retransmit, 100, 3);
    let told = story(
        &both,
        &[("rto_us", 1_632_000), ("backoff", 3), ("retransmits", 3)],
        None,
    );
    says(
        &told.came,
        &["Both sides closed", "did not acknowledge ours"],
    );
    says(&told.awaits, &["our FIN or its ACK gets lost"]);
    assert_eq!(told.actor, Actor::Network);
    assert_eq!(path(&told), [(Established, FinWait1), (FinWait1, Closing)]);
    let left = told.left.unwrap();
    assert!(left.high_ms.is_none() && left.low_ms > 900_000, "{left:?}");
}

#[test]
fn last_ack_lives_107_s_without_a_holder() {
    let mut last = socket(LastAck);
    (last.inode, last.send_q, last.timer, last.timer_ms) = (0, 1, Timer::Retransmit, 1_000);
    let info = [("rto_us", 1_632_000), ("backoff", 3), ("retransmits", 3)];
    let told = story(&last, &info, None);
    says(
        &told.came,
        &["The peer closed first, then this side", "close()"],
    );
    says(&told.ends, &["about 107 s"]);
    // 0.2 + 0.4 + 0.8 s, and 0.6 s of the fourth wait.
    let age = told.age.unwrap();
    assert_eq!(age, Age::exactly(204 * 7 + 632));
    let left = told.left.unwrap();
    assert!(
        (100_000..107_000).contains(&left.low_ms) && left.is_exact(),
        "{left:?}"
    );
    assert_eq!(
        path(&told),
        [(Established, CloseWait), (CloseWait, LastAck)]
    );
    last.send_q = 501;
    says(
        &story(&last, &info, None).awaits,
        &["500 bytes ahead of our FIN"],
    );
}

#[test]
fn time_wait_is_nobodys_and_counts_down() {
    let mut over = socket(TimeWait);
    (over.inode, over.timer, over.timer_ms) = (0, Timer::TimeWait, 39_736);
    let told = story(&over, &[], None);
    says(
        &told.came,
        &["This side closed first, or both at once", "no descriptor"],
    );
    says(
        &told.awaits,
        &["two reasons", "if it is repeated", "late segments"],
    );
    says(&told.ends, &["60 s on Linux", "4 min", "No sysctl"]);
    assert_eq!(told.actor, Actor::Nobody);
    assert_eq!(
        (told.age, told.left),
        (Some(Age::exactly(20_264)), Some(Age::exactly(39_736)))
    );
}

#[test]
fn what_is_only_bound_waits_for_the_program() {
    for state in [BoundInactive, Closed] {
        let told = story(&socket(state), &[], None);
        says(
            &told.came,
            &["no connection", "reset", "descriptor is still open"],
        );
        assert_eq!((told.actor, told.left), (Actor::ThisProgram, None));
    }
    let scene = Scene {
        info: None,
        facts: &Facts::default(),
        listened: None,
    };
    assert_eq!(tell(&socket(TcpState::Unknown(14)), scene), None);
}

#[test]
fn the_path_is_made_of_documented_arrows_one_behind_the_other_to_the_state() {
    for state in TcpState::SHOWN {
        for inode in [0, 9] {
            let mut socket = socket(state);
            socket.inode = inode;
            let told = story(&socket, &[], Some(true));
            let steps = path(&told);
            assert!(
                steps.windows(2).all(|pair| pair[0].1 == pair[1].0),
                "{state}"
            );
            // Which way TIME-WAIT was reached is not known.
            if let (Some(last), true) = (steps.last(), state != TimeWait) {
                assert_eq!(last.1, state, "{state}");
            }
        }
    }
}

#[test]
fn without_settings_and_tcp_info_every_story_still_holds_its_tongue_about_time() {
    for state in TcpState::SHOWN {
        for timer in (0..=5).map(Timer::from_kernel) {
            for queue in [0, 1, u32::MAX] {
                let mut socket = socket(state);
                (socket.timer, socket.timer_ms, socket.retransmits) = (timer, u32::MAX, 255);
                (socket.recv_q, socket.send_q) = (queue, queue);
                let scene = Scene {
                    info: None,
                    facts: &Facts::default(),
                    listened: None,
                };
                let told = tell(&socket, scene).unwrap();
                for text in [&told.came, &told.awaits, &told.ends] {
                    assert!(text.ends_with('.') && text.is_ascii(), "{state}: {text}");
                    assert!(!text.contains("  ") && !text.contains('{'), "{text}");
                }
                assert!(
                    told.left.is_none() || state == TimeWait,
                    "{state}: {told:?}"
                );
            }
        }
    }
}

#[test]
fn times_left_are_said_with_their_bounds() {
    let table = [
        (Age::exactly(39_736), "in 39 s"),
        (Age::between(10_000, 107_000), "in 10 s to 107 s"),
        (Age::at_least(900_000), "not within 900 s"),
        (Age::exactly(0), "any moment now"),
    ];
    for (left, words) in table {
        assert_eq!(left_in_words(left), words);
    }
    assert_eq!(bounds(Age::at_least(5_000)), "5.0 s at least");
    assert_eq!(
        (times(1), times(3)),
        ("once".to_owned(), "3 times".to_owned())
    );
}
