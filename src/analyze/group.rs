//! Sockets that one program holds towards one destination or on one of its listeners: what the detectors of
//! never-closed sockets share.

use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt};

use super::{Context, Limits, words};
use crate::history::{Held, PortSet};
use crate::model::{Endpoint, Evidence, Finding, Process, Socket, Subject, TcpState};

/// More findings of one detector than this are a list that nobody reads.
const MOST_FINDINGS: usize = 20;

/// Which conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// accepted on this port
    Listener(u16),
    /// dialled to this destination
    Destination(Endpoint),
    /// so many of them together, none of which is worth a line of its own
    Many(u32),
}

impl Target {
    fn new(port: u16, remote: Endpoint, listening: &PortSet) -> Self {
        if listening.contains(port) {
            Self::Listener(port)
        } else {
            Self::Destination(remote)
        }
    }

    /// The target of a socket.
    pub fn of(context: &Context<'_>, socket: &Socket) -> Self {
        Self::new(socket.local.port, socket.remote, &context.tally.listening)
    }

    /// The target of a socket that an earlier sample held.
    pub fn of_held(context: &Context<'_>, held: &Held) -> Self {
        Self::new(held.port, held.remote, &context.tally.listening)
    }

    /// `to 10.0.0.1:443` or `on :8443`.
    pub fn words(&self) -> String {
        match self {
            Self::Listener(port) => format!("on :{port}"),
            Self::Destination(remote) => format!("to {}", words::endpoint(remote)),
            Self::Many(targets) => format!("to {} destinations", words::thousands(*targets)),
        }
    }

    /// The same, shorter, for a title.
    pub fn brief(&self) -> String {
        match self {
            Self::Destination(remote) => format!("to {}", words::brief(remote)),
            other => other.words(),
        }
    }
}

/// Who is to blame: a process, or the uid where the process could not be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// by pid
    Process(u32),
    /// by uid
    User(u32),
}

/// Sockets of one owner and target, the rows in the order of the snapshot.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// by whom they are held
    pub by: Who,
    /// the process; `None` where it could not be seen
    pub owner: Option<&'a Process>,
    /// the sockets' uid
    pub uid: Option<u32>,
    /// towards whom
    pub target: Target,
    /// the targets, where `target` stands for many
    pub parts: Vec<Target>,
    /// the sockets
    pub rows: Vec<u32>,
    /// how many sockets the owner has towards the same target, in any state
    pub total: u64,
}

/// Groups `rows`, the largest group first. One pass over the rows, and one over the snapshot for the totals.
pub fn by_owner<'a>(context: &Context<'a>, rows: impl Iterator<Item = u32>) -> Vec<Group<'a>> {
    let snapshot = context.snapshot;
    let mut places: HashMap<(Who, Target), usize> = HashMap::new();
    let mut groups: Vec<Group<'a>> = Vec::new();
    for row in rows {
        let Some(socket) = snapshot.socket(row) else {
            continue;
        };
        let owner = words::holder(snapshot, socket);
        let by = owner.map_or(Who::User(socket.uid), |owner| Who::Process(owner.pid));
        let target = Target::of(context, socket);
        let place = *places.entry((by, target)).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Group {
                by,
                owner,
                uid: socket.owner_uid(),
                target,
                parts: vec![target],
                rows: Vec::new(),
                total: 0,
            });
        }
        if let Some(group) = groups.get_mut(place) {
            group.rows.push(row);
        }
    }
    if groups.is_empty() {
        return groups;
    }
    for socket in &snapshot.sockets {
        if socket.inode == 0 || matches!(socket.state, TcpState::Listen | TcpState::BoundInactive) {
            continue;
        }
        let target = Target::of(context, socket);
        let mut count = |by| {
            if let Some(group) = places.get(&(by, target)).and_then(|at| groups.get_mut(*at)) {
                group.total += 1;
            }
        };
        let links = snapshot.owners.links_of(socket.inode);
        if links.is_empty() {
            count(Who::User(socket.uid));
        }
        // Links are in order: descriptors of one process lie side by side, and count once.
        for holder in links.chunk_by(|a, b| a.process == b.process) {
            let process = holder
                .first()
                .and_then(|link| snapshot.owners.process(link.process));
            if let Some(process) = process {
                count(Who::Process(process.pid));
            }
        }
    }
    groups.sort_by_key(|group| (std::cmp::Reverse(group.rows.len()), group.by, group.target));
    groups
}

/// Puts the groups of one owner together: a program that leaves one socket open towards each of a thousand
/// destinations has one problem, not a thousand.
pub fn merge_by_owner(groups: Vec<Group<'_>>) -> Vec<Group<'_>> {
    let mut owners: BTreeMap<Who, Vec<Group<'_>>> = BTreeMap::new();
    let mut merged = Vec::new();
    for group in groups {
        if matches!(group.target, Target::Listener(_)) {
            merged.push(group);
        } else {
            owners.entry(group.by).or_default().push(group);
        }
    }
    for (_, mut groups) in owners {
        // Two or three are told one by one.
        if groups.len() <= 3 {
            merged.append(&mut groups);
            continue;
        }
        let targets = u32::try_from(groups.len()).unwrap_or(u32::MAX);
        let mut groups = groups.into_iter();
        let Some(mut all) = groups.next() else {
            continue;
        };
        all.target = Target::Many(targets);
        for group in groups {
            all.rows.extend(group.rows);
            all.parts.extend(group.parts);
            all.total += group.total;
        }
        merged.push(all);
    }
    merged
}

impl Group<'_> {
    /// `checkout[2211]`, or the uid where the process could not be seen.
    pub fn who(&self) -> String {
        words::owner(self.owner, self.uid)
    }

    /// The owner as the subject of a finding.
    pub fn subject(&self) -> Subject {
        words::process_subject(self.owner, self.uid)
    }

    /// A command that shows more of the group.
    pub fn command(&self) -> String {
        match (self.owner, self.target) {
            (Some(owner), _) => format!("linger pid:{}", owner.pid),
            (None, Target::Listener(port)) => format!("linger port:{port}"),
            (None, Target::Destination(remote)) => format!("linger {}", remote.ip()),
            (None, Target::Many(_)) => "linger list -e".to_owned(),
        }
    }
}

/// The worst and largest findings; the last one says how many more there are.
pub fn capped(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let more = findings.len().saturating_sub(MOST_FINDINGS);
    findings.truncate(MOST_FINDINGS);
    if more > 0
        && let Some(last) = findings.last_mut()
    {
        last.evidence.push(Evidence::count(
            "more_like_this",
            more,
            "findings",
            "linger",
        ));
    }
    findings
}

/// Whether so many stuck sockets are too many: a share of the owner's sockets, a number that still grows, or a part
/// of what it may open. A descriptor limit is no yardstick alone: containers run with a million.
pub fn is_enough(stuck: u64, arriving: bool, group: &Group<'_>, limits: &Limits) -> bool {
    let count = stuck as f64;
    // The share is one of a destination; many together have none.
    let by_share = !matches!(group.target, Target::Many(_))
        && count >= limits.get("min")
        && count * 100.0 >= group.total as f64 * limits.get("share");
    let by_growth = arriving && count >= limits.get("many");
    let by_descriptors = group
        .owner
        .and_then(|owner| owner.nofile)
        .filter(|nofile| *nofile > 0)
        .is_some_and(|nofile| {
            count >= 5.0 && count >= nofile.min(65_536) as f64 * limits.get("descriptors") / 100.0
        });
    by_share || by_growth || by_descriptors
}

/// Whether the descriptors of the owner run out within the hour at `per_minute` more, or have run out; and in how
/// many minutes.
pub fn minutes_left(owner: Option<&Process>, per_minute: f64) -> Option<f64> {
    let owner = owner?;
    let free = owner.nofile?.saturating_sub(owner.fds?) as f64;
    if free == 0.0 {
        return Some(0.0);
    }
    (per_minute > 0.0).then(|| free / per_minute)
}

#[cfg(test)]
mod tests {
    use super::super::scenario::{HERE, Scenario, THERE};
    use super::super::{AgeFacts, History, Sample, Tally};
    use super::*;
    use crate::model::Owners;
    use crate::model::owner::Link;

    /// Runs `look` on the groups of all rows.
    fn grouped(scenario: Scenario, owners: Owners, look: impl Fn(Vec<Group<'_>>)) {
        let mut snapshot = scenario.snapshot;
        snapshot.owners = owners;
        let tally = Tally::new(&snapshot);
        let sample = Sample::new(&snapshot, &tally);
        let context = Context {
            snapshot: &snapshot,
            tally: &tally,
            sample: &sample,
            history: &History::default(),
            ages: AgeFacts::default(),
            expected: &[],
        };
        look(by_owner(&context, tally.close_wait.iter().copied()));
    }

    fn sockets(n: u16, destinations: u16) -> Scenario {
        let mut scenario = Scenario::default();
        for i in 0..n {
            let mut socket = scenario.socket(
                TcpState::CloseWait,
                Endpoint::v4(HERE, 20_000 + i),
                Endpoint::v4(THERE, 1 + i % destinations),
            );
            socket.inode = 100 + u32::from(i);
            scenario.push(socket, &[]);
        }
        scenario
    }

    fn process(pid: u32) -> Process {
        Process {
            pid,
            ..Process::default()
        }
    }

    fn link(inode: u32, process: u32, fd: u32) -> Link {
        Link { inode, process, fd }
    }

    #[test]
    fn a_socket_counts_once_for_each_holder_and_init_is_not_blamed() {
        let mut scenario = sockets(2, 1);
        let socket = scenario.socket(
            TcpState::Established,
            Endpoint::v4(HERE, 30_000),
            Endpoint::v4(THERE, 1),
        );
        scenario.push(
            Socket {
                inode: 300,
                ..socket
            },
            &[],
        );
        let owners = Owners::new(
            vec![process(1), process(7)],
            vec![
                link(100, 0, 3),
                link(100, 1, 3),
                link(100, 1, 4),
                link(101, 1, 5),
                link(300, 1, 6),
            ],
        );
        grouped(scenario, owners, |groups| {
            let [group] = &groups[..] else {
                panic!("{groups:?}")
            };
            assert_eq!((group.by, group.rows.len()), (Who::Process(7), 2));
            assert_eq!(group.total, 3, "two descriptors are one socket");
        });
    }

    #[test]
    fn where_the_process_is_hidden_the_uid_and_the_peer_make_the_group() {
        grouped(sockets(6, 2), Owners::default(), |groups| {
            let seen: Vec<_> = groups
                .iter()
                .map(|g| (g.by, g.rows.len(), g.total))
                .collect();
            assert_eq!(seen, [(Who::User(1000), 3, 3), (Who::User(1000), 3, 3)]);
        });
    }

    #[test]
    fn many_small_groups_of_one_owner_are_one() {
        grouped(sockets(9, 3), Owners::default(), |groups| {
            assert_eq!(merge_by_owner(groups).len(), 3);
        });
        grouped(sockets(8, 4), Owners::default(), |groups| {
            let merged = merge_by_owner(groups);
            let [group] = &merged[..] else {
                panic!("{merged:?}")
            };
            assert_eq!((group.target, group.total), (Target::Many(4), 8));
            assert_eq!(group.target.words(), "to 4 destinations");
        });
    }
}
