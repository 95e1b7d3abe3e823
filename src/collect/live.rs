//! This machine: `sock_diag` where the kernel lets us, `/proc/net` where it does not, and always says which.

use std::time::Duration;

use jiff::Timestamp;

use super::netlink::Netlink;
use super::procfs::{ProcRoot, Procfs};
use super::{Error, RowSink, Source, Tee, Want};
use crate::model::{Coverage, Facts, Host, Owners};

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

/// The machine that this program runs on, or one whose `/proc` is mounted here.
#[derive(Debug)]
pub struct Live {
    choice: Choice,
    netlink: Option<Netlink>,
    fell_back: Option<String>,
    root: ProcRoot,
    procfs: Procfs,
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
        }
    }

    /// Dumps like [`Source::dump`] and shows what came in to `tee`.
    ///
    /// # Errors
    /// As [`Source::dump`].
    pub fn dump_teed(
        &mut self,
        want: &Want,
        row: &mut RowSink<'_>,
        mut tee: Option<&mut Tee<'_>>,
    ) -> Result<Coverage, Error> {
        if self.choice != Choice::Procfs {
            match self.by_netlink(want, row, tee.as_deref_mut()) {
                Err(Error::NoSockDiag(why)) if self.choice == Choice::Auto => {
                    self.choice = Choice::Procfs;
                    self.fell_back = Some(format!("sock_diag is not usable, {why}"));
                }
                other => return other,
            }
        }
        let coverage = self.procfs.dump_teed(want, row, tee);
        let mut coverage = coverage.map_err(|error| match &self.fell_back {
            Some(why) => Error::Nothing(format!("{why}; {error}")),
            None => error,
        })?;
        coverage.fell_back.clone_from(&self.fell_back);
        Ok(coverage)
    }

    fn by_netlink(
        &mut self,
        want: &Want,
        row: &mut RowSink<'_>,
        tee: Option<&mut Tee<'_>>,
    ) -> Result<Coverage, Error> {
        let netlink = match &mut self.netlink {
            Some(netlink) => netlink,
            none => none.insert(Netlink::open()?),
        };
        let mut coverage = netlink.dump(want, row, tee)?;
        if !self.root.is_own() && !same_namespace(&self.root) {
            coverage.missing.push(
                "owners and settings of these sockets: the proc root shows another network namespace"
                    .to_owned(),
            );
        }
        Ok(coverage)
    }
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

    fn owners(&mut self) -> (Owners, Coverage) {
        self.procfs.owners()
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
    use std::ops::ControlFlow;

    use super::*;
    use crate::collect::Row;
    use crate::model::{Collector, StateSet, TcpState};

    const COPY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/proc");

    fn listening(source: &mut Live) -> (Vec<u16>, Coverage) {
        let mut ports = Vec::new();
        let want = Want::states(StateSet::of(TcpState::Listen));
        let coverage = source
            .dump(&want, &mut |row| {
                let Row::Inet { socket, .. } = row;
                ports.push(socket.local.port);
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
