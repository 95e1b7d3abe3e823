//! The sockets of every namespace as one stream of rows, one namespace after the other.
//!
//! Worker threads enter the namespaces and hand over what the kernel sends, as it comes; the calling thread decodes it
//! in the order of the namespaces. A worker may run ahead by a few datagrams of its namespace, and the workers by a few
//! namespaces: so memory is bounded, and the walks of many small namespaces go on beside the reading of a large one.

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use rustc_hash::FxHashMap;

use super::{Error, Found, Handle, Traveller, all, sparse, unseen};
use crate::collect::live::{Choice, Live};
use crate::collect::netlink::Stream;
use crate::collect::procfs::{ProcRoot, Procfs, facts};
use crate::collect::{self, Row, RowSink, Source, Table, Want, names};
use crate::model::{AgeFacts, Collector, Coverage, Cpu, Facts, Host, Looked, Namespace, Owners};

/// More than this many threads only wait for each other's locks.
const WORKERS: usize = 8;
/// Namespaces that workers may be ahead of the one that is read.
const AHEAD: usize = 32;
/// Datagrams of one namespace that may wait.
const WAITING: usize = 4;

/// What is known of a namespace beside its rows.
#[derive(Debug, Default)]
struct Details {
    interfaces: FxHashMap<u32, String>,
    ages: AgeFacts,
}

/// The namespaces that the rows of a source are of, in the order in which [`crate::model::Socket::netns`] counts them.
#[derive(Debug, Default)]
pub struct Namespaces {
    all: Vec<Namespace>,
    details: Vec<OnceCell<Details>>,
    /// whether what was asked for was seen, as far as it was read
    complete: Vec<Cell<bool>>,
}

impl Details {
    /// Of the namespace that the calling thread is in.
    fn read(root: &ProcRoot, want: &Want) -> Self {
        Self {
            interfaces: names::interfaces(),
            ages: if want.tcp_info {
                facts::ages(root)
            } else {
                AgeFacts::default()
            },
        }
    }
}

impl Namespaces {
    fn new(all: Vec<Namespace>) -> Self {
        Self {
            details: all.iter().map(|_| OnceCell::new()).collect(),
            complete: all.iter().map(|_| Cell::new(true)).collect(),
            all,
        }
    }

    /// The namespace with the number.
    pub fn get(&self, number: u16) -> Option<&Namespace> {
        self.all.get(usize::from(number))
    }

    /// The name of an interface of a namespace, once rows of it were read.
    pub fn interface(&self, number: u16, index: u32) -> Option<&str> {
        let details = self.details.get(usize::from(number))?.get()?;
        details.interfaces.get(&index).map(String::as_str)
    }

    /// The settings that ages depend on in a namespace, once rows of it were read with `tcp_info`.
    pub fn ages(&self, number: u16) -> Option<&AgeFacts> {
        Some(&self.details.get(usize::from(number))?.get()?.ages)
    }

    /// Each with whether it was seen whole.
    pub fn looked(&self) -> Vec<Looked> {
        let all = self.all.iter().zip(&self.complete);
        all.map(|(namespace, complete)| Looked {
            namespace: namespace.clone(),
            complete: complete.get(),
        })
        .collect()
    }
}

/// What a worker hands over.
enum Part {
    /// before the first rows
    Details(Details),
    /// of a netlink dump
    Datagram(Vec<u8>),
    /// the end
    End(Result<Coverage, Failed>),
}

/// Why a namespace was not read.
enum Failed {
    /// it could not be entered
    Outside(Error),
    /// the kernel has no `sock_diag` for us, and no row was handed over
    NoSockDiag(String),
    /// reading failed
    Inside(collect::Error),
}

/// Takes how the reading of a namespace ended, and where rows go if it has to be read once more.
type Each<'e> = dyn FnMut(&Found, u16, Result<Coverage, Failed>, &mut RowSink<'_>) + 'e;

/// A namespace that a worker is to read.
struct Job<'f> {
    found: &'f Found,
    parts: mpsc::SyncSender<Part>,
}

/// What all workers know.
struct Crew<'c> {
    home: &'c Handle,
    root: &'c ProcRoot,
    want: &'c Want,
    /// buffers that were used and will be again
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Crew<'_> {
    /// Reads the namespaces of one job after the other.
    fn work(&self, todo: &Mutex<mpsc::Receiver<Job<'_>>>) {
        let traveller = Traveller::new(self.home);
        loop {
            let job = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else {
                return;
            };
            let end = self.dump(&traveller, &job);
            // Nobody waits for it if no more rows are wanted.
            drop(job.parts.send(Part::End(end)));
        }
    }

    fn dump(&self, traveller: &Traveller<&Handle>, job: &Job<'_>) -> Result<Coverage, Failed> {
        traveller.go(job.found).map_err(Failed::Outside)?;
        let mut live = Live::new(Choice::Netlink, self.root.clone());
        let (begun, unwanted) = (Cell::new(false), Cell::new(false));
        // A refusal is a datagram too: only a row that went before it forbids to read the namespace once more.
        let seen = Cell::new(false);
        let hand_over = |part| {
            if job.parts.send(part).is_err() {
                unwanted.set(true);
            }
        };
        let mut tee = |_: Collector, _: Table, bytes: &[u8]| {
            if !begun.replace(true) {
                hand_over(Part::Details(Details::read(self.root, self.want)));
            }
            let mut datagram = self.buffer();
            datagram.extend_from_slice(bytes);
            hand_over(Part::Datagram(datagram));
        };
        let mut row = |_: Row<'_>| {
            seen.set(true);
            match unwanted.get() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let dumped = sparse::dump(&mut live, self.root, self.want, &mut row, Some(&mut tee));
        dumped.map_err(|error| match error {
            collect::Error::NoSockDiag(why) if !seen.get() => Failed::NoSockDiag(why),
            error => Failed::Inside(error),
        })
    }

    fn buffer(&self) -> Vec<u8> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.pop().unwrap_or_default()
    }

    fn reuse(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < WAITING * WORKERS {
            spare.push(buffer);
        }
    }
}

/// Every network namespace of this machine.
#[derive(Debug)]
pub struct Everywhere {
    choice: Choice,
    root: ProcRoot,
    home: Handle,
    found: Vec<Found>,
    gaps: Vec<String>,
    namespaces: Rc<Namespaces>,
    procfs: Procfs,
}

impl Everywhere {
    /// Finds the namespaces; none is entered yet.
    ///
    /// # Errors
    /// When our own is not known.
    pub fn new(choice: Choice, root: ProcRoot) -> Result<Self, Error> {
        let home = Handle::own()?;
        let root = root.entered();
        let (found, gaps) = all(&root, &home);
        Ok(Self {
            choice,
            namespaces: Rc::new(Namespaces::new(
                found.iter().map(|found| found.namespace.clone()).collect(),
            )),
            procfs: Procfs::new(root.clone()),
            root,
            home,
            found,
            gaps,
        })
    }

    /// Reads a namespace from the calling thread, by whatever collector there is.
    fn visit(
        &self,
        found: &Found,
        number: u16,
        want: &Want,
        row: &mut RowSink<'_>,
    ) -> Result<Coverage, Failed> {
        let traveller = Traveller::new(&self.home);
        traveller.go(found).map_err(Failed::Outside)?;
        self.know(number, || Details::read(&self.root, want));
        let mut live = Live::new(self.choice, self.root.clone());
        let read = live.dump(want, &mut |one| row(one.within(number)));
        traveller.home().map_err(Failed::Outside)?;
        read.map_err(Failed::Inside)
    }

    fn know(&self, number: u16, details: impl FnOnce() -> Details) {
        if let Some(cell) = self.namespaces.details.get(usize::from(number)) {
            cell.get_or_init(details);
        }
    }

    /// Takes the parts of one namespace as they come.
    fn read(
        &self,
        number: u16,
        parts: &mpsc::Receiver<Part>,
        crew: &Crew<'_>,
        row: &mut RowSink<'_>,
    ) -> Result<Coverage, Failed> {
        let mut stream = Stream::new(None);
        // What cannot be decoded was counted by the worker.
        let mut counted = Coverage::default();
        let mut flow = ControlFlow::Continue(());
        loop {
            match parts.recv() {
                Ok(Part::Details(details)) => self.know(number, || details),
                Ok(Part::Datagram(datagram)) => {
                    stream.feed(&datagram, crew.want, &mut counted, &mut |one| {
                        flow = row(one.within(number));
                        flow
                    });
                    crew.reuse(datagram);
                    if flow.is_break() {
                        return Ok(Coverage::default());
                    }
                }
                Ok(Part::End(end)) => return end,
                // A worker says how a namespace ends; without a word it was ended itself.
                Err(_) => {
                    let gone = collect::Error::Nothing("its reader ended".to_owned());
                    return Err(Failed::Inside(gone));
                }
            }
        }
    }

    /// Has workers read the namespaces, in order, until `each` wants no more.
    fn by_workers(
        &self,
        want: &Want,
        row: &mut RowSink<'_>,
        each: &mut Each<'_>,
        stopped: &Cell<bool>,
    ) {
        let crew = Crew {
            home: &self.home,
            root: &self.root,
            want,
            spare: Mutex::default(),
        };
        let (jobs, todo) = mpsc::channel();
        let todo = Mutex::new(todo);
        let cores = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let mut workers = 0;
            for _ in 0..cores.min(WORKERS).min(self.found.len()) {
                let builder = thread::Builder::new().name("linger-netns".to_owned());
                workers += usize::from(builder.spawn_scoped(scope, || crew.work(&todo)).is_ok());
            }
            let mut waiting = VecDeque::new();
            let mut left = (0u16..).zip(&self.found);
            let mut next = |waiting: &mut VecDeque<_>| {
                if let Some((number, found)) = left.next() {
                    let (parts, received) = mpsc::sync_channel(WAITING);
                    waiting.push_back((number, found, received));
                    // There is nobody to take it if no thread could be started.
                    drop(jobs.send(Job { found, parts }));
                }
            };
            for _ in 0..AHEAD {
                next(&mut waiting);
            }
            while let Some((number, found, parts)) = waiting.pop_front() {
                let end = if workers == 0 {
                    self.visit(found, number, want, row)
                } else {
                    self.read(number, &parts, &crew, row)
                };
                each(found, number, end, row);
                if stopped.get() {
                    break;
                }
                next(&mut waiting);
            }
            // Workers that wait for a reader or for a job end now.
            drop((waiting, jobs));
        });
    }
}

impl Source for Everywhere {
    fn dump(&mut self, want: &Want, row: &mut RowSink<'_>) -> Result<Coverage, collect::Error> {
        let this = &*self;
        let mut coverage = Coverage {
            missing: this.gaps.clone(),
            ..Coverage::default()
        };
        let stopped = Cell::new(false);
        let mut row = |one: Row<'_>| {
            let flow = row(one);
            if flow.is_break() {
                stopped.set(true);
            }
            flow
        };
        let (mut outside, mut failed, mut seen) = (Vec::new(), Vec::new(), false);
        let mut each = |found: &Found, number: u16, end, row: &mut RowSink<'_>| {
            let end = match end {
                Err(Failed::NoSockDiag(_)) if this.choice == Choice::Auto => {
                    this.visit(found, number, want, row)
                }
                end => end,
            };
            let complete = end.as_ref().is_ok_and(Coverage::rows_complete);
            if let Some(cell) = this.namespaces.complete.get(usize::from(number)) {
                cell.set(cell.get() && complete);
            }
            match end {
                Ok(read) => {
                    seen = true;
                    coverage.merge(read);
                }
                Err(Failed::Outside(error)) => outside.push((found.namespace.shown(), error)),
                Err(Failed::NoSockDiag(why)) => {
                    failed.push((found.namespace.shown(), collect::Error::NoSockDiag(why)))
                }
                Err(Failed::Inside(error)) => failed.push((found.namespace.shown(), error)),
            }
        };
        if this.choice == Choice::Procfs {
            for (number, found) in (0u16..).zip(&this.found) {
                let end = this.visit(found, number, want, &mut row);
                each(found, number, end, &mut row);
                if stopped.get() {
                    break;
                }
            }
        } else {
            this.by_workers(want, &mut row, &mut each, &stopped);
        }
        coverage.missing.extend(unseen(&outside));
        if !seen && !failed.is_empty() {
            return Err(failed.swap_remove(0).1);
        }
        for (name, error) in failed {
            let part = format!("network namespace {name}: {error}");
            coverage.missing.push(part);
        }
        Ok(coverage)
    }

    fn owners(&mut self) -> (Owners, Coverage) {
        self.procfs.owners()
    }

    fn cpu(&mut self, cgroups: &BTreeSet<String>) -> BTreeMap<String, Cpu> {
        self.procfs.cpu(cgroups)
    }

    fn facts(&mut self) -> Facts {
        self.procfs.facts()
    }

    fn host(&self) -> Host {
        Host {
            netns: None,
            ..self.procfs.host()
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn advance(&mut self, wait: Duration) -> bool {
        thread::sleep(wait);
        true
    }

    fn namespaces(&self) -> Option<Rc<Namespaces>> {
        Some(Rc::clone(&self.namespaces))
    }
}
