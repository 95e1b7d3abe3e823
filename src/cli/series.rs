//! `linger record --interval`: whole looks, one behind the other, until the time is over, the file is full or somebody
//! ends it.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use super::args;
use super::failure::Failure;
use super::record::{self, Depth};
use super::source;
use crate::collect::Source;
use crate::collect::live::Live;
use crate::model::words::{count, time};
use crate::record::{Error, Series};
use crate::render::text::Safe;

/// How large the file may get unless told otherwise, bytes.
const MAX_SIZE: u64 = 1 << 30;

/// Why there are no more frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// `--for` is over
    Time,
    /// SIGINT or SIGTERM
    Signal,
    /// the file would be larger than it may be
    MaxSize,
}

impl Ended {
    /// The name in JSON.
    const fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Signal => "signal",
            Self::MaxSize => "max-size",
        }
    }
}

/// What the looks came to.
#[derive(Debug, Default)]
struct Sum {
    /// how many frames came later than they should
    late: u64,
    /// how many frames do not show everything
    partial: u64,
    /// TCP sockets in the last frame
    sockets: u64,
    /// from the first frame to the last one
    length: Duration,
}

/// Records a sequence.
///
/// # Errors
/// When there is not one frame, or when the recording broke off; what was recorded before that is kept.
pub fn run(args: &args::Record, interval: Duration) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut machine = source::live(&args.common)?;
    let max = args.max_size.unwrap_or(MAX_SIZE);
    let host = machine.host();
    let mut series = match Series::create(&args.file, args.force, &host, max) {
        Err(Error::Full { .. }) => return Err(too_small(max, args)),
        other => other?,
    };
    // A closed standard error is no reason not to record.
    if std::io::stderr().is_terminal() && args.length.is_none() {
        let _ = writeln!(std::io::stderr(), "recording; Ctrl-C ends it");
    }
    let mut sum = Sum::default();
    let looked = frames(
        &mut series,
        &mut machine,
        &mut signals,
        interval,
        args,
        &mut sum,
    );
    let kept = series.frames();
    let ended = match looked {
        Ok(ended) => ended,
        Err(_) if series.is_full() && kept > 0 => Ended::MaxSize,
        Err(_) if series.is_full() => return Err(too_small(max, args)),
        Err(failure) => {
            // What broke it off is what is told; the end of the file may be as hard to write as what came before.
            let _ = series.finish();
            return Err(with_frames(failure, kept, args));
        }
    };
    let (frames, size) = series
        .finish()
        .map_err(|error| with_frames(error.into(), kept, args))?;
    let outcome = Outcome {
        ended,
        frames,
        size,
        max,
        interval,
        sum,
    };
    outcome.say(args)
}

/// Where the file may not be as large as one frame.
fn too_small(max: u64, args: &args::Record) -> Failure {
    Failure::failed(
        format!(
            "'{}': --max-size leaves {}, and one frame takes more",
            args.file.display(),
            count(max, "byte")
        ),
        Some("allow more, such as --max-size 100MiB".to_owned()),
    )
}

/// A failure after which frames are there to be read, which its hint says then.
fn with_frames(failure: Failure, kept: u64, args: &args::Record) -> Failure {
    match failure {
        Failure::Said { message, code, .. } if kept > 0 => Failure::Said {
            message,
            code,
            hint: Some(format!(
                "{} before that {} kept: linger diagnose{}",
                count(kept, "frame"),
                if kept == 1 { "is" } else { "are" },
                source::again_at(&args.file)
            )),
        },
        failure => failure,
    }
}

fn frames(
    series: &mut Series,
    machine: &mut Live,
    signals: &mut Signals,
    interval: Duration,
    args: &args::Record,
    sum: &mut Sum,
) -> Result<Ended, Failure> {
    let mut cgroups = BTreeSet::new();
    let start = Instant::now();
    let mut due = start;
    let mut depth = Depth::Everything;
    loop {
        let begun = Instant::now();
        let taken = record::look(machine, series.writer(), depth, &mut cgroups)?;
        series.keep()?;
        if depth == Depth::Everything {
            source::note(&taken.coverage);
        }
        depth = Depth::Compared;
        sum.partial += u64::from(!taken.coverage.complete());
        sum.sockets = taken.sockets;
        sum.length = begun.duration_since(start);
        let now = Instant::now();
        let late = now > due + interval;
        due = now.max(due + interval);
        if args
            .length
            .is_some_and(|length| due.duration_since(start) > length)
        {
            return Ok(Ended::Time);
        }
        if signals.wait(due.duration_since(now))? {
            return Ok(Ended::Signal);
        }
        sum.late += u64::from(late);
    }
}

/// How a recording ended.
struct Outcome {
    ended: Ended,
    frames: u64,
    /// bytes of the file
    size: u64,
    /// bytes that it may have
    max: u64,
    interval: Duration,
    sum: Sum,
}

impl Outcome {
    fn say(&self, args: &args::Record) -> Result<(), Failure> {
        let path = args.file.display().to_string();
        let sum = &self.sum;
        let mut out = std::io::stdout().lock();
        if args.common.json {
            let document = serde_json::json!({
                "schema": "linger.record/1", "file": path, "sockets": sum.sockets, "size_bytes": self.size,
                "frames": self.frames, "late": sum.late, "partial": sum.partial, "ended": self.ended.name(),
            });
            writeln!(out, "{document}")?;
            return Ok(());
        }
        writeln!(
            out,
            "{}: {} in {}, {} late; {}, {}",
            Safe(&path),
            count(self.frames, "frame"),
            time(milliseconds(sum.length)),
            sum.late,
            count(sum.sockets, "socket"),
            count(self.size, "byte")
        )?;
        if sum.late > 0 {
            writeln!(
                out,
                "late           a look took longer than the interval of {}",
                time(milliseconds(self.interval))
            )?;
        }
        if sum.partial > 0 {
            let frames = count(sum.partial, "frame");
            writeln!(
                out,
                "partial        {frames}, each of which says what it lacks"
            )?;
        }
        if self.ended == Ended::MaxSize {
            writeln!(
                out,
                "full           the next frame would have made it larger than --max-size, {}",
                count(self.max, "byte")
            )?;
        }
        let again = source::again_at(&args.file);
        writeln!(out, "next           linger diagnose{again}")?;
        Ok(())
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Waits until it is time, or until SIGINT or SIGTERM comes. A second one ends the program at once, as if nobody heard
/// the signals.
struct Signals(UnixStream);

impl Signals {
    fn new() -> std::io::Result<Self> {
        let (heard, raised) = UnixStream::pair()?;
        let came = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_default(signal, Arc::clone(&came))?;
            flag::register(signal, Arc::clone(&came))?;
            low_level::pipe::register(signal, raised.try_clone()?)?;
        }
        Ok(Self(heard))
    }

    /// `true`: a signal came.
    fn wait(&mut self, most: Duration) -> std::io::Result<bool> {
        let until = Instant::now() + most;
        loop {
            // A time-out of nothing would be none.
            let left = until.saturating_duration_since(Instant::now());
            self.0
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.0.read_exact(&mut [0]) {
                Ok(()) => return Ok(true),
                Err(error) => match error.kind() {
                    std::io::ErrorKind::Interrupted => {}
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                        if Instant::now() >= until =>
                    {
                        return Ok(false);
                    }
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {}
                    _ => return Err(error),
                },
            }
        }
    }
}
