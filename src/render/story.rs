//! The story of a socket, for a reader and as JSON.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::explain::arrow_json;
use super::findings::Screen;
use super::text::wrap;
use crate::knowledge::Story;
use crate::knowledge::story::left_in_words;
use crate::model::{Actor, Age};

/// Where the text begins, after its label.
const LABEL: usize = 11;

/// Writes the story below `head`, which names the socket and is safe to print.
///
/// # Errors
/// Those of `out`.
pub fn story_text(
    head: &str,
    story: &Story,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "{}", screen.paint.bold(head))?;
    let mut part = |label: &str, text: &str| {
        let text = wrap(text, screen.text_width(), LABEL);
        writeln!(out, "{label:<LABEL$}{text}")
    };
    part("lasts", &story.lasts())?;
    part("came", &story.came)?;
    let to = if screen.unicode { '►' } else { '>' };
    for arrow in &story.path {
        part("", &format!("{} {to} {}: {arrow}", arrow.from, arrow.to))?;
    }
    part("awaits", &story.awaits)?;
    part("ends by", &story.ends)?;
    if let Some(left) = story.left {
        part("in time", &format!("by itself {}", left_in_words(left)))?;
    }
    part("move", mover(story.actor))
}

/// Whose move it is.
const fn mover(actor: Actor) -> &'static str {
    match actor {
        Actor::ThisProgram => "this program",
        Actor::Peer => "the peer",
        Actor::Network => "the network between, or a peer that is gone",
        Actor::Operator => "whoever runs this host",
        Actor::Nobody => "nobody's: it is as it should be, or ends by itself",
    }
}

/// The story as an object of `linger.explain/1`, with `socket` as `linger.sockets/1` has it. What is not known is absent.
pub fn story_json(socket: Value, story: &Story) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    put("socket", socket);
    put("state", json!(story.state.slug()));
    let path: Vec<Value> = story.path.iter().map(|arrow| arrow_json(arrow)).collect();
    put("path", json!(path));
    put("came", json!(story.came));
    put("awaits", json!(story.awaits));
    put("ends", json!(story.ends));
    put("whose_move", json!(story.actor.name()));
    if let Some(lifetime) = story.lifetime {
        put("lifetime", json!(lifetime.name()));
    }
    for (name, bounds) in [("state_age", story.age), ("left", story.left)] {
        let Some(Age { low_ms, high_ms }) = bounds else {
            continue;
        };
        put(&format!("{name}_ms"), json!(low_ms));
        match high_ms {
            None => put(&format!("{name}_at_least"), json!(true)),
            Some(high) if high != low_ms => put(&format!("{name}_max_ms"), json!(high)),
            Some(_) => {}
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::tests::Fixture;
    use crate::knowledge::{Scene, tell};
    use crate::model::{Facts, TcpInfo, TcpState};
    use crate::render::paint::Paint;
    use unicode_width::UnicodeWidthStr;

    fn story(state: TcpState) -> Story {
        let mut fixture = Fixture::new();
        fixture.socket.state = state;
        let info = TcpInfo::parse(&fixture.info);
        let scene = Scene {
            info: info.as_ref(),
            facts: &Facts::default(),
            listened: None,
        };
        tell(&fixture.socket, scene).unwrap()
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [50, 80, 200] {
            let screen = Screen {
                width,
                unicode: true,
                paint: Paint(false),
            };
            for state in TcpState::SHOWN {
                let mut out = Vec::new();
                story_text("HEAD", &story(state), screen, &mut out).unwrap();
                let text = String::from_utf8(out).unwrap();
                assert!(text.starts_with("HEAD\nlasts      "), "{text}");
                for line in text.lines() {
                    assert!(line.width() <= width.min(100), "{state}: {line}");
                    assert_eq!(line, line.trim_end());
                }
            }
        }
    }

    #[test]
    fn json_has_bounds_as_everywhere_and_leaves_out_what_is_unknown() {
        let value = story_json(json!({}), &story(TcpState::Established));
        assert_eq!(value["state"], "established");
        assert_eq!(
            (&value["state_age_ms"], &value["state_age_at_least"]),
            (&json!(7_000), &json!(true))
        );
        assert!(value.get("left_ms").is_none());
        let close_wait = story_json(json!({}), &story(TcpState::CloseWait));
        assert_eq!(close_wait["path"][0]["to"], "close-wait");
        assert!(close_wait.get("lifetime").is_none());
    }
}
