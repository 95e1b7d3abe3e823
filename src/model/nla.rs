//! The walk over netlink attributes (`struct nlattr`, `include/uapi/linux/netlink.h`), also where they are nested.

/// Length and kind.
const HEADER: usize = 4;
/// The kind without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` (`NLA_TYPE_MASK`).
const KIND: u16 = 0x3fff;

/// One attribute after the other. A malformed one ends the walk; what came before it stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nlas<'a> {
    rest: &'a [u8],
}

impl<'a> Nlas<'a> {
    /// The attributes in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What the walk has not come to.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The value of the first attribute of this kind.
    pub fn find(mut self, wanted: u16) -> Option<&'a [u8]> {
        self.find_map(|(kind, value)| (kind == wanted).then_some(value))
    }
}

impl<'a> Iterator for Nlas<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, after) = self.rest.split_first_chunk()?;
        let (kind, _) = after.split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes(*length));
        let Some(value) = self.rest.get(HEADER..length) else {
            self.rest = &[];
            return None;
        };
        // The last one need not be padded.
        let next = length.next_multiple_of(4).min(self.rest.len());
        self.rest = self.rest.get(next..).unwrap_or_default();
        Some((u16::from_ne_bytes(*kind) & KIND, value))
    }
}

/// The number that an attribute holds; `None` if it is of another size.
pub fn u16_of(value: &[u8]) -> Option<u16> {
    value.try_into().ok().map(u16::from_ne_bytes)
}

/// The number that an attribute holds; `None` if it is of another size.
pub fn u32_of(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// The number that an attribute holds; `None` if it is of another size.
pub fn u64_of(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_ne_bytes)
}

/// Text up to the NUL that ends it.
pub fn text_of(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or(value)
}

/// The attributes as a kernel would send them, for examples and tests.
pub fn built(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in attributes {
        let length = u16::try_from(value.len() + HEADER).unwrap_or(u16::MAX);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(*value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_attribute_comes_without_its_padding_and_flags() {
        let bytes = built(&[(1, b"abc"), (0x8002, &[]), (3, b"12345678")]);
        let found: Vec<_> = Nlas::new(&bytes).collect();
        assert_eq!(found, [(1, &b"abc"[..]), (2, b""), (3, b"12345678")]);
        assert_eq!(Nlas::new(&bytes).find(3), Some(&b"12345678"[..]));
        assert_eq!(Nlas::new(&bytes).find(4), None);
        let unpadded = &bytes[..7];
        assert_eq!(Nlas::new(unpadded).count(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_the_walk_ends(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let most = bytes.len() / HEADER;
            prop_assert!(Nlas::new(&bytes).count() <= most);
        }

        #[test]
        fn what_came_before_a_broken_attribute_stands(cut in 1usize..8) {
            let mut bytes = built(&[(8, &[3]), (15, &[0; 4])]);
            bytes.truncate(bytes.len() - cut);
            let found: Vec<_> = Nlas::new(&bytes).collect();
            prop_assert_eq!(found, [(8, &[3u8][..])]);
        }
    }
}
