//! What is told.

use std::fs;

use linger::analyze::detectors;
use linger::render::prometheus::metrics::METRICS;

use crate::exporter::{CAPTURE, Exporter, after, linger, promtool, value};

/// What is written to standard output.
fn printed(arguments: &[&str]) -> String {
    let mut all = vec!["export", "--textfile", "-"];
    all.extend(arguments);
    let output = linger(&all).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Without what is another each time.
fn steady(text: &str) -> String {
    let line = |line: &str| match line.split_once(' ') {
        Some((name @ "linger_scrape_duration_seconds", _)) => format!("{name} 0.01\n"),
        _ => format!("{line}\n"),
    };
    let text: String = text.lines().map(line).collect();
    text.replace(env!("CARGO_PKG_VERSION"), "0.0.0")
}

#[test]
fn the_metrics_of_a_capture() {
    let found = "close-wait-leak,listen-overflow,syn-flood";
    let text = steady(&printed(&["--from", CAPTURE, "--only", found]));
    let path = "tests/data/v1.prom";
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(path).unwrap());
}

#[test]
fn every_finding_is_told_of_or_said_to_be_open() {
    let text = printed(&["--from", CAPTURE]);
    let series = |name: &str| {
        let start = format!("linger_finding_{name}{{");
        text.lines().filter(|line| line.starts_with(&start)).count()
    };
    assert_eq!(series("unknown"), detectors::ALL.len());
    let open = text
        .lines()
        .filter(|line| line.starts_with("linger_finding_unknown{") && line.ends_with(" 1"))
        .count();
    assert_eq!(series("active"), 3 * (detectors::ALL.len() - open));
    let skipped = printed(&["--from", CAPTURE, "--skip", "syn-flood"]);
    assert!(text.contains("\"syn-flood\"") && !skipped.contains("\"syn-flood\""));
}

#[test]
fn promtool_has_nothing_to_say() {
    for arguments in [
        &["--from", CAPTURE][..],
        &["--from", "tests/data/v1-procfs.linger"],
        &["--from", "tests/data/v1-series.linger"],
        &["--from", "tests/data/deploy-after.linger"],
        &["--from", "tests/data/ss-6.1.dump"],
        &["--from", CAPTURE, "--no-owners", "--only", "syn-flood"],
        &["--proc-root", "tests/data/proc", "--collector", "procfs"],
    ] {
        promtool(&printed(arguments));
    }
    let exporter = Exporter::start(&[]);
    promtool(&exporter.get("/metrics").body);
    promtool(&exporter.get("/metrics").body);
}

#[test]
fn a_dump_of_ss_says_what_it_does_not_know() {
    let text = printed(&["--from", "tests/data/ss-6.1.dump"]);
    assert_eq!(value(&text, "linger_source_up"), Some(1.0));
    assert_eq!(value(&text, "linger_source_complete"), Some(0.0));
    assert!(!text.contains("linger_unit_sockets") && !text.contains("linger_ephemeral_ports"));
}

#[test]
fn where_nothing_can_be_read_nothing_is_said() {
    let empty = tempfile::tempdir().unwrap();
    let root = empty.path().to_str().unwrap();
    let away = ["--proc-root", root, "--collector", "procfs"];
    let mut exporter = Exporter::start(&away);
    let answer = exporter.get("/metrics");
    assert_eq!(answer.status, 200);
    promtool(&answer.body);
    let names: Vec<&str> = answer
        .body
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "linger_build_info",
            "linger_source_up",
            "linger_scrape_duration_seconds"
        ]
    );
    assert_eq!(value(&answer.body, "linger_source_up"), Some(0.0));
    assert!(exporter.child.try_wait().unwrap().is_none(), "it stays");

    // A file must not keep what was true once, and whoever wrote it is told.
    let file = empty.path().join("x.prom");
    fs::write(&file, "linger_source_up 1\n").unwrap();
    let output = linger(&["export", "--textfile", file.to_str().unwrap()])
        .args(away)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("linger: "));
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(value(&text, "linger_source_up"), Some(0.0));
}

#[test]
fn the_manual_page_has_every_metric() {
    let page = fs::read_to_string("man/linger-export.8").unwrap();
    for metric in METRICS {
        assert!(page.contains(metric.name), "{}", metric.name);
    }
}

#[test]
fn slips_are_said_in_the_form_of_all_commands() {
    for (arguments, code, what, hint) in [
        (&["--netns", "all"][..], 2, "--netns all", "name one"),
        (&["--json"], 2, "--json", "linger status --json"),
        (&["--web.listen-address", "9995"], 2, "'9995'", ":9995"),
        (
            &["--web.listen-address", "::1:9995"],
            2,
            "'::1:9995'",
            "[::1]:9995",
        ),
        (
            &["--web.listen-address", "127.0.0.1:70000"],
            2,
            "70000",
            ":9995",
        ),
        (&["--web.listen-address", ":http"], 2, "':http'", ":9995"),
        (
            &["--web.listen-address", "192.0.2.1:0"],
            1,
            "192.0.2.1",
            "no interface",
        ),
        (
            &["--web.telemetry-path", "metrics"],
            2,
            "'metrics'",
            "slash",
        ),
        (
            &["--web.telemetry-path", "/-/healthy"],
            2,
            "taken",
            "/metrics",
        ),
        (
            &["--textfile", "a.prom", "--web.listen-address", ":1"],
            2,
            "cannot be used with",
            "--help",
        ),
        (&["--interval", "5s"], 2, "--textfile", "--help"),
        (
            &["--textfile", "-", "--interval", "5s"],
            2,
            "--interval",
            "file",
        ),
        (&["--textfile", "/dev/null"], 1, "'/dev/null'", "'-'"),
        (&["--textfile", "tests/data"], 1, "'tests/data'", "'-'"),
        (
            &["--textfile", "no-such-place/x.prom"],
            1,
            "no-such-place",
            "directory",
        ),
        (&["--from", "no-such-file"], 1, "no-such-file", "record"),
        (&["--only", "no-such-finding"], 2, "no-such-finding", ""),
        (
            &["--netns", "no-such-namespace"],
            1,
            "no-such-namespace",
            "",
        ),
    ] {
        let mut all = vec!["export"];
        all.extend(arguments);
        let output = linger(&all).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        let (first, rest) = said.split_once('\n').unwrap();
        assert!(
            first.starts_with("linger: ") && first.contains(what),
            "{arguments:?}: {said}"
        );
        assert!(
            rest.starts_with("hint: ") && rest.contains(hint),
            "{arguments:?}: {said}"
        );
        assert_eq!(output.stdout, b"", "{arguments:?}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let output = after(
        "exec >&-",
        &["export", "--from", CAPTURE, "--textfile", "-"],
    )
    .output()
    .unwrap();
    assert!(
        !String::from_utf8_lossy(&output.stderr).contains("panicked"),
        "{output:?}"
    );
}
