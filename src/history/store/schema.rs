//! The tables, and how an older file becomes one of this version.

use rusqlite::{Connection, Transaction};

/// What marks a file as ours (`PRAGMA application_id`): "ling".
pub const APPLICATION: i64 = 0x6c69_6e67;

/// What each version adds to the one before; the first one begins with nothing. Times are microseconds since 1970.
const STEPS: &[&[&str]] = &[FIRST, VIEWS];

const FIRST: &[&str] = &[
    // A boot of the machine and a network namespace, by the inode of its file.
    "CREATE TABLE place (id INTEGER PRIMARY KEY, boot_id TEXT NOT NULL, netns INTEGER NOT NULL, UNIQUE (boot_id, netns)) STRICT",
    // What is measured.
    "CREATE TABLE name (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT",
    "CREATE TABLE run (id INTEGER PRIMARY KEY, place INTEGER NOT NULL, taken INTEGER NOT NULL, producer INTEGER NOT NULL, complete INTEGER NOT NULL) STRICT",
    "CREATE INDEX run_taken ON run (place, taken)",
    // By run, so that a run is written to one place of the file and goes as one.
    "CREATE TABLE value (run INTEGER NOT NULL, name INTEGER NOT NULL, value REAL NOT NULL, PRIMARY KEY (run, name)) STRICT, WITHOUT ROWID",
    // What is wrong now: by producer 0 for all together, and by each producer as it has last told it.
    "CREATE TABLE active (place INTEGER NOT NULL, producer INTEGER NOT NULL, id TEXT NOT NULL, subject TEXT NOT NULL, variant TEXT, severity INTEGER NOT NULL, title TEXT NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (place, producer, id, subject)) STRICT, WITHOUT ROWID",
    "CREATE TABLE transition (seq INTEGER PRIMARY KEY, place INTEGER NOT NULL, taken INTEGER NOT NULL, id TEXT NOT NULL, subject TEXT NOT NULL, was INTEGER, now INTEGER, title TEXT NOT NULL) STRICT",
    "CREATE INDEX transition_taken ON transition (taken)",
    // The last looks of a place, for the next run to compare with.
    "CREATE TABLE sample (seq INTEGER PRIMARY KEY, place INTEGER NOT NULL, taken INTEGER NOT NULL, format INTEGER NOT NULL, body BLOB NOT NULL) STRICT",
    "CREATE INDEX sample_place ON sample (place, taken)",
    // When the old was last thinned out.
    "CREATE TABLE upkeep (only INTEGER PRIMARY KEY CHECK (only = 1), done INTEGER NOT NULL) STRICT",
];

/// What a look was taken for: 0 for all detectors, else a number for those that were asked.
const VIEWS: &[&str] = &["ALTER TABLE sample ADD COLUMN view INTEGER NOT NULL DEFAULT 0"];

/// The version that this program writes.
pub const VERSION: i64 = STEPS.len() as i64;

/// What a file is.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// nothing yet
    Empty,
    /// ours, of a version up to [`VERSION`]
    Ours(i64),
    /// of a later version
    Newer(i64),
    /// somebody else's, or changed by somebody else
    Foreign(String),
}

/// Looks at what the file says of itself.
///
/// # Errors
/// Those of the database.
pub fn kind(connection: &Connection) -> rusqlite::Result<Kind> {
    // One reading: between two of them another process may make the tables.
    let transaction = connection.unchecked_transaction()?;
    let (application, version): (i64, i64) = transaction.query_row(
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let objects: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (application, version) {
        (0, 0) if objects == 0 => Kind::Empty,
        (APPLICATION, version) if version > VERSION => Kind::Newer(version),
        (APPLICATION, version) if version > 0 => {
            if fits(&transaction, version)? {
                Kind::Ours(version)
            } else {
                Kind::Foreign("its tables are not those of its version".to_owned())
            }
        }
        _ => Kind::Foreign("it is another program's database".to_owned()),
    })
}

/// Whether the tables are exactly those of the version: no trigger, view or default of somebody else's is ever run.
fn fits(connection: &Connection, version: i64) -> rusqlite::Result<bool> {
    let steps = usize::try_from(version).unwrap_or(0);
    let mut expected = Connection::open_in_memory()?;
    let transaction = expected.transaction()?;
    apply(&transaction, STEPS.get(..steps).unwrap_or_default(), 0)?;
    Ok(tables(connection)? == tables(&transaction)?)
}

/// How everything was made that is there.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare(
            "SELECT CAST(sql AS TEXT) FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_stat%' ORDER BY 1 LIMIT 100",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Makes the tables of this version out of those of `from`.
///
/// # Errors
/// Those of the database.
pub fn migrate(transaction: &Transaction<'_>, from: i64) -> rusqlite::Result<()> {
    apply(transaction, STEPS, from)
}

fn apply(transaction: &Transaction<'_>, steps: &[&[&str]], from: i64) -> rusqlite::Result<()> {
    for step in steps.iter().skip(usize::try_from(from).unwrap_or(0)) {
        for statement in *step {
            transaction.execute_batch(statement)?;
        }
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", steps.len() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(change: &str) -> Kind {
        let mut connection = Connection::open_in_memory().unwrap();
        let transaction = connection.transaction().unwrap();
        migrate(&transaction, 0).unwrap();
        transaction.commit().unwrap();
        connection.execute_batch(change).unwrap();
        kind(&connection).unwrap()
    }

    #[test]
    fn a_file_is_known_by_its_mark_its_version_and_its_tables() {
        assert_eq!(
            kind(&Connection::open_in_memory().unwrap()).unwrap(),
            Kind::Empty
        );
        assert_eq!(file(""), Kind::Ours(VERSION));
        assert_eq!(file("ANALYZE"), Kind::Ours(VERSION));
        assert_eq!(
            file(&format!(
                "PRAGMA user_version = {}; CREATE TABLE more (x)",
                VERSION + 1
            )),
            Kind::Newer(VERSION + 1)
        );
        for foreign in [
            "PRAGMA application_id = 7",
            "PRAGMA user_version = -1",
            "PRAGMA user_version = 0",
            "CREATE TABLE more (x)",
            "DROP TABLE sample",
            "CREATE TRIGGER t AFTER INSERT ON run BEGIN DELETE FROM value; END",
            "CREATE VIEW v AS SELECT 1",
            "ALTER TABLE run RENAME COLUMN taken TO t",
        ] {
            assert!(matches!(file(foreign), Kind::Foreign(_)), "{foreign}");
        }
    }

    #[test]
    fn looks_of_a_file_without_views_were_taken_for_all_detectors() {
        let mut connection = Connection::open_in_memory().unwrap();
        let transaction = connection.transaction().unwrap();
        apply(&transaction, &STEPS[..1], 0).unwrap();
        transaction
            .execute_batch(
                "INSERT INTO sample (place, taken, format, body) VALUES (1, 2, 3, x'04')",
            )
            .unwrap();
        transaction.commit().unwrap();
        assert_eq!(kind(&connection).unwrap(), Kind::Ours(1));
        let transaction = connection.transaction().unwrap();
        migrate(&transaction, 1).unwrap();
        transaction.commit().unwrap();
        assert_eq!(kind(&connection).unwrap(), Kind::Ours(VERSION));
        let view = connection.query_row("SELECT view FROM sample", [], |row| row.get(0));
        assert_eq!(view, Ok(0));
    }

    #[test]
    fn an_older_file_gets_what_later_versions_added_and_keeps_what_it_has() {
        let mut connection = Connection::open_in_memory().unwrap();
        let steps: &[&[&str]] = &[
            &["CREATE TABLE a (x INTEGER)", "INSERT INTO a VALUES (7)"],
            &["ALTER TABLE a ADD COLUMN y INTEGER DEFAULT 5"],
        ];
        for (steps, from) in [(&steps[..1], 0), (steps, 1)] {
            let transaction = connection.transaction().unwrap();
            apply(&transaction, steps, from).unwrap();
            transaction.commit().unwrap();
        }
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let found: (i64, i64) = connection.query_row("SELECT * FROM a", [], row).unwrap();
        assert_eq!(found, (7, 5));
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0));
        assert_eq!(version, Ok(2));
    }
}
