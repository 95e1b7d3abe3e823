//! Lines that are typed: filters, the column to sort by, a file to write.

use super::*;
use crate::tui::tabs::scenes::asked;

/// The line that is typed.
fn typed(app: &App) -> &str {
    match &app.dialog {
        Some(Dialog::Prompt(prompt)) => prompt.line.text(),
        other => panic!("no line is typed: {other:?}"),
    }
}

/// What is said to be wrong with it.
fn error(app: &App) -> Option<&str> {
    match &app.dialog {
        Some(Dialog::Prompt(prompt)) => prompt.error.as_deref(),
        other => panic!("no line is typed: {other:?}"),
    }
}

/// Does what whoever runs the dashboard does: the names are looked up.
fn resolve(app: &mut App, effects: Vec<Effect>) {
    let [Effect::Resolve { text, filter }] = &effects[..] else {
        panic!("{effects:?}");
    };
    app.update(Msg::Resolved {
        text: text.clone(),
        filter: Ok(filter.clone()),
    });
}

#[test]
fn a_filter_is_typed_looked_up_and_shown() {
    let mut app = app(SIZE, TabId::Overview);
    assert!(press(&mut app, "/state syn-sent").is_empty());
    assert_eq!(foot(&app), "/state syn-sent");
    let effects = press(&mut app, "<Enter>");
    assert_eq!(asked(&effects), ["state syn-sent"]);
    assert_eq!(app.tab(), TabId::Overview, "not before it is known");
    resolve(&mut app, effects);
    assert!(app.dialog.is_none());
    assert_eq!(app.tab(), TabId::Sockets);
    assert_eq!(app.rows().len(), 3);
    assert!(screen(&app).contains("3 of 233 sockets"));
    press(&mut app, "/");
    assert_eq!(typed(&app), "state syn-sent", "to be changed");
}

#[test]
fn what_is_wrong_is_shown_below_what_was_typed_which_stays() {
    let mut app = app(SIZE, TabId::Overview);
    let effects = press(&mut app, "/state foo and sport = :443<Enter>");
    assert!(effects.is_empty(), "{effects:?}");
    assert_eq!(typed(&app), "state foo and sport = :443");
    assert_eq!(foot(&app), "/state foo and sport = :443");
    let page = screen(&app);
    let lines: Vec<&str> = page.lines().collect();
    let caret = lines
        .iter()
        .position(|line| line.trim_start().starts_with('^'));
    let caret = caret.unwrap_or_else(|| panic!("{page}"));
    assert_eq!(
        lines[caret].find('^'),
        lines[caret - 1].find("foo"),
        "{page}"
    );
    // The wheel does not wipe it off, the next character does.
    scroll(&mut app, MouseEventKind::ScrollUp);
    assert!(error(&app).is_some());
    press(&mut app, "<BkSp>");
    assert!(error(&app).is_none());
    assert_eq!(typed(&app), "state foo and sport = :44");
}

#[test]
fn the_caret_is_seen_below_its_word_however_long_the_line_is() {
    for (columns, wide) in [(80, ""), (40, ""), (41, ""), (60, "日本語")] {
        let mut app = app((columns, 24), TabId::Overview);
        let clause = "sport = :443 or ".repeat(8);
        app.update(Msg::Key(KeyEvent::new(
            KeyCode::Char('/'),
            KeyModifiers::NONE,
        )));
        app.update(Msg::Paste(format!(
            "{clause}process = {wide}nginx or state foo"
        )));
        assert!(press(&mut app, "<Enter>").is_empty());
        let page = screen(&app);
        let (at, row) = find(&app, "^^^").unwrap_or_else(|| panic!("{page}"));
        let line = page.lines().nth(usize::from(row) - 1).unwrap();
        let word = line.find("foo").unwrap_or_else(|| panic!("{page}"));
        assert_eq!(text::width(&line[..word]), usize::from(at), "{page}");
        assert!(foot(&app).ends_with("state foo"), "{page}");
    }
}

#[test]
fn a_name_that_is_not_known_is_said_in_place() {
    let mut app = app(SIZE, TabId::Machine);
    let effects = press(&mut app, "/dst nowhere.invalid<Enter>");
    assert_eq!(asked(&effects), ["dst nowhere.invalid"]);
    app.update(Msg::Resolved {
        text: "dst nowhere.invalid".to_owned(),
        filter: Err("nothing is called 'nowhere.invalid'".to_owned()),
    });
    assert_eq!(error(&app), Some("nothing is called 'nowhere.invalid'"));
    assert_eq!(typed(&app), "dst nowhere.invalid");
    assert_eq!(app.tab(), TabId::Machine);
    assert!(screen(&app).contains("nothing is called"));
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    // A name server may take long: meanwhile the line was left, changed, or something else was opened.
    for keys in ["<Esc>", "x", "<Esc>e", "<Esc>/"] {
        let mut app = app(SIZE, TabId::Machine);
        let effects = press(&mut app, "/dst localhost<Enter>");
        press(&mut app, keys);
        let before = screen(&app);
        resolve(&mut app, effects);
        assert_eq!(screen(&app), before, "{keys}");
        assert_eq!(app.tab(), TabId::Machine, "{keys}");
    }
}

#[test]
fn what_was_typed_comes_back_by_the_arrows() {
    let mut app = app(SIZE, TabId::Overview);
    for filter in ["state listen", "state time-wait"] {
        press(&mut app, "/<^u>");
        let keys = format!("{filter}<Enter>");
        let effects = press(&mut app, &keys);
        resolve(&mut app, effects);
    }
    press(&mut app, "/<^u><Up>");
    assert_eq!(typed(&app), "state time-wait");
    press(&mut app, "<Up>");
    assert_eq!(typed(&app), "state listen");
    press(&mut app, "<Up>");
    assert_eq!(typed(&app), "state listen", "there is none before it");
    press(&mut app, "<Down><Down>");
    assert_eq!(typed(&app), "");
    // Each kind of line has its own.
    press(&mut app, "<Esc>:<^u><Up>");
    assert_eq!(typed(&app), "");
}

#[test]
fn words_are_completed_and_pasted_and_the_line_is_left() {
    let mut app = app(SIZE, TabId::Overview);
    app.update(Msg::Paste("q".to_owned()));
    assert!(app.dialog.is_none(), "a paste is no key");
    press(&mut app, "/coo<Tab>");
    assert_eq!(typed(&app), "cookie");
    assert_eq!(app.tab(), TabId::Overview, "not the next tab");
    press(&mut app, "<^u>");
    app.update(Msg::Paste("state\tlisten\n\x1b".to_owned()));
    assert_eq!(typed(&app), "state listen ");
    press(&mut app, "q?1");
    assert_eq!(typed(&app), "state listen q?1", "no key is a command here");
    assert!(press(&mut app, "<Esc>").is_empty());
    assert!(app.dialog.is_none());
    press(&mut app, "/");
    assert_eq!(typed(&app), "", "what was left is not kept");
}

#[test]
fn a_column_that_is_none_is_said_and_the_order_stays() {
    let mut app = app(SIZE, TabId::Sockets);
    press(&mut app, ":");
    assert_eq!(typed(&app), "state");
    press(&mut app, "<^u>-recv-k<Enter>");
    assert_eq!(typed(&app), "-recv-k");
    let error = error(&app).unwrap().to_owned();
    assert!(
        error.contains("'recv-k'") && error.contains("recv-q"),
        "{error}"
    );
    assert_eq!(app.sockets.sort_text(), "state");
    press(&mut app, "<BkSp>q<Enter>");
    assert!(app.dialog.is_none());
    assert_eq!(app.sockets.sort_text(), "-recv-q");
}

#[test]
fn what_is_seen_is_written_where_it_was_asked_for() {
    let mut app = app(SIZE, TabId::Findings);
    press(&mut app, "e");
    assert_eq!(typed(&app), "linger-20260301-140311-findings.json");
    let effects = press(&mut app, "<^u> out.json <Enter>");
    assert!(
        matches!(&effects[..], [Effect::Export(path)] if path == "out.json"),
        "{effects:?}"
    );
    assert!(app.dialog.is_none());
    app.update(Msg::Exported(Ok("written: out.json".to_owned())));
    assert_eq!(foot(&app), "written: out.json");
    see(&mut app, look_at(NOON + 1));
    assert_eq!(foot(&app), "written: out.json", "a look leaves it");
    press(&mut app, "<Down>");
    assert!(foot(&app).starts_with("? keys"), "the next key does not");
    app.update(Msg::Exported(Err("'out.json' exists".to_owned())));
    assert_eq!(foot(&app), "! 'out.json' exists");
    // Nothing is written to no name.
    assert!(press(&mut app, "e<^u><Enter>").is_empty());
    assert!(app.dialog.is_none());
}

#[test]
fn what_is_said_behind_a_line_that_is_typed_waits_for_its_end() {
    let mut app = app(SIZE, TabId::Overview);
    press(&mut app, "/");
    app.update(Msg::Exported(Ok("written: web-7.linger".to_owned())));
    press(&mut app, "age <Esc>");
    assert_eq!(foot(&app), "written: web-7.linger");
    press(&mut app, "<Down>");
    assert!(foot(&app).starts_with("? keys"));
}
