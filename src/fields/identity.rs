//! Which socket it is.

use super::{Align, Field, Get, Needs, Value, ends};

pub(super) const STATE: Field = Field {
    id: "state",
    header: "State",
    doc: "the TCP state; for what has none UNCONNECTED, ESTABLISHED or LISTEN",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(ends::state),
};

pub(super) const LOCAL: Field = Field {
    id: "local",
    header: "Local Address:Port",
    doc: "this end: address, interface if bound to one, and port; or what there is in place of them",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(ends::local),
};

pub(super) const PEER: Field = Field {
    id: "peer",
    header: "Peer Address:Port",
    doc: "the other end: address and port",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(ends::peer),
};

pub(super) const LOCAL_ADDRESS: Field = Field {
    id: "local-address",
    header: "Local Address",
    doc: "the address of this end",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(|record| ends::address(record, |record| record.socket.local_ip())),
};

pub(super) const LOCAL_PORT: Field = Field {
    id: "local-port",
    header: "Local Port",
    doc: "the port of this end",
    unit: None,
    align: Align::Right,
    needs: Needs::Row,
    get: Get::Row(|record| ends::port(record, true)),
};

pub(super) const PEER_ADDRESS: Field = Field {
    id: "peer-address",
    header: "Peer Address",
    doc: "the address of the other end",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(|record| ends::address(record, |record| record.socket.remote_ip())),
};

pub(super) const PEER_PORT: Field = Field {
    id: "peer-port",
    header: "Peer Port",
    doc: "the port of the other end",
    unit: None,
    align: Align::Right,
    needs: Needs::Row,
    get: Get::Row(|record| ends::port(record, false)),
};

pub(super) const FAMILY: Field = Field {
    id: "family",
    header: "Family",
    doc: "the address family of the socket: ipv4, ipv6, unix, packet, netlink or vsock",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(|record| Value::text(record.family())),
};

pub(super) const PROTOCOL: Field = Field {
    id: "protocol",
    header: "Protocol",
    doc: "the protocol, or the family of what has none",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(|record| Value::text(record.socket.protocol.name())),
};

pub(super) const INTERFACE: Field = Field {
    id: "interface",
    header: "Interface",
    doc: "the interface that the socket is bound to, not the one that its route takes",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(|record| Value::of(record.interface(), Value::Interface)),
};

pub(super) const INODE: Field = Field {
    id: "inode",
    header: "Inode",
    doc: "the inode of the socket's file; none where no process has it open",
    unit: None,
    align: Align::Right,
    needs: Needs::Row,
    get: Get::Row(|record| match record.socket.inode {
        0 => Value::Absent,
        inode => Value::Count(u64::from(inode)),
    }),
};

pub(super) const COOKIE: Field = Field {
    id: "cookie",
    header: "Cookie",
    doc: "the kernel's identity of the socket, the same from the handshake to the end of TIME-WAIT",
    unit: None,
    align: Align::Right,
    needs: Needs::Row,
    get: Get::Row(|record| Value::of(record.socket.cookie, |cookie| Value::Hex(cookie.get()))),
};

pub(super) const NETNS: Field = Field {
    id: "netns",
    header: "Netns",
    doc: "the network namespace: its name, or net:[INODE] and a process in it",
    unit: None,
    align: Align::Left,
    needs: Needs::Row,
    get: Get::Row(|record| {
        Value::of(
            record.names.namespace(record.socket.netns),
            Value::Namespace,
        )
    }),
};
