//! Which columns are shown, how wide they are, and where they stand.

use crate::fields::{self, Align, Field};
use crate::render::text;
use crate::tui::theme::Theme;

/// Columns on every screen.
const NARROW: [&str; 7] = [
    "state", "recv-q", "send-q", "local", "peer", "process", "age",
];
/// What screens of 120 columns have beside them.
const WIDE: [&str; 2] = ["timer", "waiting-on"];
/// What screens of 200 columns have beside those. All of it costs no more to collect.
const WIDEST: [&str; 4] = ["user", "unit", "inode", "cookie"];

/// The most that a column takes unasked.
const MOST: usize = 40;
/// The least that text is cut to.
const LEAST: usize = 10;
/// The least that an end of a connection is cut to: its port is still seen.
const LEAST_END: usize = 15;

/// The columns of a screen on which nobody chose any.
pub(super) fn unasked(width: u16) -> Vec<&'static Field> {
    let wide = WIDE.iter().filter(|_| width >= 120);
    let widest = WIDEST.iter().filter(|_| width >= 200);
    let ids = NARROW.iter().chain(wide).chain(widest);
    ids.filter_map(|id| fields::by_id(id).ok()).collect()
}

/// The heading: short, where the name of the column says the rest.
pub(super) fn heading(field: &Field) -> &'static str {
    match field.id {
        "local" => "Local",
        "peer" => "Peer",
        _ => field.header,
    }
}

/// The widest that each column was so far: a column only grows, so that nothing jumps from look to look.
#[derive(Debug, Default)]
pub(super) struct Widths(Vec<(&'static str, usize)>);

impl Widths {
    /// Forgets them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// A cell of the column was so wide.
    pub(super) fn grow(&mut self, field: &Field, width: usize) {
        match self.0.iter_mut().find(|(id, _)| *id == field.id) {
            Some((_, known)) => *known = (*known).max(width),
            None => self.0.push((field.id, width)),
        }
    }

    fn of(&self, field: &Field, sorted: bool) -> usize {
        let known = self.0.iter().find(|(id, _)| *id == field.id);
        let cells = known.map_or(0, |(_, width)| *width).min(MOST);
        cells.max(text::width(heading(field)) + usize::from(sorted))
    }
}

/// A column on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) field: &'static Field,
    pub(super) x: u16,
    pub(super) width: u16,
}

/// The columns that are on the screen.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) placed: Vec<Placed>,
    /// so many are to the right of the screen
    pub(super) behind: usize,
}

/// What a column is never narrower than.
fn least(field: &Field, natural: usize) -> usize {
    match (field.id, field.align) {
        ("local" | "peer", _) => natural.min(LEAST_END),
        ("state", _) | (_, Align::Right) => natural,
        _ => natural.min(LEAST),
    }
}

/// Places columns into `room`: the first `pinned` always, of the others those from the `shift`-th on that fit, cut where
/// all of them fit only so.
pub(super) fn place(
    columns: &[&'static Field],
    (pinned, shift): (usize, usize),
    widths: &Widths,
    sorted: Option<&Field>,
    room: u16,
) -> Shown {
    let (first, rest) = columns.split_at(pinned.min(columns.len()));
    let wanted = first.iter().chain(rest.iter().skip(shift));
    let mut left = usize::from(room);
    // field, what it has, what it would like
    let mut fit: Vec<(&'static Field, usize, usize)> = Vec::new();
    let mut behind = 0;
    for field in wanted {
        let natural = widths.of(field, sorted == Some(*field));
        let least = least(field, natural);
        let gap = usize::from(!fit.is_empty());
        if fit.is_empty() {
            let width = least.min(left);
            fit.push((field, width, natural.min(left)));
            left -= width;
        } else if behind == 0 && least + gap <= left {
            fit.push((field, least, natural));
            left -= least + gap;
        } else {
            behind += 1;
        }
    }
    for (_, width, natural) in &mut fit {
        let more = natural.saturating_sub(*width).min(left);
        *width += more;
        left -= more;
    }
    let mut x = 0u16;
    let mut placed = Vec::new();
    for (field, width, _) in fit {
        let width = u16::try_from(width).unwrap_or(room);
        placed.push(Placed { field, x, width });
        x = x.saturating_add(width).saturating_add(1);
    }
    Shown { placed, behind }
}

/// `text` in `width` columns: cut with a sign where it is longer; of an end of a connection the port is kept.
pub(super) fn cut(cell: &str, width: usize, end: bool, theme: Theme) -> String {
    if text::width(cell) <= width {
        return cell.to_owned();
    }
    let sign = theme.sign("…", "~");
    let room = width.saturating_sub(text::width(sign));
    let tail = if end { (room / 2).min(8) } else { 0 };
    let mut cut = begin(cell.chars(), room - tail);
    if width > 0 {
        cut.push_str(sign);
    }
    let back = begin(cell.chars().rev(), tail);
    cut.extend(back.chars().rev());
    cut
}

/// As many signs as fit.
fn begin(signs: impl Iterator<Item = char>, room: usize) -> String {
    let mut left = room;
    signs
        .take_while(|sign| {
            let wide = text::width(sign.encode_utf8(&mut [0; 4]));
            let fits = wide <= left;
            left = left.saturating_sub(wide);
            fits
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNICODE: Theme = Theme {
        unicode: true,
        colour: false,
    };

    #[test]
    fn a_cut_shows_that_it_is_one_and_keeps_the_port() {
        let short = |text, width, end| cut(text, width, end, UNICODE);
        assert_eq!(short("nginx[901]", 10, false), "nginx[901]");
        assert_eq!(short("nginx[901]", 6, false), "nginx…");
        assert_eq!(
            short("[2001:db8:1111:2222::1]:65535", 15, true),
            "[2001:d…]:65535"
        );
        assert_eq!(short("服务器", 4, false), "服…");
        for width in 0..3 {
            assert!(text::width(&short("[2001:db8::1]:65535", width, true)) <= width);
        }
    }

    #[test]
    fn columns_that_do_not_fit_are_behind_and_the_state_is_whole() {
        let columns = unasked(80);
        let mut widths = Widths::default();
        for (id, width) in [("state", 11), ("local", 21), ("peer", 21), ("process", 30)] {
            widths.grow(fields::by_id(id).unwrap(), width);
        }
        for room in 1..200 {
            for shift in 0..8 {
                let shown = place(&columns, (1, shift), &widths, None, room);
                let state = shown.placed[0];
                assert_eq!((state.field.id, state.width), ("state", room.min(11)));
                let last = shown.placed.last().unwrap();
                assert!(last.x + last.width <= room, "{room} {shift}");
                assert_eq!(shown.placed.len() + shown.behind, 7 - shift.min(6));
            }
        }
        let all = place(&columns, (1, 0), &widths, None, 200);
        assert_eq!(all.placed[5].width, 30, "whole where there is room");
        let narrow = place(&columns, (1, 0), &widths, None, 79);
        assert_eq!(narrow.behind, 0, "cut rather than dropped");
    }
}
