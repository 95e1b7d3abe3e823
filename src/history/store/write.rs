//! Writing a run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction as Change, TransactionBehavior, params};

use super::{
    Active, Error, Place, Run, Store, Transition, blob, file, micros, number, severity, span, time,
};
use crate::history::thin::spare;

/// A run so soon after another one of the same place keeps no values and no look.
const SPACING: Duration = Duration::from_secs(10);

/// Looks that are kept of a place, for each view.
pub const SAMPLES: usize = 24;

/// Views whose looks are kept, beside the whole one.
const VIEWS: i64 = 16;

/// No look that is older is kept: sockets and processes have come and gone.
pub const REACH: Duration = Duration::from_secs(7200);

/// A look that is dated so much after the one that is written was dated by a clock that has been set back since.
const AHEAD: Duration = Duration::from_secs(60);

/// Values of one run, and findings of one run, that are kept.
const VALUES: usize = 4096;
const FINDINGS: usize = 512;

/// A name or a title that is longer is cut, in bytes.
const LONG: usize = 400;

/// Who stands for all producers together.
const ALL: i64 = 0;

impl Store {
    /// Writes a run. Returns what has changed since the last run of the same producer.
    ///
    /// # Errors
    /// When it cannot be written; nothing of it is then.
    pub fn write(&mut self, place: &Place, run: &Run<'_>) -> Result<Vec<Transition>, Error> {
        if file::identity(&self.path) != Some(self.identity) {
            // Somebody has set it aside, or removed it.
            self.begin_anew()?;
        }
        if self.damaged.get() {
            self.set_aside("a part of it could not be read")?;
        }
        file::room(&self.path, self.options)?;
        self.log_fits()?;
        let body = run.sample.map(blob::pack);
        if let Some(None) = body {
            let message = "this look takes too much room: later runs cannot compare with it";
            self.messages.push(message.to_owned());
        }
        let body = body.flatten();
        let changes = match self.try_write(place, run, body.as_deref()) {
            Err(Error::Damaged { why, .. }) => {
                self.set_aside(&why)?;
                self.try_write(place, run, body.as_deref())?
            }
            answer => answer?,
        };
        if let Err(error) = self.upkeep(run.taken) {
            self.messages.push(error.to_string());
        }
        Ok(changes)
    }

    /// Gives the damaged file another name and begins a new one.
    fn set_aside(&mut self, why: &str) -> Result<(), Error> {
        self.messages
            .extend(file::set_aside(&self.dir, Some(self.identity), why)?);
        self.begin_anew()
    }

    fn begin_anew(&mut self) -> Result<(), Error> {
        let mut messages = std::mem::take(&mut self.messages);
        let mut store = file::open(&self.dir, self.options)?;
        messages.append(&mut store.messages);
        *self = store;
        self.messages = messages;
        Ok(())
    }

    fn try_write(
        &mut self,
        place: &Place,
        run: &Run<'_>,
        body: Option<&[u8]>,
    ) -> Result<Vec<Transition>, Error> {
        let answer = write(&mut self.connection, place, run, body);
        self.sorted(answer)
    }
}

fn write(
    connection: &mut Connection,
    place: &Place,
    run: &Run<'_>,
    body: Option<&[u8]>,
) -> rusqlite::Result<Vec<Transition>> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let place = place_id(&change, place)?;
    // Each by itself: a run that measures a little keeps no look, and must not keep others from keeping theirs.
    if !run.values.is_empty() && !is_close(&change, "run", place, run.taken, None)? {
        keep_values(&change, place, run)?;
    }
    if let Some(body) = body
        && !is_close(&change, "sample", place, run.taken, Some(run.view))?
    {
        keep_sample(&change, place, (run.taken, run.view), body)?;
    }
    let findings = by_key(run.findings.iter());
    if !run.apart {
        for transition in turn(&change, place, ALL, run, &findings)? {
            note(&change, place, &transition)?;
        }
    }
    let asked = by_key(run.findings.iter().chain(run.own));
    let changes = turn(&change, place, reader(run), run, &asked)?;
    change.commit()?;
    Ok(changes)
}

/// The number of who hears of changes, which is no producer's unless it is one.
fn reader(run: &Run<'_>) -> i64 {
    match run.reader {
        0 => run.producer.number(),
        reader => -i64::try_from(reader >> 1).unwrap_or(i64::MAX).max(1),
    }
}

fn place_id(change: &Change<'_>, place: &Place) -> rusqlite::Result<i64> {
    let boot = cut(&place.boot_id);
    let netns = place.netns.cast_signed();
    change
        .prepare_cached("INSERT OR IGNORE INTO place (boot_id, netns) VALUES (?1, ?2)")?
        .execute(params![boot, netns])?;
    change
        .prepare_cached("SELECT id FROM place WHERE boot_id = ?1 AND netns = ?2")?
        .query_row(params![boot, netns], |row| row.get(0))
}

/// Whether something was kept in `table`, of this view where it has views, shortly before or after.
fn is_close(
    change: &Change<'_>,
    table: &'static str,
    place: i64,
    taken: Timestamp,
    view: Option<u64>,
) -> rusqlite::Result<bool> {
    let (taken, spacing) = (micros(taken), span(SPACING));
    let view = view.map_or(String::new(), |view| {
        format!(" AND view = {}", view.cast_signed())
    });
    change
        .prepare_cached(&format!(
            "SELECT 1 FROM {table} WHERE place = ?1 AND taken > ?2 AND taken < ?3{view}"
        ))?
        .exists(params![place, taken - spacing, taken + spacing])
}

fn keep_values(change: &Change<'_>, place: i64, run: &Run<'_>) -> rusqlite::Result<()> {
    change
        .prepare_cached(
            "INSERT INTO run (place, taken, producer, complete) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            place,
            micros(run.taken),
            run.producer.number(),
            run.complete
        ])?;
    let id = change.last_insert_rowid();
    let mut known = change.prepare_cached("SELECT id FROM name WHERE name = ?1")?;
    let mut add = change.prepare_cached("INSERT INTO name (name) VALUES (?1)")?;
    let mut keep = change
        .prepare_cached("INSERT OR REPLACE INTO value (run, name, value) VALUES (?1, ?2, ?3)")?;
    let values = run.values.iter().filter(|(_, value)| value.is_finite());
    for (name, value) in values.take(VALUES) {
        let name = cut(name);
        let found = known
            .query_row([name], |row| row.get::<_, i64>(0))
            .optional()?;
        let name = match found {
            Some(found) => found,
            None => add.insert([name])?,
        };
        keep.execute(params![id, name, value])?;
    }
    Ok(())
}

fn keep_sample(
    change: &Change<'_>,
    place: i64,
    (taken, view): (Timestamp, u64),
    body: &[u8],
) -> rusqlite::Result<()> {
    let (now, view) = (micros(taken), view.cast_signed());
    change
        .prepare_cached("DELETE FROM sample WHERE place = ?1 AND (taken > ?2 OR taken < ?3)")?
        .execute(params![place, now + span(AHEAD), now - span(REACH)])?;
    change
        .prepare_cached(
            "INSERT INTO sample (place, taken, format, body, view) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![place, now, blob::FORMAT, body, view])?;
    change
        .prepare_cached(
            "DELETE FROM sample WHERE place = ?1 AND view <> 0 AND view NOT IN \
             (SELECT view FROM sample WHERE place = ?1 AND view <> 0 GROUP BY view ORDER BY max(taken) DESC LIMIT ?2)",
        )?
        .execute(params![place, VIEWS])?;
    let mut kept: Vec<(i64, i64)> = change
        .prepare_cached(
            "SELECT seq, taken FROM sample WHERE place = ?1 AND view = ?2 ORDER BY taken, seq LIMIT 1000",
        )?
        .query_map([place, view], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut remove = change.prepare_cached("DELETE FROM sample WHERE seq = ?1")?;
    while kept.len() > SAMPLES {
        let (seq, _) = kept.remove(spare(&kept, |(_, taken)| time(*taken)));
        remove.execute([seq])?;
    }
    Ok(())
}

/// Findings by what tells them apart; of those with one key the worst.
fn by_key<'a>(
    findings: impl Iterator<Item = &'a Active>,
) -> BTreeMap<(&'a str, &'a str), &'a Active> {
    let mut worst: Vec<&Active> = findings.collect();
    worst.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let mut keyed = BTreeMap::new();
    for finding in worst {
        if keyed.len() < FINDINGS {
            keyed
                .entry((cut(&finding.id), cut(&finding.subject)))
                .or_insert(finding);
        }
    }
    keyed
}

/// What `producer` knew to be wrong becomes what the run found.
fn turn(
    change: &Change<'_>,
    place: i64,
    producer: i64,
    run: &Run<'_>,
    findings: &BTreeMap<(&str, &str), &Active>,
) -> rusqlite::Result<Vec<Transition>> {
    let mut changes = Vec::new();
    let mut known: BTreeMap<(String, String), (i64, String)> = BTreeMap::new();
    let mut statement = change.prepare_cached(
        "SELECT id, subject, severity, title FROM active WHERE place = ?1 AND producer = ?2 LIMIT 10000",
    )?;
    let mut rows = statement.query(params![place, producer])?;
    while let Some(row) = rows.next()? {
        known.insert((row.get(0)?, row.get(1)?), (row.get(2)?, row.get(3)?));
    }
    let mut keep = change.prepare_cached(
        "INSERT INTO active (place, producer, id, subject, variant, severity, title, since) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
         ON CONFLICT DO UPDATE SET variant = excluded.variant, severity = excluded.severity, title = excluded.title",
    )?;
    let told = |id: &str, subject: &str, title: &str, from, to| Transition {
        taken: run.taken,
        id: id.to_owned(),
        subject: subject.to_owned(),
        from,
        to,
        title: title.to_owned(),
    };
    for ((id, subject), finding) in findings {
        let before = known.remove(&((*id).to_owned(), (*subject).to_owned()));
        let before = before.and_then(|(before, _)| severity(before));
        let title = cut(&finding.title);
        keep.execute(params![
            place,
            producer,
            id,
            subject,
            finding.variant.as_deref().map(cut),
            number(finding.severity),
            title,
            micros(run.taken)
        ])?;
        if before != Some(finding.severity) {
            changes.push(told(id, subject, title, before, Some(finding.severity)));
        }
    }
    let judged: BTreeSet<&str> = run.judged.iter().copied().collect();
    let mut remove = change.prepare_cached(
        "DELETE FROM active WHERE place = ?1 AND producer = ?2 AND id = ?3 AND subject = ?4",
    )?;
    for ((id, subject), (before, title)) in known {
        if judged.contains(id.as_str()) {
            remove.execute(params![place, producer, id, subject])?;
            changes.push(told(&id, &subject, &title, severity(before), None));
        }
    }
    Ok(changes)
}

fn note(change: &Change<'_>, place: i64, transition: &Transition) -> rusqlite::Result<()> {
    change
        .prepare_cached(
            "INSERT INTO transition (place, taken, id, subject, was, now, title) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            place,
            micros(transition.taken),
            transition.id,
            transition.subject,
            transition.from.map(number),
            transition.to.map(number),
            transition.title
        ])
        .map(|_| ())
}

/// No more of a text than is kept.
pub fn cut(text: &str) -> &str {
    let end = text.floor_char_boundary(LONG);
    text.get(..end).unwrap_or(text)
}
