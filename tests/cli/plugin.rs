//! What Debian's own modules for plugins make of ranges and of the output.

use std::io::Write;
use std::process::{Command, Stdio};

use linger::model::range::Range;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::support::*;

/// Runs a program of Perl on lines; `None` where its modules are not installed, which CI does not allow.
fn perl(program: &str, input: &str) -> Option<String> {
    let modules = "-MMonitoring::Plugin::Range -MMonitoring::Plugin::Performance";
    let perl = |arguments: &[&str]| {
        let mut command = Command::new("perl");
        command.args(modules.split(' ')).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::null()).spawn()
    };
    let there = perl(&["-e", "1"]).and_then(|child| child.wait_with_output());
    if !there.is_ok_and(|output| output.status.success()) {
        let install = "apt-get install libmonitoring-plugin-perl";
        assert!(
            std::env::var_os("CI").is_none(),
            "no Monitoring::Plugin: {install}"
        );
        println!("skipped: {install}");
        return None;
    }
    let mut child = perl(&["-ne", program]).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // Both ends fill their pipes.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        (-30..30i32).prop_map(|n| n.to_string()),
        (-30..30i32, 0..100u32).prop_map(|(n, d)| format!("{n}.{d}")),
        (0..30u32).prop_map(|n| format!("+{n}")),
        Just("0".to_owned()),
        Just("-0.5".to_owned()),
        Just(".5".to_owned()),
        Just("7.".to_owned()),
    ]
}

/// What has the form of a range, although some end before they begin.
fn range() -> impl Strategy<Value = String> {
    let start = prop_oneof![Just(String::new()), Just("~".to_owned()), number()];
    let end = prop_oneof![Just(String::new()), number()];
    let both = (start, end).prop_map(|(start, end)| format!("{start}:{end}"));
    let bounds = prop_oneof![number(), both];
    ("@?", bounds).prop_map(|(at, bounds)| at + &bounds)
}

#[test]
fn ranges_alert_as_those_of_the_plugins_do() {
    let value = (-35..35i32, 0..4u32)
        .prop_map(|(n, quarter)| format!("{}", f64::from(n) + f64::from(quarter) / 4.0));
    let words = prop_oneof![4 => range(), 1 => "[0-9.:~@+ e-]{0,7}"];
    let mut runner = TestRunner::deterministic();
    let mut pairs: Vec<(String, String)> = (0..4000)
        .map(|_| (&words, &value).new_tree(&mut runner).unwrap().current())
        .collect();
    // At the ends themselves.
    pairs.extend(
        ["10", "10:", "~:10", "10:20", "@10:20", "@10", "~:", "@~:"]
            .iter()
            .flat_map(|range| {
                ["-1", "0", "9.75", "10", "10.25", "20", "20.25"]
                    .map(|value| ((*range).to_owned(), value.to_owned()))
            }),
    );
    let input: String = pairs
        .iter()
        .map(|(range, value)| format!("{range}\t{value}\n"))
        .collect();
    let program = r#"chomp; my ($r, $v) = split /\t/, $_, 2;
        my $o = Monitoring::Plugin::Range->parse_range_string($r);
        print defined $o ? $o->check_range($v) : "-", "\n";"#;
    let Some(output) = perl(program, &input) else {
        return;
    };
    let verdicts: Vec<&str> = output.lines().collect();
    assert_eq!(verdicts.len(), pairs.len());
    let plain = |range: &str| {
        let bounds = range.strip_prefix('@').unwrap_or(range);
        let dots = |part: &str| part.matches('.').count() < 2;
        // Perl reads exponents, blanks and several points, and `:` alone as everything from 0 on.
        !bounds.contains(['e', ' '])
            && bounds.split(':').all(dots)
            && bounds != ":"
            && bounds
                .split(':')
                .all(|part| part != "." && part != "+." && part != "-.")
    };
    let (mut alerts, mut wrong) = (0, 0);
    for ((range, value), verdict) in pairs.iter().zip(verdicts) {
        let number: f64 = value.parse().unwrap();
        match Range::parse(range) {
            Ok(ours) => {
                let said = if ours.alerts(number) { "1" } else { "0" };
                alerts += usize::from(said == "1");
                assert_eq!(said, verdict, "'{range}' on {value}");
            }
            Err(error) => {
                wrong += 1;
                assert!(verdict == "-" || !plain(range), "{error}; Perl: {verdict}");
            }
        }
    }
    assert!(
        alerts > 1000 && wrong > 100,
        "both happen: {alerts} {wrong}"
    );
}

/// Label, value, unit, ranges and least of each value, as the plugins' own parser reads them.
fn parsed(line: &str) -> Option<Vec<String>> {
    let (_, perfdata) = line.trim_end().split_once(" | ").unwrap();
    let program = r#"chomp; for my $p (Monitoring::Plugin::Performance->parse_perfstring($_)) {
        print join(" ", map { defined $_ ? $_ : "-" } $p->label, $p->value, $p->uom, $p->warning, $p->critical, $p->min), "\n"; }"#;
    let output = perl(program, &format!("{perfdata}\n"))?;
    Some(output.lines().map(str::to_owned).collect())
}

#[test]
fn the_perfdata_reads_back() {
    let metrics = "--metric tcp.close-wait -w 1 -c 5 --metric listener[8080].queue-ratio -w 0.7 -c ~:0.9 \
                   --metric process[example].total -w 1: --metric closes.rate -c 5";
    let said = run(&from(&format!("check {metrics}")));
    assert_eq!(said.code, Some(1), "{said:?}");
    let Some(values) = parsed(&said.out) else {
        return;
    };
    assert_eq!(
        values,
        [
            "tcp.close-wait 2  1 5 0",
            "listener[8080].queue-ratio 0  0.7 ~:0.9 0",
            "process[example].total 10  1: - 0",
            "closes.rate 0.033333  - 5 0",
        ]
    );
    let said = run(&from("check"));
    let values = parsed(&said.out).unwrap();
    let names: Vec<&str> = values
        .iter()
        .filter_map(|value| value.split(' ').next())
        .collect();
    let states = STATES.map(|state| format!("tcp.{state}"));
    let counts = [
        "critical",
        "warning",
        "info",
        "cannot_tell",
        "muted",
        "time",
    ];
    let all: Vec<&str> = states.iter().map(String::as_str).chain(counts).collect();
    assert_eq!(names, all);
    assert!(
        values.contains(&"tcp.time-wait 2  - - 0".to_owned()),
        "{values:?}"
    );
    let time = values.last().unwrap();
    assert!(time.contains(" s "), "{time}");
}

#[test]
fn a_program_of_any_name_leaves_the_perfdata_whole() {
    let evil = "process[it's = | a\u{1b}[31m b].total";
    let said = said(&mut linger(&[
        "check",
        "--from",
        CAPTURE,
        "--metric",
        evil,
        "-w",
        "1:",
        "--metric",
        "tcp.total",
        "-w",
        "1:",
    ]));
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(said.out.matches('|').count(), 1, "{said:?}");
    let Some(values) = parsed(&said.out) else {
        return;
    };
    assert_eq!(values.len(), 2, "{values:?}");
    assert!(values[1].starts_with("tcp.total 12 "), "{values:?}");
}
