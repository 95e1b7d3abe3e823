//! Which namespaces there are: those with a name, and those that only processes are in.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Error, Handle};
use crate::collect::procfs::{ProcRoot, netns_of};
use crate::model::words::count;
use crate::model::{Namespace, nearest};

/// Where `ip netns` keeps the names. The second is the first on most systems, and the older.
const NAMES: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// So many processes of a namespace are remembered, so that it is still found when one of them ends.
const HOLDERS: usize = 4;

/// Where the file of a namespace is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// the file
    pub path: PathBuf,
    /// its name, if it was found by that
    pub name: Option<String>,
    /// the process, if it was found by that
    pub pid: Option<u32>,
}

impl Place {
    /// What an error of opening it means: of a process's file, that the process is gone.
    pub(super) fn blame(&self, error: Error) -> Error {
        match (self.pid, &error) {
            (Some(pid), Error::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Error::Ended(pid)
            }
            _ => error,
        }
    }
}

/// What `text` names: a path if there is a `/` in it, else a name below `/run/netns`, else a pid below `root`. A name
/// of digits wins over the pid, as it does for ip(8).
///
/// # Errors
/// When it is neither, with the names that are near.
pub fn find(text: &OsStr, root: &ProcRoot) -> Result<Place, Error> {
    find_below(text, root, &NAMES.map(Path::new))
}

fn find_below(text: &OsStr, root: &ProcRoot, names: &[&Path]) -> Result<Place, Error> {
    let shown = text.to_string_lossy().into_owned();
    if text.as_bytes().contains(&b'/') {
        return Ok(Place {
            path: PathBuf::from(text),
            name: None,
            pid: None,
        });
    }
    let is_name = !["", ".", ".."].contains(&&shown[..]);
    let named = names.iter().map(|directory| directory.join(text));
    if is_name && let Some(path) = { named }.find(|path| path.symlink_metadata().is_ok()) {
        return Ok(Place {
            path,
            name: Some(shown),
            pid: None,
        });
    }
    let pid = shown.parse::<u32>().ok();
    if let Some(pid) = pid
        && netns_of(root.processes(), pid).is_some()
    {
        return Ok(Place {
            path: root.processes().join(pid.to_string()).join("ns/net"),
            name: None,
            pid: Some(pid),
        });
    }
    let known = named_below(names);
    let known: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
    let near = nearest(&shown, known);
    Err(Error::Unknown {
        near: near.into_iter().map(str::to_owned).collect(),
        number: pid.is_some(),
        name: shown,
    })
}

/// Names and files, by name.
fn named_below(directories: &[&Path]) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for directory in directories {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !found.iter().any(|(known, _)| *known == name) {
                found.push((name, entry.path()));
            }
        }
    }
    found.sort();
    found
}

/// A namespace, and the ways that lead to it.
#[derive(Clone, Debug)]
pub struct Found {
    /// which
    pub namespace: Namespace,
    /// files of it, the surest first
    paths: Vec<PathBuf>,
}

impl Found {
    /// Opens it by the first way that still leads there.
    ///
    /// # Errors
    /// When there is none any more, or it may not be opened.
    pub fn open(&self) -> Result<Handle, Error> {
        let mut refused = None;
        for path in &self.paths {
            match Handle::open(path) {
                // Another one may have got the name, or the pid, meanwhile.
                Ok(handle) if handle.inode() == self.namespace.inode => return Ok(handle),
                Ok(_) | Err(Error::NotOne { .. }) => {}
                Err(Error::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| Error::Vanished(self.namespace.label.clone())))
    }
}

/// Every namespace once, our own first, then those with names, then those that only processes are in; and what could
/// not be found out, a sentence each. A namespace that only a descriptor, a mount elsewhere or a thread keeps alive is
/// not found.
///
/// # Errors
/// When not even our own is known.
pub fn all(root: &ProcRoot, own: &Handle) -> (Vec<Found>, Vec<String>) {
    all_below(root, own, &NAMES.map(Path::new))
}

fn all_below(root: &ProcRoot, own: &Handle, names: &[&Path]) -> (Vec<Found>, Vec<String>) {
    let mut gaps = Vec::new();
    let mut found = vec![Found {
        namespace: Namespace {
            own: true,
            ..Namespace::new(None, own.inode())
        },
        paths: Vec::new(),
    }];
    let mut place: BTreeMap<u64, usize> = BTreeMap::from([(own.inode(), 0)]);
    for (name, path) in named_below(names) {
        let inode = match Handle::open(&path) {
            Ok(handle) => handle.inode(),
            Err(error) => {
                gaps.push(error.to_string());
                continue;
            }
        };
        let at = *place.entry(inode).or_insert(found.len());
        match found.get_mut(at) {
            Some(known) => {
                // Of several names the first is shown.
                if known.namespace.name.is_none() {
                    known.namespace.label.clone_from(&name);
                    known.namespace.name = Some(name);
                }
                known.paths.push(path);
            }
            None => found.push(Found {
                namespace: Namespace::new(Some(name), inode),
                paths: vec![path],
            }),
        }
    }
    let named = found.len();
    let (holders, hidden) = holders(root.processes());
    for (inode, pids) in holders {
        let files = pids
            .iter()
            .map(|pid| root.processes().join(pid.to_string()).join("ns/net"));
        if let Some(known) = place.get(&inode).and_then(|at| found.get_mut(*at)) {
            known.paths.extend(files);
            continue;
        }
        let pid = pids.first().copied();
        found.push(Found {
            namespace: Namespace {
                comm: pid.and_then(|pid| comm(root.processes(), pid)),
                pid,
                ..Namespace::new(None, inode)
            },
            paths: files.collect(),
        });
    }
    // By the lowest pid, which is the order in which they came to be.
    if let Some(nameless) = found.get_mut(named..) {
        nameless.sort_by_key(|found| found.namespace.pid);
    }
    if hidden > 0 {
        gaps.push(format!(
            "network namespaces of {} could not be asked: that takes root, or CAP_SYS_PTRACE",
            count(u64::from(hidden), "process")
        ));
    }
    (found, gaps)
}

/// The lowest pids of each namespace, and how many processes may not be asked.
fn holders(processes: &Path) -> (BTreeMap<u64, Vec<u32>>, u32) {
    let mut pids: Vec<u32> = fs::read_dir(processes)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let (mut holders, mut hidden) = (BTreeMap::<u64, Vec<u32>>::new(), 0);
    for pid in pids {
        match netns_of(processes, pid) {
            Some(Some(inode)) => {
                let known = holders.entry(inode).or_default();
                if known.len() < HOLDERS {
                    known.push(pid);
                }
            }
            // A process that has ended and waits for its parent is in none.
            Some(None) => hidden += u32::from(is_hidden(processes, pid)),
            None => {}
        }
    }
    (holders, hidden)
}

fn is_hidden(processes: &Path, pid: u32) -> bool {
    let link = processes.join(pid.to_string()).join("ns/net");
    fs::read_link(link).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn comm(processes: &Path, pid: u32) -> Option<String> {
    let comm = fs::read(processes.join(pid.to_string()).join("comm")).ok()?;
    let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
    Some(String::from_utf8_lossy(comm).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_name_wins_over_a_pid_and_a_slash_makes_a_path() {
        let names = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let (root, below) = (ProcRoot::default(), [names.path()]);
        let find = |text: &str| find_below(OsStr::new(text), &root, &below);
        assert_eq!(find(&own.to_string()).unwrap().pid, Some(own));
        symlink("/proc/self/ns/net", names.path().join(own.to_string())).unwrap();
        symlink("/proc/self/ns/net", names.path().join("blue")).unwrap();
        let named = find(&own.to_string()).unwrap();
        assert_eq!((named.pid, named.name), (None, Some(own.to_string())));
        let path = find("./blue").unwrap();
        assert_eq!(
            (path.path, path.name, path.pid),
            ("./blue".into(), None, None)
        );
        let error = find("bleu").unwrap_err();
        assert!(error.hint().unwrap().contains("did you mean blue?"));
        assert!(error.hint().unwrap().contains("ip netns list"));
        for nothing in ["", ".", "..", "999999999", "4294967296", "-1"] {
            let error = find(nothing).unwrap_err();
            assert!(matches!(error, Error::Unknown { .. }), "{nothing}");
        }
    }

    #[test]
    fn a_process_that_ended_is_told_from_a_file_that_is_missing() {
        let gone = Place {
            path: "/proc/999999999/ns/net".into(),
            name: None,
            pid: Some(999_999_999),
        };
        assert!(matches!(super::super::enter(&gone), Err(Error::Ended(_))));
        let missing = Place {
            path: "/run/netns/no-such-namespace".into(),
            name: None,
            pid: None,
        };
        let error = super::super::enter(&missing);
        assert!(matches!(error, Err(Error::Open { .. })));
    }

    #[test]
    fn our_own_is_found_once_by_however_many_names_and_what_is_none_is_said() {
        let names = tempfile::tempdir().unwrap();
        for name in ["b", "a"] {
            symlink("/proc/self/ns/net", names.path().join(name)).unwrap();
        }
        fs::write(names.path().join("stale"), "").unwrap();
        let own = Handle::own().unwrap();
        let (found, gaps) = all_below(&ProcRoot::default(), &own, &[names.path(), names.path()]);
        let ours: Vec<_> = found
            .iter()
            .filter(|found| found.namespace.inode == own.inode())
            .collect();
        assert_eq!(ours.len(), 1);
        assert_eq!(ours[0].namespace.name.as_deref(), Some("a"));
        assert!(ours[0].namespace.own && found[0].namespace.own);
        assert!(gaps[0].contains("stale"), "{gaps:?}");
    }

    #[test]
    fn one_that_vanished_or_was_replaced_is_not_taken_for_another() {
        let names = tempfile::tempdir().unwrap();
        let path = names.path().join("blue");
        let mut found = Found {
            namespace: Namespace::new(Some("blue".to_owned()), Handle::own().unwrap().inode()),
            paths: vec![path.clone(), "/proc/self/ns/net".into()],
        };
        assert!(found.open().is_ok(), "another way leads there");
        found.paths.pop();
        assert!(matches!(found.open(), Err(Error::Vanished(_))));
        symlink("/proc/self/ns/net", &path).unwrap();
        assert!(found.open().is_ok());
        found.namespace.inode += 1;
        assert!(matches!(found.open(), Err(Error::Vanished(_))));
    }
}
