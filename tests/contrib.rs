//! What `contrib/` ships is made from, or held against, what the program is, and the tools that will read it accept it.
//!
//! `UPDATE_CONTRIB=1 cargo test --test contrib` writes anew what is generated. Needs `promtool`, `systemd-analyze`,
//! `strace`, `nagios4`, `icinga2` and `setpriv`; where one is missing its test is skipped, which `CI` turns into a failure.

#[path = "contrib/alerts.rs"]
mod alerts;
#[path = "contrib/dashboard.rs"]
mod dashboard;
#[path = "contrib/plugins.rs"]
mod plugins;
#[path = "contrib/privileges.rs"]
mod privileges;
#[path = "contrib/prometheus.rs"]
mod prometheus;
#[path = "contrib/syscalls.rs"]
mod syscalls;
#[path = "contrib/tools.rs"]
mod tools;
#[path = "contrib/units.rs"]
mod units;
