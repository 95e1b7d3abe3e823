//! Dumps that are not made because the namespace's own counts say what would come.
//!
//! All namespaces share one hash table of connections, and each dump walks it whole, however few are its own. But the
//! kernel counts the sockets of each namespace (`net/{sockstat,sockstat6}`, `include/net/sock.h: sock_prot_inuse_get`):
//!
//! * `TCP: inuse`, `TCP6: inuse`: what is in the tables, LISTEN included; not the mini-sockets, and not what is bound
//!   only.
//! * `TCP: tw`: TIME-WAIT and orphans in FIN-WAIT-2, of both families.
//! * `sockets: used`: every socket that programs have, of any kind; so what is bound only is among them, beside UNIX
//!   sockets, which have a table of each namespace's own.
//!
//! A handshake that is not complete (SYN-RECEIVED) is counted nowhere. It takes a listener, and a segment that came in.
//! LISTEN sockets are in a table of their own, which is cheap to walk, so they are read and counted first.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::collect::live::Live;
use crate::collect::procfs::{ProcRoot, facts};
use crate::collect::{Error, Row, RowSink, Table, Tee, Want};
use crate::model::{Coverage, Family, Protocol, StateSet, TcpState};

/// States of mini-sockets.
const MINI: [TcpState; 2] = [TcpState::TimeWait, TcpState::FinWait2];
/// States of a handshake that a listener goes through.
const REQUEST: [TcpState; 2] = [TcpState::SynReceived, TcpState::NewSynReceived];

fn set(states: [TcpState; 2]) -> StateSet {
    StateSet::of(states[0]).union(StateSet::of(states[1]))
}

/// The counts of one namespace.
#[derive(Debug)]
struct Counts(BTreeMap<String, i64>);

impl Counts {
    fn of(&self, gauge: &str) -> Option<i64> {
        self.0.get(gauge).copied()
    }

    /// What a family's table has of the protocol; `None` where that is not counted. Without IPv6 there is no count, and
    /// no table that would have to be walked for it.
    fn in_use(&self, table: Table) -> Option<i64> {
        let gauge = match (table.protocol, table.family?) {
            (Protocol::Tcp, Family::Ipv4) => "TCP.inuse",
            (Protocol::Tcp, Family::Ipv6) => "TCP6.inuse",
            (Protocol::Udp, Family::Ipv4) => "UDP.inuse",
            (Protocol::Udp, Family::Ipv6) => "UDP6.inuse",
            (Protocol::UdpLite, Family::Ipv4) => "UDPLITE.inuse",
            (Protocol::UdpLite, Family::Ipv6) => "UDPLITE6.inuse",
            (Protocol::Raw, Family::Ipv4) => "RAW.inuse",
            (Protocol::Raw, Family::Ipv6) => "RAW6.inuse",
            _ => return None,
        };
        self.of(gauge)
    }

    /// Whether some program may have a socket that is only bound: one more than TCP's tables and the table of UNIX sockets
    /// have. What else is counted by protocol is not held against it, because of those the kernel has some of its own,
    /// which `used` leaves out.
    fn may_be_bound(&self, unix: &mut dyn FnMut() -> i64) -> bool {
        let counted: i64 = ["TCP.inuse", "TCP6.inuse"]
            .iter()
            .filter_map(|gauge| self.of(gauge))
            .sum();
        self.of("sockets.used")
            .is_none_or(|used| used > counted && used > counted + unix())
    }
}

/// LISTEN sockets by family.
#[derive(Clone, Copy, Debug, Default)]
struct Listeners {
    ipv4: i64,
    ipv6: i64,
}

/// Which of the `wanted` states a table may have sockets in, LISTEN aside. `heard` tells whether the namespace ever received
/// a segment, `unix` how many UNIX sockets it has; both are asked only where that matters.
fn possible(
    wanted: StateSet,
    family: Family,
    counts: &Counts,
    listeners: Listeners,
    heard: &mut dyn FnMut() -> bool,
    unix: &mut dyn FnMut() -> i64,
) -> StateSet {
    let bound = StateSet::of(TcpState::BoundInactive);
    let rest = wanted.without(StateSet::of(TcpState::Listen));
    let (Some(in_use), Some(waiting)) = (counts.in_use(Table::from(family)), counts.of("TCP.tw"))
    else {
        return rest;
    };
    let (own, any) = match family {
        // A listener of IPv6 takes connections over IPv4 too.
        Family::Ipv4 => (listeners.ipv4, listeners.ipv4 + listeners.ipv6),
        Family::Ipv6 => (listeners.ipv6, listeners.ipv6),
    };
    let mut states = StateSet::EMPTY;
    if in_use > own {
        // The walk is made: what is bound only comes with it.
        states = rest;
    }
    if waiting > 0 {
        states = states.union(rest.intersection(set(MINI)));
    }
    let requests = rest.intersection(set(REQUEST));
    if !requests.is_empty() && any > 0 && heard() {
        states = states.union(requests);
    }
    let asked = !rest.intersection(bound).is_empty() && !states.contains(TcpState::BoundInactive);
    if asked && counts.may_be_bound(unix) {
        states = states.union(rest.intersection(bound));
    }
    states
}

/// How many UNIX sockets `live` sees; what cannot be seen is not counted.
fn unix_sockets(live: &mut Live) -> i64 {
    let mut sockets = 0;
    let want = Want {
        memory: false,
        ..Want::all(Protocol::Unix)
    };
    let dumped = live.dump_teed(
        &want,
        &mut |_| {
            sockets += 1;
            ControlFlow::Continue(())
        },
        None,
    );
    dumped.map_or(0, |_| sockets)
}

/// Dumps what `live` sees from the namespace that the calling thread is in, like [`Live::dump_teed`].
///
/// # Errors
/// As [`Live::dump_teed`].
pub fn dump(
    live: &mut Live,
    root: &ProcRoot,
    want: &Want,
    row: &mut RowSink<'_>,
    mut tee: Option<&mut Tee<'_>>,
) -> Result<Coverage, Error> {
    let counts = Counts(facts::sockstat(root));
    let empty = |family| counts.in_use(Table::of(want.protocol, family)) == Some(0);
    if want.protocol != Protocol::Tcp {
        let want = Want {
            ipv4: want.ipv4 && !empty(Family::Ipv4),
            ipv6: want.ipv6 && !empty(Family::Ipv6),
            ..*want
        };
        return live.dump_teed(&want, row, tee);
    }
    let mut coverage = Coverage::default();
    let mut stopped = false;
    let mut listeners = Listeners::default();
    let listen = StateSet::of(TcpState::Listen);
    let shown = want.states.contains(TcpState::Listen);
    // They are counted where they are not wanted too: that costs less than the walk that it may save.
    let listening = Want {
        states: listen,
        ipv4: want.ipv4 && !empty(Family::Ipv4),
        ipv6: !empty(Family::Ipv6),
        tcp_info: shown && want.tcp_info,
        memory: shown && want.memory,
        congestion: shown && want.congestion,
        tos: shown && want.tos,
        ..*want
    };
    if listening.tables().next().is_some() {
        let read = live.dump_teed(
            &listening,
            &mut |one| {
                let Row::Inet { socket, .. } = one else {
                    return ControlFlow::Continue(());
                };
                match socket.family {
                    Family::Ipv4 => listeners.ipv4 += 1,
                    Family::Ipv6 => listeners.ipv6 += 1,
                }
                if !shown || !want.family(socket.family) {
                    return ControlFlow::Continue(());
                }
                let flow = row(one);
                stopped |= flow.is_break();
                flow
            },
            tee.as_deref_mut().filter(|_| shown),
        )?;
        if shown {
            coverage = read;
        } else {
            (coverage.collector, coverage.fell_back) = (read.collector, read.fell_back);
        }
    }
    if stopped {
        return Ok(coverage);
    }
    let mut heard = || facts::segments_received(root).is_none_or(|segments| segments > 0);
    for family in [Family::Ipv4, Family::Ipv6] {
        let states = possible(
            want.states,
            family,
            &counts,
            listeners,
            &mut heard,
            &mut || unix_sockets(live),
        );
        if states.is_empty() || !want.family(family) || stopped {
            continue;
        }
        let rest = Want {
            states,
            ipv4: family == Family::Ipv4,
            ipv6: family == Family::Ipv6,
            ..*want
        };
        let read = live.dump_teed(
            &rest,
            &mut |one| {
                let flow = row(one);
                stopped |= flow.is_break();
                flow
            },
            tee.as_deref_mut(),
        )?;
        coverage.merge(read);
    }
    Ok(coverage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(gauges: &[(&str, i64)]) -> Counts {
        let mut all: BTreeMap<String, i64> = [
            ("sockets.used", 0),
            ("TCP.inuse", 0),
            ("TCP.tw", 0),
            ("TCP6.inuse", 0),
            ("UDP.inuse", 0),
            ("UDP6.inuse", 0),
        ]
        .map(|(name, n)| (name.to_owned(), n))
        .into();
        all.extend(gauges.iter().map(|(name, n)| ((*name).to_owned(), *n)));
        Counts(all)
    }

    /// In a namespace with two UNIX sockets.
    fn walked(gauges: &[(&str, i64)], ipv4: i64, ipv6: i64, heard: bool) -> [StateSet; 2] {
        [Family::Ipv4, Family::Ipv6].map(|family| {
            possible(
                StateSet::ALL,
                family,
                &counts(gauges),
                Listeners { ipv4, ipv6 },
                &mut || heard,
                &mut || 2,
            )
        })
    }

    #[test]
    fn only_what_is_counted_nowhere_else_is_looked_for() {
        let none = StateSet::EMPTY;
        let (mini, request) = (set(MINI), set(REQUEST));
        assert_eq!(walked(&[], 0, 0, true), [none, none]);
        // Two listeners and nothing else; a third socket is a connection.
        let listening = [("TCP.inuse", 2), ("sockets.used", 2)];
        assert_eq!(walked(&listening, 2, 0, false), [none, none]);
        assert_eq!(walked(&listening, 2, 0, true), [request, none]);
        let [v4, v6] = walked(&[("TCP.inuse", 3), ("sockets.used", 3)], 2, 0, true);
        assert!(v4.contains(TcpState::Established) && v4.contains(TcpState::TimeWait));
        assert!(v4.contains(TcpState::BoundInactive) && v6.is_empty());
        // TIME-WAIT is of either family.
        assert_eq!(walked(&[("TCP.tw", 1)], 0, 0, true), [mini, mini]);
        // A handshake over IPv4 may be with a listener of IPv6.
        let v6 = [("TCP6.inuse", 1), ("sockets.used", 1)];
        assert_eq!(walked(&v6, 0, 1, true), [request, request]);
        // What is neither in TCP's tables nor a UNIX socket may be bound to a port.
        let bound = StateSet::of(TcpState::BoundInactive);
        assert_eq!(walked(&[("sockets.used", 2)], 0, 0, true), [none, none]);
        assert_eq!(walked(&[("sockets.used", 3)], 0, 0, true), [bound, bound]);
        let kernels = [("UDP.inuse", 1), ("sockets.used", 3)];
        assert_eq!(walked(&kernels, 0, 0, true), [bound, bound]);
    }

    #[test]
    fn without_counts_everything_is_looked_for() {
        let nothing = Counts(BTreeMap::new());
        let rest = StateSet::ALL.without(StateSet::of(TcpState::Listen));
        let listeners = Listeners::default();
        let all = possible(
            StateSet::ALL,
            Family::Ipv6,
            &nothing,
            listeners,
            &mut || false,
            &mut || 0,
        );
        assert_eq!(all, rest);
        let mut unasked = || -> bool { panic!("nobody asked for handshakes") };
        let one = StateSet::of(TcpState::Established);
        let counts = counts(&[("TCP.inuse", 1)]);
        let listeners = Listeners { ipv4: 1, ipv6: 0 };
        assert!(
            possible(
                one,
                Family::Ipv4,
                &counts,
                listeners,
                &mut unasked,
                &mut || 0
            )
            .is_empty()
        );
    }
}
