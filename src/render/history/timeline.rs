//! When findings began, changed and ended.

use std::io::{self, Write};

use rustc_hash::FxHashMap;

use super::Span;
use crate::model::words::time;
use crate::model::{Severity, Transition};
use crate::render::findings::Screen;
use crate::render::text::{Safe, wrap};

/// One line for each, the oldest first: when, how bad, what. What has ended says how long it was there, if it began within
/// `all`.
///
/// # Errors
/// When `out` fails.
pub fn timeline(
    all: &[Transition],
    span: Span<'_>,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut began: FxHashMap<(&str, &str), &Transition> = FxHashMap::default();
    let name = |severity: Option<Severity>| severity.map_or("ended", Severity::name).to_uppercase();
    let ids = all
        .iter()
        .map(|transition| transition.id.len())
        .max()
        .unwrap_or(0);
    for transition in all {
        let key = (transition.id.as_str(), transition.subject.as_str());
        let mut note = String::new();
        match (transition.from, transition.to) {
            (None, _) => {
                began.insert(key, transition);
            }
            (Some(_), None) => {
                if let Some(first) = began.remove(&key) {
                    let lasted = transition.taken.duration_since(first.taken).as_millis();
                    note = format!(", after\u{a0}{}", time(u64::try_from(lasted).unwrap_or(0)));
                }
            }
            (Some(from), Some(_)) => note = format!(", was\u{a0}{}", from.name()),
        }
        // The word is padded before it is coloured.
        let word = match transition.to {
            Some(to) => screen.paint.severity(to, &format!("{:<8}", name(Some(to)))),
            None => format!("{:<8}", "ended"),
        };
        let clock = span.clock(transition.taken);
        let indent = clock.len() + ids + 14;
        let id = Safe(&transition.id).to_string();
        let title = Safe(&transition.title);
        let title = wrap(&format!("{title}{note}"), screen.width.min(160), indent);
        writeln!(out, "{clock}  {word}  {id:<ids$}  {title}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    use super::*;
    use crate::render::paint::Paint;

    #[test]
    fn a_finding_begins_gets_worse_and_ends() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let step = |second, from, to| Transition {
            taken: at(second),
            id: "close-wait-leak".to_owned(),
            subject: "process checkout".to_owned(),
            from,
            to,
            title: "checkout: 812 CLOSE-WAIT".to_owned(),
        };
        let (warning, critical) = (Some(Severity::Warning), Some(Severity::Critical));
        let all = [
            step(60, None, warning),
            step(360, warning, critical),
            step(960, critical, None),
            step(990, critical, None),
        ];
        let span = Span {
            since: at(0),
            until: at(3600),
            now: at(3600),
            zone: &TimeZone::UTC,
        };
        let screen = Screen {
            width: 80,
            unicode: true,
            paint: Paint(false),
        };
        let mut out = Vec::new();
        timeline(&all, span, screen, &mut out).unwrap();
        let expected = "\
00:01:00  WARNING   close-wait-leak  checkout: 812 CLOSE-WAIT
00:06:00  CRITICAL  close-wait-leak  checkout: 812 CLOSE-WAIT, was warning
00:16:00  ended     close-wait-leak  checkout: 812 CLOSE-WAIT, after 15 min
00:16:30  ended     close-wait-leak  checkout: 812 CLOSE-WAIT
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
