//! A recording that is replayed.

use super::*;

fn seek(effects: &[Effect]) -> Seek {
    match effects {
        [Effect::Seek(seek)] => *seek,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_plays_and_stands() {
    let mut app = recorded(SIZE, TabId::Overview);
    let head = screen(&app).lines().next().unwrap_or_default().to_owned();
    assert!(head.contains("frame 3 of 10  playing x1"), "{head}");
    assert!(matches!(press(&mut app, " ")[..], [Effect::Play(false)]));
    app.update(Msg::Playing {
        playing: false,
        speed: 1.0,
    });
    assert!(screen(&app).contains("frame 3 of 10  standing"));
    assert!(matches!(press(&mut app, " ")[..], [Effect::Play(true)]));
    see(&mut app, frame(3));
    assert!(screen(&app).contains("frame 4 of 10"), "a step is shown");
}

#[test]
fn one_steps_through_the_frames() {
    let mut app = recorded(SIZE, TabId::Sockets);
    assert_eq!(seek(&press(&mut app, ",")), Seek::By(-1));
    assert_eq!(seek(&press(&mut app, ".")), Seek::By(1));
    assert_eq!(seek(&press(&mut app, "{")), Seek::To(0));
    assert_eq!(seek(&press(&mut app, "}")), Seek::To(usize::MAX));
    let before = app.trend.reach();
    see(&mut app, frame(0));
    assert!(screen(&app).contains("frame 1 of 10"));
    assert_eq!(
        app.trend.reach(),
        before,
        "what comes later is not known yet"
    );
}

#[test]
fn its_speed_has_bounds() {
    let mut app = recorded(SIZE, TabId::Overview);
    for (key, ends) in [("]", 64.0), ("[", 0.125)] {
        let mut speed = 0.0;
        for _ in 0..12 {
            let effects = press(&mut app, key);
            let [Effect::Speed(next)] = effects[..] else {
                panic!("{effects:?}");
            };
            speed = next;
            app.update(Msg::Playing {
                playing: true,
                speed,
            });
        }
        assert!((speed - ends).abs() < f64::EPSILON, "{speed}");
        assert!(screen(&app).contains(&format!("playing x{ends}")));
    }
    assert!(press(&mut app, "+-").is_empty(), "it is not looked");
    assert!(foot(&app).contains("[ and ]"), "{}", foot(&app));
}

#[test]
fn a_place_in_it_is_typed() {
    let mut app = recorded(SIZE, TabId::Overview);
    assert!(press(&mut app, "tsoon<Enter>").is_empty());
    assert_eq!(foot(&app), "go to: soon");
    assert!(screen(&app).contains("'soon' is no place in a recording"));
    assert!(press(&mut app, "<^u>11<Enter>").is_empty());
    assert!(screen(&app).contains("from 1 to 10"), "{}", screen(&app));
    assert_eq!(seek(&press(&mut app, "<BkSp><Enter>")), Seek::To(0));
    assert!(app.dialog.is_none());
    let at = |second| Seek::At(jiff::Timestamp::from_second(NOON + second).unwrap());
    assert_eq!(seek(&press(&mut app, "t+3s<Enter>")), at(5));
    assert_eq!(seek(&press(&mut app, "t 14:03:15 <Enter>")), at(4));
    press(&mut app, "t<Up>");
    assert_eq!(foot(&app), "go to:  14:03:15", "and comes back");
}

#[test]
fn its_keys_do_nothing_live() {
    for tab in TabId::ALL {
        let mut app = app(SIZE, tab);
        let before = screen(&app);
        assert!(press(&mut app, ",.{}[]t").is_empty());
        assert!(app.dialog.is_none());
        assert_eq!(screen(&app), before);
    }
}
