//! What to write instead of a word that begins no test. Every hint can be typed as it stands.

use super::Filter;
use super::error::GENERAL;
use super::parse::{CLAUSES, NAMES, is_name};
use super::value;
use crate::fields;
use crate::model::StateSet;
use crate::model::nearest::nearest;

/// The kinds of sockets, which options choose.
const OPTIONS: [(&str, &str); 11] = [
    ("tcp", "-t"),
    ("udp", "-u"),
    ("unix", "-x"),
    ("raw", "-w"),
    ("packet", "-0"),
    ("mptcp", "-M"),
    ("sctp", "-S"),
    ("vsock", "--vsock"),
    ("netlink", "-A netlink"),
    ("ipv4", "-4"),
    ("ipv6", "-6"),
];

/// What to say of a word that begins no test. `bare`: nothing is compared with it.
pub(super) fn stranger(word: &str, bare: bool) -> String {
    if StateSet::parse(word).is_some() {
        return format!("write 'state {word}'");
    }
    let kind = OPTIONS
        .iter()
        .find(|(kind, _)| kind.eq_ignore_ascii_case(word));
    if let Some((kind, option)) = kind {
        return format!("leave it out: 'linger list' shows {kind} sockets with {option}");
    }
    if let Some(meant) = parts(word) {
        return format!("write '{meant}'");
    }
    if word.starts_with(|c: char| c == ':' || c.is_ascii_digit()) && value::any_port(word).is_some()
    {
        let end = "; 'sport' and 'dport' are of one end";
        return match word.starts_with(':') {
            true => format!("write 'port = {word}'{end}"),
            false => format!("write 'port = {word}', or 'pid = {word}' for a process{end}"),
        };
    }
    if word.starts_with(['/', '@']) {
        return format!("write 'src {word}'");
    }
    let host = word.contains(['.', ':', '[']) && value::host(word).is_some();
    if word.ends_with(".sock") || word.contains('/') && !host && bare {
        return format!("write 'src unix:{word}'");
    }
    if host {
        return format!("write 'src {word}' or 'dst {word}'");
    }
    let columns = fields::all().map(|field| field.id);
    let words = CLAUSES.into_iter().chain(NAMES).chain(columns);
    match (nearest(word, words).first(), bare && is_program(word)) {
        (Some(near), true) => format!("did you mean '{near}', or 'process = {word}'? {GENERAL}"),
        (Some(near), false) => format!("did you mean '{near}'? {GENERAL}"),
        (None, true) => format!("write 'process = {word}' for a program; {GENERAL}"),
        (None, false) => GENERAL.to_owned(),
    }
}

/// `TCP:443` as lsof writes it, `sk:1a` as ss does, and `pid:1`.
fn parts(word: &str) -> Option<String> {
    let (name, rest) = word.split_once(':')?;
    let folded = name.to_ascii_lowercase();
    match &folded[..] {
        _ if rest.is_empty() => None,
        "tcp" | "udp" => value::port(rest).map(|_| format!("port = {rest}")),
        "sk" => value::cookie(rest).map(|_| format!("cookie = {rest}")),
        "state" => StateSet::parse(rest).map(|_| format!("state {rest}")),
        _ if is_name(name) => {
            let meant = format!("{folded} = {rest}");
            Filter::parse(std::slice::from_ref(&meant))
                .is_ok()
                .then_some(meant)
        }
        _ => None,
    }
}

/// Whether it looks like the name of a program.
fn is_program(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_+.".contains(c))
}
