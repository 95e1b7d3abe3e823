//! The sections of a capture's file: framing, checksums, bounds. Believes no length before its checksum.

use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::Error;
use super::format::{
    FORMAT, HEADER, Header, Kind, MAGIC, MAX_SECTION, MAX_SECTIONS, PREAMBLE, SECTION_VERSION,
    decompress,
};
use super::name::other_than_file;
use crate::model::Family;

/// How much of a section that is only checked is held at a time, bytes.
const STEP: usize = 64 * 1024;

/// Where a section is.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    header: Header,
    /// where its header begins
    offset: u64,
}

impl Section {
    pub fn kind(&self) -> Option<Kind> {
        self.header.kind()
    }

    pub const fn family(&self) -> Option<Family> {
        self.header.family()
    }

    const fn start(&self) -> u64 {
        self.offset.saturating_add(HEADER as u64)
    }
}

/// Opens a regular file.
pub fn open_file(path: &Path) -> Result<(File, Metadata), Error> {
    let io = |source| Error::Io {
        what: "read",
        path: path.to_owned(),
        source,
    };
    let not_a_file = |found| Error::NotAFile {
        path: path.to_owned(),
        found,
    };
    if path.as_os_str() == "-" {
        return Err(not_a_file("the standard input"));
    }
    // Before it is opened: opening a pipe would wait for a writer.
    let metadata = std::fs::metadata(path).map_err(io)?;
    if let Some(kind) = other_than_file(metadata.file_type()) {
        return Err(not_a_file(kind));
    }
    Ok((File::open(path).map_err(io)?, metadata))
}

/// The file, read at any place.
#[derive(Debug)]
pub struct Sections {
    path: PathBuf,
    file: File,
    size: u64,
    /// where the next header is
    at: u64,
    payload: Vec<u8>,
    content: Vec<u8>,
}

impl Sections {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let (file, metadata) = open_file(path)?;
        let mut sections = Self {
            path: path.to_owned(),
            size: metadata.len(),
            file,
            at: 0,
            payload: Vec::new(),
            content: Vec::new(),
        };
        sections.preamble()?;
        Ok(sections)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the next section begins, and how much of the file is left from there.
    pub const fn rest(&self) -> (u64, u64) {
        (self.at, self.size.saturating_sub(self.at))
    }

    /// Whether all of the file was walked over.
    pub const fn at_end(&self) -> bool {
        self.at == self.size
    }

    fn preamble(&mut self) -> Result<(), Error> {
        let mut start = [0; PREAMBLE];
        let length = PREAMBLE.min(usize::try_from(self.size).unwrap_or(PREAMBLE));
        self.read(start.get_mut(..length).unwrap_or_default(), 0)?;
        let (magic, format) = start.split_at(MAGIC.len());
        let present = magic.get(..length.min(MAGIC.len())).unwrap_or_default();
        if length == 0 || !MAGIC.starts_with(present) {
            return Err(Error::NotACapture {
                path: self.path.clone(),
                found: foreign(start.get(..length).unwrap_or_default()),
            });
        }
        if length < PREAMBLE {
            return Err(self.truncated(self.size));
        }
        let found = format.try_into().map_or(0, u32::from_le_bytes);
        if found != FORMAT {
            return Err(Error::Version {
                path: self.path.clone(),
                found,
            });
        }
        self.at = PREAMBLE as u64;
        Ok(())
    }

    /// The next section in the file, after `count` others.
    pub fn next(&mut self, count: u32) -> Result<Section, Error> {
        if self.size.saturating_sub(self.at) < HEADER as u64 {
            return Err(self.truncated(self.size));
        }
        let mut bytes = [0; HEADER];
        self.read(&mut bytes, self.at)?;
        let Some(header) = Header::parse(&bytes) else {
            return Err(Error::Corrupt {
                path: self.path.clone(),
                offset: self.at,
                section: "?".to_owned(),
                why: "the checksum of its header is wrong".to_owned(),
            });
        };
        let section = Section {
            header,
            offset: self.at,
        };
        if count >= MAX_SECTIONS {
            return self.wrong(&section, "there are more sections than a capture has");
        }
        match section.start().checked_add(header.length) {
            Some(end) if end <= self.size => self.at = end,
            _ => return Err(self.truncated(self.size)),
        }
        Ok(section)
    }

    /// The section's kind; `None` for one to skip.
    pub fn known(&self, section: &Section) -> Result<Option<Kind>, Error> {
        let kind = section.kind();
        if kind.is_some() && section.header.version != SECTION_VERSION {
            return Err(Error::SectionVersion {
                path: self.path.clone(),
                offset: section.offset,
                section: name(section),
                found: section.header.version,
            });
        }
        Ok(kind)
    }

    /// Checks a section of any length that nobody needs.
    pub fn verify(&mut self, section: &Section) -> Result<(), Error> {
        let mut hasher = crc32fast::Hasher::new();
        let (mut at, mut left) = (section.start(), section.header.length);
        while left > 0 {
            let step = STEP.min(usize::try_from(left).unwrap_or(STEP));
            self.fill(at, step)?;
            hasher.update(&self.payload);
            at += step as u64;
            left -= step as u64;
        }
        self.check(section, hasher.finalize())
    }

    /// Refuses what is too long to be decoded.
    pub fn check_length(&self, section: &Section) -> Result<usize, Error> {
        match usize::try_from(section.header.length) {
            Ok(length) if length <= MAX_SECTION => Ok(length),
            _ => self.wrong(
                section,
                &format!(
                    "it is {} bytes long, and {MAX_SECTION} is the limit",
                    section.header.length
                ),
            ),
        }
    }

    /// The section's payload, checked.
    pub fn payload(&mut self, section: &Section) -> Result<&[u8], Error> {
        let length = self.check_length(section)?;
        self.fill(section.start(), length)?;
        self.check(section, crc32fast::hash(&self.payload))?;
        Ok(&self.payload)
    }

    /// The structure in a section, which fills it.
    pub fn decode<T: DeserializeOwned>(&mut self, section: &Section) -> Result<T, Error> {
        match serde_json::from_slice(self.payload(section)?) {
            Ok(value) => Ok(value),
            Err(error) => self.wrong(section, &format!("its content is malformed: {error}")),
        }
    }

    /// Decompresses a section; [`Sections::content`] has it then.
    pub fn load(&mut self, section: &Section) -> Result<(), Error> {
        self.payload(section)?;
        match decompress(&self.payload, &mut self.content) {
            Ok(()) => Ok(()),
            Err(why) => self.wrong(section, &why),
        }
    }

    /// What was decompressed last.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The error of a section that cannot be believed.
    pub fn wrong<T>(&self, section: &Section, why: &str) -> Result<T, Error> {
        Err(Error::Corrupt {
            path: self.path.clone(),
            offset: section.offset,
            section: name(section),
            why: why.to_owned(),
        })
    }

    fn check(&self, section: &Section, checksum: u32) -> Result<(), Error> {
        if checksum == section.header.checksum {
            Ok(())
        } else {
            self.wrong(section, "its checksum is wrong")
        }
    }

    fn truncated(&self, offset: u64) -> Error {
        Error::Truncated {
            path: self.path.clone(),
            offset,
        }
    }

    /// Reads `length` bytes, which the file had when it was opened, into the payload.
    fn fill(&mut self, at: u64, length: usize) -> Result<(), Error> {
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(length, 0);
        let read = self.read(&mut payload, at);
        self.payload = payload;
        read
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<(), Error> {
        self.file
            .read_exact_at(buffer, at)
            .map_err(|source| match source.kind() {
                // It became shorter since it was opened.
                ErrorKind::UnexpectedEof => self.truncated(at),
                _ => Error::Io {
                    what: "read",
                    path: self.path.clone(),
                    source,
                },
            })
    }
}

/// The tag, safe to show.
fn name(section: &Section) -> String {
    section.header.tag.escape_ascii().to_string()
}

/// What a file that is no capture seems to be.
fn foreign(start: &[u8]) -> String {
    if start.is_empty() {
        return "it is empty".to_owned();
    }
    if start.starts_with(b"LINGERC\r") {
        return "its line ends were converted, as text on its way here".to_owned();
    }
    let shown = start.get(..MAGIC.len()).unwrap_or(start);
    format!("it begins with \"{}\"", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Collector, Protocol};
    use crate::record::Capture;
    use crate::record::format::compress;
    use crate::record::testing::{ALL, by_hand, ports, read_all, rows, section, small};

    fn error(path: &Path) -> Error {
        Capture::open(path).unwrap_err()
    }

    #[test]
    fn cut_anywhere_it_is_an_error_with_the_offset() {
        let directory = tempfile::tempdir().unwrap();
        let path = small(directory.path());
        let whole = fs::read(&path).unwrap();
        assert!(read_all(&path).is_ok());
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            match error(&path) {
                Error::NotACapture { .. } if length == 0 => {}
                Error::Truncated { offset, .. } => assert_eq!(offset, length as u64),
                other => panic!("cut at {length}: {other}"),
            }
        }
        fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
        assert!(
            error(&path).to_string().contains("END!"),
            "nothing may follow"
        );
    }

    #[test]
    fn no_single_bit_may_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = small(directory.path());
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, damaged).unwrap();
            let error = read_all(&path).unwrap_err();
            assert!(error.contains("a.linger"), "bit {bit}: {error}");
        }
    }

    #[test]
    fn damage_is_told_with_its_section_and_offset() {
        let directory = tempfile::tempdir().unwrap();
        let path = small(directory.path());
        let mut bytes = fs::read(&path).unwrap();
        let at = |tag: &[u8]| bytes.windows(4).position(|w| w == tag).unwrap();
        let (frames, facts) = (at(b"NLNK"), at(b"FACT"));
        bytes[frames + HEADER + 6] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let mut capture = Capture::open(&path).unwrap();
        let error = rows(&mut capture, &ALL).unwrap_err().to_string();
        assert!(error.contains(&format!("NLNK at byte {frames}")), "{error}");
        assert!(error.contains("checksum"), "{error}");
        bytes[facts + HEADER + 6] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = Capture::open(&path).unwrap_err();
        assert!(
            matches!(&error, Error::Corrupt { offset, section, .. }
            if *offset == facts as u64 && section == "FACT"),
            "{error}"
        );
        assert!(error.hint().is_some());
    }

    #[test]
    fn other_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let message = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            error(&path).to_string()
        };
        assert!(message(b"").contains("is empty"));
        assert!(message(b"\x1b[2JLINGERC\n").contains("\"\\x1b[2JLING\""));
        assert!(message(b"LINGERC\r\n\x01\0\0\0").contains("line ends"));
        assert!(message(b"LINGERC\n\x02\0\0\0").contains("format 2"));
        let found = |path: &Path| match error(path) {
            Error::NotAFile { found, .. } => found,
            other => panic!("{other}"),
        };
        assert_eq!(found(Path::new("/dev/zero")), "a device");
        assert_eq!(found(Path::new("-")), "the standard input");
        assert!(matches!(error(Path::new("/no/such")), Error::Io { .. }));
    }

    #[test]
    fn sections_of_later_versions_are_skipped_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let sample = section(Kind::Sample, None, &[0; 8]);
        let end = |count: u32| section(Kind::End, None, &count.to_le_bytes());
        let mut unknown = section(Kind::Facts, None, &vec![7; STEP * 2 + 1]);
        unknown.0.tag = *b"UDPS";
        unknown.0.version = 9;
        let mut capture = by_hand(
            &path,
            &[unknown.clone(), sample.clone(), unknown.clone(), end(4)],
        )
        .unwrap();
        assert_eq!(capture.samples(), 1);
        assert!(ports(&mut capture, &ALL).is_empty());
        let mut damaged = unknown.clone();
        damaged.1[STEP + 1] = 8;
        let error = by_hand(&path, &[damaged, sample.clone(), end(3)]).unwrap_err();
        assert!(
            error.to_string().contains("UDPS"),
            "skipped, not unchecked: {error}"
        );
        let mut later = section(Kind::Facts, None, &[]);
        later.0.version = 2;
        let error = by_hand(&path, &[sample.clone(), later, end(3)]).unwrap_err();
        assert!(
            matches!(error, Error::SectionVersion { found: 2, .. }),
            "{error}"
        );
        assert!(
            by_hand(&path, &[sample, unknown, end(2)]).is_err(),
            "one is missing"
        );
    }

    #[test]
    fn lengths_allocate_nothing_before_the_file_has_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let netlink = Kind::Dump(Collector::Netlink, Protocol::Tcp);
        for kind in [Kind::Sample, netlink, Kind::Owners] {
            for length in [9, MAX_SECTION as u64 + 1, u64::MAX - 40, u64::MAX] {
                let mut long = section(kind, Some(Family::Ipv4), &[0; 8]);
                long.0.length = length;
                let error =
                    by_hand(&path, &[section(Kind::Sample, None, &[0; 8]), long]).unwrap_err();
                assert!(
                    matches!(error, Error::Truncated { .. }),
                    "{length}: {error}"
                );
            }
        }
        // A sparse file has them, and they are too long all the same.
        let mut long = section(Kind::Owners, None, &[]);
        long.0.length = MAX_SECTION as u64 + 1;
        let _ = by_hand(&path, &[section(Kind::Sample, None, &[0; 8]), long]);
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(fs::metadata(&path).unwrap().len() + MAX_SECTION as u64 + 1)
            .unwrap();
        assert!(
            error(&path).to_string().contains("limit"),
            "{}",
            error(&path)
        );
    }

    #[test]
    fn no_sections_panic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let kinds: Vec<Kind> = Kind::all().filter(|kind| *kind != Kind::End).collect();
        let kinds = prop::sample::select(kinds);
        let family = prop::sample::select(vec![None, Some(Family::Ipv4), Some(Family::Ipv6)]);
        let bytes = prop::collection::vec(any::<u8>(), 0..200);
        proptest!(ProptestConfig::with_cases(2000), |(parts in prop::collection::vec((kinds, family, bytes), 0..5))| {
            let mut sections = vec![section(Kind::Sample, None, &[0; 8])];
            for (kind, family, bytes) in parts {
                let mut payload = bytes.clone();
                if kind.table(Some(Family::Ipv4)).is_some() && bytes.len() % 8 != 0 {
                    compress(&bytes, &mut payload).unwrap();
                }
                sections.push(section(kind, family, &payload));
            }
            let count = sections.len() as u32 + 1;
            sections.push(section(Kind::End, None, &count.to_le_bytes()));
            if by_hand(&path, &sections).is_ok() {
                let _ = read_all(&path);
            }
        });
    }
}
