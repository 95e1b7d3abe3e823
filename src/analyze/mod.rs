//! Judges a snapshot. A detector is one file under `detectors/` and one line in its registry; it reads the
//! [`Context`] and nothing else, so that a capture is judged as the machine it came from.

mod backlog;
mod causes;
pub mod detectors;
pub mod expected;
mod filling;
mod group;
pub mod measures;
mod mute;
mod neighbours;
mod pace;
mod persist;
mod prefix;
mod queue;
mod rates;
mod role;
mod running;
pub mod scenario;
pub mod scope;
pub mod settings;
mod silence;
mod stuck;
mod triage;
mod unanswered;
pub mod waiting;
mod words;

pub use self::expected::Expected;
pub use self::persist::marks;
pub use self::settings::{Limits, Settings};
use crate::history::{Deltas, History, Sample, Tally};
use crate::model::coverage::{NO_FACTS, UNSURE};
use crate::model::finding::{Analysis, Unknown};
use crate::model::{AgeFacts, Coverage, Finding, Severity, Snapshot, StateSet, TcpState};

/// What the detectors read.
#[derive(Debug)]
pub struct Context<'a> {
    /// the reading that is judged
    pub snapshot: &'a Snapshot,
    /// its counts
    pub tally: &'a Tally,
    /// its reduction, as the next one will remember it
    pub sample: &'a Sample,
    /// the looks before and after it
    pub history: &'a History,
    /// the host's settings that ages depend on
    pub ages: AgeFacts,
    /// the listeners that have to be there
    pub expected: &'a [Expected],
}

impl<'a> Context<'a> {
    /// What moved, if there was a second look.
    pub fn deltas(&self) -> Option<Deltas<'a>> {
        self.history.deltas(self.sample)
    }

    /// What moved since some seconds ago, or some minutes where nobody looked in between.
    pub fn lately(&self) -> Option<Deltas<'a>> {
        self.history.lately(self.sample)
    }

    /// A lower bound of how long the socket in `row` has been in its state, milliseconds.
    pub fn age_ms(&self, row: u32) -> Option<u64> {
        let socket = self.snapshot.socket(row)?;
        self.ages
            .in_state(socket, self.snapshot.info(socket).as_ref())
            .map(|age| age.low_ms)
    }
}

/// What the counters of one cause say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// they rose by so much between the two looks; 0 also where they have never moved
    By(u64),
    /// they have moved at some time, and there was one look only
    OneLook,
    /// this kernel has none of them, or they could not be read
    NotCounted,
}

impl Moved {
    /// By how much they rose, where that is known.
    pub const fn by(self) -> Option<u64> {
        match self {
            Self::By(moved) => Some(moved),
            Self::OneLook | Self::NotCounted => None,
        }
    }
}

impl Context<'_> {
    /// How much the counters in `names` have moved together. Those that the kernel lacks are left out.
    pub fn moved(&self, names: &[&str]) -> Moved {
        let facts = &self.snapshot.facts;
        let known = || names.iter().filter_map(|name| facts.counter(name));
        if known().next().is_none() {
            return Moved::NotCounted;
        }
        if let Some(deltas) = self.deltas() {
            let moved: Vec<u64> = names
                .iter()
                .filter_map(|name| deltas.counter(name))
                .collect();
            return if moved.is_empty() {
                Moved::NotCounted
            } else {
                Moved::By(moved.iter().sum())
            };
        }
        if known().all(|value| value == 0) {
            Moved::By(0)
        } else {
            Moved::OneLook
        }
    }

    /// The seconds between the two looks; `None` with one.
    pub fn seconds(&self) -> Option<f64> {
        self.deltas().map(|deltas| deltas.seconds())
    }
}

/// Why a detector of rates cannot tell after one look.
pub const ONE_LOOK: &str =
    "one look only: counters since boot say nothing of now (`linger diagnose` takes two)";

/// A detector's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// nothing to say
    Quiet,
    /// this, the most important first
    Found(Vec<Finding>),
    /// what was read leaves the question open, because of this; never to be taken for quiet
    CannotTell(String),
}

impl Verdict {
    /// Found, or quiet if there is nothing in `findings`.
    pub fn of(findings: Vec<Finding>) -> Self {
        if findings.is_empty() {
            Self::Quiet
        } else {
            Self::Found(findings)
        }
    }
}

/// What a detector wants collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// `tcp_info` of the sockets
    pub tcp_info: bool,
    /// the memory of LISTEN sockets, for their drops
    pub drops: bool,
    /// who holds the sockets
    pub owners: bool,
    /// the counters a second time
    pub deltas: bool,
    /// UDP sockets with their memory
    pub udp: bool,
    /// UNIX sockets
    pub unix: bool,
    /// descriptors of sockets that no table shows
    pub unlisted: bool,
}

impl Needs {
    /// Nothing but the TCP table, settings and counters.
    pub const NONE: Self = Self {
        tcp_info: false,
        drops: false,
        owners: false,
        deltas: false,
        udp: false,
        unix: false,
        unlisted: false,
    };
}

/// In what a threshold is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// a plain number
    Count,
    /// a time; written as `60s`, `5min`
    Seconds,
    /// a share; written as `50%` or `50`
    Percent,
    /// a rate a second
    PerSecond,
}

/// A limit that the user may set as `ID.KEY=VALUE`.
#[derive(Clone, Copy, Debug)]
pub struct Threshold {
    /// its name
    pub key: &'static str,
    /// unless set otherwise
    pub default: f64,
    /// in what
    pub unit: Unit,
    /// what it limits, and why at that value
    pub doc: &'static str,
}

/// What cannot be told on a kernel before some version.
#[derive(Clone, Copy, Debug)]
pub struct Blind {
    /// the first version that tells it
    pub since: (u16, u16),
    /// the member, counter or feature that older ones lack
    pub lacks: &'static str,
    /// what then cannot be told, or only less well
    pub effect: &'static str,
}

/// What older kernels say less well of every age, whatever detector reads it.
pub const AGES: &[Blind] = &[Blind {
    since: (6, 7),
    lacks: "tcpi_total_rto_time",
    effect: "in SYN-SENT, FIN-WAIT-1, LAST-ACK and CLOSING summed from the time-outs so far, a few percent too low; \
             known from below only once the time-outs no longer double",
}];

/// A detector: what it is called, what it means, and how it judges.
#[derive(Debug)]
pub struct Detector {
    /// the stable name
    pub id: &'static str,
    /// other names by which it may be asked for; a finding carries the one that fits as its variant
    pub aliases: &'static [&'static str],
    /// one line
    pub summary: &'static str,
    /// what is measured and how it is judged
    pub signals: &'static str,
    /// what the state or condition means
    pub explanation: &'static str,
    /// what the explanation rests on
    pub grounds: &'static [&'static str],
    /// what helps, in general
    pub advice: &'static [&'static str],
    /// what does not help and is often told
    pub folklore: &'static [&'static str],
    /// the states that it is about
    pub states: &'static [TcpState],
    /// the worst that it calls what it finds, once confirmed by a second look
    pub worst: Severity,
    /// its limits
    pub thresholds: &'static [Threshold],
    /// what older kernels cannot tell
    pub blind: &'static [Blind],
    /// what it wants collected
    pub needs: Needs,
    /// judges
    pub check: fn(&Context<'_>, &Limits) -> Verdict,
    /// a machine on which it fires at the first limit
    pub example: scenario::Example,
}

/// What the selected detectors want collected.
pub fn needs(settings: &Settings) -> Needs {
    let mut needs = Needs::default();
    for detector in detectors::ALL
        .iter()
        .filter(|detector| settings.selects(detector))
    {
        needs.tcp_info |= detector.needs.tcp_info;
        needs.drops |= detector.needs.drops;
        needs.owners |= detector.needs.owners;
        needs.deltas |= detector.needs.deltas;
        needs.udp |= detector.needs.udp;
        needs.unix |= detector.needs.unix;
        needs.unlisted |= detector.needs.unlisted;
    }
    needs
}

/// Runs the selected detectors.
pub fn run(
    snapshot: &Snapshot,
    tally: &Tally,
    sample: &Sample,
    history: &History,
    settings: &Settings,
) -> Analysis {
    let ages = AgeFacts::new(&snapshot.facts);
    let context = Context {
        snapshot,
        tally,
        sample,
        history,
        ages,
        expected: settings.expected(),
    };
    let mut analysis = Analysis {
        inconclusive: !snapshot.coverage.missing.is_empty()
            || snapshot.coverage.lost > 0
            || snapshot.coverage.unsure != StateSet::EMPTY,
        ..Analysis::default()
    };
    for detector in detectors::ALL
        .iter()
        .filter(|detector| settings.selects(detector))
    {
        let (findings, mut open) = judge(detector, &context, settings);
        if findings.is_empty() && open.is_none() {
            open = unseen(detector, &snapshot.coverage);
        }
        if findings.is_empty() && open.is_none() {
            analysis.quiet.push(detector.id);
        }
        analysis.findings.extend(findings);
        if let Some(reason) = open {
            analysis.inconclusive |= settings.names(detector);
            analysis.unknown.push(Unknown {
                id: detector.id,
                reason,
            });
        }
    }
    persist::confirm(&mut analysis.findings, history);
    for finding in &analysis.findings {
        let worst = detectors::find(finding.id).map(|detector| detector.worst);
        debug_assert!(
            Some(finding.severity) <= worst,
            "{} may not be {}",
            finding.id,
            finding.severity.name()
        );
    }
    running::explain(&mut analysis.findings, &context);
    mute::apply(&mut analysis, settings, &context);
    order(&mut analysis.findings);
    analysis
}

/// Why having found nothing says nothing: no socket is in states that the detector is about, and it is not known whether
/// such sockets were asked for; or it rests on counters that were not recorded.
fn unseen(detector: &Detector, coverage: &Coverage) -> Option<String> {
    let states: Vec<String> = detector
        .states
        .iter()
        .filter(|state| coverage.unsure.contains(**state))
        .map(ToString::to_string)
        .collect();
    if !states.is_empty() {
        return Some(format!("no socket is in {}: {UNSURE}", states.join(", ")));
    }
    (coverage.no_facts && detector.needs.deltas).then(|| NO_FACTS.to_owned())
}

/// What one detector finds, and why it cannot tell, if so. It judges by the plain limits, and once more by those of each
/// override; what it finds about a subject counts by the limits that are the subject's.
fn judge(
    detector: &Detector,
    context: &Context<'_>,
    settings: &Settings,
) -> (Vec<Finding>, Option<String>) {
    let overrides = settings.overrides(detector);
    let fits = |finding: &Finding| {
        let mut scopes = overrides.iter().map(|over| &over.scope);
        scopes.position(|scope| scope.matches(&finding.subject))
    };
    let plain = std::iter::once((None, settings.limits(detector)));
    let special = overrides.iter().enumerate();
    let special = special.map(|(at, over)| (Some(at), settings.limits_under(detector, over)));
    let (mut all, mut open) = (Vec::new(), None);
    for (place, limits) in plain.chain(special) {
        match (detector.check)(context, &limits) {
            Verdict::Quiet => {}
            Verdict::Found(findings) => {
                all.extend(findings.into_iter().filter(|one| fits(one) == place));
            }
            Verdict::CannotTell(reason) => open = open.or(Some(reason)),
        }
    }
    (all, open)
}

/// The worst first; a consequence behind its root, as bad as it may be, and the root as far up as the worst that
/// follows from it.
fn order(findings: &mut Vec<Finding>) {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let (mut left, roots): (Vec<Finding>, Vec<Finding>) = findings
        .drain(..)
        .partition(|finding| finding.caused_by.is_some());
    let mut families: Vec<Vec<Finding>> = roots.into_iter().map(|root| vec![root]).collect();
    // What follows stands behind the finding about the same subject, else behind the first of its cause's id; then
    // what follows from that.
    while !left.is_empty() {
        let before = left.len();
        let mut still = Vec::new();
        for finding in left {
            let parent = |same: bool| {
                families.iter().position(|family| {
                    family.iter().any(|other| {
                        finding.caused_by == Some(other.id)
                            && (!same || causes::same_subject(&other.subject, &finding.subject))
                    })
                })
            };
            match parent(true)
                .or_else(|| parent(false))
                .and_then(|at| families.get_mut(at))
            {
                Some(family) => family.push(finding),
                None => still.push(finding),
            }
        }
        left = still;
        if left.len() == before {
            break;
        }
    }
    families.sort_by_key(|family| {
        let worst = family.iter().map(|finding| finding.severity).max();
        std::cmp::Reverse(worst)
    });
    findings.extend(families.into_iter().flatten());
    findings.extend(left);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Actor, Subject};

    #[test]
    fn the_first_override_that_fits_a_subject_sets_its_limits() {
        use scenario::{HERE, Scenario, THERE};
        let leaking = || {
            let mut scenario = Scenario::default();
            for (pid, comm) in [(7, "java"), (8, "node")] {
                let process = scenario.process(pid, comm, 100, 1024);
                for i in 0..60 {
                    let port = 40_000 + pid as u16 * 100 + i;
                    let local = crate::model::Endpoint::v4(HERE, port);
                    let remote = crate::model::Endpoint::v4(THERE, 443);
                    let socket = scenario.socket(TcpState::CloseWait, local, remote);
                    let socket = scenario.held_by(process, socket);
                    let age = 65_000 + 10_000 * u64::from(i);
                    let idle = ["last_ack_recv_ms", "last_data_recv_ms", "last_data_sent_ms"];
                    scenario.push(socket, &idle.map(|name| (name, age)));
                }
            }
            scenario
        };
        let over = |process: &str, age: &str| {
            let mut over = settings::Override::new(scope::Scope {
                process: Some(process.to_owned()),
                ..scope::Scope::default()
            });
            over.set("close-wait-leak", "age", age).unwrap();
            over
        };
        let found = |set: &[&str], overrides: &[settings::Override]| {
            let mut settings = Settings::default();
            settings.only(&["close-wait-leak".to_owned()]).unwrap();
            settings.adopt(overrides.to_vec(), Vec::new());
            for text in set {
                settings.set(text).unwrap();
            }
            let analysis = leaking().analyze(&settings);
            assert_eq!(analysis.quiet.is_empty(), !analysis.findings.is_empty());
            let comm = |finding: &Finding| match &finding.subject {
                Subject::Process { comm, .. } => comm.clone().unwrap_or_default(),
                other => panic!("{other:?}"),
            };
            let mut found: Vec<String> = analysis.findings.iter().map(comm).collect();
            found.sort();
            found
        };
        assert_eq!(found(&[], &[]), ["java", "node"]);
        assert_eq!(found(&[], &[over("java", "1h")]), ["node"]);
        assert!(found(&[], &[over("java", "1h"), over("*", "1h")]).is_empty());
        assert_eq!(
            found(&[], &[over("java", "60s"), over("*", "1h")]),
            ["java"],
            "the first that fits wins"
        );
        assert_eq!(
            found(&["close-wait-leak.age=60s"], &[over("*", "1h")]),
            ["java", "node"],
            "the command line wins"
        );
    }

    #[test]
    fn a_chain_stands_together_where_its_worst_belongs() {
        let finding = |id, severity, caused_by| Finding {
            id,
            variant: None,
            severity,
            title: String::new(),
            subject: Subject::Host,
            evidence: Vec::new(),
            explanation: String::new(),
            grounds: Vec::new(),
            who_must_act: Actor::Nobody,
            advice: Vec::new(),
            rows: Vec::new(),
            caused_by,
            one_sample: false,
        };
        let mut findings = vec![
            finding("accept", Severity::Warning, Some("listen")),
            finding("other", Severity::Warning, None),
            finding("listen", Severity::Critical, Some("leak")),
            finding("leak", Severity::Info, None),
            finding("lost", Severity::Critical, Some("nobody")),
        ];
        order(&mut findings);
        let ids: Vec<_> = findings.iter().map(|finding| finding.id).collect();
        assert_eq!(ids, ["leak", "listen", "accept", "other", "lost"]);
    }
}
