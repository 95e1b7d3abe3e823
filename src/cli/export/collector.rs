//! The one thread that reads the machine. Scrapes that ask while it reads share the next reading, so that each gets what was
//! read after it asked, and many of them cost no more than two.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use hyper::body::Bytes;
use tokio::sync::oneshot;

use crate::cli::failure::Failure;

/// Where an answer is awaited.
type Waiting = oneshot::Sender<Bytes>;

/// What reads the machine.
pub trait Read {
    /// Reads it.
    fn read(&mut self) -> String;

    /// Does what is left to do once those who waited have their answer.
    fn rest(&mut self) {}
}

impl<F: FnMut() -> String> Read for F {
    fn read(&mut self) -> String {
        self()
    }
}

/// The way to ask for a reading.
#[derive(Clone, Debug)]
pub struct Collector(Sender<Waiting>);

impl Collector {
    /// Starts the thread, which opens what it reads, because a network namespace is entered by a thread. `ended` is called if
    /// it ends while it is still wanted, as after a panic.
    ///
    /// # Errors
    /// Those of `open`, and when no thread can be made.
    pub fn start<R>(
        open: impl FnOnce() -> Result<R, Failure> + Send + 'static,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Failure>
    where
        R: Read,
    {
        let (asks, asked) = channel();
        let (opened, is_open) = channel();
        let thread = thread::Builder::new().name("collector".to_owned());
        let collect = move || {
            let _last = LastWord(Some(ended));
            match open() {
                Err(failure) => drop(opened.send(Err(failure))),
                Ok(read) => {
                    let _ = opened.send(Ok(()));
                    answer(&asked, read);
                }
            }
        };
        thread
            .spawn(collect)
            .map_err(|error| Failure::failed(format!("cannot start a thread: {error}"), None))?;
        match is_open.recv() {
            Ok(opened) => opened.map(|()| Self(asks)),
            Err(_) => Err(ended_early()),
        }
    }

    /// A reading that begins after this.
    pub async fn read(&self) -> Option<Bytes> {
        let (waiting, answer) = oneshot::channel();
        self.0.send(waiting).ok()?;
        answer.await.ok()
    }
}

/// The thread that reads is no more.
pub fn ended_early() -> Failure {
    Failure::failed("the thread that reads the machine has ended", None)
}

/// Calls what it holds when it is dropped, however that comes about.
struct LastWord<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for LastWord<F> {
    fn drop(&mut self) {
        if let Some(say) = self.0.take() {
            say();
        }
    }
}

/// Answers all who wait with one reading, until nobody can ask any more.
fn answer(asked: &Receiver<Waiting>, mut reader: impl Read) {
    while let Ok(first) = asked.recv() {
        let mut all = vec![first];
        all.extend(asked.try_iter());
        // Who has gone away needs none.
        all.retain(|waiting| !waiting.is_closed());
        if all.is_empty() {
            continue;
        }
        let text = Bytes::from(reader.read());
        for waiting in all {
            let _ = waiting.send(text.clone());
        }
        reader.rest();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier};

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
    }

    #[test]
    fn those_who_come_while_one_reads_share_the_next_reading() {
        let gate = Arc::new(Barrier::new(2));
        let readings = Arc::new(AtomicUsize::new(0));
        let (at, count) = (gate.clone(), readings.clone());
        let open = move || {
            Ok(move || {
                let n = count.fetch_add(1, Ordering::SeqCst) + 1;
                at.wait();
                at.wait();
                n.to_string()
            })
        };
        let collector = Collector::start(open, || {}).unwrap();
        runtime().block_on(tokio::task::LocalSet::new().run_until(async {
            let ask = || {
                let collector = collector.clone();
                tokio::task::spawn_local(async move { collector.read().await.unwrap() })
            };
            let first = ask();
            tokio::task::yield_now().await;
            gate.wait();
            let others = [ask(), ask(), ask()];
            tokio::task::yield_now().await;
            gate.wait();
            gate.wait();
            gate.wait();
            assert_eq!(first.await.unwrap(), "1");
            for other in others {
                assert_eq!(other.await.unwrap(), "2");
            }
        }));
        assert_eq!(readings.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_panic_is_heard() {
        let (say, heard) = channel();
        let open = || Ok(|| -> String { panic!("as if by a bug") });
        let collector = Collector::start(open, move || say.send(()).unwrap()).unwrap();
        assert_eq!(runtime().block_on(collector.read()), None);
        heard
            .recv_timeout(std::time::Duration::from_secs(60))
            .unwrap();
        assert_eq!(runtime().block_on(collector.read()), None, "and after it");
    }

    #[test]
    fn what_cannot_be_opened_is_said() {
        let open = || Err::<fn() -> String, _>(Failure::failed("no such thing", None));
        let failure = Collector::start(open, || {}).unwrap_err();
        assert!(failure.to_string().contains("no such thing"));
    }
}
