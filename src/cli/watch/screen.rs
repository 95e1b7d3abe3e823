//! The dashboard on a terminal: what comes in, what has to be done, what is drawn.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::{Backend, ClearType, CrosstermBackend};
use ratatui::crossterm::event::{self, Event as Said};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::Args;
use super::looker::{self, Order};
use super::{Event, begin, effects, setup};
use crate::analyze::Settings;
use crate::cli::failure::Failure;
use crate::cli::terminal;
use crate::query::Filter;
use crate::tui::guard::Guard;
use crate::tui::{self, App, Effect, Msg};

/// Events that may wait to be seen. A look waits alone: the next one is taken only when it was seen.
const WAITING: usize = 64;

/// How soon it is noticed that the terminal was closed, where no signal says so.
const NOTICED: Duration = Duration::from_secs(1);

/// Whether somebody is at the other end of the terminal.
fn is_open() -> bool {
    // Keys come from the terminal itself where standard input is none.
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let end = if stdin.is_terminal() {
        stdin.as_fd()
    } else {
        stdout.as_fd()
    };
    let mut ends = [PollFd::from_borrowed_fd(end, PollFlags::empty())];
    // What cannot be asked is asked again.
    poll(&mut ends, Some(&Timespec::default())).is_err()
        || !ends
            .iter()
            .any(|end| end.revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

/// Runs the dashboard until it is left.
///
/// # Errors
/// When what is to be looked at cannot be opened, and when the terminal fails.
pub fn run(args: &Args, settings: Settings, filter: Filter) -> Result<(), Failure> {
    let (events, happened) = sync_channel(WAITING);
    let asked = looker::Setup {
        common: args.common.clone(),
        settings,
        owners: !args.no_owners,
        interval: args.interval,
        past: (args.select.clone(), args.past.clone()),
    };
    let (orders, replay) = looker::start(asked, events.clone())?;
    let size = ratatui::crossterm::terminal::size()?;
    let colour = terminal::screen(args.common.color).paint.0;
    let mut app = App::new(setup(args, size, colour, replay));
    let first = begin(&mut app, args, filter)?;
    listen(&events)?;
    let guard = Guard::take(!args.no_mouse)?;
    let mut screen = Screen {
        args,
        app,
        terminal: Terminal::new(CrosstermBackend::new(io::stdout()))?,
        orders,
        events,
        guard,
        works: Vec::new(),
    };
    screen.carry_out(first)?;
    let ended = screen.run(&happened);
    drop(happened);
    // A kill or a capture that has begun is not left half done; a name server that does not answer is.
    screen.guard.lend();
    for work in screen.works {
        let _ = work.join();
    }
    ended
}

/// Hears the terminal and signals, each on a thread of its own.
fn listen(events: &SyncSender<Event>) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::failed(format!("cannot listen to signals: {error}"), None);
    let mut signals =
        Signals::new([SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGCONT]).map_err(failed)?;
    let heard = events.clone();
    let hear = move || {
        let _last = LastWord(heard.clone(), true);
        for signal in signals.forever() {
            if heard.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(hear)
        .map_err(failed)?;
    let heard = events.clone();
    let hear = move || {
        let _last = LastWord(heard.clone(), true);
        loop {
            let event = match event::poll(NOTICED) {
                Ok(true) => event::read().map_or(Event::Deaf, Event::Terminal),
                Ok(false) if is_open() => continue,
                _ => Event::Deaf,
            };
            let deaf = matches!(event, Event::Deaf);
            if heard.send(event).is_err() || deaf {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("terminal".to_owned())
        .spawn(hear)
        .map_err(failed)?;
    Ok(())
}

struct Screen<'a> {
    args: &'a Args,
    app: App,
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
    orders: Sender<Order>,
    events: SyncSender<Event>,
    guard: Guard,
    /// what is done beside
    works: Vec<JoinHandle<()>>,
}

/// Says that a thread has ended that had better not, as after a panic, to whoever would wait for it.
pub struct LastWord(pub SyncSender<Event>, pub bool);

impl LastWord {
    /// Sends what there is to say, and nothing at the end.
    fn quietly(mut self, event: Event) {
        self.1 = false;
        let _ = self.0.send(event);
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        if self.1 {
            let _ = self.0.try_send(Event::Broken);
        }
    }
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Go {
    On,
    Away,
}

impl Screen<'_> {
    fn run(&mut self, happened: &Receiver<Event>) -> Result<(), Failure> {
        self.draw()?;
        loop {
            let Ok(event) = happened.recv() else {
                return Ok(());
            };
            // What has come in meanwhile is drawn at once.
            let mut next = Some(event);
            while let Some(event) = next {
                if self.hear(event)? == Go::Away {
                    return Ok(());
                }
                next = happened.try_recv().ok();
            }
            self.draw()?;
        }
    }

    fn draw(&mut self) -> Result<(), Failure> {
        let app = &self.app;
        self.terminal.draw(|frame| {
            if let Some(cursor) = tui::draw(app, frame.buffer_mut()) {
                frame.set_cursor_position(cursor);
            }
        })?;
        Ok(())
    }

    fn hear(&mut self, event: Event) -> Result<Go, Failure> {
        let msg = match event {
            Event::Terminal(Said::Key(key)) => Msg::Key(key),
            Event::Terminal(Said::Mouse(mouse)) => Msg::Mouse(mouse),
            Event::Terminal(Said::Paste(text)) => Msg::Paste(text),
            Event::Terminal(Said::Resize(columns, rows)) => Msg::Resize(columns, rows),
            Event::Terminal(_) => return Ok(Go::On),
            Event::Deaf => return Ok(Go::Away),
            Event::Signal(SIGTSTP) => {
                self.suspend()?;
                return Ok(Go::On);
            }
            // A shell may have used the terminal meanwhile.
            Event::Signal(SIGCONT) => {
                self.again()?;
                return Ok(Go::On);
            }
            Event::Signal(_) => return Ok(Go::Away),
            Event::Broken => {
                return Err(Failure::failed(
                    "a thread of the dashboard has ended unexpectedly",
                    None,
                ));
            }
            Event::Msg(msg) => msg,
        };
        let look = matches!(msg, Msg::Look(_));
        let effects = self.app.update(msg);
        if look {
            self.tell(Order::Seen);
        }
        self.carry_out(effects)
    }

    fn tell(&self, order: Order) {
        // Where nobody looks any more, that was or will be said.
        let _ = self.orders.send(order);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> Result<Go, Failure> {
        for effect in effects {
            match effect {
                Effect::Quit => return Ok(Go::Away),
                Effect::Suspend => self.suspend()?,
                Effect::Redraw => self.clear()?,
                Effect::LookNow => self.tell(Order::Now),
                Effect::Interval(interval) => self.tell(Order::Interval(interval)),
                Effect::Wish(wish) => self.tell(Order::Wish(wish)),
                Effect::Seek(seek) => self.tell(Order::Seek(seek)),
                Effect::Play(playing) => self.tell(Order::Play(playing)),
                Effect::Speed(speed) => self.tell(Order::Speed(speed)),
                Effect::Resolve { text, filter } => {
                    let common = self.args.common.clone();
                    self.beside(false, move || {
                        let filter = effects::resolve(&common, filter)
                            .map_err(|failure| failure.to_string());
                        Msg::Resolved { text, filter }
                    });
                }
                Effect::Kill(doomed) => {
                    let common = self.args.common.clone();
                    let width = self.app.columns();
                    self.beside(true, move || {
                        Msg::Killed(Ok(effects::kill(&common, &doomed, width)))
                    });
                }
                Effect::Export(path) => {
                    if effects::is_capture(&path) {
                        let common = self.args.common.clone();
                        self.beside(true, move || {
                            Msg::Exported(effects::capture(&common, &path))
                        });
                    } else {
                        let exported = effects::view(&self.args.common, &self.app, &path);
                        let more = self.app.update(Msg::Exported(exported));
                        self.carry_out(more)?;
                    }
                }
            }
        }
        Ok(Go::On)
    }

    /// Does what may take a while on a thread of its own: a name server, or the kernel; `waited`: the end waits for it.
    fn beside(&mut self, waited: bool, work: impl FnOnce() -> Msg + Send + 'static) {
        let events = self.events.clone();
        let thread = thread::Builder::new().name("beside".to_owned());
        let begun = thread.spawn(move || {
            let last = LastWord(events, true);
            let done = work();
            last.quietly(Event::Msg(done));
        });
        match begun {
            Ok(work) if waited => self.works.push(work),
            Ok(_) => {}
            Err(error) => {
                let wrong = format!("cannot start a thread: {error}");
                self.app.update(Msg::Exported(Err(wrong)));
            }
        }
    }

    /// Stops until somebody says `fg`.
    fn suspend(&mut self) -> Result<(), Failure> {
        self.guard.lend();
        emulate_default_handler(SIGTSTP)?;
        self.again()
    }

    fn again(&mut self) -> Result<(), Failure> {
        self.guard.again()?;
        // It may have another size now, and what is on it is not ours.
        let (columns, rows) = ratatui::crossterm::terminal::size()?;
        self.app.update(Msg::Resize(columns, rows));
        self.clear()
    }

    /// Forgets what is on the terminal. ([`Terminal::clear`] asks the terminal for its cursor, and the answer is heard by
    /// another thread.)
    fn clear(&mut self) -> Result<(), Failure> {
        let mut backend = CrosstermBackend::new(io::stdout());
        backend.clear_region(ClearType::All)?;
        self.terminal = Terminal::new(backend)?;
        Ok(())
    }
}
