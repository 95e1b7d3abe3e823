//! A filter from a file, and what no file and no capture can answer.

use std::fs;

use crate::support::*;

const CLOSE_WAIT: &str = "\
CLOSE-WAIT  6  0  127.0.0.1:8080  127.0.0.1:40002
CLOSE-WAIT  6  0  [::1]:8080      [::1]:40002
";

fn with(content: &[u8], words: &str) -> Said {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.filter");
    fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap().to_owned();
    let mut line = vec!["list", "-H", "-F", &path, "--from", CAPTURE];
    line.extend(words.split_whitespace());
    said(&mut linger(&line))
}

#[test]
fn a_file_holds_an_expression_in_any_number_of_lines() {
    for (content, words) in [
        ("state close-wait", ""),
        (
            "# what nobody closes\n\n  # twice\nstate\n\tclose-wait\n",
            "",
        ),
        ("sport = :8080", "state close-wait"),
        ("sport = :8080 or\r\nsport = :1\r\n", "state close-wait"),
        ("state \\\nclose-wait", ""),
        ("", "state close-wait"),
        ("# nothing", "state close-wait"),
    ] {
        let said = with(content.as_bytes(), words);
        assert_eq!(
            (&said.out[..], &said.err[..]),
            (CLOSE_WAIT, ""),
            "{content:?}"
        );
    }
    let long = "src 10.0.0.1 or ".repeat(20_000) + "state close-wait";
    assert_eq!(with(long.as_bytes(), "").out, CLOSE_WAIT);
    for line in ["list -H -F -", "-H -F -", "list -H --filter=-"] {
        let words = from(line);
        let words: Vec<&str> = words.split(' ').collect();
        let said = said(linger(&words).write_stdin("# x\nstate close-wait\n"));
        assert_eq!(said.out, CLOSE_WAIT, "{line}: {said:?}");
    }
    let words = from("explain -F -");
    let words: Vec<&str> = words.split(' ').collect();
    let said = said(linger(&words).write_stdin("state close-wait"));
    assert!(said.out.contains("127.0.0.1:40002"), "{said:?}");
}

#[test]
fn what_is_wrong_in_a_file_is_shown_with_its_place() {
    let table: [(&[u8], &str, &str); 5] = [
        (
            b"# x\nsport = :1\n or dport = y/",
            "'y/' is not a port",
            "web.filter:3:  or dport = y/",
        ),
        (
            b"dport =\n\n# x\n",
            "a port is expected",
            "web.filter:1: dport =",
        ),
        (
            b"sport = :1\n\0",
            "line 2 has a NUL byte",
            "hint: a file of -F",
        ),
        (
            b"# x\n\nsport\xff",
            "line 3 is not UTF-8",
            "hint: a file of -F",
        ),
        (
            &[b' '; 1024 * 1024 + 1],
            "longer than 1 MiB",
            "hint: a file of -F",
        ),
    ];
    for (content, what, also) in table {
        let said = with(content, "");
        assert_eq!((said.code, &said.out[..]), (Some(2), ""), "{said:?}");
        assert!(
            said.err.contains(what) && said.err.contains(also),
            "{said:?}"
        );
    }
    assert_eq!(
        with(&[b' '; 1024 * 1024], "state close-wait").out,
        CLOSE_WAIT
    );
    fails(
        &from("list -F /nonexistent/x"),
        1,
        "cannot read the filter",
        "-F -",
    );
    fails(
        &from("list -F tests"),
        1,
        "cannot read the filter 'tests'",
        "-F -",
    );
    let named = from("list -F /nonexistent/\u{202e}x");
    assert!(!run(&named).err.contains('\u{202e}'));
}

#[test]
fn autobound_is_nothing_that_a_capture_or_a_table_tells() {
    let hint = "sport >= :32768 and sport <= :60999";
    for line in [
        from("list autobound"),
        from("autobound"),
        from("list --json not autobound or sport = :1"),
        from("explain --socket autobound"),
        format!("list autobound --proc-root {PROC}"),
        "list autobound --collector procfs".to_owned(),
    ] {
        fails(
            &line,
            1,
            "autobound: only the kernel that has these sockets knows",
            hint,
        );
    }
}
