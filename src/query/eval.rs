//! Whether a row fits. Nothing here allocates, and nothing is decoded that no test asks for.
//!
//! What is not known fits no comparison: a TIME-WAIT socket has no round-trip time, so neither `rtt > 1ms` nor
//! `rtt < 1ms` holds for it, and `rtt != 1ms`, which means `not rtt = 1ms`, does.

use std::fmt::{self, Write};

use super::expr::{Address, End, Expr, Host, Op, Pattern, Port, Test, mask};
use crate::fields::{Field, Record, Value};
use crate::model::container::{Container, container_of, pod_of};
use crate::model::owner::unit_of;
use crate::model::{Age, Endpoint, Ends, Family, Socket};

impl Expr {
    /// Whether it holds for `record`.
    pub(super) fn matches(&self, record: &Record<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.matches(record)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(record)),
            Self::Not(inner) => !inner.matches(record),
            Self::States(set) => set.means(record.socket.state, record.waits_for_anybody()),
            Self::Test(test) => test.matches(record),
        }
    }
}

impl Test {
    fn matches(&self, record: &Record<'_>) -> bool {
        let socket = record.socket;
        let over_ip = matches!(record.ends, Ends::Ip);
        match self {
            Self::Host(_, host) if !over_ip => host.is_any(),
            Self::Port(..) if !over_ip => false,
            Self::Host(end, host) => host.matches(socket, end.of(socket)),
            Self::Port(end, op, port) => port.compares(*op, end.of(socket)),
            Self::Device { index, .. } => *index == Some(socket.ifindex),
            Self::Mark { mark, mask } => record
                .attributes
                .mark
                .is_some_and(|own| own & mask == *mark),
            // The socket's own cgroup, by its id, rules over the path of whoever holds the socket now.
            Self::Cgroup { path, id } => match (id, record.attributes.cgroup_id()) {
                (Some(id), Some(own)) => *id == own,
                _ => record.cgroup() == Some(path),
            },
            Self::Autobound(known) => *known == Some(true),
            Self::User { uid, .. } => uid.is_some() && *uid == record.uid(),
            Self::Timer(timer) => *timer == socket.timer,
            Self::Number(field, op, wanted) => number(&field.value(record), *op, *wanted),
            Self::Text(field, pattern) => text(field, record, pattern),
        }
    }
}

impl End {
    const fn of(self, socket: &Socket) -> &Endpoint {
        match self {
            Self::Local => &socket.local,
            Self::Peer => &socket.remote,
        }
    }
}

impl Host {
    /// Whether it is every socket.
    fn is_any(&self) -> bool {
        self.family.is_none() && self.address == Address::Any && self.port.is_none()
    }

    fn matches(&self, socket: &Socket, end: &Endpoint) -> bool {
        self.family.is_none_or(|family| family == socket.family)
            && match &self.address {
                Address::Any => true,
                Address::Net { bits, prefix, v4 } => {
                    // What was written as IPv6 is no IPv4 socket's, although both are kept alike.
                    (*v4 || socket.family == Family::Ipv6)
                        && u128::from_be_bytes(end.address) & mask(*prefix) == *bits
                }
                Address::Name(_) => false,
            }
            && self
                .port
                .as_ref()
                .is_none_or(|port| port.compares(Op::Eq, end))
    }
}

impl Port {
    fn compares(&self, op: Op, end: &Endpoint) -> bool {
        match self {
            Self::Number(number) => op.holds(u64::from(end.port), u64::from(*number)),
            Self::Service(_) => false,
        }
    }
}

fn number(value: &Value<'_>, op: Op, wanted: u64) -> bool {
    match value {
        Value::Count(n) | Value::Bytes(n) | Value::BytesPerSecond(n) | Value::Hex(n) => {
            op.holds(*n, wanted)
        }
        Value::Port(port) => op.holds(u64::from(*port), wanted),
        Value::Micros(us) => op.holds(*us, wanted),
        Value::Millis(ms) => op.holds(ms.saturating_mul(1_000), wanted),
        Value::Age(age) => surely(*age, op, wanted),
        Value::Pids(holders) => holders
            .processes()
            .any(|process| op.holds(u64::from(process.pid), wanted)),
        _ => false,
    }
}

/// Of an age that is known within bounds only what is sure counts.
fn surely(age: Age, op: Op, wanted_us: u64) -> bool {
    let low = op.holds(age.low_ms.saturating_mul(1_000), wanted_us);
    let high = age
        .high_ms
        .is_some_and(|ms| op.holds(ms.saturating_mul(1_000), wanted_us));
    match op {
        Op::Gt | Op::Ge => low,
        Op::Lt | Op::Le => high,
        Op::Eq => low && high,
    }
}

fn text(field: &Field, record: &Record<'_>, pattern: &Pattern) -> bool {
    // A holder's belongs to the socket too: one process may make it and another serve it.
    match field.id {
        "unit" => {
            let mut units = record.cgroups().filter_map(unit_of);
            return units.any(|unit| {
                let bare = unit.strip_suffix(".service");
                pattern.matches(unit) || bare.is_some_and(|bare| pattern.matches(bare))
            });
        }
        "container" => {
            let mut containers = record.cgroups().filter_map(container_of);
            return containers.any(|container| pattern.means(&container));
        }
        "pod" => {
            return record
                .cgroups()
                .filter_map(pod_of)
                .any(|pod| match pattern {
                    Pattern::Exact(wanted) => pod.is(wanted),
                    Pattern::Glob(glob) => fits(glob, pod.chars()),
                });
        }
        _ => {}
    }
    match field.value(record) {
        Value::Text(text) => pattern.matches(&text),
        Value::Name(name) => pattern.fits(name.chars()),
        Value::Namespace(namespace) => pattern.matches(&namespace.label),
        Value::Flag(yes) => pattern.matches(if yes { "yes" } else { "no" }),
        Value::Owners(holders) => holders
            .processes()
            .any(|process| pattern.matches(&process.comm)),
        Value::List(list) => {
            // The first that fits ends the walk.
            let walked = list.each(&mut |word| match pattern.matches_word(word) {
                true => Err(()),
                false => Ok(()),
            });
            walked.is_err()
        }
        _ => false,
    }
}

/// A word of a list, written down where nothing is allocated. None of them is longer.
struct Short {
    bytes: [u8; 64],
    length: usize,
}

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let place = self.bytes.get_mut(self.length..self.length + text.len());
        place.ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

impl Pattern {
    fn matches_word(&self, word: &dyn fmt::Display) -> bool {
        let mut short = Short {
            bytes: [0; 64],
            length: 0,
        };
        let written = write!(short, "{word}").ok();
        let bytes = written.and_then(|()| short.bytes.get(..short.length));
        bytes
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .is_some_and(|text| self.matches(text))
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == text,
            Self::Glob(glob) => fits(glob, text.chars()),
        }
    }

    /// Whether it is this container: by its id, by the first digits of it, and with its runtime in front or without.
    fn means(&self, container: &Container<'_>) -> bool {
        match self {
            Self::Exact(wanted) => container.is(wanted),
            Self::Glob(glob) => {
                let runtime = container.runtime.unwrap_or_default().chars();
                let id = container.id.chars();
                fits(glob, id.clone()) || fits(glob, runtime.chain([':']).chain(id))
            }
        }
    }

    /// As [`Pattern::matches`], of text that is not in one piece.
    fn fits(&self, text: impl Iterator<Item = char> + Clone) -> bool {
        match self {
            Self::Exact(wanted) => wanted.chars().eq(text),
            Self::Glob(glob) => fits(glob, text),
        }
    }
}

/// `*` is any text, `?` one character. Goes back to the last `*` only, so its time is the product of the lengths.
fn fits(glob: &str, mut text: impl Iterator<Item = char> + Clone) -> bool {
    let mut glob = glob.chars();
    let mut star = None;
    loop {
        let (before, behind) = (text.clone(), text.next());
        let wanted = glob.next();
        match (wanted, behind) {
            (Some('*'), _) => {
                text = before;
                star = Some((glob.clone(), text.clone()));
            }
            (None, None) => return true,
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => {
                // The last `*` takes one character more.
                let Some((after, mut taken)) = star.take() else {
                    return false;
                };
                if taken.next().is_none() {
                    return false;
                }
                star = Some((after.clone(), taken.clone()));
                (glob, text) = (after, taken);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let table = [
            ("nginx", "nginx", true),
            ("nginx", "nginx2", false),
            ("ng*", "nginx", true),
            ("*x", "nginx", true),
            ("*g*x", "nginx", true),
            ("*g*y", "nginx", false),
            ("n?inx", "nginx", true),
            ("?", "", false),
            ("*", "", true),
            ("**", "abc", true),
            ("a*b*c", "aXbXbc", true),
            ("服*", "服务", true),
            ("服?", "服务", true),
            ("", "", true),
            ("", "a", false),
        ];
        for (glob, text, expected) in table {
            assert_eq!(fits(glob, text.chars()), expected, "{glob} {text}");
        }
        let long = "a".repeat(2_000);
        assert!(!fits(&format!("{}b", "*a".repeat(500)), long.chars()));
    }

    #[test]
    fn of_an_age_only_what_is_sure_counts() {
        let bounds = Age::between(10_000, 20_000);
        let us = 1_000_000;
        assert!(surely(bounds, Op::Gt, 9 * us) && !surely(bounds, Op::Gt, 15 * us));
        assert!(surely(bounds, Op::Lt, 21 * us) && !surely(bounds, Op::Lt, 15 * us));
        assert!(!surely(bounds, Op::Eq, 10 * us));
        assert!(surely(Age::exactly(10_000), Op::Eq, 10 * us));
        let open = Age::at_least(10_000);
        assert!(surely(open, Op::Ge, 10 * us) && !surely(open, Op::Lt, u64::MAX));
    }
}
