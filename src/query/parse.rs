//! From tokens to an expression.
//!
//! ```text
//! EXPR := AND { or AND }
//! AND  := TERM { [and] TERM }
//! TERM := not TERM | ( EXPR ) | CLAUSE | NAME [OPERATOR] VALUE
//! ```
//!
//! `and` binds tighter than `or`. The state clauses of one `AND` are gathered into one set.

use std::iter::Peekable;
use std::ops::Range;

use super::error::{Error, Place, Wanted};
use super::expr::{Address, End, Expr, Host, Op, Pattern, Test, UNASKED};
use super::fixed;
use super::lexer::{Kind as Lexeme, Lexer, Token};
use super::text::Text;
use super::value;
use crate::fields::{self, Field, Kind};
use crate::model::{StateSet, Timer};

/// How deep parentheses and `not` may nest. Nobody writes this, and the stack is finite.
const DEEPEST: usize = 64;

/// The words that begin a clause about states.
pub(super) const CLAUSES: [&str; 3] = ["state", "exclude", "excl"];

/// The words of ss that begin a test, and ours that are no columns.
pub(super) const NAMES: [&str; 11] = [
    "src",
    "dst",
    "sport",
    "dport",
    "port",
    "dev",
    "fwmark",
    "cgroup",
    "autobound",
    "comm",
    "timer",
];

/// What the word before an operator names.
#[derive(Clone, Copy)]
enum Name {
    Host(End),
    Port(End),
    /// of one end or the other
    EitherPort,
    Device,
    Mark,
    Cgroup(&'static Field),
    User,
    Timer,
    Column(&'static Field),
}

impl Name {
    fn of(word: &str) -> Option<Self> {
        let folded = word.to_ascii_lowercase().replace('_', "-");
        Some(match &folded[..] {
            "src" | "local" | "local-address" => Self::Host(End::Local),
            "dst" | "peer" | "peer-address" => Self::Host(End::Peer),
            "sport" | "local-port" => Self::Port(End::Local),
            "dport" | "peer-port" => Self::Port(End::Peer),
            "port" => Self::EitherPort,
            "dev" | "interface" => Self::Device,
            "fwmark" | "mark" => Self::Mark,
            "user" => Self::User,
            "timer" => Self::Timer,
            "comm" => Self::Column(fields::by_id("process").ok()?),
            "cgroup" => Self::Cgroup(fields::by_id("cgroup").ok()?),
            other => {
                let field = fields::by_id(other).ok()?;
                (field.kind() != Kind::Other).then_some(Self::Column(field))?
            }
        })
    }

    /// What stands behind the operator.
    fn value(self) -> Wanted {
        match self {
            Self::Host(_) => Wanted::Host,
            Self::Port(_) | Self::EitherPort => Wanted::Port,
            Self::Device => Wanted::Interface,
            Self::Mark => Wanted::Mark,
            Self::Cgroup(_) => Wanted::Cgroup,
            Self::User => Wanted::User,
            Self::Timer => Wanted::Timer,
            Self::Column(field) if is_cookie(field) => Wanted::Cookie,
            Self::Column(field) if fixed::is_flag(field) => Wanted::Flag,
            Self::Column(field) => match field.kind() {
                Kind::Number => Wanted::Number,
                Kind::Time => Wanted::Time,
                Kind::Bytes => Wanted::Size,
                Kind::Text | Kind::Other => fixed::names(field).map_or(Wanted::Text, Wanted::Name),
            },
        }
    }
}

/// An operator as written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Number(Op),
    Glob,
}

/// The operator, and whether it is negated.
fn operator(token: &Token<'_>) -> Option<(Written, bool)> {
    let text = token.text().to_ascii_lowercase();
    let word = matches!(token.kind, Lexeme::Word(_));
    Some(match (&text[..], word) {
        ("=" | "==", false) | ("eq", true) => (Written::Number(Op::Eq), false),
        ("!=", false) | ("ne" | "neq", true) => (Written::Number(Op::Eq), true),
        ("<", false) | ("lt", true) => (Written::Number(Op::Lt), false),
        ("<=", false) | ("le" | "leq", true) => (Written::Number(Op::Le), false),
        (">", false) | ("gt", true) => (Written::Number(Op::Gt), false),
        (">=", false) | ("ge" | "geq", true) => (Written::Number(Op::Ge), false),
        ("~" | "=~", false) => (Written::Glob, false),
        ("!~", false) => (Written::Glob, true),
        _ => return None,
    })
}

/// A word that joins or negates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Junction {
    And,
    Or,
    Not,
}

fn junction(token: &Token<'_>) -> Option<Junction> {
    let text = token.text();
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    Some(match &token.kind {
        Lexeme::Word(_) if is("and") => Junction::And,
        Lexeme::Word(_) if is("or") => Junction::Or,
        Lexeme::Word(_) if is("not") => Junction::Not,
        Lexeme::Operator("&" | "&&") => Junction::And,
        Lexeme::Operator("|" | "||") => Junction::Or,
        Lexeme::Operator("!") => Junction::Not,
        _ => return None,
    })
}

fn is_clause(token: &Token<'_>) -> bool {
    matches!(&token.kind, Lexeme::Word(word)
        if CLAUSES.iter().any(|clause| word.eq_ignore_ascii_case(clause)))
}

/// Reads a whole expression; `None` if it is blank.
pub(super) fn expression(text: &Text) -> Result<Option<Expr>, Error> {
    let mut parser = Parser {
        text,
        tokens: Lexer::new(text.content()).peekable(),
        depth: 0,
    };
    if parser.tokens.peek().is_none() {
        return Ok(None);
    }
    let expr = parser.any()?;
    match parser.tokens.next() {
        // What `any` leaves is a parenthesis that nobody opened.
        Some(token) => Err(Error::unsupported(parser.at(&token), token.text())),
        None => Ok(Some(expr)),
    }
}

struct Parser<'a> {
    text: &'a Text,
    tokens: Peekable<Lexer<'a>>,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn at(&self, token: &Token<'_>) -> Place {
        self.place(token.span.clone())
    }

    fn place(&self, span: Range<usize>) -> Place {
        self.text.place(span)
    }

    /// The place of the next token, or behind the last one.
    fn here(&mut self) -> Place {
        let end = self.text.content().len();
        let span = self
            .tokens
            .peek()
            .map_or(end..end, |token| token.span.clone());
        self.place(span)
    }

    fn takes(&mut self, wanted: Junction) -> bool {
        self.tokens
            .next_if(|token| junction(token) == Some(wanted))
            .is_some()
    }

    fn any(&mut self) -> Result<Expr, Error> {
        let mut parts = vec![self.all()?];
        while self.takes(Junction::Or) {
            parts.push(self.all()?);
        }
        Expr::any(parts).ok_or_else(|| Error::expected(self.here(), Wanted::Test, None))
    }

    fn all(&mut self) -> Result<Expr, Error> {
        let mut parts = Vec::new();
        // The set that the clauses make so far, and where the first of them stands.
        let mut clauses: Option<(usize, StateSet)> = None;
        loop {
            if self.tokens.peek().is_some_and(is_clause) {
                let (set, exclude) = self.clause()?;
                let before = clauses.map(|(_, set)| set);
                let (at, _) = clauses.unwrap_or((parts.len(), set));
                let set = if exclude {
                    before.unwrap_or(UNASKED).without(set)
                } else {
                    before.unwrap_or(StateSet::EMPTY).union(set)
                };
                clauses = Some((at, set));
            } else {
                parts.push(self.term()?);
            }
            if self.takes(Junction::And) {
                continue;
            }
            let more = self.tokens.peek().is_some_and(|token| {
                junction(token) != Some(Junction::Or) && token.kind != Lexeme::Operator(")")
            });
            if !more {
                break;
            }
        }
        if let Some((at, set)) = clauses {
            parts.insert(at, Expr::States(set));
        }
        Expr::all(parts).ok_or_else(|| Error::expected(self.here(), Wanted::Test, None))
    }

    fn term(&mut self) -> Result<Expr, Error> {
        let Some(token) = self.tokens.next() else {
            return Err(Error::expected(self.here(), Wanted::Test, None));
        };
        if self.depth >= DEEPEST {
            return Err(Error::too_deep(self.at(&token)));
        }
        if junction(&token) == Some(Junction::Not) {
            self.depth += 1;
            let inner = if self.tokens.peek().is_some_and(is_clause) {
                let (set, exclude) = self.clause()?;
                Expr::States(if exclude { UNASKED.without(set) } else { set })
            } else {
                self.term()?
            };
            self.depth -= 1;
            return Ok(inner.negated());
        }
        match &token.kind {
            Lexeme::Operator("(") => {
                self.depth += 1;
                let inner = self.any()?;
                self.depth -= 1;
                match self
                    .tokens
                    .next_if(|token| token.kind == Lexeme::Operator(")"))
                {
                    Some(_) => Ok(inner),
                    None => Err(Error::unclosed(self.at(&token))),
                }
            }
            Lexeme::Word(word) if junction(&token).is_none() => {
                if word.eq_ignore_ascii_case("autobound") {
                    return Ok(Expr::Test(Test::Autobound(None)));
                }
                match Name::of(word) {
                    Some(name) => self.test(&token, name),
                    None if fields::by_id(word).is_ok() => {
                        Err(Error::incomparable(self.at(&token), word))
                    }
                    None => {
                        let compared = self
                            .tokens
                            .peek()
                            .is_some_and(|next| operator(next).is_some());
                        Err(Error::stranger(self.at(&token), word, !compared))
                    }
                }
            }
            _ if junction(&token).is_some() => {
                Err(Error::expected(self.at(&token), Wanted::Test, None))
            }
            _ => Err(Error::unsupported(self.at(&token), token.text())),
        }
    }

    /// What follows a name: an operator, which may be left out where it is `=`, and a value.
    fn test(&mut self, word: &Token<'a>, name: Name) -> Result<Expr, Error> {
        let written = self.tokens.next_if(|token| operator(token).is_some());
        let (op, negated) = written
            .as_ref()
            .and_then(operator)
            .unwrap_or((Written::Number(Op::Eq), false));
        let is_value = |token: &Token<'a>| {
            matches!(token.kind, Lexeme::Word(_))
                // Behind an operator any word is a value, without one a word of the language is not.
                && (written.is_some() || junction(token).is_none() && !is_clause(token))
        };
        let Some(token) = self.tokens.next_if(is_value) else {
            return Err(Error::expected(
                self.here(),
                name.value(),
                Some(word.text()),
            ));
        };
        let text = token.text();
        let ordered = op != Written::Number(Op::Eq);
        if ordered && !may(name, op) {
            let place = written
                .as_ref()
                .map_or_else(|| self.at(word), |op| self.at(op));
            let operator = written.as_ref().map_or("", |op| op.text());
            return Err(Error::operator(place, operator, word.text(), name.value()));
        }
        match read(name, op, text, word.text()) {
            Some(expr) if negated => Ok(expr.negated()),
            Some(expr) => Ok(expr),
            None => Err(Error::value(
                self.at(&token),
                text,
                name.value(),
                word.text(),
            )),
        }
    }

    /// A clause: the set, and whether it is taken away.
    fn clause(&mut self) -> Result<(StateSet, bool), Error> {
        let Some(keyword) = self.tokens.next() else {
            return Ok((StateSet::EMPTY, false));
        };
        let mut exclude = !keyword.text().eq_ignore_ascii_case("state");
        // `state = listen` is what people write who know the other tests.
        if let Some(token) = self.tokens.next_if(|token| operator(token).is_some()) {
            match operator(&token) {
                Some((Written::Number(Op::Eq), negated)) if !(negated && exclude) => {
                    exclude |= negated;
                }
                _ => {
                    let (place, operator) = (self.at(&token), token.text());
                    return Err(Error::operator(
                        place,
                        operator,
                        keyword.text(),
                        Wanted::State,
                    ));
                }
            }
        }
        Ok((self.states(&keyword)?, exclude))
    }

    /// The states after a keyword: one, or several with commas, which may have blanks around them.
    fn states(&mut self, keyword: &Token<'a>) -> Result<StateSet, Error> {
        let mut set = StateSet::EMPTY;
        let mut found = false;
        let mut more = true;
        while more {
            let token = self
                .tokens
                .next_if(|token| matches!(token.kind, Lexeme::Word(_)));
            let Some(token) = token else {
                return Err(Error::missing_state(self.here(), keyword.text()));
            };
            let word = token.text();
            let mut end = 0;
            for name in word.split(',') {
                let start = end;
                end = start + name.len() + 1;
                if name.is_empty() {
                    continue;
                }
                let Some(states) = StateSet::parse(name) else {
                    let place = self.place(token.part(start, name.len()));
                    return Err(Error::unknown_state(place, name));
                };
                set = set.union(states);
                found = true;
            }
            let joined = |token: &Token<'_>| matches!(&token.kind, Lexeme::Word(word) if word.starts_with(','));
            more = !found || word.ends_with(',') || self.tokens.peek().is_some_and(joined);
        }
        Ok(set)
    }
}

/// Whether an operator other than `=` and `!=` makes sense.
fn may(name: Name, op: Written) -> bool {
    match (name, op) {
        (Name::Port(_) | Name::EitherPort, Written::Number(_))
        | (Name::Cgroup(_), Written::Glob) => true,
        (Name::Column(field), Written::Number(_)) => {
            matches!(field.kind(), Kind::Number | Kind::Time | Kind::Bytes)
        }
        (Name::Column(field), Written::Glob) => field.kind() == Kind::Text,
        _ => false,
    }
}

fn read(name: Name, op: Written, text: &str, word: &str) -> Option<Expr> {
    let number = match op {
        Written::Number(op) => op,
        Written::Glob => Op::Eq,
    };
    Some(Expr::Test(match name {
        // As in ss, `src` of a UNIX socket is a pattern of its name.
        Name::Host(End::Local) if unix_name(text).is_some() => Test::Text(
            fields::by_id("local-name").ok()?,
            Pattern::Glob(unix_name(text)?.to_owned()),
        ),
        Name::Host(end) => host(end, value::host(text)?),
        Name::EitherPort => {
            let of = |end| read(Name::Port(end), op, text, word);
            return Expr::any(vec![of(End::Local)?, of(End::Peer)?]);
        }
        Name::Port(end) => {
            let (family, rest) = value::family(text).ok()?;
            let port = value::any_port(rest)?;
            match (port, family) {
                (Some(port), None) => Test::Port(end, number, port),
                (port, family) if number == Op::Eq => Test::Host(
                    end,
                    Host {
                        family,
                        address: Address::Any,
                        port,
                    },
                ),
                // `>= *` says nothing, and a family beside an order is two tests.
                _ => return None,
            }
        }
        Name::Device => Test::Device {
            name: text.to_owned(),
            index: None,
        },
        Name::Mark => {
            let (mark, mask) = value::mark(text)?;
            Test::Mark { mark, mask }
        }
        Name::Cgroup(field) if op == Written::Glob => {
            Test::Text(field, Pattern::Glob(text.to_owned()))
        }
        Name::Cgroup(_) => Test::Cgroup {
            path: text.to_owned(),
            id: None,
        },
        Name::User => Test::User {
            name: text.to_owned(),
            uid: None,
        },
        Name::Timer => Test::Timer(timer(text)?),
        Name::Column(field) => match field.kind() {
            Kind::Number if is_cookie(field) => Test::Number(field, number, value::cookie(text)?),
            Kind::Number => Test::Number(field, number, value::count(text)?),
            Kind::Bytes => Test::Number(field, number, value::size(text)?),
            Kind::Time => Test::Number(field, number, value::time(text, bare(word))?),
            Kind::Text | Kind::Other if op == Written::Glob => {
                Test::Text(field, Pattern::Glob(text.to_owned()))
            }
            Kind::Text | Kind::Other => {
                Test::Text(field, Pattern::Exact(fixed::value(field, text)?.to_owned()))
            }
        },
    }))
}

/// Whether it is the column of cookies, which are written in hexadecimal everywhere.
pub(super) fn is_cookie(field: &Field) -> bool {
    field.id == "cookie"
}

/// Whether a test may begin with the word.
pub(super) fn is_name(word: &str) -> bool {
    Name::of(word).is_some()
}

/// What is no address but the name of a UNIX socket.
fn unix_name(text: &str) -> Option<&str> {
    let named = text.strip_prefix("unix:");
    named.or_else(|| text.starts_with(['/', '@']).then_some(text))
}

/// A port without an address is a test of the port.
fn host(end: End, host: Host) -> Test {
    match host {
        Host {
            family: None,
            address: Address::Any,
            port: Some(port),
        } => Test::Port(end, Op::Eq, port),
        host => Test::Host(end, host),
    }
}

/// What a number without a unit counts in: only a name that has the unit in it says that.
fn bare(word: &str) -> Option<u64> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    if word.ends_with("_us") {
        Some(1)
    } else {
        word.ends_with("_ms").then_some(1_000)
    }
}

/// A timer by its name here or in ss.
fn timer(text: &str) -> Option<Timer> {
    Some(match &text.to_ascii_lowercase()[..] {
        "none" | "off" => Timer::None,
        "retransmit" | "on" => Timer::Retransmit,
        "keepalive" => Timer::Keepalive,
        "time-wait" | "timewait" => Timer::TimeWait,
        "persist" => Timer::Persist,
        _ => return None,
    })
}
