//! Filters made by chance select of the sockets what they select for ss.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

use crate::differential::tcp_sockets;
use crate::harness::Test;
use crate::ss::{Row, Table, output, rows};
use crate::world::World;

pub const TESTS: &[Test] = &[Test {
    name: "filters_select_what_they_select_for_ss",
    run: filters_select_what_they_select_for_ss,
}];

/// xorshift64: the same filters each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn of<T: Clone + Default>(&mut self, all: &[T]) -> T {
        all.get(self.below(all.len())).cloned().unwrap_or_default()
    }
}

/// What filters are made of.
struct Words {
    random: Random,
    addresses: Vec<String>,
    /// of this end, and of the other
    ports: [Vec<u16>; 2],
    marks: bool,
}

const ORDER: [&str; 12] = [
    "=", "!=", "<", "<=", ">", ">=", "eq", "ne", "lt", "le", "gt", "ge",
];
const MARKS: [&str; 7] = ["0", "16", "77", "0x4d", "0x4/0x4", "0x10/0xf0", "0/0x1"];

impl Words {
    /// Of the sockets that there are, and of what is next to them.
    fn of(sockets: &[Row], seed: u64, marks: bool) -> Self {
        let mut addresses = BTreeSet::new();
        let mut ports = |name| {
            let mut ports = BTreeSet::from([0, u16::MAX]);
            for (address, port) in sockets
                .iter()
                .filter_map(|row| row.fact(name).split_once(' '))
            {
                addresses.insert(address.split('%').next().unwrap_or_default().to_owned());
                let port: u16 = port.parse().unwrap_or(0);
                ports.extend([port, port.saturating_add(1)]);
            }
            ports.into_iter().collect()
        };
        let ports = [ports("local"), ports("peer")];
        Self {
            random: Random(seed),
            addresses: addresses.into_iter().collect(),
            ports,
            marks,
        }
    }

    /// Each way to compare, alone, with what one of the sockets has.
    fn each_alone(&mut self, sockets: &[Row]) -> Vec<String> {
        let mut all = Vec::new();
        for (word, name) in [("sport", "local"), ("dport", "peer")] {
            let ports = sockets
                .iter()
                .filter_map(|row| row.fact(name).split_once(' '));
            let ports: Vec<&str> = ports
                .map(|(_, port)| port)
                .filter(|port| *port != "0")
                .collect();
            for operator in ORDER {
                all.push(format!("{word} {operator} {}", self.random.of(&ports)));
            }
        }
        for mark in MARKS.iter().filter(|_| self.marks) {
            all.extend([format!("fwmark = {mark}"), format!("fwmark != {mark}")]);
        }
        all
    }

    fn port(&mut self, end: usize) -> u16 {
        let [near, far] = &self.ports;
        self.random.of(if end == 0 { near } else { far })
    }

    /// An address, mostly with a prefix, sometimes with a port; or a port only.
    fn host(&mut self, end: usize) -> String {
        let address = self.random.of(&self.addresses);
        let v6 = address.contains(':');
        let prefixes: &[u8] = if v6 {
            &[1, 8, 16, 63, 64, 65, 80, 96, 97, 104, 120, 127, 128]
        } else {
            &[1, 7, 8, 9, 16, 24, 25, 30, 31, 32]
        };
        let prefix = match self.random.below(3) {
            0 => None,
            _ => Some(self.random.of(prefixes)),
        };
        if self.mistaken(&address, prefix.unwrap_or(if v6 { 128 } else { 32 })) {
            return self.host(end);
        }
        let prefix = prefix.map_or_else(String::new, |length| format!("/{length}"));
        let port = self.port(end);
        let (open, close) = if v6 { ("[", "]") } else { ("", "") };
        match self.random.below(8) {
            0 => format!("*:{port}"),
            1 => format!(":{port}"),
            2 | 3 => format!("{open}{address}{prefix}{close}:{port}"),
            _ => format!("{open}{address}{prefix}{close}"),
        }
    }

    /// Whether ss takes an address of the other family for one of these: where the kernel does not decide, it compares
    /// bits from the first one on, of whatever family. For the kernel (`inet_diag_bc_run()` in net/ipv4/inet_diag.c) and
    /// for linger an address of IPv6 is none of IPv4, if it is not mapped.
    fn mistaken(&self, address: &str, length: u8) -> bool {
        let bits = |address: &str| match address.parse() {
            Ok(IpAddr::V4(ip)) => Some(u128::from(ip.to_bits()) << 96),
            Ok(IpAddr::V6(ip)) => Some(ip.to_bits()),
            Err(_) => None,
        };
        let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        let others = self.addresses.iter();
        let mut others = others.filter(|other| other.contains(':') != address.contains(':'));
        let own = bits(address);
        others.any(|other| {
            bits(other)
                .zip(own)
                .is_none_or(|(a, b)| (a ^ b) & mask == 0)
        })
    }

    fn predicate(&mut self) -> String {
        let end = self.random.below(2);
        let [host, port] = if end == 0 {
            ["src", "sport"]
        } else {
            ["dst", "dport"]
        };
        match self.random.below(if self.marks { 9 } else { 8 }) {
            0..4 => {
                let equals = self.random.of(&["", "= ", "== ", "eq "]);
                format!("{host} {equals}{}", self.host(end))
            }
            4..8 => {
                let operator = self.random.of(&ORDER);
                let colon = self.random.of(&["", ":"]);
                format!("{port} {operator} {colon}{}", self.port(end))
            }
            _ => {
                let operator = self.random.of(&["=", "!="]);
                format!("fwmark {operator} {}", self.random.of(&MARKS))
            }
        }
    }

    /// With all parentheses, because ss binds `and` and `or` alike, and with blanks, because it needs them.
    fn expression(&mut self, depth: u8) -> String {
        if depth == 0 {
            return self.predicate();
        }
        match self.random.below(6) {
            0 => self.predicate(),
            1 => {
                let not = self.random.of(&["not", "!"]);
                format!("{not} ( {} )", self.expression(depth - 1))
            }
            operator => {
                let names = if operator < 4 {
                    ["and", "&", "&&"]
                } else {
                    ["or", "|", "||"]
                };
                let one = self.expression(depth - 1);
                let name = self.random.of(&names);
                format!("( {one} ) {name} ( {} )", self.expression(depth - 1))
            }
        }
    }

    fn states(&mut self) -> String {
        let states = [
            "established",
            "syn-sent",
            "syn-recv",
            "fin-wait-1",
            "fin-wait-2",
            "time-wait",
            "close-wait",
            "last-ack",
            "listening",
            "closing",
            "connected",
            "synchronized",
            "bucket",
            "big",
        ];
        let (one, other) = (self.random.of(&states), self.random.of(&states));
        // Where all is excluded, ss shows what it shows without states.
        let less = self
            .random
            .of(&["established", "time-wait", "close-wait", "listening"]);
        match self.random.below(8) {
            0..4 => "state all".to_owned(),
            4 => format!("state {one}"),
            5 => format!("state {one} state {other}"),
            6 => format!("exclude {one}"),
            _ => format!("state all exclude {one} exclude {less}"),
        }
    }
}

/// The cookies of what ss lists.
fn selected_by_ss(option: &str, states: &str, expression: &str) -> Result<BTreeSet<String>> {
    let words = format!("{option}anHOe {states} ( {expression} )");
    let text = output(&words.split(' ').collect::<Vec<_>>())?;
    let cookie = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let cookie = words.find_map(|word| word.strip_prefix("sk:"));
        Some(format!("0x{}", cookie?))
    };
    let cookies = text
        .lines()
        .map(|line| cookie(line).with_context(|| format!("no cookie: {line}")));
    cookies.collect()
}

/// The cookies of what linger lists.
fn selected_by_linger(
    world: &World,
    option: &str,
    states: &str,
    expression: &str,
) -> Result<BTreeSet<String>> {
    let mut arguments = vec!["list", option, "-H", "--columns", "cookie"];
    arguments.extend(states.split(' '));
    let expression = format!("( {expression} )");
    arguments.push(&expression);
    let output = world.linger(&arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {output:?}");
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

fn filters_select_what_they_select_for_ss(world: &mut World) -> Result<()> {
    let _kept = tcp_sockets(world)?;
    let mut datagrams = Vec::new();
    for family in world.families() {
        let address = family.loopback(0);
        let receiver = std::net::UdpSocket::bind(address)?;
        let sender = std::net::UdpSocket::bind(address)?;
        sender.connect(receiver.local_addr()?)?;
        datagrams.extend([receiver, sender]);
    }
    let marks = rows(Table::Ports("-t"))?
        .iter()
        .any(|row| row.fact("mark") == "77");
    // ss 6.1 knows nothing of ports that are only bound, and newer ones count them among the connected.
    let bound = selected_by_linger(world, "-t", "state bound-inactive", "sport >= 0")?;
    let (mut some, mut all) = (0, 0);
    for (option, number) in [("-t", 150), ("-u", 20)] {
        let sockets = rows(Table::Ports(option))?;
        let mut words = Words::of(&sockets, 0x6c69_6e67_6572_2026, marks);
        let alone = words.each_alone(&sockets).into_iter();
        let mut filters: Vec<_> = alone.map(|alone| ("state all".to_owned(), alone)).collect();
        for at in 0..number {
            filters.push((words.states(), words.expression(at % 4)));
        }
        for (states, expression) in filters {
            let mut differ = Some(Default::default());
            // What moves from one state to another meanwhile is looked at once more.
            for _ in 0..3 {
                let theirs = &selected_by_ss(option, &states, &expression)? - &bound;
                let ours = selected_by_linger(world, option, &states, &expression)?;
                // Only `all`, and what is left of it, has them.
                let asked = states.contains("all") || states.starts_with("exclude");
                world.expect(asked || ours.is_disjoint(&bound), || {
                    format!("{states}: a port that is only bound")
                });
                let ours = &ours - &bound;
                some += usize::from(!theirs.is_empty() && theirs.len() < sockets.len());
                all += 1;
                differ = (theirs != ours).then_some((theirs, ours));
                if differ.is_none() {
                    break;
                }
            }
            if let Some((theirs, ours)) = differ {
                let listed = output(&[&format!("{option}anHOe")])?;
                let lines =
                    |cookies: &BTreeSet<String>, others: &BTreeSet<String>| -> Vec<String> {
                        let alone = cookies.difference(others);
                        let line = |cookie: &String| {
                            let word = cookie.replace("0x", "sk:");
                            let line = listed.lines().find(|line| line.contains(&word));
                            line.unwrap_or(cookie).to_owned()
                        };
                        alone.map(line).collect()
                    };
                world.problem(format!(
                    "{option} {states} ( {expression} ): ss alone has {:#?}, linger alone {:#?}",
                    lines(&theirs, &ours),
                    lines(&ours, &theirs)
                ));
            }
        }
    }
    world.expect(3 * some > all, || {
        format!(
            "{some} of {all} filters select some of the sockets and not all: the test tests little"
        )
    });
    Ok(())
}
