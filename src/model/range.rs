//! Ranges of numbers as Monitoring Plugins take them for `-w` and `-c`.

use std::fmt;

/// A range, both ends within it: `[@]START:END`. It alerts on what is outside, with `@` on what is inside.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// `None`: from minus infinity, `~`
    start: Option<f64>,
    /// `None`: without an end
    end: Option<f64>,
    inside: bool,
    text: String,
}

/// A range that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no range: {what}")]
pub struct Error {
    /// as given
    text: String,
    what: &'static str,
}

impl Error {
    /// What to try next.
    pub fn hint(&self) -> &'static str {
        if self.text.ends_with('%') {
            return "a share is given as a number from 0 to 1: 0.7";
        }
        "10 alerts below 0 and above 10, 10: below 10, ~:10 above 10, 10:20 outside, @10:20 inside"
    }
}

impl Range {
    /// Reads `10` (0 to 10), `10:`, `~:10`, `10:20`, and each with `@` before it. Numbers may be negative and have
    /// decimals.
    ///
    /// # Errors
    /// For anything else, and for a range that ends before it begins.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let wrong = |what| Error {
            text: text.to_owned(),
            what,
        };
        let (inside, bounds) = match text.strip_prefix('@') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let number = |part: &str| {
            number(part).ok_or_else(|| wrong("expected [@]START:END, each a number, START also ~"))
        };
        let (start, end) = match bounds.split_once(':') {
            None => (Some(0.0), Some(number(bounds)?)),
            Some(("", "")) => return Err(wrong("it has neither a start nor an end")),
            Some((start, end)) => (
                match start {
                    "" => Some(0.0),
                    "~" => None,
                    start => Some(number(start)?),
                },
                match end {
                    "" => None,
                    end => Some(number(end)?),
                },
            ),
        };
        if start.zip(end).is_some_and(|(start, end)| start > end) {
            return Err(wrong("it ends before it begins"));
        }
        Ok(Self {
            start,
            end,
            inside,
            text: text.to_owned(),
        })
    }

    /// Whether it alerts on `value`.
    pub fn alerts(&self, value: f64) -> bool {
        let within = self.start.is_none_or(|start| start <= value)
            && self.end.is_none_or(|end| value <= end);
        within == self.inside
    }

    /// Why it alerts on `value`: `above 200`, `below 1`, `within @10:20`.
    pub fn words(&self, value: f64) -> String {
        if self.inside {
            return format!("within {}", self.text);
        }
        match (self.start, self.end) {
            (Some(start), _) if value < start => format!("below {start}"),
            (_, Some(end)) => format!("above {end}"),
            _ => format!("outside {}", self.text),
        }
    }

    /// As it was given.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A number without an exponent. Rust would read `inf` and `1e5` too.
fn number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let plain = digits.bytes().all(|c| c.is_ascii_digit() || c == b'.')
        && digits.bytes().any(|c| c.is_ascii_digit());
    if !plain {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_alerts_where_the_guidelines_say() {
        let table: &[(&str, &[f64], &[f64])] = &[
            ("10", &[0.0, 10.0], &[-0.1, 10.1]),
            (":10", &[0.0, 10.0], &[-0.1, 10.1]),
            ("10:", &[10.0, 1e9], &[9.9, -1.0]),
            ("~:10", &[-1e9, 10.0], &[10.1]),
            ("10:20", &[10.0, 20.0], &[9.9, 20.1]),
            ("@10:20", &[9.9, 20.1], &[10.0, 15.0, 20.0]),
            ("@10", &[-0.1, 10.1], &[0.0, 10.0]),
            ("-20:-10", &[-20.0, -10.0], &[-20.1, -9.9, 0.0]),
            ("0.7", &[0.7, 0.0], &[0.71]),
            ("~:", &[0.0, -1e9, 1e9], &[]),
            ("@~:", &[], &[0.0, -1e9, 1e9]),
            ("5:5", &[5.0], &[4.9, 5.1]),
            ("0", &[0.0], &[1.0, -1.0]),
        ];
        for (text, quiet, loud) in table {
            let range = Range::parse(text).unwrap();
            for value in *quiet {
                assert!(!range.alerts(*value), "{text} {value}");
            }
            for value in *loud {
                assert!(range.alerts(*value), "{text} {value}");
            }
            assert_eq!(range.text(), *text);
        }
    }

    #[test]
    fn what_is_no_range_is_named() {
        for text in [
            "", ":", "@", "@:", "~", "a", "10:5", "-10", "1e3", "inf", "nan", "10:20:30", "1,5",
            "1 0", "10%", "--5", "1.2.3", ".", "10:~", "@@10", "0x10",
        ] {
            let error = Range::parse(text).unwrap_err();
            assert!(error.to_string().contains(&format!("'{text}'")), "{error}");
        }
        assert!(Range::parse("70%").unwrap_err().hint().contains("0.7"));
    }

    #[test]
    fn it_says_why() {
        let words = |text: &str, value| Range::parse(text).unwrap().words(value);
        assert_eq!(words("200", 812.0), "above 200");
        assert_eq!(words("1:", 0.0), "below 1");
        assert_eq!(words("200", -1.0), "below 0");
        assert_eq!(words("@10:20", 15.0), "within @10:20");
        assert_eq!(words("~:0.9", 1.0), "above 0.9");
    }
}
