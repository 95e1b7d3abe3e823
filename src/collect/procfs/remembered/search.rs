//! Where sockets are sought whose holder is not known.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustc_hash::FxHashSet;
use rustix::fs::{AtFlags, RawDir, readlinkat_raw, statat};
use rustix::io::Errno;

use super::holder::{Descriptor, Holder};
use crate::collect::Inodes;
use crate::collect::procfs::owners::{DIRECTORY_BUFFER, inode, passed};
use crate::collect::procfs::process::{directory, number, pinned};

/// What tells whether a process that holds no sockets may hold some by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// the inode of its `fd` directory: another process has another one
    pub directory: u64,
    /// how many descriptors; 0 also where the kernel does not tell
    pub open: u64,
}

impl Seen {
    /// Asks of one process, with a single call.
    pub fn of(root: BorrowedFd<'_>, pid: u32) -> Result<Self, Errno> {
        let stat = statat(root, format!("{pid}/fd"), AtFlags::empty())?;
        Ok(Self {
            directory: stat.st_ino,
            // The size of the directory (`proc_fd_getattr` in `fs/proc/fd.c`).
            open: u64::try_from(stat.st_size).unwrap_or_default(),
        })
    }
}

/// A search among the processes.
pub struct Search<'a> {
    /// where they have their directories
    pub root: BorrowedFd<'a>,
    /// the inodes that are in a table
    pub listed: &'a Inodes,
    /// those of them whose holder is sought
    pub unknown: Inodes,
    /// when it ends in any case
    pub deadline: Option<Instant>,
    /// whether it did
    pub late: bool,
    /// how many directories of processes were read
    pub readings: u64,
    /// what `getdents64` fills; its spare capacity alone is used
    entries: Vec<u8>,
}

impl<'a> Search<'a> {
    /// Nothing has been looked into yet.
    pub fn new(
        root: BorrowedFd<'a>,
        listed: &'a Inodes,
        unknown: Inodes,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            root,
            listed,
            unknown,
            deadline,
            late: false,
            readings: 0,
            entries: Vec::with_capacity(DIRECTORY_BUFFER),
        }
    }

    /// Whether everything was found, or there is no time left.
    pub fn is_over(&mut self) -> bool {
        self.late |= passed(self.deadline);
        self.late || self.unknown.is_empty()
    }

    /// Seeks in the processes that are known to hold sockets, first in those where most was found of late. A search that is
    /// not `thorough` leaves out those of whose descriptors all are known.
    pub fn holders(&mut self, holders: &mut BTreeMap<u32, Holder>, thorough: bool) {
        // Our own descriptors come and go while we look.
        let own = std::process::id();
        let worth = holders.iter_mut();
        let mut worth: Vec<(&u32, &mut Holder)> = worth
            .filter(|(pid, holder)| thorough || **pid == own || !holder.is_explained())
            .collect();
        worth.sort_by_key(|(_, holder)| Reverse((holder.gained, holder.sockets())));
        for (pid, holder) in worth {
            if self.is_over() {
                return;
            }
            let before = self.unknown.len();
            // A process that ended meanwhile, or may not be looked into any more, has nothing to be found.
            let _ = self.holder(*pid, holder, thorough || *pid == own);
            if !thorough {
                holder.gained = before.saturating_sub(self.unknown.len());
            }
        }
    }

    fn holder(&mut self, pid: u32, holder: &mut Holder, thorough: bool) -> Option<()> {
        let process = pinned(self.root, pid.to_string()).ok()?;
        let fds = directory(&process, c"fd").ok()?;
        if !thorough {
            let (listed, unknown) = (self.listed, std::cell::RefCell::new(&mut self.unknown));
            holder.guess(
                listed,
                |fd| {
                    let what = follow(&fds, fd)?;
                    if let Descriptor::Socket(inode) = what {
                        unknown.borrow_mut().remove(&inode);
                    }
                    Some(what)
                },
                |holder| unknown.borrow().is_empty() || holder.is_explained(),
            )?;
            if self.is_over() || holder.is_explained() {
                return Some(());
            }
        }
        self.every(&fds, holder, thorough)
    }

    /// Reads the directory, and follows the links that may be new.
    fn every(&mut self, fds: &OwnedFd, holder: &mut Holder, thorough: bool) -> Option<()> {
        self.readings += 1;
        let mut open = FxHashSet::default();
        let mut buffer = std::mem::take(&mut self.entries);
        let mut entries = RawDir::new(fds, buffer.spare_capacity_mut());
        let mut whole = true;
        while let Some(entry) = entries.next() {
            let Some(fd) = number(entry.ok()?.file_name().to_bytes()) else {
                continue;
            };
            open.insert(fd);
            if !holder.is_open_question(fd, thorough) {
                continue;
            }
            let what = follow(fds, fd)?;
            holder.note(fd, what, self.listed);
            if let Descriptor::Socket(inode) = what {
                self.unknown.remove(&inode);
            }
            if self.is_over() {
                whole = false;
                break;
            }
        }
        self.entries = buffer;
        if whole {
            holder.process.fds = holder.open.or_else(|| u64::try_from(open.len()).ok());
            holder.only(&open);
        }
        Some(())
    }
}

/// What the descriptor is; `None` if that may not be known.
fn follow(fds: impl AsFd, fd: u32) -> Option<Descriptor> {
    let mut name = Cursor::new([0; 16]);
    write!(name, "{fd}\0").ok()?;
    let name = name.get_ref().split(|byte| *byte == 0).next()?;
    let mut target = [0; 64];
    match readlinkat_raw(fds, name, &mut target[..]) {
        Ok(length) => {
            let socket = inode(target.get(..length)?, b"socket:[");
            let socket = socket.and_then(|inode| u32::try_from(inode).ok());
            Some(socket.map_or(Descriptor::Plain, Descriptor::Socket))
        }
        Err(Errno::NOENT) => Some(Descriptor::Free),
        Err(_) => None,
    }
}
