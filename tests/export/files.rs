//! Metrics in a file.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::exporter::{CAPTURE, PATIENCE, after, ends, is_whole, linger};

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_reader_finds_whole_files_only() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("linger.prom");
    let name = file.to_str().unwrap();
    let arguments = [
        "export",
        "--from",
        CAPTURE,
        "--textfile",
        name,
        "--interval",
        "1ms",
    ];
    let mut child = after("umask 077", &arguments).spawn().unwrap();
    let until = Instant::now() + PATIENCE;
    while !file.exists() {
        assert!(Instant::now() < until, "no file");
        std::thread::yield_now();
    }
    let mut seen = BTreeSet::new();
    let mut reads = 0;
    while seen.len() < 30 || reads < 300 {
        assert!(
            Instant::now() < until,
            "it is not written again: {}",
            seen.len()
        );
        let text = fs::read_to_string(&file).unwrap();
        assert!(is_whole(&text), "{text}");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o644, "whatever the umask is");
        seen.insert(text);
        reads += 1;
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = ends(&mut child, PATIENCE);
    assert_eq!(status.code(), Some(0));
    assert_eq!(
        names(scratch.path()),
        ["linger.prom"],
        "and nothing beside it"
    );
}

#[test]
fn written_once_it_ends() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("x y.prom");
    // Left by one that was killed.
    fs::write(scratch.path().join("other.prom"), "").unwrap();
    for _ in 0..2 {
        let output = linger(&["export", "--from", CAPTURE, "--textfile"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        assert!(is_whole(&fs::read_to_string(&file).unwrap()));
    }
    // A name without a directory is one of the working directory.
    let output = linger(&["export", "--textfile", "here.prom", "--from"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(CAPTURE))
        .current_dir(scratch.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        names(scratch.path()),
        ["here.prom", "other.prom", "x y.prom"]
    );
}

#[test]
fn what_cannot_be_written_leaves_nothing_and_takes_nothing_away() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("x.prom");
    fs::write(&file, "as it was\n").unwrap();
    let name = file.to_str().unwrap();
    let arguments = ["export", "--from", CAPTURE, "--textfile", name];
    // As on a full disk.
    let output = after("trap '' XFSZ; ulimit -f 1", &arguments)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.starts_with(&format!("linger: cannot write '{name}': ")),
        "{said}"
    );
    assert!(
        said.contains("hint: what was there before is unchanged"),
        "{said}"
    );
    assert_eq!(names(scratch.path()), ["x.prom"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "as it was\n");

    // A directory that may not be written to, to root neither without this capability.
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let drop = if rustix::process::geteuid().is_root() {
        "set -- setpriv --bounding-set=-dac_override,-fowner --inh-caps=-all \"$@\""
    } else {
        ":"
    };
    let output = after(drop, &arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("hint: a file beside it is written first"),
        "{said}"
    );
    assert_eq!(names(scratch.path()), ["x.prom"]);
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_link_is_not_replaced() {
    let scratch = tempfile::tempdir().unwrap();
    let link = scratch.path().join("x.prom");
    std::os::unix::fs::symlink("elsewhere", &link).unwrap();
    let output = linger(&["export", "--from", CAPTURE, "--textfile"])
        .arg(&link)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn a_service_is_ready_once_the_file_is_there() {
    let scratch = tempfile::tempdir().unwrap();
    let (socket, file) = (scratch.path().join("notify"), scratch.path().join("x.prom"));
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut child = linger(&[
        "export",
        "--from",
        CAPTURE,
        "--interval",
        "1h",
        "--textfile",
    ])
    .arg(&file)
    .env("NOTIFY_SOCKET", &socket)
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    let heard = || {
        let mut buffer = [0; 256];
        let n = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).trim().to_owned()
    };
    assert_eq!(heard(), "READY=1");
    assert!(is_whole(&fs::read_to_string(&file).unwrap()));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(heard(), "STOPPING=1");
    assert_eq!(ends(&mut child, Duration::from_secs(30)).code(), Some(0));
}
