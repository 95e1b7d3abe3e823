//! What a reading does *not* know. Every output shows it.

use serde::{Deserialize, Serialize};

use super::protocol::Protocol;
use super::state::{StateSet, TcpState};

/// Where the rows came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Collector {
    /// `sock_diag` over netlink
    #[default]
    Netlink,
    /// the text tables of `/proc/net`
    Procfs,
}

impl Collector {
    /// Whether sockets in `state` are in its tables: `/proc/net` leaves out those that are only bound.
    pub const fn sees(self, state: TcpState) -> bool {
        !matches!((self, state), (Self::Procfs, TcpState::BoundInactive))
    }

    /// The name in options and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Netlink => "netlink",
            Self::Procfs => "procfs",
        }
    }
}

/// What is missing from a reading, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Coverage {
    /// the collector that delivered the rows
    pub collector: Collector,
    /// why `sock_diag` was not used, where the choice was ours
    pub fell_back: Option<String>,
    /// dumps during which the kernel's table changed so that rows may be missing or doubled (`NLM_F_DUMP_INTR`)
    pub interrupted: u32,
    /// receive buffers lost (`ENOBUFS`)
    pub lost: u32,
    /// messages that were cut off or too short, and malformed lines of `/proc/net`
    pub undecoded: u64,
    /// sockets in a state that this program does not know
    pub unknown_states: u64,
    /// parts that could not be read at all, each a sentence fragment (`IPv6: no such table`)
    pub missing: Vec<String>,
    /// protocols that were asked for and that this kernel does not have, so that there are no such sockets: no gap
    pub absent: Vec<Protocol>,
    /// protocols that were read from `/proc/net` while others were not, and why
    pub from_proc: Vec<(Protocol, String)>,
    /// whether owners were looked for
    pub owners_read: bool,
    /// processes whose descriptors could not be read for lack of privilege
    pub unreadable_processes: u32,
    /// sockets with an inode whose holder was not found
    pub unowned: u64,
    /// processes that ended while they were read
    pub vanished_processes: u32,
    /// whether the search for owners stopped at its deadline
    pub owners_timed_out: bool,
    /// whether the reader is in a pid namespace of its own, and so sees only the processes of that
    pub nested_pids: bool,
    /// states that no socket is in, where it is not known whether sockets in them were asked for
    #[serde(skip)]
    pub unsure: StateSet,
    /// whether there are no settings and counters to be read
    #[serde(skip)]
    pub no_facts: bool,
    /// what else a reader should know, each a sentence; it takes nothing away from what was seen
    #[serde(skip)]
    pub notes: Vec<String>,
}

impl Coverage {
    /// Whether everything that was asked for was seen. A fallback is complete: it is another way to see the same.
    pub fn complete(&self) -> bool {
        self.rows_complete()
            && !self.owners_hidden()
            && !self.owners_timed_out
            && !self.owners_outside()
            && !self.no_facts
    }

    /// Whether processes that could not be read may hold sockets whose holder is not known. A process that hides its
    /// descriptors takes nothing away where every socket has its holder.
    const fn owners_hidden(&self) -> bool {
        self.unreadable_processes > 0 && self.unowned > 0
    }

    /// Whether processes of other pid namespaces may hold sockets whose holder is not known: containers of one pod share
    /// their network, and see only their own processes.
    const fn owners_outside(&self) -> bool {
        self.nested_pids && self.unowned > 0
    }

    /// Whether every socket was seen, owners aside.
    pub fn rows_complete(&self) -> bool {
        self.interrupted == 0
            && self.lost == 0
            && self.undecoded == 0
            && self.missing.is_empty()
            && self.unsure == StateSet::EMPTY
    }

    /// Whether the number of sockets in `state` is known, 0 included.
    pub const fn sees(&self, state: TcpState) -> bool {
        self.collector.sees(state) && !self.unsure.contains(state)
    }

    /// Whether nothing could be read of the protocol, so that no rows are not "none".
    pub fn unseen(&self, protocol: Protocol) -> bool {
        let mut parts = self.missing.iter();
        parts.any(|part| {
            let rest = part.strip_prefix(protocol.sockets());
            rest.is_some_and(|rest| rest.starts_with(':'))
        })
    }

    /// The first part that could not be read and may have sockets of this protocol. Who holds them is no part of it.
    pub fn gap(&self, protocol: Protocol) -> Option<&str> {
        let mut parts = self.missing.iter().map(String::as_str);
        parts.find(|part| match Protocol::of_part(part) {
            Some(other) => other == protocol,
            None => !part.starts_with("owners:"),
        })
    }

    /// What it says of the tables of one protocol.
    #[must_use]
    pub fn about(&self, protocol: Protocol) -> Self {
        let (mut missing, mut absent, mut from_proc) = (
            self.missing.clone(),
            self.absent.clone(),
            self.from_proc.clone(),
        );
        missing.retain(|part| Protocol::of_part(part) == Some(protocol));
        absent.retain(|other| *other == protocol);
        from_proc.retain(|(other, _)| *other == protocol);
        Self {
            collector: self.collector,
            missing,
            absent,
            from_proc,
            ..Self::default()
        }
    }

    /// One sentence for each protocol that was asked for and that this kernel does not have.
    pub fn absences(&self) -> Vec<String> {
        let said = |protocol: &Protocol| {
            let (label, sockets) = (protocol.label(), protocol.sockets());
            format!("this kernel has no {label} (or has not loaded it): there are no {sockets}")
        };
        self.absent.iter().map(said).collect()
    }

    /// Adds what another part of the same reading does not know.
    pub fn merge(&mut self, other: Self) {
        self.collector = other.collector;
        self.fell_back = self.fell_back.take().or(other.fell_back);
        self.interrupted = self.interrupted.saturating_add(other.interrupted);
        self.lost = self.lost.saturating_add(other.lost);
        self.undecoded = self.undecoded.saturating_add(other.undecoded);
        self.unknown_states = self.unknown_states.saturating_add(other.unknown_states);
        for part in other.missing {
            if !self.missing.contains(&part) {
                self.missing.push(part);
            }
        }
        for protocol in other.absent {
            if !self.absent.contains(&protocol) {
                self.absent.push(protocol);
            }
        }
        for (protocol, why) in other.from_proc {
            if self.from_proc.iter().all(|(known, _)| *known != protocol) {
                self.from_proc.push((protocol, why));
            }
        }
        self.owners_read |= other.owners_read;
        self.unowned = self.unowned.saturating_add(other.unowned);
        self.unreadable_processes = self
            .unreadable_processes
            .saturating_add(other.unreadable_processes);
        self.vanished_processes = self
            .vanished_processes
            .saturating_add(other.vanished_processes);
        self.owners_timed_out |= other.owners_timed_out;
        self.nested_pids |= other.nested_pids;
        self.unsure = self.unsure.union(other.unsure);
        self.no_facts |= other.no_facts;
        for note in other.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    /// One sentence for each thing that a reader should know, the worst first.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for part in &self.missing {
            warnings.push(format!("not read: {part}"));
        }
        if self.no_facts {
            warnings.push(format!("not read: {NO_FACTS}"));
        }
        if let Some(states) = self.unsure_words() {
            warnings.push(format!("{states}, if there were any: {UNSURE}"));
        }
        if let Some(why) = &self.fell_back {
            warnings.push(format!(
                "read from /proc/net, because {why}: no tcp_info, cookies, queue limits or bound-inactive sockets"
            ));
        }
        for (protocol, why) in &self.from_proc {
            let (sockets, lost) = (protocol.sockets(), not_in_proc(*protocol));
            warnings.push(format!(
                "{sockets} read from /proc/net, because {why}: no {lost}"
            ));
        }
        if self.lost > 0 {
            warnings.push(format!(
                "the kernel dropped {} of its answers (ENOBUFS): sockets are missing",
                self.lost
            ));
        }
        if self.interrupted > 0 {
            warnings.push(
                "the socket table changed during the dump: rows may be missing or doubled"
                    .to_owned(),
            );
        }
        if self.undecoded > 0 {
            warnings.push(format!(
                "{} could not be decoded and {} left out",
                count(self.undecoded, "row"),
                was(self.undecoded)
            ));
        }
        if self.unknown_states > 0 {
            warnings.push(format!(
                "{} in a state unknown to linger",
                count(self.unknown_states, "socket")
            ));
        }
        if self.owners_hidden() {
            warnings.push(format!(
                "the holder of {} was not found: it came or went meanwhile, or is one of {} that could not be read (root, or CAP_SYS_PTRACE + CAP_DAC_READ_SEARCH, may)",
                count(self.unowned, "socket"),
                count(u64::from(self.unreadable_processes), "process")
            ));
        }
        if self.owners_outside() && !self.owners_hidden() {
            warnings.push(format!(
                "the holder of {} was not found: it came or went meanwhile, or is outside of this pid namespace",
                count(self.unowned, "socket")
            ));
        }
        if self.owners_timed_out {
            warnings.push(
                "the search for owners stopped at its deadline: owners are incomplete".to_owned(),
            );
        }
        warnings.extend_from_slice(&self.notes);
        warnings
    }

    /// The states of which it is not known whether they were asked for, as a part that is missing.
    fn unsure_words(&self) -> Option<String> {
        let states: Vec<String> = TcpState::SHOWN
            .iter()
            .filter(|state| self.unsure.contains(**state))
            .map(ToString::to_string)
            .collect();
        (!states.is_empty()).then(|| format!("not read: sockets in {}", states.join(", ")))
    }
}

/// What a table of `/proc/net` does not have of the protocol's sockets.
const fn not_in_proc(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Unix => "cookies, queues, peers or users",
        Protocol::Packet => "cookies, fanout groups, rings or memory",
        Protocol::Netlink => "cookies, peers, memory or groups above 32",
        Protocol::Sctp => "cookies, sctp_info or memory",
        _ => "cookies, interfaces or memory",
    }
}

/// What [`Coverage::no_facts`] says.
pub const NO_FACTS: &str = "settings and counters were not recorded";

/// Why nothing is known of the states of [`Coverage::unsure`].
pub const UNSURE: &str = "the file does not say which states ss was asked for";

fn was(n: u64) -> &'static str {
    if n == 1 { "was" } else { "were" }
}

fn count(n: u64, noun: &str) -> String {
    match (n, noun.ends_with('s')) {
        (1, _) => format!("1 {noun}"),
        (n, true) => format!("{n} {noun}es"),
        (n, false) => format!("{n} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gap_is_said_and_makes_the_view_partial() {
        let whole = Coverage::default();
        assert!(whole.complete() && whole.warnings().is_empty());
        let gaps = [
            Coverage {
                interrupted: 1,
                ..Coverage::default()
            },
            Coverage {
                lost: 1,
                ..Coverage::default()
            },
            Coverage {
                undecoded: 1,
                ..Coverage::default()
            },
            Coverage {
                missing: vec!["IPv6".into()],
                ..Coverage::default()
            },
            Coverage {
                unreadable_processes: 2,
                unowned: 1,
                ..Coverage::default()
            },
            Coverage {
                owners_timed_out: true,
                ..Coverage::default()
            },
            Coverage {
                nested_pids: true,
                unowned: 1,
                ..Coverage::default()
            },
            Coverage {
                unsure: StateSet::of(TcpState::Closing),
                ..Coverage::default()
            },
            Coverage {
                no_facts: true,
                ..Coverage::default()
            },
        ];
        for gap in gaps {
            assert!(!gap.complete(), "{gap:?}");
            assert_eq!(gap.warnings().len(), 1, "{gap:?}");
        }
        let hidden = Coverage {
            unreadable_processes: 2,
            ..Coverage::default()
        };
        assert!(hidden.complete(), "every socket has its holder");
        let inside = Coverage {
            nested_pids: true,
            ..Coverage::default()
        };
        assert!(inside.complete() && inside.warnings().is_empty());
        let fallback = Coverage {
            fell_back: Some("ENOENT".into()),
            ..Coverage::default()
        };
        assert!(fallback.complete() && fallback.warnings().len() == 1);
        let one = Coverage {
            from_proc: vec![(Protocol::Raw, "there is no raw_diag".into())],
            ..Coverage::default()
        };
        assert!(one.complete() && one.warnings()[0].starts_with("RAW sockets read from /proc"));
    }

    #[test]
    fn what_the_kernel_does_not_have_is_no_gap() {
        let absent = Coverage {
            absent: vec![Protocol::Sctp],
            ..Coverage::default()
        };
        let mut coverage = absent.clone();
        coverage.merge(absent);
        assert!(coverage.complete() && coverage.warnings().is_empty());
        let said = coverage.absences();
        assert!(said.len() == 1 && said[0].starts_with("this kernel has no SCTP"));
        assert!(!coverage.unseen(Protocol::Sctp));
        let gap = |part: &str| Coverage {
            missing: vec![part.to_owned()],
            ..Coverage::default()
        };
        assert!(gap("UDP-Lite sockets: no").unseen(Protocol::UdpLite));
        assert!(!gap("UDP-Lite sockets: no").unseen(Protocol::Udp));
        assert!(!gap("UDP over IPv6: no").unseen(Protocol::Udp));
    }

    #[test]
    fn notes_are_said_once_and_are_no_gap() {
        let mut noted = Coverage {
            notes: vec!["so it is".into()],
            ..Coverage::default()
        };
        noted.merge(noted.clone());
        assert!(noted.complete() && noted.warnings() == ["so it is"]);
    }

    #[test]
    fn of_states_that_may_not_have_been_asked_for_no_number_is_known() {
        let mut coverage = Coverage {
            unsure: StateSet::of(TcpState::Listen),
            ..Coverage::default()
        };
        coverage.merge(Coverage {
            unsure: StateSet::of(TcpState::TimeWait),
            ..Coverage::default()
        });
        assert!(coverage.sees(TcpState::CloseWait) && !coverage.sees(TcpState::Listen));
        assert_eq!(
            coverage.warnings(),
            [format!(
                "not read: sockets in LISTEN, TIME-WAIT, if there were any: {UNSURE}"
            )]
        );
    }
}
