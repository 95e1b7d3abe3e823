//! What is gone, what is back, and what only seems to be gone.

use super::*;
use crate::analyze::Settings;
use crate::model::Analysis;

fn with(scenario: Scenario, expected: &[&str]) -> Analysis {
    let mut settings = Settings::default();
    settings.only(&[DETECTOR.id.to_owned()]).unwrap();
    for text in expected {
        settings.expect(text).unwrap();
    }
    scenario.analyze(&settings)
}

fn severities(scenario: Scenario, expected: &[&str]) -> Vec<Severity> {
    let findings = with(scenario, expected).findings;
    findings
        .into_iter()
        .map(|finding| finding.severity)
        .collect()
}

fn listen(scenario: &mut Scenario, local: Endpoint, family: Family) {
    let wildcard = Endpoint::v4([0; 4], 0);
    let mut socket = scenario.socket(TcpState::Listen, local, wildcard);
    socket.family = family;
    scenario.push(socket, &[]);
}

const V4: Endpoint = Endpoint::v4([0; 4], 80);
const V6: Endpoint = Endpoint::v6([0; 16], 80);
const ONE: Endpoint = Endpoint::v4([10, 0, 0, 1], 80);

/// These places before, and those now.
fn moved(before: &[Place], now: &[Place]) -> Vec<Severity> {
    let mut scenario = Scenario::default();
    for (family, place) in before {
        listen(&mut scenario, *place, *family);
    }
    scenario.remember(60);
    clear(&mut scenario);
    for (family, place) in now {
        listen(&mut scenario, *place, *family);
    }
    severities(scenario, &[])
}

#[test]
fn what_listened_before_and_does_not_now_is_missed() {
    let finding = with(example(1), &[]).findings.remove(0);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(
        finding.title,
        "nobody listens on :6379 any more, last seen 60 s ago"
    );
    assert_eq!(severities(example(2), &[]).len(), 2);
    assert_eq!(severities(example(0), &[]), []);
}

#[test]
fn a_restart_is_quiet_once_it_is_back() {
    let mut scenario = example(1);
    let process = scenario.process(78, "redis-server", 50, 1024);
    scenario.listen(process, 6379, 0, 128, 0);
    // Another socket on the same port.
    assert_eq!(severities(scenario, &[]), []);
}

#[test]
fn it_is_missed_for_three_looks_however_far_apart() {
    let mut scenario = example(1);
    scenario.remember(600);
    scenario.remember(600);
    let finding = with(scenario.clone(), &[]).findings.remove(0);
    assert!(
        finding.title.ends_with("seen 21 min ago"),
        "{}",
        finding.title
    );
    scenario.remember(600);
    assert_eq!(severities(scenario, &[]), []);
}

#[test]
fn it_is_missed_for_a_quarter_of_an_hour_however_many_looks_that_is() {
    let mut scenario = example(1);
    for _ in 0..14 {
        scenario.remember(60);
    }
    assert_eq!(severities(scenario.clone(), &[]), [Severity::Warning]);
    scenario.remember(60);
    assert_eq!(severities(scenario, &[]), []);
}

#[test]
fn what_came_and_went_is_told_for_three_looks() {
    let mut scenario = Scenario::default();
    let data = Endpoint::v4([0; 4], 40_000);
    listen(&mut scenario, data, Family::Ipv4);
    scenario.remember(60);
    clear(&mut scenario);
    scenario.remember(1);
    scenario.remember(1);
    assert_eq!(severities(scenario.clone(), &[]), [Severity::Info]);
    scenario.remember(1);
    assert_eq!(severities(scenario, &[]), []);
}

#[test]
fn a_wildcard_covers_an_address_and_ipv6_covers_ipv4_unless_both_were_there() {
    use Family::{Ipv4, Ipv6};
    let gone = [Severity::Warning];
    assert_eq!(moved(&[(Ipv4, ONE)], &[(Ipv4, V4)]), []);
    assert_eq!(moved(&[(Ipv4, V4)], &[(Ipv4, ONE)]), gone);
    assert_eq!(moved(&[(Ipv4, V4)], &[(Ipv6, V6)]), []);
    assert_eq!(moved(&[(Ipv6, V6)], &[(Ipv4, V4)]), gone);
    assert_eq!(moved(&[(Ipv4, V4), (Ipv6, V6)], &[(Ipv6, V6)]), gone);
    assert_eq!(
        moved(&[(Ipv4, V4), (Ipv6, V6)], &[]),
        gone,
        "one port, one finding"
    );
    let group = [(Ipv4, V4); 2];
    assert_eq!(moved(&group, &group[..1]), [], "one of a group");
}

#[test]
fn a_port_of_the_ephemeral_range_comes_and_goes() {
    let data = Endpoint::v4([0; 4], 40_000);
    assert_eq!(moved(&[(Family::Ipv4, data)], &[]), [Severity::Info]);
}

#[test]
fn a_listener_of_a_few_seconds_was_not_meant_to_stay() {
    let seen = |looks: u32, seconds| {
        let mut scenario = Scenario::default();
        for _ in 0..looks {
            clear(&mut scenario);
            listen(&mut scenario, V4, Family::Ipv4);
            scenario.remember(seconds);
        }
        clear(&mut scenario);
        severities(scenario, &[])
    };
    assert_eq!(seen(30, 1), [Severity::Info], "29 s");
    assert_eq!(seen(31, 1), [Severity::Warning]);
    assert_eq!(seen(1, 29), [Severity::Info]);
    assert_eq!(seen(1, 30), [Severity::Warning]);
}

#[test]
fn two_moments_are_no_time_in_between() {
    let there = |between: bool| {
        let mut scenario = Scenario::default();
        for present in [true, between, true] {
            clear(&mut scenario);
            if present {
                listen(&mut scenario, V4, Family::Ipv4);
            }
            scenario.remember(20);
        }
        clear(&mut scenario);
        severities(scenario, &[])
    };
    assert_eq!(there(true), [Severity::Warning]);
    assert_eq!(there(false), [Severity::Info]);
}

#[test]
fn without_expectation_and_history_it_is_quiet() {
    let analysis = with(Scenario::default(), &[]);
    assert_eq!(analysis.quiet, [DETECTOR.id]);
}

/// nginx on port 443 of this address.
fn nginx(place: [u8; 4]) -> Scenario {
    let mut scenario = Scenario::default();
    let process = scenario.process(901, "nginx", 50, 1024);
    scenario.cgroup(process, "/system.slice/nginx.service");
    scenario.listen(process, 443, 0, 128, 0);
    scenario.snapshot.sockets[0].local = Endpoint::v4(place, 443);
    scenario
}

#[test]
fn an_expected_listener_that_is_missing_is_critical() {
    let here = || nginx([10, 0, 0, 1]);
    assert_eq!(severities(here(), &["443", "10.0.0.1:443"]), []);
    assert_eq!(severities(here(), &["10.0.0.2:443"]), [Severity::Critical]);
    assert_eq!(severities(here(), &["0.0.0.0:443"]), [Severity::Critical]);
    assert_eq!(
        severities(nginx([0; 4]), &["10.0.0.2:443", "0.0.0.0:443"]),
        []
    );
    assert_eq!(
        severities(nginx([0; 4]), &["[::1]:443"]),
        [Severity::Critical]
    );
    let finding = with(here(), &["8443=api.service"]).findings.remove(0);
    assert_eq!(finding.severity, Severity::Critical);
    assert_eq!(
        finding.title,
        "nobody listens on :8443 (api.service), and it has to be listened on"
    );
    assert!(finding.advice[0].starts_with("systemctl status api.service"));
}

#[test]
fn an_expected_one_that_has_vanished_is_one_finding() {
    assert_eq!(severities(example(1), &["6379"]), [Severity::Critical]);
}

#[test]
fn a_listener_of_another_unit_warns() {
    assert_eq!(severities(nginx([0; 4]), &["443=nginx"]), []);
    let finding = with(nginx([0; 4]), &["443=apache2"]).findings.remove(0);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(
        finding.title,
        "443 is held by nginx[901] of nginx.service, not by apache2".replacen("443", ":443", 1)
    );
    let mut unseen = nginx([0; 4]);
    unseen.snapshot.sockets[0].inode = 0;
    assert_eq!(with(unseen, &["443=nginx"]).unknown.len(), 1);
}

#[test]
fn a_table_that_was_not_read_whole_proves_nothing() {
    let mut scenario = example(1);
    scenario.snapshot.coverage.lost = 1;
    assert_eq!(with(scenario, &["99"]).unknown.len(), 1);
}

#[test]
fn an_expected_listener_was_last_seen_where_it_is_expected() {
    let title = |before: Endpoint| {
        let mut scenario = Scenario::default();
        listen(&mut scenario, before, Family::Ipv4);
        scenario.remember(60);
        clear(&mut scenario);
        let findings = with(scenario, &["10.0.0.1:80"]).findings;
        let expected = findings
            .into_iter()
            .find(|finding| finding.severity == Severity::Critical);
        expected.unwrap().title
    };
    for covers in [ONE, V4] {
        assert!(title(covers).contains("last seen 60 s ago"));
    }
    let other = title(Endpoint::v4([127, 0, 0, 1], 80));
    assert!(!other.contains("last seen"), "{other}");
}
