//! What a reading does *not* know. Every output shows it.

use serde::{Deserialize, Serialize};

use super::state::TcpState;

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
}

impl Coverage {
    /// Whether everything that was asked for was seen. A fallback is complete: it is another way to see the same.
    pub fn complete(&self) -> bool {
        self.rows_complete()
            && !self.owners_hidden()
            && !self.owners_timed_out
            && !self.owners_outside()
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
        self.interrupted == 0 && self.lost == 0 && self.undecoded == 0 && self.missing.is_empty()
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
    }

    /// One sentence for each thing that a reader should know, the worst first.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for part in &self.missing {
            warnings.push(format!("not read: {part}"));
        }
        if let Some(why) = &self.fell_back {
            warnings.push(format!(
                "read from /proc/net, because {why}: no tcp_info, cookies, queue limits or bound-inactive sockets"
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
        warnings
    }
}

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
    }
}
