//! The names of measures: `tcp.STATE`, `listener[PORT].queue`, `process[COMM].STATE`.

use super::{ALL, Context, Measure, process};
use crate::model::TcpState;
use crate::model::nearest::nearest;

/// A measure that was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// which
    pub measure: &'static Measure,
    /// its name as outputs have it: states as in JSON
    pub label: String,
    /// of which state
    pub state: Option<TcpState>,
    /// of which port
    pub port: Option<u16>,
    /// of processes of which name
    pub comm: Option<String>,
    /// of processes of which systemd unit
    pub unit: Option<String>,
}

impl Asked {
    /// That no process or unit seen has the name that is asked for: its number is 0 then, and the name may be a slip.
    pub fn nobody(&self, context: &Context<'_>) -> Option<String> {
        process::nobody(context, self)
    }
}

/// A name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// there is no such measure
    #[error("unknown measure '{text}'")]
    Unknown {
        /// as given
        text: String,
        /// what may have been meant
        near: Option<String>,
    },
    /// it lacks what stands in brackets, or that is none
    #[error("measure '{text}': '{value}' is no {wanted}")]
    Parameter {
        /// as given
        text: String,
        /// between the brackets
        value: String,
        /// what was expected there
        wanted: &'static str,
    },
    /// sockets in this state belong to no process
    #[error("measure '{text}': sockets in {state} belong to no process")]
    NobodyHolds {
        /// as given
        text: String,
        /// the state
        state: TcpState,
    },
}

impl Error {
    /// What to try next.
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown {
                near: Some(near), ..
            } => format!("did you mean '{near}'?"),
            Self::Unknown { near: None, .. } => {
                "'linger check --list-metrics' lists the measures".to_owned()
            }
            Self::Parameter { wanted: "port", .. } => {
                "for example: listener[443].queue-ratio; the listeners of all addresses count"
                    .to_owned()
            }
            Self::Parameter { .. } => "for example: process[nginx].close-wait".to_owned(),
            Self::NobodyHolds { state, .. } => {
                let state = state.slug().unwrap_or_default();
                format!("tcp.{state} counts them; with a FILTER, such as 'sport = :443', of a port")
            }
        }
    }
}

/// A name, or the pattern of one, in its parts.
struct Parts<'a> {
    head: &'a str,
    parameter: Option<&'a str>,
    tail: Vec<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let bracket = text.find('[').zip(text.rfind(']'));
        let (head, parameter, tail) = match bracket {
            Some((from, to)) => (
                text.get(..from)?,
                Some(text.get(from + 1..to)?),
                text.get(to + 1..)?.strip_prefix('.')?,
            ),
            None => {
                let (head, tail) = text.split_once('.')?;
                (head, None, tail)
            }
        };
        Some(Self {
            head,
            parameter,
            tail: tail.split('.').collect(),
        })
    }
}

fn same(a: &str, b: &str) -> bool {
    a.replace('_', "-").eq_ignore_ascii_case(b)
}

/// The measure whose pattern a name has, and the state in the name.
fn find(parts: &Parts<'_>) -> Option<(&'static Measure, Option<TcpState>)> {
    ALL.iter().find_map(|measure| {
        let pattern = Parts::of(measure.name)?;
        let fits = same(parts.head, pattern.head)
            && parts.parameter.is_some() == pattern.parameter.is_some()
            && parts.tail.len() == pattern.tail.len();
        let mut state = None;
        let mut both = parts.tail.iter().zip(&pattern.tail);
        let fits = fits
            && both.all(|(own, wanted)| match *wanted {
                "STATE" => {
                    state = TcpState::parse(own);
                    state.is_some()
                }
                word => same(own, word),
            });
        fits.then_some((measure, state))
    })
}

pub(super) fn parse(text: &str) -> Result<Asked, Error> {
    let text = text.trim();
    let found = Parts::of(text).and_then(|parts| Some((find(&parts)?, parts.parameter)));
    let Some(((measure, state), parameter)) = found else {
        return Err(Error::Unknown {
            text: text.to_owned(),
            near: near(text),
        });
    };
    let wrong = |wanted| Error::Parameter {
        text: text.to_owned(),
        value: parameter.unwrap_or_default().to_owned(),
        wanted,
    };
    let (mut port, mut comm, mut unit) = (None, None, None);
    if measure.name.contains("PORT") {
        let number = parameter.map(|text| text.strip_prefix(':').unwrap_or(text));
        let number = number.and_then(|text| text.parse::<u16>().ok());
        port = Some(
            number
                .filter(|port| *port != 0)
                .ok_or_else(|| wrong("port"))?,
        );
    }
    let is_unit = measure.name.contains("UNIT");
    if is_unit || measure.name.contains("COMM") {
        let name = parameter.filter(|name| !name.trim().is_empty());
        let wanted = if is_unit {
            "name of a unit"
        } else {
            "name of a program"
        };
        let name = Some(name.ok_or_else(|| wrong(wanted))?.to_owned());
        *(if is_unit { &mut unit } else { &mut comm }) = name;
        if let Some(state @ (TcpState::TimeWait | TcpState::SynReceived)) = state {
            return Err(Error::NobodyHolds {
                text: text.to_owned(),
                state,
            });
        }
    }
    let mut label = measure.name.to_owned();
    if let Some(slug) = state.and_then(TcpState::slug) {
        label = label.replace("STATE", slug);
    }
    if let Some(port) = port {
        label = label.replace("PORT", &port.to_string());
    }
    if let Some(comm) = &comm {
        // A program may be called STATE.
        label = label.replacen("COMM", comm, 1);
    }
    if let Some(unit) = &unit {
        label = label.replacen("UNIT", unit, 1);
    }
    Ok(Asked {
        measure,
        label,
        state,
        port,
        comm,
        unit,
    })
}

/// What may have been meant by `text`: the measures with the states and with what stands in its brackets.
fn near(text: &str) -> Option<String> {
    let parameter = text.find('[').zip(text.rfind(']'));
    let parameter = parameter.and_then(|(from, to)| text.get(from + 1..to));
    let states = TcpState::SHOWN.into_iter().filter_map(TcpState::slug);
    let names: Vec<String> = ALL
        .iter()
        .flat_map(|measure| {
            let name = match parameter {
                Some(own) => measure.name.replace("PORT", own).replace("COMM", own),
                None => measure.name.to_owned(),
            };
            let each = states.clone().map(|state| name.replace("STATE", state));
            match measure.name.contains("STATE") {
                true => each.collect(),
                false => vec![name],
            }
        })
        .collect();
    let near = nearest(text, names.iter().map(String::as_str));
    near.first().map(|near| (*near).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> String {
        parse(text).map_or_else(
            |error| format!("{error}; {}", error.hint()),
            |asked| asked.label,
        )
    }

    #[test]
    fn states_are_read_in_any_spelling_and_written_in_one() {
        for text in [
            "tcp.close-wait",
            "tcp.CLOSE_WAIT",
            "TCP.closewait",
            " tcp.Close-Wait ",
        ] {
            assert_eq!(label(text), "tcp.close-wait");
        }
        assert_eq!(label("tcp.estab.growth"), "tcp.established.growth");
        assert_eq!(label("tcp.total.growth"), "tcp.total.growth");
        assert_eq!(
            label("listener[:443].Queue_Ratio"),
            "listener[443].queue-ratio"
        );
        assert_eq!(label("process[COMM].FIN_WAIT2"), "process[COMM].fin-wait-2");
        assert_eq!(label("process[STATE].total"), "process[STATE].total");
        assert_eq!(label("process[a]b.c].total"), "process[a]b.c].total");
        for measure in ALL
            .iter()
            .filter(|measure| !measure.name.contains(['[', 'S']))
        {
            assert_eq!(label(measure.name), measure.name);
        }
    }

    #[test]
    fn a_slip_of_the_fingers_gets_a_name_and_nonsense_the_list() {
        for (text, near) in [
            ("tcp.close-wiat", "'tcp.close-wait'"),
            ("tcp.closewate", "'tcp.close-wait'"),
            ("listener[443].queue-ration", "'listener[443].queue-ratio'"),
            ("process[nginx].close-wat", "'process[nginx].close-wait'"),
            ("conntrack.ration", "'conntrack.ratio'"),
            ("frobnicate", "--list-metrics"),
            ("", "--list-metrics"),
            ("listener.queue", "--list-metrics"),
            ("listener[0].queue", "listener[443].queue-ratio"),
            ("listener[65536].queue", "'65536' is no port"),
            ("listener[10.0.0.1:443].queue", "'10.0.0.1:443' is no port"),
            ("process[].total", "no name of a program"),
            (
                "process[nginx].time-wait",
                "belong to no process; tcp.time-wait",
            ),
        ] {
            let said = label(text);
            assert!(said.contains(near), "{text}: {said}");
        }
    }
}
