//! `linger check` as cron and schedulers meet it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::*;

const PROGRAM: &str = env!("CARGO_BIN_EXE_linger");

/// A check of the capture.
fn check(line: &str) -> Said {
    run(&from(&format!("check {line}")))
}

/// It cannot judge, and says so as a plugin does: on standard output, on one line, unless the hint has no room there.
fn unknown(said: &Said, what: &str) {
    assert_eq!(said.code, Some(3), "{said:?}");
    let mut more = said.out.lines().skip(1);
    assert!(more.all(|line| line.starts_with("hint: ")), "{said:?}");
    assert!(said.out.starts_with("LINGER UNKNOWN - "), "{said:?}");
    assert!(!said.out.ends_with("...\n"), "{said:?}");
    assert!(said.out.contains(what), "'{what}': {said:?}");
    assert_eq!(said.err, "");
}

#[test]
fn a_capture_is_checked_on_one_line() {
    let said = check("");
    assert_eq!((said.code, &said.err[..]), (Some(0), ""), "{said:?}");
    assert!(
        said.out
            .starts_with("LINGER OK - 37 checks quiet, 5 cannot tell, 12 TCP sockets | ")
    );
    assert_eq!(said.out.lines().count(), 1);
    let said = check("--expect-listener 9 --only listener-vanished");
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.out.starts_with(
        "LINGER CRITICAL - listener-vanished: nobody listens on :9, and it has to be listened on | "
    ));
    assert!(
        said.out.contains(" 'critical'=1;;;0 'warning'=0;;;0 "),
        "{said:?}"
    );
    let said = check("--expect-listener 9 --expect-listener 10");
    assert!(
        said.out
            .contains("has to be listened on; and 1 critical finding | "),
        "{said:?}"
    );
}

#[test]
fn common_options_may_stand_before_the_command() {
    for line in [
        "--from FILE check",
        "check --from FILE",
        "--config=/dev/null -j --from FILE check",
    ] {
        let said = run(&line.replace("FILE", CAPTURE));
        assert_eq!(said.code, Some(0), "{line}: {said:?}");
    }
    unknown(&run(&from("--frobnicate check")), "'--frobnicate'");
    unknown(&run(&from("-x check")), "'-x'");
    // Of words that are no options `check` is the first, or it is a filter's.
    let said = run(&from("list process = check"));
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn metrics_are_held_against_their_ranges() {
    for (line, code, what) in [
        (
            "--metric tcp.close-wait -w 2 -c 2",
            0,
            "OK - tcp.close-wait 2 | 'tcp.close-wait'=2;2;2;0\n",
        ),
        (
            "--metric tcp.close-wait -w 1 -c 2",
            1,
            "WARNING - tcp.close-wait is 2, above 1 |",
        ),
        (
            "--metric tcp.close-wait -w 1 -c 1",
            2,
            "CRITICAL - tcp.close-wait is 2, above 1 |",
        ),
        (
            "--metric tcp.close-wait -w @2:2",
            1,
            "tcp.close-wait is 2, within @2:2 |",
        ),
        (
            "--metric tcp.close-wait -c 3:",
            2,
            "tcp.close-wait is 2, below 3 |",
        ),
        (
            "--metric tcp.total -w 99 --metric tcp.CLOSE_WAIT -c 1",
            2,
            "CRITICAL - tcp.close-wait is 2, above 1; tcp.total 12 | 'tcp.total'=12;99;;0 'tcp.close-wait'=2;;1;0\n",
        ),
        (
            "--metric listener[9].queue -w 5",
            2,
            "CRITICAL - listener[9].queue: nobody listens on :9\n",
        ),
        (
            "--metric tcp.total.growth -w 5",
            3,
            "tcp.total.growth: cannot tell: no history yet\n",
        ),
        (
            "--metric tcp.total.growth -w 5 --metric tcp.total -w 1",
            1,
            "WARNING - tcp.total is 12, above 1; tcp.total.growth: cannot tell",
        ),
        (
            "--metric tcp.total -w 5 --only close-wait-leak",
            1,
            "tcp.total is 12, above 5; 1 check quiet, 12 TCP sockets |",
        ),
    ] {
        let said = check(line);
        assert_eq!(said.code, Some(code), "{line}: {said:?}");
        assert!(said.out.contains(what), "{line}: {said:?}");
    }
}

#[test]
fn a_filter_narrows() {
    for (filter, count) in [
        ("", 2),
        ("sport = :8080", 2),
        ("src 127.0.0.1", 1),
        ("process = example and src [::1]", 1),
        ("process = other", 0),
        ("state established", 0),
    ] {
        for metric in ["tcp.close-wait", "process[example].close-wait"] {
            let said = check(&format!("--metric {metric} -w 0 {filter}"));
            let value = format!("'{metric}'={count};0;;0\n");
            assert!(said.out.ends_with(&value), "{filter}: {said:?}");
            assert_eq!(said.code, Some(i32::from(count > 0)), "{filter}");
        }
    }
    let said = check("--metric closes.rate -w 1 src ::1");
    assert!(said.out.contains("'closes.rate'=0.016667;1"), "{said:?}");
}

#[test]
fn what_stops_it_from_judging_is_unknown_on_standard_output() {
    let directory = tempfile::tempdir().unwrap();
    let bad = directory.path().join("bad.toml");
    fs::write(&bad, "onyl = [\"x\"]\n").unwrap();
    let bad = format!("--config {}", bad.display());
    for (line, what) in [
        ("--frobnicate", "'--frobnicate'"),
        ("--metric tcp.total -w 5:1", "'5:1' is no range"),
        ("--metric tcp.total -w 70%", "a number from 0 to 1"),
        ("--metric tcp.total", "has neither -w nor -c"),
        ("-w 5 --metric tcp.total", "-w 5 stands before any --metric"),
        (
            "--metric tcp.close-wiat -w 1",
            "did you mean 'tcp.close-wait'?",
        ),
        ("--metric frobnicate -w 1", "--list-metrics"),
        ("--metric tcp.total -w 1 state frob", "frob"),
        (
            "--metric conntrack.ratio -w 1 sport = :80",
            "conntrack.ratio",
        ),
        (
            "--metric tcp.total.growth -w 1 sport = :80",
            "tcp.total.growth",
        ),
        ("state close-wait", "no --metric"),
        (
            "--metric tcp.total -w 1 --skip syn-flood",
            "--skip is about findings",
        ),
        (
            "--metric tcp.total -w 1 --expect-listener 80",
            "--expect-listener is about findings",
        ),
        ("--no-owners --metric process[a].total -w 1", "--no-owners"),
        (
            "--no-owners --metric tcp.total -w 1 process = a",
            "--no-owners",
        ),
        ("--only frobnicate", "unknown finding 'frobnicate'"),
        ("--config /nonexistent", "/nonexistent"),
        (&bad, "onyl"),
        ("-t 0", "'0'"),
        ("-t soon", "'soon'"),
        ("--samples 0", "'0'"),
        (
            "--only conntrack-near-full",
            "conntrack-near-full: cannot tell",
        ),
    ] {
        unknown(&check(line), what);
    }
    unknown(&run("check --from /nonexistent"), "/nonexistent");
    unknown(
        &run("check --proc-root /nonexistent --no-history"),
        "/nonexistent",
    );
    unknown(
        &run("check --netns all --metric tcp.total -w 1 --no-history"),
        "--netns all",
    );
    unknown(&run("check --from Cargo.toml"), "Cargo.toml");
    // Found, it counts more than what could not be judged.
    let said = check("--only conntrack-near-full,listener-vanished --expect-listener 9");
    assert_eq!(said.code, Some(2), "{said:?}");
}

#[test]
fn every_failure_is_a_document_with_json() {
    for line in [
        "--json --frobnicate",
        "-j --config /nonexistent",
        "-vj --metric tcp.total",
        "--json -t 0",
    ] {
        let said = check(line);
        assert_eq!(said.code, Some(3), "{line}: {said:?}");
        let document: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(
            crate::schema::faults(&document),
            [""; 0],
            "{line}: {document}"
        );
        assert_eq!(document["status"], "unknown");
        assert_eq!(document["complete"], false);
        assert!(document["error"]["message"].is_string(), "{document}");
    }
}

#[test]
fn documents_have_what_the_line_has() {
    let metrics = "--metric tcp.close-wait -w 1 -c 5 --metric listener[9].queue -c 3 --metric tcp.total.growth -w 1";
    let fires = "--only close-wait-leak --threshold close-wait-leak.age=0.1 --threshold close-wait-leak.min=1";
    for capture in [
        CAPTURE,
        "tests/data/v1-procfs.linger",
        "tests/data/ss-6.1.dump",
        "tests/data/v1-series.linger",
    ] {
        for line in [
            "",
            metrics,
            fires,
            "--expect-listener 9",
            &format!("{metrics} {fires}"),
        ] {
            let said = run(&format!("check --json {line} --from {capture}"));
            let document: Value = serde_json::from_str(&said.out).unwrap();
            assert_eq!(
                crate::schema::faults(&document),
                [""; 0],
                "{line} {capture}"
            );
            assert_eq!(document["exit_code"].as_i64(), said.code.map(i64::from));
            let text = run(&format!("check {line} --from {capture}")).out;
            let plain = text.split(" | ").next().unwrap().trim_end();
            assert_eq!(document["line"], plain);
        }
    }
    let said = check(&format!("--json {metrics}"));
    let document: Value = serde_json::from_str(&said.out).unwrap();
    let all = &document["measures"];
    assert_eq!(all[0]["value"], 2.0);
    assert_eq!(
        (&all[0]["warn"], &all[0]["status"]),
        (&"1".into(), &"warning".into())
    );
    assert_eq!(
        (&all[1]["value"], &all[1]["status"]),
        (&Value::Null, &"critical".into())
    );
    assert_eq!(all[1]["reason"], "nobody listens on :9");
    assert_eq!(all[2]["status"], "unknown");
}

#[test]
fn more_is_said_step_by_step() {
    let line = "--expect-listener 9 -H web-7";
    let more = |v: &str| check(&format!("{line} {v}")).out;
    assert_eq!(more("").lines().count(), 1);
    let (one, two, three) = (more("-v"), more("-vv"), more("-vvv"));
    for text in [&one, &two, &three] {
        assert!(
            text.contains("\nCRITICAL") && text.contains("nobody listens on :9"),
            "{text}"
        );
        assert!(
            text.contains("\ncannot tell: conntrack-near-full: "),
            "{text}"
        );
        assert!(text.contains("\nnote: -H web-7 is not used"), "{text}");
        // Behind a | there would be perfdata.
        assert_eq!(text.matches('|').count(), 1, "{text}");
    }
    assert!(
        !one.contains("expected the") && !one.contains("idiag_state"),
        "{one}"
    );
    assert!(
        two.contains("idiag_state") && !two.contains("\nquiet: "),
        "{two}"
    );
    assert!(
        three.contains("systemctl --failed") && three.contains("\nquiet: close-wait-leak, "),
        "{three}"
    );
    let metric = check("--metric tcp.close-wait -w 1 -vvv").out;
    assert!(
        metric.contains("\nWARNING tcp.close-wait is 2, above 1 (sockets, warning 1)\n"),
        "{metric}"
    );
    assert!(
        metric.contains("\n  tcp.STATE: sockets in a state"),
        "{metric}"
    );
}

#[test]
fn quiet_prints_only_what_is_wrong() {
    for (line, code, prints) in [
        ("-q", 0, false),
        ("--quiet --json", 0, false),
        ("-q --expect-listener 9", 2, true),
        ("-q --metric tcp.total -w 12", 0, false),
        ("-q --metric tcp.total -w 11", 1, true),
        ("-q --metric tcp.total.growth -w 11", 3, true),
        ("-q --frobnicate", 3, true),
    ] {
        let said = check(line);
        assert_eq!(
            (said.code, said.out.is_empty()),
            (Some(code), !prints),
            "{line}: {said:?}"
        );
    }
}

#[test]
fn the_name_by_which_it_is_called_makes_it_a_plugin() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("check_linger");
    symlink(PROGRAM, &link).unwrap();
    let called = |arguments: &[&str]| {
        let output = Command::new(&link)
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (code, out) = called(&["--from", CAPTURE, "--metric", "tcp.close-wait", "-c", "1"]);
    assert_eq!(code, Some(2), "{out}");
    assert!(
        out.starts_with("LINGER CRITICAL - tcp.close-wait is 2"),
        "{out}"
    );
    let version = format!("check_linger {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(called(&["-V"]), (Some(3), version.clone()));
    let (code, help) = called(&["--help"]);
    assert_eq!(code, Some(3));
    assert!(
        help.contains("Usage: check_linger ") && help.contains("Examples:"),
        "{help}"
    );
    let (code, list) = called(&["--list-metrics"]);
    assert!(
        code == Some(3) && list.contains("\nconntrack.ratio "),
        "{list}"
    );
    let (code, out) = called(&["--frobnicate"]);
    assert!(
        code == Some(3) && out.starts_with("LINGER UNKNOWN - "),
        "{out}"
    );
    // The name that is given, whatever file it is.
    let bash = |line: &str| {
        let output = Command::new("bash")
            .args(["-c", line, PROGRAM])
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    assert_eq!(
        bash("exec -a check_linger \"$0\" -V"),
        (Some(3), version.clone())
    );
    assert_eq!(
        bash("exec -a /opt/check_linger \"$0\" -V"),
        (Some(3), version.clone())
    );
    let (code, out) = bash(&format!("exec -a linger '{}' -V", link.display()));
    assert!(code == Some(0) && out.starts_with("linger "), "{out}");
    assert_eq!(bash("\"$0\" check -V"), (Some(0), version));
}

#[test]
fn help_of_the_command_is_help_and_the_program_knows_of_it() {
    let said = run("check --help");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.out.contains("Usage: linger check ") && said.out.contains("@10:20"),
        "{said:?}"
    );
    assert!(!said.out.contains("--color"), "{said:?}");
    let said = run("check --list-metrics");
    assert_eq!(said.code, Some(0));
    for measure in linger::analyze::measures::ALL {
        assert!(said.out.contains(measure.name), "{}", measure.name);
    }
    assert!(
        quiet("--help").contains("\n  check "),
        "in the list of commands"
    );
    assert!(quiet("completions bash").contains("list-metrics"));
    let page = quiet("man check");
    for part in [
        "EXIT STATUS",
        "METRICS",
        "AS A PLUGIN",
        "EXAMPLES",
        "@10:20",
        "UNKNOWN",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn what_nobody_reads_is_unknown() {
    let status = |stdout: Stdio, line: &str| {
        let mut command = Command::new(PROGRAM);
        command
            .args(line.split(' '))
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        command
            .stdout(stdout)
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .code()
    };
    let line = from("check");
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    assert_eq!(status(closed(), &line), Some(3));
    assert_eq!(status(closed(), "check --help"), Some(3));
    assert_eq!(
        status(closed(), &(line.clone() + " -q")),
        Some(0),
        "there is nothing to read"
    );
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    assert_eq!(status(full.into(), &line), Some(3));
    assert_eq!(status(Stdio::null(), &line), Some(0));
}

#[test]
fn a_short_time_is_enough_for_two_looks() {
    let said = run("check --no-history --no-owners -t 1 --proc-root tests/data/proc");
    assert_ne!(said.code, Some(2), "{said:?}");
    assert!(!said.out.contains("no answer"), "{said:?}");
}

#[test]
fn a_time_out_is_unknown() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("never");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let mut child = Command::new(PROGRAM)
        .args(["check", "-t", "0.2", "--config"])
        .arg(&fifo)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert!(
        out.starts_with("LINGER UNKNOWN - no answer within 0.2 s (hint: -t "),
        "{out}"
    );
}
