//! Work that must come to an end: in a thread of its own, with a deadline, whatever becomes of it.

use std::any::Any;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How the work ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended<T> {
    /// with this
    Done(T),
    /// not in time; it goes on, and ends with the process
    Late,
    /// by a fault of this program, or because there was no thread for it
    Broken(String),
}

/// As much as the first thread of a process usually has, bytes.
const STACK: usize = 8 << 20;

/// Does the work, and waits for it no longer than `limit`.
pub fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Ended<T> {
    let (done, is_done) = mpsc::sync_channel(1);
    let started = thread::Builder::new()
        .name("check".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            // Nobody listens any more if it was late.
            let _ = done.send(work());
        });
    let worker = match started {
        Ok(worker) => worker,
        Err(error) => return Ended::Broken(format!("cannot start a thread: {error}")),
    };
    match is_done.recv_timeout(limit) {
        Ok(done) => Ended::Done(done),
        Err(RecvTimeoutError::Timeout) => Ended::Late,
        Err(RecvTimeoutError::Disconnected) => {
            let why = worker.join().err().map(|panic| said(&*panic));
            Ended::Broken(format!(
                "a fault of linger itself: {}",
                why.unwrap_or_default()
            ))
        }
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_or_late_or_broken() {
        let hour = Duration::from_secs(3600);
        assert_eq!(within(hour, || 7), Ended::Done(7));
        let broken = within(hour, || -> u8 { panic!("row {}", 3) });
        let said = "a fault of linger itself: row 3".to_owned();
        assert_eq!(broken, Ended::Broken(said));
        let (hold, held) = mpsc::channel::<()>();
        let late = within(Duration::from_millis(20), move || held.recv().is_ok());
        assert_eq!(late, Ended::Late);
        drop(hold);
    }
}
