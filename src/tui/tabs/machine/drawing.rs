//! The state machine as two drawings, a large and a compact one, with places for counts and rates.
//!
//! After figure 5 of RFC 9293: opening, open, closing from top to bottom; on the left the side that closes first.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};

use super::rates::Rates;
use crate::model::TcpState;
use crate::model::TcpState::{
    CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived,
    SynSent, TimeWait,
};
use crate::render::text::width;
use crate::tui::draw::put;
use crate::tui::keys::Action;
use crate::tui::tabs::parts::Trouble;
use crate::tui::theme::Theme;

/// A drawing. `{n   }` holds the count of the n-th of [`TcpState::SHOWN`] and stands under the state's name; `{A  }` the
/// rate of an arrow of [`ARROWS`], a capital within the line of the arrow, a small letter beside it; `{f  }`, `{r  }` and
/// `{t  }` what is known of several arrows together.
#[derive(Debug)]
pub struct Drawing {
    text: &'static str,
    /// rows of a box above its name and below its count
    frame: u16,
    /// columns
    pub width: u16,
    /// rows
    pub height: u16,
}

/// Everything, for 35 rows.
pub const LARGE: Drawing = Drawing {
    text: "\
┌────────────┐                  ┌────────────┐                  ┌────────────┐
│   LISTEN   │◄─ listen() ──────│   CLOSED   │─ SYN {A      }──►│  SYN-SENT  │
│{0         }│─ close() {B    }►│{10        }│◄─ close() ───────│{1         }│
└─────┬──────┘                  └─────┬──────┘                  └──┬──────┬──┘
      │ SYN/SYN+ACK                   │ bind()                     │      │
      │ {c      }                     ▼                            │      │
      │                       ┌──────────────┐    both connect at  │      │
      │                       │BOUND-INACTIVE│    once:            │      │
      │                       │{11          }│    SYN/SYN+ACK      │      │
      │                       └──────────────┘    {d      }        │      │
      │    ┌───────────────────────────────────────────────────────┘      │
      ▼    ▼                                                              │
┌────────────┐                  ┌────────────┐                            │
│SYN-RECEIVED│─ ACK {E      }──►│ESTABLISHED │◄─ SYN+ACK/ACK {F      }────┘
│{2         }│                  │{3         }│
└─────┬──────┘                  └──┬──────┬──┘
      │ close()/FIN                │      │
      │    ┌─ close()/FIN {G     }─┘      └─── FIN/ACK {H      }──────┐
      ▼    ▼                                                          ▼
┌────────────┐  this side closes first    the peer closes first ┌────────────┐
│ FIN-WAIT-1 │─ FIN/ACK {I      }─────┐                         │ CLOSE-WAIT │
│{4         }│─ FIN+ACK/ACK ─┐        │                         │{6         }│
└─────┬──────┘               │        │                         └─────┬──────┘
      │ ACK {j      }        │        │                   close()/FIN │
      ▼                      │        ▼                      {k     } ▼
┌────────────┐               │  ┌────────────┐                  ┌────────────┐
│ FIN-WAIT-2 │               │  │  CLOSING   │                  │  LAST-ACK  │
│{5         }│               │  │{7         }│                  │{8         }│
└─────┬──────┘               │  └─────┬──────┘                  └─────┬──────┘
      │ FIN/ACK {l      }    │        │ ACK {m      }             ACK │
      ▼                      │        │                      {n     } ▼
┌────────────┐ {t          } │        │                            CLOSED
│ TIME-WAIT  │◄──────────────┴────────┘
│{9         }│─ 60 s {O      }─► CLOSED       {r                             }
└────────────┘                                {f                             }
",
    frame: 1,
    width: 78,
    height: 35,
};

/// The same without what is rare, for 14 rows.
pub const COMPACT: Drawing = Drawing {
    text: "\
│   LISTEN   │◄─ listen() ──────│   CLOSED   │─ SYN {A      }──►│  SYN-SENT  │
│{0         }│─ close() {B    }►│{10        }│◄─ close() ───────│{1         }│
      ▼ SYN {c      }                         {f                   }  │
│SYN-RECEIVED│─ ACK {E      }──►│ESTABLISHED │◄─ SYN+ACK {F      }────┘
│{2         }│   ┌─{G      }────│{3         }│─{H      }────┐
      ▼ close()  │ close()/FIN   {r           }    FIN/ACK  │
│ FIN-WAIT-1 │◄──┘                                          └──►│ CLOSE-WAIT │
│{4         }│───────┬─ FIN ─┐                                  │{6         }│
      ▼ ACK {j      }│       │                      close() {k      } ▼
│ FIN-WAIT-2 │       │       └─►│  CLOSING   │                  │  LAST-ACK  │
│{5         }│       │ FIN+ACK  │{7         }│                  │{8         }│
      ▼ FIN {l      }│                │ ACK             ACK {n      } ▼
│ TIME-WAIT  │◄──────┴────────────────┘           │BOUND-INACTIVE│ CLOSED
│{9         }│─ 60 s {O      }─► CLOSED ─ bind() ►│{11          }│
",
    frame: 0,
    width: 78,
    height: 14,
};

/// The arrows that have a place for their rate.
const ARROWS: [(char, TcpState, TcpState); 15] = [
    ('A', Closed, SynSent),
    ('B', Listen, Closed),
    ('C', Listen, SynReceived),
    ('D', SynSent, SynReceived),
    ('E', SynReceived, Established),
    ('F', SynSent, Established),
    ('G', Established, FinWait1),
    ('H', Established, CloseWait),
    ('I', FinWait1, Closing),
    ('J', FinWait1, FinWait2),
    ('K', CloseWait, LastAck),
    ('L', FinWait2, TimeWait),
    ('M', Closing, TimeWait),
    ('N', LastAck, Closed),
    ('O', TimeWait, Closed),
];

/// A box: the state and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateBox {
    /// which state
    pub state: TcpState,
    /// name and count, with the signs left and right of them
    pub area: Rect,
}

/// What is drawn on the machine.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// sockets by state in the order of [`TcpState::SHOWN`]; `None` where they cannot be seen
    pub counts: &'a [Option<u64>; TcpState::SHOWN.len()],
    /// what is wrong with them
    pub troubles: &'a [Trouble; TcpState::SHOWN.len()],
    /// how often arrows are taken
    pub rates: &'a Rates,
    /// the state that is chosen
    pub chosen: TcpState,
    /// how the terminal shows things
    pub theme: Theme,
}

/// A count in `room` columns: cut off to thousands or millions where it is too long.
fn number(count: Option<u64>, room: usize) -> String {
    let Some(n) = count else {
        return "?".to_owned();
    };
    let full = crate::model::words::thousands(n);
    let short = [(1_000, 'k'), (1_000_000, 'M'), (1_000_000_000, 'G')];
    let short = short.map(|(unit, letter)| format!("{}{letter}", n / unit));
    std::iter::once(full)
        .chain(short)
        .find(|text| text.len() <= room)
        .unwrap_or_else(|| "many".to_owned())
}

/// A rate within the line of its arrow, or the line where there is none.
fn in_line(text: Option<String>, room: usize, tight: bool) -> String {
    let blank = if tight { " " } else { "" };
    let text = text.map(|text| format!("{blank}{text} "));
    let text = text
        .map(|text| {
            if width(&text) > room {
                text.trim_end().to_owned()
            } else {
                text
            }
        })
        .filter(|text| width(text) <= room)
        .unwrap_or_default();
    let line = "─".repeat(room.saturating_sub(width(&text)));
    format!("{text}{line}")
}

/// The first of several texts that fits, filled up with blanks.
fn beside(texts: &[Option<String>], room: usize) -> String {
    let mut fitting = texts.iter().flatten();
    let text = fitting.find(|text| width(text) <= room);
    let mut text = text.cloned().unwrap_or_default();
    text.push_str(&" ".repeat(room.saturating_sub(width(&text))));
    text
}

/// What a terminal without Unicode draws instead.
pub fn ascii(c: char) -> char {
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

impl Drawing {
    /// Where each state stands, from the upper left corner of the drawing.
    pub fn boxes(&self) -> Vec<StateBox> {
        let mut boxes = Vec::new();
        for (row, line) in (0u16..).zip(self.text.lines()) {
            let (mut column, mut rest) = (0, line);
            while let Some((before, behind)) = rest.split_once('{') {
                let (name, behind) = behind.split_once('}').unwrap_or((behind, ""));
                let from = column + width(before);
                let inner = width(name) + 2;
                column = from + inner;
                rest = behind;
                let index = name.trim().parse::<usize>().ok();
                let state = index.and_then(|index| TcpState::SHOWN.get(index));
                let left = u16::try_from(from.saturating_sub(1));
                let columns = u16::try_from(inner + 2);
                if let (Some(state), Ok(left), Ok(columns)) = (state, left, columns) {
                    boxes.push(StateBox {
                        state: *state,
                        area: Rect::new(left, row.saturating_sub(1), columns, 2),
                    });
                }
            }
        }
        boxes
    }

    /// The state in the box at a place.
    pub fn at(&self, place: Position) -> Option<TcpState> {
        let grown = |area: Rect| Rect {
            y: area.y.saturating_sub(self.frame),
            height: area.height + 2 * self.frame,
            ..area
        };
        let boxes = self.boxes();
        let mut hit = boxes.iter().filter(|one| grown(one.area).contains(place));
        hit.next().map(|one| one.state)
    }

    /// The nearest state in a direction; the same one where there is none.
    pub fn neighbour(&self, from: TcpState, action: Action) -> TcpState {
        let boxes = self.boxes();
        let Some(here) = boxes.iter().find(|one| one.state == from) else {
            return from;
        };
        let centre = |area: Rect| {
            let twice = |at: u16, size: u16| 2 * i32::from(at) + i32::from(size);
            (twice(area.x, area.width), twice(area.y, area.height))
        };
        let (x, y) = centre(here.area);
        let ahead = boxes.iter().filter_map(|one| {
            let (other_x, other_y) = centre(one.area);
            // A cell is about twice as high as it is wide.
            let (right, down) = (other_x - x, 2 * (other_y - y));
            let (along, across) = match action {
                Action::Up => (-down, right),
                Action::Down => (down, right),
                Action::Left => (-right, down),
                Action::Right => (right, down),
                _ => return None,
            };
            (along > 0).then_some((along + 3 * across.abs(), one.state))
        });
        ahead
            .min_by_key(|(far, _)| *far)
            .map_or(from, |(_, state)| state)
    }

    /// A line with the places filled.
    fn filled(&self, line: &str, shown: &Shown<'_>) -> String {
        let mut text = String::with_capacity(line.len());
        let mut rest = line;
        while let Some((before, behind)) = rest.split_once('{') {
            text.push_str(before);
            let (name, behind) = behind.split_once('}').unwrap_or((behind, ""));
            let tight = before.ends_with('─');
            text.push_str(&self.place(name.trim(), width(name) + 2, tight, shown));
            rest = behind;
        }
        text.push_str(rest);
        text
    }

    fn place(&self, name: &str, room: usize, tight: bool, shown: &Shown<'_>) -> String {
        let theme = shown.theme;
        if let Ok(index) = name.parse::<usize>() {
            let trouble = shown.troubles.get(index).copied().unwrap_or_default();
            let sign = trouble.sign();
            let room_left = room.saturating_sub(width(&sign) + usize::from(!sign.is_empty()));
            let count = number(shown.counts.get(index).copied().flatten(), room_left);
            let text = format!("{count} {sign}");
            return format!("{:^room$}", text.trim_end());
        }
        let letter = name.chars().next().unwrap_or(' ');
        match letter {
            'r' => {
                let rate = shown.rates.reset.and_then(|rate| rate.text(theme));
                let long = rate.as_ref().map(|rate| format!("RST to CLOSED {rate}"));
                let short = rate.map(|rate| format!("RST {rate}"));
                beside(&[long, short], room)
            }
            'f' => {
                let rate = shown.rates.failed.and_then(|rate| rate.text(theme));
                let long = rate
                    .as_ref()
                    .map(|rate| format!("handshakes failed {rate}"));
                let short = rate.map(|rate| format!("failed {rate}"));
                beside(&[long, short], room)
            }
            't' => {
                let ended = shown.rates.ended;
                let rate = super::parts::rate(ended, super::SECOND, false, theme);
                beside(&[rate.map(|rate| format!("{rate} enter"))], room)
            }
            letter => {
                let arrow = ARROWS
                    .iter()
                    .find(|(name, ..)| *name == letter.to_ascii_uppercase());
                let rate = arrow.and_then(|(_, from, to)| shown.rates.of(*from, *to));
                let text = rate.and_then(|rate| rate.text(theme));
                if letter.is_ascii_uppercase() {
                    in_line(text, room, tight)
                } else {
                    beside(&[text], room)
                }
            }
        }
    }

    /// Draws the machine into the upper left corner of `area`.
    pub fn draw(&self, area: Rect, buffer: &mut Buffer, shown: &Shown<'_>) {
        for (y, line) in (area.y..area.bottom()).zip(self.text.lines()) {
            let mut text = self.filled(line, shown);
            if !shown.theme.unicode {
                text = text.chars().map(ascii).collect();
            }
            let line = Rect::new(area.x, y, area.width, 1);
            put(buffer, line, &text, ratatui::style::Style::new());
        }
        for one in self.boxes() {
            let at = Rect {
                x: area.x + one.area.x,
                y: area.y + one.area.y,
                ..one.area
            };
            let name = Rect::new(at.x + 1, at.y, at.width.saturating_sub(2), 1);
            let count = Rect {
                y: at.y + 1,
                ..name
            };
            let index = one.state.index().unwrap_or(usize::MAX);
            let (theme, chosen) = (shown.theme, one.state == shown.chosen);
            let trouble = shown.troubles.get(index).copied().unwrap_or_default();
            let mut style = theme.strong();
            if chosen {
                style = theme.chosen();
                // Not only by the style.
                put(
                    buffer,
                    Rect { width: 1, ..at }.intersection(area),
                    "[",
                    style,
                );
                let right = Rect::new(at.right().saturating_sub(1), at.y, 1, 1);
                put(buffer, right.intersection(area), "]", style);
            }
            buffer.set_style(name.intersection(area), style);
            if let Some(severity) = trouble.worst {
                style = theme.severity(severity);
            }
            buffer.set_style(count.intersection(area), style);
        }
    }

    /// The rows of a box above its name and below its count.
    #[cfg(test)]
    pub const fn frame(&self) -> u16 {
        self.frame
    }

    /// The drawing with nothing in its places.
    #[cfg(test)]
    pub fn bare(&self) -> String {
        let shown = Shown {
            counts: &[Some(0); TcpState::SHOWN.len()],
            troubles: &[Trouble::default(); TcpState::SHOWN.len()],
            rates: &Rates::default(),
            chosen: Closed,
            theme: Theme {
                unicode: true,
                colour: false,
            },
        };
        let lines = self.text.lines();
        lines
            .map(|line| format!("{}\n", self.filled(line, &shown).trim_end()))
            .collect()
    }
}
