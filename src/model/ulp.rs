//! The upper-layer protocol of a TCP socket: `INET_DIAG_ULP_INFO` (`include/uapi/linux/{inet_diag,tls,mptcp}.h`).

use super::nla::{Nlas, text_of, u16_of, u32_of, u64_of};

/// What sits on the TCP socket. Its parts are decoded when asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ulp<'a> {
    nlas: Nlas<'a>,
}

impl<'a> Ulp<'a> {
    const NAME: u16 = 1;
    const TLS: u16 = 2;
    const MPTCP: u16 = 3;

    /// The attribute's value.
    pub const fn new(value: &'a [u8]) -> Self {
        Self {
            nlas: Nlas::new(value),
        }
    }

    /// `INET_ULP_INFO_NAME`: `tls`, `mptcp`, `espintcp`, `smc`.
    pub fn name(&self) -> Option<&'a [u8]> {
        self.nlas.find(Self::NAME).map(text_of)
    }

    /// `INET_ULP_INFO_TLS`: the kernel's TLS.
    pub fn tls(&self) -> Option<Tls> {
        self.nlas.find(Self::TLS).map(Tls::parse)
    }

    /// `INET_ULP_INFO_MPTCP`: the subflow of a multipath connection. A listener has none.
    pub fn mptcp(&self) -> Option<Mptcp> {
        self.nlas.find(Self::MPTCP).map(Mptcp::parse)
    }
}

/// The kernel's TLS on a connection (`TLS_INFO_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// `TLS_INFO_VERSION`: the number that goes over the wire, 0x0303 for 1.2
    pub version: Option<u16>,
    /// `TLS_INFO_CIPHER`: `TLS_CIPHER_*`
    pub cipher: Option<u16>,
    /// `TLS_INFO_TXCONF`: who encrypts, `TLS_CONF_*`
    pub txconf: Option<u16>,
    /// `TLS_INFO_RXCONF`: who decrypts, `TLS_CONF_*`
    pub rxconf: Option<u16>,
    /// `TLS_INFO_ZC_RO_TX`: the program promised not to change what it sends by sendfile
    pub zc_ro_tx: bool,
    /// `TLS_INFO_RX_NO_PAD`: the peer is expected to pad nothing
    pub rx_no_pad: bool,
}

impl Tls {
    fn parse(value: &[u8]) -> Self {
        let mut tls = Self::default();
        for (kind, value) in Nlas::new(value) {
            match kind {
                1 => tls.version = u16_of(value),
                2 => tls.cipher = u16_of(value),
                3 => tls.txconf = u16_of(value),
                4 => tls.rxconf = u16_of(value),
                5 => tls.zc_ro_tx = true,
                6 => tls.rx_no_pad = true,
                _ => {}
            }
        }
        tls
    }

    /// The version's name; `None` for one that this program does not know.
    pub const fn version_name(&self) -> Option<&'static str> {
        match self.version {
            Some(0x0303) => Some("1.2"),
            Some(0x0304) => Some("1.3"),
            _ => None,
        }
    }

    /// The cipher's name; `None` for one that this program does not know.
    pub const fn cipher_name(&self) -> Option<&'static str> {
        match self.cipher {
            Some(51) => Some("aes-gcm-128"),
            Some(52) => Some("aes-gcm-256"),
            Some(53) => Some("aes-ccm-128"),
            Some(54) => Some("chacha20-poly1305"),
            Some(55) => Some("sm4-gcm"),
            Some(56) => Some("sm4-ccm"),
            Some(57) => Some("aria-gcm-128"),
            Some(58) => Some("aria-gcm-256"),
            _ => None,
        }
    }

    /// The name of a `TLS_CONF_*`: `base` is nobody yet, `sw` the kernel, `hw` the network card.
    pub const fn conf_name(conf: Option<u16>) -> Option<&'static str> {
        match conf {
            Some(1) => Some("base"),
            Some(2) => Some("sw"),
            Some(3) => Some("hw"),
            Some(4) => Some("hw-record"),
            _ => None,
        }
    }
}

/// A subflow of an MPTCP connection (`MPTCP_SUBFLOW_ATTR_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mptcp {
    /// `MPTCP_SUBFLOW_ATTR_TOKEN_REM`: the peer's name of the connection; 0 where it joined none
    pub token_rem: Option<u32>,
    /// `MPTCP_SUBFLOW_ATTR_TOKEN_LOC`: this end's name of the connection, the same for all its subflows
    pub token_loc: Option<u32>,
    /// `MPTCP_SUBFLOW_ATTR_RELWRITE_SEQ`
    pub relwrite_seq: Option<u32>,
    /// `MPTCP_SUBFLOW_ATTR_MAP_SEQ`: the data sequence number of the current mapping
    pub map_seq: Option<u64>,
    /// `MPTCP_SUBFLOW_ATTR_MAP_SFSEQ`: the subflow's sequence number of it
    pub map_sfseq: Option<u32>,
    /// `MPTCP_SUBFLOW_ATTR_SSN_OFFSET`
    pub ssn_offset: Option<u32>,
    /// `MPTCP_SUBFLOW_ATTR_MAP_DATALEN`: bytes that the current mapping covers
    pub map_datalen_bytes: Option<u16>,
    /// `MPTCP_SUBFLOW_ATTR_FLAGS`
    pub flags: Option<SubflowFlags>,
    /// `MPTCP_SUBFLOW_ATTR_ID_REM`: the id of the peer's address
    pub id_rem: Option<u8>,
    /// `MPTCP_SUBFLOW_ATTR_ID_LOC`: the id of this end's address
    pub id_loc: Option<u8>,
}

impl Mptcp {
    fn parse(value: &[u8]) -> Self {
        let mut mptcp = Self::default();
        for (kind, value) in Nlas::new(value) {
            match kind {
                1 => mptcp.token_rem = u32_of(value),
                2 => mptcp.token_loc = u32_of(value),
                3 => mptcp.relwrite_seq = u32_of(value),
                4 => mptcp.map_seq = u64_of(value),
                5 => mptcp.map_sfseq = u32_of(value),
                6 => mptcp.ssn_offset = u32_of(value),
                7 => mptcp.map_datalen_bytes = u16_of(value),
                8 => mptcp.flags = u32_of(value).map(SubflowFlags),
                9 => mptcp.id_rem = value.first().copied(),
                10 => mptcp.id_loc = value.first().copied(),
                _ => {}
            }
        }
        mptcp
    }
}

/// `MPTCP_SUBFLOW_FLAG_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubflowFlags(pub u32);

impl SubflowFlags {
    /// The flags in the order of their bits: name, and the letter that ss has for it.
    const ALL: [(&'static str, char); 9] = [
        ("mcap_rem", 'M'),
        ("mcap_loc", 'm'),
        ("join_rem", 'J'),
        ("join_loc", 'j'),
        ("bkup_rem", 'B'),
        ("bkup_loc", 'b'),
        ("fully_established", 'e'),
        ("connected", 'c'),
        ("mapvalid", 'v'),
    ];

    fn set(self) -> impl Iterator<Item = (&'static str, char)> {
        let bits = (0..).map(|bit: u32| 1 << bit);
        let named = Self::ALL.into_iter().zip(bits);
        named.filter_map(move |(flag, bit)| (self.0 & bit != 0).then_some(flag))
    }

    /// The names of the flags that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.set().map(|(name, _)| name)
    }

    /// Their letters in ss.
    pub fn letters(self) -> impl Iterator<Item = char> {
        self.set().map(|(_, letter)| letter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::nla::built;

    #[test]
    fn the_kernels_tls_is_told_by_its_names() {
        let tls = built(&[
            (1, &0x0304u16.to_ne_bytes()),
            (2, &52u16.to_ne_bytes()),
            (3, &2u16.to_ne_bytes()),
            (4, &3u16.to_ne_bytes()),
            (5, &[]),
            (6, &[]),
            (99, &[1]),
        ]);
        let value = built(&[(1, b"tls\0"), (2 | 0x8000, &tls)]);
        let ulp = Ulp::new(&value);
        assert_eq!(ulp.name(), Some(&b"tls"[..]));
        assert_eq!(ulp.mptcp(), None);
        let tls = ulp.tls().unwrap();
        assert_eq!(tls.version_name(), Some("1.3"));
        assert_eq!(tls.cipher_name(), Some("aes-gcm-256"));
        assert_eq!(Tls::conf_name(tls.txconf), Some("sw"));
        assert_eq!(Tls::conf_name(tls.rxconf), Some("hw"));
        assert!(tls.zc_ro_tx && tls.rx_no_pad);
        let older = Tls::parse(&built(&[(1, &[9, 9]), (2, &[1])]));
        assert_eq!((older.version, older.version_name()), (Some(0x0909), None));
        assert_eq!((older.cipher, older.zc_ro_tx), (None, false));
        assert_eq!(Tls::conf_name(Some(7)), None);
    }

    #[test]
    fn a_subflow_is_told_by_its_attributes() {
        let subflow = built(&[
            (1, &0u32.to_ne_bytes()),
            (2, &0x2967_a59du32.to_ne_bytes()),
            (3, &5u32.to_ne_bytes()),
            (4, &0x59bb_6cb8_c3aa_82e5u64.to_ne_bytes()),
            (5, &0xffccu32.to_ne_bytes()),
            (6, &0x34ad_cfa1u32.to_ne_bytes()),
            (7, &0x4002u16.to_ne_bytes()),
            (8, &0b1100_0001u32.to_ne_bytes()),
            (9, &[1]),
            (10, &[2]),
        ]);
        let value = built(&[(1, b"mptcp\0"), (3 | 0x8000, &subflow)]);
        let mptcp = Ulp::new(&value).mptcp().unwrap();
        assert_eq!(
            (mptcp.token_rem, mptcp.token_loc),
            (Some(0), Some(0x2967_a59d))
        );
        assert_eq!(mptcp.map_seq, Some(0x59bb_6cb8_c3aa_82e5));
        assert_eq!(
            (mptcp.relwrite_seq, mptcp.map_sfseq),
            (Some(5), Some(0xffcc))
        );
        assert_eq!(
            (mptcp.ssn_offset, mptcp.map_datalen_bytes),
            (Some(0x34ad_cfa1), Some(0x4002))
        );
        assert_eq!((mptcp.id_rem, mptcp.id_loc), (Some(1), Some(2)));
        let flags = mptcp.flags.unwrap();
        assert_eq!(flags.letters().collect::<String>(), "Mec");
        assert_eq!(
            flags.names().collect::<Vec<_>>(),
            ["mcap_rem", "fully_established", "connected"]
        );
        assert_eq!(SubflowFlags(u32::MAX).names().count(), 9);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(value in prop::collection::vec(any::<u8>(), 0..160)) {
            let ulp = Ulp::new(&value);
            let _ = (ulp.name(), ulp.tls(), ulp.mptcp());
            let nested = built(&[(2, &value), (3, &value)]);
            let ulp = Ulp::new(&nested);
            prop_assert!(ulp.tls().is_some() && ulp.mptcp().is_some());
        }
    }
}
