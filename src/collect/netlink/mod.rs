//! Sockets through `sock_diag` (`NETLINK_SOCK_DIAG`, `include/uapi/linux/{inet,unix,packet,netlink,vm_sockets}_diag.h`).
//!
//! One request a table with the states as a mask, and a program where there is one, so that the kernel walks its table
//! but copies only what is wanted; the answers are decoded in place and pushed.

#[cfg(test)]
mod built;
mod decode;
mod destroy;
mod others;
mod request;
mod secrets;
mod slices;
mod stream;

use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use rustix::io::Errno;
use rustix::net::RecvFlags;

pub use self::destroy::{Destroyed, Refusal, has_net_admin};
pub use self::secrets::wipe;
pub use self::stream::{Progress, Stream, TCPDIAG_GETSOCK, end};
use super::procfs::ProcRoot;
use super::{Error, Row, RowSink, Table, Tee, Want};
use crate::model::{Attributes, Collector, Coverage, Part, Program, Protocol, TcpState};

/// What the kernel fills at most; a larger buffer gains nothing.
const BUFFER: usize = 32 * 1024;

/// How long the kernel may be silent. It answers a dump in microseconds; silence means that no answer will come.
const SILENCE: Duration = Duration::from_secs(10);

/// So many TCP sockets in a namespace are many: other threads receive them, and they come in no order.
const MANY: u64 = 50_000;

/// `sizeof(struct nlmsghdr)`
const HEADER: usize = 16;

/// The attributes in a whole message about a TCP socket, as a dump sent it; none if it is no such message.
pub fn attributes(message: &[u8]) -> Attributes<'_> {
    let payload = message.get(HEADER..).unwrap_or_default();
    decode::inet(payload, Protocol::Tcp).map_or_else(Attributes::default, |(_, found)| found)
}

/// How TCP sockets of both families are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// by threads, while their rows are read, in so many slices
    AtOnce(NonZeroUsize),
    /// by one request
    Mixed,
    /// by one request for each family
    Apart,
}

/// A `sock_diag` socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    /// whether the TCP sockets of both families may come mixed, for one walk through the kernel's table instead of two
    mixed: bool,
    /// in how many slices they come, where that was said
    slices: Option<NonZeroUsize>,
    /// the inode of the network namespace it was opened in
    home: Option<u64>,
}

impl Netlink {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`Error::NoSockDiag`] where the kernel or a sandbox refuses it.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            socket: connected()?,
            sequence: 0,
            buffer: vec![0; BUFFER],
            mixed: false,
            slices: None,
            home: here(),
        })
    }

    /// Whether the TCP sockets of both families, where both are wanted and neither a program nor a tee says otherwise, are
    /// asked for at once and come in no order. The kernel walks through its whole table for each request, however few
    /// sockets there are (3 ms for 262,144 buckets).
    pub const fn mix_families(&mut self, mixed: bool) {
        self.mixed = mixed;
    }

    /// Has the TCP sockets of both families, where neither a program nor a tee says otherwise, be received by so many threads
    /// at once, and come in no order. `None`: only where there are many.
    pub const fn cut(&mut self, slices: Option<NonZeroUsize>) {
        self.slices = slices;
    }

    /// How to ask for TCP sockets of both families.
    fn way(&self, want: &Want) -> Way {
        // Other sockets for other requests are opened where the calling thread is now.
        let at_home = self.home.is_some() && self.home == here();
        let apart = want.states.contains(TcpState::Established) && at_home;
        match self.slices {
            Some(slices) if apart => Way::AtOnce(slices),
            _ if apart && ProcRoot::default().tcp_sockets().is_some_and(|n| n >= MANY) => {
                Way::AtOnce(slices::as_many_as_pay())
            }
            _ if self.mixed => Way::Mixed,
            _ => Way::Apart,
        }
    }

    /// Dumps the wanted sockets, IPv4 first. Of those that `program` does not let through the kernel sends few or none.
    ///
    /// # Errors
    /// [`Error::NoSockDiag`] if the kernel refused the first dump, so that nothing was pushed; [`Error::Dump`] if a
    /// dump broke off; [`Error::Unfiltered`] if a program that is required was refused.
    pub fn dump(
        &mut self,
        want: &Want,
        program: &Program,
        row: &mut RowSink<'_>,
        mut tee: Option<&mut Tee<'_>>,
    ) -> Result<Coverage, Error> {
        let mut coverage = Coverage {
            collector: Collector::Netlink,
            ..Coverage::default()
        };
        let mut answered = false;
        let both = want.protocol == Protocol::Tcp && want.tables().count() > 1;
        if both && tee.is_none() && program.is_everything() {
            let done = match self.way(want) {
                Way::AtOnce(slices) => self.at_once(want, slices.get(), &mut coverage, row),
                Way::Mixed => self.both(want, &mut coverage, row),
                Way::Apart => Ok(None),
            };
            match done {
                Ok(Some(Progress::Failed(source))) => {
                    let what = Protocol::Tcp.sockets().to_owned();
                    return Err(Error::Dump { what, source });
                }
                Ok(Some(_)) => return Ok(coverage),
                // Refused, or not known to this kernel: then each by itself, as ever.
                Ok(None) | Err(Error::NoSockDiag(_)) => self.mixed = false,
                Err(error) => return Err(error),
            }
        }
        for table in want.tables() {
            let forms: &[Vec<u8>] = match program.part(table.family) {
                Part::Nothing => continue,
                Part::Everything => &[],
                Part::Filtered(forms) => forms,
            };
            let mut forms = forms.iter();
            let mut pushed = false;
            let result = loop {
                let mut row = |pushing: Row<'_>| {
                    pushed = true;
                    row(pushing)
                };
                let form = forms.next().map(Vec::as_slice);
                let tee = tee.as_deref_mut();
                let result = self.table(table, want, form, &mut coverage, &mut row, tee);
                // A program is refused before the first row; then a plainer form is tried, and in the end none.
                match &result {
                    Ok(Progress::Failed(source))
                        if form.is_some() && !pushed && no_program(source) =>
                    {
                        if program.required && forms.len() == 0 {
                            return Err(Error::Unfiltered(describe(source)));
                        }
                    }
                    _ => break result,
                }
            };
            match result {
                Ok(Progress::Stopped) => return Ok(coverage),
                Ok(Progress::Failed(source)) if refused(&source) && !answered => {
                    return Err(Error::NoSockDiag(why(table, &source)));
                }
                Ok(Progress::Failed(source)) if refused(&source) => {
                    let part = format!("{}: {}", table.label(), why(table, &source));
                    coverage.missing.push(part);
                }
                Ok(Progress::Failed(source)) => {
                    return Err(Error::Dump {
                        what: table.label(),
                        source,
                    });
                }
                Ok(Progress::Done | Progress::More) => answered = true,
                Err(Error::NoSockDiag(why)) if answered => {
                    coverage.missing.push(format!("{}: {why}", table.label()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(coverage)
    }

    /// Dumps the TCP sockets of both families at once. `None`: that is refused, and nothing was pushed.
    fn both(
        &mut self,
        want: &Want,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
    ) -> Result<Option<Progress>, Error> {
        let table = Table::without_family(Protocol::Tcp);
        let mut pushed = false;
        let mut row = |pushing: Row<'_>| {
            pushed = true;
            row(pushing)
        };
        self.sequence = self.sequence.wrapping_add(1);
        let request = request::of_both(want, None, self.sequence);
        let progress = self.exchange(&request, table, want, coverage, &mut row, None)?;
        Ok(match progress {
            Progress::Failed(source) if refused(&source) && !pushed => None,
            progress => Some(progress),
        })
    }

    fn table(
        &mut self,
        table: Table,
        want: &Want,
        form: Option<&[u8]>,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
        tee: Option<&mut Tee<'_>>,
    ) -> Result<Progress, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request::of(table, want, form, self.sequence);
        self.exchange(&request, table, want, coverage, row, tee)
    }

    /// Sends a request and reads the answer.
    fn exchange(
        &mut self,
        request: &[u8],
        table: Table,
        want: &Want,
        coverage: &mut Coverage,
        row: &mut RowSink<'_>,
        mut tee: Option<&mut Tee<'_>>,
    ) -> Result<Progress, Error> {
        self.socket
            .send(request, 0)
            .map_err(|source| Error::NoSockDiag(why(table, &source)))?;
        let mut stream = Stream::new(Some(self.sequence));
        loop {
            let received =
                match rustix::net::recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::TRUNC)
                {
                    Ok((_, length)) => length,
                    Err(Errno::INTR) => continue,
                    Err(Errno::NOBUFS) => {
                        coverage.lost += 1;
                        continue;
                    }
                    Err(errno) => return Err(failed(table, errno, stream.rows())),
                };
            // With MSG_TRUNC the length is the datagram's own, so a cut is seen; the stream counts the message.
            let datagram = self
                .buffer
                .get_mut(..received.min(BUFFER))
                .unwrap_or_default();
            if let Some(tee) = tee.as_deref_mut() {
                wipe(datagram);
                tee(Collector::Netlink, table, datagram);
            }
            let progress = stream.feed(datagram, want, coverage, row);
            if matches!(progress, Progress::Stopped) {
                // The rest of the answer would be read as the answer to the next request: start afresh.
                self.socket = connected()?;
            }
            if !matches!(progress, Progress::More) {
                return Ok(progress);
            }
        }
    }
}

/// A socket that speaks to the kernel alone.
fn connected() -> Result<Socket, Error> {
    let refused = |source: io::Error| Error::NoSockDiag(describe(&source));
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).map_err(refused)?;
    socket.bind_auto().map_err(refused)?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(refused)?;
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(SILENCE),
    )
    .map_err(|errno| refused(errno.into()))?;
    Ok(socket)
}

/// Why no more can be received of a dump that has brought so many rows.
fn failed(table: Table, errno: Errno, rows: u64) -> Error {
    match errno {
        // Refused before any answer: a sandbox that lets the socket exist but not speak.
        errno if rows == 0 && refused(&errno.into()) => {
            Error::NoSockDiag(why(table, &errno.into()))
        }
        Errno::AGAIN => Error::Dump {
            what: table.label(),
            source: io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the kernel was silent for {} s", SILENCE.as_secs()),
            ),
        },
        errno => Error::Netlink {
            what: "cannot receive from sock_diag",
            source: errno.into(),
        },
    }
}

/// The inode of the network namespace of the calling thread.
fn here() -> Option<u64> {
    ProcRoot::default().netns_inode()
}

/// Whether the answer means that this kernel, or the sandbox around us, has no `sock_diag` for us: no module
/// (ENOENT), no such protocol, seccomp, SELinux, gVisor.
fn refused(error: &io::Error) -> bool {
    let refusals = [
        Errno::NOENT,
        Errno::PROTONOSUPPORT,
        Errno::AFNOSUPPORT,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::INVAL,
        Errno::ACCESS,
        Errno::PERM,
        Errno::CONNREFUSED,
    ];
    Errno::from_io_error(error).is_some_and(|errno| refusals.contains(&errno))
}

/// Whether the answer may mean the program: unknown operations (EINVAL), marks without CAP_NET_ADMIN (EPERM).
fn no_program(error: &io::Error) -> bool {
    let refusals = [Errno::INVAL, Errno::PERM];
    Errno::from_io_error(error).is_some_and(|errno| refusals.contains(&errno))
}

/// The error of a table; a module that is missing by its name.
fn why(table: Table, error: &io::Error) -> String {
    let module = match table.protocol {
        Protocol::Tcp => return describe(error),
        Protocol::Mptcp => "mptcp_diag",
        Protocol::Udp | Protocol::UdpLite => "udp_diag",
        Protocol::Raw => "raw_diag",
        Protocol::Sctp => "sctp_diag",
        Protocol::Unix => "unix_diag",
        Protocol::Packet => "af_packet_diag",
        Protocol::Netlink => "netlink_diag",
        Protocol::Vsock => "vsock_diag",
    };
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => format!("ENOENT, the kernel has no {module} module"),
        _ => describe(error),
    }
}

/// The error with the name that a search finds.
fn describe(error: &io::Error) -> String {
    let name = match Errno::from_io_error(error) {
        Some(Errno::NOENT) => "ENOENT, the kernel has no tcp_diag module",
        Some(Errno::PROTONOSUPPORT) => "EPROTONOSUPPORT",
        Some(Errno::AFNOSUPPORT) => "EAFNOSUPPORT",
        Some(Errno::OPNOTSUPP) => "EOPNOTSUPP",
        Some(Errno::NOSYS) => "ENOSYS",
        Some(Errno::INVAL) => "EINVAL",
        Some(Errno::ACCESS) => "EACCES",
        Some(Errno::PERM) => "EPERM",
        Some(Errno::CONNREFUSED) => "ECONNREFUSED",
        _ => return error.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests;
