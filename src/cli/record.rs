//! `linger record`: one capture of this machine, and how a look is written.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use super::args;
use super::failure::Failure;
use super::{series, source};
use crate::collect::live::Live;
use crate::collect::{self, Inodes, Row, Source, Want};
use crate::model::words::count;
use crate::model::{Coverage, Protocol, StateSet, TcpState};
use crate::record::Writer;

/// The time to the second look, as `diagnose` has it.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// How much a look takes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// everything that any command may ask for
    Everything,
    /// of other protocols than TCP only what detectors compare from look to look
    Compared,
    /// counters, and the queues that are compared
    Light,
}

/// What became of a look.
#[derive(Debug)]
pub struct Taken {
    /// how many TCP sockets there were
    pub sockets: u64,
    /// what it does not know
    pub coverage: Coverage,
}

/// Writes one capture, or a sequence of looks.
///
/// # Errors
/// When the machine cannot be read or the file cannot be written.
pub fn run(args: &args::Record) -> Result<(), Failure> {
    if args.common.from.is_some() {
        return Err(Failure::usage(
            "a capture cannot be recorded again".to_owned(),
            "leave --from out, or copy the file".to_owned(),
        ));
    }
    source::only_one(&args.common, "a capture is")?;
    if let Some(interval) = args.interval {
        return series::run(args, interval);
    }
    for (option, given) in [
        ("--for", args.length.is_some()),
        ("--max-size", args.max_size.is_some()),
    ] {
        if given {
            return Err(Failure::usage(
                format!(
                    "{option} is about a sequence of looks, and without --interval there is one"
                ),
                "linger record --interval 1s --for 10m FILE".to_owned(),
            ));
        }
    }
    single(args)
}

/// One whole look, then counters and listeners once more. If that fails there is no file.
fn single(args: &args::Record) -> Result<(), Failure> {
    let mut machine = source::live(&args.common)?;
    let mut writer = Writer::create(&args.file, args.force)?;
    writer.host(&machine.host())?;
    let mut cgroups = BTreeSet::new();
    let taken = look(&mut machine, &mut writer, Depth::Everything, &mut cgroups)?;
    source::note(&taken.coverage);
    machine.advance(SECOND_LOOK);
    look(&mut machine, &mut writer, Depth::Light, &mut cgroups)?;
    writer.finish()?;
    let size = std::fs::metadata(&args.file).map_or(0, |file| file.len());
    let path = args.file.display().to_string();
    let mut out = std::io::stdout().lock();
    if args.common.json {
        let document = serde_json::json!({
            "schema": "linger.record/1", "file": path, "sockets": taken.sockets, "size_bytes": size,
        });
        writeln!(out, "{document}")?;
    } else {
        let path = crate::render::text::Safe(&path).to_string();
        writeln!(
            out,
            "{path}: {}, {}",
            count(taken.sockets, "socket"),
            count(size, "byte")
        )?;
        writeln!(
            out,
            "next           linger diagnose{}",
            source::again_at(&args.file)
        )?;
    }
    Ok(())
}

/// Writes a sample. `cgroups`: those of the owners that were read last.
///
/// # Errors
/// When the machine cannot be read or the sample cannot be written.
pub fn look(
    machine: &mut Live,
    writer: &mut Writer,
    depth: Depth,
    cgroups: &mut BTreeSet<String>,
) -> Result<Taken, Failure> {
    let whole = Want {
        tcp_info: true,
        memory: true,
        congestion: true,
        congestion_info: true,
        tos: true,
        ..Want::states(StateSet::ALL)
    };
    let want = match depth {
        Depth::Everything | Depth::Compared => whole,
        Depth::Light => Want {
            memory: true,
            ..Want::states(StateSet::of(TcpState::Listen))
        },
    };
    let mut sockets = 0;
    writer.begin_sample(machine.now())?;
    writer.asked(&want)?;
    let mut listed = Inodes::default();
    let mut coverage = machine.dump_teed(
        &want,
        &mut |row| {
            sockets += 1;
            note(&row, &mut listed);
            ControlFlow::Continue(())
        },
        Some(&mut writer.tee()),
    )?;
    let mut gaps = Coverage {
        collector: coverage.collector,
        ..Coverage::default()
    };
    let mut others = true;
    for protocol in Protocol::ALL.into_iter().skip(1) {
        // For the descriptors of TCP sockets that no table shows, the tables of these two are wanted too.
        let compared = matches!(protocol, Protocol::Udp | Protocol::Unix);
        if depth != Depth::Everything && !compared {
            continue;
        }
        let want = Want { protocol, ..whole };
        let read = beside(machine, &want, writer, &mut listed, &mut gaps);
        others &= read || !compared;
    }
    coverage.merge(gaps);
    writer.facts(&machine.facts())?;
    if depth != Depth::Light {
        let collector = coverage.collector;
        let (owners, gaps) = machine.owners();
        writer.owners(&owners)?;
        coverage.merge(gaps);
        coverage.collector = collector;
        *cgroups = collect::cgroups(&owners);
        if others
            && collector.sees(TcpState::BoundInactive)
            && let Some(unlisted) = machine.unlisted(&owners, &listed)
        {
            writer.unlisted(&unlisted)?;
        }
    }
    writer.cpu(&machine.cpu(cgroups))?;
    writer.coverage(&coverage)?;
    Ok(Taken { sockets, coverage })
}

/// Records the sockets that are wanted, of one protocol. `false` if they could not be read, which is a gap.
fn beside(
    machine: &mut Live,
    want: &Want,
    writer: &mut Writer,
    listed: &mut Inodes,
    gaps: &mut Coverage,
) -> bool {
    let read = machine.dump_teed(
        want,
        &mut |row| {
            note(&row, listed);
            ControlFlow::Continue(())
        },
        Some(&mut writer.tee()),
    );
    collect::beside(want.protocol, read.map(|coverage| ((), coverage)), gaps).is_some()
}

/// Notes the inode of a row.
fn note(row: &Row<'_>, listed: &mut Inodes) {
    listed.insert(row.inode());
}
