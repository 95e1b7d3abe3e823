//! The options of `linger history`.

use std::path::PathBuf;

use clap::{Arg, ValueHint};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

use crate::cli::args::Common;

/// What stands below the options.
pub const EXAMPLES: &str = "What is kept are the sockets in each state, the ratios of ports, TIME-WAIT, orphans and conntrack, closes.rate, the queues of \
listeners, the sockets of the units and processes that hold most, and when findings began, changed and ended. `linger check`, `linger export` and `linger watch` write it down as they look, \
at most every ten seconds; what is older than a day is kept every five minutes, after a week every half hour, for thirty days.
What grows is not kept: it is the slope of what is.

In a curve each column is the most of its time: ▁ is the least there is, 0 included, and · that nobody looked then (_ and ? where \
the terminal has no Unicode). In the table a blank is that nobody looked.

WHAT is a measure, a pattern of measures with *, a finding, or the word findings.

Examples:
  linger history                               every measure of the last day, and the findings
  linger history tcp.close-wait                one measure as a curve
  linger history 'listener[443].*' --since 1h
  linger history findings --since 7d           when what began and ended
  linger history close-wait-leak --since '2026-11-20 08:00'
  linger history 'tcp.*' --csv > tcp.csv
  linger history --json | jq '.measures[] | select(.name == \"tcp.total\")'";

/// `linger history`
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Measures, patterns of measures, findings [default: all]
    #[arg(value_name = "WHAT", value_hint = ValueHint::Other)]
    pub what: Vec<String>,
    /// From when: so long ago (`90min`, `24h`, `7d`), a time of today, a day, or an RFC 3339 time
    #[arg(long, value_name = "WHEN", default_value = "24h", value_parser = moment)]
    pub since: Moment,
    /// Until when [default: now]
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub until: Option<Moment>,
    /// Print comma-separated values: one line a value, or a change of a finding
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Where the history is kept [default: $STATE_DIRECTORY, else /var/lib/linger for root, else $XDG_STATE_HOME/linger]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub common: Common,
}

/// Hides the options that say how sockets are read: none are.
pub fn hidden(arg: Arg) -> Arg {
    let of_sockets = ["from", "collector", "proc_root", "config"];
    if arg.get_id() == "netns" {
        arg.value_name("NAME|PID|PATH")
            .help("Of another network namespace: a name of `ip netns`, a pid, or the path of a namespace file; not all")
    } else if of_sockets.contains(&arg.get_id().as_str()) {
        arg.hide(true)
    } else {
        arg
    }
}

/// A moment as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// so long ago
    Ago(SignedDuration),
    /// at this time of the reader's clock
    Local(DateTime),
    /// today at this time
    Today(jiff::civil::Time),
    /// at this time
    At(Timestamp),
}

impl Default for Moment {
    fn default() -> Self {
        Self::Ago(SignedDuration::from_hours(24))
    }
}

impl Moment {
    /// When that is, for a reader in `zone`.
    pub fn at(self, now: Timestamp, zone: &TimeZone) -> Timestamp {
        let local = |at: DateTime| {
            zone.to_ambiguous_zoned(at)
                .compatible()
                .map_or(now, |at| at.timestamp())
        };
        match self {
            Self::Ago(time) => now.checked_sub(time).unwrap_or(Timestamp::MIN),
            Self::Local(at) => local(at),
            Self::Today(time) => local(now.to_zoned(zone.clone()).date().to_datetime(time)),
            Self::At(at) => at,
        }
    }
}

fn moment(text: &str) -> Result<Moment, String> {
    // Days have no fixed length in civil time; here they are 24 hours, as in "the last seven days".
    let ago = text.parse::<Span>().ok().and_then(|span| {
        let relative = jiff::SpanRelativeTo::days_are_24_hours();
        span.to_duration(relative).ok()
    });
    if let Some(time) = ago.filter(|time| time.is_positive()) {
        return Ok(Moment::Ago(time));
    }
    let at = text.parse().map(Moment::At).ok();
    let local = || text.parse().map(Moment::Local).ok();
    let today = || text.parse().map(Moment::Today).ok();
    at.or_else(local).or_else(today).ok_or_else(|| {
        "expected a time such as 90min, 24h, 7d, 14:30, 2026-11-23, '2026-11-23 14:30' or 2026-11-23T14:30:00Z".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_typed_as_people_say_them() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let table = [
            ("24h", "2026-11-22T12:00:00Z"),
            ("90min", "2026-11-23T10:30:00Z"),
            ("1h 30m", "2026-11-23T10:30:00Z"),
            ("7d", "2026-11-16T12:00:00Z"),
            ("2w", "2026-11-09T12:00:00Z"),
            ("13:30", "2026-11-23T11:30:00Z"),
            ("2026-11-20", "2026-11-19T22:00:00Z"),
            ("2026-11-20 08:00", "2026-11-20T06:00:00Z"),
            ("2026-11-20T08:00:00Z", "2026-11-20T08:00:00Z"),
        ];
        for (text, expected) in table {
            let at = moment(text)
                .unwrap_or_else(|why| panic!("{text}: {why}"))
                .at(now, &zone);
            assert_eq!(at.to_string(), expected, "{text}");
        }
        for wrong in ["", "soon", "-5m", "0s", "24", "1 month", "25:00"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
