//! A running exporter, and a client that behaves.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Nothing healthy takes longer than this, on a machine however busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const CAPTURE: &str = "tests/data/v1.linger";

/// The program with an environment of its own.
pub fn linger(arguments: &[&str]) -> Command {
    through(env!("CARGO_BIN_EXE_linger"), arguments)
}

/// Another program that runs it in the end.
pub fn through(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_clear()
        .envs([
            ("LANG", "C.UTF-8"),
            ("TZ", "UTC"),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ])
        .env("STATE_DIRECTORY", state_directory())
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// A history for this run alone, which is begun anew.
fn state_directory() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("export-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    path
}

/// The program in a shell that has set something first.
pub fn after(setup: &str, arguments: &[&str]) -> Command {
    let script = format!("{setup}; exec \"$@\"");
    let mut all = vec!["-c", &script, "sh", env!("CARGO_BIN_EXE_linger")];
    all.extend(arguments);
    through("sh", &all)
}

/// A running exporter, which ends with the test.
pub struct Exporter {
    pub child: Child,
    pub addresses: Vec<SocketAddr>,
    lines: Mutex<Receiver<String>>,
}

impl Exporter {
    /// One on loopback.
    pub fn start(arguments: &[&str]) -> Self {
        let mut all = vec!["export", "--web.listen-address", "127.0.0.1:0"];
        all.extend(arguments);
        Self::of(linger(&all), 1)
    }

    /// One that will say so many addresses.
    pub fn of(mut command: Command, addresses: usize) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (says, lines) = channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = says.send(line);
            }
        });
        let mut exporter = Self {
            child,
            addresses: Vec::new(),
            lines: Mutex::new(lines),
        };
        while exporter.addresses.len() < addresses {
            let line = exporter.line();
            if let Some(url) = line.strip_prefix("linger: listening on http://") {
                let (address, _) = url.split_once('/').unwrap();
                exporter.addresses.push(address.parse().unwrap());
            }
        }
        exporter
    }

    /// The next line on standard error.
    pub fn line(&self) -> String {
        self.lines
            .lock()
            .unwrap()
            .recv_timeout(PATIENCE)
            .expect("a line on stderr")
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn get(&self, path: &str) -> Answer {
        ask(
            self.address(),
            &format!("GET {path} HTTP/1.1\r\nHost: x\r\n"),
        )
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// How it ends within so long.
    pub fn ends(&mut self, within: Duration) -> ExitStatus {
        ends(&mut self.child, within)
    }

    /// The most memory that it has used, MiB.
    pub fn most_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = line
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        kib / 1024
    }

    /// Processor time that it has used.
    pub fn spent(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let ticks = rest.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|word| word.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }
}

/// How a process ends within so long.
pub fn ends(child: &mut Child, within: Duration) -> ExitStatus {
    let until = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < until, "it goes on");
        thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (other, value) = line.split_once(": ")?;
            other.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Asks with this head, to which the end is added, on a connection of its own.
pub fn ask(address: SocketAddr, head: &str) -> Answer {
    let mut stream = connect(address);
    write!(stream, "{head}Connection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    answer(&text)
}

pub fn answer(text: &str) -> Answer {
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    Answer {
        status: first.split(' ').nth(1).unwrap().parse().unwrap(),
        headers: headers.replace('\r', ""),
        body: body.to_owned(),
    }
}

/// The value of a series.
pub fn value(text: &str, series: &str) -> Option<f64> {
    let start = format!("{series} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start))?;
    Some(line.parse().unwrap())
}

/// Whether the text is one from its first byte to its last.
pub fn is_whole(text: &str) -> bool {
    text.starts_with("# HELP linger_build_info ")
        && (text.ends_with("\nlinger_dump_interrupted 0\n")
            || text.contains("\nlinger_source_up 0\n") && text.ends_with('\n'))
}

/// That promtool has nothing to say of it.
pub fn promtool(text: &str) {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let missing = "promtool is missing: apt-get install --no-install-recommends prometheus";
            assert!(std::env::var_os("CI").is_none(), "{missing}");
            eprintln!("skipped: {missing}");
            return;
        }
        child => child.unwrap(),
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}\n{text}",
        String::from_utf8_lossy(&said)
    );
}
