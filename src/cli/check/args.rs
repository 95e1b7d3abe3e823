//! The options of `linger check`: -w, -c, -t, -H, -v, -V and -h mean what they mean to every plugin.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, Parser, ValueHint};

use crate::analyze::measures::{self, Asked};
use crate::cli::args::{Common, Select, duration};
use crate::cli::failure::Failure;
use crate::cli::remember;
use crate::model::range::{self, Range};

/// What stands below the options.
pub const EXAMPLES: &str = "Prints one line, and exits with 0 OK, 1 WARNING, 2 CRITICAL or 3 UNKNOWN. Whatever stops it from judging is UNKNOWN: wrong \
usage, a configuration that is not understood, a time-out. Called as check_linger, --help, --version and --list-metrics exit with 3 \
too, as the guidelines for plugins have it.

Without --metric every finding counts, warning and critical as `linger diagnose` has them; info is OK. It reads the \
sockets once, and counters again a second later. A check that cannot tell is no alarm, unless it was asked for with --only, \
or none can.

--quiet and --on-change print a line behind it for each finding and metric that is (new), (worse), (better) or (ended) since the \
last run that asked the same: with the same --only, --skip, --threshold, --expect-listener, --metric, limits and FILTER, and the \
same of --quiet, --on-change and --no-owners.

With --metric numbers are held against ranges. Only they are judged then, unless --only asks for findings too. Each -w \
and -c belongs to the --metric before it. A FILTER, in the language of `linger list`, narrows the metrics tcp.STATE, \
tcp.total, closes.rate, and STATE and total of process[COMM] and unit[UNIT] to the sockets that fit.

RANGE alerts outside of START:END, ends included within; with @ before it inside:
  10        below 0 and above 10
  10:       below 10
  ~:10      above 10
  10:20     below 10 and above 20
  @10:20    from 10 to 20

Examples:
  linger check                                     every finding
  linger check --quiet                             for cron: prints only what is wrong
  linger check --only close-wait-leak,listen-overflow
  linger check --expect-listener 443=nginx.service
  linger check --metric tcp.close-wait -w 50 -c 200
  linger check --metric 'listener[443].queue-ratio' -w 0.7 -c 0.9
  linger check --metric tcp.established -c 1: sport = :5432
  linger check --metric 'process[checkout].fd-ratio' -w 0.8 -c 0.9 --metric conntrack.ratio -w 0.75
  linger check --list-metrics
  linger check --json | jq .status
  ln -s /usr/bin/linger /usr/lib/nagios/plugins/check_linger";

/// The plugin by itself.
#[derive(Debug, Parser)]
#[command(
    name = "check_linger",
    version,
    about = "Health check for cron, Nagios and Icinga: one line, perfdata, exit code 0 to 3",
    after_help = EXAMPLES,
    mut_args = hidden
)]
pub struct Plugin {
    /// its options
    #[command(flatten)]
    pub args: Args,
}

/// `linger check`
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub limits: Limits,
    /// List the metrics
    #[arg(long)]
    pub list_metrics: bool,
    /// UNKNOWN after so many seconds
    #[arg(short = 't', long, value_name = "SECONDS", default_value = "10", value_parser = duration)]
    pub timeout: Duration,
    /// More lines: the findings and what could not be judged; -vv with the measurements; -vvv in full
    #[arg(short = 'v', long, action = ArgAction::Count)]
    pub verbose: u8,
    /// Print nothing if all is OK
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Print only if a finding has come, gone or changed its severity since the last run
    #[arg(long)]
    pub on_change: bool,
    /// 1: do not wait a second to read counters again; of a recorded sequence the last N looks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub samples: Option<u32>,
    /// Do not read who holds the sockets
    #[arg(long)]
    pub no_owners: bool,
    /// Accepted because schedulers give it, and not used: this host is looked at
    #[arg(short = 'H', long, value_name = "HOST")]
    pub hostname: Option<String>,
    /// Which sockets the metrics are about, in the language of `linger list`
    #[arg(value_name = "FILTER", value_hint = ValueHint::Other)]
    pub filter: Vec<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub past: remember::Args,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub select: Select,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub common: Common,
}

/// Hides the option that says nothing here: there are no colours.
pub fn hidden(arg: Arg) -> Arg {
    let colour = arg.get_id() == "color";
    if colour { arg.hide(true) } else { arg }
}

impl Args {
    /// A number for what is asked: two runs that ask the same, and may be compared for what has changed, have the same.
    pub fn question(&self) -> u64 {
        use std::hash::{Hash, Hasher};
        let select = &self.select;
        let lists = [
            &select.only,
            &select.skip,
            &select.threshold,
            &select.expect_listener,
            &self.filter,
        ];
        let mut hasher = rustc_hash::FxHasher::default();
        // Who asks without these must not take the news from who asks with them.
        let how = (self.on_change, self.quiet, self.no_owners);
        (lists, how, &self.limits.0).hash(&mut hasher);
        hasher.finish()
    }
}

/// `--metric`, `-w` and `-c` in the order in which they were given, which is what binds them.
#[derive(Clone, Debug, Default)]
pub struct Limits(Vec<(Kind, String)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Metric,
    Warning,
    Critical,
}

const KINDS: [(&str, Kind); 3] = [
    ("metric", Kind::Metric),
    ("warning", Kind::Warning),
    ("critical", Kind::Critical),
];

/// A measure and what it is held against.
#[derive(Clone, Debug)]
pub struct Limited {
    /// the measure
    pub asked: Asked,
    /// warns
    pub warn: Option<Range>,
    /// is critical
    pub crit: Option<Range>,
}

impl Limits {
    /// Whether there is no --metric.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The measures, each with the limits behind it.
    ///
    /// # Errors
    /// For a name or a range that is none, a limit before any measure, a measure without a limit, and for what was given
    /// twice.
    pub fn bound(&self) -> Result<Vec<Limited>, Failure> {
        let mut all: Vec<Limited> = Vec::new();
        for (kind, text) in &self.0 {
            if *kind == Kind::Metric {
                let asked = measures::parse(text)?;
                if all.iter().any(|other| other.asked.label == asked.label) {
                    return Err(Failure::usage(
                        format!("--metric {} is there twice", asked.label),
                        "one metric takes one -w and one -c".to_owned(),
                    ));
                }
                all.push(Limited {
                    asked,
                    warn: None,
                    crit: None,
                });
                continue;
            }
            let letter = if *kind == Kind::Warning { "-w" } else { "-c" };
            let Some(last) = all.last_mut() else {
                return Err(Failure::usage(
                    format!("{letter} {text} stands before any --metric"),
                    "a limit belongs to the metric before it: --metric tcp.close-wait -w 50 -c 200"
                        .to_owned(),
                ));
            };
            let range = Range::parse(text)?;
            let place = match kind {
                Kind::Warning => &mut last.warn,
                _ => &mut last.crit,
            };
            if place.replace(range).is_some() {
                return Err(Failure::usage(
                    format!("--metric {} has {letter} twice", last.asked.label),
                    "one metric takes one -w and one -c".to_owned(),
                ));
            }
        }
        match all
            .iter()
            .find(|one| one.warn.is_none() && one.crit.is_none())
        {
            Some(bare) => Err(Failure::usage(
                format!("--metric {} has neither -w nor -c", bare.asked.label),
                "put one behind it: -w RANGE, -c RANGE; '-w ~:' never alerts".to_owned(),
            )),
            None => Ok(all),
        }
    }
}

impl clap::Args for Limits {
    fn augment_args(command: Command) -> Command {
        let option = |id: &'static str, help: &'static str| {
            Arg::new(id)
                .long(id)
                .action(ArgAction::Append)
                .help(help)
                .help_heading("Metrics")
        };
        command
            .arg(
                option("metric", "Hold this number against -w and -c; repeatable")
                    .value_name("NAME"),
            )
            .arg(
                option(
                    "warning",
                    "WARNING if the metric before it is outside of RANGE",
                )
                .short('w')
                .value_name("RANGE")
                .allow_hyphen_values(true),
            )
            .arg(
                option(
                    "critical",
                    "CRITICAL if the metric before it is outside of RANGE",
                )
                .short('c')
                .value_name("RANGE")
                .allow_hyphen_values(true),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Limits {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut all: Vec<(usize, Kind, String)> = Vec::new();
        for (id, kind) in KINDS {
            let indices = matches.indices_of(id).into_iter().flatten();
            let values = matches.get_many::<String>(id).into_iter().flatten();
            all.extend(
                indices
                    .zip(values)
                    .map(|(at, text)| (at, kind, text.clone())),
            );
        }
        all.sort_by_key(|(at, ..)| *at);
        Ok(Self(
            all.into_iter()
                .map(|(_, kind, text)| (kind, text))
                .collect(),
        ))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl From<range::Error> for Failure {
    fn from(error: range::Error) -> Self {
        Self::usage(error.to_string(), error.hint().to_owned())
    }
}

impl From<measures::Error> for Failure {
    fn from(error: measures::Error) -> Self {
        Self::usage(error.to_string(), error.hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the words mean, or what is wrong with them.
    fn bound(line: &str) -> String {
        let words = ["check_linger"].into_iter().chain(line.split_whitespace());
        let args = Plugin::try_parse_from(words).unwrap().args;
        let all = match args.limits.bound() {
            Ok(all) => all,
            Err(failure) => return failure.to_string(),
        };
        let text = |range: &Option<Range>| range.as_ref().map_or("-", Range::text).to_owned();
        let one = |one: &Limited| {
            format!(
                "{} {} {}",
                one.asked.label,
                text(&one.warn),
                text(&one.crit)
            )
        };
        all.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_limit_belongs_to_the_metric_before_it() {
        for (line, meant) in [
            ("--metric tcp.estab -w 5 -c 9", "tcp.established 5 9"),
            ("--metric tcp.estab -c 9", "tcp.established - 9"),
            (
                "--metric tcp.estab -c 9 --metric tcp.total --warning=-5:5 -c ~:3",
                "tcp.established - 9, tcp.total -5:5 ~:3",
            ),
            ("--metric=tcp.total -w5 -c@1:2", "tcp.total 5 @1:2"),
            ("--metric tcp.total -w -5:-1", "tcp.total -5:-1 -"),
            ("", ""),
        ] {
            assert_eq!(bound(line), meant, "{line}");
        }
    }

    #[test]
    fn what_binds_to_nothing_is_wrong() {
        for (line, what) in [
            (
                "-w 5 --metric tcp.total -c 5",
                "-w 5 stands before any --metric",
            ),
            ("-c 5", "-c 5 stands before any --metric"),
            ("--metric tcp.total", "tcp.total has neither -w nor -c"),
            (
                "--metric tcp.total --metric tcp.estab -w 1",
                "tcp.total has neither",
            ),
            ("--metric tcp.total -w 5 -w 6", "has -w twice"),
            ("--metric tcp.total -c 5 -c 6", "has -c twice"),
            (
                "--metric tcp.estab -w 5 --metric tcp.ESTABLISHED -w 6",
                "tcp.established is there twice",
            ),
            ("--metric tcp.total -w 9:1", "'9:1' is no range"),
            ("--metric tcp.total -w --quiet", "'--quiet' is no range"),
            ("--metric tcp.totla -w 1", "did you mean 'tcp.total'?"),
        ] {
            let said = bound(line);
            assert!(said.contains(what), "{line}: {said}");
        }
    }
}
