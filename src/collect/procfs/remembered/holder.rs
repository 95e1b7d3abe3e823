//! One process that holds sockets: which of its descriptors are known to be what, and which are worth a look.

use std::collections::BTreeSet;
use std::time::Instant;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::collect::Inodes;
use crate::collect::procfs::process::Ended;
use crate::model::Process;
use crate::model::owner::Link;

/// So many files of a process are followed again in any search: a socket may have taken the number of one.
const FEW_PLAIN: usize = 256;
/// Numbers in a row that turned out to be free, after which the rest of those that were freed are not tried.
const FREE_AGAIN: usize = 32;
/// The same of numbers above all that were in use.
const FREE_ABOVE: usize = 4;

/// A socket behind a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    inode: u32,
    /// whether a table has shown it: if none does any more it was closed
    listed: bool,
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// the socket with this inode
    Socket(u32),
    /// a file, a pipe, ...
    Plain,
    /// not in use
    Free,
}

/// A process that holds sockets, or did a moment ago.
#[derive(Clone, Debug)]
pub struct Holder {
    /// what is known of it
    pub process: Process,
    /// the inode of its `fd` directory: while that is the same it is the same process
    pub directory: u64,
    /// when it began, in clock ticks since boot
    pub started: Option<u64>,
    /// how many descriptors it has open now, where the kernel tells that
    pub open: Option<u64>,
    /// how many sockets were found when it was looked into last
    pub gained: usize,
    /// when its state was read
    pub stated: Instant,
    /// when the rest of what is known of it was read
    pub detailed: Instant,
    sockets: FxHashMap<u32, Held>,
    /// inode and descriptor of each of them, sorted; empty if they have changed since
    sorted: Vec<(u32, u32)>,
    plain: FxHashSet<u32>,
    /// numbers that sockets had which were closed: `open` takes the lowest free one
    freed: BTreeSet<u32>,
    /// above all numbers that are known to be in use
    next: u32,
}

impl Holder {
    /// A process of whose descriptors nothing is known.
    pub fn new(process: Process, started: Option<u64>, now: Instant) -> Self {
        Self {
            process,
            directory: 0,
            started,
            open: None,
            gained: 0,
            stated: now,
            detailed: now,
            sockets: FxHashMap::default(),
            sorted: Vec::new(),
            plain: FxHashSet::default(),
            freed: BTreeSet::new(),
            next: 0,
        }
    }

    /// Whether a process that began then and is in that state can be this one, and hold anything.
    pub fn is_still(&self, started: Option<u64>, state: Option<char>) -> Result<(), Ended> {
        if started != self.started || matches!(state, Some('Z' | 'X')) {
            return Err(Ended);
        }
        Ok(())
    }

    /// Notes what a descriptor is, `listed` being the inodes that are in a table.
    pub fn note(&mut self, fd: u32, what: Descriptor, listed: &Inodes) {
        if what == Descriptor::Free {
            let socket = self.sockets.remove(&fd).is_some();
            if socket {
                self.sorted.clear();
            }
            if socket || self.plain.remove(&fd) {
                self.freed.insert(fd);
            }
            return;
        }
        self.sorted.clear();
        self.freed.remove(&fd);
        self.next = self.next.max(fd.saturating_add(1));
        match what {
            Descriptor::Socket(inode) => {
                let listed = listed.contains(&inode);
                self.plain.remove(&fd);
                self.sockets.insert(fd, Held { inode, listed });
            }
            _ => {
                self.sockets.remove(&fd);
                self.plain.insert(fd);
            }
        }
    }

    /// Drops the sockets that were in a table and are in none any more. Those that never were stay: nothing is known of
    /// their end.
    pub fn forget(&mut self, listed: &Inodes) {
        let before = self.sockets.len();
        let freed = &mut self.freed;
        self.sockets.retain(|fd, held| {
            let now = listed.contains(&held.inode);
            let kept = now || !held.listed;
            held.listed |= now;
            if !kept {
                freed.insert(*fd);
            }
            kept
        });
        if self.sockets.len() != before {
            self.sorted.clear();
        }
    }

    /// Drops every descriptor that is not `open`, which has all that are.
    pub fn only(&mut self, open: &FxHashSet<u32>) {
        self.sorted.clear();
        let freed = &mut self.freed;
        self.sockets.retain(|fd, _| {
            let kept = open.contains(fd);
            if !kept {
                freed.insert(*fd);
            }
            kept
        });
        self.plain.retain(|fd| open.contains(fd));
        self.next = open.iter().max().map_or(0, |fd| fd.saturating_add(1));
        self.freed.retain(|fd| !open.contains(fd));
    }

    /// Whether it is known what every one of its open descriptors is. It may be wrong: if a file was closed and a socket
    /// took its number, their number is the same.
    pub fn is_explained(&self) -> bool {
        self.open == u64::try_from(self.sockets.len() + self.plain.len()).ok()
    }

    /// Whether the descriptor has to be followed to know what it is: one that is a listed socket has not, and where there
    /// are many plain ones they have only if the search is `thorough`.
    pub fn is_open_question(&self, fd: u32, thorough: bool) -> bool {
        let listed = self.sockets.get(&fd).is_some_and(|held| held.listed);
        let thorough = thorough || self.plain.len() <= FEW_PLAIN;
        !listed && (thorough || !self.plain.contains(&fd))
    }

    /// Tries the numbers that new descriptors most likely have, until `enough`: those that were freed, the lowest first,
    /// and then those above all others, because the kernel gives the lowest that is free (`open(2)`). `follow` says what
    /// is there, or `None` if the process does not let itself be looked into.
    pub fn guess(
        &mut self,
        listed: &Inodes,
        mut follow: impl FnMut(u32) -> Option<Descriptor>,
        mut enough: impl FnMut(&Self) -> bool,
    ) -> Option<()> {
        let freed: Vec<u32> = self.freed.iter().copied().collect();
        let mut free = 0;
        for fd in freed {
            if free == FREE_AGAIN || enough(self) {
                break;
            }
            let what = follow(fd)?;
            free = if what == Descriptor::Free {
                free + 1
            } else {
                0
            };
            self.note(fd, what, listed);
        }
        let (mut fd, mut free) = (self.next, 0);
        while free < FREE_ABOVE && !enough(self) {
            let what = follow(fd)?;
            free = if what == Descriptor::Free {
                free + 1
            } else {
                0
            };
            self.note(fd, what, listed);
            fd = fd.checked_add(1)?;
        }
        Some(())
    }

    /// How many sockets it holds.
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Its links in order, as those of the process at the index. Sorting takes longer than the rest of a look, so what has
    /// not changed is not sorted again.
    pub fn links(&mut self, process: u32) -> impl Iterator<Item = Link> {
        if self.sorted.is_empty() {
            let sockets = self.sockets.iter();
            self.sorted
                .extend(sockets.map(|(fd, held)| (held.inode, *fd)));
            self.sorted.sort_unstable();
        }
        self.sorted.iter().map(move |(inode, fd)| Link {
            inode: *inode,
            process,
            fd: *fd,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(inodes: &[u32]) -> Inodes {
        inodes.iter().copied().collect()
    }

    /// Descriptors 0 to 2 are plain; 3 and 4 are the sockets 30 and 40.
    fn holder(tables: &Inodes) -> Holder {
        let mut holder = Holder::new(Process::default(), None, Instant::now());
        for fd in 0..3 {
            holder.note(fd, Descriptor::Plain, tables);
        }
        holder.note(3, Descriptor::Socket(30), tables);
        holder.note(4, Descriptor::Socket(40), tables);
        holder
    }

    fn held(holder: &mut Holder) -> Vec<(u32, u32)> {
        let mut held: Vec<_> = holder.links(0).map(|link| (link.fd, link.inode)).collect();
        held.sort_unstable();
        held
    }

    #[test]
    fn what_left_the_tables_is_dropped_and_what_was_in_none_is_not() {
        let mut holder = holder(&listed(&[30]));
        holder.forget(&listed(&[30]));
        assert_eq!(held(&mut holder), [(3, 30), (4, 40)]);
        holder.forget(&listed(&[40]));
        assert_eq!(held(&mut holder), [(4, 40)], "30 was listed, 40 is now");
        holder.forget(&listed(&[]));
        assert_eq!(held(&mut holder), []);
    }

    #[test]
    fn the_numbers_that_open_takes_are_guessed() {
        let tables = listed(&[30, 40, 50, 60]);
        let mut holder = holder(&tables);
        holder.forget(&listed(&[40]));
        holder.open = Some(6);
        assert!(!holder.is_explained());
        let mut asked = Vec::new();
        let answer = holder.guess(
            &tables,
            |fd| {
                asked.push(fd);
                Some(match fd {
                    3 => Descriptor::Socket(50),
                    5 => Descriptor::Socket(60),
                    _ => Descriptor::Free,
                })
            },
            Holder::is_explained,
        );
        assert_eq!(answer, Some(()));
        assert_eq!(
            asked,
            [3, 5],
            "the freed one, then the one above, and no more"
        );
        assert_eq!(held(&mut holder), [(3, 50), (4, 40), (5, 60)]);
    }

    #[test]
    fn guesses_end_where_nothing_is() {
        let tables = listed(&[30, 40]);
        let mut holder = holder(&tables);
        let mut asked = 0;
        let mut nothing = |_| {
            asked += 1;
            Some(Descriptor::Free)
        };
        holder.guess(&tables, &mut nothing, |_| false);
        assert_eq!(asked, FREE_ABOVE);
        for fd in 100..200 {
            holder.note(fd, Descriptor::Socket(fd), &listed(&[fd]));
        }
        holder.forget(&tables);
        asked = 0;
        let mut nothing = |_| {
            asked += 1;
            Some(Descriptor::Free)
        };
        holder.guess(&tables, &mut nothing, |_| false);
        assert_eq!(asked, FREE_AGAIN + FREE_ABOVE);
        assert_eq!(holder.guess(&tables, |_| None, |_| false), None, "denied");
    }

    #[test]
    fn only_open_questions_are_followed() {
        let mut holder = holder(&listed(&[30]));
        let asked = |holder: &Holder, thorough| -> Vec<u32> {
            let all = 0..6;
            all.filter(|fd| holder.is_open_question(*fd, thorough))
                .collect()
        };
        assert_eq!(asked(&holder, false), [0, 1, 2, 4, 5], "not the listed one");
        for fd in 100..400 {
            holder.note(fd, Descriptor::Plain, &listed(&[]));
        }
        let new = asked(&holder, false);
        assert_eq!(new, [4, 5], "a socket in no table, and a new one");
        assert_eq!(asked(&holder, true), [0, 1, 2, 4, 5]);
    }

    #[test]
    fn a_list_of_what_is_open_closes_the_rest() {
        let mut holder = holder(&listed(&[30, 40]));
        holder.only(&[0, 1, 3].into_iter().collect());
        assert_eq!(held(&mut holder), [(3, 30)]);
        holder.open = Some(3);
        assert!(holder.is_explained());
        holder.open = None;
        assert!(!holder.is_explained(), "an old kernel does not tell");
        let mut asked = Vec::new();
        holder.guess(
            &listed(&[]),
            |fd| {
                asked.push(fd);
                Some(Descriptor::Free)
            },
            |_| false,
        );
        assert_eq!(asked, [4, 4, 5, 6, 7], "freed, and above the highest");
    }
}
