//! The story of one socket: how it came into its state, what it waits for, what would end that and when, and whose
//! move it is.
//!
//! A pure function of what the kernel says of the socket and of the host's settings. It says no more than one look can
//! tell: what is merely probable is called so, and a time that is known within bounds is told with both.

mod closing;
mod opening;
#[cfg(test)]
mod tests;

use super::lifetimes::{Lifetime, in_words};
use super::transitions::{TRANSITIONS, Transition};
use crate::model::words::{count, time};
use crate::model::{Actor, Age, AgeFacts, Facts, Socket, TcpInfo, TcpState, Timer};

/// What is known besides the socket itself.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// its `tcp_info`
    pub info: Option<&'a TcpInfo>,
    /// the host's settings
    pub facts: &'a Facts,
    /// whether a socket listens on its local port; `None` if nobody looked
    pub listened: Option<bool>,
}

/// The story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// the state
    pub state: TcpState,
    /// for how long it has been in it
    pub age: Option<Age>,
    /// the arrows that it has taken for certain, oldest first
    pub path: Vec<&'static Transition>,
    /// how it came here
    pub came: String,
    /// what is awaited
    pub awaits: String,
    /// what ends it
    pub ends: String,
    /// the wait that the kernel ends by itself
    pub lifetime: Option<Lifetime>,
    /// the time until the kernel ends it; `None` if it does not, or if that cannot be told
    pub left: Option<Age>,
    /// whose move it is
    pub actor: Actor,
}

impl Story {
    /// For how long, for a sentence.
    pub fn lasts(&self) -> String {
        self.age
            .map_or("cannot be told from one look".to_owned(), bounds)
    }
}

/// `51 min`, `7.0 s to 63 s`, `5.0 s at least`.
pub fn bounds(age: Age) -> String {
    match age.high_ms {
        Some(high) if time(high) == time(age.low_ms) => time(high),
        Some(high) => format!("{} to {}", time(age.low_ms), time(high)),
        None => format!("{} at least", time(age.low_ms)),
    }
}

/// What every state's teller fills in; the state and its age are added to it.
struct Told {
    path: &'static [(TcpState, TcpState)],
    came: String,
    awaits: String,
    ends: String,
    lifetime: Option<Lifetime>,
    left: Option<Age>,
    actor: Actor,
}

use TcpState::{
    BoundInactive, CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen,
    NewSynReceived, SynReceived, SynSent, TimeWait,
};

/// Tells the story; `None` for a state that nobody knows.
pub fn tell(socket: &Socket, scene: Scene<'_>) -> Option<Story> {
    let age = AgeFacts::new(scene.facts).in_state(socket, scene.info);
    let teller = Teller { socket, scene, age };
    let told = match socket.state {
        Listen => teller.listen(),
        SynSent => teller.syn_sent(),
        SynReceived | NewSynReceived => teller.syn_received(),
        Established => teller.established(),
        FinWait1 => teller.fin_wait_1(),
        FinWait2 => teller.fin_wait_2(),
        CloseWait => teller.close_wait(),
        Closing => teller.closing(),
        LastAck => teller.last_ack(),
        TimeWait => teller.time_wait(),
        Closed | BoundInactive => teller.bound(),
        TcpState::Unknown(_) => return None,
    };
    Some(Story {
        state: socket.state.shown(),
        age,
        path: told.path.iter().filter_map(arrow).collect(),
        came: told.came,
        awaits: told.awaits,
        ends: told.ends,
        lifetime: told.lifetime,
        left: told.left,
        actor: told.actor,
    })
}

fn arrow((from, to): &(TcpState, TcpState)) -> Option<&'static Transition> {
    TRANSITIONS
        .iter()
        .find(|arrow| arrow.linux && (arrow.from, arrow.to) == (*from, *to))
}

struct Teller<'a> {
    socket: &'a Socket,
    scene: Scene<'a>,
    age: Option<Age>,
}

/// What ends a socket that is no connection.
const PROGRAM_ONLY: &str = "Nothing but the program: close(), or its end. No timer.";

impl Teller<'_> {
    const fn held(&self) -> bool {
        self.socket.inode != 0
    }

    /// How often the segment that is due has been sent again.
    fn again(&self) -> u8 {
        let info = self.scene.info.map(|info| info.retransmits);
        info.unwrap_or(self.socket.retransmits)
    }

    fn words(&self, lifetime: Lifetime) -> String {
        lifetime.words(self.scene.facts)
    }

    /// What is left of a lifetime that began with the state.
    fn left(&self, lifetime: Lifetime) -> Option<Age> {
        let whole = lifetime.ms(self.scene.facts)?;
        let age = self.age?;
        Some(Age {
            low_ms: age.high_ms.map_or(0, |high| whole.saturating_sub(high)),
            high_ms: Some(whole.saturating_sub(age.low_ms)),
        })
    }

    fn bytes(&self, n: u32) -> String {
        count(n.into(), "byte")
    }

    /// When the kernel sends again.
    fn next_try(&self, what: &str) -> String {
        if self.socket.timer == Timer::Retransmit {
            format!(
                " The next {what} is due in {}.",
                time(self.socket.timer_ms.into())
            )
        } else {
            String::new()
        }
    }
}

/// `once`, `5 times`.
fn times(n: u8) -> String {
    if n == 1 {
        "once".to_owned()
    } else {
        format!("{n} times")
    }
}

/// The time that is left, for a sentence.
pub fn left_in_words(left: Age) -> String {
    match (left.low_ms, left.high_ms) {
        (_, Some(0)) => "any moment now".to_owned(),
        (low, None) => format!("not within {}", in_words(low)),
        (low, Some(high)) if in_words(low) == in_words(high) => format!("in {}", in_words(high)),
        (low, Some(high)) => format!("in {} to {}", in_words(low), in_words(high)),
    }
}
