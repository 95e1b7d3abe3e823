//! Where metrics are served: from what is typed to sockets that listen.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use crate::cli::failure::Failure;

/// Connections that may wait to be taken: a flood does not push out who comes meanwhile.
const BACKLOG: i32 = 1024;

/// Sockets that listen where the text says: `ADDR:PORT`, `[ADDR]:PORT`, `NAME:PORT`, or `:PORT` for all addresses.
///
/// # Errors
/// For what is no address, and for one that cannot be listened on.
pub fn open(text: &str) -> Result<Vec<TcpListener>, Failure> {
    let failed = |error: &io::Error| failed(text, error);
    if let Some(port) = text.strip_prefix(':') {
        let port: u16 = port.parse().map_err(|_| not_understood(text))?;
        // One socket for both families, or IPv4 where there is no IPv6.
        let both = one((Ipv6Addr::UNSPECIFIED, port).into());
        let opened = match both {
            Err(error) if no_family(&error) => one((Ipv4Addr::UNSPECIFIED, port).into()),
            done => done,
        };
        return Ok(vec![opened.map_err(|error| failed(&error))?]);
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| not_understood(text))?;
    let bare = host.contains(':') && !host.starts_with('[');
    if host.is_empty() || bare || port.parse::<u16>().is_err() {
        return Err(not_understood(text));
    }
    let resolved = text.to_socket_addrs().map_err(|error| {
        Failure::failed(
            format!("cannot listen on '{text}': {error}"),
            Some("only names are looked up: 127.0.0.1:9995, [::1]:9995, :9995".to_owned()),
        )
    })?;
    let mut addresses: Vec<SocketAddr> = resolved.collect();
    addresses.dedup();
    let (mut opened, mut refused) = (Vec::new(), None);
    for address in addresses {
        match one(address) {
            Ok(listener) => opened.push(listener),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    match refused {
        // Of a name with addresses of both families one may be none of this machine's.
        Some(error) if opened.is_empty() || !no_family(&error) => Err(failed(&error)),
        _ => Ok(opened),
    }
}

fn one(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // What a server that was here before has left in TIME-WAIT keeps nobody from listening.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // Whatever net.ipv6.bindv6only says: all addresses are all.
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Whether the machine lacks the family, or the address.
fn no_family(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn not_understood(text: &str) -> Failure {
    Failure::usage(
        format!("--web.listen-address '{text}' is no address and port"),
        "127.0.0.1:9995, [::1]:9995, or :9995 for all addresses".to_owned(),
    )
}

fn failed(text: &str, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let port = text.rsplit(':').next().unwrap_or_default();
            format!("'linger :{port}' shows who listens there; --web.listen-address names another")
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface has this address; :PORT is all that there are".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "a port below 1024 takes root or CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => "--web.listen-address names another address and port".to_owned(),
    };
    Failure::failed(format!("cannot listen on '{text}': {error}"), Some(hint))
}
