//! `linger kill`: shows what would be destroyed; with `--yes` keeps the evidence, then destroys.

mod asked;
mod capture;
mod verdict;

use std::io::BufWriter;
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustc_hash::FxHashSet;

use super::args::{self, CollectorChoice, Common};
use super::failure::Failure;
use super::list;
use super::numbers::Numbers;
use super::{lookup, selection, source, terminal};
use crate::collect::live::Live;
use crate::collect::netlink::{Destroyed, Refusal, has_net_admin, wipe};
use crate::collect::{self, Row, Source, Want};
use crate::fields::Record;
use crate::knowledge::killing::{Allowed, Fate, objection};
use crate::model::{
    AgeFacts, Attributes, Coverage, Ends, Host, Owners, Protocol, Socket, StateSet, TcpState,
};
use crate::query::Filter;
use crate::render::json::{Counts, Head, KILL, Kill, Killed, Tail};
use crate::render::kill::Killing;
use crate::render::text::Safe;

/// The states of an alternative that names none. What waits for anybody (LISTEN, and CLOSED of UDP) is among them, so that
/// one who means it reads that it is left alone, and not that there is no such socket.
const UNASKED: StateSet = StateSet::DEFAULT
    .union(StateSet::of(TcpState::Listen))
    .union(StateSet::of(TcpState::Closed));

/// A socket that fits.
struct Target {
    socket: Socket,
    fate: Fate,
    /// the kernel's own message about it, where a capture is to hold it
    message: Option<Box<[u8]>>,
}

/// What rows are judged by.
struct Judge {
    filter: Filter,
    allowed: Allowed,
    owners: Owners,
    ages: AgeFacts,
    names: Numbers,
}

impl Judge {
    fn record<T>(
        &self,
        socket: &Socket,
        attributes: &Attributes<'_>,
        judge: impl FnOnce(&Record<'_>) -> T,
    ) -> T {
        judge(&Record {
            socket,
            attributes,
            ends: Ends::Ip,
            owners: Some(&self.owners),
            ages: &self.ages,
            names: &self.names,
        })
    }

    /// What becomes of a socket as it is; `None` if it does not fit.
    fn fate(&self, socket: &Socket, attributes: &Attributes<'_>) -> Option<Fate> {
        let fits = self.record(socket, attributes, |record| self.filter.matches(record));
        fits.then(|| match objection(socket, self.allowed) {
            Some(objection) => Fate::Refused(objection),
            None => Fate::WouldDestroy,
        })
    }
}

/// Shows what would be destroyed, or destroys it.
///
/// # Errors
/// For an empty filter or one that is not understood, when the sockets cannot be read, when all that fit are left alone,
/// when the capture cannot be written, and when a socket could not be destroyed.
pub fn run(args: &args::Kill) -> Result<(), Failure> {
    let filter = asked::filter(args)?;
    asked::refuse_slips(args, &filter)?;
    let typed = match args.filter_file {
        Some(_) => filter.to_string(),
        None => args.filter.join(" "),
    };
    let acted = act(args, filter)?;
    source::notes(&acted.warnings);

    let head = Head {
        schema: KILL,
        generated_at: acted.taken,
        host: &acted.host.name,
        netns: acted.host.netns,
        collector: source::collector(&args.common, &acted.coverage),
    };
    let killing = Killing {
        sockets: &acted.sockets,
        owners: &acted.owners,
        names: &acted.names,
        width: terminal::screen(args.common.color).width,
    };
    let shown = Shown {
        args,
        typed: &typed,
        head,
        capture: acted.capture.as_deref(),
        tail: Tail {
            namespaces: &[],
            complete: acted.coverage.complete(),
            warnings: &acted.warnings,
        },
    };
    let printed = shown.print(&killing);
    // That a reader has gone does not make a failure a success.
    verdict::verdict(&acted.sockets, acted.doomed)?;
    printed
}

/// What was found, and what became of it.
pub struct Acted {
    /// each socket that fits, and its fate
    pub sockets: Vec<(Socket, Fate)>,
    /// whether one was to be destroyed
    doomed: bool,
    /// the evidence
    pub capture: Option<PathBuf>,
    /// what whoever reads this must know
    pub warnings: Vec<String>,
    coverage: Coverage,
    owners: Owners,
    names: Numbers,
    host: Host,
    taken: Timestamp,
}

impl Acted {
    /// Says what came of it, on so many columns.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn report(&self, width: usize, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let killing = Killing {
            sockets: &self.sockets,
            owners: &self.owners,
            names: &self.names,
            width,
        };
        let capture = self.capture.as_deref();
        let path = capture.map(|path| path.display().to_string());
        let show = capture.map(|path| format!("linger list -ap{}", source::again_at(path)));
        killing.report(path.as_deref().zip(show.as_deref()), out)?;
        for warning in &self.warnings {
            writeln!(out, "note: {}", Safe(warning))?;
        }
        Ok(())
    }
}

/// Destroys these sockets, the evidence kept first, as `linger kill --yes` does: one that is another by now, or in a state
/// that is left alone, is not touched. The calling thread may enter another network namespace by it, which has to be the one
/// with the inode `netns`, if that is given.
///
/// # Errors
/// As [`run`], without printing; and where another namespace is found.
pub fn these(common: &Common, netns: Option<u64>, sockets: &[Socket]) -> Result<Acted, Failure> {
    let cookies = sockets.iter().filter_map(|socket| socket.cookie);
    let tests: Vec<String> = cookies
        .map(|cookie| format!("cookie = {cookie:x}"))
        .collect();
    let filter = Filter::parse(&[tests.join(" or ")])?;
    let args = args::Kill {
        yes: true,
        common: common.clone(),
        ..args::Kill::default()
    };
    // A pid, or a name, may be of another namespace by now.
    if netns.is_some() && source::live(common)?.host().netns != netns {
        return Err(Failure::failed(
            "their network namespace is gone: nothing was touched",
            None,
        ));
    }
    let mut acted = act(&args, filter)?;
    for socket in sockets {
        let told = acted
            .sockets
            .iter()
            .any(|(other, _)| other.cookie == socket.cookie);
        if !told {
            let fate = Fate::Vanished("it was gone before".to_owned());
            acted.sockets.push((*socket, fate));
        }
    }
    Ok(acted)
}

/// Finds the sockets that fit, and with `--yes` destroys them.
fn act(args: &args::Kill, filter: Filter) -> Result<Acted, Failure> {
    // By the cookie alone the very socket is hit, and only netlink has it.
    let common = Common {
        collector: CollectorChoice::Netlink,
        ..args.common.clone()
    };
    source::only_one(&common, "sockets are destroyed")?;
    let mut machine = source::live(&common)?;
    let names = Numbers::of(&machine, &args.common);
    let filter = filter
        .resolve(&mut lookup::Names::new(&mut machine, &names.interfaces))?
        .within(UNASKED);
    let wants = wants(args, &filter);
    if filter.asks_mark() {
        for want in &wants {
            selection::marks_are_told(&mut machine, want)?;
        }
    }
    let (owners, mut coverage) = machine.owners();
    let facts = machine.facts();
    let judge = Judge {
        filter,
        allowed: Allowed {
            listeners: args.listeners,
            close_wait: args.close_wait,
            time_wait: args.time_wait,
        },
        owners,
        ages: AgeFacts::new(&facts),
        names,
    };
    let taken = machine.now();
    let mut targets = Vec::new();
    let keep = args.yes && !args.no_capture;
    for want in &wants {
        let more = find(&mut machine, want, &judge, keep, &mut targets)?;
        coverage.merge(more);
    }
    let unowned = targets.iter().filter(|target| {
        let attributes = Attributes::default();
        judge.record(&target.socket, &attributes, list::is_unowned)
    });
    coverage.unowned = unowned.count() as u64;

    let doomed = targets
        .iter()
        .any(|target| target.fate == Fate::WouldDestroy);
    let mut capture = None;
    let mut warnings = coverage.warnings();
    if doomed && args.yes {
        if !has_net_admin() {
            return Err(unprivileged("nothing was touched"));
        }
        if keep {
            let evidence = capture::Evidence {
                host: &machine.host(),
                taken,
                wants: &wants,
                targets: &targets,
                owners: &judge.owners,
                facts: &facts,
                coverage: &coverage,
            };
            capture = Some(capture::write(args.state_dir.as_deref(), &evidence)?);
        }
        destroy(&mut machine, &wants, &judge, &mut targets);
    } else if doomed && !has_net_admin() {
        let warning = "to destroy them takes CAP_NET_ADMIN, which this process does not have";
        warnings.push(warning.to_owned());
    }
    let sockets: Vec<(Socket, Fate)> = targets
        .into_iter()
        .map(|target| (target.socket, target.fate))
        .collect();
    Ok(Acted {
        sockets,
        doomed,
        capture,
        warnings,
        coverage,
        owners: judge.owners,
        names: judge.names,
        host: machine.host(),
        taken,
    })
}

/// What is asked of the kernel: what is judged, and for a capture everything.
fn wants(args: &args::Kill, filter: &Filter) -> Vec<Want> {
    let needed = filter.needed();
    let whole = args.yes && !args.no_capture;
    let both = args.ipv4 == args.ipv6;
    let want = |protocol| Want {
        protocol,
        ipv4: both || args.ipv4,
        ipv6: both || args.ipv6,
        tcp_info: needed.tcp_info || whole,
        memory: needed.memory || whole,
        congestion: needed.congestion || whole,
        tos: whole,
        ..Want::states(filter.states())
    };
    let mut wants = Vec::new();
    if args.tcp || !args.udp {
        wants.push(want(Protocol::Tcp));
    }
    if args.udp {
        wants.push(want(Protocol::Udp));
    }
    wants
}

/// Adds the sockets that fit.
fn find(
    machine: &mut Live,
    want: &Want,
    judge: &Judge,
    keep: bool,
    targets: &mut Vec<Target>,
) -> Result<Coverage, Failure> {
    let dumped = machine.dump(want, &mut |row| {
        if let Row::Inet { socket, attributes } = row
            && let Some(fate) = judge.fate(&socket, &attributes)
        {
            targets.push(Target {
                socket,
                fate,
                message: attributes.message.filter(|_| keep).map(|message| {
                    let mut message: Box<[u8]> = message.into();
                    wipe(&mut message);
                    message
                }),
            });
        }
        ControlFlow::Continue(())
    });
    dumped.map_err(|error| match error {
        collect::Error::NoSockDiag(why) => Failure::failed(
            format!("{} cannot be destroyed here: sock_diag is not usable: {why}", want.protocol.sockets()),
            Some("only the kernel's own sock_diag knows the cookies by which sockets are destroyed; /proc/net does not".to_owned()),
        ),
        error => error.into(),
    })
}

/// Destroys what is to be destroyed, one socket at a time, and notes what became of each.
fn destroy(machine: &mut Live, wants: &[Want], judge: &Judge, targets: &mut [Target]) {
    let mut left: Vec<usize> = targets
        .iter()
        .enumerate()
        .filter(|(_, target)| target.fate == Fate::WouldDestroy)
        .map(|(at, _)| at)
        .collect();
    loop {
        let mut progress = false;
        let mut missed = Vec::new();
        let mut refused: Option<String> = None;
        for at in left {
            let Some(target) = targets.get_mut(at) else {
                continue;
            };
            if let Some(why) = &refused {
                target.fate = Fate::Failed(why.clone());
                continue;
            }
            match attempt(machine, wants, judge, target) {
                Attempt::Ended(fate) => {
                    progress |= fate == Fate::Destroyed;
                    target.fate = fate;
                }
                Attempt::Missed => missed.push(at),
                Attempt::AllRefused(why) => {
                    target.fate = Fate::Failed(why.clone());
                    refused = Some(why);
                }
            }
        }
        let there = still_there(machine, wants, targets, &missed);
        // Of listeners that share a port the kernel finds one, and when that is gone another.
        left = Vec::new();
        for at in missed {
            let Some(target) = targets.get_mut(at) else {
                continue;
            };
            target.fate = match &there {
                Err(error) => Fate::Failed(format!(
                    "the kernel did not find it, and whether it is still there cannot be told: {error}"
                )),
                Ok(there) if target.socket.cookie.is_none_or(|own| !there.contains(&own)) => {
                    Fate::Vanished("it was gone before".to_owned())
                }
                Ok(_) if progress && refused.is_none() => {
                    left.push(at);
                    continue;
                }
                Ok(_) => Fate::Failed(SHADOWED.to_owned()),
            };
        }
        if left.is_empty() {
            return;
        }
    }
}

/// Why the kernel says of a socket that is there that it is not.
const SHADOWED: &str = "it is there, but the kernel finds another socket by its addresses (SO_REUSEPORT); only its \
    program can close it";

/// What came of one attempt.
enum Attempt {
    Ended(Fate),
    /// the kernel found no such socket
    Missed,
    /// no socket will be destroyed, for this reason
    AllRefused(String),
}

fn attempt(machine: &mut Live, wants: &[Want], judge: &Judge, target: &Target) -> Attempt {
    let socket = &target.socket;
    let want = wants.iter().find(|want| want.protocol == socket.protocol);
    let Some(want) = want else {
        return Attempt::Missed;
    };
    let mut otherwise = None;
    let tried = machine.destroy(socket, want, &mut |row| {
        let Row::Inet {
            socket: now,
            attributes,
        } = row
        else {
            return false;
        };
        match judge.fate(&now, &attributes) {
            Some(Fate::WouldDestroy) => true,
            Some(fate) => {
                otherwise = Some(fate);
                false
            }
            None => {
                let state = now.state_name().unwrap_or("in an unknown state");
                let why = format!("it does not fit any more: it is {state} now");
                otherwise = Some(Fate::Vanished(why));
                false
            }
        }
    });
    match tried {
        Ok(Destroyed::Done) => Attempt::Ended(Fate::Destroyed),
        Ok(Destroyed::Gone) => Attempt::Missed,
        Ok(Destroyed::Unwanted) => Attempt::Ended(otherwise.unwrap_or_else(|| {
            Fate::Failed("the kernel's answer about it could not be read".to_owned())
        })),
        Ok(Destroyed::Refused(refusal)) => {
            let why = refusal_in_words(refusal);
            if refusal.is_for_all() {
                Attempt::AllRefused(why)
            } else {
                Attempt::Ended(Fate::Failed(why))
            }
        }
        Err(error) => Attempt::AllRefused(error.to_string()),
    }
}

fn refusal_in_words(refusal: Refusal) -> String {
    match refusal {
        Refusal::Privilege => "EPERM: it takes CAP_NET_ADMIN in the user namespace that this network namespace belongs to".to_owned(),
        Refusal::Unsupported => {
            "EOPNOTSUPP: this kernel was built without CONFIG_INET_DIAG_DESTROY".to_owned()
        }
        Refusal::Other(errno) => {
            format!("the kernel refused: {}", std::io::Error::from_raw_os_error(errno))
        }
    }
}

/// Which of the sockets that the kernel did not find are there all the same.
fn still_there(
    machine: &mut Live,
    wants: &[Want],
    targets: &[Target],
    missed: &[usize],
) -> Result<FxHashSet<NonZeroU64>, collect::Error> {
    let mut there = FxHashSet::default();
    let sought: FxHashSet<NonZeroU64> = missed
        .iter()
        .filter_map(|at| targets.get(*at)?.socket.cookie)
        .collect();
    if sought.is_empty() {
        return Ok(there);
    }
    for want in wants {
        let all = Want {
            protocol: want.protocol,
            ..Want::states(StateSet::ALL)
        };
        machine.dump(&all, &mut |row| {
            if let Row::Inet { socket, .. } = row {
                there.extend(socket.cookie.filter(|cookie| sought.contains(cookie)));
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(there)
}

fn unprivileged(so: &str) -> Failure {
    Failure::failed(
        format!("destroying sockets takes CAP_NET_ADMIN, which this process does not have: {so}"),
        Some("run it as root; without --yes everybody may see what would be destroyed".to_owned()),
    )
}

/// What is printed besides the sockets.
struct Shown<'a> {
    args: &'a args::Kill,
    typed: &'a str,
    head: Head<'a>,
    capture: Option<&'a Path>,
    tail: Tail<'a>,
}

impl Shown<'_> {
    fn print(&self, killing: &Killing<'_>) -> Result<(), Failure> {
        let capture = self.capture.map(|path| path.display().to_string());
        if self.args.common.json {
            let kill = Kill {
                head: self.head,
                dry_run: !self.args.yes,
                filter: self.typed,
                capture: capture.as_deref(),
                counts: Counts::of(killing.sockets.iter().map(|(_, fate)| fate)),
            };
            let mut killed = Killed::begin(BufWriter::new(std::io::stdout().lock()), &kill)?;
            for (socket, fate) in killing.sockets {
                killing.record(socket, |record| killed.push(record, fate))?;
            }
            return Ok(killed.finish(&self.tail)?);
        }
        let mut page = Vec::new();
        if killing.sockets.is_empty() {
            page.extend(format!("no socket fits: {}\n", Safe(self.typed)).into_bytes());
        } else if self.args.yes {
            let show = self.capture.map(|path| show(self.args, path));
            killing.report(capture.as_deref().zip(show.as_deref()), &mut page)?;
        } else {
            killing.preview(&again(self.args), &mut page)?;
        }
        terminal::print(&page)
    }
}

/// The command that shows every socket of the capture.
fn show(args: &args::Kill, capture: &Path) -> String {
    let tables = match (args.tcp, args.udp) {
        (_, false) => "",
        (false, true) => "u",
        (true, true) => "tu",
    };
    format!("linger list -{tables}ap{}", source::again_at(capture))
}

/// The command that acts.
fn again(args: &args::Kill) -> String {
    let mut line = "linger kill".to_owned();
    for (given, option) in [
        (args.tcp, " -t"),
        (args.udp, " -u"),
        (args.ipv4, " -4"),
        (args.ipv6, " -6"),
        (args.listeners, " --listeners"),
        (args.close_wait, " --close-wait"),
        (args.time_wait, " --time-wait"),
        (args.no_capture, " --no-capture"),
    ] {
        line.push_str(if given { option } else { "" });
    }
    if let Some(directory) = &args.state_dir {
        line.push_str(" --state-dir ");
        line.push_str(&source::quoted(directory));
    }
    line.push_str(&source::again(&args.common));
    if let Some(file) = &args.filter_file {
        line.push_str(" -F ");
        line.push_str(&source::quoted(file));
    }
    if !args.filter.is_empty() {
        line.push(' ');
        line.push_str(&source::quoted(&PathBuf::from(args.filter.join(" "))));
    }
    line + " --yes"
}
