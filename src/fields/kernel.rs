//! What the kernel does with the socket.

use super::{Align, Field, Get, Needs, Value};
use crate::model::Timer;

pub(super) const AGE: Field = Field {
    id: "age",
    header: "Age",
    doc: "the time in the state; bounds where one look cannot tell",
    unit: Some("ms"),
    align: Align::Right,
    needs: Needs::TcpInfo,
    get: Get::Row(|record| Value::of(record.age(), Value::Age)),
};

pub(super) const TIMER: Field = Field {
    id: "timer",
    header: "Timer",
    doc: "the running timer, the time until it is due, and how often it has fired in vain",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(|record| match record.socket.timer {
        Timer::None => Value::Absent,
        timer => Value::Timer {
            timer,
            expires_ms: record.socket.timer_ms,
            retransmits: record.socket.retransmits,
        },
    }),
};

pub(super) const TIMER_EXPIRES: Field = Field {
    id: "timer-expires",
    header: "Expires",
    doc: "the time until the running timer is due",
    unit: Some("ms"),
    align: Align::Right,
    needs: Needs::Row,
    get: Get::Row(|record| match record.socket.timer {
        Timer::None => Value::Absent,
        _ => Value::Millis(u64::from(record.socket.timer_ms)),
    }),
};

pub(super) const WAITING_ON: Field = Field {
    id: "waiting-on",
    header: "Waiting-On",
    doc: "whose move it is on an established connection: peer, us, peer-window (it does not read), network or nobody",
    unit: None,
    align: Align::Left,
    needs: Needs::TcpInfo,
    get: Get::Row(|record| Value::of(record.waiting_on(), |waiting| Value::text(waiting.name()))),
};

pub(super) const MARK: Field = Field {
    id: "mark",
    header: "Mark",
    doc: "SO_MARK, which the kernel tells only to CAP_NET_ADMIN",
    unit: None,
    align: Align::Right,
    needs: Needs::Extended,
    get: Get::Row(|record| Value::of(record.attributes.mark, |mark| Value::Hex(u64::from(mark)))),
};

pub(super) const CONGESTION: Field = Field {
    id: "congestion",
    header: "Congestion",
    doc: "the congestion control algorithm",
    unit: None,
    align: Align::Left,
    needs: Needs::Congestion,
    get: Get::Row(|record| {
        Value::of(record.attributes.congestion, |name| {
            Value::Text(String::from_utf8_lossy(name))
        })
    }),
};

pub(super) const SHUTDOWN: Field = Field {
    id: "shutdown",
    header: "Shutdown",
    doc: "the directions that are open: < receiving, > sending",
    unit: None,
    align: Align::Left,
    needs: Needs::Extended,
    get: Get::Row(|record| Value::of(record.attributes.shutdown, Value::Shutdown)),
};

pub(super) const V6ONLY: Field = Field {
    id: "v6only",
    header: "V6only",
    doc: "whether an IPv6 socket refuses IPv4",
    unit: None,
    align: Align::Left,
    needs: Needs::Extended,
    get: Get::Row(|record| Value::of(record.attributes.v6only, Value::Flag)),
};
