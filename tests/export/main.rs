//! The exporter as Prometheus and hostile clients meet it: the program itself on a port of loopback, and files that it writes.

mod clients;
mod exporter;
mod files;
mod metrics;
mod server;
