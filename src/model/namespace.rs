//! Network namespaces, as people tell them apart.

use serde::Serialize;

/// A network namespace (network_namespaces(7)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Namespace {
    /// its name, or `net:[INODE]` as `readlink /proc/PID/ns/net` has it
    pub label: String,
    /// its name below `/run/netns`, where `ip netns` gave it one
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// the inode of its file, which tells it from all others as long as it exists
    pub inode: u64,
    /// whether this program was started in it
    pub own: bool,
    /// without a name: the lowest pid of the processes in it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// the name of that process
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
}

impl Namespace {
    /// The namespace with `inode`, under its name if it has one.
    pub fn new(name: Option<String>, inode: u64) -> Self {
        Self {
            label: name.clone().unwrap_or_else(|| format!("net:[{inode}]")),
            name,
            inode,
            ..Self::default()
        }
    }

    /// The label, and what tells more of a namespace without a name: `net:[4026532177] pid 812 (nginx)`. Not yet safe to
    /// print.
    pub fn shown(&self) -> String {
        match (&self.name, self.own, self.pid, &self.comm) {
            (Some(name), ..) => name.clone(),
            (None, true, ..) => format!("{} own", self.label),
            (None, false, Some(pid), Some(comm)) => format!("{} pid {pid} ({comm})", self.label),
            (None, false, Some(pid), None) => format!("{} pid {pid}", self.label),
            (None, false, None, _) => self.label.clone(),
        }
    }

    /// What names it to `--netns`; `None` for the one that is looked at without that option.
    pub fn option(&self) -> Option<String> {
        match (self.own, &self.name, self.pid) {
            (true, ..) => None,
            (false, Some(name), _) => Some(name.clone()),
            (false, None, pid) => pid.map(|pid| pid.to_string()),
        }
    }
}

/// A namespace that was to be looked at, and whether it was seen whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// which
    #[serde(flatten)]
    pub namespace: Namespace,
    /// whether everything in it that was asked for was seen
    pub complete: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_shown_by_its_name_or_by_who_is_in_it() {
        let named = Namespace::new(Some("blue".to_owned()), 7);
        assert_eq!((&named.label[..], &named.shown()[..]), ("blue", "blue"));
        assert_eq!(named.option().as_deref(), Some("blue"));
        let mut nameless = Namespace::new(None, 7);
        assert_eq!(nameless.shown(), "net:[7]");
        assert_eq!(nameless.option(), None, "nothing leads there");
        (nameless.pid, nameless.comm) = (Some(812), Some("nginx".to_owned()));
        assert_eq!(nameless.shown(), "net:[7] pid 812 (nginx)");
        assert_eq!(nameless.option().as_deref(), Some("812"));
        nameless.own = true;
        assert_eq!(nameless.shown(), "net:[7] own");
        assert_eq!(nameless.option(), None);
    }
}
