//! Who holds a socket: processes, and the descriptors by which they hold it.

use serde::{Deserialize, Serialize};

use super::container::{Container, container_of};
use super::coverage::Coverage;

/// A process that holds at least one socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// process id, as the reader's `/proc` shows it
    pub pid: u32,
    /// the name that it gave itself (`/proc/PID/comm`): hostile bytes, made UTF-8 lossily, not yet made safe to print
    pub comm: String,
    /// effective uid
    pub uid: Option<u32>,
    /// the uid's name
    pub user: Option<String>,
    /// open descriptors of any kind
    pub fds: Option<u64>,
    /// soft `RLIMIT_NOFILE`; `u64::MAX` is unlimited
    pub nofile: Option<u64>,
    /// its cgroup's path, of the v2 hierarchy or else systemd's named one
    pub cgroup: Option<String>,
    /// the inode of its network namespace
    pub netns: Option<u64>,
    /// the letter of `/proc/PID/stat` (`R`, `S`, `D`, `T`, ...)
    pub run_state: Option<char>,
}

impl Process {
    /// The systemd unit (service, scope, socket) that the cgroup path names, the innermost one.
    pub fn unit(&self) -> Option<&str> {
        unit_of(self.cgroup.as_deref()?)
    }

    /// The container that the cgroup path names.
    pub fn container(&self) -> Option<Container<'_>> {
        container_of(self.cgroup.as_deref()?)
    }
}

/// The systemd unit that a cgroup path names, the innermost one.
pub fn unit_of(cgroup: &str) -> Option<&str> {
    cgroup.rsplit('/').find(|part| {
        [".service", ".scope", ".socket", ".mount", ".swap"]
            .iter()
            .any(|suffix| part.ends_with(suffix))
    })
}

/// One descriptor of one process that refers to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(u32, u32, u32)", into = "(u32, u32, u32)")]
pub struct Link {
    /// the socket's inode
    pub inode: u32,
    /// index into [`Owners::processes`]
    pub process: u32,
    /// the descriptor's number
    pub fd: u32,
}

// There are as many as sockets: in a capture each is three bare numbers.
impl From<(u32, u32, u32)> for Link {
    fn from((inode, process, fd): (u32, u32, u32)) -> Self {
        Self { inode, process, fd }
    }
}

impl From<Link> for (u32, u32, u32) {
    fn from(link: Link) -> Self {
        (link.inode, link.process, link.fd)
    }
}

/// Why a holder may be there that was not seen; of several reasons the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unseen {
    /// every process was looked into
    #[default]
    Nobody,
    /// some processes may not be looked into
    NotPermitted,
    /// the search stopped at its deadline
    TimedOut,
    /// processes outside of the reader's pid namespace are not listed
    OtherPidNamespace,
}

impl Unseen {
    /// What a search with this coverage may have missed.
    pub const fn by(coverage: &Coverage) -> Self {
        if coverage.unreadable_processes > 0 {
            Self::NotPermitted
        } else if coverage.owners_timed_out {
            Self::TimedOut
        } else if coverage.nested_pids {
            Self::OtherPidNamespace
        } else {
            Self::Nobody
        }
    }
}

/// Every socket's holders. Several processes hold one socket after `fork`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, from = "Listed")]
pub struct Owners {
    processes: Vec<Process>,
    links: Vec<Link>,
    /// what the coverage says, for those who ask about one socket
    #[serde(skip)]
    unseen: Unseen,
    /// where to begin to look for an inode
    #[serde(skip)]
    starts: Starts,
}

/// The owners as a capture has them.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Listed {
    processes: Vec<Process>,
    links: Vec<Link>,
}

impl From<Listed> for Owners {
    fn from(Listed { processes, links }: Listed) -> Self {
        Self::new(processes, links)
    }
}

/// Where in a sorted list of links those of an inode may be: the inodes in so many equal parts, and where each part begins.
/// Inodes of sockets are given out one after the other, so a part holds a few links, and a look-up touches one or two lines
/// of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Starts {
    lowest: u32,
    shift: u32,
    starts: Vec<u32>,
}

/// Links to a part, about.
const PART: usize = 8;

impl Starts {
    fn new(links: &[Link]) -> Self {
        let (Some(first), Some(last)) = (links.first(), links.last()) else {
            return Self::default();
        };
        let lowest = first.inode;
        let range = last.inode - lowest;
        // Two at least: of them any range is a part of the largest shift.
        let parts = u32::try_from(links.len() / PART + 2).unwrap_or(u32::MAX);
        let shift = (0..u32::BITS)
            .find(|shift| range >> shift < parts)
            .unwrap_or(u32::BITS - 1);
        let mut starts = Vec::with_capacity((range >> shift) as usize + 2);
        for (at, link) in (0u32..).zip(links) {
            let part = ((link.inode - lowest) >> shift) as usize;
            while starts.len() <= part {
                starts.push(at);
            }
        }
        starts.push(u32::try_from(links.len()).unwrap_or(u32::MAX));
        Self {
            lowest,
            shift,
            starts,
        }
    }

    /// The places among which the links of an inode are, if there are any.
    fn of(&self, inode: u32) -> Option<std::ops::Range<usize>> {
        let part = (inode.checked_sub(self.lowest)? >> self.shift) as usize;
        let start = *self.starts.get(part)?;
        let end = *self.starts.get(part + 1)?;
        Some(start as usize..end as usize)
    }
}

impl Owners {
    /// Puts the processes and links in the order that look-ups need; links to no process are dropped.
    pub fn new(processes: Vec<Process>, mut links: Vec<Link>) -> Self {
        links.retain(|link| (link.process as usize) < processes.len());
        // The links of each process are in order as a rule, and this finds such runs.
        links.sort();
        Self {
            processes,
            starts: Starts::new(&links),
            links,
            unseen: Unseen::Nobody,
        }
    }

    /// The same, with what the search for them may have missed.
    #[must_use]
    pub const fn searched(mut self, coverage: &Coverage) -> Self {
        self.unseen = Unseen::by(coverage);
        self
    }

    /// Why a holder may be there that is not here.
    pub const fn unseen(&self) -> Unseen {
        self.unseen
    }

    /// The holders of the sockets whose inode fits, and nobody else.
    #[must_use]
    pub fn only(&self, fits: impl Fn(u32) -> bool) -> Self {
        let kept = || self.links.iter().filter(|link| fits(link.inode));
        let mut old: Vec<u32> = kept().map(|link| link.process).collect();
        old.sort_unstable();
        old.dedup();
        let processes = old.iter().filter_map(|at| self.process(*at).cloned());
        let links = kept().filter_map(|link| {
            let process = u32::try_from(old.binary_search(&link.process).ok()?).ok()?;
            Some(Link { process, ..*link })
        });
        Self::new(processes.collect(), links.collect())
    }

    /// All processes that hold a socket.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// The processes, to complete what is known of each.
    pub fn processes_mut(&mut self) -> &mut [Process] {
        &mut self.processes
    }

    /// All links, by inode.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The links of the socket with `inode`; none for inode 0.
    pub fn links_of(&self, inode: u32) -> &[Link] {
        if inode == 0 {
            return &[];
        }
        let part = self.starts.of(inode).unwrap_or_default();
        let part = self.links.get(part).unwrap_or_default();
        let start = part.partition_point(|link| link.inode < inode);
        let rest = part.get(start..).unwrap_or_default();
        // Few, and one behind the other.
        let count = rest.iter().take_while(|link| link.inode == inode).count();
        rest.get(..count).unwrap_or_default()
    }

    /// Holders of the socket with `inode`: process and descriptor.
    pub fn of(&self, inode: u32) -> impl Iterator<Item = (&Process, u32)> {
        self.links_of(inode)
            .iter()
            .filter_map(|link| Some((self.process(link.process)?, link.fd)))
    }

    /// The process at `index`.
    pub fn process(&self, index: u32) -> Option<&Process> {
        self.processes.get(index as usize)
    }

    /// Whether nobody holds anything, or nothing was read.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_socket_has_every_holder() {
        let process = |pid| Process {
            pid,
            ..Process::default()
        };
        let link = |inode, process, fd| Link { inode, process, fd };
        let owners = Owners::new(
            vec![process(7), process(8)],
            vec![
                link(50, 1, 4),
                link(40, 0, 3),
                link(50, 0, 4),
                link(60, 9, 1),
            ],
        );
        let of = |inode| {
            owners
                .of(inode)
                .map(|(process, fd)| (process.pid, fd))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(50), [(7, 4), (8, 4)]);
        assert_eq!(of(40), [(7, 3)]);
        assert_eq!(of(0), []);
        assert_eq!(of(60), [], "a link to no process is dropped");
        let only = owners.only(|inode| inode == 50);
        let pids: Vec<u32> = only.processes().iter().map(|process| process.pid).collect();
        assert_eq!((&pids[..], only.links().len()), (&[7, 8][..], 2));
        assert!(only.links().iter().all(|link| link.inode == 50));
        let seven = owners.only(|inode| inode == 40);
        assert_eq!(
            seven
                .of(40)
                .map(|(process, fd)| (process.pid, fd))
                .collect::<Vec<_>>(),
            [(7, 3)]
        );
        assert_eq!(seven.processes().len(), 1);
    }

    #[test]
    fn links_are_found_wherever_they_are() {
        use proptest::prelude::*;
        let inode = prop_oneof![1u32..60, 1000u32..1100, any::<u32>()];
        proptest!(|(inodes in prop::collection::vec(inode, 0..80), other in any::<u32>())| {
            let links = (0u32..).zip(&inodes).map(|(fd, inode)| Link { inode: *inode, process: 0, fd });
            let owners = Owners::new(vec![Process::default()], links.collect());
            for one in inodes.iter().copied().chain([other, 1, u32::MAX]) {
                let count = inodes.iter().filter(|inode| **inode == one && one != 0).count();
                let found = owners.links_of(one);
                prop_assert!(found.len() == count && found.iter().all(|link| link.inode == one));
            }
        });
    }

    #[test]
    fn the_unit_is_the_innermost_one() {
        let unit = |path: &str| {
            Process {
                cgroup: Some(path.into()),
                ..Process::default()
            }
            .unit()
            .map(str::to_owned)
        };
        assert_eq!(
            unit("/system.slice/nginx.service"),
            Some("nginx.service".into())
        );
        assert_eq!(
            unit("/user.slice/user-1000.slice/user@1000.service/app.slice/db.service/worker"),
            Some("db.service".into())
        );
        assert_eq!(unit("/"), None);
    }
}
