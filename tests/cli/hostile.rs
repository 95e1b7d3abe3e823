//! Names that others chose, and readers that go away.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::support::*;

const COMM: &str = "ev\x1b[31mil\u{202e}\n\u{9b}x";

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_symlink() {
            symlink(fs::read_link(path)?, to)?;
        } else if entry.file_type()?.is_dir() {
            copy(&path, &to)?;
        } else {
            fs::copy(path, to)?;
        }
    }
    Ok(())
}

#[test]
fn a_name_that_another_process_chose_does_not_steer_the_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("proc");
    copy(Path::new(PROC), &root).unwrap();
    fs::write(root.join("2211/comm"), format!("{COMM}\n")).unwrap();
    let root = root.display().to_string();
    let mut seen = 0;
    for line in ["status", "list -tanpe", "diagnose", "9090", "pid:2211"] {
        let page = run(&format!("{line} --color never --proc-root {root}"));
        assert_eq!(page.code, Some(0), "{line}: {page:?}");
        let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(
            !page.out.contains(steers) && !page.err.contains(steers),
            "{line}: {page:?}"
        );
        // Where others stand beside it a bracket sets a pid apart, and is escaped too.
        let escaped = r"ev\x1b\x5b31mil\u{202e}\x0a\x9bx[2211]";
        let plain = r"ev\x1b[31mil\u{202e}\x0a\x9bx[2211]";
        let name = if line == "diagnose" { plain } else { escaped };
        seen += usize::from(page.out.contains(name));
    }
    assert_eq!(seen, 5, "each names it");
    for line in ["status", "list -p state close-wait", "diagnose", "9090"] {
        let text = run(&format!("{line} --json --proc-root {root}")).out;
        assert!(!text.contains(['\x1b', '\u{9b}']), "{line}: {text}");
        let document: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{line}: {e}"));
        let name = match line {
            "status" => &document["top"]["processes"][1]["comm"],
            "9090" => &document["processes"][0]["comm"],
            "diagnose" => continue,
            _ => &document["sockets"][0]["owners"][0]["comm"],
        };
        assert_eq!(name, COMM, "{line}");
    }
}

#[test]
fn what_was_typed_does_not_steer_it_either() {
    for words in [
        &["\x1b[31m"][..],
        &["state", "\x1b[31m"],
        &["explain", "\x1b[31m"],
        &["--from", "/no/\x1b[31m"],
        &["--only", "\x1b[31m"],
        &["--\x1b[31m"],
        &["status", "\x1b[31m"],
    ] {
        let said = said(&mut linger(words));
        assert_ne!(said.code, Some(0), "{words:?}");
        assert!(
            !said.err.contains('\x1b') && said.out.is_empty(),
            "{said:?}"
        );
    }
}

#[test]
fn a_reader_who_has_seen_enough_is_no_error() {
    // More than a pipe holds, so that writing goes on after the reader is gone.
    let line = from("list -tanpioem --json");
    for words in [
        &["man", "list"][..],
        &line.split(' ').collect::<Vec<_>>(),
        &["completions", "bash"],
        &["--help"],
    ] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_linger"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut err = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut err).unwrap();
        }
        let status = child.wait().unwrap();
        assert_eq!((status.code(), &err[..]), (Some(0), ""), "{words:?}");
    }
}

#[test]
fn a_full_disk_fails_whatever_is_written() {
    for words in [
        &["--help"][..],
        &["list", "--help"],
        &["--version"],
        &["man", "list"],
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full");
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_linger"))
            .args(words)
            .stdout(full.unwrap())
            .output()
            .unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {err}");
        assert!(
            err.starts_with("linger: cannot write: "),
            "{words:?}: {err}"
        );
    }
}
