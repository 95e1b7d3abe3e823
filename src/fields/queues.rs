//! What waits in the socket, and the memory it takes.

use super::{Align, Field, Get, Needs, Record, Value};
use crate::model::Memory;

/// What `pick` finds in the socket's memory.
fn memory<'a>(record: &Record<'a>, pick: impl FnOnce(&Memory) -> Option<u32>) -> Option<u64> {
    pick(&record.attributes.memory()?).map(u64::from)
}

pub(super) const RECV_Q: Field = Field {
    id: "recv-q",
    header: "Recv-Q",
    doc: "received and not yet read (an unread FIN counts 1); for LISTEN the connections that wait for accept",
    unit: Some("bytes"),
    align: Align::Right,
    needs: Needs::Row,
    get: Get::Row(|record| Value::of(record.recv_q(), |bytes| Value::Count(u64::from(bytes)))),
};

pub(super) const SEND_Q: Field = Field {
    id: "send-q",
    header: "Send-Q",
    doc: "written and not yet acknowledged; for LISTEN the limit of the accept queue",
    unit: Some("bytes"),
    align: Align::Right,
    needs: Needs::Row,
    get: Get::Row(|record| Value::of(record.send_q(), |bytes| Value::Count(u64::from(bytes)))),
};

pub(super) const SKMEM_RMEM_ALLOC: Field = Field {
    id: "skmem-rmem-alloc",
    header: "rmem_alloc",
    doc: "memory received and not yet read, with overhead",
    unit: Some("bytes"),
    align: Align::Right,
    needs: Needs::Memory,
    get: Get::Row(|record| Value::of(memory(record, |m| Some(m.rmem_alloc)), Value::Bytes)),
};

pub(super) const SKMEM_RCVBUF: Field = Field {
    id: "skmem-rcvbuf",
    header: "rcvbuf",
    doc: "memory: the limit of the receive buffer",
    unit: Some("bytes"),
    align: Align::Right,
    needs: Needs::Memory,
    get: Get::Row(|record| Value::of(memory(record, |m| Some(m.rcvbuf)), Value::Bytes)),
};

pub(super) const SKMEM_WMEM_ALLOC: Field = Field {
    id: "skmem-wmem-alloc",
    header: "wmem_alloc",
    doc: "memory handed to the device and not yet sent",
    unit: Some("bytes"),
    align: Align::Right,
    needs: Needs::Memory,
    get: Get::Row(|record| Value::of(memory(record, |m| Some(m.wmem_alloc)), Value::Bytes)),
};

pub(super) const SKMEM_SNDBUF: Field = Field {
    id: "skmem-sndbuf",
    header: "sndbuf",
    doc: "memory: the limit of the send buffer",
    unit: Some("bytes"),
    align: Align::Right,
    needs: Needs::Memory,
    get: Get::Row(|record| Value::of(memory(record, |m| Some(m.sndbuf)), Value::Bytes)),
};

pub(super) const SKMEM_FWD_ALLOC: Field = Field {
    id: "skmem-fwd-alloc",
    header: "fwd_alloc",
    doc: "memory reserved ahead",
    unit: Some("bytes"),
    align: Align::Right,
    needs: Needs::Memory,
    get: Get::Row(|record| Value::of(memory(record, |m| Some(m.fwd_alloc)), Value::Bytes)),
};

pub(super) const SKMEM_WMEM_QUEUED: Field = Field {
    id: "skmem-wmem-queued",
    header: "wmem_queued",
    doc: "memory in the send queue, with overhead",
    unit: Some("bytes"),
    align: Align::Right,
    needs: Needs::Memory,
    get: Get::Row(|record| Value::of(memory(record, |m| Some(m.wmem_queued)), Value::Bytes)),
};

pub(super) const SKMEM_OPTMEM: Field = Field {
    id: "skmem-optmem",
    header: "optmem",
    doc: "memory taken by options and filters",
    unit: Some("bytes"),
    align: Align::Right,
    needs: Needs::Memory,
    get: Get::Row(|record| Value::of(memory(record, |m| Some(m.optmem)), Value::Bytes)),
};

pub(super) const SKMEM_BACKLOG: Field = Field {
    id: "skmem-backlog",
    header: "backlog",
    doc: "memory received while the owner held the socket's lock",
    unit: Some("bytes"),
    align: Align::Right,
    needs: Needs::Memory,
    get: Get::Row(|record| Value::of(memory(record, |m| m.backlog), Value::Bytes)),
};

pub(super) const SKMEM_DROPS: Field = Field {
    id: "skmem-drops",
    header: "drops",
    doc: "packets dropped since the socket was opened",
    unit: Some("packets"),
    align: Align::Right,
    needs: Needs::Memory,
    get: Get::Row(|record| Value::of(memory(record, |m| m.drops), Value::Count)),
};
