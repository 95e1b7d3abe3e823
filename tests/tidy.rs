//! The shape of the code: which room may import which, and what the tools do not look at by themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each room may import, besides itself.
const MAY: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "tui",
            "render",
            "record",
            "analyze",
            "history",
            "collect",
            "query",
            "fields",
            "knowledge",
            "model",
        ],
    ),
    ("tui", &["render", "query", "fields", "knowledge", "model"]),
    ("render", &["fields", "knowledge", "model"]),
    ("record", &["collect", "model"]),
    ("analyze", &["history", "knowledge", "model"]),
    ("query", &["fields", "model"]),
    ("history", &["model"]),
    ("collect", &["model"]),
    ("fields", &["model"]),
    ("knowledge", &["model"]),
    ("model", &[]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Every room that the text names as `crate::ROOM`.
fn imports(text: &str) -> Vec<String> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| {
        line.split("crate::")
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    })
    .map(|rest| {
        rest.chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect()
    })
    .filter(|room: &String| !room.is_empty())
    .collect()
}

#[test]
fn no_room_imports_one_above_it() {
    let source = root().join("src");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in sources(&source) {
        let inner = path.strip_prefix(&source).unwrap();
        let Some(room) = inner.iter().next().and_then(|room| room.to_str()) else {
            continue;
        };
        let Some((_, may)) = MAY.iter().find(|(name, _)| *name == room) else {
            assert!(
                matches!(room, "main.rs" | "lib.rs"),
                "{room} is in no table"
            );
            continue;
        };
        for import in imports(&fs::read_to_string(&path).unwrap()) {
            seen += 1;
            if import != room && !may.contains(&import.as_str()) {
                wrong.push(format!("{}: crate::{import}", inner.display()));
            }
        }
    }
    assert!(seen > 50, "the search finds what there is");
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn only_collect_record_and_cli_touch_the_system() {
    let forbidden = [
        "std::fs",
        "std::env",
        "SystemTime",
        "Instant::now",
        "Timestamp::now",
        "rustix::",
        "netlink_sys",
    ];
    let mut wrong = Vec::new();
    for path in sources(&root().join("src")) {
        let inner = path.strip_prefix(root().join("src")).unwrap().to_path_buf();
        if ["collect", "record", "cli", "main.rs"]
            .iter()
            .any(|room| inner.starts_with(room))
        {
            continue;
        }
        // The store touches its own file, and nothing else.
        if inner.starts_with("history/store") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        // Tests may read fixtures.
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            for word in forbidden {
                if line.contains(word) {
                    wrong.push(format!("{}: {line}", inner.display()));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn detectors_are_formatted() {
    // Their modules are declared in a macro, where `cargo fmt` does not look.
    let detectors = sources(&root().join("src/analyze/detectors"));
    assert!(detectors.len() > 7);
    let output = Command::new("rustfmt")
        .args(["--check", "--edition", "2024"])
        .args(&detectors)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn every_detector_file_is_registered() {
    let directory = root().join("src/analyze/detectors");
    let registry = fs::read_to_string(directory.join("mod.rs")).unwrap();
    // A detector may keep parts of itself in a directory of its name.
    let files = sources(&directory).into_iter();
    for path in files.filter(|path| path.parent() == Some(directory.as_path())) {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(
            stem == "mod" || registry.contains(&format!("    {stem},")),
            "{stem}"
        );
    }
}

#[test]
fn files_are_rooms_and_not_halls() {
    let long: Vec<String> = sources(&root().join("src"))
        .into_iter()
        .filter(|path| fs::read_to_string(path).unwrap().lines().count() > 600)
        .map(|path| {
            path.strip_prefix(root().join("src"))
                .unwrap()
                .display()
                .to_string()
        })
        .collect();
    assert_eq!(long, Vec::<String>::new());
}

#[test]
fn the_readme_names_every_finding_with_its_summary() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let readme = readme.replace("`", "");
    for detector in linger::analyze::detectors::ALL {
        let row = format!("| {} | {} |", detector.id, detector.summary);
        assert!(readme.contains(&row), "no row in README.md: {row}");
    }
}
