//! `list -r`: with `/etc/hosts`, which names the loopback address everywhere.

use crate::support::*;

#[test]
fn of_n_and_r_the_last_one_counts() {
    let named = |options: &str| {
        let said = run(&from(&format!("list -a {options} -4 state established")));
        assert_eq!(said.code, Some(0), "{options}: {said:?}");
        said.out.contains("localhost")
    };
    for (options, names) in [
        ("", false),
        ("-n", false),
        ("-r", true),
        ("--resolve", true),
        ("-nr", true),
        ("-rn", false),
        ("--resolve --numeric", false),
    ] {
        assert_eq!(named(options), names, "{options}");
    }
}

#[test]
fn json_keeps_the_numbers_and_adds_the_names() {
    let document = json(&from("list -4r --json state close-wait"));
    let socket = &document["sockets"][0];
    assert_eq!(socket["peer_address"], "127.0.0.1");
    assert_eq!(socket["peer_name"], "localhost");
    assert_eq!(socket["local_port"], 8080);
    assert_eq!(socket["local_service"], "http-alt");
    let plain = json(&from("list -4 --json state close-wait"));
    for key in ["peer_name", "local_name", "peer_service", "local_service"] {
        assert!(plain["sockets"][0].get(key).is_none(), "{key}");
    }
}

#[test]
fn groups_have_no_names() {
    fails(
        &from("list -r --group-by peer"),
        2,
        "cannot be used with",
        "",
    );
}
