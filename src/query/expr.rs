//! A filter as a tree, and the tree as text that reads back as the same tree.

use std::fmt::{self, Display, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::fields::{Field, Kind};
use crate::model::{Family, StateSet, TcpState, Timer};

/// What `exclude` and `not` begin with: all but BOUND-INACTIVE, which is shown only to those who ask for it.
pub(super) const UNASKED: StateSet = StateSet::ALL.without(StateSet::of(TcpState::BoundInactive));

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expr {
    /// all of them, two at least, none of them an `All`
    All(Vec<Self>),
    /// any of them, two at least, none of them an `Any`
    Any(Vec<Self>),
    /// not so
    Not(Box<Self>),
    /// in one of these states
    States(StateSet),
    /// a test of something else
    Test(Test),
}

/// A test of a row, states aside. `!=` is a [`Expr::Not`] around [`Op::Eq`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// an end's address, and its port if one was named
    Host(End, Host),
    /// an end's port
    Port(End, Op, Port),
    /// the interface that the socket is bound to, by its name or number
    Device {
        name: String,
        /// known once the name was looked up
        index: Option<u32>,
    },
    /// `SO_MARK & mask == mark`
    Mark { mark: u32, mask: u32 },
    /// the cgroup, by its path
    Cgroup {
        path: String,
        /// known once the path was looked up on this machine
        id: Option<u64>,
    },
    /// the socket's user, by name or number
    User {
        name: String,
        /// known once the name was looked up
        uid: Option<u32>,
    },
    /// the running timer, or none
    Timer(Timer),
    /// The kernel chose the port, or may choose it anew: no `SOCK_BINDPORT_LOCK`. No row tells; it is known of all rows
    /// of a dump that the kernel filtered by it.
    Autobound(Option<bool>),
    /// a column that is a number; times in microseconds
    Number(&'static Field, Op, u64),
    /// a column that is text
    Text(&'static Field, Pattern),
}

/// One end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Local,
    Peer,
}

/// How a number is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Eq,
    Lt,
    Le,
    Gt,
    Ge,
}

/// What `src` and `dst` take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// the family of the socket, where one was written
    pub(super) family: Option<Family>,
    pub(super) address: Address,
    pub(super) port: Option<Port>,
}

/// Addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// any
    Any,
    /// those that share the first bits; what follows them is 0
    Net {
        /// IPv4 as `::ffff:a.b.c.d`
        bits: u128,
        /// how many of the 128 bits count
        prefix: u8,
        /// written as IPv4: an IPv6 socket with a v4-mapped address has it too
        v4: bool,
    },
    /// a name, to be looked up
    Name(String),
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Number(u16),
    /// a name, to be looked up
    Service(String),
}

/// What text is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// exactly this
    Exact(String),
    /// `*` is any text, `?` one character
    Glob(String),
}

/// The first `prefix` of 128 bits.
pub(super) const fn mask(prefix: u8) -> u128 {
    match prefix {
        0 => 0,
        1..=127 => u128::MAX << (128 - prefix),
        _ => u128::MAX,
    }
}

impl Expr {
    /// All of `parts`; `None` if there is none.
    pub(super) fn all(parts: Vec<Self>) -> Option<Self> {
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Self::All(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        if flat.len() > 1 {
            Some(Self::All(flat))
        } else {
            flat.pop()
        }
    }

    /// Any of `parts`; `None` if there is none.
    pub(super) fn any(parts: Vec<Self>) -> Option<Self> {
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Self::Any(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        if flat.len() > 1 {
            Some(Self::Any(flat))
        } else {
            flat.pop()
        }
    }

    /// The opposite.
    pub(super) fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// The states in which it may hold, and those in which it holds whatever else the row says.
    pub(super) fn states(&self) -> (StateSet, StateSet) {
        match self {
            Self::All(parts) => {
                parts
                    .iter()
                    .fold((StateSet::ALL, StateSet::ALL), |(may, must), part| {
                        let part = part.states();
                        (may.intersection(part.0), must.intersection(part.1))
                    })
            }
            Self::Any(parts) => {
                parts
                    .iter()
                    .fold((StateSet::EMPTY, StateSet::EMPTY), |(may, must), part| {
                        let part = part.states();
                        (may.union(part.0), must.union(part.1))
                    })
            }
            Self::Not(inner) => {
                let (may, must) = inner.states();
                (StateSet::ALL.without(must), StateSet::ALL.without(may))
            }
            Self::States(set) => (*set, *set),
            Self::Test(_) => (StateSet::ALL, StateSet::EMPTY),
        }
    }

    /// The expression for rows of which is known whether the kernel chose their port.
    pub(super) fn assuming(self, autobound: bool) -> Self {
        let each = |parts: Vec<Self>| {
            parts
                .into_iter()
                .map(|part| part.assuming(autobound))
                .collect()
        };
        match self {
            Self::All(parts) => Self::All(each(parts)),
            Self::Any(parts) => Self::Any(each(parts)),
            Self::Not(inner) => inner.assuming(autobound).negated(),
            Self::Test(Test::Autobound(_)) => Self::Test(Test::Autobound(Some(autobound))),
            other => other,
        }
    }

    /// Every test in it.
    pub(super) fn tests(&self, see: &mut dyn FnMut(&Test)) {
        match self {
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().for_each(|part| part.tests(see));
            }
            Self::Not(inner) => inner.tests(see),
            Self::States(_) => {}
            Self::Test(test) => see(test),
        }
    }

    /// Whether a state clause stands anywhere in it.
    pub(super) fn mentions(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::mentions),
            Self::Not(inner) => inner.mentions(),
            Self::States(_) => true,
            Self::Test(_) => false,
        }
    }

    /// Whether a clause that is not under `not` says which states are wanted, in each of its alternatives.
    fn decided(&self) -> bool {
        match self {
            Self::All(parts) => parts.iter().any(Self::decided),
            Self::Any(parts) => parts.iter().all(Self::decided),
            Self::States(_) => true,
            Self::Not(_) | Self::Test(_) => false,
        }
    }

    /// Whether that is so in some alternative.
    fn partly(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::partly),
            Self::States(_) => true,
            Self::Not(_) | Self::Test(_) => false,
        }
    }

    /// The expression with `unasked` as the states of every alternative that names none.
    pub(super) fn within(self, unasked: StateSet) -> Self {
        if self.decided() {
            return self;
        }
        match self {
            Self::Any(parts) if parts.iter().any(Self::mentions) => {
                Self::Any(parts.into_iter().map(|part| part.within(unasked)).collect())
            }
            Self::All(mut parts) if parts.iter().any(Self::partly) => {
                if let Some(part) = parts.iter_mut().find(|part| part.partly()) {
                    let whole = std::mem::replace(part, Self::States(unasked));
                    *part = whole.within(unasked);
                }
                Self::All(parts)
            }
            other => {
                let states = if other.mentions() {
                    unasked.union(UNASKED)
                } else {
                    unasked
                };
                Self::All(match other {
                    Self::All(mut parts) => {
                        parts.insert(0, Self::States(states));
                        parts
                    }
                    other => vec![Self::States(states), other],
                })
            }
        }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(parts) => {
                // Clauses side by side would become one.
                let mut clauses = 0;
                for (at, part) in parts.iter().enumerate() {
                    if at > 0 {
                        f.write_str(" and ")?;
                    }
                    clauses += usize::from(matches!(part, Self::States(_)));
                    let apart = matches!(part, Self::Any(_))
                        || matches!(part, Self::States(_)) && clauses > 1;
                    bracketed(f, part, apart)?;
                }
                Ok(())
            }
            Self::Any(parts) => {
                for (at, part) in parts.iter().enumerate() {
                    if at > 0 {
                        f.write_str(" or ")?;
                    }
                    write!(f, "{part}")?;
                }
                Ok(())
            }
            Self::Not(inner) => {
                f.write_str("not ")?;
                let apart = matches!(**inner, Self::All(_) | Self::Any(_) | Self::States(_));
                bracketed(f, inner, apart)
            }
            Self::States(set) => write_states(f, *set),
            Self::Test(test) => write!(f, "{test}"),
        }
    }
}

fn bracketed(f: &mut fmt::Formatter<'_>, expr: &Expr, apart: bool) -> fmt::Result {
    if apart {
        write!(f, "({expr})")
    } else {
        write!(f, "{expr}")
    }
}

/// The clauses that make the set: from the group that needs the fewest states added and taken away.
fn write_states(f: &mut fmt::Formatter<'_>, set: StateSet) -> fmt::Result {
    let named = TcpState::SHOWN
        .into_iter()
        .fold(StateSet::EMPTY, |all, state| all.union(StateSet::of(state)));
    let states = |set: StateSet| {
        TcpState::SHOWN
            .into_iter()
            .filter(move |state| set.contains(*state))
            .filter_map(TcpState::slug)
    };
    // Besides the states, a group may bring bits that no state has; the last of these brings what `exclude` keeps of them.
    let none = [(String::new(), StateSet::EMPTY)];
    let groups = StateSet::GROUPS.map(|(name, group)| (format!("state {name}"), group));
    let rest = [(
        "state all exclude big".to_owned(),
        StateSet::ALL.without(StateSet::BIG),
    )];
    let bases = none.into_iter().chain(groups).chain(rest);
    let texts = bases
        .filter(|(_, base)| base.without(named) == set.without(named))
        .map(|(mut text, base)| {
            let add: Vec<&str> = states(set.without(base)).collect();
            let take: Vec<&str> = states(base.without(set)).collect();
            for (keyword, states) in [("state", add), ("exclude", take)] {
                if !states.is_empty() {
                    let blank = if text.is_empty() { "" } else { " " };
                    text.push_str(&format!("{blank}{keyword} {}", states.join(",")));
                }
            }
            text
        });
    match texts.min_by_key(String::len) {
        Some(text) if !text.is_empty() => f.write_str(&text),
        _ => f.write_str("state listen exclude listen"),
    }
}

impl Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(end, host) => write!(f, "{} = {host}", end.host()),
            Self::Port(end, op, port) => write!(f, "{} {} :{port}", end.port(), op.text()),
            Self::Device { name, .. } => write!(f, "dev = {}", Word(name)),
            Self::Mark { mark, mask } if *mask == u32::MAX => write!(f, "fwmark = 0x{mark:x}"),
            Self::Mark { mark, mask } => write!(f, "fwmark = 0x{mark:x}/0x{mask:x}"),
            Self::Cgroup { path, .. } => write!(f, "cgroup = {}", Word(path)),
            Self::User { name, .. } => write!(f, "user = {}", Word(name)),
            Self::Autobound(_) => f.write_str("autobound"),
            Self::Timer(timer) => write!(f, "timer = {}", timer.name().unwrap_or("none")),
            Self::Number(field, op, value) if super::parse::is_cookie(field) => {
                write!(f, "{} {} 0x{value:x}", field.id, op.text())
            }
            Self::Number(field, op, value) => {
                let unit = match field.kind() {
                    Kind::Time => "us",
                    _ => "",
                };
                write!(f, "{} {} {value}{unit}", field.id, op.text())
            }
            Self::Text(field, Pattern::Exact(text)) => write!(f, "{} = {}", field.id, Word(text)),
            Self::Text(field, Pattern::Glob(text)) => write!(f, "{} ~ {}", field.id, Word(text)),
        }
    }
}

impl End {
    const fn host(self) -> &'static str {
        match self {
            Self::Local => "src",
            Self::Peer => "dst",
        }
    }

    const fn port(self) -> &'static str {
        match self {
            Self::Local => "sport",
            Self::Peer => "dport",
        }
    }
}

impl Op {
    const fn text(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }

    /// Whether `a` stands in this relation to `b`.
    pub(super) const fn holds(self, a: u64, b: u64) -> bool {
        match self {
            Self::Eq => a == b,
            Self::Lt => a < b,
            Self::Le => a <= b,
            Self::Gt => a > b,
            Self::Ge => a >= b,
        }
    }
}

impl Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family {
            Some(Family::Ipv4) => f.write_str("inet:")?,
            Some(Family::Ipv6) => f.write_str("inet6:")?,
            None => {}
        }
        match &self.address {
            Address::Any => f.write_char('*')?,
            Address::Net { bits, prefix, v4 } if *v4 => {
                let address = Ipv6Addr::from(*bits)
                    .to_ipv4_mapped()
                    .unwrap_or(Ipv4Addr::UNSPECIFIED);
                write!(f, "{address}")?;
                if *prefix < 128 {
                    write!(f, "/{}", prefix.saturating_sub(96))?;
                }
            }
            Address::Net { bits, prefix, .. } => {
                write!(f, "[{}", Ipv6Addr::from(*bits))?;
                if *prefix < 128 {
                    write!(f, "/{prefix}")?;
                }
                f.write_char(']')?;
            }
            Address::Name(name) => write!(f, "{}", Word(name))?,
        }
        match &self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Service(name) => write!(f, "{}", Word(name)),
        }
    }
}

/// Text as one word of an expression.
struct Word<'a>(&'a str);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_whitespace() || super::lexer::is_special(c) {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        Ok(())
    }
}
