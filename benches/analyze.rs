//! What all detectors together cost beside collecting the sockets that they judge:
//!
//! ```text
//! cargo bench --bench analyze -- 200000
//! cargo bench --bench analyze -- 200000 stuck    # half of them in CLOSE-WAIT, their peers gone
//! ```
//!
//! Opens so many real TCP sockets (pairs on loopback) in a network namespace of its own, which needs root and
//! `unshare` of util-linux, then takes the median of five readings and of five judgements.

mod sockets;

use std::error::Error;
use std::time::{Duration, Instant};

use linger::analyze::{self, Settings, detectors};
use linger::collect::live::{Choice, Live};
use linger::collect::procfs::ProcRoot;
use linger::collect::{self, Also, Want};
use linger::history::{History, Sample, Tally};
use linger::model::StateSet;

fn main() -> Result<(), Box<dyn Error>> {
    let Some(wanted) = sockets::enter(&["-n"])? else {
        return Ok(());
    };
    let held = sockets::Held::open(wanted)?;
    let settings = Settings::default();
    let needs = analyze::needs(&settings);
    let want = Want {
        tcp_info: needs.tcp_info,
        memory: needs.drops,
        ..Want::states(StateSet::ALL)
    };
    let (mut reading, mut judging) = (Vec::new(), Vec::new());
    let mut seen = 0;
    for _ in 0..5 {
        let mut source = Live::new(Choice::Netlink, ProcRoot::default());
        let start = Instant::now();
        let snapshot = collect::snapshot(&mut source, &want, Also::default())?;
        reading.push(start.elapsed());
        let start = Instant::now();
        let tally = Tally::new(&snapshot);
        let sample = Sample::alone(&snapshot, &tally);
        let analysis = analyze::run(&snapshot, &tally, &sample, &History::default(), &settings);
        judging.push(start.elapsed());
        seen = snapshot.sockets.len();
        assert!(!analysis.quiet.is_empty());
    }
    let (reading, judging) = (median(&mut reading), median(&mut judging));
    println!("sockets            {seen}");
    println!("collecting         {:>9.1} ms", milliseconds(reading));
    println!("all detectors      {:>9.1} ms", milliseconds(judging));
    println!(
        "ratio              {:>9.3}    (bar 0.15)",
        judging.as_secs_f64() / reading.as_secs_f64()
    );
    dearest(&want)?;
    drop(held);
    Ok(())
}

/// Prints what takes most of the time.
fn dearest(want: &Want) -> Result<(), Box<dyn Error>> {
    let mut source = Live::new(Choice::Netlink, ProcRoot::default());
    let snapshot = collect::snapshot(&mut source, want, Also::default())?;
    let start = Instant::now();
    let tally = Tally::new(&snapshot);
    let mut times = vec![(start.elapsed(), "counting")];
    let start = Instant::now();
    let sample = Sample::alone(&snapshot, &tally);
    times.push((start.elapsed(), "remembering"));
    for detector in detectors::ALL {
        let mut settings = Settings::default();
        settings.only(&[detector.id.to_owned()])?;
        let start = Instant::now();
        analyze::run(&snapshot, &tally, &sample, &History::default(), &settings);
        times.push((start.elapsed(), detector.id));
    }
    times.sort_unstable_by(|a, b| b.cmp(a));
    for (time, what) in times.iter().take(8) {
        println!("  {what:<28} {:>9.1} ms", milliseconds(*time));
    }
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
