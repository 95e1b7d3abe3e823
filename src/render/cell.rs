//! A [`Value`] as a cell of a table: no blanks but between processes, so that columns can be cut; `-` is "not known".

use std::fmt::{self, Display, Write};
use std::net::IpAddr;

use super::end;
use super::line::Put;
use super::text::{self, Safe};
use crate::fields::{Holders, Interface, List, Value};
use crate::model::{Age, Timer};

/// Appends `value` to `out`, safe to print; with `descriptors`, owners come with the numbers of theirs.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Put, value: &Value<'_>, descriptors: bool) -> fmt::Result {
    match value {
        Value::Absent => out.write_char('-'),
        Value::State(state) => match state.name() {
            Some(name) => out.ascii(name),
            None => write!(out, "{state}"),
        },
        Value::Unconnected => out.ascii("UNCONNECTED"),
        Value::Name(name) => end::write_name(out, *name),
        Value::End(end) => end::write(out, end),
        Value::Count(n)
        | Value::Bytes(n)
        | Value::BytesPerSecond(n)
        | Value::Millis(n)
        | Value::Micros(n) => out.number(*n),
        Value::Hex(n) => {
            out.ascii("0x")?;
            out.hex(*n)
        }
        Value::Flag(yes) => out.ascii(if *yes { "yes" } else { "no" }),
        Value::Text(text) => write!(out, "{}", Safe(text)),
        Value::Container(container) => {
            if let Some(runtime) = container.runtime {
                write!(out, "{runtime}:")?;
            }
            write!(out, "{}", Safe(container.brief_id()))
        }
        Value::Pod(pod) => write!(out, "{pod}"),
        Value::Address(ip) => out.ip(*ip),
        Value::Port(port) => write_port(out, *port),
        Value::Endpoint {
            ip,
            port,
            interface,
            names,
        } => {
            match (names.host, ip) {
                (Some(name), _) => write!(out, "{}", Safe(name))?,
                (None, ip) => write_ip(out, *ip)?,
            }
            if let Some(interface) = interface {
                out.ascii("%")?;
                write_interface(out, interface)?;
            }
            out.ascii(":")?;
            match names.service {
                Some(name) => write!(out, "{}", Safe(name)),
                None => write_port(out, *port),
            }
        }
        Value::Interface(interface) => write_interface(out, interface),
        // Without blanks, like any cell.
        Value::Namespace(namespace) => {
            write!(out, "{}", Safe(&namespace.label))?;
            match (&namespace.name, namespace.pid) {
                (None, Some(pid)) => {
                    let comm = namespace.comm.as_deref().unwrap_or_default();
                    write!(out, ",{}[{pid}]", Comm(comm))
                }
                _ => Ok(()),
            }
        }
        Value::Timer {
            timer,
            expires_ms,
            retransmits,
        } => {
            out.ascii(timer_name(*timer))?;
            out.ascii(",")?;
            write_expires(out, *expires_ms)?;
            out.ascii(",")?;
            out.number(u64::from(*retransmits))
        }
        Value::Shutdown(directions) => out.ascii(arrows(*directions)),
        Value::List(list) => write_list(out, *list),
        Value::Age(age) => write!(out, "{}", AgeText(*age)),
        Value::Owners(holders) => write_owners(out, holders, descriptors),
        Value::Pids(holders) => {
            if holders.missing().is_some() {
                return out.write_char('-');
            }
            separated(out, ",", holders.processes(), |out, process| {
                write!(out, "{}", process.pid)
            })
        }
    }
}

/// The words with commas between them; `none` if there are none.
pub(super) fn write_list(out: &mut impl Write, list: List<'_>) -> fmt::Result {
    let mut first = true;
    list.each(&mut |word| {
        let comma = if first { "" } else { "," };
        first = false;
        write!(out, "{comma}{word}")
    })?;
    if first {
        out.write_str("none")?;
    }
    Ok(())
}

fn separated<W: Write, T>(
    out: &mut W,
    separator: &str,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut W, T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.write_str(separator)?;
        }
        write(out, item)?;
    }
    Ok(())
}

fn write_owners(out: &mut impl Write, holders: &Holders<'_>, descriptors: bool) -> fmt::Result {
    if let Some(why) = holders.missing() {
        return write!(out, "- ({})", why.text());
    }
    if descriptors {
        separated(out, ", ", holders.links(), |out, (process, fd)| {
            write!(out, "{}[{}] fd {fd}", Comm(&process.comm), process.pid)
        })
    } else {
        separated(out, ", ", holders.processes(), |out, process| {
            write!(out, "{}[{}]", Comm(&process.comm), process.pid)
        })
    }
}

/// The name that a process gave itself, where others stand beside it: what sets holders apart is escaped like what is
/// not printable, or `a[1], sshd[22]` would be two of them.
pub(super) struct Comm<'a>(pub(super) &'a str);

impl Display for Comm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const STRUCTURE: [char; 4] = [' ', ',', '[', ']'];
        for part in self.0.split_inclusive(STRUCTURE) {
            match part.char_indices().next_back() {
                Some((at, c)) if STRUCTURE.contains(&c) => {
                    let name = part.get(..at).unwrap_or_default();
                    write!(f, "{}\\x{:02x}", Safe(name), u32::from(c))?;
                }
                _ => write!(f, "{}", Safe(part))?,
            }
        }
        Ok(())
    }
}

pub(super) fn write_interface(out: &mut impl Write, interface: &Interface<'_>) -> fmt::Result {
    match interface.name {
        Some(name) => write!(out, "{}", Safe(name)),
        None => write!(out, "if{}", interface.index),
    }
}

/// An address before a port.
pub(super) fn write_ip(out: &mut impl Put, ip: IpAddr) -> fmt::Result {
    if ip.is_ipv4() {
        return out.ip(ip);
    }
    out.ascii("[")?;
    out.ip(ip)?;
    out.ascii("]")
}

/// A port; 0 is shown as ss shows it.
fn write_port(out: &mut impl Put, port: u16) -> fmt::Result {
    match port {
        0 => out.ascii("*"),
        port => out.number(u64::from(port)),
    }
}

/// The open directions: `<->` both, `-->` only sending, `<--` only receiving, `---` none.
pub(super) const fn arrows(shutdown: u8) -> &'static str {
    match shutdown & 3 {
        0 => "<->",
        1 => "-->",
        2 => "<--",
        _ => "---",
    }
}

/// The name of a timer as ss has it.
pub(super) const fn timer_name(timer: Timer) -> &'static str {
    match timer {
        Timer::None => "off",
        Timer::Retransmit => "on",
        Timer::Keepalive => "keepalive",
        Timer::TimeWait => "timewait",
        Timer::Persist => "persist",
        Timer::Unknown(_) => "unknown",
    }
}

/// The time until a timer is due in the words of ss: `119min`, `2min59sec`, `12sec`, `1.204sec`, `204ms`. Where ss says
/// nothing (due now) it is `0ms`, and 1.2 seconds are not `1.204ms`.
pub(super) fn write_expires(out: &mut impl Put, expires_ms: u32) -> fmt::Result {
    let (ms, seconds) = (expires_ms % 1000, expires_ms / 1000);
    let mut part = |number: u32, unit: &str| {
        out.number(u64::from(number))?;
        out.ascii(unit)
    };
    match (seconds / 60, seconds % 60) {
        (0, 0) => part(ms, "ms"),
        (0, 1..10) if ms > 0 => write!(out, "{seconds}.{ms:03}sec"),
        (0, seconds) => part(seconds, "sec"),
        (minutes @ 10.., _) | (minutes, 0) => part(minutes, "min"),
        (minutes, seconds) => {
            part(minutes, "min")?;
            part(seconds, "sec")
        }
    }
}

/// An age: `12s`, `7s..1min03s` where only bounds are known, `>=5s` where nothing bounds it from above.
pub(super) struct AgeText(pub Age);

impl Display for AgeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let low = text::age(self.0.low_ms);
        match self.0.high_ms {
            Some(high) if high == self.0.low_ms => write!(f, "{low:#}"),
            Some(high) => write!(f, "{low:#}..{:#}", text::age(high)),
            None => write!(f, ">={low:#}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::tests::{Fixture, owners};
    use crate::fields::{Names, Record, by_id};
    use crate::model::{Endpoint, Family, Protocol, TcpState};

    fn cell(fixture: &Fixture, id: &str) -> String {
        let mut out = String::new();
        fixture.with(|record| write(&mut out, &by_id(id).unwrap().value(record), false).unwrap());
        out
    }

    fn v6(text: &str, port: u16) -> Endpoint {
        Endpoint::v6(text.parse::<std::net::Ipv6Addr>().unwrap().octets(), port)
    }

    #[test]
    fn names_stand_for_their_numbers_whole_and_safe() {
        struct Named;
        impl Names for Named {
            fn interface(&self, _: u16, _: u32) -> Option<&str> {
                Some("eth0")
            }
            fn host(&self, ip: IpAddr) -> Option<&str> {
                Some(if ip.is_ipv6() {
                    "a-name-that-is-longer-than-any-address-could-ever-be.example"
                } else {
                    "evil\u{1b}[31m\n\u{202e}"
                })
            }
            fn service(&self, _: Protocol, port: u16) -> Option<&str> {
                (port == 443).then_some("https")
            }
        }
        let cell = |fixture: &Fixture, id: &str| {
            let mut out = String::new();
            fixture.with(|record| {
                let record = Record {
                    names: &Named,
                    ..*record
                };
                write(&mut out, &by_id(id).unwrap().value(&record), false).unwrap();
            });
            out
        };
        let mut fixture = Fixture::new();
        let evil = cell(&fixture, "local");
        assert!(
            evil.starts_with("evil") && evil.ends_with(":80"),
            "{evil:?}"
        );
        assert!(crate::model::printable::all_printable(&evil), "{evil:?}");
        assert_eq!(cell(&fixture, "local-address"), "127.0.0.1");
        fixture.socket.family = Family::Ipv6;
        fixture.socket.ifindex = 2;
        (fixture.socket.local, fixture.socket.remote) = (v6("fe80::1", 443), v6("fe80::2", 0));
        let name = "a-name-that-is-longer-than-any-address-could-ever-be.example";
        assert_eq!(cell(&fixture, "local"), format!("{name}%eth0:https"));
        assert_eq!(cell(&fixture, "peer"), format!("{name}:*"));
    }

    #[test]
    fn endpoints_are_whole_and_unambiguous() {
        let mut fixture = Fixture::new();
        assert_eq!(cell(&fixture, "local"), "127.0.0.1:80");
        fixture.socket.local = Endpoint::v4([0; 4], 80);
        fixture.socket.remote = Endpoint::v4([0; 4], 0);
        assert_eq!(
            (cell(&fixture, "local"), cell(&fixture, "peer")),
            ("0.0.0.0:80".into(), "0.0.0.0:*".into())
        );
        fixture.socket.ifindex = 2;
        assert_eq!(cell(&fixture, "local"), "0.0.0.0%eth0:80");
        assert_eq!(
            cell(&fixture, "peer"),
            "0.0.0.0:*",
            "only this end is bound"
        );
        fixture.socket.ifindex = 3;
        fixture.socket.family = Family::Ipv6;
        fixture.socket.local = v6("fe80::1", 22);
        fixture.socket.remote = v6("::ffff:1.2.3.4", 80);
        assert_eq!(
            (cell(&fixture, "local"), cell(&fixture, "peer")),
            ("[fe80::1]%if3:22".into(), "[::ffff:1.2.3.4]:80".into())
        );
        fixture.socket.remote = v6("::", 0);
        assert_eq!(
            (cell(&fixture, "peer"), cell(&fixture, "peer-port")),
            ("[::]:*".into(), "*".into())
        );
        fixture.socket.local = v6("2001:db8:1111:2222:3333:4444:5555:6666", 65535);
        fixture.socket.ifindex = 0;
        assert_eq!(
            cell(&fixture, "local"),
            "[2001:db8:1111:2222:3333:4444:5555:6666]:65535"
        );
    }

    #[test]
    fn owners_are_all_shown_or_why_there_is_none() {
        let mut fixture = Fixture::new();
        fixture.owners = owners(&["nginx", "evil\x1b]0;\u{202e}"]);
        assert_eq!(
            cell(&fixture, "process"),
            "nginx[101], evil\\x1b\\x5d0;\\u{202e}[102]"
        );
        assert_eq!(cell(&fixture, "pid"), "101,102");
        let mut out = String::new();
        fixture.with(|record| {
            write(&mut out, &by_id("process").unwrap().value(record), true).unwrap()
        });
        assert!(
            out.starts_with("nginx[101] fd 6, nginx[101] fd 7, evil"),
            "{out}"
        );
        fixture.socket.inode = 0;
        assert_eq!(cell(&fixture, "process"), "- (not accepted yet)");
        assert_eq!(cell(&fixture, "pid"), "-");
        fixture.socket.state = TcpState::TimeWait;
        assert_eq!(cell(&fixture, "process"), "- (time-wait)");
        fixture.cgroup_id = None;
        fixture.socket.inode = 123;
        let group = |path: &str| {
            let mut fixture = fixture.clone();
            fixture.owners.processes_mut()[0].cgroup = Some(path.to_owned());
            cell(&fixture, "container")
        };
        assert_eq!(group("/lxc.payload.a\x1b[2J"), "lxc:a\\x1b[2J");
        let docker = format!("/docker/{}", "ab".repeat(32));
        assert_eq!(group(&docker), "docker:abababababab");
    }

    #[test]
    fn a_name_forges_no_second_holder() {
        let mut fixture = Fixture::new();
        for (comm, shown) in [
            (
                "a[1], sshd[22]",
                "a\\x5b1\\x5d\\x2c\\x20sshd\\x5b22\\x5d[101]",
            ),
            ("a[1] fd 7", "a\\x5b1\\x5d\\x20fd\\x207[101]"),
            ("- (time-wait)", "-\\x20(time-wait)[101]"),
            ("tmux: server", "tmux:\\x20server[101]"),
            ("(sd-pam)", "(sd-pam)[101]"),
            ("kworker/0:1", "kworker/0:1[101]"),
            ("", "[101]"),
        ] {
            fixture.owners = owners(&[comm]);
            assert_eq!(cell(&fixture, "process"), shown);
        }
    }

    #[test]
    fn timers_expire_in_the_words_of_ss() {
        let table: &[(u32, &str)] = &[
            (0, "0ms"),
            (204, "204ms"),
            (1_204, "1.204sec"),
            (9_000, "9sec"),
            (12_345, "12sec"),
            (60_000, "1min"),
            (179_999, "2min59sec"),
            (600_000, "10min"),
            (7_199_000, "119min"),
        ];
        for (ms, text) in table {
            let mut out = String::new();
            write_expires(&mut out, *ms).unwrap();
            assert_eq!(out, *text);
        }
        assert_eq!(cell(&Fixture::new(), "timer"), "keepalive,12sec,3");
    }

    #[test]
    fn ages_say_what_they_do_not_know() {
        let text = |age| AgeText(age).to_string();
        assert_eq!(text(Age::exactly(12_000)), "12s");
        assert_eq!(text(Age::between(63_000, 7_000)), "7s..1min03s");
        assert_eq!(text(Age::at_least(5_000)), ">=5s");
        assert_eq!(cell(&Fixture::new(), "age"), ">=7s");
    }

    #[test]
    fn arrows_point_where_data_can_still_flow() {
        assert_eq!([0, 1, 2, 3].map(arrows), ["<->", "-->", "<--", "---"]);
    }

    #[test]
    fn the_unknown_is_a_dash() {
        let mut fixture = Fixture::new();
        fixture.socket.cookie = None;
        fixture.info.clear();
        for id in ["cookie", "interface", "v6only", "rtt_us", "age"] {
            assert_eq!(cell(&fixture, id), "-", "{id}");
        }
    }
}
