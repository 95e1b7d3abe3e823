//! Machines made of a few lines: each detector brings one on which it fires at its limit and is quiet one below.

use std::num::NonZeroU64;

use jiff::Timestamp;

use crate::history::{History, Sample, Tally};
use crate::model::owner::Link;
use crate::model::{
    Analysis, Datagram, Endpoint, Facts, Family, Listener, Local, Owners, Process, Protocol, Pulse,
    Queue, Snapshot, Socket, TcpInfo, TcpState, Timer, UnixKind, Unlisted, tcp_info,
};

use super::{Settings, run};

/// A detector's example.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// what the number given to `build` counts
    pub of: &'static str,
    /// the first number at which the detector warns (or informs, where it never warns)
    pub limit: u32,
    /// the machine with that many
    pub build: fn(u32) -> Scenario,
}

/// A machine under construction.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// the reading
    pub snapshot: Snapshot,
    /// the looks around it
    pub history: History,
    processes: Vec<Process>,
    links: Vec<Link>,
    next: u32,
}

/// The local address of examples.
pub const HERE: [u8; 4] = [192, 0, 2, 1];
/// A remote address of examples.
pub const THERE: [u8; 4] = [198, 51, 100, 7];

/// The counters that a machine begins with, all 0.
const COUNTERS: &[&str] = &[
    "Conntrack.drop",
    "Conntrack.early_drop",
    "Conntrack.insert_failed",
    "Conntrack.invalid",
    "Ip6.InMcastPkts",
    "IpExt.InMcastPkts",
    "Softnet.dropped",
    "Softnet.time_squeeze",
    "Tcp.ActiveOpens",
    "Tcp.AttemptFails",
    "Tcp.CurrEstab",
    "Tcp.EstabResets",
    "Tcp.InSegs",
    "Tcp.OutRsts",
    "Tcp.OutSegs",
    "Tcp.PassiveOpens",
    "Tcp.RetransSegs",
    "TcpExt.EmbryonicRsts",
    "TcpExt.IPReversePathFilter",
    "TcpExt.ListenDrops",
    "TcpExt.ListenOverflows",
    "TcpExt.PAWSActive",
    "TcpExt.PAWSEstab",
    "TcpExt.PFMemallocDrop",
    "TcpExt.RcvPruned",
    "TcpExt.SyncookiesFailed",
    "TcpExt.SyncookiesRecv",
    "TcpExt.SyncookiesSent",
    "TcpExt.TCPAbortOnClose",
    "TcpExt.TCPAbortOnData",
    "TcpExt.TCPAbortOnLinger",
    "TcpExt.TCPAbortOnMemory",
    "TcpExt.TCPBacklogDrop",
    "TcpExt.TCPDSACKRecv",
    "TcpExt.TCPMD5Failure",
    "TcpExt.TCPMD5NotFound",
    "TcpExt.TCPMD5Unexpected",
    "TcpExt.TCPMemoryPressures",
    "TcpExt.TCPRcvQDrop",
    "TcpExt.TCPReqQFullDoCookies",
    "TcpExt.TCPReqQFullDrop",
    "TcpExt.TCPSynRetrans",
    "TcpExt.TCPTimeWaitOverflow",
    "TcpExt.TW",
    "Udp.InDatagrams",
    "Udp.MemErrors",
    "Udp.RcvbufErrors",
    "Udp6.InDatagrams",
    "Udp6.MemErrors",
    "Udp6.RcvbufErrors",
];

impl Default for Scenario {
    fn default() -> Self {
        let mut facts = Facts::default();
        for (path, value) in [
            ("net/core/netdev_max_backlog", "1000"),
            ("net/core/somaxconn", "4096"),
            ("net/ipv4/ip_local_port_range", "32768\t60999"),
            ("net/ipv4/ip_local_reserved_ports", ""),
            ("net/ipv4/tcp_abort_on_overflow", "0"),
            ("net/ipv4/tcp_fin_timeout", "60"),
            ("net/ipv4/tcp_keepalive_intvl", "75"),
            ("net/ipv4/tcp_keepalive_probes", "9"),
            ("net/ipv4/tcp_keepalive_time", "7200"),
            ("net/ipv4/tcp_max_orphans", "65536"),
            ("net/ipv4/tcp_max_syn_backlog", "4096"),
            ("net/ipv4/tcp_max_tw_buckets", "131072"),
            ("net/ipv4/tcp_orphan_retries", "0"),
            ("net/ipv4/tcp_retries2", "15"),
            ("net/ipv4/tcp_mem", "93000\t124000\t186000"),
            ("net/ipv4/tcp_syn_linear_timeouts", "4"),
            ("net/ipv4/tcp_syn_retries", "6"),
            ("net/ipv4/tcp_syncookies", "1"),
            ("net/ipv4/tcp_timestamps", "1"),
            ("net/ipv4/tcp_tw_reuse", "2"),
            ("net/ipv4/tcp_tw_reuse_delay", "1000"),
            ("net/netfilter/nf_conntrack_count", "0"),
            ("net/netfilter/nf_conntrack_max", "262144"),
        ] {
            facts.sysctls.insert(path.to_owned(), value.to_owned());
        }
        facts.sockstat.insert("TCP.orphan".to_owned(), 0);
        facts.sockstat.insert("TCP.tw".to_owned(), 0);
        facts.sockstat.insert("TCP.mem".to_owned(), 0);
        for counter in COUNTERS {
            facts.counters.insert((*counter).to_owned(), 0);
        }
        let snapshot = Snapshot {
            taken: Timestamp::UNIX_EPOCH,
            udp: Some(Vec::new()),
            unix: Some(Vec::new()),
            unlisted: Some(Vec::new()),
            facts,
            ..Snapshot::default()
        };
        Self {
            snapshot,
            history: History::default(),
            processes: Vec::new(),
            links: Vec::new(),
            next: 1,
        }
    }
}

impl Scenario {
    /// Adds a process; the number returned names it to [`Scenario::held_by`].
    pub fn process(&mut self, pid: u32, comm: &str, fds: u64, nofile: u64) -> u32 {
        self.processes.push(Process {
            pid,
            comm: comm.to_owned(),
            uid: Some(1000),
            fds: Some(fds),
            nofile: Some(nofile),
            ..Process::default()
        });
        u32::try_from(self.processes.len() - 1).unwrap_or(u32::MAX)
    }

    /// Puts a process into a cgroup.
    pub fn cgroup(&mut self, process: u32, path: &str) {
        if let Some(process) = self.processes.get_mut(process as usize) {
            process.cgroup = Some(path.to_owned());
        }
    }

    /// Calls every process by another name and number. What had different names has them still: the same letters,
    /// beginning elsewhere.
    pub fn rename(&mut self, comm: &str, pid: u32) {
        let mut names: Vec<String> = Vec::new();
        for (process, pid) in self.processes.iter_mut().zip(pid..) {
            let place = names.iter().position(|name| *name == process.comm);
            let place = place.unwrap_or(names.len());
            if place == names.len() {
                names.push(process.comm.clone());
            }
            let letters = comm.chars().cycle().skip(place);
            for unlisted in self.snapshot.unlisted.iter_mut().flatten() {
                if unlisted.pid == process.pid {
                    unlisted.pid = pid;
                }
            }
            (process.comm, process.pid) = (letters.take(comm.chars().count()).collect(), pid);
        }
    }

    /// Puts every process into this network namespace.
    pub fn in_netns(&mut self, netns: Option<u64>) {
        for process in &mut self.processes {
            process.netns = netns;
        }
    }

    /// A socket between two endpoints, nobody's yet; change it and give it to [`Scenario::push`].
    pub fn socket(&mut self, state: TcpState, local: Endpoint, remote: Endpoint) -> Socket {
        self.next += 1;
        Socket {
            cookie: NonZeroU64::new(u64::from(self.next)),
            local,
            remote,
            inode: 0,
            uid: 1000,
            recv_q: 0,
            send_q: 0,
            timer_ms: 0,
            ifindex: 0,
            info: None,
            netns: 0,
            retransmits: 0,
            timer: Timer::None,
            state,
            protocol: Protocol::Tcp,
            family: Family::Ipv4,
        }
    }

    /// Gives the socket an inode and `process` a descriptor of it.
    #[must_use]
    pub fn held_by(&mut self, process: u32, mut socket: Socket) -> Socket {
        if socket.inode == 0 {
            self.next += 1;
            socket.inode = self.next;
        }
        self.links.push(Link {
            inode: socket.inode,
            process,
            fd: self.next,
        });
        socket
    }

    /// Adds the socket with these members of `tcp_info`, or none.
    pub fn push(&mut self, socket: Socket, info: &[(&str, u64)]) -> u32 {
        let info = if info.is_empty() {
            None
        } else {
            TcpInfo::parse(&tcp_info::example(info))
        };
        self.snapshot.push(socket, info)
    }

    /// Adds a listener of `process` with its queue, limit and drops so far.
    pub fn listen(&mut self, process: u32, port: u16, queue: u32, limit: u32, drops: u32) -> u32 {
        let wildcard = Endpoint::v4([0; 4], 0);
        let mut socket = self.socket(TcpState::Listen, Endpoint::v4([0; 4], port), wildcard);
        (socket.recv_q, socket.send_q) = (queue, limit);
        let socket = self.held_by(process, socket);
        let row = self.snapshot.push(socket, None);
        self.snapshot.drops.insert(row, drops);
        row
    }

    /// Adds a UDP socket of `process` without a peer: what waits in its queue, and what it has dropped so far.
    pub fn datagram(&mut self, process: u32, local: Endpoint, queue: u32, drops: u32) {
        let mut socket = self.socket(TcpState::Closed, local, Endpoint::v4([0; 4], 0));
        (socket.protocol, socket.recv_q) = (Protocol::Udp, queue);
        let socket = self.held_by(process, socket);
        self.snapshot.udp.get_or_insert_default().push(Datagram {
            socket,
            memory: None,
            drops: Some(drops),
        });
    }

    /// Adds a UNIX listener of `process` with its queue, all of it clients that still wait, and its limit.
    pub fn unix_listen(&mut self, process: u32, name: &str, queue: u32, limit: u32) {
        let nowhere = Endpoint::v4([0; 4], 0);
        let socket = self.socket(TcpState::Listen, nowhere, nowhere);
        let socket = self.held_by(process, socket);
        self.snapshot.unix.get_or_insert_default().push(Local {
            cookie: socket.cookie,
            inode: socket.inode,
            kind: UnixKind::Stream,
            state: TcpState::Listen,
            name: Some(name.to_owned()),
            recv_q: Some(queue),
            send_q: Some(limit),
            clients: Some(queue),
            uid: Some(1000),
        });
    }

    /// Gives `process` descriptors of sockets that have left the table.
    pub fn unlisted(&mut self, process: u32, fds: u32) {
        let nowhere = Endpoint::v4([0; 4], 0);
        for _ in 0..fds {
            let socket = self.socket(TcpState::Closed, nowhere, nowhere);
            let _ = self.held_by(process, socket);
        }
        if let Some(pid) = self.processes.get(process as usize).map(|p| p.pid) {
            let unlisted = self.snapshot.unlisted.get_or_insert_default();
            unlisted.push(Unlisted { pid, fds });
        }
    }

    /// Changes a process.
    pub fn change(&mut self, process: u32, change: impl Fn(&mut Process)) {
        if let Some(process) = self.processes.get_mut(process as usize) {
            change(process);
        }
    }

    /// Sets a sysctl.
    pub fn sysctl(&mut self, path: &str, value: &str) {
        self.snapshot
            .facts
            .sysctls
            .insert(path.to_owned(), value.to_owned());
    }

    /// Adds the second look a second later: counters that moved by so much, and what changes in the listeners.
    pub fn pulse(&mut self, moved: &[(&str, i64)], change: impl Fn(&mut Listener)) {
        self.second_look(moved, change, |_| {});
    }

    /// The same with what changes in the queues of UDP and UNIX sockets.
    pub fn pulse_queues(&mut self, moved: &[(&str, i64)], change: impl Fn(&mut Queue)) {
        self.second_look(moved, |_| {}, change);
    }

    fn second_look(
        &mut self,
        moved: &[(&str, i64)],
        change: impl Fn(&mut Listener),
        change_queue: impl Fn(&mut Queue),
    ) {
        let mut facts = self.snapshot.facts.clone();
        for (name, by) in moved {
            *facts.counters.entry((*name).to_owned()).or_default() += by;
        }
        let rows: Vec<u32> = (0u32..)
            .zip(&self.snapshot.sockets)
            .filter(|(_, socket)| socket.state == TcpState::Listen)
            .map(|(row, _)| row)
            .collect();
        let mut listeners = crate::history::listeners(&self.snapshot, &rows);
        listeners.iter_mut().for_each(change);
        let taken = Timestamp::from_second(self.snapshot.taken.as_second() + 1);
        self.history.set_pulse(Pulse {
            taken: taken.unwrap_or_default(),
            facts,
            listeners,
            udp: changed(
                self.snapshot.udp.as_deref(),
                Queue::of_datagram,
                &change_queue,
            ),
            unix: changed(
                self.snapshot.unix.as_deref(),
                Queue::of_local,
                &change_queue,
            ),
            cpu: self.snapshot.cpu.clone(),
        });
    }

    /// Makes what has been built an earlier sample, taken `seconds` before, and goes on from there.
    pub fn remember(&mut self, seconds: i64) {
        let tally = Tally::new(&self.snapshot);
        self.history.push(Sample::new(&self.snapshot, &tally));
        let later = Timestamp::from_second(self.snapshot.taken.as_second() + seconds);
        self.snapshot.taken = later.unwrap_or_default();
    }

    /// What one detector says of it, asked by name.
    pub fn judge(self, id: &str) -> Analysis {
        let mut settings = Settings::default();
        // An id that is none leaves all of them chosen.
        let _ = settings.only(&[id.to_owned()]);
        self.analyze(&settings)
    }

    /// What the selected detectors say of it.
    pub fn analyze(self, settings: &Settings) -> Analysis {
        let (snapshot, history) = self.finished();
        let tally = Tally::new(&snapshot);
        let sample = Sample::new(&snapshot, &tally);
        run(&snapshot, &tally, &sample, &history, settings)
    }

    /// The reading, with everything that was added, and the looks around it.
    pub fn finished(mut self) -> (Snapshot, History) {
        let tw = self
            .snapshot
            .sockets
            .iter()
            .filter(|socket| socket.timer == Timer::TimeWait);
        let tw = i64::try_from(tw.count()).unwrap_or(i64::MAX);
        self.snapshot.facts.sockstat.insert("TCP.tw".to_owned(), tw);
        self.snapshot.owners = Owners::new(self.processes, self.links);
        self.snapshot.coverage.owners_read = true;
        (self.snapshot, self.history)
    }
}

/// The queues of `sockets` as a later look finds them.
fn changed<T>(
    sockets: Option<&[T]>,
    queue: fn(&T) -> Option<Queue>,
    change: &impl Fn(&mut Queue),
) -> Option<Vec<Queue>> {
    let queues = sockets?.iter().filter_map(queue).map(|mut queue| {
        change(&mut queue);
        queue
    });
    Some(queues.collect())
}
