//! The words that findings share. Names are as the processes gave them; what
//! prints them makes them safe.

use std::net::IpAddr;

pub use crate::model::words::{count, percent, thousands, time};
use crate::model::{Endpoint, Evidence, Process, Snapshot, Socket, Subject};

/// The longest that a title may be, characters.
pub const TITLE: usize = 100;

/// The first of `titles` that keeps the budget; the last one cut off where none does.
pub fn fit<const N: usize>(titles: [String; N]) -> String {
    let mut shortest = String::new();
    for title in titles {
        if title.chars().count() <= TITLE {
            return title;
        }
        shortest = title;
    }
    let mut cut: String = shortest.chars().take(TITLE - 1).collect();
    cut.push('…');
    cut
}

/// `nginx[901]`.
pub fn process(process: &Process) -> String {
    format!("{}[{}]", process.comm, process.pid)
}

/// The process, or the uid of its sockets where it could not be seen.
pub fn owner(owner: Option<&Process>, uid: Option<u32>) -> String {
    match (owner, uid) {
        (Some(owner), _) => process(owner),
        (None, Some(uid)) => format!("a program of uid {uid}"),
        (None, None) => "an unseen program".to_owned(),
    }
}

/// `10.0.0.1:443`, `[::1]:443`.
pub fn endpoint(endpoint: &Endpoint) -> String {
    match endpoint.ip() {
        IpAddr::V4(ip) => format!("{ip}:{}", endpoint.port),
        IpAddr::V6(ip) => format!("[{ip}]:{}", endpoint.port),
    }
}

/// The same for a title that is too long otherwise: the middle of a long IPv6 address is left out.
pub fn brief(endpoint: &Endpoint) -> String {
    let ip = endpoint.ip().to_string();
    match (
        endpoint.ip(),
        ip.get(..9),
        ip.get(ip.len().saturating_sub(9)..),
    ) {
        (IpAddr::V6(_), Some(head), Some(tail)) if ip.len() > 20 => {
            format!("[{head}…{tail}]:{}", endpoint.port)
        }
        _ => self::endpoint(endpoint),
    }
}

/// Where a listener listens: `:8443` for the wildcard, else with its address.
pub fn listener(socket: &Socket) -> String {
    if socket.local.is_unspecified() {
        format!(":{}", socket.local.port)
    } else {
        endpoint(&socket.local)
    }
}

/// The process to blame for a socket: its first holder, but not init, which keeps the sockets that it has opened for
/// others.
pub fn holder<'a>(snapshot: &'a Snapshot, socket: &Socket) -> Option<&'a Process> {
    holder_of(snapshot, socket.inode)
}

/// The same for a socket that is not in the table of TCP.
pub fn holder_of(snapshot: &Snapshot, inode: u32) -> Option<&Process> {
    let holders = || snapshot.owners.of(inode).map(|(process, _)| process);
    holders()
        .find(|process| process.pid != 1)
        .or_else(|| holders().next())
}

/// When that was: the time of day, and the day too where it was not within the last twenty hours.
pub fn since(now: jiff::Timestamp, age_ms: u64) -> String {
    at(now, age_ms, "%H:%M UTC")
}

/// The same to the second.
pub fn moment(now: jiff::Timestamp, age_ms: u64) -> String {
    at(now, age_ms, "%H:%M:%S UTC")
}

fn at(now: jiff::Timestamp, age_ms: u64, form: &str) -> String {
    let Ok(at) = now.checked_sub(std::time::Duration::from_millis(age_ms)) else {
        return format!("{} ago", time(age_ms));
    };
    let time_of_day = at.strftime(form);
    if age_ms < 20 * 3_600_000 {
        time_of_day.to_string()
    } else {
        format!("{} {time_of_day}", at.strftime("%Y-%m-%d"))
    }
}

/// The process as a subject.
pub fn process_subject(owner: Option<&Process>, uid: Option<u32>) -> Subject {
    Subject::Process {
        pid: owner.map(|owner| owner.pid),
        comm: owner.map(|owner| owner.comm.clone()),
        uid: if owner.is_some() { None } else { uid },
        unit: owner.and_then(Process::unit).map(str::to_owned),
        container: owner
            .and_then(Process::container)
            .map(|container| container.to_string()),
    }
}

/// The listener as a subject, with its first holder.
pub fn listener_subject(snapshot: &Snapshot, listener: &Socket) -> Subject {
    let owner = holder(snapshot, listener);
    Subject::Listener {
        address: listener.local_ip(),
        port: listener.local.port,
        pid: owner.map(|owner| owner.pid),
        comm: owner.map(|owner| owner.comm.clone()),
        unit: owner.and_then(Process::unit).map(str::to_owned),
        container: owner
            .and_then(Process::container)
            .map(|container| container.to_string()),
    }
}

/// `nginx[901] :8443`, or the address alone where the holder could not be seen.
pub fn listener_title(snapshot: &Snapshot, socket: &Socket) -> String {
    match holder(snapshot, socket) {
        Some(owner) => format!("{} {}", process(owner), listener(socket)),
        None => format!("listener {}", listener(socket)),
    }
}

/// Whether a unit's name can be pasted into a shell.
pub fn is_plain(unit: &str) -> bool {
    unit.chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@'))
        && !unit.starts_with('-')
}

/// How many descriptors the process has open, against what it may have; nothing where that was not read.
pub fn descriptors(owner: Option<&Process>) -> Option<Evidence> {
    let (fds, limit) = owner.and_then(|owner| owner.fds.zip(owner.nofile))?;
    let open = Evidence::count("open_descriptors", fds, "descriptors", "/proc/PID/fd");
    Some(if limit == u64::MAX {
        open
    } else {
        open.limit(limit as f64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_unit_is_not_pasted() {
        assert!(is_plain("nginx@1.service"));
        for unit in ["a b", "-x", "x;reboot", "$(x)", "`x`"] {
            assert!(!is_plain(unit), "{unit}");
        }
    }

    #[test]
    fn titles_keep_the_budget_whatever_comes() {
        let (short, long) = ("a".repeat(100), "ä".repeat(101));
        assert_eq!(fit([long.clone(), short.clone()]), short);
        let cut = fit([long]);
        assert_eq!(cut.chars().count(), 100);
        assert!(cut.ends_with("ä…"));
    }

    #[test]
    fn only_long_addresses_are_shortened() {
        let v6 = |ip: &str, port| {
            let ip: std::net::Ipv6Addr = ip.parse().unwrap();
            brief(&Endpoint::v6(ip.octets(), port))
        };
        assert_eq!(
            v6("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", 443),
            "[2001:db8:…eeee:ffff]:443"
        );
        assert_eq!(v6("2001:db8::1", 443), "[2001:db8::1]:443");
        assert_eq!(
            brief(&Endpoint::v4([255, 255, 255, 255], 65_535)),
            "255.255.255.255:65535"
        );
    }
}
