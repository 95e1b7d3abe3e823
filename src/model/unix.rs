//! UNIX sockets: those of this host alone.

use std::num::NonZeroU64;

use super::socket::Memory;
use super::state::TcpState;

/// How a UNIX socket carries data (`SOCK_STREAM`, ...).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnixKind {
    /// a stream of bytes
    Stream,
    /// datagrams
    Datagram,
    /// a connection of datagrams
    Seqpacket,
    /// a number that no kernel known to this program uses
    Unknown(u8),
}

impl UnixKind {
    /// The kind with the kernel's number.
    pub const fn from_kernel(number: u8) -> Self {
        match number {
            1 => Self::Stream,
            2 => Self::Datagram,
            5 => Self::Seqpacket,
            other => Self::Unknown(other),
        }
    }

    /// The name in tables, as ss has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stream => "u_str",
            Self::Datagram => "u_dgr",
            Self::Seqpacket => "u_seq",
            Self::Unknown(_) => "u_???",
        }
    }
}

/// The name of a UNIX socket: a path, or a NUL and an abstract name, in any bytes. Not safe to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// The name that the kernel tells; `None` where there is none.
    pub fn new(name: &'a [u8]) -> Option<Self> {
        let is_abstract = name.first() == Some(&0);
        // A path ends with its NUL, which some programs count in.
        let end = match name.iter().rposition(|byte| *byte != 0) {
            _ if is_abstract => name.len(),
            Some(last) => last + 1,
            None => 0,
        };
        let name = name.get(..end).filter(|name| !name.is_empty())?;
        Some(Self(name))
    }

    /// Whether it is no path.
    pub fn is_abstract(self) -> bool {
        self.0.first() == Some(&0)
    }

    /// Its text with `@` for the NUL of an abstract name and for those within it, as in `/proc/net/unix`, and each run of
    /// bytes that are no UTF-8.
    pub fn pieces(self) -> impl Iterator<Item = Result<char, &'a [u8]>> + Clone {
        self.0.utf8_chunks().flat_map(|chunk| {
            let valid = chunk
                .valid()
                .chars()
                .map(|c| Ok(if c == '\0' { '@' } else { c }));
            let invalid = chunk.invalid();
            valid.chain((!invalid.is_empty()).then_some(Err(invalid)))
        })
    }

    /// Its text, lossy where it is no UTF-8.
    pub fn chars(self) -> impl Iterator<Item = char> + Clone + use<'a> {
        self.pieces().map(|piece| piece.unwrap_or('\u{fffd}'))
    }
}

/// One UNIX socket (`struct unix_diag_msg`, `include/uapi/linux/unix_diag.h`). Borrows the message it came in; what the
/// source does not have is absent.
#[derive(Clone, Copy, Debug)]
pub struct UnixSocket<'a> {
    /// the kernel's identity of the socket; `/proc` has none
    pub cookie: Option<NonZeroU64>,
    /// the socket's inode; 0 while it waits for `accept`
    pub inode: u32,
    /// how it carries data
    pub kind: UnixKind,
    /// LISTEN, ESTABLISHED, or CLOSED for one without a peer. A connection that waits for `accept` is ESTABLISHED like
    /// one of TCP; only `/proc/net/unix` shows it
    pub state: TcpState,
    /// `UNIX_DIAG_NAME`: a path, or a NUL and an abstract name, in any bytes
    pub name: Option<&'a [u8]>,
    /// `UNIX_DIAG_VFS`: device and inode of the path
    pub file: Option<(u32, u32)>,
    /// `UNIX_DIAG_PEER`: the peer's inode
    pub peer: Option<u32>,
    /// `UNIX_DIAG_ICONS`: inodes of the clients that wait for `accept`, four bytes each
    pub waiting: Option<&'a [u8]>,
    /// `UNIX_DIAG_RQLEN`: for LISTEN the connections that wait; else the bytes to read, of a datagram socket those of
    /// its first datagram alone
    pub recv_q: Option<u32>,
    /// `UNIX_DIAG_RQLEN`: for LISTEN the limit of what may wait; else the bytes sent that the peer has not read
    pub send_q: Option<u32>,
    /// `UNIX_DIAG_MEMINFO`
    pub memory: Option<&'a [u8]>,
    /// `UNIX_DIAG_SHUTDOWN`: bit 0 receiving, bit 1 sending was shut down
    pub shutdown: Option<u8>,
    /// `UNIX_DIAG_UID` (Linux 5.1)
    pub uid: Option<u32>,
    /// which network namespace of the source, see [`super::Socket::netns`]
    pub netns: u16,
}

impl UnixSocket<'_> {
    /// The memory, if it was asked for and came whole.
    pub fn memory(&self) -> Option<Memory> {
        self.memory.and_then(Memory::parse)
    }
}

/// A UNIX socket as a snapshot keeps it: one that listens, or a datagram socket with a name or with unread data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// the kernel's identity of the socket
    pub cookie: Option<NonZeroU64>,
    /// its inode
    pub inode: u32,
    /// how it carries data
    pub kind: UnixKind,
    /// LISTEN, or the state of a datagram socket
    pub state: TcpState,
    /// its name for people, an abstract one with `@` in front; hostile bytes, made UTF-8 lossily, not yet made safe to
    /// print. Absent where it has none
    pub name: Option<String>,
    /// see [`UnixSocket::recv_q`]
    pub recv_q: Option<u32>,
    /// see [`UnixSocket::send_q`]
    pub send_q: Option<u32>,
    /// of the clients that wait for `accept`, those that have not given up
    pub clients: Option<u32>,
    /// the owner's uid
    pub uid: Option<u32>,
}

impl Local {
    /// What a snapshot keeps of the socket; `None` for one that no detector asks for.
    pub fn new(socket: &UnixSocket<'_>) -> Option<Self> {
        let listens = socket.state == TcpState::Listen;
        let receives = socket.kind == UnixKind::Datagram
            && (socket.name.is_some() || socket.recv_q.is_some_and(|bytes| bytes > 0));
        (listens || receives).then(|| Self {
            cookie: socket.cookie,
            inode: socket.inode,
            kind: socket.kind,
            state: socket.state,
            name: socket.name.map(shown),
            recv_q: socket.recv_q,
            send_q: socket.send_q,
            clients: socket.waiting.map(alive),
            uid: socket.uid,
        })
    }
}

/// How many of the inodes are not 0, which stands for a client that has closed its end.
fn alive(waiting: &[u8]) -> u32 {
    let inodes = waiting.chunks_exact(size_of::<u32>());
    let alive = inodes.filter(|inode| inode.iter().any(|byte| *byte != 0));
    u32::try_from(alive.count()).unwrap_or(u32::MAX)
}

/// A name for people: `@` stands for the NUL of an abstract one, and for those within it, as in `/proc/net/unix`.
pub fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    match text.strip_prefix('\0') {
        Some(abstract_name) => format!("@{}", abstract_name.replace('\0', "@")),
        // A path ends with its NUL, which some programs count in.
        None => text.trim_end_matches('\0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_as_it_is_shown() {
        let hostile: &[&[u8]] = &[
            b"/run/x\0",
            b"\0abs\0\xff",
            b"\0",
            b"a\xc3",
            b"@x",
            b"\xff\xfe/y\n",
        ];
        for bytes in hostile {
            let name = Name::new(bytes).unwrap();
            assert_eq!(name.chars().collect::<String>(), shown(bytes), "{bytes:?}");
            assert_eq!(name.is_abstract(), bytes[0] == 0);
        }
        assert_eq!(Name::new(b""), None);
    }

    #[test]
    fn names_are_shown_with_what_they_have() {
        assert_eq!(shown(b"/run/x\0"), "/run/x");
        assert_eq!(shown(b"\0abs\0\xff"), "@abs@\u{fffd}");
        assert_eq!(shown(b""), "");
    }

    #[test]
    fn a_snapshot_keeps_listeners_and_datagram_sockets() {
        let socket = UnixSocket {
            cookie: None,
            inode: 1,
            kind: UnixKind::Stream,
            state: TcpState::Established,
            name: Some(b"/run/x"),
            file: None,
            peer: None,
            waiting: None,
            recv_q: Some(1),
            send_q: Some(0),
            memory: None,
            shutdown: None,
            uid: None,
            netns: 0,
        };
        assert_eq!(Local::new(&socket), None);
        let listener = UnixSocket {
            state: TcpState::Listen,
            ..socket
        };
        let kept = Local::new(&listener).unwrap();
        assert_eq!(kept.name.as_deref(), Some("/run/x"));
        assert_eq!((kept.recv_q, kept.clients), (Some(1), None));
        let two = [5u32.to_ne_bytes(), 0u32.to_ne_bytes()].concat();
        let listener = UnixSocket {
            waiting: Some(&two),
            ..listener
        };
        let kept = Local::new(&listener).unwrap();
        assert_eq!(kept.clients, Some(1), "the other has closed its end");
        let datagram = UnixSocket {
            kind: UnixKind::Datagram,
            ..socket
        };
        assert!(Local::new(&datagram).is_some());
        let sender = UnixSocket {
            name: None,
            recv_q: Some(0),
            ..datagram
        };
        assert_eq!(Local::new(&sender), None);
    }
}
