//! Whose a socket is: the processes, and the group that it belongs to.

use std::io::{self, Write};

use super::Object;
use crate::fields::Record;
use crate::model::Process;
use crate::model::container::{container_of, pod_of};
use crate::model::owner::unit_of;

/// `-e`: the cgroup, and the unit, container and pod that it stands for.
pub(super) fn write_group<W: Write>(
    object: &mut Object<'_, W>,
    record: &Record<'_>,
) -> io::Result<()> {
    if let Some(path) = record.cgroup() {
        object.value("cgroup", path)?;
        object.known("unit", unit_of(path))?;
        if let Some(container) = container_of(path) {
            object.shown("container", &container)?;
            object.value("container_id", &container.id)?;
        }
        if let Some(pod) = pod_of(path) {
            object.plain("pod_uid", pod)?;
        }
    }
    Ok(())
}

/// `-p`: who holds the socket, or why nobody is seen to.
pub(super) fn write<W: Write>(object: &mut Object<'_, W>, record: &Record<'_>) -> io::Result<()> {
    let Some(holders) = record.holders() else {
        return Ok(());
    };
    let out = object.key("owners")?;
    out.write_all(b"[")?;
    for (index, (process, fd)) in holders.links().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        write_owner(out, process, fd)?;
    }
    out.write_all(b"]")?;
    if let Some(why) = holders.missing() {
        object.plain("no_owner", why.slug())?;
    }
    Ok(())
}

fn write_owner(out: &mut impl Write, process: &Process, fd: u32) -> io::Result<()> {
    let mut object = Object::begin(out)?;
    object.value("pid", process.pid)?;
    object.value("comm", &process.comm)?;
    object.value("fd", fd)?;
    object.known("user", process.user.as_deref())?;
    object.known("unit", process.unit())?;
    if let Some(container) = process.container() {
        object.shown("container", container)?;
    }
    object.end()
}
