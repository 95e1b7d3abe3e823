//! Columns whose values are few and known: another word behind `=` is a slip, not an empty answer.

use crate::fields::Field;

const FAMILIES: &[&str] = &["ipv4", "ipv6", "unix", "packet", "netlink", "vsock"];

const PROTOCOLS: &[&str] = &[
    "tcp", "mptcp", "udp", "udplite", "raw", "sctp", "unix", "packet", "netlink", "vsock",
];

const NETIDS: &[&str] = &[
    "tcp", "mptcp", "udp", "udplite", "raw", "icmp6", "sctp", "u_str", "u_dgr", "u_seq", "p_raw",
    "p_dgr", "nl", "v_str", "v_dgr", "v_seq",
];

const WAITING_ON: &[&str] = &["peer", "us", "peer-window", "network", "nobody"];

/// The values of a column that has no others.
pub(super) fn names(field: &Field) -> Option<&'static [&'static str]> {
    Some(match field.id {
        "family" => FAMILIES,
        "protocol" => PROTOCOLS,
        "netid" => NETIDS,
        "waiting-on" => WAITING_ON,
        _ => return None,
    })
}

/// Whether the column says yes or no.
pub(super) fn is_flag(field: &Field) -> bool {
    ["v6only", "bpf-storage"].contains(&field.id)
}

/// What is compared with: `text` itself, or the value that it means in any case, `1` and `true` among the flags.
/// `None` if it is none of the column's.
pub(super) fn value<'a>(field: &Field, text: &'a str) -> Option<&'a str> {
    if is_flag(field) {
        return match &text.to_ascii_lowercase()[..] {
            "yes" | "1" | "true" => Some("yes"),
            "no" | "0" | "false" => Some("no"),
            _ => None,
        };
    }
    match names(field) {
        Some(names) => names
            .iter()
            .find(|name| name.eq_ignore_ascii_case(text))
            .copied(),
        None => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields;
    use crate::model::{Family, Protocol, WaitingOn};

    #[test]
    fn the_names_are_those_that_rows_have() {
        assert!(Protocol::ALL.map(Protocol::name).iter().eq(PROTOCOLS));
        assert_eq!(
            FAMILIES[..2],
            [Family::Ipv4, Family::Ipv6].map(Family::name)
        );
        let of_ip = |name: &&&str| {
            !Protocol::ALL
                .iter()
                .any(|p| p.over_ip() && p.name() == **name)
        };
        assert!(PROTOCOLS.iter().filter(of_ip).eq(&FAMILIES[2..]));
        let waiting = [
            WaitingOn::Peer,
            WaitingOn::Us,
            WaitingOn::PeersWindow,
            WaitingOn::Network,
            WaitingOn::Nobody,
        ];
        assert!(waiting.map(WaitingOn::name).iter().eq(WAITING_ON));
        for id in ["family", "protocol", "netid", "waiting-on"] {
            assert!(names(fields::by_id(id).unwrap()).is_some(), "{id}");
        }
        for id in ["v6only", "bpf-storage"] {
            assert!(is_flag(fields::by_id(id).unwrap()), "{id}");
        }
    }
}
