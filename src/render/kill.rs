//! `linger kill` as text: the preview, and the report of what was done.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::rows::{Extras, Options, Table, default_columns};
use super::text::{Safe, wrap};
use crate::fields::{Names, Record};
use crate::knowledge::killing::{Effect, Fate, effect};
use crate::model::words::{count, thousands};
use crate::model::{AgeFacts, Attributes, Ends, Owners, Socket};

/// So many rows are looked through; a preview of more says how many there are.
const SHOWN: usize = 100;

/// The column of what is said below the table.
const INDENT: usize = 15;

/// The sockets that fit, and what belongs to them.
#[derive(Clone, Copy)]
pub struct Killing<'a> {
    /// each with its fate
    pub sockets: &'a [(Socket, Fate)],
    /// who holds them
    pub owners: &'a Owners,
    /// the names of interfaces
    pub names: &'a dyn Names,
    /// the columns of the terminal
    pub width: usize,
}

impl Killing<'_> {
    /// Shows a socket as a record.
    pub fn record<T>(&self, socket: &Socket, show: impl FnOnce(&Record<'_>) -> T) -> T {
        show(&Record {
            socket,
            attributes: &Attributes::default(),
            ends: Ends::Ip,
            owners: Some(self.owners),
            ages: &AgeFacts::default(),
            names: self.names,
        })
    }

    fn fated(&self, of: impl Fn(&Fate) -> bool) -> impl Iterator<Item = &(Socket, Fate)> {
        self.sockets.iter().filter(move |(_, fate)| of(fate))
    }

    /// The table of some of them, a line for each and the head first.
    fn table<'s>(&self, rows: impl Iterator<Item = &'s Socket>) -> io::Result<String> {
        let options = Options {
            header: true,
            extras: Extras {
                process: true,
                ..Extras::default()
            },
            ..Options::default()
        };
        let mut table = Table::new(Vec::new(), default_columns(), options);
        for socket in rows {
            self.record(socket, |record| table.push(record))?;
        }
        Ok(String::from_utf8_lossy(&table.finish()?).into_owned())
    }

    /// What would die, what its ends would notice, what is left alone and why; `again` is the command that acts.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn preview(&self, again: &str, out: &mut dyn Write) -> io::Result<()> {
        let doomed = |fate: &Fate| *fate == Fate::WouldDestroy;
        let number = self.fated(doomed).count();
        if number > 0 {
            let first = self.fated(doomed).map(|(socket, _)| socket).take(SHOWN);
            out.write_all(self.table(first)?.as_bytes())?;
            if number > SHOWN {
                writeln!(out, "... and {} more", thousands((number - SHOWN) as u64))?;
            }
            let said = format!(
                "{}; nothing has been touched",
                count(number as u64, "socket")
            );
            writeln!(out)?;
            self.line(out, "would destroy", &said)?;
            let mut effects = BTreeMap::<(&str, Effect), u64>::new();
            for (socket, _) in self.fated(doomed) {
                let state = socket.state_name().unwrap_or("UNKNOWN");
                *effects.entry((state, effect(socket))).or_default() += 1;
            }
            for ((state, effect), number) in effects {
                let said = format!("{}: {}; {}", thousands(number), effect.program, effect.peer);
                self.line(out, state, &said)?;
            }
        }
        self.left_alone(out)?;
        if number > 0 {
            // A command is not wrapped: it is there to be copied.
            writeln!(out, "{:INDENT$}{again}", "next")?;
        }
        Ok(())
    }

    /// What became of each; `capture` is the file that has them, and the command that shows it.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn report(&self, capture: Option<(&str, &str)>, out: &mut dyn Write) -> io::Result<()> {
        let tried = |fate: &Fate| !matches!(fate, Fate::Refused(_));
        if self.fated(tried).next().is_some() {
            let table = self.table(self.fated(tried).map(|(socket, _)| socket))?;
            let results = self.fated(tried).map(|(_, fate)| fate.name());
            for (line, result) in table.lines().zip(std::iter::once("Result").chain(results)) {
                writeln!(out, "{result:<9}  {line}")?;
            }
            writeln!(out)?;
        }
        let destroyed = self.fated(|fate| *fate == Fate::Destroyed).count() as u64;
        self.line(out, "destroyed", &count(destroyed, "socket"))?;
        for (name, of) in [
            ("vanished", is_vanished as fn(&Fate) -> bool),
            ("failed", is_failed),
        ] {
            let mut reasons = BTreeMap::<&str, u64>::new();
            for (_, fate) in self.fated(of) {
                *reasons
                    .entry(fate.reason().unwrap_or_default())
                    .or_default() += 1;
            }
            for (reason, number) in reasons {
                self.line(out, name, &format!("{}: {reason}", thousands(number)))?;
            }
        }
        self.left_alone(out)?;
        if let Some((path, again)) = capture {
            writeln!(out, "{:INDENT$}{}", "capture", Safe(path))?;
            writeln!(out, "{:INDENT$}{again}", "next")?;
        }
        Ok(())
    }

    /// What fits and is not touched, and why.
    fn left_alone(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut groups = BTreeMap::<(&str, &str, Option<&str>), u64>::new();
        for (socket, fate) in self.sockets {
            if let Fate::Refused(objection) = fate {
                let state = socket.state_name().unwrap_or("UNKNOWN");
                *groups
                    .entry((state, objection.why, objection.option))
                    .or_default() += 1;
            }
        }
        let all: u64 = groups.values().sum();
        if all == 0 {
            return Ok(());
        }
        self.line(out, "left alone", &count(all, "socket"))?;
        for ((state, why, option), number) in groups {
            let option = option.map_or(String::new(), |option| {
                format!(" ({option}: destroy it all the same)")
            });
            self.line(out, state, &format!("{}: {why}{option}", thousands(number)))?;
        }
        Ok(())
    }

    /// A name, and beside it what there is to say.
    fn line(&self, out: &mut dyn Write, name: &str, said: &str) -> io::Result<()> {
        let said = wrap(said, self.width.saturating_sub(INDENT).max(20), 0);
        for (at, line) in said.lines().enumerate() {
            let name = if at == 0 { name } else { "" };
            writeln!(out, "{name:<INDENT$}{}", Safe(line))?;
        }
        Ok(())
    }
}

fn is_vanished(fate: &Fate) -> bool {
    matches!(fate, Fate::Vanished(_))
}

fn is_failed(fate: &Fate) -> bool {
    matches!(fate, Fate::Failed(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::NoNames;
    use crate::fields::tests::{Fixture, owners};
    use crate::knowledge::killing::{CLOSE_WAIT, TIME_WAIT};
    use crate::model::TcpState;

    fn socket(state: TcpState) -> Socket {
        Socket {
            state,
            ..Fixture::new().socket
        }
    }

    fn shown(sockets: &[(Socket, Fate)], write: impl Fn(&Killing<'_>, &mut Vec<u8>)) -> String {
        let killing = Killing {
            sockets,
            owners: &owners(&["ng\u{1b}inx"]),
            names: &NoNames,
            width: 80,
        };
        let mut out = Vec::new();
        write(&killing, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_preview_shows_what_would_die_and_what_would_not() {
        let sockets = [
            (socket(TcpState::Established), Fate::WouldDestroy),
            (socket(TcpState::CloseWait), Fate::Refused(&CLOSE_WAIT)),
            (socket(TcpState::Established), Fate::WouldDestroy),
        ];
        let text = shown(&sockets, |killing, out| {
            killing.preview("linger kill dst ::1 --yes", out).unwrap();
        });
        let rows = text.lines().filter(|line| line.contains("ng\\x1binx[101]"));
        assert_eq!(rows.count(), 2, "{text}");
        for part in [
            "would destroy  2 sockets; nothing has been touched\n",
            "ESTABLISHED    2: its program gets ECONNABORTED at the next use; the peer gets a\n",
            "left alone     1 socket\n",
            "CLOSE-WAIT     1: ",
            "--close-wait",
            "\nnext           linger kill dst ::1 --yes\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        let below = text.lines().skip_while(|line| !line.is_empty());
        assert!(
            below.clone().count() > 5 && below.clone().all(|line| line.len() <= 80),
            "{text}"
        );
    }

    #[test]
    fn where_nothing_may_die_no_command_is_offered() {
        let sockets = [(socket(TcpState::TimeWait), Fate::Refused(&TIME_WAIT))];
        let text = shown(&sockets, |killing, out| {
            killing.preview("linger kill", out).unwrap();
        });
        assert!(text.starts_with("left alone     1 socket\n"), "{text}");
        assert!(!text.contains("\nnext"), "{text}");
    }

    #[test]
    fn a_long_preview_is_folded_and_counted() {
        for (number, more) in [(100, None), (101, Some("... and 1 more\n"))] {
            let sockets = vec![(socket(TcpState::Established), Fate::WouldDestroy); number];
            let text = shown(&sockets, |killing, out| killing.preview("x", out).unwrap());
            let rows = text.lines().filter(|line| line.contains("[101]")).count();
            assert_eq!(rows, 100);
            assert_eq!(text.contains("... and"), more.is_some());
            assert!(more.is_none_or(|more| text.contains(more)), "{text}");
            assert!(text.contains(&format!("would destroy  {number} sockets")));
        }
    }

    #[test]
    fn a_report_says_what_became_of_each() {
        let sockets = [
            (socket(TcpState::Established), Fate::Destroyed),
            (
                socket(TcpState::SynSent),
                Fate::Vanished("it was gone before".to_owned()),
            ),
            (
                socket(TcpState::Established),
                Fate::Failed("EINVAL".to_owned()),
            ),
            (socket(TcpState::CloseWait), Fate::Refused(&CLOSE_WAIT)),
        ];
        let text = shown(&sockets, |killing, out| {
            let capture = ("/x/kill.linger", "linger list -ap --from /x/kill.linger");
            killing.report(Some(capture), out).unwrap();
        });
        let first: Vec<&str> = text
            .lines()
            .take(4)
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(first, ["Result", "destroyed", "vanished", "failed"]);
        for part in [
            "\ndestroyed      1 socket\n",
            "vanished       1: it was gone before\n",
            "failed         1: EINVAL\n",
            "left alone     1 socket\n",
            "capture        /x/kill.linger\nnext           linger list -ap --from /x/kill.linger\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }
}
