//! Which findings a part of the configuration is about: by program, unit, port or destination, compared with the
//! [`Subject`] of a finding and nothing else.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::model::Subject;

/// Longer names are cut off by the kernel (`TASK_COMM_LEN` without the final 0, `include/linux/sched.h`).
const COMM: usize = 15;

/// A choice of subjects. All that is given must fit; where nothing is given, every subject does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// the program's name, with `*` for any letters
    pub process: Option<String>,
    /// the systemd unit, with `*` for any letters
    pub unit: Option<String>,
    /// the port of a listener, or of a destination
    pub port: Option<u16>,
    /// a remote address or network, with or without its port
    pub destination: Option<Network>,
}

impl Scope {
    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a finding about `subject` is meant.
    pub fn matches(&self, subject: &Subject) -> bool {
        let (comm, unit, port, remote) = match subject {
            Subject::Process { comm, unit, .. } => (comm.as_deref(), unit.as_deref(), None, None),
            Subject::Listener {
                comm, unit, port, ..
            } => (comm.as_deref(), unit.as_deref(), Some(*port), None),
            Subject::Peer { address } => (None, None, None, Some(*address)),
            Subject::Destination { address, port, .. } => (None, None, Some(*port), Some(*address)),
            Subject::Host => (None, None, None, None),
        };
        let process = |pattern: &String| comm.is_some_and(|comm| names(pattern, comm));
        let in_unit = |pattern: &String| unit.is_some_and(|unit| glob(pattern, unit));
        let at = |network: &Network| remote.is_some_and(|address| network.contains(address, port));
        self.process.as_ref().is_none_or(process)
            && self.unit.as_ref().is_none_or(in_unit)
            && self.port.is_none_or(|wanted| port == Some(wanted))
            && self.destination.as_ref().is_none_or(at)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.process.as_ref().map(|name| format!("process {name}")),
            self.unit.as_ref().map(|name| format!("unit {name}")),
            self.port.map(|port| format!("port {port}")),
            self.destination
                .as_ref()
                .map(|network| format!("destination {network}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() {
            return write!(f, "every subject");
        }
        write!(f, "{}", parts.join(", "))
    }
}

/// A program's name as the kernel keeps it: cut off.
fn names(pattern: &str, comm: &str) -> bool {
    let cut = comm.len() == COMM && pattern.len() > COMM && pattern.starts_with(comm);
    glob(pattern, comm) || cut
}

/// Whether `text` is `pattern`, in which `*` stands for any letters, or none.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else {
        return false;
    };
    let Some(tail) = parts.next_back() else {
        return rest.is_empty();
    };
    // The leftmost place for each part leaves the most room for those behind it.
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else {
            return false;
        };
        rest = behind;
    }
    rest.ends_with(tail)
}

/// Remote addresses: one, or those that begin alike, with a port or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
    port: Option<u16>,
}

/// Not `ADDRESS`, `ADDRESS:PORT`, `NETWORK/BITS` or `NETWORK/BITS:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotANetwork;

impl Network {
    fn contains(&self, address: IpAddr, port: Option<u16>) -> bool {
        if self.port.is_some() && self.port != port {
            return false;
        }
        let (ours, theirs, width) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u128::from(a.to_bits()), u128::from(b.to_bits()), 32)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let free = width - u32::from(self.bits);
        // All 128 bits cannot be shifted out.
        (ours ^ theirs).checked_shr(free).unwrap_or(0) == 0
    }
}

/// Digits and nothing else: what parses numbers takes a sign, too.
fn number(text: &str) -> Result<&str, NotANetwork> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some(text).ok_or(NotANetwork)
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        // What stands behind the address: `/BITS`, `:PORT`, both, or nothing.
        let (address, rest) = if let Some(inner) = text.strip_prefix('[') {
            inner.split_once(']').ok_or(NotANetwork)?
        } else if let Some(at) = text.find('/') {
            text.split_at(at)
        } else {
            match text.split_once(':') {
                // One colon: an IPv4 address with its port.
                Some((address, port)) if !port.contains(':') => {
                    (address, text.get(address.len()..).unwrap_or(""))
                }
                _ => (text, ""),
            }
        };
        // `[2001:db8::/32]:443` is as good as `[2001:db8::]/32:443`.
        let (address, inner) = match address.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (address, None),
        };
        let (bits, port) = match rest.strip_prefix('/') {
            Some(rest) if inner.is_none() => match rest.split_once(':') {
                Some((bits, port)) => (Some(bits), Some(port)),
                None => (Some(rest), None),
            },
            Some(_) => return Err(NotANetwork),
            None if rest.is_empty() => (inner, None),
            None => (inner, Some(rest.strip_prefix(':').ok_or(NotANetwork)?)),
        };
        let given: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let address = given.to_canonical();
        let width: u8 = if address.is_ipv4() { 32 } else { 128 };
        // The bits of a mapped address count from where the IPv4 address begins.
        let before = if given == address { 0 } else { 96 };
        let bits = match bits {
            Some(bits) => number(bits)?
                .parse::<u8>()
                .ok()
                .and_then(|bits| bits.checked_sub(before))
                .filter(|bits| *bits <= width)
                .ok_or(NotANetwork)?,
            None => width,
        };
        let port = match port {
            Some(port) => Some(number(port)?.parse().map_err(|_| NotANetwork)?),
            None => None,
        };
        Ok(Self {
            address,
            bits,
            port,
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.bits == if self.address.is_ipv4() { 32 } else { 128 };
        match (self.address, self.port) {
            (IpAddr::V6(address), Some(_)) => write!(f, "[{address}]")?,
            (address, _) => write!(f, "{address}")?,
        }
        if !whole {
            write!(f, "/{}", self.bits)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn networks_are_read_in_every_usual_form() {
        for (text, shown) in [
            ("10.0.0.5", "10.0.0.5"),
            ("10.0.0.5:443", "10.0.0.5:443"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/8:443", "10.0.0.0/8:443"),
            ("2001:db8::1", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::/32:443", "[2001:db8::]/32:443"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            ("[2001:db8::]/32:443", "[2001:db8::]/32:443"),
            ("[2001:db8::/32]:443", "[2001:db8::]/32:443"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(network(text).to_string(), shown, "{text}");
            assert_eq!(network(shown), network(text));
        }
        for text in [
            "",
            ":",
            "/",
            ":443",
            "db.example",
            "10.0.0.5:",
            "10.0.0.5:65536",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.5:+1",
            "[::1",
            "[::1]443",
            "[::/8]/8",
            "::1/129",
            "::ffff:10.0.0.0/8",
            "10.0.0.0/8:443:1",
            "\u{202e}",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_network_holds_what_begins_alike() {
        let holds = |network_text: &str, address: &str, port| {
            network(network_text).contains(address.parse().unwrap(), port)
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1", None));
        assert!(holds("10.0.0.0/8", "::ffff:10.255.0.1", None));
        assert!(!holds("10.0.0.0/8", "11.0.0.1", None));
        assert!(holds("10.0.0.5", "10.0.0.5", Some(1)));
        assert!(!holds("10.0.0.5", "10.0.0.4", Some(1)));
        assert!(holds("10.0.0.5:443", "10.0.0.5", Some(443)));
        assert!(!holds("10.0.0.5:443", "10.0.0.5", Some(444)));
        assert!(
            !holds("10.0.0.5:443", "10.0.0.5", None),
            "no port, no match"
        );
        assert!(holds("0.0.0.0/0", "1.2.3.4", None));
        assert!(!holds("0.0.0.0/0", "2001:db8::1", None));
        assert!(holds("::/0", "2001:db8::1", None));
        assert!(holds("2001:db8::/32", "2001:db8:1::1", None));
        assert!(!holds("2001:db8::/32", "2001:db9::1", None));
    }

    #[test]
    fn a_star_stands_for_any_letters() {
        for (pattern, text, fits) in [
            ("java", "java", true),
            ("java", "javac", false),
            ("java*", "javac", true),
            ("*java", "xjava", true),
            ("*", "", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "ac", false),
            ("ab*ba", "aba", false),
            ("*@*.service", "getty@tty1.service", true),
            ("a**b", "ab", true),
            ("", "a", false),
            ("*ä*", "xäy", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
        let hostile = "a".repeat(1 << 16);
        assert!(!glob("a*a*a*a*a*a*a*b", &hostile));
    }

    #[test]
    fn a_long_name_is_known_by_what_the_kernel_keeps_of_it() {
        assert!(names("prometheus-node-exporter", "prometheus-node"));
        assert!(!names("prometheus-node-exporter", "prometheus"));
        assert!(!names("prometheus-pushgateway", "prometheus-node"));
    }

    #[test]
    fn all_that_is_given_must_fit() {
        let listener = Subject::Listener {
            address: "0.0.0.0".parse().unwrap(),
            port: 443,
            pid: Some(1),
            comm: Some("nginx".into()),
            unit: Some("nginx.service".into()),
            container: None,
        };
        let destination = Subject::Destination {
            address: "10.1.2.3".parse().unwrap(),
            port: 443,
            source_address: None,
        };
        let scope = |process: Option<&str>, port, destination: Option<&str>| Scope {
            process: process.map(str::to_owned),
            unit: None,
            port,
            destination: destination.map(network),
        };
        for (scope, of_listener, of_destination, of_host) in [
            (scope(None, None, None), true, true, true),
            (scope(Some("nginx"), None, None), true, false, false),
            (scope(Some("nginx"), Some(443), None), true, false, false),
            (scope(Some("nginx"), Some(80), None), false, false, false),
            (scope(None, Some(443), None), true, true, false),
            (
                scope(None, None, Some("10.0.0.0/8:443")),
                false,
                true,
                false,
            ),
        ] {
            assert_eq!(scope.matches(&listener), of_listener, "{scope}");
            assert_eq!(scope.matches(&destination), of_destination, "{scope}");
            assert_eq!(scope.matches(&Subject::Host), of_host, "{scope}");
        }
        let unseen = Subject::Process {
            pid: None,
            comm: None,
            uid: Some(7),
            unit: None,
            container: None,
        };
        assert!(!scope(Some("*"), None, None).matches(&unseen));
        let unit = Scope {
            unit: Some("nginx*".into()),
            ..Scope::default()
        };
        assert!(unit.matches(&listener) && !unit.matches(&destination));
    }
}
