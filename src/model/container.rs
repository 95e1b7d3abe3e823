//! Containers, by the names that their runtimes give to cgroups.
//!
//! What a runtime runs *beside* a container (`conmon`, `lxc.monitor`, the supervisor of nspawn) is not in it.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};

/// A container as its runtime names its cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container<'a> {
    /// `docker`, `containerd`, `cri-o`, `podman`, `lxc` or `nspawn`, where the path says it
    pub runtime: Option<&'static str>,
    /// 64 hexadecimal digits, of which people use the first twelve; of `lxc` and `nspawn` the container's name
    pub id: Cow<'a, str>,
    /// the Kubernetes pod that it belongs to
    pub pod: Option<Pod<'a>>,
}

/// A Kubernetes pod's uid as the cgroup path spells it: systemd's driver writes `_` for `-`.
#[derive(Clone, Copy, Debug)]
pub struct Pod<'a>(&'a str);

/// How many digits of an id tell containers apart for people, and for a filter at least.
const BRIEF: usize = 12;

impl Container<'_> {
    /// What people use of the id: its first twelve digits, or the whole name.
    pub fn brief_id(&self) -> &str {
        if is_id(&self.id) {
            self.id.get(..BRIEF).unwrap_or(&self.id)
        } else {
            &self.id
        }
    }

    /// Whether people mean this one by `text`: its id, its first digits (twelve at least), its name, or any of these
    /// behind `RUNTIME:`.
    pub fn is(&self, text: &str) -> bool {
        let means = |text: &str| {
            self.id == text
                || is_id(&self.id)
                    && text.len() >= BRIEF
                    && self
                        .id
                        .get(..text.len())
                        .is_some_and(|first| first.eq_ignore_ascii_case(text))
        };
        means(text)
            || text.split_once(':').is_some_and(|(runtime, id)| {
                self.runtime
                    .is_some_and(|own| own.eq_ignore_ascii_case(runtime))
                    && means(id)
            })
    }
}

/// `docker:0123456789ab`; with `{:#}` the whole id: `docker:0123456789ab...`.
impl Display for Container<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(runtime) = self.runtime {
            write!(f, "{runtime}:")?;
        }
        f.write_str(if f.alternate() {
            &self.id
        } else {
            self.brief_id()
        })
    }
}

impl Pod<'_> {
    /// The uid as [`Display`] shows it.
    pub fn chars(&self) -> impl Iterator<Item = char> + Clone {
        self.0.chars().map(|c| if c == '_' { '-' } else { c })
    }

    /// Whether `text` is the uid, with `-` or `_`.
    pub fn is(&self, text: &str) -> bool {
        let fold = |byte: u8| match byte {
            b'_' => b'-',
            byte => byte.to_ascii_lowercase(),
        };
        self.0.bytes().map(fold).eq(text.bytes().map(fold))
    }
}

impl PartialEq for Pod<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.0)
    }
}

impl Eq for Pod<'_> {}

/// With `-`, as `kubectl` shows it.
impl Display for Pod<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chars().try_for_each(|c| f.write_char(c))
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn parts(cgroup: &str) -> impl Iterator<Item = &str> {
    cgroup.split('/').filter(|part| !part.is_empty())
}

/// The container that a cgroup path names, the innermost one: `docker-ID.scope`, `cri-containerd-ID.scope`,
/// `crio-ID.scope`, `libpod-ID.scope`, a bare ID below `docker`, `libpod_parent` or a `podUID`, `lxc.payload.NAME`,
/// `systemd-nspawn@NAME.service` or `machine-NAME.scope`.
pub fn container_of(cgroup: &str) -> Option<Container<'_>> {
    let mut found: Option<Container<'_>> = None;
    let mut parent = None;
    for part in parts(cgroup) {
        if beside(part, parent) {
            return None;
        }
        if let Some((runtime, id)) = by_id(part, parent).or_else(|| by_name(part, parent)) {
            found = Some(Container {
                runtime,
                id,
                pod: None,
            });
        }
        parent = Some(part);
    }
    let mut found = found?;
    if is_id(&found.id) {
        found.pod = pod_of(cgroup);
    }
    Some(found)
}

/// The Kubernetes pod that a cgroup path names, the innermost one. A pod's own group, of which its containers' are
/// below, names it too.
pub fn pod_of(cgroup: &str) -> Option<Pod<'_>> {
    let pods = parts(cgroup).filter_map(|part| {
        // `kubepods-podUID.slice`, and the `.slice:cri-containerd:ID` of a runtime with another driver than the kubelet's.
        let part = part.split_once(".slice").map_or(part, |(slice, _)| slice);
        let (before, uid) = part.rsplit_once("pod")?;
        let is_uid = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'_');
        let is_pod = (before.is_empty() || before.ends_with('-'))
            && (32..=36).contains(&uid.len())
            && uid.bytes().all(is_uid);
        is_pod.then_some(Pod(uid))
    });
    pods.last()
}

/// Whether the group is of a runtime's helper.
fn beside(part: &str, parent: Option<&str>) -> bool {
    let helpers = ["libpod-conmon-", "crio-conmon-", "lxc.monitor."];
    helpers.iter().any(|helper| part.starts_with(helper))
        || part == "supervisor"
            && parent.is_some_and(|parent| parent.starts_with("systemd-nspawn@"))
}

fn by_id<'a>(part: &'a str, parent: Option<&str>) -> Option<(Option<&'static str>, Cow<'a, str>)> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let (prefix, id) = match part.rsplit_once(['-', ':']) {
        Some((prefix, id)) => (prefix.rsplit(':').next().unwrap_or(prefix), id),
        None => ("", part),
    };
    let runtime = match (prefix, parent) {
        ("docker", _) | ("", Some("docker")) => Some("docker"),
        ("cri-containerd" | "nerdctl", _) | ("", Some("k8s.io")) => Some("containerd"),
        ("crio", _) => Some("cri-o"),
        ("libpod", _) | ("", Some("libpod_parent")) => Some("podman"),
        _ => None,
    };
    is_id(id).then_some((runtime, Cow::Borrowed(id)))
}

fn by_name<'a>(
    part: &'a str,
    parent: Option<&str>,
) -> Option<(Option<&'static str>, Cow<'a, str>)> {
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some((Some("lxc"), Cow::Borrowed(name)));
    }
    if parent == Some("lxc") {
        return Some((Some("lxc"), Cow::Borrowed(part)));
    }
    let of = |prefix: &str, suffix: &str| part.strip_prefix(prefix)?.strip_suffix(suffix);
    let name = of("systemd-nspawn@", ".service").or_else(|| {
        let machine = of("machine-", ".scope")?;
        // libvirt registers its virtual machines, and its own containers, as DRIVER-NUMBER-NAME.
        let libvirt = ["qemu\\x2d", "lxc\\x2d"];
        (!libvirt.iter().any(|driver| machine.starts_with(driver))).then_some(machine)
    })?;
    Some((Some("nspawn"), unescaped(name)))
}

/// A part of a unit's name as systemd.unit(5) escapes it: `\x2d` is `-`.
fn unescaped(name: &str) -> Cow<'_, str> {
    if !name.contains("\\x") {
        return Cow::Borrowed(name);
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        match after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
        {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "8c5d3e1a-1111-2222-3333-0123456789ab";

    fn id() -> String {
        "0123456789abcdef".repeat(4)
    }

    /// `RUNTIME:ID12` and the pod of a path, in which `ID`, `UID` and `U_ID` stand for themselves.
    fn seen(path: &str) -> Option<(String, Option<String>)> {
        let path = path
            .replace("U_ID", &UID.replace('-', "_"))
            .replace("UID", UID)
            .replace("ID", &id());
        container_of(&path).map(|c| (c.to_string(), c.pod.map(|pod| pod.to_string())))
    }

    #[test]
    fn containers_are_known_by_the_paths_of_their_runtimes() {
        let named = |brief: &str| Some((brief.to_owned(), None));
        for (path, brief) in [
            // docker with systemd's driver, and with cgroupfs
            ("/system.slice/docker-ID.scope", "docker:0123456789ab"),
            ("/docker/ID", "docker:0123456789ab"),
            ("/docker/ID/init.scope", "docker:0123456789ab"),
            // seen from a cgroup namespace beside it
            ("/../../docker/ID", "docker:0123456789ab"),
            (
                "/machine.slice/libpod-ID.scope/container",
                "podman:0123456789ab",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
                "podman:0123456789ab",
            ),
            ("/libpod_parent/libpod-ID", "podman:0123456789ab"),
            ("/libpod_parent/ID", "podman:0123456789ab"),
            ("/system.slice/nerdctl-ID.scope", "containerd:0123456789ab"),
            ("/k8s.io/ID", "containerd:0123456789ab"),
            ("/default/ID", "0123456789ab"),
            ("/lxc.payload.web-1/system.slice/nginx.service", "lxc:web-1"),
            ("/lxc/old/init.scope", "lxc:old"),
            ("/lxc.payload.web/docker/ID", "docker:0123456789ab"),
            (
                "/machine.slice/systemd-nspawn@db.service/payload",
                "nspawn:db",
            ),
            (
                "/machine.slice/machine-my\\x2ddb.scope/payload/init.scope",
                "nspawn:my-db",
            ),
        ] {
            assert_eq!(seen(path), named(brief), "{path}");
        }
    }

    #[test]
    fn a_container_of_kubernetes_has_its_pod() {
        let pod = Some(UID.to_owned());
        let named = |brief: &str| Some((brief.to_owned(), pod.clone()));
        for (path, brief) in [
            ("/kubepods/besteffort/podUID/ID", "0123456789ab"),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_ID.slice/cri-containerd-ID.scope",
                "containerd:0123456789ab",
            ),
            // guaranteed pods have no class
            (
                "/kubepods.slice/kubepods-podU_ID.slice/docker-ID.scope",
                "docker:0123456789ab",
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_ID.slice/crio-ID.scope/container",
                "cri-o:0123456789ab",
            ),
            ("/kubepods/burstable/podUID/crio-ID", "cri-o:0123456789ab"),
            // the kubelet has systemd's driver, the runtime has not
            (
                "/system.slice/containerd.service/kubepods-burstable-podU_ID.slice:cri-containerd:ID",
                "containerd:0123456789ab",
            ),
            // kind: a node that is a container itself
            (
                "/docker/ID/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podU_ID.slice/cri-containerd-ID.scope",
                "containerd:0123456789ab",
            ),
        ] {
            assert_eq!(seen(path), named(brief), "{path}");
        }
        // A static pod's uid is a hash without dashes.
        let hash = "0123456789abcdef0123456789abcdef";
        let path = format!("/kubepods/burstable/pod{hash}/{}", id());
        assert_eq!(container_of(&path).unwrap().pod.unwrap().to_string(), hash);
        assert!(
            pod_of(&format!("/kubepods/pod{UID}")).is_some(),
            "the pod's own group"
        );
    }

    #[test]
    fn what_is_beside_a_container_is_not_in_it() {
        for path in [
            "/",
            "",
            "/system.slice/nginx.service",
            "/user.slice/session-3.scope",
            "/system.slice/docker.service",
            "/machine.slice/libpod-conmon-ID.scope",
            "/system.slice/crio-conmon-ID.scope",
            "/lxc.monitor.web",
            "/machine.slice/systemd-nspawn@db.service/supervisor",
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
            "/docker/0123456789ab",
            "/kubepods/besteffort/podUID",
        ] {
            assert_eq!(seen(path), None, "{path}");
        }
    }

    #[test]
    fn people_mean_a_container_by_twelve_digits_or_more() {
        let path = format!("/docker/{}", id());
        let container = container_of(&path).unwrap();
        let whole = id();
        for text in [
            "0123456789ab",
            "0123456789ABcd",
            &whole,
            "docker:0123456789ab",
            &format!("docker:{whole}"),
        ] {
            assert!(container.is(text), "{text}");
        }
        for text in [
            "",
            "0123456789a",
            "docker:",
            "docker:0123456789a",
            "podman:0123456789ab",
            "0123456789ac",
            &format!("{whole}0"),
        ] {
            assert!(!container.is(text), "{text}");
        }
        assert_eq!(format!("{container:#}"), format!("docker:{whole}"));
        let lxc = container_of("/lxc.payload.web").unwrap();
        assert!(lxc.is("web") && lxc.is("lxc:web") && !lxc.is("we"));
        assert!(Pod(&UID.replace('-', "_")).is(UID) && !Pod(UID).is("8c5d3e1a"));
    }

    proptest! {
        #[test]
        fn no_path_is_too_odd(path in "(/|pod|docker|lxc|machine-|\\.scope|\\.slice|\\\\x2|-|:|é|[0-9a-f]{64}|[0-9a-f-]{36}){0,12}") {
            if let Some(container) = container_of(&path) {
                let text = format!("{container:#}");
                prop_assert!(container.is(&container.id) && container.is(&text));
            }
        }
    }
}
