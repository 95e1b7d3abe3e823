//! The units' system call filter lets the program do what it does, as strace sees it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::tools::{accepts, have, text};
use crate::units::setting;

/// The system calls in a set of systemd's, which may hold others.
fn members(set: &str) -> BTreeSet<String> {
    let mut command = Command::new("systemd-analyze");
    let said = accepts(command.args(["--no-pager", "syscall-filter", set]));
    let mut calls = BTreeSet::new();
    for line in said.lines().skip(1).map(str::trim) {
        if line.starts_with('@') {
            calls.extend(members(line));
        } else if !line.is_empty() && !line.starts_with('#') {
            calls.insert(line.to_owned());
        }
    }
    calls
}

/// What the unit allows: its first line of SystemCallFilter= without its second, as systemd.exec(5) has it.
fn allowed(unit: &str) -> BTreeSet<String> {
    let text = text(&format!("systemd/{unit}"));
    let mut allowed = BTreeSet::new();
    for line in text.lines() {
        let Some(words) = line.strip_prefix("SystemCallFilter=") else {
            continue;
        };
        let (denies, words) = match words.strip_prefix('~') {
            Some(words) => (true, words),
            None => (false, words),
        };
        for word in words.split(' ') {
            let calls = match word.starts_with('@') {
                true => members(word),
                false => BTreeSet::from([word.to_owned()]),
            };
            if denies {
                allowed = &allowed - &calls;
            } else {
                allowed.extend(calls);
            }
        }
    }
    allowed
}

/// The calls in a log of `strace -f`.
fn called(log: &Path) -> BTreeSet<String> {
    let log = fs::read_to_string(log).unwrap();
    let names = log.lines().filter_map(|line| {
        let call = line.split_whitespace().nth(1)?;
        let name = call.split_once('(')?.0;
        (!name.is_empty()).then(|| name.to_owned())
    });
    names.collect()
}

/// What else the units refuse by arguments: RestrictAddressFamilies=, RestrictNamespaces=, MemoryDenyWriteExecute=.
fn is_within(log: &Path, unit: &str) {
    let families = setting(unit, "RestrictAddressFamilies").unwrap();
    let families: Vec<&str> = families.split(' ').collect();
    let text = fs::read_to_string(log).unwrap();
    let mut sockets = 0;
    for line in text.lines() {
        if let Some((_, arguments)) = line.split_once(" socket(") {
            let family = arguments.split(',').next().unwrap();
            assert!(families.contains(&family), "{line}");
            sockets += 1;
        }
        let namespaces = [" setns(", " unshare(", "CLONE_NEW"];
        assert!(!namespaces.iter().any(|call| line.contains(call)), "{line}");
        let maps = line.contains(" mmap(") && line.contains("PROT_WRITE|PROT_EXEC");
        let protects = line.contains(" mprotect(") && line.contains("PROT_EXEC");
        assert!(!maps && !protects, "{line}");
    }
    assert!(sockets > 0, "the log is read");
}

fn traced(log: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o"])
        .arg(log)
        .arg(env!("CARGO_BIN_EXE_linger"))
        .args(arguments)
        .env_remove("LINGER_CONFIG")
        .env("HOME", log.parent().unwrap())
        .env("STATE_DIRECTORY", log.parent().unwrap())
        .stdin(Stdio::null());
    command
}

fn have_all() -> bool {
    have("strace", "strace") && have("systemd-analyze", "systemd")
}

/// What the program has called and its unit does not allow. As root, which the services are not, SQLite gives its log the
/// owner of the database.
fn refused(log: &Path, unit: &str) -> BTreeSet<String> {
    let mut refused = &called(log) - &allowed(unit);
    refused.remove("fchown");
    refused
}

#[test]
fn the_exporter_calls_what_its_unit_allows() {
    if !have_all() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("export.log");
    let mut child = traced(&log, &["export", "--web.listen-address", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let address = loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).unwrap() > 0, "it has ended");
        if let Some((_, rest)) = line.split_once("listening on http://") {
            break rest.split('/').next().unwrap().to_owned();
        }
    };
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    assert!(metrics.contains("linger_source_up 1"), "{metrics}");
    // strace hands on no SIGTERM; the exporter is its child.
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let traced = fs::read_to_string(children).unwrap();
    let traced = Pid::from_raw(traced.trim().parse().unwrap()).unwrap();
    kill_process(traced, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    is_within(&log, "linger-export.service");
    assert_eq!(refused(&log, "linger-export.service"), BTreeSet::new());
    let known = called(&log);
    for call in ["sendto", "accept4", "getdents64"] {
        assert!(known.contains(call), "the log is read: {known:?}");
    }
}

#[test]
fn the_check_calls_what_its_unit_allows() {
    if !have_all() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("check.log");
    let start = text("systemd/linger-check.service");
    let start = start
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/bin/linger "));
    let arguments: Vec<&str> = start.unwrap().split(' ').collect();
    let output = traced(&log, &arguments).output().unwrap();
    // It finds what it finds on this machine; that it judges is what matters.
    assert!(matches!(output.status.code(), Some(0..=2)), "{output:?}");
    is_within(&log, "linger-check.service");
    assert_eq!(refused(&log, "linger-check.service"), BTreeSet::new());
}

#[test]
fn the_filter_refuses_what_the_capability_would_be_good_for() {
    if !have("systemd-analyze", "systemd") {
        return;
    }
    let allowed = allowed("linger-check.service");
    for call in [
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "pidfd_getfd",
        "mount",
        "bpf",
    ] {
        assert!(!allowed.contains(call), "{call}");
    }
    assert!(allowed.contains("fsync"));
}
