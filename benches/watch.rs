//! Whether the dashboard hurts the patient:
//!
//! ```text
//! cargo bench --bench watch -- 10000
//! cargo bench --bench watch -- 10000 churn
//! ```
//!
//! Opens so many established TCP sockets in a namespace of its own; with `churn` 200 connections a second are replaced. Runs
//! `linger watch --interval 1s` on a terminal of tmux beside them, lets it settle, and prints what it then takes of one
//! processor, and the most memory that it used. Fails if 10,000 sockets take more than 5 % or 60 MiB. Takes root, `unshare`,
//! `ip` and `tmux`.

mod sockets;

use std::env;
use std::error::Error;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The share of one processor that it may take, in percent.
const SHARE: f64 = 5.0;
/// The memory that it may use, in MiB.
const MEMORY: f64 = 60.0;
/// The time until caches are filled and sparklines have something to show.
const SETTLED: Duration = Duration::from_secs(6);
/// The time that is measured: the walk of all descriptors, which comes twice a minute, is in it.
const MEASURED: Duration = Duration::from_secs(40);
/// Clock ticks a second in `/proc/PID/stat` (`USER_HZ`).
const TICKS: f64 = 100.0;

fn main() -> Result<(), Box<dyn Error>> {
    if env::args().any(|argument| argument == "churn") && env::var_os(sockets::CHURN).is_none() {
        let mut command = Command::new(env::current_exe()?);
        command.args(env::args().skip(1)).env(sockets::CHURN, "200");
        return Err(command.exec().into());
    }
    let Some(wanted) = sockets::enter(&["-n"])? else {
        return Ok(());
    };
    let held = sockets::Held::open(wanted)?;
    let done = measure(wanted);
    drop(held);
    done
}

fn measure(sockets: usize) -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let terminal = scratch.path().join("tmux");
    let tmux = |words: &[&str]| -> Result<String, Box<dyn Error>> {
        let mut command = Command::new("tmux");
        let output = command
            .arg("-S")
            .arg(&terminal)
            .args(["-f", "/dev/null"])
            .args(words)
            .output();
        let output = output.map_err(|error| format!("tmux (apt-get install tmux): {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(String::from_utf8(output.stdout)?)
    };
    let line = format!(
        "LC_ALL=C.UTF-8 exec {} watch --interval 1s --state-dir {}",
        env!("CARGO_BIN_EXE_linger"),
        scratch.path().join("state").display()
    );
    tmux(&["new-session", "-d", "-x", "120", "-y", "40", &line])?;
    let pid = tmux(&["display-message", "-p", "#{pane_pid}"])?
        .trim()
        .to_owned();
    thread::sleep(SETTLED);
    let (before, began) = (spent(&pid)?, Instant::now());
    thread::sleep(MEASURED);
    let share = (spent(&pid)? - before) / began.elapsed().as_secs_f64() * 100.0;
    let memory = most(&pid)?;
    let screen = tmux(&["capture-pane", "-p"])?;
    let head = screen.lines().next().unwrap_or_default().to_owned();
    tmux(&["kill-server"])?;
    println!("{head}");
    println!("sockets        {sockets:>8}");
    println!("of one core    {share:>8.2} %    at most {SHARE} %");
    println!("memory         {memory:>8.1} MiB  at most {MEMORY} MiB");
    if !head.contains("TCP sockets") {
        return Err("the dashboard did not come up".into());
    }
    if sockets <= 10_000 && (share > SHARE || memory > MEMORY) {
        return Err("it takes more than it may".into());
    }
    Ok(())
}

/// Processor time of a process, seconds.
fn spent(pid: &str) -> Result<f64, Box<dyn Error>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').ok_or("no stat")?;
    let mut ticks = 0.0;
    // utime and stime, the 14th and 15th member.
    for word in rest.split_whitespace().skip(11).take(2) {
        ticks += word.parse::<f64>()?;
    }
    Ok(ticks / TICKS)
}

/// The most memory that a process has used, MiB.
fn most(pid: &str) -> Result<f64, Box<dyn Error>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("no VmHWM")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}
