//! JSON: the envelope of every document, and the streaming writer of `linger.sockets/1`.
//!
//! A document is `{"schema", "generated_at", "host", "netns", "collector", ...}`. What was not asked for is absent, and
//! so is what is not known (`timer` and `netns` are `null` then). 64-bit identities are strings, because many readers
//! have only doubles. Characters that are not printable are escaped, so that a document may be looked at on a terminal
//! too; a reader gets them back unchanged.

mod column;
mod diff;
mod ends;
mod extensions;
mod groups;
mod kill;
mod owners;
mod pairs;
mod sockets;

use std::fmt::Display;
use std::io::{self, Write};
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

use crate::fields::List;
use crate::model::Looked;
use crate::model::printable::{all_printable, is_printable};
use crate::model::unix::Name;
use crate::render::line::{self, IpRoom, NumberRoom};

pub use diff::{DIFF, Files, write_diff};
pub use groups::{GROUPS, members, write_groups};
pub use kill::{Counts, KILL, Kill, Killed};
pub use pairs::{PAIRS, Pairs};
pub use sockets::{Parts, SOCKETS, Sockets, write_socket};
pub(super) use sockets::{Slug, UNCONNECTED, shut};

/// What every document begins with.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Head<'a> {
    /// name and version of the contract, `linger.NAME/1`
    pub schema: &'a str,
    /// the time of the reading
    #[serde(serialize_with = "rfc3339")]
    pub generated_at: Timestamp,
    /// the node name; empty, and `null` in the document, if unknown
    #[serde(serialize_with = "name_or_null")]
    pub host: &'a str,
    /// the inode of the network namespace; `null` if unknown
    pub netns: Option<u64>,
    /// `netlink`, `procfs` or `file`
    pub collector: &'a str,
}

/// What every document says of its gaps.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Tail<'a> {
    /// the network namespaces that were looked at; empty where it is the head's one
    #[serde(skip_serializing_if = "<[Looked]>::is_empty")]
    pub namespaces: &'a [Looked],
    /// whether everything that was asked for was seen
    pub complete: bool,
    /// one sentence for each gap
    pub warnings: &'a [String],
}

impl Tail<'_> {
    /// Writes the rest of a document behind its rows.
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut text = Vec::new();
        write_value(&mut text, self)?;
        // The document has its opening brace already.
        text.drain(..1);
        out.write_all(b",")?;
        out.write_all(&text)?;
        out.write_all(b"\n")
    }
}

/// Head and tail together, for documents that do not stream: flatten it into them (`#[serde(flatten)]`).
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Envelope<'a> {
    /// the beginning
    #[serde(flatten)]
    pub head: Head<'a>,
    /// the gaps
    #[serde(flatten)]
    pub tail: Tail<'a>,
}

fn rfc3339<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}

fn name_or_null<S: Serializer>(name: &str, serializer: S) -> Result<S::Ok, S::Error> {
    Some(name)
        .filter(|name| !name.is_empty())
        .serialize(serializer)
}

/// Writes any document on one line, with a newline at its end.
///
/// # Errors
/// Those of `out`, and of the document's own `Serialize`.
pub fn write_document(out: &mut impl Write, document: &impl Serialize) -> io::Result<()> {
    write_value(out, document)?;
    out.write_all(b"\n")
}

fn write_value(out: &mut impl Write, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, Printable))?;
    Ok(())
}

/// Escapes what is not printable, beyond what JSON demands.
struct Printable;

impl Formatter for Printable {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if all_printable(fragment) {
            return out.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| !is_printable(*c)) {
            out.write_all(rest.get(..at).unwrap_or_default().as_bytes())?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = rest.get(at + c.len_utf8()..).unwrap_or_default();
        }
        out.write_all(rest.as_bytes())
    }
}

/// The members of an object, one after the other.
struct Object<'w, W> {
    out: &'w mut W,
    first: bool,
}

impl<'w, W: Write> Object<'w, W> {
    fn begin(out: &'w mut W) -> io::Result<Self> {
        out.write_all(b"{")?;
        Ok(Self { out, first: true })
    }

    /// The key; keys are ours and need no escapes.
    #[inline(always)]
    fn key(&mut self, key: &str) -> io::Result<&mut W> {
        let before: &[u8] = if self.first { b"\"" } else { b",\"" };
        self.first = false;
        self.out.write_all(before)?;
        self.out.write_all(key.as_bytes())?;
        self.out.write_all(b"\":")?;
        Ok(self.out)
    }

    /// A number, `true` or `false`, `null`, or text of others.
    fn value(&mut self, key: &str, value: impl Serialize) -> io::Result<()> {
        write_value(self.key(key)?, &value)
    }

    /// What is left out if it is not known.
    fn known(&mut self, key: &str, value: Option<impl Serialize>) -> io::Result<()> {
        value.map_or(Ok(()), |value| self.value(key, value))
    }

    /// A name of bytes, lossy where it is no UTF-8. Nothing is allocated.
    fn name(&mut self, key: &str, name: Name<'_>) -> io::Result<()> {
        let out = self.key(key)?;
        out.write_all(b"\"")?;
        for c in name.chars() {
            match c {
                '"' | '\\' => write!(out, "\\{c}")?,
                c if is_printable(c) => write!(out, "{c}")?,
                c => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}")?;
                    }
                }
            }
        }
        out.write_all(b"\"")
    }

    /// Text of ours that needs no escapes.
    fn plain(&mut self, key: &str, text: impl Display) -> io::Result<()> {
        write!(self.key(key)?, "\"{text}\"")
    }

    /// A word of ours that needs no escapes.
    #[inline]
    fn word(&mut self, key: &str, word: &str) -> io::Result<()> {
        let out = self.key(key)?;
        out.write_all(b"\"")?;
        out.write_all(word.as_bytes())?;
        out.write_all(b"\"")
    }

    /// A number.
    #[inline]
    fn number(&mut self, key: &str, number: impl Into<u64>) -> io::Result<()> {
        let mut room = NumberRoom::default();
        let digits = line::decimal(&mut room, number.into());
        let out = self.key(key)?;
        out.write_all(room.get(..digits).unwrap_or_default())
    }

    /// An address.
    #[inline]
    fn ip(&mut self, key: &str, ip: IpAddr) -> io::Result<()> {
        let mut room = [0; size_of::<IpRoom>()];
        let length = line::address(&mut room, ip);
        let text = room.get(..length).unwrap_or_default();
        let out = self.key(key)?;
        out.write_all(b"\"")?;
        out.write_all(text)?;
        out.write_all(b"\"")
    }

    /// An identity of 64 bits, as text: many readers have only doubles.
    #[inline]
    fn hex(&mut self, key: &str, number: u64) -> io::Result<()> {
        let mut room = NumberRoom::default();
        let digits = line::hexadecimal(&mut room, number);
        let out = self.key(key)?;
        out.write_all(b"\"0x")?;
        out.write_all(room.get(..digits).unwrap_or_default())?;
        out.write_all(b"\"")
    }

    /// Text of others, as it is shown.
    fn shown(&mut self, key: &str, text: impl Display) -> io::Result<()> {
        struct Shown<T>(T);
        impl<T: Display> Serialize for Shown<T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }
        self.value(key, Shown(text))
    }

    /// Words of ours that need no escapes.
    fn list(&mut self, key: &str, list: List<'_>) -> io::Result<()> {
        let out = self.key(key)?;
        out.write_all(b"[")?;
        let mut comma = "";
        list.each(&mut |word| {
            write!(out, "{comma}\"{word}\"")?;
            comma = ",";
            io::Result::Ok(())
        })?;
        out.write_all(b"]")
    }

    fn end(self) -> io::Result<()> {
        self.out.write_all(b"}")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    /// A head with every key.
    pub(crate) fn head() -> Head<'static> {
        Head {
            schema: SOCKETS,
            generated_at: Timestamp::from_millisecond(1_700_000_000_123).unwrap(),
            host: "web-7",
            netns: Some(4_026_531_840),
            collector: "netlink",
        }
    }

    #[test]
    fn other_documents_flatten_the_envelope() {
        #[derive(Serialize)]
        struct Document<'a> {
            #[serde(flatten)]
            envelope: Envelope<'a>,
            answer: &'a str,
        }
        let envelope = Envelope {
            head: head(),
            tail: Tail {
                complete: true,
                warnings: &[],
                ..Tail::default()
            },
        };
        let mut out = Vec::new();
        write_document(
            &mut out,
            &Document {
                envelope,
                answer: "\u{202e}",
            },
        )
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("\"answer\":\"\\u202e\"}\n"), "{text}");
        let document: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&document["schema"], &document["complete"]),
            (&json!(SOCKETS), &json!(true))
        );
    }
}
