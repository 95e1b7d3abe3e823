//! Socket options that the kernel tells: `INET_DIAG_SOCKOPT` and `INET_DIAG_MD5SIG`
//! (`include/uapi/linux/{inet_diag,tcp}.h`).

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv6Addr};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// The address of `family` in network order at the beginning of `bytes`.
fn address(family: u16, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        AF_INET6 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
        _ => None,
    }
}

/// The options that are on (`struct inet_diag_sockopt`), bits as little-endian compilers lay bit-fields out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockOpts(u16);

impl SockOpts {
    const NAMES: [&'static str; 11] = [
        "recverr",
        "is_icsk",
        "freebind",
        "hdrincl",
        "mc_loop",
        "transparent",
        "mc_all",
        "nodefrag",
        "bind_address_no_port",
        "recverr_rfc4884",
        "defer_connect",
    ];

    /// Reads the attribute; `None` if it is too short.
    pub fn parse(value: &[u8]) -> Option<Self> {
        value
            .first_chunk()
            .map(|bits| Self(u16::from_le_bytes(*bits)))
    }

    /// The bits.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Without those that TCP sockets have on from the beginning: `is_icsk`, `mc_loop`, `mc_all`.
    #[must_use]
    pub const fn unusual(self) -> Self {
        Self(self.0 & !0b101_0010)
    }

    /// The names that the header has for the options that are on.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let bits = (0..16).map(|bit| 1u16 << bit);
        let named = Self::NAMES.into_iter().zip(bits);
        named.filter_map(move |(name, bit)| (self.0 & bit != 0).then_some(name))
    }
}

/// Whose segments need an MD5 signature (`struct tcp_diag_md5sig`). The keys, which the kernel sends too, are left
/// where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Md5<'a> {
    entries: &'a [u8],
}

/// A peer, or a network of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// the address
    pub address: IpAddr,
    /// how many of its bits count
    pub length: u8,
}

impl Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl<'a> Md5<'a> {
    /// `sizeof(struct tcp_diag_md5sig)`
    const ENTRY: usize = 100;
    /// Family, prefix length, key length and address come before the key.
    const KEY: usize = 20;

    /// The attribute's value; `None` if it holds no whole entry.
    pub fn new(value: &'a [u8]) -> Option<Self> {
        (value.len() >= Self::ENTRY).then_some(Self { entries: value })
    }

    /// The peers.
    pub fn prefixes(self) -> impl Iterator<Item = Prefix> + use<'a> {
        self.entries.chunks_exact(Self::ENTRY).filter_map(|entry| {
            let [family, length, _, _, bytes @ ..] = entry else {
                return None;
            };
            Some(Prefix {
                address: address(u16::from(*family), bytes)?,
                length: *length,
            })
        })
    }

    /// Overwrites the keys in an attribute's value.
    pub fn wipe(value: &mut [u8]) {
        for entry in value.chunks_mut(Self::ENTRY) {
            if let Some(key) = entry.get_mut(Self::KEY..) {
                key.fill(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(family: u8, length: u8, address: &[u8]) -> Vec<u8> {
        let mut entry = vec![family, length];
        entry.extend(6u16.to_ne_bytes());
        entry.extend(address);
        entry.resize(20, 0);
        entry.extend(b"secret");
        entry.resize(100, 0);
        entry
    }

    #[test]
    fn options_have_the_names_of_the_header() {
        let names = |bytes: [u8; 2]| SockOpts::parse(&bytes).unwrap().names().collect::<Vec<_>>();
        assert_eq!(names([0x52, 0]), ["is_icsk", "mc_loop", "mc_all"]);
        assert_eq!(
            names([0x05, 0x05]).join(" "),
            "recverr freebind bind_address_no_port defer_connect"
        );
        assert_eq!(names([0xff, 0xff]).len(), 11);
        assert!(names([0, 0]).is_empty());
        assert_eq!(SockOpts::parse(&[1]), None);
    }

    #[test]
    fn of_md5_signatures_only_the_peers_are_told() {
        let v6 = [0xfd, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        let mut value = [entry(2, 24, &[10, 0, 0, 0]), entry(10, 128, &v6)].concat();
        let prefixes = |value: &[u8]| -> Vec<String> {
            let md5 = Md5::new(value).unwrap();
            md5.prefixes().map(|prefix| prefix.to_string()).collect()
        };
        assert_eq!(prefixes(&value), ["10.0.0.0/24", "fd99::7/128"]);
        assert_eq!(
            prefixes(&value[..199]),
            ["10.0.0.0/24"],
            "a cut one is left out"
        );
        assert_eq!(Md5::new(&value[..99]), None);
        assert!(value.windows(6).any(|bytes| bytes == b"secret"));
        Md5::wipe(&mut value);
        assert_eq!(prefixes(&value), ["10.0.0.0/24", "fd99::7/128"]);
        assert!(
            !value
                .windows(2)
                .any(|bytes| bytes == b"se" || bytes == b"et")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut value in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = SockOpts::parse(&value).map(|options| options.names().count());
            let _ = Md5::new(&value).map(|md5| md5.prefixes().count());
            Md5::wipe(&mut value);
        }
    }
}
