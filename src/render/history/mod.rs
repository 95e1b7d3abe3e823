//! What is kept between runs, as text, JSON and CSV.

pub mod data;
pub mod plot;
mod timeline;

use std::io::{self, Write};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

pub use self::timeline::timeline;
use super::findings::Screen;
use super::text::{self, Safe};
use crate::model::Series;
use crate::model::words::{thousands, time};

/// Before the names of what was nothing.
const STILL: &str = "0 all the time: ";

/// Lines of the table below the bars.
const PARTS: usize = 12;

/// What is shown of the time from `since` to `until`.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// from when
    pub since: Timestamp,
    /// until when
    pub until: Timestamp,
    /// when it is shown
    pub now: Timestamp,
    /// where the reader is
    pub zone: &'a TimeZone,
}

/// A value that is older is not said to be of now.
const OLD: SignedDuration = SignedDuration::from_mins(10);

impl Span<'_> {
    /// A moment: the day too where the span begins on another one than today.
    pub fn clock(&self, at: Timestamp) -> String {
        let day = |at: Timestamp| at.to_zoned(self.zone.clone()).date();
        let format = match day(self.since) == day(self.now) {
            true => "%H:%M:%S",
            false if self.until.duration_since(self.since) < SignedDuration::from_hours(1) => {
                "%Y-%m-%d %H:%M:%S"
            }
            false => "%Y-%m-%d %H:%M",
        };
        at.to_zoned(self.zone.clone()).strftime(format).to_string()
    }

    /// How old a value of `at` is, if it is old.
    fn age(&self, at: Timestamp) -> Option<String> {
        let age = self.now.duration_since(at);
        (age > OLD).then(|| time(u64::try_from(age.as_millis()).unwrap_or(0)))
    }
}

/// Whether a measure is a part of 1.
fn is_ratio(name: &str) -> bool {
    name.ends_with("ratio")
}

/// A value of the measure called `name` as people read it: `12,418`, `0.4`, `87 %`.
pub fn amount(name: &str, value: f64) -> String {
    if is_ratio(name) {
        let percent = value * 100.0;
        return if percent > 0.0 && percent < 10.0 {
            format!("{percent:.1} %")
        } else {
            format!("{percent:.0} %")
        };
    }
    if value < 0.0 {
        return format!("-{}", amount(name, -value));
    }
    if value < 1000.0 && value.fract().abs() > 0.05 {
        return format!("{value:.1}");
    }
    thousands(value.round() as u64)
}

/// All measures, a line each. Those that were nothing all the time are only named.
///
/// # Errors
/// When `out` fails.
pub fn table(
    all: &[Series],
    span: Span<'_>,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    let known = all
        .iter()
        .filter_map(|series| Some((series, series.spread()?)));
    let (moving, still): (Vec<_>, Vec<_>) =
        known.partition(|(_, spread)| spread.max != 0.0 || spread.min != 0.0);
    let longest = moving
        .iter()
        .map(|(series, _)| text::width(&series.name))
        .max();
    let name = longest.unwrap_or(0).clamp(14, 34);
    // How old the last ones are, where that is worth a column.
    let ages: Vec<Option<String>> = moving
        .iter()
        .map(|(_, spread)| span.age(spread.last_at))
        .collect();
    let widest = ages.iter().flatten().map(|age| text::width(age)).max();
    let width = widest.map_or(0, |age| age.max("old".len()) + 2);
    if !moving.is_empty() {
        let mut heads = ["last", "least", "mean", "most"].map(|head| format!("{head:>9}"));
        if width > 0
            && let Some(last) = heads.first_mut()
        {
            last.push_str(&format!("{:>width$}", "old"));
        }
        let from = format!("from {} on", span.clock(span.since));
        let mut head = format!("{:<name$}{}", "measure", heads.concat());
        if text::width(&head) + 2 + from.len() <= screen.width {
            head = format!("{head}  {from}");
        } else {
            writeln!(out, "{from}")?;
        }
        writeln!(out, "{}", screen.paint.bold(&head))?;
    }
    let room = screen
        .width
        .min(160)
        .saturating_sub(name + 4 * 9 + width + 2)
        .max(8);
    for ((series, spread), age) in moving.iter().zip(&ages) {
        let columns = series.columns(span.since, span.until, room);
        let values = [spread.last, spread.min, spread.mean, spread.max];
        let mut values = values.map(|value| format!("{:>9}", amount(&series.name, value)));
        if let Some(last) = values.first_mut() {
            last.push_str(&format!("{:>width$}", age.as_deref().unwrap_or_default()));
        }
        let own = Safe(&series.name).to_string();
        let gap = " ".repeat(name.saturating_sub(text::width(&own)));
        let line = format!(
            "{own}{gap}{}  {}",
            values.concat(),
            plot::sparkline(&columns, screen.unicode)
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    if !still.is_empty() {
        let names: Vec<&str> = still
            .iter()
            .map(|(series, _)| series.name.as_str())
            .collect();
        let names = Safe(&names.join(", ")).to_string();
        let names = text::wrap(&names, screen.text_width(), STILL.len());
        writeln!(out, "{STILL}{names}")?;
    }
    Ok(())
}

/// One measure: its bars, what they amount to, and a table of the parts of the time.
///
/// # Errors
/// When `out` fails.
pub fn one(series: &Series, span: Span<'_>, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let name = &series.name;
    writeln!(out, "{}", screen.paint.bold(&Safe(name).to_string()))?;
    let Some(spread) = series.spread() else {
        return writeln!(out, "nothing was measured in this time");
    };
    for line in plot::draw(series, span.since, span.until, span.zone, screen) {
        writeln!(out, "{line}")?;
    }
    let sum = format!(
        "last {} at {}{}, least {}, mean {}, most {} at {}, measured {}",
        amount(name, spread.last),
        span.clock(spread.last_at),
        span.age(spread.last_at)
            .map_or(String::new(), |age| format!(" ({age} ago)")),
        amount(name, spread.min),
        amount(name, spread.mean),
        amount(name, spread.max),
        span.clock(spread.max_at),
        crate::model::words::count(series.points.len() as u64, "time"),
    );
    writeln!(out, "\n{}\n", text::wrap(&sum, screen.text_width(), 0))?;
    let heads = ["least", "mean", "most", "last"].map(|head| format!("{head:>10}"));
    writeln!(
        out,
        "{}",
        screen
            .paint
            .bold(&format!("{:<21}{}", "from", heads.concat()))
    )?;
    let step = (span.until.as_millisecond() - span.since.as_millisecond()) / PARTS as i64;
    for (at, part) in (0i64..).zip(series.columns(span.since, span.until, PARTS)) {
        let Ok(from) = Timestamp::from_millisecond(span.since.as_millisecond() + at * step) else {
            continue;
        };
        let values = match part {
            Some(part) => {
                [part.min, part.mean, part.max, part.last].map(|value| amount(name, value))
            }
            // What nobody measured is not 0.
            None => ["-"; 4].map(str::to_owned),
        };
        let values = values.map(|value| format!("{value:>10}"));
        writeln!(out, "{:<21}{}", span.clock(from), values.concat())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Point;
    use crate::render::paint::Paint;

    #[test]
    fn amounts_are_said_in_their_unit() {
        let table = [
            ("tcp.established", 12_418.0, "12,418"),
            ("tcp.closing", 0.0, "0"),
            ("closes.rate", 0.4, "0.4"),
            ("closes.rate", 1234.5, "1,235"),
            ("tcp.total.growth", -3.0, "-3"),
            ("listener[443].queue-ratio", 0.871, "87 %"),
            ("conntrack.ratio", 0.0123, "1.2 %"),
            ("orphans.ratio", 0.0, "0 %"),
        ];
        for (name, value, words) in table {
            assert_eq!(amount(name, value), words, "{name}");
        }
    }

    fn shown(width: usize) -> String {
        let at = |second| Timestamp::from_second(second).unwrap();
        let series = |name: &str, value: fn(i64) -> f64| Series {
            name: name.to_owned(),
            points: (0..12)
                .map(|n| Point {
                    taken: at(n * 300),
                    value: value(n),
                    boot: 0,
                })
                .collect(),
        };
        let all = [
            series("tcp.close-wait", |n| (n * 50) as f64),
            series("tcp.closing", |_| 0.0),
            series("listener[443].queue-ratio", |n| n as f64 / 20.0),
        ];
        let zone = TimeZone::UTC;
        let span = Span {
            since: at(0),
            until: at(3600),
            now: at(3600),
            zone: &zone,
        };
        let screen = Screen {
            width,
            unicode: true,
            paint: Paint(false),
        };
        let mut out = Vec::new();
        table(&all, span, screen, &mut out).unwrap();
        out.extend(b"\n");
        one(&all[0], span, screen, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_screen_of_it() {
        let page = shown(80);
        assert!(page.lines().all(|line| text::width(line) <= 80), "{page}");
        let expected = "\
measure                       last    least     mean     most  from 00:00:00 on
tcp.close-wait                 550        0      275      550  ▁▂▃▃▃▄▄▅▅▆▆▇▇▇██
listener[443].queue-ratio     55 %      0 %     28 %     55 %  ▁▂▃▃▃▄▄▅▅▆▆▇▇▇██
0 all the time: tcp.closing
";
        let top: String = page
            .lines()
            .take(4)
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(top, expected, "{page}");
        assert!(
            page.contains(
                "last 550 at 00:55:00, least 0, mean 275, most 550 at 00:55:00, measured 12 times"
            ),
            "{page}"
        );
        assert!(
            page.ends_with("00:55:00                    550       550       550       550\n"),
            "{page}"
        );
        assert!(shown(200).lines().any(|line| text::width(line) > 120));
    }

    #[test]
    fn what_is_old_is_not_of_now_and_another_day_has_its_date() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let series = |name: &str, second| Series {
            name: name.to_owned(),
            points: vec![Point {
                taken: at(second),
                value: 7.0,
                boot: 0,
            }],
        };
        let day = 86_400;
        let screen = Screen {
            width: 80,
            unicode: true,
            paint: Paint(false),
        };
        let page = |all: &[Series], since, now| {
            let span = Span {
                since: at(since),
                until: at(now),
                now: at(now),
                zone: &TimeZone::UTC,
            };
            let mut out = Vec::new();
            table(all, span, screen, &mut out).unwrap();
            one(&all[0], span, screen, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let old = page(&[series("a", 4 * 3600), series("b", day)], 3600, day + 60);
        assert!(old.contains("last     old    least"), "{old}");
        assert!(old.contains("from 1970-01-01 01:00 on"), "{old}");
        assert!(
            old.contains("last 7 at 1970-01-01 04:00 (20.0 h ago), least"),
            "{old}"
        );
        let line = |name: &str| {
            let mut lines = old.lines();
            lines
                .find(|line| line.starts_with(name))
                .unwrap()
                .to_owned()
        };
        assert!(
            line("a ").contains("20.0 h") && !line("b ").contains(" h "),
            "{old}"
        );
        let fresh = page(&[series("a", 4 * 3600)], 3600, 4 * 3600 + 600);
        assert!(!fresh.contains("old") && !fresh.contains("1970"), "{fresh}");
        assert!(
            fresh
                .lines()
                .chain(old.lines())
                .all(|line| text::width(line) <= 80)
        );
    }
}
