//! Names for the numbers of the kernel: interfaces, users, cgroups, namespaces, hosts, services.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{args, lookup, source};
use crate::collect::hosts::{self, Hosts, Wanted};
use crate::collect::netns::Namespaces;
use crate::collect::procfs::cgroups;
use crate::collect::{Source, Want, names};
use crate::fields::{Names, Record};
use crate::model::{AgeFacts, Namespace, Owners, Protocol};
use crate::query::Filter;

/// How long a listing waits for the names of its addresses, in all.
const RESOLVED_WITHIN: Duration = Duration::from_secs(2);

/// The names of this machine's interfaces, users and cgroups; a capture's interfaces are not known, and its cgroups only
/// by their processes.
pub struct Numbers {
    /// index -> name
    pub interfaces: FxHashMap<u32, String>,
    /// uid -> name, where a column shows it
    pub users: FxHashMap<u32, String>,
    /// whether hosts and services are named: with `-r`
    resolved: bool,
    /// with `-r`
    hosts: Hosts,
    /// with `-r`
    services: FxHashMap<(Protocol, u16), String>,
    /// where there are several
    pub namespaces: Option<Rc<Namespaces>>,
    /// where there is one
    namespace: Option<Namespace>,
    /// id -> path
    pub cgroups: cgroups::Paths,
}

impl Numbers {
    /// Of users none yet: they are read where a column shows them.
    pub fn of(machine: &dyn Source, common: &args::Common) -> Self {
        Self {
            interfaces: if machine.is_capture() {
                FxHashMap::default()
            } else {
                names::interfaces()
            },
            users: FxHashMap::default(),
            cgroups: if machine.is_capture() {
                cgroups::Paths::none()
            } else {
                cgroups::Paths::new("/proc/self/mountinfo")
            },
            resolved: false,
            hosts: Hosts::default(),
            services: FxHashMap::default(),
            namespaces: machine.namespaces(),
            namespace: source::namespace(common, &machine.host()),
        }
    }

    /// Looks the addresses of the rows up that fit, before the first of them is shown, because rows stream. Says what was
    /// not known in time. What fails here fails again in the listing.
    pub fn resolve(
        &mut self,
        machine: &mut dyn Source,
        filters: &[(Protocol, Filter)],
        want: &Want,
        owners: Option<&Owners>,
        ages: &AgeFacts,
    ) -> Option<String> {
        let mut wanted = Wanted::default();
        for (protocol, filter) in filters.iter().filter(|(protocol, _)| protocol.over_ip()) {
            let want = Want {
                protocol: *protocol,
                states: filter.states().of_protocol(*protocol),
                ..*want
            };
            let _ = machine.dump(&want, &mut |row| {
                let (socket, attributes, ends) = row.parts();
                let record = Record {
                    socket: &socket,
                    attributes: &attributes,
                    ends,
                    owners,
                    ages,
                    names: self,
                };
                if filter.matches(&record) {
                    wanted.add(socket.remote_ip());
                    wanted.add(socket.local_ip());
                }
                ControlFlow::Continue(())
            });
        }
        self.resolved = true;
        self.hosts = hosts::resolve(wanted, hosts::System, RESOLVED_WITHIN);
        self.services = lookup::services();
        self.hosts.note().map(str::to_owned)
    }

    /// The settings that ages depend on in the namespace of a socket, where there are several.
    pub fn ages(&self, netns: u16) -> Option<&AgeFacts> {
        self.namespaces.as_ref()?.ages(netns)
    }
}

impl Names for Numbers {
    fn interface(&self, netns: u16, index: u32) -> Option<&str> {
        match &self.namespaces {
            Some(all) => all.interface(netns, index),
            None => self.interfaces.get(&index).map(String::as_str),
        }
    }

    fn namespace(&self, netns: u16) -> Option<&Namespace> {
        match &self.namespaces {
            Some(all) => all.get(netns),
            None => self.namespace.as_ref(),
        }
    }

    fn user(&self, uid: u32) -> Option<&str> {
        self.users.get(&uid).map(String::as_str)
    }

    fn cgroup(&self, id: u64) -> Option<&str> {
        self.cgroups.of(id)
    }

    fn host(&self, ip: IpAddr) -> Option<&str> {
        self.resolved.then(|| self.hosts.name(ip))?
    }

    fn service(&self, protocol: Protocol, port: u16) -> Option<&str> {
        if !self.resolved {
            return None;
        }
        let over = match protocol {
            Protocol::Mptcp => Protocol::Tcp,
            Protocol::UdpLite => Protocol::Udp,
            other => other,
        };
        self.services.get(&(over, port)).map(String::as_str)
    }
}
