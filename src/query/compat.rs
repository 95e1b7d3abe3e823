//! What people have typed for ss for years, and what stands in their files, is read as ss's manual says.

use super::Filter;
use super::tests::{fits, words};
use crate::fields::tests::Fixture;
use crate::model::Endpoint;

#[test]
fn what_ss_accepts_is_accepted() {
    // The grammar of ss(8): operators and their names, hosts, ports, marks, names of states.
    let equal = ["", "=", "==", "eq"];
    let unequal = ["!=", "ne", "neq"];
    let ordered = [
        "<", "lt", "<=", "le", "leq", ">", "gt", ">=", "ge", "geq", "==",
    ];
    let mut texts: Vec<String> = Vec::new();
    for op in equal.iter().chain(&unequal) {
        for (name, value) in [
            ("src", "10.0.0/24"),
            ("dst", "[fd00::/16]:22"),
            ("sport", ":22"),
            ("dport", "*"),
            ("dev", "eth0"),
            ("fwmark", "0x10/0xff"),
            ("cgroup", "system.slice/x.service"),
        ] {
            texts.push(format!("{name} {op} {value}"));
        }
    }
    for op in ordered {
        texts.push(format!("dport {op} 026"));
        texts.push(format!("sport {op} :ssh"));
    }
    for host in [
        "*",
        "*:*",
        "*:22",
        ":22",
        ":*",
        "any",
        "all",
        "default",
        "10",
        "10:22",
        "0/0",
        "10.1/16:*",
        "0x7f.1",
        "127.1:0x16",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/0x8",
        "::/0",
        "::1/128",
        "[::]:22",
        "inet:10.0.0.1:22",
        "inet6:[::1]",
        "inet:*",
        "inet::22",
        "inet6:::1",
        "localhost:ssh",
        "::ffff:10.0.0.1",
        "[::ffff:10.0.0.1]:22",
        "::ffff:10.0.0.0/104",
    ] {
        texts.push(format!("src {host}"));
        texts.push(format!("( not dst = {host} ) or ! src {host}"));
    }
    for word in ["and", "&", "&&", "or", "|", "||", ""] {
        texts.push(format!("sport = :1 {word} dport = :2"));
        texts.push(format!("! sport = :1 {word} not ( autobound )"));
    }
    for state in [
        "established",
        "syn-sent",
        "syn-recv",
        "syn-rcv",
        "fin-wait-1",
        "fin-wait-2",
        "time-wait",
        "unconnected",
        "close",
        "closed",
        "close-wait",
        "last-ack",
        "listening",
        "closing",
        "bound-inactive",
        "all",
        "connected",
        "synchronized",
        "bucket",
        "big",
    ] {
        texts.push(format!("state {state} excl time-wait autobound"));
    }
    for text in texts {
        let read = Filter::parse(&words(&text.split(' ').collect::<Vec<_>>()));
        assert!(read.is_ok(), "{text}: {}", read.unwrap_err());
    }
}

#[test]
fn ports_of_a_family_and_short_addresses_mean_what_they_mean_to_ss() {
    let meaning = |text: &str| Filter::parse(&words(&[text])).unwrap().to_string();
    for (text, printed) in [
        ("dport = inet::22", "dst = inet:*:22"),
        ("dst 10.1/16", "dst = 10.1.0.0/16"),
        ("dst 127.1", "dst = 127.1.0.0"),
        ("fwmark 026/0xff", "fwmark = 0x16/0xff"),
        ("dport lt 026", "dport < :22"),
        (r"process = a\ b", r"process = a\ b"),
        ("autobound", "autobound"),
        ("!autobound", "not autobound"),
    ] {
        assert_eq!(meaning(text), printed, "{text}");
    }
    let mut listener = Fixture::new();
    listener.socket.remote = Endpoint::v4([0; 4], 0);
    assert!(
        fits("dport lt 22", &listener),
        "a listener's peer has port 0"
    );
}

#[test]
fn a_file_adds_to_the_words() {
    let both = |words: &[&str], file: &str| {
        let filter = Filter::parse(&self::words(words)).unwrap();
        filter.and_file("web.filter", file)
    };
    let same = [
        (&["sport = :1"][..], "dport = :2", "sport = :1 dport = :2"),
        (&[], "# all\n\ndport = :2\n", "dport = :2"),
        (&["sport = :1"], "# nothing\n", "sport = :1"),
        (
            &["sport = :1 or sport = :2"],
            "dport = :1\n or\tdport = :2",
            "(sport = :1 or sport = :2) (dport = :1 or dport = :2)",
        ),
        (
            &["state listen"],
            "state established",
            "(state listen) (state established)",
        ),
    ];
    for (words, file, text) in same {
        let read = both(words, file).unwrap();
        assert_eq!(
            read.expr,
            Filter::parse(&self::words(&[text])).unwrap().expr
        );
    }
    let long = "src 10.0.0.1 or ".repeat(10_000) + "src 10.0.0.2";
    assert!(both(&[], &long).is_ok(), "lines may be long");

    let wrong = both(&["sport = :1"], "dport = :2 and\n\tdport = 10.0.0.1\n").unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "'10.0.0.1' is not a port\n  web.filter:2:  dport = 10.0.0.1\n                         ^^^^^^^^"
    );
    let wrong = both(&[], &format!("{long} dport = x/"))
        .unwrap_err()
        .to_string();
    assert!(wrong.contains("web.filter:1: …") && wrong.contains("dport = x/"));
    assert!(
        wrong.lines().all(|line| line.chars().count() < 250),
        "{wrong}"
    );
}
