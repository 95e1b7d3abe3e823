//! `linger.sockets/1`: rows, written as they come.

use std::fmt::{self, Display};
use std::io::{self, Write};

use super::column::{Column, is_in_a_part};
use super::{Head, Object, Tail, ends, extensions, owners, write_value};
use crate::fields::{Field, Needs, Record};
use crate::model::tcp_info::MEMBERS;
use crate::model::{Age, Ends, Memory, Socket, TcpState};
use crate::render::line::Line;

/// The schema of the rows of `list`.
pub const SOCKETS: &str = "linger.sockets/1";

/// Which parts of a socket are written; identity, state, queues and timer always are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// `-p`: owners
    pub owners: bool,
    /// `-i`: `tcp_info`, congestion control, upper-layer protocol, MD5 signatures, time in the state
    pub info: bool,
    /// `-m`: memory
    pub memory: bool,
    /// `-e`: mark, cgroup, unit, shutdown, IPv6 only, type of service, socket options
    pub extended: bool,
}

impl Parts {
    /// The parts that hold what `needs` stands for, besides these.
    #[must_use]
    pub const fn with(mut self, needs: Needs) -> Self {
        match needs {
            Needs::Row => {}
            Needs::Extended | Needs::Tos | Needs::Cgroup => self.extended = true,
            Needs::TcpInfo | Needs::BesideInfo | Needs::Congestion | Needs::CongestionInfo => {
                self.info = true;
            }
            Needs::Memory => self.memory = true,
            Needs::Owners => self.owners = true,
        }
        self
    }
}

/// Writes rows as they come: a `linger.sockets/1` document, or an object a line.
#[derive(Debug)]
pub struct Sockets<W> {
    out: W,
    /// rows that are not yet written
    page: Line,
    parts: Parts,
    /// columns that no part holds
    more: Vec<Column>,
    lines: bool,
    first: bool,
}

impl<W: Write> Sockets<W> {
    /// Begins a document.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn document(mut out: W, head: &Head<'_>, parts: Parts) -> io::Result<Self> {
        let mut text = Vec::new();
        write_value(&mut text, head)?;
        // Without its closing brace: the rows follow.
        text.pop();
        out.write_all(&text)?;
        out.write_all(b",\"sockets\":[")?;
        Ok(Self {
            out,
            page: Line::default(),
            parts,
            more: Vec::new(),
            lines: false,
            first: true,
        })
    }

    /// Begins lines of objects without an envelope.
    pub fn lines(out: W, parts: Parts) -> Self {
        Self {
            out,
            page: Line::default(),
            parts,
            more: Vec::new(),
            lines: true,
            first: true,
        }
    }

    /// The same with these columns, which come by the part that holds them, or else by their name.
    #[must_use]
    pub fn with_columns(mut self, columns: &[&'static Field]) -> Self {
        (self.parts, self.more) = by_parts(self.parts, columns);
        self
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn push(&mut self, record: &Record<'_>) -> io::Result<()> {
        let page = &mut self.page;
        if !self.lines {
            page.write_all(if self.first { b"\n" } else { b",\n" })?;
        }
        self.first = false;
        write_with(page, record, self.parts, &self.more)?;
        if self.lines {
            page.write_all(b"\n")?;
        }
        page.turn(&mut self.out)
    }

    /// Closes the document, after a dump that failed too, and gives the writer back.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self, tail: &Tail<'_>) -> io::Result<W> {
        self.page.write_out(&mut self.out)?;
        if !self.lines {
            self.out.write_all(b"\n]")?;
            tail.write(&mut self.out)?;
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

/// The parts that hold some of the columns, besides these, and the columns that no part holds.
pub(super) fn by_parts(parts: Parts, columns: &[&'static Field]) -> (Parts, Vec<Column>) {
    let parts = columns
        .iter()
        .fold(parts, |parts, field| parts.with(field.needs));
    let more = columns.iter().filter(|field| !is_in_a_part(field));
    (parts, more.map(|field| Column::new(field)).collect())
}

/// Writes one socket as an object of `linger.sockets/1`. Nothing is allocated.
///
/// # Errors
/// Those of `out`.
pub fn write_socket(out: &mut impl Write, record: &Record<'_>, parts: Parts) -> io::Result<()> {
    write_with(out, record, parts, &[])
}

pub(super) fn write_with(
    out: &mut impl Write,
    record: &Record<'_>,
    parts: Parts,
    more: &[Column],
) -> io::Result<()> {
    let mut object = Object::begin(out)?;
    write_members(&mut object, record, parts)?;
    for column in more {
        column.write(&mut object, &column.field.value(record))?;
    }
    object.end()
}

/// The same as members of an object that goes on.
pub(super) fn write_members<W: Write>(
    object: &mut Object<'_, W>,
    record: &Record<'_>,
    parts: Parts,
) -> io::Result<()> {
    let socket = record.socket;
    object.word("protocol", socket.protocol.name())?;
    object.word("family", record.family())?;
    match (socket.state, socket.state.slug()) {
        (TcpState::Closed, _) if !socket.protocol.has_tcp_states() => {
            object.word("state", UNCONNECTED)?;
        }
        (_, Some(slug)) => object.word("state", slug)?,
        (state, None) => object.plain("state", Slug(state))?,
    }
    ends::write(object, record)?;
    if let Some(interface) = record.interface() {
        match interface.name {
            Some(name) => object.value("interface", name)?,
            None => object.plain("interface", format_args!("if{}", interface.index))?,
        }
        object.value("interface_index", interface.index)?;
    }
    for (key, queue) in [("recv_q", record.recv_q()), ("send_q", record.send_q())] {
        match queue {
            Some(bytes) => object.number(key, bytes)?,
            None => object.value(key, ())?,
        }
    }
    if let Some(uid) = record.uid() {
        object.number("uid", uid)?;
    }
    object.number("inode", socket.inode)?;
    if let Some(cookie) = socket.cookie {
        object.hex("cookie", cookie.get())?;
    }
    match socket.timer.name() {
        None if !matches!(record.ends, Ends::Ip) => {}
        None => object.value("timer", ())?,
        Some(name) => {
            let mut timer = Object::begin(object.key("timer")?)?;
            timer.word("name", name)?;
            timer.number("expires_ms", socket.timer_ms)?;
            timer.number("retransmits", socket.retransmits)?;
            timer.end()?;
        }
    }
    if parts.extended {
        write_extended(object, record)?;
    }
    if parts.owners {
        owners::write(object, record)?;
    }
    if parts.info {
        write_info(object, record)?;
    }
    if parts.memory
        && let Some(memory) = record.attributes.memory()
    {
        write_memory(object.key("memory")?, &memory)?;
    }
    Ok(())
}

/// The addresses and ports of both ends.
pub(super) fn write_endpoints<W: Write>(
    object: &mut Object<'_, W>,
    socket: &Socket,
) -> io::Result<()> {
    object.ip("local_address", socket.local_ip())?;
    object.number("local_port", socket.local.port)?;
    object.ip("peer_address", socket.remote_ip())?;
    object.number("peer_port", socket.remote.port)
}

fn write_extended<W: Write>(object: &mut Object<'_, W>, record: &Record<'_>) -> io::Result<()> {
    ends::write_extended(object, record)?;
    let attributes = record.attributes;
    object.known("mark", attributes.mark)?;
    owners::write_group(object, record)?;
    if let Some(id) = attributes.cgroup_id() {
        object.plain("cgroup_id", id)?;
    }
    if let Some(shutdown) = attributes.shutdown {
        object.plain("shutdown", shut(shutdown))?;
    }
    object.known("v6only", attributes.v6only)?;
    object.known("tos", attributes.tos)?;
    object.known("tclass", attributes.tclass)?;
    object.known("class_id", attributes.class_id)?;
    extensions::write_options(object, record)
}

/// Which directions were shut down.
pub(in crate::render) const fn shut(directions: u8) -> &'static str {
    match directions & 3 {
        0 => "none",
        1 => "receive",
        2 => "send",
        _ => "both",
    }
}

fn write_info<W: Write>(object: &mut Object<'_, W>, record: &Record<'_>) -> io::Result<()> {
    if let Some(Age { low_ms, high_ms }) = record.age() {
        object.value("state_age_ms", low_ms)?;
        match high_ms {
            None => object.value("state_age_at_least", true)?,
            Some(high) if high != low_ms => object.value("state_age_max_ms", high)?,
            Some(_) => {}
        }
    }
    if let Some(waiting) = record.waiting_on() {
        object.plain("waiting_on", waiting.name())?;
    }
    if let Some(name) = record.attributes.congestion {
        object.value("congestion", String::from_utf8_lossy(name))?;
    }
    if let Some(raw) = record.attributes.tcp_info {
        let mut members = Object::begin(object.key("tcp_info")?)?;
        for member in MEMBERS {
            if let Some(number) = member.get(raw) {
                members.number(member.key, number)?;
            }
        }
        members.end()?;
    }
    extensions::write_beside_info(object, record)
}

fn write_memory(out: &mut impl Write, memory: &Memory) -> io::Result<()> {
    let mut object = Object::begin(out)?;
    object.number("rmem_alloc_bytes", memory.rmem_alloc)?;
    object.number("rcvbuf_bytes", memory.rcvbuf)?;
    object.number("wmem_alloc_bytes", memory.wmem_alloc)?;
    object.number("sndbuf_bytes", memory.sndbuf)?;
    object.number("fwd_alloc_bytes", memory.fwd_alloc)?;
    object.number("wmem_queued_bytes", memory.wmem_queued)?;
    object.number("optmem_bytes", memory.optmem)?;
    object.known("backlog_bytes", memory.backlog)?;
    object.known("drops", memory.drops)?;
    object.end()
}

/// The state of what has no TCP states and no peer.
pub(in crate::render) const UNCONNECTED: &str = "unconnected";

/// A state as JSON has it.
pub(in crate::render) struct Slug(pub(in crate::render) TcpState);

impl Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.slug() {
            Some(slug) => f.write_str(slug),
            None => write!(f, "unknown({})", self.0.number()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::tests::{Fixture, owners};
    use crate::model::printable::all_printable;
    use crate::model::{Endpoint, Family, Owners, Timer};
    use crate::render::json::tests::head;
    use serde_json::{Value as Json, json};

    const ALL: Parts = Parts {
        owners: true,
        info: true,
        memory: true,
        extended: true,
    };

    fn object(fixture: &Fixture, parts: Parts) -> Json {
        let mut out = Vec::new();
        fixture
            .with(|record| write_socket(&mut out, record, parts))
            .unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn what_was_not_asked_for_is_absent() {
        assert_eq!(
            object(&Fixture::new(), Parts::default()),
            json!({
                "protocol": "tcp", "family": "ipv4", "state": "established",
                "local_address": "127.0.0.1", "local_port": 80, "peer_address": "10.0.0.7", "peer_port": 51_000,
                "recv_q": 1, "send_q": 20, "uid": 1000, "inode": 123, "cookie": "0x1a",
                "timer": {"name": "keepalive", "expires_ms": 12_345, "retransmits": 3},
            })
        );
    }

    #[test]
    fn each_option_adds_its_part() {
        let all = object(&Fixture::new(), ALL);
        assert_eq!(
            all["owners"],
            json!([
                {"pid": 101, "comm": "nginx", "fd": 6, "unit": "owner.service"},
                {"pid": 101, "comm": "nginx", "fd": 7, "unit": "owner.service"},
            ])
        );
        assert_eq!(all["no_owner"], Json::Null);
        assert_eq!(
            (&all["state_age_ms"], &all["state_age_at_least"]),
            (&json!(7000), &json!(true))
        );
        assert_eq!(
            (&all["congestion"], &all["tcp_info"]["rtt_us"]),
            (&json!("cubic"), &json!(500))
        );
        assert_eq!(all["tcp_info"].as_object().unwrap().len(), MEMBERS.len());
        assert_eq!(all["memory"]["rcvbuf_bytes"], 131_072);
        assert_eq!(all["memory"]["drops"], 4);
        assert_eq!((&all["mark"], &all["cgroup_id"]), (&json!(0), &json!("26")));
        assert_eq!(
            (&all["unit"], &all["shutdown"]),
            (&json!("nginx.service"), &json!("none"))
        );
        for (parts, keys) in [
            (Parts::default().with(Needs::Owners), &["owners"][..]),
            (
                Parts::default().with(Needs::TcpInfo),
                &[
                    "tcp_info",
                    "state_age_ms",
                    "congestion",
                    "state_age_at_least",
                    "waiting_on",
                ],
            ),
            (Parts::default().with(Needs::Memory), &["memory"]),
            (
                Parts::default().with(Needs::Extended),
                &["mark", "cgroup", "cgroup_id", "unit", "shutdown", "sockopt"],
            ),
        ] {
            let some = object(&Fixture::new(), parts);
            let base = object(&Fixture::new(), Parts::default());
            let added: Vec<&String> = some
                .as_object()
                .unwrap()
                .keys()
                .filter(|key| base.get(key).is_none())
                .collect();
            assert_eq!(added.len(), keys.len(), "{added:?}");
            assert!(keys.iter().all(|key| some.get(key).is_some()), "{added:?}");
        }
    }

    #[test]
    fn the_unknown_is_absent_or_null_and_never_zero() {
        let mut fixture = Fixture::new();
        fixture.socket.state = TcpState::TimeWait;
        fixture.socket.timer = Timer::TimeWait;
        fixture.socket.timer_ms = 20_000;
        fixture.socket.inode = 0;
        fixture.socket.cookie = None;
        fixture.info.truncate(104);
        fixture.memory.truncate(8);
        let time_wait = object(&fixture, ALL);
        assert_eq!(time_wait.get("uid"), None, "a mini-socket has forgotten it");
        assert_eq!(time_wait.get("cookie"), None);
        assert_eq!(time_wait.get("memory"), None);
        assert_eq!(time_wait["inode"], 0, "no file is a fact");
        assert_eq!(
            (&time_wait["owners"], &time_wait["no_owner"]),
            (&json!([]), &json!("time-wait"))
        );
        assert_eq!(time_wait["state_age_ms"], 40_000);
        assert_eq!(
            (
                time_wait.get("state_age_max_ms"),
                time_wait.get("state_age_at_least")
            ),
            (None, None)
        );
        assert_eq!(time_wait["tcp_info"].get("busy_time_us"), None);
        fixture.socket.timer = Timer::None;
        fixture.socket.state = TcpState::Unknown(14);
        let unknown = object(&fixture, Parts::default());
        assert_eq!(
            (unknown.get("timer"), &unknown["state"]),
            (Some(&Json::Null), &json!("unknown(14)"))
        );
    }

    #[test]
    fn bounds_of_an_age_are_both_told() {
        let mut fixture = Fixture::new();
        fixture.socket.state = TcpState::CloseWait;
        fixture.info[56..60].copy_from_slice(&1_000u32.to_ne_bytes());
        let row = object(&fixture, ALL);
        assert_eq!(
            (&row["state_age_ms"], &row["state_age_max_ms"]),
            (&json!(1_000), &json!(5_000))
        );
    }

    #[test]
    fn addresses_are_as_the_sockets_family_has_them() {
        let mut fixture = Fixture::new();
        fixture.socket.family = Family::Ipv6;
        fixture.socket.ifindex = 2;
        fixture.socket.remote = Endpoint::v4([1, 2, 3, 4], 5);
        let row = object(&fixture, Parts::default());
        assert_eq!(
            (&row["peer_address"], &row["family"]),
            (&json!("::ffff:1.2.3.4"), &json!("ipv6"))
        );
        assert_eq!(
            (&row["interface"], &row["interface_index"]),
            (&json!("eth0"), &json!(2))
        );
        fixture.socket.ifindex = 3;
        assert_eq!(object(&fixture, Parts::default())["interface"], "if3");
    }

    #[test]
    fn hostile_names_are_escaped_and_come_back_unchanged() {
        let comm = "a\"\\\x1b[2J\n\u{9b}\u{202e}\u{e0041}服\u{7f}";
        let mut fixture = Fixture::new();
        fixture.owners = owners(&[comm]);
        let mut out = Vec::new();
        fixture
            .with(|record| write_socket(&mut out, record, ALL))
            .unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(all_printable(&text), "{text}");
        assert!(text.contains("\\u202e\\udb40\\udc41服"), "{text}");
        assert_eq!(
            serde_json::from_str::<Json>(&text).unwrap()["owners"][0]["comm"],
            comm
        );
    }

    #[test]
    fn names_that_are_no_utf_8_are_lossy() {
        let fixture = Fixture::new();
        let attributes = crate::model::Attributes {
            congestion: Some(b"cu\xff\xfe"),
            ..fixture.attributes()
        };
        let mut out = Vec::new();
        fixture
            .with(|record| {
                write_socket(
                    &mut out,
                    &Record {
                        attributes: &attributes,
                        ..*record
                    },
                    ALL,
                )
            })
            .unwrap();
        assert_eq!(
            serde_json::from_slice::<Json>(&out).unwrap()["congestion"],
            "cu\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn the_document_streams_with_its_gaps_at_the_end() {
        for rows in 0..3 {
            let mut sockets = Sockets::document(Vec::new(), &head(), Parts::default()).unwrap();
            for _ in 0..rows {
                Fixture::new().with(|record| sockets.push(record)).unwrap();
            }
            let warnings = vec!["the dump broke off \u{1b}".to_owned()];
            let text = String::from_utf8(
                sockets
                    .finish(&Tail {
                        complete: false,
                        warnings: &warnings,
                        ..Tail::default()
                    })
                    .unwrap(),
            )
            .unwrap();
            let document: Json = serde_json::from_str(&text).unwrap();
            assert!(text.starts_with("{\"schema\":\"linger.sockets/1\",\"generated_at\":\"2023-11-14T22:13:20.123Z\",\"host\":\"web-7\""), "{text}");
            assert!(text.ends_with("}\n"), "{text}");
            assert!(
                text.find("\"complete\"") > text.find("\"sockets\""),
                "{text}"
            );
            assert_eq!(document["sockets"].as_array().unwrap().len(), rows);
            assert_eq!(
                (&document["complete"], &document["warnings"][0]),
                (&json!(false), &json!(warnings[0]))
            );
            assert_eq!(
                (&document["netns"], &document["collector"]),
                (&json!(4_026_531_840_u64), &json!("netlink"))
            );
        }
    }

    #[test]
    fn lines_have_no_envelope() {
        let mut lines = Sockets::lines(Vec::new(), ALL);
        let mut fixture = Fixture::new();
        fixture.owners = Owners::default();
        for _ in 0..2 {
            fixture.with(|record| lines.push(record)).unwrap();
        }
        let text = String::from_utf8(
            lines
                .finish(&Tail {
                    complete: true,
                    warnings: &[],
                    ..Tail::default()
                })
                .unwrap(),
        )
        .unwrap();
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            assert_eq!(
                serde_json::from_str::<Json>(line).unwrap()["no_owner"],
                "not-found"
            );
        }
    }
}
