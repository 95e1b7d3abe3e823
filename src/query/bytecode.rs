//! A filter as a program for the kernel (`INET_DIAG_REQ_BYTECODE`), which then copies only the rows that may fit.
//!
//! The program is a rough sieve: it lets through every row that the evaluator accepts. A test that the kernel cannot do
//! may hold, and so may its opposite; the tests beside it go on to count. So the expression is first brought into a form
//! without `not`, where leaving a test out can only let more through.
//!
//! The layout is that of `inet_diag_bc_run()` and `inet_diag_bc_audit()` in `net/ipv4/inet_diag.c`: an operation is a
//! code, the distance to the next one if it holds (`yes`) and if not (`no`), and its operand. A socket is accepted that
//! arrives exactly at the end, and rejected that arrives 4 bytes behind it. `yes` always leads to the operation that
//! follows, and all distances lead forward.

use super::expr::{Address, End, Expr, Host, Op, Port, Test};
use crate::model::{Family, Part, Program, StateSet};

/// The longest program in bytes. The kernel's audit takes time in its square, and it runs for every socket of the table
/// with a lock held; distances have 16 bits.
pub(super) const LONGEST: usize = 4096;

/// An operation's code, `yes` and `no`.
const HEAD: usize = 4;

// `include/uapi/linux/inet_diag.h`
const JMP: u8 = 1;
const S_GE: u8 = 2;
const S_LE: u8 = 3;
const D_GE: u8 = 4;
const D_LE: u8 = 5;
const AUTO: u8 = 6;
const S_COND: u8 = 7;
const D_COND: u8 = 8;
const DEV_COND: u8 = 9;
const MARK_COND: u8 = 10;
const S_EQ: u8 = 11;
const D_EQ: u8 = 12;
const CGROUP_COND: u8 = 13;

// `include/linux/socket.h`
const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Which operations may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// those of Linux 5.8, marks included, which take CAP_NET_ADMIN
    Full,
    /// those that every kernel has and every user may use
    Plain,
}

/// The program for a filter. Only rows in `states` are asked for.
pub(super) fn compile(expr: &Expr, states: StateSet) -> Program {
    let part = |family| {
        let compiled = |dialect| {
            let compiler = Compiler {
                family,
                states,
                dialect,
            };
            compiler.sieve(expr, false).shrunk(LONGEST)
        };
        let (full, plain) = (compiled(Dialect::Full), compiled(Dialect::Plain));
        match full {
            Sieve::Always => Part::Everything,
            Sieve::Never => Part::Nothing,
            full => {
                let mut forms = vec![full.code()];
                // Of two that say the same the first is the shorter one, but it is not for old kernels.
                if full != plain && plain != Sieve::Always {
                    forms.push(plain.code());
                }
                Part::Filtered(forms)
            }
        }
    };
    Program {
        ipv4: part(Family::Ipv4),
        ipv6: part(Family::Ipv6),
        required: false,
    }
}

/// What the kernel can judge of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sieve {
    Always,
    Never,
    Holds(Operation),
    Fails(Operation),
    All(Vec<Self>),
    Any(Vec<Self>),
}

/// A test of the kernel's, with its operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    code: u8,
    operand: Vec<u8>,
}

impl Operation {
    const fn size(&self) -> usize {
        HEAD + self.operand.len()
    }
}

/// Compiles for one family's table.
pub(super) struct Compiler {
    pub(super) family: Family,
    pub(super) states: StateSet,
    pub(super) dialect: Dialect,
}

impl Compiler {
    /// What must hold for `expr`, or for its opposite.
    pub(super) fn sieve(&self, expr: &Expr, opposite: bool) -> Sieve {
        // Of the rows that are asked for some expressions hold by their states alone.
        let (may, must) = expr.states();
        if self.states.intersection(may).is_empty() {
            return Sieve::constant(opposite);
        }
        if self.states.without(must).is_empty() {
            return Sieve::constant(!opposite);
        }
        let each = |parts: &[Expr]| {
            parts
                .iter()
                .map(|part| self.sieve(part, opposite))
                .collect()
        };
        match (expr, opposite) {
            (Expr::Not(inner), _) => self.sieve(inner, !opposite),
            (Expr::All(parts), false) | (Expr::Any(parts), true) => Sieve::all(each(parts)),
            (Expr::Any(parts), false) | (Expr::All(parts), true) => Sieve::any(each(parts)),
            (Expr::States(_), _) => Sieve::Always,
            (Expr::Test(test), _) => self.test(test, opposite),
        }
    }

    fn test(&self, test: &Test, opposite: bool) -> Sieve {
        let exact = match test {
            Test::Host(end, host) => self.host(*end, host),
            Test::Port(end, op, Port::Number(number)) => Some(self.port(*end, *op, *number)),
            Test::Device {
                index: Some(index), ..
            } => self.newer(DEV_COND, index.to_ne_bytes().to_vec()),
            // The kernel keeps the mark of mini-sockets, and old ones do not tell it: of these it fits no comparison.
            Test::Mark { mark, mask } if !opposite => {
                let operand = [mark.to_ne_bytes(), mask.to_ne_bytes()].concat();
                self.newer(MARK_COND, operand)
            }
            Test::Cgroup { id: Some(id), .. } => self.newer(CGROUP_COND, id.to_ne_bytes().to_vec()),
            Test::Autobound(None) => Some(Sieve::operation(AUTO, Vec::new())),
            Test::Autobound(Some(known)) => Some(Sieve::constant(*known)),
            _ => None,
        };
        match exact {
            Some(sieve) if opposite => sieve.opposite(),
            Some(sieve) => sieve,
            None => Sieve::Always,
        }
    }

    fn newer(&self, code: u8, operand: Vec<u8>) -> Option<Sieve> {
        (self.dialect == Dialect::Full).then(|| Sieve::operation(code, operand))
    }

    fn host(&self, end: End, host: &Host) -> Option<Sieve> {
        if host.family.is_some_and(|family| family != self.family) {
            return Some(Sieve::Never);
        }
        let port = match &host.port {
            Some(Port::Number(number)) => Some(*number),
            Some(Port::Service(_)) => return None,
            None => None,
        };
        let (family, prefix, bytes) = match &host.address {
            Address::Any => {
                return Some(port.map_or(Sieve::Always, |port| self.port(end, Op::Eq, port)));
            }
            Address::Net {
                bits, prefix, v4, ..
            } => {
                let bytes = bits.to_be_bytes();
                if *v4 {
                    // The kernel finds it in v4-mapped addresses too.
                    let address = bytes.last_chunk::<4>()?.to_vec();
                    (AF_INET, prefix.checked_sub(96)?, address)
                } else if self.family == Family::Ipv4 {
                    return Some(Sieve::Never);
                } else {
                    (AF_INET6, *prefix, bytes.to_vec())
                }
            }
            Address::Name(_) => return None,
        };
        Some(condition(end, family, prefix, &bytes, port))
    }

    fn port(&self, end: End, op: Op, port: u16) -> Sieve {
        let operation = |local: u8, peer: u8, port: u16| {
            let code = match end {
                End::Local => local,
                End::Peer => peer,
            };
            // The operand is a second operation whose `no` is the port.
            let [low, high] = port.to_ne_bytes();
            Sieve::operation(code, vec![0, 0, low, high])
        };
        let at_least = |port: u16| match port {
            0 => Sieve::Always,
            port => operation(S_GE, D_GE, port),
        };
        let at_most = |port: u16| match port {
            u16::MAX => Sieve::Always,
            port => operation(S_LE, D_LE, port),
        };
        match op {
            // Since Linux 4.20; before, a condition without an address says the same.
            Op::Eq if self.dialect == Dialect::Full => operation(S_EQ, D_EQ, port),
            Op::Eq => condition(end, AF_UNSPEC, 0, &[], Some(port)),
            Op::Ge => at_least(port),
            Op::Le => at_most(port),
            Op::Gt => port.checked_add(1).map_or(Sieve::Never, at_least),
            Op::Lt => port.checked_sub(1).map_or(Sieve::Never, at_most),
        }
    }
}

/// `struct inet_diag_hostcond`: the family, the length of the prefix, two bytes of padding, the port or -1, the address.
fn condition(end: End, family: u8, prefix: u8, address: &[u8], port: Option<u16>) -> Sieve {
    let code = match end {
        End::Local => S_COND,
        End::Peer => D_COND,
    };
    let mut operand = vec![family, prefix, 0, 0];
    operand.extend(port.map_or(-1, i32::from).to_ne_bytes());
    operand.extend(address);
    Sieve::operation(code, operand)
}

impl Sieve {
    const fn constant(holds: bool) -> Self {
        if holds { Self::Always } else { Self::Never }
    }

    const fn operation(code: u8, operand: Vec<u8>) -> Self {
        Self::Holds(Operation { code, operand })
    }

    fn all(parts: Vec<Self>) -> Self {
        let mut kept = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Self::Always => {}
                Self::Never => return Self::Never,
                other => kept.push(other),
            }
        }
        match (kept.pop(), kept.is_empty()) {
            (None, _) => Self::Always,
            (Some(only), true) => only,
            (Some(last), false) => {
                kept.push(last);
                Self::All(kept)
            }
        }
    }

    fn any(parts: Vec<Self>) -> Self {
        let mut kept = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Self::Never => {}
                Self::Always => return Self::Always,
                other => kept.push(other),
            }
        }
        match (kept.pop(), kept.is_empty()) {
            (None, _) => Self::Never,
            (Some(only), true) => only,
            (Some(last), false) => {
                kept.push(last);
                Self::Any(kept)
            }
        }
    }

    /// The opposite of a single test.
    fn opposite(self) -> Self {
        match self {
            Self::Always => Self::Never,
            Self::Never => Self::Always,
            Self::Holds(operation) => Self::Fails(operation),
            Self::Fails(operation) => Self::Holds(operation),
            Self::All(parts) => Self::any(parts.into_iter().map(Self::opposite).collect()),
            Self::Any(parts) => Self::all(parts.into_iter().map(Self::opposite).collect()),
        }
    }

    /// The most bytes that the code takes.
    fn size(&self) -> usize {
        match self {
            Self::Always | Self::Never => HEAD,
            // Behind the operation there may be a jump.
            Self::Holds(operation) | Self::Fails(operation) => operation.size() + HEAD,
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::size).sum(),
        }
    }

    /// A sieve of at most `room` bytes that lets through at least as much. Of what must hold together the parts are kept
    /// for which there is room; alternatives are kept all, or none is of use.
    pub(super) fn shrunk(self, room: usize) -> Self {
        if self.size() <= room {
            return self;
        }
        match self {
            Self::All(mut parts) => {
                // The short ones first, so that a long list does not push them out.
                parts.sort_by_key(Self::size);
                let mut left = room;
                let mut kept = Vec::new();
                for part in parts {
                    let part = part.shrunk(left);
                    if part != Self::Always {
                        left = left.saturating_sub(part.size());
                        kept.push(part);
                    }
                }
                Self::all(kept)
            }
            Self::Any(mut parts) => {
                // Each gets its share, and what those before it have left over.
                parts.sort_by_key(Self::size);
                let mut left = room;
                let mut kept = Vec::new();
                let mut more = parts.len();
                for part in parts {
                    let part = part.shrunk(left / more.max(1));
                    left = left.saturating_sub(part.size());
                    more -= 1;
                    kept.push(part);
                }
                Self::any(kept)
            }
            _ => Self::Always,
        }
    }

    /// The code.
    pub(super) fn code(&self) -> Vec<u8> {
        let mut code = Code::default();
        code.write(self, Target::Accept, Target::Reject, Target::Accept);
        code.linked()
    }
}

/// Where a jump goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Accept,
    Reject,
    /// the place with this number
    Place(usize),
}

/// Operations whose jumps have no distances yet.
#[derive(Debug, Default)]
struct Code {
    bytes: Vec<u8>,
    /// where an operation begins, and where its `no` leads
    jumps: Vec<(usize, Target)>,
    /// the offsets of the places, once known
    places: Vec<usize>,
}

impl Code {
    /// Writes `sieve` so that it goes to `yes` if it holds and to `no` if not; `next` is what follows it.
    fn write(&mut self, sieve: &Sieve, yes: Target, no: Target, next: Target) {
        match sieve {
            Sieve::Always => self.jump(yes, next),
            Sieve::Never => self.jump(no, next),
            Sieve::Holds(operation) => {
                self.operation(operation, no);
                self.jump(yes, next);
            }
            Sieve::Fails(operation) => {
                self.operation(operation, yes);
                self.jump(no, next);
            }
            Sieve::All(parts) => self.chain(parts, |after| (after, no), yes, no, next),
            Sieve::Any(parts) => self.chain(parts, |after| (yes, after), yes, no, next),
        }
    }

    /// Writes parts of which all but the last go to what follows them in one case, as `targets` says.
    fn chain(
        &mut self,
        parts: &[Sieve],
        targets: impl Fn(Target) -> (Target, Target),
        yes: Target,
        no: Target,
        next: Target,
    ) {
        let Some((last, parts)) = parts.split_last() else {
            return;
        };
        for part in parts {
            let place = self.places.len();
            self.places.push(0);
            let after = Target::Place(place);
            let (yes, no) = targets(after);
            self.write(part, yes, no, after);
            let here = self.bytes.len();
            if let Some(offset) = self.places.get_mut(place) {
                *offset = here;
            }
        }
        self.write(last, yes, no, next);
    }

    fn operation(&mut self, operation: &Operation, no: Target) {
        self.jumps.push((self.bytes.len(), no));
        // No operation is longer than 28 bytes.
        let yes = u8::try_from(operation.size()).unwrap_or(u8::MAX);
        self.bytes.extend([operation.code, yes, 0, 0]);
        self.bytes.extend(&operation.operand);
    }

    fn jump(&mut self, to: Target, next: Target) {
        if to != next {
            self.jumps.push((self.bytes.len(), to));
            self.bytes.extend([JMP, 4, 0, 0]);
        }
    }

    /// The bytes, with the distances.
    fn linked(mut self) -> Vec<u8> {
        let end = self.bytes.len();
        for (at, target) in self.jumps {
            let to = match target {
                Target::Accept => end,
                Target::Reject => end + HEAD,
                Target::Place(place) => self.places.get(place).copied().unwrap_or(end),
            };
            // LONGEST keeps it in 16 bits.
            let distance = u16::try_from(to.saturating_sub(at)).unwrap_or(u16::MAX);
            if let Some(no) = self.bytes.get_mut(at + 2..at + HEAD) {
                no.copy_from_slice(&distance.to_ne_bytes());
            }
        }
        self.bytes
    }
}
