//! Who holds a socket: processes, and the descriptors by which they hold it.

use serde::{Deserialize, Serialize};

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

/// A container as its runtime names its cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Container<'a> {
    /// `docker`, `containerd`, `cri-o` or `podman`, where the path says it
    pub runtime: Option<&'static str>,
    /// 64 hexadecimal digits; people use the first twelve
    pub id: &'a str,
    /// the Kubernetes pod's uid as the path spells it (with `-` or, from systemd's driver, `_`)
    pub pod: Option<&'a str>,
}

impl Container<'_> {
    /// `docker:0123456789ab`.
    pub fn brief(&self) -> String {
        let id = self.id.get(..12).unwrap_or(self.id);
        match self.runtime {
            Some(runtime) => format!("{runtime}:{id}"),
            None => id.to_owned(),
        }
    }
}

/// The container that a cgroup path names, the innermost one: `docker-ID.scope`, `cri-containerd-ID.scope`,
/// `crio-ID.scope`, `libpod-ID.scope`, or a bare ID below `docker`, `libpod_parent` or a `podUID`.
pub fn container_of(cgroup: &str) -> Option<Container<'_>> {
    let is_id = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let parts = || cgroup.split('/').filter(|part| !part.is_empty());
    let pod = parts().find_map(|part| {
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let (_, uid) = part
            .rsplit_once("pod")
            .filter(|(before, _)| before.is_empty() || before.ends_with('-'))?;
        (uid.len() >= 32).then_some(uid)
    });
    let (at, id, prefix) = parts()
        .enumerate()
        .filter_map(|(at, part)| {
            let part = part.strip_suffix(".scope").unwrap_or(part);
            if is_id(part) {
                return Some((at, part, ""));
            }
            let (prefix, id) = part.rsplit_once('-')?;
            is_id(id).then_some((at, id, prefix))
        })
        .last()?;
    let parent = at.checked_sub(1).and_then(|at| parts().nth(at));
    let runtime = match (prefix, parent) {
        ("docker", _) | ("", Some("docker")) => Some("docker"),
        ("cri-containerd" | "nerdctl", _) => Some("containerd"),
        ("crio", _) => Some("cri-o"),
        ("libpod", _) | ("", Some("libpod_parent")) => Some("podman"),
        _ => None,
    };
    Some(Container { runtime, id, pod })
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

/// Every socket's holders. Several processes hold one socket after `fork`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Owners {
    processes: Vec<Process>,
    links: Vec<Link>,
}

impl Owners {
    /// Puts the processes and links in the order that look-ups need; links to no process are dropped.
    pub fn new(processes: Vec<Process>, mut links: Vec<Link>) -> Self {
        links.retain(|link| (link.process as usize) < processes.len());
        links.sort_unstable();
        Self { processes, links }
    }

    /// The same after a journey through a file, whose order is not to be believed.
    #[must_use]
    pub fn sane(self) -> Self {
        Self::new(self.processes, self.links)
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
        let start = self.links.partition_point(|link| link.inode < inode);
        let rest = self.links.get(start..).unwrap_or_default();
        let count = rest.partition_point(|link| link.inode == inode);
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
    fn containers_are_known_by_the_paths_of_their_runtimes() {
        let id = "0123456789abcdef".repeat(4);
        let uid = "8c5d3e1a-1111-2222-3333-0123456789ab";
        let seen = |path: &str| {
            let path = path.replace("ID", &id);
            container_of(&path).map(|c| (c.brief(), c.pod.map(str::to_owned)))
        };
        let named = |brief: &str| Some((brief.to_owned(), None));
        assert_eq!(
            seen("/system.slice/docker-ID.scope"),
            named("docker:0123456789ab")
        );
        assert_eq!(seen("/docker/ID"), named("docker:0123456789ab"));
        assert_eq!(
            seen("/machine.slice/libpod-ID.scope/container"),
            named("podman:0123456789ab")
        );
        let pod = format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
            uid.replace('-', "_")
        );
        assert_eq!(
            seen(&format!("{pod}/cri-containerd-ID.scope")),
            Some((
                "containerd:0123456789ab".to_owned(),
                Some(uid.replace('-', "_"))
            ))
        );
        assert_eq!(
            container_of(&format!("/kubepods/besteffort/pod{uid}/{id}"))
                .map(|c| (c.runtime, c.pod)),
            Some((None, Some(uid)))
        );
        assert_eq!(seen("/system.slice/nginx.service"), None);
        assert_eq!(seen("/user.slice/session-3.scope"), None);
    }

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
