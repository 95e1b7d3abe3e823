//! What the kernel leaves out when it is asked by a filter, with sockets of every kind in the namespace: it sends every
//! row that fits, few that do not, and the answer is that of a filter which the kernel knows nothing of.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use anyhow::{Context, Result, ensure};
use linger::collect::live::{Choice, Live};
use linger::collect::netlink::Netlink;
use linger::collect::procfs::ProcRoot;
use linger::collect::{self, Row, Source, Want};
use linger::fields::{NoNames, Record};
use linger::model::{AgeFacts, Ends, Part, Program, Socket as Listed, StateSet};
use linger::query::Filter;
use linger::record::Capture;

use crate::harness::Test;
use crate::scene::{BOUND, DEVICE, DUAL, GROUPED, MARKED, Names, scene};
use crate::sys::{self, Refusal};
use crate::world::{Family, World, listen};

pub const TESTS: &[Test] = &[
    Test {
        name: "each_operation_of_the_kernels_filter_selects",
        run: each_operation_of_the_kernels_filter_selects,
    },
    Test {
        name: "what_the_kernel_filters_is_what_fits",
        run: what_the_kernel_filters_is_what_fits,
    },
    Test {
        name: "a_refused_program_is_done_without",
        run: a_refused_program_is_done_without,
    },
    Test {
        name: "autobound_is_what_the_kernel_says",
        run: autobound_is_what_the_kernel_says,
    },
];

fn filter(text: &str) -> Result<Filter> {
    let parsed = Filter::parse(&[text.to_owned()]).with_context(|| text.to_owned())?;
    Ok(parsed.resolve(&mut Names)?.within(StateSet::ALL))
}

/// A socket's cookie, and the port and state by which a person knows it.
type Seen = BTreeMap<u64, (u16, String)>;

fn key(socket: &Listed) -> (u64, (u16, String)) {
    let cookie = socket.cookie.map_or(0, u64::from);
    (cookie, (socket.local.port, socket.state.to_string()))
}

fn fits(filter: &Filter, row: &Row<'_>) -> bool {
    let (socket, attributes, _) = row.parts();
    filter.matches(&Record {
        socket: &socket,
        attributes: &attributes,
        ends: Ends::Ip,
        owners: None,
        ages: &AgeFacts::default(),
        names: &NoNames,
    })
}

/// Every row that the kernel sends when it is asked by `program`, judged by nobody.
fn sent(states: StateSet, program: &Program) -> Result<Seen, collect::Error> {
    let mut seen = Seen::new();
    let want = Want::states(states);
    let mut take = |row: Row<'_>| {
        if let Row::Inet { socket, .. } = row {
            seen.extend([key(&socket)]);
        }
        ControlFlow::Continue(())
    };
    Netlink::open()?.dump(&want, program, &mut take, None)?;
    Ok(seen)
}

/// What the passes of a filter select.
fn selected(filter: &Filter) -> Result<Seen> {
    let mut seen = Seen::new();
    for pass in filter.clone().passes() {
        let want = Want::states(pass.filter.states());
        let mut take = |row: Row<'_>| {
            if fits(&pass.filter, &row)
                && let Row::Inet { socket, .. } = row
            {
                seen.extend([key(&socket)]);
            }
            ControlFlow::Continue(())
        };
        Netlink::open()?.dump(&want, &pass.program, &mut take, None)?;
    }
    Ok(seen)
}

/// What fits of `machine`'s rows, and all of them. `autobound` are the cookies of those that are.
fn judged(machine: &mut dyn Source, filter: &Filter, autobound: &Seen) -> Result<(Seen, Seen)> {
    let (mut seen, mut all) = (Seen::new(), Seen::new());
    let passes = filter.clone().passes();
    machine.dump(&Want::states(StateSet::ALL), &mut |row| {
        if let Row::Inet { socket, .. } = row {
            let (cookie, is) = key(&socket);
            let auto = autobound.contains_key(&cookie);
            let ours = passes
                .iter()
                .find(|pass| pass.autobound.is_none_or(|wanted| wanted == auto));
            if ours.is_some_and(|pass| fits(&pass.filter, &row)) {
                seen.insert(cookie, is.clone());
            }
            all.insert(cookie, is);
        }
        ControlFlow::Continue(())
    })?;
    Ok((seen, all))
}

/// Those of `seen` that are in `other` as they are here.
fn lasting(mut seen: Seen, other: &Seen) -> Seen {
    seen.retain(|cookie, is| other.get(cookie) == Some(is));
    seen
}

fn live() -> Live {
    Live::new(Choice::Netlink, ProcRoot::default())
}

fn autobound() -> Result<Seen> {
    let program = filter("autobound")?.passes().swap_remove(0).program;
    Ok(sent(StateSet::ALL, &program)?)
}

/// Of each form of a program, the kernel's answer to it alone.
fn forms(program: &Program) -> Vec<Program> {
    let count = |part: &Part| match part {
        Part::Filtered(forms) => forms.len(),
        Part::Everything | Part::Nothing => 1,
    };
    let only = |part: &Part, at: usize| match part {
        Part::Filtered(forms) => {
            let form = forms.get(at).or(forms.last());
            Part::Filtered(form.cloned().into_iter().collect())
        }
        other => other.clone(),
    };
    let most = count(&program.ipv4).max(count(&program.ipv6));
    (0..most)
        .map(|at| Program {
            ipv4: only(&program.ipv4, at),
            ipv6: only(&program.ipv6, at),
            required: true,
        })
        .collect()
}

fn each_operation_of_the_kernels_filter_selects(world: &mut World) -> Result<()> {
    let (scene, _specimens) = scene(world)?;
    let all = sent(StateSet::ALL, &Program::default())?;
    let (chosen, bound) = (scene.chosen, scene.bound);
    let v6 = world.families().contains(&Family::V6);
    let twice = |port: u16| vec![port; world.families().len()];
    let none = Vec::new;
    let mut table = vec![
        (format!("sport = :{BOUND}"), 11, twice(BOUND)),
        (format!("dport = :{chosen}"), 12, none()),
        (
            format!("sport >= :{bound} sport <= :{bound} src 127.0.0.1"),
            2,
            vec![bound],
        ),
        (
            format!("sport < :{} sport > :7099", BOUND + 1),
            3,
            twice(BOUND),
        ),
        (format!("dport <= :{bound} dport >= :{bound}"), 5, none()),
        (
            format!("dport > :{} dport < :{}", bound - 1, bound + 1),
            4,
            none(),
        ),
        (format!("src 10.99.0.1:{MARKED}"), 7, vec![MARKED]),
        (format!("src 127.0.0.0/8:{chosen}"), 7, vec![chosen]),
        (format!("dst 127.0.0.1:{bound}"), 8, none()),
        (format!("not src 10.99.0.0/16 sport = :{MARKED}"), 7, none()),
        ("dev = near0".to_owned(), 9, twice(DEVICE)),
        (format!("dev != near0 sport = :{DEVICE}"), 9, none()),
        ("fwmark = 0x10".to_owned(), 10, twice(MARKED)),
        (
            format!("fwmark = 0x10/0xf0 sport = :{MARKED}"),
            10,
            twice(MARKED),
        ),
        (
            format!("(sport = :{BOUND} or sport = :{MARKED}) not src 10.99.0.1"),
            11,
            none(),
        ),
        (format!("autobound src 127.0.0.1:{chosen}"), 6, vec![chosen]),
        (
            format!("not autobound src 127.0.0.1:{bound}"),
            6,
            vec![bound],
        ),
    ];
    if v6 {
        table.push((
            format!("src ::ffff:10.99.0.1 sport = :{DUAL}"),
            7,
            vec![DUAL],
        ));
        table.push((format!("src 10.99.0.1:{DUAL}"), 7, vec![DUAL]));
        table.push((format!("src [fd99::]/16:{MARKED}"), 7, vec![MARKED]));
        table.push((format!("src inet6:*:{DUAL}"), 11, vec![DUAL, DUAL]));
        table.push((format!("dst 10.99.0.2 sport = :{DUAL}"), 8, vec![DUAL]));
    }
    if let Some(group) = &scene.group {
        let path = group.directory.display();
        table.push((format!("cgroup = {path}"), 13, vec![GROUPED]));
        table.push((
            format!("cgroup != {path} sport = :{GROUPED}"),
            13,
            Vec::new(),
        ));
    }
    for (text, code, ports) in table {
        let filter = filter(&text)?;
        let (expected, _) = judged(&mut live(), &filter, &autobound()?)?;
        let passes = filter.passes();
        let mut operations = BTreeSet::new();
        let mut through = Vec::new();
        for pass in &passes {
            for part in [&pass.program.ipv4, &pass.program.ipv6] {
                if let Part::Filtered(forms) = part {
                    operations.extend(forms.iter().take(1).flat_map(|form| codes(form)));
                }
            }
            for (at, form) in forms(&pass.program).iter().enumerate() {
                // Nothing is done without: a refusal is an error here.
                let rows = sent(pass.filter.states(), form).with_context(|| text.clone())?;
                // The second form leaves marks, devices and cgroups to the receiver.
                world.expect(at == 0 || rows.len() >= through.len(), || text.clone());
                if at == 0 {
                    through.extend(rows);
                }
            }
        }
        world.expect(operations.contains(&code), || {
            format!("{text}: operation {code} is not among {operations:?}")
        });
        let through: Seen = through.into_iter().collect();
        world.expect(through == expected, || {
            format!("{text}: the kernel sent {through:?}, fitting are {expected:?}")
        });
        world.expect(through.len() < all.len(), || {
            format!("{text}: nothing is left out")
        });
        let found: Vec<u16> = through.values().map(|(port, _)| *port).collect();
        let mut expected = ports;
        expected.sort_unstable();
        let mut sorted = found.clone();
        sorted.sort_unstable();
        // Those without a list of ports are of ends whose ports nobody chose.
        world.expect(expected.is_empty() || sorted == expected, || {
            format!("{text}: ports {sorted:?} instead of {expected:?}")
        });
    }
    // Everything that can be said with states, and both families of a name, in one.
    let both = filter("dst far and (state established or state time-wait) and process ~ *")?;
    let rows = sent(both.states(), &both.passes().swap_remove(0).program)?;
    let (far, _) = judged(
        &mut live(),
        &filter("dst far state established,time-wait")?,
        &Seen::new(),
    )?;
    world.expect(rows == far && far.len() > 3, || {
        format!("{rows:?} instead of {far:?}")
    });
    Ok(())
}

/// The operations of a program, operands left out.
fn codes(form: &[u8]) -> Vec<u8> {
    let mut codes = Vec::new();
    let mut rest = form;
    while let [code, length, ..] = rest {
        codes.push(*code);
        rest = rest.get(usize::from(*length)..).unwrap_or_default();
    }
    codes
}

/// Numbers that are the same in each run (xorshift, Marsaglia 2003).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap_or_default()
    }

    fn of<'a>(&mut self, words: &'a [String]) -> &'a str {
        let at = self.below(words.len());
        words.get(at).map_or("", String::as_str)
    }

    /// An expression of the tests, some deep.
    fn expression(&mut self, tests: &[String], depth: usize) -> String {
        match self.below(if depth == 0 { 1 } else { 5 }) {
            0 => self.of(tests).to_owned(),
            1 => format!("not ({})", self.expression(tests, depth - 1)),
            n => {
                let word = if n == 2 { "or" } else { "and" };
                let [a, b] = [0, 1].map(|_| self.expression(tests, depth - 1));
                format!("({a}) {word} ({b})")
            }
        }
    }
}

fn what_the_kernel_filters_is_what_fits(world: &mut World) -> Result<()> {
    let (scene, specimens) = scene(world)?;
    let mut tests: Vec<String> = [
        "src 10.99.0.1",
        "src 10.99.0/24",
        "src [fd99::]/16",
        "src ::ffff:10.99.0.1",
        "src inet:*",
        "src inet6:*",
        "src 0.0.0.0/0",
        "src ::/0",
        "src 0.0.0.0",
        "dst far",
        "dst any",
        "dst 127.0.0.1",
        "dst != 10.99.0.77",
        "dport = 0",
        "dport lt 7002",
        "dport ge 7002",
        "sport >= 32768",
        "sport > 65534",
        "sport <= 7100",
        "sport = 65535",
        "dev = near0",
        "dev = lo",
        "dev != near0",
        "recv-q > 0",
        "send-q > 0",
        "uid = 0",
        "inode = 0",
        "state established",
        "state listen,time-wait",
        "exclude connected",
        "state bound-inactive",
    ]
    .map(str::to_owned)
    .to_vec();
    tests.push(format!("sport = {BOUND}"));
    tests.push(format!("sport != {DEVICE}"));
    tests.push(format!("src :{}", scene.chosen));
    tests.extend(specimens.iter().take(6).map(|specimen| {
        let local = specimen.local;
        format!("src {local} dport = {}", specimen.peer_port)
    }));
    // What a capture tells as a live kernel does.
    let plain = tests.clone();
    tests.push("autobound".to_owned());
    tests.extend(["fwmark = 0x10", "fwmark = 0", "fwmark != 0/1"].map(str::to_owned));
    if let Some(group) = &scene.group {
        tests.push(format!("cgroup = {}", group.directory.display()));
    }

    let file = world.scratch.path().join("sockets.linger");
    let name = file.to_str().context("an odd temporary directory")?;
    let recorded = world.linger(&["record", name])?;
    ensure!(recorded.status.success(), "{recorded:?}");
    let mut capture = Capture::open(&file)?;

    let (mut numbers, mut filtered, mut some, mut compared) = (Numbers(0x5eed), 0, 0, 0);
    for round in 0..300 {
        let of = if round % 2 == 0 { &tests } else { &plain };
        let text = numbers.expression(of, 3);
        let filter = filter(&text)?;
        // A socket may go on to its next state between two dumps; not again and again.
        let mut differ = None;
        for _ in 0..3 {
            let fast = selected(&filter)?;
            let auto = if filter.asks_autobound() {
                autobound()?
            } else {
                Seen::new()
            };
            let (slow, now) = judged(&mut live(), &filter, &auto)?;
            some += usize::from(!fast.is_empty() && fast.len() < now.len());
            differ = (fast != slow).then(|| format!("{text}: {fast:?} with, {slow:?} without"));
            let told = filter.asks_autobound() || filter.asks_mark() || text.contains("cgroup");
            if differ.is_none() && !told {
                let (replayed, then) = judged(&mut capture, &filter, &Seen::new())?;
                // Some sockets are gone since, or have gone on to their next state.
                let (replayed, slow) = (lasting(replayed, &now), lasting(slow, &then));
                compared += slow.len();
                differ =
                    (replayed != slow).then(|| format!("{text}: {replayed:?} captured, {slow:?}"));
            }
            if differ.is_none() {
                break;
            }
        }
        if let Some(differ) = differ {
            world.problem(differ);
        }
        let everything = |pass: &linger::query::Pass| pass.program.is_everything();
        filtered += usize::from(!filter.passes().iter().all(everything));
    }
    world.expect(filtered > 150 && some > 80 && compared > 1000, || {
        format!(
            "{filtered} filters had a program, {some} selected some sockets, {compared} compared"
        )
    });
    Ok(())
}

fn a_refused_program_is_done_without(_: &mut World) -> Result<()> {
    let listener = listen(Family::V4.near(8080), 5)?;
    let _other = listen(Family::V4.near(8081), 5)?;
    let program = filter("sport = 8080")?.passes().swap_remove(0).program;
    let forms = match &program.ipv4 {
        Part::Filtered(forms) => &forms[..],
        Part::Everything | Part::Nothing => &[],
    };
    let [full, plain] = forms else {
        anyhow::bail!("{program:?}");
    };
    // An operation that no kernel has; a jump into nowhere.
    let unknown = vec![200, 4, 8, 0];
    let lost = vec![1, 4, 4 * 7, 0];
    let ports = |forms: Vec<Vec<u8>>, required: bool| {
        let program = Program {
            ipv4: Part::Filtered(forms),
            ipv6: Part::Nothing,
            required,
        };
        let rows = sent(StateSet::ALL, &program)?;
        Ok::<Vec<u16>, collect::Error>(rows.values().map(|(port, _)| *port).collect())
    };
    ensure!(ports(vec![unknown.clone(), plain.clone()], true)? == [8080]);
    ensure!(ports(vec![unknown.clone(), lost.clone(), full.clone()], false)? == [8080]);
    ensure!(ports(vec![unknown.clone(), lost.clone()], false)?.len() == 2);
    let refused = ports(vec![unknown, lost], true);
    ensure!(
        matches!(refused, Err(collect::Error::Unfiltered(_))),
        "{refused:?}"
    );
    drop(listener);
    Ok(())
}

fn autobound_is_what_the_kernel_says(world: &mut World) -> Result<()> {
    let (scene, _specimens) = scene(world)?;
    let rows = |words: &str| -> Result<BTreeSet<Option<String>>> {
        let mut line = vec!["list", "-a", "--json"];
        line.extend(words.split(' '));
        Ok(world
            .rows(&line)?
            .into_iter()
            .map(|row| row.cookie)
            .collect())
    };
    let all = rows("")?;
    let (yes, no) = (rows("autobound")?, rows("not autobound")?);
    world.expect(yes.is_disjoint(&no) && &yes | &no == all, || {
        format!("{} and {} of {}", yes.len(), no.len(), all.len())
    });
    let client = rows(&format!("autobound src 127.0.0.1:{}", scene.chosen))?;
    let bound = rows(&format!("autobound src 127.0.0.1:{}", scene.bound))?;
    // Either way with another test beside it.
    let either = rows(&format!("autobound or src 127.0.0.1:{}", scene.bound))?;
    world.expect(
        (client.len(), bound.len(), either.len()) == (1, 0, yes.len() + 1),
        || format!("{client:?} {bound:?} {} of {}", either.len(), yes.len()),
    );
    // Where the kernel cannot be asked it is an error, and says what to write.
    for (arguments, refusal) in [
        (vec!["list", "autobound", "--collector", "procfs"], None),
        (
            vec!["list", "autobound", "--json"],
            Some(Refusal::Socket(libc::EPERM)),
        ),
        (
            vec!["explain", "--socket", "autobound", "--collector", "procfs"],
            None,
        ),
    ] {
        let mut command = world.command(&arguments);
        if let Some(refusal) = refusal {
            sys::sandbox(&mut command, refusal)?;
        }
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let right = output.status.code() == Some(1)
            && output.stdout.is_empty()
            && said.starts_with("linger: autobound: ")
            && said.contains("hint: write 'sport >= :");
        world.expect(right, || format!("{arguments:?}: {output:?}"));
    }
    Ok(())
}
