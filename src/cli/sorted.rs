//! Rows that wait until all have been seen, to be sorted by a column.

use std::cmp::Ordering;
use std::io;

use super::failure::Failure;
use super::listed::column;
use crate::fields::{Field, Key, Record};
use crate::model::ends::Kept as KeptEnds;
use crate::model::{Attributes, Ends, Socket};

/// With `--top N`, so many rows more than N are kept before those that cannot be among the first are dropped.
const SLACK: usize = 1_024;

/// Makes a record of a socket, its attributes and ends, and shows it.
pub type Like<'l> = dyn Fn(&Socket, &Attributes<'_>, Ends<'_>, &mut dyn FnMut(&Record<'_>)) + 'l;

/// The column that rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// the column
    pub field: &'static Field,
    /// `-COLUMN`: the largest first
    pub descending: bool,
}

impl Order {
    /// Reads `COLUMN` or `-COLUMN`.
    ///
    /// # Errors
    /// For a column that there is not.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let (descending, id) = match text.strip_prefix('-') {
            Some(id) => (true, id),
            None => (false, text),
        };
        Ok(Self {
            field: column(id)?,
            descending,
        })
    }

    /// What the record is sorted by.
    pub fn key(self, record: &Record<'_>) -> Option<Key> {
        self.field.value(record).key()
    }

    /// What is not known comes last in either direction.
    pub fn compare_keys(self, a: Option<&Key>, b: Option<&Key>) -> Ordering {
        match (a, b) {
            (Some(a), Some(b)) if self.descending => b.cmp(a),
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        }
    }

    /// Equal rows stay as they came.
    fn compare(self, a: &Kept, b: &Kept) -> Ordering {
        self.compare_keys(a.key.as_ref(), b.key.as_ref())
            .then(a.number.cmp(&b.number))
    }
}

/// A row that outlives the message it came in.
pub struct Kept {
    key: Option<Key>,
    number: u64,
    socket: Socket,
    attributes: Attributes<'static>,
    tcp_info: Option<Box<[u8]>>,
    /// `mptcp_info`, `sctp_info`, `locals`, `peers`
    others: [Option<Box<[u8]>>; 4],
    memory: Option<Box<[u8]>>,
    congestion: Option<Box<[u8]>>,
    rest: Box<[u8]>,
    ends: KeptEnds,
}

impl Kept {
    /// What it is sorted by.
    pub const fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// Keeps a row, to be sorted by `key` and, where it is equal, by `number`.
    pub fn new(record: &Record<'_>, key: Option<Key>, number: u64) -> Self {
        let Attributes {
            tcp_info,
            mptcp_info,
            sctp_info,
            locals,
            peers,
            memory,
            congestion,
            shutdown,
            v6only,
            tos,
            tclass,
            mark,
            class_id,
            cgroup,
            listed_drops,
            sockopt,
            rest,
            message: _,
            // A row of a dump is whole.
            digest: _,
        } = *record.attributes;
        Self {
            key,
            number,
            socket: *record.socket,
            attributes: Attributes {
                tcp_info: None,
                mptcp_info: None,
                sctp_info: None,
                locals: None,
                peers: None,
                memory: None,
                congestion: None,
                shutdown,
                v6only,
                tos,
                tclass,
                mark,
                class_id,
                cgroup,
                listed_drops,
                sockopt,
                rest: &[],
                message: None,
                digest: None,
            },
            tcp_info: tcp_info.map(Into::into),
            others: [mptcp_info, sctp_info, locals, peers].map(|bytes| bytes.map(Into::into)),
            memory: memory.map(Into::into),
            congestion: congestion.map(Into::into),
            rest: rest.into(),
            ends: record.ends.keep(),
        }
    }

    /// Hands the row on, as `like` with its own socket, attributes and ends.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn show(
        &self,
        like: &Like<'_>,
        write: &mut dyn FnMut(&Record<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let [mptcp_info, sctp_info, locals, peers] = self.others.each_ref().map(Option::as_deref);
        let attributes = Attributes {
            tcp_info: self.tcp_info.as_deref(),
            mptcp_info,
            sctp_info,
            locals,
            peers,
            memory: self.memory.as_deref(),
            congestion: self.congestion.as_deref(),
            rest: &self.rest,
            ..self.attributes
        };
        let mut written = Ok(());
        self.ends.with(|ends| {
            like(&self.socket, &attributes, ends, &mut |record| {
                written = write(record);
            });
        });
        written
    }
}

/// The rows so far.
pub struct Rows {
    order: Order,
    top: Option<usize>,
    rows: Vec<Kept>,
    pushed: u64,
}

impl Rows {
    /// No rows yet; the first `top` will be wanted.
    pub const fn new(order: Order, top: Option<usize>) -> Self {
        Self {
            order,
            top,
            rows: Vec::new(),
            pushed: 0,
        }
    }

    /// Keeps a row.
    pub fn push(&mut self, record: &Record<'_>) {
        let key = self.order.key(record);
        self.rows.push(Kept::new(record, key, self.pushed));
        self.pushed += 1;
        if let Some(top) = self.top
            && self.rows.len() >= top.saturating_mul(2).saturating_add(SLACK)
        {
            self.cut(top);
        }
    }

    fn cut(&mut self, top: usize) {
        let order = self.order;
        self.rows.sort_unstable_by(|a, b| order.compare(a, b));
        self.rows.truncate(top);
    }

    /// Hands the rows on, sorted, each as `like` with its own socket and attributes.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn each(
        mut self,
        like: &Like<'_>,
        write: &mut dyn FnMut(&Record<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.cut(self.top.unwrap_or(usize::MAX));
        self.rows.iter().try_for_each(|row| row.show(like, write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::tests::Fixture;

    fn sorted(order: &str, top: Option<usize>, queues: &[(u32, bool)]) -> Vec<u32> {
        let mut rows = Rows::new(Order::parse(order).unwrap(), top);
        for (queue, known) in queues {
            let mut fixture = Fixture::new();
            fixture.socket.recv_q = *queue;
            fixture.socket.inode = if *known { *queue } else { 0 };
            fixture.with(|record| rows.push(record));
        }
        let fixture = Fixture::new();
        let mut found = Vec::new();
        rows.each(
            &|socket, attributes, ends, show| {
                fixture.with(|record| {
                    show(&Record {
                        socket,
                        attributes,
                        ends,
                        ..*record
                    });
                });
            },
            &mut |record| {
                found.push(record.socket.recv_q);
                assert_eq!(record.attributes.tcp_info.map(<[u8]>::len), Some(280));
                Ok(())
            },
        )
        .unwrap();
        found
    }

    #[test]
    fn the_unknown_comes_last_in_either_direction() {
        let rows = [(5, true), (1, false), (9, true), (7, true)];
        assert_eq!(sorted("inode", None, &rows), [5, 7, 9, 1]);
        assert_eq!(sorted("-inode", None, &rows), [9, 7, 5, 1]);
        assert_eq!(sorted("-recv-q", Some(2), &rows), [9, 7]);
    }

    #[test]
    fn the_first_of_many_are_the_first_of_all() {
        let many: Vec<(u32, bool)> = (0..10_000u32).map(|n| (n * 7_919 % 10_007, true)).collect();
        let mut all = sorted("-recv-q", None, &many);
        all.truncate(3);
        assert_eq!(sorted("-recv-q", Some(3), &many), all);
        let equal: Vec<(u32, bool)> = (0..5_000).map(|n| (n, true)).collect();
        assert_eq!(sorted("family", Some(3), &equal), [0, 1, 2], "as they came");
    }
}
