//! What it costs to look into many network namespaces beside the one that has most of the sockets:
//!
//! ```text
//! cargo bench --bench netns -- 200000
//! ```
//!
//! Opens so many TCP sockets in a namespace of its own, and 100 namespaces beside it, first with a listener each, then with
//! a listener and a connection each. Takes root, `unshare` and `ip`. Prints the median of seven runs of `linger list -ta`
//! with `--netns all` and without, and their ratio.

mod sockets;

use std::env;
use std::error::Error;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How many namespaces there are beside the large one.
const NAMESPACES: usize = 100;
/// How many runs.
const RUNS: usize = 7;

fn main() -> Result<(), Box<dyn Error>> {
    // Processes of its own, too: nobody else's namespaces are looked into.
    let options = ["-n", "-p", "-f", "-m", "--mount-proc"];
    let Some(wanted) = sockets::enter(&options)? else {
        return Ok(());
    };
    let large = sockets::Held::open(wanted)?;
    println!("sockets in one                   {:>9}", rows(&[])?);
    let (alone, _) = both()?;
    println!("it alone                         {alone:>9.1} ms");
    for (what, pairs) in [("a listener", 0), ("a listener and a connection", 1)] {
        let small = elsewhere(pairs)?;
        let (alone, all) = both()?;
        println!(
            "and {NAMESPACES} with {what}: {} sockets",
            rows(&["--netns", "all"])?
        );
        println!("  it alone                       {alone:>9.1} ms");
        println!("  --netns all                    {all:>9.1} ms");
        println!(
            "  ratio                          {:>9.2}    (bar 2.0)",
            all / alone
        );
        drop(small);
    }
    drop(large);
    Ok(())
}

/// The small namespaces, each with a listener and `pairs` of connected sockets.
fn elsewhere(pairs: usize) -> Result<sockets::Held, Box<dyn Error>> {
    let mut held = sockets::Held(Vec::new());
    for _ in 0..NAMESPACES {
        let mut command = Command::new("unshare");
        let script = "ip link set lo up && exec \"$0\"";
        command
            .args(["-n", "sh", "-c", script])
            .arg(env::current_exe()?);
        held.start(&mut command, pairs)?;
    }
    Ok(held)
}

/// The medians without and with all namespaces, milliseconds; runs of both by turns.
fn both() -> Result<(f64, f64), Box<dyn Error>> {
    let (mut alone, mut all) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        alone.push(timed(&[])?);
        all.push(timed(&["--netns", "all"])?);
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times
            .get(RUNS / 2)
            .copied()
            .unwrap_or_default()
            .as_secs_f64()
            * 1000.0
    };
    Ok((median(&mut alone), median(&mut all)))
}

fn linger(options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linger"));
    command.args(["list", "-ta"]).args(options);
    command
}

fn timed(options: &[&str]) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    let status = linger(options)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    let took = start.elapsed();
    if !status.success() {
        return Err(format!("linger: {status} ({:?})", env::current_dir()).into());
    }
    Ok(took)
}

fn rows(options: &[&str]) -> Result<usize, Box<dyn Error>> {
    let output = linger(options).arg("-H").output()?;
    Ok(output.stdout.iter().filter(|byte| **byte == b'\n').count())
}
