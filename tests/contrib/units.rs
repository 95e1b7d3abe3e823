//! The systemd units: systemd accepts them, and what they are let off is what they cannot do without.

use std::fs;
use std::process::Command;

use crate::tools::{accepts, contrib, have, said, text};

const SERVICES: [&str; 2] = ["linger-export.service", "linger-check.service"];
const UNITS: [&str; 3] = [SERVICES[0], SERVICES[1], "linger-check.timer"];

/// Of 100, which is a service without any hardening; `systemd-analyze` calls below 30 "OK".
const EXPOSURE: &str = "25";

/// The last value that a unit gives to a setting.
pub fn setting(unit: &str, key: &str) -> Option<String> {
    let text = text(&format!("systemd/{unit}"));
    let value = text
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .next_back()?;
    Some(value.to_owned())
}

#[test]
fn systemd_accepts_the_units() {
    if !have("systemd-analyze", "systemd") {
        return;
    }
    // It wants to find the program.
    let scratch = tempfile::tempdir().unwrap();
    let install = |unit: &str, text: &str| {
        let path = scratch.path().join(unit);
        let here = text.replace("/usr/bin/linger", env!("CARGO_BIN_EXE_linger"));
        fs::write(&path, here).unwrap();
        path
    };
    for unit in UNITS {
        install(unit, &text(&format!("systemd/{unit}")));
    }
    let verify = |unit: &str| {
        let mut command = Command::new("systemd-analyze");
        command
            .args(["verify", "--man=no", "--recursive-errors=no"])
            .arg(scratch.path().join(unit))
            // Looked up here first, so that the timer finds its service.
            .env(
                "SYSTEMD_UNIT_PATH",
                format!("{}:", scratch.path().display()),
            );
        command
    };
    for unit in UNITS {
        let said = accepts(&mut verify(unit));
        assert!(!said.contains(unit), "{said}");
    }
    let broken = text("systemd/linger-export.service").replace("NoNewPrivileges", "NoNewPrivilege");
    install("linger-export.service", &broken);
    let output = verify("linger-export.service").output().unwrap();
    assert!(said(&output).contains("NoNewPrivilege"), "verify reads");
}

#[test]
fn the_services_are_locked_up() {
    if !have("systemd-analyze", "systemd") {
        return;
    }
    for unit in SERVICES {
        let mut command = Command::new("systemd-analyze");
        command
            .args(["security", "--offline=true", "--no-pager", "--threshold"])
            .arg(EXPOSURE)
            .arg(contrib("systemd").join(unit));
        accepts(&mut command);
    }
}

#[test]
fn both_services_are_one_user_with_one_history_and_the_same_lock() {
    let [export, check] = SERVICES.map(|unit| text(&format!("systemd/{unit}")));
    let lock = |text: &str| -> Vec<String> {
        let from = text.find("DynamicUser=").unwrap();
        let lines = text[from..].lines().take_while(|line| *line != "[Install]");
        let settings = lines.filter(|line| !line.starts_with('#') && !line.is_empty());
        settings.map(str::to_owned).collect()
    };
    assert_eq!(lock(&export), lock(&check));
    assert_eq!(
        setting(SERVICES[0], "AmbientCapabilities"),
        setting(SERVICES[0], "CapabilityBoundingSet")
    );
}
