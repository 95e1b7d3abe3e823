//! The text tables of `/proc`: what is read where `sock_diag` is not usable, or of another machine's copy.
//!
//! [`inet`] reads `net/{tcp,udp,udplite,raw}` and those of IPv6, [`unix`], [`packet`] and [`sctp`] the others, of which
//! [`tables`] knows the names; [`owners`] reads the descriptors of every process, [`facts`] settings and counters; [`ProcRoot`] knows which of the directories shows which namespace. The tables have no cookie, no
//! `tcp_info`, no interface, no backlog of a listener and no bound-inactive sockets, and the kernel does not tell when
//! a table changed while it was read.

pub mod cgroups;
pub mod facts;
pub mod inet;
pub mod owners;
pub mod packet;
mod process;
pub mod remembered;
mod root;
pub mod sctp;
pub mod strays;
pub mod tables;
pub mod unix;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::{PROC_SUPER_MAGIC, fstatfs};

use self::remembered::Remembered;
pub use self::root::ProcRoot;
use self::strays::Stray;
use super::{Error, Inodes, RowSink, Source, Table, Tee, Want};
use crate::model::{Collector, Coverage, Cpu, Facts, Family, Host, Owners, Protocol, Unlisted};

/// How long the search for owners may take, unless told otherwise.
pub const OWNER_DEADLINE: Duration = Duration::from_secs(10);

/// What `read` asks for at a time. The kernel fills a page at most.
const TABLE_BUFFER: usize = 32 * 1024;

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
    /// when the search for owners that was begun last had to end
    owners_until: Option<Instant>,
    /// where owners are remembered from look to look
    remembered: Option<Remembered>,
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
            owners_until: None,
            remembered: None,
        }
    }

    /// Whether [`Source::owners_of`] remembers what it found, for a program that looks again and again. Of a copy, which
    /// never changes, nothing is remembered.
    pub fn remember_owners(&mut self, remember: bool) {
        self.remembered = (remember && self.root.is_this_machine()).then(Remembered::default);
    }

    /// What is remembered of owners.
    pub const fn remembered(&self) -> Option<&Remembered> {
        self.remembered.as_ref()
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
        if !tables::shows(want.protocol) {
            self.without_table(want.protocol, &mut coverage);
            return Ok(coverage);
        }
        for table in want.tables() {
            if self
                .table(table, want, &mut coverage, row, tee.as_deref_mut())?
                .is_break()
            {
                break;
            }
        }
        Ok(coverage)
    }

    fn table(
        &self,
        table: Table,
        want: &Want,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
        tee: Option<&mut Tee<'_>>,
    ) -> Result<ControlFlow<()>, Error> {
        let net = self.root.net();
        let mut files = tables::files(table).iter();
        // Only SCTP has a second.
        let paths = [files.next(), files.next()].map(|file| file.map(|file| net.join(file)));
        let mut opened = [None, None];
        for (path, place) in paths.iter().zip(&mut opened) {
            let Some(path) = path else { break };
            match File::open(path) {
                Ok(file) => *place = Some(file),
                Err(source) if source.kind() == io::ErrorKind::NotFound => {
                    return self.no_file(table, path, source, coverage);
                }
                Err(source) => {
                    let path = path.clone();
                    return Err(Error::File { path, source });
                }
            }
        }
        let [Some(path), second] = paths else {
            return Ok(ControlFlow::Continue(()));
        };
        let path = second.unwrap_or(path);
        let file = Files(opened);
        let reader = BufReader::with_capacity(TABLE_BUFFER, Teed { file, table, tee });
        let read = tables::read(reader, table, want, coverage, row);
        read.map_err(|source| Error::File { path, source })
    }

    /// What it means that a table's file is not there.
    fn no_file(
        &self,
        table: Table,
        path: &Path,
        source: io::Error,
        coverage: &mut Coverage,
    ) -> Result<ControlFlow<()>, Error> {
        let protocol = table.protocol;
        if protocol != Protocol::Tcp && tables::has(&self.root, protocol) == Some(false) {
            self.without_table(protocol, coverage);
        } else if table.family == Some(Family::Ipv6) {
            // Without IPv6 (`ipv6.disable=1`) the kernel has neither file, and there is nothing to miss.
            if self.root.net().join("if_inet6").exists() {
                coverage.missing.push(match protocol {
                    Protocol::Tcp => "IPv6: no such table".to_owned(),
                    _ => format!("{}: no such table", table.label()),
                });
            }
        } else if !self.root.is_this_machine() && protocol != Protocol::Tcp {
            return Err(Error::NotRecorded(protocol.sockets()));
        } else if matches!(protocol, Protocol::Tcp | Protocol::Udp | Protocol::Unix) {
            let path = path.to_owned();
            return Err(Error::File { path, source });
        } else {
            // A sandbox with a `/proc` of its own has few tables.
            self.without_table(protocol, coverage);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Says why there is no table of the protocol's sockets: the kernel does not have it, or does not show it.
    fn without_table(&self, protocol: Protocol, coverage: &mut Coverage) {
        let mut said = Coverage {
            collector: Collector::Procfs,
            ..Coverage::default()
        };
        if tables::has(&self.root, protocol) == Some(false) {
            said.absent.push(protocol);
        } else {
            said.missing.push(tables::gap(protocol));
        }
        coverage.merge(said);
    }

    /// Descriptors of TCP sockets that are not `listed`, of the processes of the namespace `netns`. `None` where that
    /// cannot be asked.
    pub fn strays(&self, owners: &Owners, listed: &Inodes, netns: u64) -> Option<Vec<Stray>> {
        let deadline = self.owners_until;
        if !self.root.is_this_machine() || owners::passed(deadline) {
            return None;
        }
        strays::find(self.root.processes(), owners, listed, netns, deadline)
    }

    /// Those of the descriptors that still refer to the same socket, counted.
    pub fn still_held(&self, strays: Vec<Stray>) -> Vec<Unlisted> {
        strays::still_held(self.root.processes(), strays)
    }
}

/// The files of a table, one after the other.
struct Files([Option<File>; 2]);

impl io::Read for Files {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for file in self.0.iter_mut().flatten() {
            let length = file.read(buffer)?;
            if length > 0 {
                return Ok(length);
            }
        }
        Ok(0)
    }
}

/// A table that is shown to a tee while it is read.
struct Teed<'a, 't> {
    file: Files,
    table: Table,
    tee: Option<&'a mut Tee<'t>>,
}

impl io::Read for Teed<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        if let (Some(tee), Some(bytes)) = (self.tee.as_deref_mut(), buffer.get(..length)) {
            tee(Collector::Procfs, self.table, bytes);
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
        self.owners_until = deadline;
        let (mut owners, mut coverage) = owners::read(self.root.processes(), deadline);
        coverage.nested_pids = self.root.is_nested();
        if self.root.is_own() {
            owners::name_users(&mut owners, deadline);
        }
        (owners, coverage)
    }

    fn owners_of(&mut self, listed: &Inodes) -> (Owners, Coverage) {
        let Some(remembered) = &mut self.remembered else {
            return self.owners();
        };
        let deadline = self
            .owner_deadline
            .and_then(|limit| Instant::now().checked_add(limit));
        self.owners_until = deadline;
        let (mut owners, mut coverage) = remembered.look(self.root.processes(), listed, deadline);
        coverage.nested_pids = self.root.is_nested();
        if self.root.is_own() {
            remembered.name_users(&mut owners, |uid| owners::user(uid, deadline));
        }
        (owners, coverage)
    }

    fn cpu(&mut self, cgroups: &BTreeSet<String>) -> BTreeMap<String, Cpu> {
        // Of another root nobody knows where its hierarchy is mounted here.
        if !self.root.is_own() {
            return BTreeMap::new();
        }
        let mountinfo = facts::text(&self.root.reader().join("mountinfo"));
        cgroups::read(&mountinfo.unwrap_or_default(), cgroups)
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
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::process;

    use super::super::Row;
    use super::*;
    use crate::model::{Attributes, Socket, StateSet, TcpState, Timer};

    const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/proc");

    fn dump(source: &mut Procfs, want: &Want) -> Result<(Vec<Socket>, Coverage), Error> {
        let mut sockets = Vec::new();
        let coverage = source.dump(want, &mut |row| {
            let Row::Inet { socket, attributes } = row else {
                return ControlFlow::Continue(());
            };
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

    #[test]
    fn udp_and_unix_sockets_of_this_machine_are_in_their_tables() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (rows, coverage) = dump(&mut Procfs::default(), &Want::all(Protocol::Udp)).unwrap();
        assert!(coverage.rows_complete(), "{coverage:?}");
        let row = rows.iter().find(|row| row.inode == inode_of(&socket));
        assert_eq!(row.unwrap().protocol, Protocol::Udp);
        let (listener, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut seen = false;
        let unix = Want::all(Protocol::Unix);
        let coverage = Procfs::default().dump(&unix, &mut |row| {
            if let Row::Unix(socket) = row {
                seen |= socket.inode == inode_of(&listener);
            }
            ControlFlow::Continue(())
        });
        assert!(coverage.is_ok() && seen);
    }

    #[test]
    fn a_copy_without_a_table_has_not_recorded_it() {
        for protocol in [Protocol::Udp, Protocol::Unix] {
            let mut source = Procfs::new(ProcRoot::new(FIXTURE));
            let error = dump(&mut source, &Want::all(protocol)).unwrap_err();
            assert!(matches!(error, Error::NotRecorded(_)), "{error}");
        }
    }
}
