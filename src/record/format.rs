//! The bytes of a capture: preamble, section headers, compression. No file is touched here.

use std::io::{BufRead, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use serde::{Deserialize, Serialize};

use crate::collect::Table;
use crate::model::{Collector, Family, Host, Protocol, StateSet, TcpState};

/// How every capture begins. The line feed is lost or doubled by a transfer as text.
pub const MAGIC: [u8; 8] = *b"LINGERC\n";

/// The format of the file as a whole.
pub const FORMAT: u32 = 1;

/// Magic and format.
pub const PREAMBLE: usize = 12;

/// A section's header.
pub const HEADER: usize = 24;

/// The longest payload that is decoded, and the longest content of one, bytes. Owners of a million sockets take a
/// fifth of it.
pub const MAX_SECTION: usize = 64 << 20;

/// Content after which a writer begins another section, bytes.
pub const CHUNK: usize = 1 << 20;

/// More sections than this are not a capture: at [`CHUNK`] each they would hold a terabyte.
pub const MAX_SECTIONS: u32 = 1 << 20;

/// A kind of section that this version knows. All are of version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Host,
    Sample,
    Want,
    /// a dump of sockets
    Dump(Collector, Protocol),
    Owners,
    Unlisted,
    Cpu,
    Facts,
    Coverage,
    /// ends a frame of a sequence
    Frame,
    End,
}

/// The newest version of a section that is known.
pub const SECTION_VERSION: u16 = 1;

impl Kind {
    /// Those that are no dump.
    const OTHERS: [Self; 10] = [
        Self::Host,
        Self::Sample,
        Self::Want,
        Self::Owners,
        Self::Unlisted,
        Self::Cpu,
        Self::Facts,
        Self::Coverage,
        Self::Frame,
        Self::End,
    ];

    pub(super) fn all() -> impl Iterator<Item = Self> {
        let dumps =
            |protocol| [Collector::Netlink, Collector::Procfs].map(|by| Self::Dump(by, protocol));
        Self::OTHERS
            .into_iter()
            .chain(Protocol::ALL.into_iter().flat_map(dumps))
    }

    /// The tag in the file.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Host => "HOST",
            Self::Sample => "SMPL",
            Self::Want => "WANT",
            Self::Dump(Collector::Netlink, protocol) => match protocol {
                Protocol::Tcp => "NLNK",
                Protocol::Mptcp => "NLMP",
                Protocol::Udp => "NLUD",
                Protocol::UdpLite => "NLUL",
                Protocol::Raw => "NLRW",
                Protocol::Sctp => "NLSC",
                Protocol::Unix => "NLUX",
                Protocol::Packet => "NLPK",
                Protocol::Netlink => "NLNL",
                Protocol::Vsock => "NLVS",
            },
            Self::Dump(Collector::Procfs, protocol) => match protocol {
                Protocol::Tcp => "PROC",
                Protocol::Mptcp => "PRMP",
                Protocol::Udp => "PRUD",
                Protocol::UdpLite => "PRUL",
                Protocol::Raw => "PRRW",
                Protocol::Sctp => "PRSC",
                Protocol::Unix => "PRUX",
                Protocol::Packet => "PRPK",
                Protocol::Netlink => "PRNL",
                Protocol::Vsock => "PRVS",
            },
            Self::Owners => "OWNR",
            Self::Unlisted => "UNLS",
            Self::Cpu => "CGRP",
            Self::Facts => "FACT",
            Self::Coverage => "COVR",
            Self::Frame => "FRAM",
            Self::End => "END!",
        }
    }

    /// The table that a section of this kind and family is a dump of.
    pub fn table(self, family: Option<Family>) -> Option<Table> {
        match self {
            Self::Dump(_, protocol) if protocol.over_ip() => {
                family.map(|family| Table::of(protocol, family))
            }
            Self::Dump(_, protocol) => Some(Table::without_family(protocol)),
            _ => None,
        }
    }
}

/// A section's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub tag: [u8; 4],
    pub version: u16,
    pub of: u16,
    pub length: u64,
    pub checksum: u32,
}

impl Header {
    pub fn new(kind: Kind, family: Option<Family>, payload: &[u8]) -> Self {
        let mut tag = [0; 4];
        tag.iter_mut()
            .zip(kind.tag().bytes())
            .for_each(|(to, from)| *to = from);
        Self {
            tag,
            version: SECTION_VERSION,
            of: match family {
                None => 0,
                Some(Family::Ipv4) => 4,
                Some(Family::Ipv6) => 6,
            },
            length: payload.len() as u64,
            checksum: crc32fast::hash(payload),
        }
    }

    pub fn kind(&self) -> Option<Kind> {
        Kind::all().find(|kind| kind.tag().as_bytes() == self.tag)
    }

    pub const fn family(&self) -> Option<Family> {
        match self.of {
            4 => Some(Family::Ipv4),
            6 => Some(Family::Ipv6),
            _ => None,
        }
    }

    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(self.tag);
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.of.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        bytes.extend(self.checksum.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// `None` if the checksum is not that of the bytes before it.
    pub fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let (fields, checksum) = bytes.split_last_chunk()?;
        if crc32fast::hash(fields) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let (tag, rest) = fields.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (of, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        Some(Self {
            tag: *tag,
            version: u16::from_le_bytes(*version),
            of: u16::from_le_bytes(*of),
            length: u64::from_le_bytes(*length),
            checksum: u32::from_le_bytes(rest.try_into().ok()?),
        })
    }
}

/// `HOST`, version 1.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// whether netlink's numbers in the file are big-endian
    pub big_endian: bool,
    /// the version of linger that recorded
    pub tool: String,
    /// when recording began, nanoseconds since 1970
    pub taken_ns: i64,
    pub host: Host,
    /// whether each sample is a whole look, ended by `FRAM`
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sequence: bool,
}

/// `WANT`, version 1.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// mask of states, bit n for state n
    pub states: u32,
    pub ipv4: bool,
    pub ipv6: bool,
    pub tcp_info: bool,
    pub memory: bool,
    pub congestion: bool,
    pub tos: bool,
}

impl Asked {
    /// Whether every known state of `states` was asked for.
    pub fn covers(&self, states: StateSet) -> bool {
        TcpState::SHOWN
            .into_iter()
            .filter(|state| states.contains(*state))
            .all(|state| self.states & (1 << state.number()) != 0)
    }
}

/// Writes the payload of a dump for `content` into `payload`.
pub fn compress(content: &[u8], payload: &mut Vec<u8>) -> std::io::Result<()> {
    payload.clear();
    let length = u32::try_from(content.len()).map_err(std::io::Error::other)?;
    payload.extend(length.to_le_bytes());
    let info = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max256KB);
    let mut encoder = FrameEncoder::with_frame_info(info, payload);
    encoder.write_all(content)?;
    encoder.finish()?;
    Ok(())
}

/// The reverse of [`compress`]. Never holds more than [`MAX_SECTION`] and two blocks (4 MiB at most each).
pub fn decompress(payload: &[u8], content: &mut Vec<u8>) -> Result<(), String> {
    content.clear();
    let (length, frame) = payload
        .split_first_chunk()
        .ok_or("it has no length of its content")?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_SECTION {
        return Err(format!(
            "its content would be {length} bytes long, and {MAX_SECTION} is the limit"
        ));
    }
    // Only the frames that are written here: the modern magic, version 1, independent blocks.
    let ours = matches!(frame, [0x04, 0x22, 0x4d, 0x18, flags, ..] if flags & 0xe0 == 0x60);
    if !ours {
        return Err("its content is not an LZ4 frame of independent blocks".to_owned());
    }
    let mut decoder = FrameDecoder::new(frame);
    loop {
        let block = decoder
            .fill_buf()
            .map_err(|error| format!("its content cannot be decompressed: {error}"))?;
        if block.is_empty() {
            break;
        }
        if content.len() + block.len() > length {
            return Err(format!(
                "its content is longer than the {length} bytes it names"
            ));
        }
        content.extend_from_slice(block);
        let read = block.len();
        decoder.consume(read);
    }
    if content.len() != length {
        return Err(format!(
            "its content is {} bytes long instead of {length}",
            content.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_and_no_single_bit_of_it_may_change() {
        let header = Header::new(
            Kind::Dump(Collector::Netlink, Protocol::Tcp),
            Some(Family::Ipv6),
            b"payload",
        );
        let bytes: [u8; HEADER] = header.to_bytes().try_into().unwrap();
        assert_eq!(Header::parse(&bytes), Some(header));
        assert_eq!(
            (header.kind(), header.family()),
            (
                Some(Kind::Dump(Collector::Netlink, Protocol::Tcp)),
                Some(Family::Ipv6)
            )
        );
        for bit in 0..HEADER * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::parse(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn content_survives_compression_at_block_edges() {
        let (mut payload, mut content) = (Vec::new(), vec![9; 9]);
        for length in [0, 1, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, CHUNK + 5] {
            let original: Vec<u8> = (0..length).map(|i| ((i * i) >> 7) as u8).collect();
            compress(&original, &mut payload).unwrap();
            decompress(&payload, &mut content).unwrap();
            assert!(content == original, "{length}");
        }
    }

    #[test]
    fn decompression_is_bounded() {
        let (mut bomb, mut content) = (Vec::new(), Vec::new());
        compress(&vec![0; 32 << 20], &mut bomb).unwrap();
        assert!(bomb.len() < 1 << 20, "it is a bomb");
        bomb[..4].copy_from_slice(&1000u32.to_le_bytes());
        assert!(
            decompress(&bomb, &mut content)
                .unwrap_err()
                .contains("longer")
        );
        assert!(content.capacity() < 1 << 20, "{}", content.capacity());
        bomb[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(
            decompress(&bomb, &mut content)
                .unwrap_err()
                .contains("limit")
        );
        bomb[..4].copy_from_slice(&(33u32 << 20).to_le_bytes());
        assert!(
            decompress(&bomb, &mut content)
                .unwrap_err()
                .contains("instead")
        );
        for short in 0..12 {
            assert!(decompress(&bomb[..short], &mut content).is_err());
        }
    }

    #[test]
    fn no_bytes_panic() {
        use proptest::prelude::*;
        let mut whole = Vec::new();
        let text: Vec<u8> = (0..3000u32).flat_map(|i| (i % 77).to_le_bytes()).collect();
        compress(&text, &mut whole).unwrap();
        proptest!(|(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8))| {
            let mut payload = whole.clone();
            for (at, byte) in changes {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
            let _ = decompress(&payload, &mut Vec::new());
        });
    }

    #[test]
    fn what_was_asked_for_is_compared_by_known_states() {
        let asked = |states: StateSet| Asked {
            states: states.mask(),
            ipv4: true,
            ipv6: true,
            tcp_info: false,
            memory: false,
            congestion: false,
            tos: false,
        };
        let listen = StateSet::of(TcpState::Listen);
        assert!(asked(listen).covers(listen) && !asked(listen).covers(StateSet::ALL));
        assert!(asked(StateSet::ALL).covers(StateSet::ALL));
        let known = StateSet::CONNECTED
            .union(listen)
            .union(StateSet::of(TcpState::Closed))
            .union(StateSet::of(TcpState::BoundInactive));
        assert!(
            asked(known).covers(StateSet::ALL),
            "numbers that nobody knows do not count"
        );
    }
}
