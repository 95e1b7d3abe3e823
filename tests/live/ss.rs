//! The table of ss, word by word, and whether linger's own says the same.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::world::World;

/// What peers sign their segments with in these tests. Nobody may ever read it.
pub const KEY: &[u8] = b"LINGERS-OWN-KEY";

/// By the two ends: a word's label, and what it says.
pub type Sockets = BTreeMap<(String, String), BTreeMap<String, String>>;

/// What ss prints. That it is missing is a failure: without it nothing here is tested.
pub fn output(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ss")
        .args(arguments)
        .output()
        .context("these tests need ss: apt-get install iproute2")?;
    let good = output.status.success() && output.stderr.is_empty();
    ensure!(good, "ss {}: {output:?}", arguments.join(" "));
    // This version prints keys raw, somewhere.
    let key = std::str::from_utf8(KEY)?;
    Ok(String::from_utf8(output.stdout)?.replace(key, ""))
}

/// The table of ss.
pub fn ss(more: &[&str]) -> Result<Sockets> {
    let text = output(&[&["-tanoemiOH"], more].concat())?;
    Ok(text.lines().filter_map(socket).collect())
}

/// A table of ss, by the option that shows it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// of addresses and ports: `-t`, `-u`, `-M`
    Ports(&'static str),
    /// without details, because it is read from /proc where the kernel has no raw_diag
    Raw,
    Unix,
    Packet,
    Netlink,
}

impl Table {
    /// The option, which is the same one for linger.
    pub const fn option(self) -> &'static str {
        match self {
            Self::Ports(option) => option,
            Self::Raw => "-w",
            Self::Unix => "-x",
            Self::Packet => "-0",
            Self::Netlink => "-fnetlink",
        }
    }
}

/// What can be compared of a socket of any kind, by name; and its timer, which runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub facts: BTreeMap<&'static str, String>,
    pub timer: Option<String>,
}

impl Row {
    pub fn fact(&self, name: &str) -> &str {
        self.facts.get(name).map_or("", String::as_str)
    }
}

/// Every row of a table.
pub fn rows(table: Table) -> Result<Vec<Row>> {
    let text = output(&["-aneoOH", table.option()])?;
    text.lines()
        .map(|line| row(table, line).with_context(|| format!("not understood: {line}")))
        .collect()
}

/// The state's name in full, small letters.
fn state(word: &str) -> String {
    match word {
        "ESTAB" => "established".to_owned(),
        "SYN-RECV" => "syn-received".to_owned(),
        "UNCONN" => "unconnected".to_owned(),
        other => other.to_ascii_lowercase(),
    }
}

/// Address and port: `[::1]:80`, `*:80` on a socket of both families, `0.0.0.0:*`, `10.0.0.1%eth0:80`.
fn end(word: &str) -> Option<String> {
    let (address, port) = word.rsplit_once(':')?;
    let address = address.replace(['[', ']'], "");
    let address = if address == "*" { "::" } else { &address };
    let port = if port == "*" { "0" } else { port };
    Some(format!("{address} {port}"))
}

/// Family and port id, which ss prints with a sign; `*` is no peer, and the kernel as a peer.
fn netlink_end(word: &str) -> Option<String> {
    let (family, port) = match word {
        "*" => return Some("-".to_owned()),
        word => word.split_once(':')?,
    };
    let port = port.parse::<i64>().ok()?.rem_euclid(1 << 32);
    Some(format!("{family} {port}"))
}

fn row(table: Table, line: &str) -> Option<Row> {
    let mut words = line.split_ascii_whitespace().peekable();
    let mut row = Row::default();
    let facts = &mut row.facts;
    if matches!(table, Table::Unix | Table::Packet) {
        facts.insert("kind", words.next()?.to_owned());
    }
    let state = state(words.next()?);
    facts.insert("recv-q", words.next()?.to_owned());
    facts.insert("send-q", words.next()?.to_owned());
    match table {
        Table::Unix => {
            // Names have no blanks in these tests.
            facts.insert("local", words.next()?.to_owned());
            facts.insert("inode", words.next()?.to_owned());
            facts.insert("peer", words.nth(1)?.to_owned());
        }
        Table::Packet => {
            facts.insert("local", words.next()?.to_owned());
            words.next()?;
        }
        Table::Netlink => {
            facts.insert("local", netlink_end(words.next()?)?);
            facts.insert("peer", netlink_end(words.next()?)?);
        }
        Table::Ports(_) | Table::Raw => {
            facts.insert("local", end(words.next()?)?);
            facts.insert("peer", end(words.next()?)?);
        }
    }
    // Of netlink ss does not look at the state, and says the same of all.
    if table != Table::Netlink {
        facts.insert("state", state);
    }
    // What is nothing is left out.
    match table {
        Table::Ports(_) => {
            facts.insert("uid", "0".to_owned());
            facts.insert("mark", "0".to_owned());
        }
        Table::Packet => {
            facts.insert("uid", "0".to_owned());
            facts.insert("running", "false".to_owned());
        }
        Table::Raw => return Some(row),
        Table::Unix | Table::Netlink => {}
    }
    while let Some(word) = words.next() {
        let shutdown = match word {
            "<->" => "none",
            "-->" => "receive",
            "<--" => "send",
            "---" => "both",
            _ => "",
        };
        if !shutdown.is_empty() {
            facts.insert("shutdown", shutdown.to_owned());
        }
        if word == "running" {
            facts.insert("running", "true".to_owned());
        }
        if word == "peers:" {
            let waiting = words
                .by_ref()
                .take_while(|word| word.parse::<u32>().is_ok());
            facts.insert("pending", waiting.count().to_string());
            break;
        }
        if let Some(rest) = word.strip_prefix("groups=") {
            facts.insert("groups", rest.to_owned());
        }
        let Some((label, value)) = word.split_once(':') else {
            continue;
        };
        let name = match label {
            "ino" if table == Table::Unix => "file",
            "ino" => "inode",
            "sk" => "cookie",
            "uid" => "uid",
            "fwmark" => "mark",
            "v6only" => "v6only",
            "fanout(id" => "fanout",
            "timer" => {
                row.timer = Some(value.to_owned());
                continue;
            }
            _ => continue,
        };
        let value = match name {
            "cookie" => format!("0x{value}"),
            "mark" => numbers(value).first()?.to_string(),
            "fanout" => value.split(',').next()?.to_owned(),
            _ => value.to_owned(),
        };
        facts.insert(name, value);
    }
    Some(row)
}

/// Whether the timer of ss lies between those that linger showed before and after it.
fn timers_agree(theirs: Option<&str>, before: Option<&str>, after: Option<&str>) -> bool {
    match theirs {
        Some(theirs) => {
            (before.is_some() || after.is_some()) && agree("timer", theirs, before, after)
        }
        None => before.is_none() || after.is_none(),
    }
}

/// Where the rows of ss are not those of linger before or after it, each as often.
pub fn rows_differ(before: &[Row], theirs: &[Row], after: &[Row]) -> Vec<String> {
    let take = |rows: &mut Vec<Row>, facts: &BTreeMap<&'static str, String>| {
        let at = rows.iter().position(|row| &row.facts == facts)?;
        Some(rows.swap_remove(at))
    };
    let (mut earlier, mut later) = (before.to_vec(), after.to_vec());
    let mut all = Vec::new();
    for row in theirs {
        let found = (take(&mut earlier, &row.facts), take(&mut later, &row.facts));
        if found == (None, None) {
            all.push(format!("ss alone has {row:?}"));
            continue;
        }
        let timer = |row: Option<Row>| row.and_then(|row| row.timer);
        let (one, other) = match found {
            (Some(one), Some(other)) => (timer(Some(one)), timer(Some(other))),
            // It has come, or changed.
            (one, other) => {
                let timer = timer(one.or(other));
                (timer.clone(), timer)
            }
        };
        if !timers_agree(row.timer.as_deref(), one.as_deref(), other.as_deref()) {
            all.push(format!("{row:?}: linger before {one:?}, after {other:?}"));
        }
    }
    for row in earlier {
        if take(&mut later, &row.facts).is_some() {
            all.push(format!("linger alone has {row:?}"));
        }
    }
    all
}

/// The table of linger, with the lines of a socket joined.
fn linger(world: &World) -> Result<Sockets> {
    let output = world.linger(&["list", "-taoemi"])?;
    ensure!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout)?.replace("\n     ", "");
    ensure!(!text.contains(std::str::from_utf8(KEY)?), "{text}");
    Ok(text.lines().skip(1).filter_map(socket).collect())
}

/// One line: state, queues, ends, words.
fn socket(line: &str) -> Option<((String, String), BTreeMap<String, String>)> {
    let mut columns = line.split_ascii_whitespace();
    let ends = (columns.nth(3)?.to_owned(), columns.next()?.to_owned());
    let mut words = BTreeMap::new();
    let mut columns = columns.peekable();
    while let Some(word) = columns.next() {
        if word == "inet-sockopt:" {
            // It is followed by `( a b c)`.
            for option in columns.by_ref().skip(1) {
                words.insert(
                    format!("sockopt.{}", option.trim_end_matches(')')),
                    String::new(),
                );
                if option.ends_with(')') {
                    break;
                }
            }
            continue;
        }
        // ss puts a blank before rates.
        let rate = columns.next_if(|next| next.ends_with("bps") && !word.contains(':'));
        let (label, value) = match (word.split_once(':'), rate) {
            (_, Some(rate)) => (word, rate),
            (Some((label, value)), None) => (label, value),
            (None, None) => (word, ""),
        };
        match value
            .strip_prefix('(')
            .and_then(|inner| inner.strip_suffix(')'))
        {
            Some(inner) if label != "timer" => {
                for part in inner.split(',') {
                    let letters = part
                        .find(|c: char| c.is_ascii_digit() || c == ':')
                        .unwrap_or(part.len());
                    let (name, value) = part.split_at(letters);
                    words.insert(
                        format!("{label}.{name}"),
                        value.trim_start_matches(':').to_owned(),
                    );
                }
            }
            _ => {
                words.insert(label.to_owned(), value.to_owned());
            }
        }
    }
    Some((ends, words))
}

/// The numbers in a value: `0.5/0.25`, `28ms(38.9%)`, `57.9Mbps` in bits, `1min59sec` in milliseconds.
pub fn numbers(value: &str) -> Vec<f64> {
    if let Some(hex) = value.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16)
            .map(|n| vec![n as f64])
            .unwrap_or_default();
    }
    let mut numbers = Vec::new();
    let mut rest = value;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let tail = &rest[at..];
        let end = tail
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(tail.len());
        let unit = match tail[end..].split(|c: char| !c.is_ascii_alphabetic()).next() {
            Some("Kbps") => 1e3,
            Some("Mbps") => 1e6,
            Some("Gbps") => 1e9,
            _ => 1.0,
        };
        numbers.extend(tail[..end].parse::<f64>().map(|n| n * unit));
        rest = &tail[end..];
    }
    numbers
}

/// A timer: name, milliseconds, times fired. ss writes 1.2 s as `1.200ms`.
fn timer(value: &str) -> Option<(&str, f64, f64)> {
    let inner = value.strip_prefix('(')?.strip_suffix(')')?;
    let mut parts = inner.split(',');
    let (name, time, fired) = (parts.next()?, parts.next()?, parts.next()?);
    let mut ms = 0.0;
    let mut rest = time;
    while let Some(end) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let number: f64 = rest[..end].parse().ok()?;
        let tail = &rest[end..];
        let next = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        ms += number
            * match &tail[..next] {
                "ms" if !rest[..end].contains('.') => 1.0,
                "ms" | "sec" => 1e3,
                _ => 60e3,
            };
        rest = &tail[next..];
    }
    Some((name, ms, fired.parse().ok()?))
}

/// Whether what ss says lies between what linger said before and after it.
fn agree(label: &str, theirs: &str, before: Option<&str>, after: Option<&str>) -> bool {
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) => (before, after),
        (Some(one), None) | (None, Some(one)) => (one, one),
        // What is 0 is left out.
        (None, None) => {
            let zero = numbers(theirs).iter().all(|n| *n == 0.0);
            return !theirs.is_empty() && zero;
        }
    };
    if theirs == before || theirs == after {
        return true;
    }
    if label == "timer" {
        let all = (timer(theirs), timer(before), timer(after));
        let (Some(theirs), Some(before), Some(after)) = all else {
            return false;
        };
        // It runs down, and begins anew where it has fired. Minutes have no seconds.
        let slack = if before.1 >= 600e3 { 60e3 } else { 1e3 };
        return (theirs.0 == before.0 || theirs.0 == after.0)
            && (before.2..=after.2).contains(&theirs.2)
            && (before.2 != after.2
                || (after.1 - slack..=before.1 + slack).contains(&theirs.1)
                || after.1 > before.1);
    }
    let (theirs, before, after) = (numbers(theirs), numbers(before), numbers(after));
    let same_length = theirs.len() == before.len() && theirs.len() == after.len();
    // Words that are neither the same nor numbers: flags, tokens.
    if theirs.is_empty() || !same_length {
        return false;
    }
    let all = theirs.iter().zip(before.iter().zip(&after));
    all.clone().all(|(n, (a, b))| {
        let (low, high) = (a.min(*b), a.max(*b));
        let slack = match label {
            "send" | "pacing_rate" | "delivery_rate" | "bbr.bw" => high * 0.06,
            // It grows, until what it counts from happens again.
            "lastsnd" | "lastrcv" | "lastack" if a > b => return *n >= *a || *n <= *b,
            // ss cuts off what linger shows of a millisecond.
            "busy" | "rwnd_limited" | "sndbuf_limited" => 1.0,
            // Six digits.
            _ => high * 1e-5,
        };
        (low - slack..=high + slack).contains(n)
    })
}

/// What linger tells by its column or document, and by words only where it is unusual.
const NOT_IN_WORDS: [&str; 3] = ["sockopt.is_icsk", "sockopt.mc_loop", "sockopt.mc_all"];

/// Where ss and linger disagree.
fn differences(before: &Sockets, theirs: &Sockets, after: &Sockets) -> Vec<String> {
    let mut all = Vec::new();
    for (ends, words) in theirs {
        let (Some(before), Some(after)) = (before.get(ends), after.get(ends)) else {
            all.push(format!("{ends:?} is not listed"));
            continue;
        };
        for (label, value) in words {
            let ours = |words: &BTreeMap<String, String>| -> Option<String> {
                if let Some(option) = label.strip_prefix("sockopt.") {
                    let options = words.get("sockopt")?;
                    return options
                        .split(',')
                        .any(|own| own == option)
                        .then(String::new);
                }
                words.get(label).cloned()
            };
            let value = match label.as_str() {
                // The key is behind it.
                "md5keys" => value.trim_end_matches('='),
                // There the owner's path says more.
                "cgroup" if value == "/" => continue,
                // A listener's queue, which the row has already.
                "unacked" | "sacked" if ends.1.ends_with(":*") => continue,
                label if NOT_IN_WORDS.contains(&label) => continue,
                _ => value,
            };
            let (before, after) = (ours(before), ours(after));
            if !agree(label, value, before.as_deref(), after.as_deref()) {
                all.push(format!(
                    "{ends:?}: ss has {label}:{value}, linger before {before:?}, after {after:?}"
                ));
            }
        }
    }
    all
}

/// Lists the sockets with linger, ss, and linger again. What moves meanwhile is looked at once more. Gives what ss said
/// first.
pub fn compare(world: &World) -> Result<Sockets> {
    let (mut last, mut first) = (Vec::new(), None);
    for _ in 0..4 {
        let before = linger(world)?;
        let theirs = ss(&["--tos", "--inet-sockopt"])?;
        let after = linger(world)?;
        ensure!(!theirs.is_empty(), "ss lists nothing");
        last = differences(&before, &theirs, &after);
        first = first.or(Some(theirs));
        if last.is_empty() {
            break;
        }
    }
    for difference in last {
        world.problem(difference);
    }
    first.context("nothing was compared")
}

/// Whether any socket has the word, so that a comparison compares it.
pub fn shown(world: &World, sockets: &Sockets, label: &str, fits: impl Fn(&str) -> bool) {
    let mut values = sockets.values().filter_map(|words| words.get(label));
    world.expect(values.any(|value| fits(value)), || {
        format!("ss shows no {label} as wanted: the test tests nothing")
    });
}
