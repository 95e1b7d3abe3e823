//! What is different between two looks: at one machine at two times, or at two machines.

use super::finding::Finding;
use super::snapshot::Snapshot;
use super::socket::Socket;
use super::state::TcpState;
use super::unix::Local;

/// Why two looks cannot be of the same sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Apart {
    /// at different hosts, by their names
    Host,
    /// at different network namespaces, by the inodes of their files
    Namespace,
    /// at two runs of one machine, by `/proc/sys/kernel/random/boot_id`
    Boot,
    /// at two runs of one machine: the kernel's release is another one
    Kernel,
    /// this counter, which never goes back while a namespace lives, is lower in the later look
    Counter(String),
    /// cookies name one socket in one look and another one in the other: so many
    Cookies(u64),
}

impl Apart {
    /// The name in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Host => "other-host",
            Self::Namespace => "other-namespace",
            Self::Boot | Self::Kernel => "other-boot",
            Self::Counter(_) => "counters-began-again",
            Self::Cookies(_) => "cookies-began-again",
        }
    }
}

/// By what a socket of one look is known to be one of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// the kernel's own identity of the socket
    Cookie,
    /// protocol, addresses and inode, where a look has no cookies: a socket that was closed and opened again between the
    /// same ends may be taken for the first one while it has no inode
    Address,
    /// nothing: the looks are not of the same sockets
    Nothing,
}

impl By {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cookie => "cookie",
            Self::Address => "address",
            Self::Nothing => "none",
        }
    }
}

/// In what a socket has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct What {
    /// a listener was closed, and another one opened at its address
    pub reopened: bool,
    /// the state
    pub state: bool,
    /// a listener's limit of what waits for `accept`
    pub limit: bool,
    /// what waits in a queue
    pub queues: bool,
    /// who holds it; between machines, the names of the programs
    pub holders: bool,
}

impl What {
    /// Whether nothing has.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// The names in JSON of what has changed.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (self.reopened, "reopened"),
            (self.state, "state"),
            (self.limit, "limit"),
            (self.queues, "queues"),
            (self.holders, "owners"),
        ]
        .into_iter()
        .filter_map(|(is, name)| is.then_some(name))
    }
}

/// A socket in both looks.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'a> {
    /// as it was
    pub before: &'a Socket,
    /// as it is
    pub after: &'a Socket,
    /// in what they differ
    pub what: What,
}

/// Sockets of both looks, those first that ask for attention.
#[derive(Clone, Debug, Default)]
pub struct Changes<'a> {
    /// in the second look alone
    pub new: Vec<&'a Socket>,
    /// in the first look alone
    pub gone: Vec<&'a Socket>,
    /// in both, and different
    pub changed: Vec<Changed<'a>>,
    /// how many are in both, and as they were
    pub same: u64,
}

impl<'a> Changes<'a> {
    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.new.is_empty() && self.gone.is_empty() && self.changed.is_empty()
    }

    /// Keeps what fits, given as it was and as it is.
    pub fn retain(&mut self, fits: impl Fn(Option<&'a Socket>, Option<&'a Socket>) -> bool) {
        self.new.retain(|socket| fits(None, Some(socket)));
        self.gone.retain(|socket| fits(Some(socket), None));
        self.changed
            .retain(|both| fits(Some(both.before), Some(both.after)));
    }
}

/// UNIX sockets that listen under a name, in one look alone.
#[derive(Clone, Debug, Default)]
pub struct Locals<'a> {
    /// in the second look
    pub new: Vec<&'a Local>,
    /// in the first look
    pub gone: Vec<&'a Local>,
}

/// What a program holds in one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// its processes; none where it holds nothing
    pub pids: Vec<u32>,
    /// its TCP sockets
    pub sockets: u64,
    /// those per state, in the order of [`TcpState::SHOWN`]
    pub states: [u64; TcpState::SHOWN.len()],
}

/// A process, or the processes of one name that are not the same in both looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program<'a> {
    /// the name; hostile bytes
    pub comm: &'a str,
    /// what it held
    pub before: Holding,
    /// what it holds
    pub after: Holding,
}

impl Program<'_> {
    /// The states in which it holds another number, the largest difference first.
    pub fn states(&self) -> Vec<(TcpState, u64, u64)> {
        let numbers = self.before.states.iter().zip(&self.after.states);
        let mut states: Vec<_> = TcpState::SHOWN
            .into_iter()
            .zip(numbers)
            .filter(|(_, (before, after))| before != after)
            .map(|(state, (before, after))| (state, *before, *after))
            .collect();
        states.sort_by_key(|(_, before, after)| std::cmp::Reverse(before.abs_diff(*after)));
        states
    }

    /// The largest difference, of all its sockets or of those in one state.
    pub fn largest(&self) -> u64 {
        let states = self.before.states.iter().zip(&self.after.states);
        let states = states.map(|(before, after)| before.abs_diff(*after));
        states
            .fold(0, u64::max)
            .max(self.before.sockets.abs_diff(self.after.sockets))
    }
}

/// A sysctl whose text is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting<'a> {
    /// its path under `/proc/sys`
    pub path: &'a str,
    /// as it was
    pub before: &'a str,
    /// as it is
    pub after: &'a str,
}

/// A counter that has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter<'a> {
    /// as [`super::host::Facts::counters`] names it
    pub name: &'a str,
    /// as it was
    pub before: i64,
    /// as it is
    pub after: i64,
}

impl Counter<'_> {
    /// By how much it moved.
    pub const fn change(&self) -> i64 {
        self.after.saturating_sub(self.before)
    }
}

/// What is different between two looks.
#[derive(Clone, Debug)]
pub struct Diff<'a> {
    /// the look at what was
    pub before: &'a Snapshot,
    /// the look at what is
    pub after: &'a Snapshot,
    /// why they are not of the same sockets; empty if nothing says so
    pub apart: Vec<Apart>,
    /// by what sockets were compared
    pub by: By,
    /// TCP sockets per state in the order of [`TcpState::SHOWN`], and last those in states that are not known: before
    /// and after
    pub states: [(u64, u64); TcpState::SHOWN.len() + 1],
    /// UDP sockets before and after, where both looks have them
    pub udp: Option<(u64, u64)>,
    /// LISTEN sockets, and UDP sockets that wait for anybody at a port that is no ephemeral one
    pub listeners: Changes<'a>,
    /// listeners among UNIX sockets, where both looks have them
    pub locals: Option<Locals<'a>>,
    /// all other sockets
    pub sockets: Changes<'a>,
    /// who holds other numbers of TCP sockets, the largest differences first; `None` where a look has no owners
    pub programs: Option<Vec<Program<'a>>>,
    /// settings that both looks have, and that differ; `None` where a look has none
    pub settings: Option<Vec<Setting<'a>>>,
    /// counters that both looks have, and that differ; `None` where a look has none, or where they do not count the same
    pub counters: Option<Vec<Counter<'a>>>,
}

impl Diff<'_> {
    /// Milliseconds from the first look to the second; below 0 where that is the older one.
    pub fn elapsed_ms(&self) -> i64 {
        let elapsed = self.after.taken.duration_since(self.before.taken);
        i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
    }

    /// TCP sockets before and after.
    pub fn total(&self) -> (u64, u64) {
        let add = |sum: (u64, u64), n: &(u64, u64)| (sum.0 + n.0, sum.1 + n.1);
        self.states.iter().fold((0, 0), add)
    }

    /// How much of it a second would have, `None` where no time lies between the looks.
    pub fn per_second(&self, change: i64) -> Option<f64> {
        let ms = self.elapsed_ms();
        (ms > 0).then(|| change as f64 * 1000.0 / ms as f64)
    }
}

/// A finding that one look alone has.
#[derive(Clone, Copy, Debug)]
pub struct OneSided<'a> {
    /// the finding
    pub finding: &'a Finding,
    /// whether the detector could not tell in the other look, so that it may have been so there too
    pub untold: bool,
}

/// The findings of both looks, compared by detector and subject.
#[derive(Clone, Debug, Default)]
pub struct Findings<'a> {
    /// in the second look alone
    pub new: Vec<OneSided<'a>>,
    /// in the first look alone
    pub gone: Vec<OneSided<'a>>,
    /// in both, as it was and as it is
    pub kept: Vec<(&'a Finding, &'a Finding)>,
}

impl<'a> Findings<'a> {
    /// Those that are more severe than they were.
    pub fn worse(&self) -> impl Iterator<Item = (&'a Finding, &'a Finding)> {
        let kept = self.kept.iter().copied();
        kept.filter(|(before, after)| after.severity > before.severity)
    }

    /// Those that are less severe than they were.
    pub fn better(&self) -> impl Iterator<Item = (&'a Finding, &'a Finding)> {
        let kept = self.kept.iter().copied();
        kept.filter(|(before, after)| after.severity < before.severity)
    }

    /// Those that are as severe as they were.
    pub fn same(&self) -> impl Iterator<Item = (&'a Finding, &'a Finding)> {
        let kept = self.kept.iter().copied();
        kept.filter(|(before, after)| after.severity == before.severity)
    }

    /// Whether all is as it was.
    pub fn is_unchanged(&self) -> bool {
        self.new.is_empty()
            && self.gone.is_empty()
            && self.worse().next().is_none()
            && self.better().next().is_none()
    }
}
