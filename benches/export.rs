//! Whether a scrape costs what it may:
//!
//! ```text
//! cargo bench --bench export -- 200000
//! cargo bench --bench export -- 200000 stuck
//! ```
//!
//! Opens so many TCP sockets in a namespace of its own, with `stuck` half of them in CLOSE-WAIT and the rest closed, and runs
//! `linger export` and node_exporter's tcpstat collector beside them. Five times, one after the other: a scrape of each, and
//! `linger status > /dev/null`. Prints the medians of the time by the clock and by the processor, and the most memory that the
//! exporter has used. Fails if a scrape takes more processor time than 1.1 of `linger status`, if it is not twice as fast as
//! node_exporter's, or if the exporter has used more than 64 MiB. Takes root, `unshare`, `ip` and `prometheus-node-exporter`.

mod sockets;

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

type Done<T> = Result<T, Box<dyn Error>>;

/// What a scrape may cost, as a share of `linger status`.
const SHARE: f64 = 1.10;
/// How much faster than node_exporter it has to be.
const FASTER: f64 = 2.0;
/// The memory that it may use, in MiB.
const MEMORY: f64 = 64.0;
/// How often each is measured.
const TIMES: usize = 5;
/// Clock ticks a second in `/proc/PID/stat` (`USER_HZ`).
const TICKS: f64 = 100.0;
/// Where node_exporter listens, in a namespace that is ours.
const THEIRS: &str = "127.0.0.1:9100";

fn main() -> Done<()> {
    let Some(wanted) = sockets::enter(&["-n"])? else {
        return Ok(());
    };
    let held = sockets::Held::open(wanted)?;
    let done = measure(wanted);
    drop(held);
    done
}

/// A program that ends with the benchmark.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What something took, in milliseconds.
#[derive(Clone, Copy)]
struct Took {
    clock: f64,
    processor: f64,
}

/// The median of each.
fn median(all: &[Took]) -> Took {
    let of = |value: fn(&Took) -> f64| {
        let mut values: Vec<f64> = all.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Took {
        clock: of(|took| took.clock),
        processor: of(|took| took.processor),
    }
}

fn measure(wanted: usize) -> Done<()> {
    let (ours, address) = exporter()?;
    let theirs = node_exporter()?;
    let (mut scrapes, mut statuses, mut others) = (Vec::new(), Vec::new(), Vec::new());
    // The first one of each is not counted: it fills caches.
    for round in 0..=TIMES {
        let took = [
            scrape(&address, &ours.0, "linger_tcp_sockets{")?,
            status()?,
            scrape(THEIRS, &theirs.0, "node_tcp_connection_states{")?,
        ];
        if round > 0 {
            for (all, took) in [&mut scrapes, &mut statuses, &mut others]
                .into_iter()
                .zip(took)
            {
                all.push(took);
            }
        }
    }
    let (scrape, status, other) = (median(&scrapes), median(&statuses), median(&others));
    let memory = most(ours.0.id())?;
    println!("sockets {wanted:>24}");
    println!("median of {TIMES}                clock     processor");
    for (name, took) in [
        ("a scrape", scrape),
        ("linger status", status),
        ("node_exporter, tcpstat", other),
    ] {
        println!(
            "{name:<24} {:>8.1} ms {:>8.1} ms",
            took.clock, took.processor
        );
    }
    let share = scrape.processor / status.processor.max(1.0);
    let faster = other.clock / scrape.clock;
    println!("of linger status        {share:>8.2}, by the processor; at most {SHARE}");
    println!("node_exporter / scrape  {faster:>8.2}, by the clock; at least {FASTER}");
    println!("memory                  {memory:>8.1} MiB, at most {MEMORY}");
    if share > SHARE || faster < FASTER || memory > MEMORY {
        return Err("it takes more than it may".into());
    }
    Ok(())
}

fn exporter() -> Done<(Running, String)> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_linger"))
        .args([
            "export",
            "--no-history",
            "--web.listen-address",
            "127.0.0.1:0",
        ])
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = child.stderr.take().ok_or("no stderr")?;
    let running = Running(child);
    for line in BufReader::new(stderr).lines() {
        if let Some(url) = line?.strip_prefix("linger: listening on http://") {
            return Ok((running, url.trim_end_matches("/metrics").to_owned()));
        }
    }
    Err("linger export does not listen".into())
}

fn node_exporter() -> Done<Running> {
    let child = Command::new("prometheus-node-exporter")
        .args(["--collector.disable-defaults", "--collector.tcpstat"])
        .arg(format!("--web.listen-address={THEIRS}"))
        .stderr(Stdio::null())
        .spawn();
    let running = Running(child.map_err(|error| {
        format!("prometheus-node-exporter: {error} (apt-get install --no-install-recommends prometheus-node-exporter)")
    })?);
    let until = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(THEIRS).is_err() {
        if Instant::now() > until {
            return Err("prometheus-node-exporter does not listen".into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(running)
}

/// Scrapes, and looks for a series by its beginning.
fn scrape(address: &str, server: &Child, series: &str) -> Done<Took> {
    let (began, before) = (Instant::now(), spent(server.id())?);
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let clock = began.elapsed().as_secs_f64() * 1000.0;
    if !text.contains(series) {
        return Err(format!("{address} does not tell {series}: {text}").into());
    }
    Ok(Took {
        clock,
        processor: spent(server.id())? - before,
    })
}

fn status() -> Done<Took> {
    let (began, before) = (Instant::now(), ended()?);
    let status = Command::new(env!("CARGO_BIN_EXE_linger"))
        .arg("status")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if !status.success() {
        return Err("linger status fails".into());
    }
    Ok(Took {
        clock: began.elapsed().as_secs_f64() * 1000.0,
        processor: ended()? - before,
    })
}

/// Processor time of a process, with that of its threads which have ended, in milliseconds: `utime` and `stime`.
fn spent(pid: u32) -> Done<f64> {
    ticks(&format!("/proc/{pid}/stat"), 11)
}

/// Processor time of the children that have ended, in milliseconds: `cutime` and `cstime`.
fn ended() -> Done<f64> {
    ticks("/proc/self/stat", 13)
}

/// Two times in a row of `stat`, in milliseconds.
fn ticks(path: &str, first: usize) -> Done<f64> {
    let stat = fs::read_to_string(path)?;
    let (_, rest) = stat.rsplit_once(')').ok_or("no stat")?;
    let mut ticks = 0.0;
    for word in rest.split_whitespace().skip(first).take(2) {
        ticks += word.parse::<f64>()?;
    }
    Ok(ticks / TICKS * 1000.0)
}

/// The most memory that a process has used, MiB.
fn most(pid: u32) -> Done<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("no VmHWM")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}
