//! What control groups got of the processors, where the v2 hierarchy is mounted.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;

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

/// More groups than this get no names by their ids.
const MOST_IDS: usize = 1 << 18;
/// Deeper than this nobody nests groups (`cgroup.max.depth` permits more).
const DEEPEST: usize = 64;

/// The paths of groups by their ids, read when the first one is asked for.
#[derive(Debug, Default)]
pub struct Paths {
    mountinfo: PathBuf,
    read: OnceCell<Option<FxHashMap<u64, String>>>,
}

impl Paths {
    /// Of the hierarchy that the file, which is like `/proc/PID/mountinfo`, names.
    pub fn new(mountinfo: impl Into<PathBuf>) -> Self {
        Self {
            mountinfo: mountinfo.into(),
            read: OnceCell::new(),
        }
    }

    /// Of no hierarchy.
    pub fn none() -> Self {
        Self {
            read: OnceCell::from(None),
            ..Self::default()
        }
    }

    /// The path of the group with `id`, from the root of the hierarchy. A group that was removed has none.
    pub fn of(&self, id: u64) -> Option<&str> {
        let read = self
            .read
            .get_or_init(|| ids(&text(&self.mountinfo).unwrap_or_default()));
        read.as_ref()?.get(&id).map(String::as_str)
    }

    /// Whether an id was asked for and no hierarchy is mounted where this process can see it.
    pub fn is_hidden(&self) -> bool {
        matches!(self.read.get(), Some(None))
    }
}

/// The paths of all groups by their ids, of the hierarchy that the file, which is like `/proc/PID/mountinfo`, names. Empty
/// where none is mounted.
pub fn paths(mountinfo: impl AsRef<Path>) -> FxHashMap<u64, String> {
    ids(&text(mountinfo.as_ref()).unwrap_or_default()).unwrap_or_default()
}

/// Every group's id and path. The id of a group is the inode of its directory (`kernfs`; on machines of 32 bits since
/// Linux 5.5 a part of it, then no path is found).
fn ids(mountinfo: &str) -> Option<FxHashMap<u64, String>> {
    let mount = mount(mountinfo)?;
    let root = fs::metadata(&mount.at).ok()?;
    // Something else may be mounted on top of it.
    if device(&root) != mount.device {
        return None;
    }
    let mut found = FxHashMap::default();
    let name = if mount.root.is_empty() {
        "/"
    } else {
        &mount.root
    };
    found.insert(root.ino(), name.to_owned());
    let mut todo = vec![(mount.at, mount.root.trim_end_matches('/').to_owned(), 0)];
    while let Some((directory, path, depth)) = todo.pop() {
        // A group may be removed meanwhile.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || found.len() >= MOST_IDS {
                continue;
            }
            let path = format!("{path}/{}", entry.file_name().to_string_lossy());
            if depth < DEEPEST {
                todo.push((entry.path(), path.clone(), depth + 1));
            }
            found.insert(entry.ino(), path);
        }
    }
    Some(found)
}

fn device(file: &fs::Metadata) -> String {
    let device = file.dev();
    format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    )
}

/// Where a part of the hierarchy is mounted.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// the group that is mounted
    root: String,
    /// where
    at: PathBuf,
    /// `MAJOR:MINOR`
    device: String,
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
        let mut words = mount.split_ascii_whitespace().skip(2);
        let (device, root, at) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| Mount {
            root: unescaped(root),
            at: PathBuf::from(unescaped(at)),
            device: device.to_owned(),
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
    fn a_group_is_found_by_the_inode_of_its_directory() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("system.slice/web.service");
        fs::create_dir_all(&inner).unwrap();
        fs::write(root.path().join("cgroup.procs"), "").unwrap();
        let file = root.path().join("mountinfo");
        let paths_of = |mounted: &str| {
            let at = root.path().display();
            let device = device(&fs::metadata(root.path()).unwrap());
            let line = format!("30 21 {device} {mounted} {at} rw - cgroup2 cgroup2 rw\n");
            fs::write(&file, line).unwrap();
            Paths::new(&file)
        };
        let id = |path: &Path| fs::metadata(path).unwrap().ino();
        let paths = paths_of("/");
        assert!(!paths.is_hidden(), "nothing was asked for");
        assert_eq!(paths.of(id(root.path())), Some("/"));
        assert_eq!(paths.of(id(&inner)), Some("/system.slice/web.service"));
        assert_eq!(paths.of(id(&file)), None, "no directory, no group");
        assert!(!paths.is_hidden());
        let part = paths_of("/docker/1");
        assert_eq!(part.of(id(root.path())), Some("/docker/1"));
        assert_eq!(
            part.of(id(&inner)),
            Some("/docker/1/system.slice/web.service")
        );
        fs::write(&file, "").unwrap();
        let hidden = Paths::new(&file);
        assert_eq!(hidden.of(1), None);
        assert!(hidden.is_hidden());
        let covered = format!(
            "30 21 0:9999 / {} rw - cgroup2 cgroup2 rw\n",
            root.path().display()
        );
        fs::write(&file, covered).unwrap();
        assert_eq!(Paths::new(&file).of(id(&inner)), None, "another mount");
        let none = Paths::none();
        assert!(none.of(1).is_none() && none.is_hidden());
    }

    #[test]
    fn a_part_of_the_hierarchy_has_only_its_own_groups() {
        let mount = Mount {
            root: "/docker/1".to_owned(),
            at: PathBuf::from("/sys/fs/cgroup"),
            device: "0:26".to_owned(),
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
