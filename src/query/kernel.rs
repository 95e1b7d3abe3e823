//! What the kernel makes of a program, to hold programs against the evaluator: the audit and the run of
//! `inet_diag_bc_audit()` and `inet_diag_bc_run()` in `net/ipv4/inet_diag.c`, as a plain reading of them.

use proptest::prelude::*;
use proptest::sample::select;

use super::bytecode::{Compiler, Dialect, LONGEST};
use super::expr::{Expr, Test};
use super::props::{Lengths, end, expr, fixture, op, port, test};
use super::{Filter, bytecode, resolve};
use crate::fields::Record;
use crate::fields::tests::{Fixture, TestNames};
use crate::model::{Family, Part, Program, StateSet};

fn u16_at(code: &[u8], at: usize) -> usize {
    u16::from_ne_bytes([code[at], code[at + 1]]).into()
}

fn u32_at(code: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(code[at..at + 4].try_into().unwrap())
}

/// Whether an unprivileged kernel would take the program; `None` for one that needs CAP_NET_ADMIN.
fn audit(code: &[u8]) -> Option<bool> {
    let mut privileged = false;
    let mut starts = vec![code.len()];
    let mut at = 0;
    while at < code.len() {
        starts.push(at);
        at += usize::from(code[at + 1]).max(4);
    }
    let mut at = 0;
    let mut fine = code.len() >= 4;
    while at < code.len() && fine {
        let left = code.len() - at;
        let (yes, no) = (usize::from(code[at + 1]), u16_at(code, at + 2));
        let operand = match code[at] {
            1 | 6 => 0,
            2..=5 | 9 | 11 | 12 => 4,
            7 | 8 => {
                let address = match code[at + 4] {
                    0 => 0,
                    2 => 4,
                    10 => 16,
                    other => panic!("family {other}"),
                };
                fine &= usize::from(code[at + 5]) <= 8 * address;
                8 + address
            }
            10 => {
                privileged = true;
                8
            }
            13 => 8,
            other => panic!("operation {other}"),
        };
        let least = 4 + operand;
        fine &= left >= least;
        fine &= no >= least && no <= left + 4 && no.is_multiple_of(4);
        fine &= no > left || starts.contains(&(at + no));
        fine &= yes >= least && yes <= left + 4 && yes.is_multiple_of(4);
        at += yes;
    }
    fine &= at == code.len();
    (!privileged || !fine).then_some(fine)
}

/// What the kernel knows of a socket when it runs a program.
struct Entry<'a> {
    record: &'a Record<'a>,
    auto: bool,
}

impl Entry<'_> {
    fn accepted(&self, code: &[u8]) -> bool {
        let socket = self.record.socket;
        let (mut at, mut left) = (0, i64::try_from(code.len()).unwrap());
        while left > 0 {
            let end = if [2, 3, 7, 11].contains(&code[at]) {
                socket.local
            } else {
                socket.remote
            };
            let own = usize::from(end.port);
            let holds = match code[at] {
                1 => false,
                11 | 12 => own == u16_at(code, at + 6),
                2 | 4 => own >= u16_at(code, at + 6),
                3 | 5 => own <= u16_at(code, at + 6),
                6 => self.auto,
                9 => u32_at(code, at + 4) == socket.ifindex,
                10 => {
                    let mark = self.record.attributes.mark.unwrap_or_default();
                    mark & u32_at(code, at + 8) == u32_at(code, at + 4)
                }
                13 => {
                    let id = u64::from_ne_bytes(code[at + 4..at + 12].try_into().unwrap());
                    id == self.record.attributes.cgroup_id().unwrap_or_default()
                }
                7 | 8 => {
                    let (family, prefix) = (code[at + 4], usize::from(code[at + 5]));
                    let port = u32_at(code, at + 8);
                    let address: &[u8] = match (family, socket.family) {
                        (0, _) => &[],
                        (2, Family::Ipv4) => &end.address[12..],
                        (2, Family::Ipv6)
                            if end.address[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255] =>
                        {
                            &end.address[12..]
                        }
                        (10, Family::Ipv6) => &end.address,
                        _ => return self.goes(code, at, left, false),
                    };
                    let bit = |bytes: &[u8], n: usize| bytes[n / 8] >> (7 - n % 8) & 1;
                    let wanted = &code[at + 12..];
                    (port == u32::MAX || port as usize == own)
                        && (0..prefix).all(|n| bit(address, n) == bit(wanted, n))
                }
                other => panic!("operation {other}"),
            };
            let step = if holds {
                usize::from(code[at + 1])
            } else {
                u16_at(code, at + 2)
            };
            at += step;
            left -= i64::try_from(step).unwrap();
        }
        left == 0
    }

    /// The rest of a program behind an operation that is decided.
    fn goes(&self, code: &[u8], at: usize, left: i64, holds: bool) -> bool {
        let step = if holds {
            usize::from(code[at + 1])
        } else {
            u16_at(code, at + 2)
        };
        match left - i64::try_from(step).unwrap() {
            // Distances count from the operation, so the rest is a program of its own.
            rest if rest > 0 => self.accepted(&code[at + step..]),
            rest => rest == 0,
        }
    }

    /// Whether each form lets the socket through, the most selective first; none where there is nothing to run.
    fn through(&self, program: &Program) -> Vec<bool> {
        match program.part(Some(self.record.socket.family)) {
            Part::Everything => vec![true],
            Part::Nothing => vec![false],
            Part::Filtered(forms) => forms.iter().map(|form| self.accepted(form)).collect(),
        }
    }
}

fn forms(program: &Program) -> impl Iterator<Item = &Vec<u8>> {
    [&program.ipv4, &program.ipv6]
        .into_iter()
        .flat_map(|part| match part {
            Part::Filtered(forms) => &forms[..],
            Part::Everything | Part::Nothing => &[],
        })
}

/// Looks at `fixture` as a row, with the mark.
fn entry<T>(fixture: &Fixture, mark: Option<u32>, look: impl FnOnce(&Record<'_>) -> T) -> T {
    let mut attributes = fixture.attributes();
    attributes.mark = mark;
    look(&Record {
        socket: &fixture.socket,
        attributes: &attributes,
        ends: crate::model::Ends::Ip,
        owners: Some(&fixture.owners),
        ages: &fixture.ages,
        names: &TestNames,
    })
}

fn resolved(expr: &Expr) -> Filter {
    Filter {
        texts: Vec::new(),
        expr: Some(resolve::resolve(expr.clone(), &[], &mut Lengths).unwrap()),
    }
}

fn joined(leaf: impl Strategy<Value = Expr> + 'static) -> impl Strategy<Value = Expr> {
    leaf.prop_recursive(4, 24, 4, |inner| {
        let parts = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            parts.clone().prop_map(|parts| Expr::all(parts).unwrap()),
            parts.prop_map(|parts| Expr::any(parts).unwrap()),
            inner.prop_map(Expr::negated),
        ]
    })
}

/// Tests that the kernel can do, and their opposites.
fn exact() -> impl Strategy<Value = Expr> {
    let hosts = test().prop_filter("hosts", |test| matches!(test, Test::Host(..)));
    let leaf = prop_oneof![
        4 => hosts,
        4 => (end(), op(), port()).prop_map(|(end, op, port)| Test::Port(end, op, port)),
        1 => "[a-z]{1,4}".prop_map(|name| Test::Device { name, index: None }),
        1 => "[a-z]{1,4}".prop_map(|path| Test::Cgroup { path, id: None }),
        1 => Just(Test::Autobound(None)),
    ];
    joined(leaf.prop_map(Expr::Test))
}

fn mark() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![select(vec![None, Some(0), Some(16)]), any::<Option<u32>>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_kernel_sends_every_row_that_fits(expr in expr(), fixture in fixture(), mark in mark(), auto: bool, room in 0..300usize) {
        let filter = resolved(&expr);
        let fits = |filter: &Filter| entry(&fixture, mark, |record| filter.matches(record));
        let whole = Filter {
            expr: filter.expr.clone().map(|expr| expr.assuming(auto)),
            ..filter.clone()
        };
        let mut found = 0;
        for pass in filter.clone().passes() {
            for form in forms(&pass.program) {
                prop_assert!(audit(form) != Some(false), "{}: {:?}", expr, form);
                prop_assert!(form.len() <= LONGEST);
            }
            let through = entry(&fixture, mark, |record| Entry { record, auto }.through(&pass.program));
            // The pass of the other kind has nothing to say of this row.
            let fits = pass.filter.expr == whole.expr && fits(&whole);
            prop_assert!(!fits || through.iter().all(|through| *through), "{} {:?}", expr, pass.program);
            let sent = through.first() == Some(&true) && pass.filter.states().contains(fixture.socket.state);
            found += usize::from(sent && entry(&fixture, mark, |record| pass.filter.matches(record)));
        }
        // Never twice, and never by a pass that is not its own.
        prop_assert_eq!(found, usize::from(fits(&whole)), "{}", expr);

        // However little room there is.
        if let Some(expr) = whole.expr.filter(|_| fixture.socket.family == Family::Ipv6) {
            let compiler = Compiler { family: Family::Ipv6, states: StateSet::ALL, dialect: Dialect::Full };
            let code = compiler.sieve(&expr, false).shrunk(room).code();
            let through = entry(&fixture, mark, |record| {
                (Entry { record, auto }.accepted(&code), expr.matches(record))
            });
            prop_assert!(code.is_empty() || through.0 || !through.1, "{} in {}", expr, room);
        }
    }

    #[test]
    fn what_the_kernel_can_judge_it_judges_alike(expr in exact(), fixture in fixture(), auto: bool) {
        let mut fixture = fixture;
        fixture.cgroup_id.get_or_insert(3);
        let filter = resolved(&expr);
        let whole = filter.expr.clone().unwrap().assuming(auto);
        let fits = entry(&fixture, None, |record| whole.matches(record));
        let sent = filter.passes().into_iter().filter(|pass| {
            entry(&fixture, None, |record| Entry { record, auto }.through(&pass.program)[0])
        });
        prop_assert_eq!(sent.count(), usize::from(fits), "{}", expr);
    }
}

fn program(text: &str) -> Program {
    let filter = Filter::parse(&[text.to_owned()]).unwrap();
    let passes = filter.resolve(&mut Lengths).unwrap().passes();
    assert_eq!(passes.len(), 1, "{text}");
    passes[0].program.clone()
}

/// The first form for IPv4.
fn first(text: &str) -> Vec<u8> {
    match program(text).ipv4 {
        Part::Filtered(forms) => forms[0].clone(),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn what_the_kernel_cannot_judge_does_not_switch_off_the_rest() {
    let port = first("sport = :443");
    for same in [
        "sport = :443 and process = nginx",
        "rtt > 1ms and sport = :443 and not pid = 1",
        "sport = :443 and (recv-q > 0 or dport = :1)",
        "not (sport != :443 or user = www-data)",
        "state established sport = :443",
        "state established sport = :443 or state listen sport = :443 process = x",
        "fwmark != 1 sport = :443",
    ] {
        let text = program(same);
        let Part::Filtered(forms) = &text.ipv4 else {
            panic!("{same}: {text:?}");
        };
        let both = first(same);
        assert!(
            both.ends_with(&port) || both.starts_with(&port[..1]),
            "{same}: {forms:?}"
        );
        assert!(forms[0].len() <= 2 * port.len() + 4, "{same}: {forms:?}");
    }
    for everything in [
        "process = nginx",
        "sport = :443 or process = nginx",
        "not (sport = :443 and age > 5s)",
        "state listen or sport = :1",
        "dst *",
        "sport >= :0",
        "fwmark != 1",
        "",
    ] {
        assert!(program(everything).is_everything(), "{everything}");
    }
    for nothing in [
        "sport > 65535",
        "not dst *",
        "state listen exclude listen",
        "dport lt 0",
    ] {
        assert!(program(nothing).is_nothing(), "{nothing}");
    }
}

#[test]
fn a_family_that_cannot_fit_is_not_asked_for() {
    let parts = |text| {
        let Program { ipv4, ipv6, .. } = program(text);
        (ipv4 == Part::Nothing, ipv6 == Part::Nothing)
    };
    assert_eq!(parts("src [fd00::]/16"), (true, false));
    assert_eq!(parts("src inet:10.0.0.1"), (false, true));
    assert_eq!(parts("src 10.0.0.1"), (false, false), "v4-mapped");
    assert_eq!(program("src inet6:*").ipv6, Part::Everything);
    assert_eq!(parts("not src inet6:*"), (false, true));
}

#[test]
fn old_kernels_and_the_unprivileged_get_a_form_of_their_own() {
    let codes = |text: &str| match program(text).ipv4 {
        Part::Filtered(forms) => forms.iter().map(|form| form[0]).collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    assert_eq!(codes("sport = :443"), [11, 7], "S_EQ, then S_COND");
    assert_eq!(codes("dport = :443"), [12, 8]);
    assert_eq!(codes("sport >= :443"), [2]);
    assert_eq!(codes("dport < :443"), [5]);
    assert_eq!(codes("dev = lo"), [9], "or no program at all");
    assert_eq!(codes("cgroup = /x sport = :443"), [13, 7]);
    assert_eq!(codes("fwmark = 1 dst 10.0.0.1"), [10, 8]);
    assert_eq!(audit(&first("fwmark = 1")), None, "takes CAP_NET_ADMIN");
    assert_eq!(audit(&first("sport = :443")), Some(true));
}

#[test]
fn a_filter_that_is_too_long_gives_up_its_longest_parts() {
    let hosts = |n: u32| {
        let host = |n: u32| format!("dst {}", std::net::Ipv4Addr::from(0x0a00_0000 + n));
        (0..n).map(host).collect::<Vec<_>>().join(" or ")
    };
    assert!(first(&hosts(100)).len() <= LONGEST);
    assert!(program(&hosts(5_000)).is_everything());
    let long = format!("({}) and sport = :443", hosts(5_000));
    assert_eq!(first(&long), first("sport = :443"));
    let alternatives = format!("dport = :1 or sport = :443 and ({})", hosts(5_000));
    assert_eq!(first(&alternatives), first("dport = :1 or sport = :443"));
}

#[test]
fn autobound_takes_a_dump_for_each_answer_that_can_fit() {
    let passes = |text: &str| {
        let filter = Filter::parse(&[text.to_owned()]).unwrap();
        let passes = filter.resolve(&mut Lengths).unwrap().passes();
        assert!(passes.iter().all(|pass| pass.program.required), "{text}");
        let first = |pass: &super::Pass| match &pass.program.ipv4 {
            Part::Filtered(forms) => forms[0].len(),
            Part::Nothing => 0,
            Part::Everything => panic!("{text}: all"),
        };
        passes.iter().map(first).collect::<Vec<_>>()
    };
    assert_eq!(passes("autobound"), [4, 0]);
    assert_eq!(passes("not autobound"), [0, 8]);
    assert_eq!(passes("autobound sport >= :1024 process = x"), [12, 0]);
    assert_eq!(passes("autobound or sport = :22"), [4, 16]);
    assert_eq!(passes("autobound or process = x"), [4, 8]);
    assert_eq!(passes("autobound and not autobound"), [0, 0]);
}

#[test]
fn the_audit_of_the_tests_refuses_what_the_kernel_does() {
    let port = first("sport = :443");
    assert_eq!(audit(&[]), Some(false));
    assert_eq!(audit(&port[..4]), Some(false), "no operand");
    let with = |at: usize, byte: u8| {
        let mut code = port.clone();
        code[at] = byte;
        audit(&code)
    };
    let low = usize::from(cfg!(target_endian = "big"));
    assert_eq!(with(1, 6), Some(false), "yes is no multiple of 4");
    assert_eq!(with(1, 12), Some(false), "yes leads behind the end");
    assert_eq!(with(2 + low, 16), Some(false), "no leads too far");
    assert_eq!(with(2 + low, 4), Some(false), "no leads into the operand");
    assert_eq!(with(2 + low, 12), Some(true), "a rejection");
    let two = first("sport = :443 and dport = :80");
    assert_eq!(audit(&two), Some(true));
    let mut inside = two.clone();
    inside[2 + low] = 12;
    assert_eq!(audit(&inside), Some(false), "no leads between operations");
}

#[test]
fn states_alone_are_left_to_the_mask() {
    let filter = Filter::parse(&["state listen,established".to_owned()]).unwrap();
    assert!(filter.passes()[0].program.is_everything());
    let expr = Filter::parse(&["state listen sport = :1 or state established".to_owned()]);
    let expr = expr.unwrap().expr.unwrap();
    let listen = StateSet::parse("listen").unwrap();
    let only = bytecode::compile(&expr, listen);
    assert_eq!(only, program("sport = :1"), "no others are asked for");
}
