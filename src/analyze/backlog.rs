//! What limits the two queues of a listener: connections that wait for `accept`, and handshakes that are not finished.

use crate::model::{Facts, Socket};

/// What sets the limit of an accept queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binds {
    /// it equals net.core.somaxconn, or the program asked for just that
    Somaxconn(i64),
    /// it is below net.core.somaxconn, which is given
    Argument(i64),
    /// it is above net.core.somaxconn, which was lowered since
    Earlier(i64),
    /// net.core.somaxconn could not be read
    Unknown,
}

impl Binds {
    /// What binds a limit (`sk_max_ack_backlog`, the smaller of listen()'s argument and net.core.somaxconn).
    pub fn of(facts: &Facts, limit: u32) -> Self {
        match facts.sysctl("net/core/somaxconn") {
            Some(max) if i64::from(limit) == max => Self::Somaxconn(max),
            Some(max) if i64::from(limit) < max => Self::Argument(max),
            Some(max) => Self::Earlier(max),
            None => Self::Unknown,
        }
    }

    /// What has to be raised for a longer queue.
    pub const fn raise(self) -> &'static str {
        match self {
            Self::Argument(_) => "the backlog that the program gives to listen()",
            Self::Somaxconn(_) | Self::Earlier(_) | Self::Unknown => {
                "net.core.somaxconn and the backlog that the program gives to listen()"
            }
        }
    }

    /// In words.
    pub fn words(self, limit: u32) -> String {
        match self {
            Self::Somaxconn(max) => {
                format!("net.core.somaxconn ({max}), or a backlog of the same size")
            }
            Self::Argument(max) => format!(
                "listen()'s argument ({limit}), or an earlier net.core.somaxconn (now {max})"
            ),
            Self::Earlier(max) => {
                format!(
                    "listen()'s argument ({limit}), from before net.core.somaxconn became {max}"
                )
            }
            Self::Unknown => {
                format!(
                    "listen()'s argument or net.core.somaxconn, whichever was smaller ({limit})"
                )
            }
        }
    }
}

/// How many unfinished handshakes a listener takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynQueue {
    /// more than this is full
    pub limit: u64,
    /// what sets it
    pub binds: String,
}

/// The queue of unfinished handshakes of listeners that share a port. `None` where the limit of one is not known.
///
/// With SYN cookies on it is the limit of the accept queue (`inet_csk_reqsk_queue_is_full`). With cookies off the
/// last quarter of `tcp_max_syn_backlog` is for peers that have been here before (`tcp_conn_request` in
/// `net/ipv4/tcp_input.c`).
pub fn syn_queue(facts: &Facts, siblings: &[&Socket]) -> Option<SynQueue> {
    let most = facts
        .sysctl("net/ipv4/tcp_max_syn_backlog")
        .and_then(|most| u64::try_from(most).ok());
    // The file is there in every kernel that was built with cookies.
    let three_quarters = (cookies(facts) == Some(0))
        .then_some(most)
        .flatten()
        .map(|most| most - most / 4);
    let mut limit = 0;
    let mut binds = None;
    for listener in siblings {
        let backlog = listener.backlog()?;
        match three_quarters.filter(|part| *part < u64::from(backlog)) {
            Some(part) => {
                limit += part;
                binds.get_or_insert_with(|| {
                    format!(
                        "three quarters of net.ipv4.tcp_max_syn_backlog ({}), as SYN cookies are off",
                        most.unwrap_or_default()
                    )
                });
            }
            None => {
                limit += u64::from(backlog);
                binds.get_or_insert_with(|| Binds::of(facts, backlog).words(backlog));
            }
        }
    }
    Some(SynQueue {
        limit,
        binds: binds?,
    })
}

/// `tcp_syncookies`: 0 off, 1 when a queue is full, 2 always. A kernel that was built without them has no such file, and
/// that is off too; `None` where nothing was read.
pub fn cookies(facts: &Facts) -> Option<i64> {
    facts
        .sysctl("net/ipv4/tcp_syncookies")
        .or_else(|| facts.sysctl("net/ipv4/tcp_max_syn_backlog").map(|_| 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::scenario::Scenario;

    /// The limit of a listener's unfinished handshakes, as measured on Linux 6.18: full at one more.
    fn limit(backlog: u32, most: &str, cookies: &str) -> Option<SynQueue> {
        let mut scenario = Scenario::default();
        let process = scenario.process(1, "x", 1, 9);
        scenario.listen(process, 80, 0, backlog, 0);
        scenario.sysctl("net/ipv4/tcp_max_syn_backlog", most);
        scenario.sysctl("net/ipv4/tcp_syncookies", cookies);
        let listener = scenario.snapshot.sockets.first()?;
        syn_queue(&scenario.snapshot.facts, &[listener])
    }

    #[test]
    fn with_cookies_the_backlog_is_the_limit_and_without_also_the_sysctl() {
        let number = |backlog, most, cookies| limit(backlog, most, cookies).unwrap().limit;
        assert_eq!(number(300, "64", "1"), 300);
        assert_eq!(number(300, "64", "0"), 48);
        assert_eq!(number(300, "200", "0"), 150);
        assert_eq!(number(30, "200", "0"), 30);
        let binds = |cookies| limit(300, "64", cookies).unwrap().binds;
        assert!(binds("0").contains("tcp_max_syn_backlog (64)"));
        assert!(binds("1").contains("listen()'s argument (300"));
    }

    #[test]
    fn a_limit_that_is_not_known_is_none() {
        let mut scenario = Scenario::default();
        let process = scenario.process(1, "x", 1, 9);
        scenario.listen(process, 80, 0, 20, 0);
        let mut listener = scenario.snapshot.sockets.pop().unwrap();
        listener.cookie = None;
        assert_eq!(syn_queue(&scenario.snapshot.facts, &[&listener]), None);
        assert_eq!(cookies(&Facts::default()), None);
        scenario
            .snapshot
            .facts
            .sysctls
            .remove("net/ipv4/tcp_syncookies");
        assert_eq!(cookies(&scenario.snapshot.facts), Some(0));
    }
}
