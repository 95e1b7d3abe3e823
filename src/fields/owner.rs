//! Whose socket it is.

use super::{Align, Field, Get, Needs, Value};
use crate::model::owner::unit_of;

pub(super) const PROCESS: Field = Field {
    id: "process",
    header: "Process",
    doc: "the processes that hold the socket, or why there is none",
    unit: None,
    align: Align::Left,
    needs: Needs::Owners,
    get: Get::Row(|record| Value::of(record.holders(), Value::Owners)),
};

pub(super) const PID: Field = Field {
    id: "pid",
    header: "PID",
    doc: "the ids of the processes that hold the socket",
    unit: None,
    align: Align::Right,
    needs: Needs::Owners,
    get: Get::Row(|record| Value::of(record.holders(), Value::Pids)),
};

pub(super) const UID: Field = Field {
    id: "uid",
    header: "UID",
    doc: "the uid of the socket's owner; TIME-WAIT and SYN-RECEIVED have none",
    unit: None,
    align: Align::Right,
    needs: Needs::Row,
    get: Get::Row(|record| Value::of(record.uid(), |uid| Value::Count(u64::from(uid)))),
};

pub(super) const USER: Field = Field {
    id: "user",
    header: "User",
    doc: "the name of the socket's owner, or the uid if it has no name",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(|record| {
        Value::of(record.uid(), |uid| match record.names.user(uid) {
            Some(name) => Value::text(name),
            None => Value::Count(u64::from(uid)),
        })
    }),
};

pub(super) const CGROUP: Field = Field {
    id: "cgroup",
    header: "Cgroup",
    doc: "the path of the cgroup that made the socket",
    unit: None,
    align: Align::Left,
    needs: Needs::Cgroup,
    get: Get::Row(|record| Value::of(record.cgroup(), Value::text)),
};

pub(super) const UNIT: Field = Field {
    id: "unit",
    header: "Unit",
    doc: "the systemd unit that the cgroup belongs to",
    unit: None,
    align: Align::Left,
    needs: Needs::Cgroup,
    get: Get::Row(|record| Value::of(record.cgroup().and_then(unit_of), Value::text)),
};

pub(super) const CONTAINER: Field = Field {
    id: "container",
    header: "Container",
    doc: "the container that the cgroup belongs to: runtime and first twelve digits of the id, or the name",
    unit: None,
    align: Align::Left,
    needs: Needs::Cgroup,
    get: Get::Row(|record| Value::of(record.container(), Value::Container)),
};

pub(super) const POD: Field = Field {
    id: "pod",
    header: "Pod",
    doc: "the uid of the Kubernetes pod that the cgroup belongs to",
    unit: None,
    align: Align::Left,
    needs: Needs::Cgroup,
    get: Get::Row(|record| Value::of(record.pod(), Value::Pod)),
};
