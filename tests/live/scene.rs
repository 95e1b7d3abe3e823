//! Sockets that a filter can tell apart: in every state, of both families and between them, bound to a device, with a
//! mark, in a cgroup, with ports that the kernel chose and ports that were asked for.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use linger::collect;
use linger::query::Lookup;
use socket2::Socket;

use crate::states::{Specimen, zoo};
use crate::world::{Family, World, connect, listen, local, tcp};

/// Sockets that are bound to a device, that have a mark, that are in a cgroup of the test, that are only bound.
pub const DEVICE: u16 = 7200;
pub const MARKED: u16 = 7300;
pub const GROUPED: u16 = 7400;
pub const BOUND: u16 = 7100;
pub const DUAL: u16 = 7500;

/// A cgroup of the test, which this process enters for a moment.
pub struct Group {
    pub directory: PathBuf,
}

impl Group {
    /// `None` where there is no hierarchy of version 2, or none that may be changed.
    fn make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let mount = mounts.lines().find_map(|line| {
            let (before, behind) = line.split_once(" - ")?;
            let is = behind.starts_with("cgroup2 ");
            is.then(|| before.split(' ').nth(4).map(PathBuf::from))?
        })?;
        let directory = mount.join(format!("linger-test-{}", std::process::id()));
        fs::create_dir(&directory).ok()?;
        Some(Self { directory })
    }

    /// Does something as a member of it.
    fn within<T>(&self, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::"));
        let own = own.context("no cgroup of version 2")?.trim_matches('/');
        let parent = self.directory.parent().context("no mount")?.join(own);
        let enter = |directory: &Path| {
            fs::write(directory.join("cgroup.procs"), "0")
                .with_context(|| format!("cannot enter {}", directory.display()))
        };
        enter(&self.directory)?;
        let made = make();
        enter(&parent)?;
        made
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fs::remove_dir(&self.directory).ok();
    }
}

/// The sockets that a filter can tell apart.
pub struct Scene {
    pub group: Option<Group>,
    /// the port of a connection that the kernel chose, and one that was bound
    pub chosen: u16,
    pub bound: u16,
    _kept: Vec<Socket>,
}

/// The port of the bound end of a connection.
const EXPLICIT: u16 = 40_001;

/// Makes them, beside one socket in each state.
pub fn scene(world: &World) -> Result<(Scene, Vec<Specimen>)> {
    let mut specimens = Vec::new();
    for family in world.families() {
        specimens.extend(zoo(world, *family)?);
    }
    let mut kept = Vec::new();
    for family in world.families() {
        let only = tcp(family.near(BOUND))?;
        only.bind(&family.near(BOUND).into())?;
        kept.push(only);
        let device = tcp(family.near(DEVICE))?;
        device.bind_device(Some(b"near0"))?;
        device.bind(&family.near(DEVICE).into())?;
        device.listen(5)?;
        kept.push(device);
        let marked = listen(family.near(MARKED), 5)?;
        marked.set_mark(0x10)?;
        kept.push(marked);
    }
    if world.families().contains(&Family::V6) {
        // A conversation of IPv4 on a socket of IPv6.
        let any: SocketAddr = format!("[::]:{DUAL}").parse()?;
        let dual = tcp(any)?;
        dual.set_only_v6(false)?;
        dual.bind(&any.into())?;
        dual.listen(5)?;
        world.far.connect(Family::V4.near(DUAL))?;
        kept.push(dual.accept()?.0);
        kept.push(dual);
    }
    let listener = listen(Family::V4.loopback(0), 5)?;
    let to = local(&listener)?;
    let client = connect(to)?;
    let chosen = local(&client)?.port();
    let named = tcp(to)?;
    named.bind(&Family::V4.loopback(EXPLICIT).into())?;
    named.connect(&to.into())?;
    kept.extend([client, named, listener.accept()?.0, listener.accept()?.0]);
    kept.push(listener);
    let group = Group::make();
    if let Some(group) = &group {
        kept.push(group.within(|| listen(Family::V4.near(GROUPED), 5))?);
    }
    let scene = Scene {
        group,
        chosen,
        bound: EXPLICIT,
        _kept: kept,
    };
    Ok((scene, specimens))
}

/// Knows the names of the scene.
pub struct Names;

impl Lookup for Names {
    fn host(&mut self, name: &str) -> Result<Vec<IpAddr>, String> {
        match name {
            // A name with several addresses means any of them.
            "far" => Ok(Family::BOTH.map(|family| family.far(0).ip()).to_vec()),
            _ => Err(String::new()),
        }
    }

    fn service(&mut self, _: &str) -> Result<u16, String> {
        Err(String::new())
    }

    fn interface(&mut self, name: &str) -> Result<u32, String> {
        let names = collect::names::interfaces();
        let found = names.iter().find(|(_, own)| *own == name);
        found
            .map(|(index, _)| *index)
            .ok_or_else(|| format!("{names:?}"))
    }

    fn user(&mut self, _: &str) -> Result<u32, String> {
        Ok(0)
    }

    fn cgroup(&mut self, path: &str) -> Result<(String, Option<u64>), String> {
        let group = fs::metadata(path).map_err(|error| error.to_string())?;
        let name = Path::new(path).file_name().unwrap_or_default();
        Ok((format!("/{}", name.display()), Some(group.ino())))
    }
}
