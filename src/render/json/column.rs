//! One column's value under a key of its own, by the rules of `linger.sockets/1`.

use std::io::{self, Write};

use super::Object;
use super::sockets::{Slug, UNCONNECTED, shut};
use crate::fields::{Field, Needs, Record, Value};
use crate::model::Age;
use crate::model::tcp_info::MEMBERS;
use crate::render::cell;

/// A column and its key.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) field: &'static Field,
    key: String,
}

impl Column {
    /// The column by its key: its id with `_`, and its unit where the id has none.
    pub(super) fn new(field: &'static Field) -> Self {
        let bare = field.id.replace('-', "_");
        let key = match (field.id, field.unit) {
            ("age", _) => "state_age_ms".to_owned(),
            ("process", _) => "owners".to_owned(),
            ("pid", _) => "pids".to_owned(),
            ("pod", _) => "pod_uid".to_owned(),
            ("recv-q" | "send-q", _) => bare,
            (_, Some(unit @ ("bytes" | "us" | "ms"))) if !bare.contains(unit) => {
                format!("{bare}_{unit}")
            }
            _ => bare,
        };
        Self { field, key }
    }

    /// Writes the value; what is not known is `null`.
    pub(super) fn write<W: Write>(
        &self,
        object: &mut Object<'_, W>,
        value: &Value<'_>,
    ) -> io::Result<()> {
        let key = &self.key;
        match value {
            Value::Absent => object.value(key, ()),
            Value::State(state) => object.plain(key, Slug(*state)),
            Value::Unconnected => object.plain(key, UNCONNECTED),
            Value::Name(name) => object.name(key, *name),
            Value::End(_) => {
                let mut text = String::new();
                cell::write(&mut text, value, false).map_err(io::Error::other)?;
                object.value(key, text)
            }
            Value::Count(n)
            | Value::Bytes(n)
            | Value::BytesPerSecond(n)
            | Value::Millis(n)
            | Value::Micros(n) => object.value(key, n),
            // A mark is a number; a cookie has more digits than a double.
            Value::Hex(n) if self.field.id == "mark" => object.value(key, n),
            Value::Hex(n) => object.plain(key, format_args!("0x{n:x}")),
            Value::Flag(yes) => object.value(key, yes),
            Value::Text(text) => object.value(key, text),
            Value::Container(container) => object.shown(key, container),
            Value::Pod(pod) => object.plain(key, pod),
            Value::Address(ip) => object.plain(key, ip),
            Value::Port(port) => object.value(key, port),
            Value::Endpoint { ip, port, .. } => {
                object.plain(&format!("{key}_address"), ip)?;
                object.value(&format!("{key}_port"), port)
            }
            Value::Interface(interface) => match interface.name {
                Some(name) => object.value(key, name),
                None => object.plain(key, format_args!("if{}", interface.index)),
            },
            Value::Namespace(namespace) => object.value(key, &namespace.label),
            Value::Timer { timer, .. } => object.value(key, timer.name()),
            Value::Shutdown(directions) => object.plain(key, shut(*directions)),
            Value::List(list) => object.list(key, *list),
            Value::Age(Age { low_ms, .. }) => object.value(key, low_ms),
            Value::Owners(holders) => {
                let out = object.key(key)?;
                out.write_all(b"[")?;
                for (at, process) in holders.processes().enumerate() {
                    if at > 0 {
                        out.write_all(b",")?;
                    }
                    let mut owner = Object::begin(out)?;
                    owner.value("pid", process.pid)?;
                    owner.value("comm", &process.comm)?;
                    owner.end()?;
                }
                out.write_all(b"]")?;
                match holders.missing() {
                    Some(why) => object.plain("no_owner", why.slug()),
                    None => Ok(()),
                }
            }
            Value::Pids(holders) => {
                let out = object.key(key)?;
                out.write_all(b"[")?;
                for (at, process) in holders.processes().enumerate() {
                    write!(out, "{}{}", if at > 0 { "," } else { "" }, process.pid)?;
                }
                out.write_all(b"]")
            }
        }
    }
}

/// The names of both ends, where they were looked up; the numbers stand beside them.
pub(super) fn write_names<W: Write>(
    object: &mut Object<'_, W>,
    record: &Record<'_>,
) -> io::Result<()> {
    let socket = record.socket;
    let local = record.end_names(socket.local_ip(), socket.local.port);
    object.known("local_name", local.host)?;
    object.known("local_service", local.service)?;
    let peer = record.end_names(socket.remote_ip(), socket.remote.port);
    object.known("peer_name", peer.host)?;
    object.known("peer_service", peer.service)
}

/// Whether a socket's object holds the column by a key of its own, always or in one of its parts.
pub(super) fn is_in_a_part(field: &Field) -> bool {
    // What needs nothing is identity, state, queue or timer; of the others only those that came later are not in a part.
    match field.needs {
        Needs::Row => !["user", "netid", "netns"].contains(&field.id),
        Needs::TcpInfo => {
            ["age", "waiting-on"].contains(&field.id)
                || MEMBERS.iter().any(|member| member.key == field.id)
        }
        Needs::Extended
        | Needs::Tos
        | Needs::Cgroup
        | Needs::Congestion
        | Needs::BesideInfo
        | Needs::CongestionInfo
        | Needs::Memory
        | Needs::Owners => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    use crate::fields::tests::Fixture;
    use crate::fields::{Names, all};
    use crate::model::Protocol;
    use crate::model::printable::all_printable;
    use crate::render::json::{Parts, Sockets, Tail, write_socket};

    #[test]
    fn names_are_added_to_the_numbers_and_do_no_harm() {
        struct Hostile;
        impl Names for Hostile {
            fn host(&self, ip: IpAddr) -> Option<&str> {
                ip.is_loopback().then_some("\u{1b}[2J\",\u{202e}")
            }
            fn service(&self, protocol: Protocol, port: u16) -> Option<&str> {
                (protocol == Protocol::Tcp && port == 80).then_some("http")
            }
        }
        let mut out = Vec::new();
        let written = Fixture::new().with(|record| {
            let record = Record {
                names: &Hostile,
                ..*record
            };
            write_socket(&mut out, &record, Parts::default())
        });
        written.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(all_printable(&text), "{text}");
        let socket: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(socket["local_name"], "\u{1b}[2J\",\u{202e}");
        assert_eq!(socket["local_service"], "http");
        assert_eq!(socket["local_address"], "127.0.0.1");
        assert!(socket.get("peer_name").is_none() && socket.get("peer_service").is_none());
    }

    #[test]
    fn a_column_is_written_once_by_its_part_or_by_its_name() {
        let tail = Tail {
            complete: true,
            warnings: &[],
            ..Tail::default()
        };
        for field in all().filter(|field| !is_in_a_part(field)) {
            let mut lines = Sockets::lines(Vec::new(), Parts::default()).with_columns(&[field]);
            Fixture::new().with(|record| lines.push(record)).unwrap();
            let text = String::from_utf8(lines.finish(&tail).unwrap()).unwrap();
            let key = format!("\"{}\":", Column::new(field).key);
            assert_eq!(text.matches(&key).count(), 1, "{}: {text}", field.id);
        }
    }
}
