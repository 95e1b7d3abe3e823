//! Names for the numbers of a look: interfaces, users, namespaces, cgroups.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::cli::args::Common;
use crate::cli::source;
use crate::collect::netns::Inside;
use crate::collect::procfs::cgroups;
use crate::collect::{Source, names};
use crate::fields::Names;
use crate::model::{Namespace, Snapshot};

/// How long names stand that were read: they change seldom.
const STAND: Duration = Duration::from_secs(30);

/// What is known by name.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// of our one namespace
    interfaces: Arc<FxHashMap<u32, String>>,
    cgroups: Arc<FxHashMap<u64, String>>,
    users: Arc<FxHashMap<u32, String>>,
    namespaces: Arc<Vec<Namespace>>,
    read: Option<Instant>,
}

impl Known {
    /// Of one namespace; `cgroups` if their paths are asked for. What was read of late is not read again.
    pub fn look(&mut self, common: &Common, machine: &dyn Source, cgroups: bool) {
        if self.is_fresh(cgroups) {
            return;
        }
        let namespace = source::namespace(common, &machine.host());
        self.namespaces = Arc::new(namespace.into_iter().collect());
        if !machine.is_capture() {
            self.interfaces = Arc::new(names::interfaces());
            self.read_cgroups(cgroups);
        }
        self.read = Some(Instant::now());
    }

    /// Of every namespace. Interfaces have other numbers in each, and are not named.
    pub fn look_everywhere(&mut self, insides: &[Inside], cgroups: bool) {
        if self.is_fresh(cgroups) {
            return;
        }
        let namespaces = insides.iter().map(|inside| inside.namespace().clone());
        self.namespaces = Arc::new(namespaces.collect());
        self.read_cgroups(cgroups);
        self.read = Some(Instant::now());
    }

    fn is_fresh(&self, cgroups: bool) -> bool {
        let known = !cgroups || !self.cgroups.is_empty();
        known && self.read.is_some_and(|read| read.elapsed() < STAND)
    }

    fn read_cgroups(&mut self, wanted: bool) {
        if wanted {
            self.cgroups = Arc::new(cgroups::paths("/proc/self/mountinfo"));
        }
    }

    /// The users, as the processes of the looks have them.
    pub fn users<'s>(&mut self, snapshots: impl IntoIterator<Item = &'s Snapshot>) {
        let new: Vec<(u32, &str)> = snapshots
            .into_iter()
            .flat_map(|snapshot| snapshot.owners.processes())
            .filter_map(|process| Some((process.uid?, process.user.as_deref()?)))
            .filter(|(uid, _)| !self.users.contains_key(uid))
            .collect();
        if !new.is_empty() {
            let users = Arc::make_mut(&mut self.users);
            users.extend(new.into_iter().map(|(uid, name)| (uid, name.to_owned())));
        }
    }
}

impl Names for Known {
    fn interface(&self, _netns: u16, index: u32) -> Option<&str> {
        self.interfaces.get(&index).map(String::as_str)
    }

    fn namespace(&self, netns: u16) -> Option<&Namespace> {
        self.namespaces.get(usize::from(netns))
    }

    fn user(&self, uid: u32) -> Option<&str> {
        self.users.get(&uid).map(String::as_str)
    }

    fn cgroup(&self, id: u64) -> Option<&str> {
        self.cgroups.get(&id).map(String::as_str)
    }
}
