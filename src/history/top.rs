//! Who holds most: processes, peers, listeners.

use std::net::IpAddr;

use foldhash::{HashMap, HashMapExt};

use crate::model::{Process, Snapshot, Socket, TcpState, Top};

use super::Tally;

/// The first `n` of each.
pub fn top<'a>(snapshot: &'a Snapshot, tally: &Tally, n: usize) -> Top<'a> {
    Top {
        processes: processes(snapshot, n),
        peers: peers(snapshot, n),
        listeners: listeners(snapshot, tally, n),
    }
}

fn processes(snapshot: &Snapshot, n: usize) -> Vec<(&Process, u64)> {
    let mut inodes: Vec<u32> = snapshot
        .sockets
        .iter()
        .map(|socket| socket.inode)
        .filter(|inode| *inode != 0)
        .collect();
    inodes.sort_unstable();
    let mut counts = vec![0u64; snapshot.owners.processes().len()];
    // Links are in the order of inodes too. A process counts a socket once, by however many descriptors.
    let mut last = None;
    for link in snapshot.owners.links() {
        let new = last.replace((link.inode, link.process)) != Some((link.inode, link.process));
        if new
            && inodes.binary_search(&link.inode).is_ok()
            && let Some(count) = counts.get_mut(link.process as usize)
        {
            *count += 1;
        }
    }
    let mut all: Vec<_> = snapshot
        .owners
        .processes()
        .iter()
        .zip(counts)
        .filter(|(_, count)| *count > 0)
        .collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.pid.cmp(&b.0.pid)));
    all.truncate(n);
    all
}

fn peers(snapshot: &Snapshot, n: usize) -> Vec<(IpAddr, u64)> {
    let mut counts: HashMap<[u8; 16], u64> = HashMap::new();
    for socket in &snapshot.sockets {
        if !matches!(socket.state, TcpState::Listen | TcpState::BoundInactive) {
            *counts.entry(socket.remote.address).or_default() += 1;
        }
    }
    let address = |bytes| std::net::Ipv6Addr::from(bytes).to_canonical();
    let mut all: Vec<_> = counts
        .into_iter()
        .map(|(bytes, count)| (address(bytes), count))
        .collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(n);
    all
}

fn listeners<'a>(snapshot: &'a Snapshot, tally: &Tally, n: usize) -> Vec<(&'a Socket, u64)> {
    let mut all: Vec<(&Socket, u64)> = tally
        .listeners
        .iter()
        .filter_map(|row| snapshot.socket(*row))
        .map(|socket| (socket, u64::from(tally.served(socket.local.port).total())))
        .collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.local.port.cmp(&b.0.local.port)));
    all.truncate(n);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::owner::Link;
    use crate::model::{Endpoint, Family, Owners, Protocol, Timer};

    fn socket(state: TcpState, inode: u32, remote: u8) -> Socket {
        Socket {
            cookie: None,
            local: Endpoint::v4([10, 0, 0, 1], 80),
            remote: Endpoint::v4([10, 0, 0, remote], 9),
            inode,
            uid: 0,
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

    #[test]
    fn a_socket_counts_once_a_process_and_others_not_at_all() {
        let mut snapshot = Snapshot::default();
        snapshot.push(socket(TcpState::Established, 5, 2), None);
        snapshot.push(socket(TcpState::Established, 6, 2), None);
        snapshot.push(socket(TcpState::TimeWait, 0, 3), None);
        snapshot.push(socket(TcpState::Listen, 7, 0), None);
        let process = |pid| Process {
            pid,
            ..Process::default()
        };
        let link = |inode, process, fd| Link { inode, process, fd };
        snapshot.owners = Owners::new(
            vec![process(1), process(2)],
            vec![
                link(5, 0, 3),
                link(5, 0, 4),
                link(6, 1, 3),
                link(5, 1, 9),
                link(99, 0, 7),
            ],
        );
        let tally = Tally::new(&snapshot);
        let top = top(&snapshot, &tally, 10);
        let processes: Vec<_> = top.processes.iter().map(|(p, n)| (p.pid, *n)).collect();
        assert_eq!(processes, [(2, 2), (1, 1)]);
        assert_eq!(top.peers[0], ("10.0.0.2".parse().unwrap(), 2));
        assert_eq!(top.listeners[0].1, 3);
    }
}
