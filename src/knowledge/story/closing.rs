//! From the first goodbye to the end: who closed first, and what is still missing.

use super::{Teller, Told, times};
use crate::knowledge::Lifetime;
use crate::model::TcpState::{CloseWait, Closing, Established, FinWait1, FinWait2, LastAck};
use crate::model::{Actor, Age, Socket, TcpInfo, Timer};

impl Teller<'_> {
    /// How this side said goodbye.
    pub(super) const fn closed_by(&self) -> &'static str {
        if self.held() {
            "shutdown(SHUT_WR), and still holds it"
        } else {
            "close(), and holds it no more"
        }
    }

    /// What a FIN of ours waits for, and whose move that is.
    pub(super) fn fin(&self) -> (String, Actor) {
        let Socket { send_q, timer, .. } = *self.socket;
        let mut text = if send_q > 1 {
            let bytes = self.bytes(send_q - 1);
            let unsent = self.scene.info.and_then(TcpInfo::notsent_bytes);
            if unsent.is_some_and(|unsent| unsent > 0) {
                format!("The acknowledgement of {bytes} ahead of our FIN, which is not sent yet.")
            } else {
                format!(
                    "The acknowledgement of {bytes} ahead of our FIN, and of the FIN, which may not be sent yet."
                )
            }
        } else {
            "The ACK of our FIN.".to_owned()
        };
        let actor = match (timer, self.again()) {
            (Timer::Persist, _) => {
                text.push_str(" The peer's window is closed: it does not read.");
                Actor::Peer
            }
            (_, 0) => Actor::Peer,
            (_, n) => {
                text.push_str(&format!(" It was sent again {} in vain.", times(n)));
                text.push_str(&self.next_try("try"));
                Actor::Network
            }
        };
        (text, actor)
    }

    /// What ends the wait for the ACK of a FIN.
    pub(super) fn fin_ends(&self) -> (String, Option<Lifetime>, Option<Age>) {
        let held = self.held();
        if self.socket.timer == Timer::Persist {
            let lasts = if held {
                "lasts as long as the peer answers the kernel's probes"
            } else {
                "may last for minutes, with a peer that answers the kernel's probes"
            };
            return (
                format!("The ACK, or an RST. Until then it {lasts}."),
                None,
                None,
            );
        }
        let lifetime = if held {
            Lifetime::Attached
        } else {
            Lifetime::Orphan
        };
        let words = self.words(lifetime);
        let left = self.left(lifetime);
        if held {
            (
                format!("The ACK, or an RST. Otherwise the kernel gives up, not before {words}."),
                Some(lifetime),
                left.map(|left| Age::at_least(left.low_ms)),
            )
        } else {
            (
                format!(
                    "The ACK, or an RST. Otherwise the kernel gives up after about {words}, later where the round trip is long."
                ),
                Some(lifetime),
                left,
            )
        }
    }

    pub(super) fn fin_wait_1(&self) -> Told {
        let (awaits, actor) = self.fin();
        let (ends, lifetime, left) = self.fin_ends();
        Told {
            path: &[(Established, FinWait1)],
            came: format!(
                "This side closes first: the program called {}.",
                self.closed_by()
            ),
            awaits,
            ends,
            lifetime,
            left,
            actor,
        }
    }

    pub(super) fn fin_wait_2(&self) -> Told {
        let (ends, lifetime, left) = if self.held() {
            (
                "Nothing on this side, while a program holds it: tcp_fin_timeout counts only after close()."
                    .to_owned(),
                None,
                None,
            )
        } else {
            (
                format!(
                    "The peer's FIN, or an RST. Otherwise the kernel drops it after {}.",
                    self.words(Lifetime::OrphanFinWait2)
                ),
                Some(Lifetime::OrphanFinWait2),
                self.left(Lifetime::OrphanFinWait2),
            )
        };
        let unread = match self.socket.recv_q {
            0 => String::new(),
            n => format!(" {} wait to be read here.", self.bytes(n)),
        };
        Told {
            path: &[(Established, FinWait1), (FinWait1, FinWait2)],
            came: format!(
                "This side closed first: the program called {}. The peer has acknowledged our FIN.",
                self.closed_by()
            ),
            awaits: format!(
                "The peer's FIN. We are done and the peer may still send: half-closed, not half-open. Over there it is probably in CLOSE-WAIT.{unread}"
            ),
            ends,
            lifetime,
            left,
            actor: Actor::Peer,
        }
    }

    pub(super) fn close_wait(&self) -> Told {
        let Socket {
            recv_q,
            send_q,
            timer,
            ..
        } = *self.socket;
        let mut ends = "Only the program: close() of the last descriptor, shutdown(SHUT_WR), or its end. No timer and no sysctl."
            .to_owned();
        // The FIN counts 1 while it is unread; it alone does not turn a close into a reset.
        let unread = recv_q.saturating_sub(1);
        if unread > 0 {
            let bytes = self.bytes(unread);
            ends.push_str(&format!(
                " With {bytes} unread, close() sends RST instead of FIN."
            ));
        }
        if timer == Timer::Keepalive {
            ends.push_str(
                " If keepalive gives the peer up, the row goes and the descriptor stays.",
            );
        }
        let (awaits, actor) = if !self.held() {
            (
                "accept(): no program has the connection, and the peer has left already."
                    .to_owned(),
                Actor::ThisProgram,
            )
        } else if send_q > 0 {
            let bytes = self.bytes(send_q);
            match (timer, self.again()) {
                (Timer::Persist, _) => (
                    format!(
                        "The peer first: it said goodbye and does not read, and {bytes} wait here. Then close()."
                    ),
                    Actor::Peer,
                ),
                (_, 0) => (
                    format!(
                        "The acknowledgement of {bytes} that are still being sent, then close()."
                    ),
                    Actor::ThisProgram,
                ),
                (_, n) => (
                    format!(
                        "The acknowledgement of {bytes}, sent again {} in vain, then close().",
                        times(n)
                    ),
                    Actor::Network,
                ),
            }
        } else if recv_q == 0 {
            (
                "This program's close(): it has read the end, and not closed.".to_owned(),
                Actor::ThisProgram,
            )
        } else if unread == 0 {
            (
                "This program: it has not read the end yet, and not closed.".to_owned(),
                Actor::ThisProgram,
            )
        } else {
            let bytes = self.bytes(unread);
            (
                format!(
                    "This program: it has not read {bytes} and the end behind them, and not closed."
                ),
                Actor::ThisProgram,
            )
        };
        Told {
            path: &[(Established, CloseWait)],
            came: "The peer closed first; the kernel acknowledged its FIN by itself.".to_owned(),
            awaits,
            ends,
            lifetime: None,
            left: None,
            actor,
        }
    }

    pub(super) fn closing(&self) -> Told {
        let (awaits, _) = self.fin();
        let (ends, lifetime, left) = self.fin_ends();
        Told {
            path: &[(Established, FinWait1), (FinWait1, Closing)],
            came: "Both sides closed at about the same time: the peer's FIN came, and did not acknowledge ours."
                .to_owned(),
            awaits: format!("{awaits} Where this lasts, our FIN or its ACK gets lost."),
            ends,
            lifetime,
            left,
            actor: Actor::Network,
        }
    }

    pub(super) fn last_ack(&self) -> Told {
        let (awaits, actor) = self.fin();
        let (ends, lifetime, left) = self.fin_ends();
        Told {
            path: &[(Established, CloseWait), (CloseWait, LastAck)],
            came: format!(
                "The peer closed first, then this side: the program called {}.",
                self.closed_by()
            ),
            awaits,
            ends,
            lifetime,
            left,
            actor,
        }
    }

    pub(super) fn time_wait(&self) -> Told {
        let known = self.socket.timer == Timer::TimeWait;
        Told {
            path: &[(Established, FinWait1)],
            came: "This side closed first, or both at once, and both FINs are acknowledged. No program and no descriptor are left."
                .to_owned(),
            awaits: "Nobody. The kernel keeps addresses and ports for two reasons: to acknowledge the peer's FIN again if it is repeated, and to keep late segments out of a new connection."
                .to_owned(),
            ends: format!(
                "A timer: {} on Linux, where RFC 9293 asks for 4 min. No sysctl changes it.",
                self.words(Lifetime::TimeWait)
            ),
            lifetime: Some(Lifetime::TimeWait),
            left: known.then(|| Age::exactly(self.socket.timer_ms.into())),
            actor: Actor::Nobody,
        }
    }
}
