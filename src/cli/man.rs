//! `linger man`: manual pages, from the same definitions as `--help` and the detectors.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use super::args::Cli;
use super::check;
use super::config::{self, Key};
use super::explain;
use super::export;
use super::failure::Failure;
use super::list_page;
use super::listed;
use super::terminal;
use super::watch;
use crate::analyze::{AGES, Settings, detectors};
use crate::render::findings::Screen;
use crate::render::paint::Paint;
use crate::render::text::wrap;

/// Prints one page, or writes all of them into a directory.
///
/// # Errors
/// For a page that is none, or when it cannot be written.
pub fn run(page: Option<&str>, dir: Option<&Path>) -> Result<(), Failure> {
    let Some(dir) = dir else {
        let wanted = page.unwrap_or("linger");
        let named = |(name, _): &(String, Vec<u8>)| {
            let stem = name
                .rsplit_once('.')
                .map_or(name.as_str(), |(stem, _)| stem);
            stem == wanted
                || stem.strip_prefix("linger").and_then(|rest| rest.get(1..)) == Some(wanted)
        };
        let all = pages()?;
        return match all.iter().find(|page| named(page)) {
            Some((_, text)) => terminal::print(text),
            None => {
                let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
                Err(Failure::usage(
                    format!("there is no manual page '{wanted}'"),
                    format!("pages are: {}", names.join(", ")),
                ))
            }
        };
    };
    for (name, text) in pages()? {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| {
            Failure::failed(
                format!("cannot write '{}': {error}", path.display()),
                Some("--dir names a directory that exists and may be written to".to_owned()),
            )
        })?;
    }
    Ok(())
}

/// Every page with the name of its file.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let cli = Cli::command();
    let mut pages = vec![("linger.8".to_owned(), command_page(cli.clone(), "LINGER")?)];
    for command in cli
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        let name = format!("linger-{}", command.get_name());
        let typed = format!("linger {}", command.get_name());
        let command = command.clone().name(name.clone()).bin_name(typed);
        pages.push((
            format!("{name}.8"),
            command_page(command, &name.to_uppercase())?,
        ));
    }
    pages.push(("linger-findings.7".to_owned(), findings_page()?));
    pages.push(("linger.toml.5".to_owned(), configuration_page()?));
    Ok(pages)
}

/// The date of the pages: of the release, so that making them again changes nothing.
const DATE: &str = "2026-11-23";

/// Where a filter, or what is shown unasked, is not what ss(8) makes of the same words.
const DIFFERENCES: &str = "A filter that ss accepts means the same here. Where ss does not do what its manual says, linger \
    does: 'and' binds tighter than 'or'; '!=' works with src and dst; a state clause may stand anywhere; operators and \
    parentheses need no blanks around them; every spelling of a state and every unambiguous one of an IPv6 address is \
    understood; a name with several addresses means each of them. Unasked, TIME-WAIT and SYN-RECEIVED are shown too, and \
    BOUND-INACTIVE only with -a, -B or by name; of UDP, RAW and UNIX what is UNCONNECTED is not hidden, and without an \
    option of a protocol it is TCP alone. 'state listening' means UNCONNECTED where there is no LISTEN, as -l does. Patterns \
    of UNIX names heed case. fwmark without CAP_NET_ADMIN is an error and not a wrong answer. \
    autobound is what the kernel means by it, a socket without SOCK_BINDPORT_LOCK: one whose port no bind(2) named, \
    accepted connections, TIME-WAIT and SYN-RECEIVED always among them; a bound port within ip_local_port_range does not \
    fit it, and every socket fits either it or its opposite. It cannot be told from /proc/net or a capture, and is an \
    error there. A file of -F may have state clauses, may be joined to a filter on the line, and its lines may be long. \
    'sport >= *' is not understood.";

/// What `--netns` means.
const NAMESPACES: &str = "Without --netns, what is shown is of the network namespace that linger is started in. With it the \
    sockets, counters, settings and names of interfaces are those of the one that is named: a value with a '/' is the path \
    of a file such as /proc/PID/ns/net, 'all' is every namespace, another value is a name below /run/netns if there is such \
    a file, and else a pid (with --proc-root, one of the processes there). linger enters the namespace and mounts nothing. \
    That takes root, or CAP_SYS_ADMIN, and CAP_SYS_PTRACE for another user's process. 'all' finds the namespaces that have \
    a name and those that a process is in; one that only a thread, an open descriptor or a mount elsewhere keeps is not \
    found, and one that cannot be entered is told of. Each is judged by itself; a listener of --expect-listener is \
    expected in our own. A subject, a story of a socket and a capture are of one namespace, and so is what --from reads.";

/// The page of a command: what clap knows, then examples, exit status and neighbours.
fn command_page(command: clap::Command, title: &str) -> Result<Vec<u8>, Failure> {
    let examples = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let top = title == "LINGER";
    let command = command.after_help("");
    let man = Man::new(command.clone())
        .title(title)
        .section("8")
        .date(DATE)
        .source(concat!("linger ", env!("CARGO_PKG_VERSION")))
        .manual("System Manager's Manual");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut out)?;
    }
    if top {
        man.render_subcommands_section(&mut out)?;
    }
    // Notes stand before the word that begins the examples, and sections before it end with a blank line.
    let (notes, examples) = match examples.split_once("Examples:\n") {
        Some((notes, examples)) => (notes.trim().to_owned(), examples.to_owned()),
        None => (String::new(), examples),
    };
    let (examples, rest) = match examples.split_once("\n\n") {
        Some((examples, rest)) => (examples.to_owned(), rest.to_owned()),
        None => (examples, String::new()),
    };
    if !notes.is_empty() {
        // The page of list says the same at length.
        if title != "LINGER-LIST" {
            verbatim(&mut out, Some("NOTES"), &notes)?;
        }
    }
    if title == "LINGER-LIST" {
        list_page::write(&mut out)?;
        verbatim(&mut out, Some("COLUMNS"), &listed::columns_text())?;
        section(&mut out, "DIFFERENCES FROM SS")?;
        paragraph(&mut out, DIFFERENCES)?;
        list_page::flags(&mut out)?;
    }
    let exporter = title == "LINGER-EXPORT";
    if exporter {
        export::manual::write(&mut out)?;
    }
    let dashboard = title == "LINGER-WATCH";
    if dashboard {
        watch::manual::write(&mut out)?;
    }
    let plugin = title == "LINGER-CHECK";
    if plugin {
        check::manual::write(&mut out)?;
    }
    verbatim(&mut out, Some("EXAMPLES"), &examples)?;
    section(&mut out, "EXIT STATUS")?;
    if dashboard {
        watch::manual::end(&mut out)?;
    } else if exporter {
        export::manual::end(&mut out)?;
    } else if plugin {
        check::manual::end(&mut out)?;
    } else {
        paragraph(
            &mut out,
            "0 if done, 1 if something failed, 2 for wrong usage. A view that is partial for lack of \
            privileges is done, with a note on standard error and \"complete\": false in JSON.",
        )?;
    }
    if title == "LINGER-DIAGNOSE" {
        paragraph(
            &mut out,
            "With --exit-code what was found: 0 for nothing above info, 10 for a warning, 11 for critical, 12 where \
            not everything that was asked for could be judged.",
        )?;
    }
    if top {
        debug_assert!(
            rest.starts_with("Exit status"),
            "the rest of the help is about the exit status"
        );
        section(&mut out, "NETWORK NAMESPACES")?;
        paragraph(&mut out, NAMESPACES)?;
        section(&mut out, "ENVIRONMENT")?;
        paragraph(
            &mut out,
            "NO_COLOR, CLICOLOR, CLICOLOR_FORCE and TERM=dumb decide about colours where --color \
            does not; COLUMNS is the width where standard output is no terminal; LC_ALL, LC_CTYPE and LANG say \
            whether more than ASCII may be shown.",
        )?;
        section(&mut out, "FILES")?;
        paragraph(
            &mut out,
            "/proc/PID/fd and its neighbours: who holds a socket. Other users' processes need root, \
            or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH. /proc/net and /proc/sys/net: counters and settings of the \
            network namespace, and the sockets where the kernel refuses sock_diag.",
        )?;
    }
    section(&mut out, "SEE ALSO")?;
    let cli = Cli::command();
    let mut pages: Vec<String> = cli
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| format!("linger-{}(8)", command.get_name()))
        .filter(|page| !page.starts_with(&title.to_lowercase()) || top)
        .collect();
    if !top {
        pages.insert(0, "linger(8)".to_owned());
    }
    pages.extend([
        "linger-findings(7)".to_owned(),
        "linger.toml(5)".to_owned(),
        "ss(8)".to_owned(),
        "tcp(7)".to_owned(),
    ]);
    paragraph(&mut out, &pages.join(", "))?;
    Ok(tidy(&out))
}

/// What a terminal of 80 columns leaves beside a manual page's indent.
const PAGE: usize = 73;

/// The page about findings, from the detectors' own text.
fn findings_page() -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    writeln!(
        out,
        ".TH LINGER-FINDINGS 7 {DATE} \"linger {}\" \"Miscellaneous Information Manual\"",
        env!("CARGO_PKG_VERSION")
    )?;
    section(&mut out, "NAME")?;
    writeln!(
        out,
        "linger-findings \\- what linger finds, how it judges, and what to do"
    )?;
    section(&mut out, "DESCRIPTION")?;
    paragraph(
        &mut out,
        "Each finding has a name, by which --only, --skip and --threshold of linger-diagnose(8) know \
        it. What cannot be judged is said to be unknown, with the reason, and is never taken for quiet.",
    )?;
    section(&mut out, "SEVERITY")?;
    paragraph(
        &mut out,
        "One meaning for all findings. Critical: users are hurt now, or will be within the hour. Warning: a person \
        should look today. Info: worth knowing while diagnosing; it never wakes anybody. What one look alone cannot \
        prove counts a step less and is marked as one sample. Clients of a public server that vanish are its \
        background: where the local port is listened on, nothing that a peer alone can cause is more than a warning.",
    )?;
    kernels(&mut out)?;
    let screen = Screen {
        width: PAGE,
        unicode: false,
        paint: Paint(false),
    };
    for detector in detectors::ALL {
        section(&mut out, &detector.id.to_uppercase())?;
        let mut text = Vec::new();
        explain::detector_text(detector, &Settings::default(), screen, &mut text)?;
        writeln!(out, ".nf")?;
        for line in String::from_utf8_lossy(&text).lines().skip(1) {
            writeln!(out, "{}", escape(line.trim_end()))?;
        }
        writeln!(out, ".fi")?;
    }
    section(&mut out, "SEE ALSO")?;
    paragraph(
        &mut out,
        "linger(8), linger-diagnose(8), linger-explain(8), linger.toml(5), tcp(7)",
    )?;
    Ok(tidy(&out))
}

/// Which kernel leaves what open, from what the detectors say of themselves; the newest first.
fn kernels(out: &mut dyn Write) -> std::io::Result<()> {
    section(out, "WHAT OLDER KERNELS CANNOT TELL")?;
    paragraph(
        out,
        "The kernel has learned to say more over the years. Where it lacks something, the finding is judged by \
        what is there, or is said to be unknown, as follows.",
    )?;
    let mut blind: Vec<_> = detectors::ALL
        .iter()
        .flat_map(|detector| detector.blind.iter().map(|blind| (detector.id, blind)))
        .chain(AGES.iter().map(|blind| ("ages", blind)))
        .collect();
    blind.sort_by_key(|(id, blind)| (std::cmp::Reverse(blind.since), blind.lacks, *id));
    let mut before = None;
    for (id, blind) in blind {
        let (major, minor) = blind.since;
        if before != Some((blind.since, blind.lacks)) {
            writeln!(out, ".TP")?;
            writeln!(out, "before Linux {major}.{minor}: {}", escape(blind.lacks))?;
        } else {
            writeln!(out, ".br")?;
        }
        writeln!(out, "{}: {}", escape(id), escape(blind.effect))?;
        before = Some((blind.since, blind.lacks));
    }
    Ok(())
}

/// The page about the configuration: its keys from the reader's own lists, its limits from the detectors.
fn configuration_page() -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    writeln!(
        out,
        ".TH LINGER.TOML 5 {DATE} \"linger {}\" \"File Formats Manual\"",
        env!("CARGO_PKG_VERSION")
    )?;
    section(&mut out, "NAME")?;
    writeln!(out, "linger.toml \\- limits, overrides and mutes of linger")?;
    section(&mut out, "DESCRIPTION")?;
    paragraph(
        &mut out,
        "linger needs no configuration. Where there is one, it is TOML, and it says which detectors run, \
        at which limits they speak, and which findings are known and muted for a time. The command line wins over it. A \
        key, finding or value that is not understood is an error, with its line, and exit status 2.",
    )?;
    section(&mut out, "FILES")?;
    for (name, doc) in [
        (
            "/etc/linger/linger.toml",
            "The system's. It may be missing.",
        ),
        (
            "$XDG_CONFIG_HOME/linger/linger.toml",
            "The user's, or else ~/.config/linger/linger.toml. It is read after the system's and wins. It may be missing.",
        ),
        (
            "--config FILE",
            "This file and no other, which must be there; LINGER_CONFIG in the environment does the same. \
            With /dev/null there is no configuration.",
        ),
    ] {
        item(&mut out, name, doc)?;
    }
    section(&mut out, "KEYS")?;
    keys(&mut out, config::TOP)?;
    section(&mut out, "KEYS OF [[override]] AND [[mute]]")?;
    paragraph(
        &mut out,
        "They choose the subjects of findings. All that are given must fit. `linger diagnose --json` shows the \
        subject of each finding.",
    )?;
    keys(&mut out, config::SCOPE)?;
    section(&mut out, "THE OTHER KEY OF [[override]]")?;
    keys(&mut out, config::OVERRIDE)?;
    section(&mut out, "THE OTHER KEYS OF [[mute]]")?;
    keys(&mut out, config::MUTE)?;
    section(&mut out, "THRESHOLDS")?;
    paragraph(
        &mut out,
        "With their defaults. A time is text such as \"90s\", \"5min\" or \"1h30m\", or a number of seconds; \
        a share is text such as \"50%\", or a number; everything else is a number.",
    )?;
    for detector in detectors::ALL {
        writeln!(out, ".SS \"{}\"", escape(detector.id))?;
        paragraph(&mut out, detector.summary)?;
        for threshold in detector.thresholds {
            let value = explain::value_of_default(threshold);
            let value = match value.parse::<f64>() {
                Ok(_) => value,
                Err(_) => format!("\"{value}\""),
            };
            item(
                &mut out,
                &format!("{} = {value}", threshold.key),
                threshold.doc,
            )?;
        }
    }
    section(&mut out, "SEE ALSO")?;
    paragraph(
        &mut out,
        "linger(8), linger-diagnose(8), linger-explain(8), linger-findings(7)",
    )?;
    Ok(tidy(&out))
}

/// Keys, each with its example.
fn keys(out: &mut dyn Write, keys: &[Key]) -> std::io::Result<()> {
    for key in keys {
        item(out, key.name, key.doc)?;
        writeln!(out, ".IP\n.nf")?;
        for line in key.example.lines() {
            writeln!(out, "{}", escape(line))?;
        }
        writeln!(out, ".fi")?;
    }
    Ok(())
}

/// A name, and behind it what it is.
pub(super) fn item(out: &mut dyn Write, name: &str, doc: &str) -> std::io::Result<()> {
    writeln!(out, ".TP\n{}", escape(name))?;
    paragraph(out, doc)
}

pub(super) fn section(out: &mut dyn Write, name: &str) -> std::io::Result<()> {
    writeln!(out, ".SH \"{name}\"")
}

pub(super) fn subsection(out: &mut dyn Write, name: &str) -> std::io::Result<()> {
    writeln!(out, ".SS \"{name}\"")
}

pub(super) fn paragraph(out: &mut dyn Write, text: &str) -> std::io::Result<()> {
    writeln!(out, "{}", escape(text))
}

/// A paragraph behind something else than a heading.
pub(super) fn again(out: &mut dyn Write, text: &str) -> std::io::Result<()> {
    writeln!(out, ".PP")?;
    paragraph(out, text)
}

/// Lines as they are, in a section of their own if it has a name.
pub(super) fn verbatim(out: &mut dyn Write, name: Option<&str>, text: &str) -> std::io::Result<()> {
    if let Some(name) = name {
        section(out, name)?;
    }
    writeln!(out, ".nf")?;
    for line in text.lines() {
        let line = folded(line.strip_prefix("  ").unwrap_or(line));
        for line in line.lines().chain(line.is_empty().then_some("")) {
            writeln!(out, "{}", escape(line.trim_end()))?;
        }
    }
    writeln!(out, ".fi")
}

/// A line that fits a manual page: what is too long goes on under its last column.
fn folded(line: &str) -> String {
    if line.chars().count() <= PAGE {
        return line.to_owned();
    }
    let column = line.trim_end().rfind("  ").map_or(0, |gap| gap + 2);
    let (head, text) = line.split_at(column);
    format!("{head}{}", wrap(text, PAGE, column))
}

/// Text in which nothing is a request or an escape to roff.
fn escape(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) {
        format!("\\&{escaped}")
    } else {
        escaped
    }
}

/// What mandoc objects to in generated pages: blanks at the ends of lines, empty lines, one break behind another.
fn tidy(page: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(page);
    let mut tidy = String::with_capacity(text.len());
    let mut verbatim = false;
    for line in text.lines() {
        match line {
            ".nf" => verbatim = true,
            ".fi" => verbatim = false,
            _ => {}
        }
        let line = line.trim_end();
        if line == ".br" && tidy.ends_with(".br\n") {
            continue;
        }
        if line.is_empty() {
            tidy.push_str(if verbatim { "\\&\n" } else { "" });
            continue;
        }
        tidy.push_str(line);
        tidy.push('\n');
    }
    tidy.into_bytes()
}
