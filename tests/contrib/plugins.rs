//! The definitions for Nagios and Icinga, read by these programs themselves.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::tools::{accepts, have, said, text};

/// A directory that a daemon may read that gives up being root.
fn readable() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// What a site has around it: a host, its templates, somebody to notify.
const NAGIOS_SITE: &str = "
define timeperiod {
    timeperiod_name 24x7
    alias always
    monday 00:00-24:00
}
define command {
    command_name notify
    command_line /bin/true
}
define contact {
    contact_name root
    service_notification_commands notify
    host_notification_commands notify
    service_notification_period 24x7
    host_notification_period 24x7
}
define service {
    name generic-service
    register 0
    max_check_attempts 3
    check_interval 5
    retry_interval 1
    check_period 24x7
    notification_period 24x7
    notification_interval 0
    contacts root
}
define host {
    host_name localhost
    address 127.0.0.1
    max_check_attempts 3
    check_period 24x7
    notification_period 24x7
    contacts root
}
";

fn nagios(directory: &Path, definitions: &str) -> Command {
    let inside = |name: &str| directory.join(name).display().to_string();
    fs::write(inside("site.cfg"), NAGIOS_SITE).unwrap();
    fs::write(inside("linger.cfg"), definitions).unwrap();
    fs::write(inside("resource.cfg"), "$USER1$=/usr/lib/nagios/plugins\n").unwrap();
    let main = format!(
        "log_file={}\ncfg_file={}\ncfg_file={}\nresource_file={}\nobject_cache_file={}\nstatus_file={}\n\
         state_retention_file={}\ntemp_path={}\ncheck_result_path={}\nnagios_user=root\nnagios_group=root\n\
         illegal_macro_output_chars=`~$&|'\"<>\n",
        inside("nagios.log"),
        inside("site.cfg"),
        inside("linger.cfg"),
        inside("resource.cfg"),
        inside("objects.cache"),
        inside("status.dat"),
        inside("retention.dat"),
        directory.display(),
        directory.display(),
    );
    fs::write(inside("nagios.cfg"), main).unwrap();
    let mut command = Command::new("nagios4");
    command.arg("-v").arg(directory.join("nagios.cfg"));
    command
}

#[test]
fn nagios_accepts_the_definitions() {
    if !have("nagios4", "nagios4-core") {
        return;
    }
    let directory = readable();
    let definitions = text("nagios/linger.cfg");
    let said_of_ours = accepts(&mut nagios(directory.path(), &definitions));
    assert!(
        said_of_ours.contains("Total Warnings: 0") && said_of_ours.contains("Checked 3 services"),
        "{said_of_ours}"
    );
    let broken = definitions.replace("check_linger!", "check_lingers!");
    let output = nagios(directory.path(), &broken).output().unwrap();
    assert!(!output.status.success(), "{}", said(&output));
}

/// A host with an agent, as `linger.conf` expects it.
const ICINGA_SITE: &str = r#"
include <itl>
include <plugins>
const PluginDir = "/usr/lib/nagios/plugins"
object Endpoint NodeName { }
object Endpoint "web-7" { }
object Zone "all" { endpoints = [ NodeName, "web-7" ] }
object Host "web-7" {
  zone = "all"
  check_command = "dummy"
  vars.agent_endpoint = "web-7"
  vars.linger = true
  vars.linger_metrics["close-wait"] = { metric = "tcp.close-wait", warning = "50", critical = "200" }
  vars.linger_metrics["https queue"] = { metric = "listener[443].queue-ratio", warning = "0.7", critical = "0.9" }
}
"#;

fn icinga(directory: &Path, definitions: &str) -> Command {
    let ours = directory.join("linger.conf");
    fs::write(&ours, definitions).unwrap();
    let main = directory.join("icinga2.conf");
    let include = format!("{ICINGA_SITE}include {:?}\n", ours.display().to_string());
    fs::write(&main, include).unwrap();
    let mut command = Command::new("icinga2");
    command.args(["daemon", "-C", "-c"]).arg(main);
    command
}

#[test]
fn icinga_accepts_the_definitions_and_makes_the_services() {
    if !have("icinga2", "icinga2-bin") {
        return;
    }
    let directory = readable();
    let definitions = text("icinga/linger.conf");
    let said_of_ours = accepts(&mut icinga(directory.path(), &definitions));
    assert!(
        said_of_ours.contains("Instantiated 3 Services") && !said_of_ours.contains("warning/"),
        "{said_of_ours}"
    );
    let broken = definitions.replace("check_command = \"linger\"", "check_command = \"lingers\"");
    let output = icinga(directory.path(), &broken).output().unwrap();
    assert!(!output.status.success(), "{}", said(&output));
}

/// The plugin, called by its name, that finds and leaves nothing on this machine.
fn plugin(directory: &Path, arguments: &[&str]) -> Output {
    let path = directory.join("check_linger");
    if !path.exists() {
        symlink(env!("CARGO_BIN_EXE_linger"), &path).unwrap();
    }
    Command::new(path)
        .args(arguments)
        .env_remove("LINGER_CONFIG")
        .env("HOME", directory)
        .env("STATE_DIRECTORY", directory)
        .output()
        .unwrap()
}

#[test]
fn icinga_gives_the_plugin_options_that_it_has() {
    let directory = readable();
    let help = said(&plugin(directory.path(), &["--help"]));
    let known: BTreeSet<&str> = help
        .split(|c: char| c.is_whitespace() || c == ',' || c == '=')
        .filter(|word| word.starts_with('-'))
        .collect();
    let text = text("icinga/linger.conf");
    let given: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("    \"-")?.split_once('"'))
        .map(|(name, _)| name)
        .collect();
    assert!(given.len() > 10, "{given:?}");
    for name in given {
        assert!(known.contains(&*format!("-{name}")), "-{name}: {help}");
    }
    let needed = [
        "--only",
        "--skip",
        "--threshold",
        "--expect-listener",
        "--metric",
        "-w",
        "-c",
        "-t",
        "-v",
    ];
    for option in needed {
        assert!(text.contains(&format!("\"{option}\" = {{")), "{option}");
    }
}

/// The words of a line that begins with this one.
fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.trim().strip_prefix(name)?;
    rest.starts_with(' ').then(|| rest.trim())
}

/// What Nagios would run for a service: the command's line with the arguments filled in, from the plugin's options on.
fn options(text: &str, check: &str) -> String {
    let mut arguments = check.split('!');
    let name = arguments.next().unwrap();
    let mut lines = text
        .lines()
        .skip_while(|line| value(line, "command_name") != Some(name));
    let line = lines.find_map(|line| value(line, "command_line")).unwrap();
    let (_, options) = line.split_once("/check_linger ").unwrap();
    let fill = |options: String, (at, argument): (usize, &str)| {
        options.replace(&format!("$ARG{}$", at + 1), argument)
    };
    arguments.enumerate().fold(options.to_owned(), fill)
}

#[test]
fn the_plugin_judges_what_the_services_of_nagios_ask() {
    let directory = readable();
    let text = text("nagios/linger.cfg");
    let checks: Vec<&str> = text
        .lines()
        .filter_map(|line| value(line, "check_command"))
        .collect();
    assert_eq!(checks.len(), 3);
    for check in checks {
        let options = options(&text, check);
        let words: Vec<&str> = options
            .split_whitespace()
            .map(|word| word.trim_matches('\''))
            .collect();
        let output = plugin(directory.path(), &words);
        let said = said(&output);
        assert!(said.starts_with("LINGER "), "{options}: {said}");
        // Whether somebody listens on 22 here is not the question; that it judges is.
        let code = output.status.code();
        assert!(matches!(code, Some(0..=2)), "{options}: {said}");
    }
}
