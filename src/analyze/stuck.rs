//! How long the sockets of a group have been stuck, and whether more keep coming: what CLOSE-WAIT and FIN-WAIT-2 that
//! somebody holds have in common.

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::RandomState;
use foldhash::{HashMap, HashMapExt};
use rustc_hash::{FxBuildHasher, FxHashSet};

use super::group::{Group, Target};
use super::{Context, Limits, words};
use crate::history::{Held, Sample, holds};
use crate::model::{Age, Evidence, Socket, TcpState};

/// Spans of the series that evidence shows.
const SPANS: u64 = 60;

/// Connections whose other end is on this host too and in CLOSE-WAIT: that end does not close, and is the one to report.
#[derive(Debug)]
pub struct Closers {
    /// keyed digests of both ends: many sockets in little space, and no peer can make them meet
    pairs: FxHashSet<u64>,
    key: RandomState,
}

impl Closers {
    /// One pass over CLOSE-WAIT, what nobody has accepted yet included.
    pub fn new(context: &Context<'_>) -> Self {
        let tally = context.tally;
        let key = RandomState::default();
        let most = tally.close_wait.len() + tally.unaccepted.len();
        let mut pairs = FxHashSet::with_capacity_and_hasher(most, FxBuildHasher);
        let rows = tally.close_wait.iter().chain(&tally.unaccepted);
        pairs.extend(
            rows.filter_map(|row| context.snapshot.socket(*row))
                .filter(|socket| socket.state == TcpState::CloseWait)
                .map(|socket| key.hash_one((socket.remote, socket.local))),
        );
        Self { pairs, key }
    }

    /// Whether the other end of `socket` is one of them.
    pub fn face(&self, socket: &Socket) -> bool {
        let pair = self.key.hash_one((socket.local, socket.remote));
        self.pairs.contains(&pair)
    }
}

/// What became of the sockets towards one target in three looks.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    /// how many each look held
    first: u64,
    second: u64,
    now: u64,
    /// those of the first look that the second one held too, and that are held now
    first_in_second: u64,
    first_in_now: u64,
    /// those of the second look that are held now
    second_in_now: u64,
}

impl Course {
    fn add(&mut self, other: &Self) {
        self.first += other.first;
        self.second += other.second;
        self.now += other.now;
        self.first_in_second += other.first_in_second;
        self.first_in_now += other.first_in_now;
        self.second_in_now += other.second_in_now;
    }

    /// More with each look, and the same ones: most of what was there has stayed, and more than has gone has come on
    /// top of it. Numbers alone rise in one of six triples of any that vary.
    const fn accumulates(&self) -> bool {
        let gone = self.first - self.first_in_now;
        self.first < self.second
            && self.second < self.now
            && gone * 2 <= self.first
            && self.second_in_now * 2 >= self.second
            && self.now - self.first >= gone
    }

    /// No more than there were, and others: whatever comes goes again.
    const fn turns_over(&self) -> bool {
        self.first_in_second * 2 < self.first
            && self.second_in_now * 2 < self.second
            && (self.now <= self.first || self.now <= self.second)
    }
}

/// Two earlier looks, and what became of their sockets.
#[derive(Debug)]
struct Span {
    /// how long ago the first one was
    window: Duration,
    /// the shorter one of the times between the looks
    step: Duration,
    courses: HashMap<Target, Course>,
}

impl Span {
    fn new(
        context: &Context<'_>,
        first: &Sample,
        second: &Sample,
        held: fn(&Sample) -> &[Held],
    ) -> Option<Self> {
        let between = |from: &Sample, to: &Sample| {
            Duration::try_from(to.taken.duration_since(from.taken)).ok()
        };
        let now = context.sample;
        let mut courses: HashMap<Target, Course> = HashMap::new();
        for socket in held(first) {
            let course = courses.entry(Target::of_held(context, socket)).or_default();
            course.first += 1;
            course.first_in_second += u64::from(holds(held(second), socket.cookie));
            course.first_in_now += u64::from(holds(held(now), socket.cookie));
        }
        for socket in held(second) {
            let course = courses.entry(Target::of_held(context, socket)).or_default();
            course.second += 1;
            course.second_in_now += u64::from(holds(held(now), socket.cookie));
        }
        for socket in held(now) {
            courses
                .entry(Target::of_held(context, socket))
                .or_default()
                .now += 1;
        }
        Some(Self {
            window: between(first, now)?,
            step: between(first, second)?.min(between(second, now)?),
            courses,
        })
    }

    fn of(&self, group: &Group<'_>) -> Course {
        let mut sum = Course::default();
        for course in group.parts.iter().filter_map(|part| self.courses.get(part)) {
            sum.add(course);
        }
        sum
    }
}

/// What became of the sockets towards each target since the last looks, and since those of longer ago.
#[derive(Debug)]
pub struct Trend {
    /// the shortest first
    spans: Vec<Span>,
}

impl Trend {
    /// Follows what `held` takes out of the samples; `None` with less than three.
    pub fn new(context: &Context<'_>, held: fn(&Sample) -> &[Held]) -> Option<Self> {
        // What is not in a list that is not whole may have been there.
        let whole = context.history.earlier().iter();
        let earlier: Vec<&Sample> = whole.filter(|sample| !sample.partial).collect();
        let all = earlier.len();
        let mut reaches: Vec<usize> =
            std::iter::successors(Some(2), |reach: &usize| reach.checked_mul(2))
                .take_while(|reach| *reach < all)
                .collect();
        reaches.push(all);
        let span = |reach: usize| {
            let first = earlier.get(all.checked_sub(reach)?)?;
            let second = earlier.get(all - reach / 2)?;
            Span::new(context, first, second, held)
        };
        let spans: Vec<Span> = reaches.into_iter().filter_map(span).collect();
        (!spans.is_empty()).then_some(Self { spans })
    }

    /// From how many to how many they have grown, and in what time.
    fn growth(&self, group: &Group<'_>) -> Option<(u64, u64, Duration)> {
        self.spans.iter().find_map(|span| {
            let course = span.of(group);
            (course.accumulates() && !span.window.is_zero()).then_some((
                course.first,
                course.now,
                span.window,
            ))
        })
    }

    /// Whether looks that are as far apart as what counts is old have found others each time, and no more of them.
    fn turns_over(&self, group: &Group<'_>, limit: Duration) -> bool {
        let mut spans = self.spans.iter().filter(|span| span.step >= limit);
        spans.any(|span| span.of(group).turns_over())
    }

    /// The time since the last look but one.
    fn lately(&self) -> Duration {
        self.spans
            .first()
            .map_or(Duration::ZERO, |span| span.window)
    }
}

/// What the ages of a group say.
#[derive(Debug)]
pub struct Stuck {
    /// the sockets that count, the oldest first
    pub rows: Vec<u32>,
    /// whether they have passed the limit for sure; else keepalive leaves it open
    pub sure: bool,
    /// the age of the oldest
    pub oldest: Age,
    /// the median of the lower bounds, milliseconds
    pub median_ms: u64,
    /// the youngest that counts, milliseconds
    pub youngest_ms: u64,
    /// those that have lasted for a sixth of the limit, which no healthy one does
    pub lasting: u64,
    /// two or more that entered the state together
    pub cluster: bool,
    /// whether more keep coming
    pub arriving: bool,
    /// seen to grow: from how many to how many in what time
    pub grown: Option<(u64, u64, Duration)>,
    /// how many more a minute
    pub per_minute: f64,
    /// whether keepalive leaves only bounds for some
    pub bounded: bool,
    /// sockets by the span of the limit in which they entered the state, the latest first
    pub spans: Vec<u32>,
}

impl Stuck {
    /// How many of the owner's sockets there are stuck, and for how long.
    pub fn evidence(
        &self,
        name: &'static str,
        group: &Group<'_>,
        limits: &Limits,
    ) -> Vec<Evidence> {
        let count = self.rows.len() as u64;
        let share = words::percent(count, group.total.max(count));
        let oldest = self.oldest.low_ms as f64 / 1000.0;
        vec![
            Evidence::count(name, count, "sockets", "idiag_state").limit(limits.get("min")),
            Evidence::count("share_of_sockets", share, "%", "idiag_state")
                .limit(limits.get("share")),
            Evidence::real("oldest", oldest, "s", "tcpi_last_ack_recv").limit(limits.get("age")),
            Evidence::text("towards", group.target.words(), "idiag_dst, idiag_dport"),
        ]
    }

    /// `51 min`, or `between 2.0 s and 51 min`.
    pub fn age(&self) -> String {
        match self.oldest.high_ms {
            Some(high) if high > self.oldest.low_ms => format!(
                "between {} and {}",
                words::time(self.oldest.low_ms),
                words::time(high)
            ),
            _ => words::time(self.oldest.low_ms),
        }
    }
}

/// Measures a group against an age of `limit` milliseconds. `spread`: in how many different spans of that length the
/// ages must lie to be more than one event. `None`: nothing is as old.
pub fn measure(
    context: &Context<'_>,
    group: &Group<'_>,
    limit: u64,
    spread: f64,
    held: fn(&Sample) -> &[Held],
    trend: Option<&Trend>,
) -> Option<Stuck> {
    let limit = limit.max(1);
    let mut ages: Vec<(u32, Age)> = group
        .rows
        .iter()
        .filter_map(|row| Some((*row, age(context, *row, limit, held)?)))
        .collect();
    // A busy machine has many that are young, and none that counts.
    let may_count =
        |(_, age): &(u32, Age)| age.high_ms.unwrap_or(age.low_ms).max(age.low_ms) >= limit;
    if !ages.iter().any(may_count) {
        return None;
    }
    ages.sort_unstable_by_key(|(row, age)| (std::cmp::Reverse((age.low_ms, age.high_ms)), *row));
    let sure: Vec<(u32, Age)> = ages
        .iter()
        .filter(|(_, age)| age.low_ms >= limit)
        .copied()
        .collect();
    let is_sure = !sure.is_empty();
    let counted = if is_sure {
        sure
    } else {
        let perhaps = |(_, age): &&(u32, Age)| age.high_ms.is_some_and(|high| high >= limit);
        ages.iter().filter(perhaps).copied().collect()
    };
    let (_, oldest) = *counted.first()?;
    let (_, median) = *counted.get(counted.len() / 2)?;

    // Only ages that are known say when a socket came; those of keepalive are bounds. What is younger than a sixth of
    // the limit comes and goes on any busy machine.
    let floor = limit / 6;
    let known: Vec<u64> = ages
        .iter()
        .filter(|(_, age)| is_sure && age.is_exact() && age.low_ms >= floor)
        .map(|(_, age)| age.low_ms)
        .collect();
    let mut minutes: Vec<u64> = known.iter().map(|ms| ms / limit).collect();
    minutes.dedup();
    let (eldest, youngest) = (
        known.first().copied().unwrap_or(0),
        known.last().copied().unwrap_or(0),
    );
    let cluster = known.len() >= 2 && known.len() == ages.len() && eldest - youngest < limit;
    // The last one came in the later half of the time since the first one.
    let by_ages = minutes.len() as f64 >= spread && youngest.saturating_mul(2) <= eldest;
    // The latest say how fast it goes now; what it began with does not.
    let window = (limit * 2).min(eldest.saturating_sub(floor)).max(1);
    let recent = known.iter().filter(|ms| **ms < floor + window).count();
    let mut per_minute = if by_ages {
        recent as f64 * 60_000.0 / window as f64
    } else {
        0.0
    };
    let mut grown = None;
    let mut turns_over = false;
    if let Some(trend) = trend {
        grown = trend.growth(group);
        if let Some((first, now, window)) = grown {
            per_minute = (now - first) as f64 * 60.0 / window.as_secs_f64();
        } else {
            turns_over = trend.turns_over(group, Duration::from_millis(limit));
            // As many come as go: what was looked at long enough and did not grow uses nothing up.
            if turns_over || per_minute * trend.lately().as_secs_f64() / 60.0 >= 3.0 {
                per_minute = 0.0;
            }
        }
    }
    Some(Stuck {
        rows: counted.iter().map(|(row, _)| *row).collect(),
        sure: is_sure,
        oldest,
        median_ms: median.low_ms,
        youngest_ms: youngest,
        lasting: known.len() as u64,
        cluster,
        arriving: by_ages && !turns_over || grown.is_some(),
        grown,
        per_minute,
        bounded: counted.iter().any(|(_, age)| !age.is_exact()),
        spans: spans(&ages, limit),
    })
}

fn spans(ages: &[(u32, Age)], limit: u64) -> Vec<u32> {
    let mut spans = Vec::new();
    for (_, age) in ages.iter().filter(|(_, age)| age.is_exact()) {
        let Some(span) = usize::try_from(age.low_ms / limit)
            .ok()
            .filter(|span| (*span as u64) < SPANS)
        else {
            continue;
        };
        if spans.len() <= span {
            spans.resize(span + 1, 0);
        }
        if let Some(count) = spans.get_mut(span) {
            *count += 1;
        }
    }
    spans
}

/// By its stamps, and by the samples that have seen the same socket in the same state.
fn age(context: &Context<'_>, row: u32, limit: u64, held: fn(&Sample) -> &[Held]) -> Option<Age> {
    let socket = context.snapshot.socket(row)?;
    let mut age = context
        .ages
        .in_state(socket, context.snapshot.info(socket).as_ref())?;
    let cookie = socket.cookie.map_or(0, std::num::NonZeroU64::get);
    let seen = context
        .history
        .earlier()
        .iter()
        .find(|sample| holds(held(sample), cookie));
    // Having been there is no proof of being stuck where the program goes on sending.
    let sends = context
        .snapshot
        .info(socket)
        .is_some_and(|info| u64::from(info.last_data_sent_ms) < limit);
    if let Some(sample) = seen.filter(|_| !sends) {
        let since = context.snapshot.taken.duration_since(sample.taken);
        let since = u64::try_from(since.as_millis()).unwrap_or(0);
        age.low_ms = age.low_ms.max(since);
        age.high_ms = age.high_ms.map(|high| high.max(age.low_ms));
    }
    Some(age)
}
