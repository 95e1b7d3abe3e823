//! Which columns are shown, sorted by and counted by.

use serde_json::json;

use crate::support::*;

#[test]
fn columns_are_those_that_were_asked_for_in_their_order() {
    let table = "\
State       Recv-Q  rtt_us  User  Unit
CLOSE-WAIT       6      11  root  example.service
CLOSE-WAIT       6       8  root  example.service
";
    for line in [
        "list -c state,recv-q,rtt_us,user,unit state close-wait",
        "list --columns STATE,Recv_Q,rtt --columns user,unit,user state close-wait",
        "-c state,recv-q,rtt,user,unit state close-wait",
    ] {
        assert_eq!(quiet(&from(line)), table, "{line}");
    }
    let rows = quiet(&from("-H -c local-port,pid state listen -p"));
    assert_eq!(rows, "8080  4242  example[4242]\n".repeat(2));
    let help = quiet("list --columns help");
    assert!(
        help.contains("\nrtt_us ") && help.contains("[us]"),
        "{help}"
    );
}

#[test]
fn json_holds_the_columns_too() {
    let document = json(&from(
        "list --json -c rtt,user,skmem-drops,unit state close-wait",
    ));
    let socket = &document["sockets"][0];
    assert_eq!(socket["tcp_info"]["rtt_us"], 11);
    assert_eq!(
        (&socket["user"], &socket["unit"]),
        (&json!("root"), &json!("example.service"))
    );
    assert_eq!(socket["memory"]["drops"], 0);
    assert!(socket.get("owners").is_none());
}

#[test]
fn rows_are_sorted_and_cut() {
    let ports = |options: &str| {
        let text = quiet(&from(&format!("list -H -c peer-port {options}")));
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ports("--sort -peer-port --top 3"),
        ["40002", "40002", "40001"]
    );
    assert_eq!(ports("--sort peer-port --top 1"), ["8080"]);
    assert_eq!(ports("--sort=-peer-port").len(), 10);
    assert_eq!(ports("--top 4").len(), 4);
    assert_eq!(
        ports("--sort rtt")[8..],
        ports("state time-wait")[..],
        "what has no tcp_info comes last"
    );
    let document = json(&from("list --json --sort -peer-port --top 1"));
    assert_eq!(document["sockets"][0]["peer_port"], 40_002);
    assert!(document["sockets"][0].get("tcp_info").is_none());
}

#[test]
fn groups_are_counted_the_largest_first() {
    let table = "\
Sockets  Share  State        Process
      4    40%  ESTABLISHED  example[4242]
      2    20%  CLOSE-WAIT   example[4242]
      2    20%  FIN-WAIT-2   example[4242]
      2    20%  TIME-WAIT    - (time-wait)
";
    assert_eq!(quiet(&from("--group-by state,process")), table);
    let top = quiet(&from("list -a --group-by peer-address --top 1"));
    assert!(
        top.ends_with("and 3 more groups with 7 sockets of 12\n"),
        "{top}"
    );
    let bare = quiet(&from("list -H -a --group-by peer-address --top 1"));
    assert_eq!(bare.lines().count(), 1, "{bare}");
}

#[test]
fn groups_as_json() {
    let document = json(&from(
        "list -a --json --group-by state,peer-port --top 2 sport = :8080",
    ));
    assert_eq!(document["schema"], "linger.groups/1");
    assert_eq!(document["by"], json!(["state", "peer-port"]));
    assert_eq!(document["total"], 6);
    assert_eq!(
        document["groups"],
        json!([
            {"state": "close-wait", "peer_port": 40_002, "sockets": 2},
            {"state": "established", "peer_port": 40_001, "sockets": 2},
        ])
    );
    assert_eq!(document["more"], json!({"groups": 1, "sockets": 2}));
    let lines = quiet(&from("list --output jsonl --group-by state"));
    assert_eq!(lines.lines().count(), 4, "{lines}");
    assert_eq!(
        json(&from("list --json --group-by state state closing"))["groups"],
        json!([])
    );
}

#[test]
fn slips_name_what_is_near_and_what_there_is() {
    for line in ["list -c stat", "list --group-by stat", "list --sort -stat"] {
        fails(
            &from(line),
            2,
            "no column 'stat'",
            "did you mean state? 'linger list --columns help' lists all",
        );
    }
    fails(&from("list -c zzzzzz"), 2, "'zzzzzz'", "--columns help");
    fails(&from("list -c ,"), 2, "no column", "--columns help");
    fails(
        &from("list --group-by state --sort age"),
        2,
        "--sort",
        "--help",
    );
    fails(&from("list --top 0"), 2, "'0'", "--help");
    fails(
        &from("diagnose --group-by state"),
        2,
        "'--group-by'",
        "linger list",
    );
}

#[test]
fn help_lists_the_columns_wherever_one_is_named() {
    let all = quiet("list --columns help");
    assert!(all.lines().count() > 80);
    for same in ["list --sort help", "list --group-by help"] {
        assert_eq!(quiet(same), all, "{same}");
    }
}
