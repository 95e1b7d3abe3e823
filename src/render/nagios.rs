//! The output of a plugin, as the Monitoring Plugins guidelines have it: `LINGER WARNING - text | perfdata`, and the
//! exit code.

use std::fmt::Write;

use super::text::safe;
use crate::model::Overall;

/// How long the text before the perfdata may get, characters: pagers and tables of schedulers cut it off.
pub const LINE: usize = 200;

/// The exit code.
pub const fn code(overall: Overall) -> u8 {
    match overall {
        Overall::Ok => 0,
        Overall::Warning => 1,
        Overall::Critical => 2,
        Overall::Unknown => 3,
    }
}

/// The word for it.
pub const fn word(overall: Overall) -> &'static str {
    match overall {
        Overall::Ok => "OK",
        Overall::Warning => "WARNING",
        Overall::Critical => "CRITICAL",
        Overall::Unknown => "UNKNOWN",
    }
}

/// One value of perfdata.
#[derive(Clone, Debug, PartialEq)]
pub struct Perf<'a> {
    /// its name
    pub label: &'a str,
    /// how much
    pub value: f64,
    /// `s`, or nothing
    pub unit: &'a str,
    /// the range that warns, as given
    pub warn: &'a str,
    /// the range that is critical, as given
    pub crit: &'a str,
    /// the least that it can be
    pub least: Option<f64>,
}

impl<'a> Perf<'a> {
    /// A number that cannot be negative, held against nothing.
    pub const fn plain(label: &'a str, value: f64) -> Self {
        Self {
            label,
            value,
            unit: "",
            warn: "",
            crit: "",
            least: Some(0.0),
        }
    }

    fn write(&self, out: &mut String) {
        let Self {
            unit, warn, crit, ..
        } = self;
        let least = self.least.map(number).unwrap_or_default();
        let value = format!("{}{unit};{warn};{crit};{least}", number(self.value));
        // Writing to a String does not fail.
        let _ = write!(
            out,
            "'{}'={}",
            label(self.label),
            value.trim_end_matches(';')
        );
    }
}

/// The status and the text as they stand on the line, without perfdata.
pub fn head(overall: Overall, said: &str) -> String {
    let said = text(said);
    let head = format!("LINGER {} - ", word(overall));
    let room = LINE.saturating_sub(head.len());
    if said.chars().count() <= room {
        return head + &said;
    }
    let kept: String = said.chars().take(room.saturating_sub(3)).collect();
    format!("{head}{kept}...")
}

/// Whether the text stands on the line whole.
pub fn fits(overall: Overall, said: &str) -> bool {
    let head = format!("LINGER {} - ", word(overall));
    head.len() + text(said).chars().count() <= LINE
}

/// The whole line, with its end.
pub fn line(overall: Overall, said: &str, values: &[Perf<'_>]) -> String {
    let mut line = head(overall, said);
    for (at, value) in values.iter().enumerate() {
        line.push_str(if at == 0 { " | " } else { " " });
        value.write(&mut line);
    }
    line.push('\n');
    line
}

/// Text in which nothing steers a terminal, begins a line or begins perfdata.
pub fn text(said: &str) -> String {
    let mut one = String::with_capacity(said.len());
    for (at, line) in said.lines().enumerate() {
        one.push_str(if at == 0 { "" } else { " " });
        safe(line.trim_end(), &mut one);
    }
    one.replace('|', "_")
}

/// A name that readers of perfdata find the end of.
fn label(name: &str) -> String {
    text(name).replace(['\'', '='], "_")
}

/// A number without an exponent, with six decimals at most.
pub fn number(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match text {
        "-0" => "0".to_owned(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_behind_the_text() {
        let held = Perf {
            warn: "50",
            crit: "~:200",
            ..Perf::plain("tcp.close-wait", 60.0)
        };
        let time = Perf {
            unit: "s",
            ..Perf::plain("time", 0.25)
        };
        assert_eq!(
            line(Overall::Warning, "60 CLOSE-WAIT", &[held, time]),
            "LINGER WARNING - 60 CLOSE-WAIT | 'tcp.close-wait'=60;50;~:200;0 'time'=0.25s;;;0\n"
        );
        let growth = Perf {
            least: None,
            warn: "5",
            ..Perf::plain("tcp.total.growth", -1.5)
        };
        assert_eq!(
            line(Overall::Ok, "", &[growth]),
            "LINGER OK -  | 'tcp.total.growth'=-1.5;5\n"
        );
        assert_eq!(line(Overall::Unknown, "x", &[]), "LINGER UNKNOWN - x\n");
    }

    #[test]
    fn names_of_others_do_no_harm() {
        let evil = "process[a'b=c|d\ne\u{1b}[m\u{202e}].total";
        let line = line(Overall::Ok, evil, &[Perf::plain(evil, 1.0)]);
        assert_eq!(line.lines().count(), 1);
        assert_eq!(line.matches('|').count(), 1);
        assert_eq!(line.matches('\'').count(), 1 + 2, "{line}");
        assert!(!line.contains(['\u{1b}', '\u{202e}']));
    }

    #[test]
    fn long_text_is_cut_and_keeps_its_values() {
        let line = line(Overall::Ok, &"ä".repeat(500), &[Perf::plain("a", 1.0)]);
        let (text, values) = line.split_once(" | ").unwrap();
        assert_eq!(text.chars().count(), LINE);
        assert_eq!(values, "'a'=1;;;0\n");
    }

    #[test]
    fn numbers_have_no_exponent() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.1 + 0.2, "0.3"),
            (1e21, "1000000000000000000000"),
            (1e-9, "0"),
            (0.033_333_333, "0.033333"),
            (100.0, "100"),
            (-2.5, "-2.5"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
