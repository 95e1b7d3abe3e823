//! Reading what was kept.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::write::{REACH, SAMPLES};
use super::{Active, Error, Place, Store, Transition, blob, micros, severity, span, time};
use crate::history::Sample;

/// Bytes that the looks of a place may take together, unpacked.
const LARGEST: usize = 64 << 20;

/// So many measures are read one after the other.
const FEW: usize = 24;

/// Rows of one answer.
const ROWS: i64 = 5_000_000;

/// Bytes of a text; what was written by us has fewer.
const LONG: i64 = 4096;

/// A measure at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// when
    pub taken: Timestamp,
    /// how much
    pub value: f64,
}

/// A measure over time, at one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// what is measured
    pub name: String,
    /// where
    pub place: Place,
    /// the values, oldest first
    pub points: Vec<Point>,
}

impl Store {
    /// The looks of a place from `since` on, at most two hours before the last one, oldest first: those that were taken
    /// for all detectors, which is view 0, and those of `view`. Others hold only what theirs needed. What cannot be read
    /// is left out.
    ///
    /// # Errors
    /// Those of the database.
    pub fn samples(
        &self,
        place: &Place,
        since: Timestamp,
        view: u64,
    ) -> Result<Vec<Sample>, Error> {
        let Some(id) = self.place_id(place)? else {
            return Ok(Vec::new());
        };
        let read = || -> rusqlite::Result<Vec<Sample>> {
            let connection = &self.connection;
            let mut statement = connection.prepare_cached(
                "SELECT taken, body FROM sample WHERE place = ?1 AND taken >= ?2 AND format = ?3 AND length(body) <= ?4 \
                 AND view IN (0, ?6) ORDER BY taken DESC, seq DESC LIMIT ?5",
            )?;
            let mut rows = statement.query(params![
                id,
                micros(since),
                blob::FORMAT,
                LARGEST as i64,
                2 * SAMPLES as i64,
                view.cast_signed()
            ])?;
            let (mut samples, mut left, mut newest) = (Vec::new(), LARGEST, None);
            while let Some(row) = rows.next()? {
                let taken: i64 = row.get(0)?;
                let newest = *newest.get_or_insert(taken);
                let body = row.get_ref(1)?;
                let Some(body) = body.as_blob().ok() else {
                    continue;
                };
                let Some(rest) = blob::unpacked_length(body).and_then(|n| left.checked_sub(n))
                else {
                    continue;
                };
                if newest.saturating_sub(taken) > span(REACH) {
                    break;
                }
                left = rest;
                if let Some(mut sample) = blob::unpack(body) {
                    sample.taken = time(taken);
                    samples.push(sample);
                }
            }
            samples.reverse();
            Ok(samples)
        };
        self.sorted(read())
    }

    fn place_id(&self, place: &Place) -> Result<Option<i64>, Error> {
        let id = || {
            self.connection
                .prepare_cached("SELECT id FROM place WHERE boot_id = ?1 AND netns = ?2")?
                .query_row(params![place.boot_id, place.netns.cast_signed()], |row| {
                    row.get(0)
                })
                .optional()
        };
        self.sorted(id())
    }

    /// What was ever measured, in the order of the alphabet.
    ///
    /// # Errors
    /// Those of the database.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let read = || -> rusqlite::Result<Vec<String>> {
            self.connection
                .prepare_cached(
                    "SELECT name FROM name WHERE octet_length(name) <= ?1 ORDER BY name LIMIT ?2",
                )?
                .query_map(params![LONG, ROWS], |row| row.get(0))?
                .collect()
        };
        self.sorted(read())
    }

    /// The measures whose name fits `pattern`, in which `*` stands for anything, from `since` on and before `until`, at
    /// one place or at all.
    ///
    /// # Errors
    /// Those of the database.
    pub fn series(
        &self,
        pattern: &str,
        since: Timestamp,
        until: Timestamp,
        place: Option<&Place>,
    ) -> Result<Vec<Series>, Error> {
        let mut places = self.numbered_places()?;
        places.retain(|(_, own)| place.is_none_or(|place| place == own));
        let names = self.named(pattern)?;
        let (since, until) = (micros(since), micros(until));
        let mut points: BTreeMap<(&str, i64), Vec<Point>> = BTreeMap::new();
        let point = |taken: i64, value: f64| Point {
            taken: time(taken),
            value,
        };
        let mut read = || -> rusqlite::Result<()> {
            let mut left = ROWS;
            if names.len() <= FEW {
                let mut statement = self.connection.prepare_cached(
                    "SELECT run.taken, value.value FROM run JOIN value ON value.run = run.id AND value.name = ?1 \
                     WHERE run.place = ?2 AND run.taken >= ?3 AND run.taken < ?4 ORDER BY run.taken LIMIT ?5",
                )?;
                for ((name, text), (place, _)) in names
                    .iter()
                    .flat_map(|name| places.iter().map(move |place| (name, place)))
                {
                    let mut rows = statement.query(params![name, place, since, until, left])?;
                    while let Some(row) = rows.next()? {
                        left -= 1;
                        let own = points.entry((text, *place)).or_default();
                        own.push(point(row.get(0)?, row.get(1)?));
                    }
                }
                return Ok(());
            }
            // Of many measures all of a run are read at once.
            let mut statement = self.connection.prepare_cached(
                "SELECT value.name, run.taken, value.value FROM run JOIN value ON value.run = run.id \
                 WHERE run.place = ?1 AND run.taken >= ?2 AND run.taken < ?3 ORDER BY run.taken LIMIT ?4",
            )?;
            for (place, _) in &places {
                let mut rows = statement.query(params![place, since, until, left])?;
                while let Some(row) = rows.next()? {
                    left -= 1;
                    if let Some(text) = names.get(&row.get(0)?) {
                        let own = points.entry((text, *place)).or_default();
                        own.push(point(row.get(1)?, row.get(2)?));
                    }
                }
            }
            Ok(())
        };
        let read = read();
        self.sorted(read)?;
        let mut all = Vec::new();
        for ((name, id), points) in points {
            if let Some((_, place)) = places.iter().find(|(own, _)| *own == id) {
                all.push(Series {
                    name: name.to_owned(),
                    place: place.clone(),
                    points,
                });
            }
        }
        Ok(all)
    }

    /// The measures whose name fits, by their numbers.
    fn named(&self, pattern: &str) -> Result<BTreeMap<i64, String>, Error> {
        // Others have named most of them.
        let first = pattern.split('*').next().unwrap_or_default();
        let read = || -> rusqlite::Result<BTreeMap<i64, String>> {
            let mut statement = self.connection.prepare_cached(
                "SELECT id, name FROM name WHERE name >= ?1 AND name < ?2 AND octet_length(name) <= ?3 LIMIT ?4",
            )?;
            let last = format!("{first}\u{10ffff}");
            let mut rows = statement.query(params![first, last, LONG, ROWS])?;
            let mut names = BTreeMap::new();
            while let Some(row) = rows.next()? {
                let name: String = row.get(1)?;
                if fits(pattern, &name) {
                    names.insert(row.get(0)?, name);
                }
            }
            Ok(names)
        };
        self.sorted(read())
    }

    /// Where anything was measured, the oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn places(&self) -> Result<Vec<Place>, Error> {
        let places = self.numbered_places()?;
        Ok(places.into_iter().map(|(_, place)| place).collect())
    }

    /// Whether `name` fits `pattern`, in which `*` stands for anything. Brackets stand for themselves: names have them.
    pub fn fits(pattern: &str, name: &str) -> bool {
        fits(pattern, name)
    }

    fn numbered_places(&self) -> Result<Vec<(i64, Place)>, Error> {
        let read = || -> rusqlite::Result<Vec<(i64, Place)>> {
            let place = |row: &Row<'_>| {
                let netns: i64 = row.get(2)?;
                Ok((
                    row.get(0)?,
                    Place {
                        boot_id: row.get(1)?,
                        netns: netns.cast_unsigned(),
                    },
                ))
            };
            self.connection
                .prepare_cached(
                    "SELECT id, boot_id, netns FROM place WHERE octet_length(boot_id) <= ?1 ORDER BY id LIMIT 10000",
                )?
                .query_map([LONG], place)?
                .collect()
        };
        self.sorted(read())
    }

    /// What came, went, and got worse or better from `since` on, at one place or at all, in the order in which it was
    /// seen.
    ///
    /// # Errors
    /// Those of the database.
    pub fn transitions(
        &self,
        since: Timestamp,
        place: Option<&Place>,
    ) -> Result<Vec<Transition>, Error> {
        let id = match place {
            None => None,
            Some(place) => match self.place_id(place)? {
                None => return Ok(Vec::new()),
                id => id,
            },
        };
        let read = || -> rusqlite::Result<Vec<Transition>> {
            let transition = |row: &Row<'_>| {
                let (was, now): (Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?);
                Ok(Transition {
                    taken: time(row.get(0)?),
                    id: row.get(1)?,
                    subject: row.get(2)?,
                    from: was.and_then(severity),
                    to: now.and_then(severity),
                    title: row.get(5)?,
                })
            };
            self.connection
                .prepare_cached(
                    "SELECT taken, id, subject, was, now, title FROM transition WHERE taken >= ?1 AND (?2 IS NULL OR place = ?2) \
                     AND octet_length(id) + octet_length(subject) + octet_length(title) <= ?3 ORDER BY taken, seq LIMIT 100000",
                )?
                .query_map(params![micros(since), id, LONG], transition)?
                .collect()
        };
        self.sorted(read())
    }

    /// What is wrong at a place by what all runs have told, with since when.
    ///
    /// # Errors
    /// Those of the database.
    pub fn active(&self, place: &Place) -> Result<Vec<(Active, Timestamp)>, Error> {
        let Some(id) = self.place_id(place)? else {
            return Ok(Vec::new());
        };
        let read = || -> rusqlite::Result<Vec<(Active, Timestamp)>> {
            let mut statement = self.connection.prepare_cached(
                "SELECT id, variant, subject, severity, title, since FROM active WHERE place = ?1 AND producer = 0 \
                 AND octet_length(id) + octet_length(subject) + octet_length(title) <= ?2 ORDER BY severity DESC, id, subject LIMIT 10000",
            )?;
            let mut rows = statement.query(params![id, LONG])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                if let Some(severity) = severity(row.get(3)?) {
                    let active = Active {
                        id: row.get(0)?,
                        variant: row.get(1)?,
                        subject: row.get(2)?,
                        severity,
                        title: row.get(4)?,
                    };
                    all.push((active, time(row.get(5)?)));
                }
            }
            Ok(all)
        };
        self.sorted(read())
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else {
            return false;
        };
        rest = behind;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything_and_brackets_for_themselves() {
        for (pattern, name, expected) in [
            ("tcp.*", "tcp.close-wait", true),
            ("tcp.*", "tcpx", false),
            ("tcp.total", "tcp.total", true),
            ("tcp.total", "tcp.total2", false),
            ("listener[443].queue", "listener[443].queue", true),
            ("listener[443].queue", "listener4.queue", false),
            ("listener[*].queue", "listener[443].queue", true),
            ("listener[*].queue", "listener[443].queue-ratio", false),
            ("*a*a", "ba", false),
            ("*a*a", "baa", true),
            ("*", "", true),
            ("", "x", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
