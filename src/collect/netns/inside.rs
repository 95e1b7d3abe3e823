//! The namespaces as machines of their own, each with its sockets, settings and counters; the processes are shared.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use super::{Error, Found, Handle, Traveller, all, sparse};
use crate::collect::live::{Choice, Live};
use crate::collect::procfs::{ProcRoot, Procfs};
use crate::collect::{self, Inodes, RowSink, Source, Want};
use crate::model::owner::Link;
use crate::model::{Coverage, Cpu, Facts, Host, Namespace, Owners, Unlisted};

/// What the namespaces have in common.
#[derive(Debug)]
struct Shared {
    choice: Choice,
    root: ProcRoot,
    traveller: Traveller<Rc<Handle>>,
    /// of all processes, until the next sample
    owners: RefCell<Option<(Owners, Coverage)>>,
}

/// One of several namespaces. The calling thread enters it for each look, and stays until another one is looked at.
#[derive(Debug)]
pub struct Inside {
    shared: Rc<Shared>,
    found: Found,
    number: u16,
    /// the inodes of the sockets that were seen in this sample
    listed: Inodes,
}

/// Every namespace, our own first, and what could not be found out, a sentence each.
///
/// # Errors
/// When our own is not known.
pub fn insides(choice: Choice, root: ProcRoot) -> Result<(Vec<Inside>, Vec<String>), Error> {
    let home = Rc::new(Handle::own()?);
    let root = root.entered();
    let (found, gaps) = all(&root, &home);
    let shared = Rc::new(Shared {
        choice,
        root,
        traveller: Traveller::new(home),
        owners: RefCell::default(),
    });
    let insides = (0u16..).zip(found).map(|(number, found)| Inside {
        shared: Rc::clone(&shared),
        found,
        number,
        listed: Inodes::default(),
    });
    Ok((insides.collect(), gaps))
}

impl Inside {
    /// Which one.
    pub const fn namespace(&self) -> &Namespace {
        &self.found.namespace
    }

    /// Enters it.
    ///
    /// # Errors
    /// When it has vanished or may not be entered.
    pub fn enter(&self) -> Result<(), Error> {
        self.shared.traveller.go(&self.found)
    }

    fn live(&self) -> Live {
        Live::new(self.shared.choice, self.shared.root.clone())
    }

    fn procfs(&self) -> Procfs {
        Procfs::new(self.shared.root.clone())
    }

    /// What of all owners concerns this namespace: the sockets that were seen in it, and the processes that are in it.
    fn own_part(&self, all: &Owners) -> Owners {
        let inode = Some(self.found.namespace.inode);
        let mut kept: BTreeMap<u32, u32> = BTreeMap::new();
        let mut processes = Vec::new();
        let mut links: Vec<Link> = Vec::new();
        for link in all.links() {
            let Some(process) = all.process(link.process) else {
                continue;
            };
            if process.netns != inode && !self.listed.contains(&link.inode) {
                continue;
            }
            let index = *kept.entry(link.process).or_insert_with(|| {
                processes.push(process.clone());
                u32::try_from(processes.len() - 1).unwrap_or(u32::MAX)
            });
            links.push(Link {
                process: index,
                ..*link
            });
        }
        Owners::new(processes, links)
    }
}

impl Source for Inside {
    fn dump(&mut self, want: &Want, row: &mut RowSink<'_>) -> Result<Coverage, collect::Error> {
        self.enter()?;
        let (mut live, number) = (self.live(), self.number);
        let listed = &mut self.listed;
        let root = &self.shared.root;
        sparse::dump(
            &mut live,
            root,
            want,
            &mut |one| {
                listed.insert(one.inode());
                row(one.within(number))
            },
            None,
        )
    }

    fn owners(&mut self) -> (Owners, Coverage) {
        let mut owners = self.shared.owners.borrow_mut();
        let (all, coverage) = owners.get_or_insert_with(|| {
            // Names of users may be asked for over our own network. Without a way home they are asked for from here.
            drop(self.shared.traveller.home());
            self.procfs().owners()
        });
        (self.own_part(all), coverage.clone())
    }

    fn unlisted(&mut self, owners: &Owners, listed: &Inodes) -> Option<Vec<Unlisted>> {
        self.enter().ok()?;
        self.live().unlisted(owners, listed)
    }

    fn cpu(&mut self, cgroups: &BTreeSet<String>) -> BTreeMap<String, Cpu> {
        self.procfs().cpu(cgroups)
    }

    fn facts(&mut self) -> Facts {
        match self.enter() {
            Ok(()) => self.procfs().facts(),
            // Unknown, and not another namespace's.
            Err(_) => Facts::default(),
        }
    }

    fn host(&self) -> Host {
        Host {
            netns: Some(self.found.namespace.inode),
            ..self.shared.root.host()
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn advance(&mut self, wait: Duration) -> bool {
        thread::sleep(wait);
        self.renew();
        true
    }
}

impl Inside {
    /// Forgets what was seen of processes and sockets: the next sample has its own.
    pub fn renew(&mut self) {
        self.shared.owners.borrow_mut().take();
        self.listed.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::ops::ControlFlow;

    use super::*;
    use crate::collect::Row;
    use crate::model::StateSet;

    #[test]
    fn our_own_namespace_is_read_without_going_anywhere() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mut insides, _) = insides(Choice::Auto, ProcRoot::default()).unwrap();
        let own = insides.first_mut().unwrap();
        assert!(own.namespace().own);
        let mut seen = false;
        let coverage = own
            .dump(&Want::states(StateSet::ALL), &mut |row| {
                if let Row::Inet { socket, .. } = row {
                    seen |= socket.local.port == port;
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        assert!(seen && coverage.rows_complete(), "{coverage:?}");
        let (owners, _) = own.owners();
        let me = std::process::id();
        assert!(owners.processes().iter().any(|process| process.pid == me));
        assert_eq!(own.host().netns, Some(own.namespace().inode));
        assert!(!own.facts().sysctls.is_empty());
    }
}
