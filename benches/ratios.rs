//! How long `linger` takes beside `ss`, `netstat` and the kernel's own cost, on the same sockets in the same run:
//!
//! ```text
//! cargo bench --bench ratios -- 200000
//! cargo bench --bench ratios -- 1000000
//! ```
//!
//! Opens so many TCP sockets in a network namespace of its own, held by processes of 18,000 each, and runs ours and theirs by
//! turns, A B A B, five times after one that is not counted, with the output thrown away. Prints the medians and the range of
//! each, the ratio of the medians and the most memory that ours has used, as a table of Markdown. Fails if a ratio or a size is
//! above its bar. Takes root, `unshare`, `ip` and `ss`, `netstat` if it is there, and 5 GiB for a million sockets.
//!
//! The *floor* is a program that asks the kernel for the same (IPv4, then IPv6, one after the other) and throws away what it
//! receives; with `walk` it also follows each descriptor in `/proc/PID/fd`.

mod sockets;

use std::env;
use std::error::Error;
use std::ffi::CStr;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Instant;

use netlink_packet_core::{NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use nix::sys::resource::{UsageWho, getrusage};
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::net::RecvFlags;

type Done<T> = Result<T, Box<dyn Error>>;

/// Set in the process that runs one command and measures it.
const RUN: &str = "LINGER_BENCH_RUN";
/// Set in the process that is a floor: what it does.
const FLOOR: &str = "LINGER_BENCH_FLOOR";
/// How often each is counted.
const TIMES: usize = 5;
/// What takes longer than a minute is not run with more sockets than this.
const FEW: usize = 250_000;

/// What ours is compared with.
#[derive(Clone, Copy)]
enum Theirs {
    /// a command with its arguments
    Command(&'static str),
    /// a floor
    Floor(&'static str),
}

impl Theirs {
    fn name(self) -> String {
        match self {
            Self::Command(line) => format!("`{line}`"),
            Self::Floor(what) => format!("the floor ({what})"),
        }
    }
}

/// Whether the program of a command line is installed.
fn is_there(line: &str) -> bool {
    let program = line.split(' ').next().unwrap_or(line);
    env::var_os("PATH").is_some_and(|path| {
        env::split_paths(&path).any(|directory| directory.join(program).exists())
    })
}

/// What must hold.
struct Bar {
    ours: &'static str,
    theirs: Theirs,
    /// the largest ratio of the medians; none where it is only shown
    most: Option<f64>,
    /// the largest size of ours, MiB
    memory: Option<f64>,
    /// whether it is left out where there are many sockets
    few: bool,
}

const fn bar(ours: &'static str, theirs: Theirs, most: f64) -> Bar {
    Bar {
        ours,
        theirs,
        most: Some(most),
        memory: None,
        few: false,
    }
}

const fn within(bar: Bar, memory: f64) -> Bar {
    Bar {
        memory: Some(memory),
        ..bar
    }
}

use Theirs::{Command as Ss, Floor};

const BARS: &[Bar] = &[
    within(bar("list -tan -H", Ss("ss -tanH"), 0.55), 16.0),
    bar("list -tan -H", Floor("plain"), 1.20),
    bar("list -tan -H", Ss("netstat -tan"), 1.0),
    within(bar("list -tani -H", Ss("ss -tanHi"), 0.40), 16.0),
    within(bar("list -tanoem -H", Ss("ss -tanHoem"), 0.15), 16.0),
    Bar {
        few: true,
        ..bar("list -tanp -H", Ss("ss -tanHp"), 0.05)
    },
    bar("list -tan --json", Ss("ss -tanH"), 1.0),
    within(bar("status --no-owners", Floor("tcp_info"), 1.5), 260.0),
    bar("status", Floor("tcp_info walk"), 1.3),
    bar(
        "list -ta state close-wait",
        Ss("ss -tanH state close-wait"),
        0.9,
    ),
];

/// Sizes alone.
const SIZES: &[(&str, f64)] = &[
    ("list -tan -H --sort recv-q", 160.0),
    ("list -tan --json --sort recv-q", 160.0),
    ("diagnose --no-owners", 260.0),
];

/// On a machine where nothing is open.
const IDLE: &[Bar] = &[bar("list -tln", Ss("ss -tlnH"), 1.2)];

fn main() -> Done<()> {
    if env::var_os(RUN).is_some() {
        return run();
    }
    if let Ok(what) = env::var(FLOOR) {
        return floor(&what);
    }
    let Some(wanted) = sockets::enter(&["-n"])? else {
        return Ok(());
    };
    let held = sockets::Held::open(wanted)?;
    println!("\n{wanted} TCP sockets, Linux {}", kernel()?);
    println!("| ours | ms | theirs | ms | ratio | bar | MiB |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let mut missed = 0;
    for bar in BARS.iter().filter(|bar| wanted <= FEW || !bar.few) {
        missed += usize::from(!holds(bar)?);
    }
    for (ours, most) in SIZES {
        let took = took(&ours_of(ours), None)?;
        let good = took.memory <= *most;
        missed += usize::from(!good);
        let mark = if good { "" } else { " MISSED" };
        println!(
            "| `linger {ours}` | {:.0} | | | | {most:.0} MiB{mark} | {:.1} |",
            took.clock, took.memory
        );
    }
    drop(held);
    for bar in IDLE {
        missed += usize::from(!holds(bar)?);
    }
    match missed {
        0 => Ok(()),
        n => Err(format!("{n} bars are missed").into()),
    }
}

fn kernel() -> Done<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?
        .trim()
        .to_owned())
}

/// What a run took.
#[derive(Clone, Copy)]
struct Took {
    /// milliseconds
    clock: f64,
    /// MiB
    memory: f64,
}

fn ours_of(arguments: &str) -> Vec<String> {
    let words = arguments.split(' ').map(str::to_owned);
    std::iter::once(env!("CARGO_BIN_EXE_linger").to_owned())
        .chain(words)
        .collect()
}

/// Runs both by turns, prints a line, and says whether the bar holds.
fn holds(bar: &Bar) -> Done<bool> {
    if matches!(bar.theirs, Ss(line) if !is_there(line)) {
        println!(
            "| `linger {}` | | {} is not installed | | | | |",
            bar.ours,
            bar.theirs.name()
        );
        return Ok(true);
    }
    let ours = ours_of(bar.ours);
    let (theirs, work) = match bar.theirs {
        Ss(line) => (line.split(' ').map(str::to_owned).collect(), None),
        Floor(what) => {
            let own = env::current_exe()?.to_string_lossy().into_owned();
            (vec![own], Some(what))
        }
    };
    let name = bar.theirs.name();
    let (mut mine, mut others) = (Vec::new(), Vec::new());
    for round in 0..=TIMES {
        let pair = (took(&ours, None)?, took(&theirs, work)?);
        // The first one fills caches.
        if round > 0 {
            mine.push(pair.0);
            others.push(pair.1);
        }
    }
    let (mine, others) = (spread(&mut mine), spread(&mut others));
    let ratio = mine.median / others.median;
    let good = bar.most.is_none_or(|most| ratio <= most)
        && bar.memory.is_none_or(|most| mine.memory <= most);
    let memory = bar
        .memory
        .map_or_else(String::new, |most| format!(" of {most:.0}"));
    println!(
        "| `linger {}` | {} | {name} | {} | {ratio:.2} | {}{} | {:.1}{memory} |",
        bar.ours,
        mine.words(),
        others.words(),
        bar.most
            .map_or_else(String::new, |most| format!("{most:.2}")),
        if good { "" } else { " MISSED" },
        mine.memory,
    );
    Ok(good)
}

/// Several runs of one command.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
    memory: f64,
}

impl Spread {
    fn words(&self) -> String {
        format!("{:.0} ({:.0} to {:.0})", self.median, self.least, self.most)
    }
}

fn spread(runs: &mut [Took]) -> Spread {
    runs.sort_by(|a, b| a.clock.total_cmp(&b.clock));
    let clock = |run: Option<&Took>| run.map_or(0.0, |run| run.clock);
    Spread {
        median: clock(runs.get(runs.len() / 2)),
        least: clock(runs.first()),
        most: clock(runs.last()),
        memory: runs.iter().map(|run| run.memory).fold(0.0, f64::max),
    }
}

/// Runs a command in a small process of its own, whose only child it is.
fn took(command: &[String], floor: Option<&str>) -> Done<Took> {
    let mut runner = Command::new(env::current_exe()?);
    runner.args(command).env(RUN, "1").stdin(Stdio::null());
    if let Some(what) = floor {
        runner.env(FLOOR, what);
    }
    let output = runner.stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut words = text.split_whitespace().map(str::parse::<f64>);
    let (Some(Ok(clock)), Some(Ok(kib))) = (words.next(), words.next()) else {
        return Err(format!("{command:?}: {}", output.status).into());
    };
    Ok(Took {
        clock,
        memory: kib / 1024.0,
    })
}

/// Runs the command in the arguments, and prints its milliseconds and KiB.
fn run() -> Done<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (program, arguments) = arguments.split_first().ok_or("no command")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_remove(RUN)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let began = Instant::now();
    let status = command
        .status()
        .map_err(|error| format!("{program}: {error}"))?;
    let clock = began.elapsed().as_secs_f64() * 1000.0;
    // `diagnose` says by its code what it has found.
    if status.code().is_none_or(|code| code > 3) {
        return Err(format!("{program}: {status}").into());
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    println!("{clock} {}", usage.max_rss());
    Ok(())
}

/// The least that can be done.
fn floor(what: &str) -> Done<()> {
    let tcp_info = what.contains("tcp_info");
    for family in [2, 10] {
        dump(family, tcp_info)?;
    }
    if what.contains("walk") {
        walk()?;
    }
    Ok(())
}

/// Asks for all TCP sockets of a family, and receives.
fn dump(family: u8, tcp_info: bool) -> Done<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // `struct nlmsghdr`: SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP
    let mut request = 72u32.to_ne_bytes().to_vec();
    request.extend(20u16.to_ne_bytes());
    request.extend(0x301u16.to_ne_bytes());
    request.extend([0; 8]);
    // `struct inet_diag_req_v2`: all states, INET_DIAG_INFO
    request.extend([family, 6, u8::from(tcp_info) << 1, 0]);
    request.extend(0xfffu32.to_ne_bytes());
    request.resize(72, 0);
    socket.send(&request, 0)?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let (_, length) = rustix::net::recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Ok(message) = NetlinkBuffer::new_checked(rest) {
            match message.message_type() {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return Err("the kernel refuses a dump".into()),
                _ => {}
            }
            let length = message.length() as usize;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Follows every descriptor of every process.
fn walk() -> Done<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let is_number = |name: &CStr| name.to_bytes().iter().all(u8::is_ascii_digit);
    let root = openat(CWD, c"/proc", flags, Mode::empty())?;
    let mut outer = [MaybeUninit::uninit(); 32 * 1024];
    let mut inner = [MaybeUninit::uninit(); 32 * 1024];
    let mut processes = RawDir::new(root.as_fd(), &mut outer);
    while let Some(process) = processes.next() {
        let process = process?;
        if !is_number(process.file_name()) {
            continue;
        }
        let path = format!("{}/fd", process.file_name().to_str()?);
        let Ok(directory) = openat(&root, path, flags, Mode::empty()) else {
            continue;
        };
        let mut target = [0u8; 64];
        let mut descriptors = RawDir::new(directory.as_fd(), &mut inner);
        while let Some(Ok(descriptor)) = descriptors.next() {
            if is_number(descriptor.file_name()) {
                let _ = readlinkat_raw(&directory, descriptor.file_name(), &mut target[..]);
            }
        }
    }
    Ok(())
}
