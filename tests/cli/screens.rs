//! Pages for people: their words, width, letters and colours, and the explanations.

use serde_json::Value;

use crate::support::*;

#[test]
fn the_first_screen() {
    let checks = linger::analyze::detectors::ALL.len() - 5;
    let screen = "\
example   sock_diag, complete   12 TCP sockets   captured 2026-11-23 11:04:12 UTC
ESTABLISHED         4 ██████████  SYN-SENT            0   LAST-ACK            0
TIME-WAIT           2 █████       SYN-RECEIVED        0   CLOSING             0
CLOSE-WAIT          2 █████       FIN-WAIT-1          0   CLOSED              0
LISTEN              2 █████       FIN-WAIT-2          2   BOUND-INACTIVE      0

quiet          {checks} checks
cannot tell    conntrack-near-full: this namespace has 0 of 262,144 entries, but
               the table of the host, through which its packets may pass too,
               cannot be seen from here
cannot tell    host-receive-drops: the counters of packets dropped on receipt
               could not be read
cannot tell    closed-fd-leak: dead sockets are told from bound ones with the
               owners, sock_diag and Linux 6.8 only
cannot tell    udp-rcvbuf-drops: the UDP sockets were not read
cannot tell    unix-backlog-full: the UNIX sockets were not read

most sockets   example[4242] 10
busy ports     :8080 4
top peers      127.0.0.1 5, ::1 5
next           linger list -tanp --from tests/data/v1.linger
";
    let screen = screen.replace("{checks}", &checks.to_string());
    assert_eq!(quiet(&from("")), screen);
}

#[test]
fn a_port_on_one_screen() {
    let screen = "\
example   sock_diag, complete   12 TCP sockets   captured 2026-11-23 11:04:12 UTC
port 8080   12 sockets

held by        example[4242], 10 sockets, user root, example.service, 20 of
               1,024 descriptors
listens        127.0.0.1:8080, example[4242], accept queue 0/16
               [::1]:8080, example[4242], accept queue 0/16
connections    ESTABLISHED 4, FIN-WAIT-2 2, CLOSE-WAIT 2, TIME-WAIT 2
peers          127.0.0.1 5, ::1 5

findings       none
next           linger diagnose --from tests/data/v1.linger
";
    assert_eq!(quiet(&from("8080")), screen);
}

/// Every page that has running text; with findings, by limits that anything exceeds.
fn pages() -> Vec<String> {
    let fire = "--threshold close-wait-leak.age=0.1 --threshold close-wait-leak.min=1 \
        --threshold fin-wait-2-stuck.age=0.1 --threshold fin-wait-2-stuck.min=1";
    let mut pages: Vec<String> = ["status", "diagnose", "8080"]
        .iter()
        .flat_map(|line| {
            let procfs = format!("{line} --proc-root {PROC}");
            [from(line), from(&format!("{line} {fire}")), procfs]
        })
        .collect();
    pages.push(from("explain"));
    pages.push(from("explain --socket state all"));
    let words = STATES
        .iter()
        .chain(&TOPICS)
        .chain(&["close-wait-leak", "listen-overflow"]);
    pages.extend(words.map(|word| from(&format!("explain {word}"))));
    pages
}

#[test]
fn pages_fit_the_terminal_whatever_its_width() {
    for line in pages() {
        let words: Vec<&str> = line.split_whitespace().collect();
        for (columns, limit) in [("80", 80), ("200", 140)] {
            let page = said(linger(&words).env("COLUMNS", columns));
            assert_eq!(page.code, Some(0), "{line}: {page:?}");
            assert!(!page.out.contains('\x1b'), "{line}");
            let head = 1; // host, source and time: never broken
            for text in page.out.lines().skip(head) {
                let width = text.chars().count();
                assert!(
                    width <= limit || text.contains("██"),
                    "{line} at {columns}, {width}: {text}"
                );
                assert_eq!(text, text.trim_end(), "{line}");
            }
        }
    }
}

#[test]
fn the_c_locale_gets_ascii() {
    for line in pages() {
        // Topics quote the title of their ground in its own script.
        if TOPICS
            .iter()
            .any(|topic| line.contains(&format!("explain {topic}")))
        {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let page = said(linger(&words).env("LC_ALL", "C"));
        assert!(page.out.is_ascii(), "{line}: {}", page.out);
    }
}

type Environment = &'static [(&'static str, &'static str)];

#[test]
fn colour_is_for_those_who_want_it() {
    let line = from("status");
    let words: Vec<&str> = line.split_whitespace().collect();
    let table: [(Environment, &str, bool); 7] = [
        (&[], "auto", false),
        (&[], "always", true),
        (&[], "never", false),
        (&[("CLICOLOR_FORCE", "1")], "auto", true),
        (&[("CLICOLOR_FORCE", "1")], "never", false),
        (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], "auto", false),
        (&[("NO_COLOR", "1")], "always", true),
    ];
    for (environment, when, expected) in table {
        let mut command = linger(&words);
        let page = said(
            command
                .args(["--color", when])
                .envs(environment.iter().copied()),
        );
        assert_eq!(
            page.out.contains('\x1b'),
            expected,
            "{environment:?} {when}"
        );
    }
    assert!(!run(&from("list -tanpiem")).out.contains('\x1b'));
}

#[test]
fn what_could_not_be_judged_is_not_called_fine() {
    let page = run(&format!("diagnose --proc-root {PROC}"));
    assert!(
        page.out
            .contains("\ncannot tell    close-wait-leak: 5 sockets"),
        "{page:?}"
    );
    assert!(
        page.out
            .contains("\nverdict        ok as far as can be told\n"),
        "{page:?}"
    );
    let page = run(&format!(
        "status --proc-root {PROC} --skip keepalive-failing,retransmit-stuck,shared-fd"
    ));
    assert!(!page.out.contains("nothing is stuck"), "{page:?}");
    assert!(
        page.out.contains(&format!(
            "\nnext           linger list -tanp --proc-root {PROC}\n"
        )),
        "{page:?}"
    );
}

#[test]
fn the_story_of_a_socket() {
    let story = "\
CLOSE-WAIT   127.0.0.1:8080   127.0.0.1:40002   example[4242] fd 7
lasts      0.3 s
came       The peer closed first; the kernel acknowledged its FIN by itself.
           ESTABLISHED ► CLOSE-WAIT: FIN received; sends ACK
awaits     This program: it has not read 5 bytes and the end behind them, and
           not closed.
ends by    Only the program: close() of the last descriptor, shutdown(SHUT_WR),
           or its end. No timer and no sysctl. With 5 bytes unread, close()
           sends RST instead of FIN.
move       this program

next       linger explain close-wait
";
    assert_eq!(
        quiet(&from("explain --socket state close-wait dst 127.0.0.1")),
        story
    );
    let all = quiet(&from("explain --socket state all"));
    assert!(all.contains("\nand 2 more sockets of 12\nnext "), "{all}");
    let none = quiet(&from("explain --socket state closing"));
    assert!(
        none.starts_with("no socket fits 'state closing'\n"),
        "{none}"
    );
    let document = json(&from("explain --json --socket state time-wait"));
    assert_eq!(
        (&document["kind"], &document["total"]),
        (&Value::from("sockets"), &Value::from(2))
    );
    let story = &document["stories"][0];
    assert_eq!(
        (&story["state"], &story["whose_move"]),
        (&Value::from("time-wait"), &Value::from("nobody"))
    );
    assert_eq!(story["socket"]["state"], "time-wait");
    assert_eq!(
        story["state_age_ms"]
            .as_u64()
            .zip(story["left_ms"].as_u64())
            .map(|(a, b)| a + b),
        Some(60_000)
    );
    fails(&from("explain --socket"), 2, "--socket", "--help");
    fails(
        &from("explain close-wait --socket state listen"),
        2,
        "--socket",
        "--help",
    );
    fails(
        &from("explain --socket sate listen"),
        2,
        "'sate'",
        "did you mean 'state'",
    );
}

#[test]
fn every_name_is_explained() {
    let machine = json(&from("explain --json"));
    let names = |key: &str| -> Vec<String> {
        let names = machine[key]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        names
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(
        (names("states"), names("topics")),
        (
            STATES.map(str::to_owned).into(),
            TOPICS.map(str::to_owned).into()
        )
    );
    assert_eq!(machine["counts"]["close-wait"], 2);
    let findings = names("findings");
    assert!(findings.len() >= 7, "{findings:?}");
    for (key, kind) in [
        ("states", "state"),
        ("topics", "topic"),
        ("findings", "finding"),
    ] {
        for name in names(key) {
            let text = quiet(&from(&format!("explain {name}")));
            assert!(text.lines().count() > 8, "{name}: {text}");
            assert_eq!(
                json(&from(&format!("explain --json {name}")))["kind"],
                kind,
                "{name}"
            );
        }
    }
}

#[test]
fn a_state_is_known_in_every_spelling_and_counted_where_it_was_seen() {
    let page = quiet(&from("explain close-wait"));
    assert!(
        page.starts_with("CLOSE-WAIT   2 sockets in this capture\n"),
        "{page}"
    );
    for spelling in [
        "CLOSE_WAIT",
        "CLOSE-WAIT",
        "close_wait",
        "CloseWait",
        "closewait",
    ] {
        assert_eq!(
            quiet(&from(&format!("explain {spelling}"))),
            page,
            "{spelling}"
        );
    }
    for (spelling, state) in [
        ("estab", "ESTABLISHED"),
        ("SYN_RCVD", "SYN-RECEIVED"),
        ("syn-recv", "SYN-RECEIVED"),
        ("FIN_WAIT1", "FIN-WAIT-1"),
        ("listening", "LISTEN"),
        ("unconnected", "CLOSED"),
    ] {
        let page = quiet(&from(&format!("explain {spelling}")));
        assert!(page.starts_with(state), "{spelling}: {page}");
    }
}
