//! Which detectors run, and with which limits.

use std::collections::BTreeMap;

use super::{Detector, Expected, Threshold, Unit, detectors};

/// What the user chose.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    only: Vec<&'static str>,
    skip: Vec<&'static str>,
    set: BTreeMap<(&'static str, &'static str), f64>,
    expected: Vec<Expected>,
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
    /// not of the form [ADDR:]PORT[=UNIT]
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
            Self::Key { id, .. } => {
                let keys: Vec<_> = detectors::find(id)
                    .map(|detector| detector.thresholds.iter().map(|t| t.key).collect())
                    .unwrap_or_default();
                format!("{id} has: {}", keys.join(", "))
            }
            Self::Value { expected, .. } => format!("give {expected}"),
        }
    }
}

impl Settings {
    /// Runs these detectors only; names as [`detectors::find`] takes them, comma-separated lists included.
    ///
    /// # Errors
    /// For a name that no detector has.
    pub fn only(&mut self, names: &[String]) -> Result<(), Error> {
        self.only.extend(ids(names)?);
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

    /// Sets one limit, as `ID.KEY=VALUE`.
    ///
    /// # Errors
    /// For an unknown id or key, or a value that is none.
    pub fn set(&mut self, text: &str) -> Result<(), Error> {
        let form = || Error::Form {
            text: text.to_owned(),
        };
        let (name, value) = text.split_once('=').ok_or_else(form)?;
        let (id, key) = name.split_once('.').ok_or_else(form)?;
        let detector = detectors::find(id.trim()).ok_or_else(|| Error::Finding {
            name: id.to_owned(),
        })?;
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
        self.set.insert((detector.id, threshold.key), number);
        Ok(())
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
        let value = |threshold: &Threshold| {
            let set = self.set.get(&(detector.id, threshold.key)).copied();
            (threshold.key, set.unwrap_or(threshold.default))
        };
        Limits(detector.thresholds.iter().map(value).collect())
    }
}

fn ids(names: &[String]) -> Result<Vec<&'static str>, Error> {
    let names = names.iter().flat_map(|name| name.split(',')).map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(|name| {
            detectors::find(name)
                .map(|detector| detector.id)
                .ok_or_else(|| Error::Finding {
                    name: name.to_owned(),
                })
        })
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
