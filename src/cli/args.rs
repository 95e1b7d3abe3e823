//! The options of every command, from which help, man pages and completions are made.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{
    Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint,
};

use super::{check, diff, export, history, watch};

/// The program.
#[derive(Debug, Parser)]
#[command(
    name = "linger",
    version,
    about = "Which sockets are stuck, in which TCP state, whose fault is it, and what to do now",
    after_help = EXAMPLES,
    disable_help_subcommand = true,
    override_usage = "linger [OPTIONS]                     one screen: states, findings, who holds most\n       \
                      linger SUBJECT                       a port, :port, address, pid or program\n       \
                      linger [-tanp...] [FILTER]           sockets as rows, with the flags of ss\n       \
                      linger COMMAND [OPTIONS]"
)]
pub struct Cli {
    /// what to do
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads what is typed, the program's name first. Flags of `list` may be repeated, as fingers do (`-nn`); of an option
    /// with a value a second one would silently undo the first.
    ///
    /// # Errors
    /// clap's, which may be help as well.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        // Of how rows are shown the last word counts, so that an alias may have the first; of what is shown none is lost.
        let shown = ["color", "output", "sort", "top"];
        let repeatable = |arg: Arg| {
            let itself = arg.get_id().clone();
            match arg.get_action() {
                ArgAction::SetTrue => arg.overrides_with(itself),
                _ if shown.contains(&itself.as_str()) => arg.overrides_with(itself),
                _ => arg,
            }
        };
        let mut command = Self::command().mut_subcommand("list", |list| list.mut_args(repeatable));
        let words: Vec<OsString> = words.into_iter().collect();
        let matches =
            command
                .try_get_matches_from_mut(&words)
                .map_err(|error| match asked(&words) {
                    Some(name) => super::failure::of_command(error, &format!("linger {name}")),
                    None => error,
                })?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// The command among the words.
fn asked(words: &[OsString]) -> Option<&str> {
    let cli = Cli::command();
    let mut words = words.iter().skip(1).filter_map(|word| word.to_str());
    words.find(|word| *word != "subject" && cli.find_subcommand(word).is_some())
}

const EXAMPLES: &str = "Examples:
  linger                                   what is stuck on this machine
  linger 443                               everything about port 443
  linger nginx                             everything about a program
  linger -tlnp                             who listens where
  linger state close-wait                  sockets that a program does not close
  linger diagnose                          every finding in full: evidence, meaning, advice
  linger watch                             the dashboard: all of this as it changes
  linger explain time-wait                 what the state means, with the number here and now
  linger --netns 2211                      the same screen of a container, by a pid in it
  linger record web-7.linger               take the evidence along
  linger diagnose --from web-7.linger      the same findings, anywhere, later
  linger diff before.linger after.linger   what did the deploy change?

Exit status: 0 done, 1 failed, 2 wrong usage. A view that is partial for lack of privileges is done, with a note on standard error.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// One screen: sockets per state, findings, and who holds most
    #[command(
        after_help = "Examples:\n  linger\n  linger status --json\n  linger status --no-owners        without reading /proc/PID/fd: faster, no names\n  linger status --only close-wait-leak,listen-overflow\n  linger status --from web-7.linger\n  linger watch                      the same as it changes"
    )]
    Status(Status),
    /// Sockets as rows, with the flags of ss and netstat
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// Every finding in full: evidence with its limit, meaning, who must act, what to do
    #[command(
        after_help = "Reads the sockets once, and counters and listeners again a second later: a counter without a difference says nothing.\n\nExamples:\n  linger diagnose\n  linger diagnose --only close-wait-leak\n  linger diagnose --interval 5s --samples 3     repeat the whole look, to see what grows\n  linger diagnose --samples 1                   do not wait\n  linger diagnose --threshold close-wait-leak.age=2min\n  linger diagnose --exit-code > report.txt      10 warning, 11 critical, 12 not to be judged\n  linger diagnose --json --from web-7.linger"
    )]
    Diagnose(Diagnose),
    /// Health check for cron, Nagios and Icinga: one line, perfdata, exit code 0 to 3
    #[command(version, after_help = check::EXAMPLES, mut_args = check::hidden)]
    Check(check::Args),
    /// The dashboard: states, findings, sockets and closings as they change
    #[command(after_help = watch::EXAMPLES, after_long_help = watch::manual::long_help())]
    Watch(watch::Args),
    /// What a state, a finding or a topic means; alone: the TCP state machine with the counts of now
    #[command(
        after_help = "Examples:\n  linger explain                   the state machine with live counts\n  linger explain CLOSE_WAIT        any spelling\n  linger explain listen-overflow   a finding, with its thresholds\n  linger explain handshake         topics: handshake, close, half-close, simultaneous-close, 2msl\n  linger explain --socket state close-wait\n  linger explain --socket 'dst 10.0.0.7 and send-q > 0' --from web-7.linger"
    )]
    Explain(Explain),
    /// Write what the kernel said to a file, for `--from`
    #[command(
        after_help = "The file holds the kernel's own answers, the owners, settings and counters, and the second look that `diagnose` takes. It is readable by its owner only.\n\nWith --interval it holds a sequence of whole looks, each written behind the one before; whatever ends the recording, what is whole stays readable, and `diagnose --from` judges the last look with the rates since the others.\n\nExamples:\n  linger record web-7.linger\n  linger record --interval 1s --for 10m web-7.linger\n  linger record --interval 5s --max-size 4G night.linger     until Ctrl-C, or 4 GiB\n  linger watch --from web-7.linger                           replay it\n  linger --from web-7.linger\n  linger list -tanp --from web-7.linger state close-wait\n  linger diagnose --from web-7.linger"
    )]
    Record(Record),
    /// What changed between two captures: listeners, states, programs, settings, counters, findings, sockets
    #[command(after_help = diff::EXAMPLES, mut_args = diff::hidden)]
    Diff(diff::Args),
    /// What was measured and found before: curves, tables, and when findings began and ended
    #[command(after_help = history::EXAMPLES, mut_args = history::hidden)]
    History(history::Args),
    /// Destroy sockets: a preview first, then with --yes
    #[command(after_help = KILL_EXAMPLES)]
    Kill(Kill),
    /// Metrics for Prometheus: served over HTTP, or written to a file for node_exporter
    #[command(after_help = export::EXAMPLES, mut_args = export::hidden)]
    Export(export::Args),
    /// Everything about one port, program, pid or address
    #[command(name = "subject", hide = true)]
    Subject(SubjectArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  linger completions bash > /etc/bash_completion.d/linger\n  linger completions zsh > ~/.zfunc/_linger\n  linger completions fish > ~/.config/fish/completions/linger.fish"
    )]
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Print the manual page of linger or of one of its commands
    #[command(
        after_help = "Examples:\n  linger man | man -l -\n  linger man list | man -l -\n  linger man --dir man/"
    )]
    Man {
        /// the command, or `findings`
        page: Option<String>,
        /// write all pages into this directory
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "page")]
        dir: Option<PathBuf>,
    },
}

const LIST_EXAMPLES: &str = "FILTER is every word that is not an option, wherever it stands; quote it where it has < > ( ) or !.
  state X, exclude X         in any spelling: close-wait, CLOSE_WAIT, ESTAB;
                             several with commas; groups: all, connected,
                             synchronized, bucket, big
  src HOST, dst HOST         10.0.0.7, 10.0.0.0/8:443, [fd00::/16]:22, ::1,
                             a name; IPv4 finds v4-mapped too
  sport = PORT, dport >= P   a number or a service, with = != < <= > >= or
                             eq ne lt le gt ge
  port = PORT                of either end
  dev = NAME                 the interface that the socket is bound to, not
                             the one of its route
  fwmark = MARK[/MASK]       takes CAP_NET_ADMIN
  cgroup = PATH, cgroup ~ GLOB
                             from the root of the hierarchy or its mount
  autobound                  no bind(2) named the port: most clients, and
                             accepted connections; only a live kernel tells,
                             so not with --from or --collector procfs
  process = NAME, process ~ GLOB, pid = N
  user = NAME, uid = N, unit = NAME
  container = ID, container ~ GLOB, pod = UID
                             an id by its first 12 digits or more, with
                             RUNTIME: in front or without; also by a name
  timer = NAME               retransmit, keepalive, persist, time-wait, none
  COLUMN > VALUE             any column of numbers: recv-q > 64KiB,
                             age > 5min, rtt > 100ms, retrans > 0

They are joined by and, or, not, && || ! and parentheses; `and` may be left out, and binds tighter than `or`. \
The state clauses of one alternative add up; an alternative without one means the states of -a, -l, -B or none of \
these. What is not known fits no comparison; of an age that is known within bounds only what is sure counts.

-F reads an expression from a file: any number of lines, of any length; lines that begin with # are comments.

Unasked, everything but LISTEN, CLOSED and BOUND-INACTIVE is shown; -a shows all, -l LISTEN only, and of what has no \
LISTEN, such as UDP, what waits for anybody. 'linger man list' says all of it.

Examples:
  linger -tulpn                            who listens where, TCP and UDP
  linger -xp                               UNIX sockets, and who holds them
  linger -tanp                             everything, with owners
  linger list state close-wait -p          who does not close
  linger list -o state time-wait           with the time left
  linger list -ti state established        with tcp_info
  linger list 'dst 10.0.0.0/8 and send-q > 0'
  linger list 'process = nginx and age > 5min' state close-wait
  linger list -c state,process,rtt,age --sort -age --top 20
  linger list --group-by state,process     how many of which, the most first
  linger list --group-by peer-address --top 10 state established
  linger list --group-by waiting-on,peer   us, the peer or the network?
  linger list --pair state close-wait      and what the other end waits for
  linger list -p 'container = docker:0123456789ab'
  linger -tlnp --netns all                 who listens where, in every namespace
  linger list exclude established --json   as one JSON document
  linger list -F web.filter state estab    the expression of a file, and more
  linger list --output jsonl | jq .state   one object a line
  linger -tua --output csv > sockets.csv   for a spreadsheet";

const KILL_EXAMPLES: &str = "FILTER is that of `linger list`, and must not be empty, and must name more than states, \
unless it is a single one; without a state in it every state is meant but BOUND-INACTIVE. Without --yes nothing is touched: the sockets are shown, with what \
their programs and peers will notice.

With --yes each socket is looked at once more and destroyed by its cookie (SOCK_DESTROY), so that only the very socket \
dies, even if its ports were used again meanwhile, and only if it still fits. This takes CAP_NET_ADMIN. Before that a \
capture of the sockets that fit is written, with their owners, because the evidence goes with them: into --state-dir, \
else $STATE_DIRECTORY, else /var/lib/linger for root, else $XDG_STATE_HOME/linger or ~/.local/state/linger. Where it \
cannot be written nothing is destroyed. `linger list -a --from FILE` shows what it has of TCP, `linger list -u -a --from \
FILE` what it has of UDP.

Killing is no cure. A destroyed CLOSE-WAIT socket leaves its descriptor open: the program leaks on, unseen. TIME-WAIT \
protects the next connection from late segments (RFC 9293 section 3.6.1), costs no descriptor and goes by itself \
within 60 s. A program without its listener does not serve any more. These are left alone, each unless its option is \
given.

Exit status: 0 if every socket that was to be destroyed was, or was gone before, or if none fits; 1 if one could not \
be, or if all that fit are left alone; 2 for wrong usage.

Examples:
  linger kill dst 10.0.0.7                          what would die
  linger kill dst 10.0.0.7 --yes                    destroy it
  linger kill 'state established and process = batch and age > 1h' --yes
  linger kill state syn-sent dport = :5432 --yes    connect() fails at once
  linger kill state close-wait pid = 2211 --close-wait --yes
  linger kill 'sport = :8080' --listeners           the listener and its connections
  linger kill dst 10.0.0.7 --yes --json | jq '.sockets[] | .result'
  linger list -ap --from /var/lib/linger/kill-20261123T160615.123Z.linger";

/// What every command takes that reads sockets.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Where the data comes from, and how it is shown")]
pub struct Common {
    /// Read a capture, or what `ss -D` wrote, instead of this machine
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub from: Option<PathBuf>,
    /// How to read sockets
    #[arg(long, value_enum, default_value_t = CollectorChoice::Auto)]
    pub collector: CollectorChoice,
    /// Ask the kernel for TCP sockets in so many parts at once; by default in 2 to 4 if there are 50,000 or more and details of each are needed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub dump_threads: Option<u8>,
    /// The proc file system to read: a container's host mount, or a recorded tree
    #[arg(long, value_name = "DIR", default_value = "/proc", value_hint = ValueHint::DirPath)]
    pub proc_root: PathBuf,
    /// Look into another network namespace: a name of `ip netns` (which wins over a pid), a pid, the path of a namespace file, or all
    #[arg(short = 'N', long, alias = "net", value_name = "NAME|PID|PATH|all")]
    pub netns: Option<OsString>,
    /// When to use colours; NO_COLOR and CLICOLOR_FORCE are honoured
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,
    /// Read this configuration instead of /etc/linger/linger.toml and ~/.config/linger/linger.toml [env: LINGER_CONFIG]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Print one JSON document
    #[arg(short = 'j', long)]
    pub json: bool,
}

/// How sockets are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CollectorChoice {
    /// netlink, or /proc/net where the kernel refuses it
    #[default]
    Auto,
    /// sock_diag over netlink, or fail
    Netlink,
    /// the tables of /proc/net
    Procfs,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// on a terminal
    #[default]
    Auto,
    /// always
    Always,
    /// never
    Never,
}

/// Which detectors run, with which limits.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Findings")]
pub struct Select {
    /// Run these only (comma-separated)
    #[arg(long, value_name = "FINDING,...")]
    pub only: Vec<String>,
    /// Leave these out (comma-separated)
    #[arg(long, value_name = "FINDING,...")]
    pub skip: Vec<String>,
    /// Set a limit; `linger explain FINDING` shows which there are
    #[arg(long, value_name = "FINDING.KEY=VALUE")]
    pub threshold: Vec<String>,
    /// What has to be listened on, by whom if a unit is given: listener-vanished is critical otherwise
    #[arg(long, value_name = "[ADDR:]PORT[=UNIT]")]
    pub expect_listener: Vec<String>,
}

/// `linger status`
#[derive(Clone, Debug, Default, Args)]
pub struct Status {
    /// Do not read who holds the sockets
    #[arg(long)]
    pub no_owners: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub select: Select,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub common: Common,
}

/// `linger diagnose`
#[derive(Clone, Debug, Args)]
pub struct Diagnose {
    /// Time between two whole looks [default: 1s, with two looks]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub interval: Option<Duration>,
    /// How many whole looks [default: one, and a light second one]; of a recorded sequence the last N [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub samples: Option<u32>,
    /// Exit with what was found: 0 nothing above info, 10 warning, 11 critical, 12 not to be judged
    #[arg(long)]
    pub exit_code: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub select: Select,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub common: Common,
}

/// `linger explain`
#[derive(Clone, Debug, Args)]
pub struct Explain {
    /// A state in any spelling, a finding's id, or a topic
    pub what: Option<String>,
    /// The story of each socket that fits, of ten at most: how it came into its state, what it awaits, what ends that
    #[arg(long, value_name = "FILTER", num_args = 1.., conflicts_with = "what")]
    pub socket: Vec<String>,
    /// As --socket, with the filter, or more of it, in a file; - is standard input
    #[arg(short = 'F', long = "filter", value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "what")]
    pub filter_file: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub common: Common,
}

/// `linger record`
#[derive(Clone, Debug, Args)]
pub struct Record {
    /// The file to write
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Record whole looks, one each TIME, into one file [default: one look]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub interval: Option<Duration>,
    /// End a sequence after so long; else Ctrl-C (SIGINT) or SIGTERM ends it
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub length: Option<Duration>,
    /// End a sequence before the file gets larger than this: 100MiB, 4G [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_size: Option<u64>,
    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub common: Common,
}

/// `linger kill`
#[derive(Clone, Debug, Default, Args)]
pub struct Kill {
    /// Destroy them; without it they are only shown
    #[arg(long)]
    pub yes: bool,
    /// TCP sockets (the default)
    #[arg(short = 't', long)]
    pub tcp: bool,
    /// UDP sockets
    #[arg(short = 'u', long)]
    pub udp: bool,
    /// Sockets of IPv4 only
    #[arg(short = '4', long)]
    pub ipv4: bool,
    /// Sockets of IPv6 only
    #[arg(short = '6', long)]
    pub ipv6: bool,
    /// LISTEN sockets too, and of UDP those without a peer
    #[arg(long)]
    pub listeners: bool,
    /// CLOSE-WAIT sockets too, although their programs keep the descriptors
    #[arg(long)]
    pub close_wait: bool,
    /// TIME-WAIT sockets too, although they protect the next connection and go by themselves
    #[arg(long)]
    pub time_wait: bool,
    /// Where the capture is written
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// Write no capture of the sockets before they are destroyed
    #[arg(long, conflicts_with = "state_dir")]
    pub no_capture: bool,
    /// Read the filter from a file, - being standard input; a socket has to fit the words of the line too
    #[arg(short = 'F', long = "filter", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub filter_file: Option<PathBuf>,
    /// Which sockets, in the language of `linger list`
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub common: Common,
}

/// `linger SUBJECT`
#[derive(Clone, Debug, Args)]
pub struct SubjectArgs {
    /// port, :port, port:N, pid:N, address, or a program's name
    pub subject: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub select: Select,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub common: Common,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// aligned columns
    #[default]
    Table,
    /// one document
    Json,
    /// one object a line
    Jsonl,
    /// comma-separated values
    Csv,
    /// aligned columns, more of them, never wrapped
    Wide,
}

/// `linger list`
#[derive(Clone, Debug, Default, Args)]
pub struct List {
    /// TCP sockets (the default; with -l UDP too)
    #[arg(short = 't', long)]
    pub tcp: bool,
    /// UDP sockets
    #[arg(short = 'u', long)]
    pub udp: bool,
    /// UDP-Lite sockets
    #[arg(long)]
    pub udplite: bool,
    /// RAW sockets
    #[arg(short = 'w', long)]
    pub raw: bool,
    /// UNIX sockets
    #[arg(short = 'x', long)]
    pub unix: bool,
    /// PACKET sockets
    #[arg(short = '0', long)]
    pub packet: bool,
    /// MPTCP sockets, whose subflows are sockets of TCP
    #[arg(short = 'M', long)]
    pub mptcp: bool,
    /// SCTP sockets
    #[arg(short = 'S', long)]
    pub sctp: bool,
    /// VSOCK sockets
    #[arg(long)]
    pub vsock: bool,
    /// NETLINK sockets
    #[arg(long)]
    pub netlink: bool,
    /// Sockets of a family: unix, inet, inet6, link, netlink or vsock
    #[arg(short = 'f', long, value_name = "FAMILY")]
    pub family: Option<String>,
    /// These tables (comma-separated): all, inet, tcp, udp, raw, unix, u_dgr, packet, netlink, ...; !TABLE leaves one out
    #[arg(short = 'A', long, alias = "socket", value_name = "TABLE,...")]
    pub query: Vec<String>,
    /// Sockets of IPv4 only
    #[arg(short = '4', long)]
    pub ipv4: bool,
    /// Sockets of IPv6 only (an IPv4 conversation on one is shown as [::ffff:a.b.c.d])
    #[arg(short = '6', long)]
    pub ipv6: bool,
    /// Every state, LISTEN and BOUND-INACTIVE included
    #[arg(short = 'a', long)]
    pub all: bool,
    /// LISTEN only; of what has no LISTEN, such as UDP, those that wait for anybody
    #[arg(short = 'l', long)]
    pub listening: bool,
    /// BOUND-INACTIVE only: bound to a port, neither listening nor connected
    #[arg(short = 'B', long)]
    pub bound_inactive: bool,
    /// Numbers instead of names, which is the default: a diagnosis must not wait for a name server
    #[arg(short = 'n', long, overrides_with = "resolve")]
    pub numeric: bool,
    /// Names of addresses and services, as far as the resolver knows them within 2 s; of -n and -r the last one counts
    #[arg(
        short = 'r',
        long,
        overrides_with = "numeric",
        conflicts_with = "group_by"
    )]
    pub resolve: bool,
    /// Timers: name, time left, retries
    #[arg(short = 'o', long = "options")]
    pub timers: bool,
    /// Inode, uid, cookie, mark, cgroup
    #[arg(short = 'e', long)]
    pub extended: bool,
    /// Memory: buffers, their limits, drops
    #[arg(short = 'm', long)]
    pub memory: bool,
    /// tcp_info, congestion control, and for how long the state has lasted
    #[arg(short = 'i', long)]
    pub info: bool,
    /// The processes that hold the socket
    #[arg(short = 'p', long)]
    pub processes: bool,
    /// One line for a row, whatever it holds
    #[arg(short = 'O', long)]
    pub oneline: bool,
    /// Without the line of column names
    #[arg(short = 'H', long)]
    pub no_header: bool,
    /// These columns instead of the usual ones (comma-separated; `help` lists all)
    #[arg(short = 'c', long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Count the sockets by these columns, the largest groups first
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',', conflicts_with_all = ["columns", "sort"])]
    pub group_by: Vec<String>,
    /// Sort by a column; -COLUMN: the largest first; what is not known comes last
    #[arg(long, value_name = "[-]COLUMN", allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// The first N rows or groups only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub top: Option<u64>,
    /// Both ends of a connection on one row, where both are on this machine; FILTER has to fit either. A is the end that
    /// dialled, or the one that is left
    #[arg(long, conflicts_with_all = ["group_by", "listening", "bound_inactive"])]
    pub pair: bool,
    /// Form of the output
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Output::Table)]
    pub output: Output,
    /// Read the filter from a file, - being standard input; a socket has to fit the words of the line too
    #[arg(short = 'F', long = "filter", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub filter_file: Option<PathBuf>,
    /// Which sockets, in the language of ss: state close-wait, dst 10.0.0.0/8, sport = :443
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its members speak for themselves")]
    pub common: Common,
}

/// Reads `100MiB`, `4G`; a bare number is bytes.
fn size(text: &str) -> Result<u64, String> {
    let size = crate::query::size(text).filter(|size| *size > 0);
    size.ok_or_else(|| "expected a size, such as 100MiB".to_owned())
}

/// Reads `5s`, `500ms`, `1min`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .and_then(|s| Duration::try_from_secs_f64(s).ok());
    let parsed = seconds.or_else(|| {
        let span: jiff::SignedDuration = text.parse().ok()?;
        Duration::try_from(span).ok()
    });
    match parsed {
        Some(time) if !time.is_zero() && time <= Duration::from_secs(86_400) => Ok(time),
        _ => Err("expected a time between 1ms and 24h, such as 5s".to_owned()),
    }
}
