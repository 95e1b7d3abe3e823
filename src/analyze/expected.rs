//! Listeners that the user expects to be there.

use std::net::IpAddr;

/// A listener that is expected: `[ADDR:]PORT[=UNIT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// where it has to be reachable; `None`: anywhere
    pub address: Option<IpAddr>,
    /// on which port
    pub port: u16,
    /// the systemd unit that is to hold it
    pub unit: Option<String>,
}

impl Expected {
    /// Reads `443`, `10.0.0.1:443`, `[::1]:443`, `*:443`, each with `=nginx.service` or `=nginx` behind it.
    pub fn parse(text: &str) -> Option<Self> {
        let (place, unit) = match text.split_once('=') {
            Some((place, unit)) => (place, Some(unit.trim())),
            None => (text, None),
        };
        if unit.is_some_and(str::is_empty) {
            return None;
        }
        let (address, port) = match place.trim().rsplit_once(':') {
            Some((address, port)) => (address, port),
            None => ("", place.trim()),
        };
        let bare = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let address = match (address, bare) {
            ("" | "*", _) => None,
            (_, Some(v6)) => Some(IpAddr::V6(v6.parse().ok()?)),
            (v4, None) => Some(IpAddr::V4(v4.parse().ok()?)),
        };
        Some(Self {
            address,
            port: port.parse().ok().filter(|port| *port != 0)?,
            unit: unit.map(str::to_owned),
        })
    }

    /// Whether a unit is the one that was asked for; `nginx` is short for `nginx.service`.
    pub fn is_unit(&self, unit: &str) -> bool {
        self.unit
            .as_deref()
            .is_none_or(|wanted| wanted == unit || unit.strip_suffix(".service") == Some(wanted))
    }

    /// `:443`, `10.0.0.1:443`.
    pub fn words(&self) -> String {
        match self.address {
            None => format!(":{}", self.port),
            Some(IpAddr::V4(ip)) => format!("{ip}:{}", self.port),
            Some(IpAddr::V6(ip)) => format!("[{ip}]:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_units_may_be_left_out() {
        let words = |text| Expected::parse(text).map(|e| (e.words(), e.unit));
        assert_eq!(words("443"), Some((":443".into(), None)));
        assert_eq!(words(":443"), Some((":443".into(), None)));
        assert_eq!(words("*:443"), Some((":443".into(), None)));
        assert_eq!(words("10.0.0.1:443"), Some(("10.0.0.1:443".into(), None)));
        assert_eq!(
            words("[::1]:443=nginx"),
            Some(("[::1]:443".into(), Some("nginx".into())))
        );
        for wrong in [
            "", "0", "65536", "x:1", "::1:443", "443=", "[::1]", "1.2.3:4", "=a",
        ] {
            assert_eq!(words(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn service_may_be_left_out_of_a_unit() {
        let expected = |unit: &str| Expected::parse(&format!("443={unit}")).unwrap();
        assert!(expected("nginx").is_unit("nginx.service"));
        assert!(expected("nginx.service").is_unit("nginx.service"));
        assert!(expected("nginx.socket").is_unit("nginx.socket"));
        assert!(!expected("nginx").is_unit("nginx.socket"));
        assert!(!expected("nginx").is_unit("apache2.service"));
    }
}
