//! What keeps the file small: the old is thinned out and forgotten.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior, params};

use super::{Error, Options, Store, file, micros, span};

/// So often.
const EVERY: Duration = Duration::from_secs(3600);

const DAY: Duration = Duration::from_secs(86_400);

/// From this age on one run is kept in so much time.
const STEPS: [(Duration, Duration); 2] = [
    (DAY, Duration::from_secs(300)),
    (Duration::from_secs(7 * 86_400), Duration::from_secs(1800)),
];

/// Names that may be there before it is asked which of them are used.
const NAMES: i64 = 4096;

/// The part of its largest size to which the file is cut when it is larger.
const AFTER: f64 = 0.9;

impl Store {
    /// Thins out the old, once in a while, and the oldest where the file is too large.
    pub(super) fn upkeep(&mut self, now: Timestamp) -> Result<(), Error> {
        let options = self.options;
        let answer = self.try_upkeep(now, options);
        self.sorted(answer)
    }

    fn try_upkeep(&mut self, now: Timestamp, options: Options) -> rusqlite::Result<()> {
        let connection = &mut self.connection;
        if is_due(connection, now)? {
            thin(connection, now, options.keep)?;
            vacuum(connection)?;
        }
        let size = |connection: &Connection| -> rusqlite::Result<u64> {
            Ok(bytes(connection)?.0 + file::log_bytes(&self.path))
        };
        if size(connection)? > options.max_bytes {
            // What is in the log twice is not worth forgetting anything for.
            carry_over(connection)?;
            if size(connection)? > options.max_bytes {
                let log = file::log_bytes(&self.path);
                shrink(connection, options.max_bytes.saturating_sub(log))?;
            }
        }
        Ok(())
    }

    /// Whether the log of changes leaves room for more; tries to carry it over if not.
    ///
    /// # Errors
    /// When a reader keeps it as it is.
    pub(super) fn log_fits(&self) -> Result<(), Error> {
        let size = || file::log_bytes(&self.path);
        if size() <= self.options.max_bytes / 2 {
            return Ok(());
        }
        self.sorted(carry_over(&self.connection))?;
        match size() {
            bytes if bytes <= self.options.max_bytes / 2 => Ok(()),
            bytes => Err(Error::TooLarge {
                path: self.path.clone(),
                mib: bytes >> 20,
            }),
        }
    }
}

fn is_due(connection: &Connection, now: Timestamp) -> rusqlite::Result<bool> {
    let (now, every) = (micros(now), span(EVERY));
    // A time to come is one of a clock that was set back.
    let fresh = connection
        .prepare_cached("SELECT 1 FROM upkeep WHERE done > ?1 AND done <= ?2")?
        .exists(params![now - every, now])?;
    Ok(!fresh)
}

fn thin(connection: &mut Connection, now: Timestamp, keep: Duration) -> rusqlite::Result<()> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let now = micros(now);
    let oldest = now.saturating_sub(span(keep));
    change.execute("DELETE FROM run WHERE taken < ?1", [oldest])?;
    for (age, step) in STEPS {
        change.execute(
            "DELETE FROM run WHERE taken < ?1 AND id NOT IN \
             (SELECT min(id) FROM run WHERE taken < ?1 GROUP BY place, taken / ?2)",
            params![now.saturating_sub(span(age)), span(step)],
        )?;
    }
    orphans(&change)?;
    change.execute("DELETE FROM transition WHERE taken < ?1", [oldest])?;
    change.execute(
        "DELETE FROM sample WHERE taken < ?1",
        [now.saturating_sub(span(super::write::REACH))],
    )?;
    // What was wrong in a boot of which nothing else is known any more.
    change.execute(
        "DELETE FROM place WHERE id NOT IN (SELECT place FROM run) AND id NOT IN (SELECT place FROM transition) \
         AND id NOT IN (SELECT place FROM sample) AND id NOT IN (SELECT place FROM active WHERE since >= ?1)",
        [oldest],
    )?;
    // Readers are questions that were asked: some are asked once.
    change.execute(
        "DELETE FROM active WHERE place NOT IN (SELECT id FROM place) OR producer < 0 AND since < ?1",
        [oldest],
    )?;
    let names: i64 = change.query_row("SELECT count(*) FROM name", [], |row| row.get(0))?;
    if names > NAMES {
        change.execute(
            "DELETE FROM name WHERE id NOT IN (SELECT name FROM value)",
            [],
        )?;
    }
    change.execute("INSERT OR REPLACE INTO upkeep VALUES (1, ?1)", [now])?;
    change.commit()
}

/// Removes the values of runs that are gone.
fn orphans(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .execute(
            "DELETE FROM value WHERE run IN (SELECT DISTINCT run FROM value EXCEPT SELECT id FROM run)",
            [],
        )
        .map(|_| ())
}

/// Bytes that the file takes, and those that something is kept in.
fn bytes(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map(|n| u64::try_from(n).unwrap_or(0))
    };
    let (page, all, free) = (
        pragma("page_size")?,
        pragma("page_count")?,
        pragma("freelist_count")?,
    );
    Ok((all * page, all.saturating_sub(free) * page))
}

/// Gives free pages back to the file system.
fn vacuum(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA incremental_vacuum")?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Forgets the oldest until the file takes less than `most` bytes.
fn shrink(connection: &mut Connection, most: u64) -> rusqlite::Result<()> {
    let most = (most as f64 * AFTER) as u64;
    for _ in 0..40 {
        if bytes(connection)?.1 <= most {
            break;
        }
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let runs: i64 = change.query_row("SELECT count(*) FROM run", [], |row| row.get(0))?;
        let told: i64 =
            change.query_row("SELECT count(*) FROM transition", [], |row| row.get(0))?;
        let looks: i64 = change.query_row("SELECT count(*) FROM sample", [], |row| row.get(0))?;
        // The order in which they were written: times may be those of a clock that was wrong.
        if runs > 1 {
            change.execute(
                "DELETE FROM run WHERE id IN (SELECT id FROM run ORDER BY id LIMIT ?1)",
                [(runs / 8).max(1)],
            )?;
            change.execute(
                "DELETE FROM value WHERE run < (SELECT min(id) FROM run)",
                [],
            )?;
        }
        change.execute(
            "DELETE FROM transition WHERE seq IN (SELECT seq FROM transition ORDER BY seq LIMIT ?1)",
            [told / 8],
        )?;
        if runs <= 1 || looks > 64 {
            change.execute(
                "DELETE FROM sample WHERE seq IN (SELECT seq FROM sample ORDER BY seq LIMIT ?1)",
                [(looks / 4).max(1)],
            )?;
        }
        // Programs choose the names of what they hold.
        change.execute(
            "DELETE FROM name WHERE id NOT IN (SELECT name FROM value)",
            [],
        )?;
        change.commit()?;
        if runs <= 1 && told < 8 && looks == 0 {
            break;
        }
    }
    vacuum(connection)?;
    carry_over(connection)
}

/// Carries the log of changes over into the file and cuts it. That a reader or writer keeps it is an answer, and no error.
fn carry_over(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}
