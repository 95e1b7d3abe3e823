//! A flood of TIME-WAIT on a terminal is one line: it is what a busy machine leaves behind, and hides what a person
//! looks for.

use std::io::{self, Write};

use super::sorted::{Kept, Like};
use crate::fields::Record;
use crate::model::TcpState;
use crate::model::words::thousands;

/// So many rows of TIME-WAIT are shown; they wait behind the others until it is known that they are not more.
const MOST: usize = 1_000;

/// The TIME-WAIT sockets so far.
#[derive(Default)]
pub struct Fold {
    kept: Vec<Kept>,
    count: u64,
}

impl Fold {
    /// Takes the row if it is one of TIME-WAIT.
    pub fn takes(&mut self, record: &Record<'_>) -> bool {
        if record.socket.state != TcpState::TimeWait {
            return false;
        }
        self.count += 1;
        if self.kept.len() < MOST && self.count <= MOST as u64 {
            self.kept.push(Kept::new(record, None, self.count));
        } else {
            self.kept = Vec::new();
        }
        true
    }

    /// Hands on the rows that were kept.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn each(
        &self,
        like: &Like<'_>,
        write: &mut dyn FnMut(&Record<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.kept.iter().try_for_each(|row| row.show(like, write))
    }

    /// The line in place of what was not kept.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn line(&self, out: &mut impl Write) -> io::Result<()> {
        if self.count <= MOST as u64 {
            return Ok(());
        }
        let count = thousands(self.count);
        writeln!(out, "+{count} TIME-WAIT folded: -a shows them")
    }
}
