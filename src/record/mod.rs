//! Captures: what the kernel and `/proc` said, kept in a file, to be read again anywhere with the same result.
//!
//! A capture holds what was *read*, nothing that was derived from it: netlink datagrams as they were received, the
//! tables of `/proc/net` as text. [`Capture`] is one more [`crate::collect::Source`] and feeds them to the decoders
//! that a live dump uses; what a later version learns to decode, it finds in old captures too. [`SsDump`] is another
//! source: what `ss -D` wrote. [`open`] tells the two apart.
//!
//! # The file
//!
//! All numbers of the file itself are little-endian.
//!
//! ```text
//! magic       8 bytes   "LINGERC\n"
//! format      u32       1
//! section *             until END!, after which nothing follows
//!
//! section:
//!   tag       4 bytes
//!   version   u16       of this kind of section
//!   of        u16       dumps of a protocol over IP: the family, 4 or 6; else 0
//!   length    u64       bytes of the payload
//!   checksum  u32       CRC-32 of the payload
//!   checksum  u32       CRC-32 of the 20 bytes before it
//!   payload
//! ```
//!
//! | tag | payload | how often |
//! |---|---|---|
//! | `HOST` | byte order of the recorded machine, version of linger, time, [`crate::model::Host`] | once, first |
//! | `SMPL` | begins a sample: i64, nanoseconds since 1970 | one or more |
//! | `WANT` | what was asked for: states, families, attributes | at most once a sample |
//! | `NLNK` | netlink datagrams of a family, each after its u32 length | any number |
//! | `PROC` | text of `/proc/net/tcp` or `tcp6` | any number |
//! | `NLUD`, `PRUD` | the same of UDP | any number |
//! | `NLMP`, `NLUL`, `PRUL`, `NLRW`, `PRRW`, `NLSC`, `PRSC` | the same of MPTCP, UDP-Lite, RAW, SCTP | any number |
//! | `NLUX`, `PRUX` | the same of UNIX sockets, of no family | any number |
//! | `NLPK`, `PRPK`, `NLNL`, `PRNL`, `NLVS` | the same of PACKET, NETLINK, VSOCK, of no family | any number |
//! | `OWNR` | [`crate::model::Owners`] | at most once a sample |
//! | `UNLS` | [`crate::model::Unlisted`], a list; absent where that could not be seen | at most once a sample |
//! | `CGRP` | [`crate::model::Cpu`] by path of the control group | at most once a sample |
//! | `FACT` | [`crate::model::Facts`] | at most once a sample |
//! | `COVR` | [`crate::model::Coverage`] | at most once a sample |
//! | `FRAM` | ends a frame of a sequence: u32, how many sections came before | once a sample of a sequence |
//! | `END!` | u32, how many sections came before; a file without it is cut off | once, last |
//!
//! `NLNK`, `PROC` and their like hold a u32 with the length of the content and then the content as one LZ4 frame. Long content is
//! continued in the next section of the same kind, family and sample, so that writing and reading take constant
//! memory; a datagram never straddles two sections. The other structures are JSON. Netlink data and
//! `/proc/net/tcp` have the byte order of the recorded machine, so another one refuses them.
//!
//! # Sequences
//!
//! A file whose `HOST` has the member `sequence` holds any number of whole looks, the *frames*: each is a sample, ended by
//! `FRAM`. A frame is written behind the one before it and given to the system as a whole ([`Series`]), so that a
//! recording that was killed, or that filled its disk, keeps all frames but the last. What follows the last whole frame is
//! left out and said in [`crate::model::Coverage::notes`]; that `END!` is missing where a frame ends means that nobody
//! ended the recording, and is no fault. A file that is torn within its first frame is an error. When a sequence is opened
//! its headers are walked over and the last frame is checked wholly; another frame is checked when it is sought. A reader
//! that does not know sequences reads one with its `END!` as a capture with many samples. Without `sequence` the first
//! sample is the only whole look, and the one behind it a light one.
//!
//! # Evolution
//!
//! An unknown tag is checked and skipped, and so is an unknown member of a structure; one that an old capture lacks has
//! its default, which is "unknown". So additions are free. **Whoever gives a stored member another meaning or removes
//! one raises the version of its section and keeps the old structure and its decoder.** A version that is newer than
//! the reader is an error, not a guess. `tests/data/v1.linger` and `v1-series.linger` stay readable for ever.
//!
//! # What a capture says about its gaps
//!
//! `COVR` is the coverage as the recording knew it. Of it, replay takes what only the recording could know: the
//! collector, the fallback, lost buffers, missing parts, and the gaps of the owners. What the decoder counts
//! (interrupted dumps, undecoded messages, unknown states) is counted again while replaying, and the recorded number
//! is *not* added. A recorded dump without its end, a family that is not there, and states that were not asked for
//! are missing parts, each said to who reads the protocol that it begins with. Sockets of another protocol than TCP that a
//! capture does not hold are not: they were never asked for. The first sample has every protocol, later ones those that
//! detectors compare, in a sequence as elsewhere.
//!
//! # Hostile files
//!
//! Every byte of the file is under a check. Lengths are believed only after the checksum of their header, and only as
//! far as the file reaches; a section that is decoded is at most 64 MiB, before and after decompression. Dumps are
//! read a section at a time.

mod beside;
mod error;
mod format;
mod index;
mod name;
mod read;
mod replay;
mod sections;
mod series;
mod ssdump;
#[cfg(test)]
mod testing;
mod write;

pub use error::Error;
pub use read::Capture;
pub use series::Series;
pub use ssdump::SsDump;
pub use write::Writer;

use std::path::Path;

use crate::collect::Source;

/// Opens a capture, or a raw dump of ss: what the file begins with decides.
///
/// # Errors
/// When it is neither, or not one that can be read.
pub fn open(path: &Path) -> Result<Box<dyn Source>, Error> {
    match SsDump::open(path)? {
        Some(dump) => Ok(Box::new(dump)),
        None => Ok(Box::new(Capture::open(path)?)),
    }
}
