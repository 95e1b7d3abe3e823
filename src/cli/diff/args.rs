//! The options of `linger diff`.

use std::path::PathBuf;

use clap::{Arg, ValueHint};

use crate::cli::args::Common;

/// What stands below the options.
pub const EXAMPLES: &str = "A is before, B after. Sockets are found again by their cookies, which the kernel gives each once while it runs; where \
a capture was read from /proc/net, by addresses and inode, and that is said. Captures of two hosts, two network namespaces or two \
runs of a machine have no socket in common: then only listeners are compared one by one, by address. \
Of a sequence of looks alone (`linger record --interval`) the first look is compared with the last.

TCP is compared in full, UDP sockets too, and the names on which UNIX sockets listen. Connections in TIME-WAIT that came or went \
are counted. A FILTER, as of `linger list`, restricts listeners and sockets to those that fit it before or after; the \
numbers above them stay those of all. Lists end after 20 lines without --all; --json has all, but for TIME-WAIT.

Examples:
  linger record before.linger                      then deploy, then
  linger record after.linger
  linger diff before.linger after.linger           what did the deploy change?
  linger diff before.linger after.linger --all     every socket
  linger diff night.linger                         a sequence: what came in the night?
  linger diff before.linger after.linger state close-wait
  linger diff before.linger after.linger 'process = checkout'
  linger diff before.linger after.linger --json | jq '.listeners.gone'";

/// `linger diff`
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// The capture that was made before
    #[arg(value_name = "A", value_hint = ValueHint::FilePath)]
    pub before: PathBuf,
    /// The capture that was made after [default: the last look of A, a sequence]
    #[arg(value_name = "B", value_hint = ValueHint::FilePath)]
    pub after: Option<PathBuf>,
    /// Which sockets to list, in the language of `linger list`
    #[arg(value_name = "FILTER", value_hint = ValueHint::Other)]
    pub filter: Vec<String>,
    /// Lists to their ends, and TIME-WAIT too
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub common: Common,
}

/// Hides the options that say which machine is read: two captures are.
pub fn hidden(arg: Arg) -> Arg {
    let of_machines = ["from", "collector", "proc_root", "netns"];
    if of_machines.contains(&arg.get_id().as_str()) {
        arg.hide(true)
    } else {
        arg
    }
}
