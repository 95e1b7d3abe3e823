use std::collections::BTreeSet;

use ratatui::layout::{Position, Rect};

use super::super::scenes::{asked, click, find, keeps, keeps_all, nothing, seen, survives, wrong};
use super::drawing::{COMPACT, Drawing, LARGE, StateBox, ascii};
use crate::knowledge::TRANSITIONS;
use crate::model::TcpState;
use crate::tui::keys::Action;
use crate::tui::msg::Msg;
use crate::tui::tabs::TabId;
use crate::tui::testing::{NOON, empty, press, screen};

type Grid = Vec<Vec<char>>;

fn at(grid: &Grid, row: usize, column: usize) -> char {
    let line = grid.get(row);
    line.and_then(|line| line.get(column))
        .copied()
        .unwrap_or(' ')
}

/// A drawing with nothing in its places: the line of an arrow goes on through them.
fn grid(drawing: &Drawing) -> Grid {
    let text = drawing.bare();
    text.lines().map(|line| line.chars().collect()).collect()
}

fn whole(drawing: &Drawing, one: &StateBox) -> Rect {
    let frame = drawing.frame();
    Rect {
        y: one.area.y - frame,
        height: 2 + 2 * frame,
        ..one.area
    }
}

/// Walks along a line from its first cell to every arrow's head, and says at which states they point.
fn follow(
    drawing: &Drawing,
    grid: &Grid,
    from: (usize, usize),
    step: (isize, isize),
) -> Vec<TcpState> {
    let boxes = drawing.boxes();
    let ((mut row, mut column), (mut down, mut right)) = (from, step);
    let mut found = Vec::new();
    for _ in 0..300 {
        match (at(grid, row, column), (down, right)) {
            ('►' | '◄' | '▼', _) => {
                let row = row.wrapping_add_signed(down);
                let column = column.wrapping_add_signed(right);
                let place = Position::new(column.try_into().unwrap(), row.try_into().unwrap());
                let mut hit = boxes
                    .iter()
                    .filter(|one| whole(drawing, one).contains(place));
                let near: String = (0..14)
                    .map(|n| at(grid, row, (column + n).saturating_sub(6)))
                    .collect();
                let closed = near.contains("CLOSED").then_some(TcpState::Closed);
                let state = hit.next().map(|one| one.state).or(closed);
                found.push(state.unwrap_or_else(|| panic!("points at nothing: {row}, {column}")));
                return found;
            }
            ('┐', (0, 1)) | ('┌', (0, -1)) => (down, right) = (1, 0),
            ('┘', (1, 0)) | ('┴', (1, 0)) => (down, right) = (0, -1),
            ('└', (1, 0)) => (down, right) = (0, 1),
            // A second arrow leaves the first.
            ('┬', (0, _)) => {
                let below = follow(drawing, grid, (row + 1, column), (1, 0));
                found.extend(below);
            }
            ('│', (1, 0)) => {}
            // Along a row a label may stand in the line.
            (c, (0, _)) if c == '─' || c == '┴' || c == ' ' || c.is_ascii_graphic() => {}
            (c, _) => panic!("line ends in {c:?} at {row}, {column}"),
        }
        row = row.wrapping_add_signed(down);
        column = column.wrapping_add_signed(right);
    }
    panic!("the line from {from:?} does not end");
}

/// Every arrow of a drawing.
fn arrows(drawing: &Drawing) -> BTreeSet<(TcpState, TcpState)> {
    let grid = grid(drawing);
    let mut drawn = BTreeSet::new();
    for one in drawing.boxes() {
        let area = whole(drawing, &one);
        let (left, right) = (usize::from(area.left()), usize::from(area.right()));
        let mut edge = |from, step| {
            for to in follow(drawing, &grid, from, step) {
                drawn.insert((one.state, to));
            }
        };
        for row in usize::from(one.area.top())..usize::from(one.area.bottom()) {
            if at(&grid, row, right) == '─' {
                edge((row, right), (0, 1));
            }
            if left > 0 && at(&grid, row, left - 1) == '─' {
                edge((row, left - 1), (0, -1));
            }
        }
        let below = usize::from(area.bottom());
        for column in left + 1..right - 1 {
            let leaves = drawing.frame() == 0 || at(&grid, below - 1, column) == '┬';
            if leaves && matches!(at(&grid, below, column), '│' | '▼') {
                edge((below, column), (1, 0));
            }
        }
    }
    // The name of CLOSED stands a second time, before bind().
    let row = grid
        .iter()
        .position(|line| line.iter().collect::<String>().contains("CLOSED ─ bind()"));
    if let Some(row) = row {
        let line: String = grid[row].iter().collect();
        let before = line.split("CLOSED ─").next().unwrap().chars().count();
        for to in follow(drawing, &grid, (row, before + 7), (0, 1)) {
            drawn.insert((TcpState::Closed, to));
        }
    }
    drawn
}

#[test]
fn every_arrow_is_one_of_the_table() {
    for (drawing, number) in [(&LARGE, 20), (&COMPACT, 19)] {
        let drawn = arrows(drawing);
        for (from, to) in &drawn {
            let known = TRANSITIONS
                .iter()
                .any(|arrow| arrow.linux && (arrow.from, arrow.to) == (*from, *to));
            assert!(known, "{from} -> {to}");
        }
        assert_eq!(drawn.len(), number, "{drawn:?}");
    }
    let rare = (TcpState::SynSent, TcpState::SynReceived);
    let mut large = arrows(&LARGE);
    assert!(large.remove(&rare));
    assert_eq!(large, arrows(&COMPACT), "nothing else is left out");
}

#[test]
fn every_state_is_a_box_once() {
    for drawing in [&LARGE, &COMPACT] {
        let grid = grid(drawing);
        let boxes = drawing.boxes();
        let states: BTreeSet<_> = boxes.iter().map(|one| one.state).collect();
        assert_eq!((states.len(), boxes.len()), (12, 12));
        for one in boxes {
            let (row, left) = (usize::from(one.area.y), usize::from(one.area.x));
            let name: String = (1..usize::from(one.area.width) - 1)
                .map(|n| at(&grid, row, left + n))
                .collect();
            assert_eq!(name.trim(), one.state.to_string());
            for row in [row, row + 1] {
                assert_eq!(at(&grid, row, left), '│');
                assert_eq!(at(&grid, row, usize::from(one.area.right()) - 1), '│');
            }
        }
        assert_eq!(grid.len(), usize::from(drawing.height));
        assert!(
            grid.iter()
                .all(|line| line.len() <= usize::from(drawing.width))
        );
    }
}

#[test]
fn every_state_is_reached_by_the_arrow_keys() {
    for drawing in [&LARGE, &COMPACT] {
        let mut reached = BTreeSet::from([TcpState::Established]);
        for _ in 0..12 {
            for from in reached.clone() {
                for action in [Action::Up, Action::Down, Action::Left, Action::Right] {
                    reached.insert(drawing.neighbour(from, action));
                }
            }
        }
        assert_eq!(reached.len(), 12, "{reached:?}");
        let right = |from| drawing.neighbour(from, Action::Right);
        assert_eq!(right(TcpState::Listen), TcpState::Closed);
        assert_eq!(right(TcpState::Closed), TcpState::SynSent);
        assert_eq!(right(TcpState::SynSent), TcpState::SynSent);
        let down = |from| drawing.neighbour(from, Action::Down);
        assert_eq!(down(TcpState::FinWait1), TcpState::FinWait2);
        assert_eq!(down(TcpState::CloseWait), TcpState::LastAck);
    }
}

#[test]
fn it_is_drawn_as_it_was() {
    keeps_all(TabId::Machine);
}

#[test]
fn nothing_that_is_pressed_breaks_it() {
    survives(TabId::Machine);
}

#[test]
fn without_unicode_it_is_ascii() {
    for (size, name) in [((80, 24), "80x24"), ((120, 40), "120x40")] {
        let mut app = empty(size, TabId::Machine);
        app.setup.theme.unicode = false;
        for second in [-61, -1, 0] {
            app.update(Msg::Look(Box::new(wrong(NOON + second))));
        }
        assert!(screen(&app).is_ascii());
        keeps(&format!("machine-{name}-ascii"), &app);
    }
    for drawing in [&LARGE, &COMPACT] {
        assert!(drawing.bare().chars().map(ascii).all(|c| c.is_ascii()));
    }
}

#[test]
fn a_narrow_screen_has_a_list() {
    let mut app = seen((60, 24), TabId::Machine, wrong);
    keeps("machine-60x24", &app);
    press(&mut app, "gjjj");
    let before = find(&app, "> ").unwrap();
    press(&mut app, "j");
    assert_eq!(find(&app, "> ").unwrap().1, before.1 + 1);
}

#[test]
fn counts_signs_and_rates_are_on_the_machine() {
    let text = screen(&seen((80, 24), TabId::Machine, wrong));
    for part in [
        "!!",
        "SYN 7/s",
        "ACK 12/s",
        "≥31/s",
        "60 s 31/s",
        "RST 2/s",
        "failed 14/s",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let text = screen(&seen((80, 24), TabId::Machine, nothing));
    assert!(!text.contains("/s"), "nothing is known:\n{text}");
}

#[test]
fn the_cursor_moves_explains_and_filters() {
    let mut app = seen((200, 50), TabId::Machine, wrong);
    assert!(screen(&app).contains("[ESTABLISHED ]"));
    press(&mut app, "j");
    let effects = press(&mut app, "o");
    assert_eq!(asked(&effects).len(), 1);
    let (column, row) = find(&app, "CLOSE-WAIT").unwrap();
    click(&mut app, column, row);
    let text = screen(&app);
    assert!(text.contains("[ CLOSE-WAIT ]"), "{text}");
    assert!(
        text.contains("The peer has closed; this program has not."),
        "{text}"
    );
    assert_eq!(asked(&press(&mut app, "o")), ["state close-wait"]);
    press(&mut app, "<Enter>");
    let text = screen(&app);
    assert!(text.contains("who ") && text.contains("ground:"), "{text}");
    press(&mut app, "G<Esc>");
    assert!(screen(&app).contains("[ CLOSE-WAIT ]"));
}
