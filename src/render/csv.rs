//! CSV by RFC 4180: one line of the columns' names, one of values for each row, quoted where they have to be. Lines end
//! with a newline alone, for awk and cut.
//!
//! CSV is data, so a value is what others chose it to be: lossy only where it is no UTF-8, has a NUL, and on a terminal,
//! where nothing that steers it gets through. A value that begins with `=`, `+`, `-` or `@` is not changed, because
//! `-bash` and `@/tmp/.X11-unix/X0` are names: a spreadsheet has to import it as text. What is not known is empty, and
//! states, flags and numbers are those of JSON.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use super::cell;
use super::json::{Slug, UNCONNECTED, shut};
use super::text::Safe;
use crate::fields::{Field, Record, Value};

/// Writes rows as CSV. After the first rows nothing is allocated.
#[derive(Debug)]
pub struct Csv<W> {
    out: W,
    columns: Vec<&'static Field>,
    terminal: bool,
    cell: String,
}

impl<W: Write> Csv<W> {
    /// Begins with the names of `columns`, if `header`. `terminal`: for eyes, so that no value may steer it.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn new(
        mut out: W,
        columns: Vec<&'static Field>,
        header: bool,
        terminal: bool,
    ) -> io::Result<Self> {
        if header {
            write_header(&mut out, columns.iter().map(|field| field.id))?;
        }
        Ok(Self {
            out,
            columns,
            terminal,
            cell: String::new(),
        })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn push(&mut self, record: &Record<'_>) -> io::Result<()> {
        for (at, field) in self.columns.iter().enumerate() {
            if at > 0 {
                self.out.write_all(b",")?;
            }
            self.cell.clear();
            write_value(&mut self.cell, field, &field.value(record)).map_err(io::Error::other)?;
            write_cell(&mut self.out, &self.cell, self.terminal)?;
        }
        self.out.write_all(b"\n")
    }

    /// Gives the writer back.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// The values of `columns` as the beginning of a line. Groups that differ in why nobody holds their sockets say so, as in
/// a table; a name never looks like that, because its pid follows.
pub(super) fn members(columns: &[&'static Field], record: &Record<'_>) -> io::Result<String> {
    let (mut line, mut text) = (Vec::new(), String::new());
    for field in columns {
        text.clear();
        let value = field.value(record).grouped();
        match value {
            Value::Owners(holders) if holders.missing().is_some() => {
                cell::write(&mut text, &value, false)
            }
            _ => write_value(&mut text, field, &value),
        }
        .map_err(io::Error::other)?;
        write_cell(&mut line, &text, false)?;
        line.push(b',');
    }
    String::from_utf8(line).map_err(io::Error::other)
}

/// Writes the names of columns.
pub(super) fn write_header<'n>(
    out: &mut impl Write,
    names: impl Iterator<Item = &'n str>,
) -> io::Result<()> {
    for (at, name) in names.enumerate() {
        let comma = if at > 0 { "," } else { "" };
        write!(out, "{comma}{name}")?;
    }
    out.write_all(b"\n")
}

/// A value, quoted where it has to be.
///
/// # Errors
/// Those of the writer.
pub fn write_cell(out: &mut (impl Write + ?Sized), text: &str, terminal: bool) -> io::Result<()> {
    if !text.contains([',', '"', '\r', '\n', '\0', ' ']) {
        return if terminal {
            write!(out, "{}", Safe(text))
        } else {
            out.write_all(text.as_bytes())
        };
    }
    out.write_all(b"\"")?;
    for (at, part) in text.split('"').enumerate() {
        if at > 0 {
            out.write_all(b"\"\"")?;
        }
        if terminal {
            write!(out, "{}", Safe(part))?;
            continue;
        }
        for (at, part) in part.split('\0').enumerate() {
            if at > 0 {
                out.write_all("\u{fffd}".as_bytes())?;
            }
            out.write_all(part.as_bytes())?;
        }
    }
    out.write_all(b"\"")
}

fn write_value(out: &mut String, field: &Field, value: &Value<'_>) -> fmt::Result {
    match value {
        Value::Absent => Ok(()),
        Value::State(state) => write!(out, "{}", Slug(*state)),
        Value::Unconnected => out.write_str(UNCONNECTED),
        Value::Hex(n) if field.id == "mark" => write!(out, "{n}"),
        Value::Flag(yes) => write!(out, "{yes}"),
        Value::Text(text) => out.write_str(text),
        Value::Name(name) => {
            out.extend(name.chars());
            Ok(())
        }
        Value::Port(port) => write!(out, "{port}"),
        Value::Interface(interface) => match interface.name {
            Some(name) => out.write_str(name),
            None => write!(out, "if{}", interface.index),
        },
        Value::Timer { timer, .. } => out.write_str(timer.name().unwrap_or_default()),
        Value::Shutdown(directions) => out.write_str(shut(*directions)),
        Value::Age(age) => write!(out, "{}", age.low_ms),
        Value::Owners(holders) => {
            for (at, process) in holders.processes().enumerate() {
                let comma = if at > 0 { ", " } else { "" };
                write!(out, "{comma}{}[{}]", process.comm, process.pid)?;
            }
            Ok(())
        }
        Value::Pids(holders) => {
            for (at, process) in holders.processes().enumerate() {
                let blank = if at > 0 { " " } else { "" };
                write!(out, "{blank}{}", process.pid)?;
            }
            Ok(())
        }
        other => cell::write(out, other, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::by_id;
    use crate::fields::tests::{Fixture, owners};

    fn rows(fixture: &Fixture, ids: &[&str], terminal: bool) -> Vec<u8> {
        let columns = ids.iter().map(|id| by_id(id).unwrap()).collect();
        let mut csv = Csv::new(Vec::new(), columns, true, terminal).unwrap();
        fixture.with(|record| csv.push(record)).unwrap();
        csv.finish().unwrap()
    }

    #[test]
    fn values_are_those_of_json() {
        let ids = [
            "state",
            "local",
            "peer-port",
            "interface",
            "cookie",
            "mark",
            "timer",
            "timer-expires",
            "age",
            "shutdown",
            "pid",
            "unit",
        ];
        let text = String::from_utf8(rows(&Fixture::new(), &ids, false)).unwrap();
        assert_eq!(
            text,
            "state,local,peer-port,interface,cookie,mark,timer,timer-expires,age,shutdown,pid,unit\n\
             established,127.0.0.1:80,51000,,0x1a,0,keepalive,12345,7000,none,101,nginx.service\n"
        );
    }

    #[test]
    fn a_group_that_nobody_holds_says_why() {
        let mut fixture = Fixture::new();
        let columns = ["process", "state"].map(|id| by_id(id).unwrap());
        let of = |fixture: &Fixture| fixture.with(|record| members(&columns, record)).unwrap();
        fixture.owners = owners(&["nginx"]);
        assert_eq!(of(&fixture), "nginx[101],established,");
        fixture.socket.inode = 0;
        assert_eq!(of(&fixture), "\"- (not accepted yet)\",established,");
        let row = String::from_utf8(rows(&fixture, &["process", "state"], false)).unwrap();
        assert!(row.ends_with("\n,established\n"), "{row}");
    }

    #[test]
    fn hostile_names_come_back_unchanged_but_for_a_nul() {
        for (comm, back) in [
            ("=cmd|' /C calc'!A0", None),
            ("-bash", None),
            ("a\"b,c\r\nd", None),
            (" \x1b[31m\u{202e} ", None),
            ("nul\0", Some("nul\u{fffd}")),
        ] {
            let mut fixture = Fixture::new();
            fixture.owners = owners(&[comm]);
            let bytes = rows(&fixture, &["process", "state"], false);
            let mut reader = csv::Reader::from_reader(&bytes[..]);
            let row = reader.records().next().unwrap().unwrap();
            assert_eq!(row[0], format!("{}[101]", back.unwrap_or(comm)));
            assert_eq!(&row[1], "established");
            let shown = String::from_utf8(rows(&fixture, &["process"], true)).unwrap();
            let steers = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
            assert!(
                !shown.contains(steers) && shown.lines().count() == 2,
                "{shown:?}"
            );
        }
    }
}
