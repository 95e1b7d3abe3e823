//! What the units' capabilities buy: with them the owners of other users' sockets, without one of them none.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::tools::have;
use crate::units::setting;

/// A copy of the program that everybody may run, wherever the build is.
struct Installed(TempDir);

impl Installed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let everybody = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), everybody).unwrap();
        fs::copy(
            env!("CARGO_BIN_EXE_linger"),
            directory.path().join("linger"),
        )
        .unwrap();
        Self(directory)
    }

    /// A document of linger, run by nobody with these capabilities and no other.
    fn document(&self, capabilities: &[&str], arguments: &[&str]) -> Value {
        let set: String = capabilities
            .iter()
            .map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()))
            .collect();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["--no-new-privs", "--inh-caps"])
            .arg(format!("-all{set}"))
            .arg(format!("--ambient-caps=-all{set}"))
            .arg(format!("--bounding-set=-all{set}"))
            .arg(self.0.path().join("linger"))
            .args(arguments)
            .env_clear()
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        let document = serde_json::from_slice(&output.stdout);
        document.unwrap_or_else(|error| panic!("{command:?}: {error}: {output:?}"))
    }
}

#[test]
fn the_units_capabilities_show_whose_sockets_they_are_and_each_is_needed() {
    if !have("setpriv", "util-linux") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        let how = "to become nobody with capabilities takes root";
        assert!(std::env::var_os("CI").is_none(), "{how}");
        eprintln!("skipped: {how}");
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let installed = Installed::new();
    let filter = format!("sport = :{port}");
    let owner = |capabilities: &[&str]| {
        let document =
            installed.document(capabilities, &["list", "-tlnp", "--json", "--", &filter]);
        let sockets = document["sockets"].as_array().unwrap();
        assert_eq!(sockets.len(), 1, "listing takes no capability: {document}");
        sockets[0]["owners"][0]["pid"].as_u64()
    };
    let given = setting("linger-export.service", "AmbientCapabilities").unwrap();
    let given: Vec<&str> = given.split(' ').collect();
    let this = Some(u64::from(std::process::id()));
    assert_eq!(owner(&given), this);
    assert_eq!(owner(&[]), None);
    for left_out in &given {
        let rest: Vec<&str> = given
            .iter()
            .copied()
            .filter(|one| one != left_out)
            .collect();
        assert_eq!(owner(&rest), None, "{left_out} is not needed");
    }
    let unreadable = |capabilities: &[&str]| {
        let status = installed.document(capabilities, &["status", "--json"]);
        status["warnings"].to_string()
    };
    assert_ne!(
        unreadable(&given),
        unreadable(&[]),
        "what could not be read is said"
    );
}
