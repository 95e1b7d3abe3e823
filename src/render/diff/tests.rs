//! The page of a comparison that was made up.

use super::*;
use crate::fields::tests::{Fixture, owners};
use crate::model::diff::{By, Changed, Holding, Locals, Setting, What};
use crate::model::{Coverage, Host, Snapshot, Socket};
use crate::render::paint::Paint;

fn snapshot(second: i64, comm: &str) -> Snapshot {
    Snapshot {
        taken: jiff::Timestamp::from_second(second).unwrap(),
        host: Host {
            name: "web\x1b[7".to_owned(),
            ..Host::default()
        },
        owners: owners(&[comm]),
        coverage: Coverage {
            owners_read: true,
            ..Coverage::default()
        },
        ..Snapshot::default()
    }
}

fn page(diff: &Diff<'_>, all: bool, width: usize) -> String {
    let screen = Screen {
        width,
        unicode: true,
        paint: Paint(false),
    };
    let page = Page {
        diff,
        findings: &Findings::default(),
        clock: ("2026-11-23 14:03:11", "14:33:11 UTC"),
        cautions: &cautions(diff),
        warnings: &[],
        filtered: false,
        all,
        fold: !all,
        next: "linger diagnose --from after.linger",
    };
    let mut out = Vec::new();
    write(&page, screen, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn same<'a>(before: &'a Snapshot, after: &'a Snapshot) -> Diff<'a> {
    Diff {
        before,
        after,
        apart: Vec::new(),
        by: By::Cookie,
        states: Default::default(),
        udp: None,
        listeners: Changes::default(),
        locals: Some(Locals::default()),
        sockets: Changes::default(),
        programs: Some(Vec::new()),
        settings: Some(Vec::new()),
        counters: Some(Vec::new()),
    }
}

#[test]
fn what_others_chose_steers_nothing_and_long_lists_end() {
    let hostile = "a], b\x1b[2J\u{202e}";
    let (before, after) = (snapshot(0, hostile), snapshot(1800, hostile));
    let was = Fixture::new().socket;
    let is = Socket {
        state: TcpState::CloseWait,
        recv_q: 9,
        ..was
    };
    let waits = Socket {
        state: TcpState::TimeWait,
        inode: 0,
        ..was
    };
    let many: Vec<&Socket> = vec![&was; SHOWN + 5];
    let mut diff = same(&before, &after);
    diff.sockets = Changes {
        new: many.iter().copied().chain([&waits]).collect(),
        gone: vec![&waits, &waits],
        changed: vec![Changed {
            before: &was,
            after: &is,
            what: What {
                state: true,
                queues: true,
                ..What::default()
            },
        }],
        same: 7,
    };
    diff.programs = Some(vec![Program {
        comm: hostile,
        before: Holding::default(),
        after: Holding {
            pids: vec![1, 2],
            sockets: 1_604,
            ..Holding::default()
        },
    }]);
    diff.settings = Some(vec![Setting {
        path: "net/ipv4/\x1btcp_rmem",
        before: "4096\t131072\t6291456",
        after: "",
    }]);
    let text = page(&diff, false, 80);
    assert!(!text.contains(['\x1b', '\u{202e}', '\t']), "{text}");
    for part in [
        "web\\x1b[7   2026-11-23 14:03:11 -> 14:33:11 UTC   30 min   0 TCP sockets\n",
        "  a\\x5d\\x2c\\x20b\\x1b\\x5b2J\\u{202e}[2 processes] new: 0 -> 1,604\n",
        "  net.ipv4.\\x1btcp_rmem  4096 131072 6291456 -> (empty)\n",
        "new: 25 ESTABLISHED, 1 TIME-WAIT (not listed: --all)\n",
        "  and 5 more sockets: --all\n",
        "gone: 2 TIME-WAIT (not listed: --all)\n",
        "changed: 1 in another state\n",
        "  ESTABLISHED -> CLOSE-WAIT  1 -> 9  20 ",
        "unchanged      findings, listeners, sockets per state, counters\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let all = page(&diff, true, 80);
    assert!(
        !all.contains("--all")
            && all
                .lines()
                .filter(|line| line.starts_with("  TIME-WAIT"))
                .count()
                == 3
    );
}

#[test]
fn counters_tell_of_trouble_first_and_a_reset_is_no_rate() {
    let (before, after) = (snapshot(0, "a"), snapshot(100, "a"));
    let counter = |name, before, after| Counter {
        name,
        before,
        after,
    };
    let mut diff = same(&before, &after);
    diff.counters = Some(vec![
        counter("Tcp.InSegs", 0, 1_000_000),
        counter("Tcp.OutRsts", 9, 3),
        counter("TcpExt.ListenOverflows", 1, 85),
    ]);
    let text = page(&diff, false, 80);
    let rows: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("counters"))
        .skip(1)
        .take(3)
        .collect();
    assert_eq!(
        rows,
        [
            "  TcpExt.ListenOverflows         +84    0.84/s",
            "      a full accept queue lost a connection",
            "  Tcp.OutRsts                  reset            it went back: it began again",
        ]
    );
    assert!(
        text.contains("  Tcp.InSegs              +1,000,000  10,000/s\n"),
        "{text}"
    );
    let rates: Vec<String> = [0.001, 0.5, 12.34, 1234.5].map(rate).to_vec();
    assert_eq!(rates, ["3.6/h", "0.50/s", "12.3/s", "1,235/s"]);
}

#[test]
fn nothing_is_one_line_and_an_old_second_look_is_said() {
    let (before, after) = (snapshot(0, "a"), snapshot(100, "a"));
    assert_eq!(
        page(&same(&before, &after), false, 80).lines().nth(1),
        Some("unchanged      everything: 0 sockets as before")
    );
    let backwards = page(&same(&after, &before), false, 80);
    assert!(
        backwards.contains("100 s BACK") && backwards.contains("100 s older"),
        "{backwards}"
    );
}
