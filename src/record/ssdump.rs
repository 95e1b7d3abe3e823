//! A raw dump that `ss -D FILE` wrote, as a [`Source`].
//!
//! The file is what netlink answered and nothing else: one `struct nlmsghdr` behind the other, the dump of IPv4 with its
//! `NLMSG_DONE`, then that of IPv6 with its own; with `-4` or `-6` one of them. It has no magic, so its first message
//! decides. It says neither which states were asked for, nor when and where, nor who held the sockets; what follows
//! from that is in the coverage. Messages are read one at a time, so memory does not grow with the file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use netlink_packet_core::NLMSG_DONE;
use netlink_packet_sock_diag::SOCK_DIAG_BY_FAMILY;

use super::Error;
use super::sections::open_file;
use crate::collect::netlink::{Progress, Stream, TCPDIAG_GETSOCK};
use crate::collect::{self, Row, RowSink, Source, Table, Want};
use crate::model::{
    Collector, Coverage, Facts, Family, Host, Owners, Protocol, StateSet, TcpState,
};

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Length of a header with the `struct inet_diag_msg` that each socket has.
const SOCKET: u32 = 16 + 72;

/// No message is longer: the kernel fills buffers of 32 KiB at most.
const LONGEST: u32 = 64 * 1024;

/// Alignment of messages (`NLMSG_ALIGNTO`).
const ALIGN: u32 = 4;

/// What a reader has to know of the time.
const TIME: &str = "the time is that of the file's last change: a dump of ss holds none";

/// A raw dump of ss that is read.
#[derive(Debug)]
pub struct SsDump {
    file: File,
    size: u64,
    changed: Timestamp,
}

impl SsDump {
    /// Opens the file if its first message is one that `ss -D` writes; `None` if it is something else.
    ///
    /// # Errors
    /// When it cannot be read, or was written on a machine of the other byte order.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        let (mut file, metadata) = open_file(path)?;
        let io = |source| Error::Io {
            what: "read",
            path: path.to_owned(),
            source,
        };
        let mut start = Vec::with_capacity(HEADER);
        Read::take(&mut file, HEADER as u64)
            .read_to_end(&mut start)
            .map_err(io)?;
        let Some(start) = start.first_chunk() else {
            return Ok(None);
        };
        if begins(start, u32::from_ne_bytes, u16::from_ne_bytes) {
            let changed = metadata.modified().ok();
            return Ok(Some(Self {
                file,
                size: metadata.len(),
                changed: changed
                    .and_then(|time| time.try_into().ok())
                    .unwrap_or_default(),
            }));
        }
        let swapped = |bytes| u32::from_ne_bytes(bytes).swap_bytes();
        if begins(start, swapped, |bytes| {
            u16::from_ne_bytes(bytes).swap_bytes()
        }) {
            return Err(Error::ForeignEndian {
                path: path.to_owned(),
                recorded: if cfg!(target_endian = "big") {
                    "little-endian"
                } else {
                    "big-endian"
                },
            });
        }
        Ok(None)
    }
}

/// Whether this is the head of a message that a dump begins with: a socket, or the end of an empty dump.
fn begins(
    start: &[u8; HEADER],
    long: impl Fn([u8; 4]) -> u32,
    short: impl Fn([u8; 2]) -> u16,
) -> bool {
    let [a, b, c, d, e, f, ..] = *start;
    let length = long([a, b, c, d]);
    match short([e, f]) {
        SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK => (SOCKET..=LONGEST).contains(&length),
        NLMSG_DONE => (HEADER as u32..SOCKET).contains(&length),
        _ => false,
    }
}

impl Source for SsDump {
    fn dump(&mut self, want: &Want, row: &mut RowSink<'_>) -> Result<Coverage, collect::Error> {
        if want.protocol != Protocol::Tcp {
            return Err(collect::Error::NotRecorded(want.protocol.sockets()));
        }
        let broken = |error: io::Error| collect::Error::Capture(format!("cannot read on: {error}"));
        self.file.rewind().map_err(broken)?;
        let mut messages = Messages {
            from: BufReader::with_capacity(LONGEST as usize, &self.file),
            at: 0,
            size: self.size,
            buffer: Vec::new(),
        };
        replay(&mut messages, want, row).map_err(broken)
    }

    fn owners(&mut self) -> (Owners, Coverage) {
        let coverage = Coverage {
            missing: vec!["owners: a dump of ss holds none".to_owned()],
            ..Coverage::default()
        };
        (Owners::default(), coverage)
    }

    fn facts(&mut self) -> Facts {
        Facts::default()
    }

    fn has_facts(&self) -> bool {
        false
    }

    fn host(&self) -> Host {
        Host::default()
    }

    fn now(&self) -> Timestamp {
        self.changed
    }

    fn advance(&mut self, _wait: Duration) -> bool {
        false
    }

    fn is_capture(&self) -> bool {
        true
    }

    fn looks(&self) -> usize {
        1
    }

    fn taken(&self, look: usize) -> Option<Timestamp> {
        (look == 0).then(|| self.now())
    }

    fn seek(&mut self, look: usize) -> Result<bool, collect::Error> {
        Ok(look == 0)
    }
}

/// The messages of a file, one at a time.
struct Messages<R> {
    from: R,
    /// how far it was read
    at: u64,
    /// its length when it was opened
    size: u64,
    buffer: Vec<u8>,
}

/// What comes next in a file.
enum Next<'a> {
    /// a message, its header included
    Message(&'a [u8]),
    /// nothing
    End,
    /// no message that can be told from others, from this byte on
    Foreign(u64),
}

impl<R: BufRead> Messages<R> {
    fn next(&mut self) -> io::Result<Next<'_>> {
        let begin = self.at;
        let left = self.size.saturating_sub(begin);
        if left == 0 {
            return Ok(Next::End);
        }
        self.buffer.clear();
        if !self.fill(HEADER as u64)? {
            return Ok(Next::Foreign(begin));
        }
        let length = self.buffer.first_chunk();
        let length = length.map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        let fits = (HEADER as u32..=LONGEST).contains(&length) && u64::from(length) <= left;
        if !fits || !self.fill(u64::from(length))? {
            return Ok(Next::Foreign(begin));
        }
        // The last message may come without what pads it.
        let padded = u64::from(length.next_multiple_of(ALIGN)).min(left);
        self.fill(padded)?;
        Ok(Next::Message(
            self.buffer.get(..length as usize).unwrap_or_default(),
        ))
    }

    /// Reads on until the buffer holds `length` bytes; `false` if the file ends before.
    fn fill(&mut self, length: u64) -> io::Result<bool> {
        let wanted = length.saturating_sub(self.buffer.len() as u64);
        let read = Read::take(&mut self.from, wanted).read_to_end(&mut self.buffer)?;
        self.at += read as u64;
        Ok(read as u64 == wanted)
    }
}

/// Which dumps a file holds whole.
#[derive(Default)]
struct Halves {
    ipv4: bool,
    ipv6: bool,
    /// how many ended
    ended: u32,
    /// of how many that have no rows
    blank: u32,
    /// of the dump that is read now
    open: bool,
    family: Option<Family>,
}

impl Halves {
    fn row(&mut self, family: Option<Family>) {
        self.open = true;
        self.family = self.family.or(family);
    }

    /// The dump that is read now ends, as it should or not.
    fn end(&mut self, whole: bool) {
        self.ended += 1;
        match self.family.take() {
            Some(Family::Ipv4) => self.ipv4 |= whole,
            Some(Family::Ipv6) => self.ipv6 |= whole,
            // IPv4 comes first.
            None if self.ended > 1 => self.ipv6 |= whole,
            None => self.blank += u32::from(whole),
        }
        self.open = false;
    }

    /// What is missing of the tables in `want`.
    fn missing(mut self, want: &Want) -> Vec<String> {
        let open = self.open.then_some(self.family).flatten();
        if self.blank > 0 && self.ended == 1 && open.is_none() {
            let part = "TCP over IPv4 or over IPv6: the file holds one dump, without a socket";
            return vec![part.to_owned()];
        }
        self.ipv4 |= self.blank > 0;
        let mut missing = Vec::new();
        for table in want.tables() {
            let (whole, family) = match table.family {
                Some(Family::Ipv4) => (self.ipv4, Family::Ipv4),
                _ => (self.ipv6, Family::Ipv6),
            };
            if open == Some(family) {
                missing.push(format!("{}: the recorded dump has no end", table.label()));
            } else if !whole {
                missing.push(format!("{}: not in the file", table.label()));
            }
        }
        missing
    }
}

/// What the rows show of what was asked for.
#[derive(Default)]
struct Shown {
    states: StateSet,
    without_info: bool,
    without_memory: bool,
}

fn replay<R: BufRead>(
    messages: &mut Messages<R>,
    want: &Want,
    row: &mut RowSink<'_>,
) -> io::Result<Coverage> {
    let mut coverage = Coverage {
        collector: Collector::Netlink,
        notes: vec![TIME.to_owned()],
        ..Coverage::default()
    };
    let mut shown = Shown::default();
    let mut halves = Halves::default();
    let mut stream = Stream::new(None);
    loop {
        let at = messages.at;
        let message = match messages.next()? {
            Next::Message(message) => message,
            Next::End => break,
            Next::Foreign(at) => {
                coverage.undecoded += 1;
                coverage.missing.push(format!(
                    "the rest of the file: what begins at byte {at} is cut off, or no netlink message"
                ));
                break;
            }
        };
        if let Some((family, state)) = head(message) {
            halves.row(family);
            shown.states = shown.states.union(StateSet::of(state));
        }
        let progress = stream.feed(message, want, &mut coverage, &mut |found| {
            if let Row::Inet { socket, attributes } = found
                && !socket.is_mini()
            {
                shown.without_info |= attributes.tcp_info.is_none();
                shown.without_memory |= attributes.memory().is_none();
            }
            row(found)
        });
        match progress {
            Progress::More => {}
            Progress::Stopped => return Ok(coverage),
            Progress::Done => {
                halves.end(true);
                stream = Stream::new(None);
            }
            Progress::Failed(error) => {
                let family = halves.family.map(|family| Table::from(family).label());
                coverage.missing.push(format!(
                    "{}: the kernel ended the recorded dump with an error at byte {at}: {error}",
                    family.unwrap_or_else(|| "a part of TCP".to_owned())
                ));
                halves.end(false);
                stream = Stream::new(None);
            }
        }
    }
    coverage.missing.extend(halves.missing(want));
    if want.tcp_info && shown.without_info {
        let part = "tcp_info of some sockets: ss writes it with -i";
        coverage.missing.push(part.to_owned());
    }
    if want.memory && shown.without_memory {
        let part = "memory of some sockets: ss writes it with -m";
        coverage.missing.push(part.to_owned());
    }
    let unseen = TcpState::SHOWN.into_iter().filter(|state| {
        // A closed socket is in no table of the kernel's.
        *state != TcpState::Closed && want.states.contains(*state) && !shown.states.contains(*state)
    });
    coverage.unsure = unseen.fold(StateSet::EMPTY, |set, state| set.union(StateSet::of(state)));
    Ok(coverage)
}

/// Family and state of the socket in a message, also of one that is not wanted.
fn head(message: &[u8]) -> Option<(Option<Family>, TcpState)> {
    let kind = message.get(4..)?.first_chunk()?;
    if !matches!(
        u16::from_ne_bytes(*kind),
        SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK
    ) {
        return None;
    }
    let [family, state] = *message.get(HEADER..)?.first_chunk()?;
    let family = match family {
        2 => Some(Family::Ipv4),
        10 => Some(Family::Ipv6),
        _ => None,
    };
    // As rows have it: what comes as closed is only bound.
    let state = match TcpState::from_kernel(state) {
        TcpState::Closed => TcpState::BoundInactive,
        state => state,
    };
    Some((family, state))
}

#[cfg(test)]
mod tests;
