//! Networks of peers: what is wrong with a route or a firewall is wrong for a whole network, not for one address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::Endpoint;

/// The network that an address is in: a /24 of IPv4, a /64 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(IpAddr);

impl Prefix {
    /// The network of an endpoint.
    pub fn of(endpoint: &Endpoint) -> Self {
        Self(match endpoint.ip() {
            IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip) & (u32::MAX << 8)).into(),
            IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) & (u128::MAX << 64)).into(),
        })
    }

    /// `10.0.0.0/24`, `2001:db8::/64`.
    pub fn words(&self) -> String {
        let bits = if self.0.is_ipv4() { 24 } else { 64 };
        format!("{}/{bits}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_share_their_prefix() {
        let v4 = |last| Endpoint::v4([10, 1, 2, last], 80);
        assert_eq!(Prefix::of(&v4(3)), Prefix::of(&v4(255)));
        assert_eq!(Prefix::of(&v4(3)).words(), "10.1.2.0/24");
        let v6: Ipv6Addr = "2001:db8:0:1:2:3:4:5".parse().unwrap();
        assert_eq!(
            Prefix::of(&Endpoint::v6(v6.octets(), 80)).words(),
            "2001:db8:0:1::/64"
        );
    }
}
