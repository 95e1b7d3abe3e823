//! Running the program, and what a failure looks like.

use assert_cmd::Command;
use serde_json::Value;

pub const CAPTURE: &str = "tests/data/v1.linger";
pub const PROC: &str = "tests/data/proc";
pub const STATES: [&str; 12] = [
    "listen",
    "syn-sent",
    "syn-received",
    "established",
    "fin-wait-1",
    "fin-wait-2",
    "close-wait",
    "closing",
    "last-ack",
    "time-wait",
    "closed",
    "bound-inactive",
];
pub const TOPICS: [&str; 5] = [
    "handshake",
    "close",
    "half-close",
    "simultaneous-close",
    "2msl",
];

/// The program with an environment of its own.
pub fn linger(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linger"));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_clear()
        .envs([("COLUMNS", "80"), ("LANG", "C.UTF-8"), ("TZ", "UTC")])
        .env(
            "STATE_DIRECTORY",
            concat!(env!("CARGO_TARGET_TMPDIR"), "/state"),
        )
        .args(arguments);
    command
}

/// What one run said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

pub fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let said = Said {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    };
    assert!(!said.err.contains("panicked"), "{said:?}");
    said
}

/// Runs a line of words that hold no blanks.
pub fn run(line: &str) -> Said {
    let words: Vec<&str> = line.split_whitespace().collect();
    said(&mut linger(&words))
}

/// A run that succeeds in silence, and what it prints.
pub fn quiet(line: &str) -> String {
    let said = run(line);
    assert_eq!(
        (said.code, &said.err[..]),
        (Some(0), ""),
        "{line}: {said:?}"
    );
    said.out
}

pub fn json(line: &str) -> Value {
    let said = run(line);
    assert_eq!(said.code, Some(0), "{line}: {said:?}");
    let document = serde_json::from_str(&said.out);
    let document = document.unwrap_or_else(|error| panic!("{line}: {error}: {}", said.out));
    assert_eq!(crate::schema::faults(&document), [""; 0], "{line}");
    document
}

pub fn from(line: &str) -> String {
    format!("{line} --from {CAPTURE}")
}

/// The failure's form: what is wrong in the first line, a hint, nothing on standard output.
pub fn fails(line: &str, code: i32, what: &str, hint: &str) {
    let said = run(line);
    assert_eq!(said.code, Some(code), "{line}: {said:?}");
    assert_eq!(said.out, "", "{line}");
    let first = said.err.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("linger: ") && first.contains(what),
        "{line}: {said:?}"
    );
    let hints: Vec<&str> = said
        .err
        .lines()
        .filter_map(|line| line.strip_prefix("hint: "))
        .collect();
    assert!(
        matches!(hints[..], [one] if one.contains(hint)),
        "{line}: {said:?}"
    );
}
