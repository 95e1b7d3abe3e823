//! The exporter as Prometheus and hostile clients meet it: the program itself on a port of loopback, and files that it writes.

#[cfg(test)]
mod clients;
#[cfg(test)]
mod exporter;
#[cfg(test)]
mod files;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod server;
