//! `linger man`: manual pages, from the same definitions as `--help` and the detectors.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use super::args::Cli;
use super::explain;
use super::failure::Failure;
use super::listed;
use super::terminal;
use crate::analyze::detectors;
use crate::render::findings::Screen;
use crate::render::paint::Paint;

/// Prints one page, or writes all of them into a directory.
///
/// # Errors
/// For a page that is none, or when it cannot be written.
pub fn run(page: Option<&str>, dir: Option<&Path>) -> Result<(), Failure> {
    let Some(dir) = dir else {
        let wanted = page.unwrap_or("linger");
        let named = |(name, _): &(String, Vec<u8>)| {
            let stem = name.split('.').next().unwrap_or(name);
            stem == wanted || stem.strip_prefix("linger-") == Some(wanted)
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
    Ok(pages)
}

/// The date of the pages: of the release, so that making them again changes nothing.
const DATE: &str = "2026-11-23";

/// Where a filter, or what is shown unasked, is not what ss(8) makes of the same words.
const DIFFERENCES: &str = "A filter that ss accepts means the same here. Where ss does not do what its manual says, linger \
    does: 'and' binds tighter than 'or'; '!=' works with src and dst; a state clause may stand anywhere; operators and \
    parentheses need no blanks around them; every spelling of a state and every unambiguous one of an IPv6 address is \
    understood; a name with several addresses means each of them. Unasked, TIME-WAIT and SYN-RECEIVED are shown too, and \
    BOUND-INACTIVE only with -a, -B or by name. fwmark without CAP_NET_ADMIN is an error and not a wrong answer. \
    'sport >= *' and autobound are not understood.";

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
        verbatim(&mut out, "NOTES", &notes)?;
    }
    if title == "LINGER-LIST" {
        verbatim(&mut out, "COLUMNS", &listed::columns_text())?;
        section(&mut out, "DIFFERENCES FROM SS")?;
        paragraph(&mut out, DIFFERENCES)?;
    }
    verbatim(&mut out, "EXAMPLES", &examples)?;
    section(&mut out, "EXIT STATUS")?;
    paragraph(
        &mut out,
        "0 if done, 1 if something failed, 2 for wrong usage. A view that is partial for lack of \
        privileges is done, with a note on standard error and \"complete\": false in JSON.",
    )?;
    if top {
        debug_assert!(
            rest.starts_with("Exit status"),
            "the rest of the help is about the exit status"
        );
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
        "ss(8)".to_owned(),
        "tcp(7)".to_owned(),
    ]);
    paragraph(&mut out, &pages.join(", "))?;
    Ok(tidy(&out))
}

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
    let screen = Screen {
        width: 78,
        unicode: false,
        paint: Paint(false),
    };
    for detector in detectors::ALL {
        section(&mut out, &detector.id.to_uppercase())?;
        let mut text = Vec::new();
        explain::detector_text(detector, screen, &mut text)?;
        writeln!(out, ".nf")?;
        for line in String::from_utf8_lossy(&text).lines().skip(1) {
            writeln!(out, "{}", escape(line.trim_end()))?;
        }
        writeln!(out, ".fi")?;
    }
    section(&mut out, "SEE ALSO")?;
    paragraph(
        &mut out,
        "linger(8), linger-diagnose(8), linger-explain(8), tcp(7)",
    )?;
    Ok(tidy(&out))
}

fn section(out: &mut dyn Write, name: &str) -> std::io::Result<()> {
    writeln!(out, ".SH \"{name}\"")
}

fn paragraph(out: &mut dyn Write, text: &str) -> std::io::Result<()> {
    writeln!(out, "{}", escape(text))
}

fn verbatim(out: &mut dyn Write, name: &str, text: &str) -> std::io::Result<()> {
    section(out, name)?;
    writeln!(out, ".nf")?;
    for line in text.lines() {
        writeln!(
            out,
            "{}",
            escape(line.strip_prefix("  ").unwrap_or(line).trim_end())
        )?;
    }
    writeln!(out, ".fi")
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
