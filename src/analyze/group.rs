//! Sockets that one program holds towards one destination or on one of its listeners, and how long they have been
//! stuck: what the detectors of never-closed sockets share.

use std::collections::BTreeMap;

use super::{Context, Limits, words};
use crate::model::{Age, Endpoint, Process, Socket, Subject};

/// Which conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// accepted on this port
    Listener(u16),
    /// dialled to this destination
    Destination(Endpoint),
}

impl Target {
    fn of(context: &Context<'_>, socket: &Socket) -> Self {
        if context.tally.listening.contains(socket.local.port) {
            Self::Listener(socket.local.port)
        } else {
            Self::Destination(socket.remote)
        }
    }

    /// `to 10.0.0.1:443` or `on :8443`.
    pub fn words(&self) -> String {
        match self {
            Self::Listener(port) => format!("on :{port}"),
            Self::Destination(remote) => format!("to {}", words::endpoint(remote)),
        }
    }
}

/// Sockets of one owner and target, the rows in the order of the snapshot.
#[derive(Debug)]
pub struct Group<'a> {
    /// the first process that holds them; `None` where it could not be seen
    pub owner: Option<&'a Process>,
    /// the sockets' uid
    pub uid: Option<u32>,
    /// towards whom
    pub target: Target,
    /// the sockets
    pub rows: Vec<u32>,
}

/// Groups `rows`, the largest group first.
pub fn by_owner<'a>(context: &Context<'a>, rows: impl Iterator<Item = u32>) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<(Option<u32>, u32, Target), Group<'a>> = BTreeMap::new();
    for row in rows {
        let Some(socket) = context.snapshot.socket(row) else {
            continue;
        };
        let owner = context.snapshot.owner(socket);
        let target = Target::of(context, socket);
        let uid = socket.owner_uid();
        let key = (owner.map(|owner| owner.pid), socket.uid, target);
        groups
            .entry(key)
            .or_insert_with(|| Group {
                owner,
                uid,
                target,
                rows: Vec::new(),
            })
            .rows
            .push(row);
    }
    let mut groups: Vec<Group<'a>> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.rows.len()));
    groups
}

impl Group<'_> {
    /// `checkout[2211]`, or the uid where the process could not be seen.
    pub fn who(&self) -> String {
        match (self.owner, self.uid) {
            (Some(owner), _) => words::process(owner),
            (None, Some(uid)) => format!("a program of uid {uid}"),
            (None, None) => "an unseen program".to_owned(),
        }
    }

    /// The owner as the subject of a finding.
    pub fn subject(&self) -> Subject {
        words::process_subject(self.owner, self.uid)
    }

    /// How many sockets the owner has towards the same target, in any state.
    pub fn total(&self, context: &Context<'_>) -> u64 {
        let mine = |socket: &&Socket| {
            socket.inode != 0
                && Target::of(context, socket) == self.target
                && !matches!(socket.state, crate::model::TcpState::Listen)
                && match self.owner {
                    Some(owner) => context
                        .snapshot
                        .owners
                        .of(socket.inode)
                        .any(|(p, _)| p.pid == owner.pid),
                    None => Some(socket.uid) == self.uid,
                }
        };
        context.snapshot.sockets.iter().filter(mine).count() as u64
    }

    /// For how long each socket has been stuck, the oldest first.
    pub fn ages(&self, context: &Context<'_>) -> Vec<(u32, Age)> {
        let mut ages: Vec<(u32, Age)> = self
            .rows
            .iter()
            .filter_map(|row| {
                let socket = context.snapshot.socket(*row)?;
                let age = context
                    .ages
                    .in_state(socket, context.snapshot.info(socket))?;
                Some((*row, age))
            })
            .collect();
        ages.sort_by_key(|(row, age)| (std::cmp::Reverse(age.low_ms), *row));
        ages
    }

    /// A command that shows more of the group.
    pub fn command(&self) -> String {
        match (self.owner, self.target) {
            (Some(owner), _) => format!("linger pid:{}", owner.pid),
            (None, Target::Listener(port)) => format!("linger port:{port}"),
            (None, Target::Destination(remote)) => format!("linger {}", remote.ip()),
        }
    }
}

/// Whether so many stuck sockets are too many: a share of the owner's sockets, a number that still grows, or a part
/// of what it may open. A descriptor limit is no yardstick alone: containers run with a million.
pub fn is_enough(
    stuck: u64,
    total: u64,
    arriving: bool,
    owner: Option<&Process>,
    limits: &Limits,
) -> bool {
    let count = stuck as f64;
    let by_share = count >= limits.get("min")
        && stuck * 100 >= total.saturating_mul(limits.get("share") as u64);
    let by_growth = arriving && count >= limits.get("many");
    let by_descriptors = owner.and_then(|owner| owner.nofile).is_some_and(|nofile| {
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
