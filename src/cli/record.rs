//! `linger record`: one capture of this machine.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use super::args;
use super::failure::Failure;
use super::source;
use crate::collect::live::Live;
use crate::collect::{self, Inodes, Row, Source, Want};
use crate::model::words::count;
use crate::model::{Coverage, Protocol, StateSet, TcpState};
use crate::record::Writer;

/// The time to the second look, as `diagnose` has it.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Writes the capture: everything that any command may ask for, then counters and listeners once more.
///
/// # Errors
/// When the machine cannot be read or the file cannot be written; then there is no file.
pub fn run(args: &args::Record) -> Result<(), Failure> {
    if args.common.from.is_some() {
        return Err(Failure::usage(
            "a capture cannot be recorded again".to_owned(),
            "leave --from out, or copy the file".to_owned(),
        ));
    }
    source::only_one(&args.common, "a capture is")?;
    let mut machine = source::live(&args.common)?;
    let mut writer = Writer::create(&args.file, args.force)?;
    writer.host(&machine.host())?;
    let whole = Want {
        tcp_info: true,
        memory: true,
        congestion: true,
        congestion_info: true,
        tos: true,
        ..Want::states(StateSet::ALL)
    };
    let light = Want {
        memory: true,
        ..Want::states(StateSet::of(TcpState::Listen))
    };
    let mut rows = 0u64;
    let mut cgroups = BTreeSet::new();
    for (sample, want) in [whole, light].into_iter().enumerate() {
        if sample > 0 {
            machine.advance(SECOND_LOOK);
        }
        writer.begin_sample(machine.now())?;
        writer.asked(&want)?;
        let mut listed = Inodes::default();
        let mut coverage = machine.dump_teed(
            &want,
            &mut |row| {
                rows += u64::from(sample == 0);
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
            // The second look is at what detectors compare; for the descriptors of TCP sockets that no table shows, the
            // tables of these two are wanted too.
            let compared = matches!(protocol, Protocol::Udp | Protocol::Unix);
            if sample > 0 && !compared {
                continue;
            }
            let want = Want { protocol, ..whole };
            let read = beside(&mut machine, &want, &mut writer, &mut listed, &mut gaps);
            others &= read || !compared;
        }
        coverage.merge(gaps);
        writer.facts(&machine.facts())?;
        if sample == 0 {
            let collector = coverage.collector;
            let (owners, gaps) = machine.owners();
            writer.owners(&owners)?;
            coverage.merge(gaps);
            coverage.collector = collector;
            cgroups = collect::cgroups(&owners);
            if others
                && collector.sees(TcpState::BoundInactive)
                && let Some(unlisted) = machine.unlisted(&owners, &listed)
            {
                writer.unlisted(&unlisted)?;
            }
            source::note(&coverage);
        }
        writer.cpu(&machine.cpu(&cgroups))?;
        writer.coverage(&coverage)?;
    }
    writer.finish()?;
    let size = std::fs::metadata(&args.file).map_or(0, |file| file.len());
    let path = args.file.display().to_string();
    let mut out = std::io::stdout().lock();
    if args.common.json {
        let document = serde_json::json!({
            "schema": "linger.record/1", "file": path, "sockets": rows, "size_bytes": size,
        });
        writeln!(out, "{document}")?;
    } else {
        let path = crate::render::text::Safe(&path).to_string();
        writeln!(
            out,
            "{path}: {}, {}",
            count(rows, "socket"),
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
