//! The table `/proc/net/unix` (`unix_seq_show` in `net/unix/af_unix.c`). It has neither queues nor limits, and a name
//! is whatever bytes its owner chose; one with a line feed in it breaks its line, and what follows is counted as
//! malformed.

use std::io::{self, BufRead};
use std::ops::ControlFlow;

use super::inet::{decimal, hexadecimal, next_line};
use crate::collect::{Row, RowSink, Want};
use crate::model::{Coverage, Protocol, TcpState, UnixKind, UnixSocket};

/// `__SO_ACCEPTCON` (`include/uapi/asm-generic/socket.h`): the socket listens.
const ACCEPTS: u64 = 1 << 16;

/// Reads the table and pushes what is wanted. `Break` if the sink said so.
///
/// # Errors
/// When reading fails; the rows before that have been pushed.
pub fn table(
    mut reader: impl BufRead,
    want: &Want,
    coverage: &mut Coverage,
    row: &mut RowSink<'_>,
) -> io::Result<ControlFlow<()>> {
    if want.protocol != Protocol::Unix {
        return Ok(ControlFlow::Continue(()));
    }
    let mut line = Vec::new();
    let mut first = true;
    while let Some(whole) = next_line(&mut reader, &mut line)? {
        let header = first && line.starts_with(b"Num ");
        first = false;
        if header {
            continue;
        }
        let Some(socket) = whole.then(|| parse_line(&line)).flatten() else {
            coverage.undecoded += 1;
            continue;
        };
        if want.states.contains(socket.state) && row(Row::Unix(socket)).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Reads one line; `None` if it is malformed. A name is what follows the blank behind the inode.
pub fn parse_line(line: &[u8]) -> Option<UnixSocket<'_>> {
    let mut rest = line.strip_suffix(b"\n").unwrap_or(line);
    let mut word = || {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| *byte == b' ');
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        word
    };
    hexadecimal(word().strip_suffix(b":")?)?; // the address, or 0 for who may not know it
    hexadecimal(word())?; // references
    hexadecimal(word())?; // protocol, always 0
    let flags = hexadecimal(word())?;
    let kind = hexadecimal(word())?;
    let socket_state = hexadecimal(word())?;
    let inode = decimal(word())?;
    let name = rest.strip_prefix(b" ").filter(|name| !name.is_empty());
    Some(UnixSocket {
        cookie: None,
        inode: inode.try_into().ok()?,
        kind: UnixKind::from_kernel(kind.try_into().ok()?),
        // `SS_CONNECTING` 2 and `SS_CONNECTED` 3 (`include/uapi/linux/net.h`). Both are `TCP_ESTABLISHED` to the kernel;
        // the former has no inode, because nobody has accepted it.
        state: match (flags & ACCEPTS != 0, socket_state) {
            (true, _) => TcpState::Listen,
            (_, 2 | 3) => TcpState::Established,
            _ => TcpState::Closed,
        },
        name,
        file: None,
        peer: None,
        waiting: None,
        recv_q: None,
        send_q: None,
        memory: None,
        shutdown: None,
        uid: None,
        netns: 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::StateSet;

    const HEAD: &[u8] = b"Num       RefCount Protocol Flags    Type St Inode Path\n";

    /// State, inode and name.
    type Seen = (TcpState, u32, Option<Vec<u8>>);

    fn read(text: &[u8], states: StateSet) -> (Vec<Seen>, Coverage) {
        let (mut rows, mut coverage) = (Vec::new(), Coverage::default());
        let want = Want {
            states,
            ..Want::all(Protocol::Unix)
        };
        let end = table(text, &want, &mut coverage, &mut |row| {
            if let Row::Unix(socket) = row {
                let name = socket.name.map(<[u8]>::to_vec);
                rows.push((socket.state, socket.inode, name));
            }
            ControlFlow::Continue(())
        });
        assert!(end.unwrap().is_continue());
        (rows, coverage)
    }

    #[test]
    fn names_of_any_bytes_and_states_are_read() {
        let lines: [&[u8]; 4] = [
            b"0000000000000000: 00000002 00000000 00010000 0001 01 19045 /run/a b\xff\n",
            b"0000000000000000: 00000003 00000000 00000000 0001 03  7\n",
            b"0000000000000000: 00000002 00000000 00000000 0002 01 8 @x\n",
            b"0000000000000000: 00000002 00000000 00000000 0001 02 0 /run/a b\xff\n",
        ];
        let text = [HEAD, &lines.concat()].concat();
        let (rows, coverage) = read(&text, StateSet::ALL);
        assert!(coverage.rows_complete(), "{coverage:?}");
        let name = Some(b"/run/a b\xff".to_vec());
        assert_eq!(
            rows,
            [
                (TcpState::Listen, 19045, name.clone()),
                (TcpState::Established, 7, None),
                (TcpState::Closed, 8, Some(b"@x".to_vec())),
                (TcpState::Established, 0, name),
            ]
        );
        let (rows, _) = read(&text, StateSet::of(TcpState::Listen));
        assert_eq!(rows.len(), 1);
    }

    #[test]
    fn a_broken_line_is_counted_and_the_rest_read() {
        let good: &[u8] = b"0: 2 0 10000 1 1 5 /a\n";
        let bad: &[u8] = b"rest of a name: 1\n";
        let (rows, coverage) = read(&[HEAD, good, bad, good].concat(), StateSet::ALL);
        assert_eq!((rows.len(), coverage.undecoded), (2, 1));
        let (rows, coverage) = read(&good[..good.len() - 1], StateSet::ALL);
        assert_eq!((rows.len(), coverage.undecoded), (0, 1), "cut off");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_line(&bytes);
            read(&bytes, StateSet::ALL);
        }
    }
}
