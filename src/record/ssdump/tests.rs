use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;
use crate::model::Socket;
use crate::record::testing::{ALL, done, message, socket};

const RECORDED: &[u8] = include_bytes!("../../../tests/data/ss-6.1.dump");

fn read(bytes: &[u8], want: &Want) -> (Vec<Socket>, Coverage) {
    let mut messages = Messages {
        from: bytes,
        at: 0,
        size: bytes.len() as u64,
        buffer: Vec::new(),
    };
    let mut rows = Vec::new();
    let coverage = replay(&mut messages, want, &mut |row| {
        if let Row::Inet { socket, .. } = row {
            rows.push(socket);
        }
        ControlFlow::Continue(())
    });
    (rows, coverage.unwrap())
}

fn half(family: Family) -> Vec<u8> {
    [socket(family, 1, 10), socket(family, 10, 11)].concat()
}

fn missing(bytes: &[u8], want: &Want) -> Vec<String> {
    read(bytes, want).1.missing
}

#[test]
fn both_halves_of_a_recorded_dump_are_read() {
    let want = Want {
        tcp_info: true,
        memory: true,
        ..ALL
    };
    let (rows, coverage) = read(RECORDED, &want);
    let v6 = rows.iter().filter(|row| row.family == Family::Ipv6).count();
    assert_eq!((rows.len(), v6), (12, 6));
    assert_eq!(coverage.missing, [""; 0]);
    assert_eq!(coverage.notes, [TIME]);
    // Nothing shows whether these were asked for.
    assert!(!coverage.complete() && coverage.unsure.contains(TcpState::SynSent));
    assert!(!coverage.unsure.contains(TcpState::TimeWait));
    assert!(!coverage.unsure.contains(TcpState::Closed));
    let mut narrow = Want::states(StateSet::of(TcpState::CloseWait));
    narrow.ipv4 = false;
    let (rows, coverage) = read(RECORDED, &narrow);
    assert_eq!((rows.len(), rows[0].local.port), (1, 8080));
    assert!(coverage.complete(), "{coverage:?}");
}

#[test]
fn each_half_has_its_own_end_and_what_is_not_there_is_said() {
    let (v4, v6) = (half(Family::Ipv4), half(Family::Ipv6));
    let (mut only_v6, mut only_v4) = (ALL, ALL);
    (only_v6.ipv4, only_v4.ipv6) = (false, false);
    let end = done();
    let whole = [&v4[..], &end, &v6, &end].concat();
    assert_eq!(missing(&whole, &ALL), [""; 0]);
    let cut = [&v4[..], &end, &v6].concat();
    assert_eq!(
        missing(&cut, &ALL),
        ["TCP over IPv6: the recorded dump has no end"]
    );
    assert_eq!(missing(&cut, &only_v4), [""; 0]);
    let first = [&v4[..], &end].concat();
    assert_eq!(missing(&first, &ALL), ["TCP over IPv6: not in the file"]);
    assert_eq!(
        missing(&first, &only_v6),
        ["TCP over IPv6: not in the file"]
    );
    let none = [end.clone(), end.clone()].concat();
    assert_eq!(missing(&none, &ALL), [""; 0], "two dumps without a socket");
    for want in [ALL, only_v4] {
        assert_eq!(missing(&end, &want).len(), 1, "one of the two");
    }
    let later = [&end[..], &v6, &end].concat();
    assert_eq!(missing(&later, &ALL), [""; 0]);
    let later = [&v4[..], &end, &end].concat();
    assert_eq!(missing(&later, &ALL), [""; 0]);
    // An error in place of an end is neither.
    let refused = message(2, &(-2i32).to_ne_bytes());
    let refused = [&refused[..], &v6, &end].concat();
    let (rows, coverage) = read(&refused, &ALL);
    assert_eq!((rows.len(), coverage.missing.len()), (2, 2), "{coverage:?}");
}

#[test]
fn what_came_before_damage_is_shown_and_the_rest_counted() {
    let whole = [half(Family::Ipv4), done()].concat();
    for (tail, rows) in [
        (&whole[..50], 2),
        (&[0; 16], 2),
        (&b"GARBAGE, and more of it"[..], 2),
        (&[15, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 2),
        (
            &[255, 255, 255, 127, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            2,
        ),
    ] {
        let (found, coverage) = read(&[&whole[..], tail].concat(), &ALL);
        assert_eq!((found.len(), coverage.undecoded), (rows, 1), "{tail:?}");
        let place = format!("byte {}", whole.len());
        assert!(coverage.missing[0].contains(&place), "{coverage:?}");
    }
    // A foreign message whose length is sound is left out alone.
    let foreign = [&message(99, &[0; 8])[..], &whole].concat();
    let (found, coverage) = read(&foreign, &ALL);
    assert_eq!((found.len(), coverage.undecoded), (2, 1));
    // Without what pads the last message.
    let odd = [&whole[..], &message(20, &[2; 73])[..89]].concat();
    assert_eq!(read(&odd, &ALL).1.undecoded, 0);
}

#[test]
fn the_answer_to_the_old_request_is_the_same() {
    let mut old = half(Family::Ipv4);
    old[4] = 18;
    assert_eq!(read(&old, &ALL).0, read(&half(Family::Ipv4), &ALL).0);
}

#[test]
fn details_that_were_not_written_are_missing_and_mini_sockets_have_none() {
    let mut want = ALL;
    (want.tcp_info, want.memory) = (true, true);
    let two = [&half(Family::Ipv4)[..], &done(), &done()].concat();
    assert_eq!(missing(&two, &want).len(), 2);
    let mini = [&socket(Family::Ipv4, 6, 1)[..], &done(), &done()].concat();
    assert_eq!(missing(&mini, &want), [""; 0]);
}

#[test]
fn the_first_message_decides_what_a_file_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        SsDump::open(&path)
    };
    let row = socket(Family::Ipv4, 1, 1);
    for bytes in [&row[..], &done(), RECORDED, &row[..16]] {
        assert!(open(bytes).unwrap().is_some());
    }
    let mut foreign = row.clone();
    foreign[..6].copy_from_slice(&[0, 0, 0, 88, 0, 20]);
    if cfg!(target_endian = "big") {
        foreign[..6].copy_from_slice(&[88, 0, 0, 0, 20, 0]);
    }
    assert!(matches!(open(&foreign), Err(Error::ForeignEndian { .. })));
    let mut other = row.clone();
    other[4] = 99;
    let mut short = row;
    short[0] = 40;
    for bytes in [
        &b"LINGERC\n\x01\0\0\0\0\0\0\0\0\0"[..],
        b"",
        b"text\n",
        &other,
        &short,
    ] {
        assert!(open(bytes).unwrap().is_none());
    }
}

#[test]
fn it_is_a_capture_without_owners_facts_and_other_sockets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    std::fs::write(&path, RECORDED).unwrap();
    let mut dump = SsDump::open(&path).unwrap().unwrap();
    let changed = std::fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(dump.now(), Timestamp::try_from(changed).unwrap());
    assert!(dump.is_capture() && !dump.advance(Duration::ZERO));
    assert!(dump.owners().1.missing[0].starts_with("owners"));
    for protocol in [Protocol::Udp, Protocol::Unix] {
        let absent = dump.dump(&Want::all(protocol), &mut |_| ControlFlow::Continue(()));
        assert!(matches!(absent, Err(collect::Error::NotRecorded(_))));
    }
    // It is read from its beginning each time, and stops where it is told to.
    for _ in 0..2 {
        let mut rows = 0;
        let stopped = dump.dump(&ALL, &mut |_| {
            rows += 1;
            ControlFlow::Break(())
        });
        assert!(rows == 1 && stopped.unwrap().missing.is_empty());
    }
    let also = collect::Also::ALL;
    let snapshot = collect::snapshot(&mut dump, &ALL, also).unwrap();
    assert_eq!(snapshot.sockets.len(), 12);
    assert!(snapshot.udp.is_none() && snapshot.unlisted.is_none());
    let warnings = snapshot.coverage.warnings().join("\n");
    for part in ["owners", "settings and counters", "time"] {
        assert!(warnings.contains(part), "{warnings}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read(&bytes, &ALL);
    }

    #[test]
    fn no_damage_panics_or_takes_what_came_before_it(
        place in 0..RECORDED.len(),
        byte in any::<u8>(),
        cut in 0..RECORDED.len(),
    ) {
        let mut bytes = RECORDED.to_vec();
        bytes[place] = byte;
        read(&bytes, &ALL);
        let (whole, _) = read(RECORDED, &ALL);
        let (found, coverage) = read(&RECORDED[..cut], &ALL);
        prop_assert!(whole.starts_with(&found));
        prop_assert!(!coverage.missing.is_empty());
    }
}
