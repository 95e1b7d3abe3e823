//! What stands behind an operator: hosts, ports, marks, times and sizes, as ss and people write them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::expr::{Address, Host, Port, mask};
use crate::model::Family;

/// A number in C's notation, as ss reads ports, marks and the parts of addresses: `22`, `0x16`, `026`.
pub(super) fn number(text: &str) -> Option<u64> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = match (hex, text.strip_prefix('0')) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        _ => (text, 10),
    };
    // from_str_radix takes a sign too.
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    plain.then(|| u64::from_str_radix(digits, radix).ok())?
}

/// A port: a number, or a name that may be looked up.
pub(super) fn port(text: &str) -> Option<Port> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return u16::try_from(number(text)?).ok().map(Port::Number);
    }
    // The names of /etc/services (RFC 6335 section 5.1, and older ones with `_`, `.` or `+`).
    let named = text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c));
    named.then(|| Port::Service(text.to_owned()))
}

/// The family that a value begins with, and the rest of it. `Err` for families that have no TCP.
pub(super) fn family(text: &str) -> Result<(Option<Family>, &str), ()> {
    for (name, family) in [("inet", Family::Ipv4), ("inet6", Family::Ipv6)] {
        if let Some(rest) = text
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(':'))
        {
            return Ok((Some(family), rest));
        }
    }
    let foreign = ["unix:", "link:", "netlink:", "vsock:"];
    if foreign.iter().any(|name| text.starts_with(name)) {
        return Err(());
    }
    Ok((None, text))
}

/// The port in `:22`, `22`, `*` or `:*`; the inner `None` is any.
pub(super) fn any_port(text: &str) -> Option<Option<Port>> {
    let text = text.strip_prefix(':').unwrap_or(text);
    match text {
        "*" => Some(None),
        text => port(text).map(Some),
    }
}

/// A host: `10.0.0.0/8:443`, `[fd00::/16]:22`, `fd00::/16`, `::1`, `*:80`, `:80`, `any`, a name.
pub(super) fn host(text: &str) -> Option<Host> {
    let (family, text) = family(text).ok()?;
    let made = |address, port| {
        Some(Host {
            family,
            address,
            port,
        })
    };
    if ["any", "all", "default"].contains(&text) {
        return made(Address::Any, None);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, behind) = rest.split_once(']')?;
        let (length, behind) = match behind.strip_prefix('/') {
            Some(rest) => {
                let (length, _) = rest.split_once(':').unwrap_or((rest, ""));
                let behind = rest.strip_prefix(length)?;
                (Some(length), behind)
            }
            None => (None, behind),
        };
        let (address, inner) = match inside.split_once('/') {
            Some((address, inner)) => (address, Some(inner)),
            None => (inside, None),
        };
        if inner.is_some() && length.is_some() {
            return None;
        }
        let address = v6(address, inner.or(length))?;
        let port = match behind.strip_prefix(':') {
            Some(port) => any_port(port)?,
            None if behind.is_empty() => None,
            None => return None,
        };
        return made(address, port);
    }
    // Several colons can only be IPv6, one is followed by a port; `::22` is an address.
    let (bare, length) = match text.split_once('/') {
        Some((bare, length)) => (bare, Some(length)),
        None => (text, None),
    };
    if bare.matches(':').count() > 1 {
        return made(v6(bare, length)?, None);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, any_port(port)?),
        None => (text, None),
    };
    if host == "*" || host.is_empty() && port.is_some() || text == ":*" {
        return made(Address::Any, port);
    }
    let (host, length) = match host.split_once('/') {
        Some((host, length)) => (host, Some(length)),
        None => (host, None),
    };
    if let Some(address) = v4(host, length) {
        return made(address, port);
    }
    let named = length.is_none()
        && host.len() <= 253
        && host.contains(|c: char| c.is_ascii_alphabetic())
        && !host.starts_with(['-', '.'])
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if named && number(host).is_none() {
        made(Address::Name(host.to_owned()), port)
    } else {
        None
    }
}

fn v6(address: &str, length: Option<&str>) -> Option<Address> {
    let bits = u128::from(address.parse::<Ipv6Addr>().ok()?);
    let prefix = match length {
        Some(length) => u8::try_from(number(length)?)
            .ok()
            .filter(|prefix| *prefix <= 128)?,
        None => 128,
    };
    Some(Address::Net {
        bits: bits & mask(prefix),
        prefix,
        v4: false,
    })
}

/// One to four parts; those left out are 0. A prefix or a mask of leading ones.
fn v4(address: &str, length: Option<&str>) -> Option<Address> {
    let bits = u32::from(quad(address)?);
    let prefix = match length {
        None => 32,
        Some(length) if length.contains('.') => {
            let mask = u32::from(quad(length)?);
            let ones = mask.leading_ones();
            (mask.count_ones() == ones).then_some(ones)?
        }
        Some(length) => u32::try_from(number(length)?)
            .ok()
            .filter(|prefix| *prefix <= 32)?,
    };
    let prefix = u8::try_from(prefix + 96).ok()?;
    let mapped = u128::from(Ipv4Addr::from(bits).to_ipv6_mapped());
    Some(Address::Net {
        bits: mapped & mask(prefix),
        prefix,
        v4: true,
    })
}

fn quad(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut places = octets.iter_mut();
    for part in text.split('.') {
        *places.next()? = u8::try_from(number(part)?).ok()?;
    }
    Some(Ipv4Addr::from(octets))
}

/// `MARK[/MASK]`.
pub(super) fn mark(text: &str) -> Option<(u32, u32)> {
    let (mark, mask) = match text.split_once('/') {
        Some((mark, mask)) => (mark, u32::try_from(number(mask)?).ok()?),
        None => (text, u32::MAX),
    };
    Some((u32::try_from(number(mark)?).ok()?, mask))
}

/// Times in microseconds; the longer names before those that they end with.
const TIMES: [(&str, u64); 10] = [
    ("us", 1),
    ("ms", 1_000),
    ("sec", 1_000_000),
    ("min", 60_000_000),
    ("days", 86_400_000_000),
    ("day", 86_400_000_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

/// Sizes in bytes: `kB` counts in thousands, `k` and `KiB` in 1024.
const SIZES: [(&str, u64); 10] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("b", 1),
];

/// A time in microseconds. `bare` is what a number without a unit counts in, if it may stand so.
pub(super) fn time(text: &str, bare: Option<u64>) -> Option<u64> {
    let folded = text.to_ascii_lowercase();
    match TIMES
        .iter()
        .find_map(|(unit, us)| Some((folded.strip_suffix(unit)?, *us)))
    {
        Some((digits, us)) => decimal(digits, us),
        None if folded == "0" => Some(0),
        None => decimal(&folded, bare?),
    }
}

/// A size in bytes: `1500`, `64KiB`, `1.5MB`, `1G`.
pub fn size(text: &str) -> Option<u64> {
    let folded = text.to_ascii_lowercase();
    match SIZES
        .iter()
        .find_map(|(unit, bytes)| Some((folded.strip_suffix(unit)?, *bytes)))
    {
        Some((digits, bytes)) => decimal(digits, bytes),
        None => decimal(&folded, 1),
    }
}

/// A count: decimal, or hexadecimal with `0x`.
pub(super) fn count(text: &str) -> Option<u64> {
    if text.starts_with("0x") || text.starts_with("0X") {
        number(text)
    } else {
        decimal(text, 1)
    }
}

/// A cookie: hexadecimal, as it is shown, with or without `0x`.
pub(super) fn cookie(text: &str) -> Option<u64> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let digits = hex.unwrap_or(text);
    // from_str_radix takes a sign too.
    let plain = digits.chars().all(|c| c.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(digits, 16).ok())?
}

/// `12` or `1.5` times `unit`; a fraction that leaves a rest is none.
fn decimal(text: &str, unit: u64) -> Option<u64> {
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    if text.ends_with('.') {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction = match fraction {
        "" => 0,
        digits => digits.parse::<u128>().ok()?,
    };
    let whole: u128 = whole.parse().ok()?;
    let scaled = whole
        .checked_mul(scale)?
        .checked_add(fraction)?
        .checked_mul(u128::from(unit))?;
    (scaled % scale == 0)
        .then(|| u64::try_from(scaled / scale).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        host(text).map(|host| host.to_string())
    }

    #[test]
    fn hosts_are_read_in_every_spelling_of_ss_and_in_the_unambiguous_ones() {
        let table = [
            ("10.0.0.7", "10.0.0.7"),
            ("10.0.0.7:443", "10.0.0.7:443"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3/255.255.0.0:https", "10.1.0.0/16:https"),
            ("10.0.0/24", "10.0.0.0/24"),
            ("10", "10.0.0.0"),
            ("0x0a.012.0.1", "10.10.0.1"),
            ("0x16", "22.0.0.0"),
            ("*", "*"),
            ("*:80", "*:80"),
            (":80", "*:80"),
            (":0x16", "*:22"),
            (":026", "*:22"),
            (":*", "*"),
            ("any", "*"),
            ("default", "*"),
            ("::1", "[::1]"),
            ("::", "[::]"),
            ("::22", "[::22]"),
            ("fd00::/16", "[fd00::/16]"),
            ("[fd00::/16]:22", "[fd00::/16]:22"),
            ("[fd00::]/16", "[fd00::/16]"),
            ("[fd00::]/16:22", "[fd00::/16]:22"),
            ("[::1]", "[::1]"),
            ("[::1]:*", "[::1]"),
            ("::ffff:1.2.3.4", "[::ffff:1.2.3.4]"),
            ("inet:10.0.0.1", "inet:10.0.0.1"),
            ("inet6:*", "inet6:*"),
            ("inet6:[::1]:80", "inet6:[::1]:80"),
            ("inet::22", "inet:*:22"),
            ("db-7.example.org:5432", "db-7.example.org:5432"),
            ("localhost", "localhost"),
        ];
        for (text, read) in table {
            assert_eq!(shown(text).as_deref(), Some(read), "{text}");
        }
        for none in [
            "",
            ":",
            "443",
            "10.0.0.256",
            "10.0.0.1.2",
            "10.0.0.1/33",
            "10.0.0.1/255.0.255.0",
            "10.0.0.1:70000",
            "10.0.0.1:",
            "[::1",
            "[::1]x",
            "[fd00::/16]/16",
            "fd00::/129",
            "::g",
            "[10.0.0.1]",
            "fe80::1%eth0",
            "unix:*",
            "vsock:2:22",
            "a b",
            "-x",
            "db/24",
        ] {
            assert_eq!(shown(none), None, "{none}");
        }
    }

    #[test]
    fn numbers_are_those_of_c() {
        let table = [
            ("22", Some(22)),
            ("0x16", Some(22)),
            ("026", Some(22)),
            ("0", Some(0)),
            ("00", Some(0)),
            ("08", None),
            ("0x", None),
            ("+5", None),
            ("-1", None),
            ("", None),
            ("99999999999999999999", None),
        ];
        for (text, value) in table {
            assert_eq!(number(text), value, "{text}");
        }
        assert_eq!(mark("0x10/0xff"), Some((16, 255)));
        assert_eq!(mark("5"), Some((5, u32::MAX)));
        assert_eq!(mark("5/"), None);
        assert_eq!(mark("0x100000000"), None);
    }

    #[test]
    fn times_and_sizes_have_units() {
        let times = [
            ("100ms", Some(100_000)),
            ("1.5s", Some(1_500_000)),
            ("5m", Some(300_000_000)),
            ("5min", Some(300_000_000)),
            ("2h", Some(7_200_000_000)),
            ("1d", Some(86_400_000_000)),
            ("250us", Some(250)),
            ("0", Some(0)),
            ("100", None),
            ("ms", None),
            ("1.s", None),
            (".5s", None),
            ("-5s", None),
            ("99999999999999d", None),
            ("0.5us", None),
        ];
        for (text, us) in times {
            assert_eq!(time(text, None), us, "{text}");
        }
        assert_eq!(time("100", Some(1_000)), Some(100_000));
        let sizes = [
            ("1MB", Some(1_000_000)),
            ("1MiB", Some(1 << 20)),
            ("64k", Some(65_536)),
            ("64KB", Some(64_000)),
            ("1.5KiB", Some(1_536)),
            ("12B", Some(12)),
            ("12", Some(12)),
            ("1G", Some(1 << 30)),
            ("x", None),
            ("1TB", None),
        ];
        for (text, bytes) in sizes {
            assert_eq!(size(text), bytes, "{text}");
        }
        assert_eq!(count("0x1a"), Some(26));
        assert_eq!(count("12"), Some(12));
        assert_eq!(count("1.5"), None);
    }
}
