//! `linger check`, also as `check_linger`: a plugin for Nagios and Icinga, and a health check for cron.
//!
//! Everything that stops it from judging is UNKNOWN, told on standard output: wrong usage, a configuration that is not
//! understood, a time-out, a fault of its own.

pub mod args;
mod document;
mod guard;
mod judge;
pub mod manual;
mod narrow;
mod past;
mod say;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};

use self::args::Plugin;
pub use self::args::{Args, EXAMPLES, hidden};
use self::guard::Ended;
use self::past::Past;
use super::failure::{self, Failure};
use super::terminal;
use crate::analyze::measures;
use crate::model::Overall;
use crate::render::nagios::{self, code};

/// The name by which schedulers know their plugins.
const NAME: &str = "check_linger";

/// By which name it was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// `linger check`
    Command,
    /// `check_linger`
    Plugin,
}

/// Whether a program of this name is the plugin. The name is the one that the caller gave; what the executable is called
/// says nothing where it is a link.
pub fn is_plugin(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new(NAME))
}

/// What is printed, and the exit code.
struct Said {
    out: Vec<u8>,
    code: u8,
}

/// Checks, and returns the exit code.
pub fn run(called: Called, words: Vec<OsString>) -> u8 {
    let json = asks_json(&words);
    let said = match parse(called, words) {
        Ok(args) => checked(called, args),
        Err(Failure::Clap(page)) if !page.use_stderr() => Said {
            out: page.to_string().into_bytes(),
            code: told(called),
        },
        Err(failure) => unknown(&failure, json),
    };
    finish(said)
}

/// As [`run`], with options that are read already.
pub fn run_with(args: Args) -> u8 {
    finish(checked(Called::Command, args))
}

fn finish(said: Said) -> u8 {
    match terminal::print(&said.out) {
        Ok(()) => said.code,
        // Nobody has read what was found: that is no OK.
        Err(failure) => {
            let (message, _) = failure.words();
            let _ = writeln!(std::io::stderr(), "linger check: {message}");
            code(Overall::Unknown)
        }
    }
}

/// The exit code of help. A scheduler must not take it for a host that is well.
const fn told(called: Called) -> u8 {
    match called {
        Called::Command => 0,
        Called::Plugin => code(Overall::Unknown),
    }
}

fn parse(called: Called, words: Vec<OsString>) -> Result<Args, Failure> {
    let mut command = Plugin::command();
    if called == Called::Command {
        command = command.bin_name("linger check");
    }
    let all = std::iter::once(OsString::from(NAME)).chain(words);
    let name = match called {
        Called::Command => "linger check",
        Called::Plugin => NAME,
    };
    let mut matches = command
        .try_get_matches_from_mut(all)
        .map_err(|error| failure::of_command(error, name))?;
    let plugin = Plugin::from_arg_matches_mut(&mut matches);
    Ok(plugin.map_err(|error| error.format(&mut command))?.args)
}

/// Whether a document is wanted, where the options cannot be read.
fn asks_json(words: &[OsString]) -> bool {
    let words = words.iter().filter_map(|word| word.to_str());
    let mut options = words.take_while(|word| *word != "--");
    options.any(|word| {
        let letters = word.strip_prefix('-').unwrap_or_default();
        word == "--json"
            || letters.contains('j') && letters.chars().all(|c| matches!(c, 'j' | 'q' | 'v'))
    })
}

/// Judges within the time that there is.
fn checked(called: Called, args: Args) -> Said {
    if args.list_metrics {
        return Said {
            out: metrics().into_bytes(),
            code: told(called),
        };
    }
    let (limit, json) = (args.timeout, args.common.json);
    let failure = match guard::within(limit, move || work(&args)) {
        Ended::Done(Ok(said)) => return said,
        Ended::Done(Err(failure)) => failure,
        Ended::Late => late(limit),
        Ended::Broken(why) => Failure::failed(why, None),
    };
    unknown(&failure, json)
}

fn late(limit: Duration) -> Failure {
    Failure::failed(
        format!("no answer within {} s", nagios::number(limit.as_secs_f64())),
        Some("-t gives it longer; --no-owners and --metric are faster".to_owned()),
    )
}

fn work(args: &Args) -> Result<Said, Failure> {
    let mut past = Past::open(args)?;
    let checked = judge::judge(args, &mut past)?;
    let mut changes = past.keep(args, &checked);
    if let Some(changes) = &mut changes {
        say::sort(changes, &checked);
    }
    let status = checked.status();
    let changed = changes.as_ref().map(|changes| !changes.is_empty());
    let still = args.on_change && changed == Some(false);
    // What has ended is news, too.
    let well = args.quiet && status == Overall::Ok && changed != Some(true);
    let out = if still || well {
        Vec::new()
    } else if args.common.json {
        document::checked(args, &checked, changes.as_deref(), &past)?
    } else {
        let mut out = say::line(&checked);
        if args.on_change || args.quiet {
            out += &say::changes(changes.as_deref().unwrap_or_default());
        }
        out += &say::more(args, &checked)?;
        if args.verbose > 0 {
            out += &say::past(past.age());
            let notes = past.notes.iter().map(|note| nagios::text(note));
            out.extend(notes.map(|note| format!("note: {note}\n")));
        }
        out.into_bytes()
    };
    Ok(Said {
        out,
        code: code(status),
    })
}

/// Why it could not judge, in the form of a plugin or as a document.
fn unknown(failure: &Failure, json: bool) -> Said {
    let (message, hint) = failure.words();
    // The lines of a filter's error that point at a place need a line of their own.
    let first = message.lines().next().unwrap_or_default();
    let line = match hint.as_deref().and_then(|hint| hint.lines().next()) {
        Some(hint) => {
            let one = format!("{first} (hint: {hint})");
            if nagios::fits(Overall::Unknown, &one) {
                nagios::line(Overall::Unknown, &one, &[])
            } else {
                let hint = nagios::text(hint);
                nagios::line(Overall::Unknown, first, &[]) + &format!("hint: {hint}\n")
            }
        }
        None => nagios::line(Overall::Unknown, first, &[]),
    };
    let out = if json {
        // Where not even that can be written, the line says more than nothing.
        document::failed(&line, first, hint.as_deref()).unwrap_or_else(|_| line.into_bytes())
    } else {
        line.into_bytes()
    };
    Said {
        out,
        code: code(Overall::Unknown),
    }
}

/// The metrics, with what they are of.
pub fn metrics() -> String {
    let widest = measures::ALL.iter().map(|one| one.name.len()).max();
    let width = widest.unwrap_or(0);
    let lines = measures::ALL.iter().map(|one| {
        let history = if one.history { "; needs history" } else { "" };
        let narrows = if one.narrows {
            "; a FILTER narrows it"
        } else {
            ""
        };
        let (name, unit, doc) = (one.name, one.unit, one.doc);
        format!("{name:width$}  {unit:11}  {doc}{narrows}{history}\n")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_last_part_of_what_the_caller_says() {
        for (name, plugin) in [
            ("check_linger", true),
            ("/usr/lib/nagios/plugins/check_linger", true),
            ("./check_linger", true),
            ("linger", false),
            ("check_linger.sh", false),
            ("/check_linger/linger", false),
            ("", false),
        ] {
            assert_eq!(is_plugin(OsStr::new(name)), plugin, "{name}");
        }
    }

    #[test]
    fn a_document_is_asked_for_even_in_options_that_are_wrong() {
        let asks = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            asks_json(&words)
        };
        assert!(asks("--frobnicate --json") && asks("-j") && asks("-vvj") && asks("-qj -x"));
        assert!(!asks("--frobnicate") && !asks("-- -j") && !asks("-v") && !asks("-") && !asks(""));
    }

    #[test]
    fn faults_and_time_outs_are_unknown_on_one_line() {
        let said = unknown(&late(Duration::from_millis(1500)), false);
        let text = String::from_utf8(said.out).unwrap();
        assert!(text.starts_with("LINGER UNKNOWN - no answer within 1.5 s (hint: -t"));
        let evil = Failure::failed("a | b\nc \u{1b}[2J", Some("d | e".to_owned()));
        let said = unknown(&evil, false);
        let text = String::from_utf8(said.out).unwrap();
        assert_eq!(text, "LINGER UNKNOWN - a _ b (hint: d _ e)\n");
        assert_eq!(said.code, 3);
        let list = "one, another, ".repeat(40) + "the last";
        let said = unknown(
            &Failure::failed("unknown finding 'x'", Some(list.clone())),
            false,
        );
        let text = String::from_utf8(said.out).unwrap();
        assert_eq!(
            text,
            format!("LINGER UNKNOWN - unknown finding 'x'\nhint: {list}\n"),
            "no hint is cut"
        );
    }
}
