//! The kernel hands the keys of MD5 signatures to whoever has CAP_NET_ADMIN (`tcp_diag_put_md5sig()` in
//! `net/ipv4/tcp_diag.c`). They never leave the buffer that they came in.

use netlink_packet_sock_diag::SOCK_DIAG_BY_FAMILY;

use crate::model::options::Md5;

/// `sizeof(struct nlmsghdr)`
const HEADER: usize = 16;
/// `sizeof(struct inet_diag_msg)`
const MESSAGE: usize = 72;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const INET_DIAG_MD5SIG: u16 = 18;

/// Overwrites the keys in a datagram and leaves everything else as it is.
pub fn wipe(datagram: &mut [u8]) {
    let mut rest = datagram;
    while let Some(length) = rest.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length < HEADER {
            return;
        }
        let (message, behind) = rest.split_at_mut(length.min(rest.len()));
        message_of(message);
        // Messages begin at multiples of 4.
        let padding = (length.next_multiple_of(4) - length).min(behind.len());
        rest = behind.get_mut(padding..).unwrap_or_default();
    }
}

fn message_of(message: &mut [u8]) {
    let kind = message.get(4..6).and_then(|bytes| bytes.try_into().ok());
    let family = message.get(HEADER).copied();
    if kind.map(u16::from_ne_bytes) != Some(SOCK_DIAG_BY_FAMILY)
        || !matches!(family, Some(AF_INET | AF_INET6))
    {
        return;
    }
    let mut rest = message.get_mut(HEADER + MESSAGE..).unwrap_or_default();
    while let Some([a, b, c, d]) = rest.first_chunk().copied() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        if length < 4 {
            return;
        }
        let (attribute, behind) = rest.split_at_mut(length.min(rest.len()));
        if u16::from_ne_bytes([c, d]) == INET_DIAG_MD5SIG {
            Md5::wipe(attribute.get_mut(4..).unwrap_or_default());
        }
        let padding = (length.next_multiple_of(4) - length).min(behind.len());
        rest = behind.get_mut(padding..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::nla::built;

    fn framed(family: u8, attributes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + MESSAGE + attributes.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.push(family);
        bytes.resize(HEADER + MESSAGE, 0);
        bytes.extend(attributes);
        bytes
    }

    fn signature() -> Vec<u8> {
        let mut entry = vec![2, 24, 6, 0, 10, 0, 0, 0];
        entry.resize(20, 0);
        entry.extend(b"secret");
        entry.resize(100, 0);
        entry
    }

    #[test]
    fn the_keys_go_and_everything_else_stays() {
        let attributes = built(&[(4, b"secret\0"), (18, &signature()), (4, b"secret\0")]);
        let before = [framed(2, &attributes), framed(10, &attributes)].concat();
        let mut after = before.clone();
        wipe(&mut after);
        let changed: Vec<usize> = (0..before.len())
            .filter(|at| before[*at] != after[*at])
            .collect();
        assert_eq!(changed.len(), 12, "six letters in each message");
        let secrets = |bytes: &[u8]| bytes.windows(6).filter(|six| six == b"secret").count();
        assert_eq!(
            (secrets(&before), secrets(&after)),
            (6, 4),
            "what is no key stays"
        );
        // A UNIX socket's attributes have other numbers.
        let mut unix = framed(1, &attributes);
        let before = unix.clone();
        wipe(&mut unix);
        assert_eq!(unix, before);
    }

    #[test]
    fn a_key_in_a_cut_message_goes_too() {
        let attributes = built(&[(18, &signature())]);
        for cut in 0..80 {
            let mut bytes = framed(2, &attributes);
            bytes.truncate(bytes.len() - cut);
            wipe(&mut bytes);
            assert!(!bytes.contains(&b's'), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), attributes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut random = bytes;
            wipe(&mut random);
            wipe(&mut framed(2, &attributes));
        }
    }
}
