//! The table of ss, word by word, and whether linger's own says the same.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::world::World;

/// What peers sign their segments with in these tests. Nobody may ever read it.
pub const KEY: &[u8] = b"LINGERS-OWN-KEY";

/// By the two ends: a word's label, and what it says.
pub type Sockets = BTreeMap<(String, String), BTreeMap<String, String>>;

/// The table of ss. That it is missing is a failure: without it nothing here is tested.
pub fn ss(more: &[&str]) -> Result<Sockets> {
    let output = Command::new("ss")
        .args(["-tanoemiOH"])
        .args(more)
        .output()
        .context("these tests need ss: apt-get install iproute2")?;
    ensure!(output.status.success(), "{output:?}");
    // This version prints keys raw, somewhere.
    let key = std::str::from_utf8(KEY)?;
    let text = String::from_utf8(output.stdout)?.replace(key, "");
    Ok(text.lines().filter_map(socket).collect())
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
