//! Which process holds which socket, from `/proc/PID/fd`.
//!
//! One directory handle per process pins it: what is read through the handle is never of another process that got
//! the same number. Every failure is counted, none ends the search.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use rustc_hash::FxHashMap;
use rustix::fs::{CWD, RawDir, readlinkat_raw};
use rustix::io::Errno;

pub(super) use super::process::inode;
use super::process::{Ended, Reader, directory, number, pinned};
use crate::model::owner::Link;
use crate::model::{Collector, Coverage, Owners, Process};

/// What `getdents64` fills at a time; a thousand descriptors fit.
pub(super) const DIRECTORY_BUFFER: usize = 32 * 1024;

/// Descriptors between two looks at the clock.
const DEADLINE_STRIDE: u64 = 256;

/// Looks through the descriptors of every process under `proc_root` until `deadline`. Users are not named: see
/// [`name_users`].
pub fn read(proc_root: &Path, deadline: Option<Instant>) -> (Owners, Coverage) {
    let mut scan = Scan::new(deadline, false);
    scan.everything(proc_root);
    (Owners::new(scan.processes, scan.links), scan.coverage)
}

/// Gives every process the name of its uid, each looked up once. Only for this machine's own processes: the uids of
/// another root are of another user database. A look-up may ask the network (NSS), so none is begun after `deadline`.
pub fn name_users(owners: &mut Owners, deadline: Option<Instant>) {
    name_users_by(owners, |uid| user(uid, deadline));
}

/// The name of a user, as [`name_users`] looks it up.
pub(super) fn user(uid: u32, deadline: Option<Instant>) -> Option<String> {
    if passed(deadline) {
        return None;
    }
    let user = uzers::get_user_by_uid(uid)?;
    Some(user.name().to_string_lossy().into_owned())
}

pub(super) fn name_users_by(owners: &mut Owners, mut name: impl FnMut(u32) -> Option<String>) {
    let mut names = FxHashMap::default();
    for process in owners.processes_mut() {
        if let Some(uid) = process.uid {
            process.user = names.entry(uid).or_insert_with(|| name(uid)).clone();
        }
    }
}

pub(super) fn passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// Why a process tells nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// it ended
    Vanished,
    /// no privilege, or no resource left to open it with
    Unreadable,
    /// there is no time left to ask it
    TimedOut,
}

impl From<Errno> for Gap {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::SRCH => Self::Vanished,
            _ => Self::Unreadable,
        }
    }
}

impl From<Ended> for Gap {
    fn from(_: Ended) -> Self {
        Self::Vanished
    }
}

/// A walk through processes, and what it has found.
pub(super) struct Scan {
    /// those that hold sockets
    pub processes: Vec<Process>,
    /// of each of them when it began, in clock ticks since boot
    pub started: Vec<Option<u64>>,
    pub links: Vec<Link>,
    /// where asked for: descriptors of these processes that are no sockets, by the process's place
    pub plain: Vec<(u32, u32)>,
    /// processes that could not be read
    pub hidden: Vec<u32>,
    pub coverage: Coverage,
    deadline: Option<Instant>,
    with_plain: bool,
    /// what `getdents64` fills; its spare capacity alone is used
    descriptors: Vec<u8>,
    reader: Reader,
}

impl Scan {
    /// Nothing yet.
    pub fn new(deadline: Option<Instant>, with_plain: bool) -> Self {
        Self {
            processes: Vec::new(),
            started: Vec::new(),
            links: Vec::new(),
            plain: Vec::new(),
            hidden: Vec::new(),
            coverage: Coverage {
                collector: Collector::Procfs,
                owners_read: true,
                ..Coverage::default()
            },
            deadline,
            with_plain,
            descriptors: Vec::with_capacity(DIRECTORY_BUFFER),
            reader: Reader::default(),
        }
    }

    /// Walks through every process.
    pub fn everything(&mut self, proc_root: &Path) {
        if let Err(errno) = self.all(proc_root) {
            let part = format!("owners: {} ({errno})", proc_root.display());
            self.coverage.missing.push(part);
            self.coverage.owners_read = !self.processes.is_empty();
        }
    }

    fn all(&mut self, proc_root: &Path) -> Result<(), Errno> {
        let root = directory(CWD, proc_root)?;
        let mut entries = [MaybeUninit::uninit(); DIRECTORY_BUFFER];
        let mut entries = RawDir::new(&root, &mut entries);
        let mut init_seen = false;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let Some(pid) = number(entry.file_name().to_bytes()) else {
                continue;
            };
            init_seen |= pid == 1;
            if !self.one(root.as_fd(), entry.file_name(), pid) {
                return Ok(());
            }
        }
        // Every pid namespace has a process 1 (it is killed as a whole when that one ends). Where it is not listed,
        // `hidepid=2` hides other users' processes, nobody knows how many.
        if !init_seen && super::is_procfs(&root) {
            self.coverage.unreadable_processes += 1;
        }
        Ok(())
    }

    /// Looks into one process; `false` if there is no time left.
    pub fn one(&mut self, root: BorrowedFd<'_>, name: &CStr, pid: u32) -> bool {
        let found = if passed(self.deadline) {
            Err(Gap::TimedOut)
        } else {
            self.process(root, name, pid)
        };
        match found {
            Ok(()) => {}
            Err(Gap::Vanished) => self.coverage.vanished_processes += 1,
            Err(Gap::Unreadable) => {
                self.coverage.unreadable_processes += 1;
                self.hidden.push(pid);
            }
            Err(Gap::TimedOut) => self.coverage.owners_timed_out = true,
        }
        found != Err(Gap::TimedOut)
    }

    fn process(&mut self, root: BorrowedFd<'_>, name: &CStr, pid: u32) -> Result<(), Gap> {
        let process = pinned(root, name)?;
        let (before, holders) = (self.links.len(), self.processes.len());
        let before_plain = self.plain.len();
        let mut fds = 0;
        let seen = self.links_of(process.as_fd(), &mut fds);
        let found = match seen {
            Err(Gap::Vanished) => seen,
            _ if self.links.len() == before => seen,
            _ => match self.reader.details(process.as_fd(), pid) {
                Ok((mut details, started)) => {
                    // What was found before the gap counts; the number of descriptors does not.
                    details.fds = seen.is_ok().then_some(fds);
                    self.processes.push(details);
                    self.started.push(started);
                    seen
                }
                Err(ended) => Err(ended.into()),
            },
        };
        if self.processes.len() == holders {
            self.plain.truncate(before_plain);
        }
        match found {
            Err(Gap::Vanished) => {
                self.links.truncate(before);
                found
            }
            Err(Gap::Unreadable) if self.reader.holds_nothing(process.as_fd()) => Ok(()),
            _ => found,
        }
    }

    /// Notes the sockets of a process and counts its descriptors of any kind in `fds`, up to the first gap.
    fn links_of(&mut self, process: BorrowedFd<'_>, fds: &mut u64) -> Result<(), Gap> {
        let directory = directory(process, c"fd")?;
        let index = u32::try_from(self.processes.len()).unwrap_or(u32::MAX);
        let mut target = [0; 64];
        let mut entries = RawDir::new(&directory, self.descriptors.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let Some(fd) = number(entry.file_name().to_bytes()) else {
                continue;
            };
            *fds += 1;
            if fds.is_multiple_of(DEADLINE_STRIDE) && passed(self.deadline) {
                return Err(Gap::TimedOut);
            }
            match readlinkat_raw(&directory, entry.file_name(), &mut target[..]) {
                Ok(length) => {
                    if let Some(inode) =
                        inode(target.get(..length).unwrap_or_default(), b"socket:[")
                        && let Ok(inode) = u32::try_from(inode)
                    {
                        self.links.push(Link {
                            inode,
                            process: index,
                            fd,
                        });
                    } else if self.with_plain {
                        self.plain.push((index, fd));
                    }
                }
                // Closed since it was listed.
                Err(Errno::NOENT) => {}
                // CAP_DAC_READ_SEARCH lists the directory, following a link takes CAP_SYS_PTRACE as well.
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    fn fixture() -> (Owners, Coverage) {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/proc");
        read(Path::new(root), None)
    }

    /// A process with two sockets and a file.
    fn process(root: &Path, pid: u32, comm: &str, stat: &str) {
        let process = root.join(pid.to_string());
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::write(process.join("comm"), format!("{comm}\n")).unwrap();
        fs::write(process.join("stat"), stat).unwrap();
        for (fd, target) in [
            ("3", "socket:[50]"),
            ("4", "/dev/null"),
            ("17", "socket:[60]"),
        ] {
            symlink(target, process.join("fd").join(fd)).unwrap();
        }
    }

    #[test]
    fn the_fixture_has_its_processes_and_what_they_hold() {
        let (owners, coverage) = fixture();
        assert!(coverage.owners_read && coverage.complete(), "{coverage:?}");
        assert_eq!(coverage.collector, Collector::Procfs);
        let mut names: Vec<_> = owners.processes().iter().map(|p| p.comm.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["leaky", "served"]);
        for process in owners.processes() {
            assert!(process.fds.unwrap() > 2, "{process:?}");
            assert!(process.netns.is_some() && process.nofile.is_some());
            assert_eq!(process.user, None);
        }
    }

    #[test]
    fn one_socket_may_have_several_holders_and_files_are_none() {
        let root = tempfile::tempdir().unwrap();
        process(root.path(), 7, "a", "7 (a) S 1 1 1 0 -1 4194560 0");
        process(root.path(), 8, "b", "8 (b) T 1 1 1 0 -1 4194560 0");
        fs::create_dir(root.path().join("sys")).unwrap();
        let (owners, coverage) = read(root.path(), None);
        assert_eq!(
            (coverage.vanished_processes, coverage.unreadable_processes),
            (0, 0)
        );
        let mut holders: Vec<_> = owners.of(50).map(|(p, fd)| (p.pid, fd)).collect();
        holders.sort_unstable();
        assert_eq!(holders, [(7, 3), (8, 3)]);
        assert_eq!(owners.links().len(), 4);
        let stopped = owners.processes().iter().find(|p| p.pid == 8).unwrap();
        assert_eq!(stopped.run_state, Some('T'));
        assert_eq!(stopped.fds, Some(3), "descriptors of any kind");
        assert_eq!(
            (stopped.uid, stopped.nofile, stopped.netns),
            (None, None, None)
        );
    }

    #[test]
    fn a_name_cannot_forge_the_state() {
        let root = tempfile::tempdir().unwrap();
        let comm = "x) Z 1 (\u{1b}[31m";
        process(root.path(), 7, comm, &format!("7 ({comm}) D 1 1 1 0 -1 0"));
        let (owners, _) = read(root.path(), None);
        assert_eq!(owners.processes()[0].run_state, Some('D'));
        assert_eq!(owners.processes()[0].comm, comm);
    }

    #[test]
    fn a_name_that_is_not_utf8_is_kept_lossily() {
        let root = tempfile::tempdir().unwrap();
        process(root.path(), 7, "a", "7 (a) S 1");
        fs::write(root.path().join("7/comm"), b"\xffx\n\n").unwrap();
        let (owners, _) = read(root.path(), None);
        assert_eq!(owners.processes()[0].comm, "\u{fffd}x\n");
    }

    #[test]
    fn what_ended_is_vanished_and_holds_nothing() {
        let root = tempfile::tempdir().unwrap();
        process(root.path(), 7, "a", "7 (a) S 1");
        process(root.path(), 8, "b", "8 (b) S 1");
        fs::remove_file(root.path().join("7/stat")).unwrap();
        fs::create_dir(root.path().join("9")).unwrap();
        let (owners, coverage) = read(root.path(), None);
        assert_eq!(coverage.vanished_processes, 2);
        assert_eq!(coverage.unreadable_processes, 0);
        let pids: Vec<_> = owners.of(50).map(|(p, _)| p.pid).collect();
        assert_eq!(pids, [8]);
    }

    #[test]
    fn what_cannot_be_opened_is_unreadable_unless_it_holds_nothing() {
        let root = tempfile::tempdir().unwrap();
        for (pid, stat) in [
            ("7", "7 (a) S 1 1 1 0 -1 4194560 0"),
            ("8", "8 (kworker) I 2 0 0 0 -1 69238880 0"),
            ("9", "9 (dead) Z 1 1 1 0 -1 4194560 0"),
        ] {
            fs::create_dir(root.path().join(pid)).unwrap();
            // A file in the directory's place: ENOTDIR.
            fs::write(root.path().join(pid).join("fd"), "").unwrap();
            fs::write(root.path().join(pid).join("stat"), stat).unwrap();
        }
        let (owners, coverage) = read(root.path(), None);
        assert!(owners.is_empty());
        assert_eq!(coverage.unreadable_processes, 1);
        for (errno, gap) in [
            (Errno::ACCESS, Gap::Unreadable),
            (Errno::PERM, Gap::Unreadable),
            (Errno::MFILE, Gap::Unreadable),
            (Errno::SRCH, Gap::Vanished),
            (Errno::NOENT, Gap::Vanished),
        ] {
            assert_eq!(Gap::from(errno), gap, "{errno}");
        }
    }

    #[test]
    fn what_was_found_before_a_gap_counts() {
        let root = tempfile::tempdir().unwrap();
        process(root.path(), 7, "a", "7 (a) S 1");
        // No link: EINVAL, as EACCES would be without CAP_SYS_PTRACE.
        fs::write(root.path().join("7/fd/18"), "").unwrap();
        let (owners, coverage) = read(root.path(), None);
        assert_eq!(coverage.unreadable_processes, 1);
        for process in owners.processes() {
            assert_eq!((process.comm.as_str(), process.fds), ("a", None));
        }
        assert_eq!(owners.processes().is_empty(), owners.links().is_empty());
    }

    #[test]
    fn a_deadline_ends_the_search_and_is_said() {
        let past = Instant::now() - Duration::from_millis(1);
        let root = tempfile::tempdir().unwrap();
        process(root.path(), 7, "a", "7 (a) S 1");
        let (owners, coverage) = read(root.path(), Some(past));
        assert!(owners.is_empty() && coverage.owners_timed_out && coverage.owners_read);
        let future = Instant::now() + Duration::from_secs(60);
        let (owners, coverage) = read(root.path(), Some(future));
        assert!(!owners.is_empty() && !coverage.owners_timed_out);
    }

    #[test]
    fn a_root_that_is_not_there_is_missing() {
        let (owners, coverage) = read(Path::new("/nonexistent"), None);
        assert!(owners.is_empty() && !coverage.owners_read);
        assert_eq!(coverage.missing.len(), 1);
    }

    #[test]
    fn each_uid_is_looked_up_once() {
        let process = |pid, uid| Process {
            pid,
            uid,
            ..Process::default()
        };
        let mut owners = Owners::new(
            vec![
                process(1, Some(5)),
                process(2, Some(5)),
                process(3, Some(6)),
                process(4, None),
            ],
            Vec::new(),
        );
        let mut asked = Vec::new();
        name_users_by(&mut owners, |uid| {
            asked.push(uid);
            (uid == 5).then(|| "five".to_owned())
        });
        assert_eq!(asked, [5, 6]);
        let users: Vec<_> = owners
            .processes()
            .iter()
            .map(|p| p.user.as_deref())
            .collect();
        assert_eq!(users, [Some("five"), Some("five"), None, None]);
    }
}
