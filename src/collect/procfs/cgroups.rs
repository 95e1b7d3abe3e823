//! What control groups got of the processors, where the v2 hierarchy is mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::facts::text;
use crate::model::Cpu;

/// More groups than this are not asked; each takes two small files.
const MOST: usize = 4096;

/// Reads `cpu.stat` and `cpu.pressure` of the groups with these paths. `mountinfo` is the text of `/proc/PID/mountinfo`
/// and tells where the hierarchy is.
pub fn read(mountinfo: &str, cgroups: &BTreeSet<String>) -> BTreeMap<String, Cpu> {
    let Some(mount) = mount(mountinfo) else {
        return BTreeMap::new();
    };
    let cpu = |path: &String| {
        let directory = mount.directory(path)?;
        let read = |name: &str| text(&directory.join(name)).unwrap_or_default();
        let cpu = Cpu::parse(&read("cpu.stat"), &read("cpu.pressure"));
        (!cpu.is_empty()).then(|| (path.clone(), cpu))
    };
    cgroups.iter().take(MOST).filter_map(cpu).collect()
}

/// Where a part of the hierarchy is mounted.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// the group that is mounted
    root: String,
    /// where
    at: PathBuf,
}

impl Mount {
    /// The directory of the group; `None` for one outside of what is mounted.
    fn directory(&self, path: &str) -> Option<PathBuf> {
        let inner = path.strip_prefix(self.root.trim_end_matches('/'))?;
        let relative = inner.strip_prefix('/').or(inner.is_empty().then_some(""))?;
        // `..` is the way out of a cgroup namespace.
        let inside = !Path::new(relative)
            .components()
            .any(|part| !matches!(part, std::path::Component::Normal(_)));
        inside.then(|| self.at.join(relative))
    }
}

/// The mount with the most of the hierarchy (`Documentation/filesystems/proc.rst`, section 3.5).
fn mount(mountinfo: &str) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let kind = source.split_ascii_whitespace().next()?;
        let mut words = mount.split_ascii_whitespace().skip(3);
        let (root, at) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| Mount {
            root: unescaped(root),
            at: PathBuf::from(unescaped(at)),
        })
    });
    mounts.min_by_key(|mount| mount.root.len())
}

/// Blanks and the like are written as `\\040`.
fn unescaped(word: &str) -> String {
    let mut text = String::with_capacity(word.len());
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let digits = after.get(..3).filter(|digits| digits.is_ascii());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if byte.is_ascii() => {
                text.push(char::from(byte));
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                text.push('\\');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_files_are_read_below_the_mount() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().join("a b");
        fs::create_dir_all(at.join("web.service")).unwrap();
        fs::write(at.join("web.service/cpu.stat"), "nr_periods 3\n").unwrap();
        let place = at.to_str().unwrap().replace(' ', "\\040");
        let mountinfo = format!(
            "21 1 0:20 / /proc rw - proc proc rw\n30 21 0:26 / {place} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
        );
        let paths = ["/web.service", "/gone.service", "/../x", "odd"];
        let paths = paths.map(str::to_owned).into_iter().collect();
        let found = read(&mountinfo, &paths);
        let found: Vec<_> = found
            .iter()
            .map(|(path, cpu)| (&path[..], cpu.periods))
            .collect();
        assert_eq!(found, [("/web.service", Some(3))]);
        assert!(read("", &paths).is_empty());
    }

    #[test]
    fn a_part_of_the_hierarchy_has_only_its_own_groups() {
        let mount = Mount {
            root: "/docker/1".to_owned(),
            at: PathBuf::from("/sys/fs/cgroup"),
        };
        let directory = |path| mount.directory(path);
        assert_eq!(directory("/docker/1"), Some("/sys/fs/cgroup".into()));
        assert_eq!(directory("/docker/1/x"), Some("/sys/fs/cgroup/x".into()));
        assert_eq!(directory("/docker/12"), None);
        assert_eq!(directory("/x"), None);
        assert_eq!(directory("/docker/1/../2"), None);
        let whole =
            super::mount("1 1 0:1 / /cg rw - cgroup2 x rw\n1 1 0:1 /a /b rw - cgroup2 x rw");
        assert_eq!(whole.unwrap().directory("/").unwrap(), Path::new("/cg/"));
    }

    #[test]
    fn escapes_are_taken_back() {
        assert_eq!(unescaped("a\\040b\\134"), "a b\\");
        assert_eq!(unescaped("a\\9\\"), "a\\9\\");
    }
}
