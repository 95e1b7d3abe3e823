//! Findings as text: in full for `diagnose`, in a line or two for `status`.

use std::io::{self, Write};

use super::paint::Paint;
use super::text::{Safe, wrap};
use crate::model::finding::Value;
use crate::model::words::{self, thousands};
use crate::model::{Actor, Evidence, Finding, Story, Subject};

/// What a terminal is like.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// columns
    pub width: usize,
    /// whether it shows more than ASCII
    pub unicode: bool,
    /// whether to colour
    pub paint: Paint,
}

impl Screen {
    /// The columns that running text uses: long lines tire.
    pub fn text_width(&self) -> usize {
        self.width.clamp(40, 100)
    }
}

/// The column at which the text of a finding begins.
const LABEL: usize = 11;

/// One finding in full, and what follows from it in a line each. `again` goes behind every command of linger's own,
/// so that it looks at the same machine.
///
/// # Errors
/// When `out` fails.
pub fn full(
    story: Story<'_>,
    sockets: &[String],
    again: &str,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Story {
        root: finding,
        follows,
        namespace,
    } = story;
    let paint = screen.paint;
    let width = screen.text_width();
    let severity = story.severity().name().to_uppercase();
    let variant = finding
        .variant
        .map(|variant| format!(" ({variant})"))
        .unwrap_or_default();
    let once = if finding.one_sample {
        "  one sample"
    } else {
        ""
    };
    let place = namespace.map_or_else(String::new, |namespace| {
        format!("  in {}", Safe(&namespace.shown()))
    });
    writeln!(
        out,
        "{}  {}{variant}{place}{once}",
        paint.severity(story.severity(), &severity),
        paint.bold(finding.id)
    )?;
    writeln!(out, "  {}", wrap(&safe(&finding.title), width, 2))?;
    writeln!(out)?;
    measured(&finding.evidence, screen, out)?;
    paragraph("meaning", &finding.explanation, width, out)?;
    paragraph("who", &who(finding), width, out)?;
    for (at, advice) in finding.advice.iter().enumerate() {
        // What goes on in the next line stands further in, so that one piece of advice is seen to end.
        let advice = same_machine(advice, again);
        hanging(if at == 0 { "do" } else { "" }, &advice, width, out)?;
    }
    for (at, line) in sockets.iter().enumerate() {
        writeln!(
            out,
            "  {:<w$}{line}",
            if at == 0 { "sockets" } else { "" },
            w = LABEL - 2
        )?;
    }
    for other in follows {
        let line = format!(
            "{} {}: {}",
            other.severity.name().to_uppercase(),
            other.id,
            safe(&other.title)
        );
        hanging("leads to", &line, width, out)?;
    }
    paragraph("ground", &finding.grounds.join("; "), width, out)?;
    writeln!(out)
}

/// Advice that begins with a command of linger's own, with what makes it look at the machine that was judged.
fn same_machine(advice: &str, again: &str) -> String {
    match (advice.starts_with("linger "), advice.split_once("    #")) {
        (true, Some((command, comment))) => format!("{command}{again}    #{comment}"),
        (true, None) => format!("{advice}{again}"),
        (false, _) => advice.to_owned(),
    }
}

fn paragraph(label: &str, text: &str, width: usize, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "  {label:<w$}{}",
        wrap(&safe(text), width, LABEL),
        w = LABEL - 2
    )
}

fn hanging(label: &str, text: &str, width: usize, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "  {label:<w$}{}",
        wrap(&safe(text), width, LABEL + 2),
        w = LABEL - 2
    )
}

fn safe(text: &str) -> String {
    Safe(text).to_string()
}

fn who(finding: &Finding) -> String {
    let act = match finding.who_must_act {
        Actor::ThisProgram => "this program must act",
        Actor::Peer => "the other end must act",
        Actor::Network => "the network, or the host at the other end",
        Actor::Operator => "whoever runs this host must act",
        Actor::Nobody => "nobody has to act",
    };
    let (Subject::Process {
        unit, container, ..
    }
    | Subject::Listener {
        unit, container, ..
    }) = &finding.subject
    else {
        return act.to_owned();
    };
    let names: Vec<&str> = [unit, container]
        .into_iter()
        .filter_map(Option::as_deref)
        .collect();
    if names.is_empty() {
        act.to_owned()
    } else {
        format!("{act} ({})", names.join(", "))
    }
}

/// The evidence, one line each: name, value, limit, source; what is a series as a small bar chart.
///
/// # Errors
/// When `out` fails.
pub fn measured(evidence: &[Evidence], screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let longest = evidence
        .iter()
        .map(|evidence| evidence.name.chars().count());
    let names = longest.max().unwrap_or(0);
    let room = screen.text_width().saturating_sub(LABEL + names + 2);
    let rows: Vec<(String, String, String, &str)> = evidence
        .iter()
        .map(|evidence| {
            let name = evidence.name.replace('_', " ");
            let unit = evidence.unit.unwrap_or_default();
            let limit = evidence.limit.map(|limit| match unit {
                // Of what is counted, a part of a limit is reached by the next whole one.
                _ if matches!(evidence.value, Value::Count(_)) && unit != "%" => {
                    format!("limit {}", number(limit.ceil()))
                }
                "s" => format!("limit {}", words::time((limit * 1000.0).max(0.0) as u64)),
                "%" => format!("limit {} %", number(limit)),
                _ => format!("limit {}", number(limit)),
            });
            (
                name,
                value(&evidence.value, unit, room, screen.unicode),
                limit.unwrap_or_default(),
                evidence.source,
            )
        })
        .collect();
    let is_text = |text: &str| text.chars().count() > 24;
    let values = rows
        .iter()
        .map(|row| row.1.chars().count())
        .filter(|n| *n <= 24)
        .max()
        .unwrap_or(0);
    let limits = rows
        .iter()
        .map(|row| row.2.chars().count())
        .max()
        .unwrap_or(0);
    for (at, (name, value, limit, source)) in rows.iter().enumerate() {
        let label = if at == 0 { "measured" } else { "" };
        if is_text(value) {
            let indent = LABEL + names + 2;
            let value = wrap(&safe(value), screen.text_width(), indent);
            writeln!(out, "  {label:<w$}{name:<names$}  {value}", w = LABEL - 2)?;
            continue;
        }
        let line = format!(
            "  {label:<w$}{name:<names$}  {value:>values$}  {limit:<limits$}",
            value = safe(value),
            w = LABEL - 2
        );
        // The source is the last thing to be missed where the line is short.
        let room = screen.text_width().saturating_sub(line.chars().count() + 2);
        if source.chars().count() <= room {
            writeln!(out, "{line}  {}", screen.paint.dim(source))?;
        } else {
            writeln!(out, "{}", line.trim_end())?;
        }
    }
    Ok(())
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 && value >= 0.0 {
        thousands(value as u64)
    } else {
        format!("{value:.1}")
    }
}

fn value(value: &Value, unit: &str, room: usize, unicode: bool) -> String {
    match value {
        Value::Count(n) => {
            let n = u64::try_from(*n).map_or_else(|_| n.to_string(), thousands);
            join(n, unit)
        }
        Value::Real(n) if unit == "s" => words::time((n * 1000.0).max(0.0) as u64),
        Value::Real(n) if unit == "min" => words::time((n * 60_000.0).max(0.0) as u64),
        Value::Real(n) => join(format!("{n:.1}"), unit),
        Value::Text(text) => text.clone(),
        Value::Series(values) => bars(values, room, unicode),
    }
}

fn join(n: String, unit: &str) -> String {
    match unit {
        "" => n,
        "%" => format!("{n} %"),
        unit if unit.starts_with("1/") => format!("{n} per {}", unit.trim_start_matches("1/")),
        unit if n == "1" => format!("1 {}", unit.strip_suffix('s').unwrap_or(unit)),
        unit => format!("{n} {unit}"),
    }
}

/// One column a value, the latest on the left, and the largest in numbers; where the `room`, columns, is short several
/// values to a column.
pub fn bars(values: &[u32], room: usize, unicode: bool) -> String {
    let around = "now||then, at most 12,345 in 12".len();
    let room = room.saturating_sub(around).max(10);
    let fold = values.len().div_ceil(room).max(1);
    let values: Vec<u32> = values
        .chunks(fold)
        .map(|some| {
            some.iter()
                .fold(0u32, |sum, value| sum.saturating_add(*value))
        })
        .collect();
    let most = values.iter().copied().max().unwrap_or(0);
    let steps: &[char] = if unicode {
        &[' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
    } else {
        &[' ', '.', ':', '-', '=', '+', '*', '%', '#']
    };
    let bar = |value: u32| {
        let top = steps.len() as u64 - 1;
        // Rounded up: what is there is seen.
        let step = (u64::from(value) * top).div_ceil(u64::from(most.max(1)));
        steps.get(step as usize).copied().unwrap_or(' ')
    };
    let chart: String = values.iter().map(|value| bar(*value)).collect();
    let folded = if fold > 1 {
        format!(" in {fold}")
    } else {
        String::new()
    };
    format!("now|{chart}|then, at most {}{folded}", thousands(most))
}

/// One finding in a line or two: severity, id, title.
///
/// # Errors
/// When `out` fails.
pub fn brief(story: Story<'_>, ids: usize, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let Story {
        root: finding,
        namespace,
        ..
    } = story;
    let title = match namespace {
        Some(namespace) => format!("{}: {}", namespace.shown(), finding.title),
        None => finding.title.clone(),
    };
    let severity = format!("{:<8}", story.severity().name().to_uppercase());
    let severity = screen.paint.severity(story.severity(), &severity);
    let width = screen.width.clamp(40, 140);
    let indent = 8 + 2 + ids + 2;
    // A title in a narrow column is a column of words: below it has room.
    if width < indent + 40 {
        let title = wrap(&safe(&title), width, 10);
        return writeln!(out, "{severity}  {}\n{:10}{title}", finding.id, "");
    }
    let title = wrap(&safe(&title), width, indent);
    writeln!(out, "{severity}  {:<ids$}  {title}", finding.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Severity;
    use crate::model::stories;

    const SCREEN: Screen = Screen {
        width: 80,
        unicode: true,
        paint: Paint(false),
    };

    fn finding() -> Finding {
        Finding {
            id: "close-wait-leak",
            variant: None,
            severity: Severity::Critical,
            title:
                "ev\x1b[31mil[7]: 604 of 900 sockets to 10.2.3.4:443 are CLOSE-WAIT, oldest 51 min"
                    .into(),
            subject: Subject::Host,
            evidence: vec![
                Evidence::count("close_wait_sockets", 604, "sockets", "idiag_state").limit(10),
                Evidence::real("oldest", 3060.0, "s", "tcpi_last_ack_recv").limit(60),
                Evidence::series("arrivals", vec![1, 0, 8], "sockets", "tcpi_last_ack_recv"),
            ],
            explanation: "The other side has closed. ".repeat(9),
            grounds: vec!["RFC 9293 section 3.6"],
            who_must_act: Actor::ThisProgram,
            advice: vec!["linger pid:7    # which peers".into(), "close it".into()],
            rows: vec![],
            caused_by: None,
            one_sample: false,
        }
    }

    fn print(screen: Screen) -> String {
        print_story(screen, &[])
    }

    fn print_story(screen: Screen, follows: &[Finding]) -> String {
        let mut out = Vec::new();
        full(
            Story {
                root: &finding(),
                follows,
                namespace: None,
            },
            &["a row".into()],
            " --from x.linger",
            screen,
            &mut out,
        )
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fits_eighty_columns_and_lets_no_escape_through() {
        let text = print(SCREEN);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(!text.contains('\x1b'));
        assert!(text.contains("limit 10") && text.contains("51 min"));
        assert!(text.contains("limit 60 s"), "{text}");
        assert!(
            text.contains("linger pid:7 --from x.linger # which peers"),
            "{text}"
        );
        assert!(text.contains("now|▁ █|then, at most 8"), "{text}");
        assert!(
            print(Screen {
                unicode: false,
                ..SCREEN
            })
            .is_ascii()
        );
    }

    #[test]
    fn a_long_series_is_folded_to_fit() {
        let mut values = vec![0; 60];
        (values[0], values[1]) = (3, 4);
        let narrow = bars(&values, 69, true);
        assert!(
            narrow.starts_with("now|█ ") && narrow.ends_with("at most 7 in 2"),
            "{narrow}"
        );
        let folded = bars(&[1; 50], 89, true);
        assert!(folded.ends_with("at most 1"), "{folded}");
    }

    #[test]
    fn a_story_is_as_bad_as_the_worst_of_it() {
        let mut worse = finding();
        (worse.id, worse.caused_by) = ("accept-queue-stuck", Some("close-wait-leak"));
        let mut root = finding();
        root.severity = Severity::Warning;
        let all = [root, worse];
        let stories = stories(&all);
        let [story] = stories[..] else {
            panic!("{stories:?}")
        };
        assert_eq!(story.severity(), Severity::Critical);
        let text = print_story(SCREEN, story.follows);
        assert!(
            text.contains("leads to CRITICAL accept-queue-stuck"),
            "{text}"
        );
        let mut out = Vec::new();
        brief(story, 20, SCREEN, &mut out).unwrap();
        assert!(
            String::from_utf8(out)
                .unwrap()
                .starts_with("CRITICAL  close-wait-leak")
        );
        let orphan = &all[1..];
        assert_eq!(
            crate::model::stories(orphan).len(),
            1,
            "without its root it is told itself"
        );
    }

    #[test]
    fn colour_is_an_addition() {
        let text = print(Screen {
            paint: Paint(true),
            ..SCREEN
        });
        assert!(text.contains("\x1b[1;31mCRITICAL\x1b[0m"));
    }
}
