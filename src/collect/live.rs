//! This machine: `sock_diag` where the kernel lets us, `/proc/net` where it does not, and always says which.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;

use super::netlink::{Destroyed, Netlink};
use super::procfs::remembered::Remembered;
use super::procfs::{ProcRoot, Procfs, tables};
use super::{Error, Inodes, Row, RowSink, Source, Tee, Want};
use crate::model::{
    Coverage, Cpu, Facts, Host, Owners, Program, Protocol, Socket, StateSet, Unlisted,
};

/// How sockets are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// `sock_diag`, or `/proc/net` if it is refused
    #[default]
    Auto,
    /// `sock_diag` or an error
    Netlink,
    /// `/proc/net`
    Procfs,
}

/// Where to turn to if netlink does not tell.
enum Instead {
    /// the tables of `/proc/net`, for this reason
    Procfs(String),
    /// nowhere: this is all there is to say
    Said(Box<Coverage>),
}

/// The machine that this program runs on, or one whose `/proc` is mounted here.
#[derive(Debug)]
pub struct Live {
    choice: Choice,
    netlink: Option<Netlink>,
    fell_back: Option<String>,
    root: ProcRoot,
    procfs: Procfs,
    /// the answer of the last walk through all descriptors, where owners are remembered
    unlisted: Option<Vec<Unlisted>>,
    mixed: bool,
    slices: Option<NonZeroUsize>,
}

impl Live {
    /// Reads by `choice`, and processes and settings below `root`.
    pub fn new(choice: Choice, root: ProcRoot) -> Self {
        let procfs = Procfs::new(root.clone());
        let (mut choice, mut fell_back) = (choice, None);
        if choice == Choice::Auto && !root.is_own() && !same_namespace(&root) {
            // Netlink would show the sockets of our own namespace beside the processes of another.
            choice = Choice::Procfs;
            fell_back =
                Some("the proc root shows another network namespace, or is a copy".to_owned());
        }
        Self {
            choice,
            netlink: None,
            fell_back,
            root,
            procfs,
            unlisted: None,
            mixed: false,
            slices: None,
        }
    }

    /// In how many slices at once the TCP sockets are asked for; `None` leaves that to their number. See [`Netlink::cut`].
    pub const fn cut(&mut self, slices: Option<NonZeroUsize>) {
        self.slices = slices;
    }

    /// Whether owners are remembered from look to look ([`procfs::remembered`](super::procfs::remembered)), as a program
    /// wants it that looks every second. TCP sockets of both families then come in no order: see [`Netlink::mix_families`].
    pub fn remember_owners(&mut self, remember: bool) {
        self.procfs.remember_owners(remember);
        self.mixed = remember;
    }

    /// What is remembered of owners.
    pub const fn remembered(&self) -> Option<&Remembered> {
        self.procfs.remembered()
    }

    /// Dumps like [`Source::dump`] and shows what came in to `tee`.
    ///
    /// # Errors
    /// As [`Source::dump`].
    pub fn dump_teed(
        &mut self,
        want: &Want,
        row: &mut RowSink<'_>,
        tee: Option<&mut Tee<'_>>,
    ) -> Result<Coverage, Error> {
        self.read(want, &Program::default(), row, tee)
    }

    fn read(
        &mut self,
        want: &Want,
        program: &Program,
        row: &mut RowSink<'_>,
        mut tee: Option<&mut Tee<'_>>,
    ) -> Result<Coverage, Error> {
        let mut module = None;
        if self.choice != Choice::Procfs {
            match self.by_netlink(want, program, row, tee.as_deref_mut()) {
                // Each protocol has a module of its own, which may be missing while the others are there.
                Err(Error::NoSockDiag(why)) if want.protocol != Protocol::Tcp => {
                    match self.without_module(want.protocol, why)? {
                        Instead::Said(coverage) => return Ok(*coverage),
                        Instead::Procfs(why) => module = Some(why),
                    }
                }
                Err(Error::NoSockDiag(why)) if self.choice == Choice::Auto => {
                    self.choice = Choice::Procfs;
                    self.fell_back = Some(format!("sock_diag is not usable, {why}"));
                }
                other => return other,
            }
        }
        if program.required {
            let why = "/proc/net does not tell".to_owned();
            return Err(Error::Unfiltered(match &self.fell_back {
                Some(reason) => format!("{reason}, and {why}"),
                None => why,
            }));
        }
        let coverage = self.procfs.dump_teed(want, row, tee);
        let why = module.as_ref().or(self.fell_back.as_ref());
        let mut coverage = coverage.map_err(|error| match (why, error) {
            // What a copy does not have is no failure.
            (_, error @ Error::NotRecorded(_)) => error,
            (Some(why), error) => Error::Nothing(format!("{why}; {error}")),
            (None, error) => error,
        })?;
        coverage.fell_back.clone_from(&self.fell_back);
        coverage
            .from_proc
            .extend(module.map(|why| (want.protocol, why)));
        Ok(coverage)
    }

    /// What to do where `sock_diag` does not tell of a protocol, and says why: it may be that there are no such sockets,
    /// or that `/proc/net` shows them.
    ///
    /// # Errors
    /// When nothing but netlink was to be used.
    fn without_module(&self, protocol: Protocol, why: String) -> Result<Instead, Error> {
        let mut coverage = Coverage::default();
        // The kernel is the same whatever is mounted where, and a copy is of another.
        let own = ProcRoot::default();
        let root = if self.root.is_this_machine() {
            &self.root
        } else {
            &own
        };
        if tables::has(root, protocol) == Some(false) {
            coverage.absent.push(protocol);
        } else if self.choice == Choice::Netlink {
            return Err(Error::NoSockDiag(why));
        } else if tables::shows(protocol) {
            return Ok(Instead::Procfs(why));
        } else {
            let part = format!("{}, and {why}", tables::gap(protocol));
            coverage.missing.push(part);
        }
        Ok(Instead::Said(Box::new(coverage)))
    }

    /// Destroys a socket that a dump over netlink has shown, if `wanted` still says so of the socket as it is now. The
    /// request goes through the netlink socket of the dump, and so to the same network namespace.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn destroy(
        &mut self,
        socket: &Socket,
        want: &Want,
        wanted: &mut dyn FnMut(Row<'_>) -> bool,
    ) -> Result<Destroyed, Error> {
        let netlink = match &mut self.netlink {
            Some(netlink) => netlink,
            none => none.insert(Netlink::open()?),
        };
        netlink.destroy(socket, want, wanted)
    }

    /// Descriptors of TCP sockets that no table shows.
    fn strays(&mut self, owners: &Owners, listed: &Inodes) -> Option<Vec<Unlisted>> {
        let host = self.procfs.host();
        if self.choice == Choice::Procfs || !lists_bound_sockets(&host.kernel) {
            return None;
        }
        let mut found = self.procfs.strays(owners, listed, host.netns?)?;
        if found.is_empty() {
            return Some(Vec::new());
        }
        // A socket that was bound or connected while the first look went on is in the table by now.
        let mut now = Inodes::default();
        let coverage = self.dump(&Want::states(StateSet::ALL), &mut |row| {
            if let Row::Inet { socket, .. } = row {
                now.insert(socket.inode);
            }
            ControlFlow::Continue(())
        });
        if !coverage.is_ok_and(|coverage| coverage.rows_complete()) {
            return None;
        }
        for stray in &mut found {
            stray.retain(|inode| !now.contains(&inode));
        }
        Some(self.procfs.still_held(found))
    }

    fn by_netlink(
        &mut self,
        want: &Want,
        program: &Program,
        row: &mut RowSink<'_>,
        tee: Option<&mut Tee<'_>>,
    ) -> Result<Coverage, Error> {
        let netlink = match &mut self.netlink {
            Some(netlink) => netlink,
            none => none.insert(Netlink::open()?),
        };
        netlink.mix_families(self.mixed);
        netlink.cut(self.slices);
        let mut coverage = netlink.dump(want, program, row, tee)?;
        if !self.root.is_own() && !same_namespace(&self.root) {
            coverage.missing.push(
                "owners and settings of these sockets: the proc root shows another network namespace"
                    .to_owned(),
            );
        }
        Ok(coverage)
    }
}

/// Whether the kernel of this release shows sockets that are only bound, so that they are not taken for closed ones:
/// since 6.8 (`TCPF_BOUND_INACTIVE`, `net/ipv4/inet_diag.c`).
fn lists_bound_sockets(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    next().zip(next()).is_some_and(|version| version >= (6, 8))
}

/// Whether `root` shows the network namespace that our netlink sockets are opened in.
fn same_namespace(root: &ProcRoot) -> bool {
    let theirs = root.netns_inode();
    theirs.is_some() && theirs == ProcRoot::default().netns_inode()
}

impl Source for Live {
    fn dump(&mut self, want: &Want, row: &mut RowSink<'_>) -> Result<Coverage, Error> {
        self.dump_teed(want, row, None)
    }

    fn select(
        &mut self,
        want: &Want,
        program: &Program,
        row: &mut RowSink<'_>,
    ) -> Result<Coverage, Error> {
        self.read(want, program, row, None)
    }

    fn about(&self) -> Option<u64> {
        self.root.tcp_sockets()
    }

    fn owners(&mut self) -> (Owners, Coverage) {
        self.procfs.owners()
    }

    fn owners_of(&mut self, listed: &Inodes) -> (Owners, Coverage) {
        self.procfs.owners_of(listed)
    }

    fn unlisted(&mut self, owners: &Owners, listed: &Inodes) -> Option<Vec<Unlisted>> {
        if self.remembered().is_some_and(|it| !it.walked_now()) {
            // Only a walk shows descriptors that no table does: until the next one the answer of the last stands.
            let mut last = self.unlisted.clone()?;
            last.retain(|leak| owners.processes().iter().any(|one| one.pid == leak.pid));
            return Some(last);
        }
        let found = self.strays(owners, listed);
        self.unlisted.clone_from(&found);
        found
    }

    fn cpu(&mut self, cgroups: &BTreeSet<String>) -> BTreeMap<String, Cpu> {
        self.procfs.cpu(cgroups)
    }

    fn facts(&mut self) -> Facts {
        self.procfs.facts()
    }

    fn host(&self) -> Host {
        self.procfs.host()
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn advance(&mut self, wait: Duration) -> bool {
        std::thread::sleep(wait);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::model::{Collector, TcpState};

    const COPY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/proc");

    fn listening(source: &mut Live) -> (Vec<u16>, Coverage) {
        let mut ports = Vec::new();
        let want = Want::states(StateSet::of(TcpState::Listen));
        let coverage = source
            .dump(&want, &mut |row| {
                if let Row::Inet { socket, .. } = row {
                    ports.push(socket.local.port);
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        (ports, coverage)
    }

    #[test]
    fn both_collectors_see_a_listener_and_say_who_they_are() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for (choice, collector) in [
            (Choice::Netlink, Collector::Netlink),
            (Choice::Procfs, Collector::Procfs),
        ] {
            let (ports, coverage) = listening(&mut Live::new(choice, ProcRoot::default()));
            assert!(ports.contains(&port), "{choice:?}");
            assert_eq!((coverage.collector, coverage.fell_back), (collector, None));
        }
    }

    #[test]
    fn kernels_before_6_8_hide_bound_sockets() {
        for (release, shows) in [
            ("6.18.44-x", true),
            ("6.8.0", true),
            ("6.7.12", false),
            ("5.15.0-91-generic", false),
            ("10.0", true),
            ("", false),
        ] {
            assert_eq!(lists_bound_sockets(release), shows, "{release}");
        }
    }

    #[test]
    fn the_sockets_of_one_namespace_are_not_mixed_with_the_processes_of_another() {
        let (_, coverage) = listening(&mut Live::new(Choice::Auto, ProcRoot::new(COPY)));
        assert_eq!(coverage.collector, Collector::Procfs);
        assert!(coverage.fell_back.is_some(), "the choice is said");
        let (_, coverage) = listening(&mut Live::new(Choice::Netlink, ProcRoot::new(COPY)));
        assert_eq!(coverage.collector, Collector::Netlink);
        assert!(
            !coverage.complete(),
            "what was forced is said to be partial"
        );
    }
}
