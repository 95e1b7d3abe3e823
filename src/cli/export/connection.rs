//! A connection that is watched: what it is doing, since when, and until when it may.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// nothing, between two requests
    Idle,
    /// sending the header of a request
    Reading,
    /// waiting for the machine to be read
    Waiting,
    /// taking its answer
    Writing,
}

impl Phase {
    /// How long it may last. Waiting ends by itself, with an answer or without one.
    const fn lasts(self) -> Option<Duration> {
        match self {
            // Longer than the time between two scrapes, usually 15 s to a minute.
            Self::Idle => Some(Duration::from_secs(120)),
            Self::Reading => Some(Duration::from_secs(5)),
            Self::Waiting => None,
            Self::Writing => Some(Duration::from_secs(10)),
        }
    }
}

/// The phase of a connection, for who serves it and who may end it.
#[derive(Clone, Debug)]
pub struct Watched(Arc<Mutex<(Phase, Instant)>>);

impl Watched {
    /// A new connection, from which a request is to come.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new((Phase::Reading, Instant::now()))))
    }

    /// What it does, and since when.
    pub fn phase(&self) -> (Phase, Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It does something else now.
    pub fn enter(&self, phase: Phase) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (phase, Instant::now());
    }

    /// Whether it has had its time.
    pub fn is_late(&self, now: Instant) -> bool {
        let (phase, since) = self.phase();
        phase
            .lasts()
            .is_some_and(|lasts| now.saturating_duration_since(since) >= lasts)
    }

    fn turn(&self, from: Phase, to: Phase) {
        if self.phase().0 == from {
            self.enter(to);
        }
    }
}

/// The connection itself: what comes and goes is noted.
#[derive(Debug)]
pub struct Connection {
    /// the connection
    pub stream: TcpStream,
    /// its phase
    pub watched: Watched,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            // Its first byte begins the time of a header, however slowly the others come.
            self.watched.turn(Phase::Idle, Phase::Reading);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.watched.turn(Phase::Idle, Phase::Writing);
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watched.turn(Phase::Idle, Phase::Writing);
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Asked for once everything was written: the answer is on its way.
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.watched.turn(Phase::Writing, Phase::Idle);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_its_time_and_waiting_ends_by_itself() {
        let watched = Watched::new();
        assert_eq!(watched.phase().0, Phase::Reading);
        for (phase, seconds) in [
            (Phase::Idle, 120),
            (Phase::Reading, 5),
            (Phase::Writing, 10),
        ] {
            watched.enter(phase);
            let (_, since) = watched.phase();
            let end = since + Duration::from_secs(seconds);
            assert!(
                !watched.is_late(end - Duration::from_millis(1)),
                "{phase:?}"
            );
            assert!(watched.is_late(end), "{phase:?}");
        }
        watched.enter(Phase::Waiting);
        assert!(!watched.is_late(Instant::now() + Duration::from_secs(86_400)));
        watched.turn(Phase::Idle, Phase::Reading);
        assert_eq!(
            watched.phase().0,
            Phase::Waiting,
            "from another phase it does not turn"
        );
    }
}
