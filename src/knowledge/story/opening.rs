//! Before the goodbye: sockets without a connection, handshakes, open connections.

use super::{PROGRAM_ONLY, Teller, Told, times};
use crate::knowledge::Lifetime;
use crate::model::TcpState::{BoundInactive, Closed, Established, Listen, SynReceived, SynSent};
use crate::model::words::{count, thousands, time};
use crate::model::{Actor, LastWord, Socket, Timer};

impl Teller<'_> {
    pub(super) fn listen(&self) -> Told {
        let waiting = self.socket.recv_q;
        let queue = match self.socket.backlog() {
            Some(limit) => format!("{} of {}", thousands(waiting), thousands(limit)),
            None => thousands(waiting),
        };
        let full = self.socket.backlog().is_some_and(|limit| waiting > limit);
        let verdict = if full {
            " The queue is full: new clients are turned away."
        } else {
            ""
        };
        Told {
            path: &[(Closed, Listen)],
            came: "A program called listen(): the passive opener.".to_owned(),
            awaits: format!(
                "Clients. The kernel, not the program, completes their handshakes; {queue} wait in the queue for accept().{verdict}"
            ),
            ends: PROGRAM_ONLY.to_owned(),
            lifetime: None,
            left: None,
            actor: if waiting > 0 {
                Actor::ThisProgram
            } else {
                Actor::Nobody
            },
        }
    }

    pub(super) fn syn_sent(&self) -> Told {
        let again = u64::from(self.again());
        let (tried, actor) = if again == 0 {
            ("The first SYN is out.".to_owned(), Actor::Peer)
        } else {
            let sent = count(again + 1, "SYN");
            (
                format!("{sent} met silence; a refusal would have ended this at once."),
                Actor::Network,
            )
        };
        Told {
            path: &[(Closed, SynSent)],
            came: "This side called connect(): the active opener.".to_owned(),
            awaits: format!("SYN+ACK. {tried}{}", self.next_try("SYN")),
            ends: format!(
                "An answer, or the program's own time-out. Otherwise the kernel gives up after {}, and connect() fails with ETIMEDOUT.",
                self.words(Lifetime::SynSent)
            ),
            lifetime: Some(Lifetime::SynSent),
            left: self.left(Lifetime::SynSent),
            actor,
        }
    }

    pub(super) fn syn_received(&self) -> Told {
        // A request has no file; a socket in this state that has one called connect() itself.
        let simultaneous = self.held();
        let repeated = match self.socket.retransmits {
            0 => String::new(),
            n => format!(" {} went unanswered.", count(u64::from(n) + 1, "SYN+ACK")),
        };
        Told {
            path: if simultaneous {
                &[(Closed, SynSent), (SynSent, SynReceived)]
            } else {
                &[(Listen, SynReceived)]
            },
            came: if simultaneous {
                "Both sides called connect() at once.".to_owned()
            } else {
                "A SYN came to a listening port, and the kernel answered SYN+ACK. No program has the connection yet."
                    .to_owned()
            },
            awaits: format!("The ACK that completes the handshake.{repeated}"),
            ends: format!(
                "The ACK, or an RST. Otherwise the kernel forgets the request after {}, sooner if the queue is crowded.",
                self.words(Lifetime::SynReceived)
            ),
            lifetime: Some(Lifetime::SynReceived),
            left: self.left(Lifetime::SynReceived),
            actor: Actor::Peer,
        }
    }

    pub(super) fn established(&self) -> Told {
        let port = self.socket.local.port;
        let opened = match self.scene.listened {
            Some(true) => format!(" The peer called: port {port} listens here."),
            Some(false) => {
                format!(" Probably this side called: nothing listens on port {port} now.")
            }
            None => String::new(),
        };
        let idle = self.socket.send_q == 0 || !self.held();
        let (awaits, actor) = self.open();
        let (ends, lifetime) = match (idle, self.socket.timer) {
            (false, Timer::Persist) => (
                "Nothing, as long as the peer answers the kernel's probes.".to_owned(),
                None,
            ),
            (false, _) => (
                format!(
                    "The peer's acknowledgement. Without it the kernel gives up, not before {}.",
                    self.words(Lifetime::Attached)
                ),
                Some(Lifetime::Attached),
            ),
            (true, Timer::Keepalive) => (
                format!(
                    "A goodbye of either side, or keepalive: its timer is due in {}. A silent peer is given up after {}, unless the program set its own times.",
                    time(self.socket.timer_ms.into()),
                    self.words(Lifetime::Keepalive)
                ),
                Some(Lifetime::Keepalive),
            ),
            (true, _) => (
                "A goodbye of either side. Without keepalive no timer does: if the peer vanished, nobody would notice."
                    .to_owned(),
                None,
            ),
        };
        Told {
            path: if self.scene.listened == Some(true) {
                &[(Listen, SynReceived), (SynReceived, Established)]
            } else {
                &[]
            },
            came: format!("The handshake is done, and nobody has said goodbye.{opened}"),
            awaits,
            ends,
            lifetime,
            left: None,
            actor,
        }
    }

    /// What an open connection waits for.
    pub(super) fn open(&self) -> (String, Actor) {
        let Socket {
            recv_q,
            send_q,
            timer,
            ..
        } = *self.socket;
        if !self.held() {
            return (
                "accept(): the connection waits in the queue of its listener, and no program has it.".to_owned(),
                Actor::ThisProgram,
            );
        }
        if recv_q > 0 {
            let bytes = self.bytes(recv_q);
            return (
                format!("This program: it has {bytes} to read."),
                Actor::ThisProgram,
            );
        }
        if send_q == 0 {
            return self.idle();
        }
        let bytes = self.bytes(send_q);
        match (timer, self.again()) {
            (Timer::Persist, _) => (
                format!("The peer: its window is closed, it does not read, and {bytes} wait here."),
                Actor::Peer,
            ),
            (_, 0) => (
                format!("The acknowledgement of {bytes} that are under way."),
                Actor::Peer,
            ),
            (_, n) => (
                format!(
                    "The acknowledgement of {bytes}, sent again {} in vain.{}",
                    times(n),
                    self.next_try("try")
                ),
                Actor::Network,
            ),
        }
    }

    /// With empty queues the end that sent last has had its say.
    fn idle(&self) -> (String, Actor) {
        let Some(info) = self.scene.info else {
            let text = "Nothing is under way: the connection is idle.";
            return (text.to_owned(), Actor::Nobody);
        };
        let silent = time(info.last_data_sent_ms.min(info.last_data_recv_ms).into());
        match (LastWord::new(info), self.scene.listened) {
            (LastWord::Ours, _) => (
                format!("The peer, if it owes an answer: this side sent last, {silent} ago."),
                Actor::Peer,
            ),
            (LastWord::Theirs, Some(true)) => (
                format!(
                    "This program, if it owes an answer: the peer sent last, {silent} ago, and it has read that."
                ),
                Actor::ThisProgram,
            ),
            (LastWord::Theirs, _) => (
                format!(
                    "Nothing, if that was the answer: the peer sent last, {silent} ago, and this program has read it."
                ),
                Actor::Nobody,
            ),
            (LastWord::Neither, _) => (
                format!("Nothing is under way: the connection is idle. Silent for {silent}."),
                Actor::Nobody,
            ),
        }
    }

    pub(super) fn bound(&self) -> Told {
        Told {
            path: if self.socket.state == BoundInactive {
                &[(Closed, BoundInactive)]
            } else {
                &[]
            },
            came: "There is no connection: the program called bind() and nothing after it, or its connection was reset or given up and the descriptor is still open."
                .to_owned(),
            awaits: "The program's next call: listen(), connect() or close().".to_owned(),
            ends: PROGRAM_ONLY.to_owned(),
            lifetime: None,
            left: None,
            actor: Actor::ThisProgram,
        }
    }
}
