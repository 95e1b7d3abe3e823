//! Which directory of a proc file system, or of a copy of one, shows which namespace.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{PROC_SUPER_MAGIC, statfs};

use super::{facts, owners};
use crate::model::Host;

/// The inode of the first pid namespace (`include/linux/proc_ns.h`).
const PROC_PID_INIT_INO: u64 = 0xEFFF_FFFC;

/// A directory like `/proc`, and which of its parts may be believed.
///
/// On a procfs, `net` and `sys/net` show the namespace of *whoever reads*, not that of the machine whose procfs is
/// mounted there; only `1/net` is the machine's. In a copy, everything is what it was when it was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcRoot {
    path: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `/proc`: the namespaces of the calling thread
    Own,
    /// a procfs mounted elsewhere: those of its process 1
    Mounted,
    /// the same, but a network namespace was entered on purpose: the calling thread's
    Entered,
    /// no procfs: a copy
    Copied,
}

impl Default for ProcRoot {
    fn default() -> Self {
        Self::new("/proc")
    }
}

impl ProcRoot {
    /// The root at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let kind = if path == Path::new("/proc") {
            Kind::Own
        } else if statfs(&path).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC) {
            Kind::Mounted
        } else {
            Kind::Copied
        };
        Self { path, kind }
    }

    /// The same processes, and the network namespace that the calling thread is in, whichever process 1 is in.
    #[must_use]
    pub fn entered(mut self) -> Self {
        if self.kind == Kind::Mounted {
            self.kind = Kind::Entered;
        }
        self
    }

    /// Whether it is the caller's own `/proc`, so that its uids are those of the local user database.
    pub fn is_own(&self) -> bool {
        self.kind == Kind::Own
    }

    /// Whether it is a procfs, mounted wherever, and no copy of one.
    pub fn is_this_machine(&self) -> bool {
        self.kind != Kind::Copied
    }

    /// The directory that has a directory for every process.
    pub fn processes(&self) -> &Path {
        &self.path
    }

    /// The directory with the tables and counters of the network namespace.
    ///
    /// Of `/proc` it is the calling thread's: `/proc/net` and `/proc/self/net` stay with the main thread after another
    /// one entered a namespace.
    pub fn net(&self) -> PathBuf {
        let first = self.path.join("1/net");
        match self.kind {
            Kind::Own => self.reader().join("net"),
            Kind::Entered => Self::default().net(),
            Kind::Copied if !first.exists() => self.path.join("net"),
            Kind::Mounted | Kind::Copied => first,
        }
    }

    /// The inode of the network namespace that [`ProcRoot::net`] shows; `None` where that may not be asked.
    pub fn netns_inode(&self) -> Option<u64> {
        self.namespace("net")
    }

    /// About how many TCP sockets the network namespace has that [`ProcRoot::net`] shows.
    pub fn tcp_sockets(&self) -> Option<u64> {
        let gauges = facts::sockstat(self);
        let count = |name| {
            gauges
                .get(name)
                .and_then(|count| u64::try_from(*count).ok())
        };
        let rest = ["TCP.tw", "TCP6.inuse"].into_iter().filter_map(count);
        Some(count("TCP.inuse")? + rest.sum::<u64>())
    }

    /// The file of a sysctl (`net/ipv4/tcp_rmem`); `None` where it would be another namespace's.
    pub fn sys(&self, sysctl: &str) -> Option<PathBuf> {
        let namespace = match sysctl.split('/').next() {
            Some("net") => Some("net"),
            _ if sysctl == "kernel/hostname" => Some("uts"),
            _ => None,
        };
        let believable = !matches!(self.kind, Kind::Mounted | Kind::Entered)
            || namespace.is_none_or(|kind| {
                let theirs = self.namespace(kind);
                theirs.is_some() && theirs == Self::default().namespace(kind)
            });
        believable.then(|| self.path.join("sys").join(sysctl))
    }

    /// A sysctl's text without blanks around it; `None` where it is unknown.
    pub fn sysctl(&self, sysctl: &str) -> Option<String> {
        facts::text(&self.sys(sysctl)?).map(|text| text.trim().to_owned())
    }

    /// Which machine and namespace is shown. A name that cannot be known is empty.
    pub fn host(&self) -> Host {
        Host {
            name: self.sysctl("kernel/hostname").unwrap_or_default(),
            kernel: self.sysctl("kernel/osrelease").unwrap_or_default(),
            netns: self.netns_inode(),
            boot_id: self.sysctl("kernel/random/boot_id"),
        }
    }

    /// Whether its processes are those of a pid namespace below the first one. Unknown is no.
    pub fn is_nested(&self) -> bool {
        self.namespace("pid")
            .is_some_and(|pids| pids != PROC_PID_INIT_INO)
    }

    /// The directory of the calling thread; of the process on kernels before 3.17.
    pub(super) fn reader(&self) -> PathBuf {
        let thread = self.path.join("thread-self");
        if thread.exists() {
            thread
        } else {
            self.path.join("self")
        }
    }

    fn namespace(&self, kind: &str) -> Option<u64> {
        let link = |process: PathBuf| fs::read_link(process.join("ns").join(kind)).ok();
        let first = self.path.join("1");
        let target = match self.kind {
            Kind::Own => link(self.reader()),
            Kind::Entered if kind == "net" => return Self::default().namespace(kind),
            Kind::Mounted | Kind::Entered => link(first),
            Kind::Copied => link(first).or_else(|| link(self.path.join("self"))),
        }?;
        owners::inode(
            target.as_os_str().as_bytes(),
            format!("{kind}:[").as_bytes(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_pid_namespace_below_the_first_is_said() {
        let copy = tempfile::tempdir().unwrap();
        let link = copy.path().join("1/ns/pid");
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let nested = || ProcRoot::new(copy.path()).is_nested();
        assert!(!nested(), "not known");
        for (target, below) in [("pid:[4026531836]", false), ("pid:[4026532281]", true)] {
            symlink(target, &link).unwrap();
            assert_eq!(nested(), below, "{target}");
            fs::remove_file(&link).unwrap();
        }
    }
}
