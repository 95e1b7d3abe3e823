//! What each state means on a Linux host, in this program's own words.
//!
//! A text may hold placeholders `{name}` for what depends on the host's settings ([`Lifetime`]); [`StateText::ends_on`]
//! fills them in. How a state is entered and left is not written here a second time: it is read from the transitions.

use super::lifetimes::Lifetime;
use super::transitions::{self, Transition};
use crate::model::{Facts, TcpState};

/// What is to know about one state.
#[derive(Clone, Copy, Debug)]
pub struct StateText {
    /// the state
    pub state: TcpState,
    /// one line
    pub summary: &'static str,
    /// what has happened and what is awaited
    pub meaning: &'static str,
    /// which side is in it
    pub who: &'static str,
    /// what a healthy host shows
    pub normal: &'static str,
    /// what should worry, and what it tells
    pub abnormal: &'static str,
    /// which timer ends it, or that nothing does; may hold placeholders
    pub ends: &'static str,
    /// what Linux does that its name does not tell
    pub linux: &'static [&'static str],
    /// the command that shows more
    pub next: &'static str,
    /// what the text rests on; the later ones correct the earlier
    pub grounds: &'static [&'static str],
}

impl StateText {
    /// The documented name.
    pub fn name(&self) -> &'static str {
        self.state.name().unwrap_or_default()
    }

    /// The name in JSON and on the command line.
    pub fn slug(&self) -> &'static str {
        self.state.slug().unwrap_or_default()
    }

    /// The arrows that lead into the state.
    pub fn entered(&self) -> impl Iterator<Item = &'static Transition> {
        transitions::into(self.state)
    }

    /// The arrows that lead out of the state.
    pub fn left(&self) -> impl Iterator<Item = &'static Transition> {
        transitions::out_of(self.state)
    }

    /// The lifetimes that [`StateText::ends`] speaks of.
    pub fn lifetimes(&self) -> impl Iterator<Item = Lifetime> {
        let ends = self.ends;
        Lifetime::ALL
            .into_iter()
            .filter(move |lifetime| ends.contains(&format!("{{{}}}", lifetime.name())))
    }

    /// [`StateText::ends`] with the figures of a host.
    pub fn ends_on(&self, facts: &Facts) -> String {
        self.lifetimes()
            .fold(self.ends.to_owned(), |text, lifetime| {
                let placeholder = format!("{{{}}}", lifetime.name());
                text.replace(&placeholder, &lifetime.words(facts))
            })
    }
}

/// The text for `state`; `None` for a number that nobody knows.
pub fn state_text(state: TcpState) -> Option<&'static StateText> {
    STATES.iter().find(|text| text.state == state.shown())
}

/// Every state that is shown, in the order of [`TcpState::SHOWN`].
pub const STATES: &[StateText] = &[
    StateText {
        state: TcpState::Listen,
        summary: "A program waits here for others to connect.",
        meaning: "The socket has a port and no peer. The kernel, not the program, completes each handshake and puts the \
            new connection into the accept queue, where it waits for accept(). Recv-Q is the length of that queue, \
            Send-Q its limit.",
        who: "The passive opener: whoever called listen().",
        normal: "One for each address and port, as long as the program runs; several with SO_REUSEPORT. Recv-Q is 0, or \
            a few for milliseconds.",
        abnormal: "Recv-Q stays above 0: the program does not accept fast enough. Recv-Q above Send-Q: the queue is full \
            and clients are turned away. No row where one should be: the service is down.",
        ends: "Nothing but the program: close(), or its end. No timer.",
        linux: &[
            "The queue's limit is the smaller of listen()'s argument and somaxconn, fixed at listen(). Raising somaxconn \
                later changes nothing until the program listens again.",
        ],
        next: "linger list -l",
        grounds: &[
            "TCP state in OS, LISTEN",
            "RFC 9293 section 3.3.2",
            "Linux kernel, net/ipv4/tcp_diag.c",
        ],
    },
    StateText {
        state: TcpState::SynSent,
        summary: "connect() was called: the SYN is out, and no answer is in.",
        meaning: "This side asked for a connection and waits for SYN+ACK, the second segment of the handshake. A refused \
            port answers RST, an unreachable host is reported by ICMP, and either ends the state at once. A socket \
            that stays here has met silence.",
        who: "The active opener: whoever called connect().",
        normal: "One round trip, so rarely seen.",
        abnormal: "Several to one address and port for more than 3 s. A firewall drops the SYN, the host is down, the \
            route is wrong, or the listener over there has a full queue.",
        ends: "An answer, or the program's own time-out. Otherwise the kernel gives up after {syn-sent}, and connect() \
            fails with ETIMEDOUT.",
        linux: &["Each attempt occupies a local port as long as it lasts."],
        next: "linger list state syn-sent",
        grounds: &[
            "TCP state in OS, SYN_SENT",
            "RFC 9293 section 3.5",
            "Linux kernel, net/ipv4/tcp_timer.c",
        ],
    },
    StateText {
        state: TcpState::SynReceived,
        summary: "A SYN came and was answered; the last ACK of the handshake is missing.",
        meaning: "The kernel sent SYN+ACK and waits for the ACK. No program has the connection yet. Linux keeps only a \
            small record of the request (NEW_SYN_RECV): it has no process, no descriptor, and its uid 0 is not root's.",
        who: "The side that was connected to. Either side, if both called connect() at each other.",
        normal: "One round trip. A public or busy listener always has some: slow or vanished clients, port scans, and \
            clients that say nothing to a listener with TCP_DEFER_ACCEPT.",
        abnormal: "Many on one listener. A SYN flood; or answers lost on the way back, if the peers share a network; or \
            an accept queue so full that the last ACK is dropped.",
        ends: "The ACK or an RST. Otherwise the kernel forgets the request after {syn-received}, sooner if the queue is \
            crowded.",
        linux: &[
            "With SYN cookies in use there is no row at all: the table looks calmer than the traffic.",
        ],
        next: "linger list state syn-received",
        grounds: &[
            "TCP state in OS, SYN_RCVD",
            "RFC 9293 section 3.5",
            "RFC 4987",
            "Linux kernel, include/net/tcp_states.h",
        ],
    },
    StateText {
        state: TcpState::Established,
        summary: "The connection is open: both sides may send.",
        meaning: "The handshake is done and nobody has said goodbye. It says no more than that. The peer may be gone \
            without a word, and the program may not have accepted the connection yet: then it has no owner.",
        who: "Both ends.",
        normal: "Milliseconds to weeks. Idle connections of a pool are normal.",
        abnormal: "Send-Q stays: the peer does not read, or the network loses segments. Recv-Q stays: this program does \
            not read. No owner: stuck in the accept queue. Silent for hours without keepalive: nobody knows whether \
            the peer still lives.",
        ends: "Nothing ends a connection that is merely idle. Data that nobody acknowledges ends it, not before \
            {attached}. Keepalive, which a program must turn on, ends a silent one after {keepalive}, unless the \
            program sets its own times.",
        linux: &[],
        next: "linger list state established",
        grounds: &[
            "TCP state in OS, ESTABLISHED",
            "RFC 9293 section 3.5.1",
            "RFC 9293 section 3.8.4",
            "Linux kernel, net/ipv4/tcp_timer.c",
        ],
    },
    StateText {
        state: TcpState::FinWait1,
        summary: "This side has closed first; its FIN is not acknowledged yet.",
        meaning: "The program called close() or shutdown(SHUT_WR). With Send-Q 1 the FIN is out and its ACK is awaited. \
            With more, data is queued ahead of the FIN, and the FIN may not even have been sent.",
        who: "Whoever closes first, client or server.",
        normal: "One round trip and the peer's delayed ACK: about 40 ms. So 100 closes a second show about five of \
            them at any time.",
        abnormal: "Longer than a few seconds. The peer has vanished, the path is broken, or the peer does not read the \
            data ahead of the FIN.",
        ends: "The ACK of the FIN, or an RST. Otherwise, after close(), the kernel gives up after about {orphan}. If a \
            program still holds it, after shutdown(), not before {attached}.",
        linux: &[
            "A peer that does not read, but answers the kernel's probes, keeps it for minutes.",
        ],
        next: "linger list state fin-wait-1",
        grounds: &[
            "TCP state in OS, FIN_WAIT_1",
            "RFC 9293 section 3.3.2",
            "Linux kernel, net/ipv4/tcp_timer.c",
        ],
    },
    StateText {
        state: TcpState::FinWait2,
        summary: "This side is done and the peer knows it; the peer has not closed yet.",
        meaning: "Our FIN is acknowledged, the peer's is awaited. The connection is half-closed: this side can send no \
            more, the peer still may. Over there it is probably in CLOSE-WAIT.",
        who: "Whoever closes first, client or server.",
        normal: "As long as the peer still sends. Some programs use it on purpose: rsync, ssh, nc -N.",
        abnormal: "With an owner and silent for a minute: the peer never closes, and this program waits without a \
            time-out. Very many without an owner: peers that do not close.",
        ends: "With an owner: nothing on this side. After close() the kernel drops it after {orphan-fin-wait-2}.",
        linux: &[
            "tcp_fin_timeout counts only after close(), never while a program holds the socket.",
            "Just above 60 it does the opposite of what it says: the socket lives twice the excess, so 61 means 2 s.",
            "After close(), data from the peer is answered with RST.",
        ],
        next: "linger list state fin-wait-2",
        grounds: &[
            "TCP state in OS, FIN_WAIT_2",
            "RFC 9293 section 3.6.1",
            "Linux kernel, net/ipv4/tcp_input.c",
        ],
    },
    StateText {
        state: TcpState::CloseWait,
        summary: "The peer has closed; this program has not.",
        meaning: "The peer's FIN came, and the kernel acknowledged it by itself. Now it is this program's turn: send what \
            is left, then close. Recv-Q 0: it has read the end and still not closed. Recv-Q 1 or more: it has not \
            even read that far (the FIN counts as 1).",
        who: "Whoever does not close first, client or server.",
        normal: "Milliseconds; longer while the answer is still being sent (Send-Q above 0). A few old ones whose number \
            does not grow are often an idle pool.",
        abnormal: "Old ones that become more: the program forgets to close, and will run out of descriptors. Without an \
            owner: the program has not accepted the connection.",
        ends: "Nothing. No timer and no sysctl ends it, only the program: close() of the last descriptor, \
            shutdown(SHUT_WR), or its end.",
        linux: &[
            "close() of one of several copies of a descriptor (dup, fork) sends nothing.",
            "close() with data left unread sends RST instead of FIN.",
            "A reset, or keepalive to a peer that is gone, removes the row and leaves the descriptor open: the leak is \
                hidden, not cured.",
        ],
        next: "linger list -p state close-wait",
        grounds: &[
            "TCP state in OS, CLOSE_WAIT",
            "RFC 9293 section 3.6",
            "RFC 9293 section 3.6.1",
            "Linux kernel, net/ipv4/tcp.c",
        ],
    },
    StateText {
        state: TcpState::Closing,
        summary: "Both sides closed at about the same time; the ACK of our FIN is missing.",
        meaning: "Our FIN was under way when the peer's came, and the peer's did not acknowledge ours. Nobody has anything \
            more to send. Only the ACK is awaited.",
        who: "Either side, often both at once.",
        normal: "Milliseconds, and rare.",
        abnormal: "Seconds. Then it is no coincidence: the peer's segments arrive, but our FIN or its ACK gets lost. \
            Look for loss in one direction.",
        ends: "The ACK of our FIN, or an RST. Otherwise, after close(), the kernel gives up after about {orphan}. If a \
            program still holds it, not before {attached}.",
        linux: &[],
        next: "linger list state closing",
        grounds: &[
            "TCP state in OS, CLOSING",
            "RFC 9293 section 3.6",
            "RFC 9293 section 3.10.7.4",
            "Linux kernel, net/ipv4/tcp_timer.c",
        ],
    },
    StateText {
        state: TcpState::LastAck,
        summary: "The peer closed first, this side has closed too; the last ACK is missing.",
        meaning: "Our FIN, which also acknowledges the peer's, has to be acknowledged; then nothing is left to do. With \
            Send-Q above 1, data is queued ahead of the FIN, and the FIN may not even have been sent.",
        who: "Whoever does not close first, client or server.",
        normal: "One round trip.",
        abnormal: "Seconds. The peer vanished after its FIN, or a firewall or NAT on the way has forgotten the connection. \
            On a public server a few are always there.",
        ends: "The ACK of our FIN, or an RST. Otherwise, after close(), the kernel gives up after about {orphan}. If a \
            program still holds it, after shutdown(), not before {attached}.",
        linux: &[],
        next: "linger list state last-ack",
        grounds: &[
            "TCP state in OS, LAST_ACK",
            "RFC 9293 section 3.3.2",
            "Linux kernel, net/ipv4/tcp_timer.c",
        ],
    },
    StateText {
        state: TcpState::TimeWait,
        summary: "The connection is over; its addresses and ports stay reserved for a while.",
        meaning: "Both FINs have been received and acknowledged. The kernel keeps a small record for two reasons: to \
            acknowledge the peer's FIN again if our last ACK was lost, and to keep late segments out of a new connection \
            with the same addresses and ports.",
        who: "Whoever closes first, client or server. Both, if both closed at once.",
        normal: "Any number: closes a second times 60. It holds no process, no descriptor and little memory.",
        abnormal: "Only what it takes away: the local ports towards one destination, or the places in the table \
            (tcp_max_tw_buckets).",
        ends: "A timer: {time-wait} on Linux, where RFC 9293 asks for 4 min. No sysctl changes it, least of all \
            tcp_fin_timeout. A late segment of the peer starts it again.",
        linux: &[
            "The ACK is sent again only if the peer repeats its FIN, not by a timer.",
            "A client's new SYN from the same port is normally taken at once. What it hinders is this host's own \
                connect(), and a restarting server without SO_REUSEADDR.",
            "tcp_tw_reuse concerns outgoing connections only; tcp_tw_recycle is gone since Linux 4.12.",
        ],
        next: "linger explain 2msl",
        grounds: &[
            "TCP state in OS, TIME_WAIT",
            "RFC 9293 section 3.3.2",
            "RFC 9293 section 3.6.1",
            "RFC 6191",
            "Linux kernel, include/net/tcp.h",
        ],
    },
    StateText {
        state: TcpState::Closed,
        summary: "No connection: where each one begins and where it ends.",
        meaning: "In the RFC there is no socket in this state. On Linux there may be a descriptor: of a socket that was \
            just made, or of one that was reset, or given up by a timer, and never closed. No table of the kernel \
            lists these, unless they hold a port (BOUND-INACTIVE). UNCONNECTED in a listing is a socket of UDP, UNIX \
            or another protocol without TCP's states.",
        who: "Either side.",
        normal: "Moments, between socket() and connect() or listen().",
        abnormal: "Descriptors of dead sockets that pile up in a process: it does not close after an error.",
        ends: "Nothing but the program: close(), or its end.",
        linux: &[
            "ss and netstat do not show them. They count against the process's limit of descriptors all the same.",
            "For how a connection is closed: linger explain close.",
        ],
        next: "linger list -B",
        grounds: &[
            "TCP state in OS, CLOSED",
            "RFC 9293 section 3.3.2",
            "Linux kernel, net/ipv4/inet_diag.c",
        ],
    },
    StateText {
        state: TcpState::BoundInactive,
        summary: "bind() gave the socket a port; it neither listens nor is connected.",
        meaning: "Not a state of TCP, but how Linux lists a CLOSED socket that holds a port. The program called bind() and \
            nothing after it, or the connection was reset and the descriptor is still open.",
        who: "Any program that calls bind().",
        normal: "Moments, between bind() and listen() or connect(). Some programs reserve a port this way.",
        abnormal: "Many: each holds a local port, and one from the range for outgoing connections is lost to every \
            destination.",
        ends: "Nothing but the program: close(), or its end.",
        linux: &[
            "Only Linux 6.8 and later list them; /proc/net/tcp never does. On older kernels they are there and unseen.",
            "IP_BIND_ADDRESS_NO_PORT lets bind() choose an address without taking a port.",
        ],
        next: "linger list state bound-inactive",
        grounds: &["Linux kernel, include/net/tcp_states.h"],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::age::TIME_WAIT_MS;

    fn text(state: TcpState) -> &'static StateText {
        state_text(state).unwrap()
    }

    #[test]
    fn every_state_that_is_shown_has_its_text_in_order() {
        let states: Vec<_> = STATES.iter().map(|text| text.state).collect();
        assert_eq!(states, TcpState::SHOWN);
        assert_eq!(text(TcpState::NewSynReceived).state, TcpState::SynReceived);
        assert!(state_text(TcpState::Unknown(14)).is_none());
    }

    #[test]
    fn every_text_is_whole_and_short_enough_to_be_read_at_night() {
        for text in STATES {
            let parts = [
                text.summary,
                text.meaning,
                text.who,
                text.normal,
                text.abnormal,
                text.ends,
            ];
            for part in parts.iter().chain(text.linux) {
                assert!(part.ends_with('.'), "{}: {part}", text.name());
                assert!(part.is_ascii() && !part.contains("  "), "{part}");
                for sentence in part.split_inclusive(['.', ':', ';']) {
                    let words = sentence.split_whitespace().count();
                    assert!(words <= 30, "{}: {words} words: {sentence}", text.name());
                }
            }
            assert!(text.summary.len() <= 78, "{}", text.summary);
            assert!(text.next.starts_with("linger "), "{}", text.next);
            assert!(text.entered().count() > 0 && text.left().count() > 0);
        }
    }

    #[test]
    fn every_documented_state_cites_the_source_and_what_corrects_it() {
        for text in STATES {
            let source = text
                .grounds
                .iter()
                .any(|g| g.starts_with("TCP state in OS, "));
            assert_eq!(source, text.state != TcpState::BoundInactive);
            for ground in text.grounds {
                let known = ["TCP state in OS, ", "RFC ", "Linux kernel, "];
                assert!(known.iter().any(|k| ground.starts_with(k)), "{ground}");
            }
        }
    }

    #[test]
    fn figures_of_the_host_replace_every_placeholder() {
        for text in STATES {
            let ends = text.ends_on(&Facts::default());
            assert!(!ends.contains(['{', '}']), "{ends}");
        }
        let mut facts = Facts::default();
        for (name, value) in [("tcp_orphan_retries", "0"), ("tcp_retries2", "15")] {
            facts
                .sysctls
                .insert(format!("net/ipv4/{name}"), value.into());
        }
        let ends = text(TcpState::LastAck).ends_on(&facts);
        assert!(
            ends.contains("after about 107 s (tcp_orphan_retries 0)"),
            "{ends}"
        );
        assert!(
            ends.contains("not before 924 s (tcp_retries2 15)"),
            "{ends}"
        );
        assert_eq!(
            text(TcpState::TimeWait).lifetimes().collect::<Vec<_>>(),
            [Lifetime::TimeWait]
        );
        assert_eq!(TIME_WAIT_MS, 60_000);
    }

    #[test]
    fn what_has_a_timer_in_the_table_has_one_in_the_text() {
        use crate::knowledge::transitions::Cause;
        for text in STATES {
            let timed = text.left().any(|arrow| arrow.cause == Cause::Timer);
            let told = text.lifetimes().count() > 0;
            // In CLOSE-WAIT a timer ends only what is still being sent, never the waiting for the program.
            let excepted = text.state == TcpState::CloseWait;
            assert_eq!(told, timed && !excepted, "{}", text.name());
        }
    }

    #[test]
    fn nobody_but_the_openers_is_tied_to_a_role() {
        for text in STATES {
            let role = text.who.contains("client") || text.who.contains("server");
            assert!(
                !role || text.who.contains("client or server"),
                "{}",
                text.who
            );
        }
        assert!(text(TcpState::Listen).who.contains("passive opener"));
        assert!(text(TcpState::SynSent).who.contains("active opener"));
        assert!(text(TcpState::FinWait2).meaning.contains("half-closed"));
        assert!(!text(TcpState::FinWait2).meaning.contains("half-open"));
    }
}
