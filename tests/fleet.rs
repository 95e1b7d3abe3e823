//! linger among others: a real Prometheus scrapes a real `linger export` and a real node_exporter, with the rules and
//! the scrape configuration of `contrib/`, in a network namespace whose sockets are known; then Prometheus is asked what
//! it has stored. Needs root, `ip`, `setpriv`, and Debian's `prometheus` and `prometheus-node-exporter`; where they are
//! missing it is skipped, which `CI` turns into a failure.
//!
//! * `scene`: sockets in many states, and what the kernel's own tables say of them.
//! * `programs`: the programs that are started, and end with the test.
//! * `http`: as much of HTTP as the questions take.
//! * `steps`: what has to hold, one after the other.
//! * `stored`: what Prometheus answers.
//! * `dashboard`: the queries of the dashboard.
//! * `sys`: a namespace of its own.

#[cfg(test)]
#[path = "fleet/dashboard.rs"]
mod dashboard;
#[cfg(test)]
#[path = "fleet/http.rs"]
mod http;
#[cfg(test)]
#[path = "fleet/programs.rs"]
mod programs;
#[cfg(test)]
#[path = "fleet/scene.rs"]
mod scene;
#[cfg(test)]
#[path = "fleet/steps.rs"]
mod steps;
#[cfg(test)]
#[path = "fleet/stored.rs"]
mod stored;
#[cfg(test)]
#[path = "fleet/sys.rs"]
mod sys;

#[test]
fn a_real_prometheus_stores_what_linger_tells_and_node_exporter_agrees() {
    if let Some(how) = programs::missing() {
        assert!(std::env::var_os("CI").is_none(), "{how}");
        eprintln!("skipped: {how}");
        return;
    }
    sys::enter_a_network_namespace().unwrap();
    let scene = scene::Scene::open();
    let site = programs::Site::new();
    let mut programs = programs::Programs::start(&site);
    let mut stored = stored::Stored::connect();

    steps::counts_are_those_of_the_kernel(&mut stored, &scene);
    steps::node_exporter_counts_the_same(&mut stored);
    steps::every_state_is_stored_for_both_families(&mut stored);
    steps::listeners_are_stored_with_their_queues(&mut stored, &scene);
    steps::findings_are_stored(&mut stored);
    steps::units_are_stored(&mut stored);
    steps::a_partial_view_says_so(&mut stored);
    steps::the_rules_are_loaded_and_evaluated(&mut stored);
    steps::the_textfile_is_stored(&mut stored);
    dashboard::every_query_has_data(&mut stored);
    steps::nothing_is_left_of_an_exporter_that_ended(&mut stored, &mut programs);
}
