//! What the kernel says about its sockets, read without linger: `/proc/net/tcp`, `/proc/net/tcp6`, `/proc/net/sockstat`.
//!
//! `/proc/thread-self` is used because `/proc/net` is the namespace of the process's first thread.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// States as `/proc/net/tcp` numbers them (`include/net/tcp_states.h`).
pub const ESTABLISHED: u8 = 1;
pub const SYN_SENT: u8 = 2;
pub const SYN_RECEIVED: u8 = 3;
pub const FIN_WAIT_1: u8 = 4;
pub const FIN_WAIT_2: u8 = 5;
pub const TIME_WAIT: u8 = 6;
pub const CLOSE_WAIT: u8 = 8;
pub const LAST_ACK: u8 = 9;
pub const LISTEN: u8 = 10;
pub const CLOSING: u8 = 11;

/// A line of the kernel's table.
#[derive(Debug)]
pub struct Line {
    pub v6: bool,
    pub local_port: u16,
    pub peer_port: u16,
    pub state: u8,
    pub send_q: u64,
    pub recv_q: u64,
    /// 1 retransmission, 2 keepalive, 3 TIME-WAIT, 4 zero-window probe
    pub timer: u8,
    /// time-outs of the segment that is due
    pub retransmits: u64,
    /// probes of a closed window, or of keepalive, without an answer
    pub probes: u64,
}

/// Both tables of the calling thread's namespace.
pub fn table() -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (file, v6) in [("tcp", false), ("tcp6", true)] {
        let Ok(text) = fs::read_to_string(format!("/proc/thread-self/net/{file}")) else {
            continue;
        };
        for line in text.lines().skip(1) {
            lines.push(parse(line, v6).with_context(|| format!("not understood: {line}"))?);
        }
    }
    Ok(lines)
}

/// How many sockets are in the state.
pub fn count(state: u8) -> Result<usize> {
    Ok(table()?.iter().filter(|line| line.state == state).count())
}

/// Waits until the condition holds; what it answers until then is why it does not.
pub fn until(what: &str, mut holds: impl FnMut() -> Result<Option<String>>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let Some(why_not) = holds()? else {
            return Ok(());
        };
        if Instant::now() >= deadline {
            bail!("waited in vain for {what}: {why_not}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until exactly so many sockets are in the state.
pub fn until_count(state: u8, wanted: usize) -> Result<()> {
    until(&format!("{wanted} sockets in state {state}"), || {
        let mut by_state = BTreeMap::<u8, usize>::new();
        for line in table()? {
            *by_state.entry(line.state).or_default() += 1;
        }
        let found = by_state.get(&state).copied().unwrap_or(0);
        Ok((found != wanted).then(|| format!("{found}; of all states: {by_state:?}")))
    })
}

/// Writes a setting of the calling thread's namespace, such as `net/ipv4/tcp_fin_timeout`.
pub fn set_sysctl(name: &str, value: &str) -> Result<()> {
    fs::write(format!("/proc/sys/{name}"), value).with_context(|| format!("cannot set {name}"))
}

fn parse(line: &str, v6: bool) -> Option<Line> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let local_port = port(words.next()?)?;
    let peer_port = port(words.next()?)?;
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let (send_q, recv_q) = words.next()?.split_once(':')?;
    let (timer, _) = words.next()?.split_once(':')?;
    let retransmits = words.next()?;
    let probes = words.nth(1)?;
    Some(Line {
        v6,
        local_port,
        peer_port,
        state,
        send_q: u64::from_str_radix(send_q, 16).ok()?,
        recv_q: u64::from_str_radix(recv_q, 16).ok()?,
        timer: u8::from_str_radix(timer, 16).ok()?,
        retransmits: u64::from_str_radix(retransmits, 16).ok()?,
        probes: probes.parse().ok()?,
    })
}

fn port(endpoint: &str) -> Option<u16> {
    u16::from_str_radix(endpoint.rsplit_once(':')?.1, 16).ok()
}
