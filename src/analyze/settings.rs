//! Which detectors run, and with which limits.

use std::collections::BTreeMap;

use jiff::civil::Date;

use super::scope::Scope;
use super::{Detector, Expected, Threshold, Unit, detectors};

/// Limits by the detector's id and the threshold's key.
type Set = BTreeMap<(&'static str, &'static str), f64>;

/// What the user chose: in the configuration, and on the command line, which wins.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    only: Vec<&'static str>,
    skip: Vec<&'static str>,
    configured: Set,
    overrides: Vec<Override>,
    mutes: Vec<Mute>,
    set: Set,
    expected: Vec<Expected>,
}

/// Limits for some subjects only.
#[derive(Clone, Debug, Default)]
pub struct Override {
    /// for which
    pub scope: Scope,
    set: Set,
}

impl Override {
    /// Of no limits yet.
    pub const fn new(scope: Scope) -> Self {
        Self {
            scope,
            set: Set::new(),
        }
    }

    /// Sets one limit.
    ///
    /// # Errors
    /// For an unknown id or key, or a value that is none.
    pub fn set(&mut self, id: &str, key: &str, value: &str) -> Result<(), Error> {
        let (name, value) = limit(id, key, value)?;
        self.set.insert(name, value);
        Ok(())
    }

    /// The limits that it sets of one detector, by key.
    pub fn limits(&self, detector: &Detector) -> Vec<(&'static str, f64)> {
        let of = self.set.iter().filter(|((id, _), _)| *id == detector.id);
        of.map(|((_, key), value)| (*key, *value)).collect()
    }
}

/// Findings that are not to count, for a time.
#[derive(Clone, Debug)]
pub struct Mute {
    /// the detector's id
    pub id: &'static str,
    /// about which subjects
    pub scope: Scope,
    /// why
    pub reason: String,
    /// the last day, of UTC, on which it holds
    pub expires: Date,
    /// where it stands, for whoever has to renew it
    pub place: String,
}

/// A setting that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// no detector has this name
    #[error("unknown finding '{name}'")]
    Finding {
        /// as given
        name: String,
    },
    /// not of the form ID.KEY=VALUE
    #[error("'{text}' is not of the form FINDING.KEY=VALUE")]
    Form {
        /// as given
        text: String,
    },
    /// not of the form `[ADDR:]PORT[=UNIT]`
    #[error("'{text}' is no listener of the form [ADDR:]PORT[=UNIT]")]
    Listener {
        /// as given
        text: String,
    },
    /// the detector has no such limit
    #[error("finding '{id}' has no threshold '{key}'")]
    Key {
        /// the detector
        id: &'static str,
        /// as given
        key: String,
    },
    /// not a number of that unit
    #[error("'{value}' is not {expected} for {id}.{key}")]
    Value {
        /// the detector
        id: &'static str,
        /// the limit
        key: &'static str,
        /// as given
        value: String,
        /// what was expected
        expected: &'static str,
    },
}

impl Error {
    /// What to try next.
    pub fn hint(&self) -> String {
        let ids = || detectors::ALL.iter().map(|detector| detector.id);
        match self {
            Self::Finding { name } => {
                let near = crate::model::nearest::nearest(name, ids());
                match near.first() {
                    Some(near) => format!("did you mean '{near}'?"),
                    None => format!("findings are: {}", ids().collect::<Vec<_>>().join(", ")),
                }
            }
            Self::Form { .. } => "for example: --threshold close-wait-leak.age=2min".to_owned(),
            Self::Listener { .. } => {
                "for example: 443, 10.0.0.1:5432, [::1]:8080 or 443=nginx.service".to_owned()
            }
            Self::Key { id, key } => {
                let keys: Vec<_> = detectors::find(id)
                    .map(|detector| detector.thresholds.iter().map(|t| t.key).collect())
                    .unwrap_or_default();
                let near = crate::model::nearest::nearest(key, keys.iter().copied());
                let slip = near.first().map(|near| format!("did you mean '{near}'? "));
                format!("{}{id} has: {}", slip.unwrap_or_default(), keys.join(", "))
            }
            Self::Value { expected, .. } => format!("give {expected}"),
        }
    }
}

impl Settings {
    /// Runs these detectors only, whatever was chosen or left out before; without names nothing changes. Names are as
    /// [`detectors::find`] takes them, comma-separated lists included.
    ///
    /// # Errors
    /// For a name that no detector has.
    pub fn only(&mut self, names: &[String]) -> Result<(), Error> {
        if !names.is_empty() {
            self.only = ids(names)?;
            self.skip.clear();
        }
        Ok(())
    }

    /// Leaves these detectors out.
    ///
    /// # Errors
    /// For a name that no detector has.
    pub fn skip(&mut self, names: &[String]) -> Result<(), Error> {
        self.skip.extend(ids(names)?);
        Ok(())
    }

    /// Sets one limit, as `ID.KEY=VALUE`, whatever the configuration says of it.
    ///
    /// # Errors
    /// For an unknown id or key, or a value that is none.
    pub fn set(&mut self, text: &str) -> Result<(), Error> {
        let form = || Error::Form {
            text: text.to_owned(),
        };
        let (name, value) = text.split_once('=').ok_or_else(form)?;
        let (id, key) = name.split_once('.').ok_or_else(form)?;
        let (name, value) = limit(id, key, value)?;
        self.set.insert(name, value);
        Ok(())
    }

    /// Sets one limit as the configuration does.
    ///
    /// # Errors
    /// For an unknown id or key, or a value that is none.
    pub fn configure(&mut self, id: &str, key: &str, value: &str) -> Result<(), Error> {
        let (name, value) = limit(id, key, value)?;
        self.configured.insert(name, value);
        Ok(())
    }

    /// Adds the overrides and mutes of one file. Of several overrides that fit, the first of the file read last wins.
    pub fn adopt(&mut self, overrides: Vec<Override>, mutes: Vec<Mute>) {
        self.overrides.splice(0..0, overrides);
        self.mutes.extend(mutes);
    }

    /// What is not to count.
    pub fn mutes(&self) -> &[Mute] {
        &self.mutes
    }

    /// The overrides of this detector's limits, the first that fits wins.
    pub fn overrides(&self, detector: &Detector) -> Vec<&Override> {
        let sets = |one: &&Override| one.set.keys().any(|(id, _)| *id == detector.id);
        self.overrides.iter().filter(sets).collect()
    }

    /// The detector's limits where `over` fits.
    pub fn limits_under(&self, detector: &Detector, over: &Override) -> Limits {
        self.resolve(detector, &[&self.set, &over.set, &self.configured])
    }

    /// Expects a listener to be there, as `[ADDR:]PORT[=UNIT]`.
    ///
    /// # Errors
    /// For what is not of this form.
    pub fn expect(&mut self, text: &str) -> Result<(), Error> {
        let expected = Expected::parse(text).ok_or_else(|| Error::Listener {
            text: text.to_owned(),
        })?;
        self.expected.push(expected);
        Ok(())
    }

    /// The same without listeners that have to be there.
    #[must_use]
    pub fn without_expected(mut self) -> Self {
        self.expected.clear();
        self
    }

    /// The listeners that have to be there.
    pub fn expected(&self) -> &[Expected] {
        &self.expected
    }

    /// Whether no detector runs.
    pub fn is_empty(&self) -> bool {
        !detectors::ALL.iter().any(|detector| self.selects(detector))
    }

    /// Whether the detector runs.
    pub fn selects(&self, detector: &Detector) -> bool {
        (self.only.is_empty() || self.only.contains(&detector.id))
            && !self.skip.contains(&detector.id)
    }

    /// Whether the detector was asked for by name.
    pub fn names(&self, detector: &Detector) -> bool {
        self.only.contains(&detector.id)
    }

    /// The detector's limits.
    pub fn limits(&self, detector: &Detector) -> Limits {
        self.resolve(detector, &[&self.set, &self.configured])
    }

    /// Each limit from the first set that has it.
    fn resolve(&self, detector: &Detector, sets: &[&Set]) -> Limits {
        let value = |threshold: &Threshold| {
            let name = (detector.id, threshold.key);
            let set = sets.iter().find_map(|set| set.get(&name).copied());
            (threshold.key, set.unwrap_or(threshold.default))
        };
        Limits(detector.thresholds.iter().map(value).collect())
    }
}

/// A limit by its names, and its value.
fn limit(id: &str, key: &str, value: &str) -> Result<((&'static str, &'static str), f64), Error> {
    let detector = find(id.trim())?;
    let threshold = detector
        .thresholds
        .iter()
        .find(|threshold| threshold.key == key.trim())
        .ok_or_else(|| Error::Key {
            id: detector.id,
            key: key.to_owned(),
        })?;
    let number = parse(threshold.unit, value.trim()).ok_or_else(|| Error::Value {
        id: detector.id,
        key: threshold.key,
        value: value.to_owned(),
        expected: expected(threshold.unit),
    })?;
    Ok(((detector.id, threshold.key), number))
}

/// The detector of this name.
///
/// # Errors
/// For a name that no detector has.
pub fn find(name: &str) -> Result<&'static Detector, Error> {
    detectors::find(name).ok_or_else(|| Error::Finding {
        name: name.to_owned(),
    })
}

fn ids(names: &[String]) -> Result<Vec<&'static str>, Error> {
    let names = names.iter().flat_map(|name| name.split(',')).map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(|name| find(name).map(|detector| detector.id))
        .collect()
}

const fn expected(unit: Unit) -> &'static str {
    match unit {
        Unit::Count | Unit::PerSecond => "a number, not negative",
        Unit::Seconds => "a time such as 90s, 5min or 1h30m",
        Unit::Percent => "a share such as 50%",
    }
}

fn parse(unit: Unit, text: &str) -> Option<f64> {
    let number = |text: &str| text.parse::<f64>().ok();
    let value = match unit {
        Unit::Count => number(text),
        Unit::PerSecond => number(text.strip_suffix("/s").unwrap_or(text)),
        Unit::Percent => number(text.strip_suffix('%').unwrap_or(text).trim()),
        Unit::Seconds => number(text).or_else(|| {
            let span: jiff::SignedDuration = text.parse().ok()?;
            Some(span.as_secs_f64())
        }),
    }?;
    (value.is_finite() && value >= 0.0).then_some(value)
}

/// A detector's limits, by key.
#[derive(Clone, Debug)]
pub struct Limits(BTreeMap<&'static str, f64>);

impl Limits {
    /// The limit `key`. A detector asks only for its own keys, which debug builds check; anything else is
    /// a limit that nothing reaches.
    pub fn get(&self, key: &str) -> f64 {
        debug_assert!(self.0.contains_key(key), "no such limit: {key}");
        self.0.get(key).copied().unwrap_or(f64::INFINITY)
    }

    /// These limits, as nobody has changed them.
    pub fn of(thresholds: &[Threshold]) -> Self {
        Self(
            thresholds
                .iter()
                .map(|threshold| (threshold.key, threshold.default))
                .collect(),
        )
    }

    /// A limit in seconds as milliseconds.
    pub fn ms(&self, key: &str) -> u64 {
        // Saturates: an endless limit is never reached.
        (self.get(key) * 1000.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Result<f64, Error> {
        let mut settings = Settings::default();
        settings.set(text)?;
        let (id, _) = text.split_once('.').unwrap();
        let key = text.split(['.', '=']).nth(1).unwrap();
        Ok(settings.limits(detectors::find(id).unwrap()).get(key))
    }

    #[test]
    fn thresholds_are_read_in_their_unit() {
        assert_eq!(set("close-wait-leak.age=2s"), Ok(2.0));
        assert_eq!(set("close-wait-leak.age=2min"), Ok(120.0));
        assert_eq!(set("close-wait-leak.age=90"), Ok(90.0));
        assert_eq!(set("close-wait-leak.share=75%"), Ok(75.0));
        assert_eq!(
            set("close-wait-stale.age=1h"),
            Ok(3600.0),
            "every name in the heading is accepted"
        );
    }

    #[test]
    fn nonsense_is_named() {
        assert!(matches!(
            set("close-wait-leek.age=1s"),
            Err(Error::Finding { .. })
        ));
        assert!(matches!(
            set("close-wait-leak.aeg=1s"),
            Err(Error::Key { .. })
        ));
        for value in ["-1s", "NaN", "inf", "soon", ""] {
            let error = set(&format!("close-wait-leak.age={value}")).unwrap_err();
            assert!(matches!(error, Error::Value { .. }), "{value}");
        }
        assert!(matches!(set("age.1"), Err(Error::Form { .. })));
        let unknown = Error::Finding {
            name: "close-wait-leek".into(),
        };
        assert_eq!(unknown.hint(), "did you mean 'close-wait-leak'?");
    }

    #[test]
    fn only_and_skip_take_lists_and_aliases() {
        let mut settings = Settings::default();
        settings
            .only(&["close-wait-stale,listen-overflow".into()])
            .unwrap();
        settings.skip(&["listen-overflow".into()]).unwrap();
        let selected: Vec<_> = detectors::ALL
            .iter()
            .filter(|d| settings.selects(d))
            .map(|d| d.id)
            .collect();
        assert_eq!(selected, ["close-wait-leak"]);
    }
}
