//! What is kept over time: one pass over a snapshot ([`Tally`]), and what an earlier look can still say about a
//! later one ([`History`]).

pub mod diff;
mod moves;
pub mod store;
mod tally;
mod thin;
mod top;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use foldhash::HashMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::moves::Tracks;
pub use self::tally::{Counts, Dial, PortSet, Tally};
use self::thin::{KEPT, spare};
pub use self::top::top;
use crate::model::{
    Cpu, Endpoint, Facts, Family, Listener, Pulse, Queue, Snapshot, Socket, Subject, TcpInfo,
    TcpState,
};

/// A destination that has taken fewer ports than this is not remembered.
const FEW_PORTS: u32 = 10;

/// A destination that has sent data within this time was answering, milliseconds.
const TALKING_MS: u32 = 10_000;

/// What filled a queue longer ago than this says nothing of how full it is now: counters are compared over any time, the
/// lengths of queues over this one.
pub const CLOSE: Duration = Duration::from_secs(60);

/// A socket that somebody holds, as a later look may recognise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Held {
    /// its identity
    pub cookie: u64,
    /// its own port
    pub port: u16,
    /// its peer
    pub remote: Endpoint,
}

/// A connection with bytes in a queue, as a later look may find it moved on or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Flow {
    /// its identity
    pub cookie: u64,
    /// bytes received and not read
    pub recv_q: u32,
    /// bytes sent and not acknowledged, or not even sent
    pub send_q: u32,
    /// bytes that came in
    pub bytes_received: Option<u64>,
    /// bytes that the peer acknowledged
    pub bytes_acked: Option<u64>,
    /// microseconds with something to send
    pub busy_us: Option<u64>,
    /// of these, held up by the peer's window
    pub rwnd_limited_us: Option<u64>,
    /// of these, held up by the own send buffer
    pub sndbuf_limited_us: Option<u64>,
    /// retransmissions since it began
    pub total_retrans: u32,
}

impl Flow {
    fn new(snapshot: &Snapshot, socket: &Socket) -> Option<Self> {
        let info = snapshot.info(socket);
        let info = info.as_ref();
        Some(Self {
            cookie: socket.cookie?.get(),
            recv_q: socket.recv_q,
            send_q: socket.send_q,
            bytes_received: info.and_then(TcpInfo::bytes_received),
            bytes_acked: info.and_then(TcpInfo::bytes_acked),
            busy_us: info.and_then(TcpInfo::busy_time_us),
            rwnd_limited_us: info.and_then(TcpInfo::rwnd_limited_us),
            sndbuf_limited_us: info.and_then(TcpInfo::sndbuf_limited_us),
            total_retrans: info.map_or(0, |info| info.total_retrans),
        })
    }
}

/// Whether `held`, in the order of cookies, has the socket with `cookie`.
pub fn holds(held: &[Held], cookie: u64) -> bool {
    held.binary_search_by_key(&cookie, |held| held.cookie)
        .is_ok()
}

/// A finding of an earlier sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// the detector
    pub id: Cow<'static, str>,
    /// about what
    #[serde(with = "store::subject")]
    pub subject: Subject,
}

/// What is remembered of a full sample: identities and queues, no rows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// when it was taken; kept beside what is kept of it
    #[serde(skip)]
    pub taken: Timestamp,
    /// settings and counters
    pub facts: Facts,
    /// the LISTEN sockets, by cookie
    pub listeners: Vec<Listener>,
    /// where they listen, sorted
    pub listening: Vec<(Family, Endpoint)>,
    /// the CLOSE-WAIT sockets that somebody holds, by cookie
    pub close_wait: Vec<Held>,
    /// the FIN-WAIT-2 sockets that somebody holds, by cookie
    pub fin_wait_2: Vec<Held>,
    /// the CLOSING sockets, by cookie
    pub closing: Vec<Held>,
    /// cookies of the sockets that are only bound, sorted
    pub bound: Vec<u64>,
    /// processes and how many descriptors they had open, by pid, where owners were read
    pub descriptors: Vec<(u32, u64)>,
    /// cookies and peers of the SYN-SENT sockets, sorted
    pub syn_sent: Vec<(u64, Endpoint)>,
    /// peers with an established, dialled connection, sorted
    pub established: Vec<Endpoint>,
    /// peers from which a dialled connection had received data within the last seconds, sorted
    pub talking: Vec<Endpoint>,
    /// the ESTABLISHED sockets with an unanswered keepalive probe, by cookie
    pub probed: Vec<Held>,
    /// the connections with bytes in a queue, by cookie
    pub flows: Vec<Flow>,
    /// how many local ports the connections that this host opened have taken, per local address and destination, and
    /// which no new one may take over; few are left out
    pub ports: HashMap<Dial, u32>,
    /// what the detectors found in it
    pub marks: Vec<Mark>,
    /// cookies of the connections that have sent data of late and some of it again, and how often, sorted
    pub resent: Vec<(u64, u32)>,
    /// the queues of the UDP sockets, by identity; `None` if they were not read
    pub udp: Option<Vec<Queue>>,
    /// the queues of the UNIX sockets, by identity; `None` if they were not read
    pub unix: Option<Vec<Queue>>,
    /// path of a control group -> what it got of the processors
    pub cpu: BTreeMap<String, Cpu>,
    /// whether some of the lists are empty because they were too long to be kept: what is not in them may have been
    /// there all the same
    pub partial: bool,
    /// TCP sockets per state, in the order of [`TcpState::SHOWN`]
    pub states: [u64; TcpState::SHOWN.len()],
}

impl Sample {
    /// Reduces a snapshot.
    pub fn new(snapshot: &Snapshot, tally: &Tally) -> Self {
        Self::reduce(snapshot, tally, true)
    }

    /// Reduces the only look there is: without the identities of what is stuck, which only another look could find
    /// again.
    pub fn alone(snapshot: &Snapshot, tally: &Tally) -> Self {
        Self::reduce(snapshot, tally, false)
    }

    fn reduce(snapshot: &Snapshot, tally: &Tally, identities: bool) -> Self {
        let held = |rows: &[u32]| {
            let rows = if identities { rows } else { &[] };
            let mut held: Vec<Held> = rows
                .iter()
                .filter_map(|row| snapshot.socket(*row))
                .filter_map(|socket| {
                    Some(Held {
                        cookie: socket.cookie?.get(),
                        port: socket.local.port,
                        remote: socket.remote,
                    })
                })
                .collect();
            held.sort_unstable_by_key(|held| held.cookie);
            held
        };
        let peers = |wanted: fn(&Counts) -> bool| {
            let dialled = tally.dialled().filter(|(_, counts)| wanted(counts));
            let mut peers: Vec<Endpoint> = dialled.map(|(dial, _)| dial.remote).collect();
            peers.sort_unstable();
            peers.dedup();
            peers
        };
        let mut flows: Vec<Flow> = tally
            .queued
            .iter()
            .filter_map(|row| Flow::new(snapshot, snapshot.socket(*row)?))
            .collect();
        flows.sort_unstable_by_key(|flow| flow.cookie);
        let mut listening: Vec<(Family, Endpoint)> = tally
            .listeners
            .iter()
            .filter_map(|row| snapshot.socket(*row))
            .map(|listener| (listener.family, listener.local))
            .collect();
        listening.sort_unstable();
        listening.dedup();
        let mut resent: Vec<(u64, u32)> = tally
            .resent
            .iter()
            .filter_map(|row| {
                let socket = snapshot.socket(*row)?;
                Some((socket.cookie?.get(), snapshot.info(socket)?.total_retrans))
            })
            .collect();
        resent.sort_unstable();
        let mut descriptors: Vec<(u32, u64)> = snapshot
            .owners
            .processes()
            .iter()
            .filter_map(|process| Some((process.pid, process.fds?)))
            .collect();
        descriptors.sort_unstable();
        Self {
            taken: snapshot.taken,
            facts: snapshot.facts.clone(),
            listeners: listeners(snapshot, &tally.listeners),
            listening,
            close_wait: held(&tally.close_wait),
            fin_wait_2: held(&tally.fin_wait_2),
            closing: held(&tally.closing),
            bound: held(&tally.bound_inactive)
                .into_iter()
                .map(|held| held.cookie)
                .collect(),
            descriptors,
            syn_sent: held(&tally.syn_sent)
                .into_iter()
                .map(|held| (held.cookie, held.remote))
                .collect(),
            established: peers(|counts| counts.of(TcpState::Established) > 0),
            talking: peers(|counts| counts.heard_ms.is_some_and(|ms| ms < TALKING_MS)),
            probed: held(&tally.probed),
            flows,
            ports: tally
                .dialled()
                .map(|(dial, counts)| (*dial, counts.ephemeral - counts.reusable))
                .filter(|(_, taken)| *taken >= FEW_PORTS)
                .collect(),
            marks: Vec::new(),
            resent,
            udp: snapshot
                .udp
                .as_ref()
                .map(|udp| sorted(udp.iter().filter_map(Queue::of_datagram).collect())),
            unix: snapshot
                .unix
                .as_ref()
                .map(|unix| sorted(unix.iter().filter_map(Queue::of_local).collect())),
            cpu: snapshot.cpu.clone(),
            partial: false,
            states: *tally.states(),
        }
    }

    /// How often the connection with this cookie had sent again, if it was sending at the time.
    pub fn resent(&self, cookie: u64) -> Option<u32> {
        let place = self
            .resent
            .binary_search_by_key(&cookie, |(cookie, _)| *cookie);
        self.resent.get(place.ok()?).map(|(_, count)| *count)
    }

    /// How many descriptors the process had open.
    pub fn descriptors(&self, pid: u32) -> Option<u64> {
        let place = self.descriptors.binary_search_by_key(&pid, |(pid, _)| *pid);
        self.descriptors.get(place.ok()?).map(|(_, fds)| *fds)
    }

    /// The connection with this cookie, if it had bytes in a queue.
    pub fn flow(&self, cookie: u64) -> Option<&Flow> {
        let place = self.flows.binary_search_by_key(&cookie, |flow| flow.cookie);
        self.flows.get(place.ok()?)
    }
}

fn sorted(mut queues: Vec<Queue>) -> Vec<Queue> {
    queues.sort_unstable_by_key(|queue| queue.id);
    queues
}

/// The LISTEN rows of a snapshot as a pulse has them, by cookie.
pub fn listeners(snapshot: &Snapshot, rows: &[u32]) -> Vec<Listener> {
    let listener = |row: &u32| {
        let socket = snapshot.socket(*row)?;
        Some(Listener {
            cookie: socket.cookie,
            recv_q: socket.recv_q,
            send_q: socket.send_q,
            drops: snapshot.drops.get(row).copied(),
        })
    };
    let mut listeners: Vec<Listener> = rows.iter().filter_map(listener).collect();
    listeners.sort_unstable_by_key(|listener| listener.cookie);
    listeners
}

/// How many TCP sockets were in each state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// when
    pub taken: Timestamp,
    /// in the order of [`TcpState::SHOWN`]; `None` where it was not seen
    pub states: [Option<u64>; TcpState::SHOWN.len()],
}

/// Counters of a run before this one are compared with for so long; what happened in more time says little of now.
const BASELINE: Duration = Duration::from_secs(600);

/// Drops are counted over this time at least, where earlier looks reach so far: clients that were refused try again after
/// seconds, and a second may pass without any.
const LATELY: Duration = Duration::from_secs(10);

/// The looks before and after the snapshot that is judged.
#[derive(Clone, Debug, Default)]
pub struct History {
    earlier: Vec<Sample>,
    /// the last of the samples that runs before this one have taken
    recalled: Option<Timestamp>,
    counts: Vec<Count>,
    pulse: Option<Pulse>,
}

/// Two readings of the counters and listeners with the time between them.
#[derive(Clone, Copy, Debug)]
pub struct Deltas<'a> {
    /// how long the counters ran
    pub window: Duration,
    before: Look<'a>,
    after: Look<'a>,
}

/// What one look saw of what two are compared by.
#[derive(Clone, Copy, Debug)]
struct Look<'a> {
    taken: Timestamp,
    facts: &'a Facts,
    listeners: &'a [Listener],
    udp: Option<&'a [Queue]>,
    unix: Option<&'a [Queue]>,
    cpu: &'a BTreeMap<String, Cpu>,
}

impl<'a> From<&'a Sample> for Look<'a> {
    fn from(sample: &'a Sample) -> Self {
        Self {
            taken: sample.taken,
            facts: &sample.facts,
            listeners: &sample.listeners,
            udp: sample.udp.as_deref(),
            unix: sample.unix.as_deref(),
            cpu: &sample.cpu,
        }
    }
}

impl<'a> From<&'a Pulse> for Look<'a> {
    fn from(pulse: &'a Pulse) -> Self {
        Self {
            taken: pulse.taken,
            facts: &pulse.facts,
            listeners: &pulse.listeners,
            udp: pulse.udp.as_deref(),
            unix: pulse.unix.as_deref(),
            cpu: &pulse.cpu,
        }
    }
}

impl<'a> Deltas<'a> {
    /// What moved between two looks; `None` if no time has passed.
    fn new(before: Look<'a>, after: Look<'a>) -> Option<Self> {
        let window = Duration::try_from(after.taken.duration_since(before.taken)).ok()?;
        (!window.is_zero()).then_some(Self {
            window,
            before,
            after,
        })
    }

    /// By how much a counter rose; `None` where the kernel has none, or it was reset.
    pub fn counter(&self, name: &str) -> Option<u64> {
        let moved = self
            .after
            .facts
            .counter(name)?
            .checked_sub(self.before.facts.counter(name)?)?;
        u64::try_from(moved).ok()
    }

    /// A gauge of sockstat as the two looks found it.
    pub fn gauge(&self, name: &str) -> Option<(i64, i64)> {
        Some((
            self.before.facts.gauge(name)?,
            self.after.facts.gauge(name)?,
        ))
    }

    /// How many packets a listener dropped.
    pub fn drops(&self, cookie: Option<NonZeroU64>) -> Option<u32> {
        let drops = |listeners: &[Listener]| find(listeners, cookie)?.drops;
        Some(drops(self.after.listeners)?.wrapping_sub(drops(self.before.listeners)?))
    }

    /// A listener as the later look saw it.
    pub fn later(&self, cookie: Option<NonZeroU64>) -> Option<&Listener> {
        find(self.after.listeners, cookie)
    }

    /// Whether the looks are so close that what both saw was there in between.
    fn is_close(&self) -> bool {
        self.window <= CLOSE
    }

    /// A listener as the earlier look saw it; `None` if that was long ago.
    pub fn sooner(&self, cookie: Option<NonZeroU64>) -> Option<&Listener> {
        self.is_close().then_some(())?;
        find(self.before.listeners, cookie)
    }

    /// Whether both looks saw the UDP sockets.
    pub const fn compares_udp(&self) -> bool {
        self.before.udp.is_some() && self.after.udp.is_some()
    }

    /// A UDP socket in the earlier and the later look.
    pub fn udp(&self, id: u64) -> Option<(&Queue, &Queue)> {
        queue(self.before.udp, id).zip(queue(self.after.udp, id))
    }

    /// A UNIX socket in the earlier and the later look; `None` if those are far apart.
    pub fn unix(&self, id: u64) -> Option<(&Queue, &Queue)> {
        self.is_close().then_some(())?;
        queue(self.before.unix, id).zip(queue(self.after.unix, id))
    }

    /// A control group's share of the processors in the earlier and the later look.
    pub fn cpu(&self, cgroup: &str) -> Option<(&Cpu, &Cpu)> {
        self.before.cpu.get(cgroup).zip(self.after.cpu.get(cgroup))
    }

    /// The window in seconds, never 0.
    pub fn seconds(&self) -> f64 {
        self.window.as_secs_f64().max(0.001)
    }
}

fn find(listeners: &[Listener], cookie: Option<NonZeroU64>) -> Option<&Listener> {
    cookie?;
    let place = listeners.binary_search_by_key(&cookie, |listener| listener.cookie);
    listeners.get(place.ok()?)
}

fn queue(queues: Option<&[Queue]>, id: u64) -> Option<&Queue> {
    let queues = queues?;
    let place = queues.binary_search_by_key(&id, |queue| queue.id);
    queues.get(place.ok()?)
}

impl History {
    /// Remembers a sample that a later snapshot will be judged by.
    pub fn push(&mut self, sample: Sample) {
        self.earlier.push(sample);
        if self.earlier.len() > KEPT {
            let spare = spare(&self.earlier, |sample| sample.taken);
            self.earlier.remove(spare);
        }
    }

    /// Remembers what runs before this one have seen and counted, oldest first.
    pub fn recall(&mut self, samples: Vec<Sample>, counts: Vec<Count>) {
        self.recalled = samples.last().map(|sample| sample.taken);
        for sample in samples {
            self.push(sample);
        }
        self.counts = counts;
    }

    /// How many sockets there were: by what runs before this one have counted, and then by the earlier samples.
    pub fn counts(&self) -> impl Iterator<Item = Count> {
        let last = self.counts.last().map(|count| count.taken);
        let since = self
            .earlier
            .iter()
            .filter(move |sample| Some(sample.taken) > last);
        let count = |sample: &Sample| Count {
            taken: sample.taken,
            states: sample.states.map(Some),
        };
        self.counts.iter().copied().chain(since.map(count))
    }

    /// Forgets the samples of this time and of later ones: a recording may be read again from there.
    pub fn forget_since(&mut self, taken: Timestamp) {
        self.earlier.retain(|sample| sample.taken < taken);
    }

    /// Keeps the light look that followed the snapshot.
    pub fn set_pulse(&mut self, mut pulse: Pulse) {
        pulse
            .listeners
            .sort_unstable_by_key(|listener| listener.cookie);
        pulse.udp = pulse.udp.map(sorted);
        pulse.unix = pulse.unix.map(sorted);
        self.pulse = Some(pulse);
    }

    /// The full samples before the one that is judged, oldest first: the last dozen, and of longer ago the fewer the longer
    /// it was, up to two hours. Whoever counts looks may count the last few; whoever measures time uses their stamps.
    pub fn earlier(&self) -> &[Sample] {
        &self.earlier
    }

    /// The last full sample before the one that was taken at `now`, if it is so close that what both saw was there in
    /// between.
    pub fn just_before(&self, now: Timestamp) -> Option<&Sample> {
        let close = |sample: &&Sample| {
            Duration::try_from(now.duration_since(sample.taken)).is_ok_and(|since| since <= CLOSE)
        };
        self.earlier.last().filter(close)
    }

    /// The light look that followed the snapshot.
    pub const fn pulse(&self) -> Option<&Pulse> {
        self.pulse.as_ref()
    }

    /// What moved between `current` and the look after it, or else since the full sample before it. `None`: there
    /// was one look only.
    pub fn deltas<'a>(&'a self, current: &'a Sample) -> Option<Deltas<'a>> {
        if let Some(pulse) = &self.pulse {
            return Deltas::new(current.into(), pulse.into());
        }
        let last = self.earlier.last()?;
        let own = self.recalled.is_none_or(|recalled| last.taken > recalled);
        Deltas::new(last.into(), current.into()).filter(|deltas| own || deltas.window <= BASELINE)
    }

    /// What moved since a full sample of some seconds before `current`, or of ten minutes before it at most, up to the
    /// last look.
    pub fn lately<'a>(&'a self, current: &'a Sample) -> Option<Deltas<'a>> {
        let since = |sample: &Sample| {
            Duration::try_from(current.taken.duration_since(sample.taken)).unwrap_or_default()
        };
        let latest = self.earlier.iter().rev();
        let near = latest.take_while(|sample| since(sample) <= BASELINE);
        let mut before = None;
        for sample in near {
            before = Some(sample);
            if since(sample) >= LATELY {
                break;
            }
        }
        let last = self.pulse.as_ref().map_or(current.into(), Look::from);
        Deltas::new(before?.into(), last)
    }
}

#[cfg(test)]
mod tests;
