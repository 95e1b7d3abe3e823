//! What a look at many sockets costs a program that looks every second:
//!
//! ```text
//! cargo bench --bench looks -- 10000
//! cargo bench --bench looks -- 10000 churn
//! ```
//!
//! Opens so many established TCP sockets in a namespace of its own, held by one process if there are
//! no more than 18,000; with `churn` it replaces 200 connections a second. Takes root, `unshare` and `ip`. Prints the processor time of a whole snapshot
//! with everything that detectors ask for: of the first, of later ones that remember owners (median and most of ten), and
//! of the parts of one; then that of a snapshot that remembers nothing, and the most memory that was used.

mod sockets;

use std::env;
use std::error::Error;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use linger::collect::live::{Choice, Live};
use linger::collect::procfs::ProcRoot;
use linger::collect::{Also, Inodes, Source, Want, cgroups, snapshot};
use linger::model::{Protocol, Snapshot, StateSet, TcpState};

/// Looks that are measured.
const LOOKS: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    if env::args().any(|argument| argument == "churn") && env::var_os(sockets::CHURN).is_none() {
        let mut command = Command::new(env::current_exe()?);
        command.args(env::args().skip(1)).env(sockets::CHURN, "200");
        return Err(command.exec().into());
    }
    let Some(wanted) = sockets::enter(&["-n", "-p", "-f", "-m", "--mount-proc"])? else {
        return Ok(());
    };
    let held = sockets::Held::open(wanted)?;
    measure()?;
    drop(held);
    Ok(())
}

/// Processor time of the only thread, in milliseconds.
fn spent() -> Result<f64, Box<dyn Error>> {
    // The kernel brings the sum up to date when the thread gives way.
    thread::yield_now();
    let text = fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().ok_or("no time")?.parse()?;
    Ok(nanoseconds / 1e6)
}

fn timed<T>(what: impl FnOnce() -> T) -> Result<(f64, T), Box<dyn Error>> {
    let before = spent()?;
    let done = what();
    Ok((spent()? - before, done))
}

fn want() -> Want {
    Want {
        tcp_info: true,
        memory: true,
        ..Want::states(StateSet::ALL)
    }
}

fn measure() -> Result<(), Box<dyn Error>> {
    let mut live = Live::new(Choice::Auto, ProcRoot::default());
    live.remember_owners(true);
    let look = |live: &mut Live| timed(|| snapshot(live, &want(), Also::ALL));
    let (first, taken) = look(&mut live)?;
    let taken = taken?;
    println!("sockets                {:>8}", taken.sockets.len());
    println!("owners' links          {:>8}", taken.owners.links().len());
    println!("first look             {first:>8.2} ms");
    let mut times = Vec::new();
    let mut last = taken;
    for _ in 0..LOOKS {
        thread::sleep(Duration::from_secs(1));
        let (time, taken) = look(&mut live)?;
        last = taken?;
        times.push(time);
    }
    times.sort_by(f64::total_cmp);
    println!(
        "later looks            {:>8.2} ms, at most {:.2} ms",
        times.get(LOOKS / 2).copied().unwrap_or_default(),
        times.last().copied().unwrap_or_default(),
    );
    let walks = live.remembered().map_or(0, |remembered| remembered.walks());
    println!("without an owner       {:>8}", last.coverage.unowned);
    println!("walks                  {walks:>8}");
    thread::sleep(Duration::from_secs(1));
    parts(&mut live, &last)?;
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!("{}", peak.unwrap_or_default());
    let mut anew = Live::new(Choice::Auto, ProcRoot::default());
    let (time, taken) = look(&mut anew)?;
    println!("a look from scratch    {time:>8.2} ms");
    drop(taken?);
    Ok(())
}

fn parts(live: &mut Live, last: &Snapshot) -> Result<(), Box<dyn Error>> {
    let mut listed = Inodes::default();
    let listen = StateSet::of(TcpState::Listen);
    let wants = [
        (
            "listeners",
            Want {
                states: listen,
                ..want()
            },
        ),
        (
            "other TCP, tcp_info",
            Want {
                states: StateSet::ALL.without(listen),
                memory: false,
                ..want()
            },
        ),
        (
            "other TCP, no tcp_info",
            Want {
                states: StateSet::ALL.without(listen),
                ..Want::states(StateSet::ALL)
            },
        ),
        ("UDP", Want::all(Protocol::Udp)),
        ("UNIX", Want::all(Protocol::Unix)),
    ];
    for (name, want) in wants {
        let (time, coverage) = timed(|| {
            live.dump(&want, &mut |row| {
                listed.insert(row.inode());
                ControlFlow::Continue(())
            })
        })?;
        coverage?;
        println!("  {name:<22} {time:>6.2} ms");
    }
    listed.remove(&0);
    let (time, _) = timed(|| live.owners_of(&listed))?;
    println!("  {:<22} {time:>6.2} ms", "owners");
    let (time, _) = timed(|| live.owners_of(&listed))?;
    println!("  {:<22} {time:>6.2} ms", "owners, nothing new");
    let (time, _) = timed(|| live.facts())?;
    println!("  {:<22} {time:>6.2} ms", "facts");
    let cgroups = cgroups(&last.owners);
    let (time, _) = timed(|| live.cpu(&cgroups))?;
    println!("  {:<22} {time:>6.2} ms, of {}", "cpu", cgroups.len());
    let (time, _) = timed(|| live.host())?;
    println!("  {:<22} {time:>6.2} ms", "host");
    let (time, _) = timed(|| last.clone())?;
    println!("  {:<22} {time:>6.2} ms", "a copy of the snapshot");
    Ok(())
}
