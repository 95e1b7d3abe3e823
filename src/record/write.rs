//! Writes a capture as it is read, in constant memory, under a temporary name until it is whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::Error;
use super::format::{
    Asked, CHUNK, FORMAT, HEADER, Header, Kind, MAGIC, MAX_SECTION, MAX_SECTIONS, Origin, compress,
};
use super::name;
use crate::collect::{Table, Want};
use crate::model::{Collector, Coverage, Cpu, Facts, Family, Host, Owners, Unlisted};

/// A capture that is being written. [`Writer::finish`] gives it its name; dropped before that, it leaves nothing.
///
/// The order is: [`Writer::host`], then for each sample [`Writer::begin_sample`] and its parts. A sample holds one
/// dump or table of a family, which may come in any number of pieces.
#[derive(Debug)]
pub struct Writer {
    pub(super) path: PathBuf,
    /// the name that it has now
    temporary: PathBuf,
    force: bool,
    pub(super) file: BufWriter<File>,
    pub(super) sections: u32,
    host: bool,
    pub(super) sample: bool,
    /// the parts of this sample that come once, and have come
    once: Vec<Kind>,
    /// content that waits to become a section
    pub(super) pending: Option<(Kind, Option<Family>)>,
    pub(super) content: Vec<u8>,
    payload: Vec<u8>,
    /// an error that [`Writer::tee`] could not return
    pub(super) failed: Option<Error>,
    /// whether something is missing, so that the file must not get its name
    pub(super) broken: bool,
    pub(super) finished: bool,
    /// how many bytes of sections may still be written, where that is bounded
    pub(super) room: Option<u64>,
    /// whether it did not suffice
    pub(super) full: bool,
}

impl Writer {
    /// Begins a capture that will be called `path`. An existing file is replaced only with `force`, and only when the
    /// capture is whole; what is not a regular file is never replaced.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotAFile`], and what the system refuses.
    pub fn create(path: &Path, force: bool) -> Result<Self, Error> {
        name::free(path, force)?;
        let (file, temporary) = name::temporary(path).map_err(|source| Error::Io {
            what: "create",
            path: path.to_owned(),
            source,
        })?;
        let mut writer = Self {
            path: path.to_owned(),
            temporary,
            force,
            file: BufWriter::new(file),
            sections: 0,
            host: false,
            sample: false,
            once: Vec::new(),
            pending: None,
            content: Vec::new(),
            payload: Vec::new(),
            failed: None,
            broken: false,
            finished: false,
            room: None,
            full: false,
        };
        writer.bytes(&MAGIC)?;
        writer.bytes(&FORMAT.to_le_bytes())?;
        Ok(writer)
    }

    /// Which host and namespace is recorded. First, and once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn host(&mut self, host: &Host) -> Result<(), Error> {
        self.origin(host, false)
    }

    /// As [`Writer::host`], and whether a sequence follows.
    pub(super) fn origin(&mut self, host: &Host, sequence: bool) -> Result<(), Error> {
        if self.host {
            return Err(self.order("the host was written already"));
        }
        self.host = true;
        let origin = Origin {
            big_endian: cfg!(target_endian = "big"),
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            taken_ns: nanoseconds(Timestamp::now()),
            host: host.clone(),
            sequence,
        };
        self.structure(Kind::Host, &origin)
    }

    /// Begins a sample that was taken at `taken`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin_sample(&mut self, taken: Timestamp) -> Result<(), Error> {
        if !self.host {
            return Err(self.order("the host comes before the first sample"));
        }
        self.flush()?;
        self.sample = true;
        self.once.clear();
        self.section(Kind::Sample, None, &nanoseconds(taken).to_le_bytes())
    }

    /// What this sample's dump asked for, so that a reader who wants more is told that it is not there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn asked(&mut self, want: &Want) -> Result<(), Error> {
        let asked = Asked {
            states: want.states.mask(),
            ipv4: want.ipv4,
            ipv6: want.ipv6,
            tcp_info: want.tcp_info,
            memory: want.memory,
            congestion: want.congestion,
            tos: want.tos,
        };
        self.single(Kind::Want, &asked)
    }

    /// One datagram of this sample's dump of `table`, as received.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn netlink(&mut self, table: impl Into<Table>, datagram: &[u8]) -> Result<(), Error> {
        let table = table.into();
        let length = match u32::try_from(datagram.len()) {
            Ok(length) if datagram.len() <= MAX_SECTION - size_of::<u32>() => length,
            _ => {
                self.broken = true;
                return Err(Error::TooLarge {
                    section: Kind::Dump(Collector::Netlink, table.protocol).tag(),
                    bytes: datagram.len(),
                });
            }
        };
        let whole = size_of::<u32>() + datagram.len();
        if self.content.len() + whole > CHUNK {
            self.flush()?;
        }
        self.open(Collector::Netlink, table)?;
        self.content.extend(length.to_le_bytes());
        self.content.extend(datagram);
        Ok(())
    }

    /// [`Writer::netlink`] and [`Writer::table`] for a callback that cannot fail: the error is returned by
    /// [`Writer::finish`].
    pub fn tee(&mut self) -> impl FnMut(Collector, Table, &[u8]) + '_ {
        |collector, table, bytes| {
            if self.failed.is_none() {
                let written = match collector {
                    Collector::Netlink => self.netlink(table, bytes),
                    Collector::Procfs => self.table(table, bytes),
                };
                self.failed = written.err();
            }
        }
    }

    /// A piece of the text of a table of `/proc/net`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn table(&mut self, table: impl Into<Table>, text: &[u8]) -> Result<(), Error> {
        let table = table.into();
        // An empty table is a table: its section tells that it was there.
        self.open(Collector::Procfs, table)?;
        for piece in text.chunks(CHUNK) {
            if self.content.len() + piece.len() > CHUNK {
                self.flush()?;
            }
            self.open(Collector::Procfs, table)?;
            self.content.extend(piece);
        }
        Ok(())
    }

    /// Who held what in this sample.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn owners(&mut self, owners: &Owners) -> Result<(), Error> {
        self.single(Kind::Owners, &(owners.processes(), owners.links()))
    }

    /// The descriptors of sockets that no table of this sample has.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn unlisted(&mut self, unlisted: &[Unlisted]) -> Result<(), Error> {
        self.single(Kind::Unlisted, &unlisted)
    }

    /// What the control groups got of the processors by the time of this sample.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn cpu(&mut self, cpu: &BTreeMap<String, Cpu>) -> Result<(), Error> {
        self.single(Kind::Cpu, cpu)
    }

    /// The settings and counters of this sample.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn facts(&mut self, facts: &Facts) -> Result<(), Error> {
        self.single(Kind::Facts, facts)
    }

    /// What this sample does not know: of the dump and of the search for owners together.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn coverage(&mut self, coverage: &Coverage) -> Result<(), Error> {
        self.single(Kind::Coverage, coverage)
    }

    /// Writes the end, and gives the file its name.
    ///
    /// # Errors
    /// When something could not be written, now or before; [`Error::Exists`] if a file of that name came to be in the
    /// meantime. No file is left then.
    pub fn finish(mut self) -> Result<(), Error> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.broken {
            return Err(Error::Order("a part of it could not be written"));
        }
        if !self.sample {
            return Err(Error::Order("it has no sample"));
        }
        self.flush()?;
        let sections = self.sections.to_le_bytes();
        self.section(Kind::End, None, &sections)?;
        let written = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all());
        written.map_err(|source| self.io("write", source))?;
        self.name()?;
        self.finished = true;
        Ok(())
    }

    /// Gives the file its name.
    pub(super) fn name(&mut self) -> Result<(), Error> {
        let named = if self.force {
            // Never follows a link: whatever has the name by now loses it.
            std::fs::rename(&self.temporary, &self.path)
        } else {
            name::name_new(&self.temporary, &self.path)
        };
        match named {
            Ok(()) => {
                self.temporary.clone_from(&self.path);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Error::Exists {
                path: self.path.clone(),
            }),
            Err(source) => Err(self.io("create", source)),
        }
    }

    pub(super) fn order(&mut self, what: &'static str) -> Error {
        self.broken = true;
        Error::Order(what)
    }

    pub(super) fn io(&mut self, what: &'static str, source: io::Error) -> Error {
        self.broken = true;
        Error::Io {
            what,
            path: self.path.clone(),
            source,
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all(bytes);
        written.map_err(|source| self.io("write", source))
    }

    /// Makes sure that what is pending is of this collector and table.
    fn open(&mut self, collector: Collector, table: Table) -> Result<(), Error> {
        let (kind, family) = (Kind::Dump(collector, table.protocol), table.family);
        if !self.sample {
            return Err(self.order("sockets belong to a sample"));
        }
        if self.pending != Some((kind, family)) {
            self.flush()?;
            self.pending = Some((kind, family));
        }
        Ok(())
    }

    /// Makes a section of what is pending.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        let Some((kind, family)) = self.pending.take() else {
            return Ok(());
        };
        let mut payload = std::mem::take(&mut self.payload);
        let written = compress(&self.content, &mut payload)
            .map_err(|source| self.io("compress", source))
            .and_then(|()| self.section(kind, family, &payload));
        self.payload = payload;
        self.content.clear();
        written
    }

    /// A structure that comes once in a sample.
    fn single(&mut self, kind: Kind, value: &impl Serialize) -> Result<(), Error> {
        if !self.sample {
            return Err(self.order("this part belongs to a sample"));
        }
        if self.once.contains(&kind) {
            return Err(self.order("a sample has this part once"));
        }
        self.once.push(kind);
        self.flush()?;
        self.structure(kind, value)
    }

    fn structure(&mut self, kind: Kind, value: &impl Serialize) -> Result<(), Error> {
        let payload = serde_json::to_vec(value)
            .map_err(|error| self.io("encode", io::Error::other(error)))?;
        self.section(kind, None, &payload)
    }

    pub(super) fn section(
        &mut self,
        kind: Kind,
        family: Option<Family>,
        payload: &[u8],
    ) -> Result<(), Error> {
        let whole = (HEADER + payload.len()) as u64;
        if let Some(room) = &mut self.room {
            // Two are left for the end of a frame and of the file.
            let left = room
                .checked_sub(whole)
                .filter(|_| self.sections + 2 < MAX_SECTIONS);
            let Some(left) = left else {
                (self.broken, self.full) = (true, true);
                return Err(Error::Full {
                    path: self.path.clone(),
                });
            };
            *room = left;
        }
        if payload.len() > MAX_SECTION || self.sections >= MAX_SECTIONS {
            self.broken = true;
            return Err(Error::TooLarge {
                section: kind.tag(),
                bytes: payload.len(),
            });
        }
        self.bytes(&Header::new(kind, family, payload).to_bytes())?;
        self.bytes(payload)?;
        self.sections += 1;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing can be done about a failure, and a stray hidden file harms nobody.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn nanoseconds(time: Timestamp) -> i64 {
    // 64 bits reach from 1677 to 2262.
    i64::try_from(time.as_nanosecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::record::Capture;
    use crate::record::testing::{self, begun};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn only_its_owner_may_read_it_even_where_it_replaces_a_file_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = testing::small(directory.path());
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let before = fs::read(&path).unwrap();
        let mut writer = Writer::create(&path, true).unwrap();
        writer.host(&Host::default()).unwrap();
        writer.begin_sample(Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(
            fs::read(&path).unwrap(),
            before,
            "the old one stays until the new one is whole"
        );
        writer.finish().unwrap();
        assert_ne!(fs::read(&path).unwrap(), before);
        assert_eq!((mode(&path), names(directory.path())), (0o600, 1));
        assert_eq!(Capture::open(&path).unwrap().samples(), 1);
    }

    #[test]
    fn an_existing_file_is_refused_at_the_beginning_and_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.linger");
        fs::write(&path, "mine").unwrap();
        let error = Writer::create(&path, false).unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        assert!(error.hint().unwrap().contains("--force"));
        fs::remove_file(&path).unwrap();
        let (path, writer) = begun(directory.path());
        fs::write(&path, "mine").unwrap();
        assert!(matches!(writer.finish(), Err(Error::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(names(directory.path()), 1);
    }

    #[test]
    fn only_regular_files_are_replaced_and_no_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (
            directory.path().join("target"),
            directory.path().join("link"),
        );
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let refused = |path: &Path| match Writer::create(path, true) {
            Err(Error::NotAFile { found, .. }) => found,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&link), "a symbolic link");
        assert_eq!(refused(directory.path()), "a directory");
        assert_eq!(refused(Path::new("/dev/null")), "a device");
        assert_eq!(refused(Path::new("-")), "the standard output");
        assert_eq!(refused(&directory.path().join("new/")), "a directory");
        assert!(!target.exists());
        // A link that comes while recording is refused, or replaced; what it points at is left alone.
        fs::write(&target, "mine").unwrap();
        for force in [false, true] {
            let path = directory.path().join("a.linger");
            let mut writer = Writer::create(&path, force).unwrap();
            writer.host(&Host::default()).unwrap();
            writer.begin_sample(Timestamp::UNIX_EPOCH).unwrap();
            let _ = std::os::unix::fs::symlink(&target, &path);
            assert_eq!(writer.finish().is_ok(), force);
            assert_eq!(fs::read(&target).unwrap(), b"mine");
            let _ = fs::remove_file(&path);
        }
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (path, writer) = begun(directory.path());
        assert_eq!(names(directory.path()), 1, "under its temporary name");
        assert_eq!(mode(&writer.temporary), 0o600);
        drop(writer);
        assert_eq!(names(directory.path()), 0);
        let mut writer = Writer::create(&path, false).unwrap();
        assert!(
            writer.begin_sample(Timestamp::UNIX_EPOCH).is_err(),
            "no host"
        );
        assert!(writer.host(&Host::default()).is_ok());
        assert!(
            matches!(writer.finish(), Err(Error::Order(_))),
            "an error is not forgotten"
        );
        let (_, mut writer) = begun(directory.path());
        writer.facts(&Facts::default()).unwrap();
        assert!(matches!(
            writer.facts(&Facts::default()),
            Err(Error::Order(_))
        ));
        let mut writer = Writer::create(&path, false).unwrap();
        writer.host(&Host::default()).unwrap();
        assert!(matches!(writer.finish(), Err(Error::Order(_))), "no sample");
        let mut writer = Writer::create(&path, false).unwrap();
        writer.host(&Host::default()).unwrap();
        writer.tee()(Collector::Netlink, Family::Ipv4.into(), &[]);
        assert!(
            matches!(writer.finish(), Err(Error::Order(_))),
            "the tee's error comes out"
        );
    }

    #[test]
    fn two_recordings_at_once_do_not_meet() {
        let directory = tempfile::tempdir().unwrap();
        let (path, first) = begun(directory.path());
        let (_, second) = begun(directory.path());
        second.finish().unwrap();
        assert!(matches!(first.finish(), Err(Error::Exists { .. })));
        assert!(Capture::open(&path).is_ok());
        assert_eq!(names(directory.path()), 1);
    }
}
