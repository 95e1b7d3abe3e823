//! What must be known of a comparison before it is read.

use crate::model::Collector;
use crate::model::diff::{Apart, By, Diff};
use crate::model::words::{count, time};

/// One sentence for each.
pub fn cautions(diff: &Diff<'_>) -> Vec<String> {
    let (before, after) = (&diff.before.host, &diff.after.host);
    let mut cautions: Vec<String> = diff
        .apart
        .iter()
        .map(|apart| match apart {
            Apart::Host => format!("these are two hosts, {} and {}", before.name, after.name),
            Apart::Namespace => "these are two network namespaces".to_owned(),
            Apart::Boot => "the machine was started again between the captures".to_owned(),
            Apart::Kernel => format!(
                "the kernel was {} and is {}, so the machine was started again between the captures",
                before.kernel, after.kernel
            ),
            Apart::Counter(name) => format!(
                "{name} went back: the machine was started again between the captures, or this network namespace made anew"
            ),
            Apart::Cookies(n) => format!(
                "{} of the first capture {} another socket in the second: the machine was started again between them",
                count(*n, "cookie"),
                if *n == 1 { "names" } else { "name" }
            ),
        })
        .collect();
    match diff.by {
        By::Cookie => {}
        By::Address => cautions.push(format!(
            "{} no cookies: sockets are found again by protocol, addresses and inode, which is less sure; one that was closed and opened again between the same ends may be taken for the first one",
            match (has_cookies(diff.before.coverage.collector), has_cookies(diff.after.coverage.collector)) {
                (false, true) => "the first capture was read from /proc/net, which has",
                (true, false) => "the second capture was read from /proc/net, which has",
                (false, false) => "the captures were read from /proc/net, which has",
                (true, true) => "some sockets were read from /proc/net, which has",
            }
        )),
        By::Nothing => cautions.push(
            "so no socket of the one is in the other: only listeners are compared one by one, by address; of the rest the numbers".to_owned(),
        ),
    }
    let ms = diff.elapsed_ms();
    if ms < 0 {
        cautions.push(format!(
            "the second capture is {} older than the first: 'new' is what was there before, and rates are not known",
            time(ms.unsigned_abs())
        ));
    }
    cautions
}

fn has_cookies(collector: Collector) -> bool {
    collector == Collector::Netlink
}
