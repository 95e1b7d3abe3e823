//! The options of `linger watch`.

use std::time::Duration;

use clap::ValueHint;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::cli::args::{Common, Select, duration};
use crate::cli::remember;
use crate::tui::tabs::TabId;

/// What the help says beside the options.
pub const EXAMPLES: &str = "Keys: ? shows all of them; Tab and 1 to 5 change the tab, / filters sockets, space pauses, q quits.

A look that takes more than a tenth of the interval makes the next ones rarer, and the screen says so. Owners are read \
for new sockets only, all of them once in a while.

The dashboard reads and keeps the history that `linger history` shows; --once and --batch do not.

--once and --batch draw as wide and high as the terminal, or as COLUMNS and LINES \
say, else 80x24; they look twice before the first frame, because one look shows no change. With --json they print \
what the overview shows, a document a frame.

Examples:
  linger watch
  linger watch --interval 5s
  linger watch state close-wait            the sockets that fit, first
  linger watch --tab machine               the state machine, first
  linger watch --from web-7.linger         replay a recording: space plays, , and . step
  linger watch --once                      one frame as text
  watch -t -n 5 linger watch --once        under watch(1)
  linger watch --batch --count 60 > log    a frame a tick, like top -b";

/// `linger watch`
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How often to look
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub interval: Duration,
    /// The tab to begin with [default: overview; with a FILTER, sockets]
    #[arg(long, value_name = "TAB", value_parser = tabs())]
    pub tab: Option<TabId>,
    /// Print one frame as text
    #[arg(long)]
    pub once: bool,
    /// Print a frame a tick as text, until interrupted
    #[arg(long, conflicts_with = "once")]
    pub batch: bool,
    /// With --batch: so many frames
    #[arg(long, value_name = "N", requires = "batch", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Do not read who holds the sockets
    #[arg(long)]
    pub no_owners: bool,
    /// Leave the mouse to the terminal, which then selects text as usual
    #[arg(long)]
    pub no_mouse: bool,
    /// Which sockets to show, in the language of `linger list`
    #[arg(value_name = "FILTER", value_hint = ValueHint::Other)]
    pub filter: Vec<String>,
    #[command(flatten)]
    pub past: remember::Args,
    #[command(flatten)]
    pub select: Select,
    #[command(flatten)]
    pub common: Common,
}

/// Reads the name of a tab, which completions know too.
fn tabs() -> impl TypedValueParser<Value = TabId> {
    PossibleValuesParser::new(TabId::ALL.map(TabId::slug)).try_map(|name| {
        let mut all = TabId::ALL.into_iter();
        all.find(|tab| tab.slug() == name)
            .ok_or("there is no such tab")
    })
}
