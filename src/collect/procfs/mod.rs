//! The text tables of `/proc`: what is read where `sock_diag` is not usable, or of another machine's copy.
//!
//! [`tcp`] reads `net/tcp` and `net/tcp6`, [`owners`] the descriptors of every process, [`facts`] settings and
//! counters; [`ProcRoot`] knows which of the directories shows which namespace. The tables have no cookie, no
//! `tcp_info`, no interface, no backlog of a listener and no bound-inactive sockets, and the kernel does not tell when
//! a table changed while it was read.

pub mod facts;
pub mod owners;
pub mod tcp;

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::{PROC_SUPER_MAGIC, fstatfs, statfs};

use super::{Error, RowSink, Source, Tee, Want};
use crate::model::{Collector, Coverage, Facts, Family, Host, Owners};

/// How long the search for owners may take, unless told otherwise.
pub const OWNER_DEADLINE: Duration = Duration::from_secs(10);

/// What `read` asks for at a time. The kernel fills a page at most.
const TABLE_BUFFER: usize = 32 * 1024;

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
            Kind::Copied if !first.exists() => self.path.join("net"),
            Kind::Mounted | Kind::Copied => first,
        }
    }

    /// The inode of the network namespace that [`ProcRoot::net`] shows; `None` where that may not be asked.
    pub fn netns_inode(&self) -> Option<u64> {
        self.namespace("net")
    }

    /// The file of a sysctl (`net/ipv4/tcp_rmem`); `None` where it would be another namespace's.
    pub fn sys(&self, sysctl: &str) -> Option<PathBuf> {
        let namespace = match sysctl.split('/').next() {
            Some("net") => Some("net"),
            _ if sysctl == "kernel/hostname" => Some("uts"),
            _ => None,
        };
        let believable = self.kind != Kind::Mounted
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
        }
    }

    /// The directory of the calling thread; of the process on kernels before 3.17.
    fn reader(&self) -> PathBuf {
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
            Kind::Mounted => link(first),
            Kind::Copied => link(first).or_else(|| link(self.path.join("self"))),
        }?;
        owners::inode(
            target.as_os_str().as_bytes(),
            format!("{kind}:[").as_bytes(),
        )
    }
}

/// Whether an open directory is on a procfs.
fn is_procfs(directory: impl AsFd) -> bool {
    fstatfs(directory).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC)
}

/// The network namespace of a process: `None` if there is no such process, `Some(None)` if it may not be asked.
pub fn netns_of(root: &Path, pid: u32) -> Option<Option<u64>> {
    let process = root.join(pid.to_string());
    if !process.exists() {
        return None;
    }
    let link = fs::read_link(process.join("ns/net")).ok();
    Some(link.and_then(|link| owners::inode(link.as_os_str().as_bytes(), b"net:[")))
}

/// Whether a process calls itself `name`, whatever it holds.
pub fn runs(root: &Path, name: &str) -> bool {
    let Ok(processes) = fs::read_dir(root) else {
        return false;
    };
    processes.flatten().any(|process| {
        let is_pid = process
            .file_name()
            .as_bytes()
            .iter()
            .all(u8::is_ascii_digit);
        is_pid
            && fs::read(process.path().join("comm"))
                .is_ok_and(|comm| comm.strip_suffix(b"\n").unwrap_or(&comm) == name.as_bytes())
    })
}

/// A machine seen through `/proc` alone.
#[derive(Clone, Debug)]
pub struct Procfs {
    root: ProcRoot,
    owner_deadline: Option<Duration>,
}

impl Default for Procfs {
    fn default() -> Self {
        Self::new(ProcRoot::default())
    }
}

impl Procfs {
    /// What `root` shows.
    pub const fn new(root: ProcRoot) -> Self {
        Self {
            root,
            owner_deadline: Some(OWNER_DEADLINE),
        }
    }

    /// With another limit to the search for owners; `None` is no limit.
    #[must_use]
    pub const fn owner_deadline(mut self, deadline: Option<Duration>) -> Self {
        self.owner_deadline = deadline;
        self
    }

    /// Dumps like [`Source::dump`] and shows what was read to `tee`.
    ///
    /// # Errors
    /// When a table could not be read.
    pub fn dump_teed(
        &mut self,
        want: &Want,
        row: &mut RowSink<'_>,
        mut tee: Option<&mut Tee<'_>>,
    ) -> Result<Coverage, Error> {
        let mut coverage = Coverage {
            collector: Collector::Procfs,
            ..Coverage::default()
        };
        for family in [Family::Ipv4, Family::Ipv6] {
            if self
                .table(family, want, &mut coverage, row, tee.as_deref_mut())?
                .is_break()
            {
                break;
            }
        }
        Ok(coverage)
    }

    fn table(
        &self,
        family: Family,
        want: &Want,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
        tee: Option<&mut Tee<'_>>,
    ) -> Result<ControlFlow<()>, Error> {
        if !want.family(family) {
            return Ok(ControlFlow::Continue(()));
        }
        let net = self.root.net();
        let path = net.join(match family {
            Family::Ipv4 => "tcp",
            Family::Ipv6 => "tcp6",
        });
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) if family == Family::Ipv6 && source.kind() == io::ErrorKind::NotFound => {
                // Without IPv6 (`ipv6.disable=1`) the kernel has neither file, and there is nothing to miss.
                if net.join("if_inet6").exists() {
                    coverage.missing.push("IPv6: no such table".to_owned());
                }
                return Ok(ControlFlow::Continue(()));
            }
            Err(source) => return Err(Error::File { path, source }),
        };
        let reader = BufReader::with_capacity(TABLE_BUFFER, Teed { file, family, tee });
        tcp::table(reader, family, want, coverage, row)
            .map_err(|source| Error::File { path, source })
    }
}

/// A table that is shown to a tee while it is read.
struct Teed<'a, 't> {
    file: File,
    family: Family,
    tee: Option<&'a mut Tee<'t>>,
}

impl io::Read for Teed<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        if let (Some(tee), Some(bytes)) = (self.tee.as_deref_mut(), buffer.get(..length)) {
            tee(Collector::Procfs, self.family, bytes);
        }
        Ok(length)
    }
}

impl Source for Procfs {
    fn dump(&mut self, want: &Want, row: &mut RowSink<'_>) -> Result<Coverage, Error> {
        self.dump_teed(want, row, None)
    }

    fn owners(&mut self) -> (Owners, Coverage) {
        let deadline = self
            .owner_deadline
            .and_then(|limit| Instant::now().checked_add(limit));
        let (mut owners, coverage) = owners::read(self.root.processes(), deadline);
        if self.root.is_own() {
            owners::name_users(&mut owners, deadline);
        }
        (owners, coverage)
    }

    fn facts(&mut self) -> Facts {
        facts::of(&self.root)
    }

    fn host(&self) -> Host {
        self.root.host()
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn advance(&mut self, wait: Duration) -> bool {
        thread::sleep(wait);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;
    use std::process;

    use super::super::Row;
    use super::*;
    use crate::model::{Attributes, Socket, StateSet, TcpState, Timer};

    const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/proc");

    fn dump(source: &mut Procfs, want: &Want) -> Result<(Vec<Socket>, Coverage), Error> {
        let mut sockets = Vec::new();
        let coverage = source.dump(want, &mut |Row::Inet { socket, attributes }| {
            let Attributes {
                tcp_info, memory, ..
            } = attributes;
            assert!(tcp_info.is_none() && memory.is_none());
            sockets.push(socket);
            ControlFlow::Continue(())
        })?;
        Ok((sockets, coverage))
    }

    fn everything(root: impl Into<PathBuf>) -> (Vec<Socket>, Coverage) {
        let mut source = Procfs::new(ProcRoot::new(root));
        dump(&mut source, &Want::states(StateSet::ALL)).unwrap()
    }

    fn inode_of(socket: &impl AsRawFd) -> u32 {
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let inode = owners::inode(link.as_os_str().as_bytes(), b"socket:[").unwrap();
        u32::try_from(inode).unwrap()
    }

    fn live(address: SocketAddr, family: Family) {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let inode = inode_of(&listener);
        let (sockets, coverage) = everything("/proc");
        assert_eq!(coverage.collector, Collector::Procfs);
        assert!(coverage.rows_complete(), "{coverage:?}");

        let row = sockets.iter().find(|s| s.inode == inode).unwrap();
        assert_eq!((row.state, row.family), (TcpState::Listen, family));
        assert_eq!(
            (row.local_ip(), row.local.port),
            (address.ip(), address.port())
        );
        assert_eq!(row.recv_q, 1, "one connection waits for accept");
        assert_eq!((row.backlog(), row.cookie), (None, None));
        let theirs = sockets
            .iter()
            .find(|s| s.inode == inode_of(&client))
            .unwrap();
        assert_eq!(theirs.state, TcpState::Established);
        assert_eq!((theirs.remote, theirs.family), (row.local, family));
        let waiting = sockets
            .iter()
            .find(|s| s.local == theirs.remote && s.remote == theirs.local)
            .unwrap();
        assert_eq!(waiting.inode, 0, "nobody holds what is not accepted");

        let (owners, coverage) = Procfs::default().owners();
        assert!(coverage.owners_read);
        let (owner, fd) = owners
            .of(inode)
            .find(|(p, _)| p.pid == process::id())
            .unwrap();
        assert_eq!(i32::try_from(fd).unwrap(), listener.as_raw_fd());
        assert_eq!(owner.uid, Some(rustix::process::geteuid().as_raw()));
        assert_eq!(
            owner.comm.as_bytes(),
            fs::read("/proc/self/comm").unwrap().trim_ascii_end()
        );
        assert_eq!(owner.netns, ProcRoot::default().netns_inode());
        assert!(owner.fds.unwrap() >= 5 && owner.nofile.unwrap() > 0);
        assert!(owner.run_state.is_some() && owner.cgroup.is_some());

        drop((listener, client));
        let (sockets, _) = everything("/proc");
        assert!(sockets.iter().all(|s| s.inode != inode), "closed is gone");
    }

    #[test]
    fn a_listener_and_its_connection_are_found_until_they_close() {
        live((Ipv4Addr::LOCALHOST, 0).into(), Family::Ipv4);
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            live((Ipv6Addr::LOCALHOST, 0).into(), Family::Ipv6);
        }
    }

    #[test]
    fn the_fixture_has_the_states_that_were_arranged() {
        let (sockets, coverage) = everything(FIXTURE);
        assert!(coverage.rows_complete() && coverage.unknown_states == 0);
        let count = |state| sockets.iter().filter(|s| s.state == state).count();
        for (state, expected) in [
            (TcpState::Listen, 5),
            (TcpState::SynSent, 2),
            (TcpState::SynReceived, 3),
            (TcpState::Established, 21),
            (TcpState::FinWait1, 1),
            (TcpState::FinWait2, 5),
            (TcpState::CloseWait, 5),
            (TcpState::TimeWait, 3),
        ] {
            assert_eq!(count(state), expected, "{state}");
        }
        assert_eq!(sockets.len(), 45);
        // To the far end that went silent; sock_diag's `idiag_timer` and `idiag_retrans` were the same.
        let silent: Vec<_> = sockets
            .iter()
            .filter(|s| s.remote.port == 7000)
            .map(|s| (s.timer, s.retransmits, s.timer_ms))
            .collect();
        assert_eq!(
            silent,
            [
                (Timer::Keepalive, 8, 200),
                (Timer::Retransmit, 5, 4260),
                (Timer::Persist, 4, 3750),
            ]
        );
        let (owners, _) = owners::read(Path::new(FIXTURE), None);
        for socket in sockets.iter().filter(|s| s.state == TcpState::CloseWait) {
            let owner = owners.of(socket.inode).next().unwrap().0;
            assert_eq!((owner.comm.as_str(), owner.uid), ("leaky", Some(65534)));
            assert_eq!(owner.unit(), Some("leaky.service"));
            assert_eq!(owner.run_state, Some('S'));
        }
        let held = |s: &&Socket| s.inode != 0 && owners.links_of(s.inode).is_empty();
        assert_eq!(sockets.iter().find(held), None);
    }

    #[test]
    fn only_the_wanted_family_is_opened() {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("net");
        fs::create_dir(&net).unwrap();
        fs::copy(format!("{FIXTURE}/net/tcp6"), net.join("tcp6")).unwrap();
        let mut source = Procfs::new(ProcRoot::new(root.path()));
        let v6 = Want {
            ipv4: false,
            ..Want::states(StateSet::ALL)
        };
        let (sockets, _) = dump(&mut source, &v6).unwrap();
        assert!(!sockets.is_empty() && sockets.iter().all(|s| s.family == Family::Ipv6));
        let error = dump(&mut source, &Want::states(StateSet::ALL)).unwrap_err();
        assert!(matches!(error, Error::File { path, .. } if path == net.join("tcp")));
    }

    #[test]
    fn a_kernel_without_ipv6_misses_nothing() {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("net");
        fs::create_dir(&net).unwrap();
        fs::copy(format!("{FIXTURE}/net/tcp"), net.join("tcp")).unwrap();
        let (_, coverage) = everything(root.path());
        assert!(coverage.complete());
        fs::write(net.join("if_inet6"), "").unwrap();
        let (_, coverage) = everything(root.path());
        assert_eq!(coverage.missing, ["IPv6: no such table"]);
    }

    #[test]
    fn a_sink_that_stops_ends_both_tables() {
        let mut rows = 0;
        let mut source = Procfs::new(ProcRoot::new(FIXTURE));
        let want = Want::states(StateSet::ALL);
        let coverage = source.dump(&want, &mut |_| {
            rows += 1;
            ControlFlow::Break(())
        });
        assert!(coverage.unwrap().complete());
        assert_eq!(rows, 1);
    }

    #[test]
    fn a_copy_is_believed_in_everything_and_prefers_process_1() {
        let fixture = ProcRoot::new(FIXTURE);
        assert_eq!(fixture.net(), Path::new(FIXTURE).join("net"));
        let host = fixture.host();
        assert_eq!(
            (host.name.as_str(), host.netns),
            ("web-7", Some(4_026_532_317))
        );
        assert!(host.kernel.starts_with("6.18."));
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("1/net")).unwrap();
        fs::create_dir_all(root.path().join("net")).unwrap();
        assert_eq!(ProcRoot::new(root.path()).net(), root.path().join("1/net"));
        assert_eq!(ProcRoot::new(root.path()).host(), Host::default());
    }

    #[test]
    fn a_procfs_elsewhere_is_asked_for_its_process_1() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("host");
        symlink("/proc", &path).unwrap();
        let (own, mounted) = (ProcRoot::default(), ProcRoot::new(&path));
        assert!(own.is_own() && ProcRoot::new("/proc/").is_own() && !mounted.is_own());
        assert_eq!(mounted.net(), path.join("1/net"));
        assert!(own.net().ends_with("thread-self/net"));
        // Whether process 1 is in this namespace, and may be asked, depends on where the test runs.
        let same = mounted.netns_inode().is_some() && mounted.netns_inode() == own.netns_inode();
        let sysctl = "net/ipv4/tcp_fin_timeout";
        assert!(own.sysctl(sysctl).is_some());
        assert_eq!(mounted.sysctl(sysctl).is_some(), same);
        assert!(mounted.sysctl("fs/file-nr").is_some(), "global");
        assert_eq!(mounted.host().kernel, own.host().kernel);
        assert!(own.netns_inode().is_some());
    }

    #[test]
    fn the_next_sample_is_at_least_the_wait_later() {
        let mut source = Procfs::default();
        let before = source.now();
        assert!(source.advance(Duration::from_millis(20)) && !source.is_capture());
        assert!(source.now().duration_since(before) >= jiff::SignedDuration::from_millis(20));
    }
}
