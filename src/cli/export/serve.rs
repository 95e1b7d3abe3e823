//! The server: who comes in, how many, for how long, and how it ends.
//!
//! No client can hold it. A connection has so much time for each thing that it does, a header has so much room, and where
//! there are as many connections as there may be, the one that has done nothing useful for the longest gives way.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::answer::{Site, close_behind};
use super::args::{ADDRESS, Args};
use super::collector::Read;
use super::collector::{Collector, ended_early};
use super::connection::{Connection, Phase, Watched};
use super::scrape::{Scraper, Setup};
use super::{Said, listen, notify, say};
use crate::cli::failure::Failure;
use crate::cli::source;

/// Connections at a time.
const MOST: usize = 64;

/// The longest header of a request, in bytes, its first line included.
const HEADER: usize = 16 * 1024;

/// A connection that came just now may have sent its request already, and is not ended for another.
const GRACE: Duration = Duration::from_millis(100);

/// How often is looked for connections that have had their time.
const TICK: Duration = Duration::from_millis(500);

/// How soon is looked again where one waits for another to end.
const SOON: Duration = Duration::from_millis(10);

/// The time between two attempts where connections cannot be taken.
const REFUSED: Duration = Duration::from_millis(200);

/// How often that is said.
const COMPLAINS: Duration = Duration::from_secs(60);

/// How long answers may take that are on their way when the end comes.
const FAREWELL: Duration = Duration::from_secs(2);

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// somebody has connected
    Came(TcpStream),
    /// nobody can connect
    Refused(io::Error),
    /// it is time to end
    Signal,
    /// the thread that reads the machine is no more
    Broken,
    /// the machine can be read, or why not
    Open(Result<(Vec<TcpListener>, Collector), Failure>),
}

/// Serves until a signal comes.
///
/// # Errors
/// When there is nowhere to listen, when the machine cannot be opened, and when the thread that reads it ends.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (events, mut happened) = mpsc::channel(1);
    // Whoever starts this may end it at once, however long names and the first look take.
    hear(events.clone())?;
    let (own, heard) = (args.clone(), events.clone());
    let begin = move || {
        let begun = begin(&own, heard.clone());
        drop(heard.blocking_send(Event::Open(begun)));
    };
    thread::Builder::new()
        .name("start".to_owned())
        .spawn(begin)
        .map_err(|error| Failure::failed(format!("cannot start a thread: {error}"), None))?;
    loop {
        match happened.blocking_recv() {
            Some(Event::Open(begun)) => {
                let (listeners, collector) = begun?;
                return serve(args, listeners, collector, events, happened);
            }
            Some(Event::Signal) => return Ok(()),
            // Why it is no more is yet to come.
            Some(_) => {}
            None => return Err(ended_early()),
        }
    }
}

/// Listens, and looks for the first time.
fn begin(
    args: &Args,
    broken: mpsc::Sender<Event>,
) -> Result<(Vec<TcpListener>, Collector), Failure> {
    let setup = Setup::new(args)?;
    let mut listeners = Vec::new();
    let unless_told = [ADDRESS.to_owned()];
    let asked = match &args.listen[..] {
        [] => &unless_told[..],
        asked => asked,
    };
    for text in asked {
        listeners.append(&mut listen::open(text)?);
    }
    let collector = Collector::start(
        move || opened(setup),
        move || drop(broken.blocking_send(Event::Broken)),
    )?;
    Ok((listeners, collector))
}

/// A machine that is read again and again.
struct Reader {
    scraper: Scraper,
    said: Said,
    /// what was said of the history
    notes: Vec<String>,
}

impl Read for Reader {
    fn read(&mut self) -> String {
        let scraped = self.scraper.scrape();
        self.said.say(&scraped);
        scraped.text
    }

    fn rest(&mut self) {
        let notes = self.scraper.rest();
        if notes != self.notes {
            source::notes(notes);
            self.notes = notes.to_vec();
        }
    }
}

/// Opens the machine and looks once, so that the first scrape has something to compare with.
fn opened(setup: Setup) -> Result<Reader, Failure> {
    let mut scraper = Scraper::open(setup)?;
    let mut said = Said::default();
    let first = scraper.scrape();
    source::notes(&first.notes);
    said.say(&first);
    let mut reader = Reader {
        scraper,
        said,
        notes: Vec::new(),
    };
    reader.rest();
    Ok(reader)
}

/// Hears signals, on a thread of its own. Others than these do what they do to any program.
fn hear(events: mpsc::Sender<Event>) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::failed(format!("cannot listen to signals: {error}"), None);
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(failed)?;
    let hear = move || {
        for _ in signals.forever() {
            if events.blocking_send(Event::Signal).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(hear)
        .map_err(failed)?;
    Ok(())
}

fn serve(
    args: &Args,
    listeners: Vec<TcpListener>,
    collector: Collector,
    events: mpsc::Sender<Event>,
    happened: mpsc::Receiver<Event>,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(format!("cannot serve: {error}"), None);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(failed)?;
    let ended = runtime.block_on(async {
        let mut doors = Vec::new();
        for listener in listeners {
            let address = listener.local_addr().map_err(failed)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
            doors.push(tokio::spawn(take(listener, events.clone())));
            say(format_args!(
                "linger: listening on {}",
                url(address, &args.path)
            ));
        }
        notify(NotifyState::Ready);
        let server = Server {
            site: Site::new(&args.path, collector),
            connections: Vec::new(),
            complained: None,
            end: watch::channel(()).0,
        };
        server.run(happened, &doors).await
    });
    // A reading that hangs is not waited for.
    runtime.shutdown_background();
    ended
}

/// The address as a browser takes it.
fn url(address: SocketAddr, path: &str) -> String {
    format!("http://{address}{path}")
}

/// Takes connections, one at a time: each is seen to before the next one.
async fn take(listener: tokio::net::TcpListener, events: mpsc::Sender<Event>) {
    loop {
        let event = match listener.accept().await {
            Ok((stream, _)) => Event::Came(stream),
            // It was gone before it was taken.
            Err(error) if is_theirs(&error) => continue,
            Err(error) => Event::Refused(error),
        };
        let refused = matches!(event, Event::Refused(_));
        if events.send(event).await.is_err() {
            return;
        }
        if refused {
            tokio::time::sleep(REFUSED).await;
        }
        tokio::task::yield_now().await;
    }
}

fn is_theirs(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// A connection that is served.
struct Served {
    watched: Watched,
    came: Instant,
    task: JoinHandle<()>,
}

struct Server {
    site: Site,
    connections: Vec<Served>,
    complained: Option<Instant>,
    /// drops when everything ends
    end: watch::Sender<()>,
}

impl Server {
    async fn run(
        mut self,
        mut happened: mpsc::Receiver<Event>,
        doors: &[JoinHandle<()>],
    ) -> Result<(), Failure> {
        loop {
            let event = if self.connections.is_empty() {
                happened.recv().await
            } else {
                let Ok(event) = tokio::time::timeout(TICK, happened.recv()).await else {
                    self.sweep();
                    continue;
                };
                event
            };
            match event {
                Some(Event::Came(stream)) => self.welcome(stream).await,
                Some(Event::Refused(error)) => self.refused(&error),
                Some(Event::Signal) | None => break,
                Some(Event::Broken) => return Err(ended_early()),
                Some(Event::Open(_)) => {}
            }
        }
        notify(NotifyState::Stopping);
        doors.iter().for_each(JoinHandle::abort);
        self.farewell().await;
        Ok(())
    }

    /// Ends what has had its time, and forgets what has ended.
    fn sweep(&mut self) {
        let now = Instant::now();
        self.connections.retain(|served| {
            if served.watched.is_late(now) {
                served.task.abort();
                return false;
            }
            !served.task.is_finished()
        });
    }

    /// Serves a connection as soon as there is room. Others wait in the kernel meanwhile.
    async fn welcome(&mut self, stream: TcpStream) {
        while self.connections.len() >= MOST {
            self.sweep();
            if self.connections.len() >= MOST && !self.make_room() {
                tokio::time::sleep(SOON).await;
            }
        }
        let watched = Watched::new();
        let connection = Connection {
            stream,
            watched: watched.clone(),
        };
        let task = tokio::spawn(converse(
            connection,
            self.site.clone(),
            self.end.subscribe(),
        ));
        self.connections.push(Served {
            watched,
            came: Instant::now(),
            task,
        });
    }

    /// Ends the connection that does the least for the longest. One that waits for metrics is never ended for another,
    /// because that is what this is for, and because it will not wait for long.
    fn make_room(&mut self) -> bool {
        let now = Instant::now();
        let idle = self
            .connections
            .iter()
            .enumerate()
            .filter_map(|(at, served)| {
                let (phase, since) = served.watched.phase();
                let spared = now.saturating_duration_since(served.came) < GRACE;
                (phase != Phase::Waiting && !spared).then_some((since, at))
            });
        let Some((_, at)) = idle.min() else {
            return false;
        };
        self.connections.swap_remove(at).task.abort();
        true
    }

    /// Nobody can connect, most likely for want of descriptors.
    fn refused(&mut self, error: &io::Error) {
        self.sweep();
        self.make_room();
        let now = Instant::now();
        let quiet = self
            .complained
            .is_some_and(|last| now.saturating_duration_since(last) < COMPLAINS);
        if !quiet {
            say(format_args!("linger: cannot take connections: {error}"));
            self.complained = Some(now);
        }
    }

    /// Lets answers end that are on their way, for a while.
    async fn farewell(mut self) {
        let until = Instant::now() + FAREWELL;
        drop(self.end);
        while Instant::now() < until {
            self.connections.retain(|served| {
                let busy = matches!(served.watched.phase().0, Phase::Waiting | Phase::Writing);
                busy && !served.task.is_finished()
            });
            if self.connections.is_empty() {
                return;
            }
            tokio::time::sleep(SOON).await;
        }
    }
}

/// Serves the requests of a connection, until it or everything ends.
async fn converse(connection: Connection, site: Site, mut end: watch::Receiver<()>) {
    let watched = connection.watched.clone();
    let service = service_fn(move |request| {
        let (site, watched) = (site.clone(), watched.clone());
        // Sent before the answer to the one before it was there. Nobody who means well does, and thousands of questions that
        // are there at once would keep others waiting.
        let pipelined = watched.phase().0 != Phase::Reading;
        watched.enter(Phase::Waiting);
        async move {
            let mut answer = site.answer(&request).await;
            if pipelined {
                close_behind(&mut answer);
            }
            watched.enter(Phase::Writing);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut server = http1::Builder::new();
    server
        .max_buf_size(HEADER)
        // Time is kept by the phase of the connection.
        .header_read_timeout(None);
    let mut serving = pin!(server.serve_connection(TokioIo::new(connection), service));
    let mut ending = pin!(async move { while end.changed().await.is_ok() {} });
    let mut ended = false;
    // A client that breaks the rules, or off, is its own affair.
    let _ = poll_fn(|context| {
        if !ended && ending.as_mut().poll(context).is_ready() {
            ended = true;
            serving.as_mut().graceful_shutdown();
        }
        serving.as_mut().poll(context)
    })
    .await;
}
