//! What `contrib/` ships is made from, or held against, what the program is, and the tools that will read it accept it.
//!
//! `UPDATE_CONTRIB=1 cargo test --test contrib` writes anew what is generated. Needs `promtool`, `systemd-analyze`,
//! `strace`, `nagios4`, `icinga2` and `setpriv`; where one is missing its test is skipped, which `CI` turns into a failure.

#[cfg(test)]
#[path = "contrib/alerts.rs"]
mod alerts;
#[cfg(test)]
#[path = "contrib/dashboard.rs"]
mod dashboard;
#[cfg(test)]
#[path = "contrib/plugins.rs"]
mod plugins;
#[cfg(test)]
#[path = "contrib/privileges.rs"]
mod privileges;
#[cfg(test)]
#[path = "contrib/prometheus.rs"]
mod prometheus;
#[cfg(test)]
#[path = "contrib/syscalls.rs"]
mod syscalls;
#[cfg(test)]
#[path = "contrib/tools.rs"]
mod tools;
#[cfg(test)]
#[path = "contrib/units.rs"]
mod units;
