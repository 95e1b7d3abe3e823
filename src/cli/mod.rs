//! The command line: what is typed, what is read, what is printed. The only room that puts the others together.

pub mod args;
pub mod check;
mod config;
mod diagnose;
pub mod diff;
mod document;
mod everywhere;
mod explain;
pub mod export;
mod failure;
mod fingers;
mod fold;
pub mod history;
mod kill;
mod list;
mod list_page;
mod listed;
mod lookup;
mod man;
mod numbers;
mod observe;
mod pair;
mod plan;
mod record;
pub mod remember;
mod selection;
mod series;
mod sorted;
mod source;
mod state_dir;
mod status;
mod stories;
mod subject;
mod tables;
mod terminal;
mod views;
mod watch;
mod words;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;

use self::args::{Cli, Command};
use self::check::Called;
pub use self::failure::Failure;
use self::words::Intent;

/// Runs the program: the first of the arguments is the name by which it was called.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let name = arguments.next().unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    // A plugin has its own ways to read options and to fail.
    if check::is_plugin(&name) {
        return ExitCode::from(check::run(Called::Plugin, arguments));
    }
    if let Some(arguments) = words::check(&arguments) {
        return ExitCode::from(check::run(Called::Command, arguments));
    }
    let done = match dispatch(arguments) {
        // Help and version are no failure, but writing them may be one.
        Err(Failure::Clap(page)) if !page.use_stderr() => page
            .print()
            .and_then(|()| std::io::stdout().flush())
            .map_err(Failure::from)
            .map(|()| 0),
        done => done,
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr().lock(), "{failure}");
            ExitCode::from(failure.code())
        }
    }
}

/// Runs what was asked for; the exit code is 0 but where another one was asked for.
fn dispatch(arguments: Vec<OsString>) -> Result<u8, Failure> {
    fingers::check(&arguments)?;
    match words::intent(arguments) {
        Intent::Run(arguments) => execute(parse(arguments)?),
        Intent::Word {
            word,
            subject,
            list,
        } => {
            let is_filter = crate::query::Filter::parse(std::slice::from_ref(&word)).is_ok();
            if let Some(list) = list.as_ref().filter(|_| is_filter) {
                return execute(parse(list.clone())?);
            }
            let Command::Subject(args) = parse(subject)? else {
                return Ok(0);
            };
            match (subject::find(&word, &args)?, list) {
                (Some(found), _) => subject::run(&args, &found).map(|()| 0),
                // The filter's own error points at the word that it does not understand.
                (None, Some(list)) => execute(parse(list)?),
                (None, None) => Err(not_understood(&word)),
            }
        }
    }
}

fn parse(arguments: Vec<OsString>) -> Result<Command, Failure> {
    let all = std::iter::once(OsString::from("linger")).chain(arguments);
    Ok(Cli::read(all)?.command)
}

fn execute(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Diagnose(args) => return diagnose::run(&args),
        Command::Check(args) => return Ok(check::run_with(args)),
        Command::Status(args) => status::run(&args),
        Command::List(args) => list::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Record(args) => record::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::History(args) => history::run(&args),
        Command::Kill(args) => kill::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Subject(args) => match subject::find(&args.subject, &args)? {
            Some(found) => subject::run(&args, &found),
            None => Err(not_understood(&args.subject)),
        },
        Command::Completions { shell } => {
            // Not straight to standard output: the generator panics where that is closed.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "linger", &mut script);
            terminal::print(&script)
        }
        Command::Man { page, dir } => man::run(page.as_deref(), dir.as_deref()),
    }
    .map(|()| 0)
}

/// A single word that is neither a command nor anything on this machine: a slip of the fingers.
fn not_understood(word: &str) -> Failure {
    if crate::model::TcpState::parse(word).is_some() {
        return Failure::usage(
            format!("'{word}' is a state, not a command"),
            format!(
                "linger state {word}    lists its sockets; linger explain {word} says what it means"
            ),
        );
    }
    let cli = Cli::command();
    let names: Vec<String> = cli
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| command.get_name().to_owned())
        .collect();
    let near = crate::model::nearest::nearest(word, names.iter().map(String::as_str));
    if let Some(near) = near.first() {
        return Failure::usage(
            format!("unknown command '{word}', and no program of that name runs here"),
            format!("did you mean 'linger {near}'?"),
        );
    }
    Failure::usage(
        format!("'{word}' is no command, port, address, pid, or program that runs here"),
        "`linger --help` lists the commands; `linger state X` lists the sockets in a state"
            .to_owned(),
    )
}
