//! `linger.kill/1`: what would be destroyed, or what became of each socket.

use std::io::{self, Write};

use serde::Serialize;

use super::sockets::write_members;
use super::{Head, Object, Parts, Tail, write_value};
use crate::fields::Record;
use crate::knowledge::killing::Fate;

/// The schema of `linger kill`.
pub const KILL: &str = "linger.kill/1";

/// How many sockets met which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// all that fit
    pub matched: u64,
    /// would be destroyed
    pub would_destroy: u64,
    /// were destroyed
    pub destroyed: u64,
    /// were gone before
    pub vanished: u64,
    /// were left alone
    pub refused: u64,
    /// could not be destroyed
    pub failed: u64,
}

impl Counts {
    /// Counts.
    pub fn of<'f>(fates: impl IntoIterator<Item = &'f Fate>) -> Self {
        let mut counts = Self::default();
        for fate in fates {
            counts.matched += 1;
            *match fate {
                Fate::WouldDestroy => &mut counts.would_destroy,
                Fate::Destroyed => &mut counts.destroyed,
                Fate::Vanished(_) => &mut counts.vanished,
                Fate::Refused(_) => &mut counts.refused,
                Fate::Failed(_) => &mut counts.failed,
            } += 1;
        }
        counts
    }
}

/// What is said of all of them.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Kill<'a> {
    /// the beginning of every document
    #[serde(flatten)]
    pub head: Head<'a>,
    /// whether nothing was touched
    pub dry_run: bool,
    /// the filter as typed
    pub filter: &'a str,
    /// the file of the capture; `null` if none was written
    pub capture: Option<&'a str>,
    /// how many met which fate
    pub counts: Counts,
}

/// Writes a `linger.kill/1` document, a socket at a time.
#[derive(Debug)]
pub struct Killed<W> {
    out: W,
    first: bool,
}

impl<W: Write> Killed<W> {
    /// Begins the document.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn begin(mut out: W, kill: &Kill<'_>) -> io::Result<Self> {
        let mut text = Vec::new();
        write_value(&mut text, kill)?;
        // Without its closing brace: the sockets follow.
        text.pop();
        out.write_all(&text)?;
        out.write_all(b",\"sockets\":[")?;
        Ok(Self { out, first: true })
    }

    /// Adds a socket: as `linger.sockets/1` has it with its owners, and its fate.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn push(&mut self, record: &Record<'_>, fate: &Fate) -> io::Result<()> {
        self.out
            .write_all(if self.first { b"\n" } else { b",\n" })?;
        self.first = false;
        let mut object = Object::begin(&mut self.out)?;
        let parts = Parts {
            owners: true,
            ..Parts::default()
        };
        write_members(&mut object, record, parts)?;
        object.plain("result", fate.name())?;
        object.known("reason", fate.reason())?;
        object.known("option", fate.option())?;
        object.end()
    }

    /// Closes the document.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self, tail: &Tail<'_>) -> io::Result<()> {
        self.out.write_all(b"\n],\"complete\":")?;
        write_value(&mut self.out, &tail.complete)?;
        self.out.write_all(b",\"warnings\":")?;
        write_value(&mut self.out, tail.warnings)?;
        self.out.write_all(b"}\n")?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::tests::{Fixture, owners};
    use crate::knowledge::killing::CLOSE_WAIT;
    use crate::render::json::tests::head;
    use serde_json::{Value as Json, json};

    #[test]
    fn each_socket_has_its_owners_and_its_fate() {
        let mut fixture = Fixture::new();
        fixture.owners = owners(&["ng\u{202e}inx"]);
        let fates = [
            Fate::WouldDestroy,
            Fate::Destroyed,
            Fate::Vanished("it was gone before".to_owned()),
            Fate::Refused(&CLOSE_WAIT),
            Fate::Failed("EINVAL".to_owned()),
        ];
        let kill = Kill {
            head: Head {
                schema: KILL,
                ..head()
            },
            dry_run: false,
            filter: "state \"all\"",
            capture: None,
            counts: Counts::of(&fates),
        };
        let mut out = Vec::new();
        let mut writer = Killed::begin(&mut out, &kill).unwrap();
        for fate in &fates {
            fixture.with(|record| writer.push(record, fate)).unwrap();
        }
        let tail = Tail {
            namespaces: &[],
            complete: true,
            warnings: &[],
        };
        writer.finish(&tail).unwrap();
        let document: Json = serde_json::from_slice(&out).unwrap();
        assert_eq!(document["schema"], KILL);
        assert_eq!(document["capture"], Json::Null);
        assert_eq!(document["filter"], "state \"all\"");
        let counts = json!({
            "matched": 5, "would_destroy": 1, "destroyed": 1, "vanished": 1, "refused": 1, "failed": 1,
        });
        assert_eq!(document["counts"], counts);
        let sockets = document["sockets"].as_array().unwrap();
        let results: Vec<_> = sockets.iter().map(|socket| &socket["result"]).collect();
        assert_eq!(
            results,
            [
                "would-destroy",
                "destroyed",
                "vanished",
                "refused",
                "failed"
            ]
        );
        assert_eq!(sockets[0]["owners"][0]["comm"], "ng\u{202e}inx");
        assert_eq!(sockets[0].get("reason"), None);
        assert_eq!(sockets[3]["option"], "--close-wait");
        assert_eq!(sockets[4]["reason"], "EINVAL");
        assert!(sockets[0].get("cookie").is_some());
    }
}
