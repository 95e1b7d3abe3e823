//! The dashboard's form. What its queries return is asked of a real Prometheus in `tests/fleet.rs`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::tools::text;

/// What Grafana 9 to 11 have without plugins.
const KINDS: [&str; 6] = [
    "row",
    "stat",
    "state-timeline",
    "status-history",
    "table",
    "timeseries",
];

fn dashboard() -> Value {
    serde_json::from_str(&text("grafana/linger.json")).unwrap()
}

fn panels(dashboard: &Value) -> &Vec<Value> {
    dashboard["panels"].as_array().unwrap()
}

#[test]
fn it_is_for_any_data_source_and_for_grafana_from_9_on() {
    let dashboard = dashboard();
    // Grafana 9.0 has 36; newer ones bring older dashboards up to date, older ones refuse newer.
    assert_eq!(dashboard["schemaVersion"], 36);
    assert!(dashboard["id"].is_null(), "an id is one Grafana's own");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["datasource", "instance", "state"]);
    let anywhere = |value: &Value| value["uid"] == "${datasource}";
    assert!(
        variables[1..]
            .iter()
            .all(|one| anywhere(&one["datasource"]))
    );
    for panel in panels(&dashboard) {
        let kind = panel["type"].as_str().unwrap();
        assert!(KINDS.contains(&kind), "{kind}");
        if kind == "row" {
            continue;
        }
        assert!(anywhere(&panel["datasource"]), "{panel}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty());
        let ids: BTreeSet<_> = targets.iter().map(|one| one["refId"].as_str()).collect();
        assert_eq!(ids.len(), targets.len(), "{}", panel["title"]);
        for target in targets {
            assert!(anywhere(&target["datasource"]));
            let expr = target["expr"].as_str().unwrap();
            assert!(expr.contains("instance=~\"$instance\""), "{expr}");
        }
    }
}

#[test]
fn panels_have_names_of_their_own_and_do_not_lie_upon_each_other() {
    let dashboard = dashboard();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard) {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24);
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{} at {x}, {y}", panel["title"]);
            }
        }
    }
}
