//! From the common options to something that can be read.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;

use jiff::tz::TimeZone;

use super::args::{CollectorChoice, Common};
use super::failure::Failure;
use crate::collect::live::{Choice, Live};
use crate::collect::netns::{self, Everywhere, Inside};
use crate::collect::procfs::ProcRoot;
use crate::collect::{Source, Want};
use crate::model::{Coverage, Host, Namespace, Snapshot, StateSet, TcpState};
use crate::record;
use crate::render::json::Head;
use crate::render::text::Safe;

/// The machine or capture that the options name.
///
/// # Errors
/// When the capture cannot be read, the proc root is none, or the network namespace cannot be looked at.
pub fn open(common: &Common) -> Result<Box<dyn Source>, Failure> {
    if let Some(path) = &common.from {
        here(common)?;
        return Ok(record::open(path)?);
    }
    if is_all(common) {
        let (choice, root) = machine(common)?;
        return Ok(Box::new(Everywhere::new(choice, root)?));
    }
    Ok(Box::new(live(common)?))
}

/// The one namespace of a host, under its name if it was found by that.
pub fn namespace(common: &Common, host: &Host) -> Option<Namespace> {
    let named = common.netns.as_deref().and_then(|text| {
        let root = ProcRoot::new(common.proc_root.clone());
        netns::find(text, &root).ok()?.name
    });
    Some(Namespace::new(named, host.netns?))
}

/// That `--netns` and `--from` do not come together.
fn here(common: &Common) -> Result<(), Failure> {
    if common.from.is_some() && common.netns.is_some() {
        return Err(Failure::usage(
            "--netns looks into this machine, and --from does not".to_owned(),
            "a capture is of one network namespace: linger record FILE --netns NAME".to_owned(),
        ));
    }
    Ok(())
}

/// Whether every network namespace is to be looked at.
pub fn is_all(common: &Common) -> bool {
    common.netns.as_deref() == Some(OsStr::new("all"))
}

/// The namespaces of `--netns all` as machines of their own, and what could not be found out of them.
///
/// # Errors
/// When the proc root is none, or our own namespace is not known.
pub fn each(common: &Common) -> Result<(Vec<Inside>, Vec<String>), Failure> {
    here(common)?;
    let (choice, root) = machine(common)?;
    Ok(netns::insides(choice, root)?)
}

/// For what only one namespace at a time can be asked.
///
/// # Errors
/// With `--netns all`.
pub fn only_one(common: &Common, what: &str) -> Result<(), Failure> {
    one_with(common, what, || {
        "name one: 'ip netns list' has names, 'linger list --netns all --group-by netns' all of them".to_owned()
    })
}

/// As [`only_one`], with a hint of the caller's own.
///
/// # Errors
/// With `--netns all`.
pub fn one_with(common: &Common, what: &str, hint: impl FnOnce() -> String) -> Result<(), Failure> {
    if is_all(common) {
        return Err(Failure::usage(
            format!("--netns all: {what} of one network namespace"),
            hint(),
        ));
    }
    Ok(())
}

/// This machine, seen from the network namespace that the options name. The calling thread enters it and stays there.
///
/// # Errors
/// When the proc root is none, or the namespace cannot be looked at.
pub fn live(common: &Common) -> Result<Live, Failure> {
    let (choice, mut root) = machine(common)?;
    if let Some(text) = &common.netns {
        root = root.entered();
        netns::enter(&netns::find(text, &root)?)?;
    }
    let mut live = Live::new(choice, root);
    let slices = common.dump_threads.map(usize::from);
    live.cut(slices.and_then(NonZeroUsize::new));
    Ok(live)
}

/// How and where this machine is read.
fn machine(common: &Common) -> Result<(Choice, ProcRoot), Failure> {
    if !common.proc_root.is_dir() {
        return Err(Failure::failed(
            format!(
                "'{}' is no directory to read as /proc",
                common.proc_root.display()
            ),
            Some("--proc-root names a mounted proc file system, or a copy of one".to_owned()),
        ));
    }
    let choice = match common.collector {
        CollectorChoice::Auto => Choice::Auto,
        CollectorChoice::Netlink => Choice::Netlink,
        CollectorChoice::Procfs => Choice::Procfs,
    };
    let root = ProcRoot::new(common.proc_root.clone());
    if common.netns.is_some() && !root.is_this_machine() {
        return Err(Failure::usage(
            format!(
                "--netns cannot look into '{}', which is a copy",
                common.proc_root.display()
            ),
            "a copy shows the one network namespace that it was made in".to_owned(),
        ));
    }
    Ok((choice, root))
}

/// How JSON names where rows come from.
pub const fn collector(common: &Common, coverage: &Coverage) -> &'static str {
    if common.from.is_some() {
        "file"
    } else {
        coverage.collector.name()
    }
}

/// How JSON names the collector that a dump will use, found out by one that ends at once.
pub fn probe(common: &Common, source: &mut dyn Source) -> &'static str {
    let want = Want {
        ipv6: false,
        ..Want::states(StateSet::of(TcpState::Listen))
    };
    let coverage = source.dump(&want, &mut |_| ControlFlow::Break(()));
    collector(common, &coverage.unwrap_or_default())
}

/// The head of a document about a snapshot.
pub fn head<'a>(schema: &'a str, common: &Common, snapshot: &'a Snapshot) -> Head<'a> {
    Head {
        schema,
        generated_at: snapshot.taken,
        host: &snapshot.host.name,
        netns: snapshot.host.netns,
        collector: collector(common, &snapshot.coverage),
    }
}

/// The time of the reading on the reader's clock; of a capture with its date, of a sequence with the number of the
/// frame.
pub fn clock(common: &Common, snapshot: &Snapshot) -> String {
    let zoned = snapshot.taken.to_zoned(TimeZone::system());
    if common.from.is_some() {
        let frame = snapshot
            .frame
            .map(|(at, of)| format!("   frame {at} of {of}"));
        format!(
            "captured {}{}",
            zoned.strftime("%Y-%m-%d %H:%M:%S %Z"),
            frame.unwrap_or_default()
        )
    } else {
        zoned.strftime("%H:%M:%S").to_string()
    }
}

/// What to put behind a command so that it looks at the same machine.
pub fn again(common: &Common) -> String {
    let config = common.config.as_ref();
    let config = config.map_or_else(String::new, |path| format!(" --config {}", quoted(path)));
    if let Some(path) = &common.from {
        return again_at(path) + &config;
    }
    let mut options = match common.collector {
        CollectorChoice::Auto => String::new(),
        CollectorChoice::Netlink => " --collector netlink".to_owned(),
        CollectorChoice::Procfs => " --collector procfs".to_owned(),
    };
    if common.proc_root != Path::new("/proc") {
        options.push_str(&format!(" --proc-root {}", quoted(&common.proc_root)));
    }
    if let Some(netns) = &common.netns {
        options.push_str(&format!(" --netns {}", quoted(Path::new(netns))));
    }
    options + &config
}

/// As [`again`], for one of the namespaces of `--netns all`.
pub fn again_within(common: &Common, namespace: Option<&Namespace>) -> String {
    let Some(namespace) = namespace else {
        return again(common);
    };
    again(&Common {
        netns: namespace.option().map(OsString::from),
        ..common.clone()
    })
}

/// ` --from FILE`.
pub fn again_at(path: &Path) -> String {
    format!(" --from {}", quoted(path))
}

/// A name of a file or a filter, safe to show and quoted for a shell where it must be.
pub fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = path
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c));
    if plain {
        path
    } else {
        format!("'{}'", Safe(&path.replace('\'', r"'\''")))
    }
}

/// One note on standard error if the view is partial; standard output carries only what was asked for.
pub fn note(coverage: &Coverage) {
    notes(&coverage.warnings());
}

/// A note on standard error for each.
pub fn notes(warnings: &[String]) {
    for warning in warnings {
        // A standard error that is gone is no reason to fail, and none to panic.
        let _ = writeln!(std::io::stderr(), "note: {}", Safe(warning));
    }
}

/// As [`note`], for a page that shows the notes itself: a reader who sees both streams reads them once.
pub fn note_beside(warnings: &[String], json: bool) {
    let twice = !json && std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    if !twice {
        notes(warnings);
    }
}
