//! What a listing shows, in which form, and what that needs.

use std::io::{self, Write};

use super::args::{self, Output};
use super::failure::Failure;
use super::listed::{Choice, Form, PairForm, Writer};
use super::pair::{self, Halves};
use super::tables::Tables;
use super::{fingers, terminal, views};
use crate::collect::Want;
use crate::fields::{self, Field, Needed};
use crate::model::{Protocol, StateSet};
use crate::query::Filter;
use crate::render::csv::Csv;
use crate::render::groups::{Groups, Members};
use crate::render::json::{Head, Pairs, Parts, Sockets};
use crate::render::rows::{Extras, Options, Table};

/// The options of `list`, understood.
pub struct Plan<'a> {
    /// as they were given
    pub args: &'a args::List,
    /// what those of columns ask for
    pub choice: Choice,
    /// the kinds of sockets
    pub tables: Tables,
    /// the form
    pub output: Output,
    /// the parts of a row
    pub parts: Parts,
    /// the columns; empty where JSON has its own, and where those of pairs are the usual ones
    pub columns: Vec<&'static Field>,
    /// what has to be collected to show a row
    pub shown: Needed,
}

impl<'a> Plan<'a> {
    /// Understands the options.
    ///
    /// # Errors
    /// For columns, kinds of sockets and forms that there are not, or that do not go together.
    pub fn new(args: &'a args::List) -> Result<Self, Failure> {
        let choice = Choice::of(args)?;
        let tables = Tables::of(args)?;
        let output = output(args)?;
        if args.pair {
            pair::check(args, output)?;
        }
        if let Some(form) = args.filter.first()
            && args.timers
            && fingers::is_form(form)
        {
            return Err(fingers::not_a_form(form));
        }
        let json = matches!(output, Output::Json | Output::Jsonl);
        let parts = if choice.groups.is_empty() {
            Parts {
                owners: args.processes || args.pair && json,
                info: args.info,
                memory: args.memory,
                extended: args.extended,
            }
        } else {
            Parts::default()
        };
        let columns = if args.pair {
            choice.columns.clone()
        } else {
            views::columns(output, &choice.columns, tables, parts)
        };
        let usual = pair::needed(args.pair && !json && columns.is_empty());
        let shown = choice
            .needed()
            .and(usual)
            .and(Needed::by(&columns))
            .and(Needed {
                extended: parts.extended,
                tos: parts.extended,
                tcp_info: parts.info,
                congestion: parts.info,
                congestion_info: parts.info,
                memory: parts.memory,
                // `-e` shows the unit, which an owner tells where the cgroup's id has no path.
                // The name behind a port id of NETLINK is that of its holder.
                owners: parts.owners || parts.extended || tables.has(Protocol::Netlink),
                cgroup: parts.extended,
            });
        Ok(Self {
            args,
            choice,
            tables,
            output,
            parts,
            columns,
            shown,
        })
    }

    /// Whether rows are written as objects.
    pub const fn json(&self) -> bool {
        matches!(self.output, Output::Json | Output::Jsonl)
    }

    /// Whether groups are counted.
    pub const fn grouped(&self) -> bool {
        !self.choice.groups.is_empty()
    }

    /// Whether a column is shown, counted or sorted by.
    pub fn has(&self, id: &str) -> bool {
        self.choice.has(id) || self.columns.iter().any(|field| field.id == id)
    }

    /// Of several namespaces each row says which one is its own, once; of a table's columns only if none were asked for.
    pub fn name_namespaces(&mut self) {
        let asked = self.args.pair || !self.choice.columns.is_empty();
        if let Ok(netns) = fields::by_id("netns")
            && (self.json() || !asked)
            && self.columns.iter().all(|field| field.id != netns.id)
        {
            self.columns.insert(0, netns);
        }
    }

    /// Asks only for what is shown or judged.
    pub fn want(&self, needed: Needed) -> Want {
        Want {
            ipv4: self.tables.ipv4,
            ipv6: self.tables.ipv6,
            tcp_info: needed.tcp_info,
            memory: needed.memory,
            congestion: needed.congestion,
            congestion_info: needed.congestion_info,
            tos: needed.tos,
            ..Want::states(StateSet::EMPTY)
        }
    }

    /// Writes rows to `out`; with a `head` as one document. `several`: of several namespaces.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn writer<'h, W: Write>(
        &self,
        head: Option<Head<'h>>,
        out: W,
        several: bool,
    ) -> io::Result<Writer<'h, W>> {
        let Self {
            args,
            choice,
            output,
            parts,
            columns,
            ..
        } = self;
        let header = !args.no_header;
        Ok(match (head, output) {
            (head, _) if self.grouped() => Writer::Groups {
                groups: Groups::new(
                    choice.groups.clone(),
                    match output {
                        Output::Table | Output::Wide => Members::None,
                        Output::Json | Output::Jsonl => Members::Json,
                        Output::Csv => Members::Csv,
                    },
                ),
                by: choice.groups.clone(),
                form: match (head, output) {
                    (Some(head), _) => Form::Document(head),
                    (None, Output::Table | Output::Wide) => Form::Table(header),
                    (None, Output::Csv) => Form::Csv(header),
                    (None, _) => Form::Lines,
                },
                out,
            },
            (head, _) if args.pair => Writer::Pairs {
                halves: Halves::new(choice.order, choice.top, self.shown),
                form: match self.json() {
                    true => PairForm::Json(Pairs::new(out, head.as_ref(), *parts, columns)?),
                    false => PairForm::table(out, columns, several, header),
                },
            },
            (Some(head), _) => {
                Writer::Json(Sockets::document(out, &head, *parts)?.with_columns(columns))
            }
            (None, Output::Table | Output::Wide) => Writer::Table(Box::new(Table::new(
                out,
                columns.clone(),
                options(args, *output),
            ))),
            (None, Output::Csv) => Writer::Csv(Csv::new(
                out,
                columns.clone(),
                header,
                terminal::is_terminal(),
            )?),
            (None, _) => Writer::Json(Sockets::lines(out, *parts).with_columns(columns)),
        })
    }

    /// Whether a flood of TIME-WAIT becomes one line: before a person's eyes, unless they asked for something.
    pub fn folds(&self, filter: &Filter) -> bool {
        let args = self.args;
        let asked = args.all
            || args.listening
            || args.bound_inactive
            || args.timers
            || args.sort.is_some()
            || args.top.is_some()
            || !args.group_by.is_empty()
            || !filter.is_empty();
        matches!(self.output, Output::Table | Output::Wide) && !asked && terminal::is_terminal()
    }
}

/// The form of the output: `--json` says no more than that it is not a table; `--output` may say more.
fn output(args: &args::List) -> Result<Output, Failure> {
    match args.output {
        Output::Table if args.common.json => Ok(Output::Json),
        form @ (Output::Csv | Output::Wide) if args.common.json => Err(Failure::usage(
            format!(
                "--json and --output {} are two forms",
                if form == Output::Csv { "csv" } else { "wide" }
            ),
            "leave one of them out".to_owned(),
        )),
        form => Ok(form),
    }
}

fn options(args: &args::List, output: Output) -> Options {
    let wide = output == Output::Wide;
    Options {
        header: !args.no_header,
        extras: Extras {
            timer: args.timers,
            extended: args.extended,
            memory: args.memory,
            info: args.info,
            process: args.processes,
        },
        width: terminal::columns().filter(|_| !wide),
        one_line: args.oneline || wide,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::args::{Cli, Command};
    use super::*;

    /// The columns of rows of several namespaces.
    fn columns(line: &str) -> Vec<&'static str> {
        let Command::List(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("no listing: {line}");
        };
        let Ok(mut plan) = Plan::new(&args) else {
            panic!("no plan: {line}");
        };
        plan.name_namespaces();
        plan.columns.iter().map(|field| field.id).collect()
    }

    #[test]
    fn a_row_names_its_namespace_once() {
        let json = "linger list --output json -c";
        assert_eq!(columns(&format!("{json} netns")), ["netns"]);
        assert_eq!(columns(&format!("{json} state,netns")), ["state", "netns"]);
        assert_eq!(columns(&format!("{json} state")), ["netns", "state"]);
        assert_eq!(columns("linger list -c state"), ["state"], "as asked");
        assert_eq!(columns("linger list").first(), Some(&"netns"));
    }
}
