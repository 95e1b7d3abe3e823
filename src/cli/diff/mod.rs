//! `linger diff`: two captures compared.

mod args;

use std::io::BufWriter;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use rustc_hash::FxHashSet;

use super::args::{CollectorChoice, Common, Select};
use super::failure::Failure;
use super::numbers::Numbers;
use super::observe::{self, Observation, Plan, Watch};
use super::selection::{self, Selection};
use super::{lookup, source, terminal};
use crate::analyze::Settings;
use crate::collect::{Source, Want};
use crate::fields::Record;
use crate::history::diff;
use crate::model::{AgeFacts, Endpoint, Protocol, Snapshot, Socket, StateSet};
use crate::query::Filter;
use crate::record;
use crate::render::diff::{Page, cautions, not_listed, write};
use crate::render::json::{DIFF, Files, Head, Tail, write_diff};

pub use self::args::{Args, EXAMPLES, hidden};

/// Which look of a file is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    First,
    Last,
}

/// A capture as it is compared.
struct Seen {
    /// the look, judged
    look: Observation,
    /// the sockets that fit the filter; `None` without one
    fits: Option<FxHashSet<Key>>,
}

/// What tells a socket of one look from all others of it.
type Key = (Protocol, u64, u32, Endpoint, Endpoint);

fn key(socket: &Socket) -> Key {
    let cookie = socket.cookie.map_or(0, std::num::NonZeroU64::get);
    (
        socket.protocol,
        cookie,
        socket.inode,
        socket.local,
        socket.remote,
    )
}

/// Reads both captures and prints what is different.
///
/// # Errors
/// For options that name a machine, one capture alone, a filter that is not understood, or a file that is no capture.
pub fn run(args: &Args) -> Result<(), Failure> {
    let after = files(args)?;
    let filter = selection::filter(&args.filter, None)?;
    let filter = (!filter.is_empty()).then_some(filter);
    let settings = observe::settings(&Select::default(), &args.common)?;
    let before = read(&args.before, Which::First, filter.as_ref(), &settings, args)?;
    let after_seen = read(after, Which::Last, filter.as_ref(), &settings, args)?;
    let (one, other) = (&before.look.snapshot, &after_seen.look.snapshot);
    let mut diff = diff::diff(one, other);
    let findings = diff::findings(&before.look.analysis, &after_seen.look.analysis);
    if let (Some(earlier), Some(later)) = (&before.fits, &after_seen.fits) {
        let fits = |before: Option<&Socket>, after: Option<&Socket>| {
            before.is_some_and(|socket| earlier.contains(&key(socket)))
                || after.is_some_and(|socket| later.contains(&key(socket)))
        };
        diff.listeners.retain(fits);
        diff.sockets.retain(fits);
        // A filter of addresses and states selects none of them.
        diff.locals = None;
    }
    let cautions = cautions(&diff);
    let warnings = both(gaps(&before.look), gaps(&after_seen.look));
    // Who names TIME-WAIT wants to see it.
    let named = filter
        .as_ref()
        .is_some_and(|filter| filter.states() != StateSet::ALL);
    let fold = !args.all && !named;
    let all: Vec<String> = cautions.iter().chain(&warnings).cloned().collect();
    source::note_beside(&all, args.common.json);
    if args.common.json {
        let name = |path: &Path| path.display().to_string();
        let (before, after) = (name(&args.before), name(after));
        let head = Head {
            schema: DIFF,
            generated_at: other.taken,
            host: &other.host.name,
            netns: other.host.netns,
            collector: "file",
        };
        let tail = Tail {
            namespaces: &[],
            complete: one.coverage.complete() && other.coverage.complete(),
            warnings: &all,
        };
        let files = Files {
            before: &before,
            after: &after,
        };
        let mut out = BufWriter::new(std::io::stdout().lock());
        let folded = |socket: &Socket| fold && not_listed(socket);
        write_diff(&mut out, &head, files, &diff, &findings, folded, &tail)?;
        std::io::Write::flush(&mut out)?;
        return Ok(());
    }
    let (from, to) = clock(one, other);
    let mut out = Vec::new();
    let page = Page {
        diff: &diff,
        findings: &findings,
        clock: (&from, &to),
        cautions: &cautions,
        warnings: &warnings,
        filtered: filter.is_some(),
        all: args.all,
        fold,
        next: &format!("linger diagnose{}", source::again_at(after)),
    };
    write(&page, terminal::screen(args.common.color), &mut out)?;
    terminal::print(&out)
}

/// The second file. One file alone has a first and a last look only if it is a sequence.
fn files(args: &Args) -> Result<&Path, Failure> {
    let Common {
        from,
        collector,
        proc_root,
        netns,
        ..
    } = &args.common;
    let given = [
        ("--from", from.is_some()),
        ("--collector", *collector != CollectorChoice::Auto),
        ("--proc-root", proc_root != Path::new("/proc")),
        ("--netns", netns.is_some()),
    ];
    if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
        return Err(Failure::usage(
            format!("{option} says which machine or capture is read, and diff reads two captures"),
            "linger diff BEFORE.linger AFTER.linger; 'linger record FILE' makes each, with --netns and --collector if need be".to_owned(),
        ));
    }
    let after = args.after.as_deref().unwrap_or(&args.before);
    let same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    };
    if same(&args.before, after) {
        let machine = open(after)?;
        if machine.looks() < 2 {
            let file = after.display();
            return Err(Failure::usage(
                format!("'{file}' holds one look, and there is nothing to compare it with"),
                "name two captures: linger diff BEFORE.linger AFTER.linger".to_owned(),
            ));
        }
    }
    Ok(after)
}

fn open(path: &Path) -> Result<Box<dyn Source>, Failure> {
    record::open(path).map_err(|error| match Failure::from(error) {
        Failure::Said {
            message,
            hint: Some(hint),
            code,
        } => Failure::Said {
            message,
            // It names an option that is not here.
            hint: Some(hint.replace("--from names", "A and B name").replace(
                "a file that 'linger record FILE' has written",
                "files that 'linger record FILE' has written",
            )),
            code,
        },
        other => other,
    })
}

/// Reads one look, and judges it by what the file holds behind it.
fn read(
    path: &Path,
    which: Which,
    filter: Option<&Filter>,
    settings: &Settings,
    args: &Args,
) -> Result<Seen, Failure> {
    let mut machine = open(path)?;
    let machine = machine.as_mut();
    let at = match which {
        Which::First => 0,
        Which::Last => machine.looks().saturating_sub(1),
    };
    let plan = Plan {
        samples: 1,
        interval: Duration::from_secs(1),
        pulse: true,
        owners: true,
        recorded: None,
    };
    let mut watch = Watch::new(plan, settings);
    if at > 0 {
        // The last look has none behind it: what it says of rates, it says with the one before.
        machine.seek(at - 1)?;
        watch.look(machine, false)?;
    }
    machine.seek(at)?;
    watch.look(machine, true)?;
    // Before the source moves on.
    let fits = filter
        .map(|filter| fitting(machine, filter, args))
        .transpose()?;
    if machine.advance(plan.interval) {
        watch.pulse(machine);
    }
    let look = watch.finish()?;
    Ok(Seen { look, fits })
}

/// The sockets of the look that fit.
fn fitting(
    machine: &mut dyn Source,
    filter: &Filter,
    args: &Args,
) -> Result<FxHashSet<Key>, Failure> {
    let names = Numbers::of(machine, &args.common);
    let filter = filter
        .clone()
        .resolve(&mut lookup::Names::new(machine, &names.interfaces))?
        .within(StateSet::ALL);
    if filter.asks_netns() {
        return Err(Failure::usage(
            "netns: a capture is of one network namespace, and none of its rows says which"
                .to_owned(),
            "leave it out".to_owned(),
        ));
    }
    let needed = filter.needed();
    let want = Want {
        tcp_info: needed.tcp_info,
        memory: needed.memory,
        congestion: needed.congestion,
        ..Want::states(filter.states())
    };
    if filter.asks_mark() {
        selection::marks_are_told(machine, &want)?;
    }
    let selection = Selection::new(filter);
    selection.check(machine)?;
    let (owners, _) = machine.owners();
    let ages = AgeFacts::new(&machine.facts());
    let mut fits = FxHashSet::default();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let want = Want {
            protocol,
            states: selection.states().of_protocol(protocol),
            ..want
        };
        let read = selection.dump(machine, &want, &mut |filter, row| {
            let (socket, attributes, ends) = row.parts();
            let record = Record {
                socket: &socket,
                attributes: &attributes,
                ends,
                owners: Some(&owners),
                ages: &ages,
                names: &names,
            };
            if filter.matches(&record) {
                fits.insert(key(&socket));
            }
            ControlFlow::Continue(())
        });
        // Of UDP the look has said what is missing.
        if protocol == Protocol::Tcp {
            read?;
        }
    }
    Ok(fits)
}

/// What a look does not know.
fn gaps(look: &Observation) -> Vec<String> {
    let mut gaps = look.warnings();
    if look.snapshot.udp.is_none() {
        gaps.push("UDP sockets were not read".to_owned());
    }
    gaps
}

/// Which look does not know what.
fn both(before: Vec<String>, after: Vec<String>) -> Vec<String> {
    let of = |which: &str, gap: &String| format!("{which}: {gap}");
    let mut said: Vec<String> = before
        .iter()
        .map(|gap| match after.contains(gap) {
            true => of("both", gap),
            false => of("before", gap),
        })
        .collect();
    let later = after.iter().filter(|gap| !before.contains(gap));
    said.extend(later.map(|gap| of("after", gap)));
    said
}

/// The times of both on the reader's clock; the second one with its day only if that is another one.
fn clock(before: &Snapshot, after: &Snapshot) -> (String, String) {
    let zoned = |snapshot: &Snapshot| snapshot.taken.to_zoned(TimeZone::system());
    let (before, after) = (zoned(before), zoned(after));
    let to = if before.date() == after.date() {
        "%H:%M:%S %Z"
    } else {
        "%Y-%m-%d %H:%M:%S %Z"
    };
    (
        before.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        after.strftime(to).to_string(),
    )
}
