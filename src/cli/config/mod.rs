//! `linger.toml`: reads the configuration and hands it to the settings. It is strict: a key that nobody reads would be
//! a limit that nobody keeps, so whatever is not understood is an error with its file and line.

mod keys;

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use self::keys::{Key, MUTE, OVERRIDE, SCOPE, TOP};
use super::failure::Failure;
use crate::analyze::Settings;
use crate::analyze::scope::Scope;
use crate::analyze::settings::{self, Mute, Override};
use crate::model::nearest::nearest;

/// What every user of the machine shares.
const SYSTEM: &str = "/etc/linger/linger.toml";

/// The name of the user's file below the directory for configuration.
const USER: &str = "linger/linger.toml";

/// The variable that names the file where no option does.
const VARIABLE: &str = "LINGER_CONFIG";

/// Reads the file that is named, or else those that are there by default.
///
/// # Errors
/// For a named file that is not there, and for anything that is not understood.
pub fn read(named: Option<&Path>, settings: &mut Settings) -> Result<(), Failure> {
    if let Some(path) = path(named) {
        let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
        return apply(&path, &text, settings);
    }
    for path in defaults() {
        match fs::read_to_string(&path) {
            Ok(text) => apply(&path, &text, settings)?,
            Err(error) if is_missing(&error) || is_out_of_sight(&path, &error) => {}
            Err(error) => return Err(unreadable(&path, &error)),
        }
    }
    Ok(())
}

/// The one file that the option or the environment names.
pub fn path(named: Option<&Path>) -> Option<PathBuf> {
    let set = || std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    named
        .map(Path::to_owned)
        .or_else(|| set().map(PathBuf::from))
}

/// The system's file, then the user's, which wins.
fn defaults() -> Vec<PathBuf> {
    let directory = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        // The XDG specification has relative paths ignored.
        path.is_absolute().then_some(path)
    };
    let user = directory("XDG_CONFIG_HOME").or_else(|| Some(directory("HOME")?.join(".config")));
    let mut all = vec![PathBuf::from(SYSTEM)];
    all.extend(user.map(|directory| directory.join(USER)));
    all
}

/// Whether the file is in a directory that may not be searched: a job of cron or NRPE that runs as nobody with the HOME
/// of root has no configuration there, and does not fail for it. A file that is seen and may not be read is an error.
fn is_out_of_sight(path: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && fs::symlink_metadata(path).is_err()
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let hint = if is_missing(error) {
        format!(
            "--config and {VARIABLE} name a file that is there; without them a missing file is no error"
        )
    } else {
        "the file must be readable UTF-8 text; --config /dev/null goes without any".to_owned()
    };
    Failure::usage(
        format!(
            "cannot read the configuration '{}': {error}",
            path.display()
        ),
        hint,
    )
}

type Value<'i> = Spanned<DeValue<'i>>;

/// A file with its text, to say where something stands.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

fn apply(path: &Path, text: &str, settings: &mut Settings) -> Result<(), Failure> {
    let file = File { path, text };
    let document = DeTable::parse(text).map_err(|error| {
        file.wrong(
            &error.span().unwrap_or_default(),
            error.message(),
            "linger.toml(5), or `linger man toml`, has an example of every key".to_owned(),
        )
    })?;
    file.document(document.get_ref(), settings)
}

impl File<'_> {
    fn document(&self, top: &DeTable<'_>, settings: &mut Settings) -> Result<(), Failure> {
        self.known(top, &[TOP], "")?;
        // Whichever comes first in the file: `only` begins anew.
        if let Some(value) = top.get("only") {
            settings.only(&self.names(value)?)?;
        }
        if let Some(value) = top.get("skip") {
            settings.skip(&self.names(value)?)?;
        }
        if let Some(value) = top.get("expect-listeners") {
            self.listeners(value, settings)?;
        }
        if let Some(value) = top.get("thresholds") {
            self.thresholds(value, &mut |id, key, value| {
                settings.configure(id, key, value)
            })?;
        }
        let mut overrides = Vec::new();
        for (span, table) in self.tables(top, "override")? {
            self.known(table, &[SCOPE, OVERRIDE], " in [[override]]")?;
            let mut over = Override::new(self.scope(table)?);
            let limits = table.get("thresholds").filter(|_| !over.scope.is_empty());
            let limits = limits.ok_or_else(|| {
                let names: Vec<&str> = SCOPE.iter().map(|key| key.name).collect();
                self.wrong(
                    &span,
                    "this override lacks its subject or its thresholds",
                    format!("give one of {}, and thresholds", names.join(", ")),
                )
            })?;
            self.thresholds(limits, &mut |id, key, value| over.set(id, key, value))?;
            overrides.push(over);
        }
        let mut mutes = Vec::new();
        for (span, table) in self.tables(top, "mute")? {
            self.known(table, &[SCOPE, MUTE], " in [[mute]]")?;
            mutes.push(self.mute(&span, table)?);
        }
        settings.adopt(overrides, mutes);
        Ok(())
    }

    fn mute(&self, span: &Range<usize>, table: &DeTable<'_>) -> Result<Mute, Failure> {
        let need = |name: &str| {
            table.get(name).ok_or_else(|| {
                self.wrong(
                    span,
                    &format!("this mute has no '{name}'"),
                    "a mute needs finding, reason and expires, so that the next reader knows why and for how long"
                        .to_owned(),
                )
            })
        };
        let (finding, reason, expires) = (need("finding")?, need("reason")?, need("expires")?);
        let id = self.string(finding, "the name of a finding")?;
        let detector = settings::find(id).map_err(|error| self.refused(&finding.span(), &error))?;
        Ok(Mute {
            id: detector.id,
            scope: self.scope(table)?,
            reason: self.string(reason, "some words")?.trim().to_owned(),
            expires: self.date(expires)?,
            place: format!("{}:{}", self.path.display(), self.line(span.start)),
        })
    }

    fn scope(&self, table: &DeTable<'_>) -> Result<Scope, Failure> {
        let name = |key: &str| {
            let value = table.get(key);
            value
                .map(|value| self.string(value, "a name").map(str::to_owned))
                .transpose()
        };
        let port = |value: &Value<'_>| {
            let integer = value.get_ref().as_integer();
            integer
                .and_then(|number| u16::from_str_radix(number.as_str(), number.radix()).ok())
                .filter(|port| *port > 0)
                .ok_or_else(|| self.expected(value, "a port", "give a number from 1 to 65535"))
        };
        let destination = |value: &Value<'_>| {
            let text = self.string(value, "an address")?;
            text.parse().map_err(|_| {
                let hint =
                    "for example 10.0.0.5, 10.0.0.5:443, 10.0.0.0/8:443 or [2001:db8::]/32:443";
                self.expected(value, "an address or network", hint)
            })
        };
        Ok(Scope {
            process: name("process")?,
            unit: name("unit")?,
            port: table.get("port").map(port).transpose()?,
            destination: table.get("destination").map(destination).transpose()?,
        })
    }

    /// Hands each limit of a table of detectors to `set`.
    fn thresholds(
        &self,
        value: &Value<'_>,
        set: &mut dyn FnMut(&str, &str, &str) -> Result<(), settings::Error>,
    ) -> Result<(), Failure> {
        let hint = "for example: [thresholds.close-wait-leak] and below it age = \"2min\"";
        for (id, limits) in self.table(value, hint)? {
            settings::find(id.get_ref()).map_err(|error| self.refused(&id.span(), &error))?;
            for (key, value) in self.table(limits, hint)? {
                let text = match value.get_ref() {
                    DeValue::String(text) => text.to_string(),
                    DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
                    DeValue::Float(number) => number.as_str().to_owned(),
                    _ => {
                        let hint = "give a number, or text such as \"2min\" or \"50%\"";
                        return Err(self.expected(value, "a limit", hint));
                    }
                };
                set(id.get_ref(), key.get_ref(), &text).map_err(|error| {
                    let is_key = matches!(error, settings::Error::Key { .. });
                    let span = if is_key { key.span() } else { value.span() };
                    self.refused(&span, &error)
                })?;
            }
        }
        Ok(())
    }

    /// An array of findings' names.
    fn names(&self, value: &Value<'_>) -> Result<Vec<String>, Failure> {
        let hint = "for example: [\"close-wait-leak\", \"listen-overflow\"]";
        let DeValue::Array(values) = value.get_ref() else {
            return Err(self.expected(value, "a list of findings", hint));
        };
        let mut names = Vec::new();
        for value in values.iter() {
            let name = self.string(value, "the name of a finding")?;
            let found =
                settings::find(name).map_err(|error| self.refused(&value.span(), &error))?;
            names.push(found.id.to_owned());
        }
        if names.is_empty() {
            return Err(self.expected(value, "a list of findings", hint));
        }
        Ok(names)
    }

    /// What has to be listened on.
    fn listeners(&self, value: &Value<'_>, settings: &mut Settings) -> Result<(), Failure> {
        let hint = "for example: [\"443\", \"10.0.0.1:5432=postgresql\"]";
        let DeValue::Array(values) = value.get_ref() else {
            return Err(self.expected(value, "a list of listeners", hint));
        };
        for value in values.iter() {
            let text = self.string(value, "a listener")?;
            settings
                .expect(text)
                .map_err(|error| self.refused(&value.span(), &error))?;
        }
        Ok(())
    }

    /// The tables under `[[name]]`, each with its place.
    fn tables<'t, 'i>(
        &self,
        top: &'t DeTable<'i>,
        name: &str,
    ) -> Result<Vec<(Range<usize>, &'t DeTable<'i>)>, Failure> {
        let Some(value) = top.get(name) else {
            return Ok(Vec::new());
        };
        let hint = format!("write it as [[{name}]], with two brackets on each side");
        let DeValue::Array(values) = value.get_ref() else {
            return Err(self.expected(value, "a list of tables", &hint));
        };
        let table = |value: &'t Value<'i>| Ok((value.span(), self.table(value, &hint)?));
        values.iter().map(table).collect()
    }

    fn table<'t, 'i>(&self, value: &'t Value<'i>, hint: &str) -> Result<&'t DeTable<'i>, Failure> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.expected(value, "a table", hint)),
        }
    }

    /// Text that is not empty.
    fn string<'t>(&self, value: &'t Value<'_>, what: &str) -> Result<&'t str, Failure> {
        match value.get_ref() {
            DeValue::String(text) if !text.trim().is_empty() => Ok(text),
            _ => Err(self.expected(value, what, "give it in quotes")),
        }
    }

    fn date(&self, value: &Value<'_>) -> Result<Date, Failure> {
        let date = match value.get_ref() {
            DeValue::Datetime(given) if given.time.is_none() => given.date.and_then(|date| {
                let (month, day) = (i8::try_from(date.month).ok()?, i8::try_from(date.day).ok()?);
                Date::new(i16::try_from(date.year).ok()?, month, day).ok()
            }),
            // YYYY-MM-DD: what is longer has a time, too.
            DeValue::String(text) if text.len() == 10 => text.parse().ok(),
            _ => None,
        };
        date.ok_or_else(|| self.expected(value, "a date", "for example 2027-01-31: the last day"))
    }

    /// Refuses a key that is in none of `lists`.
    fn known(&self, table: &DeTable<'_>, lists: &[&[Key]], place: &str) -> Result<(), Failure> {
        let names: Vec<&str> = lists
            .iter()
            .copied()
            .flatten()
            .map(|key| key.name)
            .collect();
        for (key, _) in table {
            if !names.contains(&key.get_ref().as_ref()) {
                let near = nearest(key.get_ref(), names.iter().copied());
                let hint = match near.first() {
                    Some(near) => format!("did you mean '{near}'?"),
                    None => format!("keys{place} are: {}", names.join(", ")),
                };
                let message = format!("unknown key '{}'{place}", key.get_ref());
                return Err(self.wrong(&key.span(), &message, hint));
            }
        }
        Ok(())
    }

    fn expected(&self, value: &Value<'_>, what: &str, hint: &str) -> Failure {
        let given = self.text.get(value.span()).unwrap_or_default();
        let first = given.lines().next().unwrap_or_default();
        let shown: String = first.chars().take(40).collect();
        let message = format!("expected {what}, and not {shown}");
        self.wrong(&value.span(), &message, hint.to_owned())
    }

    fn refused(&self, span: &Range<usize>, error: &settings::Error) -> Failure {
        self.wrong(span, &error.to_string(), error.hint())
    }

    fn wrong(&self, span: &Range<usize>, message: &str, hint: String) -> Failure {
        let (path, line) = (self.path.display(), self.line(span.start));
        Failure::usage(format!("{path}:{line}: {message}"), hint)
    }

    /// The line, counted from 1, on which the byte at `offset` stands.
    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset);
        let before = before.unwrap_or(self.text.as_bytes());
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::detectors;

    fn apply_text(text: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        apply(Path::new("x.toml"), text, &mut settings).map_err(|failure| failure.to_string())?;
        Ok(settings)
    }

    #[test]
    fn the_examples_of_the_documentation_are_read() {
        for key in TOP {
            apply_text(key.example).unwrap_or_else(|error| panic!("{}: {error}", key.example));
        }
        let compulsory: Vec<&str> = MUTE.iter().map(|key| key.example).collect();
        for key in SCOPE {
            let mute = format!("[[mute]]\n{}\n{}", compulsory.join("\n"), key.example);
            assert_eq!(apply_text(&mute).unwrap().mutes().len(), 1);
            let example = OVERRIDE[0].example;
            apply_text(&format!("[[override]]\n{}\n{example}", key.example)).unwrap();
        }
        assert!(apply_text("").is_ok());
    }

    #[test]
    fn limits_are_read_as_on_the_command_line() {
        let leak = detectors::find("close-wait-leak").unwrap();
        for (value, seconds) in [
            ("\"2min\"", 120.0),
            ("90", 90.0),
            ("1_000", 1000.0),
            ("2.5", 2.5),
        ] {
            let text = format!("[thresholds.close_wait_stale]\nage = {value}");
            assert_eq!(apply_text(&text).unwrap().limits(leak).get("age"), seconds);
        }
    }

    #[test]
    fn a_later_file_wins_and_its_overrides_come_first() {
        let leak = detectors::find("close-wait-leak").unwrap();
        let mut settings = Settings::default();
        let file = |age: u32| {
            format!(
                "skip = [\"time-wait-flood\"]\n[thresholds.close-wait-leak]\nage = {age}\n\
                 [[override]]\nprocess = \"p{age}\"\nthresholds.close-wait-leak.age = {age}"
            )
        };
        for age in [1, 2] {
            apply(Path::new("x.toml"), &file(age), &mut settings).unwrap();
        }
        assert_eq!(settings.limits(leak).get("age"), 2.0);
        let order: Vec<_> = settings
            .overrides(leak)
            .iter()
            .map(|over| over.scope.to_string())
            .collect();
        assert_eq!(order, ["process p2", "process p1"]);
        let flood = detectors::find("time-wait-flood").unwrap();
        assert!(!settings.selects(flood));
        settings.only(&["time-wait-flood".to_owned()]).unwrap();
        assert!(
            settings.selects(flood),
            "asked for by name on the command line"
        );
    }

    #[test]
    fn whatever_is_wrong_is_named_with_its_line() {
        let mute = "[[mute]]\nfinding = \"close-wait-leak\"\nreason = \"x\"\nexpires = ";
        let over = "[[override]]\nthresholds.close-wait-leak.age = 1\n";
        for (text, line, what, hint) in [
            ("a = ", 1, "", "linger man toml"),
            ("\n\nskpi = []", 3, "unknown key 'skpi'", "'skip'"),
            ("zzz = 1", 1, "unknown key 'zzz'", "only, skip"),
            (
                "only = 1",
                1,
                "a list of findings, and not 1",
                "for example",
            ),
            ("skip = []", 1, "a list of findings", "for example"),
            (
                "skip = [\n\"close-wait-leek\"]",
                2,
                "close-wait-leek",
                "'close-wait-leak'",
            ),
            (
                "[thresholds.close-wait-leek]\nage=1",
                1,
                "close-wait-leek",
                "'close-wait-leak'",
            ),
            ("[thresholds.close-wait-leak]\naeg=1", 2, "'aeg'", "'age'"),
            (
                "[thresholds.close-wait-leak]\nage=\"soon\"",
                2,
                "'soon'",
                "a time such as",
            ),
            (
                "[thresholds.close-wait-leak]\nage=-1",
                2,
                "'-1'",
                "a time such as",
            ),
            (
                "[thresholds.close-wait-leak]\nage=true",
                2,
                "a limit, and not true",
                "2min",
            ),
            ("thresholds = 5", 1, "a table, and not 5", "for example"),
            (
                "[override]\nport = 1",
                1,
                "a list of tables",
                "[[override]]",
            ),
            (
                "[[override]]\nprot = 1",
                2,
                "'prot' in [[override]]",
                "'port'",
            ),
            ("[[override]]\nport = 1", 1, "lacks", "thresholds"),
            (over, 1, "lacks", "process, unit"),
            (
                "[[mute]]\nport = 0",
                1,
                "no 'finding'",
                "reason and expires",
            ),
            (
                "[[mute]]\nfinding = \"x\"",
                1,
                "no 'reason'",
                "reason and expires",
            ),
            (&format!("{mute}2027-02-30"), 4, "", ""),
            (&format!("{mute}\"2027-13-01\""), 4, "a date", "2027-01-31"),
            (
                &format!("{mute}2027-01-31T00:00:00Z"),
                4,
                "a date",
                "2027-01-31",
            ),
            (
                &format!("{mute}2027-01-31\nport = 65536"),
                5,
                "a port",
                "65535",
            ),
            (
                &format!("{mute}2027-01-31\ndestination = \"db\""),
                5,
                "an address",
                "10.0.0.5",
            ),
            (
                &format!("{mute}2027-01-31\nprocess = \"\""),
                5,
                "a name",
                "quotes",
            ),
        ] {
            let error = apply_text(text).expect_err(text);
            let start = format!("linger: x.toml:{line}: ");
            let (message, said) = error.split_once("\nhint: ").unwrap();
            assert!(
                message.starts_with(&start) && message.contains(what),
                "{text}: {error}"
            );
            assert!(said.contains(hint), "{text}: {error}");
        }
    }
}
