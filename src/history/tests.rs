//! What two looks say of what was in between.

use super::*;

fn sample(second: i64, counter: i64, drops: u32) -> Sample {
    let mut facts = Facts::default();
    facts
        .counters
        .insert("TcpExt.ListenOverflows".into(), counter);
    Sample {
        taken: Timestamp::from_second(second).unwrap(),
        facts,
        listeners: vec![Listener {
            cookie: NonZeroU64::new(9),
            recv_q: 0,
            send_q: 1,
            drops: Some(drops),
        }],
        ..Sample::default()
    }
}

#[test]
fn one_look_has_no_deltas() {
    assert!(History::default().deltas(&sample(1, 5, 5)).is_none());
}

#[test]
fn the_pulse_after_wins_over_the_sample_before() {
    let mut history = History::default();
    history.push(sample(10, 100, 7));
    let now = sample(12, 104, 9);
    let deltas = history.deltas(&now).unwrap();
    assert_eq!(deltas.window, Duration::from_secs(2));
    assert_eq!(deltas.counter("TcpExt.ListenOverflows"), Some(4));
    assert_eq!(deltas.drops(NonZeroU64::new(9)), Some(2));
    assert_eq!(deltas.counter("TcpExt.Absent"), None, "absent is unknown");
    let after = sample(13, 105, 9);
    history.set_pulse(Pulse {
        taken: after.taken,
        facts: after.facts.clone(),
        listeners: after.listeners.clone(),
        ..Pulse::default()
    });
    let deltas = history.deltas(&now).unwrap();
    assert_eq!(
        (
            deltas.window.as_secs(),
            deltas.counter("TcpExt.ListenOverflows")
        ),
        (1, Some(1))
    );
    assert_eq!(deltas.drops(NonZeroU64::new(9)), Some(0));
    assert_eq!(deltas.drops(None), None);
}

#[test]
fn listeners_are_found_in_whatever_order_they_came() {
    let listener = |cookie, drops| Listener {
        cookie: NonZeroU64::new(cookie),
        recv_q: 0,
        send_q: 1,
        drops: Some(drops),
    };
    let mut history = History::default();
    let now = sample(12, 1, 9);
    history.set_pulse(Pulse {
        taken: Timestamp::from_second(13).unwrap(),
        facts: Facts::default(),
        listeners: vec![listener(30, 1), listener(9, 14), listener(20, 1)],
        ..Pulse::default()
    });
    let deltas = history.deltas(&now).unwrap();
    assert_eq!(deltas.drops(NonZeroU64::new(9)), Some(5));
    assert_eq!(deltas.drops(NonZeroU64::new(20)), None, "it is new");
}

#[test]
fn counters_are_compared_over_any_time_and_queues_over_a_minute() {
    let mut history = History::default();
    let mut before = sample(100, 100, 7);
    let queue = Queue {
        id: 3,
        recv_q: 1,
        drops: None,
    };
    before.unix = Some(vec![queue]);
    history.push(before);
    for (second, close) in [(160, true), (161, false), (7_300, false)] {
        let mut now = sample(second, 104, 9);
        now.unix = Some(vec![queue]);
        let deltas = history.deltas(&now).unwrap();
        assert_eq!(deltas.counter("TcpExt.ListenOverflows"), Some(4));
        assert_eq!(deltas.drops(NonZeroU64::new(9)), Some(2));
        assert_eq!(
            deltas.sooner(NonZeroU64::new(9)).is_some(),
            close,
            "{second}"
        );
        assert_eq!(deltas.unix(3).is_some(), close);
        assert!(deltas.later(NonZeroU64::new(9)).is_some());
        assert_eq!(history.just_before(now.taken).is_some(), close);
    }
    let set_back = Timestamp::from_second(99).unwrap();
    assert!(history.just_before(set_back).is_none());
}

#[test]
fn a_counter_that_went_backwards_says_nothing() {
    let mut history = History::default();
    history.push(sample(10, 100, 7));
    let now = sample(12, 50, 9);
    assert_eq!(
        history
            .deltas(&now)
            .unwrap()
            .counter("TcpExt.ListenOverflows"),
        None
    );
}

#[test]
fn queues_are_compared_where_both_looks_have_them() {
    let queue = |id, drops| Queue {
        id,
        recv_q: 0,
        drops: Some(drops),
    };
    let mut now = sample(12, 1, 9);
    now.udp = Some(vec![queue(3, 1), queue(7, 2)]);
    let mut history = History::default();
    let mut pulse = Pulse {
        taken: Timestamp::from_second(13).unwrap(),
        ..Pulse::default()
    };
    history.set_pulse(pulse.clone());
    assert!(!history.deltas(&now).unwrap().compares_udp());
    pulse.udp = Some(vec![queue(9, 4), queue(7, 5)]);
    history.set_pulse(pulse);
    let deltas = history.deltas(&now).unwrap();
    assert!(deltas.compares_udp());
    let drops = |id| deltas.udp(id).map(|(a, b)| (a.drops, b.drops));
    assert_eq!(drops(7), Some((Some(2), Some(5))));
    assert_eq!((drops(3), drops(9)), (None, None), "in one look only");
    assert!(deltas.unix(7).is_none());
}
