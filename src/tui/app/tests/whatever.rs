//! Whatever happens, in whatever order: nothing panics, and there is a frame to draw.

use proptest::prelude::*;
use ratatui::crossterm::event::MouseButton;

use super::*;
use crate::render::text::width;
use crate::tui::keys::BINDINGS;
use crate::tui::tabs::scenes::nothing;

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Key(KeyEvent),
    Mouse(MouseEventKind, u16, u16),
    Paste(String),
    Resize(u16, u16),
    Look(usize, i64),
    Failed,
    Said(bool),
}

fn event(key: Key) -> KeyEvent {
    match key {
        Key::Char(c) => KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE),
        Key::Ctrl(c) => KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL),
        Key::Named(code) => KeyEvent::new(code, KeyModifiers::NONE),
    }
}

fn step() -> impl Strategy<Value = Step> {
    let keys: Vec<KeyEvent> = BINDINGS
        .iter()
        .flat_map(|binding| binding.keys.iter().copied().map(event))
        .collect();
    let kinds = vec![
        MouseEventKind::Down(MouseButton::Left),
        MouseEventKind::Down(MouseButton::Right),
        MouseEventKind::Drag(MouseButton::Left),
        MouseEventKind::ScrollUp,
        MouseEventKind::ScrollDown,
    ];
    prop_oneof![
        12 => proptest::sample::select(keys).prop_map(Step::Key),
        4 => any::<char>().prop_map(|c| Step::Key(event(Key::Char(c)))),
        2 => (proptest::sample::select(kinds), 0u16..310, 0u16..110)
            .prop_map(|(kind, column, row)| Step::Mouse(kind, column, row)),
        2 => proptest::sample::select(vec!["yes", "state close-wait", "age > 5min or", "\u{1b}[2J\n", "日本語"])
            .prop_map(|text| Step::Paste(text.to_owned())),
        2 => (1u16..=300, 1u16..=100).prop_map(|(columns, rows)| Step::Resize(columns, rows)),
        1 => (1u16..=60, 1u16..=14).prop_map(|(columns, rows)| Step::Resize(columns, rows)),
        3 => (0usize..3, -3i64..10).prop_map(|(of, second)| Step::Look(of, second)),
        1 => Just(Step::Failed),
        1 => any::<bool>().prop_map(Step::Said),
    ]
}

fn happens(app: &mut App, step: Step) -> Vec<Effect> {
    app.update(match step {
        Step::Key(event) => Msg::Key(event),
        Step::Mouse(kind, column, row) => Msg::Mouse(MouseEvent {
            kind,
            column,
            row,
            modifiers: KeyModifiers::NONE,
        }),
        Step::Paste(text) => Msg::Paste(text),
        Step::Resize(columns, rows) => Msg::Resize(columns, rows),
        Step::Look(of, second) => {
            let mut look = [look_at, wrong, nothing][of](NOON + second);
            if app.setup.replay {
                look.frame = frame(usize::try_from(second.max(0)).unwrap()).frame;
            }
            Msg::Look(Box::new(look))
        }
        Step::Failed => Msg::Failed("no memory \x1b[31m".repeat(9)),
        Step::Said(good) => {
            let text = "what came of it ".repeat(20);
            Msg::Exported(if good { Ok(text) } else { Err(text) })
        }
    })
}

/// What whoever runs the dashboard answers.
fn answer(effect: Effect) -> Option<Msg> {
    match effect {
        Effect::Resolve { text, filter } => Some(Msg::Resolved {
            text,
            filter: Ok(filter),
        }),
        Effect::Kill(doomed) => Some(Msg::Killed(Ok(format!("destroyed {}", doomed.len())))),
        Effect::Play(playing) => Some(Msg::Playing {
            playing,
            speed: 1.0,
        }),
        Effect::Speed(speed) => Some(Msg::Playing {
            playing: true,
            speed,
        }),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn nothing_panics_and_every_frame_is_drawn(
        steps in proptest::collection::vec(step(), 1..40),
        replay: bool,
        unicode: bool,
    ) {
        let mut setup = empty(SIZE, TabId::Overview).setup;
        setup.replay = replay;
        setup.theme.unicode = unicode;
        let mut app = App::new(setup);
        let mut last = None;
        for step in steps {
            for effect in happens(&mut app, step) {
                if let Effect::Wish(wish) = &effect {
                    prop_assert_ne!(last.replace(*wish), Some(*wish), "a wish twice");
                }
                prop_assert!(!(replay && matches!(effect, Effect::Kill(_))));
                if let Some(msg) = answer(effect) {
                    for effect in app.update(msg) {
                        if let Effect::Wish(wish) = effect {
                            last = Some(wish);
                        }
                    }
                }
            }
            let page = screen(&app);
            prop_assert!(!page.contains('\x1b'));
            let (columns, rows) = app.setup.size;
            prop_assert!(page.lines().count() <= usize::from(rows).max(1));
            prop_assert!(page.lines().all(|line| width(line) <= usize::from(columns)));
        }
    }
}
