//! What the names in a filter mean on this machine, or in a capture.

use std::fs;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;

use crate::collect::Source;
use crate::model::{Owners, Protocol};
use crate::query::Lookup;

/// Looks names up, each only when it is asked for.
pub struct Names<'m> {
    machine: &'m mut dyn Source,
    interfaces: &'m FxHashMap<u32, String>,
}

impl<'m> Names<'m> {
    /// The names of `machine`, whose interfaces are these.
    pub fn new(machine: &'m mut dyn Source, interfaces: &'m FxHashMap<u32, String>) -> Self {
        Self {
            machine,
            interfaces,
        }
    }
}

impl Lookup for Names<'_> {
    fn host(&mut self, name: &str) -> Result<Vec<IpAddr>, String> {
        let found = (name, 0)
            .to_socket_addrs()
            .map_err(|error| format!("write its address; the resolver says: {error}"))?;
        let mut addresses: Vec<IpAddr> = found.map(|end| end.ip()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }

    fn service(&mut self, name: &str) -> Result<u16, String> {
        let table = fs::read_to_string("/etc/services").unwrap_or_default();
        service(&table, name).ok_or_else(|| {
            "write the port's number; /etc/services has no TCP service of this name".to_owned()
        })
    }

    fn interface(&mut self, name: &str) -> Result<u32, String> {
        if self.machine.namespaces().is_some() && !name.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("interfaces have other numbers in each network namespace: name one with --netns, or write 'dev = 2'".to_owned());
        }
        let named = self.interfaces.iter().find(|(_, own)| *own == name);
        let number = name.strip_prefix("if").unwrap_or(name).parse().ok();
        named.map(|(index, _)| *index).or(number).ok_or_else(|| {
            if self.machine.is_capture() {
                "a capture has the numbers of interfaces, not their names: write 'dev = 2'"
                    .to_owned()
            } else {
                let mut names: Vec<&str> = self.interfaces.values().map(String::as_str).collect();
                names.sort_unstable();
                format!("the interfaces are {}", names.join(", "))
            }
        })
    }

    fn user(&mut self, name: &str) -> Result<u32, String> {
        if let Ok(uid) = name.parse() {
            return Ok(uid);
        }
        if !self.machine.is_capture() {
            return uzers::get_user_by_name(name)
                .map(|user| user.uid())
                .ok_or_else(|| "write 'uid = NUMBER' for a user without a name".to_owned());
        }
        let (owners, _) = self.machine.owners();
        let holder = owners
            .processes()
            .iter()
            .find(|process| process.user.as_deref() == Some(name));
        holder.and_then(|process| process.uid).ok_or_else(|| {
            "no process of this capture is this user's: write 'uid = NUMBER'".to_owned()
        })
    }

    fn cgroup(&mut self, path: &str) -> Result<(String, Option<u64>), String> {
        if self.machine.is_capture() {
            return Ok((rooted(path), None));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let Some(mount) = cgroup2(&mounts) else {
            // Processes know their path all the same.
            return Ok((rooted(path), None));
        };
        let inside = Path::new(path)
            .strip_prefix(&mount)
            .map_or_else(|_| path.to_owned(), |path| path.display().to_string());
        let inside = rooted(&inside);
        let directory = mount.join(inside.trim_start_matches('/'));
        // The id of a cgroup is the inode of its directory (`kernfs`, since Linux 5.5 on machines of 64 bits).
        match fs::metadata(&directory) {
            Ok(found) if found.is_dir() => Ok((inside, Some(found.ino()))),
            _ => Err(format!(
                "there is no directory '{}'; 'cgroup ~ *NAME*' finds a part of the path",
                directory.display()
            )),
        }
    }
}

/// The services of this machine by protocol and port, as getservbyport(3) finds them in `/etc/services`.
pub fn services() -> FxHashMap<(Protocol, u16), String> {
    by_port(&String::from_utf8_lossy(
        &fs::read("/etc/services").unwrap_or_default(),
    ))
}

/// The first name of each port of TCP and of UDP in a table like `/etc/services` (services(5)).
fn by_port(table: &str) -> FxHashMap<(Protocol, u16), String> {
    let mut names = FxHashMap::default();
    for line in table.lines() {
        let mut words = line
            .split('#')
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace();
        let (Some(name), Some((port, protocol))) = (
            words.next(),
            words.next().and_then(|word| word.split_once('/')),
        ) else {
            continue;
        };
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => continue,
        };
        if let Ok(port) = port.parse() {
            names
                .entry((protocol, port))
                .or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// The names of users: of this machine by `/etc/passwd` and by the processes that were seen, of a capture by these alone.
pub fn users(machine: &mut dyn Source, owners: Option<&Owners>) -> FxHashMap<u32, String> {
    let mut users = FxHashMap::default();
    if !machine.is_capture() {
        let table = fs::read(PASSWD).unwrap_or_default();
        users.extend(passwd(&String::from_utf8_lossy(&table)));
    }
    let read = owners
        .is_none()
        .then(|| machine.is_capture().then(|| machine.owners().0));
    let seen = read.flatten();
    for process in owners.or(seen.as_ref()).map_or(&[][..], Owners::processes) {
        if let (Some(uid), Some(user)) = (process.uid, &process.user) {
            users.entry(uid).or_insert_with(|| user.clone());
        }
    }
    users
}

const PASSWD: &str = "/etc/passwd";

/// Uids and names (passwd(5)).
fn passwd(table: &str) -> impl Iterator<Item = (u32, String)> {
    table.lines().filter_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        Some((parts.nth(1)?.parse().ok()?, name.to_owned()))
    })
}

/// The path with `/` in front and none behind.
fn rooted(path: &str) -> String {
    format!("/{}", path.trim_matches('/'))
}

/// Where the hierarchy of version 2 is mounted, by `/proc/PID/mountinfo` (proc(5)).
fn cgroup2(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, behind) = line.split_once(" - ")?;
        let is = behind.split(' ').next() == Some("cgroup2");
        is.then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// The TCP port of a name or alias in a table like `/etc/services` (services(5)).
fn service(table: &str, name: &str) -> Option<u16> {
    table.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let official = words.next()?;
        let port = words.next()?.strip_suffix("/tcp")?;
        let named = official == name || words.any(|alias| alias == name);
        named.then(|| port.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_those_of_tcp_by_name_or_alias() {
        let table =
            "# services\ndomain 53/udp\nhttp\t80/tcp  www # web\nhttps 443/tcp\nbad x/tcp\n";
        assert_eq!(service(table, "www"), Some(80));
        assert_eq!(service(table, "https"), Some(443));
        assert_eq!(service(table, "domain"), None);
        assert_eq!(service(table, "web"), None);
        assert_eq!(service(table, "bad"), None);
    }

    #[test]
    fn a_port_has_the_first_name_of_its_own_protocol() {
        let names = by_port(
            "# x\ntime 37/tcp\nexec 512/tcp\nbiff 512/udp comsat\nother 512/tcp\nbad x/tcp\nsctp 9/sctp\nalone\n",
        );
        let name = |protocol, port| names.get(&(protocol, port)).map(String::as_str);
        assert_eq!(name(Protocol::Tcp, 512), Some("exec"));
        assert_eq!(name(Protocol::Udp, 512), Some("biff"));
        assert_eq!(name(Protocol::Udp, 37), None);
        assert_eq!(name(Protocol::Tcp, 9), None);
    }

    #[test]
    fn users_are_read_line_by_line() {
        let table = "root:x:0:0:root:/root:/bin/sh\nbad\nwww-data:x:33:33::/:/bin/false\n";
        let users: Vec<_> = passwd(table).collect();
        assert_eq!(users, [(0, "root".to_owned()), (33, "www-data".to_owned())]);
    }

    #[test]
    fn the_hierarchy_is_found_among_other_mounts() {
        let mounts = "24 1 0:22 / /proc rw - proc proc rw\n30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2(mounts), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(cgroup2("x"), None);
        assert_eq!((&rooted("a/b/")[..], &rooted("/")[..]), ("/a/b", "/"));
    }
}
