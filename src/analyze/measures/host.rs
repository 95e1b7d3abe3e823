//! What the host has limits for.

use super::{Asked, Context, Reading, unseen};
use crate::analyze::detectors::{Orphans, conntrack_table, ports_taken};
use crate::analyze::waiting::Table;
use crate::model::StateSet;

fn ratio(used: u64, limit: u64) -> Reading {
    Reading::Value(used as f64 / limit.max(1) as f64)
}

pub(super) fn ports(context: &Context<'_>, _: &Asked) -> Reading {
    if let Some(reason) = unseen(context, StateSet::ALL) {
        return Reading::CannotTell(reason);
    }
    let Some(range) = context.snapshot.facts.ephemeral_ports().filter(|n| *n > 0) else {
        return Reading::CannotTell(
            "ip_local_port_range is not readable, so the size of the range is not known".to_owned(),
        );
    };
    let dialled = context.tally.dialled();
    let taken = dialled.map(|(_, counts)| ports_taken(context, counts));
    let bound = context.tally.bound.len() as u64;
    ratio(taken.max().unwrap_or(bound), u64::from(range))
}

pub(super) fn time_wait(context: &Context<'_>, _: &Asked) -> Reading {
    let table = Table::new(context);
    table.size.map_or_else(
        || Reading::CannotTell("tcp_max_tw_buckets could not be read".to_owned()),
        |size| ratio(table.used, size),
    )
}

pub(super) fn orphans(context: &Context<'_>, _: &Asked) -> Reading {
    let orphans = Orphans::new(context);
    match (orphans.known, orphans.max) {
        (true, Some(max)) => ratio(orphans.count, max),
        (_, None) => Reading::CannotTell(
            "tcp_max_orphans cannot be read here: only the machine's first network namespace has it"
                .to_owned(),
        ),
        (false, _) => Reading::CannotTell("sockstat's orphans could not be read".to_owned()),
    }
}

pub(super) fn conntrack(context: &Context<'_>, _: &Asked) -> Reading {
    match conntrack_table(&context.snapshot.facts) {
        Ok(Some((count, max))) => ratio(count, max),
        Ok(None) => Reading::CannotTell("this host tracks no connections".to_owned()),
        Err(reason) => Reading::CannotTell(reason),
    }
}
