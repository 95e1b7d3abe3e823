//! Many real sockets in a network namespace of their own, held by child processes.

use std::collections::VecDeque;
use std::env;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// Set in a process that holds sockets: its number and how many pairs.
const HOLDER: &str = "LINGER_BENCH_HOLDER";
/// Set once the namespace has been entered.
const INSIDE: &str = "LINGER_BENCH_INSIDE";
/// Set if the far end of every pair is to be closed, so that the other stays in CLOSE-WAIT.
const STUCK: &str = "LINGER_BENCH_STUCK";
/// How many connections each process replaces in a second.
pub const CHURN: &str = "LINGER_BENCH_CHURN";
/// What one process holds: two descriptors a pair, below the usual hard limit of descriptors.
const PAIRS: usize = 9_000;

/// How many sockets are wanted, in a namespace of their own. `None`: this was a process that held some, or `cargo test`
/// asks whether the benchmark starts. `options` are those of unshare(1).
pub fn enter(options: &[&str]) -> Result<Option<usize>, Box<dyn Error>> {
    if let Ok(task) = env::var(HOLDER) {
        hold(&task)?;
        return Ok(None);
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(None);
    }
    if arguments.iter().any(|argument| argument == "stuck") && env::var_os(STUCK).is_none() {
        let error = Command::new(env::current_exe()?)
            .args(&arguments)
            .env(STUCK, "1")
            .exec();
        return Err(error.into());
    }
    let wanted = arguments.iter().find_map(|argument| argument.parse().ok());
    if env::var_os(INSIDE).is_none() {
        let script = "ip link set lo up && ulimit -n \"$(ulimit -H -n)\" && exec \"$@\"";
        let error = Command::new("unshare")
            .args(options)
            .args(["sh", "-c", script, "sh"])
            .arg(env::current_exe()?)
            .args(arguments)
            .env(INSIDE, "1")
            .exec();
        return Err(format!("unshare: {error} (apt-get install util-linux iproute2)").into());
    }
    Ok(Some(wanted.unwrap_or(200_000)))
}

/// The processes that hold the sockets; they end with it.
pub struct Held(pub Vec<Child>);

impl Held {
    /// Opens `sockets` of them, two a pair.
    pub fn open(sockets: usize) -> Result<Self, Box<dyn Error>> {
        let mut held = Self(Vec::new());
        let mut left = sockets / 2;
        while left > 0 {
            let pairs = left.min(PAIRS);
            left -= pairs;
            held.start(&mut Command::new(env::current_exe()?), pairs)?;
        }
        Ok(held)
    }

    /// Starts one more process, which opens so many pairs and a listener.
    pub fn start(&mut self, command: &mut Command, pairs: usize) -> Result<(), Box<dyn Error>> {
        let mut child = command
            .env(HOLDER, format!("{} {pairs}", self.0.len()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ready = child.stdout.as_mut().map(|out| out.read_exact(&mut [0]));
        self.0.push(child);
        ready.transpose()?;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Its standard input ends, and so does it.
            drop(child.stdin.take());
        }
        for child in &mut self.0 {
            drop(child.wait());
        }
    }
}

fn hold(task: &str) -> Result<(), Box<dyn Error>> {
    let (number, pairs) = task.split_once(' ').ok_or("no task")?;
    let (number, pairs): (u32, usize) = (number.parse()?, pairs.parse()?);
    // An address of its own, so that no process takes another's ports.
    let address = Ipv4Addr::from(0x7f01_0000 + number);
    let listener = TcpListener::bind((address, 9000))?;
    let mut open = Vec::with_capacity(pairs * 2);
    for _ in 0..pairs {
        open.push(TcpStream::connect((address, 9000))?);
        open.push(listener.accept()?.0);
    }
    if env::var_os(STUCK).is_some() {
        let mut near = false;
        open.retain(|_| {
            near = !near;
            !near
        });
    }
    std::io::stdout().write_all(b".")?;
    std::io::stdout().flush()?;
    if let Ok(churn) = env::var(CHURN) {
        let pause = Duration::from_secs(1) / churn.parse()?;
        let mut open = VecDeque::from(open);
        thread::spawn(move || -> Result<(), std::io::Error> {
            loop {
                thread::sleep(pause);
                for near in open.drain(..2) {
                    // Reset, so that no TIME-WAIT stays.
                    SockRef::from(&near).set_linger(Some(Duration::ZERO))?;
                }
                open.push_back(TcpStream::connect((address, 9000))?);
                open.push_back(listener.accept()?.0);
            }
        });
        return wait();
    }
    wait()
}

fn wait() -> Result<(), Box<dyn Error>> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
