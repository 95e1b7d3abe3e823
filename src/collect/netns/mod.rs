//! Other network namespaces: which there are, and how a thread enters one.
//!
//! Entering (`setns(2)`) is a matter of the calling thread alone. What it opens from then on is of that namespace:
//! netlink sockets for good, `/proc/thread-self/net` and `/proc/sys/net` as long as it stays. Nothing is mounted, and
//! no file of the namespace's `/etc/netns` is looked at.

mod everywhere;
mod find;
mod inside;
mod sparse;

use std::borrow::Borrow;
use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fstatfs, readlink};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub use self::everywhere::{Everywhere, Namespaces};
pub use self::find::{Found, Place, all, find};
pub use self::inside::{Inside, insides};
use crate::collect::Row;
use crate::model::Namespace;

/// `NSFS_MAGIC` (`include/uapi/linux/magic.h`).
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// Why a namespace cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// nothing has this name
    #[error("there is no network namespace '{name}'{}", if *.number { ", and no process of this number" } else { "" })]
    Unknown {
        /// what was asked for
        name: String,
        /// the names that may have been meant, best first
        near: Vec<String>,
        /// whether it may have been a pid
        number: bool,
    },
    /// there is no such process any more
    #[error("process {0} has ended: it is in no network namespace")]
    Ended(u32),
    /// the file is something else
    #[error("'{}' is no network namespace, but {what}", path.display())]
    NotOne {
        /// the file
        path: PathBuf,
        /// what it is
        what: String,
    },
    /// the file cannot be opened
    #[error("the network namespace '{}' cannot be opened: {source}", path.display())]
    Open {
        /// the file
        path: PathBuf,
        /// why
        source: io::Error,
    },
    /// the kernel does not let us in
    #[error("the network namespace '{}' cannot be entered: {source}", path.display())]
    Enter {
        /// the file
        path: PathBuf,
        /// why
        source: io::Error,
    },
    /// it was there a moment ago
    #[error("the network namespace {0} vanished before it was read")]
    Vanished(String),
    /// the namespaces cannot be listed
    #[error("the network namespace that this program runs in is not known: {0}")]
    Own(io::Error),
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { near, .. } if !near.is_empty() => Some(format!(
                "did you mean {}? 'ip netns list' has all names, 'lsns -t net' also those without one",
                near.join(" or ")
            )),
            Self::Unknown { .. } => Some(
                "'ip netns list' has all names; 'lsns -t net' has a pid for those without one"
                    .to_owned(),
            ),
            Self::NotOne { .. } => Some(
                "/run/netns/NAME and /proc/PID/ns/net are files of network namespaces".to_owned(),
            ),
            error if error.is_refusal() => Some(
                "that takes root, or CAP_SYS_ADMIN, and CAP_SYS_PTRACE for another user's process"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// Whether privileges are what is missing.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Open { source, .. } | Self::Enter { source, .. } => {
                source.kind() == io::ErrorKind::PermissionDenied
            }
            _ => false,
        }
    }
}

/// An open file of a network namespace, which keeps it alive.
#[derive(Debug)]
pub struct Handle {
    file: File,
    path: PathBuf,
    inode: u64,
}

impl Handle {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// Where `/proc` does not show it.
    pub fn own() -> Result<Self, Error> {
        let own =
            Self::open(Path::new(OWN)).or_else(|_| Self::open(Path::new("/proc/self/ns/net")));
        own.map_err(|error| {
            Error::Own(match error {
                Error::Open { source, .. } => source,
                other => io::Error::other(other.to_string()),
            })
        })
    }

    /// The namespace behind `path`.
    ///
    /// # Errors
    /// When it cannot be opened, or is none.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let not_one = |what: &str| Error::NotOne {
            path: path.to_owned(),
            what: what.to_owned(),
        };
        let failed = |source| Error::Open {
            path: path.to_owned(),
            source,
        };
        // Whatever else it may be, opening it neither waits nor becomes our terminal.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .map_err(failed)?;
        let stat = fstatfs(&file).map_err(|errno| failed(errno.into()))?;
        let meta = file.metadata().map_err(failed)?;
        // The width of `f_type` differs from architecture to architecture.
        if stat.f_type as i64 != NSFS_MAGIC {
            return Err(not_one(match meta.len() {
                _ if meta.is_dir() => "a directory",
                0 if meta.is_file() => {
                    "an empty file: its namespace is gone, or mounted out of our sight"
                }
                _ => "another file",
            }));
        }
        let link = format!(
            "/proc/thread-self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&file)
        );
        let target = readlink(link, Vec::new()).unwrap_or_default();
        let target = target.to_string_lossy();
        // `uts:[4026531838]`, or the path of a bind mount, which does not tell: then the kernel will.
        let is_net =
            target.starts_with("net:[") || !target.ends_with(']') || target.starts_with('/');
        if !is_net {
            return Err(not_one(&format!("another namespace, {target}")));
        }
        Ok(Self {
            inode: meta.ino(),
            path: path.to_owned(),
            file,
        })
    }

    /// The inode that tells the namespace from all others.
    pub const fn inode(&self) -> u64 {
        self.inode
    }

    /// Takes the calling thread into the namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> Result<(), Error> {
        let moved = move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network));
        moved.map_err(|errno| match errno {
            Errno::INVAL => Error::NotOne {
                path: self.path.clone(),
                what: "another namespace".to_owned(),
            },
            errno => Error::Enter {
                path: self.path.clone(),
                source: errno.into(),
            },
        })
    }
}

/// Takes the calling thread into the namespace at `place` for good, and says which it is.
///
/// # Errors
/// When it cannot be opened or entered.
pub fn enter(place: &Place) -> Result<Namespace, Error> {
    let handle = Handle::open(&place.path).map_err(|error| place.blame(error))?;
    let own = Handle::own()?;
    // Who is there already needs no privilege to stay.
    if handle.inode != own.inode {
        handle.enter()?;
    }
    Ok(Namespace {
        own: handle.inode == own.inode,
        pid: place.pid,
        ..Namespace::new(place.name.clone(), handle.inode)
    })
}

/// A thread that goes from namespace to namespace, and home again.
#[derive(Debug)]
pub struct Traveller<H> {
    home: H,
    at: Cell<u64>,
}

impl<H: Borrow<Handle>> Traveller<H> {
    /// The calling thread, which is at home.
    pub fn new(home: H) -> Self {
        Self {
            at: Cell::new(home.borrow().inode),
            home,
        }
    }

    /// Goes to `found`, unless it is there already.
    ///
    /// # Errors
    /// When the namespace has vanished or may not be entered.
    pub fn go(&self, found: &Found) -> Result<(), Error> {
        let inode = found.namespace.inode;
        if self.at.get() == inode {
            return Ok(());
        }
        if inode == self.home.borrow().inode {
            return self.home();
        }
        found.open()?.enter()?;
        self.at.set(inode);
        Ok(())
    }

    /// Goes home.
    ///
    /// # Errors
    /// When the kernel does not let us back.
    pub fn home(&self) -> Result<(), Error> {
        let home = self.home.borrow();
        if self.at.get() != home.inode {
            home.enter()?;
            self.at.set(home.inode);
        }
        Ok(())
    }
}

impl Row<'_> {
    /// The row as one of the namespace with this number.
    #[must_use]
    const fn within(mut self, namespace: u16) -> Self {
        match &mut self {
            Self::Inet { socket, .. } => socket.netns = namespace,
            Self::Unix(socket) => socket.netns = namespace,
            Self::Packet(socket) => socket.netns = namespace,
            Self::Netlink(socket) => socket.netns = namespace,
            Self::Vsock(socket) => socket.netns = namespace,
        }
        self
    }
}

/// One sentence about the namespaces that could not be looked at, and why; `None` if there are none.
pub fn unseen(failures: &[(String, Error)]) -> Vec<String> {
    let mut sentences = Vec::new();
    let names = |wanted: &dyn Fn(&Error) -> bool| {
        let names: Vec<&str> = failures
            .iter()
            .filter(|(_, error)| wanted(error))
            .map(|(name, _)| name.as_str())
            .collect();
        (!names.is_empty()).then(|| some_of(&names))
    };
    if let Some(names) = names(&Error::is_refusal) {
        sentences.push(format!(
            "{names} could not be entered: that takes root, or CAP_SYS_ADMIN, and CAP_SYS_PTRACE for another user's process"
        ));
    }
    if let Some(names) = names(&|error| matches!(error, Error::Vanished(_))) {
        sentences.push(format!("{names} vanished meanwhile"));
    }
    for (name, error) in failures {
        if !error.is_refusal() && !matches!(error, Error::Vanished(_)) {
            sentences.push(format!("network namespace {name}: {error}"));
        }
    }
    sentences
}

/// `network namespaces a, b, c and 7 more`.
fn some_of(names: &[&str]) -> String {
    const SHOWN: usize = 4;
    let noun = if names.len() == 1 {
        "network namespace"
    } else {
        "network namespaces"
    };
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>();
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => format!("{noun} {}", shown.join(", ")),
        Some(more) => format!("{noun} {} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_namespace_is_said_without_waiting_for_it() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("stale");
        std::fs::write(&file, "").unwrap();
        for (path, what) in [
            (file.as_path(), "an empty file"),
            (place.path(), "a directory"),
            (Path::new("/proc/self/ns/uts"), "another namespace, uts:["),
            (Path::new("/etc/passwd"), "another file"),
        ] {
            let error = Handle::open(path).unwrap_err();
            assert!(matches!(error, Error::NotOne { .. }), "{error}");
            assert!(error.to_string().contains(what), "{error}");
            assert!(error.hint().is_some());
        }
        let fifo = place.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(Handle::open(&fifo).is_err());
        let missing = Handle::open(&place.path().join("missing")).unwrap_err();
        assert!(matches!(missing, Error::Open { .. }));
    }

    #[test]
    fn many_that_were_not_seen_are_one_sentence() {
        let refused = || Error::Enter {
            path: "/run/netns/x".into(),
            source: Errno::PERM.into(),
        };
        let mut failures: Vec<(String, Error)> = ["a", "b", "c", "d", "e", "f"]
            .map(|name| (name.to_owned(), refused()))
            .into();
        failures.push(("g".to_owned(), Error::Vanished("g".to_owned())));
        let said = unseen(&failures);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("network namespaces a, b, c, d and 2 more could not"));
        assert!(said[0].contains("CAP_SYS_ADMIN"));
        assert_eq!(said[1], "network namespace g vanished meanwhile");
        assert!(unseen(&[]).is_empty());
    }
}
