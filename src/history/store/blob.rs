//! A sample as bytes: postcard, with its length and checksum in front, packed as one block of LZ4.

use crate::history::Sample;
use crate::model::Facts;

/// Which form these bytes have. Whoever changes a member of [`Sample`] that is kept changes this number: postcard
/// names nothing, and what another version wrote is skipped.
pub const FORMAT: i64 = 1;

/// A list of more than this is not kept: its sample says that it is not whole.
const LONGEST: usize = 50_000;

/// No sample takes more than this, unpacked, in bytes.
const LARGEST: usize = 16 << 20;

/// Sysctls that are gauges, and so worth comparing.
const GAUGES: [&str; 2] = ["fs/file-nr", "net/netfilter/nf_conntrack_count"];

/// Bytes in front of the block: the length unpacked, and the CRC-32 of that.
const HEAD: usize = 8;

/// The sample as bytes; `None` if it takes too many.
pub fn pack(sample: &Sample) -> Option<Vec<u8>> {
    let raw = postcard::to_stdvec(&trimmed(sample)).ok()?;
    let length = u32::try_from(raw.len()).ok()?;
    if raw.len() > LARGEST {
        return None;
    }
    let mut bytes = Vec::with_capacity(HEAD + raw.len() / 2);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&raw).to_le_bytes());
    bytes.extend_from_slice(&lz4_flex::block::compress(&raw));
    Some(bytes)
}

/// How many bytes [`unpack`] will take for these; `None` if that is out of all reason.
pub fn unpacked_length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?);
    let length = usize::try_from(length).ok()?;
    // LZ4 packs 255 bytes into one at most.
    (length <= LARGEST && length <= bytes.len().saturating_mul(255)).then_some(length)
}

/// The sample in these bytes; `None` if they are not what [`pack`] made.
pub fn unpack(bytes: &[u8]) -> Option<Sample> {
    let length = unpacked_length(bytes)?;
    let checksum = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
    let raw = lz4_flex::block::decompress(bytes.get(HEAD..)?, length).ok()?;
    if crc32fast::hash(&raw) != checksum {
        return None;
    }
    let (sample, rest) = postcard::take_from_bytes(&raw).ok()?;
    rest.is_empty().then_some(sample)
}

/// Without what no later look compares, and without lists that are too long.
fn trimmed(sample: &Sample) -> Sample {
    let facts = Facts {
        sysctls: sample
            .facts
            .sysctls
            .iter()
            .filter(|(name, _)| GAUGES.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        counters: sample.facts.counters.clone(),
        sockstat: sample.facts.sockstat.clone(),
        page_size: None,
        groups: Vec::new(),
    };
    let mut partial = sample.partial;
    let mut too_long = |length: usize| {
        partial |= length > LONGEST;
        length > LONGEST
    };
    let mut kept = Sample {
        facts,
        states: sample.states,
        ..Sample::default()
    };
    macro_rules! lists {
        ($($list:ident),*) => {$(
            if !too_long(sample.$list.len()) {
                kept.$list.clone_from(&sample.$list);
            }
        )*};
    }
    lists!(
        listeners,
        listening,
        close_wait,
        fin_wait_2,
        closing,
        bound,
        descriptors,
        syn_sent,
        established,
        talking,
        probed,
        flows,
        ports,
        marks,
        resent,
        cpu
    );
    // Not having been read is something that these can say.
    for (list, from) in [(&mut kept.udp, &sample.udp), (&mut kept.unix, &sample.unix)] {
        *list = from.clone().filter(|queues| queues.len() <= LONGEST);
    }
    kept.partial = partial;
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::store::testing::full;
    use crate::history::{Held, Mark};
    use crate::model::{Endpoint, Subject};

    fn held(n: usize) -> Vec<Held> {
        (0..n as u64)
            .map(|cookie| Held {
                cookie,
                port: 1,
                remote: Endpoint::v4([10, 0, 0, 1], 443),
            })
            .collect()
    }

    #[test]
    fn what_comes_back_is_what_was_kept() {
        let mut sample = full();
        sample
            .facts
            .sysctls
            .insert("net/ipv4/tcp_retries2".to_owned(), "15".to_owned());
        let back = unpack(&pack(&sample).unwrap()).unwrap();
        sample.facts.sysctls.remove("net/ipv4/tcp_retries2");
        sample.taken = back.taken;
        assert_eq!(format!("{back:?}"), format!("{sample:?}"));
    }

    #[test]
    fn the_form_is_that_of_its_number() {
        let mut sample = full();
        sample.ports.clear();
        let raw = postcard::to_stdvec(&trimmed(&sample)).unwrap();
        assert_eq!(
            (FORMAT, raw.len(), crc32fast::hash(&raw)),
            (1, 435, 2_681_856_780),
            "another form needs another number"
        );
    }

    #[test]
    fn a_list_that_is_too_long_is_left_out_and_that_is_said() {
        let mut sample = Sample {
            close_wait: held(LONGEST),
            ..full()
        };
        let back = unpack(&pack(&sample).unwrap()).unwrap();
        assert_eq!((back.close_wait.len(), back.partial), (LONGEST, false));
        sample.close_wait = held(LONGEST + 1);
        let back = unpack(&pack(&sample).unwrap()).unwrap();
        assert_eq!((back.close_wait.len(), back.partial), (0, true));
        assert_eq!(back.flows, sample.flows, "the others are kept");
        let mark = |n: usize| Mark {
            id: "x".repeat(n).into(),
            subject: Subject::Host,
        };
        sample.marks = vec![mark(LARGEST)];
        assert!(pack(&sample).is_none());
    }

    #[test]
    fn damaged_bytes_are_no_sample_and_no_disaster() {
        let bytes = pack(&full()).unwrap();
        let whole = format!("{:?}", unpack(&bytes).unwrap());
        for at in 0..bytes.len() {
            assert!(unpack(&bytes[..at]).is_none(), "cut at {at}");
            let mut other = bytes.clone();
            other[at] ^= 0x41;
            // Another way to pack the same bytes is none to be refused.
            let read = unpack(&other).map(|sample| format!("{sample:?}"));
            assert!(read.is_none_or(|read| read == whole), "changed at {at}");
        }
        // A checksum that fits proves nothing about who wrote it.
        for raw in [vec![0xff; 64], vec![0; 3], vec![0xff; 4096]] {
            let mut bytes = (raw.len() as u32).to_le_bytes().to_vec();
            bytes.extend_from_slice(&crc32fast::hash(&raw).to_le_bytes());
            bytes.extend_from_slice(&lz4_flex::block::compress(&raw));
            assert!(unpack(&bytes).is_none());
        }
        let bomb = [u32::MAX.to_le_bytes(), [0; 4], [0xff; 4], [0xff; 4]].concat();
        assert!(unpacked_length(&bomb).is_none());
        assert!(unpack(&bomb).is_none());
    }
}
