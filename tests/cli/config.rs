//! The configuration: where it is read, what it changes, how its errors look; mutes; and the exit code of findings.

use std::path::{Path, PathBuf};

use crate::support::*;

/// Two sockets of the capture count from here on, and warn.
const LEAK: &str =
    "[thresholds.close-wait-leak]\nage = 0.001\nmin = 1\nspread = 1\ncritical = 0.1\n";

/// A directory with the configuration in it, and the name of the file.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("linger.toml");
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

fn with(path: &Path, line: &str) -> String {
    from(&format!("{line} --config {}", path.display()))
}

fn mute(expires: &str) -> String {
    format!(
        "[[mute]]\nfinding = \"close-wait-leak\"\nprocess = \"ex*\"\nreason = \"ticket 7\"\nexpires = {expires}\n"
    )
}

#[test]
fn the_file_that_is_named_sets_limits_and_the_command_line_wins() {
    let (_directory, path) = file(LEAK);
    assert_eq!(json(&from("diagnose --json"))["verdict"], "ok");
    let document = json(&with(&path, "diagnose --json"));
    assert_eq!(document["verdict"], "warning");
    assert_eq!(document["findings"][0]["id"], "close-wait-leak");
    let taken_back = "diagnose --json --threshold close-wait-leak.age=60s";
    assert_eq!(json(&with(&path, taken_back))["verdict"], "ok");
    let screen = quiet(&with(&path, "status"));
    let again = format!("--from {CAPTURE} --config {}", path.display());
    let words: Vec<&str> = screen.split_whitespace().collect();
    assert!(words.join(" ").ends_with(&again), "{screen}");
}

#[test]
fn overrides_are_for_their_subjects() {
    for (process, verdict) in [("example", "ok"), ("other", "warning")] {
        let over = "thresholds.close-wait-leak.age = \"1h\"";
        let text = format!("{LEAK}[[override]]\nprocess = \"{process}\"\n{over}\n");
        let (_directory, path) = file(&text);
        let document = json(&with(&path, "diagnose --json"));
        assert_eq!(document["verdict"], verdict, "{process}");
        let explained = quiet(&format!(
            "explain close-wait-leak --config {}",
            path.display()
        ));
        assert!(
            explained.contains(&format!("process {process}: age = 3600s")),
            "{explained}"
        );
        assert!(
            explained.contains("age = 0.001s (60s unless set)"),
            "{explained}"
        );
    }
    let document = json(&from("explain close-wait-leak --json"));
    assert_eq!(
        document["thresholds"][0]["value"],
        document["thresholds"][0]["default"]
    );
}

#[test]
fn only_and_skip_of_the_file_give_way_to_those_of_the_command_line() {
    let (_directory, path) =
        file("only = [\"close-wait-leak\", \"listen-overflow\"]\nskip = [\"listen-overflow\"]");
    let checked =
        |line: &str| json(&with(&path, &format!("diagnose --json {line}")))["quiet"].clone();
    assert_eq!(checked(""), serde_json::json!(["close-wait-leak"]));
    assert_eq!(
        checked("--only listen-overflow"),
        serde_json::json!(["listen-overflow"])
    );
    fails(
        &with(&path, "diagnose --skip close-wait-leak"),
        2,
        "no finding",
        "take one",
    );
}

#[test]
fn what_is_muted_is_counted_in_every_output_and_judged_in_none() {
    let (_directory, path) = file(&format!("{LEAK}{}", mute("2026-11-23")));
    let diagnosis = quiet(&with(&path, "diagnose"));
    assert!(
        diagnosis.contains("\nmuted          1 (1 warning)\n"),
        "{diagnosis}"
    );
    assert!(
        diagnosis.contains("ok but for what is muted") && diagnosis.contains("ticket 7"),
        "{diagnosis}"
    );
    for line in ["status", "example", "8080"] {
        let screen = quiet(&with(&path, line));
        assert!(
            screen.contains("\nmuted          1 (1 warning)\n"),
            "{line}: {screen}"
        );
        assert!(!screen.contains("nothing is stuck"), "{line}: {screen}");
    }
    for line in ["diagnose", "status", "example"] {
        let document = json(&with(&path, &format!("{line} --json")));
        let muted = &document["muted"][0];
        assert_eq!(
            (&muted["id"], &muted["severity"]),
            (&"close-wait-leak".into(), &"warning".into())
        );
        assert_eq!(
            (&muted["reason"], &muted["expires"]),
            (&"ticket 7".into(), &"2026-11-23".into())
        );
        assert!(
            muted["title"]
                .as_str()
                .is_some_and(|title| title.contains("CLOSE-WAIT"))
        );
        assert_eq!(
            (&document["verdict"], &document["findings"]),
            (&"ok".into(), &serde_json::json!([]))
        );
        assert_eq!(document["warnings"], serde_json::json!([]), "{line}");
    }
    assert_eq!(run(&with(&path, "diagnose --exit-code")).code, Some(0));
}

#[test]
fn an_expired_mute_mutes_nothing_and_every_output_says_so() {
    // The capture was taken on the day after.
    let (_directory, path) = file(&format!("{LEAK}{}", mute("\"2026-11-22\"")));
    let expired = "the mute of close-wait-leak for process ex* has expired on 2026-11-22";
    for line in ["diagnose", "status", "example"] {
        let document = run(&with(&path, &format!("{line} --json")));
        assert!(
            document.err.contains(&format!("note: {expired}")),
            "{document:?}"
        );
        let document: serde_json::Value = serde_json::from_str(&document.out).unwrap();
        let warning = document["warnings"][0].as_str().unwrap_or_default();
        assert!(
            warning.starts_with(expired) && warning.contains("linger.toml:6"),
            "{warning}"
        );
        assert_eq!(
            (&document["complete"], &document["verdict"]),
            (&true.into(), &"warning".into())
        );
        assert_eq!(document["muted"], serde_json::json!([]));
        let screen = run(&with(&path, line)).out;
        let words: Vec<&str> = screen.split_whitespace().collect();
        assert!(
            words.join(" ").contains(&format!("note {expired}")),
            "{screen}"
        );
    }
}

#[test]
fn what_is_not_understood_is_an_error_with_its_line() {
    for (text, what, hint) in [
        ("only = [", "linger.toml:1: ", "linger man toml"),
        (
            "\nskpi = []",
            "linger.toml:2: unknown key 'skpi'",
            "did you mean 'skip'?",
        ),
        (
            "[thresholds.close-wait-leek]\nage = 1",
            "linger.toml:1: unknown finding",
            "'close-wait-leak'",
        ),
        (
            "[thresholds.close-wait-leak]\nage = \"soon\"",
            "linger.toml:2: 'soon'",
            "a time",
        ),
        (
            "[[mute]]\nfinding = \"close-wait-leak\"",
            "linger.toml:1: this mute has no 'reason'",
            "expires",
        ),
    ] {
        let (_directory, path) = file(text);
        for line in ["status", "diagnose", "explain close-wait-leak", "8080"] {
            fails(&with(&path, line), 2, what, hint);
        }
    }
    fails(
        &from("status --config /no/such.toml"),
        2,
        "/no/such.toml",
        "missing file is no error",
    );
    let (_directory, path) = file("");
    std::fs::write(&path, b"\xff").unwrap();
    fails(&with(&path, "status"), 2, "linger.toml", "UTF-8");
    let hostile = "\u{1b}[2J\u{202e}";
    std::fs::write(&path, format!("\"{}\" = 1", "\\u001b[2J\\u202e")).unwrap();
    let said = run(&with(&path, "status"));
    assert!(
        said.code == Some(2) && !hostile.chars().take(1).any(|c| said.err.contains(c)),
        "{said:?}"
    );
    assert!(!said.err.contains('\u{202e}'), "{said:?}");
}

#[test]
fn the_environment_names_a_file_and_the_users_own_is_found() {
    let (directory, path) = file(LEAK);
    let verdict = |variables: &[(&str, &Path)], more: &[&str]| {
        let words = ["diagnose", "--json", "--from", CAPTURE];
        let mut command = linger(&words);
        command.args(more).envs(variables.iter().copied());
        let said = said(&mut command);
        let document: serde_json::Value = serde_json::from_str(&said.out).unwrap_or_default();
        (
            said.code,
            document["verdict"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let ok = (Some(0), "ok".to_owned());
    let warning = (Some(0), "warning".to_owned());
    assert_eq!(verdict(&[("LINGER_CONFIG", &path)], &[]), warning);
    assert_eq!(
        verdict(&[("LINGER_CONFIG", &path)], &["--config", "/dev/null"]),
        ok
    );
    assert_eq!(verdict(&[("LINGER_CONFIG", Path::new(""))], &[]), ok);
    assert_eq!(
        verdict(&[("LINGER_CONFIG", Path::new("/no/such"))], &[]).0,
        Some(2)
    );
    let home = directory.path();
    assert_eq!(verdict(&[("HOME", home)], &[]), ok, "it has none");
    let place = home.join(".config/linger");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::copy(&path, place.join("linger.toml")).unwrap();
    assert_eq!(verdict(&[("HOME", home)], &[]), warning);
    assert_eq!(
        verdict(&[("XDG_CONFIG_HOME", &home.join(".config"))], &[]),
        warning
    );
    assert_eq!(
        verdict(
            &[("HOME", home), ("XDG_CONFIG_HOME", Path::new("/nowhere"))],
            &[]
        ),
        ok
    );
    assert_eq!(verdict(&[("HOME", home)], &["--config", "/dev/null"]), ok);
}

#[test]
fn the_exit_code_tells_what_was_found_if_asked_to() {
    let (_directory, path) = file(LEAK);
    let code = |line: &str| run(line).code;
    assert_eq!(
        code(&with(&path, "diagnose")),
        Some(0),
        "unasked it does not"
    );
    assert_eq!(code(&with(&path, "diagnose --exit-code")), Some(10));
    assert_eq!(code(&with(&path, "diagnose --exit-code --json")), Some(10));
    assert_eq!(code(&from("diagnose --exit-code")), Some(0));
    // Without tcp_info the age is not known, and the finding was asked for by name.
    let blind = "diagnose --only close-wait-leak --from tests/data/v1-procfs.linger";
    assert_eq!(code(&format!("{blind} --exit-code")), Some(12));
    assert_eq!(code(blind), Some(0));
    assert_eq!(code("diagnose --exit-code --from /no/such.linger"), Some(1));
    assert_eq!(code("diagnose --exit-code --only nonsense"), Some(2));
    // Info is no warning.
    let info = "diagnose --threshold close-wait-leak.age=1ms --threshold close-wait-leak.min=1 --exit-code";
    assert_eq!(code(&from(info)), Some(0));
}

#[test]
fn the_manual_has_every_key_and_every_limit() {
    let page = quiet("man toml");
    assert_eq!(quiet("man linger.toml"), page);
    assert!(
        page.starts_with(".TH LINGER.TOML 5 ") || page.contains("\n.TH LINGER.TOML 5 "),
        "{page}"
    );
    for word in [
        "only",
        "skip",
        "override",
        "mute",
        "reason",
        "expires",
        "destination",
        "unit",
    ] {
        assert!(page.contains(&format!(".TP\n{word}\n")), "{word}: {page}");
    }
    assert!(page.contains(".TP\nage = \"60s\"\n"), "{page}");
}
