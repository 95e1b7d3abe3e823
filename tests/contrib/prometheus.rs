//! Rules, their suite and the scrape configuration, by promtool.

use std::process::Command;

use linger::analyze::detectors::ALL;
use linger::model::Severity;
use linger::render::prometheus::metrics::METRICS;
use serde_yaml_ng::Value;

use crate::alerts::{self, Alert};
use crate::tools::{accepts, contrib, have, is_fresh, text};

const PACKAGE: &str = "prometheus";

fn promtool(arguments: &[&str]) -> Option<String> {
    have("promtool", PACKAGE).then(|| {
        let mut command = Command::new("promtool");
        accepts(command.current_dir(contrib("prometheus")).args(arguments))
    })
}

/// The generated files are written and read in one test, so that none reads what another is writing.
#[test]
fn the_rules_are_the_detectors_and_each_fires_and_keeps_quiet() {
    is_fresh("prometheus/linger.rules.yml", &alerts::rules());
    is_fresh("prometheus/linger.rules.test.yml", &alerts::tests());
    let rules = alerts::of_findings().len() + alerts::of_the_source().len() + 3;
    if let Some(said) = promtool(&["check", "rules", "linger.rules.yml"]) {
        let found = format!("SUCCESS: {rules} rules found");
        assert!(
            said.contains(&found) && !said.contains("duplicate"),
            "{said}"
        );
    }
    promtool(&["test", "rules", "linger.rules.test.yml"]);
    promtool(&["check", "config", "prometheus.yml"]);
}

#[test]
fn a_suite_that_expects_something_else_fails() {
    if !have("promtool", PACKAGE) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let suite = alerts::tests();
    // A quiet host is sick as well.
    let broken = suite.replacen("values: '0x16'", "values: '0 3x16'", 1);
    assert_ne!(suite, broken);
    std::fs::write(scratch.path().join("linger.rules.yml"), alerts::rules()).unwrap();
    std::fs::write(scratch.path().join("suite.yml"), broken).unwrap();
    let output = Command::new("promtool")
        .current_dir(scratch.path())
        .args(["test", "rules", "suite.yml"])
        .output()
        .unwrap();
    assert!(!output.status.success());
}

#[test]
fn every_detector_has_an_alert_for_each_severity_that_it_reaches() {
    let alerts = alerts::of_findings();
    for detector in ALL {
        let severities: Vec<&str> = alerts
            .iter()
            .filter(|alert| alert.finding == Some(detector.id))
            .map(|alert| alert.severity)
            .collect();
        let expected: &[&str] = match detector.worst {
            Severity::Critical => &["critical", "warning"],
            Severity::Warning => &["warning"],
            Severity::Info => &[],
        };
        assert_eq!(severities, expected, "{}", detector.id);
    }
}

#[test]
fn names_are_in_camel_case_and_texts_have_no_template_but_ours() {
    let known = [
        "{{ $labels.instance }}",
        "{{ $labels.id }}",
        "{{ $labels.file }}",
        "{{ $value }}",
    ];
    let all = alerts::of_findings()
        .into_iter()
        .chain(alerts::of_the_source());
    for Alert {
        name,
        summary,
        description,
        runbook,
        ..
    } in all
    {
        let letters = |c: char| c.is_ascii_alphanumeric();
        assert!(
            name.starts_with("Linger") && name.chars().all(letters),
            "{name}"
        );
        for text in [summary, description, runbook] {
            assert!(!text.is_empty(), "{name}");
            let left = known
                .iter()
                .fold(text, |text, known| text.replace(known, ""));
            assert!(
                !left.contains("{{") && !left.contains("}}"),
                "{name}: {left}"
            );
        }
    }
}

#[test]
fn the_example_scrapes_where_the_programs_listen() {
    let config: Value = serde_yaml_ng::from_str(&text("prometheus/prometheus.yml")).unwrap();
    let jobs = config["scrape_configs"].as_sequence().unwrap();
    let linger = &jobs[0];
    assert_eq!(linger["job_name"], "linger");
    assert_eq!(
        linger["static_configs"][0]["targets"][0], "127.0.0.1:9995",
        "the default of --web.listen-address"
    );
    assert_eq!(config["rule_files"][0], "linger.rules.yml");
}

/// The words of linger's metrics in a text, with what stands in braces behind them.
fn metrics(text: &str) -> Vec<(&str, &str)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices("linger_")
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| word(c) || c == '"' || c == '$'))
        .map(|(at, _)| {
            let rest = &text[at..];
            let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
            let labels = rest[end..].strip_prefix('{');
            let labels = labels.and_then(|labels| labels.split_once('}'));
            (&rest[..end], labels.map_or("", |(labels, _)| labels))
        })
        .collect()
}

#[test]
fn rules_and_dashboard_ask_for_metrics_and_labels_that_there_are() {
    let dashboard: serde_json::Value = serde_json::from_str(&text("grafana/linger.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut exprs: Vec<String> = targets
        .map(|target| target["expr"].as_str().unwrap().to_owned())
        .collect();
    let rules = alerts::rules();
    let lines = rules.lines().map(str::trim);
    exprs.extend(lines.filter_map(|line| line.strip_prefix("expr: ").map(str::to_owned)));
    assert!(exprs.len() > 90);
    let mut seen = 0;
    for expr in &exprs {
        for (name, labels) in metrics(expr) {
            let metric = METRICS.iter().find(|metric| metric.name == name);
            let metric = metric.unwrap_or_else(|| panic!("there is no {name}: {expr}"));
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let label = label.split(['=', '!']).next().unwrap();
                let known = metric.labels.contains(&label) || ["instance", "job"].contains(&label);
                assert!(known, "{name} has no {label}: {expr}");
            }
            seen += 1;
        }
    }
    assert!(seen > exprs.len() - 5, "{seen}");
}
