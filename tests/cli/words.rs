//! From what is typed to what is run; and what is not understood.

use crate::support::*;

const CLOSE_WAIT: &str = "\
State       Recv-Q  Send-Q  Local Address:Port  Peer Address:Port
CLOSE-WAIT       6       0  127.0.0.1:8080      127.0.0.1:40002
CLOSE-WAIT       6       0  [::1]:8080          [::1]:40002
";

#[test]
fn a_filter_without_a_command_lists() {
    for line in [
        "list state close-wait",
        "state close-wait",
        "state CLOSE_WAIT",
        "STATE = close_wait",
        "-t state close-wait",
        "state -tan close-wait",
        "exclude connected,listen,closed state close-wait",
    ] {
        assert_eq!(quiet(&from(line)), CLOSE_WAIT, "{line}");
    }
    for line in ["recv-q>1", "(state=close-wait)", "!recv-q<=1"] {
        assert_eq!(quiet(&from(line)), CLOSE_WAIT, "{line}");
    }
    let unquoted = format!("--from {CAPTURE} -- state close-wait");
    assert_eq!(quiet(&unquoted), CLOSE_WAIT);
    linger(&["--from", CAPTURE, "state close-wait"])
        .assert()
        .success()
        .stdout(CLOSE_WAIT)
        .stderr("");
}

#[test]
fn a_filter_selects_by_everything_that_a_row_says() {
    let table = [
        ("sport = :8080", 4),
        ("( sport = :8080 and ! state established )", 4),
        ("dst 127.0.0.1", 5),
        ("dst 127.0.0.0/8 or dst ::1", 10),
        ("dport >= 40000 and dport lt 40002", 2),
        ("process = example state all", 10),
        ("process ~ ex* state listen", 2),
        ("pid = 4242 and unit = example and state close-wait", 2),
        ("user = root state close-wait", 2),
        ("recv-q > 1", 2),
        ("timer = time-wait", 2),
        ("age > 0 state time-wait", 2),
        ("rtt < 1h state close-wait", 2),
        ("state listen or dport = :40002", 4),
        ("not state listen", 10),
        ("fwmark = 0 state established", 4),
        ("fwmark = 1 state established", 0),
    ];
    for (filter, rows) in table {
        for command in ["list -H", "-H -n"] {
            let out = quiet(&from(&format!("{command} {filter}")));
            assert_eq!(out.lines().count(), rows, "{filter}: {out}");
        }
        let document = json(&from(&format!("list --json {filter}")));
        let sockets = document["sockets"].as_array().map_or(0, Vec::len);
        assert_eq!(sockets, rows, "{filter}");
    }
}

#[test]
fn options_run_together_as_fingers_type_them() {
    let listeners = "\
State   Recv-Q  Send-Q  Local Address:Port  Peer Address:Port  Process
LISTEN       0      16  127.0.0.1:8080      0.0.0.0:*          example[4242]
LISTEN       0      16  [::1]:8080          [::]:*             example[4242]
";
    assert_eq!(quiet(&from("-tlnp")), listeners);
    assert_eq!(quiet(&from("list -t -l -n -p")), listeners);
    assert_eq!(
        quiet(&from("-H -tln4")),
        "LISTEN  0  16  127.0.0.1:8080  0.0.0.0:*\n"
    );
    let four = quiet(&from("-tan4"));
    assert_eq!(four.lines().count(), 7, "{four}");
    assert!(!four.contains("[::1]"), "{four}");
    let six = quiet(&from("-tan6"));
    assert!(
        six.lines().skip(1).all(|line| line.contains("[::1]")),
        "{six}"
    );
    assert_eq!(quiet(&from("-tan46")), quiet(&from("-tan")));
    for twice in [
        "-ttaan",
        "-tann",
        "-t -tan --tcp --all",
        "-rtan -n",
        "-tanrn",
    ] {
        assert_eq!(quiet(&from(twice)), quiet(&from("-tan")), "{twice}");
    }
    let columns = quiet(&from("list -c state -c recv-q"));
    assert_eq!(columns, quiet(&from("list -c state,recv-q")));
}

#[test]
fn unasked_it_shows_everything_but_listen() {
    let rows = quiet(&from("list -H"));
    assert_eq!(rows.lines().count(), 10, "{rows}");
    assert!(
        !rows.contains("LISTEN") && rows.contains("TIME-WAIT"),
        "{rows}"
    );
}

#[test]
fn common_options_may_stand_before_the_command_or_behind_it() {
    let documents = [
        format!("--json --from {CAPTURE} diagnose"),
        format!("--from={CAPTURE} diagnose --json"),
        format!("diagnose -j --from {CAPTURE}"),
    ];
    for line in &documents {
        assert_eq!(quiet(line), quiet(&documents[0]), "{line}");
    }
    assert_eq!(
        quiet(&from("--json state close-wait")),
        quiet(&from("state close-wait --json"))
    );
    assert_eq!(quiet(&from("")), quiet(&from("status")));
}

#[test]
fn a_single_word_is_a_subject() {
    let port = quiet(&from(":8080"));
    assert!(port.contains("\nport 8080   12 sockets\n"), "{port}");
    for line in ["8080", "port:8080"] {
        assert_eq!(quiet(&from(line)), port, "{line}");
    }
    assert_eq!(quiet(&format!("--from {CAPTURE} :8080")), port);
    let table = [
        ("pid:4242", "\npid 4242   10 sockets\n"),
        ("4242", "\npid 4242   10 sockets\n"),
        ("example", "\nprogram example   10 sockets\n"),
        ("127.0.0.1", "\naddress 127.0.0.1   6 sockets\n"),
        ("127.0.0.1:40001", "\naddress 127.0.0.1:40001   2 sockets\n"),
        ("::1", "\naddress ::1   6 sockets\n"),
        ("[::1]:40001", "\naddress [::1]:40001   2 sockets\n"),
        (
            "9",
            "\nport 9   0 sockets\n\nno TCP socket of this network namespace belongs to it, in any state\n",
        ),
    ];
    for (line, says) in table {
        let text = quiet(&from(line));
        assert!(text.contains(says), "{line}: {text}");
    }
}

#[test]
fn slips_of_the_fingers_get_a_hint_and_2() {
    let table = [
        ("diagnos", "'diagnos'", "linger diagnose"),
        ("statsu", "'statsu'", "linger status"),
        ("no-such-program", "'no-such-program'", "linger --help"),
        (
            "close-wait",
            "'close-wait' is a state",
            "linger state close-wait",
        ),
        (":99999", "':99999'", ":443"),
        ("pid:x", "'pid:x'", "pid:2211"),
        ("-p diagnose", "'-p'", "linger list"),
        ("--extended status", "'--extended'", "linger list"),
        ("list --bogus", "'--bogus'", "linger list --help"),
        ("--jsn", "'--jsn'", "'--json'"),
        ("--limit 5", "'--limit'", "'linger --help'"),
        ("--color purple", "'purple'", "auto, always, never"),
        ("diagnose --samples 0", "'0'", "'linger diagnose --help'"),
        (
            "diagnose --interval soon",
            "'soon'",
            "'linger diagnose --help'",
        ),
        ("state foo", "unknown state 'foo'", "syn-received"),
        (
            "list state clos-wait",
            "'clos-wait'",
            "did you mean close-wait",
        ),
        ("list state", "'state' needs", "close-wait"),
        ("list dprot = :443", "'dprot'", "did you mean 'dport'"),
        ("list dport = :443x", "':443x'", "dport = :443"),
        ("list rtt > 100", "'100' is not a time", "rtt > 100ms"),
        ("list ( state listen", "not closed", "quote the filter"),
        (
            "list dev = eth0 --from tests/data/v1.linger",
            "interface 'eth0' is not known",
            "dev = 2",
        ),
        (
            "list user = nobody-here --from tests/data/v1.linger",
            "user 'nobody-here'",
            "uid = NUMBER",
        ),
        ("list close-wait", "'close-wait'", "state close-wait"),
        ("sprt=:443", "'sprt'", "did you mean 'sport'"),
        ("list -- -p", "'-p'", "state STATE"),
        ("-- --json", "'--json'", "--help"),
        ("--only foo", "unknown finding 'foo'", "close-wait-leak"),
        (
            "diagnose --skip clos-wait-leak",
            "'clos-wait-leak'",
            "close-wait-leak",
        ),
        ("--threshold close-wait-leak.foo=1", "'foo'", "age"),
        ("--threshold close-wait-leak.age=x", "'x'", "5min"),
        ("--threshold foo", "'foo'", "close-wait-leak.age=2min"),
        ("explain foobar", "'foobar'", "linger explain"),
        (
            "explain clos_wait",
            "'clos_wait'",
            "linger explain close-wait",
        ),
        ("man nonsense", "'nonsense'", "linger-list.8"),
        ("completions tcsh", "'tcsh'", "zsh"),
        ("completions", "<SHELL>", "--help"),
        ("record", "<FILE>", "--help"),
        ("record f --from g", "capture", "--from"),
        ("kill", "FILTER", "linger kill dst"),
        ("kill --yes", "FILTER", "linger kill dst"),
        ("kill -- --yes", "'--yes'", "state STATE"),
        ("kill dst ::1 --yes --from g", "capture", "--from"),
        (
            "kill dst ::1 --yes --collector procfs",
            "cookie",
            "--collector",
        ),
        (
            "kill dst ::1 --yes --state-dir x --no-capture",
            "--no-capture",
            "linger kill",
        ),
        (
            "kill state foo --yes",
            "unknown state 'foo'",
            "syn-received",
        ),
        ("kill close-wait --yes", "'close-wait'", "state close-wait"),
        ("kill -p dst ::1 --yes", "'-p'", "linger list"),
        ("kill all --yes", "'all'", "linger kill dst"),
        ("kill state all --yes", "more than states", "dst 10.0.0.7"),
        ("kill state connected", "more than states", "a single state"),
        ("kill exclude listen", "more than states", "a single state"),
        (
            "kill state listen or not state listen",
            "more than states",
            "a single",
        ),
        ("kill state big dst *", "more than states", "a single state"),
        ("kill dst *", "more than states", "dst 10.0.0.7"),
        ("list -F a -F b", "'--filter <FILE>'", "list --help"),
        ("list -N a --netns b", "'--netns <", "list --help"),
        ("-tan --from a --from b", "'--from <FILE>'", "list --help"),
        ("kill -F a -F b", "'--filter <FILE>'", "kill --help"),
        ("kill -x dst ::1", "'-x'", "only TCP and UDP sockets can be"),
        (
            "kill --sctp dst ::1",
            "'--sctp'",
            "only TCP and UDP sockets can be",
        ),
        ("kill -p -x dst ::1", "'-p'", "an option of 'linger list'"),
        (
            "port:18080 --netns all",
            "one network namespace",
            "linger list -a 'sport = 18080 or dport = 18080' --netns all",
        ),
        ("kil", "'kil'", "linger kill"),
    ];
    for (line, what, hint) in table {
        fails(line, 2, what, hint);
    }
}

#[test]
fn nothing_but_blanks_is_no_filter_to_kill_by() {
    for words in [&["kill", ""][..], &["kill", " ", "\t", "--yes"]] {
        let said = said(&mut linger(words));
        assert_eq!((said.code, &said.out[..]), (Some(2), ""), "{said:?}");
        assert!(said.err.contains("needs a FILTER"), "{said:?}");
    }
}

#[test]
fn a_single_state_or_states_of_an_end_are_a_filter_to_kill_by() {
    // Nothing has a port below 1, so that nothing is even shown as doomed; what is refused is refused before that.
    for line in [
        "kill state closing sport < :1",
        "kill state all sport < :1",
        "kill state closing",
    ] {
        let said = said(&mut linger(&line.split(' ').collect::<Vec<_>>()));
        assert_ne!(said.code, Some(2), "{line}: {said:?}");
    }
}

#[test]
fn help_is_no_failure() {
    for command in [
        "",
        "status",
        "list",
        "diagnose",
        "explain",
        "record",
        "kill",
        "completions",
        "man",
    ] {
        let text = quiet(&format!("{command} --help"));
        assert!(text.contains("Examples:\n  linger"), "{command}: {text}");
    }
    assert!(quiet("--version").starts_with("linger "));
}
