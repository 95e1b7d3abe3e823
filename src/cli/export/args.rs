//! The options of `linger export`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ValueHint};

use crate::cli::args::{Common, Select, duration};
use crate::cli::failure::Failure;
use crate::cli::remember;
use crate::cli::source;

/// Where it listens unless told otherwise: on loopback, at a port of the range that exporters use.
pub const ADDRESS: &str = "127.0.0.1:9995";

/// What the help says beside the options.
pub const EXAMPLES: &str = "Serves metrics over HTTP until SIGTERM or SIGINT, or writes them to a file with --textfile. Each scrape reads the machine \
afresh; scrapes that come while one reads share the next reading. One that takes longer than X-Prometheus-Scrape-Timeout-Seconds \
allows is answered with 503. If the sockets cannot be read, linger_source_up is 0 and no value is old.

Findings are judged by the scrapes before, so that what grows is seen to grow.

There is no access control: listen on loopback, or behind something that has one.

Examples:
  linger export                                    http://127.0.0.1:9995/metrics
  linger export --web.listen-address :9995         on every address
  linger export --web.listen-address 10.0.0.5:9995 --web.listen-address '[::1]:9995'
  linger export --skip backlog-clamped --expect-listener 443=nginx.service
  linger export --netns web                        the sockets of a namespace, served in this one
  linger export --textfile /var/lib/prometheus/node-exporter/linger.prom
  linger export --textfile linger.prom --interval 15s
  linger export --textfile - | promtool check metrics
  linger export --from web-7.linger --textfile -";

/// `linger export`
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Serve on this address; without one, on all, of IPv6 and IPv4; port 0 is any that is free; may be repeated [default: 127.0.0.1:9995]
    #[arg(
        long = "web.listen-address",
        value_name = "[ADDR]:PORT",
        conflicts_with = "textfile"
    )]
    pub listen: Vec<String>,
    /// The path of the metrics
    #[arg(
        long = "web.telemetry-path",
        value_name = "PATH",
        default_value = "/metrics",
        conflicts_with = "textfile"
    )]
    pub path: String,
    /// Write the metrics to a file for node_exporter's textfile collector, whole or not at all, and end; - is standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub textfile: Option<PathBuf>,
    /// With --textfile: stay, and write it again so often
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "textfile")]
    pub interval: Option<Duration>,
    /// Do not read who holds the sockets
    #[arg(long)]
    pub no_owners: bool,
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

impl Args {
    /// Whether the file is standard output.
    pub fn to_stdout(&self) -> bool {
        self.textfile.as_deref() == Some("-".as_ref())
    }

    /// That what is asked for goes together.
    ///
    /// # Errors
    /// If it does not.
    pub fn check(&self) -> Result<(), Failure> {
        source::only_one(&self.common, "metrics are")?;
        if self.common.json {
            return Err(Failure::usage(
                "--json: metrics have the text format of Prometheus".to_owned(),
                "'linger status --json' has the numbers as JSON".to_owned(),
            ));
        }
        if self.to_stdout() && self.interval.is_some() {
            return Err(Failure::usage(
                "--interval: standard output is written once".to_owned(),
                "name a file, which is replaced each time".to_owned(),
            ));
        }
        if !self.path.starts_with('/') || self.path.contains(['?', '#', ' ']) {
            return Err(Failure::usage(
                format!("--web.telemetry-path '{}' is no path", self.path),
                "it begins with a slash, as /metrics".to_owned(),
            ));
        }
        if self.path == super::answer::HEALTHY {
            return Err(Failure::usage(
                format!("--web.telemetry-path '{}' is taken", self.path),
                "it answers whether linger is alive; /metrics is usual".to_owned(),
            ));
        }
        Ok(())
    }
}

/// Hides the options that are about the form of other commands.
pub fn hidden(arg: Arg) -> Arg {
    if ["json", "color"].contains(&arg.get_id().as_str()) {
        arg.hide(true)
    } else {
        arg
    }
}
