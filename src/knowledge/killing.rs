//! What may be destroyed with `SOCK_DESTROY` (`tcp_abort()` in `net/ipv4/tcp.c`, `udp_abort()` in `net/ipv4/udp.c`), what
//! had better not, and what the two ends notice.

use crate::model::{Protocol, Socket, TcpState, Timer};

/// What may be destroyed besides connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// what takes connections or datagrams for its program
    pub listeners: bool,
    /// CLOSE-WAIT
    pub close_wait: bool,
    /// TIME-WAIT
    pub time_wait: bool,
}

/// Why a socket is left alone.
#[derive(Debug, PartialEq, Eq)]
pub struct Objection {
    /// the reason, for a sentence that begins with the socket
    pub why: &'static str,
    /// the option that overrules it; `None` if nothing does
    pub option: Option<&'static str>,
}

/// A listener, or what is one for datagrams.
pub const LISTENER: Objection = Objection {
    why: "it takes what comes for its program, which goes on without it and may never notice; restart the program instead",
    option: Some("--listeners"),
};

/// CLOSE-WAIT.
pub const CLOSE_WAIT: Objection = Objection {
    why: "its program has not closed it, and keeps the descriptor whatever becomes of the socket: the leak goes on \
        towards the limit, only unseen, and the evidence is gone; the cure is in the program, or its restart",
    option: Some("--close-wait"),
};

/// TIME-WAIT.
pub const TIME_WAIT: Objection = Objection {
    why: "it keeps late segments out of the next connection (RFC 9293 section 3.6.1), costs no descriptor, and goes by \
        itself within 60 s",
    option: Some("--time-wait"),
};

/// BOUND-INACTIVE, or without a cookie.
pub const NOT_TO_BE_FOUND: Objection = Objection {
    why: "the kernel finds sockets by their connection and their cookie, and this one has only a port; its program has to \
        close it",
    option: None,
};

/// Of another protocol than TCP and UDP.
pub const OTHER: Objection = Objection {
    why: "only sockets of TCP and UDP are destroyed",
    option: None,
};

/// Why a socket had better be left alone; `None` if nothing is against its end.
pub fn objection(socket: &Socket, allowed: Allowed) -> Option<&'static Objection> {
    let (objection, overruled) = match (socket.protocol, socket.state) {
        (protocol, _) if !matches!(protocol, Protocol::Tcp | Protocol::Udp) => (&OTHER, false),
        _ if socket.cookie.is_none() => (&NOT_TO_BE_FOUND, false),
        (Protocol::Tcp, TcpState::BoundInactive | TcpState::Closed) => (&NOT_TO_BE_FOUND, false),
        (Protocol::Udp, TcpState::Closed) | (Protocol::Tcp, TcpState::Listen) => {
            (&LISTENER, allowed.listeners)
        }
        (Protocol::Tcp, TcpState::CloseWait) => (&CLOSE_WAIT, allowed.close_wait),
        (Protocol::Tcp, TcpState::TimeWait) => (&TIME_WAIT, allowed.time_wait),
        _ => return None,
    };
    (!overruled).then_some(objection)
}

/// What becomes, or became, of a socket that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// it would be destroyed
    WouldDestroy,
    /// it was destroyed
    Destroyed,
    /// it was gone before, or was not what it had been any more
    Vanished(String),
    /// it is left alone
    Refused(&'static Objection),
    /// the kernel did not do it
    Failed(String),
}

impl Fate {
    /// The name in tables and JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::WouldDestroy => "would-destroy",
            Self::Destroyed => "destroyed",
            Self::Vanished(_) => "vanished",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
        }
    }

    /// Why.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::WouldDestroy | Self::Destroyed => None,
            Self::Vanished(why) | Self::Failed(why) => Some(why),
            Self::Refused(objection) => Some(objection.why),
        }
    }

    /// The option that would have had it destroyed.
    pub const fn option(&self) -> Option<&'static str> {
        match self {
            Self::Refused(objection) => objection.option,
            _ => None,
        }
    }
}

/// What the two ends notice of a socket's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effect {
    /// the program that holds it
    pub program: &'static str,
    /// the other end
    pub peer: &'static str,
}

const RESET: &str = "the peer gets a reset";
const NOT_TOLD: &str = "the peer is not told";
const NOBODY: &str = "no program holds it";

/// What is noticed when the socket is destroyed.
pub fn effect(socket: &Socket) -> Effect {
    use TcpState::{
        BoundInactive, CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck,
        Listen, NewSynReceived, SynReceived, SynSent, TimeWait, Unknown,
    };
    let held = socket.inode != 0;
    let (program, peer) = match (socket.protocol, socket.state) {
        (Protocol::Udp, Closed) => (
            "its program gets ECONNABORTED once; a port that it has bound by its own choice stays bound",
            "nobody is told",
        ),
        (Protocol::Udp, _) => (
            "its program gets ECONNABORTED at the next use, and the socket has lost its peer",
            NOT_TOLD,
        ),
        (_, Listen) => (
            // `tcp_set_state()` gives the port back only if no bind(2) named it.
            "accept() fails with EINVAL from now on, and the port stays taken (BOUND-INACTIVE) until its program closes \
             the descriptor or ends",
            "connections that wait in its queue are reset, and new ones refused",
        ),
        (_, SynSent) => ("connect() fails with ECONNABORTED", NOT_TOLD),
        (_, SynReceived | NewSynReceived) => (NOBODY, NOT_TOLD),
        (_, TimeWait) => (NOBODY, NOT_TOLD),
        // An orphan of which only a mini-socket is left.
        (_, FinWait2) if socket.timer == Timer::TimeWait => (NOBODY, NOT_TOLD),
        (_, Established) if !held => (
            "accept() still returns it, and its next use fails with ECONNABORTED",
            RESET,
        ),
        (_, CloseWait) if !held => (
            "accept() still returns it, and a write to it fails with ECONNABORTED",
            RESET,
        ),
        (_, FinWait1 | FinWait2) if !held => (NOBODY, RESET),
        // `tcp_recvmsg_locked()`: a FIN that has arrived comes before an error.
        (_, CloseWait) => (
            "its program reads the end of file as before, gets ECONNABORTED if it writes, and keeps the descriptor",
            RESET,
        ),
        (_, Established | FinWait1 | FinWait2) => {
            ("its program gets ECONNABORTED at the next use", RESET)
        }
        (_, Closing | LastAck) if !held => (NOBODY, NOT_TOLD),
        (_, Closing | LastAck | Closed | BoundInactive | Unknown(_)) => {
            ("its program gets ECONNABORTED at the next use", NOT_TOLD)
        }
    };
    Effect { program, peer }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::model::{Endpoint, Family};

    fn socket(protocol: Protocol, state: TcpState) -> Socket {
        Socket {
            cookie: NonZeroU64::new(1),
            local: Endpoint::v4([10, 0, 0, 1], 40_000),
            remote: Endpoint::v4([10, 0, 0, 2], 443),
            inode: 1,
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
            protocol,
            family: Family::Ipv4,
        }
    }

    /// The option that a state takes; `Some(None)` for one that no option helps.
    fn takes(
        protocol: Protocol,
        state: TcpState,
        allowed: Allowed,
    ) -> Option<Option<&'static str>> {
        objection(&socket(protocol, state), allowed).map(|objection| objection.option)
    }

    #[test]
    fn connections_may_go_and_the_rest_wants_its_option() {
        let none = Allowed::default();
        for state in TcpState::SHOWN {
            let expected = match state {
                TcpState::Listen => Some(Some("--listeners")),
                TcpState::CloseWait => Some(Some("--close-wait")),
                TcpState::TimeWait => Some(Some("--time-wait")),
                TcpState::BoundInactive | TcpState::Closed => Some(None),
                _ => None,
            };
            assert_eq!(takes(Protocol::Tcp, state, none), expected, "{state}");
        }
        assert_eq!(takes(Protocol::Tcp, TcpState::NewSynReceived, none), None);
        assert_eq!(takes(Protocol::Udp, TcpState::Established, none), None);
        let unconnected = takes(Protocol::Udp, TcpState::Closed, none);
        assert_eq!(unconnected, Some(Some("--listeners")));
    }

    #[test]
    fn an_option_overrules_its_own_objection_and_no_other() {
        let options = [
            ("--listeners", TcpState::Listen),
            ("--close-wait", TcpState::CloseWait),
            ("--time-wait", TcpState::TimeWait),
        ];
        for (given, _) in options {
            let allowed = Allowed {
                listeners: given == "--listeners",
                close_wait: given == "--close-wait",
                time_wait: given == "--time-wait",
            };
            for (option, state) in options {
                let expected = (option != given).then_some(Some(option));
                assert_eq!(
                    takes(Protocol::Tcp, state, allowed),
                    expected,
                    "{given}, {state}"
                );
            }
            let bound = takes(Protocol::Tcp, TcpState::BoundInactive, allowed);
            assert_eq!(bound, Some(None), "{given}");
        }
        let all = Allowed {
            listeners: true,
            close_wait: true,
            time_wait: true,
        };
        let nameless = Socket {
            cookie: None,
            ..socket(Protocol::Tcp, TcpState::Established)
        };
        assert_eq!(objection(&nameless, all), Some(&NOT_TO_BE_FOUND));
        let unix = socket(Protocol::Unix, TcpState::Established);
        assert_eq!(objection(&unix, all), Some(&OTHER));
    }

    #[test]
    fn the_port_of_a_listener_stays_taken() {
        for state in TcpState::SHOWN {
            let said = effect(&socket(Protocol::Tcp, state)).program;
            let taken = said.contains("stays taken (BOUND-INACTIVE)");
            assert_eq!(taken, state == TcpState::Listen, "{state}: {said}");
        }
    }

    #[test]
    fn a_reset_is_sent_where_the_kernel_sends_one() {
        // `tcp_need_reset()`; SYN-RECEIVED is a mini-socket here, of which nothing is sent.
        for state in TcpState::SHOWN {
            let reset = effect(&socket(Protocol::Tcp, state)).peer == RESET;
            let expected = matches!(
                state,
                TcpState::Established
                    | TcpState::FinWait1
                    | TcpState::FinWait2
                    | TcpState::CloseWait
            );
            assert_eq!(reset, expected, "{state}");
        }
        let mini = Socket {
            inode: 0,
            timer: Timer::TimeWait,
            ..socket(Protocol::Tcp, TcpState::FinWait2)
        };
        assert_eq!(
            effect(&mini),
            Effect {
                program: NOBODY,
                peer: NOT_TOLD
            }
        );
        let orphan = Socket {
            inode: 0,
            ..socket(Protocol::Tcp, TcpState::FinWait1)
        };
        assert_eq!(
            effect(&orphan),
            Effect {
                program: NOBODY,
                peer: RESET
            }
        );
    }
}
