//! The definitions for Nagios and Icinga, read by these programs themselves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

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
