//! Who holds which socket, for a program that looks again and again: what was found is remembered, and only sockets
//! that are new are sought.
//!
//! A walk through all descriptors costs 3 to 4 us each. It is the first look, and is repeated when 30 s and 100 times its own
//! cost have passed, so that it takes at most a hundredth of a processor. Between two walks:
//!
//! * A socket that was in a table and is in none any more was closed, and so are its links. A process that ended, or
//!   whose number another one has, has no links.
//! * A socket that is in a table and has no link is sought in processes that are known to hold sockets and have more
//!   descriptors open than are known (`stat` of `/proc/PID/fd` tells how many, since Linux 6.2): first at the numbers
//!   that new descriptors likely have, then in the whole directory, of which only links are followed that are not known to
//!   be sockets (nor files, of a process that has many). Then in processes that are new, or that hold no sockets and have another number of descriptors than before.
//!   The search stops when all are found.
//! * What was not found and is still in a table at the next look is sought in every descriptor of the processes that
//!   hold sockets; that takes at most a hundredth of the time, too. After that it is nobody's (the kernel's, of a process
//!   that may not be read, of another pid namespace), and is not sought again before the next walk.
//!
//! So what only a walk finds is at most as old as the last one: a socket that was passed on, or inherited by a child,
//! while its first holder still has it or had it at the last look; on kernels before 6.2 also the first sockets of a
//! process that had none before. Links to sockets that are in no table at all (of other protocols, of other namespaces, or
//! never bound) are those of the last walk. What that could not read, or not in time, is said at every look.
//!
//! Of a process that holds sockets the number of descriptors is as of now (before Linux 6.2: of the last time that its
//! directory was read), its state (running, stopped, ...) too, where not more than 128 processes hold any, else of a few
//! looks ago; name, user, limit, control group and network namespace are up to some seconds old.

mod holder;
mod search;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};
use rustix::fs::{CWD, RawDir};
use rustix::io::Errno;

use self::holder::{Descriptor, Holder};
use self::search::{Search, Seen};
use super::owners::{DIRECTORY_BUFFER, Scan, name_users_by};
use super::process::{Ended, Reader, directory, number, pinned};
use crate::collect::Inodes;
use crate::model::{Coverage, Owners, Process};

/// Two walks are at least so far apart.
const WALK_APART: Duration = Duration::from_secs(30);
/// Walks, and thorough searches, are at least so many times their own cost apart.
const COST_APART: u32 = 100;
/// More states than this are not read in one look; each takes 8 us.
const MOST_STATES: usize = 128;
/// What is known of a process is read again when it is so old,
const DETAILS_AGE: Duration = Duration::from_secs(5);
/// but not of more processes in one look; each takes 40 us.
const MOST_DETAILS: usize = 32;

/// Something that was done and may be done again after a while.
#[derive(Clone, Copy, Debug)]
struct Spent {
    ended: Instant,
    took: Duration,
}

impl Spent {
    fn since(began: Instant) -> Self {
        let ended = Instant::now();
        let took = ended.saturating_duration_since(began);
        Self { ended, took }
    }

    fn is_due(&self, now: Instant, apart: Duration) -> bool {
        let apart = apart.max(self.took.saturating_mul(COST_APART));
        now.saturating_duration_since(self.ended) >= apart
    }
}

/// The owners as the last look found them.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    holders: BTreeMap<u32, Holder>,
    others: FxHashMap<u32, Seen>,
    /// processes that could not be read
    hidden: FxHashSet<u32>,
    /// sought once, and in every descriptor of the known holders not yet
    missed: Inodes,
    /// sought everywhere but in a walk
    nobodys: Inodes,
    /// of the last walk
    coverage: Coverage,
    /// the names of users, or that there is none
    users: FxHashMap<u32, Option<String>>,
    /// whether the kernel tells how many descriptors a process has open
    tells_number: bool,
    walked: Option<Spent>,
    thorough: Option<Spent>,
    walks: u64,
    readings: u64,
    walked_now: bool,
}

impl Remembered {
    /// How often all descriptors of all processes were read.
    pub const fn walks(&self) -> u64 {
        self.walks
    }

    /// How many directories of processes were read beside walks.
    pub const fn readings(&self) -> u64 {
        self.readings
    }

    /// Whether the last look read all descriptors of all processes.
    pub const fn walked_now(&self) -> bool {
        self.walked_now
    }

    /// The holders now, `listed` being the inodes that are in a table. A walk that is due ends at `deadline`, and so does a
    /// search.
    pub fn look(
        &mut self,
        proc_root: &Path,
        listed: &Inodes,
        deadline: Option<Instant>,
    ) -> (Owners, Coverage) {
        let now = Instant::now();
        let due = self.walked.is_none_or(|walk| walk.is_due(now, WALK_APART));
        let root = directory(CWD, proc_root);
        let (Ok(root), false) = (root, due) else {
            let owners = self.walk(proc_root, listed, deadline, now);
            return (owners, self.coverage.clone());
        };
        self.walked_now = false;
        self.check(root.as_fd(), listed, now);
        let owners = self.owners();
        let unknown = self.unknown(&owners, listed);
        self.nobodys.retain(|inode| listed.contains(inode));
        self.missed.retain(|inode| unknown.contains(inode));
        if unknown.is_empty() {
            return (owners, self.coverage.clone());
        }
        let mut search = Search::new(root.as_fd(), listed, unknown, deadline);
        search.holders(&mut self.holders, false);
        if !search.is_over() {
            self.seek_elsewhere(&mut search, now);
        }
        let again = search.unknown.iter().any(|one| self.missed.contains(one));
        let may = self.thorough;
        if !search.is_over() && again && may.is_none_or(|it| it.is_due(now, Duration::ZERO)) {
            let began = Instant::now();
            search.holders(&mut self.holders, true);
            self.thorough = Some(Spent::since(began));
            if !search.late {
                let missed = search.unknown.extract_if(|one| self.missed.contains(one));
                self.nobodys.extend(missed);
            }
        }
        self.readings += search.readings;
        let mut coverage = self.coverage.clone();
        coverage.owners_timed_out |= search.late;
        self.missed = search.unknown;
        (self.owners(), coverage)
    }

    /// Gives every process the name of its user, each looked up once, and again at a walk if there was none.
    pub fn name_users(&mut self, owners: &mut Owners, mut name: impl FnMut(u32) -> Option<String>) {
        let users = &mut self.users;
        name_users_by(owners, |uid| {
            users.entry(uid).or_insert_with(|| name(uid)).clone()
        });
    }

    fn owners(&mut self) -> Owners {
        let holders = self.holders.values_mut();
        let mut holders: Vec<&mut Holder> = holders.filter(|holder| holder.sockets() > 0).collect();
        let mut links = Vec::with_capacity(holders.iter().map(|holder| holder.sockets()).sum());
        for (index, holder) in (0u32..).zip(&mut holders) {
            links.extend(holder.links(index));
        }
        let processes = holders.iter().map(|holder| holder.process.clone());
        Owners::new(processes.collect(), links)
    }

    /// The inodes that are listed and have neither a holder nor been sought in vain.
    fn unknown(&self, owners: &Owners, listed: &Inodes) -> Inodes {
        let is_unknown =
            |inode: &u32| owners.links_of(*inode).is_empty() && !self.nobodys.contains(inode);
        listed.iter().copied().filter(is_unknown).collect()
    }

    /// Reads every descriptor of every process.
    fn walk(
        &mut self,
        proc_root: &Path,
        listed: &Inodes,
        deadline: Option<Instant>,
        began: Instant,
    ) -> Owners {
        // Before the walk: what a process opens behind its back makes another number of descriptors then.
        self.others.clear();
        if let Ok(root) = directory(CWD, proc_root) {
            for pid in pids(root.as_fd()) {
                if let Ok(seen) = Seen::of(root.as_fd(), pid) {
                    self.tells_number |= seen.open > 0;
                    self.others.insert(pid, seen);
                }
            }
        }
        let mut scan = Scan::new(deadline, true);
        scan.everything(proc_root);
        let before = std::mem::take(&mut self.holders);
        self.hidden = scan.hidden.iter().copied().collect();
        self.coverage = std::mem::take(&mut scan.coverage);
        self.adopt(scan, listed, began);
        for (pid, holder) in before {
            if let Some(again) = self.holders.get_mut(&pid) {
                again.gained = holder.gained;
            }
        }
        self.missed.clear();
        self.nobodys.clear();
        let owners = self.owners();
        self.nobodys = self.unknown(&owners, listed);
        self.users.retain(|_, name| name.is_some());
        self.walks += 1;
        self.walked_now = true;
        self.walked = Some(Spent::since(began));
        owners
    }

    /// Takes over what a scan found.
    fn adopt(&mut self, scan: Scan, listed: &Inodes, now: Instant) {
        let pids: Vec<u32> = scan.processes.iter().map(|process| process.pid).collect();
        for (process, started) in scan.processes.into_iter().zip(scan.started) {
            let pid = process.pid;
            let mut holder = Holder::new(process, started, now);
            if let Some(seen) = self.others.remove(&pid) {
                holder.directory = seen.directory;
            }
            self.holders.insert(pid, holder);
        }
        let links = scan.links.iter();
        let links = links.map(|link| (link.process, link.fd, Descriptor::Socket(link.inode)));
        let plain = scan.plain.iter();
        let plain = plain.map(|(process, fd)| (*process, *fd, Descriptor::Plain));
        for (index, fd, what) in links.chain(plain) {
            let pid = pids.get(index as usize);
            if let Some(holder) = pid.and_then(|pid| self.holders.get_mut(pid)) {
                holder.note(fd, what, listed);
            }
        }
    }

    /// Looks which of the processes are still there, and what has become of them and of their sockets.
    fn check(&mut self, root: BorrowedFd<'_>, listed: &Inodes, now: Instant) {
        let mut reader = Reader::default();
        let tells_number = &mut self.tells_number;
        self.holders.retain(|pid, holder| {
            let seen = match Seen::of(root, *pid) {
                Ok(seen) => seen,
                Err(Errno::NOENT | Errno::SRCH) => return false,
                Err(_) => return true,
            };
            if seen.directory != holder.directory {
                // Another process, or the kernel was short of memory and made the directory anew.
                let started = pinned(root, pid.to_string())
                    .ok()
                    .and_then(|process| reader.stat(process.as_fd()).ok().flatten())
                    .and_then(|stat| stat.started);
                if started.is_none() || started != holder.started {
                    return false;
                }
                holder.directory = seen.directory;
            }
            *tells_number |= seen.open > 0;
            holder.open = tells_number.then_some(seen.open);
            holder.process.fds = holder.open.or(holder.process.fds);
            if holder.open == Some(0) {
                holder.only(&FxHashSet::default());
            }
            holder.forget(listed);
            true
        });
        let old = now.checked_sub(DETAILS_AGE).unwrap_or(now);
        for pid in oldest(&self.holders, |holder| holder.detailed, old, MOST_DETAILS) {
            self.refresh(root, pid, |holder, process| {
                let (details, started) = reader.details(process, pid)?;
                let fds = holder.process.fds;
                holder.process = Process { fds, ..details };
                (holder.detailed, holder.stated) = (now, now);
                holder.is_still(started, holder.process.run_state)
            });
        }
        for pid in oldest(&self.holders, |holder| holder.stated, now, MOST_STATES) {
            self.refresh(root, pid, |holder, process| {
                holder.stated = now;
                let Some(stat) = reader.stat(process)? else {
                    return Ok(());
                };
                holder.process.run_state = Some(stat.state);
                holder.is_still(stat.started, Some(stat.state))
            });
        }
    }

    /// Reads again what is known of a process, which is dropped if it has ended.
    fn refresh(
        &mut self,
        root: BorrowedFd<'_>,
        pid: u32,
        read: impl FnOnce(&mut Holder, BorrowedFd<'_>) -> Result<(), Ended>,
    ) {
        let Some(holder) = self.holders.get_mut(&pid) else {
            return;
        };
        // Without the resources to open it the process is not gone.
        if let Ok(process) = pinned(root, pid.to_string())
            && read(holder, process.as_fd()).is_err()
        {
            self.holders.remove(&pid);
        }
    }

    /// Seeks in processes that are new, or hold no sockets and have changed.
    fn seek_elsewhere(&mut self, search: &mut Search<'_>, now: Instant) {
        let root = search.root;
        let mut there = FxHashSet::default();
        let mut scan = Scan::new(search.deadline, true);
        for pid in pids(root) {
            there.insert(pid);
            if self.holders.contains_key(&pid) {
                continue;
            }
            let Ok(seen) = Seen::of(root, pid) else {
                continue;
            };
            let before = self.others.insert(pid, seen);
            let same = before.is_some_and(|before| before.directory == seen.directory);
            if before == Some(seen) || (same && self.hidden.contains(&pid)) {
                continue;
            }
            let Ok(name) = CString::new(pid.to_string()) else {
                continue;
            };
            search.readings += 1;
            let links = scan.links.len();
            if !scan.one(root, &name, pid) {
                search.late = true;
                self.others.remove(&pid);
                break;
            }
            for link in scan.links.get(links..).unwrap_or_default() {
                search.unknown.remove(&link.inode);
            }
            if search.unknown.is_empty() {
                break;
            }
        }
        if !search.is_over() {
            self.others.retain(|pid, _| there.contains(pid));
            self.hidden.retain(|pid| there.contains(pid));
        }
        for pid in scan.hidden.drain(..) {
            if self.hidden.insert(pid) {
                self.coverage.unreadable_processes += 1;
            }
        }
        self.adopt(scan, search.listed, now);
    }
}

/// The holders of whom something was read before `old`, and of more than `most` those of whom it was read longest ago.
fn oldest(
    holders: &BTreeMap<u32, Holder>,
    read: impl Fn(&Holder) -> Instant,
    old: Instant,
    most: usize,
) -> Vec<u32> {
    let mut by_age: Vec<(Instant, u32)> = holders
        .iter()
        .map(|(pid, holder)| (read(holder), *pid))
        .filter(|(read, _)| *read < old)
        .collect();
    if by_age.len() > most {
        by_age.sort_unstable();
        by_age.truncate(most);
    }
    by_age.into_iter().map(|(_, pid)| pid).collect()
}

/// The processes that are there.
fn pids(root: BorrowedFd<'_>) -> Vec<u32> {
    let mut pids = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); DIRECTORY_BUFFER];
    // Opened anew: a directory is read once.
    if let Ok(entries) = directory(root, c".") {
        let mut entries = RawDir::new(&entries, &mut buffer);
        while let Some(Ok(entry)) = entries.next() {
            pids.extend(number(entry.file_name().to_bytes()));
        }
    }
    pids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Process;

    #[test]
    fn what_costs_much_is_done_seldom() {
        let ended = Instant::now();
        let spent = |took| Spent {
            ended,
            took: Duration::from_millis(took),
        };
        let due = |took, after| {
            let now = ended + Duration::from_millis(after);
            spent(took).is_due(now, WALK_APART)
        };
        assert!(!due(32, 29_999) && due(32, 30_000), "half a minute");
        assert!(!due(500, 49_999) && due(500, 50_000), "100 times the cost");
    }

    #[test]
    fn of_many_processes_those_are_read_again_that_waited_longest() {
        let now = Instant::now();
        let before = |seconds| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        let holder = |(pid, seconds)| (pid, Holder::new(Process::default(), None, before(seconds)));
        let holders: BTreeMap<u32, Holder> = [(1, 0), (2, 7), (3, 1), (4, 9)]
            .map(holder)
            .into_iter()
            .collect();
        let oldest = |old, most| oldest(&holders, |holder| holder.stated, old, most);
        assert_eq!(oldest(now, 9), [2, 3, 4], "one was read just now");
        assert_eq!(oldest(now, 2), [4, 2]);
        assert_eq!(oldest(before(5), 9), [2, 4]);
    }

    #[test]
    fn what_is_known_or_was_sought_in_vain_is_not_sought() {
        let listed: Inodes = [30, 40, 50, 60].into_iter().collect();
        let mut remembered = Remembered::default();
        let mut holder = Holder::new(Process::default(), None, Instant::now());
        holder.note(3, Descriptor::Socket(30), &listed);
        holder.note(4, Descriptor::Socket(70), &listed);
        remembered.holders.insert(7, holder);
        remembered.nobodys.insert(40);
        let owners = remembered.owners();
        let unknown = remembered.unknown(&owners, &listed);
        let mut unknown: Vec<u32> = unknown.into_iter().collect();
        unknown.sort_unstable();
        assert_eq!(unknown, [50, 60]);
    }

    #[test]
    fn a_user_is_asked_for_once() {
        let process = |uid| Process {
            uid: Some(uid),
            ..Process::default()
        };
        let mut remembered = Remembered::default();
        let mut asked = Vec::new();
        for _ in 0..2 {
            let mut owners = Owners::new(vec![process(5), process(6), process(5)], Vec::new());
            remembered.name_users(&mut owners, |uid| {
                asked.push(uid);
                (uid == 5).then(|| "five".to_owned())
            });
            let users = owners.processes().iter().map(|one| one.user.as_deref());
            assert!(users.eq([Some("five"), None, Some("five")]));
        }
        assert_eq!(asked, [5, 6]);
    }

    #[test]
    fn a_root_that_is_not_there_is_missing() {
        let mut remembered = Remembered::default();
        let nowhere = Path::new("/nonexistent");
        let (owners, coverage) = remembered.look(nowhere, &Inodes::default(), None);
        assert!(owners.is_empty() && !coverage.owners_read);
        assert_eq!(coverage.missing.len(), 1);
    }
}
