//! Tools of other packages, and the files under `contrib/`.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A file or directory under `contrib/`.
pub fn contrib(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "contrib", name]
        .iter()
        .collect()
}

pub fn text(name: &str) -> String {
    fs::read_to_string(contrib(name)).unwrap_or_else(|error| panic!("contrib/{name}: {error}"))
}

/// Whether the tool is there. Under CI it has to be.
pub fn have(tool: &str, package: &str) -> bool {
    let found = Command::new(tool)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let missing = matches!(&found, Err(error) if error.kind() == ErrorKind::NotFound);
    if missing {
        let how = format!("`{tool}` is missing: apt-get install --no-install-recommends {package}");
        assert!(std::env::var_os("CI").is_none(), "{how}");
        eprintln!("skipped: {how}");
    }
    !missing
}

/// All that it printed, if it succeeded.
pub fn accepts(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

pub fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Writes a generated file if that was asked for; else it has to be what is there.
pub fn is_fresh(name: &str, generated: &str) {
    if std::env::var_os("UPDATE_CONTRIB").is_some() {
        fs::write(contrib(name), generated).unwrap();
    }
    let there = fs::read_to_string(contrib(name)).unwrap_or_default();
    let differs = generated
        .lines()
        .zip(there.lines().chain(std::iter::repeat("")))
        .find(|(new, old)| new != old);
    assert!(
        there == generated,
        "contrib/{name} is not what the detectors say (first difference: {differs:?}): \
         UPDATE_CONTRIB=1 cargo test --test contrib"
    );
}
