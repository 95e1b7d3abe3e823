//! The dashboard on a real terminal.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use linger::tui::guard::Guard;
use linger::tui::keys::{Action, BINDINGS, Binding, Key, Scope};
use ratatui::crossterm::event::KeyCode;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::Test;
use crate::states::zoo;
use crate::tmux::{Tmux, is_prompt};
use crate::world::{Family, World, listen};

pub const TESTS: &[Test] = &[
    Test {
        name: "watch_answers_every_key",
        run: watch_answers_every_key,
    },
    Test {
        name: "watch_fits_every_size",
        run: watch_fits_every_size,
    },
    Test {
        name: "watch_ends_cleanly_by_signals",
        run: watch_ends_cleanly_by_signals,
    },
    Test {
        name: "watch_comes_back_after_a_stop",
        run: watch_comes_back_after_a_stop,
    },
    Test {
        name: "watch_panics_cleanly",
        run: watch_panics_cleanly,
    },
    Test {
        name: "watch_ends_with_its_terminal",
        run: watch_ends_with_its_terminal,
    },
    Test {
        name: "watch_replays",
        run: watch_replays,
    },
    Test {
        name: "watch_kills_what_was_shown",
        run: watch_kills_what_was_shown,
    },
    Test {
        name: "watch_looks_into_every_namespace",
        run: watch_looks_into_every_namespace,
    },
    Test {
        name: "watch_prints_frames",
        run: watch_prints_frames,
    },
];

/// Nothing else listens there.
const PORT: u16 = 7777;

const ESC: Key = Key::Named(KeyCode::Esc);

/// The dashboard is drawn.
fn is_up(screen: &str) -> bool {
    screen.contains("1 Overview") && screen.contains("TCP socket")
}

/// Begins the dashboard, with the terminal's settings kept before and after it.
fn begin(terminal: &Tmux, arguments: &str) -> Result<()> {
    terminal.line(&format!(
        "stty -g > before; \"$LINGER\" watch {arguments}; echo \"ended $?\"; stty -g > after"
    ))?;
    terminal.until("dashboard", is_up)?;
    let (alternate, ..) = terminal.modes()?;
    ensure!(alternate, "it draws over what was on the terminal");
    Ok(())
}

/// The terminal is as it was before.
fn is_given_back(world: &World, terminal: &Tmux, code: &str) -> Result<()> {
    terminal.until(&format!("end with {code}"), |screen| {
        screen.contains(&format!("ended {code}"))
    })?;
    let modes = terminal.modes()?;
    ensure!(
        modes == (false, true, false),
        "alternate screen, cursor, mouse: {modes:?}"
    );
    let read = |name: &str| fs::read_to_string(world.scratch.path().join(name));
    terminal.line("echo so be it")?;
    terminal.until("echo", |screen| screen.contains("\nso be it"))?;
    let (before, after) = (read("before")?, read("after")?);
    ensure!(before == after, "stty: {before:?} became {after:?}");
    for name in ["before", "after"] {
        fs::remove_file(world.scratch.path().join(name))?;
    }
    terminal.line("clear")?;
    terminal.until("cleared screen", |screen| !screen.contains("ended"))?;
    Ok(())
}

/// Where a key counts is reached by these keys.
fn way_to(scope: Scope) -> &'static [Key] {
    match scope {
        Scope::Everywhere | Scope::Replay => &[Key::Char('1')],
        Scope::Moving | Scope::Sockets => &[Key::Char('3')],
        Scope::Machine => &[Key::Char('2')],
        Scope::Findings => &[Key::Char('4')],
        Scope::Typing => &[Key::Char('/'), Key::Char('s'), Key::Char('y')],
        Scope::Menu => &[Key::Char('3'), Key::Char('s')],
        Scope::Kill => &[Key::Char('3'), Key::Char('K')],
        Scope::Pager => &[Key::Char('?')],
    }
}

/// Closes whatever a key has opened, and goes to the last tab. A key that comes right behind an Esc would be another one
/// (with Alt), so each is seen to have been heard.
fn close(terminal: &Tmux) -> Result<()> {
    for _ in 0..20 {
        for _ in 0..3 {
            terminal.press(ESC)?;
            thread::sleep(Duration::from_millis(30));
        }
        terminal.press(Key::Char('5'))?;
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            let screen = terminal.screen()?;
            if screen.contains("▸5") && is_up(&screen) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    bail!(
        "what it opened is not closed again:\n{}",
        terminal.screen()?
    )
}

fn watch_answers_every_key(world: &mut World) -> Result<()> {
    let specimens = zoo(world, Family::V4)?;
    ensure!(specimens.len() > 8, "sockets in many states");
    let recording = world.scratch.path().join("a.linger");
    let file = recording.to_str().context("a path")?;
    // Several frames, so that there is somewhere to go.
    let record = ["record", "--interval", "200ms", "--for", "1s", file];
    ensure!(world.linger(&record)?.status.success());
    let terminal = Tmux::start(world, 80, 24)?;
    for (arguments, replay) in [("--interval 500ms", false), ("--from a.linger", true)] {
        begin(&terminal, arguments)?;
        let counts = |binding: &&Binding| (binding.scope == Scope::Replay) == replay;
        for binding in BINDINGS.iter().filter(counts) {
            // These end it, or stop it, and have tests of their own.
            if matches!(binding.action, Action::Quit | Action::Suspend) {
                continue;
            }
            for key in binding.keys {
                for step in way_to(binding.scope) {
                    terminal.press(*step)?;
                }
                terminal.press(*key)?;
                let said = format!("{:?} {key} ({})", binding.scope, binding.help);
                close(&terminal).with_context(|| said.clone())?;
                ensure!(terminal.command()? == "linger", "it ended by {said}");
            }
        }
        terminal.press(Key::Char('q'))?;
        is_given_back(world, &terminal, "0")?;
    }
    Ok(())
}

fn watch_fits_every_size(world: &mut World) -> Result<()> {
    let _specimens = zoo(world, Family::V4)?;
    let terminal = Tmux::start(world, 80, 24)?;
    begin(&terminal, "")?;
    for (columns, rows) in [(120, 40), (200, 50), (40, 10), (80, 24)] {
        terminal.resize(columns, rows)?;
        for tab in '1'..='5' {
            terminal.press(Key::Char(tab))?;
            let chosen = format!("▸{tab} ");
            let screen = terminal.until(&chosen, |screen| screen.contains(&chosen))?;
            let longest = screen.lines().map(|line| line.chars().count()).max();
            world.expect(longest <= Some(usize::from(columns)), || {
                format!("{columns}x{rows}:\n{screen}")
            });
        }
    }
    terminal.resize(30, 8)?;
    terminal.until("word that it is too small", |screen| {
        screen.contains("too small")
    })?;
    terminal.resize(80, 24)?;
    terminal.until("dashboard", is_up)?;
    terminal.press(Key::Ctrl('c'))?;
    is_given_back(world, &terminal, "0")
}

/// The pid of the dashboard on the terminal.
fn pid_of(terminal: &Tmux) -> Result<Pid> {
    let shell = terminal.ask(&["display-message", "-p", "#{pane_pid}"])?;
    let shell = shell.trim();
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        for child in children.split_whitespace() {
            let comm = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
            if comm.trim() == "linger" {
                return Pid::from_raw(child.parse()?).context("pid 0");
            }
        }
        ensure!(
            Instant::now() < until,
            "the shell has no child called linger"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

fn watch_ends_cleanly_by_signals(world: &mut World) -> Result<()> {
    let terminal = Tmux::start(world, 80, 24)?;
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        begin(&terminal, "")?;
        kill_process(pid_of(&terminal)?, signal)?;
        is_given_back(world, &terminal, "0").with_context(|| format!("{signal:?}"))?;
    }
    Ok(())
}

fn watch_comes_back_after_a_stop(world: &mut World) -> Result<()> {
    let terminal = Tmux::start(world, 80, 24)?;
    begin(&terminal, "")?;
    terminal.press(Key::Char('2'))?;
    terminal.until("second tab", |screen| screen.contains("▸2"))?;
    terminal.press(Key::Ctrl('z'))?;
    terminal.until("stop", |screen| screen.contains("Stopped"))?;
    let modes = terminal.modes()?;
    ensure!(
        modes == (false, true, false),
        "while it is stopped: {modes:?}"
    );
    terminal.resize(100, 30)?;
    terminal.line("fg")?;
    terminal.until("same tab", |screen| screen.contains("▸2"))?;
    ensure!(terminal.modes()?.0, "it takes the terminal again");
    // Stopped from outside, and woken up again.
    let pid = pid_of(&terminal)?;
    kill_process(pid, Signal::TSTP)?;
    terminal.until("stop", |screen| screen.contains("Stopped"))?;
    terminal.line("fg")?;
    terminal.until("same tab", |screen| screen.contains("▸2"))?;
    terminal.press(Key::Char('q'))?;
    terminal.until("shell", is_prompt)?;
    let modes = terminal.modes()?;
    ensure!(modes == (false, true, false), "at the end: {modes:?}");
    Ok(())
}

/// Takes the terminal, and panics on a thread other than the one that draws.
pub fn panicking() -> Result<()> {
    let _guard = Guard::take(true)?;
    #[expect(clippy::panic, reason = "a panic is what this is about")]
    let thread = thread::spawn(|| panic!("as the test wants"));
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("it has panicked"))?;
    Ok(())
}

fn watch_panics_cleanly(world: &mut World) -> Result<()> {
    let terminal = Tmux::start(world, 80, 24)?;
    let this = std::env::current_exe()?;
    let this = this.to_str().context("a path")?;
    terminal.line(&format!(
        "stty -g > before; {this} --panicking-child; echo \"ended $?\"; stty -g > after"
    ))?;
    let screen = terminal.until("panic", |screen| screen.contains("ended 101"))?;
    ensure!(
        screen.contains("as the test wants"),
        "what went wrong is said:\n{screen}"
    );
    is_given_back(world, &terminal, "101")
}

fn watch_ends_with_its_terminal(world: &mut World) -> Result<()> {
    let terminal = Tmux::start(world, 80, 24)?;
    terminal.ask(&["new-window", "exec bash --norc --noprofile -i"])?;
    terminal.until("shell", is_prompt)?;
    begin(&terminal, "")?;
    let pid = pid_of(&terminal)?.as_raw_nonzero();
    terminal.ask(&["kill-window"])?;
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("it goes on without a terminal: {stat}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn watch_prints_frames(world: &mut World) -> Result<()> {
    let _specimens = zoo(world, Family::V4)?;
    let run = |arguments: &[&str]| -> Result<(Option<i32>, String, String)> {
        let output = world
            .command(arguments)
            .env("COLUMNS", "100")
            .env("LINES", "30")
            .output()?;
        let text = |bytes| String::from_utf8(bytes);
        Ok((
            output.status.code(),
            text(output.stdout)?,
            text(output.stderr)?,
        ))
    };
    let (code, _, stderr) = run(&["watch"])?;
    ensure!(
        code == Some(1) && stderr.contains("--batch"),
        "no terminal: {code:?} {stderr}"
    );
    let (code, frame, _) = run(&["watch", "--once", "--interval", "200ms"])?;
    ensure!(code == Some(0) && is_up(&frame), "{frame}");
    ensure!(
        !frame.contains('\x1b') && frame.lines().count() <= 30,
        "{frame}"
    );
    let (_, frames, _) = run(&["watch", "--batch", "--count", "3", "--interval", "200ms"])?;
    ensure!(frames.matches("1 Overview").count() == 3, "{frames}");
    let (_, documents, _) = run(&[
        "watch",
        "--batch",
        "--count",
        "2",
        "--interval",
        "200ms",
        "--json",
    ])?;
    ensure!(documents.lines().count() == 2, "{documents}");
    for line in documents.lines() {
        let document: serde_json::Value = serde_json::from_str(line)?;
        let faults = crate::schema::faults(&document);
        ensure!(faults.is_empty(), "{faults:?}");
        let schema = document.get("schema").and_then(|schema| schema.as_str());
        ensure!(schema == Some("linger.status/1"), "{document}");
    }
    // A reader who has seen enough is no failure.
    let mut child = world
        .command(&["watch", "--batch", "--interval", "100ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    drop(child.stdout.take());
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    std::io::stdout().flush()?;
    Ok(())
}

fn watch_replays(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(PORT), 64)?;
    let recording = world.scratch.path().join("a.linger");
    let file = recording.to_str().context("a path")?;
    // A connection more in each frame, as the recording says itself.
    let mut recorder = world
        .command(&["record", "--interval", "300ms", "--for", "3s", file])
        .stdout(Stdio::null())
        .spawn()?;
    let mut kept = Vec::new();
    for _ in 0..6 {
        thread::sleep(Duration::from_millis(500));
        kept.push(world.serve(&listener)?);
    }
    ensure!(recorder.wait()?.success(), "it records");
    let terminal = Tmux::start(world, 100, 30)?;
    begin(&terminal, "--from a.linger")?;
    let frame = |number: usize| format!("frame {number} of 11");
    // It plays by itself to the end.
    terminal.until("last frame", |screen| screen.contains(&frame(11)))?;
    for (key, number) in [('{', 1), ('.', 2), ('.', 3), (',', 2), ('}', 11)] {
        terminal.press(Key::Char(key))?;
        terminal.until(&frame(number), |screen| {
            screen.contains(&frame(number)) && screen.contains("standing")
        })?;
    }
    let sockets = |screen: &str| -> Option<u64> {
        let (before, _) = screen.split_once(" TCP socket")?;
        before.rsplit(' ').next()?.parse().ok()
    };
    let last = sockets(&terminal.screen()?);
    terminal.press(Key::Char('t'))?;
    terminal.line("1")?;
    let first = sockets(&terminal.until("first frame", |screen| screen.contains(&frame(1)))?);
    ensure!(
        first < last,
        "sockets in the first and the last frame: {first:?}, {last:?}"
    );
    terminal.press(Key::Char('3'))?;
    terminal.press(Key::Char('K'))?;
    terminal.until("refusal", |screen| screen.contains("cannot be destroyed"))?;
    terminal.press(Key::Char('q'))?;
    is_given_back(world, &terminal, "0")
}

fn watch_kills_what_was_shown(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(PORT), 64)?;
    let (doomed, spared) = (world.serve(&listener)?, world.serve(&listener)?);
    let port = doomed
        .near
        .peer_addr()?
        .as_socket()
        .context("an address")?
        .port();
    let terminal = Tmux::start(world, 120, 40)?;
    begin(&terminal, &format!("dport = :{port}"))?;
    terminal.until("its socket", |screen| screen.contains("1 of 3 sockets"))?;
    terminal.press(Key::Char('K'))?;
    terminal.until("question", |screen| {
        screen.contains("nothing has been touched")
    })?;
    terminal.press(Key::Named(KeyCode::Enter))?;
    terminal.press(ESC)?;
    terminal.until("table", |screen| screen.contains("1 of 3 sockets"))?;
    ensure!(doomed.near.take_error()?.is_none(), "nobody said yes");
    terminal.press(Key::Char('K'))?;
    terminal.until("question", |screen| screen.contains("type yes"))?;
    terminal.line("yes")?;
    terminal.until("report", |screen| {
        screen.contains("destroyed") && screen.contains("closes")
    })?;
    let error = doomed.near.take_error()?.context("it lives")?;
    ensure!(error.raw_os_error() == Some(libc::ECONNABORTED), "{error}");
    ensure!(
        spared.near.take_error()?.is_none(),
        "the other one is left alone"
    );
    terminal.press(ESC)?;
    terminal.until("empty table", |screen| screen.contains("0 of 2 sockets"))?;
    // What is seen is exported, and never over a file.
    for word in ["written", "exists"] {
        terminal.press(Key::Char('e'))?;
        terminal.press(Key::Ctrl('u'))?;
        terminal.line("seen.json")?;
        terminal.until(word, |screen| screen.contains(word))?;
    }
    let document: serde_json::Value =
        serde_json::from_slice(&fs::read(world.scratch.path().join("seen.json"))?)?;
    let faults = crate::schema::faults(&document);
    ensure!(faults.is_empty(), "{faults:?}");
    terminal.press(Key::Char('q'))?;
    is_given_back(world, &terminal, "0")
}

fn watch_looks_into_every_namespace(world: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(PORT), 64)?;
    let _near = world.serve(&listener)?;
    let terminal = Tmux::start(world, 160, 40)?;
    begin(
        &terminal,
        &format!("--netns all state established port = {PORT}"),
    )?;
    // Both ends, each in its own namespace.
    terminal.until("both ends", |screen| {
        screen.contains("namespaces") && screen.matches(&format!(":{PORT}")).count() >= 2
    })?;
    for tab in '1'..='5' {
        terminal.press(Key::Char(tab))?;
        terminal.until("tab", |screen| screen.contains(&format!("▸{tab}")))?;
    }
    terminal.press(Key::Char('q'))?;
    is_given_back(world, &terminal, "0")
}
