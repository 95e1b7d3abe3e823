//! A real terminal: tmux, whose screen and state can be asked for.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use linger::tui::keys::Key;
use ratatui::crossterm::event::KeyCode;

use crate::harness::Skip;
use crate::world::{World, program};

/// A shell on a terminal of its own, in the namespace of the test.
pub struct Tmux {
    socket: PathBuf,
    server: Child,
}

/// How long a screen may take to show something, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);

impl Tmux {
    /// A shell without a prompt of anybody's own. `$LINGER` is the program.
    pub fn start(world: &World, columns: u16, rows: u16) -> Result<Self> {
        let socket = world.scratch.path().join("tmux");
        if Command::new("tmux").arg("-V").output().is_err() {
            return Err(Skip("no tmux: apt-get install tmux".to_owned()).into());
        }
        let server = Command::new("tmux")
            .arg("-S")
            .arg(&socket)
            .args(["-f", "/dev/null", "-D"])
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", world.scratch.path())
            .env("XDG_CONFIG_HOME", world.scratch.path())
            .env("XDG_STATE_HOME", world.scratch.path())
            .env("TZ", "UTC")
            .env("PS1", "$ ")
            .env("ENV", "")
            .env("LINGER", program())
            .env_remove("TMUX")
            .env_remove("NO_COLOR")
            .env_remove("CLICOLOR_FORCE")
            .current_dir(world.scratch.path())
            .stdin(Stdio::null())
            .spawn()
            .context("cannot run tmux")?;
        let terminal = Self { socket, server };
        let until = Instant::now() + PATIENCE;
        while !terminal.socket.exists() {
            ensure!(Instant::now() < until, "tmux does not begin");
            thread::sleep(Duration::from_millis(20));
        }
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let scratch = world.scratch.path().to_str().context("a path")?;
        terminal.ask(&[
            "new-session",
            "-d",
            "-c",
            scratch,
            "-x",
            &columns,
            "-y",
            &rows,
            "exec bash --norc --noprofile -i",
        ])?;
        terminal.until("shell", is_prompt)?;
        Ok(terminal)
    }

    /// Runs a command of tmux.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(&self.socket)
            .args(words)
            .output()?;
        ensure!(
            output.status.success(),
            "tmux {words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What is on the screen.
    pub fn screen(&self) -> Result<String> {
        self.ask(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as wanted.
    pub fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen()?;
            if holds(&screen) {
                return Ok(screen);
            }
            if Instant::now() > until {
                bail!("no {what} on the screen:\n{screen}");
            }
            thread::sleep(Duration::from_millis(30));
        }
    }

    /// Types text, as it is.
    pub fn text(&self, text: &str) -> Result<()> {
        self.ask(&["send-keys", "-l", "--", text]).map(drop)
    }

    /// Types a line of a shell.
    pub fn line(&self, text: &str) -> Result<()> {
        self.text(text)?;
        self.press(Key::Named(KeyCode::Enter))
    }

    /// Presses a key.
    pub fn press(&self, key: Key) -> Result<()> {
        let name = match key {
            Key::Char(c) => return self.text(&c.to_string()),
            Key::Ctrl(c) => format!("C-{c}"),
            Key::Named(code) => match code {
                KeyCode::Up => "Up",
                KeyCode::Down => "Down",
                KeyCode::Left => "Left",
                KeyCode::Right => "Right",
                KeyCode::PageUp => "PPage",
                KeyCode::PageDown => "NPage",
                KeyCode::Home => "Home",
                KeyCode::End => "End",
                KeyCode::Enter => "Enter",
                KeyCode::Esc => "Escape",
                KeyCode::Tab => "Tab",
                KeyCode::BackTab => "BTab",
                KeyCode::Backspace => "BSpace",
                KeyCode::Delete => "DC",
                KeyCode::F(1) => "F1",
                other => bail!("tmux has no name for {other:?}"),
            }
            .to_owned(),
        };
        self.ask(&["send-keys", &name]).map(drop)
    }

    /// Whether the screen is the one beside the usual one, the cursor is shown, and the mouse is somebody's.
    pub fn modes(&self) -> Result<(bool, bool, bool)> {
        let text = self.ask(&[
            "display-message",
            "-p",
            "#{alternate_on} #{cursor_flag} #{mouse_any_flag}",
        ])?;
        let flags: Vec<bool> = text.split_whitespace().map(|flag| flag == "1").collect();
        let [alternate, cursor, mouse] = flags[..] else {
            bail!("tmux says {text:?}");
        };
        Ok((alternate, cursor, mouse))
    }

    /// The process in the foreground of the terminal.
    pub fn command(&self) -> Result<String> {
        let text = self.ask(&["display-message", "-p", "#{pane_current_command}"])?;
        Ok(text.trim().to_owned())
    }

    /// Gives the terminal another size.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.ask(&["resize-window", "-x", &columns, "-y", &rows])
            .map(drop)
    }
}

/// Whether a shell waits for a line.
pub fn is_prompt(screen: &str) -> bool {
    screen.trim_end().ends_with(['$', '#'])
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.ask(&["kill-server"]).ok();
        self.server.kill().ok();
        self.server.wait().ok();
    }
}
