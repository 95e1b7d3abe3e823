//! The alert rules, made from what the detectors say of themselves.

use linger::analyze::Detector;
use linger::analyze::detectors::ALL;
use linger::model::Severity;

/// One alert.
pub struct Alert {
    pub name: String,
    /// the query, without the comparison that makes it an alert
    pub expr: String,
    /// how long it has to hold, minutes
    pub minutes: u32,
    pub severity: &'static str,
    /// the detector, if it is about one
    pub finding: Option<&'static str>,
    pub summary: String,
    pub description: String,
    pub runbook: String,
    /// in the file, above the alert
    pub comment: &'static str,
}

/// The alerts of every detector: one for each severity at which a person has to look, as far as it goes.
pub fn of_findings() -> Vec<Alert> {
    let loud = [Severity::Critical, Severity::Warning];
    let reached = |detector: &&'static Detector| {
        let worst = detector.worst;
        let detector: &'static Detector = detector;
        loud.into_iter()
            .filter(move |severity| *severity <= worst)
            .map(move |severity| finding(detector, severity))
    };
    ALL.iter().flat_map(reached).collect()
}

fn finding(detector: &'static Detector, severity: Severity) -> Alert {
    let id = detector.id;
    let name = severity.name();
    let advice: String = detector
        .advice
        .iter()
        .map(|line| format!("\n- {line}"))
        .collect();
    Alert {
        name: format!("Linger{}", camel(id)),
        expr: format!("linger_finding_active{{id=\"{id}\",severity=\"{name}\"}} > 0"),
        minutes: match severity {
            Severity::Critical => 2,
            Severity::Warning | Severity::Info => 15,
        },
        severity: name,
        finding: Some(id),
        summary: format!("{{{{ $labels.instance }}}}: {}", detector.summary),
        description: format!(
            "{{{{ $value }}}} at severity {name}. {}\nWhat helps:{advice}",
            first_sentence(detector.explanation)
        ),
        runbook: format!("linger explain {id}"),
        comment: "",
    }
}

/// The alerts about linger itself: silence of a blind eye is no good news.
pub fn of_the_source() -> Vec<Alert> {
    let alert = |name: &str, expr: &str, minutes, severity| Alert {
        name: format!("Linger{name}"),
        expr: expr.to_owned(),
        minutes,
        severity,
        finding: None,
        summary: String::new(),
        description: String::new(),
        runbook: String::new(),
        comment: "",
    };
    vec![
        Alert {
            summary: "{{ $labels.instance }}: linger export does not answer".to_owned(),
            description: "Prometheus cannot scrape linger, so that no finding of this host is known.".to_owned(),
            runbook: "systemctl status linger-export; journalctl -u linger-export".to_owned(),
            comment: "The scrape fails. The job has to be called linger, as in prometheus.yml.",
            ..alert("TargetDown", "up{job=\"linger\"} == 0", 5, "warning")
        },
        Alert {
            summary: "no host at all has metrics of linger".to_owned(),
            description: "There is no series of linger at all: the scrape job or the textfile is gone, or was never \
                          there."
                .to_owned(),
            runbook: "promtool query instant http://localhost:9090 linger_build_info".to_owned(),
            comment: "No alert of this file could fire, and nobody would know.",
            ..alert("Absent", "absent(linger_build_info)", 15, "warning")
        },
        Alert {
            summary: "{{ $labels.instance }}: linger cannot read the sockets".to_owned(),
            description: "The kernel gave neither a netlink dump nor /proc/net/tcp, so that nothing is judged."
                .to_owned(),
            runbook: "linger diagnose".to_owned(),
            comment: "The exporter answers, and has nothing to say.",
            ..alert("SourceDown", "linger_source_up == 0", 5, "warning")
        },
        Alert {
            summary: "{{ $labels.instance }}: linger sees only a part of the sockets or of their owners".to_owned(),
            description: "For an hour something could not be read: missing privileges, a fallback to /proc/net, or dumps \
                          that were interrupted. What was found is true; what was not found may be there."
                .to_owned(),
            runbook: "linger status    # as the user of the exporter; it says what is missing".to_owned(),
            comment: "One interrupted dump on a busy host is nothing; a view that stays partial is worth a look.",
            ..alert("SourceIncomplete", "linger_source_complete == 0", 60, "info")
        },
        Alert {
            summary: "{{ $labels.instance }}: linger cannot judge {{ $labels.id }}".to_owned(),
            description: "For six hours this finding could not be judged: that there is no alert about it does not \
                          mean that all is well."
                .to_owned(),
            runbook: "linger diagnose --only {{ $labels.id }}    # says why it cannot tell".to_owned(),
            comment: "Kernels and privileges differ, so this informs and does not wake anybody.",
            ..alert("FindingUnknown", "linger_finding_unknown == 1", 6 * 60, "info")
        },
        Alert {
            summary: "{{ $labels.instance }}: {{ $labels.file }} is not written any more".to_owned(),
            description: "node_exporter keeps on serving what linger wrote last: the findings shown are old.".to_owned(),
            runbook: "systemctl list-timers; linger export --textfile FILE".to_owned(),
            comment: "With --textfile only: the file outlives its writer. Twenty minutes are four runs of a timer of five.",
            ..alert(
                "TextfileStale",
                "time() - node_textfile_mtime_seconds{file=~\".*/linger[^/]*[.]prom\"} > 1200",
                1,
                "warning",
            )
        },
    ]
}

/// `close-wait-leak` as `CloseWaitLeak`.
fn camel(id: &str) -> String {
    id.split('-')
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        })
        .collect()
}

fn first_sentence(text: &str) -> String {
    let end = text.find(". ").map_or(text.len(), |end| end + 1);
    text[..end].to_owned()
}

const HEAD: &str = "\
# Alerts on what linger finds, and linger's numbers under node_exporter's names.
# Made from the detectors' own texts: UPDATE_CONTRIB=1 cargo test --test contrib
#
# for: a critical finding means that users are hurt now or within the hour. Two minutes are a second scrape at any
# usual interval, so that one look alone wakes nobody. A warning means that a person should look today: a quarter of
# an hour leaves out what passes by itself (a deploy, a burst).
# A name stands for one finding; severity tells its alerts apart. Where both fire, let Alertmanager keep back the
# warning: inhibit_rules in contrib/README.md.
";

const RECORDED: &str = r#"
  # node_exporter's names, for dashboards and alerts that know them. They keep the labels of the job linger, so that
  # nothing of node_exporter's own is overwritten; do not sum over jobs where its tcpstat collector runs too. With
  # `linger export --textfile` and without tcpstat, put the job of node_exporter in place of linger.
  - name: linger-as-node-exporter
    rules:
      # Its tcpstat counts both families together. It leaves out states without sockets; here they are 0. It knows no
      # BOUND-INACTIVE. Its rx_queued_bytes and tx_queued_bytes are not among what linger exports.
      - record: node_tcp_connection_states
        expr: sum without (family) (linger_tcp_sockets{job="linger",state!="bound_inactive"})
      # Whether the sockets could be read, and how long that took, as its collectors report it.
      - record: node_scrape_collector_success
        labels:
          collector: tcpstat
        expr: linger_source_up{job="linger"}
      - record: node_scrape_collector_duration_seconds
        labels:
          collector: tcpstat
        expr: linger_scrape_duration_seconds{job="linger"}
"#;

/// The rules file.
pub fn rules() -> String {
    let mut text = format!("{HEAD}groups:\n  - name: linger-findings\n    rules:\n");
    for alert in of_findings() {
        text += &rule(&alert);
    }
    text += "\n  # Silence of a blind eye is no good news.\n  - name: linger-itself\n    rules:\n";
    for alert in of_the_source() {
        text += &rule(&alert);
    }
    text + RECORDED
}

fn rule(alert: &Alert) -> String {
    let mut text = String::new();
    if !alert.comment.is_empty() {
        text += &format!("      # {}\n", alert.comment);
    }
    text += &format!(
        "      - alert: {}\n        expr: {}\n        for: {}\n        labels:\n          severity: {}\n",
        alert.name,
        alert.expr,
        duration(alert.minutes),
        alert.severity
    );
    if let Some(id) = alert.finding {
        text += &format!("          finding: {id}\n");
    }
    text += "        annotations:\n";
    for (name, value) in annotations(alert) {
        text += &format!("          {name}: |-\n{}\n", indented(&value, 12));
    }
    text
}

fn annotations(alert: &Alert) -> [(&'static str, String); 3] {
    [
        ("summary", alert.summary.clone()),
        ("description", alert.description.clone()),
        ("runbook", alert.runbook.clone()),
    ]
}

fn duration(minutes: u32) -> String {
    if minutes.is_multiple_of(60) {
        format!("{}h", minutes / 60)
    } else {
        format!("{minutes}m")
    }
}

fn indented(text: &str, by: usize) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| format!("{:by$}{line}", ""))
        .collect();
    lines.join("\n")
}

const TESTS_HEAD: &str = "\
# promtool test rules linger.rules.test.yml
# Made with the rules. One minute before `for` has passed nothing fires; then it does, for the host that is sick and for
# no other.
rule_files:
  - linger.rules.yml

evaluation_interval: 1m

tests:
";

/// The suite for `promtool test rules`.
pub fn tests() -> String {
    let mut text = TESTS_HEAD.to_owned() + &findings_test();
    for alert in of_the_source() {
        text += &source_test(&alert);
    }
    text + RECORDED_TEST
}

/// One test for all findings, since promtool evaluates all rules once a minute for each. A host is called by the severity
/// of what ails it: each is the quiet twin of the others.
fn findings_test() -> String {
    let alerts = of_findings();
    let last = alerts.iter().map(|alert| alert.minutes).max().unwrap_or(0) + 1;
    let mut series = String::new();
    let mut cases = String::new();
    for detector in ALL {
        let id = detector.id;
        for severity in ["critical", "warning", "info"] {
            for host in ["critical", "warning", "info"] {
                let values = if host == severity { "0 3" } else { "0" };
                series += &input(
                    &format!(
                        "linger_finding_active{{id=\"{id}\",severity=\"{severity}\",instance=\"{host}\",job=\"linger\"}}"
                    ),
                    &format!("{values}x{last}"),
                );
            }
        }
        let ours: Vec<&Alert> = alerts
            .iter()
            .filter(|alert| alert.finding == Some(id))
            .collect();
        let name = format!("Linger{}", camel(id));
        let mut times: Vec<u32> = ours
            .iter()
            .flat_map(|alert| [alert.minutes, alert.minutes + 1])
            .collect();
        // What is told by no alert stays so until the end.
        times.push(last);
        times.sort_unstable();
        times.dedup();
        for minute in times {
            let firing: String = ours
                .iter()
                .filter(|alert| alert.minutes < minute)
                .map(|alert| {
                    let labels = [
                        ("id", id),
                        ("finding", id),
                        ("severity", alert.severity),
                        ("instance", alert.severity),
                        ("job", "linger"),
                    ];
                    firing(alert, &labels, alert.severity, "3")
                })
                .collect();
            cases += &case(minute, &name, &firing);
        }
    }
    format!(
        "  - name: findings\n    interval: 1m\n    input_series:\n{series}    alert_rule_test:\n{cases}"
    )
}

fn input(series: &str, values: &str) -> String {
    format!("      - series: '{series}'\n        values: '{values}'\n")
}

/// What is expected at a minute.
fn case(minute: u32, name: &str, firing: &str) -> String {
    let none = if firing.is_empty() { " []" } else { "" };
    format!(
        "      - eval_time: {minute}m\n        alertname: {name}\n        exp_alerts:{none}\n{firing}"
    )
}

/// An alert that is expected.
fn firing(alert: &Alert, labels: &[(&str, &str)], instance: &str, value: &str) -> String {
    let mut text = "          - exp_labels:\n".to_owned();
    for (name, value) in labels {
        text += &format!("              {name}: {value}\n");
    }
    text += "            exp_annotations:\n";
    for (name, template) in annotations(alert) {
        let mut filled = template
            .replace("{{ $labels.instance }}", instance)
            .replace("{{ $value }}", value);
        for (label, value) in labels {
            filled = filled.replace(&format!("{{{{ $labels.{label} }}}}"), value);
        }
        text += &format!("              {name}: |-\n{}\n", indented(&filled, 16));
    }
    text
}

fn source_test(alert: &Alert) -> String {
    let labelled = |metric: &str, labels: &str| {
        format!("{metric}{{instance=\"sick\",job=\"linger\"{labels}}}")
    };
    let well = |metric: &str, labels: &str| {
        format!("{metric}{{instance=\"well\",job=\"linger\"{labels}}}")
    };
    let here = [
        ("severity", alert.severity),
        ("instance", "sick"),
        ("job", "linger"),
    ];
    let gauge = |metric: &str| vec![(labelled(metric, ""), "1 0x"), (well(metric, ""), "1x")];
    match &alert.name[..] {
        "LingerTargetDown" => test(alert, &gauge("up"), &here, "sick", "0"),
        "LingerSourceDown" => test(alert, &gauge("linger_source_up"), &here, "sick", "0"),
        "LingerSourceIncomplete" => {
            test(alert, &gauge("linger_source_complete"), &here, "sick", "0")
        }
        "LingerFindingUnknown" => {
            let id = ",id=\"syn-flood\"";
            let input = [
                (labelled("linger_finding_unknown", id), "0 1x"),
                (well("linger_finding_unknown", id), "0x"),
            ];
            let labels = [&here[..], &[("id", "syn-flood")]].concat();
            test(alert, &input, &labels, "sick", "1")
        }
        // It was there for a minute.
        "LingerAbsent" => test(
            alert,
            &[(labelled("linger_build_info", ""), "1 stale")],
            &[("severity", alert.severity)],
            "",
            "1",
        ),
        "LingerTextfileStale" => {
            let file = ",file=\"/var/lib/prometheus/node-exporter/linger.prom\"";
            let other = ",file=\"/var/lib/prometheus/node-exporter/apt.prom\"";
            let metric = "node_textfile_mtime_seconds";
            let input = [
                (labelled(metric, file), "0x"),
                (labelled(metric, other), "0x"),
                (well(metric, file), "0+60x"),
            ];
            let labels = [
                &here[..],
                &[("file", "/var/lib/prometheus/node-exporter/linger.prom")],
            ]
            .concat();
            // More than 1,200 s are reached in minute 21.
            let delayed = Alert {
                minutes: alert.minutes + 20,
                ..copy(alert)
            };
            test(&delayed, &input, &labels, "sick", "1320")
        }
        other => panic!("{other} has no test"),
    }
}

fn copy(alert: &Alert) -> Alert {
    Alert {
        name: alert.name.clone(),
        expr: alert.expr.clone(),
        summary: alert.summary.clone(),
        description: alert.description.clone(),
        runbook: alert.runbook.clone(),
        ..*alert
    }
}

/// One test. The alert's condition holds from minute 1 on.
fn test(
    alert: &Alert,
    series: &[(String, &str)],
    labels: &[(&str, &str)],
    instance: &str,
    value: &str,
) -> String {
    let due = alert.minutes + 1;
    let mut text = format!(
        "  - name: {}\n    interval: 1m\n    input_series:\n",
        alert.name
    );
    for (series, values) in series {
        // The last number is repeated until the end.
        let values = match values.strip_suffix('x') {
            Some(values) => format!("{values}x{due}"),
            None => (*values).to_owned(),
        };
        text += &input(series, &values);
    }
    text += "    alert_rule_test:\n";
    text += &case(due - 1, &alert.name, "");
    text += &case(due, &alert.name, &firing(alert, labels, instance, value));
    text
}

const RECORDED_TEST: &str = r#"  - name: node_exporter's names
    interval: 1m
    input_series:
      - series: 'linger_tcp_sockets{family="ipv4",state="established",instance="a",job="linger"}'
        values: '30'
      - series: 'linger_tcp_sockets{family="ipv6",state="established",instance="a",job="linger"}'
        values: '12'
      - series: 'linger_tcp_sockets{family="ipv4",state="established",instance="b",job="linger"}'
        values: '1'
      - series: 'linger_tcp_sockets{family="ipv4",state="bound_inactive",instance="a",job="linger"}'
        values: '5'
      - series: 'linger_source_up{instance="a",job="linger"}'
        values: '1'
      - series: 'linger_scrape_duration_seconds{instance="a",job="linger"}'
        values: '0.25'
    promql_expr_test:
      - expr: node_tcp_connection_states
        eval_time: 0m
        exp_samples:
          - labels: 'node_tcp_connection_states{state="established",instance="a",job="linger"}'
            value: 42
          - labels: 'node_tcp_connection_states{state="established",instance="b",job="linger"}'
            value: 1
      - expr: node_scrape_collector_success
        eval_time: 0m
        exp_samples:
          - labels: 'node_scrape_collector_success{collector="tcpstat",instance="a",job="linger"}'
            value: 1
      - expr: node_scrape_collector_duration_seconds
        eval_time: 0m
        exp_samples:
          - labels: 'node_scrape_collector_duration_seconds{collector="tcpstat",instance="a",job="linger"}'
            value: 0.25
"#;
