//! The programs of the test. They are ended by their process ids, whatever becomes of the test.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The text of a file under `contrib/`.
pub fn contrib(name: &str) -> String {
    let path = format!("{}/contrib/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What is missing here, and how to get it.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a network namespace and a user `nobody` take root".to_owned());
    }
    let tools = [
        ("ip", "iproute2"),
        ("setpriv", "util-linux"),
        ("prometheus", "prometheus"),
        ("prometheus-node-exporter", "prometheus-node-exporter"),
    ];
    tools.into_iter().find_map(|(tool, package)| {
        let found = Command::new(tool)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        found.err().map(|error| {
            format!("`{tool}`: {error}: apt-get install --no-install-recommends {package}")
        })
    })
}

/// The files of the test, and a copy of the program that everybody may run.
pub struct Site(TempDir);

impl Site {
    pub fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        fs::set_permissions(site.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = std::env::var("LINGER_UNDER_TEST")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_linger").to_owned());
        fs::copy(program, site.path("linger")).unwrap();
        for directory in ["textfiles", "data"] {
            fs::create_dir(site.path(directory)).unwrap();
        }
        let rules = contrib("prometheus/linger.rules.yml");
        fs::write(site.path("linger.rules.yml"), rules).unwrap();
        // As shipped, but faster and with the exporters of less privilege and of a capture.
        let config = contrib("prometheus/prometheus.yml");
        let faster = config.replace(": 30s", ": 1s").replace(
            "[\"127.0.0.1:9995\"]",
            "[\"127.0.0.1:9995\", \"127.0.0.1:9996\", \"127.0.0.1:9997\"]",
        );
        assert_eq!(faster.matches(": 1s").count(), 2);
        assert!(faster.contains(":9997"));
        fs::write(site.path("prometheus.yml"), faster).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn linger(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("linger"));
        command
            .args(arguments)
            .env("STATE_DIRECTORY", self.path("state"));
        command
    }
}

/// A program that runs.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(site: &Site, name: &str, command: &mut Command) -> Self {
        let log = site.path(&format!("{name}.log"));
        let file = File::create(&log).unwrap();
        let child = command
            .current_dir(site.0.path())
            .env("HOME", site.0.path())
            // Nothing is read from or left on the machine.
            .env("STATE_DIRECTORY", site.path("state"))
            .env_remove("LINGER_CONFIG")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log }
    }

    fn end(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        // It may have ended by itself.
        kill_process(pid, Signal::TERM).ok();
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return status,
                _ if Instant::now() >= end => {
                    self.child.kill().ok();
                    return self.child.wait().unwrap();
                }
                _ => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
        if thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(15).collect();
            eprintln!("{}, last line first: {last:#?}", self.log.display());
        }
    }
}

pub struct Programs {
    exporter: Running,
    _others: Vec<Running>,
}

impl Programs {
    pub fn start(site: &Site) -> Self {
        let textfile = site.path("textfiles").join("linger.prom");
        write_textfile(site, &textfile);
        let exporter = site.linger(&["export"]);
        let nobody = {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
                .arg(site.path("linger"))
                .arg("export")
                .args(["--web.listen-address", "127.0.0.1:9996"]);
            command
        };
        // Units are where systemd runs, and in captures.
        let capture = format!("{}/tests/data/v1.linger", env!("CARGO_MANIFEST_DIR"));
        let replay = ["export", "--from", &capture];
        let replay =
            site.linger(&[&replay[..], &["--web.listen-address", "127.0.0.1:9997"]].concat());
        let node = {
            let mut command = Command::new("prometheus-node-exporter");
            command
                .args(["--collector.disable-defaults", "--collector.tcpstat"])
                .arg("--collector.textfile")
                .arg(format!(
                    "--collector.textfile.directory={}",
                    site.path("textfiles").display()
                ))
                .arg("--web.listen-address=127.0.0.1:9100");
            command
        };
        let prometheus = {
            let mut command = Command::new("prometheus");
            command
                .arg(format!(
                    "--config.file={}",
                    site.path("prometheus.yml").display()
                ))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    site.path("data").display()
                ))
                .args(["--web.listen-address=127.0.0.1:9090", "--log.level=warn"]);
            command
        };
        let start = |name: &str, mut command: Command| Running::start(site, name, &mut command);
        Self {
            exporter: start("exporter", exporter),
            _others: vec![
                start("nobody", nobody),
                start("replay", replay),
                start("node", node),
                start("prometheus", prometheus),
            ],
        }
    }

    /// Ends `linger export`.
    pub fn end_the_exporter(&mut self) -> ExitStatus {
        self.exporter.end()
    }
}

fn write_textfile(site: &Site, textfile: &Path) {
    let mut command = site.linger(&["export", "--textfile"]);
    let output = command.arg(textfile).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
