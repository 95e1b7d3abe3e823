//! A capture as a [`Source`]: checked when it is opened, its dumps read a section at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::Error;
use super::format::{Kind, Origin};
use super::index::{Index, Sample, timestamp};
use super::replay::{Outcome, Replay};
use super::sections::{Section, Sections};
use crate::collect::{self, Inodes, RowSink, Source, Want};
use crate::model::{Collector, Coverage, Cpu, Facts, Host, Owners, Protocol, Unlisted};

/// A capture that is read.
#[derive(Debug)]
pub struct Capture {
    pub(super) sections: Sections,
    origin: Origin,
    pub(super) samples: Vec<Sample>,
    pub(super) current: usize,
    /// what could be read when the capture was opened and cannot any more
    late: Vec<String>,
    /// what is to be said of the end of a sequence that is not whole
    pub(super) torn: Option<String>,
}

impl Capture {
    /// Opens a capture and checks its framing and everything but the dumps, which are checked when they are read. Of a
    /// sequence the last whole frame is checked wholly and is the one that is read, until another one is sought.
    ///
    /// # Errors
    /// When it is no capture, one that this version cannot read, cut off, or damaged; of a sequence where that leaves no
    /// whole frame.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut sections = Sections::open(path)?;
        let Index {
            origin,
            samples,
            torn,
        } = Index::read(&mut sections)?;
        Ok(Self {
            sections,
            current: if origin.sequence {
                samples.len().saturating_sub(1)
            } else {
                0
            },
            origin,
            samples,
            late: Vec::new(),
            torn,
        })
    }

    /// How many samples it holds; at least one.
    pub fn samples(&self) -> usize {
        self.samples.len()
    }

    /// Whether each sample is a whole look; else the first one is, and the other is a light one.
    pub const fn is_sequence(&self) -> bool {
        self.origin.sequence
    }

    /// The version of linger that recorded it.
    pub fn recorded_by(&self) -> &str {
        &self.origin.tool
    }

    /// When recording began.
    pub fn recorded_at(&self) -> Timestamp {
        timestamp(self.origin.taken_ns)
    }

    /// Where the dumps of the first sample are.
    #[cfg(test)]
    pub(super) fn tables(&self) -> &[Section] {
        &self.samples[0].tables
    }

    fn replay(&mut self, want: &Want, row: &mut RowSink<'_>) -> Result<Coverage, collect::Error> {
        let Some(sample) = self.samples.get(self.current) else {
            return Err(collect::Error::Nothing("the capture is empty".to_owned()));
        };
        let recorded = recorded(&mut self.sections, sample)?;
        let mut found = Coverage::default();
        let mut missing = recorded.missing;
        missing.retain(|part| !of_another(part));
        missing.append(&mut self.late.clone());
        let mut stopped = false;
        for table in want.tables() {
            if stopped {
                continue;
            }
            // What the recording could not read it has said itself.
            let family = table.family.map_or("", |family| family.label());
            let told = missing.iter().any(|part| part.contains(family));
            let mut replay = Replay {
                sections: &mut self.sections,
                tables: &sample.tables,
                table,
                want,
            };
            let outcome = match recorded.collector {
                Collector::Netlink => replay.netlink(&mut found, row, told)?,
                Collector::Procfs => replay.text(&mut found, row)?,
            };
            match outcome {
                Outcome::Whole => {}
                Outcome::Stopped => stopped = true,
                _ if told => {}
                Outcome::Absent => {
                    missing.push(format!("{}: not in the capture", table.label()));
                }
                Outcome::Endless => {
                    missing.push(format!("{}: the recorded dump has no end", table.label()));
                }
            }
        }
        if let Some(asked) = sample.asked {
            if !asked.covers(want.states) {
                missing.push("sockets in states that were not recorded".to_owned());
            }
            if (want.tcp_info && !asked.tcp_info) || (want.memory && !asked.memory) {
                missing.push("details of sockets that were not recorded".to_owned());
            }
        }
        Ok(Coverage {
            collector: recorded.collector,
            fell_back: recorded.fell_back,
            interrupted: found.interrupted,
            lost: recorded.lost.max(found.lost),
            undecoded: found.undecoded,
            unknown_states: found.unknown_states,
            missing,
            notes: self.torn.iter().cloned().collect(),
            ..Coverage::default()
        })
    }
}

impl Source for Capture {
    fn dump(&mut self, want: &Want, row: &mut RowSink<'_>) -> Result<Coverage, collect::Error> {
        match want.protocol {
            Protocol::Tcp => self.replay(want, row),
            _ => self.replay_beside(want, row),
        }
    }

    fn unlisted(&mut self, _owners: &Owners, _listed: &Inodes) -> Option<Vec<Unlisted>> {
        let section = self.samples.get(self.current)?.unlisted?;
        // It was decoded, or at least checked, when it was opened or sought.
        self.sections.decode(&section).ok()
    }

    fn cpu(&mut self, _cgroups: &BTreeSet<String>) -> BTreeMap<String, Cpu> {
        let sample = self.samples.get(self.current);
        let cpu = sample
            .and_then(|sample| sample.cpu)
            .map(|section| self.sections.decode(&section));
        cpu.and_then(Result::ok).unwrap_or_default()
    }

    fn owners(&mut self) -> (Owners, Coverage) {
        let Some(sample) = self.samples.get(self.current) else {
            return Default::default();
        };
        let read = recorded(&mut self.sections, sample).and_then(|coverage| {
            let owners = match &sample.owners {
                Some(section) => owners(&mut self.sections, section)?,
                None => Owners::default(),
            };
            Ok((owners, coverage))
        });
        match read {
            Ok((owners, coverage)) => {
                let coverage = Coverage {
                    collector: coverage.collector,
                    owners_read: sample.owners.is_some(),
                    unreadable_processes: coverage.unreadable_processes,
                    vanished_processes: coverage.vanished_processes,
                    owners_timed_out: coverage.owners_timed_out,
                    nested_pids: coverage.nested_pids,
                    ..Coverage::default()
                };
                (owners, coverage)
            }
            Err(error) => {
                let coverage = Coverage {
                    missing: vec![error.to_string()],
                    ..Coverage::default()
                };
                (Owners::default(), coverage)
            }
        }
    }

    fn facts(&mut self) -> Facts {
        let section = self
            .samples
            .get(self.current)
            .and_then(|sample| sample.facts);
        let Some(section) = section else {
            return Facts::default();
        };
        self.sections.decode(&section).unwrap_or_else(|error| {
            self.late.push(error.to_string());
            Facts::default()
        })
    }

    fn host(&self) -> Host {
        self.origin.host.clone()
    }

    fn now(&self) -> Timestamp {
        self.samples
            .get(self.current)
            .map_or(Timestamp::UNIX_EPOCH, |sample| sample.taken)
    }

    fn advance(&mut self, _wait: Duration) -> bool {
        let more = self.current + 1 < self.samples.len();
        self.current += usize::from(more);
        more
    }

    fn is_capture(&self) -> bool {
        true
    }

    fn looks(&self) -> usize {
        if self.origin.sequence {
            self.samples.len()
        } else {
            1
        }
    }

    fn look(&self) -> usize {
        if self.origin.sequence {
            self.current
        } else {
            0
        }
    }

    fn taken(&self, look: usize) -> Option<Timestamp> {
        let sample = self.samples.get(look).filter(|_| look < self.looks())?;
        Some(sample.taken)
    }

    fn seek(&mut self, look: usize) -> Result<bool, collect::Error> {
        let Some(sample) = self.samples.get(look).filter(|_| look < self.looks()) else {
            return Ok(false);
        };
        if self.origin.sequence {
            sample.verify(&mut self.sections, false)?;
        }
        self.current = look;
        Ok(true)
    }
}

/// Whether a part that is missing is of another protocol than TCP, which says so itself when it is read.
fn of_another(part: &str) -> bool {
    Protocol::of_part(part).is_some_and(|protocol| protocol != Protocol::Tcp)
}

/// `OWNR`. The order and the sanity that look-ups need are made here, not believed.
fn owners(sections: &mut Sections, section: &Section) -> Result<Owners, Error> {
    let owners: Owners = sections.decode(section)?;
    Ok(owners)
}

/// The coverage as recorded.
pub(super) fn recorded(sections: &mut Sections, sample: &Sample) -> Result<Coverage, Error> {
    if let Some(section) = &sample.coverage {
        return sections.decode(section);
    }
    let only_tables = !sample.tables.is_empty()
        && sample
            .tables
            .iter()
            .all(|section| section.kind() == Some(Kind::Dump(Collector::Procfs, Protocol::Tcp)));
    Ok(Coverage {
        collector: if only_tables {
            Collector::Procfs
        } else {
            Collector::Netlink
        },
        ..Coverage::default()
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::ops::ControlFlow;

    use super::*;
    use crate::collect::netlink::Netlink;
    use crate::model::Process;
    use crate::model::owner::Link;
    use crate::model::{Family, Program, StateSet, TcpState};
    use crate::record::testing::{self, ALL, begun, by_hand, ports, rows, section};

    #[test]
    fn a_live_dump_comes_back_row_by_row_and_attribute_by_attribute() {
        let listeners = ["127.0.0.1:0", "[::1]:0"].map(|at| TcpListener::bind(at).unwrap());
        let _clients = listeners
            .each_ref()
            .map(|listener| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let mut want = ALL;
        (want.tcp_info, want.memory, want.congestion, want.tos) = (true, true, true, true);
        let directory = tempfile::tempdir().unwrap();
        let (path, mut writer) = begun(directory.path());
        let mut live = Vec::new();
        let coverage = Netlink::open()
            .unwrap()
            .dump(
                &want,
                &Program::default(),
                &mut |row| {
                    live.push(format!("{row:?}"));
                    ControlFlow::Continue(())
                },
                Some(&mut writer.tee()),
            )
            .unwrap();
        writer.asked(&want).unwrap();
        writer.coverage(&coverage).unwrap();
        writer.finish().unwrap();
        assert!(live.len() >= 6);

        let mut capture = Capture::open(&path).unwrap();
        for _ in 0..2 {
            let mut replayed = Vec::new();
            let again = capture
                .dump(&want, &mut |row| {
                    replayed.push(format!("{row:?}"));
                    ControlFlow::Continue(())
                })
                .unwrap();
            assert!(replayed == live, "the same rows in the same order");
            assert_eq!(again, coverage);
        }
        want.ipv4 = false;
        want.states = StateSet::of(TcpState::Listen);
        let (listening, coverage) = rows(&mut capture, &want).unwrap();
        assert!(coverage.missing.is_empty(), "{coverage:?}");
        assert!(
            listening
                .iter()
                .any(|row| row.local.port == listeners[1].local_addr().unwrap().port())
        );
        let other = |row: &crate::model::Socket| {
            row.state != TcpState::Listen || row.family != Family::Ipv6
        };
        assert!(!listening.iter().any(other));
    }

    #[test]
    fn samples_follow_each_other_and_say_what_they_do_not_hold() {
        let directory = tempfile::tempdir().unwrap();
        let mut capture = Capture::open(&testing::small(directory.path())).unwrap();
        let (listen, established) = (TcpState::Listen, TcpState::Established);
        assert!(capture.is_capture());
        assert_eq!(
            (capture.samples(), capture.recorded_by()),
            (2, env!("CARGO_PKG_VERSION"))
        );
        assert!(capture.recorded_at() > Timestamp::from_second(1_700_000_000).unwrap());
        assert_eq!(capture.host().name, "example");
        assert_eq!(capture.now(), Timestamp::from_second(1000).unwrap());
        let all = [
            (established, 10),
            (listen, 11),
            (established, 10),
            (listen, 11),
        ];
        assert_eq!(ports(&mut capture, &ALL), all);
        assert!(rows(&mut capture, &ALL).unwrap().1.complete());
        assert_eq!(capture.facts(), testing::facts(5));
        let (owners, coverage) = capture.owners();
        assert_eq!((owners, coverage), (testing::owners(), testing::coverage()));

        assert!(capture.advance(Duration::from_secs(9)));
        assert_eq!(capture.now(), Timestamp::from_second(1001).unwrap());
        assert_eq!(capture.facts().counter("TcpExt.ListenDrops"), Some(8));
        let (_, coverage) = capture.owners();
        assert!(!coverage.owners_read, "a light sample has none");
        let (found, coverage) = rows(&mut capture, &Want::states(StateSet::of(listen))).unwrap();
        assert!(found.len() == 2 && coverage.complete());
        let (found, coverage) = rows(&mut capture, &ALL).unwrap();
        assert!(
            found.len() == 2 && !coverage.complete(),
            "it has LISTEN alone, and says so"
        );
        let mut detailed = Want::states(StateSet::of(listen));
        detailed.tcp_info = true;
        let coverage = rows(&mut capture, &detailed).unwrap().1;
        assert!(!coverage.complete(), "nor was tcp_info asked for");
        assert!(!capture.advance(Duration::ZERO));
        assert_eq!(ports(&mut capture, &ALL), [(listen, 11), (listen, 11)]);
    }

    #[test]
    fn parts_out_of_place_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let sample = || section(Kind::Sample, None, &[0; 8]);
        let facts = || section(Kind::Facts, None, b"{}");
        let host = || section(Kind::Host, None, b"{}");
        let end = |count: u32| section(Kind::End, None, &count.to_le_bytes());
        let message = |sections: &[_]| match by_hand(&path, sections) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(message(&[sample(), facts(), sample(), facts(), end(5)]), "");
        assert!(message(&[sample(), facts(), facts(), end(4)]).contains("twice"));
        assert!(message(&[facts(), end(2)]).contains("before the first sample"));
        assert!(message(&[host(), sample(), end(3)]).contains("twice"));
        assert!(message(&[end(1)]).contains("no sample"));
        assert!(
            message(&[
                sample(),
                section(Kind::Dump(Collector::Netlink, Protocol::Tcp), None, &[]),
                end(3)
            ])
            .contains("family")
        );
        assert!(
            message(&[sample(), section(Kind::Facts, None, b"{}{}"), end(3)]).contains("malformed")
        );
    }

    #[test]
    fn a_machine_of_another_byte_order_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = testing::small(directory.path());
        let whole = std::fs::read(&path).unwrap();
        let length = usize::from(u16::from_le_bytes([whole[20], whole[21]]));
        let origin = String::from_utf8(whole[36..36 + length].to_vec()).unwrap();
        let origin = origin
            .replace(r#""big_endian":false"#, r#""big_endian":true"#)
            .into_bytes();
        let (header, payload) = section(Kind::Host, None, &origin);
        std::fs::write(&path, [&whole[..12], &header.to_bytes(), &payload].concat()).unwrap();
        let error = Capture::open(&path).unwrap_err();
        let Error::ForeignEndian { recorded, .. } = &error else {
            panic!("{error}")
        };
        assert!(*recorded == "big-endian" && error.hint().is_some());
    }

    #[test]
    fn links_are_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let link = |inode, process| Link {
            inode,
            process,
            fd: 1,
        };
        let hostile = serde_json::json!({
            "processes": [Process::default()],
            "links": [link(9, 0), link(3, 0), link(5, 70)],
        });
        let owners = section(Kind::Owners, None, &serde_json::to_vec(&hostile).unwrap());
        let sample = section(Kind::Sample, None, &[0; 8]);
        let end = section(Kind::End, None, &3u32.to_le_bytes());
        let (owners, coverage) = by_hand(&path, &[sample, owners, end]).unwrap().owners();
        assert!(coverage.owners_read);
        assert_eq!(
            (
                owners.of(3).count(),
                owners.of(9).count(),
                owners.links().len()
            ),
            (1, 1, 2)
        );
    }
}
