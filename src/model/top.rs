//! Who holds most, as data.

use std::net::IpAddr;

use super::{Process, Socket};

/// Who holds most, each list with the largest first.
#[derive(Clone, Debug, Default)]
pub struct Top<'a> {
    /// processes by TCP sockets
    pub processes: Vec<(&'a Process, u64)>,
    /// remote addresses by sockets
    pub peers: Vec<(IpAddr, u64)>,
    /// LISTEN sockets by connections on their port
    pub listeners: Vec<(&'a Socket, u64)>,
}
