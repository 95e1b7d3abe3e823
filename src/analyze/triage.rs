//! What holds up the connections that have bytes in a queue.
//!
//! One look shows a queue, a timer and stamps. A second one shows whether anything has moved, and where nothing has,
//! who did not do their part: the peer that does not read, the network that loses, the program here that does not
//! read, or the program's own send buffer that is too small.

use std::collections::BTreeMap;

use super::group::Target;
use super::role::{Towards, judge, towards};
use super::{Context, Limits, words};
use crate::history::{Flow, Sample};
use crate::knowledge::lifetimes;
use crate::model::{Age, Evidence, Process, Severity, Socket, TcpInfo, Timer, age};

/// Limited by its own send buffer for so much of the time with something to send, it is held up by that.
const BUFFER_SHARE: u64 = 20;

/// Limited by the peer's window for most of the time.
const WINDOW_SHARE: u64 = 50;

/// A queue of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// what was not acknowledged, or not even sent
    Send,
    /// what was not read
    Receive,
}

/// What held a connection up between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// the peer's window: its program does not read
    Window,
    /// segments are sent again, and nothing is acknowledged
    Network,
    /// the program here does not read
    Reader,
    /// it moves, as fast as its own send buffer allows
    Buffer,
    /// nothing: it moves
    Moving,
    /// nothing tells
    Unclear,
}

impl Cause {
    const fn name(self) -> &'static str {
        match self {
            Self::Window => "held_up_by_peers_window",
            Self::Network => "held_up_by_network",
            Self::Reader => "held_up_by_this_program",
            Self::Buffer => "held_up_by_send_buffer",
            Self::Moving => "moving",
            Self::Unclear => "cause_unclear",
        }
    }

    const fn source(self) -> &'static str {
        match self {
            Self::Window => "tcpi_bytes_acked, idiag_timer, tcpi_rwnd_limited",
            Self::Network => "tcpi_bytes_acked, tcpi_total_retrans",
            Self::Reader => "tcpi_bytes_received, idiag_rqueue",
            Self::Buffer => "tcpi_sndbuf_limited, tcpi_busy_time",
            Self::Moving | Self::Unclear => "tcpi_bytes_acked, tcpi_bytes_received",
        }
    }
}

/// What a connection did between two looks; `None` where the kernel does not count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// bytes that the peer acknowledged
    pub acked: Option<u64>,
    /// bytes that came in
    pub received: Option<u64>,
    /// bytes that the program read
    pub read: Option<u64>,
    /// microseconds with something to send
    pub busy_us: Option<u64>,
    /// of these, held up by the peer's window
    pub rwnd_limited_us: Option<u64>,
    /// of these, held up by the own send buffer
    pub sndbuf_limited_us: Option<u64>,
    /// segments sent again
    pub retransmitted: u32,
}

impl Moves {
    /// What happened from `then` to `now`.
    pub fn between(then: &Flow, now: &Flow) -> Self {
        let grown = |then: Option<u64>, now: Option<u64>| now?.checked_sub(then?);
        // Before Linux 4.2 no bytes are counted, but a shorter queue has moved.
        let shorter = |then: u32, now: u32| then.checked_sub(now).filter(|n| *n > 0).map(u64::from);
        let received = grown(then.bytes_received, now.bytes_received);
        let read = received.and_then(|n| {
            n.saturating_add(u64::from(then.recv_q))
                .checked_sub(u64::from(now.recv_q))
        });
        Self {
            acked: grown(then.bytes_acked, now.bytes_acked)
                .or_else(|| shorter(then.send_q, now.send_q)),
            received,
            read: read.or_else(|| shorter(then.recv_q, now.recv_q)),
            busy_us: grown(then.busy_us, now.busy_us),
            rwnd_limited_us: grown(then.rwnd_limited_us, now.rwnd_limited_us),
            sndbuf_limited_us: grown(then.sndbuf_limited_us, now.sndbuf_limited_us),
            retransmitted: now.total_retrans.saturating_sub(then.total_retrans),
        }
    }

    /// The share of the time with something to send in which it was held up by its own send buffer.
    pub fn buffer_share(&self) -> Option<u64> {
        Some(words::percent(
            self.sndbuf_limited_us?,
            self.busy_us.filter(|us| *us > 0)?,
        ))
    }

    fn window_share(&self) -> Option<u64> {
        Some(words::percent(
            self.rwnd_limited_us?,
            self.busy_us.filter(|us| *us > 0)?,
        ))
    }
}

/// Whether the peer has closed its window on what is queued: the probe timer runs, or retransmissions serve as probes
/// because the window was closed on data in flight (`tcp_retransmit_timer()` in net/ipv4/tcp_timer.c). The probe timer
/// also runs for a moment with an open window, for what the program holds back with `TCP_CORK`.
pub fn is_window_closed(socket: &Socket, info: Option<&TcpInfo>) -> bool {
    let window = info.and_then(TcpInfo::snd_wnd);
    let is_open = window.is_some_and(|window| window >= info.map_or(1, |info| info.snd_mss.max(1)));
    let on_data_in_flight =
        socket.timer == Timer::Retransmit && socket.retransmits > 0 && window == Some(0);
    let probes = socket.timer == Timer::Persist && !is_open;
    socket.send_q > 0 && (probes || on_data_in_flight)
}

/// How many time-outs of the segment that is due have passed without an answer; `None` if no retransmission is due.
pub fn time_outs(socket: &Socket, info: Option<&TcpInfo>) -> Option<u8> {
    let backoff = info.map_or(0, |info| info.backoff.max(info.retransmits));
    (socket.timer == Timer::Retransmit && socket.send_q > 0)
        .then(|| socket.retransmits.max(backoff))
}

/// For how long what was sent has gone unanswered. A row of `/proc` tells only how many time-outs there were, of which
/// the first took a fifth of a second at least.
pub fn unanswered(socket: &Socket, info: Option<&TcpInfo>) -> Option<Age> {
    match info {
        Some(info) => age::unanswered(socket, info),
        None => Some(Age::at_least(
            200 * ((1u64 << socket.retransmits.min(15)) - 1),
        )),
    }
}

/// Milliseconds since anything came from the peer. Data does not restamp the last ACK where it acknowledges nothing
/// new (`tcp_rcv_established()` in net/ipv4/tcp_input.c).
pub fn heard_ms(info: &TcpInfo) -> u64 {
    u64::from(info.last_ack_recv_ms.min(info.last_data_recv_ms))
}

/// Two full looks at the connections with bytes in one of their queues.
#[derive(Debug)]
pub struct Triage<'c, 'a> {
    context: &'c Context<'a>,
    before: Option<&'c Sample>,
    /// whether that was so lately that what moved since then is not stuck
    just_before: bool,
    queue: Queue,
}

impl<'c, 'a> Triage<'c, 'a> {
    /// The last full look before this one, and this one.
    pub fn new(context: &'c Context<'a>, queue: Queue) -> Self {
        Self {
            context,
            before: context.history.earlier().last(),
            just_before: context.history.just_before(context.sample.taken).is_some(),
            queue,
        }
    }

    /// What the connection in `row` did between the looks; `None` with one look, or if its queues were empty then. It
    /// may be stuck although it moved since a look of long ago: from there only standing still proves anything.
    pub fn moves(&self, row: u32) -> Option<Moves> {
        let cookie = self.context.snapshot.socket(row)?.cookie?.get();
        let then = self.before?.flow(cookie)?;
        let moves = Moves::between(then, self.context.sample.flow(cookie)?);
        let moved = match self.queue {
            Queue::Send => moves.acked,
            Queue::Receive => moves.read,
        };
        (self.just_before || moved == Some(0)).then_some(moves)
    }

    /// What held it up.
    pub fn cause(&self, row: u32) -> Cause {
        let socket = self.context.snapshot.socket(row);
        let (Some(socket), Some(moves)) = (socket, self.moves(row)) else {
            return Cause::Unclear;
        };
        if self.queue == Queue::Receive {
            return match moves.read {
                Some(0) => Cause::Reader,
                Some(_) => Cause::Moving,
                None => Cause::Unclear,
            };
        }
        let info = self.context.snapshot.info(socket);
        let info = info.as_ref();
        if moves.acked.is_some_and(|bytes| bytes > 0) {
            return match moves.buffer_share() {
                Some(BUFFER_SHARE..) => Cause::Buffer,
                _ => Cause::Moving,
            };
        }
        if is_window_closed(socket, info) || moves.window_share() >= Some(WINDOW_SHARE) {
            Cause::Window
        } else if moves.retransmitted > 0 || time_outs(socket, info).is_some_and(|n| n > 0) {
            Cause::Network
        } else {
            Cause::Unclear
        }
    }

    /// Whether bytes went through the queue between the looks: then it is not stuck.
    pub fn is_moving(&self, row: u32) -> bool {
        matches!(self.cause(row), Cause::Moving | Cause::Buffer)
    }

    /// For how long all earlier looks in a row have seen the queue as unmoved as it is now, milliseconds.
    pub fn unmoved_ms(&self, row: u32) -> u64 {
        let now = self
            .context
            .snapshot
            .socket(row)
            .and_then(|socket| self.context.sample.flow(socket.cookie?.get()));
        let Some((now, place)) = now.and_then(|now| Some((now, self.place(now)?))) else {
            return 0;
        };
        let unmoved = |sample: &&Sample| {
            sample
                .flow(now.cookie)
                .is_some_and(|then| self.place(then) == Some(place))
        };
        let earlier = self.context.history.earlier().iter().rev();
        let Some(first) = earlier.take_while(unmoved).last() else {
            return 0;
        };
        let since = self.context.snapshot.taken.duration_since(first.taken);
        u64::try_from(since.as_millis()).unwrap_or(0)
    }

    /// How far the stream has come on the other side of a queue that is not empty.
    fn place(&self, flow: &Flow) -> Option<u64> {
        match self.queue {
            Queue::Send => flow.bytes_acked.filter(|_| flow.send_q > 0),
            Queue::Receive => {
                let received = flow.bytes_received.filter(|_| flow.recv_q > 0)?;
                received.checked_sub(u64::from(flow.recv_q))
            }
        }
    }

    /// What the two looks say about these connections: how many were held up by what, and what moved.
    pub fn evidence(&self, rows: impl Iterator<Item = u32>) -> Vec<Evidence> {
        let Some(before) = self.before else {
            return Vec::new();
        };
        let mut causes: BTreeMap<Cause, u64> = BTreeMap::new();
        let (mut bytes, mut busy, mut limited) = (0u64, 0u64, 0u64);
        for row in rows {
            let Some(moves) = self.moves(row) else {
                continue;
            };
            *causes.entry(self.cause(row)).or_default() += 1;
            let moved = match self.queue {
                Queue::Send => moves.acked,
                Queue::Receive => moves.read,
            };
            bytes = bytes.saturating_add(moved.unwrap_or(0));
            busy = busy.saturating_add(moves.busy_us.unwrap_or(0));
            limited = limited.saturating_add(moves.rwnd_limited_us.unwrap_or(0));
        }
        if causes.is_empty() {
            return Vec::new();
        }
        let window = self.context.snapshot.taken.duration_since(before.taken);
        let mut evidence = vec![Evidence::real(
            "between_looks",
            window.as_secs_f64(),
            "s",
            "two looks",
        )];
        evidence.extend(
            causes
                .into_iter()
                .map(|(cause, n)| Evidence::count(cause.name(), n, "sockets", cause.source())),
        );
        let (name, source) = match self.queue {
            Queue::Send => ("bytes_acknowledged", "tcpi_bytes_acked"),
            Queue::Receive => ("bytes_read", "tcpi_bytes_received, idiag_rqueue"),
        };
        evidence.push(Evidence::count(name, bytes, "bytes", source));
        if self.queue == Queue::Send && busy > 0 {
            evidence.push(Evidence::count(
                "limited_by_peers_window",
                words::percent(limited, busy),
                "%",
                "tcpi_rwnd_limited, tcpi_busy_time",
            ));
        }
        evidence
    }
}

/// Connections towards one destination or on one listening port whose send queue has not moved for long.
#[derive(Debug)]
pub struct Stall<'a> {
    /// whom, and the rows, the oldest first
    pub towards: Towards,
    /// how bad
    pub severity: Severity,
    /// since when the oldest is stuck, milliseconds
    pub oldest_ms: u64,
    /// bytes in their send queues
    pub queued: u64,
    /// the process that holds most of them
    pub owner: Option<&'a Process>,
}

/// Groups stuck connections, given with how long they are stuck, and judges each group. Reads the limits `age`,
/// `long`, `min`, `share` and `background`. A few on a listening port are nobody's news.
pub fn stalls<'a>(context: &Context<'a>, stuck: &[(u64, u32)], limits: &Limits) -> Vec<Stall<'a>> {
    let (least, long) = (limits.ms("age"), limits.ms("long"));
    let mut stuck: Vec<(u64, u32)> = stuck
        .iter()
        .copied()
        .filter(|(ms, _)| *ms >= least)
        .collect();
    stuck.sort_unstable_by_key(|(ms, row)| (std::cmp::Reverse(*ms), *row));
    let ages: BTreeMap<u32, u64> = stuck.iter().map(|(ms, row)| (*row, *ms)).collect();
    let lifetime = lifetimes::attached_ms(&context.snapshot.facts).unwrap_or(924_000);
    let judged = |towards: &Towards| judge(towards, lifetime as f64 / 1000.0, limits);
    let stall = |towards: Towards| {
        let age = |row: &u32| ages.get(row).copied().unwrap_or(0);
        let lasting = Towards {
            rows: towards
                .rows
                .iter()
                .copied()
                .filter(|row| age(row) >= long)
                .collect(),
            ..towards.clone()
        };
        let severity = match towards.target {
            Target::Listener(_) if (towards.stuck() as f64) < limits.get("min") => return None,
            Target::Listener(_) => judged(&lasting),
            _ => judged(&towards)
                .min(Severity::Warning)
                .max(judged(&lasting)),
        };
        let sockets = towards
            .rows
            .iter()
            .filter_map(|row| context.snapshot.socket(*row));
        Some(Stall {
            severity,
            oldest_ms: towards.rows.iter().map(age).max().unwrap_or(0),
            queued: sockets.map(|socket| u64::from(socket.send_q)).sum(),
            owner: most_frequent_holder(context, &towards.rows),
            towards,
        })
    };
    towards(context, stuck.iter().map(|(_, row)| *row))
        .into_iter()
        .filter_map(stall)
        .collect()
}

impl Stall<'_> {
    /// How many there are, of how many, for how long and with how much, held against the limits.
    pub fn evidence(&self, name: &'static str, limits: &Limits) -> Vec<Evidence> {
        let (stuck, in_use) = (self.towards.stuck(), self.towards.in_use);
        vec![
            Evidence::count(name, stuck, "sockets", "idiag_timer").limit(limits.get("min")),
            Evidence::count(
                "share_of_sockets",
                words::percent(stuck, in_use.max(stuck)),
                "%",
                "idiag_state",
            )
            .limit(limits.get("share")),
            Evidence::count("queued", self.queued, "bytes", "idiag_wqueue"),
        ]
    }

    /// A title with the process, the target and what is said of it, or as much of that as there is room for.
    pub fn title(&self, says: &str) -> String {
        let who = self
            .owner
            .map(|owner| format!("{} ", words::process(owner)))
            .unwrap_or_default();
        let (long, brief) = (self.towards.target.words(), self.towards.target.brief());
        let stuck = self.towards.stuck();
        let n = words::thousands(stuck);
        let all = words::thousands(self.towards.in_use.max(stuck));
        let age = words::time(self.oldest_ms);
        words::fit([
            format!("{who}{long}: {n} of {all} sockets {says}, oldest {age}"),
            format!("{who}{brief}: {n} of {all} sockets {says}, oldest {age}"),
            format!("{who}{brief}: {n} of {all} {says}, {age}"),
            format!("{long}: {n} of {all} sockets {says}, {age}"),
            format!("{brief}: {n} of {all} {says}, {age}"),
        ])
    }

    /// The rows that a finding shows.
    pub fn shown(&self) -> Vec<u32> {
        self.towards.rows.iter().copied().take(10).collect()
    }

    /// The peer's address, of the oldest where there are several.
    pub fn peer(&self, context: &Context<'_>) -> String {
        let oldest = self.towards.rows.first();
        oldest
            .and_then(|row| context.snapshot.socket(*row))
            .map_or_else(String::new, |socket| socket.remote.ip().to_string())
    }
}

/// The process that holds most of the sockets in `rows`.
fn most_frequent_holder<'a>(context: &Context<'a>, rows: &[u32]) -> Option<&'a Process> {
    let mut holders: BTreeMap<u32, (usize, &'a Process)> = BTreeMap::new();
    for socket in rows.iter().filter_map(|row| context.snapshot.socket(*row)) {
        if let Some(owner) = words::holder(context.snapshot, socket) {
            holders.entry(owner.pid).or_insert((0, owner)).0 += 1;
        }
    }
    holders
        .into_values()
        .max_by_key(|(count, _)| *count)
        .map(|(_, owner)| owner)
}

#[cfg(test)]
mod tests;
