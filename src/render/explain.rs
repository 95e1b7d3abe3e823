//! What a state or a topic is, for a reader and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::knowledge::{StateText, Topic, Transition};
use crate::model::Facts;
use crate::model::words::count as count_of;
use crate::render::findings::{Screen, bars};
use crate::render::text::{NO_BREAK, wrap};

/// Longer lines are hard to read, however wide the terminal is.
const WIDEST: usize = 100;

/// Where the text begins, after its label.
const LABEL: usize = 11;

fn columns(width: usize) -> usize {
    width.clamp(LABEL + 20, WIDEST)
}

fn labelled(out: &mut dyn Write, label: &str, text: &str, width: usize) -> io::Result<()> {
    writeln!(out, "{label:<LABEL$}{}", wrap(text, columns(width), LABEL))
}

/// Writes what a state means, with the number of sockets in it, and where that is, if it is known.
pub fn state_text(
    text: &StateText,
    count: Option<(u64, &str)>,
    facts: &Facts,
    findings: &[(&str, &str)],
    out: &mut dyn Write,
    width: usize,
) -> io::Result<()> {
    match count {
        Some((0, place)) => writeln!(out, "{}   none {place}", text.name())?,
        Some((n, place)) => writeln!(out, "{}   {} {place}", text.name(), count_of(n, "socket"))?,
        None => writeln!(out, "{}", text.name())?,
    }
    writeln!(out, "{}", wrap(text.summary, columns(width), 0))?;
    writeln!(out)?;
    labelled(out, "means", text.meaning, width)?;
    labelled(out, "who", text.who, width)?;
    labelled(out, "normal", text.normal, width)?;
    labelled(out, "not normal", text.abnormal, width)?;
    labelled(out, "ends by", &text.ends_on(facts), width)?;
    for (at, remark) in text.linux.iter().enumerate() {
        labelled(out, if at == 0 { "on Linux" } else { "" }, remark, width)?;
    }
    writeln!(out)?;
    arrows(out, "entered", "from", text.entered(), width)?;
    arrows(out, "left", "to", text.left(), width)?;
    writeln!(out)?;
    for (at, (id, summary)) in findings.iter().enumerate() {
        let label = if at == 0 { "findings" } else { "" };
        let text = wrap(&format!("{id}: {summary}"), columns(width), LABEL + 2);
        writeln!(out, "{label:<LABEL$}{text}")?;
    }
    closing(out, &[text.next], text.grounds, width)
}

/// Writes the closes of the last 60 seconds, which the remaining times of TIME-WAIT tell, as a small bar chart.
pub fn closes_text(closes: &[u32], screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let all: u64 = closes.iter().map(|n| u64::from(*n)).sum();
    let text = format!(
        "at least {} begun by this side in the last 60 s, second by second. Resets, closes that the peer began and \
         pairs that were used again leave no entry.",
        count_of(all, "close")
    );
    writeln!(out)?;
    labelled(out, "closes", &text, screen.width)?;
    writeln!(
        out,
        "{:LABEL$}{}",
        "",
        bars(
            closes,
            screen.text_width().saturating_sub(LABEL),
            screen.unicode
        )
    )
}

/// One line for each arrow: the other state, unless it is that of the line before, then the event.
fn arrows(
    out: &mut dyn Write,
    label: &str,
    word: &str,
    arrows: impl Iterator<Item = &'static Transition>,
    width: usize,
) -> io::Result<()> {
    const STATE: usize = 14;
    let mut label = label;
    let mut before = None;
    for arrow in arrows {
        let other = if word == "from" { arrow.from } else { arrow.to };
        let head = if before == Some(other) {
            format!("{:<1$}", "", LABEL + STATE + 7)
        } else {
            format!("{label:<LABEL$}{word:<4} {other:<STATE$}  ")
        };
        let event = wrap(&arrow.to_string(), columns(width), head.len());
        writeln!(out, "{head}{event}")?;
        label = "";
        before = Some(other);
    }
    Ok(())
}

fn closing(out: &mut dyn Write, next: &[&str], grounds: &[&str], width: usize) -> io::Result<()> {
    for (at, command) in next.iter().enumerate() {
        writeln!(
            out,
            "{:<LABEL$}{command}",
            if at == 0 { "next" } else { "" }
        )?;
    }
    let mut grounds = grounds.join(";\n");
    grounds = grounds.replace(' ', &NO_BREAK.to_string());
    labelled(out, "ground:", &grounds, width)
}

/// Writes a topic with its drawing.
pub fn topic_text(topic: &Topic, out: &mut dyn Write, width: usize) -> io::Result<()> {
    writeln!(out, "{}", wrap(topic.title, columns(width), 0))?;
    writeln!(out)?;
    for line in topic.ladder.lines() {
        if line.is_empty() {
            writeln!(out)?;
        } else {
            writeln!(out, "  {line}")?;
        }
    }
    for paragraph in topic.text {
        writeln!(out)?;
        writeln!(out, "{}", wrap(paragraph, columns(width), 0))?;
    }
    writeln!(out)?;
    closing(out, topic.next, topic.grounds, width)
}

pub(super) fn arrow_json(arrow: &Transition) -> Value {
    let mut value = json!({
        "from": arrow.from.slug(),
        "to": arrow.to.slug(),
        "cause": arrow.cause.name(),
        "event": arrow.event,
        "linux": arrow.linux,
    });
    if let (Some(object), Some(sends)) = (value.as_object_mut(), arrow.sends) {
        object.insert("sends".into(), sends.into());
    }
    value
}

/// The value of `linger.explain/1` for a state, without the envelope's keys. What is unknown is absent.
pub fn state_json(text: &StateText, count: Option<u64>, facts: &Facts, findings: &[&str]) -> Value {
    let lifetimes: Vec<Value> = text
        .lifetimes()
        .map(|lifetime| {
            let set_by: serde_json::Map<String, Value> = lifetime
                .sysctls()
                .iter()
                .filter_map(|name| {
                    let path = format!("net/ipv4/{name}");
                    let value = facts.sysctl(&path)?;
                    Some((path, value.into()))
                })
                .collect();
            let mut value = json!({"name": lifetime.name(), "set_by": set_by});
            if let (Some(object), Some(ms)) = (value.as_object_mut(), lifetime.ms(facts)) {
                object.insert("lifetime_ms".into(), ms.into());
            }
            value
        })
        .collect();
    let mut value = json!({
        "kind": "state",
        "name": text.name(),
        "slug": text.slug(),
        "summary": text.summary,
        "meaning": text.meaning,
        "who": text.who,
        "normal": text.normal,
        "abnormal": text.abnormal,
        "ends": text.ends_on(facts),
        "lifetimes": lifetimes,
        "linux": text.linux,
        "entered": text.entered().map(arrow_json).collect::<Vec<_>>(),
        "left": text.left().map(arrow_json).collect::<Vec<_>>(),
        "findings": findings,
        "next": [text.next],
        "grounds": text.grounds,
    });
    if let (Some(object), Some(count)) = (value.as_object_mut(), count) {
        object.insert("count".into(), count.into());
    }
    value
}

/// The value of `linger.explain/1` for a topic, without the envelope's keys.
pub fn topic_json(topic: &Topic) -> Value {
    json!({
        "kind": "topic",
        "name": topic.name,
        "aliases": topic.aliases,
        "summary": topic.title,
        "text": topic.text,
        "ladder": topic.ladder.lines().collect::<Vec<_>>(),
        "next": topic.next,
        "grounds": topic.grounds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knowledge::{STATES, TOPICS, state_text as knowledge_of};
    use crate::model::TcpState;
    use unicode_width::UnicodeWidthStr;

    fn facts() -> Facts {
        let mut facts = Facts::default();
        for (name, value) in [
            ("tcp_syn_retries", "6"),
            ("tcp_syn_linear_timeouts", "4"),
            ("tcp_orphan_retries", "0"),
            ("tcp_retries2", "15"),
            ("tcp_fin_timeout", "60"),
        ] {
            let path = format!("net/ipv4/{name}");
            facts.sysctls.insert(path, value.into());
        }
        facts
    }

    fn shown(state: TcpState, count: Option<u64>, width: usize) -> String {
        let mut out = Vec::new();
        state_text(
            knowledge_of(state).unwrap(),
            count.map(|count| (count, "here now")),
            &facts(),
            &[("close-wait-leak", "a program does not close sockets")],
            &mut out,
            width,
        )
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_state_says_how_many_are_here_only_if_that_is_known() {
        let first = |count| {
            let text = shown(TcpState::CloseWait, count, 80);
            text.lines().next().unwrap().to_owned()
        };
        assert_eq!(first(Some(1_604)), "CLOSE-WAIT   1,604 sockets here now");
        assert_eq!(first(Some(1)), "CLOSE-WAIT   1 socket here now");
        assert_eq!(first(Some(0)), "CLOSE-WAIT   none here now");
        assert_eq!(first(None), "CLOSE-WAIT");
    }

    #[test]
    fn a_state_is_told_with_the_figures_of_this_host() {
        let text = shown(TcpState::SynSent, None, 200);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            text.contains("after 131 s (tcp_syn_retries 6, tcp_syn_linear_timeouts 4)"),
            "{text}"
        );
        let text = shown(TcpState::CloseWait, None, 80);
        assert!(text.contains("\nends by    Nothing. "), "{text}");
        assert!(
            text.contains("\nentered    from ESTABLISHED     FIN received; sends ACK\n"),
            "{text}"
        );
        assert!(
            text.contains("\nleft       to   LAST-ACK        close() of the last descriptor, or"),
            "{text}"
        );
        assert!(
            text.contains("\nnext       linger list -p state close-wait\n"),
            "{text}"
        );
        assert!(
            text.contains("\nground:    TCP state in OS, CLOSE_WAIT; RFC 9293 section 3.6;"),
            "{text}"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_or_than_a_reader_likes() {
        for (width, limit) in [(80, 80), (200, WIDEST), (60, 60)] {
            for state in TcpState::SHOWN {
                for line in shown(state, Some(9_999_999), width).lines() {
                    assert!(line.width() <= limit, "{state} at {width}: {line}");
                    assert_eq!(line, line.trim_end());
                }
            }
            for topic in TOPICS {
                let mut out = Vec::new();
                topic_text(topic, &mut out, width).unwrap();
                for line in String::from_utf8(out).unwrap().lines() {
                    assert!(line.width() <= limit.max(80), "{}: {line}", topic.name);
                }
            }
        }
    }

    #[test]
    fn json_of_a_state_has_its_figures_and_leaves_out_what_is_unknown() {
        let last_ack = knowledge_of(TcpState::LastAck).unwrap();
        let value = state_json(last_ack, Some(3), &facts(), &["last-ack-stuck"]);
        assert_eq!(value["kind"], "state");
        assert_eq!(value["slug"], "last-ack");
        assert_eq!(value["count"], 3);
        assert_eq!(value["lifetimes"][1]["name"], "attached");
        assert_eq!(value["lifetimes"][1]["lifetime_ms"], 924_600);
        assert_eq!(value["lifetimes"][1]["set_by"]["net/ipv4/tcp_retries2"], 15);
        assert_eq!(value["entered"][0]["from"], "close-wait");
        assert_eq!(value["entered"][0]["sends"], "FIN");
        let unknown = state_json(last_ack, None, &Facts::default(), &[]);
        assert!(unknown.get("count").is_none());
        assert!(unknown["lifetimes"][0].get("lifetime_ms").is_none());
        assert!(unknown["left"][0].get("sends").is_none());
    }

    #[test]
    fn json_has_the_same_keys_for_every_state_and_every_topic() {
        let keys =
            |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        let of = |text| keys(&state_json(text, Some(0), &facts(), &[]));
        assert!(STATES.iter().all(|text| of(text) == of(&STATES[0])));
        assert_eq!(of(&STATES[0]).len(), 17);
        for topic in TOPICS {
            let value = topic_json(topic);
            assert_eq!(value["kind"], "topic");
            assert_eq!(
                value["ladder"].as_array().unwrap().len(),
                topic.ladder.lines().count()
            );
        }
    }
}
