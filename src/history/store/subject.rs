//! The subject of a finding in a form that tells its kinds by number: JSON's tag needs a format that describes itself.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::Subject;

#[derive(Serialize, Deserialize)]
enum Kept {
    Process {
        pid: Option<u32>,
        comm: Option<String>,
        uid: Option<u32>,
        unit: Option<String>,
        container: Option<String>,
    },
    Listener {
        address: IpAddr,
        port: u16,
        pid: Option<u32>,
        comm: Option<String>,
        unit: Option<String>,
        container: Option<String>,
    },
    Peer {
        address: IpAddr,
    },
    Destination {
        address: IpAddr,
        port: u16,
        source_address: Option<IpAddr>,
    },
    Host,
}

/// Writes it.
///
/// # Errors
/// Those of the format.
pub fn serialize<S: Serializer>(subject: &Subject, serializer: S) -> Result<S::Ok, S::Error> {
    let kept = match subject.clone() {
        Subject::Process {
            pid,
            comm,
            uid,
            unit,
            container,
        } => Kept::Process {
            pid,
            comm,
            uid,
            unit,
            container,
        },
        Subject::Listener {
            address,
            port,
            pid,
            comm,
            unit,
            container,
        } => Kept::Listener {
            address,
            port,
            pid,
            comm,
            unit,
            container,
        },
        Subject::Peer { address } => Kept::Peer { address },
        Subject::Destination {
            address,
            port,
            source_address,
        } => Kept::Destination {
            address,
            port,
            source_address,
        },
        Subject::Host => Kept::Host,
    };
    kept.serialize(serializer)
}

/// Reads it.
///
/// # Errors
/// Those of the format.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Subject, D::Error> {
    Ok(match Kept::deserialize(deserializer)? {
        Kept::Process {
            pid,
            comm,
            uid,
            unit,
            container,
        } => Subject::Process {
            pid,
            comm,
            uid,
            unit,
            container,
        },
        Kept::Listener {
            address,
            port,
            pid,
            comm,
            unit,
            container,
        } => Subject::Listener {
            address,
            port,
            pid,
            comm,
            unit,
            container,
        },
        Kept::Peer { address } => Subject::Peer { address },
        Kept::Destination {
            address,
            port,
            source_address,
        } => Subject::Destination {
            address,
            port,
            source_address,
        },
        Kept::Host => Subject::Host,
    })
}
