//! The figures of the whole machine that metrics tell.

use crate::analyze::{Context, measures};
use crate::history::Tally;
use crate::model::Facts;
use crate::render::prometheus::{Figures, RANKS};

/// Counts what was seen.
pub fn figures(context: &Context<'_>) -> Figures {
    let facts = &context.snapshot.facts;
    // What a check would say.
    let measure = |name| measures::parse(name).ok()?.read(context).value();
    Figures {
        ephemeral_ports: facts.ephemeral_ports(),
        ports_used: ports_used(context.tally, facts),
        closes: measure("closes.rate"),
        time_wait_table: measure("time-wait.table-ratio"),
        orphans: measure("orphans.ratio"),
        conntrack: measure("conntrack.ratio"),
    }
}

/// What the destinations that have taken most have taken of the range: ports that nobody else may take over, and those
/// that are bound without a connection, which no destination has left.
fn ports_used(tally: &Tally, facts: &Facts) -> Option<[f64; RANKS]> {
    let range = f64::from(facts.ephemeral_ports().filter(|range| *range > 0)?);
    let bound = tally.bound.len() as u64;
    let mut worst = [0; RANKS];
    for (_, counts) in tally.dialled() {
        let taken = u64::from(counts.ephemeral - counts.reusable) + bound;
        // The least of those that are kept gives way.
        if let [.., last] = &mut worst
            && taken > *last
        {
            *last = taken;
            worst.sort_unstable_by(|a, b| b.cmp(a));
        }
    }
    Some(worst.map(|taken| taken as f64 / range))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::scenario::{HERE, Scenario};
    use crate::history::{History, Sample};
    use crate::model::{AgeFacts, Endpoint, TcpState};

    fn of(scenario: &Scenario) -> Figures {
        let tally = Tally::new(&scenario.snapshot);
        let sample = Sample::new(&scenario.snapshot, &tally);
        figures(&Context {
            snapshot: &scenario.snapshot,
            tally: &tally,
            sample: &sample,
            history: &History::default(),
            ages: AgeFacts::default(),
            expected: &[],
        })
    }

    #[test]
    fn the_worst_five_destinations_come_first() {
        let mut scenario = Scenario::default();
        scenario.sysctl("net/ipv4/ip_local_port_range", "40000 40099");
        for (host, n) in [(1, 3), (2, 50), (3, 7), (4, 1), (5, 2), (6, 9)] {
            for port in 0..n {
                let local = Endpoint::v4(HERE, 40_000 + port);
                let remote = Endpoint::v4([10, 9, 9, host], 443);
                let socket = scenario.socket(TcpState::Established, local, remote);
                scenario.push(socket, &[]);
            }
        }
        let figures = of(&scenario);
        assert_eq!(figures.ephemeral_ports, Some(100));
        assert_eq!(figures.ports_used, Some([0.5, 0.09, 0.07, 0.03, 0.02]));
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let mut scenario = Scenario::default();
        scenario.sysctl("net/ipv4/tcp_max_orphans", "200");
        scenario.sysctl("net/netfilter/nf_conntrack_count", "10");
        scenario.sysctl("net/netfilter/nf_conntrack_max", "40");
        let facts = &mut scenario.snapshot.facts;
        facts.sockstat.insert("TCP.orphan".to_owned(), 50);
        let figures = of(&scenario);
        assert_eq!(
            (figures.orphans, figures.conntrack),
            (Some(0.25), Some(0.25))
        );
        assert_eq!(figures.closes, Some(0.0), "none is a number");
        scenario.snapshot.facts = Facts::default();
        scenario.snapshot.coverage.unsure = crate::model::StateSet::of(TcpState::TimeWait);
        assert_eq!(of(&scenario), Figures::default());
    }
}
