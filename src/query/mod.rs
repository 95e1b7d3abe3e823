//! The filter language: what `linger list FILTER` selects.
//!
//! It is the language of ss for TCP, by its manual where ss differs from that: state clauses anywhere, `src` and `dst`,
//! `sport` and `dport`, `dev`, `fwmark`, `cgroup`, with `and` binding tighter than `or`. Beyond ss, every column that is a
//! number, a time, a size or text can be compared.
//!
//! [`Filter::parse`] reads it, [`Filter::resolve`] looks up the names in it, [`Filter::within`] adds the states that an
//! alternative without a state clause means, and [`Filter::matches`] judges a row. [`Filter::states`] and the program of
//! [`Filter::passes`] are what a kernel may leave out at once; whatever a kernel filters, every row is judged here too, so
//! that live, `/proc` and captured rows are selected alike.

mod bytecode;
#[cfg(test)]
mod compat;
mod error;
mod eval;
mod expr;
mod fixed;
mod hints;
#[cfg(test)]
mod kernel;
mod lexer;
mod parse;
#[cfg(test)]
mod props;
mod resolve;
#[cfg(test)]
mod slips;
#[cfg(test)]
mod tests;
mod text;
mod value;

use std::fmt;

pub use error::{Error, Place, Wanted};
pub use resolve::Lookup;
pub use value::size;

use crate::fields::{Field, Needed, Needs, Record};
use crate::model::{Program, StateSet};
use expr::{Address, Expr, Host, Test};
use text::Text;

/// Which sockets are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// where it was read, for errors
    texts: Vec<Text>,
    /// `None` is every socket
    expr: Option<Expr>,
}

impl Filter {
    /// Reads a filter from the words of a command line. Blanks separate within words as between them.
    ///
    /// The first state clause decides where the set begins, as in ss: `state` with none, `exclude` with all but
    /// BOUND-INACTIVE; those that follow add and take away in their order.
    ///
    /// # Errors
    /// When a word is not understood, with its place.
    pub fn parse(words: &[String]) -> Result<Self, Error> {
        Self::of(Text::typed(words.join(" ")))
    }

    fn of(text: Text) -> Result<Self, Error> {
        let expr = parse::expression(&text)?;
        Ok(Self {
            texts: vec![text],
            expr,
        })
    }

    /// What fits this filter and the one in a file with this name and content, where lines that begin with `#` are
    /// comments.
    ///
    /// # Errors
    /// When a word of the file is not understood, with its place.
    pub fn and_file(self, name: &str, content: &str) -> Result<Self, Error> {
        let mut other = Self::of(Text::of_file(name, content))?;
        let mut texts = self.texts;
        texts.append(&mut other.texts);
        let both = self.expr.into_iter().chain(other.expr);
        Ok(Self {
            texts,
            expr: Expr::all(both.collect()),
        })
    }

    /// The filter with every name in it looked up. One that has names fits nothing before.
    ///
    /// # Errors
    /// For a name that is not known, with its place.
    pub fn resolve(self, lookup: &mut dyn Lookup) -> Result<Self, Error> {
        let Self { texts, expr } = self;
        let expr = match expr {
            Some(expr) => Some(resolve::resolve(expr, &texts, lookup)?),
            None => None,
        };
        Ok(Self { texts, expr })
    }

    /// The filter with `unasked` as the states of every alternative that names none.
    #[must_use]
    pub fn within(self, unasked: StateSet) -> Self {
        let expr = match self.expr {
            Some(expr) => expr.within(unasked),
            None => Expr::States(unasked),
        };
        Self {
            expr: Some(expr),
            ..self
        }
    }

    /// Whether every socket fits.
    pub const fn is_empty(&self) -> bool {
        self.expr.is_none()
    }

    /// Whether nothing but the state tells one socket from another; `src *` does not.
    pub fn is_states_alone(&self) -> bool {
        let mut alone = true;
        self.each(&mut |test| {
            alone &= matches!(
                test,
                Test::Host(
                    _,
                    Host {
                        family: None,
                        address: Address::Any,
                        port: None,
                    }
                )
            );
        });
        alone
    }

    /// The states in which a socket may fit: the kernel need not send others.
    pub fn states(&self) -> StateSet {
        self.expr
            .as_ref()
            .map_or(StateSet::ALL, |expr| expr.states().0)
    }

    /// The dumps that together have every socket that may fit: one, or two where `autobound` is asked, because of that
    /// the kernel says which rows it holds for only by leaving out the others.
    pub fn passes(self) -> Vec<Pass> {
        let Some(expr) = self.expr.clone().filter(|_| self.asks_autobound()) else {
            let program = self.program();
            return vec![Pass {
                filter: self,
                program,
                autobound: None,
            }];
        };
        let pass = |autobound: bool| {
            let test = Expr::Test(Test::Autobound(None));
            let test = if autobound { test } else { test.negated() };
            let judged = expr.clone().assuming(autobound);
            let both = Expr::all(vec![test, judged.clone()]);
            let program = both.map_or_else(Program::default, |both| {
                bytecode::compile(&both, judged.states().0)
            });
            Pass {
                filter: Self {
                    expr: Some(judged),
                    texts: self.texts.clone(),
                },
                program: Program {
                    required: true,
                    ..program
                },
                autobound: Some(autobound),
            }
        };
        vec![pass(true), pass(false)]
    }

    /// What the kernel may leave out.
    fn program(&self) -> Program {
        self.expr.as_ref().map_or_else(Program::default, |expr| {
            bytecode::compile(expr, self.states())
        })
    }

    /// Whether `autobound` is asked, which only the kernel can judge.
    pub fn asks_autobound(&self) -> bool {
        let mut asks = false;
        self.each(&mut |test| asks |= matches!(test, Test::Autobound(_)));
        asks
    }

    /// What has to be collected to judge a row.
    pub fn needed(&self) -> Needed {
        self.needed_but(&|_| false)
    }

    /// The same where some columns are `known` already.
    pub fn needed_but(&self, known: &dyn Fn(&Field) -> bool) -> Needed {
        let mut needed = Needed::default();
        self.each(&mut |test| {
            needed = needed.with(match test {
                Test::Mark { .. } => Needs::Extended,
                Test::Cgroup { .. } => Needs::Cgroup,
                Test::Number(field, ..) | Test::Text(field, _) if known(field) => Needs::Row,
                Test::Number(field, ..) | Test::Text(field, _) => field.needs,
                _ => Needs::Row,
            });
        });
        needed
    }

    /// Whether marks are compared, which the kernel tells only to CAP_NET_ADMIN.
    pub fn asks_mark(&self) -> bool {
        let mut asks = false;
        self.each(&mut |test| asks |= matches!(test, Test::Mark { .. }));
        asks
    }

    /// Whether network namespaces are told apart.
    pub fn asks_netns(&self) -> bool {
        let mut asks = false;
        self.each(&mut |test| asks |= matches!(test, Test::Text(field, _) if field.id == "netns"));
        asks
    }

    fn each(&self, see: &mut dyn FnMut(&Test)) {
        if let Some(expr) = &self.expr {
            expr.tests(see);
        }
    }

    /// Whether a socket fits. Nothing is allocated.
    pub fn matches(&self, record: &Record<'_>) -> bool {
        self.expr.as_ref().is_none_or(|expr| expr.matches(record))
    }
}

/// One dump: what the kernel is asked to send, and by what its rows are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// judges the rows of this dump only
    pub filter: Filter,
    /// what the kernel may leave out of it
    pub program: Program,
    /// whether its rows are autobound, where that is asked
    pub autobound: Option<bool>,
}

/// As text that reads back as the same filter.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expr.as_ref().map_or(Ok(()), |expr| expr.fmt(f))
    }
}
