//! What holds connections up, and what two looks prove.

use super::super::scenario::{HERE, Scenario, THERE};
use super::super::{AgeFacts, History, Tally};
use super::*;
use crate::model::{Endpoint, TcpState};

const NONE: Flow = Flow {
    cookie: 2,
    recv_q: 0,
    send_q: 0,
    bytes_received: None,
    bytes_acked: None,
    busy_us: None,
    rwnd_limited_us: None,
    sndbuf_limited_us: None,
    total_retrans: 0,
};

#[test]
fn what_was_read_is_what_came_less_what_is_left() {
    let read = |(came, left): (u64, u32), (came_now, left_now): (u64, u32)| {
        let flow = |bytes, recv_q| Flow {
            recv_q,
            bytes_received: Some(bytes),
            ..NONE
        };
        Moves::between(&flow(came, left), &flow(came_now, left_now)).read
    };
    assert_eq!(read((100, 100), (100, 100)), Some(0));
    assert_eq!(read((100, 100), (150, 150)), Some(0), "it grows unread");
    assert_eq!(read((100, 100), (150, 149)), Some(1));
    assert_eq!(read((100, 0), (150, 50)), Some(0));
    assert_eq!(read((100, 0), (50, 0)), None, "counters never go back");
}

#[test]
fn before_bytes_were_counted_only_a_shorter_queue_tells() {
    let flow = |recv_q, send_q| Flow {
        recv_q,
        send_q,
        ..NONE
    };
    let moves = Moves::between(&flow(9, 9), &flow(8, 7));
    assert_eq!((moves.read, moves.acked), (Some(1), Some(2)));
    let moves = Moves::between(&flow(9, 9), &flow(9, 10));
    assert_eq!((moves.read, moves.acked), (None, None));
}

type Members<'a> = &'a [(&'a str, u64)];

/// Two looks five seconds apart at a connection with this timer and queues; what a triage says of the second.
fn looks<T>(
    timer: Timer,
    queue: Queue,
    then: Members<'_>,
    now: Members<'_>,
    ask: impl Fn(&Triage<'_, '_>) -> T,
) -> T {
    looks_apart(5, timer, queue, then, now, ask)
}

fn looks_apart<T>(
    seconds: i64,
    timer: Timer,
    queue: Queue,
    then: Members<'_>,
    now: Members<'_>,
    ask: impl Fn(&Triage<'_, '_>) -> T,
) -> T {
    let mut history = History::default();
    let look = |seconds: i64, members: Members<'_>| {
        let mut scenario = Scenario::default();
        let (here, there) = (Endpoint::v4(HERE, 40_000), Endpoint::v4(THERE, 443));
        let mut socket = scenario.socket(TcpState::Established, here, there);
        (socket.timer, socket.send_q, socket.recv_q) = (timer, 500, 50);
        scenario.push(socket, members);
        scenario.snapshot.taken = jiff::Timestamp::from_second(seconds).unwrap();
        scenario.snapshot
    };
    let first = look(0, then);
    history.push(Sample::new(&first, &Tally::new(&first)));
    let snapshot = look(seconds, now);
    let tally = Tally::new(&snapshot);
    let sample = Sample::new(&snapshot, &tally);
    ask(&Triage::new(
        &Context {
            snapshot: &snapshot,
            tally: &tally,
            sample: &sample,
            history: &history,
            ages: AgeFacts::default(),
            expected: &[],
        },
        queue,
    ))
}

fn sending(timer: Timer, now: Members<'_>) -> Cause {
    let then = [("bytes_acked", 1)];
    looks(timer, Queue::Send, &then, now, |triage| triage.cause(0))
}

#[test]
fn each_cause_of_a_send_queue_has_its_mark() {
    use Timer::{Persist, Retransmit};
    let stuck = ("bytes_acked", 1);
    assert_eq!(sending(Persist, &[stuck]), Cause::Window);
    let shares = [stuck, ("busy_time_us", 100), ("rwnd_limited_us", 50)];
    assert_eq!(sending(Retransmit, &shares), Cause::Window);
    assert_eq!(
        sending(Retransmit, &[stuck, ("total_retrans", 1)]),
        Cause::Network
    );
    assert_eq!(
        sending(Retransmit, &[stuck, ("backoff", 3)]),
        Cause::Network
    );
    assert_eq!(sending(Retransmit, &[stuck]), Cause::Unclear);
    let moved = ("bytes_acked", 2);
    assert_eq!(sending(Persist, &[moved]), Cause::Moving);
    let buffer = |limited| {
        let shares = [moved, ("busy_time_us", 100), ("sndbuf_limited_us", limited)];
        sending(Retransmit, &shares)
    };
    assert_eq!((buffer(20), buffer(19)), (Cause::Buffer, Cause::Moving));
}

#[test]
fn a_receive_queue_waits_for_its_program() {
    let read = |now| {
        let (then, now) = ([("bytes_received", 90)], [("bytes_received", now)]);
        looks(Timer::None, Queue::Receive, &then, &now, |triage| {
            triage.cause(0)
        })
    };
    assert_eq!((read(90), read(91)), (Cause::Reader, Cause::Moving));
}

#[test]
fn what_moved_minutes_ago_may_be_stuck_now() {
    let apart = |seconds, queue, member: &'static str, now| {
        let (then, now) = ([(member, 90)], [(member, now)]);
        looks_apart(seconds, Timer::Persist, queue, &then, &now, |triage| {
            (triage.cause(0), triage.is_moving(0))
        })
    };
    let read = |seconds, now| apart(seconds, Queue::Receive, "bytes_received", now);
    assert_eq!(read(60, 91), (Cause::Moving, true));
    assert_eq!(read(61, 91), (Cause::Unclear, false));
    assert_eq!(
        read(3600, 90),
        (Cause::Reader, false),
        "standing still is proof"
    );
    let sent = |seconds, now| apart(seconds, Queue::Send, "bytes_acked", now);
    assert_eq!(sent(60, 91), (Cause::Moving, true));
    assert_eq!(sent(61, 91), (Cause::Unclear, false));
    assert_eq!(sent(3600, 90), (Cause::Window, false));
}

#[test]
fn what_has_not_moved_is_as_old_as_the_looks_say() {
    let unmoved = |then: u64| {
        let (then, now) = ([("bytes_acked", then)], [("bytes_acked", 7)]);
        looks(Timer::Persist, Queue::Send, &then, &now, |t| {
            t.unmoved_ms(0)
        })
    };
    assert_eq!((unmoved(7), unmoved(6)), (5_000, 0));
}

#[test]
fn the_evidence_counts_causes_and_bytes() {
    let (then, now) = ([("bytes_acked", 3)], [("bytes_acked", 10)]);
    let evidence = looks(Timer::Persist, Queue::Send, &then, &now, |triage| {
        triage.evidence([0].into_iter())
    });
    let names: Vec<_> = evidence.iter().map(|e| e.name).collect();
    assert_eq!(names, ["between_looks", "moving", "bytes_acknowledged"]);
    assert_eq!(evidence[2].value, crate::model::finding::Value::Count(7));
}
