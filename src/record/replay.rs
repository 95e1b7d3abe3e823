//! One table's recorded dump through the decoders of live dumps.

use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;

use super::Error;
use super::format::Kind;
use super::sections::{Section, Sections};
use crate::collect::netlink::{Progress, Stream};
use crate::collect::procfs::tables;
use crate::collect::{self, RowSink, Table, Want};
use crate::model::{Collector, Coverage};

/// How the replay of one table's dump ended.
pub enum Outcome {
    /// as it should
    Whole,
    /// the receiver of the rows wants no more
    Stopped,
    /// there is nothing of this table
    Absent,
    /// the recorded dump ends without the kernel's word that it was all, or with its error
    Endless,
}

/// One table's dump of one sample.
pub struct Replay<'a> {
    pub sections: &'a mut Sections,
    pub tables: &'a [Section],
    pub table: Table,
    pub want: &'a Want,
}

impl Replay<'_> {
    /// Feeds the datagrams to the decoder of live dumps, a new one after each end. Frames of an attempt that fell
    /// back to `/proc` are in the file too and are not read.
    pub fn netlink(
        &mut self,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
        told: bool,
    ) -> Result<Outcome, collect::Error> {
        let mut stream: Option<Stream> = None;
        let mut outcome = Outcome::Absent;
        for section in of(self.tables, Collector::Netlink, self.table) {
            self.sections.load(section)?;
            let mut rest = self.sections.content();
            while !rest.is_empty() {
                let Some((datagram, after)) = datagram(rest) else {
                    let why = "a datagram is longer than what is left";
                    return Ok(self.sections.wrong(section, why)?);
                };
                rest = after;
                let reading = stream.get_or_insert_with(|| Stream::new(None));
                match reading.feed(datagram, self.want, coverage, row) {
                    Progress::More => outcome = Outcome::Endless,
                    Progress::Stopped => return Ok(Outcome::Stopped),
                    Progress::Done => {
                        stream = None;
                        outcome = Outcome::Whole;
                    }
                    // The recording went on without this table if it says so; else the dump failed there too.
                    Progress::Failed(_) if told => return Ok(Outcome::Endless),
                    Progress::Failed(source) => {
                        return Err(collect::Error::Dump {
                            what: format!("{} when it was recorded", self.table.label()),
                            source,
                        });
                    }
                }
            }
        }
        Ok(outcome)
    }

    /// Gives the text to the parser of live tables.
    pub fn text(
        &mut self,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
    ) -> Result<Outcome, collect::Error> {
        let mut of_table = of(self.tables, Collector::Procfs, self.table).peekable();
        if of_table.peek().is_none() {
            return Ok(Outcome::Absent);
        }
        let path = self.sections.path().to_owned();
        let text = Text {
            rest: of_table,
            sections: self.sections,
            loaded: false,
            read: 0,
        };
        match tables::read(text, self.table, self.want, coverage, row) {
            Ok(ControlFlow::Continue(())) => Ok(Outcome::Whole),
            Ok(ControlFlow::Break(())) => Ok(Outcome::Stopped),
            Err(source) => Err(match source.downcast::<Error>() {
                Ok(error) => error.into(),
                Err(source) => collect::Error::File { path, source },
            }),
        }
    }
}

/// The recorded text of one table, a section at a time.
struct Text<'a, I> {
    sections: &'a mut Sections,
    rest: I,
    loaded: bool,
    /// how much of the loaded section was read
    read: usize,
}

impl<'a, I: Iterator<Item = &'a Section>> BufRead for Text<'_, I> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while !self.loaded || self.read >= self.sections.content().len() {
            let Some(section) = self.rest.next() else {
                return Ok(&[]);
            };
            self.sections.load(section).map_err(io::Error::other)?;
            (self.loaded, self.read) = (true, 0);
        }
        Ok(self.sections.content().get(self.read..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.read = self.read.saturating_add(amount);
    }
}

impl<'a, I: Iterator<Item = &'a Section>> Read for Text<'_, I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// The sections that hold a table as a collector read it.
pub fn of(
    tables: &[Section],
    collector: Collector,
    table: Table,
) -> impl Iterator<Item = &Section> {
    let kind = Kind::Dump(collector, table.protocol);
    tables
        .iter()
        .filter(move |section| section.kind() == Some(kind) && section.family() == table.family)
}

/// Splits the first datagram off.
fn datagram(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = content.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::{Row, Source};
    use crate::model::{Family, TcpState};
    use crate::record::Capture;
    use crate::record::format::CHUNK;
    use crate::record::testing::{self, ALL, begun, done, rows, socket};

    #[test]
    fn long_dumps_go_through_many_sections_and_stop_where_they_are_told_to() {
        let directory = tempfile::tempdir().unwrap();
        let (path, mut writer) = begun(directory.path());
        let many = 60_000u32;
        for port in 0..many {
            writer
                .netlink(Family::Ipv4, &socket(Family::Ipv4, 1, port as u16))
                .unwrap();
        }
        writer.netlink(Family::Ipv4, &done()).unwrap();
        writer.finish().unwrap();
        let mut capture = Capture::open(&path).unwrap();
        assert!(capture.tables().len() as u32 > many * 88 / CHUNK as u32);
        let mut want = ALL;
        want.ipv6 = false;
        let (found, coverage) = rows(&mut capture, &want).unwrap();
        assert!(coverage.complete());
        assert!(
            found
                .iter()
                .map(|row| u32::from(row.local.port))
                .eq(0..many)
        );
        let mut seen = 0;
        let mut stop = |_: Row<'_>| {
            seen += 1;
            if seen == 20_000 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        assert!(capture.dump(&ALL, &mut stop).unwrap().missing.is_empty());
        assert_eq!(seen, 20_000);
    }

    #[test]
    fn counts_of_the_decoder_are_found_again_and_not_added() {
        let directory = tempfile::tempdir().unwrap();
        let (path, mut writer) = begun(directory.path());
        let (whole, unknown) = (socket(Family::Ipv4, 1, 1), socket(Family::Ipv4, 77, 2));
        // A datagram that was cut off keeps its neighbour whole.
        writer.netlink(Family::Ipv4, &whole[..60]).unwrap();
        writer.netlink(Family::Ipv4, &unknown).unwrap();
        writer.netlink(Family::Ipv4, &done()).unwrap();
        let recorded = Coverage {
            undecoded: 1,
            unknown_states: 1,
            lost: 3,
            missing: vec!["TCP over IPv6: ENOENT".to_owned()],
            unreadable_processes: 9,
            ..Coverage::default()
        };
        writer.coverage(&recorded).unwrap();
        writer.finish().unwrap();
        let mut capture = Capture::open(&path).unwrap();
        for _ in 0..2 {
            let (found, mut coverage) = rows(&mut capture, &ALL).unwrap();
            assert_eq!(found[0].state, TcpState::Unknown(77));
            coverage.merge(capture.owners().1);
            assert_eq!(coverage, recorded);
        }
    }

    #[test]
    fn dumps_that_are_not_there_or_have_no_end_are_missing() {
        let directory = tempfile::tempdir().unwrap();
        let (path, mut writer) = begun(directory.path());
        writer
            .netlink(Family::Ipv4, &socket(Family::Ipv4, 1, 1))
            .unwrap();
        writer.finish().unwrap();
        let (found, coverage) = rows(&mut Capture::open(&path).unwrap(), &ALL).unwrap();
        assert_eq!(found.len(), 1);
        let [endless, absent] = &coverage.missing[..] else {
            panic!("{coverage:?}")
        };
        assert!(endless.contains("IPv4") && endless.contains("no end"));
        assert!(absent.contains("IPv6") && absent.contains("not in the capture"));
    }

    #[test]
    fn an_error_of_the_kernel_is_one_again_unless_the_recording_went_on() {
        let directory = tempfile::tempdir().unwrap();
        for told in [false, true] {
            let (path, mut writer) = begun(directory.path());
            let refused = testing::message(2, &(-2i32).to_ne_bytes());
            writer
                .netlink(Family::Ipv4, &[socket(Family::Ipv4, 1, 1), done()].concat())
                .unwrap();
            writer.netlink(Family::Ipv6, &refused).unwrap();
            let mut coverage = Coverage::default();
            if told {
                coverage.missing.push("TCP over IPv6: ENOENT".to_owned());
            }
            writer.coverage(&coverage).unwrap();
            writer.finish().unwrap();
            let outcome = rows(&mut Capture::open(&path).unwrap(), &ALL);
            match outcome {
                Ok((found, replayed)) => assert!(told && found.len() == 1 && replayed == coverage),
                Err(error) => assert!(!told && matches!(error, collect::Error::Dump { .. })),
            }
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn tables_come_back_as_they_were_whatever_the_pieces() {
        let directory = tempfile::tempdir().unwrap();
        let (path, mut writer) = begun(directory.path());
        let text: Vec<u8> = (0..200_000u32)
            .flat_map(|line| format!("{line}: 0\n").into_bytes())
            .collect();
        assert!(text.len() > CHUNK);
        let refused = testing::message(2, &(-2i32).to_ne_bytes());
        writer.netlink(Family::Ipv4, &refused).unwrap();
        for piece in text.chunks(4099) {
            writer.table(Family::Ipv4, piece).unwrap();
        }
        writer.table(Family::Ipv6, &[]).unwrap();
        let recorded = Coverage {
            collector: Collector::Procfs,
            fell_back: Some("ENOENT".to_owned()),
            ..Coverage::default()
        };
        writer.coverage(&recorded).unwrap();
        writer.finish().unwrap();
        let mut capture = Capture::open(&path).unwrap();
        let tables = capture.tables().to_vec();
        let mut sections = Sections::open(&path).unwrap();
        let mut read = |family: Family| {
            let mut all = Vec::new();
            Text {
                sections: &mut sections,
                rest: of(&tables, Collector::Procfs, family.into()),
                loaded: false,
                read: 0,
            }
            .read_to_end(&mut all)
            .unwrap();
            all
        };
        assert!(read(Family::Ipv4) == text);
        assert!(read(Family::Ipv6).is_empty());
        let (_, coverage) = rows(&mut capture, &ALL).unwrap();
        assert_eq!(
            (coverage.collector, &coverage.fell_back),
            (recorded.collector, &recorded.fell_back)
        );
        assert!(
            coverage.missing.is_empty(),
            "an empty table is a table: {coverage:?}"
        );
    }
}
