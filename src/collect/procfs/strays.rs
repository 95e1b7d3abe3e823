//! Descriptors of TCP sockets that are in no table: the connection was reset or timed out, and nobody closed them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use super::owners;
use crate::collect::Inodes;
use crate::model::{Owners, Unlisted};

/// Fewer descriptors of one process may be sockets that are just being opened.
const WORTH_A_LOOK: usize = 5;

/// Descriptors between two looks at the clock.
const DEADLINE_STRIDE: usize = 256;

/// The name that the kernel gives to the protocol of a socket's file (`sockfs_xattr_get` in `net/socket.c`). MPTCP, SMC,
/// UDP and all others have other names.
const PROTOCOL_NAME: &str = "system.sockprotoname";

/// One process and its suspicious descriptors.
#[derive(Debug)]
pub struct Stray {
    pid: u32,
    /// descriptor and inode
    links: Vec<(u32, u32)>,
}

impl Stray {
    /// Keeps the descriptors of the inodes for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) {
        self.links.retain(|(_, inode)| keep(*inode));
    }
}

/// Asks the descriptors of the processes in the namespace `netns` whose inode is not `listed` for their protocol.
/// `None` if the deadline came first.
pub fn find(
    root: &Path,
    owners: &Owners,
    listed: &Inodes,
    netns: u64,
    deadline: Option<Instant>,
) -> Option<Vec<Stray>> {
    let mut suspects: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
    for link in owners.links() {
        let here = |process: u32| {
            let process = owners.process(process)?;
            (process.netns == Some(netns)).then_some(process.pid)
        };
        if !listed.contains(&link.inode)
            && let Some(pid) = here(link.process)
        {
            suspects.entry(pid).or_default().push((link.fd, link.inode));
        }
    }
    let mut asked = 0usize;
    let mut strays = Vec::new();
    for (pid, mut links) in suspects {
        if links.len() < WORTH_A_LOOK {
            continue;
        }
        let directory = root.join(pid.to_string()).join("fd");
        let mut late = false;
        links.retain(|(fd, _)| {
            asked += 1;
            late |= asked.is_multiple_of(DEADLINE_STRIDE) && owners::passed(deadline);
            !late && is_tcp(&directory.join(fd.to_string()))
        });
        if late {
            return None;
        }
        if links.len() >= WORTH_A_LOOK {
            strays.push(Stray { pid, links });
        }
    }
    Some(strays)
}

/// Counts the descriptors that still refer to the same socket.
pub fn still_held(root: &Path, strays: Vec<Stray>) -> Vec<Unlisted> {
    let held = strays.into_iter().filter_map(|Stray { pid, links }| {
        if links.len() < WORTH_A_LOOK {
            return None;
        }
        let directory = root.join(pid.to_string()).join("fd");
        let same = links.iter().filter(|(fd, inode)| {
            let link = fs::read_link(directory.join(fd.to_string())).ok();
            let now = link.and_then(|link| owners::inode(link.as_os_str().as_bytes(), b"socket:["));
            now == Some(u64::from(*inode))
        });
        let fds = u32::try_from(same.count()).unwrap_or(u32::MAX);
        (fds as usize >= WORTH_A_LOOK).then_some(Unlisted { pid, fds })
    });
    held.collect()
}

fn is_tcp(descriptor: &Path) -> bool {
    let mut name = [0; 32];
    let length = rustix::fs::getxattr(descriptor, PROTOCOL_NAME, &mut name[..]);
    let name = length.ok().and_then(|length| name.get(..length));
    let name = name.map(|name| name.strip_suffix(b"\0").unwrap_or(name));
    matches!(name, Some(b"TCP" | b"TCPv6"))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::{AsRawFd, OwnedFd};

    use rustix::net::{AddressFamily, SocketType, socket};

    use super::*;
    use crate::collect::procfs::ProcRoot;

    #[test]
    fn only_tcp_is_called_tcp() {
        let path = |fd: i32| std::path::PathBuf::from(format!("/proc/self/fd/{fd}"));
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = fs::File::open("/dev/null").unwrap();
        let route = socket(AddressFamily::NETLINK, SocketType::RAW, None).unwrap();
        assert!(!is_tcp(&path(route.as_raw_fd())));
        let mptcp = rustix::net::ipproto::MPTCP;
        if let Ok(mptcp) = socket(AddressFamily::INET, SocketType::STREAM, Some(mptcp)) {
            assert!(!is_tcp(&path(mptcp.as_raw_fd())), "its subflows are");
        }
        assert!(is_tcp(&path(tcp.as_raw_fd())));
        assert!(!is_tcp(&path(udp.as_raw_fd())));
        assert!(!is_tcp(&path(file.as_raw_fd())));
        assert!(!is_tcp(Path::new("/proc/self/fd/999999")));
    }

    #[test]
    fn sockets_in_no_table_are_found_until_they_are_closed() {
        // A socket that was never bound is in no table either.
        let fresh: Vec<OwnedFd> = (0..6)
            .map(|_| socket(AddressFamily::INET, SocketType::STREAM, None).unwrap())
            .collect();
        let root = Path::new("/proc");
        let inodes: Inodes = fresh
            .iter()
            .filter_map(|fd| {
                let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
                let inode = owners::inode(link.as_os_str().as_bytes(), b"socket:[")?;
                u32::try_from(inode).ok()
            })
            .collect();
        let (owners, _) = owners::read(root, None);
        let netns = ProcRoot::default().netns_inode().unwrap();
        let own = |strays: Option<Vec<Stray>>| {
            let mut strays = strays.unwrap();
            strays.retain(|stray| stray.pid == std::process::id());
            for stray in &mut strays {
                stray.retain(|inode| inodes.contains(&inode));
            }
            strays
        };
        let found = own(find(root, &owners, &Inodes::default(), netns, None));
        let held = still_held(root, found);
        assert_eq!(held.iter().map(|held| held.fds).collect::<Vec<_>>(), [6]);
        let found = own(find(root, &owners, &Inodes::default(), netns, None));
        let elsewhere = find(root, &owners, &Inodes::default(), netns + 1, None);
        assert!(own(elsewhere).is_empty(), "of another namespace");
        drop(fresh);
        assert!(still_held(root, found).is_empty(), "closed meanwhile");
    }

    #[test]
    fn a_few_are_not_worth_a_look() {
        let stray = Stray {
            pid: std::process::id(),
            links: vec![(0, 1); WORTH_A_LOOK - 1],
        };
        assert!(still_held(Path::new("/proc"), vec![stray]).is_empty());
    }
}
