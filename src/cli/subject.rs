//! `linger SUBJECT`: everything about one port, program, pid or address on one screen.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::args;
use super::document::{self, Judged};
use super::failure::Failure;
use super::observe::{self, Observation, Plan, Told};
use super::{diagnose, source, status, terminal};
use crate::collect::{Row, Source, Want, procfs};
use crate::history::Counts;
use crate::model::words::{count, thousands};
use crate::model::{Analysis, Finding, Process, Snapshot, Socket, StateSet, TcpState, stories};
use crate::render::status::{head, labelled, name};
use crate::render::text::{Safe, wrap};

/// What a word names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// a local or remote port
    Port(u16),
    /// a process
    Pid(u32),
    /// all processes of a name
    Program(String),
    /// a local or remote address, with a port or without
    Address(IpAddr, Option<u16>),
}

impl Subject {
    fn words(&self) -> String {
        match self {
            Self::Port(port) => format!("port {port}"),
            Self::Pid(pid) => format!("pid {pid}"),
            Self::Program(name) => format!("program {}", Safe(name)),
            Self::Address(ip, None) => format!("address {ip}"),
            Self::Address(IpAddr::V6(ip), Some(port)) => format!("address [{ip}]:{port}"),
            Self::Address(ip, Some(port)) => format!("address {ip}:{port}"),
        }
    }

    /// Its sockets, as `list` selects them.
    fn filter(&self) -> String {
        let either = |name: [&str; 2], value: &str| {
            let [local, peer] = name;
            format!("{local} {value} or {peer} {value}")
        };
        match self {
            Self::Port(port) => either(["sport =", "dport ="], &port.to_string()),
            Self::Pid(pid) => format!("pid = {pid}"),
            // A backslash makes blanks and operators a part of the name.
            Self::Program(name) => {
                let mut filter = "process = ".to_owned();
                for c in name.chars() {
                    let plain = c.is_alphanumeric() || "._-/:".contains(c);
                    filter.extend((!plain).then_some('\\'));
                    filter.push(c);
                }
                filter
            }
            Self::Address(ip, None) => either(["src", "dst"], &ip.to_string()),
            Self::Address(ip, Some(port)) => {
                let end = std::net::SocketAddr::new(*ip, *port);
                either(["src", "dst"], &end.to_string())
            }
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Port(port) => json!({ "kind": "port", "port": port }),
            Self::Pid(pid) => json!({ "kind": "pid", "pid": pid }),
            Self::Program(name) => json!({ "kind": "program", "comm": name }),
            Self::Address(ip, port) => json!({ "kind": "address", "address": ip, "port": port }),
        }
    }

    /// Whether the socket is the subject's.
    fn owns(&self, snapshot: &Snapshot, socket: &Socket) -> bool {
        let held = |fits: &dyn Fn(&Process) -> bool| {
            snapshot
                .owners
                .of(socket.inode)
                .any(|(process, _)| fits(process))
        };
        match self {
            Self::Port(port) => socket.local.port == *port || socket.remote.port == *port,
            Self::Pid(pid) => held(&|process| process.pid == *pid),
            Self::Program(name) => held(&|process| process.comm == *name),
            Self::Address(ip, port) => [socket.local, socket.remote]
                .iter()
                .any(|end| end.ip() == *ip && port.is_none_or(|port| port == end.port)),
        }
    }
}

/// What the word names by its form alone; a bare number may be a port or a pid.
fn by_form(word: &str) -> Option<Subject> {
    let bare = word
        .strip_prefix('[')
        .and_then(|word| word.strip_suffix(']'))
        .unwrap_or(word);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(Subject::Address(ip.to_canonical(), None));
    }
    if let Some(text) = word
        .strip_prefix("port:")
        .or_else(|| word.strip_prefix(':'))
    {
        return text
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .map(Subject::Port);
    }
    if let Some(text) = word.strip_prefix("pid:") {
        return text.parse().ok().map(Subject::Pid);
    }
    let end: std::net::SocketAddr = word.parse().ok()?;
    Some(Subject::Address(end.ip().to_canonical(), Some(end.port())))
}

/// Finds what the word names on this machine or in the capture; `None` if it names nothing there.
///
/// # Errors
/// For a port or pid that is none, or when the machine cannot be read.
pub fn find(word: &str, args: &args::SubjectArgs) -> Result<Option<Subject>, Failure> {
    match by_form(word) {
        Some(Subject::Pid(pid)) => return existing(pid, args).map(Some),
        Some(subject) => return Ok(Some(subject)),
        None => {}
    }
    if word.is_empty()
        || word == "0"
        || word.starts_with(':')
        || word.starts_with("port:")
        || word.starts_with("pid:")
    {
        return Err(Failure::usage(
            format!("'{word}' is no port and no pid"),
            "ports are 1 to 65535: linger :443, linger pid:2211".to_owned(),
        ));
    }
    let mut machine = source::open(&args.common)?;
    if let Ok(number) = word.parse::<u32>() {
        return match port_of(number, machine.as_mut())? {
            Some(port) => Ok(Some(Subject::Port(port))),
            None => match (existing(number, args), u16::try_from(number)) {
                (Ok(process), _) => Ok(Some(process)),
                (Err(_), Ok(port)) => Ok(Some(Subject::Port(port))),
                (Err(error), Err(_)) => Err(error),
            },
        };
    }
    let (owners, _) = machine.owners();
    let holds = owners
        .processes()
        .iter()
        .any(|process| process.comm == word);
    let runs = holds || (args.common.from.is_none() && procfs::runs(&args.common.proc_root, word));
    Ok(runs.then(|| Subject::Program(word.to_owned())))
}

/// The process, if there is one.
fn existing(pid: u32, args: &args::SubjectArgs) -> Result<Subject, Failure> {
    let there = if args.common.from.is_some() {
        let (owners, _) = source::open(&args.common)?.owners();
        owners.processes().iter().any(|process| process.pid == pid)
    } else {
        procfs::netns_of(&args.common.proc_root, pid).is_some()
    };
    if there {
        return Ok(Subject::Pid(pid));
    }
    let place = if args.common.from.is_some() {
        "in this capture"
    } else {
        "here"
    };
    Err(Failure::failed(
        format!("there is no process {pid} {place}"),
        Some("linger :PORT looks at a port, linger NAME at a program".to_owned()),
    ))
}

/// The number as a port, if a socket uses it.
fn port_of(number: u32, machine: &mut dyn Source) -> Result<Option<u16>, Failure> {
    let Ok(port) = u16::try_from(number) else {
        return Ok(None);
    };
    let mut used = false;
    machine.dump(&Want::states(StateSet::ALL), &mut |row| {
        if let Row::Inet { socket, .. } = row {
            used |= socket.local.port == port || socket.remote.port == port;
        }
        if used {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(used.then_some(port))
}

/// Why nothing was found, where it may be there all the same.
fn unseen(args: &args::SubjectArgs, subject: &Subject, snapshot: &Snapshot) -> Option<String> {
    if args.common.from.is_some() {
        return None;
    }
    if let Subject::Pid(pid) = subject {
        let theirs = procfs::netns_of(&args.common.proc_root, *pid).flatten();
        if theirs.is_some() && theirs != snapshot.host.netns {
            return Some(format!(
                "process {pid} lives in another network namespace: linger pid:{pid} --netns {pid}"
            ));
        }
    }
    let by_owner = matches!(subject, Subject::Pid(_) | Subject::Program(_));
    let hidden = snapshot.coverage.unreadable_processes > 0;
    (by_owner && hidden).then(|| {
        "not every process could be read: what others hold takes root, or CAP_SYS_PTRACE + CAP_DAC_READ_SEARCH, to see"
            .to_owned()
    })
}

/// What belongs to the subject.
struct View<'a> {
    listeners: Vec<(u32, &'a Socket)>,
    states: Counts,
    peers: Vec<(IpAddr, u64)>,
    processes: Vec<(&'a Process, u64)>,
    judged: Analysis,
    total: u64,
}

impl View<'_> {
    fn told<'v>(&'v self, snapshot: &'v Snapshot) -> Vec<Told<'v>> {
        let stories = stories(&self.judged.findings).into_iter();
        stories.map(|story| Told { story, snapshot }).collect()
    }
}

/// Prints the screen or the document.
///
/// # Errors
/// When the machine cannot be read.
pub fn run(args: &args::SubjectArgs, subject: &Subject) -> Result<(), Failure> {
    // Not before: a slip of the fingers is told as such.
    source::one_with(&args.common, "a subject is", || {
        let filter = source::quoted(Path::new(&subject.filter()));
        format!("its sockets in every namespace: linger list -a {filter} --netns all")
    })?;
    let settings = observe::settings(&args.select, &args.common)?;
    let plan = Plan {
        samples: 1,
        interval: Duration::ZERO,
        pulse: false,
        recorded: None,
        owners: true,
    };
    let seen = observe::look(&args.common, plan, &settings)?;
    source::note_beside(&seen.warnings(), args.common.json);
    let view = view(&seen, subject);
    if args.common.json {
        return print_json(args, subject, &seen, &view);
    }
    let mut out = Vec::new();
    write(args, subject, &seen, &view, &mut out)?;
    terminal::print(&out)
}

fn view<'a>(seen: &'a Observation, subject: &Subject) -> View<'a> {
    let snapshot = &seen.snapshot;
    let mut rows = Vec::new();
    let mut listeners = Vec::new();
    let mut states = Counts::default();
    let mut peers: BTreeMap<IpAddr, u64> = BTreeMap::new();
    let mut processes: BTreeMap<u32, (&Process, u64)> = BTreeMap::new();
    // A program's connections that have lost their holder are found by its listening ports.
    let own_ports: Vec<u16> = snapshot
        .sockets
        .iter()
        .filter(|socket| socket.state == TcpState::Listen && subject.owns(snapshot, socket))
        .map(|socket| socket.local.port)
        .collect();
    for (row, socket) in (0u32..).zip(&snapshot.sockets) {
        let ownerless = socket.inode == 0 && own_ports.contains(&socket.local.port);
        if !subject.owns(snapshot, socket) && !ownerless {
            continue;
        }
        rows.push(row);
        states.add(socket.state);
        if socket.state == TcpState::Listen {
            listeners.push((row, socket));
        } else if socket.state != TcpState::BoundInactive {
            *peers.entry(socket.remote.ip()).or_default() += 1;
        }
        for (process, _) in snapshot.owners.of(socket.inode) {
            processes.entry(process.pid).or_insert((process, 0)).1 += 1;
        }
    }
    let concerns = |finding: &&Finding| {
        let subject_of = serde_json::to_value(&finding.subject).unwrap_or_default();
        let is = |key: &str, value: &Value| subject_of.get(key) == Some(value);
        let named = match subject {
            Subject::Port(port) => is("port", &json!(port)),
            Subject::Pid(pid) => is("pid", &json!(pid)),
            Subject::Program(name) => is("comm", &json!(name)),
            Subject::Address(ip, port) => {
                is("address", &json!(ip)) && port.is_none_or(|port| is("port", &json!(port)))
            }
        };
        named
            || finding
                .rows
                .iter()
                .any(|row| rows.binary_search(row).is_ok())
    };
    let mut judged = seen.analysis.clone();
    judged.findings.retain(|finding| concerns(&finding));
    judged.muted.retain(|muted| concerns(&&muted.finding));
    let mut peers: Vec<_> = peers.into_iter().collect();
    peers.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut processes: Vec<_> = processes.into_values().collect();
    processes.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.pid.cmp(&b.0.pid)));
    View {
        listeners,
        states,
        peers,
        processes,
        judged,
        total: rows.len() as u64,
    }
}

fn write(
    args: &args::SubjectArgs,
    subject: &Subject,
    seen: &Observation,
    view: &View<'_>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let screen = terminal::screen(args.common.color);
    let Observation {
        snapshot, tally, ..
    } = seen;
    let clock = source::clock(&args.common, snapshot);
    writeln!(out, "{}", head(snapshot, tally.total(), &clock, screen))?;
    writeln!(
        out,
        "{}   {}",
        screen.paint.bold(&subject.words()),
        count(view.total, "socket")
    )?;
    if view.total == 0 {
        let text = unseen(args, subject, snapshot).unwrap_or_else(|| {
            "no TCP socket of this network namespace belongs to it, in any state".to_owned()
        });
        writeln!(out, "\n{}\n", wrap(&text, screen.text_width(), 0))?;
    } else {
        writeln!(out)?;
    }
    let holders: Vec<String> = view
        .processes
        .iter()
        .take(8)
        .map(|(p, n)| process(p, *n))
        .collect();
    for (at, line) in holders.iter().enumerate() {
        writeln!(
            out,
            "{}",
            labelled(if at == 0 { "held by" } else { "" }, line, screen)
        )?;
    }
    for (at, (_, listener)) in view.listeners.iter().take(8).enumerate() {
        let label = if at == 0 { "listens" } else { "" };
        writeln!(
            out,
            "{}",
            labelled(label, &listening(snapshot, listener), screen)
        )?;
    }
    if view.listeners.len() > 8 {
        let more = view.listeners.len() - 8;
        writeln!(out, "{}", labelled("", &format!("and {more} more"), screen))?;
    }
    let states: Vec<String> = TcpState::SHOWN
        .into_iter()
        .filter(|state| *state != TcpState::Listen && view.states.of(*state) > 0)
        .map(|state| format!("{state}\u{a0}{}", thousands(view.states.of(state))))
        .collect();
    if !states.is_empty() {
        writeln!(
            out,
            "{}",
            labelled("connections", &states.join(", "), screen)
        )?;
    }
    let peers: Vec<String> = view
        .peers
        .iter()
        .take(6)
        .map(|(peer, n)| format!("{peer}\u{a0}{}", thousands(*n)))
        .collect();
    if !peers.is_empty() {
        let more = view.peers.len().saturating_sub(6);
        let more = if more > 0 {
            format!(", and {} more", thousands(more as u64))
        } else {
            String::new()
        };
        writeln!(
            out,
            "{}",
            labelled("peers", &format!("{}{more}", peers.join(", ")), screen)
        )?;
    }
    if view.total > 0 {
        writeln!(out)?;
    }
    diagnose::print_findings(&view.told(snapshot), &args.common, screen, out)?;
    if view.judged.findings.is_empty() {
        writeln!(out, "{}", labelled("findings", "none", screen))?;
    }
    if let Some(muted) = view.judged.muted_words() {
        writeln!(out, "{}", labelled("muted", &muted, screen))?;
    }
    for warning in seen.warnings() {
        writeln!(
            out,
            "{}",
            labelled("note", &Safe(&warning).to_string(), screen)
        )?;
    }
    let again = source::again(&args.common);
    writeln!(
        out,
        "{}",
        labelled("next", &format!("linger diagnose{again}"), screen)
    )?;
    Ok(())
}

fn process(process: &Process, sockets: u64) -> String {
    let mut text = format!("{}, {}", name(process), count(sockets, "socket"));
    if let Some(user) = process.user.as_deref() {
        text.push_str(&format!(", user {}", Safe(user)));
    }
    if let Some(unit) = process.unit() {
        text.push_str(&format!(", {}", Safe(unit)));
    }
    if let Some(fds) = process.fds {
        let limit = match process.nofile {
            Some(u64::MAX) => " of unlimited".to_owned(),
            Some(limit) => format!(" of {}", thousands(limit)),
            None => String::new(),
        };
        text.push_str(&format!(", {}{limit} descriptors", thousands(fds)));
    }
    text
}

fn listening(snapshot: &Snapshot, listener: &Socket) -> String {
    let address = match listener.local_ip() {
        IpAddr::V4(ip) => format!("{ip}:{}", listener.local.port),
        IpAddr::V6(ip) => format!("[{ip}]:{}", listener.local.port),
    };
    let limit = listener.backlog().map_or("?".to_owned(), thousands);
    let holder = status::holder(snapshot, listener).unwrap_or_else(|| "holder not seen".to_owned());
    format!(
        "{address}, {holder}, accept queue {}/{limit}",
        thousands(listener.recv_q)
    )
}

#[derive(Serialize)]
struct SubjectDocument<'a> {
    subject: Value,
    states: Value,
    listeners: Vec<Value>,
    processes: Vec<Value>,
    peers: Vec<Value>,
    #[serde(flatten)]
    judged: Judged<'a>,
}

fn print_json(
    args: &args::SubjectArgs,
    subject: &Subject,
    seen: &Observation,
    view: &View<'_>,
) -> Result<(), Failure> {
    let snapshot = &seen.snapshot;
    let counts = TcpState::SHOWN.map(|state| u64::from(view.states.of(state)));
    let listeners: Vec<u32> = view.listeners.iter().map(|(row, _)| *row).collect();
    let document = SubjectDocument {
        subject: subject.json(),
        states: json!({ "tcp": status::states(&counts, 0, &snapshot.coverage) }),
        listeners: document::sockets(&listeners, snapshot)?,
        processes: view
            .processes
            .iter()
            .map(|(p, n)| status::process(p, *n))
            .collect(),
        peers: view
            .peers
            .iter()
            .map(|(peer, n)| json!({ "address": peer, "sockets": n }))
            .collect(),
        judged: Judged::new(&view.judged, &view.told(snapshot))?,
    };
    let warnings = seen.warnings();
    document::print(
        "linger.subject/1",
        &args.common,
        snapshot,
        &warnings,
        document,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_of_a_subject_is_one() {
        let end = |text: &str| by_form(text).unwrap();
        let table = [
            (Subject::Port(18080), "sport = 18080 or dport = 18080"),
            (Subject::Pid(7), "pid = 7"),
            (
                Subject::Program("tmux: (x)".to_owned()),
                r"process = tmux:\ \(x\)",
            ),
            (end("::1"), "src ::1 or dst ::1"),
            (end("[::1]:80"), "src [::1]:80 or dst [::1]:80"),
        ];
        for (subject, expected) in table {
            let filter = subject.filter();
            assert_eq!(filter, expected);
            crate::query::Filter::parse(&[filter]).unwrap();
        }
    }

    #[test]
    fn words_name_their_subject_by_form() {
        let ip = |text: &str| text.parse().unwrap();
        let table = [
            (":443", Some(Subject::Port(443))),
            ("port:443", Some(Subject::Port(443))),
            ("pid:2211", Some(Subject::Pid(2211))),
            ("10.0.0.1", Some(Subject::Address(ip("10.0.0.1"), None))),
            (
                "10.0.0.1:80",
                Some(Subject::Address(ip("10.0.0.1"), Some(80))),
            ),
            ("::1", Some(Subject::Address(ip("::1"), None))),
            ("[::1]:80", Some(Subject::Address(ip("::1"), Some(80)))),
            (
                "::ffff:10.0.0.1",
                Some(Subject::Address(ip("10.0.0.1"), None)),
            ),
            (":65536", None),
            ("nginx", None),
            ("443", None),
        ];
        for (word, subject) in table {
            assert_eq!(by_form(word), subject, "{word}");
        }
    }
}
