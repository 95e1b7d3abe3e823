//! The queries of the dashboard, as it would send them.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::programs::contrib;
use crate::stored::{PATIENCE, Stored};

/// Puts in what Grafana would put in for variables.
fn filled(expr: &str) -> String {
    let filled = expr
        .replace("$instance", ".*")
        .replace("$state", "close_wait")
        .replace("$__rate_interval", "10s");
    assert!(
        !filled.contains('$'),
        "a variable that nobody fills in: {filled}"
    );
    filled
}

/// The queries of all panels, with the panel's title.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&contrib("grafana/linger.json")).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let title = panel["title"].as_str().unwrap().to_owned();
            queries.push((title, filled(target["expr"].as_str().unwrap())));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let definition = variable["definition"].as_str().unwrap_or_default();
        if let Some(inside) = definition.strip_prefix("label_values(") {
            let (metric, label) = inside.trim_end_matches(')').split_once(", ").unwrap();
            let name = variable["name"].as_str().unwrap().to_owned();
            queries.push((
                name,
                format!("group by ({label}) ({metric}{{{label}!=\"\"}})"),
            ));
        }
    }
    queries
}

pub fn every_query_has_data(stored: &mut Stored) {
    let queries = queries();
    assert!(queries.len() > 20, "{}", queries.len());
    let end = Instant::now() + PATIENCE;
    for (title, expr) in queries {
        while stored.query(&expr).is_empty() {
            assert!(Instant::now() < end, "{title}: no data for {expr}");
            thread::sleep(Duration::from_millis(200));
        }
    }
}
