//! What a capture holds of other sockets than those of TCP.

use super::read::{Capture, recorded};
use super::replay::{Outcome, Replay, of};
use crate::collect::{self, RowSink, Want};
use crate::model::{Collector, Coverage};

impl Capture {
    /// The sockets of another protocol than TCP. What a capture does not hold of them was not asked for.
    pub(super) fn replay_beside(
        &mut self,
        want: &Want,
        row: &mut RowSink<'_>,
    ) -> Result<Coverage, collect::Error> {
        let absent = collect::Error::NotRecorded(want.protocol.sockets());
        let Some(sample) = self.samples.get(self.current) else {
            return Err(absent);
        };
        let recorded = recorded(&mut self.sections, sample)?;
        let told = recorded.about(want.protocol);
        // Neither there, nor to be seen; frames of the attempt may be in the file.
        if told.absent.contains(&want.protocol) || told.unseen(want.protocol) {
            return Ok(told);
        }
        let held = |collector| {
            want.tables()
                .any(|table| of(&sample.tables, collector, table).next().is_some())
        };
        // Frames of an attempt that fell back to `/proc` are in the file too.
        let collector = match (held(Collector::Procfs), held(Collector::Netlink)) {
            (true, _) => Collector::Procfs,
            (_, true) => Collector::Netlink,
            (false, false) => return Err(absent),
        };
        let mut found = Coverage::default();
        let mut missing = told.missing;
        for table in want.tables() {
            let told = missing.iter().any(|part| part.starts_with(&table.label()));
            let mut replay = Replay {
                sections: &mut self.sections,
                tables: &sample.tables,
                table,
                want,
            };
            let outcome = match collector {
                Collector::Netlink => replay.netlink(&mut found, row, told)?,
                Collector::Procfs => replay.text(&mut found, row)?,
            };
            match outcome {
                Outcome::Stopped => break,
                Outcome::Endless if !told => {
                    missing.push(format!("{}: the recorded dump has no end", table.label()));
                }
                Outcome::Whole | Outcome::Absent | Outcome::Endless => {}
            }
        }
        Ok(Coverage {
            collector,
            missing,
            notes: self.torn.iter().cloned().collect(),
            from_proc: told.from_proc,
            ..found
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::ops::ControlFlow;

    use super::*;
    use crate::collect::netlink::Netlink;
    use crate::collect::procfs::Procfs;
    use crate::collect::{Inodes, Source};
    use crate::model::{Cpu, Family, Owners, Program, Protocol, Unlisted};
    use crate::record::testing::{self, begun, rows};

    #[test]
    fn sockets_of_other_protocols_come_back_whichever_way_they_were_read() {
        let _udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let _unix = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let directory = tempfile::tempdir().unwrap();
        for by_netlink in [true, false] {
            let (path, mut writer) = begun(directory.path());
            let mut live: Vec<Vec<String>> = Vec::new();
            let mut undecoded = Vec::new();
            let protocols = [
                Protocol::Udp,
                Protocol::UdpLite,
                Protocol::Unix,
                Protocol::Packet,
                Protocol::Netlink,
            ];
            for protocol in protocols {
                let (want, mut rows) = (Want::all(protocol), Vec::new());
                let sink = &mut |row: collect::Row<'_>| {
                    rows.push(format!("{row:?}"));
                    ControlFlow::Continue(())
                };
                let coverage = if by_netlink {
                    let tee: &mut collect::Tee<'_> = &mut writer.tee();
                    Netlink::open()
                        .unwrap()
                        .dump(&want, &Program::default(), sink, Some(tee))
                } else {
                    Procfs::default().dump_teed(&want, sink, Some(&mut writer.tee()))
                };
                let coverage = coverage.unwrap();
                // A name with a line feed in it, which anybody may choose, breaks its line of the table.
                let broken = if !by_netlink && protocol == Protocol::Unix {
                    coverage.undecoded
                } else {
                    0
                };
                let but_that = Coverage {
                    undecoded: coverage.undecoded - broken,
                    ..coverage
                };
                assert!(but_that.rows_complete(), "{but_that:?}");
                undecoded.push(broken);
                live.push(rows);
            }
            let unlisted = vec![Unlisted { pid: 7, fds: 9 }];
            writer.unlisted(&unlisted).unwrap();
            let cpu = Cpu {
                periods: Some(3),
                ..Cpu::default()
            };
            let cpu = BTreeMap::from([("/x".to_owned(), cpu)]);
            writer.cpu(&cpu).unwrap();
            writer.finish().unwrap();
            let mut capture = Capture::open(&path).unwrap();
            for ((protocol, live), undecoded) in protocols.into_iter().zip(&live).zip(undecoded) {
                let mut replayed = Vec::new();
                let coverage = capture.dump(&Want::all(protocol), &mut |row| {
                    replayed.push(format!("{row:?}"));
                    ControlFlow::Continue(())
                });
                let coverage = coverage.unwrap();
                assert!(coverage.missing.is_empty() && coverage.undecoded == undecoded);
                assert!(replayed == *live, "{protocol:?} by netlink: {by_netlink}");
            }
            let (owners, listed) = (Owners::default(), Inodes::default());
            assert_eq!(capture.unlisted(&owners, &listed), Some(unlisted));
            assert_eq!(capture.cpu(&BTreeSet::new()), cpu);
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn what_fell_back_to_proc_is_read_from_there() {
        let directory = tempfile::tempdir().unwrap();
        let (path, mut writer) = begun(directory.path());
        let table = collect::Table::of(Protocol::Udp, Family::Ipv4);
        let refused = testing::message(2, &(-2i32).to_ne_bytes());
        writer.netlink(table, &refused).unwrap();
        let text = "  1: 0100007F:0035 00000000:0000 07 0:300 0:0 0 0 0 4711 2 0 84\n";
        writer.table(table, text.as_bytes()).unwrap();
        writer.finish().unwrap();
        let mut capture = Capture::open(&path).unwrap();
        let (found, coverage) = rows(&mut capture, &Want::all(Protocol::Udp)).unwrap();
        assert_eq!((found.len(), coverage.collector), (1, Collector::Procfs));
        assert!(coverage.complete(), "{coverage:?}");
        // A dump that breaks off is said, and so is one without its end.
        std::fs::remove_file(&path).unwrap();
        let (path, mut writer) = begun(directory.path());
        let socket = testing::socket(Family::Ipv4, 7, 53);
        writer.netlink(table, &socket).unwrap();
        writer.finish().unwrap();
        let mut capture = Capture::open(&path).unwrap();
        let (found, coverage) = rows(&mut capture, &Want::all(Protocol::Udp)).unwrap();
        assert_eq!(
            (found.len(), coverage.missing.len()),
            (1, 1),
            "{coverage:?}"
        );
    }

    #[test]
    fn what_was_not_recorded_is_not_said_to_be_empty() {
        let directory = tempfile::tempdir().unwrap();
        let mut capture = Capture::open(&testing::small(directory.path())).unwrap();
        let udp = Want::all(Protocol::Udp);
        let absent = rows(&mut capture, &udp);
        assert!(matches!(absent, Err(collect::Error::NotRecorded(_))));
        let (owners, listed) = (Owners::default(), Inodes::default());
        assert_eq!(capture.unlisted(&owners, &listed), None);
        // Refused when it was recorded, which is said there.
        let (path, mut writer) = {
            std::fs::remove_file(directory.path().join("a.linger")).unwrap();
            begun(directory.path())
        };
        let refused = testing::message(2, &(-2i32).to_ne_bytes());
        let table = collect::Table::of(Protocol::Udp, Family::Ipv4);
        writer.netlink(table, &refused).unwrap();
        let recorded = Coverage {
            missing: vec!["UDP sockets: sock_diag is not usable: ENOENT".to_owned()],
            ..Coverage::default()
        };
        writer.coverage(&recorded).unwrap();
        writer.finish().unwrap();
        let mut capture = Capture::open(&path).unwrap();
        let (found, coverage) = rows(&mut capture, &udp).unwrap();
        assert!(found.is_empty() && coverage.unseen(Protocol::Udp));
        assert_eq!(coverage.missing, recorded.missing);
        // It is said of the sockets that it is about, and of no others.
        let (_, coverage) = rows(&mut capture, &testing::ALL).unwrap();
        assert!(!coverage.missing.contains(&recorded.missing[0]));
    }

    #[test]
    fn what_the_kernel_did_not_have_and_what_fell_back_is_said_again() {
        let directory = tempfile::tempdir().unwrap();
        let (path, mut writer) = begun(directory.path());
        let refused = testing::message(3, &(-2i32).to_ne_bytes());
        let sctp = collect::Table::of(Protocol::Sctp, Family::Ipv4);
        writer.netlink(sctp, &refused).unwrap();
        let raw = collect::Table::of(Protocol::Raw, Family::Ipv4);
        writer.netlink(raw, &refused).unwrap();
        let text = "  1: 0100007F:0001 00000000:0000 07 0:300 0:0 0 0 0 4711 2 0 84\n";
        writer.table(raw, text.as_bytes()).unwrap();
        let vsock = collect::Table::without_family(Protocol::Vsock);
        let error = testing::message(2, &(-2i32).to_ne_bytes());
        writer.netlink(vsock, &error).unwrap();
        let recorded = Coverage {
            absent: vec![Protocol::Sctp],
            from_proc: vec![(Protocol::Raw, "ENOENT".to_owned())],
            missing: vec!["VSOCK sockets: ENOENT".to_owned()],
            ..Coverage::default()
        };
        writer.coverage(&recorded).unwrap();
        writer.finish().unwrap();
        let mut capture = Capture::open(&path).unwrap();
        let mut read = |protocol| rows(&mut capture, &Want::all(protocol)).unwrap();
        let (found, coverage) = read(Protocol::Sctp);
        assert!(found.is_empty() && coverage.complete());
        assert_eq!(coverage.absent, [Protocol::Sctp]);
        let (found, coverage) = read(Protocol::Raw);
        assert_eq!(
            (found.len(), found[0].local.port),
            (1, 1),
            "ICMP is no port"
        );
        assert_eq!(coverage.from_proc, recorded.from_proc);
        assert!(coverage.complete() && coverage.absent.is_empty());
        let (_, coverage) = read(Protocol::Vsock);
        assert_eq!(coverage.missing, recorded.missing);
    }
}
