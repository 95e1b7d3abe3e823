//! What the small files of `/proc/PID` say of a process. `cmdline`, `maps` and `smaps` are never opened: they may block
//! for ever behind a process in uninterruptible sleep.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat, readlinkat_raw};
use rustix::io::{Errno, read as read_fd};

use crate::model::Process;

/// No file that is read here is longer but by malice: `status` has 1.5 KB, `cgroup` a path per hierarchy.
const LONGEST_FILE: usize = 64 * 1024;

/// `PF_KTHREAD` (`include/linux/sched.h`), as the flags in `/proc/PID/stat` show it.
const PF_KTHREAD: u32 = 0x0020_0000;

/// Reads small files, one after the other, into the same memory.
#[derive(Debug, Default)]
pub struct Reader {
    text: Vec<u8>,
}

impl Reader {
    /// What is known of a process beside its descriptors, and when it began, in clock ticks since boot. Only its end is a
    /// failure; what is denied is absent.
    pub fn details(
        &mut self,
        process: BorrowedFd<'_>,
        pid: u32,
    ) -> Result<(Process, Option<u64>), Ended> {
        let stat = self.stat(process)?;
        let comm = self.text(process, c"comm").unwrap_or_default();
        let comm = comm.strip_suffix(b"\n").unwrap_or(comm);
        let comm = String::from_utf8_lossy(comm).into_owned();
        let text = |text: &Result<&[u8], Errno>| {
            text.as_ref()
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .unwrap_or_default()
        };
        let uid = effective_uid(&text(&self.text(process, c"status")));
        let nofile = soft_nofile(&text(&self.text(process, c"limits")));
        let cgroup = cgroup_path(&text(&self.text(process, c"cgroup")));
        let mut target = [0; 64];
        let netns = readlinkat_raw(process, c"ns/net", &mut target[..])
            .ok()
            .and_then(|length| inode(target.get(..length)?, b"net:["));
        let details = Process {
            pid,
            comm,
            uid,
            user: None,
            fds: None,
            nofile,
            cgroup,
            netns,
            run_state: stat.map(|stat| stat.state),
        };
        Ok((details, stat.and_then(|stat| stat.started)))
    }

    /// `/proc/PID/stat`; `None` where it is denied.
    pub fn stat(&mut self, process: BorrowedFd<'_>) -> Result<Option<Stat>, Ended> {
        match self.text(process, c"stat") {
            Ok(text) => Ok(Stat::parse(text)),
            Err(Errno::NOENT | Errno::SRCH) => Err(Ended),
            Err(_) => Ok(None),
        }
    }

    /// Whether a process that may not be looked into has no descriptors anyway: a kernel thread or a zombie.
    pub fn holds_nothing(&mut self, process: BorrowedFd<'_>) -> bool {
        let stat = self.stat(process).ok().flatten();
        stat.is_some_and(|stat| stat.flags & PF_KTHREAD != 0 || stat.ended())
    }

    fn text(&mut self, process: BorrowedFd<'_>, name: &CStr) -> Result<&[u8], Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat(process, name, flags, Mode::empty())?;
        self.text.clear();
        let mut chunk = [0; 4096];
        while self.text.len() < LONGEST_FILE {
            match read_fd(&file, &mut chunk) {
                Ok(0) => break,
                Ok(length) => self
                    .text
                    .extend_from_slice(chunk.get(..length).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(&self.text)
    }
}

/// The process is there no more.
#[derive(Clone, Copy, Debug)]
pub struct Ended;

/// Opens a directory to list it.
pub fn directory(at: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::empty())
}

/// The directory of a process, pinned: what is read through it is never of another one that got the same number.
pub fn pinned(root: impl AsFd, pid: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(root, pid, flags, Mode::empty())
}

/// The members of `/proc/PID/stat` that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// the third: `R`, `S`, `D`, `T`, ...
    pub state: char,
    /// the ninth: `PF_KTHREAD` and others
    flags: u32,
    /// the 22nd: when the process began, in clock ticks since boot
    pub started: Option<u64>,
}

impl Stat {
    /// The name in the second member is the process's own choice, blanks and parentheses included; no later member
    /// has a parenthesis, so the last one ends it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = str::from_utf8(text.get(end + 1..)?).ok()?;
        let mut words = rest.split_ascii_whitespace();
        let state = words.next()?.chars().next()?;
        // ppid, pgrp, session, tty_nr and tpgid lie between.
        let flags = words.nth(5).and_then(|flags| flags.parse().ok());
        let started = words.nth(12).and_then(|ticks| ticks.parse().ok());
        Some(Self {
            state,
            flags: flags.unwrap_or_default(),
            started,
        })
    }

    /// Whether it ended and is only waited for.
    pub const fn ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// The number in a link such as `socket:[4711]`.
pub fn inode(target: &[u8], kind: &[u8]) -> Option<u64> {
    let digits = target.strip_prefix(kind)?.strip_suffix(b"]")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// A file name of digits alone.
pub fn number(name: &[u8]) -> Option<u32> {
    if !name.first()?.is_ascii_digit() {
        return None;
    }
    str::from_utf8(name).ok()?.parse().ok()
}

/// The second number of `Uid:` (real, effective, saved, file system). The owner of the directory is not it: root for
/// a process that is not dumpable.
fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn soft_nofile(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// The path in the v2 hierarchy (`0::`), or systemd's named one. On a host with both, the v2 hierarchy is there but may
/// hold every process at its root.
fn cgroup_path(cgroup: &str) -> Option<String> {
    let path = |wanted: fn(&str, &str) -> bool| {
        cgroup.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            wanted(id, controllers).then_some(path)
        })
    };
    let unified = path(|id, controllers| id == "0" && controllers.is_empty());
    let systemd = path(|_, controllers| controllers == "name=systemd");
    let path = unified.filter(|path| *path != "/").or(systemd).or(unified);
    path.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_move_the_members_behind_it() {
        let line = b"7 (a) R 1 2) S 1 7 7 0 -1 4194560 1 0 0 0 3 4 0 0 20 0 1 0 4711 9 9\n";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.state, stat.started), ('S', Some(4711)));
        assert!(!stat.ended() && Stat::parse(b"7 (a) Z 1").unwrap().ended());
        assert_eq!(Stat::parse(b"7 (a) S 1").unwrap().started, None);
        assert_eq!(Stat::parse(b"7 (a"), None);
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn the_small_files_are_read_by_name() {
        assert_eq!(effective_uid("Name:\tUid:\nUid:\t1\t2\t3\t4\n"), Some(2));
        assert_eq!(effective_uid("Gid:\t1\t2\n"), None);
        let limits = "Max cpu time              unlimited            unlimited            seconds\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(soft_nofile(limits), Some(1024));
        assert_eq!(
            soft_nofile(&limits.replace("1024", "unlimited")),
            Some(u64::MAX)
        );
        assert_eq!(soft_nofile(""), None);
        let path = |text| cgroup_path(text);
        assert_eq!(
            path("0::/a.slice/b:c.service\n"),
            Some("/a.slice/b:c.service".into())
        );
        assert_eq!(
            path("3:cpu:/x\n1:name=systemd:/s.service\n0::/\n"),
            Some("/s.service".into())
        );
        assert_eq!(
            path("1:name=systemd:/s.service\n0::/u.service\n"),
            Some("/u.service".into())
        );
        assert_eq!(path("3:cpu:/x\n0::/\n"), Some("/".into()));
        assert_eq!(path("3:cpu:/x\n"), None);
        assert_eq!(inode(b"socket:[12]", b"socket:["), Some(12));
        assert_eq!(inode(b"socket:[12", b"socket:["), None);
        assert_eq!(inode(b"pipe:[12]", b"socket:["), None);
    }
}
