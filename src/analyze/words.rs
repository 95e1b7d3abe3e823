//! The words that findings share. Names are as the processes gave them; what
//! prints them makes them safe.

pub use crate::model::words::{count, percent, thousands, time};
use crate::model::{Endpoint, Process, Snapshot, Socket, Subject};

/// `nginx[901]`.
pub fn process(process: &Process) -> String {
    format!("{}[{}]", process.comm, process.pid)
}

/// `10.0.0.1:443`, `[::1]:443`.
pub fn endpoint(endpoint: &Endpoint) -> String {
    match endpoint.ip() {
        std::net::IpAddr::V4(ip) => format!("{ip}:{}", endpoint.port),
        std::net::IpAddr::V6(ip) => format!("[{ip}]:{}", endpoint.port),
    }
}

/// Where a listener listens: `:8443` for the wildcard, else with its address.
pub fn listener(socket: &Socket) -> String {
    if socket.local.is_unspecified() {
        format!(":{}", socket.local.port)
    } else {
        endpoint(&socket.local)
    }
}

/// The process as a subject.
pub fn process_subject(owner: Option<&Process>, uid: Option<u32>) -> Subject {
    Subject::Process {
        pid: owner.map(|owner| owner.pid),
        comm: owner.map(|owner| owner.comm.clone()),
        uid: if owner.is_some() { None } else { uid },
        unit: owner.and_then(Process::unit).map(str::to_owned),
    }
}

/// The listener as a subject, with its first holder.
pub fn listener_subject(snapshot: &Snapshot, listener: &Socket) -> Subject {
    let owner = snapshot.owner(listener);
    Subject::Listener {
        address: listener.local_ip(),
        port: listener.local.port,
        pid: owner.map(|owner| owner.pid),
        comm: owner.map(|owner| owner.comm.clone()),
        unit: owner.and_then(Process::unit).map(str::to_owned),
    }
}

/// `nginx[901] :8443`, or the address alone where the holder could not be seen.
pub fn listener_title(snapshot: &Snapshot, socket: &Socket) -> String {
    match snapshot.owner(socket) {
        Some(owner) => format!("{} {}", process(owner), listener(socket)),
        None => format!("listener {}", listener(socket)),
    }
}
