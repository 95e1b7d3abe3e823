//! Whole frames, as a terminal has them.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;

use super::*;
use crate::tui::tabs::scenes::{keeps_text, nothing};
use crate::tui::{draw, page};

/// What a terminal shows, and where its cursor stands if it is seen.
fn shown(app: &App) -> (Buffer, Option<(u16, u16)>) {
    let (columns, rows) = app.setup.size;
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let mut at = None;
    terminal
        .draw(|frame| {
            at = draw(app, frame.buffer_mut());
            if let Some(at) = at {
                frame.set_cursor_position(at);
            }
        })
        .unwrap();
    (
        terminal.backend().buffer().clone(),
        at.map(|at| (at.x, at.y)),
    )
}

fn keeps(name: &str, app: &App) {
    let (columns, rows) = app.setup.size;
    let text = page::text(&shown(app).0, false);
    keeps_text(&format!("frame-{name}-{columns}x{rows}"), &text);
}

#[test]
fn every_tab() {
    for tab in TabId::ALL {
        for size in [(80, 24), (120, 40), (200, 50), (40, 10), (39, 9)] {
            let name = if size == (39, 9) { "small" } else { tab.slug() };
            keeps(name, &seen(size, tab, wrong));
        }
    }
}

#[test]
fn what_is_open_over_a_tab() {
    for size in [SIZE, (40, 10)] {
        let mut app = seen(size, TabId::Sockets, wrong);
        press(&mut app, "?");
        keeps("help", &app);
        press(&mut app, "<Esc>/");
        keeps("prompt", &app);
        press(&mut app, "state foo and sport = :443<Enter>");
        keeps("error", &app);
        press(&mut app, "<Esc>s");
        keeps("menu", &app);
        press(&mut app, "<Esc>c");
        keeps("columns", &app);
        press(&mut app, "<Esc><Down><Down><Down><Down><Down><Down><Down>K");
        keeps("kill", &app);
        press(&mut app, "yes");
        let typed = shown(&app).1.unwrap();
        assert!(typed.0 < size.0 && typed.1 == size.1 - 2, "{typed:?}");
        press(&mut app, "<Esc>b<Down><Down><Enter>K");
        keeps("kill-group", &app);
    }
}

#[test]
fn what_is_said_around_a_tab() {
    for size in [SIZE, (40, 10)] {
        let mut fresh = empty(size, TabId::Overview);
        keeps("first", &fresh);
        let why = "cannot ask the kernel for its sockets: Operation not permitted; /proc/net/tcp cannot be read either";
        fresh.update(Msg::Failed(why.to_owned()));
        keeps("failed", &fresh);
        let mut paused = seen(size, TabId::Findings, wrong);
        press(&mut paused, " ");
        keeps("paused", &paused);
        keeps("replay", &recorded(size, TabId::Sockets));
    }
}

#[test]
fn that_something_is_missing_is_said_whatever_the_host_is_called() {
    for columns in [40, 50, 80, 120] {
        for name in [
            "a",
            "ip-10-0-0-1.eu-central-1.compute.internal",
            "日本語のホスト",
        ] {
            let mut look = wrong(NOON);
            look.host = name.to_owned();
            look.frame = (columns != 50).then(|| frame(5).frame.unwrap());
            let mut app = empty((columns, 24), TabId::Overview);
            see(&mut app, look);
            let head = screen(&app).lines().next().unwrap_or_default().to_owned();
            assert!(
                head.contains("PARTIAL") && head.contains("14:03:11"),
                "{head}"
            );
            assert!(
                head.starts_with(&name.chars().next().unwrap().to_string()),
                "{head}"
            );
        }
    }
}

#[test]
fn hints_are_whole_or_left_out() {
    for tab in TabId::ALL {
        for mut app in [app(SIZE, tab), recorded(SIZE, tab)] {
            for columns in 40..130 {
                app.setup.size.0 = columns;
                let foot = foot(&app);
                assert!(foot.starts_with("? keys  q quit"), "{foot}");
                let hint = foot.rsplit("  ").next().unwrap_or_default();
                let known = [
                    "q quit",
                    "/ filter",
                    "space play",
                    ", . step",
                    "t seek",
                    "K kill",
                    "Enter what is behind it",
                    "arrows another state",
                    "Enter all of it",
                    "o its sockets",
                    "Enter details",
                    "s sort",
                    "f follow",
                    "b group",
                    "c columns",
                    "Enter whole text",
                    "Enter its sockets",
                    "space pause",
                ];
                assert!(known.contains(&hint), "{columns} {foot}");
            }
        }
    }
}

/// Every frame that the tests above draw in one size, in colour or not.
fn frames(colour: bool) -> Vec<(String, Buffer)> {
    let mut frames = Vec::new();
    for of in [wrong as fn(i64) -> Look, nothing] {
        for tab in TabId::ALL {
            for size in [(80, 24), (120, 40)] {
                let mut app = empty(size, tab);
                see(&mut app, of(NOON));
                app.setup.theme.colour = colour;
                for keys in [
                    "",
                    "<Down>",
                    "<Enter>",
                    "?",
                    "<Esc>/state foo<Enter>",
                    "<Esc>3sG",
                    "<Esc>K",
                    "<Esc>f",
                    "b<Enter>",
                ] {
                    press(&mut app, keys);
                    frames.push((format!("{tab:?} {keys}"), shown(&app).0));
                }
                app.update(Msg::Exported(Err("it went wrong".to_owned())));
                frames.push((format!("{tab:?} wrong"), shown(&app).0));
                app.update(Msg::Failed("it failed".to_owned()));
                press(&mut app, "<Esc><Down>");
                frames.push((format!("{tab:?} failed"), shown(&app).0));
            }
        }
    }
    frames
}

#[test]
fn colours_come_in_pairs_and_only_where_they_are_wanted() {
    for (name, buffer) in frames(false) {
        let coloured =
            |cell: &&ratatui::buffer::Cell| (cell.fg, cell.bg) != (Color::Reset, Color::Reset);
        assert_eq!(buffer.content().iter().find(coloured), None, "{name}");
    }
    let mut coloured = 0;
    for (name, buffer) in frames(true) {
        for cell in buffer.content() {
            let (text, behind) = (cell.fg != Color::Reset, cell.bg != Color::Reset);
            // One alone may be as light, or as dark, as what the terminal puts to it.
            assert_eq!(text, behind, "{name}: {cell:?}");
            assert!(!text || cell.fg != cell.bg, "{name}: {cell:?}");
            coloured += usize::from(text);
        }
    }
    assert!(coloured > 100, "{coloured}");
}
