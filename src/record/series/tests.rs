//! Sequences that are whole, cut anywhere, damaged, full, or given up.

use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;

use super::*;
use crate::collect::Source;
use crate::model::{Coverage, Family, TcpState};
use crate::record::Capture;
use crate::record::testing::{self, ALL, done, rows, socket};

const ROOM: u64 = 1 << 20;

fn host() -> Host {
    Host {
        name: "example".to_owned(),
        ..Host::default()
    }
}

fn begun(directory: &Path, max: u64) -> (PathBuf, Series) {
    let path = directory.join("a.linger");
    let series = Series::create(&path, false, &host(), max).unwrap();
    (path, series)
}

/// A frame with so many sockets on IPv4.
fn fill(writer: &mut Writer, sockets: u16) -> Result<(), Error> {
    writer.begin_sample(Timestamp::from_second(1000 + i64::from(sockets)).unwrap())?;
    writer.asked(&ALL)?;
    for family in [Family::Ipv4, Family::Ipv6] {
        for port in 1..=sockets {
            if family == Family::Ipv4 {
                writer.netlink(family, &socket(family, 1, port))?;
            }
        }
        writer.netlink(family, &done())?;
    }
    writer.facts(&testing::facts(i64::from(sockets)))?;
    writer.owners(&testing::owners())?;
    writer.coverage(&testing::coverage())
}

/// Sequences with frames of one socket, two, three; where each frame ends; and all of it.
fn three(directory: &Path) -> (PathBuf, Vec<u64>, Vec<u8>) {
    let (path, mut series) = begun(directory, ROOM);
    let mut ends = Vec::new();
    for sockets in 1..=3 {
        fill(series.writer(), sockets).unwrap();
        series.keep().unwrap();
        ends.push(fs::metadata(&path).unwrap().len());
    }
    let (frames, size) = series.finish().unwrap();
    let whole = fs::read(&path).unwrap();
    assert_eq!((frames, size), (3, whole.len() as u64));
    assert_eq!(size, ends[2] + END);
    (path, ends, whole)
}

/// How many sockets each look has, with the sentences on the end of the file.
fn read(path: &Path) -> Result<(Vec<usize>, Vec<String>), String> {
    let mut capture = Capture::open(path).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    let mut notes = Vec::new();
    for look in 0..capture.looks() {
        let there = capture.seek(look).map_err(|error| error.to_string())?;
        assert!(there);
        let (rows, coverage) = rows(&mut capture, &ALL).map_err(|error| error.to_string())?;
        assert!(
            coverage.complete(),
            "a frame that is whole is: {coverage:?}"
        );
        assert_eq!(coverage.notes, coverage.warnings());
        let drops = capture.facts().counter("TcpExt.ListenDrops");
        assert_eq!(drops, Some(rows.len() as i64));
        assert_eq!(capture.owners(), (testing::owners(), testing::coverage()));
        found.push(rows.len());
        notes = coverage.notes;
    }
    Ok((found, notes))
}

#[test]
fn frames_follow_each_other_and_the_last_one_is_read_unasked() {
    let directory = tempfile::tempdir().unwrap();
    let (path, ..) = three(directory.path());
    assert_eq!(read(&path), Ok((vec![1, 2, 3], vec![])));
    let mut capture = Capture::open(&path).unwrap();
    assert!(capture.is_sequence() && capture.host().name == "example");
    assert_eq!((capture.looks(), capture.look()), (3, 2));
    assert_eq!(rows(&mut capture, &ALL).unwrap().0.len(), 3);
    assert!(!capture.advance(std::time::Duration::ZERO));
}

#[test]
fn cut_anywhere_every_whole_frame_before_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (path, ends, whole) = three(directory.path());
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let frames = ends.iter().filter(|end| **end <= length as u64).count();
        match read(&path) {
            Err(error) => assert!(frames == 0, "cut at {length}: {error}"),
            Ok((found, notes)) => {
                assert_eq!(found, (1..=frames).collect::<Vec<_>>(), "cut at {length}");
                let clean = ends.contains(&(length as u64));
                assert_eq!(notes.is_empty(), clean, "cut at {length}: {notes:?}");
                assert!(notes.iter().all(|note| note.contains("cut off")));
            }
        }
    }
}

#[test]
fn garbage_anywhere_takes_the_last_frame_only_and_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let (path, ends, whole) = three(directory.path());
    let second = ends[1] as usize;
    for at in (second..whole.len()).step_by(3) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, damaged).unwrap();
        let (found, notes) = read(&path).unwrap();
        let frames = if at < ends[2] as usize { 2 } else { 3 };
        assert_eq!(found, (1..=frames).collect::<Vec<_>>(), "at {at}");
        assert!(
            notes.len() == 1 && notes[0].contains("damaged"),
            "{notes:?}"
        );
    }
    // Pages that never reached the disk.
    let mut zeros = whole[..second + 30].to_vec();
    zeros.resize(second + 9000, 0);
    fs::write(&path, zeros).unwrap();
    let (found, notes) = read(&path).unwrap();
    assert_eq!((found, notes.len()), (vec![1, 2], 1));
    // Before the last frame nothing may be lost in silence: an error, or said.
    for at in (12..second).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, damaged).unwrap();
        if let Ok((_, notes)) = read(&path) {
            assert_eq!(notes.len(), 1, "at {at}");
        }
    }
}

#[test]
fn the_file_is_never_larger_than_it_may_be() {
    let directory = tempfile::tempdir().unwrap();
    let (path, ends, whole) = three(directory.path());
    fs::remove_file(&path).unwrap();
    // Each is on the disk when it is finished, which takes its time.
    let around = ends.iter().flat_map(|end| [end + END - 1, end + END]);
    let between = (ends[0]..whole.len() as u64).step_by(97);
    for max in between.chain(around) {
        let (path, mut series) = begun(directory.path(), max);
        let kept = (1..=3)
            .take_while(|sockets| {
                let _ = fill(series.writer(), *sockets);
                let kept = series.keep();
                assert!(fs::metadata(&path).unwrap().len() <= max);
                assert!(matches!(kept, Ok(()) | Err(Error::Full { .. })), "{kept:?}");
                assert_eq!(series.is_full(), kept.is_err());
                kept.is_ok()
            })
            .count();
        let room = ends.iter().filter(|end| **end + END <= max).count();
        assert_eq!(kept, room, "in {max} bytes");
        if kept == 0 {
            assert!(series.finish().is_err() && !path.exists());
            continue;
        }
        let (frames, size) = series.finish().unwrap();
        assert_eq!(
            (frames, size),
            (kept as u64, fs::metadata(&path).unwrap().len())
        );
        assert!(size <= max);
        assert_eq!(read(&path), Ok(((1..=kept).collect(), vec![])));
        fs::remove_file(&path).unwrap();
    }
    let tiny = Series::create(&path, false, &host(), 100);
    assert!(matches!(tiny, Err(Error::Full { .. })) && !path.exists());
}

#[test]
fn given_up_in_the_middle_it_ends_behind_the_last_whole_frame() {
    let directory = tempfile::tempdir().unwrap();
    let (path, mut series) = begun(directory.path(), ROOM);
    assert!(path.exists(), "it has its name from the start");
    fill(series.writer(), 1).unwrap();
    series.keep().unwrap();
    assert!(series.keep().is_err(), "a frame has a sample");
    let end = fs::metadata(&path).unwrap().len();
    fill(series.writer(), 2).unwrap();
    drop(series);
    assert_eq!(fs::metadata(&path).unwrap().len(), end);
    assert_eq!(read(&path), Ok((vec![1], vec![])));
    fs::remove_file(&path).unwrap();

    let (path, mut series) = begun(directory.path(), ROOM);
    fill(series.writer(), 1).unwrap();
    drop(series);
    assert!(!path.exists(), "there was nothing to keep");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn another_file_is_replaced_when_there_is_a_frame_to_replace_it_by() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.linger");
    fs::write(&path, "mine").unwrap();
    let refused = Series::create(&path, false, &host(), ROOM);
    assert!(matches!(refused, Err(Error::Exists { .. })));
    let mut series = Series::create(&path, true, &host(), ROOM).unwrap();
    fill(series.writer(), 1).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    drop(series);
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    let mut series = Series::create(&path, true, &host(), ROOM).unwrap();
    fill(series.writer(), 1).unwrap();
    series.keep().unwrap();
    assert_eq!(read(&path), Ok((vec![1], vec![])), "while it goes on");
    fill(series.writer(), 2).unwrap();
    series.keep().unwrap();
    series.finish().unwrap();
    assert_eq!(read(&path), Ok((vec![1, 2], vec![])));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn what_one_look_says_is_not_what_another_one_says() {
    let directory = tempfile::tempdir().unwrap();
    let (path, mut series) = begun(directory.path(), ROOM);
    for interrupted in [1, 0] {
        let writer = series.writer();
        writer.begin_sample(Timestamp::UNIX_EPOCH).unwrap();
        writer.asked(&ALL).unwrap();
        for family in [Family::Ipv4, Family::Ipv6] {
            writer.netlink(family, &socket(family, 10, 1)).unwrap();
            writer.netlink(family, &done()).unwrap();
        }
        let coverage = Coverage {
            lost: interrupted,
            ..Coverage::default()
        };
        writer.coverage(&coverage).unwrap();
        series.keep().unwrap();
    }
    series.finish().unwrap();
    let mut capture = Capture::open(&path).unwrap();
    for (look, complete) in [(0, false), (1, true)] {
        capture.seek(look).unwrap();
        let (found, coverage) = rows(&mut capture, &ALL).unwrap();
        assert_eq!(coverage.complete(), complete);
        assert!(found.iter().all(|row| row.state == TcpState::Listen));
    }
}
