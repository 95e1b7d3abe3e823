//! SCTP: the states of an association, and addresses of ends that have several.

use super::socket::{Endpoint, Family};
use super::state::TcpState;

/// `sizeof(struct sockaddr_storage)`: `INET_DIAG_LOCALS` and `INET_DIAG_PEERS` are arrays of it
/// (`net/sctp/diag.c`).
pub const STORAGE: usize = 128;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// The state of TCP that plays the part of an association's, by the kernel's number (`enum sctp_state`,
/// `include/net/sctp/constants.h`). A socket of SCTP has numbers of TCP itself: LISTEN, CLOSE, ESTABLISHED, SYN_SENT
/// while it associates, CLOSE_WAIT while its peer shuts down (`enum sctp_sock_state`).
pub const fn association(number: u8) -> TcpState {
    match number {
        0 => TcpState::Closed,
        1 => TcpState::SynSent,
        2 => TcpState::SynReceived,
        3 => TcpState::Established,
        4 => TcpState::FinWait1,
        5 => TcpState::FinWait2,
        6 => TcpState::CloseWait,
        7 => TcpState::LastAck,
        other => TcpState::Unknown(other),
    }
}

/// The name that RFC 9260, section 4, has for it; `None` where it is TCP's.
pub const fn state_name(state: TcpState) -> Option<&'static str> {
    match state {
        TcpState::SynSent => Some("COOKIE-WAIT"),
        TcpState::SynReceived => Some("COOKIE-ECHOED"),
        TcpState::FinWait1 => Some("SHUTDOWN-PENDING"),
        TcpState::FinWait2 => Some("SHUTDOWN-SENT"),
        TcpState::CloseWait => Some("SHUTDOWN-RECEIVED"),
        TcpState::LastAck => Some("SHUTDOWN-ACK-SENT"),
        _ => None,
    }
}

/// The addresses and ports in an array of `struct sockaddr_storage`. One of another family is passed over, and so is a
/// piece at the end.
pub fn addresses(bytes: &[u8]) -> impl Iterator<Item = (Family, Endpoint)> + '_ {
    bytes.as_chunks::<STORAGE>().0.iter().filter_map(|storage| {
        let (family, rest) = storage.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        let port = u16::from_be_bytes(*port);
        match u16::from_ne_bytes(*family) {
            AF_INET => Some((Family::Ipv4, Endpoint::v4(*rest.first_chunk()?, port))),
            AF_INET6 => {
                // `sin6_flowinfo` is before the address.
                let (_, address) = rest.split_first_chunk::<4>()?;
                Some((Family::Ipv6, Endpoint::v6(*address.first_chunk()?, port)))
            }
            _ => None,
        }
    })
}

/// Adds an address to an array that [`addresses`] reads.
pub fn push(bytes: &mut Vec<u8>, family: Family, end: &Endpoint) {
    let start = bytes.len();
    match family {
        Family::Ipv4 => {
            bytes.extend(AF_INET.to_ne_bytes());
            bytes.extend(end.port.to_be_bytes());
            bytes.extend(end.address.iter().skip(12));
        }
        Family::Ipv6 => {
            bytes.extend(AF_INET6.to_ne_bytes());
            bytes.extend(end.port.to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(end.address);
        }
    }
    bytes.resize(start.saturating_add(STORAGE), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_were_written() {
        let ends = [
            (Family::Ipv4, Endpoint::v4([192, 0, 2, 1], 2905)),
            (Family::Ipv6, Endpoint::v6([0x20; 16], 2905)),
            (Family::Ipv4, Endpoint::v4([192, 0, 2, 2], 1)),
        ];
        let mut bytes = Vec::new();
        for (family, end) in &ends {
            push(&mut bytes, *family, end);
        }
        assert_eq!(bytes.len(), 3 * STORAGE);
        assert_eq!(addresses(&bytes).collect::<Vec<_>>(), ends);
        assert_eq!(addresses(&bytes[..STORAGE + 40]).count(), 1, "cut off");
        bytes[0] = 77;
        assert_eq!(addresses(&bytes).count(), 2, "of an unknown family");
    }

    #[test]
    fn each_state_of_an_association_is_one_of_its_own() {
        let states: Vec<_> = (0..8).map(association).collect();
        for (number, state) in states.iter().enumerate() {
            assert!(!states[..number].contains(state), "{state}");
        }
        assert_eq!(association(8), TcpState::Unknown(8));
        assert_eq!(state_name(association(7)), Some("SHUTDOWN-ACK-SENT"));
        assert_eq!(state_name(association(3)), None);
    }
}
