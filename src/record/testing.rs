//! Small captures for the tests of this module.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::format::{FORMAT, Header, Kind, MAGIC, Origin};
use super::{Capture, Error, Writer};
use crate::collect::{self, Row, Source, Want};
use crate::model::owner::Link;
use crate::model::{
    Coverage, Facts, Family, Host, Owners, Process, Protocol, Socket, StateSet, TcpState,
};

pub const ALL: Want = Want::states(StateSet::ALL);

/// A netlink message of `kind` with `payload`.
pub fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ((payload.len() + 16) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(2u16.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(payload);
    bytes
}

/// A socket in `state` with local port `port`.
pub fn socket(family: Family, state: u8, port: u16) -> Vec<u8> {
    let mut payload = [0u8; 72];
    payload[0] = match family {
        Family::Ipv4 => 2,
        Family::Ipv6 => 10,
    };
    payload[1] = state;
    payload[4..6].copy_from_slice(&port.to_be_bytes());
    message(20, &payload)
}

/// `NLMSG_DONE`.
pub fn done() -> Vec<u8> {
    message(3, &[0; 4])
}

pub fn owners() -> Owners {
    let process = Process {
        pid: 7,
        comm: "seven".to_owned(),
        nofile: Some(u64::MAX),
        run_state: Some('S'),
        ..Process::default()
    };
    let link = Link {
        inode: 50,
        process: 0,
        fd: 3,
    };
    Owners::new(vec![process], vec![link])
}

pub fn facts(listen_drops: i64) -> Facts {
    let mut facts = Facts::default();
    facts
        .counters
        .insert("TcpExt.ListenDrops".to_owned(), listen_drops);
    facts
}

pub fn coverage() -> Coverage {
    Coverage {
        owners_read: true,
        unreadable_processes: 4,
        vanished_processes: 1,
        ..Coverage::default()
    }
}

/// A writer in `directory` that waits for the parts of its first sample.
pub fn begun(directory: &Path) -> (PathBuf, Writer) {
    let path = directory.join("a.linger");
    let mut writer = Writer::create(&path, false).unwrap();
    let host = Host {
        name: "example".to_owned(),
        kernel: "6.18.0".to_owned(),
        netns: Some(1),
        ..Host::default()
    };
    writer.host(&host).unwrap();
    writer
        .begin_sample(Timestamp::from_second(1000).unwrap())
        .unwrap();
    (path, writer)
}

/// Two samples with every kind of part: ESTABLISHED and LISTEN over both families, then LISTEN alone.
pub fn small(directory: &Path) -> PathBuf {
    let (path, mut writer) = begun(directory);
    writer.asked(&ALL).unwrap();
    for family in [Family::Ipv4, Family::Ipv6] {
        let rows = [socket(family, 1, 10), socket(family, 10, 11)].concat();
        writer.netlink(family, &rows).unwrap();
        writer.netlink(family, &done()).unwrap();
    }
    writer.owners(&owners()).unwrap();
    writer.facts(&facts(5)).unwrap();
    writer.coverage(&coverage()).unwrap();
    writer
        .begin_sample(Timestamp::from_second(1001).unwrap())
        .unwrap();
    let listen = StateSet::of(TcpState::Listen);
    writer.asked(&Want::states(listen)).unwrap();
    for family in [Family::Ipv4, Family::Ipv6] {
        let rows = [socket(family, 10, 11), done()].concat();
        writer.netlink(family, &rows).unwrap();
    }
    writer.facts(&facts(8)).unwrap();
    writer.coverage(&Coverage::default()).unwrap();
    writer.finish().unwrap();
    path
}

/// The rows that a dump of `capture` pushes, and its coverage.
pub fn rows(capture: &mut Capture, want: &Want) -> Result<(Vec<Socket>, Coverage), collect::Error> {
    let mut rows = Vec::new();
    let coverage = capture.dump(want, &mut |row| {
        if let Row::Inet { socket, .. } = row {
            rows.push(socket);
        }
        ControlFlow::Continue(())
    })?;
    Ok((rows, coverage))
}

/// State and local port of each row.
pub fn ports(capture: &mut Capture, want: &Want) -> Vec<(TcpState, u16)> {
    let (rows, _) = rows(capture, want).unwrap();
    rows.iter().map(|row| (row.state, row.local.port)).collect()
}

/// Reads all that a capture has, as analysis would.
pub fn read_all(path: &Path) -> Result<Capture, String> {
    let mut capture = Capture::open(path).map_err(|error| error.to_string())?;
    loop {
        rows(&mut capture, &ALL).map_err(|error| error.to_string())?;
        for protocol in [Protocol::Udp, Protocol::Unix] {
            match rows(&mut capture, &Want::all(protocol)) {
                Ok(_) | Err(collect::Error::NotRecorded(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        capture.unlisted(&Owners::default(), &collect::Inodes::default());
        capture.cpu(&std::collections::BTreeSet::new());
        capture.owners();
        capture.facts();
        if !capture.advance(std::time::Duration::ZERO) {
            return Ok(capture);
        }
    }
}

/// A file of sections made by hand, with checksums that are right. `HOST` is put first.
pub fn by_hand(path: &Path, sections: &[(Header, Vec<u8>)]) -> Result<Capture, Error> {
    let origin = Origin {
        big_endian: cfg!(target_endian = "big"),
        ..Origin::default()
    };
    let host = serde_json::to_vec(&origin).unwrap();
    let mut bytes = MAGIC.to_vec();
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend(Header::new(Kind::Host, None, &host).to_bytes());
    bytes.extend(host);
    for (header, payload) in sections {
        bytes.extend(header.to_bytes());
        bytes.extend(payload);
    }
    std::fs::write(path, bytes).unwrap();
    Capture::open(path)
}

/// A section for [`by_hand`].
pub fn section(kind: Kind, family: Option<Family>, payload: &[u8]) -> (Header, Vec<u8>) {
    (Header::new(kind, family, payload), payload.to_vec())
}
