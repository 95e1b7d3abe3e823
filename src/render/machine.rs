//! The TCP state machine as a drawing, with the sockets of this host on it.

use crate::knowledge::transitions::successors;
use crate::model::TcpState;
use crate::model::words::thousands;
use crate::render::text::wrap;

/// The drawing's width in columns; a terminal that has less gets a list.
pub const WIDTH: usize = 78;

/// Figure 5 of RFC 9293, top to bottom: opening, open, closing; on the left the side that closes first. A cell `{n}`
/// of twelve columns holds the count of the n-th of [`TcpState::SHOWN`].
const DRAWING: &str = "\
┌────────────┐                  ┌────────────┐                  ┌────────────┐
│   LISTEN   │◄─ listen() ──────│   CLOSED   │─ connect()/SYN ─►│  SYN-SENT  │
│{0         }│─ close() ───────►│{10        }│◄─ close() ───────│{1         }│
└─────┬──────┘                  └────────────┘                  └──┬──────┬──┘
      │ SYN/SYN+ACK                         both connect at once:  │      │
      │    ┌────────────────────────────────── SYN/SYN+ACK ────────┘      │
      ▼    ▼                                                              │
┌────────────┐                  ┌────────────┐                            │
│SYN-RECEIVED│─ ACK ───────────►│ESTABLISHED │◄─ SYN+ACK/ACK ─────────────┘
│{2         }│                  │{3         }│
└─────┬──────┘                  └──┬──────┬──┘
      │ close()/FIN                │      │
      │    ┌─────── close()/FIN ───┘      └──────── FIN/ACK ──────────┐
      ▼    ▼                                                          ▼
┌────────────┐  this side closes first   the peer closes first  ┌────────────┐
│ FIN-WAIT-1 │─ FIN/ACK ──────────────┐                         │ CLOSE-WAIT │
│{4         }│─ FIN+ACK/ACK ─┐        │                         │{6         }│
└─────┬──────┘               │        │                         └─────┬──────┘
      │ ACK                  │        │                   close()/FIN │
      ▼                      │        ▼                               ▼
┌────────────┐               │  ┌────────────┐                  ┌────────────┐
│ FIN-WAIT-2 │               │  │  CLOSING   │                  │  LAST-ACK  │
│{5         }│               │  │{7         }│                  │{8         }│
└─────┬──────┘               │  └─────┬──────┘                  └─────┬──────┘
      │ FIN/ACK              │        │ ACK                       ACK │
      ▼                      │        │                               ▼
┌────────────┐               │        │                            CLOSED
│ TIME-WAIT  │◄──────────────┴────────┘
│{9         }│─ 60 s ─► CLOSED
└────────────┘
";

const LEGEND: [&str; 4] = [
    "SYN/SYN+ACK: a SYN comes in, SYN+ACK goes out. ACK: of our SYN or FIN.",
    "FIN+ACK: a FIN that acknowledges ours. close(): or shutdown(SHUT_WR).",
    "A listener stays in LISTEN, each SYN makes a new socket. Not drawn: a RST or",
    "a time-out takes any connection to CLOSED.",
];

/// Draws the state machine with a count on each state, in the order of [`TcpState::SHOWN`]; without counts, the bare
/// machine. Needs [`WIDTH`] columns; a narrower terminal gets the states and what follows each as a list.
pub fn draw(counts: Option<&[u64; 12]>, unicode: bool, width: usize) -> String {
    let text = if width < WIDTH {
        list(counts, width)
    } else {
        drawing(counts)
    };
    if unicode {
        text
    } else {
        text.chars().map(ascii).collect()
    }
}

fn count_of(state: TcpState, counts: Option<&[u64; 12]>) -> Option<u64> {
    counts?.get(state.index()?).copied()
}

/// A count that fits into a box.
fn fitting(count: u64) -> String {
    let text = thousands(count);
    if text.len() > 12 {
        "very many".into()
    } else {
        text
    }
}

fn drawing(counts: Option<&[u64; 12]>) -> String {
    let mut text = String::from(DRAWING);
    for (index, state) in TcpState::SHOWN.into_iter().enumerate() {
        let shown = count_of(state, counts).map(fitting).unwrap_or_default();
        text = text.replace(&format!("{{{index:<10}}}"), &format!("{shown:^12}"));
    }
    text.push('\n');
    for line in LEGEND {
        text.push_str(line);
        text.push('\n');
    }
    let count = count_of(TcpState::BoundInactive, counts)
        .map(|count| format!(" {}", fitting(count)))
        .unwrap_or_default();
    text.push_str(&format!(
        "BOUND-INACTIVE{count}: has a port and nothing else; Linux only, not drawn.\n"
    ));
    text
}

fn list(counts: Option<&[u64; 12]>, width: usize) -> String {
    let mut text = String::new();
    for state in TcpState::SHOWN {
        let name = state.name().unwrap_or_default();
        let mut line = format!("{name:<14}");
        if let Some(count) = count_of(state, counts) {
            line.push_str(&format!(" {:>9}", thousands(count)));
        }
        let next: Vec<_> = successors(state).filter_map(TcpState::name).collect();
        if !next.is_empty() {
            let indent = line.len() + 4;
            line.push_str("  ► ");
            line.push_str(&wrap(&next.join(", "), width, indent));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn ascii(c: char) -> char {
    match c {
        '─' => '-',
        '│' => '|',
        '┌' | '┐' | '└' | '┘' | '┬' | '┴' => '+',
        '►' => '>',
        '◄' => '<',
        '▼' => 'v',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knowledge::{Cause, TRANSITIONS};
    use std::collections::BTreeSet;

    const COUNTS: [u64; 12] = [21, 14, 3, 9_871, 2, 40, 604, 0, 1, 1_902, 7, 5];

    fn grid(text: &str) -> Vec<Vec<char>> {
        text.lines().map(|line| line.chars().collect()).collect()
    }

    fn at(grid: &[Vec<char>], row: usize, column: usize) -> char {
        grid.get(row)
            .and_then(|line| line.get(column))
            .copied()
            .unwrap_or(' ')
    }

    /// The boxes: the state, and the row and column of the upper left corner.
    fn boxes(grid: &[Vec<char>]) -> Vec<(TcpState, usize, usize)> {
        let mut found = Vec::new();
        for (row, line) in grid.iter().enumerate() {
            for (column, corner) in line.iter().enumerate() {
                if *corner == '┌' && at(grid, row + 3, column) == '└' {
                    let name: String = (1..13).map(|n| at(grid, row + 1, column + n)).collect();
                    if let Some(state) = TcpState::parse(name.trim()) {
                        found.push((state, row, column));
                    }
                }
            }
        }
        found
    }

    /// Walks along a line from its first cell to the arrow's head, and says which state it points at.
    fn follow(grid: &[Vec<char>], from: (usize, usize), step: (isize, isize)) -> Option<TcpState> {
        let boxes = boxes(grid);
        let inside = |row: usize, column: usize| {
            boxes
                .iter()
                .find(|(_, top, left)| {
                    (*top..top + 4).contains(&row) && (*left..left + 14).contains(&column)
                })
                .map(|(state, ..)| *state)
        };
        let ((mut row, mut column), (mut down, mut right)) = (from, step);
        for _ in 0..200 {
            let here = at(grid, row, column);
            (down, right) = match (here, (down, right)) {
                ('►' | '◄' | '▼', _) => {
                    let (row, column) = (
                        row.wrapping_add_signed(down),
                        column.wrapping_add_signed(right),
                    );
                    let line: String = grid[row]
                        .iter()
                        .skip(column.saturating_sub(5))
                        .take(12)
                        .collect();
                    return inside(row, column)
                        .or(line.contains("CLOSED").then_some(TcpState::Closed));
                }
                ('┐', (0, 1)) => (1, 0),
                ('┘', (1, 0)) | ('┴', (1, 0)) => (0, -1),
                ('└', (1, 0)) => (0, 1),
                ('┌', (0, -1)) => (1, 0),
                ('│', (1, 0)) => (1, 0),
                // Along a row a label may stand in the line.
                (c, (0, _)) if c == '─' || c == '┴' || c == ' ' || c.is_ascii_graphic() => {
                    (0, right)
                }
                (c, _) => panic!("line ends in {c:?} at {row}, {column}"),
            };
            row = row.wrapping_add_signed(down);
            column = column.wrapping_add_signed(right);
        }
        None
    }

    #[test]
    fn the_arrows_are_those_of_the_table() {
        let grid = grid(&draw(None, true, 80));
        let mut drawn = BTreeSet::new();
        for (state, row, column) in boxes(&grid) {
            let mut edge = |from, step| {
                drawn.insert((state, follow(&grid, from, step).unwrap()));
            };
            for side in [row + 1, row + 2] {
                if at(&grid, side, column + 14) == '─' {
                    edge((side, column + 14), (0, 1));
                }
                if column > 0 && at(&grid, side, column - 1) == '─' {
                    edge((side, column - 1), (0, -1));
                }
            }
            for n in 1..13 {
                if at(&grid, row + 3, column + n) == '┬' {
                    edge((row + 4, column + n), (1, 0));
                }
            }
        }
        let bound = |state| state == TcpState::BoundInactive;
        let table: BTreeSet<_> = TRANSITIONS
            .iter()
            .filter(|arrow| arrow.linux && !bound(arrow.from) && !bound(arrow.to))
            // What the legend says of all states is not drawn for each: RST, abort, time-out.
            .filter(|arrow| {
                arrow.to != TcpState::Closed
                    || matches!(
                        arrow.from,
                        TcpState::Listen | TcpState::LastAck | TcpState::TimeWait
                    )
                    || (arrow.from, arrow.cause) == (TcpState::SynSent, Cause::Call)
            })
            .map(|arrow| (arrow.from, arrow.to))
            .collect();
        assert_eq!(drawn, table);
        assert_eq!(drawn.len(), 19);
    }

    #[test]
    fn every_documented_state_is_a_box_once() {
        let states: Vec<_> = boxes(&grid(&draw(Some(&COUNTS), true, 80)))
            .into_iter()
            .map(|(state, ..)| state)
            .collect();
        for state in TcpState::SHOWN {
            let times = states.iter().filter(|other| **other == state).count();
            assert_eq!(
                times,
                usize::from(state != TcpState::BoundInactive),
                "{state}"
            );
        }
    }

    #[test]
    fn each_count_stands_under_its_name() {
        let grid = grid(&draw(Some(&COUNTS), true, 80));
        for (state, row, column) in boxes(&grid) {
            let cell: String = (1..13).map(|n| at(&grid, row + 2, column + n)).collect();
            let expected = thousands(COUNTS[state.index().unwrap()]);
            assert_eq!(cell.trim(), expected, "{state}");
        }
        let text = draw(Some(&COUNTS), true, 80);
        assert!(text.contains("BOUND-INACTIVE 5: "));
    }

    #[test]
    fn it_fits_whatever_the_counts_are() {
        for counts in [[0; 12], [9_999_999; 12], [u64::MAX; 12]] {
            for unicode in [true, false] {
                let text = draw(Some(&counts), unicode, 80);
                let shape = draw(None, unicode, 80);
                for line in text.lines() {
                    assert!(line.chars().count() <= WIDTH, "{line}");
                    assert!(!line.contains(['{', '}']), "{line}");
                }
                assert_eq!(text.lines().count(), shape.lines().count());
            }
        }
        assert!(draw(Some(&[9_999_999; 12]), true, 80).contains("│ 9,999,999  │"));
    }

    #[test]
    fn without_unicode_it_is_the_same_drawing_in_ascii() {
        for width in [40, 80] {
            let (rich, plain) = (
                draw(Some(&COUNTS), true, width),
                draw(Some(&COUNTS), false, width),
            );
            assert!(plain.is_ascii() && !rich.is_ascii());
            assert_eq!(rich.chars().count(), plain.len());
        }
        assert!(draw(None, false, 80).contains("|SYN-RECEIVED|- ACK ----------->|ESTABLISHED |"));
    }

    #[test]
    fn a_narrow_terminal_gets_a_list() {
        let text = draw(Some(&COUNTS), false, 77);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 12);
        assert_eq!(
            lines[4],
            "FIN-WAIT-1             2  > FIN-WAIT-2, CLOSING, TIME-WAIT"
        );
        assert_eq!(lines[8], "LAST-ACK               1");
        let bare = draw(None, true, 77);
        assert_eq!(bare.lines().nth(8), Some("LAST-ACK"));
        let narrow = draw(Some(&COUNTS), false, 44);
        assert!(narrow.lines().all(|line| line.len() <= 44), "{narrow}");
    }
}
