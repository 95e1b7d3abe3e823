//! `linger.pairs/1`: two ends of a connection a row, each a socket of `linger.sockets/1`.

use std::io::{self, Write};

use super::column::Column;
use super::sockets::{by_parts, write_with};
use super::{Head, Parts, Tail, write_value};
use crate::fields::{Field, Record};

/// The schema of `list --pair`.
pub const PAIRS: &str = "linger.pairs/1";

/// Writes pairs as they come: a document, or an object a line.
#[derive(Debug)]
pub struct Pairs<W> {
    out: W,
    parts: Parts,
    more: Vec<Column>,
    lines: bool,
    first: bool,
}

impl<W: Write> Pairs<W> {
    /// Begins a document, or without `head` lines of objects. Columns come by the part that holds them, or else by their
    /// name.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn new(
        mut out: W,
        head: Option<&Head<'_>>,
        parts: Parts,
        columns: &[&'static Field],
    ) -> io::Result<Self> {
        if let Some(head) = head {
            let mut text = Vec::new();
            write_value(&mut text, head)?;
            // Without its closing brace: the rows follow.
            text.pop();
            out.write_all(&text)?;
            out.write_all(b",\"pairs\":[")?;
        }
        let (parts, more) = by_parts(parts, columns);
        Ok(Self {
            out,
            parts,
            more,
            lines: head.is_none(),
            first: true,
        })
    }

    /// Whether these are lines without a document around them.
    pub const fn is_lines(&self) -> bool {
        self.lines
    }

    /// Adds a pair; the other end is `null` where it is gone.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn push(&mut self, a: &Record<'_>, b: Option<&Record<'_>>) -> io::Result<()> {
        let before: &[u8] = match (self.lines, self.first) {
            (true, _) => b"{\"a\":",
            (false, true) => b"\n{\"a\":",
            (false, false) => b",\n{\"a\":",
        };
        self.first = false;
        self.out.write_all(before)?;
        write_with(&mut self.out, a, self.parts, &self.more)?;
        self.out.write_all(b",\"b\":")?;
        match b {
            Some(b) => write_with(&mut self.out, b, self.parts, &self.more)?,
            None => self.out.write_all(b"null")?,
        }
        self.out.write_all(if self.lines { b"}\n" } else { b"}" })
    }

    /// Closes the document; `elsewhere` is the number of ends whose other end is not on this machine, or not in what was
    /// read.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self, elsewhere: u64, tail: &Tail<'_>) -> io::Result<()> {
        if !self.lines {
            write!(self.out, "\n],\"elsewhere\":{elsewhere}")?;
            tail.write(&mut self.out)?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;
    use crate::fields::by_id;
    use crate::fields::tests::Fixture;
    use crate::render::json::tests::head;

    fn written(head: Option<&Head<'_>>, columns: &[&'static Field]) -> String {
        let mut out = Vec::new();
        let mut pairs = Pairs::new(&mut out, head, Parts::default(), columns).unwrap();
        let (fixture, mut other) = (Fixture::new(), Fixture::new());
        std::mem::swap(&mut other.socket.local, &mut other.socket.remote);
        fixture.with(|a| {
            other.with(|b| pairs.push(a, Some(b))).unwrap();
            pairs.push(a, None).unwrap();
        });
        let tail = Tail {
            namespaces: &[],
            complete: false,
            warnings: &["gone".to_owned()],
        };
        pairs.finish(3, &tail).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_document_of_pairs() {
        let document: Json = serde_json::from_str(&written(Some(&head()), &[])).unwrap();
        let pairs = document["pairs"].as_array().unwrap();
        assert_eq!(pairs.len(), 2);
        assert_eq!(pairs[0]["a"]["local_port"], pairs[0]["b"]["peer_port"]);
        assert_eq!(pairs[1].get("b"), Some(&Json::Null));
        assert_eq!(
            (&document["elsewhere"], &document["complete"]),
            (&Json::from(3), &Json::Bool(false))
        );
        assert!(pairs[0]["a"].get("tcp_info").is_none());
    }

    #[test]
    fn lines_have_columns_by_their_parts() {
        let text = written(None, &[by_id("rtt").unwrap(), by_id("user").unwrap()]);
        let lines: Vec<Json> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["b"]["tcp_info"]["rtt_us"], 500);
        assert_eq!(lines[0]["b"]["user"], "www");
    }
}
